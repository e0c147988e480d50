"""What an operator sees of the orders, and may do to one."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from dbos import DBOS, DBOSClient

from paynexus_async import InvalidRequestError
from paynexus_async.durable import Orders, OrderStillOpenError, Terms
from paynexus_async.durable import _operations as operations
from paynexus_async.durable import _payments as payments
from paynexus_async.sandbox import Fault, Scenario, Step

from .shop import ORDER, PHONE, Shop

pytestmark = pytest.mark.anyio


async def unknown(shop: Shop, durable: Any, order_id: str = "order-1", **asked: Any) -> Any:
    """An order whose prompt may be out: PayNexus lists no such payment."""
    shop.ledger.faults.add(Fault("reset-before", call="initiate", times=1))
    handle = await durable.pay(order_id, **{**ORDER, **asked})
    assert (await handle.outcome()).state == "unknown"
    await shop.until_waiting()
    return handle


async def test_all_orders_at_a_glance(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    """Counts, who has waited longest, and what somebody must look at; however many rows."""
    monkeypatch.setattr(operations, "_PAGE", 2)

    async def fail(outcome: Any) -> None:
        if outcome.order_id == "paid-2":
            raise ValueError

    shop.on_told = fail
    async with shop.worker() as durable:
        empty = await durable.summary()
        assert (empty.counts, empty.oldest_pending) == ({}, None)
        assert (empty.unknown, empty.failing) == ((), ())
        await unknown(shop, durable, "lost")
        for number in (1, 2):
            phone = f"074699086{number}"
            await (await durable.pay(f"paid-{number}", amount=1, phone=phone)).outcome()
        for number in (3, 4):
            shop.ledger.script("stuck")
            phone = f"074699086{number}"
            await (await durable.pay(f"stuck-{number}", amount=1, phone=phone)).payment()
        told = await durable.summary()
    assert told.counts == {"unknown": 1, "completed": 2, "pending": 2}
    assert told.oldest_pending is not None
    assert told.oldest_pending.order_id == "stuck-3"
    assert time.time() - 60 < told.oldest_pending.taken_at <= time.time()
    assert [view.order_id for view in told.unknown] == ["lost"]
    assert [view.order_id for view in told.failing] == ["paid-2"]


async def test_an_order_that_is_being_sent_is_seen(shop: Shop):
    """It has neither a payment nor an end."""
    arrived = asyncio.Event()

    async def hold() -> None:
        arrived.set()
        await asyncio.Event().wait()

    shop.wire.on_initiate = hold
    async with shop.worker() as durable:
        handle = await durable.pay("order-1", **ORDER)
        await arrived.wait()
        view = await handle.view()
        assert (view.state, view.payment, view.reason) == ("prompting", None, None)
        assert (view.is_over, view.told, view.next_look_at) == (False, None, None)
        assert (await durable.summary()).counts == {"prompting": 1}
        await shop.crash()


async def test_rows_are_in_the_order_of_their_numbers_whatever_the_clocks_say(shop: Shop):
    """Workers' clocks differ: a row may seem younger than what goes on with it."""
    async with shop.worker() as durable:
        await (await durable.pay("order-1", **ORDER)).outcome()
        await shop.until_over()
        shop.execute(
            "UPDATE workflow_status SET created_at = created_at + 60000 WHERE name LIKE '%.prompt'"
        )
        assert (await durable.summary()).counts == {"completed": 1}


# --- Retry


async def test_what_waits_is_looked_at_now_when_somebody_asks(shop: Shop):
    """And its handler called, if that had failed."""

    async def fail(outcome: Any) -> None:
        if len(shop.told) == 1:
            raise ValueError

    shop.on_told = fail
    async with shop.worker() as durable:
        handle = await durable.pay("order-1", **ORDER)
        await handle.outcome()
        assert (await durable.retry("order-1")).handler_failures == 1
        await shop.until_told(2)
        await shop.until_over()
        assert (await handle.view()).handler_failures == 0


async def test_what_does_not_wait_cannot_be_retried(shop: Shop):
    """It runs, is over, or was never heard of."""
    shop.ledger.script("stuck")
    async with shop.worker() as durable:
        for order_id, words in (("order-1", "is being worked on"), ("order-2", "is over")):
            handle = await durable.pay(order_id, amount=100, phone=f"074699086{order_id[-1]}")
            await (handle.payment() if order_id == "order-1" else handle.outcome())
            with pytest.raises(InvalidRequestError, match=words):
                await durable.retry(order_id)
        with pytest.raises(InvalidRequestError, match="there is no order 'order-9'"):
            await durable.retry("order-9")


# --- Resolve


async def test_that_there_is_no_payment_is_believed(shop: Shop):
    """The handler is told; the order may be asked for again."""
    async with shop.worker() as durable:
        handle = await unknown(shop, durable)
        assert (await durable.resolve("order-1", None)).state == "unknown"
        second = await shop.until_told(2)
        assert (second.state, second.overtakes, second.revision) == ("written_off", "unknown", 1)
        assert "somebody who looked" in (second.reason or "")
        await shop.until(lambda: shop.rows()[-1][1] == "SUCCESS")
        view = await handle.view()
        assert (view.state, view.is_over) == ("written_off", True)
        assert (await durable.summary()).counts == {"written_off": 1}
        with pytest.raises(OrderStillOpenError, match="nothing to resolve"):
            await durable.resolve("order-1", None)
        again = await durable.pay("order-1", **ORDER, again=True, allow_duplicate=True)
        assert (again.attempt, (await again.outcome()).state) == (2, "completed")


async def test_a_reference_is_asked_for(shop: Shop):
    """And followed from there."""
    async with shop.worker() as durable:
        handle = await unknown(shop, durable)
        async with shop.client() as paynexus:
            other = await paynexus.initiate_payment(100, PHONE)
        await durable.resolve("order-1", other.reference)
        second = await shop.until_told(2)
        assert (second.state, second.overtakes) == ("completed", "unknown")
        await shop.until(lambda: shop.rows()[-1][1] == "SUCCESS")
        assert (await handle.view()).state == "completed"


@pytest.mark.parametrize(
    ("amount", "phone", "words"), [(7, PHONE, "amount"), (100, "0746990899", "phone")]
)
async def test_a_reference_of_something_else_resolves_nothing(
    shop: Shop, amount: int, phone: str, words: str
):
    """Its amount or phone is another: the order stays unknown, and says why."""
    async with shop.worker() as durable:
        handle = await unknown(shop, durable)
        async with shop.client() as paynexus:
            other = await paynexus.initiate_payment(amount, phone)
        count = len(shop.rows())
        await durable.resolve("order-1", other.reference)
        await shop.until(lambda: len(shop.rows()) == count + 2)
        await shop.until(lambda: "PENDING" not in [row[1] for row in shop.rows()])
        view = await handle.view()
        assert (view.state, len(shop.told)) == ("unknown", 1)
        assert words in (view.reason or "")


async def test_only_an_unknown_order_is_resolved(shop: Shop):
    """Of any other more is known than an operator could say; it names the payment."""
    shop.ledger.script("stuck")
    async with shop.worker() as durable:
        payment = await (await durable.pay("order-1", **ORDER)).payment()
        await shop.until(lambda: len(shop.rows()) == 2 and shop.rows()[0][1] == "SUCCESS")
        with pytest.raises(OrderStillOpenError, match="is pending") as told:
            await durable.resolve("order-1", None)
        assert told.value.reference == payment.reference
        with pytest.raises(InvalidRequestError, match="there is no order"):
            await durable.resolve("order-9", None)


async def test_an_order_that_is_given_up_is_resolved_too(shop: Shop):
    """Nothing of it waits any more."""
    shop.ledger.script("other-amount")
    terms = Terms(watch_seconds=30, handler_seconds=600)
    async with shop.worker(terms=terms) as durable:
        handle = await durable.pay("order-1", **ORDER)
        await shop.until_waiting()
        await shop.skip(60)
        await shop.until_over()
        view = await handle.view()
        assert (view.state, view.is_over) == ("unknown", True)
        await durable.resolve("order-1", None)
        assert (await shop.until_told(2)).state == "written_off"


async def test_an_order_that_is_being_looked_at_is_not_resolved(shop: Shop):
    """What that finds out, or tells, would be overtaken by what it does not know of."""
    go = asyncio.Event()

    async def hold(_: Any) -> None:
        await go.wait()

    shop.on_told = hold
    shop.ledger.faults.add(Fault("reset-before", call="initiate", times=1))
    async with shop.worker(terms=Terms(handler_seconds=6_000)) as durable:
        await durable.pay("order-1", **ORDER)
        await shop.until_told()
        with pytest.raises(InvalidRequestError, match="in this moment"):
            await durable.resolve("order-1", None)
        go.set()
        await shop.until_waiting()
        await durable.resolve("order-1", None)
        assert (await shop.until_told(2)).state == "written_off"


async def test_a_resolve_that_was_interrupted_is_gone_on_with(shop: Shop):
    """What goes on is there, and the row before does not name it: no second one is made."""
    async with shop.worker() as durable:
        handle = await unknown(shop, durable)
        await durable.resolve("order-1", None)
        await shop.until_told(2)
        await shop.until(lambda: shop.rows()[-1][1] == "SUCCESS")
        count = len(shop.rows())
        shop.execute("UPDATE workflow_status SET attributes = NULL WHERE status = 'CANCELLED'")
        view = await handle.view()
        assert (view.state, view.is_stuck) == ("unknown", True)
        await durable.retry("order-1")
        view = await handle.view()
        assert (view.state, view.is_over, len(shop.rows())) == ("written_off", True, count)
    assert len(shop.told) == 2


# --- What the engine does not run any more


def broken(shop: Shop) -> None:
    """Let the engine call the order's first row an error."""
    shop.execute(
        "UPDATE workflow_status SET status = 'ERROR', output = NULL "
        "WHERE workflow_uuid = 'paynexus/order/order-1/1'"
    )


async def test_an_error_of_the_engine_ends_no_order(shop: Shop):
    """It goes on with what the row had begun."""
    shop.ledger.script("stuck")
    async with shop.worker(terms=Terms(burst_seconds=5, handler_seconds=600)) as durable:
        handle = await durable.pay("order-1", **ORDER)
        await handle.payment()
        await shop.until_waiting()
        broken(shop)
        assert (await handle.view()).is_stuck
        assert await durable._orders.mend(0) == 1
        assert (await handle.view()).state == "pending"
        assert await durable._orders.mend(0) == 0
    assert shop.wire.initiates == 1


async def test_where_an_error_of_the_engine_is_all_that_is_known_a_prompt_may_be_out(shop: Shop):
    """The order is looked for, and told as unknown; never as not sent, nor sent again."""
    async with shop.worker() as durable:
        handle = await unknown(shop, durable)
        for row, _ in shop.rows()[1:]:
            await DBOS.delete_workflow_async(row)
        broken(shop)
        assert await durable._orders.mend(0) == 1
        assert (await shop.until_told(2)).state == "unknown"
        assert (await handle.view()).state == "unknown"
        assert await durable._orders.mend(0) == 0
    assert shop.wire.initiates == 1


async def test_versions_are_judged_by_a_worker_of_the_latest(shop: Shop):
    """Not by one of an older, nor beside the application."""

    def earlier() -> None:  # versions count by whole seconds, and this test is faster
        shop.execute("UPDATE application_versions SET version_timestamp = version_timestamp - 9000")

    earlier()
    shop.ledger.script("stuck")
    async with shop.worker(executor_id="b", version="younger") as durable:
        await (await durable.pay("order-1", **ORDER)).payment()
        await shop.until(lambda: [row[1] for row in shop.rows()] == ["SUCCESS", "PENDING"])
        await shop.crash()
    async with shop.worker(executor_id="a") as durable:
        assert await durable._orders.mend(-60) == 0
    client = DBOSClient(system_database_url=shop.url)
    try:
        assert await Orders(client).mend(-60) == 0
    finally:
        client.destroy()
    earlier()
    async with shop.worker(executor_id="a", version="youngest") as durable:
        assert await durable._orders.mend(-60) == 1


# --- Beside the application


async def test_an_operator_works_beside_the_application(shop: Shop):
    """With a client of its database; a worker that comes later does what was said."""
    async with shop.worker() as durable:
        await unknown(shop, durable)
    client = DBOSClient(system_database_url=shop.url)
    try:
        orders = Orders(client, "paynexus")
        (view,) = await orders.of("order-1")
        assert (view.state, view.phone) == ("unknown", "2547*****866")
        assert view.next_look_at is not None
        assert (await orders.retry("order-1")).workflow_id == view.workflow_id
        await orders.resolve("order-1", None)
    finally:
        client.destroy()
    async with shop.worker():
        assert (await shop.until_told(2)).state == "written_off"


# --- Forgetting


async def test_orders_that_are_over_are_forgotten(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    """All of their rows; none of what waits, is young, or has not been heard."""
    monkeypatch.setattr(operations, "_PAGE", 1)
    monkeypatch.setattr(operations, "_FORGOTTEN_AT_ONCE", 1)  # what stays is passed by
    shop.ledger.script(Scenario("late", (Step(1, "expired"),)))
    async with shop.worker(terms=Terms(watch_seconds=100, handler_seconds=600)) as durable:
        waiting = await durable.pay("waiting", **ORDER)
        assert (await waiting.outcome()).state == "expired"
        over = await durable.pay("over", amount=1, phone="0746990861")
        assert (await over.outcome()).succeeded
        await shop.until_waiting()
        assert await durable._orders.forget(3_600) == 0
        shop.execute(
            "UPDATE workflow_status SET created_at = created_at - 7200000, "
            "completed_at = completed_at - 7200000 WHERE name LIKE '%.prompt'"
        )
        assert await durable._orders.forget(3_600) == 0  # long ago, but it ended just now
        await asyncio.sleep(2)
        owned = "SELECT count(*) FROM workflow_status WHERE name LIKE '%.own'"
        assert shop.execute(owned) == [(2,)]
        assert await durable._orders.forget(0) == 1
        assert shop.execute(owned) == [(1,)]
        assert await durable.orders("over") == []
        assert [view.state for view in await durable.orders("waiting")] == ["expired"]
        again = await durable.pay("over", amount=1, phone="0746990861")
        assert (await again.outcome()).succeeded
    assert shop.wire.initiates == 3


async def test_a_chain_whose_rows_are_gone_is_told_as_far_as_it_goes(shop: Shop):
    """Somebody deleted a row, or another tool did."""
    async with shop.worker() as durable:
        handle = await durable.pay("order-1", **ORDER)
        await handle.outcome()
        follow = shop.rows()[1][0]
        await DBOS.delete_workflow_async(follow)
        assert (await handle.view()).state == "pending"
        assert (await durable.pay("order-1", **ORDER)).attempt == 1
    assert shop.wire.initiates == 1


async def test_a_worker_forgets_by_itself_and_outlives_errors(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """The database may be away while it sweeps or listens; it comes again."""
    monkeypatch.setattr(payments, "_FORGET_SECONDS", 0)
    monkeypatch.setattr(payments, "_SWEEP_SECONDS_MAX", 2)
    forgotten: list[float] = []

    async def forget(_: object, seconds: float) -> int:
        forgotten.append(seconds)
        raise OSError

    async def news(*_: object) -> list[str]:
        heard.append(1)
        raise OSError

    heard: list[int] = []
    monkeypatch.setattr(Orders, "forget", forget)
    monkeypatch.setattr(Orders, "news", news)
    shop.ledger.script("stuck")
    async with shop.worker(retention_seconds=90_000) as durable:
        await durable.pay("order-1", **ORDER)
        await shop.until(lambda: len(forgotten) > 1 and len(heard) > 1)
    assert set(forgotten) == {90_000}
    assert "OSError" in caplog.text
