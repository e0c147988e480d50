"""Faults over HTTP: how they are ordered, and how they are done to a connection."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from enum import Enum
from typing import Annotated, Final

import anyio
from anyio.lowlevel import checkpoint
from fastapi import Body, FastAPI, Path
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from ._described import DONE, ORDERED, ORDERS, behind
from ._engine import Ledger, Request
from ._faults import CALLS, FAULTS, SECONDS_MAX, SEED_MAX, TIMES_MAX, Fault, Strike, Told
from ._refused import refused
from ._view import FAULT_KINDS, rule_shown

__all__ = ["CONNECTION", "add_faults", "tell"]

CONNECTION: Final = "paynexus_connection"
"""Where the state of an ASGI scope holds the connection, if whatever serves it lets it."""

_LINGER_NOT: Final = struct.pack("ii", 1, 0)


# --- Done to a connection


async def tell(ledger: Ledger, request: Request, strike: Strike) -> Response:
    """Let a call meet a fault, and return what its caller is told."""
    if strike.kind.holds == "call":
        await anyio.sleep(strike.seconds)
    told = ledger.mishandle(request, strike)
    if strike.kind.holds == "answer" and told.ending == "whole":
        await anyio.sleep(strike.seconds)
    return _Told(told, strike.seconds)


class _Told(StreamingResponse):
    """An answer, and how it ends."""

    def __init__(self, told: Told, seconds: float) -> None:
        super().__init__(
            _dripped(told.body, seconds) if told.ending == "dripped" else _whole(told),
            status_code=told.status_code or 200,
            headers=told.headers,
        )
        self._told = told

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, as far as it shall come."""
        ending = self._told.ending
        if ending in {"whole", "dripped"}:
            await super().__call__(scope, receive, send)
            return
        connection: asyncio.Transport | None = scope.get("state", {}).get(CONNECTION)
        if connection is None:  # in process: the caller's transport raises what it is told here
            msg = f"the sandbox was asked for a connection that is {ending}"
            raise ConnectionResetError(msg)
        if ending == "cut":
            start = {"type": "http.response.start", "status": self.status_code}
            await send({**start, "headers": self.raw_headers})
            half = self._told.body[: len(self._told.body) // 2]
            await send({"type": "http.response.body", "body": half, "more_body": True})
        if ending == "reset":
            wire = connection.get_extra_info("socket")
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
            connection.abort()
        else:
            connection.close()
        # The web server would complain of an application that ends before its connection has.
        while (await receive())["type"] != "http.disconnect":
            pass


async def _whole(told: Told) -> AsyncIterator[bytes]:
    yield told.body
    for piece in told.rest:
        yield piece
        await checkpoint()  # or the server would write on, unheard, after its caller has gone


async def _dripped(body: bytes, seconds: float) -> AsyncIterator[bytes]:
    began = anyio.current_time()
    for place, byte in enumerate(body, start=1):
        await anyio.sleep_until(began + seconds * place / len(body))
        yield bytes([byte])


# --- Ordered


def add_faults(app: FastAPI, ledger: Ledger) -> None:
    """Let an application take orders for faults."""
    tags: list[str | Enum] = ["Faults"]

    @app.get("/sandbox/faults", tags=tags, responses=behind(ORDERS), response_model=None)
    async def faults() -> dict[str, object]:
        """The kinds of fault that there are, and the orders in force."""
        rules = [rule_shown(rule) for rule in ledger.faults.rules]
        return {"kinds": FAULT_KINDS, "rules": rules}

    @app.post(
        "/sandbox/faults", tags=tags, responses=behind(ORDERED, 400, 422), response_model=None
    )
    async def order(
        kind: Annotated[str, Body(json_schema_extra={"enum": [*FAULTS]})],
        call: Annotated[str, Body(json_schema_extra={"enum": [*CALLS]})] = "any",
        times: Annotated[int | None, Body(ge=1, le=TIMES_MAX)] = None,
        probability: Annotated[float, Body(ge=0, le=1)] = 1.0,
        seed: Annotated[int, Body(ge=0, le=SEED_MAX)] = 0,
        seconds: Annotated[float | None, Body(ge=0, le=SECONDS_MAX)] = None,
    ) -> Response:
        """Let API calls meet a fault, from now on."""
        try:
            fault = Fault(
                kind,
                call=call,
                times=times,
                probability=probability,
                seed=seed,
                seconds=seconds,
            )
            return JSONResponse(rule_shown(ledger.faults.add(fault)))
        except ValueError as error:
            return refused(422, "VALIDATION_ERROR", str(error))

    @app.delete(
        "/sandbox/faults/{id}",
        tags=tags,
        responses=behind(DONE, 422),
        response_model=None,
    )
    async def take_back(number: Annotated[int, Path(alias="id")]) -> dict[str, object]:
        """Take an order back; one that has gone already, used up, is no error."""
        ledger.faults.remove(number)
        return {"success": True}

    @app.delete("/sandbox/faults", tags=tags, responses=behind(DONE), response_model=None)
    async def take_all_back() -> dict[str, object]:
        """Take all orders back."""
        ledger.faults.clear()
        return {"success": True}
