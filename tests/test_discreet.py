"""Foreign words in messages: what is left of them."""

from __future__ import annotations

import pytest

from paynexus_async import (
    ConfigurationError,
    Expectation,
    InvalidRequestError,
    Payment,
    PaymentMismatchError,
    PaymentStatus,
    _wire,
)
from paynexus_async._discreet import discreet, quoted
from paynexus_async._wire import Intent

from .fakes import CHECKOUT_ID, PHONE, REFERENCE


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("key sk_live_0123abcd is bad", "key sk_… is bad"),
        ("sk_live_ab123456789cdefgh", "sk_…"),
        ("api_key_sk_live_0123", "api_key_sk_…"),
        ("whsec_abc, pk_test_1, sb_2", "whsec_…, pk_…, sb_…"),
        ("a task_force and risk_free", "a task_force and risk_free"),
        ("call 0746 - 990 - 866", "call 07*****866"),
    ],
)
def test_neither_a_key_nor_a_phone_is_left(text, shown):
    """Nor half a key, where a phone seemed to stand in it; words that end like one stay."""
    assert discreet(text) == shown


def test_a_quote_is_one_short_line():
    """Whatever it was: no log line can be forged with it, and no log filled."""
    assert quoted("paid\n2026-01-27 ERROR \x1b[31mforged") == "paid 2026-01-27 ERROR [31mforged"
    assert len(quoted("x" * 1_000_000)) == 200
    assert quoted("x" * 200) == "x" * 200
    assert quoted("x" * 201) == "x" * 199 + "…"
    assert quoted(" " * 799 + "end") == "e"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (REFERENCE, REFERENCE),
        ("PNX202601271017181", "PNX202601271017181"),
        ("123456789012345", "123456789012345"),
        (PHONE, "2547*****866"),
        ("PNX0746990866X", "PNX07*****866X"),
        (CHECKOUT_ID, "ws_CO_27012026*****866"),
        ("sk_live_0123", "sk_…"),
    ],
)
def test_a_name_is_shown_whole_unless_it_gives_somebody_away(name, shown):
    """Half a reference is no use, and most long digits are no phone's."""
    assert quoted(name, is_name=True) == shown


def test_what_is_not_said_to_be_a_name_is_none():
    """Behind letters, too, nine digits may be somebody's."""
    assert quoted("PNX746990866", is_name=True) == "PNX746990866"
    assert quoted("PNX746990866") == "PNX7*****866"


def test_a_reference_that_is_a_phone_is_in_no_message():
    """Whichever way the server's answer gets into one."""
    payment = Payment(reference=PHONE, status=PaymentStatus.FAILED, status_text="failed")
    with pytest.raises(PaymentMismatchError) as caught:
        Expectation(reference=REFERENCE).check(payment)
    for text in (str(caught.value), repr(payment), Expectation.of(payment).label):
        assert PHONE not in text
    with pytest.raises(Exception, match=r"payment 2547\*\*\*\*\*866 is failed"):
        payment.raise_for_status()


def test_a_key_that_an_answer_repeats_is_in_no_repr():
    """In whichever field."""
    payment = Payment(status=PaymentStatus.FAILED, status_text="failed", description="sk_live_0123")
    assert "0123" not in repr(payment)


@pytest.mark.parametrize("amount", [254746990866, 254746990866.0, 746990866])
def test_a_phone_in_the_place_of_the_amount_is_not_repeated(amount):
    """Swapped arguments are told without telling whose they were."""
    with pytest.raises(InvalidRequestError, match=r"not .*\*\*\*\*\*") as caught:
        Intent.of(amount, "100", None, "production")
    assert "46990866" not in str(caught.value)


def test_a_key_in_the_place_of_a_header_name_or_a_scheme_is_not_repeated():
    """Nor a phone."""
    with pytest.raises(ConfigurationError, match="sk_…") as caught:
        _wire.check_headers({"sk_live_0123": "two\nlines"})
    assert "0123" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="must be https") as caught:
        _wire.check_base_url(f"a{PHONE}://x")
    assert PHONE not in str(caught.value)
