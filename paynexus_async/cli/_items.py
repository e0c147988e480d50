"""What a bulk command is to ask for: one payment a line, a column of a CSV, or JSON lines."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NoReturn

import attrs

from .. import InvalidRequestError
from .._discreet import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["COLUMNS", "InputForm", "Items", "read_items"]

InputForm = Literal["lines", "csv", "jsonl"]

COLUMNS: Final = (
    "reference",
    "payment_reference",
    "paynexus_reference",
    "checkout_request_id",
    "checkout_id",
    "item",
)
"""Names under which a payment is looked for, the first that has one counts; `item` is our own."""

_SUFFIXES: Final[dict[str, InputForm]] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
_DELIMITERS: Final = ",;\t|"
_COLUMNS_SHOWN_MAX: Final = 12


@attrs.frozen
class Items:
    """What is to be asked for.

    Attributes:
        names: references and checkout request ids, each once, in their order.
        repeated: how many stood there again.
        blank: lines without one.
    """

    names: Sequence[str]
    repeated: int
    blank: int


def read_items(source: str, form: InputForm | None, column: str | None) -> Items:
    """Read what is to be asked for, all of it, before the first call.

    Args:
        source: a file's path, or `-` for standard input.
        form: how it is written; left out, that is seen from its name or its first line.
        column: the column, or the key of JSON, that holds the items; left out, one of `COLUMNS`.

    Raises:
        InvalidRequestError: it cannot be read, or nothing is in it.
    """
    name = "standard input" if source == "-" else source
    text = _decoded(name, _bytes_of(source))
    first = next((line for line in text.splitlines() if line.strip()), "")
    if not first:
        _refuse(f"{name} is empty: there is nothing to ask for")
    form = form or _SUFFIXES.get(Path(source).suffix.lower()) or _form_of(first)
    names: dict[str, None] = {}
    seen = blank = 0
    for cell in _cells(name, text, form, column):
        seen += 1
        # A line break in a name would end its row too early, and no name has a blank in it.
        if item := " ".join(cell.encode("utf-8", "replace").decode().split()):
            names[item] = None
        else:
            blank += 1
    if not names:
        _refuse(f"no line of {name} holds a reference: there is nothing to ask for")
    return Items(names=[*names], repeated=seen - blank - len(names), blank=blank)


def _bytes_of(source: str) -> bytes:
    if source == "-":
        return sys.stdin.buffer.read()
    if source.startswith("-") and not Path(source).exists():
        _refuse(f"there is no option {source}, and no file of that name")
    try:
        return Path(source).read_bytes()
    except OSError as error:
        msg = f"cannot read {source}: {error.strerror}"
        raise InvalidRequestError(msg) from error


def _decoded(name: str, content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        _refuse(f"{name} is UTF-16: save it as UTF-8 (Excel calls that CSV UTF-8)")
    if b"\0" in content:
        _refuse(f"{name} is no text (a workbook? Save it as CSV UTF-8)")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        msg = (
            f"{name} is not UTF-8 (its byte {error.start + 1:,}): save it as UTF-8 "
            "(Excel calls that CSV UTF-8)"
        )
        raise InvalidRequestError(msg) from error


def _form_of(first: str) -> InputForm:
    if first.lstrip()[0] in '{["':
        return "jsonl"
    is_table = any(delimiter in first for delimiter in _DELIMITERS) or _plain(first) in COLUMNS
    return "csv" if is_table else "lines"


def _cells(name: str, text: str, form: InputForm, column: str | None) -> Iterator[str]:
    if form == "csv":
        return _cells_of_csv(name, text, column)
    if form == "jsonl":
        return _cells_of_json(name, text, column)
    if column is not None:
        _refuse(f"--column is for CSV and JSON lines; {name} is read as plain lines (--from csv?)")
    return iter([line for line in text.splitlines() if line.strip()])


def _cells_of_csv(name: str, text: str, column: str | None) -> Iterator[str]:
    first = text.lstrip().partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    rows = csv.reader(io.StringIO(text.lstrip(), newline=""), delimiter=delimiter)
    try:
        header = next(rows)
        places = [header.index(c) for c in _columns(header, column) if c in header]
        if not places:
            _refuse(_no_column(f"the first line of {name}", header, column))
        for row in rows:
            if row:
                yield _first(row[place] for place in places if place < len(row))
    except csv.Error as error:
        msg = f"line {rows.line_num:,} of {name} is no CSV: {error}"
        raise InvalidRequestError(msg) from error


def _cells_of_json(name: str, text: str, column: str | None) -> Iterator[str]:
    is_found, keys = False, dict[str, None]()
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
        except ValueError as error:
            msg = f"line {number:,} of {name} is no JSON: each line must be one object"
            raise InvalidRequestError(msg) from error
        if isinstance(document, str):
            document, is_found = {"item": document}, True
        if not isinstance(document, dict):
            _refuse(
                f"line {number:,} of {name} must be a JSON object, or a text (of an array, "
                "make lines: jq -c '.[]')"
            )
        here = [key for key in _columns([*document], column) if key in document]
        is_found = is_found or bool(here)
        keys |= dict.fromkeys(document)
        yield _first(_text(document[key]) for key in here)
    if not is_found:
        _refuse(_no_column(name, [*keys], column))


def _columns(header: Sequence[str], column: str | None) -> Sequence[str]:
    """Return those names of a header that hold items, the best first."""
    if column is None:
        return [name for known in COLUMNS for name in header if _plain(name) == known]
    if column in header:
        return [column]
    return [name for name in header if _plain(name) == _plain(column)]


def _plain(name: str) -> str:
    return "_".join(name.strip().strip('"').replace("-", " ").replace("_", " ").split()).casefold()


def _no_column(where: str, header: Sequence[str], column: str | None) -> str:
    shown = ", ".join(quoted(name) or '""' for name in header[:_COLUMNS_SHOWN_MAX])
    shown += ", …" if len(header) > _COLUMNS_SHOWN_MAX else ""
    if column is not None:
        return f"{where} has no column {quoted(column)}; it has: {shown}"
    return (
        f"{where} names no column that is known ({', '.join(COLUMNS)}): "
        f"say which one with --column; it has: {shown}"
    )


def _first(cells: Iterator[str]) -> str:
    return next((cell for cell in cells if cell.strip()), "")


def _text(value: object) -> str:
    is_name = isinstance(value, str | int) and not isinstance(value, bool)
    return str(value) if is_name else ""


def _refuse(words: str) -> NoReturn:
    raise InvalidRequestError(words)
