"""Rows of the fleet for tests, and the reference that costs are compared with."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction
from math import floor
from typing import Any

from models_catalog.fleet.commission.sweep import Measured
from models_catalog.fleet.curve import CurvePoint
from models_catalog.models import (
    CapacityVersion,
    CatalogModel,
    Deployment,
    Engine,
    PoolCostVersion,
    ServingBackend,
    ServingPool,
)
from models_catalog.tests.catalog_files import fresh_name

PAST = datetime(2026, 1, 1, tzinfo=UTC)
FUTURE = datetime(2099, 1, 1, tzinfo=UTC)


MEASURED = Measured(
    points=(
        CurvePoint(1, 40, 55, 10_000, 95.5),
        CurvePoint(2, 45, 70, 11_000, 180.0),
        CurvePoint(4, 60, 2_345, 15_000, 240.0),
    ),
    prompt_tokens=256,
    output_tokens=128,
    prefill_ns=250_000,
    certified_concurrency=2,
    certified_tokens_per_s=202,
    input_weight=60,
    cached_weight=6,
    spent_prompt_tokens=12_345,
    spent_output_tokens=6_789,
    took_s=61.0,
    ended="the first token came too late",
)


def make_pool() -> ServingPool:
    return ServingPool.objects.create(
        code=f"pool-{fresh_name()}", name="Pool", accelerator_kind="NVIDIA H100", region="test-1"
    )


def make_backend(pool: ServingPool, **fields: Any) -> ServingBackend:
    values = {"engine": Engine.VLLM, "base_url": "http://127.0.0.1:9", "max_concurrency": 8} | fields
    return ServingBackend.objects.create(code=f"backend-{fresh_name()}", pool=pool, **values)


def make_model() -> CatalogModel:
    return CatalogModel.objects.create(
        slug=f"fleet/m-{fresh_name()}",
        display_name="M",
        context_tokens=4096,
        max_output_tokens=1024,
        default_output_cap_tokens=256,
    )


def make_deployment(backend: ServingBackend) -> Deployment:
    return Deployment.objects.create(model=make_model(), backend=backend, upstream_model="m")


def make_cost(pool: ServingPool, **fields: Any) -> PoolCostVersion:
    """Eight accelerators at 2.00 and 0.50 an hour each, 10 kW at PUE 1.25 and 0.12 a kWh: 21.50 an hour."""
    values = {
        "currency": "USD",
        "accelerators": 8,
        "depreciation_nanos_per_accelerator_hour": 2 * 10**9,
        "other_nanos_per_accelerator_hour": 5 * 10**8,
        "power_watts": 10_000,
        "pue_thousandths": 1250,
        "energy_nanos_per_kwh": 12 * 10**7,
        "active_from": PAST,
    } | fields
    return PoolCostVersion.objects.create(pool=pool, **values)


def make_capacity(deployment: Deployment, **fields: Any) -> CapacityVersion:
    values = {
        "reserved_ppm": 500_000,
        "input_weight": 250,
        "cached_weight": 25,
        "output_weight": 1000,
        "capacity_tokens_per_s": 2000,
        "active_from": PAST,
    } | fields
    return CapacityVersion.objects.create(deployment=deployment, **values)


def reference_parts(
    accelerators: int, depreciation: int, other: int, watts: int, pue: int, energy: int, seconds: int
) -> tuple[int, int, int, int]:
    """Total, depreciation, energy and other of a pool, worked out in exact fractions."""
    hours = Fraction(seconds, 3600)
    exact = [
        accelerators * depreciation * hours,
        Fraction(watts, 1000) * Fraction(pue, 1000) * energy * hours,
        accelerators * other * hours,
    ]
    total = floor(sum(exact) + Fraction(1, 2))
    parts = [floor(part) for part in exact]
    by_remainder = sorted(range(3), key=lambda n: (parts[n] - exact[n], n))
    for n in by_remainder[: total - sum(parts)]:
        parts[n] += 1
    return total, parts[0], parts[1], parts[2]
