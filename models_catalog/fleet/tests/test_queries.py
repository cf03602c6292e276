"""The fleet as operators read it."""

from __future__ import annotations

import pytest

from models_catalog.fleet import queries
from models_catalog.fleet.queries import Phase
from models_catalog.fleet.tests.rows import (
    FUTURE,
    PAST,
    make_backend,
    make_capacity,
    make_cost,
    make_deployment,
    make_model,
    make_pool,
)
from models_catalog.models import Deployment, FleetState
from models_catalog.tests.price_drafts import undone
from portal.kit.clock import utc_now
from portal.kit.ids import uuid7

pytestmark = pytest.mark.usefixtures("database")


def test_a_pool_with_all_that_runs_on_it() -> None:
    now = utc_now()
    with undone():
        pool = make_pool()
        first, second = make_backend(pool, credential_encrypted="1:x"), make_backend(pool)
        make_capacity(make_deployment(first), reserved_ppm=300_000)
        make_capacity(make_deployment(second), reserved_ppm=200_000)
        make_capacity(make_deployment(second), reserved_ppm=500_000, active_from=FUTURE)
        make_cost(pool)
        row = queries.fleet_of_pool(pool_id=pool.id, now=now)
        assert row is not None
        assert row in queries.list_pools(now=now)
        assert [backend.code for backend in row.backends] == sorted([first.code, second.code])
        assert {backend.id: backend.has_credential for backend in row.backends} == {
            first.id: True,
            second.id: False,
        }
        assert (row.reserved_ppm, row.unreserved_ppm) == (500_000, 500_000)
        assert row.cost is not None
        assert row.cost.hour.total_nanos == 21_500_000_000
        assert row.backends[0] == queries.find_backend(backend_id=row.backends[0].id, now=now)
        assert "credential" not in repr(row).replace("has_credential", "")


def test_what_is_not_there() -> None:
    now = utc_now()
    with undone():
        assert queries.fleet_of_pool(pool_id=uuid7(), now=now) is None
        assert queries.find_backend(backend_id=uuid7(), now=now) is None
        assert queries.find_deployment(deployment_id=uuid7(), now=now) is None


def test_whether_something_else_serves_a_model() -> None:
    now = utc_now()
    with undone():
        pool = make_pool()
        backend = make_backend(pool)
        deployment = make_deployment(backend)
        assert queries.find_backend(backend_id=backend.id, now=now).sole_models == (  # type: ignore[union-attr]
            deployment.model.slug,
        )
        other = Deployment.objects.create(
            model=deployment.model, backend=make_backend(pool), upstream_model="m"
        )
        found = queries.find_deployment(deployment_id=deployment.id, now=now)
        assert found is not None
        assert (found.is_sole, found.serves) == (False, True)
        Deployment.objects.filter(id=other.id).update(state=FleetState.DRAINING)
        found = queries.find_deployment(deployment_id=deployment.id, now=now)
        assert found is not None
        assert found.is_sole


def test_phases_of_versions() -> None:
    now = utc_now()
    with undone():
        pool = make_pool()
        assert queries.cost_history(pool_id=pool.id, now=now) == []
        moment = now.replace(microsecond=0)
        make_cost(pool, active_to=PAST.replace(month=2))
        make_cost(pool, active_from=PAST.replace(month=2), active_to=FUTURE)
        make_cost(pool, active_from=FUTURE, active_to=FUTURE)
        make_cost(pool, active_from=FUTURE)
        found = queries.cost_history(pool_id=pool.id, now=moment)
        assert [row.phase for row in reversed(found)][:2] == [Phase.ENDED, Phase.CURRENT]
        assert {row.phase for row in found[:2]} == {Phase.PLANNED, Phase.WITHDRAWN}


def test_models_that_a_backend_does_not_serve_yet() -> None:
    with undone():
        backend = make_backend(make_pool())
        deployed, other = make_deployment(backend).model, make_model()
        found = dict(queries.models_to_deploy(backend_id=backend.id))
        assert other.id in found
        assert deployed.id not in found
