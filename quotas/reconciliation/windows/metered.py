"""What attempts between samples used, and which were under way at each: one statement for all backends."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from django.db import connections

from portal.kit.ids import partition_bound
from quotas.reconciliation.windows.cutting import Sample, hides_cached
from tenants.scope import scope_alias

_SQL = Path(__file__).parent.parent / "sql"
_ATTEMPTS: Final = (_SQL / "window_attempts.sql").read_text(encoding="utf-8")
_CACHED: Final = (_SQL / "cached.sql").read_text(encoding="utf-8")
# Ids carry the clock of the gateway that made them, and a call's attempts begin a little after it.
CLOCK_MARGIN: Final = timedelta(hours=1)


class What(StrEnum):
    """Who accounts for tokens of a counter. Only those of matched attempts are not in need of explanation."""

    MATCHED = "MATCHED"
    MISMATCHED = "MISMATCHED"  # as the backend's record says, which is not what the gateway metered
    GATEWAY_ONLY = "GATEWAY_ONLY"  # the backend's feed has no record
    FOREIGN_RECORD = "FOREIGN_RECORD"  # a record that names none of our attempts: in suspense by itself
    CLIENT_GONE = "CLIENT_GONE"
    CUT = "CUT"
    TIMEOUT = "TIMEOUT"
    FAILED = "FAILED"
    LOST = "LOST"
    NO_FINAL_USAGE = "NO_FINAL_USAGE"
    CACHED_UNKNOWN = "CACHED_UNKNOWN"
    IN_FLIGHT = "IN_FLIGHT"  # more, or less, under way at the end than at the beginning
    NOTHING = "NOTHING"  # reached no backend


@dataclass(slots=True)
class Amounts:
    """Attempts of one kind, their tokens (prompt, completion), and the bounds around them."""

    attempts: int = 0
    tokens: tuple[int, int] = (0, 0)
    more: tuple[int, int] = (0, 0)
    less: tuple[int, int] = (0, 0)

    def add(self, other: Amounts) -> None:
        self.attempts += other.attempts
        self.tokens = _sum(self.tokens, other.tokens)
        self.more = _sum(self.more, other.more)
        self.less = _sum(self.less, other.less)


@dataclass(slots=True)
class Metered:
    """Of one backend's samples by their place: what ended up to each since the one before, and its edge."""

    ended: dict[int, dict[What, Amounts]] = field(default_factory=lambda: defaultdict(dict))
    edges: dict[int, Amounts] = field(default_factory=dict)


def metered(
    lines: Mapping[UUID, Sequence[Sample]], *, with_feed: Collection[UUID], call_timeout: timedelta
) -> dict[UUID, Metered]:
    """What belongs to the samples of each backend, which are in their order. In a transaction of the open
    scope."""
    places = [(backend_id, place) for backend_id, samples in lines.items() for place in range(len(samples))]
    if not places:
        return {}
    parameters = _parameters(lines, places, with_feed, call_timeout)
    found = {backend_id: Metered() for backend_id in lines}
    with connections[scope_alias()].cursor() as cursor:
        # Of a day that has just begun the planner knows nothing, and would look at every pair of rows.
        cursor.execute("SET LOCAL enable_nestloop = off")
        cursor.execute(_ATTEMPTS, parameters)
        rows = cursor.fetchall()
        cursor.execute("SET LOCAL enable_nestloop = on")
        for number, what, attempts, *tokens in rows:
            backend_id, place = places[number]
            amounts = Amounts(attempts, *((tokens[at], tokens[at + 1]) for at in (0, 2, 4)))
            if what == "EDGE":
                found[backend_id].edges[place] = amounts
            else:
                found[backend_id].ended[place][What(what)] = amounts
        _hide_cached(cursor, lines, places, parameters, found)
    return found


def _parameters(
    lines: Mapping[UUID, Sequence[Sample]],
    places: Sequence[tuple[UUID, int]],
    with_feed: Collection[UUID],
    call_timeout: timedelta,
) -> dict[str, Any]:
    rows = [
        {
            "n": number,
            "backend_id": str(backend_id),
            "asked": lines[backend_id][place].asked_at.isoformat(),
            "read": lines[backend_id][place].read_at.isoformat(),
            "is_busy": lines[backend_id][place].is_busy,
            "has_feed": backend_id in with_feed,
        }
        for number, (backend_id, place) in enumerate(places)
    ]
    moments = [sample.read_at for samples in lines.values() for sample in samples]
    return {
        "samples": json.dumps(rows),
        "first": partition_bound(min(moments) - call_timeout - CLOCK_MARGIN),
        "last": partition_bound(max(moments) + CLOCK_MARGIN),
    }


def _hide_cached(
    cursor: Any,
    lines: Mapping[UUID, Sequence[Sample]],
    places: Sequence[tuple[UUID, int]],
    parameters: Mapping[str, Any],
    found: Mapping[UUID, Metered],
) -> None:
    """Of engines that count prompts without the cached tokens and do not say how many those were."""
    hiding = [
        {
            "key": number,
            "backend_id": str(backend_id),
            "from_asked": lines[backend_id][place - 1].asked_at.isoformat(),
            "to_asked": lines[backend_id][place].asked_at.isoformat(),
        }
        for number, (backend_id, place) in enumerate(places)
        if place and hides_cached(lines[backend_id][place - 1], lines[backend_id][place])
    ]
    if not hiding:
        return
    cursor.execute(_CACHED, {**parameters, "segments": json.dumps(hiding)})
    for number, cached, attempts, prompt in cursor.fetchall():
        backend_id, place = places[number]
        found[backend_id].ended[place][What.CACHED_UNKNOWN] = Amounts(
            attempts, tokens=(-cached, 0), less=(prompt, 0)
        )


def _sum(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return one[0] + other[0], one[1] + other[1]
