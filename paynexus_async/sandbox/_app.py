"""The ledger over HTTP: the documented calls under `/api`, and a look behind the scenes."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import attrs
from fastapi import Body, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from ..phone import mask_phones
from ._engine import BODY_BYTES_MAX, Ledger, Request
from ._scenarios import SCENARIOS

__all__ = ["create_app"]

_INITIATE = {"amount": 100, "phone": "0746990866", "description": "Order #12345"}
_INITIATED = {
    "success": True,
    "data": {
        "reference": "PNXABC123DEF",
        "checkout_request_id": "ws_CO_27012026101718139746990866",
        "amount": 100,
        "phone": "254746990866",
        "status": "initiated",
    },
}


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
        return await _handle(ledger, request)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: HTTPRequest, error: RequestValidationError) -> Response:
        """Refuse a malformed control request in that shape as well."""
        errors = {".".join(map(str, e["loc"][1:])): [e["msg"]] for e in error.errors()}
        return _invalid("The given data was invalid.", errors)

    return app


def _add_api(app: FastAPI, ledger: Ledger) -> None:
    async def handle(request: HTTPRequest) -> Response:
        return await _handle(ledger, request)

    def add(path: str, method: str, summary: str, *, body: object = None, answer: object) -> None:
        content = {"application/json": {"example": body, "schema": {"type": "object"}}}
        app.add_api_route(
            f"/api{path}",
            handle,
            methods=[method],
            summary=summary,
            tags=["PayNexus"],
            name=summary,
            responses={200: {"content": {"application/json": {"example": answer}}}},
            openapi_extra={"requestBody": {"required": True, "content": content}} if body else None,
        )

    add("/mpesa/payment/initiate", "POST", "Initiate a payment", body=_INITIATE, answer=_INITIATED)
    add("/payments/{reference}", "GET", "Status by reference", answer=_INITIATED)
    add(
        "/payments/status-by-checkout-id",
        "POST",
        "Status by checkout request id",
        body={"checkout_request_id": "ws_CO_27012026101718139746990866"},
        answer=_INITIATED,
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
    add("/payments", "GET", "List payments", answer={"success": True, "data": []})


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
                "reference": record.prompt.reference,
                "status": ledger.status(record.prompt.reference),
                "amount": record.prompt.amount,
                "phone": mask_phones(record.prompt.phone),
                "scenario": record.scenario.name,
            }
            for record in ledger.records
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
        except (KeyError, ValueError):
            words = f"scenario is one of {', '.join(SCENARIOS)}; phone is a Kenyan mobile number"
            return _invalid(words, {})
        return JSONResponse({"success": True})


async def _handle(ledger: Ledger, request: HTTPRequest) -> Response:
    """Hand a request to the ledger, and render its reply."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            break  # the ledger refuses it as it is
    reply = ledger.handle(
        Request(
            method=request.method,
            path=request.url.path.removeprefix("/api"),
            key=_key(request),
            body=bytes(body),
            query=dict(request.query_params),
        )
    )
    return JSONResponse(
        dict(reply.document), status_code=reply.status_code, headers=dict(reply.headers)
    )


def _invalid(message: str, errors: dict[str, list[str]]) -> Response:
    document = {
        "success": False,
        "error": "validation_error",
        "code": "VALIDATION_ERROR",
        "message": message,
        "errors": errors,
    }
    return JSONResponse(document, status_code=422)


def _key(request: HTTPRequest) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return request.headers.get("x-api-key") or (token if scheme.lower() == "bearer" else None)
