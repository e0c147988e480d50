"""The example shops, each under its own server: a customer, a phone in a second tab, real hands."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from paynexus_async.sandbox import PIN, Fault, Ledger, SandboxServer

from . import screenshots
from .__main__ import DOCS
from .conftest import PATIENCE_SECONDS
from .shops import SHOPS, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, BrowserContext, Page

NUMBER = "0746 990 866"
IMAGE_BYTES_MAX = 150_000


class Clock:
    """The time, and what a test adds to it."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def windows() -> Iterator[list[BrowserContext]]:
    """The customer's: they are open while the shop stops, and their streams must not keep it."""
    windows: list[BrowserContext] = []
    yield windows
    for window in windows:
        window.close()


@pytest.fixture(params=SHOPS)
def shop(
    request: pytest.FixtureRequest, server: SandboxServer, windows: list[BrowserContext]
) -> Iterator[str]:
    with serving(SHOPS[request.param], server) as url:
        yield url


@pytest.fixture
def customer(browser: Browser, shop: str, windows: list[BrowserContext]) -> Iterator[Page]:
    """The shop's page; it fetches from nowhere else, and its scripts raise nothing."""
    errors: list[str] = []
    windows.append(browser.new_context(reduced_motion="reduce"))
    page = windows[-1].new_page()
    page.set_default_timeout(PATIENCE_SECONDS * 1000)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "request",
        lambda request: None if request.url.startswith(shop) else errors.append(request.url),
    )
    page.goto(shop)
    yield page
    assert errors == []


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


def test_a_reload_goes_on_with_the_payment(customer: Page, phones: Page, ledger: Ledger, expect):
    """Leaving a page cuts its stream: that must not offer the order anew while a prompt is open."""
    buy(customer)
    expect(told(customer, "Check your phone")).to_be_visible()
    for _ in range(2):
        customer.reload()
        expect(told(customer, "Check your phone")).to_be_visible()
        expect(customer.locator("#order")).to_be_hidden()
    phone(phones).get_by_label("M-PESA PIN").fill(PIN)
    phones.keyboard.press("Enter")
    expect(told(customer, "Thank you, you have paid")).to_be_visible()
    assert len(ledger.prompts) == 1


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
    for _ in range(2):
        customer.reload()
        expect(told(customer, "We do not know how it ended")).to_be_visible()
    customer.get_by_role("button", name="New payment").click()
    expect(customer.get_by_label("Phone")).to_be_focused()


@pytest.mark.parametrize("name", screenshots.CHECKOUTS)
def test_the_pictures_of_the_readme_can_be_taken_anew(browser, tmp_path: Path, name):
    """`python -m tests.browser` takes them; those that are kept are small, and of the same size."""
    screenshots.take_checkout(browser, name, tmp_path)
    taken, kept = (folder / f"checkout-{name}.png" for folder in (tmp_path, DOCS))
    assert kept.stat().st_size < IMAGE_BYTES_MAX
    assert taken.read_bytes()[:24] == kept.read_bytes()[:24]  # a PNG, its width and height
