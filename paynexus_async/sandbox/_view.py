"""What a page shows of a ledger: a document in named parts, so that changes are told by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import attrs

from ._engine import BUSINESS, PIN, SECRET_KEY, Ledger, Prompt
from ._faults import CALLS, FAULTS, Rule

if TYPE_CHECKING:
    from ._webhooks import Delivery

__all__ = ["FAULT_KINDS", "View", "changes", "delivery_shown", "rule_shown", "view"]

View = Mapping[str, object]
"""Parts by name: `sandbox`, `phone/254746990866`, `payment/PNXABC123DEF`, `call/17`,
`delivery/3`, `fault/2` (one that is ordered), and `faults` (those that there are)."""

PHONES_SHOWN_MAX: Final = 12
PAYMENTS_SHOWN_MAX: Final = 6
CALLS_SHOWN_MAX: Final = 100
DELIVERIES_SHOWN_MAX: Final = 50
_PAYMENTS_LOOKED_AT: Final = 500

FAULT_KINDS: Final = tuple(
    {
        "name": kind.name,
        "happens": kind.happens,
        "calls": [call for call in CALLS if call in {"any", *kind.calls}],
        "seconds": kind.seconds,
    }
    for kind in FAULTS.values()
)
"""Every kind of fault that can be ordered."""


def view(ledger: Ledger) -> View:
    """Return all that a page shows now: the phones that were busy last, with what they saw last."""
    phones = _phones(ledger)
    parts: dict[str, object] = {
        "sandbox": {
            "business": BUSINESS,
            "customer": ledger.customer.name,
            "key": SECRET_KEY,  # the page sends prompts with it; everybody may know it
            "phones_hidden": len(ledger.phones) - len(phones),
            "pin": PIN,
            "scenarios": [*ledger.scenarios],
        },
        "faults": FAULT_KINDS,
    }
    for phone in phones:
        parts[f"phone/{phone}"] = {"phone": phone, "balance": ledger.balance(phone)}
        for prompt in _prompts(ledger, phone):
            parts[f"payment/{prompt.reference}"] = _payment(ledger, prompt)
    for call in ledger.calls[-CALLS_SHOWN_MAX:]:
        parts[f"call/{call.number}"] = attrs.asdict(call)
    for delivery in ledger.webhooks.deliveries[-DELIVERIES_SHOWN_MAX:]:
        parts[f"delivery/{delivery.number}"] = delivery_shown(delivery)
    for rule in ledger.faults.rules:
        parts[f"fault/{rule.id}"] = rule_shown(rule)
    return parts


def changes(old: View, new: View) -> View:
    """Return the parts that are new or different, and `None` for those that are gone."""
    gone = dict.fromkeys(name for name in old if name not in new)
    return {**gone, **{name: part for name, part in new.items() if old.get(name) != part}}


def delivery_shown(delivery: Delivery) -> Mapping[str, object]:
    """Show how a delivery went, without its body, which holds a phone."""
    return {
        "id": delivery.number,
        "event": delivery.event,
        "reference": delivery.reference,
        "url": delivery.url,
        "attempt": delivery.attempt,
        "status_code": delivery.status_code,
        "error": delivery.error,
        "at": delivery.at,
        "due_at": delivery.due_at,
        "acknowledged": delivery.acknowledged,
        "disorder": sorted(delivery.disorder),
    }


def rule_shown(rule: Rule) -> Mapping[str, object]:
    """Show an ordered fault, and how often it struck."""
    fault = rule.fault
    return {
        "id": rule.id,
        "kind": fault.kind,
        "call": fault.call,
        "times": fault.times,
        "probability": fault.probability,
        "seed": fault.seed,
        "seconds": fault.seconds,
        "struck": rule.struck,
    }


def _phones(ledger: Ledger) -> list[str]:
    """Choose the phones to show, in the order in which they appeared."""
    busy = (record.prompt.phone for record in reversed(ledger.records[-_PAYMENTS_LOOKED_AT:]))
    newest = dict.fromkeys((*busy, *reversed(ledger.phones)))
    shown = set([*newest][:PHONES_SHOWN_MAX])
    return [phone for phone in ledger.phones if phone in shown]


def _prompts(ledger: Ledger, phone: str) -> list[Prompt]:
    """Choose the payments to show: those that wait for an answer first, and the latest."""
    latest = [record.prompt for record in ledger.payments_of(phone)[-PAYMENTS_SHOWN_MAX:]]
    waiting = ledger.open_prompts(phone)[:PAYMENTS_SHOWN_MAX]
    return [*(prompt for prompt in waiting if prompt not in latest), *latest]


def _payment(ledger: Ledger, prompt: Prompt) -> Mapping[str, object]:
    truth = ledger.payment(prompt.reference)
    return {
        **attrs.asdict(truth),
        "description": prompt.description,
        "sent_at": prompt.sent_at,
        "balance": ledger.balance_after(prompt.reference),
    }
