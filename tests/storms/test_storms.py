"""The storms, small: `python -m tests.storms` lets them blow at their full strength."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import pytest

from paynexus_async.sandbox import Ledger, SandboxServer

from . import cancel, faults, hostile, soak
from .proxy import Fault, FaultProxy
from .recorder import Recorder
from .wire import Requests

if TYPE_CHECKING:
    from .report import Report

asyncio_only = pytest.mark.parametrize("anyio_backend", ["asyncio"])


def hold(report: Report) -> None:
    """Every promise held."""
    assert report.violations == []


@pytest.mark.anyio
@pytest.mark.parametrize("pool", ["client", "caller"])
async def test_cancelled_callers_lose_nothing(anyio_backend, pool):
    """None stuck, none late, no false "never sent", nothing twice, no task left over."""
    storm = cancel.Storm(requests=250, pool=pool)
    with Recorder() as recorder:
        report = await cancel.run(storm, recorder)
    hold(report)
    assert report.figures["cancelled"] > 80


@pytest.mark.anyio
@asyncio_only
@pytest.mark.parametrize("transport", ["aiohttp", "pyreqwest"])
async def test_neither_do_those_of_the_faster_readers(anyio_backend, transport):
    """Their pools survive a caller who takes the exchange with him."""
    with Recorder() as recorder:
        hold(await cancel.run(cancel.Storm(requests=250, transport=transport), recorder))


@pytest.mark.anyio
@pytest.mark.parametrize("pool", ["client", "caller"])
async def test_each_verdict_is_true_wherever_a_connection_breaks(anyio_backend, pool):
    """At most one body for each initiate, at whatever byte it broke."""
    hold(await faults.run(60, seed=7, pool=pool))


@pytest.mark.anyio
async def test_a_client_that_polls_for_long_grows_by_nothing(anyio_backend, monkeypatch):
    """Neither in memory nor in descriptors nor in tasks; the command polls a hundred times more."""
    monkeypatch.setattr(soak, "WARM_UP_PAYMENTS", 300)
    monkeypatch.setattr(soak, "WARM_UP_POLLS", 300)
    with Recorder(latency=0.0) as recorder:
        hold(await soak.run(500, "httpx", recorder))


@pytest.mark.parametrize("transport", hostile.TRANSPORTS)
def test_a_hostile_answer_costs_one_error_and_little_memory(transport):
    """At most 16 MiB, by the kernel's account, in a process that does nothing else."""
    patient = {"chunks of one byte without end", "interim answers without end"}
    names = set(hostile.ANSWERS) - (
        patient if transport == "httpx" else {"interim answers without end"}
    )
    hold(hostile.run(transport, names, timeout=2.0))


# --- The instruments


def ask(url: str, request: bytes) -> bytes:
    """Send bytes, and return what comes back until the end, or until a reset."""
    port = int(url.rsplit(":", 1)[1].split("/")[0])
    answered = b""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(request)
            while piece := connection.recv(65536):
                answered += piece
    except ConnectionError:
        return answered + b"<reset>"
    return answered


REQUEST = (
    b"GET /api/payments/PNXABC123DEF HTTP/1.1\r\nHost: x\r\nX-API-Key: sk_test_1\r\n"
    b"X-Storm: 7\r\nConnection: close\r\n\r\n"
)


@pytest.mark.parametrize("kind", ["none", "delay", "drip", "reset", "close", "cut", "refuse"])
@pytest.mark.parametrize("direction", ["up", "down"])
def test_the_proxy_does_what_it_says_and_knows_what_it_forwarded(kind, direction):
    """Each fault at its byte; what the proxy says of a request is what the server saw."""
    ledger = Ledger(clock=time.time)
    with (
        SandboxServer(ledger) as server,
        FaultProxy(server.url, lambda: Fault(kind, direction, 30, 0.05)) as proxy,
    ):
        answered = ask(proxy.url, REQUEST)
        (passage,) = proxy.passages
    whole = [request.number for request in proxy.forwarded if request.is_whole]
    assert whole == [call and 7 for call in ledger.calls]
    if kind in {"none", "delay", "drip"}:
        assert answered.startswith(b"HTTP/1.1 404")
        assert whole == [7]
    elif direction == "up" or kind == "refuse":
        assert whole == []
        assert sum(len(r.head) for r in passage.forwarded.begun) == (0 if kind == "refuse" else 30)
    else:
        assert whole == [7]
        assert passage.bytes_answered == 30
    assert answered.endswith(b"<reset>") == (kind in {"reset", "refuse"})


def test_the_recorder_tells_what_arrived_however_little():
    """A whole initiate, a head without its body, and a piece without a name."""
    head = b"POST /api/mpesa/payment/initiate HTTP/1.1\r\nX-Storm: %d\r\nContent-Length: 38\r\n\r\n"
    body = b'{"phone": "254712345678", "amount": 1}'
    with Recorder() as recorder:
        port = int(recorder.url.rsplit(":", 1)[1].split("/")[0])
        for data in (head % 1 + body, head % 2 + body[:5], head[:20]):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(data)
        ends = time.monotonic() + 5
        while recorder.truth().connections < 3 and time.monotonic() < ends:
            time.sleep(0.01)
        time.sleep(0.05)
        truth = recorder.truth()
    assert truth.initiates == [(1, "254712345678", 1), (2, None, None)]
    assert truth.nameless == 1
    assert truth.bodies == {("254712345678", 1): 1}


def test_requests_are_told_apart_at_whatever_byte_they_are_cut():
    """Two on one connection, fed byte by byte."""
    requests = Requests()
    for i in range(len(REQUEST)):
        assert bool(requests.feed(REQUEST[i : i + 1])) == (i == len(REQUEST) - 1)
    assert len(requests.feed(REQUEST + REQUEST[:9])) == 1
    assert [request.number for request in requests.begun] == [7, 7, None]


@pytest.mark.anyio
@asyncio_only
async def test_a_storm_sees_what_it_is_there_to_see(anyio_backend, monkeypatch):
    """A client that forgets what it has sent is caught."""
    from paynexus_async._prompts import Prompts

    monkeypatch.setattr(Prompts, "open_like", lambda *_: None)
    with Recorder() as recorder:
        report = await cancel.run(cancel.Storm(requests=300), recorder)
    assert any("more than once" in violation for violation in report.violations)
