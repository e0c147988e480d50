"""The shop, and nothing lost: killed at any moment and started anew, it goes on with its orders."""

import os
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from dbos import DBOS
from fastapi import FastAPI, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel

from paynexus_async import AsyncPayNexus
from paynexus_async.durable import DurablePayments, Outcome, dbos_config, launched
from paynexus_async.fastapi import Checkout, DurableOrders

PAGE = Path(__file__).parents[1] / "checkout_page"


class Order(BaseModel):
    """What the page sends. A real shop has the id and the amount in its own books."""

    id: str
    phone: str
    amount: int
    again: bool = False  # another attempt, after one that is known to have failed


async def hand_over(outcome: Outcome) -> None:
    """Act on the end of an order: at least once, whatever happens to this process."""
    if outcome.succeeded and outcome.payment is not None:
        print("paid:", outcome.order_id, outcome.payment.receipt, flush=True)


def durable(paynexus: AsyncPayNexus) -> AbstractAsyncContextManager[DurablePayments]:
    """Make the engine and the payments, to be launched with the application."""
    DBOS(config=dbos_config("shop", os.environ.get("SHOP_DATABASE", "sqlite:///shop.sqlite")))
    return launched(DurablePayments(paynexus, on_settled=hand_over))


checkout = Checkout(durable=durable)
app = FastAPI()
app.include_router(checkout.router)
checkout.add_exception_handlers(app)


@app.post("/pay")
async def pay(order: Order, orders: DurableOrders) -> Response:
    """Ask for the money, once for each order; the page follows by the token of this answer."""
    handle = await orders.pay(order.id, amount=order.amount, phone=order.phone, again=order.again)
    return checkout.accepted(await handle.payment())


app.mount("/", StaticFiles(directory=PAGE, html=True))
