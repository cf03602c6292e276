"""Delivers events: signed as Stripe signs, again and again until they are acknowledged."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import random
import time
from typing import TYPE_CHECKING, Any

from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.world import World, shown

_IDLE_S = 0.02
_LONGEST_RETRY_S = 60.0
_TIMEOUT_S = 20.0
_AT_ONCE = 16

if TYPE_CHECKING:
    import aiohttp

Delivery = tuple[int, str, str, int]


def signature(payload: bytes, secrets: list[str], timestamp: int) -> str:
    """The Stripe-Signature header: one v1 part for each secret."""
    signed = f"{timestamp}.".encode() + payload
    parts = [f"v1={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}" for secret in secrets]
    return ",".join([f"t={timestamp}", *parts])


class Courier:
    """A background task; deliveries by command use the same way."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._session: aiohttp.ClientSession | None = None
        self._under_way: set[int] = set()

    async def run(self) -> None:
        """Delivers what is due until it is cancelled."""
        tasks: set[asyncio.Task[int | str]] = set()
        try:
            while True:
                for delivery in self._due(time.time(), limit=_AT_ONCE - len(tasks)):
                    task = asyncio.create_task(self.deliver(delivery))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                await asyncio.sleep(_IDLE_S)
        finally:
            for task in tasks:
                task.cancel()
            if self._session is not None:
                await self._session.close()

    def _due(self, now_s: float, *, limit: int) -> list[Delivery]:
        rows = self._world.store.db.execute(
            "SELECT id, event, endpoint, attempts FROM deliveries WHERE state = 'pending' AND due <= ? "
            "ORDER BY due, id LIMIT ?",
            (now_s, limit + len(self._under_way)),
        )
        return [row for row in rows if row[0] not in self._under_way][: max(0, limit)]

    def waiting(self) -> int:
        """Deliveries that were not acknowledged, and are neither lost nor held."""
        row = self._world.store.db.execute("SELECT count(*) FROM deliveries WHERE state = 'pending'")
        return int(row.fetchone()[0])

    async def deliver(self, delivery: Delivery) -> int | str:
        """One attempt; the status that came back, or why none did. Books it, and when the next one is due."""
        identifier, event_id, endpoint_id, attempts = delivery
        self._under_way.add(identifier)
        try:
            event = self._world.get("event", event_id)
            endpoint = self._world.get("webhook_endpoint", endpoint_id)
            answer = await self.post(event, endpoint)
        finally:
            self._under_way.discard(identifier)
        delivered = isinstance(answer, int) and 200 <= answer < 300
        wait_s = min(self._world.settings.retry_s * 2.0 ** min(attempts, 20), _LONGEST_RETRY_S)
        self._world.store.db.execute(
            "UPDATE deliveries SET attempts = attempts + 1, answer = ?, state = ?, due = ? WHERE id = ?",
            (str(answer), "delivered" if delivered else "pending", time.time() + wait_s, identifier),
        )
        return answer

    async def post(self, event: Obj, endpoint: Obj, *, timestamp: int | None = None) -> int | str:
        """Posts the event, signed with the endpoint's secrets. Real time: receivers compare with theirs."""
        # Takes as long to import as all the rest, and many stand-ins never deliver anything.
        import aiohttp

        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
            self._session = aiohttp.ClientSession(timeout=timeout, trust_env=False)
        payload = json.dumps(shown(event), indent=2).encode()
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "Stripe/1.0 (stand-in)",
            "Stripe-Signature": signature(payload, endpoint["_secrets"], timestamp or int(time.time())),
        }
        try:
            async with self._session.post(
                endpoint["url"], data=payload, headers=headers, allow_redirects=False
            ) as response:
                await response.read()
                return response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as failed:
            return f"{type(failed).__name__}: {failed}"

    async def deliver_now(
        self, *, events: list[str] | None, include_lost: bool, times: int, shuffle: int | None
    ) -> list[dict[str, Any]]:
        """Attempts what was not acknowledged (or just these events), one after the other, and reports."""
        states = ["pending", "held"] + (["lost"] if include_lost or events else [])
        rows: list[Delivery] = self._world.store.db.execute(
            "SELECT id, event, endpoint, attempts FROM deliveries "
            "WHERE state IN (SELECT value FROM json_each(?)) ORDER BY id",
            (json.dumps(states),),
        ).fetchall()
        if events is not None:
            wanted = {event: place for place, event in enumerate(events)}
            done = self._world.store.db.execute(
                "SELECT id, event, endpoint, attempts FROM deliveries WHERE state = 'delivered' ORDER BY id"
            ).fetchall()
            rows = sorted((row for row in [*rows, *done] if row[1] in wanted), key=lambda row: wanted[row[1]])
        if shuffle is not None:
            random.Random(shuffle).shuffle(rows)
        report = []
        for row in rows:
            if row[0] in self._under_way:
                continue
            for _ in range(times):
                report.append({"event": row[1], "answer": await self.deliver(row)})
        return report
