"""No marked secret is written, and one that is planted is found."""

from __future__ import annotations

from .marks import PHONE_MARK, Leak, leaks, marked
from .run import run

SUBSET = [
    "tests/test_transport.py",
    "tests/test_models.py",
    "tests/test_client.py::test_no_key_and_no_phone_in_anything_that_is_logged_or_raised",
    "tests/test_cli.py::test_in_a_pipe_it_prints_plain_lines",
]
MUTANTS = [
    ("_wire.py", 'return f"<key {self.kind}…>"', 'return f"<key {self._value}>"'),
    (
        "_transport.py",
        'say("exchange.ended", method=self.call.method, call=self.call.name, answer=answer)',
        'say("exchange.ended", method=self.call.method, call=self.call.body, answer=answer)',
    ),
    ("_wire.py", "was asked of {mask_phones(intent.phone)} is", "was asked of {intent.phone} is"),
    ("_transport.py", 'return f"<headers', 'return f"{dict(self)}<headers'),
    ("telemetry.py", "_STATUS, str(payment.status))", "_STATUS, str(payment.phone))"),
    ("telemetry.py", "{_STATUS: str(status), _REVISED", "{_STATUS: update.payment.phone, _REVISED"),
    ("client.py", "label, status=payment.status)", "label, status=payment.phone)"),
]


def test_nothing_that_is_written_holds_a_marked_secret(tmp_path):
    """Not the log, no exception, no repr, no traceback, no output; the command runs the whole suite."""
    outcome = run(tmp_path, SUBSET)
    assert outcome.returncode == 0, outcome.output[-3000:]
    assert outcome.leaks == []
    searched = {"package.log", "telemetry.txt", "said.txt", "pytest.txt", "locals.txt"}
    assert searched <= set(outcome.lines)
    assert min(outcome.lines.values()) > 0


def test_a_planted_leak_is_found_in_each_place(tmp_path):
    """With its file and its line."""
    outcome = run(tmp_path, SUBSET, MUTANTS)
    found = {(leak.file, leak.kind) for leak in outcome.leaks}
    assert {
        ("said.txt", "key"), ("said.txt", "phone"), ("package.log", "phone"), ("locals.txt", "key"),
        ("telemetry.txt", "phone"),
    } <= found  # fmt: skip
    told = "".join(leak.text for leak in outcome.leaks if leak.file == "telemetry.txt")
    assert "span paynexus.initiate_payment" in told
    assert "metrics: " in told
    assert any("payment.initiated" in leak.text for leak in outcome.leaks)  # a field, in no message
    logged = next(leak for leak in outcome.leaks if leak.file == "package.log")
    assert str(logged).startswith(f"package.log:{logged.line}: a phone in: ")
    assert "_transport.py:" in logged.text


def test_marks_are_put_into_keys_and_phones_and_found_again(tmp_path):
    """In every spelling; what masks them leaves nothing to be found."""
    source = 'KEY = "sk_test_4eC39HqLyjWDarjtT1zdp7dc"\nPHONE = "0746 990 866"\nHOOK = "whsec_0123456789abc"\n'
    path = tmp_path / "written.txt"
    path.write_text(marked(source))
    found = [Leak(leak.kind, leak.file, leak.line, "") for leak in leaks(path)]
    assert found == [
        Leak("key", "written.txt", 1, ""),
        Leak("phone", "written.txt", 2, ""),
        Leak("key", "written.txt", 3, ""),
    ]
    path.write_text(f"2547*****866 {PHONE_MARK[:8]} sk_… sk_phones pk_test_1")
    assert list(leaks(path)) == []
