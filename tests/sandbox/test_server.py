"""The ledger over HTTP: in process, and on a real socket."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from paynexus_async import AsyncPayNexus, PaymentStatus, sandbox
from paynexus_async.sandbox import PUBLIC_KEY, SECRET_KEY, Ledger, SandboxServer, create_app

from ..stopwatch import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Iterator


class Clock:
    now = 1_769_498_238.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(clock: Clock) -> Ledger:
    return Ledger(clock=clock, plan="basic")


@pytest.fixture
def http(ledger: Ledger) -> Iterator[httpx.Client]:
    with (
        SandboxServer(ledger) as server,
        httpx.Client(base_url=server.url, headers={"X-API-Key": SECRET_KEY}) as client,
    ):
        yield client


def test_the_documented_calls_over_a_socket(http: httpx.Client, ledger: Ledger, clock: Clock):
    """All four, with the quota's headers."""
    body = {"amount": 100, "phone": "0746990866", "description": "Order #12345"}
    answer = http.post("/mpesa/payment/initiate", json=body)
    data = answer.json()["data"]
    assert (answer.status_code, answer.headers["X-RateLimit-Remaining"]) == (200, "59")
    clock.now += 10
    assert http.get(f"/payments/{data['reference']}").json()["data"]["status"] == "completed"
    by_id = {"checkout_request_id": data["checkout_request_id"]}
    assert http.post("/payments/status-by-checkout-id", json=by_id).status_code == 200
    assert http.post("/mpesa/validate-phone", json={"phone": "0746990866"}).json()["data"]["valid"]
    assert http.get("/payments", params={"per_page": 1}).json()["pagination"]["total"] == 1
    assert len(ledger.prompts) == 1


def test_an_answer_does_not_wait_for_its_head_to_be_acknowledged(http: httpx.Client):
    """That would be 40 ms for every call, even on this machine."""
    seconds = []
    for _ in range(30):
        started = time.perf_counter()
        http.get("/payments/PNXNOTHING00")
        seconds.append(time.perf_counter() - started)
    assert min(seconds[10:]) < 0.03


def test_a_bearer_token_is_a_key_too(http: httpx.Client):
    """Either header works; neither is 401."""
    del http.headers["X-API-Key"]
    assert http.get("/payments").status_code == 401
    assert (
        http.get("/payments", headers={"Authorization": f"Bearer {PUBLIC_KEY}"}).status_code == 200
    )
    assert (
        http.get("/payments", headers={"Authorization": f"Basic {PUBLIC_KEY}"}).status_code == 401
    )


@pytest.mark.parametrize(
    ("method", "path", "status_code"),
    [("GET", "/nowhere", 404), ("PUT", "/payments", 405), ("GET", "/mpesa/payment/initiate", 405)],
)
def test_the_frameworks_own_errors_come_in_the_envelope(http, method, path, status_code):
    """Nobody sees `{"detail": ...}`."""
    answer = http.request(method, path)
    assert (answer.status_code, answer.json()["success"]) == (status_code, False)


def test_a_large_body_is_refused(http: httpx.Client):
    """Without reading all of it."""
    assert http.post("/mpesa/payment/initiate", content=b" " * 10**6).status_code == 413


def test_a_look_behind_the_scenes(http: httpx.Client, ledger: Ledger):
    """The truth, for other processes."""
    http.post("/mpesa/payment/initiate", json={"amount": 100, "phone": "0746990866"})
    root = str(http.base_url).removesuffix("/api/")
    assert httpx.get(f"{root}/sandbox/health").json() == {"ok": True, "payments": 1}
    reference = ledger.prompts[0].reference
    assert httpx.get(f"{root}/sandbox/payments").json() == [
        {"reference": reference, "status": "initiated", "amount": 100, "phone": "2547*****866", "scenario": "paid"}
    ]  # fmt: skip
    assert httpx.get(f"{root}/sandbox/prompts").json()[0]["reference"] == reference
    assert httpx.get(f"{root}/sandbox/calls").json()[0]["key_kind"] == "sk_"
    script = f"{root}/sandbox/script"
    assert (
        httpx.post(script, json={"scenario": "cancelled", "phone": "0746990866"}).status_code == 200
    )
    for bad in ({"scenario": "nonsense"}, {"scenario": "paid", "phone": "1"}, {}):
        answer = httpx.post(script, json=bad)
        assert (answer.status_code, answer.json()["code"]) == (422, "VALIDATION_ERROR")
    http.post("/mpesa/payment/initiate", json={"amount": 100, "phone": "0746990866"})
    assert ledger.records[1].scenario.name == "cancelled"


def test_the_api_is_described(http: httpx.Client):
    """The documented calls, and the documented example."""
    root = str(http.base_url).removesuffix("/api/")
    paths = httpx.get(f"{root}/openapi.json").json()["paths"]
    assert {
        "/api/mpesa/payment/initiate", "/api/payments/{reference}",
        "/api/payments/status-by-checkout-id", "/api/mpesa/validate-phone", "/api/payments",
    } <= set(paths)  # fmt: skip


def test_a_server_starts_and_stops_quickly_with_connections_open(ledger: Ledger):
    """An idle keep-alive connection holds nobody up."""
    server = SandboxServer(ledger)
    with pytest.raises(RuntimeError, match="not running"):
        _ = server.url
    with httpx.Client() as client, Stopwatch() as watch:
        with server:
            client.get(f"{server.url}/payments", headers={"X-API-Key": SECRET_KEY})
            began = watch.seconds
        assert watch.seconds - began < 2
    with server:  # and may be started again
        assert server._server.started  # whatever it logs of that, it has logged
        assert httpx.get(server.url).status_code == 401


def test_a_taken_port_is_named(ledger: Ledger):
    """The message says which."""
    with SandboxServer(ledger) as first:
        port = httpx.URL(first.url).port or 0
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
            SandboxServer(ledger, port=port).__enter__()
    with pytest.raises(OSError, match="ports go from 0 to 65535"):
        SandboxServer(ledger, port=99_999).__enter__()


def test_without_the_extra_the_ledger_works_and_the_rest_says_what_is_missing(monkeypatch):
    """A clear word instead of a traceback about fastapi."""
    for name in ("paynexus_async.sandbox._app", "paynexus_async.sandbox._server"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(ImportError, match=r"pip install 'paynexus-async\[sandbox\]'"):
        _ = sandbox.SandboxServer
    with pytest.raises(AttributeError, match="no attribute"):
        _ = sandbox.nonsense


@pytest.mark.anyio
async def test_client_and_sandbox_agree_in_process(ledger: Ledger, clock: Clock):
    """The whole way, without a socket, on both event loops."""
    transport = httpx.ASGITransport(app=create_app(ledger))
    async with (
        httpx.AsyncClient(transport=transport) as http_client,
        AsyncPayNexus(SECRET_KEY, PUBLIC_KEY, http_client=http_client) as paynexus,
    ):
        payment = await paynexus.initiate_payment(100, "0746990866", "Order #12345")
        assert payment.status is PaymentStatus.INITIATED
        clock.now += 10
        ended = await paynexus.wait_for_completion(payment)
        assert ended.succeeded
        assert ended.receipt == ledger.records[0].receipt
    assert len(ledger.prompts) == 1
