"""The life of a payment: its statuses, and which may follow which.

A payment starts `initiated` and ends in one of four terminal statuses. What a client sees of that
life are observations: answers to status calls and webhooks. They repeat, overtake one another and
arrive late, so an observation is not a command to change; it is evidence to be merged:

* News that lies ahead in the table moves the payment on.
* News that lies behind changes nothing (a stale `initiated` after `processing`).
* A terminal status never moves. The one exception is late truth: M-Pesa can complete a payment that
  PayNexus had already reported `failed`, `cancelled` or `expired`. Money that arrived is a fact, so
  `completed` overrides those three, as a revision that has a name of its own. `completed` itself
  never moves.

Both rules are the two tables below; everything else in the package is derived from them.

Source: the status table of https://paynexus.co.ke/docs/stk-push.
"""

from __future__ import annotations

from enum import Enum, StrEnum, unique
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["REVISIONS", "TERMINAL", "TRANSITIONS", "Change", "PaymentStatus", "advance"]


@unique
class PaymentStatus(StrEnum):
    """Where a payment stands: the six documented statuses, and one for every other word.

    A member equals its text: `PaymentStatus.COMPLETED == "completed"`.
    """

    INITIATED = "initiated"
    """The STK push was sent to the customer's phone."""
    UNDOCUMENTED = "undocumented"
    """The server used a word that its documentation does not know, such as `pending`.

    Never terminal. The word itself is kept in `Payment.status_text`.
    """
    PROCESSING = "processing"
    """The payment is being processed."""
    COMPLETED = "completed"
    """The customer paid."""
    FAILED = "failed"
    """The payment failed."""
    CANCELLED = "cancelled"
    """The customer cancelled the request."""
    EXPIRED = "expired"
    """The request expired before the customer answered it."""

    @classmethod
    def parse(cls, text: str) -> PaymentStatus:
        """Return the documented status that *text* names, or `UNDOCUMENTED`."""
        return _DOCUMENTED.get(text.strip().lower(), cls.UNDOCUMENTED)

    @property
    def is_terminal(self) -> bool:
        """Whether the payment has ended: nothing follows but, perhaps, late truth."""
        return self in TERMINAL

    @property
    def succeeded(self) -> bool:
        """Whether the customer paid."""
        return self is PaymentStatus.COMPLETED


_S = PaymentStatus
_DOCUMENTED: Final = {status.value: status for status in _S if status is not _S.UNDOCUMENTED}

TRANSITIONS: Final[Mapping[PaymentStatus, frozenset[PaymentStatus]]] = MappingProxyType(
    {
        _S.INITIATED: frozenset(
            {_S.UNDOCUMENTED, _S.PROCESSING, _S.COMPLETED, _S.FAILED, _S.CANCELLED, _S.EXPIRED}
        ),
        # An unknown word says more than "sent" and less than the documented "being processed".
        _S.UNDOCUMENTED: frozenset(
            {_S.PROCESSING, _S.COMPLETED, _S.FAILED, _S.CANCELLED, _S.EXPIRED}
        ),
        _S.PROCESSING: frozenset({_S.COMPLETED, _S.FAILED, _S.CANCELLED, _S.EXPIRED}),
        _S.COMPLETED: frozenset(),
        _S.FAILED: frozenset(),
        _S.CANCELLED: frozenset(),
        _S.EXPIRED: frozenset(),
    }
)
"""For each status, all that may be observed after it (polls skip steps)."""

REVISIONS: Final[Mapping[PaymentStatus, frozenset[PaymentStatus]]] = MappingProxyType(
    {
        _S.FAILED: frozenset({_S.COMPLETED}),
        _S.CANCELLED: frozenset({_S.COMPLETED}),
        _S.EXPIRED: frozenset({_S.COMPLETED}),
    }
)
"""Late truth: the terminal statuses that a later `completed` overrides."""

TERMINAL: Final[frozenset[PaymentStatus]] = frozenset(
    status for status, followers in TRANSITIONS.items() if not followers
)
"""The statuses that nothing follows."""


@unique
class Change(Enum):
    """What an observed status does to a known one."""

    SAME = "same"
    """It repeats what is known."""
    ADVANCED = "advanced"
    """It moves the payment on."""
    REVISED = "revised"
    """It is late truth: a payment that had ended unpaid turns out to be completed."""
    STALE = "stale"
    """It is old news, overtaken on its way; nothing changes."""
    CONFLICTING = "conflicting"
    """It contradicts a terminal status; nothing changes."""


def advance(known: PaymentStatus, observed: PaymentStatus) -> tuple[PaymentStatus, Change]:
    """Merge an observed status into a known one.

    Returns:
        The status that holds from now on, and what kind of change that is. Whatever the pair, this
        never raises, and applying the same observation twice changes nothing the second time.
    """
    if observed is known:
        return known, Change.SAME
    if observed in TRANSITIONS[known]:
        return observed, Change.ADVANCED
    if observed in REVISIONS.get(known, ()):
        return observed, Change.REVISED
    if known in TERMINAL and observed in TERMINAL:
        return known, Change.CONFLICTING
    return known, Change.STALE
