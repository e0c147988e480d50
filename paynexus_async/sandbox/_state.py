"""What a ledger asks of whatever keeps its state, and the one that keeps nothing."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

__all__ = ["FORGETFUL", "Store"]


class Store(Protocol):
    """Keeps values by their kind and name.

    Kinds: `speed`, `names`, `scripts` (one value each, without a name), `payment`, `told` (by
    reference), `balance`, `moment` (by phone), `window` (by key, hashed, and seconds), `endpoint`,
    `delivery` (by number), and `month`.
    """

    def writing(self) -> AbstractContextManager[object]:
        """Keep what is put and dropped within, all of it or nothing, before it ends."""

    def put(self, kind: str, name: str, value: object) -> None:
        """Keep a value instead of the one that had this name."""

    def drop(self, kind: str, name: str) -> None:
        """Forget a value."""

    def kept(self, kind: str) -> Iterable[tuple[str, Any]]:
        """Return the names and values of a kind, in any order."""


class _Forgetful:
    """Keeps nothing: what a ledger has in memory is all there is."""

    _NOTHING: Final = nullcontext()

    def writing(self) -> AbstractContextManager[object]:
        return self._NOTHING

    def put(self, kind: str, name: str, value: object) -> None:
        """Forget it at once."""

    def drop(self, kind: str, name: str) -> None:
        """There is nothing to forget."""

    def kept(self, kind: str) -> Iterable[tuple[str, Any]]:
        return ()


FORGETFUL: Final[Store] = _Forgetful()
