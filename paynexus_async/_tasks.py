"""Tasks that belong to the client, whatever becomes of the caller, on asyncio and on trio.

A caller who is cancelled in the middle of an exchange must not take the exchange with it: httpcore
1.0.9 loses the connection's place in its pool, and the reference of a prompt that is already on a
phone would be lost with it. A task group cannot own these tasks, because a client may be opened and
closed in different tasks (pytest's fixtures do), and cancel scopes may not.
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Final

import anyio
from anyio.lowlevel import current_token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

__all__ = ["OwnedTask", "OwnedTasks", "Signal", "is_asyncio", "running_loop"]


class Signal:
    """Something that one task awaits, once.

    An event of anyio's would do, at a kilobyte and a half each; a hundred thousand may wait.
    """

    __slots__ = ("_is_set", "_waiter")

    def __init__(self) -> None:
        """Begin unset."""
        self._is_set = False
        self._waiter: asyncio.Future[None] | anyio.Event | None = None

    def set(self) -> None:
        """Wake the one who waits; nobody waits in vain from now on."""
        self._is_set = True
        if isinstance(self._waiter, anyio.Event):
            self._waiter.set()
        elif self._waiter is not None and not self._waiter.done():  # done when cancelled
            self._waiter.set_result(None)

    def __await__(self) -> Generator[object, None, None]:
        """Wait until it is set."""
        if self._is_set:
            return iter(())  # type: ignore[return-value]
        if is_asyncio():
            self._waiter = asyncio.get_running_loop().create_future()
            return self._waiter.__await__()
        self._waiter = anyio.Event()
        return self._waiter.wait().__await__()


class OwnedTask:
    """One task of the client's: anybody may wait for its end, nobody's waiting can end it."""

    def __init__(self, work: Callable[[], Awaitable[None]], *, finish: bool) -> None:
        """Keep the work; `OwnedTasks.start` begins it."""
        self.finish: Final = finish
        self._work = work
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()

    async def wait(self) -> None:
        """Wait until the work is over, however it ended."""
        await self._ended.wait()

    def cancel(self) -> None:
        """End the work at its next checkpoint."""
        self._scope.cancel()

    async def run(self) -> None:
        """Do the work. It handles its own exceptions: what escapes is a defect."""
        work = self._work
        del self._work  # whoever waits for the end, and the loop that tells it, need not hold it
        with self._scope:
            await work()

    def end(self) -> None:
        """Wake whoever waits for its end."""
        self._ended.set()


class OwnedTasks:
    """The tasks of one client, on one event loop."""

    def __init__(self) -> None:
        """Own nothing yet."""
        # Resolved once: to find out anew each time which event loop runs costs more than its clock.
        self.now: Final[Callable[[], float]] = _clock()
        self._running: set[OwnedTask] = set()
        self._handles: Final[set[asyncio.Task[None]]] = set()

    def start(self, work: Callable[[], Awaitable[None]], *, finish: bool = False) -> OwnedTask:
        """Begin *work* in a task of the client's own.

        Args:
            work: what to do.
            finish: whether `close` lets it come to its end, within a bound.
        """
        task = OwnedTask(work, finish=finish)
        self._running.add(task)

        async def run() -> None:
            try:
                await task.run()
            finally:
                self._over(task)

        if is_asyncio():
            # The loop keeps weak references only; without ours, a task may vanish half-way.
            handle = asyncio.get_running_loop().create_task(run())
            self._handles.add(handle)
            handle.add_done_callback(self._handles.discard)
            # Whoever cancels all of a loop's tasks, as `asyncio.run` does at its end, also cancels
            # those that have not begun: they never do, and have no `finally`.
            handle.add_done_callback(lambda _: self._over(task))
        else:
            import trio  # only where it is running already

            trio.lowlevel.spawn_system_task(run, context=contextvars.copy_context())
        return task

    def _over(self, task: OwnedTask) -> None:
        self._running.discard(task)
        task.end()

    async def close(self, seconds: float) -> None:
        """End all tasks: those that ask for it may finish within so many seconds."""
        for task in tuple(self._running):
            if not task.finish:
                task.cancel()
        try:
            with anyio.move_on_after(seconds):
                for task in tuple(self._running):
                    await task.wait()
        finally:
            for task in tuple(self._running):
                task.cancel()
            with anyio.CancelScope(shield=True):
                for task in tuple(self._running):
                    await task.wait()


def _clock() -> Callable[[], float]:
    if is_asyncio():
        loop = asyncio.get_running_loop()
        return lambda: loop.time()  # not the method as it is now: tests replace it, to jump
    import trio  # only where it is running already

    return trio.lowlevel.current_clock().current_time  # other threads may ask it too


def running_loop() -> object:
    """Return what stands for the running event loop.

    Raises:
        NoEventLoopError: there is none.
    """
    try:
        return asyncio.get_running_loop()  # a tenth of the price of anyio's token
    except RuntimeError:
        return current_token()


def is_asyncio() -> bool:
    """Whether the running event loop is asyncio's."""
    return current_token().backend_class.__module__.endswith("_asyncio")
