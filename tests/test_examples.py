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
from aiohttp.test_utils import TestClient, TestServer

from paynexus_async.sandbox import SECRET_KEY

ROOT = Path(__file__).parents[1]
SECONDS = 30


@pytest.mark.parametrize("options", [[], ["--durable"]], ids=["plain", "durable"])
@pytest.mark.parametrize("example", ["checkout_aiohttp", "checkout_fastapi"])
def test_one_command_starts_both_and_ctrl_c_stops_them(example, options):
    """It prints both addresses; each answers; nothing is left, and nothing ugly is said."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    running = subprocess.Popen(
        [sys.executable, "-m", f"examples.{example}", *options, str(port)],
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


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b"[]", b"7", b"null", b'"x"', b"{}", b'{"phone": "0746990866"}', b'{"amount": 5}',
     b'{"amount": "5", "phone": "0746990866"}', b'{"amount": 5, "phone": 7}'],
)  # fmt: skip
async def test_an_order_that_is_none_is_the_customers_fault(monkeypatch, body):
    """A problem with words for the page, of status 422; the shop has no fault, and sends nothing."""
    monkeypatch.setenv("PAYNEXUS_SECRET_KEY", SECRET_KEY)
    monkeypatch.setenv("PAYNEXUS_BASE_URL", "http://127.0.0.1:1/api")
    monkeypatch.setenv("PAYNEXUS_CHECKOUT_SECRET", "a secret of thirty-two characters")
    from examples.checkout_aiohttp.app import create_app

    async with TestClient(TestServer(create_app())) as shop:
        answer = await shop.post("/pay", data=body, headers={"Content-Type": "application/json"})
        problem = await answer.json(content_type="application/problem+json")
    assert (answer.status, problem["code"]) == (422, "invalid-request")
    assert problem["detail"]


def _page(url: str) -> str:
    ends_at = time.monotonic() + SECONDS
    while True:
        try:
            return httpx.get(url, trust_env=False, timeout=SECONDS).raise_for_status().text
        except httpx.ConnectError:
            assert time.monotonic() < ends_at, f"{url} does not answer"
            time.sleep(0.05)
