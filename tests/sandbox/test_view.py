"""What a page shows: which phones, payments and calls, and what of them has changed."""

from __future__ import annotations

import json
from typing import Any

from paynexus_async.sandbox import BALANCE, FAULTS, PIN, SECRET_KEY, Fault, Ledger, Request
from paynexus_async.sandbox._view import (
    CALLS_SHOWN_MAX,
    DELIVERIES_SHOWN_MAX,
    PAYMENTS_SHOWN_MAX,
    PHONES_SHOWN_MAX,
    changes,
    view,
)

NOON = 1_769_498_238.0


class World:
    """A ledger whose customers are people, and its clock."""

    def __init__(self, **options: Any) -> None:
        self.now = NOON
        self.ledger = Ledger(clock=lambda: self.now, **{"customer": "person", **options})

    def prompt(self, phone: str = "0746990866", amount: int = 100, **fields: Any) -> str:
        body = json.dumps({"phone": phone, "amount": amount, **fields}).encode()
        reply = self.ledger.handle(Request("POST", "/mpesa/payment/initiate", SECRET_KEY, body))
        reference: str = reply.document["data"]["reference"]  # type: ignore[index]
        return reference

    def shown(self, kind: str) -> dict[str, Any]:
        return {
            name.partition("/")[2]: part
            for name, part in view(self.ledger).items()
            if name.partition("/")[0] == kind
        }


def test_a_prompt_brings_its_phone_and_the_call():
    """All that somebody needs to answer it, and what the code under test did."""
    world = World(plan="trial")
    reference = world.prompt(description="Order #12345")
    assert world.shown("phone") == {"254746990866": {"phone": "254746990866", "balance": BALANCE}}
    payment = world.shown("payment")[reference]
    assert (payment["phone"], payment["amount"]) == ("254746990866", 100)
    assert (payment["status"], payment["waits"]) == ("initiated", True)
    assert (payment["description"], payment["scenario"]) == ("Order #12345", "person")
    assert (payment["sent_at"], payment["expires_at"]) == (NOON, NOON + 60)
    call = world.shown("call")["1"]
    assert (call["path"], call["key_kind"]) == ("/mpesa/payment/initiate", "sk_")
    assert (call["status_code"], call["remaining"]) == (200, 29)


def test_after_the_pin_the_money_has_moved():
    """A receipt, the moment, and what is left."""
    world = World()
    reference = world.prompt()
    world.ledger.enter_pin(reference, PIN)
    assert world.shown("payment")[reference]["status"] == "processing"
    assert not world.shown("payment")[reference]["waits"]
    world.now += 2
    payment = world.shown("payment")[reference]
    assert (payment["status"], payment["since"]) == ("completed", NOON + 2)
    assert payment["receipt"] == world.ledger.records[0].receipt
    assert payment["balance"] == world.shown("phone")["254746990866"]["balance"] == BALANCE - 100
    assert payment["expires_at"] is None


def test_a_scenario_is_named_and_waits_for_nobody():
    """Nor does it run out, where its customer answers."""
    world = World()
    world.ledger.script("wrong-pin")
    reference = world.prompt()
    payment = world.shown("payment")[reference]
    assert (payment["scenario"], payment["waits"]) == ("wrong-pin", False)
    assert payment["expires_at"] is None
    world.now += 8
    assert world.shown("payment")[reference]["failure_reason"] == "Wrong PIN entered"


def test_it_is_bounded_and_shows_who_is_busy():
    """Not the phones that came first, but those that were prompted last."""
    world = World()
    phones = [f"07110000{number:02}" for number in range(PHONES_SHOWN_MAX + 3)]
    for phone in phones:
        world.prompt(phone)
    world.prompt(phones[0])
    shown = [*world.shown("phone")]
    assert len(shown) == PHONES_SHOWN_MAX
    assert shown[0] == f"254{phones[0][1:]}"  # where it stood before
    assert shown[1:] == [f"254{phone[1:]}" for phone in phones[4:]]
    assert view(world.ledger)["sandbox"]["phones_hidden"] == 3  # type: ignore[index]
    for _ in range(CALLS_SHOWN_MAX):
        world.prompt()
    assert next(iter(world.shown("call"))) == str(PHONES_SHOWN_MAX + 5)
    assert len(world.shown("call")) == CALLS_SHOWN_MAX


def test_a_prompt_that_waits_is_shown_however_many_came_after_it():
    """It would expire unseen."""
    world = World()
    first = world.prompt()
    for _ in range(2 * PAYMENTS_SHOWN_MAX):
        world.prompt()
    shown = world.shown("payment")
    assert first in shown
    assert len(shown) == 2 * PAYMENTS_SHOWN_MAX
    for prompt in world.ledger.open_prompts("0746990866"):
        world.ledger.decline(prompt.reference)
    assert first not in world.shown("payment")


def test_a_delivery_is_shown_with_how_it_went():
    """Without its body, in which a phone is; the latest of them."""
    world = World(plan="basic")
    world.ledger.webhooks.register("http://127.0.0.1:9/hook", events=["payment.initiated"])
    reference = world.prompt()
    (post,) = world.ledger.webhooks.due()
    delivery = world.shown("delivery")["1"]
    assert (delivery["event"], delivery["reference"]) == ("payment.initiated", reference)
    assert (delivery["attempt"], delivery["status_code"]) == (0, None)
    assert "254746990866" not in json.dumps(delivery)
    world.ledger.webhooks.answered(post.delivery, 200)
    assert world.shown("delivery")["1"]["acknowledged"]
    for _ in range(DELIVERIES_SHOWN_MAX):
        world.ledger.webhooks.resend(post.delivery)
    assert [*world.shown("delivery")] == [str(n) for n in range(2, DELIVERIES_SHOWN_MAX + 2)]


def test_a_fault_is_shown_from_its_order_until_it_is_used_up_or_taken_back():
    """Beside the kinds that there are, which never change."""
    world = World()
    kinds = view(world.ledger)["faults"]
    assert [kind["name"] for kind in kinds] == [*FAULTS]  # type: ignore[attr-defined]
    world.ledger.faults.add(Fault("502-after", call="initiate", times=2))
    taken_back = world.ledger.faults.add(Fault("reset-after", call="list"))
    assert (world.shown("fault")["1"]["kind"], world.shown("fault")["1"]["struck"]) == (
        "502-after",
        0,
    )
    initiate = Request("POST", "/mpesa/payment/initiate")
    world.ledger.faults.strike(initiate)
    assert world.shown("fault")["1"]["struck"] == 1
    world.ledger.faults.strike(initiate)
    assert [*world.shown("fault")] == ["2"]
    world.ledger.faults.remove(taken_back.id)
    assert world.shown("fault") == {}


def test_changes_are_what_is_new_different_or_gone():
    """And nothing else."""
    old = {"same": 1, "moved": 1, "gone": 1}
    assert changes(old, {"same": 1, "moved": 2, "new": 3}) == {"gone": None, "moved": 2, "new": 3}
    assert changes(old, old) == {}
    assert changes({}, old) == old
