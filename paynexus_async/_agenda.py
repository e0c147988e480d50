"""Things to do at their time: one task for all of them, however many there are."""

from __future__ import annotations

import heapq
import math
from itertools import count
from typing import TYPE_CHECKING, Final, Protocol

import anyio

if TYPE_CHECKING:
    from ._tasks import OwnedTasks

__all__ = ["Agenda", "Item"]

_AT_ONCE_MAX: Final = 100  # then everybody else has a turn
_DEAD_MIN: Final = 1_000


class Item(Protocol):
    """Something that has a time.

    Attributes:
        at: when it is due, on the event loop's clock; the agenda keeps it.
    """

    at: float

    def due(self, now: float) -> None:
        """Do it. Raises nothing."""
        ...


class Agenda:
    """What is to be done, by time.

    An entry is a tuple in a heap, and dead as soon as its item has another time: 100,000 payments
    cost 100,000 tuples and one timer.
    """

    def __init__(self, tasks: OwnedTasks) -> None:
        """Have nothing to do."""
        self._tasks = tasks
        self._heap: list[tuple[float, int, Item]] = []
        self._numbers = count()
        self._dead = 0
        self._wakes_at = math.inf
        self._moved: anyio.Event | None = None  # while its task runs

    def put(self, item: Item, at: float) -> None:
        """Do *item* at this time, and not at the one it had."""
        self.drop(item)
        item.at = at
        heapq.heappush(self._heap, (at, next(self._numbers), item))
        if self._moved is None:
            self._moved = anyio.Event()
            self._tasks.start(self._run)
        elif at < self._wakes_at:
            self._moved.set()

    def drop(self, item: Item) -> None:
        """Do not do *item*, if it is to be done at all."""
        if item.at == math.inf:
            return
        item.at = math.inf
        self._dead += 1
        if self._dead > _DEAD_MIN and self._dead * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].at == entry[0]]
            heapq.heapify(self._heap)
            self._dead = 0

    async def _run(self) -> None:
        try:
            while self._heap:
                done = self._do_what_is_due(self._tasks.now())
                if done == _AT_ONCE_MAX:
                    await anyio.lowlevel.checkpoint()
                elif self._heap:
                    await self._sleep_until(self._heap[0][0])
        finally:
            self._moved = None

    def _do_what_is_due(self, now: float) -> int:
        heap, done = self._heap, 0
        while heap and done < _AT_ONCE_MAX:
            at, _, item = heap[0]
            if item.at != at:
                heapq.heappop(heap)
                self._dead -= 1
            elif at > now:
                break
            else:
                heapq.heappop(heap)
                item.at = math.inf
                item.due(now)
                heap = self._heap  # which may have been tidied up meanwhile
                done += 1
        return done

    async def _sleep_until(self, moment: float) -> None:
        self._wakes_at, self._moved = moment, anyio.Event()
        with anyio.CancelScope(deadline=moment):
            await self._moved.wait()
        self._wakes_at = -math.inf  # awake: it looks by itself
