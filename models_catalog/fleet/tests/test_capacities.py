"""Never more than the whole pool is reserved, at no moment and by nobody."""

from __future__ import annotations

import threading
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from django.db import IntegrityError, connections, transaction

from models_catalog.fleet.tests.rows import (
    FUTURE,
    PAST,
    make_backend,
    make_capacity,
    make_deployment,
    make_pool,
)
from models_catalog.models import CapacityVersion, Deployment
from models_catalog.tests.price_drafts import undone
from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from tenants.scope import role_scope
from tests.database import connected

pytestmark = pytest.mark.usefixtures("database")

DAY = timedelta(days=1)
OVERSOLD = "capacity_pool_not_oversold|of 1000000 parts of pool"


def check_now() -> None:
    """What the commit would say."""
    with connections["operator"].cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("SET CONSTRAINTS ALL DEFERRED")


def oversold() -> None:
    with pytest.raises(IntegrityError, match=OVERSOLD), transaction.atomic(using="operator"):
        check_now()


def two_deployments() -> tuple[Deployment, Deployment]:
    """On two backends of one pool."""
    pool = make_pool()
    return make_deployment(make_backend(pool)), make_deployment(make_backend(pool))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("reserved_ppm", 1_000_001),
        ("input_weight", 1_000_001),
        ("cached_weight", 1_000_001),
        ("output_weight", 0),
        ("capacity_tokens_per_s", 0),
        ("active_from", PAST + timedelta(microseconds=5)),
        ("active_to", PAST - timedelta(seconds=1)),
    ],
)
def test_the_database_keeps_the_bounds(field: str, value: object) -> None:
    with undone(), pytest.raises(IntegrityError, match="capacity_"), transaction.atomic(using="operator"):
        make_capacity(make_deployment(make_backend(make_pool())), **{field: value})


def test_one_capacity_at_a_time_and_none_changes() -> None:
    with undone():
        deployment = make_deployment(make_backend(make_pool()))
        version = make_capacity(deployment, active_to=FUTURE)
        make_capacity(deployment, active_from=FUTURE)
        with pytest.raises(IntegrityError, match="no_overlap"), transaction.atomic(using="operator"):
            make_capacity(deployment, active_from=PAST - DAY, active_to=PAST + DAY)
        with pytest.raises(IntegrityError, match="only an end"), transaction.atomic(using="operator"):
            CapacityVersion.objects.filter(id=version.id).update(active_to=PAST)


def test_the_whole_pool_can_be_reserved_and_no_more() -> None:
    with undone():
        first, second = two_deployments()
        make_capacity(first, reserved_ppm=600_000)
        with transaction.atomic(using="operator"):
            make_capacity(second, reserved_ppm=400_000)
            check_now()
    with undone():
        first, second = two_deployments()
        make_capacity(first, reserved_ppm=600_000)
        make_capacity(second, reserved_ppm=400_001)
        oversold()


def test_every_moment_counts() -> None:
    with undone():
        first, second = two_deployments()
        make_capacity(first, reserved_ppm=900_000, active_to=FUTURE)
        make_capacity(first, reserved_ppm=100_000, active_from=FUTURE)
        make_capacity(second, reserved_ppm=900_000, active_from=FUTURE)
        check_now()
        # What overlaps by one second is too much, long after it begins.
        make_capacity(
            second,
            reserved_ppm=100_001,
            active_from=PAST + timedelta(days=9),
            active_to=PAST + timedelta(days=10),
        )
        oversold()


def test_the_later_of_two_may_be_the_one_that_stands() -> None:
    with undone():
        first, second = two_deployments()
        make_capacity(second, reserved_ppm=1, active_from=PAST + DAY)
        make_capacity(first, reserved_ppm=1_000_000)
        oversold()


def test_a_withdrawn_version_takes_nothing() -> None:
    with undone():
        first, second = two_deployments()
        make_capacity(first, reserved_ppm=900_000, active_from=FUTURE, active_to=FUTURE)
        make_capacity(second, reserved_ppm=900_000)
        check_now()


def test_an_exchange_within_one_transaction_is_looked_at_once_it_is_whole() -> None:
    with undone():
        first, second = two_deployments()
        make_capacity(first, reserved_ppm=800_000, active_to=FUTURE + DAY)
        make_capacity(second, reserved_ppm=800_000, active_from=FUTURE)
        CapacityVersion.objects.filter(deployment=first).update(active_to=FUTURE)
        check_now()


def test_a_backend_or_deployment_cannot_be_moved_into_a_pool_that_is_full() -> None:
    with undone():
        full = make_backend(make_pool())
        make_capacity(make_deployment(full), reserved_ppm=900_000)
        backend = make_backend(make_pool())
        deployment = make_deployment(backend)
        make_capacity(deployment, reserved_ppm=200_000)
        check_now()
        deployment.backend = full
        deployment.save()
        oversold()
        deployment.backend = backend
        deployment.save()
        check_now()
        backend.pool = full.pool
        backend.save()
        oversold()


def test_two_writers_cannot_slip_past_each_other() -> None:
    with role_scope("operator"), transaction.atomic(using="operator"):
        deployments = two_deployments()
    results: dict[UUID, str] = {}
    written = threading.Barrier(2, timeout=30)
    start = utc_now().replace(microsecond=0)

    def reserve(deployment_id: UUID) -> None:
        with connected("operator", autocommit=False) as connection:
            connection.execute(
                "INSERT INTO models_catalog_capacityversion (id, deployment_id, reserved_ppm, input_weight, "
                "cached_weight, output_weight, capacity_tokens_per_s, active_from) "
                "VALUES (%s, %s, 600000, 1, 1, 1, 1, %s)",
                [uuid7(), deployment_id, start],
            )
            # Both have written and neither has committed; each would find room alone.
            written.wait()
            try:
                connection.commit()
            except psycopg.errors.CheckViolation as error:
                results[deployment_id] = str(error.diag.constraint_name)
            else:
                results[deployment_id] = "done"

    threads = [threading.Thread(target=reserve, args=[deployment.id]) for deployment in deployments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(results.values()) == ["capacity_pool_not_oversold", "done"]
