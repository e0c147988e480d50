"""The ledger's state in a file: what survives, whatever ends the process, and what is refused."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import httpx
import pytest

from paynexus_async.sandbox import (
    DISORDERS,
    PIN,
    PUBLIC_KEY,
    SCENARIOS,
    SECRET_KEY,
    Ledger,
    Plan,
    Request,
    Scenario,
    SQLiteStore,
    Step,
    StoreError,
    _engine,
    _webhooks,
)

from .test_webhooks import NOON, URL

if TYPE_CHECKING:
    from collections.abc import Iterator

PAY = {"amount": 100, "phone": "0746990866"}


class World:
    """A ledger, and how to end it and begin it anew."""

    opened: ClassVar[list[SQLiteStore]] = []

    def __init__(self, path: Path | None, **options: Any) -> None:
        self.path, self.options = path, options
        self.now = NOON
        self.store: SQLiteStore | None = None
        self.begin()

    def begin(self) -> None:
        self.store = None if self.path is None else SQLiteStore(self.path)
        if self.store is not None:
            self.opened.append(self.store)
        self.ledger = Ledger(clock=lambda: self.now, store=self.store, **self.options)

    def restart(self) -> None:
        """Nothing is saved at the end: a file is all that the next ledger has."""
        if self.store is not None:
            self.store.close()
            self.begin()

    def call(self, method: str, path: str, body: Any = None, key: str = SECRET_KEY) -> Any:
        raw = b"" if body is None else json.dumps(body).encode()
        return self.ledger.handle(Request(method, path, key, raw))

    def initiate(self, **fields: Any) -> str:
        reply = self.call("POST", "/mpesa/payment/initiate", {**PAY, **fields})
        reference: str = reply.document["data"]["reference"]
        return reference

    def status(self, reference: str) -> Any:
        return self.call("GET", f"/payments/{reference}", key=PUBLIC_KEY).document["data"]


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Every world's file, whatever becomes of its test."""
    yield
    while World.opened:
        World.opened.pop().close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sandbox.sqlite"


@pytest.fixture
def world(path: Path) -> Any:
    world = World(path)
    yield world
    world.store.close()


def test_a_payment_goes_on_where_it_was(world: World):
    """The same names, the same past, and the end that it was to have."""
    reference = world.initiate(description="Order #1")
    world.now += 4
    before = world.status(reference)
    assert before["status"] == "processing"
    world.restart()
    assert world.status(reference) == before
    world.now += 5
    assert world.status(reference)["status"] == "completed"
    by_id = {"checkout_request_id": before["checkout_request_id"]}
    found = world.call("POST", "/payments/status-by-checkout-id", by_id).document["data"]
    assert found["reference"] == reference
    assert len(world.ledger.prompts) == 1


def test_an_answer_on_the_phone_survives(path: Path):
    """And so do an open prompt, and a balance."""
    world = World(path, customer="person")
    paid, declined, open_ = (world.initiate() for _ in range(3))
    world.ledger.set_balance("0746990866", 150)
    world.ledger.enter_pin(paid, PIN)
    world.ledger.decline(declined)
    world.restart()
    world.now += 2
    assert [world.ledger.status(name) for name in (paid, declined, open_)] == [
        "completed",
        "cancelled",
        "initiated",
    ]
    assert world.ledger.balance("0746990866") == 50
    assert [p.reference for p in world.ledger.open_prompts("0746990866")] == [open_]
    world.ledger.enter_pin(open_, PIN)
    assert world.status(open_)["status"] == "processing"


def play(world: World, seed: int) -> list[Any]:
    """Do a hundred things, and return all that was seen; the ledger begins anew between them."""
    dice, seen = random.Random(seed), []
    names: list[str] = []
    own = Scenario("mine", (Step(3, "pending", {"amount": None}),), frozenset({"phone"}))
    for _ in range(100):
        webhooks = world.ledger.webhooks
        endpoints = [e.number for e in webhooks.endpoints]
        told = {d.endpoint for d in webhooks.deliveries}
        act = dice.randrange(12)
        reply: Any = None
        if act <= 2:
            phone = dice.choice(["0746990866", "0700000003", "0700000008"])
            names.append(world.initiate(phone=phone, amount=dice.randint(1, 100)))
        elif act == 3 and names:
            reply = world.status(dice.choice(names))
        elif act == 4:
            world.ledger.script(dice.choice(["late", "person", own]))
        elif act == 5 and (prompts := world.ledger.open_prompts("0746990866")):
            world.ledger.enter_pin(prompts[0].reference, dice.choice([PIN, "0000"]))
        elif act == 6:
            world.ledger.set_balance("0746990866", dice.randint(0, 500))
        elif act == 7 and len(endpoints) < 3:
            body = {"name": "x", "url": URL, "events": ["payment.initiated", "payment.completed"]}
            reply = world.call("POST", "/webhooks/register", body)
        elif act == 8 and endpoints:
            disorder = dice.sample([*DISORDERS], 2)
            reply = webhooks.disturb(dice.choice(endpoints), disorder, times=dice.choice([None, 2]))
        elif act == 9 and set(endpoints) & told:
            webhooks.remove(min(set(endpoints) & told))
        elif act == 10 and webhooks.deliveries:
            again = dice.choice(webhooks.deliveries)
            reply = webhooks.resend(again.number) if again.endpoint in endpoints else None
        else:
            world.now += dice.choice([0.5, 3, 20])
        seen.append((act, reply))
        for post in webhooks.due():
            seen.append((post.delivery, post.url, dict(post.headers), post.body))
            webhooks.answered(post.delivery, dice.choice([200, 200, 500]))
        world.restart()
        seen.append(world.call("GET", "/payments").document)
        seen.append(world.ledger.webhooks.deliveries)
        seen.append(world.ledger.balance("0746990866"))
    return seen


@pytest.mark.parametrize("seed", range(4))
def test_with_a_restart_after_everything_nothing_is_different(path: Path, seed: int):
    """From a ledger that runs through, in memory: not one answer, delivery or balance."""
    options = {"plan": "enterprise", "customer": "person", "seed": seed}
    kept, through = World(path, **options), World(None, **options)
    try:
        for mine, theirs in zip(play(kept, seed), play(through, seed), strict=True):
            assert mine == theirs
    finally:
        assert kept.store is not None
        kept.store.close()


def test_a_quota_is_not_filled_up_by_a_restart(path: Path):
    """And no key is in the file."""
    world = World(path, plan="trial")
    codes = []
    for _ in range(4):
        codes += [world.call("GET", "/payments").status_code for _ in range(10)]
        world.restart()
    assert codes == [200] * 30 + [429] * 10
    assert world.store is not None
    world.store.close()
    assert SECRET_KEY.encode() not in path.read_bytes()


def test_a_month_of_webhooks_is_not_filled_up_by_a_restart(path: Path):
    """It goes on counting."""
    world = World(path, plan=Plan("tiny", {60: 100}, webhooks=2))
    world.ledger.webhooks.register(URL)
    sent = []
    for _ in range(3):
        world.ledger.script("stuck")
        world.initiate()
        sent.append(len(world.ledger.webhooks.due()))
        world.ledger.webhooks.answered(len(sent), 200)
        world.restart()
    assert sent == [1, 1, 0]
    assert world.store is not None
    world.store.close()


def test_forgotten_windows_and_deliveries_leave_the_file(path: Path, monkeypatch):
    """What is bounded in memory is bounded there."""
    monkeypatch.setattr(_engine, "WINDOWS_MAX", 3)
    monkeypatch.setattr(_webhooks, "DELIVERIES_KEPT_MAX", 2)
    world = World(path, plan="enterprise")
    world.ledger.webhooks.register(URL)
    for number in range(5):
        world.call("GET", "/payments", key=f"sk_{number}")
        world.initiate()
        world.ledger.webhooks.due()
    assert world.store is not None
    assert len(world.store.kept("window")) == 3
    assert sorted(name for name, _ in world.store.kept("delivery")) == ["4", "5"]
    world.store.close()


def test_names_are_not_made_twice(world: World):
    """By a ledger of the same seed."""
    first = [world.initiate() for _ in range(3)]
    world.restart()
    assert not set(first) & {world.initiate() for _ in range(3)}
    receipts = [record.receipt for record in world.ledger.records]
    assert len(set(receipts)) == 6
    assert len({p.checkout_request_id for p in world.ledger.prompts}) == 6


def test_the_person_is_the_same_person(world: World):
    """Scenarios that are known are themselves again, and others equal."""
    own = Scenario("paid", (Step(1, "failed", {"failure_reason": None}),), frozenset({"amount"}))
    for scenario in (*SCENARIOS.values(), own):
        world.ledger.script(scenario)
        world.initiate()
    world.restart()
    *known, mine = (record.scenario for record in world.ledger.records)
    assert all(a is b for a, b in zip(known, SCENARIOS.values(), strict=True))
    assert mine == own


def test_another_speed_is_refused(world: World):
    """Payments would jump, even out of their ends."""
    world.options["speed"] = 2
    with pytest.raises(ValueError, match="speed must be 1, as the store's"):
        world.restart()


def test_what_is_written_together_is_kept_together(path: Path):
    """Also where a nested block ended, or an error."""
    with SQLiteStore(path) as store:
        with pytest.raises(ZeroDivisionError), store.writing():
            with store.writing():
                store.put("balance", "a", 1)
            assert store._connection.in_transaction
            store.put("balance", "b", 2)
            raise ZeroDivisionError
        assert not store._connection.in_transaction
    with SQLiteStore(path) as store:
        assert sorted(store.kept("balance")) == [("a", 1), ("b", 2)]


# --- The file


def test_the_file_is_its_owners(path: Path):
    """Phones are in it."""
    SQLiteStore(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_one_at_a_time(path: Path):
    """In one process or in two; it is free when its holder ends."""
    with SQLiteStore(path), pytest.raises(StoreError, match=r"in use by another sandbox"):
        SQLiteStore(path)
    code = (
        "import sys; from paynexus_async.sandbox import SQLiteStore\n"
        "store = SQLiteStore(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(StoreError, match="in use"):
            SQLiteStore(path)
        other.kill()
    SQLiteStore(path).close()


def alien_text(path: Path) -> None:
    path.write_text("Dear diary, " * 100)


def alien_database(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()


def newer(path: Path) -> None:
    SQLiteStore(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (alien_text, "is not a sandbox's: choose another file"),
        (alien_database, "is not a sandbox's: choose another file"),
        (newer, "is of version 2, and this knows 1: update paynexus-async"),
        (Path.mkdir, "cannot be opened: Is a directory"),
    ],
)
def test_what_is_not_ours_is_refused_and_left_alone(path: Path, make, words):
    """By a message that names the file and says what to do."""
    make(path)
    before = None if path.is_dir() else path.read_bytes()
    with pytest.raises(StoreError, match=re.escape(f"the store {path} {words}")):
        SQLiteStore(path)
    assert before is None or path.read_bytes() == before
    assert {p.name for p in path.parent.iterdir()} == {path.name}


@pytest.mark.parametrize("value", ["{", '{"number": 1}', '{"prompt": {}, "scenario": {}}'])
def test_a_damaged_file_is_refused(path: Path, value):
    """Rather than half believed."""
    with SQLiteStore(path) as store:
        insert = "INSERT INTO state VALUES ('payment', 'PNX', ?)"
        store._connection.execute(insert, (value,))
        with pytest.raises(StoreError, match="is damaged: move it away"):
            Ledger(clock=lambda: NOON, store=store)


# --- Processes


class Process:
    """`paynexus sandbox --store FILE`, as somebody runs it."""

    def __init__(self, path: Path) -> None:
        command = [
            sys.executable,
            "-m",
            "paynexus_async",
            "sandbox",
            "--port",
            "0",
            "--store",
            str(path),
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(r"PAYNEXUS_BASE_URL=(\S+)", line):
                break
        self.url = found[1] if found else ""
        self.root = self.url.removesuffix("/api")

    def kill(self) -> None:
        """As an emergency does: nothing is said goodbye to."""
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def ask(self, method: str, path: str, **options: Any) -> Any:
        headers = {"X-API-Key": SECRET_KEY}
        options = {"timeout": 60, **options}  # a machine that runs tests may be slow
        return httpx.request(method, f"{self.root}{path}", headers=headers, **options).json()


def test_a_killed_sandbox_has_lost_nothing_that_it_answered(path: Path):
    """Killed after each call; payments, scripts, endpoints and secrets are there again."""
    sandbox = Process(path)
    try:
        registered = sandbox.ask("POST", "/sandbox/webhooks", json={"url": "http://127.0.0.1:9/"})
        sandbox.kill()
        sandbox = Process(path)
        assert registered["id"] == sandbox.ask("GET", "/sandbox/webhooks")["endpoints"][0]["id"]
        sandbox.ask("POST", "/sandbox/script", json={"scenario": "stuck"})
        sandbox.kill()
        sandbox = Process(path)
        initiated = sandbox.ask("POST", "/api/mpesa/payment/initiate", json=PAY)["data"]
        sandbox.kill()
        sandbox = Process(path)
        (payment,) = sandbox.ask("GET", "/sandbox/payments")
        assert (payment["reference"], payment["scenario"]) == (initiated["reference"], "stuck")
        status = sandbox.ask("GET", f"/api/payments/{initiated['reference']}")["data"]
        assert status["checkout_request_id"] == initiated["checkout_request_id"]
    finally:
        sandbox.kill()
    with SQLiteStore(path) as store:
        ledger = Ledger(clock=lambda: NOON, store=store)
        assert ledger.webhooks.endpoints[0].secret == registered["secret"]
        assert [d.event for d in ledger.webhooks.deliveries][:1] == ["payment.initiated"]


def test_a_sandbox_killed_in_the_middle_has_every_payment_that_it_answered(path: Path):
    """At any moment of a run of calls; and no half of one."""
    sandbox = Process(path)
    answered = []
    timer = threading.Timer(0.5, sandbox.kill)
    timer.start()
    with httpx.Client(headers={"X-API-Key": SECRET_KEY}) as client, pytest.raises(httpx.HTTPError):
        while True:
            reply = client.post(f"{sandbox.url}/mpesa/payment/initiate", json=PAY)
            answered.append(reply.json()["data"]["reference"])
    timer.join()
    with SQLiteStore(path) as store:
        ledger = Ledger(clock=lambda: NOON, store=store)
    kept = [prompt.reference for prompt in ledger.prompts]
    assert answered
    assert kept[: len(answered)] == answered
    assert len(kept) <= len(answered) + 1
    assert len({record.number for record in ledger.records}) == len(kept)
