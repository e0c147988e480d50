"""A PayNexus at the other end of the simulated network: the sandbox's ledger, answering in bytes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

import attrs

from paynexus_async._transport import BODY_BYTES_MAX
from paynexus_async.sandbox import Ledger, Record, Reply, Request

from .faults import ANSWER_BREAKS, NOT_OF_A_LIST, OF_AN_ITEM, SHAPES, Answer, Material, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from random import Random

    from .network import Exchange, Network, Stream

__all__ = ["Habits", "Server", "Walls"]

_BASE: Final = 1_790_000_000.0
_SNAPSHOTS_MAX: Final = 8
_TRUSTED: Final = 3_600.0


class Walls:
    """The clock on the server's wall, which jumps ahead, and the one in its headers, which is off.

    The ledger's own time never goes back: a payment that was paid stays paid.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._jumped = 0.0
        self._skew = 0.0
        self.are_trusted = True  # whether they agree, and with themselves, to within an hour

    def now(self) -> float:
        return _BASE + self._network.runtime.now() + self._jumped

    def date(self, seconds: float = 0.0) -> str:
        moment = datetime.fromtimestamp(int(self.now() + self._skew + seconds), UTC)
        return format_datetime(moment, usegmt=True)

    def jump(self, seconds: float) -> None:
        """Move all that the server knows ahead."""
        self._network.hit("wall clock jumps ahead")
        self._network.trace("wall clock jumps", seconds)
        self._jumped += seconds
        self.are_trusted &= seconds < _TRUSTED

    def skew(self, seconds: float) -> None:
        """Let the Date header be off from now on, in either direction."""
        self._network.hit("Date header is off")
        self._network.trace("Date is off", seconds)
        self._skew = seconds
        self.are_trusted &= abs(seconds) < _TRUSTED


@attrs.frozen
class Habits:
    """How a server lists payments.

    Attributes:
        lag: seconds until a payment is listed.
        per_page: payments on a page at most, whatever is asked for.
        paginates: whether it says how many pages there are.
        turns: whether it turns the page when asked for the next one.
    """

    lag: float = 0.0
    per_page: int = 100
    paginates: bool = True
    turns: bool = True

    @classmethod
    def draw(cls, rng: Random) -> Habits:
        return cls(
            lag=rng.choice((0.0, 0.0, rng.uniform(0, 12))),
            per_page=rng.choice((100, 12, 7)),
            paginates=rng.random() < 0.8,
            turns=rng.random() < 0.9,
        )


class Server:
    """Handles what has arrived, and sends the answer back, or what is left of it."""

    limits_calls = False
    habits = Habits()

    def __init__(self, network: Network, ledger: Ledger, walls: Walls, rng: Random) -> None:
        self.ledger = ledger
        self.walls = walls
        self._network = network
        self._rng = rng
        self._snapshots: dict[str, list[Mapping[str, Any]]] = {}
        self.records: dict[str, Record] = {}
        self.calls: dict[str, int] = {}  # which call a prompt came from, and which client
        self.senders: dict[str, int] = {}
        self.made_at: dict[str, float] = {}
        self.prompted: Callable[[str], None] | None = None
        network.serve = self.serve

    def serve(self, exchange: Exchange, stream: Stream) -> None:
        """Do what a whole request asks for, at once or late."""
        network, fate = self._network, exchange.fate
        if fate.fault == "request carried out late":
            network.hit(fate.fault)
            network.runtime.later(fate.backlog_seconds, lambda: self._serve(exchange, stream))
        else:
            self._serve(exchange, stream)

    def _serve(self, exchange: Exchange, stream: Stream) -> None:
        network, fate = self._network, exchange.fate
        if exchange.epoch != network.epoch:
            return  # the server that had received it is no more
        if fate.fault == "request never handled":
            network.hit(fate.fault)
            stream.fail("reset" if fate.share < 0.5 else "closed", fate.back)
            return
        if stream.closed and exchange.initiates:
            network.hit("initiate carried out when its caller had gone")
        answer = self._answer(exchange)
        exchange.status_code = answer.status_code
        exchange.names_reference = b'"reference"' in answer.body
        exchange.is_readable = answer.raw is None and len(answer.body) <= BODY_BYTES_MAX
        if answer.status_code == 429:
            exchange.pause = _stated_pause(answer, self.walls.date())
        self._send(exchange, stream, self._encode(answer, fate.framing), answer)

    # --- What to answer

    def _answer(self, exchange: Exchange) -> Answer:
        fate = exchange.fate
        shape = SHAPES.get(fate.fault)
        handled = None if shape is None else shape.handled
        if shape is None or handled or (handled is None and self._rng.random() < 0.5):
            reply = self._handle(exchange)
        else:
            reply = Reply(200, {})
        material = self._material(exchange, reply)
        made = None
        if shape and reply.status_code == 200:
            is_list = exchange.page is not None
            made = self._spoil_list(material, fate.fault) if is_list else shape.make(material)
        if made is None or shape is None:
            self._tell(exchange, reply.document, is_true=True)
            headers = tuple(reply.headers.items())
            return Answer(reply.status_code, plain(material).body, headers)
        self._network.hit(fate.fault)
        exchange.lied = fate.fault.startswith("4xx after")
        if shape.is_true:
            self._tell(exchange, reply.document, is_true=True)
        elif fate.fault in {"stale status", "no names"}:
            self._tell(exchange, json.loads(made.body), is_true=False)
        return made

    def _spoil_list(self, material: Material, fault: str) -> Answer | None:
        """Let a list be wrong: as a whole, or one of its payments."""
        if fault not in OF_AN_ITEM:
            return None if fault in NOT_OF_A_LIST else SHAPES[fault].make(material)
        items = list(material.document.get("data") or ())
        if not items:
            return None
        place = self._rng.randrange(len(items))
        one = attrs.evolve(material, document={"success": True, "data": items[place]}, is_item=True)
        spoiled = SHAPES[fault].make(one)
        assert spoiled is not None
        items[place] = json.loads(spoiled.body)["data"]
        return material.as_json({**material.document, "data": items})

    def _tell(self, exchange: Exchange, document: Mapping[str, Any], *, is_true: bool) -> None:
        data = document.get("data")
        if isinstance(data, dict) and exchange.reference:
            exchange.told, exchange.is_true = data.get("status"), is_true

    def _handle(self, exchange: Exchange) -> Reply:
        method, path, query, body = _parse(bytes(exchange.received))
        request = Request(method, path, exchange.key or None, body, query)
        reply = self.ledger.handle(request)
        if path == "/payments":
            exchange.page = int(query["page"])
            if reply.status_code == 200:
                reply = self._list(exchange, reply, query)
        exchange.handled_at = self._network.runtime.now()
        exchange.reference = reply.reference
        if reply.reference and exchange.initiates:
            record = self.records[reply.reference] = self.ledger.records[-1]
            self.made_at[reply.reference] = exchange.handled_at
            self.calls[reply.reference] = exchange.origin.call
            self.senders[reply.reference] = exchange.origin.client
            if self.prompted is not None:
                self.prompted(reply.reference)
            if record.scenario.name.endswith("all along") and self._rng.random() < 0.5:
                data = {**reply.document["data"], **record.scenario.steps[0].fields}  # type: ignore[dict-item]
                reply = attrs.evolve(reply, document={**reply.document, "data": data})
        self._network.trace("handled", f"x{exchange.number}", reply.status_code, reply.reference)
        if reply.reference and not exchange.initiates:
            seen = self._snapshots.setdefault(reply.reference, [])
            if len(seen) < _SNAPSHOTS_MAX:
                seen.append(reply.document)
        return reply

    def _list(self, exchange: Exchange, reply: Reply, query: Mapping[str, str]) -> Reply:
        """List as this server does: late, in small pages, without saying how many."""
        habits, now = self.habits, self._network.runtime.now()
        listed = [
            record
            for record in reversed(self.ledger.records)
            if self.made_at[record.prompt.reference] + habits.lag <= now
            and query.get("status") in {None, self.ledger.status(record.prompt.reference)}
        ]
        size = min(int(query["per_page"]), habits.per_page)
        page = int(query["page"]) if habits.turns else 1
        shown = listed[(page - 1) * size : page * size]
        exchange.listed = {
            record.prompt.reference: self.ledger.status(record.prompt.reference) for record in shown
        }
        document: dict[str, Any] = {
            "success": True,
            "data": [self.ledger._document(record) for record in shown],
        }
        if habits.paginates:
            last = max(1, -(-len(listed) // size))
            document["pagination"] = {"last_page": last, "total": len(listed)}
        return attrs.evolve(reply, document=document)

    def other_till(self, phone: str, amount: int, words: str) -> None:
        """Let another process of the merchant's prompt somebody."""
        scripted, self.ledger._scripted = self.ledger._scripted, []
        record = self.ledger._record(amount, phone, words)
        self.ledger._scripted = scripted
        self.records[record.prompt.reference] = record
        self.senders[record.prompt.reference] = -1  # no client of this shop's
        self.made_at[record.prompt.reference] = self._network.runtime.now()
        self._network.trace("another till prompts", phone, amount)

    def _material(self, exchange: Exchange, reply: Reply) -> Material:
        def earlier() -> Mapping[str, Any] | None:
            seen = self._snapshots.get(reply.reference or "")
            return self._rng.choice(seen) if seen else None

        def another() -> Mapping[str, Any] | None:
            # Without names, or about the same customer, nobody can tell it from the right one.
            mine = self.records.get(reply.reference or "")
            others = [
                seen[-1]
                for name, seen in self._snapshots.items()
                if "checkout_request_id" in seen[-1]["data"]
                and mine is not None
                and self.records[name].prompt.phone != mine.prompt.phone
            ]
            return self._rng.choice(others) if others else None

        return Material(
            reply.status_code, reply.document, self._rng, self.walls.date, another, earlier
        )

    # --- How it gets there

    def _encode(self, answer: Answer, framing: str) -> bytes:
        if answer.raw is not None:
            return answer.raw
        lines = [f"HTTP/1.1 {answer.status_code} X", f"Date: {self.walls.date()}"]
        lines += [f"{name}: {value}" for name, value in answer.headers]
        body = answer.body
        if framing == "chunked":
            lines.append("Transfer-Encoding: chunked")
            middle = len(body) // 2
            pieces = [piece for piece in (body[:middle], body[middle:]) if piece]
            body = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"
        elif framing != "until closed":
            lines.append(f"Content-Length: {len(body)}")
        before = b"HTTP/1.1 100 Continue\r\n\r\n" if framing == "after 100" else b""
        return before + "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    def _send(self, exchange: Exchange, stream: Stream, data: bytes, answer: Answer) -> None:
        fate, network = exchange.fate, self._network
        exchange.ends_by_closing = answer.raw is None and fate.framing == "until closed"
        name = fate.also or fate.fault
        how = ANSWER_BREAKS.get(name, "")
        if exchange.cut is not None:  # "after all bytes of the request" is before the answer's
            how, at = "reset" if fate.share < 0.5 else "stall", 0
        else:
            at = int(fate.share * (len(data) + 1)) if how else len(data)
            if how:
                network.hit(name)
        exchange.seems_whole = exchange.ends_by_closing and b"\r\n\r\n" in data[:at]
        seconds = fate.back
        if fate.fault == "answer dripped":
            network.hit(fate.fault)
            seconds = self._drip(exchange, stream, data)
        else:
            stream.feed(data[:at], seconds, last_of=exchange if at == len(data) else None)
        if how in {"reset", "closed"}:
            stream.fail(how, seconds + 0.001)
        elif fate.hangs_up or fate.framing == "until closed" or answer.raw is not None:
            if not how:
                stream.fail("closed", seconds + 0.001)
        elif fate.fault == "idle connection closed":
            stream.close_if_idle(exchange, seconds + fate.seconds / 4)

    def _drip(self, exchange: Exchange, stream: Stream, data: bytes) -> float:
        """Send an answer in pieces, each within any timeout of a single read."""
        seconds, pause = exchange.fate.back, 0.01 + exchange.fate.seconds / 3
        cuts = sorted(self._rng.randrange(len(data)) for _ in range(5))
        for begin, end in zip([0, *cuts], cuts, strict=False):
            stream.feed(data[begin:end], seconds)
            seconds += pause
        stream.feed(data[cuts[-1] :], seconds, last_of=exchange)
        return seconds


def _parse(request: bytes) -> tuple[str, str, dict[str, str], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
    parts = urlsplit(target)
    return method, parts.path.removeprefix("/api"), dict(parse_qsl(parts.query)), body


def _stated_pause(answer: Answer, date: str) -> float:
    """What a 429 asks for, in seconds; negative if it says nothing."""
    stated = dict(answer.headers).get("Retry-After", "")
    if stated.isdigit():
        return float(stated)
    if stated:
        earlier, later = parsedate_to_datetime(date), parsedate_to_datetime(stated)
        return (later - earlier).total_seconds()
    return float(json.loads(answer.body).get("retry_after", -1.0))
