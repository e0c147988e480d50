"""Time that jumps over all waiting, on an event loop that is running already."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any, Final, cast

from anyio.to_thread import current_default_thread_limiter

if TYPE_CHECKING:
    from collections.abc import Callable

    import trio.testing

__all__ = ["VirtualTime"]

_ASYNCIO_ONLY: Final = (
    "time cannot jump on {}: run this test on asyncio's own event loop, or use paynexus_server"
)
_NEEDS_MOCK_CLOCK: Final = (
    "on trio, time jumps only if the run has a clock that does. Write in conftest.py:\n"
    "@pytest.fixture\n"
    "def anyio_backend():\n"
    '    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}'
)


class VirtualTime:
    """A wall clock, and the event loops that keep to it.

    It passes as time does. Where everybody on an adopted loop waits for a later moment, it jumps to
    that moment. While a socket is open on the loop, or a thread works for it, something may come
    from outside: then nothing jumps.
    """

    def __init__(self) -> None:
        """Begin with the time that it is."""
        self._epoch = time.time() - time.monotonic()
        self._ahead_seconds = 0.0
        self._loops: dict[asyncio.AbstractEventLoop, _JumpingLoop] = {}
        self._trio: trio.testing.MockClock | None = None

    def __call__(self) -> float:
        """Tell the time, in seconds since 1970."""
        steady = time.monotonic() if self._trio is None else self._trio.current_time()
        return self._epoch + steady + self._ahead_seconds

    @property
    def loops(self) -> tuple[asyncio.AbstractEventLoop, ...]:
        """The loops of asyncio's that keep to it."""
        return tuple(self._loops)

    def adopt(self) -> None:
        """Let the running event loop keep to this time, until `release`.

        Raises:
            RuntimeError: if its clock cannot jump; the message says what to do.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._follow_trio()
            return
        if loop not in self._loops:
            self._loops[loop] = _JumpingLoop(loop, self.advance)

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass at once."""
        if self._trio is not None:
            self._trio.jump(seconds)
            return
        self._ahead_seconds += seconds
        for loop in self._loops.values():
            loop.time.ahead_seconds += seconds

    def release(self) -> None:
        """Let all loops wait again as loops do; none of their clocks goes back."""
        for loop in self._loops.values():
            loop.release()
        self._loops.clear()

    def _follow_trio(self) -> None:
        import trio  # only where it is running already
        import trio.testing

        clock = trio.lowlevel.current_clock()
        if clock is self._trio:
            return
        if not isinstance(clock, trio.testing.MockClock) or clock.autojump_threshold == math.inf:
            raise RuntimeError(_NEEDS_MOCK_CLOCK)
        self._epoch = self() - self._ahead_seconds - clock.current_time()
        self._trio = clock


class _LoopTime:
    """What `loop.time` is from the first adoption on: the loop's own, and what it has jumped over.

    It stays after the release: a clock that went back would leave timers hours away.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._own = loop.time
        self.ahead_seconds = 0.0

    def __call__(self) -> float:
        return self._own() + self.ahead_seconds


class _JumpingLoop:
    """An event loop of asyncio's that jumps where it would wait.

    asyncio has no hook for that: this replaces what the loop waits with, its selector's `select`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, advance: Callable[[float], None]) -> None:
        # Windows' proactor has a `select` as well, and keeps what it waits for in `_cache`.
        selector: Any = getattr(loop, "_selector", None)
        if selector is None:
            kind = type(loop)
            raise RuntimeError(_ASYNCIO_ONLY.format(f"{kind.__module__}.{kind.__qualname__}"))
        self._loop = cast("Any", loop)
        self._selector = selector
        self._advance = advance
        self._select: Callable[[float | None], list[Any]] = selector.select
        self._run_in_executor: Callable[..., asyncio.Future[Any]] = loop.run_in_executor
        self._in_threads: set[asyncio.Future[Any]] = set()
        self._limiter = current_default_thread_limiter()
        self.time = loop.time if isinstance(loop.time, _LoopTime) else _LoopTime(loop)
        self._loop.time = self.time
        self._loop.run_in_executor = self._count_in_executor
        selector.select = self._jump

    def release(self) -> None:
        del self._selector.select, self._loop.run_in_executor

    def _jump(self, timeout: float | None = None) -> list[Any]:
        if timeout is None or timeout <= 0:
            return self._select(timeout)
        ready = self._select(0)
        if ready:
            return ready
        if self._waits_for_others():
            return self._select(timeout)
        self._advance(timeout)
        return ready

    def _waits_for_others(self) -> bool:
        get_map = getattr(self._selector, "get_map", None)
        watched = len(self._selector._cache if get_map is None else get_map())
        # One is the loop's own, by which other threads wake it.
        return watched > 1 or bool(self._in_threads) or self._limiter.borrowed_tokens > 0

    def _count_in_executor(self, *arguments: object) -> asyncio.Future[Any]:
        future = self._run_in_executor(*arguments)
        self._in_threads.add(future)
        future.add_done_callback(self._in_threads.discard)
        return future
