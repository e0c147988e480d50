"""The one cattrs converter: from the API's JSON to models, strict where money is at stake.

What it does, in the order of the fields' importance:

* `status` is required text; a word the documentation does not know is kept in `status_text`.
* `amount` may be a number or a string (`"100.00"`): an `int` when whole, else a `Decimal`. Anything
  else is an error, never a guess.
* Any other field may be missing, null or empty. Text may come as a number. A time that cannot be
  read is missing; one without an offset is Kenyan time.
* The checkout request id is also known as `provider_request_id`, the receipt is
  `provider_transaction_id`.
* Unknown fields are ignored; the answer's bytes stay in `response`.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Final

import cattrs
from cattrs.gen import make_dict_structure_fn, override

from .models import APIResponse, Payment, PhoneValidation
from .status import PaymentStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NAIROBI", "structure_payment", "structure_phone", "structure_time"]

NAIROBI: Final = timezone(timedelta(hours=3), "EAT")
_AMOUNT_DIGITS_MAX: Final = 18  # beyond any sum of money; bounds the work on "1e999999999"


def structure_payment(data: Mapping[str, object], response: APIResponse | None = None) -> Payment:
    """Read a payment from the `data` of an answer.

    Raises:
        ValueError: if the status is missing, or the amount is not a number.
    """
    status_text = _text(data.get("status"))
    if status_text is None:
        msg = "the payment has no status"
        raise ValueError(msg)
    document = {
        **data,
        "status": PaymentStatus.parse(status_text),
        "status_text": status_text,
        "checkout_request_id": data.get("checkout_request_id") or data.get("provider_request_id"),
        "response": response,
    }
    return _CONVERTER.structure(document, Payment)


def structure_phone(
    data: Mapping[str, object], response: APIResponse | None = None
) -> PhoneValidation:
    """Read a phone validation from the `data` of an answer.

    Raises:
        ValueError: if it does not say whether the number is valid.
    """
    return _CONVERTER.structure({**data, "response": response}, PhoneValidation)


def _text(value: object, _: object = None) -> str | None:
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return str(value)
    return None


def _amount(value: object, _: object = None) -> int | Decimal | None:
    if value is None or value == "":
        return None
    number = _decimal(value)
    if not number.is_finite() or abs(number.adjusted()) > _AMOUNT_DIGITS_MAX:
        msg = "the amount is not a sum of money"
        raise ValueError(msg)
    whole = number.to_integral_value()
    return int(whole) if whole == number else number


def _decimal(value: object) -> Decimal:
    if isinstance(value, str | int | float | Decimal) and not isinstance(value, bool):
        try:
            # A float (from a decoder other than ours) means the digits that it prints.
            return Decimal(repr(value) if isinstance(value, float) else value)
        except InvalidOperation:
            pass
    msg = "the amount is not a number"
    raise ValueError(msg)


def structure_time(value: object, _: object = None) -> datetime | None:
    """Read a time; one without an offset is Kenyan, and what cannot be read is none."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=NAIROBI)


def _truth(value: object, _: object = None) -> bool:
    if isinstance(value, bool):
        return value
    msg = "the answer does not say whether the number is valid"
    raise ValueError(msg)


def configure_converter() -> cattrs.Converter:
    """Build the converter whose behaviour the module's docstring lists."""
    converter = cattrs.Converter(detailed_validation=False, forbid_extra_keys=False)
    converter.register_structure_hook_func(lambda kind: kind == str | None, _text)
    converter.register_structure_hook_func(lambda kind: kind == int | Decimal | None, _amount)
    converter.register_structure_hook_func(lambda kind: kind == datetime | None, structure_time)
    converter.register_structure_hook_func(lambda kind: kind == APIResponse | None, lambda v, _: v)
    converter.register_structure_hook(bool, _truth)
    converter.register_structure_hook(PaymentStatus, lambda v, _: v)
    converter.register_structure_hook(
        Payment,
        make_dict_structure_fn(
            Payment, converter, receipt=override(rename="provider_transaction_id")
        ),
    )
    return converter


_CONVERTER: Final = configure_converter()
