"""Encryption of what stands where others may read it: tokens in URLs, phones in databases."""

from __future__ import annotations

import json
import os
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING, Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .exceptions import ConfigurationError
from .webhooks import wrapped

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._wire import Secret

__all__ = ["Seal", "crypt_of", "given"]

_SECRET_CHARACTERS_MIN: Final = 32


class Seal:
    """Keeps what is personal out of rows: encrypted, or, without a secret, not stored at all."""

    def __init__(self, crypt: MultiFernet | None) -> None:
        """Keep what encrypts."""
        self._crypt = crypt

    def shut(self, **content: str | None) -> str | None:
        """Encrypt what is personal."""
        if self._crypt is None:
            return None
        return self._crypt.encrypt(json.dumps(content).encode()).decode()

    def open(self, sealed: str | None) -> dict[str, str | None]:
        """Return what was sealed; nothing, where it was not, or with a secret that is no more."""
        if self._crypt is None or sealed is None:
            return {}
        try:
            content: dict[str, str | None] = json.loads(self._crypt.decrypt(sealed))
        except (InvalidToken, ValueError, TypeError):
            return {}
        return content


def crypt_of(secrets: tuple[Secret, ...], purpose: str) -> MultiFernet:
    """Return what encrypts with the first secret and decrypts with any of them.

    Args:
        secrets: each at least 32 characters that nobody can guess.
        purpose: what for; one secret may serve several, none of which can read the other.

    Raises:
        ConfigurationError: a secret is missing or short.
    """
    if not secrets or any(len(one.reveal()) < _SECRET_CHARACTERS_MIN for one in secrets):
        msg = (
            f"a {purpose} secret is missing, or shorter than {_SECRET_CHARACTERS_MIN} "
            'characters: make one with python -c "import secrets; '
            'print(secrets.token_urlsafe())", and give it to all workers'
        )
        raise ConfigurationError(msg)
    return MultiFernet([Fernet(_key(one, purpose)) for one in secrets])


def given(secret: str | Iterable[str] | None, variable: str) -> tuple[Secret, ...] | None:
    """Return what is given, or else what the environment says; a blank variable says nothing."""
    secret = (os.environ.get(variable) or None) if secret is None else secret
    return None if secret is None else wrapped(secret)


def _key(secret: Secret, purpose: str) -> bytes:
    derived = HKDF(SHA256(), 32, salt=None, info=f"paynexus_async {purpose} token".encode())
    return urlsafe_b64encode(derived.derive(secret.reveal().encode()))
