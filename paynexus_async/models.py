"""What the API's answers mean: frozen values, without a trace of how they came.

Every value carries the answer it was read from in `response`, and prints no whole phone number.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Final, NoReturn

import attrs

from ._discreet import quoted
from .exceptions import (
    PaymentFailed,
    PaymentMismatchError,
    PaymentStillPending,
    PayNexusError,
)
from .phone import phones_agree
from .status import Change, PaymentStatus, advance

__all__ = [
    "APIResponse",
    "Attempt",
    "BulkProgress",
    "Expectation",
    "NoPaymentFound",
    "Payment",
    "PaymentFound",
    "PaymentResult",
    "PaymentRevision",
    "PaymentStillUnknown",
    "PaymentUpdate",
    "PhoneValidation",
    "Resolution",
]


_NAMES: Final = frozenset({"reference", "receipt", "transaction_id"})


def _shown(asked: object) -> str:
    return repr(asked) if isinstance(asked, Payment) else quoted(str(asked), is_name=True)


def _masked_repr(value: Payment | PhoneValidation | Expectation | Attempt) -> str:
    shown = []
    for field in attrs.fields(type(value)):
        content = getattr(value, field.name)
        if content is None:
            continue
        if isinstance(content, str | int | Decimal):
            content = quoted(str(content), is_name=field.name in _NAMES)
        shown.append(f"{field.name}={content!s}")
    return f"{type(value).__name__}({', '.join(shown)})"


@attrs.frozen(kw_only=True, repr=False)
class APIResponse:
    """One answer of the server, as it came.

    Attributes:
        status_code: the HTTP status.
        headers: by name in lower case; a repeated header is joined with `, `.
        body: the bytes of the body, not decompressed.
        elapsed_seconds: from the first byte out to the last byte in.
    """

    status_code: int
    headers: Mapping[str, str]
    body: bytes
    elapsed_seconds: float = attrs.field(default=0.0, eq=False)

    def __repr__(self) -> str:
        """Describe the answer without showing it: bodies hold phone numbers."""
        return f"<APIResponse {self.status_code}, {len(self.body)} bytes>"

    @property
    def text(self) -> str:
        """The body as text; bytes that are not UTF-8 are replaced."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> object:
        """Decode the body as JSON.

        Raises:
            ValueError: if it is not JSON.
        """
        document: object = json.loads(self.body)
        return document


@attrs.frozen(kw_only=True, repr=False)
class Payment:
    """A payment, as far as it is known.

    Source: https://paynexus.co.ke/docs/stk-push and https://paynexus.co.ke/docs/transactions. Of an
    answer's fields only the status is certain to be there; what is missing is `None`.

    Attributes:
        reference: PayNexus's name for the payment, such as `PNXABC123DEF`.
        checkout_request_id: M-Pesa's name for the prompt, such as `ws_CO_2701202610…`.
        status: where the payment stands.
        status_text: the server's own word for it.
        amount: in KES; an `int` when whole, otherwise a `Decimal`, never a float.
        phone: the customer's number, as `254746990866`.
        receipt: the M-Pesa receipt, such as `OEI2AK4Q16` (`provider_transaction_id`).
        transaction_id: PayNexus's transaction id.
        description: what the customer saw beside the amount.
        account_reference: the merchant's own name for the payment.
        payer_name: the customer's name, as M-Pesa tells it.
        currency: `KES`.
        failure_reason: why it failed, in the server's words.
        created_at: when it was initiated. Times are aware; one without an offset is Kenyan time.
        updated_at: when it last changed.
        completed_at: when it was paid.
        failed_at: when it failed.
        response: the answer this was read from.
    """

    reference: str | None = None
    status: PaymentStatus
    status_text: str
    checkout_request_id: str | None = None
    amount: int | Decimal | None = None
    phone: str | None = None
    receipt: str | None = None
    transaction_id: str | None = None
    description: str | None = None
    account_reference: str | None = None
    payer_name: str | None = None
    currency: str | None = None
    failure_reason: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    completed_at: datetime | None = None
    failed_at: datetime | None = None
    response: APIResponse | None = attrs.field(default=None, eq=False)

    def __repr__(self) -> str:
        """Show what is known, with phone numbers masked."""
        return _masked_repr(self)

    @property
    def succeeded(self) -> bool:
        """Whether the customer paid: `status` is `COMPLETED`."""
        return self.status.succeeded

    @property
    def is_terminal(self) -> bool:
        """Whether the payment has ended, one way or the other."""
        return self.status.is_terminal

    def raise_for_status(self) -> Payment:
        """Return the payment if the customer paid, and raise otherwise.

        Raises:
            PaymentFailed: if it ended `failed`, `cancelled` or `expired`.
            PaymentStillPending: if it has not ended.
        """
        if self.succeeded:
            return self
        name = Expectation.of(self).label
        if self.is_terminal:
            reason = f" ({quoted(self.failure_reason)})" if self.failure_reason else ""
            msg = f"payment {name} is {self.status}{reason}: {_ENDINGS[self.status]}"
            raise PaymentFailed(msg, payment=self)
        msg = f"payment {name} is still {quoted(self.status_text)}; wait for it to end"
        raise PaymentStillPending(msg, reference=name, payment=self, attempts=0, last_error=None)

    def merge(self, observed: Payment) -> tuple[Payment, Change]:
        """Add what an observation tells to what is known.

        Old news and contradictions change nothing but `response`; other news fills what was
        missing and replaces what it repeats.

        Args:
            observed: the same payment, in a later or an earlier answer.
        """
        status, change = advance(self.status, observed.status)
        if change in {Change.STALE, Change.CONFLICTING}:
            return attrs.evolve(self, response=observed.response or self.response), change
        known = attrs.asdict(self, recurse=False)
        if change is Change.REVISED:  # why it had seemed to fail is no longer true
            known |= {"failure_reason": None, "failed_at": None}
        news = attrs.asdict(observed, recurse=False)
        known |= {name: value for name, value in news.items() if value is not None}
        return Payment(**{**known, "status": status}), change


_ENDINGS: Final = {
    PaymentStatus.FAILED: "no money moved, as far as is known",
    PaymentStatus.CANCELLED: "the customer declined the prompt",
    PaymentStatus.EXPIRED: "the customer did not answer the prompt in time",
}


@attrs.frozen(kw_only=True, repr=False)
class Expectation:
    """What was asked: an answer about a payment must agree with it.

    Attributes:
        reference: the reference asked for.
        checkout_request_id: the checkout request id asked for.
        amount: the amount initiated, in KES.
        phone: the phone initiated, as `254746990866`.
    """

    reference: str | None = None
    checkout_request_id: str | None = None
    amount: int | Decimal | None = None
    phone: str | None = None

    def __repr__(self) -> str:
        """Show what was asked, with phone numbers masked."""
        return _masked_repr(self)

    @classmethod
    def of(cls, payment: Payment) -> Expectation:
        """Expect of later answers what *payment* already tells."""
        return cls(
            reference=payment.reference,
            checkout_request_id=payment.checkout_request_id,
            amount=payment.amount,
            phone=payment.phone,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The names by which the payment is known: its reference, its checkout request id."""
        if self.reference and self.checkout_request_id:
            return self.reference, self.checkout_request_id
        return (self.key,) if self.key else ()

    def completed(self, other: Expectation) -> Expectation:
        """Return this with what only *other* tells."""
        if None not in (self.reference, self.checkout_request_id, self.amount, self.phone):
            return self
        return Expectation(
            reference=self.reference or other.reference,
            checkout_request_id=self.checkout_request_id or other.checkout_request_id,
            amount=other.amount if self.amount is None else self.amount,
            phone=self.phone or other.phone,
        )

    @property
    def key(self) -> str:
        """The name by which the payment is asked for: its reference, or its checkout request id."""
        return self.reference or self.checkout_request_id or ""

    @property
    def label(self) -> str:
        """The same name as messages may show it: a checkout request id ends in a phone number."""
        return quoted(self.key or "without a reference", is_name=True)

    def check(self, answered: Payment, *, strictly: bool = False) -> None:
        """Refuse an answer that is about another payment, or settles this one otherwise.

        What is missing on either side contradicts nothing. Amount and phone count once the payment
        has ended: only then does anybody act on them.

        Args:
            answered: the payment as the server tells it.
            strictly: whether amount and phone count at once.

        Raises:
            PaymentMismatchError: carrying both sides.
        """
        differences = [] if self._names(answered) else ["reference"]
        if strictly or differences or answered.is_terminal:
            if None not in (self.amount, answered.amount) and self.amount != answered.amount:
                differences.append("amount")
            if self.phone and answered.phone and not phones_agree(self.phone, answered.phone):
                differences.append("phone")
        if differences:
            msg = (
                f"the answer for payment {self.label} contradicts what was asked in "
                f"{' and '.join(differences)}: asked {self!r}, answered {answered!r}; "
                "it is not believed: compare both in the PayNexus dashboard"
            )
            raise PaymentMismatchError(msg, asked=self, answered=answered, differences=differences)

    def agrees_with(self, other: Expectation) -> bool:
        """Whether both can be about one payment: nothing that both tell is different."""
        references = [(e.reference or "").casefold() for e in (self, other)]
        return (
            _same(*references)
            and _same(self.checkout_request_id, other.checkout_request_id)
            and (None in (self.amount, other.amount) or self.amount == other.amount)
            and (not self.phone or not other.phone or phones_agree(self.phone, other.phone))
        )

    def _names(self, answered: Payment) -> bool:
        if self.reference and answered.reference:
            return self.reference.casefold() == answered.reference.casefold()
        if self.checkout_request_id and answered.checkout_request_id:
            return self.checkout_request_id == answered.checkout_request_id
        return True


def _same(one: str | None, other: str | None) -> bool:
    return not one or not other or one == other


@attrs.frozen(kw_only=True, repr=False)
class PhoneValidation:
    """The API's opinion of a phone number.

    Source: https://paynexus.co.ke/docs/stk-push, "Validate Phone Number".

    Attributes:
        original: the number as it was asked.
        normalized: the number as `254746990866`, if it is one.
        valid: whether a prompt can be sent to it.
        provider: whose number it is, such as `mpesa`.
        response: the answer this was read from.
    """

    valid: bool
    original: str | None = None
    normalized: str | None = None
    provider: str | None = None
    response: APIResponse | None = attrs.field(default=None, eq=False)

    def __repr__(self) -> str:
        """Show what is known, with phone numbers masked."""
        return _masked_repr(self)


@attrs.frozen(kw_only=True)
class PaymentUpdate:
    """A payment has moved on.

    Attributes:
        payment: the payment as it stands now.
        previous: the status it had before; `None` in the first update of a watch.
        attempts: the status calls made for it so far.
    """

    payment: Payment
    previous: PaymentStatus | None
    attempts: int


@attrs.frozen(kw_only=True)
class PaymentRevision(PaymentUpdate):
    """Late truth: a payment that was reported failed, cancelled or expired is completed after all.

    Whoever acted on the earlier report has to act again: the customer has paid.
    """


@attrs.frozen(kw_only=True)
class PaymentResult:
    """What became of one of many: a payment, or the error that stands in its place.

    Attributes:
        asked: what was asked for: a reference, a checkout request id, or a payment.
        payment: where it stands; `None` if there is an error.
        error: why that is not known; `None` if there is a payment.
    """

    asked: str | Payment = attrs.field(repr=_shown)
    payment: Payment | None = None
    error: PayNexusError | None = None

    def unwrap(self) -> Payment:
        """Return the payment.

        Raises:
            PayNexusError: the error, where there is one.
        """
        if self.payment is None:
            raise self.error or PayNexusError("the result holds neither a payment nor an error")
        return self.payment


@attrs.frozen(kw_only=True)
class BulkProgress:
    """How far a bulk operation has come.

    Attributes:
        done: items with a result, of either kind.
        failed: those among them that have an error.
        total: all items; `None` if the iterable has no length.
        per_second: results a second, since the start.
        eta_seconds: until the last one at that rate; `None` if it cannot be told.
    """

    done: int
    failed: int
    total: int | None
    per_second: float
    eta_seconds: float | None


# --- What became of a prompt whose answer was lost


@attrs.frozen(kw_only=True, repr=False)
class Attempt:
    """One attempt to prompt a phone, as whoever looks for its payment needs to know it.

    Attributes:
        amount: in KES.
        phone: as `254746990866`.
        description: what the customer sees beside the amount, if anything.
        sent_at: when it was about to be sent, for the first time, by this machine's clock.
        lost_at: when its answer was given up; `None` while it is being sent.
    """

    amount: int
    phone: str
    description: str | None
    sent_at: datetime
    lost_at: datetime | None = None

    def __repr__(self) -> str:
        """Show what was sent, with the phone masked."""
        return _masked_repr(self)

    def is_that_of(self, other: Attempt) -> bool:
        """Whether both are the same attempt, however much is known of its end."""
        return (self.phone, self.amount, self.sent_at) == (other.phone, other.amount, other.sent_at)


@attrs.frozen(kw_only=True)
class _Resolution:
    """What `find_payment` has found out: one of three kinds, told apart by class."""

    def __bool__(self) -> NoReturn:
        """Refuse to be true or false: there are three answers.

        Raises:
            TypeError: always.
        """
        msg = "what find_payment() returns is one of three kinds: ask with match or isinstance()"
        raise TypeError(msg)


@attrs.frozen(kw_only=True)
class PaymentFound(_Resolution):
    """The prompt had reached PayNexus: this is its payment.

    Attributes:
        payment: as it stands; follow it as any other.
    """

    payment: Payment


@attrs.frozen(kw_only=True)
class NoPaymentFound(_Resolution):
    """PayNexus listed no such payment when it was asked: a statement about that moment.

    It is not a proof that none will come: a request that was lost can arrive late. So the client
    goes on refusing a second prompt without `allow_duplicate=True`.

    Attributes:
        seen_from: the beginning of the time that was searched, by the server's clock.
        seen_to: its end: when the server was last asked, by that clock.
        reason: the same, as a sentence.
    """

    seen_from: datetime
    seen_to: datetime
    reason: str


@attrs.frozen(kw_only=True)
class PaymentStillUnknown(_Resolution):
    """Whether there is a payment cannot be told: act as before it was looked for.

    Attributes:
        reason: why, and what to do.
        candidates: the payments that may be it, for somebody to compare.
        error: what kept the client from seeing, if it was an error.
    """

    reason: str
    candidates: tuple[Payment, ...] = ()
    error: PayNexusError | None = None


Resolution = PaymentFound | NoPaymentFound | PaymentStillUnknown
"""What `find_payment` returns."""
