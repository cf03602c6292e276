"""Reads of the fleet: what there is, what it costs and what of it is reserved, now and over time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from django.db import connections
from django.db.models import F, Q, QuerySet

from models_catalog.models import (
    CapacityVersion,
    CatalogModel,
    Deployment,
    FleetState,
    ModelState,
    PoolCostVersion,
    ServingBackend,
    ServingPool,
)
from models_catalog.models.costs import WHOLE_PPM
from portal.kit.ids import PREFIXES, public_id
from tenants.scope import scope_alias

HOUR_S = 3600
# A page shows the newest versions; years of changes are no reading matter.
MAX_VERSIONS = 100


class Phase(StrEnum):
    """Where a version stands in time."""

    ENDED = "ENDED"
    CURRENT = "CURRENT"
    PLANNED = "PLANNED"
    WITHDRAWN = "WITHDRAWN"


@dataclass(frozen=True, slots=True)
class Period:
    """From `active_from` until `active_to` (half-open), or for good."""

    active_from: datetime
    active_to: datetime | None

    def phase(self, now: datetime) -> Phase:
        if self.active_to is not None and self.active_to <= self.active_from:
            return Phase.WITHDRAWN
        if self.active_from > now:
            return Phase.PLANNED
        return Phase.CURRENT if self.active_to is None or self.active_to > now else Phase.ENDED


@dataclass(frozen=True, slots=True)
class HourCost:
    """What an hour costs in nano-units: the whole, and its parts, which add up to it."""

    total_nanos: int
    depreciation_nanos: int
    energy_nanos: int
    other_nanos: int


@dataclass(frozen=True, slots=True)
class CostRow:
    """A version of what a pool costs."""

    id: UUID
    pool_id: UUID
    currency: str
    accelerators: int
    depreciation_nanos_per_accelerator_hour: int
    other_nanos_per_accelerator_hour: int
    power_watts: int
    pue_thousandths: int
    energy_nanos_per_kwh: int
    owner: str
    region: str
    period: Period
    phase: Phase
    hour: HourCost

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["pool_cost"], self.id)


@dataclass(frozen=True, slots=True)
class CapacityRow:
    """A version of what a deployment has of its pool and can carry."""

    id: UUID
    deployment_id: UUID
    reserved_ppm: int
    input_weight: int
    cached_weight: int
    output_weight: int
    capacity_tokens_per_s: int
    period: Period
    phase: Phase

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["capacity"], self.id)


@dataclass(frozen=True, slots=True)
class DeploymentRow:
    """A model on a backend. `is_sole`: no other deployment serves its model now."""

    id: UUID
    model_id: UUID
    slug: str
    model_state: ModelState
    backend_id: UUID
    backend_code: str
    pool_id: UUID
    pool_code: str
    upstream_model: str
    state: FleetState
    backend_state: FleetState
    capacity: CapacityRow | None
    is_sole: bool
    # Where it can do less than the model; None is as much.
    context_tokens: int | None
    capabilities: tuple[str, ...] | None
    quantisation: str
    model_context_tokens: int
    model_capabilities: tuple[str, ...]

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["deployment"], self.id)

    @property
    def serves(self) -> bool:
        return self.state == FleetState.ACTIVE == self.backend_state and self.model_state == ModelState.ACTIVE


@dataclass(frozen=True, slots=True)
class BackendRow:
    """A backend. Of its credential nothing is known but whether there is one."""

    id: UUID
    code: str
    pool_id: UUID
    pool_code: str
    engine: str
    engine_version: str
    base_url: str
    max_concurrency: int
    configuration: str
    has_credential: bool
    state: FleetState
    deployments: tuple[DeploymentRow, ...]

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["backend"], self.id)

    @property
    def sole_models(self) -> tuple[str, ...]:
        """Models that nothing else serves."""
        return tuple(deployment.slug for deployment in self.deployments if deployment.is_sole)


@dataclass(frozen=True, slots=True)
class PoolRow:
    """A pool with all that runs on it, what it costs now and how much of it is reserved now."""

    id: UUID
    code: str
    name: str
    accelerator_kind: str
    region: str
    cost: CostRow | None
    backends: tuple[BackendRow, ...]

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["pool"], self.id)

    @property
    def deployments(self) -> tuple[DeploymentRow, ...]:
        return tuple(deployment for backend in self.backends for deployment in backend.deployments)

    @property
    def reserved_ppm(self) -> int:
        return sum(one.capacity.reserved_ppm for one in self.deployments if one.capacity)

    @property
    def unreserved_ppm(self) -> int:
        return WHOLE_PPM - self.reserved_ppm


def list_pools(*, now: datetime) -> list[PoolRow]:
    """Every pool with its backends and deployments, by code."""
    return _pools(ServingPool.objects.all(), now)


def fleet_of_pool(*, pool_id: UUID, now: datetime) -> PoolRow | None:
    """One pool with all that runs on it; None when there is no such pool."""
    return next(iter(_pools(ServingPool.objects.filter(id=pool_id), now)), None)


def find_backend(*, backend_id: UUID, now: datetime) -> BackendRow | None:
    """One backend with its deployments; None when there is no such backend."""
    return next(iter(_backends(ServingBackend.objects.filter(id=backend_id), now)), None)


def find_deployment(*, deployment_id: UUID, now: datetime) -> DeploymentRow | None:
    """One deployment; None when there is no such deployment."""
    return next(iter(_deployments(Deployment.objects.filter(id=deployment_id), now)), None)


def cost_history(*, pool_id: UUID, now: datetime) -> list[CostRow]:
    """What a pool costs, cost and will cost, newest first; at most MAX_VERSIONS."""
    return _costs(
        PoolCostVersion.objects.filter(pool_id=pool_id).order_by("-active_from")[:MAX_VERSIONS], now
    )


def capacity_history(*, deployment_id: UUID, now: datetime) -> list[CapacityRow]:
    """What a deployment has, had and will have, newest first; at most MAX_VERSIONS."""
    rows = CapacityVersion.objects.filter(deployment_id=deployment_id).order_by("-active_from", "-id")
    return [_capacity_row(row, now) for row in rows[:MAX_VERSIONS]]


def models_to_deploy(*, backend_id: UUID) -> list[tuple[UUID, str]]:
    """Id and slug of every model on offer that the backend has no deployment of."""
    deployed = Deployment.objects.filter(backend_id=backend_id).values("model_id")
    return list(
        CatalogModel.objects.filter(state=ModelState.ACTIVE)
        .exclude(id__in=deployed)
        .order_by("slug")
        .values_list("id", "slug")
    )


def _pools(pools: QuerySet[ServingPool], now: datetime) -> list[PoolRow]:
    pools = pools.order_by("code")
    costs = {cost.pool_id: cost for cost in _costs(_current(PoolCostVersion.objects.all(), now), now)}
    backends: dict[UUID, list[BackendRow]] = defaultdict(list)
    for row in _backends(ServingBackend.objects.filter(pool__in=pools), now):
        backends[row.pool_id].append(row)
    return [
        PoolRow(
            id=pool.id,
            code=pool.code,
            name=pool.name,
            accelerator_kind=pool.accelerator_kind,
            region=pool.region,
            cost=costs.get(pool.id),
            backends=tuple(backends.get(pool.id, ())),
        )
        for pool in pools
    ]


def _backends(backends: QuerySet[ServingBackend], now: datetime) -> list[BackendRow]:
    rows = list(backends.select_related("pool").order_by("code"))
    deployments: dict[UUID, list[DeploymentRow]] = defaultdict(list)
    for one in _deployments(Deployment.objects.filter(backend_id__in=[row.id for row in rows]), now):
        deployments[one.backend_id].append(one)
    return [
        BackendRow(
            id=row.id,
            code=row.code,
            pool_id=row.pool_id,
            pool_code=row.pool.code,
            engine=row.engine,
            engine_version=row.engine_version,
            base_url=row.base_url,
            max_concurrency=row.max_concurrency,
            configuration=row.configuration,
            has_credential=bool(row.credential_encrypted),
            state=FleetState(row.state),
            deployments=tuple(deployments.get(row.id, ())),
        )
        for row in rows
    ]


def _deployments(deployments: QuerySet[Deployment], now: datetime) -> list[DeploymentRow]:
    rows = list(deployments.select_related("model", "backend__pool").order_by("model__slug", "id"))
    capacities = {
        row.deployment_id: _capacity_row(row, now)
        for row in _current(CapacityVersion.objects.filter(deployment__in=[row.id for row in rows]), now)
    }
    serving = _serving({row.model_id for row in rows})
    return [
        DeploymentRow(
            id=row.id,
            model_id=row.model_id,
            slug=row.model.slug,
            model_state=ModelState(row.model.state),
            backend_id=row.backend_id,
            backend_code=row.backend.code,
            pool_id=row.backend.pool_id,
            pool_code=row.backend.pool.code,
            upstream_model=row.upstream_model,
            state=FleetState(row.state),
            backend_state=FleetState(row.backend.state),
            capacity=capacities.get(row.id),
            is_sole=serving.get(row.model_id) == {row.id},
            context_tokens=row.context_tokens,
            capabilities=None if row.capabilities is None else tuple(row.capabilities),
            quantisation=row.quantisation,
            model_context_tokens=row.model.context_tokens,
            model_capabilities=tuple(row.model.capabilities),
        )
        for row in rows
    ]


def _serving(model_ids: Iterable[UUID]) -> Mapping[UUID, set[UUID]]:
    """The deployments that serve each of these models now."""
    found: dict[UUID, set[UUID]] = defaultdict(set)
    serving = Deployment.objects.filter(
        model_id__in=list(model_ids),
        model__state=ModelState.ACTIVE,
        state=FleetState.ACTIVE,
        backend__state=FleetState.ACTIVE,
    )
    for model_id, deployment_id in serving.values_list("model_id", "id"):
        found[model_id].add(deployment_id)
    return found


def _current(versions: QuerySet, now: datetime) -> QuerySet:  # type: ignore[type-arg]
    in_force = Q(active_from__lte=now) & (Q(active_to=None) | Q(active_to__gt=now))
    return versions.filter(in_force).exclude(active_to=F("active_from"))


def _costs(versions: Iterable[PoolCostVersion], now: datetime) -> list[CostRow]:
    rows = list(versions)
    hours = _hour_costs([row.id for row in rows])
    return [
        CostRow(
            id=row.id,
            pool_id=row.pool_id,
            currency=row.currency,
            accelerators=row.accelerators,
            depreciation_nanos_per_accelerator_hour=row.depreciation_nanos_per_accelerator_hour,
            other_nanos_per_accelerator_hour=row.other_nanos_per_accelerator_hour,
            power_watts=row.power_watts,
            pue_thousandths=row.pue_thousandths,
            energy_nanos_per_kwh=row.energy_nanos_per_kwh,
            owner=row.owner,
            region=row.region,
            period=Period(row.active_from, row.active_to),
            phase=Period(row.active_from, row.active_to).phase(now),
            hour=hours[row.id],
        )
        for row in rows
    ]


def _hour_costs(version_ids: Sequence[UUID]) -> Mapping[UUID, HourCost]:
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            "SELECT v.id, p.total_nanos, p.depreciation_nanos, p.energy_nanos, p.other_nanos "
            "FROM unnest(%s::uuid[]) AS v(id) CROSS JOIN LATERAL catalog_pool_cost_parts(v.id, %s) p",
            [list(version_ids), HOUR_S],
        )
        return {row[0]: HourCost(*row[1:]) for row in cursor.fetchall()}


def _capacity_row(row: CapacityVersion, now: datetime) -> CapacityRow:
    period = Period(row.active_from, row.active_to)
    return CapacityRow(
        id=row.id,
        deployment_id=row.deployment_id,
        reserved_ppm=row.reserved_ppm,
        input_weight=row.input_weight,
        cached_weight=row.cached_weight,
        output_weight=row.output_weight,
        capacity_tokens_per_s=row.capacity_tokens_per_s,
        period=period,
        phase=period.phase(now),
    )
