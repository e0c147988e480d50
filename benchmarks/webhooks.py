"""Webhooks that join the wait: calls saved, and how soon who waits knows.

    python -m benchmarks.webhooks [--seed 1] [--json]

First, hours of virtual time in the shops of `benchmarks.quota`, with the same customers: the client
by itself, and with a webhook for each payment's end that arrives after a second or so (exponential,
mean 1 s), is lost now and then, and comes twice now and then. In the last shop they stop for good
after half an hour. "Delay" is the time from a payment's end to the moment its waiter knows; the
worst one is that of a payment whose webhook was lost.

Then, on a real clock, a thousand callers who wait, each for a payment of his own: webhooks come at
a steady rate, and all at once; and a thousand who wait for the same one. The server takes 50 ms to
answer a status call, which is left out of the figures; it shares the client's processor. Exits with
1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.quota import BELIEVED, OTHER, SHOPS, Model, Ours, Outcome, Server, Shop, serve
from benchmarks.report import Bar, Report, Table, progress
from benchmarks.server import HEAD
from paynexus_async import AsyncPayNexus

if TYPE_CHECKING:
    from collections.abc import Callable

DELIVERED = 0.95
DELAY_SECONDS_MEAN = 1.0
TWICE = 0.1
WAITERS = 1_000
STATUS_CALL_SECONDS = 0.05
PER_SECOND = 200.0
CALLS_MAX = 2.0


class Told(Ours):
    """The client, with webhooks."""

    def __init__(self, delivered: float, until: float, seed: int) -> None:
        """Deliver this share of the webhooks, until then."""
        super().__init__()
        self._delivered, self._until = delivered, until
        self._rng = random.Random(seed)
        self._deliveries: set[asyncio.Task[None]] = set()

    async def __call__(self, server: Server, reference: str, age: float) -> None:
        """Serve a customer."""
        if server.now() + age < self._until and self._rng.random() < self._delivered:
            copies = 2 if self._rng.random() < TWICE else 1
            for _ in range(copies):
                seconds = age + self._rng.expovariate(1 / DELAY_SECONDS_MEAN)
                task = asyncio.create_task(self._deliver(reference, seconds))
                self._deliveries.add(task)
                task.add_done_callback(self._deliveries.discard)
        await super().__call__(server, reference, age)

    async def _deliver(self, reference: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.made[0].notify(reference)


@dataclass(frozen=True)
class Way:
    """How much of the news arrives."""

    name: str
    delivered: float
    until: float = float("inf")

    def measure(self, model: Model, shop: Shop, seed: int) -> Outcome:
        """Serve all hours of a shop, as `benchmarks.quota` draws them."""
        total = Outcome(0, 0, [])
        for hour in range(shop.hours):
            crowd = model.crowd(shop, seed + hour)
            follow = Told(self.delivered, self.until, seed + hour)
            total += serve(follow, shop.per_minute, *crowd)
        return total


ALONE = Way("without webhooks", 0.0)
TOLD = Way(f"{DELIVERED:.0%} delivered", DELIVERED)
WAYS = (ALONE, Way("all delivered", 1.0), TOLD, Way("80% delivered", 0.8), Way("half", 0.5))
STOPS = Way("95% for half an hour, then none", DELIVERED, 1800.0)
QUIET = Shop("quiet", 120, 2, 6)
"""Enough quota for every look: here webhooks save calls, and no time."""


def least_worst(model: Model) -> float:
    """Return the worst delay that any policy has that makes fewer than two status calls.

    One call sees the end, so that fewer than one on average may find the payment open. What is lost
    can be seen no earlier than at the next look, whenever it ends; so the longest pause counts, and
    of all policies with that pause none makes fewer looks than the one that makes no other.
    """
    sample = random.Random(-1)
    ages = [model.age(sample) for _ in range(100_000)]
    pauses = (
        tenths / 10
        for tenths in itertools.count(10)
        if 1 + sum(age // (tenths / 10) for age in ages) / len(ages) < CALLS_MAX
    )
    return next(pauses)


def figures(way: Way, outcome: Outcome) -> list[str | float | int | None]:
    """Lay out one way."""
    calls = outcome.calls_each - 1  # without the initiate
    worst = max(outcome.delays)
    return [way.name, calls, outcome.refused, outcome.mean, outcome.p95, worst]


class Till(asyncio.Protocol):
    """One connection to a server that answers every status call after the same time."""

    paid: ClassVar[set[bytes]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer a request, which comes in one piece."""
        reference = data.split(b" ", 2)[1].rsplit(b"/", 1)[1]
        word = b"completed" if reference in self.paid else b"processing"
        body = b'{"success":true,"data":{"reference":"%s","status":"%s"}}' % (reference, word)
        answer = HEAD % len(body) + body
        asyncio.get_running_loop().call_later(STATUS_CALL_SECONDS, self._transport.write, answer)


async def wake(references: list[str], gap: Callable[[], float]) -> list[float]:
    """Let callers wait, send webhooks, and return the seconds until each caller knew."""
    server = await asyncio.get_running_loop().create_server(Till, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api"
    told: dict[str, float] = {}
    late: list[float] = []
    async with AsyncPayNexus("sk_x", "pk_x", base_url=url, plan={"minute": 10**6}) as paynexus:

        async def waiter(reference: str) -> None:
            await paynexus.wait_for_completion(reference, max_wait=600)
            late.append(time.perf_counter() - told[reference] - STATUS_CALL_SECONDS)

        tasks = [asyncio.create_task(waiter(reference)) for reference in references]
        await asyncio.sleep(3)  # all have looked once
        for reference in dict.fromkeys(references):
            Till.paid.add(reference.encode())
            told[reference] = time.perf_counter()
            await paynexus.notify(reference)
            if (seconds := gap()) > 0:
                await asyncio.sleep(seconds)
        await asyncio.gather(*tasks)
    server.close()
    Till.paid.clear()
    return sorted(late)


def main() -> int:
    """Run all, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    report = Report("webhooks")
    columns = ["way", "status calls", "429s", "mean s", "95% s", "worst s"]
    for model in (BELIEVED, OTHER):
        for shop in [*(replace(shop, hours=min(shop.hours, 3)) for shop in SHOPS), QUIET]:
            progress(f"{shop.plan}, {model.name}")
            outcomes = {way: way.measure(model, shop, options.seed) for way in WAYS}
            title = (
                f"{shop.plan}: {shop.per_minute} calls and {shop.customers:g} customers a minute"
            )
            table = [figures(way, outcome) for way, outcome in outcomes.items()]
            report.tables.append(Table(f"{title}, {model.name}", columns, table))
            name = f"{shop.plan}, {model.name}, {TOLD.name}"
            alone, told = outcomes[ALONE], outcomes[TOLD]
            report.bars.append(Bar(f"{name}: 429s", told.refused, 0))
            if model is BELIEVED and shop is not QUIET:
                report.bars.append(Bar(f"{name}: status calls", told.calls_each - 1, CALLS_MAX))
            possible = max(max(alone.delays), least_worst(model))
            worst = max(told.delays) / possible
            report.bars.append(Bar(f"{name}: worst delay, x without, or x possible", worst, 1.05))
    shop = replace(SHOPS[1], hours=3)
    stopped = STOPS.measure(BELIEVED, shop, options.seed)
    report.tables.append(Table("basic, webhooks stop", columns, [figures(STOPS, stopped)]))
    report.bars.append(Bar("basic, webhooks stop: 429s", stopped.refused, 0))

    progress("a thousand waiters")
    each = [f"PNX{number}" for number in range(WAITERS)]
    rng = random.Random(options.seed)
    rows: list[list[str | float | int | None]] = []
    for name, references, gap in (
        (f"{PER_SECOND:.0f} webhooks a second", each, lambda: rng.expovariate(PER_SECOND)),
        ("all at once", each, lambda: 0.0),
        ("for one payment", ["PNX0"] * WAITERS, lambda: 0.0),
    ):
        late = asyncio.run(wake(references, gap))
        rows.append(
            [name, *(1000 * late[int(share * (len(late) - 1))] for share in (0.5, 0.99, 1))]
        )
    columns = ["way", "median ms", "99% ms", "last ms"]
    report.tables.append(Table(f"{WAITERS:,} waiters, besides a status call", columns, rows))
    for row in (rows[0], rows[2]):
        report.bars.append(Bar(f"1,000 waiters, {row[0]}: the last, ms", float(row[3] or 0), 100.0))
    least = ", ".join(f"{least_worst(model):.1f} s ({model.name})" for model in (BELIEVED, OTHER))
    report.notes.append(
        "Where the quota is plenty, polling alone knows sooner in the worst case, for three times "
        f"the calls: with fewer than two a payment, no policy's worst delay is below {least}. "
        "Every hour begins with a client that relies on no webhook yet: in a quiet shop its first "
        "few customers show, and so does a curve that is still being learned."
    )
    return report.finish(as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
