"""A fast server that remembers every initiate of which one byte arrived, in a process of its own.

    python -m tests.storms.recorder [--latency 0.004] [--seed 1]

Prints its port. A payment whose reference begins with `LOOKS5X` has ended at the fifth look. A line
on its input asks for the truth, as JSON on one line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from .wire import Request, Requests

ROOT = Path(__file__).parents[2]


@dataclass
class Truth:
    """What a server received: of each initiate its number, phone and amount, as far as they came."""

    initiates: list[tuple[int | None, str | None, int | None]] = field(default_factory=list)
    reads: int = 0
    nameless: int = 0
    connections: int = 0

    @property
    def numbers(self) -> set[int | None]:
        """The initiates of which at least the head arrived."""
        return {number for number, _, _ in self.initiates}

    @property
    def bodies(self) -> Counter[tuple[str, int]]:
        """How often each phone and amount arrived whole."""
        return Counter((p, a) for _, p, a in self.initiates if p is not None and a is not None)


class _Connection(asyncio.Protocol):
    def __init__(self, server: _Server) -> None:
        self._server = server
        self._requests = Requests()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.truth.connections += 1

    def data_received(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        for request in self._requests.feed(data):
            answer = self._server.answer(request)
            loop.call_later(self._server.pause(), self._send, answer)
        del self._requests.begun[:-1]

    def _send(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        for request in self._requests.begun:
            if not request.is_whole:
                self._server.note(request)


class _Server:
    def __init__(self, latency: float, seed: int) -> None:
        self.truth = Truth()
        self._looks: Counter[str] = Counter()
        self._latency = latency
        self._rng = random.Random(seed)

    def pause(self) -> float:
        return self._rng.uniform(0, 2 * self._latency)

    def note(self, request: Request) -> None:
        """Remember a request, however little of it came."""
        if request.is_initiate:
            phone, amount = request.asked or (None, None)
            self.truth.initiates.append((request.number, phone, amount))
        elif not request.head.endswith(b"\r\n\r\n"):
            self.truth.nameless += 1
        else:
            self.truth.reads += 1

    def answer(self, request: Request) -> bytes:
        self.note(request)
        if request.is_initiate:
            assert request.asked is not None
            phone, amount = request.asked
            return _document(
                reference=f"LOOKS5Xp{len(self.truth.initiates)}",
                amount=amount,
                phone=phone,
                status="initiated",
            )
        reference = request.path.rsplit("/", 1)[1]
        return _document(reference=reference, status=self._look(reference))

    def _look(self, reference: str) -> str:
        needed, found, _ = reference.removeprefix("LOOKS").partition("X")
        if not (found and needed.isdigit()):
            return "processing"
        self._looks[reference] += 1
        if self._looks[reference] < int(needed):
            return "processing"
        del self._looks[reference]
        return "completed"


def _document(**data: object) -> bytes:
    body = json.dumps({"success": True, "data": data}).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


class Recorder:
    """The server while its `with` block runs."""

    def __init__(self, *, latency: float = 0.004, seed: int = 1) -> None:
        self._arguments = ["--latency", str(latency), "--seed", str(seed)]
        self.url = ""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.storms.recorder", *self._arguments]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}/api"
        return self

    def truth(self) -> Truth:
        """What has arrived until now; call it when nothing is on its way."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print("truth", file=self._process.stdin, flush=True)
        told = json.loads(self._process.stdout.readline())
        return Truth(**{**told, "initiates": [tuple(i) for i in told["initiates"]]})

    def __exit__(self, *exc_info: object) -> None:
        self._process.communicate()  # the end of its input is its end


async def _serve(latency: float, seed: int) -> None:
    loop = asyncio.get_running_loop()
    server = _Server(latency, seed)
    listener = await loop.create_server(lambda: _Connection(server), "127.0.0.1", 0, backlog=1000)
    print(listener.sockets[0].getsockname()[1], flush=True)
    lines: asyncio.Queue[str] = asyncio.Queue()

    def listen() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line)
        loop.call_soon_threadsafe(lines.put_nowait, "")

    threading.Thread(target=listen, daemon=True).start()
    while await lines.get():
        print(json.dumps(vars(server.truth)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, default=0.004)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    asyncio.run(_serve(arguments.latency, arguments.seed))


if __name__ == "__main__":
    main()
