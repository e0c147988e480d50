"""Kenyan mobile numbers: normalised for the API, masked for everybody else.

Source: the API takes `0746990866` and answers `254746990866`
(https://paynexus.co.ke/docs/stk-push, "Validate Phone Number").
"""

from __future__ import annotations

import re
from typing import Final

from .exceptions import InvalidRequestError

__all__ = ["mask_phones", "normalize_phone", "phones_agree"]

_KENYA_CODE: Final = 254
# Digits and the separators people type. Letters would be read as keypad digits, and `;ext=` as an
# extension, by the parser below: both are typing errors in a phone that gets a payment prompt.
_PLAUSIBLE: Final = re.compile(r"\+?[0-9(][0-9 ().\-]{7,19}")
_NINE_OR_MORE_DIGITS: Final = re.compile(r"\d(?:[ ().\-]{0,3}\d){8,}")
_NOT_DIGITS: Final = re.compile(r"\D")
_MASK_SIGNS: Final = re.compile(r"[*xX#•]")


def normalize_phone(phone: str) -> str:
    """Return a Kenyan mobile number as the API writes it, such as `254746990866`.

    Args:
        phone: the number as people write it: `0746990866`, `+254 746 990 866`, `746-990-866`.

    Raises:
        InvalidRequestError: if it is not a Kenyan mobile number. The message does not repeat it.
    """
    import phonenumbers  # as slow to import as a fifth of the package: when there is a number

    if not isinstance(phone, str):
        msg = f"phone must be a string such as '0746990866', not {type(phone).__name__}"
        raise InvalidRequestError(msg)
    text = phone.strip()
    if not _PLAUSIBLE.fullmatch(text):
        msg = (
            f"phone is not a Kenyan mobile number such as '0746990866': {_shape(text)}; "
            "write digits only, no extension and no letters"
        )
        raise InvalidRequestError(msg)
    try:
        number = phonenumbers.parse(text, "KE")
    except phonenumbers.NumberParseException as error:
        msg = f"phone is not a Kenyan mobile number such as '0746990866': {_shape(text)}"
        raise InvalidRequestError(msg) from error
    if number.country_code != _KENYA_CODE:
        msg = (
            f"phone is a number of country +{number.country_code}; "
            "M-Pesa prompts go to Kenyan mobile numbers (+254) only"
        )
        raise InvalidRequestError(msg)
    if phonenumbers.number_type(number) != phonenumbers.PhoneNumberType.MOBILE:
        valid = phonenumbers.is_valid_number(number)
        why = "a Kenyan number, but not a mobile one" if valid else "not a number in use in Kenya"
        msg = f"phone is {why} ({_shape(text)}); M-Pesa prompts go to numbers such as '0746990866'"
        raise InvalidRequestError(msg)
    return f"{_KENYA_CODE}{number.national_number}"


def phones_agree(one: str, other: str) -> bool:
    """Whether two phones in answers can be the same.

    A masked digit (`2547*****866`) agrees with any; spelling (`0746…`, `+254…`) does not matter.
    """
    if one == other:  # nearly always, and parsing them costs more than the rest of an answer
        return True
    first, second = _canonical(one), _canonical(other)
    return len(first) == len(second) and all(
        a == b or "*" in (a, b) for a, b in zip(first, second, strict=True)
    )


def _canonical(phone: str) -> str:
    try:
        return normalize_phone(phone)
    except InvalidRequestError:
        return _MASK_SIGNS.sub("*", phone.strip().lstrip("+"))


def mask_phones(text: str) -> str:
    """Return *text* with the middle of everything that may hold a phone number starred out.

    `254746990866` becomes `2547*****866`. A checkout request id ends in the customer's number, so
    any run of nine or more digits counts, whatever stands before it.
    """
    return _NINE_OR_MORE_DIGITS.sub(lambda run: _mask_digits(_NOT_DIGITS.sub("", run[0])), text)


def _mask_digits(digits: str) -> str:
    shown = digits[: min(len(digits) - 8, 8)]  # too few for another whole number to be among them
    return f"{shown}*****{digits[-3:]}"


def _shape(text: str) -> str:
    """Say what was given without saying it."""
    digits = sum(character.isdigit() for character in text)
    return f"it has {digits} digits" if digits else "it has no digits"
