"""A server that misbehaves on purpose, on a real socket, and remembers what reached it."""

from __future__ import annotations

import gzip
import json
import socket
import struct
import threading
from collections.abc import Callable
from typing import Final, Self

PHONE: Final = "254746990866"
HTML: Final = b"<html><body>Bad Gateway</body></html>"
DATA: Final = {
    "reference": "PNXABC123DEF",
    "checkout_request_id": "ws_CO_27012026101718139746990866",
    "amount": 100,
    "phone": PHONE,
    "status": "initiated",
}
MIB: Final = 1024 * 1024
BOMB_BYTES: Final = 200 * MIB

Behaviour = Callable[["Connection"], None]


class Connection:
    """One accepted connection: a few ways to read from it, and many to answer."""

    def __init__(self, sock: socket.socket, stop: threading.Event) -> None:
        self.sock = sock
        self.stop = stop
        self.received = b""

    def head(self) -> None:
        while b"\r\n\r\n" not in self.received:
            self._receive()

    def request(self) -> None:
        self.head()
        head, _, body = self.received.partition(b"\r\n\r\n")
        lengths = [
            line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
        ]
        length = int(lengths[0].split(b":")[1]) if lengths else 0
        while len(body) < length:
            self._receive()
            body = self.received.partition(b"\r\n\r\n")[2]

    def _receive(self) -> None:
        chunk = self.sock.recv(65536)
        if not chunk:
            raise ConnectionError
        self.received += chunk

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self, status: int, body: bytes, *headers: str, length: int | None = None) -> None:
        lines = [
            f"HTTP/1.1 {status} X",
            f"Content-Length: {len(body) if length is None else length}",
            "Connection: close",
            *headers,
        ]
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def drip(self, data: bytes) -> None:
        for byte in data:
            if self.stop.wait(0.05):
                return
            self.send(bytes([byte]))


def envelope(**fields: object) -> bytes:
    return json.dumps({"success": True, "data": {**DATA, **fields}}).encode()


def refuse(status: int) -> Behaviour:
    def behave(connection: Connection) -> None:
        connection.request()
        body = json.dumps({"success": False, "message": f"No for {PHONE}", "code": "NO"}).encode()
        connection.answer(status, body, "Content-Type: application/json")

    return behave


def answer(status: int, body: bytes, *headers: str, length: int | None = None) -> Behaviour:
    def behave(connection: Connection) -> None:
        connection.request()
        connection.answer(status, body, *headers, length=length)

    return behave


def reset_at_once(connection: Connection) -> None:
    connection.reset()


def reset_after_head(connection: Connection) -> None:
    connection.head()
    connection.reset()


def reset_after_request(connection: Connection) -> None:
    connection.request()
    connection.reset()


def close_after_request(connection: Connection) -> None:
    connection.request()


def hang(connection: Connection) -> None:
    connection.request()
    connection.stop.wait(30)


def never_read(connection: Connection) -> None:
    connection.stop.wait(30)


def drip_headers(connection: Connection) -> None:
    connection.request()
    connection.drip(b"HTTP/1.1 200 OK\r\n" + b"X-Drip: 1\r\n" * 1000)


def drip_body(connection: Connection) -> None:
    connection.request()
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    connection.drip(b" " * 1000)


def endless_chunks(connection: Connection) -> None:
    connection.request()
    connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")


def garbage(connection: Connection) -> None:
    connection.request()
    connection.send(b"\x00\x01\x02 this is not HTTP\r\n\r\n")


def continue_and_nothing(connection: Connection) -> None:
    connection.request()
    connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    connection.stop.wait(30)


def long_headers(connection: Connection) -> None:
    connection.request()
    connection.send(b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"x" * MIB + b"\r\n\r\n")


def plain_flood(connection: Connection) -> None:
    connection.request()
    connection.send(f"HTTP/1.1 200 OK\r\nContent-Length: {BOMB_BYTES}\r\n\r\n".encode())
    chunk = b" " * 65536
    for _ in range(BOMB_BYTES // len(chunk)):
        connection.send(chunk)


def healthy(connection: Connection) -> None:
    connection.request()
    connection.answer(200, envelope(status="processing", amount="100.00"))


BOMB: Final = gzip.compress(b"\0" * BOMB_BYTES, compresslevel=1)

BEHAVIOURS: Final[dict[str, Behaviour]] = {
    "reset at once": reset_at_once,
    "reset after the head": reset_after_head,
    "reset after the request": reset_after_request,
    "close after the request": close_after_request,
    "hang": hang,
    "never read": never_read,
    "drip headers": drip_headers,
    "drip a body": drip_body,
    "truncate": answer(200, envelope()[:50], length=400),
    "endless chunks": endless_chunks,
    "garbage": garbage,
    "continue and nothing": continue_and_nothing,
    "long headers": long_headers,
    "plain flood": plain_flood,
    "gzip bomb": answer(200, BOMB, "Content-Encoding: gzip"),
    "HTML": answer(200, HTML, "Content-Type: text/html"),
    "HTML 500": answer(500, HTML, "Content-Type: text/html"),
    "not JSON": answer(200, b'{"success": tru'),
    "deep JSON": answer(200, b"[" * 100_000),
    "success false": answer(200, b'{"success": false, "message": "no"}'),
    "no data": answer(200, b'{"success": true}'),
    "no reference": answer(200, b'{"success": true, "data": {"status": "initiated"}}'),
    "other amount": answer(200, envelope(amount=1000)),
    "other phone": answer(200, envelope(phone="254700000001")),
    **{f"redirect {n}": answer(n, b"", "Location: /elsewhere") for n in (301, 302, 303, 307, 308)},
    **{f"refuse {n}": refuse(n) for n in (400, 401, 403, 404, 409, 422, 429, 500, 502, 503)},
}


class HostileServer:
    """Accepts on a thread of its own, and plays one behaviour until told another."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.connections: list[Connection] = []
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/api"

    @property
    def heads(self) -> list[bytes]:
        """The first line of every request of which one byte was read."""
        return [c.received.partition(b"\r\n")[0] for c in self.connections if c.received]

    @property
    def initiates(self) -> int:
        return sum(head.startswith(b"POST /api/mpesa/payment/initiate") for head in self.heads)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._start(self._accept)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            connection = Connection(sock, self._stop)
            self.connections.append(connection)
            self._start(self._serve, connection, self.behaviour)

    def _serve(self, connection: Connection, behaviour: Behaviour) -> None:
        with connection.sock:
            try:
                behaviour(connection)
            except OSError:
                return
