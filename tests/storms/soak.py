"""The soak: one client polls for a long time, and grows by nothing."""

from __future__ import annotations

import ctypes
import gc
import os
import time
from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import sniffio
from tenacity import wait_fixed

from paynexus_async import AsyncPayNexus

from .cancel import SECRET_KEY, amount_of, phone_of, tasks_alive
from .report import Report

if TYPE_CHECKING:
    from .recorder import Recorder

CALLERS = 20
LOOKS = 5
CHECKED_AT_ONCE = 50
CHECKPOINTS = 10
GROWTH_MIB_MAX = 2.0
# The client remembers ten thousand payments by two names each, or twice as many by one, on purpose:
# that memory is full before anything is measured.
WARM_UP_PAYMENTS = 21_000
WARM_UP_POLLS = 2_000
WAIT = wait_fixed(0.001)  # as fast as it goes: the schedule would take days for so many polls


@dataclass
class Soak:
    """How many polls are to be made, and how many have been."""

    polls: int
    made: Counter[str] = field(default_factory=Counter)
    begun: int = 0

    @property
    def done(self) -> int:
        return sum(self.made.values())

    def reference(self) -> str:
        """A payment that ends at its fifth look, and that nobody has asked for before."""
        self.begun += 1
        return f"LOOKS{LOOKS}X{self.begun}"


def resident_mib() -> float:
    """The memory of this process as its operator sees it.

    Not tracemalloc's figure: that one sees no byte of Rust's, nor of TLS, nor of the pools that
    Python keeps. What the C library holds back for later use is given back first.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def run(polls: int, transport: str, recorder: Recorder) -> Report:
    """Warm up, poll, and compare memory and descriptors along the way."""
    soak, memory, open_files, tasks = Soak(polls), [], [], []
    async with AsyncPayNexus(
        SECRET_KEY, base_url=recorder.url, transport=transport, timeout=20
    ) as paynexus:
        await _warm_up(paynexus, soak)
        soak.made.clear()
        started = time.monotonic()
        for step in range(CHECKPOINTS + 1):
            await _poll_until(paynexus, soak, polls * step // CHECKPOINTS)
            memory.append(resident_mib())
            open_files.append(descriptors())
            tasks.append(tasks_alive())
        seconds = time.monotonic() - started
    growth = memory[-1] - memory[0]
    report = Report(f"soak: {sniffio.current_async_library()}, {transport}")
    report.figures |= {
        "polls": soak.done,
        **{f"  by {name}": count for name, count in soak.made.items()},
        "a second": soak.done / seconds,
        "resident memory after warm-up (MiB)": memory[0],
        "resident memory at the end (MiB)": memory[-1],
        "growth (MiB)": growth,
        "descriptors": f"{open_files[0]} to {open_files[-1]}",
        "tasks": f"{tasks[0]} to {tasks[-1]}",
    }
    report.require(growth < GROWTH_MIB_MAX, f"memory grew: {[round(m, 1) for m in memory]}")
    report.require(max(open_files[1:]) <= open_files[0], f"descriptors grew: {open_files}")
    report.require(max(tasks) <= tasks[0], f"tasks grew: {tasks}")
    return report


async def _warm_up(paynexus: AsyncPayNexus, soak: Soak) -> None:
    """Open every connection, and fill every memory that has a bound."""
    names = [f"PNX{i}" for i in range(WARM_UP_PAYMENTS)]
    async with aclosing(paynexus.check_payments(names)) as results:
        async for result in results:
            assert result.error is None, result.error
    await _poll_until(paynexus, soak, WARM_UP_POLLS)


async def _poll_until(paynexus: AsyncPayNexus, soak: Soak, polls: int) -> None:
    async def caller(number: int) -> None:
        ways = [_wait, _watch, _call, _check, _pay]
        while soak.done < polls:
            await ways[number % len(ways)](paynexus, soak)
            number += 1

    async with anyio.create_task_group() as group:
        for number in range(CALLERS):
            group.start_soon(caller, number)


async def _wait(paynexus: AsyncPayNexus, soak: Soak) -> None:
    payment = await paynexus.wait_for_completion(soak.reference(), wait=WAIT)
    assert payment.succeeded
    soak.made["wait_for_completion"] += LOOKS


async def _watch(paynexus: AsyncPayNexus, soak: Soak) -> None:
    async with aclosing(paynexus.watch(soak.reference(), wait=WAIT)) as updates:
        seen = [update.payment.status async for update in updates]
    assert seen == ["processing", "completed"]
    soak.made["watch"] += LOOKS


async def _call(paynexus: AsyncPayNexus, soak: Soak) -> None:
    reference = soak.reference()
    for _ in range(LOOKS):
        payment = await paynexus.get_payment_status(reference)
    assert payment.succeeded
    soak.made["get_payment_status"] += LOOKS


async def _check(paynexus: AsyncPayNexus, soak: Soak) -> None:
    names = [f"PNX{soak.begun}N{i}" for i in range(CHECKED_AT_ONCE)]
    async with aclosing(paynexus.check_payments(names)) as results:
        async for result in results:
            assert result.error is None, result.error
    soak.made["check_payments"] += len(names)


async def _pay(paynexus: AsyncPayNexus, soak: Soak) -> None:
    """Initiate too, now and then: what the client remembers of a prompt must end with it."""
    soak.begun += 1
    number = soak.begun
    payment = await paynexus.pay(amount_of(number), phone_of(number), wait=WAIT)
    assert payment.succeeded
    soak.made["pay"] += LOOKS
