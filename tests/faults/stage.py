"""What a fault test plays on."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from devstack.engines.testing import RunningEngine
from tests.factories import ModelFixture, TenantFixture, enable, make_tenant


@dataclass(frozen=True, slots=True)
class Stage:
    """An engine, a model on it, and a tenant that may use the model."""

    engine: RunningEngine
    tenant: TenantFixture
    model: ModelFixture

    @property
    def tenant_id(self) -> UUID:
        return self.tenant.id

    @property
    def token(self) -> str:
        return self.tenant.key.token

    @property
    def slug(self) -> str:
        return self.model.slug

    def another_tenant(self, *, granted: str | None = "5.00") -> TenantFixture:
        """A further tenant that may use the model."""
        tenant = make_tenant(granted=granted)
        enable(tenant, self.model)
        return tenant
