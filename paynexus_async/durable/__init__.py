"""Nothing lost: payments that are followed across crashes, restarts and deploys.

Between "the prompt is on the phone" and "the order is paid" the process may die, the deploy may
roll, the machine may go. Here the order is on disk before the first byte leaves, its payment is
followed to its end by whichever process is alive, and the merchant's handler is told of it.

    from dbos import DBOS
    from paynexus_async import AsyncPayNexus
    from paynexus_async.durable import DurablePayments, Outcome, dbos_config

    async def hand_over(outcome: Outcome) -> None:
        if outcome.succeeded:
            ...  # fulfil the order: at least once

    DBOS(config=dbos_config("shop", "sqlite:///orders.sqlite"))
    async with AsyncPayNexus() as paynexus:
        durable = DurablePayments(paynexus, on_settled=hand_over)
        DBOS.launch()
        async with durable:
            handle = await durable.pay("order-1001", amount=100, phone="0746990866")
            outcome = await handle.outcome()

The engine underneath is DBOS Transact (https://docs.dbos.dev): a SQLite file by default, PostgreSQL
for many machines, by another URL and the same code. It is the application's: make it, launch it in
the running event loop, and destroy it at the end. `launched` does the last two, in that order:
`async with launched(DurablePayments(paynexus, on_settled=hand_over)) as durable`.
"""

from __future__ import annotations

try:
    import dbos as _dbos  # noqa: F401
    from cryptography import fernet as _fernet  # noqa: F401
except ImportError as _error:
    _msg = f"{_error.name} is missing: pip install 'paynexus-async[durable]'"
    raise ImportError(_msg, name=_error.name) from _error

from . import _answers  # noqa: F401  # a checkout's answers to these errors
from ._clock import teach_all
from ._config import dbos_config
from ._launch import launched
from ._operations import Orders, OrderView, Summary
from ._orders import (
    KNOWN_FAILURES,
    OrderConflictError,
    OrderState,
    OrderStillOpenError,
    Outcome,
)
from ._payments import DurablePayments, OrderHandle, OrderNotPromptedError
from ._terms import Terms

__all__ = [
    "KNOWN_FAILURES",
    "DurablePayments",
    "OrderConflictError",
    "OrderHandle",
    "OrderNotPromptedError",
    "OrderState",
    "OrderStillOpenError",
    "OrderView",
    "Orders",
    "Outcome",
    "Summary",
    "Terms",
    "dbos_config",
    "launched",
]

teach_all()
