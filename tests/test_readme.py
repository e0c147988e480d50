"""The README, held to its word: every Python block runs, every table is true."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import looptime
import pytest
from aiohttp.test_utils import TestClient, TestServer
from dbos import DBOS
from sybil import Document, Example
from sybil.parsers.markdown import CodeBlockParser

from paynexus_async import APIError, AsyncPayNexus, Attempt, PaymentOutcomeUnknown, exceptions
from paynexus_async.cli._outcome import Exit
from paynexus_async.sandbox import (
    DISORDERS,
    FAULTS,
    MAGIC,
    PUBLIC_KEY,
    SECRET_KEY,
    Ledger,
    Request,
    SandboxServer,
    create_app,
    load_scenarios,
)

from .fakes import PHONE, FakeServer

README = Path(__file__).parents[1] / "README.md"
SHOP = README.parent / "examples" / "shop"
TEXT = README.read_text("utf-8") if README.exists() else ""
ALL_BLOCKS = list(Document.parse(str(README), CodeBlockParser("python", lambda example: None)))
(DURABLE,) = (block for block in ALL_BLOCKS if "import DBOS" in block.parsed)
BLOCKS = [block for block in ALL_BLOCKS if block is not DURABLE]


async def run(example: Example, namespace: dict[str, Any]) -> None:
    """Run a block that may await, as a notebook does."""
    code = compile(example.parsed, str(README), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    outcome = eval(code, namespace)
    if inspect.iscoroutine(outcome):
        await outcome


PROMPT = b'{"amount": 100, "phone": "0746990866"}'


def lost() -> PaymentOutcomeUnknown:
    """The error of an initiate whose answer has just been lost, in another process."""
    now = datetime.now(UTC)
    asked = {"amount": 100, "phone": "254746990866"}
    attempt = Attempt(**asked, description=None, sent_at=now, lost_at=now)
    return PaymentOutcomeUnknown("lost", **asked, error=APIError("lost"), attempt=attempt)


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """A sandbox behind every client that the README opens, on a clock that jumps."""
    ledger = Ledger(clock=lambda: 1_769_498_238.0 + asyncio.get_running_loop().time())
    monkeypatch.setenv("PAYNEXUS_SECRET_KEY", SECRET_KEY)
    monkeypatch.setenv("PAYNEXUS_PUBLIC_KEY", PUBLIC_KEY)
    monkeypatch.setenv("PAYNEXUS_CHECKOUT_SECRET", "a secret of thirty-two characters")
    monkeypatch.setenv("PAYNEXUS_WEBHOOK_SECRET", "whsec_third")
    monkeypatch.setattr(
        httpx, "AsyncHTTPTransport", lambda **_: httpx.ASGITransport(app=create_app(ledger))
    )
    return ledger


async def follow_a_customer(app: Any, ledger: Ledger) -> None:
    """Pay in an application of FastAPI's, and read the stream of the token to its end."""
    async with app.router.lifespan_context(app) as state:

        async def served(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": dict(state)}, receive, send)

        transport = httpx.ASGITransport(served)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as browser:
            answer = await browser.post("/pay", json={"id": 12345, "phone": "0746990866"})
            assert answer.status_code == 202
            stream = await browser.get(f"/paynexus/events/{answer.json()['token']}")
    assert ledger.prompts[0].description == "Order #12345"
    assert '"state": "completed"' in stream.text


async def follow_a_customer_of_aiohttp(app: Any, ledger: Ledger) -> None:
    """The same, over a socket."""
    async with TestClient(TestServer(app)) as browser:
        answer = await browser.post("/pay", json={"id": 12345, "phone": "0746990866"})
        assert answer.status == 202
        stream = await browser.get(f"/paynexus/events/{(await answer.json())['token']}")
        assert '"state": "completed"' in await stream.text()
    assert ledger.prompts[0].description == "Order #12345"


@pytest.mark.parametrize("block", BLOCKS, ids=lambda b: f"line-{b.line}")
def test_every_python_block_runs(block: Example, ledger: Ledger, capsys, monkeypatch):
    """As a user would paste it, `paynexus` being an open client."""
    monkeypatch.syspath_prepend(SHOP)

    async def main() -> None:
        async with AsyncPayNexus() as paynexus:
            namespace: dict[str, Any] = {"paynexus": paynexus}
            await run(block, namespace)
            if inspect.iscoroutinefunction(checkout := namespace.get("checkout")):
                order = SimpleNamespace(amount=100, phone="0746990866", id=12345)
                assert await checkout(paynexus, order) == "Thank you!"
                ledger.script("expired")
                assert await checkout(paynexus, order) == "The payment was expired."
                ledger.script("stuck")
                assert "Still waiting" in await checkout(paynexus, order)
                assert "answer the prompt" in await checkout(paynexus, order)
                order.phone = "12345678"
                assert "No prompt was sent" in await checkout(paynexus, order)
            if app := namespace.get("app"):
                await follow_a_customer(app, ledger)
            if shop := namespace.get("shop"):
                await follow_a_customer_of_aiohttp(shop, ledger)
            if resolve := namespace.get("resolve"):
                assert await resolve(paynexus, lost()) is None
                assert "none so far: PayNexus lists no payment" in capsys.readouterr().out
                error = lost()
                for _ in range(2):
                    ledger.handle(Request("POST", "/mpesa/payment/initiate", SECRET_KEY, PROMPT))
                assert await resolve(paynexus, error) is None
                assert "ask somebody: It cannot be told" in capsys.readouterr().out

    anyio.run(main, backend_options={"loop_factory": looptime.new_event_loop})
    if "paid:" in block.parsed:
        assert "paid: " in capsys.readouterr().out


def test_the_block_that_loses_nothing_runs(monkeypatch, tmp_path, capsys):
    """On the time of the engine's threads, which does not jump."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAYNEXUS_CHECKOUT_SECRET", "a secret of thirty-two characters")
    monkeypatch.setenv("PAYNEXUS_DURABLE_SECRET", "a secret of thirty-two characters")
    ledger = Ledger(clock=time.time, speed=100)

    async def main() -> None:
        namespace: dict[str, Any] = {"__name__": "shop"}
        await run(DURABLE, namespace)
        app = namespace["app"]
        async with app.router.lifespan_context(app) as state:

            async def served(scope: Any, receive: Any, send: Any) -> None:
                await app({**scope, "state": dict(state)}, receive, send)

            transport = httpx.ASGITransport(served)
            async with httpx.AsyncClient(transport=transport, base_url="http://shop") as browser:
                order = {"id": "order-12345", "phone": "0746990866"}
                for _ in range(2):
                    answer = await browser.post("/pay", json=order)
                    assert answer.status_code == 202
                stream = await browser.get(f"/paynexus/events/{answer.json()['token']}")
                assert '"state": "completed"' in stream.text
                handle = await state["paynexus_durable"].pay("order-12345", amount=100, phone=PHONE)
                assert (await handle.outcome()).succeeded

    try:
        with SandboxServer(ledger) as server:
            monkeypatch.setenv("PAYNEXUS_BASE_URL", server.url)
            monkeypatch.setenv("PAYNEXUS_SECRET_KEY", SECRET_KEY)
            anyio.run(main)
    finally:
        DBOS.destroy(destroy_registry=True)
    assert [prompt.description for prompt in ledger.prompts] == ["order-12345"]
    assert f"paid: order-12345 {ledger.records[0].receipt}" in capsys.readouterr().out


def test_the_shop_of_the_readme_is_the_one_that_is_tested():
    """To the letter; its tests are among these."""
    assert f"```python\n{(SHOP / 'test_shop.py').read_text('utf-8')}```" in TEXT


def test_the_scenario_file_of_the_readme_can_be_read(tmp_path):
    """Every block of TOML is one."""
    path = tmp_path / "mine.toml"
    path.write_text(TEXT.split("```toml\n")[1].split("```")[0], "utf-8")
    assert [*load_scenarios(path)] == ["slow-bank"]


def test_the_blocks_are_found():
    """A README without examples would pass the test above."""
    assert len(BLOCKS) >= 4


@pytest.mark.parametrize("disorder", DISORDERS)
def test_the_table_of_disorders_is_true(disorder):
    """It is that of the sandbox."""
    assert f"| `{disorder}` | {DISORDERS[disorder]} |" in TEXT


@pytest.mark.parametrize("magic", MAGIC, ids=lambda m: m.scenario)
def test_the_table_of_magic_numbers_is_true(magic):
    """It is that of the sandbox."""
    assert f"| `{magic.phone}` | {magic.amount} KES | {magic.happens} |" in TEXT


@pytest.mark.parametrize("kind", FAULTS)
def test_the_table_of_faults_is_complete(kind):
    """Those that strike before or after are named once."""
    name = kind.removesuffix("-before").removesuffix("-after")
    row = next(
        line for line in TEXT.splitlines() if f"`{name if name == kind else name + '-…'}`" in line
    )
    assert row.startswith("| ")


def test_the_table_of_exit_codes_is_complete():
    """Every code is explained."""
    for code in Exit:
        assert f"\n| {int(code)} | " in TEXT


def test_every_exception_of_the_truth_table_exists():
    """And the outcomes are all there."""
    for name in (
        "PaymentStillPending",
        "PaymentOutcomeUnknown",
        "DuplicatePaymentError",
        "PaymentMismatchError",
    ):
        assert f"| `{name}` |" in TEXT
        assert hasattr(exceptions, name)
    for word in ("completed", "cancelled", "failed", "expired"):
        assert f"\n| `{word}` |" in TEXT


def test_the_first_two_shell_blocks_are_one_line_each():
    """The demo, and the tests."""
    blocks = [block.split("```")[0].strip() for block in TEXT.split("```sh\n")[1:3]]
    assert all("\n" not in block for block in blocks)
    assert blocks[0].endswith("paynexus demo")
    assert "pytest" in blocks[1]


def test_the_schedule_of_the_readme_is_an_option():
    """`AsyncPayNexus(patience="thrifty")`."""
    paynexus = FakeServer().client(patience="thrifty")
    assert paynexus._followers.schedule.price == 1


def test_every_file_that_is_named_is_there():
    """Pictures and results travel with the source."""
    named = re.findall(r'(?:src|srcset)="([^"]+)"|\]\(((?!https?:)[^)#]+)\)', TEXT)
    files = [one or other for one, other in named]
    assert "docs/sandbox-light.png" in files
    for file in files:
        assert (README.parent / file).is_file(), file
