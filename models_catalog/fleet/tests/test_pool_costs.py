"""What a pool costs: exact to the nano-unit, its parts add up, and what was in force stays as it was."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import DataError, IntegrityError, connections, transaction
from hypothesis import given, settings
from hypothesis import strategies as st

from models_catalog.fleet.tests.rows import FUTURE, PAST, make_cost, make_pool, reference_parts
from models_catalog.models import PoolCostVersion
from models_catalog.models.costs import (
    MAX_ACCELERATORS,
    MAX_NANOS_PER_ACCELERATOR_HOUR,
    MAX_NANOS_PER_KWH,
    MAX_POWER_WATTS,
    MAX_PUE_THOUSANDTHS,
)
from models_catalog.tests.price_drafts import undone
from portal.kit.clock import utc_now
from tenants.scope import role_scope

pytestmark = pytest.mark.usefixtures("database")

DAY_S = 86_400


def ask(statement: str, *parameters: Any) -> Any:
    with role_scope("operator"), connections["operator"].cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchone()


def parts(*values: int) -> Any:
    return ask("SELECT * FROM catalog_cost_parts(%s, %s, %s, %s, %s, %s, %s)", *values)


def bounded(high: int) -> st.SearchStrategy[int]:
    return st.one_of(st.integers(0, 3), st.integers(0, high), st.just(high))


@given(
    accelerators=bounded(MAX_ACCELERATORS),
    depreciation=bounded(MAX_NANOS_PER_ACCELERATOR_HOUR),
    other=bounded(MAX_NANOS_PER_ACCELERATOR_HOUR),
    watts=bounded(MAX_POWER_WATTS),
    pue=st.integers(1000, MAX_PUE_THOUSANDTHS),
    energy=bounded(MAX_NANOS_PER_KWH),
    seconds=bounded(DAY_S),
)
@settings(max_examples=300, deadline=None)
def test_costs_equal_the_reference_and_their_parts_add_up(**values: int) -> None:
    found = parts(*values.values())
    assert found == reference_parts(*values.values())
    assert found[0] == sum(found[1:])
    assert all(nanos >= 0 for nanos in found)


def test_the_dearest_day_fits_64_bits() -> None:
    rate = MAX_NANOS_PER_ACCELERATOR_HOUR
    found = parts(
        MAX_ACCELERATORS, rate, rate, MAX_POWER_WATTS, MAX_PUE_THOUSANDTHS, MAX_NANOS_PER_KWH, DAY_S
    )
    assert 2**62 < found[0] < 2**63


@pytest.mark.parametrize("seconds", [-1, DAY_S + 1, None])
def test_other_spans_are_refused(seconds: int | None) -> None:
    with pytest.raises(DataError, match="0 to 86400 seconds"):
        ask("SELECT * FROM catalog_cost_parts(1, 1, 1, 1, 1000, 1, %s)", seconds)


def test_the_cost_of_a_version() -> None:
    with undone():
        version = make_cost(make_pool())
        assert ask("SELECT catalog_pool_cost_nanos(%s, 3600)", version.id) == (21_500_000_000,)
        assert ask("SELECT * FROM catalog_pool_cost_parts(%s, 1800)", version.id) == (
            10_750_000_000,
            8_000_000_000,
            750_000_000,
            2_000_000_000,
        )


def test_no_version_no_cost() -> None:
    assert ask("SELECT catalog_pool_cost_nanos(gen_random_uuid(), 3600)") == (None,)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("currency", "usd"),
        ("accelerators", 0),
        ("accelerators", MAX_ACCELERATORS + 1),
        ("depreciation_nanos_per_accelerator_hour", -1),
        ("depreciation_nanos_per_accelerator_hour", MAX_NANOS_PER_ACCELERATOR_HOUR + 1),
        ("other_nanos_per_accelerator_hour", -1),
        ("power_watts", MAX_POWER_WATTS + 1),
        ("pue_thousandths", 999),
        ("pue_thousandths", MAX_PUE_THOUSANDTHS + 1),
        ("energy_nanos_per_kwh", -1),
        ("energy_nanos_per_kwh", MAX_NANOS_PER_KWH + 1),
        ("active_from", PAST + timedelta(microseconds=1)),
        ("active_to", FUTURE + timedelta(milliseconds=1)),
        ("active_to", PAST - timedelta(seconds=1)),
    ],
)
def test_the_database_keeps_the_bounds(field: str, value: object) -> None:
    with undone(), pytest.raises(IntegrityError, match="poolcost_"), transaction.atomic(using="operator"):
        make_cost(make_pool(), **{field: value})


def test_one_cost_at_a_time_whatever_the_currency() -> None:
    with undone():
        pool = make_pool()
        make_cost(pool, active_to=FUTURE)
        make_cost(pool, active_from=FUTURE, currency="CNY")
        make_cost(make_pool())
        with pytest.raises(IntegrityError, match="poolcost_no_overlap"), transaction.atomic(using="operator"):
            make_cost(pool, active_from=FUTURE - timedelta(seconds=1), active_to=FUTURE, currency="CNY")


@pytest.mark.parametrize(
    "change",
    [
        "accelerators = accelerators + 1",
        "depreciation_nanos_per_accelerator_hour = 0",
        "currency = 'CNY'",
        "active_from = active_from + interval '1 second'",
        "owner = 'somebody'",
        "created_at = now() - interval '1 day'",
        "active_to = date_trunc('second', now()) - interval '1 second'",
    ],
)
def test_a_version_never_changes(change: str) -> None:
    # As the owner: operators are not even granted more than the end.
    with role_scope("owner"), transaction.atomic(using="owner"), connections["owner"].cursor() as cursor:
        version = make_cost(make_pool())
        with pytest.raises(IntegrityError, match="only an end"), transaction.atomic(using="owner"):
            cursor.execute(f"UPDATE models_catalog_poolcostversion SET {change} WHERE id = %s", [version.id])
        with pytest.raises(IntegrityError, match="cannot be deleted"), transaction.atomic(using="owner"):
            cursor.execute("DELETE FROM models_catalog_poolcostversion WHERE id = %s", [version.id])
        transaction.set_rollback(True, using="owner")


def test_an_end_may_be_set_and_moved_until_it_has_passed() -> None:
    soon = utc_now().replace(microsecond=0) + timedelta(hours=1)
    with undone():
        version = make_cost(make_pool())
        rows = PoolCostVersion.objects.filter(id=version.id)
        assert rows.update(active_to=FUTURE) == 1
        assert rows.update(active_to=soon) == 1
        ended = PoolCostVersion.objects.filter(id=make_cost(make_pool(), active_to=PAST).id)
        for rows_, value in ((rows, None), (ended, FUTURE), (ended, None)):
            with pytest.raises(IntegrityError, match="only an end"), transaction.atomic(using="operator"):
                rows_.update(active_to=value)
