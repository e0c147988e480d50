"""When to look: invariants for any age, and the bars of the benchmark in small."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import schedule as benchmark
from paynexus_async import Schedule, Survival
from paynexus_async import _schedule as module
from paynexus_async._schedule import BALANCED, EAGER, PRIOR, THRIFTY

ages = st.floats(0, 10_000)
prices = st.sampled_from([EAGER, BALANCED, THRIFTY, 0.01, 30.0])
PAYMENTS = benchmark.outcome_ages(4_000, seed=7)


@given(prices, ages, st.floats(0, 1))
def test_the_next_look_is_always_ahead_and_never_far(price, age, jitter):
    """No price hammers the API, and no age stops the looking."""
    seconds = Schedule(price).seconds_to_next_look(age, jitter)
    assert 0.5 <= seconds <= 80
    if age > module.LATE_TRUTH_AGE_SECONDS:
        assert seconds <= 30


@given(prices, ages, ages, st.floats(0, 1_000))
def test_the_value_of_a_look_is_finite_and_grows_with_the_wait(price, last, wait, more):
    """So that nobody starves."""
    schedule = Schedule(price)
    now, later = schedule.value(last, last + wait), schedule.value(last, last + wait + more)
    assert 0 <= now <= later + 1e-6
    assert math.isfinite(later)
    assert schedule.value(last, last) == 0


def test_a_dearer_call_means_fewer_looks():
    """The price is the knob."""
    calls = [
        benchmark.measure("", benchmark.shipped(p), PAYMENTS).calls
        for p in (EAGER, BALANCED, THRIFTY)
    ]
    assert calls == sorted(calls, reverse=True)


@pytest.mark.parametrize(("name", "naive", "bar"), [
    ("fixed", benchmark.fixed(3), 0.7),
    ("exponential", benchmark.exponential(1, 2, 10), 0.4),
])  # fmt: skip
def test_at_equal_calls_it_knows_sooner_than_what_others_do(name, naive, bar):
    """The delay is a fraction of that of the usual polling."""
    usual = benchmark.measure(name, naive, PAYMENTS, at_once=True)
    ours = benchmark.at_calls(usual.calls, PAYMENTS)
    assert ours.calls <= usual.calls
    assert ours.mean <= bar * usual.mean


def test_nobody_is_asked_in_the_first_seconds_nor_twice_before_expiry_for_nothing():
    """It waits for the first answers, and then for the wave of expiries."""
    schedule = Schedule()
    assert schedule.seconds_to_next_look(0, 0.5) > 4
    moments = [
        age for age in benchmark.looks(benchmark.shipped(BALANCED), at_once=False) if age < 75
    ]
    assert max(b - a for a, b in itertools.pairwise(moments)) > 8
    assert sum(60 < age < 66 for age in moments) >= 3


def test_jitter_spreads_the_tail_and_nothing_else():
    """The looks of the first minute are few already."""
    schedule = Schedule()
    assert schedule.seconds_to_next_look(10, 0) == schedule.seconds_to_next_look(10, 1)
    assert schedule.seconds_to_next_look(500, 1) == 0.75 * schedule.seconds_to_next_look(500, 0)


def test_a_faster_life_is_followed_faster():
    """All times scale together."""
    fast = Schedule(BALANCED / 10, PRIOR.scaled(0.1))
    slow = Schedule(BALANCED)
    for age in (0, 5, 20, 45, 61, 80):
        assert fast.seconds_to_next_look(age / 10, 0) == pytest.approx(
            slow.seconds_to_next_look(age, 0) / 10, rel=0.05
        )


def test_the_table_is_made_once():
    """One client or a thousand: the same schedule shares it."""
    assert Schedule(0.123)._table is Schedule(0.123)._table


@pytest.mark.parametrize("price", [0, -1, math.nan, math.inf])
def test_a_price_that_is_none_is_refused(price):
    """It must be positive and finite."""
    with pytest.raises(ValueError, match="price"):
        Schedule(price)


@pytest.mark.parametrize("age", [-1, math.nan])
def test_an_age_that_is_none_is_refused(age):
    """A clock that jumped is somebody's defect."""
    with pytest.raises(ValueError, match="age"):
        Schedule().seconds_to_next_look(age, 0)


@pytest.mark.parametrize(
    ("step", "chances"),
    [(0, (1.0, 0.0)), (1, (1.0,)), (1, (0.9, 0.1)), (1, (1.0, 0.5, 0.6)), (1, (1.0, -0.1)), (math.inf, (1.0, 0.0))],
)  # fmt: skip
def test_a_curve_that_is_none_is_refused(step, chances):
    """It starts at 1 and falls."""
    with pytest.raises(ValueError, match=r"step_seconds|chances"):
        Survival(step, chances)


def test_a_curve_can_be_read_between_and_beyond_its_points():
    """Straight lines between, the last value beyond."""
    curve = Survival(2.0, (1.0, 0.5, 0.0))
    assert [curve.at(age) for age in (0, 1, 2, 3, 4, 100)] == [1, 0.75, 0.5, 0.25, 0, 0]
    assert [curve.open_seconds(age) for age in (0, 2, 4, 100)] == [0, 1.5, 2, 2]
    assert Schedule(1, curve).seconds_to_next_look(0, 0) > 0


def looks_that_find_it_open(schedule: Schedule) -> float:
    """How many looks of the safety net a payment costs on average, besides the one that ends it."""
    age, looks = 0.0, 0.0
    while age < 120:
        age += schedule.seconds_to_next_look(age, 0.0, is_safety_net=True)
        looks += schedule.survival.at(age)
    return looks


def test_a_safety_net_costs_less_than_one_look_and_is_as_close_as_that_allows():
    """Whatever the price of a call, and whatever the customers."""
    slow = Survival.sampled(lambda age: math.exp(-age / 25))
    for survival in (PRIOR, PRIOR.scaled(0.1), slow):
        schedule = Schedule(survival=survival)
        net = schedule.safety_net_seconds
        assert 0.7 < looks_that_find_it_open(schedule) <= 0.91
        assert Schedule(price=3.0, survival=survival).safety_net_seconds == net
        closer = net - 2 * survival.step_seconds
        at_ages = (survival.at(number * closer) for number in range(1, int(120 / closer)))
        assert sum(at_ages) > 0.9
    assert Schedule().safety_net_seconds == 15.75
    assert Schedule(survival=Survival(1.0, (1.0, 0.0))).safety_net_seconds == 1.0


def test_a_safety_net_is_never_closer_than_the_schedule():
    """Late truth is looked for as seldom as without it, or less."""
    schedule = Schedule()
    for age in range(200):
        usual = schedule.seconds_to_next_look(age, 0.5)
        assert schedule.seconds_to_next_look(age, 0.5, is_safety_net=True) >= usual
