"""The call quota of a key: every look at a payment asks here for its permit before it goes out."""

from __future__ import annotations

import anyio

__all__ = ["Budget"]


class Budget:
    """One quota, shared by everybody who waits for a payment.

    It knows one rule so far: a 429 pauses everybody once, until the time that the server named,
    instead of each waiter in turn.
    """

    def __init__(self) -> None:
        """Start without a pause."""
        self._paused_until = float("-inf")

    async def permit(self) -> None:
        """Wait until one more call may go out."""
        while self._paused_until > anyio.current_time():  # noqa: ASYNC110  # it may grow meanwhile
            await anyio.sleep_until(self._paused_until)

    def pause(self, seconds: float) -> None:
        """Let nobody call for so many seconds; a longer pause stands."""
        self._paused_until = max(self._paused_until, anyio.current_time() + seconds)
