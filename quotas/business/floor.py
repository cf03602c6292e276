"""What each pool can carry, costs and earns, as of now: read every few seconds for a live screen.

So a reading is small: of the last hour's calls it asks for those that may have been settled since the last
one, minute by minute, and remembers the rest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Any, Final
from uuid import UUID

from django.db import connections, transaction

from models_catalog.fleet.queries import PoolRow, list_pools
from portal.kit.ids import partition_bound
from quotas.business.figures import ppm
from tenants.scope import scope_alias

EARNING_MINUTES: Final = 60
PRICING: Final = timedelta(hours=24)
READ_EVERY: Final = timedelta(seconds=4)
PRICE_EVERY: Final = timedelta(seconds=60)
STATEMENT_TIMEOUT_S: Final = 5

_MINUTE: Final = timedelta(minutes=1)
# A minute is read with every reading until it has been over for so long, and once more at each of these ages:
# that is how late the money of a call shows that runs long.
_FRESH: Final = timedelta(minutes=2)
_AGES: Final = tuple(timedelta(minutes=minutes) for minutes in (3, 5, 8, 15, 30, 45))
# Attempts get their ids beside their request's, and by clocks that are not quite the same.
_CLOCKS: Final = timedelta(minutes=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EARNED = (Path(__file__).parent / "sql" / "earned.sql").read_text(encoding="utf-8")
_PRICES = """
SELECT d.pool_id, b.currency, sum(b.revenue_nanos)::bigint, sum(b.weighted)::bigint
FROM quotas_businesshour b
JOIN quotas_deploymenthour d ON d.hour = b.hour AND d.deployment_id = b.deployment_id
WHERE b.hour >= %(from)s AND b.hour < %(to)s
GROUP BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class Sold:
    """What so many weighted tokens (in thousandths) earned."""

    revenue_nanos: int
    weighted: int


@dataclass(frozen=True, slots=True)
class FloorDeployment:
    """What a deployment can carry, in weighted tokens a second, and how its tokens weigh, in thousandths;
    all of it None while no capacity is certified."""

    id: UUID
    capacity_tokens_per_s: int | None = None
    input_weight: int | None = None
    cached_weight: int | None = None
    output_weight: int | None = None


@dataclass(frozen=True, slots=True)
class FloorPool:
    """A pool now. earned: what the calls of the last EARNING_MINUTES have paid, by currency; sold: what was
    sold in the allocated hours of PRICING, by currency. No cost has been entered when `currency` is empty."""

    id: UUID
    code: str
    name: str
    currency: str = ""
    cost_nanos_per_hour: int | None = None
    deployments: tuple[FloorDeployment, ...] = ()
    earned: Mapping[str, int] = field(default_factory=dict)
    sold: Mapping[str, Sold] = field(default_factory=dict)

    @property
    def capacity_tokens_per_s(self) -> int:
        return sum(one.capacity_tokens_per_s or 0 for one in self.deployments)

    @property
    def margin_nanos_per_hour(self) -> int | None:
        """None without a cost, and when something was earned in another currency than it cost."""
        if self.cost_nanos_per_hour is None or any(
            nanos for currency, nanos in self.earned.items() if currency != self.currency
        ):
            return None
        return self.earned.get(self.currency, 0) - self.cost_nanos_per_hour

    @property
    def breakeven_ppm(self) -> int | None:
        """The share of its capacity at which the pool pays for itself at what a weighted token earned lately.

        cost an hour ÷ (revenue per weighted token × certified capacity an hour), of what was sold in the
        currency of the cost; None while nothing was, or nothing is certified.
        """
        sold = self.sold.get(self.currency)
        if self.cost_nanos_per_hour is None or sold is None:
            return None
        capacity = self.capacity_tokens_per_s * 3600 * 1000
        return ppm(self.cost_nanos_per_hour * sold.weighted, sold.revenue_nanos * capacity)


@dataclass(frozen=True, slots=True)
class FloorBooks:
    """All pools, by code, as of `at`."""

    at: datetime
    pools: tuple[FloorPool, ...]


class FloorReader:
    """Reads the books of the floor and remembers what does not change any more. For any thread; those who
    come while another reads wait for its reading."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._books: FloorBooks | None = None
        # By minute since 1970: when it was read, and what its calls paid by deployment and currency.
        self._minutes: dict[int, tuple[datetime, dict[tuple[UUID, str], int]]] = {}
        self._sold: dict[UUID, dict[str, Sold]] = {}
        self._priced_at: datetime | None = None

    def read(self, *, now: datetime) -> FloorBooks:
        """The books, at most READ_EVERY old. In a scope that sees all organizations: the operator's.

        Errors: django.db.DatabaseError, also when the database takes too long.
        """
        with self._lock:
            if self._books is None or not timedelta(0) <= now - self._books.at < READ_EVERY:
                with _in_time():
                    pools = list_pools(now=now)
                    self._read_minutes(now)
                    self._read_prices(now)
                self._books = FloorBooks(now, tuple(_pools(pools, self._earned(), self._sold)))
            return self._books

    def _read_minutes(self, now: datetime) -> None:
        current = (now - _EPOCH) // _MINUTE
        wanted = range(current - EARNING_MINUTES + 1, current + 1)
        self._minutes = {minute: known for minute, known in self._minutes.items() if minute in wanted}
        due = [minute for minute in wanted if self._is_due(minute, now)]
        for first, end in _runs(due):
            found: dict[int, dict[tuple[UUID, str], int]] = defaultdict(dict)
            for minute, deployment_id, currency, nanos in _earned_rows(first, end, now):
                found[minute][deployment_id, currency] = nanos
            self._minutes |= {minute: (now, found.get(minute, {})) for minute in range(first, end)}

    def _is_due(self, minute: int, now: datetime) -> bool:
        if minute not in self._minutes:
            return True
        read_at, over_at = self._minutes[minute][0], _EPOCH + (minute + 1) * _MINUTE
        return now < over_at + _FRESH or any(read_at < over_at + age <= now for age in (_FRESH, *_AGES))

    def _read_prices(self, now: datetime) -> None:
        if self._priced_at is not None and timedelta(0) <= now - self._priced_at < PRICE_EVERY:
            return
        sold: dict[UUID, dict[str, Sold]] = defaultdict(dict)
        hour = now.replace(minute=0, second=0, microsecond=0)
        for pool_id, currency, revenue_nanos, weighted in _rows(_PRICES, {"from": hour - PRICING, "to": now}):
            sold[pool_id][currency] = Sold(revenue_nanos, weighted)
        self._sold, self._priced_at = dict(sold), now

    def _earned(self) -> dict[UUID, dict[str, int]]:
        sums: dict[UUID, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for _read_at, amounts in self._minutes.values():
            for (deployment_id, currency), nanos in amounts.items():
                sums[deployment_id][currency] += nanos
        return sums


def _pools(
    rows: Iterable[PoolRow],
    earned: Mapping[UUID, Mapping[str, int]],
    sold: Mapping[UUID, Mapping[str, Sold]],
) -> Iterator[FloorPool]:
    for row in rows:
        sums: dict[str, int] = defaultdict(int)
        deployments = []
        for one in row.deployments:
            for currency, nanos in earned.get(one.id, {}).items():
                sums[currency] += nanos
            known = one.capacity
            deployments.append(
                FloorDeployment(one.id)
                if known is None
                else FloorDeployment(
                    one.id,
                    known.capacity_tokens_per_s,
                    known.input_weight,
                    known.cached_weight,
                    known.output_weight,
                )
            )
        yield FloorPool(
            id=row.id,
            code=row.code,
            name=row.name,
            currency=row.cost.currency if row.cost else "",
            cost_nanos_per_hour=row.cost.hour.total_nanos if row.cost else None,
            deployments=tuple(deployments),
            earned=dict(sums),
            sold=sold.get(row.id, {}),
        )


def _runs(minutes: Iterable[int]) -> list[tuple[int, int]]:
    """Rising numbers as half-open runs without gaps."""
    runs: list[tuple[int, int]] = []
    for minute in minutes:
        if runs and runs[-1][1] == minute:
            runs[-1] = (runs[-1][0], minute + 1)
        else:
            runs.append((minute, minute + 1))
    return runs


def _earned_rows(first: int, end: int, now: datetime) -> list[tuple[Any, ...]]:
    begins, ends = _EPOCH + first * _MINUTE, _EPOCH + end * _MINUTE
    return _rows(
        _EARNED,
        {
            "first": partition_bound(begins),
            "end": partition_bound(ends),
            "first_try": partition_bound(begins - _CLOCKS),
            # A call is tried again as long as it lasts.
            "end_try": partition_bound(max(now, ends) + _CLOCKS),
        },
    )


@contextmanager
def _in_time() -> Iterator[None]:
    alias = scope_alias()
    with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
        cursor.execute(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT_S}s'")
        # Of today's partitions the planner knows little, and many calls one by one take long.
        cursor.execute("SET LOCAL enable_nestloop = off")
        yield


def _rows(query: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(query, parameters)
        return list(cursor.fetchall())
