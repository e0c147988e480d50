"""The commands that run a PayNexus of their own: `sandbox` and `demo`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from .. import AsyncPayNexus, InvalidRequestError, PayNexusError, mask_phones
from .._schedule import BALANCED, PRIOR, Schedule
from ..sandbox import MAGIC, PUBLIC_KEY, SECRET_KEY, Ledger, SandboxServer
from . import _session
from ._outcome import Exit, exit_of_error, exit_of_payment

if TYPE_CHECKING:
    from ..sandbox import Call
    from ._report import Report

__all__ = ["demonstrate", "serve"]

_AMOUNT: Final = 100
_PHONE: Final = "0746990866"
_DESCRIPTION: Final = "Order #12345"
_SCENES: Final = (
    ("paid", "completed", "the customer types the PIN"),
    ("cancelled", "cancelled", "the customer declines"),
    ("expired", "expired", "nobody touches the phone"),
)
_LOOK_AT_CALLS_SECONDS: Final = 0.2


async def demonstrate(speed: float, report: Report) -> Exit:
    """Show three payments, and hold what the client reported against the sandbox's ledger."""
    ledger = _ledger(plan=None, speed=speed)

    told: dict[str, str] = {}
    with SandboxServer(ledger) as server, report:
        async with (
            _session.http_client(report) as http_client,
            AsyncPayNexus(
                SECRET_KEY,
                PUBLIC_KEY,
                base_url=server.url,
                http_client=http_client,
                # Customers are in a hurry too, and so is whoever asks.
                patience=Schedule(BALANCED / speed, PRIOR.scaled(1 / speed)),
            ) as paynexus,
        ):
            for scene, _, words in _SCENES:
                ledger.script(scene)
                report.phase(f"KES {_AMOUNT} to {mask_phones(_PHONE)}, {_DESCRIPTION}: {words}")
                try:
                    await _show(paynexus, report, told)
                except PayNexusError as error:
                    report.error(error, exit_of_error(error))
        truth = {p.reference: ledger.status(p.reference) for p in ledger.prompts}
        report.ledger(truth, agrees=truth == told)
    expected = [end for _, end, _ in _SCENES]
    return Exit.COMPLETED if truth == told and list(truth.values()) == expected else Exit.ERROR


async def _show(paynexus: AsyncPayNexus, report: Report, told: dict[str, str]) -> None:
    payment = await paynexus.initiate_payment(_AMOUNT, _PHONE, _DESCRIPTION)
    async for update in paynexus.watch(payment):
        report.update(update)
        payment = update.payment
    told[payment.reference or ""] = payment.status
    report.payment(payment, exit_of_payment(payment))


def serve(*, port: int, plan: str | None, speed: float) -> int:
    """Run a sandbox until Ctrl-C, and tell each call."""
    ledger = _ledger(plan=plan, speed=speed)
    try:
        with SandboxServer(ledger, port=port) as server:
            print(_welcome(server.url), flush=True)
            _tell_calls(ledger)
    except OSError as error:
        msg = f"{error}; choose another with --port"
        raise InvalidRequestError(msg) from error
    except KeyboardInterrupt:
        print("stopped", flush=True)
    return Exit.COMPLETED


def _ledger(*, plan: str | None, speed: float) -> Ledger:
    try:
        return Ledger(clock=time.time, plan=plan, speed=speed, seed=time.time_ns())
    except ValueError as error:
        raise InvalidRequestError(str(error)) from error


def _welcome(url: str) -> str:
    table = "\n".join(f"  {m.phone}  KES {m.amount}  {m.happens}" for m in MAGIC)
    return f"""\
A PayNexus on this machine; no money moves. Ctrl-C stops it.

  export PAYNEXUS_BASE_URL={url}
  export PAYNEXUS_SECRET_KEY={SECRET_KEY}
  export PAYNEXUS_PUBLIC_KEY={PUBLIC_KEY}

A customer pays after nine seconds, unless the phone or the amount says otherwise:

{table}

API description: {url.removesuffix("/api")}/docs
"""


def _tell_calls(ledger: Ledger) -> None:
    """Print each call, for ever."""
    seen: Call | None = None
    while True:
        calls = ledger.calls
        places = [i for i, call in enumerate(calls) if call is seen]
        for call in calls[places[0] + 1 if places else 0 :]:
            at = time.strftime("%H:%M:%S", time.localtime(call.at))
            kind = call.key_kind or "no key"
            told = "---" if call.status_code is None else call.status_code
            line = f"{at}  {told}  {kind:6}  {call.method} {call.path}"
            print(f"{line}{_what_happened(call)}", flush=True)
            seen = call
        time.sleep(_LOOK_AT_CALLS_SECONDS)


def _what_happened(call: Call) -> str:
    """Return the fault that a call met, and what is true, where its caller was told otherwise."""
    if call.fault is None:
        return ""
    truth = "nothing happened" if call.true_status_code is None else call.true_status_code
    return f"  {call.fault}: in truth {truth}{f', {call.reference}' if call.reference else ''}"
