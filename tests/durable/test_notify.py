"""News of a payment wakes whatever follows it: here, as a row, or in a worker that is dead."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from functools import partial
from typing import Any

import attrs
import pytest
from anyio import to_thread
from dbos import DBOS

from paynexus_async import AsyncPayNexus, ClientStateError
from paynexus_async.durable import Terms
from paynexus_async.sandbox import Fault, Scenario, Step

from .shop import ORDER, Shop, event_of

pytestmark = pytest.mark.anyio

SHORT = Terms(burst_seconds=5, handler_seconds=600)
SLOW = Scenario("slower", (Step(1, "processing"), Step(800, "completed")))


async def test_news_of_a_payment_that_is_followed_here_is_asked_about_at_once(shop: Shop):
    """By whoever waits for it in this process; nothing in the news is believed."""
    shop.ledger.script("stuck")
    async with shop.worker() as durable:
        handle = await durable.pay("order-1", **ORDER)
        payment = await handle.payment()
        await shop.until(lambda: len(shop.wire.asked) > 1)
        assert await durable.notify(event_of(payment))
        assert len(shop.rows()) == 2
        assert (await handle.view()).state == "pending"
    assert shop.told == []


async def test_news_of_a_payment_that_waits_as_a_row_brings_it_forward(shop: Shop):
    """The customer paid after the burst: half a minute, or hours, before the next look."""
    shop.ledger.script(SLOW)
    async with shop.worker(terms=SHORT) as durable:
        handle = await durable.pay("order-1", **ORDER)
        payment = await handle.payment()
        await shop.until_waiting()
        shop.clock.ahead += 50
        assert await durable.notify(event_of(payment))
        assert (await handle.outcome()).succeeded


@pytest.mark.parametrize("is_alone", [False, True])
async def test_news_by_its_other_name_is_as_good(shop: Shop, is_alone: bool):
    """A payment whose reference is not known here bears the hash of its checkout request id."""
    shop.ledger.script(
        Scenario("nameless", (Step(800, "completed"),), initiate={"reference": None})
    )
    shop.ledger.faults.add(Fault("500-before", call="status"))
    async with shop.worker(terms=SHORT) as durable:
        handle = await durable.pay("order-1", **ORDER)
        payment = await handle.payment()
        await shop.until_waiting()
        shop.ledger.faults.clear()
        shop.clock.ahead += 50
        named = attrs.evolve(payment, reference=shop.ledger.prompts[0].reference)
        assert not await durable.notify(event_of(named))
        known = payment if is_alone else named
        event = event_of(known, checkout_request_id=payment.checkout_request_id)
        assert await durable.notify(event)
        assert (await handle.outcome()).succeeded


async def test_news_of_a_payment_that_no_order_has_makes_the_lost_ones_be_looked_for(shop: Shop):
    """An answer was lost, and so its reference; the webhook names it."""
    shop.ledger.faults.add(Fault("reset-after", call="initiate", times=1))
    shop.ledger.faults.add(Fault("403-before", call="list"))
    async with shop.worker() as durable:
        handle = await durable.pay("order-1", **ORDER)
        assert (await handle.outcome()).state == "unknown"
        await shop.until_waiting()
        shop.ledger.faults.clear()
        prompt = shop.ledger.prompts[0]
        assert not await durable.notify(event_of(attrs.evolve(await paid(shop), amount=7)))
        assert await durable.notify(event_of(await paid(shop)))
        second = await shop.until_told(2)
        assert (second.state, second.overtakes) == ("completed", "unknown")
        assert second.payment is not None
        assert second.payment.reference == prompt.reference


async def paid(shop: Shop) -> Any:
    async with shop.client() as paynexus:
        return await paynexus.get_payment_status(shop.ledger.prompts[0].reference)


async def test_news_of_what_another_worker_is_at_takes_nothing_from_it(shop: Shop):
    """It may be telling its handler; if it is dead, the sweep goes on when its lease is over."""
    shop.ledger.script(SLOW)
    async with shop.worker(executor_id="a") as durable:
        payment = await (await durable.pay("order-1", **ORDER)).payment()
        await shop.until(lambda: [row[1] for row in shop.rows()] == ["SUCCESS", "PENDING"])
        await shop.crash()
    shop.clock.ahead += 50
    async with shop.worker(executor_id="b") as durable:
        assert await durable.notify(event_of(payment))
        await asyncio.sleep(4)
        assert await durable.sweep() == 0
        assert shop.rows("status, executor_id")[1] == ("PENDING", "a")
        assert shop.told == []
        aged(shop)
        assert await durable.notify(event_of(payment))  # repeated: no sign of the worker's life
        assert await durable.sweep() == 1
        assert (await shop.until_told()).succeeded
    assert shop.wire.initiates == 1


def aged(shop: Shop) -> None:
    """Let what runs have begun a lease ago."""
    shop.execute(
        "UPDATE workflow_status SET created_at = 0, updated_at = 0, started_at_epoch_ms = 0 "
        "WHERE status = 'PENDING'"
    )


async def test_over_postgresql_whoever_waits_hears_what_another_worker_is_told(
    remote: Shop, monkeypatch: pytest.MonkeyPatch
):
    """Once, and within a second; it waits on, and its row stays its own."""
    heard: list[object] = []

    async def hear(paynexus: AsyncPayNexus, news: Any) -> bool:
        heard.append(news)
        return await notify(paynexus, news)

    notify = AsyncPayNexus.notify
    monkeypatch.setattr(AsyncPayNexus, "notify", hear)
    remote.ledger.script("stuck")
    terms = Terms(burst_seconds=4_000, handler_seconds=600)
    async with remote.worker(executor_id="a", terms=terms) as durable:
        payment = await (await durable.pay("order-1", **ORDER)).payment()
        await remote.until(lambda: len(remote.wire.asked) > 1)
        assert await told_elsewhere(remote.url, str(payment.reference)) == "True"
        await remote.until(lambda: heard)
        await asyncio.sleep(10)
        assert heard == [payment.reference]
        (row,) = await DBOS.list_workflows_async(status="PENDING")
        assert row.executor_id == "a"
        assert row.workflow_id in durable._work.running
    assert remote.told == []


ELSEWHERE = """
import asyncio, sys
from dbos import DBOS
from paynexus_async import AsyncPayNexus
from paynexus_async._convert import structure_payment
from paynexus_async.durable import DurablePayments, dbos_config, launched
from paynexus_async.sandbox import PUBLIC_KEY, SECRET_KEY
from paynexus_async.webhooks import WebhookEvent

async def never(outcome):
    raise AssertionError

async def main(url, reference):
    told = {"reference": reference, "status": "completed", "amount": "100"}
    event = WebhookEvent(
        name="payment.completed", payment=structure_payment(told), reference=reference,
        checkout_request_id=None, sent_at=None, data=told,
    )
    DBOS(config=dbos_config("shop", url, executor_id="b"))
    async with AsyncPayNexus(SECRET_KEY, PUBLIC_KEY, base_url="https://sandbox.invalid/api") as p:
        async with launched(DurablePayments(p, on_settled=never)) as durable:
            print(await durable.notify(event))

asyncio.run(main(*sys.argv[1:]))
"""
"""A worker of another process, which a webhook reaches."""


async def told_elsewhere(url: str, reference: str) -> str:
    command = [sys.executable, "-c", ELSEWHERE, url, reference]
    run = partial(subprocess.run, command, check=False, capture_output=True, text=True, timeout=60)
    done = await to_thread.run_sync(run)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


async def test_news_of_what_is_being_told_here_changes_nothing(shop: Shop):
    """The handler is at it: it is not taken over from itself."""
    go = asyncio.Event()

    async def hold(outcome: Any) -> None:
        await go.wait()

    shop.on_told = hold
    terms = Terms(handler_seconds=6_000)
    async with shop.worker(terms=terms) as durable:
        handle = await durable.pay("order-1", **ORDER)
        payment = await handle.payment()
        await shop.until_told()
        await durable.notify(event_of(payment))
        await asyncio.sleep(4)
        assert [row[1] for row in shop.rows()] == ["SUCCESS", "PENDING"]
        go.set()
        assert (await handle.outcome()).succeeded
    assert len(shop.told) == 1


async def test_what_is_no_news_of_an_end_wakes_nobody(shop: Shop):
    """Nor does news of a stranger's payment; nor is any taken outside of the block."""
    async with shop.worker() as durable:
        await (await durable.pay("order-1", **ORDER)).outcome()
        payment = await paid(shop)
        stranger = attrs.evolve(payment, reference="PNXSTRANGER1")
        assert not await durable.notify(event_of(stranger))
        assert not await durable.notify(event_of(stranger, "processing"))
        assert not await durable.notify(attrs.evolve(event_of(stranger), payment=None))
    with pytest.raises(ClientStateError):
        await durable.notify(event_of(stranger))
