"""One key, one quota, a whole shop: the client's budget beside the ways in which others poll.

    python -m benchmarks.quota [--seed 1] [--json]

Hours of virtual time for each plan and load, each begun anew, so many that no plan's figures rest
on a few customers. They arrive at random (Poisson), and each settles a prompt at an age drawn from
a model: first the one that the schedule believes in, then another one that it does not (slower
customers, who come in waves). The server is strict: fixed windows by the minute and by the hour, as
the plan has them, `X-RateLimit-*` headers, 429 with `Retry-After`. "Delay" is the time from a
payment's end to the moment its waiter knows.

The client is the real one, over httpx, on a clock that jumps. The others are loops of a few lines
against the same server. "Learned" has the `experience` of 700 customers who came before. The
best policy is found offline with knowledge of the distribution, the server's windows and the hour
itself; the bound is what no policy can reach (`benchmarks.offline` says how). Every figure comes
from the seed alone. Exits with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import os
import random
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import looptime

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import offline
from benchmarks.report import Bar, Figure, Report, Table, progress
from paynexus_async import AsyncPayNexus, PaymentStillPending

EPOCH = 1_790_000_000.0
LATENCY_SECONDS = 0.15
GIVE_UP_SECONDS = 300.0


@dataclass(frozen=True)
class Shop:
    """A plan, and the customers who meet it.

    Attributes:
        plan: its name.
        per_minute: calls that the plan allows.
        customers: who come in a minute, on average.
        hours: simulated, one by one.
    """

    plan: str
    per_minute: int
    customers: float
    hours: int


SHOPS = [
    Shop("trial", 30, 6, 6),
    Shop("basic", 60, 10, 6),
    Shop("professional", 120, 20, 3),
    Shop("enterprise", 300, 60, 1),
]
LOADS = (1, 2, 4, 6, 8, 10, 12)
"""Customers a minute on the basic plan, all below saturation."""
BARS = {
    "trial": (3.4, 9.6),
    "basic": (2.3, 5.6),
    "professional": (2.1, 5.2),
    "enterprise": (2.3, 5.3),
}


def believed(rng: random.Random) -> float:
    """Draw the age at which a payment ends, as the schedule believes."""
    kind = rng.random()
    if kind < 0.70:
        return rng.lognormvariate(math.log(14), 0.55)
    if kind < 0.85:
        return rng.lognormvariate(math.log(8), 0.60)
    return 60 + rng.expovariate(1 / 3)


def other(rng: random.Random) -> float:
    """Draw it from a model that the schedule does not know: slower, and fewer expire."""
    kind = rng.random()
    if kind < 0.80:
        return 4 + rng.gammavariate(2.5, 8)
    if kind < 0.92:
        return rng.uniform(3, 40)
    return 90 + rng.expovariate(1 / 5)


def steady(rng: random.Random, per_minute: float, seconds: float) -> list[float]:
    """Draw arrivals at one rate."""
    times, now = [], 0.0
    while (now := now + rng.expovariate(per_minute / 60)) < seconds:
        times.append(now)
    return times


def bunched(rng: random.Random, per_minute: float, seconds: float) -> list[float]:
    """Draw arrivals whose rate swings between half and one and a half, every ten minutes."""
    times, now = [], 0.0
    while (now := now + rng.expovariate(1.5 * per_minute / 60)) < seconds:
        if rng.random() < (1 + 0.5 * math.sin(now / 600 * 2 * math.pi)) / 1.5:
            times.append(now)
    return times


@dataclass
class Server:
    """Counts every call of a key in fixed windows, and knows when each payment ends."""

    per_minute: int
    now: Callable[[], float]
    calls: int = 0
    refused: int = 0
    _ends: dict[str, float] = field(default_factory=dict)
    _windows: dict[tuple[str, float], tuple[float, int]] = field(default_factory=dict)

    def begin(self, reference: str, age: float) -> None:
        """Send a prompt."""
        self._ends[reference] = self.now() + age

    def end_of(self, reference: str) -> float:
        """Return when a payment ends."""
        return self._ends[reference]

    def call(self, key: str) -> tuple[bool, dict[str, str], float]:
        """Count a call; return whether it is allowed, the headers, and the seconds to wait."""
        now, least = self.now(), None
        for seconds, limit in ((60.0, self.per_minute), (3600.0, 60 * self.per_minute)):
            ends_at, left = self._windows.get((key, seconds), (-1.0, 0))
            if now >= ends_at:
                ends_at, left = now + seconds, limit
            self._windows[key, seconds] = ends_at, left - 1
            if least is None or left < least[1]:
                least = ends_at, left, limit
        assert least is not None
        ends_at, left, limit = least
        self.calls += 1
        headers = {
            "X-RateLimit-Limit": str(limit),
            "X-RateLimit-Remaining": str(max(left - 1, 0)),
            "X-RateLimit-Reset": str(math.ceil(EPOCH + ends_at)),
            "Date": formatdate(EPOCH + now, usegmt=True),
        }
        if left > 0:
            return True, headers, 0.0
        self.refused += 1
        wait = max(1.0, math.ceil(ends_at - now))
        return False, {**headers, "Retry-After": str(int(wait))}, wait

    def is_over(self, reference: str) -> bool:
        """Whether a payment has ended."""
        return self.now() >= self._ends[reference]

    async def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer the client."""
        await asyncio.sleep(LATENCY_SECONDS / 2)
        allowed, headers, _ = self.call(request.headers["X-API-Key"])
        reference = request.url.path.rsplit("/", 1)[-1]
        if allowed and reference == "initiate":
            asked = json.loads(request.content)
            reference, age = asked["description"].split()
            self.begin(reference, float(age))
            data = {"reference": reference, "status": "initiated"}
            response = httpx.Response(200, json={"success": True, "data": data}, headers=headers)
        elif not allowed:
            body = {"success": False, "error": "rate_limit_exceeded", "code": "RATE_LIMIT"}
            response = httpx.Response(429, json=body, headers=headers)
        else:
            word = "completed" if self.is_over(reference) else "processing"
            data = {"reference": reference, "status": word}
            response = httpx.Response(200, json={"success": True, "data": data}, headers=headers)
        await asyncio.sleep(LATENCY_SECONDS / 2)
        return response


Follow = Callable[[Server, str, float], Awaitable[None]]


async def ask(server: Server, reference: str) -> tuple[bool, float]:
    """Make one call, as a simple client does; return whether it is over, and any wait."""
    await asyncio.sleep(LATENCY_SECONDS / 2)
    allowed, _, wait = server.call("pk_x")
    over = allowed and server.is_over(reference)
    await asyncio.sleep(LATENCY_SECONDS / 2)
    return over, wait


async def naive(server: Server, reference: str, age: float) -> None:
    """Every three seconds, and after a 429 when the server says: what the vendor's clients do."""
    server.begin(reference, age)
    while True:
        await asyncio.sleep(3)
        over, wait = await ask(server, reference)
        if over:
            return
        await asyncio.sleep(wait)


async def exponential(server: Server, reference: str, age: float) -> None:
    """One second, doubled, at most ten."""
    server.begin(reference, age)
    for attempt in itertools.count():
        await asyncio.sleep(min(2**attempt, 10))
        over, wait = await ask(server, reference)
        if over:
            return
        await asyncio.sleep(wait)


class RoundRobin:
    """One queue for all payments, one call when the quota's average allows it."""

    def __init__(self) -> None:
        self._free_at = 0.0

    async def __call__(self, server: Server, reference: str, age: float) -> None:
        server.begin(reference, age)
        while True:
            self._free_at = max(self._free_at, server.now()) + 60 / server.per_minute * 1.02
            await asyncio.sleep(self._free_at - server.now())
            over, _ = await ask(server, reference)
            if over:
                return


KEYS = {"secret_key": "sk_x", "public_key": "pk_x"}


class Ours:
    """The client, or several of them on one key."""

    def __init__(self, clients: int = 1, **options: Any) -> None:  # noqa: ANN401  # the client's
        self._clients = clients
        self._options = options
        self.made: list[AsyncPayNexus] = []
        self._turn = itertools.count()

    async def __call__(self, server: Server, reference: str, age: float) -> None:
        if not self.made:
            http = httpx.AsyncClient(transport=httpx.MockTransport(server.handle))
            options = {**KEYS, **self._options}
            self.made = [AsyncPayNexus(http_client=http, **options) for _ in range(self._clients)]
        client = self.made[next(self._turn) % self._clients]
        phone = f"2547{int(reference[3:]):08d}"
        payment = await client.initiate_payment(1, phone, f"{reference} {age}")
        try:
            await client.wait_for_completion(payment, max_wait=GIVE_UP_SECONDS)
        except PaymentStillPending:
            progress(f"{reference} was still pending after {GIVE_UP_SECONDS:.0f} s")


@dataclass(frozen=True)
class Model:
    """How customers behave."""

    name: str
    age: Callable[[random.Random], float]
    arrivals: Callable[[random.Random, float, float], list[float]]

    def crowd(self, shop: Shop, seed: int) -> tuple[list[float], list[float]]:
        """Draw when the customers of one hour come, and how long each takes."""
        rng = random.Random(seed)
        arrivals = self.arrivals(rng, shop.customers, 3600)
        return arrivals, [self.age(rng) for _ in arrivals]


BELIEVED = Model("as the schedule believes", believed, steady)
OTHER = Model("slower, and in waves", other, bunched)


@dataclass
class Outcome:
    """How one way has served a shop."""

    calls: int
    refused: int
    delays: list[float]
    experience: dict[str, object] | None = None

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            self.calls + other.calls, self.refused + other.refused, self.delays + other.delays
        )

    @property
    def calls_each(self) -> float:
        return self.calls / len(self.delays)

    @property
    def mean(self) -> float:
        return sum(self.delays) / len(self.delays)

    @property
    def p95(self) -> float:
        return sorted(self.delays)[int(0.95 * len(self.delays))]


def serve(follow: Follow, per_minute: int, arrivals: list[float], ages: list[float]) -> Outcome:
    """Let one way meet its customers."""
    random.seed(len(ages))  # of the client's jitter
    delays: list[float] = []

    async def main() -> Server:
        loop = asyncio.get_running_loop()
        server = Server(per_minute, loop.time)

        async def customer(number: int, arrival: float, age: float) -> None:
            await asyncio.sleep(arrival)
            reference = f"PNX{number:09d}"
            await follow(server, reference, age)
            delays.append(max(server.now() - server.end_of(reference), 0.0))

        pairs = enumerate(zip(arrivals, ages, strict=True))
        await asyncio.gather(*(customer(n, arrival, age) for n, (arrival, age) in pairs))
        return server

    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        server = runner.run(main())
    experience = follow.made[0].experience if isinstance(follow, Ours) else None
    return Outcome(server.calls, server.refused, delays, experience)


def ways_of(shop: Shop) -> dict[str, Callable[[], Follow]]:
    """All ways, each made anew."""
    return {
        "every 3 s": lambda: naive,
        "exponential": lambda: exponential,
        "round robin": RoundRobin,
        "paynexus-async": Ours,
        "… plan named": lambda: Ours(plan=shop.plan),
        "… three clients": lambda: Ours(3),
        "… one key": lambda: Ours(public_key=None),
    }


@dataclass(frozen=True)
class Cell:
    """One way in one shop, for one hour, which its seed draws."""

    model: Model
    shop: Shop
    way: str
    seed: int

    def measure(self) -> Outcome:
        """Serve the hour; in a process of its own."""
        crowd = self.model.crowd(self.shop, self.seed)
        if self.way != LEARNED:
            return serve(ways_of(self.shop)[self.way](), self.shop.per_minute, *crowd)
        known: dict[str, object] | None = None
        for hour in range(math.ceil(LEARNED_FROM / 60 / self.shop.customers)):
            earlier = self.model.crowd(self.shop, 1_000 + self.seed + hour)
            known = serve(Ours(experience=known), self.shop.per_minute, *earlier).experience
        return serve(Ours(experience=known), self.shop.per_minute, *crowd)


@dataclass(frozen=True)
class Offline:
    """What is possible in all hours of one shop."""

    model: Model
    shop: Shop
    seed: int

    def measure(self) -> tuple[offline.Found, float]:
        """Return the best policy, and the bound; in a process of their own."""
        sample = random.Random(-1)
        survival = offline.survival_of([self.model.age(sample) for _ in range(200_000)])
        hours = [
            offline.Hour(
                self.shop.per_minute,
                *self.model.crowd(self.shop, self.seed + hour),
                latency=LATENCY_SECONDS,
            )
            for hour in range(self.shop.hours)
        ]
        customers = [len(hour.arrivals) for hour in hours]
        bounds = [offline.lower_bound(hour, survival) for hour in hours]
        bound = sum(b * n for b, n in zip(bounds, customers, strict=True)) / sum(customers)
        return offline.best_policy(hours, survival), bound


LEARNED = "… learned"
LEARNED_FROM = 700  # customers of earlier hours
SWEPT = ("every 3 s", "paynexus-async", "… three clients")


def _measured(cell: Cell | Offline) -> Outcome | tuple[offline.Found, float]:
    progress(" ".join(map(str, (cell.model.name, cell.shop, getattr(cell, "way", "offline")))))
    return cell.measure()


def main() -> int:
    """Run all, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    seed = options.seed
    bounds = [Offline(model, shop, seed) for model in (BELIEVED, OTHER) for shop in SHOPS]
    cells = [
        Cell(model, shop, way, seed + hour)
        for model in (BELIEVED, OTHER)
        for shop in SHOPS
        for way in (*ways_of(shop), *([LEARNED] if model is OTHER else []))
        for hour in range(shop.hours)
    ]
    swept = [
        Cell(BELIEVED, Shop("basic", 60, load, 2), way, seed + hour)
        for load in LOADS
        for way in SWEPT
        for hour in range(2)
    ]
    # The slowest first, so that no core idles at the end.
    todo: list[Cell | Offline] = [
        *reversed(bounds),
        *sorted(cells + swept, key=lambda cell: -cell.shop.customers),
    ]
    found: dict[tuple[Model, Shop], dict[str, Outcome]] = {}
    best: dict[tuple[Model, Shop], tuple[offline.Found, float]] = {}
    with ProcessPoolExecutor(os.cpu_count()) as processes:
        for cell, outcome in zip(todo, processes.map(_measured, todo), strict=True):
            where = cell.model, cell.shop
            if isinstance(outcome, tuple):
                best[where] = outcome
            elif isinstance(cell, Cell):
                ways = found.setdefault(where, {})
                ways[cell.way] = ways.get(cell.way, Outcome(0, 0, [])) + outcome
    report = Report("quota")
    for model in (BELIEVED, OTHER):
        for shop in SHOPS:
            _add_shop(report, model, shop, found[model, shop], *best[model, shop])
    _add_loads(report, [(c.shop, found[BELIEVED, c.shop]) for c in swept[:: 2 * len(SWEPT)]])
    return report.finish(as_json=options.json)


def _add_shop(
    report: Report,
    model: Model,
    shop: Shop,
    found: dict[str, Outcome],
    best: offline.Found,
    bound: float,
) -> None:
    rows: list[list[Figure]] = [
        [way, found[way].calls_each, found[way].refused, *_delays(found[way], best.mean)]
        for way in found
    ]
    rows += [
        [f"best, offline: {best.policy}", best.calls, 0, best.mean, best.p95, 1.0],
        ["a bound for any policy", None, 0, bound, None, bound / best.mean],
    ]
    customers = len(found["paynexus-async"].delays)
    name = f"{shop.plan}, {shop.per_minute} calls and {shop.customers:.0f} customers a minute"
    columns = ["way", "calls a payment", "429s", "mean delay s", "95% within s", "x best"]
    report.tables.append(Table(f"{name}: {customers:,} customers, {model.name}", columns, rows))

    refused = sum(one.refused for way, one in found.items() if _is_ours(way))
    report.bars.append(Bar(f"{shop.plan}, {model.name}: all our 429s", refused, 0))
    if model is BELIEVED:
        mean, p95 = BARS[shop.plan]
        for way in ("paynexus-async", "… plan named"):
            report.bars += [
                Bar(f"{shop.plan}, {way}: mean delay, seconds", found[way].mean, mean),
                Bar(f"{shop.plan}, {way}: 95% know within, seconds", found[way].p95, p95),
            ]
    knowing = "paynexus-async" if model is BELIEVED else LEARNED
    words = f"{shop.plan}, {model.name}: {knowing}, mean delay beside the best"
    report.bars.append(Bar(words, found[knowing].mean / best.mean, 1.15))


def _delays(outcome: Outcome, best: float) -> list[float]:
    return [outcome.mean, outcome.p95, outcome.mean / best]


def _is_ours(way: str) -> bool:
    return way == "paynexus-async" or way.startswith("…")


def _add_loads(report: Report, found: list[tuple[Shop, dict[str, Outcome]]]) -> None:
    rows: list[list[Figure]] = []
    for shop, ways in found:
        row: list[Figure] = [f"{shop.customers} a minute"]
        for way in SWEPT:
            row += [ways[way].refused, ways[way].mean, ways[way].p95]
        rows.append(row)
        refused = sum(one.refused for way, one in ways.items() if _is_ours(way))
        report.bars.append(Bar(f"basic, {shop.customers} customers a minute: our 429s", refused, 0))
    columns = ["customers"]
    for words in ("3 s", "ours", "three of ours"):
        columns += [f"{words}: 429s", "mean s", "95% s"]
    title = f"basic, 60 calls a minute, {BELIEVED.name}: from idle to saturation"
    report.tables.append(Table(title, columns, rows))


if __name__ == "__main__":
    sys.exit(main())
