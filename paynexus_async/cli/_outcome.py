"""What a command ends with: an exit code of its own for each thing that can be known."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from .. import (
    APIError,
    ConfigurationError,
    InvalidRequestError,
    Payment,
    PaymentMismatchError,
    PaymentOutcomeUnknown,
    PaymentStatus,
    PaymentStillPending,
    PayNexusError,
)

__all__ = ["ADVICE", "Exit", "exit_of_error", "exit_of_payment"]


class Exit(IntEnum):
    """The exit codes of `paynexus`."""

    COMPLETED = 0
    """The customer paid (or the question was answered)."""
    ERROR = 1
    """PayNexus refused, or could not be reached: no prompt was sent by this command."""
    USAGE = 2
    """The command, its input or its keys are wrong: nothing was sent."""
    FAILED = 3
    """The payment failed."""
    CANCELLED = 4
    """The customer declined."""
    EXPIRED = 5
    """The customer did not answer in time."""
    PENDING = 6
    """The payment has not ended."""
    UNKNOWN = 7
    """Whether a prompt was sent is not known."""
    MISMATCH = 8
    """The answer contradicts what was asked."""
    ATTENTION = 9
    """Of durable orders: somebody must look, as one is unknown, or its handler fails."""
    INTERRUPTED = 130
    """Ctrl-C, before anything was sent; of a bulk, before its end."""


ADVICE: Final = {
    Exit.COMPLETED: "Paid: hand over the goods.",
    Exit.FAILED: "Not paid: offer the customer another try.",
    Exit.CANCELLED: "Not paid: the customer declined.",
    Exit.EXPIRED: "Not paid in time: look again before you offer another try.",
    Exit.PENDING: "Not known yet: the customer may still pay. Wait again.",
    Exit.UNKNOWN: "Not known: do not send another prompt before you have looked.",
    Exit.MISMATCH: "Not believed: compare both sides in the PayNexus dashboard.",
}
"""What to do, in the words of a till."""

_OF_STATUS: Final = {
    PaymentStatus.COMPLETED: Exit.COMPLETED,
    PaymentStatus.FAILED: Exit.FAILED,
    PaymentStatus.CANCELLED: Exit.CANCELLED,
    PaymentStatus.EXPIRED: Exit.EXPIRED,
}

_OF_ERROR: Final[tuple[tuple[type[PayNexusError], Exit], ...]] = (
    (PaymentStillPending, Exit.PENDING),
    (PaymentOutcomeUnknown, Exit.UNKNOWN),
    (PaymentMismatchError, Exit.MISMATCH),
    (InvalidRequestError, Exit.USAGE),
    (ConfigurationError, Exit.USAGE),
    (APIError, Exit.ERROR),
)


def exit_of_payment(payment: Payment) -> Exit:
    """Return the exit code of a payment's status; every status that is not an end is `PENDING`."""
    return _OF_STATUS.get(payment.status, Exit.PENDING)


def exit_of_error(error: PayNexusError) -> Exit:
    """Return the exit code of an error."""
    return next((code for kind, code in _OF_ERROR if isinstance(error, kind)), Exit.ERROR)
