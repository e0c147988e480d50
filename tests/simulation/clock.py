"""Time that jumps to the next thing to do, on both event loops, the same way each time."""

from __future__ import annotations

import asyncio
import selectors
from random import Random
from typing import TYPE_CHECKING, Protocol

import trio
import trio.testing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["AsyncioRuntime", "Bell", "Runtime", "TrioRuntime"]


class NothingLeftError(Exception):
    """Everybody waits, and nothing is ever going to happen: a task was forgotten."""


class Bell(Protocol):
    """Something that one task at a time waits for, and that rings any number of times."""

    def ring(self) -> None:
        """Wake the one who waits, if anybody does."""
        ...

    async def wait(self, seconds: float | None) -> bool:
        """Wait; return whether it rang in time."""
        ...


class Runtime(Protocol):
    """What the simulation needs of an event loop."""

    name: str

    def run(self, main: Callable[[], Awaitable[None]]) -> None: ...
    def now(self) -> float: ...
    def later(self, seconds: float, do: Callable[[], None]) -> None: ...
    def bell(self) -> Bell: ...
    async def sleep(self, seconds: float) -> None: ...
    def tasks_left(self) -> int: ...


# --- asyncio: looptime turns forty times before each jump, and a run here has thousands of jumps


class _Selector(selectors.SelectSelector):
    """Never waits for a socket: there is none. It moves the clock instead."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise NothingLeftError
        if timeout > 0:
            self.loop.jump()
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop whose clock stands still while it works, and jumps when it would wait."""

    def __init__(self) -> None:
        selector = _Selector()
        selector.loop = self
        self._virtual_now = 0.0
        super().__init__(selector)

    def time(self) -> float:
        return self._virtual_now

    def jump(self) -> None:
        """Go to exactly the moment of the next timer: a sum of pauses would drift from it."""
        self._virtual_now = max(self._virtual_now, self._scheduled[0].when())  # type: ignore[attr-defined]


class _AsyncioBell:
    __slots__ = ("_loop", "_waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiter: asyncio.Future[bool] | None = None

    def ring(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)

    async def wait(self, seconds: float | None) -> bool:
        waiter = self._waiter = self._loop.create_future()
        timer = None if seconds is None else self._loop.call_later(seconds, _expire, waiter)
        try:
            return await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()


def _expire(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)


class AsyncioRuntime:
    """asyncio."""

    name = "asyncio"

    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        loop = self._loop = VirtualLoop()
        try:
            loop.run_until_complete(main())
        finally:
            for task in asyncio.all_tasks(loop):  # of a run that has failed
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    def now(self) -> float:
        return self._loop.time()

    def later(self, seconds: float, do: Callable[[], None]) -> None:
        self._loop.call_later(seconds, do)

    def bell(self) -> Bell:
        return _AsyncioBell(self._loop)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def tasks_left(self) -> int:
        """Count all tasks but the one that asks."""
        return len(asyncio.all_tasks(self._loop)) - 1


# --- trio


class _TrioBell:
    def __init__(self) -> None:
        self._event = trio.Event()

    def ring(self) -> None:
        self._event.set()

    async def wait(self, seconds: float | None) -> bool:
        self._event = trio.Event()
        with trio.move_on_after(float("inf") if seconds is None else seconds):
            await self._event.wait()
        return self._event.is_set()


class TrioRuntime:
    """trio, whose scheduler shuffles on purpose: with dice of the run's own."""

    name = "trio"

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        scheduler = trio._core._run
        before = scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
        scheduler._r = Random(self._seed)
        try:
            trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
        finally:
            scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r = before  # type: ignore[misc]

    def now(self) -> float:
        return trio.current_time()

    def later(self, seconds: float, do: Callable[[], None]) -> None:
        async def run() -> None:
            await trio.sleep(seconds)
            do()

        trio.lowlevel.spawn_system_task(run)

    def bell(self) -> Bell:
        return _TrioBell()

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    def tasks_left(self) -> int:
        """Trio ends a nursery's tasks itself; the client's own are counted by the oracle."""
        return 0
