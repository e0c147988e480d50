"""Following a payment to its end: who asks, when, how often, and what is told."""

from __future__ import annotations

import logging
from contextlib import aclosing
from typing import Any

import anyio
import attrs
import httpx
import pytest
from tenacity import stop_after_attempt, stop_after_delay, wait_chain, wait_fixed

import paynexus_async
from paynexus_async import (
    AsyncPayNexus,
    AuthenticationError,
    ClientStateError,
    Expectation,
    InvalidRequestError,
    NotFoundError,
    Payment,
    PaymentMismatchError,
    PaymentRevision,
    PaymentStatus,
    PaymentStillPending,
    PermissionDeniedError,
)

from .fakes import CHECKOUT_ID, PHONE, REFERENCE, FakeServer, initiated, refusal, status

pytestmark = pytest.mark.anyio


async def initiate(server: FakeServer, client: AsyncPayNexus, **fields: Any) -> Payment:
    server.answers(initiated(**fields))
    payment = await client.initiate_payment(100, PHONE)
    server.requests.clear()
    server.times.clear()
    return payment


async def test_waiting_returns_the_payment_as_it_ended(server: FakeServer):
    """Whatever the end; it is data, not an exception."""
    for word in ("completed", "failed", "cancelled", "expired"):
        async with server.client() as paynexus:
            payment = await initiate(server, paynexus)
            receipt = "OEI2AK4Q16" if word == "completed" else None
            end = status(word, provider_transaction_id=receipt)
            server.answers(status("processing"), end)
            ended = await paynexus.wait_for_completion(payment)
            assert (ended.status, ended.receipt, ended.amount) == (word, receipt, 100)
            assert ended.response is not None
            assert len(server.requests) == 2
            server.requests.clear()


async def test_paying_is_initiating_and_waiting(server: FakeServer):
    """Both in one."""
    server.answers(initiated(), status("processing"), status("completed"))
    async with server.client() as paynexus:
        payment = await paynexus.pay(100, "0746990866", "Order #12345")
    assert payment.succeeded
    assert [r.method for r in server.requests] == ["POST", "GET", "GET"]


async def test_nobody_is_asked_in_the_first_seconds_of_a_prompt(server: FakeServer):
    """Nobody types a PIN that fast; a bare reference, of unknown age, is looked at right away."""
    async with server.client() as paynexus:
        payment = await initiate(server, paynexus)
        started = anyio.current_time()
        server.answers(status("completed"))
        await paynexus.wait_for_completion(payment)
        assert server.times[0] - started > 2
        started = anyio.current_time()
        server.answers(status("completed", reference="PNX2", checkout_request_id=None))
        await paynexus.wait_for_completion("PNX2")
        assert server.times[1] == started


async def test_the_age_of_a_stranger_is_the_servers_word(server: FakeServer):
    """By the server's own clock: the next look at an old payment is not that of a new one."""
    gaps = {}
    for seconds in (0, 300):
        created = "2026-01-27T10:17:18+03:00"
        date = {0: "Tue, 27 Jan 2026 07:17:18 GMT", 300: "Tue, 27 Jan 2026 07:22:18 GMT"}[seconds]
        first = status("processing", created_at=created)
        first.headers["Date"] = date  # type: ignore[union-attr]  # it is a response
        server.answers(first, status("completed"))
        server.times.clear()
        async with server.client() as paynexus:
            await paynexus.wait_for_completion(REFERENCE)
        gaps[seconds] = server.times[1] - server.times[0]
    assert gaps[300] > 1.5 * gaps[0]


@pytest.mark.parametrize("date", ["yesterday", "", "Tue, 27 Jan 2026 07:17:18 -0000"])
async def test_a_date_that_cannot_be_read_is_no_obstacle(server: FakeServer, date):
    """Its age is then counted from the first look."""
    first = status("processing", created_at="2026-01-27T10:17:18+03:00")
    first.headers["Date"] = date  # type: ignore[union-attr]  # it is a response
    server.answers(first, status("completed"))
    async with server.client() as paynexus:
        assert (await paynexus.wait_for_completion(REFERENCE)).succeeded


async def test_a_wait_comes_through_a_bad_afternoon(server: FakeServer):
    """500, a reset, HTML, 429, processing, a stale `initiated`, and then completed."""
    async with server.client() as paynexus:
        payment = await initiate(server, paynexus)
        server.answers(
            refusal(500),
            httpx.ReadError("reset"),
            httpx.Response(200, text="<html>"),
            refusal(429, headers={"Retry-After": "20"}),
            status("processing"),
            status("initiated"),
            status("completed"),
        )
        ended = await paynexus.wait_for_completion(payment)
    assert ended.succeeded
    assert len(server.requests) == 7
    assert server.times[4] - server.times[3] >= 20


async def test_all_who_wait_for_one_payment_share_one_loop(server: FakeServer):
    """By payment, by reference, by checkout request id; cancelling one leaves the others."""
    async with server.client() as paynexus:
        payment = await initiate(server, paynexus)
        server.answers(status("processing"), status("processing"), status("completed"))
        ended: list[Payment] = []

        async def wait(name: Payment | str) -> None:
            ended.append(await paynexus.wait_for_completion(name))

        async with anyio.create_task_group() as group, anyio.create_task_group() as others:
            for name in (payment, REFERENCE, CHECKOUT_ID):
                group.start_soon(wait, name)
            others.start_soon(wait, payment)
            await anyio.sleep(1)
            others.cancel_scope.cancel()
    assert len(ended) == 3
    assert all(e.succeeded for e in ended)
    assert len(server.requests) == 3


async def test_a_look_begun_as_the_last_one_leaves_costs_no_call(server: FakeServer):
    """Its permit goes back; somebody who comes in time gets the look all the same."""
    async with server.client(plan={"minute": 30}) as paynexus:
        payment = await initiate(server, paynexus)
        server.answers(status("processing"))
        follower = paynexus._followers._follower(Expectation.of(payment))
        used = paynexus._budget._reads.quota._in_flight

        async def wait() -> None:
            with pytest.raises(PaymentStillPending):
                await paynexus.wait_for_completion(payment, max_wait=3)

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            paynexus._budget.request(follower)  # permitted; its task has yet to run
            follower.end(None)
        await anyio.sleep(1)
        assert not server.requests
        assert paynexus._budget._reads.quota._in_flight == used
        server.answers(status("completed"))
        assert (await paynexus.wait_for_completion(payment)).succeeded


async def test_when_the_last_one_leaves_nobody_asks_any_more(server: FakeServer):
    """And who comes back later finds a loop that works."""
    async with server.client() as paynexus:
        payment = await initiate(server, paynexus)
        server.answers(status("processing"))
        with anyio.move_on_after(20):
            await paynexus.wait_for_completion(payment)
        asked = len(server.requests)
        assert asked > 0
        await anyio.sleep(1000)
        assert len(server.requests) == asked
        server.answers(status("completed"))
        assert (await paynexus.wait_for_completion(payment)).succeeded


async def test_leaving_and_joining_in_the_same_moment_is_safe(server: FakeServer):
    """The old loop's end is not the new one's."""
    async with server.client() as paynexus:
        payment = await initiate(server, paynexus)
        server.answers(status("processing"), status("completed"))
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(paynexus.wait_for_completion, payment)
                await anyio.wait_all_tasks_blocked()
                scope.cancel()
        assert (await paynexus.wait_for_completion(payment)).succeeded


async def test_a_look_under_way_when_the_last_one_leaves_serves_the_next_one(server: FakeServer):
    """It is not made twice, and what it finds is known."""
    server.latency_seconds = 2
    async with server.client() as paynexus:
        server.answers(status("completed"))
        with anyio.move_on_after(1):
            await paynexus.wait_for_completion(REFERENCE)
        ended = await paynexus.wait_for_completion(REFERENCE)
        assert ended.succeeded
    assert len(server.requests) == 1


async def test_what_a_look_finds_after_the_last_one_left_is_remembered(server: FakeServer):
    """It was paid for with a call."""
    server.latency_seconds = 2
    async with server.client() as paynexus:
        server.answers(status("cancelled"))
        with anyio.move_on_after(1):
            await paynexus.wait_for_completion(REFERENCE)
        await anyio.sleep(2)
        assert (await paynexus.wait_for_completion(REFERENCE)).status == "cancelled"
    assert len(server.requests) == 1


async def test_waiting_for_what_has_ended_asks_nothing(server: FakeServer):
    """Neither for a payment that says so, nor for one that this client has seen end."""
    async with server.client() as paynexus:
        payment = await initiate(server, paynexus)
        server.answers(status("cancelled"))
        ended = await paynexus.wait_for_completion(payment)
        server.requests.clear()
        for name in (ended, payment, REFERENCE, CHECKOUT_ID):
            assert (await paynexus.wait_for_completion(name)).status == "cancelled"
        assert [u.payment.status async for u in paynexus.watch(REFERENCE)] == ["cancelled"]
    async with server.client() as paynexus:
        assert (await paynexus.wait_for_completion(ended)).status == "cancelled"
    assert server.requests == []


async def test_at_the_deadline_a_payment_is_pending_not_failed(server: FakeServer):
    """With the payment, the attempts and the last error; to the moment."""
    async with server.client() as paynexus:
        payment = await initiate(server, paynexus)
        server.answers(status("processing"), refusal(503, "busy"))
        started = anyio.current_time()
        with pytest.raises(PaymentStillPending, match="It has not failed") as caught:
            await paynexus.wait_for_completion(payment, max_wait=30)
        assert anyio.current_time() - started == pytest.approx(30)
        error = caught.value
        assert error.payment is not None
        assert (error.payment.status, error.reference) == ("processing", REFERENCE)
        assert error.attempts == len(server.requests) > 2
        assert error.last_error is not None
        assert error.last_error.response is not None
        assert error.last_error.response.status_code == 503
        assert "busy" in str(error)


async def test_a_payment_never_seen_is_not_invented(server: FakeServer):
    """There is no payment to carry."""
    server.answers(httpx.ConnectError("gone"))
    async with server.client() as paynexus:
        with pytest.raises(PaymentStillPending, match="not seen yet after") as caught:
            await paynexus.wait_for_completion(CHECKOUT_ID, max_wait=10)
    assert caught.value.payment is None
    assert caught.value.reference == CHECKOUT_ID
    assert CHECKOUT_ID not in str(caught.value)


async def test_the_deadline_holds_while_a_look_hangs(server: FakeServer):
    """The look goes on without the caller; its connection is not lost."""
    async with server.client() as paynexus:
        payment = await initiate(server, paynexus)
        server.answers(status("processing"))
        server.latency_seconds = 9
        started = anyio.current_time()
        with pytest.raises(PaymentStillPending):
            await paynexus.wait_for_completion(payment, max_wait=8)
        assert anyio.current_time() - started == pytest.approx(8)


async def test_the_last_look_comes_just_before_the_deadline(server: FakeServer):
    """Whoever gives up acts on what was last seen: it should be fresh."""
    async with server.client() as paynexus:
        payment = await initiate(server, paynexus)
        server.answers(status("processing"))
        started = anyio.current_time()
        with pytest.raises(PaymentStillPending):
            await paynexus.wait_for_completion(payment, max_wait=100)
        assert 1 <= started + 100 - server.times[-1] <= 2
        gaps = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
        assert min(gaps) >= 1


@pytest.mark.parametrize(
    ("refused", "kind"),
    [(refusal(401), AuthenticationError), (refusal(403), PermissionDeniedError)],
)
async def test_a_bad_key_is_told_at_once_and_to_everybody(server: FakeServer, refused, kind):
    """Time does not heal it."""
    async with server.client() as paynexus:
        payment = await initiate(server, paynexus)
        server.answers(refused)
        raised: list[BaseException] = []

        async def wait() -> None:
            with pytest.raises(kind) as caught:
                await paynexus.wait_for_completion(payment)
            raised.append(caught.value)

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            group.start_soon(wait)
    assert len(raised) == 2
    assert len(server.requests) == 1


async def test_not_found_is_forgiven_just_after_the_initiate(server: FakeServer):
    """The reading side may lag behind; half a minute later it is an error."""
    async with server.client() as paynexus:
        payment = await initiate(server, paynexus)
        server.answers(refusal(404), refusal(404), status("completed"))
        assert (await paynexus.wait_for_completion(payment)).succeeded
    async with server.client() as paynexus:
        payment = await initiate(server, paynexus)
        server.answers(refusal(404))
        started = anyio.current_time()
        with pytest.raises(NotFoundError):
            await paynexus.wait_for_completion(payment)
        assert 30 < anyio.current_time() - started < 45


async def test_not_found_is_not_forgiven_for_a_stranger(server: FakeServer):
    """A mistyped reference is told at once."""
    server.answers(refusal(404))
    async with server.client() as paynexus:
        with pytest.raises(NotFoundError):
            await paynexus.wait_for_completion("PNXTYPO")
    assert len(server.requests) == 1


async def test_a_429_pauses_everybody_once(server: FakeServer):
    """Not each waiter in turn."""
    async with server.client() as paynexus:
        server.answers(status("processing", reference=None, checkout_request_id=None))
        async with anyio.create_task_group() as group:
            for n in range(5):
                group.start_soon(lambda n=n: paynexus.wait_for_completion(f"PNX{n}", max_wait=3600))
                await anyio.sleep(0.1)
            server.answers(
                refusal(429, headers={"Retry-After": "50"}),
                status("completed", reference=None, checkout_request_id=None),
            )
            server.times.clear()
    assert len(server.times) == 6
    assert all(later - server.times[0] >= 50 for later in server.times[1:])


async def test_a_429_without_a_time_pauses_too(server: FakeServer):
    """Ten seconds, if the server does not say."""
    server.answers(refusal(429), status("completed"))
    async with server.client() as paynexus:
        await paynexus.wait_for_completion(REFERENCE)
    assert server.times[1] - server.times[0] >= 10


async def test_an_undocumented_status_is_kept_and_waited_through(server: FakeServer, caplog):
    """And said once in the log."""
    async with server.client() as paynexus:
        payment = await initiate(server, paynexus)
        server.answers(status("pending"), status("pending"), status("timeout"), status("completed"))
        with caplog.at_level(logging.WARNING, "paynexus_async"):
            ended = await paynexus.wait_for_completion(payment)
    assert ended.succeeded
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == [
        f"payment {REFERENCE} has the undocumented status 'pending': it counts as not ended"
    ]


async def test_an_end_that_contradicts_what_was_asked_is_raised(server: FakeServer):
    """Even if it is called completed."""
    async with server.client() as paynexus:
        payment = await initiate(server, paynexus)
        server.answers(status("processing"), status("completed", phone="254700000001"))
        with pytest.raises(PaymentMismatchError) as caught:
            await paynexus.wait_for_completion(payment)
        assert (caught.value.asked.phone, caught.value.answered.phone) == (PHONE, "254700000001")


async def test_who_asks_by_name_completes_nobody_elses_payment(server: FakeServer):
    """All hear of an answer: so it is held to what this client knows, not to the name alone."""
    async with server.client() as paynexus:
        payment = await initiate(server, paynexus)
        server.answers(status("completed", amount="1.00"))
        with pytest.raises(PaymentMismatchError):
            await paynexus.get_payment_status(REFERENCE)
        with pytest.raises(PaymentMismatchError):
            await paynexus.get_payment_status_by_checkout_id(CHECKOUT_ID)
        async with aclosing(paynexus.check_payments([REFERENCE])) as results:
            assert [type(r.error) for r in [r async for r in results]] == [PaymentMismatchError]
        with pytest.raises(PaymentMismatchError):
            await paynexus.wait_for_completion(payment)


async def test_who_brings_a_payment_knows_better_than_an_answer(server: FakeServer):
    """A wrong amount, told on the way to a client that did not initiate, does not stick."""
    async with server.client() as till:
        payment = await initiate(server, till)
    server.answers(status("processing", amount="1.00"), status("completed"))
    async with server.client() as paynexus:
        await paynexus.get_payment_status(REFERENCE)
        assert (await paynexus.wait_for_completion(payment)).amount == 100


async def test_what_was_told_to_one_is_not_what_another_asked_for(server: FakeServer):
    """Who asks by name alone believes the answer; who brings the payment does not have to."""
    async with server.client() as till:
        payment = await initiate(server, till)
    server.answers(status("completed", amount="1.00"), status("processing"))
    async with server.client() as paynexus:
        assert (await paynexus.get_payment_status(REFERENCE)).amount == 1
        with pytest.raises(PaymentMismatchError):
            await paynexus.get_payment_status(payment)
        with pytest.raises(PaymentMismatchError):
            await paynexus.wait_for_completion(payment)
        (result,) = await paynexus.wait_for_all([payment])
        assert isinstance(result.error, PaymentMismatchError)


async def test_who_has_sent_the_prompt_knows_best(server: FakeServer):
    """Even better than a caller who brings what an answer once said."""
    async with server.client() as paynexus:
        payment = await initiate(server, paynexus)
        server.answers(status("completed", amount="1.00"))
        with pytest.raises(PaymentMismatchError):
            await paynexus.get_payment_status(attrs.evolve(payment, amount=1))


async def test_two_names_of_one_payment_are_told_the_same(server: FakeServer):
    """Even if the client learns only on the way that they are one payment's."""
    nameless = status("completed", reference=None, checkout_request_id=None)
    server.answers(*[status("processing")] * 4, nameless)
    ends: list[Payment] = []

    async def wait(paynexus: AsyncPayNexus, name: str) -> None:
        ends.append(await paynexus.wait_for_completion(name, max_wait=60))

    async with server.client() as paynexus:
        async with anyio.create_task_group() as group:
            group.start_soon(wait, paynexus, REFERENCE)
            group.start_soon(wait, paynexus, CHECKOUT_ID)
        assert [end.status for end in ends] == ["completed", "completed"]
        assert (await paynexus.wait_for_completion(CHECKOUT_ID)).succeeded


async def test_closing_ends_the_waits_for_both_names_of_one_payment(server: FakeServer):
    """None of them holds on until its own deadline."""
    server.answers(status("processing"))
    paynexus = server.client()
    errors: list[Exception] = []

    async def wait(name: str, most: float) -> None:
        try:
            await paynexus.wait_for_completion(name, max_wait=most)
        except (ClientStateError, PaymentStillPending) as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(wait, CHECKOUT_ID, 100)
        group.start_soon(wait, REFERENCE, 5)
        await anyio.sleep(10)
        await paynexus.aclose()
        await anyio.sleep(0.1)
        assert len(errors) == 2
    assert [type(error) for error in errors] == [PaymentStillPending, ClientStateError]


async def test_an_answer_on_its_way_is_held_to_what_is_brought_meanwhile(server: FakeServer):
    """Who asked by name only must not complete the wait of somebody who joined in between."""
    async with server.client() as till:
        payment = await initiate(server, till)
    server.answers(status("completed", amount="1.00"))
    server.latency_seconds = 1.0
    async with server.client() as paynexus, anyio.create_task_group() as group:

        async def ask() -> None:
            with pytest.raises(PaymentMismatchError):
                await paynexus.get_payment_status(REFERENCE)

        group.start_soon(ask)
        await anyio.sleep(0.5)
        with pytest.raises(PaymentMismatchError):
            await paynexus.wait_for_completion(payment)


async def test_nobody_gives_up_without_a_look(server: FakeServer):
    """However short the wait is, beside the schedule: the last moment is worth a call."""
    async with server.client(patience="thrifty") as paynexus:
        payment = await initiate(server, paynexus)
        server.answers(status("completed"))
        started = anyio.current_time()
        assert (await paynexus.wait_for_completion(payment, max_wait=3)).succeeded
        assert server.times == [pytest.approx(started + 2)]


async def test_a_stranger_is_held_to_its_first_answer(server: FakeServer):
    """An amount that changes on the way is a contradiction too."""
    server.answers(status("processing"), status("completed", amount="1.00"))
    async with server.client() as paynexus:
        with pytest.raises(PaymentMismatchError):
            await paynexus.wait_for_completion(REFERENCE)


# --- Strategies of the caller's own


async def test_any_tenacity_strategy_may_replace_the_schedule(server: FakeServer):
    """It sees attempts and seconds by the event loop's clock."""
    async with server.client() as paynexus:
        payment = await initiate(server, paynexus)
        server.answers(status("processing"))
        started = anyio.current_time()
        with pytest.raises(PaymentStillPending) as caught:
            await paynexus.wait_for_completion(
                payment, wait=wait_fixed(3), stop=stop_after_attempt(4)
            )
        assert [t - started for t in server.times] == pytest.approx([0, 3, 6, 9])
        assert caught.value.attempts == 4
        with pytest.raises(PaymentStillPending) as caught:
            await paynexus.wait_for_completion(
                payment, wait=wait_fixed(10), stop=stop_after_delay(35)
            )
        assert caught.value.attempts == 5  # at 0, 10, 20, 30 and 40 s
        waits = wait_chain(wait_fixed(1), wait_fixed(5))
        server.answers(status("processing"), status("processing"), status("completed"))
        server.times.clear()
        await paynexus.wait_for_completion(payment, wait=waits)
        assert server.times[2] - server.times[0] == pytest.approx(6)


async def test_a_strategy_that_fails_fails_its_caller(server: FakeServer):
    """With its own exception."""

    def wait(state: object) -> float:
        msg = "a defect"
        raise ZeroDivisionError(msg)

    server.answers(status("processing"))
    async with server.client() as paynexus:
        with pytest.raises(ZeroDivisionError):
            await paynexus.wait_for_completion(REFERENCE, wait=wait)


async def test_an_impatient_caller_joins_a_patient_one(server: FakeServer):
    """The shared loop looks when the first of them wants it; each keeps his own end."""
    async with server.client() as paynexus:
        server.answers(status("processing"))
        ended: dict[str, object] = {}

        async def wait(name: str, **terms: Any) -> None:
            try:
                ended[name] = await paynexus.wait_for_completion(REFERENCE, **terms)
            except PaymentStillPending as error:
                ended[name] = error

        async with anyio.create_task_group() as group:
            group.start_soon(lambda: wait("patient", wait=wait_fixed(1000), max_wait=2000))
            await anyio.sleep(10)
            assert len(server.times) == 1
            group.start_soon(
                lambda: wait("impatient", wait=wait_fixed(2), stop=stop_after_attempt(4))
            )
            await anyio.sleep(10)
            error = ended["impatient"]
            assert isinstance(error, PaymentStillPending)
            server.answers(status("completed"))
        patient = ended["patient"]
        assert isinstance(patient, Payment)
        assert patient.succeeded


# --- Watching


async def test_watching_tells_each_change_once(server: FakeServer):
    """First how it stands, then what changes, and nothing twice."""
    async with server.client() as paynexus:
        payment = await initiate(server, paynexus)
        words = ["initiated", "pending", "processing", "initiated", "processing", "completed"]
        server.answers(*map(status, words))
        updates = [update async for update in paynexus.watch(payment)]
    assert [(u.previous, u.payment.status) for u in updates] == [
        (None, "initiated"),
        ("initiated", "undocumented"),
        ("undocumented", "processing"),
        ("processing", "completed"),
    ]
    assert [u.attempts for u in updates] == [0, 2, 3, 6]


async def test_watching_a_stranger_begins_with_the_first_answer(server: FakeServer):
    """Nothing is known before it."""
    server.answers(status("processing"), status("failed"))
    async with server.client() as paynexus:
        updates = [update async for update in paynexus.watch(REFERENCE)]
    assert [(u.previous, u.payment.status) for u in updates] == [
        (None, "processing"),
        ("processing", "failed"),
    ]


async def test_watching_shares_the_loop_and_stops_with_its_reader(server: FakeServer):
    """Who leaves early leaves nobody asking."""
    async with server.client() as paynexus:
        payment = await initiate(server, paynexus)
        server.answers(status("processing"))
        async with aclosing(paynexus.watch(payment)) as updates:
            async for update in updates:
                if update.payment.status == "processing":
                    break
        asked = len(server.requests)
        await anyio.sleep(1000)
        assert len(server.requests) == asked == 1


async def test_a_watch_past_its_deadline_is_pending(server: FakeServer):
    """As a wait is."""
    async with server.client() as paynexus:
        payment = await initiate(server, paynexus)
        server.answers(status("processing"))
        seen = []
        with pytest.raises(PaymentStillPending):
            async for update in paynexus.watch(payment, max_wait=20):
                seen.append(update.payment.status.value)
        assert seen == ["initiated", "processing"]


async def test_late_truth_is_an_event_of_its_own(server: FakeServer):
    """For whoever wants to wait for it; with few calls."""
    async with server.client() as paynexus:
        payment = await initiate(server, paynexus)
        server.answers(status("expired"), status("expired"), status("completed"))
        updates = [u async for u in paynexus.watch(payment, revisions_for=600)]
        assert [u.payment.status for u in updates] == ["initiated", "expired", "completed"]
        assert isinstance(updates[-1], PaymentRevision)
        assert not isinstance(updates[-2], PaymentRevision)
        assert updates[-1].previous == "expired"


async def test_the_time_for_late_truth_is_bounded(server: FakeServer):
    """An end that stays one is no error."""
    async with server.client() as paynexus:
        payment = await initiate(server, paynexus)
        server.answers(status("cancelled"))
        started = anyio.current_time()
        updates = [u async for u in paynexus.watch(payment, revisions_for=600)]
        assert [u.payment.status for u in updates] == ["initiated", "cancelled"]
        assert 590 < anyio.current_time() - started < 660
        assert 3 < len(server.requests) < 60
        started = anyio.current_time()
        updates = [u async for u in paynexus.watch(payment, revisions_for=60)]
        assert [u.payment.status for u in updates] == ["cancelled"]
        assert 55 < anyio.current_time() - started < 65


# --- The end of the client


async def test_closing_the_client_tells_those_who_wait(server: FakeServer):
    """Their payment has not failed."""
    async with server.client() as paynexus:
        payment = await initiate(server, paynexus)
        server.answers(status("processing"))

        async def wait() -> None:
            with pytest.raises(ClientStateError, match="it has not failed"):
                await paynexus.wait_for_completion(payment)

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.sleep(10)
            await paynexus.aclose()


async def test_only_names_of_payments_are_waited_for(server: FakeServer):
    """Anything else is refused at once."""
    async with server.client() as paynexus:
        nameless = Payment(status=paynexus_async.PaymentStatus.INITIATED, status_text="initiated")
        for name in ("../x", "", 5, None, nameless):
            with pytest.raises(InvalidRequestError):
                await paynexus.wait_for_completion(name)
            with pytest.raises(InvalidRequestError):
                paynexus.watch(name)
    assert server.requests == []


async def test_a_payment_from_another_process_is_followed_from_what_it_tells(server: FakeServer):
    """It is looked at right away, and held to its amount."""
    async with server.client() as paynexus:
        stored = Payment(
            reference=REFERENCE,
            amount=100,
            status=paynexus_async.PaymentStatus.INITIATED,
            status_text="initiated",
        )
        server.answers(status("completed", amount="5"))
        with pytest.raises(PaymentMismatchError):
            await paynexus.wait_for_completion(stored)
        assert server.times == [anyio.current_time()]
        server.answers(status("completed"))
        ended = await paynexus.wait_for_completion(attrs.evolve(stored, reference=REFERENCE))
        assert ended.succeeded


async def test_the_memory_of_payments_is_bounded(server: FakeServer, monkeypatch):
    """The oldest are forgotten, those being waited for are not."""
    monkeypatch.setattr(paynexus_async._follow, "_PAYMENTS_REMEMBERED_MAX", 2)
    async with server.client() as paynexus:
        payment = await initiate(server, paynexus)
        server.answers(status("processing", reference=None, checkout_request_id=None))
        async with anyio.create_task_group() as group:
            group.start_soon(paynexus.wait_for_completion, payment)
            await anyio.wait_all_tasks_blocked()
            for n in range(20):
                await paynexus.get_payment_status(f"PNX{n}")
            assert len(paynexus._followers._remembered) <= 4
            assert set(paynexus._followers._followed) == {REFERENCE, CHECKOUT_ID}
            server.answers(status("completed"))


async def test_a_wait_by_each_name_ends_with_the_payment(server: FakeServer):
    """Begun before the client knew that both name one payment: whoever looks, both hear of it."""
    ended: list[Payment] = []
    async with server.client() as paynexus:

        async def wait(name: str) -> None:
            ended.append(await paynexus.wait_for_completion(name, max_wait=60))

        for first, second in [(REFERENCE, CHECKOUT_ID), (CHECKOUT_ID, REFERENCE)]:
            server.answers(status("initiated"), status("initiated"), status("completed"))
            async with anyio.create_task_group() as tg:
                tg.start_soon(wait, first)
                tg.start_soon(wait, second)
            assert [payment.status for payment in ended] == ["completed", "completed"]
            ended.clear()


async def test_who_waits_by_one_name_hears_what_was_known_by_the_other(server: FakeServer):
    """One who came first does not lose his place to one who comes by the other name later."""
    async with server.client() as paynexus:
        ended: list[Payment] = []

        async def wait(name: str, seconds: float) -> None:
            await anyio.sleep(seconds)
            with anyio.move_on_after(8):
                ended.append(await paynexus.wait_for_completion(name, max_wait=60))

        server.answers(status("processing"))
        async with anyio.create_task_group() as tg:
            for name, seconds in [(REFERENCE, 0), (CHECKOUT_ID, 0), (CHECKOUT_ID, 9)]:
                tg.start_soon(wait, name, seconds)
            await anyio.sleep(10)
            server.answers(status("completed"))
            assert (await paynexus.get_payment_status(REFERENCE)).succeeded
        assert [payment.status for payment in ended] == ["completed"]


async def test_what_this_client_asked_holds_for_every_answer(server: FakeServer):
    """Also where somebody else asks by the bare reference: no waiter is told the other amount."""
    async with server.client() as paynexus:
        payment = await initiate(server, paynexus)
        server.answers(status("completed", amount="1.00"))
        for ask in (
            paynexus.get_payment_status(REFERENCE),
            paynexus.get_payment_status_by_checkout_id(CHECKOUT_ID),
            paynexus.wait_for_completion(payment),
        ):
            with pytest.raises(PaymentMismatchError) as caught:
                await ask
            assert caught.value.differences == ("amount",)
        results = [r async for r in paynexus.check_payments([REFERENCE])]
        assert isinstance(results[0].error, PaymentMismatchError)
        with pytest.raises(
            paynexus_async.DuplicatePaymentError
        ):  # what is not believed ends nothing
            await paynexus.initiate_payment(100, PHONE)


async def test_once_both_names_are_known_to_be_one_payments_one_loop_follows_it(server: FakeServer):
    """Whoever waits by the other name hears of what is known, and each look is for all."""
    server.answers(status("processing", reference=None))
    ended: list[Any] = []

    async def wait(name: str) -> None:
        ended.append(await paynexus.wait_for_completion(name))

    async def watch(name: str) -> None:
        updates = paynexus.watch(name, revisions_for=600)
        ended.extend([(u.previous, str(u.payment.status)) async for u in updates])

    async with server.client() as paynexus, anyio.create_task_group() as group:
        group.start_soon(wait, CHECKOUT_ID)
        await anyio.sleep(0.1)
        server.answers(status("initiated", checkout_request_id=None))
        group.start_soon(wait, REFERENCE)
        group.start_soon(watch, REFERENCE)
        await anyio.sleep(0.1)
        assert len(server.requests) == 2
        server.answers(status("processing"))
        await paynexus.get_payment_status(REFERENCE)  # names both
        (follower,) = {id(f): f for f in paynexus._followers._followed.values()}.values()
        assert (len(follower.subscriptions), follower.attempts) == (3, 2)
        assert follower.expected.names == (REFERENCE, CHECKOUT_ID)
        server.requests.clear()
        server.answers(status("expired"), status("completed"))
    assert len(server.requests) == 2
    waits = [one for one in ended if isinstance(one, Payment)]
    assert [str(payment.status) for payment in waits] == ["expired", "expired"]
    told = [one for one in ended if not isinstance(one, Payment)]
    assert told == [
        (None, "initiated"),
        ("initiated", "processing"),
        ("processing", "expired"),
        ("expired", "completed"),
    ]


async def test_late_truth_known_by_one_name_reaches_who_watches_by_the_other(server: FakeServer):
    """As the revision that it is."""
    updates: list[Any] = []

    async def watch() -> None:
        async for update in paynexus.watch(CHECKOUT_ID, revisions_for=600):
            updates.append(update)

    async with server.client() as paynexus, anyio.create_task_group() as group:
        server.answers(status("expired", reference=None))
        group.start_soon(watch)
        await anyio.sleep(1)
        server.answers(status("completed", checkout_request_id=None))
        await paynexus.get_payment_status(REFERENCE)
        server.answers(status("processing"))  # old news, which names both
        await paynexus.get_payment_status(REFERENCE)
    assert [str(update.payment.status) for update in updates] == ["expired", "completed"]
    assert isinstance(updates[1], PaymentRevision)


async def test_what_callers_brought_keeps_two_payments_apart(server: FakeServer):
    """An answer that joins their names cannot be right for both: each is held to its own."""
    mine = Payment(
        reference=REFERENCE, status=PaymentStatus.INITIATED, status_text="initiated", amount=5
    )
    server.answers(status("processing", reference=None))
    async with server.client() as paynexus, anyio.create_task_group() as group:

        async def wait() -> None:
            with pytest.raises(PaymentMismatchError):
                await paynexus.wait_for_completion(mine)

        group.start_soon(wait)
        server.answers(status("completed"))
        assert (await paynexus.wait_for_completion(CHECKOUT_ID)).amount == 100


async def test_what_two_callers_brought_keeps_them_apart_where_answers_tell_no_amount(
    server: FakeServer,
):
    """One of them is wrong, and nobody can say which: each has a loop of its own."""
    told = {"status": PaymentStatus.INITIATED, "status_text": "initiated"}
    brought = [
        Payment(reference=REFERENCE, amount=5, **told),
        Payment(checkout_request_id=CHECKOUT_ID, amount=7, **told),
    ]
    server.answers(status("processing", amount=None))
    async with server.client() as paynexus, anyio.create_task_group() as group:
        for payment in brought:
            group.start_soon(paynexus.wait_for_completion, payment)
        await anyio.sleep(1)
        both = Payment(reference=REFERENCE, checkout_request_id=CHECKOUT_ID, **told)
        group.start_soon(paynexus.wait_for_completion, both)
        await anyio.sleep(1)
        followed = {id(f): f for f in paynexus._followers._followed.values()}
        assert sorted(f.expected.amount for f in followed.values()) == [5, 7]
        server.answers(status("completed", amount=None))


async def test_a_payment_stays_what_was_sent_when_its_other_name_is_learned(server: FakeServer):
    """Also where that name has been asked for before, and told otherwise."""
    async with server.client() as paynexus:
        await initiate(server, paynexus, reference=None)
        server.answers(status("processing", checkout_request_id=None, amount=None, phone=None))
        await paynexus.get_payment_status(REFERENCE)
        server.answers(status("processing", amount=None, phone=None))  # names both
        await paynexus.get_payment_status(REFERENCE)
        server.answers(status("completed", checkout_request_id=None, amount="5.00"))
        with pytest.raises(PaymentMismatchError):
            await paynexus.get_payment_status(REFERENCE)
