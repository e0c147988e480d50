"""The HTTP client under a command's client: it counts the calls that are spent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from ._report import Report

__all__ = ["http_client"]


def http_client(report: Report) -> httpx.AsyncClient:
    """Return a client that tells *report* of each request it sends."""

    async def count(request: httpx.Request) -> None:
        report.calls += 1

    return httpx.AsyncClient(event_hooks={"request": [count]}, trust_env=False)
