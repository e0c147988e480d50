"""What is kept of an order, and what follows from it: pure values, no engine, no clock."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from enum import StrEnum, unique
from typing import TYPE_CHECKING, Final, TypedDict
from urllib.parse import quote

import attrs

from .._convert import structure_payment
from .._discreet import quoted
from ..exceptions import InvalidRequestError, PayNexusError
from ..models import Payment
from ..phone import mask_phones
from ..status import PaymentStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "KNOWN_FAILURES",
    "Kept",
    "Order",
    "OrderConflictError",
    "OrderState",
    "OrderStillOpenError",
    "Outcome",
    "Seen",
    "Told",
    "checked_order_id",
    "description_of",
    "follow_id",
    "follow_ids_of",
    "kept",
    "key_of",
    "masked",
    "number_in",
    "owner_of",
    "prompt_id",
    "prompt_ids_of",
    "restored",
    "seconds_to_next_look",
    "state_of",
]

ATTEMPTS_MAX: Final = 20
LOOKS_MAX: Final = 64
_CUT_SECONDS: Final = 5.0
_LOOK_SECONDS_MIN: Final = 30.0
_LATE_SECONDS_MIN: Final = 60.0
_LOOK_SECONDS_MAX: Final = 21_600.0
_BLIND_MAX: Final = 10
_HANDLER_SECONDS_MIN: Final = 5.0
_HANDLER_SECONDS_MAX: Final = 3_600.0
_ID_CHARACTERS_MAX: Final = 100
_WORDS_MAX: Final = 300


@unique
class OrderState(StrEnum):
    """Where an order stands, as far as is known: a member equals its text."""

    PROMPTING = "prompting"
    """It is written down, and its prompt is about to be sent, or being sent."""
    PENDING = "pending"
    """The prompt is out, its payment has a name, and it has not ended."""
    COMPLETED = "completed"
    """The customer paid."""
    FAILED = "failed"
    """The payment failed."""
    CANCELLED = "cancelled"
    """The customer declined the prompt."""
    EXPIRED = "expired"
    """The customer did not answer the prompt in time."""
    REJECTED = "rejected"
    """PayNexus refused to send a prompt."""
    NEVER_SENT = "never_sent"
    """It is proven that not one byte of the request left: no prompt is on any phone."""
    UNKNOWN = "unknown"
    """A prompt may be out, and may have been paid; nothing that was asked could tell."""
    WRITTEN_OFF = "written_off"
    """It was unknown, and somebody who looked has said that there is no payment."""

    @property
    def is_end(self) -> bool:
        """Whether the merchant is told of it: everything but `PROMPTING` and `PENDING`."""
        return self not in {OrderState.PROMPTING, OrderState.PENDING}


KNOWN_FAILURES: Final = frozenset(
    {
        OrderState.FAILED,
        OrderState.CANCELLED,
        OrderState.EXPIRED,
        OrderState.REJECTED,
        OrderState.NEVER_SENT,
        OrderState.WRITTEN_OFF,
    }
)
"""The ends after which an order may be asked for again: no money is known to be on its way."""

_WITHOUT_MONEY: Final = frozenset({OrderState.FAILED, OrderState.CANCELLED, OrderState.EXPIRED})


class OrderConflictError(PayNexusError):
    """The order id is known, for another amount or another phone. Nothing was sent."""


class OrderStillOpenError(PayNexusError):
    """The order's last attempt is not known to have failed, so no other is made. Nothing was sent.

    Attributes:
        state: where that attempt stands.
        reference: its payment, where that is known.
    """

    def __init__(self, message: str, *, state: OrderState, reference: str | None) -> None:
        """Keep where it stands."""
        super().__init__(message)
        self.state = state
        self.reference = reference


@attrs.frozen(kw_only=True)
class Outcome:
    """How an attempt to be paid for an order has ended, as far as is known.

    Attributes:
        order_id: the merchant's name for it.
        attempt: 1, and one more for each time that the order was asked for `again`.
        state: one of the ends of `OrderState`.
        amount: in KES.
        phone: the customer's number with its middle starred out.
        payment: the payment as last seen; `None` where none is known.
        reason: why, in words for people, where there is more to say than the state.
        revision: 0 the first time that this attempt's outcome is told, and then 1, 2, …: what was
            told before is overtaken, such as a payment that had expired and was paid after all.
        overtakes: the state that was told before; `None` the first time.
    """

    order_id: str
    attempt: int
    state: OrderState
    amount: int
    phone: str
    payment: Payment | None = None
    reason: str | None = None
    revision: int = 0
    overtakes: OrderState | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the customer paid."""
        return self.state is OrderState.COMPLETED


class Order(TypedDict):
    """An order as it is stored, before its prompt is sent.

    The phone stands there masked; `sealed` holds it encrypted, where there is a secret, and with it
    a description that may hold one. `taken_at` is in seconds since 1970.
    `token` names the memory of the one process that may send the prompt.
    """

    order_id: str
    attempt: int
    amount: int
    phone: str
    sealed: str | None
    description: str | None
    token: str
    taken_at: float


class Seen(TypedDict):
    """What is known of an order's payment, as it is stored: times in seconds since 1970.

    `owned` is the payment's name, once it is this order's and no other's; `blind` is how many looks
    in a row, each of which was to be the last, have met an error.
    """

    state: str
    payment: dict[str, str | None] | None
    sealed: str | None
    reason: str | None
    sent_at: float | None
    lost_at: float | None
    looked_at: float
    is_cut: bool
    blind: int
    owned: str | None


class Told(TypedDict):
    """What the merchant's handler has been told, as it is stored."""

    state: str | None
    revision: int
    failures: int
    error: str | None


class Kept(TypedDict):
    """What a workflow leaves behind: the order, what is known, what was told, and what is next."""

    order: Order
    seen: Seen
    told: Told
    next: str | None


# --- Names


def checked_order_id(order_id: str) -> str:
    """Return an order id that may be stored as it is.

    Raises:
        InvalidRequestError: it is none, or seems to hold a phone number: those are not stored.
    """
    if not isinstance(order_id, str) or not 1 <= len(order_id) <= _ID_CHARACTERS_MAX:
        msg = f"order_id must be 1 to {_ID_CHARACTERS_MAX} characters"
        raise InvalidRequestError(msg)
    if not order_id.isprintable() or order_id != order_id.strip():
        msg = "order_id must be printable, without white space at its ends"
        raise InvalidRequestError(msg)
    if quoted(order_id, is_name=True) != order_id:
        msg = (
            "order_id looks as if it held a phone number or a key: those are not stored as they are"
        )
        raise InvalidRequestError(msg)
    return order_id


def prompt_id(name: str, order_id: str, attempt: int) -> str:
    """Return the name of the workflow that sends an order's prompt."""
    return f"{name}/order/{quote(order_id, safe='')}/{attempt}"


def prompt_ids_of(name: str, order_id: str) -> list[str]:
    """Return the names of all attempts that an order may have."""
    return [prompt_id(name, order_id, attempt) for attempt in range(1, ATTEMPTS_MAX + 1)]


def follow_id(name: str, order: Order, seen: Seen, number: int) -> str:
    """Return the name of the *number*-th workflow that follows an order's payment.

    It is the payment's, where that has a name: a webhook that names it is found without a search.
    """
    key = key_of(seen)
    if key is not None:
        return f"{name}/payment/{key}/{number}"
    return f"{name}/unnamed/{quote(order['order_id'], safe='')}/{order['attempt']}/{number}"


def follow_ids_of(name: str, payment: Payment) -> list[str]:
    """Return the names of all workflows that may follow a payment."""
    keys = [_hashed(payment.checkout_request_id)] if payment.checkout_request_id else []
    if payment.reference:
        keys.append(payment.reference.upper())
    return [f"{name}/payment/{key}/{number}" for key in keys for number in range(1, LOOKS_MAX + 1)]


def owner_of(order: Order) -> str:
    """Return how a payment's row names the attempt that it belongs to."""
    return f"{order['order_id']}/{order['attempt']}"


def number_in(workflow_id: str) -> int:
    """Return the number at the end of a workflow's name."""
    return int(workflow_id.rpartition("/")[2])


def key_of(seen: Seen) -> str | None:
    """Return the name of an order's payment in the names of rows; `None` if it has none."""
    payment = seen["payment"]
    if payment is None:
        return None
    reference = payment.get("reference")
    return reference.upper() if reference else payment.get("name")


def _hashed(name: str) -> str:
    """Shorten a checkout request id, which ends in the customer's number."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def description_of(order_id: str, attempt: int) -> str:
    """Return what the customer sees: the order's own, so that a lost payment is found by it."""
    return order_id if attempt == 1 else f"{order_id} ({attempt})"


# --- What is stored of a payment


def kept(payment: Payment) -> dict[str, str | None]:
    """Return what is stored of a payment: the API's own fields that it has, and no phone in any.

    What ends in a phone (the checkout request id) or may hold one (the payer) is not among them.
    """
    fields = {
        "reference": payment.reference,
        "name": _hashed(payment.checkout_request_id) if payment.checkout_request_id else None,
        "status": payment.status_text
        if payment.status is PaymentStatus.UNDOCUMENTED
        else str(payment.status),
        "amount": None if payment.amount is None else str(payment.amount),
        "provider_transaction_id": payment.receipt,
        "transaction_id": payment.transaction_id,
        "failure_reason": masked(payment.failure_reason),
        "currency": payment.currency,
        "created_at": _written(payment.created_at),
        "updated_at": _written(payment.updated_at),
        "completed_at": _written(payment.completed_at),
        "failed_at": _written(payment.failed_at),
    }
    return {name: value for name, value in fields.items() if value is not None}


def restored(data: Mapping[str, str | None], private: Mapping[str, str | None]) -> Payment:
    """Return the payment of which *data* was stored, with what was sealed beside it."""
    payment = structure_payment(data)
    return attrs.evolve(
        payment,
        phone=private.get("phone"),
        checkout_request_id=private.get("checkout_request_id"),
    )


def masked(words: str | None) -> str | None:
    """Return words as they may be stored: short, and without a whole phone."""
    return None if words is None else mask_phones(words)[:_WORDS_MAX]


def _written(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()


def state_of(payment: Payment) -> OrderState:
    """Return where an order stands whose payment stands there."""
    return OrderState(payment.status) if payment.is_terminal else OrderState.PENDING


# --- What is due


def seconds_to_next_look(seen: Seen, told: Told, *, watch_seconds: float) -> float | None:
    """Return when an order is due again; `None` when it is over.

    Nobody waits at the till by then, so a look is worth less the older the payment is: each wait is
    as long as everything before it, between half a minute (a minute after an end without money) and
    six hours. A last look behind an end without money that meets an error is made up for: up to ten
    times, after one minute, two, four … A handler that failed is called again after 5, 10, 20 …
    seconds, and then every hour.

    Args:
        seen: what is known.
        told: what the handler knows.
        watch_seconds: how long a payment that has no end, or one without money, is looked at.
    """
    if seen["is_cut"]:  # not at once: the engine of the worker that closes would take it back
        return _CUT_SECONDS
    waits = []
    if told["failures"]:
        doubled: float = _HANDLER_SECONDS_MIN * 2.0 ** min(told["failures"] - 1, 20)
        waits.append(min(doubled, _HANDLER_SECONDS_MAX))
    state = OrderState(seen["state"])
    age = seen["looked_at"] - (seen["sent_at"] or seen["looked_at"])
    if state in _WITHOUT_MONEY or state in _WITHOUT_END:
        least = _LATE_SECONDS_MIN if state in _WITHOUT_MONEY else _LOOK_SECONDS_MIN
        if age < watch_seconds:
            waits.append(min(max(age, least), _LOOK_SECONDS_MAX, max(watch_seconds - age, least)))
        elif state in _WITHOUT_MONEY and 0 < seen["blind"] <= _BLIND_MAX:
            # Else it would be told for ever; "unknown" claims nothing.
            waits.append(min(least * 2.0 ** (seen["blind"] - 1), _LOOK_SECONDS_MAX))
    return min(waits, default=None)


_WITHOUT_END: Final = frozenset({OrderState.PENDING, OrderState.UNKNOWN})
