"""Webhooks behind the scenes, over HTTP: endpoints by hand, their disorder, and the log."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from fastapi import Body, FastAPI
from starlette.responses import JSONResponse, Response

from ._described import DISTURBED, DONE, REGISTERED, SENT_AGAIN, WEBHOOKS, behind
from ._engine import Ledger
from ._refused import refused
from ._view import delivery_shown
from ._webhooks import DISORDERS, EVENTS, Endpoint, RegistrationError

__all__ = ["add_webhooks"]


def add_webhooks(app: FastAPI, ledger: Ledger) -> None:
    """Let endpoints be registered by hand, disturbed and looked at."""
    tags: list[str | Enum] = ["Webhooks"]
    webhooks = ledger.webhooks

    def none(what: str) -> Response:
        return refused(404, "NOT_FOUND", f"There is no such {what}.")

    @app.get("/sandbox/webhooks", tags=tags, responses=behind(WEBHOOKS), response_model=None)
    async def look() -> dict[str, object]:
        """Who is told of payments, and how the latest deliveries went."""
        return {
            "endpoints": [_shown(endpoint) for endpoint in webhooks.endpoints],
            "deliveries": [delivery_shown(delivery) for delivery in webhooks.deliveries],
            "disorders": [{"name": n, "happens": happens} for n, happens in DISORDERS.items()],
        }

    @app.post(
        "/sandbox/webhooks",
        tags=tags,
        responses=behind(REGISTERED, 400, 422),
        response_model=None,
    )
    async def register(
        url: Annotated[str, Body(embed=True)],
        name: Annotated[str, Body()] = "by hand",
        events: Annotated[list[str], Body()] = list(EVENTS),  # noqa: B006  # FastAPI copies it
    ) -> Response:
        """Register an endpoint by hand; the answer holds its secret."""
        try:
            endpoint = webhooks.register(url, name=name, events=events)
        except RegistrationError as error:
            return refused(422, "VALIDATION_ERROR", str(error), errors=error.errors)
        return JSONResponse(
            {
                "id": endpoint.number,
                "name": endpoint.name,
                "url": endpoint.url,
                "events": list(endpoint.events),
                "secret": endpoint.secret,
            }
        )

    @app.delete(
        "/sandbox/webhooks/{endpoint}",
        tags=tags,
        responses=behind(DONE, 404, 422),
        response_model=None,
    )
    async def remove(endpoint: int) -> Response:
        """Remove an endpoint; what is due to it is not sent."""
        try:
            webhooks.remove(endpoint)
        except KeyError:
            return none("endpoint")
        return JSONResponse({"success": True})

    @app.post(
        "/sandbox/webhooks/{endpoint}/disorder",
        tags=tags,
        responses=behind(DISTURBED, 400, 404, 422),
        response_model=None,
    )
    async def disturb(
        endpoint: int,
        disorder: Annotated[list[str], Body(json_schema_extra={"items": {"enum": [*DISORDERS]}})],
        times: Annotated[int | None, Body()] = None,
    ) -> Response:
        """Let deliveries to an endpoint go wrong: all that come, or so many."""
        try:
            return JSONResponse(_shown(webhooks.disturb(endpoint, disorder, times=times)))
        except KeyError:
            return none("endpoint")
        except ValueError as error:
            return refused(422, "VALIDATION_ERROR", str(error))

    @app.post(
        "/sandbox/webhooks/deliveries/{delivery}/resend",
        tags=tags,
        responses=behind(SENT_AGAIN, 404, 422),
        response_model=None,
    )
    async def resend(delivery: int) -> Response:
        """Send a delivery once more, now, signed as it should be; it gets an id of its own."""
        try:
            return JSONResponse({"id": webhooks.resend(delivery).number})
        except KeyError:
            return none("delivery")


def _shown(endpoint: Endpoint) -> dict[str, object]:
    """Show an endpoint, without its secret."""
    return {
        "id": endpoint.number,
        "name": endpoint.name,
        "url": endpoint.url,
        "events": list(endpoint.events),
        "disorder": sorted(endpoint.disorder),
        "disorder_left": endpoint.disorder_left,
    }
