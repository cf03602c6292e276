"""The floor's books: the last hour's money minute by minute, and the break-even, worked out by hand."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from uuid import UUID

import pytest

from models_catalog.models import CatalogModel, Deployment
from portal.kit.clock import utc_now
from quotas.business.floor import FloorPool, FloorReader, Sold
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
from quotas.models import AttemptOutcome
from quotas.tests.doors import settle_one
from tenants.scope import role_scope
from tests.factories import TenantFixture

MINUTE = timedelta(minutes=1)
IN, OUT = 811, 3_217


@dataclass(frozen=True, slots=True)
class Hall:
    currency: str
    model: CatalogModel
    pool_id: UUID
    deployment: Deployment
    tenant: TenantFixture


@pytest.fixture
def hall(database: None) -> Hall:
    """A pool of two accelerators, 3.60 and 1.20 an hour each, with one deployment."""
    currency = new_currency()
    model = make_model(currency, price_in=IN * 10**6, price_out=OUT * 10**6)
    pool_id = make_pool("nvidia")
    deployment = deploy(model, pool_id)
    since = first_hour() - HOUR
    cost(
        pool_id,
        currency,
        since,
        accelerators=2,
        depreciation_nanos_per_accelerator_hour=3_600_000_000,
        other_nanos_per_accelerator_hour=1_200_000_000,
        power_watts=1_000,
        pue_thousandths=1_500,
        energy_nanos_per_kwh=100_000_000,
    )
    capacity(
        deployment,
        since,
        reserved_ppm=1_000_000,
        input_weight=1_000,
        cached_weight=100,
        output_weight=4_000,
        capacity_tokens_per_s=700,
    )
    tenant = make_tenant(currency, [model], paid_nanos=10**12)
    return Hall(currency, model, pool_id, deployment, tenant)


def read(reader: FloorReader, hall: Hall, ahead: timedelta = timedelta()) -> FloorPool:
    with role_scope("operator"):
        books = reader.read(now=utc_now() + ahead)
    (pool,) = (pool for pool in books.pools if pool.id == hall.pool_id)
    return pool


def call(
    hall: Hall, ago: timedelta, prompt: int, completion: int, tenant: TenantFixture | None = None
) -> Call:
    tries = (Try(hall.deployment, prompt, completion),)
    return Call(utc_now() - ago, tenant or hall.tenant, hall.model, tries, prompt, completion)


def test_the_last_hour_by_hand(hall: Hall) -> None:
    granted = make_tenant(hall.currency, [hall.model], granted_nanos=1_000, paid_nanos=10**9)
    for one in (
        call(hall, 61 * MINUTE, 5_000, 500),
        call(hall, 50 * MINUTE, 10, 20),
        call(hall, 7 * MINUTE, 100, 1),
        call(hall, timedelta(seconds=2), 3, 30),
        # Of this one the first thousand nano-units are no revenue.
        call(hall, timedelta(seconds=1), 1, 1, granted),
    ):
        make(one)
    pool = read(FloorReader(), hall)
    assert pool.earned == {hall.currency: 114 * IN + 52 * OUT - 1_000}
    # 2 × 4.80, and 1 kW × 1.5 × 0.10.
    assert (pool.currency, pool.cost_nanos_per_hour) == (hall.currency, 9_750_000_000)
    assert pool.capacity_tokens_per_s == 700
    assert pool.margin_nanos_per_hour == 114 * IN + 52 * OUT - 1_000 - 9_750_000_000
    assert (pool.sold, pool.breakeven_ppm) == ({}, None)


def test_what_is_settled_later_is_seen_later(hall: Hall) -> None:
    reader = FloorReader()
    assert read(reader, hall).earned == {}
    make(call(hall, timedelta(0), 10, 0))
    # Within a few seconds nobody asks again.
    assert read(reader, hall).earned == {}
    assert read(reader, hall, timedelta(seconds=5)).earned == {hall.currency: 10 * IN}
    # A long call: its minute was over and read before it was settled.
    long = call(hall, 4 * MINUTE, 100, 100)
    with clock_at(long.at) as dataplane:
        row = admit(dataplane, long)
    assert read(reader, hall, timedelta(seconds=10)).earned == {hall.currency: 10 * IN}
    with clock_at(utc_now()) as dataplane:
        settle_one(dataplane, row)
    after = {hall.currency: 110 * IN + 100 * OUT}
    assert read(reader, hall, 2 * MINUTE).earned == after
    assert read(reader, hall, 50 * MINUTE).earned == after
    assert read(reader, hall, 58 * MINUTE).earned == {hall.currency: 10 * IN}
    assert read(reader, hall, 62 * MINUTE).earned == {}


def test_a_call_counts_for_the_deployment_that_served_it(hall: Hall) -> None:
    other_pool = make_pool("ascend")
    other = deploy(hall.model, other_pool)
    tries = (Try(hall.deployment, None, None, AttemptOutcome.BACKEND_FAILED), Try(other, 10, 10))
    make(Call(utc_now(), hall.tenant, hall.model, tries, 10, 10))
    reader = FloorReader()
    assert read(reader, hall).earned == {}
    with role_scope("operator"):
        books = reader.read(now=utc_now())
    (pool,) = (pool for pool in books.pools if pool.id == other_pool)
    assert pool.earned == {hall.currency: 10 * IN + 10 * OUT}
    assert (pool.currency, pool.cost_nanos_per_hour, pool.margin_nanos_per_hour) == ("", None, None)


def test_the_break_even_by_hand(hall: Hall) -> None:
    hour = first_hour()
    tries = (Try(hall.deployment, 1_000, 2_000),)
    make(Call(hour + MINUTE, hall.tenant, hall.model, tries, 1_000, 2_000, output_cap=2_000))
    allocate([hour])
    pool = read(FloorReader(), hall)
    revenue, weighted = 1_000 * IN + 2_000 * OUT, 1_000 + 2_000 * 4
    assert pool.sold == {hall.currency: Sold(revenue, weighted * 1_000)}
    full_hour = Fraction(revenue, weighted) * 700 * 3_600
    assert pool.breakeven_ppm == round(9_750_000_000 / full_hour * 1_000_000)
    assert pool.earned == {}
