"""The arithmetic of a key's calls: no window is ever overdrawn, none is wasted for long."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paynexus_async import ConfigurationError, Plan
from paynexus_async._quota import PLANS, Quota, Urgency
from paynexus_async._wire import RateLimits, rate_limits
from paynexus_async.models import APIResponse

from .fakes import FakeServer

LOOK, CALL, INITIATE = Urgency.LOOK, Urgency.CALL, Urgency.INITIATE


def spend(
    quota: Quota, until: float, urgency: Urgency = LOOK, now: float = 0.0, latency: float = 0.0
) -> list[float]:
    """Call as often as is allowed; return when the calls went out."""
    times = []
    while (at := quota.ready_at(now, urgency)) < until:
        quota.take(at)
        times.append(at)
        now = at + latency
        quota.answered(now)
    return times


@pytest.mark.parametrize("name", PLANS)
def test_no_window_of_a_plan_is_overdrawn(name):
    """Wherever one lays the window: the server's may begin at any moment."""
    plan = PLANS[name]
    times = spend(Quota(plan), until=7_200)
    for seconds, limit in ((60, plan.minute), (3_600, plan.hour), (86_400, plan.day)):
        if limit is not None:
            for first, beyond in zip(times, times[limit:], strict=False):
                assert beyond - first >= seconds


def test_a_busy_key_gets_nearly_all_of_its_calls():
    """Evenly: half a window is there at once, and nobody waits long at its end."""
    times = spend(Quota(Plan(minute=60)), until=3_600)
    assert len(times) > 0.97 * 3_600
    assert max(b - a for a, b in pairwise(times)) < 3


def test_an_idle_key_answers_a_few_customers_at_once():
    """What is left decides the pace."""
    times = spend(Quota(Plan(minute=60)), until=60)
    assert times[9] < 7
    assert times[29] < 25


@pytest.mark.parametrize("latency", [0.3, 20.0])
def test_a_call_counts_until_its_answer_has_been_out_of_sight(latency):
    """When the server counted it is not known: no later than it answered."""
    quota = Quota(Plan(minute=3))
    times = spend(quota, until=600, urgency=CALL, latency=latency)
    for first, fourth in zip(times, times[3:], strict=False):
        assert fourth - (first + latency) >= 60


def test_the_server_knows_better():
    """Its `Remaining` replaces our own count of the same window: others may share the key."""
    quota = Quota(Plan(minute=60))
    quota.take(0.0)
    quota.answered(0.0, RateLimits(limit=60, remaining=2, reset_seconds=30))
    assert quota.ready_at(0.0, CALL) == 0.0
    for _ in range(2):
        quota.take(0.0)
    assert quota.ready_at(0.0, CALL) >= 30
    quota.answered(1.0, RateLimits(limit=60, remaining=1, reset_seconds=29))
    quota.answered(1.0, RateLimits(limit=60, remaining=0, reset_seconds=29))
    at = quota.ready_at(1.0, CALL)
    assert 30 <= at <= 31
    # The server's window begins anew, however full ours still looks: one goes first to find out.
    assert quota.ready_at(at, LOOK) <= at
    quota.take(at)
    assert quota.ready_at(at, LOOK) == math.inf
    assert quota.ready_at(at, CALL) == at
    quota.answered(at, RateLimits(limit=60, remaining=59, reset_seconds=60))
    assert quota.ready_at(at, LOOK) < at + 2


def test_the_first_call_of_a_new_window_paces_nobody():
    """Where the plan is named too: our own count, which looks back, is still full of the old one."""
    quota = Quota(Plan(minute=60))
    for left in range(59, -1, -1):
        quota.take(1.0)
        quota.answered(1.0, RateLimits(limit=60, remaining=left, reset_seconds=30))
    at = quota.ready_at(1.0, LOOK)
    assert quota.ready_at(at, LOOK) <= at
    quota.take(at)
    quota.answered(at + 0.1, RateLimits(limit=60, remaining=59, reset_seconds=59.9))
    assert quota.ready_at(at + 0.1, LOOK) == at + 0.1


def test_answers_that_overtake_each_other_give_nothing_back():
    """Within one window there is ever less left."""
    quota = Quota(Plan())
    quota.take(0.0)
    quota.take(0.0)
    quota.answered(1.0, RateLimits(limit=60, remaining=0, reset_seconds=30))
    quota.answered(1.1, RateLimits(limit=60, remaining=1, reset_seconds=30))
    assert quota.ready_at(1.2, CALL) > 30


def test_the_last_calls_of_a_shared_window_are_left_to_the_others():
    """They may ask at this very moment."""
    quota = Quota(Plan())
    for n, remaining in enumerate([50, 40, 30, 20, 10, 2]):
        now = float(n)
        quota.take(now)
        quota.answered(now, RateLimits(limit=60, remaining=remaining, reset_seconds=30 - n))
    assert quota.ready_at(6.0, CALL) > 30


def test_another_window_is_another_window():
    """A server that tells of its hour, and then of its minute, is not misread."""
    quota = Quota(Plan())
    for limits in (RateLimits(3600, 0, 100), RateLimits(60, 5, 40), RateLimits(60, 59, 90)):
        quota.take(0.0)
        quota.answered(0.0, limits)
    assert quota.ready_at(0.0, CALL) == 0.0


def test_after_a_429_everybody_pauses_and_then_one_goes_first():
    """No stampede at the end of the pause."""
    quota = Quota(Plan())
    quota.take(0.0)
    quota.refused(1.0, 30.0)
    for urgency in Urgency:
        assert quota.ready_at(2.0, urgency) == 31.0
    quota.take(31.0)
    assert quota.ready_at(31.0, CALL) == math.inf
    assert quota.ready_at(31.0, INITIATE) == 31.0
    quota.answered(31.5)
    assert quota.ready_at(31.5, CALL) == 31.5


def test_a_key_that_also_initiates_keeps_calls_back():
    """A customer at the till is never told to wait because of a poll."""
    quota = Quota(Plan(minute=20), reserves=True)
    spend(quota, until=1.0, urgency=CALL)
    assert quota.ready_at(1.0, CALL) > 1.0
    for _ in range(2):
        assert quota.ready_at(1.0, INITIATE) == 1.0
        quota.take(1.0)
    assert quota.ready_at(1.0, INITIATE) > 1.0


def test_the_reserve_of_a_full_window_needs_several_calls_to_be_forgotten():
    """Not just the oldest one."""
    quota = Quota(Plan(minute=20), reserves=True)
    for second in range(20):
        quota.take(float(second))
        quota.answered(float(second))
    assert quota.ready_at(20.0, INITIATE) == pytest.approx(60, abs=0.5)
    assert quota.ready_at(20.0, CALL) == pytest.approx(62, abs=0.5)


def test_a_month_is_not_paced():
    """Only counted: a gap of minutes would serve nobody."""
    quota = Quota(Plan(month=10_000))
    quota.take(0.0)
    quota.answered(0.0, RateLimits(limit=10_000, remaining=4_000, reset_seconds=1e6))
    for _ in range(50):
        assert quota.ready_at(0.0, LOOK) == 0.0
        quota.take(0.0)


def test_a_call_that_never_went_or_met_no_answer():
    """The one costs nothing; the other counts, because the server may have counted it."""
    quota = Quota(Plan(minute=1))
    quota.take(0.0)
    assert quota.ready_at(0.0, CALL) == math.inf
    quota.give_back()
    assert quota.ready_at(0.0, CALL) == 0.0
    quota.take(0.0)
    quota.failed(5.0)
    assert quota.ready_at(5.0, CALL) >= 65.0
    told = Quota(Plan())
    told.take(0.0)
    told.answered(0.0, RateLimits(10, 1, 60))
    told.take(0.0)
    told.give_back()
    assert told.ready_at(0.0, CALL) == 0.0


@given(
    st.integers(1, 40),
    st.lists(st.tuples(st.sampled_from(list(Urgency)), st.floats(0, 20)), max_size=200),
)
def test_no_order_of_calls_overdraws(limit, steps):
    """Whoever calls, and whenever."""
    quota = Quota(Plan(minute=limit), reserves=True)
    now, times = 0.0, []
    for urgency, pause in steps:
        now += pause
        at = quota.ready_at(now, urgency)
        assert at >= now
        if at == now:
            quota.take(now)
            times.append(now)
            quota.answered(now)
    for first, beyond in zip(times, times[limit:], strict=False):
        assert beyond - first >= 60


@pytest.mark.parametrize(
    "plan", ["gold", {}, {"week": 1}, {"minute": 0}, {"minute": True}, {"minute": 1.5}, 60]
)
def test_a_plan_that_is_none_is_refused(plan):
    """With what would be one."""
    with pytest.raises(ConfigurationError, match="plan"):
        FakeServer().client(plan=plan)


def test_a_plan_has_a_name_or_numbers():
    """All three ways mean the same."""
    assert Plan.of("basic") == Plan.of({"minute": 60, "hour": 3600, "month": 50_000})
    assert Plan.of(Plan(day=30)) == Plan.of("sandbox")
    assert Plan.of(None) == Plan()


def headers(**fields: str) -> APIResponse:
    named = {name.replace("_", "-").lower(): value for name, value in fields.items()}
    return APIResponse(status_code=200, headers=named, body=b"")


GOOD = {
    "X_RateLimit_Limit": "60",
    "X_RateLimit_Remaining": "58",
    "X_RateLimit_Reset": "1769508000",
    "Date": "Tue, 27 Jan 2026 09:59:30 GMT",
}


def test_the_headers_tell_limit_remaining_and_reset():
    """The reset counts from the answer's own date: a wrong clock here does not matter."""
    assert rate_limits(headers(**GOOD)) == RateLimits(60, 58, 30.0)


@pytest.mark.parametrize(
    "broken",
    [
        {"X_RateLimit_Limit": "many"},
        {"X_RateLimit_Limit": "0"},
        {"X_RateLimit_Remaining": ""},
        {"X_RateLimit_Reset": "soon"},
        {"Date": "today"},
        {"Date": ""},
    ],
)
def test_headers_that_say_nothing_are_not_guessed_at(broken):
    """Nothing is learned from them."""
    assert rate_limits(headers(**{**GOOD, **broken})) is None
    assert rate_limits(headers(Date=GOOD["Date"])) is None
