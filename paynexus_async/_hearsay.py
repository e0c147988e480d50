"""What is heard of payments without asking: it proves nothing, and says when to ask.

News comes from webhooks, and a webhook proves little: it can be late, repeat, overtake another one,
or be sent again by whoever has seen it. So it is a reason to look, and no more. Where looks go on
finding a payment open that is said to have ended, each further one waits twice as long: whoever
repeats a delivery a thousand times buys a handful of calls.

Where news has come of nearly every payment that ended, it may be expected of the next one, and
looks without news become a safety net. Once it fails to come, they are what they were.

Pure: the time comes in as an argument, on the event loop's clock. All times are seconds.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from .status import PaymentStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Hearsay", "News", "is_settled"]

_NAMES_MAX: Final = 1_000
_PAUSE_SECONDS_MAX: Final = 30.0
_APART_SECONDS: Final = 1.0
_LOOKS_BY_THEMSELVES_MAX: Final = 5  # 0, 1, 3, 7 and 15 s after news that nothing confirms
_RELIABLE_SHARE: Final = 0.7
_FADING: Final = 0.9  # the last ten payments count
_LATE_SECONDS_MAX: Final = 15.0


class News:
    """What was heard of one payment, and how often looking has not confirmed it.

    Attributes:
        claim: the status that was heard last; `None` if only that there is news.
        is_open: whether something was heard that no look has settled.
    """

    __slots__ = ("_looks", "_next_at", "claim", "is_open")

    def __init__(self) -> None:
        """Have heard nothing."""
        self.claim: PaymentStatus | None = None
        self.is_open = False
        self._looks = 0
        self._next_at = -math.inf

    def heard(self, claim: PaymentStatus | None) -> None:
        """Hear that the payment has ended."""
        self.claim, self.is_open = claim, True

    def seconds_to_look(self, now: float) -> float:
        """Return how long to wait before the look that it is worth."""
        return max(self._next_at - now, 0.0) if self.is_open else math.inf

    def looked(self, at: float, status: PaymentStatus | None) -> None:
        """Note what a look that began at this time has found; `None` if it met an error."""
        if status is not None and is_settled(self.claim, status):
            self.is_open = False
            self._next_at = at + _APART_SECONDS  # late truth may be heard of at once
            return
        self._looks += 1
        self._next_at = at + min(2.0 ** (self._looks - 1), _PAUSE_SECONDS_MAX)
        if self._looks >= _LOOKS_BY_THEMSELVES_MAX:
            self.is_open = False


def is_settled(claim: PaymentStatus | None, known: PaymentStatus) -> bool:
    """Whether a status leaves nothing to be asked about a claim.

    A payment that ended without money, and is said to be completed, may be late truth.
    """
    return known.succeeded or (known.is_terminal and claim is not PaymentStatus.COMPLETED)


class Hearsay:
    """How far news can be relied on, and news of payments that nobody knows yet."""

    def __init__(self) -> None:
        """Rely on nothing."""
        self._heard, self._missed = 0.0, 1.5
        self._unknown: OrderedDict[str, None] = OrderedDict()

    @property
    def is_reliable(self) -> bool:
        """Whether news of the next payment's end may be expected."""
        return self._heard >= _RELIABLE_SHARE * (self._heard + self._missed)

    def ended(self, *, heard: bool) -> None:
        """Learn that a payment has ended, and whether that was heard before it was seen."""
        self._heard, self._missed = self._heard * _FADING, self._missed * _FADING
        if heard:
            self._heard += 1
        else:
            self._missed += 1

    def came_after_all(self, seconds: float) -> None:
        """Learn that news came so long after its payment had been seen to end."""
        if seconds <= _LATE_SECONDS_MAX:
            self._heard += 1
            self._missed = max(self._missed - 1, 0.0)

    def keep(self, names: Iterable[str]) -> None:
        """Keep news of a payment that nobody knows yet: its prompt may be on its way."""
        for name in names:
            self._unknown[name] = None
            self._unknown.move_to_end(name)
            if len(self._unknown) > _NAMES_MAX:
                self._unknown.popitem(last=False)

    def take(self, names: Iterable[str]) -> bool:
        """Return whether news of a payment was kept; it is not any longer."""
        kept = [name for name in names if name in self._unknown]
        for name in kept:
            del self._unknown[name]
        return bool(kept)
