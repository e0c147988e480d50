"""The rules of initiating and observing, searched exhaustively with spin; and each known mistake.

`prompt.pml` says what is modelled. `pytest -s tests/model` prints how many states were searched.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

MODEL = Path(__file__).with_name("prompt.pml")
MISSING = [tool for tool in ("spin", "gcc") if shutil.which(tool) is None]

pytestmark = pytest.mark.skipif(
    bool(MISSING),
    reason=f"{' and '.join(MISSING)} not installed (Debian: apt-get install spin gcc)",
)

P1 = "prompted[other])||proven[other]"
P2 = r"denied\[n\]|prompted\[me\]"
MISTAKES = {
    "RETRIES_AFTER_TIMEOUT": re.escape(P1),
    "FORGETS_UNKNOWN": re.escape(P1),
    "GUARD_RUNS_OUT": re.escape(P1),
    "GUARD_IS_NOT_ATOMIC": re.escape(P1),
    "JOURNAL_AFTER_ANSWER": re.escape(P1),
    "RECOVERY_FORGETS": re.escape(P1),
    "LOST_IS_NEVER_SENT": P2,
    "FAULT_IS_REJECTION": P2,
    "LOST_IS_FAILED": r"seen\[me\]",
    "PROCESSING_IS_PAID": r"(?:seen|was)\[n\]",
    "BELIEVES_STALE": r"status>=known|known\[n\]!=5|<=5|>=known",
    "EXPIRED_IS_FINAL": r"known\[n\]==5",
}
"""Each mistake that the model can be built with, and the promise that it breaks."""

SAFELY = ("-O2", "-DSAFETY", "-DCOLLAPSE")
FAIRLY = ("-O2", "-DNFAIR=14", "-DCOLLAPSE")
FIRST = ("-O0", "-DSAFETY", "-DCOLLAPSE", "-DBFS")  # found soon: not worth an optimiser


def search(folder: Path, defined: Sequence[str], built: Sequence[str], *options: str) -> str:
    """Build a verifier of the model, run it, and return what it says."""
    flags = [f"-D{name}" for name in defined]
    subprocess.run(
        ["spin", *flags, "-a", MODEL], cwd=folder, check=True, capture_output=True, timeout=30
    )
    subprocess.run(
        ["gcc", "-w", "-DMEMLIM=2000", *built, "-o", "pan", "pan.c"],
        cwd=folder, check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    searched = subprocess.run(
        ["./pan", "-m100000", "-n", *options],
        cwd=folder, check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return searched.stdout


def assert_complete(said: str) -> None:
    """Nothing was left out, and nothing found."""
    assert "errors: 0" in said, said
    assert "Search not completed" not in said
    assert "max search depth too small" not in said
    print(re.findall(r"(\d+) states, stored", said)[0], "states searched")


def test_no_order_of_events_breaks_a_promise(tmp_path: Path) -> None:
    """P1 to P5, in every interleaving of callers, losses, a crash, webhooks and late truth."""
    assert_complete(search(tmp_path, [], SAFELY))


def test_who_waits_knows_in_the_end(tmp_path: Path) -> None:
    """P6, with every process fairly scheduled."""
    assert_complete(search(tmp_path, ["LIVENESS"], FAIRLY, "-a", "-f"))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found(tmp_path: Path, mistake: str) -> None:
    """So the search can find one, and each rule of the model is needed."""
    said = search(tmp_path, [mistake], FIRST)
    assert re.search(rf"assertion violated .*(?:{MISTAKES[mistake]})", said), said


def test_giving_up_at_the_first_error_is_found(tmp_path: Path) -> None:
    """A waiter who leaves before the end never knows."""
    said = search(tmp_path, ["LIVENESS", "WAITER_GIVES_UP"], ("-O0", *FAIRLY[1:]), "-a", "-f")
    assert "acceptance cycle" in said


def test_each_mistake_of_the_model_is_tried() -> None:
    """None stands in it unsearched."""
    written = set(re.findall(r"^#ifn?def (\w+)", MODEL.read_text("utf-8"), re.MULTILINE))
    assert written - {"LIVENESS"} == {*MISTAKES, "WAITER_GIVES_UP"}
