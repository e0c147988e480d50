"""Real sockets need real clocks; and asyncio's own clients are tested on asyncio only."""

from __future__ import annotations

from ..hostile.conftest import anyio_backend, pytest_collection_modifyitems

__all__ = ["anyio_backend", "pytest_collection_modifyitems"]
