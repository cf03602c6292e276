"""Hours are allocated again and again until they are final, late truths come in, and nothing else adds up."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connections, transaction

from models_catalog.models import CapacityVersion, PoolCostVersion, ServingBackend
from portal.kit.clock import utc_now
from quotas import audit
from quotas.business.operations import allocate_hour, allocate_hours
from quotas.business.queries import CostGap, business_report, model_cost, model_cost_gap
from quotas.business.tests.centre import (
    HOUR,
    Call,
    Try,
    admit,
    allocate,
    capacity,
    clock_at,
    cost,
    deploy,
    first_hour,
    make,
    make_model,
    make_pool,
    make_tenant,
    new_currency,
)
from quotas.ledger import operations as ledger
from quotas.models import AllocatedHour, AttemptOutcome
from quotas.tests.doors import settle_one, sweep_of
from tenants.scope import role_scope
from tests import factories
from tests.database import connected, rows_of

pytestmark = pytest.mark.usefixtures("database")

CHEAP = {
    "accelerators": 1,
    "depreciation_nanos_per_accelerator_hour": 3_600_000,
    "power_watts": 0,
    "energy_nanos_per_kwh": 0,
}
PLAIN = {"input_weight": 1_000, "cached_weight": 1_000, "output_weight": 1_000, "reserved_ppm": 1_000_000}


class Shop:
    """One model on one pool in an hour long ago, and one organization."""

    def __init__(self, *, currency: str | None = None, cost_currency: str | None = None) -> None:
        self.hour = first_hour() + 8 * HOUR
        self.currency = currency or new_currency()
        self.model = make_model(self.currency, price_in=10**9, price_out=2 * 10**9)
        self.pool_id = make_pool("pool")
        self.deployment = deploy(self.model, self.pool_id)
        self.tenant = make_tenant(self.currency, [self.model], paid_nanos=10**12)
        self.cost_currency = cost_currency or self.currency

    def equip(self) -> tuple[PoolCostVersion, CapacityVersion]:
        end = self.hour + HOUR
        return (
            cost(self.pool_id, self.cost_currency, self.hour, end, **CHEAP),
            capacity(self.deployment, self.hour, end, **PLAIN, capacity_tokens_per_s=10),
        )

    def call(self, tokens: int = 1_000, **options: Any) -> Call:
        moment = self.hour + timedelta(minutes=5)
        tries = (Try(self.deployment, tokens, 1),)
        return Call(moment, self.tenant, self.model, tries, tokens, 1, **options)

    def line(self, currency: str | None = None) -> Any:
        """The only line of a report by model; None when there is none."""
        with role_scope("operator"):
            report = business_report(
                from_=self.hour, to=self.hour + HOUR, group_by="model", currency=currency or self.currency
            )
        return next((line for line in report.lines if line.key == self.model.id), None)


def state_of(hour: datetime) -> dict[str, Any]:
    (row,) = rows_of("quotas_allocatedhour", hour=hour)
    return row


def fact_of(shop: Shop) -> dict[str, Any]:
    (row,) = rows_of("quotas_businesshour", hour=shop.hour, tenant_id=shop.tenant.id)
    return row


def gap_of(shop: Shop, *, currency: str | None = None) -> CostGap | None:
    """Why it is not known what the model's calls of the hour cost."""
    period = {"from_": shop.hour, "to": shop.hour + HOUR}
    with role_scope("operator"):
        return model_cost_gap(model_id=shop.model.id, **period, currency=currency or shop.currency)


def test_allocating_again_changes_nothing() -> None:
    shop = Shop()
    shop.equip()
    make(shop.call())
    allocate([shop.hour])
    first, mark = fact_of(shop), state_of(shop.hour)["mark"]
    allocate([shop.hour])
    assert (fact_of(shop), state_of(shop.hour)["mark"]) == (first, mark)
    # 1,001 of the 36,000 tokens that were certified, of 3,600,000 nano-units.
    assert first["cost_nanos"] == 100_100
    assert first["revenue_nanos"] == 1_000 * 1_000 + 2_000


def catch_up(now: datetime) -> None:
    """A run takes so many hours at most, and other tests may have left calls of long ago."""
    for _ in range(50):
        report = allocate_hours(now=now)
        assert report.failed == 0
        if report.allocated < 72:
            return
    raise AssertionError("the hours never end")


def test_a_run_finds_what_is_missing_open_or_late_and_then_nothing() -> None:
    shop = Shop()
    shop.equip()
    make(shop.call())
    now = utc_now()
    catch_up(now)
    assert state_of(shop.hour)["is_final"]
    open_hours = [row["hour"] for row in rows_of("quotas_allocatedhour") if not row["is_final"]]
    # The hour that runs and those that ended less than the grace ago.
    assert set(open_hours) <= {now.replace(minute=0, second=0, microsecond=0) - n * HOUR for n in range(3)}
    allocated_at = state_of(shop.hour)["allocated_at"]
    report = allocate_hours(now=now)
    assert (report.allocated, report.taken, report.failed) == (len(open_hours), 0, 0)
    assert state_of(shop.hour)["allocated_at"] == allocated_at

    make(shop.call(500))
    assert allocate_hours(now=now).allocated == len(open_hours) + 1
    assert state_of(shop.hour)["allocated_at"] > allocated_at
    assert fact_of(shop)["requests"] == 2


def test_a_run_is_bounded_and_begins_with_the_newest() -> None:
    shop = Shop()
    make(shop.call())
    with role_scope("operator"):
        AllocatedHour.objects.filter(hour__gte=shop.hour).delete()
    report = allocate_hours(now=utc_now(), max_hours=2)
    assert report.allocated == 2
    with role_scope("operator"):
        newest = list(AllocatedHour.objects.filter(hour__gte=shop.hour).values_list("hour", flat=True))
    assert min(newest) > shop.hour
    allocate_hours(now=utc_now())
    assert state_of(shop.hour)["is_final"]


def test_a_late_revision_makes_a_final_hour_new() -> None:
    """The sweeper voids the call, the hour is closed, and then the gateway comes with the truth."""
    shop = Shop()
    shop.equip()
    with clock_at(shop.hour + timedelta(minutes=5)) as dataplane:
        late = admit(dataplane, shop.call(1_000))
    with connected("dataplane") as dataplane:
        settle_one(dataplane, sweep_of(late.request_id, shop.tenant.id))
        allocate_hours(now=utc_now())
        assert rows_of("quotas_businesshour", hour=shop.hour, tenant_id=shop.tenant.id) == []
        settle_one(dataplane, late)
    allocate_hours(now=utc_now())
    assert fact_of(shop)["prompt_tokens"] == 1_000
    assert fact_of(shop)["cost_nanos"] == 100_100


def test_a_version_that_was_entered_for_the_past_makes_a_final_hour_new() -> None:
    shop = Shop()
    make(shop.call())
    assert gap_of(shop) == CostGap.UNALLOCATED
    allocate_hours(now=utc_now())
    line = shop.line()
    assert (line.sums.uncosted_requests, line.margin_nanos, line.breakeven_ppm) == (1, None, None)
    with role_scope("operator"):
        period = {"from_": shop.hour, "to": shop.hour + HOUR}
        assert model_cost(model_id=shop.model.id, **period, currency=shop.currency) is None
    assert gap_of(shop) == CostGap.UNCOSTED
    shop.equip()
    allocate_hours(now=utc_now())
    assert gap_of(shop) is None
    assert gap_of(shop, currency=new_currency()) == CostGap.FOREIGN
    line = shop.line()
    assert (line.sums.uncosted_requests, line.sums.cost_nanos) == (0, 100_100)
    assert line.margin_nanos == 1_002_000 - 100_100


def test_the_hour_that_runs_is_counted_as_far_as_it_has_passed() -> None:
    shop = Shop()
    shop.equip()
    half = shop.hour + timedelta(minutes=30)
    assert allocate_hour(hour=shop.hour, now=half + timedelta(milliseconds=900))
    assert state_of(shop.hour)["covered_until"] == half
    (pool,) = rows_of("quotas_poolhour", hour=shop.hour, pool_id=shop.pool_id)
    assert pool["cost_nanos"] == 1_800_000
    with role_scope("operator"):
        report = business_report(
            from_=shop.hour, to=shop.hour + HOUR, group_by="pool", currency=shop.currency
        )
    assert report.provisional_from == shop.hour
    for moment in (shop.hour, shop.hour + timedelta(milliseconds=999)):
        with pytest.raises(ValueError, match="has begun"):
            allocate_hour(hour=shop.hour, now=moment)
    allocate([shop.hour])


def test_who_is_late_leaves_the_hour_to_the_other() -> None:
    shop = Shop()
    shop.equip()
    allocate([shop.hour])
    with connected("operator", autocommit=False) as other:
        other.execute(
            "SELECT pg_advisory_xact_lock(%s, %s)", (0x51C0_0002, int(shop.hour.timestamp()) // 3600)
        )
        assert not allocate_hour(hour=shop.hour, now=utc_now())


def test_runs_beside_each_other_end_in_the_same_figures() -> None:
    shop = Shop()
    shop.equip()
    make(shop.call())
    with role_scope("operator"):
        AllocatedHour.objects.filter(hour__gte=shop.hour - 3 * HOUR).delete()
    reports = []

    def run() -> None:
        try:
            reports.append(allocate_hours(now=utc_now()))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [report.failed for report in reports] == [0] * 4
    assert fact_of(shop)["cost_nanos"] == 100_100
    assert [result.code for result in audit.run() if not result.holds] == []


def test_a_deployment_that_moved_keeps_its_pool_in_hours_that_were_allocated() -> None:
    shop = Shop()
    shop.equip()
    make(shop.call())
    allocate([shop.hour])
    other = make_pool("other")
    with role_scope("operator"):
        backend = shop.deployment.backend
        backend.pool_id = other
        backend.save(update_fields=["pool_id"])
    make(shop.call())
    allocate([shop.hour])
    (row,) = rows_of("quotas_deploymenthour", hour=shop.hour, deployment_id=shop.deployment.id)
    assert (row["pool_id"], row["cost_nanos"]) == (shop.pool_id, 3_600_000)


# --- Currencies ------------------------------------------------------------------------------------


def test_a_margin_exists_within_one_currency_only() -> None:
    shop = Shop(cost_currency=new_currency())
    shop.equip()
    make(shop.call())
    allocate([shop.hour])
    earned, spent = shop.line(shop.currency), shop.line(shop.cost_currency)
    assert (earned.sums.revenue_nanos, earned.sums.cost_nanos, earned.margin_nanos) == (1_002_000, 0, None)
    assert [(one.currency, one.revenue_nanos, one.cost_nanos) for one in earned.foreign] == [
        (shop.cost_currency, 0, 100_100)
    ]
    assert (spent.sums.revenue_nanos, spent.sums.cost_nanos, spent.margin_nanos) == (0, 100_100, None)
    assert [(one.currency, one.revenue_nanos, one.cost_nanos) for one in spent.foreign] == [
        (shop.currency, 1_002_000, 0)
    ]
    with role_scope("operator"):
        report = business_report(
            from_=shop.hour, to=shop.hour + HOUR, group_by="pool", currency=shop.cost_currency
        )
    assert report.totals.margin_nanos is None
    assert {shop.currency, shop.cost_currency} <= set(report.currencies)


def test_free_calls_cost_what_they_cost_in_any_currency() -> None:
    """Granted credit earns nothing anywhere, so there is nothing that would have to be converted."""
    shop = Shop(cost_currency=new_currency())
    shop.equip()
    free = make_tenant(shop.currency, [shop.model], granted_nanos=10**12)
    moment = shop.hour + timedelta(minutes=5)
    make(Call(moment, free, shop.model, (Try(shop.deployment, 1_000, 1),), 1_000, 1))
    allocate([shop.hour])
    line = shop.line(shop.cost_currency)
    assert (line.foreign, line.margin_nanos) == ((), -100_100)


def test_a_pool_changes_its_currency_at_a_full_hour_only() -> None:
    shop = Shop()
    half = shop.hour + timedelta(minutes=30)
    cost(shop.pool_id, shop.currency, shop.hour, half, **CHEAP)
    with pytest.raises(IntegrityError, match="poolcost_one_currency_an_hour"):
        cost(shop.pool_id, new_currency(), half, shop.hour + HOUR, **CHEAP)
    cost(shop.pool_id, new_currency(), shop.hour + HOUR, shop.hour + 2 * HOUR, **CHEAP)


# --- Goodwill and fees -----------------------------------------------------------------------------


def test_goodwill_and_fees_are_lines_of_their_own() -> None:
    shop = Shop()
    now = utc_now()
    with role_scope("operator"):
        ledger.grant_credit(
            tenant_id=shop.tenant.id, amount_nanos=5, key=f"test:{shop.tenant.id}", reason="no goodwill"
        )
        with connections["operator"].cursor() as cursor:
            cursor.execute(
                "SELECT quotas_post(array_agg(ROW(quotas_transfer_id('ADJUSTMENT', %(key)s), 'ADJUSTMENT', "
                "%(tenant)s, %(currency)s, NULL, NULL, 'sorry', kind, owner, amount)::quotas_leg)) "
                "FROM (VALUES ('GRANTED', %(tenant)s::uuid, 70), ('GOODWILL', NULL, -70)) "
                "AS leg(kind, owner, amount)",
                {"tenant": shop.tenant.id, "currency": shop.currency, "key": f"test:{shop.tenant.id}"},
            )
        report = business_report(from_=now - HOUR, to=now + HOUR, group_by="tenant", currency=shop.currency)
    (line,) = report.lines
    assert (line.key, line.goodwill_nanos, line.fees_nanos) == (shop.tenant.id, 70, 0)
    assert (report.totals.goodwill_nanos, report.totals.fees_nanos) == (70, 0)
    assert (line.sums.revenue_nanos, line.margin_nanos) == (0, 0)


# --- The database keeps the sums -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("UPDATE quotas_poolhour SET cost_nanos = cost_nanos + 1", "append-only"),
        ("UPDATE quotas_deploymenthour SET idle_nanos = idle_nanos + 1", "append-only"),
        ("UPDATE quotas_businesshour SET cost_nanos = cost_nanos + 1", "append-only"),
        ("UPDATE quotas_allocatedhour SET is_final = false", "append-only"),
        ("DELETE FROM quotas_businesshour WHERE hour = %(hour)s", "is not what it sold"),
        ("DELETE FROM quotas_deploymenthour WHERE hour = %(hour)s", "are not its cost"),
        (
            "INSERT INTO quotas_poolhour (hour, pool_id, currency, cost_nanos, unreserved_nanos) "
            "VALUES (%(hour)s, %(pool)s, 'USD', 5, 4)",
            "are not its cost",
        ),
    ],
)
def test_hours_that_do_not_add_up_are_refused(statement: str, constraint: str) -> None:
    shop = Shop()
    shop.equip()
    make(shop.call())
    allocate([shop.hour])
    pool_id = make_pool("empty")
    with (
        pytest.raises(IntegrityError, match=constraint),
        transaction.atomic(using="owner"),
        connections["owner"].cursor() as cursor,
    ):
        cursor.execute(statement, {"hour": shop.hour, "pool": pool_id})


def test_the_audit_names_a_pool_and_a_deployment_whose_sums_were_bent() -> None:
    shop = Shop()
    shop.equip()
    make(shop.call())
    allocate([shop.hour])
    for table in ("poolhour", "businesshour"):
        with transaction.atomic(using="owner"), connections["owner"].cursor() as cursor:
            cursor.execute(f"ALTER TABLE quotas_{table} DISABLE TRIGGER USER")
            cursor.execute(
                f"UPDATE quotas_{table} SET cost_nanos = cost_nanos + 1 WHERE hour = %s AND cost_nanos > 0",
                (shop.hour,),
            )
            broken = [result.code for result in audit.run(using="owner") if not result.holds]
            transaction.set_rollback(True, using="owner")
        assert broken == ["I16"]


def test_attempts_that_delivered_nothing_weigh_nothing() -> None:
    shop = Shop()
    shop.equip()
    other = deploy(make_model(shop.currency, price_in=1, price_out=1), shop.pool_id)
    tries = (
        Try(shop.deployment, 900, 0, outcome=AttemptOutcome.BACKEND_FAILED),
        Try(shop.deployment, 1_000, 1),
    )
    make(Call(shop.hour + timedelta(minutes=5), shop.tenant, shop.model, tries, 1_000, 1))
    allocate([shop.hour])
    assert fact_of(shop)["weighted"] == 1_001_000
    assert rows_of("quotas_businesshour", hour=shop.hour, deployment_id=other.id) == []


def test_sums_may_be_larger_than_what_one_hour_can_hold() -> None:
    model, tenant = factories.make_model(), factories.make_tenant()
    most, hours = 4 * 10**18, [datetime(2001, 1, 1, hour, tzinfo=UTC) for hour in range(3)]
    with role_scope("operator"), transaction.atomic(using="operator"):
        (pool_id,) = ServingBackend.objects.filter(id=model.backend_id).values_list("pool_id", flat=True)
        with connections["operator"].cursor() as cursor:
            for hour in hours:
                cursor.execute(
                    "INSERT INTO quotas_allocatedhour VALUES (%s, %s, true, '', now())", [hour, hour + HOUR]
                )
                cursor.execute(
                    "INSERT INTO quotas_poolhour VALUES (%s, %s, 'USD', %s, 0)", [hour, pool_id, most]
                )
                cursor.execute(
                    "INSERT INTO quotas_deploymenthour (hour, deployment_id, pool_id, backend_id, model_id, "
                    "capacity, weighted, cost_nanos, idle_nanos) VALUES (%s, %s, %s, %s, %s, 1, 1, %s, 0)",
                    [hour, model.deployment_id, pool_id, model.backend_id, model.id, most],
                )
                cursor.execute(
                    "INSERT INTO quotas_businesshour (hour, deployment_id, tenant_id, requests, "
                    "uncosted_requests, prompt_tokens, cached_tokens, completion_tokens, weighted, currency, "
                    "revenue_nanos, granted_nanos, overrun_nanos, cost_nanos) "
                    "VALUES (%s, %s, %s, 1, 0, 1, 0, 1, 1, 'USD', 0, 0, 0, %s)",
                    [hour, model.deployment_id, tenant.id, most],
                )
        report = business_report(from_=hours[0], to=hours[-1] + HOUR, group_by="model", currency="USD")
        transaction.set_rollback(True, using="operator")
    assert report.totals.sums.cost_nanos == report.totals.pool_cost_nanos == len(hours) * most
