"""Keeps two runs from writing one file."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["BusyError", "only_writer"]


class BusyError(Exception):
    """Another run writes the file."""


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Be the only run that writes a file, which is made where there is none.

    The system holds the lock for this process, and lets go of it however that ends; nothing is left
    beside the file. It keeps out whoever asks for it too, and no other program. What is no file,
    such as a pipe, has no lock, and no file has one on Windows, nor where its file system knows
    none.

    Raises:
        BusyError: another run has it, or has put another file into its place.
        OSError: it cannot be written.
    """
    if fcntl is None or (path.exists() and not stat.S_ISREG(path.stat().st_mode)):
        yield
        return
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError from None
        except OSError:
            pass  # a file system without locks
        if not _is_still(handle, path):
            raise BusyError
        yield
    finally:
        os.close(handle)


def _is_still(handle: int, path: Path) -> bool:
    """Whether the file of that name is the one that was opened: a run may have replaced it."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
