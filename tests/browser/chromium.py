"""A headless Chromium, Debian's, and proof that nothing of it is left behind."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

MARK = "PAYNEXUS_TEST_BROWSER"
GONE_WITHIN_SECONDS = 10


def executable() -> str | None:
    """Where Chromium is on this machine, if it is."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run a browser; every process that it started is gone afterwards."""
    from playwright.sync_api import sync_playwright

    mark = uuid.uuid4().hex
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable(), args=arguments, env={**os.environ, MARK: mark}
        )
        try:
            yield browser
        finally:
            browser.close()
    ends_at = time.monotonic() + GONE_WITHIN_SECONDS
    while left := _processes(mark):
        assert time.monotonic() < ends_at, f"Chromium left processes behind: {left}"
        time.sleep(0.05)


def _processes(mark: str) -> list[int]:
    """Every process that was started with this mark in its environment, and lives."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue  # it has just ended, or is another user's
    return found
