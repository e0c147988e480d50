"""A client, its callers, a network that fails and time that passes, in any order.

The ledger behind the network knows every prompt that went out, so each promise is held to the
truth. `PAYNEXUS_GENERATIVE=long` explores for minutes, and at random.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, TypeVar

import httpx
import looptime
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from paynexus_async import (
    APIConnectionError,
    APIStatusError,
    AsyncPayNexus,
    ClientStateError,
    DuplicatePaymentError,
    InvalidRequestError,
    Payment,
    PaymentOutcomeUnknown,
    PaymentRevision,
    PaymentStatus,
    PaymentStillPending,
    PayNexusError,
    QuotaExhaustedError,
)
from paynexus_async.sandbox import PUBLIC_KEY, SECRET_KEY, Ledger, Prompt

from .network import FAULTS, Network

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine

T = TypeVar("T")

EPOCH = 1_769_498_238.0
PHONES = ("254746990866", "254712345678")
AMOUNTS = (100, 250)
NEVER_ENDING = frozenset({"stuck"})
LYING = frozenset({"other-amount", "other-phone", "other-reference"})
PLAYED = (
    "paid", "instant", "slow", "cancelled", "wrong-pin", "expired", "late", "undocumented",
    "stale", "bare", *NEVER_ENDING, *LYING,
)  # fmt: skip
JUNK = ("../etc/passwd", "PNXNOSUCH001", "0746990866", "")
KEPT_BUSY_SECONDS = 1_000.0
"""Longer than any scenario, any pause after a 429 and any prompt's life."""

ORDER = [PaymentStatus.INITIATED, PaymentStatus.UNDOCUMENTED, PaymentStatus.PROCESSING]
UNPAID = {PaymentStatus.FAILED, PaymentStatus.CANCELLED, PaymentStatus.EXPIRED}

NOTHING_WAS_SENT = (
    APIStatusError,
    ClientStateError,
    DuplicatePaymentError,
    InvalidRequestError,
    QuotaExhaustedError,
)


def may_follow(earlier: PaymentStatus | None, later: PaymentStatus) -> bool:
    """Written anew, not derived from the package's own tables."""
    if earlier is None or earlier is later:
        return True
    if earlier is PaymentStatus.COMPLETED:
        return False
    if earlier in UNPAID:
        return later is PaymentStatus.COMPLETED
    return later not in ORDER or ORDER.index(later) > ORDER.index(earlier)


class Attempt:
    """One call of `initiate_payment`; its description finds the prompts it has caused.

    Attributes:
        description: unique to this attempt.
        client: the number of the client that made it.
        key: phone and amount.
        outcome: `None` while it is under way, or `pending`, `nothing`, `unknown`, `cancelled`.
    """

    def __init__(self, number: int, client: int, key: tuple[str, int]) -> None:
        self.description = f"attempt {number}"
        self.client = client
        self.key = key
        self.outcome: str | None = None


class Machine(RuleBasedStateMachine):
    """The rules are what callers, networks and clocks do; the promises are asserted as they go."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = looptime.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.ledger = Ledger(clock=lambda: EPOCH + self.loop.time())
        self.attempts: list[Attempt] = []
        self.waiting: list[asyncio.Task[None]] = []
        self.clients = 0
        self.seen: dict[tuple[int, str], PaymentStatus] = {}
        self.payments: list[tuple[int, Payment]] = []

    @initialize(traces=st.booleans(), one_key=st.booleans())
    def open(self, traces: bool, one_key: bool) -> None:
        self.network = Network(self.ledger, traces=traces)
        self.http = httpx.AsyncClient(transport=self.network)
        self.public_key = None if one_key else PUBLIC_KEY
        self.new_client()

    def new_client(self) -> None:
        self.clients += 1
        self.client = AsyncPayNexus(SECRET_KEY, self.public_key, http_client=self.http)
        self.run(self.client.__aenter__())

    def run(self, work: Coroutine[object, object, T]) -> T:
        return self.loop.run_until_complete(work)

    # --- What callers do

    @rule(
        phone=st.sampled_from(PHONES),
        amount=st.sampled_from(AMOUNTS),
        scenario=st.sampled_from(PLAYED),
        insists=st.booleans(),
    )
    def initiate(self, phone: str, amount: int, scenario: str, insists: bool) -> None:
        self._play(scenario, phone)
        self.run(self._initiate(self._attempt(phone, amount), insists=insists))

    @precondition(lambda self: self.attempts)
    @rule(insists=st.booleans())
    def initiate_again(self, insists: bool) -> None:
        self.run(self._initiate(self._attempt(*self.attempts[-1].key), insists=insists))

    @rule(phone=st.sampled_from(PHONES), amount=st.sampled_from(AMOUNTS))
    def initiate_twice_at_once(self, phone: str, amount: int) -> None:
        async def both() -> None:
            first, second = self._attempt(phone, amount), self._attempt(phone, amount)
            await asyncio.gather(
                self._initiate(first, insists=False), self._initiate(second, insists=False)
            )
            assert self._prompts_of(first) + self._prompts_of(second) <= 1

        self.run(both())

    @rule(
        phone=st.sampled_from(PHONES),
        amount=st.sampled_from(AMOUNTS),
        seconds=st.sampled_from([0.0, 0.1, 1.0, 2.9, 3.1, 20.0]),
    )
    def initiate_and_be_cancelled(self, phone: str, amount: int, seconds: float) -> None:
        async def cancelled() -> None:
            attempt = self._attempt(phone, amount)
            task = asyncio.ensure_future(self._initiate(attempt, insists=False))
            await asyncio.sleep(seconds)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            attempt.outcome = attempt.outcome or "cancelled"

        self.run(cancelled())

    @rule(data=st.data(), by_checkout_id=st.booleans())
    def check(self, data: st.DataObject, by_checkout_id: bool) -> None:
        if not self.ledger.prompts:
            return
        prompt = data.draw(st.sampled_from(self.ledger.prompts))
        floor = self._floor(prompt)
        payment = self.run(self._caught(self._status(prompt, by_checkout_id=by_checkout_id)))
        if payment is not None:
            self._observe(prompt, payment, floor)

    @rule(data=st.data(), ordered=st.booleans())
    def check_many(self, data: st.DataObject, ordered: bool) -> None:
        names = [n for p in self.ledger.prompts for n in (p.reference, p.checkout_request_id)]
        items = data.draw(st.lists(st.sampled_from([*names, *JUNK]), max_size=6))
        floors = {p.reference: self._floor(p) for p in self.ledger.prompts}

        async def check() -> None:
            checked = self.client.check_payments(items, ordered=ordered)
            results = [result async for result in checked]
            asked = [result.asked for result in results]
            assert asked == items if ordered else Counter(asked) == Counter(items)
            for result in results:
                assert (result.payment is None) != (result.error is None)
                if result.error is not None:
                    self._assert_discreet(result.error)
                elif result.payment is not None:
                    prompt = self._prompt(str(result.asked))
                    self._observe(prompt, result.payment, floors[prompt.reference])

        self.run(check())

    @rule(data=st.data(), max_wait=st.sampled_from([1.0, 30.0, 200.0]), how=st.integers(0, 2))
    def begin_to_wait(self, data: st.DataObject, max_wait: float, how: int) -> None:
        if not self.ledger.prompts:
            return
        prompt = data.draw(st.sampled_from(self.ledger.prompts))
        name = self._name_of(prompt, how)

        async def wait() -> None:
            floor, ends_at = self._floor(prompt), self.loop.time() + max_wait
            try:
                payment = await self._caught(
                    self.client.wait_for_completion(name, max_wait=max_wait)
                )
            finally:
                assert self.loop.time() <= ends_at + 0.001
            if payment is not None:
                assert payment.is_terminal
                self._observe(prompt, payment, floor)

        self._in_background(wait())

    @rule(data=st.data(), revisions_for=st.sampled_from([0.0, 60.0]), how=st.integers(0, 2))
    def begin_to_watch(self, data: st.DataObject, revisions_for: float, how: int) -> None:
        if not self.ledger.prompts:
            return
        prompt = data.draw(st.sampled_from(self.ledger.prompts))
        name = self._name_of(prompt, how)

        async def watch() -> None:
            last = self._floor(prompt)
            updates = self.client.watch(name, max_wait=90, revisions_for=revisions_for)
            async with aclosing(updates):
                first = True
                async for update in updates:
                    assert first or update.previous is last
                    self._observe(prompt, update.payment, last)
                    is_revision = update.previous in UNPAID and update.payment.succeeded
                    assert isinstance(update, PaymentRevision) == is_revision
                    first, last = False, update.payment.status

        self._in_background(self._caught(watch()))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def stop_waiting(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(self.waiting))
        task.cancel()
        with suppress(asyncio.CancelledError):
            self.run(_result(task))
        self.waiting.remove(task)

    @rule(data=st.data(), how=st.integers(0, 2))
    def wait_until_it_is_known(self, data: st.DataObject, how: int) -> None:
        """Where the server answers, whoever waits long enough knows how it ended."""
        prompts = [
            r.prompt for r in self.ledger.records if r.scenario.name not in NEVER_ENDING | LYING
        ]
        if not prompts:
            return
        self.network.faults.clear()
        prompt = data.draw(st.sampled_from(prompts))

        async def wait() -> Payment:
            return await self.client.wait_for_completion(
                self._name_of(prompt, how), max_wait=KEPT_BUSY_SECONDS
            )

        floor = self._floor(prompt)
        payment = self.run(wait())
        assert payment.is_terminal
        self._observe(prompt, payment, floor)

    @rule(name=st.sampled_from(JUNK))
    def ask_for_junk(self, name: str) -> None:
        assert self.run(self._caught(self.client.get_payment_status(name))) is None
        assert self.run(self._caught(self.client.wait_for_completion(name, max_wait=5))) is None

    # --- What happens to them

    @rule(faults=st.lists(st.sampled_from(FAULTS), min_size=1, max_size=4))
    def the_network_fails(self, faults: list[str]) -> None:
        self.network.faults.extend(faults)

    @rule(seconds=st.sampled_from([0.5, 5.0, 20.0, 70.0, 130.0]))
    def time_passes(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))
        self._collect()

    @rule()
    def the_client_closes_and_another_opens(self) -> None:
        closed = self.client
        self.run(closed.aclose())
        for attempt in self.attempts:  # what it had not heard by then it has given up
            attempt.outcome = attempt.outcome or "cancelled"
        self._collect()
        error = self.run(_told(closed.initiate_payment(1, PHONES[0])))
        assert isinstance(error, ClientStateError)
        self.new_client()

    # --- What must hold

    @invariant()
    def no_attempt_prompts_twice(self) -> None:
        """And one that was said to have prompted nobody has not, and never will."""
        for attempt in self.attempts:
            prompts = self._prompts_of(attempt)
            assert prompts <= 1, attempt.description
            if attempt.outcome == "nothing":
                assert prompts == 0, attempt.description
            if attempt.outcome == "pending":
                assert prompts == 1, attempt.description

    def teardown(self) -> None:
        """Whoever waits is let go by the deadline, with an answer or without."""
        try:
            if self.clients:
                self.run(asyncio.sleep(KEPT_BUSY_SECONDS))
                assert all(task.done() for task in self.waiting)
                self._collect()
                self.run(self.client.aclose())
                self.run(self.http.aclose())
                self.no_attempt_prompts_twice()
        finally:
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            asyncio.set_event_loop(None)
            self.loop.close()

    # --- How

    def _play(self, scenario: str, phone: str) -> None:
        with suppress(ValueError):  # a thousand wait already
            self.ledger.script(scenario, phone=phone)

    def _attempt(self, phone: str, amount: int) -> Attempt:
        attempt = Attempt(len(self.attempts), self.clients, (phone, amount))
        self.attempts.append(attempt)
        return attempt

    async def _initiate(self, attempt: Attempt, *, insists: bool) -> None:
        phone, amount = attempt.key
        blocked = self._is_blocked(attempt)
        told = await _told(
            self.client.initiate_payment(
                amount, phone, attempt.description, allow_duplicate=insists
            )
        )
        attempt.outcome = _outcome(told)
        if isinstance(told, Payment):
            (prompt,) = [p for p in self.ledger.prompts if p.description == attempt.description]
            assert told.reference == prompt.reference
            assert (told.amount, told.phone) == (amount, phone)
            self._observe(prompt, told, None)
        else:
            self._assert_discreet(told)
            assert not (insists and isinstance(told, DuplicatePaymentError))
        if blocked and not insists:
            assert attempt.outcome == "nothing", "a second prompt beside one that may be open"

    def _is_blocked(self, attempt: Attempt) -> bool:
        """Whether a prompt of this client for the same phone and amount may still be open."""
        return any(
            other.outcome == "unknown"
            or (other.outcome == "pending" and not self._may_have_ended(other))
            for other in self.attempts
            if other is not attempt and (other.client, other.key) == (attempt.client, attempt.key)
        )

    def _may_have_ended(self, attempt: Attempt) -> bool:
        references = [
            p.reference for p in self.ledger.prompts if p.description == attempt.description
        ]
        # A little later, because the client may ask for it while it initiates.
        return all(
            PaymentStatus.parse(self.ledger.status(r)).is_terminal
            or self._ends_within(r, seconds=35)
            for r in references
        )

    def _ends_within(self, reference: str, seconds: float) -> bool:
        record = next(r for r in self.ledger.records if r.prompt.reference == reference)
        age = EPOCH + self.loop.time() - record.prompt.sent_at
        return PaymentStatus.parse(record.scenario.at(age + seconds).status).is_terminal

    def _prompts_of(self, attempt: Attempt) -> int:
        return sum(p.description == attempt.description for p in self.ledger.prompts)

    def _has_initiated(self, prompt: Prompt) -> bool:
        """Whether this client knows by itself what was asked of the customer."""
        return any(
            (a.client, a.outcome, a.description) == (self.clients, "pending", prompt.description)
            for a in self.attempts
        )

    def _prompt(self, name: str) -> Prompt:
        return next(p for p in self.ledger.prompts if name in {p.reference, p.checkout_request_id})

    def _name_of(self, prompt: Prompt, how: int) -> str | Payment:
        known = [p for n, p in self.payments if n == self.clients and self._is(p, prompt)]
        if how == 2 and known:
            return known[-1]
        return prompt.reference if how == 0 else prompt.checkout_request_id

    @staticmethod
    def _is(payment: Payment, prompt: Prompt) -> bool:
        return prompt.reference == payment.reference or (
            prompt.checkout_request_id == payment.checkout_request_id
        )

    def _status(self, prompt: Prompt, *, by_checkout_id: bool) -> Awaitable[Payment]:
        if by_checkout_id:
            return self.client.get_payment_status_by_checkout_id(prompt.checkout_request_id)
        return self.client.get_payment_status(prompt.reference)

    def _floor(self, prompt: Prompt) -> PaymentStatus | None:
        return self.seen.get((self.clients, prompt.reference))

    def _observe(self, prompt: Prompt, payment: Payment, floor: PaymentStatus | None) -> None:
        """Hold what a caller is told to what he was told before, and to the truth."""
        assert may_follow(floor, payment.status), (floor, payment.status)
        truth = self.ledger.payment(prompt.reference)
        if payment.succeeded:
            assert truth.status == "completed"
            assert truth.scenario not in LYING or not self._has_initiated(prompt)
            assert payment.receipt in {truth.receipt, None}
        if payment.is_terminal:
            assert PaymentStatus.parse(truth.status).is_terminal
        known = self.seen.get((self.clients, prompt.reference))
        if may_follow(known, payment.status):
            self.seen[self.clients, prompt.reference] = payment.status
        self.payments.append((self.clients, payment))

    async def _caught(self, work: Awaitable[T]) -> T | None:
        """Let pass what the package may raise, and nothing else."""
        told = await _told(work)
        if not isinstance(told, PayNexusError):
            return told
        self._assert_discreet(told)
        assert not isinstance(told, PaymentOutcomeUnknown | DuplicatePaymentError)
        if isinstance(told, PaymentStillPending) and told.payment is not None:
            assert not told.payment.is_terminal
        return None

    def _assert_discreet(self, error: PayNexusError) -> None:
        text = f"{error} {error!r}"
        secrets = (*PHONES, *(phone[3:] for phone in PHONES), SECRET_KEY, PUBLIC_KEY)
        assert not [secret for secret in secrets if secret in text], text

    def _in_background(self, work: Coroutine[object, object, None]) -> None:
        self.waiting.append(self.loop.create_task(work))
        self.run(asyncio.sleep(0))

    def _collect(self) -> None:
        done = [task for task in self.waiting if task.done()]
        self.waiting = [task for task in self.waiting if not task.done()]
        for task in done:
            task.result()


async def _result(task: asyncio.Task[None]) -> None:
    await task


async def _told(work: Awaitable[T]) -> T | PayNexusError:
    try:
        return await work
    except PayNexusError as error:
        return error


def _outcome(told: Payment | PayNexusError) -> str:
    """What an initiate's end says of its prompt."""
    if isinstance(told, Payment):
        return "pending"
    if isinstance(told, PaymentOutcomeUnknown):
        return "unknown"
    assert isinstance(told, NOTHING_WAS_SENT) or (
        isinstance(told, APIConnectionError) and told.never_sent
    ), repr(told)
    return "nothing"


IS_LONG = os.environ.get("PAYNEXUS_GENERATIVE") == "long"

Machine.TestCase.settings = settings(
    max_examples=2_000 if IS_LONG else 200,
    stateful_step_count=50 if IS_LONG else 30,
    derandomize=not IS_LONG,  # the gate says the same twice
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestPromises = Machine.TestCase
