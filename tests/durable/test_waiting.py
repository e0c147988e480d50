"""Whoever waits for an order's end hears of it, whichever row brings it."""

from __future__ import annotations

import asyncio

import pytest
from dbos import DBOS

from .shop import ORDER, Shop

pytestmark = pytest.mark.anyio


async def test_whoever_waits_hears_of_an_end_that_another_row_brings(shop: Shop):
    """Somebody has taken its row out: the order is stuck until it is retried, and then goes on."""
    shop.ledger.script("slow")
    async with shop.worker() as durable:
        handle = await durable.pay("order-1", **ORDER)
        await handle.payment()
        row = (await shop.view(durable, "order-1")).workflow_id
        await DBOS.cancel_workflow_async(row)
        waiting = asyncio.create_task(handle.outcome())
        await shop.until(lambda: row not in durable._work.running)
        assert (await shop.view(durable, "order-1")).is_stuck
        assert [view.order_id for view in (await durable.summary()).stuck] == ["order-1"]
        await durable.retry("order-1")
        assert (await waiting).state == "completed"
        assert not (await shop.view(durable, "order-1")).is_stuck
    assert [outcome.state for outcome in shop.told] == ["completed"]


async def test_a_worker_that_is_slow_keeps_what_it_has(shop: Shop):
    """It gives a sign of life for it, long before its lease is over: nobody takes it over."""
    shop.ledger.script("stuck")
    async with shop.worker() as durable:
        await (await durable.pay("order-1", **ORDER)).payment()
        row = (await shop.view(durable, "order-1")).workflow_id

        def age(seconds: int) -> None:
            shop.execute(
                "UPDATE workflow_status SET created_at = created_at - :ms, "
                "updated_at = updated_at - :ms, started_at_epoch_ms = NULL "
                "WHERE workflow_uuid = :row",
                ms=seconds * 1000,
                row=row,
            )

        lease = int(durable._terms.lease_seconds)
        age(lease // 4)
        assert await durable.sweep() == 0
        assert not (await DBOS.list_workflows_async(workflow_ids=[row]))[0].attributes
        age(lease // 2)
        assert await durable.sweep() == 0
        (status,) = await DBOS.list_workflows_async(workflow_ids=[row])
        assert "paynexus.alive" in (status.attributes or {})
        assert status.updated_at is not None
        assert status.updated_at > (shop.clock() - 60) * 1000
