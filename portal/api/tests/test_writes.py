"""Every write happens once: repeated with its idempotency key it changes nothing, with another body: 409.

The list of writes is the API's description; one without a case in tests/isolation/api_cases.py fails there.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx2
import pytest

from portal.api.tests.stage import open_stage, problem_of, program
from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from tenants import operations
from tenants.operations.management import KEPT_WRITES
from tenants.scope import role_scope, tenant_scope
from tests.database import connected, rows_of
from tests.isolation.api_cases import (
    ApiCase,
    digest_around,
    every_case,
    has_case,
    make_api_world,
    nothing_known,
    operator_token,
    prepare,
)
from tests.web_process import RunningWeb

pytestmark = pytest.mark.usefixtures("database")

WRITES = [case for case in every_case() if case.is_write and has_case(case)]


@pytest.mark.parametrize("case", WRITES, ids=lambda case: case.id)
def test_a_write_that_is_repeated_changes_nothing(case: ApiCase) -> None:
    world = make_api_world()
    prepare(case, world)
    caller = program(operator_token() if case.is_operators else world.token)
    path, body = case.url(world.ids).removeprefix("/api/v1"), case.body(world.ids)
    before = digest_around(world)
    once = f"one-{uuid7()}"
    first = caller.call(case.method, path, body, idempotency_key=once)
    assert first.status_code in (200, 201), first.content
    assert "Idempotent-Replay" not in first
    done = digest_around(world)
    assert done != before
    for _ in range(2):
        again = caller.call(case.method, path, body, idempotency_key=once)
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert again["Idempotent-Replay"] == "true"
        assert again["X-Request-Id"] != first["X-Request-Id"]
        assert digest_around(world) == done
    other = caller.call(*_other(case, path, body), idempotency_key=once)
    problem_of(other, 409, "idempotency-key-reused")
    assert digest_around(world) == done


def _other(case: ApiCase, path: str, body: dict[str, Any] | None) -> tuple[str, str, dict[str, Any] | None]:
    """The same write with another body; where it takes none, another write."""
    if body is None:
        wanted = case.url(nothing_known()).removeprefix("/api/v1")
        return (case.method, wanted, None) if case.is_operators else ("POST", "/keys", {"name": "other"})
    changed = dict(body)
    name = next(name for name in ("reason", "name", "count", "time_zone", "currency") if name in body)
    others = {"time_zone": "Europe/Berlin", "currency": "CNY"}
    more = f"{body[name]} more" if isinstance(body[name], str) else body[name] + 1
    changed[name] = others.get(name, more)
    return case.method, path, changed


def test_bodies_that_say_the_same_are_the_same() -> None:
    stage = open_stage()
    first = stage.program.post("/keys", b'{"name": "a", "labels": {"b": "c"}}', idempotency_key="x")
    again = stage.program.post("/keys", b'{ "labels":{"b":"c"},"name":"a" }', idempotency_key="x")
    assert again.content == first.content
    assert again["Idempotent-Replay"] == "true"


def test_what_was_refused_is_not_remembered() -> None:
    stage = open_stage()
    problem_of(stage.program.post("/keys", {"name": ""}, idempotency_key="x"), 400, "invalid-request")
    refused = {"name": "x", "models": ["nobody/nothing"]}
    problem_of(stage.program.post("/keys", refused, idempotency_key="x"), 422, "refused")
    assert stage.program.post("/keys", {"name": "right"}, idempotency_key="x").status_code == 201


def test_keys_of_two_programs_do_not_meet() -> None:
    stage = open_stage()
    another = stage.with_key()
    first = stage.program.post("/keys", {"name": "same"}, idempotency_key="x")
    second = another.post("/keys", {"name": "same"}, idempotency_key="x")
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["key"]["id"] != second.json()["key"]["id"]


@pytest.mark.parametrize("key", ["", "two words", "ü", "x" * 256])
def test_an_idempotency_key_has_a_form(key: str) -> None:
    sent = key.encode().decode("latin-1")
    answer = open_stage().program.post("/keys", {"name": "x"}, headers={"Idempotency-Key": sent})
    (error,) = problem_of(answer, 400, "invalid-request")["errors"]
    assert (error["in"], error["field"]) == ("header", "Idempotency-Key")


def test_a_secret_is_replayed_and_stored_for_nobody_to_read() -> None:
    stage = open_stage()
    secret = stage.program.post("/keys", {"name": "x"}, idempotency_key="x").json()["secret"]
    assert stage.program.post("/keys", {"name": "x"}, idempotency_key="x").json()["secret"] == secret
    (row,) = rows_of("tenants_idempotentwrite", tenant_id=stage.tenant.id)
    assert secret not in str(row)
    assert row["status"] == 201


def test_writes_that_come_at_once_happen_once(web: RunningWeb) -> None:
    stage = open_stage()
    headers = {"Authorization": f"Bearer {stage.key.token}", "Idempotency-Key": "at-once"}
    together = threading.Barrier(8)

    def write(_: int) -> httpx2.Response:
        together.wait()
        return httpx2.post(f"{web.url}/api/v1/keys", json={"name": "one"}, headers=headers, timeout=30)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(write, range(8)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    replays = [answer for answer in answers if answer.headers.get("Idempotent-Replay") == "true"]
    assert len(replays) == 7
    assert len(rows_of("tenants_apikey", tenant_id=stage.tenant.id, name="one")) == 1


def test_a_write_that_takes_too_long_is_a_conflict_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = open_stage()
    monkeypatch.setattr("tenants.operations.management.WRITE_WAIT_MS", 50)
    with connected("tenant", autocommit=False) as other:
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"{stage.key.id}:x",))
        answer = stage.program.post("/keys", {"name": "x"}, idempotency_key="x")
    problem_of(answer, 409, "write-in-progress")
    assert answer["Retry-After"] == "2"
    assert stage.program.post("/keys", {"name": "x"}, idempotency_key="x").status_code == 201


def test_old_answers_are_forgotten() -> None:
    stage = open_stage()
    stage.program.post("/keys", {"name": "new"}, idempotency_key="new")
    _remember(stage.tenant.id, stage.key.id, "old", age=KEPT_WRITES + timedelta(hours=1))
    with role_scope("dataplane"):
        assert operations.prune_writes(now=utc_now()) >= 1
    kept = rows_of("tenants_idempotentwrite", tenant_id=stage.tenant.id)
    assert [row["idempotency_key"] for row in kept] == ["new"]


def _remember(tenant_id: UUID, key_id: UUID, name: str, *, age: timedelta) -> None:
    from portal.api.authentication import secret_store

    with tenant_scope(tenant_id):
        operations.remember_write(
            tenant_id=tenant_id,
            management_key_id=key_id,
            idempotency_key=name,
            fingerprint=bytes(32),
            answer=operations.StoredAnswer(200, "{}"),
            secrets=secret_store(),
            now=utc_now() - age,
        )
