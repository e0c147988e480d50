"""The commands about durable orders: `durable status`, `durable retry` and `durable resolve`."""

from __future__ import annotations

import json as jsons
import sys
import time
from datetime import UTC, datetime
from functools import partial
from itertools import zip_longest
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Final

import anyio
import attrs
from cyclopts import App, Parameter
from rich.console import Console
from rich.text import Text

from .. import InvalidRequestError, PayNexusError
from .._discreet import discreet, quoted
from ._outcome import Exit, exit_of_error
from ._progress import duration
from ._report import JsonReport, PlainReport, document_of, line_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from ..durable import Orders, OrderView, Summary

__all__ = ["durable"]

durable = App(
    name="durable",
    help="Look at the orders of an application with durable payments, and settle what it cannot.",
    help_epilogue=(
        "They are read from the application's database, whether or not it runs; what is asked for "
        "here is done by the next of its workers that is free. A password belongs in "
        "PAYNEXUS_DURABLE_DATABASE: others on this machine can read what is in a command.\n\n"
        "Exit codes: 0 fine, or done · 1 the database does not answer, or the order does not stand "
        "where that can be done · 2 usage: no such order, or no such database · 9 (status) "
        "somebody must look: an order is unknown, or its handler fails."
    ),
)

_SHOWN_MAX: Final = 20
_INDENT: Final = 11
_OVERDUE_SECONDS: Final = 10.0
_STYLES: Final = {
    "completed": "bold green",
    "unknown": "bold red",
    "pending": "cyan",
    "prompting": "cyan",
}


@attrs.frozen
class Place:
    """Whose orders a command is about, and how it tells of them."""

    database: Annotated[str, Parameter(env_var="PAYNEXUS_DURABLE_DATABASE")] = attrs.field(
        default="sqlite:///paynexus.sqlite", repr=False
    )
    "The URL of the application's database: that of its dbos_config."
    name: str = "paynexus"
    "The name of its DurablePayments."
    json: Annotated[bool, Parameter(negative="")] = False
    "Print one JSON object for each order, and one for the result."


Flattened = Annotated[Place, Parameter(name="*")]
_DEFAULTS: Final = Place()


@durable.command
def status(order_id: str | None = None, /, *, place: Flattened = _DEFAULTS) -> int:
    """Count the orders by state, and list those that somebody must look at; or show one order.

    Parameters
    ----------
    order_id
        An order, to see each attempt to be paid for it.
    """
    return _tell(place, partial(_status, order_id, place))


@durable.command
def retry(order_id: str, /, *, place: Flattened = _DEFAULTS) -> int:
    """Have an order that waits looked at, and its handler called, now.

    Parameters
    ----------
    order_id
        The order.
    """
    return _tell(place, partial(_retry, order_id, place))


@durable.command
def resolve(
    order_id: str,
    reference: str | None = None,
    /,
    *,
    no_payment: Annotated[bool, Parameter(negative="")] = False,
    yes: Annotated[bool, Parameter(negative="")] = False,
    place: Flattened = _DEFAULTS,
) -> int:
    """Say what you have found out about an unknown order, such as in PayNexus's dashboard.

    A reference is not believed: its payment is asked for, and held to the order's amount. That
    there is no payment is believed: the order is written off, and may be asked for again.

    Parameters
    ----------
    order_id
        The order.
    reference
        That of its payment, such as PNXABC123DEF.
    no_payment
        There is no payment.
    yes
        Do not ask whether that is so.
    """
    if (reference is None) is not no_payment:
        msg = "resolve: give either the reference of its payment, or --no-payment"
        raise InvalidRequestError(msg)
    if no_payment and not yes and not sys.stdin.isatty():
        msg = "resolve: nobody is there to be asked whether there is no payment; say so with --yes"
        raise InvalidRequestError(msg)
    asks = no_payment and not yes
    return _tell(place, partial(_resolve, order_id, reference, place, asks=asks))


# --- What the commands do


def _tell(place: Place, work: Callable[[Orders], Awaitable[Exit]]) -> int:
    """Run a command's work on the orders, and tell how it went."""
    try:
        from . import _orders
    except ImportError as error:
        msg = f"{error.name} is missing: pip install 'paynexus-async[cli,durable]'"
        raise ImportError(msg, name=error.name) from error

    async def told() -> Exit:
        report = JsonReport() if place.json else PlainReport()
        try:
            with _orders.opened(place.database, place.name) as orders:
                return await work(orders)
        except PayNexusError as error:
            code = exit_of_error(error)
            report.error(error, code)
            return code

    return anyio.run(told)


async def _status(order_id: str | None, place: Place, orders: Orders) -> Exit:
    if order_id is not None:
        views = await orders.of(order_id)
        if not views:
            msg = f"there is no order {quoted(order_id)!r} of {quoted(place.name)!r}"
            raise InvalidRequestError(msg)
        code = _code_of(views)
        if place.json:
            for view in views:
                _print("order", **_document(view))
            _print("result", outcome=code.name.lower(), attempts=len(views))
        else:
            _show_attempts(views)
        return code
    summary = await orders.summary()
    code = _code_of(_needing(summary))
    if place.json:
        _print_summary(summary, code)
    else:
        _show_summary(summary, place)
    return code


async def _retry(order_id: str, place: Place, orders: Orders) -> Exit:
    view = await orders.retry(order_id)
    _done(place, await _last(orders, view), "It is due now: the next worker that is free takes it.")
    return Exit.COMPLETED


async def _resolve(
    order_id: str, reference: str | None, place: Place, orders: Orders, *, asks: bool
) -> Exit:
    views = await orders.of(order_id)
    if asks and views and views[-1].state == "unknown" and not _confirmed(views[-1]):
        print("paynexus: nothing was changed", file=sys.stderr)
        return Exit.ERROR
    view = await _last(orders, await orders.resolve(order_id, reference))
    words = f"{reference} is asked for by the next worker that is free, and held to the amount."
    if reference is None:
        words = "The next worker that is free tells the handler; then it may be asked for again."
    _done(place, view, words)
    return Exit.COMPLETED


async def _last(orders: Orders, view: OrderView) -> OrderView:
    """Look at an order anew."""
    return (await orders.of(view.order_id))[-1]


def _confirmed(view: OrderView) -> bool:
    words = (
        f"Order {view.order_id}: {_asked(view)}.\n"
        "If it has a payment after all, and is asked for again, the customer pays twice.\n"
        "Have you looked, and is there none? Write it off? [y/N] "
    )
    print(words, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _needing(summary: Summary) -> tuple[OrderView, ...]:
    return (*summary.unknown, *summary.failing, *summary.stuck)


def _code_of(views: Iterable[OrderView]) -> Exit:
    needed = any(
        view.state == "unknown" or view.handler_failures or view.is_stuck for view in views
    )
    return Exit.ATTENTION if needed else Exit.COMPLETED


# --- For programs


def _print(event: str, **fields: object) -> None:
    print(jsons.dumps({"event": event, **fields}, ensure_ascii=False), flush=True)


def _print_summary(summary: Summary, code: Exit) -> None:
    needing = {view.workflow_id: view for view in _needing(summary)}
    for view in needing.values():
        _print("order", **_document(view))
    oldest = summary.oldest_pending
    _print(
        "result",
        outcome=code.name.lower(),
        counts={str(state): n for state, n in summary.counts.items()},
        oldest_pending=None if oldest is None else _document(oldest),
        unknown=len(summary.unknown),
        failing=len(summary.failing),
        stuck=len(summary.stuck),
    )


def _document(view: OrderView) -> dict[str, object]:
    """Return an attempt as JSON can hold it."""
    document = attrs.asdict(view, recurse=False)
    document["payment"] = None if view.payment is None else document_of(view.payment)
    for moment in ("taken_at", "next_look_at"):
        document[moment] = _moment(document[moment])
    return document


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()


# --- For people


def _done(place: Place, view: OrderView, words: str) -> None:
    if place.json:
        _print("result", outcome=Exit.COMPLETED.name.lower(), **_document(view))
    else:
        print(f"Order {view.order_id}: {_words(view.state)}. {words}", flush=True)


def _show_summary(summary: Summary, place: Place) -> None:
    console = Console(highlight=False)
    if not summary.counts:
        console.print(f"No orders of {quoted(place.name)!r}.", soft_wrap=True, markup=False)
        return
    digits = max(len(f"{n:,}") for n in summary.counts.values())
    for state, n in sorted(summary.counts.items(), key=lambda item: (-item[1], item[0])):
        line = Text.assemble(f"{n:>{digits},}  ", (_words(state), _STYLES.get(state, "")))
        console.print(line, soft_wrap=True)
    if summary.oldest_pending is not None:
        oldest = summary.oldest_pending
        _show(console, oldest, f"{_words(oldest.state)}, the oldest")
    kinds = (
        ("unknown", summary.unknown),
        ("its handler fails", summary.failing),
        ("stuck", summary.stuck),
    )
    for title, views in kinds:
        for view in views[:_SHOWN_MAX]:
            _show(console, view, title)
        if len(views) > _SHOWN_MAX:
            rest = len(views) - _SHOWN_MAX
            console.print(f"… and {rest:,} more; --json tells all of them", style="dim")
    needing = {view.workflow_id for view in _needing(summary)}
    verdict = "Nobody needs to look."
    if needing:
        count = "1 order needs" if len(needing) == 1 else f"{len(needing):,} orders need"
        verdict = f"{count} somebody to look."
    console.print(Text(f"\n{verdict}", style="bold"), soft_wrap=True)


def _show_attempts(views: Iterable[OrderView]) -> None:
    console = Console(highlight=False)
    for view in views:
        _show(console, view, f"{_words(view.state)}, attempt {view.attempt}")


def _show(console: Console, view: OrderView, title: str) -> None:
    """Show one attempt: where it stands, what is known, and what comes next."""
    sign, style = ("✘", "bold red") if _code_of([view]) else ("·", _STYLES.get(view.state, "bold"))
    head = Text.assemble((f"{sign} ", style), (view.order_id, "bold"), "  ", (title, style))
    console.print(Text("\n") + head, soft_wrap=True)
    lines = [("asked", _asked(view))]
    lines.append(("payment", "none is known" if view.payment is None else line_of(view.payment)))
    if view.reason:
        lines.append(("why", _printable(view.reason)))
    lines += [("handler", _handled(view)), ("next", _next(view))]
    for name, words in lines:
        parts = wrap(words, console.width - _INDENT) if console.is_terminal else [words]
        for label, part in zip_longest([name], parts, fillvalue=""):
            console.print(Text.assemble((f"  {label:<9}", "dim"), part), soft_wrap=True)


def _asked(view: OrderView) -> str:
    moment = datetime.fromtimestamp(view.taken_at).astimezone()
    age = duration(max(time.time() - view.taken_at, 0))
    return f"KES {view.amount:,} of {view.phone}, {age} ago ({moment:%Y-%m-%d %H:%M:%S})"


def _handled(view: OrderView) -> str:
    told = f"was told: {_words(view.told)}" if view.told else "was told nothing yet"
    if not view.handler_failures:
        return told
    times = "once" if view.handler_failures == 1 else f"{view.handler_failures:,} times"
    return f"failed {times}, last with {view.handler_error}; {told}"


def _next(view: OrderView) -> str:
    if view.is_over:
        return "nothing: it is over"
    if view.is_stuck:
        return "nothing, although something should: `paynexus durable retry` goes on with it"
    if view.next_look_at is None:
        return "a worker is at it, or takes it as soon as one is free"
    seconds = view.next_look_at - time.time()
    if seconds < -_OVERDUE_SECONDS:
        return f"due for {duration(-seconds)}: is a worker running?"
    return f"due in {duration(max(seconds, 0))}"


def _printable(text: str) -> str:
    """Return foreign words, whole, as a terminal may get them."""
    return discreet(" ".join("".join(c if c.isprintable() else " " for c in text).split()))


def _words(state: str) -> str:
    return state.replace("_", " ")
