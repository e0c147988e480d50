"""The ledger as a transport of httpx's: no socket, and every fault that one could have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio
import httpx
from anyio.lowlevel import checkpoint

from ._engine import Ledger, Request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ._faults import Strike, Told
    from ._virtual_time import VirtualTime

__all__ = ["InProcess"]

_BASE: Final = "/api"


class InProcess(httpx.AsyncBaseTransport):
    """Answers from a ledger, and tells httpcore's trace, as a connection would.

    From the trace the client knows what has left: so what is lost here is unknown to it, and what
    was never sent is known to be.
    """

    def __init__(self, ledger: Ledger, time: VirtualTime) -> None:
        """Answer from *ledger*, and let the loops that use it keep to *time*."""
        self.reachable = True
        self.notes: Final[list[tuple[float, str]]] = []
        """What has happened here and is in no log of calls, and when."""
        self._ledger = ledger
        self._time = time

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        trace = request.extensions.get("trace")
        path = request.url.path.removeprefix(_BASE)
        self._connect(request, path)
        if trace is not None:
            await trace("http11.send_request_headers.started", {"request": request})
        asked = Request(
            method=request.method,
            path=path,
            key=request.headers.get("x-api-key"),
            body=await request.aread(),
            query=dict(request.url.params),
        )
        strike = self._ledger.faults.strike(asked)
        if strike is not None:
            return await self._tell(request, asked, strike)
        reply = self._ledger.handle(asked)
        await checkpoint()
        return httpx.Response(
            reply.status_code, headers=dict(reply.headers), json=dict(reply.document)
        )

    async def _tell(self, request: httpx.Request, asked: Request, strike: Strike) -> httpx.Response:
        """Let a call meet a fault."""
        if strike.kind.holds == "call":
            await anyio.sleep(strike.seconds)
        told = self._ledger.mishandle(asked, strike)
        if strike.kind.holds == "answer":
            await anyio.sleep(strike.seconds)
        await checkpoint()
        if told.status_code is None:
            msg = f"the connection was {told.ending}, as ordered"
            raise httpx.ReadError(msg, request=request)
        return httpx.Response(
            told.status_code, headers=dict(told.headers), stream=_Body(told, strike.seconds)
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


class _Body(httpx.AsyncByteStream):
    """A body as a fault wants it: whole, byte by byte, or by half."""

    def __init__(self, told: Told, seconds: float) -> None:
        self._told = told
        self._seconds = seconds

    async def __aiter__(self) -> AsyncIterator[bytes]:
        body = self._told.body
        if self._told.ending == "cut":
            yield body[: len(body) // 2]
            msg = "the connection was closed in the middle of the answer, as ordered"
            raise httpx.RemoteProtocolError(msg)
        if self._told.ending == "dripped":
            for byte in body:
                await anyio.sleep(self._seconds / len(body))
                yield bytes((byte,))
            return
        yield body
        for piece in self._told.rest:
            yield piece
