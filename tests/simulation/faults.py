"""What can go wrong with one exchange, how often, and what the wrong answers look like."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable, Mapping
from itertools import accumulate
from random import Random
from typing import Any, Final

import attrs

__all__ = [
    "ANSWER_BREAKS",
    "BACKLOG_SECONDS_MAX",
    "CONNECT_FAULTS",
    "EXCHANGE_FAULTS",
    "OF_AN_ITEM",
    "REQUEST_BREAKS",
    "SANDBOX_KINDS",
    "SHAPES",
    "Answer",
    "Fate",
    "Material",
    "draw",
]

CONNECT_FAULTS: Final = ("connect refused", "connect hangs", "connect slow")

REQUEST_BREAKS: Final[Mapping[str, str]] = {
    "request reset while written": "write error",
    "request reset": "reset",
    "request closed": "closed",
    "request stalls while written": "write stall",
    "request stalls": "stall",
    "request answered too early": "early answer",
}
"""After any number of the request's bytes, even none and all."""

ANSWER_BREAKS: Final[Mapping[str, str]] = {
    "answer reset": "reset",
    "answer closed": "closed",
    "answer stalls": "stall",
}
"""After any number of the answer's bytes, even none and all."""


@attrs.frozen
class Answer:
    """An answer before it becomes bytes."""

    status_code: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    raw: bytes | None = None  # instead of all the rest


@attrs.frozen
class Material:
    """What an answer can be made of."""

    status_code: int
    document: Mapping[str, Any]
    rng: Random
    date: Callable[[float], str]  # the HTTP date so many seconds from the answer's own
    another: Callable[[], Mapping[str, Any] | None]  # a document about another payment
    earlier: Callable[[], Mapping[str, Any] | None]  # an older document about this one
    is_item: bool = False  # whether it is one payment of a list

    @property
    def data(self) -> dict[str, Any]:
        return dict(self.document.get("data") or {})

    def as_json(self, document: object, *headers: tuple[str, str], status: int = 200) -> Answer:
        body = json.dumps(document, separators=(",", ":")).encode()
        return Answer(status, body, (("Content-Type", "application/json"), *headers))

    def with_data(self, data: Mapping[str, Any]) -> Answer:
        return self.as_json({**self.document, "data": data}, status=self.status_code)


@attrs.frozen
class Shape:
    """A way to answer.

    Attributes:
        make: builds the answer; `None` if there is nothing to build it from.
        initiates: its weight among the faults of an initiate.
        reads: its weight among the faults of a read.
        handled: whether the server did what was asked; `None` for either.
        is_true: whether the answer tells what is true.
    """

    make: Callable[[Material], Answer | None]
    initiates: int = 0
    reads: int = 0
    handled: bool | None = True
    is_true: bool = False


def plain(material: Material) -> Answer:
    """Answer as documented."""
    return material.as_json(material.document, status=material.status_code)


def _refuse(status: int) -> Callable[[Material], Answer]:
    def make(material: Material) -> Answer:
        document = {"success": False, "message": f"No, for 2547{status}00000", "code": "NO"}
        return material.as_json(document, status=status)

    return make


def _one_of(*statuses: int) -> Callable[[Material], Answer]:
    def make(material: Material) -> Answer:
        return _refuse(material.rng.choice(statuses))(material)

    return make


def _too_many(*, header: str = "", body: bool = False) -> Callable[[Material], Answer]:
    def make(material: Material) -> Answer:
        seconds = material.rng.choice((1, 2, 5, 15, 40, 300))
        headers: list[tuple[str, str]] = []
        if header == "seconds":
            headers.append(("Retry-After", str(seconds)))
        elif header == "date":
            headers.append(("Retry-After", material.date(seconds)))
        document = {"success": False, "error": "rate_limit_exceeded", "code": "RATE_LIMIT"}
        stated = {"retry_after": seconds} if body else {}
        return material.as_json({**document, **stated}, *headers, status=429)

    return make


def _html(material: Material) -> Answer:
    status = material.rng.choice((200, 502, 503))
    return Answer(
        status, b"<html><body>Bad Gateway</body></html>", (("Content-Type", "text/html"),)
    )


def _bad_json(material: Material) -> Answer:
    body = plain(material).body
    wrong = (body[: material.rng.randrange(len(body))], b"[" * 5_000, b"\xff\xfe", b"", b"null")
    return Answer(200, material.rng.choice(wrong))


def _success_false(material: Material) -> Answer:
    return material.as_json({"success": False, "message": "no"})


def _no_data(material: Material) -> Answer:
    if isinstance(material.document.get("data"), list):  # an empty one would be a lie
        return material.as_json(material.rng.choice(({"success": True}, {"data": None})))
    return material.as_json(material.rng.choice(({"success": True}, {"success": True, "data": []})))


def _no_names(material: Material) -> Answer:
    names = ("reference", "checkout_request_id")
    return material.with_data({k: v for k, v in material.data.items() if k not in names})


def _missing_fields(material: Material) -> Answer:
    """Leave out anything but the status and one of the names (of a listed payment: both)."""
    names = ("reference", "checkout_request_id")
    kept = {"status", *(names if material.is_item else (material.rng.choice(names),))}
    return material.with_data(
        {k: v for k, v in material.data.items() if k in kept or material.rng.random() < 0.5}
    )


def _no_status(material: Material) -> Answer:
    return material.with_data({**material.data, "status": material.rng.choice((None, 7, ""))})


def _word(material: Material) -> Answer:
    words = ("pending", "timeout", "reversed", "succeeded", "FAILED?", "complete")
    return material.with_data({**material.data, "status": material.rng.choice(words)})


def _odd_amount(material: Material) -> Answer:
    data = material.data
    try:
        amount = round(float(data.get("amount", "")))
    except ValueError:
        return plain(material)
    forms = (str(amount), f"{amount}.00", f"{amount}.0", float(amount), amount)
    return material.with_data({**data, "amount": material.rng.choice(forms)})


def _unreadable_amount(material: Material) -> Answer:
    return material.with_data(
        {
            **material.data,
            "amount": material.rng.choice(("12,50", [], "NaN", math.nan, True, "1e999999")),
        }
    )


def _wrong_types(material: Material) -> Answer:
    return material.with_data({name: [value] for name, value in material.data.items()})


def _other_amount(material: Material) -> Answer:
    return material.with_data(
        {**material.data, "amount": material.rng.choice((1, "7.00", 999_999))}
    )


def _other_phone(material: Material) -> Answer:
    return material.with_data({**material.data, "phone": "254700000099"})


def _other_reference(material: Material) -> Answer:
    return material.with_data({**material.data, "reference": "PNXOTHER0000"})


def _another(material: Material) -> Answer | None:
    document = material.another()
    return None if document is None else material.as_json(document)


def _stale(material: Material) -> Answer | None:
    document = material.earlier()
    return None if document is None else material.as_json(document)


def _redirect(material: Material) -> Answer:
    status = material.rng.choice((301, 302, 303, 307, 308))
    where = material.rng.choice(("/api/elsewhere", "http://127.0.0.1:1/api/mpesa/payment/initiate"))
    return Answer(status, b"", (("Location", where),))


def _garbage(material: Material) -> Answer:
    raw = (b"\x00\x01\x02 this is not HTTP\r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n", b"SSH-2.0-x\r\n")
    return Answer(200, b"", raw=material.rng.choice(raw))


_MEGABYTE: Final = b" " * (1024 * 1024 + 4096)


def _oversized(material: Material) -> Answer:
    return Answer(200, plain(material).body + _MEGABYTE)


_BOMB: Final = gzip.compress(bytes(4 * 1024 * 1024), mtime=0)


def _compressed(material: Material) -> Answer:
    truth = gzip.compress(plain(material).body, mtime=0)
    body = material.rng.choice((truth, _BOMB, b"\x1f\x8b\x08\x00rubbish"))
    return Answer(200, body, (("Content-Encoding", "gzip"),))


SHAPES: Final[Mapping[str, Shape]] = {
    "4xx": Shape(_one_of(400, 403, 404, 409, 422), 30, 10, handled=False),
    "401": Shape(_refuse(401), 6, 2, handled=False),
    "4xx after the prompt was pushed": Shape(_one_of(400, 401, 403, 404, 409, 422), 8, 0),
    "5xx, not handled": Shape(_one_of(500, 502, 503, 504), 15, 60, handled=False),
    "5xx after all": Shape(_one_of(500, 502, 503, 504), 20, 0),
    "408 or 425": Shape(_one_of(408, 425, 418), 6, 10, handled=None),
    "429, seconds": Shape(_too_many(header="seconds"), 10, 10, handled=False),
    "429, HTTP date": Shape(_too_many(header="date"), 8, 8, handled=False),
    "429, in the body": Shape(_too_many(body=True), 8, 8, handled=False),
    "429, silent": Shape(_too_many(), 4, 4, handled=False),
    "HTML": Shape(_html, 10, 15, handled=None),
    "bad JSON": Shape(_bad_json, 10, 15, handled=None),
    "success: false": Shape(_success_false, 10, 10, handled=None),
    "no data": Shape(_no_data, 6, 8),
    "no names": Shape(_no_names, 8, 0),
    "missing fields": Shape(_missing_fields, 20, 20, is_true=True),
    "no status": Shape(_no_status, 6, 10),
    "undocumented status": Shape(_word, 8, 40),
    "odd amount": Shape(_odd_amount, 12, 20, is_true=True),
    "unreadable amount": Shape(_unreadable_amount, 6, 8),
    "wrong types": Shape(_wrong_types, 6, 8),
    "other amount": Shape(_other_amount, 16, 30),
    "other phone": Shape(_other_phone, 10, 30),
    "other reference": Shape(_other_reference, 0, 12),
    "another payment's answer": Shape(_another, 40, 40),
    "stale status": Shape(_stale, 0, 90),
    "redirect": Shape(_redirect, 14, 10, handled=None),
    "garbage": Shape(_garbage, 8, 10, handled=None),
    "oversized": Shape(_oversized, 3, 3),
    "compressed": Shape(_compressed, 5, 5),
}

OF_AN_ITEM: Final = frozenset(
    {
        *("missing fields", "no status", "undocumented status"),
        *("odd amount", "unreadable amount", "wrong types"),
    }
)
"""What can be wrong with one payment of a list."""
NOT_OF_A_LIST: Final = frozenset(
    {
        *("other amount", "other phone", "other reference"),
        *("another payment's answer", "stale status"),
    }
)
"""What nobody could find out, in a list."""

_NETWORK: Final[Mapping[str, tuple[int, int]]] = {
    "connect refused": (40, 60),  # a read rarely connects
    "connect hangs": (12, 25),
    "connect slow": (12, 20),
    "request reset while written": (30, 20),
    "request reset": (30, 25),
    "request closed": (25, 20),
    "request stalls while written": (15, 12),
    "request stalls": (20, 15),
    "request answered too early": (12, 8),
    "request never handled": (15, 15),
    "request carried out late": (40, 20),
    "answer reset": (40, 40),
    "answer closed": (40, 40),
    "answer stalls": (25, 25),
    "answer dripped": (20, 20),
    "stale keep-alive": (0, 40),
    "idle connection closed": (0, 40),
}
"""How often among the faults of an initiate, and of a read."""

EXCHANGE_FAULTS: Final = (*_NETWORK, *SHAPES)

SANDBOX_KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "latency": ("answer dripped",),  # and every answer takes up to 0.3 s, one in fifty up to 3 s
    "backlog": ("request carried out late",),
    "rate-limit": ("429, seconds", "429, HTTP date", "429, in the body", "429, silent"),
    **{f"{status}-before": ("4xx",) for status in (400, 403, 404, 409, 422)},
    "401-before": ("401",),
    **{
        f"{status}-after": ("4xx after the prompt was pushed",)
        for status in (400, 401, 403, 404, 409, 422)
    },
    **{f"{status}-before": ("5xx, not handled",) for status in (500, 502, 503, 504)},
    **{f"{status}-after": ("5xx after all",) for status in (500, 502, 503, 504)},
    **{
        f"{kind}-{when}": (fault,)  # which of the two, the server's dice say
        for when in ("before", "after")
        for kind, fault in (
            ("html-200", "HTML"),
            ("html-502", "HTML"),
            ("success-false", "success: false"),
            ("redirect", "redirect"),
        )
    },
    "reset-before": ("request reset", "request reset while written", "request never handled"),
    "reset-after": ("answer reset", "stale keep-alive"),
    "close-before": ("request closed", "request never handled"),
    "close-after": ("answer closed",),
    "cut-body": ("answer closed",),
    "dripped-body": ("answer dripped",),
    "oversized-body": ("oversized",),
    "gzip": ("compressed",),
    "gzip-bomb": ("compressed",),
    "empty-body": ("bad JSON",),
    "half-json": ("bad JSON",),
    "nan": ("unreadable amount",),
    "wrong-types": ("wrong types",),
    "other-payment": (
        "another payment's answer",
        *("other amount", "other phone", "other reference"),
    ),
}
"""Each kind of fault that can be ordered in the sandbox, and what it is called here.

A plan that runs out, in one world of eight, is a spell of 429s as the sandbox's `rate-limit` is.
"""


def _weights(place: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    shapes = {name: (shape.initiates, shape.reads) for name, shape in SHAPES.items()}
    weighted = {name: pair[place] for name, pair in {**_NETWORK, **shapes}.items() if pair[place]}
    return tuple(weighted), tuple(accumulate(weighted.values()))


_INITIATES, _READS = _weights(0), _weights(1)
BACKLOG_SECONDS_MAX: Final = 96.0  # longer than what is lost is thought to be late
FRAMINGS: Final = ("length", "length", "length", "chunked", "until closed", "after 100")


@attrs.frozen
class Fate:
    """What is going to happen to one exchange, drawn when it begins.

    Attributes:
        fault: its main trouble; empty if there is none.
        also: an answer break on top of a wrong answer.
        share: where on its bytes it breaks, 0 to 1.
        seconds: how long a slow thing takes.
        there: latency of the request, in seconds.
        back: latency of the answer.
        framing: how the end of the answer is marked.
        hangs_up: whether the server closes after the answer.
        pauses: where the writing of the request pauses, or `None`.
    """

    fault: str
    also: str
    share: float
    seconds: float
    there: float
    back: float
    framing: str
    hangs_up: bool
    pauses: float | None

    @property
    def backlog_seconds(self) -> float:
        """How long a request lies there that is carried out late: within timeouts, or far beyond."""
        return self.seconds * (1 if self.share < 0.5 else BACKLOG_SECONDS_MAX / 12)


def draw(rng: Random, *, initiates: bool, roughness: float, is_calm: bool = False) -> Fate:
    """Draw what will become of an exchange.

    The same number of dice for each, so that one exchange's fate does not move the next one's.

    Args:
        rng: the dice.
        initiates: whether it initiates a payment.
        roughness: how likely trouble is, 0 to 1.
        is_calm: whether nothing is slow either; a slow exchange may take longer than is allowed.
    """
    dice = [rng.random() for _ in range(9)]
    names, weights = _INITIATES if initiates else _READS
    fault = rng.choices(names, cum_weights=weights)[0]
    if dice[0] >= roughness:
        fault = ""
    also = list(ANSWER_BREAKS)[int(dice[1] * 20) % 3] if fault in SHAPES and dice[1] < 0.15 else ""
    slow = 10.0 if dice[2] < 0.02 and not is_calm else 1.0
    return Fate(
        fault=fault,
        also=also,
        share=dice[3],
        seconds=dice[4] * 12,
        there=(0.002 + 0.15 * dice[5] ** 3) * slow,
        back=(0.005 + 0.3 * dice[6] ** 3) * slow,
        framing=FRAMINGS[int(dice[7] * len(FRAMINGS))] if roughness else "length",
        hangs_up=dice[8] < 0.05 * bool(roughness),
        pauses=dice[2] * 10 if 0.02 < dice[2] < 0.1 else None,
    )
