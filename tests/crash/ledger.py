"""The PayNexus of the harness: it knows the truth, loses answers, and kills whom it is told to."""

from __future__ import annotations

import random
import signal
import threading
import time
from typing import TYPE_CHECKING, Final

from paynexus_async.sandbox import Fault, Ledger, Reply, Request

from .shop import SPEED, key_of

if TYPE_CHECKING:
    from paynexus_async.sandbox._faults import Strike, Told

    from .zygote import Worker

__all__ = ["AIMS", "AimedLedger"]

AIMS: Final = ("received", "carried-out", "answered")
"""The moments of an initiate: before it is carried out, before it is answered, just after."""

_AFTER_SECONDS_MAX: Final = 0.03

_FAULTS: Final = (
    ("reset-after", "initiate", 0.04, None),
    ("reset-before", "initiate", 0.02, None),
    ("close-after", "initiate", 0.02, None),
    ("cut-body", "initiate", 0.02, None),
    ("latency", "initiate", 0.02, 5.0),  # the client gives up after 3 s
    ("latency", "initiate", 0.10, 0.3),
    ("503-after", "initiate", 0.02, None),
    ("409-before", "initiate", 0.01, None),
    ("502-before", "status", 0.03, None),
    ("reset-after", "status", 0.02, None),
    ("502-before", "list", 0.10, None),
    ("other-payment", "status", 0.005, None),
)


class AimedLedger(Ledger):
    """Kills, at a moment of the initiate that it sends, a worker at which it is aimed."""

    def __init__(self, seed: int) -> None:
        super().__init__(clock=time.time, speed=SPEED, seed=seed)
        self._lock = threading.Lock()
        self._aims: dict[str, tuple[str, Worker]] = {}
        self._first: dict[int, float] = {}
        self._dice = random.Random(f"ledger {seed}")
        for number, (kind, call, probability, seconds) in enumerate(_FAULTS):
            self.faults.add(
                Fault(
                    kind,
                    call=call,
                    probability=probability,
                    seconds=seconds,
                    seed=seed * 100 + number,
                )
            )

    def aim(self, moment: str, worker: Worker) -> None:
        with self._lock:
            self._aims[key_of(worker.life.worker)] = (moment, worker)

    def first_initiate(self, worker: Worker) -> float | None:
        """Return when a worker's first initiate came since this was asked last."""
        at = self._first.pop(worker.life.worker, None)
        return at if at is not None and at > worker.began else None

    def forget(self, worker: Worker) -> None:
        """Aim at it no more: when this returns, nothing is shot at it."""
        with self._lock:
            self._aims.pop(key_of(worker.life.worker), None)

    def handle(self, request: Request) -> Reply:
        self._shoot("received", request)
        reply = super().handle(request)
        self._shoot("carried-out", request)
        self._shoot("answered", request)
        return reply

    def mishandle(self, request: Request, strike: Strike) -> Told:
        self._shoot("received", request)
        told = super().mishandle(request, strike)
        self._shoot("carried-out", request)
        self._shoot("answered", request)
        return told

    def _shoot(self, moment: str, request: Request) -> None:
        if not request.path.endswith("/initiate"):
            return
        key = request.key or ""
        self._first.setdefault(int(key.rpartition("_")[2]), time.monotonic())
        with self._lock:
            wanted, worker = self._aims.get(key, ("", None))
            if wanted != moment or worker is None:
                return
            if moment != "answered":
                worker.signal(signal.SIGKILL)
                return
            delay = self._dice.uniform(0, _AFTER_SECONDS_MAX)
        threading.Timer(delay, self._shoot_late, (key, worker)).start()

    def _shoot_late(self, key: str, worker: Worker) -> None:
        with self._lock:
            if self._aims.get(key) == ("answered", worker):
                worker.signal(signal.SIGKILL)
