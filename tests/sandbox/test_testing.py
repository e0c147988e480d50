"""The sandbox as tests use it: what it orders, what it tells, and whose time it moves."""

from __future__ import annotations

import asyncio
import contextlib
import time
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

from paynexus_async import (
    APIConnectionError,
    APIStatusError,
    AsyncPayNexus,
    PaymentOutcomeUnknown,
    PayNexusError,
    RateLimitError,
)
from paynexus_async.sandbox import FAULTS, Fault, Sandbox
from paynexus_async.sandbox._virtual_time import VirtualTime, _JumpingLoop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PHONE = "0746990866"


def play(work: Callable[[AsyncPayNexus, Sandbox], Awaitable[None]]) -> None:
    """Run *work* on an ordinary loop, with a client on a sandbox."""

    async def main() -> None:
        with Sandbox() as sandbox:
            async with AsyncPayNexus(
                sandbox.secret_key,
                sandbox.public_key,
                base_url=sandbox.base_url,
                http_client=httpx.AsyncClient(transport=sandbox.transport),
            ) as paynexus:
                await work(paynexus, sandbox)

    asyncio.run(main())


# --- What it orders


def test_a_lost_answer_leaves_a_prompt():
    """Once, and the client knows that it does not know."""

    async def work(paynexus, sandbox):
        sandbox.lose_next_answer()
        assert (await paynexus.validate_phone(PHONE)).valid  # it is no initiate
        with pytest.raises(PaymentOutcomeUnknown):
            await paynexus.initiate_payment(100, PHONE)
        prompt = sandbox.assert_prompted_once(PHONE)
        assert sandbox.status(prompt) == sandbox.status(prompt.reference) == "initiated"
        sandbox.advance(10)
        assert sandbox.status(prompt) == "completed"
        await paynexus.initiate_payment(101, PHONE)
        assert (
            f"---  POST /mpesa/payment/initiate  {prompt.reference}  reset-after" in sandbox.story()
        )
        assert repr(sandbox) == "<Sandbox 2 prompts, 3 calls>"

    play(work)


@pytest.mark.parametrize("status_code", [400, 401, 403, 404, 409, 422, 429])
def test_a_refusal_prompts_nobody(status_code):
    """Once; each of those that an initiate can have."""

    async def work(paynexus, sandbox):
        sandbox.refuse_next(status_code)
        with pytest.raises(APIStatusError) as raised:
            await paynexus.initiate_payment(100, PHONE)
        assert raised.value.status_code == status_code
        assert isinstance(raised.value, RateLimitError) == (status_code == 429)
        sandbox.assert_not_prompted(PHONE)
        sandbox.advance(61)  # a 429 is for a minute
        await paynexus.initiate_payment(100, PHONE)
        sandbox.assert_prompted_once(PHONE)

    play(work)


def test_no_refusal_that_leaves_the_outcome_open():
    """A 503 may have prompted: that is a lost answer."""
    with Sandbox() as sandbox, pytest.raises(ValueError, match=r"lose_next_answer\(\)"):
        sandbox.refuse_next(503)


def test_what_cannot_connect_was_never_sent():
    """However often the client tries."""

    async def work(paynexus, sandbox):
        with sandbox.unreachable(), pytest.raises(APIConnectionError) as raised:
            await paynexus.initiate_payment(100, PHONE)
        assert raised.value.never_sent
        sandbox.assert_not_prompted(PHONE)
        assert not sandbox.calls
        assert "no connection for POST /mpesa/payment/initiate; nothing was sent" in sandbox.story()
        assert (await paynexus.pay(100, PHONE)).succeeded

    play(work)


def test_an_unknown_scenario_lists_those_that_there_are():
    """As the ledger's own KeyError does not."""
    with Sandbox() as sandbox, pytest.raises(ValueError, match=r"one of paid, .* not 'cancled'"):
        sandbox.script("cancled")


def test_a_client_without_a_trace():
    """Any code that uses httpx: the transport does not need to be watched."""

    async def main():
        with Sandbox() as sandbox:
            async with httpx.AsyncClient(transport=sandbox.transport) as client:
                answer = await client.get(f"{sandbox.base_url}/payments?status=completed")
                assert answer.status_code == 401
                key = {"X-API-Key": sandbox.public_key}
                answer = await client.get(f"{sandbox.base_url}/payments?page=0", headers=key)
                assert answer.status_code == 422

    asyncio.run(main())


def test_the_trace_tells_what_has_left():
    """As httpcore's does: nothing of what was refused, all of what was lost."""

    async def main():
        with Sandbox() as sandbox:
            seen: list[str] = []

            async def trace(event, info):
                seen.append(event)

            async with httpx.AsyncClient(transport=sandbox.transport) as client:
                order = {"json": {}, "extensions": {"trace": trace}}
                url = f"{sandbox.base_url}/mpesa/payment/initiate"
                with sandbox.unreachable(), pytest.raises(httpx.ConnectError):
                    await client.post(url, **order)
                assert not seen
                sandbox.lose_next_answer()
                with pytest.raises(httpx.ReadError):
                    await client.post(url, **order)
                assert seen == ["http11.send_request_headers.started"]

    asyncio.run(main())


@pytest.mark.parametrize("kind", FAULTS)
def test_every_fault_meets_a_client_in_process_as_well(kind):
    """And never prompts twice."""

    async def work(paynexus, sandbox):
        sandbox.ledger.faults.add(Fault(kind, call="any", times=1))
        with contextlib.suppress(PayNexusError):
            await paynexus.initiate_payment(100, PHONE)
        met = kind if "initiate" in FAULTS[kind].calls else None
        assert sandbox.calls[0].fault == met
        assert sandbox.ledger.prompted(PHONE) <= 1

    play(work)


# --- What it tells


@pytest.mark.parametrize(
    ("prompts", "expected", "words"),
    [(0, 1, "one prompt on 07*****866, but 0"), (1, 0, "no prompt on 07*****866, but 1")],
)
def test_an_assertion_that_fails(prompts, expected, words):
    """What was expected, what was, and all that happened."""

    async def work(paynexus, sandbox):
        for _ in range(prompts):
            await paynexus.initiate_payment(100, PHONE)
        check = sandbox.assert_prompted_once if expected else sandbox.assert_not_prompted
        with pytest.raises(AssertionError) as raised:
            check(PHONE)
        text = str(raised.value)
        assert words in text
        assert ("Prompts:\n  none" in text) == (not prompts)
        assert ("What happened:\n  nothing" in text) == (not prompts)
        assert "746990866" not in text

    play(work)


# --- Whose time it moves


async def nap(seconds: float) -> float:
    """Sleep; return the real seconds that it took."""
    started = time.monotonic()
    await anyio.sleep(seconds)
    return time.monotonic() - started


def test_nothing_jumps_while_a_thread_works():
    """Its caller's timeout would be over at once."""

    async def main():
        virtual = VirtualTime()
        virtual.adopt()
        async with asyncio.timeout(5):
            await asyncio.to_thread(time.sleep, 0.02)
        sleeper = asyncio.create_task(anyio.sleep(1000))
        before = virtual()
        await anyio.to_thread.run_sync(time.sleep, 0.02)
        assert virtual() - before < 5
        await sleeper
        assert await nap(1000) < 5
        virtual.release()

    asyncio.run(main())


def test_nothing_jumps_while_a_socket_is_open():
    """Something may come from outside."""

    async def main():
        virtual = VirtualTime()
        virtual.adopt()
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        assert await nap(0.03) > 0.02
        server.close()
        await server.wait_closed()
        assert await nap(1000) < 5
        virtual.release()

    asyncio.run(main())


def test_no_clock_goes_back_when_time_is_released():
    """Timers of a loop that lives on would be hours away. Another sandbox begins where it is."""

    async def main():
        loop = asyncio.get_running_loop()
        times, clocks = [loop.time()], set()
        for _ in range(3):
            virtual = VirtualTime()
            wall = virtual()
            virtual.adopt()
            virtual.adopt()
            assert await nap(1000) < 5
            assert 999 < virtual() - wall < 1010
            virtual.release()
            times.append(loop.time())
            clocks.add(loop.time)
        assert all(later - sooner > 999 for sooner, later in pairwise(times))
        assert await nap(0.03) > 0.02
        assert len(clocks) == 1  # not one around the other, a thousand tests deep
        assert "select" not in vars(loop._selector)

    asyncio.run(main())


def test_to_advance_wakes_who_waits():
    """Whether the loop jumps by itself or not."""

    async def main():
        virtual = VirtualTime()
        virtual.adopt()
        sleeper = asyncio.create_task(anyio.sleep(100))
        await anyio.lowlevel.checkpoint()
        virtual.advance(101)
        started = virtual()
        await sleeper
        assert virtual() - started < 5
        virtual.release()

    asyncio.run(main())


def test_on_trio_it_is_the_clock_of_the_run(anyio_backend):
    """Which jumps by itself, and is moved by hand."""
    if anyio_backend[0] != "trio":
        return
    backend_options = anyio_backend[1]

    async def main():
        virtual = VirtualTime()
        virtual.advance(7)
        before = virtual()
        virtual.adopt()
        virtual.adopt()
        assert virtual() == pytest.approx(before, abs=5)
        moment = virtual()
        await anyio.sleep(1000)
        virtual.advance(500)
        assert virtual() - moment == pytest.approx(1500)
        assert virtual.loops == ()
        virtual.release()

    anyio.run(main, backend="trio", backend_options=backend_options)


def test_a_loop_that_cannot_jump_is_named():
    """uvloop has nothing of asyncio's inside; what to do instead is said, and nothing is sent."""

    async def main():
        with pytest.raises(RuntimeError, match=r"time cannot jump on types\.SimpleNamespace: run"):
            _JumpingLoop(SimpleNamespace(), lambda seconds: None)

    asyncio.run(main())


def test_without_a_clock_that_jumps_nothing_is_sent():
    """A client on a plain trio run is told why."""

    async def main():
        with Sandbox() as sandbox:
            async with httpx.AsyncClient(transport=sandbox.transport) as client:
                with pytest.raises(httpx.ConnectError, match="MockClock"):
                    await client.get(sandbox.base_url)
                assert not sandbox.calls

    anyio.run(main, backend="trio")


def test_a_proactor_counts_what_it_waits_for():
    """Windows' loop has no map of sockets: what it waits for is in its cache."""

    async def main():
        jumps: list[float] = []
        proactor = SimpleNamespace(_cache={1: "the loop's own"}, select=lambda timeout: [])
        loop = SimpleNamespace(
            _selector=proactor, time=asyncio.get_running_loop().time, run_in_executor=None
        )
        jumping = _JumpingLoop(loop, jumps.append)
        assert proactor.select(3) == []
        proactor._cache[2] = "a socket's"
        assert proactor.select(4) == []
        assert jumps == [3]
        assert loop.time is jumping.time

    asyncio.run(main())
