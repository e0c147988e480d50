"""Many payments side by side: lazily, bounded, one result for each, nothing left behind."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from paynexus_async import (
    AsyncPayNexus,
    BulkProgress,
    ClientStateError,
    ConfigurationError,
    InvalidRequestError,
    NotFoundError,
    Payment,
    PaymentResult,
    PaymentStatus,
    PaymentStillPending,
    PayNexusError,
)
from paynexus_async._transport import _POOL_CONNECTIONS_MAX as CONNECTIONS_MAX

from .fakes import (
    CHECKOUT_ID,
    PHONE,
    PUBLIC_KEY,
    REFERENCE,
    SECRET_KEY,
    FakeServer,
    data,
    refusal,
    status,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.anyio


class Echo:
    """A server that knows every payment; each is over at its own time."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.under_way = self.most_under_way = 0
        self.seconds: dict[str, float] = {}
        self.ends: dict[str, float] = {}
        self.failures: dict[str, list[httpx.Response | Exception]] = {}

    def client(self, **options: Any) -> AsyncPayNexus:
        http = httpx.AsyncClient(transport=httpx.MockTransport(self.handle))
        return AsyncPayNexus(SECRET_KEY, PUBLIC_KEY, http_client=http, **options)

    async def handle(self, request: httpx.Request) -> httpx.Response:
        name = request.url.path.rsplit("/", 1)[-1]
        fields = {"reference": name}
        if request.method == "POST":
            name = json.loads(request.content)["checkout_request_id"]
            fields = {"checkout_request_id": name}
        self.asked.append(name)
        self.under_way += 1
        self.most_under_way = max(self.under_way, self.most_under_way)
        try:
            await anyio.sleep(self.seconds.get(name, 0.1))
        finally:
            self.under_way -= 1
        if self.failures.get(name):
            failure = self.failures[name].pop(0)
            if isinstance(failure, Exception):
                raise failure
            return failure
        over = anyio.current_time() >= self.ends.get(name, 0.0)
        answer = data(**fields, status="completed" if over else "processing")
        assert isinstance(answer, httpx.Response)
        return answer


def names(count: int) -> list[str]:
    return [f"PNX{number:06d}" for number in range(count)]


async def test_each_item_has_one_result_as_they_come():
    """However many there are, and never more under way than there are connections."""
    server = Echo()
    async with server.client() as paynexus:
        results = [result async for result in paynexus.check_payments(names(500))]
    assert sorted(str(result.asked) for result in results) == names(500)
    assert all(result.unwrap().reference == result.asked for result in results)
    assert server.most_under_way == CONNECTIONS_MAX
    assert len(server.asked) == 500


async def test_results_may_keep_the_order_of_the_items():
    """Also where one of the first is the slowest."""
    server = Echo()
    server.seconds = {"PNX000001": 5.0}
    async with server.client() as paynexus:
        unordered = [r.asked async for r in paynexus.check_payments(names(30))]
        ordered = [r.asked async for r in paynexus.check_payments(names(30), ordered=True)]
    assert unordered[-1] == "PNX000001"
    assert ordered == names(30)


async def test_one_items_error_is_its_own():
    """Whatever it is: refused here, unknown there, or a passing one that does not pass."""
    server = Echo()
    server.failures = {
        "PNX000003": [refusal(404)],
        "PNX000004": [httpx.ReadError("cut")],
        "PNX000005": [refusal(500)] * 9,
    }
    items = ["", *names(6), CHECKOUT_ID, "../admin"]
    async with server.client() as paynexus:
        results = {r.asked: r async for r in paynexus.check_payments(items)}
    assert len(results) == len(items)
    assert isinstance(results[""].error, InvalidRequestError)
    assert isinstance(results["../admin"].error, InvalidRequestError)
    assert isinstance(results["PNX000003"].error, NotFoundError)
    assert results["PNX000004"].unwrap().succeeded
    assert results["PNX000005"].error is not None
    assert results[CHECKOUT_ID].unwrap().checkout_request_id == CHECKOUT_ID
    with pytest.raises(NotFoundError):
        results["PNX000003"].unwrap()
    with pytest.raises(PayNexusError):
        PaymentResult(asked="x").unwrap()


async def test_an_item_that_is_nothing_is_an_error_and_not_the_end():
    """A row of a table may lack its reference."""
    server = Echo()
    items: list[Any] = ["PNX000000", None, 7, "PNX000001"]

    async def trickle() -> AsyncIterator[Any]:
        for item in items:
            yield item

    async with server.client() as paynexus:
        for source in (items, trickle()):
            results = [r async for r in paynexus.check_payments(source, ordered=True)]
            assert [r.asked for r in results] == items
            assert [isinstance(r.error, InvalidRequestError) for r in results] == [0, 1, 1, 0]


async def test_an_endless_iterable_is_taken_from_only_as_needed():
    """And closing early stops everything: nothing more is sent, nobody stays behind."""
    server = Echo()
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield f"PNX{taken:06d}"

    async with server.client() as paynexus:
        async with aclosing(paynexus.check_payments(endless())) as results:
            async for _ in results:
                break
        await anyio.sleep(1)
        asked = len(server.asked)
        await anyio.sleep(60)
        assert len(server.asked) == asked <= 2 * CONNECTIONS_MAX
        assert taken <= 3 * CONNECTIONS_MAX
        assert not paynexus._transport._tasks._running


async def test_a_slow_reader_holds_everything_up():
    """What nobody reads is not fetched ahead of him for ever."""
    server = Echo()
    paynexus = server.client()
    async with paynexus, aclosing(paynexus.check_payments(names(1000))) as results:
        await anext(results)
        await anyio.sleep(600)
        assert len(server.asked) <= 5 * CONNECTIONS_MAX
        assert len([r async for r in results]) == 999
    assert len(server.asked) == 1000


async def test_items_may_come_from_anywhere():
    """From an async iterable, at its pace; payments and checkout ids among them."""
    echo = Echo()

    async def trickle() -> AsyncIterator[Any]:
        for name in names(3):
            await anyio.sleep(10)
            yield name
        yield CHECKOUT_ID

    async with echo.client() as paynexus:
        started = anyio.current_time()
        results = [r async for r in paynexus.check_payments(trickle())]
        assert anyio.current_time() - started < 32
        payments = [r.unwrap() for r in results]
        again = [r.unwrap() async for r in paynexus.check_payments(payments, concurrency=2)]
    assert {p.reference or p.checkout_request_id for p in again} == {*names(3), CHECKOUT_ID}


async def test_an_iterable_that_fails_ends_the_bulk_with_its_error():
    """It is the caller's own, and reaches him."""
    server = Echo()

    def broken() -> Iterator[str]:
        yield "PNX000000"
        raise ZeroDivisionError

    async with server.client() as paynexus:
        with pytest.raises(ZeroDivisionError):
            [r async for r in paynexus.check_payments(broken())]
        with pytest.raises(ZeroDivisionError):
            [r async for r in paynexus.wait_many(broken())]


async def test_leaving_a_bulk_early_stops_who_waits_for_the_next_item():
    """An iterable may take for ever."""
    server = Echo()

    async def slow() -> AsyncIterator[str]:
        yield "PNX0"
        await anyio.sleep_forever()

    async with server.client() as paynexus:
        async with aclosing(paynexus.check_payments(slow(), concurrency=3)) as results:
            assert (await anext(results)).payment is not None
        await anyio.wait_all_tasks_blocked()
        assert not paynexus._transport.enter()._running
    assert server.asked == ["PNX0"]


async def test_closing_the_client_ends_a_bulk_with_an_error():
    """Not as if all had been asked."""
    server = Echo()
    async with server.client() as paynexus:
        with pytest.raises(ClientStateError, match="closed before all"):
            async for _ in paynexus.check_payments(names(100)):
                await paynexus.aclose()


async def test_progress_is_told_now_and_then():
    """Done, failed, of how many, how fast, and how much longer."""
    server = Echo()
    server.failures = {"PNX000001": [refusal(404)]}
    seen: list[BulkProgress] = []
    async with server.client() as paynexus:
        async for _ in paynexus.check_payments(names(200), progress=seen.append):
            pass
        assert (seen[-1].done, seen[-1].failed, seen[-1].total) == (200, 1, 200)
        assert seen[-1].eta_seconds == 0
        half = next(p for p in seen if p.done >= 100)
        assert half.per_second == pytest.approx(100, rel=0.2)
        assert half.eta_seconds == pytest.approx(1, rel=0.3)
        assert 10 <= len(seen) <= 25
        seen.clear()
        async for _ in paynexus.check_payments(iter(names(20)), progress=seen.append):
            pass
        assert (seen[-1].total, seen[-1].eta_seconds) == (None, None)
        seen.clear()
        async for _ in paynexus.check_payments([], progress=seen.append):
            pass
        assert [(p.done, p.per_second, p.eta_seconds) for p in seen] == [(0, 0.0, None)]


async def test_a_number_of_calls_must_be_one():
    """Before anything is sent."""
    server = Echo()
    async with server.client() as paynexus:
        for wrong in (0, -1, True, 1.5):
            with pytest.raises(ConfigurationError, match="concurrency"):
                paynexus.check_payments([], concurrency=wrong)  # type: ignore[arg-type]


async def test_waiting_for_many_yields_each_as_it_ends():
    """And costs no task for any of them."""
    server = Echo()
    async with server.client() as paynexus:
        now = anyio.current_time()
        server.ends = {name: now + 10 * (9 - n) for n, name in enumerate(names(9))}
        ended = [r.unwrap().reference async for r in paynexus.wait_many(names(9))]
        assert ended[0] == "PNX000008"
        assert set(ended) == set(names(9))
        server.asked.clear()
        assert [r.asked for r in await paynexus.wait_for_all(names(9))] == names(9)
        assert server.asked == []  # all are known to have ended


async def test_waiting_for_all_keeps_the_order_and_every_error():
    """A payment that goes on, one that is unknown, and what is no payment, beside those that end."""
    server = Echo()
    server.failures = {"PNX000001": [refusal(404)] * 99}
    async with server.client() as paynexus:
        server.ends = {"PNX000002": anyio.current_time() + 1e6}
        items = ["no reference!", *names(4)]
        results = await paynexus.wait_for_all(items, max_wait=60)
        assert anyio.current_time() <= server.ends["PNX000002"] - 1e6 + 60.2
    assert [r.asked for r in results] == items
    assert [type(r.error) for r in results] == [
        InvalidRequestError,
        type(None),
        NotFoundError,
        PaymentStillPending,
        type(None),
    ]


async def test_leaving_a_wait_for_many_early_stops_all_of_them():
    """Nobody goes on asking."""
    server = Echo()
    async with server.client() as paynexus:
        now = anyio.current_time()
        server.ends = dict.fromkeys(names(50)[1:], now + 1000)
        async with aclosing(paynexus.wait_many(names(50), max_wait=900)) as results:
            assert (await anext(results)).asked == "PNX000000"
        await anyio.sleep(1)
        asked = len(server.asked)
        await anyio.sleep(500)
        assert len(server.asked) == asked
        assert not paynexus._followers._followed


async def test_closing_the_client_ends_a_wait_for_many_with_errors():
    """Each payment has its result: it has not failed."""
    server = Echo()
    async with server.client() as paynexus:
        server.ends = {name: anyio.current_time() + 1000 for name in names(5)}
        results: list[PaymentResult] = []

        async def wait() -> None:
            results.extend(await paynexus.wait_for_all(names(5)))

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.sleep(20)
            await paynexus.aclose()
    assert all(isinstance(result.error, ClientStateError) for result in results)
    assert len(results) == 5


async def test_a_bulk_under_a_quota_takes_what_the_quota_gives():
    """However long that is: no item fails for it, and no call is made too many."""
    echo = Echo()
    async with echo.client(plan={"minute": 60}, timeout=5) as paynexus:
        started = anyio.current_time()
        results = [r async for r in paynexus.check_payments(names(180))]
        assert all(result.error is None for result in results)
        assert 110 < anyio.current_time() - started < 185


async def test_a_gap_in_a_list_gets_its_result_and_hides_nothing(server: FakeServer):
    """References out of a database may be null; what comes after them is asked for all the same."""
    server.answers(status("completed"))

    async def drip() -> AsyncIterator[Any]:
        for item in (None, REFERENCE):
            yield item

    async with server.client() as paynexus:
        for items in ([None, REFERENCE], drip()):
            async with aclosing(paynexus.check_payments(items, ordered=True)) as results:
                gap, found = [result async for result in results]
            assert isinstance(gap.error, InvalidRequestError)
            assert found.unwrap().succeeded
        first, second = await paynexus.wait_for_all([None, REFERENCE])
    assert isinstance(first.error, InvalidRequestError)
    assert second.unwrap().succeeded


async def test_a_result_prints_no_phone():
    """A checkout request id ends in one."""
    result = PaymentResult(asked=CHECKOUT_ID)
    assert PHONE[3:] not in repr(result)
    assert "ws_CO_" in repr(result)
    payment = Payment(reference="254746990866X", status=PaymentStatus.FAILED, status_text="failed")
    assert f"asked={payment!r}" in repr(PaymentResult(asked=payment, payment=payment))
