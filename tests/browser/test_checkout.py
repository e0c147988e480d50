"""The example shops, each under its own server: a customer, a phone in a second tab, real hands."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from paynexus_async.sandbox import PIN, Fault, Ledger, SandboxServer

from . import screenshots
from .__main__ import DOCS
from .conftest import PATIENCE_SECONDS
from .shops import DURABLE_SHOPS, SHOPS, Shop, running, serving

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


@pytest.fixture(params=DURABLE_SHOPS)
def durable(
    request: pytest.FixtureRequest,
    server: SandboxServer,
    windows: list[BrowserContext],
    tmp_path: Path,
) -> Iterator[Shop]:
    database = f"sqlite:///{tmp_path}/shop.sqlite"
    secret = "another secret, as long as it must be"
    with running(
        DURABLE_SHOPS[request.param],
        server,
        SHOP_DATABASE=database,
        PAYNEXUS_DURABLE_SECRET=secret,
    ) as shop:
        yield shop


@pytest.fixture
def customer(browser: Browser, shop: str, windows: list[BrowserContext]) -> Iterator[Page]:
    with visiting(browser, shop, windows) as page:
        yield page


@pytest.fixture
def regular(browser: Browser, durable: Shop, windows: list[BrowserContext]) -> Iterator[Page]:
    """A customer of a shop that loses nothing."""
    with visiting(browser, durable.url, windows) as page:
        yield page


@contextmanager
def visiting(browser: Browser, shop: str, windows: list[BrowserContext]) -> Iterator[Page]:
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


def test_a_second_tab_follows_the_first_ones_payment(customer: Page, phones: Page, ledger, expect):
    """However the phone is spelled there: one prompt, and both tabs tell its end."""
    buy(customer)
    expect(told(customer, "Check your phone")).to_be_visible()
    second = customer.context.new_page()
    second.goto(customer.url)
    second.get_by_label("Phone").fill("+254746990866")
    second.get_by_role("button", name="Pay KES 100").click()
    expect(told(second, "Check your phone")).to_be_visible()
    expect(second.locator("#order")).to_be_hidden()
    phone(phones).get_by_label("M-PESA PIN").fill(PIN)
    phones.keyboard.press("Enter")
    for tab in (customer, second):
        expect(told(tab, "Thank you, you have paid")).to_be_visible()
    assert len(ledger.prompts) == 1


def test_a_stranger_with_the_same_phone_follows_nothing(
    customer: Page, phones: Page, browser: Browser, windows: list[BrowserContext], expect
):
    """He is told what the owner of the phone is to do, and gets no token."""
    buy(customer)
    expect(told(customer, "Check your phone")).to_be_visible()
    windows.append(browser.new_context(reduced_motion="reduce"))
    stranger = windows[-1].new_page()
    stranger.goto(customer.url)
    buy(stranger)
    expect(stranger.get_by_role("alert")).to_contain_text("or wait until it has ended")
    phone(phones).get_by_label("M-PESA PIN").fill(PIN)
    phones.keyboard.press("Enter")
    expect(told(customer, "Thank you, you have paid")).to_be_visible()
    expect(stranger.locator("#payment")).to_be_hidden()
    kept = stranger.evaluate("Object.keys(sessionStorage)")
    assert kept == ["paynexus-id"], "its own order's, and no token"


HURRY = """
window.pauses = [];
const later = window.setTimeout;
window.setTimeout = (work, milliseconds) => later(work, (pauses.push(milliseconds), 0));
"""
"""The page does not wait, and tells how long it would have."""


def test_a_shop_that_stumbles_is_asked_again(customer: Page, phones: Page, expect):
    """Later each time, at most a minute, and never offering the order anew; then it goes on."""
    answers = iter([503, None, 500, 502, None, 504, 429, 503, 503, 503])

    def stumble(route: Any) -> None:
        status = next(answers, 200)
        if status is None:
            route.abort()
        elif status == 200:
            route.continue_()
        else:
            route.fulfill(status=status, body="")

    buy(customer)
    expect(told(customer, "Check your phone")).to_be_visible()
    customer.add_init_script(HURRY)
    # Blank until it is known would be no better than an order that is offered anew.
    customer.route("**/events/*", lambda route: route.fulfill(status=503))
    customer.reload()
    expect(told(customer, "We do not know yet")).to_be_visible()
    shop = customer.url
    customer.goto("about:blank")
    customer.route("**/events/*", stumble)
    customer.goto(shop)
    expect(told(customer, "Check your phone")).to_be_visible()
    expect(customer.locator("#link")).to_be_empty()
    pauses = customer.evaluate("pauses")
    assert len(pauses) == 10
    for number, milliseconds in enumerate(pauses):
        longest = min(3_000 * 2**number, 60_000)
        assert longest / 2 <= milliseconds <= longest
    phone(phones).get_by_label("M-PESA PIN").fill(PIN)
    phones.keyboard.press("Enter")
    expect(told(customer, "Thank you, you have paid")).to_be_visible()


def test_a_stream_that_breaks_goes_on_where_it_was(customer: Page, phones: Page, expect):
    """`Last-Event-ID` tells it; a heartbeat makes the next pause a short one again."""
    seen: list[str | None] = []
    data = '{"state": "processing", "title": "Half", "text": "of it", "is_over": false}'
    event = f"id: processing\r\nevent: payment\r\ndata: {data}\r\n\r\n: ping\n\ndata: {{"

    def cut(route: Any) -> None:
        seen.append(route.request.headers.get("last-event-id"))
        if len(seen) > 3:
            route.continue_()
        else:
            route.fulfill(status=200, body=event, headers={"Content-Type": "text/event-stream"})

    buy(customer)
    expect(told(customer, "Check your phone")).to_be_visible()
    customer.add_init_script(HURRY)
    customer.route("**/events/*", cut)
    customer.reload()
    expect(told(customer, "Half")).to_be_visible()
    phone(phones).get_by_label("M-PESA PIN").fill(PIN)
    phones.keyboard.press("Enter")
    expect(told(customer, "Thank you, you have paid")).to_be_visible()
    assert seen == [None, "processing", "processing", "processing"]
    assert all(milliseconds <= 3_000 for milliseconds in customer.evaluate("pauses"))


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_stream_that_is_refused_is_over(customer: Page, phones: Page, expect, status):
    """Asked for once, and told as not known."""
    asked: list[int] = []

    def refuse(route: Any) -> None:
        asked.append(status)
        route.fulfill(status=status, body="")

    buy(customer)
    expect(told(customer, "Check your phone")).to_be_visible()
    customer.add_init_script(HURRY)
    customer.route("**/events/*", refuse)
    customer.reload()
    expect(told(customer, "We do not know how it ended")).to_be_visible()
    expect(customer.get_by_text("look for M-PESA's message before you pay again")).to_be_visible()
    assert (asked, customer.evaluate("pauses")) == ([status], [])


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


# --- Nothing lost


def pay(phones: Page) -> None:
    phone(phones).get_by_label("M-PESA PIN").fill(PIN)
    phones.keyboard.press("Enter")


def lose_the_answer(customer: Page) -> None:
    """The shop has the order, and the page does not hear of it."""

    def lose(route: Any) -> None:
        route.fetch()
        route.abort()

    customer.route("**/pay", lose, times=1)


def test_paid_for_good(regular: Page, phones: Page, durable: Shop, ledger: Ledger, expect):
    """The page sees what it always does; the order is handed over once."""
    buy(regular)
    expect(told(regular, "Check your phone")).to_be_visible()
    pay(phones)
    expect(told(regular, "Thank you, you have paid")).to_be_visible()
    expect(regular.get_by_text(ledger.records[0].receipt)).to_be_visible()
    durable.stop()
    assert handed_over(durable) == [ledger.records[0].receipt]
    durable.start()


def handed_over(shop: Shop) -> list[str]:
    """The receipts of the orders that the shop's handler was told to be paid."""
    return re.findall(r"^paid: order-[a-z]{10} (\w+)$", "".join(shop.said), re.MULTILINE)


def test_a_shop_that_is_killed_goes_on_with_its_orders(
    regular: Page, phones: Page, durable: Shop, ledger: Ledger, expect
):
    """Killed while the prompt is on the phone: the page comes again by itself, to the end."""
    buy(regular)
    expect(told(regular, "Check your phone")).to_be_visible()
    durable.kill()
    expect(regular.get_by_text("Reconnecting …")).to_be_visible()
    durable.start()
    pay(phones)
    expect(told(regular, "Thank you, you have paid")).to_be_visible()
    durable.stop()
    assert len(ledger.prompts) == 1
    assert handed_over(durable) == [ledger.records[0].receipt]
    durable.start()


def test_one_order_is_one_prompt(regular: Page, phones: Page, ledger: Ledger, expect):
    """Though the page is reloaded before it has an answer; another attempt is one more."""
    for attempt in (1, 2):
        lose_the_answer(regular)
        buy(regular)
        expect(told(regular, "We cannot tell whether you were asked to pay")).to_be_visible()
        regular.reload()
        buy(regular)
        expect(told(regular, "Check your phone")).to_be_visible()
        assert len(ledger.prompts) == attempt
        phone(phones).get_by_role("button", name="Cancel").click()
        expect(told(regular, "You declined the payment")).to_be_visible()
        regular.get_by_role("button", name="Try again").click()
    first, second = (prompt.description for prompt in ledger.prompts)
    assert second == f"{first} (2)"


def test_an_order_that_was_refused_is_mended(regular: Page, phones: Page, ledger: Ledger, expect):
    """With another phone, it is another attempt: nothing was sent before."""
    ledger.faults.add(Fault("422-before", call="initiate", times=1))
    buy(regular)
    expect(regular.get_by_role("alert")).to_contain_text("refused the phone number")
    regular.get_by_label("Phone").fill("0711 222 333")
    regular.get_by_role("button", name="Pay KES 100").click()
    expect(told(regular, "Check your phone")).to_be_visible()
    assert [prompt.phone[-9:] for prompt in ledger.prompts] == ["711222333"]


@pytest.mark.parametrize("name", screenshots.CHECKOUTS)
def test_the_pictures_of_the_readme_can_be_taken_anew(browser, tmp_path: Path, name):
    """`python -m tests.browser` takes them; those that are kept are small, and of the same size."""
    screenshots.take_checkout(browser, name, tmp_path)
    taken, kept = (folder / f"checkout-{name}.png" for folder in (tmp_path, DOCS))
    assert kept.stat().st_size < IMAGE_BYTES_MAX
    assert taken.read_bytes()[:24] == kept.read_bytes()[:24]  # a PNG, its width and height
