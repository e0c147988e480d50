"""`paynexus durable`: shows what the database holds, changes what was asked for, and nothing else."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sqlite3
import sys
import time
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from dbos import DBOS, DBOSClient

from paynexus_async import AsyncPayNexus
from paynexus_async.cli import _durable, _orders, main
from paynexus_async.durable import (
    DurablePayments,
    OrderHandle,
    OrderState,
    OrderView,
    Outcome,
    Summary,
    Terms,
    dbos_config,
)
from paynexus_async.sandbox import PUBLIC_KEY, SECRET_KEY, Fault, Ledger, SandboxServer

from .postgres import cluster, why_not

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

PHONES = {"paid": "0746990801", "lost": "0746990802", "rude": "0746990803", "stuck": "0746990804"}
PASSWORD = "correct-horse"
SAME = OrderView(
    order_id="order-1",
    attempt=1,
    state=OrderState.PENDING,
    amount=1_100,
    phone="2547*****866",
    payment=None,
    reason=None,
    taken_at=0.0,
    told=None,
    handler_failures=0,
    handler_error=None,
    next_look_at=None,
    is_over=False,
    is_stuck=False,
    workflow_id="1",
)


@asynccontextmanager
async def application(
    url: str, server: SandboxServer, *, rude: bool = False, watch_seconds: float = 86_400.0
) -> AsyncIterator[tuple[DurablePayments, list[Outcome]]]:
    """A merchant's application, whose handler keeps what it is told, or fails for one order."""
    told: list[Outcome] = []

    async def hand_over(outcome: Outcome) -> None:
        if rude and outcome.order_id == "rude":
            message = "the shop's database is away"
            raise LookupError(message)
        told.append(outcome)

    DBOS(config=dbos_config("shop", url))
    try:
        async with AsyncPayNexus(SECRET_KEY, PUBLIC_KEY, base_url=server.url) as paynexus:
            terms = Terms(burst_seconds=20, watch_seconds=watch_seconds)
            durable = DurablePayments(paynexus, on_settled=hand_over, terms=terms)
            DBOS.launch()
            async with durable:
                yield durable, told
    finally:
        DBOS.destroy(destroy_registry=True)


async def ended(handle: OrderHandle, durable: DurablePayments) -> Outcome:
    """Wait for an order's end, and have it looked for at once, as a webhook does."""
    reference = (await handle.payment()).reference
    assert reference is not None
    outcome = asyncio.create_task(handle.outcome())
    while not (await asyncio.wait([outcome], timeout=0.05))[0]:
        await durable._paynexus.notify(reference)
    return outcome.result()


async def lose(durable: DurablePayments, server: SandboxServer) -> str:
    """Have an order's answer lost, and its payment not found; return the payment's reference."""
    ledger = server.ledger
    ledger.script("instant")
    ledger.faults.add(Fault("reset-after", call="initiate", times=1))
    rule = ledger.faults.add(Fault("400-before", call="list"))
    handle = await durable.pay("lost", amount=77, phone=PHONES["lost"])
    assert (await handle.outcome()).state is OrderState.UNKNOWN
    ledger.faults.remove(rule.id)
    return ledger.prompts[-1].reference


async def trade(url: str, server: SandboxServer) -> str:
    """Take an order of each kind, and leave; return the lost payment's reference."""
    ledger = server.ledger
    async with application(url, server, rude=True) as (durable, _):
        for order_id, scenario in {"paid": "instant", "rude": "instant"}.items():
            ledger.script(scenario)
            handle = await durable.pay(order_id, amount=100, phone=PHONES[order_id])
            await ended(handle, durable)
        reference = await lose(durable, server)
        ledger.script("stuck")
        handle = await durable.pay("stuck", amount=1_100, phone=PHONES["stuck"])
        await handle.payment()
    return reference


@attrs.frozen
class Shop:
    """An application that has gone: its database, and the PayNexus that it talked to."""

    path: Path
    server: SandboxServer
    lost: str

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    def put_off(self, seconds: float) -> None:
        """Let all that waits be due in so many seconds, what was due already on a slow machine, too."""
        due = int((time.time() + seconds) * 1_000)
        words = "UPDATE workflow_status SET status = 'DELAYED', delay_until_epoch_ms = ? WHERE "
        with sqlite3.connect(self.path) as database:
            database.execute(words + "status IN ('DELAYED', 'ENQUEUED')", [due])
        database.close()


@pytest.fixture(scope="module")
def traded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Each test gets a copy of the one database that is made here."""
    path = tmp_path_factory.mktemp("durable") / "orders.sqlite"
    with SandboxServer(Ledger(clock=time.time, speed=20)) as server:
        lost = asyncio.run(trade(f"sqlite:///{path}", server))
        yield Shop(path, server, lost)


@pytest.fixture
def shop(traded: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """One order paid, one unknown, one whose handler fails, one pending; no worker runs."""
    path = tmp_path / "orders.sqlite"
    with sqlite3.connect(traded.path) as source, sqlite3.connect(path) as target:
        source.backup(target)
    source.close()
    target.close()
    monkeypatch.setenv("PAYNEXUS_DURABLE_DATABASE", f"sqlite:///{path}")
    shop = attrs.evolve(traded, path=path)
    shop.put_off(5_030)
    return shop


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(["durable", *arguments])
    out, err = capsys.readouterr()
    code = caught.value.code
    return (code if isinstance(code, int) else -1), out, err


def run_json(
    capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, list[dict[str, Any]]]:
    code, out, _ = run(capsys, *arguments, "--json")
    return code, [json.loads(line) for line in out.splitlines()]


# --- status


def test_an_order_that_is_stuck_is_told(shop: Shop, capsys):
    """Somebody has taken its row out: nothing happens to it any more, and `retry` goes on."""
    client = DBOSClient(system_database_url=f"sqlite:///{shop.path}")
    document = run_json(capsys, "status", "stuck")[1][0]
    client.cancel_workflow(document["workflow_id"])
    code, out, _ = run(capsys, "status")
    assert code == 9
    told = out[out.index("✘ stuck  stuck") :]
    assert "next     nothing, although something should: `paynexus durable retry` goes on" in told
    assert run_json(capsys, "status")[1][-1]["stuck"] == 1
    assert run(capsys, "retry", "stuck")[0] == 0
    assert run_json(capsys, "status")[1][-1]["stuck"] == 0
    client.destroy()


def test_status_counts_and_tells_who_must_be_looked_at(shop: Shop, capsys):
    """9, for a script; no whole phone, and no line of the engine's log."""
    code, out, err = run(capsys, "status")
    assert (code, err) == (9, "")
    assert out.startswith("2  completed\n1  pending\n1  unknown\n")
    oldest, unknown, failing, verdict = out.split("\n\n")[1:]
    assert oldest.startswith("· stuck  pending, the oldest\n  asked    KES 1,100 of 2547*****804, ")
    assert unknown.startswith("✘ lost  unknown\n  asked    KES 77 of 2547*****802, ")
    assert "  payment  none is known\n  why      PayNexus's list could not be read: " in unknown
    assert "or ask the customer\n" in unknown  # to its end
    assert "  handler  was told: unknown\n  next     due in 1 h 23 min" in unknown
    assert failing.startswith("✘ rude  its handler fails\n")
    assert "  failed " in failing.replace("handler", "")
    assert "last with LookupError at test_cli_durable.py:" in failing
    assert "; was told nothing yet" in failing
    assert verdict == "2 orders need somebody to look.\n"
    assert not [phone for phone in PHONES.values() if phone[1:] in out]


def test_status_for_a_program_has_one_object_for_each_order_to_look_at(shop: Shop, capsys):
    """And the counts at the end."""
    code, events = run_json(capsys, "status")
    lost, rude, result = events
    assert code == 9
    assert (lost["event"], lost["order_id"], lost["state"]) == ("order", "lost", "unknown")
    assert lost["payment"] is None
    assert lost["next_look_at"].endswith("+00:00")
    assert rude["order_id"] == "rude"
    assert rude["payment"]["status"] == "completed"
    assert rude["handler_failures"] > 0
    assert result["event"] == "result"
    assert result["outcome"] == "attention"
    assert result["counts"] == {"completed": 2, "unknown": 1, "pending": 1}
    assert result["oldest_pending"]["order_id"] == "stuck"
    assert (result["unknown"], result["failing"]) == (1, 1)


@pytest.mark.parametrize(
    ("order_id", "code", "words"),
    [
        ("paid", 0, "· paid  completed, attempt 1"),
        ("lost", 9, "✘ lost  unknown, attempt 1"),
        ("rude", 9, "✘ rude  completed, attempt 1"),
        ("stuck", 0, "· stuck  pending, attempt 1"),
    ],
)
def test_status_of_an_order_shows_its_attempts(shop: Shop, capsys, order_id, code, words):
    """And says whether somebody must look at it."""
    ended, out, err = run(capsys, "status", order_id)
    assert (ended, err) == (code, "")
    assert out.startswith(f"\n{words}\n")
    ended, (order, result) = run_json(capsys, "status", order_id)
    assert ended == code
    assert (order["order_id"], result["attempts"]) == (order_id, 1)
    assert result["outcome"] == ("attention" if code else "completed")


@pytest.mark.parametrize("command", [["status"], ["retry"], ["resolve", "--no-payment", "--yes"]])
def test_an_order_that_is_not_there_is_told(shop: Shop, capsys, command):
    """On standard error, or as an event."""
    code, out, err = run(capsys, command[0], "nobody's", *command[1:])
    assert (code, out) == (2, "")
    assert err.startswith("paynexus: there is no order ")
    code, (event,) = run_json(capsys, command[0], "nobody's", *command[1:])
    assert (code, event["event"], event["error"]) == (2, "error", "InvalidRequestError")


def test_status_under_another_name_finds_no_orders(shop: Shop, capsys):
    """That is said, and is nothing to look at."""
    assert run(capsys, "status", "--name", "other") == (0, "No orders of 'other'.\n", "")


def view(number: int, **changes: Any) -> OrderView:
    return attrs.evolve(SAME, order_id=f"order-{number}", workflow_id=str(number), **changes)


def shown(capsys: pytest.CaptureFixture[str], *views: OrderView) -> str:
    summary = Summary(
        counts=Counter(view.state for view in views),
        oldest_pending=None,
        unknown=tuple(view for view in views if view.state is OrderState.UNKNOWN),
        failing=tuple(view for view in views if view.handler_failures),
    )
    _durable._show_summary(summary, _durable.Place())
    return capsys.readouterr().out


def test_of_very_many_to_look_at_twenty_are_shown(capsys):
    """The rest is counted."""
    out = shown(capsys, *(view(n, state=OrderState.UNKNOWN) for n in range(1_021)))
    assert out.count("✘ order-") == 20
    assert "… and 1,001 more; --json tells all of them\n" in out
    assert out.endswith("1,021 orders need somebody to look.\n")


def test_one_that_is_unknown_and_whose_handler_fails_is_one_order(capsys):
    """Though it is listed under both."""
    out = shown(capsys, view(1, state=OrderState.UNKNOWN, handler_failures=1))
    assert out.endswith("1 order needs somebody to look.\n")


def test_where_all_is_well_that_is_said(capsys):
    """In a sentence of its own."""
    assert shown(capsys, view(1)).endswith("\n\nNobody needs to look.\n")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"is_over": True}, "next     nothing: it is over"),
        ({}, "next     a worker is at it, or takes it as soon as one is free"),
        ({"next_look_at": -90.0}, "next     due for 1 min 30 s: is a worker running?"),
        ({"next_look_at": -5.0}, "next     due in 0 s"),
        ({"next_look_at": 90.0}, "next     due in 1 min 30 s"),
        ({"taken_at": 60.0}, ", 0 s ago ("),
        ({"state": OrderState.NEVER_SENT}, "never sent, attempt 1"),
        ({"told": OrderState.EXPIRED}, "handler  was told: expired"),
        (
            {"told": OrderState.EXPIRED, "handler_failures": 1, "handler_error": "OSError"},
            "handler  failed once, last with OSError; was told: expired",
        ),
        ({"handler_failures": 1_200}, "handler  failed 1,200 times"),
        ({"reason": "call\n\x1b[31m0746990866 "}, "why      call [31m0746*****866".replace("0746*", "07*")),
    ],
)  # fmt: skip
def test_an_attempt_is_told_in_words(capsys, monkeypatch, changes, words):
    """What it is, what the handler knows, and what comes next; foreign words made harmless."""
    monkeypatch.setattr(_durable.time, "time", lambda: 0.0)
    _durable._show_attempts([view(1, **changes)])
    assert words in capsys.readouterr().out


def test_on_a_terminal_words_are_broken_behind_their_label(capsys, monkeypatch):
    """Whole ones, and none is lost."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    _durable._show_attempts([view(1, reason="it has not ended in all the time that it had")])
    out = capsys.readouterr().out
    assert "it has not ended in all the" in out
    assert "         \x1b[0mtime that it had\n" in out


# --- retry and resolve


def test_retry_makes_an_order_due_and_no_other(shop: Shop, capsys):
    """In the database: a worker takes it when there is one."""
    code, out, err = run(capsys, "retry", "rude")
    assert (code, err) == (0, "")
    words = "Order rude: completed. It is due now: the next worker that is free takes it.\n"
    assert out == words
    assert "next     due in 0 s" in run(capsys, "status", "rude")[1]
    assert "next     due in 1 h 23 min" in run(capsys, "status", "lost")[1]
    code, (result,) = run_json(capsys, "retry", "lost")
    assert (code, result["event"], result["outcome"]) == (0, "result", "completed")
    assert (result["order_id"], result["state"]) == ("lost", "unknown")


def test_an_order_that_is_over_is_not_retried(shop: Shop, capsys):
    """There is nothing to bring forward."""
    code, _, err = run(capsys, "retry", "paid")
    assert code == 2
    assert err == "paynexus: order paid is over: nothing of it waits to be retried\n"


def test_resolve_writes_an_order_off(shop: Shop, capsys):
    """It is shown as that at once, is nothing to look at any more, and not resolved twice."""
    code, out, err = run(capsys, "resolve", "lost", "--no-payment", "--yes")
    assert (code, err) == (0, "")
    assert out.startswith("Order lost: written off. The next worker that is free tells the handler")
    code, out, _ = run(capsys, "status", "lost")
    assert code == 0
    assert "· lost  written off, attempt 1\n" in out
    assert "  why      somebody who looked said that there is no payment\n" in out
    code, _, err = run(capsys, "resolve", "lost", "--no-payment", "--yes")
    assert code == 1
    assert "order lost is written_off, not unknown: there is nothing to resolve" in err
    assert run_json(capsys, "status")[1][-1]["unknown"] == 0


@pytest.mark.parametrize(
    ("answer", "code", "unknown"), [("y\n", 0, 0), (" YES \n", 0, 0), ("n\n", 1, 1), ("", 1, 1)]
)
def test_on_a_terminal_one_is_asked(shop: Shop, capsys, monkeypatch, answer, code, unknown):
    """What is at stake is said; anything but a yes changes nothing."""
    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    ended, out, err = run(capsys, "resolve", "lost", "--no-payment")
    assert ended == code
    assert err.startswith("Order lost: KES 77 of 2547*****802, ")
    assert (
        "the customer pays twice.\nHave you looked, and is there none? Write it off? [y/N]" in err
    )
    assert err.endswith("paynexus: nothing was changed\n") == bool(unknown)
    assert bool(out) == (code == 0)
    assert run_json(capsys, "status")[1][-1]["unknown"] == unknown


def test_what_is_not_unknown_is_not_asked_about(shop: Shop, capsys, monkeypatch):
    """It is refused."""
    terminal = io.StringIO("y\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    code, out, err = run(capsys, "resolve", "stuck", "--no-payment")
    assert (code, out) == (1, "")
    assert err == (
        "paynexus: order stuck is pending, not unknown: there is nothing to resolve\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give either the reference of its payment, or --no-payment"),
        (["PNXABC123DEF", "--no-payment"], "give either the reference"),
        (["--no-payment"], "nobody is there to be asked"),
        (["../x"], "reference must be 1 to 64 letters"),
        (["0746990866"], "reference looks like a phone number"),
        (["ws_CO_270120261017180746990866"], "reference is a checkout request id"),
    ],
)
def test_a_resolution_that_says_nothing_is_refused(
    shop: Shop, capsys, monkeypatch, arguments, words
):
    """And changes nothing: a phone is not stored as a reference either."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    code, out, err = run(capsys, "resolve", "lost", *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert run_json(capsys, "status")[1][-1]["unknown"] == 1


def test_the_payment_of_another_order_resolves_none(shop: Shop, capsys):
    """Two goods would be handed over for it."""
    reference = run_json(capsys, "status", "paid")[1][0]["payment"]["reference"]
    code, _, err = run(capsys, "resolve", "lost", reference.lower())
    assert code == 2
    assert f"{reference.lower()} is the payment of order paid, not of lost" in err
    assert run_json(capsys, "status")[1][-1]["unknown"] == 1


def test_the_order_of_a_payment_may_name_it(shop: Shop, capsys):
    """Such as one whose answer had contradicted what was asked, and was mended since."""

    async def scenario() -> Outcome:
        async with application(shop.url, shop.server) as (durable, _):
            shop.server.ledger.script("other-amount")
            handle = await durable.pay("odd", amount=50, phone="0746990805")
            return await ended(handle, durable)

    outcome = asyncio.run(scenario())
    assert (outcome.state, outcome.payment is None) == (OrderState.UNKNOWN, False)
    reference = outcome.payment.reference if outcome.payment else ""
    assert run(capsys, "resolve", "odd", str(reference))[0] == 0


async def told_of(told: list[Outcome], order_id: str) -> Outcome:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for outcome in told:
            if outcome.order_id == order_id:
                return outcome
        await asyncio.sleep(0.05)
    raise AssertionError(told)


def test_a_worker_does_what_was_asked_for(shop: Shop, capsys):
    """The lost payment is asked for, and the handler told; what was put off is done now."""

    async def scenario() -> None:
        async with application(shop.url, shop.server) as (_, told):
            for arguments in (["resolve", "lost", shop.lost], ["retry", "rude"]):
                code, _, err = await asyncio.to_thread(run, capsys, *arguments)
                assert (code, err) == (0, "")
            assert (await told_of(told, "rude")).state is OrderState.COMPLETED
            paid = await told_of(told, "lost")
            assert paid.state is OrderState.COMPLETED
            assert paid.payment is not None
            assert paid.payment.reference == shop.lost
            assert paid.overtakes is OrderState.UNKNOWN

    asyncio.run(scenario())
    code, out, _ = run(capsys, "status", "lost")
    assert code == 0
    assert f"  payment  {shop.lost}  completed  KES 77" in out


def test_an_order_that_was_written_off_may_be_asked_for_again(shop: Shop, capsys):
    """Each attempt is shown."""
    run(capsys, "resolve", "lost", "--no-payment", "--yes")

    async def scenario() -> None:
        async with application(shop.url, shop.server) as (durable, told):
            assert (await told_of(told, "lost")).state is OrderState.WRITTEN_OFF
            shop.server.ledger.script("instant")
            handle = await durable.pay("lost", amount=77, phone=PHONES["lost"], again=True)
            assert (await ended(handle, durable)).succeeded

    asyncio.run(scenario())
    _, out, _ = run(capsys, "status", "lost")
    assert "lost  written off, attempt 1\n" in out
    assert "lost  completed, attempt 2\n" in out


def test_an_order_that_nobody_looks_for_any_more_is_resolved_too(
    traded: Shop, tmp_path: Path, capsys
):
    """Its payment is shown as soon as it is named."""
    place = ("--database", f"sqlite:///{tmp_path}/orders.sqlite")

    async def scenario() -> str:
        async with application(place[1], traded.server, watch_seconds=0.001) as (durable, _):
            return await lose(durable, traded.server)

    reference = asyncio.run(scenario())
    assert "next     nothing: it is over" in run(capsys, "status", "lost", *place)[1]
    code, out, _ = run(capsys, "resolve", "lost", reference, *place)
    assert (code, out.partition(". ")[0]) == (0, "Order lost: pending")
    code, out, _ = run(capsys, "status", "lost", *place)
    assert code == 0
    assert f"  payment  {reference}  initiated  KES 77\n" in out
    assert "next     a worker is at it, or takes it as soon as one is free" in out


# --- The database


@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        ("orders.sqlite", 2, "--database must be a URL such as sqlite:///paynexus.sqlite"),
        ("", 2, "--database must be a URL"),
        ("sqlite://", 2, "must name a file, after three slashes"),
        ("sqlite:///:memory:", 2, "must name a file"),
        ("sqlite://orders.sqlite", 2, "must name a file"),
        ("sqlite:///{}/none.sqlite", 2, "none.sqlite: name the database of your application"),
        ("sqlite:///{}", 2, "there is no file "),
        ("mysql://me:correct-horse@host/orders", 2, "is of SQLite or PostgreSQL"),
        ("postgresql://me:correct-horse@127.0.0.1:1", 2, "must name a database"),
        ("postgresql://me:correct-horse@127.0.0.1:x/orders", 2, "must be a URL"),
        ("postgresql://me:cor@correct-horse@127.0.0.1:1/orders", 2, "more than one @"),
        ("postgres://me:correct-horse@127.0.0.1:1/orders", 1, "127.0.0.1:1/orders cannot be opened: Connection refused"),
        ("postgresql:///orders?host=/none/correct-horse", 1, "localhost:5432/orders cannot be opened"),
        ("postgresql+asyncpg://me:correct-horse@127.0.0.1:1/orders?correct-horse=1&password=correct-horse", 1, 'invalid connection option "…"'),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", [["status"], ["retry", "order-1"]])
def test_a_database_that_is_not_one_is_told_in_a_sentence(
    tmp_path: Path, capsys, command, url, code, words
):
    """One line, no password in it, and nothing is created."""
    ended, out, err = run(capsys, *command, "--database", url.format(tmp_path))
    assert (ended, out) == (code, "")
    assert words in err
    assert err.startswith("paynexus: ")
    assert err.count("\n") == 1
    assert PASSWORD not in err
    assert not list(tmp_path.iterdir())


def test_the_default_is_that_of_dbos_config(tmp_path: Path, capsys, monkeypatch):
    """In the current folder."""
    monkeypatch.chdir(tmp_path)
    assert "there is no file paynexus.sqlite: " in run(capsys, "status")[2]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b"", 2, "has no orders: no application has launched DBOS on it"),
        (b"hello, hello", 1, "cannot be opened: file is not a database"),
    ],
)
def test_a_file_that_is_no_database_is_told(tmp_path: Path, capsys, content, code, words):
    """And left as it is."""
    path = tmp_path / "orders.sqlite"
    path.write_bytes(content)
    ended, _, err = run(capsys, "status", "--database", f"sqlite+aiosqlite:///{path}")
    assert ended == code
    assert words in err
    assert path.read_bytes() == content


def test_tables_of_another_version_are_told(tmp_path: Path, capsys):
    """What the engine needs and does not find is named."""
    path = tmp_path / "orders.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE workflow_status (workflow_uuid TEXT)")
    database.close()
    code, events = run_json(capsys, "status", "--database", f"sqlite:///{path}")
    assert (code, events[0]["error"]) == (1, "OrdersUnreadableError")
    assert "orders.sqlite cannot be used: no such " in events[0]["message"]


def test_what_a_url_asks_of_sqlite_is_left_to_the_application(shop: Shop, capsys):
    """Looking needs none of it."""
    assert run(capsys, "status", "--database", f"{shop.url}?timeout=soon")[0] == 9


@pytest.mark.parametrize(("query", "seconds"), [("", "10"), ("?connect_timeout=3", "3")])
def test_a_server_that_keeps_silent_is_waited_for_a_little_while(query, seconds):
    """However long that is by default."""
    url = _orders._url_of(f"postgresql://me@host/orders{query}")
    assert url.query["connect_timeout"] == seconds


def test_the_log_of_the_engine_is_kept_off_the_terminal(shop: Shop, caplog):
    """What matters of it is raised."""
    with _orders.opened(shop.url, "paynexus"):
        logging.getLogger("dbos").critical("chatter")
    assert caplog.text == ""


def test_to_look_changes_nothing(shop: Shop, capsys):
    """Not one byte; and the log is as it was."""
    before = shop.path.read_bytes()
    run(capsys, "status")
    run(capsys, "status", "lost")
    assert shop.path.read_bytes() == before
    assert logging.root.manager.disable == logging.NOTSET


@pytest.mark.parametrize("missing", ["dbos", "cryptography"])
def test_without_the_extra_that_is_said(capsys, monkeypatch, missing):
    """With what to install."""
    for name in [*sys.modules]:
        if name.startswith("paynexus_async.durable") or name == "paynexus_async.cli._orders":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("paynexus_async.cli._orders", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    code, _, err = run(capsys, "status")
    assert code == 2
    assert err == f"paynexus: {missing} is missing: pip install 'paynexus-async[cli,durable]'\n"


def test_what_holds_the_url_does_not_show_it():
    """An error reporter shows what functions are called with."""
    assert PASSWORD not in repr(_durable.Place(database=f"postgresql://me:{PASSWORD}@host/orders"))


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_the_same_on_postgresql(traded: Shop, capsys):
    """Also without the database, without an application, and without the server."""
    with cluster() as server:
        url = server.create("shop")
        code, _, err = run(capsys, "status", "--database", server.url("none"))
        assert (code, err.count("\n")) == (1, 1)
        assert '/none cannot be opened: database "none" does not exist' in err
        code, _, err = run(capsys, "status", "--database", url)
        assert code == 2
        assert f"127.0.0.1:{server.port}/shop has no orders" in err
        reference = asyncio.run(trade(url, traded.server))
        code, out, err = run(capsys, "status", "--database", url)
        assert (code, err) == (9, "")
        assert out.startswith("2  completed\n1  pending\n1  unknown\n")
        assert run(capsys, "retry", "lost", "--database", url)[0] == 0
        assert run(capsys, "resolve", "lost", reference, "--database", url)[0] == 0
        assert run_json(capsys, "status", "--database", url)[1][-1]["counts"]["pending"] == 2
        server.stop()
        code, out, err = run(capsys, "status", "--database", url)
        assert (code, out) == (1, "")
        assert "/shop cannot be opened: Connection refused\n" in err
        server.start()
