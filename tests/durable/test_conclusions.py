"""What is concluded where little is known: never more than that."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from paynexus_async import APIConnectionError, PaymentOutcomeUnknown
from paynexus_async._seal import Seal
from paynexus_async.durable import DurablePayments, OrderState, _work
from paynexus_async.durable._records import Records
from paynexus_async.durable._sending import _seen_of_error
from paynexus_async.durable._telling import Handlers
from paynexus_async.durable._work import _share_words
from paynexus_async.models import Attempt, Payment
from paynexus_async.sandbox import Scenario, Step
from paynexus_async.status import PaymentStatus

from .shop import ORDER

if TYPE_CHECKING:
    from .shop import Shop

SENT_AT = 1_800_000_000.0


def lost(attempt: Attempt | None) -> PaymentOutcomeUnknown:
    error = APIConnectionError("cut", never_sent=False)
    return PaymentOutcomeUnknown(
        "lost", amount=1, phone="254746990866", error=error, attempt=attempt
    )


def test_without_an_attempt_a_lost_answer_dates_from_the_claim():
    """The claim came before the first byte, so the payment is looked for from then on."""
    seen = _seen_of_error(lost(None), SENT_AT)
    assert (seen["state"], seen["sent_at"]) == ("unknown", SENT_AT)
    assert seen["lost_at"] is not None
    assert seen["lost_at"] > 0


def test_an_attempt_that_is_still_on_its_way_is_lost_now():
    """It tells when it was sent, and not when it was given up."""
    moment = datetime.fromtimestamp(SENT_AT + 2, UTC)
    attempt = Attempt(amount=1, phone="254746990866", description=None, sent_at=moment)
    seen = _seen_of_error(lost(attempt), SENT_AT)
    assert (seen["state"], seen["sent_at"]) == ("unknown", SENT_AT + 2)
    assert seen["lost_at"] is not None


@pytest.mark.anyio
async def test_a_worker_that_is_cancelled_says_nothing_of_its_handler():
    """Neither that it failed nor that it was told: the row is run again."""
    begun = asyncio.Event()

    async def wait(_: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    handlers = Handlers(wait, None, records=Records(Seal(None)), name="paynexus", seconds=60)
    order: Any = {"order_id": "order-1", "attempt": 1, "amount": 1, "phone": "2547*****866"}
    seen: Any = {"state": OrderState.EXPIRED, "payment": None, "reason": None}
    told: Any = {"state": None, "revision": 0}
    calling = asyncio.create_task(handlers.call(order, seen, told))
    await begun.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling


@pytest.mark.anyio
async def test_a_payment_whose_names_are_not_stored_cannot_be_asked_for():
    """Without a secret, and without a reference: what is known of it counts."""
    payment = Payment(status=PaymentStatus.EXPIRED, status_text="expired")
    nobody: Any = None
    assert await DurablePayments._state_now(nobody, payment) is None


@pytest.mark.anyio
async def test_what_comes_after_the_application_is_over_stays_as_it_is(shop: Shop):
    """The engine may outlive the client's loop: its row is not ended, and is run again."""
    over = asyncio.new_event_loop()
    over.close()

    async def never() -> Any:
        pytest.fail("it ran")

    async with shop.worker() as durable:
        work = durable._work
        here, work._loop = work._loop, over
        try:
            with pytest.raises(asyncio.CancelledError):
                await work._run(never, ())
        finally:
            work._loop = here
        assert not work.running


def test_rows_that_are_read_have_one_copy_of_their_words():
    """They say the same as before; and only values are each one's own."""
    text = '{"order_id": "order-1", "payment": {"payment_reference": "PNX1"}, "attempt": 1}'
    rows = [json.loads(text), json.loads(text)]
    _share_words(rows)
    assert rows == [json.loads(text)] * 2
    for one, other in (rows, (rows[0]["payment"], rows[1]["payment"])):
        assert all(mine is theirs for mine, theirs in zip(one, other, strict=True))


@pytest.mark.anyio
async def test_only_what_was_read_from_a_row_is_changed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    """What this process began may be in other hands, which write it down meanwhile."""
    shared: list[Any] = []
    monkeypatch.setattr(_work, "_share_words", shared.append)
    shop.ledger.script(Scenario("slower", (Step(1, "processing"), Step(600, "completed"))))
    async with shop.worker() as durable:
        await (await durable.pay("order-1", **ORDER)).payment()
        await shop.until(lambda: [row[1] for row in shop.rows()] == ["SUCCESS", "PENDING"])
        assert not shared
        await shop.crash()
    async with shop.worker() as durable:
        await shop.until(lambda: durable._work.looks.bursts)
        assert [args[0]["order_id"] for args in shared] == ["order-1"]


@pytest.mark.anyio
async def test_a_payment_is_made_an_orders_own_once_and_stays_it(shop: Shop):
    """Run again, it finds its own row; another order finds somebody else's."""
    mine: Any = {"order_id": "order-1", "attempt": 1}
    other: Any = {"order_id": "order-2", "attempt": 1}
    seen: Any = {"state": "pending", "payment": {"reference": "PNX1"}, "owned": None}
    async with shop.worker() as durable:
        work = durable._work
        for _ in range(2):
            assert (await work._own(mine, seen))["owned"] == "PNX1"
        refused = await work._own(other, seen)
    assert (refused["state"], refused["payment"]) == ("unknown", None)


@pytest.mark.anyio
async def test_what_somebody_has_gone_on_with_is_not_gone_on_with_twice(shop: Shop):
    """A row of that name is there already: it is this order's, for names are."""
    order: Any = {"order_id": "order-1", "attempt": 1, "taken_at": 0.0}
    seen: Any = {"state": "unknown", "payment": None, "owned": None}
    told: Any = {"state": None, "revision": 0, "failures": 0, "error": None}
    async with shop.worker() as durable:
        work = durable._work
        first = await work._go_on(order, seen, told, 2, 3_600.0)
        assert await work._go_on(order, seen, told, 2, 3_600.0) == first
    assert first[1] == "paynexus/unnamed/order-1/1/2"
