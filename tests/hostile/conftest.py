"""Real sockets need real clocks; and asyncio's own clients are tested on asyncio only."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Both event loops, as they are."""
    return str(request.param)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out aiohttp and pyreqwest on trio: there every way to read is httpx, tested once."""
    items[:] = [
        item
        for item in items
        if not {"trio", "aiohttp"} <= (names := _names(item)) and not {"trio", "pyreqwest"} <= names
    ]


def _names(item: pytest.Item) -> set[str]:
    call = getattr(item, "callspec", None)
    return set() if call is None else set(call.id.split("-"))
