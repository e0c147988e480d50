"""The prompts that may be open on phones: no second one for the same phone and amount.

Pure: times come in as arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ._discreet import quoted
from .exceptions import DuplicatePaymentError, PaymentMismatchError, PaymentOutcomeUnknown
from .phone import mask_phones

if TYPE_CHECKING:
    from ._wire import Intent
    from .models import Payment

__all__ = ["PROMPT_LIFE_SECONDS", "Prompt", "Prompts", "refusal"]

PROMPT_LIFE_SECONDS: Final = 120.0
"""A prompt lives about a minute on a phone; after twice that, asking may prove that it is over."""

_PROMPTS_MAX: Final = 100_000


class Prompt:
    """One attempt to prompt a phone: on its way, open, or unknown.

    Attributes:
        intent: what was asked.
        sent_at: when, on the client's clock, in seconds.
        payment: what is known of it; `None` while its answer is on the way, or was lost.
        unknown: whether its answer was lost.
    """

    __slots__ = ("intent", "payment", "sent_at", "unknown")

    def __init__(self, intent: Intent, sent_at: float) -> None:
        """Begin on the way."""
        self.intent = intent
        self.sent_at = sent_at
        self.payment: Payment | None = None
        self.unknown = False


class Prompts:
    """The prompts of one client that are not known to be over, by phone and amount."""

    def __init__(self) -> None:
        """Know no prompt."""
        self._prompts: dict[tuple[str, int], list[Prompt]] = {}
        self._by_name: dict[str, Prompt] = {}
        self._count = 0

    def open_like(self, intent: Intent) -> Prompt | None:
        """Return a prompt for the same phone and amount that is not known to be over."""
        prompts = self._prompts.get((intent.phone, intent.amount))
        return prompts[0] if prompts else None

    def begin(self, intent: Intent, now: float) -> Prompt:
        """Note that a prompt is about to be sent."""
        prompt = Prompt(intent, now)
        self._prompts.setdefault((intent.phone, intent.amount), []).append(prompt)
        self._count += 1
        if self._count > _PROMPTS_MAX:
            self._end(next(iter(self._prompts.values()))[0])
        return prompt

    def settle(self, prompt: Prompt, outcome: Payment | Exception) -> None:
        """Note what became of the attempt: only a proof that nothing was sent ends it."""
        if isinstance(outcome, PaymentMismatchError) and self._is_of_this(outcome):
            outcome = outcome.answered
        if isinstance(outcome, PaymentOutcomeUnknown | PaymentMismatchError):
            prompt.unknown = True
        elif isinstance(outcome, Exception):
            self._end(prompt)
        else:
            prompt.payment = outcome
            for name in _names(outcome):
                self._by_name[name] = prompt
            self.observe(outcome)

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


def refusal(prompt: Prompt) -> DuplicatePaymentError:
    """Build the error that refuses a second prompt beside this one."""
    what = f"a prompt for KES {prompt.intent.amount} to {mask_phones(prompt.intent.phone)}"
    if prompt.payment is not None:
        reference = prompt.payment.reference
        name = quoted(reference, is_name=True) if reference else "by its checkout request id"
        state = f"{what} is still {quoted(prompt.payment.status_text)}: follow payment {name}"
    elif prompt.unknown:
        state = f"{what} was sent and its answer was lost: find out whether the customer paid"
    else:
        state = f"{what} is being sent: wait for its answer"
    msg = (
        f"{state}, instead of charging twice. Nothing was sent now; "
        "allow_duplicate=True sends a second prompt all the same"
    )
    return DuplicatePaymentError(msg, payment=prompt.payment)
