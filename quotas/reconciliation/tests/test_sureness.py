"""How sure the counts of a call are: derived from what the backends' records say, for whoever may ask."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import psycopg
import pytest
from django.db import DatabaseError

from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id, uuid7
from quotas.ledger.queries import statement_page
from quotas.ledger.statement_csv import iter_statement_csv
from quotas.metering.queries import RequestFilter, iter_requests_csv, list_requests, request_receipt
from quotas.metering.queries.confirmed import confirmed_requests
from quotas.metering.queries.receipt import read_receipt
from quotas.models import AttemptOutcome, Basis, Provenance
from quotas.reconciliation.tests.said import Said, make_feed, post, served, take
from quotas.tests.doors import Connection, admitted, settle_one
from tenants.scope import role_scope, tenant_scope
from tests.database import blocking, connected
from tests.factories import (
    ModelFixture,
    TenantFixture,
    admission_row,
    enable,
    make_model,
    make_tenant,
    settlement_row,
)


@pytest.fixture(scope="module")
def model(database: None) -> ModelFixture:
    return make_model()


@pytest.fixture(scope="module")
def feed(model: ModelFixture) -> UUID:
    return make_feed(model.backend_id)


@pytest.fixture
def tenant(model: ModelFixture) -> TenantFixture:
    made = make_tenant()
    enable(made, model)
    return made


@pytest.fixture
def tenant_role(database: None) -> Iterator[psycopg.Connection]:
    with connected("tenant") as connection:
        yield connection


def words_of(tenant: TenantFixture, request_id: UUID) -> set[str | None]:
    """What each of the places that show it says."""
    now = utc_now()
    filters = RequestFilter(now.replace(hour=0, minute=0, second=0, microsecond=0), now)
    with tenant_scope(tenant.id):
        rows = list_requests(tenant_id=tenant.id, filters=filters).rows
        listed = {row.provenance for row in rows if row.id == request_id}
        listed.add(request_receipt(tenant_id=tenant.id, request_id=request_id).provenance)
    with role_scope("operator"):
        listed.add(request_receipt(tenant_id=tenant.id, request_id=request_id).provenance)
    with connected("dataplane") as connection:
        receipt = blocking(read_receipt, connection, tenant_id=tenant.id, request_id=request_id)
    listed.add(receipt.provenance)
    text = "".join(iter_requests_csv(tenant_id=tenant.id, filters=filters))
    (line,) = [line for line in text.splitlines() if rows and _spelled(request_id) in line]
    listed.add(line.split(",")[-2])
    return listed


def _spelled(request_id: UUID) -> str:
    return public_id(PREFIXES["request"], request_id)


def test_a_call_is_confirmed_when_the_record_agrees(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture, feed: UUID
) -> None:
    row = served(dataplane, tenant, model, 10, 20)
    assert words_of(tenant, row.request_id) == {"MEASURED"}
    take(feed, [Said(row.attempt_id, 10, 20)])
    assert words_of(tenant, row.request_id) == {"CONFIRMED"}
    # The record that is written says what the gateway knew, and stays so.
    with tenant_scope(tenant.id):
        (revision,) = request_receipt(tenant_id=tenant.id, request_id=row.request_id).revisions
    assert revision.provenance == "MEASURED"
    # A second record that says something else takes the word away.
    take(feed, [Said(row.attempt_id, 10, 21)])
    assert words_of(tenant, row.request_id) == {"MEASURED"}


def test_a_corrected_call_says_so_and_why(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture, feed: UUID
) -> None:
    row = served(dataplane, tenant, model, 10, 20)
    take(feed, [Said(row.attempt_id, 12, 25)])
    assert words_of(tenant, row.request_id) == {"MEASURED"}
    post()
    assert words_of(tenant, row.request_id) == {"CORRECTED"}
    now = utc_now()
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    with tenant_scope(tenant.id):
        receipt = request_receipt(tenant_id=tenant.id, request_id=row.request_id)
        page = statement_page(tenant_id=tenant.id, from_at=day, to_at=now, limit=50)
    assert [revision.cause for revision in receipt.revisions] == [None, "COUNTS_DIFFER"]
    usage = [line for line in page.rows if line.kind == "USAGE"]
    assert [(line.cause, line.amount_nanos) for line in usage] == [
        (None, -50_000),
        ("COUNTS_DIFFER", -12_000),
    ]
    text = "".join(iter_statement_csv(tenant_id=tenant.id, from_at=day, to_at=now))
    assert text.count("Correction: COUNTS_DIFFER") == 1


def test_an_estimate_is_not_confirmed_and_a_call_without_a_record_stays_measured(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture, feed: UUID
) -> None:
    row = admitted(dataplane, admission_row(tenant, model))
    settlement = settlement_row(
        row,
        prompt_tokens=10,
        completion_tokens=20,
        basis=Basis.EVENTS,
        provenance=Provenance.ESTIMATED,
        outcome=AttemptOutcome.CLIENT_GONE,
    )
    settle_one(dataplane, settlement)
    assert words_of(tenant, row.request_id) == {"ESTIMATED"}


def test_nobody_learns_of_the_calls_of_others(
    dataplane: Connection,
    tenant: TenantFixture,
    model: ModelFixture,
    feed: UUID,
    tenant_role: psycopg.Connection,
) -> None:
    row = served(dataplane, tenant, model, 10, 20)
    take(feed, [Said(row.attempt_id, 10, 20)])
    other = make_tenant()
    with tenant_scope(other.id):
        assert confirmed_requests(tenant_id=tenant.id, request_ids=[row.request_id]) == frozenset()
    with tenant_scope(tenant.id):
        assert confirmed_requests(tenant_id=tenant.id, request_ids=[row.request_id, uuid7()]) == {
            row.request_id
        }
    with role_scope("operator"):
        assert confirmed_requests(tenant_id=tenant.id, request_ids=[row.request_id]) == {row.request_id}
        assert confirmed_requests(tenant_id=other.id, request_ids=[row.request_id]) == frozenset()
    # Without a scope nothing is known, and the function that takes an organization is not for organizations.
    asked = [row.request_id]
    assert tenant_role.execute("SELECT * FROM quotas_confirmed(%s)", (asked,)).fetchall() == []
    for statement in (
        "quotas_confirmed_of(%(tenant)s, %(asked)s)",
        "quotas_feedrecord WHERE %(asked)s IS NULL",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            tenant_role.execute(f"SELECT * FROM {statement}", {"tenant": tenant.id, "asked": asked})


def test_many_are_asked_about_in_one_go_but_not_endlessly_many(database: None, tenant: TenantFixture) -> None:
    many = [uuid7() for _ in range(1000)]
    with role_scope("operator"):
        assert confirmed_requests(tenant_id=tenant.id, request_ids=many) == frozenset()
        with pytest.raises(DatabaseError, match="at most 1000"):
            confirmed_requests(tenant_id=tenant.id, request_ids=[*many, uuid7()])
