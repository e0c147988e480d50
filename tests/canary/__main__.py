"""The command: `python -m tests.canary [TEST...]`; exits with 1 if a marked secret was written."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from .run import run


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(Path(folder), sys.argv[1:] or ["tests"])
    summary = outcome.output.strip().splitlines()[-1:]
    print(*summary, sep="\n")
    for name, lines in outcome.lines.items():
        found = sum(leak.file == name for leak in outcome.leaks)
        print(f"  {name:<12} {lines:>8,} lines   {found:>4} with a marked secret")
    for leak in outcome.leaks[:50]:
        print(f"LEAK {leak}")
    if outcome.returncode:
        failed = outcome.output.find("= FAILURES =")
        print(outcome.output[failed:][:6000])
    return 1 if outcome.leaks or outcome.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
