"""The application: what it lets through to the ledger, and how it describes itself."""

from __future__ import annotations

import logging
import socket
import sys
import threading
from typing import Any

import anyio
import httpx
import pytest

from paynexus_async.sandbox import (
    PUBLIC_KEY,
    SECRET_KEY,
    Ledger,
    Request,
    SandboxServer,
    create_app,
)

PAY = {"amount": 100, "phone": "0746990866"}
HALF_A_REQUEST = (
    b"POST /api/mpesa/payment/initiate HTTP/1.1\r\nHost: x\r\nX-API-Key: sk_test\r\n"
    b'Content-Length: 43\r\n\r\n{"amount": 100, "phone": "0746990866"}'
)


class Clock:
    now = 1_769_498_238.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(clock: Clock) -> Ledger:
    return Ledger(clock=clock)


def ask(ledger: Ledger, method: str, path: str, **options: Any) -> httpx.Response:
    """Send one request to the application of a ledger, in process."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=create_app(ledger))
        headers = {"X-API-Key": SECRET_KEY}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://sandbox", headers=headers
        ) as client:
            return await client.request(method, path, **options)

    return anyio.run(send)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/mpesa/payment/initiate"), ("GET", "/payments"), ("GET", "/v1/api/payments"),
        ("GET", "/apipayments"), ("GET", "/sandbox/nothing"), ("POST", "/API/mpesa/payment/initiate"),
    ],
)  # fmt: skip
def test_outside_its_base_path_there_is_no_api(ledger: Ledger, method, path):
    """A client with a wrong base URL must not pass: 404 in the envelope, no call, no prompt."""
    answer = ask(ledger, method, path, json=PAY)
    assert (answer.status_code, answer.json()["success"]) == (404, False)
    assert {"error", "code", "message"} <= set(answer.json())
    assert ledger.calls == ledger.prompts == ()


def test_a_wrong_method_on_a_look_behind_is_refused_in_the_envelope(ledger: Ledger):
    """405, with the methods that there are."""
    answer = ask(ledger, "DELETE", "/sandbox/payments")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET")
    assert answer.json()["success"] is False


def test_half_a_surrogate_pair_is_refused_not_a_crash(ledger: Ledger):
    """No answer could repeat it."""
    answer = ask(ledger, "POST", "/api/mpesa/validate-phone", content=b'{"phone": "\\ud800"}')
    assert (answer.status_code, answer.json()["success"]) == (400, False)


def test_a_script_is_refused_for_what_is_wrong_with_it(ledger: Ledger):
    """The scenario or the phone; the phone is not repeated."""
    message = ask(ledger, "POST", "/sandbox/script", json={"scenario": "x"}).json()["message"]
    assert message.startswith("scenario is one of paid, ")
    script = {"scenario": "paid", "phone": "0202222222"}
    message = ask(ledger, "POST", "/sandbox/script", json=script).json()["message"]
    assert message.startswith("phone is ")
    assert "0202222222" not in message


def described(ledger: Ledger) -> Any:
    return ask(ledger, "GET", "/openapi.json").json()["paths"]


def example(operation: Any, status_code: str = "200") -> Any:
    return operation["responses"][status_code]["content"]["application/json"]["example"]


def test_the_description_names_keys_and_parameters(ledger: Ledger):
    """So that it can be called from /docs."""
    paths = described(ledger)
    reference = paths["/api/payments/{reference}"]["get"]
    assert [(p["name"], p["in"], p["required"]) for p in reference["parameters"]] == [
        ("reference", "path", True)
    ]
    listed = paths["/api/payments"]["get"]["parameters"]
    assert {p["name"] for p in listed} == {"status", "from_date", "to_date", "page", "per_page"}
    api = [op for path, ops in paths.items() if path.startswith("/api/") for op in ops.values()]
    assert len(api) == 6
    for operation in api:
        assert {name for way in operation["security"] for name in way} == {
            "APIKeyHeader",
            "HTTPBearer",
        }
        assert example(operation, "429")["code"] == "RATE_LIMIT"


def test_the_described_answers_are_those_it_gives(ledger: Ledger, clock: Clock):
    """Each field of each example, by its name and its type."""
    paths = described(ledger)
    pay = paths["/api/mpesa/payment/initiate"]["post"]
    body = pay["requestBody"]["content"]["application/json"]["example"]
    initiated = ask(ledger, "POST", "/api/mpesa/payment/initiate", json=body).json()
    clock.now += 9
    data = initiated["data"]
    by_id = {"checkout_request_id": data["checkout_request_id"]}
    answers = [
        (pay, initiated),
        (
            paths["/api/payments/{reference}"]["get"],
            ask(ledger, "GET", f"/api/payments/{data['reference']}").json(),
        ),
        (
            paths["/api/payments/status-by-checkout-id"]["post"],
            ask(ledger, "POST", "/api/payments/status-by-checkout-id", json=by_id).json(),
        ),
        (
            paths["/api/mpesa/validate-phone"]["post"],
            ask(ledger, "POST", "/api/mpesa/validate-phone", json={"phone": "0746990866"}).json(),
        ),
        (paths["/api/payments"]["get"], ask(ledger, "GET", "/api/payments").json()),
    ]
    for operation, answer in answers:
        assert_like(example(operation), answer)


def assert_like(shown: Any, given: Any) -> None:
    """Whatever the example shows is in the answer, with the same type."""
    assert type(shown) is type(given), (shown, given)
    if isinstance(shown, dict):
        for name, value in shown.items():
            assert_like(value, given[name])
    elif isinstance(shown, list):
        assert_like(shown[0], given[0])


# --- On a socket


def port_of(server: SandboxServer) -> int:
    return httpx.URL(server.url).port or 0


def test_half_a_request_prompts_nobody(ledger: Ledger, capfd, caplog):
    """Nor does it, or garbage, make noise where nobody configured logging."""
    with SandboxServer(ledger) as server:
        for sent in (
            b"nonsense\r\n\r\n",
            HALF_A_REQUEST,
        ):
            with socket.create_connection(("127.0.0.1", port_of(server))) as connection:
                connection.sendall(sent)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass
        headers = {"X-API-Key": PUBLIC_KEY}
        assert httpx.get(f"{server.url}/payments", headers=headers).status_code == 200
    assert ledger.prompts == ()
    assert capfd.readouterr().err == ""
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


def test_a_port_that_is_none_is_named(ledger: Ledger):
    """As one that is taken is, and no socket leaks."""
    with pytest.raises(OSError, match=r"cannot listen on 127\.0\.0\.1:65536"):
        SandboxServer(ledger, port=65_536).__enter__()


def test_a_server_runs_once_at_a_time_and_stops_at_any_moment(ledger: Ledger):
    """Twice is refused, and the first goes on; stopping what never ran is nothing."""
    SandboxServer(ledger).__exit__(None, None, None)
    with SandboxServer(ledger) as server:
        with pytest.raises(RuntimeError, match="running already"):
            server.__enter__()
        assert httpx.get(server.url).status_code == 401
    with SandboxServer(ledger):
        pass  # stopped before its loop ran
    assert not [t for t in threading.enumerate() if t.name == "paynexus-sandbox"]


def test_prompts_are_read_while_the_server_adds_to_them(ledger: Ledger):
    """Tests ask from a thread of their own."""
    interval = sys.getswitchinterval()
    done = threading.Event()

    def initiate() -> None:
        for _ in range(300):
            body = b'{"amount": 1, "phone": "0746990866"}'
            ledger.handle(Request("POST", "/mpesa/payment/initiate", SECRET_KEY, body))
        done.set()

    thread = threading.Thread(target=initiate)
    sys.setswitchinterval(1e-6)
    try:
        thread.start()
        while not done.is_set():
            assert ledger.prompted("0746990866") <= 300
    finally:
        sys.setswitchinterval(interval)
        thread.join()
    assert ledger.prompted("0746990866") == 300
