"""One exchange with the server: owned by the client, bounded in time and size, with a verdict.

The only module of the client that imports httpx.

Whether a request left this machine is proven, not guessed from an exception's class: httpcore calls
the `trace` extension with `send_request_headers.started` before the first byte goes out. As long as
that has not happened, an exchange can still be given up, and then it never will. Afterwards,
anything but a whole answer is unknown.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, Self, TypeVar

import anyio
import httpx
from anyio.lowlevel import checkpoint_if_cancelled

from ._discreet import discreet
from ._log import say
from ._readers import NoAnswerError, open_reader
from ._tasks import OwnedTask, OwnedTasks, is_asyncio, running_loop
from ._version import __version__
from ._wire import (
    BODY_BYTES_MAX,
    Call,
    Secret,
    connection_error,
    oversized_error,
)
from .exceptions import APIError, ClientStateError, ConfigurationError
from .models import APIResponse

if TYPE_CHECKING:
    import ssl

    from ._readers import Reader, TransportName

__all__ = ["HTTPClient", "Transport"]


T = TypeVar("T")
Conclude = Callable[[APIResponse | APIError], T]
"""Turns the end of an exchange into the caller's result, or raises. Runs exactly once, in the
client's own task, whatever has become of the caller."""

CONNECTIONS_MAX: Final = 100
INITIATES_MAX: Final = 10
_POOL_CONNECTIONS_MAX: Final = 10  # of a client's that is not ours: httpcore's pool has its price
_KEEPALIVE_SECONDS: Final = 60.0
_CONNECT_SECONDS_MAX: Final = 10.0
_BACKSTOP_SECONDS: Final = 1.0
_FINISH_SECONDS: Final = 5.0
_CLOSE_SECONDS: Final = 1.0

_NEVER_SENT_WITHOUT_TRACE: Final = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout"})
"""The exceptions that prove it where a transport does not call the trace (a mock, an ASGI app)."""


class HTTPClient(Protocol):
    """What `http_client=` takes: an `httpx.AsyncClient`, or one of its successor, httpx2."""

    def build_request(
        self,
        method: str,
        url: str,
        *,
        content: bytes | None,
        headers: Mapping[str, str],
        timeout: tuple[float, float, float, float],
        extensions: dict[str, Any],
    ) -> Any:  # noqa: ANN401  # each has a class of its own, with one interface
        """Make a request."""

    async def send(self, request: Any, *, stream: bool, auth: None, follow_redirects: bool) -> Any:  # noqa: ANN401
        """Send it, and return the answer's beginning."""

    async def aclose(self) -> None:
        """Close the client."""


class _NotAgainError(Exception):
    """Raised inside httpcore, before the first byte, to keep a request from leaving."""


class _Exchange(Generic[T]):
    """One request on its way, and what is proven about it."""

    def __init__(self, call: Call, conclude: Conclude[T], *, deadline: float) -> None:
        self.call = call
        self.deadline = deadline
        self.settled = False
        self._conclude = conclude
        self._begun = False
        self._traced = False
        self._headers_sent = False
        self._given_up = False
        self._scope = anyio.CancelScope(deadline=deadline + _BACKSTOP_SECONDS)
        self._value: T
        self._error: Exception | None = None

    @property
    def may_have_left(self) -> bool:
        """Whether it is not proven that the request is still here."""
        return self._headers_sent or (self._begun and not self._traced)

    def begin(self) -> anyio.CancelScope:
        """Hand the request to the transport. Returns the scope to do it in."""
        self._begun = True
        return self._scope

    async def trace(self, event: str, info: Mapping[str, object]) -> None:
        """Watch httpcore at work; called before each of its steps, and after."""
        self._traced = True
        if not event.endswith("send_request_headers.started"):
            return
        if getattr(info.get("request"), "method", None) == b"CONNECT":
            return  # to a proxy: our own request comes after it
        if self._given_up:
            msg = "given up before it was sent"
            raise _NotAgainError(msg)
        if self._headers_sent and self.call.moves_money:
            msg = "a transport tried to send the request a second time"
            raise _NotAgainError(msg)
        self._headers_sent = True
        # From here on a cancellation finds httpcore inside the block that closes the connection
        # and frees its place; before, it could lose the place. Until here, httpx's own connect
        # timeout bounds the time.
        self._scope.deadline = self.deadline

    def failed(self, error: BaseException, key: Secret) -> APIError:
        """Translate what a transport raised."""
        names = {kind.__name__ for kind in type(error).__mro__}
        never_sent = not self._headers_sent and (
            self._traced or not names.isdisjoint(_NEVER_SENT_WITHOUT_TRACE)
        )
        reason = f"{type(error).__name__}: {error}".removesuffix(": ")
        translated = connection_error(
            self.call,
            reason.replace(key.reveal(), "[key]"),
            never_sent=never_sent,
            timed_out="TimeoutException" in names,
        )
        translated.__cause__ = None if _tells_too_much(reason, key) else error
        return translated

    def ended_early(self, reason: str, *, timed_out: bool = False) -> APIError:
        """Describe an end without an answer that no transport has raised."""
        return connection_error(
            self.call, reason, never_sent=not self.may_have_left, timed_out=timed_out
        )

    def timed_out(self) -> APIError:
        """Describe the end of the time allowed."""
        return self.ended_early("no whole answer within the time allowed", timed_out=True)

    def give_up(self, answer: APIError) -> None:
        """Settle without an answer, and see to it that a request still here never leaves."""
        self._given_up = True
        if self.may_have_left:
            self._scope.cancel()
        self.settle(answer)

    def settle(self, answer: APIResponse | APIError) -> None:
        """Draw the conclusion, once."""
        if self.settled:
            return
        self.settled = True
        say("exchange.ended", method=self.call.method, call=self.call.name, answer=answer)
        try:
            self._value = self._conclude(answer)
        except Exception as error:  # noqa: BLE001  # handed to the caller by `result`
            self._error = error

    def result(self) -> T:
        """Return the conclusion, or raise it."""
        if self._error is not None:
            raise self._error
        return self._value


def _nothing() -> None:
    """Do nothing."""


class Transport:
    """The way to the server: one pool, one event loop, a bounded number of exchanges."""

    def __init__(
        self,
        *,
        base_url: str,
        http_client: HTTPClient | None,
        trust_env: bool,
        reads_with: TransportName = "httpx",
    ) -> None:
        """Prepare; nothing is opened before the first exchange.

        Raises:
            ConfigurationError: if *http_client* is not an async client, or there is no such way
                to read.
        """
        if http_client is not None and not _library_of(http_client):
            msg = f"http_client must be an httpx.AsyncClient, not {type(http_client).__name__}"
            raise ConfigurationError(msg)
        self._base_url = base_url
        self._library = "httpx" if http_client is None else _library_of(http_client)
        self._ours = http_client is None
        self._lanes: _Lanes | None = None
        self._http: HTTPClient
        if http_client is not None:
            self._http = http_client
        elif trust_env:
            self._http = httpx.AsyncClient(
                trust_env=True,
                limits=httpx.Limits(max_connections=_POOL_CONNECTIONS_MAX + INITIATES_MAX),
            )
        else:
            self._lanes = _Lanes()
        open_with = open_reader(reads_with)
        self._open_reader = None if self._lanes is None else open_with
        self._reader: Reader | None = None
        self._closed = False
        self._loop: object = None
        self._tasks: OwnedTasks

    @property
    def connections_max(self) -> int:
        """How many reads may be under way.

        httpcore's queue slows down with every request in it: whoever calls keeps to this number.
        """
        return _POOL_CONNECTIONS_MAX if self._lanes is None else CONNECTIONS_MAX

    @property
    def initiates_max(self) -> int:
        """How many initiates may be under way."""
        return INITIATES_MAX

    def now(self) -> float:
        """Tell the time of the event loop that the client is bound to."""
        return self._tasks.now()

    def enter(self) -> OwnedTasks:
        """Bind to the running event loop, at the first use; return the client's tasks on it.

        Raises:
            ClientStateError: if the client is closed, or bound to another loop.
        """
        if self._closed:
            msg = "the client is closed: nothing was sent; create a new one"
            raise ClientStateError(msg)
        try:
            loop = running_loop()
            if self._loop is None:
                self._tasks = OwnedTasks()  # not from a bare callback of the loop, either
                self._loop = loop
                self._open_own_reader()
        except anyio.NoEventLoopError:
            msg = "the client works inside a running event loop: call it from an async function"
            raise ClientStateError(msg) from None
        if self._loop != loop:
            msg = (
                "the client was first used in another event loop: nothing was sent; "
                "create one client in each (asyncio.run() starts a new loop every time)"
            )
            raise ClientStateError(msg)
        return self._tasks

    def _open_own_reader(self) -> None:
        if is_asyncio() and self._open_reader is not None:
            self._reader = self._open_reader()

    async def exchange(
        self,
        call: Call,
        key: Secret,
        conclude: Conclude[T],
        *,
        timeout_seconds: float,
        headers: Mapping[str, str],
        over: Callable[[], None] = _nothing,
    ) -> T:
        """Make one call: at most one request, one answer, within one time limit.

        The exchange goes on when the caller is cancelled after the request has left: *conclude*
        learns the answer all the same.

        Args:
            call: what to ask.
            key: to authenticate with.
            conclude: called once, as soon as the end is known.
            timeout_seconds: from now.
            headers: besides the client's own.
            over: called once, when no connection is in use any more. That is later than the
                conclusion where an exchange is given up: while it still connects, by seconds.

        Returns:
            What *conclude* makes of the answer or, without one, of the `APIError`.
        """
        tasks = self.enter()
        if self._reader is not None and not call.moves_money:
            try:
                return await self._read(self._reader, call, key, conclude, timeout_seconds, headers)
            finally:
                over()
        exchange = _Exchange(call, conclude, deadline=self.now() + timeout_seconds)
        task: OwnedTask | None = None
        scope = anyio.CancelScope(deadline=exchange.deadline)
        try:
            with scope:
                await checkpoint_if_cancelled()
                run = partial(self._run, exchange, key, headers, over)
                task = tasks.start(run, finish=call.moves_money)
                await task.wait()
        finally:
            if scope.cancelled_caught or not exchange.may_have_left:
                exchange.give_up(exchange.timed_out())
            if task is None:
                over()
        return exchange.result()

    async def aclose(self) -> None:
        """Let a payment that is being initiated have its answer, end all else, close the pool."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._loop is not None:
                await self._tasks.close(_FINISH_SECONDS)
        finally:
            if self._ours:
                with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
                    await (self._lanes or self._http).aclose()
            if self._reader is not None:
                with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
                    await self._reader.aclose()

    async def _read(
        self,
        reader: Reader,
        call: Call,
        key: Secret,
        conclude: Conclude[T],
        seconds: float,
        headers: Mapping[str, str],
    ) -> T:
        """Read without httpx.

        A caller who is cancelled takes the exchange with him: these pools survive that, and nothing
        is lost with a read.
        """
        started = self.now()
        answer: APIResponse | APIError | None = None
        try:
            status_code, told, body = await reader.read(
                call.method,
                self._base_url + call.path,
                _headers(call, key, headers, reader.library),
                call.body,
                seconds=max(seconds, 0.001),
                bytes_max=BODY_BYTES_MAX,
            )
            answer = APIResponse(
                status_code=status_code,
                headers=told,
                body=body[:BODY_BYTES_MAX],
                elapsed_seconds=self.now() - started,
            )
            if len(body) > BODY_BYTES_MAX:
                answer = oversized_error(call, answer)
        except NoAnswerError as error:
            reason = str(error).replace(key.reveal(), "[key]")
            answer = connection_error(call, reason, never_sent=False, timed_out=error.timed_out)
            answer.__cause__ = None if _tells_too_much(str(error), key) else error
        finally:
            if answer is None:  # cancelled: the conclusion is drawn all the same
                gone = connection_error(
                    call, "the caller was cancelled", never_sent=False, timed_out=False
                )
                with suppress(APIError):
                    conclude(gone)
        say("exchange.ended", method=call.method, call=call.name, answer=answer)
        return conclude(answer)

    async def _run(
        self,
        exchange: _Exchange[T],
        key: Secret,
        headers: Mapping[str, str],
        over: Callable[[], None],
    ) -> None:
        answer: APIResponse | APIError | None = None
        try:
            if exchange.settled:
                return  # given up before this task had its first turn
            with exchange.begin() as scope:
                answer = await self._round_trip(exchange, key, headers)
            if scope.cancelled_caught:
                answer = exchange.timed_out()
        except Exception as error:  # noqa: BLE001  # whatever a transport raises is translated
            answer = error if isinstance(error, APIError) else exchange.failed(error, key)
        finally:
            exchange.settle(answer or exchange.ended_early("the client was closed"))
            over()

    async def _round_trip(
        self, exchange: _Exchange[T], key: Secret, headers: Mapping[str, str]
    ) -> APIResponse:
        started = self.now()
        left = max(exchange.deadline - started, 0.001)
        headers = _headers(exchange.call, key, headers, self._library)
        timeout = {
            "connect": min(left, _CONNECT_SECONDS_MAX),
            "read": left,
            "write": left,
            "pool": left,
        }
        if self._lanes is None:
            return await self._over_client(exchange, headers, timeout, started)
        lane = self._lanes.take(exchange.call)
        try:
            request = httpx.Request(
                exchange.call.method,
                self._base_url + exchange.call.path,
                headers=headers,
                content=exchange.call.body,
                extensions={"timeout": timeout, "trace": exchange.trace},
            )
            request.stream = _Body(exchange.call.body or b"")
            response = await lane.handle_async_request(request)
            try:
                return await _read(exchange.call, response, started)
            finally:
                await response.aclose()
        finally:
            self._lanes.put_back(exchange.call, lane)

    async def _over_client(
        self,
        exchange: _Exchange[T],
        headers: Mapping[str, str],
        timeout: Mapping[str, float],
        started: float,
    ) -> APIResponse:
        """Use a client that somebody has set up, or that the environment has."""
        request = self._http.build_request(
            exchange.call.method,
            self._base_url + exchange.call.path,
            content=exchange.call.body,
            headers=headers,
            # A tuple, because an httpx2 client does not take httpx's class.
            timeout=(timeout["connect"], timeout["read"], timeout["write"], timeout["pool"]),
            extensions={"trace": exchange.trace},
        )
        if type(request.stream) is httpx.ByteStream:  # pragma: no branch  # a successor has its own
            request.stream = _Body(exchange.call.body or b"")
        # `auth=None`: a challenge-response scheme of a borrowed client would send the body twice.
        response: httpx.Response = await self._http.send(
            request, stream=True, auth=None, follow_redirects=False
        )
        try:
            return await _read(exchange.call, response, started)
        finally:
            await response.aclose()


class _Lanes:
    """httpx transports of one connection each; whoever comes takes the one that was used last.

    httpcore 1.0.9 looks through all connections of its pool for each request, several times, and
    asks the socket of each idle one whether it is readable. That is half of the time of a request
    at ten connections, and nearly all of it at fifty. In a pool of one there is nothing to look
    through. None of the client's layers lies between: no proxy, no hook, no cookie.

    A payment goes out on a connection of its own: one that the server has just closed, because it
    was idle, would leave the outcome unknown.
    """

    def __init__(self) -> None:
        self._free: dict[bool, list[httpx.AsyncHTTPTransport]] = {True: [], False: []}
        self._all: list[httpx.AsyncHTTPTransport] = []
        self._ssl: ssl.SSLContext | None = None

    def take(self, call: Call) -> httpx.AsyncHTTPTransport:
        free = self._free[call.moves_money]
        return free.pop() if free else self._open(1 - call.moves_money)

    def put_back(self, call: Call, lane: httpx.AsyncHTTPTransport) -> None:
        self._free[call.moves_money].append(lane)

    async def aclose(self) -> None:
        for lane in self._all:
            await lane.aclose()

    def _open(self, kept_alive: int) -> httpx.AsyncHTTPTransport:
        if self._ssl is None:
            self._ssl = httpx.create_ssl_context(trust_env=False)  # slow, so once, and when needed
        lane = httpx.AsyncHTTPTransport(
            verify=self._ssl,
            trust_env=False,
            limits=httpx.Limits(
                max_connections=1,
                max_keepalive_connections=kept_alive,
                keepalive_expiry=_KEEPALIVE_SECONDS,
            ),
        )
        self._all.append(lane)
        return lane


class _Headers(dict[str, str]):
    """The headers of a request, which print no value: reports of errors show local variables."""

    def __repr__(self) -> str:
        return f"<headers {', '.join(self)}>"


def _headers(call: Call, key: Secret, headers: Mapping[str, str], library: str) -> _Headers:
    return _Headers(
        {
            **({"Content-Type": "application/json"} if call.body else {}),
            "Accept": "application/json",
            "User-Agent": _user_agent(library),
            **headers,
            "Accept-Encoding": "identity",
            "X-API-Key": key.reveal(),
        }
    )


@cache
def _user_agent(library: str) -> str:
    version = import_module(library).__version__  # it is loaded: it sends the request
    return f"paynexus-async/{__version__} python/{platform.python_version()} {library}/{version}"


def _tells_too_much(reason: str, key: Secret) -> bool:
    """Whether a foreign error's own words hold a key or a phone: a traceback would print them."""
    return key.reveal() in reason or discreet(reason) != reason


class _Body(httpx.ByteStream):
    """A body in one piece.

    httpx's own is a generator, which a connection that breaks while it is sent leaves suspended;
    trio then warns of it, long after and far away.
    """

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self._left = [body]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


async def _read(call: Call, response: httpx.Response, started: float) -> APIResponse:
    """Read an answer as it came: not decompressed, and no more of it than a real one has."""
    body = bytearray()
    if response.is_stream_consumed:  # a mock's answer is there at once
        body += response.content[: BODY_BYTES_MAX + 1]
    else:
        await _read_into(body, response)
    answer = APIResponse(
        status_code=response.status_code,
        headers=dict(response.headers),
        body=bytes(body[:BODY_BYTES_MAX]),
        elapsed_seconds=anyio.current_time() - started,
    )
    if len(body) > BODY_BYTES_MAX:
        raise oversized_error(call, answer)
    return answer


async def _read_into(body: bytearray, response: httpx.Response) -> None:
    """Read a body up to the limit, and a little more if it is larger.

    A loop that breaks off would leave the generators of httpx and httpcore suspended, to be
    finalised whenever; so the connection is closed instead, and the loop runs into that.
    """
    try:
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > 2 * BODY_BYTES_MAX:
                return  # a transport that cannot be closed
            if len(body) > BODY_BYTES_MAX:
                await response.aclose()
    except Exception:
        if len(body) <= BODY_BYTES_MAX:
            raise


def _library_of(client: object) -> str:
    """Return whose async client it is, httpx's or its successor's; nothing if it is neither's."""
    for kind in type(client).__mro__:
        library = kind.__module__.partition(".")[0]
        if kind.__name__ == "AsyncClient" and library in {"httpx", "httpx2"}:
            return library
    return ""
