"""Databases that are full, damaged or away: refused before sending, or continued after."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import sqlalchemy as sa
from anyio import to_thread
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from paynexus_async.durable import Terms, dbos_config
from paynexus_async.durable._telling import TOLD
from paynexus_async.sandbox import Scenario, Step

from .shop import ORDER, Shop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.ext.asyncio import AsyncSession

    from paynexus_async.durable import Outcome

    from ..postgres import Cluster

pytestmark = pytest.mark.anyio

PROMPT = "paynexus/order/order-1/1"


class Disk:
    """The room that a SQLite database has: SQLite itself refuses what is beyond it."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._pages = 0
        self.refused = 0

    def fill(self) -> None:
        """No page may be added; what is free within is taken."""
        self._shop.execute("CREATE TABLE IF NOT EXISTS filling (x BLOB)")
        self._shop.execute("INSERT INTO filling VALUES (zeroblob(1000000))")
        self._shop.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._pages = self._shop.execute("PRAGMA page_count")[0][0]

    def empty(self) -> None:
        self._pages = 0

    def limit(self, cursor: Any, statement: str, *_: object) -> None:
        """Tell each connection before each statement, as a disk would."""
        cursor.connection.execute(f"PRAGMA max_page_count = {self._pages or 1_000_000}")

    def count(self, context: sa.engine.ExceptionContext) -> None:
        self.refused += "full" in str(context.original_exception)


@pytest.fixture
def disk(shop: Shop) -> Iterator[Disk]:
    made = Disk(shop)
    sa.event.listen(sa.Engine, "do_execute", made.limit)
    sa.event.listen(sa.Engine, "handle_error", made.count)
    yield made
    sa.event.remove(sa.Engine, "do_execute", made.limit)
    sa.event.remove(sa.Engine, "handle_error", made.count)


# --- A full disk


async def test_where_the_disk_is_full_an_order_is_refused_before_it_is_sent(shop: Shop, disk: Disk):
    """And may be asked for when there is room: nothing of it is left behind."""
    shop.wire.reachable = False
    async with shop.worker() as durable:
        disk.fill()
        with pytest.raises(DBAPIError, match="full"):
            for number in range(300):  # the last pages may have room for some
                await durable.pay(f"order-{number}", **ORDER, description="x" * 200)
        assert not shop.ledger.prompts
        assert await durable.orders(f"order-{number}") == []
        disk.empty()
        shop.wire.reachable = True
        fresh = await durable.pay("order-new", amount=7, phone="0746990861")
        assert (await fresh.outcome()).succeeded


async def test_where_the_disk_is_full_at_the_claim_nothing_is_sent(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    """The order is on disk, and its claim is not: it is sent when there is room."""
    refusing = True

    def refuse(cursor: Any, statement: str, *_: object) -> None:
        if refusing and "INSERT INTO main.operation_outputs" in statement:
            msg = "database or disk is full"
            raise sqlite3.OperationalError(msg)

    sa.event.listen(sa.Engine, "do_execute", refuse)
    try:
        async with shop.worker() as durable:
            handle = await durable.pay("order-1", **ORDER)
            await shop.until(lambda: durable._work.stranded)
            assert shop.wire.asked == []
            refusing = False
            await durable.sweep()
            assert (await handle.outcome()).succeeded
    finally:
        sa.event.remove(sa.Engine, "do_execute", refuse)
    assert shop.wire.initiates == 1


async def test_where_the_disk_is_full_right_after_sending_the_order_goes_on_later(
    shop: Shop, disk: Disk
):
    """Its answer is in the memory of this process; neither lost, nor asked for again."""

    async def fill() -> None:
        disk.fill()

    shop.wire.on_answer = fill
    async with shop.worker() as durable:
        handle = await durable.pay("order-1", **ORDER)
        await shop.until(lambda: shop.ledger.prompts)
        await asyncio.sleep(20)
        disk.empty()
        for _ in range(3):
            await durable.sweep()
            await asyncio.sleep(4)
        assert (await handle.payment()).reference == shop.ledger.prompts[0].reference
        assert (await handle.outcome()).succeeded
    assert (shop.wire.initiates, len(shop.told)) == (1, 1)


# --- A damaged file


def spoil(path: Path, damage: str) -> None:
    content = bytearray(path.read_bytes())
    start = 0 if damage == "header" else len(content) // 2
    content[start : start + 20_000] = b"\xff" * 20_000
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["header", "middle"])
async def test_a_damaged_file_is_refused_with_clear_words(shop: Shop, damage: str):
    """At the start, before anything is sent."""
    spoil(Path(shop.path), damage)
    words = "not a database" if damage == "header" else "is damaged|malformed"
    with pytest.raises(sqlite3.DatabaseError, match=words):
        async with shop.worker():
            pass
    assert shop.wire.asked == []


async def test_a_folder_that_is_not_there_is_refused(tmp_path: Path):
    """Rather than an order that is on no disk."""
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        dbos_config("shop", f"sqlite:///{tmp_path}/nowhere/orders.sqlite")


# --- PostgreSQL


@contextmanager
def started(server: Cluster) -> Iterator[None]:
    """Leave it running, for the next test."""
    try:
        yield
    finally:
        with suppress(RuntimeError):  # it runs
            server.start()


async def test_a_database_that_is_away_at_the_start_is_refused(remote: Shop, server: Cluster):
    """Nothing is sent; the engine says that it cannot be reached."""
    with started(server):
        server.stop()
        with pytest.raises(Exception, match=r"connection|refused|failed"):
            async with remote.worker():
                pass
    assert remote.wire.asked == []


async def test_on_postgresql_an_order_is_paid_once(remote: Shop):
    """The same code; and what a dead worker leaves, another takes over."""
    remote.ledger.script(Scenario("slower", (Step(1, "processing"), Step(600, "completed"))))
    async with remote.worker(executor_id="a") as durable:
        await (await durable.pay("order-1", **ORDER)).payment()
        await remote.crash()
    remote.clock.ahead += 40
    async with remote.worker(executor_id="b") as durable:
        handle = await durable.pay("order-1", **ORDER)
        remote.execute(
            "UPDATE dbos.workflow_status SET created_at = 0, updated_at = 0, "
            "started_at_epoch_ms = 0 WHERE status = 'PENDING'"
        )
        await durable.sweep()
        assert (await handle.outcome()).succeeded
    assert remote.wire.initiates == 1


async def test_on_postgresql_workers_that_start_together_make_one_table(
    remote: Shop, server: Cluster
):
    """The server lets all see that it is absent, lets one make it, and refuses it to the others."""
    url = server.create("merchant").replace("postgresql://", "postgresql+psycopg://")
    mine, others = create_async_engine(url), sa.create_engine(url)

    async def handle(outcome: Outcome, session: AsyncSession) -> None:
        pass

    def count(words: str) -> int:
        with others.connect() as connection:
            return int(connection.scalar(sa.text(words)) or 0)

    async def commit(made: sa.Connection) -> None:
        waiting = "wait_event_type = 'Lock' AND datname = current_database()"
        await remote.until(lambda: count(f"SELECT count(*) FROM pg_stat_activity WHERE {waiting}"))
        made.commit()

    with others.connect() as made:
        TOLD.create(made)  # and does not commit
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(commit, made)
            async with remote.worker(
                sessions=async_sessionmaker(mine), on_settled=handle
            ) as durable:
                assert (await (await durable.pay("order-1", **ORDER)).outcome()).succeeded
                await remote.until(lambda: count("SELECT count(*) FROM paynexus_told") == 1)
    await mine.dispose()
    others.dispose()


async def test_a_database_that_restarts_while_a_prompt_is_sent_loses_nothing(
    remote: Shop, server: Cluster
):
    """The answer waits in memory until it can be written; nothing is sent again."""

    async def restart() -> None:
        await to_thread.run_sync(server.stop)
        await to_thread.run_sync(server.start)

    remote.wire.on_initiate = restart
    terms = Terms(grace_seconds=12_000)  # for the call, half of that, twenty times as fast
    async with remote.worker(terms=terms) as durable:
        with started(server):
            handle = await durable.pay("order-1", **ORDER)
            await handle.payment()
            assert (await handle.outcome()).succeeded
    assert (remote.wire.initiates, len(remote.told)) == (1, 1)


async def test_a_database_that_restarts_while_a_payment_is_followed_loses_nothing(
    remote: Shop, server: Cluster
):
    """Following needs no database; its end is written when there is one."""
    remote.ledger.script(Scenario("slower", (Step(1, "processing"), Step(60, "completed"))))
    async with remote.worker(terms=Terms(handler_seconds=600)) as durable:
        with started(server):
            handle = await durable.pay("order-1", **ORDER)
            await handle.payment()
            await remote.until(lambda: len(remote.wire.asked) > 1)
            began = time.monotonic()
            await to_thread.run_sync(server.stop)
            await asyncio.sleep(20)
            await to_thread.run_sync(server.start)
            assert (await handle.outcome()).succeeded
            assert time.monotonic() - began < 60
    assert (remote.wire.initiates, len(remote.told)) == (1, 1)
