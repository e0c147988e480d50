"""What a dead worker leaves, another takes over; what broke is run again from where it broke."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from dbos import DBOS

from paynexus_async import AsyncPayNexus, PaymentOutcomeUnknown, QuotaExhaustedError
from paynexus_async.durable import DurablePayments, Terms, _looking
from paynexus_async.durable import _payments as payments
from paynexus_async.durable._work import Work
from paynexus_async.sandbox import Scenario, Step

from .shop import ORDER, Breaking, Shop

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio

PROMPT = "paynexus/order/order-1/1"


async def died_following(shop: Shop, executor_id: str = "a", version: str | None = None) -> None:
    """A worker that died while it followed a payment."""
    shop.ledger.script(Scenario("slower", (Step(1, "processing"), Step(600, "completed"))))
    async with shop.worker(executor_id=executor_id, version=version) as durable:
        await (await durable.pay("order-1", **ORDER)).payment()
        await shop.until(lambda: len(shop.rows()) == 2 and shop.rows()[0][1] == "SUCCESS")
        await shop.crash()
    assert shop.rows()[1][1] == "PENDING"
    shop.clock.ahead += 40  # the customer has paid meanwhile


def aged(shop: Shop, seconds: float) -> None:
    """Let what runs have begun so long ago."""
    shop.execute(
        "UPDATE workflow_status SET created_at = created_at - :ms, updated_at = updated_at - :ms, "
        "started_at_epoch_ms = started_at_epoch_ms - :ms WHERE status = 'PENDING'",
        ms=int(seconds * 1000),
    )


@pytest.fixture
def breaking() -> Iterator[Any]:
    """Begins to refuse writes to a table, so many times."""
    made: list[Breaking] = []

    def begin(words: str, times: int, about: str = "") -> Breaking:
        made.append(Breaking(words, times, about))
        sa.event.listen(sa.Engine, "do_execute", made[-1])
        return made[-1]

    yield begin
    for one in made:
        sa.event.remove(sa.Engine, "do_execute", one)


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep comes when the test says so, and not by itself as well."""

    async def never(self: DurablePayments) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(DurablePayments, "_sweep_for_ever", never)


# --- Dead workers


async def test_a_restarted_worker_recovers_its_own_at_once(shop: Shop):
    """The engine does that, by its executor id; the sweep is not needed."""
    await died_following(shop)
    async with shop.worker(executor_id="a"):
        assert (await shop.until_told()).succeeded


@pytest.fixture
def spent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quota has no call for whoever asks at once; who follows a payment waits for one."""

    async def refuse(*_: object, **__: object) -> Any:
        msg = "the call quota of this key is spent"
        raise QuotaExhaustedError(msg, retry_after=1.0)

    monkeypatch.setattr(AsyncPayNexus, "get_payment_status", refuse)


@pytest.mark.usefixtures("spent")
async def test_what_is_taken_up_while_the_quota_is_spent_is_followed(shop: Shop):
    """In its turn: after a restart there are more payments than a minute has calls."""
    await died_following(shop)
    async with shop.worker(executor_id="a"):
        assert (await shop.until_told()).succeeded


@pytest.mark.usefixtures("spent")
async def test_what_is_too_old_to_be_followed_waits_while_the_quota_is_spent(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    """As a row, that says why."""
    await died_following(shop)
    monkeypatch.setattr(_looking, "_BURST_AGE_SECONDS", 0.0)
    async with shop.worker(executor_id="a") as durable:
        await shop.until_waiting()
        view = await shop.view(durable, "order-1")
    assert (view.state, view.reason) == ("pending", "the call quota of this key is spent")


@pytest.mark.usefixtures("by_hand")
async def test_another_worker_takes_over_what_is_older_than_its_lease(shop: Shop):
    """And nothing that is younger: its worker is alive, as far as is known."""
    await died_following(shop)
    async with shop.worker(executor_id="b") as durable:
        assert await durable.sweep() == 0
        assert shop.rows()[1][1] == "PENDING"
        aged(shop, durable._terms.lease_seconds + 1)
        assert await durable.sweep() == 1
        assert (await shop.until_told()).succeeded
        await shop.until(lambda: shop.rows()[1][1] == "SUCCESS")
    assert shop.wire.initiates == 1


async def test_the_sweep_comes_by_itself(shop: Shop):
    """Several times within a lease."""
    await died_following(shop)
    aged(shop, 1_000)
    async with shop.worker(executor_id="b"):
        assert (await shop.until_told()).succeeded


@pytest.mark.usefixtures("by_hand")
async def test_a_sweep_leaves_alone_what_runs_here(shop: Shop):
    """However old it is: this worker knows that it is alive."""
    shop.ledger.script("stuck")
    async with shop.worker() as durable:
        await (await durable.pay("order-1", **ORDER)).payment()
        await shop.until(lambda: len(shop.wire.asked) > 1)
        aged(shop, 10_000)
        assert await durable.sweep() == 0


@pytest.mark.usefixtures("by_hand")
async def test_a_worker_that_was_overtaken_writes_nothing_and_takes_nothing_back(shop: Shop):
    """It stood still; when it comes back, another one owns what it was doing."""
    arrived, go = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        arrived.set()
        await go.wait()

    shop.wire.on_answer = hold
    async with shop.worker(secret=None) as durable:
        await durable.pay("order-1", **ORDER)
        await arrived.wait()
        # Another worker, which owns it now, and has found out that a prompt may be out.
        shop.execute(
            "UPDATE workflow_status SET owner_xid = 'another', executor_id = 'b' "
            "WHERE workflow_uuid = :id",
            id=PROMPT,
        )
        go.set()
        await shop.until(lambda: PROMPT not in durable._work.running)
        assert not durable._work.stranded
        assert await durable.sweep() == 0
        steps = shop.execute("SELECT function_name FROM operation_outputs")
        assert steps == [("claim",)]
        assert len(shop.rows()) == 1


async def test_a_sweep_that_fails_is_told_and_comes_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """The database may be away for a while."""
    calls: list[float] = []

    async def sweep(self: DurablePayments) -> int:
        calls.append(time.monotonic())
        raise OSError

    monkeypatch.setattr(DurablePayments, "sweep", sweep)
    with caplog.at_level(logging.INFO, "paynexus_async"):
        async with shop.worker(terms=Terms(burst_seconds=2, handler_seconds=1, grace_seconds=1)):
            await shop.until(lambda: len(calls) > 2)
    assert "durable.sweep_failed" in {getattr(record, "event", "") for record in caplog.records}


async def test_rows_of_orders_that_are_over_are_forgotten_in_time(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    """If they are not to be kept for ever."""
    monkeypatch.setattr(payments, "_FORGET_SECONDS", 0.0)
    terms = Terms(burst_seconds=400, watch_seconds=1, handler_seconds=30, grace_seconds=1)
    async with shop.worker(terms=terms, retention_seconds=1.5) as durable:
        await (await durable.pay("order-1", **ORDER)).outcome()
        await shop.until(lambda: shop.rows() == [])


# --- Other versions


def registered(shop: Shop, *versions: str) -> None:
    """Versions of the application, the latest last: the engine's clock has whole seconds."""
    for seconds, version in enumerate(versions, int(time.time()) + 60):
        shop.execute(
            "INSERT INTO application_versions "
            "(version_id, version_name, version_timestamp, created_at, application_name) "
            "VALUES (:version, :version, :ms, :ms, 'shop')",
            version=version,
            ms=seconds * 1000,
        )


@pytest.mark.usefixtures("by_hand")
async def test_the_latest_version_goes_on_with_what_an_older_one_had_begun(shop: Shop):
    """A lease after its last sign of life: until then it may have a worker of its own.

    The engine would leave it to a worker of that version, of which there may be none.
    """
    registered(shop, "older", "newer")
    await died_following(shop, version="older")
    (old,) = [row[0] for row in shop.rows() if row[1] == "PENDING"]
    async with shop.worker(version="newer", executor_id="b") as durable:
        assert await durable.sweep() == 0
        assert (old, "PENDING") in shop.rows()
        aged(shop, durable._terms.lease_seconds + 1)
        assert await durable.sweep() == 1
        assert (await shop.until_told()).succeeded
        assert (old, "CANCELLED") in shop.rows()
        await shop.until(lambda: shop.rows()[-1][1] == "SUCCESS")
        (view,) = await durable.orders("order-1")
        assert (view.state, view.is_stuck) == ("completed", False)
        assert await durable.sweep() == 0
    assert (shop.wire.initiates, len(shop.told)) == (1, 1)


@pytest.mark.usefixtures("by_hand")
async def test_an_older_version_leaves_alone_what_a_newer_one_had_begun(shop: Shop):
    """It may not know what to do with it."""
    registered(shop, "older", "newer")
    await died_following(shop, version="newer")
    rows = shop.rows()
    async with shop.worker(version="older", executor_id="b") as durable:
        aged(shop, durable._terms.lease_seconds + 1)
        assert await durable.sweep() == 0
        assert shop.rows() == rows
    assert shop.told == []


# --- What broke


@pytest.mark.parametrize("times", [2, 1], ids=["not recorded", "recorded"])
async def test_an_answer_that_could_not_be_written_is_not_lost(
    shop: Shop, breaking: Any, times: int
):
    """Nor is it asked for again: the process that has it writes it when it can.

    An engine that can write again at once records the error as the step's end, for ever.
    """

    async def fill() -> None:
        nonlocal full
        full = breaking("INSERT INTO main.operation_outputs", times)

    full: Any = None
    shop.wire.on_answer = fill
    async with shop.worker(secret=None) as durable:
        handle = await durable.pay("order-1", **ORDER)
        assert (await handle.outcome()).succeeded
        assert full.refused == times
        errors = shop.execute("SELECT 1 FROM operation_outputs WHERE error IS NOT NULL")
        assert len(errors) == (2 - times)
        assert (await handle.view()).payment.reference == shop.ledger.prompts[0].reference  # type: ignore[union-attr]
        assert not durable._work.prompts.fresh
        assert not durable._work.stranded
    assert (shop.wire.initiates, len(shop.told)) == (1, 1)
    assert not [path for path in shop.wire.asked if path.endswith("/payments")]  # no search


@pytest.mark.parametrize("times", [2, 1], ids=["not recorded", "recorded"])
async def test_after_a_crash_such_an_answer_is_looked_for(
    shop: Shop, breaking: Any, monkeypatch: pytest.MonkeyPatch, times: int
):
    """The next process has no memory of it: then a prompt may be out, and is found in the list."""

    async def fill() -> None:
        breaking("INSERT INTO main.operation_outputs", times)

    async def stands(self: Work, *_: Any) -> Any:
        reached.set()
        await asyncio.Event().wait()

    reached = asyncio.Event()
    shop.wire.on_answer = fill
    with monkeypatch.context() as patch:
        patch.setattr(Work, "_go_on", stands)
        async with shop.worker() as durable:
            await durable.pay("order-1", **ORDER)
            await reached.wait()
            await shop.crash()
    assert shop.rows() == [(PROMPT, "PENDING")]
    shop.wire.on_answer = None
    async with shop.worker() as durable:
        handle = await durable.pay("order-1", **ORDER)
        with pytest.raises(PaymentOutcomeUnknown, match="interrupted"):
            await handle.payment()
        assert (await handle.outcome()).succeeded
    assert (shop.wire.initiates, len(shop.told)) == (1, 1)
    assert [path for path in shop.wire.asked if path.endswith("/payments")]


@pytest.mark.usefixtures("by_hand")
async def test_a_claim_that_could_not_be_written_sends_nothing_and_is_tried_again(
    shop: Shop, breaking: Any
):
    """Until then the order waits; no byte leaves before its claim is on disk."""
    breaking("INSERT INTO main.operation_outputs", 2)
    async with shop.worker() as durable:
        handle = await durable.pay("order-1", **ORDER)
        await shop.until(lambda: durable._work.stranded == {PROMPT})
        assert shop.wire.asked == []
        assert await durable.sweep() == 1
        assert (await handle.outcome()).succeeded
        assert not durable._work.stranded
    assert (shop.wire.initiates, len(shop.told)) == (1, 1)


@pytest.mark.usefixtures("by_hand")
async def test_a_claim_that_is_refused_for_ever_ends_as_unknown(shop: Shop, breaking: Any):
    """Its error is kept as the step's result; after a lease, it is looked for and not sent.

    What another execution did meanwhile is not known here.
    """
    breaking("INSERT INTO main.operation_outputs", 1)
    async with shop.worker() as durable:
        handle = await durable.pay("order-1", **ORDER)
        await shop.until(lambda: durable._work.stranded == {PROMPT})
        assert await durable.sweep() == 1
        await shop.until(lambda: durable._work.stranded == {PROMPT})
        shop.clock.ahead += durable._terms.lease_seconds + 1
        assert await durable.sweep() == 1
        with pytest.raises(PaymentOutcomeUnknown, match="interrupted"):
            await handle.payment()
        assert (await handle.outcome()).state == "unknown"
    assert shop.wire.initiates == 0


@pytest.mark.usefixtures("by_hand")
async def test_an_end_that_could_not_be_written_is_led_on_from(shop: Shop, breaking: Any):
    """The engine records that the workflow failed; it did not, and had begun what follows."""
    shop.ledger.script("stuck")
    breaking("INSERT INTO main.workflow_output", 1, about=PROMPT)
    async with shop.worker() as durable:
        handle = await durable.pay("order-1", **ORDER)
        waiting = asyncio.create_task(handle.payment())
        await shop.until(lambda: (PROMPT, "ERROR") in shop.rows())
        view = await handle.view()
        assert (view.state, view.is_over, view.is_stuck) == ("prompting", False, True)
        await asyncio.sleep(2)
        assert not waiting.done()
        assert await durable.sweep() == 1
        assert (await waiting).reference == shop.ledger.prompts[0].reference
        assert (await handle.payment()).phone == "254746990866"
        view = await handle.view()
        assert (view.state, view.is_stuck) == ("pending", False)
        assert await durable.sweep() == 0
    assert shop.wire.initiates == 1


@pytest.mark.usefixtures("by_hand")
async def test_who_waits_for_an_end_is_led_on_too(shop: Shop, breaking: Any):
    """Whoever asked before the row broke hears of the outcome of the one that goes on."""
    breaking("INSERT INTO main.workflow_output", 1, about=PROMPT)
    async with shop.worker() as durable:
        handle = await durable.pay("order-1", **ORDER)
        waiting = asyncio.create_task(handle.outcome())
        await shop.until(lambda: (PROMPT, "ERROR") in shop.rows())
        assert await durable.sweep() == 1
        assert (await waiting).succeeded
    assert len(shop.told) == 1


async def test_an_error_of_the_engine_itself_is_not_waited_out(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    """Of a row that has not broken, whoever waits for it hears what the engine met."""

    class Handle:
        async def get_result(self, **_: object) -> None:
            raise OSError

    async def retrieve(_: str) -> Handle:
        return Handle()

    shop.ledger.script("stuck")
    async with shop.worker() as durable:
        handle = await durable.pay("order-1", **ORDER)
        await handle.payment()
        with monkeypatch.context() as patch:
            patch.setattr(DBOS, "retrieve_workflow_async", retrieve)
            with pytest.raises(OSError):  # noqa: PT011  # it has no words
                await handle.payment()
        await handle.payment()


@pytest.mark.usefixtures("by_hand")
async def test_a_put_off_look_is_led_to_as_well(shop: Shop, breaking: Any):
    """A row that broke when it had put the next look off makes no second one."""
    shop.ledger.script("stuck")
    breaking("INSERT INTO main.workflow_output", 1, about="('paynexus/payment/")
    async with shop.worker(terms=Terms(burst_seconds=4, handler_seconds=600)) as durable:
        await durable.pay("order-1", **ORDER)
        await shop.until(lambda: {"ERROR", "DELAYED"} <= {row[1] for row in shop.rows()})
        rows = shop.rows()
        assert await durable.sweep() == 1
        assert shop.rows() == rows
        (view,) = await durable.orders("order-1")
        assert (view.state, view.is_stuck, view.workflow_id) == ("pending", False, rows[-1][0])


@pytest.mark.usefixtures("by_hand")
async def test_an_end_that_could_not_be_written_is_told_again(
    shop: Shop, breaking: Any, monkeypatch: pytest.MonkeyPatch
):
    """By a row that goes on with it: one, though the worker dies between making it and saying so."""

    async def dies(*_: object, **__: object) -> None:
        raise SystemError

    breaking("INSERT INTO main.workflow_output", 1, about="('paynexus/payment/")
    async with shop.worker() as durable:
        await durable.pay("order-1", **ORDER)
        await shop.until(lambda: "ERROR" in {row[1] for row in shop.rows()})
        with monkeypatch.context() as patch:
            patch.setattr(DBOS, "update_workflow_attributes_async", dies)
            with pytest.raises(SystemError):
                await durable.sweep()
        await shop.until_told(2)
        await shop.until(lambda: shop.rows()[-1][1] == "SUCCESS")
        await shop.crash()
    async with shop.worker(executor_id="b") as durable:
        assert await durable.sweep() == 1
        (view,) = await durable.orders("order-1")
        assert (view.state, view.told, view.is_over) == ("completed", "completed", True)
        assert await durable.sweep() == 0
    assert shop.told[0] == shop.told[1]
    assert (len(shop.told), len(shop.rows()), shop.wire.initiates) == (2, 3, 1)


@pytest.mark.usefixtures("by_hand")
async def test_a_defect_of_ours_is_no_reason_to_give_a_payment_up(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """It is told by its name, and run again with the next sweep, without another prompt."""
    go_on = Work._go_on

    async def breaks(self: Any, *args: Any) -> Any:
        monkeypatch.setattr(Work, "_go_on", go_on)
        msg = "of 0746990866"
        raise KeyError(msg)

    monkeypatch.setattr(Work, "_go_on", breaks)
    with caplog.at_level(logging.INFO, "paynexus_async"):
        async with shop.worker() as durable:
            handle = await durable.pay("order-1", **ORDER)
            waiting = asyncio.create_task(handle.payment())
            await shop.until(lambda: durable._work.stranded)
            assert await durable.sweep() == 1
            await waiting
            assert (await handle.outcome()).succeeded
    assert "durable.stranded" in {getattr(record, "event", "") for record in caplog.records}
    ours = [record for record in caplog.records if record.name.startswith("paynexus")]
    assert not [record for record in ours if "746990866" in record.getMessage()]
    assert shop.wire.initiates == 1
