"""Async client for the PayNexus M-Pesa STK Push API.

Each prompt is sent at most once, followed to its end, and reported truthfully.

    from paynexus_async import AsyncPayNexus

    async with AsyncPayNexus() as paynexus:  # PAYNEXUS_SECRET_KEY, PAYNEXUS_PUBLIC_KEY
        payment = await paynexus.pay(amount=100, phone="0746990866", description="Order #12345")
"""

from ._quota import Plan
from ._schedule import Schedule, Survival
from ._version import __version__
from .client import AsyncPayNexus
from .exceptions import (
    APIConnectionError,
    APIError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ClientStateError,
    ConfigurationError,
    ConflictError,
    DuplicatePaymentError,
    InternalServerError,
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
from .models import (
    APIResponse,
    Attempt,
    BulkProgress,
    Expectation,
    NoPaymentFound,
    Payment,
    PaymentFound,
    PaymentResult,
    PaymentRevision,
    PaymentStillUnknown,
    PaymentUpdate,
    PhoneValidation,
    Resolution,
)
from .phone import mask_phones, normalize_phone
from .status import TERMINAL, TRANSITIONS, Change, PaymentStatus, advance
from .webhooks import WebhookEvent, parse_webhook

__all__ = [
    "TERMINAL",
    "TRANSITIONS",
    "APIConnectionError",
    "APIError",
    "APIResponse",
    "APIResponseError",
    "APIStatusError",
    "APITimeoutError",
    "AsyncPayNexus",
    "Attempt",
    "AuthenticationError",
    "BadRequestError",
    "BulkProgress",
    "Change",
    "ClientStateError",
    "ConfigurationError",
    "ConflictError",
    "DuplicatePaymentError",
    "Expectation",
    "InternalServerError",
    "InvalidRequestError",
    "NoPaymentFound",
    "NotFoundError",
    "PayNexusError",
    "Payment",
    "PaymentFailed",
    "PaymentFound",
    "PaymentMismatchError",
    "PaymentOutcomeUnknown",
    "PaymentResult",
    "PaymentRevision",
    "PaymentStatus",
    "PaymentStillPending",
    "PaymentStillUnknown",
    "PaymentUpdate",
    "PermissionDeniedError",
    "PhoneValidation",
    "Plan",
    "QuotaExhaustedError",
    "RateLimitError",
    "Resolution",
    "Schedule",
    "Survival",
    "UnprocessableEntityError",
    "WebhookEvent",
    "WebhookPayloadError",
    "WebhookSignatureError",
    "__version__",
    "advance",
    "mask_phones",
    "normalize_phone",
    "parse_webhook",
]
