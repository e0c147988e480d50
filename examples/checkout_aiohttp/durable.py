"""The shop, and nothing lost: killed at any moment and started anew, it goes on with its orders."""

import os
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from aiohttp import web
from dbos import DBOS

from paynexus_async import AsyncPayNexus, InvalidRequestError
from paynexus_async.aiohttp import DURABLE, Checkout
from paynexus_async.durable import DurablePayments, Outcome, dbos_config, launched

PAGE = Path(__file__).parents[1] / "checkout_page"


async def hand_over(outcome: Outcome) -> None:
    """Act on the end of an order: at least once, whatever happens to this process."""
    if outcome.succeeded and outcome.payment is not None:
        print("paid:", outcome.order_id, outcome.payment.receipt, flush=True)


def durable(paynexus: AsyncPayNexus) -> AbstractAsyncContextManager[DurablePayments]:
    """Make the engine and the payments, to be launched with the application."""
    DBOS(config=dbos_config("shop", os.environ.get("SHOP_DATABASE", "sqlite:///shop.sqlite")))
    return launched(DurablePayments(paynexus, on_settled=hand_over))


checkout = Checkout(durable=durable)
routes = web.RouteTableDef()


@routes.post("/pay")
async def pay(request: web.Request) -> web.Response:
    """Ask for the money, once for each order; the page follows by the token of this answer."""
    try:
        order = await request.json()  # a real shop has the id and the amount in its own books
        order_id, amount, phone = order["id"], order["amount"], order["phone"]
        again = order.get("again", False)  # another attempt, after one that is known to have failed
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        msg = "an order is a JSON object with an id, a phone and an amount"
        raise InvalidRequestError(msg) from error  # `checkout` answers 422 and says it
    handle = await request.app[DURABLE].pay(order_id, amount=amount, phone=phone, again=again)
    return checkout.accepted(await handle.payment())


@routes.get("/")
async def page(_: web.Request) -> web.FileResponse:
    """Show the page, whose files are beside it."""
    return web.FileResponse(PAGE / "index.html")


routes.static("/", PAGE)


def create_app(_: list[str] | None = None) -> web.Application:
    """Put it together: `python -m aiohttp.web examples.checkout_aiohttp.durable:create_app`."""
    app = web.Application()
    checkout.setup(app)
    app.add_routes(routes)
    return app
