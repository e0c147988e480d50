"""Opens the database of durable orders beside its application, or says in a sentence why not."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dbos import DBOSClient
from dbos import error as dbos_error
from sqlalchemy import create_engine, inspect, make_url
from sqlalchemy.exc import SQLAlchemyError

from .. import ConfigurationError, PayNexusError
from .._discreet import quoted
from ..durable import Orders

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL

__all__ = ["OrdersUnreadableError", "opened"]

_CONNECT_SECONDS: Final = 10
_POSTGRES: Final = frozenset({"postgres", "postgresql"})
_SECRETS: Final = ("password", "sslpassword")
_EXAMPLES: Final = "sqlite:///paynexus.sqlite, or postgresql://USER@HOST/DATABASE"


class OrdersUnreadableError(PayNexusError):
    """The database of the orders does not answer, or what is in it cannot be read."""


@contextmanager
def opened(database: str, name: str) -> Iterator[Orders]:
    """Open the orders of one application; nothing is created, and no workflow is run.

    Args:
        database: the URL that its `dbos_config` has.
        name: that of its `DurablePayments`.

    Raises:
        ConfigurationError: that is no such URL, or no engine has ever used the database.
        OrdersUnreadableError: it cannot be reached, or read.
    """
    url, database = _url_of(database), ""  # an error reporter shows what a function holds
    with _quiet():
        with _explained(url, "opened"):
            _check(url)
        client = DBOSClient(
            system_database_url=url.render_as_string(hide_password=False),
            lazy=True,
            retry_connection_errors=False,
        )
        try:
            with _explained(url, "used"):
                yield Orders(client, name)
        finally:
            client.destroy()


def _url_of(database: str) -> URL:
    try:
        url = make_url(database)
        backend = url.get_backend_name()
    except (SQLAlchemyError, ValueError) as error:
        msg = f"--database must be a URL such as {_EXAMPLES}"
        raise ConfigurationError(msg) from error
    if backend == "sqlite":
        if not url.database or url.database == ":memory:" or url.host:
            msg = "--database must name a file, after three slashes: sqlite:///paynexus.sqlite"
            raise ConfigurationError(msg)
        return url.set(drivername="sqlite", query={})
    if backend not in _POSTGRES:
        msg = f"--database is of SQLite or PostgreSQL: {_EXAMPLES}"
        raise ConfigurationError(msg)
    if "@" in (url.host or ""):  # the end of the password, taken for the beginning of the host
        msg = "--database has more than one @: one in its password is written as %40"
        raise ConfigurationError(msg)
    if not url.database:
        msg = f"--database must name a database: {_EXAMPLES}"
        raise ConfigurationError(msg)
    patience = {"connect_timeout": str(_CONNECT_SECONDS)}
    return url.set(drivername="postgresql+psycopg", query={**patience, **url.query})


def _place(url: URL) -> str:
    """Return where a database is, without who asks."""
    if url.get_backend_name() == "sqlite":
        return quoted(url.database or "")
    host = f"{url.host or 'localhost'}:{url.port or 5432}"
    return quoted(f"{host}/{url.database}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the engine's own log off a terminal: what matters of it is raised as well."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def _explained(url: URL, doing: str) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, dbos_error.DBOSException) as error:
        msg = f"the database {_place(url)} cannot be {doing}: {_reason(error, url)}"
        raise OrdersUnreadableError(msg) from error


def _reason(error: Exception, url: URL) -> str:
    """Return the last, and so the nearest, cause that a driver names; no password in it."""
    text = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
    line = text.splitlines()[0].rpartition(" failed: ")[2].removeprefix("FATAL:").strip()
    for secret in (url.password, *(url.query.get(option) for option in _SECRETS)):
        line = line.replace(str(secret), "…") if secret else line
    return quoted(line)


def _check(url: URL) -> None:
    """Prove that an engine has used this database, for the engine itself would not say so."""
    is_sqlite = url.get_backend_name() == "sqlite"
    if is_sqlite and not Path(url.database or "").is_file():  # to open it would make it
        msg = (
            f"there is no file {_place(url)}: name the database of your application with "
            "--database, or in PAYNEXUS_DURABLE_DATABASE"
        )
        raise ConfigurationError(msg)
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            schema = None if is_sqlite else "dbos"
            is_used = inspect(connection).has_table("workflow_status", schema=schema)
    finally:
        engine.dispose()
    if not is_used:
        msg = f"the database {_place(url)} has no orders: no application has launched DBOS on it"
        raise ConfigurationError(msg)
