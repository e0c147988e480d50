"""A complete local PayNexus: keys, limits, prompts and scripted customers, and no money.

    ledger = Ledger(clock=time.time)
    with SandboxServer(ledger) as server:
        paynexus = AsyncPayNexus(SECRET_KEY, PUBLIC_KEY, base_url=server.url)

The ledger is the truth: `ledger.prompts` are the prompts that customers saw. `MAGIC` lists the
phone numbers and amounts that play an outcome; `ledger.script("cancelled")` orders one for the next
payment, and `ledger.faults.add(Fault("reset-after", times=1))` what shall go wrong with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._engine import (
    BALANCE,
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

if TYPE_CHECKING:
    from ._app import create_app
    from ._server import SandboxServer

__all__ = [
    "BALANCE",
    "FAULTS",
    "MAGIC",
    "PIN",
    "PLANS",
    "PUBLIC_KEY",
    "SANDBOX_KEY",
    "SCENARIOS",
    "SECRET_KEY",
    "Call",
    "Fault",
    "Faults",
    "Ledger",
    "Magic",
    "Plan",
    "Prompt",
    "Record",
    "Reply",
    "Request",
    "SandboxServer",
    "Scenario",
    "Step",
    "Truth",
    "create_app",
]


def __getattr__(name: str) -> object:
    """Load the web framework only when it is asked for: the ledger does without."""
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
