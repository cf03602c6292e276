"""Three pools (NVIDIA, Ascend, Xeon) for four hours: every figure equals a calculation by hand, to the
nano-unit."""

from __future__ import annotations

from fractions import Fraction
from math import floor
from uuid import UUID

import pytest

from quotas.business.figures import GroupBy
from quotas.business.queries import business_report, business_slots, model_cost
from quotas.business.tests.by_hand import Row
from quotas.business.tests.centre import HOUR, new_currency
from quotas.business.tests.three_pools import Centre, make_centre
from tenants.scope import role_scope
from tests.database import rows_of

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture(scope="module")
def centre(database: None) -> Centre:
    return make_centre()


KEYS: dict[GroupBy, str] = {"model": "model_id", "tenant": "tenant", "pool": "pool", "backend": "backend_id"}


def expected(centre: Centre, group_by: GroupBy) -> dict[UUID, Row]:
    by_id = {one.id: one for one in centre.deployments.values()}
    if group_by == "tenant":
        return centre.figures.by(lambda _deployment_id, tenant_id: tenant_id)
    if group_by == "pool":
        return centre.figures.by(lambda deployment_id, _tenant_id: centre.pool_of[deployment_id])
    return centre.figures.by(lambda deployment_id, _tenant_id: getattr(by_id[deployment_id], KEYS[group_by]))


@pytest.mark.parametrize("group_by", list(KEYS))
def test_every_figure_equals_the_calculation_by_hand(centre: Centre, group_by: GroupBy) -> None:
    report = centre.report(group_by)
    wanted = expected(centre, group_by)
    assert {line.key for line in report.lines} == set(wanted)
    for line in report.lines:
        assert line.key is not None
        row, sums = wanted[line.key], line.sums
        assert (sums.requests, sums.prompt_tokens, sums.cached_tokens, sums.completion_tokens) == (
            row.requests,
            row.prompt,
            row.cached,
            row.completion,
        )
        assert sums.weighted == row.weighted
        assert (sums.revenue_nanos, sums.granted_nanos, sums.overrun_nanos) == (
            row.revenue,
            row.granted,
            row.overrun,
        )
        assert sums.cost_nanos == row.cost
        assert line.margin_nanos == row.revenue - row.cost
        assert line.foreign == ()
        assert sums.uncosted_requests == 0
    # The scenario has all of it: free and paid credit, overrun, cost.
    everything = report.totals.sums
    assert min(everything.revenue_nanos, everything.granted_nanos, everything.overrun_nanos) > 0


@pytest.mark.parametrize("group_by", list(KEYS))
def test_allocated_and_idle_are_the_cost(centre: Centre, group_by: GroupBy) -> None:
    totals, figures = centre.report(group_by).totals, centre.figures
    assert totals.sums.cost_nanos == sum(row.cost for row in figures.rows.values())
    assert totals.idle_nanos == sum(figures.idle.values())
    assert totals.unreserved_nanos == sum(figures.unreserved.values())
    assert totals.pool_cost_nanos == sum(figures.pool_costs.values())
    assert totals.sums.cost_nanos + totals.idle_nanos + totals.unreserved_nanos == totals.pool_cost_nanos
    assert totals.margin_nanos == totals.sums.revenue_nanos - totals.pool_cost_nanos
    # Every hour for itself, too, and the one that sold more than is certified has no idle line.
    cpu = centre.deployments["xeon cpu"].id
    assert figures.idle[centre.hours[3], cpu] == 0 < figures.idle[centre.hours[2], cpu]
    for hour in centre.hours:
        for pool_id in centre.pools.values():
            (stored,) = rows_of("quotas_poolhour", hour=hour, pool_id=pool_id)
            assert stored["cost_nanos"] == figures.pool_costs[hour, pool_id]
            assert stored["unreserved_nanos"] == figures.unreserved[hour, pool_id]


def test_idle_capacity_has_lines_of_its_own(centre: Centre) -> None:
    report, figures = centre.report("pool"), centre.figures
    for line in report.lines:
        idle = sum(nanos for (_hour, one), nanos in figures.idle.items() if centre.pool_of[one] == line.key)
        assert line.idle_nanos == idle
    assert {one.pool_id: one.cost_nanos for one in report.unreserved} == {
        centre.pools[kind]: sum(
            nanos for (_hour, pool_id), nanos in figures.unreserved.items() if pool_id == centre.pools[kind]
        )
        # From its purchase on, all of the Xeon pool is reserved.
        for kind in ("nvidia", "ascend")
    }


def test_break_even_is_where_what_is_reserved_pays_for_itself(centre: Centre) -> None:
    for line in centre.report("model").lines:
        ids = {one.id for one in centre.deployments.values() if one.model_id == line.key}
        reserved = sum(n for (_h, one), n in centre.figures.reserved.items() if one in ids)
        certified = sum(n for (_h, one), n in centre.figures.capacity.items() if one in ids)
        rows = [row for (_h, one, _t), row in centre.figures.rows.items() if one in ids]
        weighted, revenue = sum(row.weighted for row in rows), sum(row.revenue for row in rows)
        breakeven = Fraction(reserved) / (Fraction(revenue, weighted) * certified)
        assert line.capacity is not None
        assert line.breakeven_ppm == floor(breakeven * 10**6 + Fraction(1, 2))
        assert line.capacity.utilisation_ppm == floor(Fraction(weighted * 10**6, certified) + Fraction(1, 2))
        # At or above it the reserved capacity is paid for, below it is not.
        assert (Fraction(weighted, certified) >= breakeven) == (revenue >= reserved)


def test_what_was_earned_and_granted_is_what_the_rollups_charged(centre: Centre) -> None:
    for line in centre.report("tenant").lines:
        rollups = rows_of("quotas_usagerollup", tenant_id=line.key)
        assert line.sums.revenue_nanos + line.sums.granted_nanos == sum(r["charged_nanos"] for r in rollups)
        assert line.sums.requests == sum(r["requests"] for r in rollups)
        assert line.sums.overrun_nanos == sum(r["cost_nanos"] - r["charged_nanos"] for r in rollups)


def test_the_cost_of_a_model_is_what_its_calls_cost(centre: Centre) -> None:
    wanted = expected(centre, "model")
    for model in centre.models.values():
        with role_scope("operator"):
            period = {"from_": centre.hours[0], "to": centre.hours[-1] + HOUR}
            found = model_cost(model_id=model.id, **period, currency=centre.currency)
            assert found == wanted[model.id].cost
            assert model_cost(model_id=model.id, **period, currency=new_currency()) is None


def test_slots_of_the_chart_sum_to_the_report(centre: Centre) -> None:
    totals = centre.report("model").totals
    with role_scope("operator"):
        slots = business_slots(
            from_=centre.hours[0], to=centre.hours[-1] + HOUR, currency=centre.currency, bucket="hour"
        )
    assert [slot.start for slot in slots] == list(centre.hours)
    assert sum(slot.revenue_nanos for slot in slots) == totals.sums.revenue_nanos
    assert sum(slot.cost_nanos for slot in slots) == totals.sums.cost_nanos
    assert sum(slot.idle_nanos for slot in slots) == totals.idle_nanos + totals.unreserved_nanos


def test_a_report_is_of_the_hours_that_begin_in_it(centre: Centre) -> None:
    with role_scope("operator"):
        reports = [
            business_report(from_=hour, to=hour + HOUR, group_by="model", currency=centre.currency)
            for hour in centre.hours
        ]
    assert (
        sum(one.totals.sums.revenue_nanos for one in reports)
        == centre.report("model").totals.sums.revenue_nanos
    )
    assert {one.currencies for one in reports} >= {tuple(sorted(set(reports[0].currencies)))}
