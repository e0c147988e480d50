"""A payment is followed to its end: in bursts without a write, in hops without memory."""

from __future__ import annotations

import asyncio
import sqlite3
import time

import pytest
from anyio import to_thread
from dbos import DBOS

from paynexus_async import AsyncPayNexus
from paynexus_async.durable import Terms
from paynexus_async.sandbox import Fault, Scenario, Step

from ..stopwatch import Stopwatch
from .shop import ORDER, Shop

pytestmark = pytest.mark.anyio


def later(end: str, *, paid_at: float = 900.0) -> Scenario:
    """A payment that ends without money, and is paid after all."""
    return Scenario(f"{end}-first", (Step(1, end), Step(paid_at, "completed")))


# --- A burst


async def test_a_burst_writes_nothing_however_often_it_looks(shop: Shop):
    """What another connection sees of the file does not change between the first and last look."""
    shop.ledger.script("stuck")
    async with shop.worker() as durable:
        await (await durable.pay("order-1", **ORDER)).payment()
        await shop.until(lambda: [row[1] for row in shop.rows()] == ["SUCCESS", "PENDING"])
        await shop.until(lambda: len(shop.wire.asked) > 2)
        reader = sqlite3.connect(shop.path)
        try:
            version = reader.execute("PRAGMA data_version").fetchone()
            asked = len(shop.wire.asked)
            await shop.until(lambda: len(shop.wire.asked) > asked + 5)
            assert reader.execute("PRAGMA data_version").fetchone() == version
        finally:
            reader.close()


async def test_after_its_burst_a_payment_waits_as_a_row(shop: Shop):
    """No task, and no memory; half a minute later it is looked at again."""
    shop.ledger.script(Scenario("slower", (Step(1, "processing"), Step(1_000, "completed"))))
    async with shop.worker(terms=Terms(burst_seconds=5, handler_seconds=600)) as durable:
        handle = await durable.pay("order-1", **ORDER)
        await shop.until_waiting()
        assert not durable._work.running
        view = await handle.view()
        assert (view.state, view.told, view.is_over) == ("pending", None, False)
        assert view.next_look_at is not None
        assert 25 < view.next_look_at - time.time() < 31
        await shop.skip(60)
        assert (await handle.outcome()).succeeded
    assert [outcome.revision for outcome in shop.told] == [0]


async def test_a_burst_that_hears_only_errors_keeps_why(shop: Shop):
    """The order is pending still, not failed."""
    shop.ledger.faults.add(Fault("500-before", call="status"))
    async with shop.worker(terms=Terms(burst_seconds=20, handler_seconds=600)) as durable:
        handle = await durable.pay("order-1", **ORDER)
        await handle.payment()
        await shop.until_waiting()
        view = await handle.view()
        assert view.state == "pending"
        assert "Something went wrong" in (view.reason or "")
    assert shop.told == []


async def test_later_it_is_looked_at_once_a_hop(shop: Shop):
    """Nobody waits at the till after five minutes."""
    shop.ledger.script("stuck")
    async with shop.worker(terms=Terms(burst_seconds=5, handler_seconds=600)) as durable:
        await (await durable.pay("order-1", **ORDER)).payment()
        await shop.until_waiting()
        for hop in (1, 2):
            asked, count = len(shop.wire.asked), len(shop.rows())
            await shop.skip(400 * hop)
            await shop.until(lambda count=count: len(shop.rows()) == count + 1)
            await shop.until_waiting()
            assert len(shop.wire.asked) == asked + 1


async def test_a_look_that_fails_is_repeated_at_the_next_hop(shop: Shop):
    """And says why."""
    shop.ledger.script(Scenario("slower", (Step(1, "processing"), Step(9_000, "completed"))))
    async with shop.worker(terms=Terms(burst_seconds=5, handler_seconds=600)) as durable:
        handle = await durable.pay("order-1", **ORDER)
        await handle.payment()
        await shop.until_waiting()
        shop.ledger.faults.add(Fault("404-before", call="status", times=1))
        count = len(shop.rows())
        await shop.skip(400)
        await shop.until(lambda: len(shop.rows()) == count + 1)
        await shop.until_waiting()
        view = await handle.view()
        assert (view.state, view.reason) == ("pending", view.reason)
        assert "not found" in (view.reason or "").lower()
        seen = (await durable._orders.attempts_of("order-1"))[-1].seen
        assert seen is not None
        assert seen["blind"] == 0  # there are more looks: only the last one is made up for
        await shop.skip(600)
        assert (await handle.outcome()).succeeded


async def test_what_nobody_foresaw_ends_no_order(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    """A step that failed once would fail for ever: it is kept, without its words, and goes on."""

    async def fail(*_: object, **__: object) -> None:
        msg = "0746990866"
        raise ZeroDivisionError(msg)

    with monkeypatch.context() as broken:
        broken.setattr(AsyncPayNexus, "wait_for_completion", fail)
        async with shop.worker() as durable:
            handle = await durable.pay("order-1", **ORDER)
            await shop.until_waiting()
            view = await handle.view()
            assert (view.state, view.reason) == ("pending", "ZeroDivisionError")
            broken.undo()
            await durable.retry("order-1")
            assert (await handle.outcome()).succeeded


async def test_without_a_secret_a_lost_payment_is_not_found_by_the_next_process(shop: Shop):
    """No row has its phone: it stays unknown, and says why; nothing is asked for."""
    shop.ledger.faults.add(Fault("reset-after", call="initiate", times=1))
    shop.ledger.faults.add(Fault("403-before", call="list"))
    async with shop.worker(secret=None) as durable:
        await (await durable.pay("order-1", **ORDER)).outcome()
        await shop.until_waiting()
    asked, count = len(shop.wire.asked), len(shop.rows())
    async with shop.worker(secret=None) as durable:
        await durable.retry("order-1")
        await shop.until(lambda: len(shop.rows()) == count + 1)
        await shop.until_waiting()
        view = await shop.view(durable, "order-1")
        assert (view.state, len(shop.wire.asked)) == ("unknown", asked)
        assert "its phone is not stored" in (view.reason or "")
    assert len(shop.told) == 1


# --- Late truth


@pytest.mark.parametrize("end", ["expired", "failed", "cancelled"])
async def test_what_ended_without_money_and_was_paid_after_all_is_told_again(shop: Shop, end: str):
    """As a revision, which names what it overtakes; by whichever process is alive by then."""
    shop.ledger.script(later(end))
    async with shop.worker() as durable:
        await durable.pay("order-1", **ORDER)
        first = await shop.until_told()
        assert (first.state, first.revision, first.overtakes) == (end, 0, None)
    async with shop.worker() as durable:
        await shop.skip(61)
        second = await shop.until_told(2)
        assert (second.state, second.revision, second.overtakes) == ("completed", 1, end)
        assert second.succeeded
        assert second.attempt == 1
        await shop.until_over()
        view = await shop.view(durable, "order-1")
        assert (view.told, view.is_over) == ("completed", True)


async def test_a_last_look_that_fails_is_not_the_last_one(shop: Shop):
    """Found by the crashes: else a customer who paid late stays told as one who has not."""
    shop.ledger.script(later("expired"))
    async with shop.worker(terms=Terms(watch_seconds=50, handler_seconds=600)) as durable:
        await durable.pay("order-1", **ORDER)
        await shop.until_told()
        await shop.until_waiting()
        fault, count = shop.ledger.faults.add(Fault("404-before", call="status")), len(shop.rows())
        await shop.skip(61)
        await shop.until(lambda: len(shop.rows()) == count + 1)
        await shop.until_waiting()
        shop.ledger.faults.remove(fault.id)
        await shop.skip(61)
        second = await shop.until_told(2)
        assert (second.state, second.overtakes) == ("completed", "expired")
        await shop.until_over()


async def test_what_stays_as_it_ended_is_told_once_and_watched_for_a_while(shop: Shop):
    """A few looks, and then no more."""
    shop.ledger.script("expired")
    terms = Terms(watch_seconds=200, handler_seconds=600)
    async with shop.worker(terms=terms) as durable:
        await durable.pay("order-1", **ORDER)
        await shop.until_told()
        asked = len(shop.wire.asked)
        for _ in range(8):
            await shop.until(lambda: {row[1] for row in shop.rows()} <= {"SUCCESS", "DELAYED"})
            last, state = shop.rows()[-1]
            if state == "SUCCESS":
                break
            await shop.skip(100)
            await shop.until(lambda last=last: (last, "SUCCESS") in shop.rows())
        await shop.until_over()
        assert 1 <= len(shop.wire.asked) - asked <= 4
    assert len(shop.told) == 1


async def test_what_never_ends_is_unknown_in_the_end(shop: Shop):
    """It is told so: neither as paid nor as failed."""
    shop.ledger.script("stuck")
    terms = Terms(burst_seconds=5, watch_seconds=500, handler_seconds=600)
    async with shop.worker(terms=terms) as durable:
        handle = await durable.pay("order-1", **ORDER)
        await handle.payment()
        await shop.until_waiting()
        await shop.skip(501)
        outcome = await handle.outcome()
        assert (outcome.state, outcome.reason) == ("unknown", "it has not ended in all the time")
        assert outcome.payment is not None
        assert (await handle.view()).is_over
    assert shop.told == [outcome]


# --- What is not this order's


@pytest.mark.parametrize("scenario", ["other-amount", "other-phone", "other-reference"])
async def test_a_payment_of_something_else_is_unknown(shop: Shop, scenario: str):
    """Never completed: goods would be handed over for what was not asked."""
    shop.ledger.script(scenario)
    async with shop.worker() as durable:
        outcome = await (await durable.pay("order-1", **ORDER)).outcome()
        assert outcome.state == "unknown"
        assert not outcome.succeeded
        assert outcome.reason


async def test_two_orders_that_are_answered_with_one_payment_are_not_both_paid(shop: Shop):
    """The first has it; the second is unknown, and says why."""
    for _ in range(2):
        shop.ledger.script(Scenario("same", initiate={"reference": "PNXSAME00001"}))
    shop.ledger.faults.add(Fault("500-before", call="status"))
    async with shop.worker() as durable:
        first = await durable.pay("order-1", **ORDER)
        assert (await first.payment()).reference == "PNXSAME00001"
        second = await durable.pay("order-2", amount=100, phone="0746990867")
        outcome = await second.outcome()
        assert (outcome.state, outcome.payment) == ("unknown", None)
        assert (await second.view()).state == "unknown"
        assert (await first.view()).state == "pending"
    assert [told.order_id for told in shop.told] == ["order-2"]


# --- Payments whose names are missing


async def test_a_payment_without_a_reference_is_followed_by_its_other_name(shop: Shop):
    """Which ends in the customer's number, and so is stored encrypted."""
    shop.ledger.script(
        Scenario("nameless", (Step(9_000, "completed"),), initiate={"reference": None})
    )
    async with shop.worker(terms=Terms(burst_seconds=5, handler_seconds=600)) as durable:
        handle = await durable.pay("order-1", **ORDER)
        await handle.payment()
        await shop.until_waiting()
    async with shop.worker() as durable:
        await shop.skip(500)
        assert (await shop.until_told()).succeeded


async def test_without_a_secret_that_name_is_not_stored(shop: Shop):
    """So the payment is unknown to whoever has but the row."""
    shop.ledger.script(Scenario("nameless", (), initiate={"reference": None}))
    async with shop.worker(secret=None) as durable:
        handle = await durable.pay("order-1", **ORDER)
        await handle.payment()
        outcome = await handle.outcome()
        assert outcome.state == "unknown"
        assert "only name is not stored" in (outcome.reason or "")
        count = len(shop.rows())
        await shop.skip(400)
        await shop.until(lambda: len(shop.rows()) == count + 1)
    assert len(shop.told) == 1


async def test_an_unknown_order_is_looked_for_again_and_again(shop: Shop):
    """Until it is listed; then it is followed, and what was told is overtaken."""
    shop.ledger.faults.add(Fault("reset-after", call="initiate", times=1))
    shop.ledger.faults.add(Fault("403-before", call="list"))
    async with shop.worker() as durable:
        handle = await durable.pay("order-1", **ORDER)
        outcome = await handle.outcome()
        assert outcome.state == "unknown"
        assert "could not be read" in (outcome.reason or "")
        shop.ledger.faults.clear()
        await shop.until_waiting()
        await durable.retry("order-1")
        second = await shop.until_told(2)
        assert (second.state, second.overtakes, second.revision) == ("completed", "unknown", 1)
    assert shop.wire.initiates == 1


# --- Closing


async def test_a_worker_that_closes_leaves_rows_that_another_goes_on_with_soon(shop: Shop):
    """Its waits for customers are cut, without an error or a lost look: due in five seconds."""
    shop.ledger.script(Scenario("slower", (Step(1, "processing"), Step(60, "completed"))))
    async with shop.worker(executor_id="a") as durable:
        handle = await durable.pay("order-1", **ORDER)
        await handle.payment()
        await shop.until(lambda: len(shop.wire.asked) > 1)
        await durable.aclose(timeout=400)
        assert not durable._work.running
        await shop.until_waiting()
        due = (await handle.view()).next_look_at
        assert due is not None
        assert 0 < due - time.time() <= 5
    async with shop.worker(executor_id="b"):
        await shop.skip(6)
        assert (await shop.until_told()).succeeded
    assert shop.wire.initiates == 1


async def test_a_worker_that_closes_has_the_answer_that_it_waits_for(shop: Shop):
    """A prompt that is being sent is waited for; what follows it is left."""
    arrived, go = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        arrived.set()
        await go.wait()

    shop.wire.on_answer = hold
    async with shop.worker(executor_id="a") as durable:
        handle = await durable.pay("order-1", **ORDER)
        await arrived.wait()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(durable.aclose(timeout=400))
            await asyncio.sleep(1)
            assert durable._work.running
            go.set()
        assert not durable._work.running
        await shop.until_waiting()
        assert [row[1] for row in shop.rows()] == ["SUCCESS", "SUCCESS", "DELAYED"]
        assert (await handle.payment()).reference is not None
    async with shop.worker(executor_id="b"):
        await shop.skip(6)
        assert (await shop.until_told()).succeeded
    assert shop.wire.initiates == 1


async def test_a_worker_that_closes_does_not_take_back_what_it_left(shop: Shop):
    """Its engine runs on until it is destroyed, and looks for what is due."""
    shop.ledger.script("stuck")
    async with shop.worker() as durable:
        await (await durable.pay("order-1", **ORDER)).payment()
        await shop.until(lambda: len(shop.wire.asked) > 1)
        await durable.aclose(timeout=400)
        await shop.until_waiting()
        assert [row[1] for row in shop.rows()] == ["SUCCESS", "SUCCESS", "DELAYED"]
        # Should it run on for long: it writes a row every few seconds, and asks for nothing.
        asked = len(shop.wire.asked)
        await shop.skip(6)
        await shop.until(lambda: len(shop.rows()) == 4)
        await shop.until_waiting()
        assert len(shop.wire.asked) == asked


async def test_what_does_not_end_in_time_is_left_as_after_a_crash(shop: Shop):
    """Closing takes no longer than it is given."""
    shop.wire.on_initiate = asyncio.Event().wait  # type: ignore[assignment]
    terms = Terms(
        grace_seconds=40_000
    )  # the call gives up after half of that, twenty times as fast
    async with shop.worker(terms=terms) as durable:
        await durable.pay("order-1", **ORDER)
        await shop.until(lambda: shop.wire.asked)
        began = time.monotonic()
        with Stopwatch() as watch:
            await durable.aclose(timeout=0.2)
            assert watch.seconds < 5
        assert time.monotonic() - began >= 0.2
        assert durable._work.running
        await shop.crash()
    assert shop.rows() == [("paynexus/order/order-1/1", "PENDING")]


# --- Where the engine runs it


async def test_the_engine_may_be_launched_outside_of_the_clients_loop(shop: Shop):
    """What it takes off its queue on a loop of its own is done where the client lives."""
    shop.ledger.script(later("expired"))

    async def elsewhere() -> None:
        await to_thread.run_sync(DBOS.launch)

    async with shop.worker(launched=elsewhere) as durable:
        handle = await durable.pay("order-1", **ORDER)
        assert (await handle.outcome()).state == "expired"
        await shop.until_waiting()
        await shop.skip(61)
        assert (await shop.until_told(2)).succeeded


async def test_what_is_recovered_before_the_worker_is_open_waits_for_it(shop: Shop):
    """The engine recovers at its launch, and the client may not be ready."""
    shop.ledger.script("stuck")
    async with shop.worker() as durable:
        await (await durable.pay("order-1", **ORDER)).payment()
        await shop.until(lambda: len(shop.wire.asked) > 1)
        await shop.crash()
    asked = len(shop.wire.asked)

    async def launched() -> None:
        DBOS.launch()
        await asyncio.sleep(40)
        assert len(shop.wire.asked) == asked

    async with shop.worker(launched=launched):
        await shop.until(lambda: len(shop.wire.asked) > asked)
