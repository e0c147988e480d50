"""A checkout in a FastAPI application: the client's life, the customer's stream, and webhooks.

    checkout = Checkout()  # PAYNEXUS_CHECKOUT_SECRET, PAYNEXUS_WEBHOOK_SECRET, the client's keys
    app = FastAPI()
    app.include_router(checkout.router)
    checkout.add_exception_handlers(app)

    @app.post("/pay")
    async def pay(order: Order, paynexus: PayNexusClient) -> Response:
        payment = await paynexus.initiate_payment(order.amount, order.phone, f"Order #{order.id}")
        return checkout.accepted(payment)

Each worker has a client of its own; whatever a stream needs is in its token, so that any worker
serves it. What a client remembers of open prompts, it remembers alone: a second prompt that another
worker sends is not refused.

With `durable=`, orders are asked for once by all workers together, and followed across crashes:

    def durable(paynexus: AsyncPayNexus) -> AbstractAsyncContextManager[DurablePayments]:
        DBOS(config=dbos_config("shop"))
        return launched(DurablePayments(paynexus, on_settled=hand_over))

    checkout = Checkout(durable=durable)

    @app.post("/pay")
    async def pay(order: Order, orders: DurableOrders) -> Response:
        handle = await orders.pay(order.id, amount=order.amount, phone=order.phone)
        return checkout.accepted(await handle.payment())

The application owns `DBOS`, and says in this function how it is made. `launched` launches it when
the payments are made and before they work, as it must be, and destroys it when they have stopped,
before the client is closed. A lifespan of the application's own is entered before the router's, too
early to launch `DBOS` in it; what it opens is there when `durable` is called.
"""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Final, NotRequired, TypedDict

try:
    import anyio
    from fastapi import APIRouter, Depends, FastAPI, Header, Request, Response
    from fastapi.requests import HTTPConnection
    from sse_starlette import EventSourceResponse, ServerSentEvent
    from starlette.requests import ClientDisconnect

    from . import _checkout
except ImportError as _error:
    _msg = f"{_error.name} is missing: pip install 'paynexus-async[fastapi]'"
    raise ImportError(_msg, name=_error.name) from _error

from .client import AsyncPayNexus
from .exceptions import ConfigurationError, PayNexusError, WebhookSignatureError
from .models import Payment
from .webhooks import WebhookEvent, parse_webhook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .durable import DurablePayments

__all__ = ["Checkout", "CheckoutState", "PayNexusClient", "VerifiedEvent"]

_FAREWELL_SECONDS: Final = 1.0


class CheckoutState(TypedDict):
    """What a checkout's lifespan adds to the state of each request.

    Attributes:
        paynexus: the application's client.
        paynexus_checkout: the checkout that opened it.
        paynexus_durable: the application's durable payments, if the checkout has `durable`.
    """

    paynexus: AsyncPayNexus
    paynexus_checkout: Checkout
    paynexus_durable: NotRequired[DurablePayments]


class Checkout(_checkout.Prepared):
    """What one application needs to take payments."""

    @cached_property
    def router(self) -> APIRouter:
        """To be included into the application.

        It opens and closes the client with it, beside the application's own lifespan, and has two
        routes: `POST /paynexus/webhooks`, if there is a webhook secret, and
        `GET /paynexus/events/{token}`, the customer's stream.
        """
        router = APIRouter(prefix="/paynexus", lifespan=self.lifespan, include_in_schema=False)
        router.add_api_route("/events/{token}", self._events, response_model=None)
        if self._webhook_secrets:
            router.add_api_route("/webhooks", self._webhook, methods=["POST"], response_model=None)
        return router

    @asynccontextmanager
    async def lifespan(self, _: object = None) -> AsyncIterator[CheckoutState]:
        """Open the client and what is durable, and close them at the end.

        The router brings it along; an application without the router includes it into its own
        lifespan, and yields its state: `yield {**state, "database": database}`.
        """
        async with self._open() as (paynexus, durable):
            state: CheckoutState = {"paynexus": paynexus, "paynexus_checkout": self}
            if durable is not None:
                state["paynexus_durable"] = durable
            yield state

    def accepted(self, payment: Payment) -> Response:
        """Answer a customer whose prompt is on the way: 202, and a `token` that opens the stream.

        Raises:
            InvalidRequestError: the payment has no name by which it can be followed.
        """
        return _response(_checkout.accepted(payment, self._tokens))

    def add_exception_handlers(self, app: FastAPI) -> None:
        """Answer the package's errors: with a problem (RFC 9457), or, what may be paid, with 202.

        Nothing of the inside is told; the log has it.
        """
        app.add_exception_handler(PayNexusError, self._error)

    async def _error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, PayNexusError)  # noqa: S101  # nosec B101  # as registered
        answer = _checkout.answer_to(error, self._tokens, request.headers)
        route = getattr(request.scope.get("route"), "path", None)  # a URL holds a token
        _checkout.log_answer(answer, error, route)
        return _response(answer)

    async def _events(
        self,
        request: Request,
        token: str,
        paynexus: PayNexusClient,
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> Response:
        try:
            subject = self._tokens.read(token)
        except PayNexusError as error:
            return await self._error(request, error)
        return _stream(paynexus, subject, last_event_id, self._max_wait)

    async def _webhook(self, request: Request, paynexus: PayNexusClient) -> Response:
        try:
            event = await self._verified(request)
        except PayNexusError as error:
            return await self._error(request, error)
        durable = _state(request).get("paynexus_durable")
        return _response(await _checkout.take_event(paynexus, event, self._on_event, durable))

    async def _verified(self, request: Request) -> WebhookEvent:
        try:
            body = await _checkout.read_body(
                request.stream(), request.headers.get("content-length")
            )
        except ClientDisconnect:
            words = "the delivery did not arrive whole"
            raise WebhookSignatureError(words) from None
        return parse_webhook(body, request.headers, [one.reveal() for one in self._webhook_secrets])


def _response(answer: _checkout.Answer) -> Response:
    return Response(answer.body, answer.status, answer.headers)


def _stream(
    paynexus: AsyncPayNexus,
    subject: _checkout.Subject,
    last_event_id: str | None,
    max_wait: float,
) -> EventSourceResponse:
    """Send a payment's events until it has ended, the browser has gone, or the server stops."""
    sending, received = anyio.create_memory_object_stream[ServerSentEvent](0)
    stopping = anyio.Event()

    async def send() -> None:
        # In the response's own task group; a stream that is cut would be logged as an error.
        async with (
            sending,
            aclosing(
                _checkout.follow(paynexus, subject, last_event_id=last_event_id, max_wait=max_wait)
            ) as events,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(_cancel_when, stopping, tasks.cancel_scope)
            await sending.send(ServerSentEvent(retry=_checkout.RECONNECT_MILLISECONDS))
            async for event in events:
                await sending.send(ServerSentEvent(event.data, event=event.name, id=event.id))
            tasks.cancel_scope.cancel()

    async def content() -> AsyncIterator[ServerSentEvent]:
        async with received:
            async for event in received:
                yield event

    return EventSourceResponse(
        content(),
        data_sender_callable=send,
        ping=_checkout.HEARTBEAT_SECONDS,
        shutdown_event=stopping,
        shutdown_grace_period=_FAREWELL_SECONDS,
    )


async def _cancel_when(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


async def _client(connection: HTTPConnection) -> AsyncPayNexus:  # a thread would run it else
    return _state(connection)["paynexus"]


async def _durable(connection: HTTPConnection) -> DurablePayments:
    durable = _state(connection).get("paynexus_durable")
    if durable is None:
        words = "the checkout follows no payments across crashes: give it durable="
        raise ConfigurationError(words)
    return durable


async def _event(request: Request) -> WebhookEvent:
    return await _state(request)["paynexus_checkout"]._verified(request)


def _state(connection: HTTPConnection) -> CheckoutState:
    state: CheckoutState = connection.scope.get("state", {})
    if "paynexus" not in state:
        words = (
            "the application runs without its checkout: include checkout.router, or yield the "
            "state of checkout.lifespan from its lifespan"
        )
        raise ConfigurationError(words)
    return state


PayNexusClient = Annotated[AsyncPayNexus, Depends(_client)]
"""A parameter of this type is the application's client."""

if TYPE_CHECKING:
    DurableOrders = Annotated[DurablePayments, Depends(_durable)]
    """A parameter of this type is the application's durable payments: `Checkout(durable=…)`."""
else:

    def __getattr__(name: str) -> object:
        """Make `DurableOrders` for who asks for it: nobody else loads an engine."""
        if name != "DurableOrders":
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        from .durable import DurablePayments

        return Annotated[DurablePayments, Depends(_durable)]


VerifiedEvent = Annotated[WebhookEvent, Depends(_event)]
"""A parameter of this type is a delivery whose signature is right, for a route of your own.

The signature is that of the checkout's webhook secret, over the bytes as they came. Where it is
wrong, or the delivery cannot be understood, the route is not called, and the checkout's exception
handlers answer.
"""
