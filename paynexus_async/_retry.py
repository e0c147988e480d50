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
from typing import Final, TypeVar

import anyio
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, retry_if_result

from .exceptions import RateLimitError

__all__ = ["RetryCallState", "StopStrategy", "WaitStrategy", "poll", "repeat"]

T = TypeVar("T")

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

    Pauses grow exponentially with full jitter (half a second, doubled, at most eight); a
    `Retry-After` replaces one. An attempt that would begin past the deadline is not made.

    Args:
        attempt: does it once.
        worth_repeating: whether an error may pass.
        retries: attempts after the first.
        deadline: on the event loop's clock, in seconds.
    """

    def pause_seconds(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, RateLimitError) and error.retry_after is not None:
            return error.retry_after
        ceiling = min(_FIRST_PAUSE_SECONDS * 2**state.attempt_number, _PAUSE_SECONDS_MAX)
        return random.uniform(_FIRST_PAUSE_SECONDS / 10, ceiling)  # noqa: S311  # not a secret

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
    return await retrying(attempt)


async def poll(
    look: Callable[[], Awaitable[bool]],
    *,
    absorb: Callable[[BaseException], bool],
    wait: WaitStrategy,
    stop: StopStrategy,
    sleep: Callable[[float], Awaitable[None]],
) -> None:
    """Look again and again, until a look says that it was the last, or *stop* does.

    Args:
        look: looks once; returns whether to go on. What it raises ends the loop, unless absorbed.
        absorb: whether an error is a passing one.
        wait: seconds until the next look.
        stop: whether to give up instead.
        sleep: passes those seconds.
    """
    started = anyio.current_time()

    def on_our_clock(state: RetryCallState) -> RetryCallState:
        state.start_time, state.outcome_timestamp = started, anyio.current_time()
        return state

    def seconds(state: RetryCallState) -> float:
        pause = wait(on_our_clock(state))
        return max(pause.total_seconds() if isinstance(pause, timedelta) else float(pause), 0.0)

    retrying = AsyncRetrying(
        retry=retry_if_result(bool) | retry_if_exception(absorb),
        wait=seconds,
        stop=lambda state: stop(on_our_clock(state)),
        sleep=sleep,
        retry_error_callback=lambda _: None,
    )
    await retrying(look)
