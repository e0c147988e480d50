"""A proxy that breaks connections at a chosen byte, and knows what went through it.

It runs on an event loop and a thread of its own, so that a busy client is not part of the fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import urlsplit

from .wire import Request, Requests

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

Kind = Literal["none", "refuse", "reset", "close", "cut", "stall", "drip", "delay"]
Direction = Literal["up", "down"]

KINDS: tuple[Kind, ...] = ("none", "refuse", "reset", "close", "cut", "stall", "drip", "delay")
_STALL_SECONDS_MAX = 30.0
_DEAF_SECONDS = 0.005
_DRIP_SECONDS = 0.003
_LIFE_BYTES = 2_000  # of what a client sends, for a connection that nothing else has ended
_RESET = struct.pack("ii", 1, 0)  # linger for no time: closing is a reset


@dataclass(frozen=True)
class Fault:
    """What happens to a connection, after so many bytes in one direction.

    `refuse`: reset before a byte is read, and nobody listens for a moment. `reset`: both sides are
    reset. `close`: both are closed. `cut`: this direction ends, the other one lives. `stall`:
    nothing more is forwarded, and nothing closed. `drip`: the rest comes byte by byte. `delay`: the
    rest comes a little later.
    """

    kind: Kind
    direction: Direction = "up"
    offset: int = 0
    seconds: float = 0.0


HEALTHY = Fault("none")


def random_fault(rng: random.Random, requests: int = 1) -> Fault:
    """Draw a fault, at any byte of so many requests or their answers; one in eight is none."""
    direction = rng.choice(["up", "down"])
    longest = requests * (480 if direction == "up" else 420)
    return Fault(
        rng.choice(KINDS),
        direction,  # type: ignore[arg-type]  # one of the two
        rng.randrange(longest),
        rng.uniform(0, 0.3),
    )


@dataclass
class Passage:
    """One connection: what the client sent, what of it was forwarded, and what came back."""

    fault: Fault
    received: Requests = field(default_factory=Requests)
    forwarded: Requests = field(default_factory=Requests)
    bytes_received: int = 0
    bytes_answered: int = 0


class FaultProxy:
    """Stands before a server while its `with` block runs."""

    def __init__(self, upstream: str, choose: Callable[[], Fault]) -> None:
        """Forward to *upstream*, a base URL; each connection gets the fault that *choose* returns."""
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname, parts.port)
        self._path = parts.path
        self.choose = choose
        self.passages: list[Passage] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}{self._path}"

    @property
    def received(self) -> list[Request]:
        """Every request of which the client sent one byte."""
        return [request for passage in self.passages for request in passage.received.begun]

    @property
    def forwarded(self) -> list[Request]:
        """Every request of which the server was sent one byte."""
        return [request for passage in self.passages for request in passage.forwarded.begun]

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._stopped = False
        self._tasks: set[asyncio.Task[None]] = set()
        listener = socket.create_server(("127.0.0.1", 0), backlog=1000)
        self._port = listener.getsockname()[1]
        self._listen_on(listener)
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _listen_on(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._loop.add_reader(listener, self._accept)

    async def _stop(self) -> None:
        self._stopped = True
        self._stop_listening()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _stop_listening(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
            self._listener.close()

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        client.setblocking(False)
        passage = Passage(self.choose())
        self.passages.append(passage)
        if passage.fault.kind == "refuse":
            _reset(client)
            self._be_deaf()
            return
        task = self._loop.create_task(self._serve(passage, client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _be_deaf(self) -> None:
        """Let the next ones find nobody who listens."""
        self._stop_listening()

        def listen_again() -> None:
            if not self._stopped:
                self._listen_on(socket.create_server(("127.0.0.1", self._port), backlog=1000))

        self._loop.call_later(_DEAF_SECONDS, listen_again)

    async def _serve(self, passage: Passage, client: socket.socket) -> None:
        with client, socket.socket() as server:
            server.setblocking(False)
            await self._loop.sock_connect(server, self._upstream)

            def up(data: bytes) -> None:
                passage.forwarded.feed(data)

            def down(data: bytes) -> None:
                passage.bytes_answered += len(data)

            def seen(data: bytes) -> None:
                passage.bytes_received += len(data)
                passage.received.feed(data)

            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pump(passage.fault, "up", client, server, seen, up))
                    group.create_task(
                        self._pump(passage.fault, "down", server, client, lambda _: None, down)
                    )
            except* _ResetBothError:
                _reset(client)
                _reset(server)
            except* (OSError, _CloseBothError):
                pass

    async def _pump(
        self,
        fault: Fault,
        direction: Direction,
        source: socket.socket,
        sink: socket.socket,
        seen: Callable[[bytes], None],
        passed: Callable[[bytes], None],
    ) -> None:
        """Forward one direction, until it ends or its fault is due."""
        left = fault.offset if fault.direction == direction and fault.kind != "none" else None
        read = 0
        while data := await self._loop.sock_recv(source, 65536):
            seen(data)
            read += len(data)
            if direction == "up" and read > _LIFE_BYTES:
                raise _CloseBothError
            if left is not None and len(data) > left:
                await self._forward(data[:left], sink, passed)
                if await self._break(fault):
                    break
                await self._forward(data[left:], sink, passed, slowly=fault.kind == "drip")
                left = None
            else:
                left = None if left is None else left - len(data)
                await self._forward(data, sink, passed)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    async def _forward(
        self,
        data: bytes,
        sink: socket.socket,
        passed: Callable[[bytes], None],
        *,
        slowly: bool = False,
    ) -> None:
        for piece in [data[i : i + 1] for i in range(len(data))] if slowly else [data]:
            await self._loop.sock_sendall(sink, piece)
            passed(piece)
            if slowly:
                await asyncio.sleep(_DRIP_SECONDS)

    async def _break(self, fault: Fault) -> bool:
        """Do what the fault says; whether that is the end of this direction."""
        match fault.kind:
            case "reset":
                raise _ResetBothError
            case "close":
                raise _CloseBothError
            case "cut":
                return True
            case "stall":
                await asyncio.sleep(_STALL_SECONDS_MAX)
                raise _CloseBothError
            case "delay":
                await asyncio.sleep(fault.seconds)
        return False


class _ResetBothError(Exception):
    pass


class _CloseBothError(Exception):
    pass


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    connection.close()
