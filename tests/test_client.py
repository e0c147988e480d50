"""The verbs: what is sent, what comes back, and what is refused before anything is sent."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any

import anyio
import httpx
import pytest

import paynexus_async
from paynexus_async import (
    APIConnectionError,
    APIError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    AsyncPayNexus,
    AuthenticationError,
    ClientStateError,
    ConfigurationError,
    DuplicatePaymentError,
    InternalServerError,
    InvalidRequestError,
    NotFoundError,
    Payment,
    PaymentMismatchError,
    PaymentOutcomeUnknown,
    PaymentStatus,
    PayNexusError,
    RateLimitError,
)
from paynexus_async._prompts import Prompts
from paynexus_async._transport import _POOL_CONNECTIONS_MAX, INITIATES_MAX
from paynexus_async._wire import Intent

from .fakes import (
    CHECKOUT_ID,
    PHONE,
    PUBLIC_KEY,
    REFERENCE,
    SECRET_KEY,
    FakeServer,
    answer,
    client_over,
    data,
    initiated,
    over_both,
    refusal,
    status,
)

pytestmark = pytest.mark.anyio


async def initiate(client: AsyncPayNexus, **options: Any) -> Payment:
    return await client.initiate_payment(100, "0746990866", "Order #12345", **options)


# --- The documented calls


async def test_initiating_gives_the_payment(server: FakeServer):
    """The documented example, and the answer within reach."""
    server.answers(initiated())
    async with server.client() as paynexus:
        payment = await initiate(paynexus)
    assert payment == Payment(
        reference=REFERENCE,
        checkout_request_id=CHECKOUT_ID,
        amount=100,
        phone=PHONE,
        status=PaymentStatus.INITIATED,
        status_text="initiated",
    )
    assert payment.response is not None
    assert payment.response.status_code == 200
    assert payment.response.headers["content-type"] == "application/json"
    assert b"PNXABC123DEF" in payment.response.body
    assert server.bodies == [{"amount": 100, "phone": PHONE, "description": "Order #12345"}]
    assert server.requests[0].headers["X-API-Key"] == SECRET_KEY
    assert str(server.requests[0].url) == "https://paynexus.co.ke/api/mpesa/payment/initiate"


async def test_reads_use_the_public_key(server: FakeServer):
    """All three of them."""
    server.answers(status("processing"))
    async with server.client() as paynexus:
        payment = await paynexus.get_payment_status(REFERENCE)
        again = await paynexus.get_payment_status(payment)
        by_checkout_id = await paynexus.get_payment_status_by_checkout_id(CHECKOUT_ID)
        server.answers(data(valid=True, original="0746990866", normalized=PHONE, provider="mpesa"))
        phone = await paynexus.validate_phone("0746990866")
    assert payment == again == by_checkout_id
    assert (payment.status, payment.amount) == ("processing", 100)
    assert (phone.valid, phone.normalized, phone.provider) == (True, PHONE, "mpesa")
    assert {request.headers["X-API-Key"] for request in server.requests} == {PUBLIC_KEY}


async def test_reads_fall_back_to_the_secret_key(server: FakeServer):
    """Where there is no public one."""
    server.answers(status("processing"))
    async with server.client(public_key=None) as paynexus:
        await paynexus.get_payment_status(REFERENCE)
    assert server.requests[0].headers["X-API-Key"] == SECRET_KEY


async def test_a_public_key_alone_cannot_initiate(server: FakeServer):
    """It is refused before anything is sent."""
    async with server.client(secret_key=None) as paynexus:
        with pytest.raises(ConfigurationError, match="needs the secret key"):
            await initiate(paynexus)
    assert server.requests == []


@pytest.mark.parametrize(
    ("amount", "phone"),
    [(0, PHONE), (True, PHONE), (1.5, PHONE), (150_001, PHONE), (1, "0202222222"), (1, "+1415")],
)
async def test_bad_input_is_refused_before_anything_is_sent(server: FakeServer, amount, phone):
    """And is a ValueError too."""
    async with server.client() as paynexus:
        for verb in (paynexus.initiate_payment, paynexus.pay):
            with pytest.raises(InvalidRequestError) as caught:
                await verb(amount, phone)
            assert isinstance(caught.value, ValueError)
    assert server.requests == []


async def test_the_sandbox_environment_has_its_own_limit(server: FakeServer):
    """An `sb_` key means 50 KES at most."""
    server.answers(initiated(amount=50))
    async with server.client(secret_key="sb_test_123") as paynexus:
        assert paynexus.environment == "sandbox"
        assert (await paynexus.initiate_payment(50, PHONE)).amount == 50
        with pytest.raises(InvalidRequestError, match="1 to 50"):
            await paynexus.initiate_payment(51, PHONE)


# --- Configuration


async def test_keys_and_url_come_from_the_environment(server: FakeServer, monkeypatch):
    """Where no argument is given."""
    monkeypatch.setenv("PAYNEXUS_SECRET_KEY", SECRET_KEY)
    monkeypatch.setenv("PAYNEXUS_PUBLIC_KEY", PUBLIC_KEY)
    monkeypatch.setenv("PAYNEXUS_BASE_URL", "http://127.0.0.1:8765/api/")
    server.answers(status("processing"))
    async with AsyncPayNexus(http_client=server.http_client()) as paynexus:
        await paynexus.get_payment_status(REFERENCE)
    assert str(server.requests[0].url) == f"http://127.0.0.1:8765/api/payments/{REFERENCE}"


@pytest.mark.parametrize("argument", ["secret_key", "public_key", "base_url"])
async def test_an_explicit_blank_never_falls_back(monkeypatch, argument):
    """Somebody's unset variable must not become somebody else's key."""
    monkeypatch.setenv("PAYNEXUS_SECRET_KEY", SECRET_KEY)
    monkeypatch.setenv("PAYNEXUS_PUBLIC_KEY", PUBLIC_KEY)
    monkeypatch.setenv("PAYNEXUS_BASE_URL", "https://shop.example/api")
    with pytest.raises(ConfigurationError, match=f"{argument} is blank"):
        AsyncPayNexus(**{argument: ""})


async def test_a_blank_variable_says_nothing(monkeypatch):
    """It is as good as unset."""
    monkeypatch.setenv("PAYNEXUS_SECRET_KEY", "")
    with pytest.raises(ConfigurationError, match="no API key"):
        AsyncPayNexus()


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0}, {"timeout": -1}, {"timeout": float("nan")}, {"timeout": float("inf")},
        {"timeout": True}, {"timeout": "5"}, {"max_retries": -1}, {"max_retries": 11},
        {"max_retries": True}, {"max_retries": 1.0}, {"default_headers": {"Host": "x"}},
        {"base_url": "http://example.com"}, {"http_client": object()},
    ],
)  # fmt: skip
async def test_an_option_out_of_range_is_refused(server: FakeServer, options):
    """At construction, and by `with_options` too."""
    with pytest.raises(ConfigurationError):
        AsyncPayNexus(SECRET_KEY, **options)
    if set(options) & {"timeout", "max_retries", "default_headers"}:
        with pytest.raises(ConfigurationError):
            server.client().with_options(**options)


async def test_the_client_prints_no_key(server: FakeServer):
    """Not itself, not what it holds."""
    paynexus = server.client()
    shown = f"{paynexus!r} {paynexus} {vars(paynexus)!r}"
    assert SECRET_KEY not in shown
    assert PUBLIC_KEY not in shown
    assert repr(paynexus) == "<AsyncPayNexus production>"


async def test_other_options_share_everything_else(server: FakeServer):
    """Headers add up, the connection pool and the memory of prompts are the same."""
    server.answers(initiated())
    async with server.client(default_headers={"X-A": "1", "X-B": "1"}) as paynexus:
        other = paynexus.with_options(timeout=1, max_retries=0, default_headers={"X-B": "2"})
        await initiate(other)
        with pytest.raises(DuplicatePaymentError):
            await initiate(paynexus)
        await other.aclose()
        server.answers(status("processing"))
        await paynexus.get_payment_status(REFERENCE)
    first, second = server.requests
    assert (first.headers["X-A"], first.headers["X-B"]) == ("1", "2")
    assert (second.headers["X-A"], second.headers["X-B"]) == ("1", "1")


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), True, "1", 86_401])
async def test_a_time_that_is_no_time_is_refused(server: FakeServer, seconds):
    """Nothing waits for ever, and nothing is sent."""
    async with server.client() as paynexus:
        for attempt in (
            lambda: paynexus.get_payment_status(REFERENCE, timeout=seconds),
            lambda: initiate(paynexus, timeout=seconds),
            lambda: paynexus.wait_for_completion(REFERENCE, max_wait=seconds),
            lambda: paynexus.pay(1, PHONE, max_wait=seconds),
            lambda: anext(paynexus.watch(REFERENCE, max_wait=seconds)),
        ):
            with pytest.raises(InvalidRequestError, match="number of seconds"):
                await attempt()
        with pytest.raises(InvalidRequestError, match="revisions_for"):
            paynexus.watch(REFERENCE, revisions_for=-1)
    assert server.requests == []


# --- The client's life


async def test_a_closed_client_says_so(server: FakeServer):
    """Whatever is called."""
    server.answers(initiated())
    paynexus = server.client()
    await paynexus.aclose()
    await paynexus.aclose()
    for attempt in (
        lambda: initiate(paynexus),
        lambda: paynexus.get_payment_status(REFERENCE),
        lambda: paynexus.wait_for_completion(REFERENCE),
        lambda: paynexus.__aenter__(),
    ):
        with pytest.raises(ClientStateError, match="closed"):
            await attempt()
    assert server.requests == []


async def test_paying_names_the_payment_when_the_client_is_closed(server: FakeServer):
    """Its prompt is out: nobody may be told that nothing was sent."""
    server.latency_seconds = 1.0
    server.answers(initiated(), status("processing"))
    for closes_at in (0.5, 1.5):  # while the prompt is being sent, and while it is waited for
        paynexus = server.client()
        async with anyio.create_task_group() as group:

            async def close(paynexus: AsyncPayNexus = paynexus, at: float = closes_at) -> None:
                await anyio.sleep(at)
                await paynexus.aclose()

            group.start_soon(close)
            with pytest.raises(ClientStateError, match=f"{REFERENCE}.*has not failed"):
                await paynexus.pay(100, PHONE)
    assert server.initiates == 2


def test_a_client_from_another_event_loop_says_so(server: FakeServer):
    """Instead of hanging, or failing in the depths of a socket."""
    server.answers(status("processing"))
    paynexus = server.client()
    asyncio.run(paynexus.get_payment_status(REFERENCE))
    with pytest.raises(ClientStateError, match="another event loop"):
        asyncio.run(paynexus.get_payment_status(REFERENCE))
    assert len(server.requests) == 1


def test_a_client_outside_any_event_loop_says_so(server: FakeServer):
    """`watch` is not a coroutine; calling it nowhere is a mistake."""
    with pytest.raises(ClientStateError, match="async function"):
        server.client().watch(REFERENCE)


# --- At most once


@over_both
@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (httpx.ReadTimeout("slow"), PaymentOutcomeUnknown),
        (httpx.RemoteProtocolError("cut"), PaymentOutcomeUnknown),
        (httpx.WriteError("half"), PaymentOutcomeUnknown),
        (refusal(500), PaymentOutcomeUnknown),
        (refusal(503, headers={"Retry-After": "1"}), PaymentOutcomeUnknown),
        (refusal(200), PaymentOutcomeUnknown),
        (answer(302), PaymentOutcomeUnknown),
        (refusal(429, retry_after=1), RateLimitError),
        (refusal(401), AuthenticationError),
        (refusal(404), NotFoundError),
    ],
)
async def test_an_initiate_that_left_is_never_sent_again(server: FakeServer, failure, kind):
    """Whatever came back, there is one request."""
    server.answers(failure)
    async with server.client(max_retries=10) as paynexus:
        with pytest.raises(kind):
            await initiate(paynexus)
    assert server.initiates == 1


@over_both
async def test_an_initiate_that_never_left_is_tried_again(server: FakeServer):
    """Not one byte had left, so this is safe."""
    refused = httpx.ConnectError("refused")
    server.answers(refused, refused, initiated())
    async with server.client() as paynexus:
        payment = await initiate(paynexus)
    assert payment.reference == REFERENCE
    assert server.initiates == 3


@over_both
async def test_trying_again_is_bounded(server: FakeServer):
    """By the number of retries, and by the time."""
    server.answers(httpx.ConnectError("refused"))
    async with server.client() as paynexus:
        with pytest.raises(APIConnectionError, match="no prompt was sent") as caught:
            await initiate(paynexus)
        assert caught.value.never_sent
        assert server.initiates == 3
        started = anyio.current_time()
        with pytest.raises(APIConnectionError):
            await paynexus.with_options(max_retries=10, timeout=5).initiate_payment(1, PHONE)
        assert anyio.current_time() - started <= 5


# --- No second prompt


async def test_a_second_prompt_beside_an_open_one_is_refused(server: FakeServer):
    """With the first one's reference, and without a call."""
    server.answers(initiated())
    async with server.client() as paynexus:
        first = await initiate(paynexus)
        with pytest.raises(DuplicatePaymentError, match="still initiated: follow") as caught:
            await initiate(paynexus)
        assert caught.value.reference == first.reference
        assert caught.value.payment == first
        assert PHONE not in str(caught.value)
    assert len(server.requests) == 1


async def test_another_amount_or_phone_is_no_duplicate(server: FakeServer):
    """Only the same phone and amount are."""
    async with server.client() as paynexus:
        for amount, phone, reference in [
            (100, PHONE, "P1"),
            (101, PHONE, "P2"),
            (100, "0700000001", "P3"),
        ]:
            server.answers(
                initiated(amount=amount, phone=phone, reference=reference, checkout_request_id=None)
            )  # fmt: skip
            await paynexus.initiate_payment(amount, phone)
    assert server.initiates == 3


async def test_the_caller_may_insist(server: FakeServer):
    """And the refusal stays until both are over."""
    server.answers(initiated(), initiated(reference="PNX2", checkout_request_id="ws_CO_2"))
    async with server.client() as paynexus:
        await initiate(paynexus)
        await initiate(paynexus, allow_duplicate=True)
        server.answers(status("cancelled", reference="PNX2", checkout_request_id="ws_CO_2"))
        await paynexus.get_payment_status("PNX2")
        with pytest.raises(DuplicatePaymentError) as caught:
            await initiate(paynexus)
        assert caught.value.reference == REFERENCE
        server.answers(status("expired"), initiated(reference="PNX3", checkout_request_id=None))
        await paynexus.get_payment_status(REFERENCE)
        assert (await initiate(paynexus)).reference == "PNX3"


@pytest.mark.parametrize("word", ["completed", "failed", "cancelled", "expired"])
async def test_a_payment_that_has_ended_makes_way(server: FakeServer, word):
    """However it was seen to end."""
    server.answers(initiated(), status(word), initiated(reference="PNX2"))
    async with server.client() as paynexus:
        await initiate(paynexus)
        await paynexus.get_payment_status_by_checkout_id(CHECKOUT_ID)
        assert (await initiate(paynexus)).reference == "PNX2"


@over_both
async def test_while_the_outcome_is_unknown_a_second_prompt_is_refused(server: FakeServer):
    """However much time passes: it may have been paid."""
    server.answers(httpx.ReadTimeout("slow"))
    async with server.client() as paynexus:
        with pytest.raises(PaymentOutcomeUnknown):
            await initiate(paynexus)
        await anyio.sleep(3600)
        with pytest.raises(DuplicatePaymentError, match="answer was lost") as caught:
            await initiate(paynexus)
        assert caught.value.reference is None
        server.answers(initiated())
        assert (await initiate(paynexus, allow_duplicate=True)).reference == REFERENCE
    assert server.initiates == 2


@over_both
async def test_a_rejected_prompt_makes_way(server: FakeServer):
    """Nothing was sent."""
    server.answers(refusal(422), httpx.ConnectError("refused"), initiated())
    async with server.client(max_retries=0) as paynexus:
        with pytest.raises(APIStatusError):
            await initiate(paynexus)
        with pytest.raises(APIConnectionError):
            await initiate(paynexus)
        assert (await initiate(paynexus)).reference == REFERENCE


@over_both
async def test_two_at_once_become_one(server: FakeServer):
    """A double click does not charge twice."""
    server.answers(initiated())
    server.latency_seconds = 1
    outcomes: list[object] = []

    async def click() -> None:
        try:
            outcomes.append(await initiate(paynexus))
        except DuplicatePaymentError as error:
            outcomes.append(error)

    async with server.client() as paynexus, anyio.create_task_group() as group:
        group.start_soon(click)
        group.start_soon(click)
    assert server.initiates == 1
    refused = next(o for o in outcomes if isinstance(o, DuplicatePaymentError))
    assert "is being sent" in str(refused)
    assert refused.payment is None


async def test_a_prompt_that_began_in_a_pause_between_two_attempts_is_not_doubled(server):
    """Who does not insist is refused; who does is found by the first caller's retry."""
    server.answers(httpx.ConnectError("refused"), initiated())
    outcomes: list[object] = []

    async def first() -> None:
        try:
            outcomes.append(await initiate(paynexus))
        except DuplicatePaymentError as error:
            outcomes.append(error)

    async with server.client() as paynexus, anyio.create_task_group() as group:
        group.start_soon(first)
        await anyio.sleep(0.01)  # refused by now, and pausing
        with pytest.raises(DuplicatePaymentError, match="is being sent"):
            await initiate(paynexus)
        outcomes.append(await initiate(paynexus, allow_duplicate=True))
    assert server.initiates == 2
    assert {type(outcome) for outcome in outcomes} == {Payment, DuplicatePaymentError}


@over_both
@pytest.mark.parametrize("fails_after", [0.0, 0.5])
async def test_a_prompt_that_nobody_will_send_again_is_over(server: FakeServer, fails_after):
    """Its caller left in the pause between two attempts, or while one of them was failing."""
    server.answers(httpx.ConnectError("refused"))
    server.latency_seconds = fails_after
    async with server.client() as paynexus:
        with anyio.move_on_after(0.001) as scope:
            await initiate(paynexus)
        assert scope.cancelled_caught
        await anyio.sleep(1)
        server.answers(initiated())
        assert (await initiate(paynexus)).reference == REFERENCE


@over_both
async def test_a_cancelled_caller_leaves_the_reference_behind(server: FakeServer):
    """The prompt is on the phone all the same."""
    server.answers(initiated())
    server.latency_seconds = 2
    async with server.client() as paynexus:
        with anyio.move_on_after(1):
            await initiate(paynexus)
        with pytest.raises(DuplicatePaymentError, match="is being sent"):
            await initiate(paynexus)
        await anyio.sleep(2)
        with pytest.raises(DuplicatePaymentError) as caught:
            await initiate(paynexus)
        assert caught.value.reference == REFERENCE
    assert server.initiates == 1


async def test_a_prompt_past_its_life_is_asked_for_before_the_next(server: FakeServer):
    """Only the proof that it is over lets the next one pass."""
    server.answers(initiated(), status("expired"), initiated(reference="PNX2"))
    async with server.client() as paynexus:
        await initiate(paynexus)
        await anyio.sleep(121)
        assert (await initiate(paynexus)).reference == "PNX2"
    assert [request.method for request in server.requests] == ["POST", "GET", "POST"]


@pytest.mark.parametrize("found", [status("processing"), refusal(500), httpx.ConnectError("gone")])
async def test_without_that_proof_the_next_one_is_refused(server: FakeServer, found):
    """Time alone proves nothing."""
    server.answers(initiated(), found)
    async with server.client(max_retries=0) as paynexus:
        await initiate(paynexus)
        await anyio.sleep(121)
        with pytest.raises(DuplicatePaymentError) as caught:
            await initiate(paynexus)
        assert caught.value.reference == REFERENCE
    assert server.initiates == 1


async def test_a_prompt_for_something_else_stays_open(server: FakeServer):
    """It was sent, after all."""
    server.answers(initiated(amount=1000))
    async with server.client() as paynexus:
        with pytest.raises(PaymentMismatchError) as caught:
            await initiate(paynexus)
        assert (caught.value.asked.amount, caught.value.answered.amount) == (100, 1000)
        with pytest.raises(DuplicatePaymentError) as refused:
            await initiate(paynexus)
        assert refused.value.reference == REFERENCE


async def test_a_prompt_for_something_else_is_held_to_what_was_asked(server: FakeServer):
    """Whoever follows it is told once more, and is not told that it is paid."""
    server.answers(initiated(amount=1000))
    async with server.client() as paynexus:
        with pytest.raises(PaymentMismatchError):
            await initiate(paynexus)
        with pytest.raises(DuplicatePaymentError) as refused:
            await initiate(paynexus)
        server.answers(status("completed", amount="1000.00"))
        for follow in (REFERENCE, refused.value.payment):
            assert follow is not None
            with pytest.raises(PaymentMismatchError):
                await paynexus.wait_for_completion(follow)


@pytest.mark.parametrize(
    "fields", [{"phone": "254700000001"}, {"amount": 1, "status": "completed"}], ids=str
)
async def test_another_payments_answer_is_no_proof_that_a_prompt_is_over(server, fields):
    """A server that mixes up its answers does not open the way for a second prompt."""
    server.answers(initiated(**fields), status("completed", **fields), initiated())
    async with server.client() as paynexus:
        with pytest.raises(PaymentMismatchError):
            await initiate(paynexus)
        await paynexus.get_payment_status(REFERENCE)
        with pytest.raises(DuplicatePaymentError) as refused:
            await initiate(paynexus)
        assert refused.value.reference is None
    assert server.initiates == 1


async def test_the_memory_of_prompts_is_bounded(server: FakeServer, monkeypatch):
    """The oldest makes way."""
    monkeypatch.setattr(paynexus_async._prompts, "_PROMPTS_MAX", 3)
    server.answers(httpx.ReadTimeout("slow"))
    async with server.client() as paynexus:
        for amount in range(1, 5):
            with pytest.raises(PaymentOutcomeUnknown):
                await paynexus.initiate_payment(amount, PHONE)
        with pytest.raises(DuplicatePaymentError):
            await paynexus.initiate_payment(2, PHONE)
        with pytest.raises(PaymentOutcomeUnknown):
            await paynexus.initiate_payment(1, PHONE)


# --- Reads repeat


@over_both
@pytest.mark.parametrize(
    "passing",
    [
        httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), refusal(500), refusal(409),
        answer(200), httpx.Response(502, text="<html>"), refusal(429, retry_after=5),
    ],
)  # fmt: skip
async def test_a_read_is_repeated_after_a_passing_error(server: FakeServer, passing):
    """Twice, by default."""
    server.answers(passing, passing, status("completed"))
    async with server.client() as paynexus:
        payment = await paynexus.get_payment_status(REFERENCE)
    assert payment.succeeded
    assert len(server.requests) == 3


@pytest.mark.parametrize("status_code", [400, 401, 403, 404, 422])
async def test_a_read_is_not_repeated_after_a_refusal(server: FakeServer, status_code):
    """It would be refused again."""
    server.answers(refusal(status_code))
    async with server.client() as paynexus:
        with pytest.raises(APIStatusError) as caught:
            await paynexus.get_payment_status(REFERENCE)
    assert caught.value.status_code == status_code
    assert len(server.requests) == 1


async def test_retry_after_is_honoured(server: FakeServer):
    """Exactly, and within the time limit."""
    server.answers(refusal(429, headers={"Retry-After": "7"}), status("completed"))
    async with server.client() as paynexus:
        await paynexus.get_payment_status(REFERENCE)
        assert server.times[1] - server.times[0] == pytest.approx(7)
        server.answers(refusal(429, headers={"Retry-After": "60"}))
        started = anyio.current_time()
        with pytest.raises(RateLimitError) as caught:
            await paynexus.get_payment_status(REFERENCE)
        assert caught.value.retry_after == 60
        assert anyio.current_time() - started < 1  # sixty seconds do not fit into thirty


async def test_pauses_grow_and_differ(server: FakeServer):
    """Half a second and more, never in step with others."""
    server.answers(refusal(500))
    async with server.client(max_retries=5) as paynexus:
        with pytest.raises(InternalServerError):
            await paynexus.get_payment_status(REFERENCE)
    pauses = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    assert len(pauses) == 5
    assert all(0.05 <= pause <= 8 for pause in pauses)
    assert len(set(pauses)) == 5


@over_both
async def test_a_hanging_read_leaves_time_for_another(server: FakeServer):
    """One attempt takes ten of the thirty seconds at most; all of them thirty."""
    server.answers(status("completed"))
    server.latency_seconds = 1000
    async with server.client(max_retries=5) as paynexus:
        started = anyio.current_time()
        with pytest.raises(APIConnectionError, match="asking again is safe"):
            await paynexus.get_payment_status(REFERENCE)
        assert 20 <= anyio.current_time() - started <= 30
    assert 2 <= len(server.requests) <= 3


async def test_an_answer_never_takes_back_what_was_seen(server: FakeServer, caplog):
    """`completed` stays; late truth is told; contradictions are logged."""
    words = ["processing", "initiated", "expired", "completed", "failed", "processing"]
    server.answers(*map(status, words))
    seen = []
    async with server.client() as paynexus:
        with caplog.at_level(logging.DEBUG, "paynexus_async"):
            for _ in words:
                seen.append((await paynexus.get_payment_status(REFERENCE)).status.value)
    assert seen == ["processing", "processing", "expired", "completed", "completed", "completed"]
    assert "was reported expired and is completed after all" in caplog.text
    assert "is completed; an answer that says failed changes nothing" in caplog.text


async def test_a_payment_that_contradicts_what_was_asked_is_not_accepted(server: FakeServer):
    """Reference, amount and phone are those of the payment that was given."""
    server.answers(initiated(), status("completed", amount="1000.00"))
    async with server.client() as paynexus:
        payment = await initiate(paynexus)
        with pytest.raises(PaymentMismatchError) as caught:
            await paynexus.get_payment_status(payment)
        assert caught.value.differences == ("amount",)
        with pytest.raises(PaymentMismatchError):
            await paynexus.wait_for_completion(payment)
        server.answers(status("completed", reference="PNXOTHER"))
        with pytest.raises(PaymentMismatchError):
            await paynexus.get_payment_status(REFERENCE)


# --- What is shown


@over_both
async def test_no_key_and_no_phone_in_anything_that_is_logged_or_raised(server, caplog):
    """At the most talkative level, of ours and of the libraries below."""
    failures = [
        httpx.ReadError(f"x {SECRET_KEY} {PUBLIC_KEY} {PHONE}"),
        refusal(401, f"key '{PUBLIC_KEY}' or {SECRET_KEY} is unknown"),
        refusal(422, f"phone {PHONE} with key is bad", errors={"phone": [f"{PHONE} is bad"]}),
        refusal(500, f"oops +254 746 990 866 for {CHECKOUT_ID}"),
        answer(success=True, data={"status": PHONE, "amount": PHONE}),
        initiated(amount=5),
    ]
    texts = []
    with caplog.at_level(logging.DEBUG):
        async with server.client(max_retries=0) as paynexus:
            for failure in failures:
                server.answers(failure)
                for attempt in (
                    initiate(paynexus, allow_duplicate=True),
                    paynexus.get_payment_status_by_checkout_id(CHECKOUT_ID),
                    paynexus.validate_phone("0746990866"),
                ):
                    try:
                        await attempt
                    except PayNexusError as error:
                        texts += [repr(error), str(error)]
    shown = " ".join(texts) + caplog.text
    assert texts
    for secret in (SECRET_KEY, PUBLIC_KEY, "746990866", "746 990 866"):
        assert secret not in shown


async def test_nothing_foreign_escapes(server: FakeServer):
    """Whatever a transport raises, it is one of ours, with the original as its cause."""
    for raised in (httpx.ReadError("x"), OSError("x"), ValueError("x"), KeyError("x")):
        server.answers(raised)
        async with server.client(max_retries=0) as paynexus:
            with pytest.raises(APIError) as caught:
                await paynexus.get_payment_status(REFERENCE)
            assert caught.value.__cause__ is raised
    server.answers(answer(200))
    async with server.client(max_retries=0) as paynexus:
        with pytest.raises(APIResponseError):
            await paynexus.validate_phone("0746990866")


PAID = {"reference": REFERENCE, "status": "completed"}


@over_both
async def test_no_more_requests_enter_the_pool_than_there_are_connections(library):
    """The queue stands in front of the pool, and everybody is served."""
    inside = [0, 0]

    async def handle(request: httpx.Request) -> httpx.Response:
        inside[0] += 1
        inside[1] = max(inside)
        await anyio.sleep(1)
        inside[0] -= 1
        return httpx.Response(200, json={"success": True, "data": PAID})

    http_client = client_over(httpx.MockTransport(handle), library)
    paynexus = AsyncPayNexus(SECRET_KEY, PUBLIC_KEY, http_client=http_client)
    async with paynexus, anyio.create_task_group() as group:
        for _ in range(3 * _POOL_CONNECTIONS_MAX):
            group.start_soon(paynexus.get_payment_status, REFERENCE)
    assert inside == [0, _POOL_CONNECTIONS_MAX]


@over_both
async def test_callers_who_leave_while_it_connects_do_not_multiply_connections(library):
    """A request that is given up keeps its place as long as its connection."""
    inside = [0, 0]

    class Hanging(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            inside[0] += 1
            inside[1] = max(inside)
            await request.extensions["trace"]("connection.connect_tcp.started", {})
            try:
                await anyio.sleep(5)
                raise httpx.ConnectTimeout("nobody is there")
            finally:
                inside[0] -= 1

    http_client = client_over(Hanging(), library)
    paynexus = AsyncPayNexus(SECRET_KEY, PUBLIC_KEY, http_client=http_client)
    async with paynexus:
        for n in range(3 * INITIATES_MAX):
            with anyio.move_on_after(0.1):
                await paynexus.initiate_payment(n + 1, PHONE)
        assert inside == [INITIATES_MAX, INITIATES_MAX]
        await anyio.sleep(5)
    assert inside == [0, INITIATES_MAX]


@over_both
async def test_waiting_for_a_connection_counts_against_the_time_limit(server: FakeServer):
    """And is proven not to have sent anything."""
    server.latency_seconds = 100
    server.answers(initiated())
    async with server.client(max_retries=0) as paynexus, anyio.create_task_group() as group:
        for n in range(INITIATES_MAX):
            group.start_soon(unanswered, paynexus, n + 1)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(APITimeoutError, match="no prompt was sent") as caught:
            await paynexus.initiate_payment(1000, PHONE, timeout=3)
        assert caught.value.never_sent
        assert server.initiates == INITIATES_MAX


async def unanswered(paynexus: AsyncPayNexus, amount: int) -> None:
    with pytest.raises(PaymentOutcomeUnknown):
        await paynexus.initiate_payment(amount, PHONE)


async def test_of_several_open_prompts_the_one_that_can_be_followed_is_named():
    """Not the one whose answer is still on its way."""
    prompts, intent, at = Prompts(), Intent(100, PHONE), datetime(2026, 1, 27, tzinfo=UTC)
    assert prompts.open_like(intent) is None
    first = prompts.begin(intent, 0.0, at)
    assert prompts.open_like(intent) is first
    second = prompts.begin(intent, 1.0, at)
    assert prompts.open_like(intent) is first
    status = PaymentStatus.INITIATED
    payment = Payment(reference=REFERENCE, status=status, status_text="initiated")
    prompts.settle(second, payment, 2.0, at)
    assert prompts.open_like(intent) is second
