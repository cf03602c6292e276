"""Lists of calls and their exports: complete, in order, one's own only, and off other days' partitions."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any
from uuid import UUID

import msgspec
import pytest
from django.conf import settings
from django.db import connections

from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, partition_bound, public_id, uuid7, uuid7_time
from portal.kit.money import parse_amount
from quotas.metering.queries import (
    InvalidRequestFilter,
    RequestFilter,
    RequestRow,
    call_health,
    has_any_request,
    iter_requests_csv,
    last_used,
    list_requests,
    model_speeds,
)
from quotas.metering.queries import requests as requests_module
from quotas.metering.queries.activity import MIN_SPEED_SAMPLES
from quotas.models import AttemptOutcome
from quotas.settlement import AttemptEnd
from quotas.tests.doors import Connection, admitted, settle, settle_one
from quotas.tests.usage_rows import settled
from tenants.models import ApiKey, Role
from tenants.operations import playground_key
from tenants.scope import role_scope, tenant_scope
from tests.factories import (
    ModelFixture,
    TenantFixture,
    admission_row,
    enable,
    issue_key,
    make_model,
    make_tenant,
    settlement_row,
    void_row,
)
from tests.people import make_member

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


def recent(**choices: Any) -> RequestFilter:
    now = utc_now()
    return RequestFilter(**{"from_at": now - HOUR, "to_at": now + HOUR, **choices})


def listed(tenant: TenantFixture, **choices: Any) -> tuple[RequestRow, ...]:
    with tenant_scope(tenant.id):
        return list_requests(tenant_id=tenant.id, filters=recent(**choices)).rows


def ids(rows: Sequence[RequestRow]) -> set[UUID]:
    return {row.id for row in rows}


def timed(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture, ttft_ms: int, **end: Any
) -> UUID:
    """A call whose attempt ended with these times."""
    row = admitted(dataplane, admission_row(tenant, model))
    values = {"outcome": AttemptOutcome.COMPLETED, "http_status": 200, "duration_ms": ttft_ms + 1000, **end}
    attempt = AttemptEnd(id=row.attempt_id, ttft_ms=ttft_ms, **values)
    settlement = settlement_row(row, prompt_tokens=10, completion_tokens=51)
    settle_one(dataplane, msgspec.structs.replace(settlement, attempts=[attempt]))
    return row.request_id


def test_a_row_says_what_it_was(tenant: TenantFixture, model: ModelFixture, dataplane: Connection) -> None:
    request_id = timed(dataplane, tenant, model, 70)
    (row,) = listed(tenant)
    assert (row.id, row.public_id) == (request_id, public_id(PREFIXES["request"], request_id))
    assert (row.model.slug, row.key.id, row.key.name, len(row.key.hint)) == (
        model.slug,
        tenant.key.id,
        "test",
        4,
    )
    assert (row.prompt_tokens, row.cached_tokens, row.completion_tokens, row.reasoning_tokens) == (
        10,
        0,
        51,
        0,
    )
    assert (row.cost_nanos, row.charged_nanos, row.currency) == (112_000, 112_000, "USD")
    assert (row.ttft_ms, row.duration_ms, row.outcome, row.http_status) == (70, 1070, "COMPLETED", 200)
    assert (row.hold_state, row.source, row.basis, row.provenance) == (
        "POSTED",
        "GATEWAY",
        "FINAL_USAGE",
        "MEASURED",
    )
    assert row.admitted_at.tzinfo is not None
    assert not row.key.is_playground


def test_pending_and_void_show(tenant: TenantFixture, model: ModelFixture, dataplane: Connection) -> None:
    running = admitted(dataplane, admission_row(tenant, model))
    void = admitted(dataplane, admission_row(tenant, model))
    settle(dataplane, void_row(void))
    by_id = {row.id: row for row in listed(tenant)}
    row = by_id[running.request_id]
    assert (row.hold_state, row.hold_nanos, row.outcome, row.cost_nanos) == ("PENDING", 300_002, None, None)
    row = by_id[void.request_id]
    assert (row.hold_state, row.outcome, row.charged_nanos) == ("VOIDED", "BACKEND_FAILED", None)


def test_filters(tenant: TenantFixture, model: ModelFixture, dataplane: Connection) -> None:
    other_model = make_model()
    enable(tenant, other_model)
    key, digest = issue_key(tenant.id)
    plain = settled(dataplane, tenant, model)
    of_key = settled(dataplane, tenant, model, call={"api_key_id": key.id, "digest": digest})
    of_model = settled(dataplane, tenant, other_model, outcome=AttemptOutcome.CLIENT_GONE)
    free = settled(dataplane, tenant, model, prompt_tokens=0, completion_tokens=0)
    pending = admitted(dataplane, admission_row(tenant, model)).request_id
    every = {plain, of_key, of_model, free, pending}
    assert ids(listed(tenant)) == every
    assert ids(listed(tenant, model_slugs=(other_model.slug,))) == {of_model}
    assert ids(listed(tenant, key_ids=(key.id,))) == {of_key}
    assert ids(listed(tenant, outcomes=("CLIENT_GONE",))) == {of_model}
    assert ids(listed(tenant, hold_states=("PENDING",))) == {pending}
    assert ids(listed(tenant, is_billed=True)) == every - {free, pending}
    assert ids(listed(tenant, from_at=uuid7_time(plain) - DAY, to_at=uuid7_time(plain))) == set()
    assert listed(tenant, key_ids=(uuid7(),)) == listed(tenant, model_slugs=("no/such",)) == ()


def test_pages_are_complete_and_in_order(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    made = {settled(dataplane, tenant, model) for _ in range(7)}
    filters = recent(from_at=utc_now() - 300 * DAY)
    seen: list[UUID] = []
    before = None
    with tenant_scope(tenant.id):
        while True:
            page = list_requests(tenant_id=tenant.id, filters=filters, before=before, limit=3)
            seen += [row.id for row in page.rows]
            if page.next is None:
                break
            before = page.next
    assert seen == sorted(made, reverse=True)


def test_older_days_are_read_when_the_newest_are_not_enough(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    """Partitions begin yesterday, so a call of yesterday stands for all older ones."""
    old_id = UUID(int=partition_bound(utc_now() - 20 * HOUR).int | uuid7().int % 2**80)
    old = settled(dataplane, tenant, model, call={"request_id": old_id})
    new = settled(dataplane, tenant, model)
    with tenant_scope(tenant.id), pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests_module, "FIRST_SPAN", HOUR)
        rows = list_requests(tenant_id=tenant.id, filters=recent(from_at=utc_now() - DAY), limit=2).rows
    assert [row.id for row in rows] == [new, old]


def test_only_ones_own_calls(tenant: TenantFixture, model: ModelFixture, dataplane: Connection) -> None:
    other = make_tenant()
    enable(other, model)
    mine, theirs = settled(dataplane, tenant, model), settled(dataplane, other, model)
    assert (ids(listed(tenant)), ids(listed(other))) == ({mine}, {theirs})
    with tenant_scope(tenant.id):
        assert list_requests(tenant_id=other.id, filters=recent()).rows == ()
        assert has_any_request(tenant_id=tenant.id) is not None
        assert last_used(tenant_id=other.id) == {}
        assert call_health(tenant_id=other.id, now=utc_now()).ended == 0


def test_what_is_not_a_period_is_refused(tenant: TenantFixture) -> None:
    now = utc_now()
    for from_at in (now, now + DAY, now - 401 * DAY):
        with tenant_scope(tenant.id), pytest.raises(InvalidRequestFilter):
            list_requests(tenant_id=tenant.id, filters=RequestFilter(from_at=from_at, to_at=now))


def test_the_planner_leaves_other_days_partitions_out(tenant: TenantFixture) -> None:
    noon = utc_now().astimezone(UTC).replace(hour=12, minute=0)
    filters = RequestFilter(from_at=noon, to_at=noon + HOUR, is_billed=True, hold_states=("POSTED",))
    parameters = requests_module._parameters(
        tenant.id, filters, partition_bound(filters.from_at), partition_bound(filters.to_at), 50
    )
    with tenant_scope(tenant.id), connections["tenant"].cursor() as cursor:
        cursor.execute("EXPLAIN " + requests_module._REQUESTS, parameters)
        plan = "\n".join(line for (line,) in cursor.fetchall())
        cursor.execute(
            "SELECT count(*) FROM pg_inherits WHERE inhparent = 'quotas_inferencerequest'::regclass"
        )
        (partitions,) = cursor.fetchone()
    assert partitions >= 8
    assert set(re.findall(r"on (quotas_\w+?_\d{8})", plan)) == {
        f"quotas_{table}_{noon:%Y%m%d}" for table in ("inferencerequest", "hold", "usagerecord", "attempt")
    }
    assert "Seq Scan on quotas_inferencerequest" not in plan


def test_the_csv_is_complete_and_harmless(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [settled(dataplane, tenant, model) for _ in range(5)]
    pending = admitted(dataplane, admission_row(tenant, model)).request_id
    with role_scope("owner"):
        ApiKey.objects.filter(id=tenant.key.id).update(name="=cmd|' /C calc'!A0,\"x\"")
    monkeypatch.setattr("quotas.metering.queries.exports.MAX_PAGE_ROWS", 2)
    pieces = iter_requests_csv(tenant_id=tenant.id, filters=recent())
    text = next(pieces)
    # Between pieces nothing is left open: another organization's scope can be entered.
    with tenant_scope(make_tenant().id):
        pass
    assert not connections["tenant"].in_atomic_block
    text += "".join(pieces)
    rows = list(csv.DictReader(StringIO(text, newline="")))
    assert {row["request"] for row in rows} == {
        public_id(PREFIXES["request"], one) for one in [*made, pending]
    }
    assert {row["key_name"] for row in rows} == {"'=cmd|' /C calc'!A0,\"x\""}
    assert sum(parse_amount(row["charged"]) for row in rows if row["charged"]) == 5 * 20_000
    assert datetime.fromisoformat(rows[0]["admitted_at"]).utcoffset() == timedelta()
    with pytest.raises(InvalidRequestFilter):
        next(iter_requests_csv(tenant_id=tenant.id, filters=recent(to_at=utc_now() - DAY)))


def test_keys_of_the_playground_are_marked(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    person = make_member(tenant, Role.DEVELOPER)
    assert settings.SECRET_STORE is not None
    with tenant_scope(tenant.id):
        key = playground_key(
            tenant_id=tenant.id, user_id=person.id, secrets=settings.SECRET_STORE, now=utc_now()
        )
    settled(dataplane, tenant, model, call={"api_key_id": key.id, "digest": key.digest_hex})
    (row,) = listed(tenant)
    assert row.key.is_playground
    (line,) = csv.DictReader(StringIO("".join(iter_requests_csv(tenant_id=tenant.id, filters=recent()))))
    assert line["key_name"] == "Playground"


def test_first_and_last_use(tenant: TenantFixture, model: ModelFixture, dataplane: Connection) -> None:
    key, _ = issue_key(tenant.id)
    with tenant_scope(tenant.id):
        assert has_any_request(tenant_id=tenant.id) is None
        assert last_used(tenant_id=tenant.id) == {}
    pending = admitted(dataplane, admission_row(tenant, model))
    with tenant_scope(tenant.id):
        first = has_any_request(tenant_id=tenant.id)
        assert last_used(tenant_id=tenant.id) == {}
    assert first == {row.id: row for row in listed(tenant)}[pending.request_id].admitted_at
    settle(dataplane, settlement_row(pending, prompt_tokens=1))
    last = settled(dataplane, tenant, model)
    with tenant_scope(tenant.id):
        assert has_any_request(tenant_id=tenant.id) == first
        used = last_used(tenant_id=tenant.id)
    assert used == {tenant.key.id: {row.id: row for row in listed(tenant)}[last].admitted_at}
    assert key.id not in used


def test_how_calls_went(tenant: TenantFixture, model: ModelFixture, dataplane: Connection) -> None:
    with tenant_scope(tenant.id):
        empty = call_health(tenant_id=tenant.id, now=utc_now())
    assert (empty.ended, empty.error_rate, empty.ttft_p50_ms, empty.is_sampled) == (0, None, None, False)
    for ttft_ms in (10, 20, 30, 40):
        timed(dataplane, tenant, model, ttft_ms)
    failed = admitted(dataplane, admission_row(tenant, model))
    settle(dataplane, void_row(failed))
    admitted(dataplane, admission_row(tenant, model))
    with tenant_scope(tenant.id):
        health = call_health(tenant_id=tenant.id, now=utc_now())
        tomorrow = call_health(tenant_id=tenant.id, now=utc_now() + DAY + HOUR)
    assert (health.ended, health.failed, health.error_rate) == (5, 1, 0.2)
    assert (health.ttft_p50_ms, health.ttft_p95_ms) == (20, 40)
    assert tomorrow.ended == 0


@pytest.mark.parametrize("role", ["dataplane", "operator"])
def test_speed_needs_samples(role: str, dataplane: Connection) -> None:
    fast = make_model()
    callers = [make_tenant(), make_tenant()]
    for caller in callers:
        enable(caller, fast)
    for index in range(MIN_SPEED_SAMPLES - 1):
        timed(dataplane, callers[index % 2], fast, 100, completion_tokens=51)
    with role_scope(role):
        few = model_speeds(now=utc_now())[fast.slug]
    assert (few.samples, few.ttft_ms, few.tokens_per_s) == (MIN_SPEED_SAMPLES - 1, None, None)
    timed(dataplane, callers[0], fast, 900, completion_tokens=3)
    with role_scope(role):
        enough = model_speeds(now=utc_now())[fast.slug]
        assert fast.slug not in model_speeds(now=utc_now() + 8 * DAY)
    # The short answer says how long one waits, not how fast it flows.
    assert (enough.samples, enough.ttft_ms, enough.tokens_per_s) == (MIN_SPEED_SAMPLES, 100, None)
    timed(dataplane, callers[0], fast, 100, completion_tokens=51)
    with role_scope(role):
        assert model_speeds(now=utc_now())[fast.slug].tokens_per_s == 50.0
