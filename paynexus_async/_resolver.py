"""Finding the payment of a prompt whose answer was lost, in the list of all payments.

Three answers, and each has to be true. A payment is *found* if it alone can be the one: same phone
and amount, made when the prompt was sent, no other description, and not one that this client knows
to be another prompt's. *None* is said if the whole of the list that matters holds nothing that
could be it, and the server had time to list it. Everything else *cannot be told*: what an item
leaves out, a masked phone, a time that is nearly right, a second one like it, a page that failed.

The list shows the server's times. What this client knows by the event loop's clock is put among
them by the `Date` of the answer; that clock and the one that dates payments may differ by seconds,
and are trusted not to differ by an hour. Without a `Date` no time can be compared.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import anyio
import attrs

from ._pages import Pages
from ._wire import Intent, date_of, expectation_of, worth_repeating
from .exceptions import APIError, InvalidRequestError, PayNexusError, QuotaExhaustedError
from .models import NoPaymentFound, Payment, PaymentFound, PaymentStillUnknown, Resolution
from .phone import mask_phones, normalize_phone, phones_agree

if TYPE_CHECKING:
    from ._wire import Page
    from .models import APIResponse

__all__ = ["Known", "Sought", "find"]

PAGES_MAX: Final = 10
SETTLE_SECONDS: Final = 15.0
"""After the answer was lost: until then the server may have a payment that it does not list yet."""

_SECOND_LOOK_SECONDS: Final = 5.0
_LOOK_AGAIN_SECONDS: Final = 10.0
_TOLERANCE: Final = timedelta(seconds=5)  # between the clocks of `Date` and of `created_at`
_LATE: Final = timedelta(seconds=60)  # for a request that was held up on its way
_TRUSTED: Final = timedelta(hours=1)
_SECOND: Final = timedelta(seconds=1)  # both clocks are told in whole ones
_CANDIDATES_MAX: Final = 10


@attrs.frozen
class Sought:
    """The prompt whose payment is looked for.

    Attributes:
        intent: what was asked.
        sent_at: when it was about to be sent, on the event loop's clock.
        lost_at: when its answer was given up; `None` while it is on the way.
    """

    intent: Intent
    sent_at: float
    lost_at: float | None


@attrs.frozen
class Known:
    """What this client knows when a look is over.

    Attributes:
        mine: whether a payment is known to be the one sought, or else another prompt's; `None` if
            this client has not been told whose it is.
        taken: whether a payment has been found for a prompt, though it may be another's.
        rivals: this client's other prompts for the phone and the amount whose payments it does not
            know.
    """

    mine: Callable[[Payment], bool | None]
    taken: Callable[[Payment], bool]
    rivals: Iterable[Sought]


class _Match(Enum):
    """Whether a listed payment is the one."""

    NO = "it cannot be"
    MAYBE = "it cannot be told"
    LIKELY = "it is, if nothing else can be"


@attrs.frozen
class _Clock:
    """The server's clock beside the event loop's.

    Attributes:
        server_at: the `Date` of an answer.
        asked_at: when that was asked for, on the event loop's clock.
        read_at: when it was there.
    """

    server_at: datetime
    asked_at: float
    read_at: float

    @classmethod
    def of(cls, response: APIResponse, read_at: float) -> _Clock | None:
        """Read it off an answer; `None` if that has no `Date` of this age."""
        server_at = date_of(response.headers.get("date", ""))
        if server_at is None or not 2_000 <= server_at.year < 3_000:
            return None
        return cls(server_at, read_at - response.elapsed_seconds, read_at)

    def window(self, sought: Sought) -> tuple[datetime, datetime]:
        """Return between which of the server's times a payment of this prompt was made."""
        begin = self.server_at - timedelta(seconds=self.read_at - sought.sent_at) - _TOLERANCE
        lost_at = self.read_at if sought.lost_at is None else sought.lost_at
        end = self.server_at - timedelta(seconds=self.asked_at - lost_at)
        return begin - _SECOND, end + _SECOND + _LATE + _TOLERANCE


async def find(
    sought: Sought,
    ask: Callable[[int], Awaitable[Page]],
    known: Callable[[], Known],
    *,
    now: Callable[[], float],
    deadline: float,
) -> Resolution:
    """Look, and again while that may tell more and there is time.

    A look costs a call for each page that it needs: one, for most. There are three at most while
    the server may be slow to list, and then one every ten seconds while calls fail.

    Args:
        sought: the prompt.
        ask: fetches a page of the list, newest payments first if the server does so.
        known: tells what this client knows at that moment.
        now: the event loop's clock.
        deadline: on it, when to give up.
    """
    lost_at = now() if sought.lost_at is None else sought.lost_at
    settled_at, looks = lost_at + SETTLE_SECONDS, 0
    while True:
        looks += 1
        try:
            resolution = await _look(sought, ask, known, now, settled_at)
            may_change = resolution is None
        except (APIError, QuotaExhaustedError) as error:
            resolution = _not_seen(error)
            may_change = worth_repeating(error)
        pause = _SECOND_LOOK_SECONDS if looks == 1 else _LOOK_AGAIN_SECONDS
        again_at = now() + pause
        if looks > 1 and now() < settled_at:
            again_at = settled_at
        if not may_change or again_at >= deadline:
            return _TOO_EARLY if resolution is None else resolution
        await anyio.sleep(again_at - now())


async def _look(
    sought: Sought,
    ask: Callable[[int], Awaitable[Page]],
    known: Callable[[], Known],
    now: Callable[[], float],
    settled_at: float,
) -> Resolution | None:
    """Read the list as far as it matters, and judge it; `None` if it is too early to tell."""
    pages = Pages(ask)
    payments = await pages.next()
    clock = None if pages.first is None else _Clock.of(pages.first.response, now())
    for _ in range(PAGES_MAX - 1):
        if pages.is_over or _is_past(sought, payments, clock):
            break
        payments += await pages.next()
    what_is_known = known()
    for payment in filter(what_is_known.mine, payments):
        return PaymentFound(payment=payment)
    if not (pages.is_whole or _is_past(sought, payments, clock)):
        return PaymentStillUnknown(reason=f"PayNexus's list was not seen whole. {_ADVICE}")
    resolution = _judge(sought, payments, clock, what_is_known)
    if isinstance(resolution, NoPaymentFound) and clock is not None and clock.asked_at < settled_at:
        return None
    return resolution


def _is_past(sought: Sought, payments: Sequence[Payment], clock: _Clock | None) -> bool:
    """Whether what comes now was made long before the prompt: in a list whose times only fall."""
    times = [payment.created_at for payment in payments if payment.created_at is not None]
    if clock is None or not times or any(later > sooner for sooner, later in pairwise(times)):
        return False
    return times[-1] < clock.window(sought)[0] - _TRUSTED


def _judge(
    sought: Sought, payments: Sequence[Payment], clock: _Clock | None, known: Known
) -> Resolution:
    """Say what the list means."""
    others = [payment for payment in payments if known.mine(payment) is None]
    # Where others bear a description, one without may be of a prompt that had another, or none.
    is_described = any(payment.description for payment in payments)
    matches = [
        (_match(sought, payment, clock, is_described=is_described), payment) for payment in others
    ]
    possible = [
        (_Match.MAYBE if known.taken(payment) else match, payment)
        for match, payment in matches
        if match is not _Match.NO
    ]
    likely = [payment for match, payment in possible if match is _Match.LIKELY]
    # One that bears the very description is not in doubt because of one that bears another.
    named = [p for p in likely if _describes(sought.intent, p) is True]
    if len(named) == 1:
        possible = [(m, p) for m, p in possible if _describes(sought.intent, p) is not False]
        likely = [p for m, p in possible if m is _Match.LIKELY]
    if len(possible) == len(likely) == 1:
        (payment,) = likely
        if not any(_may_be_of(rival, payment, clock) for rival in known.rivals):
            return PaymentFound(payment=payment)
        return _undecided("it may be that of another prompt of this client", likely)
    if possible:
        why = "several may be" if len(possible) > 1 else "the list tells too little of the only one"
        return _undecided(why, [payment for _, payment in possible])
    if clock is None:
        return PaymentStillUnknown(reason=f"PayNexus did not say what time it is. {_ADVICE}")
    return _none(sought, clock)


def _match(sought: Sought, payment: Payment, clock: _Clock | None, *, is_described: bool) -> _Match:
    """Compare what an item tells with what was sent."""
    intent = sought.intent
    if payment.amount is not None and payment.amount != intent.amount:
        return _Match.NO
    if payment.phone is not None and not phones_agree(intent.phone, payment.phone):
        return _Match.NO
    describes = _describes(intent, payment)
    is_timely = _is_timely(sought, payment, clock)
    if is_timely is _Timely.FAR or (is_timely is _Timely.NEAR and describes is False):
        return _Match.NO
    is_whole = payment.amount is not None and payment.phone is not None and _has_name(payment)
    if not is_whole or is_timely is not _Timely.YES or describes is False:
        return _Match.MAYBE
    if is_described and intent.description and describes is None:
        return _Match.MAYBE
    # A masked phone is that of many.
    return _Match.LIKELY if describes or _is_phone(intent, payment) else _Match.MAYBE


class _Timely(Enum):
    """Whether a payment was made when the prompt was sent."""

    YES = "yes"
    NEAR = "not by these clocks"
    FAR = "not by any"
    UNTOLD = "it cannot be told"


def _is_timely(sought: Sought, payment: Payment, clock: _Clock | None) -> _Timely:
    if clock is None or payment.created_at is None:
        return _Timely.UNTOLD
    begin, end = clock.window(sought)
    if begin <= payment.created_at <= end:
        return _Timely.YES
    near = begin - _TRUSTED <= payment.created_at <= end + _TRUSTED
    return _Timely.NEAR if near else _Timely.FAR


def _describes(intent: Intent, payment: Payment) -> bool | None:
    """Whether a payment bears the description that was sent; `None` if one of them has none."""
    if not intent.description or not payment.description:
        return None
    return intent.description.split() == payment.description.split()


def _is_phone(intent: Intent, payment: Payment) -> bool:
    try:
        return normalize_phone(payment.phone or "") == intent.phone
    except InvalidRequestError:
        return False


def _has_name(payment: Payment) -> bool:
    try:
        expectation_of(payment)
    except InvalidRequestError:
        return False
    return True


def _may_be_of(rival: Sought, payment: Payment, clock: _Clock | None) -> bool:
    """Whether a payment may be that of another prompt, of which no payment is known either."""
    is_timely = _is_timely(rival, payment, clock)
    return is_timely is not _Timely.FAR and _describes(rival.intent, payment) is not False


# --- In words

_ADVICE: Final = "Do not initiate again: look in the PayNexus dashboard, or ask the customer"
_TOO_EARLY: Final = PaymentStillUnknown(
    reason=(
        "PayNexus lists no such payment yet, and it is too early to say that there is none: "
        f"look again {SETTLE_SECONDS:.0f} s after the answer was lost"
    )
)


def _not_seen(error: PayNexusError) -> PaymentStillUnknown:
    reason = f"PayNexus's list could not be read: {error.message}. {_ADVICE}"
    return PaymentStillUnknown(reason=reason, error=error)


def _undecided(why: str, candidates: list[Payment]) -> PaymentStillUnknown:
    reason = f"It cannot be told which payment it is: {why}. Compare the candidates. {_ADVICE}"
    return PaymentStillUnknown(reason=reason, candidates=tuple(candidates[:_CANDIDATES_MAX]))


def _none(sought: Sought, clock: _Clock) -> NoPaymentFound:
    seen_from, seen_to = clock.window(sought)[0], clock.server_at
    what = f"KES {sought.intent.amount} from {mask_phones(sought.intent.phone)}"
    span = f"{seen_from.astimezone(UTC):%H:%M:%S} to {seen_to.astimezone(UTC):%H:%M:%S} UTC"
    reason = (
        f"PayNexus lists no payment of {what} made from {span}. A request that was lost can still "
        "arrive late: a second prompt needs allow_duplicate=True"
    )
    return NoPaymentFound(seen_from=seen_from, seen_to=seen_to, reason=reason)
