"""The page over HTTP: its files, its events, its answers, and who may use them."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from starlette.datastructures import Headers

from paynexus_async.sandbox import BALANCE, FAULTS, PIN, SECRET_KEY, Ledger, SandboxServer, _events
from paynexus_async.sandbox._events import pause
from paynexus_async.sandbox._guard import refusal

from ..stopwatch import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE_SECONDS = 60
PAGE = "http://127.0.0.1:8765"
FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},  # another port of this machine
    {"Host": "evil.example:8765", "Origin": "http://evil.example:8765"},  # rebound
    {"Host": "127.0.0.1.evil.example"},
]


class Clock:
    now = 1_769_498_238.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(clock: Clock) -> Ledger:
    return Ledger(clock=clock, plan="basic")


@pytest.fixture
def server(ledger: Ledger) -> Iterator[SandboxServer]:
    with SandboxServer(ledger) as server:
        yield server


@pytest.fixture
def http(server: SandboxServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.page_url, timeout=PATIENCE_SECONDS) as client:
        yield client


def initiate(http: httpx.Client, phone: str = "0746990866", amount: int = 100) -> str:
    body = {"amount": amount, "phone": phone, "description": "Order #12345"}
    answer = http.post("/api/mpesa/payment/initiate", json=body, headers={"X-API-Key": SECRET_KEY})
    reference: str = answer.json()["data"]["reference"]
    return reference


@contextmanager
def opened(http: httpx.Client) -> Iterator[Iterator[tuple[str, dict[str, Any]]]]:
    """An open page's events, each with its name and its parts."""

    def events(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        name = ""
        for line in lines:
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: "))["parts"]
            elif line.startswith(":"):
                yield "beat", {}

    with http.stream("GET", "/sandbox/events") as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        yield events(response.iter_lines())


def until(true: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < ends_at, "it did not happen"
        time.sleep(0.01)


# --- The page


def test_the_page_fetches_nothing_from_elsewhere_and_has_no_inline_script(http: httpx.Client):
    """What it names is served, and its policy lets nothing else in."""
    page = http.get("/")
    assert page.headers["Content-Type"].startswith("text/html")
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert not re.findall(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|https?:", page.text)
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    for name in named:  # and what these name in turn
        answer = http.get(name)
        imported = re.findall(r'from "\./([a-z]+\.js)"', answer.text)
        named += {f"/sandbox/phone/{other}" for other in imported} - set(named)
        assert answer.status_code == 200, name
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write", answer.text)
    assert len(named) == 7


# --- Its events


def test_a_page_is_told_all_of_it_first_and_then_what_changes(
    http: httpx.Client, ledger: Ledger, clock: Clock
):
    """Also what changes by the clock alone, or by another thread."""
    early = initiate(http)
    with opened(http) as events:
        name, parts = next(events)
        assert (name, parts["sandbox"]["pin"]) == ("snapshot", PIN)
        assert parts[f"payment/{early}"]["status"] == "initiated"
        clock.now += 9
        name, parts = next(events)
        assert (name, set(parts)) == ("change", {f"payment/{early}", "phone/254746990866"})
        assert parts["phone/254746990866"]["balance"] == BALANCE - 100
        ledger.set_balance("0711222333", 7)
        assert next(events) == (
            "change",
            {"phone/254711222333": {"phone": "254711222333", "balance": 7}},
        )


def test_a_page_is_told_of_deliveries_and_faults(http: httpx.Client, ledger: Ledger):
    """Made and answered, ordered and taken back: it has to ask for none of them."""
    with opened(http) as events:
        assert [kind["name"] for kind in next(events)[1]["faults"]] == [*FAULTS]
        order = http.post("/sandbox/faults", json={"kind": "502-after", "call": "list"}).json()
        assert next(events) == ("change", {f"fault/{order['id']}": order})
        http.delete(f"/sandbox/faults/{order['id']}")
        assert next(events) == ("change", {f"fault/{order['id']}": None})
        ledger.webhooks.register("http://127.0.0.1:9/hook")  # where nobody listens
        initiate(http)
        told = (parts["delivery/1"] for _, parts in events if "delivery/1" in parts)
        tried = next(delivery for delivery in told if delivery["attempt"])
        assert (tried["event"], tried["status_code"]) == ("payment.initiated", None)
        assert tried["error"].startswith("ConnectError")


def test_whoever_comes_again_misses_nothing(http: httpx.Client):
    """Each connection begins with a snapshot."""
    with opened(http) as events:
        next(events)
    reference = initiate(http)
    with opened(http) as events:
        name, parts = next(events)
    assert name == "snapshot"
    assert f"payment/{reference}" in parts


def test_all_pages_share_one_look_and_nobody_looks_when_none_is_open(
    http: httpx.Client, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    """A sandbox without a page costs what it did before there were pages."""
    looks = 0
    look = _events.view

    def counted(ledger: Ledger) -> Any:
        nonlocal looks
        looks += 1
        return look(ledger)

    monkeypatch.setattr(_events, "view", counted)
    monkeypatch.setattr(_events, "_LOOK_SECONDS", 0.05)
    with opened(http) as one, opened(http) as other:
        assert next(one)[0] == next(other)[0] == "snapshot"
        before, began = looks, time.monotonic()
        until(lambda: looks >= before + 5)
        assert time.monotonic() - began > 0.2  # two that look would be twice as quick
    until(lambda: ledger.customer.name == "paid")
    seen = looks
    initiate(http)
    time.sleep(0.2)
    assert looks == seen


def test_a_full_ledger_is_looked_at_less_often():
    """Looking takes a tenth of the time at most."""
    assert pause(0.001) == pytest.approx(0.1)
    assert pause(0.5) == pytest.approx(5)


def test_a_quiet_stream_has_a_beat(http: httpx.Client, monkeypatch: pytest.MonkeyPatch):
    """Otherwise a page that is no more would be a customer for ever."""
    monkeypatch.setattr(_events, "_BEAT_SECONDS", 0.05)
    with opened(http) as events:
        next(events)
        assert next(events) == ("beat", {})


def test_a_server_stops_quickly_and_quietly_beside_open_pages(ledger: Ledger, caplog):
    """And ends their streams, as if they had been read to their end."""
    ended: list[str] = []

    def read(url: str) -> None:
        with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as http, opened(http) as events:
            ended.extend(name for name, _ in events)

    with Stopwatch() as watch, SandboxServer(ledger) as server:
        pages = [threading.Thread(target=read, args=(server.page_url,)) for _ in range(3)]
        for page in pages:
            page.start()
        until(lambda: len(ended) == 3)
        began = watch.seconds
    assert watch.seconds - began < 2
    for page in pages:
        page.join(PATIENCE_SECONDS)
    assert ended == ["snapshot"] * 3
    assert ledger.customer.name == "paid"
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


# --- Who the customer is


def test_while_a_page_is_open_a_person_is_the_customer(
    http: httpx.Client, ledger: Ledger, clock: Clock
):
    """And before and after it, customers pay; scripts and magic numbers come first."""
    before = initiate(http)
    with opened(http) as events:
        assert next(events)[1]["sandbox"]["customer"] == "person"
        during, magic = initiate(http), initiate(http, "0700000003")
        ledger.script("expired")
        scripted = initiate(http)
    until(lambda: ledger.customer.name == "paid")
    after = initiate(http)
    assert [ledger.payment(name).scenario for name in (before, during, magic, scripted, after)] == [
        "paid", "person", "cancelled", "expired", "paid",
    ]  # fmt: skip
    clock.now += 20
    assert ledger.payment(during).waits  # it is not taken back when the page goes


@pytest.mark.parametrize("customer", ["paid", "cancelled", "person"])
def test_a_customer_who_was_named_is_the_same_with_and_without_a_page(clock: Clock, customer):
    """`paynexus sandbox --customer`."""
    ledger = Ledger(clock=clock, customer=customer)
    with SandboxServer(ledger) as server, httpx.Client(base_url=server.page_url) as http:
        initiate(http)
        with opened(http) as events:
            assert next(events)[1]["sandbox"]["customer"] == customer
            initiate(http)
    assert [record.scenario.name for record in ledger.records] == [customer, customer]


# --- What a person does


@pytest.fixture
def held(http: httpx.Client) -> Iterator[httpx.Client]:
    """A client beside an open page."""
    with opened(http) as events:
        next(events)
        yield http


@pytest.mark.parametrize(
    ("act", "body", "end"),
    [
        ("pin", {"pin": PIN}, "completed"),
        ("pin", {"pin": "0000"}, "failed"),
        ("decline", None, "cancelled"),
    ],
)
def test_an_answer_ends_the_prompt_once(held: httpx.Client, ledger, clock, act, body, end):
    """A second one is a conflict, and changes nothing."""
    reference = initiate(held)
    path = f"/sandbox/prompts/{reference}/{act}"
    assert held.post(path, json=body).json() == {"success": True}
    clock.now += 5
    assert ledger.status(reference) == end
    again = held.post(f"/sandbox/prompts/{reference}/pin", json={"pin": PIN})
    assert (again.status_code, again.json()["code"]) == (409, "CONFLICT")
    assert ledger.status(reference) == end


def test_an_answer_to_nothing_is_refused(held: httpx.Client):
    """Unknown, malformed, or a prompt that a scenario plays."""
    assert held.post("/sandbox/prompts/PNXNOWHERE/decline").status_code == 404
    path = f"/sandbox/prompts/{initiate(held)}/pin"
    for body in ({}, {"pin": 1234}, {"pin": None}):
        answer = held.post(path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "VALIDATION_ERROR")
    played = f"/sandbox/prompts/{initiate(held, '0700000007')}/decline"
    assert held.post(played).status_code == 409


def test_a_phone_is_added_and_given_money(http: httpx.Client, ledger: Ledger):
    """By its number, as people write it."""
    added = http.post("/sandbox/phones", json={"phone": "0711 222 333"}).json()
    assert added["data"] == {"phone": "254711222333", "balance": BALANCE}
    http.post("/sandbox/phones", json={"phone": "0711222333", "balance": 50})
    assert ledger.balance("0711222333") == 50
    http.post("/sandbox/phones", json={"phone": "0711222333"})  # nothing new is said of it
    assert ledger.balance("0711222333") == 50
    assert ledger.phones == ("254711222333",)


@pytest.mark.parametrize(
    "body",
    [
        {"phone": "12345"}, {"phone": 711222333}, {}, {"phone": "0711222333", "balance": -1},
        {"phone": "0711222333", "balance": 10_000_001}, {"phone": "0711222333", "balance": "5"},
        {"phone": "0711222333", "balance": 1.5}, {"phone": "0711222333", "balance": True},
    ],
)  # fmt: skip
def test_no_phone_and_no_money_is_refused(http: httpx.Client, ledger: Ledger, body):
    """And the number is not repeated."""
    answer = http.post("/sandbox/phones", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "VALIDATION_ERROR")
    assert "711222333" not in answer.text
    assert ledger.phones == ()


def test_a_sandbox_knows_so_many_phones(http: httpx.Client, ledger: Ledger, monkeypatch):
    """Whoever adds them in a loop is told."""
    monkeypatch.setattr("paynexus_async.sandbox._phone._PHONES_MAX", 1)
    ledger.set_balance("0711222333", 50)
    answer = http.post("/sandbox/phones", json={"phone": "0711222334"})
    assert (answer.status_code, ledger.phones) == (422, ("254711222333",))


# --- Who may


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_another_site_can_neither_answer_a_prompt_nor_listen(
    held: httpx.Client, ledger: Ledger, headers
):
    """Not by a visitor's browser (CSRF), and not under a name of its own (DNS rebinding)."""
    reference = initiate(held)
    posts = {
        f"/sandbox/prompts/{reference}/pin": {"pin": PIN},
        f"/sandbox/prompts/{reference}/decline": None,
        "/sandbox/phones": {"phone": "0711222333", "balance": 1},
        "/sandbox/script": {"scenario": "cancelled"},
    }
    for path, body in posts.items():
        answer = held.post(path, json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")
    assert held.get("/sandbox/events", headers=headers).status_code == 403
    assert ledger.payment(reference).waits
    assert ledger.phones == ("254746990866",)
    assert initiate(held) != reference  # and it is not scripted
    assert ledger.records[-1].scenario.name == "person"


def test_a_page_that_may_not_listen_is_no_customer(http: httpx.Client, ledger: Ledger):
    """Otherwise any site could hold up every payment for a minute."""
    http.get("/sandbox/events", headers={"Origin": "https://evil.example"})
    assert ledger.customer.name == "paid"


@pytest.mark.parametrize(
    ("path", "headers", "allowed"),
    [
        ("/", {"Host": "127.0.0.1:8765"}, True),
        ("/", {"Host": "localhost:8765", "Sec-Fetch-Site": "cross-site"}, True),  # a link to it
        ("/", {"Host": "evil.example"}, False),
        ("/sandbox/events", {"Host": "192.168.1.7:8765", "Sec-Fetch-Site": "same-origin"}, True),
        ("/sandbox/events", {"Host": "[::1]:8765"}, True),
        ("/sandbox/events", {"Host": "[::1]"}, True),
        ("/sandbox/script", {"Host": "sandbox:8765"}, True),  # a container's name
        ("/sandbox/script", {"Host": "host.docker.internal:8765"}, True),
        ("/sandbox/script", {"Host": "me.LOCALHOST"}, True),
        ("/sandbox/script", {"Host": "127.0.0.1.example"}, False),
        ("/sandbox/script", {"Host": "127.0.0.1:8765", "Origin": PAGE}, True),
        ("/sandbox/script", {"Host": "127.0.0.1:8765", "Origin": "http://127.0.0.1:80"}, False),
        ("/sandbox/script", {"Host": "127.0.0.1:8765", "Origin": "http://localhost:8765"}, False),
        ("/sandbox/script", {"Host": "shop:1", "Origin": "https://shop:1"}, True),
        ("/sandbox/script", {}, True),  # a program, without any header
    ],
    ids=str,
)
def test_the_guard_lets_in_programs_and_its_own_page(path, headers, allowed):
    """By the host and the origin that a browser tells."""
    assert (refusal(path, Headers(headers)) is None) == allowed


def test_the_api_is_not_guarded_by_names(http: httpx.Client):
    """A tunnel or a proxy may stand before it; its keys guard it."""
    body = {"amount": 100, "phone": "0746990866"}
    headers = {"X-API-Key": SECRET_KEY, "Host": "pay.example", "Origin": "https://shop.example"}
    assert http.post("/api/mpesa/payment/initiate", json=body, headers=headers).status_code == 200
