"""Webhooks: whether a delivery is PayNexus's, and what it says.

    event = parse_webhook(await request.body(), request.headers, "whsec_…")

A delivery is a reason to look, and no proof of where a payment stands: its signature does not cover
its timestamp, so that an old delivery can be sent again by whoever has seen it, and deliveries
repeat and overtake each other. `AsyncPayNexus.notify` takes it as that: it wakes who waits, and
asks. Whoever acts on one otherwise asks for the payment's status first.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

import attrs

from ._convert import structure_payment, structure_time
from ._discreet import quoted
from ._wire import Secret, decode
from .exceptions import (
    ConfigurationError,
    InvalidRequestError,
    WebhookPayloadError,
    WebhookSignatureError,
)
from .models import Payment

__all__ = ["SIGNATURE_HEADER", "TIMESTAMP_HEADER", "WebhookEvent", "parse_webhook"]

SIGNATURE_HEADER: Final = "X-PayNexus-Signature"
"""HMAC-SHA256 of the body with the webhook's secret, in hex, perhaps behind `sha256=`."""
TIMESTAMP_HEADER: Final = "X-PayNexus-Timestamp"
"""When it was sent, in seconds since 1970; often missing, and not signed."""

BODY_BYTES_MAX: Final = 1024 * 1024
_TOLERANCE_SECONDS: Final = 300.0
_EVENT_CHARACTERS_MAX: Final = 100
_NAME_CHARACTERS_MAX: Final = 100


@attrs.frozen(kw_only=True, repr=False)
class WebhookEvent:
    """A delivery whose signature is right: what it says, which is not yet what is true.

    Source: https://paynexus.co.ke/docs/webhooks.

    Attributes:
        name: such as `payment.completed`; any text, for other events exist.
        payment: the payment as it says; `None` if it is about something else, or tells no status.
        reference: of the payment, if it names one.
        checkout_request_id: of the payment, if it names one.
        sent_at: when the event happened, as it says.
        data: all that it says.
    """

    name: str
    payment: Payment | None
    reference: str | None
    checkout_request_id: str | None
    sent_at: datetime | None
    data: Mapping[str, object]

    def __repr__(self) -> str:
        """Show what it is about: its data hold a phone number and a name."""
        return f"<WebhookEvent {quoted(self.name)} {self.payment!r}>"

    @property
    def is_about_a_payment(self) -> bool:
        """Whether it names a payment whose status can be asked for."""
        return bool(self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the payment that it is about: reference, checkout request id."""
        if not self.name.startswith("payment."):
            return ()
        return tuple(name for name in (self.reference, self.checkout_request_id) if name)


def parse_webhook(
    body: bytes,
    headers: Mapping[str, str],
    secret: str | Iterable[str],
    *,
    tolerance_seconds: float = _TOLERANCE_SECONDS,
    now: float | None = None,
) -> WebhookEvent:
    """Verify a delivery, and read it.

    Answer it with status 200 and `{"ResultCode": 0, "ResultDesc": "..."}` in any case but a wrong
    signature: whatever is not acknowledged comes again.

    Source: https://paynexus.co.ke/docs/webhooks.

    Args:
        body: the bytes as they came; decoded and encoded again, they have another signature.
        headers: of the request, in any case.
        secret: the webhook's secret (`whsec_…`), or several, while one replaces another.
        tolerance_seconds: how old, or how far ahead, its timestamp may be, where it has one.
        now: the time, in seconds since 1970, instead of the system's.

    Raises:
        WebhookSignatureError: it is not PayNexus's, or too old: act on nothing that it says.
        WebhookPayloadError: it is PayNexus's, and cannot be understood.
        ConfigurationError: there is no secret; nothing is believed without one.
        InvalidRequestError: *body* is not bytes.
    """
    secrets, secret = wrapped(secret), ()  # an error reporter shows what a function is called with
    if not secrets or not all(one.reveal() for one in secrets):
        msg = "a webhook secret (whsec_…) is missing or blank: no delivery is believed without one"
        raise ConfigurationError(msg)
    if not isinstance(body, bytes | bytearray | memoryview):
        msg = (
            f"body must be the bytes of the request as they came, not {type(body).__name__}: "
            "the signature is of these bytes"
        )
        raise InvalidRequestError(msg)
    if len(body) > BODY_BYTES_MAX:
        msg = f"the delivery is larger than {BODY_BYTES_MAX:,} bytes, and none of PayNexus's is"
        raise WebhookSignatureError(msg)
    _check_signature(bytes(body), _header(headers, SIGNATURE_HEADER), secrets)
    _check_age(
        _header(headers, TIMESTAMP_HEADER), tolerance_seconds, time.time() if now is None else now
    )
    return _event(bytes(body))


def wrapped(secret: str | Iterable[str]) -> tuple[Secret, ...]:
    """Hide secrets from whoever prints local variables; what is none is a blank one.

    White space around one comes from a file or a clipboard.
    """
    secrets = (secret,) if isinstance(secret, str) else secret or ()
    return tuple(Secret(one.strip() if isinstance(one, str) else "") for one in secrets)


def _header(headers: Mapping[str, str], name: str) -> str | None:
    """Return a header's value; of several with this name, none is the right one."""
    found = [value for key, value in headers.items() if key.lower() == name.lower()]
    if len(found) > 1:
        msg = f"the delivery has {len(found)} headers {name}"
        raise WebhookSignatureError(msg)
    return found[0].strip() if found else None


def _check_signature(body: bytes, signature: str | None, secrets: Iterable[Secret]) -> None:
    if not signature:
        msg = f"the delivery has no signature ({SIGNATURE_HEADER}): it is not believed"
        raise WebhookSignatureError(msg)
    given = signature.removeprefix("sha256=").lower().encode("utf-8", "replace")
    # All of them are compared, each in constant time: how long this takes tells nothing.
    matches = [
        hmac.compare_digest(
            hmac.new(one.reveal().encode(), body, hashlib.sha256).hexdigest().encode(), given
        )
        for one in secrets
    ]
    if not any(matches):
        msg = (
            "the delivery's signature is not that of any secret given: it is forged, was changed "
            "on its way, or has another webhook's secret"
        )
        raise WebhookSignatureError(msg)


def _check_age(timestamp: str | None, tolerance_seconds: float, now: float) -> None:
    if timestamp is None:
        return
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 16):
        msg = f"the delivery's timestamp ({quoted(timestamp)}) is no number of seconds since 1970"
        raise WebhookSignatureError(msg)
    age = now - int(timestamp)
    if abs(age) > tolerance_seconds:
        msg = (
            f"the delivery is not within {tolerance_seconds:g} s of now: by its timestamp it is "
            f"{abs(age):,.0f} s {'old' if age > 0 else 'early'}; it was sent before, or a clock is "
            "wrong"
        )
        raise WebhookSignatureError(msg)


def _event(body: bytes) -> WebhookEvent:
    try:
        document = decode(body)
    except ValueError as error:
        msg = f"the delivery is signed and cannot be understood: {error}"
        raise WebhookPayloadError(msg) from error
    name = document.get("event") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(name, str) or not name.strip():
        msg = "the delivery is signed and cannot be understood: it names no event"
        raise WebhookPayloadError(msg)
    told = document.get("data")
    data: Mapping[str, object] = told if isinstance(told, dict) else {}
    name = name.strip()[:_EVENT_CHARACTERS_MAX]
    return WebhookEvent(
        name=name,
        payment=_payment(data) if name.startswith("payment.") else None,
        reference=_name(data.get("reference")),
        checkout_request_id=_name(data.get("checkout_request_id")),
        sent_at=structure_time(document.get("timestamp")),
        data=data,
    )


def _payment(data: Mapping[str, object]) -> Payment | None:
    try:
        return structure_payment(data)
    except ValueError:
        return None


def _name(value: object) -> str | None:
    if not isinstance(value, str) or len(value) > _NAME_CHARACTERS_MAX:
        return None
    return value.strip() or None
