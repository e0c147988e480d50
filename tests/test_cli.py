"""The command line: what it prints, and the exit code that a script sees."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from paynexus_async import PaymentStatus, cli
from paynexus_async.cli import _commands, _sandbox
from paynexus_async.cli._outcome import Exit, exit_of_error, exit_of_payment
from paynexus_async.cli._report import JsonReport, PlainReport, document_of, line_of
from paynexus_async.exceptions import ClientStateError
from paynexus_async.models import Payment
from paynexus_async.sandbox import (
    PUBLIC_KEY,
    SECRET_KEY,
    Fault,
    Ledger,
    Request,
    Scenario,
    Step,
)

from .shell import EPOCH, Shell


@pytest.mark.parametrize(
    ("scenario", "code", "advice"),
    [
        ("paid", 0, "Paid: hand over the goods."),
        ("wrong-pin", 3, "Not paid: offer the customer another try."),
        ("cancelled", 4, "Not paid: the customer declined."),
        ("expired", 5, "Not paid in time"),
        ("stuck", 6, "the customer may still pay"),
        ("other-amount", 8, "compare both sides"),
    ],
)
def test_paying_ends_with_a_code_of_its_own(shell: Shell, scenario, code, advice):
    """And with a word on what to do; one prompt in any case."""
    shell.ledger.script(scenario)
    ended, out, err = shell(
        "pay", "0746990866", "100", "--description", "Order #12345", "--sandbox"
    )
    assert ended == code
    assert advice in out + err
    assert "746990866" not in out + err
    (prompt,) = shell.ledger.prompts
    assert (prompt.amount, prompt.description) == (100, "Order #12345")


def test_in_a_pipe_it_prints_plain_lines(shell: Shell):
    """Time, calls and what happened; no colours, no cursor."""
    _, out, _ = shell("pay", "0746990866", "100", "--sandbox")
    lines = out.splitlines()
    assert re.fullmatch(r" +0\.0 s   0 calls  a prompt for KES 100 to 07\*{5}866", lines[0])
    assert re.fullmatch(r" +0\.0 s   1 calls  PNX\w{9} initiated", lines[1])
    assert re.fullmatch(r" +[\d.]+ s   \d calls  PNX\w{9} completed", lines[-3])
    assert re.fullmatch(r"PNX\w{9}  completed  KES 100  2547\*{5}866  receipt \w{10}", lines[-2])
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("phone", "amount", "description"),
    [("07469", "100", "x"), ("0746990866", "5", "x" * 1_000)],
)
def test_no_prompt_is_announced_that_cannot_be_sent(shell: Shell, phone, amount, description):
    """What is wrong is all that is said: a phone that is none, too many words."""
    ended, out, err = shell("pay", phone, amount, "--description", description, "--sandbox")
    assert ended != 0
    assert "a prompt" not in out + err
    assert len(err.splitlines()) == 1
    assert not shell.ledger.calls


def test_for_programs_it_prints_json_lines(shell: Shell):
    """The last line is the result."""
    shell.ledger.script(Scenario("odd", (Step(2, "completed", {"amount": "100.50"}),)))
    shell.ledger.script("paid")
    code, events = shell.json("pay", "0746990866", "100", "--sandbox")
    assert code == 8  # 100.50 is not what was asked
    assert (events[-1]["event"], events[-1]["error"]) == ("error", "PaymentMismatchError")
    code, events = shell.json("pay", "0746990867", "100", "--sandbox")
    assert (code, events[-1]["event"], events[-1]["outcome"]) == (0, "result", "completed")
    assert events[-1]["amount"] == 100
    assert events[-1]["calls"] > 1
    assert events[-1]["created_at"].endswith("+03:00")
    assert next(event["status"] for event in events[:-1]) == "initiated"


def test_a_pending_payment_is_told_as_json_too(shell: Shell):
    """With the payment, so that a script can go on."""
    shell.ledger.script("stuck")
    code, events = shell.json("pay", "0746990866", "100", "--sandbox", "--max-wait", "30")
    assert (code, events[-1]["outcome"], events[-1]["status"]) == (6, "pending", "processing")


def test_waiting_and_asking_for_payments_that_exist(shell: Shell):
    """By reference and by checkout request id; of several, the highest code counts."""
    shell.ledger.script("cancelled")
    shell("pay", "0746990866", "100", "--sandbox")
    shell("pay", "0746990867", "100", "--sandbox")
    cancelled, paid = shell.ledger.prompts  # each command has a clock that begins anew
    assert shell("wait", paid.reference, "--sandbox")[0] == 0
    code, out, _ = shell("status", paid.checkout_request_id, "--sandbox")
    assert (code, paid.reference in out) == (6, True)
    code, out, err = shell("status", cancelled.reference, "PNXNOWHERE", "../x", "--sandbox")
    assert code == 6
    assert "HTTP 404: Payment not found. Check the reference" in err
    assert "reference must be 1 to 64 letters" in err
    code, events = shell.json("status", cancelled.reference, "--sandbox")
    assert (code, events[0]["event"]) == (6, "result")


def test_late_truth_is_told_as_such(capsys):
    """A revision is an event of its own."""
    from paynexus_async import PaymentRevision

    payment = Payment(reference="PNX1", status=PaymentStatus.COMPLETED, status_text="completed")
    update = PaymentRevision(payment=payment, previous=PaymentStatus.EXPIRED, attempts=3)

    async def tell() -> None:
        PlainReport().update(update)
        JsonReport().update(update)

    anyio.run(tell)
    plain, document = capsys.readouterr().out.splitlines()
    assert plain.endswith("PNX1 completed (late truth)")
    assert json.loads(document)["event"] == "revision"


@pytest.mark.parametrize(("phone", "code"), [("0746990866", 0), ("0202222222", 3)])
def test_a_phone_is_validated_by_the_api(shell: Shell, phone, code):
    """0 if a prompt can be sent to it."""
    ended, out, _ = shell("validate-phone", phone, "--sandbox")
    assert ended == code
    assert ("can get a prompt" in out) is (code == 0)
    ended, events = shell.json("validate-phone", phone, "--sandbox")
    assert (ended, events[0]["valid"]) == (code, code == 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("pay", "0746990866", "1.5"), "whole number of KES"),
        (("pay", "0746990866", "1_0"), "whole number of KES"),
        (("pay", "0746990866", "0"), "1 to 150,000"),
        (("pay", "12345678", "5"), "phone is not"),
        (("pay", "0746990866"), "requires an argument"),
        (("pay",), "requires an argument"),
        (("wait", "a/b"), "reference must be"),
        (("status",), "at least one reference"),
        (("pay", "0746990866", "-5"), "whole number of KES"),
        (("pay", "0746990866", ""), "such as 100, not nothing"),
        (("pay", "100", "0746990866"), "such as 100, not 07*****866"),
        (("pay", "0746990866", "5", "0746990867"), "nothing more was expected: 07*****867"),
        (("pay", "0746990866", "5", "0746990867"), "Try: paynexus pay --help"),
        (("status", "PNX1", "--0746990867"), "Unknown option: --07*****867"),
        *(
            ((*command, option, number), f"for {option}: it must be a number of seconds above 0 and at most 86,400 (a day), not {number}")
            for command, option in (
                (("pay", "0746990866", "5"), "--max-wait"),
                (("wait", "PNX1"), "--max-wait"),
                (("wait-all", "nofile"), "--max-wait"),
                (("check", "nofile"), "--timeout"),
                (("doctor",), "--timeout"),
            )
            for number in ("-1", "0", "nan", "inf", "1e9", "soon")
        ),
        *(
            (("status", "PNX1", "--port", port), f"for --port: ports go from 1 to 65535, not {port}")
            for port in ("-1", "0", "65536", "http")
        ),
        (("nonsense",), "Unknown command"),
        (("sandbox", "--plan", "gold"), "plan must be one of trial"),
        (("sandbox", "--speed", "0"), "speed must be a number above 0"),
        (("sandbox", "--speed", "inf"), "speed must be a number above 0"),
        (("sandbox", "--port", "-5"), "ports go from 0 to 65535, not -5"),
        (("sandbox", "--customer", "nobody"), "customer must be one of paid"),
        (("demo", "--speed", "-1"), "speed must be a number above 0"),
        (("demo", "--speed", "nan"), "speed must be a number above 0"),
    ],
)  # fmt: skip
def test_wrong_usage_is_two_and_sends_nothing(shell: Shell, arguments, words):
    """With a sentence, and without a traceback."""
    extra = [] if arguments[0] in {"sandbox", "demo", "nonsense"} else ["--sandbox"]
    code, out, err = shell(*arguments, *extra)
    assert code == 2
    assert words in " ".join((out + err).split())
    assert "Traceback" not in err
    assert "sending" not in out  # nobody reads of a prompt that is not sent
    assert shell.ledger.prompts == ()


def test_without_keys_it_says_where_they_come_from(shell: Shell):
    """And how to try without any."""
    code, _, err = shell("pay", "0746990866", "5")
    assert code == 2
    assert "PAYNEXUS_SECRET_KEY" in err
    assert "paynexus demo" in err


def test_without_the_sandbox_flag_it_talks_to_the_real_api(shell: Shell, monkeypatch):
    """With the keys of the environment."""
    seen: list[httpx.Request] = []

    async def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(404, json={"success": False})

    shell.transport = httpx.MockTransport(handle)
    monkeypatch.setenv("PAYNEXUS_SECRET_KEY", SECRET_KEY)
    monkeypatch.setenv("PAYNEXUS_PUBLIC_KEY", PUBLIC_KEY)
    code, _, _ = shell("status", "PNX1")
    assert code == 1
    assert str(seen[0].url) == "https://paynexus.co.ke/api/payments/PNX1"


@pytest.mark.parametrize(
    ("failure", "code", "words"),
    [
        (httpx.ConnectError("refused"), 1, "Start it: paynexus sandbox --port 8765"),
        (httpx.ReadTimeout("slow"), 7, "do not send another prompt before you have looked"),
    ],
)
def test_a_lost_answer_and_a_missing_server_are_told_apart(shell: Shell, failure, code, words):
    """Nothing sent is not unknown."""

    async def handle(request: httpx.Request) -> httpx.Response:
        raise failure

    shell.transport = httpx.MockTransport(handle)
    ended, _, err = shell("pay", "0746990866", "5", "--sandbox")
    assert ended == code
    assert words in err


class Loses(httpx.AsyncBaseTransport):
    """Loses the answer to each initiate, and the request with it if *early*."""

    def __init__(self, real: httpx.AsyncBaseTransport, *, early: bool) -> None:
        self.real = real
        self.early = early

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        lost = request.url.path.endswith("/initiate")
        if not (lost and self.early):
            response = await self.real.handle_async_request(request)
        if lost:
            msg = "lost"
            raise httpx.ReadTimeout(msg)
        return response


def test_a_lost_answer_is_looked_for(shell: Shell):
    """The payment is followed to its end; where there is none, it says so, and stays unknown."""
    real = shell.transport
    shell.transport = Loses(real, early=False)
    code, out, _ = shell("pay", "0746990866", "100", "--sandbox")
    assert code == 0
    assert "the answer was lost: looking for the payment" in out
    assert "Paid: hand over the goods." in out
    assert len(shell.ledger.prompts) == 1
    shell.transport = Loses(real, early=True)
    code, _, err = shell("pay", "0746990867", "100", "--sandbox")
    assert code == 7
    assert "PayNexus lists no payment of KES 100 from 2547*****867" in err
    assert "do not send another prompt before you have looked" in err
    assert len(shell.ledger.prompts) == 1


@pytest.mark.parametrize(
    ("when", "code", "words"),
    [
        ("before", 130, ""),
        ("sending", 7, "it may be on the phone"),
        ("waiting", 6, "Go on with: paynexus wait PNX"),
    ],
)
def test_ctrl_c_says_what_is_known(shell: Shell, monkeypatch, when, code, words):
    """Before, while and after the prompt is sent."""
    run = _commands.anyio.run

    def interrupt(function: Any, common: Any, work: Any, journey: Any) -> None:
        async def main() -> None:
            if when == "before":
                return
            if when == "sending":
                journey.sending = True
                return
            with anyio.move_on_after(2):
                await function(common, work, journey)

        run(main)
        raise KeyboardInterrupt

    monkeypatch.setattr(_commands.anyio, "run", interrupt)
    ended, _, err = shell("pay", "0746990866", "5", "--sandbox")
    assert ended == code
    assert words in err


def test_ctrl_c_anywhere_else_is_130(shell: Shell, monkeypatch):
    """No traceback."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_sandbox, "_ledger", interrupt)
    assert shell("demo")[0] == 130


def test_the_demo_shows_three_ends_and_agrees_with_its_ledger(capsys):
    """On a real socket, a few hundred times faster than life."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["demo", "--speed", "200"])
    out = capsys.readouterr().out
    assert caught.value.code == 0
    assert [w for w in ("completed", "cancelled", "expired") if f"  {w}" in out] == [
        "completed",
        "cancelled",
        "expired",
    ]
    assert "3 prompts sent" in out
    assert "The client reported the same." in out
    assert out.count("KES 100 to 07*****866, Order #12345") == 3


def test_a_demo_that_disagrees_with_its_ledger_fails(capsys, monkeypatch):
    """It is a test of the installation, too."""
    monkeypatch.setattr(Ledger, "status", lambda *_: "completed")
    with pytest.raises(SystemExit) as caught:
        cli.main(["demo", "--speed", "200", "--json"])
    assert caught.value.code == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["agrees"] is False


def test_a_demo_in_trouble_says_so(capsys, monkeypatch):
    """And goes on to the next payment."""
    monkeypatch.setattr(_sandbox, "_PHONE", "12345678")
    with pytest.raises(SystemExit) as caught:
        cli.main(["demo", "--speed", "200"])
    assert caught.value.code == 1
    assert "phone is not" in capsys.readouterr().err


def test_the_sandbox_tells_its_address_and_each_call(capsys, monkeypatch):
    """Until Ctrl-C."""
    rounds = iter(range(3))
    url = []

    def nap(seconds: float) -> None:
        out = capsys.readouterr().out
        if found := re.search(r"PAYNEXUS_BASE_URL=(\S+)", out):
            url.append(found[1])
        seen.append(out)
        if next(rounds, None) is None:
            raise KeyboardInterrupt
        httpx.get(f"{url[0]}/payments", headers={"X-API-Key": PUBLIC_KEY})
        httpx.get(f"{url[0]}/payments")

    seen: list[str] = []
    monkeypatch.setattr(_sandbox.time, "sleep", nap)
    with pytest.raises(SystemExit) as caught:
        cli.main(["sandbox", "--port", "0"])
    monkeypatch.undo()
    assert caught.value.code == 0
    out = "".join(seen)
    assert SECRET_KEY in out
    assert "0700000003  KES 33  cancelled after 7 s" in out
    calls = [line for line in out.splitlines() if "GET /payments" in line]
    assert len(calls) == 6
    assert re.fullmatch(r"\d\d:\d\d:\d\d  200  pk_     GET /payments", calls[0])
    assert re.fullmatch(r"\d\d:\d\d:\d\d  401  no key  GET /payments", calls[1])
    assert capsys.readouterr().out == "stopped\n"


@pytest.mark.parametrize("found", [True, False])
@pytest.mark.parametrize(
    ("customer", "rule"),
    [
        ([], "While the page is open, you are the customer: each prompt waits there for the PIN"),
        (["--customer", "cancelled"], "Customers play cancelled."),
    ],
)
def test_the_page_is_named_first_and_opened_on_request(capsys, monkeypatch, found, customer, rule):
    """And who the customer is; where there is no browser, that is said."""
    opened: list[str] = []

    def browse(url: str) -> bool:
        opened.append(url)
        assert httpx.get(url).headers["Content-Type"].startswith("text/html")
        return found

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_sandbox.webbrowser, "open", browse)
    monkeypatch.setattr(_sandbox.time, "sleep", stop)
    with pytest.raises(SystemExit) as caught:
        cli.main(["sandbox", "--port", "0", "--open", *customer])
    out = capsys.readouterr().out
    assert caught.value.code == 0
    assert [out.splitlines()[0]] == [f"The phones: {url}" for url in opened]
    assert rule in out
    assert ("No browser found here" in out) == (not found)


def test_a_sandbox_with_a_store_remembers(capsys, monkeypatch, tmp_path):
    """And lets webhooks out, where it is told to."""
    store = tmp_path / "store.sqlite"
    ledgers: list[Ledger] = []

    def stop(ledger: Ledger) -> None:
        ledgers.append(ledger)
        ledger.webhooks.register("https://shop.example/")
        raise KeyboardInterrupt

    monkeypatch.setattr(_sandbox, "_tell_calls", stop)
    for _ in range(2):
        with pytest.raises(SystemExit) as caught:
            cli.main(["sandbox", "--port", "0", "--store", str(store), "--webhooks-anywhere"])
        assert caught.value.code == 0
    assert [len(ledger.webhooks.endpoints) for ledger in ledgers] == [1, 2]
    capsys.readouterr()


def test_a_store_that_is_none_is_a_matter_of_usage(capsys, tmp_path):
    """The message names the file."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["sandbox", "--port", "0", "--store", str(tmp_path)])
    assert caught.value.code == 2
    assert f"the store {tmp_path} cannot be opened" in capsys.readouterr().err


def test_the_sandbox_plays_scenarios_of_a_file(capsys, monkeypatch, tmp_path):
    """And tells their phones, amounts and names."""
    path = tmp_path / "mine.toml"
    path.write_text('[mine]\nphone = "0712345678"\n[yours]\namount = 77\n')

    def nap(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_sandbox.time, "sleep", nap)
    with pytest.raises(SystemExit) as caught:
        cli.main(["sandbox", "--port", "0", "--scenarios", str(path)])
    monkeypatch.undo()
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "\n  0712345678  -       mine\n" in out
    assert "\n  -           KES 77  yours\n" in out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot read the scenarios of --scenarios {}: No such file"),
        ("[mine]\nstep = 1", "{}: [mine] step: there is no such key; there are steps"),
    ],
)
def test_a_wrong_scenario_file_is_a_matter_of_usage(capsys, tmp_path, text, words):
    """Before anything listens."""
    path = tmp_path / "mine.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SystemExit) as caught:
        cli.main(["sandbox", "--port", "0", "--scenarios", str(path)])
    assert caught.value.code == 2
    assert words.format(path) in capsys.readouterr().err


def test_the_sandbox_tells_what_a_fault_hid(capsys, monkeypatch):
    """What the caller was told, and what is true."""
    ledger = Ledger(clock=lambda: EPOCH)
    body = b'{"amount": 100, "phone": "0746990866"}'
    request = Request("POST", "/mpesa/payment/initiate", SECRET_KEY, body)
    for kind in ("502-after", "reset-before", "400-before"):
        ledger.faults.add(Fault(kind, times=1))
        ledger.mishandle(request, ledger.faults.strike(request))
    monkeypatch.setattr(_sandbox.time, "sleep", lambda _: exec("raise KeyboardInterrupt"))
    with pytest.raises(KeyboardInterrupt):
        _sandbox._tell_calls(ledger)
    lines = [line[10:] for line in capsys.readouterr().out.splitlines()]
    call = "  sk_     POST /mpesa/payment/initiate  "
    assert lines == [
        f"502{call}502-after: in truth 200, {ledger.prompts[0].reference}",
        f"---{call}reset-before: in truth nothing happened",
        f"400{call}400-before: in truth nothing happened",
    ]


def test_a_taken_port_is_a_matter_of_usage(capsys):
    """With a way out."""
    with (
        _sandbox.SandboxServer(Ledger(clock=time.time)) as server,
        pytest.raises(SystemExit) as caught,
    ):
        cli.main(["sandbox", "--port", str(httpx.URL(server.url).port)])
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert "choose another with --port" in err
    assert "[Errno" not in err


@pytest.mark.parametrize(
    ("hidden", "arguments"), [("paynexus_async.sandbox._app", ["demo"]), ("cyclopts", ["--help"])]
)
def test_a_missing_extra_is_named(capsys, monkeypatch, hidden, arguments):
    """With the command that installs it."""
    for name in [
        m for m in sys.modules if m.startswith(("paynexus_async.cli.", "paynexus_async.sandbox."))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, hidden, None)
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    said = f"{caught.value.code} {capsys.readouterr().err}"
    assert "pip install 'paynexus-async[" in said


def test_help_names_every_command_and_the_exit_codes(shell: Shell):
    """A person finds their way."""
    code, out, _ = shell("--help")
    assert code == 0
    for word in (
        "pay",
        "wait",
        "status",
        "validate-phone",
        "sandbox",
        "demo",
        "7 unknown",
        "check",
        "wait-all",
        "webhooks",
        "doctor",
    ):
        assert word in out
    assert (
        shell("--version")[1].strip() == cli._commands.__version__
        if hasattr(cli, "_commands")
        else True
    )
    assert "Whole KES" in shell("pay", "--help")[1]


def test_a_shell_completes_commands_and_their_options(tmp_path):
    """Bash, with what --install-completion puts into a home."""
    home = {**os.environ, "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "paynexus_async", "--install-completion", "--shell", "bash"]
    subprocess.run(command, env=home, check=True, stdout=subprocess.DEVNULL)
    words = """
source "$HOME/.bashrc"
complete -p paynexus
asked() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _paynexus; echo "${COMPREPLY[@]}"; }
asked paynexus ""
asked paynexus webhooks ""
asked paynexus check --re
asked paynexus check orders.csv --to ""
"""
    bash = subprocess.run(
        ["bash", "-c", words], env=home, check=True, capture_output=True, text=True
    )
    _, commands, *rest = bash.stdout.splitlines()
    expected = [
        "check",
        "demo",
        "doctor",
        "durable",
        "pay",
        "sandbox",
        "status",
        "validate-phone",
        "wait",
        "wait-all",
        "webhooks",
    ]
    assert sorted(commands.split()) == expected
    assert rest == ["listen send", "--resume", "csv jsonl"]


@pytest.mark.parametrize(
    ("shell", "place", "begins", "started_by"),
    [
        ("zsh", ".zsh/completions/_cyclopts_paynexus", "#compdef paynexus\n", (".zshrc", "fpath=({0} $fpath)")),
        ("fish", ".config/fish/completions/paynexus.fish", "# Fish completion for paynexus\n", None),
    ],
)  # fmt: skip
def test_a_completion_is_written_where_its_shell_looks(tmp_path, shell, place, begins, started_by):
    """The README says where: with each command and the options; nothing else is touched."""
    home = {**os.environ, "HOME": str(tmp_path)}
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "ZDOTDIR", "ZSH", "ZSH_CUSTOM"):
        home.pop(name, None)
    command = [sys.executable, "-m", "paynexus_async", "--install-completion", "--shell", shell]
    done = subprocess.run(command, env=home, check=True, capture_output=True, text=True)
    script = tmp_path / place
    assert str(script) in done.stdout
    written = script.read_text()
    assert written.startswith(begins)
    for word in ("wait-all", "validate-phone", "listen", "send", "max-wait", "resume", "csv jsonl"):
        assert word in written
    others = {script}
    if started_by is not None:
        name, line = started_by
        others.add(tmp_path / name)
        assert line.format(script.parent) in (tmp_path / name).read_text().splitlines()
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == others
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    assert f"`~/{script.relative_to(tmp_path).parent}`" in readme


def test_as_a_module_it_is_the_same_command(monkeypatch, capsys):
    """`python -m paynexus_async`."""
    monkeypatch.setattr(sys, "argv", ["paynexus", "--version"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("paynexus_async", run_name="__main__")
    assert caught.value.code == 0


def test_every_outcome_has_a_code():
    """Nothing falls through."""
    pending = Payment(status=PaymentStatus.UNDOCUMENTED, status_text="pending")
    assert exit_of_payment(pending) is Exit.PENDING
    assert exit_of_error(ClientStateError("closed")) is Exit.ERROR
    assert len({code.value for code in Exit}) == len(Exit)


def test_on_a_terminal_it_draws(monkeypatch):
    """And in a dumb one, it does not."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert type(_commands._report(json=False)).__name__ == "LiveReport"
    assert type(_commands._report(json=True)).__name__ == "JsonReport"
    monkeypatch.setenv("TERM", "dumb")
    assert type(_commands._report(json=False)).__name__ == "PlainReport"


@pytest.mark.parametrize(
    ("payment", "line"),
    [
        (
            Payment(status=PaymentStatus.PROCESSING, status_text="processing"),
            "(no reference)  processing",
        ),
        (
            Payment(
                reference="PNX1",
                status=PaymentStatus.FAILED,
                status_text="failed",
                amount=Decimal("1.5"),
            ),
            "PNX1  failed  KES 1.5",
        ),
    ],
)
def test_a_bare_payment_is_described_by_what_is_known(payment, line, capsys):
    """Nothing is made up."""
    assert line_of(payment) == line
    assert document_of(payment)["status_text"] == payment.status_text
    if payment.amount:
        assert document_of(payment)["amount"] == "1.5"
    PlainReport().payment(payment, Exit.ERROR)
    assert capsys.readouterr().out == f"{line}\n"
