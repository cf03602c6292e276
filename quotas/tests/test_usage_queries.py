"""Usage over time: complete buckets on every clock, the largest groups, only one's own rows."""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from io import StringIO
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest

from portal.kit.clock import utc_now
from portal.kit.money import parse_amount
from quotas.metering.queries import InvalidPeriod, Sums, iter_usage_csv, usage_summary, usage_totals
from quotas.metering.queries.usage import MAX_BUCKETS, NOTHING, SHOWN_GROUPS, day_start
from quotas.tests.doors import Connection
from quotas.tests.usage_rows import roll_up, settled, undone
from tenants.scope import tenant_scope
from tests.factories import ModelFixture, TenantFixture, enable, issue_key, make_model, make_tenant

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


def at(text: str, zone: str = "UTC") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


def test_an_empty_period_has_all_its_buckets(tenant: TenantFixture) -> None:
    with tenant_scope(tenant.id):
        totals = usage_totals(
            tenant_id=tenant.id, from_at=at("2026-01-01"), to_at=at("2026-01-04"), bucket="day", group_by=None
        )
        grouped = usage_totals(
            tenant_id=tenant.id,
            from_at=at("2026-01-01"),
            to_at=at("2026-01-02"),
            bucket="hour",
            group_by="model",
        )
    assert totals.starts == (at("2026-01-01"), at("2026-01-02"), at("2026-01-03"))
    (series,) = totals.series
    assert series.buckets == (NOTHING, NOTHING, NOTHING)
    assert totals.total == NOTHING
    assert (len(grouped.starts), grouped.series, grouped.groups, grouped.group_count) == (24, (), (), 0)


@pytest.mark.parametrize(
    ("zone", "first", "last", "hours"),
    [
        ("Europe/Berlin", "2026-03-28", "2026-03-31", [24, 23, 24]),
        ("Europe/Berlin", "2026-10-24", "2026-10-27", [24, 25, 24]),
        ("Asia/Shanghai", "2026-03-28", "2026-03-31", [24, 24, 24]),
        # Here midnight itself was skipped.
        ("America/Sao_Paulo", "2018-11-03", "2018-11-06", [24, 23, 24]),
        # Days that begin at half past: an hour counts where it begins.
        ("Asia/Kolkata", "2026-03-28", "2026-03-31", [24, 24, 24]),
    ],
)
def test_days_are_those_of_the_zone(
    tenant: TenantFixture, model: ModelFixture, zone: str, first: str, last: str, hours: list[int]
) -> None:
    from_at, to_at = at(first, zone), at(last, zone)
    with undone():
        hour = from_at.replace(minute=0) - 2 * HOUR
        while hour < to_at + 2 * HOUR:
            roll_up(tenant, model.id, hour, 10)
            hour += HOUR
        totals = usage_totals(
            tenant_id=tenant.id,
            from_at=from_at,
            to_at=to_at,
            bucket="day",
            group_by=None,
            time_zone=zone,
        )
    (series,) = totals.series
    assert [sums.requests for sums in series.buckets] == hours
    assert totals.starts[0] == from_at
    assert [(b - a) // HOUR for a, b in zip(totals.starts, (*totals.starts[1:], to_at), strict=True)] == hours
    assert series.buckets[0] == Sums(24, 72, 24, 48, 24, 264, 240)


def test_months_and_hours(tenant: TenantFixture, model: ModelFixture) -> None:
    with undone():
        for moment in ("2025-12-31T15:00", "2025-12-31T16:00", "2026-02-28T15:00", "2026-02-28T16:00"):
            roll_up(tenant, model.id, at(moment), 10)
        months = usage_totals(
            tenant_id=tenant.id,
            from_at=at("2026-01-01", "Asia/Shanghai"),
            to_at=at("2026-04-01", "Asia/Shanghai"),
            bucket="month",
            group_by=None,
            time_zone="Asia/Shanghai",
        )
        hours = usage_totals(
            tenant_id=tenant.id,
            from_at=at("2025-12-31T15:00"),
            to_at=at("2025-12-31T17:30"),
            bucket="hour",
            group_by=None,
        )
    assert [sums.requests for sums in months.series[0].buckets] == [1, 1, 1]
    assert months.starts[2] == at("2026-03-01", "Asia/Shanghai")
    assert [sums.requests for sums in hours.series[0].buckets] == [1, 1, 0]


def test_the_largest_groups_and_the_rest(tenant: TenantFixture, model: ModelFixture) -> None:
    hour = at("2026-01-01T05:00")
    models = [make_model() for _ in range(SHOWN_GROUPS + 2)]
    with undone():
        for index, made in enumerate(models):
            roll_up(tenant, made.id, hour, 100 - index)
        roll_up(tenant, models[-1].id, hour + HOUR, 1)
        period = {"tenant_id": tenant.id, "from_at": hour, "to_at": hour + 2 * HOUR, "bucket": "hour"}
        totals = usage_totals(**period, group_by="model")  # type: ignore[arg-type]
        some = usage_totals(**period, group_by="model", models=[models[3].slug, "no/such"])  # type: ignore[arg-type]
        none = usage_totals(**period, group_by="model", models=["no/such"])  # type: ignore[arg-type]
        keys = usage_totals(**period, group_by="api_key", api_keys=[tenant.key.id])  # type: ignore[arg-type]
    slugs = [series.group.model.slug if series.group.model else "rest" for series in totals.series]
    assert slugs == [*(made.slug for made in models[:SHOWN_GROUPS]), "rest"]
    rest = totals.series[-1]
    assert [sums.charged_nanos for sums in rest.buckets] == [93 + 92, 1]
    assert (totals.group_count, len(totals.groups)) == (9, 9)
    assert sum((sums for _, sums in totals.groups), NOTHING) == totals.total
    assert [sums.charged_nanos for _, sums in totals.groups] == [100, 99, 98, 97, 96, 95, 94, 93, 93]
    assert [series.group.model and series.group.model.slug for series in some.series] == [models[3].slug]
    assert none.series == ()
    (series,) = keys.series
    assert series.group.key is not None
    assert (series.group.key.id, series.group.key.name) == (tenant.key.id, "test")
    assert keys.total == totals.total


def test_what_is_not_a_period_is_refused(tenant: TenantFixture) -> None:
    start = at("2026-01-01")
    for bucket, length in (("hour", HOUR), ("day", DAY), ("month", 31 * DAY)):
        with tenant_scope(tenant.id):
            for end in (start, start - HOUR, start + (MAX_BUCKETS[bucket] + 2) * length):
                with pytest.raises(InvalidPeriod):
                    usage_totals(
                        tenant_id=tenant.id,
                        from_at=start,
                        to_at=end,
                        bucket=bucket,  # type: ignore[arg-type]
                        group_by=None,
                    )
    with tenant_scope(tenant.id), pytest.raises(ZoneInfoNotFoundError):
        usage_totals(
            tenant_id=tenant.id,
            from_at=start,
            to_at=start + DAY,
            bucket="day",
            group_by=None,
            time_zone="Mars/Olympus",
        )


def test_the_overview(tenant: TenantFixture, model: ModelFixture) -> None:
    zone = "Asia/Shanghai"
    now = at("2026-03-10T09:30", zone)
    midnight = day_start(now.astimezone(ZoneInfo(zone)).date(), ZoneInfo(zone))
    with undone():
        empty = usage_summary(tenant_id=tenant.id, now=now, time_zone=zone)
        for moment, charged in (
            (now.replace(minute=0), 1),
            (midnight, 2),
            (midnight - HOUR, 4),
            (at("2026-03-01", zone), 8_000),
            (at("2026-02-28T23:00", zone), 16_000),
        ):
            roll_up(tenant, model.id, moment, charged)
        full = usage_summary(tenant_id=tenant.id, now=now, time_zone=zone)
    assert (empty.today, empty.daily_average_nanos, empty.days_left(available_nanos=5)) == (NOTHING, 0, None)
    assert (full.today.charged_nanos, full.today.requests) == (3, 2)
    assert full.month.charged_nanos == 8_007
    assert len(full.hours) == 24
    assert full.hours[-1].start == now.replace(minute=0)
    assert sum(hour.sums.charged_nanos for hour in full.hours) == 7
    assert full.daily_average_nanos == 1
    assert full.days_left(available_nanos=12) == 12
    assert full.days_left(available_nanos=-12) == 0


def test_a_young_organizations_pace_is_not_thinned(tenant: TenantFixture, model: ModelFixture) -> None:
    now = at("2026-03-10T09:30")
    with undone():
        roll_up(tenant, model.id, now.replace(minute=0) - 30 * HOUR, 100)
        assert usage_summary(tenant_id=tenant.id, now=now).daily_average_nanos == 50


def test_only_ones_own_usage(tenant: TenantFixture, model: ModelFixture, dataplane: Connection) -> None:
    other = make_tenant()
    enable(other, model)
    settled(dataplane, tenant, model)
    settled(dataplane, other, model)
    now = utc_now()
    period = {"from_at": now - HOUR, "to_at": now + HOUR, "bucket": "hour", "group_by": "api_key"}
    with tenant_scope(tenant.id):
        mine = usage_totals(tenant_id=tenant.id, **period)  # type: ignore[arg-type]
        theirs = usage_totals(tenant_id=other.id, **period)  # type: ignore[arg-type]
        summary = usage_summary(tenant_id=tenant.id, now=now)
    assert (mine.total.requests, mine.total.charged_nanos) == (1, 20_000)
    assert theirs.total == NOTHING
    assert (summary.today.requests, summary.daily_average_nanos) == (1, 20_000)


def test_the_csv_has_what_the_chart_has(
    tenant: TenantFixture, dataplane: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [make_model() for _ in range(3)]
    key, digest = issue_key(tenant.id)
    for made in models:
        enable(tenant, made)
        settled(dataplane, tenant, made)
        settled(dataplane, tenant, made, call={"api_key_id": key.id, "digest": digest})
    monkeypatch.setattr("quotas.metering.queries.exports.USAGE_PAGE_ROWS", 2)
    now = utc_now()
    pieces = list(iter_usage_csv(tenant_id=tenant.id, from_at=now - HOUR, to_at=now + HOUR))
    assert len(pieces) == 4
    rows = list(csv.DictReader(StringIO("".join(pieces))))
    assert sum(parse_amount(row["charged"]) for row in rows) == 6 * 20_000
    assert {row["model"] for row in rows} == {made.slug for made in models}
    assert rows[0]["currency"] == "USD"
    one = iter_usage_csv(
        tenant_id=tenant.id, from_at=now - HOUR, to_at=now + HOUR, models=[models[0].slug], api_keys=[key.id]
    )
    assert "".join(one).count("\r\n") == 2
    assert (
        "".join(iter_usage_csv(tenant_id=tenant.id, from_at=now + HOUR, to_at=now + DAY)).count("\r\n") == 1
    )
