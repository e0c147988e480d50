"""One exchange: who owns it, how long it may take, and what is proven about it."""

from __future__ import annotations

import asyncio
import platform
import ssl
import traceback
from functools import partial
from importlib import import_module
from typing import Any, ClassVar

import anyio
import httpx
import pytest

from paynexus_async import (
    APIConnectionError,
    APIError,
    APIResponse,
    APIResponseError,
    APITimeoutError,
    AsyncPayNexus,
    ClientStateError,
    ConfigurationError,
    PaymentOutcomeUnknown,
    __version__,
)
from paynexus_async._readers import NoAnswerError, _Aiohttp
from paynexus_async._transport import Transport, _headers
from paynexus_async._wire import (
    BODY_BYTES_MAX,
    Intent,
    Secret,
    initiate_call,
    outcome_of_initiate,
    status_call,
)
from paynexus_async.models import Expectation

from .fakes import PHONE, PUBLIC_KEY, SECRET_KEY, FakeServer, client_over, initiated, over_both

pytestmark = pytest.mark.anyio

KEY = Secret(SECRET_KEY)
INTENT = Intent(100, PHONE)
READ = status_call(Expectation(reference="PNX1"))


class Tracing(httpx.AsyncBaseTransport):
    """A transport that traces like httpcore, and fails where it is told to."""

    def __init__(self, *steps: str | float | Exception, sends: int = 1) -> None:
        self.steps = steps
        self.sends = sends
        self.sent = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        trace = request.extensions["trace"]
        for step in self.steps:
            if isinstance(step, Exception):
                raise step
            if isinstance(step, float):
                await anyio.sleep(step)
            elif step == "tunnel":
                connect = httpx.Request("CONNECT", "http://proxy")
                connect.method = b"CONNECT"  # type: ignore[assignment]  # as httpcore spells it
                await trace("http11.send_request_headers.started", {"request": connect})
            else:
                await trace(step, {})
                self.sent += step.endswith("send_request_headers.started")
        return httpx.Response(200, json={"success": True, "data": {}})


CONNECTING = "connection.connect_tcp.started"
HEADERS = "http11.send_request_headers.started"


def transport_over(over: httpx.AsyncBaseTransport, library: str = "httpx") -> Transport:
    client = client_over(over, library)
    return Transport(base_url="https://x.example/api", http_client=client, trust_env=False)


def keep(answer: APIResponse | APIError) -> Any:
    return answer


async def initiate(transport: Transport, seconds: float = 1.0) -> Any:
    conclude = partial(outcome_of_initiate, INTENT)
    return await transport.exchange(
        initiate_call(INTENT), KEY, conclude, timeout_seconds=seconds, headers={}
    )


async def ask(transport: Transport, seconds: float = 1.0) -> Any:
    return await transport.exchange(READ, KEY, keep, timeout_seconds=seconds, headers={})


@over_both
@pytest.mark.parametrize(
    ("steps", "verdict"),
    [
        ([CONNECTING, httpx.ReadTimeout("slow")], "never sent"),
        ([CONNECTING, httpx.ConnectError("refused")], "never sent"),
        ([CONNECTING, RuntimeError("a defect in a transport")], "never sent"),
        (["tunnel", httpx.ProxyError("the proxy said no")], "never sent"),
        ([CONNECTING, HEADERS, httpx.ReadTimeout("slow")], "unknown"),
        ([CONNECTING, HEADERS, httpx.ConnectError("odd, but it had left")], "unknown"),
        ([HEADERS, httpx.RemoteProtocolError("cut")], "unknown"),
        ([HEADERS, httpx.WriteTimeout("half of it")], "unknown"),
        ([HEADERS, ValueError("a defect in a transport")], "unknown"),
        (["tunnel", HEADERS, httpx.ReadError("reset")], "unknown"),
        ([httpx.ConnectError("refused")], "never sent"),
        ([httpx.ConnectTimeout("slow")], "never sent"),
        ([httpx.PoolTimeout("full")], "never sent"),
        ([httpx.ReadTimeout("slow")], "unknown"),
        ([httpx.RemoteProtocolError("cut")], "unknown"),
        ([OSError("a mock's own")], "unknown"),
        (["http2.send_request_headers.started", httpx.ReadError("reset")], "unknown"),
    ],
)
async def test_never_sent_is_proved_by_the_trace(steps, verdict, library):
    """The exception's class counts only where a transport never traced at all."""
    transport = transport_over(Tracing(*steps), library)
    expected = APIConnectionError if verdict == "never sent" else PaymentOutcomeUnknown
    with pytest.raises(expected) as caught:
        await initiate(transport)
    error = getattr(caught.value, "error", caught.value)
    assert error.never_sent is (verdict == "never sent")
    assert error.__cause__ is not None
    await transport.aclose()


@over_both
async def test_a_transport_that_repeats_by_itself_is_stopped_before_the_second_body(library):
    """At most one request per initiate, even with a retrying transport underneath."""
    over = Tracing(HEADERS, HEADERS)
    transport = transport_over(over, library)
    with pytest.raises(PaymentOutcomeUnknown, match="a second time"):
        await initiate(transport)
    assert over.sent == 1
    over.sent = 0
    assert isinstance(await ask(transport), APIResponse)  # a read may be repeated
    await transport.aclose()


@over_both
@pytest.mark.parametrize(
    ("steps", "never_sent"),
    [([CONNECTING, 60.0, HEADERS], True), ([HEADERS, 60.0], False), ([60.0], False)],
)
async def test_the_time_limit_holds_and_the_verdict_is_true(steps, never_sent, library):
    """What had not left by then never leaves; what had left is unknown."""
    over = Tracing(*steps)
    transport = transport_over(over, library)
    started = anyio.current_time()
    answer = await ask(transport, 2.0)
    assert anyio.current_time() - started == pytest.approx(2.0)
    assert isinstance(answer, APITimeoutError)
    assert "within the time allowed" in str(answer)
    assert answer.never_sent is never_sent
    await anyio.sleep(100)
    assert over.sent == (HEADERS in steps[:1])
    await transport.aclose()


@over_both
async def test_a_caller_who_is_cancelled_does_not_take_the_exchange_with_him(server: FakeServer):
    """The answer arrives, and the conclusion is drawn without him."""
    server.answers(initiated())
    server.latency_seconds = 5
    transport = Transport(
        base_url="https://x.example/api", http_client=server.http_client(), trust_env=False
    )
    concluded: list[object] = []

    with anyio.move_on_after(1) as scope:
        await transport.exchange(
            initiate_call(INTENT), KEY, concluded.append, timeout_seconds=30, headers={}
        )
    assert scope.cancelled_caught
    assert concluded == []
    await anyio.sleep(5)
    assert [type(answer) for answer in concluded] == [APIResponse]
    assert len(server.requests) == 1
    await transport.aclose()


@over_both
async def test_what_is_cancelled_before_it_left_never_leaves(library):
    """Neither while it waits for a place, nor while it connects."""
    over = Tracing(CONNECTING, 10.0, HEADERS)
    transport = transport_over(over, library)
    answers: list[Any] = []
    with anyio.move_on_after(1):
        await transport.exchange(READ, KEY, answers.append, timeout_seconds=30, headers={})
    assert [answer.never_sent for answer in answers] == [True]
    await anyio.sleep(60)
    assert over.sent == 0
    await transport.aclose()


@over_both
async def test_an_exchange_cancelled_in_its_first_step_sends_nothing(server: FakeServer):
    """Not even where the transport does not trace."""
    server.answers(initiated())
    transport = Transport(
        base_url="https://x.example/api", http_client=server.http_client(), trust_env=False
    )
    answers: list[Any] = []
    with anyio.CancelScope() as scope:
        scope.cancel()
        await transport.exchange(READ, KEY, answers.append, timeout_seconds=30, headers={})
    await anyio.sleep(60)
    assert [answer.never_sent for answer in answers] == [True]
    assert server.requests == []
    await transport.aclose()


@over_both
@pytest.mark.parametrize(("cancelled_after", "over_after"), [(0.0, 0.0), (1.0, 10.0), (20.0, 12.0)])
async def test_an_exchange_is_over_when_its_connection_is(cancelled_after, over_after, library):
    """Cancelled before it began, while it connected, or not at all: once, and not before."""
    transport = transport_over(Tracing(CONNECTING, 10.0, HEADERS, 2.0), library)
    started, ends = anyio.current_time(), []
    with anyio.move_on_after(cancelled_after):
        await transport.exchange(
            READ,
            KEY,
            keep,
            timeout_seconds=30,
            headers={},
            over=lambda: ends.append(anyio.current_time() - started),
        )
    await anyio.sleep(60)
    assert ends == pytest.approx([over_after])
    await transport.aclose()


class Body(httpx.AsyncByteStream):
    """A body of so many bytes; reading on after it was closed fails, as in httpcore."""

    def __init__(self, size: int, *, closes: bool = True) -> None:
        self.left = size
        self.given = 0
        self.closes = closes

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        if self.left < 0:
            raise httpx.ReadError("closed")
        if not self.left:
            raise StopAsyncIteration
        chunk = min(65536, self.left)
        self.left -= chunk
        self.given += chunk
        return b"x" * chunk

    async def aclose(self) -> None:
        if self.closes and self.left:
            self.left = -1


@over_both
async def test_a_body_of_the_largest_size_is_read_whole(library):
    """One MiB is no crime."""
    body = Body(BODY_BYTES_MAX)
    transport = transport_over(
        httpx.MockTransport(lambda _: httpx.Response(200, stream=body)), library
    )
    answer = await ask(transport)
    assert isinstance(answer, APIResponse)
    assert len(answer.body) == BODY_BYTES_MAX
    await transport.aclose()


@over_both
@pytest.mark.parametrize("closes", [True, False])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_larger_body_is_not_read_to_its_end(closes, library):
    """The connection is closed; a transport that cannot be closed is left alone."""
    body = Body(2**40, closes=closes)
    transport = transport_over(
        httpx.MockTransport(lambda _: httpx.Response(200, stream=body)), library
    )
    answer = await ask(transport)
    assert isinstance(answer, APIResponseError)
    assert "larger than 1,048,576 bytes" in str(answer)
    assert answer.response is not None
    assert len(answer.response.body) == BODY_BYTES_MAX
    assert body.given <= (1 if closes else 2) * BODY_BYTES_MAX + 65536
    await transport.aclose()


@over_both
@pytest.mark.parametrize("cut_after", [65_536, BODY_BYTES_MAX])
async def test_a_body_cut_short_is_no_answer(cut_after, library):
    """What came of it is not taken for the whole, not even where it is all that is allowed."""

    class Cut(Body):
        async def __anext__(self) -> bytes:
            if self.given >= cut_after:
                raise httpx.RemoteProtocolError("cut")
            return await super().__anext__()

    cut = Cut(10**7)
    transport = transport_over(
        httpx.MockTransport(lambda _: httpx.Response(200, stream=cut)), library
    )
    answer = await ask(transport)
    assert isinstance(answer, APIConnectionError)
    assert not answer.never_sent
    await transport.aclose()


@over_both
async def test_the_request_is_what_the_documentation_asks_for(server: FakeServer, library):
    """Key, body, absolute URL; nothing compressed, and a User-Agent with who really sends it."""
    server.answers(initiated())
    transport = Transport(
        base_url="https://x.example/api", http_client=server.http_client(), trust_env=False
    )
    await transport.exchange(
        initiate_call(INTENT), KEY, keep, timeout_seconds=1, headers={"X-Shop": "7"}
    )
    (request,) = server.requests
    assert str(request.url) == "https://x.example/api/mpesa/payment/initiate"
    assert request.headers["X-API-Key"] == SECRET_KEY
    assert request.headers["Accept-Encoding"] == "identity"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["User-Agent"] == (
        f"paynexus-async/{__version__} python/{platform.python_version()} "
        f"{library}/{import_module(library).__version__}"
    )
    assert request.headers["X-Shop"] == "7"
    await transport.aclose()


@over_both
async def test_a_borrowed_client_neither_redirects_nor_authenticates_again(library):
    """Either would send the body a second time."""
    requests: list[httpx.Request] = []

    async def handle(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        status = 307 if len(requests) == 1 else 401
        challenge = 'Digest realm="x", nonce="y", qop="auth", algorithm="MD5"'
        headers = {"Location": "/elsewhere", "WWW-Authenticate": challenge}
        return httpx.Response(status, headers=headers)

    digest = import_module(library).DigestAuth("user", "password")
    client = client_over(httpx.MockTransport(handle), library, follow_redirects=True, auth=digest)
    transport = Transport(base_url="https://x.example/api", http_client=client, trust_env=False)
    with pytest.raises(PaymentOutcomeUnknown, match="redirect"):
        await initiate(transport)
    assert (await ask(transport)).status_code == 401
    assert len(requests) == 2
    await transport.aclose()
    assert not client.is_closed


@over_both
@pytest.mark.parametrize("secret", [SECRET_KEY, PUBLIC_KEY, "254746990866", "whsec_0123456789"])
async def test_a_secret_in_a_foreign_error_is_not_repeated(secret, library):
    """Transports may quote headers and bodies: not even a traceback shows what they quote."""
    transport = transport_over(Tracing(httpx.LocalProtocolError(f"bad header {secret}")), library)
    answer = await ask(transport)
    assert secret not in "".join(traceback.format_exception(answer))
    await transport.aclose()


async def test_a_foreign_error_without_secrets_is_kept_as_the_cause():
    """Whoever looks for the reason finds it."""
    error = httpx.ReadError("broken")
    transport = transport_over(Tracing(error))
    assert (await ask(transport)).__cause__ is error
    await transport.aclose()


async def test_the_headers_of_a_request_print_no_key():
    """Reports of errors show local variables."""
    headers = _headers(READ, Secret(SECRET_KEY), {"X-Mine": "mine"}, "httpx")
    assert repr(headers) == "<headers Accept, User-Agent, X-Mine, Accept-Encoding, X-API-Key>"
    assert headers["X-API-Key"] == SECRET_KEY


@over_both
async def test_closing_lets_an_initiate_have_its_answer_and_ends_reads_at_once(server: FakeServer):
    """Money that may have moved is worth five seconds; a read is not."""
    server.answers(initiated())
    server.latency_seconds = 3
    transport = Transport(
        base_url="https://x.example/api", http_client=server.http_client(), trust_env=False
    )
    concluded: list[Any] = []
    read: list[Any] = []

    async def initiate_it() -> None:
        await transport.exchange(
            initiate_call(INTENT), KEY, concluded.append, timeout_seconds=30, headers={}
        )

    async def read_it() -> None:
        await transport.exchange(READ, KEY, read.append, timeout_seconds=30, headers={})

    async with anyio.create_task_group() as group:
        group.start_soon(initiate_it)
        group.start_soon(read_it)
        await anyio.sleep(1)
        started = anyio.current_time()
        await transport.aclose()
        assert anyio.current_time() - started == pytest.approx(2.0)
    assert isinstance(concluded[0], APIResponse)
    assert type(read[0]) is APIConnectionError  # which is no timeout
    assert "the client was closed" in str(read[0])


@over_both
async def test_closing_is_bounded_and_may_be_repeated(server: FakeServer):
    """A server that never answers holds nobody up; what became of the initiate is unknown."""
    server.answers(initiated())
    server.latency_seconds = 1000
    transport = Transport(
        base_url="https://x.example/api", http_client=server.http_client(), trust_env=False
    )
    async with anyio.create_task_group() as group:

        async def initiate_it() -> None:
            with pytest.raises(PaymentOutcomeUnknown, match="the client was closed"):
                await initiate(transport, 300)

        group.start_soon(initiate_it)
        await anyio.sleep(1)
        started = anyio.current_time()
        await transport.aclose()
        await transport.aclose()
        assert anyio.current_time() - started == pytest.approx(5.0)


@over_both
async def test_closing_in_a_cancelled_scope_still_ends_everything(server: FakeServer):
    """Nobody waits, and nothing is left behind."""
    server.answers(initiated())
    server.latency_seconds = 1000
    transport = Transport(
        base_url="https://x.example/api", http_client=server.http_client(), trust_env=False
    )
    answers: list[Any] = []

    async def initiate_it() -> None:
        await transport.exchange(
            initiate_call(INTENT), KEY, answers.append, timeout_seconds=300, headers={}
        )

    async with anyio.create_task_group() as group:
        group.start_soon(initiate_it)
        await anyio.sleep(1)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await transport.aclose()
    assert [answer.never_sent for answer in answers] == [False]


@pytest.mark.parametrize("turns", range(5))
def test_closing_does_not_wait_for_what_was_cancelled_before_it_began(turns: int):
    """Whoever cancels all tasks of a loop, as `asyncio.run` does at its end, asks none of them."""
    server = FakeServer(initiated())
    server.latency_seconds = 1000

    async def is_closed() -> bool:
        transport = Transport(
            base_url="https://x.example/api", http_client=server.http_client(), trust_env=False
        )
        calls = [asyncio.create_task(call(transport)) for call in (ask, initiate)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        closing = asyncio.create_task(transport.aclose())
        await asyncio.wait({closing}, timeout=2)
        await asyncio.wait(calls, timeout=2)
        return closing.done() and all(call.done() for call in calls)

    loop = asyncio.new_event_loop()  # not `asyncio.run`, which would hang with what is broken
    try:
        assert loop.run_until_complete(is_closed())
    finally:
        loop.close()


@over_both
async def test_a_closed_client_sends_nothing(server: FakeServer):
    """It says so instead."""
    transport = Transport(
        base_url="https://x.example/api", http_client=server.http_client(), trust_env=False
    )
    await transport.aclose()
    with pytest.raises(ClientStateError, match="closed"):
        await ask(transport)
    assert server.requests == []


@pytest.mark.parametrize("trust_env", [False, True])
async def test_our_own_pool_is_closed_with_the_client(trust_env: bool, monkeypatch):
    """Never used, or used: it is ours."""
    closed = []

    async def aclose(self: object) -> None:
        closed.append(self)

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "aclose", aclose)
    for used in (True, False):
        transport = Transport(base_url="http://127.0.0.1:1", http_client=None, trust_env=trust_env)
        if used:
            assert isinstance(await ask(transport), APIConnectionError)
        await transport.aclose()
        assert bool(closed) is (used or trust_env)
        closed.clear()


@pytest.mark.parametrize("client", [httpx.Client(), object(), "https://proxy"])
async def test_only_an_async_client_is_borrowed(client):
    """Anything else is refused at once."""
    with pytest.raises(ConfigurationError, match=r"must be an httpx\.AsyncClient"):
        Transport(base_url="https://x.example/api", http_client=client, trust_env=False)


async def test_a_defect_in_a_conclusion_reaches_the_caller(server: FakeServer):
    """It is not swallowed by the task that met it."""
    server.answers(initiated())
    transport = Transport(
        base_url="https://x.example/api", http_client=server.http_client(), trust_env=False
    )

    def conclude(answer: object) -> None:
        msg = "a defect"
        raise ZeroDivisionError(msg)

    with pytest.raises(ZeroDivisionError):
        await transport.exchange(READ, KEY, conclude, timeout_seconds=1, headers={})
    await transport.aclose()


# --- What is handed to a transport, and what comes of its end


class Recording(httpx.AsyncBaseTransport):
    """Keeps the requests and what it was made with; answers at once, fails, or hangs."""

    made: ClassVar[list[Recording]]
    ends: httpx.Response | Exception | None = None

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.requests: list[httpx.Request] = []
        self.responses: list[httpx.Response] = []
        self.is_closed = False
        self.closing_seconds = 0.0
        self.body_bytes = 10
        self.made.append(self)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        await anyio.sleep(2)
        if isinstance(self.ends, Exception):
            raise self.ends
        self.responses.append(httpx.Response(200, stream=Body(self.body_bytes)))
        return self.responses[-1]

    async def aclose(self) -> None:
        await anyio.sleep(self.closing_seconds)
        self.is_closed = True


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> type[Recording]:
    """In the place of httpx's own transport."""

    class Fresh(Recording):
        made: ClassVar[list[Recording]] = []

    monkeypatch.setattr(httpx, "AsyncHTTPTransport", Fresh)
    return Fresh


def own() -> Transport:
    return Transport(base_url="https://x.example/api", http_client=None, trust_env=False)


@pytest.mark.parametrize(
    ("allowed", "connect", "other"), [(3.0, 3.0, 3.0), (30.0, 10.0, 30.0), (0.5, 0.5, 0.5)]
)
async def test_a_transport_may_take_the_time_that_is_left_and_ten_seconds_to_connect(
    recording, allowed, connect, other
):
    """Whether it is ours or somebody's: each step of it."""
    borrowed = recording()
    for transport in (own(), transport_over(borrowed)):
        await ask(transport, allowed)
        await transport.aclose()
    limits = {"connect": connect, "read": other, "write": other, "pool": other}
    told = [r.extensions["timeout"] for made in recording.made for r in made.requests]
    assert told == [pytest.approx(limits)] * len(told)
    assert len(told) == 2


async def test_our_own_transport_is_asked_for_what_a_borrowed_client_is(recording):
    """The same request, whichever way it goes."""
    seen = []
    for call in (READ, initiate_call(INTENT)):
        borrowed = recording()
        ours, theirs = own(), transport_over(borrowed)
        for transport in (ours, theirs):
            await transport.exchange(call, KEY, keep, timeout_seconds=9, headers={"X-Shop": "7"})
            await transport.aclose()
        (request,), (other,) = recording.made[-1].requests, borrowed.requests
        assert type(request.stream) is type(other.stream)
        assert request.headers["Accept"] == "application/json"
        assert request.url == f"https://x.example/api{call.path}"
        for ask_for in (request, other):
            body = b"".join([chunk async for chunk in ask_for.stream])
            assert body == (call.body or b"")
        for name in ("X-API-Key", "X-Shop", "Accept", "Accept-Encoding", "User-Agent", "Host",
                     "Content-Length", "Content-Type"):  # fmt: skip
            assert request.headers.get(name) == other.headers.get(name)
        assert ("content-type" in request.headers) is (call is not READ)
        seen.append((request.method, other.method))
    assert seen == [("GET", "GET"), ("POST", "POST")]


async def test_reads_share_connections_and_each_initiate_has_a_fresh_one(recording):
    """One that an idle server has just closed would leave its outcome unknown."""
    transport = own()
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(ask, transport, 9.0)
    await ask(transport, 9.0)
    recording.ends = httpx.ConnectError("refused")
    await ask(transport, 9.0)
    await ask(transport, 9.0)
    assert sorted(len(lane.requests) for lane in recording.made) == [1, 1, 4]
    with pytest.raises(APIConnectionError):
        await initiate(transport, 9.0)
    assert len(recording.made) == 4
    assert len(recording.made[-1].requests) == 1
    kept = [lane.options["limits"].max_keepalive_connections for lane in recording.made]
    assert kept == [1, 1, 1, 0]
    for lane in recording.made:
        assert lane.options["limits"].max_connections == 1
        assert lane.options["limits"].keepalive_expiry == 60
        assert lane.options["trust_env"] is False
        assert lane.options["verify"] is recording.made[0].options["verify"]
        assert lane.options["verify"].verify_mode is ssl.CERT_REQUIRED
        assert all(response.is_closed for response in lane.responses)
    await transport.aclose()
    assert all(lane.is_closed for lane in recording.made)


async def test_the_largest_answer_is_the_same_for_our_own_transport(recording):
    """And the error names the verb."""
    transport = own()
    await ask(transport, 9.0)
    recording.made[0].body_bytes = BODY_BYTES_MAX + 1
    answer = await ask(transport, 9.0)
    assert isinstance(answer, APIResponseError)
    assert str(answer).startswith("get_payment_status: ")
    await transport.aclose()


async def test_closing_waits_a_second_for_a_connection_that_does_not_close(recording):
    """And closes all the same where the caller has been cancelled."""
    transport = own()
    await ask(transport, 9.0)
    recording.made[0].closing_seconds = 1_000.0
    started = anyio.current_time()
    await transport.aclose()
    assert anyio.current_time() - started == pytest.approx(1.0)
    transport = own()
    await ask(transport, 9.0)
    recording.made[1].closing_seconds = 0.5
    with anyio.CancelScope() as scope:
        scope.cancel()
        await transport.aclose()
    assert recording.made[1].is_closed


async def test_our_own_transport_is_believed_what_it_traces(monkeypatch):
    """That nothing had left, whatever the error's class suggests."""

    class Ours(Tracing):
        def __init__(self, **options: Any) -> None:
            super().__init__(CONNECTING, httpx.ReadTimeout("slow"))

    monkeypatch.setattr(httpx, "AsyncHTTPTransport", Ours)
    transport = own()
    assert (await ask(transport)).never_sent is True
    await transport.aclose()


async def test_certificates_named_in_the_environment_are_not_looked_at(
    recording, monkeypatch, tmp_path
):
    """Nor is one that cannot be read an obstacle."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    transport = own()
    assert isinstance(await ask(transport, 9.0), APIResponse)
    await transport.aclose()


@over_both
async def test_an_exchange_whose_caller_is_gone_ends_at_its_time_limit(library):
    """And is concluded as one that has timed out."""
    transport = transport_over(Tracing(HEADERS, 60.0), library)
    concluded: list[Any] = []
    with anyio.move_on_after(1):
        await transport.exchange(
            initiate_call(INTENT), KEY, concluded.append, timeout_seconds=2, headers={}
        )
    await anyio.sleep(2)
    assert [type(answer) for answer in concluded] == [APITimeoutError]
    assert concluded[0].never_sent is False
    await transport.aclose()


@pytest.mark.parametrize(
    ("borrowed", "trust_env", "reads"), [(True, False, 10), (False, True, 10), (False, False, 100)]
)
async def test_no_more_calls_are_let_in_than_there_are_connections(
    borrowed, trust_env, reads, monkeypatch
):
    """A client that the environment has its say in has one for each read and each initiate."""
    made = []

    class Client(httpx.AsyncClient):
        def __init__(self, **options: Any) -> None:
            made.append(options)
            super().__init__(**options)

    client = httpx.AsyncClient() if borrowed else None
    monkeypatch.setattr(httpx, "AsyncClient", Client)
    transport = Transport(base_url="https://x", http_client=client, trust_env=trust_env)
    assert (transport.connections_max, transport.initiates_max) == (reads, 10)
    limits = httpx.Limits(max_connections=20)
    assert made == ([{"trust_env": True, "limits": limits}] if trust_env else [])
    await transport.aclose()


async def test_an_answer_tells_how_long_it_took(recording):
    """From asking to the last byte."""
    for transport in (own(), transport_over(recording())):
        answer = await ask(transport, 9.0)
        assert answer.elapsed_seconds == pytest.approx(2.0)
        assert (answer.status_code, answer.body) == (200, b"x" * 10)
        await transport.aclose()


@over_both
@pytest.mark.parametrize(
    ("steps", "ended_after"), [([CONNECTING], 3.0), ([CONNECTING, HEADERS], 2.0), ([], 2.0)]
)
async def test_a_transport_that_never_ends_is_ended(steps, ended_after, library):
    """At the time limit once the request has left; before, a second later, because it never does."""
    ended: list[float] = []

    class Hanging(Tracing):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            try:
                await super().handle_async_request(request)
                return await anyio.sleep_forever()
            finally:
                ended.append(anyio.current_time())

    transport = transport_over(Hanging(*steps), library)
    started = anyio.current_time()
    assert isinstance(await ask(transport, 2.0), APITimeoutError)
    await anyio.sleep(60)
    assert [moment - started for moment in ended] == [pytest.approx(ended_after)]
    await transport.aclose()


@over_both
@pytest.mark.parametrize(
    ("error", "words", "is_timeout"),
    [
        (httpx.ReadTimeout(""), ": ReadTimeout. ", True),
        (httpx.ConnectTimeout("slow"), ": ConnectTimeout: slow. ", True),
        (httpx.ReadError("reset"), ": ReadError: reset. ", False),
        (TimeoutError("its own"), ": TimeoutError: its own. ", False),
    ],
)
async def test_what_a_transport_raises_is_told_by_its_name(error, words, is_timeout, library):
    """A timeout of httpx's is a timeout."""
    transport = transport_over(Tracing(error), library)
    answer = await ask(transport)
    assert type(answer) is (APITimeoutError if is_timeout else APIConnectionError)
    assert words in str(answer)
    await transport.aclose()


@over_both
async def test_a_key_in_a_foreign_error_is_shown_as_one(library):
    """And nothing of it."""
    transport = transport_over(
        Tracing(httpx.LocalProtocolError("bad header <unusual-key>")), library
    )
    answer = await transport.exchange(
        READ, Secret("unusual-key"), keep, timeout_seconds=1, headers={}
    )
    assert "bad header <[key]>" in str(answer)
    assert answer.__cause__ is None
    await transport.aclose()


async def test_each_exchange_is_logged_with_its_end(server: FakeServer, caplog):
    """For whoever asks for it; an answer is described and not shown."""
    caplog.set_level("DEBUG", "paynexus_async")
    server.answers(initiated())
    transport = transport_over(httpx.MockTransport(server._handle))
    await initiate(transport)
    server.answers(httpx.ReadError("reset"))
    await ask(transport)
    lines = [record.getMessage() for record in caplog.records if record.name == "paynexus_async"]
    assert lines[0].startswith("POST initiate_payment: <")
    assert lines[1].startswith("GET get_payment_status: APIConnectionError(")
    assert len(lines) == 2
    assert PHONE not in caplog.text
    await transport.aclose()


@over_both
@pytest.mark.parametrize(("size", "fits"), [(BODY_BYTES_MAX, True), (BODY_BYTES_MAX + 1, False)])
async def test_an_answer_that_is_there_at_once_has_the_same_limit(size, fits, library):
    """A mock's."""
    over = httpx.MockTransport(lambda _: httpx.Response(201, content=b"x" * size))
    transport = transport_over(over, library)
    answer = await ask(transport)
    assert isinstance(answer, APIResponse) is fits
    response = answer if isinstance(answer, APIResponse) else answer.response
    assert (response.status_code, len(response.body)) == (201, BODY_BYTES_MAX)
    assert response.headers["content-length"] == str(size)
    await transport.aclose()


def test_a_client_belongs_to_one_event_loop():
    """Outside of any it says so, and in another one too; nothing is sent."""
    over = Tracing()
    transport = transport_over(over)
    with pytest.raises(ClientStateError, match="inside a running event loop") as caught:
        transport.enter()
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__

    async def enter_twice() -> bool:
        return transport.enter() is transport.enter()

    assert anyio.run(enter_twice)
    with pytest.raises(ClientStateError, match="another event loop"):
        anyio.run(ask, transport)


def named(name: str, module: str, *bases: type) -> object:
    return type(name, bases, {"__module__": module})()


@pytest.mark.parametrize(
    ("client", "taken"),
    [
        (named("AsyncClient", "httpx2._client"), True),
        (named("Mine", "shop", type(named("AsyncClient", "httpx2._client"))), True),
        (named("Mine", "shop", httpx.AsyncClient), True),
        (named("AsyncClient", "httpx3"), False),
        (named("AsyncClient", "aiohttp.httpx"), False),
        (named("Client", "httpx2"), False),
    ],
)
async def test_an_async_client_is_one_of_httpx_or_its_successor(client, taken):
    """Or is derived from one."""
    if taken:
        Transport(base_url="https://x.example/api", http_client=client, trust_env=False)
        return
    with pytest.raises(ConfigurationError):
        Transport(base_url="https://x.example/api", http_client=client, trust_env=False)


# --- Reading without httpx


class FakeReader:
    """Answers, fails or hangs, as it is told."""

    library = "aiohttp"

    def __init__(self, end: tuple[int, dict[str, str], bytes] | Exception) -> None:
        self.end = end
        self.seconds = 2.0
        self.asked: list[tuple[object, ...]] = []
        self.is_closed = False
        self.closing_seconds = 0.0

    async def read(self, *asked: object, **limits: object) -> tuple[int, dict[str, str], bytes]:
        self.asked.append((*asked, limits))
        await anyio.sleep(self.seconds)
        if isinstance(self.end, Exception):
            raise self.end
        return self.end

    async def aclose(self) -> None:
        await anyio.sleep(self.closing_seconds)
        self.is_closed = True


def reading(reader: FakeReader) -> Transport:
    transport = own()
    transport._open_reader = lambda: reader
    return transport


asyncio_only = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)


@asyncio_only
@pytest.mark.parametrize("call", [READ, status_call(Expectation(checkout_request_id="ws_CO_1"))])
async def test_a_reader_is_asked_for_the_same(anyio_backend, call):
    """And its answer is one of ours."""
    reader = FakeReader((203, {"x-one": "1"}, b"body"))
    transport = reading(reader)
    await anyio.sleep(5)
    answer = await transport.exchange(call, KEY, keep, timeout_seconds=9, headers={"X-Shop": "7"})
    assert reader.asked == [
        (
            call.method,
            f"https://x.example/api{call.path}",
            _headers(call, KEY, {"X-Shop": "7"}, "aiohttp"),
            call.body,
            {"seconds": 9, "bytes_max": BODY_BYTES_MAX},
        )
    ]
    assert (answer.status_code, answer.headers, answer.body) == (203, {"x-one": "1"}, b"body")
    assert answer.elapsed_seconds == pytest.approx(2.0)
    await ask(transport, -5.0)
    assert reader.asked[1][-1] == {"seconds": 0.001, "bytes_max": BODY_BYTES_MAX}
    await transport.aclose()
    assert reader.is_closed


@asyncio_only
async def test_a_reader_is_opened_for_a_client_of_our_own_that_asks_for_it(anyio_backend):
    """Whoever brings a client has it used."""
    for client, kind in ((None, _Aiohttp), (httpx.AsyncClient(), type(None))):
        transport = Transport(
            base_url="https://x.example/api",
            http_client=client,
            trust_env=False,
            reads_with="aiohttp",
        )
        transport.enter()
        assert type(transport._reader) is kind
        await transport.aclose()


@asyncio_only
async def test_closing_waits_a_second_for_a_reader_that_does_not_close(anyio_backend):
    """And closes it all the same where the caller has been cancelled."""
    reader = FakeReader((200, {}, b""))
    reader.closing_seconds = 1_000.0
    transport = reading(reader)
    await ask(transport, 9.0)
    started = anyio.current_time()
    await transport.aclose()
    assert anyio.current_time() - started == pytest.approx(1.0)
    reader = FakeReader((200, {}, b""))
    reader.closing_seconds = 0.5
    transport = reading(reader)
    await ask(transport, 9.0)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await transport.aclose()
    assert reader.is_closed


@asyncio_only
async def test_a_reader_never_initiates(anyio_backend, recording):
    """It cannot prove that nothing was sent."""
    reader = FakeReader((200, {}, b""))
    transport = reading(reader)
    with pytest.raises(PaymentOutcomeUnknown):
        await initiate(transport, 9.0)
    assert reader.asked == []
    assert len(recording.made[0].requests) == 1
    await transport.aclose()


@pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
async def test_there_are_no_readers_on_trio(anyio_backend, recording):
    """httpx reads."""
    reader = FakeReader((200, {}, b""))
    transport = reading(reader)
    await ask(transport, 9.0)
    assert reader.asked == []
    assert len(recording.made[0].requests) == 1
    await transport.aclose()


@asyncio_only
@pytest.mark.parametrize(("more", "fits"), [(0, True), (1, False)])
async def test_a_reader_has_the_same_limit_of_a_body(anyio_backend, more, fits):
    """What is beyond it is not kept."""
    transport = reading(FakeReader((200, {}, b"x" * (BODY_BYTES_MAX + more))))
    answer = await ask(transport, 9.0)
    assert isinstance(answer, APIResponse) is fits
    response = answer if isinstance(answer, APIResponse) else answer.response
    assert len(response.body) == BODY_BYTES_MAX
    await transport.aclose()


@asyncio_only
@pytest.mark.parametrize("timed_out", [True, False])
async def test_a_reader_without_an_answer_proves_nothing(anyio_backend, timed_out):
    """It may have been sent; the reason is kept, unless it holds a key or a phone."""
    for words in ("broken", f"broken {SECRET_KEY}", f"broken {PHONE}"):
        error = NoAnswerError(words, timed_out=timed_out)
        transport = reading(FakeReader(error))
        answer = await ask(transport, 9.0)
        assert type(answer) is (APITimeoutError if timed_out else APIConnectionError)
        assert answer.never_sent is False
        assert ": broken" in str(answer)
        assert not {SECRET_KEY, PHONE} & set(str(answer).split())
        assert answer.__cause__ is (error if words == "broken" else None)
        await transport.aclose()


@asyncio_only
async def test_a_key_in_a_readers_error_is_shown_as_one(anyio_backend):
    """And nothing of it."""
    transport = reading(FakeReader(NoAnswerError("bad <unusual-key>", timed_out=False)))
    answer = await transport.exchange(
        READ, Secret("unusual-key"), keep, timeout_seconds=9, headers={}
    )
    assert "bad <[key]>" in str(answer)
    await transport.aclose()


@asyncio_only
async def test_the_conclusion_is_drawn_when_a_readers_caller_is_cancelled(anyio_backend):
    """Once, that nothing is known; what it raises then reaches nobody."""
    transport = reading(FakeReader((200, {}, b"")))
    concluded: list[Any] = []

    def conclude(answer: APIResponse | APIError) -> None:
        concluded.append(answer)
        if isinstance(answer, APIError):
            raise answer

    with anyio.move_on_after(1) as scope:
        await transport.exchange(READ, KEY, conclude, timeout_seconds=9, headers={})
    assert scope.cancelled_caught
    (answer,) = concluded
    assert type(answer) is APIConnectionError
    assert answer.never_sent is False
    assert "cancelled" in str(answer)
    await transport.aclose()


@asyncio_only
async def test_a_readers_exchange_is_logged_too(anyio_backend, caplog):
    """With its end."""
    caplog.set_level("DEBUG", "paynexus_async")
    transport = reading(FakeReader((200, {}, b"secret")))
    await ask(transport, 9.0)
    (line,) = [r.getMessage() for r in caplog.records if r.name == "paynexus_async"]
    assert line.startswith("GET get_payment_status: <")
    assert "secret" not in line
    await transport.aclose()


def test_a_bare_callback_of_the_loop_is_no_place_to_begin_and_spoils_nothing():
    """There is no task to run in; the client is bound by its first call from one."""

    async def main() -> None:
        loop, met = asyncio.get_running_loop(), asyncio.Event()
        paynexus = AsyncPayNexus(SECRET_KEY, PUBLIC_KEY)
        errors = []

        def call_back() -> None:
            try:
                paynexus.notify("PNX1").send(None)
            except (ClientStateError, StopIteration) as error:
                errors.append(error)
            met.set()

        loop.call_soon(call_back)
        await met.wait()
        assert [type(error) for error in errors] == [ClientStateError]
        assert not await paynexus.notify("PNX1")
        await paynexus.aclose()

    asyncio.run(main())
