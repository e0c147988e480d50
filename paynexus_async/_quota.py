"""What a key may still ask for: the plan's windows, what the server says of them, and the pace.

Three sources bound the calls of a key. The plan, where the user names it: so many calls in any
minute, hour, day and month. The server's `X-RateLimit-*` headers, which are the truth about one
window and the only sign of other processes on the same key. And a 429, which ends all calling until
the time it states.

Inside these bounds background calls are paced: at a window's beginning they may go half as fast
again as would last for ever, and the less is left of it, the wider the gaps become. So a burst
never leaves a customer who comes later without a call.

Pure: the time comes in as an argument, in seconds on any clock that does not go back.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from enum import IntEnum
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from ._wire import RateLimits

__all__ = ["PLANS", "Plan", "Quota", "Urgency"]

_MINUTE: Final = 60.0
_HOUR: Final = 3_600.0
_DAY: Final = 86_400.0
_MONTH: Final = 30 * _DAY

_PACED_SECONDS_MAX: Final = _HOUR  # longer windows only end: a gap of minutes serves nobody
_FREE_SHARE: Final = 3.0  # of a minute's calls: with that many left nothing would be paced
_RESERVE_SHARE: Final = 0.1  # for payments that begin, where they share the key
_BUCKETS: Final = 240  # in a window; its calls are forgotten so much of it too late
_CATCH_UP_SECONDS: Final = 0.02  # a timer that comes late loses no call
_SAME_RESET_SECONDS: Final = 2.0
_RESET_MARGIN_SECONDS: Final = 1.0  # the header has whole seconds, and clocks differ
_OTHERS_MEMORY_SECONDS: Final = 20.0
_OTHERS_MARGIN: Final = 2
_OTHERS_SHARE: Final = 0.5  # of what they would take at their pace: they slow down as we do


class Urgency(IntEnum):
    """Who goes first."""

    INITIATE = 0
    """A customer stands at the till."""
    CALL = 1
    """Somebody awaits this one answer."""
    LOOK = 2
    """A look at a payment that is being followed."""
    BULK = 3
    """One of many checks."""


@attrs.frozen(kw_only=True)
class Plan:
    """The calls that a key has, by window; `None` where there is no limit.

    Source: the plans of https://paynexus.co.ke, as the service states them.

    Attributes:
        minute: calls in any minute.
        hour: calls in any hour.
        day: calls in any 24 hours.
        month: calls in any 30 days.
    """

    minute: int | None = None
    hour: int | None = None
    day: int | None = None
    month: int | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse what is no number of calls.

        Raises:
            ValueError: naming the window.
        """
        for window, calls in attrs.asdict(self).items():
            is_count = isinstance(calls, int) and not isinstance(calls, bool) and calls > 0
            if calls is not None and not is_count:
                msg = f"plan: {window} must be a whole number of calls above 0, not {calls!r}"
                raise ValueError(msg)

    @classmethod
    def of(cls, plan: str | Mapping[str, int] | Plan | None) -> Plan:
        """Return the plan that is meant: by its name, by its numbers, or none.

        Raises:
            ValueError: if there is no such plan or window.
        """
        if plan is None or isinstance(plan, Plan):
            return plan or cls()
        if isinstance(plan, str):
            if plan in PLANS:
                return PLANS[plan]
            msg = f"plan must be one of {', '.join(PLANS)}, or its numbers, not {plan!r}"
            raise ValueError(msg)
        windows = {field.name for field in attrs.fields(cls)}
        if not isinstance(plan, Mapping) or not plan or not set(plan) <= windows:
            msg = "plan takes its numbers as {'minute': 60, 'hour': 3600, 'day': …, 'month': …}"
            raise ValueError(msg)
        return cls(**plan)


PLANS: Final[Mapping[str, Plan]] = {
    "trial": Plan(minute=30, hour=1_800, month=10_000),
    "basic": Plan(minute=60, hour=3_600, month=50_000),
    "professional": Plan(minute=120, hour=7_200, month=200_000),
    "enterprise": Plan(minute=300, hour=18_000, month=1_000_000),
    "sandbox": Plan(day=30),
}
"""By name; `sandbox` is what `sb_` keys have."""


class _Window:
    """The calls of the last so many seconds, each counted until it is certainly out of sight."""

    __slots__ = ("_buckets", "_width", "limit", "seconds", "used")

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit = limit
        self.seconds = seconds
        self.used = 0
        self._width = seconds / _BUCKETS
        self._buckets: deque[tuple[float, int]] = deque()  # when they are forgotten, how many

    def add(self, now: float) -> None:
        """Count a call whose answer came now: the server counted it no later."""
        forgotten_at = (math.floor(now / self._width) + 1) * self._width + self.seconds
        self.used += 1
        if self._buckets and self._buckets[-1][0] >= forgotten_at:
            last, count = self._buckets.pop()
            self._buckets.append((last, count + 1))
        else:
            self._buckets.append((forgotten_at, 1))

    def forget(self, now: float) -> None:
        """Drop what is out of sight."""
        while self._buckets and self._buckets[0][0] <= now:
            self.used -= self._buckets.popleft()[1]

    def seconds_to_more(self, now: float) -> float:
        """Return how long what is left has to last: until the oldest call is forgotten."""
        return self._buckets[0][0] - now if self._buckets else self.seconds

    def left(self, now: float) -> int:
        """Count the calls that it has left; from any thread."""
        seen = tuple(self._buckets)  # one step: nothing changes meanwhile
        return self.limit - sum(count for forgotten_at, count in seen if forgotten_at > now)

    def free_at(self, now: float, calls: int) -> float:
        """Return when so many calls fit beside those counted; infinite if only an answer tells."""
        excess = self.used + calls - self.limit
        if excess <= 0:
            return now
        for forgotten_at, count in self._buckets:
            excess -= count
            if excess <= 0:
                return forgotten_at
        return math.inf


@attrs.define
class _Told:
    """The server's own account of one window, and what is known to have gone since."""

    limit: int
    left: int  # calls still on their way counted as taken
    resets_at: float
    told_at: float
    remaining: int
    calls: int  # made by us until then
    in_flight: int
    others_per_second: float = 0.0


class Quota:
    """One key's calls."""

    def __init__(self, plan: Plan, *, reserves: bool = False) -> None:
        """Begin with an unused plan.

        Args:
            plan: the key's limits, as far as they are known.
            reserves: whether a part is kept for initiates, because the same key reads.
        """
        limits = (
            (plan.minute, _MINUTE),
            (plan.hour, _HOUR),
            (plan.day, _DAY),
            (plan.month, _MONTH),
        )
        self._windows = [_Window(limit, seconds) for limit, seconds in limits if limit]
        self._reserve_share = _RESERVE_SHARE if reserves else 0.0
        self._told: _Told | None = None
        self._in_flight = 0
        self._calls = 0
        self._paused_until = -math.inf
        self._paced_until = -math.inf
        # The first call learns alone what the key may do; after a 429, and after a window that
        # only the server knew has ended, again.
        self._is_learning = True
        self._was_refused = False
        self._waits_for_reset = False

    # --- May a call go?

    def ready_at(self, now: float, urgency: Urgency) -> float:
        """Return when a call may go out, `now` at the earliest.

        Infinite while the answer to another call must come first.
        """
        self._look_at_the_clock(now)
        alone = self._is_learning and (urgency >= Urgency.LOOK or self._was_refused)
        if alone and self._in_flight and urgency is not Urgency.INITIATE:
            return math.inf
        at = max(now, self._paused_until)
        if urgency >= Urgency.LOOK:
            at = max(at, self._paced_until - _CATCH_UP_SECONDS)
        told = self._told
        if told is not None and told.left <= self._kept(told, now, urgency):
            at = max(at, told.resets_at)
        for window in self._windows:
            if not self._is_told(window):
                kept = self._reserve(window.limit, urgency)
                at = max(at, window.free_at(now, self._in_flight + 1 + kept))
        return at

    @property
    def is_used(self) -> bool:
        """Whether a call has been made."""
        return self._calls > 0

    def left(self, now: float) -> int | None:
        """Count the calls that may go out now, whoever makes them; from any thread.

        Returns:
            The fewest that any window has left; `None` if no limit is known.
        """
        if now < self._paused_until:
            return 0
        told = self._told if self._told is not None and now < self._told.resets_at else None
        windows = [w for w in self._windows if told is None or w.limit != told.limit]
        lefts = [window.left(now) - self._in_flight for window in windows]
        if told is not None:
            lefts.append(told.left)
        return max(min(lefts), 0) if lefts else None

    def take(self, now: float) -> None:
        """Count a call that goes out now."""
        self._in_flight += 1
        self._calls += 1
        if self._told is not None:
            self._told.left -= 1
        gap = self._gap(now)
        self._waits_for_reset = False  # not before: the first call of a new window paces nobody
        if gap > 0:
            self._paced_until = max(self._paced_until, now) + gap
            if self._told is not None:  # what is left then does not depend on now
                self._paced_until = min(self._paced_until, self._told.resets_at)

    def answered(self, now: float, limits: RateLimits | None = None) -> None:
        """Count an answer; learn from what its headers say."""
        self._ended(now)
        self._is_learning = self._was_refused = False
        if limits is not None:
            self._learn(now, limits)

    def give_back(self) -> None:
        """Take back a call that did not go out after all."""
        self._in_flight -= 1
        if self._told is not None:
            self._told.left += 1

    def failed(self, now: float) -> None:
        """Count a call that met no answer: the server may have counted it."""
        self._ended(now)

    def refused(self, now: float, seconds: float) -> None:
        """Count a 429: nobody calls for so many seconds, and then one goes first."""
        self._ended(now)
        self._paused_until = max(self._paused_until, now + seconds)
        self._told = None
        self._is_learning = self._was_refused = True

    # --- Rules

    def _look_at_the_clock(self, now: float) -> None:
        for window in self._windows:
            window.forget(now)
        if self._told is not None and now >= self._told.resets_at:
            self._told = None
            self._is_learning = self._waits_for_reset = True

    def _ended(self, now: float) -> None:
        self._in_flight -= 1
        for window in self._windows:
            window.add(now)

    def _is_told(self, window: _Window) -> bool:
        """Whether the server's own account replaces ours of this window.

        When the server's window has just begun anew, ours, which looks back, may still be full:
        the first call goes out on the server's word.
        """
        if self._told is None:
            return self._waits_for_reset and window.seconds == _MINUTE
        return self._told.limit == window.limit

    def _reserve(self, limit: int, urgency: Urgency) -> int:
        if urgency is Urgency.INITIATE:
            return 0
        return min(math.ceil(limit * self._reserve_share), limit - 1)

    def _kept(self, told: _Told, now: float, urgency: Urgency) -> int:
        """How many of the server's calls are not for this one: reserved, or likely taken by others.

        The reserve shrinks as the window nears its end. Others may ask at this very moment; the
        last calls of a window are left to them.
        """
        share = min((told.resets_at - now) / _MINUTE, 1.0)
        reserve = math.ceil(self._reserve(told.limit, urgency) * share)
        margin = _OTHERS_MARGIN if told.others_per_second > 0 else 0
        return min(reserve + margin, told.limit - 1)

    def _gap(self, now: float) -> float:
        """How long the next background call is to stay away from this one."""
        gaps = [0.0]
        in_flight = self._in_flight
        for window in self._windows:
            if window.seconds <= _PACED_SECONDS_MAX and not self._is_told(window):
                left = window.limit - self._reserve(window.limit, Urgency.LOOK)
                left -= window.used + in_flight
                evenly = window.seconds / window.limit
                until_more = window.seconds_to_more(now) / max(left, 1)
                # What an hour has left is plenty while it is some minutes' worth.
                minutes_worth = left * evenly / _MINUTE
                gaps.append(max(evenly, until_more) * _scarcity(minutes_worth))
        told = self._told
        if told is not None:
            seconds = max(told.resets_at - now, 0.0)
            others = _OTHERS_SHARE * told.others_per_second * seconds
            ours = told.left - self._kept(told, now, Urgency.LOOK) - others
            if seconds <= _PACED_SECONDS_MAX + _RESET_MARGIN_SECONDS:
                gaps.append(seconds / max(ours, 1.0) * _scarcity(ours / told.limit))
        return max(gaps)

    def _learn(self, now: float, limits: RateLimits) -> None:
        told = _Told(
            limit=limits.limit,
            left=limits.remaining - self._in_flight,
            resets_at=now + max(limits.reset_seconds, 0.0) + _RESET_MARGIN_SECONDS,
            told_at=now,
            remaining=limits.remaining,
            calls=self._calls,
            in_flight=self._in_flight,
        )
        old, self._told = self._told, told
        if old is None or old.limit != told.limit:
            return
        told.others_per_second = old.others_per_second
        if abs(old.resets_at - told.resets_at) >= _SAME_RESET_SECONDS:
            return
        # Answers may overtake each other: within one window less is left, never more.
        told.resets_at = min(told.resets_at, old.resets_at)
        told.left = min(told.left, old.left)
        elapsed = now - old.told_at
        ours = told.calls - old.calls + old.in_flight
        theirs = max(old.remaining - told.remaining - ours, 0)
        if elapsed > 0:
            weight = -math.expm1(-elapsed / _OTHERS_MEMORY_SECONDS)
            rate = theirs / elapsed
            told.others_per_second += weight * (rate - old.others_per_second)


def _scarcity(share: float) -> float:
    """Return 0 while enough is left, and rise to 1 where nothing is."""
    return min(max(1 - share / _FREE_SHARE, 0.0), 1.0)
