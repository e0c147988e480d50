"""The prompts that may be open on phones: no second one for the same phone and amount.

Pure: times come in as arguments.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import attrs

from ._discreet import quoted
from ._wire import never_sent
from .exceptions import DuplicatePaymentError, PaymentMismatchError, PaymentOutcomeUnknown
from .models import Attempt
from .phone import mask_phones

if TYPE_CHECKING:
    from datetime import datetime

    from ._wire import Intent
    from .models import Payment

__all__ = ["PROMPT_LIFE_SECONDS", "Prompt", "Prompts", "refusal"]

PROMPT_LIFE_SECONDS: Final = 120.0
"""A prompt lives about a minute on a phone; after twice that, asking may prove that it is over."""

_PROMPTS_MAX: Final = 100_000
_NAMES_REMEMBERED_MAX: Final = 20_000
_MOMENT: Final = timedelta(microseconds=1)


class Prompt:
    """One attempt to prompt a phone: on its way, open, or unknown.

    It stays the same one where it is sent again because nothing had left.

    Attributes:
        intent: what was asked.
        sent_at: when, the last time, on the event loop's clock, in seconds.
        attempt: the same for people and for other processes; its `sent_at` tells it from others.
        lost_at: when its answer was lost, on the event loop's clock.
        payment: what is known of it; `None` while its answer is on the way, or was lost.
        has_caller: whether somebody is there who may send it again.
        has_left: whether a byte of it may have left this machine.
    """

    __slots__ = ("attempt", "has_caller", "has_left", "intent", "lost_at", "payment", "sent_at")

    def __init__(self, intent: Intent, sent_at: float, attempt: Attempt) -> None:
        """Begin on the way."""
        self.intent = intent
        self.sent_at = sent_at
        self.attempt = attempt
        self.payment: Payment | None = None
        self.lost_at: float | None = None
        self.has_caller = True
        self.has_left = True

    @property
    def unknown(self) -> bool:
        """Whether its answer was lost."""
        return self.lost_at is not None


@attrs.frozen
class _Owner:
    """Whose payment one is.

    Attributes:
        attempt: which prompt's.
        is_told: whether the answer to that prompt said so; else it was found in the list.
    """

    attempt: Attempt
    is_told: bool


class Prompts:
    """The prompts of one client that are not known to be over, by phone and amount."""

    def __init__(self) -> None:
        """Know no prompt."""
        self._prompts: dict[tuple[str, int], list[Prompt]] = {}
        self._by_name: dict[str, Prompt] = {}
        self._owners: OrderedDict[str, _Owner] = OrderedDict()
        self._count = 0

    def open_like(self, intent: Intent, beside: Prompt | None = None) -> Prompt | None:
        """Return a prompt for the same phone and amount that is not known to be over.

        Of several, the first whose payment is known: that one can be followed.

        Args:
            intent: what is asked.
            beside: which prompt is none of them, if there is one already.
        """
        equal = self._prompts.get((intent.phone, intent.amount), ())
        prompts = [prompt for prompt in equal if prompt is not beside]
        known = (prompt for prompt in prompts if prompt.payment is not None)
        return next(known, prompts[0] if prompts else None)

    def rivals_of(self, attempt: Attempt) -> list[Prompt]:
        """Return the other prompts for the same phone and amount of which no payment is known."""
        prompts = self._prompts.get((attempt.phone, attempt.amount), ())
        return [p for p in prompts if p.payment is None and not p.attempt.is_that_of(attempt)]

    def of(self, attempt: Attempt) -> Prompt | None:
        """Return the prompt of an attempt, if it is not known to be over."""
        prompts = self._prompts.get((attempt.phone, attempt.amount), ())
        return next((p for p in prompts if p.attempt.is_that_of(attempt)), None)

    def is_that_of(self, payment: Payment, attempt: Attempt) -> bool | None:
        """Return whether a payment is that of an attempt, or another's; `None` if it is not known.

        One that was found for another attempt was the only one that could be, among the prompts
        that this client knew. An attempt that another client made may come to light only later: it
        may be that one's all the same, unless its description tells.
        """
        owner = self._owner_of(payment)
        if owner is None:
            return None
        if owner.attempt.is_that_of(attempt):
            return True
        is_sure = owner.is_told or self.of(attempt) is not None
        return False if is_sure or _tells_apart(payment, owner.attempt, attempt) else None

    def has_owner(self, payment: Payment) -> bool:
        """Return whether a payment is known, or was found, to be that of an attempt."""
        return self._owner_of(payment) is not None

    def _owner_of(self, payment: Payment) -> _Owner | None:
        return next((one for n in _names(payment) if (one := self._owners.get(n))), None)

    def begin(self, intent: Intent, now: float, at: datetime) -> Prompt:
        """Note that a prompt is about to be sent.

        Args:
            intent: what is asked.
            now: on the event loop's clock.
            at: by this machine's clock.
        """
        amount, phone, description = intent.amount, intent.phone, intent.description
        taken = {prompt.attempt.sent_at for prompt in self._prompts.get((phone, amount), ())}
        while at in taken:  # by this clock in the same moment: it tells one from the other
            at += _MOMENT
        attempt = Attempt(amount=amount, phone=phone, description=description, sent_at=at)
        return self._keep(Prompt(intent, now, attempt))

    def again(self, prompt: Prompt, now: float) -> None:
        """Note that a prompt of which nothing had left is about to be sent once more."""
        prompt.sent_at, prompt.has_left = now, True

    def leave(self, prompt: Prompt) -> None:
        """Note that nobody will send a prompt again: its caller has his answer, or is gone."""
        prompt.has_caller = False
        if not prompt.has_left:
            self._end(prompt)

    def adopt(self, intent: Intent, sent_at: float, attempt: Attempt) -> Prompt:
        """Take over an attempt of another process, or one that had been forgotten."""
        return self._keep(Prompt(intent, sent_at, attempt))

    def _keep(self, prompt: Prompt) -> Prompt:
        key = (prompt.intent.phone, prompt.intent.amount)
        self._prompts.setdefault(key, []).append(prompt)
        self._count += 1
        if self._count > _PROMPTS_MAX:
            self._end(next(iter(self._prompts.values()))[0])
        return prompt

    def settle(
        self, prompt: Prompt, outcome: Payment | Exception, now: float, at: datetime
    ) -> None:
        """Note what became of the attempt: only a proof that nothing was sent ends it.

        And of that, only where nobody may send it again: to those who were refused beside it, it
        is one prompt, however often it is tried. An error that leaves the payment unknown is told
        which attempt it is about.
        """
        if isinstance(outcome, PaymentMismatchError) and self._is_of_this(outcome):
            outcome = outcome.answered
        if isinstance(outcome, PaymentOutcomeUnknown | PaymentMismatchError):
            prompt.lost_at = now
            prompt.attempt = attrs.evolve(prompt.attempt, lost_at=at)
            outcome.attempt = prompt.attempt
        elif isinstance(outcome, Exception):
            prompt.has_left = not never_sent(outcome)
            if prompt.has_left or not prompt.has_caller:
                self._end(prompt)
        else:
            self._own(prompt, outcome, is_told=True)

    def found(self, prompt: Prompt, payment: Payment) -> None:
        """Note which payment was found for a prompt, as if its answer had come."""
        self._own(prompt, payment, is_told=False)

    def _own(self, prompt: Prompt, payment: Payment, *, is_told: bool) -> None:
        prompt.payment = payment
        for name in _names(payment):
            self._by_name[name] = prompt
            self._owners[name] = _Owner(prompt.attempt, is_told)
            if len(self._owners) > _NAMES_REMEMBERED_MAX:
                self._owners.popitem(last=False)
        self.observe(payment)

    def _is_of_this(self, error: PaymentMismatchError) -> bool:
        """Whether a mismatching answer is about the prompt just sent, and not another payment's.

        A wrong one would end this prompt when that payment ends. So it has a name that is new here,
        the same phone, and has not ended.
        """
        names = _names(error.answered)
        is_new = bool(names) and self._by_name.keys().isdisjoint(names)
        return is_new and "phone" not in error.differences and not error.answered.is_terminal

    def observe(self, payment: Payment) -> None:
        """Note what an answer tells about a payment; a prompt whose payment has ended is over."""
        prompt = next((p for n in _names(payment) if (p := self._by_name.get(n))), None)
        if prompt is None:
            return
        prompt.payment = payment
        if payment.is_terminal:
            self._end(prompt)

    def _end(self, prompt: Prompt) -> None:
        key = (prompt.intent.phone, prompt.intent.amount)
        others = [other for other in self._prompts.get(key, ()) if other is not prompt]
        if others:
            self._prompts[key] = others
        else:
            self._prompts.pop(key, None)
        self._count -= 1
        for name in [] if prompt.payment is None else _names(prompt.payment):
            self._by_name.pop(name, None)


def _names(payment: Payment) -> list[str]:
    return [name for name in (payment.reference, payment.checkout_request_id) if name]


def _tells_apart(payment: Payment, owner: Attempt, other: Attempt) -> bool:
    """Whether a payment bears the description of the one attempt, and not that of the other."""
    words, mine, others = ((one.description or "").split() for one in (payment, owner, other))
    return bool(words) and words == mine and words != others


def refusal(prompt: Prompt) -> DuplicatePaymentError:
    """Build the error that refuses a second prompt beside this one."""
    what = f"a prompt for KES {prompt.intent.amount} to {mask_phones(prompt.intent.phone)}"
    if prompt.payment is not None:
        reference = prompt.payment.reference
        name = quoted(reference, is_name=True) if reference else "by its checkout request id"
        state = f"{what} is still {quoted(prompt.payment.status_text)}: follow payment {name}"
    elif prompt.unknown:
        state = f"{what} was sent and its answer was lost: find_payment() looks for its payment"
    else:
        state = f"{what} is being sent: wait for its answer"
    msg = (
        f"{state}, instead of charging twice. Nothing was sent now; "
        "allow_duplicate=True sends a second prompt all the same"
    )
    attempt = prompt.attempt if prompt.payment is None else None
    return DuplicatePaymentError(msg, payment=prompt.payment, attempt=attempt)
