"""The API's rules, without a socket."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paynexus_async import (
    APIConnectionError,
    APIResponse,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ConflictError,
    Expectation,
    InternalServerError,
    InvalidRequestError,
    NotFoundError,
    PaymentMismatchError,
    PaymentOutcomeUnknown,
    PermissionDeniedError,
    RateLimitError,
    UnprocessableEntityError,
    _wire,
)
from paynexus_async._wire import Intent, Keys

from .fakes import CHECKOUT_ID, PHONE, PUBLIC_KEY, REFERENCE, SECRET_KEY

INTENT = Intent(100, PHONE, "Order #12345")
ASKED = Expectation(reference=REFERENCE)
KNOWN = Expectation(reference=REFERENCE, checkout_request_id=CHECKOUT_ID, amount=100, phone=PHONE)
CALL = _wire.status_call(ASKED)
BY_CHECKOUT_ID = Expectation(checkout_request_id=CHECKOUT_ID)
INITIATED = {
    "reference": REFERENCE, "checkout_request_id": CHECKOUT_ID, "amount": 100, "phone": PHONE,
    "status": "initiated",
}  # fmt: skip


def reply(document: Any = None, status_code: int = 200, **headers: str) -> APIResponse:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return APIResponse(status_code=status_code, headers=names, body=body)


def success(**data: Any) -> APIResponse:
    return reply({"success": True, "data": data})


# --- Keys


@pytest.mark.parametrize(
    ("secret", "public", "words"),
    [
        (None, None, "no API key"),
        ("", None, "secret_key is blank"),
        ("  ", None, "secret_key is blank"),
        (None, "", "public_key is blank"),
        (PUBLIC_KEY, None, r"secret_key starts with pk_.*secret_key starts with sk_\)"),
        (None, SECRET_KEY, r"public_key starts with sk_.*public_key starts with pk_\)"),
        ("sk_live_abc\n", None, "line break"),
        ("sk_live_abc\r\nX-Evil: 1", None, "line break"),
        ("sk_ümlaut", None, "visible ASCII"),
        ("sk_" + "a" * 300, None, "4 to 256"),
        (b"sk_bytes", None, "blank"),
    ],
)
def test_keys_that_cannot_work_are_refused_without_being_shown(secret, public, words):
    """The message names the argument; the key is in no message, cause or context."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        Keys.of(secret, public)
    shown = f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"
    for key in (secret, public):
        assert not isinstance(key, str) or len(key.strip()) < 5 or key.strip() not in shown


def test_keys_print_their_kind_only():
    """A repr in a log or a traceback gives nothing away."""
    keys = Keys.of(SECRET_KEY, PUBLIC_KEY)
    assert repr(keys) == "Keys(secret=<key sk_…>, public=<key pk_…>)"
    assert repr(Keys.of("unusual-key", None).secret) == "<key …>"


@pytest.mark.parametrize(
    ("secret", "public", "environment"),
    [
        ("sk_live_1", None, "production"),
        ("sb_test_1", None, "sandbox"),
        (None, "pk_live_1", "production"),
        ("sb_test_1", "pk_live_1", "sandbox"),
    ],
)
def test_a_sandbox_key_means_the_sandbox_environment(secret, public, environment):
    """The key that spends decides."""
    assert Keys.of(secret, public).environment == environment


def test_reads_use_the_public_key_where_there_is_one():
    """It preserves the secret key's quota."""
    assert Keys.of(SECRET_KEY, PUBLIC_KEY).reading.reveal() == PUBLIC_KEY
    assert Keys.of(SECRET_KEY, None).reading.reveal() == SECRET_KEY
    assert Keys.of(None, PUBLIC_KEY).reading.reveal() == PUBLIC_KEY


def test_initiating_needs_the_secret_key():
    """With only a public key it is refused here."""
    assert Keys.of(SECRET_KEY, PUBLIC_KEY).initiating.reveal() == SECRET_KEY
    with pytest.raises(ConfigurationError, match="Nothing was sent"):
        _ = Keys.of(None, PUBLIC_KEY).initiating


@pytest.mark.parametrize(
    "url",
    [
        "https://paynexus.co.ke/api", "https://example.com:8443/x/", "http://127.0.0.1:8765/api",
        "http://localhost/api", "http://[::1]:80/api", "http://shop.localhost/api",
    ],
)  # fmt: skip
def test_a_usable_base_url_is_taken(url):
    """https everywhere, http on this machine; a trailing slash does not matter."""
    assert _wire.check_base_url(url) == url.rstrip("/")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "blank"),
        (None, "blank"),
        ("http://paynexus.co.ke/api", "must be https"),
        ("http://10.0.0.1/api", "must be https"),
        ("http://127.0.0.1.evil.example/api", "must be https"),
        ("ftp://paynexus.co.ke", "must be https"),
        ("paynexus.co.ke/api", "must be a URL"),
        ("https://", "must be a URL"),
        ("https://u:p@paynexus.co.ke/api", "without credentials"),
        ("https://paynexus.co.ke/api?x=1", "query"),
        ("https://paynexus.co.ke/api#x", "fragment"),
        ("https://paynexus.co.ke/a b", "must be a URL"),
        ("https://paynexus.co.ke/\n", "must be a URL"),
        ("https://[::1/api", "must be a URL"),
        ("https://paynexus.co.ke:99999/api", "must be a URL"),
    ],
)
def test_a_base_url_that_keys_must_not_travel_to_is_refused(url, words):
    """Keys travel to it."""
    with pytest.raises(ConfigurationError, match=words):
        _wire.check_base_url(url)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"X-API-Key": "sk_x"}, "must not set X-API-Key"),
        ({"Authorization": "Bearer sk_x"}, "must not set Authorization"),
        ({"X-Trace": "a\r\nX-Evil: 1"}, "on one line"),
        ({"X Trace": "a"}, "not one"),
        ({5: "a"}, "not one"),
        ({"X-Trace": 5}, "printable"),
    ],
)
def test_headers_that_would_break_a_request_are_refused(headers, words):
    """The value is never shown."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        _wire.check_headers(headers)
    assert "sk_x" not in str(caught.value)
    assert "Evil" not in str(caught.value)


def test_other_headers_pass():
    """They are sent as they are."""
    assert _wire.check_headers({"X-Trace": "1"}) == {"X-Trace": "1"}
    assert _wire.check_headers(None) == {}


# --- Requests


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        (True, r"not True \(bool\)"),
        (1.0, r"not 1.0 \(float\)"),
        (0.5, "whole number"),
        ("100", "not str"),
        (None, "not NoneType"),
        (0, "1 to 150,000"),
        (-1, "1 to 150,000"),
        (150_001, "not 150001"),
        pytest.param(10**5000, "a far larger number", id="huge"),
    ],
)
def test_an_amount_that_cannot_be_asked_for_is_refused(amount, words):
    """Whole KES, 1 to 150,000."""
    with pytest.raises(InvalidRequestError, match=words):
        Intent.of(amount, "0746990866", None, "production")


@pytest.mark.parametrize(("environment", "largest"), [("production", 150_000), ("sandbox", 50)])
def test_the_limits_are_those_of_the_environment(environment, largest):
    """The sandbox environment takes 50 KES at most."""
    assert Intent.of(largest, "0746990866", None, environment).amount == largest
    assert Intent.of(1, "0746990866", None, environment).phone == PHONE
    with pytest.raises(InvalidRequestError, match=f"{environment} environment"):
        Intent.of(largest + 1, "0746990866", None, environment)


@pytest.mark.parametrize("description", [5, "a\nb", "a\x00b", "x" * 256, "\ud800"])
def test_a_description_that_a_phone_cannot_show_is_refused(description):
    """Text of one line, of 255 characters at most."""
    with pytest.raises(InvalidRequestError, match="description"):
        Intent.of(1, "0746990866", description, "production")


def test_an_initiate_is_the_documented_request():
    """The documented body, and no field that was not given."""
    call = _wire.initiate_call(INTENT)
    assert (call.method, call.path, call.moves_money) == ("POST", "/mpesa/payment/initiate", True)
    assert json.loads(call.body or b"") == {
        "amount": 100,
        "phone": PHONE,
        "description": "Order #12345",
    }
    assert json.loads(_wire.initiate_call(Intent(1, PHONE)).body or b"") == {
        "amount": 1,
        "phone": PHONE,
    }
    assert PHONE not in f"{call!r} {INTENT!r}"


def test_a_payment_is_asked_for_by_reference_or_else_by_checkout_id():
    """Both of the documented ways."""
    assert (CALL.method, CALL.path, CALL.body) == ("GET", f"/payments/{REFERENCE}", None)
    call = _wire.status_call(_wire.expectation_of(CHECKOUT_ID))
    assert (call.method, call.path) == ("POST", "/payments/status-by-checkout-id")
    assert json.loads(call.body or b"") == {"checkout_request_id": CHECKOUT_ID}
    assert not call.moves_money


@pytest.mark.parametrize(
    "reference",
    [
        "",
        " ",
        "../x",
        "PNX/..",
        "PNX?x=1",
        "PNX#",
        "PNX%2e",
        "a" * 65,
        "PNX\n",
        "ПNX",
        "-x",
        None,
        5,
    ],
)
def test_a_reference_that_could_change_the_path_is_refused(reference):
    """Nothing but a name enters a path or a body."""
    for expect in (_wire.expect_reference, _wire.expect_checkout_id, _wire.expectation_of):
        with pytest.raises(InvalidRequestError):
            expect(reference)


@given(st.text())
def test_no_text_becomes_a_path_with_anything_but_a_name(text):
    """Whatever passes the check is one plain path segment."""
    try:
        expected = _wire.expect_reference(text)
    except InvalidRequestError:
        return
    segment = _wire.status_call(expected).path.removeprefix("/payments/")
    assert segment == text
    assert segment.isascii()
    assert not set(segment) & set("/?#%.\\ ")


def test_mistaken_names_are_explained():
    """A phone or a checkout request id in place of a reference gets a word of advice."""
    with pytest.raises(InvalidRequestError, match="looks like a phone number"):
        _wire.expect_reference("0746990866")
    with pytest.raises(InvalidRequestError, match="get_payment_status_by_checkout_id"):
        _wire.expect_reference(CHECKOUT_ID)


@pytest.mark.parametrize("phone", [None, 746990866, "", "  ", "07\n46"])
def test_only_text_is_sent_for_validation(phone):
    """Whether it is a number is for the API to say."""
    with pytest.raises(InvalidRequestError):
        _wire.validate_call(phone)


def test_a_phone_is_sent_for_validation_as_it_was_written():
    """The documented request."""
    call = _wire.validate_call("0746990866")
    assert (call.method, call.path) == ("POST", "/mpesa/validate-phone")
    assert json.loads(call.body or b"") == {"phone": "0746990866"}


# --- Answers


def test_a_success_becomes_a_payment_that_carries_its_answer():
    """Status, headers and bytes of the answer stay within reach."""
    answer = success(status="completed", amount="100.00")
    payment = _wire.read_payment(CALL, answer, Expectation(reference=REFERENCE, phone=PHONE))
    assert payment.response is answer
    assert (payment.reference, payment.amount, payment.phone) == (REFERENCE, 100, PHONE)


@pytest.mark.parametrize(
    ("status_code", "kind"),
    [
        (400, BadRequestError), (401, AuthenticationError), (403, PermissionDeniedError),
        (404, NotFoundError), (409, ConflictError), (418, APIStatusError),
        (422, UnprocessableEntityError), (429, RateLimitError), (500, InternalServerError),
        (503, InternalServerError), (599, InternalServerError),
    ],
)  # fmt: skip
def test_each_status_has_its_class(status_code, kind):
    """And carries what the server said."""
    document = {
        "success": False, "error": "nope", "code": "E_NOPE", "message": f"No for {PHONE}\nreally",
        "errors": {"phone": ["bad", "worse"], "amount": "low", "x": [5], "y": []},
    }  # fmt: skip
    with pytest.raises(APIStatusError) as caught:
        _wire.read_payment(CALL, reply(document, status_code, x_request_id="r1"), ASKED)
    error = caught.value
    assert type(error) is kind
    assert (error.status_code, error.code, error.request_id) == (status_code, "E_NOPE", "r1")
    assert error.detail == "No for 2547*****866 really"
    assert error.errors == {"phone": ("bad", "worse"), "amount": ("low",)}
    assert error.body == document
    assert f"HTTP {status_code}: No for 2547*****866 really (phone: bad, worse;" in str(error)


def test_an_error_without_json_is_still_an_error_of_its_status():
    """A proxy's HTML page is not shown, but its status is."""
    with pytest.raises(InternalServerError) as caught:
        _wire.read_payment(CALL, reply(b"<html>502 Bad Gateway</html>", 502), ASKED)
    assert (caught.value.code, caught.value.body, caught.value.errors) == (None, None, {})
    assert "<html>" not in str(caught.value)
    assert caught.value.response.text == "<html>502 Bad Gateway</html>"


@pytest.mark.parametrize("words", ["x" * 5000, "a\x1b[31mred\r\nX", {"not": "text"}, ""])
def test_what_a_server_says_is_quoted_safely(words):
    """Short, on one line, without control characters."""
    with pytest.raises(BadRequestError) as caught:
        _wire.read_payment(CALL, reply({"message": words, "error": words}, 400), ASKED)
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


def test_success_false_is_an_error_whatever_the_status_says():
    """HTTP 200 with `"success": false` is not a payment."""
    with pytest.raises(APIStatusError, match="HTTP 200: Insufficient") as caught:
        document = {"success": False, "message": "Insufficient", "data": {"status": "completed"}}
        _wire.read_payment(CALL, reply(document), ASKED)
    assert caught.value.status_code == 200


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (reply(b"<html>"), "not JSON"),
        (reply(b""), "not JSON"),
        (reply(b'{"success": tr'), "not JSON"),
        (reply(b"\xff\xfe"), "not JSON"),
        (reply(b"[" * 15_000), "not JSON"),
        (reply(b'{"success": true, "data": {"status": "completed", "amount": NaN}}'), "not JSON"),
        (reply(b"9" * 5000), "not JSON"),
        (reply([]), "no data"),
        (reply({"success": True}), "no data"),
        (reply({"success": True, "data": []}), "no data"),
        (success(reference=REFERENCE), "no status"),
        (success(status="completed", amount="much"), "amount"),
        (reply({"success": True}, 302), "redirect"),
        (reply({"success": True}, content_encoding="gzip"), "compressed"),
    ],
)
def test_an_answer_that_cannot_be_understood_is_an_error_of_its_own(answer, words):
    """Never a payment, and never a foreign exception."""
    with pytest.raises(APIResponseError, match=words) as caught:
        _wire.read_payment(CALL, answer, ASKED)
    assert caught.value.response is answer


def test_an_answer_of_too_many_values_is_not_decoded():
    """Two bytes of JSON may cost a hundred of memory; as a refusal, it keeps its status."""
    crowd = b'{"success": true, "data": {"status": "completed", "more": [%s]}}'
    real, hostile = (crowd % b",".join([b"[]"] * count) for count in (9_000, 349_000))
    assert _wire.read_payment(CALL, reply(real), ASKED).succeeded
    with pytest.raises(APIResponseError, match="more than 20,000 values"):
        _wire.read_payment(CALL, reply(hostile), ASKED)
    with pytest.raises(BadRequestError) as caught:
        _wire.read_payment(CALL, reply(hostile, 400), ASKED)
    assert caught.value.body is None
    with pytest.raises(PaymentOutcomeUnknown):
        _wire.outcome_of_initiate(INTENT, reply(hostile))


@given(st.binary(max_size=200), st.integers(200, 599))
def test_whatever_bytes_come_the_answer_is_a_payment_or_an_error_of_ours(body, status_code):
    """Nothing of json or cattrs escapes."""
    with pytest.raises((APIStatusError, APIResponseError)):
        _wire.read_payment(CALL, reply(body, status_code), ASKED)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
FIELDS = ["status", "amount", "reference", "phone", "created_at", "checkout_request_id", "success"]


@given(st.dictionaries(st.sampled_from(FIELDS), json_values))
def test_whatever_the_fields_hold_the_answer_is_a_payment_or_an_error_of_ours(fields):
    """Any JSON in any field."""
    try:
        payment = _wire.read_payment(CALL, success(**fields), ASKED)
    except (APIResponseError, PaymentMismatchError):
        return
    assert payment.status_text


def test_the_opinion_on_a_phone_is_read():
    """Or is an error, if there is none."""
    call = _wire.validate_call("0746990866")
    answer = success(valid=False)
    validation = _wire.read_phone(call, answer)
    assert validation.valid is False
    assert validation.response is answer
    for answer in (success(), success(valid="yes")):
        with pytest.raises(APIResponseError, match="whether the number is valid"):
            _wire.read_phone(call, answer)


# --- What became of an initiate


def test_an_accepted_initiate_is_pending_with_a_reference():
    """The documented answer."""
    payment = _wire.outcome_of_initiate(INTENT, success(**INITIATED))
    assert (payment.reference, payment.status, payment.amount) == (REFERENCE, "initiated", 100)


def test_a_checkout_request_id_is_enough_to_follow_it_by():
    """The reference may be missing."""
    fields = {**INITIATED, "reference": None}
    assert _wire.outcome_of_initiate(INTENT, success(**fields)).checkout_request_id == CHECKOUT_ID


@pytest.mark.parametrize("status_code", [400, 401, 403, 404, 409, 422, 429])
def test_a_rejected_initiate_says_that_no_prompt_was_sent(status_code):
    """These statuses prove it."""
    with pytest.raises(APIStatusError, match="No prompt was sent"):
        _wire.outcome_of_initiate(INTENT, reply({"success": False}, status_code))


UNPROVEN = [
    reply({"success": False, "message": "Push failed"}, 200),
    reply({"success": False}, 402),
    reply({"success": False}, 408),
    reply({"success": False}, 500),
    reply(b"<html>", 502),
    reply(b"<html>", 200),
    reply(b"", 200),
    reply({"success": True}, 307),
    success(),
    success(status="initiated"),
    success(**{**INITIATED, "amount": "much"}),
    _wire.connection_error(_wire.initiate_call(INTENT), "ReadError", never_sent=False, timed_out=False),
    _wire.connection_error(_wire.initiate_call(INTENT), "slow", never_sent=False, timed_out=True),
]  # fmt: skip


@pytest.mark.parametrize("answer", UNPROVEN)
def test_whatever_else_answers_an_initiate_its_outcome_is_unknown(answer):
    """And the message says that a prompt may be out, and not to send another."""
    with pytest.raises(PaymentOutcomeUnknown, match="Do not initiate again") as caught:
        _wire.outcome_of_initiate(INTENT, answer)
    error = caught.value
    assert (error.amount, error.phone) == (100, PHONE)
    assert error.error is error.__cause__
    assert error.response is (answer if isinstance(answer, APIResponse) else None)
    assert PHONE not in str(error)


def test_a_request_that_never_left_is_no_mystery():
    """Nothing was sent, and trying again is safe."""
    call = _wire.initiate_call(INTENT)
    error = _wire.connection_error(call, "ConnectError", never_sent=True, timed_out=False)
    with pytest.raises(APIConnectionError, match="trying again is safe") as caught:
        _wire.outcome_of_initiate(INTENT, error)
    assert caught.value is error
    assert _wire.never_sent(error)


@pytest.mark.parametrize("error", [error for error in UNPROVEN if isinstance(error, Exception)])
def test_a_lost_answer_is_no_proof_that_nothing_was_sent(error):
    """The class of the error proves nothing: the transport's evidence does."""
    assert not _wire.never_sent(error)


@pytest.mark.parametrize("fields", [{"amount": 1000}, {"phone": "254700000001"}])
def test_a_prompt_for_something_else_than_was_asked_is_refused_with_its_reference(fields):
    """The money that may move is not the money that was asked for."""
    with pytest.raises(PaymentMismatchError) as caught:
        _wire.outcome_of_initiate(INTENT, success(**{**INITIATED, **fields}))
    assert caught.value.answered.reference == REFERENCE


# --- Repeating


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"retry_after": "7"}, {}, 7.0),
        ({"retry_after": "0.5"}, {}, 0.5),
        ({"retry_after": "-5"}, {}, 0.0),
        ({"retry_after": "86400"}, {}, 120.0),
        ({"retry_after": "nan"}, {"retry_after": 9}, 9.0),
        ({"retry_after": "soon"}, {}, None),
        ({}, {"retry_after": 60}, 60.0),
        ({}, {"retry_after": "60"}, 60.0),
        ({}, {"retry_after": True}, None),
        ({}, {"retry_after": 10**400}, None),
        ({}, {}, None),
        (
            {
                "date": "Tue, 27 Jan 2026 07:17:18 GMT",
                "retry_after": "Tue, 27 Jan 2026 07:17:48 GMT",
            },
            {},
            30.0,
        ),
        ({"retry_after": "Tue, 27 Jan 2026 07:17:48 GMT"}, {"retry_after": 3}, 3.0),
    ],
)
def test_retry_after_is_read_in_all_its_forms_and_capped(headers, body, seconds):
    """Seconds, an HTTP date against the answer's own, or the body; two minutes at most."""
    with pytest.raises(RateLimitError) as caught:
        _wire.read_payment(CALL, reply(body, 429, **headers), ASKED)
    assert caught.value.retry_after == seconds


def statused(status_code: int) -> APIStatusError:
    return APIStatusError("", response=reply(status_code=status_code))


@pytest.mark.parametrize(
    ("error", "worth"),
    [
        (APIConnectionError("", never_sent=False), True),
        (APITimeoutError("", never_sent=True), True),
        (APIResponseError(""), True),
        (statused(200), True), (statused(408), True), (statused(409), True),
        (statused(425), True), (statused(429), True), (statused(500), True),
        (statused(400), False), (statused(401), False), (statused(403), False),
        (statused(404), False), (statused(422), False),
        (InvalidRequestError(""), False), (ValueError(), False), (KeyboardInterrupt(), False),
    ],
)  # fmt: skip
def test_a_read_is_repeated_after_what_may_pass_by_itself(error, worth):
    """And after nothing else, a cancellation least of all."""
    assert _wire.worth_repeating(error) is worth


NO_DATES = (
    "Tue, 27 Jan 99999999999 07:17:18 GMT",
    "Tue, 27 Jan 2026 07:17:18 +99999999999999999999",
    "Tue, 27 Jan 2026 07:99999999999:18 GMT",
    "yesterday",
    "",
)


@pytest.mark.parametrize("date", NO_DATES)
def test_a_date_that_is_none_tells_no_time(date):
    """Of twelve digits too: an answer is not lost for the sake of its date."""
    limits = {"x_ratelimit_limit": "60", "x_ratelimit_remaining": "1", "x_ratelimit_reset": "5"}
    assert _wire.rate_limits(reply({}, date=date, **limits)) is None
    assert _wire.retry_after_seconds(reply({}, date=date, retry_after=date)) is None


def test_a_date_without_a_zone_is_in_gmt():
    """Not in the zone of this machine."""
    limits = {"x_ratelimit_limit": "60", "x_ratelimit_remaining": "1"}
    told = _wire.rate_limits(
        reply({}, date="Tue, 27 Jan 2026 07:17:18 -0000", x_ratelimit_reset="1769498298", **limits)
    )
    assert told == _wire.RateLimits(60, 1, 60.0)


def test_no_credentials_stand_in_a_base_url():
    """Not even empty ones."""
    with pytest.raises(ConfigurationError, match="without credentials"):
        _wire.check_base_url("https://@paynexus.co.ke/api")


# --- To the letter


@pytest.mark.parametrize("character", '\\"<>^`{|}')
def test_a_base_url_holds_no_character_that_a_client_would_have_to_rewrite(character):
    """What travels is what was checked."""
    with pytest.raises(ConfigurationError, match="must be a URL"):
        _wire.check_base_url(f"https://paynexus.co.ke/a{character}b")


@pytest.mark.parametrize("end", ["?", "#"])
def test_a_query_or_fragment_is_none_even_when_empty(end):
    """The path would be put behind it."""
    with pytest.raises(ConfigurationError, match="query or a fragment"):
        _wire.check_base_url("https://paynexus.co.ke/api" + end)


@pytest.mark.parametrize(
    "url", ["https://x.example/XX?", "https://XX.example/api/XX", "https://x/api"]
)
def test_capitals_are_no_offence_in_a_base_url(url):
    """And a host needs no dot."""
    assert _wire.check_base_url(url.removesuffix("?")) == url.removesuffix("?")


def test_a_header_after_one_that_is_fine_is_checked_too():
    """And every one that passes is sent."""
    fine = {"X-One": "1", "X-Two": "2", "X-Three": ""}
    assert _wire.check_headers(fine) == fine
    for wrong in ({"Host": "x"}, {"X-Four": "é"}, {"X-Four": "a\tb"}, {"": "a"}):
        with pytest.raises(ConfigurationError):
            _wire.check_headers({**fine, **wrong})


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: _wire.initiate_call(INTENT), "initiate_payment"),
        (lambda: _wire.status_call(ASKED), "get_payment_status"),
        (lambda: _wire.status_call(BY_CHECKOUT_ID), "get_payment_status_by_checkout_id"),
        (lambda: _wire.validate_call("07"), "validate_phone"),
    ],
)
def test_an_error_begins_with_the_verb_that_met_it(make, name):
    """As it is spelled in Python."""
    call = make()
    with pytest.raises(NotFoundError, match=f"^{name}: PayNexus answered HTTP 404"):
        _wire.read_phone(call, reply({"success": False}, 404))
    with pytest.raises(NotFoundError, match=f"^{name}: PayNexus answered HTTP 404"):
        _wire.read_payment(call, reply({"success": False}, 404), ASKED)
    with pytest.raises(APIResponseError, match=rf"^{name}: .*HTTP 200"):
        _wire.read_payment(call, reply(b""), ASKED)
    error = _wire.connection_error(call, "broken", never_sent=False, timed_out=False)
    assert str(error).startswith(f"{name}: broken. ")


@pytest.mark.parametrize(
    ("make", "body"),
    [
        (lambda: _wire.initiate_call(Intent(5, PHONE, "Chai ☕")),
         f'{{"amount":5,"phone":"{PHONE}","description":"Chai ☕"}}'),
        (lambda: _wire.status_call(BY_CHECKOUT_ID), f'{{"checkout_request_id":"{CHECKOUT_ID}"}}'),
        (lambda: _wire.validate_call("+254 746"), '{"phone":"+254 746"}'),
    ],
)  # fmt: skip
def test_a_body_is_json_in_utf_8_without_a_blank(make, body):
    """No character is escaped that need not be."""
    assert make().body == body.encode("utf-8")


def test_a_look_by_reference_has_no_body():
    """It is a GET."""
    call = _wire.status_call(ASKED)
    assert call == _wire.Call("get_payment_status", "GET", f"/payments/{REFERENCE}", None, False)


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (999_999_999_999, r"not 9999\*\*\*\*\*999;"),
        (-999_999_999_999, r"not -9999\*\*\*\*\*999;"),
        (10**12, "a far larger number;"),
        (-(10**12), "a far larger number;"),
        (254746990866, r"not 2547\*\*\*\*\*866;"),
    ],
)
def test_an_amount_is_shown_up_to_a_million_millions(amount, shown):
    """A phone in its place is masked."""
    with pytest.raises(InvalidRequestError, match=shown):
        Intent.of(amount, PHONE, None, "production")


def test_an_amount_of_another_kind_of_int_is_sent_as_a_plain_one():
    """An enumeration's member, say."""

    class Price(int):
        pass

    assert type(Intent.of(Price(7), PHONE, None, "production").amount) is int


def test_a_description_of_255_characters_is_taken_as_it_is():
    """And none at all."""
    for description in ("x" * 255, "", None):
        assert Intent.of(1, PHONE, description, "production").description == description


def test_an_expectation_holds_what_is_known_and_nothing_else():
    """Of a prompt, a reference, a checkout request id, a payment."""
    assert _wire.expectation_of_intent(INTENT) == Expectation(amount=100, phone=PHONE)
    assert _wire.expect_reference(REFERENCE) == _wire.expectation_of(REFERENCE) == ASKED
    assert _wire.expect_checkout_id(CHECKOUT_ID) == BY_CHECKOUT_ID
    assert _wire.expectation_of(CHECKOUT_ID) == BY_CHECKOUT_ID
    payment = _wire.read_payment(CALL, success(**INITIATED), ASKED)
    assert _wire.expectation_of(payment) == KNOWN


@pytest.mark.parametrize(
    ("expect", "wrong", "words"),
    [
        (lambda name: _wire.expect_reference(name), "../x", "^reference must be"),
        (lambda name: _wire.expect_checkout_id(name), "../x", "^checkout_request_id must be"),
        (lambda name: _wire.expectation_of(name), "../x", "^reference must be"),
        (lambda name: _wire.expectation_of(name), 5, "not int"),
        (lambda name: _wire.validate_call(name), "", "nothing was sent"),
    ],
)
def test_a_refused_argument_is_named(expect, wrong, words):
    """Whoever made the mistake finds it."""
    with pytest.raises(InvalidRequestError, match=words):
        expect(wrong)


@pytest.mark.parametrize(("digits", "is_phone"), [(8, False), (9, True), (12, True), (13, False)])
def test_a_name_of_nine_to_twelve_digits_alone_looks_like_a_phone(digits, is_phone):
    """Fewer or more may be a reference."""
    name = "7" * digits
    for expect in (_wire.expect_reference, _wire.expect_checkout_id):
        if is_phone:
            with pytest.raises(InvalidRequestError, match="looks like a phone"):
                expect(name)
        else:
            expect(name)


@pytest.mark.parametrize(
    ("call", "never_sent", "timed_out", "kind", "words"),
    [
        (_wire.initiate_call(INTENT), True, False, APIConnectionError, "trying again is safe"),
        (_wire.initiate_call(INTENT), True, True, APITimeoutError, "trying again is safe"),
        (_wire.initiate_call(INTENT), False, False, APIConnectionError, "is not known"),
        (_wire.initiate_call(INTENT), False, True, APITimeoutError, "is not known"),
        (CALL, True, False, APIConnectionError, "try again"),
        (CALL, False, True, APITimeoutError, "asking again is safe"),
    ],
)
def test_what_an_exchange_without_an_answer_proves(call, never_sent, timed_out, kind, words):
    """Where a prompt may be out, nobody is told that trying again is safe."""
    error = _wire.connection_error(call, "broken.", never_sent=never_sent, timed_out=timed_out)
    assert type(error) is kind
    assert error.never_sent is never_sent
    assert words in str(error)
    assert ("safe" in str(error)) is ("safe" in words)
    assert ": broken. " in str(error)


def test_an_exchange_that_ended_without_a_word_says_so():
    """A transport's error may have no text."""
    for reason, words in (("", "no answer"), ("NO MAX", "NO MAX")):
        error = _wire.connection_error(CALL, reason, never_sent=False, timed_out=False)
        assert f": {words}. " in str(error)


# --- Answers, to the letter


def test_what_an_answer_leaves_out_is_filled_in_from_what_was_asked():
    """What it tells is kept; a phone is shown as it was asked."""
    bare = _wire.read_payment(CALL, success(status="processing"), KNOWN)
    assert _wire.expectation_of(bare) == KNOWN
    told = {**INITIATED, "amount": 7, "phone": "0746990866", "status": "processing"}
    full = _wire.read_payment(CALL, success(**told), ASKED)
    assert (full.amount, full.checkout_request_id) == (7, CHECKOUT_ID)
    assert _wire.read_payment(CALL, success(**told), KNOWN).phone == PHONE


def test_a_reads_amount_counts_when_the_payment_has_ended_and_an_initiates_at_once():
    """Only then does anybody act on it."""
    known = Expectation(reference=REFERENCE, amount=100)
    wrong = {"reference": REFERENCE, "amount": 7}
    assert _wire.read_payment(CALL, success(**wrong, status="processing"), known).amount == 7
    for status, strictly in (("processing", True), ("completed", False)):
        with pytest.raises(PaymentMismatchError):
            _wire.read_payment(CALL, success(**wrong, status=status), known, strictly=strictly)


@pytest.mark.parametrize(
    ("status_code", "kind"),
    [(199, APIStatusError), (200, None), (299, None), (300, APIResponseError), (399, APIResponseError),
     (400, BadRequestError), (499, APIStatusError), (500, InternalServerError)],
)  # fmt: skip
def test_the_hundreds_of_a_status_decide(status_code, kind):
    """To the last of each."""
    answer = reply({"success": True, "data": {"status": "completed"}}, status_code)
    if kind is None:
        assert _wire.read_payment(CALL, answer, ASKED).succeeded
        return
    with pytest.raises((APIStatusError, APIResponseError)) as caught:
        _wire.read_payment(CALL, answer, ASKED)
    assert type(caught.value) is kind
    assert caught.value.response is answer


@pytest.mark.parametrize("status_code", [399, 400, 404, 500])
def test_without_json_a_status_below_400_is_not_understood_and_above_it_is_an_error(status_code):
    """Its own, and without a body."""
    answer = reply(b"<html>", status_code)
    with pytest.raises((APIStatusError, APIResponseError)) as caught:
        _wire.read_payment(CALL, answer, ASKED)
    assert isinstance(caught.value, APIStatusError) is (status_code >= 400)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("encoding", ["", "identity", "Identity"])
def test_an_answer_that_is_not_compressed_may_say_so(encoding):
    """In either case."""
    answer = reply({"success": True, "data": {"status": "completed"}}, content_encoding=encoding)
    assert _wire.read_payment(CALL, answer, ASKED).succeeded


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_json_is_read_in_each_of_its_encodings(encoding):
    """The documents of the standard, and no other."""
    text = json.dumps({"success": True, "data": {"status": "completed", "amount": 1.10}})
    assert str(_wire.read_payment(CALL, reply(text.encode(encoding)), ASKED).amount) == "1.1"


def test_twenty_thousand_values_are_decoded_and_one_more_is_not():
    """Counted by the characters that stand before a value."""
    crowd = b'{"success":true,"data":{"status":"completed","more":[%s]}}'
    most = crowd % b",".join([b"1"] * 19_996)
    assert _wire.read_payment(CALL, reply(most), ASKED).succeeded
    with pytest.raises(APIResponseError, match="values"):
        _wire.read_payment(CALL, reply(most.replace(b"[", b"[1,")), ASKED)


def test_the_reason_why_json_is_none_is_the_cause():
    """Whoever looks for it finds it."""
    with pytest.raises(APIResponseError) as caught:
        _wire.read_payment(CALL, reply(b"{"), ASKED)
    assert isinstance(caught.value.__cause__, json.JSONDecodeError)
    with pytest.raises(APIResponseError) as caught:
        _wire.read_payment(CALL, success(status="completed", amount="much"), ASKED)
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(APIResponseError) as caught:
        _wire.read_phone(CALL, success())
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_refusal_quotes_the_message_or_else_the_error():
    """With one full stop."""
    for document in (
        {"message": "NoX.", "error": "E"},
        {"error": "NoX."},
        {"message": "", "error": "NoX"},
    ):
        with pytest.raises(BadRequestError, match=r"HTTP 400: NoX\. ") as caught:
            _wire.read_payment(CALL, reply(document, 400), ASKED)
        assert caught.value.detail == document.get("message") or document["error"]
    with pytest.raises(BadRequestError, match=r"HTTP 400\. ") as caught:
        _wire.read_payment(CALL, reply({}, 400), ASKED)
    assert (caught.value.detail, caught.value.code, caught.value.body) == (None, None, None)


def test_no_more_than_twenty_fields_and_five_words_on_each_are_kept_of_a_refusal():
    """Fields without words are none."""
    words = {f"f{n}": [f"w{m}" for m in range(6)] for n in range(21)}
    with pytest.raises(UnprocessableEntityError) as caught:
        _wire.read_payment(CALL, reply({"errors": words}, 422), ASKED)
    assert list(caught.value.errors) == [f"f{n}" for n in range(20)]
    assert set(caught.value.errors.values()) == {("w0", "w1", "w2", "w3", "w4")}
    assert "(f0: w0, w1, w2, w3, w4; f1: w0, " in str(caught.value)
    with pytest.raises(UnprocessableEntityError, match=r"422 \(f: a, b\)\. "):
        _wire.read_payment(CALL, reply({"errors": {"f": ["a", "b"]}}, 422), ASKED)
    for nothing in ({"": "no name"}, {"f": []}, {"f": [""]}, ["f"], "f"):
        with pytest.raises(UnprocessableEntityError) as caught:
            _wire.read_payment(CALL, reply({"errors": nothing}, 422), ASKED)
        assert caught.value.errors == {}


@pytest.mark.parametrize(
    ("status_code", "word"), [(401, "key"), (403, "key"), (404, "reference"), (429, "retry_after")]
)
def test_a_refusal_advises_what_to_look_at(status_code, word):
    """The same for a read and for an initiate, which says besides that no prompt is out."""
    for call in (CALL, _wire.initiate_call(INTENT)):
        with pytest.raises(APIStatusError, match=word) as caught:
            _wire.read_payment(call, reply({"success": False}, status_code), ASKED)
        assert ("No prompt was sent" in str(caught.value)) is call.moves_money


def test_a_refusal_that_needs_no_advice_says_that_no_prompt_was_sent_and_no_more():
    """Of an initiate."""
    with pytest.raises(BadRequestError, match=r"HTTP 400\. No prompt was sent$"):
        _wire.read_payment(_wire.initiate_call(INTENT), reply({}, 400), ASKED)


@pytest.mark.parametrize("status_code", [200, 402, 408, 500, 503])
def test_a_refusal_that_proves_nothing_does_not_say_that_no_prompt_was_sent(status_code):
    """Of an initiate; a read changes nothing anyway."""
    call = _wire.initiate_call(INTENT)
    with pytest.raises(APIStatusError, match="no proof") as caught:
        _wire.read_payment(call, reply({"success": False}, status_code), ASKED)
    assert "No prompt was sent" not in str(caught.value)
    with pytest.raises(APIStatusError, match="not changed by asking"):
        _wire.read_payment(CALL, reply({"success": False}, status_code), ASKED)


def test_an_oversized_answer_keeps_its_response():
    """As far as it was read."""
    answer = reply(b"x", 200)
    error = _wire.oversized_error(CALL, answer)
    assert error.response is answer
    assert str(error).startswith("get_payment_status: the answer (HTTP 200)")


def test_an_initiate_that_is_answered_without_a_name_is_unknown_and_says_why():
    """There is nothing to follow it by; its answer is kept."""
    with pytest.raises(PaymentOutcomeUnknown, match="no reference") as caught:
        _wire.outcome_of_initiate(INTENT, success(status="initiated", amount=100))
    assert isinstance(caught.value.error, APIResponseError)
    assert "initiate_payment" in str(caught.value)
    assert "KES 100" in str(caught.value)
    assert "2547*****866" in str(caught.value)


# --- The quota and dates, to the letter

TOLD = {
    "x_ratelimit_limit": "60", "x_ratelimit_remaining": "7", "x_ratelimit_reset": "1769498298",
    "date": "Tue, 27 Jan 2026 07:17:18 GMT",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "limits"),
    [
        ({}, _wire.RateLimits(60, 7, 60.0)),
        ({"x_ratelimit_limit": "1"}, _wire.RateLimits(1, 7, 60.0)),
        ({"x_ratelimit_limit": "0"}, None),
        ({"x_ratelimit_remaining": "0"}, _wire.RateLimits(60, 0, 60.0)),
        ({"x_ratelimit_remaining": "-3"}, _wire.RateLimits(60, 0, 60.0)),
        ({"x_ratelimit_reset": "1769498238.5"}, _wire.RateLimits(60, 7, 0.5)),
        ({"x_ratelimit_reset": "1769498238"}, _wire.RateLimits(60, 7, 0.0)),
        ({"x_ratelimit_reset": "1769498000"}, _wire.RateLimits(60, 7, 0.0)),
        ({"x_ratelimit_reset": "inf"}, None),
    ],
)
def test_a_window_is_told_of_in_calls_and_seconds(changed, limits):
    """None of them is negative, and a limit of nothing is none."""
    told = _wire.rate_limits(reply({}, **{**TOLD, **changed}))
    assert told == limits
    assert told is None or (type(told.limit), type(told.remaining)) == (int, int)


@pytest.mark.parametrize("missing", TOLD)
def test_a_window_is_told_of_by_all_its_headers_or_not_at_all(missing):
    """A part of it would have to be guessed at."""
    assert _wire.rate_limits(reply({}, **{k: v for k, v in TOLD.items() if k != missing})) is None


def test_a_date_to_wait_for_counts_from_the_date_of_the_answer():
    """One that has passed is now."""
    passed = "Tue, 27 Jan 2026 07:17:00 GMT"
    assert _wire.retry_after_seconds(reply({}, date=TOLD["date"], retry_after=passed)) == 0.0
    assert _wire.retry_after_seconds(reply({}, retry_after=" 7 "), None) == 7.0
    assert _wire.retry_after_seconds(reply({}), {}) is None
    assert _wire.retry_after_seconds(reply({}), {"retry_after": [7]}) is None


def test_a_date_is_read_in_its_own_zone():
    """And in GMT where it names none."""
    moments = [
        _wire.date_of(f"Tue, 27 Jan 2026 {time}")
        for time in ("10:17:18 +0300", "07:17:18 GMT", "07:17:18 -0000", "07:17:18")
    ]
    assert moments == [datetime(2026, 1, 27, 7, 17, 18, tzinfo=UTC)] * 4


@pytest.mark.parametrize(
    ("status_code", "worth"),
    [(299, True), (300, False), (407, False), (410, False), (424, False), (428, False),
     (430, False), (499, False), (599, True)],
)  # fmt: skip
def test_a_status_is_worth_repeating_or_its_neighbour_is(status_code, worth):
    """Each by itself."""
    assert _wire.worth_repeating(statused(status_code)) is worth
