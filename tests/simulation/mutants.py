"""Planted defects: each breaks one promise of the client, and the oracle has to say which.

Some are mistakes that any client could make; those under "As it was" are the ones that this
simulation has found in the real one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from typing import Any, Final
from unittest.mock import patch

import anyio
import attrs
import httpx
import httpx2

from paynexus_async import (
    AsyncPayNexus,
    Attempt,
    Change,
    NoPaymentFound,
    Payment,
    PaymentFound,
    PaymentOutcomeUnknown,
    PaymentResult,
    PaymentStatus,
    PaymentStillPending,
    PayNexusError,
    Schedule,
    _bulk,
    _follow,
    _hearsay,
    _prompts,
    _quota,
    _resolver,
    _tasks,
    _transport,
    _wire,
    client,
    models,
    status,
    telemetry,
    webhooks,
)
from paynexus_async._wire import connection_error

__all__ = ["MUTANTS", "Mutant"]


@attrs.frozen
class Mutant:
    """A defect.

    Attributes:
        name: what the client does wrong.
        promises: those of which it breaks one at least.
        plant: patches the client.
        seed: added to the first world's, for a defect that few worlds show.
    """

    name: str
    promises: frozenset[int]
    plant: Callable[[], AbstractContextManager[object]]
    seed: int = 0


MUTANTS: Final[list[Mutant]] = []
Plant = AbstractContextManager[object]


def _mutant(
    name: str, *promises: int, seed: int = 0
) -> Callable[[Callable[[], Plant]], Callable[[], Plant]]:
    def register(plant: Callable[[], Plant]) -> Callable[[], Plant]:
        MUTANTS.append(Mutant(name, frozenset(promises), plant, seed))
        return plant

    return register


# --- Sending


@_mutant("sends an initiate again when its answer was lost", 1)
def _repeats() -> Plant:
    real = _transport.Transport._round_trip

    async def again(self: Any, exchange: Any, key: Any, headers: Any) -> Any:
        try:
            return await real(self, exchange, key, headers)
        except httpx.TransportError:
            exchange._headers_sent = False
            return await real(self, exchange, key, headers)

    return patch.object(_transport.Transport, "_round_trip", again)


@_mutant("follows redirects", 1)
def _follows_redirects() -> Plant:
    real = httpx.AsyncHTTPTransport.handle_async_request

    async def follow(self: Any, request: httpx.Request) -> httpx.Response:
        response = await real(self, request)
        if response.status_code not in {307, 308} or request.method != "POST":
            return response
        await response.aclose()
        timeout = {"timeout": request.extensions["timeout"]}
        body = request.stream._stream  # type: ignore[attr-defined]
        again = httpx.Request("POST", request.url, headers=request.headers, extensions=timeout)
        again.stream = _transport._Body(body)
        return await real(self, again)

    return patch.object(httpx.AsyncHTTPTransport, "handle_async_request", follow)


@_mutant("knows no prompt that is open", 1)
def _knows_no_prompt() -> Plant:
    return patch.object(_prompts.Prompts, "open_like", lambda *_: None)


@_mutant("forgets the prompts of a caller who was cancelled", 1)
def _forgets_cancelled() -> Plant:
    real = AsyncPayNexus.initiate_payment

    async def forget(self: Any, *args: Any, **options: Any) -> Payment:
        try:
            return await real(self, *args, **options)
        except anyio.get_cancelled_exc_class():
            self._prompts._prompts.clear()
            raise

    return patch.object(AsyncPayNexus, "initiate_payment", forget)


@_mutant("forgets a prompt whose outcome is unknown", 1)
def _forgets_unknown() -> Plant:
    real = _prompts.Prompts.settle

    def settle(self: Any, prompt: Any, outcome: Any, *when: Any) -> None:
        real(self, prompt, outcome, *when)
        if isinstance(outcome, PaymentOutcomeUnknown):
            self._end(prompt)

    return patch.object(_prompts.Prompts, "settle", settle)


# --- What is said of an initiate


@_mutant("tells from the exception's class that nothing was sent", 1, 2)
def _guesses() -> Plant:
    real = _transport._Exchange.failed

    def failed(self: Any, error: BaseException, key: Any) -> Any:
        if isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError):
            return connection_error(self.call, "no", never_sent=True, timed_out=False)
        return real(self, error, key)

    return patch.object(_transport._Exchange, "failed", failed)


@_mutant(
    "knows the errors of httpx only, and takes others for a defect before sending", 1, 2, seed=8
)
def _knows_one_library() -> Plant:
    real = _transport._Exchange.failed

    def failed(self: Any, error: BaseException, key: Any) -> Any:
        if isinstance(error, httpx.HTTPError | _transport._NotAgainError):
            return real(self, error, key)
        return connection_error(self.call, "no", never_sent=True, timed_out=False)

    return patch.object(_transport._Exchange, "failed", failed)


@_mutant("takes a request that found no answer in time for one that was never sent", 2)
def _gives_up_for_good() -> Plant:
    def timed_out(self: Any) -> Any:
        return connection_error(self.call, "no", never_sent=True, timed_out=True)

    return patch.object(_transport._Exchange, "timed_out", timed_out)


@_mutant("takes `success: false` for a rejection", 2, seed=18)
def _believes_false() -> Plant:
    return patch.object(_wire, "_REJECTIONS", _wire._REJECTIONS | {200})


@_mutant("takes a 5xx for a rejection", 2)
def _believes_5xx() -> Plant:
    return patch.object(_wire, "_REJECTIONS", _wire._REJECTIONS | {500, 502, 503, 504})


# --- What is said of a payment


@_mutant("refuses late truth", 3)
def _refuses_late_truth() -> Plant:
    return patch.object(status, "REVISIONS", {})


@_mutant("ends a watch with the payment, late truth or not", 3)
def _ends_watches() -> Plant:
    def end_if_settled(self: Any, payment: Payment, _: float) -> None:
        if payment.is_terminal:
            self.end()

    return patch.object(_follow._Subscription, "end_if_settled", end_if_settled)


@_mutant("lets an old answer take a newer one back", 3, seed=104)
def _regresses() -> Plant:
    def advance(known: PaymentStatus, observed: PaymentStatus) -> tuple[PaymentStatus, Change]:
        return observed, Change.SAME if known is observed else Change.ADVANCED

    return patch.object(models, "advance", advance)


@_mutant("does not compare the amount", 3)
def _any_amount() -> Plant:
    real = models.Expectation.check

    def check(self: Any, answered: Payment, *, strictly: bool = False) -> None:
        real(attrs.evolve(self, amount=None), answered, strictly=strictly)

    return patch.object(models.Expectation, "check", check)


@_mutant("does not compare the reference", 3)
def _any_reference() -> Plant:
    real = models.Expectation.check

    def check(self: Any, answered: Payment, *, strictly: bool = False) -> None:
        named = models.Expectation(amount=self.amount, phone=self.phone)
        real(named, attrs.evolve(answered, amount=None, phone=None), strictly=strictly)

    return patch.object(models.Expectation, "check", check)


@_mutant("takes an undocumented word for an end", 4)
def _ends_by_any_word() -> Plant:
    words = status.TERMINAL | {PaymentStatus.UNDOCUMENTED}
    return patch.object(PaymentStatus, "is_terminal", property(lambda self: self in words))


@_mutant("reports a wait that ran out as a failure", 4)
def _fails_by_clock() -> Plant:
    real = _follow.Followers.wait

    async def wait(self: Any, *args: Any) -> Payment:
        try:
            return await real(self, *args)
        except PaymentStillPending as error:
            if error.payment is None:
                raise
            failed = PaymentStatus.FAILED
            return attrs.evolve(error.payment, status=failed, status_text="failed")

    return patch.object(_follow.Followers, "wait", wait)


# --- Time, tasks, connections


@_mutant("takes its request along when a caller is cancelled", 5)
def _dies_with_the_caller() -> Plant:
    real = _tasks.OwnedTask.wait

    async def wait(self: Any) -> None:
        try:
            await real(self)
        except BaseException:
            self.cancel()
            raise

    return patch.object(_tasks.OwnedTask, "wait", wait)


@_mutant("ignores max_wait", 5)
def _waits_on() -> Plant:
    real = AsyncPayNexus._terms

    def terms(self: Any, max_wait: float, *args: Any) -> Any:
        return real(self, max_wait + 20, *args)

    return patch.object(AsyncPayNexus, "_terms", terms)


@_mutant("lets an exchange take longer than it may", 5)
def _takes_its_time() -> Plant:
    real = _transport.Transport.exchange

    async def exchange(self: Any, *args: Any, timeout_seconds: float, **options: Any) -> Any:
        return await real(self, *args, timeout_seconds=timeout_seconds + 9, **options)

    return patch.object(_transport.Transport, "exchange", exchange)


@_mutant("loses the connection of a request that failed", 5)
def _loses_lanes() -> Plant:
    real = _transport._Lanes.put_back

    def put_back(self: Any, call: Any, lane: Any) -> None:
        if sys.exc_info()[0] is None:
            real(self, call, lane)

    return patch.object(_transport._Lanes, "put_back", put_back)


@_mutant(
    "reads no further than the head of a 5xx, and leaves it open in a borrowed pool", 5, seed=8
)
def _leaves_answers_open() -> Plant:
    real = _transport._read

    async def read(call: Any, response: Any, started: float) -> Any:
        if isinstance(response, httpx2.Response) and response.status_code >= 500:
            response.aclose = anyio.lowlevel.checkpoint
            return models.APIResponse(response.status_code, {}, b"", 0.0)
        return await real(call, response, started)

    return patch.object(_transport, "_read", read)


@_mutant("closes a borrowed client", 5, seed=8)
def _closes_what_is_borrowed() -> Plant:
    real = _transport.Transport.__init__

    def init(self: Any, **options: Any) -> None:
        real(self, **options)
        self._ours = True

    return patch.object(_transport.Transport, "__init__", init)


@_mutant("leaves its tasks behind when it is closed", 5)
def _leaves_tasks() -> Plant:
    async def close(self: Any, seconds: float) -> None:
        """Do nothing."""

    return patch.object(_tasks.OwnedTasks, "close", close)


# --- Many payments


@_mutant("lets one bad item end a bulk", 6)
def _ends_bulks() -> Plant:
    real = AsyncPayNexus._check

    async def check(self: Any, *args: Any) -> Payment:
        try:
            return await real(self, *args)
        except PayNexusError as error:
            raise RuntimeError from error

    return patch.object(AsyncPayNexus, "_check", check)


@_mutant("loses a result of a bulk wait that ran out", 6)
def _loses_results() -> Plant:
    real = _bulk._Collector.put

    def put(self: Any, number: int, result: PaymentResult) -> None:
        if self._early is None and isinstance(result.error, PaymentStillPending):
            self.wake()
        else:
            real(self, number, result)

    return patch.object(_bulk._Collector, "put", put)


# --- Secrets


@_mutant("puts the key into an error", 7)
def _leaks_the_key() -> Plant:
    real = _transport._Exchange.failed

    def failed(self: Any, error: BaseException, key: Any) -> Any:
        leaking = real(self, error, key)
        leaking.args = (f"{leaking.message} with {key.reveal()}",)
        return leaking

    return patch.object(_transport._Exchange, "failed", failed)


@_mutant("tells OpenTelemetry the phone", 7)
def _tells_the_phone() -> Plant:
    def ended(self: Any, payment: Payment) -> Payment:
        self._span.set_attribute("paynexus.payment.phone", payment.phone or "")
        return payment

    return patch.object(telemetry._Operation, "ended", ended)


@_mutant("shows whole phones", 7)
def _shows_phones() -> Plant:
    return patch.object(models, "quoted", lambda text, **_: text)


# --- Calls


@_mutant("ignores Retry-After", 8)
def _ignores_retry_after() -> Plant:
    return patch.object(_quota.Quota, "refused", lambda self, now, _: self._ended(now))


@_mutant("polls as fast as it can", 8)
def _polls() -> Plant:
    return patch.object(Schedule, "seconds_to_next_look", lambda *_, **__: 0.3)


# --- What is said of a lost prompt


@_mutant("finds a payment of another amount", 11)
def _finds_any_amount() -> Plant:
    real = _resolver._match

    def match(sought: Any, payment: Payment, clock: Any, **options: Any) -> Any:
        return real(sought, attrs.evolve(payment, amount=sought.intent.amount), clock, **options)

    return patch.object(_resolver, "_match", match)


def _none_of(sought: Any) -> NoPaymentFound:
    moment = datetime.fromtimestamp(0, UTC)
    return NoPaymentFound(seen_from=moment, seen_to=moment, reason=f"none of {sought!r}")


@_mutant("says that there is none when a page failed", 11)
def _none_on_failure() -> Plant:
    return patch.object(_resolver, "_not_seen", _none_of)


@_mutant("finds any of two that may be the one", 11)
def _finds_any() -> Plant:
    return patch.object(
        _resolver, "_undecided", lambda _, candidates: PaymentFound(payment=candidates[0])
    )


@_mutant("says that there is none where it cannot be told", 11)
def _none_when_undecided() -> Plant:
    return patch.object(_resolver, "_undecided", lambda *_: _none_of(None))


@_mutant("says that there is none before it can be listed", 11)
def _none_at_once() -> Plant:
    return patch.object(_resolver, "SETTLE_SECONDS", 0.0)


@_mutant("takes a list that it has not seen whole for all of it", 11)
def _takes_a_part() -> Plant:
    return patch.object(_resolver, "_is_past", lambda *_: True)


@_mutant("gives two lost prompts one payment", 11)
def _shares() -> Plant:
    return patch.object(_prompts.Prompts, "rivals_of", lambda *_: [])


@_mutant("finds what it knows to be another prompt's", 11)
def _finds_its_own() -> Plant:
    return patch.object(_prompts.Prompts, "_owner_of", lambda *_: None)


# --- As it was


@_mutant("as it was: whoever asks by name completes everybody's payment", 3)
def _holds_to_the_name_only() -> Plant:
    def observe(self: Any, payment: Payment, asker: Any = None) -> Payment:
        return self._follower(models.Expectation.of(payment)).observe(payment, self.now())

    return patch.multiple(
        _follow.Followers, completed=lambda _, expected: expected, observe=observe
    )


@_mutant("as it was: gives up a short wait without a look", 3)
def _gives_up_early() -> Plant:
    def seconds(self: Any, terms: Any, now: float) -> float:
        if self._looked_at is None or terms.wait is not None:
            return 0.0
        return max(self._looked_at + self._scheduled_seconds(self._looked_at) - now, 0.0)

    return patch.object(_follow._Follower, "_seconds_to_first_look", seconds)


@_mutant("as it was: another payment's answer ends a prompt", 1)
def _believes_another() -> Plant:
    return patch.object(_prompts.Prompts, "_is_of_this", lambda *_: True)


@_mutant("as it was: says that nothing was sent when it was closed while paying", 2)
def _says_nothing_was_sent() -> Plant:
    async def pay(self: Any, *args: Any, max_wait: float, allow_duplicate: bool) -> Payment:
        payment = await self.initiate_payment(*args, allow_duplicate=allow_duplicate)
        return await self.wait_for_completion(payment, max_wait=max_wait)

    return patch.object(AsyncPayNexus, "pay", pay)


@_mutant("as it was: shows the phone in a result's checkout request id", 7)
def _shows_results() -> Plant:
    return patch.object(PaymentResult, "__repr__", lambda self: f"PaymentResult({self.asked!r})")


@_mutant("as it was: an item that is None ends a bulk", 6)
def _ends_at_none() -> Plant:
    real = _bulk._Source.take

    async def take(self: Any) -> Any:
        taken = await real(self)
        return None if taken is None or taken[1] is None else taken

    return patch.object(_bulk._Source, "take", take)


@_mutant("as it was: a prompt for something else may be paid as that", 3)
def _believes_a_mismatch() -> Plant:
    def conclude(self: Any, prompt: Any, answer: Any) -> Payment:
        try:
            payment = _wire.outcome_of_initiate(prompt.intent, answer)
        except PayNexusError as error:
            self._prompts.settle(prompt, error, self._transport.now(), client._utc_now())
            raise
        self._prompts.settle(prompt, payment, self._transport.now(), client._utc_now())
        self._followers.initiated(payment)
        return payment

    return patch.object(AsyncPayNexus, "_conclude_initiate", conclude)


@_mutant("as it was: what a caller brings outranks what was sent", 3)
def _believes_the_caller() -> Plant:
    def completed(self: Any, expected: models.Expectation) -> models.Expectation:
        followers = self._known_by(expected.names)
        return expected.completed(followers[0].expected) if followers else expected

    return patch.object(_follow.Followers, "completed", completed)


@_mutant("as it was: who waits by another name is told nothing", 3)
def _tells_one_name() -> Plant:
    return patch.object(models.Expectation, "agrees_with", lambda *_: False)


@_mutant("as it was: takes the prompts of one moment for one", 11)
def _confuses_moments() -> Plant:
    return patch.object(Attempt, "is_that_of", lambda self, other: self.sent_at == other.sent_at)


# --- Hearing


@_mutant("believes what a webhook says", 3, 4)
def _believes_webhooks() -> Plant:
    real = AsyncPayNexus.notify

    async def notify(self: Any, news: Any) -> bool:
        if news.payment is not None and self._followers.knows(news.payment):
            with suppress(PayNexusError):
                self._followers.observe(attrs.evolve(news.payment, response=None))
        return await real(self, news)

    return patch.object(AsyncPayNexus, "notify", notify)


@_mutant("does not heed news", 12)
def _does_not_heed() -> Plant:
    return patch.object(_follow._Follower, "hear", lambda *_: None)


@_mutant("looks again for every copy of a delivery", 8)
def _heeds_each_copy() -> Plant:
    return patch.object(
        _hearsay.News, "seconds_to_look", lambda self, _: 0 if self.is_open else 1e9
    )


@_mutant("believes a delivery whatever its signature", 12)
def _believes_forgeries() -> Plant:
    return patch.object(webhooks, "_check_signature", lambda *_: None)


@_mutant("believes a delivery however old", 12)
def _believes_the_old() -> Plant:
    return patch.object(webhooks, "_check_age", lambda *_: None)
