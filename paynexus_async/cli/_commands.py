"""The commands, each a thin shell around one verb of the client."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path  # noqa: TC003  # the annotations are read when a command runs
from typing import Annotated, Final, NoReturn

import anyio
import attrs
from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError

from .. import (
    AsyncPayNexus,
    ConfigurationError,
    InvalidRequestError,
    Payment,
    PaymentFound,
    PaymentOutcomeUnknown,
    PayNexusError,
    __version__,
    mask_phones,
)
from .._discreet import discreet, quoted
from .._wire import Intent
from . import _session
from ._bulk import CODES, Unfinished, check, wait_all
from ._doctor import CODES as CODES_OF_DOCTOR
from ._doctor import doctor
from ._durable import durable
from ._numbers import Kes, ListeningPort, Port, Seconds, Speed  # noqa: F401, TC001  # as `Path`
from ._outcome import Exit, exit_of_error, exit_of_payment
from ._report import JsonReport, PlainReport, Report
from ._session import SANDBOX_PORT, Where, hint
from ._webhooks import webhooks

__all__ = ["app", "run"]

_KEYS: Final = """\
Keys come from PAYNEXUS_SECRET_KEY (sk_…, initiates) and PAYNEXUS_PUBLIC_KEY (pk_…, reads), never
from the command line. Without --sandbox, commands talk to the real API.
"""
_EPILOGUE: Final = f"""\
{_KEYS}
Exit codes: 0 paid · 1 refused or unreachable, nothing sent · 2 usage · 3 failed · 4 cancelled ·
5 expired · 6 pending · 7 unknown: a prompt may be out · 8 the answer contradicts · 9 durable
orders need somebody to look · 130 interrupted. Of several payments, the highest counts.
"""

app = App(
    name="paynexus",
    help="M-Pesa payments by PayNexus: each prompt sent at most once, and reported truthfully.",
    help_epilogue=_EPILOGUE,
    version=__version__,
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # `run` has its own words
)


@attrs.frozen
class Common(Where):
    """What every command that tells of payments understands."""

    json: Annotated[bool, Parameter(negative="")] = False
    "Print one JSON object for each event."


Flattened = Annotated[Common, Parameter(name="*")]
_DEFAULTS: Final = Common()


@app.command
def pay(
    phone: str,
    amount: Kes,
    /,
    *,
    description: str | None = None,
    max_wait: Seconds = 120.0,
    common: Flattened = _DEFAULTS,
) -> int:
    """Push a payment prompt to a phone, at most once, and wait for its end.

    Parameters
    ----------
    phone
        A Kenyan mobile number, such as 0746990866.
    amount
        Whole KES, such as 100.
    description
        What the customer sees, such as "Order #12345".
    max_wait
        Seconds to wait for the end.
    """
    return _tell(common, partial(_pay, phone, amount, description, max_wait))


@app.command
def wait(reference: str, /, *, max_wait: Seconds = 120.0, common: Flattened = _DEFAULTS) -> int:
    """Wait for the end of a payment that was initiated before.

    Parameters
    ----------
    reference
        Its reference, such as PNXABC123DEF, or its checkout request id (ws_CO_…).
    max_wait
        Seconds to wait for the end.
    """
    return _tell(common, partial(_wait, reference, max_wait))


@app.command
def status(*references: str, common: Flattened = _DEFAULTS) -> int:
    """Ask once where payments stand; one call of the quota each.

    Parameters
    ----------

    References:
        References, or checkout request ids (ws_CO_…).
    """
    if not references:
        _misused("status: which payment? Give at least one reference")
    return _tell(common, partial(_status, references, common), moving=False)


app.command(check, help_epilogue=f"{_KEYS}\n{CODES}")
app.command(wait_all, help_epilogue=f"{_KEYS}\n{CODES}")


@app.command(name="validate-phone")
def validate_phone(phone: str, /, *, common: Flattened = _DEFAULTS) -> int:
    """Ask PayNexus whether a prompt can be sent to a number.

    Parameters
    ----------
    phone
        The number, as the customer wrote it.
    """
    return _tell(common, partial(_validate_phone, phone), moving=False)


@app.command
def sandbox(
    *,
    port: ListeningPort = SANDBOX_PORT,
    plan: str | None = None,
    speed: Speed = 1.0,
    customer: str | None = None,
    open: Annotated[bool, Parameter(negative="")] = False,  # noqa: A002  # the option's name
    scenarios: Path | None = None,
    store: str | None = None,
    webhooks_anywhere: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Run a complete PayNexus on this machine, until Ctrl-C, with its phones on a page.

    Parameters
    ----------
    port
        Where to listen, on 127.0.0.1; 0 takes a free one.
    plan
        Limit calls as this plan does: trial, basic, professional or enterprise.
    speed
        How much faster than life payments go; 10 expires a prompt in six seconds.
    customer
        What customers do whom no script and no magic number tells otherwise: person, paid,
        cancelled, expired, … Left out, each waits for you while the page is open in a browser,
        and pays after nine seconds while it is not.
    open
        Open the page in the browser.
    scenarios
        A TOML file with scenarios of your own, which POST /sandbox/script knows by their names.
    store
        A file that keeps payments, webhooks and quotas, so that a restart goes on with them.
    webhooks_anywhere
        Send webhooks to any URL, such as a tunnel's; without this, to this machine only.
    """
    from ._sandbox import serve  # a web framework: only when it is asked for

    return serve(
        port=port,
        plan=plan,
        speed=speed,
        customer=customer,
        browse=open,
        scenarios=scenarios,
        store=store,
        webhooks_anywhere=webhooks_anywhere,
    )


@app.command
def demo(*, speed: Speed = 10.0, json: Annotated[bool, Parameter(negative="")] = False) -> int:
    """See a payment completed, one cancelled and one expired, on a sandbox of its own.

    Parameters
    ----------
    speed
        How much faster than life payments go.
    json
        Print one JSON object for each event.
    """
    from ._sandbox import demonstrate  # a web framework: only when it is asked for

    return anyio.run(demonstrate, speed, _report(json=json))


app.command(webhooks)
app.command(durable)
app.command(doctor, help_epilogue=f"{_KEYS}\n{CODES_OF_DOCTOR}")
app.register_install_completion_command(
    help="Let the shell complete commands and options: bash, zsh, fish or PowerShell."
)


def run(arguments: Sequence[str]) -> int:
    """Run one command, and return its exit code."""
    try:
        code = app(list(arguments), exit_on_error=False, print_error=False)
    except CycloptsError as error:
        words, command = _misunderstood(error), _command_of(arguments)
        print(f"paynexus: {words}\nTry: {command} --help", file=sys.stderr)
        return Exit.USAGE
    except (ConfigurationError, ImportError, InvalidRequestError) as error:
        print(f"paynexus: {error}", file=sys.stderr)
        return Exit.USAGE
    except Unfinished as end:
        print(f"paynexus: {end}{_way_on(end, arguments)}", file=sys.stderr)
        return end.code
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    return code if isinstance(code, int) else Exit.COMPLETED


def _misunderstood(error: CycloptsError) -> str:
    """Say what was typed wrong: it may hold a phone, in the wrong place."""
    if isinstance(error, UnusedCliTokensError):
        return f"nothing more was expected: {quoted(' '.join(error.unused_tokens or ()))}"
    return discreet(str(error))


def _command_of(arguments: Sequence[str]) -> str:
    """Return the command that was meant, such as `paynexus webhooks send`."""
    words, place = ["paynexus"], app
    for word in arguments:
        if word.startswith("-") or word not in place:
            break
        words.append(word)
        place = place[word]
    return " ".join(words)


def _way_on(end: Unfinished, arguments: Sequence[str]) -> str:
    if not end.resumable:
        return ""
    again = [*arguments] if "--resume" in arguments else [*arguments, "--resume"]
    return f"\nGo on with: {shlex.join(['paynexus', *again])}"


# --- What the commands do


@attrs.define
class _Journey:
    """How far a command has come, for whoever interrupts it."""

    report: Report
    sending: bool = False
    payment: Payment | None = None
    found_out: str = ""


Work = Callable[[AsyncPayNexus, _Journey], Awaitable[Exit]]


async def _pay(
    phone: str,
    amount: int,
    description: str | None,
    max_wait: float,
    paynexus: AsyncPayNexus,
    journey: _Journey,
) -> Exit:
    Intent.of(amount, phone, description, paynexus.environment)  # else a prompt would be announced
    journey.report.phase(f"a prompt for KES {amount} to {mask_phones(phone)}")
    journey.sending = True
    try:
        payment = await paynexus.initiate_payment(amount, phone, description)
    except PaymentOutcomeUnknown as error:
        payment = await _find(error, paynexus, journey)
    journey.sending = False
    return await _follow(payment, max_wait, paynexus, journey)


async def _find(
    error: PaymentOutcomeUnknown, paynexus: AsyncPayNexus, journey: _Journey
) -> Payment:
    """Look for the payment of a prompt whose answer was lost; raise the error without one."""
    journey.report.phase("the answer was lost: looking for the payment")
    resolution = await paynexus.find_payment(error)
    if isinstance(resolution, PaymentFound):
        return resolution.payment
    journey.found_out = resolution.reason
    raise error


async def _wait(
    reference: str, max_wait: float, paynexus: AsyncPayNexus, journey: _Journey
) -> Exit:
    journey.report.phase(f"looking at {mask_phones(reference)}")
    return await _follow(reference, max_wait, paynexus, journey)


async def _follow(
    payment: Payment | str, max_wait: float, paynexus: AsyncPayNexus, journey: _Journey
) -> Exit:
    async for update in paynexus.watch(payment, max_wait=max_wait):
        journey.payment = update.payment
        journey.report.update(update)
    assert journey.payment is not None  # noqa: S101  # nosec B101  # a watch ends with a payment, or raises
    code = exit_of_payment(journey.payment)
    journey.report.payment(journey.payment, code)
    return code


async def _status(
    references: Sequence[str], common: Common, paynexus: AsyncPayNexus, journey: _Journey
) -> Exit:
    codes = [Exit.COMPLETED]
    async for result in paynexus.check_payments(references, ordered=True):
        if result.error is None:
            payment = result.unwrap()
            codes.append(exit_of_payment(payment))
            journey.report.listed(payment, codes[-1])
        else:
            codes.append(exit_of_error(result.error))
            journey.report.error(result.error, codes[-1], hint(result.error, common))
    return max(codes)


async def _validate_phone(phone: str, paynexus: AsyncPayNexus, journey: _Journey) -> Exit:
    validation = await paynexus.validate_phone(phone)
    journey.report.phone(validation)
    return Exit.COMPLETED if validation.valid else Exit.FAILED


# --- Around every command


def _tell(common: Common, work: Work, *, moving: bool = True) -> int:
    """Run a command's work with a client, and tell how it went."""
    journey = _Journey(_report(json=common.json, moving=moving))
    try:
        return anyio.run(_with_client, common, work, journey)
    except KeyboardInterrupt:
        return _interrupted(journey)


async def _with_client(common: Common, work: Work, journey: _Journey) -> Exit:
    report = journey.report
    with report:
        try:
            async with _session.client(common, report) as paynexus:
                return await work(paynexus, journey)
        except PayNexusError as error:
            code = exit_of_error(error)
            report.error(error, code, journey.found_out or hint(error, common))
            return code


def _report(*, json: bool, moving: bool = True) -> Report:
    if json:
        return JsonReport()
    if moving and sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        from ._live import LiveReport

        return LiveReport()
    return PlainReport()


def _interrupted(journey: _Journey) -> Exit:
    """Say what is known when somebody presses Ctrl-C."""
    if journey.payment is not None and not journey.payment.is_terminal:
        reference = journey.payment.reference or journey.payment.checkout_request_id
        print(
            f"paynexus: you stopped waiting; the payment has not ended, and the customer may still "
            f"pay. Go on with: paynexus wait {reference}",
            file=sys.stderr,
        )
        return Exit.PENDING
    if journey.sending:
        print(
            "paynexus: you stopped while the prompt was being sent: it may be on the phone. "
            "Look in the PayNexus dashboard before you send another.",
            file=sys.stderr,
        )
        return Exit.UNKNOWN
    return Exit.INTERRUPTED


def _misused(words: str) -> NoReturn:
    raise InvalidRequestError(words)
