"""The command: `python -m tests.storms cancel|faults|soak|hostile`; exits with 1 on a violation."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

import anyio

from . import cancel, faults, hostile, soak
from .recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .report import Report

BACKENDS = {"asyncio": ["asyncio"], "trio": ["trio"], "both": ["asyncio", "trio"]}


def cancellations(arguments: argparse.Namespace) -> Iterator[Report]:
    """With the client's own connections, and with a pool of ten of the caller's."""
    for backend in BACKENDS[arguments.backend]:
        for pool in ("client", "caller") if arguments.transport == "httpx" else ("client",):
            storm = cancel.Storm(
                requests=arguments.requests,
                transport=arguments.transport,
                pool=pool,
                seed=arguments.seed,
            )
            with Recorder(seed=arguments.seed) as recorder:
                yield anyio.run(cancel.run, storm, recorder, backend=backend)


def breakages(arguments: argparse.Namespace) -> Iterator[Report]:
    """Faults at every byte of an initiate, with connections of the client's and of the caller's."""
    for backend in BACKENDS[arguments.backend]:
        for pool in ("client", "caller"):
            yield anyio.run(faults.run, arguments.initiates, arguments.seed, pool, backend=backend)


def soaking(arguments: argparse.Namespace) -> Iterator[Report]:
    """A hundred thousand polls on one client."""
    for backend in BACKENDS[arguments.backend]:
        with Recorder(latency=0.0, seed=arguments.seed) as recorder:
            yield anyio.run(
                soak.run, arguments.polls, arguments.transport, recorder, backend=backend
            )


def hostilities(arguments: argparse.Namespace) -> Iterator[Report]:
    """What hostile answers cost, for each way to read."""
    for transport in hostile.TRANSPORTS:
        yield hostile.run(transport)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.storms", description=__doc__)
    storms = parser.add_subparsers(required=True)
    for name, run in {
        "cancel": cancellations,
        "faults": breakages,
        "soak": soaking,
        "hostile": hostilities,
    }.items():
        storm = storms.add_parser(name, help=run.__doc__)
        storm.set_defaults(run=run)
        storm.add_argument("--backend", choices=BACKENDS, default="both")
        storm.add_argument(
            "--transport", choices=["httpx", "aiohttp", "pyreqwest"], default="httpx"
        )
        storm.add_argument("--seed", type=int, default=1)
        if name == "cancel":
            storm.add_argument("--requests", type=int, default=20_000)
        if name == "faults":
            storm.add_argument("--initiates", type=int, default=3_000)
        if name == "soak":
            storm.add_argument("--polls", type=int, default=100_000)
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    broken = 0
    for report in arguments.run(arguments):
        report.print()
        sys.stdout.flush()
        broken += len(report.violations)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
