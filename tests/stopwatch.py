"""A stopwatch that a machine which stands still cannot decide."""

from __future__ import annotations

import threading
import time
from typing import Self

__all__ = ["Stopwatch"]

_TICK_SECONDS = 0.02


class Stopwatch:
    """Measures real seconds, less those for which this process was not let run.

    What a test says of real time is said of the product: that a shared machine gave its processors
    to somebody else for some seconds is no news of it.

    Attributes:
        stood_still: the seconds for which it was not.
    """

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="stopwatch", daemon=True)
        self.stood_still = 0.0

    def __enter__(self) -> Self:
        self._began = self._ticked = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopped.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        """The seconds so far."""
        now = time.monotonic()
        return now - self._began - self.stood_still - self._late(now)

    def _tick(self) -> None:
        while not self._stopped.wait(_TICK_SECONDS):
            now = time.monotonic()
            self.stood_still += self._late(now)
            self._ticked = now

    def _late(self, now: float) -> float:
        late = now - self._ticked - _TICK_SECONDS
        return late if late > _TICK_SECONDS else 0.0  # as scheduling goes
