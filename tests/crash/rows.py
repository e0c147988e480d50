"""What the databases hold, read beside the workers: the engine's rows, and the merchant's table."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import psycopg

from .shop import NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "Database",
    "Postgres",
    "SQLite",
    "counts_open",
    "create_effects",
    "in_window",
    "lock_waits",
    "owned",
]

Rows = list[tuple[object, ...]]

_EFFECTS: Final = (
    "CREATE TABLE effects (order_id TEXT, attempt INTEGER, revision INTEGER, state TEXT, "
    "reference TEXT, life INTEGER, at DOUBLE PRECISION)"
)


class Database(Protocol):
    """One database of a run."""

    schema: str

    def ask(self, sql: str, *values: object) -> Rows:
        """Return the rows of a query."""

    def tables(self) -> list[str]:
        """Return the names of all tables."""

    def files(self) -> Iterable[Path]:
        """Return the files in which it is kept."""


class SQLite:
    """A file. While its worker is dead it is read as a copy: what the dead left, the next finds."""

    schema = ""

    def __init__(self, path: Path, scratch: Path | None = None) -> None:
        self._path = path
        self._scratch = scratch

    def ask(self, sql: str, *values: object) -> Rows:
        path = self._path
        if self._scratch is not None:
            path = self._scratch / "copy.sqlite"
            for ending in ("", "-wal"):
                source = Path(f"{self._path}{ending}")
                Path(f"{path}{ending}").unlink(missing_ok=True)
                if source.exists():
                    shutil.copyfile(source, f"{path}{ending}")
            Path(f"{path}-shm").unlink(missing_ok=True)
        with closing(sqlite3.connect(path, timeout=30)) as connection:
            return connection.execute(sql, values).fetchall()

    def tables(self) -> list[str]:
        found = self.ask("SELECT name FROM sqlite_master WHERE type = 'table'")
        return [str(name) for (name,) in found]

    def files(self) -> Iterator[Path]:
        yield from self._path.parent.glob(f"{self._path.name}*")


class Postgres:
    """A database of a server's."""

    def __init__(self, url: str, folder: Path, schema: str = "") -> None:
        self._url = url
        self._folder = folder
        self.schema = schema

    def ask(self, sql: str, *values: object) -> Rows:
        with psycopg.connect(self._url, autocommit=True) as connection:
            return connection.execute(sql.replace("?", "%s"), values).fetchall()

    def tables(self) -> list[str]:
        found = self.ask(
            "SELECT table_schema, table_name FROM information_schema.tables "
            "WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
        )
        return [f"{schema}.{name}" for schema, name in found]

    def files(self) -> Iterator[Path]:
        self.ask("SELECT 1 FROM (SELECT pg_switch_wal()) AS _")
        yield from (path for path in self._folder.rglob("*") if path.is_file())


def create_effects(url: str) -> None:
    """Make the merchant's table: without a constraint, so that it shows what is written twice."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(_EFFECTS)
    else:
        with psycopg.connect(url) as server:
            server.execute(_EFFECTS)


def in_window(engine: Database, executor: str) -> tuple[set[str], set[str]]:
    """Return the prompts that a dead worker had begun: claimed without an answer, and unclaimed."""
    steps, status = f"{engine.schema}operation_outputs", f"{engine.schema}workflow_status"
    rows = engine.ask(
        f"SELECT workflow_uuid, EXISTS (SELECT 1 FROM {steps} AS s WHERE "
        "s.workflow_uuid = w.workflow_uuid AND s.function_name = 'claim') "
        f"FROM {status} AS w WHERE name = ? AND status = 'PENDING' AND executor_id = ? "
        f"AND NOT EXISTS (SELECT 1 FROM {steps} AS s WHERE "
        "s.workflow_uuid = w.workflow_uuid AND s.function_name = 'send')",
        f"{NAME}.prompt",
        executor,
    )
    claimed = {str(name) for name, is_claimed in rows if is_claimed}
    return claimed, {str(name) for name, is_claimed in rows if not is_claimed}


def owned(engine: Database, executor: str) -> set[str]:
    """Return what an executor is said to run."""
    rows = engine.ask(
        f"SELECT workflow_uuid FROM {engine.schema}workflow_status "
        "WHERE name IN (?, ?) AND status = 'PENDING' AND executor_id = ?",
        f"{NAME}.prompt",
        f"{NAME}.follow",  # of whose a payment is, it counts that the row is there
        executor,
    )
    return {str(name) for (name,) in rows}


def lock_waits(engine: Database) -> int:
    """Return how many sessions of a PostgreSQL server wait for a lock."""
    rows = engine.ask("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    return int(str(rows[0][0]))


def counts_open(engine: Database) -> int:
    """Return how many rows are not over."""
    rows = engine.ask(
        f"SELECT count(*) FROM {engine.schema}workflow_status WHERE name LIKE ? "
        "AND status IN ('PENDING', 'ENQUEUED', 'DELAYED')",
        f"{NAME}.%",
    )
    return int(str(rows[0][0]))
