"""A checkout in an aiohttp.web application: the client's life, the customer's stream, and webhooks.

    checkout = Checkout()  # PAYNEXUS_CHECKOUT_SECRET, PAYNEXUS_WEBHOOK_SECRET, the client's keys

    async def pay(request: web.Request) -> web.Response:
        payment = await request.config_dict[PAYNEXUS].initiate_payment(100, "0746990866")
        return checkout.accepted(payment)

    app = web.Application()
    app.router.add_post("/pay", pay)
    checkout.setup(app)

Each worker has a client of its own; whatever a stream needs is in its token, so that any worker
serves it. What a client remembers of open prompts, it remembers alone: a second prompt that another
worker sends is not refused.

With `durable=`, orders are asked for once by all workers together, and followed across crashes:

    def durable(paynexus: AsyncPayNexus) -> AbstractAsyncContextManager[DurablePayments]:
        DBOS(config=dbos_config("shop"))
        return launched(DurablePayments(paynexus, on_settled=hand_over))

    checkout = Checkout(durable=durable)

    async def pay(request: web.Request) -> web.Response:
        handle = await request.config_dict[DURABLE].pay("order-1", amount=100, phone="0746990866")
        return checkout.accepted(await handle.payment())

The application owns `DBOS`, and says in this function how it is made. `launched` launches it when
the payments are made and before they work, as it must be, and destroys it when they have stopped,
before the client is closed. What other cleanup contexts open is there when `durable` is called, if
they stand before `checkout.setup(app)`.
"""

from __future__ import annotations

from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Final

try:
    import anyio
    from aiohttp import web
    from aiohttp_sse import sse_response

    from . import _checkout
except ImportError as _error:
    _msg = f"{_error.name} is missing: pip install 'paynexus-async[aiohttp]'"
    raise ImportError(_msg, name=_error.name) from _error

from .client import AsyncPayNexus
from .exceptions import PayNexusError, WebhookSignatureError
from .webhooks import parse_webhook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from .durable import DurablePayments
    from .models import Payment
    from .webhooks import WebhookEvent

__all__ = ["DURABLE", "PAYNEXUS", "Checkout", "verified_event"]

PAYNEXUS: Final = web.AppKey("PAYNEXUS", AsyncPayNexus)
"""The application's client: `request.config_dict[PAYNEXUS]`, in sub-applications too."""

DURABLE: Final[web.AppKey[DurablePayments]] = web.AppKey("DURABLE")
"""The application's durable payments, where its checkout has some: `Checkout(durable=…)`."""

_CLOSING: Final = web.AppKey("_CLOSING", anyio.Event)


class Checkout(_checkout.Prepared):
    """What one application needs to take payments."""

    def setup(self, app: web.Application) -> None:
        """Add it to an application, which must not have been started.

        The application opens and closes the client, and what is durable. Errors of this package
        that its handlers raise are answered: with a problem (RFC 9457), or, what may still be paid,
        with 202; the log has the whole error. There are two routes more: `POST /paynexus/webhooks`,
        if there is a webhook secret, and `GET /paynexus/events/{token}`, the customer's stream.
        """
        app[_CHECKOUT] = self
        app.cleanup_ctx.append(self._opened)
        app.on_shutdown.append(_close_streams)
        app.middlewares.append(self._answer_errors)
        routes = web.Application()
        routes.router.add_get("/events/{token}", self._events)
        if self._webhook_secrets:
            routes.router.add_post("/webhooks", self._webhook)
        app.add_subapp("/paynexus", routes)

    def accepted(self, payment: Payment) -> web.Response:
        """Answer a customer whose prompt is on the way: 202, and a `token` that opens the stream.

        Raises:
            InvalidRequestError: the payment has no name by which it can be followed.
        """
        return _response(_checkout.accepted(payment, self._tokens))

    async def _opened(self, app: web.Application) -> AsyncIterator[None]:
        app[_CLOSING] = anyio.Event()
        async with self._open() as (app[PAYNEXUS], durable):
            if durable is not None:
                app[DURABLE] = durable
            yield

    @web.middleware
    async def _answer_errors(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except PayNexusError as error:
            answer = _checkout.answer_to(error, self._tokens, request.headers)
            route = request.match_info.route.resource
            name = None if route is None else route.canonical  # a URL holds a token
            _checkout.log_answer(answer, error, name)
            return _response(answer)

    async def _webhook(self, request: web.Request) -> web.Response:
        event = await self._verified(request)
        paynexus = request.config_dict[PAYNEXUS]
        durable = request.config_dict.get(DURABLE)
        return _response(await _checkout.take_event(paynexus, event, self._on_event, durable))

    async def _verified(self, request: web.Request) -> WebhookEvent:
        body = await _body(request)
        return parse_webhook(body, request.headers, [one.reveal() for one in self._webhook_secrets])

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Send a payment's events until it has ended, the browser has gone, or the server stops."""
        subject = self._tokens.read(request.match_info["token"])
        paynexus, seen = request.config_dict[PAYNEXUS], request.headers.get("Last-Event-ID")
        events = _checkout.follow(paynexus, subject, last_event_id=seen, max_wait=self._max_wait)
        async with (
            sse_response(request, ping_interval=_checkout.HEARTBEAT_SECONDS) as page,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(_cancel_after, page.wait, tasks.cancel_scope)
            tasks.start_soon(_cancel_after, request.config_dict[_CLOSING].wait, tasks.cancel_scope)
            with suppress(ConnectionResetError, TimeoutError):  # the browser has gone, or hangs
                async with aclosing(events):
                    async for event in events:
                        await page.send(
                            event.data, event.id, event.name, _checkout.RECONNECT_MILLISECONDS
                        )
            tasks.cancel_scope.cancel()
        return page


async def verified_event(request: web.Request) -> WebhookEvent:
    """Return what a delivery says to a route of your own, verified.

    Whatever error that route ends with, a wrong signature is answered with 401, and the rest so
    that the delivery comes again.

    Raises:
        WebhookSignatureError: it is not PayNexus's, or too old.
        WebhookPayloadError: it is PayNexus's, and cannot be understood.
        ConfigurationError: there is no webhook secret.
    """
    return await request.config_dict[_CHECKOUT]._verified(request)  # in this module


def _response(answer: _checkout.Answer) -> web.Response:
    return web.Response(status=answer.status, body=answer.body, headers=answer.headers)


async def _body(request: web.Request) -> bytes:
    try:
        return await _checkout.read_body(
            request.content.iter_any(), request.headers.get("Content-Length")
        )
    except (web.RequestPayloadError, ConnectionError):
        words = "the delivery did not arrive whole"
        raise WebhookSignatureError(words) from None


async def _close_streams(app: web.Application) -> None:
    app[_CLOSING].set()  # the server waits for its handlers, and a stream does not end by itself


async def _cancel_after(happens: Callable[[], Awaitable[None]], scope: anyio.CancelScope) -> None:
    await happens()
    scope.cancel()


_CHECKOUT: Final = web.AppKey("checkout", Checkout)
