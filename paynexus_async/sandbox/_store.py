"""A ledger's state in a file: SQLite, written through, one process at a time."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import attrs

from ._engine import Prompt, Record
from ._scenarios import SCENARIOS, Scenario, Step
from ._webhooks import Delivery, Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["SQLiteStore", "StoreError"]

_APPLICATION: Final = 0x504E5853  # "PNXS"
_VERSION: Final = 1
_MODE: Final = 0o600  # customers' phones are in it
_ALIEN: Final = "is not a sandbox's: choose another file"
_TABLE: Final = """
CREATE TABLE state (kind TEXT, name TEXT, value TEXT NOT NULL, PRIMARY KEY (kind, name))
WITHOUT ROWID
"""


class StoreError(ValueError):
    """A file that cannot keep a ledger's state; the message names it, and says why."""

    def __init__(self, path: Path, words: str) -> None:
        super().__init__(f"the store {path} {words}")


class SQLiteStore:
    """Keeps a ledger's state in one file, for `Ledger(store=...)`.

    What a ledger has answered is in the file before the answer leaves, and survives the end of the
    process, however it ends; a machine that loses its power may lose the latest moments.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open a file, or begin one.

        Args:
            path: of the file; a new one is readable by its owner only.

        Raises:
            StoreError: if it cannot be opened, is in use, or is something else's or of a later
                version.
        """
        self.path: Path = Path(path)
        self._lock = threading.RLock()
        self._depth = 0
        try:
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, _MODE))
        except OSError as error:
            raise StoreError(self.path, f"cannot be opened: {error.strerror}") from error
        self._connection = sqlite3.connect(self.path, timeout=0, check_same_thread=False)
        try:
            self._begin()
        except sqlite3.Error as error:
            self.close()
            used = getattr(error, "sqlite_errorname", "") == "SQLITE_BUSY"
            words = "is in use by another sandbox: stop that one" if used else _ALIEN
            raise StoreError(self.path, words) from error
        except StoreError:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Return itself, open."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Let go of the file; whatever a ledger did is in it already."""
        self._connection.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Commit what is put and dropped within when the outermost block ends, even by an error.

        The ledger's memory does not go back either.
        """
        with self._lock:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if not self._depth:
                    self._connection.commit()

    def put(self, kind: str, name: str, value: object) -> None:
        """Keep a value instead of the one that had this name."""
        text = json.dumps(value, default=_plain, separators=(",", ":"))
        self._connection.execute("REPLACE INTO state VALUES (?, ?, ?)", (kind, name, text))

    def drop(self, kind: str, name: str) -> None:
        """Forget a value."""
        self._connection.execute("DELETE FROM state WHERE kind = ? AND name = ?", (kind, name))

    def kept(self, kind: str) -> list[tuple[str, Any]]:
        """Return the names and values of a kind.

        Raises:
            StoreError: if the file is damaged.
        """
        read = _READ.get(kind, _as_it_is)
        try:
            rows = self._connection.execute("SELECT name, value FROM state WHERE kind = ?", (kind,))
            return [(name, read(json.loads(text))) for name, text in rows]
        except (sqlite3.Error, ValueError, TypeError, KeyError) as error:
            raise StoreError(self.path, "is damaged: move it away, and begin anew") from error

    def _begin(self) -> None:
        """Lock the file, and see whose it is before anything in it is changed."""
        execute = self._connection.execute
        execute("PRAGMA locking_mode = EXCLUSIVE")  # until it is closed, or the process ends
        execute("BEGIN EXCLUSIVE")
        application, version, tables = (
            execute(question).fetchone()[0]
            for question in (
                "PRAGMA application_id",
                "PRAGMA user_version",
                "SELECT count(*) FROM sqlite_master",
            )
        )
        if application == 0 and version == 0 and tables == 0:
            execute(f"PRAGMA application_id = {_APPLICATION}")
            execute(f"PRAGMA user_version = {_VERSION}")
            execute(_TABLE)
        elif application != _APPLICATION:
            raise StoreError(self.path, _ALIEN)
        elif version != _VERSION:
            words = f"is of version {version}, and this knows {_VERSION}: update paynexus-async"
            raise StoreError(self.path, words)
        self._connection.commit()
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = NORMAL")  # a process that is killed loses nothing


def _plain(value: attrs.AttrsInstance | frozenset[str]) -> object:
    """Return one of this package's values, or a set in it, in JSON's terms."""
    return sorted(value) if isinstance(value, frozenset) else attrs.asdict(value)


def _as_it_is(value: object) -> object:
    return value


def _scenario(value: Mapping[str, Any]) -> Scenario:
    steps, missing = tuple(Step(**step) for step in value["steps"]), frozenset(value["missing"])
    scenario = attrs.evolve(Scenario(**value), steps=steps, missing=missing)
    # The engine knows whoever holds the phone by identity.
    known = SCENARIOS.get(scenario.name)
    return known if known is not None and known == scenario else scenario


def _record(value: Mapping[str, Any]) -> Record:
    prompt, scenario = Prompt(**value["prompt"]), _scenario(value["scenario"])
    return attrs.evolve(Record(**value), prompt=prompt, scenario=scenario)


def _endpoint(value: Mapping[str, Any]) -> Endpoint:
    events, disorder = tuple(value["events"]), frozenset(value["disorder"])
    return attrs.evolve(Endpoint(**value), events=events, disorder=disorder)


def _delivery(value: Mapping[str, Any]) -> Delivery:
    return attrs.evolve(Delivery(**value), disorder=frozenset(value["disorder"]))


_READ: Final[Mapping[str, Callable[[Any], object]]] = {
    "payment": _record,
    "scripts": lambda value: [(phone, _scenario(scenario)) for phone, scenario in value],
    "endpoint": _endpoint,
    "delivery": _delivery,
}
