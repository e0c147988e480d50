"""A shop that is paid by M-PESA: with its keys in the environment, this is all of it."""

import secrets
from pathlib import Path

from aiohttp import web

from paynexus_async import AsyncPayNexus, InvalidRequestError, WebhookEvent
from paynexus_async.aiohttp import PAYNEXUS, Checkout

PAGE = Path(__file__).parents[1] / "checkout_page"


async def hand_over(paynexus: AsyncPayNexus, event: WebhookEvent) -> None:
    """Act on a delivery, which may come twice: on what is true, not on what it says."""
    if event.name == "payment.completed" and event.reference is not None:
        payment = await paynexus.get_payment_status(event.reference)
        if payment.succeeded:
            print("paid:", payment.receipt, flush=True)


checkout = Checkout(on_event=hand_over)
routes = web.RouteTableDef()


@routes.post("/pay")
async def pay(request: web.Request) -> web.Response:
    """Ask for the money; the page follows the payment by the token of this answer."""
    try:
        order = await request.json()  # a real shop takes the amount from its own order
        amount, phone = order["amount"], order["phone"]
    except (LookupError, TypeError, ValueError) as error:
        msg = "an order is a JSON object with a phone and an amount"
        raise InvalidRequestError(msg) from error  # `checkout` answers 422 and says it
    description = f"Order #{secrets.token_hex(3)}"  # its own: a lost payment is found by it
    payment = await request.app[PAYNEXUS].initiate_payment(amount, phone, description)
    return checkout.accepted(payment)


@routes.get("/")
async def page(_: web.Request) -> web.FileResponse:
    """Show the page, whose files are beside it."""
    return web.FileResponse(PAGE / "index.html")


routes.static("/", PAGE)


def create_app(_: list[str] | None = None) -> web.Application:
    """Put it together: `python -m aiohttp.web examples.checkout_aiohttp.app:create_app`."""
    app = web.Application()
    checkout.setup(app)
    app.add_routes(routes)
    return app
