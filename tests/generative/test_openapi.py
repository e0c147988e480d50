"""The sandbox's own description of itself, held to its answers: schemathesis asks, in process."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from paynexus_async.sandbox import PUBLIC_KEY, SANDBOX_KEY, SECRET_KEY, Ledger, create_app

EXAMPLES = 25


class Clock:
    """Moves on with each look at it, so that payments go through their lives."""

    now = 1_769_498_238.0

    def __call__(self) -> float:
        self.now += 0.5
        return self.now


def described(plan: str | None = None) -> tuple[Ledger, Any]:
    ledger = Ledger(clock=Clock(), plan=plan)
    app = create_app(ledger)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    schema.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
    return ledger, schema


LEDGER, SCHEMA = described()
LIMITED, LIMITED_SCHEMA = described("trial")
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]


def assert_as_described(case: Any, key: str | None) -> Any:
    """Whatever is asked, the answer is one of those described, in an envelope, and no failure."""
    for ledger in (LEDGER, LIMITED):
        ledger.faults.clear()  # those that were ordered before; what they do is not described
    headers = {} if key is None else {"X-API-Key": key}
    response = case.call(headers=headers)
    assert response.status_code < 500
    case.validate_response(response, checks=CHECKS)
    if case.path.startswith("/api/"):
        document = response.json()
        assert document["success"] is (response.status_code < 300)
        assert ("data" in document) == document["success"]
    return response


@SCHEMA.parametrize()
@pytest.mark.parametrize("key", [SECRET_KEY, PUBLIC_KEY, None, "nonsense"])
@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
def test_every_answer_is_one_that_is_described(case: Any, key: str | None) -> None:
    """With a secret key, a public one, none and a wrong one."""
    assert_as_described(case, key)


@LIMITED_SCHEMA.parametrize()
@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
def test_so_is_that_of_a_key_whose_calls_are_used_up(case: Any) -> None:
    """429 is described for every call that counts."""
    assert_as_described(case, SANDBOX_KEY)


def operations(schema: Any) -> dict[tuple[str, str], Any]:
    paths = schema.raw_schema["paths"]
    return {(path, method): op for path, ops in paths.items() for method, op in ops.items()}


def test_what_can_go_wrong_is_described_with_a_schema_and_an_example() -> None:
    """401 and 429 for every call, 403 for the one that spends, 404 for those that look."""
    for (path, _), operation in operations(SCHEMA).items():
        answers = operation["responses"]
        for status_code, response in answers.items():
            content = response["content"]["application/json"]
            assert content["schema"]["type"] in {"object", "array"}, (path, status_code)
            if status_code != "200":
                example = content["example"]
                assert example["success"] is False
                assert set(example) <= set(content["schema"]["properties"])
        if path.startswith("/api/"):
            assert {"401", "429"} <= set(answers)
            assert ("403" in answers) == path.endswith("/initiate")
            assert ("404" in answers) == (path.startswith("/api/payments/"))
            assert ("422" in answers) == (path != "/api/payments/{reference}")


@pytest.mark.parametrize("scenario", ["paid", "bare", "other-amount", "late", "instant"])
def test_a_payment_is_as_described_in_each_scenario(scenario: str) -> None:
    """Also where an answer holds little more than the status."""
    ledger, schema = described()
    ledger.script(scenario)
    body = {"amount": 100, "phone": "0746990866"}
    initiate = schema["/api/mpesa/payment/initiate"]["POST"]
    initiated = initiate.Case(body=body, media_type="application/json")
    data = assert_as_described(initiated, SECRET_KEY).json()["data"]
    look = schema["/api/payments/{reference}"]["GET"]
    for _ in range(200):
        case = look.Case(path_parameters={"reference": data["reference"]})
        assert assert_as_described(case, PUBLIC_KEY).status_code == 200
    listed = schema["/api/payments"]["GET"].Case(query={"page": 1})
    assert assert_as_described(listed, PUBLIC_KEY).json()["pagination"]["total"] == 1


def test_the_refusals_were_met_too() -> None:
    """Otherwise the search above would say little."""
    met = {call.status_code for call in (*LEDGER.calls, *LIMITED.calls)}
    if met:  # this test may have been chosen alone
        assert met >= {200, 400, 401, 403, 404, 422, 429}
