"""What the sandbox's description says of each call: its request, answers and refusals.

JSON schemas only. They describe what the ledger does, and a test holds every answer to them;
nothing is checked by them.
"""

from __future__ import annotations

from typing import Any, Final

import attrs

__all__ = [
    "CALLS",
    "HEALTH",
    "OPERATIONS",
    "ORDERED",
    "ORDERS",
    "PAYMENTS",
    "PROMPTS",
    "SCRIPTED",
    "Operation",
    "answered",
]

Schema = dict[str, Any]
Responses = dict[int | str, dict[str, Any]]

_TEXT: Final[Schema] = {"type": "string"}
_TEXT_OR_NULL: Final[Schema] = {"type": ["string", "null"]}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_NUMBER: Final[Schema] = {"type": "integer", "minimum": 1}
_COUNT_OR_NULL: Final[Schema] = {"type": ["integer", "null"], "minimum": 1}


def _object(required: Schema, optional: Schema | None = None, *, closed: bool = True) -> Schema:
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
        "additionalProperties": not closed,
    }


def _list(item: Schema) -> Schema:
    return {"type": "array", "items": item}


def _success(data: Schema, **more: Schema) -> Schema:
    return _object({"success": {"const": True}, "data": data, **more})


# --- Refusals

_REFUSAL: Final = _object(
    {"success": {"const": False}, "error": _TEXT, "code": _TEXT, "message": _TEXT},
    {
        "retry_after": {"type": "integer", "minimum": 1, "description": "seconds"},
        "errors": {"type": "object", "additionalProperties": _list(_TEXT)},
    },
)
_REASONS: Final = {
    400: ("BAD_REQUEST", "The body must be a JSON object."),
    401: ("INVALID_API_KEY", "The API key is invalid."),
    403: ("FORBIDDEN", "A public key is read-only: use the secret key."),
    404: ("NOT_FOUND", "Payment not found."),
    405: ("METHOD_NOT_ALLOWED", "This call is a POST."),
    413: ("PAYLOAD_TOO_LARGE", "The body is too large."),
    422: ("VALIDATION_ERROR", "The given data was invalid."),
    429: ("RATE_LIMIT", "Too many requests. Please try again later."),
    503: ("FULL", "This sandbox keeps 100000 payments: restart it."),
}
_FIELDS: Final[dict[int, Schema]] = {
    422: {"errors": {"phone": ["The phone must be a valid Kenyan mobile number."]}},
    429: {"error": "rate_limit_exceeded", "retry_after": 60},
}


def _refused(status_code: int) -> Schema:
    code, message = _REASONS[status_code]
    example = {"success": False, "error": code.lower(), "code": code, "message": message}
    example |= _FIELDS.get(status_code, {})
    content = {"application/json": {"schema": _REFUSAL, "example": example}}
    return {"description": message, "content": content}


def answered(schema: Schema, *refusals: int, example: object = None) -> Responses:
    """Describe a call's answers.

    Args:
        schema: of the body of a success.
        refusals: the status codes with which it says no.
        example: of that body.
    """
    content: Schema = (
        {"schema": schema} if example is None else {"schema": schema, "example": example}
    )
    success = {"description": "Success", "content": {"application/json": content}}
    return {200: success, **{code: _refused(code) for code in refusals}}


# --- The API

_INITIATED_EXAMPLE: Final[Schema] = {
    "reference": "PNXABC123DEF",
    "checkout_request_id": "ws_CO_27012026101718139746990866",
    "amount": 100,
    "phone": "254746990866",
    "status": "initiated",
}
_PAYMENT_EXAMPLE: Final[Schema] = {
    **_INITIATED_EXAMPLE,
    "amount": "100.00",  # text here, a number in the answer to initiate
    "status": "completed",
    "transaction_id": "TXN000001",
    "provider_transaction_id": "OEI2AK4Q16",
    "created_at": "2026-01-27T10:17:18+03:00",
}
_PHONE_EXAMPLE: Final[Schema] = {
    "original": "0746990866",
    "normalized": "254746990866",
    "valid": True,
    "provider": "mpesa",
}
_PAGE_EXAMPLE: Final[Schema] = {
    "current_page": 1,
    "per_page": 15,
    "total": 1,
    "last_page": 1,
    "from": 1,
    "to": 1,
}
_INITIATED: Final = _object(
    {
        "payment_id": {"type": "integer", "minimum": 1},
        "reference": _TEXT,
        "checkout_request_id": _TEXT,
        "amount": {"type": "integer", "minimum": 1, "maximum": 150_000},
        "currency": {"const": "KES"},
        "phone": {"type": "string", "pattern": "^254[0-9]{9}$"},
        "status": {"const": "initiated"},
        "customer_message": _TEXT,
    }
)
# Only the status is certain: scenarios leave out the rest, or tell it as null.
_PAYMENT: Final = _object(
    {"status": _TEXT},
    {
        "id": {"type": "integer", "minimum": 1},
        "amount": {"type": ["string", "null"], "pattern": r"^[0-9]+\.[0-9]{2}$"},
        **dict.fromkeys(
            (
                "reference",
                "checkout_request_id",
                "currency",
                "phone",
                "payment_method",
                "description",
                "transaction_id",
                "provider_transaction_id",
                "failure_reason",
                "created_at",
                "updated_at",
                "completed_at",
                "failed_at",
            ),
            _TEXT_OR_NULL,
        ),
    },
)
_PHONE: Final = _object(
    {
        "original": _TEXT,
        "normalized": _TEXT_OR_NULL,
        "valid": {"type": "boolean"},
        "provider": {"enum": ["mpesa", None]},
    }
)
_PAGE: Final = _object(
    {
        "current_page": _NUMBER,
        "per_page": _NUMBER,
        "last_page": _NUMBER,
        "total": _COUNT,
        "from": _COUNT_OR_NULL,
        "to": _COUNT_OR_NULL,
    }
)
_PHONE_GIVEN: Final[Schema] = {"type": "string", "minLength": 1}
_POSITIVE: Final[Schema] = {"type": "integer", "minimum": 1, "maximum": 99_999_999}


@attrs.frozen(kw_only=True)
class Operation:
    """One call of the API.

    Attributes:
        path: below the base URL.
        method: in upper case.
        summary: what it does.
        request: its parameters and its body.
        responses: its answers, by status code.
    """

    path: str
    method: str
    summary: str
    request: Schema
    responses: Responses


def _body(schema: Schema, example: object) -> Schema:
    content = {"application/json": {"schema": schema, "example": example}}
    return {"requestBody": {"required": True, "content": content}}


def _query(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "required": False, "schema": schema}


_ANY: Final = (401, 429)
_OF_A_BODY: Final = (400, 413, 422)

OPERATIONS: Final = (
    Operation(
        path="/mpesa/payment/initiate",
        method="POST",
        summary="Initiate a payment",
        request=_body(
            _object(
                {
                    "amount": {"type": "integer", "minimum": 1, "maximum": 150_000},
                    "phone": _PHONE_GIVEN,
                },
                {"description": {"type": ["string", "null"], "maxLength": 255}},
                closed=False,
            ),
            {"amount": 100, "phone": "0746990866", "description": "Order #12345"},
        ),
        responses=answered(
            _success(_INITIATED),
            *(*_ANY, *_OF_A_BODY, 403, 503),
            example={"success": True, "data": _INITIATED_EXAMPLE},
        ),
    ),
    Operation(
        path="/payments/{reference}",
        method="GET",
        summary="Status by reference",
        request={
            "parameters": [{"name": "reference", "in": "path", "required": True, "schema": _TEXT}]
        },
        responses=answered(
            _success(_PAYMENT),
            *(*_ANY, 404, 405),
            example={"success": True, "data": _PAYMENT_EXAMPLE},
        ),
    ),
    Operation(
        path="/payments/status-by-checkout-id",
        method="POST",
        summary="Status by checkout request id",
        request=_body(
            _object({"checkout_request_id": _PHONE_GIVEN}, closed=False),
            {"checkout_request_id": "ws_CO_27012026101718139746990866"},
        ),
        responses=answered(
            _success(_PAYMENT),
            *(*_ANY, *_OF_A_BODY, 404),
            example={"success": True, "data": _PAYMENT_EXAMPLE},
        ),
    ),
    Operation(
        path="/mpesa/validate-phone",
        method="POST",
        summary="Validate a phone number",
        request=_body(_object({"phone": _PHONE_GIVEN}, closed=False), {"phone": "0746990866"}),
        responses=answered(
            _success(_PHONE),
            *(*_ANY, *_OF_A_BODY),
            example={"success": True, "data": _PHONE_EXAMPLE},
        ),
    ),
    Operation(
        path="/payments",
        method="GET",
        summary="List payments",
        request={
            "parameters": [
                *(_query(name, _TEXT) for name in ("status", "from_date", "to_date")),
                *(_query(name, _POSITIVE) for name in ("page", "per_page")),
            ]
        },
        responses=answered(
            _success(_list(_PAYMENT), pagination=_PAGE),
            *(*_ANY, 422),
            example={"success": True, "data": [_PAYMENT_EXAMPLE], "pagination": _PAGE_EXAMPLE},
        ),
    ),
)
"""The documented calls."""

# --- Behind the scenes

HEALTH: Final = _object({"ok": {"const": True}, "payments": _COUNT})
PAYMENTS: Final = _list(
    _object(
        {"reference": _TEXT, "status": _TEXT, "amount": _COUNT, "phone": _TEXT, "scenario": _TEXT}
    )
)
PROMPTS: Final = _list(
    _object({"reference": _TEXT, "phone": _TEXT, "amount": _COUNT, "description": _TEXT_OR_NULL})
)
CALLS: Final = _list(
    _object(
        {
            "at": {"type": "number"},
            "method": _TEXT,
            "path": _TEXT,
            "key_kind": {"enum": ["sk_", "pk_", "sb_", ""]},
            "status_code": {"type": ["integer", "null"]},
            "reference": _TEXT_OR_NULL,
            "fault": _TEXT_OR_NULL,
            "true_status_code": {"type": ["integer", "null"]},
        }
    )
)
SCRIPTED: Final = _object({"success": {"const": True}})

_SECONDS_OR_NULL: Final[Schema] = {"type": ["number", "null"], "minimum": 0}
ORDERED: Final = _object(
    {
        "id": _NUMBER,
        "kind": _TEXT,
        "call": _TEXT,
        "times": _COUNT_OR_NULL,
        "probability": {"type": "number", "minimum": 0, "maximum": 1},
        "seed": _COUNT,
        "seconds": _SECONDS_OR_NULL,
        "struck": _COUNT,
    }
)
ORDERS: Final = _object(
    {
        "kinds": _list(
            _object(
                {
                    "name": _TEXT,
                    "happens": _TEXT,
                    "calls": _list(_TEXT),
                    "seconds": _SECONDS_OR_NULL,
                }
            )
        ),
        "rules": _list(ORDERED),
    }
)
