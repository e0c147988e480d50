"""The two workflows of an order: its prompt is sent at most once, its payment followed to its end.

The engine runs a step again whose result it does not have. So the steps are these:

1. `claim` writes down that the prompt is about to be sent. The engine accepts that only from the
   one execution that owns the workflow at that moment.
2. `send` sends it, in the process whose memory holds the order's token. Anywhere else, and at any
   later time, the token is unknown: then a prompt may be out, and none is sent.
3. `look` keeps what was found out of the payment, when it had been followed for a while: however
   many status calls that took, it is one step.
4. `tell` tells the merchant's handler of an end, or of a later end that overtakes it.

A payment that an order gets to know is made its own in between, by a row that only one order can
write: whatever an answer or the list says, no payment pays for two. What is left after all that is
a row that waits, not a task.

No step raises what its own work met: the engine keeps an exception as a step's result, and a step
that failed once would fail for ever. What a step does raise is the database's.
"""

from __future__ import annotations

import asyncio
import sys
from contextvars import Context
from typing import TYPE_CHECKING, Final, TypeVar

from dbos import DBOS, EnqueueOptions, SetWorkflowID, WorkflowSerializationFormat
from dbos import error as dbos_error

from .._log import say
from ._looking import Looks
from ._orders import (
    Kept,
    Order,
    OrderState,
    Seen,
    Told,
    follow_id,
    key_of,
    owner_of,
    prompt_id,
    seconds_to_next_look,
)
from ._sending import Claim, Prompts, interrupted, is_within

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from ..client import AsyncPayNexus
    from ._records import Records
    from ._telling import Handlers
    from ._terms import Terms

__all__ = ["UNTOLD", "Work", "enqueuing", "owner_id"]

T = TypeVar("T")

UNTOLD: Final[Told] = {"state": None, "revision": 0, "failures": 0, "error": None}

_NOT_READY_SECONDS: Final = 0.05

_AT_THE_ENGINE_MAX: Final = 8
"""How many that follow a payment may ask the engine for something at a time. It keeps a thread for
each that waits for its database: where thousands are taken up at once, those wait for one another,
and so do the orders that come in meanwhile (5,000 were not taken up in a minute, and are in half
a minute)."""

_UNKNOWN: Final = str(OrderState.UNKNOWN)


class Work:
    """What one application's workflows do.

    Attributes:
        name: of the workflows, and of the queue.
        prompts: the orders whose prompts this process may send.
        looks: the payments that this process follows.
        handlers: what is told of ends.
        running: the workflows that run in this process.
        stranded: those that met an error here, and wait to be run again.
        results: for those who wait for a running one's end: whether it left anything behind.
    """

    def __init__(
        self,
        name: str,
        paynexus: AsyncPayNexus,
        records: Records,
        handlers: Handlers,
        terms: Terms,
    ) -> None:
        """Register the workflows; nothing runs before `open`."""
        self.name: Final = name
        self.prompts: Final = Prompts(paynexus, records, terms)
        self.looks: Final = Looks(paynexus, records, self.prompts, terms)
        self.handlers: Final = handlers
        self.running: Final[set[str]] = set()
        self.stranded: Final[set[str]] = set()
        self.results: Final[dict[str, asyncio.Future[bool]]] = {}
        self._terms = terms
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turns: asyncio.Semaphore
        self.prompt: Final = self._registered("prompt", self._prompt)
        self._follow_up = self._registered("follow", self._follow)
        self._owner = self._owning()

    async def open(self) -> None:
        """Begin: workflows that were recovered before wait for this."""
        await self.handlers.prepare()
        self.looks.open()
        self._turns = asyncio.Semaphore(_AT_THE_ENGINE_MAX)  # which belongs to a loop
        self._loop = asyncio.get_running_loop()

    def close(self) -> None:
        """Cut what follows a payment: a row goes on with it, here or elsewhere."""
        self.looks.close()

    # --- The engine's side

    async def begin(
        self,
        workflow_id: str,
        workflow: Callable[..., Coroutine[None, None, Kept]],
        *args: object,
    ) -> str:
        """Start a workflow here and now, and return its name: a replay may know another.

        Raises:
            dbos.error.DBOSWorkflowIDInUseError: there is one of that name.
        """
        is_first = workflow_id not in self.running
        self.running.add(workflow_id)  # before it is: whoever asks for its end waits here
        runs_here = False
        try:
            with SetWorkflowID(workflow_id, workflow_id_reuse_policy="reject"):
                handle = await DBOS.start_workflow_async(workflow, *args)
            runs_here = getattr(handle, "task", None) is not None
        finally:
            if is_first and not runs_here:
                self._ended(workflow_id, has_result=False)
        return handle.get_workflow_id()

    def _registered(
        self, kind: str, body: Callable[..., Coroutine[None, None, Kept]]
    ) -> Callable[..., Coroutine[None, None, Kept]]:
        async def workflow(*args: object) -> Kept:
            return await self._run(body, args)

        register = DBOS.workflow(
            name=f"{self.name}.{kind}",
            # A payment may well outlive a hundred restarts.
            max_recovery_attempts=None,
            serialization_type=WorkflowSerializationFormat.PORTABLE,
        )
        registered: Callable[..., Coroutine[None, None, Kept]] = register(workflow)
        return registered

    def _owning(self) -> Callable[[str], Coroutine[None, None, str]]:
        async def own(owner: str) -> str:
            return owner  # that the row is there is all that counts

        register = DBOS.workflow(
            name=f"{self.name}.own", serialization_type=WorkflowSerializationFormat.PORTABLE
        )
        registered: Callable[[str], Coroutine[None, None, str]] = register(own)
        return registered

    async def _run(
        self, body: Callable[..., Coroutine[None, None, Kept]], args: tuple[object, ...]
    ) -> Kept:
        """Run a workflow where the client lives, which need not be where the engine runs it."""
        workflow_id = DBOS.workflow_id or ""
        if workflow_id not in self.running:  # `begin` did not start it: it was read from its row
            _share_words(args)
            self.running.add(workflow_id)
        while self._loop is None:  # noqa: ASYNC110  # two threads share this
            await asyncio.sleep(_NOT_READY_SECONDS)  # recovered before the application is ready
        if self._loop is asyncio.get_running_loop():
            return await self._guarded(body, args)
        guarded = self._guarded(body, args)
        try:
            elsewhere = asyncio.run_coroutine_threadsafe(guarded, self._loop)
        except RuntimeError as error:  # the application is over, and its engine is not
            guarded.close()
            self.running.discard(DBOS.workflow_id or "")
            raise asyncio.CancelledError from error  # the row stays as it is
        return await asyncio.wrap_future(elsewhere)

    async def _guarded(
        self, body: Callable[..., Coroutine[None, None, Kept]], args: tuple[object, ...]
    ) -> Kept:
        workflow_id = DBOS.workflow_id or ""
        self.running.add(workflow_id)
        self.stranded.discard(workflow_id)
        has_result = False
        try:
            left = await body(*args)
            has_result = True
        except Exception as error:
            # Of the database, or of ours: no reason to give a payment up. An execution that is
            # cancelled leaves its row as it is, and the sweep has it run again.
            self.stranded.add(workflow_id)
            say("durable.stranded", workflow=workflow_id, error_type=type(error).__name__)
            raise asyncio.CancelledError from error
        finally:
            self._ended(workflow_id, has_result=has_result)
        return left

    def _ended(self, workflow_id: str, *, has_result: bool) -> None:
        self.running.discard(workflow_id)
        waited_for = self.results.pop(workflow_id, None)
        if waited_for is not None and not waited_for.done():
            waited_for.set_result(has_result)

    # --- The prompt

    async def _prompt(self, order: Order) -> Kept:
        try:
            claim: Claim = await _step("claim", lambda: self.prompts.claim(order))
        except Exception:
            if is_within(order["taken_at"], self._terms.lease_seconds):
                raise  # run again: nothing was sent by this execution
            claim = {"at": order["taken_at"], "is_here": True}  # what another did is not known
            seen = interrupted(claim)
        else:
            seen = await self._sent(order, claim)
        seen = await self._own(order, seen)
        seen, following = await self._go_on(order, seen, UNTOLD, 1, None)
        if seen["state"] != OrderState.UNKNOWN:
            self.prompts.fresh.pop(order["token"], None)  # else this process may still learn more
        return {"order": order, "seen": seen, "told": UNTOLD, "next": following}

    async def _sent(self, order: Order, claim: Claim) -> Seen:
        try:
            return await _step("send", lambda: self.prompts.send(order, claim))
        except Exception as error:  # noqa: BLE001  # its answer was not written down
            say(
                "durable.stranded",
                workflow=prompt_id(self.name, order["order_id"], order["attempt"]),
                error_type=type(error).__name__,
            )
            return interrupted(claim)  # the look asks this process's memory first

    # --- The payment

    async def _follow(self, order: Order, seen: Seen, told: Told, number: int) -> Kept:
        seen = await self._own(order, seen)
        # Not within the step: of one that runs, the engine holds as much as of all the rest.
        if not await self._has_kept("look"):
            seen = await self.looks.look(order, seen)
        seen = await self._own(order, await self._kept("look", seen))
        state = OrderState(seen["state"])
        if state.is_end and state != told["state"]:
            told = await self._tell(order, seen, told)
        due = seconds_to_next_look(seen, told, watch_seconds=self._terms.watch_seconds)
        following = None
        if due is not None:
            seen, following = await self._go_on(order, seen, told, number + 1, due)
        else:
            self.prompts.fresh.pop(order["token"], None)
        return {"order": order, "seen": seen, "told": told, "next": following}

    async def _own(self, order: Order, seen: Seen) -> Seen:
        """Make a payment that the order did not know before its own, if it is nobody else's."""
        key = key_of(seen)
        if key is None or seen["owned"] == key:
            return seen
        owner = owner_of(order)
        workflow_id = owner_id(self.name, key)
        try:
            with SetWorkflowID(workflow_id, workflow_id_reuse_policy="reject"):
                await DBOS.start_workflow_async(self._owner, owner)
        except dbos_error.DBOSWorkflowIDInUseError:
            if await _owner_of(workflow_id) != owner:
                # Two goods would be handed over for one payment.
                words = "the payment that was found for it is another order's"
                return {**seen, "state": _UNKNOWN, "payment": None, "reason": words}
        return {**seen, "owned": key}

    async def _go_on(
        self, order: Order, seen: Seen, told: Told, number: int, due: float | None
    ) -> tuple[Seen, str]:
        """Start what follows: at once and here, or in *due* seconds and wherever there is room."""
        following = follow_id(self.name, order, seen, number)
        args = (order, seen, told, number)
        try:
            if due is None:
                return seen, await self.begin(following, self._follow_up, *args)
            options = enqueuing(self.name, following, due)
            handle = await DBOS.enqueue_workflow_with_options_async(options, *args)
            return seen, handle.get_workflow_id()
        except dbos_error.DBOSWorkflowIDInUseError:
            return seen, following  # somebody resolved the order meanwhile: that goes on with it

    async def _has_kept(self, step: str) -> bool:
        """Whether this workflow is run again, and had come so far."""
        async with self._turns:
            asked = DBOS.list_workflow_steps_async(DBOS.workflow_id or "", load_output=False)
            # As nobody's: the answer to what a workflow asks would be kept as one more step.
            kept = await asyncio.create_task(asked, context=Context())
        return any(one["function_name"] == step for one in kept)

    async def _kept(self, step: str, result: T) -> T:
        """Keep what a step has come to, and return what it had before, if this is another run."""

        async def keep() -> T:
            return result

        async with self._turns:
            return await _step(step, keep)

    async def _long_step(self, name: str, work: Callable[[], Coroutine[None, None, T]]) -> T:
        """Run a step that many others may run beside; before and after it, in its turn.

        Unlike a look, what a merchant's handler asks of the engine must not become the workflow's.
        """
        turns, has_turn = self._turns, False

        async def begin() -> None:
            nonlocal has_turn
            await turns.acquire()
            has_turn = True

        def end() -> None:
            nonlocal has_turn
            if has_turn:
                has_turn = False
                turns.release()

        async def run() -> T:
            end()  # the engine has looked whether it has the step's result
            result = await work()
            await begin()  # to write it down
            return result

        await begin()
        try:
            return await _step(name, run)
        finally:
            end()

    # --- The handler

    async def _tell(self, order: Order, seen: Seen, told: Told) -> Told:
        try:
            error = await self._long_step("tell", lambda: self.handlers.call(order, seen, told))
        except Exception as failure:  # noqa: BLE001  # that it was told was not written down
            error = type(failure).__name__
        if error is not None:
            say("durable.handler_failed", order=order["order_id"], error=error)
            return {**told, "failures": told["failures"] + 1, "error": error}
        return {
            "state": seen["state"],
            "revision": told["revision"] + 1,
            "failures": 0,
            "error": None,
        }


def enqueuing(name: str, workflow_id: str, due: float) -> EnqueueOptions:
    """Return how a look is put off: it waits as a row, for a worker of the latest version."""
    options: EnqueueOptions = {
        "workflow_name": f"{name}.follow",
        "queue_name": name,
        "workflow_id": workflow_id,
        "workflow_id_reuse_policy": "reject",
        "serialization_type": WorkflowSerializationFormat.PORTABLE,
    }
    if due > 0:
        options["delay_seconds"] = due
    return options


async def _step(name: str, work: Callable[[], Coroutine[None, None, T]]) -> T:
    """Run a step. What it works on is no argument of it: the engine would log that."""

    async def run() -> T:
        return await work()

    return await DBOS.run_step_async({"name": name}, run)


def _share_words(stored: Iterable[object]) -> None:
    """Let rows that were read have one copy of their words, and not each its own.

    In place, as the engine keeps what it read: so only what nobody else has by now.
    """
    for one in stored:
        if isinstance(one, dict):
            words = {sys.intern(word): value for word, value in one.items()}
            _share_words(words.values())
            one.clear()
            one.update(words)


async def _owner_of(workflow_id: str) -> object:
    rows = await DBOS.list_workflows_async(workflow_ids=[workflow_id], load_output=False)
    return rows[0].input["args"][0] if rows and rows[0].input else None


def owner_id(name: str, key: str) -> str:
    """Return the name of the row that says whose a payment is."""
    return f"{name}/own/{key}"
