"""How the engine is set up so that payments outlive restarts and upgrades."""

from __future__ import annotations

import os
import socket
import sqlite3
import time
from typing import TYPE_CHECKING, Final

from sqlalchemy import make_url

if TYPE_CHECKING:
    from dbos import DBOSConfig

__all__ = ["VERSION", "dbos_config"]

VERSION: Final = "paynexus-1"
"""The version of what is stored. The engine recovers a workflow only under the one it began with,
and would otherwise make one up from the source code: every upgrade would strand what is pending."""

_SQLITE_CONNECTIONS: Final = 2
"""SQLite has one writer, and those who wait for it are not let in by turns but by luck. With the
engine's 20 connections, 64 workflows at a time ran at 32 a second, and the slowest step took 2.7 s;
with 2, at 57 a second and 0.9 s."""

_BUSY_SECONDS: Final = 30.0
"""How long a SQLite file may be another's."""

_IDLE_TRANSACTION_SECONDS: Final = 10.0
"""After which PostgreSQL takes the locks from a worker that stands still in a transaction: the
sweep of all others waits for the rows that it holds, and so would for the engine's own minute."""


def dbos_config(
    name: str,
    database_url: str = "sqlite:///paynexus.sqlite",
    *,
    executor_id: str | None = None,
    application_version: str = VERSION,
) -> DBOSConfig:
    """Return a configuration for `DBOS(config=…)`; add to it what you need.

    The version is pinned, the engine's chatter is reduced to warnings, and a SQLite file is put
    into its write-ahead mode, in which readers and the writer do not wait for one another. Every
    commit still reaches the disk before the next step. PostgreSQL takes its locks from a worker
    that stands still in the middle of a transaction for ten seconds.

    Args:
        name: the application's.
        database_url: `sqlite:///orders.sqlite`, or `postgresql://user@host/database`.
        executor_id: this process's name among those that share the database, the same after a
            restart. No two that run at a time may share one: each would take the other's work for
            its own of before. Left out, it is `local` for SQLite, and for PostgreSQL the machine's
            name and the process's number: what that left is then taken up by the sweep, after a
            lease, and not at once by its successor.
        application_version: change it only to keep workers of another version from taking over
            what is under way; looks that wait are taken by the latest.

    Raises:
        sqlite3.DatabaseError: the SQLite file is damaged, or no database.
        sqlite3.OperationalError: it cannot be opened or written.
    """
    url = make_url(database_url)
    is_sqlite = url.get_backend_name() == "sqlite"
    if is_sqlite and url.database:
        _prepare(url.database)
    config: DBOSConfig = {
        "name": name,
        "system_database_url": database_url,
        "application_version": application_version,
        "executor_id": executor_id
        or ("local" if is_sqlite else f"{socket.gethostname()}:{os.getpid()}"),
        # An error of the database names what was to be written; that is nobody's business.
        "db_engine_kwargs": {"hide_parameters": True},
        "log_level": "WARNING",
        "sys_db_idle_transaction_timeout_sec": _IDLE_TRANSACTION_SECONDS,
    }
    if is_sqlite:
        config["sys_db_pool_size"] = _SQLITE_CONNECTIONS
    return config


def _prepare(path: str) -> None:
    database = sqlite3.connect(path, timeout=_BUSY_SECONDS)
    try:
        _write_ahead(database)
        damage = database.execute("PRAGMA quick_check(1)").fetchone()
    finally:
        database.close()
    if damage != ("ok",):
        msg = f"{path} is damaged: {damage[0]}; nothing was sent, restore it before you go on"
        raise sqlite3.DatabaseError(msg)


def _write_ahead(database: sqlite3.Connection) -> None:
    """Change the mode; SQLite refuses that at once, and does not wait, while another does it."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            database.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
