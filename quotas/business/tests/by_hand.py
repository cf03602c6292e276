"""The figures of a period worked out once more, by hand: plain Python with fractions, from what was put in.

Nothing here is taken from the product but the inputs: what pools cost, what deployments have, and the calls.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction
from math import floor
from typing import Any
from uuid import UUID

from models_catalog.models import CapacityVersion, PoolCostVersion
from quotas.business.tests.centre import Call, Try
from quotas.models import Basis

HOUR = timedelta(hours=1)


def largest_remainder(amount: int, weights: Sequence[int]) -> list[int]:
    exact = [Fraction(amount * weight, sum(weights)) for weight in weights]
    parts = [floor(share) for share in exact]
    order = sorted(range(len(parts)), key=lambda place: (parts[place] - exact[place], place))
    for place in order[: amount - sum(parts)]:
        parts[place] += 1
    return parts


def pool_cost(version: PoolCostVersion, seconds: int) -> int:
    """Accelerators × (depreciation + other) + kW × PUE × price of a kWh, for these seconds; half up."""
    an_hour = (
        version.accelerators
        * (version.depreciation_nanos_per_accelerator_hour + version.other_nanos_per_accelerator_hour)
        + Fraction(version.power_watts, 1000)
        * Fraction(version.pue_thousandths, 1000)
        * version.energy_nanos_per_kwh
    )
    return floor(an_hour * Fraction(seconds, 3600) + Fraction(1, 2))


def overlap_s(version: Any, start: datetime, end: datetime) -> int:
    last = min(version.active_to or end, end)
    return max(0, int((last - max(version.active_from, start)).total_seconds()))


@dataclass
class Row:
    """Of one deployment and organization in one hour, or of any sum of them."""

    requests: int = 0
    prompt: int = 0
    cached: int = 0
    completion: int = 0
    weighted: int = 0
    revenue: int = 0
    granted: int = 0
    overrun: int = 0
    cost: int = 0

    def add(self, other: Row) -> None:
        for name in vars(self):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass
class Figures:
    """rows: by hour, deployment and tenant. idle: by hour and deployment. unreserved: by hour and pool."""

    rows: dict[tuple[datetime, UUID, UUID], Row] = field(default_factory=lambda: defaultdict(Row))
    idle: dict[tuple[datetime, UUID], int] = field(default_factory=dict)
    reserved: dict[tuple[datetime, UUID], int] = field(default_factory=dict)
    unreserved: dict[tuple[datetime, UUID], int] = field(default_factory=dict)
    pool_costs: dict[tuple[datetime, UUID], int] = field(default_factory=dict)
    capacity: dict[tuple[datetime, UUID], int] = field(default_factory=dict)

    def by(self, key: Callable[[UUID, UUID], UUID]) -> dict[UUID, Row]:
        sums: dict[UUID, Row] = defaultdict(Row)
        for (_hour, deployment_id, tenant_id), row in self.rows.items():
            sums[key(deployment_id, tenant_id)].add(row)
        return dict(sums)


def work_out(
    hours: Sequence[datetime],
    calls: Sequence[Call],
    costs: Sequence[PoolCostVersion],
    capacities: Sequence[CapacityVersion],
    pool_of: dict[UUID, UUID],
    prices: dict[UUID, tuple[int, int, int]],
    granted: dict[UUID, int],
) -> Figures:
    """prices: nano-units a token by model (input, cached, output). granted: free credit by tenant."""
    figures, left = Figures(), dict(granted)
    for call in calls:
        _earn(figures, call, capacities, prices[call.model.id], left)
    for hour in hours:
        _spend(figures, hour, costs, capacities, pool_of)
    return figures


def _earn(
    figures: Figures,
    call: Call,
    capacities: Sequence[CapacityVersion],
    price: tuple[int, int, int],
    left: dict[UUID, int],
) -> None:
    if call.basis == Basis.NOTHING:
        return
    price_in, price_cached, price_out = price
    cost = (call.prompt - call.cached) * price_in + call.cached * price_cached + call.completion * price_out
    # Each of the two lines may be rounded up by one.
    hold = call.prompt * price_in + call.choices * call.output_cap * price_out + 2
    charged = min(cost, hold)
    granted = min(left[call.tenant.id], charged)
    left[call.tenant.id] -= granted
    served = _served(call)
    weights = {}
    for deployment_id, (prompt, cached, completion) in served.items():
        (version,) = [
            one
            for one in capacities
            if one.deployment_id == deployment_id
            and one.active_from <= call.at
            and (one.active_to is None or call.at < one.active_to)
        ]
        weights[deployment_id] = (
            version.input_weight * (prompt - cached)
            + version.cached_weight * cached
            + version.output_weight * completion
        )
    parts = [
        largest_remainder(amount, list(weights.values()))
        for amount in (charged - granted, granted, cost - charged)
    ]
    hour = call.at.replace(minute=0, second=0, microsecond=0)
    for place, (deployment_id, (prompt, cached, completion)) in enumerate(served.items()):
        figures.rows[hour, deployment_id, call.tenant.id].add(
            Row(
                requests=int(place == 0),
                prompt=prompt,
                cached=cached,
                completion=completion,
                weighted=weights[deployment_id],
                revenue=parts[0][place],
                granted=parts[1][place],
                overrun=parts[2][place],
            )
        )


def _served(call: Call) -> dict[UUID, tuple[int, int, int]]:
    """Prompt, cached and completion tokens of each deployment, in the order in which they served."""
    delivered = sorted((one for one in call.tries if one.completion), key=lambda one: one.choice)
    if len(delivered) < 2:
        only: Try = delivered[0] if delivered else call.tries[-1]
        return {only.deployment.id: (call.prompt, call.cached, call.completion)}
    served: dict[UUID, tuple[int, int, int]] = {}
    for place, one in enumerate(delivered):
        assert one.prompt is not None
        assert one.completion is not None
        cached = min(call.cached, one.prompt) if place == 0 else 0
        before = served.get(one.deployment.id, (0, 0, 0))
        served[one.deployment.id] = (
            before[0] + one.prompt,
            before[1] + cached,
            before[2] + one.completion,
        )
    return served


def _spend(
    figures: Figures,
    hour: datetime,
    costs: Sequence[PoolCostVersion],
    capacities: Sequence[CapacityVersion],
    pool_of: dict[UUID, UUID],
) -> None:
    end = hour + HOUR
    for pool_id in sorted(set(pool_of.values())):
        deployments = sorted(one for one, pool in pool_of.items() if pool == pool_id)
        shares = dict.fromkeys(deployments, 0)
        unreserved = total = 0
        for version in costs:
            seconds = overlap_s(version, hour, end)
            if version.pool_id != pool_id or not seconds:
                continue
            amount = pool_cost(version, seconds)
            start, stop = max(version.active_from, hour), min(version.active_to or end, end)
            weights = [
                sum(
                    one.reserved_ppm * overlap_s(one, start, stop)
                    for one in capacities
                    if one.deployment_id == deployment_id
                )
                for deployment_id in deployments
            ]
            *parts, rest = largest_remainder(amount, [*weights, 1_000_000 * seconds - sum(weights)])
            for deployment_id, part in zip(deployments, parts, strict=True):
                shares[deployment_id] += part
            unreserved, total = unreserved + rest, total + amount
        figures.unreserved[hour, pool_id], figures.pool_costs[hour, pool_id] = unreserved, total
        for deployment_id in deployments:
            _sell(figures, hour, deployment_id, shares[deployment_id], capacities)


def _sell(
    figures: Figures,
    hour: datetime,
    deployment_id: UUID,
    amount: int,
    capacities: Sequence[CapacityVersion],
) -> None:
    certified = sum(
        one.capacity_tokens_per_s * overlap_s(one, hour, hour + HOUR) * 1000
        for one in capacities
        if one.deployment_id == deployment_id
    )
    tenants = sorted(key[2] for key in figures.rows if key[:2] == (hour, deployment_id))
    rows = [figures.rows[hour, deployment_id, tenant_id] for tenant_id in tenants]
    sold = [row.weighted for row in rows]
    *parts, idle = largest_remainder(amount, [*sold, max(0, certified - sum(sold))])
    for row, part in zip(rows, parts, strict=True):
        row.cost = part
    figures.idle[hour, deployment_id], figures.reserved[hour, deployment_id] = idle, amount
    figures.capacity[hour, deployment_id] = certified
