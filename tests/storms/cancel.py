"""The cancellation storm: most callers give up at a random moment, and nothing may be lost by it."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import anyio
import httpx
import sniffio

from paynexus_async import (
    APIConnectionError,
    AsyncPayNexus,
    DuplicatePaymentError,
    PayNexusError,
)

from .lag import LagWatch
from .report import Report, percentile
from .wire import STORM_HEADER

if TYPE_CHECKING:
    from .recorder import Recorder, Truth

SECRET_KEY = "sk_test_storm_0123456789"
POOL = 10
CALLERS = 40
TIMEOUT_SECONDS = 10.0
LATE_SECONDS = 0.05
CLOSED_WITHIN_SECONDS = 7.0
READS_AFTERWARDS = 30
SECOND_TRIES_FROM = 10_000_000

Pool = Literal["client", "caller"]


def phone_of(number: int) -> str:
    """A phone for each initiate: no two are alike."""
    return f"25471{number:07}"


def amount_of(number: int) -> int:
    return 1 + number % 1000


@dataclass
class Storm:
    """What is asked, and what the callers saw of it."""

    requests: int = 20_000
    transport: str = "httpx"
    pool: Pool = "client"
    cancelled_share: float = 0.93  # some end before they can be given up: seven in ten are not
    seed: int = 1
    outcomes: Counter[str] = field(default_factory=Counter)
    never_sent: set[int] = field(default_factory=set)
    cancelled_initiates: set[int] = field(default_factory=set)
    returned: list[tuple[float, float]] = field(default_factory=list)  # cancelled at, returned at
    stuck: list[int] = field(default_factory=list)
    usual_seconds: dict[bool, float] = field(default_factory=lambda: {True: 0.01, False: 0.01})

    async def one(self, paynexus: AsyncPayNexus, number: int, rng: random.Random) -> None:
        """Make one call, and give it up at a random moment, or let it end."""
        is_initiate = rng.random() < 0.5
        cancelled = rng.random() < self.cancelled_share
        # As long as a call takes, so that it is met in each of its steps; or not at all.
        patience = rng.choice([0, 1, 1, 1]) * rng.uniform(0, 1.2 * self.usual_seconds[is_initiate])
        style = rng.choice([cancel_scope, cancel_task])

        async def call() -> None:
            await self._call(paynexus, number, is_initiate=is_initiate)

        started = anyio.current_time()
        if not cancelled:
            await call()
            took = anyio.current_time() - started
            self.usual_seconds[is_initiate] += (took - self.usual_seconds[is_initiate]) / 20
        elif times := await style(call, patience):
            self.returned.append(times)
            self.outcomes["cancelled"] += 1
            if is_initiate:
                self.cancelled_initiates.add(number)
        if anyio.current_time() - started > TIMEOUT_SECONDS + 1:
            self.stuck.append(number)

    async def _call(self, paynexus: AsyncPayNexus, number: int, *, is_initiate: bool) -> None:
        try:
            if is_initiate:
                named = paynexus.with_options(default_headers={STORM_HEADER: str(number)})
                await named.initiate_payment(amount_of(number), phone_of(number))
            else:
                await paynexus.get_payment_status(f"PNX{number}")
            self.outcomes["answered"] += 1
        except APIConnectionError as error:
            self.outcomes["never sent" if error.never_sent else "answer lost"] += 1
            if is_initiate and error.never_sent:
                self.never_sent.add(number)
        except PayNexusError as error:
            self.outcomes[type(error).__name__] += 1


Call = Callable[[], Awaitable[None]]


async def cancel_scope(call: Call, patience: float) -> tuple[float, float] | None:
    """Give a call up through a scope; return when, and when it returned, if it had not ended."""
    at = 0.0
    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:

            async def cancel() -> None:
                nonlocal at
                await anyio.sleep(patience)
                at = anyio.current_time()
                scope.cancel()

            group.start_soon(cancel)
            await call()
        returned_at = anyio.current_time()
        group.cancel_scope.cancel()
    return (at, returned_at) if scope.cancelled_caught else None


async def cancel_task(call: Call, patience: float) -> tuple[float, float] | None:
    """Give a call up as `asyncio` does it, by cancelling its task."""
    if sniffio.current_async_library() != "asyncio":
        return await cancel_scope(call, patience)
    at = 0.0
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(call())

    def cancel() -> None:
        nonlocal at
        at = loop.time()
        task.cancel()

    timer = loop.call_later(patience, cancel)
    try:
        await task
    except asyncio.CancelledError:
        return at, loop.time()
    finally:
        timer.cancel()
    return None


async def run(storm: Storm, recorder: Recorder) -> Report:
    """Let the storm pass, look at what it left, and hold the callers' story to the server's."""
    watch, before, started = LagWatch(), tasks_alive(), time.monotonic()
    limits = httpx.Limits(max_connections=POOL, max_keepalive_connections=POOL)
    async with httpx.AsyncClient(limits=limits, trust_env=False) as http_client:
        paynexus = AsyncPayNexus(
            SECRET_KEY,
            base_url=recorder.url,
            timeout=TIMEOUT_SECONDS,
            transport=storm.transport,  # type: ignore[arg-type]  # from the command line
            http_client=http_client if storm.pool == "caller" else None,
        )
        async with anyio.create_task_group() as group:
            group.start_soon(watch.run)
            await _blow(storm, paynexus)
            group.cancel_scope.cancel()
        seconds = time.monotonic() - started
        answered = await _reads_afterwards(paynexus)
        sent_again, refused_again = await _second_tries(storm, paynexus)
        closing = time.monotonic()
        await paynexus.aclose()
        closed_after = time.monotonic() - closing
    await anyio.sleep(0.05)
    report = Report(
        f"cancel: {sniffio.current_async_library()}, {storm.transport}, {storm.pool}'s pool"
    )
    report.figures |= {
        "requests": storm.requests,
        "a second": storm.requests / seconds,
        **dict(storm.outcomes.most_common()),
        "read at once afterwards": f"{answered} of {READS_AFTERWARDS}",
        "second tries sent": len(sent_again),
        "second tries refused": len(refused_again),
        "closed after (s)": closed_after,
        "tasks left": tasks_alive() - before,
    }
    told = sum(storm.outcomes.values())
    report.require(told == storm.requests, f"only {told} of {storm.requests} calls came to an end")
    report.require_none(storm.stuck, "stuck calls")
    report.require(answered == READS_AFTERWARDS, "reads afterwards were not all answered")
    report.require(closed_after < CLOSED_WITHIN_SECONDS, "the client closed too slowly")
    report.require(tasks_alive() <= before, "tasks were left over")
    _check_returns(storm, watch, report)
    _check_truth(storm, sent_again, recorder.truth(), report)
    return report


async def _blow(storm: Storm, paynexus: AsyncPayNexus) -> None:
    numbers = iter(range(storm.requests))

    async def caller(seed: int) -> None:
        rng = random.Random(seed)
        for number in numbers:
            await storm.one(paynexus, number, rng)

    async with anyio.create_task_group() as group:
        for i in range(CALLERS):
            group.start_soon(caller, storm.seed * 1000 + i)


async def _reads_afterwards(paynexus: AsyncPayNexus) -> int:
    answered = 0

    async def read(i: int) -> None:
        nonlocal answered
        await paynexus.get_payment_status(f"AFTER{i}")
        answered += 1

    with anyio.move_on_after(TIMEOUT_SECONDS):
        async with anyio.create_task_group() as group:
            for i in range(READS_AFTERWARDS):
                group.start_soon(read, i)
    return answered


async def _second_tries(storm: Storm, paynexus: AsyncPayNexus) -> tuple[set[int], set[int]]:
    """Ask again for what was given up: the client lets through what it knows not to have left."""
    sent, refused = set[int](), set[int]()
    numbers = iter(sorted(storm.cancelled_initiates | storm.never_sent))

    async def caller() -> None:
        for number in numbers:
            header = {STORM_HEADER: str(SECOND_TRIES_FROM + number)}
            named = paynexus.with_options(default_headers=header)
            try:
                await named.initiate_payment(amount_of(number), phone_of(number))
                sent.add(number)
            except DuplicatePaymentError:
                refused.add(number)

    async with anyio.create_task_group() as group:
        for _ in range(POOL):
            group.start_soon(caller)
    return sent, refused


def _check_returns(storm: Storm, watch: LagWatch, report: Report) -> None:
    took = [returned - cancelled for cancelled, returned in storm.returned]
    late = [(c, r) for c, r in storm.returned if r - c > LATE_SECONDS]
    excess = [r - c for c, r in late if r - c - watch.within(c, r) > LATE_SECONDS]
    report.figures |= {
        "cancel to return, p50 (ms)": 1000 * percentile(took, 0.5),
        "cancel to return, p99 (ms)": 1000 * percentile(took, 0.99),
        "cancel to return, max (ms)": 1000 * max(took, default=0.0),
        "later than 50 ms": len(late),
        "  of them with an idle loop": len(excess),
        "longest time the loop was busy (ms)": 1000 * watch.most,
        "  of it with a processor of its own (ms)": 1000 * watch.cpu_of_most,
        "longest garbage collection (ms)": 1000 * watch.longest_collection,
    }
    report.require_none(excess, "cancelled callers returned late, and the loop was idle")


def _check_truth(storm: Storm, sent_again: set[int], truth: Truth, report: Report) -> None:
    twice = {asked: n for asked, n in truth.bodies.items() if n > 1}
    report.figures |= {
        "initiates that arrived": len(truth.bodies),
        "initiates of which a part arrived": sum(p is None for _, p, _ in truth.initiates),
        "pieces that name no request": truth.nameless,
        "arrived twice": len(twice),
        'false "never sent"': len((storm.never_sent | sent_again) & truth.numbers),
    }
    report.require_none(twice, "initiates arrived more than once")
    report.require_none(storm.never_sent & truth.numbers, 'reported "never sent", and arrived')
    report.require_none(sent_again & truth.numbers, "sent again, though the first had arrived")


def tasks_alive() -> int:
    """How many tasks the event loop has."""
    if sniffio.current_async_library() == "asyncio":
        return len(asyncio.all_tasks())
    import trio

    return trio.lowlevel.current_statistics().tasks_living
