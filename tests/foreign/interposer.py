"""What lets a program that knows only `https://paynexus.co.ke` talk to a sandbox on this machine.

A proxy on loopback, and a certificate authority of its own. Told of both through its environment,
a program opens its usual tunnel to `paynexus.co.ke:443`; the proxy ends the TLS there, under a
certificate for that name, and passes the bytes to the sandbox as they came. Every other destination
is refused, so nothing leaves the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import trustme

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from types import TracebackType

HOST = "paynexus.co.ke"
CHUNK = 65536
START_SECONDS_MAX = 10


class Interposer:
    """The proxy, running in a thread of its own between `with` and its end."""

    def __init__(self, sandbox_url: str, directory: Path) -> None:
        address = urlsplit(sandbox_url)
        self._upstream = (address.hostname, address.port)
        authority = trustme.CA()
        self.authority = directory / "authority.pem"
        authority.cert_pem.write_to_path(self.authority)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(HOST).configure_cert(self._tls)
        self.url = ""
        self.tunnels = 0
        self.refused: list[str] = []
        self.failed: list[str] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="interposer")

    def environment(self) -> dict[str, str]:
        """Name the proxy, and whom to trust: what curl, Node, `requests` and httpx read.

        PHP reads the proxy only: its `curl.cainfo` is a setting.
        """
        authority = str(self.authority)
        return {
            "https_proxy": self.url,
            "CURL_CA_BUNDLE": authority,
            "NODE_EXTRA_CA_CERTS": authority,
            "REQUESTS_CA_BUNDLE": authority,
            "SSL_CERT_FILE": authority,
        }

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(START_SECONDS_MAX):
            msg = "the interposer did not start"
            raise RuntimeError(msg)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._over.wait()
        server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._connection(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._tunnel(reader, writer)
        except (OSError, EOFError) as error:  # TLS distrusted, a connection cut short
            self.failed.append(str(error))

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with _closing(writer):
            head = await reader.readuntil(b"\r\n\r\n")
            asked = head.split(b"\r\n", 1)[0].decode("latin-1")
            if not asked.startswith(f"CONNECT {HOST}:443 "):
                self.refused.append(asked)
                writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                return
            self.tunnels += 1
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await writer.start_tls(self._tls)
            sandbox_reader, sandbox_writer = await asyncio.open_connection(*self._upstream)
            async with _closing(sandbox_writer):
                there = asyncio.create_task(_pass_on(reader, sandbox_writer))
                back = asyncio.create_task(_pass_on(sandbox_reader, writer))
                try:
                    await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    there.cancel()
                    back.cancel()
                    await asyncio.gather(there, back, return_exceptions=True)


@contextlib.asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while chunk := await source.read(CHUNK):
        sink.write(chunk)
        await sink.drain()
