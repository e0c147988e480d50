"""Run the benchmarks: all of them, or those that are named.

    python -m benchmarks [schedule quota webhooks bulk waiters durable imports sandbox] [--save]

Each runs in a process of its own, prints its tables and is held to its bars. With `--save` the
figures, the pictures and the machine's description go to `benchmarks/results/`. Needs the extra
`bench`. Exits with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.report import Report, shown

NAMES = ("schedule", "quota", "webhooks", "bulk", "waiters", "durable", "imports", "sandbox")
MEASURED_WITH = ("httpx", "httpcore", "anyio", "aiohttp", "pyreqwest", "tenacity", "attrs", "dbos")
RESULTS = Path(__file__).with_name("results")


def machine() -> dict[str, str]:
    """Describe where the figures come from."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text("utf-8").splitlines() if cpuinfo.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    versions = [f"{name} {metadata.version(name)}" for name in MEASURED_WITH]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": f"{os.cpu_count()} cores, {models[0] if models else platform.machine()}",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "libraries": ", ".join(versions),
    }


def run(name: str) -> Report:
    """Run one benchmark."""
    print(f"\n=== {name}", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    if not done.stdout.startswith("{"):
        sys.exit(f"{name} ended with {done.returncode} and no figures")
    report = Report.read(done.stdout)
    print("\n".join(report.lines()), flush=True)
    return report


def save(report: Report) -> None:
    """Keep the figures and their pictures."""
    from benchmarks.pictures import draw

    RESULTS.mkdir(exist_ok=True)
    document = {"machine": machine(), **asdict(report)}
    path = RESULTS / f"{report.name}.json"
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
    pictures = draw(report, RESULTS)
    (RESULTS / f"{report.name}.md").write_text(page(report, pictures), "utf-8")


def page(report: Report, pictures: list[str]) -> str:
    """Lay the figures out for reading."""
    lines = [f"# {report.name.capitalize()}", "", f"`python -m benchmarks.{report.name}`", ""]
    lines += [f"![{name}]({name})\n" for name in pictures]
    for table in report.tables:
        lines += [f"## {table.title}", "", _row(table.columns), _row(["---"] * len(table.columns))]
        lines += [*(_row([shown(figure) for figure in row]) for row in table.rows), ""]
    lines += ["## Bars", "", _row(["what", "figure", "bar", "held"]), _row(["---"] * 4)]
    for bar in report.bars:
        limit = f"{'at least' if bar.at_least else 'at most'} {shown(bar.limit)}"
        held = "yes" if bar.holds else "**no**"
        lines.append(_row([bar.name, shown(bar.figure), limit, held]))
    lines += ["", *report.notes, "", "Measured on:", ""]
    lines += [f"- {name}: {words}" for name, words in machine().items()]
    return "\n".join(lines).rstrip() + "\n"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Run, print, and keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--save", action="store_true", help="keep figures and pictures")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    held = True
    for name in options.names or NAMES:
        report = run(name)
        held = held and all(bar.holds for bar in report.bars)
        if options.save:
            save(report)
    return not held


if __name__ == "__main__":
    sys.exit(main())
