"""How a bulk goes, while it goes: a line on a terminal that moves, and a table at the end."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from ._outcome import Exit

if TYPE_CHECKING:
    from .. import BulkProgress
    from .._wire import RateLimits
    from ._rows import Row

__all__ = ["Bar", "Tally", "duration", "seconds_left"]

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_WINDOWS: Final = (_MINUTE, _HOUR, _DAY, 30 * _DAY)
"""The windows that PayNexus counts calls in; its headers do not say which one they are about."""

_OF_ERROR: Final = {"PaymentStillPending": Exit.PENDING, "PaymentMismatchError": Exit.MISMATCH}
_STYLES: Final = {
    "completed": "bold green",
    "failed": "bold red",
    "cancelled": "bold yellow",
    "expired": "bold yellow",
}
_PIPED_CHARACTERS_MAX: Final = 200


class Tally:
    """How many rows there are of each kind."""

    def __init__(self) -> None:
        """Begin with none."""
        self.statuses: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self._says: dict[str, str] = {}

    def add(self, row: Row) -> None:
        """Count a row: by its error, or else by its status."""
        if row.error_kind is None:
            self.statuses[row.status or "?"] += 1
            return
        self.errors[row.error_kind] += 1
        self._says.setdefault(row.error_kind, (row.error or "").partition(": ")[2])

    @property
    def total(self) -> int:
        """All of them."""
        return self.statuses.total() + self.errors.total()

    @property
    def code(self) -> Exit:
        """0 if each was answered, whatever the answer; of several errors' codes, the highest."""
        codes = [_OF_ERROR.get(kind, Exit.ERROR) for kind in self.errors]
        return max(codes, default=Exit.COMPLETED)

    def print(self, title: str) -> None:
        """Print it as a table, where errors go."""
        console = Console(stderr=True, highlight=False)
        rows = [(one, n, "", _STYLES.get(one, "cyan")) for one, n in self.statuses.most_common()]
        for kind, n in self.errors.most_common():
            rows.append((kind, n, f"{'such as: ' if n > 1 else ''}{self._says[kind]}", "red"))
        width = console.width if console.is_terminal else _PIPED_CHARACTERS_MAX
        digits = max((len(f"{n:,}") for _, n, *_ in rows), default=0)
        letters = max((len(name) for name, *_ in rows), default=0)
        for name, n, words, style in rows:
            name = name.ljust(letters) if words else name
            line = Text.assemble(f"{n:>{digits},}  ", (name, style), (f"  {words}".rstrip(), "dim"))
            line.truncate(width, overflow="ellipsis")
            console.print(line, soft_wrap=True)
        console.print(Text(title, style="bold"), soft_wrap=True)


class Bar:
    """A line that moves: done, of how many, how fast, how much longer, and the quota."""

    def __init__(self, words: str, *, total: int, done: int, shown: bool) -> None:
        """Prepare it.

        Args:
            words: what is being done.
            total: all items.
            done: those of an earlier run.
            shown: whether anybody sees it.
        """
        self._before = done
        self._total = total
        self._limits: RateLimits | None = None
        self._progress = Progress(
            TextColumn("{task.description}", style="bold cyan"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
            TextColumn("{task.fields[pace]}", style="dim"),
            console=Console(stderr=True, highlight=False),
            transient=True,
            redirect_stdout=False,
            disable=not shown,
        )
        self._task = self._progress.add_task(words, total=total, completed=done, pace="")

    def __enter__(self) -> Self:
        """Show it."""
        self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Take it away."""
        self._progress.stop()

    def hear(self, limits: RateLimits | None) -> None:
        """Take note of what an answer says of the quota."""
        self._limits = limits or self._limits

    def tell(self, progress: BulkProgress) -> None:
        """Move."""
        left = self._total - self._before - progress.done
        words = [f"{progress.per_second:.1f}/s"]
        seconds = seconds_left(left, progress.per_second, self._limits)
        if left and seconds is not None:
            words.append(f"{duration(seconds)} left")
        if self._limits is not None:
            words.append(f"quota {self._limits.remaining:,} of {self._limits.limit:,}")
        if progress.failed:
            words.append(f"{progress.failed:,} errors")
        self._progress.update(
            self._task, completed=self._before + progress.done, pace=" · ".join(words)
        )


def seconds_left(left: int, per_second: float, limits: RateLimits | None) -> float | None:
    """Return how much longer it takes: as the pace so far says, or the quota, whichever is longer.

    A run begins with what the quota has left, as fast as the network is, and then keeps to the
    quota's own pace: until then, its rate says far too little.

    Args:
        left: items.
        per_second: results a second, so far.
        limits: what the latest answer said, if it did.
    """
    known = [left / per_second] if per_second > 0 else []
    if limits is not None and left > limits.remaining:
        window = next((one for one in _WINDOWS if limits.reset_seconds <= one), _WINDOWS[-1])
        beyond = (left - limits.remaining) / limits.limit
        known.append(limits.reset_seconds + beyond * window)
    return max(known, default=None)


def duration(seconds: float) -> str:
    """Say how long something takes, in two units at most."""
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02} s"
    hours, minutes = whole // _HOUR, whole % _HOUR // _MINUTE
    return f"{hours:,} h {minutes:02} min"
