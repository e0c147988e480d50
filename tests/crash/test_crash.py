"""Nothing is lost over crashes: a small run on each database, and a defect that is caught."""

from __future__ import annotations

import os

import pytest

from paynexus_async.durable import dbos_config

from .. import postgres
from .harness import Run, crash

needs_pidfd = pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="workers are killed by their pidfd, which is Linux's"
)
needs_postgres = pytest.mark.skipif(bool(postgres.why_not()), reason=postgres.why_not() or "")


@needs_pidfd
def test_nothing_is_lost_over_crashes_on_sqlite() -> None:
    """Killed 20 times, 40 orders are prompted for once at most, and told of exactly once."""
    run = crash(Run(orders=40, kills=20, seed=1))

    assert not run.verdict.violations, "\n".join(run.lines())
    assert sum(run.kinds.values()) == 20
    assert run.in_window, "no kill fell between a claim and its recorded answer"


@needs_pidfd
@needs_postgres
def test_nothing_is_lost_over_crashes_of_three_workers_on_postgresql() -> None:
    """Killed 9 times with 60 orders, one of them frozen and one left dead, workers take over from each other."""
    run = crash(Run(orders=60, kills=9, database="postgres", seed=1))

    assert not run.verdict.violations, "\n".join(run.lines())
    had, taken = run.taken_over["frozen"]
    assert had == taken > 0


@needs_pidfd
def test_a_worker_that_sends_again_is_caught() -> None:
    """What sends again after a crash is seen in the ledger: the harness is not blind."""
    runs = (crash(Run(orders=12, kills=8, seed=seed, defect="send-again")) for seed in range(5))

    assert any(run.verdict.broken["orders with more than one prompt"] for run in runs)


@needs_postgres
def test_a_worker_that_stands_still_in_a_transaction_loses_its_locks() -> None:
    """PostgreSQL itself ends its session, long before the engine's minute: the sweep goes on."""
    config = dbos_config("shop", "postgresql://postgres@127.0.0.1/shop")

    assert config["sys_db_idle_transaction_timeout_sec"] == 10.0
