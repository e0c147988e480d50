"""Whatever a server does: one request, a true verdict, in time, and in bounded memory."""

from __future__ import annotations

import logging
import random
import resource
import socket
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import httpx2
import pytest

from paynexus_async import (
    APIConnectionError,
    APIError,
    APIResponseError,
    APIStatusError,
    AsyncPayNexus,
    DuplicatePaymentError,
    Payment,
    PaymentMismatchError,
    PaymentOutcomeUnknown,
    PayNexusError,
    QuotaExhaustedError,
    RateLimitError,
)

from ..stopwatch import Stopwatch
from .server import BEHAVIOURS, DATA, MIB, PHONE, Connection, HostileServer, envelope, healthy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

SECRET_KEY = "sk_live_4eC39HqLyjWDarjtT1zdp7dc"
TIMEOUT = 0.5
REJECTED = {f"refuse {n}" for n in (400, 401, 403, 404, 409, 422, 429)}
MISMATCHED = {"other amount", "other phone"}


@asynccontextmanager
async def client(
    server: HostileServer, transport: str = "httpx", **options: object
) -> AsyncIterator[AsyncPayNexus]:
    """A client, over one of its transports, or over a client of httpx's successor."""
    options = {"timeout": TIMEOUT, "base_url": server.url, **options}
    async with AsyncExitStack() as stack:
        if transport == "httpx2":
            borrowed = httpx2.AsyncClient(trust_env=False)
            options["http_client"] = await stack.enter_async_context(borrowed)
        else:
            options["transport"] = transport
        yield await stack.enter_async_context(AsyncPayNexus(SECRET_KEY, **options))


@pytest.fixture(params=["httpx", "httpx2", "aiohttp", "pyreqwest"])
def transport(request: pytest.FixtureRequest) -> str:
    """Each way to read, and httpx's successor for everything."""
    return request.param


def everything_said(error: BaseException) -> str:
    """The texts of an error and of all that it came from."""
    texts = []
    seen: BaseException | None = error
    while seen is not None:
        texts += [str(seen), repr(seen)]
        seen = seen.__cause__ or seen.__context__
    return " ".join(texts)


@pytest.mark.parametrize("name", BEHAVIOURS)
async def test_an_initiate_is_sent_once_and_judged_truly(name, caplog, transport):
    """One POST; rejected, never sent, or unknown; in time; and the client is as good as before."""
    peak_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with HostileServer(BEHAVIOURS[name]) as server, caplog.at_level(logging.DEBUG):
        async with client(server, transport=transport) as paynexus:
            with Stopwatch() as watch:
                with pytest.raises(PayNexusError) as caught:
                    await paynexus.initiate_payment(100, PHONE)
                assert watch.seconds < TIMEOUT + 1
            error = caught.value

            # Where the machine stood still, the time was over before an answer, or a connection.
            is_late = watch.stood_still > TIMEOUT / 2
            if isinstance(error, APIConnectionError):  # a reset may come before the first byte
                assert is_late or name == "reset at once"
                assert error.never_sent
                assert server.heads == []
            elif isinstance(error, PaymentOutcomeUnknown):
                assert is_late or name not in REJECTED | MISMATCHED
                assert error.error.__cause__ is None or not isinstance(
                    error.error.__cause__, APIError
                )
            elif name in REJECTED:
                assert isinstance(error, APIStatusError)
                assert f"refuse {error.status_code}" == name
                assert "No prompt was sent" in str(error)
            else:
                assert name in MISMATCHED
                assert isinstance(error, PaymentMismatchError)
                assert error.answered.reference == DATA["reference"]
            assert server.initiates <= 1
            if name not in {"reset at once", "never read"} and not is_late:
                assert server.initiates == 1  # those two read nothing
            assert not any(b"/elsewhere" in head for head in server.heads)

            said = everything_said(error) + caplog.text
            assert SECRET_KEY not in said
            assert "746990866" not in said

            server.behaviour = healthy
            if name == "refuse 429" and isinstance(error, RateLimitError):  # everybody pauses
                with pytest.raises(QuotaExhaustedError, match="nothing was sent"):
                    await paynexus.get_payment_status("PNXABC123DEF", timeout=5)
            else:
                answered = await paynexus.get_payment_status("PNXABC123DEF", timeout=5)
                assert answered.amount == 100
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_before) / 1024
    assert grown < 16


@pytest.mark.parametrize("name", BEHAVIOURS)
async def test_a_read_ends_in_an_error_of_ours_and_in_time(name, transport):
    """Never one of httpx, httpcore, h11 or anyio."""
    with HostileServer(BEHAVIOURS[name]) as server:
        async with client(server, transport=transport, max_retries=0) as paynexus:
            with Stopwatch() as watch:
                try:
                    answered = await paynexus.get_payment_status("PNXABC123DEF")
                except APIError:
                    is_late = watch.stood_still > TIMEOUT / 2
                    assert is_late or name not in MISMATCHED | {"no reference"}
                else:
                    assert name in MISMATCHED | {"no reference"}
                    assert isinstance(answered, Payment)
                assert watch.seconds < TIMEOUT + 1


@pytest.mark.parametrize(
    "name", ["reset after the head", "truncate", "garbage", "HTML 500", "gzip bomb"]
)
async def test_a_read_recovers_when_the_server_does(name, transport):
    """The second attempt is answered."""
    with HostileServer(BEHAVIOURS[name]) as server:

        def once(connection: Connection) -> None:
            server.behaviour = healthy
            BEHAVIOURS[name](connection)

        server.behaviour = once
        async with client(server, transport=transport, timeout=10) as paynexus:
            assert (await paynexus.get_payment_status("PNXABC123DEF")).status == "processing"
        assert len(server.heads) == 2


async def test_a_refused_connection_is_never_sent_and_tried_again():
    """Nobody listens: nothing left."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
    async with AsyncPayNexus(SECRET_KEY, base_url=url, timeout=2, max_retries=1) as paynexus:
        with pytest.raises(APIConnectionError, match="no prompt was sent") as caught:
            await paynexus.initiate_payment(100, PHONE)
        assert caught.value.never_sent
        with pytest.raises(APIConnectionError):  # and the way is free for the next one
            await paynexus.initiate_payment(100, PHONE)


async def test_a_flood_is_cut_off_early(transport):
    """One MiB is read, not two hundred."""
    for name, limit in (("plain flood", 8 * MIB), ("gzip bomb", MIB)):
        with HostileServer(BEHAVIOURS[name]) as server:
            async with client(server, transport=transport, max_retries=0, timeout=5) as paynexus:
                with pytest.raises(APIResponseError) as caught:
                    await paynexus.get_payment_status("PNXABC123DEF")
                assert caught.value.response is not None
                assert len(caught.value.response.body) <= MIB <= limit


async def test_cancelled_callers_leave_the_pool_whole(transport):
    """Seven of ten are cancelled at a random moment; afterwards every place is free."""
    rng = random.Random(11)

    def slow(connection: Connection) -> None:
        connection.stop.wait(rng.random() * 0.01)
        healthy(connection)

    with HostileServer(slow) as server:
        async with client(server, transport=transport, timeout=30, max_retries=0) as paynexus:

            async def read(patience: float) -> None:
                with anyio.move_on_after(patience):
                    await paynexus.get_payment_status("PNXABC123DEF")

            async with anyio.create_task_group() as group:
                for _ in range(400):
                    patience = rng.random() * 0.02 if rng.random() < 0.7 else 30
                    group.start_soon(read, patience)
                    await anyio.lowlevel.checkpoint()
            answered = []

            async def again() -> None:
                answered.append(await paynexus.get_payment_status("PNXABC123DEF", timeout=5))

            async with anyio.create_task_group() as group:
                for _ in range(10):
                    group.start_soon(again)
            assert len(answered) == 10


async def test_a_cancelled_initiate_that_left_keeps_its_reference():
    """And the next one is refused with it."""
    release = anyio.Event()

    def wait_then_answer(connection: Connection) -> None:
        connection.request()
        while not release.is_set():
            connection.stop.wait(0.005)
        connection.answer(200, envelope())

    with HostileServer(wait_then_answer) as server:
        async with client(server, timeout=10) as paynexus:
            async with anyio.create_task_group() as group:
                group.start_soon(paynexus.initiate_payment, 100, PHONE)
                while not server.initiates:  # noqa: ASYNC110  # a thread has no anyio.Event
                    await anyio.sleep(0.005)
                group.cancel_scope.cancel()
            release.set()
            reference = None
            while reference is None:
                with pytest.raises(DuplicatePaymentError) as caught:
                    await paynexus.initiate_payment(100, PHONE)
                reference = caught.value.reference
                await anyio.sleep(0.005)
            assert reference == DATA["reference"]
        assert server.initiates == 1
