"""Three pools (NVIDIA, Ascend, Xeon) with different costs, speeds and weights, four hours of calls on them,
and what those come to by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from models_catalog.models import CapacityVersion, CatalogModel, Deployment, PoolCostVersion
from quotas.business.figures import BusinessReport, GroupBy
from quotas.business.queries import business_report
from quotas.business.tests import by_hand
from quotas.business.tests.by_hand import Figures
from quotas.business.tests.centre import (
    HOUR,
    Call,
    Try,
    allocate,
    capacity,
    cost,
    deploy,
    first_hour,
    make,
    make_model,
    make_pool,
    make_tenant,
    new_currency,
)
from quotas.models import AttemptOutcome, Basis
from tenants.scope import role_scope
from tests.factories import TenantFixture

FAILED = AttemptOutcome.BACKEND_FAILED
# Nano-units a token: input, cached input, output.
PRICES = {"small": (811, 203, 3_217), "big": (4_001, 4_001, 16_007), "cpu": (307, 307, 907)}


@dataclass(frozen=True, slots=True)
class Centre:
    currency: str
    hours: tuple[datetime, ...]
    models: dict[str, CatalogModel]
    deployments: dict[str, Deployment]
    pools: dict[str, UUID]
    tenants: tuple[TenantFixture, ...]
    calls: tuple[Call, ...]
    figures: Figures

    @property
    def pool_of(self) -> dict[UUID, UUID]:
        return pools_of(self.pools, self.deployments)

    def report(self, group_by: GroupBy) -> BusinessReport:
        with role_scope("operator"):
            return business_report(
                from_=self.hours[0], to=self.hours[-1] + HOUR, group_by=group_by, currency=self.currency
            )


def pools_of(pools: dict[str, UUID], deployments: dict[str, Deployment]) -> dict[UUID, UUID]:
    return {deployment.id: pools[name.split()[0]] for name, deployment in deployments.items()}


def make_centre() -> Centre:
    """Everything has happened and its hours are allocated. They lie between 20 and 16 hours back."""
    currency, start = new_currency(), first_hour()
    hours = tuple(start + n * HOUR for n in range(4))
    models = {
        name: make_model(
            currency, price_in=price[0] * 10**6, price_out=price[2] * 10**6, price_cached=price[1] * 10**6
        )
        for name, price in PRICES.items()
    }
    pools = {kind: make_pool(kind) for kind in ("nvidia", "ascend", "xeon")}
    deployments = {
        name: deploy(models[name.split()[1]], pools[name.split()[0]])
        for name in ("nvidia small", "nvidia big", "ascend small", "xeon cpu")
    }
    costs = _costs(currency, pools, start)
    capacities = _capacities(deployments, start)
    tenants = (
        make_tenant(currency, list(models.values()), paid_nanos=10**12),
        # Free credit is spent first and runs out in the middle of a call.
        make_tenant(currency, list(models.values()), granted_nanos=1_234_567, paid_nanos=10**12),
    )
    calls = _calls(hours, tenants, models, deployments)
    for call in calls:
        make(call)
    allocate(hours)
    figures = by_hand.work_out(
        hours,
        calls,
        costs,
        capacities,
        pools_of(pools, deployments),
        {models[name].id: price for name, price in PRICES.items()},
        {tenants[0].id: 0, tenants[1].id: 1_234_567},
    )
    return Centre(currency, hours, models, deployments, pools, tenants, calls, figures)


def _costs(currency: str, pools: dict[str, UUID], start: datetime) -> list[PoolCostVersion]:
    # The price of energy changes within the second hour, at an odd second.
    change, end = start + HOUR + timedelta(minutes=27, seconds=13), start + 4 * HOUR
    nvidia = {
        "accelerators": 7,
        "depreciation_nanos_per_accelerator_hour": 1_150_000_007,
        "other_nanos_per_accelerator_hour": 310_000_001,
        "power_watts": 6_511,
        "pue_thousandths": 1_247,
    }
    return [
        cost(pools["nvidia"], currency, start - HOUR, change, **nvidia, energy_nanos_per_kwh=119_999_993),
        cost(pools["nvidia"], currency, change, end, **nvidia, energy_nanos_per_kwh=187_000_011),
        cost(
            pools["ascend"],
            currency,
            start,
            end,
            accelerators=16,
            depreciation_nanos_per_accelerator_hour=402_000_013,
            power_watts=5_003,
            pue_thousandths=1_103,
            energy_nanos_per_kwh=91_000_003,
        ),
        # This one is bought within the first hour.
        cost(
            pools["xeon"],
            currency,
            start + timedelta(minutes=10, seconds=1),
            end,
            accelerators=2,
            depreciation_nanos_per_accelerator_hour=61_000_003,
            power_watts=701,
            pue_thousandths=1_511,
            energy_nanos_per_kwh=119_999_993,
        ),
    ]


def _capacities(deployments: dict[str, Deployment], start: datetime) -> list[CapacityVersion]:
    shift, end = start + 2 * HOUR + timedelta(minutes=10), start + 4 * HOUR

    def weights(fresh: int, cached: int, output: int) -> dict[str, int]:
        return {"input_weight": fresh, "cached_weight": cached, "output_weight": output}

    big = deployments["nvidia big"]
    return [
        capacity(
            deployments["nvidia small"],
            start,
            end,
            **weights(1_000, 100, 4_000),
            reserved_ppm=600_000,
            capacity_tokens_per_s=40,
        ),
        capacity(
            big, start, shift, **weights(1_000, 1_000, 4_500), reserved_ppm=250_007, capacity_tokens_per_s=25
        ),
        # In the third hour it gets a greater share, other weights and is certified for more.
        capacity(
            big, shift, end, **weights(1_211, 303, 5_009), reserved_ppm=300_001, capacity_tokens_per_s=31
        ),
        capacity(
            deployments["ascend small"],
            start,
            end,
            **weights(1_000, 250, 3_500),
            reserved_ppm=500_000,
            capacity_tokens_per_s=30,
        ),
        capacity(
            deployments["xeon cpu"],
            start,
            end,
            **weights(1_000, 1_000, 2_000),
            reserved_ppm=1_000_000,
            capacity_tokens_per_s=1,
        ),
    ]


def _calls(
    hours: Sequence[datetime],
    tenants: Sequence[TenantFixture],
    models: dict[str, CatalogModel],
    deployments: dict[str, Deployment],
) -> tuple[Call, ...]:
    payer, guest = tenants
    nvidia, ascend = deployments["nvidia small"], deployments["ascend small"]
    big, cpu = deployments["nvidia big"], deployments["xeon cpu"]
    calls = []
    for number, hour in enumerate(hours):
        early, late = hour + timedelta(minutes=1), hour + timedelta(minutes=44, milliseconds=250)
        calls += [
            Call(early, payer, models["small"], (Try(nvidia, 701, 211),), 701, 211, cached=307),
            # A retry on another pool, before anything was delivered.
            Call(early, guest, models["small"], (Try(nvidia, outcome=FAILED), Try(ascend, 503, 97)), 503, 97),
            # Two choices on two pools: the prompt is charged once and was worked on twice.
            Call(
                late,
                payer,
                models["small"],
                (Try(nvidia, 401, 53, choice=0), Try(ascend, 401, 71, choice=1)),
                401,
                124,
                cached=101,
                choices=2,
            ),
            Call(
                late,
                guest,
                models["small"],
                (Try(ascend, 89, 31, choice=0), Try(nvidia, 89, 29, choice=1)),
                89,
                60,
                choices=2,
            ),
            # More was delivered than was held: charged up to the hold, the rest is our expense.
            Call(late, guest, models["big"], (Try(big, 307, 113),), 307, 113, output_cap=61),
            # Counted by us, because the backend said nothing.
            Call(
                early, payer, models["big"], (Try(big, outcome=FAILED), Try(big)), 211, 83, basis=Basis.EVENTS
            ),
            # Delivered nothing: nobody pays, nobody is counted.
            Call(early, payer, models["big"], (Try(big, outcome=FAILED),), 0, 0, basis=Basis.NOTHING),
            Call(late, payer, models["cpu"], (Try(cpu, 1_009, 499),), 1_009, 499),
        ]
        if number == 3:
            # More than is certified for the hour: nothing of it is idle.
            calls.append(Call(late, guest, models["cpu"], (Try(cpu, 4_001, 907),), 4_001, 907))
    return tuple(calls)
