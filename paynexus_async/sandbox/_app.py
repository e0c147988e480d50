"""The ledger over HTTP: the documented calls under `/api`, and a look behind the scenes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Annotated, Any

import attrs
from fastapi import Body, Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from ..phone import mask_phones
from ._engine import BODY_BYTES_MAX, Ledger, Request
from ._scenarios import SCENARIOS

__all__ = ["create_app"]

_BASE = "/api"
_INITIATE = {"amount": 100, "phone": "0746990866", "description": "Order #12345"}
_INITIATED: dict[str, Any] = {
    "success": True,
    "data": {
        "reference": "PNXABC123DEF",
        "checkout_request_id": "ws_CO_27012026101718139746990866",
        "amount": 100,
        "phone": "254746990866",
        "status": "initiated",
    },
}
_PAYMENT = {
    **_INITIATED["data"],
    "amount": "100.00",  # text here, a number in the answer to initiate
    "status": "completed",
    "transaction_id": "TXN000001",
    "provider_transaction_id": "OEI2AK4Q16",
    "created_at": "2026-01-27T10:17:18+03:00",
}
_STATUS = {"success": True, "data": _PAYMENT}
_PAGE = {"current_page": 1, "per_page": 15, "total": 1, "last_page": 1, "from": 1, "to": 1}
_REFUSED = {
    "success": False,
    "error": "rate_limit_exceeded",
    "code": "RATE_LIMIT",
    "message": "Too many requests. Please try again later.",
    "retry_after": 60,
}
# For the description only: the ledger checks keys, and refuses in the documented shape.
_KEYS = [
    Depends(APIKeyHeader(name="X-API-Key", auto_error=False)),
    Depends(HTTPBearer(auto_error=False)),
]
_QUERY = ("status", "from_date", "to_date", "page", "per_page")


def create_app(ledger: Ledger) -> FastAPI:
    """Build the web application of one ledger.

    Args:
        ledger: answers every call; several applications may share it.
    """
    app = FastAPI(
        title="PayNexus sandbox",
        summary="A PayNexus on this machine: no money moves.",
        version="1",
        redirect_slashes=False,
    )
    _add_api(app, ledger)
    _add_control(app, ledger)

    @app.exception_handler(HTTPException)
    async def envelope(request: HTTPRequest, error: HTTPException) -> Response:
        """Answer what no route took in the documented shape too."""
        if f"{request.url.path}/".startswith(f"{_BASE}/"):
            return await _handle(ledger, request)
        # Not the API's: were it answered, a client with a wrong base URL would pass its tests.
        word = f"There is nothing here: the API is below {_BASE}."
        return _error(error.status_code, "NOT_FOUND", word, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: HTTPRequest, error: RequestValidationError) -> Response:
        """Refuse a malformed control request in that shape as well."""
        errors = {".".join(map(str, e["loc"][1:])): [e["msg"]] for e in error.errors()}
        return _error(422, "VALIDATION_ERROR", "The given data was invalid.", errors=errors)

    return app


def _add_api(app: FastAPI, ledger: Ledger) -> None:
    async def handle(request: HTTPRequest) -> Response:
        return await _handle(ledger, request)

    def add(
        path: str,
        method: str,
        summary: str,
        *,
        body: object = None,
        answer: object,
        parameters: Iterable[tuple[str, str]] = (),
    ) -> None:
        app.add_api_route(
            f"{_BASE}{path}",
            handle,
            methods=[method],
            summary=summary,
            tags=["PayNexus"],
            name=summary,
            dependencies=_KEYS,
            responses={
                200: {"content": {"application/json": {"example": answer}}},
                429: {
                    "description": "Too many requests; other errors have this shape too",
                    "content": {"application/json": {"example": _REFUSED}},
                },
            },
            openapi_extra=_described(body, parameters),
        )

    add("/mpesa/payment/initiate", "POST", "Initiate a payment", body=_INITIATE, answer=_INITIATED)
    add(
        "/payments/{reference}",
        "GET",
        "Status by reference",
        answer=_STATUS,
        parameters=[("reference", "path")],
    )
    add(
        "/payments/status-by-checkout-id",
        "POST",
        "Status by checkout request id",
        body={"checkout_request_id": "ws_CO_27012026101718139746990866"},
        answer=_STATUS,
    )
    add(
        "/mpesa/validate-phone",
        "POST",
        "Validate a phone number",
        body={"phone": "0746990866"},
        answer={
            "success": True,
            "data": {
                "original": "0746990866",
                "normalized": "254746990866",
                "valid": True,
                "provider": "mpesa",
            },
        },
    )
    add(
        "/payments",
        "GET",
        "List payments",
        answer={"success": True, "data": [_PAYMENT], "pagination": _PAGE},
        parameters=[(name, "query") for name in _QUERY],
    )


def _described(body: object, parameters: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Describe a request, which no handler's signature does: the ledger reads it as it came."""
    described: dict[str, Any] = {
        "parameters": [
            {"name": n, "in": place, "required": place == "path", "schema": {"type": "string"}}
            for n, place in parameters
        ],
    }
    if body:
        content = {"application/json": {"example": body, "schema": {"type": "object"}}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _add_control(app: FastAPI, ledger: Ledger) -> None:
    tags: list[str | Enum] = ["Sandbox"]

    @app.get("/sandbox/health", tags=tags)
    async def health() -> dict[str, object]:
        """Whether the sandbox is there."""
        return {"ok": True, "payments": len(ledger.records)}

    @app.get("/sandbox/payments", tags=tags)
    async def payments() -> list[dict[str, object]]:
        """What is true of each payment, now."""
        return [
            {
                "reference": truth.reference,
                "status": truth.status,
                "amount": truth.amount,
                "phone": mask_phones(truth.phone),
                "scenario": truth.scenario,
            }
            for truth in (ledger.payment(r.prompt.reference) for r in ledger.records)
        ]

    @app.get("/sandbox/prompts", tags=tags)
    async def prompts() -> list[dict[str, object]]:
        """Every prompt that a customer saw."""
        return [
            {
                "reference": prompt.reference,
                "phone": mask_phones(prompt.phone),
                "amount": prompt.amount,
                "description": prompt.description,
            }
            for prompt in ledger.prompts
        ]

    @app.get("/sandbox/calls", tags=tags)
    async def calls() -> list[dict[str, object]]:
        """The latest API calls."""
        return [attrs.asdict(call) for call in ledger.calls]

    @app.post("/sandbox/script", tags=tags)
    async def script(
        scenario: Annotated[str, Body()], phone: Annotated[str | None, Body()] = None
    ) -> Response:
        """Let the next payment (to a phone) play a scenario."""
        try:
            ledger.script(scenario, phone=phone)
        except KeyError:
            word = f"scenario is one of {', '.join(SCENARIOS)}"
            return _error(422, "VALIDATION_ERROR", word)
        except ValueError as error:
            return _error(422, "VALIDATION_ERROR", str(error))
        return JSONResponse({"success": True})


async def _handle(ledger: Ledger, request: HTTPRequest) -> Response:
    """Hand a request to the ledger, and render its reply."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > BODY_BYTES_MAX:
                break  # the ledger refuses it as it is
    except ClientDisconnect:  # nobody reads this answer, and half a request prompts nobody
        return _error(400, "BAD_REQUEST", "The request did not arrive whole.")
    reply = ledger.handle(
        Request(
            method=request.method,
            path=request.url.path.removeprefix(_BASE),
            key=_key(request),
            body=bytes(body),
            query=dict(request.query_params),
        )
    )
    return JSONResponse(
        dict(reply.document), status_code=reply.status_code, headers=dict(reply.headers)
    )


def _error(
    status_code: int,
    code: str,
    message: str,
    *,
    errors: Mapping[str, list[str]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    document = {"success": False, "error": code.lower(), "code": code, "message": message}
    if errors:
        document |= {"errors": errors}
    return JSONResponse(document, status_code=status_code, headers=headers)


def _key(request: HTTPRequest) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return request.headers.get("x-api-key") or (token if scheme.lower() == "bearer" else None)
