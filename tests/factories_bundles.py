"""Verifiable bills for tests of other packages."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from uuid import UUID

from django.conf import settings

from portal.kit.clock import utc_now
from quotas.bundles import operations
from tenants.operations import audit
from tenants.scope import tenant_scope
from tests.factories import TenantFixture

DAY = timedelta(days=1)


def make_ready_bundle(tenant: TenantFixture) -> UUID:
    """Of yesterday, made and ready."""
    today = datetime.combine(utc_now().date(), time(), tzinfo=UTC)
    with tenant_scope(tenant.id):
        bundle_id = operations.request_bundle(
            tenant_id=tenant.id,
            from_at=today - DAY,
            to_at=today,
            actor=audit.SYSTEM,
            now=utc_now(),
            is_awaited=True,
        )
    assert operations.run_bundle(
        bundle_id=bundle_id,
        secrets=settings.SECRET_STORE,
        issuer="https://portal.example",
        grace=timedelta(0),
        now=utc_now(),
    )
    return bundle_id
