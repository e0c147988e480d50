"""The shop whose workers are killed: its orders, its own table of what it was told, its secrets."""

from __future__ import annotations

import json
import random
from typing import Final

import attrs

__all__ = [
    "DURABLE_SECRET",
    "KEY_PREFIX",
    "NAME",
    "SPEED",
    "Life",
    "Order",
    "Shop",
    "key_of",
    "orders_of",
]

NAME: Final = "crash"
"""Of the workflows and their queue."""
KEY_PREFIX: Final = "sk_sandbox_0123456789_crash_"
DURABLE_SECRET: Final = "a secret of thirty-two characters"
SPEED: Final = 20.0
"""How much faster than life payments go: a minute's prompt is over in three seconds."""

_AMOUNTS: Final = {  # as the sandbox's magic numbers have it: the amount asks for the customer
    "instant": 31,
    "slow": 32,
    "cancelled": 33,
    "wrong-pin": 34,
    "insufficient": 35,
    "expired": 36,
    "stuck": 37,
    "late": 38,
    "undocumented": 39,
    "stale": 40,
}
_ORDINARY_AMOUNT: Final = 100
_WEIGHTS: Final = {
    "paid": 45,
    "instant": 6,
    "slow": 8,
    "cancelled": 8,
    "wrong-pin": 6,
    "insufficient": 3,
    "expired": 8,
    "stuck": 2,
    "late": 7,
    "undocumented": 4,
    "stale": 3,
}


@attrs.frozen
class Order:
    """One order, and what its customer does."""

    number: int
    scenario: str

    @property
    def order_id(self) -> str:
        return f"order-{self.number}"

    @property
    def amount(self) -> int:
        return _AMOUNTS.get(self.scenario, _ORDINARY_AMOUNT)

    @property
    def phone(self) -> str:
        return f"0722{self.number:06}"


def orders_of(count: int, seed: int) -> list[Order]:
    dice = random.Random(f"orders {seed}")
    names, weights = list(_WEIGHTS), list(_WEIGHTS.values())
    return [Order(n, dice.choices(names, weights)[0]) for n in range(count)]


def key_of(worker: int) -> str:
    """Return a worker's API key: by it the ledger knows whom to kill."""
    return f"{KEY_PREFIX}{worker}"


@attrs.frozen(kw_only=True)
class Shop:
    """What all lives of all workers share.

    Attributes:
        folder: of the run's own files.
        engine_url: of the engine's database.
        merchant_url: of the merchant's, for SQLAlchemy's asyncio.
        base_url: of the sandbox.
        orders: how many there will be.
        workers: how many share the database.
        seed: of the orders.
        is_transactional: whether the handler writes in a transaction with our row.
        watch_seconds: how long what has no end, or an end without money, is looked at.
        defect: the name of the defect that is planted; empty for none.
    """

    folder: str
    engine_url: str
    merchant_url: str
    base_url: str
    orders: int
    workers: int
    seed: int
    is_transactional: bool
    watch_seconds: float
    defect: str = ""


@attrs.frozen(kw_only=True)
class Life:
    """One life of one worker.

    Attributes:
        worker: which one.
        number: of the life, among all.
        aim: where it shall kill itself: `handler`, `committed`, or nowhere.
        is_last: whether it shall have everything done that still waits, and end when it is told to.
    """

    worker: int
    number: int
    aim: str = ""
    is_last: bool = False


def written(shop: Shop, life: Life) -> str:
    return json.dumps([attrs.asdict(shop), attrs.asdict(life)])


def read(line: str) -> tuple[Shop, Life]:
    shop, life = json.loads(line)
    return Shop(**shop), Life(**life)
