"""When to look at a payment next, so that each call of the quota ends the most ignorance.

The chance that an open payment ends in the next second is small at first (nobody types a PIN that
fast), rises, falls, and rises again when the prompt expires. Inspecting something with such a
hazard at the least cost is an old problem (Barlow, Hunter and Proschan, "Optimum Checking
Procedures", 1963; Keller, "Optimum Checking Schedules for Systems Subject to Random Failure",
1974). With S(t) the chance that a payment is still open at age t, and a price of so many seconds
for one call, the cost to go after a look at age a that found it open is

    C(a) = min over s of  price + E(delay if it ends within s) + S(a + s) / S(a) * C(a + s)
    E(delay) = s - (integral of S from a to a + s) / S(a)

which a table over a grid of ages solves backwards, once for each curve and price. Past the prompt's
life there is little left to learn: the pause then grows with the time that has passed, up to half a
minute, for whatever truth comes late.

Pure: ages come in as arguments, and so does chance. All times are seconds.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Final, Literal

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "BALANCED",
    "EAGER",
    "LATE_TRUTH_AGE_SECONDS",
    "PRIOR",
    "THRIFTY",
    "Patience",
    "Schedule",
    "Survival",
]

EAGER: Final = 0.1
"""The price of a call for whoever has quota to spare: about nine calls a payment."""
BALANCED: Final = 0.25
"""The price by default: about six calls a payment, and as prompt as a poll of nine calls."""
THRIFTY: Final = 1.0
"""The price where the quota is tight: about three calls a payment."""

Patience = Literal["eager", "balanced", "thrifty"] | float
"""What one call may cost, by a word or in seconds of delay."""

_PRICES: Final = {"eager": EAGER, "balanced": BALANCED, "thrifty": THRIFTY}

PAUSE_SECONDS_MIN: Final = 0.5
"""No price makes a schedule hammer the API."""
PAUSE_SECONDS_MAX: Final = 30.0
LATE_TRUTH_AGE_SECONDS: Final = 90.0
"""From this age on, what may still come is late truth."""

_TAIL_CHANCE: Final = 1e-3  # still open with less than this: the prompt has outlived its phone
_TAIL_PAUSE_SHARE: Final = 0.5  # of the time since the tail began
_TAIL_PAUSE_SECONDS_MIN: Final = 3.0
_TAIL_JITTER_SHARE: Final = 0.25
_SAFETY_NET_LOOKS: Final = 0.9
_GRID_SECONDS: Final = 0.25
_GRID_SECONDS_MAX: Final = 120.0


@attrs.frozen
class Survival:
    """The chance that a payment is still open, by its age: a curve through equally spaced points.

    Attributes:
        step_seconds: between two points; the first is at age 0.
        chances: falling from 1; what lies beyond the last point counts as ended.
    """

    step_seconds: float
    chances: tuple[float, ...]

    def __attrs_post_init__(self) -> None:
        """Refuse what is not such a curve.

        Raises:
            ValueError: naming what is wrong.
        """
        if not (math.isfinite(self.step_seconds) and self.step_seconds > 0):
            msg = "step_seconds must be positive"
            raise ValueError(msg)
        chances = self.chances
        falling = all(a >= b for a, b in pairwise(chances))
        if len(chances) < 2 or chances[0] != 1.0 or chances[-1] < 0 or not falling:
            msg = "chances must fall from 1 to no less than 0"
            raise ValueError(msg)

    @classmethod
    def sampled(cls, chance: Callable[[float], float]) -> Survival:
        """Sample a curve that is given as a function of the age in seconds."""
        points = round(_GRID_SECONDS_MAX / _GRID_SECONDS) + 1
        return cls(_GRID_SECONDS, tuple(chance(i * _GRID_SECONDS) for i in range(points)))

    def scaled(self, factor: float) -> Survival:
        """Return the curve with all times multiplied; 0.1 is a life ten times faster."""
        return Survival(self.step_seconds * factor, self.chances)

    def at(self, age: float) -> float:
        """Return the chance that a payment is still open at this age."""
        return _interpolate(self.chances, age / self.step_seconds)

    @cached_property
    def areas(self) -> tuple[float, ...]:
        """The integral of the curve up to each of its points."""
        trapezia = ((a + b) / 2 * self.step_seconds for a, b in pairwise(self.chances))
        return tuple(accumulate(trapezia, initial=0.0))

    def open_seconds(self, age: float) -> float:
        """Return the seconds that a payment is open on average until this age."""
        place = min(age / self.step_seconds, len(self.chances) - 1)
        index = int(place)
        rest = (place - index) * self.step_seconds
        return self.areas[index] + rest * (self.chances[index] + self.at(age)) / 2


def _interpolate(values: Sequence[float], place: float) -> float:
    index = int(place)
    if index >= len(values) - 1:
        return values[-1]
    return values[index] + (place - index) * (values[index + 1] - values[index])


def _lognormal(age: float, median: float, sigma: float) -> float:
    """Return the chance that a lognormal time is longer than *age*."""
    if age <= 0:
        return 1.0
    return 0.5 * math.erfc(math.log(age / median) / (sigma * math.sqrt(2)))


def _prior(age: float) -> float:
    """Return the chance that a customer has not settled a prompt by this age: an assumption.

    Most answer (median 14 s), some decline (median 8 s), the rest let it expire after a minute.
    """
    expired = 1.0 if age <= 60 else math.exp(-(age - 60) / 3)
    return 0.7 * _lognormal(age, 14, 0.55) + 0.15 * _lognormal(age, 8, 0.6) + 0.15 * expired


PRIOR: Final = Survival.sampled(_prior)
"""What is assumed of customers; not measured on PayNexus."""


@attrs.frozen
class _Table:
    """The pauses by age, on the curve's grid, and where the tail begins."""

    pauses: tuple[float, ...]
    tail_age: float
    tail_pause_min: float
    pause_min: float


@lru_cache(maxsize=64)
def _solve(survival: Survival, price: float) -> _Table:
    """Solve the recursion of the module's docstring backwards, over the curve's own grid."""
    step, chances, areas = survival.step_seconds, survival.chances, survival.areas
    scale = step / _GRID_SECONDS
    end = bisect_right(chances, -_TAIL_CHANCE, key=lambda chance: -chance)
    end = min(max(end, 2), len(chances) - 1)
    # W(i) = S(i) * C(i), the cost to go weighted by the chance to get there, keeps divisions out:
    # W(i) = min over j of  S(i) * (price + (j - i) * step) - (A(j) - A(i)) + W(j).
    # The minimum is searched for among all later points: with two waves of endings (answers, then
    # expiry) the cost has two valleys, and a search that stops in the first one is wrong.
    weighted = [0.0] * end + [chances[end] * price]
    steps = [1] * (end + 1)
    for here in range(end - 1, -1, -1):
        per_step, area = chances[here] * step, areas[here]
        best, there = min(
            ((there - here) * per_step - areas[there] + weighted[there], there)
            for there in range(here + 1, end + 1)
        )
        weighted[here] = best + chances[here] * price + area
        steps[here] = there - here
    pauses = tuple(count * step for count in steps)
    return _Table(
        pauses=pauses,
        tail_age=end * step,
        tail_pause_min=_TAIL_PAUSE_SECONDS_MIN * scale,
        pause_min=PAUSE_SECONDS_MIN * min(scale, 1.0),
    )


@attrs.frozen
class Schedule:
    """When to look next, for one price of a call and one curve of customers.

    Attributes:
        price: what one call may cost, in seconds of delay; see `EAGER`, `BALANCED`, `THRIFTY`.
        survival: how long payments stay open.
    """

    price: float = BALANCED
    survival: Survival = PRIOR

    def __attrs_post_init__(self) -> None:
        """Refuse a price that is none.

        Raises:
            ValueError: unless it is positive and finite.
        """
        if not (math.isfinite(self.price) and self.price > 0):
            msg = "price must be a positive number of seconds"
            raise ValueError(msg)

    @cached_property
    def _table(self) -> _Table:
        return _solve(self.survival, self.price)

    @cached_property
    def safety_net_seconds(self) -> float:
        """The pause between two looks where the end is likely to be heard of without them.

        With the look that confirms what is heard, fewer than two calls a payment: the shortest
        pause with 0.9 looks on average that find a payment open. Whatever is not heard of is seen
        after that pause at the latest, and no schedule with as few looks has a shorter one.
        """
        survival, points = self.survival, len(self.survival.chances) - 1
        pauses = (
            steps * survival.step_seconds
            for steps in range(1, points)
            if sum(survival.chances[steps::steps]) <= _SAFETY_NET_LOOKS
        )
        pause = next(pauses, points * survival.step_seconds)
        return min(max(pause, PAUSE_SECONDS_MIN), PAUSE_SECONDS_MAX)

    @classmethod
    def of(cls, patience: Patience | Schedule) -> Schedule:
        """Return the schedule that is meant.

        Raises:
            ValueError: if it is neither a known word nor a positive number of seconds.
        """
        if isinstance(patience, Schedule):
            return patience
        price = _PRICES.get(patience) if isinstance(patience, str) else patience
        if isinstance(price, bool) or not isinstance(price, int | float):
            msg = f"patience must be one of {', '.join(_PRICES)}, or a number of seconds"
            raise ValueError(msg)  # noqa: TRY004  # as for any other price that is none
        return cls(float(price))

    def seconds_to_next_look(
        self, age: float, jitter: float, *, is_safety_net: bool = False
    ) -> float:
        """Return how long to wait after a look that found the payment open.

        Args:
            age: the payment's age at that look, in seconds.
            jitter: a random number from 0 to 1; spreads the looks of the tail.
            is_safety_net: whether the end is likely to be heard of without looking.

        Raises:
            ValueError: if the age is negative or no number.
        """
        if not age >= 0:
            msg = "age must not be negative"
            raise ValueError(msg)
        if is_safety_net:
            return max(self.seconds_to_next_look(age, jitter), self.safety_net_seconds)
        table = self._table
        if age >= table.tail_age:
            pause = max(_TAIL_PAUSE_SHARE * (age - table.tail_age), table.tail_pause_min)
            pause = min(pause, PAUSE_SECONDS_MAX)
            return pause * (1 - _TAIL_JITTER_SHARE * jitter)
        # Not interpolated: between two waves of endings the best pause jumps.
        return max(table.pauses[int(age / self.survival.step_seconds)], table.pause_min)

    def value(self, last_look_age: float, age: float) -> float:
        """Return the payment-seconds of ignorance that a look at this age would end.

        The priority between payments that share a quota: the more, the sooner.

        Args:
            last_look_age: the payment's age when it was last seen open.
            age: its age now.
        """
        waited = max(age - last_look_age, 0.0)
        if last_look_age >= self._table.tail_age:
            # The curve has nothing more to say. The schedule has: a look is worth its price when it
            # is due, and the longer it waits the more, so that nobody starves.
            return self.price * (waited / self.seconds_to_next_look(last_look_age, 0.0)) ** 2
        survival = self.survival
        opened = survival.open_seconds(age) - survival.open_seconds(last_look_age)
        return max(waited - opened / survival.at(last_look_age), 0.0)
