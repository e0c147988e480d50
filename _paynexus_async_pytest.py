"""The pytest plugin of paynexus-async: a PayNexus for each test that asks for one.

pytest imports this in every run of every project where the package is installed. So it stands
beside the package, which would be imported with it, and each fixture imports what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from paynexus_async import AsyncPayNexus
    from paynexus_async.sandbox import Sandbox, SandboxServer


@pytest.fixture
def paynexus_sandbox() -> Iterator[Sandbox]:
    """A PayNexus in this process: what happens on it, what it sent, and what is true.

    Payments on it pass in virtual time: the event loop of the test jumps over all waiting.
    """
    from paynexus_async.sandbox import Sandbox

    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def paynexus(request: pytest.FixtureRequest, paynexus_sandbox: Sandbox) -> Iterator[AsyncPayNexus]:
    """An `AsyncPayNexus` on `paynexus_sandbox`, closed after the test."""
    if "anyio_backend" in request.fixturenames:
        # Only anyio's plugin can close it: nothing from outside can run on trio.
        yield request.getfixturevalue("_paynexus_under_anyio")
        return
    client = _client(paynexus_sandbox)
    yield client
    for loop in paynexus_sandbox.loops:
        if not loop.is_closed():  # with a closed loop, all of its tasks have ended
            loop.run_until_complete(client.aclose())


@pytest.fixture
async def _paynexus_under_anyio(paynexus_sandbox: Sandbox) -> AsyncIterator[AsyncPayNexus]:
    try:
        paynexus_sandbox.adopt_running_loop()
    except RuntimeError as error:
        raise pytest.UsageError(str(error)) from None
    async with _client(paynexus_sandbox) as client:
        yield client


@pytest.fixture
def paynexus_server(paynexus_sandbox: Sandbox) -> Iterator[SandboxServer]:
    """The same PayNexus on a socket of this machine, in real time; its base URL is `url`."""
    from paynexus_async.sandbox import SandboxServer

    with SandboxServer(paynexus_sandbox.ledger) as server:
        yield server


def _client(sandbox: Sandbox) -> AsyncPayNexus:
    import httpx

    from paynexus_async import AsyncPayNexus

    return AsyncPayNexus(
        sandbox.secret_key,
        sandbox.public_key,
        base_url=sandbox.base_url,
        http_client=httpx.AsyncClient(transport=sandbox.transport),
    )
