"""Faults to order: which call meets which one, and what its caller is told instead of the truth."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from itertools import chain, count, repeat
from typing import TYPE_CHECKING, Any, Final, Literal

import attrs

if TYPE_CHECKING:
    from ._engine import Reply, Request  # noqa: TC004  # only type checkers read the attributes

__all__ = ["CALLS", "FAULTS", "Fault", "Faults", "Kind", "Rule", "Strike", "Told"]

RULES_MAX: Final = 200
TIMES_MAX: Final = 1_000_000
SECONDS_MAX: Final = 3_600
SEED_MAX: Final = 2**53 - 1  # what JSON carries everywhere
_OVERSIZED_BYTES: Final = 17 * 1024 * 1024
_BOMB_MIB: Final = 100
_PIECE: Final = b" " * (64 * 1024)
_TRIAL_CALLS_A_MINUTE: Final = 30

_PATHS: Final[Mapping[str, str]] = {
    "/mpesa/payment/initiate": "initiate",
    "/payments/initiate": "initiate",
    "/payments/status-by-checkout-id": "status",
    "/mpesa/payment/status": "status",
    "/mpesa/validate-phone": "validate",
    "/payments": "list",
}
_ALL: Final = frozenset(_PATHS.values())
CALLS: Final = ("initiate", "status", "validate", "list", "any")
"""What a fault may be ordered for; `any` is every call below the base URL."""

Ending = Literal["whole", "dripped", "cut", "closed", "reset"]


@attrs.frozen
class Told:
    """What the caller of one call is told.

    Attributes:
        status_code: of the answer; `None` where there is none.
        body: its bytes.
        headers: beyond those that the web server adds.
        rest: more of the body, made as it is sent.
        ending: whether it comes whole, byte by byte, by half, or not at all.
    """

    status_code: int | None
    body: bytes = b""
    headers: Mapping[str, str] = attrs.field(factory=dict)
    rest: Iterable[bytes] = ()
    ending: Ending = "whole"


@attrs.frozen
class Strike:
    """A fault that meets a call now.

    Attributes:
        kind: what happens.
        seconds: how long, for a kind that takes time.
        at: now, on the ledger's clock.
        until: when a spell of it ends.
    """

    kind: Kind
    seconds: float
    at: float
    until: float

    def tell(self, reply: Reply) -> Told:
        """Make what is told of what is true."""
        return self.kind.tell(reply, self)


@attrs.frozen
class Kind:
    """One kind of fault.

    Attributes:
        name: by which it is ordered.
        happens: what happens, in one sentence.
        tell: makes what is told of the true reply.
        before: whether it strikes before the call is handled, so that nothing comes of the call.
        calls: those that it can strike.
        seconds: how long it takes, if nothing else is ordered; `None` if it takes no time.
        holds: what it holds up for so long.
        is_spell: whether it lasts for so long, and counts once.
    """

    name: str
    happens: str
    tell: Callable[[Reply, Strike], Told]
    before: bool = attrs.field(default=False, kw_only=True)
    calls: frozenset[str] = attrs.field(default=_ALL, kw_only=True)
    seconds: float | None = attrs.field(default=None, kw_only=True)
    holds: Literal["", "call", "answer"] = attrs.field(default="", kw_only=True)
    is_spell: bool = attrs.field(default=False, kw_only=True)


# --- What is told


def _json(document: object) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _as(content_type: str, status_code: int, body: bytes) -> Told:
    length = str(len(body))
    return Told(status_code, body, {"Content-Length": length, "Content-Type": content_type})


def _document(reply: Reply, document: object) -> Told:
    told = _as("application/json", reply.status_code, _json(document))
    return attrs.evolve(told, headers={**told.headers, **reply.headers})


def _truth(reply: Reply, _: Strike) -> Told:
    return _document(reply, reply.document)


def _ending(ending: Ending) -> Callable[[Reply, Strike], Told]:
    def tell(reply: Reply, strike: Strike) -> Told:
        return attrs.evolve(_truth(reply, strike), ending=ending)

    return tell


def _silence(ending: Ending) -> Callable[[Reply, Strike], Told]:
    return lambda *_: Told(None, ending=ending)


def _refusal(code: str, message: str, **fields: object) -> dict[str, object]:
    return {"success": False, "error": code.lower(), "code": code, "message": message, **fields}


def _refused(status_code: int, code: str, message: str) -> Callable[[Reply, Strike], Told]:
    def tell(reply: Reply, _: Strike) -> Told:
        return _document(attrs.evolve(reply, status_code=status_code), _refusal(code, message))

    return tell


def _too_many(reply: Reply, strike: Strike) -> Told:
    """As the ledger itself refuses a key whose calls are used up."""
    seconds = max(1, math.ceil(strike.until - strike.at))
    headers = {
        "X-RateLimit-Limit": str(_TRIAL_CALLS_A_MINUTE),
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": str(math.ceil(strike.until)),
        "Retry-After": str(seconds),
    }
    word = "Too many requests. Please try again later."
    told = _refusal("RATE_LIMIT", word, retry_after=seconds, error="rate_limit_exceeded")
    return _document(attrs.evolve(reply, status_code=429, headers=headers), told)


def _html(status_code: int, title: str) -> Callable[[Reply, Strike], Told]:
    page = f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"
    return lambda *_: _as("text/html", status_code, page.encode())


def _redirect(*_: object) -> Told:
    # The same call again: whoever follows it with its body initiates once more.
    return Told(307, headers={"Content-Length": "0", "Location": "?again=1"})


def _success_false(*_: object) -> Told:
    word = "The request could not be processed."
    return _as("application/json", 200, _json(_refusal("FAILED", word)))


def _oversized(reply: Reply, strike: Strike) -> Told:
    told = _truth(reply, strike)
    pieces = _OVERSIZED_BYTES // len(_PIECE)
    length = str(len(told.body) + pieces * len(_PIECE))
    headers = {**told.headers, "Content-Length": length}
    return attrs.evolve(told, headers=headers, rest=repeat(_PIECE, pieces))


def _gzip(reply: Reply, strike: Strike) -> Told:
    told = _truth(reply, strike)
    body = gzip.compress(told.body, mtime=0)
    headers = {**told.headers, "Content-Length": str(len(body)), "Content-Encoding": "gzip"}
    return attrs.evolve(told, body=body, headers=headers)


def _gzip_bomb(reply: Reply, _: Strike) -> Told:
    told = _as("application/json", reply.status_code, _bomb())
    return attrs.evolve(told, headers={**told.headers, "Content-Encoding": "gzip"})


@cache
def _bomb() -> bytes:
    """Compress a hundred MiB of nothing, a MiB at a time: 0.2 s, once."""
    packer, nothing = zlib.compressobj(wbits=16 + zlib.MAX_WBITS), bytes(1024 * 1024)
    return b"".join([*(packer.compress(nothing) for _ in range(_BOMB_MIB)), packer.flush()])


def _with_data(change: Callable[[dict[str, Any]], object]) -> Callable[[Reply, Strike], Told]:
    def tell(reply: Reply, _: Strike) -> Told:
        data = reply.document.get("data")
        fields = data if isinstance(data, dict) else {}
        return _document(reply, {**reply.document, "data": change(fields)})

    return tell


def _other(data: dict[str, Any]) -> dict[str, Any]:
    is_text = isinstance(data.get("amount"), str)
    return {
        **data,
        "reference": "PNXOTHER0000",
        "checkout_request_id": "ws_CO_01012026000000000700000099",
        "amount": "149999.00" if is_text else 149_999,
        "phone": "254700000099",
    }


def _empty(reply: Reply, _: Strike) -> Told:
    return _as("application/json", reply.status_code, b"")


def _half(reply: Reply, strike: Strike) -> Told:
    body = _truth(reply, strike).body
    return _as("application/json", reply.status_code, body[: len(body) // 2])


# --- The kinds

_NOTHING, _DONE = "nothing came of the call", "the call was carried out"
_REFUSALS: Final = (
    (400, "BAD_REQUEST", "The request is malformed."),
    (401, "INVALID_API_KEY", "The API key is invalid."),
    (403, "FORBIDDEN", "This key may not make this call."),
    (404, "NOT_FOUND", "Payment not found."),
    (409, "CONFLICT", "The payment is in another state."),
    (422, "VALIDATION_ERROR", "The given data was invalid."),
    (500, "SERVER_ERROR", "Something went wrong."),
    (502, "BAD_GATEWAY", "Bad gateway."),
    (503, "UNAVAILABLE", "The service is unavailable."),
    (504, "GATEWAY_TIMEOUT", "The gateway timed out."),
)


def _twice(name: str, happens: str, tell: Callable[[Reply, Strike], Told]) -> tuple[Kind, Kind]:
    """Let it happen before the call is handled, and after: nobody can tell which."""
    return (
        Kind(f"{name}-before", f"{happens}; {_NOTHING}.", tell, before=True),
        Kind(f"{name}-after", f"{happens}; {_DONE}.", tell),
    )


_KINDS: Final = (
    Kind(
        "latency",
        "The call is carried out at once, and its answer comes `seconds` later.",
        _truth,
        seconds=5.0,
        holds="answer",
    ),
    Kind(
        "backlog",
        "The call waits `seconds` before it is carried out, even if its caller has gone by then.",
        _truth,
        seconds=5.0,
        holds="call",
    ),
    Kind(
        "rate-limit",
        "HTTP 429 for `seconds`, as for a key whose calls are used up; nothing comes of the calls.",
        _too_many,
        before=True,
        seconds=60.0,
        is_spell=True,
    ),
    *chain.from_iterable(
        _twice(str(status_code), f"HTTP {status_code}", _refused(status_code, code, message))
        for status_code, code, message in _REFUSALS
    ),
    *_twice("html-200", "HTTP 200 with a proxy's HTML page", _html(200, "Please wait")),
    *_twice("html-502", "HTTP 502 with a proxy's HTML page", _html(502, "502 Bad Gateway")),
    *_twice("success-false", 'HTTP 200 with `"success": false`', _success_false),
    *_twice("redirect", "HTTP 307 to the same call again", _redirect),
    *_twice("reset", "The connection is reset, without an answer", _silence("reset")),
    *_twice("close", "The connection is closed, without an answer", _silence("closed")),
    Kind("cut-body", "The connection is closed in the middle of the answer.", _ending("cut")),
    Kind(
        "dripped-body",
        "The answer comes byte by byte, in `seconds` all told.",
        _ending("dripped"),
        seconds=5.0,
        holds="answer",
    ),
    Kind("oversized-body", "The answer is followed by 17 MiB of spaces.", _oversized),
    Kind("gzip", "The answer comes compressed, asked for or not.", _gzip),
    Kind("gzip-bomb", "A compressed answer of 100 KB, which becomes 100 MiB.", _gzip_bomb),
    Kind("empty-body", "The answer has no body.", _empty),
    Kind("half-json", "The answer is whole, and its JSON stops in the middle.", _half),
    Kind(
        "nan",
        "The answer's amount is `NaN`, which is not JSON.",
        _with_data(lambda data: {**data, "amount": math.nan}),
    ),
    Kind(
        "wrong-types",
        "Each field of the answer is a list.",
        _with_data(lambda data: {name: [value] for name, value in data.items()}),
    ),
    Kind(
        "other-payment",
        "The answer is about another payment: reference, amount and phone.",
        _with_data(_other),
        calls=frozenset({"initiate", "status"}),
    ),
)

FAULTS: Final[Mapping[str, Kind]] = {kind.name: kind for kind in _KINDS}
"""Every kind of fault by its name."""


# --- Orders


def _within(name: str, value: float, least: int, most: int) -> None:
    if not least <= value <= most:
        msg = f"{name} goes from {least} to {most:,}"
        raise ValueError(msg)


@attrs.frozen
class Fault:
    """An order: what shall go wrong, with which calls, how often.

    Attributes:
        kind: a name in `FAULTS`.
        call: `initiate`, `status`, `validate`, `list`, or `any`.
        times: how often; `None`: until it is taken back.
        probability: with which it strikes a call.
        seed: of the dice for that; the same seed strikes the same calls.
        seconds: how long, for a kind that takes time; `None`: as long as that kind does.

    Raises:
        ValueError: if there is no such kind or call, or a number is out of bounds.
    """

    kind: str
    call: str = attrs.field(default="any", kw_only=True)
    times: int | None = attrs.field(default=None, kw_only=True)
    probability: float = attrs.field(default=1.0, kw_only=True)
    seed: int = attrs.field(default=0, kw_only=True)
    seconds: float | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        """Refuse an order that cannot be carried out."""
        if self.kind not in FAULTS:
            msg = f"kind is one of {', '.join(FAULTS)}"
            raise ValueError(msg)
        kind = FAULTS[self.kind]
        if self.call not in {"any", *kind.calls}:
            msg = f"call is one of {', '.join(c for c in CALLS if c in {'any', *kind.calls})}"
            raise ValueError(msg)
        if self.times is not None:
            _within("times", self.times, 1, TIMES_MAX)
        _within("probability", self.probability, 0, 1)
        _within("seed", self.seed, 0, SEED_MAX)
        if self.seconds is not None:
            if kind.seconds is None:
                msg = f"seconds are not for {kind.name}, which takes no time"
                raise ValueError(msg)
            _within("seconds", self.seconds, 0, SECONDS_MAX)

    @property
    def lasts_seconds(self) -> float:
        """How long it takes: as ordered, or as its kind does."""
        return (FAULTS[self.kind].seconds or 0.0) if self.seconds is None else self.seconds


@attrs.define
class Rule:
    """An order that is in force.

    Attributes:
        id: its number.
        fault: what was ordered.
        met: the calls that it could have struck.
        struck: those that it did, a spell counting once.
        until: when its latest spell ends.
    """

    id: int
    fault: Fault
    met: int = 0
    struck: int = 0
    until: float = -math.inf

    def is_over(self, now: float) -> bool:
        """Whether it will never strike again."""
        return self.struck == self.fault.times and now >= self.until

    def strikes(self, call: str, now: float) -> bool:
        """Let it meet a call: whether it strikes."""
        fault, kind = self.fault, FAULTS[self.fault.kind]
        # A call that has no name here is met by what can meet every call.
        if fault.call not in {"any", call} or not (call in kind.calls or kind.calls == _ALL):
            return False
        if now < self.until:
            return True
        dice = hashlib.sha256(f"{fault.seed} {fault.kind} {fault.call} {self.met}".encode())
        self.met += 1
        if int.from_bytes(dice.digest()[:8], "big") >= fault.probability * 2**64:
            return False
        self.struck += 1
        if kind.is_spell:
            self.until = now + fault.lasts_seconds
        return True


class Faults:
    """The orders in force; a call meets the first one that strikes it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin without any.

        Args:
            clock: the time, in seconds since 1970.
        """
        self._clock = clock
        self._numbers = count(1)
        self._rules: dict[int, Rule] = {}

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Those in force, in the order of their numbers; one that is used up goes by itself."""
        now = self._clock()
        # A copy in one step: a test orders while the server's thread strikes.
        return tuple(rule for rule in tuple(self._rules.values()) if not rule.is_over(now))

    def add(self, fault: Fault) -> Rule:
        """Order a fault.

        Raises:
            ValueError: if there are too many orders.
        """
        if len(self.rules) >= RULES_MAX:
            msg = f"{RULES_MAX} faults are ordered already: take some back"
            raise ValueError(msg)
        rule = Rule(next(self._numbers), fault)
        self._rules[rule.id] = rule
        return rule

    def remove(self, number: int) -> None:
        """Take an order back; it may have gone by itself already."""
        self._rules.pop(number, None)

    def clear(self) -> None:
        """Take all orders back."""
        self._rules.clear()

    def strike(self, request: Request) -> Strike | None:
        """Return what a call meets, if it meets anything."""
        now, path = self._clock(), request.path.rstrip("/")
        call = _PATHS.get(path, "status" if path.startswith("/payments/") else "")
        for rule in tuple(self._rules.values()):
            if rule.is_over(now):
                self.remove(rule.id)
            elif rule.strikes(call, now):
                kind, seconds = FAULTS[rule.fault.kind], rule.fault.lasts_seconds
                return Strike(kind, seconds, now, rule.until)
        return None
