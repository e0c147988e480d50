"""The client meets every fault that can be ordered: what it says, beside what the ledger knows."""

from __future__ import annotations

import time
from functools import cache
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import anyio
import httpx
import pytest

from paynexus_async import (
    APIConnectionError,
    APIError,
    APIResponseError,
    APIStatusError,
    AsyncPayNexus,
    Payment,
    PaymentMismatchError,
    PaymentOutcomeUnknown,
    PayNexusError,
    RateLimitError,
    _retry,
)
from paynexus_async.sandbox import (
    FAULTS,
    PUBLIC_KEY,
    SECRET_KEY,
    Fault,
    Ledger,
    SandboxServer,
    create_app,
)

from ..stopwatch import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio

SECONDS = 0.02
REFUSED = (400, 401, 403, 404, 409, 422)
FAILED = (500, 502, 503, 504)
LIES: Final = {f"{n}-after" for n in REFUSED}
"""Refusals of what was carried out: nobody can tell them from true ones."""

WHERE_IT_MAY_BE: Final = ("before", 0), ("after", 1)
INITIATES: Final[dict[str, tuple[str, int]]] = {
    "latency": ("pending", 1),
    "backlog": ("pending", 1),
    "dripped-body": ("pending", 1),
    "rate-limit": ("rejected", 0),
    **{f"{n}-{when}": ("rejected", prompts) for n in REFUSED for when, prompts in WHERE_IT_MAY_BE},
    **{
        f"{name}-{when}": ("unknown", prompts)
        for name in (*FAILED, "html-200", "html-502", "success-false", "redirect", "reset", "close")
        for when, prompts in WHERE_IT_MAY_BE
    },
    **dict.fromkeys(
        ("cut-body", "oversized-body", "gzip", "gzip-bomb", "empty-body", "half-json", "nan"),
        ("unknown", 1),
    ),
    "wrong-types": ("unknown", 1),
    "other-payment": ("mismatch", 1),
}
"""What the client says of an initiate that meets it, and how many prompts have gone out."""

NO_ANSWER: Final = {
    "cut-body",
    *(f"{n}-{w}" for n in ("reset", "close") for w in ("before", "after")),
}
ANSWERED: Final = {"latency", "backlog", "dripped-body"}
ASKED_AGAIN_IN_VAIN: Final = {
    "rate-limit",  # not in vain, but not before it ends
    "other-payment",
    *(f"{n}-{when}" for n in REFUSED if n != 409 for when in ("before", "after")),
}
NO_TLS: Final = cache(httpx.create_ssl_context)
phones = (f"07{number:08}" for number in count(11_000_000))


def said(outcome: Payment | PayNexusError) -> str:
    """What the client says of an initiate, in a word."""
    if isinstance(outcome, Payment):
        return "pending"
    if isinstance(outcome, APIConnectionError):
        return "never sent" if outcome.never_sent else "lost"
    words = {
        PaymentOutcomeUnknown: "unknown",
        PaymentMismatchError: "mismatch",
        APIStatusError: "rejected",
    }
    return next(word for kind, word in words.items() if isinstance(outcome, kind))


async def initiated(paynexus: AsyncPayNexus, phone: str) -> Payment | PayNexusError:
    try:
        return await paynexus.initiate_payment(100, phone)
    except PayNexusError as error:
        return error


@pytest.fixture(autouse=True)
def _certificates_are_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody shows any here, and to load them takes longer than to meet a fault."""
    monkeypatch.setattr(httpx, "create_ssl_context", NO_TLS)


@pytest.fixture(scope="module")
def running() -> Iterator[SandboxServer]:
    """One server: to stop it takes longer than to meet a fault."""
    with SandboxServer(Ledger(clock=time.time)) as server:
        yield server


@pytest.fixture
def server(running: SandboxServer) -> Iterator[SandboxServer]:
    """Without any order."""
    yield running
    running.faults.clear()


@pytest.fixture(params=["httpx", "aiohttp", "pyreqwest"])
def transport(request: pytest.FixtureRequest) -> str:
    """Each way to read."""
    return request.param


def client(server: SandboxServer, **options: Any) -> AsyncPayNexus:
    return AsyncPayNexus(SECRET_KEY, PUBLIC_KEY, base_url=server.url, **{"timeout": 5, **options})


def order(server: SandboxServer, name: str, **options: Any) -> None:
    seconds = None if FAULTS[name].seconds is None else SECONDS
    server.faults.add(Fault(name, **{"seconds": seconds, "times": 1, **options}))


async def test_every_kind_is_in_the_table():
    """A new one has to say what it does to an initiate."""
    assert set(FAULTS) == set(INITIATES)


@pytest.mark.parametrize("name", FAULTS)
async def test_an_initiate_is_judged_by_what_is_known(server: SandboxServer, name):
    """Once at most; and what is claimed holds, but for refusals that lie."""
    verdict, prompts = INITIATES[name]
    phone = next(phones)
    order(server, name, call="initiate")
    async with client(server) as paynexus:
        outcome = await initiated(paynexus, phone)
    ledger = server.ledger
    assert (said(outcome), ledger.prompted(phone)) == (verdict, prompts)
    if isinstance(outcome, APIStatusError):
        told = "429" if name == "rate-limit" else name[:3]
        assert str(outcome.status_code) == told
    assert ("No prompt was sent" in str(outcome)) == (verdict == "rejected")
    assert server.faults.rules == () or name == "rate-limit"  # until its spell ends

    call = ledger.calls[-1]
    assert call.fault == name
    assert call.true_status_code == (200 if prompts else None)
    assert call.reference == (ledger.prompts[-1].reference if prompts else None)
    response = getattr(outcome, "response", None)
    if name not in {"cut-body", "other-payment"}:  # its head came, but no whole answer
        assert call.status_code == (response.status_code if response else None)


@pytest.mark.parametrize("name", FAULTS)
async def test_a_read_ends_in_an_answer_or_in_an_error_of_ours(
    server, name, transport, monkeypatch
):
    """With each way to read; and what may pass is asked for a second time."""
    monkeypatch.setattr(_retry, "_FIRST_PAUSE_SECONDS", 0.001)
    async with client(server, transport=transport) as paynexus:
        payment = await paynexus.initiate_payment(100, next(phones))
        # Not once: aiohttp asks again by itself, where a connection has broken.
        order(server, name, call="status", times=None)
        assert_read(name, await read(paynexus.with_options(max_retries=0), payment))
        assert server.ledger.calls[-1].fault == name
        if name in ASKED_AGAIN_IN_VAIN:
            return

        server.faults.clear()
        order(server, name, call="status")
        before = len(server.ledger.calls)
        assert isinstance(await read(paynexus, payment), Payment)
        calls = server.ledger.calls[before:]
        assert [c.fault for c in calls] == ([name] if name in ANSWERED else [name, None])


async def read(paynexus: AsyncPayNexus, payment: Payment) -> Payment | PayNexusError:
    try:
        return await paynexus.get_payment_status(payment)
    except PayNexusError as error:
        return error


def assert_read(name: str, outcome: Payment | PayNexusError) -> None:
    """Each fault has its kind of error."""
    if name in ANSWERED:
        assert isinstance(outcome, Payment)
    elif name in NO_ANSWER:
        assert isinstance(outcome, APIConnectionError)
        assert not outcome.never_sent
    elif name == "other-payment":
        assert isinstance(outcome, PaymentMismatchError)
    elif name == "rate-limit":
        assert isinstance(outcome, RateLimitError)
        assert outcome.retry_after == 1
    elif name[:3].isdigit() or name.startswith(("html-502", "success-false")):
        assert isinstance(outcome, APIStatusError)
    else:
        assert isinstance(outcome, APIResponseError)


@pytest.mark.parametrize(
    "name", [name for name, kind in FAULTS.items() if "validate" in kind.calls]
)
async def test_a_phone_is_not_validated_by_a_fault(server, name):
    """An answer, or an error."""
    order(server, name, call="validate")
    async with client(server, max_retries=0) as paynexus:
        if name in ANSWERED:
            assert (await paynexus.validate_phone("0746990866")).valid
        else:
            with pytest.raises(APIError):
                await paynexus.validate_phone("0746990866")
    assert server.ledger.calls[-1].fault == name


async def test_who_does_not_wait_for_a_late_answer_does_not_know(server):
    """Its prompt is out."""
    phone = next(phones)
    order(server, "latency", seconds=0.3)
    async with client(server, timeout=0.1) as paynexus:
        assert said(await initiated(paynexus, phone)) == "unknown"
    assert server.ledger.prompted(phone) == 1


async def test_a_prompt_can_go_out_when_its_caller_has_gone(server):
    """Unknown is the truth: not yet, and then once."""
    phone = next(phones)
    order(server, "backlog", seconds=0.3)
    async with client(server, timeout=0.1) as paynexus:
        assert said(await initiated(paynexus, phone)) == "unknown"
        assert server.ledger.prompted(phone) == 0
        for _ in range(500):
            if server.ledger.prompted(phone):
                break
            await anyio.sleep(0.01)
    assert server.ledger.prompted(phone) == 1


async def test_a_dripped_answer_does_not_outlast_the_time_allowed(server):
    """Each byte comes in time, and the whole does not."""
    phone = next(phones)
    order(server, "dripped-body", seconds=60)
    async with client(server, timeout=0.3) as paynexus:
        with Stopwatch() as watch:
            assert said(await initiated(paynexus, phone)) == "unknown"
            assert watch.seconds < 2
    assert server.ledger.prompted(phone) == 1


async def test_who_cannot_connect_has_sent_nothing():
    """Never sent is said where it is true, and where the ledger knows of no call."""
    ledger = Ledger(clock=time.time)
    with SandboxServer(ledger) as server:
        paynexus = client(server, max_retries=0)
    async with paynexus:
        assert said(await initiated(paynexus, "0746990866")) == "never sent"
    assert ledger.calls == ()


async def test_among_faults_of_every_kind_no_verdict_is_wrong(server):
    """Of 200 initiates, three in ten meet a fault; each verdict is held to the ledger."""
    share = 1 - 0.7 ** (1 / len(FAULTS))
    for seed, name in enumerate(FAULTS):
        order(server, name, call="initiate", times=None, probability=share, seed=seed)
    ledger = server.ledger
    outcomes: list[tuple[str, int, str]] = []
    paynexus = client(server)
    try:
        for _ in range(200):
            phone, before = next(phones), len(ledger.calls)
            outcome = await initiated(paynexus, phone)
            (call,) = ledger.calls[before:]
            outcomes.append((said(outcome), ledger.prompted(phone), call.fault or ""))
            if isinstance(outcome, RateLimitError):  # whose client would now wait
                await paynexus.aclose()
                paynexus = client(server)
    finally:
        await paynexus.aclose()
    for verdict, prompts, fault in outcomes:
        assert prompts <= 1
        if verdict in {"pending", "mismatch"}:
            assert prompts == 1
        elif verdict != "unknown":
            assert verdict == "rejected"
            assert prompts == (1 if fault in LIES else 0)
    struck = [fault for *_, fault in outcomes if fault]
    assert 40 <= len(struck) <= 80
    assert len(set(struck)) > 20
    assert {verdict for verdict, *_ in outcomes} >= {"pending", "unknown", "rejected"}


@pytest.mark.parametrize("name", FAULTS)
async def test_in_process_the_verdict_is_the_same(name, anyio_backend):
    """Where there is no connection to break, the transport raises instead."""
    if (name, anyio_backend) == ("oversized-body", "trio"):
        return  # httpx's ASGITransport gives it in one piece, and trio warns of what is left unread
    ledger = Ledger(clock=time.time)
    seconds = None if FAULTS[name].seconds is None else SECONDS
    ledger.faults.add(Fault(name, seconds=seconds, times=1))
    async with (
        httpx.AsyncClient(transport=httpx.ASGITransport(app=create_app(ledger))) as http_client,
        AsyncPayNexus(SECRET_KEY, http_client=http_client) as paynexus,
    ):
        outcome = await initiated(paynexus, "0746990866")
    assert (said(outcome), len(ledger.prompts)) == INITIATES[name]
