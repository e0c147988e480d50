"""Server-sent events: one look at the ledger for all pages that are open, and none for none."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from starlette.responses import StreamingResponse

from ._view import View, changes, view

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from starlette.types import Receive, Scope, Send

    from ._engine import Ledger

__all__ = ["Events", "EventsResponse", "pause"]

_LOOK_SECONDS: Final = 0.1
_LOOKING_SHARE_MAX: Final = 0.1
_BEAT_SECONDS: Final = 15.0


class Events:
    """Tells every open page what it does not show yet: first all of it, then what changes.

    The ledger is a matter of the clock, not only of calls: a prompt expires by itself. So one task
    looks at it, for as long as there is a page. Each page is told the difference to what it was
    told before: one that is slow, or comes again, misses nothing and piles up nothing.
    """

    def __init__(self, ledger: Ledger) -> None:
        """Prepare; nothing runs before the first page.

        Args:
            ledger: what is looked at. It is told when a page opens and closes.
        """
        self._ledger = ledger
        self._view: View = {}
        self._changed = asyncio.Event()
        self._pages = 0
        self._looking: asyncio.Task[None] | None = None
        self._closed = False

    @contextmanager
    def page(self) -> Iterator[None]:
        """Look, for as long as this page is open."""
        self._ledger.opened()
        self._pages += 1
        try:
            self._look()  # now: with this page, customers may be others
            if self._looking is None:
                self._looking = asyncio.create_task(self._keep_looking())
            yield
        finally:
            self._ledger.closed()
            self._pages -= 1
            if not self._pages and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    async def stream(self) -> AsyncIterator[str]:
        """Yield the events of one page, as they stand on the wire, until the server stops."""
        shown: View = {}
        name = "snapshot"
        while not self._closed:
            seen, changed = self._view, self._changed
            if told := changes(shown, seen):
                yield _event(name, {"now": self._ledger.now, "parts": told})
                shown, name = seen, "change"
            try:
                async with asyncio.timeout(_BEAT_SECONDS):
                    await changed.wait()
            except TimeoutError:
                yield ":\n\n"  # so that a connection that is no more is found out

    def close(self) -> None:
        """End every stream: the server stops."""
        self._closed = True
        self._changed.set()

    async def _keep_looking(self) -> None:
        while True:
            started = time.perf_counter()
            self._look()
            took = time.perf_counter() - started
            await asyncio.sleep(pause(took))

    def _look(self) -> None:
        seen = view(self._ledger)
        if seen != self._view:
            self._view = seen
            self._changed.set()
            self._changed = asyncio.Event()


def pause(took_seconds: float) -> float:
    """Return how long to wait after a look: the fuller the ledger, the longer."""
    return max(_LOOK_SECONDS, took_seconds / _LOOKING_SHARE_MAX)


def _event(name: str, data: object) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


class EventsResponse(StreamingResponse):
    """One page's stream; the page is open exactly as long as this is being sent."""

    media_type = "text/event-stream"

    def __init__(self, events: Events, headers: Mapping[str, str]) -> None:
        """Prepare to send."""
        super().__init__(events.stream(), headers=headers)
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send, until the page or the server goes."""
        with self._events.page():
            await super().__call__(scope, receive, send)
