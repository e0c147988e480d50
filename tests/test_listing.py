"""Listing payments: page by page, each once, and never less than was asked for in silence."""

from __future__ import annotations

import json
import time
from contextlib import aclosing
from datetime import date, datetime, timedelta, timezone
from itertools import accumulate, product
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from paynexus_async import (
    APIResponse,
    APIResponseError,
    AsyncPayNexus,
    ClientStateError,
    InvalidRequestError,
    NotFoundError,
    Payment,
    PaymentMismatchError,
    PaymentStatus,
    _pages,
)
from paynexus_async._convert import structure_payment
from paynexus_async._pages import Pages
from paynexus_async._wire import Call, Listing, Page, list_call, read_page
from paynexus_async.sandbox import PUBLIC_KEY, SECRET_KEY, Ledger, SandboxServer, create_app

from .fakes import PHONE, FakeServer, answer, initiated, refusal, status
from .fakes import PUBLIC_KEY as PUBLIC

if TYPE_CHECKING:
    from .fakes import Answer

pytestmark = pytest.mark.anyio

EPOCH = 1_769_498_238.0
NAIROBI = timezone(timedelta(hours=3))


def item(number: int, **fields: Any) -> dict[str, Any]:
    """A payment as lists show it."""
    return {
        "reference": f"PNX{number}",
        "amount": "100.00",
        "phone": PHONE,
        "status": "completed",
        "created_at": "2026-01-27T10:17:18+03:00",
        **fields,
    }


def page(*items: dict[str, Any], **pagination: int) -> Answer:
    """A page; without any number of it, no pagination."""
    more = {"pagination": pagination} if pagination else {}
    return answer(success=True, data=list(items), **more)


async def references(paynexus: AsyncPayNexus, **filters: Any) -> list[str | None]:
    return [payment.reference async for payment in paynexus.list_payments(**filters)]


async def test_all_pages_come_lazily_and_in_order(server: FakeServer):
    """One call for each, made when its first payment is asked for, with the public key."""
    server.answers(
        page(item(3), item(2), current_page=1, last_page=2, total=3),
        page(item(1), current_page=2, last_page=2, total=3),
    )
    async with server.client() as paynexus:
        payments = paynexus.list_payments(status="completed", from_date=date(2026, 1, 27))
        assert server.requests == []
        first = await anext(payments)
        assert (first.reference, first.amount, first.status) == ("PNX3", 100, "completed")
        assert first.response is not None
        await anext(payments)
        assert len(server.requests) == 1
        assert [payment.reference async for payment in payments] == ["PNX1"]
    paths = [
        str(request.url).removeprefix("https://paynexus.co.ke/api") for request in server.requests
    ]
    assert paths == [
        f"/payments?status=completed&from_date=2026-01-27&page={number}&per_page=100"
        for number in (1, 2)
    ]
    assert {request.headers["X-API-Key"] for request in server.requests} == {PUBLIC}


async def test_leaving_early_asks_for_nothing_more(server: FakeServer):
    """And leaves no connection and no task behind."""
    server.answers(page(item(2), item(1), current_page=1, last_page=9))
    async with server.client() as paynexus:
        async with aclosing(paynexus.list_payments()) as payments:
            async for _ in payments:
                break
        assert len(server.requests) == 1
        assert not paynexus._transport._tasks._running


async def test_a_payment_that_a_new_one_moved_on_comes_once(server: FakeServer):
    """It stands on two pages; two without a name may be two."""
    bare = {"status": "processing"}
    server.answers(
        page(item(4), item(3), last_page=2),
        page(item(3), bare, bare, item(2), last_page=2),
    )
    async with server.client() as paynexus:
        listed = await references(paynexus)
    assert listed == ["PNX4", "PNX3", None, None, "PNX2"]


async def read_growing(first: int, growth: tuple[int, ...], *, turns: bool) -> list[str | None]:
    """Read a list of three on a page, newest first, that grows before each page after the first."""
    totals = list(accumulate((first, *growth)))

    async def ask(number: int) -> Page:
        total = totals[min(number, len(totals)) - 1]
        begin = 3 * (number - 1) if turns else 0
        places = range(begin, min(begin + 3, total))
        shown = tuple(structure_payment(item(total - place)) for place in places)
        return Page(
            shown, -(-total // 3), total, APIResponse(status_code=200, headers={}, body=b"")
        )

    pages, listed = Pages(ask), []
    while not pages.is_over:
        listed += [payment.reference for payment in await pages.next()]
    assert pages.is_whole
    return listed


async def test_new_payments_do_not_make_up_for_one_that_is_missing():
    """However many come meanwhile: a server that turns its pages is read to the end, and one that
    shows its first page again and again is found out.
    """
    for first, *growth in product(range(1, 11), *[range(6)] * 3):
        if 3 not in growth:  # the page before, moved on by one page, looks like no new one
            listed = await read_growing(first, tuple(growth), turns=True)
            assert {f"PNX{number}" for number in range(1, first + 1)} <= set(listed)
            assert len(listed) == len(set(listed))
        if first > 3:
            with pytest.raises(APIResponseError, match="cannot be read to its end"):
                await read_growing(first, tuple(growth), turns=False)


@pytest.mark.parametrize("last", [page(), page(item(2), item(1))], ids=["empty", "repeated"])
async def test_without_pagination_an_empty_or_a_repeated_page_ends_it(server: FakeServer, last):
    """There is no other sign."""
    server.answers(page(item(4), item(3)), page(item(2), item(1)), last)
    async with server.client() as paynexus:
        assert await references(paynexus) == ["PNX4", "PNX3", "PNX2", "PNX1"]
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("pages", "words"),
    [
        ([page(item(2), last_page=3), page(item(2), last_page=3)], "page 2 of 3 repeats page 1"),
        ([page(item(2), last_page=3), page(last_page=3)], "page 2 of 3 is empty"),
        (
            [page(item(2), current_page=1, last_page=3)] * 2,
            "page 2 was asked for, and it is page 1",
        ),
        ([page(item(2), last_page=2), page(item(2), last_page=2)], "page 2 of 2 repeats page 1"),
        ([page(item(2), last_page=1, total=2)], "it shows 1 payments of 2"),
        ([page({"amount": 1})], "item 1 of 1: the payment has no status"),
        ([page(item(1), item(2, amount="many"))], "item 2 of 2: the amount is not a number"),
        ([answer(success=True, data=[7])], "item 1 of 1: the payment has no status"),
        ([answer(success=True, data={})], "no list of at most"),
        ([answer(success=True)], "no list of at most"),
        ([answer(success=True, data=[{"status": "x"}] * 1_001)], "no list of at most"),
    ],
)  # fmt: skip
async def test_what_cannot_be_understood_is_said_and_not_left_out(server: FakeServer, pages, words):
    """Whoever counts must not miss a payment in silence."""
    server.answers(*pages)
    async with server.client(max_retries=0) as paynexus:
        with pytest.raises(APIResponseError, match=words):
            await references(paynexus)


async def test_a_list_without_end_ends_all_the_same(server: FakeServer, monkeypatch):
    """After a bounded number of pages."""
    monkeypatch.setattr(_pages, "PAGES_MAX", 5)
    server.answers(lambda request: page(item(len(server.requests))))  # type: ignore[arg-type,return-value]
    async with server.client() as paynexus:
        with pytest.raises(APIResponseError, match="more than 5 pages: ask for fewer days"):
            await references(paynexus)
    assert len(server.requests) == 5


async def test_filters_that_a_server_ignores_are_applied_here(server: FakeServer):
    """By days of Kenyan time; what an item leaves out contradicts nothing."""
    server.answers(
        page(
            item(5, created_at="2026-01-27T21:00:00Z"),  # the 28th, in Kenya
            item(4, created_at="2026-01-27T20:59:59Z"),
            item(3, created_at="2026-01-27T00:00:00+03:00"),
            item(2, created_at=None),
            item(1, created_at="2026-01-26T23:59:59+03:00"),
            item(0, status="failed"),
            last_page=1,
        )
    )
    day = date(2026, 1, 27)
    async with server.client() as paynexus:
        listed = await references(paynexus, from_date=day, to_date=day, status="COMPLETED")
    assert listed == ["PNX4", "PNX3", "PNX2"]


def test_a_day_lasts_to_its_last_moment_and_a_page_may_hold_one_payment():
    """Both are asked for as they are documented."""
    listing = Listing.of(None, None, date(2026, 1, 27), 1)
    asked = "/payments?to_date=2026-01-27&page=2&per_page=1"
    assert list_call(listing, 2) == Call("list_payments", "GET", asked)
    last, next_day = "2026-01-27T23:59:59.999999+03:00", "2026-01-28T00:00:00+03:00"
    admitted = [listing.admits(structure_payment(item(1, created_at=t))) for t in (last, next_day)]
    assert admitted == [True, False]


async def test_a_time_at_the_end_of_all_time_breaks_no_filter():
    """A year of 9999, in a zone that moves it beyond."""
    listing = Listing.of(None, date(2026, 1, 1), date.max, 100)
    for moment in ("9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"):
        listing.admits(structure_payment({"status": "x", "created_at": moment}))


@pytest.mark.parametrize(
    "filters",
    [
        {"status": "a b"}, {"status": ""}, {"status": 7}, {"from_date": "2026-01-27"},
        {"to_date": datetime(2026, 1, 27, tzinfo=NAIROBI)}, {"per_page": 0}, {"per_page": 101},
        {"per_page": True}, {"per_page": 1.0},
        {"from_date": date(2026, 1, 28), "to_date": date(2026, 1, 27)},
    ],
)  # fmt: skip
async def test_a_wrong_filter_is_refused_at_once(server: FakeServer, filters):
    """Before the first payment is asked for."""
    wrong = list(filters)[-1]
    async with server.client() as paynexus:
        with pytest.raises(InvalidRequestError, match=f"^{wrong} .*; nothing was sent$"):
            paynexus.list_payments(**filters)


async def test_a_closed_client_lists_nothing(server: FakeServer):
    """It says so at once."""
    paynexus = server.client()
    await paynexus.aclose()
    with pytest.raises(ClientStateError):
        paynexus.list_payments()


async def test_lists_end_when_their_client_is_closed_between_two_attempts(server: FakeServer):
    """Found by the simulator: nobody waits for a call of a closed client, and so for ever."""
    server.answers(httpx.ReadError("cut"))
    paynexus = server.client()
    ended: list[float] = []

    async def read() -> None:
        with pytest.raises(ClientStateError, match="closed"):
            await references(paynexus)
        ended.append(anyio.current_time())

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            started = anyio.current_time()
            group.start_soon(read)
            group.start_soon(read)
            await anyio.sleep(0.1)
            await paynexus.aclose()
    assert max(ended) - started < 3


async def test_a_page_is_fetched_again_as_any_read(server: FakeServer):
    """And a refusal that time does not heal is raised."""
    server.answers(refusal(503), page(item(1), last_page=1))
    async with server.client() as paynexus:
        assert await references(paynexus) == ["PNX1"]
        server.answers(refusal(404))
        with pytest.raises(NotFoundError):
            await references(paynexus)


async def test_a_list_that_lags_takes_nothing_back(server: FakeServer):
    """Of a payment that was seen, what was seen later counts; who waits for it hears of the list."""
    server.answers(initiated(), status("completed"))
    async with server.client() as paynexus:
        payment = await paynexus.initiate_payment(100, PHONE)
        await paynexus.get_payment_status(payment)
        old = item(1, reference=payment.reference, status="processing")
        server.answers(page(old, last_page=1))
        (listed,) = [one async for one in paynexus.list_payments()]
        assert listed.status is PaymentStatus.COMPLETED


async def test_a_list_that_contradicts_what_was_asked_is_not_believed(server: FakeServer):
    """As no other answer is."""
    server.answers(initiated())
    async with server.client() as paynexus:
        payment = await paynexus.initiate_payment(100, PHONE)
        server.answers(page(item(1, reference=payment.reference, amount=1), last_page=1))
        with pytest.raises(PaymentMismatchError):
            await references(paynexus)


@pytest.mark.parametrize("transport", ["httpx", "aiohttp", "pyreqwest"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_every_transport_lists_the_sandbox(anyio_backend, transport):
    """Over real sockets: 31 payments, newest first, ten at a time."""
    ledger = Ledger(clock=time.time)
    with SandboxServer(ledger) as server:
        async with AsyncPayNexus(
            SECRET_KEY, PUBLIC_KEY, base_url=server.url, transport=transport
        ) as paynexus:
            for number in range(31):
                await paynexus.initiate_payment(100 + number, "0746990866")
            listed = [payment async for payment in paynexus.list_payments(per_page=10)]
            failed = [payment async for payment in paynexus.list_payments(status="failed")]
    assert [payment.amount for payment in listed] == list(range(130, 99, -1))
    assert failed == []
    assert sum(call.path == "/payments" for call in ledger.calls) == 5


async def test_the_sandbox_lists_days_of_kenyan_time():
    """As the dates that it shows are."""
    now = [datetime(2026, 1, 27, 20, 59, tzinfo=timezone.utc).timestamp()]  # noqa: UP017
    ledger = Ledger(clock=lambda: now[0])
    transport = httpx.ASGITransport(app=create_app(ledger))
    async with (
        httpx.AsyncClient(transport=transport) as http_client,
        AsyncPayNexus(SECRET_KEY, PUBLIC_KEY, http_client=http_client) as paynexus,
    ):
        await paynexus.initiate_payment(100, "0746990866")
        now[0] += 120
        await paynexus.initiate_payment(200, "0746990866")

        async def amounts(day: int) -> list[Any]:
            days = {"from_date": date(2026, 1, day), "to_date": date(2026, 1, day)}
            return [payment.amount async for payment in paynexus.list_payments(**days)]

        assert await amounts(27) == [100]
        assert await amounts(28) == [200]


def read(*items: dict[str, Any], **pagination: Any) -> Page:
    body = json.dumps({"success": True, "data": items, "pagination": pagination}).encode()
    response = APIResponse(status_code=200, headers={}, body=body)
    return read_page(list_call(Listing(), 1), response, 1)


def test_a_page_of_a_hundred_payments_is_not_too_large():
    """Its values are counted before it is decoded; a thousand short ones are the most."""
    full = {f"field_{number}": number for number in range(30)}
    page = read(*(item(n, **full) for n in range(100)))
    assert len(page.payments) == 100
    assert isinstance(page.payments[0], Payment)
    assert page.response.status_code == 200
    assert len(read(*[{"status": "x"}] * 1_000).payments) == 1_000


@pytest.mark.parametrize(
    ("told", "total"),
    [(0, 0), ("0", 0), (999_999_999, 999_999_999), (1e9, None), (-1, None), (1.5, None)],
)
def test_a_total_is_a_whole_number_or_none_at_all(told, total):
    """What is no count of payments is not counted with."""
    assert read(total=told).total == total


def test_why_an_item_cannot_be_read_is_the_cause():
    """For whoever reads the traceback."""
    with pytest.raises(APIResponseError) as caught:
        read(item(1, amount="many"))
    assert isinstance(caught.value.__cause__, ValueError)
