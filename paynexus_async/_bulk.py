"""Many payments side by side: bounded, in order or as they come, one result for each.

Results are yielded by a generator, and no task group or cancel scope may be open across a `yield`.
So the work is done by tasks of the client's, or by none at all where payments are only waited for,
and everybody meets in a `_Collector`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Final, Protocol

import anyio

from ._tasks import Signal
from .exceptions import ClientStateError, PayNexusError
from .models import BulkProgress, PaymentResult

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable

    from ._tasks import OwnedTask, OwnedTasks
    from .models import Payment

__all__ = ["Items", "OnProgress", "Waiting", "check_each", "follow_each"]

Items = Iterable["str | Payment"] | AsyncIterable["str | Payment"]
"""References, checkout request ids or payments, from any iterable."""
OnProgress = Callable[[BulkProgress], None]

_AHEAD: Final = 4  # results that may wait for a slow one before them, for each check under way
_PROGRESS_SECONDS: Final = 0.1
_BEGUN_AT_ONCE: Final = 100  # payments; then everybody else has a turn


class Waiting(Protocol):
    """A payment that is being followed."""

    def leave(self) -> None:
        """Follow it no longer."""
        ...


class _End:
    """Stands for what comes after the last item."""


_END: Final = _End()


class _Source:
    """What to do, taken one by one from any iterable, by whoever is free."""

    def __init__(self, items: Items) -> None:
        self.total = len(items) if isinstance(items, Sized) else None
        self._sync: Iterator[str | Payment] = iter(())
        self._async: AsyncIterator[str | Payment] | None = None
        if isinstance(items, AsyncIterable):
            self._async = aiter(items)
            self._lock = anyio.Lock()
        else:
            self._sync = iter(items)
        self._taken = 0

    async def take(self) -> tuple[int, str | Payment] | None:
        """Return the next item and its number; `None` after the last one.

        An item may be `None`, of a list with gaps: it gets its result like any other.
        """
        item: str | Payment | _End
        if self._async is None:
            item = next(self._sync, _END)
        else:
            async with self._lock:
                item = await anext(self._async, _END)
        if isinstance(item, _End):
            return None
        self._taken += 1
        return self._taken - 1, item


class _Collector:
    """Results on their way from those who find them to the one who asked."""

    def __init__(self, total: int | None, *, ordered: bool, progress: OnProgress | None) -> None:
        self.held = 0  # taken from the source, and not yet handed out
        self.error: BaseException | None = None
        self._ready: deque[PaymentResult] = deque()
        self._early: dict[int, PaymentResult] | None = {} if ordered else None
        self._next = 0
        self._news = Signal()
        self._room = anyio.Event()
        self._room.set()
        self._total = total
        self._progress = progress
        self._done = self._failed = 0
        self._started = self._told_at = anyio.current_time()

    def put(self, number: int, result: PaymentResult) -> None:
        """Hand in a result."""
        self._done += 1
        self._failed += result.error is not None
        if self._early is None:
            self._ready.append(result)
        else:
            self._early[number] = result
            while (due := self._early.pop(self._next, None)) is not None:
                self._ready.append(due)
                self._next += 1
        self.wake()

    def wake(self) -> None:
        """Let the one who asked look again."""
        self._news.set()

    async def next(self, is_over: Callable[[], bool]) -> PaymentResult | None:
        """Return the next result; `None` after the last one."""
        while not self._ready:
            if self.error is not None:
                raise self.error
            if is_over():
                self._tell(now=True)
                return None
            self._news = Signal()
            await self._news
        self._tell()
        self.held -= 1
        self._room.set()
        return self._ready.popleft()

    async def room(self, most: int) -> None:
        """Wait until fewer than so many results are held."""
        while self.held >= most:
            if self._room.is_set():
                self._room = anyio.Event()
            await self._room.wait()

    def _tell(self, *, now: bool = False) -> None:
        if self._progress is None:
            return
        moment = anyio.current_time()
        if not now and moment - self._told_at < _PROGRESS_SECONDS:
            return
        self._told_at = moment
        seconds = moment - self._started
        rate = self._done / seconds if seconds > 0 else 0.0
        left = None if self._total is None else self._total - self._done
        self._progress(
            BulkProgress(
                done=self._done,
                failed=self._failed,
                total=self._total,
                per_second=rate,
                eta_seconds=left / rate if left is not None and rate > 0 else None,
            )
        )


class _Crew:
    """Tasks of the client's that feed a collector, and go home together."""

    def __init__(self, tasks: OwnedTasks, collector: _Collector) -> None:
        self.is_dismissed = False
        self.busy: set[int] = set()  # those who are in the middle of a call, which is let end
        self._tasks = tasks
        self._collector = collector
        self._at_work: dict[int, OwnedTask] = {}

    @property
    def has_gone(self) -> bool:
        """Whether everybody has finished."""
        return not self._at_work

    def hire(self, number: int, work: Callable[[int], Awaitable[None]]) -> None:
        """Let one more work."""

        async def shift() -> None:
            closed = "the client was closed before all payments were asked for"
            error: Exception | None = ClientStateError(closed)
            try:
                await work(number)
                error = None
            except Exception as raised:  # noqa: BLE001  # of the caller's own iterable
                error = raised
            finally:
                del self._at_work[number]
                if not self.is_dismissed:
                    self._collector.error = self._collector.error or error
                self._collector.wake()

        self._at_work[number] = self._tasks.start(shift)

    def dismiss(self) -> None:
        """Send everybody home."""
        self.is_dismissed = True
        for number, task in self._at_work.items():
            if number not in self.busy:
                task.cancel()


async def check_each(
    items: Items,
    check: Callable[[str | Payment, Callable[[bool], None]], Awaitable[Payment]],
    *,
    tasks: OwnedTasks,
    at_once: int,
    ordered: bool,
    progress: OnProgress | None,
) -> AsyncGenerator[PaymentResult, None]:
    """Yield what *check* finds for each item.

    Args:
        items: taken one by one, as they are needed.
        check: makes one check; says to its second argument when a call begins, and ends.
        tasks: the client's.
        at_once: checks under way at a time.
        ordered: whether results come in the order of the items.
        progress: called now and then, from the one who iterates.
    """
    source = _Source(items)
    collector = _Collector(source.total, ordered=ordered, progress=progress)
    crew = _Crew(tasks, collector)

    async def work(me: int) -> None:
        def calling(begins: bool) -> None:
            (crew.busy.add if begins else crew.busy.discard)(me)

        while not crew.is_dismissed:
            await collector.room(at_once * _AHEAD)
            taken = await source.take()
            if taken is None:
                return
            collector.held += 1
            number, item = taken
            try:
                payment = await check(item, calling)
            except PayNexusError as error:
                collector.put(number, PaymentResult(asked=item, error=error))
            else:
                collector.put(number, PaymentResult(asked=item, payment=payment))

    try:
        for number in range(at_once if source.total is None else min(at_once, source.total)):
            crew.hire(number, work)
        while (result := await collector.next(lambda: crew.has_gone)) is not None:
            yield result
    finally:
        crew.dismiss()


async def follow_each(
    items: Items,
    follow: Callable[[str | Payment, Callable[[Payment | PayNexusError], None]], Waiting | None],
    *,
    tasks: OwnedTasks,
    at_once: int,
    ordered: bool,
    progress: OnProgress | None,
) -> AsyncGenerator[PaymentResult, None]:
    """Yield how each payment ended; none of them costs a task.

    Args:
        items: taken one by one, as they are needed.
        follow: begins to follow one; calls its second argument once, with its end. Returns `None`
            if that has happened already.
        tasks: the client's.
        at_once: payments followed at a time.
        ordered: whether results come in the order of the items.
        progress: called now and then, from the one who iterates.
    """
    source = _Source(items)
    collector = _Collector(source.total, ordered=ordered, progress=progress)
    crew = _Crew(tasks, collector)
    waiting: dict[int, Waiting] = {}

    def begin(number: int, item: str | Payment) -> None:
        def ended(how: Payment | PayNexusError) -> None:
            waiting.pop(number, None)
            result = (
                PaymentResult(asked=item, error=how)
                if isinstance(how, PayNexusError)
                else PaymentResult(asked=item, payment=how)
            )
            collector.put(number, result)

        collector.held += 1
        followed = follow(item, ended)
        if followed is not None:
            waiting[number] = followed

    async def feed(_: int) -> None:
        while (taken := await source.take()) is not None:
            begin(*taken)
            if taken[0] % _BEGUN_AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()
            await collector.room(at_once)

    try:
        crew.hire(0, feed)
        while True:
            result = await collector.next(lambda: crew.has_gone and not waiting)
            if result is None:
                break
            yield result
    finally:
        crew.dismiss()
        for followed in tuple(waiting.values()):
            followed.leave()
