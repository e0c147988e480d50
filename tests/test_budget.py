"""Who calls next: by urgency, by what a look is worth, and nobody never."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import anyio
import pytest

from paynexus_async import ClientStateError, QuotaExhaustedError, _budget
from paynexus_async._agenda import Agenda
from paynexus_async._budget import STARVING_SECONDS, Budget
from paynexus_async._quota import Plan, Quota, Urgency
from paynexus_async._tasks import OwnedTasks, Signal

from .fakes import CHECKOUT_ID, PHONE, REFERENCE, FakeServer, initiated, refusal, status

pytestmark = pytest.mark.anyio


class Look:
    """A look that is worth what the test says."""

    def __init__(self, name: str, worth: float, age: float, granted: list[str]) -> None:
        self.requested_at: float | None = None
        self.name = name
        self.age_seen = age
        self.is_heard_of = False
        self._worth = worth
        self._granted = granted

    def worth(self, now: float) -> float:
        return self._worth

    def permitted(self) -> None:
        self._granted.append(self.name)


class World:
    """A budget by itself."""

    def __init__(self, reads: int = 1, **plan: int) -> None:
        self.tasks = OwnedTasks()
        self.agenda = Agenda(self.tasks)
        quota = Quota(Plan(**plan), reserves=False)
        self.granted: list[str] = []
        self.budget = Budget(
            reading=quota,
            initiating=quota,
            reads_max=reads,
            initiates_max=1,
            now=self.tasks.now,
            agenda=lambda: self.agenda,
        )

    def look(self, name: str, worth: float, age: float = 10.0) -> Look:
        look = Look(name, worth, age, self.granted)
        self.budget.request(look)
        return look

    async def call(self, name: str, urgency: Urgency, deadline: float = 1e9) -> None:
        assert await self.budget.enter(urgency, deadline)
        self.granted.append(name)

    def done(self, urgency: Urgency = Urgency.CALL) -> None:
        self.budget.count(urgency, None, answered=True)
        self.budget.leave(urgency)


async def test_the_more_urgent_goes_first():
    """An initiate, a single call, the best look, a bulk check: in whatever order they came."""
    world = World()
    await world.call("first", Urgency.CALL)
    async with anyio.create_task_group() as group:
        group.start_soon(world.call, "bulk", Urgency.BULK)
        await anyio.wait_all_tasks_blocked()
        world.look("dull", 1.0, age=2)
        world.look("keen", 3.0, age=10)
        world.look("fair", 2.0, age=50)
        gone = world.look("gone", 9.0, age=90)
        gone.requested_at = None
        group.start_soon(world.call, "call", Urgency.CALL)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(world.call, "another", Urgency.CALL)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(world.call, "initiate", Urgency.INITIATE)
        for _ in range(6):
            await anyio.wait_all_tasks_blocked()
            world.done()
    assert world.granted == ["first", "initiate", "call", "another", "keen", "fair", "dull", "bulk"]


async def test_of_two_seen_at_the_same_age_the_one_seen_longer_ago_goes_first():
    """It is worth more; only the first of a kind is compared with other kinds."""
    world = World()
    await world.call("first", Urgency.CALL)
    for name in ("a", "b", "c"):
        world.look(name, 1.0)
    for _ in range(3):
        world.done()
    assert world.granted == ["first", "a", "b", "c"]


async def test_a_call_goes_at_once_past_a_look_that_is_paced():
    """A look waits for the key's pace; a single call does not, and the look stays in its place."""
    world = World(reads=9, minute=6)
    await world.call("first", Urgency.CALL)
    world.done()
    for name in "abc":
        world.look(name, 1.0)
    paced = world.granted[1:]
    assert len(paced) < 3
    await world.call("call", Urgency.CALL, world.tasks.now())
    assert world.granted == ["first", *paced, "call"]


async def test_a_deadline_that_has_passed_is_not_a_quota_that_is_spent():
    """A retry may wake a little late; with every connection busy, that alone is to be said."""
    world = World()
    await world.call("first", Urgency.CALL)
    assert not await world.budget.enter(Urgency.CALL, world.tasks.now() - 0.001)
    world.done()


async def test_nobody_starves():
    """After half a minute a look or a check goes before all others, oldest first."""
    world = World()
    await world.call("first", Urgency.CALL)
    async with anyio.create_task_group() as group:
        world.look("worthless", 0.0, age=50)
        await anyio.sleep(1)
        group.start_soon(world.call, "bulk", Urgency.BULK)
        await anyio.sleep(STARVING_SECONDS)
        for n in range(3):
            world.look(f"precious {n}", 9.0, age=5)
        for _ in range(4):
            world.done()
            await anyio.wait_all_tasks_blocked()
    assert world.granted == [
        "first",
        "worthless",
        "bulk",
        "precious 0",
        "precious 1",
    ]


async def test_no_look_waits_longer_than_the_bound():
    """With n waiting and r calls a second: 30 s + n / r."""
    world = World(minute=60)
    rate, count, waited = 1.0, 90, []

    class Timed(Look):
        def permitted(self) -> None:
            waited.append(world.tasks.now() - self.at)
            world.done(Urgency.LOOK)

    for n in range(count):
        look = Timed(str(n), float(n % 7), 3.0 * (n % 20), [])
        look.at = world.tasks.now()
        world.budget.request(look)
    await anyio.sleep(300)
    assert len(waited) == count
    assert max(waited) <= STARVING_SECONDS + count / rate
    await world.tasks.close(0)


async def test_a_quota_that_is_spent_is_said_at_once():
    """Nothing was sent; when it may be is said too."""
    world = World(minute=2)
    for name in ("a", "b"):
        await world.call(name, Urgency.CALL)
        world.done()
    started = anyio.current_time()
    with pytest.raises(QuotaExhaustedError, match=r"nothing was sent.*in 6[01] s") as caught:
        await world.budget.enter(Urgency.CALL, started + 30)
    assert anyio.current_time() == started
    assert 60 <= caught.value.retry_after <= 61
    assert await world.budget.enter(Urgency.CALL, started + 90)
    assert 60 <= anyio.current_time() - started <= 61
    await world.tasks.close(0)


async def test_a_connection_that_does_not_become_free_ends_the_waiting():
    """At the deadline; and whoever is cancelled leaves his place to the next."""
    world = World()
    await world.call("first", Urgency.CALL)
    assert not await world.budget.enter(Urgency.CALL, anyio.current_time() + 5)
    async with anyio.create_task_group() as group:
        with anyio.move_on_after(1):
            await world.budget.enter(Urgency.CALL, 1e9)
        group.start_soon(world.call, "next", Urgency.CALL)
        await anyio.wait_all_tasks_blocked()
        world.done()
    assert world.granted == ["first", "next"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # nothing else cancels who is awake already
@pytest.mark.parametrize("urgency", [Urgency.CALL, Urgency.INITIATE])
async def test_a_permit_for_somebody_who_has_just_been_cancelled_goes_to_the_next(
    anyio_backend, urgency
):
    """It is given back, to the quota too."""
    world = World(minute=2)
    await world.call("first", urgency)
    cancelled = asyncio.create_task(world.call("cancelled", urgency))
    await anyio.wait_all_tasks_blocked()
    world.done(urgency)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    await world.call("next", urgency, deadline=world.tasks.now() + 1)
    assert world.granted == ["first", "next"]


class Alarms:
    """An agenda that only notes what it was asked for."""

    def __init__(self) -> None:
        self.set_for: list[float] = []

    def put(self, item: Any, at: float) -> None:
        item.at = at
        self.set_for.append(at)


async def test_a_look_starves_after_half_a_minute_and_not_before():
    """Then the one that has waited longest goes, whatever the others are worth."""
    looks = _budget._Looks()
    for moment, worth in enumerate((0.0, 9.0, 1.0)):
        looks.add(Look(str(moment), worth, 5.0 * moment, []), float(moment))
    firsts = [looks.first(moment) for moment in (3.0, 29.9, 30.0, 31.0, 99.0)]
    assert [look and look.name for look in firsts] == ["1", "1", "0", "0", "0"]


def test_looks_stand_in_about_twenty_queues_and_those_never_seen_in_one_of_their_own():
    """However many there are: only the first of each is compared."""
    shelves = {_budget._shelf(tenths / 10) for tenths in range(1_200)}
    assert 15 <= len(shelves) <= 20
    assert _budget._shelf(-1.0) not in shelves


async def test_a_look_that_goes_waits_no_longer():
    """It may ask again at once."""
    world = World()
    look = world.look("one", 1.0)
    assert (world.granted, look.requested_at) == (["one"], None)


@pytest.mark.parametrize(
    ("look_after", "served_after", "granted"),
    [
        (1.0, 2.0, ["look", "bulk"]),
        (1.0, 31.0, ["bulk", "look"]),
        (0.0, 31.0, ["look", "bulk"]),
    ],
)
async def test_a_bulk_check_goes_before_a_look_only_when_it_starves(
    look_after, served_after, granted
):
    """And has waited longer."""
    world = World()
    await world.call("first", Urgency.CALL)
    async with anyio.create_task_group() as group:
        group.start_soon(world.call, "bulk", Urgency.BULK)
        await anyio.wait_all_tasks_blocked()
        await anyio.sleep(look_after)
        world.look("look", 1.0)
        await anyio.sleep(served_after - look_after)
        for _ in range(2):
            world.done()
            await anyio.wait_all_tasks_blocked()
    assert world.granted == ["first", *granted]


@pytest.mark.parametrize("urgency", [Urgency.CALL, Urgency.INITIATE])
@pytest.mark.parametrize("way", ["leave", "give back"])
async def test_each_place_that_becomes_free_is_one_place_more(urgency, way):
    """For reads and for initiates, each their own; a place given back no other than one left."""
    places = {Urgency.CALL: 3, Urgency.INITIATE: 1}
    world = World(reads=3)

    async def places_free(of: Urgency) -> int:
        free = 0
        while await world.budget.enter(of, world.tasks.now()):
            free += 1
        return free

    def make_free(of: Urgency) -> None:
        if way == "leave":
            world.done(of)
        else:
            world.budget.give_back(of)

    for _ in range(2):
        assert await places_free(urgency) == places[urgency]
        for _ in range(places[urgency]):
            make_free(urgency)
    assert {of: await places_free(of) for of in places} == places


async def test_a_call_without_an_answer_counts():
    """The server may have counted it."""
    world = World(minute=1)
    await world.call("lost", Urgency.CALL)
    world.budget.count(Urgency.CALL, None, answered=False)
    world.budget.leave(Urgency.CALL)
    with pytest.raises(QuotaExhaustedError):
        await world.budget.enter(Urgency.CALL, world.tasks.now() + 30)


async def test_whoever_waits_when_it_closes_gets_no_permit():
    """And is told so, as at his deadline."""
    world = World()
    await world.call("first", Urgency.CALL)
    permits: list[bool] = []

    async def enter(deadline: float) -> None:
        permits.append(await world.budget.enter(Urgency.CALL, deadline))

    async with anyio.create_task_group() as group:
        group.start_soon(enter, world.tasks.now() + 1)
        await anyio.sleep(2)
        group.start_soon(enter, 1e9)
        await anyio.wait_all_tasks_blocked()
        world.budget.close()
    assert permits == [False, False]
    assert all(type(permit) is bool for permit in permits)


async def test_whoever_comes_after_it_was_closed_is_sent_away_at_once():
    """He may have slept between two attempts; no timer is set for him, so no task is left."""
    world = World()
    await world.call("first", Urgency.CALL)
    world.budget.close()
    started = world.tasks.now()
    assert not await world.budget.enter(Urgency.CALL, started + 30)
    world.budget.count(Urgency.CALL, 60.0, answered=True)  # a 429: others would be let in later
    world.budget.leave(Urgency.CALL)
    assert not await world.budget.enter(Urgency.CALL, started + 30)
    assert anyio.current_time() == started
    assert not world.tasks._running


async def test_nobody_overtakes_one_whose_time_has_come_at_this_very_moment():
    """Whoever comes between the moment and the alarm stands behind him."""
    world = World(reads=9, minute=1)
    world.budget._agenda = Alarms  # type: ignore[assignment]  # which never go off
    await world.call("first", Urgency.CALL)
    world.done()
    async with anyio.create_task_group() as group:
        group.start_soon(world.call, "waiting", Urgency.CALL)
        await anyio.sleep(61)
        assert not await world.budget.enter(Urgency.CALL, world.tasks.now() + 1)
    assert world.granted == ["first", "waiting"]


async def test_an_alarm_is_set_once_for_the_next_call_that_the_quota_allows():
    """And none where nobody waits for it."""
    world = World(reads=9, minute=1)
    alarms = Alarms()
    world.budget._agenda = lambda: alarms  # type: ignore[assignment,return-value]
    assert world.budget.at == math.inf
    await world.call("first", Urgency.CALL)
    world.done()
    assert alarms.set_for == []
    one, another = world.look("one", 1.0), world.look("another", 2.0)
    (due_at,) = alarms.set_for
    assert 60 <= due_at - world.tasks.now() <= 61
    one.requested_at = another.requested_at = None
    world.budget.due(world.tasks.now())
    assert alarms.set_for == [due_at]


async def test_a_signal_that_came_first_is_not_waited_for():
    """Who comes late is not told twice."""
    signal = Signal()
    signal.set()
    with anyio.fail_after(1):
        await signal


async def test_many_items_of_an_agenda_leave_others_their_turn():
    """A hundred at a time; dropped ones are swept away."""
    tasks = OwnedTasks()
    agenda = Agenda(tasks)
    done: list[float] = []

    class Item:
        at = float("inf")

        def due(self, now: float) -> None:
            done.append(now)

    items = [Item() for _ in range(3_000)]
    for n, item in enumerate(items):
        agenda.put(item, tasks.now() + 1 + n % 2)
    for item in items[:2_500]:
        agenda.drop(item)
        agenda.drop(item)
    assert len(agenda._heap) <= 500 + 1_000
    agenda.put(items[0], tasks.now() + 0.5)  # earlier than all that it sleeps for
    turns = 0
    await anyio.sleep(0.9)
    assert len(done) == 1
    agenda.put(items[1], tasks.now())
    await anyio.sleep(0.1)
    while len(done) < 502:
        turns += 1
        await anyio.sleep(0 if turns % 5 else 0.5)
    assert turns >= 5
    await anyio.sleep(1)
    assert len(done) == 502
    assert agenda._moved is None  # nothing to do: no task
    await tasks.close(0)


# --- Through the client


async def test_a_429_pauses_everybody_once(server: FakeServer):
    """The waits, the single calls and the bulk: and when it is over, one goes first."""
    server.answers(refusal(429, headers={"Retry-After": "30"}), status("completed"))
    async with server.client(max_retries=0) as paynexus, anyio.create_task_group() as group:
        started = anyio.current_time()
        group.start_soon(paynexus.wait_for_completion, REFERENCE)
        await anyio.wait_all_tasks_blocked()

        async def bulk() -> None:
            assert [r.error async for r in paynexus.check_payments([REFERENCE, CHECKOUT_ID])]

        group.start_soon(bulk)
        with pytest.raises(QuotaExhaustedError) as caught:
            await paynexus.get_payment_status(REFERENCE, timeout=10)
        assert 0 < caught.value.retry_after <= 30
        assert len(server.requests) == 1
    assert all(moment - started >= 30 for moment in server.times[1:])


async def test_the_headers_of_any_answer_teach_the_budget(server: FakeServer):
    """Without a plan: the server's own word is enough."""
    spent = {
        "X-RateLimit-Limit": "60",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": "1769508000",
        "Date": "Tue, 27 Jan 2026 09:59:30 GMT",
    }
    server.answers(refusal(404, headers=spent))
    async with server.client() as paynexus:
        with pytest.raises(Exception, match="404"):
            await paynexus.get_payment_status(REFERENCE)
        with pytest.raises(QuotaExhaustedError, match="in 31 s"):
            await paynexus.get_payment_status(REFERENCE, timeout=5)
        server.answers(initiated())  # with another key, which has its own quota
        assert (await paynexus.initiate_payment(100, PHONE)).reference == REFERENCE


async def test_with_one_key_a_spent_quota_refuses_an_initiate_before_it_is_sent(
    server: FakeServer,
):
    """Nothing was sent, and the way is free for the next try."""
    server.answers(initiated(), initiated(amount=200))
    async with server.client(public_key=None, plan={"minute": 1}) as paynexus:
        await paynexus.initiate_payment(100, PHONE)
        with pytest.raises(QuotaExhaustedError, match="nothing was sent"):
            await paynexus.initiate_payment(200, PHONE, timeout=5)
        await anyio.sleep(61)
        await paynexus.initiate_payment(200, PHONE)
    assert server.initiates == 2


async def test_closing_the_client_sends_away_who_waits_for_a_permit(server: FakeServer):
    """At once, and says why."""
    server.answers(status("processing"))
    async with server.client(plan={"minute": 1}) as paynexus:
        await paynexus.get_payment_status(REFERENCE)

        async def one(timeout: float) -> None:
            with pytest.raises(ClientStateError, match="closed"):
                await paynexus.get_payment_status(REFERENCE, timeout=timeout)

        async with anyio.create_task_group() as group:
            group.start_soon(one, 100.0)
            await anyio.sleep(1)
            started = anyio.current_time()
            await paynexus.aclose()
        assert anyio.current_time() == started


def test_patience_has_a_name_or_a_price() -> None:
    """And nothing else."""
    prices: list[Any] = ["eager", "balanced", "thrifty", 0.5, 2]
    clients = [FakeServer().client(patience=price) for price in prices]
    assert [c._followers.schedule.price for c in clients] == [0.1, 0.25, 1.0, 0.5, 2.0]
    for wrong in ("slow", True, None, -1, float("nan")):
        with pytest.raises(Exception, match=r"patience|price"):
            FakeServer().client(patience=wrong)


async def test_what_was_heard_of_goes_before_all_other_looks_even_those_that_starve():
    """And before a bulk check that starves; but not before a single call."""
    world = World()
    await world.call("first", Urgency.CALL)
    async with anyio.create_task_group() as group:
        world.look("starving", 0.0, age=50)
        group.start_soon(world.call, "bulk", Urgency.BULK)
        await anyio.sleep(STARVING_SECONDS + 1)
        never_seen = world.look("never seen", 9.0, age=-1.0)
        heard = Look("heard of", 0.0, 50.0, world.granted)
        heard.is_heard_of = True
        world.budget.request(heard)
        group.start_soon(world.call, "call", Urgency.CALL)
        await anyio.wait_all_tasks_blocked()
        for _ in range(5):
            world.done()
            await anyio.wait_all_tasks_blocked()
    assert world.granted == ["first", "call", "heard of", "starving", "bulk", "never seen"]
    assert never_seen.requested_at is None


async def test_the_calls_left_are_told_for_each_key_that_was_used():
    """By its kind; of a key that does both, once; and of a closed client nothing."""
    world = World(minute=10)
    assert world.budget.calls_left() == {}
    await world.call("first", Urgency.CALL)
    world.done()
    assert world.budget.calls_left() == {"secret": 9}
    reading, initiating = (Quota(Plan(minute=limit), reserves=False) for limit in (20, 10))
    budget = Budget(
        reading=reading,
        initiating=initiating,
        reads_max=2,
        initiates_max=1,
        now=world.tasks.now,
        agenda=lambda: world.agenda,
    )
    assert await budget.enter(Urgency.CALL, 1e9)
    budget.count(Urgency.CALL, None, answered=True)
    budget.leave(Urgency.CALL)
    assert budget.calls_left() == {"public": 19}
    assert await budget.enter(Urgency.INITIATE, 1e9)
    budget.count(Urgency.INITIATE, None, answered=True)
    budget.leave(Urgency.INITIATE)
    assert budget.calls_left() == {"secret": 9, "public": 19}
    budget.close()
    assert budget.calls_left() == {}


async def test_a_429_to_an_initiate_pauses_the_key_that_initiates_and_no_other():
    """Who reads with a key of its own goes on."""
    world = World()
    budget = Budget(
        reading=Quota(Plan(minute=20), reserves=False),
        initiating=Quota(Plan(minute=10), reserves=False),
        reads_max=1,
        initiates_max=1,
        now=world.tasks.now,
        agenda=lambda: world.agenda,
    )
    assert await budget.enter(Urgency.INITIATE, 1e9)
    budget.count(Urgency.INITIATE, 30.0, answered=True)
    budget.leave(Urgency.INITIATE)
    assert await budget.enter(Urgency.CALL, world.tasks.now())
    with pytest.raises(QuotaExhaustedError):
        await budget.enter(Urgency.INITIATE, world.tasks.now() + 1)
