"""The life of the application's engine, around that of its payments."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from dbos import DBOS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ._payments import DurablePayments

__all__ = ["launched"]

_COMPLETION_SECONDS: Final = 5


@asynccontextmanager
async def launched(durable: DurablePayments) -> AsyncIterator[DurablePayments]:
    """Launch the application's `DBOS`, have *durable* work, and destroy `DBOS` at the end.

        def durable(paynexus: AsyncPayNexus) -> AbstractAsyncContextManager[DurablePayments]:
            DBOS(config=dbos_config("shop"))
            return launched(DurablePayments(paynexus, on_settled=hand_over))

    This is the right order, and the right event loop: the engine recovers at its launch what was
    under way, and leaves lying whatever workflow it does not know by then. So register workflows
    of your own before, and if you launch `DBOS` yourself, do it in the running loop between making
    the `DurablePayments` and entering them. At the end, your own that still run are waited for, for
    five seconds; the rest is gone on with after the next launch.

    Args:
        durable: made, and not yet entered.

    Raises:
        dbos.error.DBOSException: no `DBOS` was made.
    """
    try:
        DBOS.launch()
        async with durable:
            yield durable
    finally:
        # Its threads may wait for this event loop, so it must not wait for them here. What ends at
        # this moment is to be written down: the next launch would have it run again.
        await asyncio.to_thread(DBOS.destroy, workflow_completion_timeout_sec=_COMPLETION_SECONDS)
