"""The faster ways to read: which one is taken, and what they say when there is no answer.

What they do with a server that misbehaves, `tests/hostile` shows: the same as httpx.
"""

from __future__ import annotations

import asyncio
import importlib
import platform
import ssl
import subprocess
import sys
from typing import Any

import anyio
import httpx
import pytest
import trustme

from paynexus_async import APIConnectionError, APITimeoutError, AsyncPayNexus, ConfigurationError
from paynexus_async import _readers as module
from paynexus_async._readers import _Aiohttp, _Pyreqwest, open_reader

from .fakes import REFERENCE, SECRET_KEY
from .hostile.server import BEHAVIOURS, DATA, MIB, Connection, HostileServer, envelope

asyncio_as_it_is = pytest.mark.parametrize("anyio_backend", ["asyncio"])
faster = pytest.mark.parametrize("transport", ["aiohttp", "pyreqwest"])


@pytest.mark.anyio
@asyncio_as_it_is
async def test_auto_takes_the_fastest_that_is_installed(anyio_backend, monkeypatch):
    """And httpx where none is."""
    real, missing = importlib.import_module, set()

    def import_module(name: str, package: str | None = None) -> Any:
        if name in missing:
            raise ImportError(name)
        return real(name, package)

    monkeypatch.setattr(module.importlib, "import_module", import_module)
    taken = []
    for gone in (None, "pyreqwest.client", "aiohttp"):
        missing |= {gone}
        opener = open_reader("auto")
        reader = opener() if opener else None
        taken.append(type(reader))
        if reader is not None:
            await reader.aclose()
    assert taken == [_Pyreqwest, _Aiohttp, type(None)]
    with pytest.raises(ConfigurationError, match=r"pip install 'paynexus-async\[aiohttp\]'"):
        AsyncPayNexus(SECRET_KEY, transport="aiohttp")
    assert open_reader("httpx") is None


def test_an_unknown_transport_is_refused():
    """With those that there are."""
    with pytest.raises(ConfigurationError, match="auto, httpx, pyreqwest, aiohttp, not 'curl'"):
        AsyncPayNexus(SECRET_KEY, transport="curl")


@pytest.mark.anyio
@faster
async def test_a_client_of_the_callers_own_is_used_whatever_the_transport(server, transport):
    """His hooks, proxies and certificates are in it."""
    server.answers(httpx.Response(200, content=envelope(status="completed")))
    async with server.client(transport=transport) as paynexus:
        assert (await paynexus.get_payment_status(REFERENCE)).succeeded
    assert len(server.requests) == 1


@pytest.mark.anyio
@asyncio_as_it_is
@faster
async def test_each_asks_and_hears_what_httpx_does(anyio_backend, transport):
    """The same request but for its headers' order and its own name in them; the same answer."""
    seen = []

    def behave(connection: Connection) -> None:
        connection.request()
        seen.append(connection.received)
        connection.answer(200, envelope(status="completed"), "X-Two: a", "X-Two: b")

    answers = []
    with HostileServer(behave) as server:
        for name in ("httpx", transport):
            url = f"http://localhost:{server.url.split(':')[2]}"
            async with AsyncPayNexus(SECRET_KEY, base_url=url, transport=name) as paynexus:
                for payment in (
                    await paynexus.get_payment_status(REFERENCE),
                    await paynexus.get_payment_status_by_checkout_id(DATA["checkout_request_id"]),
                ):
                    answers.append(payment.response)
    by_httpx, other = (
        [
            (head.split(b"\r\n")[0], sorted(map(bytes.lower, head.split(b"\r\n")[1:])), body)
            for head, _, body in (request.partition(b"\r\n\r\n") for request in half)
        ]
        for half in (seen[:2], seen[2:])
    )
    harmless = (b"connection:", b"content-length:", b"host:", b"user-agent:")
    agent = f"python/{platform.python_version()} {transport}/".encode()
    for ours, theirs in zip(by_httpx, other, strict=True):
        assert any(line.startswith(b"user-agent:") and agent in line for line in theirs[1])
        assert ours[0] == theirs[0]
        assert ours[2] == theirs[2]
        for head in (ours[1], theirs[1]):
            head[:] = [line for line in head if not line.startswith(harmless)]
        assert ours[1] == theirs[1]
    for ours, theirs in zip(answers[:2], answers[2:], strict=True):
        assert ours.body == theirs.body
        assert ours.headers == theirs.headers
        assert theirs.headers["x-two"] == "a, b"
        assert theirs.elapsed_seconds > 0


@pytest.mark.anyio
@asyncio_as_it_is
@faster
async def test_no_answer_is_an_error_of_ours(anyio_backend, transport):
    """A refused connection, an answer that does not come, one that does not end."""
    with HostileServer(BEHAVIOURS["hang"]) as server:
        options = {"transport": transport, "base_url": server.url, "max_retries": 0}
        async with AsyncPayNexus(SECRET_KEY, **options) as paynexus:
            with pytest.raises(APITimeoutError):
                await paynexus.get_payment_status(REFERENCE, timeout=0.05)
    async with AsyncPayNexus(SECRET_KEY, **options) as paynexus:
        with pytest.raises(APIConnectionError, match="get_payment_status"):
            await paynexus.get_payment_status(REFERENCE)


@pytest.mark.anyio
@asyncio_as_it_is
@faster
async def test_a_large_answer_is_cut_off(anyio_backend, transport):
    """However it comes: a little more than the limit is read, and no more."""

    def behave(connection: Connection) -> None:
        connection.request()
        connection.answer(200, b" " * (2 * MIB), "Content-Type: application/json")

    with HostileServer(behave) as server:
        options = {"transport": transport, "base_url": server.url, "max_retries": 0}
        async with AsyncPayNexus(SECRET_KEY, **options) as paynexus:
            with pytest.raises(Exception, match="larger than") as caught:
                await paynexus.get_payment_status(REFERENCE)
    assert len(caught.value.response.body) <= 2 * MIB


@pytest.mark.anyio
@asyncio_as_it_is
@pytest.mark.parametrize("transport", ["httpx", "aiohttp", "pyreqwest"])
async def test_a_cancelled_scope_catches_its_cancellation(anyio_backend, transport):
    """Whoever moves on, moves on; whoever cancels a task, cancels it."""
    with HostileServer(BEHAVIOURS["hang"]) as hanging:
        async with AsyncPayNexus(SECRET_KEY, base_url=hanging.url, transport=transport) as paynexus:
            with anyio.move_on_after(0.05) as scope:
                await paynexus.get_payment_status(REFERENCE)
            assert scope.cancelled_caught
            with pytest.raises(TimeoutError), anyio.fail_after(0.05):
                await paynexus.get_payment_status(REFERENCE)
            task = asyncio.ensure_future(paynexus.get_payment_status(REFERENCE))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


@pytest.mark.anyio
@asyncio_as_it_is
@pytest.mark.parametrize("transport", ["httpx", "aiohttp"])
async def test_certificates_named_in_the_environment_are_not_trusted(
    anyio_backend, transport, monkeypatch, tmp_path
):
    """Nor proxies; pyreqwest looks where the system looks, and cannot be told otherwise."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context)
    async with server:
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}/api"
        async with AsyncPayNexus(
            SECRET_KEY, base_url=url, transport=transport, max_retries=0
        ) as paynexus:
            with pytest.raises(APIConnectionError, match=r"(?i)certificate"):
                await paynexus.get_payment_status(REFERENCE)


def test_a_process_that_ends_after_an_error_ends_well():
    """The threads of pyreqwest may not be in the middle of something then."""
    code = """
import anyio
from paynexus_async import APIError, AsyncPayNexus
async def main():
    url = "http://127.0.0.1:1/api"
    async with AsyncPayNexus("sk_x_1", base_url=url, transport="pyreqwest", max_retries=0) as client:
        try:
            await client.get_payment_status("PNX1")
        except APIError:
            pass
anyio.run(main)
"""
    for _ in range(3):
        subprocess.run([sys.executable, "-c", code], check=True)
