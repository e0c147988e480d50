"""How applications use the package: pytest-asyncio's fixtures, respx's mocks, real sockets."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import httpx
import pytest
import pytest_asyncio
import respx
from tenacity import wait_none

from paynexus_async import (
    APIConnectionError,
    AsyncPayNexus,
    DuplicatePaymentError,
    Payment,
    PaymentOutcomeUnknown,
    Schedule,
    Survival,
)
from paynexus_async.sandbox import PUBLIC_KEY, SECRET_KEY, Ledger, SandboxServer

from .fakes import CHECKOUT_ID, PHONE, REFERENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

API = "https://paynexus.co.ke/api"
HURRY = Schedule(0.01, Survival(0.1, tuple(1 - i / 20 for i in range(21))))


@pytest_asyncio.fixture
async def paynexus() -> AsyncIterator[AsyncPayNexus]:
    """Opened in one task and closed in another, as pytest-asyncio does."""
    async with AsyncPayNexus(SECRET_KEY, PUBLIC_KEY) as client:
        yield client


@pytest.mark.asyncio
@respx.mock(base_url=API)
async def test_the_documented_calls_under_respx(
    respx_mock: respx.MockRouter, paynexus: AsyncPayNexus
):
    """The default client, its pool mocked: method, path, key and body of each call."""
    data = {
        "reference": REFERENCE, "checkout_request_id": CHECKOUT_ID, "amount": 100,
        "phone": PHONE, "status": "initiated",
    }  # fmt: skip
    initiate = respx_mock.post(
        "/mpesa/payment/initiate",
        json={"amount": 100, "phone": PHONE, "description": "Order #12345"},
        headers={"X-API-Key": SECRET_KEY},
    ).respond(json={"success": True, "data": data})
    done = {**data, "status": "completed", "amount": "100.00"}
    status = respx_mock.get(f"/payments/{REFERENCE}", headers={"X-API-Key": PUBLIC_KEY}).respond(
        json={"success": True, "data": done}
    )
    by_id = respx_mock.post(
        "/payments/status-by-checkout-id", json={"checkout_request_id": CHECKOUT_ID}
    ).respond(json={"success": True, "data": done})
    valid = {"original": "0746990866", "normalized": PHONE, "valid": True, "provider": "mpesa"}
    validate = respx_mock.post("/mpesa/validate-phone", json={"phone": "0746990866"}).respond(
        json={"success": True, "data": valid}
    )
    assert (
        await paynexus.initiate_payment(100, "0746990866", "Order #12345")
    ).reference == REFERENCE
    assert (await paynexus.get_payment_status(REFERENCE)).succeeded
    assert (await paynexus.get_payment_status_by_checkout_id(CHECKOUT_ID)).succeeded
    assert (await paynexus.validate_phone("0746990866")).valid
    assert [r.call_count for r in (initiate, status, by_id, validate)] == [1, 1, 1, 1]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("failure", "calls", "kind"),
    [(httpx.ConnectError, 3, APIConnectionError), (httpx.ReadTimeout, 1, PaymentOutcomeUnknown)],
)
@respx.mock(base_url=API)
async def test_under_a_mock_only_proofs_of_not_sending_are_retried(
    respx_mock, failure, calls, kind
):
    """A mock does not trace; then the exception's class must prove it."""
    route = respx_mock.post("/mpesa/payment/initiate").mock(side_effect=failure)
    loop = asyncio.get_running_loop()
    real_time, offset = loop.time, 0.0
    loop.time = lambda: real_time() + offset  # type: ignore[method-assign]  # pauses are not slept
    async with AsyncPayNexus(SECRET_KEY) as paynexus:
        with pytest.raises(kind):
            task = asyncio.create_task(paynexus.initiate_payment(100, PHONE))
            while not task.done():
                offset += 1.0
                await asyncio.sleep(0)
            await task
    assert route.call_count == calls


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_the_main_job_on_real_sockets(anyio_backend):
    """Initiate, a second click, follow to the end; the ledger holds one prompt."""
    now = [1_769_498_238.0]
    ledger = Ledger(clock=lambda: now[0])
    with SandboxServer(ledger) as server:
        async with AsyncPayNexus(
            SECRET_KEY, PUBLIC_KEY, base_url=server.url, patience=HURRY
        ) as paynexus:
            payment = await paynexus.initiate_payment(100, "0746990866", "Order #12345")
            with pytest.raises(DuplicatePaymentError):
                await paynexus.initiate_payment(100, "+254 746 990 866")
            now[0] += 10
            ended = await paynexus.wait_for_completion(payment, wait=wait_none())
    assert isinstance(ended, Payment)
    assert ended.succeeded
    assert ended.receipt == ledger.records[0].receipt
    assert ledger.prompted("0746990866") == 1
    assert {(c.key_kind, c.method) for c in ledger.calls} == {("sk_", "POST"), ("pk_", "GET")}


@pytest.mark.asyncio
async def test_a_client_without_a_context_manager_is_closed_by_hand():
    """For those who cannot use `async with`."""
    ledger = Ledger(clock=time.time)
    with SandboxServer(ledger) as server:
        paynexus = AsyncPayNexus(SECRET_KEY, base_url=server.url)
        try:
            assert (await paynexus.validate_phone("0746990866")).valid
        finally:
            await paynexus.aclose()


@pytest.mark.asyncio
async def test_the_loop_may_end_while_a_prompt_is_on_its_way():
    """No task is lost in an ugly way, and nothing warns."""

    async def leave() -> None:
        with SandboxServer(Ledger(clock=time.time)) as server:
            paynexus = AsyncPayNexus(SECRET_KEY, base_url=server.url)
            task = asyncio.create_task(paynexus.initiate_payment(100, PHONE))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            await paynexus.aclose()

    await leave()
