"""How busy the event loop was, and when: what is late because of it is not the client's doing."""

from __future__ import annotations

import gc
import time
from bisect import bisect_left

import anyio

_TICK_SECONDS = 0.002
_NOTED_SECONDS = 0.0002


class LagWatch:
    """Sleeps for two milliseconds over and over, and notes each time that it woke too late."""

    def __init__(self) -> None:
        self._ends: list[float] = []
        self._lags: list[float] = []
        self._cpu: list[float] = []
        self.longest_collection = 0.0
        self._collecting_since = 0.0

    def _collecting(self, phase: str, _: dict[str, int]) -> None:
        now = time.process_time()
        if phase == "start":
            self._collecting_since = now
        else:
            self.longest_collection = max(self.longest_collection, now - self._collecting_since)

    async def run(self) -> None:
        gc.callbacks.append(self._collecting)
        try:
            await self._tick()
        finally:
            gc.callbacks.remove(self._collecting)

    async def _tick(self) -> None:
        while True:
            due, cpu = anyio.current_time() + _TICK_SECONDS, time.process_time()
            await anyio.sleep(_TICK_SECONDS)
            now = anyio.current_time()
            if now - due > _NOTED_SECONDS:
                self._ends.append(now)
                self._lags.append(now - due)
                self._cpu.append(time.process_time() - cpu)

    @property
    def most(self) -> float:
        """The longest time for which nothing else had a turn, in seconds."""
        return max(self._lags, default=0.0)

    @property
    def cpu_of_most(self) -> float:
        """For how long of that time this process had a processor; the rest others had it."""
        return self._cpu[self._lags.index(self.most)] if self._lags else 0.0

    def within(self, since: float, until: float) -> float:
        """For how many of these seconds the loop was busy."""
        busy = 0.0
        for i in range(bisect_left(self._ends, since), len(self._ends)):
            begun = self._ends[i] - self._lags[i]
            if begun >= until:
                break
            busy += max(min(self._ends[i], until) - max(begun, since), 0.0)
        return busy
