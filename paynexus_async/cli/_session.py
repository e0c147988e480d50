"""Where a command finds PayNexus, and the client that it talks through."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Final, Protocol

import attrs
import httpx
from cyclopts import Parameter

from .. import APIConnectionError, AsyncPayNexus, ConfigurationError, PayNexusError
from ._keys import KEY_VARIABLES, doubt, key_in
from ._numbers import Port, Seconds

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["SANDBOX_PORT", "Counter", "Where", "client", "hint", "http_client"]

SANDBOX_PORT: Final = 8765


@attrs.frozen
class Where:
    """Which PayNexus a command talks to."""

    sandbox: Annotated[bool, Parameter(negative="")] = False
    "Talk to the sandbox on this machine (`paynexus sandbox`) instead of the real API."
    port: Port = SANDBOX_PORT
    "Where the sandbox listens."
    timeout: Seconds = 30.0
    "Seconds that one call may take, all told."


class Counter(Protocol):
    """Whoever wants to know how many calls were made."""

    calls: int


def http_client(counter: Counter) -> httpx.AsyncClient:
    """Return a client that tells *counter* of each request it sends."""

    async def count(request: httpx.Request) -> None:
        counter.calls += 1

    return httpx.AsyncClient(event_hooks={"request": [count]}, trust_env=False)


@asynccontextmanager
async def client(
    where: Where, counter: Counter, *, plan: str | None = None
) -> AsyncGenerator[AsyncPayNexus]:
    """Open a client that counts its calls, on the real API or on the sandbox.

    Where a key looks like none, that is said, and it is used: PayNexus may know kinds that this
    package does not.
    """
    secret_key, public_key, base_url = None, None, None
    if where.sandbox:
        from ..sandbox._engine import PUBLIC_KEY, SECRET_KEY

        secret_key, public_key = SECRET_KEY, PUBLIC_KEY
        base_url = f"http://127.0.0.1:{where.port}/api"
    async with (
        http_client(counter) as http,
        AsyncPayNexus(
            secret_key,
            public_key,
            base_url=base_url,
            timeout=where.timeout,
            http_client=http,
            plan=plan,
        ) as paynexus,
    ):
        if not where.sandbox:
            _say_doubts()
        yield paynexus


def _say_doubts() -> None:
    for variable in KEY_VARIABLES:
        key = key_in(variable)
        if key and (words := doubt(variable, key)):
            print(f"paynexus: {words}. `paynexus doctor` looks closer.", file=sys.stderr)


def hint(error: PayNexusError, where: Where) -> str:
    """Return what a user of the command may do about an error, beyond what it says itself."""
    if where.sandbox and isinstance(error, APIConnectionError) and error.never_sent:
        return f"Is the sandbox running? Start it: paynexus sandbox --port {where.port}"
    if isinstance(error, ConfigurationError) and not where.sandbox:
        return "To try without keys: paynexus demo, or --sandbox."
    return ""
