"""The numbers that commands take: one without sense is refused before anything is done."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from .._discreet import quoted
from .._wire import AMOUNT_KES_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cyclopts import Token

__all__ = ["Kes", "ListeningPort", "Port", "Seconds", "Speed"]

_KES_MAX: Final = AMOUNT_KES_MAX["production"]
_PORT_MAX: Final = 65_535
_SECONDS_MAX: Final = 86_400
_WHOLE: Final = re.compile(r"[0-9]{1,9}", re.ASCII)  # int() takes "1_0" too, cyclopts rounds "1.5"


def _whole(least: int, most: int, words: str) -> Parameter:
    def convert(_: type, tokens: Sequence[Token]) -> int:
        text = tokens[0].value
        if not _WHOLE.fullmatch(text) or not least <= int(text) <= most:
            raise _refusal(words, text)
        return int(text)

    return _parameter(convert)


def _above_zero(most: float, words: str) -> Parameter:
    def convert(_: type, tokens: Sequence[Token]) -> float:
        text = tokens[0].value
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not (0 < number <= most and math.isfinite(number)):
            raise _refusal(words, text)
        return number

    return _parameter(convert)


def _parameter(convert: Callable[[type, Sequence[Token]], float]) -> Parameter:
    return Parameter(converter=convert, n_tokens=1)


def _refusal(words: str, text: str) -> ValueError:
    return ValueError(f"{words}, not {quoted(text) or 'nothing'}")


Kes = Annotated[
    int, _whole(1, _KES_MAX, f"an amount is a whole number of KES, 1 to {_KES_MAX:,}, such as 100")
]
"""What a payment may be of, in KES."""
Port = Annotated[int, _whole(1, _PORT_MAX, f"ports go from 1 to {_PORT_MAX}")]
"""Where somebody listens."""
ListeningPort = Annotated[int, _whole(0, _PORT_MAX, f"ports go from 0 to {_PORT_MAX}")]
"""Where to listen; 0 is a free one."""
Seconds = Annotated[
    float,
    _above_zero(
        _SECONDS_MAX,
        f"it must be a number of seconds above 0 and at most {_SECONDS_MAX:,} (a day)",
    ),
]
"""A time, at most a day."""
Speed = Annotated[float, _above_zero(math.inf, "speed must be a number above 0, such as 10")]
"""How much faster than life."""
