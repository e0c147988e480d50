"""The whole way: the client's checkout, the prompt on the page, a person's hands in a browser."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING, Any

import pytest

from paynexus_async import PaymentStatus
from paynexus_async.sandbox import BALANCE, FAULTS, PIN, PUBLIC_KEY, Fault, Ledger, Request

from . import screenshots
from .__main__ import DOCS
from .conftest import PATIENCE_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Locator, Page

NUMBER = "0746 990 866"
IMAGE_BYTES_MAX = 150_000


@pytest.fixture
def expect() -> Any:
    playwright = pytest.importorskip("playwright.sync_api")
    playwright.expect.set_options(timeout=PATIENCE_SECONDS * 1000)
    return playwright.expect


def phone(page: Page, number: str = NUMBER) -> Locator:
    return page.get_by_role("article", name=f"Phone {number}")


def pin(page: Page, number: str = NUMBER) -> Locator:
    return phone(page, number).get_by_label("M-PESA PIN")


def waiting(ledger: Ledger, number: str = NUMBER) -> bool:
    return bool(ledger.open_prompts(number))


# --- A person at the page


def test_a_pin_that_is_typed_pays(page: Page, ledger, clock, checkout, expect):
    """By keyboard alone: the field has the focus, Enter sends. The money has moved, and is seen to."""
    payment = checkout()
    expect(pin(page)).to_be_focused()
    dialog = page.get_by_role("dialog", name="Pay Sandbox Shop")
    for words in ("KSh 100", "Order #12345", "60 s left"):
        expect(dialog.get_by_text(words, exact=True)).to_be_visible()
    expect(phone(page).locator(".amount")).to_have_text("KSh 10,000")
    page.keyboard.type(PIN)
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    expect(phone(page)).to_contain_text("is being processed")
    clock.now += 2
    expect(phone(page).locator(".amount")).to_have_text("KSh 9,900")
    ended = payment.result(PATIENCE_SECONDS)
    assert ended.status is PaymentStatus.COMPLETED
    receipt = ledger.records[0].receipt
    assert ended.receipt == receipt
    confirmed = f"{receipt} Confirmed. Ksh100.00 paid to Sandbox Shop for account Order #12345 on "
    expect(phone(page)).to_contain_text(confirmed)
    expect(phone(page)).to_contain_text("New M-PESA balance is Ksh9,900.00.")
    expect(page.get_by_role("status").filter(has_text=confirmed)).to_have_count(1)
    assert ledger.balance(NUMBER) == BALANCE - 100


def test_the_keypad_pays_too(page: Page, ledger, clock, checkout, expect):
    """By mouse or finger; a wrong key is taken back."""
    payment = checkout()
    for key in ("1", "2", "9", "Delete", "3", "4"):
        phone(page).get_by_role("button", name=key, exact=True).click()
    expect(pin(page)).to_have_value(PIN)
    phone(page).get_by_role("button", name="Send").click()
    expect(phone(page)).to_contain_text("is being processed")
    clock.now += 2
    assert payment.result(PATIENCE_SECONDS).succeeded


@pytest.mark.parametrize("way", ["Escape", "Cancel"])
def test_cancel_cancels(page: Page, ledger, checkout, expect, way):
    """By its button or by Escape; nothing is paid."""
    payment = checkout()
    expect(pin(page)).to_be_focused()
    if way == "Escape":
        page.keyboard.press("Escape")
    else:
        phone(page).get_by_role("button", name="Cancel").click()
    ended = payment.result(PATIENCE_SECONDS)
    assert ended.status is PaymentStatus.CANCELLED
    expect(phone(page)).to_contain_text("You cancelled the request to pay Ksh100.00")
    expect(phone(page).locator(".amount")).to_have_text("KSh 10,000")


def test_a_wrong_pin_fails(page: Page, clock, checkout, expect):
    """The client hears why, and so does the customer. Too short a PIN is not sent."""
    payment = checkout()
    pin(page).fill("12")
    page.keyboard.press("Enter")
    expect(phone(page)).to_contain_text("A PIN has four digits.")
    pin(page).fill("4321")
    page.keyboard.press("Enter")
    expect(phone(page)).to_contain_text("is being processed")
    clock.now += 1
    ended = payment.result(PATIENCE_SECONDS)
    assert (ended.status, ended.failure_reason) == (PaymentStatus.FAILED, "Wrong PIN entered")
    expect(phone(page)).to_contain_text("Wrong PIN entered. The request to pay Ksh100.00")
    expect(phone(page).locator(".amount")).to_have_text("KSh 10,000")


def test_too_little_money_fails(page: Page, clock, checkout, expect):
    """The balance is set on the page."""
    page.get_by_text("Add a phone, or set its balance").click()
    form = page.locator("#money")
    form.get_by_label("Phone").fill(NUMBER)
    form.get_by_label("Balance, KES").fill("99")
    form.get_by_role("button", name="Set balance").click()
    expect(phone(page).locator(".amount")).to_have_text("KSh 99")
    payment = checkout()
    pin(page).fill(PIN)
    page.keyboard.press("Enter")
    expect(phone(page)).to_contain_text("is being processed")
    clock.now += 1
    assert payment.result(PATIENCE_SECONDS).failure_reason == "Insufficient balance"


def test_silence_expires(page: Page, clock, checkout, expect):
    """The prompt goes by itself, and the page says so."""
    payment = checkout()
    expect(pin(page)).to_be_focused()
    clock.now += 51
    expect(phone(page)).to_contain_text("9 s left")
    clock.now += 9
    assert payment.result(PATIENCE_SECONDS).status is PaymentStatus.EXPIRED
    expect(pin(page)).to_have_count(0)
    expect(phone(page)).to_contain_text("ran out: nobody answered")


# --- What else is on it


def test_a_stranger_without_code_sends_a_prompt_from_the_page(page: Page, ledger, clock, expect):
    """The start says what to do; afterwards the focus is back where it was."""
    expect(page.get_by_text("No phone yet")).to_be_visible()
    button = page.get_by_role("button", name="Send prompt")
    button.press("Enter")
    expect(pin(page)).to_be_focused()
    expect(page.get_by_text("No phone yet")).to_be_hidden()
    page.keyboard.type(PIN)
    page.keyboard.press("Enter")
    expect(button).to_be_focused()
    clock.now += 2
    expect(phone(page).locator(".amount")).to_have_text("KSh 9,900")
    page.locator("#send").get_by_label("Amount, KES").fill("5")
    page.locator("#send").get_by_label("Phone").fill("12345678")
    button.click()
    expect(page.locator("#send output")).to_have_text(
        "The phone must be a valid Kenyan mobile number."
    )


def test_a_description_is_text_and_nothing_else(page: Page, checkout, expect):
    """Whoever may choose it cannot put markup or a script into the page."""
    hostile = '<img src=x onerror="document.title=1"><b>Rent</b>'
    payment = checkout(description=hostile)
    expect(phone(page).get_by_text(hostile, exact=True)).to_be_visible()
    expect(phone(page).locator("img, b:text('Rent')")).to_have_count(0)
    page.keyboard.press("Escape")
    payment.result(PATIENCE_SECONDS)
    assert page.title() == "PayNexus sandbox"


def test_a_customer_of_a_scenario_has_no_keypad(page: Page, ledger, clock, expect):
    """He is marked as what he is; the next payment is scripted on the page."""
    page.get_by_text("Script the next payment").click()
    page.get_by_label("It plays").select_option("wrong-pin")
    page.get_by_role("button", name="Script it").click()
    expect(page.locator("#script output")).to_have_text("The next payment plays wrong-pin.")
    page.get_by_role("button", name="Send prompt").click()
    expect(phone(page)).to_contain_text("Played by a scenario: wrong-pin")
    expect(phone(page).get_by_role("textbox")).to_have_count(0)
    expect(phone(page).locator(".keypad, .buttons")).to_have_count(0)
    clock.now += 8
    expect(phone(page)).to_contain_text("Wrong PIN entered")
    expect(phone(page)).to_contain_text("played by scenario wrong-pin")


def test_two_phones_are_answered_in_turn(page: Page, ledger, clock, checkout, expect):
    """A second prompt takes no PIN away from whoever is typing one; then the focus goes to it."""
    first = checkout()
    expect(pin(page)).to_be_focused()
    page.keyboard.type("12")
    second = checkout(phone="0711222333")
    expect(pin(page, "0711 222 333")).to_be_visible()
    page.keyboard.type("34")
    page.keyboard.press("Enter")
    expect(pin(page, "0711 222 333")).to_be_focused()
    page.keyboard.press("Escape")
    assert second.result(PATIENCE_SECONDS).status is PaymentStatus.CANCELLED
    clock.now += 2
    assert first.result(PATIENCE_SECONDS).succeeded


def test_the_log_tells_each_call(page: Page, checkout, clock, expect):
    """Method, path, kind of key, answer, and what is left of the quota."""
    payment = checkout()
    row = page.get_by_role("row").filter(has_text="/mpesa/payment/initiate")
    cells = row.get_by_role("cell")
    expect(cells.nth(1)).to_have_text("POST /mpesa/payment/initiate")
    expect(cells.nth(2)).to_have_text("secret")
    expect(cells.nth(3)).to_have_text("200")
    expect(cells.nth(4)).to_have_text("59")
    expect(page.get_by_role("row").filter(has_text=re.compile("GET /payments/PNX")).first).to_contain_text("public")  # fmt: skip
    page.keyboard.press("Escape")
    payment.result(PATIENCE_SECONDS)


def test_two_pages_show_the_same_and_one_that_is_reloaded_misses_nothing(
    open_page, ledger, clock, checkout, expect
):
    """Whoever answers, all see it."""
    one, other = open_page(), open_page()
    payment = checkout()
    expect(pin(one)).to_be_focused()
    expect(pin(other)).to_be_focused()
    other.reload()
    pin(other).fill(PIN)
    other.keyboard.press("Enter")
    expect(pin(one)).to_have_count(0)
    clock.now += 2
    assert payment.result(PATIENCE_SECONDS).succeeded
    for page in (one, other):
        expect(phone(page).locator(".amount")).to_have_text("KSh 9,900")


def test_the_page_asks_for_nothing_and_is_told_everything(page: Page, ledger, expect):
    """Faults and deliveries too come by its one stream; whoever stands at a row stays there."""
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    page.get_by_text("Order a fault").click()
    ledger.faults.add(Fault("502-after", call="list", times=2))  # from a test, beside the page
    rule = page.get_by_role("listitem").filter(has_text="502-after · list · 2 times")
    rule.get_by_role("button").focus()
    ledger.faults.strike(Request("GET", "/payments"))
    expect(rule).to_contain_text("struck 1")
    expect(rule.get_by_role("button")).to_be_focused()
    ledger.faults.clear()
    expect(rule).to_have_count(0)
    assert [url for url in asked if "/sandbox/" in url and "/sandbox/phone/" not in url] == [
        next(url for url in asked if url.endswith("/sandbox/events"))
    ]


def test_a_fault_is_ordered_meets_its_call_and_is_taken_back(page: Page, ledger, expect):
    """Each kind explains itself; the log tells what the caller was told, and what is true."""
    page.get_by_text("Order a fault").click()
    form = page.locator("#fault")
    form.get_by_label("Fault").select_option("502-after")
    expect(form.locator("#happens")).to_have_text(FAULTS["502-after"].happens)
    form.get_by_label("Calls").select_option("initiate")
    form.get_by_label("Times").fill("2")
    page.get_by_role("button", name="Order it").click()
    rule = page.get_by_role("listitem").filter(has_text="502-after · initiate · 2 times")
    expect(rule).to_be_visible()
    page.get_by_role("button", name="Send prompt").click()
    row = page.get_by_role("row").filter(has_text="502-after: in truth 200")
    expect(row.get_by_role("cell").nth(3)).to_have_text("502")
    expect(pin(page)).to_be_focused()
    expect(rule).to_contain_text("struck 1")
    rule.get_by_role("button").click()
    expect(rule).to_have_count(0)
    assert ledger.faults.rules == ()


def test_a_webhook_stands_in_the_log_with_its_answer_and_is_sent_again(
    page: Page, ledger, checkout, expect
):
    """Whoever was down when it came asks for it once more."""
    with socket.create_server(("127.0.0.1", 0)) as shop:
        url = f"http://127.0.0.1:{shop.getsockname()[1]}/hook"
    ledger.webhooks.register(url)  # where nobody listens any more
    paid = checkout()
    row = page.get_by_role("row").filter(has_text="payment.initiated")
    expect(row).to_contain_text(url)
    expect(row.get_by_role("cell").nth(3)).to_have_text("none")
    again = row.get_by_role("button", name=f"Send payment.initiated to {url} again")
    again.focus()
    ledger.handle(Request("GET", "/payments", PUBLIC_KEY))
    expect(page.get_by_role("row").filter(has_text="GET /payments")).not_to_have_count(0)
    expect(again).to_be_focused()  # a row that comes takes it from nobody
    again.click()
    expect(page.get_by_role("row").filter(has_text="payment.initiated")).to_have_count(2)
    phone(page).get_by_role("button", name="Cancel").click()
    assert paid.result().status == "cancelled"


def test_a_page_says_that_the_sandbox_has_gone_and_comes_back_by_itself(browser, ledger, expect):
    """Nobody has to reload it."""
    from paynexus_async.sandbox import SandboxServer

    with SandboxServer(ledger) as server:
        port = int(server.page_url.rstrip("/").rpartition(":")[2])
        context = browser.new_context()
        page = context.new_page()
        page.goto(server.page_url)
        expect(page.locator("#link")).to_have_text("live")
    expect(page.locator("#link")).to_contain_text("is the sandbox running?")
    ledger.set_balance(NUMBER, 7)
    with SandboxServer(ledger, port=port):
        expect(page.locator("#link")).to_have_text("live")
        expect(phone(page).locator(".amount")).to_have_text("KSh 7")
        context.close()


@pytest.mark.parametrize("width", [375, 1280])
def test_nothing_is_wider_than_the_screen(open_page, ledger, checkout, expect, width):
    """One column on a narrow one."""
    page = open_page(viewport={"width": width, "height": 812})
    payment = checkout(description="A" * 80)
    expect(pin(page)).to_be_focused()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    left = {page.locator(s).bounding_box()["x"] for s in ("#phones", "#send")}
    assert (len(left) == 1) == (width == 375)
    page.keyboard.press("Escape")
    payment.result(PATIENCE_SECONDS)


@pytest.mark.parametrize("name", screenshots.SCENES)
def test_the_pictures_of_the_readme_can_be_taken_anew(browser, tmp_path: Path, name):
    """`python -m tests.browser` takes them; those that are kept are small, and of the same size."""
    screenshots.take(browser, name, tmp_path)
    taken, kept = (folder / f"sandbox-{name}.png" for folder in (tmp_path, DOCS))
    assert kept.stat().st_size < IMAGE_BYTES_MAX
    assert taken.read_bytes()[:24] == kept.read_bytes()[:24]  # a PNG, its width and height
