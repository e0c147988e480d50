"""What an order costs that is followed across crashes: writes, memory, and the time to take it up.

    python -m benchmarks.durable [--orders 5000] [--database URL] [--json]

Processes on one database (a SQLite file, unless a PostgreSQL is named). The first asks for every
order's payment and is killed while all of them are pending. The second is fresh: measured are the
seconds until it follows all of them, and its memory, beside that for a tenth of the orders. Another
sees them end. The PayNexus is inside each process and answers at once. Beside it: what an engine
writes that keeps each poll as a step, measured in the same run. Exits with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import sqlalchemy
from dbos import DBOS, SetWorkflowID

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import Bar, Report, Table, progress
from paynexus_async import AsyncPayNexus
from paynexus_async.durable import DurablePayments, Outcome, Terms, _looking, dbos_config

if TYPE_CHECKING:
    from collections.abc import Callable

Figures = dict[str, float]
AT_ONCE = 64
POLLS_KEPT = 20
# However long it takes to take so many, all are followed as if somebody was waiting for them.
_looking._BURST_AGE_SECONDS = 3_600.0  # type: ignore[misc]
WATCHED_SECONDS = 10


class InProcess(httpx.AsyncBaseTransport):
    """A PayNexus that costs next to nothing: every payment goes on until it is told to end."""

    def __init__(self, status: str, *, is_asked_in_vain: bool = False) -> None:
        """Nobody has asked; whoever asks for a status may have no answer in time."""
        self.status = status
        self.is_asked_in_vain = is_asked_in_vain
        self.prompts = 0
        self.polls = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer at once."""
        if request.method == "POST":
            self.prompts += 1
            asked = json.loads(await request.aread())
            data = {**asked, "reference": f"PNX{asked['description']}", "status": "initiated"}
        else:
            self.polls += 1
            if self.is_asked_in_vain:
                await asyncio.sleep(3_600)
            reference = request.url.raw_path.rsplit(b"/", 1)[1].decode()
            data = {"reference": reference, "status": self.status}
        return httpx.Response(200, json={"success": True, "data": data})


class Writes:
    """Counts what the engine writes, statement by statement and commit by commit."""

    def __init__(self) -> None:
        """Listen to every database of this process."""
        self.counts: Counter[str] = Counter()
        sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", self._statement)

    def _statement(self, *event: object) -> None:
        statement = str(event[2]).lstrip()[:6].upper()
        if statement in {"INSERT", "UPDATE", "DELETE"}:
            self.counts[statement] += 1

    @property
    def total(self) -> int:
        """Statements that write, so far."""
        return self.counts.total()


def memory_bytes() -> int:
    """Return what this process occupies."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[1])
    return pages * resource.getpagesize()


async def until(condition: Callable[[], bool], seconds: float = 600.0) -> float:
    """Wait for something, and return how long that took."""
    began = time.perf_counter()
    while not condition():  # it is counters that are watched
        if time.perf_counter() - began > seconds:
            sys.exit("it took too long")
        await asyncio.sleep(0.05)
    return time.perf_counter() - began


async def take(orders: int, url: str) -> Figures:
    """Ask for every order's payment, on a machine that has nothing else to do."""
    server, writes = InProcess("processing", is_asked_in_vain=True), Writes()
    async with client(server) as paynexus:
        durable = DurablePayments(paynexus, on_settled=hand_over, terms=Terms(burst_seconds=3_000))
        DBOS(config=dbos_config("benchmark", url))
        DBOS.launch()
        async with durable:
            before, began = writes.total, time.perf_counter()
            limit = asyncio.Semaphore(AT_ONCE)

            async def one(number: int) -> None:
                async with limit:
                    handle = await durable.pay(
                        f"{orders}-{number}", amount=1 + number % 1000, phone=f"07{number:08}"
                    )
                    await handle.payment()

            await asyncio.gather(*(one(number) for number in range(orders)))
            took = time.perf_counter() - began
            # Each is followed, and what prompted for it has been written down.
            await until(lambda: len(durable._work.looks.bursts) == orders)
            await until(lambda: len(durable._work.running) == orders)
            return {"writes": (writes.total - before) / orders, "per_second": orders / took}


async def take_up(orders: int, url: str) -> Figures:
    """Follow what another process had begun, as far as a key's calls go: most of it waits."""
    server = InProcess("processing")
    async with client(server, plan="enterprise") as paynexus:
        durable = DurablePayments(paynexus, on_settled=hand_over, terms=Terms(burst_seconds=3_000))
        began = time.perf_counter()
        DBOS(config=dbos_config("benchmark", url))
        DBOS.launch()
        async with durable:
            await until(lambda: len(durable._work.looks.bursts) == orders)
            took = time.perf_counter() - began
            await asyncio.sleep(5)
            return {"seconds": took, "bytes": memory_bytes()}


async def poll(orders: int, url: str) -> Figures:
    """Follow them without a limit to the calls, and see what is written meanwhile."""
    server, writes = InProcess("processing"), Writes()
    async with client(server) as paynexus:
        durable = DurablePayments(paynexus, on_settled=hand_over, terms=Terms(burst_seconds=3_000))
        DBOS(config=dbos_config("benchmark", url))
        DBOS.launch()
        async with durable:
            await until(lambda: len(durable._work.looks.bursts) == orders)
            await until(lambda: server.polls >= orders)
            polls, before = server.polls, writes.total
            await asyncio.sleep(WATCHED_SECONDS)
            return {"writes": writes.total - before, "polls": server.polls - polls}


async def end(orders: int, url: str) -> Figures:
    """See all of them end."""
    server, writes = InProcess("completed"), Writes()
    told = 0

    async def count(outcome: Outcome) -> None:
        nonlocal told
        told += outcome.succeeded

    async with client(server) as paynexus:
        durable = DurablePayments(paynexus, on_settled=count)
        DBOS(config=dbos_config("benchmark", url))
        began = time.perf_counter()
        DBOS.launch()
        async with durable:
            await until(lambda: told == orders)
            took = time.perf_counter() - began
            await until(lambda: not durable._work.running)
            wrote = writes.total
            await asyncio.sleep(WATCHED_SECONDS)  # what the engine writes where nothing is followed
            idle = writes.total - wrote
            return {"writes": wrote / orders, "per_second": orders / took, "idle": idle}


async def naive(_: int, url: str) -> Figures:
    """Keep each poll as a step of its own, with a durable sleep after it, as one would at first."""
    writes = Writes()

    async def poll() -> str:
        return "processing"

    async def follow() -> None:
        for _ in range(POLLS_KEPT):
            await DBOS.run_step_async({"name": "poll"}, poll)
            await DBOS.sleep_async(0.001)

    workflow = DBOS.workflow(name="naive")(follow)
    DBOS(config=dbos_config("benchmark", url))
    DBOS.launch()
    before = writes.total
    with SetWorkflowID("naive"):
        handle = await DBOS.start_workflow_async(workflow)
    await handle.get_result()
    return {"writes_a_poll": (writes.total - before) / POLLS_KEPT}


async def hand_over(_: Outcome) -> None:
    """Do what a merchant does, at no cost."""


def client(server: InProcess, plan: str | None = None) -> AsyncPayNexus:
    """Open a client of the PayNexus inside; without a plan it may ask as often as it likes."""
    return AsyncPayNexus(
        "sk_benchmark_1",
        http_client=httpx.AsyncClient(transport=server),
        base_url="http://localhost/api",
        plan=plan,
    )


PARTS = {"take": take, "take_up": take_up, "poll": poll, "end": end, "naive": naive}


def part(name: str, orders: int, url: str) -> Figures:
    """Run a part in a process of its own, which ends as in a crash."""
    progress(f"{name} {orders:,}")
    command = [sys.executable, "-m", "benchmarks.durable", "--part", name]
    done = subprocess.run(
        [*command, "--orders", str(orders), "--database", url],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure(orders: int, url: str) -> Report:
    """Run the parts, one after the other."""
    report = Report("durable")
    kept, few = part("naive", 1, url), max(orders // 10, 1)
    _, up_few, polled, idle = (part(name, few, url) for name in ("take", "take_up", "poll", "end"))
    taken, up, ended = (part(name, orders, url) for name in ("take", "take_up", "end"))
    a_poll = max(polled["writes"] - idle["idle"], 0) / polled["polls"]
    # What the engine and the libraries occupy is there once: these are what more of them take.
    each = (up["bytes"] - up_few["bytes"]) / (orders - few) / 1024
    report.tables.append(
        Table(
            f"{orders:,} orders, {url.partition(':')[0]}",
            ["what", "figure"],
            [
                ["orders taken a second", taken["per_second"]],
                ["statements that write, to take one", taken["writes"]],
                ["seconds until a fresh worker follows all", up["seconds"]],
                ["memory of one that is followed, KiB", each],
                ["memory of the whole process, MiB", up["bytes"] / 1024**2],
                ["polls in 10 s, without a limit", polled["polls"]],
                ["statements that write, a poll", a_poll],
                ["... where each poll is a step", kept["writes_a_poll"]],
                ["statements that write, to take one up, see its end and tell", ended["writes"]],
                ["orders ended a second, from the launch", ended["per_second"]],
                ["statements that write, a second, idle", idle["idle"] / WATCHED_SECONDS],
            ],
        )
    )
    report.bars += [
        Bar("statements that write, a poll", round(a_poll, 2), 0.0),
        Bar("memory of one that is followed, KiB", each, 20.0),
        Bar("seconds until a fresh worker follows all", up["seconds"], 30.0),
    ]
    return report


def main() -> int:
    """Measure all, or be a part."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.durable", description=__doc__)
    parser.add_argument("--orders", type=int, default=5_000)
    parser.add_argument("--database", default="")
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.part:
        print(json.dumps(asyncio.run(_killed(options))), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        url = options.database or f"sqlite:///{folder}/benchmark.sqlite"
        return measure(options.orders, url).finish(as_json=options.json)


async def _killed(options: argparse.Namespace) -> Figures:
    figures = await PARTS[options.part](options.orders, options.database)
    print(json.dumps(figures), flush=True)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
