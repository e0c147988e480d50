"""The judge: it knows the ledger's truth and every byte that the server received.

The promises, by number:

1. One `initiate_payment` is at most one request at the server; a repetition only where not one byte
   of the earlier attempt had left. Beside a prompt that may be open, no second one.
2. An initiate is rejected, never sent, pending with a reference, or unknown, and the first two are
   never wrong: what is carried out after its caller was told something, was told to be unknown. An application that follows the README's table prompts once for an order.
3. `completed` is never reported of a payment that is not (or not as asked), never taken back, and
   never missed where the answer came while somebody waited. Statuses move forward only.
4. No failure is reported that never was: a timeout is none, an undocumented status ends nothing.
5. Deadlines hold within 250 ms, cancelled callers return within 50 ms and their request goes on;
   afterwards all connections work, and no task is left.
6. A bulk operation gives exactly one result for each item, whatever becomes of the others.
7. No key and no whole phone number is in a repr, a log record, an exception, a span or a metric;
   nothing but a `PayNexusError` is raised.
8. After a 429 nobody calls with that key before the time it states (at most two minutes), and no
   two looks at one payment are less than half a second apart (no three, where a client that has
   not initiated the payment follows it by both of its names).

11. (Its number in `RELIABILITY.md`.) `find_payment` initiates nothing. What it finds is the payment
    of that very prompt, and it says that there is none only if the server had none when it was last
    asked; a list that is read to its end without an error has every payment, each once.
12. A delivery that is forged, stale or cut is refused, and what a signed one says is not believed
    either (3 and 4 hold whatever it says). Whoever waits is answered by a look that begins at once
    when the news comes, and repeated news buys a handful of looks.
"""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final

import attrs

from paynexus_async import (
    APIConnectionError,
    APIStatusError,
    AsyncPayNexus,
    ClientStateError,
    DuplicatePaymentError,
    NoPaymentFound,
    Payment,
    PaymentFound,
    PaymentMismatchError,
    PaymentOutcomeUnknown,
    PaymentResult,
    PaymentStatus,
    PaymentStillPending,
    PayNexusError,
    QuotaExhaustedError,
)

from .workload import PUBLIC_KEY, SECRET_KEY, Called

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from paynexus_async import PaymentUpdate, WebhookEvent

    from .network import Exchange, Network
    from .server import Server

__all__ = ["BORROWED_CONNECTIONS", "Oracle", "Violation"]

_TIMELY: Final = 0.25
_PROMPT: Final = 0.05
_GAP: Final = 0.5
_HEEDED: Final = 0.05
_LISTED: Final = 15.0
_PAUSE_MAX: Final = 120.0
_READ_LANES_MAX: Final = 100
_INITIATE_LANES_MAX: Final = 10
BORROWED_CONNECTIONS: Final = 10 + _INITIATE_LANES_MAX
"""Of a caller's client: so many exchanges may be under way, and none waits for another."""
_REJECTIONS: Final = frozenset({400, 401, 403, 404, 409, 422, 429})
_TERMINAL: Final = frozenset({"completed", "failed", "cancelled", "expired"})
_RANKS: Final = {
    "initiated": 0,
    "undocumented": 1,
    "processing": 2,
    "failed": 3,
    "cancelled": 3,
    "expired": 3,
    "completed": 4,
}
_LIES: Final = (
    *("other-amount", "other-phone", "other-reference"),
    *("other-amount all along", "other-phone all along"),
)
_FOREIGN: Final = "PNXOTHER0000"
"""The reference that lies name: no payment's."""
_PHONE_TAILS: Final = re.compile(r"712\d{6}")
_KEYS: Final = (SECRET_KEY[8:], PUBLIC_KEY[8:], "H00kS3cr3t", "0ldS3cr3t")


@attrs.frozen
class Violation:
    """A promise that was broken."""

    promise: int
    what: str

    def __str__(self) -> str:
        return f"promise {self.promise}: {self.what}"


class _Listener(logging.Handler):
    """Hears what the package logs."""

    def __init__(self, hear: Callable[[str], None]) -> None:
        super().__init__()
        self._hear = hear

    def emit(self, record: logging.LogRecord) -> None:
        fields = [value for value in vars(record).values() if isinstance(value, str)]
        self._hear(f"{record.getMessage()} {fields}")


class Oracle:
    """Collects what happened, and says what should not have."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.server: Server
        self.violations: list[Violation] = []
        self.outcomes: Counter[str] = Counter()
        self.calls: list[Called] = []
        self._seen: dict[tuple[int, str], tuple[float, str]] = {}
        self._connected: dict[tuple[int, str], float] = {}  # when it knew both names for one
        self.listener: Final = _Listener(self.text)
        self.timeout = 0.0
        self.local_clock = 0.0
        self.closings: list[tuple[float, int]] = []
        self._news: dict[tuple[int, str], list[float]] = defaultdict(list)
        self._woken: list[tuple[float, int, str]] = []

    def violated(self, promise: int, what: str) -> None:
        self.violations.append(Violation(promise, what))
        self.network.trace("VIOLATION", promise, what)

    # --- While it goes on

    def text(self, text: str) -> None:
        """Promise 7, for anything that can be printed."""
        for key in _KEYS:
            if key in text:
                self.violated(7, f"a key in: {text.replace(key, '…')}")
        if _PHONE_TAILS.search(text):
            self.violated(7, f"a phone in: {text}")

    def _texts_of(self, error: BaseException | None) -> None:
        seen = set()
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            self.text(f"{error!s} {error!r}")
            error = error.__cause__ or error.__context__

    def ended(self, called: Called) -> None:
        """Judge what can be judged at once: what is true now."""
        self.calls.append(called)
        self.network.trace(
            "ended", f"#{called.number}", called.kind, _short(called.outcome), _short(called.error)
        )
        self._in_time(called)
        error = called.error
        if error is not None:
            self._texts_of(error)
            if not isinstance(error, PayNexusError):
                self.violated(7, f"{called.kind} raised {error!r}")
        if called.kind == "find":
            found = called.error if called.outcome is None else called.outcome
            self.outcomes[f"find: {type(found).__name__}"] += 1
        if isinstance(called.outcome, Payment):
            self._observed(called, called.outcome)
        elif isinstance(called.outcome, PaymentFound):
            self._observed(called, called.outcome.payment)
        elif called.outcome is not None:
            self.text(repr(called.outcome))
        if isinstance(error, PaymentStillPending) and error.payment is not None:
            self._observed(called, error.payment)
            if error.payment.is_terminal:
                self.violated(3, f"pending, although it is {error.payment.status}")
        waited = called.kind in {"wait", "pay"} and isinstance(called.outcome, Payment)
        if waited and not called.outcome.is_terminal:
            self.violated(4, f"a wait returned {called.outcome!r}")
        if called.kind in {"initiate", "pay"}:
            self.outcomes[_outcome(called)] += 1
        elif called.kind in {"wait", "watch"}:
            self.outcomes[_end(called)] += 1

    def notified(self, client: int, event: WebhookEvent, *, woke: bool) -> None:
        """Note news that a client was told of; the first of a payment's end has to wake it."""
        claim = None if event.payment is None else event.payment.status
        if claim is not None and not claim.is_terminal and claim != "undocumented":
            return
        now = self.network.runtime.now()
        reference = self._reference(event.checkout_request_id or event.reference)
        if woke and not self._news[client, reference] and not self._is_settled(client, reference):
            self._woken.append((now, client, reference))
        self._news[client, reference].append(now)

    def _is_settled(self, client: int, reference: str) -> bool:
        """Whether a client has been told of an end: then there is nothing to be asked at once."""
        return any(
            x.origin.client == client
            and (x.told if x.reference == reference else x.listed.get(reference)) in _TERMINAL
            for x in self.network.exchanges
            if x.read_at is not None
        )

    def updated(self, called: Called, update: PaymentUpdate) -> None:
        """Judge an update of a watch."""
        self.text(repr(update))
        self._observed(called, update.payment)

    def listed(self, called: Called, payment: Payment) -> None:
        """Judge a payment of a list."""
        if self._made(payment) in self.server.records:
            self._observed(called, payment)

    def _made(self, payment: Payment) -> str:
        record = self._by_checkout_id(payment)
        return record.prompt.reference if record else payment.reference or ""

    def result(self, called: Called, result: PaymentResult) -> None:
        """Judge a result of a bulk."""
        self.text(repr(result))
        self._texts_of(result.error)
        if result.payment is not None:
            self._observed(called, result.payment, asked=result.asked)

    def _in_time(self, called: Called) -> None:
        assert called.ended_at is not None
        late = called.ended_at - called.started_at - (called.limit or float("inf"))
        if late > _TIMELY and not called.left_early:
            self.violated(5, f"call {called.number}, {called.kind}, was {late:.3f} s late")
        if called.cancelled_at is not None and called.ended_at - called.cancelled_at > _PROMPT:
            self.violated(5, f"call {called.number}, {called.kind}, did not return when cancelled")

    def _observed(self, called: Called, payment: Payment, *, asked: Any = None) -> None:
        """Judge a payment that somebody was given."""
        self.text(f"{payment!r} {payment!s}")
        who = f"call {called.number}, {called.kind}, {payment.reference}"
        record = self.server.records.get(payment.reference or "") or self._by_checkout_id(payment)
        if payment.status is PaymentStatus.UNDOCUMENTED or payment.status_text not in _RANKS:
            if payment.is_terminal:
                self.violated(4, f"{who}: undocumented and ended: {payment.status_text}")
            return
        if record is None:
            if payment.is_terminal:
                self.violated(3, f"{who}: {payment.status}, and there is no such payment")
            return
        reference, word = record.prompt.reference, str(payment.status)
        if not self._was_ever(reference, word):
            self.violated(
                3 if word in {"completed", "processing"} else 4, f"{who}: never was {word}"
            )
        asked = called.asked if asked is None else asked
        own = called.kind in {"initiate", "pay", "find"}
        if word == "completed" and (own or _is_payment(asked)):
            self._as_asked(who, payment, called, asked, record.prompt)
        if not called.ordered:  # there a result waits for those before it
            self._only_forward(who, called.client, payment, word, called.kind)
        if None not in (payment.reference, payment.checkout_request_id):
            now = self.network.runtime.now()
            self._connected.setdefault((called.client, reference), now)

    def _as_asked(
        self, who: str, payment: Payment, called: Called, asked: Any, prompt: Any
    ) -> None:
        """A payment that was asked for by what it should be is completed as that, or not at all."""
        is_stranger = _is_payment(asked) and called.client != self.server.senders[prompt.reference]
        if is_stranger and (asked.amount, asked.phone) != (prompt.amount, prompt.phone):
            return  # it knows what the caller brings, and that is wrong
        # What an answer leaves out contradicts nothing.
        other_amount = payment.amount not in {None, prompt.amount}
        if other_amount or payment.phone not in {None, prompt.phone}:
            self.violated(3, f"{who}: not as asked: {payment!r} of {prompt!r}")

    def _by_checkout_id(self, payment: Payment) -> Any:
        name = payment.checkout_request_id
        return self.server.ledger._by_checkout_id.get(name) if name else None

    def _was_ever(self, reference: str, word: str) -> bool:
        record = self.server.records[reference]
        age = self.server.walls.now() - record.prompt.sent_at
        return word == "initiated" or any(
            step.status == word and step.at_seconds <= age for step in record.scenario.steps
        )

    def _only_forward(self, who: str, client: int, payment: Payment, word: str, kind: str) -> None:
        """Under each of its names; that both are one payment's, a client may have yet to hear."""
        now = self.network.runtime.now()
        for name in _names(payment):
            before = self._seen.get((client, name))
            # What its own initiate answers is handed on as it came: see "Not kept" in RELIABILITY.md.
            if before is not None and before[0] < now and kind != "initiate":
                back = _RANKS[word] < _RANKS[before[1]]
                if back or (_RANKS[word] == _RANKS[before[1]] and word != before[1]):
                    self.violated(3, f"{who}: {word}, after {before[1]}")
            # What it lists and has not seen before, it does not remember.
            remembers = before is not None or kind != "list"
            if remembers and (before is None or _RANKS[word] >= _RANKS[before[1]]):
                self._seen[client, name] = (now, word)

    def _concerns(self, called: Called, asked: Any, x: Exchange) -> bool:
        """Whether a client could know that an answer is about what somebody waits for."""
        names = (asked.reference, asked.checkout_request_id) if _is_payment(asked) else (asked,)
        reference = self._reference(asked)
        connected_at = self._connected.get((called.client, reference))
        by_name = x.origin.about in names
        if by_name and x.origin.about != reference and self._was_told_other(called.client, x):
            return False
        return by_name or (
            connected_at is not None
            and x.read_at is not None
            and connected_at <= x.read_at
            and (reference in names or not self._was_misled(called.client, reference, x.read_at))
        )

    def _was_misled(self, client: int, reference: str, by: float) -> bool:
        """Whether a client that knew the other name only was told another reference for it.

        It follows that one, and takes answers that name the right one for another payment's.
        """
        return any(
            x.fate.fault == "other reference" and x.read_at is not None and x.read_at < by
            for x in self.network.exchanges
            if x.origin.client == client and x.reference == reference
        )

    def _was_told_other(self, client: int, x: Exchange) -> bool:
        """Whether a client was told another payment's facts before, by the name that it asked by.

        What it hears by that name is another payment's for it, until an answer names the reference.
        """
        return any(
            told.fate.fault in {"other phone", "other amount"}
            and told.origin.about == x.origin.about
            and told.read_at is not None
            and told.read_at < (x.read_at or 0.0)
            for told in self.network.exchanges
            if told.origin.client == client and not told.names_reference
        )

    # --- When all is over

    def judge(self) -> None:
        """Judge what can be told only from the whole log."""
        by_call: dict[int, list[Exchange]] = defaultdict(list)
        for exchange in self.network.exchanges:
            by_call[exchange.origin.call].append(exchange)
        for called in self.calls:
            mine = by_call[called.number]
            if called.kind in {"initiate", "pay"}:
                self._sent_once(called, mine)
                self._told_truly(called, mine)
                self._goes_on(called, mine)
            elif called.kind in {"check_payments", "wait_many", "wait_for_all"}:
                self._one_result_each(called)
            elif called.kind.startswith("get"):
                self._answer_counts(called, mine)
            elif called.kind == "find":
                self._resolved(called, mine)
            elif called.kind == "list":
                self._listed_all(called, mine)
        self._no_second_prompt()
        self._orders_prompted_once()
        self._nothing_missed()
        self._duplicates_name_the_first()
        self._pauses_kept()
        self._looks_apart()
        self._news_heeded()

    # Promise 11

    def _resolved(self, called: Called, mine: list[Exchange]) -> None:
        """Judge what was said of a prompt whose answer was lost."""
        if any(x.initiates for x in mine):
            self.violated(11, f"call {called.number} initiated a payment")
        lost = self._sent_by(called)
        if lost is None:
            return
        if isinstance(called.outcome, PaymentFound):
            self._found_truly(called, called.outcome.payment, lost)
        if isinstance(called.outcome, NoPaymentFound) and self.server.walls.are_trusted:
            asked = [x.handled_at for x in mine if x.page == 1 and x.handled_at is not None]
            for reference, call in self.server.calls.items():
                known = self.server.records[reference].scenario.name in _LIES
                if call != lost or known:
                    continue
                made_at = self.server.made_at[reference]
                listed_at = made_at + self.server.habits.lag
                # The client allows for a list that lags behind an answer just lost, and not for
                # one that lags behind what is carried out long after.
                in_time = made_at <= asked[-1] and listed_at <= self._lost_at(called) + _LISTED
                if in_time or listed_at <= asked[-1]:
                    self.violated(11, f"call {called.number}: none, and there was {reference}")
                else:
                    self.network.hit("prompt after it was said that there is none")

    def _lost_at(self, called: Called) -> float:
        """When the answer was given up that is looked for."""
        lost_at = called.asked.lost_at
        return called.started_at if lost_at is None else lost_at.timestamp() - self.local_clock

    def _sent_by(self, called: Called) -> int | None:
        """Which call sent the prompt that is looked for."""
        sent_at = called.asked.sent_at.timestamp() - self.local_clock
        calls = {
            x.origin.call
            for x in self.network.exchanges
            if x.origin.kind == "initiate" and abs(x.started_at - sent_at) < 1e-3
        }
        orders = {one.number: one.order for one in self.calls}
        senders = [call for call in calls if orders.get(call) is called.order]
        return senders[0] if len(senders) == 1 else None

    def _found_truly(self, called: Called, payment: Payment, lost: int) -> None:
        reference, order = self._made(payment), called.order
        record = self.server.records.get(reference)
        if record is not None and record.scenario.name in _LIES:
            return
        sender = self.server.calls.get(reference)
        if sender == lost:
            return
        assert order is not None
        if sender is not None and not order.is_named:
            lied = any(x.lied and x.origin.call == sender for x in self.network.exchanges)
            clients = {one.number: one.client for one in self.calls}
            if lied or clients[sender] != called.client:
                return  # of another process, or a refusal that prompted all the same
        self.violated(11, f"call {called.number}: found {reference} of {sender}, not of {lost}")

    def _listed_all(self, called: Called, mine: list[Exchange]) -> None:
        """A list that came to its end is whole; no payment comes twice.

        But for one that the server has given another reference meanwhile: once under each.
        """
        names = [self._made(payment) for payment in called.listed]
        is_renamed = [payment.reference == _FOREIGN for payment in called.listed]
        counts = Counter(zip(names, is_renamed, strict=True))
        twice = [name for (name, _), count in counts.items() if name and count > 1]
        if twice:
            self.violated(11, f"call {called.number} listed {twice} twice")
        habits = self.server.habits
        is_whole = habits.paginates and not (called.error or called.cancelled or called.left_early)
        if not is_whole or called.asked is not None or "" in names:
            return
        for reference, made_at in self.server.made_at.items():
            record = self.server.records.get(reference)
            if record is not None and record.scenario.name == "other-reference":
                continue
            if made_at + habits.lag <= called.started_at and reference not in names:
                self.violated(11, f"call {called.number} did not list {reference}")

    def _sent_once(self, called: Called, mine: list[Exchange]) -> None:
        left = [x for x in mine if x.initiates and x.left_at is not None]
        whole = [x for x in left if x.complete_at is not None]
        if len(left) > 1 or len(whole) > 1:
            self.violated(1, f"call {called.number} left {len(left)} times, arrived {len(whole)}")

    def _prompts_of(self, called: Called) -> list[str]:
        return [ref for ref, call in self.server.calls.items() if call == called.number]

    def _told_truly(self, called: Called, mine: list[Exchange]) -> None:
        """Promise 2: what was said of an initiate, against the ledger."""
        outcome, error = _outcome(called), called.error
        prompts = self._prompts_of(called)
        lied = any(x.lied for x in mine)
        left = any(x.initiates and x.left_at is not None for x in mine)
        if outcome == "a defect":
            self.violated(2, f"call {called.number} ended with {error!r}")
        if outcome in {"rejected", "never sent", "refused here"} and prompts and not lied:
            self.violated(2, f"call {called.number} was {outcome}, and {prompts} is on a phone")
        if outcome in {"never sent", "refused here"} and left:
            self.violated(2, f"call {called.number} was {outcome}, and bytes had left")
        if outcome not in {"unknown", "cancelled"} and _is_carried_out_after(called, mine):
            self.violated(2, f"call {called.number} was {outcome}, and carried out after that")
        if outcome == "pending" and isinstance(called.outcome, Payment):
            payment = called.outcome
            record = self._by_checkout_id(payment)
            found = payment.reference or (record and record.prompt.reference)
            # An answer that names no reference lets a later one name any; the other name is its own.
            was_unnamed = not any(x.initiates and x.names_reference for x in mine)
            if found == _FOREIGN and was_unnamed and record is not None:
                found = record.prompt.reference
            if found not in prompts:
                self.violated(2, f"call {called.number} is {found}, which is not its prompt")

    def _goes_on(self, called: Called, mine: list[Exchange]) -> None:
        """A request that has left goes on without its caller, while the client is open."""
        for x in mine:
            at = called.cancelled_at
            if not (called.cancelled and x.initiates and x.left_at and at and x.left_at <= at):
                continue
            answered_by = x.left_at + x.fate.there + x.fate.back + x.fate.seconds / 10 + 0.01
            within = min(x.started_at + 4.0, called.started_at + self.timeout - 0.1)
            if x.fate.fault or x.is_struck or x.epoch != self.network.epoch:
                continue
            if answered_by > within:
                continue
            closed = any(
                client == called.client and when < answered_by for when, client in self.closings
            )
            if x.read_at is None and not closed:
                self.violated(5, f"call {called.number} took its request along when cancelled")

    def _one_result_each(self, called: Called) -> None:
        if called.left_early or called.cancelled:
            return
        if called.error is not None:
            if not isinstance(called.error, ClientStateError):
                self.violated(6, f"{called.kind} ended with {called.error!r}")
            return
        given = [result.asked for _, result in called.results]
        if len(given) != len(called.asked) or any(
            (r.payment is None) == (r.error is None) for _, r in called.results
        ):
            self.violated(6, f"{called.kind}: {len(given)} results of {len(called.asked)}")
        elif called.ordered and any(a is not b for a, b in zip(given, called.asked, strict=True)):
            self.violated(6, f"{called.kind}: results out of order")
        elif Counter(map(id, given)) != Counter(map(id, called.asked)):
            self.violated(6, f"{called.kind}: results of other items")

    def _answer_counts(self, called: Called, mine: list[Exchange]) -> None:
        """Who asks once and has a true answer is told it, late truth too."""
        payment = called.outcome
        if not isinstance(payment, Payment):
            return
        for x in mine:
            if x.is_true and x.told == "completed" and x.read_at and payment.status != "completed":
                self.violated(3, f"call {called.number}: {payment.status}, told completed")

    def _no_second_prompt(self) -> None:
        """Promise 1: beside a prompt that may be open, no second one of the same client."""
        calls = {called.number: called for called in self.calls}
        sent: dict[tuple[Any, ...], list[Exchange]] = defaultdict(list)
        for x in self.network.exchanges:
            called = calls.get(x.origin.call)
            if not (x.initiates and x.left_at is not None and called and called.order):
                continue
            order = called.order
            key = (x.origin.client, order.phone, order.amount)
            if not called.insists:
                for earlier in sent[key]:
                    first = calls[earlier.origin.call]
                    if first is called or (_outcome(first) == "rejected" and _before(first, x)):
                        continue
                    if first.insists and earlier.started_at == x.started_at:
                        continue  # that one insisted, beside this one
                    if self._may_be_open(earlier, x):
                        self.violated(1, f"call {x.origin.call} beside {earlier.origin.call}")
            sent[key].append(x)

    def _may_be_open(self, earlier: Exchange, later: Exchange) -> bool:
        """Whether nothing had told the client that the earlier prompt was never sent, or over."""
        assert later.left_at is not None
        refused_at = earlier.seems_whole_at if earlier.status_code in _REJECTIONS else None
        if refused_at is not None and refused_at <= later.left_at:
            return False
        names = {earlier.reference, *self._found_for(earlier, later)} - {None}
        return not any(
            (x.told if x.reference == name else x.listed.get(name)) in _TERMINAL
            and x.read_at is not None
            and x.read_at <= later.left_at
            and x.origin.client == later.origin.client
            for x in self.network.exchanges
            for name in names
        )

    def _found_for(self, earlier: Exchange, later: Exchange) -> Iterable[str]:
        """Which payment the client had found for a prompt: promise 11 judges whether it is that."""
        assert later.left_at is not None
        for called in self.calls:
            is_known = called.ended_at is not None and called.ended_at <= later.left_at
            if is_known and called.client == later.origin.client and called.kind == "find":
                found = called.outcome
                if isinstance(found, PaymentFound) and self._sent_by(called) == earlier.origin.call:
                    yield self._made(found.payment)

    def _orders_prompted_once(self) -> None:
        """Promise 2: whoever keeps to the table never prompts twice for one order."""
        calls = {called.number: called for called in self.calls}
        prompts: Counter[int] = Counter()
        insisted = {called.order.number for called in self.calls if called.order and called.insists}
        excused = {calls[x.origin.call].order.number for x in self.network.exchanges if x.lied}  # type: ignore[union-attr]
        for call in self.server.calls.values():
            order = calls[call].order if call in calls else None
            if order is None or order.policy != "truth table" or order.style == "comes back":
                continue
            if order.number in insisted:
                continue
            if not calls[call].insists:
                prompts[order.number] += 1
        for number, count in prompts.items():
            if count > 1 and number not in excused:
                self.violated(2, f"order {number} was prompted {count} times")

    def _nothing_missed(self) -> None:
        """Promise 3: a true end that came while somebody waited is what he was told."""
        ends: dict[tuple[int, str], list[Exchange]] = defaultdict(list)
        looks: dict[tuple[int, str], list[Exchange]] = defaultdict(list)
        for x in self.network.exchanges:
            if x.origin.kind != "look":
                continue
            looks[x.origin.client, self._reference(x.origin.about)].append(x)
            if x.reference is None or x.told not in _TERMINAL or x.read_at is None:
                continue
            if x.is_true and self.server.records[x.reference].scenario.name not in _LIES:
                ends[x.origin.client, x.reference].append(x)
        for called in self.calls:
            if called.kind == "watch":
                self._revision_told(called, ends)
            for asked, at in _pendings(called):
                reference = self._reference(asked)
                told = [
                    x
                    for x in ends[called.client, reference]
                    if _during(x, called, at) and self._concerns(called, asked, x)
                ]
                if told:
                    self.violated(3, f"call {called.number}: pending, told {told[0].told}")
                if isinstance(asked, Payment) and not called.own_schedule:
                    mine = looks[called.client, reference]
                    self._looked_at_last(called, reference, at, mine)

    def _looked_at_last(self, called: Called, asked: str, at: float, looks: list[Exchange]) -> None:
        """Who gives up has had a look shortly before, unless a 429 or the quota kept it back."""
        if called.limit is None or called.limit < 3 or self.server.limits_calls:
            return
        if any(x.pause >= 0 or x.status_code == 429 for x in self.network.exchanges):
            return
        # The first call of a client goes alone: it learns what the key may do.
        if not self._has_learned(called.client, at - 2.01):
            return
        if self._was_misled(called.client, asked, at):  # it looked, but by the other reference
            return
        if not any(x.started_at <= at and (x.ended_at or at) >= at - 2.01 for x in looks):
            self.violated(3, f"call {called.number} gave up on {asked} without a look")

    def _has_learned(self, client: int, by: float) -> bool:
        return any(
            x.read_at is not None and x.read_at < by and x.is_readable
            for x in self.network.exchanges
            if x.origin.client == client and not x.initiates
        )

    def _revision_told(self, called: Called, ends: dict[tuple[int, str], list[Exchange]]) -> None:
        if called.error is not None or called.cancelled or called.left_early:
            return
        assert called.ended_at is not None
        reference = self._reference(called.asked)
        paid = [x for x in ends[called.client, reference] if x.told == "completed"]
        words = [str(update.payment.status) for _, update in called.updates]
        if called.revisions and words and words[-1] in _TERMINAL - {"completed"}:
            ended = next(at for at, update in called.updates if update.payment.is_terminal)
            if called.ended_at < ended + called.revisions - _PROMPT:
                self.violated(3, f"call {called.number} left before late truth could come")
        if any(_during(x, called, called.ended_at) for x in paid) and "completed" not in words:
            self.violated(3, f"call {called.number} watched, and was told {words}")

    def _reference(self, asked: Any) -> str:
        name = asked if isinstance(asked, str) else (asked.reference or asked.checkout_request_id)
        record = self.server.ledger._by_checkout_id.get(name)
        return name if record is None else record.prompt.reference

    def _duplicates_name_the_first(self) -> None:
        """Promise 5: the reference of a prompt whose caller was cancelled is not lost."""
        answered = {
            x.origin.call: x
            for x in self.network.exchanges
            if x.initiates and x.read_at is not None and not x.fate.fault and x.reference
            if self.server.records[x.reference].scenario.name not in _LIES
        }
        for called in self.calls:
            if not isinstance(called.error, DuplicatePaymentError) or called.order is None:
                continue
            before = [
                first
                for first in self.calls
                if first.order is called.order
                and first.kind in {"initiate", "pay"}
                and first.client == called.client
                and first.number < called.number  # perhaps in the same moment
                and _outcome(first) not in {"rejected", "never sent", "refused here"}
            ]
            if len(before) != 1 or not before[0].cancelled or before[0].number not in answered:
                continue
            read_at = answered[before[0].number].read_at or 0.0
            if read_at < called.started_at and called.error.reference is None:
                self.violated(5, f"call {called.number}: a duplicate of nothing known")

    def _pauses_kept(self) -> None:
        pauses = [x for x in self.network.exchanges if x.pause > 0 and x.read_at is not None]
        for told in pauses:
            begin = told.read_at or 0.0
            end = begin + min(told.pause, _PAUSE_MAX)
            for x in self.network.exchanges[told.number :]:
                same = x.key == told.key and x.origin.client == told.origin.client
                if same and begin < x.started_at < end - 1e-3:
                    self.violated(8, f"exchange {x.number} in the pause of {told.number}")

    def _looks_apart(self) -> None:
        strategies = {
            (called.client, self._reference(called.asked))
            for called in self.calls
            if called.kind == "wait" and called.own_schedule
        }
        looks: dict[tuple[int, str], list[float]] = defaultdict(list)
        for x in self.network.exchanges:
            if x.origin.kind == "look":
                looks[x.origin.client, self._reference(x.origin.about)].append(x.started_at)
        for (client, name), times in looks.items():
            # Who has not initiated a payment may learn late that two names are one payment's, and
            # goes on following both: two loops, each at its own pace.
            loops = 1 if self.server.senders.get(name) == client else 2
            close = [
                later - sooner
                for sooner, later in zip(times, times[loops:], strict=False)
                if later - sooner < _GAP - 1e-6
            ]
            # The first look that heeds news does not ask when the last one was.
            news = self._news.get((client, name), ())
            heeding = loops if any(times[0] <= at <= times[-1] for at in news) else 0
            if len(close) > heeding and (client, name) not in strategies:
                self.violated(8, f"{loops + 1} looks at {name} within {min(close):.3f} s")

    # Promise 12

    def _news_heeded(self) -> None:
        """Who waits is looked up at once when his payment is said to have ended."""
        if self.server.limits_calls or any(
            x.pause >= 0 or x.status_code == 429 for x in self.network.exchanges
        ):
            return
        looks: dict[tuple[int, str], list[Exchange]] = defaultdict(list)
        for x in self.network.exchanges:
            if x.origin.kind == "look":
                looks[x.origin.client, self._reference(x.origin.about)].append(x)
        for at, client, reference in self._woken:
            if self._was_misled(client, reference, at):
                continue
            if self._has_learned(client, at) and not any(
                x.started_at < at + _HEEDED and at <= (x.ended_at or at)
                for x in looks[client, reference]
            ):
                self.violated(12, f"nobody looked at {reference} when news of it came")

    # --- The client itself, at rest

    def at_rest(self, client: AsyncPayNexus) -> None:
        """Promise 5: everything that was borrowed is back."""
        lanes = client._transport._lanes
        if lanes is None:
            self._pool_at_rest(client)
            return
        free = lanes._free
        if len(free[True]) + len(free[False]) != len(lanes._all):
            self.violated(
                5, f"{len(lanes._all)} lanes, {len(free[True])} + {len(free[False])} free"
            )
        if len(free[True]) > _INITIATE_LANES_MAX or len(free[False]) > _READ_LANES_MAX:
            self.violated(5, f"{len(lanes._all)} lanes are too many")
        for lane in lanes._all:
            self._whole("a lane", lane._pool)

    def _pool_at_rest(self, client: AsyncPayNexus) -> None:
        pool = client._transport._http._transport._pool  # type: ignore[attr-defined]
        self._whole("a borrowed pool", pool)

    def _whole(self, what: str, pool: Any) -> None:
        busy = [c for c in pool.connections if not (c.is_idle() or c.is_closed())]
        if pool._requests or busy:
            self.violated(5, f"{what} is not whole: {pool!r}")

    def closed(self, client: AsyncPayNexus) -> None:
        """Promise 5: no task is left; what was borrowed is as good as it was, and still open."""
        transport = client._transport
        running = transport._tasks._running if transport._loop else ()
        if running:
            self.violated(5, f"{len(running)} tasks of a closed client are left")
        if transport._lanes is None:
            self._pool_at_rest(client)
            if transport._http.is_closed:  # type: ignore[attr-defined]
                self.violated(5, "a borrowed client was closed")

    def probed(self, results: Iterable[Called]) -> None:
        for called in results:
            if called.error is not None and not isinstance(called.error, PaymentMismatchError):
                self.violated(5, f"a read on a healthy network met {called.error!r}")


def _pendings(called: Called) -> list[tuple[Any, float]]:
    """Whoever was told that a payment is still pending: about what, when."""
    found = []
    is_pending = isinstance(called.error, PaymentStillPending) and called.ended_at is not None
    if is_pending and called.kind in {"wait", "watch"}:
        found.append((called.asked, called.ended_at))
    for at, result in called.results:
        if isinstance(result.error, PaymentStillPending):
            found.append((result.asked, at))
    return found


def _during(x: Exchange, called: Called, at: float) -> bool:
    return x.read_at is not None and called.started_at < x.read_at < at - _PROMPT


def _before(called: Called, x: Exchange) -> bool:
    return called.ended_at is not None and x.left_at is not None and called.ended_at <= x.left_at


def _is_carried_out_after(called: Called, mine: list[Exchange]) -> bool:
    """Whether the server did what was asked only when the caller had his answer."""
    ended_at = called.ended_at
    return ended_at is not None and any(
        x.initiates and x.handled_at is not None and x.handled_at > ended_at for x in mine
    )


def _is_payment(asked: Any) -> bool:
    return isinstance(asked, Payment)


def _names(payment: Payment) -> set[str]:
    """Under which names a payment is one to the client.

    Where the server says that it has another reference, it is two: nothing tells that they are one.
    Two payments that are both said to have that reference stay two.
    """
    names = {name for name in (payment.reference, payment.checkout_request_id) if name}
    return {" ".join(sorted(names))} if payment.reference == _FOREIGN else names


def _outcome(called: Called) -> str:
    """Which of the kinds of end an initiate had."""
    error = called.error
    if called.cancelled:
        return "cancelled"
    if isinstance(called.outcome, Payment) or isinstance(error, PaymentStillPending):
        return "pending"
    if isinstance(error, PaymentOutcomeUnknown):
        return "unknown"
    if isinstance(error, DuplicatePaymentError | QuotaExhaustedError):
        return "refused here"
    if isinstance(error, PaymentMismatchError):
        return "mismatch"
    if isinstance(error, APIConnectionError) and error.never_sent:
        return "never sent"
    if called.kind == "pay" and _is_from_waiting(error):
        return "pending"
    if isinstance(error, ClientStateError):
        return "refused here"
    if isinstance(error, APIStatusError) and error.status_code in _REJECTIONS:
        return "rejected"
    return "a defect"


def _is_from_waiting(error: BaseException | None) -> bool:
    """Whether `pay` met this after its prompt was out: messages name the call or the payment."""
    if isinstance(error, ClientStateError):
        return "was waited" in str(error)
    return isinstance(error, APIStatusError) and str(error).startswith("get_payment_status")


def _end(called: Called) -> str:
    if called.cancelled:
        return "wait: cancelled"
    if called.error is not None:
        return f"wait: {type(called.error).__name__}"
    payment = called.outcome
    if payment is None:
        payment = called.updates[-1][1].payment if called.updates else None
    return f"wait: {payment.status}" if payment is not None else "wait: left"


def _short(value: object) -> str:
    if isinstance(value, Payment):
        return f"{value.reference} {value.status_text}"
    return type(value).__name__
