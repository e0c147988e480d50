"""A shop that is paid by M-PESA: with its keys in the environment, this is all of it."""

import secrets
from pathlib import Path

from fastapi import FastAPI, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel

from paynexus_async import AsyncPayNexus, WebhookEvent
from paynexus_async.fastapi import Checkout, PayNexusClient

PAGE = Path(__file__).parents[1] / "checkout_page"


class Order(BaseModel):
    """What the page sends. A real shop takes the amount from its own order, not from a browser."""

    phone: str
    amount: int


async def hand_over(paynexus: AsyncPayNexus, event: WebhookEvent) -> None:
    """Act on a delivery, which may come twice: on what is true, not on what it says."""
    if event.name == "payment.completed" and event.reference is not None:
        payment = await paynexus.get_payment_status(event.reference)
        if payment.succeeded:
            print("paid:", payment.receipt, flush=True)


checkout = Checkout(on_event=hand_over)
app = FastAPI()
app.include_router(checkout.router)
checkout.add_exception_handlers(app)


@app.post("/pay")
async def pay(order: Order, paynexus: PayNexusClient) -> Response:
    """Ask for the money; the page follows the payment by the token of this answer."""
    description = f"Order #{secrets.token_hex(3)}"  # its own: a lost payment is found by it
    payment = await paynexus.initiate_payment(order.amount, order.phone, description)
    return checkout.accepted(payment)


app.mount("/", StaticFiles(directory=PAGE, html=True))
