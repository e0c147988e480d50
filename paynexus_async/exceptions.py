"""Everything that this package raises.

    PayNexusError
    ├── ConfigurationError            keys or URL unusable; nothing was sent
    ├── ClientStateError              the client is closed, or belongs to another event loop
    ├── InvalidRequestError           input refused locally; nothing was sent (also a ValueError)
    ├── DuplicatePaymentError         an equal prompt may still be open; nothing was sent
    ├── QuotaExhaustedError           no call of the key's quota is left in time; nothing was sent
    ├── PaymentOutcomeUnknown         the answer to an initiate was lost: a prompt may be out
    ├── PaymentStillPending           the wait is over, the payment is not
    ├── PaymentMismatchError          the answer contradicts what was asked
    ├── PaymentFailed                 only from `Payment.raise_for_status()`
    ├── WebhookSignatureError         a delivery that is not PayNexus's, or too old
    ├── WebhookPayloadError           a delivery that is PayNexus's, and cannot be understood
    └── APIError                      the exchange with the server
        ├── APIConnectionError        no answer
        │   └── APITimeoutError       ... within the time allowed
        ├── APIResponseError          an answer that cannot be understood
        └── APIStatusError            an answer that says no
            ├── BadRequestError             400
            ├── AuthenticationError         401
            ├── PermissionDeniedError       403
            ├── NotFoundError               404
            ├── ConflictError               409
            ├── UnprocessableEntityError    422
            ├── RateLimitError              429
            └── InternalServerError         5xx

A payment that the customer cancelled is data, not an exception: it is returned. No exception of
httpx, cattrs or tenacity leaves the package, and no message holds a key or a whole phone number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .models import APIResponse, Attempt, Expectation, Payment

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIResponseError",
    "APIStatusError",
    "APITimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "ClientStateError",
    "ConfigurationError",
    "ConflictError",
    "DuplicatePaymentError",
    "InternalServerError",
    "InvalidRequestError",
    "NotFoundError",
    "PayNexusError",
    "PaymentFailed",
    "PaymentMismatchError",
    "PaymentOutcomeUnknown",
    "PaymentStillPending",
    "PermissionDeniedError",
    "QuotaExhaustedError",
    "RateLimitError",
    "UnprocessableEntityError",
    "WebhookPayloadError",
    "WebhookSignatureError",
]


class PayNexusError(Exception):
    """The base of everything that this package raises.

    Attributes:
        message: what happened, whether a prompt may be on a phone, and what to do next.
    """

    def __init__(self, message: str) -> None:
        """Keep the message."""
        super().__init__(message)
        self.message = message

    def __reduce__(self) -> tuple[object, ...]:
        """Survive pickling and copying, in spite of keyword-only arguments."""
        return _restore, (type(self), self.message, self.__dict__)


def _restore(kind: type[PayNexusError], message: str, state: dict[str, object]) -> PayNexusError:
    error = kind.__new__(kind, message)
    error.__dict__.update(state)
    return error


class ConfigurationError(PayNexusError):
    """The client cannot work with the keys, URL or options it was given. Nothing was sent."""


class ClientStateError(PayNexusError, RuntimeError):
    """The client is closed, or belongs to another event loop. Nothing was sent.

    Unless its message names a payment: that one was waited for when the client was closed.
    """


class InvalidRequestError(PayNexusError, ValueError):
    """The input was refused locally, so nothing was sent and no prompt is on any phone."""


class DuplicatePaymentError(PayNexusError):
    """A prompt for the same phone and amount is open, or its outcome is unknown. Nothing was sent.

    Attributes:
        payment: the first payment, as far as it is known; `None` while its answer is still on the
            way, or when that answer was lost.
        reference: the first payment's reference, if it is known: follow that one instead.
        attempt: the first prompt, for `find_payment`, where its payment is not known.
    """

    def __init__(
        self, message: str, *, payment: Payment | None, attempt: Attempt | None = None
    ) -> None:
        """Keep the first payment."""
        super().__init__(message)
        self.payment = payment
        self.attempt = attempt

    @property
    def reference(self) -> str | None:
        """The first payment's reference, if it is known."""
        return self.payment.reference if self.payment else None


class QuotaExhaustedError(PayNexusError):
    """The key's quota allows no call within the time allowed: nothing was sent.

    Attributes:
        retry_after: seconds until the next call is possible.
    """

    def __init__(self, message: str, *, retry_after: float) -> None:
        """Keep the seconds."""
        super().__init__(message)
        self.retry_after = retry_after


class PaymentOutcomeUnknown(PayNexusError):
    """The request to initiate left, and its answer was lost or cannot be believed.

    A prompt may be on the customer's phone, and money may move. Do not initiate again before you
    know: `find_payment(error)` looks for the payment; where that cannot tell, look in the PayNexus
    dashboard, or ask the customer.

    Attributes:
        amount: the amount asked for, in KES.
        phone: the phone asked for, as `254746990866`.
        error: what went wrong with the answer.
        response: the answer, where there was one.
        attempt: the prompt, for `find_payment`; it survives pickling.
    """

    def __init__(
        self,
        message: str,
        *,
        amount: int,
        phone: str,
        error: APIError,
        attempt: Attempt | None = None,
    ) -> None:
        """Keep what was asked, and what came instead of an answer."""
        super().__init__(message)
        self.amount = amount
        self.phone = phone
        self.error = error
        self.attempt = attempt

    @property
    def response(self) -> APIResponse | None:
        """The answer, where there was one."""
        return self.error.response


class PaymentStillPending(PayNexusError):
    """The time to wait is over and the payment has not ended. It has not failed either.

    Attributes:
        reference: the reference, or the checkout request id, that was waited for.
        payment: the payment as last seen; `None` if it was never seen.
        attempts: the status calls that the wait has made.
        last_error: what the last status call met, if it was not an answer.
    """

    def __init__(
        self,
        message: str,
        *,
        reference: str,
        payment: Payment | None,
        attempts: int,
        last_error: APIError | None,
    ) -> None:
        """Keep what the wait has learned."""
        super().__init__(message)
        self.reference = reference
        self.payment = payment
        self.attempts = attempts
        self.last_error = last_error


class PaymentMismatchError(PayNexusError):
    """An answer's reference, amount or phone contradicts what was asked: it is not believed.

    Attributes:
        asked: what was asked.
        answered: the payment as the server tells it.
        differences: the names of the fields that contradict each other.
        attempt: the prompt, for `find_payment`, where an initiate was answered about another
            payment; else `None`.
    """

    def __init__(
        self,
        message: str,
        *,
        asked: Expectation,
        answered: Payment,
        differences: Sequence[str],
        attempt: Attempt | None = None,
    ) -> None:
        """Keep both sides."""
        super().__init__(message)
        self.asked = asked
        self.answered = answered
        self.differences: tuple[str, ...] = tuple(differences)
        self.attempt = attempt


class PaymentFailed(PayNexusError):
    """The payment ended without money: raised by `Payment.raise_for_status()` and nothing else.

    Attributes:
        payment: the payment, with `status` `failed`, `cancelled` or `expired`.
    """

    def __init__(self, message: str, *, payment: Payment) -> None:
        """Keep the payment."""
        super().__init__(message)
        self.payment = payment


class WebhookSignatureError(PayNexusError):
    """A webhook's delivery has no right signature, or is too old: nothing in it is believed."""


class WebhookPayloadError(PayNexusError):
    """A webhook's delivery has the right signature, and cannot be understood."""


class APIError(PayNexusError):
    """The exchange with the server did not bring a usable answer.

    Attributes:
        response: the answer, where there was one.
    """

    def __init__(self, message: str, *, response: APIResponse | None = None) -> None:
        """Keep the answer."""
        super().__init__(message)
        self.response = response


class APIConnectionError(APIError):
    """No answer came.

    Attributes:
        never_sent: whether it is proven that not one byte of the request left this machine.
    """

    def __init__(self, message: str, *, never_sent: bool) -> None:
        """Keep the proof."""
        super().__init__(message)
        self.never_sent = never_sent


class APITimeoutError(APIConnectionError):
    """No answer came within the time allowed."""


class APIResponseError(APIError):
    """An answer came that cannot be understood: not JSON, cut, oversized, a redirect."""


class APIStatusError(APIError):
    """The server answered, and its answer is an error.

    HTTP 200 with `"success": false` is one too.

    Attributes:
        status_code: the HTTP status.
        code: the API's code, such as `RATE_LIMIT`, if any.
        detail: the API's own words, with phone numbers masked.
        errors: for each refused field, what is wrong with it; empty where the API does not say.
        request_id: the server's name for this exchange, if it gave one.
        body: the JSON document of the answer, or `None` where it has none.
        response: status, headers and bytes of the answer.
    """

    response: APIResponse

    def __init__(
        self,
        message: str,
        *,
        response: APIResponse,
        code: str | None = None,
        detail: str | None = None,
        errors: Mapping[str, Sequence[str]] | None = None,
        body: object = None,
    ) -> None:
        """Keep what the server said."""
        super().__init__(message, response=response)
        self.code = code
        self.detail = detail
        self.errors: Mapping[str, Sequence[str]] = dict(errors or {})
        self.body = body

    @property
    def status_code(self) -> int:
        """The HTTP status."""
        return self.response.status_code

    @property
    def request_id(self) -> str | None:
        """The server's name for this exchange, from `X-Request-Id`."""
        return self.response.headers.get("x-request-id")


class BadRequestError(APIStatusError):
    """HTTP 400: the request is malformed."""


class AuthenticationError(APIStatusError):
    """HTTP 401: the key is missing, unknown or revoked."""


class PermissionDeniedError(APIStatusError):
    """HTTP 403: the key is of the wrong kind for this call."""


class NotFoundError(APIStatusError):
    """HTTP 404: no such payment."""


class ConflictError(APIStatusError):
    """HTTP 409: the request contradicts the state of the payment."""


class UnprocessableEntityError(APIStatusError):
    """HTTP 422: a field was refused; see `errors`."""


class RateLimitError(APIStatusError):
    """HTTP 429: the key's quota is used up.

    Attributes:
        retry_after: seconds until the server wants to be asked again, if it said so.
    """

    retry_after: float | None = None


class InternalServerError(APIStatusError):
    """HTTP 5xx: the server failed."""


STATUS_ERRORS: Final[Mapping[int, type[APIStatusError]]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}
"""The class of each HTTP status that has one of its own; 5xx is `InternalServerError`."""
