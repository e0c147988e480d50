"""Keys as the environment holds them: what is wrong with one, without a letter of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from .. import ConfigurationError
from .._wire import Keys, Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["KEY_VARIABLES", "doubt", "key_in", "problem"]

KEY_VARIABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "PAYNEXUS_SECRET_KEY": ("sk_", "sb_"),
    "PAYNEXUS_PUBLIC_KEY": ("pk_", "sb_"),
}
"""The variables, and how a key in each begins, as far as PayNexus says."""
_ENDS_OF_COPYING: Final = "'\"`."


def key_in(variable: str) -> Secret | None:
    """Return the key that a variable holds, hidden from whoever prints local variables."""
    return Secret(os.environ[variable]) if os.environ.get(variable) else None


def problem(variable: str, key: Secret) -> str:
    """Return why the client refuses what a variable holds; nothing if it takes it."""
    is_secret = variable == "PAYNEXUS_SECRET_KEY"
    try:
        Keys.of(key.reveal() if is_secret else None, None if is_secret else key.reveal())
    except ConfigurationError as error:
        argument = "secret_key" if is_secret else "public_key"
        return str(error).replace(argument, variable)
    return ""


def doubt(variable: str, key: Secret) -> str:
    """Return why a key that the client takes is hardly one of PayNexus's; nothing if it may be.

    Not a refusal: a beginning that is not known here may be a kind of tomorrow's.
    """
    if {key.reveal()[0], key.reveal()[-1]} & set(_ENDS_OF_COPYING):
        return f"{variable} has a quotation mark or dots at its beginning or end"
    if not key.kind:
        kinds = " or ".join(f"{kind}…" for kind in KEY_VARIABLES[variable])
        return f"{variable} does not look like a key of PayNexus's: those begin with {kinds}"
    return ""
