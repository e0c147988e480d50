"""Webhooks: whose delivery it is, and what it says."""

from __future__ import annotations

import hashlib
import hmac
import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paynexus_async import (
    ConfigurationError,
    InvalidRequestError,
    PaymentStatus,
    PayNexusError,
    WebhookEvent,
    WebhookPayloadError,
    WebhookSignatureError,
    parse_webhook,
    webhooks,
)

SECRET = "whsec_0123456789abcdef"
OTHER = "whsec_fedcba9876543210"
NOW = 1_769_498_238.0
DOCUMENTED = {
    "event": "payment.completed",
    "timestamp": "2026-01-27T10:17:18+03:00",
    "data": {
        "payment_id": 123,
        "merchant_id": 456,
        "reference": "PNXABC123DEF",
        "amount": "100.00",
        "currency": "KES",
        "phone": "254746990866",
        "status": "completed",
        "account_reference": "ORDER_123",
        "checkout_request_id": "ws_CO_27012026101718139746990866",
        "transaction_id": "OEI2AK4Q16",
        "provider_transaction_id": "OEI2AK4Q16",
        "provider_reference": "Success",
        "payer_name": "M-Pesa 254746990866",
    },
}
BODY = json.dumps(DOCUMENTED).encode()


def signature(body: bytes, secret: str = SECRET) -> str:
    """HMAC-SHA256 as RFC 2104 writes it, so that the package's own way is not believed by itself."""
    key = secret.encode().ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in key) + body).digest()
    return hashlib.sha256(bytes(b ^ 0x5C for b in key) + inner).hexdigest()


def headers(body: bytes = BODY, secret: str = SECRET, **more: str) -> dict[str, str]:
    return {"X-PayNexus-Signature": signature(body, secret), **more}


def parsed(document: Any) -> WebhookEvent:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse_webhook(body, headers(body), SECRET)


def test_the_documented_delivery_is_read():
    """Field by field."""
    event = parse_webhook(BODY, headers(), SECRET)
    assert event.name == "payment.completed"
    assert (event.reference, event.checkout_request_id) == (
        "PNXABC123DEF",
        "ws_CO_27012026101718139746990866",
    )
    assert event.is_about_a_payment
    assert event.sent_at == datetime(2026, 1, 27, 7, 17, 18, tzinfo=UTC)
    assert event.data == DOCUMENTED["data"]
    payment = event.payment
    assert payment is not None
    assert (payment.status, payment.amount, payment.receipt) == (
        PaymentStatus.COMPLETED,
        100,
        "OEI2AK4Q16",
    )
    assert "746990866" not in repr(event)


@pytest.mark.parametrize("name", ["X-PayNexus-Signature", "x-paynexus-signature"])
@pytest.mark.parametrize("written", [str, str.upper, "sha256={}".format, " {} ".format])
def test_a_right_signature_is_believed_however_it_is_written(name, written):
    """Bare or prefixed, in any case, under a header in any case."""
    assert parse_webhook(BODY, {name: written(signature(BODY))}, SECRET).name == "payment.completed"


@pytest.mark.parametrize(
    "given_headers",
    [
        {},
        {"X-PayNexus-Signature": ""},
        {"X-PayNexus-Signature": "sha256="},
        {"X-PayNexus-Signature": signature(BODY)[:-1]},
        {"X-PayNexus-Signature": signature(BODY) + "0"},
        {"X-PayNexus-Signature": signature(BODY, OTHER)},
        {"X-PayNexus-Signature": signature(BODY + b" ")},
        {"X-PayNexus-Signature": "é" * 64},
        {"X-PayNexus-Signature": "\udcff" * 64},
        {"X-PayNexus-Signature": signature(BODY), "x-paynexus-signature": signature(BODY)},
        {"Authorization": signature(BODY)},
    ],
    ids=range(11),
)
def test_a_wrong_signature_is_not_believed(given_headers):
    """Missing, cut, of another secret, of another body, twice."""
    with pytest.raises(WebhookSignatureError) as caught:
        parse_webhook(BODY, given_headers, SECRET)
    assert SECRET not in str(caught.value)
    assert signature(BODY) not in str(caught.value)


@pytest.mark.parametrize("cut", [0, 1, len(BODY) - 1])
def test_a_truncated_body_is_not_believed(cut):
    """The signature is of the whole."""
    with pytest.raises(WebhookSignatureError):
        parse_webhook(BODY[:cut], headers(), SECRET)


def test_several_secrets_are_tried():
    """While one replaces another, both are right."""
    for secret in (SECRET, OTHER):
        assert parse_webhook(BODY, headers(secret=secret), [OTHER, SECRET])
    with pytest.raises(WebhookSignatureError):
        parse_webhook(BODY, headers(secret="whsec_third"), iter([OTHER, SECRET]))


def test_every_secret_is_compared_in_constant_time(monkeypatch):
    """By the one function that is made for it, even after a match."""
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(
        webhooks, "hmac", type("Hmac", (), {"new": hmac.new, "compare_digest": compare})
    )
    assert parse_webhook(BODY, headers(), [SECRET, OTHER])
    assert compared == [signature(BODY, one).encode() for one in (SECRET, OTHER)]


@pytest.mark.parametrize("secret", ["", "  ", [], None, [""], [SECRET, " "], [None], ()])
def test_without_a_secret_nothing_is_believed(secret):
    """Not even a signature made with an empty one."""
    with pytest.raises(ConfigurationError, match="secret"):
        parse_webhook(BODY, headers(secret=""), secret)


@pytest.mark.parametrize(
    ("timestamp", "believed"),
    [
        ("1769498238", True),
        ("1769497938", True),
        ("1769498538", True),
        ("1769497937", False),
        ("1769498539", False),
        ("", False),
        ("soon", False),
        ("1769498238.5", False),
        ("-1769498238", False),
        ("١٧٦٩٤٩٨٢٣٨", False),
        ("9" * 400, False),
    ],
)
def test_an_old_delivery_is_not_believed(timestamp, believed):
    """Nor one from the future; five minutes each way, where there is a timestamp."""
    told = headers(**{"X-PayNexus-Timestamp": timestamp})
    if believed:
        assert parse_webhook(BODY, told, SECRET, now=NOW)
    else:
        with pytest.raises(WebhookSignatureError, match="timestamp"):
            parse_webhook(BODY, told, SECRET, now=NOW)


def test_the_tolerance_is_the_callers_and_the_clock_the_systems():
    """Unless told otherwise."""
    old = headers(**{"x-paynexus-timestamp": "1769498238"})
    with pytest.raises(WebhookSignatureError, match="timestamp"):
        parse_webhook(BODY, old, SECRET)
    assert parse_webhook(BODY, old, SECRET, tolerance_seconds=1e12)


@pytest.mark.parametrize(
    ("document", "name", "about"),
    [
        ({"event": "invoice.paid", "data": {"reference": "INV1"}}, "invoice.paid", False),
        ({"event": "payment.initiated", "data": {"reference": "PNX1"}}, "payment.initiated", True),
        ({"event": "payment.completed", "data": {"status": "completed"}}, "payment.completed", False),
        ({"event": "payment.completed", "data": [1]}, "payment.completed", False),
        ({"event": " payment.completed "}, "payment.completed", False),
        ({"event": "payment.failed", "data": {"reference": " ", "checkout_request_id": 7}}, "payment.failed", False),
        (
            {"event": "payment.failed", "data": {"checkout_request_id": "ws_CO_1"}},
            "payment.failed",
            True,
        ),
    ],
)  # fmt: skip
def test_other_events_are_events_too(document, name, about):
    """Whatever is signed is an event; which are about a payment that can be asked for is said."""
    event = parsed(document)
    assert (event.name, event.is_about_a_payment) == (name, about)
    assert event.sent_at is None


def test_only_a_payments_event_tells_of_a_payment():
    """And only if it says how it stands."""
    paid = {"reference": "PNX1", "status": "completed"}
    assert parsed({"event": "payment.completed", "data": paid}).payment is not None
    assert parsed({"event": "invoice.paid", "data": paid}).payment is None
    assert parsed({"event": "payment.completed", "data": {"reference": "PNX1"}}).payment is None


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b"[]", b"1", b"{}", b'{"event": 7}', b'{"event": "  "}', b"[" * 9_000],
)
def test_what_is_signed_and_is_no_event_is_said_so(body):
    """Another error than that of a forgery: it is PayNexus's."""
    with pytest.raises(WebhookPayloadError, match="signed and cannot be understood"):
        parsed(body)


def test_a_decoded_body_is_refused():
    """Its signature would be another one, some day."""
    with pytest.raises(InvalidRequestError, match="bytes"):
        parse_webhook(BODY.decode(), headers(), SECRET)  # type: ignore[arg-type]
    assert parse_webhook(memoryview(BODY), headers(), SECRET)  # type: ignore[arg-type]


def test_a_huge_delivery_is_not_even_measured():
    """None of PayNexus's is."""
    body = b" " * (webhooks.BODY_BYTES_MAX + 1)
    with pytest.raises(WebhookSignatureError, match="larger"):
        parse_webhook(body, headers(body), SECRET)
    fits = BODY.ljust(webhooks.BODY_BYTES_MAX)
    assert parse_webhook(fits, headers(fits), SECRET)


@given(st.binary(max_size=300), st.dictionaries(st.text(max_size=30), st.text(max_size=80)))
def test_whatever_comes_only_the_packages_own_errors_escape(body, told):
    """Signed or not."""
    for given_headers in (told, {**told, **headers(body)}):
        with suppress(PayNexusError):
            parse_webhook(body, given_headers, SECRET)


def test_white_space_around_a_secret_is_none_of_it():
    """It comes from a file that ends in a line break, or from a clipboard."""
    assert parse_webhook(BODY, headers(), f" {SECRET}\n", now=NOW).name
