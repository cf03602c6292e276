"""Usage over time, from the hourly rollups: series for charts, their sums, and the overview's numbers.

A rollup's hour is one of UTC. It counts where it begins, also in time zones whose days begin at half past.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db import connections

from quotas.metering.queries.labels import KeyLabel, ModelLabel, key_labels, model_labels
from tenants.scope import scope_alias

Bucket = Literal["hour", "day", "month"]
GroupBy = Literal["model", "api_key"]

SHOWN_GROUPS = 7
MAX_GROUPS = 200
MAX_BUCKETS = {"hour": 24 * 32, "day": 400, "month": 60}
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


class InvalidPeriod(ValueError):
    """The period has more buckets than a chart can show, or ends before it begins."""


@dataclass(frozen=True, slots=True)
class Sums:
    """Usage added up; amounts in nano-units of the wallet's currency. Cached is a part of the prompt tokens,
    reasoning of the completion tokens; cost is at list price, charged is what the tenant paid of it."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nanos: int = 0
    charged_nanos: int = 0

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(getattr(self, name) + getattr(other, name) for name in SUM_FIELDS))


SUM_FIELDS = tuple(field.name for field in fields(Sums))
NOTHING = Sums()


@dataclass(frozen=True, slots=True)
class Group:
    """What a series is of: a model or a key; neither for the rest, and for everything together."""

    model: ModelLabel | None = None
    key: KeyLabel | None = None


REST = Group()


@dataclass(frozen=True, slots=True)
class Series:
    """One colour of a stacked chart: as many buckets as the chart has, and their sum."""

    group: Group
    total: Sums
    buckets: tuple[Sums, ...]


@dataclass(frozen=True, slots=True)
class UsageTotals:
    """Usage of a period in buckets.

    starts: the moments (UTC) at which the buckets begin, also the empty ones. series: the SHOWN_GROUPS
    that were charged most and, last, the rest as REST if there is one; without grouping the one series
    of everything (REST as well). groups: the sum of each group, dearest first, at most MAX_GROUPS of the
    group_count that there are.
    """

    bucket: Bucket
    starts: tuple[datetime, ...]
    series: tuple[Series, ...]
    groups: tuple[tuple[Group, Sums], ...]
    group_count: int
    total: Sums


_GROUP_COLUMNS = {"model": "u.model_id", "api_key": "u.api_key_id", None: "u.tenant_id"}
# Days and months by what the clock on the wall says, so that no bucket depends on how a zone's clocks jump.
_BUCKET_COLUMNS = {
    "hour": "to_char(u.hour AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24')",
    "day": "to_char(u.hour AT TIME ZONE %(zone)s, 'YYYY-MM-DD')",
    "month": "to_char(u.hour AT TIME ZONE %(zone)s, 'YYYY-MM-01')",
}
_LABELS = {"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "month": "%Y-%m-01"}


def _sum_of(table: str) -> str:
    return ", ".join(f"sum({table}.{name})::bigint AS {name}" for name in SUM_FIELDS)


def _totals_sql(bucket: Bucket, group_by: GroupBy | None) -> str:
    """Rows of groups (no bucket, dearest first), then of buckets and shown groups; its pieces are ours."""
    return f"""
    WITH base AS MATERIALIZED (
      SELECT {_BUCKET_COLUMNS[bucket]} AS bucket, {_GROUP_COLUMNS[group_by]} AS grp, {_sum_of("u")}
      FROM quotas_usagerollup u
      WHERE u.tenant_id = %(tenant)s AND u.hour >= %(from)s AND u.hour < %(to)s
        AND (%(slugs)s::text[] IS NULL OR u.model_id IN (
          SELECT m.id FROM models_catalog_catalogmodel m WHERE m.slug = ANY (%(slugs)s::text[])))
        AND (%(keys)s::uuid[] IS NULL OR u.api_key_id = ANY (%(keys)s::uuid[]))
      GROUP BY 1, 2
    ), groups AS MATERIALIZED (
      SELECT b.grp, count(*) OVER () AS many, {_sum_of("b")},
        row_number() OVER (ORDER BY sum(b.charged_nanos) DESC, sum(b.requests) DESC, b.grp) AS place
      FROM base b GROUP BY b.grp
    )
    SELECT NULL AS bucket, g.grp, g.place, g.many, {", ".join(f"g.{name}" for name in SUM_FIELDS)}
    FROM groups g WHERE g.place <= %(max_groups)s
    UNION ALL
    SELECT b.bucket, CASE WHEN g.place <= %(shown)s THEN b.grp END, NULL, NULL, {_sum_of("b")}
    FROM base b JOIN groups g USING (grp) GROUP BY 1, 2
    ORDER BY place
    """  # noqa: S608


def usage_totals(
    *,
    tenant_id: UUID,
    from_at: datetime,
    to_at: datetime,
    bucket: Bucket,
    group_by: GroupBy | None,
    models: Sequence[str] = (),
    api_keys: Sequence[UUID] = (),
    time_zone: str = "UTC",
) -> UsageTotals:
    """Usage of the hours that begin from `from_at` until before `to_at`, in the scope that is open.

    models: slugs, api_keys: ids; empty means all. Days and months are those of `time_zone`, an IANA name.
    Errors: InvalidPeriod; ZoneInfoNotFoundError.
    """
    starts = bucket_starts(from_at=from_at, to_at=to_at, bucket=bucket, zone=ZoneInfo(time_zone))
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            _totals_sql(bucket, group_by),
            {
                "tenant": tenant_id,
                "from": from_at,
                "to": to_at,
                "slugs": list(models) or None,
                "keys": list(api_keys) or None,
                "zone": time_zone,
                "shown": SHOWN_GROUPS,
                "max_groups": MAX_GROUPS,
            },
        )
        found = cursor.fetchall()
    return _totals(found, starts, bucket, group_by)


def _totals(
    found: list[tuple[Any, ...]], starts: dict[str, datetime], bucket: Bucket, group_by: GroupBy | None
) -> UsageTotals:
    ranked = {group_id: Sums(*sums) for label, group_id, _, _, *sums in found if label is None}
    group_count = next((many for label, _, _, many, *_ in found if label is None), 0)
    groups = _groups(list(ranked), group_by)
    cells: dict[UUID | None, dict[str, Sums]] = {}
    for label, group_id, _, _, *sums in found:
        if label is not None:
            cells.setdefault(group_id, {})[label] = Sums(*sums)
    shown: list[UUID | None] = list(ranked)[:SHOWN_GROUPS]
    if group_by is None:
        shown = shown or [None]
    elif None in cells:
        shown.append(None)
    series = []
    for group_id in shown:
        values = tuple(cells.get(group_id, {}).get(label, NOTHING) for label in starts)
        series.append(Series(groups.get(group_id, REST), sum(values, NOTHING), values))
    return UsageTotals(
        bucket,
        tuple(starts.values()),
        tuple(series),
        tuple((groups.get(group_id, REST), sums) for group_id, sums in ranked.items() if group_by),
        group_count if group_by else 0,
        sum((one.total for one in series), NOTHING),
    )


def _groups(ids: Sequence[UUID], group_by: GroupBy | None) -> dict[UUID | None, Group]:
    if group_by == "model":
        return {model_id: Group(model=model) for model_id, model in model_labels(model_ids=ids).items()}
    if group_by == "api_key":
        return {key_id: Group(key=key) for key_id, key in key_labels(key_ids=ids).items()}
    return {}


def bucket_starts(
    *, from_at: datetime, to_at: datetime, bucket: Bucket, zone: ZoneInfo
) -> dict[str, datetime]:
    """The buckets that a half-open period touches: the label that SQL gives them, and when they begin (UTC).

    The first one may begin before the period. Errors: InvalidPeriod.
    """
    if from_at >= to_at:
        raise InvalidPeriod("a period ends after it begins")
    if bucket == "hour":
        hours = from_at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        count = -((hours - to_at) // HOUR)
        found = [hours + index * HOUR for index in range(min(count, MAX_BUCKETS[bucket] + 1))]
        labels = {at.strftime(_LABELS[bucket]): at for at in found}
    else:
        day = from_at.astimezone(zone).date()
        last = (to_at - timedelta(microseconds=1)).astimezone(zone).date()
        day = day.replace(day=1) if bucket == "month" else day
        labels = {}
        while day <= last and len(labels) <= MAX_BUCKETS[bucket]:
            labels[day.strftime(_LABELS[bucket])] = day_start(day, zone)
            day = day + DAY if bucket == "day" else (day + 31 * DAY).replace(day=1)
    if len(labels) > MAX_BUCKETS[bucket]:
        raise InvalidPeriod(f"a chart shows at most {MAX_BUCKETS[bucket]} {bucket}s")
    return labels


def day_start(day: date, zone: ZoneInfo) -> datetime:
    """The moment (UTC) a day begins in a zone. Where clocks jump over midnight, that is when they jump."""
    return datetime.combine(day, time(), tzinfo=zone).astimezone(UTC)


@dataclass(frozen=True, slots=True)
class HourSums:
    start: datetime
    sums: Sums


@dataclass(frozen=True, slots=True)
class UsageSummary:
    """The overview's numbers. today and month: since the day and the month began in the asked time zone.

    hours: the last 24 hours of UTC, the one under way included, oldest first. daily_average_nanos: what was
    charged a day during the last seven days, or since the first usage if that is later (a day at least).
    """

    today: Sums
    month: Sums
    hours: tuple[HourSums, ...]
    daily_average_nanos: int

    def days_left(self, *, available_nanos: int) -> int | None:
        """Whole days that the money lasts at this pace; None while nothing is spent."""
        if self.daily_average_nanos <= 0:
            return None
        return max(0, available_nanos) // self.daily_average_nanos


def usage_summary(*, tenant_id: UUID, now: datetime, time_zone: str = "UTC") -> UsageSummary:
    """The overview's numbers, in the scope that is open. Errors: ZoneInfoNotFoundError."""
    zone = ZoneInfo(time_zone)
    today = now.astimezone(zone).date()
    this_hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    day_at, month_at = day_start(today, zone), day_start(today.replace(day=1), zone)
    week_at, hours_at = this_hour - 7 * DAY + HOUR, this_hour - 23 * HOUR
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            f"SELECT u.hour, {_sum_of('u')} FROM quotas_usagerollup u "  # noqa: S608
            "WHERE u.tenant_id = %s AND u.hour >= %s AND u.hour <= %s GROUP BY u.hour",
            [tenant_id, min(month_at, week_at), this_hour],
        )
        by_hour = {row[0]: Sums(*row[1:]) for row in cursor.fetchall()}
        cursor.execute("SELECT min(hour) FROM quotas_usagerollup WHERE tenant_id = %s", [tenant_id])
        (first_at,) = cursor.fetchone()
    days = 7 if first_at is None else min(7, max(1, -((first_at - now) // DAY)))
    week = _since(by_hour, week_at).charged_nanos
    return UsageSummary(
        _since(by_hour, day_at),
        _since(by_hour, month_at),
        tuple(
            HourSums(start, by_hour.get(start, NOTHING))
            for start in (hours_at + index * HOUR for index in range(24))
        ),
        week // days,
    )


def _since(by_hour: dict[datetime, Sums], moment: datetime) -> Sums:
    return sum((sums for hour, sums in by_hour.items() if hour >= moment), NOTHING)
