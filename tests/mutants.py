"""Change the package's code, one place at a time, and see that a test fails: needs mutmut 3.

`python -m tests.mutants status _quota` prints, for each module, how many mutants its tests kill,
and shows the survivors; `tests/mutation.md` says why each of them is equivalent.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
TESTS: Final = {
    "status": ["test_status.py", "test_models.py"],
    "_schedule": ["test_schedule.py", "test_schedule_mutants.py", "test_experience.py"],
    "_quota": ["test_quota.py"],
    "_retry": ["test_retry.py"],
    "_wire": ["test_wire.py", "test_listing.py"],
    "_budget": ["test_budget.py"],
    "_hearsay": ["test_hearsay.py"],
    "_transport": ["test_transport.py"],
    "_discreet": ["test_discreet.py"],
}
"""The tests of each module that are fast enough to run for every mutant of it."""


def main(modules: list[str]) -> int:
    """Run each module; return how many have survivors."""
    return sum(_run(module) > 0 for module in modules or list(TESTS))


def _run(module: str) -> int:
    """Mutate one module in a copy of the project; return the number of survivors."""
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "project"
        ignored = shutil.ignore_patterns(".*", "node_modules", "__pycache__", "mutants")
        shutil.copytree(ROOT, copy, ignore=ignored)
        tests = [f"tests/{test}" for test in TESTS[module] if (copy / "tests" / test).exists()]
        (copy / "setup.cfg").write_text(_configuration(module, tests), "utf-8")
        for done in (
            _mutmut(copy, "run", "--max-children", "2"),
            _mutmut(copy, "results", "--all", "true"),
        ):
            told = done
        ends = re.findall(r"^\s*(\S+__mutmut_\d+): (.+)$", told, re.MULTILINE)
        survivors = [
            mutant
            for mutant, end in ends
            if end not in {"killed", "timeout", "caught by type check"}
        ]
        late = sum(end == "timeout" for _, end in ends)  # on a busy machine, look at each
        killed = f"{len(ends) - len(survivors)} of {len(ends)} killed"
        print(f"{module}: {killed}, {late} of them by the time limit", flush=True)
        for mutant in survivors:
            print(
                f"--- {mutant} ({dict(ends)[mutant]})",
                _mutmut(copy, "show", mutant),
                sep="\n",
                flush=True,
            )
        return len(survivors) if ends else 1


def _configuration(module: str, tests: list[str]) -> str:
    lines = {
        "source_paths": "paynexus_async",
        "only_mutate": f"paynexus_async/{module}.py",
        "also_copy": "\n  tests\n  benchmarks\n  pyproject.toml\n  README.md",
        "pytest_add_cli_args_test_selection": "\n  ".join(["", *tests]),
        # Compares two simulations by how they come out: any change would count as killed. So would
        # it over pyreqwest, which is of no use in a process that was forked.
        "pytest_add_cli_args": "\n  -x\n  -p\n  no:cacheprovider\n  -k\n  not equal_calls and not trio and not pyreqwest",
        # The wording of messages is nobody's promise; what they must not hold is tested.
        "do_not_mutate_patterns": '\n  ^\\s*msg = \n  ^\\s*f?"[^"]*"$\n  ^\\s*(proof|advice|proof, advice) = "',
    }
    return "[mutmut]\n" + "".join(f"{key}={value}\n" for key, value in lines.items())


def _mutmut(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-W", "ignore", "-m", "mutmut", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(done.stdout[-2_000:], done.stderr[-2_000:], sep="\n")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
