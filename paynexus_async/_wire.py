"""The API's rules as pure functions: what may be asked, and what an answer means.

Nothing here opens a socket, reads a clock or holds a key. Sources: [docs] is
https://paynexus.co.ke/docs/stk-push, [transactions] https://paynexus.co.ke/docs/transactions,
[keys] https://paynexus.co.ke/docs/api-keys.
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, date, datetime, time
from decimal import Decimal
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn
from urllib.parse import urlencode, urlsplit

import attrs

from ._convert import NAIROBI, structure_payment, structure_phone
from ._discreet import quoted
from .exceptions import (
    STATUS_ERRORS,
    APIConnectionError,
    APIError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    ConfigurationError,
    InternalServerError,
    InvalidRequestError,
    PaymentOutcomeUnknown,
    RateLimitError,
)
from .models import APIResponse, Expectation, Payment, PhoneValidation
from .phone import mask_phones, normalize_phone

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "AMOUNT_KES_MAX",
    "BODY_BYTES_MAX",
    "Call",
    "Environment",
    "Intent",
    "Keys",
    "Listing",
    "Page",
    "RateLimits",
    "Secret",
    "check_base_url",
    "check_headers",
    "connection_error",
    "date_of",
    "decode",
    "expect_checkout_id",
    "expect_reference",
    "expectation_of",
    "expectation_of_intent",
    "initiate_call",
    "list_call",
    "never_sent",
    "outcome_of_initiate",
    "oversized_error",
    "rate_limits",
    "read_page",
    "read_payment",
    "read_phone",
    "status_call",
    "validate_call",
    "worth_repeating",
]

Environment = Literal["production", "sandbox"]

AMOUNT_KES_MAX: Final[Mapping[Environment, int]] = {"production": 150_000, "sandbox": 50}
"""The largest amount of one payment [docs]; the smallest is 1."""

DESCRIPTION_CHARACTERS_MAX: Final = 255
BODY_BYTES_MAX: Final = 1024 * 1024
VALUES_MAX: Final = 20_000
"""In one answer, counted before it is decoded: a value of two bytes costs up to a hundred here, so
that one MiB of them would cost thirty. The largest real answer, a page of a hundred payments, has
two or three thousand."""
PER_PAGE_MAX: Final = 100
_ITEMS_MAX: Final = 1_000  # on one page, however many were asked for
RETRY_AFTER_SECONDS_MAX: Final = 120.0

_REFERENCE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)
_PHONE_SHAPED: Final = re.compile(r"\d{9,12}", re.ASCII)
_CHECKOUT_PREFIX: Final = "ws_CO_"
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)
_OUR_HEADERS: Final = frozenset(
    {
        "accept-encoding",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "host",
        "transfer-encoding",
        "x-api-key",
    }
)
_STATUS_WORD: Final = re.compile(r"[A-Za-z][A-Za-z_-]{0,39}", re.ASCII)
_KEY: Final = re.compile(r"[!-~]{4,256}", re.ASCII)  # visible ASCII: safe in a header line

_REJECTIONS: Final = frozenset({400, 401, 403, 404, 409, 422, 429})
"""The statuses after which no prompt is out; whatever else answers an initiate is unknown."""


# --- Keys ---------------------------------------------------------------------------------------


class Secret:
    """A key that prints no more of itself than its kind."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        """Keep the key."""
        self._value = value

    def __repr__(self) -> str:
        """Show the kind only."""
        return f"<key {self.kind}…>"

    def reveal(self) -> str:
        """Return the key itself, to be put into a header and nowhere else."""
        return self._value

    @property
    def kind(self) -> str:
        """`sk_`, `pk_` or `sb_` [keys]; another prefix is nobody's business."""
        prefix = self._value[:3]
        return prefix if prefix in {"sk_", "pk_", "sb_"} else ""


@attrs.frozen
class Keys:
    """The keys of one account: a secret one initiates, a public one reads [keys].

    Attributes:
        secret: starts with `sk_`, or `sb_` in the sandbox environment.
        public: starts with `pk_`; reading with it preserves the secret key's quota.
    """

    secret: Secret | None
    public: Secret | None

    @classmethod
    def of(cls, secret_key: str | None, public_key: str | None) -> Keys:
        """Check the keys' shape and kind.

        Raises:
            ConfigurationError: naming the argument, never the key.
        """
        if secret_key is None and public_key is None:
            msg = (
                "no API key: pass secret_key= or set PAYNEXUS_SECRET_KEY (to initiate payments), "
                "and public_key= or PAYNEXUS_PUBLIC_KEY (to read them)"
            )
            raise ConfigurationError(msg)
        secret = _secret("secret_key", secret_key, wrong="pk_", right="sk_")
        public = _secret("public_key", public_key, wrong="sk_", right="pk_")
        return cls(secret=secret, public=public)

    @property
    def environment(self) -> Environment:
        """`sandbox` where the key that spends is an `sb_` one."""
        key = self.secret or self.public
        return "sandbox" if key and key.kind == "sb_" else "production"

    @property
    def reading(self) -> Secret:
        """The key for reads."""
        key = self.public or self.secret
        assert key is not None  # noqa: S101  # nosec B101  # `of` has refused two missing keys
        return key

    @property
    def initiating(self) -> Secret:
        """The key for initiating.

        Raises:
            ConfigurationError: if there is only a public key.
        """
        if self.secret is None:
            msg = (
                "initiating a payment needs the secret key (sk_…), and this client has only the "
                "public one: pass secret_key= or set PAYNEXUS_SECRET_KEY. Nothing was sent"
            )
            raise ConfigurationError(msg)
        return self.secret


def _secret(name: str, value: str | None, *, wrong: str, right: str) -> Secret | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        msg = f"{name} is blank; leave it out to use the environment variable"
        raise ConfigurationError(msg)
    if not _KEY.fullmatch(value):
        msg = (
            f"{name} is not a key: it must be 4 to 256 visible ASCII characters; "
            "look for a space or a line break around it"
        )
        raise ConfigurationError(msg)
    if value.startswith(wrong):
        msg = f"{name} starts with {wrong}: that is the other key (a {name} starts with {right})"
        raise ConfigurationError(msg)
    return Secret(value)


def check_base_url(base_url: str) -> str:
    """Return the base URL without a trailing slash.

    Raises:
        ConfigurationError: unless it is https (or http to this machine itself), without
            credentials, query or fragment: keys travel to it.
    """
    if not isinstance(base_url, str) or not base_url.strip():
        msg = "base_url is blank; leave it out to use the real API"
        raise ConfigurationError(msg)
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", urlsplit("")
    plain = _KEY.fullmatch(base_url) is not None and not set('\\"<>^`{|}') & set(base_url)
    if not (plain and host and "@" not in parts.netloc):
        msg = "base_url must be a URL such as https://paynexus.co.ke/api, without credentials"
        raise ConfigurationError(msg)
    if parts.query or parts.fragment or base_url.endswith(("?", "#")):
        msg = "base_url must not have a query or a fragment"
        raise ConfigurationError(msg)
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        msg = (
            f"base_url must be https, not {quoted(parts.scheme)}, because keys travel to it "
            "(http is for loopback addresses such as http://127.0.0.1:8765/api only)"
        )
        raise ConfigurationError(msg)
    return base_url.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def check_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return extra headers, checked to be one line each.

    Raises:
        ConfigurationError: naming the header, never its value.
    """
    checked = {}
    for name, value in (headers or {}).items():
        if not (isinstance(name, str) and _HEADER_NAME.fullmatch(name)):
            msg = "default_headers has a name that is not one"
            raise ConfigurationError(msg)
        if not (isinstance(value, str) and value.isascii() and value.isprintable()):
            msg = f"default_headers[{quoted(repr(name))}] must be printable ASCII text on one line"
            raise ConfigurationError(msg)
        if name.lower() in _OUR_HEADERS:
            msg = f"default_headers must not set {name}: the client does"
            raise ConfigurationError(msg)
        checked[name] = value
    return checked


# --- Requests -----------------------------------------------------------------------------------


@attrs.frozen
class Call:
    """One documented call, before it meets a key or a socket.

    Attributes:
        name: the verb that makes it, for messages.
        method: the HTTP method.
        path: below the base URL.
        body: the JSON document, encoded.
        moves_money: whether sending it twice could charge twice.
    """

    name: str
    method: Literal["GET", "POST"]
    path: str
    body: bytes | None = attrs.field(default=None, repr=False)
    moves_money: bool = False


@attrs.frozen(repr=False)
class Intent:
    """A payment about to be initiated: checked, normalised, not yet sent.

    Attributes:
        amount: in KES.
        phone: as `254746990866`.
        description: what the customer sees, if anything.
    """

    amount: int
    phone: str
    description: str | None = None

    @classmethod
    def of(
        cls, amount: int, phone: str, description: str | None, environment: Environment
    ) -> Intent:
        """Check the input of an initiate.

        Raises:
            InvalidRequestError: naming what is wrong; nothing was sent.
        """
        return cls(_amount(amount, environment), normalize_phone(phone), _description(description))

    def __repr__(self) -> str:
        """Show the amount, and the phone masked."""
        return f"<Intent KES {self.amount} from {mask_phones(self.phone)}>"


def initiate_call(intent: Intent) -> Call:
    """`POST /mpesa/payment/initiate` [docs]: the only call that moves money."""
    body: dict[str, object] = {"amount": intent.amount, "phone": intent.phone}
    if intent.description is not None:
        body["description"] = intent.description
    return Call(
        "initiate_payment", "POST", "/mpesa/payment/initiate", _encode(body), moves_money=True
    )


def status_call(expected: Expectation) -> Call:
    """Ask for a payment by reference, or by checkout request id where there is no reference.

    `GET /payments/{reference}` and `POST /payments/status-by-checkout-id` [docs].
    """
    if expected.reference is None:
        body = _encode({"checkout_request_id": expected.checkout_request_id})
        name = "get_payment_status_by_checkout_id"
        return Call(name, "POST", "/payments/status-by-checkout-id", body)
    return Call("get_payment_status", "GET", f"/payments/{expected.reference}")


def validate_call(phone: str) -> Call:
    """`POST /mpesa/validate-phone` [docs]: a read, although it is a POST."""
    if not isinstance(phone, str) or not phone.strip() or not phone.isprintable():
        msg = "phone must be a printable string such as '0746990866'; nothing was sent"
        raise InvalidRequestError(msg)
    return Call("validate_phone", "POST", "/mpesa/validate-phone", _encode({"phone": phone}))


@attrs.frozen
class Listing:
    """Which payments are listed, and how many at a time.

    Attributes:
        status: where they stand; `None` for anywhere.
        first: the first day on which they were made, by Kenyan time.
        last: the last one.
        per_page: payments in one answer.
    """

    status: str | None = None
    first: date | None = None
    last: date | None = None
    per_page: int = PER_PAGE_MAX

    @classmethod
    def of(
        cls, status: str | None, from_date: date | None, to_date: date | None, per_page: int
    ) -> Listing:
        """Check what a caller asks for.

        Raises:
            InvalidRequestError: naming what is wrong; nothing was sent.
        """
        if status is not None and not (isinstance(status, str) and _STATUS_WORD.fullmatch(status)):
            msg = "status must be a word such as 'completed'; nothing was sent"
            raise InvalidRequestError(msg)
        first, last = _day("from_date", from_date), _day("to_date", to_date)
        if first and last and last < first:
            msg = "to_date is before from_date; nothing was sent"
            raise InvalidRequestError(msg)
        is_count = isinstance(per_page, int) and not isinstance(per_page, bool)
        if not is_count or not 1 <= per_page <= PER_PAGE_MAX:
            msg = f"per_page must be a whole number from 1 to {PER_PAGE_MAX}; nothing was sent"
            raise InvalidRequestError(msg)
        return cls(None if status is None else str(status), first, last, per_page)

    def admits(self, payment: Payment) -> bool:
        """Whether a payment is what was asked for, as far as it tells: filters may be ignored."""
        if self.status is not None and payment.status_text.lower() != self.status.lower():
            return False
        made_at = payment.created_at
        if made_at is None:
            return True
        begun = self.first is None or made_at >= datetime.combine(self.first, time.min, NAIROBI)
        return begun and (
            self.last is None or made_at <= datetime.combine(self.last, time.max, NAIROBI)
        )


def _day(argument: str, day: date | None) -> date | None:
    if isinstance(day, datetime) or not isinstance(day, date | None):
        msg = f"{argument} must be a datetime.date, a day of Kenyan time; nothing was sent"
        raise InvalidRequestError(msg)
    return day


def list_call(listing: Listing, page: int) -> Call:
    """`GET /payments` [transactions]: one page of the account's payments."""
    query = {
        "status": listing.status,
        "from_date": listing.first,
        "to_date": listing.last,
        "page": page,
        "per_page": listing.per_page,
    }
    given = urlencode({name: value for name, value in query.items() if value is not None})
    return Call("list_payments", "GET", f"/payments?{given}")


def expectation_of(payment: Payment | str) -> Expectation:
    """What an answer about *payment* must agree with.

    Args:
        payment: a payment, its reference, or its checkout request id (`ws_CO_…`).

    Raises:
        InvalidRequestError: if it cannot name a payment.
    """
    if isinstance(payment, Payment):
        expected = Expectation.of(payment)
    elif isinstance(payment, str) and payment.startswith(_CHECKOUT_PREFIX):
        expected = Expectation(checkout_request_id=payment)
    elif isinstance(payment, str):
        expected = Expectation(reference=payment)
    else:
        msg = f"expected a Payment or a reference, not {type(payment).__name__}"
        raise InvalidRequestError(msg)
    _check_name(expected)
    return expected


def expectation_of_intent(intent: Intent) -> Expectation:
    """What the payment of a prompt must agree with, before it has a name."""
    return Expectation(amount=intent.amount, phone=intent.phone)


def expect_reference(reference: str) -> Expectation:
    """Expect the payment with this reference."""
    expected = Expectation(reference=reference)
    _check_name(expected)
    if reference.startswith(_CHECKOUT_PREFIX):
        msg = (
            "reference is a checkout request id (ws_CO_…): "
            "ask with get_payment_status_by_checkout_id()"
        )
        raise InvalidRequestError(msg)
    return expected


def expect_checkout_id(checkout_request_id: str) -> Expectation:
    """Expect the payment with this checkout request id."""
    expected = Expectation(checkout_request_id=checkout_request_id)
    _check_name(expected)
    return expected


def _check_name(expected: Expectation) -> None:
    """Let nothing into a path or a body that is not a name: no `../`, no `?`, no line break."""
    if expected.reference is not None:
        argument, example, text = "reference", "PNXABC123DEF", expected.reference
    else:
        argument, example = "checkout_request_id", "ws_CO_…"
        text = expected.checkout_request_id or ""
    if not isinstance(text, str) or not _REFERENCE.fullmatch(text):
        msg = (
            f"{argument} must be 1 to 64 letters, digits, '-' or '_', such as {example}; "
            "nothing was sent"
        )
        raise InvalidRequestError(msg)
    if _PHONE_SHAPED.fullmatch(text):
        msg = f"{argument} looks like a phone number; payments are asked for by their reference"
        raise InvalidRequestError(msg)


def _amount(amount: int, environment: Environment) -> int:
    largest = AMOUNT_KES_MAX[environment]
    if isinstance(amount, bool) or not isinstance(amount, int):
        got = (
            f"{quoted(repr(amount))} ({type(amount).__name__})"
            if isinstance(amount, float | bool)
            else (type(amount).__name__)
        )
        msg = f"amount must be a whole number of KES (int), not {got}; nothing was sent"
        raise InvalidRequestError(msg)
    if not 1 <= amount <= largest:
        # A phone in the place of the amount is a phone all the same.
        shown = quoted(str(amount)) if abs(amount) < 10**12 else "a far larger number"
        msg = (
            f"amount must be 1 to {largest:,} KES in the {environment} environment, "
            f"not {shown}; nothing was sent"
        )
        raise InvalidRequestError(msg)
    return int(amount)


def _description(description: str | None) -> str | None:
    if description is None:
        return None
    if not isinstance(description, str):
        msg = f"description must be a string, not {type(description).__name__}"
        raise InvalidRequestError(msg)
    if len(description) > DESCRIPTION_CHARACTERS_MAX:
        msg = f"description has {len(description)} characters, more than the 255 that are safe"
        raise InvalidRequestError(msg)
    if not description.isprintable():
        msg = "description has a line break or another character that a phone cannot show"
        raise InvalidRequestError(msg)
    return description


def _encode(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


# --- No answer ----------------------------------------------------------------------------------


def connection_error(
    call: Call, reason: str, *, never_sent: bool, timed_out: bool
) -> APIConnectionError:
    """Build the error of an exchange without an answer: what is proven, and what to do next."""
    if never_sent:
        proof = "Nothing left this machine"
        advice = "no prompt was sent, and trying again is safe" if call.moves_money else "try again"
    elif call.moves_money:
        proof, advice = "The request had left", "whether it arrived is not known"
    else:
        proof, advice = "The answer was lost", "asking again is safe"
    kind = APITimeoutError if timed_out else APIConnectionError
    words = (_quote(reason) or "no answer").rstrip(".")
    msg = f"{call.name}: {words}. {proof}: {advice}"
    return kind(msg, never_sent=never_sent)


def oversized_error(call: Call, response: APIResponse) -> APIResponseError:
    """Build the error of an answer that is larger than any real one."""
    msg = (
        f"{call.name}: the answer (HTTP {response.status_code}) cannot be understood: "
        f"it is larger than {BODY_BYTES_MAX:,} bytes"
    )
    return APIResponseError(msg, response=response)


# --- Answers ------------------------------------------------------------------------------------


def read_payment(
    call: Call, response: APIResponse, expected: Expectation, *, strictly: bool = False
) -> Payment:
    """Read a payment from an answer, and hold it to what was asked.

    Args:
        call: what was asked, for messages.
        response: the answer.
        expected: what the answer must agree with.
        strictly: whether amount and phone count even though the payment has not ended.

    Raises:
        APIStatusError: if the server says no.
        APIResponseError: if the answer cannot be understood.
        PaymentMismatchError: if it contradicts what was asked.
    """
    data = _data(call, response)
    try:
        answered = structure_payment(data, response)
    except ValueError as error:
        _not_understood(call, response, str(error), error)
    expected.check(answered, strictly=strictly)
    completed: dict[str, Any] = {
        "reference": answered.reference or expected.reference,
        "checkout_request_id": answered.checkout_request_id or expected.checkout_request_id,
        "amount": expected.amount if answered.amount is None else answered.amount,
        "phone": expected.phone or answered.phone,
    }
    if all(getattr(answered, name) == value for name, value in completed.items()):
        return answered
    return attrs.evolve(answered, **completed)


@attrs.frozen
class Page:
    """One page of a list of payments.

    Attributes:
        payments: in the order of the server.
        last: the number of the last page, if the server tells.
        total: how many payments there are on all pages, if it tells.
        response: the answer.
    """

    payments: tuple[Payment, ...]
    last: int | None
    total: int | None
    response: APIResponse


def read_page(call: Call, response: APIResponse, number: int) -> Page:
    """Read a page of a list.

    It is read whole or not at all: whoever counts must not miss a payment in silence.

    Args:
        call: what was asked, for messages.
        response: the answer.
        number: which page was asked for.

    Raises:
        APIStatusError: if the server says no.
        APIResponseError: if the answer, or one payment in it, cannot be understood, or if it is
            another page.
    """
    envelope = _envelope(call, response)
    data = envelope.get("data")
    if not isinstance(data, list) or len(data) > _ITEMS_MAX:
        _not_understood(call, response, f"it has no list of at most {_ITEMS_MAX:,} payments")
    payments = []
    for place, item in enumerate(data, 1):
        try:
            payments.append(structure_payment(item if isinstance(item, dict) else {}, response))
        except ValueError as error:
            _not_understood(call, response, f"item {place} of {len(data)}: {error}", error)
    told = envelope.get("pagination")
    pagination = told if isinstance(told, dict) else {}
    current = _whole(pagination.get("current_page"))
    if current not in {None, number}:
        _not_understood(call, response, f"page {number} was asked for, and it is page {current}")
    last, total = _whole(pagination.get("last_page")), _whole(pagination.get("total"))
    return Page(tuple(payments), last, total, response)


def _whole(value: object) -> int | None:
    number = _number(value)
    return int(number) if number is not None and 0 <= number < 1e9 and number % 1 == 0 else None


def read_phone(call: Call, response: APIResponse) -> PhoneValidation:
    """Read the API's opinion of a phone number.

    Raises:
        APIStatusError: if the server says no.
        APIResponseError: if the answer cannot be understood.
    """
    data = _data(call, response)
    try:
        return structure_phone(data, response)
    except (ValueError, KeyError) as error:
        _not_understood(call, response, "it does not say whether the number is valid", error)


def outcome_of_initiate(intent: Intent, answer: APIResponse | APIError) -> Payment:
    """Decide what became of an initiate: pending, rejected, never sent, or unknown.

    Returns:
        The payment, with a reference or at least a checkout request id to follow it by.

    Raises:
        APIStatusError: rejected; no prompt was sent.
        APIConnectionError: never sent (`never_sent` is true); no prompt was sent.
        PaymentMismatchError: a prompt is out, and it is not the one that was asked for.
        PaymentOutcomeUnknown: anything else; a prompt may be out.
    """
    call, expected = initiate_call(intent), expectation_of_intent(intent)
    try:
        if isinstance(answer, APIError):
            raise answer
        payment = read_payment(call, answer, expected, strictly=True)
        if not Expectation.of(payment).key:
            _not_understood(call, answer, "it names no reference to follow the payment by")
    except APIStatusError as error:
        if error.status_code in _REJECTIONS:
            raise
        raise _unknown(intent, error) from error
    except APIConnectionError as error:
        if error.never_sent:
            raise
        raise _unknown(intent, error) from error
    except APIResponseError as error:
        raise _unknown(intent, error) from error
    return payment


def _unknown(intent: Intent, error: APIError) -> PaymentOutcomeUnknown:
    msg = (
        f"whether KES {intent.amount} was asked of {mask_phones(intent.phone)} is unknown: "
        f"{error.message}. The prompt may be on the phone, and the customer may pay. "
        "Do not initiate again: find_payment() looks for it; or look in the PayNexus dashboard, "
        "or ask the customer"
    )
    return PaymentOutcomeUnknown(msg, amount=intent.amount, phone=intent.phone, error=error)


def _data(call: Call, response: APIResponse) -> Mapping[str, object]:
    """Unwrap the documented envelope `{"success": true, "data": {...}}` [docs]."""
    data = _envelope(call, response).get("data")
    if not isinstance(data, dict):
        _not_understood(call, response, "it has no data")
    return data


def _envelope(call: Call, response: APIResponse) -> Mapping[str, object]:
    """Decode a success, whatever is in it."""
    if 300 <= response.status_code < 400:
        _not_understood(call, response, "it is a redirect, and redirects are not followed")
    if response.headers.get("content-encoding", "identity").lower() not in {"", "identity"}:
        _not_understood(call, response, "it is compressed, which was not asked for")
    try:
        document = decode(response.body)
    except ValueError as error:
        if response.status_code >= 400:
            raise _refusal(call, response, {}) from None
        cause = error.__cause__
        _not_understood(call, response, str(error), cause if isinstance(cause, Exception) else None)
    envelope = document if isinstance(document, dict) else {}
    if not 200 <= response.status_code < 300 or envelope.get("success") is False:
        raise _refusal(call, response, envelope)
    return envelope


def decode(body: bytes) -> object:
    """Decode JSON.

    Raises:
        ValueError: saying why it cannot be.
    """
    if len(body) > VALUES_MAX and sum(map(body.count, _BEFORE_A_VALUE)) > VALUES_MAX:
        msg = f"it holds more than {VALUES_MAX:,} values"
        raise ValueError(msg)
    try:
        document: object = _DECODER.decode(body.decode(json.detect_encoding(body)))
    except (ValueError, RecursionError, ArithmeticError) as error:
        msg = "it is not JSON"
        raise ValueError(msg) from error
    return document


_BEFORE_A_VALUE: Final = b",[{"  # in text they count too: better too many than too few


def _no_constant(name: str) -> NoReturn:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


_DECODER: Final = json.JSONDecoder(parse_float=Decimal, parse_constant=_no_constant)


def _not_understood(
    call: Call, response: APIResponse, why: str, cause: Exception | None = None
) -> NoReturn:
    msg = f"{call.name}: the answer (HTTP {response.status_code}) cannot be understood: {why}"
    raise APIResponseError(msg, response=response) from cause


def _refusal(call: Call, response: APIResponse, envelope: Mapping[str, object]) -> APIStatusError:
    """Build the error of an answer that says no."""
    status_code = response.status_code
    detail = _quote(envelope.get("message")) or _quote(envelope.get("error"))
    errors = _field_errors(envelope.get("errors"))
    words = [f"{call.name}: PayNexus answered HTTP {status_code}"]
    if detail:
        words.append(f": {detail.rstrip('.')}")
    if errors:
        words.append(" (" + "; ".join(f"{k}: {', '.join(v)}" for k, v in errors.items()) + ")")
    words.append(f". {_advice(call, status_code)}")
    kind = STATUS_ERRORS.get(status_code) or (
        InternalServerError if status_code >= 500 else APIStatusError
    )
    error = kind(
        "".join(words),
        response=response,
        code=_quote(envelope.get("code")),
        detail=detail,
        errors=errors,
        body=envelope or None,
    )
    if isinstance(error, RateLimitError):
        error.retry_after = retry_after_seconds(response, envelope)
    return error


_ADVICE: Final[Mapping[int, str]] = {
    401: "Check the key: it is missing, mistyped or revoked",
    403: "The key is of the wrong kind for this call: sk_ initiates, pk_ reads",
    404: "Check the reference and that the key belongs to the same account",
    429: "The key's quota is used up: wait for the time in retry_after",
}


def _advice(call: Call, status_code: int) -> str:
    advice = _ADVICE.get(status_code, "")
    if not call.moves_money:
        return advice or "The payment itself is not changed by asking"
    if status_code in _REJECTIONS:
        return f"{advice}. No prompt was sent".removeprefix(". ")
    return "That is no proof that no prompt was sent"


def _quote(value: object) -> str | None:
    """Return foreign words, made safe to print: short, on one line, phones and keys masked."""
    return (quoted(value) or None) if isinstance(value, str) else None


def _field_errors(value: object) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict):
        return {}
    errors = {}
    for name, messages in list(value.items())[:20]:
        listed = messages if isinstance(messages, list) else [messages]
        quoted = tuple(text for message in listed[:5] if (text := _quote(message)))
        if quoted and (field := _quote(name)):
            errors[field] = quoted
    return errors


# --- The quota --------------------------------------------------------------------------------


@attrs.frozen
class RateLimits:
    """What an answer's headers say of one window.

    Attributes:
        limit: calls in the whole window.
        remaining: calls left in it.
        reset_seconds: until it begins anew.
    """

    limit: int
    remaining: int
    reset_seconds: float


def rate_limits(response: APIResponse) -> RateLimits | None:
    """Read `X-RateLimit-Limit`, `-Remaining` and `-Reset` (unix seconds), where all are there.

    The reset is counted from the answer's own `Date`: a wrong clock here does not matter.
    """
    headers = response.headers
    if "x-ratelimit-limit" not in headers:
        return None
    limit = _number(headers["x-ratelimit-limit"])
    remaining = _number(headers.get("x-ratelimit-remaining"))
    reset = _number(headers.get("x-ratelimit-reset"))
    answered_at = date_of(headers.get("date", ""))
    if limit is None or remaining is None or reset is None or answered_at is None or limit < 1:
        return None
    seconds = max(reset - answered_at.timestamp(), 0.0)
    return RateLimits(int(limit), max(int(remaining), 0), seconds)


# --- Repeating ----------------------------------------------------------------------------------


def retry_after_seconds(
    response: APIResponse, envelope: Mapping[str, object] | None = None
) -> float | None:
    """When the server wants to be asked again, in seconds from its answer, at most two minutes.

    Reads `Retry-After` as seconds or as an HTTP date (against the answer's own `Date`, so that a
    wrong clock here does not matter), else `retry_after` in the body.
    """
    header = response.headers.get("retry-after", "").strip()
    seconds = _number(header)
    if seconds is None and header:
        seconds = _seconds_between(response.headers.get("date", ""), header)
    if seconds is None and envelope:
        seconds = _number(envelope.get("retry_after"))
    return None if seconds is None else min(max(seconds, 0.0), RETRY_AFTER_SECONDS_MAX)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _seconds_between(earlier: str, later: str) -> float | None:
    begin, end = date_of(earlier), date_of(later)
    return None if begin is None or end is None else (end - begin).total_seconds()


def date_of(header: str) -> datetime | None:
    """Read an HTTP date; `None` if it is none. They are in GMT, whatever zone they leave out."""
    try:
        moment = parsedate_to_datetime(header)
    except (ValueError, TypeError, OverflowError):  # a year or a zone of twelve digits
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def never_sent(error: BaseException) -> bool:
    """Whether an error proves that the request never left: only then may an initiate be retried."""
    return isinstance(error, APIConnectionError) and error.never_sent


def worth_repeating(error: BaseException) -> bool:
    """Whether a READ that met this error may succeed when asked again."""
    if isinstance(error, APIStatusError):
        status_code = error.status_code
        return status_code < 300 or status_code in {408, 409, 425, 429} or status_code >= 500
    return isinstance(error, APIError)
