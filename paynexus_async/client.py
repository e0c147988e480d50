"""`AsyncPayNexus`: its life, and the things it does."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final, Self, TypeVar

import attrs

from ._agenda import Agenda
from ._budget import Budget
from ._bulk import check_each, follow_each
from ._experience import Experience
from ._follow import Followers, Terms
from ._log import say
from ._observer import NOBODY
from ._pages import Pages
from ._prompts import PROMPT_LIFE_SECONDS, Prompts, refusal
from ._quota import Plan, Quota, Urgency
from ._resolver import Known, Sought, find
from ._retry import repeat
from ._schedule import Schedule
from ._wire import (
    Call,
    Intent,
    Keys,
    Listing,
    check_base_url,
    check_headers,
    connection_error,
    expect_checkout_id,
    expect_reference,
    expectation_of,
    expectation_of_intent,
    initiate_call,
    list_call,
    never_sent,
    outcome_of_initiate,
    rate_limits,
    read_page,
    read_payment,
    read_phone,
    status_call,
    validate_call,
    worth_repeating,
)
from .exceptions import (
    APIError,
    ClientStateError,
    ConfigurationError,
    InvalidRequestError,
    PaymentOutcomeUnknown,
    PayNexusError,
    RateLimitError,
)
from .models import (
    APIResponse,
    Expectation,
    Payment,
    PaymentFound,
    PaymentResult,
    PaymentStillUnknown,
    PaymentUpdate,
    PhoneValidation,
)
from .webhooks import WebhookEvent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from datetime import date
    from types import TracebackType

    from ._bulk import Items, OnProgress, Waiting
    from ._observer import Observer, Operation
    from ._prompts import Prompt
    from ._readers import TransportName
    from ._retry import StopStrategy, WaitStrategy
    from ._schedule import Patience
    from ._transport import HTTPClient
    from ._wire import Environment, Page, RateLimits, Secret
    from .exceptions import DuplicatePaymentError, PaymentMismatchError
    from .models import Attempt, Resolution

__all__ = ["AsyncPayNexus"]

T = TypeVar("T")

BASE_URL: Final = "https://paynexus.co.ke/api"
"""Where the API lives (https://paynexus.co.ke/docs/stk-push)."""

_TIMEOUT_SECONDS: Final = 30.0
_READ_ATTEMPT_SECONDS_MAX: Final = 10.0
_SECONDS_MAX: Final = 86_400.0
_RETRIES_MAX: Final = 10
_FOLLOWED_AT_ONCE: Final = 100_000
_PAUSE_AFTER_429_SECONDS: Final = 10.0  # where the server does not say


@attrs.frozen
class _Options:
    timeout_seconds: float
    retries: int
    headers: Mapping[str, str]


class AsyncPayNexus:
    """A client of the PayNexus M-Pesa STK Push API, for asyncio and trio.

        async with AsyncPayNexus(secret_key="sk_…", public_key="pk_…") as paynexus:
            payment = await paynexus.pay(amount=100, phone="0746990866", description="Order #12345")
            if payment.succeeded:
                ...

    One client serves a whole application: it shares one connection pool, one call quota and one
    memory of what was sent. Create it once and close it at the end, with `async with` or
    `aclose()`. It belongs to the event loop of its first call.

    Whatever a method raises is a `PayNexusError`; `paynexus_async.exceptions` draws the tree.
    """

    def __init__(
        self,
        secret_key: str | None = None,
        public_key: str | None = None,
        *,
        base_url: str | None = None,
        timeout: float = _TIMEOUT_SECONDS,
        max_retries: int = 2,
        default_headers: Mapping[str, str] | None = None,
        http_client: HTTPClient | None = None,
        trust_env: bool = False,
        transport: TransportName = "httpx",
        plan: str | Mapping[str, int] | Plan | None = None,
        patience: Patience | Schedule = "balanced",
        learn: bool = True,
        experience: Mapping[str, object] | None = None,
        telemetry: Observer | None = None,
    ) -> None:
        """Prepare a client; nothing is sent.

        Args:
            secret_key: `sk_…`, or `sb_…` for the sandbox environment; initiates payments. Left out,
                it is `PAYNEXUS_SECRET_KEY`.
            public_key: `pk_…`; reads, and so preserves the secret key's quota. Left out, it is
                `PAYNEXUS_PUBLIC_KEY`; without either, the secret key reads too.
            base_url: left out, `PAYNEXUS_BASE_URL`, or else the real API.
            timeout: seconds that one method may take, all told: connecting, every attempt, every
                pause between them. `wait_for_completion` and `watch` have limits of their own.
            max_retries: how often a read is repeated after a passing error, and an initiate that
                provably never left this machine. An initiate that left is never repeated.
            default_headers: sent with every request.
            http_client: an `httpx.AsyncClient`, or httpx2's, used as it is, and never closed; for
                proxies, certificates, tests.
            trust_env: whether proxies and certificates named in the environment are used.
            transport: what reads: `"httpx"`, or, on asyncio, the faster `"aiohttp"` or
                `"pyreqwest"` (each an extra of that name), or `"auto"`, the fastest one installed.
                Payments are always initiated with httpx, which can prove what did not leave; so is
                everything with an *http_client*, with *trust_env*, and on trio.
            plan: the call quota of each key: `"trial"`, `"basic"`, `"professional"`,
                `"enterprise"`, or its numbers, such as `{"minute": 60, "hour": 3600}`. Left out,
                it is what the server's `X-RateLimit-*` headers say.
            patience: what one call may cost while there is quota to spare: `"eager"` (0.1 seconds
                of delay), `"balanced"` (0.25), `"thrifty"` (1), another number of seconds, or a
                `Schedule`.
            learn: whether the client learns from its payments how long customers take.
            experience: what a client learned before: the value of its `experience`.
            telemetry: a `paynexus_async.telemetry.Telemetry`, for spans and metrics; its clients
                may share one.

        Raises:
            ConfigurationError: a key is missing, blank, malformed or the other one, the URL is not
                https, or an option is out of range. The message never holds a key.
        """
        from ._transport import Transport  # httpx is most of the import: when there is a client

        self._keys = Keys.of(
            _given(secret_key, "PAYNEXUS_SECRET_KEY"), _given(public_key, "PAYNEXUS_PUBLIC_KEY")
        )
        url = _given(base_url, "PAYNEXUS_BASE_URL")
        self._options = _Options(
            _seconds("timeout", timeout, ConfigurationError),
            _retries(max_retries),
            check_headers(default_headers),
        )
        self._transport = Transport(
            base_url=check_base_url(BASE_URL if url is None else url),
            http_client=http_client,
            trust_env=trust_env,
            reads_with=transport,
        )
        self._observer = NOBODY if telemetry is None else telemetry
        self._agenda: Agenda | None = None
        self._prompts = Prompts()
        try:
            self._budget = self._budget_of(Plan.of(plan))
            schedule = Schedule.of(patience)
            known = Experience(schedule, experience)
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        self._followers = Followers(
            ask=self._look,
            now=self._transport.now,
            tasks=self._transport.enter,
            agenda=self._own_agenda,
            budget=self._budget,
            schedule=schedule,
            experience=known,
            learn=learn,
            observer=self._observer,
        )
        self._observer.attach(self._followers, self._budget)
        self._is_view = False

    def __repr__(self) -> str:
        """Show the environment, and no key."""
        return f"<AsyncPayNexus {self.environment}>"

    @property
    def environment(self) -> Environment:
        """`sandbox` with an `sb_` key (1 to 50 KES a payment), else `production` (to 150,000)."""
        return self._keys.environment

    @property
    def experience(self) -> dict[str, object]:
        """What this client has learned of its customers' timing, as a small JSON value.

        It holds counts by age, and nothing of any payment. Give it to the next client.
        """
        return self._followers.experience.as_json()

    async def __aenter__(self) -> Self:
        """Bind the client to the running event loop."""
        self._transport.enter()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the client."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close the client: waits end, and a payment being initiated may have its answer (5 s).

        A client made by `with_options` closes nothing.
        """
        if not self._is_view:
            self._followers.close()
            self._budget.close()
            await self._transport.aclose()

    def with_options(
        self,
        *,
        timeout: float | None = None,
        max_retries: int | None = None,
        default_headers: Mapping[str, str] | None = None,
    ) -> Self:
        """Return a client with other options, which shares everything else with this one.

        Args:
            timeout: seconds that one method may take.
            max_retries: repetitions after the first attempt.
            default_headers: added to this client's; equal names are replaced.

        Raises:
            ConfigurationError: an option is out of range.
        """
        old = self._options
        view = copy.copy(self)
        view._options = _Options(
            old.timeout_seconds
            if timeout is None
            else _seconds("timeout", timeout, ConfigurationError),
            old.retries if max_retries is None else _retries(max_retries),
            {**old.headers, **check_headers(default_headers)},
        )
        view._is_view = True
        return view

    # --- The documented calls

    async def initiate_payment(
        self,
        amount: int,
        phone: str,
        description: str | None = None,
        *,
        allow_duplicate: bool = False,
        timeout: float | None = None,
    ) -> Payment:
        """Push a payment prompt to a customer's phone, at most once.

        At most one request leaves this machine, whatever happens. It is repeated only where it is
        proven that not one byte of it had left. A caller who is cancelled after it left does not
        take it back: its reference is kept, and an equal prompt is refused with it.

        Source: `POST /mpesa/payment/initiate`, https://paynexus.co.ke/docs/stk-push.

        Args:
            amount: whole KES, 1 to 150,000 (1 to 50 in the sandbox environment).
            phone: a Kenyan mobile number, such as `0746990866`.
            description: what the customer sees, such as `Order #12345`.
            allow_duplicate: send it although a prompt for the same phone and amount is open or
                unknown.
            timeout: seconds this may take, instead of the client's.

        Returns:
            The payment, `initiated`: its prompt is on the way to the phone.

        Raises:
            InvalidRequestError: the input was refused here.
            ConfigurationError: there is no secret key.
            DuplicatePaymentError: a prompt for the same phone and amount may still be open.
            APIStatusError: PayNexus rejected it; no prompt was sent.
            APIConnectionError: nothing left this machine; no prompt was sent.
            PaymentMismatchError: a prompt was sent, for something else than was asked.
            PaymentOutcomeUnknown: the answer was lost; a prompt may be on the phone.
        """
        key = self._keys.initiating
        intent = Intent.of(amount, phone, description, self.environment)
        deadline = self._deadline(timeout)
        with self._observer.operation("initiate_payment") as told:
            payment = await self._initiate(intent, key, deadline, insists=allow_duplicate)
            return told.ended(payment)

    async def get_payment_status(
        self, reference: str | Payment, *, timeout: float | None = None
    ) -> Payment:
        """Ask once where a payment stands.

        Asked again, it never goes back: an answer older than what this client has seen changes
        nothing.

        Source: `GET /payments/{reference}`, https://paynexus.co.ke/docs/stk-push.

        Args:
            reference: such as `PNXABC123DEF`; a `Payment` is held to its amount and phone too.
            timeout: seconds this may take, instead of the client's.

        Raises:
            InvalidRequestError: it cannot be a reference.
            NotFoundError: there is no such payment.
            APIError: no usable answer came.
            PaymentMismatchError: the answer contradicts what was asked.
        """
        if isinstance(reference, Payment):
            return await self._status(expectation_of(reference), timeout)
        return await self._status(expect_reference(reference), timeout)

    async def get_payment_status_by_checkout_id(
        self, checkout_request_id: str, *, timeout: float | None = None
    ) -> Payment:
        """Ask once where the payment of an M-Pesa prompt stands.

        Source: `POST /payments/status-by-checkout-id`, https://paynexus.co.ke/docs/stk-push.

        Args:
            checkout_request_id: such as `ws_CO_2701202610…`.
            timeout: seconds this may take, instead of the client's.

        Raises:
            InvalidRequestError: it cannot be a checkout request id.
            NotFoundError: there is no such payment.
            APIError: no usable answer came.
            PaymentMismatchError: the answer contradicts what was asked.
        """
        return await self._status(expect_checkout_id(checkout_request_id), timeout)

    async def validate_phone(self, phone: str, *, timeout: float | None = None) -> PhoneValidation:
        """Ask PayNexus whether a prompt can be sent to a number.

        Source: `POST /mpesa/validate-phone`, https://paynexus.co.ke/docs/stk-push. To check a
        number without spending a call, use `paynexus_async.normalize_phone`.

        Args:
            phone: as the customer wrote it.
            timeout: seconds this may take, instead of the client's.

        Raises:
            InvalidRequestError: it is not text.
            APIError: no usable answer came.
        """
        call = validate_call(phone)
        return await self._read(call, partial(read_phone, call), self._deadline(timeout))

    # --- Following

    async def pay(
        self,
        amount: int,
        phone: str,
        description: str | None = None,
        *,
        max_wait: float = 120.0,
        wait: WaitStrategy | None = None,
        stop: StopStrategy | None = None,
        allow_duplicate: bool = False,
        timeout: float | None = None,
    ) -> Payment:
        """Push a prompt and wait until the payment has ended: both of the steps in one.

        Args and errors are those of `initiate_payment` and `wait_for_completion`.
        """
        _seconds("max_wait", max_wait)
        payment = await self.initiate_payment(
            amount, phone, description, allow_duplicate=allow_duplicate, timeout=timeout
        )
        try:
            return await self.wait_for_completion(payment, max_wait=max_wait, wait=wait, stop=stop)
        except ClientStateError as error:  # closed meanwhile: before the waiting, or during it
            raise self._followers.left(expectation_of(payment)) from error

    async def wait_for_completion(
        self,
        payment: Payment | str,
        *,
        max_wait: float = 120.0,
        wait: WaitStrategy | None = None,
        stop: StopStrategy | None = None,
    ) -> Payment:
        """Wait until a payment has ended, and return it, however it ended.

        All callers who wait for one payment share one loop; cancelling one leaves the others. The
        loop looks when looking is worth a call of the quota. Errors that may pass by themselves do
        not end it, nor does a 404 in the first half minute after this client initiated the payment.

        Args:
            payment: the payment, its reference, or its checkout request id. One that has ended is
                returned at once, without a call.
            max_wait: seconds until `PaymentStillPending`, whatever is going on.
            wait: a tenacity wait strategy, such as `wait_fixed(3)`, instead of the schedule.
            stop: a tenacity stop strategy, such as `stop_after_attempt(5)`, besides *max_wait*.

        Returns:
            The payment with status `completed`, `failed`, `cancelled` or `expired`.

        Raises:
            InvalidRequestError: it cannot name a payment, or *max_wait* is out of range.
            PaymentStillPending: it has not ended, and has not failed: the customer may still pay.
            PaymentMismatchError: it ended otherwise than it was asked for.
            APIStatusError: a refusal that time does not heal, such as a bad key (401, 403).
        """
        known = payment if isinstance(payment, Payment) else None
        expected = expectation_of(payment)
        with self._observer.operation("wait_for_completion") as told:
            terms = self._terms(max_wait, wait, stop, told=told)
            return told.ended(await self._followers.wait(expected, known, terms))

    def watch(
        self,
        payment: Payment | str,
        *,
        max_wait: float = 120.0,
        revisions_for: float = 0.0,
        wait: WaitStrategy | None = None,
        stop: StopStrategy | None = None,
    ) -> AsyncGenerator[PaymentUpdate, None]:
        """Yield a payment's state, and then each change of it, until it has ended.

        Shares its loop with everybody else who waits for the payment. Close the iterator when
        leaving early (`contextlib.aclosing`), so that nobody goes on asking.

        Args:
            payment: the payment, its reference, or its checkout request id.
            max_wait: seconds until `PaymentStillPending`.
            revisions_for: seconds to go on, with few calls, after the payment has ended without
                money: late truth is yielded as a `PaymentRevision`.
            wait: a tenacity wait strategy instead of the schedule.
            stop: a tenacity stop strategy besides *max_wait*.

        Raises:
            InvalidRequestError: it cannot name a payment, or a number is out of range.
            PaymentStillPending: it has not ended.
            PaymentMismatchError: it ended otherwise than it was asked for.
            APIStatusError: a refusal that time does not heal, such as a bad key (401, 403).
        """
        known = payment if isinstance(payment, Payment) else None
        expected = expectation_of(payment)
        if revisions_for != 0:
            _seconds("revisions_for", revisions_for)
        terms = self._terms(max_wait, wait, stop, revisions_for)
        return self._followers.watch(expected, known, terms)

    async def notify(self, news: WebhookEvent | Payment | str) -> bool:
        """Wake those who wait for a payment: there is news of it, perhaps from a webhook.

            await paynexus.notify(parse_webhook(body, headers, "whsec_…"))

        Nothing in it is believed. The payment is asked for, and what that answer says counts; so
        news that is old, repeated, overtaken or about a stranger's payment changes nothing. If
        nobody waits yet, whoever does later asks at once. Where the ends of payments are heard of
        in this way, looks without news become a safety net, and when news fails to come they are
        what they were. Call it on the event loop of the client, as often as there is news.

        Args:
            news: a verified event, a payment, a reference, or a checkout request id, from wherever
                it was heard. An event about anything but a payment's end is no news.

        Returns:
            Whether somebody waits for the payment here.

        Raises:
            InvalidRequestError: it is none of these.
            ClientStateError: the client is closed.
        """
        self._transport.enter()
        if isinstance(news, WebhookEvent):
            claim = None if news.payment is None else news.payment.status
            return self._followers.hear(news.names, claim)
        claim = news.status if isinstance(news, Payment) else None
        return self._followers.hear(expectation_of(news).names, claim)

    # --- Many payments

    def check_payments(
        self,
        references: Items,
        *,
        ordered: bool = False,
        concurrency: int | None = None,
        progress: OnProgress | None = None,
    ) -> AsyncGenerator[PaymentResult, None]:
        """Ask once where each of many payments stands.

        As fast as the connections and the key's quota allow; payments that begin, single calls and
        waits go first. Items are taken as they are needed, and results are not kept: a million
        references cost no more memory than a thousand. Close the iterator when leaving early
        (`contextlib.aclosing`): nothing more is sent then.

        Args:
            references: references, checkout request ids or payments; any iterable or async
                iterable, which is taken from only while there is room.
            ordered: yield in the order of the items, instead of as they come.
            concurrency: calls under way at a time, at most what the transport has connections for.
            progress: called about ten times a second with a `BulkProgress`.

        Yields:
            One `PaymentResult` for each item: its payment, or the error that it met.

        Raises:
            ConfigurationError: *concurrency* is no number of calls.
            ClientStateError: the client is closed, or is being closed.
        """
        at_once = self._transport.connections_max
        if concurrency is not None:
            at_once = min(_count("concurrency", concurrency), at_once)
        results = check_each(
            references,
            self._check,
            tasks=self._transport.enter(),
            at_once=at_once,
            ordered=ordered,
            progress=progress,
        )
        return self._observer.bulk("check_payments", results)

    def wait_many(
        self,
        payments: Items,
        *,
        max_wait: float = 120.0,
        ordered: bool = False,
        progress: OnProgress | None = None,
    ) -> AsyncGenerator[PaymentResult, None]:
        """Wait for many payments at once, and yield each when it has ended.

        A payment that is waited for costs little memory and no task; which one is looked at next is
        decided for all of them together.

        Args:
            payments: payments, references or checkout request ids; any iterable or async iterable.
            max_wait: seconds for each, from when it is taken from the iterable.
            ordered: yield in the order of the items, instead of as they end.
            progress: called about ten times a second with a `BulkProgress`.

        Yields:
            One `PaymentResult` for each item: its payment, or what `wait_for_completion` would
            have raised, such as `PaymentStillPending`.

        Raises:
            InvalidRequestError: *max_wait* is out of range.
            ClientStateError: the client is closed, or is being closed.
        """
        _seconds("max_wait", max_wait)

        def follow(
            item: str | Payment, tell: Callable[[Payment | PayNexusError], None]
        ) -> Waiting | None:
            try:
                expected, terms = expectation_of(item), self._terms(max_wait, None, None)
                known = item if isinstance(item, Payment) else None
                return self._followers.tell(expected, known, terms, tell)
            except PayNexusError as error:
                tell(error)
                return None

        results = follow_each(
            payments,
            follow,
            tasks=self._transport.enter(),
            at_once=_FOLLOWED_AT_ONCE,
            ordered=ordered,
            progress=progress,
        )
        return self._observer.bulk("wait_many", results)

    async def wait_for_all(
        self,
        payments: Items,
        *,
        max_wait: float = 120.0,
        progress: OnProgress | None = None,
    ) -> list[PaymentResult]:
        """Wait until all of many payments have ended; return their results in input order.

        Args and errors are those of `wait_many`.
        """
        results = self.wait_many(payments, max_wait=max_wait, ordered=True, progress=progress)
        return [result async for result in results]

    def list_payments(
        self,
        *,
        status: str | None = None,
        from_date: date | None = None,
        to_date: date | None = None,
        per_page: int = 100,
    ) -> AsyncGenerator[Payment, None]:
        """Yield the account's payments, page by page, each once, in the server's order.

        A page is fetched when its first payment is asked for, as a bulk check is: payments that
        begin, single calls and waits go first. Close the iterator when leaving early
        (`contextlib.aclosing`). What the server lists against the filters is left out.

        The list may lag behind: of a payment that this client has seen before, what was seen
        later counts. While a filtered list is read, a payment that changes can move others past
        the page that is being fetched; read without *status* where none may be missed.

        Source: `GET /payments`, https://paynexus.co.ke/docs/transactions; its filters and its
        pagination are not documented, only seen.

        Args:
            status: only payments that stand there, such as `completed`.
            from_date: the first day, by Kenyan time.
            to_date: the last day.
            per_page: payments in one call, 1 to 100.

        Raises:
            InvalidRequestError: an argument was refused here.
            ClientStateError: the client is closed.
            APIError: no usable answer came. A page with a payment that cannot be understood is
                none, and neither is a list that contradicts itself or has more than 1,000 pages.
            PaymentMismatchError: the list contradicts what was asked of a payment.
        """
        listing = Listing.of(status, from_date, to_date, per_page)
        self._transport.enter()
        return self._list(listing)

    async def find_payment(
        self,
        error: PaymentOutcomeUnknown | DuplicatePaymentError | PaymentMismatchError,
        *,
        timeout: float | None = None,
    ) -> Resolution:
        """Look for the payment of a prompt whose answer was lost. Nothing is ever initiated.

        It is looked for in the account's list, by phone, amount, time and description: so give
        each payment a description of its own. As the list may lag behind, it is looked for again
        within *timeout*, about three times; that there is none is said 15 seconds after the answer
        was lost, at the earliest. What another process asks of the same phone, for the same amount
        and with the same description, in the same moment, cannot be told apart from it.

        What is found is this client's payment from then on: it can be followed, and its end lets
        the next prompt pass. Where none is found, an equal prompt is still refused without
        `allow_duplicate=True`: a request that was lost can arrive late.

        Args:
            error: what `initiate_payment` or `pay` raised. Another client than the one that raised
                it, in this process or another, does not know which payments that one's others are.
            timeout: seconds this may take, instead of the client's.

        Returns:
            `PaymentFound`, with the payment; `NoPaymentFound`, with the time that was searched; or
            `PaymentStillUnknown`, with the reason, whatever that is: two payments that may be the
            one, a list that leaves something out, an error. None of them is true or false.

        Raises:
            InvalidRequestError: the error is about no prompt whose payment is unknown.
            ClientStateError: the client is closed.
        """
        attempt = error.attempt
        if attempt is None:
            msg = f"{type(error).__name__} is about no prompt whose payment is unknown"
            raise InvalidRequestError(msg)
        deadline, prompt = self._deadline(timeout), self._prompts.of(attempt)
        if prompt is not None and prompt.payment is not None:
            return PaymentFound(payment=self._followers.latest(prompt.payment))
        sought = self._sought(attempt)
        if sought.lost_at is None:
            return PaymentStillUnknown(reason="The prompt is being sent: wait for its answer")
        found = await find(
            sought,
            partial(self._page, Listing(), Urgency.CALL, deadline),
            partial(self._known_of, attempt),
            now=self._transport.now,
            deadline=deadline,
        )
        return self._found(attempt, sought, found) if isinstance(found, PaymentFound) else found

    # --- How

    async def _list(self, listing: Listing) -> AsyncGenerator[Payment, None]:
        pages = Pages(partial(self._page, listing, Urgency.BULK, math.inf))
        while not pages.is_over:
            for payment in await pages.next():
                is_known = self._followers.knows(payment)
                listed = self._observe(payment, Expectation.of(payment)) if is_known else payment
                if listing.admits(listed):
                    yield listed

    async def _page(self, listing: Listing, urgency: Urgency, deadline: float, number: int) -> Page:
        call = list_call(listing, number)
        return await self._read(call, partial(read_page, call, number=number), deadline, urgency)

    def _sought(self, attempt: Attempt) -> Sought:
        """Put an attempt on the event loop's clock: as remembered, or by the times it tells."""
        intent = Intent(attempt.amount, attempt.phone, attempt.description)
        prompt = self._prompts.of(attempt)
        if prompt is not None:
            return Sought(intent, prompt.sent_at, prompt.lost_at)
        now, today = self._transport.now(), _utc_now()
        lost_at = attempt.lost_at or today  # its answer has come since
        return Sought(
            intent,
            now - (today - attempt.sent_at).total_seconds(),
            min(now - (today - lost_at).total_seconds(), now),
        )

    def _known_of(self, attempt: Attempt) -> Known:
        rivals = self._prompts.rivals_of(attempt)
        mine = partial(self._prompts.is_that_of, attempt=attempt)
        return Known(
            mine,
            self._prompts.has_owner,
            [Sought(one.intent, one.sent_at, one.lost_at) for one in rivals],
        )

    def _found(self, attempt: Attempt, sought: Sought, found: PaymentFound) -> Resolution:
        """Remember whose payment it is, as if its answer had come."""
        payment = found.payment
        prompt = self._prompts.of(attempt)
        if prompt is None:
            prompt = self._prompts.adopt(sought.intent, sought.sent_at, attempt)
        self._prompts.found(prompt, payment)
        asked = expectation_of_intent(sought.intent)
        expected = attrs.evolve(Expectation.of(payment), amount=asked.amount, phone=asked.phone)
        self._followers.sent(expected, sought.sent_at)
        try:
            return PaymentFound(payment=self._observe(payment, expected))
        except PayNexusError as error:
            return PaymentStillUnknown(reason=error.message, candidates=(payment,), error=error)

    async def _check(self, item: str | Payment, calling: Callable[[bool], None]) -> Payment:
        """Make one check of a bulk, whose permit may be long in coming."""
        call, read, expected = self._status_of(expectation_of(item))
        conclude = partial(_conclude_read, read)
        seconds = min(self._options.timeout_seconds, _READ_ATTEMPT_SECONDS_MAX)

        async def attempt() -> Payment:
            await self._permit(call, Urgency.BULK, math.inf)
            calling(True)
            try:
                key = self._keys.reading
                return await self._exchange(call, key, conclude, seconds, Urgency.BULK)
            finally:
                calling(False)

        observed = await repeat(
            attempt,
            worth_repeating=worth_repeating,
            retries=self._options.retries,
            deadline=math.inf,
        )
        return self._observe(observed, expected)

    async def _initiate(
        self, intent: Intent, key: Secret, deadline: float, *, insists: bool
    ) -> Payment:
        """Send a prompt once, unless one may be open and the caller does not insist."""
        if not insists:
            await self._prove_that_none_is_open(intent, deadline)

        call, prompt = initiate_call(intent), None

        async def attempt() -> Payment:
            nonlocal prompt
            await self._permit(call, Urgency.INITIATE, deadline)
            first = None if insists else self._prompts.open_like(intent, prompt)
            if first is not None:  # begun while this one waited
                self._budget.give_back(Urgency.INITIATE)
                raise refusal(first)
            now = self._transport.now()
            if prompt is None:
                prompt = self._prompts.begin(intent, now, _utc_now())
            else:
                self._prompts.again(prompt, now)
            conclude = partial(self._conclude_initiate, prompt)
            return await self._exchange(call, key, conclude, deadline - now, Urgency.INITIATE)

        try:
            return await repeat(
                attempt,
                worth_repeating=never_sent,
                retries=self._options.retries,
                deadline=deadline,
            )
        finally:
            if prompt is not None:
                self._prompts.leave(prompt)

    async def _prove_that_none_is_open(self, intent: Intent, deadline: float) -> None:
        """Refuse a second prompt beside a first one that may be open.

        A prompt that has outlived any phone's patience is asked for, once: only the proof that its
        payment has ended lets the next one pass.
        """
        first = self._prompts.open_like(intent)
        if first is None:
            return
        is_old = self._transport.now() - first.sent_at > PROMPT_LIFE_SECONDS
        if is_old and first.payment is not None:
            try:
                await self._status(expectation_of(first.payment), deadline - self._transport.now())
            except PayNexusError as error:
                raise refusal(first) from error
            first = self._prompts.open_like(intent)
        if first is not None:
            raise refusal(first)

    def _conclude_initiate(self, prompt: Prompt, answer: APIResponse | APIError) -> Payment:
        """Draw the conclusion of an initiate, even if its caller is gone by now."""
        try:
            payment = outcome_of_initiate(prompt.intent, answer)
        except PayNexusError as error:
            self._prompts.settle(prompt, error, self._transport.now(), _utc_now())
            if isinstance(error, PaymentOutcomeUnknown):
                say("payment.unknown", error=error.message, error_type=type(error).__name__)
            if prompt.payment is not None:  # sent, for something else than was asked
                named = attrs.evolve(Expectation.of(prompt.payment), amount=None, phone=None)
                self._followers.sent(named.completed(expectation_of_intent(prompt.intent)))
            raise
        self._prompts.settle(prompt, payment, self._transport.now(), _utc_now())
        say("payment.initiated", payment=Expectation.of(payment).label, status=payment.status)
        self._followers.initiated(payment)
        return payment

    async def _status(self, expected: Expectation, timeout: float | None) -> Payment:
        call, read, expected = self._status_of(expected)
        return self._observe(await self._read(call, read, self._deadline(timeout)), expected)

    def _status_of(
        self, expected: Expectation
    ) -> tuple[Call, Callable[[APIResponse], Payment], Expectation]:
        """Return the call that asks for a payment, what reads its answer, and what it is held to.

        To what this client knows, too: all who wait for the payment hear of the answer, and they
        did not ask for another amount.
        """
        call, expected = status_call(expected), self._followers.completed(expected)
        return call, partial(read_payment, call, expected=expected), expected

    async def _look(self, expected: Expectation) -> Payment:
        """Make one status call without repetitions: the loop that asked has its own schedule."""
        call = status_call(expected)
        seconds = min(self._options.timeout_seconds, _READ_ATTEMPT_SECONDS_MAX)
        conclude = partial(_conclude_read, partial(read_payment, call, expected=expected))
        observed = await self._exchange(call, self._keys.reading, conclude, seconds, Urgency.LOOK)
        self._prompts.observe(observed)
        return observed

    def _observe(self, observed: Payment, expected: Expectation) -> Payment:
        known = self._followers.completed(expected)
        if known is not expected:  # somebody may have brought the payment meanwhile
            known.check(observed)
        merged = self._followers.observe(observed)
        self._prompts.observe(observed)  # only if it is believed
        if merged is not observed:  # it may have been told to somebody who asked by the name only
            known.check(merged)
        return merged

    async def _read(
        self,
        call: Call,
        read: Callable[[APIResponse], T],
        deadline: float,
        urgency: Urgency = Urgency.CALL,
    ) -> T:
        """Make a call that changes nothing, again where that may help."""
        conclude = partial(_conclude_read, read)

        async def attempt() -> T:
            await self._permit(call, urgency, deadline)
            left = min(deadline - self._transport.now(), self._options.timeout_seconds)
            seconds = min(left, _READ_ATTEMPT_SECONDS_MAX)
            return await self._exchange(call, self._keys.reading, conclude, seconds, urgency)

        return await repeat(
            attempt,
            worth_repeating=worth_repeating,
            retries=self._options.retries,
            deadline=deadline,
        )

    async def _permit(self, call: Call, urgency: Urgency, deadline: float) -> None:
        """Wait until a call may go out.

        Raises:
            QuotaExhaustedError: the quota allows none in time.
            APITimeoutError: all connections were busy until the deadline.
            ClientStateError: the client was closed meanwhile.
        """
        if not await self._budget.enter(urgency, deadline):
            self._transport.enter()
            reason = "no connection was free within the time allowed"
            raise connection_error(call, reason, never_sent=True, timed_out=True)

    async def _exchange(
        self,
        call: Call,
        key: Secret,
        conclude: Callable[[APIResponse | APIError], T],
        seconds: float,
        urgency: Urgency,
    ) -> T:
        """Use a permit: make the call, and let the budget know how it ended."""

        def concluded(answer: APIResponse | APIError) -> T:
            told: RateLimits | float | None = None
            try:
                if isinstance(answer, APIResponse):
                    told = rate_limits(answer)
                return conclude(answer)
            except RateLimitError as error:
                seconds = error.retry_after
                told = _PAUSE_AFTER_429_SECONDS if seconds is None else seconds
                say("quota.refused", call=call.name, seconds=told)
                raise
            finally:
                self._budget.count(urgency, told, answered=isinstance(answer, APIResponse))

        return await self._transport.exchange(
            call,
            key,
            concluded,
            timeout_seconds=seconds,
            headers=self._options.headers,
            over=partial(self._budget.leave, urgency),
        )

    def _budget_of(self, plan: Plan) -> Budget:
        """One quota for each key: a key that both reads and initiates keeps some of it back."""
        is_one_key = self._keys.public is None
        reading = Quota(plan, reserves=is_one_key)
        return Budget(
            reading=reading,
            initiating=reading if is_one_key else Quota(plan),
            reads_max=self._transport.connections_max,
            initiates_max=self._transport.initiates_max,
            now=self._transport.now,
            agenda=self._own_agenda,
        )

    def _own_agenda(self) -> Agenda:
        if self._agenda is None:
            self._agenda = Agenda(self._transport.enter())
        return self._agenda

    def _deadline(self, timeout: float | None) -> float:
        self._transport.enter()
        seconds = self._options.timeout_seconds
        return self._transport.now() + (
            seconds if timeout is None else _seconds("timeout", timeout)
        )

    def _terms(
        self,
        max_wait: float,
        wait: WaitStrategy | None,
        stop: StopStrategy | None,
        revisions_seconds: float = 0.0,
        told: Operation = NOBODY,
    ) -> Terms:
        self._transport.enter()
        return Terms(
            deadline=self._transport.now() + _seconds("max_wait", max_wait),
            revisions_seconds=revisions_seconds,
            wait=wait,
            stop=stop,
            told=told,
        )


def _conclude_read(read: Callable[[APIResponse], T], answer: APIResponse | APIError) -> T:
    if isinstance(answer, APIError):
        raise answer
    return read(answer)


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _given(argument: str | None, variable: str) -> str | None:
    """Return the argument, or else what the environment says; a blank variable says nothing."""
    return argument if argument is not None else os.environ.get(variable) or None


def _seconds(name: str, value: float, error: type[PayNexusError] = InvalidRequestError) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not 0 < value <= _SECONDS_MAX:
        msg = f"{name} must be a number of seconds above 0 and at most {_SECONDS_MAX:,.0f} (a day)"
        raise error(msg)
    return float(value)


def _count(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        msg = f"{name} must be a whole number above 0"
        raise ConfigurationError(msg)
    return value


def _retries(value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _RETRIES_MAX:
        msg = f"max_retries must be a whole number from 0 to {_RETRIES_MAX}"
        raise ConfigurationError(msg)
    return value
