"""`paynexus check` and `wait-all`: a file in, a row for each item out, and none of them lost."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from paynexus_async import APIConnectionError, BulkProgress, Payment, PaymentResult, PaymentStatus
from paynexus_async._wire import RateLimits
from paynexus_async.cli import _bulk
from paynexus_async.cli._items import Items, read_items
from paynexus_async.cli._progress import Bar, duration, seconds_left
from paynexus_async.cli._rows import FIELDS, Row, _line_of, rows_to
from paynexus_async.sandbox import PUBLIC_KEY, SECRET_KEY, Fault, Ledger, Request, SandboxServer

from .shell import EPOCH, Shell

HEAD = "item,reference,status,amount,receipt,error,checked_at\n"


class Clock:
    """Time that goes on from one event loop to the next."""

    def __init__(self) -> None:
        self._epoch = self._latest = EPOCH

    def __call__(self) -> float:
        try:
            now = self._epoch + anyio.current_time()
        except anyio.NoEventLoopError:
            return self._latest
        if now < self._latest:
            self._epoch += self._latest - now
        self._latest = max(now, self._latest)
        return self._latest

    def advance(self, seconds: float) -> None:
        self._epoch += seconds
        self._latest += seconds


class Direct(httpx.AsyncBaseTransport):
    """Answers from a ledger, after the time that a network takes; remembers who was asked for."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.asked: list[str] = []
        self.refused = 0
        self.before_answer = lambda: None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api")
        key = request.headers["x-api-key"]
        self.asked.append(path.rsplit("/", 1)[-1])
        reply = self.ledger.handle(Request(request.method, path, key, await request.aread()))
        self.refused += reply.status_code == 429
        self.before_answer()
        await anyio.sleep(0.05)
        return httpx.Response(
            reply.status_code, headers=dict(reply.headers), json=dict(reply.document)
        )


def initiate(ledger: Ledger, count: int, *, key: str = SECRET_KEY) -> list[str]:
    """Prompt so many phones, whatever the plan."""
    first = len(ledger.prompts)
    for number in range(first, first + count):
        body = json.dumps({"amount": 100, "phone": f"07{10_000_000 + number}"}).encode()
        reply = ledger.handle(Request("POST", "/mpesa/payment/initiate", key, body))
        assert reply.status_code == 200, reply
    return [prompt.reference for prompt in ledger.prompts[first:]]


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# --- One run


def test_each_item_has_a_row_and_the_end_has_a_table(shell: Shell, tmp_path: Path):
    """Paid or not, unknown or impossible; blank lines and repetitions are told, and asked once."""
    shell.ledger.script("cancelled")
    cancelled, paid = initiate(shell.ledger, 2)
    shell.ledger.script("cancelled", phone="0710000000")
    orders = tmp_path / "orders.csv"
    orders.write_text(
        f'\ufeffOrder;"Reference"\n1;{cancelled}\n2;{paid}\n3;\n4;PNXNOWHERE\n5;../x\n6;{paid}\n\n7\n',
        "utf-8",
    )
    code, out, err = shell("check", str(orders), "--sandbox")
    assert code == 1  # two have an error
    rows = {row["item"]: row for row in rows_of(out)}
    assert len(out.splitlines()) == 5
    assert tuple(rows[paid]) == FIELDS
    assert rows[paid]["status"] == "initiated"
    assert (rows[paid]["reference"], rows[paid]["amount"]) == (paid, "100")
    assert rows["PNXNOWHERE"]["error"].startswith("NotFoundError: ")
    assert rows["../x"]["error"].startswith("InvalidRequestError: ")
    assert rows["../x"]["checked_at"].endswith("Z")
    assert "2  initiated\n" in err
    assert "1  NotFoundError" in err
    assert "4 of 4 items · 3 calls · 0 s · 1 repeated, asked once · 2 blank lines left out" in err


def test_what_was_answered_is_zero_whatever_the_answer(shell: Shell):
    """For a script: the check is done. What it found stands in the rows."""
    reference = initiate(shell.ledger, 1)[0]
    shell.type(f"{reference}\n")
    code, out, err = shell("check", "-", "--sandbox", "--to", "jsonl")
    assert code == 0
    row = json.loads(out)
    assert (row["item"], row["status"], row["amount"], row["error"]) == (
        reference,
        "initiated",
        100,
        None,
    )
    assert "1 of 1 items · 1 calls" in err


def test_waiting_for_all_ends_with_each_end(shell: Shell, tmp_path: Path):
    """0 where all have ended, 6 where one has not; that one alone is waited for again."""
    shell.ledger.script("stuck")
    stuck, paid = initiate(shell.ledger, 2)
    out = tmp_path / "ends.jsonl"
    shell.type(f"{paid}\n")
    assert shell("wait-all", "-", "--sandbox", "--out", str(out))[0] == 0
    (row,) = map(json.loads, out.read_text().splitlines())
    assert (row["status"], row["error"]) == ("completed", None)
    assert len(row["receipt"]) == 10
    for _ in range(2):
        shell.type(f"{paid}\n{stuck}\n")
        arguments = ("--sandbox", "--out", str(out), "--max-wait", "60", "--resume")
        code, _, err = shell("wait-all", "-", *arguments)
        assert code == 6
        assert "1  PaymentStillPending" in err
        rows = {row["item"]: row for row in map(json.loads, out.read_text().splitlines())}
        assert len(rows) == len(out.read_text().splitlines()) == 2
        assert rows[stuck]["status"] == "processing"  # what was seen last
        assert "1 of an earlier run" in err


def test_an_answer_that_contradicts_is_eight(shell: Shell, tmp_path: Path):
    """It counts more than another error."""
    shell.ledger.faults.add(Fault("other-payment", call="status", times=1))
    initiate(shell.ledger, 2)
    first = shell.ledger.prompts[0].reference
    shell.type(f"{first}\nPNXNOWHERE\n")
    code, out, _ = shell("check", "-", "--sandbox")
    assert code == 8
    assert "PaymentMismatchError: " in out


# --- What is read


@pytest.mark.parametrize(
    ("name", "text", "options", "names"),
    [
        ("a.txt", "PNX1\n\n  PNX2 \r\nPNX1\n", (None, None), ["PNX1", "PNX2"]),
        ("a", "reference\nPNX1\n", (None, None), ["PNX1"]),
        ("a", "reference\nPNX1\n", ("lines", None), ["reference", "PNX1"]),
        ("a.csv", "id,checkout-request id\n1,ws_CO_1\n", (None, None), ["ws_CO_1"]),
        ("a.tsv", "reference\tother\nPNX1\t2\n", (None, None), ["PNX1"]),
        ("a.csv", "checkout_request_id,reference\nws_CO_1,PNX1\nws_CO_2,\n", (None, None), ["PNX1", "ws_CO_2"]),
        ("a.csv", "a,b\nPNX1,PNX2\n", (None, "B"), ["PNX2"]),
        ("a.csv", "mine\nPNX1\n", (None, "mine"), ["PNX1"]),
        ("a.csv", "a,b\nPNX1,PNX2\n", (None, "a"), ["PNX1"]),
        ("a.csv", 'reference\n"PNX\n 1"\n', (None, None), ["PNX 1"]),
        ("a.jsonl", '{"reference": "PNX1"}\n{"payment_reference": "PNX2"}\n', (None, None), ["PNX1", "PNX2"]),
        ("a", '"PNX1"\n\n{"item": 7, "reference": null}\n{"x": 1}\n', (None, None), ["PNX1", "7"]),
        ("a.ndjson", '{"reference": true, "ref": "PNX1"}\n', (None, "ref"), ["PNX1"]),
        ("a.jsonl", '{"reference": "PNX\\ud800"}\n', (None, None), ["PNX?"]),
    ],
)  # fmt: skip
def test_each_form_is_read(tmp_path: Path, name, text, options, names):
    """By its name, by its first line, or as it is said."""
    path = tmp_path / name
    path.write_bytes(text.encode())
    assert list(read_items(str(path), *options).names) == names


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (None, (), "cannot read {}: No such file or directory"),
        (b"", (), "{} is empty"),
        (b" \n\n", (), "{} is empty"),
        (b"reference\n\n", (), "no line of {} holds a reference"),
        (b"a,b\n1,2\n", (), "say which one with --column; it has: a, b"),
        (b"a,b\n1,2\n", ("--column", "c"), "has no column c; it has: a, b"),
        (b"%s\n1\n" % b",".join(b"c%d" % n for n in range(20)), (), "c10, c11, …"),
        (b"PNX1\n", ("--column", "c"), "--column is for CSV and JSON lines"),
        (b'{"a": 1}\n', (), "say which one with --column; it has: a"),
        (b'{"a": 1}\n', ("--column", "b"), "has no column b; it has: a"),
        (b'{"a": 1\n', (), "line 1 of {} is no JSON"),
        (b'[{"reference": "PNX1"}]\n', (), "make lines: jq -c '.[]'"),
        (b"PK\x03\x04\0\0", (), "{} is no text (a workbook?"),
        (b"\xff\xfea\0", (), "{} is UTF-16"),
        (b"caf\xe9\n", (), "{} is not UTF-8 (its byte 4)"),
        (b'reference\n"%s"\n' % (b"x" * 200_000), (), "line 2 of {} is no CSV: field larger"),
        (b"PNX1\n", ("--from", "tsv"), 'Choose from: "lines", "csv", "jsonl"'),
        (b"PNX1\n", ("--resume",), "name it with --out"),
        (b"PNX1\n", ("--out", "/nonexistent/a.csv"), "cannot write /nonexistent/a.csv: No such"),
        (b"PNX1\n", ("--plan", "gold"), 'Choose from: "trial"'),
    ],
)
def test_what_cannot_be_read_or_written_is_two(
    shell: Shell, tmp_path: Path, content, options, words
):
    """Before anything is asked, with a sentence that says what to do."""
    path = tmp_path / "input"
    if content is not None:
        path.write_bytes(content)
    code, out, err = shell("check", str(path), "--sandbox", *options)
    assert (code, out) == (2, "")
    assert words.format(path) in err
    assert shell.ledger.calls == ()


def test_a_mistyped_option_is_no_file(shell: Shell):
    """Though a lone hyphen is one."""
    code, _, err = shell("check", "--resum")
    assert code == 2
    assert "there is no option --resum" in err
    assert "Try: paynexus wait-all --help" in shell("wait-all")[2]
    assert "Try: paynexus --help" in shell("--nothing")[2]


def test_a_file_is_never_overwritten(shell: Shell, tmp_path: Path):
    """Neither results without --resume, nor with it what this command has not written."""
    reference = initiate(shell.ledger, 1)[0]
    mine = tmp_path / "mine.csv"
    for text, options, words in (
        ("dear diary", (), "nothing is ever overwritten"),
        ("dear diary", ("--resume",), "line 1 is none that this command has written as CSV"),
        ("dear diary\n", ("--resume",), "line 1 is none"),
        ("dear diary", ("--resume", "--to", "jsonl"), "written as JSON lines"),
        (f"{HEAD}a,b\n", ("--resume",), "line 2 is none"),
        (f'{HEAD}"a,b\n', ("--resume",), "line 2 is none"),
        (f"{HEAD},,,,,,\n", ("--resume",), "line 2 is none"),
        (HEAD, ("--resume", "--to", "jsonl"), "line 1 is none"),
        ('{"item": 1}\n', ("--resume", "--to", "jsonl"), "line 1 is none"),
        ("[]\n", ("--resume", "--to", "jsonl"), "line 1 is none"),
    ):
        mine.write_text(text)
        shell.type(f"{reference}\n")
        code, _, err = shell("check", "-", "--sandbox", "--out", str(mine), *options)
        assert code == 2
        assert words in err
        assert mine.read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["mine.csv"]  # no scraps
    assert len(shell.ledger.calls) == 1


def test_going_on_where_nothing_is_begins(shell: Shell, tmp_path: Path):
    """A script may always say --resume: no file, an empty one, a cut first line."""
    reference = initiate(shell.ledger, 1)[0]
    for name, text in (
        ("none.csv", None),
        ("empty.csv", ""),
        ("cut.csv", "item,refer"),
        ("cut.jsonl", '{"it'),
        ("cut.ndjson", '{"item": "PNX1", "ref'),
    ):
        out = tmp_path / name
        if text is not None:
            out.write_text(text)
        shell.type(f"{reference}\n")
        code, _, err = shell("check", "-", "--sandbox", "--out", str(out), "--resume")
        assert (code, "1 of 1 items · 1 calls" in err) == (0, True)
        assert out.read_text().count("\n") == 1 + (out.suffix == ".csv")


def test_going_on_asks_again_what_may_pass(shell: Shell, tmp_path: Path):
    """An error that lasts, and each answer, stay; the file keeps its rights."""
    one, two, three = initiate(shell.ledger, 3)
    out = tmp_path / "results.csv"
    ended = f"{one},{one},completed,100,,,2026-01-27T07:17:18Z\n"
    lasts = "PNXNOWHERE,,,,,NotFoundError: no,2026-01-27T07:17:18Z\n"
    other = "PNXOTHER,,completed,,,,\n"
    out.write_text(f"{HEAD}{ended}{two},,,,,APITimeoutError: slow,\n{lasts}{ended}{other}{three},")
    out.chmod(0o640)
    shell.type(f"{one}\n{two}\n{three}\nPNXNOWHERE\n")
    code, _, err = shell("check", "-", "--sandbox", "--out", str(out), "--resume")
    assert code == 1
    assert "4 of 4 items · 2 of an earlier run · 2 calls" in err
    text = out.read_text()
    assert text.startswith(f"{HEAD}{ended}{lasts}{other}")
    assert Counter(row["item"] for row in rows_of(text)) == dict.fromkeys(
        [one, two, three, "PNXNOWHERE", "PNXOTHER"], 1
    )
    assert out.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_phone_in_the_wrong_column_is_masked(shell: Shell, tmp_path: Path, form):
    """It has its row all the same, also beside one that looks alike; --resume finds both again."""
    phones = ["0746990866", "0746111866", "+254 746 990 866", "Jane 0746990866"]
    reference = initiate(shell.ledger, 1)[0]
    checkout_id = shell.ledger.prompts[0].checkout_request_id
    sheet, out = tmp_path / "sheet.txt", tmp_path / f"out.{form}"
    sheet.write_text("\n".join([*phones, reference, checkout_id]))
    arguments = ("check", str(sheet), "--sandbox", "--out", str(out))
    said = [shell(*arguments)]
    first = out.read_text()
    assert all(phone[-6:] not in first for phone in phones)
    rows = rows_of(first) if form == "csv" else [json.loads(line) for line in first.splitlines()]
    # Those that name a payment stay as they are: the merchant finds the order by them.
    assert [row["item"] for row in rows if not row["error"]] == [reference, checkout_id]
    assert {row["item"]: row["error"].partition(":")[0] for row in rows if row["error"]} == (
        dict.fromkeys(
            ["07*****866", "07*****866 (2)", "+2547*****866", "Jane 07*****866"],
            "InvalidRequestError",
        )
    )
    said.append(shell(*arguments, "--resume"))
    assert out.read_text() == first
    assert "6 of 6 items · 6 of an earlier run · 0 calls" in said[1][2]
    assert not any(phone[-6:] in words for phone in phones for _, *both in said for words in both)


def test_a_row_is_written_whole(monkeypatch, tmp_path: Path):
    """Also where the system takes a few bytes at a time."""
    written = bytearray()

    class Narrow(io.BytesIO):
        def write(self, data: Any) -> int:
            written.extend(data[:5])
            return len(data[:5])

    monkeypatch.setattr(Path, "open", lambda *_, **__: Narrow())
    with rows_to(tmp_path / "out.csv", None, resume=False, stays=bool) as rows:
        rows.write(Row(item="PNX1"))
    assert written.decode() == f"{HEAD}PNX1,,,,,,\n"


def test_what_a_server_says_is_no_formula_and_holds_no_phone():
    """Nor a line break, nor more than a line; a JSON amount with a fraction is a text."""
    payment = Payment(
        reference="=1+1", status=PaymentStatus.FAILED, status_text="@x\n254712345678", amount=None
    )
    row = Row.of(PaymentResult(asked="PNX1", payment=payment), "PNX1")
    assert _line_of(row, "csv").startswith("PNX1,'=1+1,'@x?2547*****678,,,,20")
    error = APIConnectionError("a\nb" * 1000, never_sent=False)
    row = Row.of(PaymentResult(asked="PNX1", error=error), "PNX1")
    assert row.error is not None
    assert row.error.startswith("APIConnectionError: a ba b")
    assert len(row.error) == 300


# --- How a run ends before its end


def test_a_refused_key_ends_it_at_once(shell: Shell, tmp_path: Path):
    """The others would meet the same; nothing is written of them."""
    references = initiate(shell.ledger, 50)
    shell.ledger.faults.add(Fault("401-before"))
    out = tmp_path / "out.csv"
    shell.type("\n".join(references))
    code, _, err = shell("check", "-", "--sandbox", "--out", str(out))
    assert code == 1
    assert "paynexus: the key is refused: " in err
    assert f"Go on with: paynexus check - --sandbox --out {out} --resume" in err
    assert out.read_text() == ""
    assert len(shell.ledger.calls) - 50 <= 20


def test_a_server_out_of_reach_ends_it_soon(shell: Shell, tmp_path: Path):
    """After twenty in a row, and --resume asks for them again."""
    references = initiate(shell.ledger, 50)
    real = shell.transport

    def refuse(request: httpx.Request) -> httpx.Response:
        message = "refused"
        raise httpx.ConnectError(message)

    shell.transport = httpx.MockTransport(refuse)
    out = tmp_path / "out.csv"
    arguments = ("check", "-", "--sandbox", "--out", str(out))
    shell.type("\n".join(references))
    code, _, err = shell(*arguments)
    assert code == 1
    assert "20 in a row could not be asked" in err
    assert "Start it: paynexus sandbox --port 8765" in err
    shell.transport = real
    shell.type("\n".join(references))
    assert shell(*arguments, "--resume")[0] == 0
    assert sorted(row["item"] for row in rows_of(out.read_text())) == sorted(references)


def test_without_keys_nothing_is_written(shell: Shell, tmp_path: Path):
    """The message says where they come from, and names no way to go on."""
    out = tmp_path / "out.csv"
    shell.type("PNX1\n")
    code, _, err = shell("check", "-", "--out", str(out))
    assert code == 2
    assert "PAYNEXUS_SECRET_KEY" in err
    assert "paynexus demo" in err
    assert "Go on" not in err
    assert not out.exists()


def test_a_full_disk_ends_it(shell: Shell):
    """With what went wrong, and how to go on."""
    shell.type(f"{initiate(shell.ledger, 1)[0]}\n")
    code, _, err = shell("check", "-", "--sandbox", "--out", "/dev/full")
    assert code == 1
    assert "cannot write the results: No space left on device" in err
    assert "Go on with: " in err


def test_a_reader_who_has_gone_ends_it(tmp_path: Path):
    """Such as `head`: no traceback."""
    ledger = Ledger(clock=time.time)
    references = tmp_path / "references"
    references.write_text("\n".join(initiate(ledger, 30)))
    with SandboxServer(ledger) as server:
        command = [sys.executable, "-m", "paynexus_async", "check", str(references)]
        ours, theirs = os.pipe()
        os.close(ours)
        done = subprocess.run(
            command, env=environment(server), stdout=theirs, stderr=subprocess.PIPE, text=True, check=False
        )  # fmt: skip
        os.close(theirs)
    assert done.returncode == 1
    assert done.stderr.endswith("paynexus: nobody reads the results\n")
    assert "Traceback" not in done.stderr


def test_a_pipe_that_breaks_is_left_alone(shell: Shell, monkeypatch, tmp_path: Path):
    """What is left unsaid is not said to it again when Python ends."""
    shell.type(f"{initiate(shell.ledger, 1)[0]}\n")
    with (tmp_path / "pipe").open("w") as broken:

        def refuse(_: str) -> int:
            raise BrokenPipeError

        monkeypatch.setattr(broken, "write", refuse, raising=False)
        monkeypatch.setattr(sys, "stdout", broken)
        code, _, err = shell("check", "-", "--sandbox")
        assert (code, "nobody reads the results" in err) == (1, True)
        assert os.path.samestat(os.fstat(broken.fileno()), Path(os.devnull).stat())


def environment(server: SandboxServer) -> dict[str, str]:
    return {
        **os.environ,
        "PAYNEXUS_BASE_URL": server.url,
        "PAYNEXUS_SECRET_KEY": SECRET_KEY,
        "PAYNEXUS_PUBLIC_KEY": PUBLIC_KEY,
    }


# --- Ten thousand, and a kill in the middle


@pytest.fixture
def day(shell: Shell) -> tuple[Shell, Clock, Direct, list[str]]:
    """A day's payments on the largest plan."""
    clock = Clock()
    ledger = Ledger(clock=clock, plan="enterprise")
    references: list[str] = []
    while len(references) < 10_000:
        references += initiate(ledger, 250)
        clock.advance(60)
    shell.ledger, shell.transport = ledger, Direct(ledger)
    return shell, clock, shell.transport, references


def test_ten_thousand_are_checked_through_a_kill(day: Any, tmp_path: Path):
    """No 429, each result written once, none lost, none asked twice but those under way."""
    shell, clock, network, references = day
    orders, out = tmp_path / "orders.csv", tmp_path / "results.csv"
    orders.write_text("order,reference\n" + "".join(f"{n},{r}\n" for n, r in enumerate(references)))
    left: dict[str, bytes] = {}

    def killed() -> None:
        if len(network.asked) == 4_321:  # what a kill leaves of the file, its last row cut
            left["at"] = out.read_bytes()[:-7]
            signal.raise_signal(signal.SIGINT)

    network.before_answer = killed
    started = clock()
    code, _, err = shell("check", str(orders), "--sandbox", "--out", str(out))
    network.before_answer = lambda: None
    assert code == 130
    assert f"Go on with: paynexus check {orders} --sandbox --out {out} --resume" in err
    assert out.read_bytes().startswith(left["at"])
    out.write_bytes(left["at"])

    code, _, err = shell("check", str(orders), "--sandbox", "--out", str(out), "--resume")
    assert code == 0
    assert "10,000 of 10,000 items · " in err
    assert network.refused == 0
    rows = rows_of(out.read_text())
    assert sorted(row["item"] for row in rows) == sorted(references)
    assert {row["status"] for row in rows} == {"completed"}
    asked = Counter(network.asked)
    assert set(asked) == set(references)
    again = sum(times - 1 for times in asked.values())
    assert 1 <= again <= 11  # ten connections, and the row that was cut
    assert max(asked.values()) == 2
    assert 10_000 / 5 * 0.95 < clock() - started < 10_000 / 5 * 1.25  # 300 a minute


def test_a_killed_process_loses_nothing(tmp_path: Path):
    """SIGKILL, for real, in the middle of a few hundred; then --resume."""
    ledger = Ledger(clock=time.time)
    references = initiate(ledger, 300)
    before = len(ledger.calls)
    sheet, out = tmp_path / "references.txt", tmp_path / "out.jsonl"
    sheet.write_text("\n".join(references))
    command = [sys.executable, "-m", "paynexus_async", "check", str(sheet), "--out", str(out)]
    with SandboxServer(ledger) as server:
        ledger.faults.add(Fault("latency", call="status", seconds=0.03))
        process = subprocess.Popen(command, env=environment(server), stderr=subprocess.DEVNULL)
        while not out.exists() or out.read_bytes().count(b"\n") < 100:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        written = out.read_bytes().count(b"\n")
        assert 100 <= written < 300
        done = subprocess.run(
            [*command, "--resume"], env=environment(server), stderr=subprocess.PIPE, text=True, check=False
        )  # fmt: skip
    assert (done.returncode, f"{written} of an earlier run" in done.stderr) == (0, True)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(row["item"] for row in rows) == sorted(references)
    assert all(row["error"] is None for row in rows)
    assert len(ledger.calls) - before <= 300 + 10


def test_ctrl_c_says_how_to_go_on(tmp_path: Path):
    """In a real process: what came is written, and the very command is printed."""
    ledger = Ledger(clock=time.time)
    sheet, out = tmp_path / "my references.txt", tmp_path / "out.csv"
    sheet.write_text("\n".join(initiate(ledger, 200)))
    command = [sys.executable, "-m", "paynexus_async", "check", str(sheet), "--out", str(out)]
    with SandboxServer(ledger) as server:
        ledger.faults.add(Fault("latency", call="status", seconds=0.05))
        process = subprocess.Popen(
            command, env=environment(server), stderr=subprocess.PIPE, text=True
        )
        while not out.exists() or out.read_bytes().count(b"\n") < 20:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert f"paynexus: stopped\nGo on with: paynexus check '{sheet}' --out {out} --resume" in err
    written = len(rows_of(out.read_text()))
    assert f"{written} of 200 items" in err
    assert "Traceback" not in err


def test_ctrl_c_on_the_way_to_standard_output(shell: Shell, monkeypatch):
    """What was printed is printed: there is nothing to go on with."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(anyio, "run", interrupt)
    shell.type("PNX1\nPNX2\n")
    code, _, err = shell("check", "-", "--sandbox")
    assert code == 130
    assert err == "0 of 2 items · 0 calls · 0 s\npaynexus: stopped\n"


# --- What moves


@pytest.mark.parametrize(
    ("left", "pace", "limits", "expected"),
    [
        (100, 0.0, None, None),
        (100, 5.0, None, 20.0),
        (100, 50.0, RateLimits(300, 200, 30.0), 2.0),  # this window has enough
        (800, 50.0, RateLimits(300, 200, 30.0), 30 + 600 / 300 * 60),
        (800, 50.0, RateLimits(300, 200, 90.0), 90 + 2 * 3_600),
        (800, 0.1, RateLimits(300, 200, 30.0), 8_000.0),
        (61, 0.0, RateLimits(30, 1, 99e9), 99e9 + 2 * 30 * 86_400),
    ],
)
def test_how_much_longer_is_what_the_quota_allows(left, pace, limits, expected):
    """A run begins faster than it can go on."""
    assert seconds_left(left, pace, limits) == expected


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.4, "59 s"), (61, "1 min 01 s"), (3_660, "1 h 01 min"), (36e5, "1,000 h 00 min")],
)  # fmt: skip
def test_a_duration_has_two_units(seconds, words):
    """At most."""
    assert duration(seconds) == words


def test_on_a_terminal_the_line_moves(monkeypatch, capsys):
    """Done, of how many, how fast, how much longer, the quota, errors; on standard error."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with Bar("checking", total=1_000, done=100, shown=True) as bar:
        bar.hear(RateLimits(300, 200, 30.0))
        bar.hear(None)
        bar.tell(BulkProgress(done=50, failed=2, total=900, per_second=5.0, eta_seconds=170.0))
    out, err = capsys.readouterr()
    assert out == ""
    assert "checking" in err
    assert "150 of 1,000" in err
    assert "5.0/s · 2 min 50 s left · quota 200 of 300 · 2 errors" in err


NOTHING: Any = (_bulk._WHERE, None, None)


@pytest.mark.parametrize(
    ("err", "out", "term", "to_file", "moves"),
    [
        (True, False, "xterm", False, True),
        (True, True, "xterm", False, False),  # rows are seen there
        (True, True, "xterm", True, True),
        (True, False, "dumb", False, False),
        (False, False, "xterm", True, False),
    ],
)
def test_nothing_moves_in_a_pipe(monkeypatch, err, out, term, to_file, moves):
    """Nor where it would run into rows."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: err)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: out)
    monkeypatch.setenv("TERM", term)
    seen: list[bool] = []
    monkeypatch.setattr(_bulk, "Bar", lambda *_, shown, **__: seen.append(shown))
    run = _bulk._Run("x", _bulk.Sheets(out=Path("x") if to_file else None), *NOTHING)
    run._bar(Items(names=["PNX1"], repeated=0, blank=0), 0)
    assert seen == [moves]
