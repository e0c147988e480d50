"""The merchant's handler: at least once, and exactly once in a transaction of the merchant's."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.schema import CreateTable

from paynexus_async.durable import Terms, _work
from paynexus_async.durable._telling import TOLD
from paynexus_async.durable._work import UNTOLD
from paynexus_async.sandbox import Scenario, Step

from .shop import ORDER, Breaking, Shop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncSession

    from paynexus_async.durable import DurablePayments, Outcome

pytestmark = pytest.mark.anyio

Handled = list[tuple[str, str, int]]


class Books:
    """The merchant's own database, in which a handler writes what it did."""

    def __init__(self, shop: Shop) -> None:
        self.path = shop.path.replace("orders.sqlite", "books.sqlite")
        self.calls = 0
        self.failures: list[BaseException] = []
        with sqlite3.connect(self.path) as database:
            database.execute("CREATE TABLE done (order_id TEXT, state TEXT, revision INTEGER)")
            database.execute("CREATE TABLE strict (x INTEGER CHECK (x > 0))")
        database.close()

    async def write(self, outcome: Outcome, session: AsyncSession) -> None:
        self.calls += 1
        await session.execute(
            sa.text("INSERT INTO done VALUES (:order_id, :state, :revision)"),
            {
                "order_id": outcome.order_id,
                "state": str(outcome.state),
                "revision": outcome.revision,
            },
        )
        if self.failures:
            raise self.failures.pop(0)

    def read(self, columns: str, table: str) -> list[Any]:
        database = sqlite3.connect(self.path)
        try:
            return list(database.execute(f"SELECT {columns} FROM {table} ORDER BY rowid"))
        finally:
            database.close()

    @property
    def done(self) -> Handled:
        return self.read("order_id, state, revision", "done")

    @property
    def told(self) -> list[tuple[str, int]]:
        """What is written down to have taken effect."""
        return self.read("order_key, revision", "paynexus_told")

    @asynccontextmanager
    async def worker(self, shop: Shop, **options: Any) -> AsyncIterator[DurablePayments]:
        engine = create_async_engine(f"sqlite+aiosqlite:///{self.path}")
        options = {
            "sessions": async_sessionmaker(engine),
            "on_settled": self.write,
            **options,
        }
        try:
            async with shop.worker(**options) as durable:
                yield durable
        finally:
            await engine.dispose()


@pytest.fixture
def books(shop: Shop) -> Books:
    return Books(shop)


# --- At least once


async def test_a_handler_that_raises_is_called_again(shop: Shop):
    """After growing waits, with the same outcome; of what it raised, name and place are kept."""

    async def fail(outcome: Outcome) -> None:
        if len(shop.told) < 3:
            msg = f"no room for {outcome.phone}"
            raise ValueError(msg)

    shop.on_told = fail
    place = f"test_handler.py:{fail.__code__.co_firstlineno + 3}"
    async with shop.worker() as durable:
        handle = await durable.pay("order-1", **ORDER)
        assert (await handle.outcome()).succeeded
        for calls, wait in ((1, 5), (2, 10)):
            await shop.until_waiting()
            view = await handle.view()
            assert (view.handler_failures, view.handler_error) == (calls, f"ValueError at {place}")
            assert (view.state, view.told, view.is_over) == ("completed", None, False)
            await shop.skip(wait)
            await shop.until_told(calls + 1)
        await shop.until_over()
        view = await handle.view()
        assert (view.handler_failures, view.told, view.is_over) == (0, "completed", True)
    assert shop.told[0] == shop.told[1] == shop.told[2]


async def test_a_handler_that_hangs_is_cut(shop: Shop):
    """After the seconds that it was given; and called again."""

    async def hang(outcome: Outcome) -> None:
        if len(shop.told) == 1:
            await asyncio.Event().wait()

    shop.on_told = hang
    async with shop.worker(terms=Terms(handler_seconds=2)) as durable:
        handle = await durable.pay("order-1", **ORDER)
        assert (await handle.outcome()).succeeded
        assert ((await handle.view()).handler_error or "").startswith("TimeoutError at ")
        await shop.skip(5)
        await shop.until_told(2)


async def test_a_handler_that_waited_for_something_cancelled_is_called_again(shop: Shop):
    """That is an error of its own: nobody has cancelled what called it."""

    async def cancelled(outcome: Outcome) -> None:
        if len(shop.told) == 1:
            raise asyncio.CancelledError

    shop.on_told = cancelled
    async with shop.worker() as durable:
        handle = await durable.pay("order-1", **ORDER)
        assert (await handle.outcome()).succeeded
        assert ((await handle.view()).handler_error or "").startswith("CancelledError at ")
        await shop.skip(5)
        await shop.until_told(2)


async def test_what_overtakes_an_end_that_was_never_heard_is_told_as_the_first(shop: Shop):
    """The handler failed at `expired`; of what it did not hear, nothing is overtaken."""
    shop.ledger.script(Scenario("late", (Step(1, "expired"), Step(100, "completed"))))

    async def fail(outcome: Outcome) -> None:
        if len(shop.told) == 1:
            raise ValueError

    shop.on_told = fail
    async with shop.worker() as durable:
        handle = await durable.pay("order-1", **ORDER)
        await handle.outcome()
        await shop.skip(10)
        second = await shop.until_told(2)
        assert (second.state, second.revision, second.overtakes) == ("completed", 0, None)


# --- Exactly once


FIRST = ("paynexus/order-1/1", 0)
DONE = ("order-1", "completed", 0)


async def test_in_a_transaction_a_handlers_effect_is_there_exactly_once(shop: Shop, books: Books):
    """Also of a revision; a row for each stands beside the handler's own."""
    shop.ledger.script(Scenario("late", (Step(1, "expired"), Step(900, "completed"))))
    async with books.worker(shop) as durable:
        await durable.pay("order-1", **ORDER)
        await shop.until(lambda: books.done == [("order-1", "expired", 0)])
        await shop.until_waiting()
        await shop.skip(61)
        await shop.until(lambda: len(books.done) == 2)
    assert books.done == [("order-1", "expired", 0), ("order-1", "completed", 1)]
    assert books.told == [FIRST, ("paynexus/order-1/1", 1)]


async def test_workers_that_start_together_make_one_table(shop: Shop, books: Books):
    """Another makes it after this one saw that it is absent: this one goes on with that."""

    def make(*_: Any, **__: Any) -> None:
        with sqlite3.connect(books.path) as other:
            other.execute(str(CreateTable(TOLD)))
        other.close()

    sa.event.listen(TOLD, "before_create", make, once=True)
    async with books.worker(shop) as durable:
        assert (await (await durable.pay("order-1", **ORDER)).outcome()).succeeded
        await shop.until(lambda: books.done == [DONE])
    assert books.told == [FIRST]


async def test_a_table_that_cannot_be_made_is_refused_at_the_start(shop: Shop, books: Books):
    """With the database's own words, and before anything is sent."""
    engine = create_async_engine(f"sqlite+aiosqlite:///file:{books.path}?mode=ro&uri=true")
    with pytest.raises(OperationalError, match="readonly"):
        async with books.worker(shop, sessions=async_sessionmaker(engine)):
            pass
    await engine.dispose()
    assert shop.wire.asked == []


async def test_orders_attempts_and_names_do_not_stand_for_one_another(shop: Shop, books: Books):
    """Each has a row of its own in a database that they share."""
    shop.ledger.script(Scenario("declined", (Step(1, "cancelled"),)))
    async with books.worker(shop) as durable:
        await (await durable.pay("order-1", **ORDER)).outcome()
        await (await durable.pay("order-1", **ORDER, again=True)).outcome()
    async with books.worker(shop, name="other") as durable:
        await (await durable.pay("order-1", **ORDER)).outcome()
    keys = [key for key, _ in books.told]
    assert keys == ["paynexus/order-1/1", "paynexus/order-1/2", "other/order-1/1"]
    assert len(books.done) == 3


async def test_in_a_transaction_the_effects_of_a_call_that_failed_are_taken_back(
    shop: Shop, books: Books
):
    """With the row that it was told; it is called again, and takes effect once."""
    books.failures = [ValueError("after it has written")]
    async with books.worker(shop) as durable:
        handle = await durable.pay("order-1", **ORDER)
        assert (await handle.outcome()).succeeded
        assert (books.done, books.told, books.calls) == ([], [], 1)
        assert ((await handle.view()).handler_error or "").startswith("ValueError at ")
        await shop.skip(5)
        await shop.until(lambda: books.calls == 2)
        await shop.until_over()
    assert (books.done, books.told) == ([DONE], [FIRST])


async def test_in_a_transaction_a_handler_that_hangs_is_taken_back(shop: Shop, books: Books):
    """What it had written when its seconds were over is not there."""

    async def hang(outcome: Outcome, session: AsyncSession) -> None:
        await books.write(outcome, session)
        if books.calls == 1:
            await asyncio.Event().wait()

    async with books.worker(shop, on_settled=hang, terms=Terms(handler_seconds=20)) as durable:
        handle = await durable.pay("order-1", **ORDER)
        assert (await handle.outcome()).succeeded
        assert (books.done, books.told) == ([], [])
        await shop.skip(5)
        await shop.until(lambda: books.done == [DONE])


class Cancelled(sqlite3.OperationalError):
    """A statement that took too long, as PostgreSQL says it."""

    sqlstate = "57014"


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("INSERT", {}, sqlite3.OperationalError("database is locked")),
        OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full")),
        OperationalError("INSERT", {}, Cancelled("canceling statement due to timeout")),
    ],
    ids=["locked", "full", "57014"],
)
async def test_an_error_of_the_merchants_database_is_a_failure_like_any(
    shop: Shop, books: Books, error: OperationalError
):
    """It is called again later, not given up: nothing that it raises ends the following."""
    books.failures = [error]
    async with books.worker(shop) as durable:
        handle = await durable.pay("order-1", **ORDER)
        assert (await handle.outcome()).succeeded
        assert ((await handle.view()).handler_error or "").startswith("OperationalError at ")
        await shop.skip(5)
        await shop.until(lambda: books.done == [DONE])


async def test_what_the_database_refuses_after_the_call_is_a_failure_too(shop: Shop, books: Books):
    """What a handler only added to its session is written when it has returned."""
    thing = type("Thing", (), {})
    table = sa.Table("strict", sa.MetaData(), sa.Column("x", sa.Integer, primary_key=True))
    sa.orm.registry().map_imperatively(thing, table)

    async def add(outcome: Outcome, session: AsyncSession) -> None:
        books.calls += 1
        one = thing()
        one.x = 0 if books.calls == 1 else 1
        session.add(one)

    async with books.worker(shop, on_settled=add) as durable:
        handle = await durable.pay("order-1", **ORDER)
        assert (await handle.outcome()).succeeded
        assert (await handle.view()).handler_failures == 1
        assert books.told == []
        await shop.skip(5)
        await shop.until(lambda: books.calls == 2)
        await shop.until_over()
    assert (books.told, books.read("x", "strict")) == ([FIRST], [(1,)])


async def test_what_took_effect_is_not_called_again_whoever_asks(shop: Shop, books: Books):
    """As where the worker died when it had committed: what it did is found by the row."""
    breaks = Breaking("INSERT INTO main.operation_outputs", 2)

    async def write(outcome: Outcome, session: AsyncSession) -> None:
        await books.write(outcome, session)
        sa.event.listen(sa.Engine, "do_execute", breaks)

    try:
        async with books.worker(shop, on_settled=write) as durable:
            handle = await durable.pay("order-1", **ORDER)
            assert (await handle.outcome()).succeeded
            assert breaks.refused == 2
            view = await handle.view()
            assert (view.told, view.handler_failures) == (None, 1)
            assert "OperationalError" in (view.handler_error or "")
            await shop.skip(5)
            await shop.until_over()
            view = await handle.view()
            assert (view.told, view.handler_failures) == ("completed", 0)
    finally:
        sa.event.remove(sa.Engine, "do_execute", breaks)
    assert (books.calls, books.done, books.told) == (1, [DONE], [FIRST])


async def test_of_two_calls_at_a_time_one_takes_effect(shop: Shop, books: Books):
    """As of a worker that stood still, and of the one that took over: the other's is taken back."""
    both = asyncio.Barrier(2)

    async with books.worker(shop) as durable:
        await (await durable.pay("order-0", **ORDER)).outcome()  # such an order as a call is of
        row = (await durable._orders.attempts_of("order-0"))[0]
        order: Any = {**row.order, "order_id": "order-1"}

        async def call() -> str | None:
            await both.wait()
            return await durable._work.handlers.call(order, row.seen, UNTOLD)  # type: ignore[arg-type]

        ended = await asyncio.gather(call(), call())
        again = await durable._work.handlers.call(order, row.seen, UNTOLD)  # type: ignore[arg-type]
    assert None in ended
    assert again is None
    assert [done for done in books.done if done == DONE] == [DONE]
    assert books.told.count(FIRST) == 1


# --- A process that dies


@pytest.mark.parametrize("transactional", [True, False])
async def test_a_process_that_dies_after_the_handler_calls_it_and_paynexus_no_more(
    shop: Shop, books: Books, monkeypatch: pytest.MonkeyPatch, transactional: bool
):
    """What was seen, and that it was told, is on disk: a workflow that breaks goes on from there."""
    due = _work.seconds_to_next_look
    reached = asyncio.Event()

    def breaks(*args: Any, **options: Any) -> Any:
        reached.set()
        raise MemoryError

    options: dict[str, Any] = {}
    if not transactional:
        options = {"sessions": None, "on_settled": shop.hand_over}
    monkeypatch.setattr(_work, "seconds_to_next_look", breaks)
    async with books.worker(shop, **options) as durable:
        await durable.pay("order-1", **ORDER)
        await reached.wait()
        await shop.until(lambda: not durable._work.running)
        await shop.crash()
    monkeypatch.setattr(_work, "seconds_to_next_look", due)
    assert shop.rows()[1][1] == "PENDING"
    asked = list(shop.wire.asked)
    async with books.worker(shop, **options) as durable:
        await shop.until_over()
        assert shop.wire.asked == asked
        view = await shop.view(durable, "order-1")
        assert (view.told, view.is_over) == ("completed", True)
    if transactional:
        assert (books.calls, books.done) == (1, [DONE])
    else:
        assert len(shop.told) == 1


async def test_a_handler_that_was_at_work_when_its_process_died_is_called_again(shop: Shop):
    """With the same outcome, for which nobody is asked again."""

    async def work(outcome: Outcome) -> None:
        if len(shop.told) == 1:
            await asyncio.Event().wait()

    shop.on_told = work
    async with shop.worker() as durable:
        await durable.pay("order-1", **ORDER)
        await shop.until_told()
        await shop.crash()
    asked = list(shop.wire.asked)
    async with shop.worker() as durable:
        await shop.until_over()
        assert (await shop.view(durable, "order-1")).told == "completed"
    assert shop.told[1:] == shop.told[:1]
    assert shop.wire.asked == asked
