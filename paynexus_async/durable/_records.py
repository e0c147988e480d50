"""Orders and payments as they are stored, without a phone in the clear, and as values again."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from ._orders import Order, OrderState, Outcome, Seen, Told, kept, restored

if TYPE_CHECKING:
    from .._seal import Seal
    from ..models import Payment

__all__ = ["Records", "Stored"]


class Stored(TypedDict):
    """What is stored of a payment: see `Seen`."""

    payment: dict[str, str | None] | None
    sealed: str | None


class Records:
    """Stores and restores, with one seal."""

    def __init__(self, seal: Seal) -> None:
        """Keep the seal."""
        self._seal = seal

    def phone_of(self, order: Order) -> str | None:
        """Return whom an order was asked of, where that is known."""
        return self._seal.open(order["sealed"]).get("phone")

    def payment_of(self, seen: Seen) -> Payment:
        """Return the payment that is known."""
        return restored(seen["payment"] or {}, self._seal.open(seen["sealed"]))

    def outcome_of(self, order: Order, seen: Seen, told: Told) -> Outcome:
        """Return what the handler is told."""
        before = told["state"]
        return Outcome(
            order_id=order["order_id"],
            attempt=order["attempt"],
            state=OrderState(seen["state"]),
            amount=order["amount"],
            phone=order["phone"],
            payment=self.payment_of(seen) if seen["payment"] else None,
            reason=seen["reason"],
            revision=told["revision"],
            overtakes=None if before is None else OrderState(before),
        )

    def described(self, order: Order) -> str | None:
        """Return what its customer sees, where that is known."""
        return order["description"] or self._seal.open(order["sealed"]).get("description")

    def stored(self, payment: Payment, *, sealed_phone: str | None) -> Stored:
        """Return what is stored of a payment; its phone is the one it was asked of, if masked."""
        phone = payment.phone if payment.phone and "*" not in payment.phone else sealed_phone
        return {
            "payment": kept(payment),
            "sealed": self._seal.shut(phone=phone, checkout_request_id=payment.checkout_request_id),
        }
