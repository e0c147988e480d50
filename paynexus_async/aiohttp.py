"""A checkout in aiohttp.web: one client, webhooks, a stream for each payment, honest answers.

    async def pay(request: web.Request) -> web.Response:
        payment = await request.config_dict[PAYNEXUS].initiate_payment(100, "0746990866")
        return accepted(request, payment)  # a JSON object with a token, for this customer's page

    app = web.Application()
    setup(app, secret=os.environ["CHECKOUT_SECRET"], webhook_secret="whsec_…")
    app.router.add_post("/pay", pay)

The page follows its payment at `/paynexus/stream/TOKEN`; PayNexus delivers to `/paynexus/webhook`.
"""

from __future__ import annotations

import logging
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Final

import anyio
from aiohttp import web
from aiohttp_sse import sse_response

from . import _checkout
from ._checkout import Answer, Subject, Tokens
from ._wire import Secret
from .client import AsyncPayNexus
from .exceptions import ConfigurationError, PayNexusError, WebhookPayloadError
from .webhooks import parse_webhook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from .webhooks import WebhookEvent

__all__ = ["PAYNEXUS", "accepted", "setup"]

PAYNEXUS: Final = web.AppKey("PAYNEXUS", AsyncPayNexus)
"""The application's client: `request.config_dict[PAYNEXUS]`, in sub-applications too."""

_TOKENS: Final = web.AppKey("_TOKENS", Tokens)
_CLOSING: Final = web.AppKey("_CLOSING", anyio.Event)
_logger: Final = logging.getLogger("paynexus_async")


def setup(
    app: web.Application,
    *,
    secret: str | Iterable[str],
    webhook_secret: str | Iterable[str] | None = None,
    on_event: Callable[[WebhookEvent], Awaitable[None]] | None = None,
    client: Callable[[], AsyncPayNexus] = AsyncPayNexus,
    prefix: str = "/paynexus",
) -> None:
    """Give an application its client, its webhook, its streams, and answers to the errors.

    Args:
        app: whose handlers find the client at `PAYNEXUS`, while it runs. Errors of this package
            that its handlers raise are answered: as problems (RFC 9457), or, where a payment may
            still be made, as `accepted`.
        secret: signs the customers' tokens: at least 32 characters, the same in all workers; or
            several, while one replaces another.
        webhook_secret: `whsec_…`, or several; left out, there is no webhook.
        on_event: told of each verified delivery, after all who wait for its payment. Deliveries
            repeat, and say what was true once: ask for the status before you act on one. What
            it raises is logged and answered with 500, so that the delivery comes again.
        client: makes the client when the application starts, inside its event loop; left out, with
            the keys of the environment.
        prefix: below it are `webhook` and `stream/TOKEN`.

    Raises:
        ConfigurationError: a secret is missing, blank or too short.
    """
    app[_TOKENS] = Tokens(secret)
    app.cleanup_ctx.append(_opened(client))
    app.on_shutdown.append(_close_streams)
    app.middlewares.append(_answering)
    routes = [web.get("/stream/{token}", _stream, allow_head=False)]
    if webhook_secret is not None:
        routes.append(web.post("/webhook", _webhook(_wrapped(webhook_secret), on_event)))
    elif on_event is not None:
        msg = "on_event hears of webhooks: give their webhook_secret (whsec_…) too"
        raise ConfigurationError(msg)
    checkout = web.Application()
    checkout.add_routes(routes)
    app.add_subapp(prefix, checkout)


def accepted(request: web.Request, subject: Subject) -> web.Response:
    """Answer a customer whose prompt is, or may be, on the phone: 202, and how to follow it.

    Args:
        request: what is answered.
        subject: the payment, or the `PaymentOutcomeUnknown` of a prompt whose answer was lost.
    """
    return _response(_checkout.accepted(subject, request.config_dict[_TOKENS]))


def _opened(
    client: Callable[[], AsyncPayNexus],
) -> Callable[[web.Application], AsyncIterator[None]]:
    async def opened(app: web.Application) -> AsyncIterator[None]:
        app[_CLOSING] = anyio.Event()
        async with client() as app[PAYNEXUS]:
            yield

    return opened


async def _close_streams(app: web.Application) -> None:
    app[_CLOSING].set()  # the server waits for its handlers, and streams do not end by themselves


@web.middleware
async def _answering(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except PayNexusError as error:
        answer = _checkout.answer_to(error, request.config_dict[_TOKENS])
        _logger.warning("a checkout was answered with %s: %s", answer.status, error.message)
        return _response(answer)


def _response(answer: Answer) -> web.Response:
    return web.Response(status=answer.status, body=answer.body, headers=answer.headers)


# --- Webhooks


def _wrapped(secret: str | Iterable[str]) -> tuple[Secret, ...]:
    secrets = tuple(map(Secret, (secret,) if isinstance(secret, str) else secret))
    if not secrets or not all(one.reveal().strip() for one in secrets):
        msg = "a webhook secret (whsec_…) is blank: no delivery is believed without one"
        raise ConfigurationError(msg)
    return secrets


def _webhook(
    secrets: Iterable[Secret], on_event: Callable[[WebhookEvent], Awaitable[None]] | None
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def webhook(request: web.Request) -> web.Response:
        body = await _checkout.read_body(
            request.content.iter_any(), request.headers.get("Content-Length")
        )
        try:
            event = parse_webhook(body, request.headers, [one.reveal() for one in secrets])
        except WebhookPayloadError as error:  # it would be no clearer if it came again
            _logger.warning("a webhook was acknowledged and ignored: %s", error.message)
            return web.json_response(dict(_checkout.ACKNOWLEDGEMENT))
        paynexus = request.config_dict[PAYNEXUS]
        try:
            return web.json_response(dict(await _checkout.take_event(paynexus, event, on_event)))
        except Exception as error:
            # Answered as errors are, some would acknowledge what was not taken.
            msg = "a webhook was not acknowledged, and comes again: its handler failed"
            raise RuntimeError(msg) from error

    return webhook


# --- Streams


async def _stream(request: web.Request) -> web.StreamResponse:
    """Tell a payment's customer how it goes, until it ends, they leave, or the server stops."""
    subject = request.config_dict[_TOKENS].read(request.match_info["token"])
    events = _checkout.follow(
        request.config_dict[PAYNEXUS], subject, last_event_id=request.headers.get("Last-Event-ID")
    )
    async with (
        sse_response(request, ping_interval=_checkout.HEARTBEAT_SECONDS) as page,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(_cancel_after, page.wait, tasks.cancel_scope)  # it was left
        tasks.start_soon(_cancel_after, request.config_dict[_CLOSING].wait, tasks.cancel_scope)
        with suppress(ConnectionResetError, TimeoutError):
            async with aclosing(events):
                async for event in events:
                    await page.send(
                        event.data, event.id, event.name, _checkout.RECONNECT_MILLISECONDS
                    )
        tasks.cancel_scope.cancel()
    return page


async def _cancel_after(
    happens: Callable[[], Awaitable[None]], cancel_scope: anyio.CancelScope
) -> None:
    await happens()
    cancel_scope.cancel()
