"""Who may call next: every call of a client passes here, and takes the place of another one.

Two things are scarce: the key's calls (`_quota`) and the connections. Whoever finds both free goes
at once. Otherwise payments that begin go first, then single calls in their order, then the look for
which there is news, then the one that ends the most ignorance, then bulk checks. Nobody starves: a
look or a bulk check that has waited for half a minute goes before all others but those with news,
oldest first; with n of them waiting and r calls a second, none waits for longer than 30 s + n / r,
and a call for each payment that was heard of meanwhile.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

import anyio

from ._quota import Urgency
from ._tasks import Signal
from .exceptions import QuotaExhaustedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._agenda import Agenda
    from ._quota import Quota
    from ._wire import RateLimits

__all__ = ["Budget", "Look"]

STARVING_SECONDS: Final = 30.0
_NEWS_SHELF: Final = -2


class Look(Protocol):
    """A look at a payment that waits for its permit.

    Attributes:
        requested_at: since when; `None` when it does not wait.
    """

    requested_at: float | None

    @property
    def age_seen(self) -> float:
        """How old the payment was when it was last seen; negative if it never was."""
        ...

    @property
    def is_heard_of(self) -> bool:
        """Whether there is news that only a look confirms."""
        ...

    def worth(self, now: float) -> float:
        """Return the payment-seconds of ignorance that it would end now."""
        ...

    def permitted(self) -> None:
        """Go: a call is taken, and a connection."""
        ...


class _Ticket:
    """A caller who waits."""

    __slots__ = ("granted", "requested_at", "signal", "waiting")

    def __init__(self, now: float) -> None:
        self.requested_at = now
        self.waiting = True
        self.granted = False
        self.signal = Signal()

    def settle(self, *, granted: bool) -> None:
        """Let the caller go on, with a permit or without."""
        self.waiting, self.granted = False, granted
        self.signal.set()


class _Looks:
    """The looks that wait, the most valuable one at hand.

    What a look is worth changes by the second, and differently for each. But of two payments that
    were last seen at about the same age, the one seen longer ago is always worth more: so they
    stand in about twenty queues by that age, and only the first of each is compared. Those with
    news have a queue of their own.
    """

    def __init__(self) -> None:
        self._queues: dict[int, deque[tuple[float, Look]]] = {}

    def add(self, look: Look, now: float) -> None:
        look.requested_at = now
        shelf = _NEWS_SHELF if look.is_heard_of else _shelf(look.age_seen)
        self._queues.setdefault(shelf, deque()).append((now, look))

    @property
    def may_wait(self) -> bool:
        """Whether there may be one."""
        return bool(self._queues)

    def first(self, now: float) -> Look | None:
        """Return the look to grant next: with news, or starving, or else the most valuable."""
        best: Look | None = None
        oldest, most = now - STARVING_SECONDS, -math.inf
        for shelf, look in self._heads():
            if shelf == _NEWS_SHELF:
                return look
            since = look.requested_at
            if since is not None and since <= oldest:
                best, oldest, most = look, since, math.inf
            elif (worth := look.worth(now)) > most:
                best, most = look, worth
        return best

    def _heads(self) -> list[tuple[int, Look]]:
        heads = []
        for shelf, queue in list(self._queues.items()):
            while queue and queue[0][1].requested_at != queue[0][0]:
                queue.popleft()  # withdrawn meanwhile, or granted
            if queue:
                heads.append((shelf, queue[0][1]))
            else:
                del self._queues[shelf]
        return heads


def _shelf(age: float) -> int:
    return -1 if age < 0 else int(4 * math.log1p(age))


class _Lane:
    """Callers who share a quota and a number of connections."""

    def __init__(self, quota: Quota, connections: int) -> None:
        self.quota = quota
        self.free = connections
        self.looks = _Looks()
        self.callers: dict[Urgency, deque[_Ticket]] = {urgency: deque() for urgency in Urgency}
        self._queues = tuple(self.callers.values())

    def take(self, now: float) -> None:
        self.free -= 1
        self.quota.take(now)

    @property
    def is_idle(self) -> bool:
        """Whether it is certain that nobody waits."""
        return not (self.looks.may_wait or any(self._queues))

    def serve(self, now: float) -> float:
        """Grant what can be granted; return when the quota allows the next one."""
        while self.free > 0 and (following := self.next_in_line(now)) is not None:
            urgency, who = following
            ready_at = self.quota.ready_at(now, urgency)
            if ready_at > now:
                return ready_at
            self.take(now)
            if isinstance(who, _Ticket):
                who.settle(granted=True)
            else:
                who.requested_at = None
                who.permitted()
        return math.inf

    def next_in_line(self, now: float) -> tuple[Urgency, _Ticket | Look] | None:
        """Return whose turn it is, whether or not the quota allows it yet."""
        if self.is_idle:
            return None
        for urgency in (Urgency.INITIATE, Urgency.CALL):
            if (caller := self._first(urgency)) is not None:
                return urgency, caller
        bulk, look = self._first(Urgency.BULK), self.looks.first(now)
        if bulk is None:
            return None if look is None else (Urgency.LOOK, look)
        waits_since = math.inf if look is None or look.requested_at is None else look.requested_at
        starves = bulk.requested_at <= now - STARVING_SECONDS and not (look and look.is_heard_of)
        if look is None or (starves and bulk.requested_at < waits_since):
            return Urgency.BULK, bulk
        return Urgency.LOOK, look

    def _first(self, urgency: Urgency) -> _Ticket | None:
        queue = self.callers[urgency]
        while queue and not queue[0].waiting:
            queue.popleft()
        return queue[0] if queue else None


class Budget:
    """The calls of one client: who may make one, and when."""

    def __init__(
        self,
        *,
        reading: Quota,
        initiating: Quota,
        reads_max: int,
        initiates_max: int,
        now: Callable[[], float],
        agenda: Callable[[], Agenda],
    ) -> None:
        """Begin with nobody waiting.

        Args:
            reading: the quota of the key that reads.
            initiating: the quota of the key that initiates; the same object if it is the same key.
            reads_max: reads on their way at a time.
            initiates_max: initiates on their way at a time.
            now: the event loop's clock.
            agenda: the client's, on the running event loop.
        """
        self._reads = _Lane(reading, reads_max)
        self._initiates = _Lane(initiating, initiates_max)
        self._lanes = (self._initiates, self._reads)
        self._now = now
        self._agenda = agenda
        self._is_closed = False
        self.at = math.inf

    async def enter(self, urgency: Urgency, deadline: float) -> bool:
        """Wait for a permit; after True, `count` and `leave` must follow, and after False nothing.

        Raises:
            QuotaExhaustedError: if the quota allows no call before *deadline*.
        """
        if self._is_closed:  # who slept between two attempts comes after all others were sent away
            return False
        lane, now = self._lane(urgency), self._now()
        ready_at = lane.quota.ready_at(now, urgency)
        if ready_at <= now and lane.free > 0 and lane.next_in_line(now) is None:
            lane.take(now)
            return True
        # A deadline that has passed says nothing of the quota, where that allows a call at once.
        if max(deadline, now) < ready_at < math.inf:
            raise _exhausted(ready_at - now)
        ticket = _Ticket(now)
        lane.callers[urgency].append(ticket)
        self._serve(now)
        try:
            with anyio.CancelScope(deadline=deadline):
                await ticket.signal
        except BaseException:
            if ticket.granted:
                self.give_back(urgency)
            raise
        finally:
            ticket.waiting = False
        return ticket.granted

    def request(self, look: Look) -> None:
        """Queue a look: its `permitted` is called when it may go; `count` and `leave` follow that.

        It withdraws by setting its `requested_at` to `None`.
        """
        now = self._now()
        self._reads.looks.add(look, now)
        self._serve(now)

    def count(self, urgency: Urgency, answer: RateLimits | float | None, *, answered: bool) -> None:
        """Count a call whose end is known; it may have its connection yet.

        Args:
            urgency: what `enter` was given; `LOOK` after a look.
            answer: what the answer's headers say; seconds to pause, after a 429.
            answered: whether there was an answer at all.
        """
        lane, now = self._lane(urgency), self._now()
        if isinstance(answer, float):
            lane.quota.refused(now, answer)
        elif answered:
            lane.quota.answered(now, answer)
        else:
            lane.quota.failed(now)
        self._serve(now)

    def leave(self, urgency: Urgency) -> None:
        """Return a connection."""
        self._lane(urgency).free += 1
        self._serve(self._now())

    def give_back(self, urgency: Urgency) -> None:
        """Return a permit that was not used."""
        lane = self._lane(urgency)
        lane.free += 1
        lane.quota.give_back()
        self._serve(self._now())

    def calls_left(self) -> dict[str, int]:
        """Return the calls left to each key that was used, where that is known; from any thread."""
        if self._is_closed:
            return {}
        quotas = {"secret": self._initiates.quota}
        if self._reads.quota is not self._initiates.quota:
            quotas["public"] = self._reads.quota
        lefts = {kind: quota.left(self._now()) for kind, quota in quotas.items() if quota.is_used}
        return {kind: left for kind, left in lefts.items() if left is not None}

    def close(self) -> None:
        """Send away who waits, and whoever comes later."""
        self._is_closed = True
        for lane in self._lanes:
            for queue in lane.callers.values():
                for ticket in tuple(queue):
                    if ticket.waiting:
                        ticket.settle(granted=False)

    def due(self, now: float) -> None:
        """Go on where the quota had nothing left: the agenda calls this in time."""
        self._serve(now)

    def _lane(self, urgency: Urgency) -> _Lane:
        return self._initiates if urgency is Urgency.INITIATE else self._reads

    def _serve(self, now: float) -> None:
        """Grant what can be granted, and come back when the quota allows the next one."""
        at = math.inf
        for lane in self._lanes:
            if not lane.is_idle:
                at = min(at, lane.serve(now))
        if at < math.inf and at != self.at:
            self._agenda().put(self, at)


def _exhausted(seconds: float) -> QuotaExhaustedError:
    msg = (
        "the call quota of this key is spent, and nothing was sent: "
        f"the next call is possible in {math.ceil(seconds)} s"
    )
    return QuotaExhaustedError(msg, retry_after=seconds)
