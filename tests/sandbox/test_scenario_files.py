"""Scenario files: what can be written, what is refused, and what the client makes of it."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import TYPE_CHECKING

import httpx
import pytest

from paynexus_async import AsyncPayNexus, PaymentMismatchError, PaymentRevision
from paynexus_async.sandbox import (
    Ledger,
    Sandbox,
    Scenario,
    Step,
    _described,
    create_app,
    load_scenarios,
)

if TYPE_CHECKING:
    from pathlib import Path

PHONE = "0746990866"


@pytest.fixture
def load(tmp_path: Path):
    def load(text: str):
        path = tmp_path / "mine.toml"
        path.write_text(text, "utf-8")
        return load_scenarios(path)

    return load


def played(scenario: Scenario, watch: bool = False):
    """Pay with it; return the payment's states and the last status answer's fields."""

    async def main():
        with Sandbox() as sandbox:
            http_client = httpx.AsyncClient(transport=sandbox.transport)
            keys = sandbox.secret_key, sandbox.public_key
            async with AsyncPayNexus(
                *keys, base_url=sandbox.base_url, http_client=http_client
            ) as paynexus:
                sandbox.script(scenario)
                payment = await paynexus.initiate_payment(100, PHONE)
                first = payment.response.json()["data"]
                updates = [u async for u in paynexus.watch(payment, revisions_for=600 * watch)]
                payment = updates[-1].payment
                return first, updates, payment.response.json()["data"]

    return asyncio.run(main())


def test_every_key_of_the_format(load):
    """As the values that the ledger plays."""
    loaded = load("""
        [reversed-timeout]
        phone = "0700 000 101"
        amount = 51
        fields = { payer_name = "JANE", provider_request_id = "{checkout_request_id}" }
        null = ["payment_method"]
        missing = ["checkout_request_id"]
        initiate = { merchant_request_id = "1-2-3", extra = [1, { deep = true }] }
        steps = [
            { at = 5, status = "pending" },
            { at = 60.5, status = "timeout", fields = { payer_name = "JOE" }, null = ["amount"] },
        ]

        [nothing]
    """)
    everywhere = {
        "payer_name": "JANE",
        "provider_request_id": "{checkout_request_id}",
        "payment_method": None,
    }
    assert loaded == {
        "reversed-timeout": Scenario(
            "reversed-timeout",
            (
                Step(0, "initiated", everywhere),
                Step(5, "pending", everywhere),
                Step(60.5, "timeout", {**everywhere, "payer_name": "JOE", "amount": None}),
            ),
            missing=frozenset({"checkout_request_id"}),
            initiate={"merchant_request_id": "1-2-3", "extra": [1, {"deep": True}]},
            phone="254700000101",
            amount=51,
        ),
        "nothing": Scenario("nothing"),
    }
    assert "254700000101" not in repr(loaded)


# What the real API has been seen to do.


@pytest.mark.parametrize(
    ("amount", "sent"),
    [
        ('"{amount}"', 100),
        ('"{amount}.00"', "100.00"),
        ("100.0", 100.0),
        ('"100"', "100"),
    ],
)
def test_an_amount_as_a_number_or_as_text(load, amount, sent):
    """Both are the amount that was asked for."""
    scenario = load(
        f'[it]\nsteps = [{{at = 0, status = "completed", fields = {{amount = {amount}}}}}]'
    )["it"]
    _, updates, data = played(scenario)
    assert data["amount"] == sent
    assert type(data["amount"]) is type(sent)
    assert updates[-1].payment.amount == 100


@pytest.mark.parametrize("amount", ["1", '"1.00"', '"99.50"'])
def test_an_amount_that_contradicts(load, amount):
    """It is not believed."""
    scenario = load(
        f'[it]\nsteps = [{{at = 0, status = "completed", fields = {{amount = {amount}}}}}]'
    )["it"]
    with pytest.raises(PaymentMismatchError):
        played(scenario)
    assert Decimal(amount.strip('"')) != 100


def test_the_checkout_request_id_under_another_name(load):
    """`provider_request_id`, as some answers call it."""
    scenario = load("""
        [it]
        missing = ["checkout_request_id"]
        fields = { provider_request_id = "{checkout_request_id}" }
        steps = [{ at = 5, status = "completed" }]
    """)["it"]
    first, updates, data = played(scenario)
    assert "checkout_request_id" not in data
    assert data["provider_request_id"] == first["checkout_request_id"]
    assert updates[-1].payment.checkout_request_id == first["checkout_request_id"]


def test_further_fields_of_initiate_and_status(load):
    """Those that have been seen, and any other."""
    scenario = load("""
        [it]
        steps = [{ at = 5, status = "completed" }]

        [it.initiate]
        payment_id = 7
        merchant_request_id = "29115-34620561-1"
        response_code = "0"
        response_description = "Success. Request accepted for processing"
        customer_message = "Success: KES {amount}, {reference}"

        [it.fields]
        provider_request_id = "{checkout_request_id}"
        provider_reference = "Success"
        provider_transaction_id = "{receipt}"
        account_reference = "ORDER_{reference}"
        payer_name = "M-Pesa {phone}"
        new = { nested = [1, 2.5, "three", false] }
    """)["it"]
    first, updates, data = played(scenario)
    assert first["merchant_request_id"] == "29115-34620561-1"
    assert first["customer_message"] == f"Success: KES 100, {first['reference']}"
    assert data["account_reference"] == f"ORDER_{first['reference']}"
    assert data["payer_name"] == "M-Pesa 254746990866"
    assert data["new"] == {"nested": [1, 2.5, "three", False]}
    assert updates[-1].payment.succeeded


@pytest.mark.parametrize("key", ["missing", "null"])
def test_any_field_but_the_status_missing_or_null(load, key):
    """The status is all that is left, and is enough."""
    names = [*_described._PAYMENT["properties"].keys() - {"status"}]
    scenario = load(f'[it]\n{key} = {names}\nsteps = [{{at = 5, status = "completed"}}]')["it"]
    _, updates, data = played(scenario)
    assert {name: value for name, value in data.items() if value is not None} == {
        "status": "completed"
    }
    assert (set(data) == {"status"}) == (key == "missing")
    assert updates[-1].payment.succeeded


@pytest.mark.parametrize("word", ["pending", "timeout"])
def test_undocumented_statuses_and_late_truth(load, word):
    """They are no end; a completed after an end is late truth."""
    scenario = load(f"""
        [it]
        steps = [
            {{ at = 5, status = "{word}" }},
            {{ at = 60, status = "expired", fields = {{ failure_reason = "No response" }} }},
            {{ at = 200, status = "completed" }},
        ]
    """)["it"]
    _, updates, _ = played(scenario, watch=True)
    words = [update.payment.status_text for update in updates]
    assert words == ["initiated", word, "expired", "completed"]
    assert isinstance(updates[-1], PaymentRevision)


# Asking for them


def test_phones_and_amounts_of_ones_own(load):
    """Beside those of the sandbox, and behind a script."""
    own = load("""
        [mine]
        phone = "0712345678"
        amount = 77
        steps = [{ at = 0, status = "failed" }]
    """)
    ledger = Ledger(clock=lambda: 1e9, scenarios=own, customer="mine")
    assert ledger.scenarios["mine"] is own["mine"]
    with Sandbox(scenarios=own) as sandbox:
        asks = [("0712345678", 5), (PHONE, 77), (PHONE, 33), (PHONE, 5), ("0712345678", 6)]
        for phone, amount in asks:
            if amount == 6:
                sandbox.script("late")
            body = {"phone": phone, "amount": amount}
            assert post(sandbox.ledger, "/api/mpesa/payment/initiate", body).is_success
        names = [record.scenario.name for record in sandbox.ledger.records]
        assert names == ["mine", "mine", "cancelled", "paid", "late"]


def post(ledger: Ledger, path: str, body: dict[str, object]) -> httpx.Response:
    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(app=create_app(ledger))
        async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as client:
            return await client.post(path, json=body, headers={"X-API-Key": "sk_test"})

    return asyncio.run(main())


def test_the_script_over_http_knows_their_names(load):
    """And lists them where it does not know one."""
    ledger = Ledger(clock=lambda: 1e9, scenarios=load("[mine]\nsteps = []"))
    assert post(ledger, "/sandbox/script", {"scenario": "mine"}).status_code == 200
    refused = post(ledger, "/sandbox/script", {"scenario": "yours"})
    assert refused.status_code == 422
    assert refused.json()["message"].endswith("other-reference, mine")
    schema = create_app(ledger).openapi()["components"]["schemas"]
    assert "mine" in str(schema)


# What is refused


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steps = [", "mine.toml: Invalid"),
        ("x = 1", "[x]: must be a table; its keys are steps, fields, null, missing"),
        ("[x]\nstep = []", "[x] step: there is no such key; there are steps, fields"),
        ("[x]\nsteps = {}", "[x] steps: must be a list, not {}"),
        ("[x]\nsteps = [1]", "[x] steps[0]: must be a table; its keys are at, status, fields"),
        ('[x]\nsteps = [{status = "a"}]', "[x] steps[0] at: must be the payment's age in seconds"),
        ('[x]\nsteps = [{at = true, status = "a"}]', "[x] steps[0] at: must be"),
        ('[x]\nsteps = [{at = -1, status = "a"}]', "0 or more, not -1"),
        ('[x]\nsteps = [{at = inf, status = "a"}]', "not inf"),
        (
            '[x]\nsteps = [{at = 5, status = "a"}, {at = 5, status = "b"}]',
            "[x] steps[1] at: must be more than 5, where the step before begins",
        ),
        ("[x]\nsteps = [{at = 0}]", "[x] steps[0] status: must be a text, such as 'completed'"),
        ('[x]\nsteps = [{at = 0, status = ""}]', "[x] steps[0] status: must be a text"),
        (
            '[x]\nsteps = [{at = 0, status = "a", when = 1}]',
            "[x] steps[0] when: there is no such key; there are at, status, fields, null",
        ),
        ("[x]\nfields = 1", "[x] fields: must be a table, not 1"),
        ('[x]\nfields = {status = "a"}', "[x] fields.status: a step's status stands beside"),
        ("[x]\nfields = {a = 2026-01-27}", "[x] fields.a: JSON has no dates: write '2026-01-27'"),
        ("[x]\nfields = {a = [{b = nan}]}", "[x] fields.a.0.b: JSON has no nan"),
        (
            '[x]\nfields = {a = "{ref}"}',
            "[x] fields.a: {ref} is none of {reference}, {checkout_request_id}, {amount}, {phone}",
        ),
        ("[x]\nnull = [1]", "[x] null: must be names of fields, not 1"),
        ('[x]\nnull = "id"', "[x] null: must be a list, not 'id'"),
        ('[x]\nnull = ["status"]', "[x] null: an answer always has a status"),
        ('[x]\nnull = ["a"]\nfields = {a = 1}', "[x] null: 'a' cannot be null and have a value"),
        ('[x]\nmissing = ["a"]\nfields = {a = 1}', "[x] missing: 'a' cannot be left out and have"),
        ("[x]\nphone = 254746990866", "[x] phone: must be a text, not 2547*****866"),
        ('[x]\nphone = "12"', "[x] phone: phone is"),
        ("[x]\namount = 0", "[x] amount: must be whole KES from 1 to 150000, not 0"),
        ("[x]\namount = true", "[x] amount: must be whole KES"),
        ("[paid]", "there is a scenario 'paid' in the sandbox already: choose another name"),
        ("[x]\namount = 33", "scenario 'x': KES 33 plays 'cancelled' already: choose another"),
        (
            '[x]\nphone = "0746990866"\n[y]\nphone = "+254746990866"',
            "scenario 'y': 2547*****866 plays 'x' already",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(load, text, words):
    """The file, the table, the key, and what is allowed; no whole phone."""
    with pytest.raises(ValueError, match=r"mine\.toml: ") as raised:
        load(text)
    assert words in str(raised.value)
    assert "746990866" not in str(raised.value)


def test_a_file_that_is_no_text(tmp_path: Path):
    """The file is named."""
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"mine\.toml: .*utf-8"):
        load_scenarios(path)
