"""The commands for many payments: `check`, which asks once for each, and `wait-all`."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Final, Literal, NoReturn

import anyio
import attrs
from cyclopts import Parameter

from .. import (
    APIConnectionError,
    AsyncPayNexus,
    AuthenticationError,
    InvalidRequestError,
    PaymentResult,
    PaymentStatus,
    PayNexusError,
    PermissionDeniedError,
)
from .._wire import rate_limits
from ..status import TERMINAL
from . import _session
from ._items import InputForm, Items, read_items
from ._numbers import Seconds  # noqa: TC001  # read when a command runs
from ._outcome import Exit, exit_of_error
from ._progress import Bar, Tally, duration
from ._rows import OutputForm, Row, Rows, rows_to, shown

__all__ = ["CODES", "Unfinished", "check", "wait_all"]

PlanName = Literal["trial", "basic", "professional", "enterprise"]

CODES: Final = (
    "Exit codes: 0 each was answered (or has ended), however that was · 1 some have an error · 2 "
    "usage · 6 some are pending · 8 an answer contradicts · 130 interrupted. Of several, the "
    "highest counts."
)
_LASTING: Final = frozenset(
    {
        "BadRequestError",
        "InvalidRequestError",
        "NotFoundError",
        "PaymentMismatchError",
        "UnprocessableEntityError",
    }
)
"""The errors that the same question meets again: `--resume` does not ask it."""
_UNREACHABLE_IN_A_ROW_MAX: Final = 20


class Unfinished(Exception):
    """A bulk has ended before it was done.

    Attributes:
        code: the command's.
        resumable: whether the same command goes on with it.
    """

    def __init__(self, words: str, code: Exit, *, resumable: bool) -> None:
        """Keep what to say."""
        super().__init__(words)
        self.code = code
        self.resumable = resumable


@attrs.frozen
class Sheets:
    """Where a bulk command reads and writes, and how."""

    form: Annotated[InputForm | None, Parameter(name="--from")] = None
    "How FILE is written; left out, its name or its first line tells."
    column: str | None = None
    "The column of a CSV, or the key of JSON, with the references; left out, one called reference, \
checkout_request_id or the like."
    out: Path | None = None
    "Write results here, each at once, and one run at a time; left out, to standard output."
    to: OutputForm | None = None
    "How to write them; left out, as the name in --out says, and else as CSV."
    resume: Annotated[bool, Parameter(negative="")] = False
    "Go on with what --out holds: ask only for what has no row there, or a passing error."
    plan: PlanName | None = None
    "The plan of the key, to pace by from the first call on; left out, what PayNexus's answers say."


Begin = Callable[[AsyncPayNexus, Sequence[str], Bar], AsyncGenerator[PaymentResult, None]]
_SHEETS: Final = Sheets()
_WHERE: Final = _session.Where()


def check(
    file: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    sheets: Annotated[Sheets, Parameter(name="*")] = _SHEETS,
    where: Annotated[_session.Where, Parameter(name="*")] = _WHERE,
) -> int:
    """Ask once for each payment of a file; one row of CSV or JSON for each, as they come.

    An item that stands there more than once is asked for once, and has one row.

    Parameters
    ----------
    file
        References or checkout request ids: one a line, CSV, or JSON lines; - for standard input.
    """

    def begin(
        paynexus: AsyncPayNexus, names: Sequence[str], bar: Bar
    ) -> AsyncGenerator[PaymentResult, None]:
        return paynexus.check_payments(names, progress=bar.tell)

    return _Run("checking", sheets, where, begin, _is_answered)(str(file))


def wait_all(
    file: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    max_wait: Seconds = 120.0,
    sheets: Annotated[Sheets, Parameter(name="*")] = _SHEETS,
    where: Annotated[_session.Where, Parameter(name="*")] = _WHERE,
) -> int:
    """Wait for the end of each payment of a file; one row of CSV or JSON for each, as they end.

    An item that stands there more than once has one row. With --resume, those that had not ended
    are waited for again.

    Parameters
    ----------
    file
        References or checkout request ids: one a line, CSV, or JSON lines; - for standard input.
    max_wait
        Seconds to wait for each; all at once, so they share the calls of the quota. Of thousands
        that have ended by now, check tells more.
    """

    def begin(
        paynexus: AsyncPayNexus, names: Sequence[str], bar: Bar
    ) -> AsyncGenerator[PaymentResult, None]:
        return paynexus.wait_many(names, max_wait=max_wait, progress=bar.tell)

    return _Run("waiting for", sheets, where, begin, _has_ended)(str(file))


def _is_answered(row: Row) -> bool:
    return row.error_kind is None or row.error_kind in _LASTING


def _has_ended(row: Row) -> bool:
    ended = row.error_kind is None and row.status in {PaymentStatus(one) for one in TERMINAL}
    return ended or row.error_kind in _LASTING


class _Run:
    """One run of a bulk command."""

    def __init__(
        self,
        words: str,
        sheets: Sheets,
        where: _session.Where,
        begin: Begin,
        stays: Callable[[Row], bool],
    ) -> None:
        self.calls = 0
        self._words = words
        self._sheets = sheets
        self._where = where
        self._begin = begin
        self._stays = stays
        self._tally = Tally()
        self._items: dict[str, str] = {}
        self._before = self._unreachable = 0
        self._seconds = 0.0

    def __call__(self, file: str) -> int:
        """Ask for what is in *file*, and return the exit code.

        Raises:
            Unfinished: it is not done.
            InvalidRequestError: nothing was asked.
        """
        sheets = self._sheets
        if sheets.resume and sheets.out is None:
            msg = "--resume goes on with what is in a file: name it with --out"
            raise InvalidRequestError(msg)
        items = read_items(file, sheets.form, sheets.column)
        try:
            anyio.run(self._main, items)
        except KeyboardInterrupt:
            self._sum_up(items)
            self._end("stopped", Exit.INTERRUPTED)
        except Unfinished:
            self._sum_up(items)
            raise
        except PayNexusError as error:
            if isinstance(error, InvalidRequestError):
                raise
            hint = _session.hint(error, self._where)
            words = "\n".join(filter(None, [str(error), hint]))
            raise Unfinished(words, exit_of_error(error), resumable=False) from error
        self._sum_up(items)
        return self._tally.code

    async def _main(self, items: Items) -> None:
        sheets, started = self._sheets, anyio.current_time()
        async with _session.client(self._where, self, plan=sheets.plan) as paynexus:
            with rows_to(sheets.out, sheets.to, resume=sheets.resume, stays=self._stays) as rows:
                names = self._left(items, rows)
                with self._bar(items, len(items.names) - len(names)) as bar:
                    try:
                        await self._ask(paynexus, names, rows, bar)
                    finally:
                        self._seconds = anyio.current_time() - started

    def _left(self, items: Items, rows: Rows) -> Sequence[str]:
        """Count what an earlier run has done, and return what it has not."""
        self._items = shown(items.names)
        wanted = set(self._items.values())
        done = {row.item: row for row in rows.done if row.item in wanted}
        for row in done.values():
            self._tally.add(row)
        self._before = len(done)
        return [name for name, item in self._items.items() if item not in done]

    def _bar(self, items: Items, done: int) -> Bar:
        rows_are_seen = self._sheets.out is None and sys.stdout.isatty()
        is_seen = sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not rows_are_seen
        return Bar(self._words, total=len(items.names), done=done, shown=is_seen)

    async def _ask(
        self, paynexus: AsyncPayNexus, names: Sequence[str], rows: Rows, bar: Bar
    ) -> None:
        async with aclosing(self._begin(paynexus, names, bar)) as results:
            async for result in results:
                source = result.payment or result.error
                response = getattr(source, "response", None)
                bar.hear(rate_limits(response) if response else None)
                self._stop_if_hopeless(result.error)
                row = Row.of(result, self._items[str(result.asked)])
                self._write(rows, row)
                self._tally.add(row)

    def _write(self, rows: Rows, row: Row) -> None:
        try:
            rows.write(row)
        except BrokenPipeError:
            # Python would complain once more when it flushes what is left.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self._end("nobody reads the results", Exit.ERROR)
        except OSError as error:
            words = f"cannot write the results: {error.strerror}"
            self._end(words, Exit.ERROR)

    def _stop_if_hopeless(self, error: PayNexusError | None) -> None:
        """Stop where all the others would meet the same error, before it has a row.

        Raises:
            Unfinished: saying why.
        """
        if isinstance(error, AuthenticationError | PermissionDeniedError):
            self._end(f"the key is refused: {error}", Exit.ERROR)
        is_unreachable = isinstance(error, APIConnectionError) and error.never_sent
        self._unreachable = self._unreachable + 1 if is_unreachable else 0
        if error is not None and self._unreachable >= _UNREACHABLE_IN_A_ROW_MAX:
            hint = _session.hint(error, self._where)
            words = f"{self._unreachable} in a row could not be asked: {error}"
            self._end("\n".join(filter(None, [words, hint])), Exit.ERROR)

    def _end(self, words: str, code: Exit) -> NoReturn:
        raise Unfinished(words, code, resumable=self._sheets.out is not None)

    def _sum_up(self, items: Items) -> None:
        tally, parts = self._tally, []
        parts.append(f"{tally.total:,} of {len(items.names):,} items")
        if self._before:
            parts.append(f"{self._before:,} of an earlier run")
        parts += [f"{self.calls:,} calls", duration(self._seconds)]
        if items.repeated:
            parts.append(f"{items.repeated:,} repeated, asked once")
        if items.blank:
            parts.append(f"{items.blank:,} blank lines left out")
        if self._sheets.out is not None:
            parts.append(str(self._sheets.out))
        tally.print(" · ".join(parts))
