"""One run: a seed becomes a network, a server, an application and its customers, and a verdict."""

from __future__ import annotations

import functools
import logging
import random
from collections import Counter
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import anyio
import attrs
import httpcore
import httpcore2
import httpx
import httpx2

from paynexus_async import _tasks, client
from paynexus_async.sandbox import Ledger, Plan

from .clock import AsyncioRuntime, Runtime, TrioRuntime
from .faults import BACKLOG_SECONDS_MAX
from .hooks import Hooks
from .network import Network, Trace
from .oracle import BORROWED_CONNECTIONS, Oracle, Violation
from .server import Habits, Server, Walls
from .telemetry import HEARD
from .workload import PUBLIC_KEY, SECRET_KEY, Called, Shop, draw_order

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

__all__ = ["PAYMENTS_EACH", "Report", "simulate"]

PAYMENTS_EACH: Final = 30
_TRIO_EVERY: Final = 16
_HTTPX2_EVERY: Final = 9  # no factor in common with the others: it meets each of their kinds
_VIRTUAL_SECONDS_MAX: Final = 3_000.0
_LOCAL: Final = 1_795_000_000.0  # this machine's wall clock, which is weeks ahead of the server's


@attrs.frozen
class Report:
    """What one run was, or many together.

    Attributes:
        worlds: how many.
        payments: customers who wanted to pay.
        requests: exchanges begun.
        virtual_seconds: how long that took them.
        hits: how often each fault struck.
        outcomes: of the calls, by kind.
        violations: with the seed of the run.
        digest: of the trace of a single run.
    """

    worlds: int = 0
    payments: int = 0
    requests: int = 0
    virtual_seconds: float = 0.0
    hits: Counter[str] = attrs.field(factory=Counter)
    outcomes: Counter[str] = attrs.field(factory=Counter)
    violations: tuple[tuple[int, Violation], ...] = ()
    digest: str = ""

    def __add__(self, other: Report) -> Report:
        return Report(
            self.worlds + other.worlds,
            self.payments + other.payments,
            self.requests + other.requests,
            self.virtual_seconds + other.virtual_seconds,
            self.hits + other.hits,
            self.outcomes + other.outcomes,
            self.violations + other.violations,
        )


def simulate(seed: int, *, payments: int = PAYMENTS_EACH, trace: bool = False) -> Report:
    """Run one world to its end, and judge it. Everything follows from the seed."""
    runtime: Runtime = TrioRuntime(seed) if seed % _TRIO_EVERY == 7 else AsyncioRuntime()
    world = _World(runtime, random.Random(seed), seed, payments, trace=trace)
    world.run()
    return world.report()


@functools.cache
def _ssl_context() -> Any:
    return httpx.create_ssl_context(trust_env=False)


def _httpx2_client() -> httpx2.AsyncClient:
    """Make a client as a merchant does who brings his own, with room for all that may come."""
    limits = httpx2.Limits(max_connections=BORROWED_CONNECTIONS)
    return httpx2.AsyncClient(verify=_ssl_context(), trust_env=False, limits=limits)


class _World:
    """Everything that one run consists of."""

    def __init__(
        self, runtime: Runtime, rng: Random, seed: int, payments: int, *, trace: bool
    ) -> None:
        self.runtime = runtime
        self.seed = seed
        self.rng = rng
        self.payments = payments
        self.ended_at = 0.0
        self.trace = Trace(lambda: runtime.now() if self.goes_on else 0.0, prints=trace)
        self.goes_on = False
        roughness = rng.choice((0.0, 0.15, 0.3, 0.45, 0.6))
        self.over_httpx2 = seed % _HTTPX2_EVERY == 8
        self.network = Network(
            runtime,
            random.Random(seed + 1),
            roughness=roughness,
            trace=self.trace,
            core=httpcore2 if self.over_httpx2 else httpcore,
        )
        self.oracle = Oracle(self.network)
        walls = Walls(self.network)
        limits = rng.random() < 0.12
        plan = Plan("simulated", {60: rng.choice((30, 60, 120))}) if limits else None
        ledger = Ledger(clock=walls.now, plan=plan, seed=seed)
        self.server = Server(self.network, ledger, walls, random.Random(seed + 2))
        self.server.limits_calls = limits
        self.server.habits = Habits.draw(random.Random(seed + 4))
        self.oracle.server = self.server
        self.oracle.local_clock = _LOCAL
        HEARD.hear = self.oracle.text
        self.options = _options(rng)
        self.oracle.timeout = self.options["timeout"]
        self.shop: Shop

    def run(self) -> None:
        logger = logging.getLogger("paynexus_async")
        level, propagate = logger.level, logger.propagate
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        logger.addHandler(self.oracle.listener)
        state = random.getstate()
        random.seed(self.seed)  # the client's jitter
        try:
            with _simulated(self.network):
                self.runtime.run(self._main)
        except Exception as error:  # the run itself broke: that is found out too
            self.goes_on = False  # and with it the clock
            self.oracle.violated(0, f"the run broke: {error!r}")
            if self.trace._prints:
                raise
        finally:
            self.goes_on = False
            random.setstate(state)
            logger.removeHandler(self.oracle.listener)
            logger.setLevel(level)
            logger.propagate = propagate

    def report(self) -> Report:
        return Report(
            worlds=1,
            payments=self.payments,
            requests=len(self.network.exchanges),
            virtual_seconds=self.ended_at,
            hits=self.network.hits,
            outcomes=self.oracle.outcomes,
            violations=tuple((self.seed, violation) for violation in self.oracle.violations),
            digest=self.trace.digest,
        )

    # --- Inside

    async def _main(self) -> None:
        self.goes_on = True
        self.shop = Shop(
            self.runtime,
            self.network,
            self.server,
            self.oracle,
            rng=random.Random(self.seed + 3),
            options=self.options,
            borrow=_httpx2_client if self.over_httpx2 else None,
        )
        self.shop.open_client()
        dice = random.Random(self.seed + 6)
        hooks = Hooks(self.network, self.server, self.oracle, self.shop, dice)
        with anyio.move_on_after(_VIRTUAL_SECONDS_MAX) as scope:
            async with anyio.create_task_group() as endless:
                endless.start_soon(hooks.run)
                async with anyio.create_task_group() as group:
                    self._schedule(group)
                endless.cancel_scope.cancel()
        if scope.cancelled_caught:
            self.oracle.violated(5, "the run did not come to its end")
        await self._settle()
        HEARD.collect()
        self.oracle.judge()
        self.ended_at = self.runtime.now()

    def _schedule(self, group: anyio.abc.TaskGroup) -> None:
        """Let customers come, and misfortunes."""
        rng, network, runtime = self.rng, self.network, self.runtime
        orders = []
        for number in range(self.payments):
            order, scenario = draw_order(random.Random(f"{self.seed}:{number}"), number)
            self.server.ledger.script(scenario, phone=order.phone)
            if scenario.name.startswith(("late", "undocumented", "stale", "bare", "other")):
                network.hit(f"customer: {scenario.name}")
            orders.append(order)
            if order.again_after is not None:
                group.start_soon(self.shop.insist, order)
            if order.beside is not None:
                at, amount, words = order.beside
                runtime.later(
                    at, functools.partial(self.server.other_till, order.full_phone, amount, words)
                )
            group.start_soon(self.shop.serve, order)
        group.start_soon(self.shop.bulk, rng.uniform(8, 20))
        group.start_soon(self.shop.bulk, 32.0)
        group.start_soon(self.shop.list, random.Random(self.seed + 5))
        if network.roughness == 0:
            return
        for _ in range(rng.choice((0, 0, 1, 2))):
            seconds = rng.uniform(0, 8)
            runtime.later(rng.uniform(1, 35), lambda s=seconds: network.restart_server(s))
        for _ in range(rng.choice((0, 0, 1))):
            seconds = rng.choice((2.0, 30.0, 86_400.0))
            runtime.later(rng.uniform(1, 35), lambda s=seconds: self.server.walls.jump(s))
        if rng.random() < 0.3 and not self.server.limits_calls:
            seconds = rng.choice((-86_400.0, -60.0, -3.0, 3.0, 3_600.0))
            runtime.later(rng.uniform(0, 30), lambda: self.server.walls.skew(seconds))
        if rng.random() < 0.4:
            paying = [order for order in orders if order.style == "pay"]
            self.shop.closes_with = rng.choice([*paying, None])
            group.start_soon(self.shop.change_clients, rng.uniform(3, 30))

    async def _settle(self) -> None:
        """Let the network be healthy, see that everything works, and close."""
        self.network.roughness = 0.0
        self.network.is_calm = True
        await self.runtime.sleep(BACKLOG_SECONDS_MAX + self.options["timeout"] + 15.0)
        client = self.shop.client
        self.oracle.at_rest(client)
        if self.seed % 4 == 0 and not self.server.limits_calls:
            await self._probe()
            self.oracle.at_rest(client)
        for number, each in enumerate(self.shop.clients):
            if not each._transport._closed:
                await self.shop.close_client(number)
        if self.runtime.tasks_left():
            self.oracle.violated(5, f"{self.runtime.tasks_left()} tasks are left")

    async def _probe(self) -> None:
        """Read on each connection at once, when the last pause of a 429 is over."""
        transport = self.shop.client._transport
        references = list(self.server.records)
        if not references:
            return
        await self.runtime.sleep(125.0)
        results: list[Called] = []

        async def read(reference: str) -> None:
            called = await self.shop.call(
                "probe",
                lambda _: self.shop.client.get_payment_status(reference),
                limit=self.options["timeout"],
                asked=reference,
            )
            if self.server.records[reference].scenario.name != "other-reference":
                results.append(called)

        async with anyio.create_task_group() as group:
            reads = transport.connections_max
            if transport._lanes is not None:
                reads = len(transport._lanes._free[False])
            for number in range(reads):
                group.start_soon(read, references[number % len(references)])
        self.oracle.probed(results)


def _options(rng: Random) -> dict[str, Any]:
    return {
        "secret_key": SECRET_KEY,
        "public_key": None if rng.random() < 0.15 else PUBLIC_KEY,
        "timeout": rng.choice((5.0, 8.0, 15.0)),
        "max_retries": rng.choice((0, 1, 2, 2)),
        "patience": rng.choice(("thrifty", "balanced", "eager", 0.05)),
        "learn": rng.random() < 0.2,
        "telemetry": HEARD.telemetry,
    }


@contextmanager
def _simulated(network: Network) -> Iterator[None]:
    """Put the network below httpcore, or httpcore2, whose own clock is not the event loop's.

    Everything above is what is shipped: httpx's transports make pools of httpcore's, and these get
    a backend that is no operating system's.
    """
    core = network.core
    pool = functools.partial(core.AsyncConnectionPool, network_backend=network)
    clock = SimpleNamespace(monotonic=network.runtime.now)
    context = _ssl_context()
    with ExitStack() as stack:
        for target, name, value in (
            (core, "AsyncConnectionPool", pool),
            (core._async.http11, "time", clock),
            (httpx, "create_ssl_context", lambda **_: context),  # slow, and no TLS is spoken here
            (
                client,
                "_utc_now",
                lambda: datetime.fromtimestamp(_LOCAL + network.runtime.now(), UTC),
            ),
            (_tasks.OwnedTasks, "__init__", _with_ordered_tasks(_tasks.OwnedTasks.__init__)),
        ):
            stack.enter_context(mock.patch.object(target, name, value))
        yield


class _OrderedSet(dict[Any, None]):
    """A set whose order is not that of addresses in memory, which differ between runs."""

    def add(self, item: Any) -> None:
        self[item] = None

    def discard(self, item: Any) -> None:
        self.pop(item, None)


def _with_ordered_tasks(init: Any) -> Any:
    def ordered(self: _tasks.OwnedTasks) -> None:
        init(self)
        self._running = _OrderedSet()  # type: ignore[assignment]

    return ordered
