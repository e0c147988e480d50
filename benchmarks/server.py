"""A server that costs next to nothing: it answers each status call from a template.

    python -m benchmarks.server [--delay SECONDS] [--core N]

Prints its port. So that the client is what a benchmark measures.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

BODY = (
    b'{"success":true,"message":"Payment status retrieved","data":{"reference":"%s",'
    b'"amount":"100.00","phone":"254746990866","status":"completed",'
    b'"provider_transaction_id":"OEI2AK4Q16","created_at":"2026-01-27T10:17:18Z",'
    b'"completed_at":"2026-01-27T10:17:39Z"}}'
)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


class Answering(asyncio.Protocol):
    """One connection; requests have no body, and come one after the other."""

    delay = 0.0

    def __init__(self) -> None:
        """Have nothing to say yet."""
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every whole request."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            path = self._buffer.split(b" ", 2)[1]
            self._buffer = self._buffer[end + 4 :]
            body = BODY % path.rsplit(b"/", 1)[1]
            answer = HEAD % len(body) + body
            if self.delay:
                asyncio.get_running_loop().call_later(self.delay, self._write, answer)
            else:
                self._write(answer)

    def _write(self, answer: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(answer)


async def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--core", type=int)
    options = parser.parse_args()
    if options.core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {options.core})
    Answering.delay = options.delay
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Answering, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
