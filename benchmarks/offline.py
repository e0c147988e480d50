"""How well could anybody do? Bounds for `benchmarks.quota`, computed with what no client can know.

Two figures for hours of given customers on one key:

`best_policy` is a policy that can be carried out. It knows the distribution of the customers
exactly, the server's window to the second, and nothing is ever lost or late; its price of a call,
its rule (the look whose optimum schedule is due, or whose value is above the price) and its pace
are those that serve THESE hours best, out of a grid, tried one after the other with hindsight.

`lower_bound` is a number that no policy can go below, even one that knows every arrival in
advance. Each minute's limit has to hold on average only (a relaxation), so the hour falls apart
into single payments under a price of a call for each minute; for fixed prices the optimum of each
is the recursion of a single payment, and the prices that make the bound largest are found by
ascent (a Lagrangian dual). It ignores that a minute's calls are spent by chance, so it cannot be
reached.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from paynexus_async import Schedule, Survival

if TYPE_CHECKING:
    from collections.abc import Sequence

TICK_SECONDS: Final = 0.1
GRID_SECONDS: Final = 0.5
GRID_END_SECONDS: Final = 240.0
PRICES: Final = (0.1, 0.15, 0.2, 0.275, 0.35, 0.5)
FREE_SHARES: Final = (1.0, 2.0, 4.0)
RULES: Final = ("due", "value")


@dataclass(frozen=True)
class Hour:
    """What is to be served."""

    per_minute: int
    arrivals: Sequence[float]
    ages: Sequence[float]
    latency: float


@dataclass(frozen=True)
class Found:
    """How a policy did."""

    mean: float
    p95: float
    calls: float
    policy: str = ""


def survival_of(ages: Sequence[float]) -> Survival:
    """Return the curve of a large sample."""
    ordered = np.sort(np.asarray(ages))
    grid = np.arange(0, GRID_END_SECONDS + 0.25, 0.25)
    chances = 1 - np.searchsorted(ordered, grid, side="right") / len(ordered)
    chances[0] = 1.0
    return Survival(0.25, tuple(float(chance) for chance in chances))


def best_policy(hours: Sequence[Hour], survival: Survival) -> Found:
    """Try all policies of the grid on these very hours."""
    schedules = {price: Schedule(price, survival) for price in PRICES}

    def tried(price: float, free_share: float, rule: str) -> Found:
        runs = [_run(hour, schedules[price], free_share, rule) for hour in hours]
        delays = sorted(delay for found, _ in runs for delay in found)
        return Found(
            mean=sum(delays) / len(delays),
            p95=delays[int(0.95 * len(delays))],
            calls=sum(calls for _, calls in runs) / len(delays),
            policy=f"{rule}, price {price}, pace {free_share}",
        )

    grid = itertools.product(PRICES, FREE_SHARES, RULES)
    return min((tried(*policy) for policy in grid), key=lambda found: found.mean)


def _run(hour: Hour, schedule: Schedule, free_share: float, rule: str) -> tuple[list[float], int]:
    """Serve the hour: one tick after the other, the most valuable look first."""
    waiting = sorted(zip(hour.arrivals, hour.ages, strict=True), reverse=True)
    open_: list[list[float]] = []  # arrival, end, age at the last look, when the next one is due
    delays: list[float] = []
    left, resets_at, paced_until, calls, now = hour.per_minute, -1.0, 0.0, 0, 0.0
    half = hour.latency / 2
    while waiting or open_:
        now += TICK_SECONDS
        while waiting and waiting[-1][0] + hour.latency <= now:
            arrival, age = waiting.pop()
            begun = arrival + half  # when the server sent the prompt
            pause = schedule.seconds_to_next_look(0.0, 0.0)
            open_.append([begun, begun + age, 0.0, begun + pause])
        while open_:
            if now >= resets_at:
                left = hour.per_minute
            if left == 0 or now < paced_until:
                break
            best, most = None, schedule.price if rule == "value" else 0.0
            for payment in open_:
                if rule == "due" and payment[3] > now:
                    continue
                if payment[2] > now - payment[0]:
                    continue  # its answer is on its way
                worth = schedule.value(payment[2], now - payment[0])
                if worth > most:
                    best, most = payment, worth
            if best is None:
                break
            if now >= resets_at:
                resets_at = now + 60.0
            left -= 1
            calls += 1
            share = left / hour.per_minute
            scarce = max(1 - share / free_share, 0.0) if free_share else 0.0
            paced_until = now + (resets_at - now) / max(left, 1) * scarce
            if now + half >= best[1]:
                open_.remove(best)
                delays.append(now + hour.latency - best[1])
            else:
                best[2] = now + hour.latency - best[0]
                best[3] = now + hour.latency + schedule.seconds_to_next_look(best[2], 0.0)
    return delays, calls


def lower_bound(hour: Hour, survival: Survival, steps: int = 150) -> float:
    """Return a mean delay that no policy can go below."""
    grid = np.arange(0, GRID_END_SECONDS + GRID_SECONDS, GRID_SECONDS)
    open_ = np.array([survival.at(age) for age in grid])
    areas = np.array([survival.open_seconds(age) for age in grid])
    arrivals = np.asarray(hour.arrivals)
    # The last look of a grid is past all endings, so every payment's delay is finite.
    minutes = math.ceil((float(arrivals.max()) + GRID_END_SECONDS) / 60) + 1
    minute_of = ((arrivals[:, None] + grid[None, :]) // 60).astype(int)
    prices = np.full(minutes, 0.1)
    best = 0.0
    # The server's windows may begin anywhere: two of its windows may share one of our minutes.
    limit = float(hour.per_minute)
    for step in range(steps):
        cost, calls = _relaxed(open_, areas, prices[minute_of], minute_of, minutes)
        bound = cost - limit * float(prices[: int(minutes)].sum())
        best = max(best, bound / len(arrivals))
        excess = (calls - limit) / limit
        prices = np.maximum(prices + 0.4 / math.sqrt(1 + step) * excess * (prices + 0.02), 0.0)
    return best + hour.latency / 2


def _relaxed(
    open_: np.ndarray,
    areas: np.ndarray,
    prices: np.ndarray,
    minute_of: np.ndarray,
    minutes: int,
) -> tuple[float, np.ndarray]:
    """Solve each payment under its prices; return the total cost and the calls by minute."""
    payments, points = prices.shape
    to_go = np.zeros((payments, points))
    following = np.zeros((payments, points), dtype=int)
    rows = np.arange(payments)
    for i in range(points - 2, -1, -1):
        if open_[i] <= 0:
            continue
        reach = slice(i + 1, min(points, i + 1 + int(45 / GRID_SECONDS)))
        # All in payment-seconds from the start: chances are not conditional, only paths are.
        delay = (np.arange(1, reach.stop - i) * GRID_SECONDS) * open_[i] - (areas[reach] - areas[i])
        costs = prices[:, reach] * open_[i] + delay[None, :] + to_go[:, reach]
        choice = np.argmin(costs, axis=1)
        to_go[:, i] = costs[rows, choice]
        following[:, i] = i + 1 + choice
    calls = np.zeros(minutes)
    place = np.zeros(payments, dtype=int)
    for _ in range(points):
        active = (place < points - 1) & (open_[place] > 0)
        if not active.any():
            break
        weights = open_[place[active]]
        place[active] = following[rows[active], place[active]]
        np.add.at(calls, minute_of[rows[active], place[active]], weights)
    return float(to_go[:, 0].sum()), calls
