"""One life of a worker: it takes its share of the orders until it is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import struct
import time
from pathlib import Path
from typing import Final

import attrs
from dbos import DBOS
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session

from paynexus_async import AsyncPayNexus
from paynexus_async._schedule import EAGER, PRIOR, Schedule
from paynexus_async.durable import DurablePayments, Outcome, Terms, dbos_config

from . import defects
from .shop import DURABLE_SECRET, NAME, SPEED, Life, Order, Shop, key_of, orders_of

__all__ = ["SCHEDULE", "TERMS", "TIMEOUT_SECONDS", "executor_id", "live"]

TERMS: Final = Terms(burst_seconds=3, handler_seconds=2, grace_seconds=6)
SCHEDULE: Final = Schedule(price=EAGER / SPEED, survival=PRIOR.scaled(1 / SPEED))
TIMEOUT_SECONDS: Final = 3.0
"""Below the lease by far: a look for a lost payment must not outlast it."""

_CONCURRENCY: Final = 24
_SHARED_BY_ALL: Final = 10
"""One order in so many is called by every worker: the same id from several processes at a time."""
_AGAIN_SECONDS: Final = 0.05
_RETRY_SECONDS: Final = 1.0
_INSERT: Final = text(
    "INSERT INTO effects (order_id, attempt, revision, state, reference, life, at) "
    "VALUES (:order_id, :attempt, :revision, :state, :reference, :life, :at)"
)


def executor_id(worker: int) -> str:
    return f"worker-{worker}"


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)  # the signal comes before this thread runs on; but should it not


class Merchant:
    """The merchant's own table, and the handler that writes to it: nothing in it is unique."""

    def __init__(self, shop: Shop, life: Life, engine: AsyncEngine) -> None:
        self._shop = shop
        self._life = life
        self._engine = engine
        self._deadly: set[Session] = set()
        self.told: set[str] = set()

    async def load(self) -> None:
        async with self._engine.connect() as connection:
            rows = await connection.execute(text("SELECT DISTINCT order_id FROM effects"))
            self.told = {row.order_id for row in rows}

    async def in_transaction(self, outcome: Outcome, session: AsyncSession) -> None:
        await session.execute(_INSERT, self._values(outcome))
        if self._life.aim == "committed":
            self._deadly.add(session.sync_session)
            event.listen(Session, "after_commit", self._committed)
        if self._life.aim == "handler":
            die()

    async def on_its_own(self, outcome: Outcome) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(_INSERT, self._values(outcome))
        if self._life.aim in {"committed", "handler"}:
            die()

    def _values(self, outcome: Outcome) -> dict[str, object]:
        return {
            "order_id": outcome.order_id,
            "attempt": outcome.attempt,
            "revision": outcome.revision,
            "state": str(outcome.state),
            "reference": outcome.payment.reference if outcome.payment else None,
            "life": self._life.number,
            "at": time.time(),
        }

    def _committed(self, session: Session) -> None:
        if session in self._deadly:
            die()


class Released:
    """How many orders there are by now; below 0: end. The harness writes it, every worker reads."""

    def __init__(self, folder: str) -> None:
        self._file = os.open(Path(folder) / "released", os.O_RDWR | os.O_CREAT)

    @property
    def count(self) -> int:
        (count,) = struct.unpack("<q", os.pread(self._file, 8, 0) or bytes(8))
        return int(count)

    @count.setter
    def count(self, value: int) -> None:
        os.pwrite(self._file, struct.pack("<q", value), 0)


class _Till:
    """Calls `pay` for all orders that the merchant's table says nothing of."""

    def __init__(self, shop: Shop, life: Life, durable: DurablePayments, told: set[str]) -> None:
        self._shop = shop
        self._life = life
        self._durable = durable
        self._told = told
        self._room = asyncio.Semaphore(_CONCURRENCY)
        self._orders = [o for o in orders_of(shop.orders, shop.seed) if self._is_mine(o)]
        self._tasks: set[asyncio.Task[None]] = set()

    def _is_mine(self, order: Order) -> bool:
        is_shared = order.number % _SHARED_BY_ALL == 0
        return is_shared or order.number % self._shop.workers == self._life.worker

    async def run(self) -> None:
        released, place = Released(self._shop.folder), 0
        retried_at = time.monotonic()
        while (count := released.count) >= 0:
            while place < len(self._orders) and self._orders[place].number < count:
                order, place = self._orders[place], place + 1
                if order.order_id not in self._told:
                    await self._room.acquire()
                    task = asyncio.create_task(self._pay(order))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
            if self._life.is_last and time.monotonic() - retried_at > _RETRY_SECONDS:
                await self._retry_all()
                retried_at = time.monotonic()
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _pay(self, order: Order) -> None:
        try:
            await self._durable.pay(order.order_id, amount=order.amount, phone=order.phone)
        except Exception as error:  # noqa: BLE001  # for the judge
            note(self._shop, self._life, "pay", order.order_id, error)
        finally:
            self._room.release()

    async def _retry_all(self) -> None:
        """Have looked at, now, what is only due later."""
        rows = await DBOS.list_workflows_async(
            name=f"{NAME}.follow", status="DELAYED", limit=500, load_output=False
        )
        for row in rows:
            assert row.input is not None
            order_id = row.input["args"][0]["order_id"]
            try:
                await self._durable.retry(order_id)
            except Exception as error:  # noqa: BLE001  # for the judge
                if "is being worked on" not in str(error) and "is over" not in str(error):
                    note(self._shop, self._life, "retry", order_id, error)


def note(shop: Shop, life: Life, what: str, order_id: str, error: BaseException) -> None:
    """Write down an error that nobody expects: the judge reads it."""
    line = json.dumps([life.worker, life.number, what, order_id, repr(error)[:500]]) + "\n"
    with (Path(shop.folder) / "errors").open("a") as file:
        file.write(line)


async def live(shop: Shop, life: Life) -> None:
    """Live until killed; the last life ends when it is told to."""
    defects.plant(shop.defect)
    DBOS(config=dbos_config(NAME, shop.engine_url, executor_id=executor_id(life.worker)))
    engine = create_async_engine(shop.merchant_url)
    merchant = Merchant(shop, life, engine)
    sessions = async_sessionmaker(engine) if shop.is_transactional else None
    async with AsyncPayNexus(
        key_of(life.worker),
        base_url=shop.base_url,
        timeout=TIMEOUT_SECONDS,
        patience=SCHEDULE,
        learn=False,
    ) as paynexus:
        durable = DurablePayments(
            paynexus,
            on_settled=merchant.in_transaction if sessions else merchant.on_its_own,
            secret=DURABLE_SECRET,
            sessions=sessions,
            name=NAME,
            terms=attrs.evolve(TERMS, watch_seconds=shop.watch_seconds),
        )
        DBOS.launch()
        async with durable:
            (Path(shop.folder) / f"ready-{life.worker}").write_text(str(life.number))
            await merchant.load()
            await _Till(shop, life, durable, merchant.told).run()
    DBOS.destroy()
