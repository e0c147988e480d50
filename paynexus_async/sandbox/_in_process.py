"""The ledger as a transport of httpx's: no socket, and it can lose, refuse or not be reached."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import httpx
from anyio.lowlevel import checkpoint

from ._engine import Ledger, Reply, Request

if TYPE_CHECKING:
    from ._virtual_time import VirtualTime

__all__ = ["INITIATE", "InProcess"]

INITIATE: Final = "/mpesa/payment/initiate"
_BASE: Final = "/api"


class InProcess(httpx.AsyncBaseTransport):
    """Answers from a ledger, and tells httpcore's trace, as a connection would.

    From the trace the client knows what has left: so what is lost here is unknown to it, and what
    was never sent is known to be.
    """

    def __init__(self, ledger: Ledger, time: VirtualTime) -> None:
        """Answer from *ledger*, and let the loops that use it keep to *time*."""
        self.fates: Final[deque[Reply | None]] = deque()
        """What becomes of the next initiates: an answer instead of the ledger's, or (`None`) the
        ledger's, lost."""
        self.reachable = True
        self.notes: Final[list[tuple[float, str]]] = []
        self._ledger = ledger
        self._time = time

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        trace = request.extensions.get("trace")
        path = request.url.path.removeprefix(_BASE)
        self._connect(request, path)
        if trace is not None:
            await trace("http11.send_request_headers.started", {"request": request})
        body = await request.aread()
        planned = bool(self.fates) and path == INITIATE and request.method == "POST"
        refusal = self.fates.popleft() if planned else None
        if refusal is None:
            reply = self._ledger.handle(
                Request(
                    method=request.method,
                    path=path,
                    key=request.headers.get("x-api-key"),
                    body=body,
                    query=dict(request.url.params),
                )
            )
        else:
            reply = refusal
            self._note(f"{reply.status_code}  {request.method} {path}  as ordered; no prompt")
        await checkpoint()
        if planned and refusal is None:
            self._note(f"the answer to {request.method} {path} was lost")
            msg = "the answer was lost, as ordered"
            raise httpx.ReadError(msg, request=request)
        return httpx.Response(
            reply.status_code,
            headers=dict(reply.headers),
            json=dict(reply.document),
            request=request,
        )

    def _connect(self, request: httpx.Request, path: str) -> None:
        reason = "" if self.reachable else "connection refused, as ordered"
        try:
            self._time.adopt()
        except RuntimeError as error:
            reason = str(error)
        if reason:
            self._note(f"no connection for {request.method} {path}; nothing was sent")
            raise httpx.ConnectError(reason, request=request)

    def _note(self, words: str) -> None:
        self.notes.append((self._time(), words))
