"""What all tests share: both event loops, on clocks that jump instead of waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import looptime
import pytest
import trio.testing

from .fakes import FakeServer

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY_VARIABLES = ("PAYNEXUS_SECRET_KEY", "PAYNEXUS_PUBLIC_KEY", "PAYNEXUS_BASE_URL")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """Both event loops, each with a virtual clock: no test waits for real."""
    if request.param == "asyncio":
        return "asyncio", {"loop_factory": looptime.new_event_loop}
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


@pytest.fixture(autouse=True)
def _no_keys_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in KEY_VARIABLES:
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A server that answers what the test tells it to."""
    return FakeServer()
