"""What every handler works with: the store, the clock, the settings, and the making of events."""

from __future__ import annotations

import random
import secrets
import string
import time
from collections.abc import Callable
from typing import Any

import msgspec

from devstack.stripe_standin.errors import no_such
from devstack.stripe_standin.settings import API_VERSION, Chaos, Settings
from devstack.stripe_standin.store import Obj, Store

_LETTERS = string.ascii_letters + string.digits


class World:
    """The account, in one place. Handlers run one at a time, each inside one transaction of the store."""

    def __init__(self, store: Store, *, base_url: str, secret_key: str) -> None:
        self.store = store
        self.base_url = base_url
        self.secret_key = secret_key
        self.settings: Settings = msgspec.convert(store.recall("settings", {}), type=Settings)
        self.chaos: Chaos = msgspec.convert(store.recall("chaos", {}), type=Chaos)
        self.dice = random.Random(self.chaos.seed)
        self.offset_s: float = store.recall("offset_s", 0.0)
        self.account_id: str = store.recall("account", "")
        # Of the request that is being served; events name it.
        self.request_id: str | None = None
        self.idempotency_key: str | None = None
        # Looks at every event that is made; set in tests.
        self.on_event: Callable[[Obj], None] = lambda event: None
        if not self.account_id:
            with store.transaction():
                self.account_id = "acct_1" + token(16)
                store.remember("account", self.account_id)

    def now(self) -> int:
        """The account's time: the system's, plus what the clock was moved by."""
        return int(time.time() + self.offset_s)

    def change_settings(self, settings: Settings) -> None:
        self.settings = settings
        self.store.remember("settings", msgspec.to_builtins(settings))

    def change_chaos(self, chaos: Chaos) -> None:
        self.chaos = chaos
        self.dice = random.Random(chaos.seed)
        self.store.remember("chaos", msgspec.to_builtins(chaos))

    def get(self, kind: str, identifier: str, *, param: str | None = None) -> Obj:
        """The object, or ApiError: 404 for an id in the path, 400 for one in the parameter `param`."""
        found = self.store.get(kind, identifier)
        if found is None:
            raise no_such(kind, identifier, param=param or "id", status=400 if param else 404)
        return found

    def put(self, obj: Obj) -> Obj:
        return self.store.put(obj)

    def emit(self, event_type: str, obj: Obj, previous: Obj | None = None) -> Obj:
        """An event about the object as it is now, and its deliveries to every endpoint that wants it."""
        data: dict[str, Any] = {"object": shown(obj)}
        if previous is not None:
            data["previous_attributes"] = previous
        endpoints = [
            endpoint
            for endpoint in self.store.find("webhook_endpoint", {"status": "enabled"})
            if "*" in endpoint["enabled_events"] or event_type in endpoint["enabled_events"]
        ]
        event = self.put(
            {
                "id": "evt_1" + token(23),
                "object": "event",
                "api_version": API_VERSION,
                "created": self.now(),
                "data": data,
                "livemode": False,
                "pending_webhooks": len(endpoints),
                "request": {"id": self.request_id, "idempotency_key": self.idempotency_key},
                "type": event_type,
            }
        )
        for endpoint in endpoints:
            self._schedule(event["id"], endpoint["id"])
        self.on_event(event)
        return event

    def _schedule(self, event_id: str, endpoint_id: str) -> None:
        """The event's deliveries to one endpoint, as chance will have it."""
        chaos, now_s = self.chaos, time.time()
        state = "held" if self.settings.hold_webhooks else "pending"
        copies = 1
        if self._happens(chaos.lose):
            state = "lost"
        elif self._happens(chaos.double):
            copies = 2
        for _ in range(copies):
            due_s = now_s
            if self._happens(chaos.delay):
                due_s += self.dice.uniform(0.0, chaos.delay_s)
            if self._happens(chaos.reorder):
                due_s += self.dice.uniform(0.05, 0.3)
            self.store.db.execute(
                "INSERT INTO deliveries (event, endpoint, due, state) VALUES (?, ?, ?, ?)",
                (event_id, endpoint_id, due_s, state),
            )

    def _happens(self, probability: float) -> bool:
        return probability > 0 and self.dice.random() < probability


def token(length: int) -> str:
    """Random letters and digits, as they end Stripe's ids."""
    return "".join(secrets.choice(_LETTERS) for _ in range(length))


def new_id(prefix: str) -> str:
    return f"{prefix}_1{token(23)}"


def shown(value: Any) -> Any:
    """The object without what is ours alone."""
    if isinstance(value, dict):
        return {key: shown(part) for key, part in value.items() if not key.startswith("_")}
    if isinstance(value, list):
        return [shown(part) for part in value]
    return value
