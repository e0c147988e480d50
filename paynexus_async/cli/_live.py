"""The same story on a terminal: one line that moves while somebody waits. Drawing only."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from .. import Payment, PaymentRevision, PaymentStatus, PayNexusError, mask_phones
from ._outcome import ADVICE, Exit
from ._report import Report, ledger_lines, line_of, word_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

    from .. import PaymentUpdate, PhoneValidation

__all__ = ["LiveReport"]

_SIGNS: Final = {
    PaymentStatus.COMPLETED: ("✔", "bold green"),
    PaymentStatus.FAILED: ("✘", "bold red"),
    PaymentStatus.CANCELLED: ("✘", "bold yellow"),
    PaymentStatus.EXPIRED: ("⌛", "bold yellow"),
}
_PHASES: Final = {
    PaymentStatus.INITIATED: "the prompt is on the phone",
    PaymentStatus.UNDOCUMENTED: "PayNexus uses a word of its own",
    PaymentStatus.PROCESSING: "the customer has answered",
}


class LiveReport(Report):
    """A spinner with the phase, the seconds and the calls; each change leaves a line behind."""

    def __init__(self, console: Console | None = None) -> None:
        """Draw on the terminal."""
        super().__init__()
        self._console = console or Console(highlight=False)
        self._errors = Console(stderr=True, highlight=False)
        self._text = ""
        self._began = time.monotonic()
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(
            console=self._console,
            get_renderable=self._draw,
            refresh_per_second=12,
            transient=True,
        )

    def __enter__(self) -> Self:
        """Show the moving line."""
        self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Take the moving line away."""
        self._live.stop()

    def phase(self, text: str) -> None:
        """Begin a part of the story, with a line of its own."""
        self._text, self._began, self.calls = "one moment", time.monotonic(), 0
        self._console.print(Text(f"\n{mask_phones(text)}", style="bold cyan"))

    def update(self, update: PaymentUpdate) -> None:
        """Leave a line behind, and go on."""
        payment = update.payment
        self._text = _PHASES.get(payment.status, "")
        line = Text.assemble(
            (f"{self._seconds():5.1f} s ", "dim"),
            (f" {word_of(payment)}", "" if not payment.is_terminal else _SIGNS[payment.status][1]),
            (f"  {payment.reference or ''}", "dim"),
            ("  late truth" if isinstance(update, PaymentRevision) else "", "bold magenta"),
        )
        self._console.print(line)

    def payment(self, payment: Payment, code: Exit) -> None:
        """Leave the result behind."""
        sign, style = _SIGNS.get(payment.status, ("…", "bold cyan"))
        spent = f"{self._seconds():.1f} s, {self.calls} calls"
        self._console.print(
            Group(
                Text.assemble(
                    (f"{sign} ", style), (line_of(payment), "bold"), (f"  {spent}", "dim")
                ),
                Text(f"  {ADVICE.get(code, '')}", style=style),
            )
        )

    def listed(self, payment: Payment, code: Exit) -> None:
        """Leave a line behind."""
        self._console.print(line_of(payment))

    def phone(self, validation: PhoneValidation) -> None:
        """Leave a line behind."""
        self._console.print(repr(validation))

    def ledger(self, truth: Mapping[str, str], *, agrees: bool) -> None:
        """Leave it behind."""
        style = "bold green" if agrees else "bold red"
        *lines, verdict = ledger_lines(truth, agrees=agrees).splitlines()
        self._console.print()
        self._console.print(Group(*map(Text, lines), Text(verdict, style=style)))

    def error(self, error: PayNexusError, code: Exit, hint: str = "") -> None:
        """Leave the error behind, where errors go."""
        words = [Text.assemble(("✘ ", "bold red"), str(error))]
        words += [Text(f"  {word}", style="bold") for word in (hint, ADVICE.get(code, "")) if word]
        self._errors.print(Group(*words))

    def _draw(self) -> RenderableType:
        spent = f"{self._seconds():.0f} s · {self.calls} calls"
        words = Text.assemble(mask_phones(self._text), (f"  {spent}", "dim"))
        self._spinner.update(text=words)
        return self._spinner

    def _seconds(self) -> float:
        return time.monotonic() - self._began
