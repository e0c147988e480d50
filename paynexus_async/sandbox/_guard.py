"""Who may look behind the scenes: programs, and the sandbox's own page; no other site's."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers

from ._refused import refused

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Guard", "refusal"]

_PRIVATE_ENDINGS: Final = (".localhost", ".internal")


class Guard:
    """Refuses what another site's page sends to `/sandbox/` by a visitor's browser (CSRF).

    A browser tells where a request comes from, in `Origin` or `Sec-Fetch-Site`; a program says
    neither, and passes. Another site could give itself this machine's address and so become "the
    same origin" (DNS rebinding): so the host must be an address, or a name that no stranger owns.
    The API itself, below `/api`, is guarded by its keys, as ever.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Stand before an application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or refuse it."""
        path = scope.get("path", "")
        if scope["type"] == "http" and (path == "/" or path.startswith("/sandbox/")):
            reason = refusal(path, Headers(scope=scope))
            if reason is not None:
                await refused(403, "FORBIDDEN", reason)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def refusal(path: str, headers: Headers) -> str | None:
    """Return why a request is refused; `None` if it is not."""
    host = headers.get("host", "")
    if not _is_ours(host):
        return "Open the sandbox by an address, or as localhost: not by another site's name."
    if path == "/":  # a link from anywhere may lead to the page
        return None
    origin = headers.get("origin")
    if origin not in {None, f"http://{host}", f"https://{host}"} or headers.get(
        "sec-fetch-site"
    ) not in {None, "same-origin", "none"}:
        return "This is for the sandbox's own page, and for programs: not for another site's."
    return None


def _is_ours(host: str) -> bool:
    """Whether a `Host` is an address, or a name that nobody can point here from outside."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    name = name.strip("[]").lower()
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "." not in name or name.endswith(_PRIVATE_ENDINGS)
    return True
