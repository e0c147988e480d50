"""The marks, where they are put, and how they are found again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

KEY_MARK = "QzCaNaRy"
PHONE_MARK = "719283866"
"""A number of no example of the package's: its documentation and its advice show another one."""

_LONG_KEY = re.compile(
    r"\b(sk|pk|sb|whsec)_(test_|live_|sandbox_)?(?=[A-Za-z0-9]*\d)[A-Za-z0-9]{10,}"
)
_TESTS_PHONE = re.compile(r"746([ ().-]{0,2})990([ ().-]?)866")
_MARKED_PHONE = re.compile(r"[ ().-]{0,2}".join(PHONE_MARK))


def marked(text: str) -> str:
    """Return source code in which every key and every phone is a marked one.

    The marked phone begins and ends as the tests' own does: it is masked to the same text.
    """
    text = _LONG_KEY.sub(lambda key: f"{key[1]}_{key[2] or ''}{KEY_MARK}{key[0][-8:]}", text)
    return _TESTS_PHONE.sub(r"719\g<1>283\g<2>866", text)


@dataclass(frozen=True)
class Leak:
    """A marked secret in something that was written."""

    kind: str
    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: a {self.kind} in: {self.text.strip()[:300]}"


def leaks(path: Path, kinds: Iterable[str] = ("key", "phone")) -> Iterator[Leak]:
    """Find marked secrets in what was written to a file."""
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        if "key" in kinds and KEY_MARK.lower() in line.lower():
            yield Leak("key", path.name, number, line)
        if "phone" in kinds and _MARKED_PHONE.search(line):
            yield Leak("phone", path.name, number, line)
