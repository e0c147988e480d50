"""Runs the suite on a copy of the project with marked secrets, and searches what was written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .marks import Leak, leaks, marked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = "paynexus_async"
LEFT_OUT: Final = (
    "tests/foreign",  # not this package's output
    "tests/browser",  # a phone shows its own number, and a page's script knows the one to prompt
    "tests/storms",  # keys of their own
    "tests/canary",
    "tests/crash",  # its workers are processes of their own, and its judge reads their rows
    # These two show keys and phones on purpose: planted defects, and half of a key as foreign words.
    # Each judges everything that is said in it by itself.
    "tests/simulation",
    "tests/generative",
)
SEARCHED: Final[Mapping[str, tuple[str, ...]]] = {
    "package.log": ("key", "phone"),
    "telemetry.txt": ("key", "phone"),
    "said.txt": ("key", "phone"),
    "printed.txt": ("key", "phone"),
    "pytest.txt": ("key", "phone"),
    "others.log": ("key",),  # httpx and httpcore log what they like, but a key they do not
    "locals.txt": ("key",),  # a phone is the caller's own argument
}
# What names a test is not written by the package; nor is what a test compares with.
_OF_PYTEST: Final = re.compile(r"PASSED |SKIPPED |_+ test_.* _+$|tests/\S+ [.sx]")
# `paynexus sandbox` tells its keys on purpose: everybody may know them.
_ON_PURPOSE: Final = re.compile(r"export PAYNEXUS_(SECRET|PUBLIC)_KEY=(sk|pk)_sandbox_")

Mutant = tuple[str, str, str]
"""A file of the package's, what stands in it, and what is planted instead."""


@dataclass
class Outcome:
    """What a run has shown."""

    returncode: int
    output: str
    lines: dict[str, int] = field(default_factory=dict)
    leaks: list[Leak] = field(default_factory=list)


def run(folder: Path, tests: Sequence[str] = ("tests",), mutants: Sequence[Mutant] = ()) -> Outcome:
    """Copy the project to *folder*, mark it, run tests there, and search what they wrote."""
    project, written = folder / "project", folder / "written"
    written.mkdir(parents=True)
    _copy(project)
    for file, old, new in mutants:
        path = project / PACKAGE / file
        source = path.read_text("utf-8")
        assert old in source, f"{file} has changed: plant the mutant anew"
        path.write_text(source.replace(old, new), "utf-8")
    options = ["-rA", "-p", "tests.canary.plugin", "-p", "no:cacheprovider", "--color=no"]
    options += [f"--ignore={path}" for path in LEFT_OUT]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project), "CANARY_FOLDER": str(written)},
        capture_output=True,
        text=True,
        check=False,
    )
    output = "\n".join("" if _OF_PYTEST.match(line) else line for line in done.stdout.splitlines())
    (written / "pytest.txt").write_text(f"{output}\n{done.stderr}", "utf-8")
    outcome = Outcome(done.returncode, done.stdout + done.stderr)
    for name, kinds in SEARCHED.items():
        path = written / name
        if path.exists():
            outcome.lines[name] = len(path.read_text("utf-8").splitlines())
            found = leaks(path, kinds)
            outcome.leaks += [leak for leak in found if not _ON_PURPOSE.search(leak.text)]
    return outcome


def _copy(project: Path) -> None:
    """Copy what the tests read. Marks go into the tests, and into the sandbox's well-known keys."""
    leave = shutil.ignore_patterns("__pycache__", "node_modules", ".*")
    for name in (PACKAGE, "tests", "benchmarks", "docs", "examples"):
        shutil.copytree(ROOT / name, project / name, ignore=leave)
    for name in ("README.md", "SECURITY.md", "_paynexus_async_pytest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, project / name)
    canary = project / "tests" / "canary"
    engine = project / PACKAGE / "sandbox" / "_engine.py"
    paths = [path for path in (project / "tests").rglob("*.py") if canary not in path.parents]
    for path in [*paths, engine]:
        path.write_text(marked(path.read_text("utf-8")), "utf-8")
