"""An old SQLite is taught the engine's clock, and nothing else."""

from __future__ import annotations

import sqlite3
import sys
import time
from contextlib import closing

import pytest
import sqlalchemy as sa

from paynexus_async.durable import _clock


def test_a_connection_knows_the_time_to_the_millisecond():
    """As SQLite does from 3.42 on: the engine's tables have it as a default."""
    with closing(sqlite3.connect(":memory:")) as connection:
        _clock.teach(connection)
        connection.execute("CREATE TABLE t (x, at INTEGER DEFAULT (unixepoch('subsec') * 1000))")
        connection.execute("INSERT INTO t (x) VALUES (1)")
        at = connection.execute("SELECT at FROM t").fetchone()[0]
    assert at == pytest.approx(time.time() * 1000, abs=5_000)


def test_what_else_it_is_asked_means_what_it_meant():
    """The application may ask it, too."""
    with closing(sqlite3.connect(":memory:")) as connection:
        _clock.teach(connection)
        asked = connection.execute("SELECT unixepoch('1970-01-02'), unixepoch('no date')")
        assert asked.fetchone() == (86_400, None)


def test_only_sqlite_is_taught():
    """Other databases have clocks."""
    _clock.teach(object())


@pytest.mark.parametrize(
    ("python", "sqlite", "is_taught"),
    [
        ((3, 12, 1), (3, 40, 1), True),
        ((3, 12, 1), (3, 42, 0), False),
        ((3, 11, 7), (3, 40, 1), False),
    ],
)
def test_it_is_taught_where_it_is_asked_for_and_unknown(
    monkeypatch: pytest.MonkeyPatch, python: object, sqlite: object, *, is_taught: bool
):
    """Elsewhere nothing is touched."""
    listened: list[object] = []
    monkeypatch.setattr(sys, "version_info", python)
    monkeypatch.setattr(sqlite3, "sqlite_version_info", sqlite)
    monkeypatch.setattr(sa.event, "listen", lambda *told: listened.append(told))
    _clock.teach_all()
    assert listened == ([(sa.Engine, "connect", _clock.teach)] if is_taught else [])
