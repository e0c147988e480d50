"""What an operator sees of the orders, and may do to one: from the application, or beside it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Final, cast

import attrs
from dbos import DBOS, DBOSClient, WorkflowStatus
from dbos import error as dbos_error

from .._wire import expect_reference
from ..exceptions import InvalidRequestError
from ..models import Payment
from ._orders import (
    Kept,
    Order,
    OrderState,
    OrderStillOpenError,
    Seen,
    Told,
    follow_id,
    number_in,
    owner_of,
    prompt_ids_of,
    restored,
)
from ._sending import interrupted
from ._work import UNTOLD, enqueuing, owner_id

__all__ = ["ALIVE", "IS_NEWS", "NEWS", "OrderView", "Orders", "Row", "Summary"]

NEWS: Final = "paynexus.news"
"""The attribute of a running row that names its payment, when another worker has heard of it."""

IS_NEWS: Final = "paynexus.is_news"
"""Whether that was not yet heard where the row runs."""

ALIVE: Final = "paynexus.alive"
"""The attribute of a running row that takes long: when its worker was last alive."""

_GONE_ON: Final = "paynexus.gone_on"
"""The attribute of a row that names the one which somebody had made to go on with it."""

_PAGE: Final = 1_000
_FORGOTTEN_AT_ONCE: Final = 200
_WAITING: Final = ("PENDING", "ENQUEUED", "DELAYED")
_OVER: Final = "SUCCESS"


Engine = type[DBOS] | DBOSClient
"""An application's own engine, or a client of its database beside it."""


@attrs.frozen(kw_only=True)
class OrderView:
    """Where one attempt of an order stands.

    Attributes:
        order_id: the merchant's name for it.
        attempt: 1, 2, …
        state: where it stands.
        amount: in KES.
        phone: with its middle starred out.
        payment: as last seen, without the phone.
        reason: why, in words.
        taken_at: when the order was written down, in seconds since 1970.
        told: the state that the handler has been told; `None` if nothing yet.
        handler_failures: how often the handler has failed since; 0 if it has not.
        handler_error: how it failed last.
        next_look_at: when it is due again, in seconds since 1970; `None` if it runs, or is over.
        is_over: whether nothing more will happen, and nothing has to.
        is_stuck: whether nothing more happens although it should: somebody has taken its row out,
            or it waits for a worker of another version. `retry` goes on with it.
        workflow_id: the engine's name of its last row.
    """

    order_id: str
    attempt: int
    state: OrderState
    amount: int
    phone: str
    payment: Payment | None
    reason: str | None
    taken_at: float
    told: OrderState | None
    handler_failures: int
    handler_error: str | None
    next_look_at: float | None
    is_over: bool
    is_stuck: bool
    workflow_id: str


@attrs.frozen(kw_only=True)
class Summary:
    """All orders at a glance.

    Attributes:
        counts: how many attempts stand in each state.
        oldest_pending: the attempt that has waited longest for its end.
        unknown: the attempts that need somebody to look: oldest first.
        failing: those whose handler has failed, and is called again.
        stuck: those that nothing happens to any more, although something should.
    """

    counts: Mapping[OrderState, int]
    oldest_pending: OrderView | None
    unknown: tuple[OrderView, ...]
    failing: tuple[OrderView, ...]
    stuck: tuple[OrderView, ...] = ()


@attrs.frozen
class Row:
    """A workflow's row, read: the order, what is known and told, and what comes next."""

    status: WorkflowStatus
    order: Order
    seen: Seen | None
    told: Told
    following: str | None
    number: int

    @classmethod
    def of(cls, status: WorkflowStatus) -> Row:
        """Read it: what it left behind if it is over, else what it began with."""
        args = (status.input or {"args": ()})["args"]
        number = 0 if len(args) == 1 else number_in(status.workflow_id)
        gone_on = (status.attributes or {}).get(_GONE_ON)
        if status.status == _OVER:
            left = cast("Kept", status.output)
            following = gone_on or left["next"]
            return cls(status, left["order"], left["seen"], left["told"], following, number)
        if len(args) == 1:
            return cls(status, args[0], None, UNTOLD, gone_on, number)
        return cls(status, args[0], args[1], args[2], gone_on, number)

    @property
    def state(self) -> OrderState:
        """Where the order stands."""
        return OrderState(self.seen["state"]) if self.seen else OrderState.PROMPTING

    @property
    def attempt(self) -> tuple[str, int]:
        """The order and its attempt, which are one chain of rows."""
        return self.order["order_id"], self.order["attempt"]

    @property
    def is_waiting(self) -> bool:
        """Whether the engine has something to do with it."""
        return self.status.status in _WAITING

    @property
    def is_stuck(self) -> bool:
        """Whether the engine has given it up, or somebody has taken it out: it has no result."""
        return not self.is_waiting and self.status.status != _OVER

    def view(self) -> OrderView:
        """Show it to people."""
        seen, told = self.seen, self.told
        due = self.status.delay_until_epoch_ms if self.status.status == "DELAYED" else None
        known = seen["payment"] if seen else None
        return OrderView(
            order_id=self.order["order_id"],
            attempt=self.order["attempt"],
            state=self.state,
            amount=self.order["amount"],
            phone=self.order["phone"],
            payment=restored(known, {}) if known else None,
            reason=seen["reason"] if seen else None,
            taken_at=self.order["taken_at"],
            told=OrderState(told["state"]) if told["state"] else None,
            handler_failures=told["failures"],
            handler_error=told["error"],
            next_look_at=due / 1000 if due else None,
            is_over=self.status.status == _OVER and self.following is None,
            is_stuck=self.is_stuck,
            workflow_id=self.status.workflow_id,
        )


class Orders:
    """Reads the rows of one application's orders, and goes on with one where somebody says so."""

    def __init__(self, engine: Engine, name: str = "paynexus") -> None:
        """Keep where the rows are.

        Args:
            engine: `DBOS` in the application, or a `DBOSClient` beside it.
            name: that of the `DurablePayments`.
        """
        self._engine = engine
        self._name = name

    async def of(self, order_id: str) -> list[OrderView]:
        """Return the attempts of an order, the first one first; none for an order never seen."""
        return [row.view() for row in await self.attempts_of(order_id)]

    async def attempts_of(self, order_id: str) -> list[Row]:
        """Return the last row of each attempt of an order, the first attempt first."""
        ids = prompt_ids_of(self._name, order_id)
        firsts = [Row.of(s) for s in await self._engine.list_workflows_async(workflow_ids=ids)]
        firsts.sort(key=lambda row: row.order["attempt"])
        return [await self._end_of(row) for row in firsts]

    async def chain_from(self, workflow_id: str) -> list[Row]:
        """Return a row that is there, and those that have gone on from it."""
        (status,) = await self._engine.list_workflows_async(workflow_ids=[workflow_id])
        return await self._chain_of(Row.of(status))

    async def summary(self) -> Summary:
        """Count all orders; reads every row, so ask seldom where there are many."""
        last: dict[tuple[str, int], Row] = {}
        async for row in self._all():
            if row.attempt not in last or last[row.attempt].number < row.number:
                last[row.attempt] = row
        views = sorted((row.view() for row in last.values()), key=lambda view: view.taken_at)
        pending = [v for v in views if v.state in {OrderState.PENDING, OrderState.PROMPTING}]
        return Summary(
            counts=Counter(view.state for view in views),
            oldest_pending=pending[0] if pending else None,
            unknown=tuple(view for view in views if view.state is OrderState.UNKNOWN),
            failing=tuple(view for view in views if view.handler_failures),
            stuck=tuple(view for view in views if view.is_stuck),
        )

    async def retry(self, order_id: str) -> OrderView:
        """Have an order's last attempt looked at now, and its handler called if that is due.

        Returns:
            Where it stood before.

        Raises:
            InvalidRequestError: there is no such order, or nothing of it waits.
        """
        row = await self._last(order_id)
        view = row.view()
        if view.is_stuck:
            await self._revive(row)
        elif row.status.status == "DELAYED":
            await self._engine.set_workflow_delay_async(row.status.workflow_id, delay_seconds=0.0)
        else:
            what = "is being worked on" if row.is_waiting else "is over"
            msg = f"order {order_id} {what}: nothing of it waits to be retried"
            raise InvalidRequestError(msg)
        return view

    async def resolve(self, order_id: str, reference: str | None) -> OrderView:
        """Say of an unknown order what somebody has found out, such as in PayNexus's dashboard.

        A reference is not believed but asked for, and held to the order's amount and phone; that
        there is no payment is believed, and not looked into any more. Either way, the handler is
        told of what comes out.

        Args:
            order_id: the order.
            reference: of its payment; `None` if there is none.

        Returns:
            Where it stood before.

        Raises:
            InvalidRequestError: there is no such order, the reference is none, or another order's,
                or the order is being looked at in this moment.
            OrderStillOpenError: it is not unknown.
        """
        if reference is not None:
            expect_reference(reference)
        row = await self._last(order_id)
        view = row.view()
        if row.seen is None or view.state is not OrderState.UNKNOWN:
            msg = f"order {order_id} is {view.state}, not unknown: there is nothing to resolve"
            known = view.payment.reference if view.payment else None
            raise OrderStillOpenError(msg, state=view.state, reference=known)
        if row.is_waiting and row.status.status != "DELAYED":
            msg = f"order {order_id} is being looked at in this moment: say it again in a minute"
            raise InvalidRequestError(msg)
        if reference is None:
            words = "somebody who looked said that there is no payment"
            seen: Seen = {**row.seen, "state": str(OrderState.WRITTEN_OFF), "reason": words}
        else:
            await self._prove_free(reference, row)
            named: dict[str, str | None] = {
                "reference": reference,
                "status": "initiated",
                "amount": str(row.order["amount"]),
            }
            seen = {
                **row.seen,
                "state": str(OrderState.PENDING),
                "payment": named,
                "sealed": row.order["sealed"],  # the phone that it was asked of
                "reason": None,
            }
        await self._go_on_with(row, seen)
        return view

    async def forget(self, older_than_seconds: float) -> int:
        """Delete the rows of orders that have been over for so long.

        An order that is forgotten is unknown: asked for again, it is prompted for again.

        Returns:
            How many attempts were forgotten.
        """
        oldest = time.time() - older_than_seconds
        before = datetime.fromtimestamp(oldest, UTC).isoformat()
        forgotten = kept = 0
        while firsts := await self._engine.list_workflows_async(
            name=f"{self._name}.prompt",
            status=_OVER,
            end_time=before,
            completed_before=before,
            limit=_FORGOTTEN_AT_ONCE,
            offset=kept,
        ):
            for first in firsts:
                is_gone = await self._forget_one(Row.of(first), oldest)
                forgotten, kept = forgotten + is_gone, kept + (not is_gone)
        return forgotten

    async def _forget_one(self, first: Row, oldest: float) -> bool:
        chain = await self._chain_of(first)
        last = chain[-1]
        if not last.view().is_over or last.told["failures"]:
            return False
        if (last.status.completed_at or 0) > oldest * 1000:
            return False  # somebody may be waiting for it
        seen = last.seen
        owned = [owner_id(self._name, seen["owned"])] if seen and seen["owned"] else []
        ids = [row.status.workflow_id for row in chain]
        # The first row last: as long as it is there, the order is known.
        await self._engine.delete_workflows_async([*ids[1:], *owned])
        await self._engine.delete_workflows_async(ids[:1])
        return True

    async def news(self, executor_id: str) -> list[str]:
        """Return, once, the names of payments that wait at a worker and that others heard of.

        Raises:
            dbos.error.DBOSException: the database cannot be searched for it: SQLite cannot.
        """
        rows = await self._engine.list_workflows_async(
            status="PENDING",
            executor_id=executor_id,
            attributes={IS_NEWS: True},
            load_input=False,
            load_output=False,
        )
        for row in rows:
            heard = {IS_NEWS: False}
            await self._engine.update_workflow_attributes_async(row.workflow_id, heard, merge=True)
        return [str((row.attributes or {})[NEWS]) for row in rows]

    async def mend(self, older_than_seconds: float) -> int:
        """Go on with what the engine will not run any more, and return how much that was.

        What it could not write when it was over, as when a disk was full, it calls an error as soon
        as it can write again. And what began under an older version it leaves to a worker of that
        version, of which there may be none.

        Args:
            older_than_seconds: the lease: what is younger may have a worker.
        """
        names = [f"{self._name}.prompt", f"{self._name}.follow"]
        rows = await self._engine.list_workflows_async(
            name=names, status=["ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
        )
        rows += await self._of_other_versions(names, older_than_seconds)
        broken = [row for row in map(Row.of, rows) if row.following is None]
        for row in broken:
            await self._revive(row)
        return len(broken)

    async def _of_other_versions(
        self, names: list[str], older_than_seconds: float
    ) -> list[WorkflowStatus]:
        if isinstance(self._engine, DBOSClient):
            return []
        version = self._engine.application_version
        latest = await self._engine.get_latest_application_version_async()
        if latest["version_name"] != version:
            return []  # the younger ones do it
        rows = await self._engine.list_workflows_async(
            name=names, status=["PENDING", "ENQUEUED"], load_input=False, load_output=False
        )
        before = (time.time() - older_than_seconds) * 1000
        ids = [
            row.workflow_id
            for row in rows
            if row.app_version not in {None, version} and (row.updated_at or 0) < before
        ]
        return await self._engine.list_workflows_async(workflow_ids=ids) if ids else []

    # --- Rows

    async def _revive(self, row: Row) -> None:
        """Go on with a row that nothing happens to: by what it had begun already, if it had."""
        begun = await self._engine.list_workflows_async(
            parent_workflow_id=row.status.workflow_id,
            name=f"{self._name}.follow",
            load_input=False,
            load_output=False,
        )
        if begun:
            await self._lead(row, begun[0].workflow_id)
        else:
            await self._go_on_with(row, row.seen or _unseen(row))

    async def _go_on_with(self, row: Row, seen: Seen) -> None:
        """Make the row that goes on with another one, and then take that out.

        Whoever reads the other finds its way to the new one; should this stop in between, both
        go on, which costs a look.
        """
        number = row.number + 1
        following = follow_id(self._name, row.order, seen, number)
        options = enqueuing(self._name, following, 0.0)
        args = (row.order, {**seen, "looked_at": time.time()}, row.told, number)
        try:
            if isinstance(self._engine, DBOSClient):
                await self._engine.enqueue_async(options, *args)
            else:
                await self._engine.enqueue_workflow_with_options_async(options, *args)
        except dbos_error.DBOSWorkflowIDInUseError:
            pass  # a row of this order: the one that was to go on by itself
        await self._lead(row, following)

    async def _lead(self, row: Row, following: str) -> None:
        """Lead whoever reads a row to the one that goes on, and take the row out."""
        await self._engine.update_workflow_attributes_async(
            row.status.workflow_id, {_GONE_ON: following}, merge=True
        )
        if row.is_waiting:
            await self._engine.cancel_workflow_async(row.status.workflow_id)

    async def _prove_free(self, reference: str, row: Row) -> None:
        """Refuse another order's payment; the row that makes it this one's refuses it, too."""
        owner = owner_of(row.order)
        ids = [owner_id(self._name, reference.upper())]
        for status in await self._engine.list_workflows_async(workflow_ids=ids):
            found = status.input["args"][0] if status.input else owner
            if found != owner:
                other, mine = found.rpartition("/")[0], row.order["order_id"]
                msg = f"{reference} is the payment of order {other}, not of {mine}"
                raise InvalidRequestError(msg)

    async def _last(self, order_id: str) -> Row:
        rows = await self.attempts_of(order_id)
        if not rows:
            msg = f"there is no order {order_id!r}"
            raise InvalidRequestError(msg)
        return rows[-1]

    async def _end_of(self, row: Row) -> Row:
        return (await self._chain_of(row))[-1]

    async def _chain_of(self, row: Row) -> list[Row]:
        chain = [row]
        while chain[-1].following is not None:
            ids = [chain[-1].following]
            found = await self._engine.list_workflows_async(workflow_ids=ids)
            if not found:
                break
            chain.append(Row.of(found[0]))
        return chain

    async def _all(self) -> AsyncIterator[Row]:
        """Read all rows, the oldest first, and a page at a time."""
        names = [f"{self._name}.prompt", f"{self._name}.follow"]
        read = 0
        while True:
            page = await self._engine.list_workflows_async(name=names, limit=_PAGE, offset=read)
            for status in page:
                yield Row.of(status)
            read += len(page)
            if len(page) < _PAGE:
                return


def _unseen(row: Row) -> Seen:
    """Return what is known of an order of which nothing was written down: a prompt may be out."""
    return interrupted({"at": row.order["taken_at"], "is_here": True})
