"""The fault storm: connections break at any byte, and each verdict must be true all the same."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field

import anyio
import httpx
import sniffio

from paynexus_async import (
    APIConnectionError,
    APIStatusError,
    AsyncPayNexus,
    DuplicatePaymentError,
    Payment,
    PaymentOutcomeUnknown,
    PayNexusError,
)
from paynexus_async.sandbox import SECRET_KEY, Ledger, SandboxServer

from ..stopwatch import Stopwatch
from .cancel import SECOND_TRIES_FROM, amount_of, phone_of, tasks_alive
from .proxy import HEALTHY, Fault, FaultProxy, random_fault
from .report import Report
from .wire import STORM_HEADER

CALLERS = 20
TIMEOUT_SECONDS = 0.4
PATIENT_SECONDS = 20.0
POOL = 10


@dataclass
class Verdicts:
    """What the client said of each initiate, by its number."""

    paid: dict[int, Payment] = field(default_factory=dict)
    never_sent: set[int] = field(default_factory=set)
    rejected: set[int] = field(default_factory=set)
    unknown: set[int] = field(default_factory=set)
    duplicate: set[int] = field(default_factory=set)
    other: dict[int, str] = field(default_factory=dict)
    took: list[float] = field(default_factory=list)
    watch: Stopwatch = field(default_factory=Stopwatch)

    async def ask(
        self, paynexus: AsyncPayNexus, number: int, timeout: float, base: int = 0
    ) -> None:
        """Initiate once, and note what the client says."""
        named = paynexus.with_options(default_headers={STORM_HEADER: str(base + number)})
        started = self.watch.seconds
        try:
            payment = await named.initiate_payment(
                amount_of(number), phone_of(number), timeout=timeout
            )
            self.paid[number] = payment
        except PaymentOutcomeUnknown:
            self.unknown.add(number)
        except DuplicatePaymentError:
            self.duplicate.add(number)
        except APIStatusError:
            self.rejected.add(number)
        except APIConnectionError as error:
            if error.never_sent:
                self.never_sent.add(number)
            else:
                self.other[number] = repr(error)
        except PayNexusError as error:
            self.other[number] = repr(error)
        self.took.append(self.watch.seconds - started)


@dataclass
class Ground:
    """What is true: what the proxy saw of each initiate, and the prompts that the server sent."""

    received: set[int | None]
    forwarded: Counter[tuple[str, int]]
    prompts: Counter[tuple[str, int]]
    references: dict[str, tuple[str, int]]

    @classmethod
    def of(cls, proxy: FaultProxy, ledger: Ledger) -> Ground:
        whole = [request for request in proxy.forwarded if request.is_whole]
        return cls(
            received={request.number for request in proxy.received},
            forwarded=Counter(asked for request in whole if (asked := request.asked)),
            prompts=Counter((p.phone, p.amount) for p in ledger.prompts),
            references={p.reference: (p.phone, p.amount) for p in ledger.prompts},
        )


def asked(number: int) -> tuple[str, int]:
    return phone_of(number), amount_of(number)


async def run(initiates: int, seed: int, pool: str) -> Report:
    """Initiate through the faults, and then once more without them."""
    ledger, rng = Ledger(clock=time.time), random.Random(seed)
    started, before = time.monotonic(), tasks_alive()
    # The client initiates on a connection of its own each time; another pool keeps them alive.
    requests = 4 if pool == "caller" else 1
    with (
        SandboxServer(ledger) as server,
        FaultProxy(server.url, lambda: random_fault(rng, requests)) as proxy,
    ):
        limits = httpx.Limits(max_connections=POOL)
        async with httpx.AsyncClient(limits=limits, trust_env=False) as http_client:
            paynexus = AsyncPayNexus(
                SECRET_KEY,
                base_url=proxy.url,
                http_client=http_client if pool == "caller" else None,
            )
            async with paynexus:
                first = await _ask_all(paynexus, range(initiates), TIMEOUT_SECONDS)
                during = Ground.of(proxy, ledger)
                seconds = time.monotonic() - started
                proxy.choose = lambda: HEALTHY
                open_ones = first.unknown | set(first.paid)
                again = await _ask_all(
                    paynexus,
                    sorted(open_ones | first.never_sent),
                    PATIENT_SECONDS,
                    SECOND_TRIES_FROM,
                )
        await anyio.sleep(0.1)
        after = Ground.of(proxy, ledger)
        faults = Counter(passage.fault.kind for passage in proxy.passages)
    report = Report(f"faults: {sniffio.current_async_library()}, {pool}'s pool")
    report.figures |= {
        "initiates": initiates,
        "a second": initiates / seconds,
        "connections": sum(faults.values()),
        "  with each kind of fault": f"{min(faults.values())} or more",
        "longest call (s)": max(first.took),
        "tasks left": tasks_alive() - before,
    }
    _check(first, during, report)
    _check_second_tries(first, again, after, report)
    report.require(tasks_alive() <= before, "tasks were left over")
    return report


async def _ask_all(
    paynexus: AsyncPayNexus, numbers: range | list[int], timeout: float, base: int = 0
) -> Verdicts:
    verdicts, left = Verdicts(), iter(numbers)

    async def caller() -> None:
        for number in left:
            await verdicts.ask(paynexus, number, timeout, base)

    with verdicts.watch:
        async with anyio.create_task_group() as group:
            for _ in range(CALLERS):
                group.start_soon(caller)
    return verdicts


def _check(said: Verdicts, true: Ground, report: Report) -> None:
    """Each verdict against the truth."""
    prompted = {number for number in said.unknown if true.prompts[asked(number)]}
    untouched = {n for n in said.unknown if n not in true.received}
    wrong = {
        number
        for number, payment in said.paid.items()
        if true.references.get(payment.reference or "") != asked(number)
    }
    report.figures |= {
        "answered": len(said.paid),
        "never sent": len(said.never_sent),
        "rejected": len(said.rejected),
        "unknown": len(said.unknown),
        "  of them with a prompt on the phone": len(prompted),
        "  of them without": len(said.unknown) - len(prompted),
        "  of them without a byte that arrived": len(untouched),
        "bodies forwarded": sum(true.forwarded.values()),
        "bodies forwarded twice": sum(n > 1 for n in true.forwarded.values()),
        "prompts sent twice": sum(n > 1 for n in true.prompts.values()),
    }
    report.require_none(wrong, "answered with a payment that is not the one asked for")
    report.require_none(said.never_sent & true.received, 'reported "never sent", and was sent')
    rejected = {number for number in said.rejected if true.prompts[asked(number)]}
    report.require_none(rejected, "reported as rejected, and the phone was prompted")
    report.require_none(list(said.other.items()), "another error than the promised ones")
    report.require_none(said.duplicate, "refused as a duplicate of nothing")
    late = [seconds for seconds in said.took if seconds > TIMEOUT_SECONDS + 1]
    report.require_none(late, "calls took longer than a second beyond their time")


def _check_second_tries(first: Verdicts, again: Verdicts, true: Ground, report: Report) -> None:
    """What may be open is refused, what was never sent goes out, and nothing arrives twice."""
    held = again.duplicate
    report.figures |= {
        "second tries refused": len(held),
        "second tries answered": len(again.paid),
        "second tries unknown": len(again.unknown),
    }
    report.require_none((first.unknown | set(first.paid)) - held, "sent again beside an open one")
    # A connection of the caller's that was kept alive may still break under the second try.
    answered = set(again.paid) | again.unknown
    report.require_none(first.never_sent - answered, "not sent at the second try")
    twice = {what: n for what, n in (true.prompts | true.forwarded).items() if n > 1}
    report.require_none(twice, "arrived more than once")


def fault_at(kind: str, direction: str, offset: int) -> Fault:
    """Name one fault, for tests."""
    return Fault(kind, direction, offset, 0.05)  # type: ignore[arg-type]
