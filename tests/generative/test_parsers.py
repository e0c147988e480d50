"""Every parser of foreign input, for arbitrary bytes and for mutated valid input.

The claims themselves are in `claims`; `python -m tests.generative.fuzz` looks for what breaks them
for longer, guided by coverage.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .claims import CLAIMS, HEAD, PHONE

if TYPE_CHECKING:
    from collections.abc import Sequence

SECONDS_MAX = 2.0
"""For the largest answer that is read at all; most of it would be taken by quadratic work."""

WORDS: Sequence[str] = (
    PHONE, "0746990866", "+254 746-990 866", "2547*****866", "sk_live_0123456789abcd", "completed",
    "ws_CO_27012026101718139746990866", "NaN", "1e400", "1e999999999999", "\ud800", "\u0660" * 10,
    "9" * 5_000, "Mon, 01 Jan 99999999999 00:00:00 GMT", "Mon, 01 Jan 0001 00:00:00 -0000",
    "9999-12-31T23:59:59-23:59",
)  # fmt: skip
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.integers(-(10**400), 10**400)
    | st.floats() | st.text(max_size=30) | st.sampled_from(WORDS)
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8) | st.sampled_from(WORDS), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def spoiled_bytes(draw: st.DrawFn, seed: bytes) -> bytes:
    """A seed with pieces cut out, doubled, or replaced."""
    data = seed
    pieces = st.binary(max_size=6) | st.sampled_from([w.encode("utf-8", "replace") for w in WORDS])
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(data)))
        end = draw(st.integers(begin, min(begin + 12, len(data))))
        data = data[:begin] + draw(pieces) + data[end:]
    return data


@st.composite
def spoiled_json(draw: st.DrawFn, seed: bytes) -> bytes:
    """A seed's document with other values in some places."""
    head, found, body = seed.rpartition(b"\n")
    try:
        document = json.loads(body)
    except ValueError:
        return draw(spoiled_bytes(seed))
    for _ in range(draw(st.integers(1, 3))):
        place = document
        while isinstance(place, dict) and place:
            name = draw(st.sampled_from(sorted(place)))
            if not isinstance(place[name], dict) or draw(st.integers(0, 9)) == 0:
                place[name] = draw(VALUES)
                break
            place = place[name]
        if isinstance(place, dict) and not place:
            break
    return head + found + json.dumps(document).encode()


@pytest.mark.parametrize("name", CLAIMS)
@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(data=st.data())
def test_nothing_foreign_breaks_a_claim(name: str, data: st.DataObject) -> None:
    """Only the package's own errors escape, and they give nobody away."""
    claim, seeds = CLAIMS[name]
    seed = data.draw(st.sampled_from(seeds))
    claim(data.draw(st.binary(max_size=200) | spoiled_bytes(seed) | spoiled_json(seed)))


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_holds_for_its_seeds_and_their_ends(name: str) -> None:
    """Each valid input, and each of its beginnings."""
    claim, seeds = CLAIMS[name]
    for seed in seeds:
        for length in range(len(seed) + 1):
            claim(seed[:length])


FLOODS: dict[str, Any] = {
    "digits": b"9" * 500_000,
    "spaced digits": b"1 " * 250_000,
    "brackets": b"[" * 500_000,
    "objects": b'{"a":' * 100_000,
    "keys": b"sk_" * 160_000,
    "an amount": b'{"success":true,"data":{"status":"completed","amount":"' + b"1" * 500_000 + b'"}}',
    "an exponent": b'{"success":true,"data":{"status":"completed","amount":1e' + b"9" * 18 + b"}}",
    "a message": b'400\n\n{"message":"' + b"0746-990 " * 55_000 + b'"}',
    "errors": HEAD + b'{"errors":{' + b",".join(b'"%d":["0746990866"]' % n for n in range(20_000)) + b"}}",
    "a date": b"200\ndate: " + b"1 Jan " * 80_000 + b"\n\n",
}  # fmt: skip


@pytest.mark.parametrize("flood", FLOODS)
@pytest.mark.parametrize("name", CLAIMS)
def test_half_a_megabyte_of_anything_is_read_quickly(name: str, flood: str) -> None:
    """No pattern and no number makes a parser do quadratic work."""
    started = time.process_time()
    CLAIMS[name][0](FLOODS[flood])
    assert time.process_time() - started < SECONDS_MAX
