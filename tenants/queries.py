"""Reads: finding an organization by what people call it. The caller opens a scope that may."""

import contextlib
from dataclasses import dataclass
from uuid import UUID

from django.db.models import Q

from portal.kit.ids import PREFIXES, InvalidPublicId, parse_public_id, public_id
from tenants.models import Tenant

MAX_FOUND = 50


@dataclass(frozen=True, slots=True)
class TenantName:
    id: UUID
    name: str

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["organization"], self.id)


def find_tenants(*, text: str) -> list[TenantName]:
    """Organizations with this public id, name, or e-mail address of a member; at most MAX_FOUND, oldest
    first. An empty text finds all."""
    wanted = Q()
    if text:
        wanted = Q(name=text) | Q(memberships__user__email=text.lower())
        with contextlib.suppress(InvalidPublicId):
            wanted |= Q(id=parse_public_id(PREFIXES["organization"], text))
    found = Tenant.objects.filter(wanted).distinct().order_by("id")[:MAX_FOUND]
    return [TenantName(tenant.id, tenant.name) for tenant in found]
