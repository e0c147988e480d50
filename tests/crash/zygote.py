"""Forks workers from a warm process of one thread: a life begins without an import."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from .shop import Life, Shop, read, written

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Worker", "Zygote"]

_ROOT: Final = Path(__file__).parents[2]


class Worker:
    """A child of the zygote's, while it lives and after."""

    def __init__(self, zygote: Zygote, life: Life, pid: int) -> None:
        self.life = life
        self.began = time.monotonic()
        self.is_reaped = threading.Event()
        self._zygote = zygote
        self._pid = pid
        self._handle = os.pidfd_open(pid)  # the zygote reaps it only when told: it is this process

    def wait(self, seconds: float) -> bool:
        """Wait until it is dead; return whether it is."""
        return bool(select.select([self._handle], [], [], max(seconds, 0.0))[0])

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, number)

    def reap(self) -> int:
        """Return how it ended, when it has: below 0 by a signal."""
        self.wait(60)
        os.close(self._handle)
        ended = self._zygote.ask({"reap": self._pid})
        self.is_reaped.set()
        return ended


class Zygote:
    """The harness's side: asks for lives."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(self._folder / "log")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
            text=True,
            bufsize=1,
        )
        self.ask(None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin
        self._process.stdin.close()  # it kills what is left
        self._process.wait(30)
        assert self._process.stdout
        self._process.stdout.close()

    def begin(self, shop: Shop, life: Life) -> Worker:
        return Worker(self, life, self.ask({"live": written(shop, life)}))

    def ask(self, order: dict[str, object] | None) -> int:
        assert self._process.stdin
        assert self._process.stdout
        with self._lock:
            if order is not None:
                self._process.stdin.write(json.dumps(order) + "\n")
            answer = self._process.stdout.readline()
        if not answer:
            msg = f"the zygote has ended: see {self._folder / 'log'}"
            raise RuntimeError(msg)
        return int(answer)


async def _warm() -> None:
    """Make once what every life makes: imports, and the tables of the schedule."""
    import aiosqlite  # noqa: F401
    import h11  # noqa: F401
    import psycopg  # noqa: F401
    import sqlalchemy.dialects.postgresql.psycopg
    import sqlalchemy.dialects.sqlite.aiosqlite  # noqa: F401

    from paynexus_async import AsyncPayNexus
    from paynexus_async.exceptions import PayNexusError
    from paynexus_async.phone import normalize_phone

    from . import worker

    normalize_phone("0722000000")
    worker.SCHEDULE.seconds_to_next_look(0.0, 0.0)
    async with AsyncPayNexus("sk_warm", base_url="http://127.0.0.1:1/api") as paynexus:
        with contextlib.suppress(PayNexusError):  # nobody listens there
            await paynexus.validate_phone("0722000000")


def _live(line: str, log: int) -> int:
    """Be the child."""
    from . import worker

    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.enable(log)  # native code that ends a life is to say where
    shop, life = read(line)
    try:
        asyncio.run(worker.live(shop, life))
    except BaseException as error:  # noqa: BLE001  # for the judge
        traceback.print_exc()
        sys.stderr.flush()
        worker.note(shop, life, "life", "", error)
        return 1
    return 0


def main() -> None:
    asyncio.run(_warm())
    assert threading.active_count() == 1, threading.enumerate()
    gc.collect()
    gc.freeze()
    log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    children: set[int] = set()
    print(0, flush=True)
    try:
        while line := sys.stdin.readline():
            order = json.loads(line)
            if "live" in order:
                pid = os.fork()
                if not pid:
                    children.clear()
                    os._exit(_live(order["live"], log))
                children.add(pid)
                print(pid, flush=True)
            else:
                _, status = os.waitpid(order["reap"], 0)
                children.discard(order["reap"])
                print(os.waitstatus_to_exitcode(status), flush=True)
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
