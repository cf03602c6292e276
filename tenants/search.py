"""Looking for organizations, and what operators read about one of them. As operator."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Count, Exists, F, OuterRef, Q, QuerySet
from django.db.models.expressions import Combinable

from portal.kit.ids import PREFIXES, InvalidPublicId, parse_public_id, public_id
from tenants.models import Membership, Role, Tenant, TenantNote, TenantState

MAX_PAGE_ROWS = 200
MAX_NOTES = 200


@dataclass(frozen=True, slots=True)
class TenantRow:
    """An organization as operators see it in a list. owner_email: of its longest-standing owner."""

    id: UUID
    name: str
    state: TenantState
    state_reason: str
    cuts_calls: bool
    currency: str
    created_at: datetime
    members: int
    owner_email: str

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["organization"], self.id)


@dataclass(frozen=True, slots=True)
class TenantPage:
    """Organizations, newest first; `next` is what `before` takes for the page behind this one."""

    rows: tuple[TenantRow, ...]
    next: UUID | None


@dataclass(frozen=True, slots=True)
class NoteRow:
    id: UUID
    text: str
    author_email: str
    created_at: datetime


def search_tenants(
    *,
    text: str = "",
    state: TenantState | None = None,
    conditions: Sequence[Q | Combinable] = (),
    before: UUID | None = None,
    limit: int = 50,
) -> TenantPage:
    """A page of organizations, newest first.

    text: part of the name, the beginning of a member's e-mail address, or the public id of the organization
    or of one of its API keys. conditions: what else has to be so of a row of Tenant. limit: 1 to
    MAX_PAGE_ROWS.
    """
    tenants = Tenant.objects.filter(_matching(text.strip()), *conditions)
    if state is not None:
        tenants = tenants.filter(state=state)
    if before is not None:
        tenants = tenants.filter(id__lt=before)
    limit = max(1, min(limit, MAX_PAGE_ROWS))
    rows = _rows(tenants.order_by("-id")[: limit + 1])
    return TenantPage(tuple(rows[:limit]), rows[limit - 1].id if len(rows) > limit else None)


def find_tenant(*, tenant_id: UUID) -> TenantRow | None:
    """One organization, or None."""
    return next(iter(_rows(Tenant.objects.filter(id=tenant_id))), None)


def count_suspended() -> int:
    """How many organizations are suspended, counted no further than MAX_PAGE_ROWS."""
    return Tenant.objects.filter(state=TenantState.SUSPENDED)[:MAX_PAGE_ROWS].count()


def list_notes(*, tenant_id: UUID) -> list[NoteRow]:
    """What operators noted about an organization, newest first, at most MAX_NOTES."""
    notes: Any = TenantNote.objects.filter(tenant_id=tenant_id).order_by("-id")
    values = notes.values("id", "text", "created_at", author_email=F("author__email"))[:MAX_NOTES]
    return [NoteRow(**one) for one in values]


def _matching(text: str) -> Q:
    if not text:
        return Q()
    for kind, column in (("organization", "id"), ("api_key", "api_keys__id")):
        with contextlib.suppress(InvalidPublicId):
            return Q(**{column: parse_public_id(PREFIXES[kind], text)})
    if "\0" in text:
        return Q(pk__in=[])
    members = Membership.objects.filter(tenant_id=OuterRef("id"), user__email__startswith=text.lower())
    return Q(name__icontains=text) | Q(Exists(members))


def _rows(tenants: QuerySet[Tenant]) -> list[TenantRow]:
    values: Any = tenants.values(
        "id", "name", "state", "state_reason", "cuts_calls", "currency", "created_at"
    )
    found = list(values)
    ids = [one["id"] for one in found]
    members = dict(
        Membership.objects.filter(tenant_id__in=ids)
        .values_list("tenant_id")
        .annotate(Count("id"))
        .values_list("tenant_id", "id__count")
    )
    owners: dict[UUID, str] = {}
    for tenant_id, email in (
        Membership.objects.filter(tenant_id__in=ids, role=Role.OWNER)
        .order_by("id")
        .values_list("tenant_id", "user__email")
    ):
        owners.setdefault(tenant_id, email)
    return [_row(one, members.get(one["id"], 0), owners.get(one["id"], "")) for one in found]


def _row(values: Mapping[str, Any], members: int, owner_email: str) -> TenantRow:
    return TenantRow(
        **{**values, "state": TenantState(values["state"])}, members=members, owner_email=owner_email
    )
