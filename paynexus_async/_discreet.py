"""Foreign words as messages may show them: short, on one line, without a whole phone or a key."""

from __future__ import annotations

import re
from typing import Final

from .phone import mask_phones

__all__ = ["discreet", "quoted"]

_QUOTE_CHARACTERS_MAX: Final = 200
_KEY_SHAPED: Final = re.compile(r"(?<![A-Za-z0-9])((?:sk|pk|sb|whsec)_)[A-Za-z0-9_-]+", re.ASCII)
_HOLDS_PHONE: Final = re.compile(
    # A bare `746990866` directly behind letters is a part of a name, such as PNX746990866.
    r"(?:(?<!\d)(?:254|0)|(?<![A-Za-z\d]))[ ().\-]{0,3}[17](?:[ ().\-]{0,3}\d){8}(?!\d)|^ws_CO_"
)


def discreet(text: str) -> str:
    """Return *text* without the middle of any phone number, and without any key."""
    # Keys first: a masked number inside one would leave its other half behind.
    return mask_phones(_KEY_SHAPED.sub(r"\1…", text))


def quoted(text: str, *, is_name: bool = False) -> str:
    """Return *text* as a message may show it.

    Args:
        text: foreign words.
        is_name: whether it is a reference, a receipt or a transaction id. These may hold many
            digits that are no phone's, and half of one is no use: they are shown whole, unless a
            phone stands in them, as it does at the end of every checkout request id.
    """
    line = "".join(c if c.isprintable() else " " for c in text[: 4 * _QUOTE_CHARACTERS_MAX])
    line = " ".join(line.split())
    if not is_name or _HOLDS_PHONE.search(line) or _KEY_SHAPED.search(line):
        line = discreet(line)
    return line if len(line) <= _QUOTE_CHARACTERS_MAX else line[: _QUOTE_CHARACTERS_MAX - 1] + "…"
