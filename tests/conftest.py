"""What all tests share: both event loops, on clocks that jump instead of waiting."""

from __future__ import annotations

import signal
import sys
from functools import partial

import anyio
import looptime
import pytest
import trio.testing
from sse_starlette.sse import AppStatus

from paynexus_async.cli import _session

from .fakes import FakeServer
from .shell import Shell

KEY_VARIABLES = (
    "PAYNEXUS_SECRET_KEY",
    "PAYNEXUS_PUBLIC_KEY",
    "PAYNEXUS_BASE_URL",
    "PAYNEXUS_WEBHOOK_SECRET",
    "PAYNEXUS_DURABLE_SECRET",
)


def pytest_configure() -> None:
    """Let Ctrl-C be heard where a shell runs this in the background, and so ignores it for all."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """Both event loops, each with a virtual clock: no test waits for real."""
    if request.param == "asyncio":
        return "asyncio", {"loop_factory": looptime.new_event_loop}
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


@pytest.fixture(autouse=True)
def _nothing_is_shutting_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """sse-starlette ends all streams of a process whose server was told to stop, once and for all.

    Another test may have stopped one.
    """
    monkeypatch.setattr(AppStatus, "should_exit", False)


@pytest.fixture(autouse=True)
def _no_keys_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in KEY_VARIABLES:
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def library(request: pytest.FixtureRequest) -> str:
    """Whose client is brought: httpx's, unless the test is one for `over_both`."""
    return getattr(request, "param", "httpx")


@pytest.fixture
def server(library: str) -> FakeServer:
    """A server that answers what the test tells it to."""
    return FakeServer(library)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """The command line; its commands run on a clock that jumps."""
    shell = Shell(capsys)
    monkeypatch.setattr(_session, "http_client", shell.http_client)
    run = partial(anyio.run, backend_options={"loop_factory": looptime.new_event_loop})
    monkeypatch.setattr(anyio, "run", run)
    monkeypatch.setattr(sys, "stdin", sys.stdin)
    return shell
