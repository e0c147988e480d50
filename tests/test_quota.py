"""The arithmetic of a key's calls: no window is ever overdrawn, none is wasted for long."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paynexus_async import ConfigurationError, Plan, _quota
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


# --- Exactly


def called(quota: Quota, now: float, times: int = 1, limits: RateLimits | None = None) -> Quota:
    """A quota after so many calls that were answered at once."""
    for _ in range(times):
        quota.take(now)
        quota.answered(now, limits)
    return quota


def gap(quota: Quota, now: float) -> float:
    """How far the next background call stays away from one that goes out now; a timer's delay is its own."""
    quota.ready_at(now, LOOK)
    quota.take(now)
    return quota.ready_at(now, LOOK) + 0.02 - now


def test_a_plan_may_name_every_window():
    """All four at once."""
    plan = {"minute": 1, "hour": 2, "day": 3, "month": 4}
    assert Plan.of(plan) == Plan(**plan)


def test_the_first_call_learns_alone_what_the_key_may_do():
    """Background calls await its answer; who stands at the till, or asks for one thing, does not."""
    quota = Quota(Plan())
    quota.take(0.0)
    assert [quota.ready_at(0.0, urgency) for urgency in Urgency] == [0.0, 0.0, math.inf, math.inf]
    quota.answered(0.0)
    assert [quota.ready_at(0.0, urgency) for urgency in Urgency] == [0.0] * 4


@pytest.mark.parametrize(("seconds", "plan"), [(60, "minute"), (3_600, "hour"), (86_400, "day")])
def test_a_call_is_forgotten_a_little_late(seconds, plan):
    """By a 240th of its window at most; then the same number of calls is free again."""
    quota = Quota(Plan(**{plan: 3}))
    called(quota, 0.1, times=3)
    free_at = quota.ready_at(0.1, CALL)
    assert free_at == seconds + seconds / 240
    called(quota, free_at, times=2)
    assert quota.ready_at(free_at, CALL) == free_at
    called(quota, free_at)
    assert quota.ready_at(free_at, CALL) > free_at + seconds - 1


def test_what_a_window_remembers_does_not_grow_with_its_calls():
    """A quarter of a second of them is one number."""
    quota = Quota(Plan(minute=1_000_000))
    for n in range(20_000):
        called(quota, n / 200)
        quota.ready_at(n / 200, CALL)
    assert len(quota._windows[0]._buckets) <= 241


def test_a_window_of_a_minute_is_paced_by_what_is_left_of_it():
    """Half as fast again as would last for ever, at its beginning; ever slower towards its end."""
    quota = Quota(Plan(minute=60))
    called(quota, 0.1)
    assert gap(quota, 10.0) == pytest.approx(1 * (1 - 58 / 180))
    quota.answered(10.0)
    called(quota, 10.1, times=28)
    assert gap(quota, 50.0) == pytest.approx(1 * (1 - 29 / 180))
    quota = called(Quota(Plan(minute=60)), 0.1, times=60)
    assert gap(quota, 1_000.0) == pytest.approx(60 / 59 * (1 - 59 / 180))


def test_a_call_that_is_forgotten_at_this_moment_is_free_for_the_pace_too():
    """Not only for the next call."""
    quota = Quota(Plan(hour=60))
    called(quota, 0.1, times=57)
    assert gap(quota, 3_615.0) == pytest.approx(0.02)


def test_a_fast_key_is_paced_too():
    """By gaps of less than a second."""
    quota = Quota(Plan(minute=300))
    called(quota, 0.1, times=99)
    assert gap(quota, 40.0) == pytest.approx(0.2 * (1 - 200 / 900))


def test_an_hour_is_paced_when_some_minutes_worth_of_it_is_left():
    """Before, it is plenty; then what is left has to last until the oldest call is forgotten."""
    quota = Quota(Plan(hour=60))
    called(quota, 0.1, times=57)
    assert quota.ready_at(0.1, LOOK) == 0.1
    assert gap(quota, 100.0) == pytest.approx((3_615 - 100) / 2 * (1 - 2 / 3))
    quota.answered(100.0)
    assert gap(quota, 2_000.0) == pytest.approx((3_615 - 2_000) * (1 - 1 / 3), abs=0.05)


def test_what_is_kept_for_initiates_is_not_there_for_the_pace():
    """A tenth of the window."""
    quota = Quota(Plan(minute=60), reserves=True)
    called(quota, 0.1)
    assert gap(quota, 10.0) == pytest.approx(1 - 52 / 180)


def test_a_day_is_not_paced():
    """A customer of the sandbox may use all thirty at once."""
    assert len(spend(Quota(Plan(day=30)), until=1.0)) == 30


@pytest.mark.parametrize(
    ("share", "scarcity"), [(4.0, 0.0), (3.0, 0.0), (1.5, 0.5), (0.0, 1.0), (-9.0, 1.0)]
)
def test_scarcity_is_a_share(share, scarcity):
    """However much is left, and however far a window is overdrawn by initiates."""
    assert _quota._scarcity(share) == scarcity


@pytest.mark.parametrize(
    ("now", "left", "seconds"),
    [(10.0, 31, 50.0), (10.0, 2, 50.0), (59.5, 3, 0.5)],
)
def test_a_window_that_the_server_tells_of_is_paced_until_it_begins_anew(now, left, seconds):
    """What it says is left lasts until then, and a second longer, because clocks differ."""
    quota = called(Quota(Plan()), 0.0, limits=RateLimits(60, left, 59.0))
    after = left - 1
    assert gap(quota, now) == pytest.approx(seconds / after * (1 - after / 180))


def test_a_window_that_the_server_tells_of_is_not_paced_by_our_own_account():
    """However full that looks."""
    quota = called(Quota(Plan(hour=60)), 0.1, times=56)
    called(quota, 1.0, limits=RateLimits(60, 59, 59.0))
    assert gap(quota, 1.0) == pytest.approx(60 / 58 * (1 - 58 / 180))


def test_an_hour_that_the_server_tells_of_is_paced():
    """From its beginning."""
    quota = called(Quota(Plan()), 0.0, limits=RateLimits(60, 31, 3_600.0))
    assert gap(quota, 0.0) == pytest.approx(3_601 / 30 * (1 - 30 / 180))


def test_a_window_that_ends_now_has_ended_a_second_later():
    """The header has whole seconds."""
    quota = called(Quota(Plan()), 5.0, limits=RateLimits(60, 0, 0.0))
    assert quota.ready_at(5.0, CALL) == 6.0


@pytest.mark.parametrize(("later", "ready_at"), [(1.9, 31.0), (2.0, 0.0)])
def test_two_seconds_tell_one_window_from_the_next(later, ready_at):
    """Within less it is the same one, and what was gone is gone."""
    quota = called(Quota(Plan()), 0.0, limits=RateLimits(60, 0, 30.0))
    called(quota, 0.0, limits=RateLimits(60, 59, 30.0 + later))
    assert quota.ready_at(0.0, CALL) == ready_at


def test_a_permit_that_is_given_back_is_one_call_more():
    """Of what the server says is left."""
    quota = called(Quota(Plan()), 0.0, limits=RateLimits(60, 5, 60.0))
    for _ in range(3):
        quota.take(0.0)
    quota.give_back()
    for _ in range(3):
        assert quota.ready_at(0.0, CALL) == 0.0
        quota.take(0.0)
    assert quota.ready_at(0.0, CALL) == 61.0


def test_a_429_counts_in_the_plan():
    """The server may have counted it."""
    quota = Quota(Plan(minute=1))
    quota.take(0.0)
    quota.refused(5.0, 1.0)
    assert quota.ready_at(6.0, CALL) == 65.25


def test_the_server_may_allow_more_than_our_own_account_does():
    """Of the window that it tells of; another stays closed."""
    told = RateLimits(2, 1, 10.0)
    for plan, ready_at in ((Plan(minute=2), 0.0), (Plan(minute=2, hour=3), 3_615.0)):
        quota = called(called(Quota(plan), 0.0, 2), 0.0, limits=told)
        assert quota.ready_at(0.0, CALL) == ready_at


def test_when_the_servers_window_begins_anew_our_minute_is_not_asked_and_our_hour_is():
    """One call goes out on the server's word."""
    told = RateLimits(2, 0, 10.0)
    assert called(Quota(Plan(minute=2, hour=9)), 0.0, 2, told).ready_at(11.0, CALL) == 11.0
    assert called(Quota(Plan(minute=2, hour=3)), 0.0, 3, told).ready_at(11.0, CALL) == 3_615.0


def test_a_key_of_one_call_keeps_none_back():
    """It would never read at all."""
    assert Quota(Plan(minute=1), reserves=True).ready_at(0.0, CALL) == 0.0


def test_what_is_kept_of_the_servers_window_shrinks_towards_its_end():
    """A tenth of it at its beginning, for initiates alone."""
    for left, ready_at in ((3, 0.0), (2, 61.0)):
        quota = called(Quota(Plan(), reserves=True), 0.0, limits=RateLimits(20, left, 60.0))
        assert quota.ready_at(0.0, CALL) == ready_at
        assert quota.ready_at(0.0, INITIATE) == 0.0
    assert quota.ready_at(30.9, CALL) == 61.0
    assert quota.ready_at(31.0, CALL) == 31.0


def test_our_own_calls_are_not_taken_for_those_of_others():
    """Alone on a key, we may use the last call of its window."""
    quota = Quota(Plan())
    for n in range(59):
        now = 100 + n / 2
        called(quota, now, limits=RateLimits(60, 59 - n, 60 - n / 2))
    assert quota.ready_at(now, CALL) == now


def test_others_are_noticed_however_much_we_call_ourselves():
    """One of theirs for each of ours."""
    quota = Quota(Plan())
    for n in range(29):
        now = 100 + n / 2
        called(quota, now, limits=RateLimits(60, 59 - 2 * n, 60 - n / 2))
    called(quota, now + 0.1, limits=RateLimits(60, 2, 60 - n / 2))
    assert quota.ready_at(now + 0.1, CALL) == 161.0


def test_two_answers_at_the_same_moment_do_not_make_others_forgotten():
    """A coarse clock tells many answers the same time: what was learned of others stays known."""
    quota = called(Quota(Plan()), 100.0, limits=RateLimits(60, 59, 60.0))
    called(quota, 101.0, limits=RateLimits(60, 4, 59.0))
    assert quota.ready_at(101.0, CALL) == 101.0
    called(quota, 101.0, limits=RateLimits(60, 2, 59.0))
    assert quota.ready_at(101.0, CALL) == 161.0


def test_of_a_window_of_two_one_is_ours_however_many_others_there_are():
    """And one is theirs."""
    quota = called(Quota(Plan()), 100.0, limits=RateLimits(2, 2, 10.0))
    called(quota, 101.0, limits=RateLimits(2, 0, 9.0))  # a call of ours, and one of another's
    called(quota, 112.0, limits=RateLimits(2, 2, 60.0))
    assert quota.ready_at(112.0, CALL) == 112.0
    quota.take(112.0)
    assert quota.ready_at(112.0, CALL) == 173.0


def test_the_pace_leaves_others_half_of_what_they_would_take():
    """They slow down as we do. What was seen of them is half forgotten after some twenty seconds."""
    quota = Quota(Plan())
    for _ in range(3):
        quota.take(100.0)
    quota.answered(100.0, RateLimits(100, 97, 60.0))  # two of ours are on their way
    quota.answered(110.0, RateLimits(100, 75, 50.0))
    quota.answered(110.0)
    seen = (1 - math.exp(-10 / 20)) * (97 - 75 - 2) / 10
    ours = 73 - 2 - seen * 51 / 2
    assert gap(quota, 110.0) == pytest.approx(51 / ours * (1 - ours / 300))
    quota.answered(115.0, RateLimits(100, 70, 45.0))
    seen += (1 - math.exp(-5 / 20)) * ((75 - 70 - 2) / 5 - seen)
    ours = 69 - 2 - seen * 46 / 2
    assert gap(quota, 115.0) == pytest.approx(46 / ours * (1 - ours / 300))


# --- The headers


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


def test_the_calls_that_are_left_are_those_of_the_window_with_the_fewest():
    """Calls on their way count, and those of the window before do not."""
    quota = Quota(Plan(minute=10, hour=12))
    assert quota.left(0.0) == 10
    assert not quota.is_used
    for at in (0.0, 1.0, 2.0):
        quota.take(at)
        quota.answered(at)
    quota.take(3.0)
    assert quota.is_used
    assert quota.left(3.0) == 6
    quota.answered(3.0)
    assert quota.left(100.0) == 12 - 4
    last_of_its_minute = 63.25  # the call after 3 s is out of sight from here on
    assert called(Quota(Plan(minute=10)), 3.0).left(last_of_its_minute) == 10


def test_the_server_knows_best_what_is_left_of_its_window():
    """Others may use the key; when that window is over, its account is too."""
    quota = Quota(Plan(minute=60, hour=3_600))
    quota.take(0.0)
    quota.answered(0.0, RateLimits(limit=60, remaining=20, reset_seconds=30))
    quota.take(1.0)
    assert quota.left(1.0) == 19
    over = 31.0  # a little after the server says
    assert quota.left(over) == 60 - 2
    anew = Quota(Plan(minute=10))
    for at in (0.0, 1.0, 2.0, 3.0):
        anew.take(at)
        anew.answered(at)
    anew.take(4.0)
    anew.answered(4.0, RateLimits(limit=10, remaining=9, reset_seconds=59))  # its window has begun
    assert anew.left(5.0) == 9
    unplanned = Quota(Plan())
    assert unplanned.left(0.0) is None
    unplanned.take(0.0)
    unplanned.answered(0.0, RateLimits(limit=60, remaining=0, reset_seconds=30))
    assert unplanned.left(1.0) == 0
    assert unplanned.left(40.0) is None


def test_after_a_429_no_call_is_left_until_it_has_ended():
    """Whatever the plan says."""
    quota = Quota(Plan(minute=10))
    quota.take(0.0)
    quota.refused(0.0, 30.0)
    assert quota.left(29.0) == 0
    assert quota.left(30.0) == 9
