"""A shop, as far as it takes money: it acts on what is known, and on nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paynexus_async import PaymentOutcomeUnknown, PaymentStillPending

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from paynexus_async import AsyncPayNexus

WORDS = {
    "completed": "Thank you!",
    "cancelled": "You declined; shall we try again?",
    "expired": "The request ran out.",
    "failed": "It did not go through; shall we try again?",
}


async def sell(paynexus: AsyncPayNexus, phone: str, price: int) -> AsyncIterator[str]:
    """Ask for the money; yield what the customer is told, late truth included."""
    try:
        payment = await paynexus.initiate_payment(price, phone)
        async for update in paynexus.watch(payment, revisions_for=600):
            if update.payment.is_terminal:
                yield WORDS[update.payment.status]
    except PaymentOutcomeUnknown:
        yield "Please check your phone; we are finding out."
    except PaymentStillPending:
        yield "We are still waiting."
