"""Where an organization stands among the tiers: which one it has, since when, and what leads to the next."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import connections

from portal.kit.ids import PREFIXES, public_id
from quotas.limits.values import in_force, tier_at
from quotas.models import Tier, TierAssignment, TierRule
from tenants.scope import scope_alias

# Paid credit that came in, also what of it paid a debt, less what went back to its payers: nobody rises by
# money that is refunded. The partial index transfer_tenant_otherwise leads to it.
LIFETIME_PAID = """
SELECT t.tenant_id, sum(e.amount_nanos)::bigint AS paid_nanos
FROM quotas_ledgertransfer t
JOIN quotas_ledgerentry e ON e.transfer_id = t.id AND e.tenant_id = t.tenant_id
JOIN quotas_ledgeraccount a ON a.id = e.account_id AND a.kind IN ('TOPPED_UP', 'RECEIVABLE')
WHERE t.kind IN ('TOP_UP', 'REFUND', 'REFUND_REVERSED', 'CHARGEBACK', 'REINSTATED')
  AND (%(tenant)s::uuid IS NULL OR t.tenant_id = %(tenant)s::uuid)
GROUP BY t.tenant_id
"""


@dataclass(frozen=True, slots=True)
class TierStanding:
    """The tier of an organization. since: None for the tier that is everybody's from the beginning.

    is_override: an operator assigned it, perhaps until ends_at, for a reason that only operators see.
    """

    tier_id: UUID
    code: str
    name: str
    rank: int
    since: datetime | None
    ends_at: datetime | None
    is_override: bool
    reason: str

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["tier"], self.tier_id)


@dataclass(frozen=True, slots=True)
class NextTier:
    """The next higher tier that paying leads to, and how much is missing, in nano-units."""

    tier_id: UUID
    code: str
    name: str
    lifetime_paid_nanos: int
    missing_nanos: int


@dataclass(frozen=True, slots=True)
class OverrideRow:
    """A tier that an operator assigned: in force, or yet to begin."""

    id: UUID
    tier_name: str
    starts_at: datetime
    ends_at: datetime | None
    reason: str
    is_in_force: bool


def standing(*, tenant_id: UUID, now: datetime) -> TierStanding | None:
    """The tier that an organization has now, as quotas_tier_at says; None where there is none for it."""
    tier_id = tier_at(tenant_id=tenant_id, at=now)
    if tier_id is None:
        return None
    tier = Tier.objects.get(id=tier_id)
    assignments = TierAssignment.objects.filter(in_force(now), tenant_id=tenant_id)
    assigned = assignments.order_by("is_automatic").first()
    return TierStanding(
        tier_id=tier.id,
        code=tier.code,
        name=tier.name,
        rank=tier.rank,
        since=assigned.starts_at if assigned else None,
        ends_at=assigned.ends_at if assigned else None,
        is_override=assigned is not None and not assigned.is_automatic,
        reason=assigned.reason if assigned else "",
    )


def lifetime_paid_nanos(*, tenant_id: UUID) -> int:
    """What an organization has paid in all, in nano-units of its wallet's currency."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(LIFETIME_PAID, {"tenant": tenant_id})
        row = cursor.fetchone()
    return int(row[1]) if row else 0


def next_tier(*, tenant_id: UUID, currency: str, tier: TierStanding | None) -> tuple[NextTier | None, int]:
    """The lowest tier above this one that has a rule in the currency, and what was paid so far."""
    paid_nanos = lifetime_paid_nanos(tenant_id=tenant_id)
    rules = TierRule.objects.select_related("tier").filter(
        currency=currency, tier__rank__gt=tier.rank if tier else -1
    )
    rule = rules.order_by("tier__rank").first()
    if rule is None:
        return None, paid_nanos
    missing = max(0, rule.lifetime_paid_nanos - paid_nanos)
    found = NextTier(rule.tier_id, rule.tier.code, rule.tier.name, rule.lifetime_paid_nanos, missing)
    return found, paid_nanos


def tier_overrides(*, tenant_id: UUID, now: datetime) -> list[OverrideRow]:
    """What operators assigned and has not ended, the earliest first. As operator."""
    rows = TierAssignment.objects.select_related("tier").filter(tenant_id=tenant_id, is_automatic=False)
    open_rows = [row for row in rows.order_by("starts_at") if row.ends_at is None or row.ends_at > now]
    return [
        OverrideRow(row.id, row.tier.name, row.starts_at, row.ends_at, row.reason, row.starts_at <= now)
        for row in open_rows
        if row.ends_at is None or row.ends_at > row.starts_at
    ]
