"""Admission: who is let in, what is held, and what is said to those who are not."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest

from models_catalog import operations as catalog_operations
from models_catalog.models import CatalogModel, ModelState
from portal.kit.batching import BUSY
from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from quotas.admission import AdmissionAnswer, AdmissionRow, Refusal, Verdict, admit_batch, open_attempt
from quotas.settlement import settle_batch
from quotas.tests.doors import Connection, admit, admit_one, assert_refused, settle, verdicts
from tenants import operations as tenant_operations
from tenants.models import ApiKey, TenantState
from tenants.scope import role_scope
from tests.database import Money, blocking, connected, connection_info, money_of, rows_of
from tests.factories import (
    ModelFixture,
    TenantFixture,
    admission_row,
    enable,
    issue_key,
    make_model,
    make_tenant,
    set_state,
    settlement_row,
    void_row,
)

HOLD = 100 * 1_000 + 100 * 2_000 + 2


# --- What an admitted call leaves ------------------------------------------------------------------


def test_an_admitted_call_is_durable(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    row = admission_row(tenant, model, is_stream=True)
    answer = admit_one(dataplane, row)

    assert answer == AdmissionAnswer(
        request_id=row.request_id,
        verdict=Verdict.ADMITTED,
        reason=None,
        currency="USD",
        hold_nanos=HOLD,
        available_nanos=10**9 - HOLD,
        pending_nanos=HOLD,
        fit_output_tokens=None,
        output_cap_tokens=100,
    )
    # Read over another connection: the answer came after the commit.
    (request,) = rows_of("quotas_inferencerequest", id=row.request_id)
    assert request["tenant_id"] == tenant.id
    assert request["price_version_id"] == model.price_version_id
    assert request["price_window_id"] is None
    assert (request["is_stream"], request["choices"]) == (True, 1)
    assert (request["prompt_bound_tokens"], request["output_cap_tokens"]) == (100, 100)
    (hold,) = rows_of("quotas_hold", request_id=row.request_id)
    assert (hold["state"], hold["amount_nanos"], hold["currency"]) == ("PENDING", HOLD, "USD")
    assert hold["lease_until"] - request["admitted_at"] == timedelta(seconds=20)
    (attempt,) = rows_of("quotas_attempt", request_id=row.request_id)
    assert (attempt["id"], attempt["ordinal"], attempt["outcome"]) == (row.attempt_id, 1, None)
    assert money_of(tenant.id) == Money(granted=10**9, pending=HOLD)


async def test_the_door_over_a_real_asynchronous_connection(
    tenant: TenantFixture, model: ModelFixture
) -> None:
    rows = [admission_row(tenant, model) for _ in range(3)]
    info = connection_info("dataplane")
    async with await psycopg.AsyncConnection.connect(info, autocommit=True) as connection:
        answers = await admit_batch(connection, rows, lease_s=20, block_ms=0)
        settled = await settle_batch(connection, [void_row(row) for row in rows], block_ms=0)
    assert verdicts(answers) == [Verdict.ADMITTED] * 3
    assert [answer.request_id for answer in answers if isinstance(answer, AdmissionAnswer)] == [
        row.request_id for row in rows
    ]
    assert BUSY not in settled
    assert money_of(tenant.id) == Money(granted=10**9)


# --- Refusals --------------------------------------------------------------------------------------


def test_an_unknown_tenant_is_an_unknown_key(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    stranger = replace(tenant, id=uuid7())
    assert_refused(dataplane, admission_row(stranger, model), Refusal.KEY_UNKNOWN)


def test_unknown_keys(tenant: TenantFixture, model: ModelFixture, dataplane: Connection) -> None:
    other = make_tenant()
    enable(other, model)
    for fields in (
        {"api_key_id": uuid7()},
        {"digest": "00" * 32},
        {"digest": other.digest_hex},
        {"api_key_id": other.key.id, "digest": other.digest_hex},
    ):
        assert_refused(dataplane, admission_row(tenant, model, **fields), Refusal.KEY_UNKNOWN)


def test_revoked_and_expired_keys(tenant: TenantFixture, model: ModelFixture, dataplane: Connection) -> None:
    key, digest = issue_key(tenant.id)
    with role_scope("operator"):
        tenant_operations.revoke_api_key(tenant_id=tenant.id, key_id=tenant.key.id, now=utc_now())
        ApiKey.objects.filter(id=key.id).update(expires_at=utc_now())
    assert_refused(dataplane, admission_row(tenant, model), Refusal.KEY_REVOKED)
    expired = admission_row(tenant, model, api_key_id=key.id, digest=digest)
    assert_refused(dataplane, expired, Refusal.KEY_EXPIRED)


@pytest.mark.parametrize("state", [TenantState.SUSPENDED, TenantState.CLOSED])
def test_an_organization_that_is_not_active(
    state: TenantState, tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    set_state(tenant.id, state)
    assert_refused(dataplane, admission_row(tenant, model), Refusal.TENANT_SUSPENDED)
    set_state(tenant.id, TenantState.ACTIVE)
    assert admit_one(dataplane, admission_row(tenant, model)).verdict == Verdict.ADMITTED


def test_an_organization_without_a_wallet(model: ModelFixture, dataplane: Connection) -> None:
    with role_scope("operator"):
        tenant_id = tenant_operations.create_tenant(name="No wallet", currency="USD", owner_id=None).id
    key, digest = issue_key(tenant_id)
    bare = TenantFixture(tenant_id, "", "USD", key, digest)
    assert_refused(dataplane, admission_row(bare, model), Refusal.TENANT_SUSPENDED)


def test_unknown_and_retired_models(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    retired = make_model()
    enable(tenant, retired)
    with role_scope("operator"):
        CatalogModel.objects.filter(id=retired.id).update(state=ModelState.RETIRED)
    assert_refused(dataplane, admission_row(tenant, retired), Refusal.MODEL_UNKNOWN)
    assert_refused(dataplane, admission_row(tenant, replace(model, id=uuid7())), Refusal.MODEL_UNKNOWN)


def test_a_grant_that_was_never_made_or_has_ended(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    assert_refused(dataplane, admission_row(tenant, make_model()), Refusal.MODEL_NOT_ENABLED)
    with role_scope("operator"):
        catalog_operations.end_grant(tenant_id=tenant.id, slug=model.slug, now=utc_now())
    assert_refused(dataplane, admission_row(tenant, model), Refusal.MODEL_NOT_ENABLED)
    enable(tenant, model)
    assert admit_one(dataplane, admission_row(tenant, model)).verdict == Verdict.ADMITTED


def test_a_restricted_key(tenant: TenantFixture, model: ModelFixture, dataplane: Connection) -> None:
    listed = make_model()
    enable(tenant, listed)
    with role_scope("operator"):
        catalog_operations.restrict_api_key(tenant_id=tenant.id, key_id=tenant.key.id, slugs=[listed.slug])
    assert_refused(dataplane, admission_row(tenant, model), Refusal.MODEL_NOT_ON_KEY)
    assert admit_one(dataplane, admission_row(tenant, listed)).verdict == Verdict.ADMITTED


def test_a_deployment_of_another_model_is_refused(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    elsewhere = admission_row(tenant, model, deployment_id=make_model().deployment_id)
    assert_refused(dataplane, elsewhere, Refusal.NOT_DEPLOYED)


def test_no_price_for_the_model_currency_or_service_tier(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    priceless = make_model(prices=None)
    enable(tenant, priceless)
    chinese = make_tenant("CNY")
    enable(chinese, model)
    assert_refused(dataplane, admission_row(tenant, priceless), Refusal.NO_PRICE)
    assert_refused(dataplane, admission_row(chinese, model), Refusal.NO_PRICE)
    assert_refused(dataplane, admission_row(tenant, model, service_tier="batch"), Refusal.NO_PRICE)


# --- Repeated ids ----------------------------------------------------------------------------------


def test_a_repeated_id_is_done_already_or_a_conflict(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    row = admission_row(tenant, model)
    admit_one(dataplane, row)
    other = admission_row(
        tenant, model, request_id=row.request_id, attempt_id=row.attempt_id, payload="another"
    )
    again, conflict = admit_one(dataplane, row), admit_one(dataplane, other)
    assert (again.verdict, again.reason, again.hold_nanos) == (Verdict.ALREADY_DONE, "PENDING", HOLD)
    assert (conflict.verdict, conflict.hold_nanos) == (Verdict.CONFLICT, HOLD)

    settle(dataplane, settlement_row(row, prompt_tokens=1))
    answers = admit(dataplane, row, admission_row(tenant, model))
    assert verdicts(answers) == [Verdict.ALREADY_DONE, Verdict.ADMITTED]
    assert money_of(tenant.id).pending == HOLD


def test_an_id_that_was_refused_may_come_again(model: ModelFixture, dataplane: Connection) -> None:
    tenant = make_tenant()
    row = admission_row(tenant, model)
    assert_refused(dataplane, row, Refusal.MODEL_NOT_ENABLED)
    enable(tenant, model)
    assert admit_one(dataplane, row).verdict == Verdict.ADMITTED


def test_a_bad_row_leaves_nothing_of_its_batch(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    good = admission_row(tenant, model)
    bad = admission_row(tenant, model, attempt_id=good.attempt_id)
    with pytest.raises(psycopg.errors.UniqueViolation):
        admit(dataplane, good, bad)
    assert rows_of("quotas_hold", request_id=good.request_id) == []
    assert money_of(tenant.id).pending == 0
    assert admit_one(dataplane, good).verdict == Verdict.ADMITTED


# --- Locked wallets --------------------------------------------------------------------------------


def _lock(connection: Connection, tenant_id: UUID) -> None:
    connection.execute("SELECT 1 FROM quotas_wallet WHERE tenant_id = %s FOR NO KEY UPDATE", (tenant_id,))


def test_a_locked_tenant_delays_nobody_else(model: ModelFixture, dataplane: Connection) -> None:
    tenants = [make_tenant() for _ in range(3)]
    for each in tenants:
        enable(each, model)
    rows = [admission_row(each, model) for each in tenants for _ in range(2)]
    with connected("owner", autocommit=False) as blocker:
        _lock(blocker, tenants[1].id)
        answers = admit(dataplane, *rows)
    # The lock went with the blocker's transaction.
    expected = [Verdict.ADMITTED, Verdict.ADMITTED, BUSY, BUSY, Verdict.ADMITTED, Verdict.ADMITTED]
    assert verdicts(answers) == expected
    assert money_of(tenants[1].id).pending == 0
    assert verdicts(admit(dataplane, *rows[2:4])) == [Verdict.ADMITTED] * 2


def test_waiting_for_a_locked_tenant_is_bounded(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    row = admission_row(tenant, model)
    with connected("owner", autocommit=False) as blocker:
        _lock(blocker, tenant.id)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            admit(dataplane, row, block_ms=250)
    assert verdicts(admit(dataplane, row, block_ms=250)) == [Verdict.ADMITTED]


# --- Further attempts ------------------------------------------------------------------------------


def test_a_further_attempt_is_committed_only_while_the_hold_lives(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    def attempt(row: AdmissionRow, attempt_id: UUID) -> bool:
        return blocking(
            open_attempt,
            dataplane,
            attempt_id=attempt_id,
            request_id=row.request_id,
            deployment_id=model.deployment_id,
            choice_index=0,
            ordinal=2,
        )

    row, second = admission_row(tenant, model), uuid7()
    admit_one(dataplane, row)
    assert attempt(row, second)
    # Asked again after an unknown commit: the same attempt, not a third one.
    assert attempt(row, second)
    ordinals = sorted(found["ordinal"] for found in rows_of("quotas_attempt", request_id=row.request_id))
    assert ordinals == [1, 2]

    settle(dataplane, void_row(row))
    assert not attempt(row, uuid7())
    lapsed = admission_row(tenant, model)
    admit(dataplane, lapsed, lease_s=0)
    assert not attempt(lapsed, uuid7())
    assert not attempt(admission_row(tenant, model), uuid7())


def test_an_attempt_is_of_a_call_of_its_tenant(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    """No foreign key says so, for speed; the database holds it all the same, and no attempt moves."""
    stranger = make_tenant()
    row, other = (admission_row(tenant, model) for _ in range(2))
    for each in (row, other):
        admit_one(dataplane, each)
    insert = (
        "INSERT INTO quotas_attempt (id, request_id, tenant_id, deployment_id, ordinal, choice_index, "
        "started_at, wire_id) VALUES (%s, %s, %s, %s, 2, 0, now(), '')"
    )
    for request_id, tenant_id in ((row.request_id, stranger.id), (uuid7(), tenant.id)):
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            dataplane.execute(insert, (uuid7(), request_id, tenant_id, model.deployment_id))
    dataplane.execute(insert, (uuid7(), row.request_id, tenant.id, model.deployment_id))
    with pytest.raises(psycopg.errors.RestrictViolation):
        dataplane.execute(
            "UPDATE quotas_attempt SET request_id = %s WHERE id = %s", (other.request_id, row.attempt_id)
        )


@pytest.mark.parametrize("table", ["quotas_hold", "quotas_usagerecord"])
def test_every_day_has_its_foreign_key(table: str, database: None) -> None:
    with connected("owner") as owner:
        rows = owner.execute(
            "SELECT i.inhrelid::regclass::text, c.confrelid::regclass::text FROM pg_inherits i "
            "LEFT JOIN pg_constraint c ON c.conrelid = i.inhrelid AND c.conname LIKE '%%_request_fk' "
            "WHERE i.inhparent = %s::regclass",
            (table,),
        ).fetchall()
    assert rows
    for partition, day in rows:
        assert day == "quotas_inferencerequest" + partition.removeprefix(table)
