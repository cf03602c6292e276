"""The figures of the business as values, with what follows from them: margins, idle capacity, break-even.

Money is in nano-units of one currency, and a margin exists within one currency only: nothing is converted.
Weighted tokens are in thousandths, shares in millionths, rounded half up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Literal
from uuid import UUID

GroupBy = Literal["model", "tenant", "pool", "backend"]


def ppm(part: int, whole: int) -> int | None:
    """How many millionths of the whole the part is, rounded half up; None of nothing."""
    if whole == 0:
        return None
    return (2 * 1_000_000 * part + whole) // (2 * whole)


@dataclass(frozen=True, slots=True)
class Foreign:
    """What cannot be compared, because revenue and cost of the same calls are in two currencies.

    `currency`: of the side that is not in the report's; the other side of these calls is.
    """

    currency: str
    revenue_nanos: int
    cost_nanos: int


@dataclass(frozen=True, slots=True)
class Sums:
    """What calls used, earned and cost. Revenue is what was charged and not granted.

    own_revenue_nanos, own_weighted: of the calls whose cost is in the report's currency too.
    uncosted_requests: of so many no cost is known.
    """

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
    own_revenue_nanos: int = 0
    own_weighted: int = 0

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(Sums)))


@dataclass(frozen=True, slots=True)
class Capacity:
    """Reserved capacity with a cost in the report's currency, and how much of it was sold.

    cost_nanos: of all that is reserved; idle_nanos: of it not sold.
    """

    cost_nanos: int = 0
    idle_nanos: int = 0
    weighted: int = 0
    capacity: int = 0

    def __add__(self, other: Capacity) -> Capacity:
        return Capacity(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(Capacity)))

    @property
    def utilisation_ppm(self) -> int | None:
        """Above a million when more was served than is certified."""
        return ppm(self.weighted, self.capacity)


@dataclass(frozen=True, slots=True)
class BusinessLine:
    """A model, organization, pool or backend. Its margin is before idle capacity.

    key is None for the lines that did not fit. capacity is None by organization; goodwill and fees, which
    are no revenue, are known by organization only.
    """

    key: UUID | None
    name: str
    sums: Sums
    foreign: tuple[Foreign, ...] = ()
    capacity: Capacity | None = None
    goodwill_nanos: int | None = None
    fees_nanos: int | None = None

    @property
    def margin_nanos(self) -> int | None:
        """None where cost or revenue is in another currency, or a cost is not known."""
        return margin(self.sums, self.foreign, idle_nanos=0)

    @property
    def margin_ppm(self) -> int | None:
        return None if self.margin_nanos is None else ppm(self.margin_nanos, self.sums.revenue_nanos)

    @property
    def idle_nanos(self) -> int | None:
        return self.capacity.idle_nanos if self.capacity else None

    @property
    def breakeven_ppm(self) -> int | None:
        """The utilisation at which what is reserved pays for itself at what a weighted token earned.

        cost of the reserved capacity ÷ (revenue per weighted token × certified capacity); None while nothing
        was earned, or nothing is certified.
        """
        if self.capacity is None or not self.sums.own_weighted:
            return None
        earned = self.sums.own_revenue_nanos * self.capacity.capacity
        return ppm(self.capacity.cost_nanos * self.sums.own_weighted, earned)


@dataclass(frozen=True, slots=True)
class Unreserved:
    """The part of a pool's cost that is reserved for no deployment."""

    pool_id: UUID
    code: str
    cost_nanos: int


@dataclass(frozen=True, slots=True)
class Totals:
    """All lines together, with what no line carries. pool_cost_nanos = cost + idle + unreserved."""

    sums: Sums
    foreign: tuple[Foreign, ...]
    idle_nanos: int
    unreserved_nanos: int
    pool_cost_nanos: int
    goodwill_nanos: int
    fees_nanos: int

    @property
    def margin_nanos(self) -> int | None:
        """After idle capacity; before goodwill and payment fees."""
        return margin(self.sums, self.foreign, idle_nanos=self.idle_nanos + self.unreserved_nanos)

    @property
    def margin_ppm(self) -> int | None:
        return None if self.margin_nanos is None else ppm(self.margin_nanos, self.sums.revenue_nanos)


@dataclass(frozen=True, slots=True)
class BusinessReport:
    """The hours that begin in the half-open period, in one currency.

    lines: those that earned most first. provisional_from: the first hour that is not final yet, if any.
    missing_hours: have passed and are still to be allocated. currencies: all in which something was earned
    or cost.
    """

    group_by: GroupBy
    currency: str
    from_at: datetime
    to_at: datetime
    lines: tuple[BusinessLine, ...]
    unreserved: tuple[Unreserved, ...]
    totals: Totals
    provisional_from: datetime | None
    missing_hours: int
    currencies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BusinessSlot:
    """One hour, day or month (UTC) of the chart. idle_nanos: with what is reserved for nobody."""

    start: datetime
    revenue_nanos: int
    cost_nanos: int
    idle_nanos: int


def margin(sums: Sums, foreign: Sequence[Foreign], *, idle_nanos: int) -> int | None:
    """Revenue less cost, if both are known in this currency."""
    if foreign or sums.uncosted_requests:
        return None
    return sums.revenue_nanos - sums.cost_nanos - idle_nanos
