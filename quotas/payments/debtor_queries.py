"""Who owes us money, how much, and since when. As operator."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.db import connections

from portal.kit.ids import PREFIXES, public_id
from tenants.models import TenantState
from tenants.scope import scope_alias

MAX_ROWS: Final = 200
LOOKBACK: Final = timedelta(days=400)


@dataclass(frozen=True, slots=True)
class DebtorRow:
    """An organization that owes, in nano-units of its currency.

    since: when its receivable last left zero; None when that was longer ago than LOOKBACK. is_automatic: it
    is suspended because of what it owes, and is resumed by itself once that is paid.
    """

    tenant_id: UUID
    organization: str
    currency: str
    owed_nanos: int
    since: datetime | None
    is_suspended: bool
    is_automatic: bool
    state_reason: str

    @property
    def organization_id(self) -> str:
        return public_id(PREFIXES["organization"], self.tenant_id)


# What is owed after each transfer is what is owed now, less what the later ones changed. Debts arise of
# refunds, disputes and corrections of usage; a call itself leaves none.
_DEBTORS = """
SELECT w.tenant_id, t.name, w.currency, -w.receivable_nanos, (
  SELECT min(owing.posted_at) FROM (
    SELECT l.posted_at, bool_or(l.balance >= 0) OVER (
      ORDER BY l.posted_at, l.id ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS is_paid_later
    FROM (
      SELECT l.id, l.posted_at, w.receivable_nanos - coalesce(sum(e.amount_nanos) OVER (
        ORDER BY l.posted_at DESC, l.id DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS balance
      FROM quotas_ledgertransfer l JOIN quotas_ledgerentry e ON e.transfer_id = l.id
        AND e.account_id = quotas_account_id(w.tenant_id, 'RECEIVABLE', w.currency)
      WHERE l.tenant_id = w.tenant_id AND l.posted_at >= %(from)s AND (l.kind <> 'USAGE' OR l.revision > 1)
    ) l) owing
  WHERE NOT owing.is_paid_later), t.state, t.suspension_cause, t.state_reason
FROM quotas_wallet w JOIN tenants_tenant t ON t.id = w.tenant_id
WHERE w.receivable_nanos < 0 AND (%(ids)s::uuid[] IS NULL OR w.tenant_id = ANY (%(ids)s::uuid[]))
ORDER BY w.receivable_nanos, w.tenant_id LIMIT %(limit)s
"""


def list_debtors(
    *, now: datetime, tenant_ids: Iterable[UUID] | None = None, limit: int = MAX_ROWS
) -> list[DebtorRow]:
    """Who owes, the most first; of these organizations or of all. limit: 1 to MAX_ROWS."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            _DEBTORS,
            {
                "from": now - LOOKBACK,
                "ids": list(tenant_ids) if tenant_ids is not None else None,
                "limit": max(1, min(limit, MAX_ROWS)),
            },
        )
        found = cursor.fetchall()
    return [
        DebtorRow(
            tenant_id,
            name,
            currency,
            owed_nanos,
            since,
            is_suspended=state == TenantState.SUSPENDED,
            is_automatic=state == TenantState.SUSPENDED and cause != "",
            state_reason=reason,
        )
        for tenant_id, name, currency, owed_nanos, since, state, cause, reason in found
    ]
