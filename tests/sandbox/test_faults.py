"""Faults: which call meets which one, how they are ordered, and what comes over the wire."""

from __future__ import annotations

import gzip
import json
import logging
import socket
import time
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from paynexus_async.sandbox import (
    FAULTS,
    PUBLIC_KEY,
    SECRET_KEY,
    Fault,
    Faults,
    Ledger,
    Request,
    SandboxServer,
    create_app,
)
from paynexus_async.sandbox import _faults as module
from paynexus_async.sandbox._faults_http import CONNECTION

from ..stopwatch import Stopwatch
from .test_app import Clock, ask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from paynexus_async.sandbox._faults import Told

PAY = {"amount": 100, "phone": "0746990866"}
INITIATE = Request("POST", "/mpesa/payment/initiate", SECRET_KEY, json.dumps(PAY).encode())
STATUS = Request("GET", "/payments/PNXABC123DEF", PUBLIC_KEY)
REQUESTS = {
    "initiate": [INITIATE, Request("POST", "/payments/initiate/")],
    "status": [
        STATUS,
        Request("GET", "/payments/checkout/ws_CO_1"),
        Request("POST", "/payments/status-by-checkout-id"),
        Request("POST", "/mpesa/payment/status"),
    ],
    "validate": [Request("POST", "/mpesa/validate-phone")],
    "list": [Request("GET", "/payments"), Request("GET", "/payments/")],
    "": [Request("GET", "/merchant"), Request("GET", "/nowhere")],
}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(clock: Clock) -> Ledger:
    return Ledger(clock=clock)


@pytest.fixture
def faults(clock: Clock) -> Faults:
    return Faults(clock)


def struck(faults: Faults, request: Request = INITIATE) -> str:
    strike = faults.strike(request)
    return strike.kind.name if strike else ""


# --- Rules


@pytest.mark.parametrize("call", ["initiate", "status", "validate", "list", "any"])
def test_a_fault_meets_the_calls_that_it_was_ordered_for(faults: Faults, call):
    """By any of their paths; `any` is what is not documented too."""
    faults.add(Fault("502-after", call=call))
    for name, requests in REQUESTS.items():
        for request in requests:
            assert struck(faults, request) == ("502-after" if call in {name, "any"} else "")


def test_what_is_about_a_payment_meets_only_calls_that_are(faults: Faults):
    """However it was ordered."""
    faults.add(Fault("other-payment"))
    met = {name for name, requests in REQUESTS.items() if struck(faults, requests[0])}
    assert met == {"initiate", "status"}


def test_it_happens_as_often_as_ordered_and_then_it_is_gone(faults: Faults):
    """The first order that strikes is the one that is met."""
    faults.add(Fault("reset-after", times=2))
    last = faults.add(Fault("502-before", times=1))
    assert [rule.fault.kind for rule in faults.rules] == ["reset-after", "502-before"]
    assert [struck(faults) for _ in range(4)] == ["reset-after", "reset-after", "502-before", ""]
    assert faults.rules == ()
    faults.remove(last.id)  # gone already


def test_orders_are_taken_back(faults: Faults):
    """One, or all; numbers are not used again."""
    first, second, third = (faults.add(Fault(name)) for name in ("gzip", "nan", "empty-body"))
    faults.remove(first.id)
    assert faults.rules == (second, third)
    faults.clear()
    assert faults.rules == ()
    assert faults.add(Fault("gzip")).id == third.id + 1


def strikes(clock: Clock, **options: Any) -> list[bool]:
    faults = Faults(clock)
    faults.add(Fault("reset-after", **options))
    return [bool(struck(faults)) for _ in range(2_000)]


def test_chance_is_repeatable(clock: Clock):
    """The same seed strikes the same calls, another one others, both about as often as asked."""
    first = strikes(clock, probability=0.3, seed=7)
    assert first == strikes(clock, probability=0.3, seed=7)
    other = strikes(clock, probability=0.3, seed=8)
    assert first != other
    for drawn in (first, other):
        assert 500 < sum(drawn) < 700
    assert not any(strikes(clock, probability=0))
    assert all(strikes(clock, probability=1))
    assert sum(strikes(clock, probability=0.3, times=5)) == 5


def test_two_faults_of_one_seed_are_two_dice(clock: Clock):
    """Otherwise what the first lets pass, the second would too."""
    met = []
    for seed in range(400):
        faults = Faults(clock)
        for kind in ("gzip", "nan"):
            faults.add(Fault(kind, probability=0.5, seed=seed))
        met.append(struck(faults))
    assert 60 < met.count("nan") < 140


def test_a_refused_key_is_refused_for_a_while(ledger: Ledger, clock: Clock):
    """One spell counts once; the time that is left is told; then calls work again."""
    rule = ledger.faults.add(Fault("rate-limit", times=1, seconds=10))
    told = []
    for _ in range(4):
        strike = ledger.faults.strike(STATUS)
        assert strike is not None
        told.append(ledger.mishandle(STATUS, strike).headers["Retry-After"])
        clock.now += 3
    assert told == ["10", "7", "4", "1"]
    assert rule.struck == 1
    assert ledger.faults.rules == ()
    assert ledger.faults.strike(STATUS) is None


def test_it_refuses_as_a_plan_does(clock: Clock):
    """The same headers, the same fields; only the numbers are ordered."""
    limited = Ledger(clock=clock, plan="trial")
    replies = [limited.handle(STATUS) for _ in range(31)]
    told = mishandled(limited, "rate-limit")
    assert {**replies[-1].headers, "Content-Type": "", "Content-Length": ""} == {
        **told.headers,
        "Content-Type": "",
        "Content-Length": "",
    }
    assert json.loads(told.body) == replies[-1].document
    assert told.status_code == replies[-1].status_code == 429


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("nonsense", {}, "kind is one of latency, backlog, "),
        ("gzip", {"call": "pay"}, "call is one of initiate, status, validate, list, any"),
        ("other-payment", {"call": "validate"}, "call is one of initiate, status, any"),
        ("gzip", {"times": 0}, "times goes from 1 to 1,000,000"),
        ("gzip", {"times": 1_000_001}, "times goes from"),
        ("gzip", {"probability": 1.1}, "probability goes from 0 to 1"),
        ("gzip", {"probability": float("nan")}, "probability goes from 0 to 1"),
        ("gzip", {"seed": -1}, "seed goes from 0 to"),
        ("gzip", {"seconds": 1}, "seconds are not for gzip, which takes no time"),
        ("latency", {"seconds": 3_601}, "seconds goes from 0 to 3,600"),
    ],
)
def test_an_order_that_cannot_be_carried_out_is_refused(kind, options, words):
    """With what can be."""
    with pytest.raises(ValueError, match=words):
        Fault(kind, **options)


def test_orders_have_an_end(faults: Faults):
    """Two hundred, of which those that are used up do not count."""
    for _ in range(module.RULES_MAX):
        faults.add(Fault("gzip", times=1))
    with pytest.raises(ValueError, match="200 faults are ordered already"):
        faults.add(Fault("gzip"))
    assert struck(faults) == "gzip"
    faults.add(Fault("gzip"))


def test_what_strikes_before_changes_nothing_and_what_strikes_after_does(ledger: Ledger):
    """Neither prompt nor quota; and the log knows what was told, and what is true."""
    for name, kind in FAULTS.items():
        prompts = len(ledger.prompts)
        told = mishandled(ledger, name)
        assert len(ledger.prompts) - prompts == (0 if kind.before else 1)
        call = ledger.calls[-1]
        assert (call.fault, call.status_code) == (name, told.status_code)
        assert call.true_status_code == (None if kind.before else 200)
        assert (call.reference is None) == kind.before
        ledger.faults.clear()
    reply = ledger.handle(STATUS)
    call = ledger.calls[-1]
    assert (call.fault, call.true_status_code) == (None, call.status_code)
    assert reply.status_code == call.status_code == 404


def mishandled(ledger: Ledger, name: str) -> Told:
    ledger.faults.add(Fault(name))
    strike = ledger.faults.strike(INITIATE)
    assert strike is not None
    return ledger.mishandle(INITIATE, strike)


def test_an_oversized_body_costs_nothing(ledger: Ledger):
    """It is one small piece, again and again; and as long as it says."""
    told = mishandled(ledger, "oversized-body")
    pieces = list(told.rest)
    assert len({id(piece) for piece in pieces}) == 1
    length = len(told.body) + sum(map(len, pieces))
    assert length == int(told.headers["Content-Length"]) > 16 * 1024 * 1024


def test_a_bomb_is_small_until_it_is_unpacked(ledger: Ledger):
    """Then it is a hundred MiB, to its last byte."""
    told = mishandled(ledger, "gzip-bomb")
    assert len(told.body) < 128 * 1024
    assert told.headers["Content-Encoding"] == "gzip"
    unpacker, left, unpacked = zlib.decompressobj(wbits=31), told.body, 0
    while left:
        unpacked += len(unpacker.decompress(left, 1024 * 1024))
        left = unpacker.unconsumed_tail
    assert (unpacked + len(unpacker.flush()), unpacker.eof) == (100 * 1024 * 1024, True)


# --- Over HTTP


def test_orders_are_given_and_taken_back_over_http(ledger: Ledger):
    """As the description says; what was struck is counted."""
    seen = ask(ledger, "GET", "/sandbox/faults").json()
    assert [kind["name"] for kind in seen["kinds"]] == [*FAULTS]
    assert all(kind["happens"].endswith(".") for kind in seen["kinds"])
    assert seen["rules"] == []
    rule = ask(ledger, "POST", "/sandbox/faults", json={"kind": "502-after"}).json()
    assert rule == {
        "id": 1, "kind": "502-after", "call": "any", "times": None, "probability": 1.0, "seed": 0,
        "seconds": None, "struck": 0,
    }  # fmt: skip
    full = {
        "kind": "latency", "call": "status", "times": 3, "probability": 0.5, "seed": 7, "seconds": 2.5,
    }  # fmt: skip
    second = ask(ledger, "POST", "/sandbox/faults", json=full).json()
    assert second == {"id": 2, **full, "struck": 0}

    headers = {"X-API-Key": SECRET_KEY}
    answer = ask(ledger, "POST", "/api/mpesa/payment/initiate", json=PAY, headers=headers)
    assert (answer.status_code, len(ledger.prompts)) == (502, 1)
    assert ask(ledger, "GET", "/sandbox/faults").json()["rules"] == [{**rule, "struck": 1}, second]
    call = ask(ledger, "GET", "/sandbox/calls").json()[0]
    assert (call["status_code"], call["fault"], call["true_status_code"]) == (502, "502-after", 200)

    for _ in range(2):  # the second time it is gone
        assert ask(ledger, "DELETE", "/sandbox/faults/1").json() == {"success": True}
    assert ask(ledger, "GET", "/sandbox/faults").json()["rules"] == [second]
    assert ask(ledger, "DELETE", "/sandbox/faults").json() == {"success": True}
    assert ledger.faults.rules == ()


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ({"kind": "nonsense"}, "kind is one of latency, "),
        ({"kind": "gzip", "call": "pay"}, "call is one of initiate, "),
        ({"kind": "gzip", "seconds": 1}, "seconds are not for gzip"),
        ({}, "kind"),
        ({"kind": "gzip", "times": 0}, "times"),
        ({"kind": "gzip", "times": 1.5}, "times"),
        ({"kind": "gzip", "probability": 2}, "probability"),
        ({"kind": "gzip", "seed": -1}, "seed"),
        ({"kind": "latency", "seconds": 3601}, "seconds"),
    ],
)
def test_a_wrong_order_is_refused_in_the_envelope(ledger: Ledger, order, words):
    """422, saying what is wrong; nothing is ordered."""
    answer = ask(ledger, "POST", "/sandbox/faults", json=order)
    assert (answer.status_code, answer.json()["code"]) == (422, "VALIDATION_ERROR")
    assert words in answer.text
    assert ledger.faults.rules == ()


def test_too_many_orders_are_refused_over_http(ledger: Ledger):
    """With a way out."""
    for _ in range(module.RULES_MAX):
        ledger.faults.add(Fault("gzip"))
    answer = ask(ledger, "POST", "/sandbox/faults", json={"kind": "gzip"})
    assert answer.status_code == 422
    assert "take some back" in answer.json()["message"]


def test_the_description_names_the_kinds_and_the_bounds(ledger: Ledger):
    """So that it can be ordered from /docs."""
    described = ask(ledger, "GET", "/openapi.json").json()
    paths = described["paths"]
    assert {"get", "post", "delete"} == set(paths["/sandbox/faults"])
    assert set(paths["/sandbox/faults/{id}"]) == {"delete"}
    body = paths["/sandbox/faults"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    fields = described["components"]["schemas"][body["$ref"].rpartition("/")[2]]
    assert fields["required"] == ["kind"]
    assert fields["properties"]["kind"]["enum"] == [*FAULTS]
    assert fields["properties"]["probability"]["maximum"] == 1


def test_only_the_api_is_struck(ledger: Ledger):
    """Never a look behind the scenes, nor what is no call of the API."""
    ledger.faults.add(Fault("502-before"))
    assert ask(ledger, "GET", "/sandbox/health").json()["ok"]
    assert ask(ledger, "GET", "/openapi.json").status_code == 200
    assert ask(ledger, "GET", "/payments").status_code == 404
    assert ask(ledger, "GET", "/api/payments").status_code == 502
    assert ask(ledger, "GET", "/api/nowhere").status_code == 502
    assert [call.fault for call in ledger.calls] == ["502-before"] * 2


# --- On a socket


@pytest.fixture(scope="module")
def running() -> Iterator[SandboxServer]:
    with SandboxServer(Ledger(clock=time.time)) as server:
        yield server


@pytest.fixture
def server(running: SandboxServer) -> Iterator[SandboxServer]:
    yield running
    running.faults.clear()


def received(server: SandboxServer) -> tuple[list[bytes], str]:
    """Initiate over a bare socket: what came, read by read, and how the connection ended."""
    url, body = httpx.URL(server.url), INITIATE.body
    head = f"POST /api/mpesa/payment/initiate HTTP/1.1\r\nHost: x\r\nX-API-Key: {SECRET_KEY}\r\n"
    head += f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    reads: list[bytes] = []
    with socket.create_connection((url.host, url.port or 0), timeout=10) as connection:
        connection.sendall(head.encode() + body)
        try:
            while data := connection.recv(65_536):
                reads.append(data)
        except ConnectionResetError:
            return reads, "reset"
    return reads, "closed"


def parted(reads: list[bytes]) -> tuple[dict[str, str], bytes]:
    head, _, body = b"".join(reads).partition(b"\r\n\r\n")
    lines = (line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    return {name.lower(): value for name, value in lines}, body


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.message for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("name", "end"), [("reset", "reset"), ("close", "closed")])
def test_a_connection_ends_without_a_byte(server: SandboxServer, name, end, when):
    """A reset is one, and so is an orderly end; before it the prompt went out, or did not."""
    prompts = len(server.ledger.prompts)
    server.faults.add(Fault(f"{name}-{when}"))
    assert received(server) == ([], end)
    assert len(server.ledger.prompts) - prompts == (when == "after")


def test_a_body_is_cut(server: SandboxServer):
    """Its length is promised, half of it comes, and the connection is closed."""
    server.faults.add(Fault("cut-body"))
    reads, end = received(server)
    headers, body = parted(reads)
    assert (end, len(body)) == ("closed", int(headers["content-length"]) // 2)
    assert body.startswith(b'{"success":true,')


def test_a_body_comes_byte_by_byte(server: SandboxServer):
    """Whole, within the time ordered, in as many reads as it has bytes, or nearly."""
    server.faults.add(Fault("dripped-body", seconds=0.4))
    started = time.monotonic()
    reads, _ = received(server)
    assert time.monotonic() - started >= 0.4
    headers, body = parted(reads)
    assert len(body) == int(headers["content-length"])
    assert json.loads(body)["success"]
    assert sum(len(read) == 1 for read in reads) > len(body) / 2


def test_a_connection_is_left_only_when_it_has_ended(ledger: Ledger):
    """Whatever of the request is still on its way; a web server would complain otherwise."""
    ledger.faults.add(Fault("close-after"))
    half = {"type": "http.request", "body": b"", "more_body": False}
    messages = [half, half, {"type": "http.disconnect"}]
    closed, sent = [], []

    class Connection:
        def close(self) -> None:
            closed.append(len(messages))

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "GET", "path": "/api/payments", "query_string": b"", "headers": [],
        "state": {CONNECTION: Connection()},
    }  # fmt: skip
    anyio.run(create_app(ledger), scope, receive, send)
    assert (closed, messages, sent) == ([2], [], [])


def test_compressed_bodies_are_what_they_say(server: SandboxServer):
    """The small one is the answer."""
    server.faults.add(Fault("gzip"))
    headers, body = parted(received(server)[0])
    assert headers["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(body))["data"]["status"] == "initiated"


def test_the_next_call_on_a_connection_is_answered(server: SandboxServer, caplog):
    """Whatever happened to the one before, and without a complaint of the web server's."""
    with httpx.Client(base_url=server.url, headers={"X-API-Key": PUBLIC_KEY}) as http:
        for name, kind in FAULTS.items():
            if name == "gzip-bomb":  # httpx would unpack it
                continue
            seconds = None if kind.seconds is None else 0.01
            server.faults.add(Fault(name, seconds=seconds))
            with suppress(httpx.HTTPError):
                http.get("/payments/PNXABC123DEF")
            server.faults.clear()
            assert http.get("/payments").status_code == 200
    assert complaints(caplog) == []


def test_a_caller_who_leaves_early_takes_nothing_with_him(server: SandboxServer, caplog):
    """A large body is made no further."""
    for name in ("oversized-body", "gzip-bomb", "dripped-body"):
        server.faults.add(Fault(name, times=1))
        url = f"{server.url}/payments"
        with httpx.stream("GET", url, headers={"X-API-Key": PUBLIC_KEY}) as answer:
            assert answer.status_code == 200
    assert httpx.get(url, headers={"X-API-Key": PUBLIC_KEY}).status_code == 200
    assert complaints(caplog) == []


def test_a_server_stops_beside_an_answer_that_is_late():
    """It does not wait for it."""
    with SandboxServer(Ledger(clock=time.time)) as server:
        server.faults.add(Fault("latency", seconds=600))
        url = httpx.URL(server.url)
        with socket.create_connection((url.host, url.port or 0)) as connection:
            connection.sendall(b"GET /api/payments HTTP/1.1\r\nHost: x\r\n\r\n")
            while not server.ledger.calls:
                time.sleep(0.005)
            with Stopwatch() as watch:
                server.__exit__(None, None, None)
                assert watch.seconds < 3
