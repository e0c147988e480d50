"""Scenarios from a TOML file: one table each, checked to the last key."""

from __future__ import annotations

import math
import tomllib
from datetime import date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from ..phone import mask_phones, normalize_phone
from ._scenarios import FACTS, PLACEHOLDER, Scenario, Step, together

if TYPE_CHECKING:
    import os
    from collections.abc import Collection, Iterable, Mapping

__all__ = ["load_scenarios"]

_KEYS: Final = ("steps", "fields", "null", "missing", "initiate", "phone", "amount")
_STEP_KEYS: Final = ("at", "status", "fields", "null")
_AMOUNT_MAX: Final = 150_000
_KINDS: Final[Mapping[type, str]] = {dict: "a table", list: "a list", str: "a text"}

T = TypeVar("T")


def load_scenarios(path: str | os.PathLike[str]) -> Mapping[str, Scenario]:
    """Read scenarios from a TOML file.

    Each table is one, by its name:

        [reversed-timeout]
        phone = "0700000101"
        steps = [
            {at = 5, status = "pending"},
            {at = 60, status = "timeout"},
            {at = 90, status = "completed", fields = {amount = "{amount}"}},
        ]

    Keys of a table, none of which is required:

    - `steps`: tables with `at` (seconds of the payment's age), `status` (any text), and `fields`
      and `null` of their own.
    - `fields`: further fields of every status answer, as `Step.fields`; `null`: names of fields
      that are null in it; `missing`: of those that it leaves out.
    - `initiate`: further fields of the answer to initiate.
    - `phone`, `amount` (KES): a prompt to it, or for it, plays the scenario.

    Returns:
        The scenarios by name, for `Ledger(scenarios=...)`.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not such a file; the message says where, and what is allowed there.
    """
    path = Path(path)
    try:
        document = tomllib.loads(path.read_text("utf-8"))
        scenarios = {name: _scenario(name, table) for name, table in document.items()}
        together(scenarios)
    except ValueError as error:  # not TOML, not UTF-8, or not a scenario
        msg = f"{path}: {error}"
        raise ValueError(msg) from error
    return scenarios


def _scenario(name: str, given: object) -> Scenario:
    where = f"[{name}]"
    table = _table(where, given, _KEYS)
    everywhere = _fields(where, table)
    steps: list[Step] = []
    for number, value in enumerate(_typed(where, "steps", table.get("steps", []), list)):
        here = f"{where} steps[{number}]"
        steps.append(_step(here, value, everywhere, after=steps[-1].at_seconds if steps else None))
    if everywhere and (not steps or steps[0].at_seconds > 0):
        steps.insert(0, Step(0, "initiated", everywhere))
    missing = _names(where, "missing", table)
    for field in missing:
        if any(field in step.fields for step in steps):
            _refuse(where, "missing", f"{field!r} cannot be left out and have a value as well")
    return Scenario(
        name,
        tuple(steps),
        missing=frozenset(missing),
        initiate=_values(where, "initiate", table),
        phone=_phone(where, table),
        amount=_amount(where, table),
    )


def _step(
    where: str, given: object, everywhere: Mapping[str, object], *, after: float | None
) -> Step:
    table = _table(where, given, _STEP_KEYS)
    at, status = table.get("at"), table.get("status")
    if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at < math.inf:
        _refuse(where, "at", f"must be the payment's age in seconds, 0 or more, not {at!r}")
    if after is not None and at <= after:
        _refuse(where, "at", f"must be more than {after:g}, where the step before begins")
    if not isinstance(status, str) or not status:
        _refuse(where, "status", f"must be a text, such as 'completed', not {status!r}")
    return Step(at, status, {**everywhere, **_fields(where, table)})


def _fields(where: str, table: Mapping[str, object]) -> dict[str, object]:
    values, nulls = _values(where, "fields", table), _names(where, "null", table)
    for name in nulls:
        if name in values:
            _refuse(where, "null", f"{name!r} cannot be null and have a value as well")
    return {**values, **dict.fromkeys(nulls)}


def _values(where: str, key: str, table: Mapping[str, object]) -> dict[str, object]:
    values: dict[str, object] = _typed(where, key, table.get(key, {}), dict)
    for name, value in values.items():
        if name == "status" and key == "fields":
            _refuse(where, f"{key}.{name}", "a step's status stands beside its fields")
        _check(where, f"{key}.{name}", value)
    return values


def _check(where: str, key: str, value: object) -> None:
    """Refuse what JSON does not know, and what is no fact of a payment."""
    if isinstance(value, datetime | date | time):
        _refuse(where, key, f"JSON has no dates: write {str(value)!r}, a text")
    if isinstance(value, float) and not math.isfinite(value):
        _refuse(where, key, f"JSON has no {value}")
    if isinstance(value, str):
        for name in PLACEHOLDER.findall(value):
            if name not in FACTS:
                facts = ", ".join(f"{{{fact}}}" for fact in FACTS)
                _refuse(where, key, f"{{{name}}} is none of {facts}")
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    for place, item in inner:
        _check(where, f"{key}.{place}", item)


def _names(where: str, key: str, table: Mapping[str, object]) -> list[str]:
    names: list[str] = _typed(where, key, table.get(key, []), list)
    for name in names:
        if not isinstance(name, str):
            _refuse(where, key, f"must be names of fields, not {name!r}")
        if name == "status":
            _refuse(where, key, "an answer always has a status")
    return names


def _phone(where: str, table: Mapping[str, object]) -> str | None:
    phone = table.get("phone")
    if phone is None:
        return None
    try:
        return normalize_phone(_typed(where, "phone", phone, str))
    except ValueError as error:
        _refuse(where, "phone", str(error))


def _amount(where: str, table: Mapping[str, object]) -> int | None:
    amount = table.get("amount")
    if amount is None:
        return None
    if isinstance(amount, bool) or not isinstance(amount, int) or not 1 <= amount <= _AMOUNT_MAX:
        _refuse(where, "amount", f"must be whole KES from 1 to {_AMOUNT_MAX}, not {amount!r}")
    return amount


def _table(where: str, given: object, allowed: Collection[str]) -> dict[str, object]:
    if not isinstance(given, dict):
        _refuse(where, "", f"must be a table; its keys are {', '.join(allowed)}")
    for key in given:
        if key not in allowed:
            _refuse(where, key, f"there is no such key; there are {', '.join(allowed)}")
    return given


def _typed(where: str, key: str, value: object, kind: type[T]) -> T:
    if not isinstance(value, kind):
        _refuse(where, key, f"must be {_KINDS[kind]}, not {value!r}")
    return value


def _refuse(where: str, key: str, words: str) -> NoReturn:
    msg = f"{where} {key}".rstrip() + f": {mask_phones(words)}"
    raise ValueError(msg)
