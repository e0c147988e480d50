"""Webhooks without I/O: who hears what and when, signed how, disordered how, and tried how often."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest

from paynexus_async import WebhookSignatureError, parse_webhook
from paynexus_async.sandbox import (
    DISORDERS,
    MAGIC,
    PIN,
    PLANS,
    PUBLIC_KEY,
    SECRET_KEY,
    Ledger,
    Plan,
    Post,
    Request,
    Scenario,
    Step,
    _webhooks,
)
from paynexus_async.sandbox._webhooks import EVENTS, RETRY_SECONDS, is_loopback

NOON = 1_769_498_238.0  # 27 January 2026, 10:17:18 in Nairobi
URL = "http://127.0.0.1:8000/webhooks"


class World:
    """A ledger with one endpoint, and its clock."""

    def __init__(self, *, register: bool = True, **options: Any) -> None:
        self.now = NOON
        self.ledger = Ledger(clock=lambda: self.now, **options)
        self.webhooks = self.ledger.webhooks
        if register:
            self.endpoint = self.webhooks.register(URL)

    def initiate(self, **fields: Any) -> str:
        body = json.dumps({"amount": 100, "phone": "0746990866", **fields}).encode()
        reply = self.ledger.handle(Request("POST", "/mpesa/payment/initiate", SECRET_KEY, body))
        reference: str = reply.document["data"]["reference"]  # type: ignore[index]
        return reference

    def register(self, key: str = SECRET_KEY, **fields: Any) -> Any:
        body = {"name": "My shop", "url": URL, "events": ["payment.completed"], **fields}
        raw = json.dumps(body).encode()
        return self.ledger.handle(Request("POST", "/webhooks/register", key, raw))

    def take(self) -> list[Post]:
        """What is due now, acknowledged."""
        posts = self.webhooks.due()
        for post in posts:
            self.webhooks.answered(post.delivery, 200)
        return list(posts)

    def play(self, seconds: int) -> list[tuple[int, str]]:
        """Acknowledge all that comes, second by second: when, and which event."""
        heard = []
        for second in range(seconds + 1):
            heard += [(second, event_of(post)) for post in self.take()]
            self.now += 1
        return heard


def event_of(post: Post) -> str:
    event: str = json.loads(post.body)["event"].removeprefix("payment.")
    return event


@pytest.fixture
def world() -> World:
    return World()


# --- What is told, and when


def test_a_payment_is_told_in_the_documented_shape(world: World):
    """Field by field, with the moment of the change."""
    reference = world.initiate(description="ORDER_123")
    world.now += 9
    initiated, completed = (json.loads(post.body) for post in world.take())
    record = world.ledger.records[0]
    assert completed == {
        "event": "payment.completed",
        "timestamp": "2026-01-27T10:17:27+03:00",
        "data": {
            "payment_id": 1,
            "merchant_id": 1,
            "reference": reference,
            "amount": "100.00",
            "currency": "KES",
            "phone": "254746990866",
            "status": "completed",
            "account_reference": "ORDER_123",
            "checkout_request_id": record.prompt.checkout_request_id,
            "transaction_id": record.receipt,
            "provider_transaction_id": record.receipt,
            "provider_reference": "Success",
            "payer_name": "M-Pesa 254746990866",
        },
    }
    assert (initiated["event"], initiated["timestamp"]) == (
        "payment.initiated",
        "2026-01-27T10:17:18+03:00",
    )
    assert initiated["data"]["status"] == "initiated"
    assert initiated["data"]["transaction_id"] is None


@pytest.mark.parametrize(
    ("scenario", "heard"),
    [
        ("paid", [(0, "initiated"), (9, "completed")]),
        ("instant", [(0, "initiated"), (0, "completed")]),
        ("cancelled", [(0, "initiated"), (7, "failed")]),
        ("wrong-pin", [(0, "initiated"), (8, "failed")]),
        ("expired", [(0, "initiated"), (60, "failed")]),
        ("stuck", [(0, "initiated")]),
        ("late", [(0, "initiated"), (60, "failed"), (90, "completed")]),
        ("undocumented", [(0, "initiated"), (9, "completed")]),
        ("stale", [(0, "initiated"), (12, "completed")]),
    ],
)
def test_each_change_with_an_event_is_told_at_its_moment(world: World, scenario, heard):
    """Late truth too; nothing is told of processing, nor twice that it was initiated."""
    world.ledger.script(scenario)
    world.initiate()
    assert world.play(100) == heard


@pytest.mark.parametrize(
    ("scenario", "status", "reason"),
    [
        ("wrong-pin", "failed", "Wrong PIN entered"),
        ("cancelled", "cancelled", "Request cancelled by user"),
        ("expired", "expired", "No response from user"),
        ("late", "expired", "The payment expired"),
    ],
)
def test_a_failure_says_why(world: World, scenario, status, reason):
    """The event is `payment.failed`, the status the payment's own."""
    world.ledger.script(scenario)
    world.initiate()
    world.now += 60
    data = json.loads(world.take()[-1].body)["data"]
    assert (data["status"], data["failure_reason"]) == (status, reason)
    assert data["user_message"] == f"{reason}. Please try again."
    assert data["retry_possible"] is True
    assert data["provider_transaction_id"] is None


def test_a_lying_scenario_lies_here_too(world: World):
    """What its answers contradict or leave out, its webhooks do."""
    for scenario in ("other-amount", "bare"):
        world.ledger.script(scenario)
        world.initiate()
    world.now += 9
    *_, other, bare = (json.loads(post.body)["data"] for post in world.take())
    assert other["amount"] == "1.00"
    assert not {"amount", "reference"} & set(bare)
    assert bare["phone"] is bare["provider_transaction_id"] is None


@pytest.mark.parametrize(
    ("act", "heard"),
    [
        (lambda ledger, name: ledger.enter_pin(name, PIN), [(2, "completed")]),
        (lambda ledger, name: ledger.enter_pin(name, "0"), [(1, "failed")]),
        (lambda ledger, name: ledger.decline(name), [(0, "failed")]),
        (lambda ledger, name: None, [(40, "failed")]),
    ],
    ids=["pin", "wrong PIN", "cancel", "silence"],
)
def test_whoever_holds_the_phone_decides_what_is_told(act, heard):
    """From the moment of the answer, also where that moment was looked at already."""
    world = World(customer="person")
    reference = world.initiate()
    assert world.play(19) == [(0, "initiated")]
    assert world.take() == []
    act(world.ledger, reference)
    assert world.play(60) == heard


def test_life_and_retries_go_at_the_ledgers_speed():
    """Ten times faster."""
    world = World(speed=10)
    world.initiate()
    (post,) = world.webhooks.due()
    world.webhooks.answered(post.delivery, 500)
    world.now += 0.2
    assert [p.delivery for p in world.take()] == [post.delivery]
    world.now += 0.7
    assert [event_of(p) for p in world.take()] == ["completed"]


def test_an_endpoint_hears_what_it_asked_for_from_then_on(world: World):
    """Nothing from before, nothing else, and what is no payment's never."""
    world.webhooks.remove(world.endpoint.number)
    world.initiate()
    world.now += 10  # it is completed
    world.ledger.script("late")
    world.initiate()
    world.now += 80  # it is expired, and will be completed
    failed = world.webhooks.register(URL + "/failed", events=["payment.failed", "invoice.paid"])
    both = world.webhooks.register(URL + "/both", events=["payment.completed", "payment.failed"])
    world.initiate(phone="0700000003")
    world.now += 60
    told = [(post.url, event_of(post)) for post in world.take()]
    assert told == [(failed.url, "failed"), (both.url, "failed"), (both.url, "completed")]
    (late,) = {d.reference for d in world.webhooks.deliveries if d.event == "payment.completed"}
    assert late == world.ledger.prompts[1].reference


def test_a_status_that_nobody_documented_is_not_told(world: World):
    """There is no event to tell it with."""
    world.ledger.script(Scenario("mine", (Step(1, "reversed"), Step(2, "completed"))))
    world.initiate()
    assert world.play(3) == [(0, "initiated"), (2, "completed")]


# --- Signatures


def openssl(secret: str, body: bytes) -> str:
    command = ["openssl", "dgst", "-sha256", "-hmac", secret, "-r"]
    return subprocess.run(command, input=body, capture_output=True, check=True).stdout.decode()[:64]


def signed_by_hand(secret: str, body: bytes) -> str:
    """HMAC as RFC 2104 writes it, from SHA-256 alone."""
    import hashlib

    key = secret.encode().ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in key) + body).digest()
    return hashlib.sha256(bytes(b ^ 0x5C for b in key) + inner).hexdigest()


def test_a_signature_is_the_hmac_of_the_exact_body(world: World):
    """In bare hex, with the endpoint's secret and the moment; computed apart, twice."""
    world.initiate()
    (post,) = world.webhooks.due()
    secret = world.endpoint.secret
    assert secret.startswith("whsec_")
    assert post.headers == {
        "Content-Type": "application/json",
        "X-PayNexus-Signature": signed_by_hand(secret, post.body),
        "X-PayNexus-Timestamp": str(int(NOON)),
    }
    if shutil.which("openssl"):
        assert post.headers["X-PayNexus-Signature"] == openssl(secret, post.body)


def test_this_package_believes_what_it_should(world: World):
    """`parse_webhook` takes what the sandbox signs, and not what it missigns or sends late."""
    secret = world.endpoint.secret
    reference = world.initiate()
    world.now += 9
    initiated, completed = (
        parse_webhook(post.body, post.headers, secret, now=world.now) for post in world.take()
    )
    assert (initiated.name, completed.name) == ("payment.initiated", "payment.completed")
    assert completed.reference == reference
    assert completed.payment is not None
    assert completed.payment.succeeded
    for disorder, believed in (
        ("no-timestamp", True), ("prefixed-signature", True), ("wrong-signature", False), ("stale-timestamp", False),
    ):  # fmt: skip
        world.ledger.script("stuck")
        world.webhooks.disturb(world.endpoint.number, {disorder})
        world.initiate()
        (post,) = world.take()
        try:
            parse_webhook(post.body, post.headers, secret, now=world.now)
        except WebhookSignatureError:
            assert not believed
        else:
            assert believed


def test_each_endpoint_has_a_secret_that_follows_from_the_seed():
    """So that a test can know it, and no two are the same."""
    worlds = [World(seed=seed) for seed in (1, 1, 2)]
    other = worlds[0].webhooks.register(URL)
    secrets = [w.endpoint.secret for w in worlds]
    assert secrets[0] == secrets[1] != secrets[2]
    assert other.secret not in secrets


# --- Disorder


def disturbed(*disorder: str, times: int | None = None, **options: Any) -> World:
    world = World(**options)
    world.webhooks.disturb(world.endpoint.number, disorder, times=times)
    return world


def test_a_wrong_signature_is_wrong_at_every_try_and_right_when_sent_again():
    """Whoever believes it believes anybody."""
    world = disturbed("wrong-signature")
    world.initiate()
    for _ in range(2):
        (post,) = world.webhooks.due()
        right = signed_by_hand(world.endpoint.secret, post.body)
        assert post.headers["X-PayNexus-Signature"] != right
        world.webhooks.answered(post.delivery, 401)
        world.now += 2
    again = world.webhooks.resend(post.delivery)
    (post,) = (post for post in world.webhooks.due() if post.delivery == again.number)
    assert post.headers["X-PayNexus-Signature"] == right


@pytest.mark.parametrize(
    ("disorder", "timestamp"), [("stale-timestamp", str(int(NOON) - 3_600)), ("no-timestamp", None)]
)
def test_a_timestamp_is_stale_or_absent(disorder, timestamp):
    """The signature does not cover it, and stays right."""
    world = disturbed(disorder)
    world.initiate()
    (post,) = world.take()
    assert post.headers.get("X-PayNexus-Timestamp") == timestamp
    assert post.headers["X-PayNexus-Signature"] == signed_by_hand(world.endpoint.secret, post.body)


def test_a_signature_is_prefixed():
    """As some have seen it."""
    world = disturbed("prefixed-signature")
    world.initiate()
    (post,) = world.take()
    right = signed_by_hand(world.endpoint.secret, post.body)
    assert post.headers["X-PayNexus-Signature"] == f"sha256={right}"


def test_a_duplicate_comes_within_five_seconds():
    """The same bytes, under a number of its own."""
    world = disturbed("duplicate")
    world.initiate()
    first = world.take()
    world.now += 5
    second = world.take()
    assert [p.body for p in first] == [p.body for p in second]
    assert first[0].delivery != second[0].delivery


def test_reordered_deliveries_swap_in_pairs():
    """The first of two goes a second after the second; one that nothing follows goes at last."""
    world = disturbed("reorder")
    world.initiate()
    assert world.play(12) == [(9, "completed"), (10, "initiated")]
    alone = disturbed("reorder")
    alone.ledger.script("stuck")
    alone.initiate()
    assert alone.play(70) == [(60, "initiated")]
    alone.initiate()  # what was held has gone: this one is held in its turn
    assert alone.play(12) == [(9, "completed"), (10, "initiated")]


def test_of_two_that_are_held_one_goes_early():
    """The other, a duplicate, comes when it would have come."""
    world = disturbed("reorder", "duplicate")
    world.initiate()
    world.webhooks.due()
    assert [d.held for d in world.webhooks.deliveries] == [True, False]
    heard = world.play(70)
    assert [event for _, event in heard].count("initiated") == 2
    assert (10, "initiated") in heard
    assert 60 <= heard[-1][0] <= 65


def test_a_delay_is_one_of_5_to_60_seconds():
    """Not the same for all, and the same for the same seed."""
    delays = []
    for seed in (1, 1, *range(2, 20)):
        world = disturbed("delay", seed=seed)
        world.ledger.script("stuck")
        world.initiate()
        ((second, _),) = world.play(61)
        delays.append(second)
    assert delays[0] == delays[1]
    assert len(set(delays)) > 5
    assert min(delays) >= 5


def test_disorder_can_be_for_the_next_ones_only():
    """Counted in events; then all is in order."""
    world = disturbed("no-timestamp", times=2)
    for _ in range(3):
        world.initiate()
    stamped = ["X-PayNexus-Timestamp" in post.headers for post in world.take()]
    assert stamped == [False, False, True]
    (endpoint,) = world.webhooks.endpoints
    assert (endpoint.disorder, endpoint.disorder_left) == (frozenset(), None)


def test_disorder_is_ended_and_nonsense_refused():
    """By what there is."""
    world = disturbed(*DISORDERS)
    assert world.webhooks.disturb(1, ()).disorder == frozenset()
    with pytest.raises(ValueError, match="disorder is some of duplicate, "):
        world.webhooks.disturb(1, {"chaos"})
    with pytest.raises(ValueError, match="times"):
        world.webhooks.disturb(1, {"delay"}, times=0)
    with pytest.raises(KeyError):
        world.webhooks.disturb(2, {"delay"})


# --- Tries, and their log


@pytest.mark.parametrize(
    "answer", [{"status_code": 500}, {"status_code": 302}, {"error": "ConnectError"}]
)
def test_a_delivery_is_tried_with_growing_pauses_and_then_given_up(world: World, answer):
    """At each moment of the table, and no more."""
    world.ledger.script("stuck")
    world.initiate()
    tried = []
    for _ in range(sum(RETRY_SECONDS) * 2):
        for post in world.webhooks.due():
            tried.append(int(world.now - NOON))
            world.webhooks.answered(post.delivery, **answer)
        world.now += 1
    assert tried == [0, 2, 12, 72, 372, 2_172]
    (delivery,) = world.webhooks.deliveries
    assert (delivery.attempt, delivery.due_at, delivery.acknowledged) == (6, None, False)
    assert (delivery.status_code, delivery.error) == (
        answer.get("status_code"),
        answer.get("error"),
    )
    assert delivery.at == NOON + 2_172


@pytest.mark.parametrize("status_code", [200, 204, 299])
def test_a_2xx_ends_it(world: World, status_code):
    """And until one is told, the same is due again."""
    world.ledger.script("stuck")
    world.initiate()
    assert [p.delivery for p in world.webhooks.due()] == [p.delivery for p in world.webhooks.due()]
    (post,) = world.webhooks.due()
    world.webhooks.answered(post.delivery, status_code)
    world.now += 10_000
    assert world.webhooks.due() == ()
    assert world.webhooks.deliveries[0].acknowledged


def test_a_delivery_is_sent_again(world: World):
    """As a new one, at once."""
    world.initiate()
    (post,) = world.take()
    again = world.webhooks.resend(post.delivery)
    (second,) = world.take()
    assert (second.delivery, second.body) == (again.number, post.body)
    with pytest.raises(KeyError):
        world.webhooks.resend(99)
    world.webhooks.remove(world.endpoint.number)
    with pytest.raises(KeyError):
        world.webhooks.resend(post.delivery)


def test_an_endpoint_that_is_removed_hears_nothing_more(world: World):
    """Not what was due, not what is under way when it fails, nor by its number coming back."""
    other = world.webhooks.register(URL + "/other")
    world.initiate()
    mine, others = world.webhooks.due()
    world.webhooks.remove(world.endpoint.number)
    world.webhooks.answered(mine.delivery, 500)
    assert [post.delivery for post in world.take()] == [others.delivery]
    gone = world.webhooks.deliveries[0]
    assert (gone.due_at, gone.status_code) == (None, 500)
    world.initiate()
    assert [post.url for post in world.webhooks.due()] == [other.url]
    world.webhooks.remove(other.number)
    assert world.webhooks.register(URL).number == 3
    assert world.webhooks.deliveries[2].error == "the endpoint was removed"
    world.now += 1_000
    assert {post.url for post in world.webhooks.due()} == {URL}
    with pytest.raises(KeyError):
        world.webhooks.remove(other.number)


def test_what_is_due_can_be_asked_for_one_endpoint(world: World):
    """They do not wait for each other."""
    other = world.webhooks.register(URL + "/other")
    world.initiate()
    assert [post.url for post in world.webhooks.due(other.number)] == [other.url]
    assert len(world.webhooks.due()) == 2


def test_the_log_has_an_end(world: World, monkeypatch):
    """The oldest is forgotten, due or not; what is told of it then is no matter."""
    monkeypatch.setattr(_webhooks, "DELIVERIES_KEPT_MAX", 2)
    for _ in range(3):
        world.initiate()
    assert [post.delivery for post in world.webhooks.due()] == [2, 3]
    world.webhooks.answered(1, 200)
    assert [d.number for d in world.webhooks.deliveries] == [2, 3]


def test_no_repr_shows_a_secret_a_signature_or_a_phone(world: World):
    """Test reports and logs print them."""
    world.initiate()
    (post,) = world.webhooks.due()
    shown = repr((world.endpoint, post, *world.webhooks.deliveries))
    assert world.endpoint.secret not in shown
    assert post.headers["X-PayNexus-Signature"] not in shown
    assert "746990866" not in shown


# --- Plans


def test_a_plan_has_so_many_webhooks_a_month():
    """Not counting retries; the rest is logged and not sent."""
    world = World(plan=Plan("tiny", {60: 1_000}, webhooks=2))
    world.ledger.script("stuck")
    world.initiate()
    (post,) = world.webhooks.due()
    world.webhooks.answered(post.delivery, 500)
    world.now += 2
    assert len(world.take()) == 1
    for _ in range(2):
        world.ledger.script("stuck")
        world.initiate()
    assert len(world.take()) == 1
    refused = world.webhooks.deliveries[-1]
    assert (refused.attempt, refused.error) == (0, "the plan's 2 webhooks a month are used up")
    world.now = NOON + 30 * 86_400
    world.ledger.script("stuck")
    world.initiate()
    assert len(world.take()) == 1


def test_the_trial_has_none():
    """403 to whoever registers; by hand it can be, and is told nothing."""
    world = World(plan="trial")
    reply = world.register()
    assert (reply.status_code, reply.document["code"]) == (403, "FORBIDDEN")
    assert "trial has no webhooks" in reply.document["message"]
    world.initiate()
    assert world.take() == []
    assert {name: plan.webhooks for name, plan in PLANS.items()} == {
        "trial": 0, "basic": 1_000, "professional": None, "enterprise": None,
    }  # fmt: skip


# --- Registering


def test_registering_answers_the_secret():
    """In the documented envelope; once."""
    world = World(register=False, plan="basic")
    reply = world.register(events=["payment.completed", "payment.failed", "payment.completed"])
    (endpoint,) = world.webhooks.endpoints
    assert reply.document == {
        "success": True,
        "data": {
            "id": 1,
            "name": "My shop",
            "url": URL,
            "events": ["payment.completed", "payment.failed"],
            "secret": endpoint.secret,
            "created_at": "2026-01-27T10:17:18+03:00",
        },
    }
    assert [c.path for c in world.ledger.calls] == ["/webhooks/register"]


def test_only_a_secret_key_registers():
    """A public one is refused, and nothing is registered."""
    world = World(register=False)
    assert world.register(key=PUBLIC_KEY).status_code == 403
    assert world.register(key="nonsense").status_code == 401
    assert world.webhooks.endpoints == ()


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"name": None}, {"name"}), ({"name": ""}, {"name"}), ({"name": "x" * 256}, {"name"}),
        ({"events": None}, {"events"}), ({"events": []}, {"events"}), ({"events": "payment.completed"}, {"events"}),
        ({"events": ["payment.complete"]}, {"events"}), ({"events": ["*"]}, {"events"}), ({"events": [5]}, {"events"}),
        ({"events": ["a.b"] * 51}, {"events"}),
        ({"url": None}, {"url"}), ({"url": "not a url"}, {"url"}), ({"url": "ftp://127.0.0.1/"}, {"url"}),
        ({"url": "http://"}, {"url"}), ({"url": "http://127.0.0.1:99999/"}, {"url"}), ({"url": "http://[::1/"}, {"url"}),
        ({"url": "http://user@127.0.0.1/"}, {"url"}), ({"url": "http://127.0.0.1\\@example.com/"}, {"url"}),
        ({"url": "http://127.0.0.1/" + "x" * 2_000}, {"url"}), ({"url": "http://127.0.0.1/é"}, {"url"}),
        ({"url": "https://example.com/"}, {"url"}), ({"url": "http://127.0.0.1.example.com/"}, {"url"}),
        ({"url": "http://10.0.0.1/"}, {"url"}), ({"url": "http://169.254.169.254/"}, {"url"}),
        ({"url": "http://0.0.0.0/"}, {"url"}), ({"url": "http://2130706433/"}, {"url"}),
        ({"name": 5, "url": 5, "events": 5}, {"name", "url", "events"}),
    ],
)  # fmt: skip
def test_what_cannot_be_registered_is_refused_by_field(fields, refused):
    """422; above all what would be sent beyond this machine."""
    world = World(register=False)
    reply = world.register(**fields)
    assert (reply.status_code, set(reply.document["errors"])) == (422, refused)
    assert world.webhooks.endpoints == ()


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8000/x?y=1",
        "https://LOCALHOST/",
        "http://[::1]:8000/",
        "http://127.9.9.9/",
    ],
)
def test_this_machine_is_taken(url):
    """By each of its names."""
    assert World(register=False).register(url=url).status_code == 200


def test_the_whole_world_is_taken_where_that_is_said():
    """For a tunnel; and the refusal says how."""
    assert (
        World(register=False, webhooks_anywhere=True).register(url="https://x.example/").status_code
        == 200
    )
    with pytest.raises(ValueError, match="--webhooks-anywhere"):
        World().webhooks.register("https://x.example/")


def test_endpoints_have_an_end(world: World, monkeypatch):
    """The refusal says what to do."""
    monkeypatch.setattr(_webhooks, "ENDPOINTS_MAX", 1)
    assert world.register().document["errors"] == {
        "url": ["This sandbox keeps 1 endpoints: remove one."]
    }


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_loopback_is_told_by_its_name(host):
    """Nothing is looked up."""
    assert is_loopback(host)
    assert not is_loopback(f"{host}.example.com")


def test_every_magic_number_is_told_its_end(world: World):
    """Whatever its scenario: the last event says what the ledger says."""
    ends = {
        "completed": "completed",
        "failed": "failed",
        "cancelled": "failed",
        "expired": "failed",
    }
    for magic in MAGIC:
        world.initiate(phone=magic.phone)
    world.now += 100
    posts = world.take()
    for record in world.ledger.records:
        told = [
            event_of(post)
            for post in posts
            for delivery in world.webhooks.deliveries
            if (post.delivery, delivery.reference) == (delivery.number, record.prompt.reference)
        ]
        end = world.ledger.status(record.prompt.reference)
        assert told[-1] == ends.get(end, "initiated"), record.scenario.name
        assert {f"payment.{word}" for word in told} <= set(EVENTS)
