"""What the sandbox can play: timelines of a payment's life, and how to ask for them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import attrs

from ..phone import mask_phones, normalize_phone
from ..status import PaymentStatus

__all__ = [
    "FACTS",
    "MAGIC",
    "PERSON",
    "SCENARIOS",
    "Magic",
    "Scenario",
    "Step",
    "filled",
    "together",
]

FACTS: Final = ("reference", "checkout_request_id", "amount", "phone", "receipt")
"""What a field's text may speak of, in braces."""
PLACEHOLDER: Final = re.compile(r"\{(\w+)\}")


@attrs.frozen
class Step:
    """One moment in a payment's life.

    Attributes:
        at_seconds: the payment's age from which this holds.
        status: the status that answers tell; any text, documented or not.
        fields: further fields of answers, which replace the ordinary ones; `None` is sent as null,
            and `{reference}`, `{checkout_request_id}`, `{amount}`, `{phone}` and `{receipt}` in a
            text as the payment's own. A text that is nothing but `{amount}` is sent as a number.
    """

    at_seconds: float
    status: str
    fields: Mapping[str, object] = attrs.field(factory=dict)


@attrs.frozen
class Scenario:
    """A payment's life, from the prompt to its end.

    Attributes:
        name: by which it is asked for.
        steps: in the order of time; before the first one, the payment is `initiated`.
        missing: fields that its status answers leave out.
        initiate: further fields of the answer to initiate, as those of a step.
        phone: any prompt to it plays this, unless a script says otherwise; `None` for no such.
        amount: any prompt for it, in KES, does too.
    """

    name: str
    steps: tuple[Step, ...] = ()
    missing: frozenset[str] = frozenset()
    initiate: Mapping[str, object] = attrs.field(factory=dict)
    phone: str | None = attrs.field(default=None, repr=False)
    amount: int | None = None

    def at(self, age_seconds: float) -> Step:
        """Return the step that holds at this age."""
        current = Step(0.0, PaymentStatus.INITIATED)
        for step in self.steps:
            if age_seconds >= step.at_seconds:
                current = step
        return current

    def turned(self, age_seconds: float, *steps: Step) -> Scenario:
        """Return this with another end: what was to come from this age on does not happen."""
        past = tuple(step for step in self.steps if step.at_seconds < age_seconds)
        return attrs.evolve(self, steps=(*past, *steps))


def _failed(at_seconds: float, reason: str) -> Step:
    return Step(at_seconds, "failed", {"failure_reason": reason})


_ANSWERED: Final = Step(4, "processing")
_PAID: Final = Step(9, "completed")
_NULLS: Final = dict.fromkeys(
    ("phone", "transaction_id", "provider_transaction_id", "completed_at")
)

_IGNORED: Final = Step(60, "expired", {"failure_reason": "No response from user"})

PERSON: Final = Scenario("person", (_IGNORED,))
"""Somebody holds the phone: types the PIN, declines, or does nothing for a minute."""

SCENARIOS: Final[Mapping[str, Scenario]] = {
    scenario.name: scenario
    for scenario in (
        Scenario("paid", (_ANSWERED, _PAID)),
        Scenario("instant", (Step(0, "completed"),)),
        Scenario("slow", (Step(40, "processing"), Step(55, "completed"))),
        Scenario(
            "cancelled", (Step(7, "cancelled", {"failure_reason": "Request cancelled by user"}),)
        ),
        Scenario("wrong-pin", (_ANSWERED, _failed(8, "Wrong PIN entered"))),
        Scenario("insufficient", (_ANSWERED, _failed(8, "Insufficient balance"))),
        Scenario("expired", (_IGNORED,)),
        PERSON,
        Scenario("stuck", (_ANSWERED,)),
        Scenario("late", (Step(60, "expired"), Step(90, "completed"))),
        Scenario("undocumented", (Step(3, "pending"), Step(6, "processing"), _PAID)),
        Scenario("stale", (_ANSWERED, Step(8, "initiated"), Step(12, "completed"))),
        Scenario(
            "bare",
            (
                Step(0, "initiated", _NULLS),
                Step(4, "processing", _NULLS),
                Step(9, "completed", _NULLS),
            ),
            missing=frozenset(
                {
                    "id",
                    "reference",
                    "checkout_request_id",
                    "amount",
                    "currency",
                    "payment_method",
                    "description",
                    "created_at",
                    "updated_at",
                }
            ),
        ),
        Scenario("other-amount", (_ANSWERED, Step(9, "completed", {"amount": "1.00"}))),
        Scenario("other-phone", (_ANSWERED, Step(9, "completed", {"phone": "254700000099"}))),
        Scenario(
            "other-reference", (_ANSWERED, Step(9, "completed", {"reference": "PNXOTHER0000"}))
        ),
    )
}
"""Every scenario by its name; seconds of the payment's age."""


@attrs.frozen
class Magic:
    """A phone number and an amount that ask for a scenario by themselves.

    Attributes:
        scenario: its name.
        phone: any prompt to it plays the scenario.
        amount: any prompt for it, in KES, does too (within the sandbox environment's 50).
        happens: what a merchant will see.
    """

    scenario: str
    phone: str
    amount: int
    happens: str


_MAGIC: Final = (
    ("instant", "completed at the first look"),
    ("slow", "processing after 40 s, completed after 55 s"),
    ("cancelled", "cancelled after 7 s"),
    ("wrong-pin", "failed after 8 s: Wrong PIN entered"),
    ("insufficient", "failed after 8 s: Insufficient balance"),
    ("expired", "expired after 60 s"),
    ("stuck", "processing, for ever"),
    ("late", "expired after 60 s, completed after 90 s"),
    ("undocumented", "`pending` on the way to completed"),
    ("stale", "processing, `initiated` again, completed"),
    ("bare", "completed, in answers that hold little more than the status"),
    ("other-amount", "completed, with another amount"),
    ("other-phone", "completed, with another phone"),
    ("other-reference", "completed, with another reference"),
)

MAGIC: Final = tuple(
    Magic(scenario, f"07000000{number:02}", 30 + number, happens)
    for number, (scenario, happens) in enumerate(_MAGIC, start=1)
)
"""The table of phones and amounts; whatever is not in it is `paid`: completed after 9 s."""


def together(scenarios: Mapping[str, Scenario]) -> Mapping[str, Scenario]:
    """Return the sandbox's scenarios and these.

    Raises:
        ValueError: if one takes a name, a phone or an amount that another one has.
    """
    names = {**SCENARIOS}
    asked_by: dict[str, str] = {}
    for magic in MAGIC:
        asked_by |= {normalize_phone(magic.phone): magic.scenario}
        asked_by |= {f"KES {magic.amount}": magic.scenario}
    for name, scenario in scenarios.items():
        if name in names:
            msg = f"there is a scenario {name!r} in the sandbox already: choose another name"
            raise ValueError(msg)
        names[name] = scenario
        asked = [] if scenario.phone is None else [normalize_phone(scenario.phone)]
        asked += [] if scenario.amount is None else [f"KES {scenario.amount}"]
        for sign in asked:
            if sign in asked_by:
                taken = f"{mask_phones(sign)} plays {asked_by[sign]!r} already"
                msg = f"scenario {name!r}: {taken}: choose another"
                raise ValueError(msg)
            asked_by[sign] = name
    return names


def filled(fields: Mapping[str, object], facts: Mapping[str, object]) -> dict[str, object]:
    """Return *fields* with the payment's own facts in the place of their names in braces."""
    return {name: _fill(value, facts) for name, value in fields.items()}


def _fill(value: object, facts: Mapping[str, object]) -> object:
    if not isinstance(value, str):
        return value
    whole = PLACEHOLDER.fullmatch(value)
    if whole and whole[1] in facts:
        return facts[whole[1]]
    return PLACEHOLDER.sub(lambda name: str(facts.get(name[1], name[0])), value)
