"""The commands that run a PayNexus of their own: `sandbox` and `demo`."""

from __future__ import annotations

import time
import webbrowser
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

from .. import AsyncPayNexus, InvalidRequestError, PayNexusError, mask_phones
from .._schedule import BALANCED, PRIOR, Schedule
from ..sandbox import (
    MAGIC,
    PIN,
    PUBLIC_KEY,
    SECRET_KEY,
    Ledger,
    SandboxServer,
    SQLiteStore,
    StoreError,
    load_scenarios,
)
from . import _session
from ._outcome import Exit, exit_of_error, exit_of_payment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ..sandbox import Call, Scenario
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


def serve(
    *,
    port: int,
    plan: str | None,
    speed: float,
    customer: str | None,
    browse: bool,
    scenarios: Path | None,
    store: str | None,
    webhooks_anywhere: bool,
) -> int:
    """Run a sandbox until Ctrl-C, and tell each call."""
    own = _scenarios(scenarios)
    try:
        with nullcontext() if store is None else _store(store) as kept:
            ledger = _ledger(
                plan=plan,
                speed=speed,
                customer=customer,
                scenarios=own,
                store=kept,
                webhooks_anywhere=webhooks_anywhere,
            )
            with SandboxServer(ledger, port=port) as server:
                print(_welcome(server, customer, own), flush=True)
                if browse and not webbrowser.open(server.page_url):
                    print(f"No browser found here: open {server.page_url} yourself.", flush=True)
                _tell_calls(ledger)
    except OSError as error:
        msg = f"{error.strerror}; choose another with --port"
        raise InvalidRequestError(msg) from error
    except KeyboardInterrupt:
        print("stopped", flush=True)
    return Exit.COMPLETED


def _scenarios(path: Path | None) -> Mapping[str, Scenario]:
    if path is None:
        return {}
    try:
        return load_scenarios(path)
    except OSError as error:
        msg = f"cannot read the scenarios of --scenarios {path}: {error.strerror}"
        raise InvalidRequestError(msg) from error
    except ValueError as error:
        raise InvalidRequestError(str(error)) from error


def _ledger(**options: Any) -> Ledger:  # noqa: ANN401  # those of a ledger
    try:
        return Ledger(clock=time.time, seed=time.time_ns(), **options)
    except ValueError as error:
        raise InvalidRequestError(str(error)) from error


def _store(path: str) -> SQLiteStore:
    try:
        return SQLiteStore(path)
    except StoreError as error:
        raise InvalidRequestError(str(error)) from error


def _welcome(server: SandboxServer, customer: str | None, own: Mapping[str, Scenario]) -> str:
    table = "\n".join(
        (
            *(f"  {m.phone}  KES {m.amount}  {m.happens}" for m in MAGIC),
            *(_own_line(scenario) for scenario in own.values()),
        )
    )
    rule = (
        "While the page is open, you are the customer: each prompt waits there for the PIN, "
        f"{PIN}.\nWhile it is not, customers pay after nine seconds."
        if customer is None
        else f"Customers play {customer}."
    )
    return f"""\
The phones: {server.page_url}

A PayNexus on this machine; no money moves. Ctrl-C stops it.

  export PAYNEXUS_BASE_URL={server.url}
  export PAYNEXUS_SECRET_KEY={SECRET_KEY}
  export PAYNEXUS_PUBLIC_KEY={PUBLIC_KEY}

{rule}
Where the phone or the amount says otherwise, that happens:

{table}

API description: {server.page_url}docs
"""


def _own_line(scenario: Scenario) -> str:
    phone = f"0{scenario.phone[3:]}" if scenario.phone else "-"
    amount = "-" if scenario.amount is None else f"KES {scenario.amount}"
    return f"  {phone:10}  {amount:6}  {scenario.name}"


def _tell_calls(ledger: Ledger) -> None:
    """Print each call, for ever."""
    seen = 0
    while True:
        for call in ledger.calls:
            if call.number <= seen:
                continue
            at = time.strftime("%H:%M:%S", time.localtime(call.at))
            kind = call.key_kind or "no key"
            told = "---" if call.status_code is None else call.status_code
            line = f"{at}  {told}  {kind:6}  {call.method} {call.path}"
            print(f"{line}{_what_happened(call)}", flush=True)
            seen = call.number
        time.sleep(_LOOK_AT_CALLS_SECONDS)


def _what_happened(call: Call) -> str:
    """Return the fault that a call met, and what is true, where its caller was told otherwise."""
    if call.fault is None:
        return ""
    truth = "nothing happened" if call.true_status_code is None else call.true_status_code
    return f"  {call.fault}: in truth {truth}{f', {call.reference}' if call.reference else ''}"
