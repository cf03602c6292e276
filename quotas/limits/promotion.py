"""Promotion: whoever has paid enough gets the tier that their payments lead to. Nobody is put down."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connections, transaction
from django.db.models import Q

from portal.kit.ids import PREFIXES, public_id
from portal.kit.money import format_nanos
from quotas.limits.mails import send_to_readers, tier_mail
from quotas.limits.standing import LIFETIME_PAID, standing
from quotas.limits.tiers import TierCeiling, find_tier
from quotas.models import LimitKind, Tier, TierAssignment
from quotas.models.limits import BUDGET_KINDS
from tenants.models import Tenant
from tenants.operations import audit
from tenants.operations.organizations import lock_tenant
from tenants.scope import scope_alias

logger = logging.getLogger(__name__)

# The highest tier that payments lead to, where it is above the automatic one (or everybody's). What another
# process gave counts as well, when its clock is a little ahead of ours and it begins in a moment.
_DUE = f"""
WITH paid AS MATERIALIZED ({LIFETIME_PAID})
SELECT w.tenant_id, best.tier_id, p.paid_nanos
FROM paid p JOIN quotas_wallet w USING (tenant_id)
CROSS JOIN LATERAL (
  SELECT t.id AS tier_id, t.rank FROM quotas_tier t JOIN quotas_tierrule r ON r.tier_id = t.id
  WHERE r.currency = w.currency AND r.lifetime_paid_nanos <= p.paid_nanos
  ORDER BY t.rank DESC LIMIT 1
) best
WHERE best.rank > coalesce(
  (SELECT max(t.rank) FROM quotas_tierassignment a JOIN quotas_tier t ON t.id = a.tier_id
   WHERE a.tenant_id = w.tenant_id AND a.is_automatic AND (a.ends_at IS NULL OR %(now)s < a.ends_at)
     AND a.ends_at IS DISTINCT FROM a.starts_at),
  (SELECT t.rank FROM quotas_tier t WHERE t.is_default), -1)
ORDER BY w.tenant_id
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class _Promotion:
    tenant_id: UUID
    tier_id: UUID
    paid_nanos: int


def promote_tiers(*, now: datetime, tenant_id: UUID | None = None) -> int:
    """Give every organization, or the one that has just paid, the tier that its payments lead to; how many
    rose. As operator. Safe to run twice and beside itself; a mail says what the tier allows.

    An operator's override goes on to count while it lasts; then the tier that was reached does.
    """
    promoted = 0
    for due in _due(now, tenant_id):
        with transaction.atomic(using=scope_alias()):
            lock_tenant(due.tenant_id)
            # Somebody else may have been quicker.
            for still in _due(now, due.tenant_id):
                _promote(still, now)
                promoted += 1
    return promoted


def _due(now: datetime, tenant_id: UUID | None) -> list[_Promotion]:
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(_DUE, {"now": now, "tenant": tenant_id})
        return [_Promotion(*row) for row in cursor.fetchall()]


def _promote(due: _Promotion, now: datetime) -> None:
    before = standing(tenant_id=due.tenant_id, now=now)
    begins = now
    automatic = TierAssignment.objects.filter(Q(ends_at=None) | Q(ends_at__gt=now), is_automatic=True)
    for row in automatic.filter(tenant_id=due.tenant_id):
        begins = max(begins, row.starts_at)
        row.ends_at = begins
        row.save(update_fields=["ends_at"])
    tier = Tier.objects.get(id=due.tier_id)
    TierAssignment.objects.create(
        tenant_id=due.tenant_id, tier=tier, is_automatic=True, starts_at=begins, reason="lifetime paid"
    )
    audit.record(
        actor=audit.SYSTEM,
        action="tier.promote",
        tenant_id=due.tenant_id,
        target=public_id(PREFIXES["tier"], tier.id),
        before={"tier": before.code if before else None},
        after={"tier": tier.code, "lifetime_paid_nanos": due.paid_nanos},
    )
    if before is None or not before.is_override:
        _mail(due, tier, now)


def _mail(due: _Promotion, tier: Tier, now: datetime) -> None:
    tenant = Tenant.objects.get(id=due.tenant_id)
    limits = [
        _described(limit, tenant.currency)
        for limit in find_tier(tier_id=tier.id).limits
        if limit.currency in ("", tenant.currency)
    ]
    context = {"organization_name": tenant.name, "tier_name": tier.name, "limits": limits}
    subject, template = tier_mail(context)
    send_to_readers(tenant_id=tenant.id, subject=subject, template=template, context=context, now=now)


def _described(limit: TierCeiling, currency: str) -> dict[str, Any]:
    """A limit as the mail's template says it."""
    is_money = limit.kind in BUDGET_KINDS
    return {
        "kind": LimitKind(limit.kind).value,
        "model": limit.model_slug,
        "value": format_nanos(limit.value, currency) if is_money else f"{limit.value:,}",
    }
