"""Many worlds, on as many processes as there are to spare."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Final

import attrs

from .faults import EXCHANGE_FAULTS
from .mutants import MUTANTS, Mutant
from .world import PAYMENTS_EACH, Report, simulate

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FAULTS", "Caught", "catch", "catch_all", "run_many"]

_WORLDS_A_TASK: Final = 20

FAULTS: Final = (
    *EXCHANGE_FAULTS,
    "request pauses while written",
    "initiate carried out when its caller had gone",
    "prompt after it was said that there is none",
    "server restarts",
    "refused while restarting",
    "wall clock jumps ahead",
    "Date header is off",
    "client closed in between",
    "over httpx2, on asyncio",
    "over httpx2, on trio",
    *(
        f"caller cancelled in {kind}"
        for kind in (
            *("initiate", "pay", "wait", "watch", "get", "get by checkout id"),
            *("check_payments", "wait_many", "wait_for_all", "find", "list"),
        )
    ),
    "customer: late truth",
    "customer: undocumented",
    "customer: stale",
    "customer: bare",
    "customer: other-amount",
    "customer: other-phone",
    "customer: other-reference",
    "customer: other-amount all along",
    "customer: other-phone all along",
)
"""Everything that can go wrong here."""


def _simulate_some(seeds: range) -> Report:
    return reduce(add, map(simulate, seeds))


def run_many(payments: int, *, seed: int, jobs: int) -> Iterator[Report]:
    """Yield reports as they come, of enough worlds for so many payments."""
    end = seed + -(-payments // PAYMENTS_EACH)
    tasks = [range(at, min(at + _WORLDS_A_TASK, end)) for at in range(seed, end, _WORLDS_A_TASK)]
    if jobs == 1:
        yield from map(_simulate_some, tasks)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(_simulate_some, tasks)


@attrs.frozen
class Caught:
    """How a mutant fared.

    Attributes:
        name: the mutant's.
        worlds: in which it lived.
        caught: worlds in which a promise that it breaks was seen broken.
        promises: how many worlds saw each promise broken.
        first: the seed of the first world that caught it.
    """

    name: str
    worlds: int
    caught: int
    promises: Counter[int]
    first: int | None


def catch(mutant: Mutant, *, seed: int, worlds: int, worlds_max: int) -> Caught:
    """Let a mutant live in so many worlds; in more, one after another, until it is caught."""
    promises: Counter[int] = Counter()
    caught, lived, first = 0, 0, None
    seed += mutant.seed
    with mutant.plant():
        while lived < worlds or (not caught and lived < worlds_max):
            broken = {violation.promise for _, violation in simulate(seed + lived).violations}
            promises.update(broken)
            if broken & mutant.promises:
                caught += 1
                first = seed + lived if first is None else first
            lived += 1
    return Caught(mutant.name, lived, caught, promises, first)


def _catch_number(task: tuple[int, int, int]) -> Caught:
    number, seed, worlds = task
    return catch(MUTANTS[number], seed=seed, worlds=worlds, worlds_max=10 * worlds)


def catch_all(worlds: int, *, seed: int, jobs: int) -> Iterator[Caught]:
    """Yield how each mutant fared in so many worlds, or in ten times as many if need be."""
    tasks = [(number, seed, worlds) for number in range(len(MUTANTS))]
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(_catch_number, tasks)
