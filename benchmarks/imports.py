"""What `import paynexus_async` costs, beside what it cannot do without.

    python -m benchmarks.imports [--rounds 15] [--json]

Each import in a new process, warm from the disk's cache, taking turns; medians. Then the slowest
packages of one import, as `-X importtime` tells them. Exits with 1 if the bar is missed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import Bar, Report, Table, median_of

NEEDED = "httpx, cattrs, tenacity"
OURS = "paynexus_async"
IMPORTS = {
    "nothing": "",
    "httpx": "import httpx",
    NEEDED: "import httpx, cattrs, tenacity",
    OURS: "import paynexus_async",
    "… and a client": "import paynexus_async; paynexus_async.AsyncPayNexus('sk_x')",
}
TIMED = "import time; t = time.process_time(); {}; print(time.process_time() - t)"
SHOWN = 8


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python, outside the repository's own folder."""
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )


def milliseconds(statement: str) -> float:
    """Time one statement in a new process: its CPU, so that a busy machine disturbs less."""
    return 1000 * float(run("-c", TIMED.format(statement or "pass")).stdout)


def packages() -> list[tuple[str, float]]:
    """Return the packages with the most time of their own, in milliseconds."""
    spent: Counter[str] = Counter()
    told = run("-X", "importtime", "-c", IMPORTS[OURS]).stderr
    for line in told.splitlines()[1:]:
        own, _, name = line.removeprefix("import time:").split("|")
        spent[name.strip().split(".")[0]] += int(own)
    return [(name, microseconds / 1000) for name, microseconds in spent.most_common(SHOWN)]


def main() -> int:
    """Measure, print, and hold the import to its bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    measured: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in range(options.rounds):
        for name, statement in IMPORTS.items():
            measured[name].append(milliseconds(statement))
    found = {name: median_of(several) for name, several in measured.items()}
    ratio = found[OURS] / found[NEEDED]
    report = Report(
        "imports",
        [
            Table(
                f"CPU until an import is done, medians of {options.rounds}",
                ["import", "ms", f"x {NEEDED}"],
                [[name, ms, ms / found[NEEDED]] for name, ms in found.items()],
            ),
            Table(
                "Where the time goes: each package's own, one import traced",
                ["package", "ms"],
                [[name, ms] for name, ms in packages()],
            ),
        ],
        [Bar(f"import paynexus_async beside {NEEDED}", ratio, 1.3)],
    )
    return report.finish(as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
