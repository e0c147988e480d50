"""Durable payments in both checkouts: one prompt for an order, and its end, whatever happens."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import sqlite3
import sys
import time
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from aiohttp import web
from dbos import DBOS
from dbos import error as dbos_error
from fastapi import FastAPI, Request, Response

from paynexus_async import (
    AsyncPayNexus,
    BadRequestError,
    ClientStateError,
    QuotaExhaustedError,
    _checkout,
)
from paynexus_async import aiohttp as for_aiohttp
from paynexus_async import fastapi as for_fastapi
from paynexus_async._checkout import Tokens
from paynexus_async.durable import (
    DurablePayments,
    OrderConflictError,
    OrderNotPromptedError,
    OrderState,
    OrderStillOpenError,
    Outcome,
    _looking,
    dbos_config,
    launched,
)
from paynexus_async.fastapi import DurableOrders  # noqa: TC001  # FastAPI reads it
from paynexus_async.sandbox import PIN, PUBLIC_KEY, SECRET_KEY, Fault, Ledger, SandboxServer

from .fakes import PHONE
from .test_checkout import response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.asyncio

SECRET = "a secret of thirty-two characters"
WHSEC = "whsec_third"
PATIENCE_SECONDS = 30
FRAMEWORKS = pytest.mark.parametrize("framework", ["aiohttp", "fastapi"])
ORDER = {"id": "order-abc", "phone": PHONE, "amount": 100}


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(clock=time.time, plan="basic", customer="person")


@pytest.fixture
def sandbox(ledger: Ledger) -> Iterator[SandboxServer]:
    with SandboxServer(ledger) as server:
        yield server


@pytest.fixture(autouse=True)
def _no_engine_is_left() -> Iterator[None]:
    """It is one for the process: another test would meet its workflows."""
    yield
    DBOS.destroy(destroy_registry=True)


class Shop:
    """What a merchant's application is made of, and what it was told."""

    def __init__(self, sandbox: SandboxServer, folder: Path) -> None:
        self.told: list[Outcome] = []
        self.durable: DurablePayments | None = None
        self.secret: str | None = SECRET
        self._sandbox = sandbox
        self._database = f"sqlite:///{folder}/shop.sqlite"

    def client(self) -> AsyncPayNexus:
        return AsyncPayNexus(SECRET_KEY, PUBLIC_KEY, base_url=self._sandbox.url)

    async def hand_over(self, outcome: Outcome) -> None:
        self.told.append(outcome)

    def follow(self, paynexus: AsyncPayNexus) -> Any:
        DBOS(config=dbos_config("shop", self._database))
        self.durable = DurablePayments(paynexus, on_settled=self.hand_over, secret=self.secret)
        return launched(self.durable)

    @asynccontextmanager
    async def served(self, framework: str, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
        """Run it, and give a browser of it."""
        options = {"client": self.client, "durable": self.follow, **options}
        serve = {"aiohttp": _by_aiohttp, "fastapi": _by_fastapi}[framework]
        async with serve(options) as browser:
            yield browser


@pytest.fixture
def shop(sandbox: SandboxServer, tmp_path: Path) -> Shop:
    return Shop(sandbox, tmp_path)


@asynccontextmanager
async def _by_fastapi(options: dict[str, Any]) -> AsyncIterator[httpx.AsyncClient]:
    checkout = for_fastapi.Checkout(SECRET, WHSEC, **options)
    app = FastAPI()
    app.include_router(checkout.router)
    checkout.add_exception_handlers(app)

    @app.post("/pay")
    async def pay(request: Request, orders: DurableOrders) -> Response:
        return checkout.accepted(await _prompted(orders, await request.json()))

    async with app.router.lifespan_context(app) as state:

        async def served(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": dict(state or {})}, receive, send)

        transport = httpx.ASGITransport(served)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://shop", timeout=PATIENCE_SECONDS
        ) as browser:
            yield browser


@asynccontextmanager
async def _by_aiohttp(options: dict[str, Any]) -> AsyncIterator[httpx.AsyncClient]:
    checkout = for_aiohttp.Checkout(SECRET, WHSEC, **options)

    async def pay(request: web.Request) -> web.Response:
        orders = request.app[for_aiohttp.DURABLE]
        return checkout.accepted(await _prompted(orders, await request.json()))

    app = web.Application()
    app.router.add_post("/pay", pay)
    checkout.setup(app)
    server = web.AppRunner(app)
    await server.setup()
    await web.TCPSite(server, "127.0.0.1", 0).start()
    host, port = server.addresses[0]
    try:
        async with httpx.AsyncClient(
            base_url=f"http://{host}:{port}", trust_env=False, timeout=PATIENCE_SECONDS
        ) as browser:
            yield browser
    finally:
        await server.cleanup()


async def _prompted(orders: DurablePayments, order: dict[str, Any]) -> Any:
    handle = await orders.pay(
        order["id"],
        amount=order["amount"],
        phone=order["phone"],
        again=order.get("again", False),
    )
    return await handle.payment()


def delivery(reference: str, status: str = "completed") -> dict[str, Any]:
    """Of the payment's end, signed as PayNexus signs it."""
    data = {"reference": reference, "status": status}
    document = {"event": f"payment.{status}", "data": data}
    body = json.dumps(document).encode()
    signature = hmac.new(WHSEC.encode(), body, hashlib.sha256).hexdigest()
    return {"content": body, "headers": {"X-PayNexus-Signature": signature}}


def named(answer: httpx.Response) -> str | None:
    """The payment that an answer's token names."""
    return Tokens(SECRET).read(answer.json()["token"]).reference


async def deliver_until(true: Callable[[], Any], browser: httpx.AsyncClient, *told: str) -> None:
    """Deliver until it is heard, as PayNexus does: nobody looks again for seconds otherwise."""
    with anyio.fail_after(PATIENCE_SECONDS):
        while not true():
            answer = await browser.post("/paynexus/webhooks", **delivery(*told))
            assert (answer.status_code, answer.json()["ResultCode"]) == (200, 0)
            await anyio.sleep(0.2)


# --- An order


@FRAMEWORKS
async def test_an_order_is_asked_for_once_and_handed_over_once(framework, shop, ledger):
    """However often its customer clicks: each answer follows the one payment, to its receipt."""
    async with shop.served(framework) as browser:
        answers = await asyncio.gather(*(browser.post("/pay", json=ORDER) for _ in range(3)))
        assert [(one.status_code, one.json()["state"]) for one in answers] == [(202, "prompt")] * 3
        (record,) = ledger.records
        reference = record.prompt.reference
        assert {named(one) for one in answers} == {reference}
        ledger.enter_pin(reference, PIN)
        await deliver_until(lambda: shop.told, browser, reference)
        stream = await browser.get(f"/paynexus/events/{answers[0].json()['token']}")
        assert f'"receipt": "{record.receipt}"' in stream.text
    assert [(one.order_id, one.state, one.revision) for one in shop.told] == [
        (ORDER["id"], OrderState.COMPLETED, 0)
    ]
    assert shop.told[0].payment.receipt == record.receipt


@FRAMEWORKS
async def test_a_shop_that_is_started_again_goes_on(framework, shop, ledger):
    """In the same process too: what one engine left, the next one takes up, and tells once."""
    async with shop.served(framework) as browser:
        first = await browser.post("/pay", json=ORDER)
    assert shop.told == []
    ledger.enter_pin(ledger.records[0].prompt.reference, PIN)
    async with shop.served(framework) as browser:
        again = await browser.post("/pay", json=ORDER)
        assert named(again) == named(first)
        await deliver_until(lambda: shop.told, browser, named(first))
    assert len(shop.told) == len(ledger.prompts) == 1


@FRAMEWORKS
async def test_a_delivery_wakes_what_waits_as_a_row(framework, shop, ledger, monkeypatch):
    """Also while the customer's page waits here, which is told by the same delivery."""
    monkeypatch.setattr(_looking, "_BURST_AGE_SECONDS", 0.0)  # as if nobody waited at the till
    async with shop.served(framework) as browser:
        answer = await browser.post("/pay", json=ORDER)
        reference = named(answer)
        await _is_put_off(shop)
        reading = asyncio.create_task(browser.get(f"/paynexus/events/{answer.json()['token']}"))
        await anyio.sleep(0.5)
        ledger.enter_pin(reference, PIN)
        (before,) = await shop.durable.orders(ORDER["id"])
        await deliver_until(lambda: shop.told, browser, reference)
        assert time.time() < before.next_look_at  # which is half a minute away
        assert '"state": "completed"' in (await reading).text


async def _is_put_off(shop: Shop) -> None:
    """Wait until the order is a row that waits."""
    with anyio.fail_after(PATIENCE_SECONDS):
        while not (await shop.durable.orders(ORDER["id"]))[-1].next_look_at:  # noqa: ASYNC110
            await anyio.sleep(0.05)


@FRAMEWORKS
async def test_a_delivery_of_a_shop_that_stops_comes_again(framework, shop):
    """It was not acknowledged: whoever it was to wake is not there any more."""
    async with shop.served(framework) as browser:
        await shop.durable.aclose()
        answer = await browser.post("/paynexus/webhooks", **delivery("PNX123456789"))
        assert answer.status_code == 500


@FRAMEWORKS
async def test_another_attempt_is_asked_for_as_one(framework, shop, ledger):
    """While the last one is open, none is sent; the page is told to ask for that one."""
    again = {**ORDER, "again": True}
    async with shop.served(framework) as browser:
        await browser.post("/pay", json=ORDER)
        open_ = await browser.post("/pay", json=again)
        assert (open_.status_code, open_.json()["state"]) == (202, "pending")
        assert (open_.json()["again"], "token" in open_.json()) == (False, False)
        other = await browser.post("/pay", json={**ORDER, "amount": 99})
        assert (other.status_code, other.json()["code"]) == (409, "order-conflict")
        assert len(ledger.prompts) == 1
        reference = ledger.records[0].prompt.reference
        ledger.decline(reference)
        await deliver_until(lambda: shop.told, browser, reference, "cancelled")
        assert (await browser.post("/pay", json=again)).json()["state"] == "prompt"
    assert len(ledger.prompts) == 2


@FRAMEWORKS
async def test_what_paynexus_refuses_is_a_problem(framework, shop, ledger):
    """For whoever sent it as to its cause, for whoever comes again as it was written down."""
    ledger.faults.add(Fault("400-before", call="initiate", times=1))
    async with shop.served(framework) as browser:
        for _ in range(2):
            refused = await browser.post("/pay", json=ORDER)
            assert (refused.status_code, refused.json()["code"]) == (422, "refused")
            assert refused.json()["again"] is True
        assert ledger.prompts == ()
        answer = await browser.post("/pay", json={**ORDER, "phone": "0711222333", "again": True})
        assert answer.json()["state"] == "prompt"


@FRAMEWORKS
@pytest.mark.parametrize("secret", [SECRET, None])
async def test_a_lost_answer_is_looked_for_by_the_page(framework, shop, ledger, secret):
    """Without a secret, too, from the process that asked: it still knows the phone."""
    shop.secret = secret
    ledger.faults.add(Fault("reset-after", call="initiate", times=1))
    async with shop.served(framework) as browser:
        answer = await browser.post("/pay", json=ORDER)
        assert (answer.status_code, answer.json()["state"]) == (202, "unknown")
        reference = ledger.records[0].prompt.reference
        ledger.enter_pin(reference, PIN)
        reading = asyncio.create_task(browser.get(f"/paynexus/events/{answer.json()['token']}"))
        await deliver_until(reading.done, browser, reference)
        assert '"state": "completed"' in (await reading).text
    assert len(ledger.prompts) == 1


@FRAMEWORKS
async def test_without_a_secret_the_customer_is_shown_the_same(framework, shop):
    """Where no phone is stored, the process that asked knows it."""
    shop.secret = None
    async with shop.served(framework) as browser:
        answer = await browser.post("/pay", json=ORDER)
        assert answer.json()["phone"] == "2547*****866"
        assert Tokens(SECRET).read(answer.json()["token"]).checkout_request_id.startswith("ws_CO_")


# --- The engine


async def test_the_engine_is_destroyed_whatever_happens(shop):
    """Also when the application cannot start; and then another one can be made."""
    for _ in range(2):
        async with shop.client() as paynexus:
            with pytest.raises(ZeroDivisionError):
                async with shop.follow(paynexus):
                    raise ZeroDivisionError
            with pytest.raises(ClientStateError):
                await shop.durable.pay("order-1", amount=1, phone=PHONE)


async def test_what_ends_meanwhile_is_written_down(shop, tmp_path):
    """The next launch would have it run again."""

    @DBOS.workflow(name="own")
    async def own() -> None:
        await asyncio.sleep(0.3)

    async with shop.client() as paynexus, shop.follow(paynexus):
        await DBOS.start_workflow_async(own)
    with closing(sqlite3.connect(tmp_path / "shop.sqlite")) as database:
        rows = database.execute("SELECT status FROM workflow_status WHERE name = 'own'").fetchall()
    assert rows == [("SUCCESS",)]


async def test_without_an_engine_nothing_begins(shop):
    """It is the application's to make."""
    async with shop.client() as paynexus:
        durable = DurablePayments(paynexus, on_settled=shop.hand_over)
        with pytest.raises(dbos_error.DBOSException):
            async with launched(durable):
                raise AssertionError


async def test_without_durable_payments_a_route_says_so(shop, caplog):
    """To the merchant; a delivery is the client's alone."""
    async with shop.served("fastapi", durable=None) as browser:
        assert (await browser.post("/pay", json=ORDER)).status_code == 500
        assert "give it durable=" in caplog.text
        answer = await browser.post("/paynexus/webhooks", **delivery("PNX123456789"))
        assert answer.status_code == 200


async def test_nothing_else_is_made_up():
    """Only this one name is made when it is asked for."""
    with pytest.raises(AttributeError, match="has no attribute 'Orders'"):
        _ = for_fastapi.Orders


async def test_no_engine_is_loaded_by_who_does_not_use_it():
    """It takes longer than all the rest."""
    code = "import sys, paynexus_async.aiohttp, paynexus_async.fastapi; print(*sys.modules)"
    child = await anyio.run_process([sys.executable, "-c", code])
    loaded = child.stdout.decode().split()
    assert "paynexus_async.fastapi" in loaded
    assert not {"dbos", "sqlalchemy", "paynexus_async.durable"} & set(loaded)


# --- Answers


def not_prompted(state: OrderState, cause: BaseException | None = None) -> OrderNotPromptedError:
    error = OrderNotPromptedError("order 254711111111 was not prompted for: secret", state=state)
    error.__cause__ = cause
    return error


def still_open(state: OrderState) -> OrderStillOpenError:
    return OrderStillOpenError("still", state=state, reference="PNX123456789")


def told(error: Any, **headers: str) -> _checkout.Answer:
    return _checkout.answer_to(error, Tokens(SECRET), headers)


@pytest.mark.parametrize(
    ("state", "shown", "again"),
    [
        (OrderState.PROMPTING, "pending", False),
        (OrderState.PENDING, "pending", False),
        (OrderState.UNKNOWN, "unknown", False),
        (OrderState.FAILED, "unknown", False),  # of `resolve`: nothing is said to a customer
        (OrderState.COMPLETED, "completed", None),
    ],
)
async def test_an_order_that_may_be_paid_is_no_problem(state, shown, again):
    """Nor is one that was; who asks is given no token, and no payment's name."""
    answer = told(still_open(state))
    assert answer.status == 202
    assert (answer.document["state"], answer.document.get("again")) == (shown, again)
    assert answer.document["is_over"] is (state is OrderState.COMPLETED)
    assert answer.document["may_try_again"] is False
    assert "token" not in answer.document
    assert "PNX" not in answer.body.decode()


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (OrderConflictError("x"), 409, "order-conflict"),
        (not_prompted(OrderState.REJECTED), 422, "refused"),
        (not_prompted(OrderState.NEVER_SENT), 503, "not-sent"),
        (
            not_prompted(OrderState.REJECTED, BadRequestError("no", response=response(400))),
            422,
            "refused",
        ),
        (not_prompted(OrderState.NEVER_SENT, QuotaExhaustedError("x", retry_after=7)), 503, "busy"),
        (not_prompted(OrderState.NEVER_SENT, ClientStateError("closed")), 503, "not-sent"),
        (not_prompted(OrderState.NEVER_SENT, KeyError("x")), 503, "not-sent"),
    ],
    ids=repr,
)
async def test_what_was_not_sent_is_a_problem(error, status, code):
    """The cause's, where it is known; the next request is for another attempt, if for any."""
    answer = told(error)
    assert (answer.status, answer.document["code"]) == (status, code)
    assert answer.document["again"] is True
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers.get("Retry-After") == ("7" if code == "busy" else None)
    assert "secret" not in answer.body.decode()


async def test_no_delivery_is_acknowledged_by_an_order():
    """202 is for customers."""
    signed = {"X-PayNexus-Signature": "x"}
    assert told(still_open(OrderState.PENDING), **signed).status == 500
