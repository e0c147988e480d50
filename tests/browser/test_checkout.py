"""The example shops, each under its own server: a customer, a phone in a second tab, real hands."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from paynexus_async.sandbox import PIN, PUBLIC_KEY, SECRET_KEY, Fault, Ledger, SandboxServer

from .conftest import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[2]
SHOPS = {
    "aiohttp": ["aiohttp.web", "-H", "127.0.0.1", "examples.checkout_aiohttp.app:create_app", "-P"],
    "fastapi": ["uvicorn", "examples.checkout_fastapi.app:app", "--log-level=warning", "--port"],
}
"""By name: what `python -m` runs, before the port."""
STOPS_WITHIN_SECONDS = 5
NUMBER = "0746 990 866"


class Clock:
    """The time, and what a test adds to it."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Clock:  # type: ignore[override]
    return Clock()


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
    ends_at = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < ends_at:
        assert shop.poll() is None, shop.communicate()[1]
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("the shop does not answer")


@pytest.fixture(params=SHOPS)
def shop(request: pytest.FixtureRequest, server: SandboxServer) -> Iterator[str]:
    with serving(SHOPS[request.param], server) as url:
        yield url


@pytest.fixture
def customer(browser: Browser, shop: str) -> Iterator[Page]:
    """The shop's page; it fetches from nowhere else, and its scripts raise nothing.

    It is open while the shop stops, so that a stream that is left open does not keep it.
    """
    page = _open(browser, shop)
    yield page
    assert page.errors == []  # type: ignore[attr-defined]


def _open(browser: Browser, url: str, **options: Any) -> Page:
    context = browser.new_context(**{"reduced_motion": "reduce", **options})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_SECONDS * 1000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "request",
        lambda request: None if request.url.startswith(url) else errors.append(request.url),
    )
    page.errors = errors  # type: ignore[attr-defined]
    page.goto(url)
    return page


@pytest.fixture
def expect() -> Any:
    playwright = pytest.importorskip("playwright.sync_api")
    playwright.expect.set_options(timeout=PATIENCE_SECONDS * 1000)
    return playwright.expect


@pytest.fixture
def phones(open_page: Callable[..., Page]) -> Page:
    """The sandbox's phones, in a second tab: a person holds them now."""
    return open_page()


def buy(customer: Page, amount: int = 100) -> None:
    customer.get_by_label("Phone").fill(NUMBER)
    customer.get_by_label("Amount in KES").fill(str(amount))
    customer.get_by_role("button", name=f"Pay KES {amount}").click()


def phone(phones: Page) -> Any:
    return phones.get_by_role("article", name=f"Phone {NUMBER}")


def told(customer: Page, headline: str) -> Any:
    return customer.get_by_role("heading", name=headline)


def test_paid(customer: Page, phones: Page, ledger: Ledger, expect):
    """What to do, and the receipt of the ledger at the end, after a reload too."""
    expect(customer.get_by_label("Phone")).to_be_focused()
    buy(customer)
    expect(told(customer, "Check your phone")).to_be_focused()
    expect(customer.get_by_text("2547*****866")).to_be_visible()
    phone(phones).get_by_label("M-PESA PIN").fill(PIN)
    phones.keyboard.press("Enter")
    expect(told(customer, "Thank you, you have paid")).to_be_visible()
    expect(customer.get_by_text(ledger.records[0].receipt)).to_be_visible()
    assert len(ledger.prompts) == 1
    customer.reload()
    expect(customer.get_by_text(ledger.records[0].receipt)).to_be_visible()
    assert NUMBER.replace(" ", "")[1:] not in customer.content()
    customer.get_by_role("button", name="New payment").click()
    expect(customer.get_by_label("Phone")).to_be_focused()


def test_cancelled(customer: Page, phones: Page, ledger: Ledger, expect):
    """And offered again, which it can be: another prompt goes out."""
    buy(customer)
    phone(phones).get_by_role("button", name="Cancel").click()
    expect(told(customer, "You declined the payment")).to_be_visible()
    customer.get_by_role("button", name="Try again").click()
    buy(customer)
    expect(told(customer, "Check your phone")).to_be_visible()
    assert len(ledger.prompts) == 2


def test_expired(customer: Page, phones: Page, clock, expect):
    """With the word that a late payment can still arrive."""
    buy(customer)
    expect(phone(phones).get_by_label("M-PESA PIN")).to_be_visible()
    clock.ahead += 60
    expect(told(customer, "The request ran out")).to_be_visible()
    expect(customer.get_by_text("a late payment can still arrive")).to_be_visible()


def test_the_answer_is_lost(customer: Page, phones: Page, ledger: Ledger, expect):
    """Told as not known, and looked for when the customer asks; paid once, and prompted once."""
    ledger.faults.add(Fault("reset-after", call="initiate", times=1))
    buy(customer)
    expect(told(customer, "We cannot tell yet whether you were asked to pay")).to_be_visible()
    expect(customer.get_by_text("You are not asked to pay twice")).to_be_visible()
    assert not re.search("fail|try again", customer.inner_text("main"), re.IGNORECASE)
    customer.get_by_role("button", name="Look for my payment").click()
    expect(told(customer, "Check your phone")).to_be_visible()
    phone(phones).get_by_label("M-PESA PIN").fill(PIN)
    phones.keyboard.press("Enter")
    expect(told(customer, "Thank you, you have paid")).to_be_visible()
    assert len(ledger.prompts) == 1


def test_what_was_refused_was_not_sent(customer: Page, phones: Page, ledger: Ledger, expect):
    """The customer mends it: a number that is none, a second request beside an open one."""
    customer.get_by_label("Phone").fill("12")
    customer.get_by_role("button", name="Pay").click()
    expect(customer.get_by_role("alert")).to_contain_text("not a Kenyan mobile number")
    buy(customer)
    expect(told(customer, "Check your phone")).to_be_visible()
    customer.evaluate("sessionStorage.clear()")
    customer.reload()
    buy(customer)
    expect(customer.get_by_role("alert")).to_contain_text("already be on that phone")
    assert len(ledger.prompts) == 1


def test_a_shop_that_is_gone_is_no_failure(customer: Page, phones: Page, expect):
    """The order may have arrived: the page does not say that it has failed."""
    customer.route("**/pay", lambda route: route.abort())
    buy(customer)
    expect(told(customer, "We cannot tell whether you were asked to pay")).to_be_visible()
    assert not re.search("fail|try again", customer.inner_text("main"), re.IGNORECASE)


def test_a_token_that_is_too_old_follows_nothing(customer: Page, phones: Page, expect):
    """And says what to look at before anybody pays again."""
    customer.evaluate("sessionStorage.setItem('paynexus-token', 'old')")
    customer.reload()
    expect(told(customer, "We do not know how it ended")).to_be_visible()
    customer.get_by_role("button", name="New payment").click()
    expect(customer.get_by_label("Phone")).to_be_focused()
