"""What a page shows of a ledger: a document in named parts, so that changes are told by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from ._engine import BUSINESS, PIN, SECRET_KEY, Ledger, Prompt

__all__ = ["View", "changes", "view"]

View = Mapping[str, object]
"""Parts by name: `sandbox`, `phone/254746990866`, `payment/PNXABC123DEF`, `call/17`."""

PHONES_SHOWN_MAX: Final = 12
PAYMENTS_SHOWN_MAX: Final = 6
CALLS_SHOWN_MAX: Final = 100
_PAYMENTS_LOOKED_AT: Final = 500


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
        }
    }
    for phone in phones:
        parts[f"phone/{phone}"] = {"phone": phone, "balance": ledger.balance(phone)}
        for prompt in _prompts(ledger, phone):
            parts[f"payment/{prompt.reference}"] = _payment(ledger, prompt)
    for call in ledger.calls[-CALLS_SHOWN_MAX:]:
        parts[f"call/{call.number}"] = attrs.asdict(call)
    return parts


def changes(old: View, new: View) -> View:
    """Return the parts that are new or different, and `None` for those that are gone."""
    gone = dict.fromkeys(name for name in old if name not in new)
    return {**gone, **{name: part for name, part in new.items() if old.get(name) != part}}


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
