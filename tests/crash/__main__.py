"""The command of the crashes.

python -m tests.crash [--orders 2000] [--kills 1000] [--database sqlite|postgres]
                      [--mode transaction|at-least-once] [--seed N]
python -m tests.crash --defects [--runs 3] [--orders 40] [--kills 30]     the planted defects

SIGTERM ends the killing early: what was done by then is judged.
Exits with 1, and the seed, where a promise was broken, or a planted defect never caught.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
from collections import Counter

from .. import postgres
from .defects import DEFECTS
from .harness import Run, crash


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash")
    parser.add_argument("--orders", type=int)
    parser.add_argument("--kills", type=int)
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--mode", choices=["transaction", "at-least-once"], default="transaction")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--defect", choices=[d.name for d in DEFECTS], default="")
    parser.add_argument("--defects", action="store_true", help="each (or --defect), in small runs")
    parser.add_argument("--runs", type=int, default=3, help="for each defect")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # else its server would be left
    if options.database == "postgres" and (why := postgres.why_not()):
        parser.error(why)
    if options.defects:
        return _defects(options)
    run = Run(
        orders=2_000 if options.orders is None else options.orders,
        kills=1_000 if options.kills is None else options.kills,
        database=options.database,
        is_transactional=options.mode == "transaction",
        seed=options.seed,
        defect=options.defect,
        shows=True,
    )
    print(*crash(run).lines(), sep="\n")
    if run.verdict.violations:
        print(f"violated with --seed {options.seed}")
    return bool(run.verdict.violations)


def _defects(options: argparse.Namespace) -> int:
    survived = 0
    for defect in DEFECTS:
        if defect.needs not in {"", options.database} or options.defect not in {"", defect.name}:
            continue
        caught, by = 0, Counter[str]()
        for seed in range(options.seed, options.seed + options.runs):
            run = crash(
                Run(
                    orders=40 if options.orders is None else options.orders,
                    kills=30 if options.kills is None else options.kills,
                    database=options.database,
                    seed=seed,
                    defect=defect.name,
                )
            )
            caught += bool(run.verdict.violations)
            by.update(promise for promise, found in run.verdict.broken.items() if found)
        survived += not caught
        print(f"caught in {caught} of {options.runs}: {defect.name}: {defect.says}", flush=True)
        for promise, runs in by.most_common():
            print(f"    in {runs} by: {promise}", flush=True)
    return bool(survived)


if __name__ == "__main__":
    sys.exit(main())
