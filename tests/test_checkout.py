"""What a checkout tells a customer: tokens, views, the stream, and answers to errors."""

from __future__ import annotations

import base64
import json
from contextlib import aclosing
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import format_datetime

import anyio
import httpx
import pytest

from paynexus_async import (
    APIConnectionError,
    APIError,
    APIResponse,
    Attempt,
    ClientStateError,
    ConfigurationError,
    DuplicatePaymentError,
    Expectation,
    InvalidRequestError,
    Payment,
    PaymentFailed,
    PaymentMismatchError,
    PaymentOutcomeUnknown,
    PaymentStatus,
    PaymentStillPending,
    PayNexusError,
    QuotaExhaustedError,
    RateLimitError,
    exceptions,
    parse_webhook,
)
from paynexus_async import _checkout as checkout
from paynexus_async._checkout import CustomerState, CustomerView, Tokens
from paynexus_async.webhooks import BODY_BYTES_MAX

from .fakes import CHECKOUT_ID, PHONE, REFERENCE, FakeServer, refusal, status

SECRET = "a secret of thirty-two characters"
OTHER = "another secret, as long as it must be"
MASKED = "2547*****866"
NOW = datetime(2026, 1, 27, 10, 17, 18, tzinfo=UTC)
PAYMENT = Payment(
    reference=REFERENCE,
    checkout_request_id=CHECKOUT_ID,
    status=PaymentStatus.INITIATED,
    status_text="initiated",
    amount=100,
    phone=PHONE,
)
LISTED = {"data": [], "pagination": {"last_page": 1}}


def lost(**fields) -> PaymentOutcomeUnknown:
    attempt = Attempt(
        **{"amount": 100, "phone": PHONE, "description": "Order #1", "sent_at": NOW, **fields}
    )
    return PaymentOutcomeUnknown(
        "lost", amount=100, phone=PHONE, error=APIError("cut"), attempt=attempt
    )


def as_told(word: PaymentStatus, **fields) -> Payment:
    return Payment(reference=REFERENCE, status=word, status_text=str(word), phone=PHONE, **fields)


# --- Tokens


@pytest.mark.parametrize("amount", [100, Decimal("99.50"), None])
def test_a_token_brings_back_its_payment(amount):
    """With what every answer must agree with, so that any worker can hold it to that."""
    payment = Payment(
        reference=REFERENCE, status=PaymentStatus.INITIATED, status_text="initiated", amount=amount
    )
    read = Tokens(SECRET).read(Tokens(SECRET).issue(payment))
    assert read == payment
    assert type(read.amount) is type(amount)


@pytest.mark.parametrize("lost_at", [None, NOW])
def test_a_token_brings_back_a_lost_prompt(lost_at):
    """So that another process can look for it."""
    error = lost(lost_at=lost_at)
    read = Tokens(SECRET).read(Tokens(SECRET).issue(error))
    assert isinstance(read, PaymentOutcomeUnknown)
    assert read.attempt == error.attempt


def test_a_token_shows_nothing():
    """It stands in a URL: neither the reference nor the phone can be read off it."""
    for subject in (PAYMENT, lost()):
        token = Tokens(SECRET).issue(subject)
        raw = base64.urlsafe_b64decode(token)
        for word in (REFERENCE, PHONE, "0746990866", "746990866"):
            assert word not in token
            assert word.encode() not in raw


def test_a_token_expires():
    """At the end of its life, and not before."""
    now = [1_000_000.0]
    tokens = Tokens(SECRET, lifetime_seconds=900, now=lambda: now[0])
    token = tokens.issue(PAYMENT)
    now[0] += 900
    assert tokens.read(token) == PAYMENT
    now[0] += 1
    with pytest.raises(checkout.TokenError):
        tokens.read(token)


def test_secrets_rotate():
    """The first issues, all read; a secret that is taken out opens nothing any more."""
    old = Tokens(SECRET).issue(PAYMENT)
    both = Tokens([OTHER, SECRET])
    assert both.read(old) == PAYMENT
    assert Tokens(OTHER).read(both.issue(PAYMENT)) == PAYMENT
    with pytest.raises(checkout.TokenError):
        Tokens(OTHER).read(old)


@pytest.mark.parametrize("token", ["", "PNXABC123DEF", "\x00", "é", "A" * 10_000, "gAAAAA=="])
def test_what_is_no_token_opens_nothing(token):
    """Guessed, damaged, oversized."""
    with pytest.raises(checkout.TokenError):
        Tokens(SECRET).read(token)


def test_a_token_of_another_version_opens_nothing():
    """Encrypted with the right secret, and not understood."""
    tokens = Tokens(SECRET)
    for content in (b"{}", b"[]", b"no JSON"):
        with pytest.raises(checkout.TokenError):
            tokens.read(tokens._crypt.encrypt(content).decode())


@pytest.mark.parametrize("secret", ["", [], "short", [SECRET, ""], [SECRET, None], None])
def test_a_secret_that_can_be_guessed_is_refused(secret):
    """The message tells how to make one, and not what was given."""
    with pytest.raises(ConfigurationError, match="token_urlsafe") as caught:
        Tokens(secret)
    assert "short," not in str(caught.value)


@pytest.mark.parametrize("seconds", [0, 86_401, float("nan")])
def test_a_lifetime_has_limits(seconds):
    """A second to a day."""
    with pytest.raises(ConfigurationError, match="lives"):
        Tokens(SECRET, lifetime_seconds=seconds)


def test_only_what_can_be_followed_has_a_token():
    """A payment with a name, or a prompt to look for."""
    nameless = Payment(status=PaymentStatus.INITIATED, status_text="initiated")
    error = PaymentOutcomeUnknown("lost", amount=1, phone=PHONE, error=APIError("cut"))
    for subject in (nameless, error):
        with pytest.raises(InvalidRequestError):
            Tokens(SECRET).issue(subject)


# --- What a customer may see


@pytest.mark.parametrize("word", PaymentStatus)
def test_every_status_has_its_words(word):
    """The phone is masked; nothing but the customer's own is shown."""
    payment = as_told(
        word, receipt="OEI2AK4Q16", payer_name="JANE", failure_reason="internal", amount=100
    )
    view = CustomerView.of(payment)
    shown = json.dumps(view.as_json())
    assert MASKED in shown
    assert not [secret for secret in (PHONE, REFERENCE, "JANE", "internal") if secret in shown]
    assert ("OEI2AK4Q16" in shown) is payment.succeeded
    assert view.title
    assert view.text
    assert view.is_over is payment.is_terminal
    assert view.may_try_again is (payment.is_terminal and not payment.succeeded)


@pytest.mark.parametrize("state", [CustomerState.PENDING, CustomerState.UNKNOWN])
def test_what_is_not_known_never_reads_as_failed(state):
    """Nobody is invited to pay again."""
    view = CustomerView(state=state)
    words = f"{view.title} {view.text}".lower()
    assert not view.may_try_again
    assert "fail" not in words
    assert "try again" not in words
    assert "not pay again" in words or "not asked to pay twice" in words


def test_an_amount_that_is_not_whole_is_text():
    """JSON's numbers are floats to JavaScript."""
    assert CustomerView(state=CustomerState.PROMPT, amount=Decimal("9.50")).as_json()["amount"] == (
        "9.50"
    )


# --- The stream


async def told(server: FakeServer, subject, **options) -> list[tuple[str | None, str]]:
    async with server.client() as paynexus:
        events = checkout.follow(paynexus, subject, **options)
        return [(event.id, event.view.state.value) async for event in events]


@pytest.mark.anyio
async def test_a_stream_tells_each_state_once_and_ends(server):
    """The present one first, the receipt at the end."""
    server.answers(
        status("initiated"),
        status("processing"),
        status("processing"),
        status("completed", provider_transaction_id="OEI2AK4Q16"),
    )
    async with server.client() as paynexus:
        events = [event async for event in checkout.follow(paynexus, PAYMENT)]
    assert [(event.id, event.view.state) for event in events] == [
        ("initiated", "prompt"),
        ("processing", "processing"),
        ("completed", "completed"),
    ]
    assert {event.name for event in events} == {"payment"}
    last = json.loads(events[-1].data)
    assert (last["receipt"], last["phone"], last["is_over"]) == ("OEI2AK4Q16", MASKED, True)
    assert "\n" not in events[-1].data


@pytest.mark.anyio
async def test_a_browser_that_comes_again_hears_only_news(server):
    """Even from a worker that knows less: a page never goes back."""
    server.answers(status("initiated"), status("processing"), status("cancelled"))
    assert await told(server, PAYMENT, last_event_id="processing") == [("cancelled", "cancelled")]


@pytest.mark.anyio
@pytest.mark.parametrize("word", ["completed", "failed", "cancelled", "expired"])
async def test_an_end_is_always_told(server, word):
    """Also to whoever has seen it: a page that comes again must not wait for ever."""
    server.answers(status(word))
    assert (await told(server, PAYMENT, last_event_id=word))[-1] == (word, word)


@pytest.mark.anyio
async def test_late_truth_is_news(server):
    """Expired to the one worker, completed to the next."""
    server.answers(status("completed"))
    assert await told(server, PAYMENT, last_event_id="expired") == [("completed", "completed")]


@pytest.mark.anyio
@pytest.mark.parametrize("header", [None, "", "7", "prompt", "x" * 1000])
async def test_a_header_of_somebody_else_is_nothing(server, header):
    """The whole state is told then."""
    server.answers(status("completed"))
    assert (await told(server, PAYMENT, last_event_id=header))[0] == ("initiated", "prompt")


@pytest.mark.anyio
async def test_a_wait_that_is_over_is_pending(server):
    """Without an id: what was seen stays seen."""
    server.answers(status("processing"))
    events = await told(server, PAYMENT, max_wait=20)
    assert events[-2:] == [("processing", "processing"), (None, "pending")]
    server.answers(refusal(503))
    assert (await told(server, PAYMENT, max_wait=20))[-1] == (None, "pending")


@pytest.mark.anyio
async def test_what_cannot_be_told_is_unknown(server, caplog):
    """A refused key, a contradiction: the merchant's log says which, and the stream is over."""
    for answer in (refusal(401), status("completed", amount="5.00")):
        server.answers(answer)
        caplog.clear()
        assert (await told(server, PAYMENT))[-1] == (None, "unknown")
        assert "cannot be told" in caplog.text
        assert PHONE not in caplog.text


@pytest.mark.anyio
async def test_an_application_that_closes_says_nothing(server):
    """The browser comes again: nothing has ended."""
    server.answers(status("processing"))
    async with server.client() as paynexus:
        events = checkout.follow(paynexus, PAYMENT)
        assert [await anext(events), await anext(events)][-1].id == "processing"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(paynexus.aclose)
            assert [event async for event in events] == []


@pytest.mark.anyio
async def test_a_stream_that_is_left_stops_the_asking(server):
    """Nobody reads it any more."""
    server.answers(status("processing"))
    async with server.client() as paynexus:
        events = checkout.follow(paynexus, PAYMENT)
        await anext(events)
        await anext(events)
        await events.aclose()
        asked = len(server.requests)
        await anyio.sleep(60)
        assert len(server.requests) == asked


@pytest.mark.anyio
async def test_a_lost_prompt_is_looked_for_and_followed(server):
    """First the truth, which is that nobody knows; then what is found."""
    ids = {"reference": REFERENCE, "checkout_request_id": CHECKOUT_ID}

    def answer(request):
        if request.url.path.endswith("/payments"):
            now = datetime.now(UTC).isoformat()
            row = {**ids, "amount": "100.00", "phone": PHONE, "status": "initiated"}
            rows = [{**row, "created_at": now, "description": "Order #1"}]
            return data_of({**LISTED, "data": rows})
        return data_of({"data": {**ids, "amount": "100.00", "phone": PHONE, "status": "cancelled"}})

    server.answers(answer)
    error = lost(sent_at=datetime.now(UTC), lost_at=datetime.now(UTC))
    assert await told(server, error) == [
        (None, "unknown"),
        ("initiated", "prompt"),
        ("cancelled", "cancelled"),
    ]
    assert server.initiates == 0
    assert await told(server, error, last_event_id="initiated") == [("cancelled", "cancelled")]


def data_of(document):
    date = format_datetime(datetime.now(UTC), usegmt=True)
    return httpx.Response(200, json={"success": True, **document}, headers={"Date": date})


@pytest.mark.anyio
async def test_a_lost_prompt_that_is_not_found_stays_unknown(server):
    """Nothing is said of a failure, and the customer may ask for another look."""
    server.answers(lambda request: data_of(LISTED))
    error = lost(sent_at=datetime.now(UTC), lost_at=datetime.now(UTC))
    async with server.client() as paynexus:
        events = [event async for event in checkout.follow(paynexus, error)]
    assert [(e.view.state, e.view.is_over) for e in events] == [
        ("unknown", False),
        ("unknown", True),
    ]


# --- Answers over HTTP


FOREIGN = "254700000001"  # in words of PayNexus's, which a test of ours may hold


def response(status_code: int) -> APIResponse:
    return APIResponse(status_code=status_code, headers={}, body=b"")


def errors() -> list[tuple[PayNexusError, int]]:
    by_status = {
        code: kind(f"{code} {FOREIGN} sk_live_abc", response=response(code))
        for code, kind in exceptions.STATUS_ERRORS.items()
    }
    return [
        (InvalidRequestError("phone has no digits"), 422),
        (DuplicatePaymentError(f"open: {REFERENCE}", payment=PAYMENT), 409),
        (PaymentFailed(REFERENCE, payment=as_told(PaymentStatus.FAILED)), 402),
        (QuotaExhaustedError("spent", retry_after=1.2), 503),
        (APIConnectionError("10.0.0.1", never_sent=True), 503),
        (APIConnectionError("10.0.0.1", never_sent=False), 504),
        (exceptions.APITimeoutError("10.0.0.1", never_sent=False), 504),
        (exceptions.InternalServerError("500", response=response(500)), 502),
        (exceptions.APIResponseError("<html>"), 502),
        (ConfigurationError("sk_live_abc"), 500),
        (checkout.TokenError("forged"), 403),
        (checkout.BodyTooLargeError("large"), 413),
        (exceptions.WebhookSignatureError("forged"), 401),
        (by_status[400], 422),
        (by_status[401], 500),
        (by_status[403], 500),
        (by_status[404], 404),
        (by_status[409], 409),
        (by_status[422], 422),
        (by_status[429], 503),
    ]


@pytest.mark.parametrize(("error", "expected"), errors(), ids=lambda e: type(e).__name__)
def test_an_error_is_a_problem_for_programs_and_for_people(error, expected):
    """RFC 9457, without keys, phones, references or anything of the inside."""
    answer = checkout.answer_to(error, Tokens(SECRET), {})
    assert (answer.status, answer.document["status"]) == (expected, expected)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert set(answer.document) == {"type", "title", "status", "detail", "code"}
    assert answer.document["detail"]
    told = answer.body.decode()
    for secret in (FOREIGN, "sk_live", REFERENCE, "10.0.0.1", "<html>"):
        assert secret not in told


def test_every_error_has_an_answer():
    """Each class of the package's, the undecided ones as accepted."""
    undecided = {"PaymentStillPending", "PaymentOutcomeUnknown", "PaymentMismatchError"}
    undecided |= {
        "WebhookPayloadError",
        "ClientStateError",
        "APIConnectionError",
        "APITimeoutError",
    }
    for name in set(exceptions.__all__) - undecided:
        kind = getattr(exceptions, name)
        assert checkout._kind(kind.__new__(kind, "x"))[0] >= 400


def pending(payment: Payment | None) -> PaymentStillPending:
    return PaymentStillPending(
        "still", reference=REFERENCE, payment=payment, attempts=1, last_error=None
    )


def mismatch() -> PaymentMismatchError:
    return PaymentMismatchError("other", asked=Expectation(), answered=PAYMENT, differences=["x"])


@pytest.mark.parametrize(
    ("error", "state", "has_token"),
    [
        (lost(), "unknown", True),
        (PaymentOutcomeUnknown("x", amount=1, phone=PHONE, error=APIError("")), "unknown", False),
        (mismatch(), "unknown", False),
        (ClientStateError("closed"), "unknown", False),
        (pending(PAYMENT), "pending", True),
        (pending(None), "pending", False),
    ],
)
def test_what_may_still_be_paid_is_never_a_problem(error, state, has_token):
    """Accepted, and to be followed: whoever reads a failure pays again, or a proxy does for them."""
    answer = checkout.answer_to(error, Tokens(SECRET), {})
    assert answer.status == 202
    assert answer.headers["Content-Type"] == "application/json"
    document = json.loads(answer.body)
    assert (document["state"], document["may_try_again"]) == (state, False)
    assert ("token" in document) is has_token
    assert "fail" not in f"{document['title']}{document['text']}"
    assert PHONE not in answer.body.decode()


def test_a_delivery_that_cannot_be_understood_is_acknowledged():
    """It is PayNexus's, and would be no better when it came again."""
    answer = checkout.answer_to(exceptions.WebhookPayloadError("no JSON"), Tokens(SECRET), {})
    assert answer == checkout.acknowledged()


def test_busy_says_when_to_come_again():
    """In whole seconds, rounded up; nothing where nothing is known."""
    tokens = Tokens(SECRET)
    spent = checkout.answer_to(QuotaExhaustedError("spent", retry_after=1.2), tokens, {})
    assert spent.headers["Retry-After"] == "2"
    limited = RateLimitError("429", response=response(429))
    assert "Retry-After" not in checkout.answer_to(limited, tokens, {}).headers
    limited.retry_after = 0.0
    assert checkout.answer_to(limited, tokens, {}).headers["Retry-After"] == "1"


def test_a_duplicate_opens_nobody_elses_stream():
    """Whoever guesses a phone and an amount is given no token, and told what its owner may do."""
    error = DuplicatePaymentError("open", payment=PAYMENT, attempt=lost().attempt)
    answer = checkout.answer_to(error, Tokens(SECRET), {})
    assert "token" not in answer.document
    assert REFERENCE not in answer.body.decode()
    words = (
        "A request for this amount may already be on that phone: please answer it there, or wait "
        "until it has ended. Nothing was sent now."
    )
    assert (answer.status, answer.document["detail"]) == (409, words)


def test_accepted_is_answered_with_a_token():
    """Which opens the stream of that payment."""
    tokens = Tokens(SECRET)
    answer = checkout.accepted(PAYMENT, tokens)
    assert answer.status == 202
    assert answer.headers["Cache-Control"] == "no-store"
    assert tokens.read(answer.document["token"]) == PAYMENT
    assert answer.document["state"] == "prompt"


# --- Webhooks


async def chunks(*parts: bytes):
    for part in parts:
        yield part


@pytest.mark.anyio
async def test_a_delivery_is_read_to_its_end():
    """And nothing is changed."""
    assert await checkout.read_body(chunks(b"a", b"b"), "2") == b"ab"
    assert await checkout.read_body(chunks(b"a" * BODY_BYTES_MAX)) == b"a" * BODY_BYTES_MAX


@pytest.mark.anyio
async def test_a_delivery_that_is_too_large_is_not_read():
    """Not one byte of it, if it says so; else no more than a delivery has."""
    read = []

    async def endless():
        while True:
            read.append(1)
            yield b"a" * 65_536

    async with aclosing(endless()) as body:
        with pytest.raises(checkout.BodyTooLargeError):
            await checkout.read_body(body, "9" * 5000)
        assert read == []
        with pytest.raises(checkout.BodyTooLargeError):
            await checkout.read_body(body, "x")
    assert len(read) == BODY_BYTES_MAX // 65_536 + 1


class Notified:
    def __init__(self) -> None:
        self.news: list[object] = []

    async def notify(self, news: object) -> bool:
        self.news.append(news)
        return False


def delivery():
    import hashlib
    import hmac

    body = json.dumps({"event": "payment.completed", "data": {"reference": REFERENCE}}).encode()
    signature = hmac.new(b"whsec_third", body, hashlib.sha256).hexdigest()
    return parse_webhook(body, {"X-PayNexus-Signature": signature}, "whsec_third")


@pytest.mark.anyio
async def test_a_delivery_wakes_and_is_told_and_acknowledged():
    """In that order; the acknowledgement is the documented one."""
    paynexus, heard = Notified(), []

    async def on_event(client, event):
        assert (client, client.news) == (paynexus, [event])
        heard.append(event.reference)

    answer = await checkout.take_event(paynexus, delivery(), on_event)
    assert (answer.status, answer.body) == (200, b'{"ResultCode": 0, "ResultDesc": "Accepted"}')
    assert heard == [REFERENCE]
    assert await checkout.take_event(paynexus, delivery(), None) == answer
    assert len(paynexus.news) == 2


@pytest.mark.anyio
async def test_what_the_merchant_raises_is_not_acknowledged():
    """So that the delivery comes again."""

    async def on_event(client, event):
        raise OSError("the database is away")

    with pytest.raises(OSError, match="away"):
        await checkout.take_event(Notified(), delivery(), on_event)


@pytest.mark.parametrize(
    "error",
    [lost(), ClientStateError("closed"), ConfigurationError("blank"), APIError("garbled")],
    ids=repr,
)
def test_no_error_of_ours_acknowledges_a_delivery(error):
    """Without its header these are answered for a customer, some of them with 202."""
    answer = checkout.answer_to(error, Tokens(SECRET), {"X-PayNexus-Signature": "x"})
    assert (answer.status, answer.document["code"]) == (500, "our-fault")
