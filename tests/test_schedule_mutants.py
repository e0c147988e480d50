"""Claims about the schedule that only a changed line of it had shown to be missing."""

from __future__ import annotations

import math

import pytest

from paynexus_async import Schedule, Survival, _schedule

STRAIGHT = Survival(1.0, (1.0, 0.5, 0.0))


def answered(age: float, median: float, sigma: float) -> float:
    """The share of customers who have answered by an age, by the definition of a lognormal time."""
    return 0.5 * (1 + math.erf((math.log(age) - math.log(median)) / sigma / math.sqrt(2)))


@pytest.mark.parametrize("age", [0.5, 5.0, 8.0, 14.0, 40.0, 60.0, 61.0, 63.0, 90.0])
def test_most_customers_answer_some_decline_and_the_rest_let_it_expire(age):
    """70% answer in 14 s, 15% decline in 8 s (medians), 15% do nothing for a minute."""
    expired = 1.0 if age <= 60 else math.exp(-(age - 60) / 3)
    still_open = 0.7 * (1 - answered(age, 14, 0.55)) + 0.15 * (1 - answered(age, 8, 0.6))
    assert _schedule._prior(age) == pytest.approx(still_open + 0.15 * expired, abs=1e-12)


@pytest.mark.parametrize("age", [0.0, -1.0])
def test_everything_is_open_at_the_beginning(age):
    """A lognormal time is never zero."""
    assert _schedule._prior(age) == 1.0


def test_two_points_are_a_curve_and_an_end_of_zero_is_one():
    """The least that can be said of customers."""
    assert Survival(1.0, (1.0, 0.0)).at(0.5) == 0.5
    assert Survival(0.5, (1.0, 1.0)).at(99) == 1.0


@pytest.mark.parametrize(
    "chances", [(1.0,), (0.9, 0.0), (1.0, -0.1), (1.0, 0.5, -0.1), (1.0, 0.2, 0.3), (2.0, 1.0)]
)
def test_what_is_no_curve_is_refused(chances):
    """Each reason by itself."""
    with pytest.raises(ValueError, match="chances must fall from 1"):
        Survival(1.0, chances)


def test_the_area_under_a_curve_goes_on_to_its_last_point():
    """And no further: what lies beyond counts as ended."""
    assert [STRAIGHT.open_seconds(age) for age in (0.0, 0.5, 1.0, 1.5, 2.0, 9.0)] == [
        0.0, 0.4375, 0.75, 0.9375, 1.0, 1.0,
    ]  # fmt: skip


@pytest.mark.parametrize("patience", [True, False, None, "patient"])
def test_a_patience_is_a_word_or_a_number(patience):
    """`True` is no second."""
    with pytest.raises(ValueError, match="patience must be one of eager, balanced, thrifty"):
        Schedule.of(patience)


def test_words_and_numbers_name_a_price():
    """And a schedule names itself."""
    assert [Schedule.of(p).price for p in ("eager", "thrifty", 2, 0.5)] == [0.1, 1.0, 2.0, 0.5]
    schedule = Schedule(0.2)
    assert Schedule.of(schedule) is schedule


def test_the_tail_begins_at_its_age_and_not_after_it():
    """There, the least pause of the tail holds, a quarter of it spread by chance."""
    schedule = Schedule()
    begin = schedule._table.tail_age
    assert schedule.seconds_to_next_look(begin, 0.0) == 3.0
    assert schedule.seconds_to_next_look(begin, 1.0) == 2.25
    assert schedule.seconds_to_next_look(begin + 20, 0.0) == 10.0
    assert schedule.seconds_to_next_look(begin + 500, 0.0) == 30.0


def test_in_the_tail_a_look_is_worth_its_price_when_due_and_four_times_at_twice_that():
    """So nobody starves."""
    schedule = Schedule()
    begin = schedule._table.tail_age
    assert schedule.value(begin, begin + 3.0) == pytest.approx(schedule.price)
    assert schedule.value(begin, begin + 6.0) == pytest.approx(4 * schedule.price)


def test_a_sampled_curve_has_a_point_each_quarter_of_a_second_for_two_minutes():
    """Both ends included."""
    survival = Survival.sampled(lambda age: 1 - age / 200)
    assert (survival.step_seconds, len(survival.chances)) == (0.25, 481)
    assert survival.chances[::240] == (1.0, 0.7, 0.4)


def test_half_a_step_into_a_curve_is_half_a_step_of_its_area():
    """Whatever the length of the step."""
    curve = Survival(0.5, (1.0, 0.5, 0.25))
    assert curve.open_seconds(0.75) == pytest.approx(0.375 + 0.25 * (0.5 + 0.375) / 2)


def test_before_the_tail_a_look_is_worth_the_ignorance_that_it_ends():
    """The time since the last look, less the time that it was open on average."""
    schedule = Schedule(survival=Survival(1.0, (1.0, 1.0, 0.5, 0.5, 0.0)))
    assert schedule.value(0.0, 1.0) == 0.0
    assert schedule.value(1.0, 2.0) == pytest.approx(0.25)
    assert schedule.value(2.0, 3.0) == 0.0
    assert schedule.value(2.0, 4.0) == pytest.approx(2 - 0.75 / 0.5)
