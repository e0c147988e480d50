"""A prompt is sent at most once, whenever the process dies; what is not proven is unknown."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from dbos import DBOS

from paynexus_async import AsyncPayNexus, PaymentOutcomeUnknown
from paynexus_async.durable import OrderHandle, OrderNotPromptedError
from paynexus_async.durable._orders import prompt_id
from paynexus_async.durable._sending import Prompts
from paynexus_async.sandbox import Fault

from .shop import ORDER, PHONE, SECRET, Shop

pytestmark = pytest.mark.anyio


def handle_of(durable: Any) -> OrderHandle:
    return OrderHandle(durable, "order-1", 1)


class Halt:
    """Where a process stands still, until it dies."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()

    async def __call__(self, *_: object) -> Any:
        self.reached.set()
        await asyncio.Event().wait()


@pytest.mark.parametrize("arrives", ["before", "after"])
async def test_a_process_that_died_while_it_sent_has_sent_perhaps(shop: Shop, arrives: str):
    """It is never sent again; what can be known of it is found in the account's list."""
    halt = Halt()
    if arrives == "before":
        shop.wire.on_initiate = halt
    else:
        shop.wire.on_answer = halt
    async with shop.worker() as durable:
        await durable.pay("order-1", **ORDER)
        await halt.reached.wait()
        await shop.crash()
    shop.wire.on_initiate = shop.wire.on_answer = None
    async with shop.worker() as durable:
        handle = await durable.pay("order-1", **ORDER)
        with pytest.raises(PaymentOutcomeUnknown, match="interrupted, perhaps after") as told:
            await handle.payment()
        assert told.value.attempt is not None
        assert told.value.attempt.phone == "254746990866"
        outcome = await handle.outcome()
    assert shop.wire.initiates == 1
    assert (outcome.state, len(shop.ledger.prompts)) == (
        ("unknown", 0) if arrives == "before" else ("completed", 1)
    )
    assert shop.told == [outcome]


async def test_without_a_secret_it_stays_unknown_and_that_is_told(shop: Shop):
    """No row holds the phone; the handler is told why nothing more is known."""
    halt = shop.wire.on_answer = Halt()
    async with shop.worker(secret=None) as durable:
        await durable.pay("order-1", **ORDER)
        await halt.reached.wait()
        await shop.crash()
    shop.wire.on_answer = None
    async with shop.worker(secret=None) as durable:
        handle = handle_of(durable)
        with pytest.raises(PaymentOutcomeUnknown):
            await handle.payment()
        outcome = await handle.outcome()
        assert (outcome.state, outcome.payment) == ("unknown", None)
        assert "without a secret" in (outcome.reason or "")
        await shop.skip(40)
        await shop.until(lambda: len(shop.rows()) == 4)
        assert (await handle.view()).state == "unknown"
    assert shop.told == [outcome]
    assert shop.wire.initiates == 1


async def test_a_process_that_died_before_the_claim_has_never_sent(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    """In another process the token is not there: so none is sent, and that is known."""
    halt = Halt()
    with monkeypatch.context() as patch:

        async def claim(self: Prompts, order: Any) -> Any:
            return await halt()

        patch.setattr(Prompts, "claim", claim)
        async with shop.worker() as durable:
            await durable.pay("order-1", **ORDER)
            await halt.reached.wait()
            await shop.crash()
    async with shop.worker() as durable:
        handle = await durable.pay("order-1", **ORDER)
        with pytest.raises(
            OrderNotPromptedError, match="ended, or its database stood still, before"
        ):
            await handle.payment()
        assert (await handle.outcome()).state == "never_sent"
        assert shop.wire.asked == []
        again = await durable.pay("order-1", **ORDER, again=True)
        assert (await again.outcome()).succeeded
    assert shop.wire.initiates == 1


@pytest.mark.parametrize("step", ["claim", "send"])
@pytest.mark.parametrize(("seconds", "is_sent"), [(100, True), (200, False), (-9, False)])
async def test_a_process_that_stood_still_before_or_after_the_claim_does_not_send(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, step: str, seconds: int, is_sent: bool
):
    """For a quarter of the lease, after all of which somebody else goes on with the order.

    Nor does one whose clock was set back: it cannot tell how long it stood still.
    """
    work = getattr(Prompts, step)

    async def later(self: Prompts, *args: Any) -> Any:
        shop.clock.ahead += seconds
        return await work(self, *args)

    monkeypatch.setattr(Prompts, step, later)
    async with shop.worker() as durable:
        assert durable._terms.send_seconds == 195
        handle = await durable.pay("order-1", **ORDER)
        if is_sent:
            await handle.payment()
        else:
            with pytest.raises(OrderNotPromptedError, match="stood still") as told:
                await handle.payment()
            assert told.value.state == (await handle.outcome()).state == "never_sent"
            assert not durable._work.prompts.fresh
    assert shop.wire.initiates == is_sent


@pytest.mark.parametrize(("words", "is_told"), [(f"of {PHONE}", False), ("of a word", True)])
async def test_what_nobody_foresaw_while_it_sent_is_unknown(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, words: str, *, is_told: bool
):
    """A prompt may be out: an error that is not of this package proves nothing.

    It is the cause of what is told, unless a traceback would print a phone with it.
    """

    async def breaks(*_: object, **__: object) -> Any:
        raise KeyError(words)

    monkeypatch.setattr(AsyncPayNexus, "initiate_payment", breaks)
    async with shop.worker() as durable:
        handle = await durable.pay("order-1", **ORDER)
        with pytest.raises(PaymentOutcomeUnknown) as told:
            await handle.payment()
        assert PHONE not in str(told.value)
        assert (told.value.__cause__ is not None) is is_told
        assert (await handle.outcome()).state == "unknown"


async def test_the_same_process_that_runs_it_again_shares_the_one_request(shop: Shop):
    """As when the database was away while the answer was to be written."""
    arrived, go = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        arrived.set()
        await go.wait()

    shop.wire.on_answer = hold
    async with shop.worker() as durable:
        handle = await durable.pay("order-1", **ORDER)
        await arrived.wait()
        name = prompt_id("paynexus", "order-1", 1)
        await DBOS.resume_workflow_async(name, queue_name="paynexus")
        await shop.until(lambda: (name, "PENDING") in shop.rows())
        await asyncio.sleep(4)
        go.set()
        assert (await handle.payment()).reference == shop.ledger.prompts[0].reference
        assert (await handle.outcome()).succeeded
    assert shop.wire.initiates == 1


async def test_a_payment_whose_answer_was_written_is_followed_by_the_next_process(shop: Shop):
    """Its burst was interrupted."""
    shop.ledger.script("stuck")
    async with shop.worker() as durable:
        payment = await (await durable.pay("order-1", **ORDER)).payment()
        await shop.until(lambda: len(shop.wire.asked) > 1)
        await shop.crash()
    assert shop.rows()[1][1] == "PENDING"
    async with shop.worker() as durable:
        again = await handle_of(durable).payment()
        assert (again.reference, again.phone) == (payment.reference, "254746990866")
        asked = len(shop.wire.asked)
        await shop.until(lambda: len(shop.wire.asked) > asked)
        assert (await shop.view(durable, "order-1")).state == "pending"
    assert shop.wire.initiates == 1


async def test_no_row_holds_a_whole_phone_a_key_or_the_payer(shop: Shop):
    """In no file of the database, whatever happened to the order; errors are not stored whole."""
    shop.ledger.faults.add(Fault("reset-after", call="initiate", times=1))

    async def fail_once(outcome: Any) -> None:
        if len(shop.told) == 1:
            msg = f"no room for {outcome.payment.phone}"
            raise ValueError(msg)

    shop.on_told = fail_once
    async with shop.worker() as durable:
        lost = await durable.pay("order-lost", **ORDER)
        assert (await lost.outcome()).payment is not None
        await shop.until(lambda: len(shop.told) == 1)
        await shop.skip(10)
        await shop.until_told(2)
        shop.ledger.script("wrong-pin")
        await (await durable.pay("order-2", amount=7, phone="0746990867")).outcome()
        shop.wire.reachable = False
        await (await durable.pay("order-3", amount=7, phone="0746990868")).outcome()
    files = list(Path(shop.path).parent.glob("orders.sqlite*"))
    stored = b"".join(file.read_bytes() for file in files)
    assert b"order-lost" in stored
    for end in ("66", "67", "68"):
        assert f"7469908{end}".encode() not in stored
    for personal in (b"sk_", b"pk_", b"ws_CO_", SECRET.encode(), PHONE.encode(), b"no room"):
        assert personal not in stored
