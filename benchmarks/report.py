"""What every benchmark ends with: tables of figures, and the bars they are held to."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field

Figure = str | float | int | None


@dataclass(frozen=True)
class Table:
    """Figures side by side.

    Attributes:
        title: what was measured, and where.
        columns: their names, units included; the first one names the way.
        rows: a name, and a figure for each further column.
    """

    title: str
    columns: list[str]
    rows: list[list[Figure]]


@dataclass(frozen=True)
class Bar:
    """A figure that has to be reached.

    Attributes:
        name: what it is.
        figure: what was measured.
        limit: what it is held to.
        at_least: whether more is better.
    """

    name: str
    figure: float
    limit: float
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether it is reached."""
        return self.figure >= self.limit if self.at_least else self.figure <= self.limit


@dataclass
class Report:
    """One benchmark's outcome.

    Attributes:
        name: the module's.
        tables: the figures.
        bars: what they are held to.
        notes: what a reader has to know beside them.
    """

    name: str
    tables: list[Table] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def finish(self, *, as_json: bool) -> int:
        """Print everything; return 1 if a bar is missed, for the process to exit with."""
        if as_json:
            print(json.dumps(asdict(self), indent=1))
        else:
            print("\n".join(self.lines()))
        return int(not all(bar.holds for bar in self.bars))

    def lines(self) -> list[str]:
        """Lay everything out for a terminal."""
        lines: list[str] = []
        for table in self.tables:
            lines += ["", *_laid_out(table)]
        if self.bars:
            lines.append("")
        width = max((len(bar.name) for bar in self.bars), default=0)
        for bar in self.bars:
            limit = f"{'at least' if bar.at_least else 'at most'} {shown(bar.limit)}"
            verdict = "ok" if bar.holds else "MISSED"
            lines.append(f"{bar.name:{width}}  {shown(bar.figure):>9}   {limit}   {verdict}")
        return [*lines, *([""] if self.notes else []), *self.notes]

    @classmethod
    def read(cls, text: str) -> Report:
        """Read what `finish` printed as JSON."""
        document = json.loads(text)
        return cls(
            document["name"],
            [Table(**table) for table in document["tables"]],
            [Bar(**bar) for bar in document["bars"]],
            document["notes"],
        )


def shown(figure: Figure) -> str:
    """Write a figure with as many digits as it has a meaning."""
    if figure is None:
        return "-"
    if isinstance(figure, str):
        return figure
    if isinstance(figure, int) or abs(figure) >= 1000:
        return f"{figure:,.0f}"
    return (
        f"{figure:.3f}"
        if abs(figure) < 1
        else f"{figure:.2f}"
        if abs(figure) < 100
        else f"{figure:.1f}"
    )


def _laid_out(table: Table) -> list[str]:
    cells = [table.columns, *([shown(figure) for figure in row] for row in table.rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(table.columns))]
    lines = [table.title]
    for row in cells:
        first, *rest = (
            f"{cell:{width}}" if place == 0 else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  " + "  ".join([first, *rest]))
    return lines


def median_of(figures: list[float]) -> float:
    """Return the median."""
    ordered = sorted(figures)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def progress(words: str) -> None:
    """Say on the terminal what is being done, beside whatever is printed."""
    print(words, file=sys.stderr, flush=True)
