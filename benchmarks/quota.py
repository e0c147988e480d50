"""One key, one quota, a whole shop: the client's budget beside the ways in which others poll.

    python -m benchmarks.quota [--hours 1] [--seed 1] [--json]

An hour of virtual time for each plan and load. Customers arrive at random (Poisson), and each
settles a prompt at an age drawn from a model: first the one that the schedule believes in, then
another one that it does not (slower customers who come in bunches). The server is strict: fixed
windows by the minute and by the hour, as the plan has them, `X-RateLimit-*` headers, 429 with
`Retry-After`. "Delay" is the time from a payment's end to the moment its waiter knows.

The client is the real one, over httpx, on a clock that jumps. The others are loops of a few lines
against the same server. Exits with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import random
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import looptime

sys.path.insert(0, str(Path(__file__).parents[1]))

from paynexus_async import AsyncPayNexus, PaymentStillPending

EPOCH = 1_790_000_000.0
LATENCY_SECONDS = 0.15
GIVE_UP_SECONDS = 300.0

LOADS = [("trial", 30, 6), ("basic", 60, 10), ("professional", 120, 20), ("enterprise", 300, 60)]
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
            "Date": _http_date(EPOCH + now),
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


def _http_date(moment: float) -> str:
    from email.utils import formatdate

    return formatdate(moment, usegmt=True)


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

    def __init__(self, clients: int = 1, **options: object) -> None:
        self._clients = clients
        self._options = options
        self._made: list[AsyncPayNexus] = []
        self._turn = itertools.count()

    async def __call__(self, server: Server, reference: str, age: float) -> None:
        if not self._made:
            http = httpx.AsyncClient(transport=httpx.MockTransport(server.handle))
            self._made = [
                AsyncPayNexus(http_client=http, **{**KEYS, **self._options})
                for _ in range(self._clients)
            ]
        client = self._made[next(self._turn) % self._clients]
        phone = f"2547{int(reference[3:]):08d}"
        payment = await client.initiate_payment(1, phone, f"{reference} {age}")
        try:
            await client.wait_for_completion(payment, max_wait=GIVE_UP_SECONDS)
        except PaymentStillPending:
            print("still pending", reference)


@dataclass(frozen=True)
class Row:
    """One way's figures."""

    way: str
    payments: int
    calls: float
    refused: int
    mean: float
    p95: float


def run(way: str, follow: Follow, per_minute: int, arrivals: list[float], ages: list[float]) -> Row:
    """Let one way meet an hour of customers."""
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
    delays.sort()
    return Row(
        way,
        len(ages),
        server.calls / len(ages),
        server.refused,
        sum(delays) / len(delays),
        delays[int(0.95 * len(delays))],
    )


def main() -> None:
    """Run all, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for model, ages_of, arrivals_of in (
        ("as believed", believed, steady),
        ("another", other, bunched),
    ):
        for plan, per_minute, per_minute_arrivals in LOADS:
            rng = random.Random(options.seed)
            arrivals = arrivals_of(rng, per_minute_arrivals, options.hours * 3600)
            ages = [ages_of(rng) for _ in arrivals]
            ways: list[tuple[str, Follow]] = [
                ("naive 3 s", naive),
                ("exponential", exponential),
                ("round robin", RoundRobin()),
                ("ours, plan unknown", Ours()),
                ("ours, plan named", Ours(plan=plan)),
                ("ours, one key", Ours(public_key=None)),
                ("three of ours", Ours(3)),
            ]
            print(
                f"\n{model}: {plan}, {per_minute} calls, {per_minute_arrivals} customers a minute"
            )
            for way, follow in ways:
                row = run(way, follow, per_minute, arrivals, ages)
                figures = f"{row.calls:6.1f} {row.refused:6} {row.mean:6.2f} {row.p95:6.2f}"
                print(f"  {row.way:20} {figures}")


if __name__ == "__main__":
    main()
