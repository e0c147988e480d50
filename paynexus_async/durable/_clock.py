"""Teaches SQLite the clock that the engine asks it for, where SQLite is too old to have it.

From Python 3.12 on, the engine's tables and statements have `unixepoch('subsec')`. SQLite knows
that from 3.42 on; before, it answers NULL, which those tables refuse. Debian 12 has 3.40, and so
has every Python that is built on it.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from contextlib import closing
from typing import Final

from sqlalchemy import Engine, event

__all__ = ["teach", "teach_all"]

_HAS_SUBSECONDS: Final = (3, 42)


def teach_all() -> None:
    """Teach every connection that SQLAlchemy opens in this process, if it is necessary."""
    is_asked_for = sys.version_info >= (3, 12)
    if is_asked_for and sqlite3.sqlite_version_info < _HAS_SUBSECONDS:
        event.listen(Engine, "connect", teach)


def teach(connection: object, _: object = None) -> None:
    """Teach one connection `unixepoch('subsec')`; all else means what it meant."""
    if not isinstance(connection, sqlite3.Connection):
        return

    def unixepoch(moment: object) -> float | None:
        if moment in {"subsec", "subsecond"}:
            return round(time.time(), 3)
        with closing(sqlite3.connect(":memory:")) as untaught:
            told: float | None = untaught.execute("SELECT unixepoch(?)", (moment,)).fetchone()[0]
            return told

    connection.create_function("unixepoch", 1, unixepoch)
