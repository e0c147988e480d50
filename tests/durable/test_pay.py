"""An order is paid for at most once, whoever asks how often, and is on disk before its prompt."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from paynexus_async import (
    APIConnectionError,
    APIStatusError,
    ClientStateError,
    DuplicatePaymentError,
    InvalidRequestError,
    PaymentOutcomeUnknown,
)
from paynexus_async.durable import (
    DurablePayments,
    OrderConflictError,
    OrderHandle,
    OrderNotPromptedError,
    OrderState,
    OrderStillOpenError,
    Terms,
)
from paynexus_async.durable import _payments as payments
from paynexus_async.sandbox import Fault, Scenario, Step

from .shop import ORDER, SECRET, Shop

pytestmark = pytest.mark.anyio

LATE = Scenario("later", (Step(1, "expired"), Step(500, "completed")))
DECLINED = Scenario("declined", (Step(1, "cancelled"),))


async def failed(durable: DurablePayments, shop: Shop, scenario: Any = DECLINED) -> OrderHandle:
    """An order whose first attempt is known to have failed."""
    shop.ledger.script(scenario)
    handle = await durable.pay("order-1", **ORDER)
    assert not (await handle.outcome()).succeeded
    return handle


# --- Once


async def test_a_customer_pays_and_the_handler_is_told(shop: Shop):
    """The outcome bears the order, the receipt, and no whole phone."""
    async with shop.worker() as durable:
        handle = await durable.pay("order-1", **ORDER)
        payment = await handle.payment()
        outcome = await handle.outcome()
        view = await handle.view()
    assert (handle.order_id, handle.attempt) == ("order-1", 1)
    assert shop.told == [outcome]
    assert (outcome.order_id, outcome.attempt, outcome.state) == ("order-1", 1, "completed")
    assert (outcome.amount, outcome.phone) == (100, "2547*****866")
    assert (outcome.revision, outcome.overtakes, outcome.reason) == (0, None, None)
    assert outcome.payment is not None
    assert outcome.payment.reference == payment.reference
    assert outcome.payment.receipt is not None
    assert (view.state, view.told, view.is_over) == ("completed", "completed", True)
    assert shop.ledger.prompts[0].description == "order-1"


async def test_the_same_order_is_one_prompt_however_often_it_is_asked_for(shop: Shop):
    """While its prompt is out, after it has ended, and in the next process."""
    async with shop.worker() as durable:
        first = await durable.pay("order-1", **ORDER)
        second = await durable.pay("order-1", **ORDER)
        assert (await second.payment()).reference == (await first.payment()).reference
        await first.outcome()
        assert (await (await durable.pay("order-1", **ORDER)).outcome()).succeeded
    async with shop.worker() as durable:
        third = await durable.pay("order-1", **ORDER)
        assert (await third.outcome()).succeeded
        assert (await third.payment()).reference == (await first.payment()).reference
    assert (shop.wire.initiates, len(shop.told)) == (1, 1)


async def test_the_same_order_at_the_same_time_is_one_prompt(shop: Shop):
    """A customer who clicks twice: all the calls have the same payment."""
    async with shop.worker() as durable:
        handles = await asyncio.gather(*(durable.pay("order-1", **ORDER) for _ in range(5)))
        references = {(await handle.payment()).reference for handle in handles}
        assert not durable._work.prompts.fresh
    assert (len(references), shop.wire.initiates) == (1, 1)


@pytest.mark.parametrize("other", [{"amount": 101}, {"phone": "0746990867"}], ids=str)
async def test_another_amount_or_phone_is_another_order(shop: Shop, other: dict[str, Any]):
    """So it is refused, and nothing is sent; whether it comes later or at the same time."""
    async with shop.worker() as durable:
        ended = await asyncio.gather(
            durable.pay("order-1", **ORDER),
            durable.pay("order-1", **{**ORDER, **other}),
            return_exceptions=True,
        )
        assert sorted(type(end).__name__ for end in ended) == ["OrderConflictError", "OrderHandle"]
        first = next(end for end in ended if isinstance(end, OrderHandle))
        await first.payment()
        view = await first.view()
        for asked in (ORDER, {**ORDER, **other}):
            if (view.amount, view.phone[-1]) == (asked["amount"], asked["phone"][-1]):
                continue
            with pytest.raises(OrderConflictError, match="nothing was sent") as told:
                await durable.pay("order-1", **asked)
            assert "746990" not in str(told.value)
    assert shop.wire.initiates == 1


async def test_the_order_is_on_disk_before_its_request_is_sent(shop: Shop):
    """Seen by whoever reads the database at the moment at which the request arrives."""
    seen: list[Any] = []

    async def look() -> None:
        seen.append(shop.rows())
        seen.append(shop.execute("SELECT function_name, error FROM operation_outputs"))
        assert not shop.ledger.prompts

    shop.wire.on_initiate = look
    async with shop.worker() as durable:
        await (await durable.pay("order-1", **ORDER)).payment()
    assert seen == [[("paynexus/order/order-1/1", "PENDING")], [("claim", None)]]


@pytest.mark.parametrize("order_id", ["a/b/../1", "注文 7", "100%", "x" * 100])
async def test_an_order_is_found_by_any_id(shop: Shop, order_id: str):
    """Such as one that holds slashes, or letters of any script."""
    async with shop.worker() as durable:
        assert (await (await durable.pay(order_id, **ORDER)).outcome()).order_id == order_id
        assert [view.order_id for view in await durable.orders(order_id)] == [order_id]
        assert await durable.orders(order_id[:-1]) == []


async def test_an_order_id_like_a_phone_is_refused(shop: Shop):
    """Nothing is stored, nothing sent; no more is what cannot be asked for at all."""
    async with shop.worker() as durable:
        for order_id, asked in (("0746990866", ORDER), ("order-1", {**ORDER, "amount": 0})):
            with pytest.raises(InvalidRequestError):
                await durable.pay(order_id, **asked)
    assert (shop.rows(), shop.wire.asked) == ([], [])


async def test_outside_of_its_block_nothing_is_taken(shop: Shop):
    """Neither before nor after; closing twice does nothing."""
    async with shop.worker() as durable:
        await durable.aclose()
        await durable.aclose()
        with pytest.raises(ClientStateError, match="async with"):
            await durable.pay("order-1", **ORDER)
    assert shop.wire.asked == []


async def test_its_own_block_opens_and_closes_it(shop: Shop):
    """As the README has it."""
    async with shop.worker() as durable:
        await durable.aclose()
        async with durable as same:
            assert same is durable
            assert (await (await durable.pay("order-1", **ORDER)).outcome()).succeeded
        with pytest.raises(ClientStateError):
            await durable.pay("order-2", **ORDER)


# --- Again


async def test_after_a_known_failure_another_attempt_is_made_when_it_is_asked_for(shop: Shop):
    """Not by asking for the same; the first payment is looked at once more before."""
    async with shop.worker() as durable:
        await failed(durable, shop)
        again = await durable.pay("order-1", **ORDER)
        assert (again.attempt, shop.wire.initiates) == (1, 1)
        asked = len(shop.wire.asked)
        second = await durable.pay("order-1", **ORDER, again=True)
        assert (await second.outcome()).attempt == second.attempt == 2
        looks = shop.wire.asked[asked:]
        assert "/payments/" in looks[0]
        assert looks[1].endswith("/initiate")
        views = await durable.orders("order-1")
        assert [(v.attempt, v.state) for v in views] == [(1, "cancelled"), (2, "completed")]
        assert (await durable.pay("order-1", **ORDER)).attempt == 2
    assert shop.ledger.prompts[-1].description == "order-1 (2)"


async def test_two_who_ask_again_at_the_same_time_are_one_attempt(shop: Shop):
    """Each has its handle."""
    async with shop.worker() as durable:
        await failed(durable, shop)
        both = await asyncio.gather(
            *(durable.pay("order-1", **ORDER, again=True) for _ in range(2))
        )
        assert [handle.attempt for handle in both] == [2, 2]
        await both[0].payment()
    assert shop.wire.initiates == 2


@pytest.mark.parametrize(("scenario", "state"), [("stuck", "pending"), ("paid", "completed")])
async def test_what_has_not_failed_is_not_asked_for_again(shop: Shop, scenario: str, state: str):
    """Neither what is on the phone, nor what was paid."""
    shop.ledger.script(scenario)
    async with shop.worker() as durable:
        handle = await durable.pay("order-1", **ORDER, again=True)
        payment = await handle.payment()
        if state == "completed":
            await handle.outcome()
        with pytest.raises(OrderStillOpenError, match=f"is {state}") as told:
            await durable.pay("order-1", **ORDER, again=True)
        assert (told.value.state, told.value.reference) == (state, payment.reference)
    assert shop.wire.initiates == 1


async def test_what_was_paid_after_all_is_not_asked_for_again(shop: Shop):
    """The last look before a second prompt hears of it."""
    shop.ledger.script(LATE)
    async with shop.worker() as durable:
        assert (await (await durable.pay("order-1", **ORDER)).outcome()).state == "expired"
        shop.clock.ahead += 50
        with pytest.raises(OrderStillOpenError) as told:
            await durable.pay("order-1", **ORDER, again=True)
        assert told.value.state is OrderState.COMPLETED
    assert shop.wire.initiates == 1


async def test_an_order_that_is_unknown_is_not_asked_for_again(shop: Shop):
    """It may have been paid."""
    shop.ledger.faults.add(Fault("reset-before", call="initiate", times=1))
    async with shop.worker() as durable:
        handle = await durable.pay("order-1", **ORDER)
        assert (await handle.outcome()).state == "unknown"
        with pytest.raises(OrderStillOpenError) as told:
            await durable.pay("order-1", **ORDER, again=True)
        assert (told.value.state, told.value.reference) == (OrderState.UNKNOWN, None)
    assert shop.wire.initiates == 1


async def test_attempts_are_limited(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    """They are found by their names, so there is a last one."""
    monkeypatch.setattr(payments, "ATTEMPTS_MAX", 1)
    async with shop.worker() as durable:
        await failed(durable, shop)
        with pytest.raises(OrderConflictError, match="has had 1 attempts"):
            await durable.pay("order-1", **ORDER, again=True)


@pytest.mark.parametrize("secret", [SECRET, None])
async def test_before_another_attempt_a_payment_is_asked_for_by_its_other_name(
    shop: Shop, secret: str | None
):
    """Which is not stored without a secret: then it is not known to have failed."""
    shop.ledger.script(Scenario("nameless", (Step(1, "cancelled"),), initiate={"reference": None}))
    shop.ledger.faults.add(Fault("500-before", call="status"))
    terms = Terms(burst_seconds=5, handler_seconds=600)
    async with shop.worker(secret=secret, terms=terms) as durable:
        handle = await durable.pay("order-1", **ORDER)
        await handle.payment()
        await shop.until_waiting()
        shop.ledger.faults.clear()
        if secret is None:
            with pytest.raises(OrderStillOpenError):
                await durable.pay("order-1", **ORDER, again=True)
        else:
            again = await durable.pay("order-1", **ORDER, again=True)
            await again.payment()
    assert shop.wire.initiates == (1 if secret is None else 2)


async def test_without_a_secret_the_same_order_is_known_by_its_masked_phone(shop: Shop):
    """What of it is stored; another is refused as far as that shows it."""
    async with shop.worker(secret=None) as durable:
        await (await durable.pay("order-1", **ORDER)).payment()
        assert (await durable.pay("order-1", **ORDER)).attempt == 1
        with pytest.raises(OrderConflictError):
            await durable.pay("order-1", amount=100, phone="0746990867")
    assert shop.wire.initiates == 1


# --- Not sent, or not answered


async def test_a_prompt_that_paynexus_refuses_is_told_as_rejected(shop: Shop):
    """With its own words; it may be asked for again, without a look, for there is no payment."""
    shop.ledger.faults.add(Fault("422-before", call="initiate", times=1))
    async with shop.worker() as durable:
        handle = await durable.pay("order-1", **ORDER)
        with pytest.raises(OrderNotPromptedError, match="given data was invalid") as told:
            await handle.payment()
        assert told.value.state is OrderState.REJECTED
        assert isinstance(told.value.__cause__, APIStatusError)
        outcome = await handle.outcome()
        assert (outcome.state, outcome.payment) == ("rejected", None)
        elsewhere = await durable.pay("order-1", **ORDER)
        with pytest.raises(OrderNotPromptedError):
            await elsewhere.payment()
        again = await durable.pay("order-1", **ORDER, again=True)
        assert (await again.outcome()).succeeded
    assert [path.rpartition("/")[2] for path in shop.wire.asked[:2]] == ["initiate"] * 2


async def test_a_prompt_that_never_left_is_told_as_never_sent(shop: Shop):
    """PayNexus could not be reached, and that is proven."""
    shop.wire.reachable = False
    async with shop.worker() as durable:
        handle = await durable.pay("order-1", **ORDER)
        with pytest.raises(OrderNotPromptedError) as told:
            await handle.payment()
        assert told.value.state is OrderState.NEVER_SENT
        assert isinstance(told.value.__cause__, APIConnectionError)
        assert (await handle.outcome()).state == "never_sent"
    assert not shop.ledger.prompts


async def test_an_equal_prompt_of_another_order_needs_a_word(shop: Shop):
    """A customer who orders the same twice has two orders; the client does not know that."""
    shop.ledger.script("stuck")
    async with shop.worker() as durable:
        await (await durable.pay("order-1", **ORDER)).payment()
        second = await durable.pay("order-2", **ORDER)
        with pytest.raises(OrderNotPromptedError) as told:
            await second.payment()
        assert isinstance(told.value.__cause__, DuplicatePaymentError)
        third = await durable.pay("order-3", **ORDER, allow_duplicate=True)
        await third.payment()
    assert shop.wire.initiates == 2


async def test_a_lost_answer_is_unknown_and_is_found(shop: Shop):
    """By its description, in the account's list; it is followed from there, and never re-sent."""
    shop.ledger.faults.add(Fault("reset-after", call="initiate", times=1))
    async with shop.worker() as durable:
        handle = await durable.pay("order-1", **ORDER)
        with pytest.raises(PaymentOutcomeUnknown) as told:
            await handle.payment()
        assert isinstance(told.value.__cause__, PaymentOutcomeUnknown)
        assert told.value.attempt is not None
        outcome = await handle.outcome()
        assert (outcome.state, outcome.revision) == ("completed", 0)
    assert len(shop.told) == 1
    assert (shop.wire.initiates, len(shop.ledger.prompts)) == (1, 1)


async def test_without_a_secret_a_lost_answer_is_found_by_the_process_that_lost_it(shop: Shop):
    """Its memory has the phone; no row has."""
    shop.ledger.faults.add(Fault("reset-after", call="initiate", times=1))
    async with shop.worker(secret=None) as durable:
        handle = await durable.pay("order-1", **ORDER)
        with pytest.raises(PaymentOutcomeUnknown) as told:
            await handle.payment()
        assert "746990" not in str(told.value)
        assert (await handle.outcome()).succeeded
        assert not durable._work.prompts.fresh
    assert shop.execute("SELECT 1 FROM workflow_output WHERE output LIKE '%gAAAA%'") == []


async def test_an_answer_about_something_else_is_unknown(shop: Shop):
    """What was asked for may be out; what is named is not this order's."""
    shop.ledger.faults.add(Fault("other-payment", call="initiate", times=1))
    async with shop.worker() as durable:
        handle = await durable.pay("order-1", **ORDER)
        with pytest.raises(PaymentOutcomeUnknown):
            await handle.payment()
        assert (await handle.outcome()).succeeded
    assert shop.wire.initiates == 1
