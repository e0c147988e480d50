"""A PayNexus in memory: keys, limits, prompts and payments; pure, on a clock that is handed in.

The rules are those of https://paynexus.co.ke/docs/stk-push and the pages beside it; what answers
look like beyond them is what the real API has been seen to send.
"""

from __future__ import annotations

import hashlib
import json
import math
import string
from collections import deque
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta, timezone
from email.utils import formatdate
from types import MappingProxyType
from typing import Any, Final

import attrs

from ..exceptions import InvalidRequestError
from ..phone import mask_phones, normalize_phone
from ..status import PaymentStatus
from ._faults import Faults, Strike, Told
from ._scenarios import MAGIC, PERSON, SCENARIOS, Scenario, Step, filled, together
from ._state import FORGETFUL, Store
from ._webhooks import RegistrationError, Webhooks

__all__ = [
    "BALANCE",
    "BUSINESS",
    "PIN",
    "PLANS",
    "PUBLIC_KEY",
    "SANDBOX_KEY",
    "SECRET_KEY",
    "Call",
    "Ledger",
    "Plan",
    "Prompt",
    "Record",
    "Reply",
    "Request",
    "Truth",
]

SECRET_KEY: Final = "sk_sandbox_0123456789abcdef"  # noqa: S105  # everybody may know it
PIN: Final = "1234"
"""Of every phone here."""
BALANCE: Final = 10_000
"""What every phone begins with, in KES."""
BUSINESS: Final = "Sandbox Shop"
"""Whom a prompt asks to pay."""
PUBLIC_KEY: Final = "pk_sandbox_0123456789abcdef"
SANDBOX_KEY: Final = "sb_sandbox_0123456789abcdef"

BODY_BYTES_MAX: Final = 64 * 1024
PAYMENTS_MAX: Final = 100_000
CALLS_KEPT_MAX: Final = 10_000
SCRIPTS_MAX: Final = 1_000
WINDOWS_MAX: Final = 10_000
_DESCRIPTION_CHARACTERS_MAX: Final = 255
_NAIROBI: Final = timezone(timedelta(hours=3), "EAT")
_AMOUNT_MAX: Final = {"production": 150_000, "sandbox": 50}
_LETTERS: Final = string.ascii_uppercase + string.digits
_MINUTE, _HOUR, _DAY, _MONTH = 60, 3_600, 86_400, 30 * 86_400


@attrs.frozen
class Plan:
    """How many calls a key has.

    Attributes:
        name: the plan's name.
        limits: calls for each window, by the window's length in seconds.
        webhooks: deliveries in thirty days, not counting retries; `None` for no limit.
    """

    name: str
    limits: Mapping[int, int]
    webhooks: int | None = None


PLANS: Final[Mapping[str, Plan]] = MappingProxyType(
    {
        plan.name: plan
        for plan in (
            Plan("trial", {_MINUTE: 30, _HOUR: 1_800, _MONTH: 10_000}, webhooks=0),
            Plan("basic", {_MINUTE: 60, _HOUR: 3_600, _MONTH: 50_000}, webhooks=1_000),
            Plan("professional", {_MINUTE: 120, _HOUR: 7_200, _MONTH: 200_000}),
            Plan("enterprise", {_MINUTE: 300, _HOUR: 18_000, _MONTH: 1_000_000}),
        )
    }
)
"""The plans and their limits, as PayNexus states them; of webhooks, for the first two only."""

_SANDBOX_ENVIRONMENT: Final = Plan("sandbox environment", {_DAY: 30})


@attrs.frozen(repr=False)
class Request:
    """One HTTP request, as far as the ledger cares.

    Attributes:
        method: in upper case.
        path: below the base URL, such as `/payments/PNXABC123DEF`.
        key: the API key, if one was sent.
        body: the bytes of the body.
        query: the query's parameters.
    """

    method: str
    path: str
    key: str | None = None
    body: bytes = b""
    query: Mapping[str, str] = attrs.field(factory=dict)

    def __repr__(self) -> str:
        """Show neither key nor body."""
        return f"<Request {self.method} {mask_phones(self.path)}>"


@attrs.frozen(repr=False)
class Reply:
    """One HTTP answer.

    Attributes:
        status_code: the HTTP status.
        document: its JSON body.
        headers: beyond those that the web server adds.
        reference: of the payment that it is about, whatever the document says of it.
    """

    status_code: int
    document: Mapping[str, object]
    headers: Mapping[str, str] = attrs.field(factory=dict)
    reference: str | None = None

    def __repr__(self) -> str:
        """Show no document: phones are in it."""
        return f"<Reply {self.status_code}>"


@attrs.frozen(kw_only=True, repr=False)
class Prompt:
    """One prompt that went out to a phone.

    Attributes:
        reference: the payment's.
        checkout_request_id: M-Pesa's name for it.
        phone: as `254746990866`.
        amount: in KES.
        description: what the customer saw.
        sent_at: on the ledger's clock, in seconds.
    """

    reference: str
    checkout_request_id: str
    phone: str
    amount: int
    description: str | None
    sent_at: float

    def __repr__(self) -> str:
        """Show the phone masked."""
        return f"<Prompt {self.reference} KES {self.amount} to {mask_phones(self.phone)}>"


@attrs.frozen
class Record:
    """The truth about one payment.

    Attributes:
        number: its id.
        prompt: what went out.
        scenario: what its customer does.
        receipt: the M-Pesa receipt, if it is ever paid.
    """

    number: int
    prompt: Prompt
    scenario: Scenario
    receipt: str

    @property
    def facts(self) -> Mapping[str, object]:
        """What the fields of a scenario may speak of."""
        prompt = self.prompt
        return {
            "reference": prompt.reference,
            "checkout_request_id": prompt.checkout_request_id,
            "amount": prompt.amount,
            "phone": prompt.phone,
            "receipt": self.receipt,
        }


@attrs.frozen(kw_only=True, repr=False)
class Truth:
    """What is true of one payment at the moment of asking, whatever its answers say.

    Attributes:
        reference: the payment's.
        status: as it stands; any text, where a scenario says so.
        amount: in KES.
        phone: as `254746990866`.
        scenario: the name of what its customer does.
        receipt: the M-Pesa receipt; `None` until it is completed.
        since: the moment from which the status holds, on the ledger's clock, in seconds.
        failure_reason: why it did not go through, where that is told.
        waits: whether its prompt waits for a person's answer.
        expires_at: the moment when its prompt runs out, where one will.
    """

    reference: str
    status: str
    amount: int
    phone: str
    scenario: str
    receipt: str | None
    since: float
    failure_reason: str | None
    waits: bool
    expires_at: float | None

    def __repr__(self) -> str:
        """Show no phone."""
        return f"<Truth {self.reference} {self.status} KES {self.amount}, {self.scenario}>"


@attrs.frozen
class Call:
    """One API call, as the log shows it.

    Attributes:
        at: on the ledger's clock, in seconds.
        method: the HTTP method.
        path: below the base URL, phones masked.
        key_kind: `sk_`, `pk_`, `sb_`, or empty.
        status_code: of the answer that its caller was told; `None`: it was told none.
        reference: of the payment that it was about, if it was about one.
        remaining: how many calls the key has left in its fullest window, if it has a plan.
        number: its place among all calls, from 1.
        fault: the kind of fault that it met, if it met one.
        true_status_code: of the ledger's own answer; `None`: a fault kept the call from it.
    """

    at: float
    method: str
    path: str
    key_kind: str
    status_code: int | None
    reference: str | None = None
    fault: str | None = None
    true_status_code: int | None = None
    remaining: int | None = None
    number: int = 0


_MERCHANT: Final[Mapping[str, object]] = {
    "/merchant": {"id": 1, "name": BUSINESS},
    "/merchant/businesses": [{"id": 1, "name": BUSINESS}],
    "/merchant/payment-accounts": [{"id": 1, "name": "Till 000000", "is_default": True}],
}
"""Undocumented reads that the vendor's clients make before they initiate."""


class _Refused(Exception):  # a reply on its way up, not an error of anybody's
    """An answer in the documented shape of errors."""

    def __init__(
        self,
        status_code: int,
        code: str,
        message: str,
        *,
        errors: Mapping[str, list[str]] | None = None,
        **fields: object,
    ) -> None:
        super().__init__(message)
        document: dict[str, object] = {
            "success": False,
            "error": code.lower(),
            "code": code,
            "message": message,
            **fields,
        }
        if errors:
            document["errors"] = errors
        self.reply = Reply(status_code, document)


@attrs.define
class _Window:
    """The calls of one key in one window of a plan."""

    ends_at: float
    left: int


_NOT_ASKED: Final = Reply(200, {"success": True, "data": {}})
"""What a fault that strikes before a call makes its answer of."""


class Ledger:
    """A PayNexus: what was asked of it, what it sent, and what is true of each payment.

    Attributes:
        webhooks: who is told of payments, and how that went.
        faults: what is ordered to go wrong between it and its callers. It stays the truth: a fault
            that strikes after a call leaves what the call did.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        plan: str | Plan | None = None,
        speed: float = 1.0,
        seed: int = 0,
        keys: Collection[str] | None = None,
        customer: str | Scenario | None = None,
        scenarios: Mapping[str, Scenario] | None = None,
        webhooks_anywhere: bool = False,
        store: Store | None = None,
    ) -> None:
        """Open a ledger: an empty one, or one that goes on where its store left off.

        Args:
            clock: the time, in seconds since 1970, such as `time.time`; the ledger has no other.
            plan: the limits of each key: a name in `PLANS`, a plan, or none.
            speed: how much faster than life payments go. Quota windows keep the clock's own pace.
            seed: of the references, checkout request ids and receipts.
            keys: the keys that exist; left out, every `sk_`, `pk_` and `sb_` key does.
            customer: what a customer does whom no script and no magic number tells otherwise;
                left out, a person while a page shows the phones, and `paid` while none does.
            scenarios: some of your own, by name, such as `load_scenarios` returns.
            webhooks_anywhere: whether endpoints beyond this machine may be registered.
            store: keeps payments, scripts, balances, quota windows and webhooks, such as an
                `SQLiteStore`; left out, they end with the ledger. The calls are not kept.

        Raises:
            ValueError: for an unknown plan or scenario, a speed that is not positive, or one that
                is not the store's, or a scenario that takes a name, a phone or an amount which has
                its meaning already.
        """
        if isinstance(plan, str) and plan not in PLANS:
            msg = f"plan must be one of {', '.join(PLANS)}, not {plan!r}"
            raise ValueError(msg)
        if not (math.isfinite(speed) and speed > 0):
            msg = "speed must be a positive number"
            raise ValueError(msg)
        self.scenarios: Final = together(scenarios or {})
        """Everything that it can play, by name."""
        if isinstance(customer, str) and customer not in self.scenarios:
            msg = f"customer must be one of {', '.join(self.scenarios)}, not {customer!r}"
            raise ValueError(msg)
        self._clock = clock
        self.faults: Faults = Faults(clock)
        self._customer = self.scenarios[customer] if isinstance(customer, str) else customer
        self._pages = 0
        self._balances: dict[str, int] = {}
        self._balance_set_at: dict[str, float] = {}
        self._plan = PLANS[plan] if isinstance(plan, str) else plan
        self._speed = speed
        self._seed = seed
        self._names_made = 0
        self._keys = None if keys is None else frozenset(keys)
        self._records: dict[str, Record] = {}
        self._by_checkout_id: dict[str, Record] = {}
        self._of_phone: dict[str, list[str]] = {}
        self._moments: dict[str, int] = {}
        self._scripted: list[tuple[str | None, Scenario]] = []
        self._windows: dict[tuple[str, int], _Window] = {}
        self._calls: deque[Call] = deque(maxlen=CALLS_KEPT_MAX)
        self._calls_made = 0
        self._store = FORGETFUL if store is None else store
        self._restore()
        self.webhooks: Webhooks = Webhooks(
            clock=clock,
            records=self._records,
            speed=speed,
            seed=seed,
            monthly=None if self._plan is None else self._plan.webhooks,
            anywhere=webhooks_anywhere,
            store=self._store,
        )
        self._by_phone = {normalize_phone(m.phone): SCENARIOS[m.scenario] for m in MAGIC}
        self._by_amount = {m.amount: SCENARIOS[m.scenario] for m in MAGIC}
        for own in (scenarios or {}).values():
            if own.phone is not None:
                self._by_phone[normalize_phone(own.phone)] = own
            if own.amount is not None:
                self._by_amount[own.amount] = own

    def _restore(self) -> None:
        """Take over what the store holds."""
        for _, speed in self._store.kept("speed"):
            if speed != self._speed:
                msg = f"speed must be {speed:g}, as the store's: payments would jump"
                raise ValueError(msg)
        with self._store.writing():
            self._store.put("speed", "", self._speed)
        records: list[Record] = [record for _, record in self._store.kept("payment")]
        for record in sorted(records, key=lambda record: record.number):
            self._records[record.prompt.reference] = record
            self._by_checkout_id[record.prompt.checkout_request_id] = record
            self._of_phone.setdefault(record.prompt.phone, []).append(record.prompt.reference)
        self._moments |= self._store.kept("moment")
        for phone, (balance, set_at) in self._store.kept("balance"):
            self._balances[phone], self._balance_set_at[phone] = balance, set_at
            self._of_phone.setdefault(phone, [])
        for _, scripts in self._store.kept("scripts"):
            self._scripted += scripts
        for _, made in self._store.kept("names"):
            self._names_made = made
        for name, (ends_at, left) in self._store.kept("window"):
            key, _, seconds = name.partition(" ")
            self._windows[key, int(seconds)] = _Window(ends_at=ends_at, left=left)

    # --- What tests and people ask

    @property
    def now(self) -> float:
        """The time on the ledger's clock, in seconds since 1970."""
        return self._clock()

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """Every prompt that went out, in order: a customer sees each of them."""
        return tuple(record.prompt for record in self.records)

    @property
    def calls(self) -> tuple[Call, ...]:
        """The latest calls, in order."""
        return tuple(self._calls)

    @property
    def records(self) -> tuple[Record, ...]:
        """Every payment, in order."""
        # A test reads this while the server's thread adds to it. Only the copy is one step: to make
        # the tuple can collect garbage, and that lets the other thread have its turn.
        return tuple(self._records.copy().values())

    def prompted(self, phone: str) -> int:
        """Return how many prompts went to a phone."""
        return len(self.payments_of(phone))

    def status(self, reference: str) -> str:
        """Return the true status of a payment, now.

        Raises:
            KeyError: if there is no such payment.
        """
        return self.payment(reference).status

    def payment(self, reference: str) -> Truth:
        """Return what is true of a payment, now.

        Raises:
            KeyError: if there is no such payment.
        """
        record = self._records[reference]
        step = self._step(record)
        reason = step.fields.get("failure_reason")
        return Truth(
            reference=reference,
            status=step.status,
            amount=record.prompt.amount,
            phone=record.prompt.phone,
            scenario=record.scenario.name,
            receipt=record.receipt if step.status == PaymentStatus.COMPLETED else None,
            since=self._since(record, step),
            failure_reason=reason if isinstance(reason, str) else None,
            waits=self._waits(record),
            expires_at=self._expires_at(record),
        )

    def script(self, scenario: str | Scenario, *, phone: str | None = None) -> None:
        """Let the next payment (to *phone*) play a scenario, before any magic number counts.

        Raises:
            KeyError: if there is no scenario of this name.
            ValueError: if the phone is not a Kenyan mobile number, or too many scripts wait.
        """
        played = self.scenarios[scenario] if isinstance(scenario, str) else scenario
        normalized = None if phone is None else normalize_phone(phone)
        if len(self._scripted) >= SCRIPTS_MAX:
            msg = f"{SCRIPTS_MAX} scripts wait for a payment already"
            raise ValueError(msg)
        with self._store.writing():
            self._scripted.append((normalized, played))
            self._store.put("scripts", "", self._scripted)

    # --- Who holds a phone

    @property
    def customer(self) -> Scenario:
        """What a customer does, now, whom no script and no magic number tells otherwise."""
        if self._customer is not None:
            return self._customer
        return PERSON if self._pages else SCENARIOS["paid"]

    def opened(self) -> None:
        """Take note of a page that shows the phones from now on."""
        self._pages += 1

    def closed(self) -> None:
        """Take note that such a page has gone."""
        self._pages -= 1

    @property
    def phones(self) -> tuple[str, ...]:
        """Every phone that was prompted, or was given money, as `254746990866`, in order."""
        return tuple(self._of_phone)

    def payments_of(self, phone: str) -> tuple[Record, ...]:
        """Return every payment that a phone was asked for, in order."""
        references = self._of_phone.get(normalize_phone(phone), ())
        return tuple(self._records[reference] for reference in references)

    def open_prompts(self, phone: str) -> tuple[Prompt, ...]:
        """Return what a phone shows now: prompts that wait for somebody's answer."""
        return tuple(r.prompt for r in self.payments_of(phone) if self._waits(r))

    def balance(self, phone: str) -> int:
        """Return what a phone has left, in KES: what it had, less what it has paid."""
        return self._balances.get(normalize_phone(phone), BALANCE) - self._paid(phone, math.inf)

    def balance_after(self, reference: str) -> int | None:
        """Return what a phone had left right after it had paid, in KES.

        `None`, where the payment is not completed, or the balance was set since.

        Raises:
            KeyError: if there is no such payment.
        """
        truth = self.payment(reference)
        if truth.receipt is None or truth.since < self._balance_set_at.get(truth.phone, -math.inf):
            return None
        return self._balances.get(truth.phone, BALANCE) - self._paid(truth.phone, truth.since)

    def set_balance(self, phone: str, amount: int) -> None:
        """Give a phone this much money, now, in KES."""
        normalized = normalize_phone(phone)
        with self._store.writing():
            self._balances[normalized] = amount + self._paid(normalized, math.inf)
            self._balance_set_at[normalized] = self._clock()
            kept = (self._balances[normalized], self._balance_set_at[normalized])
            self._store.put("balance", normalized, kept)
        self._of_phone.setdefault(normalized, [])

    def _paid(self, phone: str, until: float) -> int:
        """Return what a phone has paid until a moment, and as of now."""
        ends = ((r.prompt.amount, self._step(r), r) for r in self.payments_of(phone))
        return sum(
            amount
            for amount, step, record in ends
            if step.status == PaymentStatus.COMPLETED and self._since(record, step) <= until
        )

    def enter_pin(self, reference: str, pin: str) -> None:
        """Type a PIN into a prompt: it pays, if the PIN is right and the balance suffices.

        Raises:
            KeyError: if there is no such payment.
            ValueError: if its prompt does not wait for an answer.
        """
        record = self._waiting(reference)
        prompt = record.prompt
        if pin != PIN:
            self._turn(record, Step(1, "failed", {"failure_reason": "Wrong PIN entered"}))
        elif self.balance(prompt.phone) < prompt.amount:
            self._turn(record, Step(1, "failed", {"failure_reason": "Insufficient balance"}))
        else:
            self._turn(record, Step(2, "completed"))

    def decline(self, reference: str) -> None:
        """Press Cancel on a prompt.

        Raises:
            KeyError: if there is no such payment.
            ValueError: if its prompt does not wait for an answer.
        """
        record = self._waiting(reference)
        self._turn(record, Step(0, "cancelled", {"failure_reason": "Request cancelled by user"}))

    def _waits(self, record: Record) -> bool:
        return record.scenario is PERSON and self._step(record).status == PaymentStatus.INITIATED

    def _expires_at(self, record: Record) -> float | None:
        ends = (s for s in record.scenario.steps if s.status == PaymentStatus.EXPIRED)
        moments = (self._since(record, step) for step in ends)
        return next((moment for moment in moments if moment > self._clock()), None)

    def _waiting(self, reference: str) -> Record:
        record = self._records[reference]
        if not self._waits(record):
            msg = f"the prompt of payment {reference} does not wait for an answer"
            raise ValueError(msg)
        return record

    def _turn(self, record: Record, end: Step) -> None:
        """Let a payment end so, in so many seconds from now."""
        age = self._age(record)
        steps = [attrs.evolve(end, at_seconds=age + end.at_seconds)]
        if end.at_seconds > 0:
            steps.insert(0, Step(age, "processing"))
        turned = attrs.evolve(record, scenario=record.scenario.turned(age, *steps))
        with self._store.writing():
            self._keep(turned)

    def _keep(self, record: Record) -> None:
        self._records[record.prompt.reference] = record
        self._by_checkout_id[record.prompt.checkout_request_id] = record
        self._store.put("payment", record.prompt.reference, record)
        self.webhooks.follow(record)

    # --- The API

    def handle(self, request: Request) -> Reply:
        """Answer one API call."""
        reply = self._answer(request)
        self._log(request, reply.status_code, reply, None)
        return reply

    def mishandle(self, request: Request, strike: Strike) -> Told:
        """Carry out one API call as far as a fault lets it, and answer what the fault wants."""
        before = strike.kind.before
        reply = _NOT_ASKED if before else self._answer(request)
        told = strike.tell(reply)
        self._log(request, told.status_code, None if before else reply, strike.kind.name)
        return attrs.evolve(told, headers={**self._date(), **told.headers})

    def _answer(self, request: Request) -> Reply:
        """Carry out one API call, and keep what it did, before anybody is told."""
        with self._store.writing():
            return self._carried_out(request)

    def _carried_out(self, request: Request) -> Reply:
        headers: dict[str, str] = {}
        try:
            key = self._check_key(request.key)
            self._count(key, headers)
            reply = self._route(request, key)
        except _Refused as refused:
            reply = refused.reply
        return attrs.evolve(reply, headers={**self._date(), **headers, **reply.headers})

    def _date(self) -> Mapping[str, str]:
        return {"Date": formatdate(self._clock(), usegmt=True)}

    def _log(
        self, request: Request, told: int | None, reply: Reply | None, fault: str | None
    ) -> None:
        self._calls_made += 1
        remaining = reply.headers.get("X-RateLimit-Remaining") if reply else None
        self._calls.append(
            Call(
                at=self._clock(),
                method=request.method,
                path=mask_phones(request.path),
                key_kind=_kind(request.key or ""),
                status_code=told,
                reference=reply.reference if reply else None,
                fault=fault,
                true_status_code=reply.status_code if reply else None,
                remaining=None if remaining is None else int(remaining),
                number=self._calls_made,
            )
        )

    def _check_key(self, key: str | None) -> str:
        if not key:
            raise _Refused(401, "UNAUTHENTICATED", "API key is required in the X-API-Key header.")
        if not _kind(key) or (self._keys is not None and key not in self._keys):
            raise _Refused(401, "INVALID_API_KEY", "The API key is invalid.")
        return key

    def _count(self, key: str, headers: dict[str, str]) -> None:
        """Take one call out of each window of the key's quota, or refuse."""
        plan = _SANDBOX_ENVIRONMENT if _kind(key) == "sb_" else self._plan
        if plan is None:
            return
        now = self._clock()
        # Keys are kept, and one may be real: not as it is.
        name = hashlib.blake2b(key.encode(errors="replace"), digest_size=16).hexdigest()
        windows = [
            self._window(name, seconds, limit, now) for seconds, limit in plan.limits.items()
        ]
        limits = list(plan.limits.values())
        # Of two that are used up, the one that ends last says when a call works again.
        fullest = min(range(len(windows)), key=lambda i: (windows[i].left, -windows[i].ends_at))
        allowed = windows[fullest].left > 0
        if allowed:
            for seconds, window in zip(plan.limits, windows, strict=True):
                window.left -= 1
                self._store.put("window", f"{name} {seconds}", (window.ends_at, window.left))
        headers["X-RateLimit-Limit"] = str(limits[fullest])
        headers["X-RateLimit-Remaining"] = str(windows[fullest].left)
        headers["X-RateLimit-Reset"] = str(math.ceil(windows[fullest].ends_at))
        if not allowed:
            wait = max(1, math.ceil(windows[fullest].ends_at - now))
            headers["Retry-After"] = str(wait)
            raise _Refused(
                429,
                "RATE_LIMIT",
                "Too many requests. Please try again later.",
                error="rate_limit_exceeded",
                retry_after=wait,
            )

    def _window(self, key: str, seconds: int, limit: int, now: float) -> _Window:
        window = self._windows.get((key, seconds))
        if window is None or now >= window.ends_at:
            self._windows.pop((key, seconds), None)
            if len(self._windows) >= WINDOWS_MAX:
                oldest = next(iter(self._windows))  # keys are made up freely
                del self._windows[oldest]
                self._store.drop("window", f"{oldest[0]} {oldest[1]}")
            window = _Window(ends_at=now + seconds, left=limit)
            self._windows[key, seconds] = window
        return window

    def _route(self, request: Request, key: str) -> Reply:
        path = request.path.rstrip("/")
        posts: Mapping[str, Callable[[Mapping[str, object], str], Reply]] = {
            "/mpesa/payment/initiate": self._initiate,
            "/payments/status-by-checkout-id": self._status_by_checkout_id,
            "/mpesa/validate-phone": _validate_phone,
            "/webhooks/register": self._register_webhook,
            # Not documented, but what the vendor's older clients call:
            "/payments/initiate": self._initiate,
            "/mpesa/payment/status": self._status_by_checkout_id,
        }
        if path in posts:
            if request.method != "POST":
                raise _Refused(405, "METHOD_NOT_ALLOWED", "This call is a POST.")
            return posts[path](_json_body(request.body), key)
        if path == "/payments" or path.startswith("/payments/"):
            if request.method != "GET":
                raise _Refused(405, "METHOD_NOT_ALLOWED", "This call is a GET.")
            if path == "/payments":
                return self._list(request.query)
            return self._found(self._named(path.removeprefix("/payments/").split("/")))
        if path in _MERCHANT and request.method == "GET":
            return Reply(200, {"success": True, "data": _MERCHANT[path]})
        raise _Refused(404, "NOT_FOUND", "There is no such call.")

    def _named(self, parts: list[str]) -> Record | None:
        """Find a payment by what stands in a path: `REF`, as documented, or as older clients do."""
        match parts:
            case [reference] if reference in self._records:
                return self._records[reference]
            case ["reference", reference]:
                return self._records.get(reference)
            case ["checkout", checkout_request_id]:
                return self._by_checkout_id.get(checkout_request_id)
            case [number] | [number, "status" | "status-by-id"]:
                return next((r for r in self._records.values() if str(r.number) == number), None)
        return None

    def _initiate(self, body: Mapping[str, object], key: str) -> Reply:
        kind = _kind(key)
        if kind == "pk_":
            raise _Refused(403, "FORBIDDEN", "A public key is read-only: use the secret key.")
        environment = "sandbox" if kind == "sb_" else "production"
        amount, phone, description = _checked(body, _AMOUNT_MAX[environment])
        if len(self._records) >= PAYMENTS_MAX:
            raise _Refused(503, "FULL", f"This sandbox keeps {PAYMENTS_MAX} payments: restart it.")
        record = self._record(amount, phone, description)
        prompt = record.prompt
        data = {
            "payment_id": record.number,
            "reference": prompt.reference,
            "checkout_request_id": prompt.checkout_request_id,
            "amount": amount,
            "currency": "KES",
            "phone": phone,
            "status": "initiated",
            "customer_message": "Success. Request accepted for processing",
            **filled(record.scenario.initiate, record.facts),
        }
        return Reply(200, {"success": True, "data": data}, reference=prompt.reference)

    def _record(self, amount: int, phone: str, description: str | None) -> Record:
        now = self._clock()
        prompt = Prompt(
            reference=self._unused_reference(),
            checkout_request_id=self._unused_checkout_id(phone, now),
            phone=phone,
            amount=amount,
            description=description,
            sent_at=now,
        )
        record = Record(
            number=len(self._records) + 1,
            prompt=prompt,
            scenario=self._choose(phone, amount),
            receipt=self._letters(10),
        )
        self._keep(record)
        self._of_phone.setdefault(phone, []).append(prompt.reference)
        return record

    def _choose(self, phone: str, amount: int) -> Scenario:
        """Return what the customer will do: as scripted, as phone or amount say, or as all do."""
        for wanted in (phone, None):  # a script for this phone comes before one for anybody
            for place, (scripted_phone, scenario) in enumerate(self._scripted):
                if scripted_phone == wanted:
                    del self._scripted[place]
                    self._store.put("scripts", "", self._scripted)
                    return scenario
        return self._by_phone.get(phone) or self._by_amount.get(amount) or self.customer

    def _unused_reference(self) -> str:
        reference = f"PNX{self._letters(9)}"
        while reference in self._records:
            reference = f"PNX{self._letters(9)}"
        return reference

    def _unused_checkout_id(self, phone: str, now: float) -> str:
        """Make an id of the moment and the phone; one moment later, where it is taken."""
        moment = max(round(now * 1000), self._moments.get(phone, -1) + 1)
        self._moments[phone] = moment
        self._store.put("moment", phone, moment)
        second = datetime.fromtimestamp(moment // 1000, _NAIROBI)
        return f"ws_CO_{second:%d%m%Y%H%M%S}{moment % 1000:03}{phone[3:]}"

    def _letters(self, count: int) -> str:
        """Make a name that follows from the seed, and looks as if it did not."""
        self._names_made += 1
        self._store.put("names", "", self._names_made)
        digest = hashlib.blake2b(f"{self._seed}:{self._names_made}".encode(), digest_size=count)
        return "".join(_LETTERS[byte % len(_LETTERS)] for byte in digest.digest())

    def _register_webhook(self, body: Mapping[str, object], key: str) -> Reply:
        if _kind(key) == "pk_":
            raise _Refused(403, "FORBIDDEN", "A public key is read-only: use the secret key.")
        if self._plan is not None and self._plan.webhooks == 0:
            raise _Refused(403, "FORBIDDEN", f"The plan {self._plan.name} has no webhooks.")
        given: dict[str, Any] = {name: body.get(name) for name in ("url", "name", "events")}
        try:
            endpoint = self.webhooks.register(**given)  # it checks them itself
        except RegistrationError as error:
            raise _invalid(error.errors) from error
        data = {
            "id": endpoint.number,
            "name": endpoint.name,
            "url": endpoint.url,
            "events": list(endpoint.events),
            "secret": endpoint.secret,
            "created_at": self._time(endpoint.since),
        }
        return Reply(200, {"success": True, "data": data})

    def _status_by_checkout_id(self, body: Mapping[str, object], _: str) -> Reply:
        name = body.get("checkout_request_id")
        if not isinstance(name, str) or not name:
            raise _invalid({"checkout_request_id": ["The checkout request id is required."]})
        return self._found(self._by_checkout_id.get(name))

    def _found(self, record: Record | None) -> Reply:
        if record is None:
            raise _Refused(404, "NOT_FOUND", "Payment not found.")
        document = {"success": True, "data": self._document(record)}
        return Reply(200, document, reference=record.prompt.reference)

    def _step(self, record: Record) -> Step:
        return record.scenario.at(self._age(record))

    def _since(self, record: Record, step: Step) -> float:
        """Return the moment from which a step holds, on the ledger's clock."""
        return record.prompt.sent_at + step.at_seconds / self._speed

    def _age(self, record: Record) -> float:
        """Return how old a payment is, in the seconds of its scenario."""
        return (self._clock() - record.prompt.sent_at) * self._speed

    def _document(self, record: Record) -> dict[str, object]:
        """Describe a payment as status answers do."""
        prompt, step = record.prompt, self._step(record)
        paid, status = step.status == PaymentStatus.COMPLETED, PaymentStatus.parse(step.status)
        changed_at = self._time(self._since(record, step))
        document: dict[str, object] = {
            "id": record.number,
            "reference": prompt.reference,
            "checkout_request_id": prompt.checkout_request_id,
            "amount": f"{prompt.amount}.00",
            "currency": "KES",
            "phone": prompt.phone,
            "status": step.status,
            "payment_method": "mpesa",
            "description": prompt.description,
            "transaction_id": f"TXN{record.number:06}" if paid else None,
            "provider_transaction_id": record.receipt if paid else None,
            "failure_reason": None,
            "created_at": self._time(prompt.sent_at),
            "updated_at": changed_at,
            "completed_at": changed_at if paid else None,
            "failed_at": changed_at if status.is_terminal and not paid else None,
            **filled(step.fields, record.facts),
        }
        return {k: v for k, v in document.items() if k not in record.scenario.missing}

    def _list(self, query: Mapping[str, str]) -> Reply:
        """List payments, newest first."""
        page, size = _positive(query, "page", 1, 10_000), _positive(query, "per_page", 15, 100)
        found = [record for record in reversed(self.records) if self._matches(record, query)]
        first = (page - 1) * size
        shown = [self._document(record) for record in found[first : first + size]]
        pagination = {
            "current_page": page,
            "per_page": size,
            "total": len(found),
            "last_page": max(1, math.ceil(len(found) / size)),
            "from": first + 1 if shown else None,
            "to": first + len(shown) if shown else None,
        }
        return Reply(200, {"success": True, "data": shown, "pagination": pagination})

    def _matches(self, record: Record, query: Mapping[str, str]) -> bool:
        """Whether a payment is listed: judged by the truth, as a scenario's answers may lack it."""
        day = self._time(record.prompt.sent_at)[:10]
        first, last = query.get("from_date", "")[:10], query.get("to_date", "")[:10] or "9999"
        return first <= day <= last and query.get("status") in {
            None,
            "",
            self._step(record).status,
        }

    @staticmethod
    def _time(seconds: float) -> str:
        return datetime.fromtimestamp(seconds, _NAIROBI).isoformat(timespec="seconds")


def _kind(key: str) -> str:
    return key[:3] if key[:3] in {"sk_", "pk_", "sb_"} and len(key) > 3 else ""


def _json_body(body: bytes) -> Mapping[str, object]:
    if len(body) > BODY_BYTES_MAX:
        raise _Refused(413, "PAYLOAD_TOO_LARGE", "The body is too large.")
    try:
        document = json.loads(body)
        json.dumps(document, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise _Refused(400, "BAD_REQUEST", "The body must be a JSON object.")
    return document


def _checked(body: Mapping[str, object], amount_max: int) -> tuple[int, str, str | None]:
    """Check the fields of an initiate, all of them before refusing any."""
    errors: dict[str, list[str]] = {}
    amount, phone, description = body.get("amount"), body.get("phone"), body.get("description")
    if isinstance(amount, float) and amount.is_integer():
        amount = int(amount)  # PHP writes 100.0
    if isinstance(amount, bool) or not isinstance(amount, int):
        errors["amount"] = ["The amount must be an integer."]
    elif not 1 <= amount <= amount_max:
        errors["amount"] = [f"The amount must be between 1 and {amount_max}."]
    normalized = ""
    try:
        normalized = normalize_phone(phone)  # type: ignore[arg-type]  # it checks that itself
    except InvalidRequestError:
        errors["phone"] = ["The phone must be a valid Kenyan mobile number."]
    if description is not None and not (
        isinstance(description, str) and len(description) <= _DESCRIPTION_CHARACTERS_MAX
    ):
        errors["description"] = ["The description must be a string of at most 255 characters."]
    if errors:
        raise _invalid(errors)
    assert isinstance(amount, int)  # noqa: S101  # nosec B101  # checked above
    return amount, normalized, description if isinstance(description, str) else None


def _invalid(errors: Mapping[str, list[str]]) -> _Refused:
    return _Refused(422, "VALIDATION_ERROR", "The given data was invalid.", errors=errors)


def _validate_phone(body: Mapping[str, object], _: str) -> Reply:
    phone = body.get("phone")
    if not isinstance(phone, str) or not phone:
        raise _invalid({"phone": ["The phone is required."]})
    try:
        normalized = normalize_phone(phone)
    except InvalidRequestError:
        normalized = None
    data = {
        "original": phone,
        "normalized": normalized,
        "valid": normalized is not None,
        "provider": "mpesa" if normalized else None,
    }
    return Reply(200, {"success": True, "data": data})


def _positive(query: Mapping[str, str], name: str, default: int, largest: int) -> int:
    text = query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 9 and int(text) > 0):
        raise _invalid({name: ["It must be a positive integer."]})
    return min(int(text), largest)
