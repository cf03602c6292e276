"""Organizations with calls, and bundles of them. Everything commits."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings

from portal.kit.clock import utc_now
from quotas.bundles import operations, queries
from quotas.models import BillBundle
from tenants.models import Role
from tenants.operations import audit
from tenants.scope import role_scope, tenant_scope
from tests.factories import TenantFixture
from tests.people import make_person

DAY = timedelta(days=1)
ISSUER = "https://portal.example"


def today() -> datetime:
    return datetime.combine(utc_now().date(), time(), tzinfo=UTC)


def ask(
    tenant: TenantFixture, *, from_at: datetime | None = None, to_at: datetime | None = None, **fields: Any
) -> UUID:
    """The bundle of yesterday and today, unless told otherwise: it has the calls just made."""
    values: dict[str, Any] = {
        "from_at": from_at or today() - DAY,
        "to_at": to_at or today() + DAY,
        "actor": audit.member(make_person("payer").id, Role.BILLING),
        "now": utc_now(),
    }
    with tenant_scope(tenant.id):
        return operations.request_bundle(tenant_id=tenant.id, **(values | fields))


def run(bundle_id: UUID, **fields: Any) -> bool:
    values: dict[str, Any] = {
        "secrets": settings.SECRET_STORE,
        "issuer": ISSUER,
        "grace": timedelta(0),
        "now": utc_now(),
    }
    return operations.run_bundle(bundle_id=bundle_id, **(values | fields))


def content_of(tenant: TenantFixture, bundle_id: UUID) -> bytes:
    return b"".join(queries.iter_bundle(tenant_id=tenant.id, bundle_id=bundle_id))


def make_bundle(tenant: TenantFixture, folder: Path, **fields: Any) -> Path:
    """Made and downloaded."""
    bundle_id = ask(tenant, **fields)
    assert run(bundle_id), row_of(bundle_id).failure
    path = folder / f"{bundle_id}.zip"
    path.write_bytes(content_of(tenant, bundle_id))
    return path


def row_of(bundle_id: UUID) -> BillBundle:
    with role_scope("operator"):
        return BillBundle.objects.get(id=bundle_id)


def public_key() -> str:
    assert settings.SECRET_STORE is not None
    return settings.SECRET_STORE.signing_key().public.hex
