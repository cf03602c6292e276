"""Reads of auto-recharge: what its page shows, and what a recharge is measured by."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from django.db import connections
from django.db.models import Q, Sum

from portal.kit.ids import PREFIXES, public_id
from quotas.models import (
    OPEN_TOP_UP_STATES,
    AutoRecharge,
    RechargeState,
    TopUp,
    TopUpSource,
    TopUpState,
    Wallet,
)
from quotas.payments.policy import payment_policy
from quotas.payments.recharge.rows import proposed
from tenants.scope import scope_alias

MAX_ATTEMPTS_SHOWN = 50
# What counts against the cap: what was paid, and what may still be.
_COUNTED = Q(source=TopUpSource.RECHARGE, state__in=[*OPEN_TOP_UP_STATES, TopUpState.PAID])

# Balance is what the organization has itself, less what calls under way may cost: the credit line is no
# reason to wait. One statement for all organizations; whoever starts a recharge asks again under its lock.
_DUE = """
SELECT r.tenant_id
FROM quotas_autorecharge r
JOIN quotas_wallet w ON w.tenant_id = r.tenant_id
JOIN tenants_tenant t ON t.id = r.tenant_id
WHERE r.state = 'ON' AND t.state = 'ACTIVE' AND (%(tenant)s::uuid IS NULL OR r.tenant_id = %(tenant)s::uuid)
  AND (r.retry_at IS NULL OR r.retry_at <= %(now)s)
  AND w.paid_nanos + w.granted_nanos - w.pending_nanos < r.threshold_nanos
  AND NOT EXISTS (
    SELECT 1 FROM quotas_topup o WHERE o.tenant_id = r.tenant_id AND o.source = 'RECHARGE'
      AND o.state IN ('OPEN', 'PROCESSING', 'ACTION_NEEDED'))
  AND r.amount_nanos + (
    SELECT coalesce(sum(p.amount_nanos), 0) FROM quotas_topup p
    WHERE p.tenant_id = r.tenant_id AND p.source = 'RECHARGE'
      AND p.state IN ('OPEN', 'PROCESSING', 'ACTION_NEEDED', 'PAID')
      AND p.created_at >= %(month)s AND p.created_at < %(next_month)s) <= r.monthly_cap_nanos
ORDER BY w.paid_nanos + w.granted_nanos - w.pending_nanos - r.threshold_nanos
LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class RechargeAttempt:
    """One recharge. amount_nanos: the credit. failure_code: Stripe's word for why not."""

    id: UUID
    state: TopUpState
    amount_nanos: int
    method: str
    failure_code: str
    receipt_url: str
    created_at: datetime
    ended_at: datetime | None

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["top_up"], self.id)

    @property
    def counts(self) -> bool:
        """Whether it uses up the month's cap."""
        return self.state in OPEN_TOP_UP_STATES or self.state == TopUpState.PAID


@dataclass(frozen=True, slots=True)
class RechargeView:
    """An organization's auto-recharge as its page shows it. Amounts in nano-units of `currency`.

    is_set: whether anybody has set it up; else the amounts are what is proposed. reason: why it is off or
    paused. used_nanos: of this month's cap. balance_nanos: what the threshold is compared with. attempts: of
    this month, newest first.
    """

    is_set: bool
    state: RechargeState
    reason: str
    currency: str
    threshold_nanos: int
    amount_nanos: int
    monthly_cap_nanos: int
    used_nanos: int
    balance_nanos: int
    method: str
    declines: int
    retry_at: datetime | None
    month: datetime
    next_month: datetime
    attempts: tuple[RechargeAttempt, ...]

    @property
    def is_capped(self) -> bool:
        """Whether the rest of the month's cap is too small for another one."""
        return self.used_nanos + self.amount_nanos > self.monthly_cap_nanos

    @property
    def is_under_way(self) -> bool:
        return any(attempt.state in OPEN_TOP_UP_STATES for attempt in self.attempts)


def month_of(now: datetime) -> tuple[datetime, datetime]:
    """Begin of the calendar month (UTC), and of the next one."""
    first = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    last_year, month = divmod(first.month, 12)
    return first, first.replace(year=first.year + last_year, month=month + 1)


def due_tenants(*, now: datetime, limit: int, tenant_id: UUID | None = None) -> list[UUID]:
    """Organizations (or that one, if it is) for which a recharge is to be started, the lowest first."""
    month, next_month = month_of(now)
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            _DUE,
            {"now": now, "tenant": tenant_id, "month": month, "next_month": next_month, "limit": limit},
        )
        return [row[0] for row in cursor.fetchall()]


def recharge_view(*, tenant_id: UUID, now: datetime) -> RechargeView:
    """What the page shows, in the tenant's scope."""
    wallet = Wallet.objects.get(tenant_id=tenant_id)
    row = AutoRecharge.objects.filter(tenant_id=tenant_id).first()
    row = row or proposed(tenant_id, wallet.currency, payment_policy())
    month, next_month = month_of(now)
    recharges = TopUp.objects.filter(tenant_id=tenant_id, source=TopUpSource.RECHARGE)
    of_month = recharges.filter(created_at__gte=month, created_at__lt=next_month)
    # One that began last month and goes on is shown too: it is why no other one starts.
    shown = of_month | recharges.filter(state__in=OPEN_TOP_UP_STATES)
    used_nanos = of_month.filter(_COUNTED).aggregate(sum=Sum("amount_nanos"))["sum"] or 0
    return RechargeView(
        is_set=not row._state.adding,
        state=RechargeState(row.state),
        reason=row.state_reason,
        currency=wallet.currency,
        threshold_nanos=row.threshold_nanos,
        amount_nanos=row.amount_nanos,
        monthly_cap_nanos=row.monthly_cap_nanos,
        used_nanos=used_nanos,
        balance_nanos=wallet.paid_nanos + wallet.granted_nanos - wallet.pending_nanos,
        method=row.method,
        declines=row.declines,
        retry_at=row.retry_at,
        month=month,
        next_month=next_month,
        attempts=tuple(_attempt(one) for one in shown.order_by("-id")[:MAX_ATTEMPTS_SHOWN]),
    )


def _attempt(row: TopUp) -> RechargeAttempt:
    return RechargeAttempt(
        row.id,
        TopUpState(row.state),
        row.amount_nanos,
        row.method,
        row.failure_code,
        row.receipt_url,
        row.created_at,
        row.ended_at,
    )
