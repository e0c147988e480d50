"""Reading a list page by page: what is new on each, when it is over, and whether that was all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .exceptions import APIResponseError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._wire import Page
    from .models import Payment

__all__ = ["Pages"]

PAGES_MAX: Final = 1_000


class Pages:
    """A list that is being read.

    New payments move the others on, so one can come twice: it is handed out once. A server may not
    say how many pages there are: then the first that is empty, or repeats the one before, ends
    them.

    A list is whole if it has shown as many payments as it said at first. Those that came meanwhile
    do not make up for one that was left out: they stand above payments that were shown before, or
    fill what the list has grown by.

    Attributes:
        is_over: whether there is nothing more to read.
        is_whole: whether all was read; false where the list ended without saying so.
        first: the first page.
    """

    def __init__(self, ask: Callable[[int], Awaitable[Page]]) -> None:
        """Begin before the first page; *ask* fetches one by its number."""
        self.is_over = False
        self.is_whole = False
        self.first: Page | None = None
        self._ask = ask
        self._number = 0
        self._count = 0  # of those there were at first, as many as are sure to have been shown
        self._places = 0  # on all pages so far
        self._seen: set[str] = set()
        self._before: list[str | Payment] = []

    async def next(self) -> list[Payment]:
        """Fetch the next page, and return what is new on it.

        Raises:
            APIError: no usable answer came.
            APIResponseError: the list contradicts itself, or has no end.
        """
        if self._number == PAGES_MAX:
            self._broken(f"it has more than {PAGES_MAX:,} pages: ask for fewer days")
        self._number += 1
        page = await self._ask(self._number)
        self.first = self.first or page
        names = [_name(payment) for payment in page.payments]
        repeats = bool(names) and names == self._before
        self._before = names
        fresh = [] if repeats else self._fresh(page)
        if page.last is None:
            self.is_over = repeats or not names
            self.is_whole = not names
        elif repeats or (not names and self._number < page.last):
            what = f"repeats page {self._number - 1}" if repeats else "is empty"
            self._broken(f"page {self._number} of {page.last} {what}")
        elif self._number >= page.last:
            self.is_over = self.is_whole = True
            total = min(self._total, page.total or 0)
            if self._count < total:
                self._broken(f"it shows {self._count} payments of {total}")
        return fresh

    def _fresh(self, page: Page) -> list[Payment]:
        fresh, below = [], 0
        for payment in page.payments:
            name = _name(payment)
            if isinstance(name, str):  # two without a name may be two
                if name in self._seen:
                    below = 0
                    continue
                self._seen.add(name)
            fresh.append(payment)
            below += 1
        self._places += len(page.payments)
        grown = max(page.total or 0, self._total) - self._total
        self._count = max(self._count, min(self._count + below, self._places - grown))
        return fresh

    @property
    def _total(self) -> int:
        """How many payments there were at first; 0 if the server did not say."""
        return 0 if self.first is None else self.first.total or 0

    def _broken(self, why: str) -> None:
        self.is_over = True
        response = None if self.first is None else self.first.response
        msg = f"list_payments: the list cannot be read to its end: {why}"
        raise APIResponseError(msg, response=response)


def _name(payment: Payment) -> str | Payment:
    return payment.reference or payment.checkout_request_id or payment
