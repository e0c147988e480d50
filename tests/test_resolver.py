"""Finding the payment of a prompt whose answer was lost: found, none, or it cannot be told."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import anyio
import httpx
import pytest

from paynexus_async import (
    AsyncPayNexus,
    Attempt,
    DuplicatePaymentError,
    Expectation,
    InvalidRequestError,
    NoPaymentFound,
    NotFoundError,
    Payment,
    PaymentFound,
    PaymentMismatchError,
    PaymentOutcomeUnknown,
    PaymentStatus,
    PaymentStillUnknown,
    QuotaExhaustedError,
    _prompts,
    _resolver,
    client,
)

from .fakes import PHONE, FakeServer, answer, initiated, refusal, status

pytestmark = pytest.mark.anyio

EPOCH = datetime(2026, 1, 27, 7, 17, 18, tzinfo=UTC)
LOST = httpx.ReadTimeout("lost")
WORDS = "Order #12345"


class Shop:
    """A server whose list shows what a test puts there, dated by the test's clock."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.began = anyio.current_time()
        self.items: list[dict[str, Any]] = []
        self.pages: list[Any] = []
        self.pagination: dict[str, int] | None = {"last_page": 1}
        self.dated = True

    @property
    def seconds(self) -> float:
        return anyio.current_time() - self.began

    def item(self, seconds: float = 0.0, **fields: Any) -> dict[str, Any]:
        """A payment that was made so many seconds after the test began."""
        made_at = EPOCH + timedelta(seconds=seconds)
        return {
            "reference": "PNXABC123DEF", "checkout_request_id": "ws_CO_1", "amount": "100.00",
            "phone": PHONE, "status": "initiated", "description": WORDS,
            "created_at": made_at.isoformat(timespec="seconds"), **fields,
        }  # fmt: skip

    def lists(self, *items: dict[str, Any]) -> None:
        self.items = list(items)
        self.server.answers(self.page)  # type: ignore[arg-type]

    def page(self, request: httpx.Request) -> httpx.Response:
        number = int(request.url.params["page"])
        items = self.pages[min(number, len(self.pages)) - 1] if self.pages else self.items
        if isinstance(items, httpx.Response):
            return httpx.Response(items.status_code, content=items.content)
        more = {} if self.pagination is None else {"pagination": self.pagination}
        date = format_datetime(EPOCH + timedelta(seconds=int(self.seconds)), usegmt=True)
        listed: Any = answer(
            headers={"Date": date} if self.dated else {}, success=True, data=items, **more
        )
        return listed

    async def lose(self, paynexus: AsyncPayNexus, words: str | None = WORDS, **options: Any) -> Any:
        """Initiate, and lose the answer."""
        script = self.server.script
        self.server.answers(LOST)
        with pytest.raises(PaymentOutcomeUnknown) as caught:
            await paynexus.initiate_payment(100, "0746990866", words, **options)
        self.server.script = script
        return caught.value


async def test_a_payment_is_found_and_belongs_to_the_client_from_then_on(server: FakeServer):
    """One call; an equal prompt is refused with its reference, and passes when it has ended."""
    async with server.client() as paynexus:
        shop = Shop(server)
        error = await shop.lose(paynexus)
        shop.lists(shop.item(1, reference="PNXOTHER", phone="254700000001"), shop.item())
        found = await paynexus.find_payment(error)
        assert isinstance(found, PaymentFound)
        assert (found.payment.reference, found.payment.status) == ("PNXABC123DEF", "initiated")
        assert shop.seconds < 1
        assert len(server.requests) == 2
        assert server.initiates == 1
        with pytest.raises(DuplicatePaymentError) as refused:
            await paynexus.initiate_payment(100, PHONE)
        assert refused.value.reference == "PNXABC123DEF"
        assert await paynexus.find_payment(error) == found  # without a call
        assert len(server.requests) == 2
        server.answers(status("completed", amount="7.00"))
        with pytest.raises(PaymentMismatchError):  # it is held to what was asked
            await paynexus.get_payment_status("PNXABC123DEF")
        server.answers(status("completed"))
        assert (await paynexus.wait_for_completion(found.payment)).succeeded
        shop.lists(shop.item(status="completed"))
        again = await paynexus.find_payment(error)  # over, and its own all the same
        assert isinstance(again, PaymentFound)
        assert again.payment.succeeded
        server.answers(initiated(reference="PNX2", checkout_request_id="ws_CO_2"))
        assert (await paynexus.initiate_payment(100, PHONE)).reference == "PNX2"


async def test_what_is_found_again_does_not_go_back(server: FakeServer):
    """It is told as it stands, although the last answer was an old one."""
    async with server.client() as paynexus:
        shop = Shop(server)
        error = await shop.lose(paynexus)
        shop.lists(shop.item())
        assert isinstance(await paynexus.find_payment(error), PaymentFound)
        for told in ("processing", "initiated"):
            server.answers(status(told))
            assert (await paynexus.get_payment_status("PNXABC123DEF")).status == "processing"
        again = await paynexus.find_payment(error)
        assert isinstance(again, PaymentFound)
        assert again.payment.status == "processing"


async def test_none_is_said_late_and_lets_no_second_prompt_pass(server: FakeServer):
    """After fifteen seconds, three calls in all; the request may still arrive."""
    async with server.client() as paynexus:
        shop = Shop(server)
        error = await shop.lose(paynexus)
        shop.lists(shop.item(amount="7.00"), shop.item(phone="254700000001"))
        resolution = await paynexus.find_payment(error)
        assert isinstance(resolution, NoPaymentFound)
        assert shop.seconds == pytest.approx(15, abs=0.5)
        assert len(server.requests) == 1 + 3
        assert resolution.seen_from < EPOCH < resolution.seen_to
        assert resolution.seen_to == EPOCH + timedelta(seconds=int(shop.seconds))
        assert "KES 100 from 2547*****866 made from 07:17:1" in resolution.reason
        assert "can still arrive late" in resolution.reason
        with pytest.raises(DuplicatePaymentError, match=r"find_payment\(\)"):
            await paynexus.initiate_payment(100, PHONE)
        await anyio.sleep(60)
        assert isinstance(await paynexus.find_payment(error), NoPaymentFound)
        assert len(server.requests) == 1 + 3 + 1


async def test_a_list_that_lags_is_looked_at_again(server: FakeServer):
    """Until the payment is there."""
    async with server.client() as paynexus:
        shop = Shop(server)
        error = await shop.lose(paynexus)
        found_from = anyio.current_time() + 8

        def page(request: httpx.Request) -> httpx.Response:
            shop.items = [shop.item()] if anyio.current_time() >= found_from else []
            return shop.page(request)

        server.answers(page)
        assert isinstance(await paynexus.find_payment(error), PaymentFound)
        assert shop.seconds == pytest.approx(15, abs=0.5)


async def test_too_early_is_not_none(server: FakeServer):
    """Where the time allowed ends before the server must have listed it."""
    async with server.client() as paynexus:
        shop = Shop(server)
        error = await shop.lose(paynexus)
        shop.lists()
        resolution = await paynexus.find_payment(error, timeout=8)
        assert isinstance(resolution, PaymentStillUnknown)
        assert "too early" in resolution.reason
        assert shop.seconds < 8


FOUND, NONE, UNKNOWN = PaymentFound, NoPaymentFound, PaymentStillUnknown
OTHER = {"reference": "PNX2", "checkout_request_id": "ws_CO_2"}
TABLE: list[tuple[str, type, list[dict[str, Any]]]] = [
    ("alone", FOUND, [{}]),
    ("in another spelling", FOUND, [{"phone": "+254 746 990 866", "amount": 100}]),
    ("ended already", FOUND, [{"status": "completed"}]),
    ("by its checkout request id", FOUND, [{"reference": None}]),
    ("with other blanks", FOUND, [{"description": " Order  #12345 "}]),
    ("without a description", FOUND, [{"description": None}]),
    ("with a masked phone", FOUND, [{"phone": "2547*****866"}]),
    ("seconds before, by another clock", FOUND, [{"at": -4}]),
    ("a minute later, held up", FOUND, [{"at": 60}]),
    ("beside another order", FOUND, [{}, {**OTHER, "description": "Order #7"}]),
    ("with a masked phone only", UNKNOWN, [{"phone": "2547*****866", "description": None}]),
    ("without an amount", UNKNOWN, [{"amount": None}]),
    ("without a phone", UNKNOWN, [{"phone": None}]),
    ("without a time", UNKNOWN, [{"created_at": None}]),
    ("without a name", UNKNOWN, [{"reference": None, "checkout_request_id": None}]),
    ("with a name that is none", UNKNOWN, [{"reference": "../x"}]),
    ("with nothing but a status", UNKNOWN, [
        dict.fromkeys(("amount", "phone", "created_at", "description", "checkout_request_id"))]),
    ("ten minutes before", UNKNOWN, [{"at": -600}]),
    ("ten minutes later", UNKNOWN, [{"at": 600}]),
    ("with another description", UNKNOWN, [{"description": "Order #7"}]),
    ("twice", UNKNOWN, [{}, OTHER]),
    ("once, and once without a description", UNKNOWN, [{}, {**OTHER, "description": None}]),
    ("once, and once without a phone", UNKNOWN, [{}, {**OTHER, "phone": None}]),
    ("of another amount", NONE, [{"amount": "100.50"}]),
    ("of another phone", NONE, [{"phone": "254746990867"}]),
    ("of another masked phone", NONE, [{"phone": "2547*****867"}]),
    ("another amount, and nothing else told", NONE, [
        {"amount": 7, "phone": None, "created_at": None, "description": None}]),
    ("hours before", NONE, [{"at": -7_200}]),
    ("hours later", NONE, [{"at": 7_200}]),
    ("minutes before, for another order", NONE, [{"at": -600, "description": "Order #7"}]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "kind", "items"), TABLE, ids=[row[0] for row in TABLE])
async def test_what_a_list_shows_decides(server: FakeServer, name, kind, items):
    """Never more than it proves."""
    async with server.client() as paynexus:
        shop = Shop(server)
        error = await shop.lose(paynexus)
        await anyio.sleep(20)
        shop.lists(*(shop.item(fields.pop("at", 0), **fields) for fields in copy.deepcopy(items)))
        resolution = await paynexus.find_payment(error)
        assert type(resolution) is kind
        assert PHONE not in repr(resolution)
        assert "746990866" not in repr(resolution)
        if isinstance(resolution, PaymentStillUnknown):
            assert len(resolution.candidates) == len(items)
            assert "dashboard" in resolution.reason
        assert len(server.requests) == 2  # time would not change it


async def test_in_a_list_that_has_descriptions_one_without_is_not_told(server: FakeServer):
    """It may be of a till beside, which asked the same customer for as much just before."""
    async with server.client() as paynexus:
        shop = Shop(server)
        error = await shop.lose(paynexus)
        bare, strange = shop.item(description=None), shop.item(**OTHER, amount=7)
        shop.lists(bare, strange)
        resolution = await paynexus.find_payment(error)
        assert isinstance(resolution, PaymentStillUnknown)
        assert [one.reference for one in resolution.candidates] == ["PNXABC123DEF"]
    async with server.client() as paynexus:
        shop = Shop(server)
        error = await shop.lose(paynexus, None)  # this one had none
        shop.lists(bare, strange)
        assert isinstance(await paynexus.find_payment(error), PaymentFound)


async def test_without_a_description_the_time_decides(server: FakeServer):
    """One payment like it is found; two are not told apart."""
    async with server.client() as paynexus:
        shop = Shop(server)
        error = await shop.lose(paynexus, None)
        shop.lists(shop.item(description="PayNexus payment"))
        assert isinstance(await paynexus.find_payment(error), PaymentFound)
        error = await shop.lose(paynexus, None, allow_duplicate=True)
        shop.lists(
            shop.item(),
            shop.item(**OTHER),
            shop.item(**{**OTHER, "reference": "PNX3", "checkout_request_id": None}),
        )
        assert isinstance(await paynexus.find_payment(error), PaymentStillUnknown)


async def test_of_two_the_one_that_is_another_prompts_is_not_it(server: FakeServer):
    """The client remembers what it was told, even of a payment that has ended."""
    async with server.client() as paynexus:
        shop = Shop(server)
        server.answers(initiated(), status("completed"))
        first = await paynexus.initiate_payment(100, PHONE, WORDS)
        await paynexus.get_payment_status(first)
        error = await shop.lose(paynexus)
        known = shop.item(checkout_request_id=None, status="completed")
        shop.lists(known)
        assert isinstance(await paynexus.find_payment(error), NoPaymentFound)
        shop.lists(shop.item(**OTHER), known)
        found = await paynexus.find_payment(error)
        assert isinstance(found, PaymentFound)
        assert found.payment.reference == "PNX2"


async def test_two_lost_prompts_do_not_share_a_payment(server: FakeServer):
    """Unless description or time tells whose it is, or the other's is known."""
    async with server.client() as paynexus:
        shop = Shop(server)
        first = await shop.lose(paynexus, "Order #1")
        second = await shop.lose(paynexus, "Order #2", allow_duplicate=True)
        shop.lists(shop.item(description=None))
        resolution = await paynexus.find_payment(second)
        assert isinstance(resolution, PaymentStillUnknown)
        assert "another prompt of this client" in resolution.reason
        shop.lists(shop.item(description="Order #2"))
        assert isinstance(await paynexus.find_payment(second), PaymentFound)
        assert isinstance(await paynexus.find_payment(first), NoPaymentFound)
        await anyio.sleep(8_000)
        third = await shop.lose(paynexus, "Order #1", allow_duplicate=True)
        shop.lists(shop.item(shop.seconds, **{**OTHER, "description": "Order #1"}))
        assert isinstance(await paynexus.find_payment(third), PaymentFound)


async def test_prompts_of_the_same_moment_are_told_apart(server: FakeServer, monkeypatch):
    """Another customer's, and another of the same customer, on a clock that stands still."""
    monkeypatch.setattr(client, "_utc_now", lambda: EPOCH)
    async with server.client() as paynexus:
        shop = Shop(server)
        server.answers(initiated(amount=200))
        await paynexus.initiate_payment(200, PHONE, WORDS)
        error = await shop.lose(paynexus)
        shop.lists(shop.item(amount="200.00"))
        assert isinstance(await paynexus.find_payment(error), NoPaymentFound)
        again = await shop.lose(paynexus, allow_duplicate=True)
        assert not again.attempt.is_that_of(error.attempt)


# --- How the list is read


async def test_a_page_that_fails_is_not_an_empty_one(server: FakeServer):
    """Nothing is said of what was not seen; what is wrong is told."""
    async with server.client(max_retries=0) as paynexus:
        shop = Shop(server)
        error = await shop.lose(paynexus)
        await anyio.sleep(20)
        shop.pagination = {"last_page": 2}
        shop.pages = [[shop.item(amount=7)], refusal(503)]
        shop.lists()
        resolution = await paynexus.find_payment(error, timeout=12)
        assert isinstance(resolution, PaymentStillUnknown)
        assert resolution.error is not None
        assert "HTTP 503" in resolution.reason
        assert len(server.requests) == 1 + 4  # looked at twice
        shop.pages = [[shop.item()], refusal(503)]  # there may be a second one
        assert isinstance(await paynexus.find_payment(error, timeout=1), PaymentStillUnknown)
        shop.pages = [refusal(404)]
        resolution = await paynexus.find_payment(error)
        assert isinstance(resolution, PaymentStillUnknown)
        assert isinstance(resolution.error, NotFoundError)


async def test_without_quota_it_cannot_be_told(server: FakeServer):
    """No exception in the middle of another one's handling."""
    async with server.client(plan={"hour": 1}, public_key=None) as paynexus:
        shop = Shop(server)
        error = await shop.lose(paynexus)
        shop.lists()
        resolution = await paynexus.find_payment(error)
        assert isinstance(resolution, PaymentStillUnknown)
        assert isinstance(resolution.error, QuotaExhaustedError)


async def test_a_list_that_is_newest_first_is_read_as_far_as_it_matters(server: FakeServer):
    """Past an hour before the prompt, however many pages there are."""
    async with server.client() as paynexus:
        shop = Shop(server)
        error = await shop.lose(paynexus)
        await anyio.sleep(20)
        shop.pagination = {"last_page": 5_000, "total": 500_000}
        shop.pages = [
            [shop.item(-10, reference="PNX9", amount=1, checkout_request_id=None)],
            [shop.item(-7_000, reference="PNX8", checkout_request_id=None)],
        ]
        shop.lists()
        assert isinstance(await paynexus.find_payment(error), NoPaymentFound)
        assert len(server.requests) == 1 + 2
        shop.pages[1] = [shop.item(-9, reference="PNX8"), shop.item(-7_000, reference="PNX7")]
        assert isinstance(await paynexus.find_payment(error), PaymentStillUnknown)


@pytest.mark.parametrize(
    ("pagination", "words"),
    [({"last_page": 5_000}, "not seen whole"), (None, "not seen whole"), ({"last_page": 1, "total": 3}, "it shows 1 payments of 3")],
    ids=["too long", "repeated", "fewer than it says"],
)  # fmt: skip
async def test_a_list_that_is_not_seen_whole_proves_nothing(server: FakeServer, pagination, words):
    """Too long and in no order, without an end, or with fewer payments than it says."""
    async with server.client() as paynexus:
        shop = Shop(server)
        error = await shop.lose(paynexus)
        await anyio.sleep(20)
        shop.pagination = pagination
        number = iter(range(1_000))

        def page(request: httpx.Request) -> httpx.Response:
            name = next(number) if pagination else 0
            shop.items = [
                shop.item(name, reference=f"PNX{name}", amount=7, checkout_request_id=None)
            ]
            return shop.page(request)

        server.answers(page)
        resolution = await paynexus.find_payment(error)
        assert isinstance(resolution, PaymentStillUnknown)
        assert words in resolution.reason
        assert len(server.requests) <= 1 + _resolver.PAGES_MAX


async def test_without_a_date_no_time_can_be_compared(server: FakeServer):
    """Neither is it found nor is there none."""
    async with server.client() as paynexus:
        shop = Shop(server)
        error = await shop.lose(paynexus)
        await anyio.sleep(20)
        shop.dated = False
        for items in ([], [shop.item()]):
            shop.lists(*items)
            assert isinstance(await paynexus.find_payment(error), PaymentStillUnknown)


async def test_the_servers_clock_counts(server: FakeServer):
    """However wrong this machine's is: the test's begins in 2026, the machine's today."""
    async with server.client() as paynexus:
        shop = Shop(server)
        await anyio.sleep(5_000)
        error = await shop.lose(paynexus)
        shop.lists(shop.item(5_000))
        assert isinstance(await paynexus.find_payment(error), PaymentFound)


# --- Which errors


async def test_a_duplicate_of_a_lost_prompt_finds_that(server: FakeServer):
    """Where the first error is nobody's any more; and while it is being sent, nothing is said."""
    async with server.client() as paynexus:
        shop = Shop(server)
        await shop.lose(paynexus)
        with pytest.raises(DuplicatePaymentError) as caught:
            await paynexus.initiate_payment(100, PHONE)
        shop.lists(shop.item())
        assert isinstance(await paynexus.find_payment(caught.value), PaymentFound)
        with pytest.raises(DuplicatePaymentError) as caught:
            await paynexus.initiate_payment(100, PHONE)
        assert caught.value.attempt is None
        with pytest.raises(InvalidRequestError, match="no prompt whose payment is unknown"):
            await paynexus.find_payment(caught.value)


async def test_while_a_prompt_is_being_sent_its_answer_is_awaited(server: FakeServer):
    """And when it has come, it is the payment; when it has ended, too."""
    server.latency_seconds = 3
    server.answers(initiated())
    async with server.client() as paynexus, anyio.create_task_group() as group:
        shop = Shop(server)
        group.start_soon(paynexus.initiate_payment, 100, PHONE, WORDS)
        await anyio.sleep(1)
        with pytest.raises(DuplicatePaymentError) as caught:
            await paynexus.initiate_payment(100, PHONE)
        resolution = await paynexus.find_payment(caught.value)
        assert isinstance(resolution, PaymentStillUnknown)
        assert "is being sent" in resolution.reason
        await anyio.sleep(3)
        assert isinstance(await paynexus.find_payment(caught.value), PaymentFound)
        assert len(server.requests) == 1
        server.answers(status("completed"))
        await paynexus.get_payment_status("PNXABC123DEF")
        shop.lists(shop.item())
        assert isinstance(await paynexus.find_payment(caught.value), PaymentFound)


async def test_a_prompt_that_is_tried_again_stays_the_same_one(server: FakeServer):
    """Whoever was refused beside its first try, or between two, finds what the last one brought."""
    server.latency_seconds = 3
    server.answers(httpx.ConnectError("refused"), initiated())
    async with server.client() as paynexus, anyio.create_task_group() as group:
        shop, errors = Shop(server), []
        group.start_soon(paynexus.initiate_payment, 100, PHONE, WORDS)
        for seconds in (1, 2.01, 1):
            await anyio.sleep(seconds)
            with pytest.raises(DuplicatePaymentError, match="is being sent") as caught:
                await paynexus.initiate_payment(100, PHONE)
            assert isinstance(await paynexus.find_payment(caught.value), PaymentStillUnknown)
            errors.append(caught.value)
        await anyio.sleep(3)
        assert len(server.requests) == 2
        server.latency_seconds = 0
        server.answers(status("completed"))
        await paynexus.get_payment_status("PNXABC123DEF")
        shop.lists(shop.item(3))
        for error in errors:
            found = await paynexus.find_payment(error)
            assert isinstance(found, PaymentFound)
            assert found.payment.reference == "PNXABC123DEF"


async def test_a_prompt_answered_about_another_payment_is_looked_for(server: FakeServer):
    """One that was sent for something else is known, and is followed instead."""
    server.answers(initiated(phone="254700000001"))
    async with server.client() as paynexus:
        shop = Shop(server)
        with pytest.raises(PaymentMismatchError) as caught:
            await paynexus.initiate_payment(100, PHONE, WORDS)
        shop.lists(shop.item(**OTHER), shop.item(phone="254700000001"))
        found = await paynexus.find_payment(caught.value)
        assert isinstance(found, PaymentFound)
        assert found.payment.reference == "PNX2"
        server.answers(initiated(amount=7, reference="PNX3", checkout_request_id="ws_CO_3"))
        with pytest.raises(PaymentMismatchError) as caught:
            await paynexus.initiate_payment(200, PHONE, WORDS)
        with pytest.raises(InvalidRequestError):
            await paynexus.find_payment(caught.value)


async def test_an_error_of_another_process_can_be_resolved(server: FakeServer):
    """It carries what the search needs; the finder then knows the prompt as its own."""
    async with server.client() as paynexus:
        shop = Shop(server)
        error = pickle.loads(pickle.dumps(await shop.lose(paynexus)))
    attempt = error.attempt
    assert isinstance(attempt, Attempt)
    assert (attempt.amount, attempt.phone, attempt.description) == (100, PHONE, WORDS)
    assert attempt.lost_at is not None
    assert datetime.now(UTC) - timedelta(minutes=5) < attempt.sent_at <= attempt.lost_at
    assert "746990866" not in repr(attempt)
    async with server.client() as paynexus:
        shop.lists(shop.item(-20))
        assert isinstance(await paynexus.find_payment(error, timeout=1), PaymentStillUnknown)
        shop.lists(shop.item())
        assert isinstance(await paynexus.find_payment(error), PaymentFound)
        with pytest.raises(DuplicatePaymentError):
            await paynexus.initiate_payment(100, PHONE)
        assert server.initiates == 1


@pytest.mark.parametrize(
    ("words", "found", "kind"),
    [
        ((None, None), None, PaymentStillUnknown),
        ((WORDS, WORDS), WORDS, PaymentStillUnknown),
        ((WORDS, "Order #2"), None, PaymentStillUnknown),
        ((WORDS, "Order #2"), WORDS, NoPaymentFound),
        ((WORDS, None), WORDS, NoPaymentFound),
    ],
)
async def test_what_was_found_for_one_may_be_that_of_another_met_later(
    server: FakeServer, words, found, kind
):
    """Two prompts of a client that is gone: what was found for the first is in doubt.

    Only the description tells that a payment is the first one's, and not the second's.
    """
    shop = Shop(server)
    async with server.client() as paynexus:
        first = await shop.lose(paynexus, words[0])
        second = await shop.lose(paynexus, words[1], allow_duplicate=True)
    async with server.client() as paynexus:
        shop.lists(shop.item(description=found))
        assert isinstance(await paynexus.find_payment(first), PaymentFound)
        resolution = await paynexus.find_payment(second)
        assert isinstance(resolution, kind)


@pytest.mark.parametrize("words", [None, WORDS])
async def test_two_prompts_of_a_client_that_is_gone_are_not_told_apart(server: FakeServer, words):
    """What was taken for the first one's may be the second's: the other is not the only one."""
    shop = Shop(server)
    async with server.client() as paynexus:
        first = await shop.lose(paynexus, words)
        second = await shop.lose(paynexus, words, allow_duplicate=True)
    async with server.client() as paynexus:
        shop.lists(shop.item(description=words))
        found = await paynexus.find_payment(first)
        other = shop.item(1, reference="PNX2", checkout_request_id="ws_CO_2", description=words)
        shop.lists(other, *shop.items)
        resolution = await paynexus.find_payment(second)
        assert isinstance(resolution, PaymentStillUnknown)
        assert {p.reference for p in resolution.candidates} == {"PNX2", "PNXABC123DEF"}
        assert await paynexus.find_payment(first) == found


async def test_what_was_found_is_not_that_of_a_prompt_sent_later(server: FakeServer):
    """It was there before that one was sent: the client that sends both knows."""
    async with server.client() as paynexus:
        shop = Shop(server)
        first = await shop.lose(paynexus)
        shop.lists(shop.item(status="failed"))
        assert isinstance(await paynexus.find_payment(first), PaymentFound)
        second = await shop.lose(paynexus)
        shop.lists(shop.item(1, reference="PNX2", checkout_request_id="ws_CO_2"), *shop.items)
        found = await paynexus.find_payment(second)
        assert isinstance(found, PaymentFound)
        assert found.payment.reference == "PNX2"


async def test_what_a_client_was_told_is_not_that_of_another_met_later(server: FakeServer):
    """The answer to a prompt says whose payment it is: then it is nobody else's."""
    shop = Shop(server)
    async with server.client() as paynexus:
        error = await shop.lose(paynexus)
    async with server.client() as paynexus:
        server.answers(initiated())
        told = await paynexus.initiate_payment(100, PHONE, WORDS)
        shop.lists(
            shop.item(reference=told.reference, checkout_request_id=told.checkout_request_id)
        )
        assert isinstance(await paynexus.find_payment(error), NoPaymentFound)


async def test_what_was_found_and_contradicts_a_caller_is_not_said(server: FakeServer):
    """Somebody had brought another amount for it."""
    async with server.client() as paynexus:
        shop = Shop(server)
        error = await shop.lose(paynexus)
        wrong = Payment(
            reference="PNXABC123DEF",
            amount=7,
            status=PaymentStatus.PROCESSING,
            status_text="processing",
        )
        with pytest.raises(PaymentMismatchError):
            server.answers(status("completed"))
            await paynexus.get_payment_status(wrong)
        paynexus._followers._meet(Expectation.of(wrong), wrong)
        shop.lists(shop.item(status="completed"))
        resolution = await paynexus.find_payment(error)
        assert isinstance(resolution, PaymentStillUnknown)
        assert isinstance(resolution.error, PaymentMismatchError)
        assert len(resolution.candidates) == 1


@pytest.mark.parametrize(
    "resolution",
    [
        PaymentFound(payment=Payment(status=PaymentStatus.INITIATED, status_text="initiated")),
        NoPaymentFound(seen_from=EPOCH, seen_to=EPOCH, reason="none"),
        PaymentStillUnknown(reason="two"),
    ],
)
async def test_a_resolution_is_neither_true_nor_false(resolution):
    """`if resolution:` would take two of the three for one."""
    with pytest.raises(TypeError, match="one of three kinds"):
        bool(resolution)


async def test_the_memory_of_names_is_bounded(server: FakeServer, monkeypatch):
    """The oldest are forgotten."""
    monkeypatch.setattr(_prompts, "_NAMES_REMEMBERED_MAX", 4)
    async with server.client() as paynexus:
        for number in range(5):
            server.answers(
                initiated(
                    reference=f"PNX{number}",
                    checkout_request_id=f"ws_CO_{number}",
                    amount=1 + number,
                )
            )
            await paynexus.initiate_payment(1 + number, PHONE)
        assert list(paynexus._prompts._owners) == ["PNX3", "ws_CO_3", "PNX4", "ws_CO_4"]
