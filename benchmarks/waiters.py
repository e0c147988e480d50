"""A hundred thousand payments waited for at once, by one process.

    python -m benchmarks.waiters [--waiters 100000] [--per-second 1000] [--seconds 20] [--json]

Every payment has a task of its own that awaits `wait_for_completion`, as a web server's requests
do. The plan allows so many calls a second, so that is how many looks go out; the server is inside
the process and answers at once. Measured: memory for each payment all told (the caller's task
included), the time to start, how late the event loop runs other things meanwhile, and the same
payments through `wait_for_all`, which costs no task. Beside it: a loop of tenacity's for each
payment, with a sleep between two looks. Then, on a clock that jumps, all of them to their end. Each
way runs in a process of its own. Exits with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import random
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import looptime
from tenacity import AsyncRetrying, retry_if_result, wait_fixed

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import Bar, Report, Table, progress
from paynexus_async import AsyncPayNexus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Figures = dict[str, float]


class InProcess(httpx.AsyncBaseTransport):
    """A server that costs next to nothing: every payment goes on."""

    def __init__(self) -> None:
        """Nobody has asked."""
        self.calls = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer at once."""
        self.calls += 1
        reference = request.url.raw_path.rsplit(b"/", 1)[1]
        body = b'{"success":true,"data":{"reference":"%s","status":"processing"}}' % reference
        return httpx.Response(200, content=body)


async def latencies(seconds: float) -> list[float]:
    """Measure how late a task runs that wants to run every five milliseconds."""
    late = []
    until = time.perf_counter() + seconds
    while (started := time.perf_counter()) < until:
        await asyncio.sleep(0.005)
        late.append(time.perf_counter() - started - 0.005)
    return sorted(late)


async def measure(
    start: Callable[[], Awaitable[list[asyncio.Task[None]]]], count: int, seconds: float
) -> Figures:
    """Start all waiters, let them wait, and stop them."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tasks = await start()
    await asyncio.sleep(0)
    gc.collect()
    bytes_each = (tracemalloc.get_traced_memory()[0] - before) / count
    tracemalloc.stop()
    await stop(tasks)

    gc.collect()
    started = time.perf_counter()
    tasks = await start()
    await asyncio.sleep(0)
    seconds_to_start = time.perf_counter() - started
    gc.collect()
    late = await latencies(seconds)
    await stop(tasks)
    return {
        "bytes_each": bytes_each,
        "seconds_to_start": seconds_to_start,
        "late_p99_ms": 1000 * late[int(0.99 * len(late))],
        "late_max_ms": 1000 * late[-1],
    }


async def stop(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel all."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def ours(count: int, per_second: int, seconds: float, *, together: bool) -> Figures:
    """Measure the client."""
    server = InProcess()
    looks = [0.0]
    async with httpx.AsyncClient(transport=server) as http:
        clients: list[AsyncPayNexus] = []

        async def start() -> list[asyncio.Task[None]]:
            for old in clients:
                await old.aclose()
            client = AsyncPayNexus(
                "sk_x", "pk_x", http_client=http, plan={"minute": 60 * per_second}
            )
            clients[:] = [client]

            async def wait(number: int) -> None:
                await client.wait_for_completion(f"PNX{number:09d}", max_wait=3600)

            async def wait_all() -> None:
                await client.wait_for_all((f"PNX{n:09d}" for n in range(count)), max_wait=3600)

            if together:
                tasks = [asyncio.create_task(wait_all())]
                while len(client._followers._followed) < count:  # noqa: ASYNC110  # no event says it
                    await asyncio.sleep(0)
            else:
                tasks = [asyncio.create_task(wait(number)) for number in range(count)]
            looks[0] = server.calls
            return tasks

        figures = await measure(start, count, seconds)
        figures["looks_per_second"] = (server.calls - looks[0]) / seconds
        for client in clients:
            await client.aclose()
    return figures


async def loops(count: int, per_second: int, seconds: float) -> Figures:
    """Measure a loop of tenacity's for each payment."""
    every = count / per_second
    calls = [0]

    async def look() -> bool:
        calls[0] += 1
        return True

    async def wait(number: int) -> None:
        await asyncio.sleep(every * number / count)
        await AsyncRetrying(retry=retry_if_result(bool), wait=wait_fixed(every))(look)

    async def start() -> list[asyncio.Task[None]]:
        return [asyncio.create_task(wait(number)) for number in range(count)]

    figures = await measure(start, count, seconds)
    figures["looks_per_second"] = calls[0] / seconds
    return figures


class Shops(InProcess):
    """The same, and each payment ends at an age of its own."""

    def __init__(self, count: int) -> None:
        super().__init__()
        rng = random.Random(1)
        self._ends = [min(rng.lognormvariate(math.log(14), 0.55), 90.0) for _ in range(count)]
        self._begun: float | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer at once, truthfully."""
        self.calls += 1
        now = asyncio.get_running_loop().time()
        self._begun = now if self._begun is None else self._begun
        name = request.url.raw_path.rsplit(b"/", 1)[1]
        word = b"completed" if now - self._begun >= self._ends[int(name[3:])] else b"processing"
        body = b'{"success":true,"data":{"reference":"%s","status":"%s"}}' % (name, word)
        return httpx.Response(200, content=body)


async def to_the_end(count: int, per_second: int) -> Figures:
    """Let every payment end, each with a task that waits for it."""
    server, loop = Shops(count), asyncio.get_running_loop()
    async with (
        httpx.AsyncClient(transport=server) as http,
        AsyncPayNexus(
            "sk_x", "pk_x", http_client=http, plan={"minute": 60 * per_second}
        ) as paynexus,
    ):
        began, cpu = loop.time(), time.process_time()
        waits = (
            paynexus.wait_for_completion(f"PNX{number:09d}", max_wait=86_400)
            for number in range(count)
        )
        payments = await asyncio.gather(*waits)
        return {
            "paid": sum(payment.succeeded for payment in payments),
            "calls_each": server.calls / count,
            "virtual_seconds": loop.time() - began,
            "cpu_us_a_look": (time.process_time() - cpu) / server.calls * 1e6,
        }


BARS = {"bytes_each": 3072, "seconds_to_start": 5, "late_p99_ms": 20, "late_max_ms": 50}
OURS, TOGETHER, LOOPS, VIRTUAL = (
    "wait_for_completion, a task each",
    "wait_for_all, no tasks",
    "a tenacity loop each",
    "virtual time",
)


def child(way: str, count: int, per_second: int, seconds: float) -> Figures:
    """Measure one way, in this process."""
    if way == VIRTUAL:
        with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
            return runner.run(to_the_end(count, per_second))
    if way == LOOPS:
        return asyncio.run(loops(count, per_second, seconds))
    return asyncio.run(ours(count, per_second, seconds, together=way == TOGETHER))


def main() -> int:
    """Measure, print, and hold the client to its bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiters", type=int, default=100_000)
    parser.add_argument("--per-second", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    count = options.waiters
    if options.child:
        print(json.dumps(child(options.child, count, options.per_second, options.seconds)))
        return 0
    found: dict[str, Figures] = {}
    for way in (OURS, TOGETHER, LOOPS, VIRTUAL):
        progress(way)
        command = [sys.executable, "-m", "benchmarks.waiters", *sys.argv[1:], "--child", way]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[1]
        )
        found[way] = json.loads(done.stdout)
    virtual = found.pop(VIRTUAL)
    figures = ("bytes_each", "seconds_to_start", "late_p99_ms", "late_max_ms", "looks_per_second")
    report = Report(
        "waiters",
        [
            Table(
                f"{count:,} payments waited for, {options.per_second:,} looks a second allowed",
                ["way", "bytes each", "s to start", "loop late p99 ms", "max ms", "looks a second"],
                [[way, *(one[figure] for figure in figures)] for way, one in found.items()],
            ),
            Table(
                "The same to their end, on a clock that jumps",
                ["payments", "paid", "calls each", "virtual s", "CPU us a look"],
                [[f"{count:,}", *virtual.values()]],
            ),
        ],
        [Bar(f"{OURS}: {name}", found[OURS][name], bar) for name, bar in BARS.items()],
    )
    report.bars.append(Bar("paid, in virtual time", virtual["paid"], count, at_least=True))
    return report.finish(as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
