"""Pictures of the figures, drawn from the reports that the benchmarks leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas
from matplotlib.layout_engine import ConstrainedLayoutEngine

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from benchmarks.report import Report, Table

__all__ = ["draw"]

OURS: Final = "#0b7a4b"
OTHERS: Final = ("#c9ced6", "#9aa3af", "#6b7280")
INK: Final = "#1f2937"
FAINT: Final = "#e5e7eb"

mpl.rcParams.update(
    {
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "paynexus-async",  # the same figures make the same file
        "font.family": "sans-serif",
        "font.sans-serif": ["Inter", "Helvetica Neue", "Arial", "DejaVu Sans", "sans-serif"],
        "font.size": 11,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": FAINT,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 12,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.axisbelow": True,
    }
)


def draw(report: Report, folder: Path) -> list[str]:
    """Draw a report's pictures; return the names of their files."""
    drawn = []
    for name, picture in _PICTURES.get(report.name, {}).items():
        canvas = picture(report)
        canvas.savefig(folder / name, metadata={"Date": None}, facecolor="white")
        drawn.append(name)
    return drawn


def _number(cell: object) -> float:
    assert isinstance(cell, int | float)
    return float(cell)


def _rows(table: Table) -> dict[str, list[Any]]:
    return {str(row[0]): row[1:] for row in table.rows}


def _shop(report: Report) -> Canvas:
    """An hour in a shop, on each plan: what a merchant wants to know."""
    tables = [table for table in report.tables if "customers, as the schedule" in table.title]
    ways = {
        "every 3 s": ("asking every 3 seconds", OTHERS[0]),
        "exponential": ("asking less and less often", OTHERS[1]),
        "paynexus-async": ("paynexus-async", OURS),
    }
    plans = [
        table.title.split(" a minute")[0].replace(", ", "\n").replace(" and ", "\n")
        for table in tables
    ]
    hours = [6, 6, 3, 1]  # simulated for each plan: refusals are told for one
    canvas = Canvas(figsize=(12, 4.6), layout=ConstrainedLayoutEngine(w_pad=0.15))
    canvas.suptitle(
        "One hour in a shop on each plan (calls and customers a minute)",
        x=0.01,
        ha="left",
        fontsize=15,
        fontweight="bold",
    )
    titles = (
        ("seconds until you know the end", 2, "{:.1f}"),
        ("calls refused in the hour (429)", 1, "{:,.0f}"),
        ("calls spent on one payment", 0, "{:.1f}"),
    )
    for axes, (title, column, form) in zip(canvas.subplots(1, 3), titles, strict=True):
        axes.set_title(title, pad=10, fontsize=11)
        _bare(axes)
        for place, (way, (_, colour)) in enumerate(ways.items()):
            values = [_number(_rows(table)[way][column]) for table in tables]
            if column == 1:
                values = [value / n for value, n in zip(values, hours, strict=True)]
            spots = [spot + (place - 1) * 0.27 for spot in range(len(plans))]
            bars = axes.bar(spots, values, width=0.25, color=colour)
            axes.bar_label(bars, [form.format(v) for v in values], padding=2, fontsize=8)
        axes.set_xticks(range(len(plans)), plans, fontsize=8.5)
    handles = [mpl.patches.Patch(color=colour, label=label) for label, colour in ways.values()]
    canvas.legend(handles=handles, loc="outside lower left", ncols=3, frameon=False)
    return canvas


def _loads(report: Report) -> Canvas:
    """One plan, more and more customers."""
    table = report.tables[-1]
    customers = [float(str(row[0]).split()[0]) for row in table.rows]
    canvas = Canvas(figsize=(8, 4.2), layout="constrained")
    axes = canvas.subplots()
    axes.set_title("60 calls a minute: 95% of the payments are known within so many seconds")
    for column, label, colour in (
        (3, "asking every 3 seconds", OTHERS[2]),
        (9, "three paynexus-async on one key", "#7cc4a4"),
        (6, "paynexus-async", OURS),
    ):
        delays = [_number(row[column]) for row in table.rows]
        axes.plot(customers, delays, color=colour, marker="o", label=label, linewidth=2)
    axes.set_yscale("log")
    axes.set_yticks([3, 5, 10, 20, 50, 100, 200], ["3", "5", "10", "20", "50", "100", "200"])
    axes.minorticks_off()
    axes.set_xlabel("customers a minute")
    axes.grid(axis="y", color=FAINT)
    axes.legend(frameon=False)
    return canvas


def _schedule(report: Report) -> Canvas:
    """Delay against calls: to the lower left is better."""
    rows = _rows(report.tables[0])
    canvas = Canvas(figsize=(8, 4.2), layout="constrained")
    axes = canvas.subplots()
    axes.set_title("What a status call buys: the delay of one payment")
    for name, (calls, mean, _) in rows.items():
        if name.startswith(("fixed", "exponential")):
            axes.scatter([calls], [mean], color=OTHERS[2], zorder=3)
            axes.annotate(
                name, (calls, mean), xytext=(7, 4), textcoords="offset points", fontsize=9
            )
    for prefix, label, colour, style in (
        ("V rule, price ", "best single step", OTHERS[1], "--"),
        ("shipped, price ", "paynexus-async", OURS, "-"),
    ):
        points = sorted(
            (calls, mean)
            for name, (calls, mean, _) in rows.items()
            if name.startswith(prefix) and ":" not in name
        )
        calls, means = zip(*points, strict=True)
        axes.plot(calls, means, style, color=colour, marker="o", label=label, linewidth=2)
    axes.set_xlabel("status calls for a payment")
    axes.set_ylabel("seconds until its end is known")
    axes.set_ylim(bottom=0)
    axes.grid(color=FAINT)
    axes.legend(frameon=False)
    return canvas


def _bulk(report: Report) -> Canvas:
    """Checks a second, near and far."""
    canvas = Canvas(figsize=(12, 3.8), layout=ConstrainedLayoutEngine(w_pad=0.15))
    places = (
        ("checks a second, over loopback", report.tables[0]),
        ("from a server 30 ms away", report.tables[-1]),
    )
    for axes, (title, table) in zip(canvas.subplots(1, 2), places, strict=True):
        _lay(axes, {str(row[0]): _number(row[1]) for row in table.rows})
        axes.set_title(title, fontsize=11)
    return canvas


def _waiters(report: Report) -> Canvas:
    """Memory for each waiter."""
    rows = _rows(report.tables[0])
    canvas = Canvas(figsize=(8, 2.4), layout="constrained")
    axes = canvas.subplots()
    axes.set_title("100,000 payments waited for: bytes for each")
    _lay(axes, {name: _number(row[0]) for name, row in rows.items()})
    return canvas


def _lay(axes: Axes, values: dict[str, float]) -> None:
    """Lay one bar below the other, each with its name and its figure."""
    names = list(reversed(values))
    colours = [OURS if _is_ours(name) else OTHERS[1] for name in names]
    bars = axes.barh(names, [values[name] for name in names], color=colours)
    axes.bar_label(bars, [f"{values[name]:,.0f}" for name in names], padding=3, fontsize=9)
    axes.set_xlim(right=1.15 * max(values.values()))
    axes.tick_params(left=False, bottom=False, labelbottom=False)
    axes.spines[["left", "bottom"]].set_visible(False)


def _is_ours(name: str) -> bool:
    return name.startswith(("paynexus", "wait_for"))


def _bare(axes: Axes) -> None:
    axes.tick_params(left=False, bottom=False, labelleft=False)
    axes.spines["left"].set_visible(False)
    axes.margins(y=0.15)


_PICTURES: Final = {
    "quota": {"shop.svg": _shop, "loads.svg": _loads},
    "schedule": {"schedule.svg": _schedule},
    "bulk": {"bulk.svg": _bulk},
    "waiters": {"waiters.svg": _waiters},
}
