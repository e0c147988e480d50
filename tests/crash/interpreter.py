"""Whether this Python can end a worker by itself: `python -m tests.crash.interpreter`.

CPython 3.11 may collect garbage in the midst of making an object's `__dict__`. If anything asks for
the same `__dict__` meanwhile (a finalizer, or another thread that a finalizer lets run), there are
two of them, with one object's values: what one frees, the other still uses. From 3.12 on, garbage
is collected between two instructions only.
"""

from __future__ import annotations

import gc
import os
import platform

__all__ = ["dicts_of_one"]


class _Thing:
    def __init__(self) -> None:
        self.value = object()


class _Garbage:
    def __init__(self, thing: _Thing, seen: list[dict[str, object]]) -> None:
        self._itself, self._thing, self._seen = self, thing, seen

    def __del__(self) -> None:
        self._seen.append(self._thing.__dict__)


def dicts_of_one() -> list[dict[str, object]]:
    """Return the two answers of one object that was asked twice for its `__dict__`."""
    thing, seen = _Thing(), list[dict[str, object]]()
    _Garbage(thing, seen)
    kept = [{} for _ in range(200)]  # else the next one is taken from those that wait for reuse
    gc.set_threshold(1)
    gc.enable()
    seen.append(thing.__dict__)
    gc.disable()
    del kept
    return seen


if __name__ == "__main__":
    gc.disable()
    one, other = dicts_of_one()
    words = "one" if one is other else "two"
    print(f"{platform.python_implementation()} {platform.python_version()}: {words}", flush=True)
    os._exit(one is not other)  # what the two share is freed twice otherwise
