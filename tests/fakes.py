"""A server inside the process: it answers from a script, and remembers what it was asked."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import Any

import anyio
import httpx

from paynexus_async import AsyncPayNexus

SECRET_KEY = "sk_test_4eC39HqLyjWDarjtT1zdp7dc"
PUBLIC_KEY = "pk_test_a1b2c3d4e5f6g7h8i9j0"
PHONE = "254746990866"
REFERENCE = "PNXABC123DEF"
CHECKOUT_ID = "ws_CO_27012026101718139746990866"

Answer = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]


def answer(
    status_code: int = 200, headers: dict[str, str] | None = None, **document: Any
) -> Answer:
    """A JSON answer, as it is."""
    return httpx.Response(status_code, json=document, headers=headers)


def data(**fields: Any) -> Answer:
    """A success in the documented envelope."""
    return answer(success=True, data=fields)


def refusal(status_code: int, message: str = "no", **fields: Any) -> Answer:
    """An error in the envelope."""
    headers = fields.pop("headers", None)
    return answer(status_code, headers, success=False, message=message, **fields)


def initiated(**fields: Any) -> Answer:
    """The documented answer to an initiate."""
    return data(
        **{
            "reference": REFERENCE,
            "checkout_request_id": CHECKOUT_ID,
            "amount": 100,
            "phone": PHONE,
            "status": "initiated",
            **fields,
        }
    )


def status(word: str, **fields: Any) -> Answer:
    """An answer to a status call, with an amount as text, as the API writes it."""
    return data(
        **{
            "reference": REFERENCE,
            "checkout_request_id": CHECKOUT_ID,
            "amount": "100.00",
            "phone": PHONE,
            "status": word,
            **fields,
        }
    )


class FakeServer:
    """Answers each request with the next line of its script; the last line answers all the rest."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.times: list[float] = []
        self.latency_seconds = 0.0
        self.script: deque[Answer] = deque()

    def answers(self, *script: Answer) -> None:
        self.script = deque(script)

    def client(self, **options: Any) -> AsyncPayNexus:
        options = {"secret_key": SECRET_KEY, "public_key": PUBLIC_KEY, **options}
        return AsyncPayNexus(http_client=self.http_client(), **options)

    def http_client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self._handle))

    @property
    def initiates(self) -> int:
        return sum(r.url.path.endswith("/initiate") for r in self.requests)

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(request.content) for request in self.requests]

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.times.append(anyio.current_time())
        await anyio.sleep(self.latency_seconds)
        line = self.script.popleft() if len(self.script) > 1 else self.script[0]
        if isinstance(line, Exception):
            raise line
        if isinstance(line, httpx.Response):
            return httpx.Response(line.status_code, headers=line.headers, content=line.content)
        return line(request)
