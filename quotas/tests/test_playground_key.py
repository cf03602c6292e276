"""Admission treats the key of a person in the playground as every other."""

from __future__ import annotations

from typing import Any

import psycopg

from portal.kit.clock import utc_now
from quotas.tests.doors import admit_one
from tenants import operations
from tenants.models import Role
from tenants.scope import tenant_scope
from tenants.tests.people import add_member, store
from tests.factories import ModelFixture, TenantFixture, admission_row


def test_it_is_admitted_until_its_person_is_removed(
    tenant: TenantFixture, model: ModelFixture, dataplane: psycopg.Connection[Any]
) -> None:
    add_member(tenant.id, Role.OWNER)
    member = add_member(tenant.id)
    with tenant_scope(tenant.id):
        key = operations.playground_key(
            tenant_id=tenant.id, user_id=member.user_id, secrets=store(), now=utc_now()
        )

    def call() -> tuple[str, str | None]:
        row = admission_row(tenant, model, api_key_id=key.id, digest=key.digest_hex)
        answer = admit_one(dataplane, row)
        return str(answer.verdict), answer.reason

    assert call() == ("ADMITTED", None)
    with tenant_scope(tenant.id):
        operations.remove_member(
            tenant_id=tenant.id, membership_id=member.id, actor_role=Role.OWNER, now=utc_now()
        )
    assert call() == ("REFUSED", "KEY_REVOKED")
