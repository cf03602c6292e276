"""The control API below /_standin/: JSON in, JSON out, on loopback. `docs/stripe_standin.md` lists it.

A POST has to say that it is JSON, so that no page in a browser can send one by the way.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from typing import Any

import msgspec

from devstack.stripe_standin import commands
from devstack.stripe_standin.api import Request
from devstack.stripe_standin.books import read_books
from devstack.stripe_standin.clockwork import pass_time
from devstack.stripe_standin.errors import ApiError
from devstack.stripe_standin.faults import Faults
from devstack.stripe_standin.keys import make_restricted
from devstack.stripe_standin.settings import Chaos, changed
from devstack.stripe_standin.webhooks import Courier
from devstack.stripe_standin.world import World, token

Body = dict[str, Any]
Answer = tuple[int, Any]


class Control:
    """Each command is one transaction; commands that deliver are not, deliveries are booked one by one."""

    def __init__(self, world: World, faults: Faults, courier: Courier, validator: Any) -> None:
        self._world = world
        self._faults = faults
        self._courier = courier
        self._validator = validator
        self._own: dict[str, Callable[[Body], Any]] = {
            "GET /_standin/health": lambda body: {"ok": True},
            "GET /_standin/books": lambda body: read_books(world),
            "GET /_standin/settings": lambda body: msgspec.to_builtins(world.settings),
            "POST /_standin/settings": self._set_settings,
            "GET /_standin/chaos": lambda body: msgspec.to_builtins(world.chaos),
            "POST /_standin/chaos": self._set_chaos,
            "POST /_standin/faults": self._plan_faults,
            "GET /_standin/clock": lambda body: {"now": world.now(), "offset_s": world.offset_s},
            "POST /_standin/clock": self._move_clock,
            "POST /_standin/keys": lambda body: {"key": make_restricted(world, body["scopes"])},
            "GET /_standin/violations": self._violations,
            "POST /_standin/violations/clear": self._clear_violations,
            "GET /_standin/coverage": self._coverage,
            "POST /_standin/rotate_secret": self._rotate,
            "POST /_standin/drop_old_secrets": self._drop_old_secrets,
        }
        self._delivering = {
            "POST /_standin/deliver": self._deliver,
            "POST /_standin/drain": self._drain,
            "POST /_standin/post_event": self._post_event,
        }

    def pass_time(self) -> None:
        with self._world.store.transaction():
            pass_time(self._world)

    async def serve(self, request: Request) -> Answer:
        name = f"{request.method} {request.path}"
        if request.method == "POST" and "json" not in request.headers.get("content-type", ""):
            return 415, {"error": "send application/json"}
        try:
            body: Body = json.loads(request.body) if request.body else {}
            if name in self._delivering:
                return 200, await self._delivering[name](body)
            with self._world.store.transaction():
                return 200, self._run(name, body)
        except LookupError as unknown:
            return 400, {"error": f"missing or unknown: {unknown}"}
        except ApiError as refused:
            return 400, refused.body
        except (ValueError, TypeError, msgspec.ValidationError) as wrong:
            return 400, {"error": str(wrong)}

    def _run(self, name: str, body: Body) -> Any:
        if name in self._own:
            return self._own[name](body)
        command = commands.COMMANDS.get(name.removeprefix("POST /_standin/"))
        if command is None:
            raise LookupError(name)
        known = set(inspect.signature(command).parameters) - {"world"}
        if not set(body) <= known:
            raise ValueError(f"unknown: {sorted(set(body) - known)}; there are {sorted(known)}")
        return command(self._world, **body)

    def _set_settings(self, body: Body) -> Any:
        self._world.change_settings(changed(self._world.settings, body))
        return msgspec.to_builtins(self._world.settings)

    def _set_chaos(self, body: Body) -> Any:
        """Replaces all of it: what is left out is off."""
        self._world.change_chaos(msgspec.convert(body, type=Chaos))
        return msgspec.to_builtins(self._world.chaos)

    def _plan_faults(self, body: Body) -> Any:
        if body.get("clear"):
            self._faults.clear()
        if "fault" in body:
            self._faults.plan(body.get("match", "."), body["fault"], int(body.get("times", 1)))
        return {}

    def _move_clock(self, body: Body) -> Any:
        """Forward only, by seconds or to a time."""
        by_s = float(body["by_s"]) if "by_s" in body else float(body["to"]) - self._world.now()
        if by_s < 0:
            raise ValueError("the clock moves forward only")
        self._world.offset_s += by_s
        self._world.store.remember("offset_s", self._world.offset_s)
        pass_time(self._world)
        return {"now": self._world.now(), "offset_s": self._world.offset_s}

    def _violations(self, body: Body) -> Any:
        rows = self._world.store.db.execute("SELECT request, route, what FROM violations ORDER BY id")
        return [{"request": row[0], "route": row[1], "what": row[2]} for row in rows]

    def _clear_violations(self, body: Body) -> Any:
        """Forgets requests that were wrong on purpose: nothing counts them as right, either."""
        db = self._world.store.db
        db.execute("DELETE FROM requests WHERE id IN (SELECT request FROM violations)")
        db.execute("DELETE FROM violations")
        return {}

    def _coverage(self, body: Body) -> Any:
        """How many requests each endpoint has had."""
        rows = self._world.store.db.execute(
            "SELECT route, count(*) FROM requests WHERE route IS NOT NULL GROUP BY 1 ORDER BY 1"
        )
        return {"validated": self._validator is not None, "endpoints": dict(rows.fetchall())}

    def _rotate(self, body: Body) -> Any:
        """A new secret in front of the old one; both sign until the old ones are dropped."""
        secret = body.get("secret") or "whsec_" + token(32)
        for endpoint in self._world.store.find("webhook_endpoint"):
            self._world.put(endpoint | {"_secrets": [secret, *endpoint["_secrets"]]})
        return {"secret": secret}

    def _drop_old_secrets(self, body: Body) -> Any:
        for endpoint in self._world.store.find("webhook_endpoint"):
            self._world.put(endpoint | {"_secrets": endpoint["_secrets"][:1]})
        return {}

    async def _deliver(self, body: Body) -> Any:
        return await self._courier.deliver_now(
            events=body.get("events"),
            include_lost=bool(body.get("include_lost", False)),
            times=int(body.get("times", 1)),
            shuffle=body.get("shuffle"),
        )

    async def _drain(self, body: Body) -> Any:
        """Waits until nothing is waiting to be delivered; tells how much still is after the time."""
        left_s = float(body.get("timeout_s", 10.0))
        while self._courier.waiting() and left_s > 0:
            await asyncio.sleep(0.02)
            left_s -= 0.02
        return {"waiting": self._courier.waiting()}

    async def _post_event(self, body: Body) -> Any:
        """An event that never happened, or one changed on the way, signed as told: what a forger sends."""
        endpoint = self._world.store.find("webhook_endpoint", limit=1)[0]
        if "secrets" in body:
            endpoint = endpoint | {"_secrets": body["secrets"]}
        event = body["event"]
        if isinstance(event, str):
            event = self._world.get("event", event)
        answer = await self._courier.post(event, endpoint, timestamp=body.get("timestamp"))
        return {"answer": answer}
