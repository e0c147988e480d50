"""What a client learns: the customers it meets, slowly, and nothing about any of them."""

from __future__ import annotations

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paynexus_async import ConfigurationError, Schedule, Survival
from paynexus_async._experience import Experience
from paynexus_async._schedule import PRIOR

from .fakes import REFERENCE, FakeServer, status

BALANCED = Schedule()


def of_customers(count: int, *, median: float, seed: int = 1) -> Survival:
    """Return what is learned of so many customers, seen every three seconds."""
    rng = random.Random(seed)
    experience = Experience(BALANCED)
    for _ in range(count):
        end = rng.lognormvariate(math.log(median), 0.4)
        seen_open = 3 * math.floor(end / 3)
        experience.ended(seen_open, seen_open + 3)
    survival = experience.news()
    assert survival is not None
    return survival


def distance(survival: Survival, median: float) -> float:
    """Return how far a curve is from that of such customers."""
    return max(
        abs(survival.at(age) - (1 - _phi((math.log(age) - math.log(median)) / 0.4)))
        for age in range(1, 100)
    )


def _phi(deviations: float) -> float:
    return (1 + math.erf(deviations / math.sqrt(2))) / 2


def test_slow_customers_are_learned_slowly():
    """Ten change next to nothing, two thousand nearly all."""
    few, some, many = (of_customers(n, median=30) for n in (30, 250, 2_000))
    assert max(abs(few.at(age) - PRIOR.at(age)) for age in range(100)) < 0.1
    assert distance(PRIOR, 30) > 2 * distance(some, 30) / 1.1 > 2 * distance(many, 30)
    assert distance(many, 30) < 0.09


def test_old_customers_fade():
    """The shop has moved: the last few thousand decide."""
    rng = random.Random(2)
    experience = Experience(BALANCED)
    for median in [10] * 3_000 + [40] * 5_000:
        end = rng.lognormvariate(math.log(median), 0.4)
        experience.ended(end, end + 0.5)
    counts = experience.as_json()["ended_by_age"]
    assert isinstance(counts, list)
    assert sum(counts) == pytest.approx(2_000, abs=0.1)
    assert sum(counts[:20]) < 0.2 * sum(counts[20:])


def test_an_end_between_two_looks_is_shared_out_as_it_is_likely():
    """Nobody saw when; the curve so far says where it may have been."""
    experience = Experience(BALANCED)
    experience.ended(10.0, 20.0)
    counts = experience.as_json()["ended_by_age"]
    assert sum(counts[10:20]) == pytest.approx(1, abs=0.01)
    assert counts[12] > counts[19] > 0  # most customers end at about 12 s
    experience.ended(20.0, 20.0)  # no time at all between two looks says nothing
    assert sum(experience.as_json()["ended_by_age"]) == pytest.approx(1, abs=0.01)
    experience.ended(500.0, 900.0)
    assert experience.as_json()["ended_by_age"][-1] == pytest.approx(1, abs=0.01)


@given(st.lists(st.tuples(st.floats(0, 300), st.floats(0, 60)), max_size=60))
def test_whatever_is_seen_makes_a_curve(intervals):
    """One that a schedule takes."""
    experience = Experience(BALANCED)
    for after, width in intervals:
        experience.ended(after, after + width)
    survival = experience.news()
    if survival is not None:
        assert Schedule(survival=survival).seconds_to_next_look(5.0, 0.5) > 0
    assert experience.news() is None  # nothing new since


def test_what_was_thought_impossible_can_be_learned():
    """A curve that has ended by then gets a second wave."""
    quick = Schedule(survival=Survival(1.0, (1.0, 0.5, *[0.0] * 119)))
    experience = Experience(quick)
    for _ in range(2_000):
        experience.ended(50.0, 60.0)
    survival = experience.news()
    assert survival is not None
    assert survival.at(49) - survival.at(61) > 0.85


def test_without_news_no_new_curve():
    """A table is solved for each: not after every payment."""
    experience = Experience(BALANCED)
    news = []
    for _ in range(1_000):
        experience.ended(9.0, 12.0)
        news.append(experience.news() is not None)
    assert 5 < sum(news) < 20


def test_a_curve_of_a_faster_life_is_learned_on_its_own_scale():
    """As a sandbox has it."""
    fast = Schedule(survival=PRIOR.scaled(0.01))
    experience = Experience(fast)
    for _ in range(1_000):
        experience.ended(0.30, 0.33)
    survival = experience.news()
    assert survival is not None
    assert survival.at(0.29) - survival.at(0.34) > 0.7


def test_what_was_learned_can_be_kept():
    """As a small JSON value."""
    experience = Experience(BALANCED)
    for _ in range(300):
        experience.ended(40.0, 41.0)
    kept = json.dumps(experience.as_json())
    assert len(kept) < 1_500
    again = Experience(BALANCED, json.loads(kept))
    assert again.as_json() == experience.as_json()
    assert again.news() == experience.news()


@pytest.mark.parametrize(
    "saved",
    [
        {},
        [],
        {"version": 2, "ended_by_age": [0] * 121},
        {"version": 1, "ended_by_age": [0] * 120},
        {"version": 1, "ended_by_age": [0] * 120 + [-1]},
        {"version": 1, "ended_by_age": [0] * 120 + ["x"]},
        {"version": 1, "ended_by_age": [0] * 120 + [math.inf]},
        {"version": 1, "ended_by_age": "x" * 121},
    ],
)
def test_what_was_never_learned_is_refused(saved):
    """With a word about what it must be."""
    with pytest.raises(ConfigurationError, match="experience must"):
        FakeServer().client(experience=saved)


@pytest.mark.anyio
@pytest.mark.parametrize("learn", [True, False])
async def test_a_client_learns_from_the_payments_it_follows_unless_told_not_to(server, learn):
    """Between two looks; and a payment first seen at its end says nothing."""
    server.answers(status("processing"), status("completed"))
    async with server.client(learn=learn) as paynexus:
        await paynexus.wait_for_completion(REFERENCE)
        learned = sum(paynexus.experience["ended_by_age"])
    assert learned == pytest.approx(1 if learn else 0, abs=0.01)


@pytest.mark.anyio
async def test_a_client_starts_with_what_another_has_learned(server):
    """Slow customers are looked at later."""
    experience = Experience(BALANCED)
    for _ in range(2_000):
        experience.ended(50.0, 52.0)
    moments = []
    for saved in (None, experience.as_json()):
        server.times.clear()
        server.answers(*[status("processing")] * 5, status("completed"))
        async with server.client(experience=saved) as paynexus:
            await paynexus.wait_for_completion(REFERENCE, max_wait=900)
        moments.append(server.times[1] - server.times[0])
    assert moments[1] > 1.5 * moments[0]


@pytest.mark.parametrize("count", [10**400, 1e308, -1, float("nan"), "1", None])
def test_a_damaged_memory_is_refused_as_one(count):
    """A number that no count ever was, as a damaged file holds it, is a configuration error."""
    damaged = {"version": 1, "ended_by_age": [count] + [0.0] * 120}
    with pytest.raises(ConfigurationError, match="experience must hold 121 counts"):
        FakeServer().client(experience=damaged)
