"""Doing something again: how often, after which pauses, and what a loop of looks keeps in mind."""

from __future__ import annotations

import random
from itertools import repeat as endless
from typing import TYPE_CHECKING

import anyio
import pytest
from tenacity import AsyncRetrying, RetryCallState, wait_exponential

from paynexus_async import APIConnectionError, APIError, APIResponse, RateLimitError
from paynexus_async._retry import Poll, Polling, repeat

if TYPE_CHECKING:
    from collections.abc import Iterable

pytestmark = pytest.mark.anyio

LOST = APIConnectionError("lost", never_sent=False)
FATAL = APIError("fatal")


def quota_error(retry_after: float | None) -> RateLimitError:
    error = RateLimitError("slowly", response=APIResponse(status_code=429, headers={}, body=b""))
    error.retry_after = retry_after
    return error


class Attempts:
    """Meets one end after another, and notes when each attempt began."""

    def __init__(self, ends: Iterable[object]) -> None:
        self.ends = iter(ends)
        self.times: list[float] = []

    async def __call__(self) -> object:
        self.times.append(anyio.current_time())
        end = next(self.ends)
        if isinstance(end, BaseException):
            raise end
        return end

    @property
    def pauses(self) -> list[float]:
        return [b - a for a, b in zip(self.times, self.times[1:], strict=False)]

    async def repeated(self, retries: int = 9, seconds: float = 1e6) -> object:
        return await repeat(
            self,
            worth_repeating=lambda error: isinstance(error, APIError) and error is not FATAL,
            retries=retries,
            deadline=anyio.current_time() + seconds,
        )


# --- repeat


@pytest.mark.parametrize("failures", range(4))
async def test_it_is_done_until_it_succeeds_and_no_more(failures):
    """The result is the attempt's own."""
    attempts = Attempts([*[LOST] * failures, "done", "never"])
    assert await attempts.repeated() == "done"
    assert len(attempts.times) == failures + 1


@pytest.mark.parametrize("retries", range(4))
async def test_retries_are_the_attempts_after_the_first(retries):
    """Then the last error is raised as it is."""
    errors = [APIConnectionError(str(n), never_sent=False) for n in range(9)]
    attempts = Attempts(errors)
    with pytest.raises(APIConnectionError) as caught:
        await attempts.repeated(retries)
    assert caught.value is errors[retries]
    assert len(attempts.times) == retries + 1


@pytest.mark.parametrize("before", range(3))
async def test_an_error_that_is_not_worth_it_ends_the_attempts(before):
    """The first time and any other."""
    attempts = Attempts([*[LOST] * before, FATAL, "never"])
    with pytest.raises(APIError) as caught:
        await attempts.repeated()
    assert caught.value is FATAL
    assert len(attempts.times) == before + 1


@pytest.mark.parametrize("before", range(2))
async def test_what_ends_the_program_is_never_repeated(before):
    """Neither in the first attempt nor in any other."""
    attempts = Attempts([*[LOST] * before, *endless(KeyboardInterrupt(), 3)])
    with pytest.raises(KeyboardInterrupt):
        await attempts.repeated()
    assert len(attempts.times) == before + 1


async def test_pauses_grow_to_eight_seconds_and_are_drawn_by_chance():
    """From a twentieth of a second to one second, then two, four, and eight from there on."""
    random.seed(254)
    attempts = Attempts([*[LOST] * 6, "done"])
    await attempts.repeated()
    random.seed(254)
    drawn = [random.uniform(0.05, ceiling) for ceiling in (1, 2, 4, 8, 8, 8)]
    assert attempts.pauses == pytest.approx(drawn, abs=1e-5)


@pytest.mark.parametrize("seconds", [0.0, 7.0, 120.0])
async def test_what_the_server_asks_for_replaces_a_pause(seconds):
    """To the second, and for this pause only."""
    random.seed(254)
    attempts = Attempts([LOST, quota_error(seconds), quota_error(None), "done"])
    await attempts.repeated()
    random.seed(254)
    first, last = random.uniform(0.05, 1), random.uniform(0.05, 4)
    assert attempts.pauses == pytest.approx([first, seconds, last], abs=1e-5)


@pytest.mark.parametrize(("seconds", "made"), [(6.9, 1), (7.0, 1), (7.1, 2), (14.0, 2), (14.1, 3)])
async def test_no_attempt_begins_at_the_deadline_or_past_it(seconds, made):
    """And nobody is kept waiting for one that would."""
    attempts = Attempts(endless(quota_error(7.0)))
    started = anyio.current_time()
    with pytest.raises(RateLimitError):
        await attempts.repeated(seconds=seconds)
    assert len(attempts.times) == made
    assert anyio.current_time() - started == pytest.approx(7.0 * (made - 1))


# --- Polling


def polling(seconds: float = 3.0, attempts_max: int = 99) -> Polling[str]:
    """Absorbs what is lost, and waits for so long after each look."""
    return Polling(
        absorb=lambda _, error: error is LOST,
        wait=lambda _, __: seconds,
        stop=lambda _, state: state.attempt_number >= attempts_max,
    )


@pytest.mark.parametrize("outcome", [True, LOST])
async def test_a_look_that_ends_nothing_is_followed_by_another(outcome):
    """What is open stays open, and an error that passes is none."""
    assert await polling().after("payment", Poll(0.0), outcome) == 3.0


async def test_a_look_that_ends_it_is_followed_by_none():
    """There is nothing to wait for."""
    poll = Poll(0.0)
    assert await polling().after("payment", poll, False) is None
    assert (poll.attempts, poll.idle_seconds) == (1, 0.0)


@pytest.mark.parametrize("error", [FATAL, KeyboardInterrupt()])
async def test_an_error_that_is_not_absorbed_is_raised_as_it_is(error):
    """A cancellation least of all is kept for later."""
    with pytest.raises(type(error)) as caught:
        await polling().after("payment", Poll(0.0), error)
    assert caught.value is error


@pytest.mark.parametrize("outcome", [True, LOST])
async def test_whoever_stops_gets_no_error_for_it(outcome):
    """That it did not end is for the caller to say."""
    poll = Poll(0.0)
    loop = polling(attempts_max=2)
    assert [await loop.after("payment", poll, outcome) for _ in range(2)] == [3.0, None]


async def test_no_wait_is_negative():
    """A strategy of somebody's may reckon so; the next look is at once."""
    poll = Poll(0.0)
    assert await polling(-5.0).after("payment", poll, True) == 0.0
    assert poll.idle_seconds == 0.0
    assert await polling(0.25).after("payment", poll, True) == 0.25


async def test_a_poll_keeps_its_looks_and_its_idle_time():
    """Between two looks there is nothing else of it."""
    poll = Poll(0.0)
    loop = polling(1.5)
    for _ in range(3):
        await loop.after("payment", poll, True)
    assert poll == Poll(started_at=0.0, attempts=3, idle_seconds=4.5)


async def test_a_strategy_sees_the_state_that_tenacity_documents():
    """With the times of the event loop: a clock of its own would not move with it."""
    seen: list[tuple[object, ...]] = []

    def stop(subject: str, state: RetryCallState) -> bool:
        assert state.outcome is not None
        seen.append(
            (
                subject,
                state.args,
                state.kwargs,
                state.fn,
                type(state.retry_object),
                state.attempt_number,
                state.start_time,
                state.seconds_since_start,
                state.idle_for,
                state.upcoming_sleep,
                state.outcome.failed,
                state.outcome.attempt_number,
            )
        )
        return False

    started = anyio.current_time()
    loop: Polling[str] = Polling(absorb=lambda *_: True, wait=lambda *_: 2.0, stop=stop)
    poll = Poll(started)
    await anyio.sleep(5)
    await loop.after("payment", poll, True)
    await anyio.sleep(5)
    await loop.after("payment", poll, LOST)
    common = ("payment", ("payment",), {}, None, AsyncRetrying)
    assert seen == [
        (*common, 1, started, pytest.approx(5), 0.0, 2.0, False, 1),
        (*common, 2, started, pytest.approx(10), 2.0, 2.0, True, 2),
    ]


async def test_rules_are_asked_about_the_payment_that_was_looked_at():
    """One loop serves them all."""
    asked: list[tuple[str, str]] = []

    def ask(rule: str, answer: object) -> object:
        return lambda subject, _: asked.append((rule, subject)) or answer

    loop: Polling[str] = Polling(
        absorb=ask("absorb", True), wait=ask("wait", 1.0), stop=ask("stop", False)
    )  # type: ignore[arg-type]  # each answers what its rule answers
    await loop.after("one", Poll(0.0), LOST)
    await loop.after("another", Poll(0.0), True)
    rules = [(rule, "one") for rule in ("absorb", "wait", "stop")]
    assert asked == [*rules, ("wait", "another"), ("stop", "another")]


async def test_a_wait_of_tenacitys_own_grows_with_the_looks():
    """Any of them will do."""
    wait = wait_exponential(multiplier=1, max=5)
    loop: Polling[str] = Polling(
        absorb=lambda *_: True, wait=lambda _, state: wait(state), stop=lambda *_: False
    )
    poll = Poll(0.0)
    assert [await loop.after("payment", poll, True) for _ in range(4)] == [1, 2, 4, 5]
