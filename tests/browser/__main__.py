"""`python -m tests.browser`: make the README's pictures anew, in `docs/`."""

from __future__ import annotations

from pathlib import Path

from .chromium import chromium
from .screenshots import CHECKOUTS, SCENES, take, take_checkout

DOCS = Path(__file__).parents[2] / "docs"

if __name__ == "__main__":
    DOCS.mkdir(exist_ok=True)
    with chromium() as browser:
        for name in SCENES:
            take(browser, name, DOCS)
            print(f"docs/sandbox-{name}.png")
        for name in CHECKOUTS:
            take_checkout(browser, name, DOCS)
            print(f"docs/checkout-{name}.png")
