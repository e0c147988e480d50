"""The examples' one command: it starts the shop and a PayNexus for it, and stops both."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[1]
SECONDS = 30


@pytest.mark.parametrize("example", ["checkout_aiohttp", "checkout_fastapi"])
def test_one_command_starts_both_and_ctrl_c_stops_them(example):
    """It prints both addresses; each answers; nothing is left, and nothing ugly is said."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    running = subprocess.Popen(
        [sys.executable, "-m", f"examples.{example}", str(port)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        said = [running.stdout.readline() for _ in range(2)]
        shop, phones = (re.search(r"http://127\.0\.0\.1:\d+/", line)[0] for line in said)
        assert "M-PESA" in _page(shop)
        assert "PayNexus" in _page(phones)
        running.send_signal(signal.SIGINT)
        _, complaints = running.communicate(timeout=SECONDS)
        assert complaints == ""
    finally:
        running.kill()
        running.communicate()


def _page(url: str) -> str:
    ends_at = time.monotonic() + SECONDS
    while True:
        try:
            return httpx.get(url, trust_env=False).raise_for_status().text
        except httpx.ConnectError:
            assert time.monotonic() < ends_at, f"{url} does not answer"
            time.sleep(0.05)
