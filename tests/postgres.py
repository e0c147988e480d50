"""A PostgreSQL of the tests' own: a cluster in a folder, on a free port, for as long as it is used."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Cluster", "cluster", "why_not"]

_USER: Final = "postgres"


class Cluster:
    """A running PostgreSQL server, which can be stopped, killed and started again."""

    def __init__(self, folder: Path, binaries: Path, port: int) -> None:
        self.port = port
        self.folder = folder
        self._binaries = binaries

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> str:
        """Make a database, and return its URL."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", _USER, database)
        return self.url(database)

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=''"
        options += " -c max_connections=400"  # sessions of workers that were killed live on a while
        log = self.folder / "log"
        self._run(
            "pg_ctl", "-D", self._data, "-l", str(log), "-w", "-t", "60", "-o", options, "start"
        )

    def stop(self) -> None:
        """Stop at once: every connection breaks."""
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "-t", "60", "stop")

    def kill(self) -> None:
        """Stop as a machine does that loses power."""
        pid = int((self.folder / "data/postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def initialise(self) -> None:
        self._run("initdb", "-D", self._data, "-U", _USER, "-A", "trust", "-E", "UTF8", "-N")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), *arguments]
        if os.geteuid() == 0:  # the server refuses to be root
            command = ["runuser", "-u", _USER, "--", *command]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, cwd="/", timeout=120
        )
        if done.returncode:
            msg = f"{program} failed: {done.stdout}{done.stderr}"
            raise RuntimeError(msg)


@cache
def why_not() -> str | None:
    """Return why there can be no cluster here; `None` if there can."""
    if _binaries() is None:
        return "no PostgreSQL server is installed (Debian: apt-get install postgresql)"
    if os.geteuid() == 0:
        try:
            pwd.getpwnam(_USER)
        except KeyError:
            return f"PostgreSQL does not run as root, and there is no user {_USER}"
    return None


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Run a PostgreSQL server, with its data in a folder that is gone afterwards."""
    binaries = _binaries()
    assert binaries is not None, why_not()
    folder = Path(tempfile.mkdtemp(prefix="paynexus-postgres-"))
    if os.geteuid() == 0:
        shutil.chown(folder, _USER)
    server = Cluster(folder, binaries, _free_port())
    try:
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _binaries() -> Path | None:
    places = [Path(found).resolve().parent] if (found := shutil.which("initdb")) else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    needed = ("initdb", "pg_ctl", "createdb")
    return next((p for p in places if all((p / one).exists() for one in needed)), None)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
