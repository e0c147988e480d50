"""Checking thousands of payments: the client beside what a good user would write by hand.

    python -m benchmarks.bulk [--references 10000] [--rounds 5] [--json]

The server (`benchmarks.server`) answers from a template, from a core of its own where there are
two; every way runs in a process of its own, on the other core. All of them build the same typed
payment from each answer, except the vendor's client, which returns dictionaries. A few hundred
checks go first, so that connections stand. Throughput is wall time; CPU is the process's own.
Medians of the rounds, which take turns. Exits with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import Bar, Report, Table, median_of, progress
from paynexus_async import AsyncPayNexus, Payment
from paynexus_async._convert import structure_payment

KEY = "pk_benchmark_0123456789"
AT_ONCE = 100
WARM_UP = 500
SETTLED = 50_000  # the client remembers the last 20,000 names, and the allocator its peaks
DELAY_SECONDS = 0.030
CLIENT_CORE, SERVER_CORE = 0, 1

Check = Callable[[Iterator[str]], Awaitable[int]]
"""Checks all references; returns how many payments it has got."""


def references(count: int) -> Iterator[str]:
    """Yield names of payments."""
    return (f"PNX{number:09d}" for number in range(count))


def typed(body: bytes) -> Payment:
    """Build what the client builds."""
    return structure_payment(json.loads(body, parse_float=Decimal)["data"])


async def side_by_side(asked: Iterator[str], check: Callable[[str], Awaitable[Payment]]) -> int:
    """Let a hundred tasks take the next reference each: the cheapest bound there is."""
    done = 0

    async def work() -> None:
        nonlocal done
        for reference in asked:
            payment = await check(reference)
            done += payment.reference == reference

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())
    return done


async def by_httpx(url: str, run: Callable[[Check], Awaitable[None]]) -> None:
    """`httpx.AsyncClient.get`, with as many connections as tasks."""
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
    headers = {"X-API-Key": KEY}
    async with httpx.AsyncClient(limits=limits, headers=headers, timeout=30) as client:

        async def check(reference: str) -> Payment:
            response = await client.get(f"{url}/payments/{reference}")
            response.raise_for_status()
            return typed(response.content)

        await run(lambda asked: side_by_side(asked, check))


async def by_httpx_gather(url: str, run: Callable[[Check], Awaitable[None]]) -> None:
    """All at once through a default client: what a first try looks like."""
    async with httpx.AsyncClient(headers={"X-API-Key": KEY}) as client:

        async def check(reference: str) -> Payment:
            response = await client.get(f"{url}/payments/{reference}")
            response.raise_for_status()
            return typed(response.content)

        async def gather(asked: Iterator[str]) -> int:
            results = await asyncio.gather(*map(check, asked), return_exceptions=True)
            return sum(isinstance(result, Payment) for result in results)

        await run(gather)


async def by_aiohttp(url: str, run: Callable[[Check], Awaitable[None]]) -> None:
    """The session and the pool of aiohttp."""
    import aiohttp

    connector = aiohttp.TCPConnector(limit=AT_ONCE)
    async with aiohttp.ClientSession(connector=connector, headers={"X-API-Key": KEY}) as session:

        async def check(reference: str) -> Payment:
            async with session.get(f"{url}/payments/{reference}") as response:
                response.raise_for_status()
                return typed(await response.read())

        await run(lambda asked: side_by_side(asked, check))


async def by_vendor(url: str, run: Callable[[Check], Awaitable[None]]) -> None:
    """The vendor's synchronous client in threads; it builds no types."""
    from paynexus_gateway import PayNexusClient, PayNexusError

    with PayNexusClient(KEY, base_url=url) as client, ThreadPoolExecutor(AT_ONCE) as threads:

        def check(reference: str) -> bool:
            try:
                data = client.get_payment_status(reference)
            except PayNexusError:  # a few requests of a hundred threads fail
                return False
            return bool(data.get("data", data)["reference"] == reference)

        async def map_all(asked: Iterator[str]) -> int:
            return await asyncio.to_thread(lambda: sum(threads.map(check, asked)))

        await run(map_all)


def ours(transport: str) -> Callable[[str, Callable[[Check], Awaitable[None]]], Awaitable[None]]:
    """`check_payments`, over one of the transports."""

    async def by_ours(url: str, run: Callable[[Check], Awaitable[None]]) -> None:
        options = {"base_url": url, "transport": transport}
        async with AsyncPayNexus(public_key=KEY, **options) as paynexus:  # type: ignore[arg-type]

            async def check(asked: Iterator[str]) -> int:
                done = 0
                async for result in paynexus.check_payments(asked):
                    done += result.unwrap().reference == result.asked
                return done

            await run(check)

    return by_ours


WAYS = {
    "httpx, 100 tasks": by_httpx,
    "httpx, gather": by_httpx_gather,
    "aiohttp, 100 tasks": by_aiohttp,
    "vendor's, 100 threads": by_vendor,
    "paynexus-async": ours("httpx"),
    "paynexus-async[aiohttp]": ours("aiohttp"),
    "paynexus-async[pyreqwest]": ours("pyreqwest"),
}
PLAIN, GATHER, AIOHTTP, VENDOR, DEFAULT, _, FASTEST = WAYS


def child(way: str, url: str, count: int, warm_up: int) -> None:
    """Measure one way, in this process, and print its figures."""
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {CLIENT_CORE})
    figures: dict[str, float] = {}

    async def run(check: Check) -> None:
        if warm_up:
            await check(references(warm_up))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        wall, cpu = time.perf_counter(), time.process_time()
        figures["answered"] = await check(references(count))
        figures["per_second"] = count / (time.perf_counter() - wall)
        figures["cpu_us"] = (time.process_time() - cpu) / count * 1e6
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        figures["grown_kib"] = grown

    asyncio.run(WAYS[way](url, run))  # type: ignore[arg-type]
    print(json.dumps(figures))


@contextmanager
def server(delay: float = 0.0) -> Iterator[str]:
    """Run the server, and tell its base URL."""
    command = [sys.executable, "-m", "benchmarks.server", "--delay", str(delay)]
    if (os.cpu_count() or 1) > 1:
        command += ["--core", str(SERVER_CORE)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT
    ) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/api"
        process.terminate()


_ROOT = Path(__file__).parents[1]


def measure(way: str, url: str, count: int, warm_up: int = WARM_UP) -> dict[str, float]:
    """Measure one way in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bulk", "--child", way, "--url", url]
    command += ["--references", str(count), "--warm-up", str(warm_up)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=_ROOT)
    figures: dict[str, float] = json.loads(done.stdout)
    progress(f"{way}: {figures['per_second']:,.0f} a second, {figures['cpu_us']:,.0f} us each")
    return figures


def medians(ways: list[str], url: str, count: int, rounds: int) -> dict[str, dict[str, float]]:
    """Let the ways take turns, and return each one's medians."""
    measured: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            measured[way].append(measure(way, url, count))
    return {
        way: {name: median_of([one[name] for one in several]) for name in several[0]}
        for way, several in measured.items()
    }


def main() -> int:
    """Measure, print, and hold the client to its bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--references", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--warm-up", type=int, default=WARM_UP, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.url, options.references, options.warm_up)
        return 0
    report = Report("bulk")
    with server() as url:
        _loopback(report, url, options.references, options.rounds)
        _complete(report, url)
        _flat(report, url)
    with server(DELAY_SECONDS) as url:
        _far_away(report, url, options.references // 2, options.rounds // 2 + 1)
    return report.finish(as_json=options.json)


def _loopback(report: Report, url: str, count: int, rounds: int) -> None:
    found = medians([way for way in WAYS if way != GATHER], url, count, rounds)
    plain, aiohttp = found[PLAIN], found[AIOHTTP]
    rows: list[list[str | float | int | None]] = [
        [
            way,
            one["per_second"],
            one["per_second"] / plain["per_second"],
            one["cpu_us"],
            one["cpu_us"] / aiohttp["cpu_us"],
            int(one["answered"]),
        ]
        for way, one in found.items()
    ]
    columns = ["way", "checks a second", "x httpx", "CPU us a check", "x aiohttp", "answered"]
    title = f"{count:,} references over loopback, {AT_ONCE} at a time, medians of {rounds}"
    report.tables.append(Table(title, columns, rows))
    best = found[FASTEST]
    report.bars += [
        Bar(
            "default install beside httpx, throughput",
            found[DEFAULT]["per_second"] / plain["per_second"],
            2,
            at_least=True,
        ),
        Bar(
            "fastest extra beside httpx, throughput",
            best["per_second"] / plain["per_second"],
            8,
            at_least=True,
        ),
        Bar("fastest extra beside aiohttp, CPU a check", best["cpu_us"] / aiohttp["cpu_us"], 1.5),
    ]


def _complete(report: Report, url: str) -> None:
    rows: list[list[str | float | int | None]] = []
    for way, count in ((GATHER, 1_000), (DEFAULT, 1_000), (FASTEST, 1_000), (DEFAULT, 100_000)):
        answered = measure(way, url, count, warm_up=0)["answered"]
        rows.append([way, count, int(answered)])
        if way != GATHER:
            words = f"{way}: answered of {count:,}"
            report.bars.append(Bar(words, answered, count, at_least=True))
    columns = ["way", "references", "answered"]
    report.tables.append(Table("Is everything answered?", columns, rows))


def _flat(report: Report, url: str) -> None:
    rows: list[list[str | float | int | None]] = []
    for way in (DEFAULT, FASTEST):
        few = [measure(way, url, 1_000, warm_up=SETTLED) for _ in range(3)]
        many = [measure(way, url, 100_000, warm_up=SETTLED) for _ in range(1 + (way != DEFAULT))]
        cost = [median_of([one["cpu_us"] for one in side]) for side in (few, many)]
        grown = median_of([one["grown_kib"] for one in many])
        rows.append([way, cost[0], cost[1], cost[1] / cost[0], grown])
        report.bars += [
            Bar(f"{way}: CPU a check, 100,000 beside 1,000", cost[1] / cost[0], 1.1),
            Bar(f"{way}: memory grown over 100,000, KiB", grown, 2_048),
        ]
    columns = ["way", "us a check: 1,000", "100,000", "ratio", "memory grown KiB"]
    report.notes.append(
        f"Memory is weighed after {SETTLED:,} checks: the last 20,000 names are kept."
    )
    report.tables.append(Table("Does it stay as cheap?", columns, rows))


def _far_away(report: Report, url: str, count: int, rounds: int) -> None:
    ceiling = AT_ONCE / DELAY_SECONDS
    found = medians(
        [PLAIN, AIOHTTP, DEFAULT, "paynexus-async[aiohttp]", FASTEST], url, count, rounds
    )
    rows: list[list[str | float | int | None]] = [
        [way, one["per_second"], one["per_second"] / ceiling, one["cpu_us"]]
        for way, one in found.items()
    ]
    columns = ["way", "checks a second", "of the ceiling", "CPU us a check"]
    milliseconds = 1000 * DELAY_SECONDS
    title = (
        f"{count:,} references, a server {milliseconds:.0f} ms away, {AT_ONCE} in flight: "
        f"at most {ceiling:,.0f} a second, medians of {rounds}"
    )
    report.tables.append(Table(title, columns, rows))
    share = found[FASTEST]["per_second"] / ceiling
    report.bars.append(Bar("fastest extra, share of the ceiling", share, 0.9, at_least=True))


if __name__ == "__main__":
    sys.exit(main())
