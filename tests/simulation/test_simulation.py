"""The simulation itself: no promise is broken, each run repeats to the byte, each mutant dies."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from paynexus_async.sandbox import FAULTS as SANDBOX_FAULTS

from .faults import EXCHANGE_FAULTS, SANDBOX_KINDS
from .mutants import MUTANTS, Mutant
from .runs import FAULTS, catch, run_many
from .telemetry import HEARD
from .world import Report, simulate

ASYNCIO, TRIO = 3, 7  # seeds: every sixteenth world runs on trio
HTTPX2, HTTPX2_ON_TRIO = 8, 71  # and every ninth over httpx2

FOUND = {
    "whoever asks by name completes everybody's payment": 6,
    "gives up a short wait without a look": 1,
    "another payment's answer ends a prompt": 0,
    "says that nothing was sent when it was closed while paying": 3,
    "shows the phone in a result's checkout request id": 0,
    "an item that is None ends a bulk": 1,
    "a prompt for something else may be paid as that": 2,
    "what a caller brings outranks what was sent": 13,
    "who waits by another name is told nothing": 12,
}
"""Defects that the simulation has found in the client, and the seed of a world that shows each."""


def test_no_promise_is_broken():
    """In a few dozen worlds; the command runs any number of them."""
    total = Report()
    for report in run_many(900, seed=0, jobs=1):
        total += report
    replay = [f"--seed {seed} --trace: {violation}" for seed, violation in total.violations]
    assert replay == []
    assert total.payments == 900
    assert len([name for name in FAULTS if total.hits[name]]) > 0.85 * len(FAULTS)


@pytest.mark.parametrize(
    "seed",
    [ASYNCIO, TRIO, HTTPX2, HTTPX2_ON_TRIO],
    ids=["asyncio", "trio", "httpx2", "httpx2 on trio"],
)
def test_a_seed_repeats_to_the_byte(seed: int):
    """Every event, byte and time of a run, on both event loops and over both libraries."""
    first, second = simulate(seed), simulate(seed)
    assert first == second
    assert first.digest != simulate(seed + 16).digest


@pytest.mark.parametrize(("seed", "loop"), [(HTTPX2, "asyncio"), (HTTPX2_ON_TRIO, "trio")])
def test_all_of_a_world_over_httpx2_goes_over_it(seed: int, loop: str):
    """Payments too, and on both event loops; in other worlds nothing does."""
    report = simulate(seed)
    assert report.hits[f"over httpx2, on {loop}"] == report.requests > 0
    others = simulate(ASYNCIO).hits + simulate(TRIO).hits
    assert not [hit for hit in others if "httpx2" in hit]


def test_every_fault_of_the_sandbox_can_happen_here():
    """The network here has no fewer ways to fail than the sandbox, whose kinds are ordered."""
    assert set(SANDBOX_KINDS) == set(SANDBOX_FAULTS)
    assert {fault for faults in SANDBOX_KINDS.values() for fault in faults} <= set(EXCHANGE_FAULTS)


@pytest.mark.parametrize("seed", [ASYNCIO, TRIO], ids=["asyncio", "trio"])
def test_telemetry_changes_nothing(seed: int, monkeypatch: pytest.MonkeyPatch):
    """A client that is observed does the same things, at the same moments, to the byte."""
    observed = simulate(seed)
    monkeypatch.setattr(HEARD, "telemetry", None)
    assert simulate(seed) == observed


def test_a_seed_repeats_in_another_process():
    """Whatever the order of its sets is: hashes are salted differently there."""
    seeds = (ASYNCIO, HTTPX2)
    program = (
        "from tests.simulation.world import simulate\n"
        f"print([simulate(seed).digest for seed in {seeds}])"
    )
    digests = set()
    for salt in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": salt},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(done.stdout.strip())
    assert digests == {str([simulate(seed).digest for seed in seeds])}


def test_a_trace_shows_what_happened(capsys: pytest.CaptureFixture[str]):
    """It changes nothing."""
    traced = simulate(ASYNCIO, payments=3, trace=True)
    shown = capsys.readouterr().out
    assert traced == simulate(ASYNCIO, payments=3)
    assert "POST /api/mpesa/payment/initiate" in shown


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_defect_is_found(mutant: Mutant):
    """By a promise that it breaks, within a bounded number of worlds."""
    assert catch(mutant, seed=0, worlds=1, worlds_max=120).caught


@pytest.mark.parametrize("found", FOUND, ids=lambda name: name)
def test_what_was_found_stays_mended(found: str):
    """A world near the one that showed it shows it still where the defect is back.

    And that one is whole without. Worlds change with the libraries in them: the search goes on
    for a while, and `--mutants` prints the seed of today.
    """
    seed = FOUND[found]
    (mutant,) = [mutant for mutant in MUTANTS if mutant.name == f"as it was: {found}"]
    assert catch(mutant, seed=seed, worlds=1, worlds_max=150).caught
    assert simulate(seed).violations == ()


RARE = {
    "what is found again goes back": 7001136,
    "a payment whose description is left out is taken for the lost one": 8003109,
}


@pytest.mark.parametrize("seed", RARE.values(), ids=RARE)
def test_a_world_that_showed_a_rare_defect_is_whole(seed: int):
    """Too rare to be planted and searched for; a test of the client's own shows each, too."""
    assert simulate(seed).violations == ()
