"""Payments that are followed across crashes: the public face."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from typing import TYPE_CHECKING, Final, Self

import attrs
from dbos import DBOS
from dbos import error as dbos_error

from .._discreet import discreet
from .._log import say
from .._seal import Seal, crypt_of, given
from .._wire import Intent
from ..exceptions import ClientStateError, ConfigurationError, PayNexusError
from ..phone import mask_phones
from ._looking import lost
from ._operations import ALIVE, IS_NEWS, NEWS, Orders
from ._orders import (
    ATTEMPTS_MAX,
    KNOWN_FAILURES,
    Kept,
    Order,
    OrderConflictError,
    OrderState,
    OrderStillOpenError,
    Outcome,
    checked_order_id,
    description_of,
    follow_ids_of,
    prompt_id,
    state_of,
)
from ._records import Records
from ._sending import Fresh
from ._telling import Handler, Handlers, TransactionalHandler
from ._terms import Terms
from ._work import UNTOLD, Work

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from dbos import WorkflowHandleAsync, WorkflowStatus
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from ..client import AsyncPayNexus
    from ..models import Payment
    from ..webhooks import WebhookEvent
    from ._operations import OrderView, Row, Summary

__all__ = ["DurablePayments", "OrderHandle", "OrderNotPromptedError"]

_QUEUE_SECONDS: Final = 0.5
_SWEEP_SECONDS_MAX: Final = 30.0
_DRAIN_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 1.0
_NEWS_SECONDS: Final = 1.0
_WRITTEN_SECONDS: Final = 0.02
_DRAINED_SECONDS: Final = 0.02
_FORGET_SECONDS: Final = 3_600.0
_SECRET_VARIABLE: Final = "PAYNEXUS_DURABLE_SECRET"  # noqa: S105  # its name


class OrderNotPromptedError(PayNexusError):
    """No prompt was sent for the order: PayNexus refused it, or nothing left this machine.

    Attributes:
        state: `REJECTED` or `NEVER_SENT`.
    """

    def __init__(self, message: str, *, state: OrderState) -> None:
        """Keep which."""
        super().__init__(message)
        self.state = state


class DurablePayments:
    """Takes orders to be paid, and follows each to its end, whatever happens to this process.

        DBOS(config=dbos_config("shop"))
        async with AsyncPayNexus() as paynexus:
            durable = DurablePayments(paynexus, on_settled=hand_over)
            DBOS.launch()
            async with durable:
                handle = await durable.pay("order-1001", amount=100, phone="0746990866")
                outcome = await handle.outcome()

    The application owns `DBOS`: it makes it, launches it and destroys it. This registers two
    workflows with it, so make it before `DBOS.launch()`.
    """

    def __init__(
        self,
        paynexus: AsyncPayNexus,
        *,
        on_settled: Handler | TransactionalHandler,
        secret: str | Iterable[str] | None = None,
        sessions: async_sessionmaker[AsyncSession] | None = None,
        name: str = "paynexus",
        terms: Terms | None = None,
        retention_seconds: float | None = None,
    ) -> None:
        """Register the workflows; nothing runs before `async with`.

        Args:
            paynexus: the client, opened by the application.
            on_settled: awaited with each `Outcome`: of an end, and of a later end that overtakes
                it. At least once, and perhaps twice at a time; where it raises an error, or takes
                too long, again, after growing waits.
            secret: encrypts phones in the database: at least 32 characters, the same in all
                workers; or several, while one replaces another. Left out, it is
                `PAYNEXUS_DURABLE_SECRET`. Without either no phone is stored, and after a crash a
                prompt whose answer was lost cannot be looked for: it stays unknown.
            sessions: of the merchant's own database (SQLAlchemy's `async_sessionmaker`).
                *on_settled* is then awaited with each outcome and a session, in a transaction that
                commits when it returns, and takes effect exactly once: a row of the table
                `paynexus_told`, which is made if it is not there, commits with it.
            name: of the workflows and the queue; one for each `DurablePayments` of a database.
            terms: how long things may take.
            retention_seconds: how long the rows of orders that are over are kept; `None`: for ever.

        Raises:
            ConfigurationError: a secret is short, or a number out of range.
        """
        sealing, secret = given(secret, _SECRET_VARIABLE), None
        self._terms = _checked(terms or Terms(), retention_seconds)
        self._paynexus = paynexus
        self._retention_seconds = retention_seconds
        self._seal = Seal(None if sealing is None else crypt_of(sealing, "durable"))
        self._records: Final = Records(self._seal)
        handlers = Handlers(
            on_settled,
            sessions,
            records=self._records,
            name=name,
            seconds=self._terms.handler_seconds,
        )
        self._work: Final = Work(name, paynexus, self._records, handlers, self._terms)
        self._orders: Final = Orders(DBOS, name)
        self._tasks: tuple[asyncio.Task[None], ...] = ()  # while it is open

    async def __aenter__(self) -> Self:
        """Begin to work; `DBOS.launch()` has been called.

        Raises:
            dbos.error.DBOSException: it has not.
        """
        await DBOS.register_queue_async(self._work.name, polling_interval_sec=_QUEUE_SECONDS)
        await self._work.open()
        self._tasks = (
            asyncio.create_task(self._sweep_for_ever()),
            asyncio.create_task(self._listen_for_ever()),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop: see `aclose`."""
        await self.aclose()

    async def aclose(self, *, timeout: float = _DRAIN_SECONDS) -> None:
        """Take no more orders, and leave what is under way to a row each, to be gone on with.

        Prompts that are being sent are waited for, and handlers that run; waits for customers are
        cut. What is not over in *timeout* seconds is recovered as after a crash. Destroy `DBOS`
        after that, and close the client last.
        """
        if not self._tasks:
            return
        tasks, self._tasks = self._tasks, ()
        for task in tasks:
            task.cancel()
        self._work.close()
        deadline = time.monotonic() + timeout
        while self._work.running and time.monotonic() < deadline:  # noqa: ASYNC110  # bounded
            await asyncio.sleep(_DRAINED_SECONDS)

    # --- Orders

    async def pay(
        self,
        order_id: str,
        *,
        amount: int,
        phone: str,
        description: str | None = None,
        again: bool = False,
        allow_duplicate: bool = False,
    ) -> OrderHandle:
        """Ask a customer to pay for an order, once.

        The order is on disk before the first byte leaves. The same *order_id* never prompts twice,
        for as long as its rows are kept: a second call returns the handle of the first, in whatever
        process. While the database is away, this waits for it, and nothing is sent.

        Args:
            order_id: the merchant's name for the order; it must not hold a phone number.
            amount: whole KES.
            phone: a Kenyan mobile number, such as `0746990866`.
            description: what the customer sees; the order id, if it is left out. Give each order
                one of its own: a prompt whose answer was lost is found by it.
            again: make another attempt, perhaps with another phone or amount, if all before are
                known to have failed. Those that had a payment are asked for once more before.
            allow_duplicate: send it although an equal prompt of another order is open.

        Raises:
            InvalidRequestError: the input was refused here; nothing was sent or stored.
            OrderConflictError: the order is known with another amount or phone.
            OrderStillOpenError: with *again*: an attempt is not known to have failed.
            APIError: with *again*: an attempt's payment could not be asked for; nothing was sent.
            ClientStateError: this is not open.
        """
        self._enter()
        checked_order_id(order_id)
        intent = Intent.of(amount, phone, description, self._paynexus.environment)
        attempts = await self._orders.attempts_of(order_id)
        if attempts and not again:
            self._prove_same(attempts[-1], intent)
            return OrderHandle(self, order_id, len(attempts))
        for one in attempts:
            await self._prove_failed(one)
        attempt = len(attempts) + 1
        if attempt > ATTEMPTS_MAX:
            msg = f"order {order_id} has had {ATTEMPTS_MAX} attempts: give it another id"
            raise OrderConflictError(msg)
        words = description_of(order_id, attempt) if description is None else description
        intent = Intent.of(amount, phone, words, self._paynexus.environment)
        return await self._begin(order_id, attempt, intent, allow_duplicate=allow_duplicate)

    async def _begin(
        self, order_id: str, attempt: int, intent: Intent, *, allow_duplicate: bool
    ) -> OrderHandle:
        token, words, taken_at = secrets.token_hex(16), intent.description, time.time()
        order: Order = {
            "order_id": order_id,
            "attempt": attempt,
            "amount": intent.amount,
            "phone": mask_phones(intent.phone),
            "sealed": self._seal.shut(phone=intent.phone, description=words),
            "description": words if words and mask_phones(words) == words else None,
            "token": token,
            "taken_at": taken_at,
        }
        fresh = self._work.prompts.fresh[token] = Fresh(intent, allow_duplicate, taken_at)
        workflow_id = prompt_id(self._work.name, order_id, attempt)
        try:
            await self._work.begin(workflow_id, self._work.prompt, order)
        except dbos_error.DBOSWorkflowIDInUseError:  # another task, or process, was faster
            del self._work.prompts.fresh[token]
            first = (await self._orders.attempts_of(order_id))[-1]
            self._prove_same(first, intent)
            return OrderHandle(self, order_id, first.order["attempt"])
        except BaseException:
            self._work.prompts.fresh.pop(token, None)
            raise
        return OrderHandle(self, order_id, attempt, fresh)

    def _prove_same(self, row: Row, intent: Intent) -> None:
        order = row.order
        phone = self._records.phone_of(order)
        is_same_phone = order["phone"] == mask_phones(intent.phone)
        if phone is not None:
            is_same_phone = phone == intent.phone
        if order["amount"] != intent.amount or not is_same_phone:
            msg = (
                f"order {order['order_id']} is known, for KES {order['amount']} from "
                f"{order['phone']}: nothing was sent; another amount or phone is another order"
            )
            raise OrderConflictError(msg)

    async def _prove_failed(self, row: Row) -> None:
        """Refuse another attempt unless this one is known to have failed, just now, too."""
        state, known = row.state, None
        if row.seen is not None and row.seen["payment"] is not None:
            known = self._records.payment_of(row.seen)
        # A row may be behind: it says "pending" until its handler has been told.
        if known is not None and (state is OrderState.PENDING or state in KNOWN_FAILURES):
            state = await self._state_now(known) or state
        if state not in KNOWN_FAILURES:
            msg = (
                f"order {row.order['order_id']} is {state} and not known to have failed: another "
                "prompt could charge twice, so none was sent"
            )
            raise OrderStillOpenError(
                msg, state=state, reference=known.reference if known else None
            )

    async def _state_now(self, known: Payment) -> OrderState | None:
        if known.reference:
            return state_of(await self._paynexus.get_payment_status(known.reference))
        if known.checkout_request_id:
            return state_of(
                await self._paynexus.get_payment_status_by_checkout_id(known.checkout_request_id)
            )
        return None

    async def notify(self, event: WebhookEvent) -> bool:
        """Have an event's payment looked at now, by whichever worker follows it.

        Nothing in it is believed. News of a payment that no order is known to have makes those
        orders be looked for whose payment is unknown. Another worker that waits for the payment
        hears of it within a second over PostgreSQL; over SQLite, it looks when it would have.

        Returns:
            Whether there is something to wake: here, as a row, or at another worker.
        """
        self._enter()
        is_awaited = await self._paynexus.notify(event)
        payment = event.payment
        if payment is None or not payment.is_terminal:
            return is_awaited
        ids = follow_ids_of(self._work.name, payment)
        if is_awaited and not self._work.running.isdisjoint(ids):
            return True
        # Whoever waits here may be a customer's page alone: that does not tell the handler.
        rows = await DBOS.list_workflows_async(
            workflow_ids=ids, status=["PENDING", "DELAYED"], load_input=False, load_output=False
        )
        rows = rows or await self._unnamed(payment)
        for row in rows:
            if row.status == "DELAYED":
                await DBOS.set_workflow_delay_async(row.workflow_id, delay_seconds=0.0)
            elif payment.reference and not (row.attributes or {}).get(IS_NEWS):
                # Once: what is written renews the lease of a worker that may be dead.
                news = {NEWS: payment.reference, IS_NEWS: True}
                await DBOS.update_workflow_attributes_async(row.workflow_id, news, merge=True)
        return is_awaited or bool(rows)

    async def _unnamed(self, payment: Payment) -> list[WorkflowStatus]:
        """Return the rows that look for a payment that might be this one."""
        rows = await DBOS.list_workflows_async(
            name=f"{self._work.name}.follow",
            workflow_id_prefix=f"{self._work.name}/unnamed/",
            status="DELAYED",
            limit=100,
            sort_desc=True,
            load_output=False,
        )
        amount = payment.amount
        return [
            row
            for row in rows
            if row.input is not None and amount in {None, row.input["args"][0]["amount"]}
        ]

    # --- Operations

    async def orders(self, order_id: str) -> list[OrderView]:
        """Return where each attempt of an order stands; none for an order never seen."""
        return await self._orders.of(order_id)

    async def summary(self) -> Summary:
        """Return counts by state, the oldest that is pending, and what needs somebody to look."""
        return await self._orders.summary()

    async def retry(self, order_id: str) -> OrderView:
        """Look at an order, and call its handler, now: see `Orders.retry`."""
        return await self._orders.retry(order_id)

    async def resolve(self, order_id: str, reference: str | None) -> OrderView:
        """Say what somebody found out of an unknown order: see `Orders.resolve`."""
        return await self._orders.resolve(order_id, reference)

    async def sweep(self) -> int:
        """Have run again what no worker is at any more, and return how much that was.

        Nobody else does that: the engine recovers, at its launch, what its own executor id had
        begun. A workflow that is older than its lease belongs to a worker that is dead, or stands
        still; should that one come back, the engine accepts nothing from it any more. One that is
        only slow says so of what it has.
        """
        rows = await DBOS.list_workflows_async(
            name=[f"{self._work.name}.{kind}" for kind in ("prompt", "follow")],
            status="PENDING",
            load_input=False,
            load_output=False,
        )
        now = time.time()
        before = (now - self._terms.lease_seconds) * 1000
        await self._renew([row for row in rows if _last_sign(row) < (now * 1000 + before) / 2])
        stale = [
            row.workflow_id
            for row in rows
            if row.workflow_id not in self._work.running
            and row.app_version in {None, DBOS.application_version}  # another's: see `Orders.mend`
            and (row.workflow_id in self._work.stranded or _last_sign(row) < before)
        ]
        if stale:
            say("durable.taken_over", count=len(stale))
            await DBOS.resume_workflows_async(stale, queue_name=self._work.name)
            self._work.stranded.difference_update(stale)  # whoever has it now has a lease
        return len(stale) + await self._orders.mend(self._terms.lease_seconds)

    async def _renew(self, rows: list[WorkflowStatus]) -> None:
        """Give a sign of life for what runs here and takes long, which seldom anything does.

        Without it, whoever has too much to do would have it taken away, and others would have too
        much to do then.
        """
        for row in rows:
            if row.workflow_id in self._work.running:
                alive = {ALIVE: time.time()}
                await DBOS.update_workflow_attributes_async(row.workflow_id, alive, merge=True)

    # --- Inside

    def _enter(self) -> None:
        if not self._tasks:
            msg = "DurablePayments is not open: use it within `async with durable:`"
            raise ClientStateError(msg)

    async def _left_by(self, workflow_id: str) -> Kept:
        """Wait for what a workflow leaves behind, wherever it runs."""
        is_written = False
        if workflow_id in self._work.running:
            local = self._work.results.setdefault(
                workflow_id, asyncio.get_running_loop().create_future()
            )
            is_written = await asyncio.shield(local)
        # What this returns is what the row says, which is about to be written: whoever is told
        # that an attempt has failed may ask for another one at once.
        every = _WRITTEN_SECONDS if is_written else _POLL_SECONDS
        while True:
            handle: WorkflowHandleAsync[Kept] = await DBOS.retrieve_workflow_async(workflow_id)
            try:
                left_behind: Kept = await handle.get_result(polling_interval_sec=every)
            except Exception:
                chain = await self._orders.chain_from(workflow_id)
                if not chain[0].is_stuck:
                    raise
                # It will have no result; the sweep has another row go on with it.
                if len(chain) > 1 and (seen := chain[1].seen) is not None:
                    following = chain[1].status.workflow_id
                    order = chain[1].order
                    return {"order": order, "seen": seen, "told": UNTOLD, "next": following}
                await asyncio.sleep(_POLL_SECONDS)
            else:
                return left_behind

    async def _listen_for_ever(self) -> None:
        """Hear what other workers were told of payments that are waited for here."""
        while True:
            await asyncio.sleep(_NEWS_SECONDS)
            if not self._work.running:
                continue
            try:
                for name in await self._orders.news(DBOS.executor_id):
                    await self._paynexus.notify(name)
            except dbos_error.DBOSException:
                return  # SQLite cannot search for it; all that is told is told here
            except Exception as error:  # noqa: BLE001  # the database may be away
                say("durable.sweep_failed", error_type=type(error).__name__)

    async def _sweep_for_ever(self) -> None:
        every = min(_SWEEP_SECONDS_MAX, self._terms.lease_seconds / 4)
        forgot_at = time.monotonic()
        while True:
            await asyncio.sleep(every * random.uniform(0.8, 1.2))  # noqa: S311  # nosec B311
            try:
                await self.sweep()
                keep = self._retention_seconds
                if keep is not None and time.monotonic() - forgot_at > _FORGET_SECONDS:
                    forgot_at = time.monotonic()
                    await self._orders.forget(keep)
            except Exception as error:  # noqa: BLE001  # the database may be away; it comes again
                say("durable.sweep_failed", error_type=type(error).__name__)


class OrderHandle:
    """One attempt to be paid for an order.

    Attributes:
        order_id: the merchant's name for it.
        attempt: 1, 2, …
    """

    def __init__(
        self, durable: DurablePayments, order_id: str, attempt: int, fresh: Fresh | None = None
    ) -> None:
        """Keep whose it is."""
        self.order_id: Final = order_id
        self.attempt: Final = attempt
        self._durable = durable
        self._fresh = fresh

    async def payment(self) -> Payment:
        """Wait until the prompt is on its way, and return its payment.

        Raises:
            OrderNotPromptedError: no prompt was sent, and it is known why; where this call sent
                for it, what `initiate_payment` raised is its cause.
            PaymentOutcomeUnknown: the answer was lost; the order is looked for, and followed.
        """
        records = self._durable._records
        name = self._durable._work.name
        left = await self._durable._left_by(prompt_id(name, self.order_id, self.attempt))
        seen, order = left["seen"], left["order"]
        # Without a secret, this process knows more than was stored.
        asked = self._fresh.intent.phone if self._fresh else None
        exchange = self._fresh.exchange if self._fresh else None
        cause = exchange.exception() if exchange and exchange.done() else None
        if not isinstance(cause, PayNexusError) and discreet(str(cause)) != str(cause):
            cause = None  # nobody's foresight: a traceback would print the phone that is in it
        if seen["payment"] is not None:
            payment = records.payment_of(seen)
            if exchange and exchange.done() and cause is None:
                known = payment.checkout_request_id or exchange.result().checkout_request_id
                payment = attrs.evolve(payment, checkout_request_id=known)
            return attrs.evolve(payment, phone=payment.phone or asked)
        state = OrderState(seen["state"])
        if state is OrderState.UNKNOWN:
            phone = records.phone_of(order) or asked or order["phone"]
            raise lost(order, seen, phone, records.described(order)) from cause
        msg = f"order {self.order_id} was not prompted for: {seen['reason']}"
        raise OrderNotPromptedError(msg, state=state) from cause

    async def outcome(self) -> Outcome:
        """Wait until the order has an end, and return it: perhaps `UNKNOWN`, never a guess.

        It may be overtaken later: *on_settled* is told of that.
        """
        records, name = self._durable._records, self._durable._work.name
        workflow_id: str | None = prompt_id(name, self.order_id, self.attempt)
        while True:
            assert workflow_id is not None  # noqa: S101  # nosec B101  # it has not ended
            left = await self._durable._left_by(workflow_id)
            if left["told"]["state"] is not None or left["told"]["failures"]:
                return records.outcome_of(left["order"], left["seen"], UNTOLD)
            workflow_id = left["next"]

    async def view(self) -> OrderView:
        """Return where it stands now."""
        views = await self._durable.orders(self.order_id)
        return next(view for view in views if view.attempt == self.attempt)


def _last_sign(row: WorkflowStatus) -> int:
    return max(row.created_at or 0, row.updated_at or 0, row.dequeued_at or 0)


def _checked(terms: Terms, retention_seconds: float | None) -> Terms:
    numbers = (terms.burst_seconds, terms.watch_seconds, terms.handler_seconds, terms.grace_seconds)
    if not all(number > 0 for number in numbers):
        msg = "terms: each must be a number of seconds above 0"
        raise ConfigurationError(msg)
    if retention_seconds is not None and retention_seconds <= terms.watch_seconds:
        msg = "retention_seconds must be more than terms.watch_seconds: what is watched is kept"
        raise ConfigurationError(msg)
    return terms
