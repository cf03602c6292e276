"""The table of the API's endpoints."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from devstack.stripe_standin.errors import invalid
from devstack.stripe_standin.forms import Params
from devstack.stripe_standin.store import Obj
from devstack.stripe_standin.world import World


@dataclass(frozen=True, slots=True)
class Call:
    """One request to an endpoint. `ids` are the parts of the path that the template leaves open."""

    world: World
    params: Params
    ids: tuple[str, ...]
    path: str

    @property
    def id(self) -> str:
        return self.ids[0]


Handler = Callable[[Call], Obj]


@dataclass(frozen=True, slots=True)
class Route:
    """An endpoint. `scope` is what a restricted key needs, such as `charge_write`."""

    method: str
    template: str
    scope: str
    handler: Handler
    pattern: re.Pattern[str]

    @property
    def name(self) -> str:
        return f"{self.method} {self.template}"


ROUTES: list[Route] = []


def route(method: str, template: str, scope: str) -> Callable[[Handler], Handler]:
    """Registers an endpoint; {…} in the template stands for one part of the path."""

    def register(handler: Handler) -> Handler:
        pattern = re.compile(re.sub(r"\{[^}]+\}", "([^/]+)", template))
        ROUTES.append(Route(method, template, scope, handler, pattern))
        return handler

    return register


def match(method: str, path: str) -> tuple[Route, tuple[str, ...]] | None:
    for candidate in ROUTES:
        found = candidate.pattern.fullmatch(path)
        if found and candidate.method == method:
            return candidate, found.groups()
    return None


def listed(call: Call, kind: str, *filters: str, **more: Any) -> Obj:
    """A page of objects, newest first, filtered by the named parameters, `created` and what `more` says."""
    params, store = call.params, call.world.store
    limit = _limit(params)
    where = {name: value for name in filters if (value := params.text(name)) is not None}
    where |= more.pop("where", {})
    created = _range(params)
    after, before = params.text("starting_after"), params.text("ending_before")
    bounds: dict[str, Any] = {}
    for name, cursor, side in (
        ("starting_after", after, "seq_below"),
        ("ending_before", before, "seq_above"),
    ):
        if cursor is not None:
            bounds[side] = store.seq_of(kind, cursor)
            if bounds[side] is None:
                call.world.get(kind, cursor, param=name)
    found = store.find(
        kind, where, created=created, limit=limit + 1, oldest_first=before is not None, **bounds, **more
    )
    page = found[:limit]
    if before is not None:
        page.reverse()
    return {"object": "list", "data": page, "has_more": len(found) > limit, "url": call.path}


def paged(call: Call, members: list[Obj]) -> Obj:
    """A page of members that are no objects of their own, first to last."""
    params = call.params
    limit, after, before = _limit(params), params.text("starting_after"), params.text("ending_before")
    places = {member["id"]: place for place, member in enumerate(members)}
    if after is not None:
        members = members[places.get(after, len(members)) + 1 :]
    if before is not None:
        members = members[: places.get(before, 0)][-limit:]
    return {"object": "list", "data": members[:limit], "has_more": len(members) > limit, "url": call.path}


def _limit(params: Params) -> int:
    limit = params.integer("limit", 10)
    if limit is None or not 1 <= limit <= 100:
        raise invalid("limit", f"Invalid integer: limit must be between 1 and 100, is {limit}")
    return limit


def _range(params: Params) -> dict[str, int]:
    value = params.take("created")
    if value is None:
        return {}
    if isinstance(value, str):
        return {"gte": int(value), "lte": int(value)}
    reader = Params(value, "created")
    bounds = {key: bound for key in ("gt", "gte", "lt", "lte") if (bound := reader.integer(key)) is not None}
    reader.refuse_unread()
    return bounds
