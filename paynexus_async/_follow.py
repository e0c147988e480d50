"""Following payments to their end: one loop for each, however many callers wait for it."""

from __future__ import annotations

import logging
import random
from collections import OrderedDict, deque
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio
import attrs

from ._retry import RetryCallState, StopStrategy, WaitStrategy, poll
from ._schedule import LATE_TRUTH_AGE_SECONDS
from ._wire import worth_repeating
from .exceptions import (
    APIError,
    ClientStateError,
    NotFoundError,
    PaymentStillPending,
    RateLimitError,
)
from .models import Expectation, Payment, PaymentRevision, PaymentUpdate
from .phone import mask_phones
from .status import Change, PaymentStatus

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from ._budget import Budget
    from ._schedule import Schedule
    from ._tasks import OwnedTask, OwnedTasks

__all__ = ["Followers", "Terms"]

_logger: Final = logging.getLogger("paynexus_async")

_PAYMENTS_REMEMBERED_MAX: Final = 10_000
_NOT_FOUND_FORGIVEN_SECONDS: Final = 30.0
_PAUSE_AFTER_429_SECONDS: Final = 10.0  # where the server does not say
_AGE_SECONDS_MAX: Final = 86_400.0
_WORD_CHARACTERS_MAX: Final = 40
# The last look comes so long before the deadline that its answer arrives in time, and not so soon
# after the one before that it could tell nothing new.
_LAST_LOOK_SECONDS: Final = 1.0


@attrs.frozen(kw_only=True)
class Terms:
    """How one caller wants a payment to be followed.

    Attributes:
        deadline: when to give up, on the event loop's clock.
        revisions_seconds: how long to go on after an end without money, for late truth.
        wait: a strategy that replaces the schedule; `None` for the schedule.
        stop: a strategy that ends the waiting early.
    """

    deadline: float
    revisions_seconds: float = 0.0
    wait: WaitStrategy | None = None
    stop: StopStrategy | None = None


class _Subscription:
    """One caller's view of a payment being followed."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.over = False
        self.deadline = terms.deadline
        self._settled = False
        self._updates: deque[PaymentUpdate] = deque()
        self._error: Exception | None = None
        self._news = anyio.Event()

    def push(self, update: PaymentUpdate) -> None:
        """Tell the caller."""
        self._updates.append(update)
        self._news.set()

    def end(self, error: Exception | None = None) -> None:
        """Tell the caller that nothing more comes."""
        self.over, self._error = True, error
        self._news.set()

    def end_if_settled(self, payment: Payment, now: float) -> None:
        """End when the payment has, and the time for late truth is over."""
        if payment.is_terminal and not self._settled:
            self._settled, self.deadline = True, now + self.terms.revisions_seconds
        if payment.succeeded or (self._settled and self.deadline <= now):
            self.end()

    async def next(self) -> PaymentUpdate | None:
        """Wait for the next update; `None` after the last."""
        while not self._updates and not self.over:
            self._news = anyio.Event()
            await self._news.wait()
        if self._updates:
            return self._updates.popleft()
        if self._error is not None:
            raise self._error
        return None


class _Follower:
    """All that is known of one payment, and the loop that finds out more while somebody waits."""

    def __init__(self, expected: Expectation, group: Followers) -> None:
        self.expected = expected
        self.known: Payment | None = None
        self.attempts = 0
        self.last_error: APIError | None = None
        self.initiated_at: float | None = None
        self.subscriptions: list[_Subscription] = []
        self._group = group
        self._born_at: float | None = None
        self._looked_at: float | None = None
        self._task: OwnedTask | None = None
        self._generation = 0
        self._next_look_at = 0.0
        self._woken = anyio.Event()

    # --- What is known

    def initiated(self, now: float) -> None:
        """Note that this client sent the prompt, now: that tells the age, and counts as a look."""
        self.initiated_at = self._born_at = self._looked_at = now

    def observe(self, observed: Payment, now: float) -> Payment:
        """Merge what an answer tells, tell it to everybody who waits, and return what holds."""
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
        self._drop_settled(now)
        return merged

    def _log(self, previous: Payment | None, observed: Payment, change: Change) -> None:
        name = self.expected.label
        if observed.status is PaymentStatus.UNDOCUMENTED and change is Change.ADVANCED:
            words = "payment %s has the undocumented status %r: it counts as not ended"
            _logger.warning(words, name, _word(observed))
        elif change is Change.REVISED and previous:
            words = "payment %s was reported %s and is completed after all"
            _logger.warning(words, name, previous.status)
        elif change is Change.CONFLICTING and previous:
            words = "payment %s is %s; an answer that says %s changes nothing"
            _logger.warning(words, name, previous.status, observed.status)

    def pending(self, attempts_before: int) -> PaymentStillPending:
        """Build the error of a wait that is over before the payment is."""
        state = "not seen yet" if self.known is None else f"still {_word(self.known)}"
        looks = self.attempts - attempts_before
        trouble = f"; the last one met: {self.last_error.message}" if self.last_error else ""
        msg = (
            f"payment {self.expected.label} is {state} after {looks} status calls{trouble}. "
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

    def subscribe(self, terms: Terms) -> _Subscription:
        """Let one more caller wait; the first one starts the loop."""
        subscription = _Subscription(terms)
        self.subscriptions.append(subscription)
        if self._task is None:
            self._generation += 1
            run = partial(self._run, self._generation)
            self._task = self._group.tasks().start(run)
        else:
            self._look_by(anyio.current_time() + self._seconds_to_first_look(terms))
        return subscription

    def leave(self, subscription: _Subscription) -> None:
        """Let one caller go; the last one stops the loop."""
        if subscription in self.subscriptions:
            self.subscriptions.remove(subscription)
        if not self.subscriptions and self._task is not None:
            self._task.cancel()
            self._task = None

    def _look_by(self, moment: float) -> None:
        """Look earlier than planned, if *moment* is earlier."""
        self._next_look_at = min(self._next_look_at, moment)
        self._woken.set()

    def _drop_settled(self, now: float) -> None:
        for subscription in self.subscriptions:
            if self.known is not None:
                subscription.end_if_settled(self.known, now)
        self.subscriptions = [s for s in self.subscriptions if not s.over]

    # --- The loop

    async def _run(self, generation: int) -> None:
        error: Exception | None = ClientStateError(
            f"the client was closed while payment {self.expected.label} was waited for; "
            "it has not failed: ask for it again"
        )
        try:
            await self._sleep(min(self._seconds_to_first_look(s.terms) for s in self.subscriptions))
            await poll(
                self._look,
                absorb=self._absorb,
                wait=self._wait,
                stop=self._stop,
                sleep=self._sleep,
            )
            error = None
        except Exception as raised:  # noqa: BLE001  # a caller's own strategy may raise anything
            error = raised
        finally:
            self._ended(generation, error)

    def _ended(self, generation: int, error: Exception | None) -> None:
        if generation != self._generation:
            return  # everybody left, and others came, who have a loop of their own
        self._task = None
        for subscription in self.subscriptions:
            subscription.end(error)
        self.subscriptions = []

    async def _look(self) -> bool:
        await self._group.budget.permit()
        self.attempts += 1
        self._looked_at = anyio.current_time()
        try:
            observed = await self._group.ask(self.expected)
        except APIError as error:
            self.last_error = error
            if isinstance(error, RateLimitError):
                seconds = error.retry_after
                self._group.budget.pause(_PAUSE_AFTER_429_SECONDS if seconds is None else seconds)
            raise
        self.last_error = None
        self._group.observe(observed)
        if self._born_at is None:
            self._born_at = self._looked_at
        return bool(self.subscriptions)

    def _absorb(self, error: BaseException) -> bool:
        """Whether to go on after an error: after those that may pass by themselves."""
        if isinstance(error, NotFoundError) and self.initiated_at is not None:
            # A payment just initiated may not have reached the server's reading side yet.
            age = anyio.current_time() - self.initiated_at
            return age <= _NOT_FOUND_FORGIVEN_SECONDS
        return worth_repeating(error)

    def _stop(self, state: RetryCallState) -> bool:
        now = anyio.current_time()
        for subscription in self.subscriptions:
            if subscription.terms.stop is not None and subscription.terms.stop(state):
                subscription.end()
        self._drop_settled(now)
        return not self.subscriptions

    def _wait(self, state: RetryCallState) -> float:
        """Return the seconds until the first of the callers wants the next look."""
        return min(self._seconds_for(s, state) for s in self.subscriptions)

    def _seconds_for(self, subscription: _Subscription, state: RetryCallState) -> float:
        terms = subscription.terms
        if terms.wait is not None:
            pause = terms.wait(state)
            return float(pause) if isinstance(pause, int | float) else pause.total_seconds()
        now = anyio.current_time()
        seconds = self._scheduled_seconds(now)
        # Whoever gives up acts on what was last seen: one more look just before, if it can tell
        # something new.
        last = subscription.deadline - _LAST_LOOK_SECONDS - now
        return last if _LAST_LOOK_SECONDS <= last < seconds else seconds

    def _seconds_to_first_look(self, terms: Terms) -> float:
        """Look at once, unless this client has just seen the payment and follows its schedule."""
        if self._looked_at is None or terms.wait is not None:
            return 0.0
        due = self._looked_at + self._scheduled_seconds(self._looked_at)
        return max(due - anyio.current_time(), 0.0)

    def _scheduled_seconds(self, looked_at: float) -> float:
        """Ask the schedule, for the payment's age at its last look."""
        age = 0.0 if self._born_at is None else max(looked_at - self._born_at, 0.0)
        if self.known is not None and self.known.is_terminal:
            age = max(age, LATE_TRUTH_AGE_SECONDS)  # what may come now is rare, and slow
        jitter = random.random()  # noqa: S311  # not a secret
        return self._group.schedule.seconds_to_next_look(age, jitter)

    async def _sleep(self, seconds: float) -> None:
        """Sleep until the next look, which somebody who joins may bring forward."""
        self._next_look_at = anyio.current_time() + seconds
        while anyio.current_time() < self._next_look_at:
            self._woken = anyio.Event()
            with anyio.CancelScope(deadline=self._next_look_at):
                await self._woken.wait()


def _word(payment: Payment) -> str:
    return mask_phones(payment.status_text[:_WORD_CHARACTERS_MAX])


def _age_by_the_server(payment: Payment) -> float | None:
    """How old the payment was when the server answered, in seconds, by the server's own clock."""
    if payment.created_at is None or payment.response is None:
        return None
    try:
        answered_at = parsedate_to_datetime(payment.response.headers.get("date", ""))
        age = (answered_at - payment.created_at).total_seconds()
    except (ValueError, TypeError):
        return None
    return min(max(age, 0.0), _AGE_SECONDS_MAX)


class Followers:
    """The payments that one client has seen, and those it follows."""

    def __init__(
        self,
        *,
        ask: Callable[[Expectation], Awaitable[Payment]],
        tasks: Callable[[], OwnedTasks],
        budget: Budget,
        schedule: Schedule,
    ) -> None:
        """Know no payment.

        Args:
            ask: makes one status call.
            tasks: the client's tasks on the running event loop.
            budget: gives each look its permit.
            schedule: when to look next.
        """
        self.ask = ask
        self.tasks = tasks
        self.budget = budget
        self.schedule = schedule
        self._followers: OrderedDict[str, _Follower] = OrderedDict()

    def observe(self, payment: Payment) -> Payment:
        """Merge an answer, from wherever it came, into what is known; return what holds."""
        return self._follower(Expectation.of(payment)).observe(payment, anyio.current_time())

    def initiated(self, payment: Payment) -> None:
        """Note a payment that this client has just initiated."""
        follower = self._follower(Expectation.of(payment))
        follower.initiated(anyio.current_time())
        follower.observe(payment, anyio.current_time())

    async def wait(self, expected: Expectation, known: Payment | None, terms: Terms) -> Payment:
        """Wait until the payment has ended.

        Raises:
            PaymentStillPending: at the deadline, or when the caller's strategy stops.
            PayNexusError: whatever ends the following.
        """
        follower = self._meet(expected, known)
        if follower.known is not None and follower.known.is_terminal:
            return follower.known
        attempts_before = follower.attempts
        subscription = follower.subscribe(terms)
        ended: Payment | None = None
        try:
            with anyio.CancelScope(deadline=terms.deadline):
                while (update := await subscription.next()) is not None:
                    ended = update.payment
        finally:
            follower.leave(subscription)
        if ended is None or not ended.is_terminal:
            raise follower.pending(attempts_before)
        return ended

    async def watch(
        self, expected: Expectation, known: Payment | None, terms: Terms
    ) -> AsyncGenerator[PaymentUpdate, None]:
        """Yield the payment as it stands, if it is known, and then each of its changes.

        Raises:
            PaymentStillPending: at the deadline, or when the caller's strategy stops.
            PayNexusError: whatever ends the following.
        """
        follower = self._meet(expected, known)
        attempts_before, seen = follower.attempts, follower.known
        ended = seen is not None and seen.is_terminal
        if seen is not None and (seen.succeeded or (ended and terms.revisions_seconds <= 0)):
            yield PaymentUpdate(payment=seen, previous=None, attempts=attempts_before)
            return
        subscription = follower.subscribe(terms)
        try:
            if seen is not None:
                subscription.end_if_settled(seen, anyio.current_time())
                yield PaymentUpdate(payment=seen, previous=None, attempts=attempts_before)
            while True:
                update = None
                # No cancel scope may be open across a yield.
                with anyio.CancelScope(deadline=subscription.deadline):
                    update = await subscription.next()
                if update is None:
                    break
                ended = update.payment.is_terminal
                yield update
        finally:
            follower.leave(subscription)
        if not ended:
            raise follower.pending(attempts_before)

    def _meet(self, expected: Expectation, known: Payment | None) -> _Follower:
        follower = self._follower(expected)
        if known is not None and (follower.known is None or known.is_terminal):
            follower.observe(known, anyio.current_time())
        return follower

    def _follower(self, expected: Expectation) -> _Follower:
        """Find the payment by either of its names, or begin to know it."""
        names = [n for n in (expected.reference, expected.checkout_request_id) if n]
        follower = next((f for n in names if (f := self._followers.get(n))), None)
        if follower is None:
            follower = _Follower(expected, self)
        known = follower.expected
        follower.expected = Expectation(
            reference=known.reference or expected.reference,
            checkout_request_id=known.checkout_request_id or expected.checkout_request_id,
            amount=expected.amount if known.amount is None else known.amount,
            phone=known.phone or expected.phone,
        )
        for name in names:
            self._followers[name] = follower
            self._followers.move_to_end(name)
        self._forget_the_oldest()
        return follower

    def _forget_the_oldest(self) -> None:
        for _ in range(len(self._followers) - 2 * _PAYMENTS_REMEMBERED_MAX):
            name, follower = next(iter(self._followers.items()))
            del self._followers[name]
            if follower.subscriptions:  # still followed: not forgotten, only moved back
                self._followers[name] = follower
