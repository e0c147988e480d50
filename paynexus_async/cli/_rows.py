"""What a bulk command writes: one row for each item, at once; and how it goes on with a file.

Each row is one line, whatever is in it. So a line without an end is one that a kill has cut, and
everything before it is whole.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import stat
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Self

import attrs

from .. import InvalidRequestError, Payment, PayNexusError
from .._discreet import discreet, quoted
from .._wire import expectation_of
from ._lock import BusyError, only_writer
from ._report import word_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .. import PaymentResult

__all__ = ["OutputForm", "Row", "Rows", "rows_to", "shown"]

OutputForm = Literal["csv", "jsonl"]

_SUFFIXES: Final[dict[str, OutputForm]] = {".jsonl": "jsonl", ".ndjson": "jsonl"}
_ERROR_CHARACTERS_MAX: Final = 300
_FORMULA: Final = ("=", "+", "-", "@")
_JSON_BEGINS: Final = b'{"item": "'


@attrs.frozen(kw_only=True)
class Row:
    """What is known of one item.

    Attributes:
        item: as it was given: a reference, or a checkout request id; or what `shown` makes of it.
        reference: the payment's.
        status: where it stands, in the server's word.
        amount: in KES.
        receipt: the M-Pesa receipt.
        error: the error's class and message, where the item was not answered.
        checked_at: when that was known, in UTC.
    """

    item: str
    reference: str | None = None
    status: str | None = None
    amount: int | str | None = None
    receipt: str | None = None
    error: str | None = None
    checked_at: str | None = None

    @classmethod
    def of(cls, result: PaymentResult, item: str) -> Self:
        """Say what a result tells of an item; what came with an error is told beside it."""
        payment = result.payment or getattr(result.error, "payment", None)
        known = payment if isinstance(payment, Payment) else None
        return cls(
            item=item,
            reference=_named(known.reference) if known else None,
            status=word_of(known) if known else None,
            amount=_exact(known.amount) if known else None,
            receipt=_named(known.receipt) if known else None,
            error=_told(result.error) if result.error else None,
            checked_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        )

    @property
    def error_kind(self) -> str | None:
        """The class of the error, such as `NotFoundError`."""
        return self.error.partition(":")[0] if self.error else None


def shown(names: Sequence[str]) -> dict[str, str]:
    """Return each name as its row shows it, so that `--resume` finds it there again.

    What may name a payment is shown as it is: a merchant finds the order by it. What cannot, and is
    refused unasked, may be a phone in the wrong column: it is masked. Those that look alike then
    are numbered, so that each keeps a row of its own.
    """
    items: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        item = masked = name if _may_name(name) else discreet(name)
        number = 1
        while item in taken:
            number += 1
            item = f"{masked} ({number})"
        items[name] = item
        taken.add(item)
    return items


def _may_name(name: str) -> bool:
    try:
        expectation_of(name)
    except InvalidRequestError:
        return False
    return True


FIELDS: Final = tuple(field.name for field in attrs.fields(Row))
_HEADER: Final = ",".join(FIELDS).encode() + b"\n"


class Rows:
    """Rows on their way to a file or to standard output; each is there as soon as it is written."""

    def __init__(
        self, put: Callable[[str], None], form: OutputForm, *, is_new: bool, done: Sequence[Row]
    ) -> None:
        """Go on behind those that are there.

        Args:
            put: writes text, at once.
            form: how.
            is_new: whether the names of a table's columns are still to be written.
            done: rows of an earlier run that stay.
        """
        self.done = done
        self._put = put
        self._form = form
        self._head = _HEADER.decode() if is_new and form == "csv" else ""

    def write(self, row: Row) -> None:
        """Write a row.

        Raises:
            OSError: it cannot be written.
        """
        self._put(self._head + _line_of(row, self._form))
        self._head = ""


@contextmanager
def rows_to(
    out: Path | None, form: OutputForm | None, *, resume: bool, stays: Callable[[Row], bool]
) -> Iterator[Rows]:
    """Open what results are written to.

    Args:
        out: a file; left out, standard output.
        form: how; left out, the file's name says it, and without a file it is CSV.
        resume: whether to go on with what is in the file.
        stays: of the rows there, whether an item needs not be asked for again.

    Raises:
        InvalidRequestError: it cannot be written, another run writes it, or it holds something
            else.
    """
    form = form or _SUFFIXES.get(out.suffix.lower() if out else "", "csv")
    if out is None:
        yield Rows(_print, form, is_new=True, done=())
        return
    with ExitStack() as held:
        try:
            held.enter_context(only_writer(out))
            is_new, done = _prepared(out, form, held, resume=resume, stays=stays)
            file = held.enter_context(out.open("ab", buffering=0))
        except BusyError:
            msg = f"another run is writing {out}: wait for its end, or name another file"
            raise InvalidRequestError(msg) from None
        except OSError as error:
            msg = f"cannot write {out}: {error.strerror}"
            raise InvalidRequestError(msg) from error

        def put(text: str) -> None:
            left = memoryview(text.encode())
            while left:
                left = left[file.write(left) :]

        yield Rows(put, form, is_new=is_new, done=done)


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _prepared(
    out: Path, form: OutputForm, held: ExitStack, *, resume: bool, stays: Callable[[Row], bool]
) -> tuple[bool, list[Row]]:
    """Return whether nothing is in a file yet, and what stays in it."""
    if not out.exists() or not stat.S_ISREG(out.stat().st_mode) or not out.stat().st_size:
        return True, []
    if not resume:
        msg = (
            f"{out} has something in it: go on with it with --resume, or name another file; "
            "nothing is ever overwritten"
        )
        raise InvalidRequestError(msg)
    done = _kept(out.resolve(), form, stays, held)
    return not out.stat().st_size, done  # even the first line may have been cut


def _kept(out: Path, form: OutputForm, stays: Callable[[Row], bool], held: ExitStack) -> list[Row]:
    """Leave in a file only what stays, by putting another one, held too, into its place at once."""
    done: dict[str, Row] = {}
    with tempfile.NamedTemporaryFile(dir=out.parent, prefix=f".{out.name}.", delete=False) as new:
        scratch = Path(new.name)
        try:
            for line, row in _whole_lines(out, form):
                if row is None:
                    new.write(line)
                elif row.item not in done and stays(row):
                    new.write(line)
                    done[row.item] = row
            new.flush()
            os.fsync(new.fileno())
            shutil.copymode(out, scratch)
            held.enter_context(only_writer(scratch))  # before anybody else finds it there
            scratch.replace(out)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
    return [*done.values()]


def _whole_lines(out: Path, form: OutputForm) -> Iterator[tuple[bytes, Row | None]]:
    """Yield each whole line with its row; the names of the columns are none."""
    with out.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):  # a kill has cut it; if it is ours, as all before it were
                if number == 1 and not _begins(line, form):
                    raise _other(out, form, number)
                return
            if number == 1 and form == "csv":
                if line != _HEADER:
                    raise _other(out, form, number)
                yield line, None
                continue
            row = _row_of(line, form)
            if row is None:
                raise _other(out, form, number)
            yield line, row


def _begins(cut: bytes, form: OutputForm) -> bool:
    if form == "csv":
        return _HEADER.startswith(cut)
    return cut.startswith(_JSON_BEGINS) or _JSON_BEGINS.startswith(cut)


def _other(out: Path, form: OutputForm, number: int) -> InvalidRequestError:
    written = "CSV" if form == "csv" else "JSON lines"
    return InvalidRequestError(
        f"cannot go on with {out}: its line {number:,} is none that this command has written as "
        f"{written} (--to?); it is left as it is"
    )


def _row_of(line: bytes, form: OutputForm) -> Row | None:
    """Read a row; `None` if it is none of ours."""
    try:
        text = line.decode()
        if form == "jsonl":
            document = json.loads(text)
        else:
            (cells,) = csv.reader(io.StringIO(text, newline=""), strict=True)
            document = {name: cell or None for name, cell in zip(FIELDS, cells, strict=True)}
    except (ValueError, csv.Error):  # UnicodeDecodeError is one
        return None
    if not isinstance(document, dict) or set(document) != set(FIELDS):
        return None
    texts = [document[name] for name in FIELDS if name != "amount"]
    is_ours = document["item"] and all(text is None or isinstance(text, str) for text in texts)
    return Row(**document) if is_ours else None


def _line_of(row: Row, form: OutputForm) -> str:
    document = attrs.asdict(row)
    if form == "jsonl":
        return json.dumps(document, ensure_ascii=False) + "\n"
    line = io.StringIO(newline="")
    cells = [document.pop("item"), *map(_harmless, document.values())]
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _harmless(cell: object) -> object:
    """Keep a spreadsheet from taking what the server says for a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def _named(name: str | None) -> str | None:
    return quoted(name, is_name=True) if name else None


def _exact(amount: int | Decimal | None) -> int | str | None:
    return str(amount) if isinstance(amount, Decimal) else amount


def _told(error: PayNexusError) -> str:
    words = " ".join(f"{type(error).__name__}: {error}".split())
    return (
        words if len(words) <= _ERROR_CHARACTERS_MAX else words[: _ERROR_CHARACTERS_MAX - 1] + "…"
    )
