"""The ledger: what the documented calls answer, and what is true behind them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paynexus_async.sandbox import (
    BALANCE,
    MAGIC,
    PIN,
    PLANS,
    PUBLIC_KEY,
    SANDBOX_KEY,
    SCENARIOS,
    SECRET_KEY,
    Ledger,
    Plan,
    Request,
    Scenario,
    Step,
    _engine,
)

PHONE = "254746990866"
NOON = 1_769_498_238.0  # 27 January 2026, 10:17:18 in Nairobi


class World:
    """A ledger, its clock, and a shorthand for calls."""

    def __init__(self, **options: Any) -> None:
        self.now = NOON
        self.ledger = Ledger(clock=lambda: self.now, **options)

    def call(
        self, method: str, path: str, body: Any = None, key: str | None = SECRET_KEY, **query: str
    ):
        raw = (
            body
            if isinstance(body, bytes)
            else json.dumps(body).encode()
            if body is not None
            else b""
        )
        return self.ledger.handle(Request(method, path, key, raw, query))

    def initiate(self, key: str = SECRET_KEY, **fields: Any) -> Any:
        body = {"amount": 100, "phone": "0746990866", "description": "Order #12345", **fields}
        return self.call("POST", "/mpesa/payment/initiate", body, key)

    def status(self, reference: str) -> Any:
        return self.call("GET", f"/payments/{reference}", key=PUBLIC_KEY).document["data"]


@pytest.fixture
def world() -> World:
    return World()


def test_initiating_answers_as_documented_and_prompts_once(world: World):
    """The documented example, field by field."""
    reply = world.initiate()
    data = reply.document["data"]
    assert (reply.status_code, reply.document["success"]) == (200, True)
    assert {k: data[k] for k in ("amount", "phone", "status")} == {
        "amount": 100,
        "phone": PHONE,
        "status": "initiated",
    }
    assert data["reference"].startswith("PNX")
    assert len(data["reference"]) == 12
    assert data["checkout_request_id"] == "ws_CO_27012026101718000746990866"
    (prompt,) = world.ledger.prompts
    assert (prompt.phone, prompt.amount, prompt.description) == (PHONE, 100, "Order #12345")
    assert world.ledger.prompted("0746990866") == 1
    assert PHONE not in repr(prompt)


def test_a_payment_lives_and_is_asked_for_both_ways(world: World):
    """By reference and by checkout request id, with an amount as text and a receipt at the end."""
    data = world.initiate().document["data"]
    assert world.status(data["reference"])["status"] == "initiated"
    world.now += 4
    assert world.status(data["reference"])["status"] == "processing"
    world.now += 5
    body = {"checkout_request_id": data["checkout_request_id"]}
    by_id = world.call("POST", "/payments/status-by-checkout-id", body, PUBLIC_KEY).document["data"]
    assert by_id == world.status(data["reference"])
    assert (by_id["status"], by_id["amount"], by_id["phone"]) == ("completed", "100.00", PHONE)
    assert by_id["created_at"] == "2026-01-27T10:17:18+03:00"
    assert by_id["completed_at"] == "2026-01-27T10:17:27+03:00"
    assert len(by_id["provider_transaction_id"]) == 10
    assert world.ledger.status(data["reference"]) == "completed"


def test_a_faster_life_changes_no_quota():
    """Speed is the customers', not the clock's."""
    world = World(speed=10, plan="trial")
    reference = world.initiate().document["data"]["reference"]
    world.now += 0.9
    assert world.status(reference)["status"] == "completed"
    reply = world.call("GET", "/payments")
    assert reply.headers["X-RateLimit-Reset"] == str(int(NOON) + 60)


@pytest.mark.parametrize(
    ("key", "path", "status_code"),
    [
        (None, "/payments/X", 401),
        ("", "/payments/X", 401),
        ("nonsense", "/payments/X", 401),
        ("sk_", "/payments/X", 401),
        (SECRET_KEY, "/payments/X", 404),
        (PUBLIC_KEY, "/payments/X", 404),
        (SANDBOX_KEY, "/payments/X", 404),
    ],
)
def test_keys_are_checked(world: World, key, path, status_code):
    """By their kind, and every kind may read."""
    reply = world.call("GET", path, key=key)
    assert reply.status_code == status_code
    assert reply.document["success"] is False
    assert {"error", "code", "message"} <= set(reply.document)


def test_only_the_keys_that_exist_are_taken():
    """Where a test says which."""
    world = World(keys=[SECRET_KEY])
    assert world.initiate().status_code == 200
    assert world.call("GET", "/payments", key="sk_other").status_code == 401


def test_a_public_key_cannot_initiate(world: World):
    """403, and no prompt."""
    assert world.initiate(key=PUBLIC_KEY).status_code == 403
    assert world.ledger.prompts == ()


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"amount": 0}, {"amount"}), ({"amount": 150_001}, {"amount"}), ({"amount": "100"}, {"amount"}),
        ({"amount": 1.5}, {"amount"}), ({"amount": True}, {"amount"}), ({"amount": None}, {"amount"}),
        ({"phone": "0202222222"}, {"phone"}), ({"phone": 746990866}, {"phone"}), ({"phone": None}, {"phone"}),
        ({"description": 5}, {"description"}), ({"description": "x" * 256}, {"description"}),
        ({"amount": 0, "phone": ""}, {"amount", "phone"}),
    ],
)  # fmt: skip
def test_a_bad_field_is_named(world: World, fields, refused):
    """422, with a list of messages for each, and no prompt."""
    reply = world.initiate(**fields)
    assert (reply.status_code, set(reply.document["errors"])) == (422, refused)
    assert world.ledger.prompts == ()


def test_the_sandbox_environment_has_its_own_limits(world: World):
    """50 KES a payment, 30 calls a day."""
    assert world.initiate(key=SANDBOX_KEY, amount=51).status_code == 422
    for _ in range(29):
        assert world.initiate(key=SANDBOX_KEY, amount=50).status_code == 200
    reply = world.initiate(key=SANDBOX_KEY, amount=50)
    assert (reply.status_code, reply.headers["Retry-After"]) == (429, "86400")
    world.now += 86_400
    assert world.initiate(key=SANDBOX_KEY, amount=50).status_code == 200


def test_a_plan_limits_each_key_by_the_minute():
    """With the headers on every answer, and the documented refusal."""
    world = World(plan="trial")
    first = world.call("GET", "/payments/X")
    assert first.headers == {
        "Date": "Tue, 27 Jan 2026 07:17:18 GMT",
        "X-RateLimit-Limit": "30",
        "X-RateLimit-Remaining": "29",
        "X-RateLimit-Reset": str(int(NOON) + 60),
    }
    for _ in range(29):
        world.call("GET", "/payments/X")
    world.now += 20
    reply = world.call("GET", "/payments/X")
    assert reply.status_code == 429
    assert reply.document == {
        "success": False,
        "error": "rate_limit_exceeded",
        "code": "RATE_LIMIT",
        "message": "Too many requests. Please try again later.",
        "retry_after": 40,
    }
    assert (reply.headers["Retry-After"], reply.headers["X-RateLimit-Remaining"]) == ("40", "0")
    assert world.call("GET", "/payments/X", key=PUBLIC_KEY).status_code == 404
    world.now += 40
    assert world.call("GET", "/payments/X").status_code == 404


def test_a_longer_window_counts_too():
    """The tightest one speaks."""
    world = World(plan=Plan("tiny", {60: 5, 3_600: 7}))
    codes = []
    for _ in range(2):
        codes += [world.call("GET", "/payments/X").status_code for _ in range(5)]
        world.now += 60
    assert codes == [404] * 7 + [429] * 3


@pytest.mark.parametrize(
    ("method", "path", "body", "status_code"),
    [
        ("GET", "/nowhere", None, 404), ("GET", "/mpesa/payment/initiate", None, 405),
        ("DELETE", "/payments/X", None, 405), ("PUT", "/payments", None, 405),
        ("POST", "/mpesa/payment/initiate", b"{", 400), ("POST", "/mpesa/payment/initiate", b"[]", 400),
        ("POST", "/mpesa/payment/initiate", b"[" * 60_000, 400),
        ("POST", "/mpesa/payment/initiate", b" " * 70_000, 413),
        ("POST", "/payments/status-by-checkout-id", {}, 422),
        ("POST", "/payments/status-by-checkout-id", {"checkout_request_id": "ws_CO_1"}, 404),
        ("POST", "/mpesa/validate-phone", {}, 422),
    ],
)  # fmt: skip
def test_what_is_not_documented_is_refused_in_the_documented_shape(
    world, method, path, body, status_code
):
    """One envelope for all errors."""
    reply = world.call(method, path, body)
    assert reply.status_code == status_code
    assert reply.document["success"] is False


@pytest.mark.parametrize(
    ("phone", "normalized"), [("0746990866", PHONE), ("+254 746 990866", PHONE), ("12345", None)]
)
def test_phones_are_validated(world: World, phone, normalized):
    """The documented answer."""
    data = world.call("POST", "/mpesa/validate-phone", {"phone": phone}, PUBLIC_KEY).document[
        "data"
    ]
    assert data == {
        "original": phone,
        "normalized": normalized,
        "valid": normalized is not None,
        "provider": "mpesa" if normalized else None,
    }


ENDS = {
    "paid": "completed", "instant": "completed", "slow": "completed", "cancelled": "cancelled",
    "wrong-pin": "failed", "insufficient": "failed", "expired": "expired", "stuck": "processing",
    "late": "completed", "undocumented": "completed", "stale": "completed", "bare": "completed",
    "other-amount": "completed", "other-phone": "completed", "other-reference": "completed",
    "person": "expired",
}  # fmt: skip


@pytest.mark.parametrize("magic", MAGIC, ids=lambda m: m.scenario)
def test_magic_phones_and_amounts_play_their_scenario(world: World, magic):
    """Both columns of the table, in both environments."""
    by_phone = world.initiate(phone=magic.phone).document["data"]["reference"]
    by_amount = world.initiate(amount=magic.amount, key=SANDBOX_KEY).document["data"]["reference"]
    assert [r.scenario.name for r in world.ledger.records] == [magic.scenario] * 2
    world.now += 1_000
    assert {world.ledger.status(r) for r in (by_phone, by_amount)} == {ENDS[magic.scenario]}


def test_every_scenario_has_an_end_written_here():
    """And all but the default, and the one that is up to somebody, have a magic number."""
    assert set(ENDS) == set(SCENARIOS) == {m.scenario for m in MAGIC} | {"paid", "person"}


def test_the_documented_example_is_paid(world: World):
    """100 KES to 0746990866 is no magic."""
    world.initiate()
    assert world.ledger.records[0].scenario.name == "paid"


def test_scripts_come_before_magic_and_are_used_once(world: World):
    """By phone first, then whoever comes next."""
    own = Scenario("mine", (Step(1, "reversed", {"amount": 5}),))
    world.ledger.script(own, phone="0746990866")
    world.ledger.script("stuck")
    for phone in ("0746990866", "0700000003", "0746990866"):
        world.initiate(phone=phone)
    assert [r.scenario.name for r in world.ledger.records] == ["mine", "stuck", "paid"]
    world.now += 1
    data = world.status(world.ledger.prompts[0].reference)
    assert (data["status"], data["amount"], data["completed_at"]) == ("reversed", 5, None)
    with pytest.raises(KeyError):
        world.ledger.script("nonsense")


@pytest.fixture
def held() -> World:
    """A world in which somebody holds the phone."""
    return World(customer="person")


def prompted(world: World, **fields: Any) -> str:
    reference: str = world.initiate(**fields).document["data"]["reference"]
    return reference


@pytest.mark.parametrize(
    ("act", "end", "reason"),
    [
        (lambda ledger, name: ledger.enter_pin(name, PIN), "completed", None),
        (lambda ledger, name: ledger.enter_pin(name, "0000"), "failed", "Wrong PIN entered"),
        (lambda ledger, name: ledger.decline(name), "cancelled", "Request cancelled by user"),
        (lambda ledger, name: None, "expired", "No response from user"),
    ],
    ids=["pin", "wrong PIN", "cancel", "silence"],
)
def test_whoever_holds_the_phone_decides(held: World, act, end, reason):
    """The prompt is on the phone until it is answered, or for a minute."""
    reference = prompted(held)
    held.now += 20
    assert [p.reference for p in held.ledger.open_prompts("0746990866")] == [reference]
    assert held.ledger.open_prompts("0700000001") == ()
    assert held.status(reference)["status"] == "initiated"
    act(held.ledger, reference)
    shown = held.ledger.open_prompts("0746990866")
    assert bool(shown) == (end == "expired")
    held.now += 40
    data = held.status(reference)
    assert (data["status"], data["failure_reason"]) == (end, reason)
    assert held.ledger.open_prompts("0746990866") == ()


def test_a_right_pin_is_processed_first(held: World):
    """Two seconds, at the pace of the ledger."""
    reference = prompted(held)
    held.now += 5
    held.ledger.enter_pin(reference, PIN)
    assert held.ledger.status(reference) == "processing"
    held.now += 2
    assert held.ledger.status(reference) == "completed"
    assert held.status(reference)["completed_at"] == "2026-01-27T10:17:25+03:00"


def test_a_phone_pays_what_it_has(held: World):
    """And no more."""
    ledger = held.ledger
    assert ledger.balance("0746990866") == BALANCE
    reference = prompted(held, amount=9_999)
    ledger.enter_pin(reference, PIN)
    assert ledger.balance("0746990866") == BALANCE  # not before it is paid
    held.now += 2
    assert ledger.balance("0746990866") == 1
    second = prompted(held, amount=2)
    ledger.enter_pin(second, PIN)
    held.now += 2
    assert held.status(second)["failure_reason"] == "Insufficient balance"
    assert ledger.balance("0746990866") == 1
    ledger.set_balance("0746990866", 2)
    assert ledger.balance("0746990866") == 2
    third = prompted(held, amount=2)
    ledger.enter_pin(third, PIN)
    held.now += 2
    assert (ledger.status(third), ledger.balance("0746990866")) == ("completed", 0)


def test_only_an_open_prompt_can_be_answered(held: World):
    """Not one that is answered, expired, or played by a scenario; not one that never was."""
    answered = prompted(held)
    held.ledger.decline(answered)
    expired = prompted(held)
    held.now += 60
    held.ledger.script("slow")
    played = prompted(held)
    for reference in (answered, expired, played):
        with pytest.raises(ValueError, match="does not wait"):
            held.ledger.enter_pin(reference, PIN)
        with pytest.raises(ValueError, match="does not wait"):
            held.ledger.decline(reference)
    with pytest.raises(KeyError):
        held.ledger.decline("PNXNOTHING00")


def test_an_unknown_customer_is_refused():
    """By name."""
    with pytest.raises(ValueError, match="customer must be one of paid"):
        World(customer="nobody")


def test_a_bare_answer_is_bare(world: World):
    """Little more than the status."""
    reference = world.initiate(phone=next(m.phone for m in MAGIC if m.scenario == "bare"))
    reference = reference.document["data"]["reference"]
    world.now += 10
    data = world.status(reference)
    assert data["status"] == "completed"
    assert not {"reference", "amount", "checkout_request_id"} & set(data)
    assert {name for name, value in data.items() if value is not None} == {"status"}


def test_payments_are_listed_newest_first(world: World):
    """In pages, by status and by day."""
    for amount in (31, 33, 100):
        world.initiate(amount=amount)
    world.now += 86_400
    world.initiate(amount=200)

    def page(**query: str) -> Any:
        return world.call("GET", "/payments", key=PUBLIC_KEY, **query).document

    assert [p["amount"] for p in page()["data"]] == ["200.00", "100.00", "33.00", "31.00"]
    assert page(per_page="2", page="2")["pagination"] == {
        "current_page": 2, "per_page": 2, "total": 4, "last_page": 2, "from": 3, "to": 4,
    }  # fmt: skip
    assert [p["amount"] for p in page(status="cancelled")["data"]] == ["33.00"]
    assert page(from_date="2026-01-28")["pagination"]["total"] == 1
    assert page(to_date="2026-01-27")["pagination"]["total"] == 3
    assert page(page="9")["pagination"]["from"] is None
    for bad in ({"page": "0"}, {"page": "x"}, {"per_page": "-1"}, {"page": "9" * 30}):
        assert world.call("GET", "/payments", **bad).status_code == 422


def test_the_vendors_older_paths_lead_to_the_same_payment(world: World):
    """Undocumented, but what its Node and PHP clients call; PHP writes a whole float."""
    initiated = world.call("POST", "/payments/initiate", {"amount": 100.0, "phone": PHONE})
    data = initiated.document["data"]
    reference, checkout_id = data["reference"], data["checkout_request_id"]
    expected = world.status(reference)
    for path in (
        f"/payments/reference/{reference}",
        f"/payments/checkout/{checkout_id}",
        "/payments/1",
        "/payments/1/status",
        "/payments/1/status-by-id",
    ):
        assert world.call("GET", path).document["data"] == expected
    body = {"checkout_request_id": checkout_id}
    assert world.call("POST", "/mpesa/payment/status", body).document["data"] == expected
    assert world.call("GET", "/merchant/payment-accounts").document["data"][0]["id"] == 1
    assert world.call("GET", "/payments/a/b/c").status_code == 404


def test_calls_are_kept_without_keys_and_phones(world: World):
    """For a log that may be shown."""
    world.initiate()
    world.call("GET", f"/payments/{PHONE}", key=None)
    assert [(c.method, c.key_kind, c.status_code) for c in world.ledger.calls] == [
        ("POST", "sk_", 200),
        ("GET", "", 401),
    ]
    shown = repr(world.ledger.calls) + repr(Request("GET", f"/payments/{PHONE}", SECRET_KEY))
    assert PHONE not in shown
    assert SECRET_KEY not in shown


def test_a_ledger_has_an_end(world: World, monkeypatch):
    """A forgotten load test does not eat the machine."""
    monkeypatch.setattr(_engine, "PAYMENTS_MAX", 1)
    assert [world.initiate().status_code for _ in range(2)] == [200, 503]


def test_the_same_seed_gives_the_same_names():
    """And another gives others."""
    names = [
        [World(seed=s).initiate().document["data"]["reference"] for _ in range(1)]
        for s in (1, 1, 2)
    ]
    assert names[0] == names[1] != names[2]


def test_names_are_unique_even_if_chance_repeats(world: World, monkeypatch):
    """A reference names one payment."""
    letters = iter(["A" * 9, "R" * 10, "A" * 9, "B" * 9, "R" * 10])
    monkeypatch.setattr(world.ledger, "_letters", lambda _: next(letters))
    assert [world.initiate().document["data"]["reference"][3] for _ in range(2)] == ["A", "B"]


@pytest.mark.parametrize("options", [{"plan": "gold"}, {"speed": 0}, {"speed": float("nan")}])
def test_nonsense_is_refused(options):
    """At the start."""
    with pytest.raises(ValueError, match=r"plan|speed"):
        Ledger(clock=lambda: 0.0, **options)


def test_the_plans_are_those_of_the_documentation():
    """Calls a minute."""
    assert {name: plan.limits[60] for name, plan in PLANS.items()} == {
        "trial": 30, "basic": 60, "professional": 120, "enterprise": 300,
    }  # fmt: skip


# An alphabet of its own: building the one of all Unicode can be too slow for the first example.
@settings(deadline=None)
@given(
    st.sampled_from(["GET", "POST", "PUT"]),
    st.sampled_from(["/payments", "/payments/X", "/mpesa/payment/initiate", "/mpesa/validate-phone", "/webhooks/register", "/"]),
    st.binary(max_size=50) | st.dictionaries(st.sampled_from(["amount", "phone"]), st.integers() | st.text("0123457+- é\ud800\0")).map(
        lambda d: json.dumps(d).encode()
    ),
    st.none() | st.sampled_from([SECRET_KEY, PUBLIC_KEY, "x"]),
)  # fmt: skip
def test_whatever_is_asked_the_ledger_answers(method, path, body, key):
    """In the envelope, and never with an exception."""
    reply = World().ledger.handle(Request(method, path, key, body))
    assert isinstance(reply.document["success"], bool)
    json.dumps(reply.document)


def test_a_checkout_request_id_names_one_payment():
    """However many go to one phone in one moment; its digits are the moment and the phone."""
    world = World()
    world.now = NOON + 0.139
    ids = [world.initiate().document["data"]["checkout_request_id"] for _ in range(1_001)]
    assert (ids[0], len(set(ids))) == ("ws_CO_27012026101718139746990866", 1_001)
    assert ids[1_000] == "ws_CO_27012026101719139746990866"
    body = {"checkout_request_id": ids[0]}
    first = world.call("POST", "/payments/status-by-checkout-id", body).document["data"]
    assert first["reference"] == world.ledger.prompts[0].reference


def test_retry_after_is_when_a_call_works_again():
    """With two windows used up, the longer one."""
    world = World(plan=Plan("tiny", {60: 1, 3_600: 1}))
    assert [world.call("GET", "/payments").status_code for _ in range(2)] == [200, 429]
    reply = world.call("GET", "/payments")
    assert (reply.headers["Retry-After"], reply.document["retry_after"]) == ("3600", 3600)
    world.now += 3_600
    assert world.call("GET", "/payments").status_code == 200


def test_the_truth_is_told_beside_the_answers(world: World):
    """A payment whose answers contradict it is what it is; its receipt comes with its end."""
    world.ledger.script("other-amount")
    reference = world.initiate().document["data"]["reference"]
    assert world.ledger.payment(reference).receipt is None
    world.now += 9
    truth = world.ledger.payment(reference)
    assert world.status(reference)["amount"] == "1.00"
    assert (truth.status, truth.amount, truth.phone, truth.scenario) == (
        "completed",
        100,
        PHONE,
        "other-amount",
    )
    assert truth.receipt == world.ledger.records[0].receipt
    with pytest.raises(KeyError):
        world.ledger.payment("PNXNOWHERE00")


def test_what_a_scenario_leaves_out_is_listed_by_what_is_true(world: World):
    """By day and by status, even if no answer holds either."""
    world.ledger.script(Scenario("mute", missing=frozenset({"status", "created_at"})))
    world.initiate()
    for query in ({}, {"status": "initiated"}, {"from_date": "2026-01-27T00:00:00"}):
        reply = world.call("GET", "/payments", **query)
        assert (reply.status_code, reply.document["pagination"]["total"]) == (200, 1)


@pytest.mark.parametrize("text", ["\ud800", "0746\udfff990866"])
def test_half_a_surrogate_pair_is_no_text(world: World, text):
    """It is JSON to Python, and nothing that an answer could repeat."""
    for path in ("/mpesa/payment/initiate", "/mpesa/validate-phone"):
        body = {"amount": 1, "phone": "0746990866", "description": text}
        assert world.call("POST", path, body).status_code == 400
    assert world.ledger.prompts == ()


def test_a_call_tells_its_payment(world: World):
    """Where it was about one: by its true reference, whatever the answer said."""
    world.ledger.script(Scenario("liar", (Step(0, "completed", {"reference": "PNXOTHER0000"}),)))
    data = world.initiate().document["data"]
    world.status(data["reference"])
    body = {"checkout_request_id": data["checkout_request_id"]}
    world.call("POST", "/payments/status-by-checkout-id", body)
    world.call("GET", "/payments")
    world.call("GET", "/payments/X")
    assert [c.reference for c in world.ledger.calls] == [data["reference"]] * 3 + [None] * 2


def test_scripts_and_quota_windows_have_an_end(world: World, monkeypatch):
    """Whoever makes up scripts or keys without end does not eat the machine."""
    monkeypatch.setattr(_engine, "SCRIPTS_MAX", 1)
    world.ledger.script("stuck")
    with pytest.raises(ValueError, match="1 scripts wait"):
        world.ledger.script("stuck")
    monkeypatch.setattr(_engine, "WINDOWS_MAX", 2)
    limited = World(plan=Plan("tiny", {60: 1}))
    codes = [limited.call("GET", "/payments", key=f"sk_{k}").status_code for k in "aabcca"]
    assert codes == [200, 429, 200, 200, 429, 200]  # `a` was the oldest of three, and forgotten


def test_no_repr_shows_a_phone(world: World):
    """Test reports and logs print them."""
    body = {"phone": "0746990866"}
    reply = world.call("POST", "/mpesa/validate-phone", body)
    reference = world.initiate().document["data"]["reference"]
    truth, record = world.ledger.payment(reference), world.ledger.records[0]
    assert repr(reply) == "<Reply 200>"
    assert "746990866" not in repr(truth) + repr(record) + repr(record.prompt)


def test_a_person_is_the_customer_while_a_page_is_open():
    """With the last page, they go; a named customer stays."""
    ledger = World().ledger
    assert ledger.customer.name == "paid"
    ledger.opened()
    ledger.opened()
    ledger.closed()
    assert ledger.customer.name == "person"
    ledger.closed()
    assert ledger.customer.name == "paid"
    named = World(customer="stuck").ledger
    named.opened()
    assert named.customer.name == "stuck"


def test_what_was_left_after_each_payment(held: World):
    """As its confirmation says it; after the balance was set, nobody knows that of earlier ones."""
    first, second, declined = (prompted(held, amount=n) for n in (100, 200, 300))
    for reference in (first, second):
        held.ledger.enter_pin(reference, PIN)
        held.now += 5
    held.ledger.decline(declined)
    after = [held.ledger.balance_after(name) for name in (first, second, declined)]
    assert after == [BALANCE - 100, BALANCE - 300, None]
    held.ledger.set_balance("0746990866", 50)
    third = prompted(held, amount=20)
    held.ledger.enter_pin(third, PIN)
    held.now += 5
    assert held.ledger.balance_after(first) is None
    assert held.ledger.balance_after(third) == held.ledger.balance("0746990866") == 30


def test_the_truth_tells_when_why_and_whether_somebody_is_waited_for(held: World):
    """And when the prompt runs out, on the ledger's clock."""
    reference = prompted(held)
    truth = held.ledger.payment(reference)
    assert (truth.since, truth.waits, truth.expires_at) == (NOON, True, NOON + 60)
    held.now += 60
    truth = held.ledger.payment(reference)
    assert (truth.since, truth.waits, truth.expires_at) == (NOON + 60, False, None)
    assert truth.failure_reason == "No response from user"
    held.ledger.script(Scenario("odd", (Step(0, "failed", {"failure_reason": 7}),)))
    assert held.ledger.payment(prompted(held)).failure_reason is None


def test_calls_are_numbered_and_tell_what_is_left_of_the_quota():
    """Nothing is left to tell where there is no plan, or no key."""
    world = World(plan="trial")
    world.call("GET", "/payments")
    world.call("GET", "/payments", key=None)
    world.call("GET", "/payments")
    assert [(c.number, c.remaining) for c in world.ledger.calls] == [(1, 29), (2, None), (3, 28)]
    world = World()
    world.call("GET", "/payments")
    assert world.ledger.calls[0].remaining is None
