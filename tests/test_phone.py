"""Kenyan numbers: what is accepted, what is refused, what is shown."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from paynexus_async import InvalidRequestError, mask_phones, normalize_phone
from paynexus_async.phone import phones_agree


@pytest.mark.parametrize(
    "written",
    [
        "0746990866", "254746990866", "+254746990866", "746990866", " 0746 990 866 ",
        "+254 746-990-866", "(0746) 990866",
    ],
)  # fmt: skip
def test_a_kenyan_mobile_number_is_normalised_however_it_is_written(written):
    """The documented example, in the spellings people use."""
    assert normalize_phone(written) == "254746990866"


def test_the_newer_range_is_mobile_too():
    """Numbers that begin with 01 are mobile numbers as well."""
    assert normalize_phone("0110123456") == "254110123456"


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("0202222222", "not a mobile one"),  # a Nairobi landline
        ("+255746990866", "country +255"),
        ("+14155552671", "country +1"),
        ("07469908", "not a number in use"),
        ("07469908661", "not a number in use"),
        ("0746990866 ext 5", "no extension"),
        ("0746990866;ext=5", "no extension"),
        ("tel:+254746990866", "write digits only"),
        ("0746 99O 866", "no letters"),
        ("1-800-FLOWERS", "no letters"),
        ("٠٧٤٦٩٩٠٨٦٦", "write digits only"),
        ("0746990866\n", "ok"),
        ("0746\n990866", "write digits only"),
        ("", "no digits"),
        ("0800123456", "not a number in use"),
        ("+0000000000", "not a Kenyan"),
    ],
)
def test_anything_else_is_refused_with_a_reason(written, words):
    """Landlines, foreign numbers, wrong lengths, extensions and letters never get a prompt."""
    if words == "ok":
        assert normalize_phone(written) == "254746990866"
        return
    with pytest.raises(InvalidRequestError, match=words.replace("+", r"\+")) as caught:
        normalize_phone(written)
    if len(written) > 8:
        assert written not in str(caught.value)


@pytest.mark.parametrize("value", [746990866, None, b"0746990866", ["0746990866"]])
def test_a_phone_must_be_text(value):
    """A number loses its leading zero; only text is taken."""
    with pytest.raises(InvalidRequestError, match="must be a string"):
        normalize_phone(value)


@given(st.integers(700_000_000, 729_999_999).map(str))
def test_normalising_twice_is_normalising_once(national):
    """A normalised number stays as it is."""
    once = normalize_phone(national)
    assert once == normalize_phone(once) == f"254{national}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("254746990866", "2547*****866"),
        ("0746990866", "07*****866"),
        ("+254 746 990 866!", "+2547*****866!"),
        ("ws_CO_27012026101718139746990866", "ws_CO_27012026*****866"),
        ("M-Pesa 254746990866, KES 100", "M-Pesa 2547*****866, KES 100"),
        ("PNXABC123DEF of 2026-01-27", "PNXABC123DEF of 2026-01-27"),
        ("", ""),
    ],
)
def test_masking_hides_the_middle_of_whatever_may_be_a_phone(text, shown):
    """Also the one at the end of a checkout request id."""
    assert mask_phones(text) == shown


@example("", 700_000_000, "00000000")
@given(st.text(), st.integers(700_000_000, 799_999_999), st.text())
def test_no_phone_survives_masking(before, number, after):
    """Wherever it stands in a text, the whole number is gone."""
    assert str(number) not in mask_phones(f"{before}0{number}{after}")


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        ("254746990866", "0746990866", True),
        ("254746990866", "+254 746 990866", True),
        ("254746990866", "2547*****866", True),
        ("254746990866", "2547XXXXX866", True),
        ("2547*****866", "2547*****866", True),
        ("254746990866", "2547*****867", False),
        ("254746990866", "254700000001", False),
        ("254746990866", "255746990866", False),
        ("254746990866", "", False),
    ],
)
def test_two_phones_agree_unless_they_contradict_each_other(one, other, agree):
    """Spelling and masks do not contradict; another number does."""
    assert phones_agree(one, other) is agree
    assert phones_agree(other, one) is agree
