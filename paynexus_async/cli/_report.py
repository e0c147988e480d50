"""What a command says: plain lines for a pipe, JSON lines for a program."""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from decimal import Decimal
from typing import TYPE_CHECKING, Self

import anyio
import attrs

from .. import Payment, PaymentRevision, PayNexusError, mask_phones
from ._outcome import ADVICE, Exit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .. import PaymentUpdate, PhoneValidation

__all__ = [
    "JsonReport",
    "PlainReport",
    "Report",
    "document_of",
    "ledger_lines",
    "line_of",
    "word_of",
]


class Report(ABC):
    """How one command tells its story: phases, updates, and one end.

    Attributes:
        calls: the calls of the quota spent so far.
    """

    def __init__(self) -> None:
        """Begin at no calls."""
        self.calls = 0
        self._started: float | None = None

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *exc_info: object) -> None:  # noqa: B027  # most have nothing to end
        """End."""

    @property
    def seconds(self) -> float:
        """Since the first phase."""
        now = anyio.current_time()
        self._started = now if self._started is None else self._started
        return now - self._started

    @abstractmethod
    def phase(self, text: str) -> None:
        """Say what is being done."""

    @abstractmethod
    def update(self, update: PaymentUpdate) -> None:
        """Say that the payment has moved on."""

    @abstractmethod
    def payment(self, payment: Payment, code: Exit) -> None:
        """Say how a payment stands at the end."""

    @abstractmethod
    def listed(self, payment: Payment, code: Exit) -> None:
        """Say how one payment of several stands."""

    @abstractmethod
    def phone(self, validation: PhoneValidation) -> None:
        """Say whether a prompt can be sent to a number."""

    @abstractmethod
    def ledger(self, truth: Mapping[str, str], *, agrees: bool) -> None:
        """Say what the sandbox's ledger holds, and whether the client reported the same."""

    @abstractmethod
    def error(self, error: PayNexusError, code: Exit, hint: str = "") -> None:
        """Say what went wrong."""


class PlainReport(Report):
    """One line for each event, without colours or cursor movements."""

    def phase(self, text: str) -> None:
        """Print a line, and count calls from here."""
        self.calls = 0
        self._line(text)

    def update(self, update: PaymentUpdate) -> None:
        """Print a line."""
        late = " (late truth)" if isinstance(update, PaymentRevision) else ""
        self._line(f"{update.payment.reference or '?'} {word_of(update.payment)}{late}")

    def payment(self, payment: Payment, code: Exit) -> None:
        """Print what is known, and what to do."""
        print(line_of(payment), flush=True)
        if advice := ADVICE.get(code):
            print(advice, flush=True)

    def listed(self, payment: Payment, code: Exit) -> None:
        """Print a line."""
        print(line_of(payment), flush=True)

    def phone(self, validation: PhoneValidation) -> None:
        """Print a line."""
        shown = mask_phones(validation.normalized or validation.original or "")
        verdict = "can get a prompt" if validation.valid else "is not a number for prompts"
        print(f"{shown} {verdict} ({validation.provider or 'no provider'})", flush=True)

    def ledger(self, truth: Mapping[str, str], *, agrees: bool) -> None:
        """Print it as a short list."""
        print(ledger_lines(truth, agrees=agrees), flush=True)

    def error(self, error: PayNexusError, code: Exit, hint: str = "") -> None:
        """Print it where errors go."""
        words = [f"paynexus: {error}", hint, ADVICE.get(code, "")]
        print("\n".join(word for word in words if word), file=sys.stderr, flush=True)

    def _line(self, text: str) -> None:
        print(f"{self.seconds:6.1f} s  {self.calls:2} calls  {text}", flush=True)


class JsonReport(Report):
    """One JSON object for each event; the last has `"event": "result"` or `"error"`."""

    def phase(self, text: str) -> None:
        """Keep quiet, for phases are for people; count calls from here."""
        self.calls = 0

    def update(self, update: PaymentUpdate) -> None:
        """Print the payment as it stands."""
        event = "revision" if isinstance(update, PaymentRevision) else "update"
        self._print(event, **document_of(update.payment))

    def payment(self, payment: Payment, code: Exit) -> None:
        """Print the result."""
        self._print("result", outcome=code.name.lower(), **document_of(payment))

    def listed(self, payment: Payment, code: Exit) -> None:
        """Print a result."""
        self.payment(payment, code)

    def phone(self, validation: PhoneValidation) -> None:
        """Print the opinion."""
        shown = mask_phones(validation.normalized or validation.original or "")
        self._print("phone", valid=validation.valid, phone=shown, provider=validation.provider)

    def ledger(self, truth: Mapping[str, str], *, agrees: bool) -> None:
        """Print it as one object."""
        self._print("ledger", prompts=len(truth), payments=dict(truth), agrees=agrees)

    def error(self, error: PayNexusError, code: Exit, hint: str = "") -> None:
        """Print the error, with the payment if one is known."""
        payment = getattr(error, "payment", None)
        known = document_of(payment) if isinstance(payment, Payment) else {}
        self._print(
            "error",
            outcome=code.name.lower(),
            error=type(error).__name__,
            message=" ".join(filter(None, [str(error), hint])),
            **known,
        )

    def _print(self, event: str, **fields: object) -> None:
        document = {"event": event, "seconds": round(self.seconds, 3), "calls": self.calls}
        print(json.dumps({**document, **fields}, ensure_ascii=False), flush=True)


def ledger_lines(truth: Mapping[str, str], *, agrees: bool) -> str:
    """Describe what the sandbox knows."""
    lines = [f"The sandbox's ledger: {len(truth)} prompts sent, one for each payment."]
    lines += [f"  {reference}  {status}" for reference, status in truth.items()]
    lines.append(
        "The client reported the same." if agrees else "THE CLIENT REPORTED SOMETHING ELSE."
    )
    return "\n".join(lines)


def word_of(payment: Payment) -> str:
    """Return the server's own word for where a payment stands, made safe to print."""
    text = "".join(c if c.isprintable() else "?" for c in payment.status_text[:40])
    return mask_phones(text)


def line_of(payment: Payment) -> str:
    """Describe a payment in one line."""
    parts = [payment.reference or "(no reference)", word_of(payment)]
    if payment.amount is not None:
        parts.append(f"KES {payment.amount}")
    if payment.phone:
        parts.append(mask_phones(payment.phone))
    if payment.receipt:
        parts.append(f"receipt {payment.receipt}")
    if payment.failure_reason:
        parts.append(mask_phones(payment.failure_reason))
    return "  ".join(parts)


def document_of(payment: Payment) -> dict[str, object]:
    """Return a payment as JSON can hold it, with phone numbers masked."""
    document: dict[str, object] = {}
    for field in attrs.fields(Payment):
        value = getattr(payment, field.name)
        if value is None or field.name == "response":
            continue
        if isinstance(value, Decimal):
            value = str(value)
        elif hasattr(value, "isoformat"):
            value = value.isoformat()
        elif isinstance(value, str) and field.name not in {"reference", "receipt"}:
            value = mask_phones(str(value))
        document[field.name] = value
    return document
