"""What a checkout tells a customer's browser, whichever web framework carries it.

The stream of one payment is opened with a token: it names the payment, expires, and is encrypted,
because it stands in a URL, and URLs stand in logs. Tokens hold all that a stream needs, so that any
worker can serve any of them. A customer sees of a payment what is theirs, in plain words, and
nothing is told as failed that is only not known.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from decimal import Decimal
from enum import StrEnum, unique
from functools import singledispatch
from http import HTTPStatus
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import attrs
from cryptography.fernet import InvalidToken

from ._log import say
from ._seal import crypt_of, given
from .client import AsyncPayNexus
from .exceptions import (
    APIConnectionError,
    APIError,
    AuthenticationError,
    BadRequestError,
    ClientStateError,
    ConfigurationError,
    ConflictError,
    DuplicatePaymentError,
    InvalidRequestError,
    NotFoundError,
    PaymentFailed,
    PaymentMismatchError,
    PaymentOutcomeUnknown,
    PaymentStillPending,
    PayNexusError,
    PermissionDeniedError,
    QuotaExhaustedError,
    RateLimitError,
    UnprocessableEntityError,
    WebhookPayloadError,
    WebhookSignatureError,
)
from .models import Attempt, Payment, PaymentFound
from .phone import mask_phones
from .status import Change, PaymentStatus, advance
from .webhooks import BODY_BYTES_MAX, SIGNATURE_HEADER, WebhookEvent, wrapped

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
    from contextlib import AbstractAsyncContextManager

    from ._wire import Secret
    from .durable import DurablePayments

__all__ = [
    "ACKNOWLEDGEMENT",
    "HEARTBEAT_SECONDS",
    "LIFETIME_SECONDS",
    "MAX_WAIT_SECONDS",
    "RECONNECT_MILLISECONDS",
    "Answer",
    "BodyTooLargeError",
    "CustomerState",
    "CustomerView",
    "Durable",
    "OnEvent",
    "Prepared",
    "StreamEvent",
    "Subject",
    "TokenError",
    "Tokens",
    "accepted",
    "acknowledged",
    "answer_to",
    "checked",
    "checked_wait",
    "customer_answer",
    "follow",
    "log_answer",
    "not_known",
    "problem",
    "read_body",
    "take_event",
]

LIFETIME_SECONDS: Final = 900.0
"""How long a token opens its stream."""
MAX_WAIT_SECONDS: Final = 120.0
"""How long one stream follows its payment; the browser may open it again."""
HEARTBEAT_SECONDS: Final = 15.0
"""How often a silent stream sends a comment, so that a connection that is no more is found out."""
RECONNECT_MILLISECONDS: Final = 3_000
"""When a browser opens a stream again that ended, or broke, before the payment did."""

ACKNOWLEDGEMENT: Final[Mapping[str, object]] = MappingProxyType(
    {"ResultCode": 0, "ResultDesc": "Accepted"}
)
"""What PayNexus wants to hear, with status 200: whatever is not acknowledged comes again.

Source: https://paynexus.co.ke/docs/webhooks.
"""

Subject = Payment | PaymentOutcomeUnknown
"""What a token names: a payment, or a prompt whose answer was lost."""

_LIFETIME_SECONDS_MAX: Final = 86_400.0
_MAX_WAIT_SECONDS_MAX: Final = 86_400.0
_TOKEN_CHARACTERS_MAX: Final = 4_096


class TokenError(PayNexusError):
    """A token is forged, damaged, too old, or of another secret: it opens nothing."""


class BodyTooLargeError(WebhookSignatureError):
    """A delivery is larger than any of PayNexus's: it was not read to its end."""


class Tokens:
    """Issues and reads the tokens of one application.

    Attributes:
        lifetime_seconds: how long a token can be read.
    """

    def __init__(
        self,
        secret: str | Iterable[str],
        *,
        lifetime_seconds: float = LIFETIME_SECONDS,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Prepare.

        Args:
            secret: at least 32 characters that nobody can guess, the same in all workers; or
                several, while one replaces another: the first issues, all read.
            lifetime_seconds: how long a token can be read, at most a day.
            now: the clock, in seconds since 1970.

        Raises:
            ConfigurationError: a secret is missing or short, or the lifetime out of range.
        """
        secrets, secret = wrapped(secret), ()  # an error reporter shows local variables
        self._crypt = crypt_of(secrets, "checkout")
        if not 1 <= lifetime_seconds <= _LIFETIME_SECONDS_MAX:
            msg = f"a token lives 1 to {_LIFETIME_SECONDS_MAX:,.0f} seconds"
            raise ConfigurationError(msg)
        self.lifetime_seconds: Final = lifetime_seconds
        self._now = now

    def issue(self, subject: Subject) -> str:
        """Return a token for a payment, or for a prompt whose answer was lost.

        Raises:
            InvalidRequestError: it names no payment, and no prompt to look for.
        """
        content = json.dumps(_content(subject), separators=(",", ":")).encode()
        return self._crypt.encrypt_at_time(content, int(self._now())).decode()

    def read(self, token: str) -> Subject:
        """Return what a token names.

        Raises:
            TokenError: it opens nothing.
        """
        try:
            content = self._crypt.decrypt_at_time(
                token[:_TOKEN_CHARACTERS_MAX], int(self.lifetime_seconds), int(self._now())
            )
            return _subject(json.loads(content))
        except (InvalidToken, ValueError, KeyError, TypeError):
            msg = "the token is forged, damaged, too old, or of another secret"
            raise TokenError(msg) from None


def checked(webhook_secrets: tuple[Secret, ...] | None) -> tuple[Secret, ...]:
    """Return the secrets of webhooks, or none where no webhooks are wanted.

    Raises:
        ConfigurationError: one that is given is blank.
    """
    if webhook_secrets is None:
        return ()
    if not webhook_secrets or not all(one.reveal() for one in webhook_secrets):
        msg = "a webhook secret (whsec_…) is blank: no delivery is believed without one"
        raise ConfigurationError(msg)
    return webhook_secrets


def checked_wait(max_wait: float) -> float:
    """Return how long a stream follows its payment.

    Raises:
        ConfigurationError: every stream would end at once, or never.
    """
    if not 0 < max_wait <= _MAX_WAIT_SECONDS_MAX:
        msg = f"max_wait must be above 0 and at most {_MAX_WAIT_SECONDS_MAX:,.0f} seconds"
        raise ConfigurationError(msg)
    return max_wait


def _content(subject: Subject) -> dict[str, object]:
    if isinstance(subject, Payment):
        if not (subject.reference or subject.checkout_request_id):
            msg = "a payment without a reference and a checkout request id cannot be followed"
            raise InvalidRequestError(msg)
        return {
            "reference": subject.reference,
            "checkout_request_id": subject.checkout_request_id,
            "amount": None if subject.amount is None else str(subject.amount),
            "phone": subject.phone,
        }
    lost = subject.attempt
    if lost is None:
        msg = "the error tells no prompt to look for"
        raise InvalidRequestError(msg)
    return {
        "amount": lost.amount,
        "phone": lost.phone,
        "description": lost.description,
        "sent_at": lost.sent_at.isoformat(),
        "lost_at": lost.lost_at and lost.lost_at.isoformat(),
    }


def _subject(content: dict[str, str | None]) -> Subject:
    if "sent_at" not in content:
        known = content["amount"]
        return Payment(
            reference=content["reference"],
            checkout_request_id=content["checkout_request_id"],
            status=PaymentStatus.INITIATED,
            status_text=PaymentStatus.INITIATED,
            amount=None if known is None else _number(known),
            phone=content["phone"],
        )
    lost_at, phone, amount = content["lost_at"], str(content["phone"]), int(content["amount"] or 0)
    attempt = Attempt(
        amount=amount,
        phone=phone,
        description=content["description"],
        sent_at=datetime.fromisoformat(str(content["sent_at"])),
        lost_at=None if lost_at is None else datetime.fromisoformat(lost_at),
    )
    error = APIError("the answer was lost")
    return PaymentOutcomeUnknown(
        error.message, amount=amount, phone=phone, error=error, attempt=attempt
    )


def _number(text: str) -> int | Decimal:
    number = Decimal(text)
    return int(number) if number == number.to_integral_value() else number


# --- What a customer may see


@unique
class CustomerState(StrEnum):
    """Where a payment stands, as its customer is told."""

    PROMPT = "prompt"
    """The request is on the way to the phone, or on it."""
    PROCESSING = "processing"
    """M-PESA is working on it."""
    COMPLETED = "completed"
    """Paid."""
    FAILED = "failed"
    """M-PESA refused it."""
    CANCELLED = "cancelled"
    """The customer declined it."""
    EXPIRED = "expired"
    """Nobody answered it in time; a late payment can still arrive."""
    PENDING = "pending"
    """The wait is over, the payment is not."""
    UNKNOWN = "unknown"
    """Whether there is a prompt, or where its payment stands, cannot be told."""


_C = CustomerState

_STATES: Final[Mapping[PaymentStatus, CustomerState]] = MappingProxyType(
    {
        PaymentStatus.INITIATED: _C.PROMPT,
        PaymentStatus.UNDOCUMENTED: _C.PROMPT,  # all that is known: it has not ended
        PaymentStatus.PROCESSING: _C.PROCESSING,
        PaymentStatus.COMPLETED: _C.COMPLETED,
        PaymentStatus.FAILED: _C.FAILED,
        PaymentStatus.CANCELLED: _C.CANCELLED,
        PaymentStatus.EXPIRED: _C.EXPIRED,
    }
)

_WORDS: Final[Mapping[CustomerState, tuple[str, str]]] = MappingProxyType(
    {
        _C.PROMPT: (
            "Check your phone",
            "We have asked M-PESA to send you a request. Enter your PIN on your phone to pay.",
        ),
        _C.PROCESSING: (
            "Your payment is being processed",
            "M-PESA is working on it. This takes a few seconds.",
        ),
        _C.COMPLETED: ("Thank you, you have paid", "M-PESA has confirmed your payment."),
        _C.FAILED: (
            "The payment did not go through",
            "M-PESA refused it. You can try again.",
        ),
        _C.CANCELLED: (
            "You declined the payment",
            "Nothing was paid. You can try again.",
        ),
        _C.EXPIRED: (
            "The request ran out",
            (
                "It was not answered in time. If you did enter your PIN, wait for M-PESA's message "
                "before you try again: a late payment can still arrive."
            ),
        ),
        _C.PENDING: (
            "We do not know yet",
            (
                "The payment has not ended, and may still go through. Please do not pay again: "
                "look for M-PESA's message on your phone."
            ),
        ),
        _C.UNKNOWN: (
            "We cannot tell yet whether you were asked to pay",
            (
                "The answer was lost on its way. Please look at your phone: if M-PESA asks for "
                "your PIN there, you may enter it. You are not asked to pay twice."
            ),
        ),
    }
)
"""For each state, a headline and what to do, in plain words."""

_MAY_TRY_AGAIN: Final = frozenset({_C.FAILED, _C.CANCELLED, _C.EXPIRED})
_ENDS: Final = _MAY_TRY_AGAIN | {_C.COMPLETED}


@attrs.frozen(kw_only=True)
class CustomerView:
    """What the customer of a payment may see of it.

    Attributes:
        state: where it stands.
        amount: in KES.
        phone: the customer's number, masked.
        receipt: M-PESA's receipt; only of a completed payment.
        is_over: whether nothing more comes unless the customer asks.
    """

    state: CustomerState
    amount: int | Decimal | None = None
    phone: str | None = None
    receipt: str | None = None
    is_over: bool = False

    @classmethod
    def of(cls, subject: Subject) -> CustomerView:
        """Show a payment, or a prompt whose answer was lost."""
        if not isinstance(subject, Payment):
            return cls.told(_C.UNKNOWN, subject.amount, subject.phone)
        state = _STATES[subject.status]
        return cls(
            state=state,
            amount=subject.amount,
            phone=None if subject.phone is None else mask_phones(subject.phone),
            receipt=subject.receipt if subject.succeeded else None,
            is_over=state in _ENDS,
        )

    @classmethod
    def told(
        cls, state: CustomerState, amount: int | Decimal | None, phone: str | None
    ) -> CustomerView:
        """Show what is not known of a payment."""
        return cls(state=state, amount=amount, phone=None if phone is None else mask_phones(phone))

    @property
    def title(self) -> str:
        """The state as a headline."""
        return _WORDS[self.state][0]

    @property
    def text(self) -> str:
        """What the customer is to know, and to do."""
        return _WORDS[self.state][1]

    @property
    def may_try_again(self) -> bool:
        """Whether another payment may be offered: never while this one can still be paid."""
        return self.state in _MAY_TRY_AGAIN

    def as_json(self) -> dict[str, object]:
        """Return what a page shows, as a JSON object."""
        return {
            "state": self.state.value,
            "title": self.title,
            "text": self.text,
            "amount": self.amount if isinstance(self.amount, int | None) else str(self.amount),
            "phone": self.phone,
            "receipt": self.receipt,
            "is_over": self.is_over,
            "may_try_again": self.may_try_again,
        }


# --- The stream


@attrs.frozen(kw_only=True)
class StreamEvent:
    """One server-sent event of a payment's stream.

    Attributes:
        view: what it tells.
        id: the payment's status, for `Last-Event-ID`; `None` where nothing new is known.
        name: its type: a page listens for `payment`.
    """

    view: CustomerView
    id: str | None = None
    name: str = "payment"

    @property
    def data(self) -> str:
        """What it tells, as JSON on one line."""
        return json.dumps(self.view.as_json())


async def follow(
    paynexus: AsyncPayNexus,
    subject: Subject,
    *,
    last_event_id: str | None = None,
    max_wait: float = MAX_WAIT_SECONDS,
) -> AsyncGenerator[StreamEvent, None]:
    """Yield the events of a payment's stream: its state, and each change until it has ended.

    Where the answer to its initiate was lost, it is looked for first. Whoever comes again is not
    told what they have seen, but for an end. Where the wait is over before the payment, the last
    event is `pending`, and the page may come again; where nothing can be told, it is `unknown`, and
    the customer may ask for another look. Close it when leaving early.

    Args:
        paynexus: follows the payment; all streams of one payment share its loop.
        subject: what the token names.
        last_event_id: the header `Last-Event-ID`, from a browser that comes again.
        max_wait: seconds.
    """
    seen = _seen(last_event_id)
    try:
        if not isinstance(subject, Payment):
            if seen is None:
                yield StreamEvent(view=CustomerView.of(subject))
            found = await paynexus.find_payment(subject)
            if not isinstance(found, PaymentFound):
                yield _end(_C.UNKNOWN, subject, is_over=True)
                return
            subject = found.payment
        async with aclosing(paynexus.watch(subject, max_wait=max_wait)) as updates:
            async for update in updates:
                if _is_news(seen, update.payment.status):
                    seen = update.payment.status
                    yield StreamEvent(view=CustomerView.of(update.payment), id=seen)
    except PaymentStillPending as error:
        yield _end(_C.PENDING, error.payment or subject)
    except ClientStateError:
        return  # the application is closing: the browser comes again, perhaps to another worker
    except PayNexusError as error:
        say("checkout.untold", error=error.message)
        yield _end(_C.UNKNOWN, subject, is_over=True)


def _seen(last_event_id: str | None) -> PaymentStatus | None:
    """Read a header that a browser sends back; what is no status of ours was not seen."""
    try:
        return PaymentStatus(last_event_id or "")
    except ValueError:
        return None


def _is_news(seen: PaymentStatus | None, status: PaymentStatus) -> bool:
    """Whether a customer who saw one status is to be told of another.

    Another worker may know less of the payment: a page never goes back.
    """
    if seen is None or (status is seen and status.is_terminal):
        return True
    return advance(seen, status)[1] in {Change.ADVANCED, Change.REVISED}


def _end(state: CustomerState, subject: Subject, *, is_over: bool = False) -> StreamEvent:
    view = CustomerView.told(state, subject.amount, subject.phone)
    return StreamEvent(view=attrs.evolve(view, is_over=is_over))


# --- Answers over HTTP


@attrs.frozen(kw_only=True)
class Answer:
    """One answer to a browser.

    Attributes:
        status: of HTTP.
        document: its JSON object.
        headers: its headers, `Content-Type` among them.
    """

    status: int
    document: Mapping[str, object]
    headers: Mapping[str, str]

    @property
    def body(self) -> bytes:
        """The document's bytes."""
        return json.dumps(dict(self.document)).encode()


def accepted(subject: Subject, tokens: Tokens) -> Answer:
    """Answer a checkout whose prompt is, or may be, on the phone: follow it by the `token`.

    202 says that nothing has ended. In no case may it read as a failure: who reads one pays again.
    """
    return Answer(
        status=HTTPStatus.ACCEPTED,
        document={**CustomerView.of(subject).as_json(), "token": tokens.issue(subject)},
        headers=_headers("application/json"),
    )


def not_known(state: CustomerState, *, is_over: bool = False) -> Answer:
    """Answer a checkout of which no more can be told than its state: nobody follows it by that."""
    view = CustomerView(state=state, is_over=is_over)
    return Answer(
        status=HTTPStatus.ACCEPTED,
        document=view.as_json(),
        headers=_headers("application/json"),
    )


_OUR_FAULT: Final = "Something is wrong at our end, and we are told of it. Please ask us for help."

_PROBLEMS: Final[Mapping[type[PayNexusError], tuple[HTTPStatus, str, str]]] = MappingProxyType(
    {
        InvalidRequestError: (HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", ""),
        DuplicatePaymentError: (
            HTTPStatus.CONFLICT,
            "duplicate-payment",
            (
                "A request for this amount may already be on that phone: please answer it there, "
                "or wait until it has ended. Nothing was sent now."
            ),
        ),
        PaymentFailed: (
            HTTPStatus.PAYMENT_REQUIRED,
            "payment-failed",
            "The payment ended, and was not paid.",
        ),
        QuotaExhaustedError: (
            HTTPStatus.SERVICE_UNAVAILABLE,
            "busy",
            "Too many are paying at the moment. Please wait a little.",
        ),
        RateLimitError: (
            HTTPStatus.SERVICE_UNAVAILABLE,
            "busy",
            "Too many are paying at the moment. Please wait a little.",
        ),
        BadRequestError: (
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "refused",
            "The payment service refused the phone number or the amount.",
        ),
        UnprocessableEntityError: (
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "refused",
            "The payment service refused the phone number or the amount.",
        ),
        NotFoundError: (HTTPStatus.NOT_FOUND, "not-found", "There is no such payment."),
        ConflictError: (
            HTTPStatus.CONFLICT,
            "conflict",
            "The payment service refused this as things stand.",
        ),
        AuthenticationError: (HTTPStatus.INTERNAL_SERVER_ERROR, "our-fault", _OUR_FAULT),
        PermissionDeniedError: (HTTPStatus.INTERNAL_SERVER_ERROR, "our-fault", _OUR_FAULT),
        APIError: (
            HTTPStatus.BAD_GATEWAY,
            "unclear-answer",
            "The payment service gave no clear answer. If a request is on your phone, it counts.",
        ),
        TokenError: (
            HTTPStatus.FORBIDDEN,
            "token",
            (
                "This page can no longer follow the payment. If you entered your PIN, look for "
                "M-PESA's message before you pay again."
            ),
        ),
        BodyTooLargeError: (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", "It is too large."),
        WebhookSignatureError: (
            HTTPStatus.UNAUTHORIZED,
            "signature",
            "The delivery's signature is missing, wrong or too old.",
        ),
        PayNexusError: (HTTPStatus.INTERNAL_SERVER_ERROR, "our-fault", _OUR_FAULT),
    }
)
"""For each class of error, and those below it: the status, its `code`, and words for a customer."""

_UNREACHABLE: Final = (
    HTTPStatus.SERVICE_UNAVAILABLE,
    "unreachable",
    "The payment service cannot be reached. Nothing was sent: you may try again in a moment.",
)
_NO_ANSWER: Final = (
    HTTPStatus.GATEWAY_TIMEOUT,
    "no-answer",
    "The payment service did not answer. If a request is on your phone, it counts.",
)


def answer_to(error: PayNexusError, tokens: Tokens, headers: Mapping[str, str]) -> Answer:
    """Answer a request that met an error of this package.

    What may still be paid is answered as `accepted`, never as a problem; the rest is a problem
    (RFC 9457) whose `code` is for programs and whose `detail` is for customers. No key, no phone
    and nothing of the inside is in it; the whole error belongs into the merchant's log.

    A second prompt beside an open one is 409, and has no token: whoever types a phone and an amount
    has not shown that they are who pays the first, and a token would tell them how it ends. Only
    the browser that got the first token can hand it on, as the example's page does to its tabs; a
    shop with customers who log in can keep it with theirs.

    A delivery, in whichever route, is acknowledged by no error: 202 is for customers.

    Args:
        error: what was met.
        tokens: issues the token of what may still be paid.
        headers: of the request; names are found in any case.
    """
    if isinstance(error, WebhookPayloadError):
        return acknowledged()  # it would be no better when it came again
    if SIGNATURE_HEADER in headers and not isinstance(error, WebhookSignatureError):
        return problem(error, _PROBLEMS[PayNexusError])
    return customer_answer(error, tokens)


@singledispatch
def customer_answer(error: PayNexusError, tokens: Tokens) -> Answer:
    """Answer a customer's request that met an error: see `answer_to`.

    A room above this one that has errors of its own registers its answers to them here.
    """
    if isinstance(error, PaymentStillPending):
        if error.payment is None:
            return not_known(_C.PENDING)
        return _as_pending(accepted(error.payment, tokens))
    if isinstance(error, PaymentOutcomeUnknown) and error.attempt is not None:
        return accepted(error, tokens)
    # Of a client that was closed, or an answer that contradicts: a prompt may be out.
    if isinstance(error, PaymentOutcomeUnknown | PaymentMismatchError | ClientStateError):
        return not_known(_C.UNKNOWN)
    return problem(error, _kind(error))


def problem(error: PayNexusError, kind: tuple[HTTPStatus, str, str]) -> Answer:
    """Answer with a problem (RFC 9457): its status, its `code`, and its words for a customer."""
    status, code, words = kind
    document = {
        "type": "about:blank",
        "title": status.phrase,
        "status": int(status),
        "detail": words or _sentence(error.message),
        "code": code,
    }
    headers = {**_headers("application/problem+json"), **_retry_after(error)}
    if status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Signature"
    return Answer(status=int(status), document=document, headers=headers)


def log_answer(answer: Answer, error: PayNexusError, route: str | None) -> None:
    """Log what was answered, and why; *route* holds places for what stands in a path."""
    is_ours = answer.status == HTTPStatus.INTERNAL_SERVER_ERROR
    say(
        "checkout.failed" if is_ours else "checkout.refused",
        route=route or "a request",
        status=answer.status,
        error=error.message,
        exc_info=error if is_ours else None,
    )


def _as_pending(answer: Answer) -> Answer:
    state = CustomerView(state=_C.PENDING)
    words = {"state": state.state.value, "title": state.title, "text": state.text}
    return attrs.evolve(answer, document={**answer.document, **words})


def _kind(error: PayNexusError) -> tuple[HTTPStatus, str, str]:
    if isinstance(error, APIConnectionError):
        return _UNREACHABLE if error.never_sent else _NO_ANSWER
    return next(_PROBLEMS[kind] for kind in type(error).__mro__ if kind in _PROBLEMS)


def _sentence(message: str) -> str:
    """Tell a local refusal to a customer: it tells the shape of the input, and not the input."""
    return f"{message[:1].upper()}{message[1:]}."


def _headers(media_type: str) -> dict[str, str]:
    return {"Content-Type": media_type, "Cache-Control": "no-store"}


def _retry_after(error: PayNexusError) -> dict[str, str]:
    if not isinstance(error, QuotaExhaustedError | RateLimitError) or error.retry_after is None:
        return {}
    return {"Retry-After": str(max(1, math.ceil(error.retry_after)))}


# --- Webhooks


OnEvent = Callable[["AsyncPayNexus", WebhookEvent], Awaitable[None]]
"""What a merchant does when PayNexus tells something: asks for the status, and acts on that."""

Durable = Callable[["AsyncPayNexus"], "AbstractAsyncContextManager[DurablePayments]"]
"""What makes an application's durable payments of its client, opens them, and closes them."""


def acknowledged() -> Answer:
    """Answer a delivery that need not come again."""
    return Answer(
        status=HTTPStatus.OK, document=ACKNOWLEDGEMENT, headers=_headers("application/json")
    )


async def read_body(chunks: AsyncIterable[bytes], content_length: str | None = None) -> bytes:
    """Read a delivery, and no more of it than a delivery has.

    Args:
        chunks: the body as it comes.
        content_length: the header of that name: what says it is too large is not read at all.

    Raises:
        BodyTooLargeError: it is larger than any of PayNexus's.
    """
    msg = f"the delivery is larger than {BODY_BYTES_MAX:,} bytes, and none of PayNexus's is"
    declared = content_length or ""
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > BODY_BYTES_MAX:
        raise BodyTooLargeError(msg)
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            raise BodyTooLargeError(msg)
    return bytes(body)


async def take_event(
    paynexus: AsyncPayNexus,
    event: WebhookEvent,
    on_event: OnEvent | None,
    durable: DurablePayments | None = None,
) -> Answer:
    """Wake whoever waits for the payment, tell the merchant, and acknowledge.

    With *durable*, whoever waits may be a row in the database, or another worker. Nothing in the
    event is believed. What *on_event* raises, or the database, goes through: the delivery is not
    acknowledged then, and comes again. So it comes at least once, and may come twice.
    """
    await (paynexus if durable is None else durable).notify(event)
    if on_event is not None:
        await on_event(paynexus, event)
    return acknowledged()


class Prepared:
    """What an application's checkout is made with, whichever web framework carries it."""

    def __init__(
        self,
        secret: str | Iterable[str] | None = None,
        webhook_secret: str | Iterable[str] | None = None,
        *,
        on_event: OnEvent | None = None,
        client: Callable[[], AsyncPayNexus] = AsyncPayNexus,
        durable: Durable | None = None,
        token_seconds: float = LIFETIME_SECONDS,
        max_wait: float = MAX_WAIT_SECONDS,
    ) -> None:
        """Prepare; nothing is opened.

        Args:
            secret: encrypts the tokens of streams: at least 32 characters, the same in all workers;
                or several, while one replaces another: the first issues, all read. Left out, it is
                `PAYNEXUS_CHECKOUT_SECRET`.
            webhook_secret: the webhook's (`whsec_…`), or several. Left out, it is
                `PAYNEXUS_WEBHOOK_SECRET`; without either, there is no route for webhooks.
            on_event: awaited with the client and each verified delivery, at least once: deliveries
                repeat, and one for which it raises an error comes again. Ask the client for the
                payment's status, and act on that.
            client: makes the client, such as `lambda: AsyncPayNexus(plan="basic")`.
            durable: called with the client once it is open, in the server's event loop: makes what
                follows payments across crashes, and returns it to be entered with the application
                and left with it, before the client is closed. The engine below is the
                application's: `paynexus_async.durable.launched` launches it when the payments are
                made, as it must be, and destroys it at the end; an async context manager of your
                own can do more between. Webhooks wake what is durable, too.
            token_seconds: how long a customer's page may open its stream, at most a day.
            max_wait: seconds that one stream follows its payment; the page may open it again.

        Raises:
            ConfigurationError: a secret is missing, blank or short, or a number out of range.
        """
        # Hidden at once: an error reporter shows what a function was called with.
        secrets, secret = given(secret, "PAYNEXUS_CHECKOUT_SECRET"), None
        webhooks, webhook_secret = given(webhook_secret, "PAYNEXUS_WEBHOOK_SECRET"), None
        self._tokens = Tokens(
            [one.reveal() for one in secrets or ()], lifetime_seconds=token_seconds
        )
        self._webhook_secrets = checked(webhooks)
        self._on_event = on_event
        self._client = client
        self._durable = durable
        self._max_wait = checked_wait(max_wait)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[tuple[AsyncPayNexus, DurablePayments | None]]:
        """Open the client and, where there is one, what is durable; close them in turn."""
        async with self._client() as paynexus:
            if self._durable is None:
                yield paynexus, None
                return
            async with self._durable(paynexus) as durable:
                yield paynexus, durable
