"""The ledger over HTTP: the documented calls under `/api`, and a look behind the scenes."""

from __future__ import annotations

from email.utils import formatdate
from enum import Enum
from typing import Annotated

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
from ._described import CALLS, HEALTH, OPERATIONS, PAYMENTS, PROMPTS, SCRIPTED, answered
from ._engine import BODY_BYTES_MAX, Ledger, Request
from ._faults_http import add_faults, tell
from ._refused import refused
from ._scenarios import SCENARIOS

__all__ = ["create_app"]

_BASE = "/api"
# For the description only: the ledger checks keys, and refuses in the documented shape.
_KEYS = [
    Depends(APIKeyHeader(name="X-API-Key", auto_error=False)),
    Depends(HTTPBearer(auto_error=False)),
]


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
    add_faults(app, ledger)

    @app.exception_handler(HTTPException)
    async def envelope(request: HTTPRequest, error: HTTPException) -> Response:
        """Answer what no route took in the documented shape too."""
        if f"{request.url.path}/".startswith(f"{_BASE}/"):
            return await _handle(ledger, request)
        # Not the API's: were it answered, a client with a wrong base URL would pass its tests.
        word = f"There is nothing here: the API is below {_BASE}."
        return refused(error.status_code, "NOT_FOUND", word, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: HTTPRequest, error: RequestValidationError) -> Response:
        """Refuse a malformed control request in that shape as well."""
        errors = {".".join(map(str, e["loc"][1:])): [e["msg"]] for e in error.errors()}
        return refused(422, "VALIDATION_ERROR", "The given data was invalid.", errors=errors)

    return app


def _add_api(app: FastAPI, ledger: Ledger) -> None:
    async def handle(request: HTTPRequest) -> Response:
        return await _handle(ledger, request)

    for operation in OPERATIONS:
        app.add_api_route(
            f"{_BASE}{operation.path}",
            handle,
            methods=[operation.method],
            summary=operation.summary,
            tags=["PayNexus"],
            name=operation.summary,
            dependencies=_KEYS,
            response_model=None,
            responses=operation.responses,
            openapi_extra=operation.request,
        )


def _add_control(app: FastAPI, ledger: Ledger) -> None:
    tags: list[str | Enum] = ["Sandbox"]

    @app.get("/sandbox/health", tags=tags, responses=answered(HEALTH), response_model=None)
    async def health() -> dict[str, object]:
        """Whether the sandbox is there."""
        return {"ok": True, "payments": len(ledger.records)}

    @app.get("/sandbox/payments", tags=tags, responses=answered(PAYMENTS), response_model=None)
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

    @app.get("/sandbox/prompts", tags=tags, responses=answered(PROMPTS), response_model=None)
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

    @app.get("/sandbox/calls", tags=tags, responses=answered(CALLS), response_model=None)
    async def calls() -> list[dict[str, object]]:
        """The latest API calls."""
        return [attrs.asdict(call) for call in ledger.calls]

    @app.post(
        "/sandbox/script", tags=tags, responses=answered(SCRIPTED, 400, 422), response_model=None
    )
    async def script(
        scenario: Annotated[str, Body(json_schema_extra={"enum": [*SCENARIOS]})],
        phone: Annotated[str | None, Body()] = None,
    ) -> Response:
        """Let the next payment (to a phone) play a scenario."""
        try:
            ledger.script(scenario, phone=phone)
        except KeyError:
            word = f"scenario is one of {', '.join(SCENARIOS)}"
            return refused(422, "VALIDATION_ERROR", word)
        except ValueError as error:
            return refused(422, "VALIDATION_ERROR", str(error))
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
        return refused(400, "BAD_REQUEST", "The request did not arrive whole.")
    asked = Request(
        method=request.method,
        path=request.url.path.removeprefix(_BASE),
        key=_key(request),
        body=bytes(body),
        query=dict(request.query_params),
    )
    strike = ledger.faults.strike(asked)
    if strike is not None:
        return await tell(ledger, asked, strike)
    reply = ledger.handle(asked)
    return JSONResponse(
        dict(reply.document),
        status_code=reply.status_code,
        headers={"Date": formatdate(ledger.now(), usegmt=True), **reply.headers},
    )


def _key(request: HTTPRequest) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return request.headers.get("x-api-key") or (token if scheme.lower() == "bearer" else None)
