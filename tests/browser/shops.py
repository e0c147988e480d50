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
STARTS_WITHIN_SECONDS = 30
STOPS_WITHIN_SECONDS = 5


@contextmanager
def serving(command: list[str], server: SandboxServer) -> Iterator[str]:
    """Run a shop in a process of its own, its webhooks registered; it stops cleanly."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    webhook = server.ledger.webhooks.register(f"http://127.0.0.1:{port}/paynexus/webhooks")
    environment = {
        **os.environ,
        "PAYNEXUS_BASE_URL": server.url,
        "PAYNEXUS_SECRET_KEY": SECRET_KEY,
        "PAYNEXUS_PUBLIC_KEY": PUBLIC_KEY,
        "PAYNEXUS_WEBHOOK_SECRET": webhook.secret,
        "PAYNEXUS_CHECKOUT_SECRET": "a secret of thirty-two characters",
    }
    shop = subprocess.Popen(
        [sys.executable, "-m", *command, str(port)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _wait_for(port, shop)
        yield f"http://127.0.0.1:{port}/"
        shop.terminate()
        _, said = shop.communicate(timeout=STOPS_WITHIN_SECONDS)
        assert "Traceback" not in said, said
        assert "ERROR" not in said, said
    finally:
        shop.kill()
        shop.communicate()


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
