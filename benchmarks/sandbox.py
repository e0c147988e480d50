"""How many status calls the sandbox answers, beside a bare route of its web framework.

    python -m benchmarks.sandbox [--calls 10000] [--rounds 5] [--json]

Each server is one process on one core; the calls come from another one, ten at a time, over
aiohttp. The bare route returns the same bytes and does nothing else: it is what Starlette, uvicorn
and h11 cost by themselves. Medians of the rounds, which take turns. Exits with 1 if a bar is
missed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import httpx

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import Bar, Report, Table, median_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.requests import Request

AT_ONCE = 10
WARM_UP = 500
SERVER_CORE, CLIENT_CORE = 1, 0
BAR_PER_SECOND = 2_000
ROOT = Path(__file__).parents[1]


def serve_sandbox() -> str:
    """Serve a ledger with one payment; return the address of its status."""
    from paynexus_async.sandbox import SECRET_KEY, Ledger, SandboxServer

    server = SandboxServer(Ledger(clock=time.time)).__enter__()
    initiated = httpx.post(
        f"{server.url}/mpesa/payment/initiate",
        json={"amount": 100, "phone": "0746990866"},
        headers={"X-API-Key": SECRET_KEY},
        trust_env=False,
    )
    return f"{server.url}/payments/{initiated.json()['data']['reference']}"


def serve_bare() -> str:
    """Serve one route that answers as many bytes."""
    import threading

    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    document = {"success": True, "data": {"reference": "PNXABC123DEF", "more": "x" * 500}}

    async def status(_: Request) -> JSONResponse:
        return JSONResponse(document)

    app = Starlette(routes=[Route("/api/payments/{reference}", status)])
    config = uvicorn.Config(
        app, port=0, log_config=None, access_log=False, lifespan="off", http="h11"
    )
    server = uvicorn.Server(config)
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    return f"http://127.0.0.1:{port}/api/payments/PNXABC123DEF"


SERVERS: dict[str, Callable[[], str]] = {
    "bare Starlette route": serve_bare,
    "the sandbox": serve_sandbox,
}
BARE, SANDBOX = SERVERS


def child(name: str) -> None:
    """Serve until standard input ends; print the address, and at the end the CPU seconds."""
    pin(SERVER_CORE)
    print(SERVERS[name](), flush=True)
    for _ in sys.stdin:  # each line asks for the CPU spent so far
        print(time.process_time(), flush=True)


def pin(core: int) -> None:
    """Stay on one core, where there are several."""
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {core})


@contextmanager
def running(name: str) -> Iterator[tuple[str, Callable[[], float]]]:
    """Run one server; tell its address, and what asks for the CPU seconds that it has spent."""
    command = [sys.executable, "-m", "benchmarks.sandbox", "--child", name]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        asking, answering = process.stdin, process.stdout

        def cpu_seconds() -> float:
            asking.write("\n")
            asking.flush()
            return float(answering.readline())

        yield answering.readline().strip(), cpu_seconds
        asking.close()


async def call(url: str, count: int, seconds: Callable[[], float]) -> tuple[float, float]:
    """Make so many calls; return calls a second, and the server's CPU microseconds for each."""
    connector = aiohttp.TCPConnector(limit=AT_ONCE)
    headers = {"X-API-Key": "pk_sandbox_0123456789abcdef"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def work(left: Iterator[int]) -> None:
            for _ in left:
                async with session.get(url) as response:
                    response.raise_for_status()
                    await response.read()

        async def all_of(calls: int) -> None:
            left = iter(range(calls))
            await asyncio.gather(*(work(left) for _ in range(AT_ONCE)))

        await all_of(WARM_UP)
        cpu, wall = seconds(), time.perf_counter()
        await all_of(count)
        wall = time.perf_counter() - wall
        return count / wall, (seconds() - cpu) / count * 1e6


def main() -> int:
    """Measure, print, and hold the sandbox to its bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child)
        return 0
    pin(CLIENT_CORE)
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in SERVERS}
    for _ in range(options.rounds):
        for name, figures in measured.items():
            with running(name) as (url, seconds):
                figures.append(asyncio.run(call(url, options.calls, seconds)))
    rates = {name: median_of([rate for rate, _ in found]) for name, found in measured.items()}
    rows: list[list[str | float | int | None]] = [
        [name, rates[name], rates[name] / rates[BARE], median_of([cpu for _, cpu in found])]
        for name, found in measured.items()
    ]
    columns = ["server", "calls a second", "x bare", "its CPU us a call"]
    title = f"{options.calls:,} status calls, {AT_ONCE} at a time, medians of {options.rounds}"
    report = Report(
        "sandbox",
        [Table(title, columns, rows)],
        [Bar("the sandbox, status calls a second", rates[SANDBOX], BAR_PER_SECOND, at_least=True)],
    )
    return report.finish(as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
