"""aiohttp and pyreqwest are asyncio's: on trio every way to read is httpx, and tested once."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what would be the same test again."""
    items[:] = [
        item
        for item in items
        if not {"trio", "aiohttp"} <= (names := _names(item))
        and not {"trio", "pyreqwest"} <= names
    ]


def _names(item: pytest.Item) -> set[str]:
    call = getattr(item, "callspec", None)
    return set() if call is None else set(call.id.split("-"))
