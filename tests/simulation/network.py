"""A network in memory, below httpcore: connections, the bytes on them, and a log of all exchanges.

What the server "received" is what arrived there, byte for byte: a request exists for it when its
last byte has come, whatever the client has been told meanwhile.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import attrs
import httpcore
import httpcore2

from .faults import CONNECT_FAULTS, REQUEST_BREAKS, Fate, draw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from random import Random
    from types import ModuleType

    from .clock import Runtime

__all__ = ["ORIGIN", "Exchange", "Network", "Origin", "Stream", "Trace"]


@attrs.frozen
class Origin:
    """Who makes a request: tasks of the client's inherit it from whoever started them.

    Attributes:
        kind: `initiate`, `read`, `look`, or `probe`.
        call: the number of the workload's call; 0 for a look.
        client: the number of the client.
        about: the payment that a look is about.
    """

    kind: str
    call: int
    client: int
    about: str = ""


ORIGIN: Final[ContextVar[Origin]] = ContextVar("ORIGIN")


class Trace:
    """Everything that happens, in order; its digest tells whether two runs are the same."""

    def __init__(self, now: Callable[[], float], *, prints: bool) -> None:
        self._now = now
        self._prints = prints
        self._digest = hashlib.blake2b(digest_size=16)
        self.events = 0

    def __call__(self, *words: object) -> None:
        line = f"{self._now():12.6f} " + " ".join(map(str, words))
        self._digest.update(line.encode("utf-8", "backslashreplace"))
        self.events += 1
        if self._prints:
            print(line)

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()


@attrs.define(eq=False)
class Exchange:
    """One attempt to ask the server something, as seen from the wire.

    Attributes:
        started_at: when the client began it: to connect, or to write.
        left_at: when the client handed over the first byte.
        received: what has arrived of the request.
        total: the bytes of the whole request, once its head is known.
        is_struck: whether its connection ended under it for the exchange before it.
        complete_at: when the last byte had arrived.
        handled_at: when the ledger had answered it.
        reference: of the payment that it was about.
        status_code: of the answer.
        names_reference: whether the answer has one, right or wrong.
        told: the status that the answer tells, if it tells one of this payment.
        is_true: whether that is what was true.
        pause: what a 429 states, in seconds; negative if it states nothing.
        lied: whether the server pushed a prompt and then refused.
        page: which page of the list was asked for, if one was.
        listed: the status of each payment on it.
        ends_by_closing: whether only the end of its connection tells that the answer is whole.
        seems_whole: whether what is sent of the answer ends where only its connection's end tells,
            and may do so too early.
        is_readable: whether the answer is HTTP, and not too large to be read.
        read_at: when the client could tell that it had read the whole answer.
        seems_whole_at: when it had to take what it had read for the whole answer.
        ended_at: when its connection was given back or gone.
    """

    number: int
    origin: Origin
    fate: Fate
    started_at: float
    epoch: int
    initiates: bool
    left_at: float | None = None
    key: str = ""
    received: bytearray = attrs.field(factory=bytearray)
    written: int = 0
    total: int | None = None
    cut: int | None = None
    broken: bool = False
    is_struck: bool = False
    complete_at: float | None = None
    handled_at: float | None = None
    reference: str | None = None
    status_code: int = 0
    names_reference: bool = False
    told: str | None = None
    is_true: bool = False
    pause: float = -1.0
    lied: bool = False
    page: int | None = None
    listed: Mapping[str, str] = attrs.field(factory=dict)
    fed_whole: bool = False
    ends_by_closing: bool = False
    seems_whole: bool = False
    is_readable: bool = True
    seems_whole_at: float | None = None
    read_at: float | None = None
    ended_at: float | None = None


class Network(httpcore.AsyncNetworkBackend):
    """All connections of one run.

    Attributes:
        core: httpcore or httpcore2: whichever lies above raises and expects errors of its own.
    """

    def __init__(
        self, runtime: Runtime, rng: Random, *, roughness: float, trace: Trace, core: ModuleType
    ) -> None:
        self.runtime = runtime
        self.core = core
        self.rng = rng
        self.roughness = roughness
        self.is_calm = False
        self.trace = trace
        self.hits: Counter[str] = Counter()
        self.exchanges: list[Exchange] = []
        self.streams: dict[Stream, None] = {}
        self.epoch = 0
        self.refuses_until = -1.0
        self.serve: Callable[[Exchange, Stream], None]

    def begin(self) -> Exchange:
        origin = ORIGIN.get()
        initiates = origin.kind == "initiate"
        fate = draw(self.rng, initiates=initiates, roughness=self.roughness, is_calm=self.is_calm)
        exchange = Exchange(
            number=len(self.exchanges),
            origin=origin,
            fate=fate,
            started_at=self.runtime.now(),
            epoch=self.epoch,
            initiates=initiates,
        )
        self.exchanges.append(exchange)
        if self.core is httpcore2:
            self.hit(f"over httpx2, on {self.runtime.name}")
        whose = f"#{origin.call}" if origin.call else origin.about
        self.trace("begin", f"x{exchange.number}", origin.kind, whose, fate.fault)
        return exchange

    def hit(self, fault: str) -> None:
        self.hits[fault] += 1

    def restart_server(self, seconds: float) -> None:
        """Let all connections die, and refuse new ones for a while."""
        self.hit("server restarts")
        self.trace("server restarts", f"{seconds:.3f}")
        self.epoch += 1
        self.refuses_until = self.runtime.now() + seconds
        for stream in tuple(self.streams):
            stream.lose()
            stream.fail("reset", 0.01)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> Stream:
        exchange = self.begin()
        try:
            await self._connect(exchange, timeout)
        except BaseException:
            exchange.ended_at = self.runtime.now()
            self.trace("not connected", f"x{exchange.number}")
            raise
        stream = Stream(self, exchange)
        self.streams[stream] = None
        return stream

    async def _connect(self, exchange: Exchange, timeout: float | None) -> None:
        fate, runtime = exchange.fate, self.runtime
        if fate.fault in CONNECT_FAULTS:
            self.hit(fate.fault)
        seconds = {"connect slow": fate.seconds, "connect hangs": 1e6}.get(fate.fault, fate.there)
        if timeout is not None and seconds >= timeout:
            await runtime.sleep(timeout)
            raise self.core.ConnectTimeout("simulated")
        await runtime.sleep(seconds)
        if fate.fault == "connect refused":
            raise self.core.ConnectError("[Errno 111] refused, in a simulation")
        if runtime.now() < self.refuses_until:
            self.hit("refused while restarting")
            raise self.core.ConnectError("[Errno 111] refused, in a simulation")
        exchange.epoch = self.epoch

    async def connect_unix_socket(self, *_: object, **__: object) -> Stream:
        raise NotImplementedError

    async def sleep(self, seconds: float) -> None:
        await self.runtime.sleep(seconds)


class Stream(httpcore.AsyncNetworkStream):
    """One connection, from the client's end."""

    def __init__(self, network: Network, first: Exchange) -> None:
        self.network = network
        self.exchange = first
        self.closed = False
        self._inbox = bytearray()
        self._end: str | None = None  # "closed" or "reset", once that has arrived
        self._bell = network.runtime.bell()

    # --- The client's side

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not buffer:
            return
        if self.closed:
            raise self.network.core.WriteError("simulated: closed")
        exchange = self.exchange
        if exchange.total is None:
            self._leave(exchange, buffer)
        elif exchange.written == exchange.total:
            exchange.ended_at = exchange.ended_at or self.network.runtime.now()
            exchange = self.exchange = self.network.begin()
            self._leave(exchange, buffer, reused=True)
        exchange.written += len(buffer)
        await self._pass(exchange, buffer, timeout)

    def _leave(self, exchange: Exchange, head: bytes, *, reused: bool = False) -> None:
        """Note a request whose first byte goes out now, and decide where it will break."""
        network, fate = self.network, exchange.fate
        exchange.left_at = network.runtime.now()
        # To find out whether an old prompt is over, `initiate_payment` may read first.
        exchange.initiates = head.startswith(b"POST /api/mpesa/payment/initiate ")
        exchange.total = _bytes_of_request(head)
        exchange.key = _header(head, b"x-api-key")
        if fate.fault in REQUEST_BREAKS:
            exchange.cut = int(fate.share * (exchange.total + 1))
            network.hit(fate.fault)
        elif reused and fate.fault == "stale keep-alive":
            exchange.cut = 0
            network.hit(fate.fault)

    async def _pass(self, exchange: Exchange, buffer: bytes, timeout: float | None) -> None:
        """Let bytes arrive at the server, as far as they get."""
        network, fate = self.network, exchange.fate
        if exchange.broken or self._end == "reset":
            return  # into a connection that is no more: the operating system takes it all the same
        start, total = exchange.written - len(buffer), exchange.total or 0
        cut = total if exchange.cut is None else exchange.cut
        goes = min(max(cut - start, 0), len(buffer))
        first = goes if fate.pauses is None else int(fate.pauses * goes)
        exchange.received += buffer[:first]
        if first < goes:
            network.hit("request pauses while written")
            await network.runtime.sleep(fate.seconds / 10)
            if exchange.broken:
                return
            exchange.received += buffer[first:goes]
        if len(exchange.received) == total:
            exchange.complete_at = network.runtime.now()
            network.trace("received", f"x{exchange.number}", bytes(exchange.received))
            network.runtime.later(fate.there, lambda: network.serve(exchange, self))
        elif exchange.written >= cut:
            await self._break(exchange, timeout)

    async def _break(self, exchange: Exchange, timeout: float | None) -> None:
        """Break the connection in the middle of a request."""
        network, fate = self.network, exchange.fate
        exchange.broken = True
        network.trace("cut", f"x{exchange.number}", bytes(exchange.received))
        how = REQUEST_BREAKS.get(fate.fault, "reset" if fate.share < 0.5 else "closed")
        if how == "write error":
            self._end = "reset"
            raise network.core.WriteError("simulated: broken pipe")
        if how == "write stall":
            await self._bell.wait(timeout)
            raise network.core.WriteTimeout("simulated")
        if how == "early answer":
            early = b"HTTP/1.1 400 Bad\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
            exchange.status_code = 400
            self.feed(early, fate.back, last_of=exchange)
        if how != "stall":
            self.fail("closed" if how == "early answer" else how, fate.back + 0.001)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        while True:
            if self.closed:
                raise self.network.core.ReadError("simulated: closed")
            if self._inbox:
                data = bytes(self._inbox[:max_bytes])
                del self._inbox[:max_bytes]
                self._note_read()
                return data
            if self._end == "reset":
                raise self.network.core.ReadError("[Errno 104] reset, in a simulation")
            if self._end is not None:
                self._note_read()
                return b""
            if not await self._bell.wait(timeout):
                raise self.network.core.ReadTimeout("simulated")

    def _note_read(self) -> None:
        exchange = self.exchange
        is_over = not self._inbox and (self._end == "closed" or not exchange.ends_by_closing)
        has_come = exchange.fed_whole or exchange.seems_whole
        if has_come and is_over and exchange.seems_whole_at is None:
            exchange.seems_whole_at = self.network.runtime.now()
        if exchange.fed_whole and is_over and exchange.read_at is None:
            exchange.read_at = self.network.runtime.now()
            if exchange.is_readable:  # else the client may well wait for more
                exchange.ended_at = exchange.read_at
            self.network.trace(
                "answered", f"x{exchange.number}", exchange.status_code, exchange.told
            )

    async def aclose(self) -> None:
        if not self.closed:
            self.closed = True
            self.exchange.ended_at = self.exchange.ended_at or self.network.runtime.now()
            self.network.trace("closed", f"x{self.exchange.number}")
            self.network.streams.pop(self, None)
            self._bell.ring()

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            return bool(self._inbox) or self._end is not None
        return None

    # --- The server's side

    def lose(self) -> None:
        """Forget what was on its way: the server is gone."""
        self.exchange.broken = True

    def feed(self, data: bytes, seconds: float, *, last_of: Exchange | None = None) -> None:
        """Let bytes arrive at the client, after so many seconds.

        Args:
            data: the bytes.
            seconds: from now.
            last_of: whose answer is whole with them.
        """

        def arrive() -> None:
            if not self.closed and self._end is None:
                self._inbox += data
                if last_of is not None:
                    last_of.fed_whole = True
                self._bell.ring()

        self.network.runtime.later(seconds, arrive)

    def fail(self, how: str, seconds: float) -> None:
        """Let the connection's end arrive at the client."""
        about = self.exchange

        def arrive() -> None:
            if not self.closed and self._end is None:
                self._end = how
                self.exchange.is_struck = self.exchange is not about
                if how == "reset":
                    self._inbox.clear()
                self._bell.ring()

        self.network.runtime.later(seconds, arrive)

    def close_if_idle(self, exchange: Exchange, seconds: float) -> None:
        """Close the connection unless another request is on it by then."""

        def arrive() -> None:
            if self.exchange is exchange and exchange.read_at and not self.closed:
                self.network.hit("idle connection closed")
                self._end = self._end or "closed"

        self.network.runtime.later(seconds, arrive)


def _bytes_of_request(head: bytes) -> int:
    return len(head) + int(_header(head, b"content-length") or 0)


def _header(head: bytes, name: bytes) -> str:
    for line in head.split(b"\r\n"):
        found, _, value = line.partition(b":")
        if found.lower() == name:
            return value.strip().decode()
    return ""
