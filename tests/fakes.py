"""A server inside the process: it answers from a script, and remembers what it was asked."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import httpx
import httpx2
import pytest

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


over_both = pytest.mark.parametrize("library", ["httpx", "httpx2"], indirect=True)
"""For a test of the contract with the transport: httpx's client, and its successor's."""


def client_over(transport: httpx.AsyncBaseTransport, library: str, **options: Any) -> Any:
    """A client of either library, over the same transport."""
    if library == "httpx":
        return httpx.AsyncClient(transport=transport, **options)
    return httpx2.AsyncClient(transport=_ForHttpx2(transport), **options)


@contextmanager
def _errors_of_httpx2() -> Iterator[None]:
    """Raise the error of the same name."""
    try:
        yield
    except httpx.HTTPError as error:
        raise getattr(httpx2, type(error).__name__)(str(error)) from error.__cause__


class _ForHttpx2(httpx2.AsyncBaseTransport):
    """A transport of httpx's for a client of httpx2's, which knows no answer or error of httpx's."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: Any) -> httpx2.Response:
        with _errors_of_httpx2():
            response = await self._transport.handle_async_request(request)
        headers = response.headers.raw
        if response.is_stream_consumed:
            return httpx2.Response(response.status_code, headers=headers, content=response.content)
        stream = _StreamForHttpx2(response.stream)
        return httpx2.Response(response.status_code, headers=headers, stream=stream)


class _StreamForHttpx2(httpx2.AsyncByteStream):
    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._iterator = aiter(stream)

    def __aiter__(self) -> _StreamForHttpx2:
        return self

    async def __anext__(self) -> bytes:
        with _errors_of_httpx2():
            return await anext(self._iterator)

    async def aclose(self) -> None:
        await self._stream.aclose()


class FakeServer:
    """Answers each request with the next line of its script; the last line answers all the rest."""

    def __init__(self, library: str = "httpx") -> None:
        self.library = library
        self.requests: list[httpx.Request] = []
        self.times: list[float] = []
        self.latency_seconds = 0.0
        self.script: deque[Answer] = deque()

    def answers(self, *script: Answer) -> None:
        self.script = deque(script)

    def client(self, **options: Any) -> AsyncPayNexus:
        options = {"secret_key": SECRET_KEY, "public_key": PUBLIC_KEY, **options}
        return AsyncPayNexus(http_client=self.http_client(), **options)

    def http_client(self) -> Any:
        return client_over(httpx.MockTransport(self._handle), self.library)

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
