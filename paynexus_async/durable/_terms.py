"""How long the parts of following a payment may take."""

from __future__ import annotations

import attrs

__all__ = ["Terms"]


@attrs.frozen(kw_only=True)
class Terms:
    """How long things may take, in seconds.

    Attributes:
        burst_seconds: how long one workflow follows a payment.
        watch_seconds: how long a payment that has not ended, or has ended without money, is looked
            at, less and less often.
        handler_seconds: how long the handler may take.
        grace_seconds: what a workflow may take besides, before another worker takes it over.
    """

    burst_seconds: float = 120.0
    watch_seconds: float = 86_400.0
    handler_seconds: float = 30.0
    grace_seconds: float = 60.0

    @property
    def call_seconds(self) -> float:
        """How long a call may take that is no part of a burst."""
        return self.grace_seconds / 2

    @property
    def send_seconds(self) -> float:
        """How long after its claim a prompt is sent: later, another worker may have gone on."""
        return self.lease_seconds / 4

    @property
    def lease_seconds(self) -> float:
        """How old a running workflow is at most, if its worker is alive."""
        return self.burst_seconds + self.handler_seconds + self.grace_seconds
