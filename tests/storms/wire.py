"""What arrived on a connection, request by request, however little of one arrived."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

STORM_HEADER = "X-Storm"
_NUMBER = re.compile(rb"\r\nx-storm: *(\d+)\r\n", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


@dataclass
class Request:
    """One request, as far as it came: `is_whole` when its head and its body have come."""

    head: bytes = b""
    body: bytes = b""
    is_whole: bool = False

    @property
    def number(self) -> int | None:
        """The storm's own number for the call; `None` if less than that arrived."""
        found = _NUMBER.search(self.head)
        return int(found[1]) if found else None

    @property
    def is_initiate(self) -> bool:
        return self.head.startswith(b"POST ") and b"/mpesa/payment/initiate " in self.head

    @property
    def path(self) -> str:
        return self.head.split(b" ", 2)[1].decode("latin-1")

    @property
    def asked(self) -> tuple[str, int] | None:
        """Phone and amount of an initiate; `None` if less than that arrived."""
        try:
            document = json.loads(self.body)
        except ValueError:
            return None
        return document["phone"], document["amount"]


@dataclass
class Requests:
    """The requests of one connection, in the order of their first bytes."""

    begun: list[Request] = field(default_factory=list)

    def feed(self, data: bytes) -> list[Request]:
        """Take bytes as they came; return the requests that they made whole."""
        whole = []
        while data:
            if not self.begun or self.begun[-1].is_whole:
                self.begun.append(Request())
            data = _add(self.begun[-1], data)
            if self.begun[-1].is_whole:
                whole.append(self.begun[-1])
        return whole


def _add(request: Request, data: bytes) -> bytes:
    """Add bytes to a request; return those that belong to the next one."""
    if not request.head.endswith(b"\r\n\r\n"):
        head, separator, data = (request.head + data).partition(b"\r\n\r\n")
        request.head = head + separator
        if not separator:
            return b""
    found = _LENGTH.search(request.head)
    missing = (int(found[1]) if found else 0) - len(request.body)
    request.body += data[:missing]
    request.is_whole = len(data) >= missing
    return data[missing:]
