"""Webhooks in the simulation: what the server sends unasked, and what life and strangers make of it.

Of each end a delivery may come: never, at once, late, twice, twenty times, before an older one, or
cut. Beside them come forged ones, old ones, some about strangers, and some that are rightly signed
and not true: nobody may act on what they say.
"""

from __future__ import annotations

import hashlib
import heapq
import hmac
import json
from typing import TYPE_CHECKING, Any, Final

from paynexus_async import (
    ClientStateError,
    WebhookPayloadError,
    WebhookSignatureError,
    parse_webhook,
)

if TYPE_CHECKING:
    from random import Random

    from .network import Network
    from .oracle import Oracle
    from .server import Server
    from .workload import Shop

__all__ = ["WEBHOOK_SECRET", "Hooks"]

WEBHOOK_SECRET: Final = "whsec_Sim7uLat3dH00kS3cr3t"  # pragma: allowlist secret
_OLD: Final = "whsec_Sim7uLat3d0ldS3cr3t"  # pragma: allowlist secret
_STRANGER: Final = "PNXSTRANGER1"
_TWENTY: Final = 20


class Hooks:
    """The way from the server to the shop's own endpoint."""

    def __init__(
        self, network: Network, server: Server, oracle: Oracle, shop: Shop, rng: Random
    ) -> None:
        self._network = network
        self._server = server
        self._oracle = oracle
        self._shop = shop
        self._rng = rng
        self.share = rng.choice((0.0, 0.0, 0.5, 0.95, 1.0))
        self._way: list[tuple[float, int, dict[str, Any], str]] = []
        self._sent = 0
        self._bell = network.runtime.bell()
        if self.share:
            server.prompted = self._prompted

    async def run(self) -> None:
        """Let everything arrive in its time, until this is cancelled."""
        while True:
            now = self._network.runtime.now()
            if self._way and self._way[0][0] <= now:
                _, _, data, kind = heapq.heappop(self._way)
                await self._arrives(data, kind)
            else:
                await self._bell.wait(self._way[0][0] - now if self._way else None)

    def _prompted(self, reference: str) -> None:
        """Send what is to be told of a prompt, from its beginning to its end."""
        rng, record = self._rng, self._server.records[reference]
        prompt = record.prompt
        data = {
            "reference": reference,
            "checkout_request_id": prompt.checkout_request_id,
            "amount": f"{prompt.amount}.00",
            "phone": prompt.phone,
        }
        for step in record.scenario.steps:
            event = {**data, "status": step.status, **step.fields}
            if rng.random() >= self.share:
                self._network.hit("webhook lost")
                continue
            seconds = step.at_seconds + rng.expovariate(1 / 0.7)
            if rng.random() < 0.1:
                self._network.hit("webhook late")
                seconds += rng.uniform(5, 60)
            copies = rng.choices((1, 2, _TWENTY), (80, 17, 3))[0]
            if copies > 1:
                self._network.hit(f"webhook sent {copies} times")
            for _ in range(copies):
                self._send(seconds, event)
                seconds += rng.uniform(0, 1)
        for kind in ("forged", "stale", "premature", "truncated", "foreign"):
            if rng.random() < 0.08:
                paid = {**data, "status": "completed"}
                self._send(rng.uniform(0, 8), paid, kind)

    def _send(self, seconds: float, data: dict[str, Any], kind: str = "") -> None:
        self._sent += 1
        at = self._network.runtime.now() + seconds
        heapq.heappush(self._way, (at, self._sent, data, kind))
        self._bell.ring()

    async def _arrives(self, data: dict[str, Any], kind: str) -> None:
        """Do what a merchant's endpoint does with a request."""
        if kind:
            self._network.hit(f"webhook {kind}")
        if kind == "foreign":
            data = {**data, "reference": _STRANGER, "checkout_request_id": None}
        body = json.dumps({"event": f"payment.{data['status']}", "data": data}).encode()
        secret = (
            "whsec_guessed" if kind == "forged" else self._rng.choice((WEBHOOK_SECRET, _OLD))
        )  # pragma: allowlist secret
        signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {"x-paynexus-signature": self._rng.choice(("", "sha256=")) + signature}
        now = self._server.walls.now()
        if kind == "stale" or self._rng.random() < 0.5:
            headers["X-PayNexus-Timestamp"] = str(int(now - 400 * (kind == "stale")))
        if kind == "truncated":
            body = body[: self._rng.randrange(len(body))]
        try:
            event = parse_webhook(body, headers, [WEBHOOK_SECRET, _OLD], now=now)
        except (WebhookSignatureError, WebhookPayloadError) as error:
            self._oracle.text(f"{error!s} {error!r}")
            if kind not in {"forged", "stale", "truncated"}:
                self._oracle.violated(12, f"a good delivery was refused: {error!r}")
            return
        if kind in {"forged", "stale", "truncated"}:
            self._oracle.violated(12, f"a {kind} delivery was accepted")
        self._oracle.text(repr(event))
        self._network.trace("webhook", event.name, event.reference, kind)
        client, number = self._shop.client, self._shop.current
        try:
            woke = await client.notify(event)
        except ClientStateError:
            return  # closed this very moment
        self._oracle.notified(number, event, woke=woke)
