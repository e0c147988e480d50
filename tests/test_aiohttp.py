"""The checkout in aiohttp.web, on real sockets: its client, webhooks, streams and answers."""

from __future__ import annotations

import importlib
import json
import socket
import sys
import time
import traceback
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import pytest
from aiohttp import web

from paynexus_async import (
    APIError,
    AsyncPayNexus,
    Attempt,
    ConfigurationError,
    InvalidRequestError,
    Payment,
    PaymentOutcomeUnknown,
    PaymentStatus,
    PaymentStillPending,
    PaymentUpdate,
    WebhookEvent,
    _checkout,
)
from paynexus_async._checkout import Tokens
from paynexus_async.aiohttp import PAYNEXUS, Checkout, verified_event
from paynexus_async.sandbox import PIN, Ledger, SandboxServer
from paynexus_async.sandbox import SECRET_KEY as SANDBOX_KEY
from paynexus_async.webhooks import BODY_BYTES_MAX

from .fakes import CHECKOUT_ID, PHONE, REFERENCE, SECRET_KEY
from .stopwatch import Stopwatch
from .test_checkout import NOW
from .test_webhooks import BODY, headers
from .test_webhooks import SECRET as WEBHOOK_SECRET

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = pytest.mark.asyncio

SECRET = "a secret of thirty-two characters"
PATIENCE_SECONDS = 10
PAYMENT = Payment(
    reference=REFERENCE,
    checkout_request_id=CHECKOUT_ID,
    status=PaymentStatus.INITIATED,
    status_text="initiated",
    amount=100,
    phone=PHONE,
)
LOST = PaymentOutcomeUnknown(
    "lost",
    amount=100,
    phone=PHONE,
    error=APIError("cut"),
    attempt=Attempt(amount=100, phone=PHONE, description=None, sent_at=NOW),
)

PENDING = PaymentStillPending(
    "pending", payment=PAYMENT, reference=REFERENCE, attempts=9, last_error=None
)


class Scripted(AsyncPayNexus):
    """A client whose payments go on when the test says so."""

    def __init__(self) -> None:
        super().__init__(SECRET_KEY)
        self.told: list[object] = []
        self.followed = 0
        self.goes_on, self._updates = anyio.create_memory_object_stream[PaymentUpdate](10)
        self.is_closed = False

    def go_on(self, status: str) -> None:
        word = PaymentStatus(status)
        payment = Payment(
            reference=REFERENCE, status=word, status_text=status, amount=100, receipt="OEI2AK4Q16"
        )
        self.goes_on.send_nowait(PaymentUpdate(payment=payment, previous=None, attempts=1))

    async def watch(self, payment: Any, **_: Any) -> Any:
        assert payment == PAYMENT
        self.followed += 1
        try:
            while True:
                update = await self._updates.receive()
                yield update
                if update.payment.is_terminal:
                    return
        finally:
            self.followed -= 1

    async def notify(self, news: object) -> bool:
        self.told.append(news)
        return True

    async def aclose(self) -> None:
        self.is_closed = True
        self.goes_on.close()
        self._updates.close()
        await super().aclose()


class Shop:
    """A merchant's application while it is served."""

    def __init__(self, paynexus: Scripted, http: aiohttp.ClientSession, server: web.AppRunner):
        self.paynexus = paynexus
        self.http = http
        self.server = server
        self.token = Tokens(SECRET).issue(PAYMENT)

    def follow(self, **headers: str) -> Any:
        return self.http.get(f"/paynexus/events/{self.token}", headers=headers)

    def deliver(self, body: bytes = BODY, **more: str) -> Any:
        return self.http.post("/paynexus/webhooks", data=body, headers={**headers(body), **more})


@asynccontextmanager
async def served(
    *handlers: Callable[[web.Request], Any], app: web.Application | None = None, **options: Any
) -> AsyncIterator[Shop]:
    paynexus = Scripted()
    app = app or web.Application()
    options = {"secret": SECRET, "webhook_secret": WEBHOOK_SECRET, **options}
    Checkout(client=lambda: paynexus, **options).setup(app)
    for handler in handlers:
        app.router.add_post(f"/{handler.__name__}", handler)
    server = web.AppRunner(app)
    await server.setup()
    await web.TCPSite(server, "127.0.0.1", 0).start()
    host, port = server.addresses[0]
    try:
        async with aiohttp.ClientSession(f"http://{host}:{port}") as http:
            yield Shop(paynexus, http, server)
    finally:
        await server.cleanup()
    assert paynexus.is_closed


async def told(page: aiohttp.ClientResponse) -> dict[str, Any]:
    """The next event of a stream, with its data read."""
    event: dict[str, Any] = {}
    async for raw in page.content:
        line = raw.decode().strip()
        if not line and event:
            return event
        name, _, value = line.partition(": ")
        event[name] = json.loads(value) if name == "data" else value
    raise EOFError


async def until(true: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE_SECONDS):
        while not true():  # noqa: ASYNC110
            await anyio.sleep(0.01)


# --- Streams


async def test_a_customer_follows_a_payment_to_its_end():
    """Each state as it comes, with an id to come again by; then the stream ends."""
    async with served() as shop, shop.follow() as page:
        assert (page.status, page.content_type) == (200, "text/event-stream")
        shop.paynexus.go_on("initiated")
        first = await told(page)
        assert (first["event"], first["id"], first["retry"]) == ("payment", "initiated", "3000")
        assert (first["data"]["state"], first["data"]["is_over"]) == ("prompt", False)
        shop.paynexus.go_on("completed")
        last = await told(page)
        assert (last["data"]["state"], last["data"]["receipt"]) == ("completed", "OEI2AK4Q16")
        assert await page.content.read() == b""
        assert shop.paynexus.followed == 0


async def test_a_browser_that_comes_again_is_told_what_is_new():
    """By its `Last-Event-ID`."""
    async with served() as shop, shop.follow(**{"Last-Event-ID": "initiated"}) as page:
        shop.paynexus.go_on("initiated")
        shop.paynexus.go_on("processing")
        assert (await told(page))["id"] == "processing"


async def test_a_token_that_opens_nothing_is_a_problem():
    """The browser does not try it again; nothing is followed."""
    async with served() as shop:
        shop.token = Tokens(f"another {SECRET}").issue(PAYMENT)
        async with shop.follow() as page:
            assert (page.status, page.content_type) == (403, "application/problem+json")
        assert shop.paynexus.followed == 0


async def test_a_customer_who_leaves_is_no_longer_followed(monkeypatch):
    """Found out by the next heartbeat, though nothing happens to the payment."""
    monkeypatch.setattr(_checkout, "HEARTBEAT_SECONDS", 0.02)
    async with served() as shop:
        async with shop.follow() as page:
            assert await page.content.readline() == b": ping\r\n"
            await until(lambda: shop.paynexus.followed == 1)
            page.close()
        await until(lambda: shop.paynexus.followed == 0)


async def test_a_customer_who_left_is_told_nothing(caplog):
    """News for them, before the heartbeat finds out, ends the following without an error."""
    async with served() as shop:
        async with shop.follow() as page:
            await until(lambda: shop.paynexus.followed == 1)
            page.close()
        await anyio.sleep(0.05)  # the server's socket hears of it
        shop.paynexus.go_on("processing")
        await until(lambda: shop.paynexus.followed == 0)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_server_stops_beside_open_streams():
    """At once: the streams end as if they had been read, and then the client is closed."""
    async with served() as shop:
        async with shop.follow() as one, shop.follow() as other:
            await until(lambda: shop.paynexus.followed == 2)
            with Stopwatch() as watch:
                await shop.server.cleanup()
                assert watch.seconds < 2
            assert (await one.content.read(), await other.content.read()) == (b"", b"")
        assert shop.paynexus.followed == 0
        assert shop.paynexus.is_closed


async def test_a_stream_that_is_opened_while_the_server_stops_ends():
    """It would be waited for."""
    async with served() as shop:
        await shop.server.shutdown()
        async with shop.follow() as page:
            assert await page.content.read() == b""


async def test_a_webhook_brings_the_customer_the_end():
    """The whole way, long before the client would have looked: paid on the phone, told on the page."""
    now = [time.time()]
    ledger = Ledger(clock=lambda: now[0], plan="basic", customer="person")

    async def pay(request: web.Request) -> web.Response:
        payment = await request.app[PAYNEXUS].initiate_payment(**await request.json())
        return checkout.accepted(payment)

    with SandboxServer(ledger) as sandbox, socket.create_server(("127.0.0.1", 0)) as door:
        url = f"http://127.0.0.1:{door.getsockname()[1]}"
        webhook = ledger.webhooks.register(f"{url}/paynexus/webhooks").secret
        checkout = Checkout(
            SECRET,
            webhook,
            client=lambda: AsyncPayNexus(SANDBOX_KEY, base_url=sandbox.url),
        )
        app = web.Application()
        app.router.add_post("/pay", pay)
        checkout.setup(app)
        server = web.AppRunner(app)
        await server.setup()
        await web.SockSite(server, door).start()
        async with aiohttp.ClientSession(url) as http:
            async with http.post("/pay", json={"amount": 100, "phone": PHONE}) as answer:
                token = (await answer.json())["token"]
            async with http.get(f"/paynexus/events/{token}") as page:
                assert (await told(page))["data"]["state"] == "prompt"
                ledger.enter_pin(ledger.records[0].prompt.reference, PIN)
                now[0] += 2
                with anyio.fail_after(60):
                    while (event := await told(page))["data"]["state"] != "completed":
                        pass
                assert event["data"]["receipt"] == ledger.records[0].receipt
        await server.cleanup()


# --- Webhooks


async def test_a_delivery_wakes_who_waits_and_is_handed_on():
    """In this order, and acknowledged as PayNexus wants it."""
    seen: list[tuple[WebhookEvent, int]] = []

    async def on_event(paynexus: AsyncPayNexus, event: WebhookEvent) -> None:
        assert isinstance(paynexus, Scripted)
        seen.append((event, len(paynexus.told)))

    async with served(on_event=on_event) as shop, shop.deliver() as answer:
        assert answer.status == 200
        assert await answer.json() == {"ResultCode": 0, "ResultDesc": "Accepted"}
        assert shop.paynexus.told == [event for event, _ in seen]
        assert [(event.reference, before) for event, before in seen] == [(REFERENCE, 1)]


@pytest.mark.parametrize(
    "body", [b'{"event": "invoice.paid"}', b'{"event": "payment.completed"}', b"[]", b"not JSON"]
)
async def test_what_is_signed_is_acknowledged_whatever_it_says(body: bytes):
    """It would be no clearer if it came again."""
    async with served() as shop, shop.deliver(body) as answer:
        assert (answer.status, (await answer.json())["ResultCode"]) == (200, 0)


@pytest.mark.parametrize(
    "signed", [{"X-PayNexus-Signature": "0" * 64}, {"X-PayNexus-Timestamp": "1"}], ids=str
)
async def test_what_is_not_signed_is_refused(signed: dict[str, str]):
    """Nobody is told of it. A wrong clock is no right signature."""
    heard: list[WebhookEvent] = []

    async def on_event(_: AsyncPayNexus, event: WebhookEvent) -> None:
        heard.append(event)

    async with served(on_event=on_event) as shop, shop.deliver(**signed) as answer:
        assert (answer.status, answer.content_type) == (401, "application/problem+json")
        assert shop.paynexus.told == heard == []


@pytest.mark.parametrize("is_declared", [True, False])
async def test_a_delivery_that_is_too_large_is_not_read_to_its_end(is_declared: bool):
    """Whatever the application allows its other handlers; with and without its length."""
    answered = anyio.Event()

    async def large() -> AsyncIterator[bytes]:
        yield b" " * (BODY_BYTES_MAX + 1)
        await answered.wait()

    async with served(app=web.Application(client_max_size=1 << 30)) as shop:
        length = {"Content-Length": str(BODY_BYTES_MAX + 1)} if is_declared else {}
        async with shop.http.post("/paynexus/webhooks", data=large(), headers=length) as answer:
            assert answer.status == 413
            answered.set()


async def test_a_delivery_that_cannot_be_read_is_refused():
    """As one that is forged: it is no error of the shop's."""
    async with served() as shop, shop.deliver(**{"Content-Encoding": "gzip"}) as answer:
        assert (answer.status, answer.content_type) == (401, "application/problem+json")


async def test_a_delivery_that_breaks_off_is_no_error(caplog):
    """Nobody reads an answer to it."""
    async with served() as shop:
        stream = await anyio.connect_tcp(*shop.server.addresses[0])
        await stream.send(
            b"POST /paynexus/webhooks HTTP/1.1\r\nHost: shop\r\nContent-Length: 100\r\n\r\n{"
        )
        await anyio.sleep(0.02)
        await stream.aclose()
        await anyio.sleep(0.02)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_route_of_ones_own_reads_verified_deliveries():
    """Also in a sub-application; what is forged is refused, and any other error brings it again."""
    seen: list[str | None] = []

    async def mine(request: web.Request) -> web.Response:
        event = await verified_event(request)
        seen.append(event.reference)
        if len(seen) > 1:
            raise PENDING
        return web.json_response({"ResultCode": 0})

    app, part = web.Application(), web.Application()
    part.router.add_post("/mine", mine)
    app.add_subapp("/part", part)
    async with served(app=app) as shop:
        for sent, status in ((headers(), 200), (headers(b"{}"), 401), (headers(), 500)):
            async with shop.http.post("/part/mine", data=BODY, headers=sent) as answer:
                assert answer.status == status
    assert seen == [REFERENCE, REFERENCE]


@pytest.mark.parametrize("error", [KeyError("order"), PENDING, LOST], ids=repr)
async def test_a_delivery_that_the_merchant_could_not_take_comes_again(error: Exception, caplog):
    """Whatever their handler raises, also what is answered with 202 elsewhere; the log has it."""

    async def on_event(*_: object) -> None:
        raise error

    async with served(on_event=on_event) as shop, shop.deliver() as answer:
        assert answer.status == 500
        (logged,) = [record for record in caplog.records if record.levelname == "ERROR"]
        assert logged.exc_info is not None
        assert error in {logged.exc_info[1], logged.exc_info[1].__cause__}
        frames = traceback.walk_tb(logged.exc_info[2])
        seen = [repr(value) for frame, _ in frames for value in frame.f_locals.values()]
        assert WEBHOOK_SECRET not in "".join(seen)  # an error reporter shows local variables


async def test_without_a_secret_there_is_no_webhook():
    """Nothing would be believed."""
    async with served(webhook_secret=None) as shop, shop.deliver() as answer:
        assert answer.status == 404


async def test_secrets_rotate():
    """While one replaces another, both are right."""
    secrets = [f"whsec_new{WEBHOOK_SECRET}", WEBHOOK_SECRET]
    async with served(webhook_secret=secrets) as shop, shop.deliver() as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "options",
    [
        {"secret": SECRET[:31]},
        {"secret": []},
        {"webhook_secret": ""},
        {"webhook_secret": []},
        {"webhook_secret": [WEBHOOK_SECRET, " "]},
        {"token_seconds": 0},
        {"max_wait": 0},
        {"max_wait": float("nan")},
    ],
    ids=str,
)
async def test_what_cannot_work_is_refused_at_once(options: dict[str, Any]):
    """Not when the first customer pays."""
    with pytest.raises(ConfigurationError):
        Checkout(**{"secret": SECRET, **options})


async def test_a_missing_extra_is_named(monkeypatch):
    """With what installs it."""
    monkeypatch.delitem(sys.modules, "paynexus_async.aiohttp")
    monkeypatch.setitem(sys.modules, "aiohttp_sse", None)
    with pytest.raises(ImportError, match=r"pip install 'paynexus-async\[aiohttp\]'"):
        importlib.import_module("paynexus_async.aiohttp")


async def test_secrets_are_found_in_the_environment(monkeypatch):
    """Where none is given; a blank one there says nothing, and is no reason to believe anybody."""
    with pytest.raises(ConfigurationError):
        Checkout()
    monkeypatch.setenv("PAYNEXUS_CHECKOUT_SECRET", SECRET)
    monkeypatch.setenv("PAYNEXUS_WEBHOOK_SECRET", WEBHOOK_SECRET)
    async with served(secret=None, webhook_secret=None) as shop:
        async with shop.deliver() as answer:
            assert answer.status == 200
        async with shop.follow() as page:
            assert page.status == 200
    monkeypatch.setenv("PAYNEXUS_WEBHOOK_SECRET", "")
    async with served(secret=None, webhook_secret=None) as shop, shop.deliver() as answer:
        assert answer.status == 404


# --- Answers


async def test_a_checkout_answers_with_a_token():
    """With which its customer, and no other, follows the payment."""

    async def pay(request: web.Request) -> web.Response:
        assert isinstance(request.app[PAYNEXUS], AsyncPayNexus)
        return checkout.accepted(PAYMENT)

    checkout = Checkout(SECRET)
    async with served(pay) as shop, shop.http.post("/pay") as answer:
        assert (answer.status, answer.content_type) == (202, "application/json")
        document = await answer.json()
        assert document["state"] == "prompt"
        assert PHONE not in await answer.text()
        shop.token = document["token"]
        async with shop.follow() as page:
            assert page.status == 200


@pytest.mark.parametrize(
    ("error", "status", "media_type"),
    [
        (InvalidRequestError("amount must be a whole number"), 422, "application/problem+json"),
        (LOST, 202, "application/json"),
        (PENDING, 202, "application/json"),
        (ConfigurationError("the key is blank"), 500, "application/problem+json"),
    ],
)
async def test_errors_are_answered(error: Exception, status: int, media_type: str, caplog):
    """What can still be paid never as a problem; and each stands in the log."""

    async def pay(request: web.Request) -> web.Response:
        raise error

    async with served(pay) as shop, shop.http.post("/pay") as answer:
        assert (answer.status, answer.content_type) == (status, media_type)
        (logged,) = [record for record in caplog.records if record.name == "paynexus_async"]
        assert str(error) in logged.getMessage()
        assert (logged.exc_info is not None) == (status == 500)


async def test_an_error_of_the_merchant_is_theirs():
    """Only this package's are answered here."""

    async def pay(request: web.Request) -> web.Response:
        raise web.HTTPGone

    async with served(pay) as shop, shop.http.post("/pay") as answer:
        assert answer.status == 410


async def test_a_sub_application_finds_the_client():
    """And its errors are answered too."""

    async def pay(request: web.Request) -> web.Response:
        assert isinstance(request.config_dict[PAYNEXUS], AsyncPayNexus)
        raise LOST

    app, tickets = web.Application(), web.Application()
    tickets.router.add_post("/pay", pay)
    app.add_subapp("/tickets", tickets)
    async with served(app=app) as shop, shop.http.post("/tickets/pay") as answer:
        assert answer.status == 202
