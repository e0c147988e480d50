"""What a client learns of its customers: how long their payments stay open.

Nobody sees a payment end; it was open at one look and over at the next. Each such pair says that
the end lies between two ages, and is shared out over the seconds between them as likely as they
are by what is known so far (the step of an EM algorithm for interval-censored times; Turnbull
1976). The prior counts like 250 customers, so a new shop follows it, and a busy one its own.
Old customers fade: beyond two thousand, each new one takes the place of an old one.

Pure: ages come in as arguments. All times are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from ._schedule import Survival

if TYPE_CHECKING:
    from ._schedule import Schedule

__all__ = ["Experience"]

_PRIOR_PAYMENTS: Final = 250.0
_PAYMENTS_MAX: Final = 2_000.0
_NEWS_SHARE: Final = 0.1  # so much more than last time makes a new curve
_BINS: Final = 120  # of one step each, and one for all that comes later
_VERSION: Final = 1


class Experience:
    """A survival curve that starts as assumed, and slowly becomes what is seen."""

    def __init__(self, schedule: Schedule, saved: Mapping[str, object] | None = None) -> None:
        """Start with the schedule's own curve.

        Args:
            schedule: what is assumed.
            saved: what `as_json` once returned.

        Raises:
            ValueError: if *saved* is something else.
        """
        self._prior = schedule.survival
        # A curve with all times multiplied, as a fast sandbox has it, has bins of that length too.
        self._step = self._prior.step_seconds * (len(self._prior.chances) - 1) / _BINS
        edges = [self._prior.at(place * self._step) for place in range(_BINS + 1)]
        self._assumed = [a - b for a, b in zip(edges, [*edges[1:], 0.0], strict=True)]
        self._seen = [0.0] * (_BINS + 1) if saved is None else _seen_in(saved)
        self._told = 0.0

    def ended(self, after: float, by: float) -> None:
        """Learn that a payment was open at the age *after*, and over at the age *by*."""
        first = min(int(after / self._step), _BINS)
        last = min(int(by / self._step), _BINS)
        shares = []
        for place in range(first, last + 1):
            begin, end = place * self._step, (place + 1) * self._step
            overlap = 1.0 if place == _BINS else (min(by, end) - max(after, begin)) / self._step
            mass = _PRIOR_PAYMENTS * self._assumed[place] + self._seen[place]
            shares.append(overlap * (mass + 1e-9))
        total = sum(shares)
        if total <= 0:  # no time passed between the two
            return
        for place, share in enumerate(shares, first):
            self._seen[place] += share / total
        excess = sum(self._seen) / _PAYMENTS_MAX
        if excess > 1:
            self._seen = [count / excess for count in self._seen]
            self._told /= excess

    def news(self) -> Survival | None:
        """Return the curve, if so much was learned since the last time that it has changed."""
        payments = sum(self._seen)
        if payments - self._told < _NEWS_SHARE * (_PRIOR_PAYMENTS + self._told):
            return None
        self._told = payments
        return self._curve(payments)

    def as_json(self) -> dict[str, object]:
        """Return what was learned, as a small JSON value: no payment, no customer, only counts."""
        return {"version": _VERSION, "ended_by_age": [round(count, 3) for count in self._seen]}

    def _curve(self, payments: float) -> Survival:
        """Put each bin's mass where the prior has it inside the bin, on the prior's own grid."""
        prior, total = self._prior, _PRIOR_PAYMENTS + payments
        chances, chance = [1.0], 1.0
        for place in range(1, len(prior.chances)):
            age = (place - 0.5) * prior.step_seconds
            bin_ = min(int(age / self._step), _BINS - 1)
            assumed = self._assumed[bin_]
            mass = (_PRIOR_PAYMENTS * assumed + self._seen[bin_]) / total
            if assumed > 1e-6:
                share = (prior.chances[place - 1] - prior.chances[place]) / assumed
            else:
                share = prior.step_seconds / self._step
            chance = max(chance - mass * share, 0.0)
            chances.append(chance)
        return Survival(prior.step_seconds, tuple(chances))


def _seen_in(saved: Mapping[str, object]) -> list[float]:
    counts = saved.get("ended_by_age") if isinstance(saved, Mapping) else None
    if not isinstance(counts, list | tuple) or saved.get("version") != _VERSION:
        msg = "experience must be what AsyncPayNexus.experience returned"
        raise ValueError(msg)
    # None of them was ever larger than all payments that count; a digit too many is a damaged file.
    most = 2 * _PAYMENTS_MAX
    seen = [float(n) for n in counts if isinstance(n, int | float) and 0 <= n <= most]
    if len(seen) != len(counts) or len(seen) != _BINS + 1:
        msg = f"experience must hold {_BINS + 1} counts from 0"
        raise ValueError(msg)
    return seen
