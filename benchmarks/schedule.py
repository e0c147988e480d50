"""When to ask: the shipped schedule beside fixed and exponential polling, and beside the optimum.

    python -m benchmarks.schedule [--payments 100000] [--seed 1] [--json]

Simulates payments whose ages at their end are drawn from the prior (70% lognormal around 14 s, 15%
lognormal around 8 s, 15% after 60 s), an assumption and not PayNexus data, and then from customers
who are half as fast as the schedule believes. Calls are the looks up to and including the one that
finds the end; delay is the time from the end to that look. Exits with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import random
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import Bar, Report, Table
from paynexus_async._schedule import PRIOR, Schedule, Survival

HORIZON_SECONDS = 400.0
Next = Callable[[float], float]  # from the age at a look to the pause after it


@dataclass(frozen=True)
class Row:
    """One schedule's figures."""

    name: str
    calls: float
    mean: float
    p95: float


def outcome_ages(count: int, seed: int, slowness: float = 1.0) -> list[float]:
    """Draw the ages at which payments end."""
    rng = random.Random(seed)

    def draw() -> float:
        kind = rng.random()
        if kind < 0.70:
            return slowness * rng.lognormvariate(2.6390573, 0.55)  # ln 14
        if kind < 0.85:
            return slowness * rng.lognormvariate(2.0794415, 0.60)  # ln 8
        return 60 + rng.expovariate(1 / 3)

    return sorted(draw() for _ in range(count))


def looks(next_look: Next, *, at_once: bool) -> Iterator[float]:
    """Yield the ages at which a schedule looks; loops that poll begin with a look at age 0."""
    age = 0.0
    if at_once:
        yield age
    while age < HORIZON_SECONDS:
        age += next_look(age)
        yield age


def measure(name: str, next_look: Next, ages: list[float], *, at_once: bool = False) -> Row:
    """Let a schedule meet every payment."""
    moments = list(looks(next_look, at_once=at_once))
    places = [bisect_left(moments, age) for age in ages]
    places = [min(place, len(moments) - 1) for place in places]
    delays = sorted(max(moments[p] - a, 0.0) for p, a in zip(places, ages, strict=True))
    calls = sum(place + 1 for place in places) / len(ages)
    return Row(name, calls, sum(delays) / len(delays), delays[int(0.95 * len(delays))])


def fixed(seconds: float) -> Next:
    """Poll every so many seconds."""
    return lambda _: seconds


def exponential(first: float, factor: float, cap: float) -> Next:
    """Back off, as most clients do: the pause depends on the attempt."""
    pauses = iter(min(first * factor**n, cap) for n in range(10_000))
    return lambda _: next(pauses)


def v_rule(price: float, survival: Survival = PRIOR) -> Next:
    """Look when the ignorance that a look ends reaches the price: the best single step."""
    schedule = Schedule(price, survival)

    def pause(age: float) -> float:
        seconds = 0.25
        while schedule.value(age, age + seconds) < price and seconds < 30:
            seconds += 0.05
        return seconds

    return pause


def shipped(price: float) -> Next:
    """The schedule of `wait_for_completion`."""
    return partial(Schedule(price).seconds_to_next_look, jitter=0.5)


def optimum(price: float, step: float = 0.1, horizon: float = 110.0) -> Next:
    """Solve the recursion by brute force on a finer grid, written down independently."""
    points = round(horizon / step)
    chance = [PRIOR.at(i * step) for i in range(points + 1)]
    area = [0.0]
    for a, b in pairwise(chance):
        area.append(area[-1] + (a + b) / 2 * step)
    cost = [0.0] * (points + 1)
    best = [1] * (points + 1)
    for i in range(points - 1, -1, -1):
        if chance[i] < 1e-6:
            best[i] = round(3 / step)
            continue
        cost[i] = float("inf")
        for j in range(i + 1, min(points, i + round(40 / step)) + 1):
            s = (j - i) * step
            total = price + s - (area[j] - area[i]) / chance[i] + chance[j] / chance[i] * cost[j]
            if total < cost[i]:
                cost[i], best[i] = total, j - i
    return lambda age: best[min(round(age / step), points - 1)] * step


def at_calls(calls: float, ages: list[float]) -> Row:
    """Find the price at which the shipped schedule spends just so many calls a payment."""
    low, high = 0.005, 20.0
    for _ in range(30):
        price = (low * high) ** 0.5
        row = measure("", shipped(price), ages)
        low, high = (price, high) if row.calls > calls else (low, price)
    return measure(f"shipped, price {high:.3f}", shipped(high), ages)


def main() -> int:
    """Print the tables and the bars."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--payments", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    ages = outcome_ages(options.payments, options.seed)
    naive = [
        measure("fixed 3 s", fixed(3), ages, at_once=True),
        measure("fixed 5 s", fixed(5), ages, at_once=True),
        measure("exponential 1 s x2 cap 10", exponential(1, 2, 10), ages, at_once=True),
        measure("exponential 2 s x1.5 cap 15", exponential(2, 1.5, 15), ages, at_once=True),
    ]
    prices = (0.1, 0.2, 0.25, 0.35, 1.0)
    rows = naive + [measure(f"V rule, price {p}", v_rule(p), ages) for p in prices[:4]]
    ours = {p: measure(f"shipped, price {p}", shipped(p), ages) for p in prices}
    best = {p: measure(f"optimum (brute force), price {p}", optimum(p), ages) for p in prices}
    rows += [*ours.values(), *best.values()]

    bars: list[Bar] = []
    for row, bar in zip(naive, (0.7, None, 0.4, 0.4), strict=True):
        equal = at_calls(row.calls, ages)
        rows.append(Row(f"{equal.name}: the calls of {row.name}", *_figures(equal)))
        if bar is not None:
            bars.append(Bar(f"mean delay at the calls of {row.name}", equal.mean / row.mean, bar))
    for price in prices:
        ratio = _cost(price, ours[price]) / _cost(price, best[price])
        bars.append(Bar(f"cost beside the optimum, price {price}", ratio, 1.05))
        equal = at_calls(best[price].calls, ages)
        words = f"mean delay at the optimum's calls, price {price}"
        bars.append(Bar(words, equal.mean / best[price].mean, 1.05))

    slow = outcome_ages(options.payments, options.seed, slowness=2.0)
    wrong = [
        measure("fixed 3 s", fixed(3), slow, at_once=True),
        measure("exponential 1 s x2 cap 10", exponential(1, 2, 10), slow, at_once=True),
    ]
    wrong += [
        Row(f"shipped: the calls of {row.name}", *_figures(at_calls(row.calls, slow)))
        for row in wrong
    ]

    tables = [
        _table(f"{options.payments:,} payments, as assumed", rows),
        _table("Customers half as fast as the schedule believes (no bar)", wrong),
    ]
    return Report("schedule", tables, bars).finish(as_json=options.json)


def _table(title: str, rows: list[Row]) -> Table:
    columns = ["schedule", "calls a payment", "mean delay s", "95% within s"]
    return Table(title, columns, [[row.name, *_figures(row)] for row in rows])


def _figures(row: Row) -> tuple[float, float, float]:
    return row.calls, row.mean, row.p95


def _cost(price: float, row: Row) -> float:
    return price * row.calls + row.mean


if __name__ == "__main__":
    sys.exit(main())
