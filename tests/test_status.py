"""The state machine, held against an expectation written by hand."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paynexus_async import TERMINAL, TRANSITIONS, Change, PaymentStatus, advance

# Rows: what is known. Columns: what is observed. In each cell what holds afterwards and why:
# = same, > advanced, ! revised (late truth), < stale, x conflicting.
MATRIX = """
              initiated     undocumented  processing    completed     failed        cancelled     expired
initiated     initiated=    undocumented> processing>   completed>    failed>       cancelled>    expired>
undocumented  undocumented< undocumented= processing>   completed>    failed>       cancelled>    expired>
processing    processing<   processing<   processing=   completed>    failed>       cancelled>    expired>
completed     completed<    completed<    completed<    completed=    completedx    completedx    completedx
failed        failed<       failed<       failed<       completed!    failed=       failedx       failedx
cancelled     cancelled<    cancelled<    cancelled<    completed!    cancelledx    cancelled=    cancelledx
expired       expired<      expired<      expired<      completed!    expiredx      expiredx      expired=
"""
SIGNS = {
    "=": Change.SAME,
    ">": Change.ADVANCED,
    "!": Change.REVISED,
    "<": Change.STALE,
    "x": Change.CONFLICTING,
}
HEADER, *ROWS = [line.split() for line in MATRIX.strip().splitlines()]
CELLS = [
    (row[0], column, cell[:-1], SIGNS[cell[-1]])
    for row in ROWS
    for column, cell in zip(HEADER, row[1:], strict=True)
]
statuses = st.sampled_from(PaymentStatus)


@pytest.mark.parametrize(("known", "observed", "expected", "change"), CELLS)
def test_every_pair_of_statuses_merges_as_written(known, observed, expected, change):
    """All 49 pairs give the status and the kind of change that the table above says."""
    assert (PaymentStatus(expected), change) == advance(
        PaymentStatus(known), PaymentStatus(observed)
    )


def test_the_matrix_is_complete():
    """The hand-written table has every pair, once."""
    assert len(CELLS) == 49
    assert {(known, observed) for known, observed, *_ in CELLS} == {
        (known.value, observed.value) for known in PaymentStatus for observed in PaymentStatus
    }


def test_the_terminal_statuses_are_those_without_a_follower():
    """Terminal is derived, and comes out as the documentation says."""
    assert {"completed", "failed", "cancelled", "expired"} == TERMINAL
    assert [s for s in PaymentStatus if s.is_terminal] == [s for s in TRANSITIONS if s in TERMINAL]


@given(statuses, st.lists(statuses))
def test_completed_is_never_taken_back(known, observations):
    """Once completed has been observed, no later observation changes it."""
    status, _ = advance(known, PaymentStatus.COMPLETED)
    for observed in observations:
        status, change = advance(status, observed)
        assert status is PaymentStatus.COMPLETED
        assert change not in {Change.ADVANCED, Change.REVISED}


@given(statuses, statuses)
def test_the_same_observation_twice_changes_nothing_the_second_time(known, observed):
    """Deliveries repeat; merging is idempotent."""
    once, _ = advance(known, observed)
    twice, change = advance(once, observed)
    assert once is twice
    assert change not in {Change.ADVANCED, Change.REVISED}


@given(st.lists(statuses, max_size=4))
def test_reordered_observations_of_one_true_history_end_alike(extra):
    """However a history that ends in one terminal status is shuffled, its end is the same."""
    history = [s for s in extra if not s.is_terminal] + [PaymentStatus.EXPIRED]
    for order in permutations(history):
        status = PaymentStatus.INITIATED
        for observed in order:
            status, _ = advance(status, observed)
        assert status is PaymentStatus.EXPIRED


@pytest.mark.parametrize("word", ["pending", "timeout", "reversed", "", "undocumented", "COMPLETE"])
def test_a_word_that_is_not_documented_is_not_terminal(word):
    """What the documentation does not know never ends a payment."""
    status = PaymentStatus.parse(word)
    assert status is PaymentStatus.UNDOCUMENTED
    assert not status.is_terminal
    assert not status.succeeded


@pytest.mark.parametrize("word", ["completed", " Completed ", "COMPLETED"])
def test_spelling_does_not_hide_a_documented_status(word):
    """Case and blanks around a documented word do not matter."""
    assert PaymentStatus.parse(word) is PaymentStatus.COMPLETED
    assert PaymentStatus.COMPLETED == "completed"
    assert PaymentStatus.COMPLETED.succeeded
