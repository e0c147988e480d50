"""Telling the merchant's handler: at least once, or exactly once in the merchant's transaction."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import anyio
from sqlalchemy import Column, Float, Integer, MetaData, String, Table, insert, select
from sqlalchemy.exc import DBAPIError

from ._orders import Order, Outcome, Seen, Told

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from ._records import Records

__all__ = ["Handler", "Handlers", "TransactionalHandler"]

Handler = Callable[[Outcome], Awaitable[None]]
"""What is told of an outcome: at least once."""

TransactionalHandler = Callable[[Outcome, "AsyncSession"], Awaitable[None]]
"""What is told of an outcome within a transaction of the merchant's database: exactly once."""

_METADATA: Final = MetaData()
TOLD: Final = Table(
    "paynexus_told",
    _METADATA,
    Column("order_key", String(255), primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("told_at", Float, nullable=False),
)
"""In the merchant's database: which outcomes took effect. A row commits with the handler's own."""


class Handlers:
    """Calls the handler of one application."""

    def __init__(
        self,
        handler: Handler | TransactionalHandler,
        sessions: async_sessionmaker[AsyncSession] | None,
        *,
        records: Records,
        name: str,
        seconds: float,
    ) -> None:
        """Keep what is called.

        Args:
            handler: the merchant's; with *sessions*, it takes a session, too.
            sessions: of the merchant's database, if it is to be called in a transaction of that.
            records: restore outcomes.
            name: of the `DurablePayments`.
            seconds: how long it may take.
        """
        self._handler = handler
        self._sessions = sessions
        self._records = records
        self._name = name
        self._seconds = seconds

    async def call(self, order: Order, seen: Seen, told: Told) -> str | None:
        """Call the handler, and return the name of what it failed with, if it did."""
        outcome = self._records.outcome_of(order, seen, told)
        try:
            with anyio.fail_after(self._seconds):
                if self._sessions is None:
                    await cast("Handler", self._handler)(outcome)
                else:
                    await self._call_in_transaction(self._sessions, outcome)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return _where(error)  # of something that the handler waited for
        except Exception as error:  # noqa: BLE001  # whatever a merchant's code may raise
            return _where(error)
        return None

    async def _call_in_transaction(
        self, sessions: async_sessionmaker[AsyncSession], outcome: Outcome
    ) -> None:
        """Call the handler in one transaction with the row that says that it was called."""
        row = {
            "order_key": f"{self._name}/{outcome.order_id}/{outcome.attempt}",
            "revision": outcome.revision,
        }
        async with sessions.begin() as session:
            was_told = await session.execute(select(TOLD.c.told_at).filter_by(**row))
            if was_told.first() is None:
                # First: a second call at the same moment fails here, or waits for this one's end.
                await session.execute(insert(TOLD).values(told_at=time.time(), **row))
                await cast("TransactionalHandler", self._handler)(outcome, session)

    async def prepare(self) -> None:
        """Make the table in the merchant's database, if there is one and it is not there."""
        if self._sessions is not None:
            try:
                await _make_tables(self._sessions)
            except DBAPIError:
                # Workers that start at one moment all see that it is absent, and one makes it. The
                # others look again: they find it, or fail as the first time.
                await _make_tables(self._sessions)


async def _make_tables(sessions: async_sessionmaker[AsyncSession]) -> None:
    async with sessions.begin() as session:
        connection = await session.connection()
        await connection.run_sync(_METADATA.create_all)


def _where(error: BaseException) -> str:
    """Name an error and its place; its words may hold what is nobody's business."""
    frames = traceback.extract_tb(error.__traceback__)
    name = type(error).__name__
    return f"{name} at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else name
