"""A shop for tests: the PayNexus that it talks to, its database, and its workers' lives."""

from __future__ import annotations

import asyncio
import selectors
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import sqlalchemy as sa
from dbos import DBOS

from paynexus_async import AsyncPayNexus
from paynexus_async.durable import DurablePayments, Outcome, Terms, _looking, _sending, dbos_config
from paynexus_async.sandbox import PUBLIC_KEY, SECRET_KEY, Ledger
from paynexus_async.sandbox._in_process import InProcess
from paynexus_async.webhooks import WebhookEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import pytest

    from paynexus_async.durable import OrderView

SECRET = "a secret of thirty-two characters"
PHONE = "0746990866"
SPEED = 20.0
ORDER: Any = {"amount": 100, "phone": PHONE}


class FastLoop(asyncio.SelectorEventLoop):
    """An event loop on which twenty seconds pass in one: threads beside it keep their pace."""

    def __init__(self) -> None:
        super().__init__(_FastSelector())

    def time(self) -> float:
        return time.monotonic() * SPEED


class _FastSelector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    def select(self, timeout: float | None = None) -> Any:
        return super().select(timeout if timeout is None else timeout / SPEED)


class Clock:
    """The time, which can be moved on."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class RealTime:
    """What an in-process sandbox asks of a clock that does not jump."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def __call__(self) -> float:
        return self._clock()

    def adopt(self) -> None:
        """Every loop will do."""


class Wire(InProcess):
    """Carries calls to the ledger; a test may look at each before it arrives, or hold it there."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        super().__init__(ledger, RealTime(clock))  # type: ignore[arg-type]
        self.on_initiate: Callable[[], Awaitable[None]] | None = None
        self.on_answer: Callable[[], Awaitable[None]] | None = None
        self.asked: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        is_initiate = request.url.path.endswith("/initiate")
        if is_initiate and self.on_initiate is not None:
            await self.on_initiate()
        response = await super().handle_async_request(request)
        if is_initiate and self.on_answer is not None:
            await self.on_answer()
        return response

    @property
    def initiates(self) -> int:
        return sum(path.endswith("/initiate") for path in self.asked)


class Shop:
    """A merchant: what PayNexus did, what the handler was told, and what the database holds."""

    def __init__(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url = url
        self.clock = Clock()
        self.ledger = Ledger(clock=self.clock, speed=SPEED)
        self.wire = Wire(self.ledger, self.clock)
        self.told: list[Outcome] = []
        self.on_told: Callable[[Outcome], Awaitable[None]] | None = None
        self._before: set[asyncio.Task[Any]] = set()
        self._died = False
        # The workflows' own clock; the engine's, and the event loop's, are not moved.
        for module in (_looking, _sending):
            monkeypatch.setattr(module, "time", SimpleNamespace(time=self.clock))

    @property
    def path(self) -> str:
        return self.url.removeprefix("sqlite:///")

    async def hand_over(self, outcome: Outcome) -> None:
        self.told.append(outcome)
        if self.on_told is not None:
            await self.on_told(outcome)

    def client(self) -> AsyncPayNexus:
        http_client = httpx.AsyncClient(transport=self.wire, base_url="https://sandbox.invalid")
        return AsyncPayNexus(
            SECRET_KEY,
            PUBLIC_KEY,
            base_url="https://sandbox.invalid/api",
            http_client=http_client,
            timeout=600,  # twenty times as fast
            learn=False,
        )

    @asynccontextmanager
    async def worker(
        self,
        *,
        executor_id: str | None = None,
        version: str | None = None,
        launched: Callable[[], Awaitable[None]] | None = None,
        **options: Any,
    ) -> AsyncIterator[DurablePayments]:
        """A process of the shop's, from its start to its end, which may be a crash."""
        config = dbos_config("shop", self.url, executor_id=executor_id)
        config["notification_listener_polling_interval_sec"] = 0.05
        if version is not None:
            config["application_version"] = version
        self._before, self._died = asyncio.all_tasks(), False
        DBOS(config=config)
        try:
            async with self.client() as paynexus:
                terms = Terms(handler_seconds=600)  # twenty times as fast
                options = {
                    "on_settled": self.hand_over,
                    "secret": SECRET,
                    "terms": terms,
                    **options,
                }
                durable = DurablePayments(paynexus, **options)
                if launched is None:
                    DBOS.launch()
                else:
                    await launched()
                await durable.__aenter__()
                try:
                    yield durable
                finally:
                    if not self._died:
                        await durable.aclose(timeout=400)  # twenty times as fast
        finally:
            # In a thread: the engine's own may be waiting for this loop, to start something on it.
            # Not in the loop's pool: that is the engine's by now.
            # Nor in anyio's: its thread may have been ended with the task that began it, by `crash`.
            loop = asyncio.get_running_loop()
            with ThreadPoolExecutor(1) as thread:
                await loop.run_in_executor(thread, partial(DBOS.destroy, destroy_registry=True))
            loop.set_default_executor(ThreadPoolExecutor(4))

    async def crash(self) -> None:
        """Let the worker end at once: whatever it was doing is not done."""
        self._died = True
        for _ in range(3):
            tasks = asyncio.all_tasks() - self._before - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def skip(self, seconds: float) -> None:
        """Let time pass, for what waits as a row."""
        self.clock.ahead += seconds
        self.execute(
            "UPDATE workflow_status SET delay_until_epoch_ms = delay_until_epoch_ms - :ms "
            "WHERE status = 'DELAYED'",
            ms=int(seconds * 1000),
        )

    def execute(self, words: str, **values: object) -> list[Any]:
        """Ask the engine's database, beside the engine."""
        engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            result = connection.execute(sa.text(words), values)
            return [tuple(row) for row in result] if result.returns_rows else []

    def rows(self, columns: str = "workflow_uuid, status") -> list[Any]:
        """The rows of orders and of what follows them; not those that say whose a payment is."""
        return self.execute(
            f"SELECT {columns} FROM workflow_status "
            "WHERE name LIKE '%.prompt' OR name LIKE '%.follow' ORDER BY rowid"
        )

    async def until(self, condition: Callable[[], object], seconds: float = 60.0) -> None:
        """Wait for something that happens by itself; real seconds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"it did not happen: {self.told} {self.rows()}"
            await asyncio.sleep(0.02 * SPEED)

    async def until_waiting(self) -> None:
        """Wait until all that ran is written, and what comes next waits."""
        await self.until(lambda: {row[1] for row in self.rows()} == {"SUCCESS", "DELAYED"})

    async def until_over(self) -> None:
        await self.until(lambda: {row[1] for row in self.rows()} == {"SUCCESS"})

    async def until_told(self, count: int = 1) -> Outcome:
        await self.until(lambda: len(self.told) >= count)
        return self.told[count - 1]

    async def view(self, durable: DurablePayments, order_id: str) -> OrderView:
        return (await durable.orders(order_id))[-1]


class Breaking:
    """Lets the database refuse some writes, as a full disk does."""

    def __init__(self, words: str, times: int, about: str = "") -> None:
        self.words = words
        self.times = times
        self.about = about
        self.refused = 0

    def __call__(self, cursor: Any, statement: str, parameters: object, *_: object) -> None:
        if self.times and self.words in statement and self.about in str(parameters):
            self.times -= 1
            self.refused += 1
            msg = "database or disk is full"
            raise sqlite3.OperationalError(msg)


def event_of(payment: Any, status: str = "completed", **data: object) -> WebhookEvent:
    """A verified delivery about a payment's end."""
    from paynexus_async._convert import structure_payment

    told = {"reference": payment.reference, "status": status, "amount": payment.amount, **data}
    return WebhookEvent(
        name=f"payment.{status}",
        payment=structure_payment(told),
        reference=payment.reference,
        checkout_request_id=None,
        sent_at=None,
        data=told,
    )


async def quietly(awaitable: Awaitable[object]) -> None:
    """Await something whose end does not matter."""
    with suppress(Exception, asyncio.CancelledError):
        await awaitable


__all__ = [
    "ORDER",
    "PHONE",
    "SECRET",
    "SPEED",
    "Breaking",
    "Clock",
    "FastLoop",
    "Shop",
    "Terms",
    "Wire",
    "event_of",
    "quietly",
]
