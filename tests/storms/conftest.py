"""Storms meet real sockets, and so real clocks."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Both event loops, as they are."""
    return str(request.param)
