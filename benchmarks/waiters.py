"""A hundred thousand payments waited for at once, by one process.

    python -m benchmarks.waiters [--waiters 100000] [--per-second 1000] [--seconds 20] [--json]

Every payment has a task of its own that awaits `wait_for_completion`, as a web server's requests
do. The plan allows so many calls a second, so that is how many looks go out; the server is inside
the process and answers at once. Measured: memory for each payment all told (the caller's task
included), the time to start, how late the event loop runs other things meanwhile, and the same
payments through `wait_for_all`, which costs no task. Beside it: a loop of tenacity's for each
payment, with a sleep between two looks. Exits with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import time
import tracemalloc
from pathlib import Path

import httpx
from tenacity import AsyncRetrying, retry_if_result, wait_fixed

sys.path.insert(0, str(Path(__file__).parents[1]))

from typing import TYPE_CHECKING

from paynexus_async import AsyncPayNexus, PayNexusError

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


BARS = {"bytes_each": 3072, "seconds_to_start": 5, "late_p99_ms": 20, "late_max_ms": 50}


def main() -> None:
    """Measure, print, and hold the client to its bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waiters", type=int, default=100_000)
    parser.add_argument("--per-second", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    arguments = options.waiters, options.per_second, options.seconds
    try:
        ways = {
            "ours, a task each": asyncio.run(ours(*arguments, together=False)),
            "ours, wait_for_all": asyncio.run(ours(*arguments, together=True)),
            "a tenacity loop each": asyncio.run(loops(*arguments)),
        }
    except PayNexusError as error:
        sys.exit(str(error))
    if options.json:
        print(json.dumps(ways, indent=2))
    else:
        for way, figures in ways.items():
            print(f"{way:22}", "  ".join(f"{name} {value:,.1f}" for name, value in figures.items()))
    missed = [n for n, bar in BARS.items() if ways["ours, a task each"][n] > bar]
    if missed:
        sys.exit(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
