"""One organization's rows are locked by somebody else, or its calls are odd: nobody else waits or fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from devstack.engines.testing import sim
from portal.kit.batching import Busy
from portal.kit.ids import uuid7
from quotas.admission import AdmissionAnswer, Verdict, admit_batch
from quotas.settlement import CheckpointRow, checkpoint_batch, settle_batch, sweep_expired_holds
from tenants.scope import role_scope
from tests.database import blocking, connected, money_of, rows_of
from tests.factories import TenantFixture, admission_row, settlement_row, void_row
from tests.faults.conftest import SetStage
from tests.faults.evidence import (
    assert_audit_holds,
    holds_of,
    pending_holds,
    price_nanos,
    usage_of,
    wait_nothing_held,
)
from tests.faults.stage import Stage
from tests.faults.streams import StreamClient, chat_body, join_all, streaming
from tests.gateway_process import RunningGateway, running_gateway
from tests.waiting import wait_for

LOCKS = {
    "wallet": "SELECT 1 FROM quotas_wallet WHERE tenant_id = %s FOR UPDATE",
    "organization": "SELECT 1 FROM tenants_tenant WHERE id = %s FOR UPDATE",
}


@contextmanager
def locked(kind: str, tenant_id: UUID) -> Iterator[psycopg.Connection[object]]:
    """The row is locked by a connection of its own until the end."""
    with connected("owner", autocommit=False) as connection:
        assert connection.execute(LOCKS[kind].encode(), (tenant_id,)).fetchone() == (1,)
        yield connection


def waiting_for(connection: psycopg.Connection[object]) -> set[tuple[int, datetime]]:
    """The statements that wait for a lock of this connection now: process and start of each."""
    with connected("owner") as observer:
        rows = observer.execute(
            "SELECT pid, query_start FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))",
            (connection.info.backend_pid,),
        ).fetchall()
    return {(row[0], row[1]) for row in rows}


def wait_blocking(connection: psycopg.Connection[object], *, statements: int = 1) -> None:
    """Return once so many statements, one after the other, have run into a lock of this connection."""
    seen: set[tuple[int, datetime]] = set()

    def has_seen_enough() -> bool:
        seen.update(waiting_for(connection))
        return len(seen) >= statements

    wait_for(has_seen_enough, 15, f"{statements} statements that wait for the lock")


def calls_of(
    gateway: RunningGateway, tenant: TenantFixture, stage: Stage, count: int, **directive: str
) -> list[StreamClient]:
    """So many short calls of a tenant, begun at once."""
    body = chat_body(stage.slug, "go " + sim(tokens=5, rate=200, **directive), max_tokens=50)
    calls = [StreamClient(gateway.api_base, tenant.key.token, body) for _ in range(count)]
    for call in calls:
        call.start()
    return calls


def statuses(calls: list[StreamClient]) -> set[int | None]:
    return {call.status for call in calls}


@pytest.mark.parametrize("kind", list(LOCKS))
def test_a_lock_delays_its_own_tenant_only(set_stage: SetStage, tmp_path: Path, kind: str) -> None:
    """Before the lock is gone all others are served and settled; then the locked one is served as well."""
    stage = set_stage("llamacpp")
    others = [stage.another_tenant() for _ in range(3)]
    with running_gateway(tmp_path, SLUICE_ADMISSION_DEADLINE_S="20") as gateway:
        with locked(kind, stage.tenant_id) as lock:
            waiting = calls_of(gateway, stage.tenant, stage, 5)
            wait_for(
                lambda: waiting_for(lock) or all(call.status == 200 for call in waiting),
                10,
                "calls that wait for the lock or do not need it",
            )
            is_admission_held_up = all(call.status is None for call in waiting)
            for _ in range(3):
                served = [call for tenant in others for call in calls_of(gateway, tenant, stage, 5)]
                join_all(served, 15)
                assert statuses(served) == {200}, [call.error for call in served]
            wait_nothing_held(*(tenant.id for tenant in others), timeout_s=10)
            slowest_s = max(call.took_s for call in served)
            print(
                f"{kind} locked: its admissions {'wait' if is_admission_held_up else 'go on'}; "
                f"45 calls of others were served and settled meanwhile, the slowest in {slowest_s:.2f} s"
            )
            assert money_of(stage.tenant_id).granted == 5 * 10**9, "settled behind the lock's back"
        join_all(waiting, 25)
        assert statuses(waiting) == {200}, [call.error for call in waiting]
        wait_nothing_held(stage.tenant_id)
    for call in waiting:
        (record,) = usage_of(stage.tenant_id)[call.call_id]
        assert (record["source"], record["basis"], record["completion_tokens"]) == (
            "GATEWAY",
            "FINAL_USAGE",
            5,
        )
    assert_audit_holds()


def test_behind_a_lock_that_stays_calls_are_refused_in_time(set_stage: SetStage, tmp_path: Path) -> None:
    stage = set_stage("llamacpp")
    with running_gateway(tmp_path, SLUICE_ADMISSION_DEADLINE_S="1") as gateway:
        with locked("wallet", stage.tenant_id):
            calls = calls_of(gateway, stage.tenant, stage, 5)
            join_all(calls, 15)
            print(f"refused after {max(call.took_s for call in calls):.2f} s; the deadline is 1 s")
        assert statuses(calls) == {503}
        assert {call.retry_after for call in calls} == {"1"}
        # An admission that was under way when the deadline passed may come through: it is voided at once.
        # The next call queues behind it.
        (after,) = calls_of(gateway, stage.tenant, stage, 1)
        join_all([after])
        assert after.status == 200
        wait_nothing_held(stage.tenant_id)
    assert stage.engine.totals()["requests"] == 1
    assert_audit_holds()


@pytest.mark.parametrize("kind", list(LOCKS))
def test_calls_that_end_behind_a_lock_are_settled_when_it_goes(
    set_stage: SetStage, tmp_path: Path, kind: str
) -> None:
    stage = set_stage("llamacpp")
    other = stage.another_tenant()
    with (
        running_gateway(tmp_path) as gateway,
        streaming(
            gateway.api_base, stage.token, stage.slug, count=5, tokens=60, rate=50, min_words=5
        ) as streams,
    ):
        with locked(kind, stage.tenant_id) as lock:
            join_all(streams, 15)
            wait_blocking(lock, statements=3)
            (call,) = calls_of(gateway, other, stage, 1)
            join_all([call], 15)
            assert call.status == 200
            wait_nothing_held(other.id)
            assert len(usage_of(stage.tenant_id)) == 0
        wait_nothing_held(stage.tenant_id)
    holds, usage = holds_of(stage.tenant_id), usage_of(stage.tenant_id)
    for stream in streams:
        (record,) = usage[stream.call_id]
        assert (holds[stream.call_id]["state"], record["source"]) == ("POSTED", "GATEWAY")
        assert (stream.words, record["completion_tokens"]) == (60, 60)
    assert_audit_holds()


def test_a_caller_that_leaves_while_it_waits_holds_nothing(set_stage: SetStage, tmp_path: Path) -> None:
    stage = set_stage("llamacpp")
    with running_gateway(tmp_path, SLUICE_ADMISSION_DEADLINE_S="20") as gateway:
        body = chat_body(stage.slug, "go " + sim(tokens=5), max_tokens=50, stream=False)
        with locked("wallet", stage.tenant_id) as lock:
            connections = [RawCall(gateway, stage.token, body) for _ in range(4)]
            wait_blocking(lock)
            for connection in connections:
                connection.leave()
            wait_for(lambda: answers_without_status(gateway) >= 4, 10, "a gateway that has noticed")
        # The next call queues behind what is left of the others, so they are over when it is answered.
        (after,) = calls_of(gateway, stage.tenant, stage, 1)
        join_all([after], 15)
        assert after.status == 200
        wait_nothing_held(stage.tenant_id)
    assert stage.engine.totals()["requests"] == 1
    holds = holds_of(stage.tenant_id)
    left = [hold for request_id, hold in holds.items() if request_id != after.call_id]
    print(f"of 4 calls that left, {len(left)} were admitted all the same and voided")
    assert {(hold["state"], hold["resolved_by"]) for hold in left} <= {("VOIDED", "GATEWAY")}
    for hold in left:
        (attempt,) = rows_of("quotas_attempt", request_id=hold["request_id"])
        assert attempt["outcome"] == "CLIENT_GONE"
    assert_audit_holds()


def test_a_cost_above_its_hold_concerns_nobody_else(set_stage: SetStage, tmp_path: Path) -> None:
    """The backend of one tenant's calls claims far more tokens than were generated."""
    stage = set_stage("vllm")
    others = [stage.another_tenant() for _ in range(2)]
    with running_gateway(tmp_path) as gateway:
        lying = calls_of(gateway, stage.tenant, stage, 3, fault="usage_lies:+9000000")
        honest = [call for tenant in others for call in calls_of(gateway, tenant, stage, 6)]
        join_all([*lying, *honest])
        wait_nothing_held(stage.tenant_id, *(tenant.id for tenant in others))
    assert statuses([*lying, *honest]) == {200}
    holds, usage = holds_of(stage.tenant_id), usage_of(stage.tenant_id)
    for call in lying:
        (record,) = usage[call.call_id]
        assert record["charged_nanos"] == holds[call.call_id]["amount_nanos"]
        assert record["overrun_nanos"] > 0
    for tenant in others:
        for (record,) in usage_of(tenant.id).values():
            assert record["charged_nanos"] == price_nanos(record["prompt_tokens"], 5)
            assert record["overrun_nanos"] == 0
    assert_audit_holds()


@pytest.mark.parametrize("kind", list(LOCKS))
def test_a_sweep_leaves_a_locked_tenant_and_goes_on(set_stage: SetStage, kind: str) -> None:
    """Small batches, so that the locked tenant's holds alone would fill the first ones."""
    stage = set_stage("generic")
    others = [stage.another_tenant() for _ in range(3)]
    rows = [admission_row(stage.tenant, stage.model) for _ in range(4)]
    rows += [admission_row(tenant, stage.model) for tenant in others for _ in range(2)]
    checkpoints = [
        CheckpointRow(
            request_id=row.request_id,
            prompt_tokens=10,
            cached_tokens=0,
            completion_tokens=5,
            reasoning_tokens=0,
        )
        for row in rows
    ]
    with connected("dataplane") as connection:
        blocking(admit_batch, connection, rows, lease_s=20, block_ms=1000)
        blocking(checkpoint_batch, connection, checkpoints, lease_s=0)
    with locked(kind, stage.tenant_id), role_scope("dataplane"):
        # Other tests leave expired holds behind, which come first.
        report = sweep_expired_holds(lease_s=0, batch_size=2, max_batches=5000)
        wait_nothing_held(*(tenant.id for tenant in others))
        assert pending_holds(stage.tenant_id) == 4
        print(f"{kind} locked: {report}")
        assert report.left >= 4
    with role_scope("dataplane"):
        sweep_expired_holds(lease_s=0)
    wait_nothing_held(stage.tenant_id)
    records = [
        record
        for tenant_id in [stage.tenant_id, *(tenant.id for tenant in others)]
        for (record,) in usage_of(tenant_id).values()
    ]
    assert len(records) == 10
    assert {(record["source"], record["charged_nanos"]) for record in records} == {
        ("SWEEPER", price_nanos(10, 5))
    }
    assert_audit_holds()


def test_odd_rows_in_the_middle_of_a_batch(set_stage: SetStage) -> None:
    """A repeated id, an id with another body, a locked tenant and an unknown call, all in one batch."""
    stage = set_stage("generic")
    good, odd, held_up = (stage.another_tenant() for _ in range(3))
    known = admission_row(odd, stage.model)
    conflicting = admission_row(odd, stage.model, request_id=known.request_id, payload="another body")
    before, after = admission_row(good, stage.model), admission_row(good, stage.model)
    behind_lock = admission_row(held_up, stage.model)
    with connected("dataplane") as connection, locked("wallet", held_up.id):
        blocking(admit_batch, connection, [known], lease_s=20, block_ms=0)
        for odd_row, verdict in ((known, Verdict.ALREADY_DONE), (conflicting, Verdict.CONFLICT)):
            rows = [before, odd_row, behind_lock, after]
            first, second, third, fourth = blocking(admit_batch, connection, rows, lease_s=20, block_ms=0)
            assert isinstance(third, Busy)
            assert isinstance(second, AdmissionAnswer)
            assert second.verdict == verdict
            assert not isinstance(first, Busy)
            assert not isinstance(fourth, Busy)
        overrun = settlement_row(known, prompt_tokens=100, completion_tokens=10**6)
        nobody = settlement_row(admission_row(good, stage.model, request_id=uuid7()), completion_tokens=1)
        ends = [
            settlement_row(before, completion_tokens=10),
            overrun,
            nobody,
            void_row(behind_lock),
            void_row(after),
        ]
        answers = blocking(settle_batch, connection, ends, block_ms=0)
        said = [answer.verdict if not isinstance(answer, Busy) else "BUSY" for answer in answers]
        assert said == ["SETTLED", "SETTLED", "UNKNOWN", "UNKNOWN", "SETTLED"]
    wait_nothing_held(good.id, odd.id, held_up.id)
    assert_audit_holds()


class RawCall:
    """A plain call whose client can leave at any moment."""

    def __init__(self, gateway: RunningGateway, token: str, body: dict[str, object]) -> None:
        import json
        import socket

        host, _, port = gateway.url.removeprefix("http://").partition(":")
        text = json.dumps(body).encode()
        self._connection = socket.create_connection((host, int(port)), timeout=20)
        self._connection.sendall(
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Length: {len(text)}\r\n\r\n".encode()
            + text
        )

    def leave(self) -> None:
        self._connection.close()


def answers_without_status(gateway: RunningGateway) -> int:
    """How many calls have ended without an answer, by the gateway's own count."""
    import httpx2 as httpx

    text = httpx.get(f"{gateway.url}/metrics", trust_env=False, timeout=5).text
    for line in text.splitlines():
        if "answers_total{" in line and 'status="none"' in line:
            return int(float(line.rpartition(" ")[2]))
    return 0
