"""Runs the command line as a shell does, against a sandbox in process, on a clock that jumps."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import anyio
import httpx
import pytest

from paynexus_async import cli
from paynexus_async.sandbox import Ledger, create_app

EPOCH = 1_769_498_238.0


def tick() -> float:
    try:
        return EPOCH + anyio.current_time()
    except anyio.NoEventLoopError:
        return EPOCH


class Shell:
    """Runs commands against a sandbox in process, on a clock that jumps."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.ledger = Ledger(clock=tick)
        self.transport: httpx.AsyncBaseTransport = httpx.ASGITransport(app=create_app(self.ledger))
        self.capsys = capsys

    def http_client(self, report: Any) -> httpx.AsyncClient:
        client = httpx.AsyncClient(transport=self.transport)

        async def count(request: httpx.Request) -> None:
            report.calls += 1

        client.event_hooks = {"request": [count]}
        return client

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        out, err = self.capsys.readouterr()
        code = caught.value.code
        return (code if isinstance(code, int) else -1), out, err

    def type(self, text: str) -> None:
        """Put something into standard input, for the next command."""
        sys.stdin = io.TextIOWrapper(io.BytesIO(text.encode()))

    def json(self, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
        code, out, _ = self(*arguments, "--json")
        return code, [json.loads(line) for line in out.splitlines()]
