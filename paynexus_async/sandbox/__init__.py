"""A complete local PayNexus: keys, limits, prompts and scripted customers, and no money.

    ledger = Ledger(clock=time.time)
    with SandboxServer(ledger) as server:
        paynexus = AsyncPayNexus(SECRET_KEY, PUBLIC_KEY, base_url=server.url)

The ledger is the truth: `ledger.prompts` are the prompts that customers saw. `MAGIC` lists the
phone numbers and amounts that play an outcome; `ledger.script("cancelled")` orders one for the next
payment, `load_scenarios` reads more of them, and `ledger.faults.add(Fault("reset-after", times=1))`
orders what shall go wrong with it. `ledger.webhooks` tells endpoints of payments; an `SQLiteStore`
keeps it all in a file. `Sandbox` is all that in a test, in virtual time.
"""

from __future__ import annotations

from importlib import import_module
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
from ._scenario_files import load_scenarios
from ._scenarios import MAGIC, SCENARIOS, Magic, Scenario, Step
from ._webhooks import DISORDERS, Delivery, Endpoint, Post, RegistrationError, Webhooks

if TYPE_CHECKING:
    from ._app import create_app
    from ._server import SandboxServer
    from ._store import SQLiteStore, StoreError
    from ._testing import Sandbox

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
    "Sandbox",
    "SandboxServer",
    "Scenario",
    "Step",
    "StoreError",
    "Truth",
    "Webhooks",
    "create_app",
    "load_scenarios",
]


def __getattr__(name: str) -> object:
    """Load the heavy ones, such as the web framework, only when they are asked for."""
    homes = {
        "SQLiteStore": "_store",
        "Sandbox": "_testing",
        "SandboxServer": "_server",
        "StoreError": "_store",
        "create_app": "_app",
    }
    if name not in homes:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    try:
        return getattr(import_module(f".{homes[name]}", __name__), name)
    except ImportError as error:
        msg = f"{error.name} is missing: pip install 'paynexus-async[sandbox]'"
        raise ImportError(msg, name=error.name) from error
