"""An application and its customers: what they do with the client, and a record of each call."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from random import Random
from typing import TYPE_CHECKING, Any, Final

import anyio
import attrs
from tenacity import wait_fixed

from paynexus_async import (
    APIConnectionError,
    AsyncPayNexus,
    ClientStateError,
    DuplicatePaymentError,
    NoPaymentFound,
    Payment,
    PaymentFound,
    PaymentMismatchError,
    PaymentOutcomeUnknown,
    PaymentResult,
    PaymentUpdate,
    RateLimitError,
)
from paynexus_async.sandbox import SCENARIOS, Scenario, Step

from .network import ORIGIN, Origin

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from paynexus_async._transport import HTTPClient
    from paynexus_async.models import Expectation

    from .clock import Runtime
    from .network import Network
    from .oracle import Oracle
    from .server import Server

__all__ = ["PUBLIC_KEY", "SECRET_KEY", "Called", "Order", "Shop"]

SECRET_KEY: Final = "sk_live_Sim7uLat3dS3cr3tK3y"
PUBLIC_KEY: Final = "pk_live_Sim7uLat3dPubl1cK3y"
BASE_URL: Final = "http://127.0.0.1:1/api"
NO_SUCH: Final = (
    "PNXNOSUCHONE",
    "../etc/passwd",
    "",
    "254712345678",
    "ws_CO_000000000000000000000",
)


@attrs.define(eq=False)
class Order:
    """One customer who wants to pay.

    Attributes:
        policy: what the application does after an error of an initiate.
        style: how it follows the payment.
        finder: dice for what follows a lost answer.
        beside: when another till prompts the same phone, for how much, and with which words.
        again_after: seconds until somebody prompts him once more all the same, or `None`.
    """

    number: int
    phone: str
    amount: int
    arrives_at: float
    policy: str
    style: str
    rng: Random
    finder: Random = attrs.field(init=False)
    beside: tuple[float, int, str] | None = None
    again_after: float | None = None

    def __attrs_post_init__(self) -> None:
        self.finder = Random(self.amount * 1_000 + self.number)

    @property
    def full_phone(self) -> str:
        return f"254{self.phone[1:]}"

    @property
    def is_named(self) -> bool:
        """Whether each of its prompts has a description of its own."""
        return self.number % 3 == 0

    def words(self, call: int) -> str | None:
        """What its customer sees: in a third of the shops nothing."""
        if self.is_named:
            return f"Order {self.number}, call {call}"
        return f"Order {self.number}" if self.number % 3 == 1 else None


@attrs.define(eq=False)
class Called:
    """One call of the client's interface, and how it ended.

    Attributes:
        kind: which.
        client: the number of the client.
        limit: seconds that it may take; `None` for no limit.
        asked: the payment or the name that it was about; a list, for a bulk.
        cancelled_at: when somebody cancelled it.
        cancelled: whether that is how it ended.
        outcome: what it returned.
        error: what it raised.
        updates: what a watch yielded, and when.
        results: what a bulk yielded, and when.
        listed: what a list yielded.
        own_schedule: whether the caller said when to look.
        insists: whether the caller allowed a second prompt.
    """

    number: int
    kind: str
    client: int
    started_at: float
    limit: float | None = None
    order: Order | None = None
    asked: Any = None
    revisions: float = 0.0
    own_schedule: bool = False
    insists: bool = False
    ordered: bool = False
    ended_at: float | None = None
    cancelled_at: float | None = None
    cancelled: bool = False
    left_early: bool = False
    outcome: Any = None
    error: BaseException | None = None
    updates: list[tuple[float, PaymentUpdate]] = attrs.field(factory=list)
    results: list[tuple[float, PaymentResult]] = attrs.field(factory=list)
    listed: list[Payment] = attrs.field(factory=list)

    @property
    def knows(self) -> bool:
        """Whether the caller told the client what the payment is to be."""
        return isinstance(self.asked, Payment) or self.kind in {"initiate", "pay"}


# --- Who comes, and what he will do

_SCENARIOS: Final = (
    ("", 50),
    ("instant", 8),
    ("cancelled early", 8),
    ("failed early", 6),
    ("expired early", 6),
    ("late truth", 14),
    ("late truth after a failure", 4),
    ("undocumented", 3),
    ("undocumented for ever", 3),
    ("stale", 4),
    ("bare", 4),
    ("other-amount", 4),
    ("other-phone", 3),
    ("other-amount all along", 3),
    ("other-phone all along", 3),
    ("other-reference", 3),
    ("stuck", 3),
)
_POLICIES: Final = (("truth table", 55), ("naive", 32), ("once", 13))
_STYLES: Final = (
    ("wait", 22),
    ("pay", 18),
    ("watch", 10),
    ("watch revisions", 12),
    ("several", 12),
    ("ask", 12),
    ("bulk", 22),
    ("twice at once", 6),
    ("stranger", 8),
    ("comes back", 3),
)


def _choose(rng: Random, table: tuple[tuple[str, int], ...]) -> str:
    return rng.choices([name for name, _ in table], [weight for _, weight in table])[0]


def _scenario(rng: Random) -> Scenario:
    name = _choose(rng, _SCENARIOS)
    if name in SCENARIOS:
        played, pace = SCENARIOS[name], rng.uniform(0.2, 0.8)
        steps = (attrs.evolve(step, at_seconds=step.at_seconds * pace) for step in played.steps)
        return attrs.evolve(played, steps=tuple(steps))
    begins, ends = rng.uniform(0.3, 3), rng.uniform(1.0, 7)
    steps = {
        "": (Step(begins, "processing"), Step(begins + ends / 2, "completed")),
        "cancelled early": (Step(ends, "cancelled", {"failure_reason": "Cancelled by user"}),),
        "failed early": (Step(ends, "failed", {"failure_reason": "Wrong PIN entered"}),),
        "expired early": (Step(2 * ends, "expired"),),
        "late truth": (Step(ends, "expired"), Step(ends + 3 * begins, "completed")),
        "late truth after a failure": (Step(ends, "failed"), Step(ends + begins, "completed")),
        "undocumented for ever": (Step(begins, "reversed"),),
        "other-amount all along": _paid_as({"amount": "1.00"}, begins, ends),
        "other-phone all along": _paid_as({"phone": "254700000099"}, begins, ends),
    }[name]
    return Scenario(name or "paid", steps)


def _paid_as(fields: dict[str, object], begins: float, ends: float) -> tuple[Step, ...]:
    """Pay, in answers that are wrong from the first to the last."""
    times = (0.0, "initiated"), (begins, "processing"), (begins + ends, "completed")
    return tuple(Step(at, word, fields) for at, word in times)


def draw_order(rng: Random, number: int) -> tuple[Order, Scenario]:
    """Draw a customer with dice of his own, so that nobody else's timing changes him."""
    order = Order(
        number=number,
        phone=f"0712{number:03}{rng.randrange(1000):03}",
        amount=rng.randrange(100, 2000),
        arrives_at=rng.uniform(0, 30),
        policy=_choose(rng, _POLICIES),
        style=_choose(rng, _STYLES),
        rng=rng,
    )
    finder = order.finder
    if finder.random() < 0.4:
        # Without descriptions nobody could tell two of the same amount apart.
        is_alike = finder.random() < 0.5 and order.words(0) is not None
        amount = order.amount if is_alike else order.amount + 1
        at = order.arrives_at + finder.uniform(-3, 6)
        order.beside = (max(at, 0.0), amount, f"Till 2, order {number}")
    if finder.random() < 0.15:
        order.again_after = finder.uniform(0, 5)
    return order, _scenario(rng)


# --- The application


class Shop:
    """Sells things, with one client at a time."""

    def __init__(
        self,
        runtime: Runtime,
        network: Network,
        server: Server,
        oracle: Oracle,
        *,
        rng: Random,
        options: dict[str, Any],
        borrow: Callable[[], HTTPClient] | None,
    ) -> None:
        self.runtime = runtime
        self.network = network
        self.server = server
        self.oracle = oracle
        self.options = options
        self._borrow = borrow
        self.clients: list[AsyncPayNexus] = []
        self._current = 0
        self._rng = rng
        self._calls = 0
        self._for_bulk: list[Payment] = []
        self.closes_with: Order | None = None
        self._closing = runtime.bell()

    # --- Its clients

    @property
    def client(self) -> AsyncPayNexus:
        return self.clients[self._current]

    @property
    def current(self) -> int:
        """The number of that client."""
        return self._current

    def open_client(self) -> int:
        """Open a client; return its number."""
        http_client = self._borrow() if self._borrow else None
        client = AsyncPayNexus(base_url=BASE_URL, http_client=http_client, **self.options)
        number = len(self.clients)
        self.clients.append(client)
        look = client._followers.ask

        async def ask(expected: Expectation) -> Payment:
            # In the look's own task: whose context it has otherwise is an accident.
            ORIGIN.set(Origin("look", 0, number, expected.key))
            return await look(expected)

        client._followers.ask = ask
        self.oracle.text(repr(client))
        return number

    async def change_clients(self, seconds: float) -> None:
        """Close the client while things go on, and go on with another one.

        Args:
            seconds: when, at the latest: in the middle of an initiate, if one is chosen for it.
        """
        await self._closing.wait(seconds)
        self.network.hit("client closed in between")
        old = self._current
        self._current = self.open_client()
        await self.close_client(old)

    async def close_client(self, number: int) -> None:
        self.oracle.closings.append((self.runtime.now(), number))
        await self.call("aclose", lambda _: self.clients[number].aclose(), limit=7.0)
        self.oracle.closed(self.clients[number])
        if self._borrow:
            await self.clients[number]._transport._http.aclose()

    # --- One call, on the record

    async def call(
        self,
        kind: str,
        make: Callable[[Called], Awaitable[Any]],
        *,
        cancel_after: float | None = None,
        client: int | None = None,
        **about: Any,
    ) -> Called:
        self._calls += 1
        number = self._current if client is None else client
        called = Called(self._calls, kind, number, self.runtime.now(), **about)
        origin = "initiate" if kind in {"initiate", "pay"} else "read"
        token = ORIGIN.set(Origin(origin, called.number, number))
        self.network.trace("call", f"#{called.number}", kind, repr(about.get("limit")))
        try:
            if cancel_after is None:
                called.outcome = await make(called)
            else:
                await self._call_and_cancel(called, make, cancel_after)
        except Exception as error:  # noqa: BLE001  # for the oracle to judge
            called.error = error
        finally:
            ORIGIN.reset(token)
        called.ended_at = self.runtime.now()
        self.oracle.ended(called)
        return called

    async def _call_and_cancel(
        self, called: Called, make: Callable[[Called], Awaitable[Any]], after: float
    ) -> None:
        """Cancel a call, as anyio does or as asyncio does."""
        if self.runtime.name == "asyncio" and called.number % 2:
            await self._cancel_task(called, make, after)
        else:
            with anyio.CancelScope() as scope:
                self.runtime.later(after, lambda: self._cancel(called, scope.cancel))
                called.outcome = await make(called)
            called.cancelled = scope.cancelled_caught
        if called.cancelled:
            self.network.hit(f"caller cancelled in {called.kind}")

    async def _cancel_task(
        self, called: Called, make: Callable[[Called], Awaitable[Any]], after: float
    ) -> None:
        task = asyncio.ensure_future(make(called))
        self.runtime.later(after, lambda: self._cancel(called, task.cancel))
        try:
            called.outcome = await task
        except asyncio.CancelledError:
            called.cancelled = True

    def _cancel(self, called: Called, cancel: Callable[[], object]) -> None:
        if called.ended_at is None:
            called.cancelled_at = self.runtime.now()
            cancel()

    # --- A customer

    async def serve(self, order: Order) -> None:
        await self.runtime.sleep(order.arrives_at)
        if order.style == "twice at once":
            async with anyio.create_task_group() as group:
                group.start_soon(self._begin, order)
                group.start_soon(self._begin, order, order.finder.random() < 0.5)
            return
        payment = await self._begin(order)
        if payment is None:
            return
        await self._follow(order, payment)
        if order.rng.random() < 0.25:
            await self._ask_again(order, payment)
        if order.style == "comes back":
            await self.runtime.sleep(order.rng.uniform(90, 200))
            await self._begin(order)

    async def insist(self, order: Order) -> None:
        await self.runtime.sleep(order.arrives_at + (order.again_after or 0.0))
        await self._begin(order, insists=True)

    async def _begin(self, order: Order, insists: bool = False) -> Payment | str | None:
        """Initiate, and again as far as the application's policy goes."""
        dice = order.rng
        for _ in range(3):
            called = await self._initiate(order, insists=insists)
            error, insists = called.error, False
            if called.outcome is not None:
                return called.outcome
            lost = (PaymentOutcomeUnknown, DuplicatePaymentError, PaymentMismatchError)
            if isinstance(error, lost) and error.attempt and order.finder.random() < 0.7:
                resolution = await self._find(order, error)
                if isinstance(resolution, PaymentFound):
                    return resolution.payment
                insists = isinstance(resolution, NoPaymentFound) and order.policy == "naive"
            if isinstance(error, DuplicatePaymentError) and not insists:
                return error.payment
            if order.policy == "once":
                return None
            if order.policy == "naive":
                await self.runtime.sleep(dice.choice((0.0, 0.3, 2.0)))
            elif isinstance(error, APIConnectionError) and error.never_sent:
                await self.runtime.sleep(dice.uniform(0.1, 3))
            elif isinstance(error, RateLimitError):
                await self.runtime.sleep(min(error.retry_after or 5.0, 20.0))
            else:
                return None
        return None

    async def _find(self, order: Order, error: Any) -> Any:
        dice = order.finder
        await self.runtime.sleep(dice.choice((0.0, 0.0, dice.uniform(0, 20))))
        most = dice.choice((3.0, 18.0, 30.0, 30.0))
        called = await self.call(
            "find",
            lambda _: self.client.find_payment(error, timeout=most),
            limit=most,
            order=order,
            asked=error.attempt,
            cancel_after=dice.uniform(0, 8) if dice.random() < 0.1 else None,
        )
        return called.outcome

    async def _initiate(self, order: Order, *, insists: bool = False) -> Called:
        dice, timeout = order.rng, self.options["timeout"]
        phone = dice.choice((order.phone, f"254{order.phone[1:]}", f"+254 {order.phone[1:]}"))
        cancel_after = dice.choice((0.0, dice.uniform(0, 0.4), dice.uniform(0, 8)))
        insists = dice.random() < 0.02 or insists
        wants = dice.choice((4.0, 12.0, 25.0))
        is_cancelled = dice.random() < 0.15
        pays = order.style == "pay"
        if order is self.closes_with:
            self.closes_with = None
            self.runtime.later(dice.uniform(0, 0.4), self._closing.ring)

        async def make(called: Called) -> Payment:
            arguments = (order.amount, phone, order.words(called.number))
            if pays:
                return await self.client.pay(*arguments, max_wait=wants, allow_duplicate=insists)
            return await self.client.initiate_payment(*arguments, allow_duplicate=insists)

        return await self.call(
            "pay" if pays else "initiate",
            make,
            limit=timeout + wants if pays else timeout,
            order=order,
            insists=insists,
            cancel_after=cancel_after if is_cancelled else None,
        )

    async def _follow(self, order: Order, payment: Payment | str) -> None:
        follows = {
            "wait": self._wait,
            "watch": self._watch,
            "watch revisions": self._watch,
            "several": self._several,
            "ask": self._ask,
            "bulk": self._leave_for_bulk,
            "stranger": self._follow_elsewhere,
        }.get(order.style)
        if follows is not None:
            await follows(order, payment)

    async def _wait(self, order: Order, payment: Payment | str) -> None:
        """Wait; where the client is closed meanwhile, with the next one."""
        for _ in range(2):
            called = await self._wait_once(order, payment)
            if not isinstance(called.error, ClientStateError):
                return

    async def _wait_once(self, order: Order, payment: Payment | str) -> Called:
        dice = order.rng
        most = dice.choice((1.5, 4.0, 10.0, 15.0, 20.0, 40.0))
        cancel_after = dice.uniform(0, 8) if dice.random() < 0.12 else None
        wait = wait_fixed(dice.choice((1, 2, 3))) if dice.random() < 0.06 else None
        asked = payment
        if isinstance(payment, Payment) and dice.random() < 0.15:
            asked = dice.choice((payment.reference, payment.checkout_request_id)) or payment
        return await self.call(
            "wait",
            lambda _: self.client.wait_for_completion(asked, max_wait=most, wait=wait),
            limit=most,
            order=order,
            asked=asked,
            own_schedule=wait is not None,
            cancel_after=cancel_after,
        )

    async def _watch(self, order: Order, payment: Payment | str) -> None:
        dice = order.rng
        most = dice.choice((4.0, 12.0, 20.0))
        revisions = dice.uniform(2, 40) if order.style == "watch revisions" else 0.0
        leaves = dice.random() < 0.1

        async def make(called: Called) -> None:
            stream: AsyncGenerator[PaymentUpdate, None] = self.client.watch(
                payment, max_wait=most, revisions_for=revisions
            )
            async with aclosing(stream):
                async for update in stream:
                    called.updates.append((self.runtime.now(), update))
                    self.oracle.updated(called, update)
                    if leaves and len(called.updates) == 2:
                        called.left_early = True
                        return

        await self.call(
            "watch",
            make,
            limit=most + revisions,
            order=order,
            asked=payment,
            revisions=revisions,
            cancel_after=dice.uniform(0, 10) if dice.random() < 0.1 else None,
        )

    async def _several(self, order: Order, payment: Payment | str) -> None:
        """Let several wait for one payment, and ask beside them."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._wait, order, payment)
            group.start_soon(self._wait, order, payment)
            if order.rng.random() < 0.5:
                group.start_soon(self._ask, order, payment)
            else:
                group.start_soon(self._watch, order, payment)

    async def _ask(self, order: Order, payment: Payment | str) -> None:
        for _ in range(order.rng.choice((1, 2, 3))):
            await self.runtime.sleep(order.rng.uniform(0, 5))
            await self._ask_once(order, payment)

    async def _ask_again(self, order: Order, payment: Payment | str) -> None:
        """Come back when all is over: nothing may have been taken back."""
        for _ in range(2):
            await self.runtime.sleep(order.rng.uniform(0, 4))
            await self._ask_once(order, payment)

    async def _ask_once(self, order: Order, payment: Payment | str) -> None:
        dice = order.rng
        cancel_after = dice.uniform(0, 1) if dice.random() < 0.1 else None
        about: dict[str, Any] = {"limit": self.options["timeout"], "order": order}
        if isinstance(payment, Payment) and payment.checkout_request_id and dice.random() < 0.3:
            name = payment.checkout_request_id
            await self.call(
                "get by checkout id",
                lambda _: self.client.get_payment_status_by_checkout_id(name),
                asked=name,
                cancel_after=cancel_after,
                **about,
            )
            return
        asked = payment
        if isinstance(payment, Payment) and payment.reference and dice.random() < 0.5:
            asked = payment.reference
        await self.call(
            "get",
            lambda _: self.client.get_payment_status(asked),
            asked=asked,
            cancel_after=cancel_after,
            **about,
        )
        if dice.random() < 0.1:
            await self.call("validate", lambda _: self.client.validate_phone(order.phone), **about)

    async def _follow_elsewhere(self, order: Order, payment: Payment | str) -> None:
        """Follow a payment with a client that has not initiated it, by all of its names at once."""
        if not isinstance(payment, Payment):
            return
        dice, number = order.rng, self.open_client()
        client, most = self.clients[number], dice.choice((8.0, 15.0))
        about: dict[str, Any] = {"order": order, "client": number}
        names = [payment, payment.reference or payment, payment.checkout_request_id or payment]
        dice.shuffle(names)

        async def wait(asked: Payment | str, after: float) -> None:
            await self.runtime.sleep(after)
            await self.call(
                "wait",
                lambda _: client.wait_for_completion(asked, max_wait=most),
                limit=most,
                asked=asked,
                **about,
            )

        async def ask(asked: Payment | str, after: float) -> None:
            await self.runtime.sleep(after)
            await self.call(
                "get",
                lambda _: client.get_payment_status(asked),
                limit=self.options["timeout"],
                asked=asked,
                **about,
            )

        async with anyio.create_task_group() as group:
            group.start_soon(ask, payment.reference or payment, dice.uniform(0, 3))
            for asked in names[: dice.choice((1, 2, 2))]:
                group.start_soon(wait, asked, dice.choice((0.0, dice.uniform(0, 6))))
        await ask(payment, dice.uniform(0, 3))
        await self.close_client(number)

    async def _leave_for_bulk(self, _: Order, payment: Payment | str) -> None:
        if isinstance(payment, Payment):
            self._for_bulk.append(payment)

    # --- Many payments at once

    async def bulk(self, at: float) -> None:
        await self.runtime.sleep(at)
        dice, items = self._rng, list[Any](self._for_bulk)
        self._for_bulk = []
        items += dice.sample(items, min(2, len(items)))  # some twice
        items += [p.checkout_request_id for p in items if dice.random() < 0.1]
        items += [*dice.sample(NO_SUCH, 2), *([None] if dice.random() < 0.2 else [])]
        dice.shuffle(items)
        bulks = (self._check_many, self._wait_many, self._wait_many, self._wait_all)
        await dice.choice(bulks)(items)

    async def list(self, dice: Random) -> None:
        """Read all payments, now and then only some of them."""
        await self.runtime.sleep(dice.uniform(10, 40))
        word = dice.choice((None, None, "completed"))
        leaves_after = dice.randrange(20) if dice.random() < 0.2 else None

        async def make(called: Called) -> None:
            called.listed = []
            async with aclosing(self.client.list_payments(status=word)) as payments:
                async for payment in payments:
                    called.listed.append(payment)
                    self.oracle.listed(called, payment)
                    if len(called.listed) == leaves_after:
                        called.left_early = True
                        return

        after = dice.uniform(0, 2) if dice.random() < 0.1 else None
        await self.call("list", make, asked=word, cancel_after=after)

    async def _check_many(self, items: list[Any]) -> None:
        ordered, at_once = self._rng.random() < 0.5, self._rng.choice((None, 1, 3))

        def make(_: Called) -> AsyncGenerator[PaymentResult, None]:
            return self.client.check_payments(items, ordered=ordered, concurrency=at_once)

        await self._collect("check_payments", make, items, ordered=ordered, limit=None)

    async def _wait_many(self, items: list[Any]) -> None:
        ordered, most = self._rng.random() < 0.4, self._rng.choice((3.0, 3.0, 10.0, 25.0))

        def make(_: Called) -> AsyncGenerator[PaymentResult, None]:
            return self.client.wait_many(items, max_wait=most, ordered=ordered)

        await self._collect("wait_many", make, items, ordered=ordered, limit=most)

    async def _wait_all(self, items: list[Any]) -> None:
        most = self._rng.choice((3.0, 10.0, 25.0))

        async def make(called: Called) -> None:
            results = await self.client.wait_for_all(items, max_wait=most)
            for result in results:
                called.results.append((self.runtime.now(), result))
                self.oracle.result(called, result)

        after = self._rng.uniform(0, 5) if self._rng.random() < 0.1 else None
        await self.call(
            "wait_for_all", make, asked=items, ordered=True, limit=most, cancel_after=after
        )

    async def _collect(
        self,
        kind: str,
        make: Callable[[Called], AsyncGenerator[PaymentResult, None]],
        items: list[Any],
        *,
        ordered: bool,
        limit: float | None,
    ) -> None:
        leaves_after = self._rng.randrange(len(items)) if self._rng.random() < 0.15 else None

        async def collect(called: Called) -> None:
            async with aclosing(make(called)) as stream:
                async for result in stream:
                    called.results.append((self.runtime.now(), result))
                    self.oracle.result(called, result)
                    if len(called.results) == leaves_after:
                        called.left_early = True
                        return

        after = self._rng.uniform(0, 5) if self._rng.random() < 0.1 else None
        await self.call(
            kind, collect, asked=items, ordered=ordered, limit=limit, cancel_after=after
        )
