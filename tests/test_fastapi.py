"""The checkout in FastAPI: its life beside the application's, its routes, its answers to errors."""

from __future__ import annotations

import hashlib
import hmac
import importlib
import json
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import looptime
import pytest
from fastapi import FastAPI, Request
from sse_starlette.sse import AppStatus

from paynexus_async import APIError, AsyncPayNexus, ClientStateError, ConfigurationError
from paynexus_async.fastapi import Checkout, PayNexusClient, VerifiedEvent
from paynexus_async.webhooks import BODY_BYTES_MAX

from .fakes import PHONE, REFERENCE, FakeServer, initiated, refusal, status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

SECRET = "a secret of thirty-two characters"
WHSEC = "whsec_third"
ACKNOWLEDGED = {"ResultCode": 0, "ResultDesc": "Accepted"}
TOKEN_FIELDS = {"state", "title", "text", "amount", "phone", "receipt", "is_over", "may_try_again"}


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """FastAPI's servers run on asyncio; waits jump."""
    return "asyncio", {"loop_factory": looptime.new_event_loop}


@pytest.fixture
def notified(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the client was told by webhooks."""
    news: list[Any] = []

    async def notify(self: AsyncPayNexus, about: Any) -> bool:
        news.append(about)
        return True

    monkeypatch.setattr(AsyncPayNexus, "notify", notify)
    return news


@asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Run an application's lifespan, and give its state to each request, as servers do."""
    async with app.router.lifespan_context(app) as state:

        async def served(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": dict(state or {})}, receive, send)

        transport = httpx.ASGITransport(served)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as browser:
            yield browser


def shop(server: FakeServer, **options: Any) -> tuple[FastAPI, Checkout]:
    """An application as the README has it."""
    options = {"client": lambda: server.client(max_retries=0), **options}
    checkout = Checkout(SECRET, WHSEC, **options)
    app = FastAPI()
    app.include_router(checkout.router)
    checkout.add_exception_handlers(app)

    @app.post("/pay")
    async def pay(paynexus: PayNexusClient) -> Any:
        return checkout.accepted(await paynexus.initiate_payment(100, PHONE))

    return app, checkout


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    """The events of a stream that has ended."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in answer.text.replace("\r\n", "\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[:1] != ":")
        if "data" in fields:
            found.append({**json.loads(fields.pop("data")), **fields})
    return found


def delivery(reference: str | None = REFERENCE, secret: str = WHSEC, **document: Any) -> Any:
    body = json.dumps(
        {"event": "payment.completed", "data": {"reference": reference}, **document}
    ).encode()
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"content": body, "headers": {"X-PayNexus-Signature": signature}}


# --- Paying, and following


async def test_a_customer_pays_and_is_told(server):
    """202 and a token; by the token each state until the receipt, and nothing of the inside."""
    app, _ = shop(server)
    server.answers(
        initiated(), status("processing"), status("completed", provider_transaction_id="OEI2AK4Q16")
    )
    async with running(app) as browser:
        answer = await browser.post("/pay")
        assert (answer.status_code, answer.json()["state"]) == (202, "prompt")
        assert set(answer.json()) == TOKEN_FIELDS | {"token"}
        stream = await browser.get(f"/paynexus/events/{answer.json()['token']}")
    assert [(event["id"], event["state"]) for event in events(stream)] == [
        ("initiated", "prompt"),
        ("processing", "processing"),
        ("completed", "completed"),
    ]
    assert {event["event"] for event in events(stream)} == {"payment"}
    assert events(stream)[-1]["receipt"] == "OEI2AK4Q16"
    assert stream.headers["cache-control"] == "no-store"
    assert "retry: 3000" in stream.text
    assert PHONE not in stream.text
    assert REFERENCE not in stream.text


async def test_a_reconnect_hears_news_only(server):
    """The header of the browser is honoured, by any worker: here, one that knows nothing."""
    first, _ = shop(server)
    second, _ = shop(server)
    server.answers(initiated())
    async with running(first) as browser:
        token = (await browser.post("/pay")).json()["token"]
    server.answers(status("processing"), status("expired"))
    async with running(second) as browser:
        stream = await browser.get(
            f"/paynexus/events/{token}", headers={"Last-Event-ID": "processing"}
        )
    assert [event["state"] for event in events(stream)] == ["expired"]


async def test_the_wait_is_the_checkouts(server):
    """When it is over, the payment is pending, and the stream ends; silence is filled."""
    app, _ = shop(server, max_wait=50)
    server.answers(initiated(), status("processing"))
    async with running(app) as browser:
        token = (await browser.post("/pay")).json()["token"]
        stream = await browser.get(f"/paynexus/events/{token}")
    assert [event["state"] for event in events(stream)] == ["prompt", "processing", "pending"]
    assert stream.text.count(": ping") == 3


async def test_a_guess_opens_nothing(server):
    """Neither a reference nor a forged token; nothing is asked for."""
    app, _ = shop(server)
    other = Checkout("another secret, as long as it must be", client=server.client)
    server.answers(initiated())
    async with running(app) as browser, server.client() as paynexus:
        payment = await paynexus.initiate_payment(100, PHONE)
        forged = json.loads(bytes(other.accepted(payment).body))["token"]
        for token in (REFERENCE, forged, "x"):
            answer = await browser.get(f"/paynexus/events/{token}")
            assert (answer.status_code, answer.json()["code"]) == (403, "token")
    assert len(server.requests) == 1


async def test_a_lost_answer_is_told_as_unknown(server):
    """Never as a failure; its token looks for the payment, and nothing is initiated again."""
    app, _ = shop(server)
    server.answers(httpx.ReadTimeout("lost"), refusal(500))
    async with running(app) as browser:
        answer = await browser.post("/pay")
        assert (answer.status_code, answer.json()["state"]) == (202, "unknown")
        stream = await browser.get(f"/paynexus/events/{answer.json()['token']}")
    assert [event["state"] for event in events(stream)] == ["unknown", "unknown"]
    assert server.initiates == 1


async def test_a_browser_that_leaves_stops_the_asking(server):
    """The stream's own tasks end, and so does the loop that asked for it."""
    app, _ = shop(server)
    server.answers(initiated(), status("processing"))
    async with running(app) as browser:
        token = (await browser.post("/pay")).json()["token"]
        with anyio.move_on_after(60) as left:
            await browser.get(f"/paynexus/events/{token}")
        assert left.cancelled_caught
        asked = len(server.requests)
        assert asked > 1
        await anyio.sleep(100)
        assert len(server.requests) == asked


async def test_a_server_that_stops_ends_its_streams(server, monkeypatch):
    """Within a second, and whole, so that the browser comes again, to another worker."""
    app, _ = shop(server)
    server.answers(initiated(), status("processing"))
    async with running(app) as browser:
        token = (await browser.post("/pay")).json()["token"]

        async def stop() -> None:
            await anyio.sleep(20)
            AppStatus.should_exit = True

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stop)
            began = anyio.current_time()
            stream = await browser.get(f"/paynexus/events/{token}")
        assert anyio.current_time() - began < 21
    assert [event["state"] for event in events(stream)] == ["prompt", "processing"]


# --- Errors


@pytest.mark.parametrize(
    ("answer", "expected", "code"),
    [
        (refusal(422), 422, "refused"),
        (refusal(401), 500, "our-fault"),
        (refusal(429, headers={"Retry-After": "7"}), 503, "busy"),
        (httpx.ConnectError("10.0.0.1"), 503, "unreachable"),
    ],
)
async def test_errors_are_problems(server, caplog, answer, expected, code):
    """For the customer nothing of the inside, for the merchant a line in the log."""
    app, _ = shop(server)
    server.answers(answer)
    async with running(app) as browser:
        told = await browser.post("/pay")
    assert (told.status_code, told.json()["code"]) == (expected, code)
    assert told.headers["content-type"] == "application/problem+json"
    assert f"/pay is answered with {expected}" in caplog.text
    assert "Traceback" in caplog.text or expected != 500
    assert "10.0.0.1" not in told.text
    if expected == 503 and code == "busy":
        assert told.headers["retry-after"] == "7"


async def test_an_error_outside_of_all_routes_is_answered_too(server, caplog):
    """Of an application that is mounted, for instance."""
    app, _ = shop(server)

    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        raise ConfigurationError("sk_live_abc")

    app.mount("/other", mounted)
    async with running(app) as browser:
        answer = await browser.get("/other/")
    assert (answer.status_code, answer.json()["code"]) == (500, "our-fault")
    assert "is answered with 500" in caplog.text


async def test_without_handlers_an_error_goes_through(server):
    """They are installed by whoever wants them."""
    checkout = Checkout(SECRET, client=server.client)
    app = FastAPI()
    app.include_router(checkout.router)

    @app.get("/")
    async def look(paynexus: PayNexusClient) -> None:
        await paynexus.get_payment_status("?")

    async with running(app) as browser:
        with pytest.raises(ValueError, match="reference"):
            await browser.get("/")


# --- The life of the client


async def test_the_lifespan_joins_the_applications_own(server):
    """Both run, and both states are there; the client is opened once and closed at the end."""
    lived = []

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[dict[str, object]]:
        lived.append("opened")
        yield {"database": "here"}
        lived.append("closed")

    made: list[AsyncPayNexus] = []

    def client() -> AsyncPayNexus:
        made.append(server.client())
        return made[-1]

    checkout = Checkout(SECRET, client=client)
    app = FastAPI(lifespan=own)
    app.include_router(checkout.router)

    @app.get("/")
    async def look(request: Request, paynexus: PayNexusClient) -> list[object]:
        return [request.state.database, request.state.paynexus is paynexus, paynexus is made[0]]

    async with running(app) as browser:
        assert (await browser.get("/")).json() == ["here", True, True]
        assert (await browser.get("/")).json() == ["here", True, True]
    assert (lived, len(made)) == (["opened", "closed"], 1)
    with pytest.raises(ClientStateError):
        await made[0].validate_phone(PHONE)


async def test_the_lifespan_can_be_used_by_hand(server):
    """Inside the application's own, whose state it adds to."""
    checkout = Checkout(SECRET, client=server.client)

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[dict[str, object]]:
        async with checkout.lifespan(app) as state:
            yield {**state, "database": "here"}

    app = FastAPI(lifespan=own)

    @app.get("/")
    async def look(paynexus: PayNexusClient) -> str:
        return repr(paynexus)

    async with running(app) as browser:
        assert (await browser.get("/")).json() == "<AsyncPayNexus production>"


@pytest.mark.parametrize("is_answered", [False, True])
async def test_without_a_checkout_there_is_no_client(is_answered: bool, caplog):
    """The error says what to do, to the merchant: a customer's 202 would hide it."""
    app = FastAPI()
    if is_answered:
        Checkout(SECRET).add_exception_handlers(app)

    @app.get("/")
    async def look(paynexus: PayNexusClient) -> None: ...

    async with running(app) as browser:
        if is_answered:
            assert (await browser.get("/")).status_code == 500
            assert "include checkout.router" in caplog.text
            return
        with pytest.raises(ConfigurationError, match=r"include checkout\.router"):
            await browser.get("/")


def test_secrets_come_from_the_environment(monkeypatch):
    """And without one for tokens, nothing is begun."""
    with pytest.raises(ConfigurationError, match="checkout secret"):
        Checkout()
    monkeypatch.setenv("PAYNEXUS_CHECKOUT_SECRET", SECRET)
    assert [route.path for route in Checkout().router.routes] == ["/paynexus/events/{token}"]
    monkeypatch.setenv("PAYNEXUS_WEBHOOK_SECRET", WHSEC)
    assert len(Checkout().router.routes) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"secret": ""},
        {"secret": []},
        {"webhook_secret": ""},
        {"webhook_secret": []},
        {"webhook_secret": [WHSEC, " "]},
        {"token_seconds": 0},
        {"max_wait": 0},
        {"max_wait": float("nan")},
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_at_once(monkeypatch, options: dict[str, Any]):
    """Also where the environment holds secrets: a blank one is no reason to look there."""
    monkeypatch.setenv("PAYNEXUS_CHECKOUT_SECRET", SECRET)
    monkeypatch.setenv("PAYNEXUS_WEBHOOK_SECRET", WHSEC)
    with pytest.raises(ConfigurationError):
        Checkout(**options)


def test_without_its_extra_the_module_says_so(monkeypatch):
    """Which one to install."""
    monkeypatch.delitem(sys.modules, "paynexus_async.fastapi")
    monkeypatch.setitem(sys.modules, "sse_starlette", None)
    with pytest.raises(ImportError, match=r"paynexus-async\[fastapi\]"):
        importlib.import_module("paynexus_async.fastapi")


# --- Webhooks


async def test_a_delivery_wakes_tells_and_is_acknowledged(server, notified):
    """The handler has the client, to ask what is true."""
    heard = []

    async def on_event(paynexus: AsyncPayNexus, event: Any) -> None:
        payment = await paynexus.get_payment_status(event.reference)
        heard.append((event.name, payment.status))

    app, _ = shop(server, on_event=on_event)
    server.answers(status("processing"))
    async with running(app) as shop_:
        answer = await shop_.post("/paynexus/webhooks", **delivery())
    assert (answer.status_code, answer.json()) == (200, ACKNOWLEDGED)
    assert heard == [("payment.completed", "processing")]
    assert [event.reference for event in notified] == [REFERENCE]


async def test_only_a_wrong_signature_is_refused(server, notified):
    """Whatever else PayNexus sends is acknowledged: it would be no better the next time."""
    app, _ = shop(server)
    unreadable = b"no JSON"
    signature = hmac.new(WHSEC.encode(), unreadable, hashlib.sha256).hexdigest()
    async with running(app) as shop_:
        for right in (
            delivery(event="invoice.paid"),
            {"content": unreadable, "headers": {"X-PayNexus-Signature": f"sha256={signature}"}},
        ):
            answer = await shop_.post("/paynexus/webhooks", **right)
            assert (answer.status_code, answer.json()) == (200, ACKNOWLEDGED)
        heard = len(notified)
        for wrong in (delivery(secret="whsec_other"), {"content": b"{}"}):
            answer = await shop_.post("/paynexus/webhooks", **wrong)
            assert (answer.status_code, answer.json()["code"]) == (401, "signature")
    assert len(notified) == heard == 1


async def test_a_handler_that_fails_is_told_again(server, notified):
    """Nothing is acknowledged: PayNexus delivers it again."""

    async def on_event(paynexus: AsyncPayNexus, event: Any) -> None:
        raise OSError("the database is away")

    app, _ = shop(server, on_event=on_event)
    async with running(app) as shop_:
        with pytest.raises(OSError, match="away"):  # which a server answers with 500
            await shop_.post("/paynexus/webhooks", **delivery())


async def test_a_delivery_that_is_too_large_is_not_kept(server, notified):
    """It ends while it is read."""
    app, _ = shop(server)
    sent = []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            sent.append(1)
            yield b"a" * 65_536

    async with running(app) as shop_:
        answer = await shop_.post("/paynexus/webhooks", content=endless())
        assert answer.status_code == 413
        assert len(sent) <= BODY_BYTES_MAX // 65_536 + 2
        sent.clear()
        declared = {"Content-Length": str(BODY_BYTES_MAX + 1)}
        answer = await shop_.post("/paynexus/webhooks", content=endless(), headers=declared)
    assert (answer.status_code, sent) == (413, [])


async def test_a_delivery_that_breaks_off_is_not_believed(server, notified):
    """Whoever sent it has gone."""
    app, _ = shop(server)
    told = []
    scope = {"type": "http", "method": "POST", "path": "/paynexus/webhooks", "headers": []}

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        told.append(message)

    async with app.router.lifespan_context(app) as state:
        await app({**scope, "query_string": b"", "state": state}, receive, send)
    assert told[0]["status"] == 401
    assert notified == []


async def test_a_route_of_ones_own_takes_verified_events(server):
    """The signature is over the bytes as they came."""
    app, _ = shop(server)

    @app.post("/mine")
    async def mine(event: VerifiedEvent) -> str | None:
        return event.reference

    async with running(app) as shop_:
        assert (await shop_.post("/mine", **delivery())).json() == REFERENCE
        assert (await shop_.post("/mine", **delivery(secret="whsec_other"))).status_code == 401


@pytest.mark.parametrize("error", [ClientStateError("closed"), APIError("garbled")])
async def test_a_route_of_ones_own_acknowledges_nothing_by_an_error(server, caplog, error):
    """What is 202 for a customer would tell PayNexus that the delivery was taken."""
    app, _ = shop(server)

    @app.post("/mine")
    async def mine(event: VerifiedEvent) -> None:
        raise error

    async with running(app) as shop_:
        assert (await shop_.post("/mine", **delivery())).status_code == 500
    (record,) = [record for record in caplog.records if record.name == "paynexus_async"]
    assert (record.event, record.exc_info[1]) == ("checkout.failed", error)
