"""Reads of the business figures. They run in a scope that sees all organizations: the operator's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import reduce
from operator import add
from typing import Any, Final, Literal
from uuid import UUID

from django.db import connections

from models_catalog.models import (
    CapacityVersion,
    CatalogModel,
    PoolCostVersion,
    ServingBackend,
    ServingPool,
)
from quotas.business.figures import (
    BusinessLine,
    BusinessReport,
    BusinessSlot,
    Capacity,
    Foreign,
    GroupBy,
    Sums,
    Totals,
    Unreserved,
)
from tenants.models import Tenant
from tenants.scope import scope_alias

MAX_LINES: Final = 500
Bucket = Literal["hour", "day", "month"]

_KEYS: Final[Mapping[GroupBy, str]] = {
    "model": "d.model_id",
    "tenant": "b.tenant_id",
    "pool": "d.pool_id",
    "backend": "d.backend_id",
}
_FACTS = """
FROM quotas_businesshour b
JOIN quotas_deploymenthour d ON d.hour = b.hour AND d.deployment_id = b.deployment_id
JOIN quotas_poolhour p ON p.hour = d.hour AND p.pool_id = d.pool_id
WHERE b.hour >= %(from)s AND b.hour < %(to)s
"""
_CAPACITIES = """
FROM quotas_deploymenthour d JOIN quotas_poolhour p ON p.hour = d.hour AND p.pool_id = d.pool_id
WHERE d.hour >= %(from)s AND d.hour < %(to)s AND p.currency = %(currency)s
"""
_SUMMED: Final = (
    "requests",
    "uncosted_requests",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "weighted",
    "revenue_nanos",
    "granted_nanos",
    "overrun_nanos",
    "cost_nanos",
)
_POOLS = """
SELECT p.pool_id, sum(p.cost_nanos), sum(p.unreserved_nanos) FROM quotas_poolhour p
WHERE p.hour >= %(from)s AND p.hour < %(to)s AND p.currency = %(currency)s GROUP BY p.pool_id
"""
_STARTS = """
SELECT generate_series(date_trunc(%(bucket)s, %(from)s, 'UTC'), %(to)s - interval '1 second',
  ('1 ' || %(bucket)s)::interval)
"""
_SLOT_SUMS = {
    "revenue": """
    SELECT date_trunc(%(bucket)s, b.hour, 'UTC'), sum(b.revenue_nanos) FROM quotas_businesshour b
    WHERE b.hour >= %(from)s AND b.hour < %(to)s AND b.currency = %(currency)s GROUP BY 1
    """,
    "sold": f"""
    SELECT date_trunc(%(bucket)s, d.hour, 'UTC'), sum(d.cost_nanos - d.idle_nanos) {_CAPACITIES} GROUP BY 1
    """,
    "idle": f"SELECT date_trunc(%(bucket)s, d.hour, 'UTC'), sum(d.idle_nanos) {_CAPACITIES} GROUP BY 1",
    "unreserved": """
    SELECT date_trunc(%(bucket)s, p.hour, 'UTC'), sum(p.unreserved_nanos) FROM quotas_poolhour p
    WHERE p.hour >= %(from)s AND p.hour < %(to)s AND p.currency = %(currency)s GROUP BY 1
    """,
}
# Expenses are negative entries of the house's own accounts.
_EXPENSES = """
SELECT t.tenant_id, -coalesce(sum(e.amount_nanos) FILTER (WHERE a.kind = 'GOODWILL'), 0),
  -coalesce(sum(e.amount_nanos) FILTER (WHERE a.kind = 'PAYMENT_FEES'), 0)
FROM quotas_ledgertransfer t
JOIN quotas_ledgerentry e ON e.transfer_id = t.id
JOIN quotas_ledgeraccount a ON a.id = e.account_id
WHERE t.kind <> 'USAGE' AND t.posted_at >= %(from)s AND t.posted_at < %(to)s AND t.currency = %(currency)s
  AND a.tenant_id IS NULL AND a.kind IN ('GOODWILL', 'PAYMENT_FEES')
GROUP BY t.tenant_id
"""
_CURRENCIES = """
SELECT currency FROM quotas_businesshour WHERE hour >= %(from)s AND hour < %(to)s
UNION SELECT currency FROM quotas_poolhour WHERE hour >= %(from)s AND hour < %(to)s AND currency <> ''
ORDER BY 1
"""
_STATE = """
SELECT min(a.hour) FILTER (WHERE NOT a.is_final),
  (SELECT count(*) FROM generate_series(
     greatest(%(from)s, (SELECT min(hour) FROM quotas_allocatedhour)),
     least(%(to)s, (SELECT max(hour) FROM quotas_allocatedhour) + interval '1 hour') - interval '1 second',
     interval '1 hour') AS h(hour)
   WHERE NOT EXISTS (SELECT 1 FROM quotas_allocatedhour k WHERE k.hour = h.hour))
FROM quotas_allocatedhour a WHERE a.hour >= %(from)s AND a.hour < %(to)s
"""


@dataclass(frozen=True, slots=True)
class SetUp:
    """What there is to count with."""

    has_costs: bool
    has_capacities: bool


def set_up() -> SetUp:
    """Whether any pool has a cost, and any deployment a capacity."""
    return SetUp(PoolCostVersion.objects.exists(), CapacityVersion.objects.exists())


def business_report(*, from_: datetime, to: datetime, group_by: GroupBy, currency: str) -> BusinessReport:
    """What was used, earned and spent in the hours that begin in the half-open period.

    A line is in the report when it earned or cost something in this currency. Calls that earned in one and
    cost in another currency are in both reports, each with its side, and take the margin from their line.
    At most MAX_LINES lines; the rest is one line without a key. Errors: ValueError for an unknown group.
    """
    if group_by not in _KEYS:
        raise ValueError(f"figures are not grouped by {group_by!r}")
    period = {"from": from_, "to": to, "currency": currency}
    sums, foreign = _sums(group_by, period)
    capacities = _capacities(group_by, period)
    pools = _rows(_POOLS, period)
    spent = expenses(from_=from_, to=to, currency=currency)
    keys = {*sums, *capacities, *(spent if group_by == "tenant" else ())} - {None}
    names = _names(group_by, keys)
    lines = [
        _line(key, names[key], group_by, sums.get(key, Sums()), foreign[key], capacities.get(key), spent)
        for key in keys
    ]
    codes = _names("pool", {row[0] for row in pools})
    (provisional_from, missing_hours) = _rows(_STATE, period)[0]
    return BusinessReport(
        group_by=group_by,
        currency=currency,
        from_at=from_,
        to_at=to,
        lines=_shown(lines),
        unreserved=tuple(
            Unreserved(row[0], codes[row[0]], int(row[2]))
            for row in sorted(pools, key=lambda row: codes[row[0]])
            if row[2]
        ),
        totals=Totals(
            sums=reduce(add, sums.values(), Sums()),
            foreign=_joined(one for many in foreign.values() for one in many),
            idle_nanos=sum(one.idle_nanos for one in capacities.values()),
            unreserved_nanos=sum(int(row[2]) for row in pools),
            pool_cost_nanos=sum(int(row[1]) for row in pools),
            goodwill_nanos=sum(goodwill for goodwill, _ in spent.values()),
            fees_nanos=sum(fees for _, fees in spent.values()),
        ),
        provisional_from=provisional_from,
        missing_hours=int(missing_hours),
        currencies=business_currencies(from_=from_, to=to),
    )


def business_currencies(*, from_: datetime, to: datetime) -> tuple[str, ...]:
    """Those in which something was earned or cost in the period."""
    return tuple(row[0] for row in _rows(_CURRENCIES, {"from": from_, "to": to}))


def expenses(*, from_: datetime, to: datetime, currency: str) -> dict[UUID | None, tuple[int, int]]:
    """Goodwill and payment fees that were posted in the period, by organization; None is nobody's."""
    period = {"from": from_, "to": to, "currency": currency}
    return {row[0]: (int(row[1]), int(row[2])) for row in _rows(_EXPENSES, period)}


def business_slots(
    *, from_: datetime, to: datetime, currency: str, bucket: Bucket
) -> tuple[BusinessSlot, ...]:
    """Revenue and cost of every hour, day or month (UTC) of the period, also of the empty ones."""
    period = {"from": from_, "to": to, "currency": currency, "bucket": bucket}
    slots: dict[datetime, dict[str, int]] = {start: {} for (start,) in _rows(_STARTS, period)}
    for name, query in _SLOT_SUMS.items():
        for start, nanos in _rows(query, period):
            slots[start][name] = int(nanos)
    return tuple(
        BusinessSlot(
            start,
            revenue_nanos=found.get("revenue", 0),
            cost_nanos=found.get("sold", 0),
            idle_nanos=found.get("idle", 0) + found.get("unreserved", 0),
        )
        for start, found in slots.items()
    )


class CostGap(StrEnum):
    """Why it is not known what a model's calls cost."""

    UNALLOCATED = "UNALLOCATED"  # No hour with calls of it has been allocated.
    UNCOSTED = "UNCOSTED"  # Of some calls: when they were made no cost or capacity was in force.
    FOREIGN = "FOREIGN"  # Some pool's costs are in another currency.


def model_cost(*, model_id: UUID, from_: datetime, to: datetime, currency: str) -> int | None:
    """What the model's calls of the period cost, in nano-units, without idle capacity.

    None when it is not known in this currency; model_cost_gap says why.
    """
    gap, cost_nanos = _model_cost(model_id, from_, to, currency)
    return None if gap else cost_nanos


def model_cost_gap(*, model_id: UUID, from_: datetime, to: datetime, currency: str) -> CostGap | None:
    """Why model_cost is None; None where it is known."""
    return _model_cost(model_id, from_, to, currency)[0]


def _model_cost(model_id: UUID, from_: datetime, to: datetime, currency: str) -> tuple[CostGap | None, int]:
    rows = _rows(
        f"SELECT count(*), coalesce(sum(b.uncosted_requests), 0), "
        f"count(*) FILTER (WHERE p.currency <> %(currency)s), coalesce(sum(b.cost_nanos), 0) "
        f"{_FACTS} AND d.model_id = %(model)s",
        {"from": from_, "to": to, "currency": currency, "model": model_id},
    )
    found, uncosted, elsewhere, cost_nanos = rows[0]
    gap = (
        CostGap.UNALLOCATED
        if not found
        else CostGap.UNCOSTED
        if uncosted
        else CostGap.FOREIGN
        if elsewhere
        else None
    )
    return gap, int(cost_nanos)


def _sums(
    group_by: GroupBy, period: Mapping[str, Any]
) -> tuple[dict[UUID, Sums], defaultdict[UUID, list[Foreign]]]:
    columns = ", ".join(f"sum(b.{name})" for name in _SUMMED)
    sums: dict[UUID, Sums] = {}
    foreign: defaultdict[UUID, list[Foreign]] = defaultdict(list)
    currency = period["currency"]
    for key, earned, spent, *values in _rows(
        f"SELECT {_KEYS[group_by]}, b.currency, p.currency, {columns} {_FACTS} "
        "AND %(currency)s IN (b.currency, p.currency) GROUP BY 1, 2, 3",
        period,
    ):
        found = dict(zip(_SUMMED, map(int, values), strict=True))
        revenue_nanos, cost_nanos = found["revenue_nanos"], found["cost_nanos"]
        if earned != currency:
            # Only the cost is of this report.
            found |= {"revenue_nanos": 0, "granted_nanos": 0, "overrun_nanos": 0}
            if revenue_nanos:
                foreign[key].append(Foreign(earned, revenue_nanos, 0))
        elif spent == currency:
            found |= {"own_revenue_nanos": revenue_nanos, "own_weighted": found["weighted"]}
        else:
            found["cost_nanos"] = 0
            if cost_nanos:
                foreign[key].append(Foreign(spent, 0, cost_nanos))
        sums[key] = sums.get(key, Sums()) + Sums(**found)
    return sums, foreign


def _capacities(group_by: GroupBy, period: Mapping[str, Any]) -> dict[UUID | None, Capacity]:
    """By organization all of it, under no key."""
    key = "NULL::uuid" if group_by == "tenant" else _KEYS[group_by]
    return {
        row[0]: Capacity(*map(int, row[1:]))
        for row in _rows(
            f"SELECT {key}, sum(d.cost_nanos), sum(d.idle_nanos), sum(d.weighted), sum(d.capacity) "
            f"{_CAPACITIES} GROUP BY 1",
            period,
        )
    }


def _line(
    key: UUID,
    name: str,
    group_by: GroupBy,
    sums: Sums,
    foreign: Iterable[Foreign],
    capacity: Capacity | None,
    spent: Mapping[UUID | None, tuple[int, int]],
) -> BusinessLine:
    if group_by == "tenant":
        goodwill_nanos, fees_nanos = spent.get(key, (0, 0))
        return BusinessLine(key, name, sums, _joined(foreign), None, goodwill_nanos, fees_nanos)
    return BusinessLine(key, name, sums, _joined(foreign), capacity or Capacity())


def _shown(lines: Iterable[BusinessLine]) -> tuple[BusinessLine, ...]:
    ordered = sorted(lines, key=lambda one: (-one.sums.revenue_nanos, -one.sums.cost_nanos, one.name))
    shown, rest = ordered[:MAX_LINES], ordered[MAX_LINES:]
    if rest:
        capacities = [one.capacity for one in rest if one.capacity]
        shown.append(
            BusinessLine(
                key=None,
                name="",
                sums=reduce(add, (one.sums for one in rest)),
                foreign=_joined(foreign for one in rest for foreign in one.foreign),
                capacity=reduce(add, capacities) if capacities else None,
                goodwill_nanos=_sum(one.goodwill_nanos for one in rest),
                fees_nanos=_sum(one.fees_nanos for one in rest),
            )
        )
    return tuple(shown)


def _sum(amounts: Iterable[int | None]) -> int | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if known else None


def _joined(foreign: Iterable[Foreign]) -> tuple[Foreign, ...]:
    """One a currency."""
    sums: dict[str, tuple[int, int]] = {}
    for one in foreign:
        revenue_nanos, cost_nanos = sums.get(one.currency, (0, 0))
        sums[one.currency] = (revenue_nanos + one.revenue_nanos, cost_nanos + one.cost_nanos)
    return tuple(Foreign(currency, *sums[currency]) for currency in sorted(sums))


def _names(group_by: GroupBy, keys: Iterable[UUID]) -> dict[UUID, str]:
    model, column = {
        "model": (CatalogModel, "slug"),
        "tenant": (Tenant, "name"),
        "pool": (ServingPool, "code"),
        "backend": (ServingBackend, "code"),
    }[group_by]
    return dict(model._default_manager.filter(id__in=list(keys)).values_list("id", column))


def _rows(query: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(query, parameters)
        return list(cursor.fetchall())
