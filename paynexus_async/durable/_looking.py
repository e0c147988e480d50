"""Finding out where an order's payment stands: by its name, or in the account's list."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import anyio
import attrs

from ..exceptions import (
    APIError,
    PaymentMismatchError,
    PaymentOutcomeUnknown,
    PaymentStillPending,
    PayNexusError,
    QuotaExhaustedError,
)
from ..models import Attempt, Expectation, Payment, PaymentFound
from ._orders import Order, OrderState, Seen, masked, state_of
from ._sending import is_within

if TYPE_CHECKING:
    from ..client import AsyncPayNexus
    from ._records import Records
    from ._sending import Prompts
    from ._terms import Terms

__all__ = ["Looks", "lost"]

_BURST_AGE_SECONDS: Final = 300.0
"""How old a payment may be for somebody to be waiting for it: later it is looked at once a hop."""

_OLD_SECONDS: Final = 5.0
"""After the last look: a burst, which begins as if nothing was to be seen yet, comes after one."""

_UNKNOWN: Final = str(OrderState.UNKNOWN)

_SETTLED: Final = frozenset(
    {
        OrderState.COMPLETED,
        OrderState.REJECTED,
        OrderState.NEVER_SENT,
        OrderState.WRITTEN_OFF,
    }
)


class Looks:
    """Looks at payments, each for a while.

    Attributes:
        bursts: those that are being followed, each as what cuts it.
        is_closing: whether nothing is followed any more.
    """

    def __init__(
        self, paynexus: AsyncPayNexus, records: Records, prompts: Prompts, terms: Terms
    ) -> None:
        """Keep what looks."""
        self.bursts: Final[set[anyio.CancelScope]] = set()
        self.is_closing = False
        self._paynexus = paynexus
        self._records = records
        self._prompts = prompts
        self._terms = terms

    def open(self) -> None:
        """Begin, or begin again."""
        self.is_closing = False

    def close(self) -> None:
        """Cut what is being followed."""
        self.is_closing = True
        for scope in self.bursts:
            scope.cancel()

    async def look(self, order: Order, seen: Seen) -> Seen:
        """Find out more about a payment, if there is more to find out."""
        state = OrderState(seen["state"])
        # It waited as a row, or crashed; where nothing is followed any more, it goes on to wait.
        is_old = not self.is_closing and not is_within(seen["looked_at"], _OLD_SECONDS)
        seen, met_error = {**seen, "is_cut": False, "looked_at": time.time()}, False
        if state in _SETTLED:
            return seen
        try:
            if seen["payment"] is None:
                seen = await self._find(order, seen)
            elif is_old or state is not OrderState.PENDING or _age(seen) > _BURST_AGE_SECONDS:
                seen = await self._look_at_once(order, seen)
            if seen["state"] == OrderState.PENDING and _age(seen) <= _BURST_AGE_SECONDS:
                seen = await self._burst(order, seen)
        except PaymentMismatchError as error:
            seen = {**seen, "state": _UNKNOWN, "reason": masked(error.message)}
        except PayNexusError as error:  # nothing new, but why
            seen, met_error = {**seen, "reason": masked(error.message)}, True
        except Exception as error:  # noqa: BLE001  # of nobody's foresight: look again later
            seen, met_error = {**seen, "reason": type(error).__name__}, True
        if seen["state"] == OrderState.PENDING and _age(seen) > self._terms.watch_seconds:
            seen = {**seen, "state": _UNKNOWN, "reason": "it has not ended in all the time"}
        seen = {**seen, "looked_at": time.time()}
        was_to_be_last = _age(seen) >= self._terms.watch_seconds
        return {**seen, "blind": seen["blind"] + 1 if met_error and was_to_be_last else 0}

    async def _find(self, order: Order, seen: Seen) -> Seen:
        """Look for the payment of a prompt whose answer was lost, in the account's list."""
        answered = await self._prompts.answer_of(order, seen["sent_at"] or time.time())
        if answered is not None and answered["state"] != OrderState.UNKNOWN:
            self._prompts.fresh.pop(order["token"], None)  # it was not lost, but not written
            return {**answered, "owned": seen["owned"]}
        fresh = self._prompts.fresh.get(order["token"])
        phone = self._records.phone_of(order) or (fresh and fresh.intent.phone)
        if not phone:
            words = "without a secret its phone is not stored, so its payment cannot be looked for"
            return {**seen, "reason": words}
        description = fresh.intent.description if fresh else self._records.described(order)
        found = await self._paynexus.find_payment(
            lost(order, seen, phone, description), timeout=self._terms.call_seconds
        )
        if not isinstance(found, PaymentFound):
            return {**seen, "reason": masked(found.reason)}
        payment = found.payment
        self._prompts.fresh.pop(order["token"], None)
        return {
            **seen,
            **self._records.stored(payment, sealed_phone=phone),
            "state": str(state_of(payment)),
            "reason": masked(payment.failure_reason),
        }

    async def _look_at_once(self, order: Order, seen: Seen) -> Seen:
        try:
            return await self._look_once(order, seen)
        except QuotaExhaustedError:
            if seen["state"] == OrderState.PENDING and _age(seen) <= _BURST_AGE_SECONDS:
                return seen  # the burst has it asked as soon as there is room
            raise

    async def _look_once(self, order: Order, seen: Seen) -> Seen:
        known = self._records.payment_of(seen)
        if known.reference:
            observed = await self._paynexus.get_payment_status(
                known.reference, timeout=self._terms.call_seconds
            )
        elif known.checkout_request_id:
            observed = await self._paynexus.get_payment_status_by_checkout_id(
                known.checkout_request_id, timeout=self._terms.call_seconds
            )
        else:
            words = "without a secret the payment's only name is not stored"
            return {**seen, "state": _UNKNOWN, "reason": words}
        return self._with(order, seen, known, observed)

    async def _burst(self, order: Order, seen: Seen) -> Seen:
        """Follow a payment as whoever waits for it does, for a while."""
        known = self._records.payment_of(seen)
        if not (known.reference or known.checkout_request_id):
            return await self._look_once(order, seen)
        if self.is_closing:
            return {**seen, "is_cut": True}
        observed: Payment | None = None
        with anyio.CancelScope() as scope:
            self.bursts.add(scope)
            try:
                observed = await self._paynexus.wait_for_completion(
                    known, max_wait=self._terms.burst_seconds
                )
            except PaymentStillPending as error:
                words = error.last_error.message if error.last_error else None
                seen = {**seen, "reason": masked(words)}
                observed = error.payment or known
            finally:
                self.bursts.discard(scope)
        if observed is None:
            return {**seen, "is_cut": True}
        return self._with(order, seen, known, observed)

    def _with(self, order: Order, seen: Seen, known: Payment, observed: Payment) -> Seen:
        """Add what was observed to what is known, if it is about what was asked."""
        expected = attrs.evolve(Expectation.of(known), amount=order["amount"])
        expected.check(observed)
        merged, _ = known.merge(observed)
        state = state_of(merged)
        return {
            **seen,
            **self._records.stored(merged, sealed_phone=known.phone),
            "state": str(state),
            "reason": masked(merged.failure_reason) if state.is_end else seen["reason"],
        }


def lost(order: Order, seen: Seen, phone: str, description: str | None) -> PaymentOutcomeUnknown:
    """Return the error of a prompt whose answer was lost, as `find_payment` takes it."""
    words = seen["reason"] or "the answer was lost"
    sent_at, lost_at = seen["sent_at"], seen["lost_at"]
    attempt = Attempt(
        amount=order["amount"],
        phone=phone,
        description=description,
        sent_at=_moment(seen["looked_at"] if sent_at is None else sent_at),
        lost_at=None if lost_at is None else _moment(lost_at),
    )
    return PaymentOutcomeUnknown(
        f"order {order['order_id']}: {words}",
        amount=order["amount"],
        phone=phone,
        error=APIError(words),
        attempt=attempt,
    )


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _age(seen: Seen) -> float:
    return time.time() - (seen["sent_at"] or 0.0)
