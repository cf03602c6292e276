"""One hour of the fleet: read what was bought of it, and work out who pays for what."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from django.db.backends.utils import CursorWrapper

from portal.kit.ids import partition_bound
from quotas.business.allocation import (
    CostPiece,
    Reservation,
    capacity_of,
    share_deployment,
    share_pool,
    split,
)

HOUR: Final = timedelta(hours=1)
# Ids carry the clock of the gateway that made them, and a call's last attempt begins a while after it.
CLOCK_MARGIN: Final = timedelta(hours=1)
LONGEST_CALL: Final = timedelta(days=1)

_SERVED = (Path(__file__).parent / "sql" / "served.sql").read_text(encoding="utf-8")
_COSTS = """
SELECT pool_id, currency, starts, ends, catalog_pool_cost_nanos(id, extract(epoch FROM ends - starts)::int)
FROM (
  SELECT id, pool_id, currency, greatest(active_from, %(from)s) AS starts,
    least(coalesce(active_to, %(until)s), %(until)s) AS ends
  FROM models_catalog_poolcostversion
  WHERE active_from < %(until)s AND (active_to IS NULL OR active_to > greatest(active_from, %(from)s))
) v ORDER BY pool_id, starts
"""
_CAPACITIES = """
SELECT deployment_id, greatest(active_from, %(from)s), least(coalesce(active_to, %(until)s), %(until)s),
  reserved_ppm, capacity_tokens_per_s
FROM models_catalog_capacityversion
WHERE active_from < %(until)s AND (active_to IS NULL OR active_to > greatest(active_from, %(from)s))
ORDER BY deployment_id, active_from
"""
# Where a deployment stood when this hour was allocated first; otherwise where it stands now.
_PLACES = """
SELECT d.id, coalesce(h.pool_id, b.pool_id), coalesce(h.backend_id, d.backend_id),
  coalesce(h.model_id, d.model_id)
FROM models_catalog_deployment d
JOIN models_catalog_servingbackend b ON b.id = d.backend_id
LEFT JOIN quotas_deploymenthour h ON h.deployment_id = d.id AND h.hour = %(from)s
WHERE d.id = ANY (%(deployments)s)
"""
_MONEY: Final = ("revenue_nanos", "granted_nanos", "overrun_nanos")


@dataclass(slots=True)
class Bought:
    """What an organization used of a deployment in the hour. weighted: in thousandths."""

    requests: int = 0
    uncosted_requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    weighted: int = 0
    revenue_nanos: int = 0
    granted_nanos: int = 0
    overrun_nanos: int = 0
    cost_nanos: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    pool_id: UUID
    backend_id: UUID
    model_id: UUID


@dataclass(slots=True)
class Hour:
    """What is known of an hour. bought: by deployment and organization. Currencies: of pools, of tenants."""

    hour: datetime
    pool_currencies: Mapping[UUID, str]
    tenant_currencies: Mapping[UUID, str]
    costs: Mapping[UUID, Sequence[CostPiece]]
    reservations: Mapping[UUID, Sequence[Reservation]]
    places: Mapping[UUID, Place]
    bought: Mapping[UUID, dict[UUID, Bought]]


HourRows = dict[str, list[dict[str, Any]]]
"""Rows by table, parents first; ids and moments as text."""


def read_hour(cursor: CursorWrapper, *, hour: datetime, until: datetime) -> Hour:
    """Costs, capacities and calls of the hour up to `until`, a whole second at most an hour later."""
    period = {"from": hour, "until": until}
    cursor.execute(_COSTS, period)
    costs: dict[UUID, list[CostPiece]] = defaultdict(list)
    currencies: dict[UUID, str] = {}
    for pool_id, currency, start, end, cost_nanos in cursor.fetchall():
        costs[pool_id].append(CostPiece(start, end, cost_nanos))
        currencies[pool_id] = currency
    cursor.execute(_CAPACITIES, period)
    reservations: dict[UUID, list[Reservation]] = defaultdict(list)
    for row in cursor.fetchall():
        reservations[row[0]].append(Reservation(*row))
    bought = _read_bought(cursor, hour)
    cursor.execute(_PLACES, {"from": hour, "deployments": sorted({*reservations, *bought})})
    places = {row[0]: Place(*row[1:]) for row in cursor.fetchall()}
    cursor.execute(
        "SELECT id, currency FROM tenants_tenant WHERE id = ANY (%s)",
        (sorted({tenant_id for buyers in bought.values() for tenant_id in buyers}),),
    )
    tenants = dict(cursor.fetchall())
    return Hour(hour, currencies, tenants, costs, reservations, places, bought)


def _read_bought(cursor: CursorWrapper, hour: datetime) -> dict[UUID, dict[UUID, Bought]]:
    end = hour + HOUR
    # An hour is many calls, and of today's partitions the planner knows little: one by one would never end.
    cursor.execute("SET LOCAL enable_nestloop = off")
    cursor.execute(
        _SERVED,
        {
            "from": hour,
            "to": end,
            "first": partition_bound(hour - CLOCK_MARGIN),
            "last": partition_bound(end + CLOCK_MARGIN),
            "last_try": partition_bound(end + CLOCK_MARGIN + LONGEST_CALL),
        },
    )
    names = [column.name for column in cursor.description or ()]
    found = cursor.fetchall()
    cursor.execute("SET LOCAL enable_nestloop = on")
    bought: dict[UUID, dict[UUID, Bought]] = defaultdict(lambda: defaultdict(Bought))
    shared: dict[UUID, list[dict[str, Any]]] = defaultdict(list)
    for values in found:
        row = dict(zip(names, values, strict=True))
        if row["request_id"] is None:
            _add(bought, row)
        else:
            shared[row["request_id"]].append(row)
    for rows in shared.values():
        _split_money(rows)
        for row in rows:
            _add(bought, row)
    return bought


def _split_money(rows: Sequence[dict[str, Any]]) -> None:
    """Give each deployment of one call its part of the call's money; the first has all where none weighs."""
    shares = [int(row["share"]) for row in rows]
    if not any(shares):
        shares[0] = 1
    for name in _MONEY:
        for row, part in zip(rows, split(rows[0][name], shares), strict=True):
            row[name] = part


def _add(bought: dict[UUID, dict[UUID, Bought]], row: Mapping[str, Any]) -> None:
    one = bought[row["deployment_id"]][row["tenant_id"]]
    for name in Bought.__slots__:
        if name in row:
            setattr(one, name, getattr(one, name) + int(row[name]))


def allocate(known: Hour) -> HourRows:
    """Give the hour's costs to whoever used them: every pool, deployment and organization of it, in rows."""
    pools: list[dict[str, Any]] = []
    deployments: list[dict[str, Any]] = []
    facts: list[dict[str, Any]] = []
    hour = known.hour.isoformat()
    for pool_id in sorted({*known.costs, *(place.pool_id for place in known.places.values())}):
        ids = sorted(one for one, place in known.places.items() if place.pool_id == pool_id)
        pieces = known.costs.get(pool_id, ())
        shares = share_pool(pieces, [one for id_ in ids for one in known.reservations.get(id_, ())])
        currency = known.pool_currencies.get(pool_id, "")
        pools.append(
            {
                "hour": hour,
                "pool_id": str(pool_id),
                "currency": currency,
                "cost_nanos": sum(piece.cost_nanos for piece in pieces),
                "unreserved_nanos": shares.unreserved_nanos,
            }
        )
        for id_ in ids:
            row, own = _allocate_deployment(
                known, id_, shares.by_deployment.get(id_, 0), has_cost=currency != ""
            )
            deployments.append({"hour": hour, **row})
            facts += [{"hour": hour, **one} for one in own]
    return {"quotas_poolhour": pools, "quotas_deploymenthour": deployments, "quotas_businesshour": facts}


def _allocate_deployment(
    known: Hour, id_: UUID, cost_nanos: int, *, has_cost: bool
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    place, bought = known.places[id_], known.bought.get(id_, {})
    tenants = sorted(bought)
    capacity = capacity_of(known.reservations.get(id_, ()))
    weighted = [bought[tenant_id].weighted for tenant_id in tenants]
    parts, idle_nanos = share_deployment(cost_nanos, capacity, weighted)
    facts = []
    for tenant_id, part in zip(tenants, parts, strict=True):
        one = replace(bought[tenant_id], cost_nanos=part)
        if not has_cost:
            one.uncosted_requests = one.requests
        facts.append(
            {
                "deployment_id": str(id_),
                "tenant_id": str(tenant_id),
                "currency": known.tenant_currencies[tenant_id],
                **asdict(one),
            }
        )
    row = {
        "deployment_id": str(id_),
        "pool_id": str(place.pool_id),
        "backend_id": str(place.backend_id),
        "model_id": str(place.model_id),
        "capacity": capacity,
        "weighted": sum(weighted),
        "cost_nanos": cost_nanos,
        "idle_nanos": idle_nanos,
    }
    return row, facts
