"""Sending an order's prompt: once, in the one process that may."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, TypedDict

import attrs

from ..exceptions import (
    APIConnectionError,
    APIStatusError,
    ClientStateError,
    ConfigurationError,
    DuplicatePaymentError,
    InvalidRequestError,
    PaymentMismatchError,
    PaymentOutcomeUnknown,
    PayNexusError,
    QuotaExhaustedError,
)
from ._orders import Order, OrderState, Seen, kept, masked

if TYPE_CHECKING:
    from .._wire import Intent
    from ..client import AsyncPayNexus
    from ..models import Payment
    from ._records import Records
    from ._terms import Terms

__all__ = ["Claim", "Fresh", "Prompts", "interrupted", "is_within"]

_NOTHING_WAS_SENT: Final = (
    QuotaExhaustedError,
    ConfigurationError,
    InvalidRequestError,
    DuplicatePaymentError,
    ClientStateError,
)


class Claim(TypedDict):
    """What is written down before a prompt is sent: when, and whether it can be sent here."""

    at: float
    is_here: bool


@attrs.define(eq=False)
class Fresh:
    """An order whose prompt this process, and no other, may send.

    Attributes:
        intent: what is asked for, checked.
        allow_duplicate: whether an equal prompt may be open.
        taken_at: when the order came, in seconds since 1970: nobody waits for it for ever.
        exchange: the one request, from when it is about to be sent.
    """

    intent: Intent
    allow_duplicate: bool
    taken_at: float
    exchange: asyncio.Task[Payment] | None = None


class Prompts:
    """The orders whose prompts this process may send, or has sent.

    Attributes:
        fresh: by their tokens; an order of another process is not among them.
    """

    def __init__(self, paynexus: AsyncPayNexus, records: Records, terms: Terms) -> None:
        """Keep what sends."""
        self.fresh: Final[dict[str, Fresh]] = {}
        self._paynexus = paynexus
        self._records = records
        self._terms = terms

    async def claim(self, order: Order) -> Claim:
        """Say that the prompt is about to be sent, if that can be done here and in time."""
        fresh = self.fresh.get(order["token"])
        is_in_time = fresh is not None and is_within(fresh.taken_at, self._terms.send_seconds)
        return {"at": time.time(), "is_here": is_in_time}

    async def send(self, order: Order, claim: Claim) -> Seen:
        """Send the prompt, if it can only be the first time, and return what is known then."""
        if not claim["is_here"]:
            return _seen(
                OrderState.NEVER_SENT,
                "the process that took the order ended, or its database stood still, before the "
                "prompt could be sent",
            )
        fresh = self.fresh.get(order["token"])
        if fresh is None:
            return interrupted(claim)
        if fresh.exchange is None:
            if not is_within(claim["at"], self._terms.send_seconds):
                return _seen(
                    OrderState.NEVER_SENT,
                    "this process stood still for too long before the prompt could be sent",
                )
            fresh.exchange = asyncio.create_task(self._initiate(fresh))
        return await self._answer(fresh, fresh.exchange, claim["at"])

    async def _answer(self, fresh: Fresh, exchange: asyncio.Task[Payment], sent_at: float) -> Seen:
        """Wait for the answer of the one request, and draw the conclusion."""
        try:
            payment = await asyncio.shield(exchange)
        except PayNexusError as error:
            return _seen_of_error(error, sent_at)
        except Exception as error:  # noqa: BLE001  # of nobody's foresight: a prompt may be out
            return _seen(
                OrderState.UNKNOWN, type(error).__name__, sent_at=sent_at, lost_at=time.time()
            )
        asked = {"amount": str(fresh.intent.amount)}  # what an answer leaves out is what was asked
        return {
            **_seen(OrderState.PENDING, sent_at=sent_at),
            **self._records.stored(payment, sealed_phone=fresh.intent.phone),
            "payment": {**kept(payment), **asked},
        }

    async def answer_of(self, order: Order, sent_at: float) -> Seen | None:
        """Return the answer that this process has, or waits for; `None` if it did not send."""
        fresh = self.fresh.get(order["token"])
        if fresh is None or fresh.exchange is None:
            return None
        return await self._answer(fresh, fresh.exchange, sent_at)

    async def _initiate(self, fresh: Fresh) -> Payment:
        intent = fresh.intent
        return await self._paynexus.initiate_payment(
            intent.amount,
            intent.phone,
            intent.description,
            allow_duplicate=fresh.allow_duplicate,
            timeout=self._terms.call_seconds,
        )


def interrupted(claim: Claim) -> Seen:
    """Return what is known of a prompt that may be out, and whose answer is not there."""
    return _seen(
        OrderState.UNKNOWN,
        "what was to send the prompt was interrupted, perhaps after it had",
        sent_at=claim["at"],
        lost_at=time.time(),
    )


def is_within(moment: float, seconds: float) -> bool:
    """Whether a moment is past, and at most so long ago."""
    return 0 <= time.time() - moment <= seconds


def _seen(
    state: OrderState,
    reason: str | None = None,
    *,
    sent_at: float | None = None,
    lost_at: float | None = None,
) -> Seen:
    return {
        "state": str(state),
        "payment": None,
        "sealed": None,
        "reason": reason,
        "sent_at": sent_at,
        "lost_at": lost_at,
        "looked_at": time.time(),
        "is_cut": False,
        "blind": 0,
        "owned": None,
    }


def _seen_of_error(error: PayNexusError, claimed_at: float) -> Seen:
    """Draw the conclusion of an initiate that brought no payment: what is not proven is unknown."""
    words = masked(error.message)
    if isinstance(error, APIStatusError):
        return _seen(OrderState.REJECTED, words)
    if isinstance(error, _NOTHING_WAS_SENT):
        return _seen(OrderState.NEVER_SENT, words)
    if isinstance(error, APIConnectionError) and error.never_sent:
        return _seen(OrderState.NEVER_SENT, words)
    sent_at, lost_at = claimed_at, time.time()
    if isinstance(error, PaymentOutcomeUnknown | PaymentMismatchError) and error.attempt:
        sent_at = error.attempt.sent_at.timestamp()
        if error.attempt.lost_at is not None:
            lost_at = error.attempt.lost_at.timestamp()
    return _seen(OrderState.UNKNOWN, words, sent_at=sent_at, lost_at=lost_at)
