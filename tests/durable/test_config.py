"""How the engine is set up, and what cannot work."""

from __future__ import annotations

import importlib
import os
import socket
import sqlite3
import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from dbos import DBOS
from dbos import error as dbos_error

from paynexus_async import ConfigurationError
from paynexus_async.durable import DurablePayments, Terms, _config, dbos_config
from paynexus_async.sandbox import SECRET_KEY

from .shop import SECRET, Shop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def made(shop: Shop, **options: Any) -> DurablePayments:
    options = {"secret": SECRET, **options}
    return DurablePayments(shop.client(), on_settled=shop.hand_over, **options)


def test_a_sqlite_file_is_put_into_its_write_ahead_mode(tmp_path: Path):
    """In which readers do not wait; and it stays so."""
    path = tmp_path / "orders.sqlite"
    config = dbos_config("shop", f"sqlite:///{path}")
    assert config["name"] == "shop"
    assert config["executor_id"] == "local"
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Another process, which has the file of the orders for itself."""
    connection = sqlite3.connect(tmp_path / "orders.sqlite", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    yield connection
    connection.close()


def test_workers_that_start_together_wait_for_one_another(
    other: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """SQLite itself does not wait with a change of mode: it says at once that the file is locked."""
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        other.execute("ROLLBACK")

    monkeypatch.setattr(_config, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    dbos_config("shop", f"sqlite:///{tmp_path / 'orders.sqlite'}")
    assert len(waits) == 1
    assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.usefixtures("other")
def test_a_sqlite_file_that_stays_anothers_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """After half a minute, which is nothing here."""
    monkeypatch.setattr(_config, "_BUSY_SECONDS", 0)
    with pytest.raises(sqlite3.OperationalError, match="database is locked"):
        dbos_config("shop", f"sqlite:///{tmp_path / 'orders.sqlite'}")


def test_the_version_is_pinned(tmp_path: Path):
    """Otherwise each upgrade of the source would strand what is pending."""
    url = f"sqlite:///{tmp_path / 'orders.sqlite'}"
    assert dbos_config("shop", url).get("application_version") == "paynexus-1"
    given = dbos_config("shop", url, application_version="2", executor_id="till-3")
    assert (given.get("application_version"), given.get("executor_id")) == ("2", "till-3")


def test_workers_on_postgresql_bear_names_of_their_own():
    """Nothing is opened here; a SQLite database in memory has no file to prepare."""
    config = dbos_config("shop", "postgresql://shop@db/orders")
    assert config.get("executor_id") == f"{socket.gethostname()}:{os.getpid()}"
    assert dbos_config("shop", "sqlite://").get("executor_id") == "local"


@pytest.mark.parametrize(
    "terms",
    [Terms(**{name: value}) for name in ("burst_seconds", "watch_seconds", "handler_seconds",
     "grace_seconds") for value in (0, -1, float("nan"))],
    ids=str,
)  # fmt: skip
def test_terms_that_cannot_be_kept_are_refused(shop: Shop, terms: Terms):
    """Each is a number of seconds above 0."""
    with pytest.raises(ConfigurationError, match="terms"):
        made(shop, terms=terms)


def test_what_is_watched_is_kept(shop: Shop):
    """A row that is forgotten is a prompt that is sent again."""
    with pytest.raises(ConfigurationError, match="retention_seconds"):
        made(shop, retention_seconds=86_400)
    made(shop, retention_seconds=86_401)


def test_a_lease_is_as_long_as_a_workflow_may_run():
    """Following, telling, and a grace."""
    terms = Terms(burst_seconds=1, handler_seconds=2, grace_seconds=4)
    assert terms.lease_seconds == 7


def test_the_secret_comes_from_the_environment(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    """A short one is refused, wherever it comes from; none at all is allowed."""
    monkeypatch.setenv("PAYNEXUS_DURABLE_SECRET", SECRET)
    assert made(shop, secret=None, name="a")._seal.shut(phone="254746990866") is not None
    for secret, variable in (("short", SECRET), (None, "short")):
        monkeypatch.setenv("PAYNEXUS_DURABLE_SECRET", variable)
        with pytest.raises(ConfigurationError, match="durable secret"):
            made(shop, secret=secret)
    monkeypatch.delenv("PAYNEXUS_DURABLE_SECRET")
    assert made(shop, secret=None, name="b")._seal.shut(phone="254746990866") is None


@pytest.mark.anyio
async def test_before_the_launch_nothing_opens(shop: Shop):
    """The engine is the application's."""
    DBOS(config=dbos_config("shop", shop.url))
    with pytest.raises(dbos_error.DBOSException, match="launch"):
        await made(shop).__aenter__()


@pytest.mark.parametrize("missing", ["dbos", "cryptography"])
def test_without_its_extra_the_module_says_so(monkeypatch: pytest.MonkeyPatch, missing: str):
    """Which one to install."""
    monkeypatch.delitem(sys.modules, "paynexus_async.durable")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"paynexus-async\[durable\]"):
        importlib.import_module("paynexus_async.durable")


def test_no_key_is_in_the_configuration(tmp_path: Path):
    """It is none of the engine's business."""
    config = dbos_config("shop", f"sqlite:///{tmp_path / 'orders.sqlite'}")
    assert SECRET_KEY not in str(config)
