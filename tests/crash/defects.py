"""Defects to plant in a worker: each breaks what the harness is there to see."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import attrs
from dbos import DBOS

from paynexus_async._wire import Intent
from paynexus_async.durable import _payments, _sending, _work
from paynexus_async.durable._orders import Kept, OrderState, Seen, Told, seconds_to_next_look
from paynexus_async.durable._orders import Order as Row
from paynexus_async.durable._sending import Claim, Fresh, Prompts
from paynexus_async.durable._telling import Handlers
from paynexus_async.durable._work import UNTOLD, Work

if TYPE_CHECKING:
    from paynexus_async.exceptions import PayNexusError

__all__ = ["DEFECTS", "Defect", "plant"]


@attrs.frozen
class Defect:
    """A mistake that somebody could make.

    Attributes:
        name: by which it is planted.
        says: what it does.
        apply: plants it in this process.
        needs: a kind of database, where it shows on that alone.
    """

    name: str
    says: str
    apply: Callable[[], None]
    needs: str = ""


def _send_again() -> None:
    send = Prompts.send

    async def send_whatever(self: Prompts, order: Row, claim: Claim) -> Seen:
        if order["token"] not in self.fresh:
            phone = self._records.phone_of(order)
            intent = Intent.of(order["amount"], phone or "", order["description"], "production")
            self.fresh[order["token"]] = Fresh(intent, allow_duplicate=False, taken_at=time.time())
            claim = {"at": time.time(), "is_here": True}
        return await send(self, order, claim)

    Prompts.send = send_whatever  # type: ignore[method-assign]


def _leave_out_the_claim() -> None:
    async def prompt(self: Work, order: Row) -> Kept:
        async def send() -> Seen:
            return await self.prompts.send(order, await self.prompts.claim(order))

        seen: Seen = await DBOS.run_step_async({"name": "send"}, send)
        seen = await self._own(order, seen)
        seen, following = await self._go_on(order, seen, UNTOLD, 1, None)
        return {"order": order, "seen": seen, "told": UNTOLD, "next": following}

    Work._prompt = prompt  # type: ignore[method-assign]


def _tell_without_a_row() -> None:
    async def call(self: Handlers, sessions: Any, outcome: Any) -> None:
        async with sessions.begin() as session:
            handler: Any = self._handler
            await handler(outcome, session)

    Handlers._call_in_transaction = call  # type: ignore[method-assign]


def _forget_late_truth() -> None:
    due = seconds_to_next_look

    def never_after_an_end(seen: Seen, told: Told, *, watch_seconds: float) -> float | None:
        if told["state"] and not told["failures"]:
            return None
        return due(seen, told, watch_seconds=watch_seconds)

    vars(_work)["seconds_to_next_look"] = never_after_an_end


def _take_lost_for_never_sent() -> None:
    conclude = _sending._seen_of_error

    def certain(error: PayNexusError, claimed_at: float) -> Seen:
        seen = conclude(error, claimed_at)
        if seen["state"] == OrderState.UNKNOWN:
            return _sending._seen(OrderState.NEVER_SENT, seen["reason"])
        return seen

    _sending._seen_of_error = certain


def _store_the_phone() -> None:
    vars(_payments)["mask_phones"] = lambda text: text


def _never_sweep() -> None:
    async def sweep(self: _payments.DurablePayments) -> int:
        return 0

    _payments.DurablePayments.sweep = sweep  # type: ignore[method-assign]


DEFECTS: Final = tuple(
    Defect(*one)
    for one in (
        ("send-again", "after a crash, the prompt is sent again", _send_again),
        ("no-claim", "nothing is written down before the prompt is sent", _leave_out_the_claim),
        ("no-row", "the handler's transaction has no row of ours", _tell_without_a_row),
        ("no-late-truth", "what has ended is not looked at any more", _forget_late_truth),
        (
            "lost-is-not",
            "a lost answer is taken for a prompt never sent",
            _take_lost_for_never_sent,
        ),
        ("phone", "the phone is stored as it is", _store_the_phone),
        ("no-sweep", "nobody takes over what the dead had begun", _never_sweep, "postgres"),
    )
)


def plant(name: str) -> None:
    """Plant a defect in this process; none, where the name is empty."""
    for defect in DEFECTS:
        if defect.name == name:
            defect.apply()
