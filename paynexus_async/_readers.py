"""Faster ways to read than httpx: clients that others keep well, reached without httpx's objects.

The only module that imports aiohttp or pyreqwest, and only when a client asks for one. They read
and never initiate: neither can prove that a request did not leave.

Both are asked for the same: no redirects, no decompression, no cookies, no proxies from the
environment, certificates verified, a body of bounded size, one time limit over everything.
"""

from __future__ import annotations

import importlib
import os
import ssl
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import anyio
import certifi
from anyio.lowlevel import checkpoint_if_cancelled

from .exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NoAnswerError", "Reader", "TransportName", "open_reader"]

TransportName = Literal["auto", "httpx", "aiohttp", "pyreqwest"]

CONNECTIONS_MAX: Final = 100
_CONNECT_SECONDS_MAX: Final = 10.0
_PIECE_BYTES: Final = 64 * 1024
_AHEAD_BYTES: Final = 4 * 1024
_SETTLE_SECONDS: Final = 0.1
_IN_A_ROW: Final = 32


class NoAnswerError(Exception):
    """No whole answer came.

    Attributes:
        timed_out: whether it was the time that ended.
    """

    def __init__(self, reason: str, *, timed_out: bool) -> None:
        """Keep whether it was the time."""
        super().__init__(reason)
        self.timed_out = timed_out


class Reader(Protocol):
    """A way to read.

    Attributes:
        library: the package that does it, for the `User-Agent`.
    """

    library: str

    async def read(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        seconds: float,
        bytes_max: int,
    ) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers by lower-case name, and the body, at most one byte too long.

        Raises:
            NoAnswerError: no whole answer within so many seconds.
        """
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


class _Aiohttp:
    """aiohttp's pool."""

    library = "aiohttp"

    def __init__(self, aiohttp: Any) -> None:  # noqa: ANN401  # imported late, so untyped
        self._aiohttp = aiohttp
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX, ssl=_trusted()),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def read(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        seconds: float,
        bytes_max: int,
    ) -> tuple[int, dict[str, str], bytes]:
        aiohttp = self._aiohttp
        limits = aiohttp.ClientTimeout(
            total=seconds, sock_connect=min(seconds, _CONNECT_SECONDS_MAX)
        )
        try:
            async with self._session.request(
                method, url, headers=headers, data=body, timeout=limits, allow_redirects=False
            ) as response:
                content = await response.content.read(bytes_max + 1)
                while len(content) <= bytes_max and (
                    chunk := await response.content.read(_PIECE_BYTES)
                ):
                    content += chunk
                if len(content) > bytes_max:
                    response.close()
                lowered: dict[str, str] = {}
                for name, value in response.headers.items():
                    _add(lowered, name.lower(), value)
                return response.status, lowered, content[: bytes_max + 1]
        except TimeoutError as error:
            raise NoAnswerError(_reason(error), timed_out=True) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NoAnswerError(_reason(error), timed_out=False) from error

    async def aclose(self) -> None:
        await self._session.close()


class _Pyreqwest:
    """pyreqwest's pool, in Rust."""

    library = "pyreqwest"

    def __init__(self, pyreqwest: Any) -> None:  # noqa: ANN401
        errors = importlib.import_module("pyreqwest.exceptions")
        self._error: type[Exception] = errors.PyreqwestError
        self._timeout: type[Exception] = errors.RequestTimeoutError
        builder = pyreqwest.ClientBuilder().http1_only().no_proxy().follow_redirects(enable=False)
        for encoding in (builder.gzip, builder.brotli, builder.zstd, builder.deflate):
            builder = encoding(enable=False)
        self._client = (
            builder.max_connections(CONNECTIONS_MAX)
            .connect_timeout(timedelta(seconds=_CONNECT_SECONDS_MAX))
            .referer(enable=False)
            .build()
        )
        self._in_a_row = 0

    async def read(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        seconds: float,
        bytes_max: int,
    ) -> tuple[int, dict[str, str], bytes]:
        self._give_way()
        request = self._client.request(method, url).headers(headers)
        if body is not None:
            request = request.body_bytes(body)
        # What is read ahead is counted by its bytes, and each chunk of one byte keeps fifty more.
        request = request.streamed_read_buffer_limit(_AHEAD_BYTES)
        request = request.timeout(timedelta(seconds=seconds))
        try:
            async with request.build_streamed() as response:
                lowered: dict[str, str] = {}
                for name, value in response.headers.items():
                    _add(lowered, name, value)
                if _is_short(lowered):  # once to its threads and back, not once for each piece
                    return response.status, lowered, bytes(await response.bytes())
                content = bytearray()
                while (chunk := await response.body_reader.read(_PIECE_BYTES)) is not None:
                    content += memoryview(chunk)
                    if len(content) > bytes_max:
                        break
                return response.status, lowered, bytes(content[: bytes_max + 1])
        except anyio.get_cancelled_exc_class():
            # pyreqwest raises a cancellation of its own instead of the one that came: anyio would
            # not know it again, and let it out of the scope that was cancelled.
            await checkpoint_if_cancelled()
            raise
        except self._timeout as error:
            raise NoAnswerError(_reason(error), timed_out=True) from error
        except self._error as error:
            raise NoAnswerError(_reason(error), timed_out=False) from error

    def _give_way(self) -> None:
        """Let its thread send what it was given, now and then.

        On a processor that both share, it has its turn when we have nothing left to do. Everything
        then leaves in one heap, the answers come back in one heap, and so it stays: 5% fewer
        checks a second of a server 30 ms away.
        """
        self._in_a_row += 1
        if self._in_a_row >= _IN_A_ROW and hasattr(os, "sched_yield"):
            self._in_a_row = 0
            os.sched_yield()

    async def aclose(self) -> None:
        await self._client.close()
        # Its threads let go of Python a little later than it says, after an error or an answer that
        # was not read to its end; an interpreter that ends before that is aborted.
        await anyio.sleep(_SETTLE_SECONDS)


def _trusted() -> ssl.SSLContext:
    """Trust the certificates that httpx trusts, whatever `SSL_CERT_FILE` names."""
    return ssl.create_default_context(cafile=certifi.where())


def _add(headers: dict[str, str], name: str, value: str) -> None:
    headers[name] = f"{headers[name]}, {value}" if name in headers else value


def _is_short(headers: Mapping[str, str]) -> bool:
    """Whether the body has a length that HTTP itself holds it to, and fits into one piece."""
    length = headers.get("content-length", "")
    return (
        length.isdecimal()
        and len(length) < 6
        and int(length) <= _PIECE_BYTES
        and ("transfer-encoding" not in headers)
    )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")


_KINDS: Final = {"pyreqwest": ("pyreqwest.client", _Pyreqwest), "aiohttp": ("aiohttp", _Aiohttp)}
"""The fastest first."""


class _Opener(Protocol):
    def __call__(self) -> Reader: ...


def open_reader(name: TransportName) -> _Opener | None:
    """Return what opens a reader inside a running asyncio loop; `None` for httpx.

    Raises:
        ConfigurationError: if there is no such transport, or it is not installed.
    """
    if name not in ("auto", "httpx", *_KINDS):
        msg = f"transport must be one of auto, httpx, {', '.join(_KINDS)}, not {name!r}"
        raise ConfigurationError(msg)
    for kind, (module_name, reader) in _KINDS.items():
        if name not in {kind, "auto"}:
            continue
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            if name == kind:
                msg = f"transport={kind!r} needs its extra: pip install 'paynexus-async[{kind}]'"
                raise ConfigurationError(msg) from None
        else:
            return lambda reader=reader, module=module: reader(module)
    return None
