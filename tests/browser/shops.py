"""The example shops, each under its own server, with a sandbox for its PayNexus."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from paynexus_async.sandbox import PUBLIC_KEY, SECRET_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from paynexus_async.sandbox import SandboxServer

ROOT = Path(__file__).parents[2]
SHOPS = {
    "aiohttp": ["aiohttp.web", "-H", "127.0.0.1", "examples.checkout_aiohttp.app:create_app", "-P"],
    "fastapi": ["uvicorn", "examples.checkout_fastapi.app:app", "--log-level=warning", "--port"],
}
"""By name: what `python -m` runs, before the port."""
DURABLE_SHOPS = {
    name: [word.replace(".app:", ".durable:") for word in command]
    for name, command in SHOPS.items()
}
"""The same, with payments that outlive them."""
STARTS_WITHIN_SECONDS = 30
STOPS_WITHIN_SECONDS = 10


class Shop:
    """A shop in a process of its own, which can be killed, and started again where it was.

    Attributes:
        url: its page.
        said: what it has printed, each time that it ended.
    """

    def __init__(self, command: list[str], server: SandboxServer, **environment: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/"
        self.said: list[str] = []
        self._command = command
        webhook = server.ledger.webhooks.register(f"{self.url}paynexus/webhooks")
        self._environment = {
            **os.environ,
            "PAYNEXUS_BASE_URL": server.url,
            "PAYNEXUS_SECRET_KEY": SECRET_KEY,
            "PAYNEXUS_PUBLIC_KEY": PUBLIC_KEY,
            "PAYNEXUS_WEBHOOK_SECRET": webhook.secret,
            "PAYNEXUS_CHECKOUT_SECRET": "a secret of thirty-two characters",
            **environment,
        }

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", *self._command, str(self._port)],
            cwd=ROOT,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        _wait_for(self._port, self._process)

    def kill(self) -> None:
        """End it as a machine does that loses power."""
        self._process.kill()
        self.said.append(self._process.communicate()[0])

    def stop(self) -> None:
        """End it as a deploy does; nothing ugly is said."""
        self._process.terminate()
        told, complaints = self._process.communicate(timeout=STOPS_WITHIN_SECONDS)
        self.said.append(told)
        assert "Traceback" not in complaints, complaints
        assert "ERROR" not in complaints, complaints


@contextmanager
def running(command: list[str], server: SandboxServer, **environment: str) -> Iterator[Shop]:
    """Run a shop, its webhooks registered; it stops cleanly."""
    shop = Shop(command, server, **environment)
    try:
        shop.start()
        yield shop
        shop.stop()
    finally:
        shop.kill()


@contextmanager
def serving(command: list[str], server: SandboxServer) -> Iterator[str]:
    """Run a shop that a test needs only the address of."""
    with running(command, server) as shop:
        yield shop.url


def _wait_for(port: int, shop: subprocess.Popen[str]) -> None:
    ends_at = time.monotonic() + STARTS_WITHIN_SECONDS
    while time.monotonic() < ends_at:
        assert shop.poll() is None, shop.communicate()[1]
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    msg = "the shop does not answer"
    raise AssertionError(msg)
