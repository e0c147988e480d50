"""Webhooks over real sockets, from a sandbox to a tiny shop on this machine."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from paynexus_async.sandbox import SECRET_KEY, Ledger, SandboxServer, _sender

from ..stopwatch import Stopwatch
from .test_app import Clock, ask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DOCUMENTED = b'{"ResultCode": 0, "ResultDesc": "Success"}'
PAY = {"amount": 100, "phone": "0746990866"}


class Shop:
    """Receives webhooks, and answers each as the test says."""

    def __init__(self) -> None:
        self.received: list[tuple[str, dict[str, str], bytes]] = []
        self.answer: Callable[[Any], None] = self.acknowledge
        self.let_go = threading.Event()
        shop = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                shop.received.append((self.path, dict(self.headers), body))
                shop.answer(self)

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """The sandbox may hang up first."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.let_go.set()
        self.server.shutdown()
        self.server.server_close()

    @staticmethod
    def acknowledge(request: Any, status_code: int = 200, body: bytes = DOCUMENTED) -> None:
        request.send_response(status_code)
        request.send_header("Location", "/elsewhere")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)


@pytest.fixture
def shop() -> Iterator[Shop]:
    shop = Shop()
    yield shop
    shop.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(clock: Clock) -> Ledger:
    return Ledger(clock=clock)


@pytest.fixture
def http(ledger: Ledger) -> Iterator[httpx.Client]:
    with (
        SandboxServer(ledger) as server,
        httpx.Client(base_url=server.url, headers={"X-API-Key": SECRET_KEY}) as client,
    ):
        yield client


def until(condition: Callable[[], object]) -> None:
    """Wait until the sandbox's thread has done something."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def acknowledged(ledger: Ledger) -> list[str]:
    return [d.event for d in ledger.webhooks.deliveries if d.acknowledged]


def test_a_shop_that_registers_is_told(
    http: httpx.Client, ledger: Ledger, clock: Clock, shop: Shop
):
    """The whole way: register, initiate, hear twice, each signed with the secret of the answer."""
    asked = {
        "name": "Shop",
        "url": f"{shop.url}/webhooks",
        "events": ["payment.initiated", "payment.completed"],
    }
    secret = http.post("/webhooks/register", json=asked).json()["data"]["secret"]
    reference = http.post("/mpesa/payment/initiate", json=PAY).json()["data"]["reference"]
    until(lambda: len(acknowledged(ledger)) == 1)
    clock.now += 9
    until(lambda: len(acknowledged(ledger)) == 2)
    events = []
    for path, headers, body in shop.received:
        expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        assert headers["X-PayNexus-Signature"] == expected
        assert int(headers["X-PayNexus-Timestamp"]) <= clock.now
        assert (path, headers["Content-Type"]) == ("/webhooks", "application/json")
        assert json.loads(body)["data"]["reference"] == reference
        events.append(json.loads(body)["event"])
    assert events == ["payment.initiated", "payment.completed"]


def test_a_shop_that_was_down_is_told_later(
    http: httpx.Client, ledger: Ledger, clock: Clock, shop: Shop
):
    """What it answered then is in the log."""
    shop.answer = lambda request: Shop.acknowledge(request, 503)
    ledger.webhooks.register(shop.url)
    http.post("/mpesa/payment/initiate", json=PAY)
    until(lambda: [d.status_code for d in ledger.webhooks.deliveries] == [503])
    shop.answer = Shop.acknowledge
    clock.now += 2
    until(lambda: acknowledged(ledger))
    assert ledger.webhooks.deliveries[0].attempt == 2


def test_a_redirect_is_not_followed(http: httpx.Client, ledger: Ledger, shop: Shop):
    """It could lead anywhere."""
    shop.answer = lambda request: Shop.acknowledge(request, 307)
    ledger.webhooks.register(shop.url)
    http.post("/mpesa/payment/initiate", json=PAY)
    until(lambda: [d.status_code for d in ledger.webhooks.deliveries] == [307])
    assert [path for path, *_ in shop.received] == ["/"]


def test_an_answer_without_end_is_not_read(http: httpx.Client, ledger: Ledger, shop: Shop):
    """Its status is enough."""

    def flood(request: Any) -> None:
        request.send_response(200)
        request.end_headers()
        for _ in range(10**9):
            request.wfile.write(b"x" * 65_536)

    shop.answer = flood
    ledger.webhooks.register(shop.url)
    http.post("/mpesa/payment/initiate", json=PAY)
    until(lambda: acknowledged(ledger))


def test_a_shop_that_hangs_holds_up_neither_others_nor_the_end(
    ledger: Ledger, shop: Shop, monkeypatch
):
    """It has its seconds, all told; a server stops without them."""
    monkeypatch.setattr(_sender, "_TRY_SECONDS_MAX", 0.3)
    shop.answer = lambda request: (
        shop.let_go.wait(30) if request.path == "/hangs" else Shop.acknowledge(request)
    )
    hangs = ledger.webhooks.register(f"{shop.url}/hangs")
    ledger.webhooks.register(f"{shop.url}/works")
    with Stopwatch() as watch, SandboxServer(ledger) as server:
        headers = {"X-API-Key": SECRET_KEY}
        httpx.post(f"{server.url}/mpesa/payment/initiate", json=PAY, headers=headers)
        until(lambda: acknowledged(ledger))
        until(lambda: ledger.webhooks.deliveries[0].error)
        assert ledger.webhooks.deliveries[0].endpoint == hangs.number
        assert ledger.webhooks.deliveries[0].error == "TimeoutError"
        monkeypatch.setattr(_sender, "_TRY_SECONDS_MAX", 30)
        ledger.webhooks.resend(1)
        until(lambda: len([p for p, *_ in shop.received if p == "/hangs"]) == 2)
        began = watch.seconds
    assert watch.seconds - began < 2
    assert not [t for t in threading.enumerate() if t.name == "paynexus-sandbox"]


def test_where_nobody_listens_that_is_logged(http: httpx.Client, ledger: Ledger, shop: Shop):
    """Not raised: the sandbox goes on."""
    shop.server.server_close()
    ledger.webhooks.register(shop.url)
    http.post("/mpesa/payment/initiate", json=PAY)
    until(lambda: ledger.webhooks.deliveries and ledger.webhooks.deliveries[0].attempt)
    assert str(ledger.webhooks.deliveries[0].error).startswith("ConnectError")
    assert http.get("/payments").status_code == 200


def test_nothing_leaves_this_machine_unless_it_may(clock: Clock, monkeypatch):
    """Looked at again before each try: an endpoint may come from elsewhere, such as a store."""
    ledger = Ledger(clock=clock, webhooks_anywhere=True)
    ledger.webhooks.register("http://shop.example/webhooks")
    monkeypatch.setattr(ledger.webhooks, "_anywhere", False)
    with SandboxServer(ledger) as server:
        headers = {"X-API-Key": SECRET_KEY}
        httpx.post(f"{server.url}/mpesa/payment/initiate", json=PAY, headers=headers)
        until(lambda: ledger.webhooks.deliveries and ledger.webhooks.deliveries[0].attempt)
    (delivery,) = ledger.webhooks.deliveries
    assert delivery.error == "InvalidURL: this sandbox sends to this machine only"


def test_a_host_that_is_no_name_is_logged(clock: Clock):
    """Whatever exception a library has for it."""
    ledger = Ledger(clock=clock, webhooks_anywhere=True)
    ledger.webhooks.register("http://xn--/")
    with SandboxServer(ledger) as server:
        headers = {"X-API-Key": SECRET_KEY}
        httpx.post(f"{server.url}/mpesa/payment/initiate", json=PAY, headers=headers)
        until(lambda: ledger.webhooks.deliveries and ledger.webhooks.deliveries[0].attempt)
    assert str(ledger.webhooks.deliveries[0].error).startswith("IDNAError")


# --- By hand, over HTTP


def test_endpoints_and_deliveries_are_shown_and_handled(
    http: httpx.Client, ledger: Ledger, shop: Shop
):
    """Register, look, disturb, send again, remove; the secret is shown once."""
    root = str(http.base_url).removesuffix("/api/") + "/sandbox/webhooks"
    registered = httpx.post(root, json={"url": shop.url, "events": ["payment.initiated"]}).json()
    assert registered == {
        "id": 1,
        "name": "by hand",
        "url": shop.url,
        "events": ["payment.initiated"],
        "secret": ledger.webhooks.endpoints[0].secret,
    }
    disorder = {"disorder": ["no-timestamp", "prefixed-signature"], "times": 1}
    shown = httpx.post(f"{root}/1/disorder", json=disorder).json()
    assert (shown["disorder"], shown["disorder_left"]) == (sorted(disorder["disorder"]), 1)
    reference = http.post("/mpesa/payment/initiate", json=PAY).json()["data"]["reference"]
    until(lambda: acknowledged(ledger))
    assert httpx.post(f"{root}/deliveries/1/resend").json() == {"id": 2}
    until(lambda: len(acknowledged(ledger)) == 2)
    assert ["X-PayNexus-Timestamp" in headers for _, headers, _ in shop.received] == [False, True]
    looked = httpx.get(root).json()
    assert registered["secret"] not in json.dumps(looked)
    assert looked["endpoints"][0]["disorder"] == []
    assert {d["name"] for d in looked["disorders"]} >= {"duplicate", "reorder", "delay"}
    assert [
        (d["id"], d["reference"], d["attempt"], d["status_code"]) for d in looked["deliveries"]
    ] == [
        (1, reference, 1, 200),
        (2, reference, 1, 200),
    ]
    assert httpx.delete(f"{root}/1").json() == {"success": True}
    assert httpx.get(root).json()["endpoints"] == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status_code"),
    [
        ("POST", "", {}, 422), ("POST", "", {"url": "https://example.com"}, 422), ("POST", "", {"url": 5}, 422),
        ("POST", "", {"url": "http://127.0.0.1", "events": ["payment.x"]}, 422),
        ("DELETE", "/1", None, 404), ("DELETE", "/x", None, 422),
        ("POST", "/1/disorder", {"disorder": ["delay"]}, 404), ("POST", "/7/disorder", {"disorder": ["chaos"]}, 422),
        ("POST", "/7/disorder", {"disorder": ["delay"], "times": 0}, 422), ("POST", "/7/disorder", {}, 422),
        ("POST", "/deliveries/1/resend", None, 404), ("POST", "/deliveries/x/resend", None, 422),
    ],
)  # fmt: skip
def test_what_is_asked_wrongly_is_refused(ledger: Ledger, method, path, body, status_code):
    """In the envelope."""
    answer = ask(ledger, method, f"/sandbox/webhooks{path}", json=body)
    assert (answer.status_code, answer.json()["success"]) == (status_code, False)


def test_an_application_alone_sends_nothing(ledger: Ledger, shop: Shop):
    """Whoever fuzzes it, or mounts it elsewhere, is not made to call anybody."""
    ask(ledger, "POST", "/sandbox/webhooks", json={"url": shop.url})
    ask(ledger, "POST", "/api/mpesa/payment/initiate", json=PAY)
    time.sleep(0.2)
    assert shop.received == []
    assert ledger.webhooks.deliveries == ()
    assert [post.url for post in ledger.webhooks.due()] == [shop.url]
