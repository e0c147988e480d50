"""Webhooks that join the wait: they say when to ask, and are never believed."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import anyio
import httpx
import pytest

from paynexus_async import (
    AsyncPayNexus,
    ClientStateError,
    InvalidRequestError,
    Payment,
    PaymentRevision,
    PaymentStatus,
    PaymentStillPending,
    WebhookEvent,
    WebhookSignatureError,
    parse_webhook,
)

from .fakes import CHECKOUT_ID, PHONE, REFERENCE, FakeServer, initiated, refusal, status

pytestmark = pytest.mark.anyio

SECRET = "whsec_a1b2c3d4e5f6g7h8"  # pragma: allowlist secret


def event(name: str = "payment.completed", **fields: Any) -> WebhookEvent:
    """A delivery whose signature is right."""
    word = name.removeprefix("payment.")
    data = {"reference": REFERENCE, "checkout_request_id": CHECKOUT_ID, "status": word, **fields}
    body = json.dumps({"event": name, "data": data}).encode()
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    return parse_webhook(body, {"X-PayNexus-Signature": signature}, SECRET)


async def initiate(server: FakeServer, client: AsyncPayNexus, **fields: Any) -> Payment:
    server.answers(initiated(**fields))
    payment = await client.initiate_payment(100, PHONE, allow_duplicate=True)
    server.requests.clear()
    server.times.clear()
    return payment


class Waiting:
    """Somebody who waits while the test goes on."""

    def __init__(
        self, client: AsyncPayNexus, payment: Payment | str, max_wait: float = 120
    ) -> None:
        self._client, self._payment, self._max_wait = client, payment, max_wait
        self.ended_at: float | None = None
        self.payment: Payment | None = None

    async def run(self) -> None:
        try:
            self.payment = await self._client.wait_for_completion(
                self._payment, max_wait=self._max_wait
            )
        except PaymentStillPending as error:
            self.payment = error.payment
        self.ended_at = anyio.current_time()


async def test_news_wakes_who_waits_and_one_call_confirms_it(server: FakeServer):
    """At once, by either name, for everybody who waits for the payment."""
    for news in (event(), event(reference=None), event(checkout_request_id=None), REFERENCE):
        async with server.client() as paynexus, anyio.create_task_group() as group:
            payment = await initiate(server, paynexus)
            server.answers(status("completed"))
            waiting = [Waiting(paynexus, payment) for _ in range(3)]
            for one in waiting:
                group.start_soon(one.run)
            await anyio.sleep(1)
            now = anyio.current_time()
            assert await paynexus.notify(news)
            await anyio.sleep(0.05)
            assert [one.ended_at for one in waiting] == [now, now, now]
            assert server.times == [now]
            assert all(one.payment and one.payment.succeeded for one in waiting)


async def test_a_payment_and_a_checkout_id_are_news_too(server: FakeServer):
    """From wherever the merchant has heard it."""
    async with server.client() as paynexus, anyio.create_task_group() as group:
        payment = await initiate(server, paynexus)
        server.answers(status("processing"))
        group.start_soon(Waiting(paynexus, payment).run)
        await anyio.sleep(0.1)
        assert await paynexus.notify(CHECKOUT_ID)
        assert await paynexus.notify(payment)  # it says `initiated`: no reason to ask
        await anyio.sleep(0.1)
        assert len(server.requests) == 1
        group.cancel_scope.cancel()


async def test_nothing_in_it_is_believed(server: FakeServer):
    """Said to be completed, it is what the server answers; and the wait goes on."""
    async with server.client() as paynexus, anyio.create_task_group() as group:
        payment = await initiate(server, paynexus)
        server.answers(status("processing"), status("cancelled"))
        waiting = Waiting(paynexus, payment)
        group.start_soon(waiting.run)
        await anyio.sleep(1)
        await paynexus.notify(event(amount="1.00", phone="254700000000"))
        await anyio.sleep(0.5)
        assert waiting.ended_at is None
        await anyio.sleep(0.6)  # a second after the first look that did not confirm it
        assert waiting.payment is not None
        assert waiting.payment.status is PaymentStatus.CANCELLED
        assert waiting.payment.amount == 100


async def test_news_before_the_wait_makes_its_first_look_immediate(server: FakeServer):
    """Also where it came before the payment was known: the answer to its initiate was slow."""
    for comes_first in (False, True):
        async with server.client() as paynexus:
            if comes_first:
                assert not await paynexus.notify(event())
            payment = await initiate(server, paynexus)
            if not comes_first:
                assert not await paynexus.notify(event())
            server.answers(status("completed"))
            now = anyio.current_time()
            assert (await paynexus.wait_for_completion(payment)).succeeded
            assert server.times == [now]


async def test_repeated_news_costs_a_handful_of_calls(server: FakeServer):
    """Somebody sends an old delivery again and again, ten times a second, for a minute."""
    async with server.client() as paynexus, anyio.create_task_group() as group:
        payment = await initiate(server, paynexus)
        server.answers(status("processing"))
        group.start_soon(Waiting(paynexus, payment, 60).run)
        for _ in range(590):
            await anyio.sleep(0.1)
            await paynexus.notify(event())
        assert len(server.requests) <= 6 + 15  # the doubling ones, and the schedule's own
        group.cancel_scope.cancel()


async def test_news_during_a_look_is_heeded_after_it(server: FakeServer):
    """Its answer may have been on its way when the payment ended."""
    async with server.client() as paynexus, anyio.create_task_group() as group:
        payment = await initiate(server, paynexus)
        server.latency_seconds = 2
        server.answers(status("processing"), status("completed"))
        waiting = Waiting(paynexus, payment)
        group.start_soon(waiting.run)
        await anyio.sleep(0.5)
        await paynexus.notify(event())
        await anyio.sleep(0.5)
        await paynexus.notify(event())
        await anyio.sleep(3.6)
        assert len(server.requests) == 2
        assert server.times[1] - server.times[0] == pytest.approx(2)
        assert waiting.payment is not None
        assert waiting.payment.succeeded


async def test_a_look_that_meets_an_error_is_soon_repeated(server: FakeServer):
    """News is not lost with the answer that would have confirmed it."""
    async with server.client() as paynexus, anyio.create_task_group() as group:
        payment = await initiate(server, paynexus)
        server.answers(refusal(502), httpx.ReadError("reset"), status("completed"))
        waiting = Waiting(paynexus, payment)
        group.start_soon(waiting.run)
        await anyio.sleep(0.1)
        now = anyio.current_time()
        await paynexus.notify(event())
        await anyio.sleep(3.1)
        assert [at - now for at in server.times] == pytest.approx([0, 1, 3])
        assert waiting.payment is not None
        assert waiting.payment.succeeded


@pytest.mark.parametrize(
    "news",
    [
        event("payment.initiated"),
        event("payment.processing"),
        event("invoice.paid"),
        event(reference="PNXSTRANGER1", checkout_request_id=None),
        event(reference="x" * 5_000, checkout_request_id=None),
        event(reference=7, checkout_request_id=["ws_CO_1"]),
    ],
    ids=["initiated", "processing", "invoice", "stranger", "endless", "no text"],
)
async def test_what_is_no_news_costs_no_call(server: FakeServer, news):
    """Other events, other payments, and what is no name at all."""
    async with server.client() as paynexus, anyio.create_task_group() as group:
        payment = await initiate(server, paynexus)
        server.answers(status("processing"))
        group.start_soon(Waiting(paynexus, payment).run)
        await anyio.sleep(0.1)
        await paynexus.notify(news)
        await anyio.sleep(1)
        assert server.requests == []
        group.cancel_scope.cancel()


async def test_an_end_without_money_is_asked_for_again_only_if_money_is_said_to_have_come(
    server: FakeServer,
):
    """Late truth by webhook: whoever watches for it hears of it at once."""
    async with server.client() as paynexus, anyio.create_task_group() as group:
        payment = await initiate(server, paynexus)
        server.answers(status("expired"))
        updates = []

        async def watch() -> None:
            async for update in paynexus.watch(payment, max_wait=60, revisions_for=600):
                updates.append((anyio.current_time(), update))

        group.start_soon(watch)
        await anyio.sleep(30)
        assert updates[-1][1].payment.status is PaymentStatus.EXPIRED
        asked = len(server.requests)
        await paynexus.notify(event("payment.expired"))
        await paynexus.notify(event("payment.failed"))
        await anyio.sleep(0.1)
        assert len(server.requests) == asked
        server.answers(status("completed"))
        now = anyio.current_time()
        await paynexus.notify(event())
        await anyio.sleep(0.1)
        assert updates[-1][0] == now
        assert isinstance(updates[-1][1], PaymentRevision)
        assert not await paynexus.notify(event())  # nobody waits any longer


async def calls_of(server: FakeServer, paynexus: AsyncPayNexus, number: int, *, told: bool) -> int:
    """How often a payment that ends after half a minute is asked for."""
    names = {"reference": f"PNX{number}", "checkout_request_id": f"ws_CO_{number}"}
    payment = await initiate(server, paynexus, **names)
    server.answers(status("processing", **names))
    async with anyio.create_task_group() as group:
        group.start_soon(Waiting(paynexus, payment).run)
        await anyio.sleep(30)
        server.answers(status("completed", **names))
        if told:
            await paynexus.notify(event(**names))
    return len(server.requests)


async def test_with_news_of_each_end_looks_become_a_safety_net_and_return_without(
    server: FakeServer,
):
    """A few ends that were heard of stretch the pauses; a few that were not end that."""
    async with server.client(learn=False) as paynexus:
        usual = await calls_of(server, paynexus, 0, told=False)
        told = [await calls_of(server, paynexus, number, told=True) for number in range(1, 9)]
        assert min(told[:3]) >= usual - 1
        assert told[5:] == [2, 2, 2]  # one look on the way, and the one that confirms
        silent = [await calls_of(server, paynexus, number, told=False) for number in range(9, 15)]
        assert silent[0] <= 4
        assert silent[-1] == usual


async def test_a_webhook_that_a_look_has_overtaken_counts_as_heard(server: FakeServer):
    """Looks are quick where nobody relies on news yet: it would never be relied on otherwise."""
    async with server.client(learn=False) as paynexus:
        for number in range(6):
            names = {"reference": f"PNX{number}", "checkout_request_id": f"ws_CO_{number}"}
            payment = await initiate(server, paynexus, **names)
            server.answers(status("processing", **names), status("completed", **names))
            await paynexus.wait_for_completion(payment)
            await anyio.sleep(1)
            assert not await paynexus.notify(event(**names))
        assert await calls_of(server, paynexus, 7, told=True) == 2


async def test_news_goes_before_other_looks(server: FakeServer):
    """A hundred payments wait for their looks; the one that was heard of is next."""
    async with server.client(plan={"minute": 30}) as paynexus, anyio.create_task_group() as group:
        server.answers(status("processing", reference=None, checkout_request_id=None))
        for number in range(100):
            group.start_soon(Waiting(paynexus, f"PNX{number}", 600).run)
        await anyio.sleep(5)
        asked = len(server.requests)
        assert asked < 40
        await paynexus.notify("PNX99")
        await anyio.sleep(60)
        assert server.requests[asked].url.path.endswith("/PNX99")
        group.cancel_scope.cancel()


async def test_two_names_that_become_one_keep_the_news(server: FakeServer):
    """Heard of by the one, while the answer to a look by the other shows that they are one."""
    async with server.client() as paynexus, anyio.create_task_group() as group:
        server.latency_seconds = 1
        server.answers(status("processing"), status("processing"), status("completed"))
        by_reference, by_checkout = Waiting(paynexus, REFERENCE), Waiting(paynexus, CHECKOUT_ID)
        group.start_soon(by_reference.run)
        await anyio.sleep(0.1)
        group.start_soon(by_checkout.run)
        await anyio.sleep(0.5)
        assert await paynexus.notify(event(reference=None))
        await anyio.sleep(2.6)
        assert len(server.requests) == 3
        assert by_reference.payment == by_checkout.payment
        assert by_reference.payment is not None
        assert by_reference.payment.succeeded


async def test_forged_and_stale_deliveries_never_become_news(server: FakeServer):
    """There is no event to notify with."""
    body = b'{"event": "payment.completed", "data": {"reference": "PNXABC123DEF"}}'
    good = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    for headers in (
        {},
        {"X-PayNexus-Signature": "0" * 64},
        {"X-PayNexus-Signature": good[:-1]},
        {"X-PayNexus-Signature": good, "X-PayNexus-Timestamp": "1000"},
    ):
        with pytest.raises(WebhookSignatureError):
            parse_webhook(body, headers, SECRET)
    with pytest.raises(WebhookSignatureError):
        parse_webhook(body[:-1], {"X-PayNexus-Signature": good}, SECRET)


async def test_what_names_no_payment_is_refused(server: FakeServer):
    """And so is a client that is closed."""
    async with server.client() as paynexus:
        for news in ("", "../x", None, 7):
            with pytest.raises(InvalidRequestError):
                await paynexus.notify(news)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(ClientStateError):
        await paynexus.notify(event())
