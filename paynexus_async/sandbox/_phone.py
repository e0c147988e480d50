"""The phone in the browser: the page, its events, and what a person does on it."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Final

from fastapi import Body, FastAPI
from starlette.responses import FileResponse, JSONResponse, Response

from ..exceptions import InvalidRequestError
from ..phone import normalize_phone
from ._described import DONE, PHONE, behind
from ._engine import BALANCE, Ledger
from ._events import Events, EventsResponse
from ._guard import Guard
from ._refused import refused

__all__ = ["add_phone"]

_FILES: Final = Path(__file__).parent / "phone"
_MEDIA_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_PHONES_MAX: Final = 100_000

_BALANCE: Final = Body(ge=0, le=10_000_000, strict=True)


def add_phone(app: FastAPI, ledger: Ledger) -> None:
    """Give an application its page; `app.state.events` are to be closed when its server stops."""
    app.add_middleware(Guard)
    _add_page(app, ledger)
    _add_answers(app, ledger)


def _add_page(app: FastAPI, ledger: Ledger) -> None:
    events = app.state.events = Events(ledger)

    @app.get("/sandbox/events", include_in_schema=False, response_model=None)
    async def stream() -> Response:
        """Tell a page what it shows: all of it, then every change."""
        return EventsResponse(events, _HEADERS)

    def serve(path: str, file: Path, media_type: str) -> None:
        async def page() -> Response:
            return FileResponse(file, media_type=media_type, headers=_HEADERS)

        app.add_api_route(path, page, methods=["GET"], include_in_schema=False)

    serve("/", _FILES / "page.html", "text/html")
    for file in sorted(_FILES.iterdir()):
        if file.suffix in _MEDIA_TYPES:
            serve(f"/sandbox/phone/{file.name}", file, _MEDIA_TYPES[file.suffix])


def _add_answers(app: FastAPI, ledger: Ledger) -> None:
    tags: list[str | Enum] = ["Sandbox"]

    @app.post(
        "/sandbox/prompts/{reference}/pin",
        tags=tags,
        responses=behind(DONE, 400, 404, 409, 422),
        response_model=None,
    )
    async def pin(reference: str, pin: Annotated[str, Body(embed=True)]) -> Response:
        """Type a PIN into a prompt that waits for a person."""
        return _answered(lambda: ledger.enter_pin(reference, pin))

    @app.post(
        "/sandbox/prompts/{reference}/decline",
        tags=tags,
        responses=behind(DONE, 404, 409, 422),
        response_model=None,
    )
    async def decline(reference: str) -> Response:
        """Press Cancel on a prompt that waits for a person."""
        return _answered(lambda: ledger.decline(reference))

    @app.post(
        "/sandbox/phones",
        tags=tags,
        responses=behind(PHONE, 400, 422),
        response_model=None,
    )
    async def phone(
        phone: Annotated[str, Body()], balance: Annotated[int | None, _BALANCE] = None
    ) -> Response:
        """Put a phone on the page, and set its balance, in KES."""
        try:
            number = normalize_phone(phone)
        except InvalidRequestError as error:
            return refused(422, "VALIDATION_ERROR", str(error))
        if len(ledger.phones) >= _PHONES_MAX:
            return refused(422, "VALIDATION_ERROR", f"This sandbox knows {_PHONES_MAX} phones.")
        if balance is not None or number not in ledger.phones:
            ledger.set_balance(number, BALANCE if balance is None else balance)
        data = {"phone": number, "balance": ledger.balance(number)}
        return JSONResponse({"success": True, "data": data})


def _answered(answer: Callable[[], None]) -> Response:
    try:
        answer()
    except KeyError:
        return refused(404, "NOT_FOUND", "Payment not found.")
    except ValueError as error:
        return refused(409, "CONFLICT", str(error))
    return JSONResponse({"success": True})
