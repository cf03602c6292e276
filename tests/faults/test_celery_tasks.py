"""The ledger's tasks, run by a real worker: running one twice does the same as running it once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from quotas.admission import AdmissionRow, admit_batch
from quotas.settlement import CheckpointRow, checkpoint_batch
from tests.celery_process import RunningCelery, running_celery
from tests.database import blocking, connected, money_of, rows_of
from tests.factories import TenantFixture, admission_row, enable, make_model, make_tenant
from tests.faults.evidence import assert_audit_holds, holds_of, price_nanos, usage_of
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("database")
LEASE_S = 4


def send(task: str, queue: str) -> str:
    """Send a task as beat does; its id."""
    from portal.celery import app

    with app.connection_for_write() as connection:
        result = app.send_task(f"quotas.tasks.{task}", queue=queue, connection=connection)
    return str(result.id)


def run_task(celery: RunningCelery, task: str, queue: str) -> None:
    celery.wait_succeeded(send(task, queue))


def expired_calls(tenant: TenantFixture, checkpoints: list[int]) -> list[AdmissionRow]:
    """Admitted calls whose lease is over, with so many tokens in their checkpoint; 0 for none at all."""
    model = make_model()
    enable(tenant, model)
    rows = [admission_row(tenant, model) for _ in checkpoints]
    delivered = [
        CheckpointRow(
            request_id=row.request_id,
            prompt_tokens=7 if tokens else 0,
            cached_tokens=0,
            completion_tokens=tokens,
            reasoning_tokens=0,
        )
        for row, tokens in zip(rows, checkpoints, strict=True)
    ]
    with connected("dataplane") as connection:
        blocking(admit_batch, connection, rows, lease_s=20, block_ms=1000)
        blocking(checkpoint_batch, connection, delivered, lease_s=0)
    return rows


def state_of(tenant_id: UUID) -> dict[str, Any]:
    """Everything that a sweep could change."""
    return {
        "money": money_of(tenant_id),
        "holds": holds_of(tenant_id),
        "usage": usage_of(tenant_id),
        "attempts": sorted(rows_of("quotas_attempt", tenant_id=tenant_id), key=lambda row: row["id"]),
        "rollups": rows_of("quotas_usagerollup", tenant_id=tenant_id),
        "transfers": sorted(rows_of("quotas_ledgertransfer", tenant_id=tenant_id), key=lambda row: row["id"]),
    }


def partitions() -> set[str]:
    with connected("owner") as connection:
        rows = connection.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'quotas_hold'::regclass"
        ).fetchall()
    return {row[0] for row in rows}


def postgres_age_s() -> float:
    with connected("operator") as connection:
        row = connection.execute("SELECT extract(epoch FROM now() - pg_postmaster_start_time())").fetchone()
    assert row is not None
    return float(row[0])


def test_tasks_can_run_twice(tmp_path: Path) -> None:
    tenant = make_tenant(granted="1.00")
    rows = expired_calls(tenant, [0, 3, 30])
    wait_for(lambda: postgres_age_s() > LEASE_S, LEASE_S + 1, "the term after a start of PostgreSQL")
    last = max(partitions())
    with connected("owner") as connection:
        connection.execute(f"DROP TABLE {last}")
    with running_celery(tmp_path, SLUICE_LEASE_S=str(LEASE_S), SLUICE_CHECKPOINT_S="1") as celery:
        started_s = time.monotonic()
        run_task(celery, "sweep_expired_holds", "ledger")
        swept = state_of(tenant.id)
        run_task(celery, "sweep_expired_holds", "ledger")
        assert state_of(tenant.id) == swept

        run_task(celery, "make_partitions", "default")
        made = partitions()
        run_task(celery, "make_partitions", "default")
        assert partitions() == made
        print(f"four tasks in {time.monotonic() - started_s:.1f} s; {last} was made again")
    assert last in made
    states = [
        (swept["holds"][row.request_id]["state"], len(swept["usage"].get(row.request_id, []))) for row in rows
    ]
    assert states == [("VOIDED", 0), ("EXPIRED", 1), ("EXPIRED", 1)]
    charged_nanos = price_nanos(7, 3) + price_nanos(7, 30)
    assert swept["money"].granted == 10**9 - charged_nanos
    assert swept["money"].pending == 0
    assert {attempt["outcome"] for attempt in swept["attempts"]} == {"LOST"}
    assert_audit_holds()


def test_two_sweeps_at_once_resolve_each_hold_once(tmp_path: Path) -> None:
    """Both workers' threads sweep at the same time."""
    tenants = [make_tenant(granted="1.00") for _ in range(3)]
    for tenant in tenants:
        expired_calls(tenant, [1, 2, 3, 4])
    with running_celery(tmp_path, SLUICE_LEASE_S=str(LEASE_S), SLUICE_CHECKPOINT_S="1") as celery:
        sent = [send("sweep_expired_holds", "ledger") for _ in range(6)]
        for task_id in sent:
            celery.wait_succeeded(task_id)
        # A wallet that one sweep had locked is left by the other one to the next.
        run_task(celery, "sweep_expired_holds", "ledger")
    for tenant in tenants:
        assert money_of(tenant.id).granted == 10**9 - sum(price_nanos(7, tokens) for tokens in (1, 2, 3, 4))
        assert all(len(records) == 1 for records in usage_of(tenant.id).values())
    assert_audit_holds()
