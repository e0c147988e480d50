"""What a hostile answer costs: at most 16 MiB, and one typed error; weighed in a process by itself.

    python -m tests.storms.hostile URL TRANSPORT TIMEOUT

is the process that is weighed: for each line on its input it reads once, and prints what that cost.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from paynexus_async import AsyncPayNexus, PayNexusError

from ..hostile.server import BEHAVIOURS, MIB, Behaviour, Connection, HostileServer, answer, healthy
from ..stopwatch import Stopwatch
from .recorder import ROOT
from .report import Report

if TYPE_CHECKING:
    from collections.abc import Collection

COST_MIB_MAX: Final = 16.0
TIMEOUT_SECONDS: Final = 8.0
SECRET_KEY: Final = "sk_test_storm_0123456789"
TRANSPORTS: Final = ("httpx", "aiohttp", "pyreqwest")


def _repeated(
    item: bytes, start: bytes = b'{"success":true,"data":[', end: bytes = b"0]}"
) -> bytes:
    """A document of nearly one MiB, which is still read."""
    return start + item * ((MIB - len(start) - len(end)) // len(item)) + end


def _keys() -> bytes:
    pairs = b",".join(b'"%x":1' % i for i in range(90_000))
    return b'{"success":true,"data":{' + pairs + b"}}"


def _flood(head: bytes, piece: bytes) -> Behaviour:
    """Send a head and then the same piece until the client has had enough."""

    def behave(connection: Connection) -> None:
        connection.request()
        connection.send(head)
        while not connection.stop.is_set():
            connection.send(piece * 100)

    return behave


_OK = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n"
ANSWERS: Final[dict[str, Behaviour]] = {
    **{
        name: BEHAVIOURS[name] for name in ("gzip bomb", "plain flood", "long headers", "deep JSON")
    },
    "headers without end": _flood(_OK, b"X-A: 1\r\n"),
    "one header line without end": _flood(_OK + b"X-A: ", b"x" * 100),
    "interim answers without end": _flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "chunks of one byte without end": _flood(_CHUNKED, b"1\r\nx\r\n"),
    "a chunk's extension without end": _flood(_CHUNKED + b"1;", b"a=b;" * 25),
    "trailers without end": _flood(_CHUNKED + b"0\r\n", b"X-A: 1\r\n"),
    "many lists": answer(200, _repeated(b"[],")),
    "many objects": answer(200, _repeated(b"{},")),
    "many nested lists": answer(200, _repeated(b"[[]],")),
    "many decimals": answer(200, _repeated(b"1.5,")),
    "many keys": answer(200, _keys()),
    "many strings": answer(422, _repeated('"ÿ",'.encode(), b'{"success":false,"errors":{"a":[')),
    "wide characters": answer(200, _repeated("\U0001f4b8".encode(), b'{"a":"', b'"}')),
    "one long number": answer(200, _repeated(b"9", b'{"success":true,"data":{"amount":0.', b"}}")),
    "many statuses": answer(422, _repeated(b'{"a":[1.5]},', b'{"success":false,"errors":[')),
}


def cost_of(
    transport: str, names: Collection[str], timeout: float
) -> dict[str, tuple[float, float, str]]:
    """Read each answer once: MiB above what was there before, seconds, and the error's name."""
    costs = {}
    with HostileServer(healthy) as server:
        command = [
            sys.executable,
            "-m",
            "tests.storms.hostile",
            server.url,
            transport,
            str(timeout),
        ]
        with subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as reader:
            assert reader.stdin is not None
            assert reader.stdout is not None
            for name, behaviour in {"healthy": healthy, **ANSWERS}.items():
                if name not in {"healthy", *names}:
                    continue
                server.behaviour = behaviour
                print("read", file=reader.stdin, flush=True)
                costs[name] = tuple(json.loads(reader.stdout.readline()))
            reader.stdin.close()
    return costs


def run(
    transport: str, names: Collection[str] = tuple(ANSWERS), timeout: float = TIMEOUT_SECONDS
) -> Report:
    """Weigh answers with one transport."""
    costs = cost_of(transport, names, timeout)
    del costs["healthy"]
    report = Report(f"hostile: {transport} (MiB, seconds, error)")
    for name, (mib, seconds, error) in costs.items():
        report.figures[name] = f"{mib:.1f}  {seconds:.2f}  {error}"
        report.require(mib <= COST_MIB_MAX, f"{name}: cost {mib:.1f} MiB")
        report.require(error.endswith("Error"), f"{name}: {error} instead of an error")
        report.require(seconds < timeout + 1, f"{name}: took {seconds:.1f} s")
    return report


def _status(field: str) -> float:
    """Read a figure of this process's memory, in MiB."""
    text = Path("/proc/self/status").read_text()
    found = re.search(rf"{field}:\s+(\d+) kB", text)
    assert found is not None
    return int(found[1]) / 1024


def _weigh() -> float:
    """Return the memory in use; the kernel's peak, which counts Rust's too, begins anew."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


async def _read(paynexus: AsyncPayNexus) -> tuple[float, float, str]:
    """Read once, and say what that cost."""
    before, error = _weigh(), "none"
    with Stopwatch() as watch:
        try:
            await paynexus.get_payment_status("PNXABC123DEF")
        except PayNexusError as raised:
            error = type(raised).__name__
        return _status("VmHWM") - before, watch.seconds, error


async def _main(url: str, transport: str, timeout: str) -> None:
    async with AsyncPayNexus(
        SECRET_KEY, base_url=url, transport=transport, max_retries=0, timeout=float(timeout)
    ) as paynexus:
        # Nothing else runs here: the loop may wait for its next order.
        for _ in sys.stdin:
            print(json.dumps(await _read(paynexus)), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
