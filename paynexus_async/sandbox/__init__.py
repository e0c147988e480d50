"""A complete local PayNexus: keys, limits, prompts and scripted customers, and no money.

    ledger = Ledger(clock=time.time)
    with SandboxServer(ledger) as server:
        paynexus = AsyncPayNexus(SECRET_KEY, PUBLIC_KEY, base_url=server.url)

The ledger is the truth: `ledger.prompts` are the prompts that customers saw. `MAGIC` lists the
phone numbers and amounts that play an outcome; `ledger.script("cancelled")` orders one for the next
payment, and `ledger.faults.add(Fault("reset-after", times=1))` what shall go wrong with it.
`ledger.webhooks` tells endpoints of payments; an `SQLiteStore` keeps it all in a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._engine import (
    BALANCE,
    BUSINESS,
    PIN,
    PLANS,
    PUBLIC_KEY,
    SANDBOX_KEY,
    SECRET_KEY,
    Call,
    Ledger,
    Plan,
    Prompt,
    Record,
    Reply,
    Request,
    Truth,
)
from ._faults import FAULTS, Fault, Faults
from ._scenarios import MAGIC, SCENARIOS, Magic, Scenario, Step
from ._webhooks import DISORDERS, Delivery, Endpoint, Post, RegistrationError, Webhooks

if TYPE_CHECKING:
    from ._app import create_app
    from ._server import SandboxServer
    from ._store import SQLiteStore, StoreError

__all__ = [
    "BALANCE",
    "BUSINESS",
    "DISORDERS",
    "FAULTS",
    "MAGIC",
    "PIN",
    "PLANS",
    "PUBLIC_KEY",
    "SANDBOX_KEY",
    "SCENARIOS",
    "SECRET_KEY",
    "Call",
    "Delivery",
    "Endpoint",
    "Fault",
    "Faults",
    "Ledger",
    "Magic",
    "Plan",
    "Post",
    "Prompt",
    "Record",
    "RegistrationError",
    "Reply",
    "Request",
    "SQLiteStore",
    "SandboxServer",
    "Scenario",
    "Step",
    "StoreError",
    "Truth",
    "Webhooks",
    "create_app",
]


def __getattr__(name: str) -> object:
    """Load the web framework, and SQLite, only when they are asked for: the ledger does without."""
    if name in {"SQLiteStore", "StoreError"}:
        from . import _store

        return getattr(_store, name)
    if name not in {"SandboxServer", "create_app"}:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    try:
        from ._app import create_app
        from ._server import SandboxServer
    except ImportError as error:
        msg = f"{error.name} is missing: pip install 'paynexus-async[sandbox]'"
        raise ImportError(msg, name=error.name) from error
    return {"SandboxServer": SandboxServer, "create_app": create_app}[name]
