"""Following payments to their end: one poll for each, however many callers wait for it."""

from __future__ import annotations

import math
import random
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final

import attrs

from ._discreet import quoted
from ._hearsay import Hearsay, News, is_settled
from ._log import say
from ._observer import NOBODY, Operation
from ._quota import Urgency
from ._retry import Poll, Polling, RetryCallState, StopStrategy, WaitStrategy
from ._schedule import LATE_TRUTH_AGE_SECONDS
from ._tasks import Signal
from ._wire import date_of, worth_repeating
from .exceptions import (
    APIError,
    ClientStateError,
    NotFoundError,
    PaymentStillPending,
    PayNexusError,
)
from .models import Expectation, Payment, PaymentRevision, PaymentUpdate
from .status import Change, PaymentStatus, advance

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from ._agenda import Agenda
    from ._budget import Budget
    from ._experience import Experience
    from ._observer import Observer
    from ._schedule import Schedule, Survival
    from ._tasks import OwnedTasks

__all__ = ["Followers", "Terms"]

_PAYMENTS_REMEMBERED_MAX: Final = 10_000
_NOT_FOUND_FORGIVEN_SECONDS: Final = 30.0
_AGE_SECONDS_MAX: Final = 86_400.0
_WORD_CHARACTERS_MAX: Final = 40
# The last look comes so long before the deadline that its answer arrives in time, and not so soon
# after the one before that it could tell nothing new.
_LAST_LOOK_SECONDS: Final = 1.0
_HEARD_WITHIN_SECONDS: Final = 3.0


@attrs.frozen(kw_only=True)
class Terms:
    """How one caller wants a payment to be followed.

    Attributes:
        deadline: when to give up, on the event loop's clock.
        revisions_seconds: how long to go on after an end without money, for late truth.
        wait: a strategy that replaces the schedule; `None` for the schedule.
        stop: a strategy that ends the waiting early.
        told: hears of each look and each change.
    """

    deadline: float
    revisions_seconds: float = 0.0
    wait: WaitStrategy | None = None
    stop: StopStrategy | None = None
    told: Operation = NOBODY


class _Subscription:
    """One caller's view of a payment being followed."""

    __slots__ = (
        "_settled",
        "at",
        "attempts_before",
        "ended",
        "error",
        "follower",
        "over",
        "signal",
        "terms",
    )

    def __init__(self, terms: Terms, follower: _Follower) -> None:
        self.terms = terms
        self.follower = follower
        self.attempts_before = follower.attempts
        self.at = math.inf  # its deadline, in the agenda
        self.over = False
        self.error: Exception | None = None
        self.ended: Payment | None = None
        self._settled = False
        self.signal = Signal()

    def push(self, update: PaymentUpdate) -> None:
        """Tell the caller, who waits for the end only."""
        self.terms.told.changed(update)
        if update.payment.is_terminal:
            self.ended = update.payment

    def end(self, error: Exception | None = None) -> None:
        """Tell the caller that nothing more comes."""
        self.over, self.error = True, error
        self.signal.set()

    def end_if_settled(self, payment: Payment, now: float) -> None:
        """End when the payment has, and the time for late truth is over."""
        if payment.is_terminal and not self._settled:
            self._settled = True
            if self.terms.revisions_seconds > 0:
                self.follower.remind(self, now + self.terms.revisions_seconds)
            else:
                self.end()
        if payment.succeeded:
            self.end()

    def due(self, _: float) -> None:
        """End at the deadline."""
        self.end()
        self.leave()

    def leave(self) -> None:
        """Go."""
        self.follower.leave(self)

    def pending(self) -> PaymentStillPending:
        """Build the error of a wait that is over before the payment is."""
        return self.follower.pending(self.attempts_before)


class _Told(_Subscription):
    """The view of a caller who has no task, and is told of the end."""

    __slots__ = ("_tell",)

    def __init__(
        self, terms: Terms, follower: _Follower, tell: Callable[[Payment | PayNexusError], None]
    ) -> None:
        super().__init__(terms, follower)
        self._tell = tell

    def end(self, error: Exception | None = None) -> None:
        """Tell the end."""
        if self.over:
            return
        self.over = True
        if self.ended is not None:
            self._tell(self.ended)
        elif isinstance(error, PayNexusError):
            self._tell(error)
        else:
            self._tell(self.pending())

    def leave(self) -> None:
        """Go without being told."""
        self.over = True
        super().leave()


class _Watch(_Subscription):
    """The view of a caller who wants each change."""

    __slots__ = ("_updates",)

    def __init__(self, terms: Terms, follower: _Follower) -> None:
        super().__init__(terms, follower)
        self._updates: deque[PaymentUpdate] = deque()

    def push(self, update: PaymentUpdate) -> None:
        """Tell the caller."""
        self._updates.append(update)
        self.signal.set()

    async def next(self) -> PaymentUpdate | None:
        """Wait for the next update; `None` after the last."""
        while not self._updates and not self.over:
            self.signal = Signal()
            await self.signal
        if self._updates:
            return self._updates.popleft()
        if self.error is not None:
            raise self.error
        return None


class _Follower:
    """All that is known of one payment, and the loop that finds out more while somebody waits."""

    __slots__ = (
        "_born_at",
        "_group",
        "_is_looking",
        "_looked_at",
        "_missed_at",
        "_news",
        "_poll",
        "at",
        "attempts",
        "expected",
        "initiated_at",
        "known",
        "last_error",
        "requested_at",
        "subscriptions",
    )

    def __init__(self, expected: Expectation, group: Followers) -> None:
        self.expected = expected
        self.known: Payment | None = None
        self.attempts = 0
        self.last_error: APIError | None = None
        self.initiated_at: float | None = None
        self.subscriptions: tuple[_Subscription, ...] = ()
        self.at = math.inf  # its next look, in the agenda
        self.requested_at: float | None = None  # while that look waits for its permit
        self._group = group
        self._born_at: float | None = None
        self._looked_at: float | None = None
        self._is_looking = False
        self._poll: Poll | None = None
        self._news: News | None = None
        self._missed_at: float | None = None  # when its end was seen, of which nothing was heard

    @property
    def is_followed(self) -> bool:
        """Whether somebody waits for it."""
        return self._poll is not None

    # --- What is known

    def initiated(self, at: float, now: float) -> None:
        """Note when this client sent the prompt: that tells the age. It is seen now."""
        self.initiated_at = self._born_at = at
        self._looked_at = now

    def observe(self, observed: Payment, now: float, *, is_answer: bool = True) -> Payment:
        """Merge what an answer tells, tell it to everybody who waits, and return what holds.

        Args:
            observed: the payment.
            now: on the event loop's clock.
            is_answer: whether the server tells it now; somebody may also bring it.
        """
        if self._born_at is None and (age := _age_by_the_server(observed)) is not None:
            self._born_at = now - age
        previous = self.known
        if previous is None:
            merged, change = observed, Change.ADVANCED
        else:
            merged, change = previous.merge(observed)
        self._log(previous, observed, change)
        # The answer's bytes go to whoever asked; keeping them would cost memory for nothing.
        self.known = attrs.evolve(merged, response=None)
        if change in {Change.ADVANCED, Change.REVISED}:
            kind = PaymentRevision if change is Change.REVISED else PaymentUpdate
            before = None if previous is None else previous.status
            update = kind(payment=merged, previous=before, attempts=self.attempts)
            for subscription in self.subscriptions:
                subscription.push(update)
            if is_answer:
                age = None if self._born_at is None else now - self._born_at
                self._group.observer.changed(update, age)
        self._drop_settled(now)
        return merged

    def _log(self, previous: Payment | None, observed: Payment, change: Change) -> None:
        payment, status = self.expected.label, observed.status
        before = None if previous is None else previous.status
        if change is Change.ADVANCED and status is PaymentStatus.UNDOCUMENTED:
            say("payment.undocumented", payment=payment, status_text=_word(observed))
        elif change is Change.ADVANCED:
            say("payment.changed", payment=payment, status=status, previous_status=before)
        elif change is Change.REVISED:
            say("payment.revised", payment=payment, status=status, previous_status=before)
        elif change is Change.CONFLICTING:
            say("payment.contradicted", payment=payment, status=before, answered_status=status)

    def pending(self, attempts_before: int) -> PaymentStillPending:
        """Build the error of a wait that is over before the payment is."""
        state = "not seen yet" if self.known is None else f"still {_word(self.known)}"
        looks = self.attempts - attempts_before
        trouble = f"; the last one met: {self.last_error.message}" if self.last_error else ""
        msg = (
            f"payment {self.expected.label} is {state} after {looks} status "
            f"{'call' if looks == 1 else 'calls'}{trouble}. "
            "It has not failed: the customer may still pay; wait again, or ask later"
        )
        return PaymentStillPending(
            msg,
            reference=self.expected.key,
            payment=self.known,
            attempts=looks,
            last_error=self.last_error,
        )

    # --- Who waits

    def subscribe(self, subscription: _Subscription) -> None:
        """Let one more caller wait; the first one begins the poll."""
        self._group.agenda().put(subscription, subscription.terms.deadline)
        self._join(subscription)

    def _join(self, subscription: _Subscription) -> None:
        now = self._group.now()
        self.subscriptions += (subscription,)
        if self._poll is None:
            self._poll = Poll(now)
            self._group.keep(self)
        self._look_by(now + self._seconds_to_first_look(subscription.terms, now))

    def unite(self, other: _Follower) -> None:
        """Become one with what is known, and waited for, by the payment's other name."""
        now, before = self._group.now(), None if other.known is None else other.known.status
        looked_at = [at for at in (self._looked_at, other._looked_at) if at is not None]
        self._looked_at = max(looked_at, default=None)
        if self._born_at is None:
            self._born_at = other._born_at
        self.expected = self.expected.completed(other.expected)
        moved, other.subscriptions = other.subscriptions, ()
        other._halt()
        for subscription in self.subscriptions:
            subscription.attempts_before += other.attempts
        for subscription in moved:
            subscription.attempts_before += self.attempts
            subscription.follower = self
        self.attempts += other.attempts
        if other.known is not None:
            self.observe(other.known, now, is_answer=False)
        update = self._update_since(before)
        for subscription in moved:
            if update is not None:
                subscription.push(update)
            self._join(subscription)
        if other._news is not None and other._news.is_open:
            self.hear(other._news.claim)
        self._drop_settled(now)

    def _update_since(self, before: PaymentStatus | None) -> PaymentUpdate | None:
        """What is news to somebody who has last heard of this status."""
        if self.known is None:
            return None
        change = Change.ADVANCED if before is None else advance(before, self.known.status)[1]
        if change not in {Change.ADVANCED, Change.REVISED}:
            return None
        kind = PaymentRevision if change is Change.REVISED else PaymentUpdate
        return kind(payment=self.known, previous=before, attempts=self.attempts)

    def leave(self, subscription: _Subscription) -> None:
        """Let one caller go; the last one ends the poll."""
        self._group.agenda().drop(subscription)
        self.subscriptions = tuple(s for s in self.subscriptions if s is not subscription)
        if not self.subscriptions:
            self._stop_polling()

    def remind(self, subscription: _Subscription, moment: float) -> None:
        """Give a caller another deadline."""
        self._group.agenda().put(subscription, moment)

    def end(self, error: Exception | None) -> None:
        """Let all callers go."""
        for subscription in self.subscriptions:
            self._group.agenda().drop(subscription)
            subscription.end(error)
        self.subscriptions = ()
        self._stop_polling()

    def _stop_polling(self) -> None:
        if self._poll is not None:
            self._halt()
            self._group.release(self)

    def _halt(self) -> None:
        self._poll = None
        self.requested_at = None
        self._group.agenda().drop(self)

    def _look_by(self, moment: float) -> None:
        """Look at this time, unless a look is due earlier or on its way."""
        if not self._is_looking and self.requested_at is None and moment < self.at:
            self._group.agenda().put(self, moment)

    # --- What is heard

    @property
    def is_heard_of(self) -> bool:
        """Whether there is news of its end that no look has settled."""
        return self._news is not None and self._news.is_open

    def hear(self, claim: PaymentStatus | None) -> None:
        """Take news of its end as a reason to look.

        Args:
            claim: the status that the news tells; `None` if it tells none.
        """
        now = self._group.now()
        if self._missed_at is not None:
            self._group.hearsay.came_after_all(now - self._missed_at)
            self._missed_at = None
        if self.known is not None and is_settled(claim, self.known.status):
            return
        if self._news is None:
            self._news = News()
        self._news.heard(claim)
        if self._poll is None or self._is_looking:
            return  # heeded by the first look, or after this one
        seconds = self._news.seconds_to_look(now)
        if seconds <= 0 and self.requested_at is not None:
            self._group.budget.request(self)  # again: now it goes before the others
        else:
            self._look_by(now + seconds)

    def _seconds_to_heed(self, now: float) -> float:
        return math.inf if self._news is None else self._news.seconds_to_look(now)

    def _heed(self, found: PaymentStatus | None, *, was_open: bool) -> None:
        """Note what a look has found, and learn how far news can be relied on.

        Args:
            found: the status that holds; `None` if the look met an error.
            was_open: whether the payment was known, and had not ended.
        """
        if was_open and found is not None and found.is_terminal:
            self._group.hearsay.ended(heard=self.is_heard_of)
            self._missed_at = None if self.is_heard_of else self._group.now()
        if self._news is not None and self._news.is_open and self._looked_at is not None:
            self._news.looked(self._looked_at, found)

    def _drop_settled(self, now: float) -> None:
        if self.known is None or not self.known.is_terminal:
            return
        for subscription in self.subscriptions:
            subscription.end_if_settled(self.known, now)
            if subscription.over:
                self._group.agenda().drop(subscription)
        self.subscriptions = tuple(s for s in self.subscriptions if not s.over)
        if not self.subscriptions:
            self._stop_polling()

    # --- The loop: due, permitted, looked, and due again when tenacity and the schedule say so

    @property
    def age_seen(self) -> float:
        """How old the payment was at the last look; negative before the first one."""
        if self._looked_at is None:
            return -1.0
        if self.known is not None and self.known.is_terminal:
            return LATE_TRUTH_AGE_SECONDS  # what may come now is rare, and slow
        return 0.0 if self._born_at is None else max(self._looked_at - self._born_at, 0.0)

    def worth(self, now: float) -> float:
        """Return the seconds of ignorance that a look would end."""
        schedule = self._group.schedule
        if self._looked_at is None:  # it may have ended long ago
            return schedule.price + now - (now if self.requested_at is None else self.requested_at)
        age = self.age_seen
        return schedule.value(age, age + now - self._looked_at)

    def due(self, _: float) -> None:
        """Ask for the permit to look."""
        self._group.budget.request(self)

    def permitted(self) -> None:
        """Look, in a task that lives as long as the look."""
        self._is_looking = True
        self._group.tasks().start(self._look)

    async def _look(self) -> None:
        if self._poll is None:  # everybody left before this task had its first turn
            self._is_looking = False
            self._group.budget.give_back(Urgency.LOOK)
            return
        outcome: bool | Exception
        try:
            outcome = await self._ask()
        except Exception as error:  # noqa: BLE001  # what it means is decided below
            outcome = error
        finally:
            self._is_looking = False
        if self._poll is None:  # everybody has left
            return
        try:
            pause = await self._group.polling.after(self, self._poll, outcome)
        except Exception as error:  # noqa: BLE001  # a caller's own strategy may raise anything
            self.end(error)
        else:
            if pause is None:
                self.end(None)
            else:
                self._look_by(self._group.now() + pause)

    async def _ask(self) -> bool:
        self.attempts += 1
        seen_open_at, is_heeding = self.age_seen, self.is_heard_of
        self._looked_at = self._group.now()
        try:
            observed = await self._answer()
        except APIError as error:
            self.last_error = error
            if is_heeding:
                self._heed(None, was_open=True)
            raise
        self.last_error = None
        was_open = self.known is not None and not self.known.is_terminal
        merged = self._group.observe(observed, asker=self)
        was_heard_of = self.is_heard_of
        if is_heeding or merged.is_terminal:  # what came meanwhile is worth a look of its own
            self._heed(merged.status, was_open=was_open)
        if self._born_at is None:
            self._born_at = self._looked_at
        elif was_open and merged.is_terminal and seen_open_at >= 0:
            by = max(self._looked_at - self._born_at, 0.0)
            if was_heard_of:  # what is heard of has ended just before, and not at any time
                seen_open_at = max(seen_open_at, by - _HEARD_WITHIN_SECONDS)
            self._group.ended(seen_open_at, by)
        return bool(self.subscriptions)

    async def _answer(self) -> Payment:
        """Make a status call, and tell those who wait what came of it."""
        try:
            observed = await self._group.ask(self.expected)
        except PayNexusError as error:
            self._tell_of_look(error)
            raise
        self._tell_of_look(observed)
        return observed

    def _tell_of_look(self, found: Payment | PayNexusError) -> None:
        for subscription in self.subscriptions:
            looks = self.attempts - subscription.attempts_before
            subscription.terms.told.looked(looks, found)

    def absorb(self, error: BaseException) -> bool:
        """Whether to go on after an error: after those that may pass by themselves."""
        if isinstance(error, NotFoundError) and self.initiated_at is not None:
            # A payment just initiated may not have reached the server's reading side yet.
            age = self._group.now() - self.initiated_at
            return age <= _NOT_FOUND_FORGIVEN_SECONDS
        return worth_repeating(error)

    def stop(self, state: RetryCallState) -> bool:
        """Let go whoever's own strategy says so; return whether nobody is left."""
        for subscription in self.subscriptions:
            if subscription.terms.stop is not None and subscription.terms.stop(state):
                subscription.end()
                self.leave(subscription)
        return not self.subscriptions

    def wait(self, state: RetryCallState) -> float:
        """Return the seconds until the first of the callers, or news, wants the next look."""
        seconds = min(self._seconds_for(s, state) for s in self.subscriptions)
        return min(seconds, self._seconds_to_heed(self._group.now()))

    def _seconds_for(self, subscription: _Subscription, state: RetryCallState) -> float:
        terms = subscription.terms
        if terms.wait is not None:
            pause = terms.wait(state)
            return float(pause) if isinstance(pause, int | float) else pause.total_seconds()
        now = self._group.now()
        seconds = self._scheduled_seconds(now)
        # Whoever gives up acts on what was last seen: one more look just before, if it can tell
        # something new.
        last = subscription.at - _LAST_LOOK_SECONDS - now
        return last if _LAST_LOOK_SECONDS <= last < seconds else seconds

    def _seconds_to_first_look(self, terms: Terms, now: float) -> float:
        """Look at once, unless this client has just seen the payment and follows its schedule."""
        if self._looked_at is None or terms.wait is not None:
            return 0.0
        due_at = self._looked_at + self._scheduled_seconds(self._looked_at)
        last_at = terms.deadline - _LAST_LOOK_SECONDS
        if max(self._looked_at + _LAST_LOOK_SECONDS, now) <= last_at < due_at:
            due_at = last_at  # as between two looks: nobody gives up without one
        return min(max(due_at - now, 0.0), self._seconds_to_heed(now))

    def _scheduled_seconds(self, looked_at: float) -> float:
        """Ask the schedule, for the payment's age at its last look."""
        age = 0.0 if self._born_at is None else max(looked_at - self._born_at, 0.0)
        if self.known is not None and self.known.is_terminal:
            age = max(age, LATE_TRUTH_AGE_SECONDS)
        jitter = random.random()  # noqa: S311  # nosec B311  # not a secret
        return self._group.schedule.seconds_to_next_look(
            age, jitter, is_safety_net=self._group.hearsay.is_reliable
        )


def _word(payment: Payment) -> str:
    return quoted(payment.status_text[:_WORD_CHARACTERS_MAX])


def _age_by_the_server(payment: Payment) -> float | None:
    """How old the payment was when the server answered, in seconds, by the server's own clock."""
    if payment.created_at is None or payment.response is None:
        return None
    answered_at = date_of(payment.response.headers.get("date", ""))
    if answered_at is None:
        return None
    age = (answered_at - payment.created_at).total_seconds()
    return min(max(age, 0.0), _AGE_SECONDS_MAX)


class Followers:
    """The payments that one client has seen, and those it follows."""

    def __init__(
        self,
        *,
        ask: Callable[[Expectation], Awaitable[Payment]],
        now: Callable[[], float],
        tasks: Callable[[], OwnedTasks],
        agenda: Callable[[], Agenda],
        budget: Budget,
        schedule: Schedule,
        experience: Experience,
        learn: bool,
        observer: Observer,
    ) -> None:
        """Know no payment.

        Args:
            ask: makes one status call, for which a permit is there.
            now: the event loop's clock.
            tasks: the client's tasks on the running event loop.
            agenda: the client's agenda there.
            budget: gives each look its permit.
            schedule: when to look next.
            experience: what is known of the customers.
            learn: whether more is to be learned.
            observer: hears of each change that an answer tells.
        """
        self.ask = ask
        self.now = now
        self.tasks = tasks
        self.agenda = agenda
        self.budget = budget
        self.schedule = schedule
        self.experience = experience
        self.hearsay = Hearsay()
        self.observer = observer
        self._learns = learn
        self._believe(experience.news())
        self.polling: Final = Polling(
            absorb=_Follower.absorb, wait=_Follower.wait, stop=_Follower.stop
        )
        self._followed: dict[str, _Follower] = {}
        self._remembered: OrderedDict[str, _Follower] = OrderedDict()

    def observe(self, payment: Payment, asker: _Follower | None = None) -> Payment:
        """Merge an answer, from wherever it came, into what is known; return what holds.

        Args:
            payment: as the server tells it.
            asker: who has asked, if it was a look.

        Raises:
            PaymentMismatchError: if it contradicts what this client knows to have been asked.
        """
        follower = self._follower(Expectation.of(payment))
        if asker is not None and asker.is_followed:  # by itself still
            follower = asker
        follower.expected.check(payment)
        return follower.observe(payment, self.now())

    def completed(self, expected: Expectation) -> Expectation:
        """Add what is known of a payment to what its answer must agree with.

        Whoever brings a payment knows better than answers; whoever has sent its prompt knows best.
        """
        follower = next(iter(self._known_by(expected.names)), None)
        if follower is None:
            return expected
        if follower.initiated_at is not None:
            return follower.expected.completed(expected)
        return expected.completed(follower.expected)

    def ended(self, after: float, by: float) -> None:
        """Learn that a payment ended between two ages."""
        if self._learns:
            self.experience.ended(after, by)
            self._believe(self.experience.news())

    def _believe(self, survival: Survival | None) -> None:
        if survival is not None:
            self.schedule = attrs.evolve(self.schedule, survival=survival)

    def initiated(self, payment: Payment) -> None:
        """Note a payment that this client has just initiated."""
        self.sent(Expectation.of(payment)).observe(payment, self.now())

    def sent(self, expected: Expectation, at: float | None = None) -> _Follower:
        """Note a prompt that this client has sent, and what its payment is to be.

        Args:
            expected: what was asked, and the payment's names.
            at: when, on the event loop's clock, if not just now.
        """
        follower, now = self._follower(expected), self.now()
        follower.initiated(now if at is None else at, now)
        return follower

    def knows(self, payment: Payment) -> bool:
        """Whether this client has seen a payment before."""
        return bool(self._known_by(Expectation.of(payment).names))

    def latest(self, payment: Payment) -> Payment:
        """Return what holds of a payment by now: an answer that came later may have told more."""
        follower = next(iter(self._known_by(Expectation.of(payment).names)), None)
        known = None if follower is None else follower.known
        return payment if known is None else known.merge(payment)[0]

    def hear(self, names: tuple[str, ...], claim: PaymentStatus | None) -> bool:
        """Take news of a payment; nothing in it is believed.

        Args:
            names: by which the news calls it.
            claim: the status that the news tells; `None` if it tells none.

        Returns:
            Whether somebody waits for the payment.
        """
        known = self._known_by(names)
        if claim is None or claim.is_terminal or claim is PaymentStatus.UNDOCUMENTED:
            for follower in known:
                follower.hear(claim)
            if not known:
                self.hearsay.keep(names)
        return any(follower.is_followed for follower in known)

    def waiters(self) -> int:
        """Count those who wait for a payment; from any thread."""
        followed = set(self._followed.values())  # one step: nothing changes meanwhile
        return sum(len(follower.subscriptions) for follower in followed)

    async def wait(self, expected: Expectation, known: Payment | None, terms: Terms) -> Payment:
        """Wait until the payment has ended.

        Raises:
            PaymentStillPending: at the deadline, or when the caller's strategy stops.
            PayNexusError: whatever ends the following.
        """
        follower = self._meet(expected, known)
        if follower.known is not None and follower.known.is_terminal:
            return follower.known
        subscription = _Subscription(terms, follower)
        follower.subscribe(subscription)
        try:
            await subscription.signal
        finally:
            subscription.leave()
        if subscription.error is not None:
            raise subscription.error
        if subscription.ended is None:
            raise subscription.pending()
        return subscription.ended

    def tell(
        self,
        expected: Expectation,
        known: Payment | None,
        terms: Terms,
        tell: Callable[[Payment | PayNexusError], None],
    ) -> _Told | None:
        """Follow a payment, and call *tell* with its end, or with the error that `wait` raises.

        Returns:
            What may leave early; `None` if the payment has ended and *tell* has been called.
        """
        follower = self._meet(expected, known)
        if follower.known is not None and follower.known.is_terminal:
            tell(follower.known)
            return None
        subscription = _Told(terms, follower, tell)
        follower.subscribe(subscription)
        return subscription

    async def watch(
        self, expected: Expectation, known: Payment | None, terms: Terms
    ) -> AsyncGenerator[PaymentUpdate, None]:
        """Yield the payment as it stands, if it is known, and then each of its changes.

        Raises:
            PaymentStillPending: at the deadline, or when the caller's strategy stops.
            PayNexusError: whatever ends the following.
        """
        follower = self._meet(expected, known)
        seen = follower.known
        ended = seen is not None and seen.is_terminal
        if seen is not None and (seen.succeeded or (ended and terms.revisions_seconds <= 0)):
            yield PaymentUpdate(payment=seen, previous=None, attempts=follower.attempts)
            return
        subscription = _Watch(terms, follower)
        follower.subscribe(subscription)
        try:
            if seen is not None:
                subscription.end_if_settled(seen, self.now())
                yield PaymentUpdate(payment=seen, previous=None, attempts=follower.attempts)
            while (update := await subscription.next()) is not None:
                ended = update.payment.is_terminal
                yield update
        finally:
            subscription.leave()
        if not ended:
            raise subscription.pending()

    def keep(self, follower: _Follower) -> None:
        """Do not forget a payment while somebody waits for it."""
        for name in follower.expected.names:
            self._remembered.pop(name, None)
            self._followed.setdefault(name, follower)

    def release(self, follower: _Follower) -> None:
        """Remember a payment among others, until there are too many."""
        for name in follower.expected.names:
            if self._followed.get(name, follower) is follower:  # not somebody else's by now
                self._followed.pop(name, None)
                self._remember(name, follower)

    def close(self) -> None:
        """Let all callers go: the client is being closed."""
        for follower in tuple(self._followed.values()):
            follower.end(self.left(follower.expected))

    @staticmethod
    def left(expected: Expectation) -> ClientStateError:
        """Build the error of a wait that ended because the client was closed."""
        return ClientStateError(
            f"the client was closed while payment {expected.label} was waited for; "
            "it has not failed: ask for it again"
        )

    def _meet(self, expected: Expectation, known: Payment | None) -> _Follower:
        follower = self._follower(expected)
        if known is not None:
            follower.expected = self.completed(expected)
        if follower.known is not None:  # perhaps told to somebody who knew the name only
            follower.expected.check(follower.known)
        if known is not None and (follower.known is None or known.is_terminal):
            follower.observe(known, self.now(), is_answer=False)
        return follower

    def _follower(self, expected: Expectation) -> _Follower:
        """Find the payment by either of its names, or begin to know it.

        Its names may have been followed apart, by callers who knew one each.
        """
        known = self._known_by(expected.names)
        if not known:
            follower = _Follower(expected, self)
            self.release(follower)
            if self.hearsay.take(expected.names):
                follower.hear(None)
            return follower
        # Whose callers brought something else is left to find out by itself.
        agreeing = [one for one in known if one.expected.agrees_with(expected)] or known[:1]
        follower, *others = agreeing
        for other in others:
            if follower.expected.agrees_with(other.expected):
                follower = self._united(follower, other)
        follower.expected = follower.expected.completed(expected)
        if follower.is_followed:
            self.keep(follower)
        else:
            self.release(follower)
        return follower

    def _known_by(self, names: tuple[str, ...]) -> list[_Follower]:
        known: list[_Follower] = []
        for name in names:
            follower = self._followed.get(name) or self._remembered.get(name)
            if follower is not None and follower not in known:
                known.append(follower)
        return known

    def _united(self, one: _Follower, other: _Follower) -> _Follower:
        if one.initiated_at is None and other.initiated_at is not None:
            one, other = other, one  # whoever has sent the prompt knows best
        for name in other.expected.names:
            for place in (self._followed, self._remembered):
                if place.get(name) is other:
                    del place[name]
        one.unite(other)
        return one

    def _remember(self, name: str, follower: _Follower) -> None:
        self._remembered[name] = follower
        self._remembered.move_to_end(name)
        if len(self._remembered) > 2 * _PAYMENTS_REMEMBERED_MAX:
            self._remembered.popitem(last=False)
