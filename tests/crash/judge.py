"""Holds what was told, and what is stored, against the ledger."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

import attrs

from paynexus_async.durable._orders import prompt_id
from paynexus_async.phone import normalize_phone

from .shop import KEY_PREFIX, NAME, Order, Shop, orders_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from paynexus_async.sandbox import Ledger, Prompt

    from .rows import Database

__all__ = ["Verdict", "judge"]

_SHOWN_MAX: Final = 5
_SECRETS: Final = re.compile(
    rb"(?<![0-9])(?:254|0)722[0-9]{6}(?![0-9])|ws_CO_[0-9]{20}|" + KEY_PREFIX.encode()
)
_FAILED: Final = frozenset({"cancelled", "failed", "expired"})
_NO_PROMPT: Final = frozenset({"never_sent", "rejected"})


@attrs.define
class Verdict:
    """What was found: counts for people, and violations, by the promise that they break."""

    counts: dict[str, int] = attrs.field(factory=dict)
    broken: dict[str, list[str]] = attrs.field(factory=dict)

    def hold(self, promise: str, violations: Iterable[str]) -> None:
        self.broken.setdefault(promise, []).extend(violations)

    @property
    def violations(self) -> int:
        return sum(map(len, self.broken.values()))

    def lines(self) -> Iterator[str]:
        for name, count in self.counts.items():
            yield f"  {name:<62}{count:>8,}"
        for promise, violations in self.broken.items():
            yield f"  {promise:<62}{len(violations):>8,}"
            for violation in violations[:_SHOWN_MAX]:
                yield f"      {violation}"


@attrs.frozen
class _Effect:
    order_id: str
    attempt: int
    revision: int
    state: str
    reference: str | None
    life: int


def judge(
    shop: Shop, ledger: Ledger, engine: Database, merchant: Database, folder: Path
) -> Verdict:
    """Judge a run that has come to rest."""
    verdict = Verdict()
    orders = orders_of(shop.orders, shop.seed)
    rows = merchant.ask(
        "SELECT order_id, attempt, revision, state, reference, life FROM effects ORDER BY at"
    )
    effects = [_Effect(*row) for row in rows]  # type: ignore[arg-type]
    prompts: dict[str, list[Prompt]] = defaultdict(list)
    for prompt in ledger.prompts:
        prompts[prompt.phone].append(prompt)
    _judge_prompts(verdict, orders, prompts, engine)
    _judge_ends(verdict, orders, prompts, effects, ledger)
    _judge_effects(verdict, shop, effects)
    verdict.hold("phones or keys in a row or a file of the engine", _leaks(engine))
    errors = folder / "errors"
    told = [json.loads(line) for line in errors.read_text().splitlines()] if errors.exists() else []
    verdict.hold("errors that nobody expects", (f"worker {e[0]}: {e[2:]}" for e in told))
    return verdict


def _judge_prompts(
    verdict: Verdict, orders: list[Order], prompts: dict[str, list[Prompt]], engine: Database
) -> None:
    rows = engine.ask(
        f"SELECT workflow_uuid FROM {engine.schema}workflow_status WHERE name = ?", f"{NAME}.prompt"
    )
    ids = {str(name) for (name,) in rows}
    by_phone = {normalize_phone(order.phone): order for order in orders}
    verdict.counts["prompts in the ledger"] = sum(map(len, prompts.values()))
    verdict.hold(
        "prompts without an order in the engine's database",
        (
            f"{prompt.reference}: {prompt.description}"
            for phone, sent in prompts.items()
            for prompt in sent
            if phone not in by_phone or prompt_id(NAME, by_phone[phone].order_id, 1) not in ids
        ),
    )
    verdict.hold(
        "orders with more than one prompt",
        (
            f"{by_phone[phone].order_id}: {[p.reference for p in sent]}"
            for phone, sent in prompts.items()
            if len(sent) > 1
        ),
    )


def _judge_ends(
    verdict: Verdict,
    orders: list[Order],
    prompts: dict[str, list[Prompt]],
    effects: list[_Effect],
    ledger: Ledger,
) -> None:
    last: dict[str, _Effect] = {}
    for effect in effects:
        before = last.get(effect.order_id)
        if before is None or effect.revision >= before.revision:
            last[effect.order_id] = effect
    verdict.counts |= {
        f"orders told {state}": count
        for state, count in Counter(e.state for e in last.values()).most_common()
    }
    verdict.counts["of those told unknown, with a prompt"] = sum(
        bool(prompts.get(normalize_phone(o.phone)))
        for o in orders
        if o.order_id in last and last[o.order_id].state == "unknown"
    )
    verdict.counts["orders told of more than once (revisions)"] = len(
        {e.order_id for e in effects if e.revision}
    )
    verdict.hold(
        "orders without an outcome", (o.order_id for o in orders if o.order_id not in last)
    )
    completed, missed, failed, sent = [], [], [], []
    for order in orders:
        told = last.get(order.order_id)
        if told is None:
            continue
        truths = [ledger.status(p.reference) for p in prompts.get(normalize_phone(order.phone), [])]
        what = f"{order.order_id} ({order.scenario}) told {told.state}, is {truths}"
        if told.state == "completed" and "completed" not in truths:
            completed.append(what)
        if told.state not in {"completed", "unknown"} and "completed" in truths:
            missed.append(what)
        if told.state in _FAILED and told.state not in truths and "completed" not in truths:
            failed.append(what)
        if told.state in _NO_PROMPT and truths:
            sent.append(what)
    verdict.hold("orders told completed that are not", completed)
    verdict.hold("orders completed that are told otherwise", missed)
    verdict.hold("orders told another end than they have", failed)
    verdict.hold("orders told never sent, or rejected, with a prompt", sent)


def _judge_effects(verdict: Verdict, shop: Shop, effects: list[_Effect]) -> None:
    times = Counter((e.order_id, e.attempt, e.revision) for e in effects)
    revisions: dict[tuple[str, int], set[int]] = defaultdict(set)
    for order_id, attempt, revision in times:
        revisions[order_id, attempt].add(revision)
    verdict.counts["effects of the handler"] = len(effects)
    verdict.counts["of those, for an order and revision that had one"] = len(effects) - len(times)
    if shop.is_transactional:
        verdict.hold(
            "effects more than once",
            (f"{key}: {count} times" for key, count in times.items() if count > 1),
        )
    verdict.hold(
        "revisions that were left out",
        (f"{key}: {sorted(s)}" for key, s in revisions.items() if s != set(range(len(s)))),
    )


def _leaks(engine: Database) -> Iterator[str]:
    for table in engine.tables():
        for row in engine.ask(f"SELECT * FROM {table}"):
            if around := _secret_in(repr(row).encode()):
                yield f"table {table}: {around!r}"
    for path in engine.files():
        if around := _secret_in(path.read_bytes()):
            yield f"file {path.name}: {around!r}"


def _secret_in(content: bytes) -> bytes | None:
    """Return the first phone or key in it, with what stands around it."""
    found = _SECRETS.search(content)
    return content[max(found.start() - 40, 0) : found.end() + 40] if found else None
