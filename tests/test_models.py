"""What answers become: values that are true, frozen, and safe to print."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paynexus_async import (
    APIResponse,
    Change,
    Expectation,
    Payment,
    PaymentFailed,
    PaymentMismatchError,
    PaymentResult,
    PaymentStatus,
    PaymentStillPending,
    PhoneValidation,
)
from paynexus_async._convert import structure_payment, structure_phone

from .fakes import CHECKOUT_ID, PHONE, REFERENCE

WEBHOOK_LIKE = {
    "payment_id": 123, "merchant_id": 456, "reference": REFERENCE, "amount": "100.00",
    "currency": "KES", "phone": PHONE, "status": "completed", "account_reference": "ORDER_123",
    "checkout_request_id": CHECKOUT_ID, "transaction_id": "T-1",
    "provider_transaction_id": "OEI2AK4Q16", "provider_reference": "Success",
    "payer_name": "M-Pesa 254746990866", "created_at": "2026-01-27T10:17:18+03:00",
    "completed_at": "2026-01-27T07:17:40.123456Z", "updated_at": "2026-01-27 10:17:40",
}  # fmt: skip


def payment(**fields: object) -> Payment:
    return structure_payment({"status": "initiated", "reference": REFERENCE, **fields})


def test_a_full_answer_is_read_field_by_field():
    """Every field that the API is known to send comes out typed."""
    assert structure_payment(WEBHOOK_LIKE) == Payment(
        reference=REFERENCE,
        status=PaymentStatus.COMPLETED,
        status_text="completed",
        checkout_request_id=CHECKOUT_ID,
        amount=100,
        phone=PHONE,
        receipt="OEI2AK4Q16",
        transaction_id="T-1",
        account_reference="ORDER_123",
        payer_name="M-Pesa 254746990866",
        currency="KES",
        created_at=datetime(2026, 1, 27, 7, 17, 18, tzinfo=UTC),
        updated_at=datetime(2026, 1, 27, 10, 17, 40, tzinfo=timezone(timedelta(hours=3))),
        completed_at=datetime(2026, 1, 27, 7, 17, 40, 123456, tzinfo=UTC),
    )


def test_only_the_status_is_needed():
    """Any other field may be missing, null, empty or of a kind that makes no sense."""
    bare = structure_payment({"status": "processing"})
    assert bare == structure_payment({
        "status": "processing", "reference": None, "phone": "", "amount": None, "created_at": "?",
        "updated_at": 5, "payer_name": {}, "currency": [], "receipt": "ignored", "new": object(),
    })  # fmt: skip
    assert bare.reference is bare.amount is bare.created_at is bare.receipt is None


@pytest.mark.parametrize("status", [None, "", "  ", {}, True])
def test_a_payment_without_a_status_is_refused(status):
    """Nothing can be said of a payment without a status."""
    with pytest.raises(ValueError, match="no status"):
        structure_payment({"status": status})


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (100, 100), ("100.00", 100), ("100", 100), (100.0, 100), (Decimal("1E+2"), 100),
        ("100.50", Decimal("100.5")), (100.1, Decimal("100.1")), (0, 0), ("", None), (None, None),
    ],
)  # fmt: skip
def test_an_amount_is_an_int_when_whole_and_never_a_float(sent, read):
    """Money is not rounded."""
    amount = payment(amount=sent).amount
    assert amount == read
    assert type(amount) is type(read)


@pytest.mark.parametrize(
    "sent",
    ["a hundred", "1,000", True, [100], {}, "NaN", "Infinity", "1e999999999", "1e-999999999"],
)
def test_an_amount_that_is_no_sum_of_money_is_refused(sent):
    """It is an error, not a guess, and costs no time."""
    with pytest.raises(ValueError, match="amount"):
        payment(amount=sent)


@given(st.integers(-(10**12), 10**12), st.integers(0, 2))
def test_any_amount_survives_being_written_as_text(cents, places):
    """Text and number mean the same amount."""
    number = Decimal(cents).scaleb(-places)
    assert payment(amount=str(number)).amount == number


def test_a_number_may_stand_where_text_is_expected():
    """Ids come as numbers and as text."""
    assert payment(transaction_id=5).transaction_id == "5"
    assert payment(description=True).description is None


def test_the_checkout_request_id_has_a_second_name():
    """Some answers call it `provider_request_id`."""
    assert payment(provider_request_id=CHECKOUT_ID).checkout_request_id == CHECKOUT_ID


def test_a_phone_validation_is_read():
    """The documented example."""
    document = {"original": "0746990866", "normalized": PHONE, "valid": True, "provider": "mpesa"}
    assert structure_phone(document) == PhoneValidation(
        original="0746990866", normalized=PHONE, valid=True, provider="mpesa"
    )
    with pytest.raises(ValueError, match="whether the number is valid"):
        structure_phone({"valid": "yes"})


def test_no_value_prints_a_whole_phone_number():
    """Not in its own field, nor at the end of a checkout request id, nor in free text."""
    response = APIResponse(status_code=200, headers={}, body=json.dumps(WEBHOOK_LIKE).encode())
    values = [
        structure_payment({**WEBHOOK_LIKE, "description": f"for {PHONE}"}, response),
        structure_phone({"valid": True, "original": "0746990866", "normalized": PHONE}, response),
        Expectation(reference=REFERENCE, phone=PHONE, checkout_request_id=CHECKOUT_ID),
        response,
    ]
    for value in values:
        assert "746990866" not in f"{value!r} {value}"
    assert "2547*****866" in repr(values[0])
    assert "None" not in repr(values[0])


def test_values_do_not_change():
    """What was once told stays told."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        payment().status = PaymentStatus.COMPLETED  # type: ignore[misc]  # the point of the test


def test_news_fills_and_replaces():
    """What an observation tells is added; what it leaves out stays."""
    first = payment(amount=100, phone=PHONE)
    second = payment(status="completed", provider_transaction_id="OEI2AK4Q16")
    merged, change = first.merge(second)
    assert change is Change.ADVANCED
    assert (merged.amount, merged.phone, merged.receipt) == (100, PHONE, "OEI2AK4Q16")
    assert merged.status_text == "completed"


def test_old_news_changes_nothing_but_the_answer_it_came_in():
    """A stale answer must not bring old fields back."""
    response = APIResponse(status_code=200, headers={}, body=b"")
    known = payment(status="processing", description="new")
    stale = attrs.evolve(payment(description="old"), response=response)
    merged, change = known.merge(stale)
    assert (merged, change) == (known, Change.STALE)
    assert merged.response is response


def test_late_truth_clears_why_it_had_seemed_to_fail():
    """A completed payment has no failure reason."""
    failed = payment(status="failed", failure_reason="timeout", failed_at="2026-01-27T10:18:18Z")
    merged, change = failed.merge(payment(status="completed"))
    assert change is Change.REVISED
    assert (merged.succeeded, merged.failure_reason, merged.failed_at) == (True, None, None)


def test_raise_for_status_lets_only_paid_payments_pass():
    """After this line the customer has paid."""
    paid = payment(status="completed")
    assert paid.raise_for_status() is paid


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("failed", r"is failed \(Wrong PIN for 2547\*\*\*\*\*866\): no money moved"),
        ("cancelled", "declined the prompt"),
        ("expired", "did not answer the prompt in time"),
    ],
)
def test_raise_for_status_raises_for_a_payment_that_ended_without_money(status, words):
    """It carries the payment, and says why."""
    ended = payment(status=status, failure_reason=f"Wrong PIN for {PHONE}")
    with pytest.raises(PaymentFailed, match=words) as caught:
        ended.raise_for_status()
    assert caught.value.payment is ended


def test_raise_for_status_does_not_call_a_pending_payment_failed():
    """Not ended is not failed."""
    with pytest.raises(PaymentStillPending, match="still pending; wait") as caught:
        payment(status="pending").raise_for_status()
    assert caught.value.reference == REFERENCE
    with pytest.raises(PaymentStillPending, match=r"ws_CO_27012026\*\*\*\*\*866"):
        payment(reference=None, checkout_request_id=CHECKOUT_ID).raise_for_status()


@pytest.mark.parametrize(
    ("fields", "differences"),
    [
        ({"reference": "PNXOTHER"}, ("reference",)),
        ({"status": "completed", "amount": "1000.00"}, ("amount",)),
        ({"status": "completed", "phone": "254700000001"}, ("phone",)),
        ({"status": "expired", "amount": 1, "phone": "254700000001"}, ("amount", "phone")),
        ({"reference": "PNXOTHER", "amount": 1}, ("reference", "amount")),
    ],
)
def test_an_answer_that_contradicts_what_was_asked_is_refused(fields, differences):
    """Reference, amount and phone of a settled payment; the error carries both sides."""
    asked = Expectation(reference=REFERENCE, amount=100, phone=PHONE)
    answered = payment(**fields)
    with pytest.raises(PaymentMismatchError, match="is not believed") as caught:
        asked.check(answered)
    assert (caught.value.asked, caught.value.answered) == (asked, answered)
    assert caught.value.differences == differences
    assert PHONE not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"reference": REFERENCE.lower()},
        {"status": "completed"},
        {"status": "completed", "amount": "100.00", "phone": "0746990866"},
        {"status": "processing", "amount": 7, "phone": "254700000001"},  # nothing to act on yet
        {"reference": None, "checkout_request_id": "ws_CO_other"},
    ],
)
def test_what_is_missing_or_spelled_otherwise_contradicts_nothing(fields):
    """Tolerant where the API is loose."""
    Expectation(reference=REFERENCE, amount=100, phone=PHONE).check(payment(**fields))


def test_a_payment_asked_for_by_checkout_id_is_held_to_it():
    """The name that was asked by is the one that counts."""
    asked = Expectation(checkout_request_id=CHECKOUT_ID)
    asked.check(payment(checkout_request_id=CHECKOUT_ID))
    with pytest.raises(PaymentMismatchError):
        asked.check(payment(checkout_request_id="ws_CO_other"))


def test_errors_survive_pickling_and_copying():
    """They cross process boundaries with all they carry."""
    with pytest.raises(PaymentMismatchError) as caught:
        Expectation(reference="X").check(payment())
    for twin in (pickle.loads(pickle.dumps(caught.value)), copy.copy(caught.value)):
        assert str(twin) == str(caught.value)
        assert (twin.asked, twin.answered) == (caught.value.asked, caught.value.answered)


def test_a_response_gives_text_and_json():
    """Whatever the bytes are, they can be looked at."""
    response = APIResponse(status_code=200, headers={}, body=b'{"a": 1}')
    assert response.json() == {"a": 1}
    assert response.text == '{"a": 1}'
    assert APIResponse(status_code=200, headers={}, body=b"\xff").text == "�"


def test_a_phone_that_stands_for_a_reference_is_not_shown():
    """A checkout request id ends in the phone, and a slip is one; a real reference is whole."""
    for slip in (CHECKOUT_ID, PHONE, "0746 990 866"):
        said = repr(PaymentResult(asked=slip)) + repr(Expectation(reference=slip))
        assert "746990866" not in said.replace(" ", "")
        assert "*****866" in said
    assert "PNX123456789" in repr(PaymentResult(asked="PNX123456789"))
    assert "PNX123456789" in repr(Expectation(reference="PNX123456789"))
