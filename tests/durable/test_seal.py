"""What encrypts: phones in rows, tokens in URLs."""

from __future__ import annotations

from typing import Any

import pytest

from paynexus_async import ConfigurationError
from paynexus_async._seal import Seal, crypt_of, given
from paynexus_async._wire import Secret

NEW, OLD = "a new secret of thirty-two characters", "an old secret of thirty-two characters"


def seal(*secrets: str, purpose: str = "durable") -> Seal:
    return Seal(crypt_of(tuple(map(Secret, secrets)), purpose))


def test_what_was_sealed_comes_back_with_the_secret_only():
    """Also with one that is being replaced; with none or another, nothing does, and no error."""
    shut = seal(OLD).shut(phone="254746990866", checkout_request_id="ws_CO_1")
    assert shut is not None
    assert "746990866" not in shut
    known = {"phone": "254746990866", "checkout_request_id": "ws_CO_1"}
    assert seal(OLD).open(shut) == known
    assert seal(NEW, OLD).open(shut) == known
    assert seal(NEW).open(shut) == {}
    assert seal(OLD, purpose="checkout").open(shut) == {}
    assert seal(OLD).open("garbage") == {}
    assert seal(OLD).open(None) == {}


def test_without_a_secret_nothing_is_sealed():
    """And so nothing is stored."""
    assert Seal(None).shut(phone="254746990866") is None
    assert Seal(None).open(seal(NEW).shut(phone="254746990866")) == {}


@pytest.mark.parametrize("secrets", [[], ["short"], [NEW, ""]], ids=str)
def test_a_secret_that_can_be_guessed_is_refused(secrets: list[str]):
    """The words say how to make one, and do not hold it."""
    with pytest.raises(ConfigurationError, match="durable secret is missing, or shorter") as told:
        seal(*secrets)
    assert "short'" not in str(told.value)
    assert "token_urlsafe" in str(told.value)


@pytest.mark.parametrize(
    ("secret", "variable", "expected"),
    [(NEW, OLD, [NEW]), ([NEW, OLD], "", [NEW, OLD]), (None, OLD, [OLD]), (None, "", None),
     (None, None, None), ("", OLD, [""])],
)  # fmt: skip
def test_what_is_given_counts_or_else_the_environment(
    monkeypatch: pytest.MonkeyPatch, secret: Any, variable: str | None, expected: Any
):
    """A blank variable says nothing; a blank secret is a mistake, to be refused."""
    if variable is None:
        monkeypatch.delenv("THE_SECRET", raising=False)
    else:
        monkeypatch.setenv("THE_SECRET", variable)
    found = given(secret, "THE_SECRET")
    assert (None if found is None else [one.reveal() for one in found]) == expected
