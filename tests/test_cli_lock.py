"""Two runs on one file: the second is refused, whatever happens to the file and to the first."""

from __future__ import annotations

import errno
import importlib
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from paynexus_async import InvalidRequestError, cli
from paynexus_async.cli import _lock
from paynexus_async.cli._lock import BusyError, only_writer
from paynexus_async.cli._rows import Row, rows_to
from paynexus_async.sandbox import Fault, Ledger, SandboxServer

from .test_cli_bulk import environment, initiate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from paynexus_async.cli._rows import Rows

BUSY = "another run is writing {}: wait for its end, or name another file"


@contextmanager
def writing(out: Path, *, resume: bool = True) -> Iterator[Rows]:
    with rows_to(out, None, resume=resume, stays=lambda _: True) as rows:
        yield rows


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
def test_a_second_run_is_refused_until_the_first_has_ended(tmp_path: Path, name):
    """Whether the first begins a file or goes on with one; nothing is left beside it."""
    out = tmp_path / name
    for number in range(3):
        with writing(out) as rows:
            rows.write(Row(item=f"PNX{number}"))
            before = out.read_bytes()
            for resume in (False, True):
                with pytest.raises(InvalidRequestError, match="another run is writing") as caught:
                    ExitStack().enter_context(writing(out, resume=resume))
                assert str(caught.value) == BUSY.format(out)
            assert out.read_bytes() == before
    with writing(out) as rows:
        assert [row.item for row in rows.done] == ["PNX0", "PNX1", "PNX2"]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_another_name_of_the_file_is_the_same_file(tmp_path: Path):
    """A link is followed."""
    out, link = tmp_path / "out.csv", tmp_path / "link.csv"
    link.symlink_to(out)
    with writing(link), pytest.raises(InvalidRequestError, match="another run"):
        ExitStack().enter_context(writing(out))


@pytest.mark.parametrize("is_there", [True, False])
def test_a_file_replaced_between_its_opening_and_its_lock_is_busy(tmp_path, monkeypatch, is_there):
    """The lock would be that of a file without a name."""
    out = tmp_path / "out.csv"
    real = _lock.fcntl.flock

    def late(handle: int, how: int) -> None:
        real(handle, how)
        out.unlink()
        if is_there:
            out.touch()

    monkeypatch.setattr(_lock.fcntl, "flock", late)
    with pytest.raises(BusyError):
        ExitStack().enter_context(only_writer(out))


def test_where_there_are_no_locks_a_run_goes_on_without(tmp_path, monkeypatch):
    """On a file system without them."""
    out = tmp_path / "out.csv"

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(_lock.fcntl, "flock", refuse)
    with writing(out), writing(out) as rows:
        rows.write(Row(item="PNX1"))
    assert "PNX1" in out.read_text()


def test_a_system_without_locks_opens_nothing(tmp_path, monkeypatch):
    """On Windows, a file that is open could not be replaced."""
    out = tmp_path / "out.csv"
    monkeypatch.setattr(cli, "_lock", _lock)  # and so it is again at the end
    monkeypatch.delitem(sys.modules, _lock.__name__)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    elsewhere = importlib.import_module(_lock.__name__)
    with elsewhere.only_writer(out), elsewhere.only_writer(out):
        assert not out.exists()


def test_what_is_no_file_is_nobodys(tmp_path: Path):
    """Such as a device: what two runs write there does not stay."""
    with writing(Path("/dev/null")), writing(Path("/dev/null")) as rows:
        rows.write(Row(item="PNX1"))


def test_a_second_process_is_refused_and_a_killed_one_lets_go(tmp_path: Path):
    """Real ones: the second asks nothing; after a SIGKILL of the first, it goes on at once."""
    ledger = Ledger(clock=time.time)
    sheet, out = tmp_path / "references.txt", tmp_path / "out.csv"
    sheet.write_text("\n".join(initiate(ledger, 60)))
    command = [sys.executable, "-m", "paynexus_async", "check", str(sheet), "--out", str(out)]
    with SandboxServer(ledger) as server:
        ledger.faults.add(Fault("latency", call="status", seconds=0.5))
        first = subprocess.Popen(command, env=environment(server), stderr=subprocess.DEVNULL)

        def second(**more: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [*command, "--resume"],
                env={**environment(server), **more},
                capture_output=True,
                text=True,
                check=False,
            )

        try:
            while not out.exists() or out.read_bytes().count(b"\n") < 2:
                assert first.poll() is None
                time.sleep(0.005)
            first.send_signal(signal.SIGSTOP)  # so that it is under way, however slow the second
            refused = second(PAYNEXUS_BASE_URL="http://127.0.0.1:1/api")  # where nobody answers
        finally:
            first.kill()
            first.wait()
        ledger.faults.clear()
        done = second()
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == f"paynexus: {BUSY.format(out)}\n"
    assert done.returncode == 0, done.stderr
    assert len(out.read_text().splitlines()) == 61
