"""What `paynexus webhooks listen` serves: it verifies a delivery, tells it, and passes it on."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Final

import attrs
import httpx

from .._discreet import quoted
from ..exceptions import WebhookPayloadError, WebhookSignatureError
from ..webhooks import BODY_BYTES_MAX, WebhookEvent, parse_webhook
from ._report import document_of, line_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence

    from .._wire import Secret

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

__all__ = ["Heard", "Listener"]

_FORWARD_SECONDS: Final = 10.0
_OF_ONE_CONNECTION: Final = frozenset(
    {
        b"connection",
        b"content-length",
        b"host",
        b"keep-alive",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)


@attrs.frozen(kw_only=True, repr=False)
class Heard:
    """One request to the listener, and what became of it.

    Attributes:
        status_code: what was answered.
        event: what a verified delivery says; `None` if there is none.
        words: why it was refused, or not passed on; empty if all is well.
        forwarded: what the application answered; `None` if it was not asked, or did not.
    """

    status_code: int
    event: WebhookEvent | None = None
    words: str = ""
    forwarded: int | None = None

    def __str__(self) -> str:
        """Tell it in one line, with phones masked."""
        parts = [time.strftime("%H:%M:%S"), str(self.status_code)]
        if self.event is not None:
            parts.append(quoted(self.event.name))
            if self.event.payment is not None:
                parts.append(line_of(self.event.payment))
        if self.forwarded is not None:
            parts.append(f"→ {self.forwarded}")
        return "  ".join(filter(None, [*parts, self.words]))

    def as_json(self) -> str:
        """Tell it as one JSON object."""
        document: dict[str, object] = {"event": "delivery", "status_code": self.status_code}
        if self.event is not None:
            document["name"] = quoted(self.event.name)
            document["payment"] = document_of(self.event.payment) if self.event.payment else None
        if self.forwarded is not None:
            document["forwarded"] = self.forwarded
        if self.words:
            document["message"] = self.words
        return json.dumps(document, ensure_ascii=False)

    @property
    def answer(self) -> Mapping[str, object]:
        """The body of the answer, in the documented form; 0 acknowledges."""
        is_taken = self.status_code == 200
        return {
            "ResultCode": 0 if is_taken else 1,
            "ResultDesc": "Accepted" if is_taken else self.words,
        }


class Listener:
    """An ASGI application that takes deliveries at any path."""

    def __init__(self, secret: Secret, tell: Callable[[Heard], None], forward: str | None) -> None:
        """Listen.

        Args:
            secret: the webhook's.
            tell: hears of each request.
            forward: a URL that verified deliveries are passed on to, as they came.
        """
        self._secret = secret
        self._tell = tell
        self._forward = forward
        self._ssl = httpx.create_ssl_context(trust_env=False) if forward else None  # slow: once

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        heard = await self._hear(scope, receive)
        self._tell(heard)
        body = json.dumps(heard.answer).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": heard.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _hear(self, scope: Message, receive: Receive) -> Heard:
        if scope["method"] != "POST":
            return Heard(status_code=405, words="deliveries are sent with POST")
        body = await _body_of(receive)
        if len(body) > BODY_BYTES_MAX:
            return Heard(status_code=413, words=f"larger than {BODY_BYTES_MAX:,} bytes")
        event, words = None, ""
        try:
            event = parse_webhook(body, _joined(scope["headers"]), self._secret.reveal())
        except WebhookSignatureError as error:
            return Heard(status_code=401, words=str(error))
        except WebhookPayloadError as error:  # it is PayNexus's all the same
            words = str(error)
        if self._forward is None:
            return Heard(status_code=200, event=event, words=words)
        heard = await self._pass_on(self._forward, body, scope["headers"])
        return attrs.evolve(heard, event=event, words=heard.words or words)

    async def _pass_on(
        self, url: str, body: bytes, headers: Sequence[tuple[bytes, bytes]]
    ) -> Heard:
        """Let the application have it; what it does not take is not acknowledged."""
        kept = [(name, value) for name, value in headers if name not in _OF_ONE_CONNECTION]
        try:
            async with (
                httpx.AsyncClient(
                    verify=self._ssl or True, trust_env=False, timeout=_FORWARD_SECONDS
                ) as client,
                client.stream("POST", url, content=body, headers=kept) as response,
            ):
                code = response.status_code
        except httpx.HTTPError as error:
            reason = f"{type(error).__name__}: {error}".removesuffix(": ")
            words = f"not acknowledged: {quoted(url)} does not answer ({quoted(reason)})"
            return Heard(status_code=502, words=words)
        if not 200 <= code < 300:
            words = "not acknowledged: the application did not take it"
            return Heard(status_code=502, words=words, forwarded=code)
        return Heard(status_code=200, forwarded=code)


async def _body_of(receive: Receive) -> bytes:
    """Return the body, or a little more of it than is taken."""
    body, more = b"", True
    while more and len(body) <= BODY_BYTES_MAX:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _joined(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """Join headers of one name: of two signatures, none is the right one."""
    joined: dict[str, str] = {}
    for name, value in headers:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        joined[key] = f"{joined[key]}, {text}" if key in joined else text
    return joined
