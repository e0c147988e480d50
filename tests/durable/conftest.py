"""What these tests share: a shop with a PayNexus, a database, and workers that live and die."""

from __future__ import annotations

import shutil
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from dbos import DBOS, _sys_db, _workflow_commands

from paynexus_async.durable import _payments as payments
from paynexus_async.durable import dbos_config

from ..postgres import cluster, why_not
from .shop import FastLoop, Shop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..postgres import Cluster


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """The engine runs on asyncio, in threads of its own: clocks cannot jump, so they hurry."""
    return "asyncio", {"loop_factory": FastLoop}


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engine's database with its tables and the queue: a file to copy."""
    path = tmp_path_factory.mktemp("durable") / "template.sqlite"
    DBOS(config=dbos_config("shop", f"sqlite:///{path}"))
    DBOS.launch()
    DBOS.register_queue("paynexus", polling_interval_sec=0.05)
    DBOS.destroy(destroy_registry=True)
    return path


@pytest.fixture
def shop(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """A shop on a database of its own; the engine looks for what is due many times a second."""
    monkeypatch.delenv("PAYNEXUS_DURABLE_SECRET", raising=False)
    monkeypatch.setattr(_workflow_commands, "_BACKGROUND_JOBS_INTERVAL_SEC", 0.05)
    monkeypatch.setattr(payments, "_QUEUE_SECONDS", 0.05)
    path = tmp_path / "orders.sqlite"
    shutil.copy(template, path)
    yield Shop(f"sqlite:///{path}", monkeypatch)
    DBOS.destroy(destroy_registry=True)


@pytest.fixture(scope="session")
def server() -> Iterator[Cluster]:
    """A PostgreSQL; whoever stops it starts it again."""
    if why_not() is not None:
        pytest.skip(str(why_not()))
    with cluster() as running:
        yield running


@pytest.fixture
def remote(
    shop: Shop, server: Cluster, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Shop:
    """The shop, on PostgreSQL; the engine does not sleep for a minute where that is away."""

    def briefly(seconds: float) -> None:
        time.sleep(min(seconds, 0.1))

    monkeypatch.setattr(_sys_db, "time", SimpleNamespace(time=time.time, sleep=briefly))
    shop.url = server.create(f"shop_{abs(hash(request.node.name)) % 10**9}").replace(
        "postgresql://", "postgresql+psycopg://"
    )
    return shop
