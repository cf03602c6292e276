"""What the catalog in memory knows of a route beyond its address."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import connections, transaction

from models_catalog.engines import ADAPTERS, Endpoint
from models_catalog.fleet import operations
from models_catalog.fleet.commission.sums import Limits
from models_catalog.fleet.tests.rows import MEASURED, make_capacity, make_cost
from models_catalog.models import Deployment, ServingBackend
from portal.inference.config import inference_config
from portal.inference.database import Database
from portal.inference.snapshot import CatalogSnapshot, Route
from portal.inference.tests.dialect_cases import ENTRY
from portal.inference.tests.simulated_fleet import make_route
from portal.kit.clock import utc_now
from tenants.operations import audit
from tenants.scope import role_scope
from tests.factories import ModelFixture, make_backend, make_model

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
async def catalog() -> AsyncIterator[CatalogSnapshot]:
    assert settings.SECRET_STORE is not None
    config = inference_config(
        database=settings.DATABASES["dataplane"],
        secrets=settings.SECRET_STORE,
        valkey_url=settings.VALKEY_URL,
        tuning=settings.TUNING,
    )
    database = Database(config)
    await database.open()
    yield CatalogSnapshot(database, config.secrets, on_limits=lambda *_: None)
    await database.close()


async def routes_of(catalog: CatalogSnapshot, model: ModelFixture) -> list[Route]:
    await catalog.refresh()
    return list(catalog.models[model.slug].routes)


def in_scope(work: Any) -> Any:
    """Rows made in the scope of an operator, from an event loop."""

    def scoped() -> Any:
        with role_scope("operator"):
            found = work()
        connections.close_all()
        return found

    return sync_to_async(scoped, thread_sensitive=False)()


async def made(work: Any) -> Any:
    def alone() -> Any:
        found = work()
        connections.close_all()
        return found

    return await sync_to_async(alone, thread_sensitive=False)()


async def test_a_route_without_anything_measured(catalog: CatalogSnapshot) -> None:
    model = await made(make_model)
    (route,) = await routes_of(catalog, model)
    assert (route.curve, route.capabilities, route.context_tokens) == (None, None, None)
    assert (route.marginal_cost_nanos, route.cost_currency) == (None, None)
    assert route.pool_id is not None


async def test_the_newest_curve_counts_and_is_loaded_with_the_next_look(catalog: CatalogSnapshot) -> None:
    model = await made(make_model)
    await routes_of(catalog, model)

    def measure(ago_s: int, note: str) -> None:
        operations.record_curve(
            deployment_id=model.deployment_id,
            measured=MEASURED,
            limits=Limits(2000 + ago_s, 5.0),
            engine_version="1",
            actor=audit.SYSTEM,
            reason="for the test",
            now=utc_now() - timedelta(seconds=ago_s),
            note=note,
        )

    await in_scope(lambda: measure(10, "newer"))
    await in_scope(lambda: measure(100, "older"))
    (route,) = await routes_of(catalog, model)
    assert route.curve is not None
    assert route.curve.points == MEASURED.points
    assert (route.curve.certified_concurrency, route.curve.prefill_ns) == (2, 250_000)
    assert (utc_now() - route.curve.measured_at).total_seconds() < 60


async def test_what_a_deployment_can_do(catalog: CatalogSnapshot) -> None:
    model = await made(make_model)
    fields = {"context_tokens": 4096, "capabilities": ["tools"]}
    await in_scope(lambda: Deployment.objects.filter(id=model.deployment_id).update(**fields))
    (route,) = await routes_of(catalog, model)
    assert (route.context_tokens, route.capabilities) == (4096, frozenset({"tools"}))


async def test_energy_by_the_deployments_share_and_capacity(catalog: CatalogSnapshot) -> None:
    model = await made(make_model)

    def price() -> None:
        deployment = Deployment.objects.select_related("backend__pool").get(id=model.deployment_id)
        # 10 kW × 1.25 × 0.12 a kWh: 1.50 an hour, half of it at 2,000 weighted tokens a second.
        make_cost(deployment.backend.pool)
        make_capacity(deployment)

    await in_scope(price)
    await _raise_revision(model)
    (route,) = await routes_of(catalog, model)
    expected = 1.5e9 / 3600 * 0.5 / 2000 * 1e6
    assert route.marginal_cost_nanos == pytest.approx(expected, abs=1)
    assert route.cost_currency == "USD"


async def test_costs_in_several_currencies_are_not_compared(catalog: CatalogSnapshot) -> None:
    model = await made(make_model)

    def price() -> None:
        other = make_backend()
        with transaction.atomic(using="operator"):
            Deployment.objects.create(model_id=model.id, backend_id=other, upstream_model="m")
        for deployment in Deployment.objects.filter(model_id=model.id).select_related("backend__pool"):
            currency = "CNY" if deployment.backend_id == other else "USD"
            make_cost(deployment.backend.pool, currency=currency)
            make_capacity(deployment)

    await in_scope(price)
    await _raise_revision(model)
    routes = await routes_of(catalog, model)
    assert {route.cost_currency for route in routes} == {"USD", "CNY"}
    assert {route.marginal_cost_nanos for route in routes} == {None}


async def _raise_revision(model: ModelFixture) -> None:
    """Costs alone do not: gateways look at them every ten minutes."""
    await in_scope(lambda: ServingBackend.objects.filter(id=model.backend_id).update(configuration="x"))


def test_an_endpoint_has_one_group_of_routes() -> None:
    """The routing knows a group by its identity: a new one at each call would be worked out at each call."""
    engines = (ADAPTERS["vllm"], ADAPTERS["generic"])
    entry = replace(ENTRY, routes=tuple(make_route(engine=engine) for engine in engines))
    spoken = entry.at(Endpoint.MESSAGES)
    assert spoken is not None
    assert [route.engine.name for route in spoken.routes] == ["vllm"]
    assert entry.at(Endpoint.MESSAGES) is spoken
    assert entry.at(Endpoint.CHAT) is entry
    assert entry.at(Endpoint.EMBEDDINGS) is None
    # Another set of routes is asked anew.
    assert replace(entry, routes=entry.routes[1:]).at(Endpoint.MESSAGES) is None
