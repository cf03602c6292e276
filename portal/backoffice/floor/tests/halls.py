"""A pool that can be looked at: a deployment on an engine, with a certified capacity and a cost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from models_catalog.models import CapacityVersion, PoolCostVersion, ServingBackend
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id
from tenants.scope import role_scope
from tests.factories import ModelFixture, make_backend, make_model

INPUT_WEIGHT, CACHED_WEIGHT, OUTPUT_WEIGHT = 1_000, 100, 4_000


@dataclass(frozen=True, slots=True)
class Hall:
    pool_id: str
    model: ModelFixture
    cost_nanos_per_hour: int
    capacity_tokens_per_s: int


def make_hall(
    base_url: str = "http://127.0.0.1:9",
    *,
    code: str = "",
    engine: str = "vllm",
    currency: str = "USD",
    capacity_tokens_per_s: int = 400,
    depreciation_nanos: int = 2_500_000_000,
    is_complete: bool = True,
) -> Hall:
    """is_complete: with a capacity and a cost, since three days ago; of two accelerators, without power."""
    backend_id = make_backend(engine=engine, base_url=base_url)
    model = make_model(backend_id=backend_id)
    since = utc_now().replace(minute=0, second=0, microsecond=0) - timedelta(days=3)
    with role_scope("operator"):
        pool = ServingBackend.objects.select_related("pool").get(id=backend_id).pool
        if code:
            pool.code = code
            pool.save(update_fields=["code"])
        if is_complete:
            PoolCostVersion.objects.create(
                pool=pool,
                currency=currency,
                accelerators=2,
                depreciation_nanos_per_accelerator_hour=depreciation_nanos,
                power_watts=0,
                energy_nanos_per_kwh=0,
                active_from=since,
            )
            CapacityVersion.objects.create(
                deployment_id=model.deployment_id,
                reserved_ppm=1_000_000,
                input_weight=INPUT_WEIGHT,
                cached_weight=CACHED_WEIGHT,
                output_weight=OUTPUT_WEIGHT,
                capacity_tokens_per_s=capacity_tokens_per_s,
                active_from=since,
            )
    return Hall(public_id(PREFIXES["pool"], pool.id), model, 2 * depreciation_nanos, capacity_tokens_per_s)
