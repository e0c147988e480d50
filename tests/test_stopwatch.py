"""What the tests' stopwatch counts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from .stopwatch import Stopwatch

SLEEPS = """
import time
from tests.stopwatch import Stopwatch
with Stopwatch() as watch:
    print("began", flush=True)
    time.sleep(1)
    print(watch.seconds)
"""


def slept(seconds: float) -> float:
    with Stopwatch() as watch:
        time.sleep(seconds)
        return watch.seconds


def test_it_counts_what_the_product_takes():
    """Sleeping counts, for every thread could run meanwhile: unless the machine stood still."""
    assert any(0.2 < slept(0.3) < 0.4 for _ in range(10))


def test_it_does_not_count_while_the_machine_stands_still():
    """A second of sleep is a second, though the process was stopped for three in its midst."""
    with subprocess.Popen([sys.executable, "-c", SLEEPS], stdout=subprocess.PIPE, text=True) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == "began\n"
        os.kill(one.pid, signal.SIGSTOP)
        time.sleep(3)
        os.kill(one.pid, signal.SIGCONT)
        assert float(one.stdout.readline()) < 1.5
