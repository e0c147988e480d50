"""News of payments: how often it is worth a look, and how far it can be relied on."""

from __future__ import annotations

import math

import pytest

from paynexus_async import PaymentStatus
from paynexus_async._hearsay import Hearsay, News, is_settled

S = PaymentStatus


def looks_of(news: News, seconds: float) -> list[float]:
    """When a payment is looked at that stays open, whatever is heard of it, every tenth second."""
    now, looks = 0.0, []
    while now < seconds:
        news.heard(S.COMPLETED)
        if news.seconds_to_look(now) == 0:
            looks.append(round(now, 1))
            news.looked(now, S.PROCESSING)
        now += 0.1
    return looks


def test_repeating_a_delivery_buys_a_handful_of_looks():
    """Each look that confirms nothing doubles the time to the next one, up to half a minute."""
    looks = looks_of(News(), 121)
    assert looks == pytest.approx([0, 1, 3, 7, 15, 31, 61, 91], abs=0.8)


def test_what_is_not_confirmed_is_looked_at_again_for_a_while():
    """The server that answers may lag behind the one that sends webhooks: five looks, no more."""
    news, now, looks = News(), 0.0, 0
    news.heard(S.COMPLETED)
    while (seconds := news.seconds_to_look(now)) < math.inf:
        now += seconds
        news.looked(now, S.INITIATED)
        looks += 1
    assert (looks, now, news.is_open) == (5, 15.0, False)


def test_news_of_late_truth_keeps_away_from_the_look_that_settled_the_end():
    """Two pieces of news close together are two reasons, and no two looks within a second."""
    news = News()
    news.heard(S.FAILED)
    assert news.seconds_to_look(10.0) == 0
    news.looked(10.0, S.FAILED)
    news.heard(S.COMPLETED)
    assert news.seconds_to_look(10.25) == pytest.approx(0.75)
    assert news.seconds_to_look(12.0) == 0


def test_without_news_there_is_nothing_to_heed():
    """Neither before the first, nor after a look that settled it."""
    news = News()
    assert news.seconds_to_look(0.0) == math.inf
    news.heard(None)
    assert news.seconds_to_look(0.0) == 0.0
    news.looked(0.0, S.FAILED)
    assert news.seconds_to_look(0.0) == math.inf


def test_an_error_settles_nothing():
    """It is tried again a second later, then two."""
    news = News()
    news.heard(S.COMPLETED)
    news.looked(10.0, None)
    assert news.seconds_to_look(10.0) == 1.0
    news.looked(11.0, None)
    assert news.seconds_to_look(11.0) == 2.0


@pytest.mark.parametrize("claim", [None, *S])
@pytest.mark.parametrize("known", list(S))
def test_only_an_end_settles_and_money_may_follow_an_end_without(claim, known):
    """A payment that is said to be completed is asked for as long as it is not."""
    expected = known is S.COMPLETED or (
        known in {S.FAILED, S.CANCELLED, S.EXPIRED} and claim is not S.COMPLETED
    )
    assert is_settled(claim, known) is expected


def test_three_in_a_row_are_relied_on_and_four_that_fail_end_it():
    """Nothing is relied on before; a single loss among many changes nothing."""
    hearsay = Hearsay()
    said = []
    for heard in (True, True, True):
        said.append(hearsay.is_reliable)
        hearsay.ended(heard=heard)
    assert [*said, hearsay.is_reliable] == [False, False, False, True]
    for _ in range(30):
        hearsay.ended(heard=True)
    said = []
    for _ in range(4):
        hearsay.ended(heard=False)
        said.append(hearsay.is_reliable)
    assert said == [True, True, True, False]


def test_news_that_comes_just_after_the_look_counts_and_much_later_does_not():
    """A look may be faster than the webhook that was on its way."""
    prompt, slow = Hearsay(), Hearsay()
    for _ in range(5):
        prompt.ended(heard=False)
        prompt.came_after_all(2.0)
        slow.ended(heard=False)
        slow.came_after_all(300.0)
    assert prompt.is_reliable
    assert not slow.is_reliable


def test_news_of_the_unknown_is_kept_once_and_not_without_end():
    """The oldest goes first; it is taken by whichever name."""
    hearsay = Hearsay()
    hearsay.keep(["PNX-0", "ws_CO_0"])
    assert hearsay.take(["ws_CO_0", "PNX-9"])
    assert not hearsay.take(["ws_CO_0"])
    for number in range(1, 1_001):
        hearsay.keep([f"PNX-{number}"])
    assert not hearsay.take(["PNX-0"])
    assert hearsay.take(["PNX-1"])
    assert hearsay.take(["PNX-1000"])


def test_news_just_after_the_look_counts_exactly_like_news_before_it():
    """Up to a quarter of a minute, the boundary included; and there is no credit beyond that."""
    before, after, at_last = Hearsay(), Hearsay(), Hearsay()
    for _ in range(20):
        before.ended(heard=True)
        for hearsay, seconds in ((after, 0.1), (at_last, 15.0)):
            hearsay.ended(heard=False)
            hearsay.came_after_all(seconds)
        for hearsay in (after, at_last):
            assert hearsay._heard == pytest.approx(before._heard)
            assert hearsay._missed == pytest.approx(before._missed)
    credited = Hearsay()
    for _ in range(3):
        credited.came_after_all(1.0)
    assert credited._missed == 0.0


def test_a_first_end_that_was_missed_takes_five_to_make_good():
    """Nobody has been heard of before: the doubt of the beginning fades as ends do."""
    hearsay = Hearsay()
    hearsay.ended(heard=False)
    said = []
    for _ in range(5):
        hearsay.ended(heard=True)
        said.append(hearsay.is_reliable)
    assert said == [False, False, False, False, True]


def test_money_that_is_said_to_have_come_is_asked_for_again_after_an_end_without():
    """A second later, and two: late truth has its time."""
    news = News()
    news.heard(S.COMPLETED)
    news.looked(10.0, S.EXPIRED)
    assert news.is_open
    assert news.seconds_to_look(10.0) == 1.0
    news.looked(11.0, S.COMPLETED)
    assert not news.is_open
