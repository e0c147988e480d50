import pytest
from shop import sell

pytestmark = pytest.mark.asyncio  # or pytest.mark.anyio
PHONE = "0746990866"


async def told(paynexus):
    return [words async for words in sell(paynexus, PHONE, price=100)]


async def test_paid(paynexus, paynexus_sandbox):
    assert await told(paynexus) == ["Thank you!"]
    paynexus_sandbox.assert_prompted_once(PHONE)


async def test_cancelled(paynexus, paynexus_sandbox):
    paynexus_sandbox.script("cancelled")
    assert await told(paynexus) == ["You declined; shall we try again?"]


async def test_expired(paynexus, paynexus_sandbox):
    paynexus_sandbox.script("expired")
    assert await told(paynexus) == ["The request ran out."]


async def test_the_answer_is_lost(paynexus, paynexus_sandbox):
    paynexus_sandbox.lose_next_answer()
    assert await told(paynexus) == ["Please check your phone; we are finding out."]
    paynexus_sandbox.assert_prompted_once(PHONE)  # so the customer may pay


async def test_paid_after_all(paynexus, paynexus_sandbox):
    paynexus_sandbox.script("late")
    assert await told(paynexus) == ["The request ran out.", "Thank you!"]
