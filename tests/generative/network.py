"""A network that fails in every way that networks and servers fail, with a true ledger behind it."""

from __future__ import annotations

import json
from collections import deque

import anyio
import httpx

from paynexus_async.sandbox import Ledger, Reply, Request

BASE = "/api"

REJECTED = (400, 401, 403, 404, 409, 422)
UNDELIVERED = (
    "refused connection",
    "broken before the headers",
    "lost request",
    "failed undelivered",
    "limited",
    *(f"rejected {status_code}" for status_code in REJECTED),
)
DELIVERED = (
    "lost answer",
    "failed delivered",
    "proxy page",
    "garbage",
    "cut",
    "redirect",
    "says no with 200",
    "no data",
    "hangs",
    "slow",
    "slow connection",
    "slow request",
    "stale",
)
FAULTS = (*UNDELIVERED, *DELIVERED)
SLOW_SECONDS = 3.0


class Network(httpx.AsyncBaseTransport):
    """Carries requests to a ledger; each takes the next fault, if one waits.

    Whatever is *delivered* has been done by the server, whether or not its answer comes back.
    """

    def __init__(self, ledger: Ledger, *, traces: bool) -> None:
        """Fail at nothing yet.

        Args:
            ledger: the truth.
            traces: whether it tells, as httpcore does, when the first byte leaves.
        """
        self.ledger = ledger
        self.traces = traces
        self.faults: deque[str] = deque()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        fault = self.faults.popleft() if self.faults else "none"
        body = await request.aread()
        if fault == "slow connection":
            await anyio.sleep(SLOW_SECONDS)
        if self.traces:
            await request.extensions["trace"]("connection.connect_tcp.started", {})
        if fault == "refused connection":
            raise httpx.ConnectError("refused", request=request)
        if fault == "broken before the headers":
            raise httpx.ReadError("broken", request=request)
        if self.traces:
            await request.extensions["trace"]("http11.send_request_headers.started", {})
        if fault == "slow request":
            await anyio.sleep(SLOW_SECONDS)
        if fault in UNDELIVERED:
            return _undelivered(fault, request)
        response = _rendered(self.ledger.handle(_asked(request, body)))
        if fault == "hangs":
            await anyio.sleep_forever()
        if fault == "slow":
            await anyio.sleep(SLOW_SECONDS)
        return _spoiled(fault, request, response)


def _asked(request: httpx.Request, body: bytes) -> Request:
    return Request(
        method=request.method,
        path=request.url.path.removeprefix(BASE),
        key=request.headers.get("x-api-key"),
        body=body,
    )


def _rendered(reply: Reply) -> httpx.Response:
    return httpx.Response(reply.status_code, json=reply.document, headers=dict(reply.headers))


def _undelivered(fault: str, request: httpx.Request) -> httpx.Response:
    if fault == "lost request":
        raise httpx.ReadTimeout("nothing came", request=request)
    if fault == "failed undelivered":
        return httpx.Response(500, json={"success": False, "message": "Server Error"})
    if fault == "limited":
        return httpx.Response(429, json={"success": False}, headers={"Retry-After": "7"})
    return httpx.Response(int(fault.split()[1]), json={"success": False, "message": "no"})


def _spoiled(fault: str, request: httpx.Request, response: httpx.Response) -> httpx.Response:
    if fault == "lost answer":
        raise httpx.ReadError("connection reset", request=request)
    if fault == "failed delivered":
        return httpx.Response(503, json=response.json())
    if fault == "proxy page":
        return httpx.Response(502, html="<h1>Bad gateway</h1>")
    if fault == "garbage":
        return httpx.Response(200, content=b"\xff\x00{]" + response.content)
    if fault == "cut":
        return httpx.Response(200, content=response.content[:-7])
    if fault == "redirect":
        return httpx.Response(307, headers={"Location": str(request.url)})
    if fault == "says no with 200":
        return httpx.Response(200, json={"success": False, "message": "Something went wrong"})
    if fault == "no data":
        return httpx.Response(200, json={"success": True})
    if fault == "stale":
        return _stale(response)
    return response


def _stale(response: httpx.Response) -> httpx.Response:
    """The answer that a replica behind its time gives: the payment has only just begun."""
    document = response.json()
    data = document.get("data")
    if isinstance(data, dict) and "status" in data:
        paid = ("transaction_id", "provider_transaction_id", "completed_at", "failed_at")
        document["data"] = {**data, "status": "initiated", **dict.fromkeys(paid)}
    return httpx.Response(response.status_code, content=json.dumps(document).encode())
