"""The sandbox's noes, in the documented shape of errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["refused"]


def refused(
    status_code: int,
    code: str,
    message: str,
    *,
    errors: Mapping[str, list[str]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return an answer that says no.

    Args:
        status_code: the HTTP status.
        code: the error's name, such as `NOT_FOUND`.
        message: what is wrong, and what to do.
        errors: what is wrong with each field.
        headers: beyond those that the web server adds.
    """
    document = {"success": False, "error": code.lower(), "code": code, "message": message}
    if errors:
        document |= {"errors": errors}
    return JSONResponse(document, status_code=status_code, headers=headers)
