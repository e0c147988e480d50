"""Doing something again: the only module that imports tenacity.

Tenacity runs the loops; what to repeat, when, and for how long is decided elsewhere. Three habits
of tenacity 9 stay in here:

* Its clock is `time.monotonic`, which no event loop's virtual clock moves: every strategy sees a
  state whose times come from the event loop.
* A loop that ends by a result raises `RetryError` even with `reraise=True`: a callback ends it.
* `retry_if_not_exception_type` would repeat a cancellation: only named errors are repeated.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final, Generic, TypeVar

import anyio
import attrs
from tenacity import (
    AsyncRetrying,
    DoSleep,
    RetryCallState,
    retry_any,
    retry_if_exception,
    retry_if_result,
)

from .exceptions import RateLimitError

__all__ = ["Poll", "Polling", "RetryCallState", "StopStrategy", "WaitStrategy", "repeat"]

T = TypeVar("T")
Subject = TypeVar("Subject")

WaitStrategy = Callable[[RetryCallState], float | int | timedelta]
"""Any tenacity wait: `wait_fixed(3)`, `wait_exponential(max=10)`, or a function of the state."""
StopStrategy = Callable[[RetryCallState], bool]
"""Any tenacity stop: `stop_after_attempt(5)`, or a function of the state."""

_FIRST_PAUSE_SECONDS: Final = 0.5
_PAUSE_SECONDS_MAX: Final = 8.0


async def repeat(
    attempt: Callable[[], Awaitable[T]],
    *,
    worth_repeating: Callable[[BaseException], bool],
    retries: int,
    deadline: float,
) -> T:
    """Make an attempt, and a few more where an error is worth it and time is left.

    Pauses grow exponentially with full jitter (up to a second, doubled, up to eight); a
    `Retry-After` replaces one. An attempt that would begin past the deadline is not made.

    Args:
        attempt: does it once.
        worth_repeating: whether an error may pass.
        retries: attempts after the first.
        deadline: on the event loop's clock, in seconds.
    """
    try:
        return await attempt()  # nearly always the only one, and cheaper without a loop around it
    except Exception as error:
        if retries < 1 or not worth_repeating(error):
            raise
        first = [error]

    async def again() -> T:
        if first:
            raise first.pop()
        return await attempt()

    def pause_seconds(state: RetryCallState) -> float:
        error = _error_of(state)
        if isinstance(error, RateLimitError) and error.retry_after is not None:
            return error.retry_after
        ceiling = min(_FIRST_PAUSE_SECONDS * 2**state.attempt_number, _PAUSE_SECONDS_MAX)
        return random.uniform(_FIRST_PAUSE_SECONDS / 10, ceiling)  # noqa: S311  # nosec B311  # no secret

    def stop(state: RetryCallState) -> bool:
        late = anyio.current_time() + state.upcoming_sleep >= deadline
        return late or state.attempt_number > retries

    retrying = AsyncRetrying(
        retry=retry_if_exception(worth_repeating),
        wait=pause_seconds,
        stop=stop,
        sleep=anyio.sleep,
        reraise=True,
    )
    return await retrying(again)


def _error_of(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


@attrs.define
class Poll:
    """What is kept of a poll between two looks.

    Attributes:
        started_at: on the event loop's clock.
        attempts: looks so far.
        idle_seconds: spent between them.
    """

    started_at: float
    attempts: int = 0
    idle_seconds: float = 0.0


class Polling(Generic[Subject]):
    """One tenacity loop for any number of polls, none of which costs a task between two looks.

    `AsyncRetrying` is a state machine that its `__call__` drives from inside a coroutine. Here the
    looks drive it: after each, a `RetryCallState` is made of what is kept of the poll, and tenacity
    says what follows.
    """

    def __init__(
        self,
        *,
        absorb: Callable[[Subject, BaseException], bool],
        wait: Callable[[Subject, RetryCallState], float],
        stop: Callable[[Subject, RetryCallState], bool],
    ) -> None:
        """Keep the rules; each is given the subject of the poll.

        Args:
            absorb: whether an error is a passing one.
            wait: seconds until the next look.
            stop: whether to give up instead.
        """

        def subject(state: RetryCallState) -> Subject:
            found: Subject = state.args[0]
            return found

        def absorbs(state: RetryCallState) -> bool:
            error = _error_of(state)
            return error is not None and absorb(subject(state), error)

        self._retrying = AsyncRetrying(
            retry=retry_any(retry_if_result(bool), absorbs),
            wait=lambda state: max(wait(subject(state), state), 0.0),
            stop=lambda state: stop(subject(state), state),
            retry_error_callback=lambda _: None,
        )
        self._retrying.begin()  # its statistics, which nobody reads

    async def after(
        self, subject: Subject, poll: Poll, outcome: bool | BaseException
    ) -> float | None:
        """Return the seconds until the next look, or `None` if there is none.

        Args:
            subject: whose poll it is.
            poll: how far it has come; brought up to date.
            outcome: whether to go on, or the error that the look met.

        Raises:
            BaseException: the error, if it is not absorbed.
        """
        state = RetryCallState(self._retrying, None, (subject,), {})
        state.start_time, state.idle_for = poll.started_at, poll.idle_seconds
        state.attempt_number = poll.attempts = poll.attempts + 1
        if isinstance(outcome, BaseException):
            state.set_exception((type(outcome), outcome, outcome.__traceback__))
        else:
            state.set_result(outcome)
        state.outcome_timestamp = anyio.current_time()
        following = await self._retrying.iter(state)
        poll.idle_seconds = state.idle_for
        return float(following) if isinstance(following, DoSleep) else None
