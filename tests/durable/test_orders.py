"""What is kept of an order, and what follows from it: no engine, no clock."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from paynexus_async import InvalidRequestError, Payment, PaymentStatus
from paynexus_async._convert import structure_payment
from paynexus_async.durable import KNOWN_FAILURES, OrderState, Outcome
from paynexus_async.durable._orders import (
    checked_order_id,
    description_of,
    follow_id,
    follow_ids_of,
    kept,
    masked,
    number_in,
    prompt_id,
    prompt_ids_of,
    restored,
    seconds_to_next_look,
    state_of,
)

CHECKOUT = "ws_CO_27012026101718139746990866"
ORDER: Any = {"order_id": "a/b", "attempt": 2}
WATCH = 86_400.0


def seen(state: OrderState = OrderState.PENDING, age: float | None = 0.0, **more: Any) -> Any:
    sent_at = None if age is None else 1_000.0
    looked_at = 1_000.0 + (age or 0.0)
    return {
        "state": str(state),
        "payment": None,
        "sealed": None,
        "reason": None,
        "sent_at": sent_at,
        "lost_at": None,
        "looked_at": looked_at,
        "is_cut": False,
        "blind": 0,
        "owned": None,
        **more,
    }


def told(state: OrderState | None = None, failures: int = 0) -> Any:
    return {"state": state, "revision": 0, "failures": failures, "error": None}


def payment(**fields: Any) -> Payment:
    return structure_payment({"reference": "PNXABC", "status": "initiated", **fields})


# --- Order ids


@pytest.mark.parametrize(
    "order_id", ["1", "order-1001", "a/b/c", "bestelling één", "注文/7", "a" * 100, "x y", "%2F"]
)
def test_an_order_id_is_stored_as_it_is(order_id: str):
    """Whatever the merchant calls it; in the engine's names it has no slash."""
    assert checked_order_id(order_id) == order_id
    name = prompt_id("shop", order_id, 3)
    assert name.count("/") == 3
    assert name.endswith("/3")


@pytest.mark.parametrize(
    "order_id",
    ["", "a" * 101, " a", "a ", "a\nb", "a\x00", None, 7, "0746990866", "+254 746 990 866",
     "order-0746990866", CHECKOUT, "sk_live_abcdef"],
)  # fmt: skip
def test_an_order_id_that_cannot_be_stored_is_refused(order_id: Any):
    """Neither what holds a phone or a key, nor what cannot be read on a screen."""
    with pytest.raises(InvalidRequestError, match="order_id"):
        checked_order_id(order_id)


def test_different_orders_have_different_names():
    """A slash in an id is not a slash in a name."""
    ids = ["a", "a/order", "a%2Forder", "a/1", "a%2F1"]
    names = {name for order_id in ids for name in prompt_ids_of("shop", order_id)}
    assert len(names) == len(ids) * 20


def test_the_customer_sees_the_order_and_of_a_second_attempt_that_it_is_one():
    """So a payment that is lost is found by a description of its own."""
    assert [description_of("order-1", n) for n in (1, 2)] == ["order-1", "order-1 (2)"]


# --- Names of what follows a payment


def test_what_follows_a_payment_bears_its_reference():
    """In capitals, for a webhook may write it otherwise; the webhook finds it by that."""
    named = seen(payment={"reference": "pnxabc", "name": "hash"})
    assert follow_id("shop", ORDER, named, 4) == "shop/payment/PNXABC/4"
    assert "shop/payment/PNXABC/4" in follow_ids_of("shop", payment(reference="PnxAbc"))
    assert number_in("shop/payment/PNXABC/4") == 4


def test_without_a_reference_it_bears_a_hash_of_the_checkout_request_id():
    """Which ends in the customer's number, and so is in no name."""
    known = payment(reference=None, checkout_request_id=CHECKOUT)
    name = follow_id("shop", ORDER, seen(payment=kept(known)), 1)
    assert "746990866" not in name
    assert name in follow_ids_of("shop", known)


def test_without_a_payment_it_bears_the_order():
    """Each attempt its own; a payment without any name is named by none."""
    assert follow_id("shop", ORDER, seen(), 1) == "shop/unnamed/a%2Fb/2/1"
    nameless = seen(payment=kept(payment(reference=None)))
    assert follow_id("shop", ORDER, nameless, 1) == "shop/unnamed/a%2Fb/2/1"
    assert follow_ids_of("shop", payment(reference=None)) == []


# --- What is stored of a payment


def test_what_is_stored_holds_no_phone_and_comes_back():
    """Times in UTC, the amount as text; the phone and the checkout request id beside it."""
    whole = payment(
        checkout_request_id=CHECKOUT,
        amount="100.00",
        phone="254746990866",
        status="failed",
        failure_reason="no money on 254746990866",
        created_at="2026-01-27T10:17:18+03:00",
    )
    stored = kept(whole)
    assert "746990866" not in str(stored)
    assert stored["created_at"] == "2026-01-27T07:17:18+00:00"
    back = restored(stored, {"phone": whole.phone, "checkout_request_id": CHECKOUT})
    assert (back.reference, back.amount, back.status) == ("PNXABC", Decimal(100), "failed")
    assert (back.phone, back.checkout_request_id) == (whole.phone, CHECKOUT)
    assert back.created_at == datetime(2026, 1, 27, 7, 17, 18, tzinfo=UTC)
    bare = restored(kept(payment()), {})
    assert (bare.phone, bare.checkout_request_id, bare.amount) == (None, None, None)


def test_a_status_that_no_document_knows_is_stored_in_its_own_words():
    """And means that the payment has not ended."""
    strange = payment(status="under_review")
    assert kept(strange)["status"] == "under_review"
    back = restored(kept(strange), {})
    assert back.status is PaymentStatus.UNDOCUMENTED
    assert state_of(back) is OrderState.PENDING


def test_words_are_stored_short_and_without_a_phone():
    """No words stay none."""
    assert masked(None) is None
    assert masked("call 0746990866 now") == "call 07*****866 now"
    assert len(masked("x" * 1_000) or "") == 300


@pytest.mark.parametrize("status", list(PaymentStatus))
def test_an_order_stands_where_its_payment_does(status: PaymentStatus):
    """Whatever has no end is pending."""
    state = state_of(payment(status=str(status)))
    assert state == (status if status.is_terminal else "pending")


def test_the_ends_are_told_and_known_failures_may_be_tried_again():
    """Not what was paid, is open, or is unknown."""
    assert {s for s in OrderState if not s.is_end} == {"prompting", "pending"}
    assert set(OrderState) - KNOWN_FAILURES == {"prompting", "pending", "completed", "unknown"}
    outcome = Outcome(order_id="a", attempt=1, state=OrderState.COMPLETED, amount=1, phone="*")
    assert outcome.succeeded


# --- When it is due again


def due(seen: Any, told: Any, watch_seconds: float = WATCH) -> float | None:
    return seconds_to_next_look(seen, told, watch_seconds=watch_seconds)


@pytest.mark.parametrize(
    "state",
    [OrderState.COMPLETED, OrderState.REJECTED, OrderState.NEVER_SENT, OrderState.WRITTEN_OFF],
)
def test_what_cannot_change_is_over(state: OrderState):
    """Nothing more is asked."""
    assert due(seen(state), told(state)) is None


@pytest.mark.parametrize(
    ("state", "least"),
    [(OrderState.PENDING, 30), (OrderState.UNKNOWN, 30), (OrderState.EXPIRED, 60),
     (OrderState.FAILED, 60), (OrderState.CANCELLED, 60)],
)  # fmt: skip
def test_what_may_change_is_looked_at_less_and_less(state: OrderState, least: float):
    """Each wait is as long as all before; at most six hours; until it has been watched enough."""
    ages = [0.0]
    while (wait := due(seen(state, ages[-1]), told(state))) is not None:
        ages.append(ages[-1] + wait)
    waits = [later - sooner for sooner, later in itertools.pairwise(ages)]
    assert waits[0] == least
    assert max(waits) == 21_600
    assert WATCH <= ages[-1] <= WATCH + least
    assert len(waits) < 20
    assert due(seen(state, None), told(state)) == least


@pytest.mark.parametrize("state", [OrderState.EXPIRED, OrderState.FAILED, OrderState.CANCELLED])
def test_a_last_look_behind_an_end_is_made_up_for(state: OrderState):
    """Where it met an error: ten times at most, less and less; one that has seen is the last one."""
    waits = [due(seen(state, WATCH, blind=blind), told(state)) for blind in range(12)]
    doubled = [min(60 * 2.0**n, 21_600) for n in range(10)]
    assert waits == [None, *doubled, None]
    assert due(seen(state, 100.0, blind=1), told(state)) == 100
    for claims_nothing in (OrderState.UNKNOWN, OrderState.COMPLETED):
        assert due(seen(claims_nothing, WATCH, blind=1), told(claims_nothing)) is None


def test_a_handler_that_fails_is_called_again_and_again():
    """After 5, 10, 20 … seconds, and then every hour, for ever: even of what is over."""
    over = seen(OrderState.COMPLETED, 10 * WATCH)
    waits = [due(over, told(failures=n)) for n in (1, 2, 3, 10, 11, 5_000)]
    assert waits == [5, 10, 20, 2_560, 3_600, 3_600]
    assert due(seen(OrderState.EXPIRED), told(failures=1)) == 5


def test_what_was_cut_short_is_gone_on_with_soon():
    """By whoever has room; not by the engine of the worker that closes, which would cut it again."""
    assert due(seen(is_cut=True), told(failures=9)) == 5
