"""What the factory floor shows, in numbers: what flows now, measured against capacity, cost and earnings.

Nothing here is a guess: what is not known is None, and never a zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from portal.inference.floor_meter import FloorFlow
from quotas.business.floor import FloorBooks, FloorDeployment, FloorPool

Flows = Mapping[UUID, FloorFlow]
_NO_FLOW = FloorFlow()


class Note(StrEnum):
    """What a pool is missing. The words are the page's."""

    NO_DEPLOYMENT = "no_deployment"
    NO_CAPACITY = "no_capacity"
    PART_CAPACITY = "part_capacity"
    NO_COST = "no_cost"
    OTHER_CURRENCY = "other_currency"
    NOTHING_SOLD = "nothing_sold"
    BEYOND = "beyond"


class Place(StrEnum):
    """Where a pool stands now: whether what flows would pay for it."""

    ABOVE = "above"
    BELOW = "below"


@dataclass(frozen=True, slots=True)
class Flow:
    """Tokens a second: weighted, and by class; and the calls in progress.

    weighted: None where nothing says how the tokens weigh.
    """

    weighted: float | None
    input: float
    cached: float
    output: float
    live_calls: int


@dataclass(frozen=True, slots=True)
class PoolNow:
    """A pool with what flows through it; flow is None while the meter is not known."""

    pool: FloorPool
    flow: Flow | None
    share: float | None
    place: Place | None
    notes: tuple[Note, ...]

    @property
    def capacity(self) -> int | None:
        return self.pool.capacity_tokens_per_s or None


@dataclass(frozen=True, slots=True)
class Totals:
    """All pools together. Money by currency; a margin of None is not known."""

    flow: Flow | None
    capacity: int | None
    share: float | None
    earned: Mapping[str, int]
    burned: Mapping[str, int]
    margin: Mapping[str, int | None]


def pools_now(books: FloorBooks, flows: Flows | None) -> list[PoolNow]:
    return [_pool_now(pool, flows) for pool in books.pools]


def _pool_now(pool: FloorPool, flows: Flows | None) -> PoolNow:
    flow = None if flows is None else _flow(pool.deployments, flows)
    share = _share(flow, pool.capacity_tokens_per_s)
    breakeven = pool.breakeven_ppm
    place = None
    if share is not None and breakeven is not None:
        place = Place.ABOVE if share * 1_000_000 >= breakeven else Place.BELOW
    return PoolNow(pool, flow, share, place, tuple(_notes(pool)))


def _flow(deployments: Iterable[FloorDeployment], flows: Flows) -> Flow:
    weighted, is_weighed = 0.0, False
    fresh = cached = output = 0.0
    live_calls = 0
    for one in deployments:
        now = flows.get(one.id, _NO_FLOW)
        # Cached tokens are part of the prompt's; a short window may have caught the one without the other.
        own_fresh = max(0.0, now.prompt_tokens_per_s - now.cached_tokens_per_s)
        fresh += own_fresh
        cached += now.cached_tokens_per_s
        output += now.completion_tokens_per_s
        live_calls += now.live_calls
        if one.input_weight is not None and one.cached_weight is not None and one.output_weight is not None:
            is_weighed = True
            weighted += (
                one.input_weight * own_fresh
                + one.cached_weight * now.cached_tokens_per_s
                + one.output_weight * now.completion_tokens_per_s
            ) / 1000
    return Flow(weighted if is_weighed else None, fresh, cached, output, live_calls)


def _share(flow: Flow | None, capacity: int) -> float | None:
    return None if flow is None or flow.weighted is None or not capacity else flow.weighted / capacity


def _notes(pool: FloorPool) -> Iterable[Note]:
    certified = [one for one in pool.deployments if one.capacity_tokens_per_s is not None]
    if not pool.deployments:
        yield Note.NO_DEPLOYMENT
    elif not certified:
        yield Note.NO_CAPACITY
    elif len(certified) < len(pool.deployments):
        yield Note.PART_CAPACITY
    if pool.cost_nanos_per_hour is None:
        yield Note.NO_COST
        return
    earned_elsewhere = [currency for currency, nanos in pool.earned.items() if nanos]
    sold_elsewhere = [currency for currency, sold in pool.sold.items() if sold.revenue_nanos]
    if any(currency != pool.currency for currency in (*earned_elsewhere, *sold_elsewhere)):
        yield Note.OTHER_CURRENCY
    elif certified and pool.breakeven_ppm is None:
        yield Note.NOTHING_SOLD
    if pool.breakeven_ppm is not None and pool.breakeven_ppm > 1_000_000:
        yield Note.BEYOND


def totals(pools: Iterable[PoolNow]) -> Totals:
    pools = list(pools)
    flow = _sum([one.flow for one in pools if one.flow]) if all(one.flow for one in pools) else None
    capacity = sum(one.capacity or 0 for one in pools)
    earned: dict[str, int] = {}
    burned: dict[str, int] = {}
    unknown: set[str] = set()
    for one in pools:
        pool = one.pool
        for currency, nanos in pool.earned.items():
            earned[currency] = earned.get(currency, 0) + nanos
        if pool.cost_nanos_per_hour is not None:
            burned[pool.currency] = burned.get(pool.currency, 0) + pool.cost_nanos_per_hour
            earned.setdefault(pool.currency, 0)
        if pool.margin_nanos_per_hour is None:
            unknown |= {currency for currency, nanos in pool.earned.items() if nanos}
            unknown |= {pool.currency} if pool.cost_nanos_per_hour is not None else set()
    margin = {
        currency: None if currency in unknown else earned.get(currency, 0) - burned.get(currency, 0)
        for currency in sorted({*earned, *burned})
    }
    return Totals(flow, capacity or None, _share(flow, capacity), earned, burned, margin)


def _sum(flows: Iterable[Flow]) -> Flow:
    flows = list(flows)
    weighed = [one.weighted for one in flows if one.weighted is not None]
    return Flow(
        sum(weighed) if weighed else None,
        sum(one.input for one in flows),
        sum(one.cached for one in flows),
        sum(one.output for one in flows),
        sum(one.live_calls for one in flows),
    )
