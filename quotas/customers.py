"""Organizations as operators look at them: who they are, what they have, what they use. As operator."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connections
from django.db.models import F, Func, Q, UUIDField, Value
from django.db.models.expressions import Combinable
from django.db.models.lookups import Exact

from portal.kit.ids import PREFIXES, InvalidPublicId, parse_public_id, public_id
from quotas.models import InferenceRequest, Tier
from tenants.models import TenantState
from tenants.scope import scope_alias
from tenants.search import TenantRow, search_tenants

SPENT_DAYS = 30


@dataclass(frozen=True, slots=True)
class TierName:
    id: UUID
    code: str
    name: str

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["tier"], self.id)


@dataclass(frozen=True, slots=True)
class CustomerRow:
    """An organization with its money, in nano-units of its currency. spent_nanos: within SPENT_DAYS.

    tier: None where no tier is the default.
    """

    tenant: TenantRow
    tier: TierName | None
    paid_nanos: int
    granted_nanos: int
    owed_nanos: int
    overdraft_nanos: int
    spent_nanos: int

    @property
    def balance_nanos(self) -> int:
        return self.paid_nanos + self.granted_nanos - self.owed_nanos


@dataclass(frozen=True, slots=True)
class CustomerPage:
    """Organizations, newest first; `next` is what `before` takes for the page behind this one."""

    rows: tuple[CustomerRow, ...]
    next: UUID | None


def search_customers(
    *,
    now: datetime,
    text: str = "",
    state: TenantState | None = None,
    tier_id: UUID | None = None,
    before: UUID | None = None,
    limit: int = 50,
) -> CustomerPage:
    """A page of organizations. text: as search_tenants, or the public id of one of its requests."""
    conditions: list[Q | Combinable] = []
    with contextlib.suppress(InvalidPublicId):
        request_id = parse_public_id(PREFIXES["request"], text.strip())
        conditions.append(
            Q(id__in=InferenceRequest.objects.filter(id=request_id).values("tenant_id")),
        )
        text = ""
    if tier_id is not None:
        tier = Func(F("id"), Value(now), function="quotas_tier_at", output_field=UUIDField())
        conditions.append(Exact(tier, tier_id))
    page = search_tenants(text=text, state=state, conditions=conditions, before=before, limit=limit)
    return CustomerPage(tuple(_with_money(page.rows, now)), page.next)


def tier_names() -> list[TierName]:
    """Every tier, the least first."""
    return [TierName(*row) for row in Tier.objects.order_by("rank").values_list("id", "code", "name")]


def tier_of(*, tenant_id: UUID, now: datetime) -> TierName | None:
    """The tier of an organization at this moment."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            "SELECT id, code, name FROM quotas_tier WHERE id = quotas_tier_at(%s, %s)", [tenant_id, now]
        )
        row = cursor.fetchone()
    return TierName(*row) if row else None


def _with_money(tenants: Sequence[TenantRow], now: datetime) -> list[CustomerRow]:
    if not tenants:
        return []
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            """
            SELECT w.tenant_id, t.id, t.code, t.name,
              w.paid_nanos, w.granted_nanos, -w.receivable_nanos, w.overdraft_nanos, (
                SELECT coalesce(sum(r.charged_nanos), 0)::bigint FROM quotas_usagerollup r
                WHERE r.tenant_id = w.tenant_id AND r.hour >= %s)
            FROM quotas_wallet w LEFT JOIN quotas_tier t ON t.id = quotas_tier_at(w.tenant_id, %s)
            WHERE w.tenant_id = ANY (%s)
            """,
            [now - timedelta(days=SPENT_DAYS), now, [tenant.id for tenant in tenants]],
        )
        found = {row[0]: row[1:] for row in cursor.fetchall()}
    rows = []
    for tenant in tenants:
        tier_id, code, name, *money = found.get(tenant.id, (None, "", "", 0, 0, 0, 0, 0))
        rows.append(CustomerRow(tenant, TierName(tier_id, code, name) if tier_id else None, *money))
    return rows
