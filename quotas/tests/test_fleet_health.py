"""How backends do: numbers against attempts made by hand, and only recent ones are looked at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from django.db import connections, transaction

from models_catalog.models import Deployment, ServingBackend
from portal.kit.clock import utc_now
from portal.kit.ids import partition_bound, uuid7
from quotas.metering.queries.fleet_health import BackendHealth, backend_health
from quotas.models import Attempt, AttemptOutcome, CounterSample, InferenceRequest
from quotas.tests.doors import Connection, admitted, settle_one
from tenants.scope import role_scope
from tests.factories import (
    ModelFixture,
    TenantFixture,
    admission_row,
    enable,
    make_backend,
    make_model,
    make_tenant,
    settlement_row,
)

pytestmark = pytest.mark.usefixtures("database")


@contextmanager
def undone() -> Iterator[None]:
    """The owner's scope in a transaction that leaves nothing behind."""
    with role_scope("owner"), transaction.atomic(using="owner"):
        yield
        transaction.set_rollback(True, using="owner")


class Calls:
    """Makes attempts at chosen moments, all of one request."""

    def __init__(self, tenant: TenantFixture, model: ModelFixture, now: datetime) -> None:
        assert model.price_version_id is not None
        self.now = now
        self.deployment_id = model.deployment_id
        self.request = InferenceRequest.objects.create(
            id=uuid7(),
            tenant_id=tenant.id,
            api_key_id=tenant.key.id,
            model_id=model.id,
            price_version_id=model.price_version_id,
            service_tier="standard",
            endpoint="chat.completions",
            is_stream=True,
            prompt_bound_tokens=1,
            output_cap_tokens=1,
            payload_sha256=b"x" * 32,
            admitted_at=now,
        )

    def add(
        self,
        outcome: str | None,
        ended_ago_s: float = 60,
        *,
        took_s: float = 1,
        ttft_ms: int | None = None,
        tokens: int | None = None,
    ) -> None:
        """An attempt that ended so long ago; without outcome one that began then and has not ended."""
        ended_at = self.now - timedelta(seconds=ended_ago_s)
        started_at = ended_at - timedelta(seconds=took_s) if outcome else ended_at
        attempt_id = UUID(int=partition_bound(started_at).int | (uuid7().int & (2**80 - 1)))
        Attempt.objects.create(
            id=attempt_id,
            request=self.request,
            tenant_id=self.request.tenant_id,
            deployment_id=self.deployment_id,
            ordinal=1,
            started_at=started_at,
            ended_at=ended_at if outcome else None,
            outcome=outcome,
            ttft_ms=ttft_ms,
            completion_tokens=tokens,
        )


def health_of(model: ModelFixture, now: datetime) -> BackendHealth:
    return backend_health(now=now)[model.backend_id]


@pytest.fixture(scope="module")
def stage(database: None) -> tuple[TenantFixture, ModelFixture]:
    tenant, model = make_tenant(), make_model(backend_id=make_backend(max_concurrency=4))
    enable(tenant, model)
    return tenant, model


def test_a_backend_that_nobody_uses(stage: tuple[TenantFixture, ModelFixture]) -> None:
    with role_scope("operator"):
        health = health_of(stage[1], utc_now())
        assert set(backend_health(now=utc_now())) == set(ServingBackend.objects.values_list("id", flat=True))
    assert (health.in_flight, health.load, health.recent.attempts) == (0, 0.0, 0)
    assert (health.recent.failed_share, health.recent.ttft_p50_ms) == (None, None)
    assert (health.sample_at, health.sample_age_s, health.sample_error) == (None, None, "")


def test_the_numbers_of_both_spans(stage: tuple[TenantFixture, ModelFixture]) -> None:
    now = utc_now()
    with undone():
        calls = Calls(*stage, now)
        # Within five minutes; the borders are half-open.
        calls.add(AttemptOutcome.COMPLETED, 0, ttft_ms=100, tokens=300)
        calls.add(AttemptOutcome.COMPLETED, 299.9, ttft_ms=300, tokens=600)
        calls.add(AttemptOutcome.CLIENT_GONE, 100, ttft_ms=200, tokens=100)
        calls.add(AttemptOutcome.BACKEND_FAILED)
        calls.add(AttemptOutcome.UNREACHABLE)
        calls.add(AttemptOutcome.BACKEND_TIMEOUT)
        # No fault of the backend, and no try of it.
        calls.add(AttemptOutcome.BACKEND_REFUSED)
        calls.add(AttemptOutcome.CUT)
        calls.add(AttemptOutcome.LOST)
        calls.add(AttemptOutcome.STALE)
        # Within the hour.
        calls.add(AttemptOutcome.COMPLETED, 300.1, ttft_ms=900, tokens=2600)
        calls.add(AttemptOutcome.BACKEND_FAILED, 3599.9)
        # Too long ago.
        calls.add(AttemptOutcome.BACKEND_FAILED, 3600.1, ttft_ms=1, tokens=1)
        health = health_of(stage[1], now)
    recent, longer = health.recent, health.longer
    assert (recent.attempts, recent.failed, recent.timeouts) == (9, 2, 1)
    assert recent.failed_share == 3 / 9
    assert (recent.ttft_p50_ms, recent.output_tokens) == (200, 1000)
    assert recent.output_tokens_per_s == 1000 / 300
    assert (longer.attempts, longer.failed, longer.timeouts) == (11, 3, 1)
    assert (longer.ttft_p50_ms, longer.output_tokens) == (200, 3600)
    assert longer.output_tokens_per_s == 1.0


def test_calls_in_flight_and_how_full_that_is(stage: tuple[TenantFixture, ModelFixture]) -> None:
    now = utc_now()
    with undone():
        calls = Calls(*stage, now)
        for ago_s in (0, 10, 899):
            calls.add(None, ago_s)
        # A call that took as long as one may, and ended within the hour.
        calls.add(AttemptOutcome.COMPLETED, 3599, took_s=899)
        # Beyond every call's time: nothing that runs is that old, so history is not searched for it.
        calls.add(None, 3 * 3600)
        health = health_of(stage[1], now)
    assert (health.in_flight, health.load, health.longer.attempts) == (3, 0.75, 1)


def test_only_recent_partitions_are_read(stage: tuple[TenantFixture, ModelFixture]) -> None:
    with role_scope("operator"), connections["operator"].cursor() as cursor:
        now = utc_now()
        cursor.execute(
            "EXPLAIN SELECT 1 FROM quotas_attempt a WHERE a.id >= %s AND a.id < %s",
            [partition_bound(now - timedelta(hours=2)), partition_bound(now + timedelta(minutes=5))],
        )
        plan = "\n".join(line for (line,) in cursor.fetchall())
        cursor.execute("SELECT count(*) FROM pg_inherits WHERE inhparent = 'quotas_attempt'::regclass")
        (partitions,) = cursor.fetchone()
    # Two days at most, and the partition that takes what fits no day.
    assert plan.count("on quotas_attempt_") <= 3 < partitions


def test_the_last_sample_and_its_age(stage: tuple[TenantFixture, ModelFixture]) -> None:
    now = utc_now()
    read = {"prompt_tokens": 1, "completion_tokens": 1, "running": 7}
    with undone():
        backend_id = stage[1].backend_id

        def sample(ago_s: float, incarnation: int, **fields: object) -> None:
            at = now - timedelta(seconds=ago_s)
            CounterSample.objects.create(
                backend_id=backend_id, incarnation=incarnation, asked_at=at, sampled_at=at, **fields
            )

        sample(90, 1, **read | {"running": 1})
        sample(30, 2, **read)
        health = health_of(stage[1], now)
        assert (health.sample_age_s, health.sample_error, health.running) == (30.0, "", 7)
        sample(15, 2, error="no answer in time")
        health = health_of(stage[1], now)
        assert (health.sample_age_s, health.sample_error) == (30.0, "no answer in time")


def test_another_backend_of_the_model_has_numbers_of_its_own(
    stage: tuple[TenantFixture, ModelFixture],
) -> None:
    now = utc_now()
    with undone():
        other = make_backend_of(stage[1])
        calls = Calls(*stage, now)
        calls.add(AttemptOutcome.COMPLETED)
        calls.deployment_id = other.id
        calls.add(AttemptOutcome.BACKEND_FAILED)
        found = backend_health(now=now)
    assert (found[stage[1].backend_id].recent.attempts, found[stage[1].backend_id].recent.failed) == (1, 0)
    assert (found[other.backend_id].recent.attempts, found[other.backend_id].recent.failed) == (1, 1)


def make_backend_of(model: ModelFixture) -> Deployment:
    pool_id = ServingBackend.objects.get(id=model.backend_id).pool_id
    backend = ServingBackend.objects.create(
        code=f"b-{uuid7().hex[-12:]}", pool_id=pool_id, engine="vllm", base_url="http://x", max_concurrency=1
    )
    return Deployment.objects.create(model_id=model.id, backend=backend, upstream_model="m")


def test_a_real_call_is_in_flight_until_it_is_settled(
    stage: tuple[TenantFixture, ModelFixture], dataplane: Connection
) -> None:
    row = admitted(dataplane, admission_row(*stage))
    with role_scope("operator"):
        assert health_of(stage[1], utc_now()).in_flight == 1
        settle_one(dataplane, settlement_row(row, prompt_tokens=10, completion_tokens=5))
        health = health_of(stage[1], utc_now() + timedelta(seconds=1))
    assert (health.in_flight, health.recent.attempts, health.recent.failed) == (0, 1, 0)
