"""One browser for all tests; a sandbox, a page and a checkout for each."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tenacity import stop_after_delay, wait_fixed

from paynexus_async import AsyncPayNexus, Payment
from paynexus_async.sandbox import PUBLIC_KEY, SECRET_KEY, Ledger, SandboxServer

from .chromium import chromium, executable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page

LOOK_SECONDS = 0.1
PATIENCE_SECONDS = 30


class Clock:
    """The customer's minute passes when the test says so."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="package")  # playwright's loop runs as long: no other test may meet it
def browser() -> Iterator[Browser]:
    pytest.importorskip("playwright", reason="playwright is not installed: the extra `test` has it")
    if executable() is None:
        pytest.skip("no Chromium on this machine: Debian's package is `chromium`")
    with chromium() as browser:
        yield browser


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(clock: Clock) -> Ledger:
    return Ledger(clock=clock, plan="basic")


@pytest.fixture
def server(ledger: Ledger) -> Iterator[SandboxServer]:
    with SandboxServer(ledger) as server:
        yield server


@pytest.fixture
def open_page(browser: Browser, server: SandboxServer) -> Iterator[Callable[..., Page]]:
    """Open the page, as many times as the test likes; its scripts must raise nothing."""
    contexts, errors = [], []

    def open_page(**options: Any) -> Page:
        context = browser.new_context(**{"reduced_motion": "reduce", **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_SECONDS * 1000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "request",
            lambda request: (
                errors.append(request.url) if not request.url.startswith(server.page_url) else None
            ),
        )
        page.goto(server.page_url)
        page.locator("#link[data-state=live]").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture
def page(open_page: Callable[..., Page]) -> Page:
    return open_page()


@pytest.fixture
def checkout(server: SandboxServer) -> Iterator[Callable[..., Future[Payment]]]:
    """A till that pays by the client, on a thread and an event loop of its own."""

    async def pay(amount: int, phone: str, description: str) -> Payment:
        async with AsyncPayNexus(SECRET_KEY, PUBLIC_KEY, base_url=server.url) as paynexus:
            payment = await paynexus.initiate_payment(amount, phone, description)
            return await paynexus.wait_for_completion(
                payment, wait=wait_fixed(LOOK_SECONDS), stop=stop_after_delay(PATIENCE_SECONDS)
            )

    with ThreadPoolExecutor() as till:

        def begin(
            amount: int = 100, phone: str = "0746990866", description: str = "Order #12345"
        ) -> Future[Payment]:
            return till.submit(anyio.run, pay, amount, phone, description)

        yield begin
