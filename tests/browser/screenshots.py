"""The pictures of the sandbox's page, and of the checkout, that the README shows."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Final

from paynexus_async.sandbox import (
    PIN,
    PUBLIC_KEY,
    SECRET_KEY,
    Fault,
    Ledger,
    Request,
    SandboxServer,
)

from .shops import SHOPS, serving

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, ColorScheme, Page

NOON: Final = 1_769_498_238.0

SCENES: Final[dict[str, tuple[ColorScheme, int, int]]] = {
    "light": ("light", 1280, 770),
    "dark": ("dark", 1280, 770),
    "narrow": ("light", 375, 812),
}
"""By name: the colours, and the width and height of the window."""

CHECKOUTS: Final[dict[str, tuple[ColorScheme, int, int, str]]] = {
    "light": ("light", 760, 640, "completed"),
    "dark": ("dark", 760, 640, "completed"),
    "narrow": ("light", 375, 680, "unknown"),
}
"""By name: the colours, the width and height of the window, and what it shows."""


class _Shop:
    """Some payments, on a clock that stands where the picture needs it."""

    def __init__(self) -> None:
        self.now = NOON
        self.ledger = Ledger(clock=lambda: self.now, plan="trial", seed=5)

    def call(self, method: str, path: str, key: str = PUBLIC_KEY, **body: object) -> str:
        reply = self.ledger.handle(Request(method, path, key, json.dumps(body).encode()))
        return str(reply.reference)

    def prompt(self, amount: int, phone: str, description: str) -> str:
        return self.call(
            "POST",
            "/mpesa/payment/initiate",
            SECRET_KEY,
            amount=amount,
            phone=phone,
            description=description,
        )

    def paid(self, amount: int, phone: str, description: str) -> None:
        reference = self.prompt(amount, phone, description)
        self.now += 9
        self.ledger.enter_pin(reference, PIN)
        self.call("GET", f"/payments/{reference}")
        self.now += 4
        self.call("GET", f"/payments/{reference}")


def take(browser: Browser, name: str, folder: Path) -> None:
    """Take one picture.

    Args:
        browser: whose page it is.
        name: one of `SCENES`.
        folder: where `sandbox-NAME.png` is written.
    """
    colours, width, height = SCENES[name]
    shop = _Shop()
    with SandboxServer(shop.ledger) as server:
        context = browser.new_context(
            color_scheme=colours,
            viewport={"width": width, "height": height},
            reduced_motion="reduce",
            timezone_id="Africa/Nairobi",
        )
        page = context.new_page()
        page.goto(server.page_url)
        page.locator("#link[data-state=live]").wait_for()
        _play(page, shop, narrow=width < 500)
        page.screenshot(path=folder / f"sandbox-{name}.png")
        context.close()


def _play(page: Page, shop: _Shop, *, narrow: bool) -> None:
    if not narrow:
        shop.paid(1_250, "0711222333", "Rent, January")
        shop.now += 40
        page.get_by_text("Confirmed. Ksh1,250.00").wait_for()
    shop.paid(250, "0746990866", "Airtime")
    shop.now += 20
    reference = shop.prompt(100, "0746990866", "Order #12345")
    shop.now += 6
    shop.call("GET", f"/payments/{reference}")
    page.get_by_label("M-PESA PIN").wait_for()
    page.keyboard.type(PIN[:2])
    page.get_by_role("row").filter(has_text=reference).wait_for()


def take_checkout(browser: Browser, name: str, folder: Path) -> None:
    """Take one picture of the checkout.

    Args:
        browser: whose page it is.
        name: one of `CHECKOUTS`.
        folder: where `checkout-NAME.png` is written.
    """
    colours, width, height, state = CHECKOUTS[name]
    ledger = Ledger(clock=time.time, plan="basic", seed=5, customer="instant")
    if state == "unknown":
        ledger.faults.add(Fault("reset-after", call="initiate", times=1))
    with SandboxServer(ledger) as server, serving(SHOPS["fastapi"], server) as shop:
        context = browser.new_context(
            color_scheme=colours,
            viewport={"width": width, "height": height},
            reduced_motion="reduce",
        )
        page = context.new_page()
        page.goto(shop)
        page.get_by_label("Phone").fill("0746990866")
        page.get_by_label("Amount in KES").fill("1250")
        page.get_by_role("button", name="Pay KES 1,250").click()
        page.locator(f"#payment[data-state={state}]").wait_for()
        page.evaluate("document.activeElement.blur()")
        page.screenshot(path=folder / f"checkout-{name}.png")
        context.close()
