"""Webhooks: who is told of a payment, what is due when, how it is signed, and how it went; pure.

A payment's statuses are functions of time, so nothing is watched: each payment has one place in an
agenda, at the moment of its next change. What PayNexus does not say, and this assumes: there is
no event for `processing`; a cancelled and an expired payment are told as `payment.failed`, with
their own status in it, as no other event is named; a try without a 2xx is repeated five times.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import re
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta, timezone
from heapq import heappop, heappush
from itertools import count
from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import attrs

from ._scenarios import Scenario, Step, filled
from ._state import FORGETFUL, Store

if TYPE_CHECKING:
    from ._engine import Record

__all__ = [
    "DISORDERS",
    "EVENTS",
    "Delivery",
    "Endpoint",
    "Post",
    "RegistrationError",
    "Webhooks",
    "event_body",
    "is_loopback",
    "signed_headers",
]

EVENTS: Final = ("payment.initiated", "payment.completed", "payment.failed")
"""What is told of payments; an endpoint may ask for others (`invoice.paid`), and never hears."""
_EVENT_OF: Final[Mapping[str, str]] = {
    "initiated": "payment.initiated",
    "completed": "payment.completed",
    **dict.fromkeys(("failed", "cancelled", "expired"), "payment.failed"),
}

DISORDERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "duplicate": "delivered twice",
        "reorder": "held back until the next event has gone, for a minute at most",
        "delay": "delivered 5 to 60 s late",
        "wrong-signature": "signed with another secret",
        "stale-timestamp": "its timestamp header is an hour old",
        "no-timestamp": "without a timestamp header",
        "prefixed-signature": "sha256= before the signature",
    }
)
"""What can be asked of deliveries, and what it does; the last two are ordinary in life."""

RETRY_SECONDS: Final = (2, 10, 60, 300, 1_800)
"""How long after each try without a 2xx the next one comes."""
ENDPOINTS_MAX: Final = 100
DELIVERIES_KEPT_MAX: Final = 10_000
_HELD_SECONDS_MAX: Final = 60
_STALE_SECONDS: Final = 3_600
_MONTH_SECONDS: Final = 30 * 86_400
_NAME_CHARACTERS_MAX: Final = 255
_EVENTS_MAX: Final = 50
_URL: Final = re.compile(r"https?://[!-\[\]-~]{1,2000}")  # visible ASCII, and no backslash
_EVENT: Final = re.compile(r"[a-z_]{1,50}\.[a-z_]{1,50}")
_NAIROBI: Final = timezone(timedelta(hours=3), "EAT")


class RegistrationError(ValueError):
    """An endpoint that cannot be registered.

    Attributes:
        errors: what is wrong, by field.
    """

    def __init__(self, errors: Mapping[str, list[str]]) -> None:
        super().__init__(" ".join(words for of_field in errors.values() for words in of_field))
        self.errors = errors


@attrs.frozen(kw_only=True, repr=False)
class Endpoint:
    """A URL that is told of payments.

    Attributes:
        number: its id.
        name: what its owner calls it.
        url: where deliveries go.
        events: those that it hears of.
        secret: signs its deliveries.
        since: when it was registered; it hears of nothing before, on the ledger's clock.
        disorder: of `DISORDERS`, what happens to its deliveries.
        disorder_left: to how many more of them; `None` for all.
    """

    number: int
    name: str
    url: str
    events: tuple[str, ...]
    secret: str
    since: float
    disorder: frozenset[str] = frozenset()
    disorder_left: int | None = None

    def __repr__(self) -> str:
        """Show no secret."""
        return f"<Endpoint {self.number} {self.url}>"


@attrs.frozen(kw_only=True, repr=False)
class Delivery:
    """One event on its way to one endpoint, and how its latest try went.

    Attributes:
        number: its id.
        endpoint: the endpoint's.
        url: where it goes.
        event: such as `payment.completed`.
        reference: the payment's.
        body: the JSON that is sent.
        at: when it was last tried; before that, when the event happened.
        due_at: when it is tried next; `None` if it is not.
        disorder: what happens to it.
        held: whether it waits for the next event to go first.
        attempt: how often it was tried.
        status_code: of the latest answer.
        error: why there was none, or no try.
        acknowledged: whether it was answered with a 2xx.
    """

    number: int
    endpoint: int
    url: str
    event: str
    reference: str
    body: str
    at: float
    due_at: float | None
    disorder: frozenset[str] = frozenset()
    held: bool = False
    attempt: int = 0
    status_code: int | None = None
    error: str | None = None
    acknowledged: bool = False

    def __repr__(self) -> str:
        """Show no body: a phone is in it."""
        return f"<Delivery {self.number} {self.event} of {self.reference} to {self.url}>"


@attrs.frozen(kw_only=True, repr=False)
class Post:
    """One signed request, ready to be sent.

    Attributes:
        delivery: the number of its delivery, for `Webhooks.answered`.
        url: where to.
        headers: with the signature.
        body: exactly what is signed.
    """

    delivery: int
    url: str
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        """Show neither signature nor body."""
        return f"<Post of delivery {self.delivery} to {self.url}>"


class Webhooks:
    """The endpoints of a ledger, and what they are told.

    It sends nothing: `SandboxServer` does; elsewhere, take what is `due()`, and tell what was
    `answered()`.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        records: Mapping[str, Record],
        speed: float = 1.0,
        seed: int = 0,
        monthly: int | None = None,
        anywhere: bool = False,
        store: Store = FORGETFUL,
    ) -> None:
        """Go on with the endpoints and deliveries of a store.

        Args:
            clock: the time, in seconds since 1970.
            records: the ledger's payments by reference, as they stand.
            speed: how much faster than life payments go, and retries with them.
            seed: of secrets and of disorder.
            monthly: how many deliveries a plan has in thirty days, not counting retries.
            anywhere: whether URLs beyond this machine are taken.
            store: keeps all of it.
        """
        self._clock = clock
        self._records = records
        self._speed = speed
        self._seed = seed
        self._monthly = monthly
        self._anywhere = anywhere
        self._store = store
        self._endpoints: dict[int, Endpoint] = {
            e.number: e for e in sorted((e for _, e in store.kept("endpoint")), key=_number)
        }
        self._deliveries: dict[int, Delivery] = {
            d.number: d for d in sorted((d for _, d in store.kept("delivery")), key=_number)
        }
        self._pending = {n: d for n, d in self._deliveries.items() if d.due_at is not None}
        self._numbers = count(max(self._deliveries, default=0) + 1)
        # Of one that was removed, deliveries are left: they are not another's.
        known = [*self._endpoints, *(d.endpoint for d in self._deliveries.values())]
        self._endpoint_numbers = count(max(known, default=0) + 1)
        self._held = {d.endpoint: d.number for d in self._pending.values() if d.held}
        self._told: dict[str, int] = dict(store.kept("told"))
        self._month: tuple[float, int] = next((tuple(m) for _, m in store.kept("month")), (0.0, 0))
        self._agenda: list[tuple[float, int, str]] = []
        for record in records.values():
            self.follow(record)

    # --- Endpoints

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints that are registered, in order."""
        # A copy is one step, and a tuple is not: another thread may add meanwhile.
        return tuple(self._endpoints.copy().values())

    @property
    def deliveries(self) -> tuple[Delivery, ...]:
        """The latest deliveries, in order: those that wait, and how the others went."""
        return tuple(self._deliveries.copy().values())

    def register(
        self, url: str, *, name: str = "by hand", events: Collection[str] = EVENTS
    ) -> Endpoint:
        """Tell a URL of what happens to payments from now on.

        Raises:
            RegistrationError: for a URL, a name or events that cannot be taken.
        """
        errors = {
            field: [problem]
            for field, problem in (
                ("name", _name_problem(name)),
                ("url", self._url_problem(url)),
                ("events", _events_problem(events)),
            )
            if problem
        }
        if errors:
            raise RegistrationError(errors)
        number = next(self._endpoint_numbers)
        endpoint = Endpoint(
            number=number,
            name=name,
            url=url,
            events=tuple(dict.fromkeys(events)),
            secret=f"whsec_{self._digest(f'secret of {number}').hex()}",
            since=self._clock(),
        )
        with self._store.writing():
            self._keep_endpoint(endpoint)
        return endpoint

    def remove(self, endpoint: int) -> None:
        """Tell an endpoint nothing more, not even what is due.

        Raises:
            KeyError: if there is no such endpoint.
        """
        with self._store.writing():
            del self._endpoints[endpoint]
            self._store.drop("endpoint", str(endpoint))
            for delivery in self._pending.copy().values():
                if delivery.endpoint == endpoint:
                    word = "the endpoint was removed"
                    self._keep(attrs.evolve(delivery, due_at=None, error=word))

    def disturb(
        self, endpoint: int, disorder: Collection[str], *, times: int | None = None
    ) -> Endpoint:
        """Let this happen to an endpoint's deliveries, instead of what was asked before.

        Args:
            endpoint: its number.
            disorder: of `DISORDERS`; empty for none.
            times: to how many events; left out, to all that come.

        Raises:
            KeyError: if there is no such endpoint.
            ValueError: for a disorder that there is not, or no times.
        """
        if not set(disorder) <= set(DISORDERS):
            msg = f"disorder is some of {', '.join(DISORDERS)}"
            raise ValueError(msg)
        if times is not None and times < 1:
            msg = "times is a number of events, from 1"
            raise ValueError(msg)
        disturbed = attrs.evolve(
            self._endpoints[endpoint], disorder=frozenset(disorder), disorder_left=times
        )
        with self._store.writing():
            self._keep_endpoint(disturbed)
        return disturbed

    def reaches(self, host: str) -> bool:
        """Whether something may be sent to a host."""
        return self._anywhere or is_loopback(host)

    def _url_problem(self, url: object) -> str | None:
        if len(self._endpoints) >= ENDPOINTS_MAX:
            return f"This sandbox keeps {ENDPOINTS_MAX} endpoints: remove one."
        try:
            parts = urlsplit(url if isinstance(url, str) and _URL.fullmatch(url) else "")
            host, _ = parts.hostname, parts.port
        except ValueError:
            host = None
        if not host or "@" in parts.netloc:
            return "The url must be an http or https URL, without credentials."
        if not self.reaches(host):
            return (
                "This sandbox sends to this machine only (127.0.0.1, ::1, localhost), unless it is "
                "started with --webhooks-anywhere, or Ledger(webhooks_anywhere=True)."
            )
        return None

    # --- What is due

    def follow(self, record: Record) -> None:
        """Give a payment its place in the agenda: the moment of its next change."""
        change = self._next_change(record)
        if change is not None:
            place = (self._moment(record, change), record.number, record.prompt.reference)
            heappush(self._agenda, place)

    def due(self, endpoint: int | None = None) -> tuple[Post, ...]:
        """Return what is to be sent now, signed, in order.

        The same again, until it is told what was `answered`.

        Args:
            endpoint: only what goes to this one.
        """
        with self._store.writing():
            self._tell()
        now = self._clock()
        found = [
            (delivery.due_at, delivery.number, delivery)
            for delivery in self._pending.copy().values()
            if delivery.due_at is not None
            and delivery.due_at <= now
            and endpoint in {None, delivery.endpoint}
        ]
        return tuple(self._signed(delivery) for _, _, delivery in sorted(found, key=_by_time))

    def answered(
        self, delivery: int, status_code: int | None = None, *, error: str | None = None
    ) -> None:
        """Take note of how a try went: a 2xx ends it, anything else is tried again, for a while.

        Args:
            delivery: its number; nothing happens if it is no longer kept.
            status_code: of the answer.
            error: why there was none.
        """
        tried = self._deliveries.get(delivery)
        if tried is None:
            return
        acknowledged = status_code is not None and 200 <= status_code < 300
        attempt, now = tried.attempt + 1, self._clock()
        # Without `due_at` its endpoint was removed while it was under way.
        again = tried.due_at is not None and not acknowledged and attempt <= len(RETRY_SECONDS)
        ended = attrs.evolve(
            tried,
            at=now,
            due_at=now + RETRY_SECONDS[attempt - 1] / self._speed if again else None,
            attempt=attempt,
            status_code=status_code,
            error=error,
            acknowledged=acknowledged,
        )
        with self._store.writing():
            self._keep(ended)

    def resend(self, delivery: int) -> Delivery:
        """Send a delivery once more, now, as a new one without disorder.

        Raises:
            KeyError: if it is not kept, or its endpoint is not.
        """
        old = self._deliveries[delivery]
        now = self._clock()
        again = Delivery(
            number=next(self._numbers),
            endpoint=self._endpoints[old.endpoint].number,
            url=old.url,
            event=old.event,
            reference=old.reference,
            body=old.body,
            at=now,
            due_at=now,
        )
        with self._store.writing():
            self._keep(again)
        return again

    # --- From changes to deliveries

    def _next_change(self, record: Record) -> Step | None:
        told = self._told.get(record.prompt.reference, 0)
        return next(iter(_changes(record.scenario)[told:]), None)

    def _moment(self, record: Record, change: Step) -> float:
        return record.prompt.sent_at + change.at_seconds / self._speed

    def _tell(self) -> None:
        """Plan the deliveries of every change until now."""
        now = self._clock()
        while self._agenda and self._agenda[0][0] <= now:
            *_, reference = heappop(self._agenda)
            record = self._records[reference]
            change = self._next_change(record)
            # Somebody may have answered since: then this place in the agenda is an old one.
            if change is not None and (moment := self._moment(record, change)) <= now:
                self._plan(record, change, moment)
                self._told[reference] = self._told.get(reference, 0) + 1
                self._store.put("told", reference, self._told[reference])
            self.follow(record)

    def _plan(self, record: Record, change: Step, moment: float) -> None:
        event = _EVENT_OF.get(change.status)
        for endpoint in self.endpoints:
            if event in endpoint.events and endpoint.since <= moment:
                delivery = Delivery(
                    number=next(self._numbers),
                    endpoint=endpoint.number,
                    url=endpoint.url,
                    event=event,
                    reference=record.prompt.reference,
                    body=event_body(event, record, change, moment),
                    at=moment,
                    due_at=moment,
                )
                if self._counted(moment):
                    self._disorder(delivery, self._disorder_of(endpoint))
                else:
                    word = f"the plan's {self._monthly} webhooks a month are used up"
                    self._keep(attrs.evolve(delivery, due_at=None, error=word))

    def _disorder_of(self, endpoint: Endpoint) -> frozenset[str]:
        """Return what happens to an endpoint's next delivery, and count it."""
        left = endpoint.disorder_left
        if left is not None:
            rest = (
                attrs.evolve(endpoint, disorder_left=left - 1)
                if left > 1
                else attrs.evolve(endpoint, disorder=frozenset(), disorder_left=None)
            )
            self._keep_endpoint(rest)
        return endpoint.disorder

    def _disorder(self, delivery: Delivery, disorder: frozenset[str]) -> None:
        """Plan a delivery and what comes with it: late, held back, or twice."""
        due_at = delivery.at
        if "delay" in disorder:
            due_at += self._between(5, 60, f"delay of {delivery.number}")
        held = self._pending.get(self._held.pop(delivery.endpoint, 0))
        if held is not None:  # it goes after this one
            self._keep(attrs.evolve(held, due_at=due_at + 1 / self._speed, held=False))
        hold = held is None and "reorder" in disorder
        if hold:
            due_at += _HELD_SECONDS_MAX / self._speed
            self._held[delivery.endpoint] = delivery.number
        delivery = attrs.evolve(delivery, due_at=due_at, disorder=disorder, held=hold)
        self._keep(delivery)
        if "duplicate" in disorder:
            later = due_at + self._between(0, 5, f"duplicate of {delivery.number}")
            number = next(self._numbers)
            self._keep(attrs.evolve(delivery, number=number, due_at=later, held=False))

    def _counted(self, now: float) -> bool:
        """Take one delivery out of the plan's month, if there is one left."""
        if self._monthly is None:
            return True
        ends_at, used = self._month
        if now >= ends_at:
            ends_at, used = now + _MONTH_SECONDS, 0
        allowed = used < self._monthly
        self._month = (ends_at, used + allowed)
        self._store.put("month", "", self._month)
        return allowed

    def _keep(self, delivery: Delivery) -> None:
        number = delivery.number
        if number not in self._deliveries and len(self._deliveries) >= DELIVERIES_KEPT_MAX:
            oldest = next(iter(self._deliveries))
            del self._deliveries[oldest]
            self._pending.pop(oldest, None)
            self._store.drop("delivery", str(oldest))
        self._deliveries[number] = delivery
        if delivery.due_at is None:
            self._pending.pop(number, None)
        else:
            self._pending[number] = delivery
        self._store.put("delivery", str(number), delivery)

    def _keep_endpoint(self, endpoint: Endpoint) -> None:
        self._endpoints[endpoint.number] = endpoint
        self._store.put("endpoint", str(endpoint.number), endpoint)

    # --- Signing and dice

    def _signed(self, delivery: Delivery) -> Post:
        body, secret = delivery.body.encode(), self._endpoints[delivery.endpoint].secret
        headers = signed_headers(body, secret, now=self._clock(), disorder=delivery.disorder)
        return Post(delivery=delivery.number, url=delivery.url, headers=headers, body=body)

    def _between(self, low: float, high: float, of: str) -> float:
        """Return so many seconds, as the seed has it, at the pace of the ledger."""
        share = int.from_bytes(self._digest(of)[:4], "big") / 2**32
        return (low + (high - low) * share) / self._speed

    def _digest(self, of: str) -> bytes:
        return hashlib.blake2b(f"{self._seed}:{of}".encode(), digest_size=16).digest()


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _number(of: Endpoint | Delivery) -> int:
    return of.number


def _by_time(found: tuple[float, int, Delivery]) -> tuple[float, int]:
    return found[:2]


def _name_problem(name: object) -> str | None:
    if isinstance(name, str) and 1 <= len(name) <= _NAME_CHARACTERS_MAX:
        return None
    return f"The name must be a string of 1 to {_NAME_CHARACTERS_MAX} characters."


def _events_problem(events: object) -> str | None:
    if not isinstance(events, list | tuple) or not 1 <= len(events) <= _EVENTS_MAX:
        return f"The events must be a list of 1 to {_EVENTS_MAX} names."
    for event in events:
        if not isinstance(event, str) or not _EVENT.fullmatch(event):
            return "Each event must be a name such as payment.completed."
        if event.startswith("payment.") and event not in EVENTS:
            return f"Events of payments are {', '.join(EVENTS)}."
    return None


def _changes(scenario: Scenario) -> list[Step]:
    """Return each status that a payment comes to; that it was initiated is the first, and once."""
    changes = [Step(0.0, "initiated")]
    changes += (
        step
        for before, step in zip((changes[0], *scenario.steps), scenario.steps, strict=False)
        if step.status not in {before.status, "initiated"}
    )
    return changes


def signed_headers(
    body: bytes, secret: str, *, now: float, disorder: Collection[str] = ()
) -> dict[str, str]:
    """Sign a delivery.

    Args:
        body: exactly what is sent.
        secret: the endpoint's.
        now: seconds since 1970.
        disorder: those of `DISORDERS` that are about a signature or a timestamp.
    """
    if "wrong-signature" in disorder:
        secret += "x"
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    prefix = "sha256=" if "prefixed-signature" in disorder else ""
    headers = {"Content-Type": "application/json", "X-PayNexus-Signature": prefix + signature}
    if "no-timestamp" not in disorder:
        age = _STALE_SECONDS if "stale-timestamp" in disorder else 0
        headers["X-PayNexus-Timestamp"] = str(int(now) - age)
    return headers


def event_body(event: str, record: Record, change: Step, moment: float) -> str:
    """Write the JSON of an event, in the documented shape."""
    prompt, failed = record.prompt, event == "payment.failed"
    told = filled(change.fields, record.facts)
    receipt = record.receipt if event == "payment.completed" else None
    data: dict[str, object] = {
        "payment_id": record.number,
        "merchant_id": 1,
        "reference": prompt.reference,
        "amount": f"{prompt.amount}.00",
        "currency": "KES",
        "phone": prompt.phone,
        "status": change.status,
        "account_reference": prompt.description,
        "checkout_request_id": prompt.checkout_request_id,
        "transaction_id": receipt,
        "provider_transaction_id": receipt,
        "provider_reference": "Success" if receipt else None,
        "payer_name": f"M-Pesa {prompt.phone}",
    }
    if failed:
        reason = told.get("failure_reason") or f"The payment {change.status}"
        data |= {
            "failure_reason": reason,
            "user_message": f"{reason}. Please try again.",
            "retry_possible": True,
        }
    # A scenario's answers contradict the truth, or leave things out; so do its webhooks.
    data |= {name: value for name, value in told.items() if name in data}
    data = {k: v for k, v in data.items() if k not in record.scenario.missing}
    time = datetime.fromtimestamp(moment, _NAIROBI).isoformat(timespec="seconds")
    return json.dumps({"event": event, "timestamp": time, "data": data}, separators=(",", ":"))
