"""What each parser of foreign input promises for any bytes: claims that a fuzzer can break.

A claim takes bytes, makes foreign input of them, and raises if a promise is broken. Each has seeds:
valid input, from which mutations begin. Written without the package's own patterns: what a whole
phone or a key looks like is told here anew.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from typing import Final

from paynexus_async import (
    APIConnectionError,
    APIError,
    APIResponse,
    APIStatusError,
    ConfigurationError,
    Expectation,
    InvalidRequestError,
    NoPaymentFound,
    Payment,
    PaymentFound,
    PaymentMismatchError,
    PaymentOutcomeUnknown,
    PayNexusError,
    Schedule,
    WebhookPayloadError,
    WebhookSignatureError,
    _convert,
    _resolver,
    _wire,
    mask_phones,
    normalize_phone,
    parse_webhook,
)
from paynexus_async._experience import Experience
from paynexus_async._quota import Plan, Quota, Urgency
from paynexus_async._wire import Intent, Keys, Listing
from paynexus_async.phone import phones_agree
from paynexus_async.sandbox import PUBLIC_KEY, SANDBOX_KEY, SECRET_KEY, Ledger, Request
from paynexus_async.webhooks import SIGNATURE_HEADER

Claim = Callable[[bytes], None]

REFERENCE: Final = "PNXABC123DEF"
CHECKOUT_ID: Final = "ws_CO_27012026101718139746990866"
PHONE: Final = "254746990866"
INTENT: Final = Intent(100, PHONE, "Order #1")
ASKED: Final = Expectation(
    reference=REFERENCE, checkout_request_id=CHECKOUT_ID, amount=100, phone=PHONE
)
STATUS_CALL: Final = _wire.status_call(ASKED)
LISTING: Final = Listing("completed", date(2026, 1, 27), date.max)
LIST_CALL: Final = _wire.list_call(LISTING, 1)
PHONE_CALL: Final = _wire.validate_call("0746990866")
REJECTED: Final = {400, 401, 403, 404, 409, 422, 429}

# A Kenyan mobile number, by itself or however people space it, in the middle of anything.
WHOLE_PHONE: Final = re.compile(r"(?<!\d)\+?(?:254|0)?[ ().-]{0,3}[17](?:[ ().-]{0,3}\d){8}(?!\d)")
KEY: Final = re.compile(r"(?<![A-Za-z0-9])(?:sk|pk|sb|whsec)_[A-Za-z0-9_-]")
DATE: Final = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
NINE_DIGITS: Final = re.compile(r"\d(?:[ ().-]{0,3}\d){8}")
MESSAGE_CHARACTERS_MAX: Final = 30_000  # twenty fields of five quotes each


def assert_discreet(error: BaseException) -> None:
    """No message of an error, or of what a traceback shows beneath it, gives anybody away."""
    if isinstance(error, PayNexusError):
        assert error.message.isprintable(), f"more than one line in {error.message!r}"
        assert len(error.message) < MESSAGE_CHARACTERS_MAX
    for one in _chain(error):
        for text in (str(one), *(f"{a!r}" for a in one.args if not isinstance(a, bytes))):
            shown = text.replace("such as '0746990866'", "")
            assert not WHOLE_PHONE.search(shown), f"a whole phone in {text!r}"
            assert not KEY.search(text), f"a key in {text!r}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    following: BaseException | None = error
    while following is not None:
        # A decoding error keeps the bytes that it met, and shows only one of them.
        if not isinstance(following, UnicodeError | json.JSONDecodeError):
            yield following
        hidden = following.__suppress_context__ and following.__cause__ is None
        following = following.__cause__ or (None if hidden else following.__context__)


def assert_value_discreet(value: object) -> None:
    """A repr gives nobody away either."""
    shown = DATE.sub("", repr(value))
    assert not WHOLE_PHONE.search(shown), shown
    assert not KEY.search(shown), shown


# --- Answers


def _answer(data: bytes) -> APIResponse:
    """An answer: a first line of status and headers, if there is one, and a body."""
    head, found, body = data.partition(b"\n\n")
    if not found:
        return APIResponse(status_code=200, headers={}, body=data)
    lines = head.decode("latin-1").split("\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    status_code = int(lines[0]) if re.fullmatch(r"[1-9][0-9]{2}", lines[0]) else 200
    originals = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
    headers = {name.lower(): value for name, value in originals.items()}
    return APIResponse(status_code=status_code, headers=headers, body=body)


def read_payment(data: bytes) -> None:
    """A payment that agrees with what was asked, or an error of the package."""
    response = _answer(data)
    for expected in (ASKED, Expectation(reference=REFERENCE), Expectation(checkout_request_id="w")):
        try:
            payment = _wire.read_payment(STATUS_CALL, response, expected)
        except (APIError, PaymentMismatchError) as error:
            assert_discreet(error)
        else:
            assert 200 <= response.status_code < 300
            _assert_payment(payment)
            if payment.is_terminal and expected is ASKED:
                assert payment.amount == 100


def _assert_payment(payment: Payment) -> None:
    assert_value_discreet(payment)
    assert not isinstance(payment.amount, float)
    assert payment.amount is None or Decimal(payment.amount).is_finite()
    assert payment.status_text.strip() == payment.status_text != ""
    assert payment.succeeded == (payment.status_text.lower() == "completed")
    for later in (payment.merge(payment)[0],):
        assert later == payment
    try:
        payment.raise_for_status()
    except Exception as error:  # noqa: BLE001  # whichever it is
        assert_discreet(error)
    try:
        _wire.expectation_of(payment)
    except InvalidRequestError as error:
        assert_discreet(error)


def read_page(data: bytes) -> None:
    """A page of payments, all of them understood, or an error of the package."""
    try:
        page = _wire.read_page(LIST_CALL, _answer(data), 1)
    except APIError as error:
        assert_discreet(error)
        return
    assert len(page.payments) <= 1_000
    assert page.last is None or page.last >= 0
    assert page.total is None or page.total >= 0
    for payment in page.payments:
        _assert_payment(payment)
        assert LISTING.admits(payment) in {True, False}


def find_payment(data: bytes) -> None:
    """What a list shows is found, or is none, or cannot be told: never more than it proves."""
    try:
        page = _wire.read_page(LIST_CALL, _answer(data), 1)
    except APIError:
        return

    async def ask(_: int) -> _wire.Page:
        return page

    known = _resolver.Known(lambda _: None, lambda _: False, ())
    finding = _resolver.find(
        _resolver.Sought(INTENT, 980.0, 981.0), ask, lambda: known, now=lambda: 1_000.0, deadline=0
    )
    try:
        finding.send(None)
    except StopIteration as ended:
        resolution = ended.value
    assert_value_discreet(resolution)
    answered_at = _wire.date_of(page.response.headers.get("date", ""))
    if isinstance(resolution, PaymentFound):
        _assert_like(resolution.payment, answered_at)
    elif isinstance(resolution, NoPaymentFound):
        for payment in page.payments:
            try:
                _assert_like(payment, answered_at)
            except AssertionError:
                continue
            raise AssertionError(payment)


def _assert_like(payment: Payment, answered_at: datetime | None) -> None:
    """It is as what was sent 20 s before the answer, in every respect."""
    assert payment.amount == INTENT.amount
    assert payment.phone
    assert phones_agree(payment.phone, INTENT.phone)
    assert answered_at
    assert payment.created_at
    assert -90 < (answered_at - payment.created_at).total_seconds() < 40
    assert payment.reference or payment.checkout_request_id
    assert payment.description in {INTENT.description, None} or (
        str(payment.description).split() == str(INTENT.description).split()
    )


def read_phone(data: bytes) -> None:
    """An opinion, or an error of the package."""
    try:
        validation = _wire.read_phone(PHONE_CALL, _answer(data))
    except APIError as error:
        assert_discreet(error)
    else:
        assert isinstance(validation.valid, bool)
        assert_value_discreet(validation)


def outcome_of_initiate(data: bytes) -> None:
    """Pending, rejected, or unknown: rejected by a documented refusal only, never by a doubt."""
    response = _answer(data)
    rejected = response.status_code in REJECTED
    try:
        payment = _wire.outcome_of_initiate(INTENT, response)
    except APIStatusError as error:
        known, told = "rejected", error
    except (PaymentOutcomeUnknown, PaymentMismatchError) as error:
        known, told = "may be out", error
    else:
        assert 200 <= response.status_code < 300
        assert payment.reference or payment.checkout_request_id
        assert payment.amount == 100
        _assert_payment(payment)
        return
    assert known == ("rejected" if rejected else "may be out")
    assert_discreet(told)


def webhook(data: bytes) -> None:
    """An event, or an error of the package; what is not signed is never an event."""
    response = _answer(data)
    signed = {SIGNATURE_HEADER: hmac.digest(b"whsec_x", response.body, "sha256").hex()}
    for headers in (signed, response.headers):
        try:
            event = parse_webhook(response.body, headers, "whsec_x")
        except (WebhookSignatureError, WebhookPayloadError) as error:
            assert_discreet(error)
        else:
            assert headers is signed or signed[SIGNATURE_HEADER] in headers.values()
            assert_value_discreet(event)
            assert event.name.strip() == event.name != ""
            if event.payment is not None:
                _assert_payment(event.payment)


def connection_error(data: bytes) -> None:
    """Foreign words about a broken connection are quoted discreetly."""
    reason = data.decode("utf-8", "replace")
    for never_sent in (True, False):
        error = _wire.connection_error(
            STATUS_CALL, reason, never_sent=never_sent, timed_out=never_sent
        )
        assert isinstance(error, APIConnectionError)
        assert_discreet(error)


def rate_limits(data: bytes) -> None:
    """A window that a quota can live with, or none."""
    limits = _wire.rate_limits(_answer(data + b"\n\n"))
    if limits is None:
        return
    assert limits.limit >= 1
    assert limits.remaining >= 0
    assert limits.reset_seconds >= 0
    quota = Quota(Plan(minute=60))
    for urgency in Urgency:
        quota.take(5.0)
        quota.answered(6.0, limits)
        assert quota.ready_at(7.0, urgency) >= 7.0


def retry_after(data: bytes) -> None:
    """At most two minutes, whatever the server says."""
    response = _answer(data)
    try:
        body = json.loads(response.body)
    except (ValueError, RecursionError):
        body = None
    seconds = _wire.retry_after_seconds(response, body if isinstance(body, dict) else None)
    assert seconds is None or 0 <= seconds <= 120


def convert(data: bytes) -> None:
    """A `ValueError`, which the reader of answers awaits, or a value."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(document, dict):
        for structure in (_convert.structure_payment, _convert.structure_phone):
            with suppress(ValueError, KeyError):
                assert_value_discreet(structure(document))


# --- What callers give


def phones(data: bytes) -> None:
    """A number comes out as the API writes it, or not at all; masks hide every one."""
    text = data.decode("utf-8", "replace")
    masked = mask_phones(text)
    assert not NINE_DIGITS.search(masked), masked
    assert mask_phones(masked) == masked
    one, _, other = text.partition("\n")
    assert phones_agree(one, one)
    assert phones_agree(one, other) == phones_agree(other, one)
    try:
        phone = normalize_phone(text)
    except InvalidRequestError as error:
        assert_discreet(error)
    else:
        assert re.fullmatch(r"254[17][0-9]{8}", phone, re.ASCII)
        assert normalize_phone(phone) == normalize_phone("+" + phone) == phone
        assert phones_agree(text, phone)


def configuration(data: bytes) -> None:
    """A URL that keys may travel to, headers of one line each, keys that fit in one: or an error."""
    text = data.decode("utf-8", "replace")
    try:
        url = _wire.check_base_url(text)
    except ConfigurationError as error:
        assert_discreet(error)
    else:
        assert re.match(
            r"https://|http://(?:127\.|\[::1\]|\[::ffff:|localhost|.*\.localhost)",
            url,
            re.IGNORECASE,
        )
        assert not re.search(
            r"[\s?#@\\\x00-\x20\x7f-\U0010ffff]", url.split("://", 1)[1].split("/")[0]
        )
        assert not re.search(r"[\s?#]", url)
        assert not url.endswith("/")
    name, _, value = text.partition(":")
    try:
        checked = _wire.check_headers({name: value})
    except ConfigurationError as error:
        assert_discreet(error)
    else:
        assert not re.search(r"[\r\n\0]", "".join([*checked, *checked.values()]))
        assert name.lower() not in {"x-api-key", "authorization", "host", "content-length"}
    try:
        keys = Keys.of(name, value)
    except ConfigurationError as error:
        assert_discreet(error)
    else:
        shown = r"<key (?:(?:sk|pk|sb)_)?…>"
        assert re.fullmatch(rf"Keys\(secret={shown}, public={shown}\)", repr(keys))


def names(data: bytes) -> None:
    """What enters a path is a name, and nothing else."""
    text = data.decode("utf-8", "replace")
    for expect in (_wire.expectation_of, _wire.expect_reference, _wire.expect_checkout_id):
        try:
            expected = expect(text)
        except InvalidRequestError as error:
            assert_discreet(error)
        else:
            call = _wire.status_call(expected)
            assert re.fullmatch(r"/[A-Za-z0-9_/-]{1,100}", call.path, re.ASCII)
            assert call.body is None or json.loads(call.body) == {"checkout_request_id": text}


def intents(data: bytes) -> None:
    """Amount, phone and description of any kind: checked, or refused discreetly."""
    amount, phone, description = [*data.decode("utf-8", "replace").split("\n", 2), "", ""][:3]
    amounts: list[object] = [amount]
    if re.fullmatch(r"-?[0-9]{1,4000}", amount, re.ASCII):
        amounts += [int(amount), Decimal(amount)]
    if re.fullmatch(r"-?[0-9]{1,300}\.[0-9]{0,9}", amount, re.ASCII):
        amounts.append(float(amount))
    for given in amounts:
        try:
            intent = Intent.of(given, phone, description, "production")  # type: ignore[arg-type]
        except InvalidRequestError as error:
            assert_discreet(error)
        else:
            assert 1 <= intent.amount <= 150_000
            assert_value_discreet(intent)
            assert json.loads(_wire.initiate_call(intent).body or b"")["amount"] == intent.amount


def experience(data: bytes) -> None:
    """What was saved is taken up again and goes on learning, or is refused."""
    try:
        saved = json.loads(data)
    except (ValueError, RecursionError):
        return
    try:
        known = Experience(Schedule(), saved)
    except ValueError as error:
        assert_discreet(error)
        return
    for by in (3.0, 9.0, 400.0):
        known.ended(1.0, by)
        survival = known.news()
        assert survival is None or survival.at(0) == 1.0
    json.dumps(known.as_json(), allow_nan=False)


# --- The sandbox


def ledger(data: bytes) -> None:
    """Any request has an answer in the documented shape, and never a failure of the server."""
    line, _, body = data.partition(b"\n")
    words = [*line.decode("utf-8", "replace").split(" "), "", "", ""][:3]
    books = Ledger(clock=lambda: 1_769_498_238.0)
    books.handle(
        Request("POST", "/mpesa/payment/initiate", SECRET_KEY, b'{"amount":1,"phone":"0746990866"}')
    )
    keys: Mapping[str, str] = {"s": SECRET_KEY, "p": PUBLIC_KEY, "b": SANDBOX_KEY}
    path, _, rest = words[1].partition("?")
    query = dict(pair.split("=", 1) for pair in rest.split("&") if "=" in pair)
    reply = books.handle(
        Request(words[0], path, keys.get(words[2], words[2]), body=body, query=query)
    )
    assert 200 <= reply.status_code < 500
    assert reply.document["success"] is (reply.status_code < 300)
    assert ("data" in reply.document) is (reply.status_code < 300)
    json.dumps(reply.document, allow_nan=False).encode()
    assert len(books.prompts) == 1 + (
        reply.reference != books.prompts[0].reference and bool(reply.reference)
    )
    assert not WHOLE_PHONE.search(books.calls[-1].path)


# --- All of them

PAYMENT: Final = json.dumps(
    {
        "success": True,
        "data": {
            "reference": REFERENCE, "checkout_request_id": CHECKOUT_ID, "amount": "100.00",
            "phone": PHONE, "status": "completed", "provider_transaction_id": "OEI2AK4Q16",
            "transaction_id": "TXN1", "description": "Order #1", "failure_reason": None,
            "created_at": "2026-01-27T10:17:18+03:00", "payer_name": "M-Pesa 254746990866",
        },
    }
).encode()  # fmt: skip
LISTED: Final = json.dumps(
    {
        "success": True,
        "data": [
            {**json.loads(PAYMENT)["data"], "created_at": "2026-01-27T10:16:58+03:00"},
            {"reference": "PNX2", "amount": 5, "status": "failed", "phone": "254700000001"},
        ],
        "pagination": {"current_page": 1, "per_page": 100, "total": 2, "last_page": 1},
    }
).encode()
LISTED_AT: Final = b"200\ndate: Tue, 27 Jan 2026 07:17:18 GMT\n\n" + LISTED
NONE_LISTED: Final = LISTED_AT.replace(b'"100.00"', b'"101.00"')
REFUSAL: Final = json.dumps(
    {
        "success": False, "error": "rate_limit_exceeded", "code": "RATE_LIMIT", "retry_after": 60,
        "message": "Too many requests for sk_live_0123 and 0746 990 866",
        "errors": {"phone": ["254746990866 is not one"]},
    }
).encode()  # fmt: skip
INITIATED: Final = PAYMENT.replace(b'"completed"', b'"initiated"').replace(b'"100.00"', b"100")
HEAD: Final = (
    b"429\ndate: Tue, 27 Jan 2026 07:17:18 GMT\nretry-after: 60\nx-ratelimit-limit: 60\n"
    b"x-ratelimit-remaining: 0\nx-ratelimit-reset: 1769498298\n\n"
)
VALIDATED: Final = (
    b'{"success": true, "data": {"original": "0746990866", "normalized": "254746990866",'
    b' "valid": true, "provider": "mpesa"}}'
)
DELIVERY: Final = b"200\nX-PayNexus-Timestamp: 1769498298\n\n" + json.dumps(
    {
        "event": "payment.completed", "timestamp": "2026-01-27T10:17:18+03:00",
        "data": json.loads(PAYMENT)["data"],
    }
).encode()  # fmt: skip
COUNTS: Final = json.dumps({"version": 1, "ended_by_age": [0.5] * 121}).encode()
DATES: Final = (
    b"200\ndate: Tue, 27 Jan 2026 07:17:18 -0000\nretry-after: Tue, 27 Jan 2026 07:18:18 GMT\n\n{}"
)

CLAIMS: Final[Mapping[str, tuple[Claim, tuple[bytes, ...]]]] = {
    "read_payment": (read_payment, (PAYMENT, INITIATED, HEAD + REFUSAL, DATES)),
    "read_page": (read_page, (LISTED, HEAD + REFUSAL)),
    "find_payment": (find_payment, (LISTED_AT, NONE_LISTED)),
    "read_phone": (read_phone, (VALIDATED, HEAD + REFUSAL)),
    "outcome_of_initiate": (outcome_of_initiate, (INITIATED, HEAD + REFUSAL, PAYMENT)),
    "webhook": (webhook, (PAYMENT, DELIVERY)),
    "connection_error": (
        connection_error,
        (b"[Errno 111] refused: sk_live_0123456789ab by +254 (746) 990-866",),
    ),
    "rate_limits": (rate_limits, (HEAD, DATES)),
    "retry_after": (retry_after, (HEAD + REFUSAL, DATES)),
    "convert": (
        convert,
        (json.dumps(json.loads(PAYMENT)["data"]).encode(), b'{"valid": true, "original": "1"}'),
    ),
    "phones": (
        phones,
        (b"0746990866\n254746990866", b"+254 746 990 866", b"2547*****866\n0746990866"),
    ),
    "configuration": (
        configuration,
        (
            b"https://paynexus.co.ke/api",
            b"http://127.0.0.1:8765/api",
            b"X-Request-Id: abc",
            b"sk_live_0123456789ab:pk_live_0123456789ab",
        ),
    ),
    "names": (names, (REFERENCE.encode(), CHECKOUT_ID.encode(), b"../x?y#z", b"0746990866")),
    "intents": (intents, (b"100\n0746990866\nOrder #1", b"254746990866\n100\n", b"1.5\n\n")),
    "experience": (experience, (COUNTS,)),
    "ledger": (
        ledger,
        (
            b'POST /mpesa/payment/initiate s\n{"amount": 100, "phone": "0746990866"}',
            b"GET /payments?page=1&per_page=15&status=initiated&from_date=2026-01-01 p\n",
            b"GET /payments/1 p\n",
            b'POST /mpesa/validate-phone b\n{"phone": "0746990866"}',
            b'POST /payments/status-by-checkout-id p\n{"checkout_request_id": "ws_CO_1"}',
        ),
    ),
}
"""Each claim by its name, with its seeds."""
