"""The simulator's command.

python -m tests.simulation [--payments 50000] [--seed S] [--jobs 2]     many worlds, and a table
python -m tests.simulation --seed N --trace                            one world, event by event
python -m tests.simulation --mutants [--worlds 12]                     the planted defects

Exits with 1 where a promise was broken, a fault never struck, or a mutant survived.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Final

from .runs import FAULTS, catch_all, run_many
from .world import Report, simulate

_SHOWN_MAX: Final = 20
_TELL_EVERY: Final = 60.0
"""Seconds between two lines of progress, on standard error: a night that is cut short has a say."""
_ENOUGH_FOR_ALL_FAULTS: Final = 20_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--payments", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0, help="of the first world")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--trace", action="store_true", help="one world, event by event")
    parser.add_argument("--mutants", action="store_true")
    parser.add_argument("--worlds", type=int, default=12, help="for each mutant")
    options = parser.parse_args()
    if options.trace:
        return _trace(options.seed)
    if options.mutants:
        return _mutants(options.worlds, options.seed, options.jobs)
    return _many(options.payments, options.seed, options.jobs)


def _trace(seed: int) -> int:
    report = simulate(seed, trace=True)
    for _, violation in report.violations:
        print(violation)
    print(f"digest {report.digest}, {report.requests} requests")
    return bool(report.violations)


def _many(payments: int, seed: int, jobs: int) -> int:
    began, total = time.perf_counter(), Report()
    told = began
    for report in run_many(payments, seed=seed, jobs=jobs):
        total += report
        for found, violation in report.violations:
            print(f"world {found}: {violation}", file=sys.stderr, flush=True)
        if time.perf_counter() - told >= _TELL_EVERY:
            told = time.perf_counter()
            print(
                f"{told - began:>8,.0f} s  {total.payments:>11,} of {payments:,} payments  "
                f"{total.requests:>12,} requests  {len(total.violations)} violations",
                file=sys.stderr,
                flush=True,
            )
    seconds = time.perf_counter() - began
    never = [name for name in FAULTS if not total.hits[name]]
    _print_table("faults", {name: total.hits[name] for name in FAULTS})
    _print_table("ends", dict(total.outcomes.most_common()))
    print(f"worlds          {total.worlds:>12,}")
    print(f"payments        {total.payments:>12,}")
    print(f"requests        {total.requests:>12,}")
    print(f"virtual hours   {total.virtual_seconds / 3600:>12,.1f}")
    print(f"violations      {len(total.violations):>12,}")
    print(
        f"wall time       {seconds:>12,.1f} s ({1000 * seconds / total.payments:.2f} ms a payment)"
    )
    for found, violation in total.violations[:_SHOWN_MAX]:
        print(f"\n{violation}\n    python -m tests.simulation --seed {found} --trace")
    if never and payments >= _ENOUGH_FOR_ALL_FAULTS:
        print("\nnever struck:", ", ".join(never))
        return 1
    return bool(total.violations)


def _mutants(worlds: int, seed: int, jobs: int) -> int:
    began, survivors = time.perf_counter(), 0
    print(f"{'caught in':>12}  first seed  by promise (worlds)")
    for caught in catch_all(worlds, seed=seed, jobs=jobs):
        survivors += not caught.caught
        by = ", ".join(f"{promise} ({count})" for promise, count in sorted(caught.promises.items()))
        share = f"{caught.caught} of {caught.worlds}"
        first = "-" if caught.first is None else caught.first
        print(f"{share:>12}  {first:>10}  {by or 'none: it survived':<24}  {caught.name}")
    print(f"{survivors} survived; {time.perf_counter() - began:.1f} s")
    return bool(survivors)


def _print_table(title: str, counts: dict[str, int]) -> None:
    print(f"{title}")
    for name, count in counts.items():
        print(f"  {name:<36}{count:>10,}")
    print()


if __name__ == "__main__":
    sys.exit(main())
