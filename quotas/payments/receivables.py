"""What an organization owes after money was taken back that it had spent, or of invoices of which it was
reminded in vain: it is suspended, and resumed when it has paid all of it. Only what was suspended for that is
resumed; what an operator suspended stays suspended.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import connections, transaction
from django.db.models import Q
from django.utils import translation
from django.utils.translation import gettext as _

from portal.kit.money import format_nanos
from quotas.models import Wallet
from quotas.payments.overdue_invoices import Overdue, has_overdue, overdue_of
from quotas.payments.policy import payment_policy
from tenants.models import ActorKind, AuditEvent, SuspensionCause, Tenant, TenantState
from tenants.operations import audit, suspension
from tenants.operations.organizations import lock_tenant
from tenants.scope import role_scope, scope_alias

MAX_REVIEWED: Final = 10_000


@dataclass(frozen=True, slots=True)
class ReviewReport:
    """How many organizations were suspended and resumed."""

    suspended: int = 0
    resumed: int = 0


def review_receivable(*, tenant_id: UUID, now: datetime) -> TenantState | None:
    """Suspend the organization if it owes more than the policy allows or has not paid an invoice in spite of
    all reminders, resume it if it was suspended for that and owes nothing any more. Its state afterwards
    where that changed, else None.

    Safe to do again. Whom an operator resumed all the same is suspended again only for a new debt. Opens
    scope and transaction of its own. Errors: tenants.operations.OrganizationNotFound.
    """
    limit_nanos = payment_policy().receivable_limit_nanos
    with role_scope("operator"), transaction.atomic(using=scope_alias()):
        tenant = lock_tenant(tenant_id)
        # Read when nobody else reviews it any more: a payment that came meanwhile counts.
        wallet = Wallet.objects.get(tenant_id=tenant_id)
        owed_nanos, overdue = -wallet.receivable_nanos, overdue_of(tenant_id=tenant_id)
        if tenant.state == TenantState.ACTIVE and owed_nanos > limit_nanos and _is_new(wallet):
            _suspend(tenant, _receivable_words(tenant, owed_nanos), now)
            return TenantState.SUSPENDED
        if tenant.state == TenantState.ACTIVE and overdue is not None and _is_new_overdue(tenant, overdue):
            _suspend(tenant, _overdue_words(tenant, overdue), now)
            return TenantState.SUSPENDED
        if tenant.suspension_cause == SuspensionCause.RECEIVABLE and not owed_nanos and overdue is None:
            _resume(tenant, now)
            return TenantState.ACTIVE
    return None


def review_receivables(*, now: datetime) -> ReviewReport:
    """The same for all that owe or are suspended for it: for what a killed worker left behind."""
    limit_nanos = payment_policy().receivable_limit_nanos
    with role_scope("operator"):
        concerned = Tenant.objects.alias(has_overdue=has_overdue("id")).filter(
            Q(state=TenantState.ACTIVE, wallet__receivable_nanos__lt=-limit_nanos)
            | Q(state=TenantState.ACTIVE, has_overdue=True)
            | Q(suspension_cause=SuspensionCause.RECEIVABLE, wallet__receivable_nanos=0, has_overdue=False)
        )
        ids = list(concerned.order_by("id").values_list("id", flat=True)[:MAX_REVIEWED])
    changed = [review_receivable(tenant_id=tenant_id, now=now) for tenant_id in ids]
    return ReviewReport(changed.count(TenantState.SUSPENDED), changed.count(TenantState.ACTIVE))


def _is_new(wallet: Wallet) -> bool:
    """Whether something has been added to the debt since an operator last let the organization go on."""
    resumed_at = _resumed_by_operator(wallet.tenant_id)
    if resumed_at is None:
        return True
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM quotas_ledgertransfer t"
            " JOIN quotas_ledgerentry e ON e.transfer_id = t.id"
            " WHERE t.tenant_id = %s AND t.posted_at > %s AND e.amount_nanos < 0"
            " AND e.account_id = quotas_account_id(%s, 'RECEIVABLE', %s))",
            [wallet.tenant_id, resumed_at, wallet.tenant_id, wallet.currency],
        )
        return bool(cursor.fetchone()[0])


def _is_new_overdue(tenant: Tenant, overdue: Overdue) -> bool:
    """Whether an invoice was given up reminding of since an operator last let the organization go on."""
    resumed_at = _resumed_by_operator(tenant.id)
    return resumed_at is None or overdue.since > resumed_at


def _resumed_by_operator(tenant_id: UUID) -> datetime | None:
    resumed = AuditEvent.objects.filter(
        tenant_id=tenant_id, action="tenant.resume", actor_kind=ActorKind.OPERATOR
    )
    found: datetime | None = resumed.order_by("-id").values_list("at", flat=True).first()
    return found


def _receivable_words(tenant: Tenant, owed_nanos: int) -> str:
    with translation.override(settings.LANGUAGE_CODE):
        return _(
            "Payments that were spent already have been taken back; %(amount)s is owed. "
            "Credit that you add pays it first, and when it is paid the organization is active again."
        ) % {"amount": format_nanos(owed_nanos, tenant.currency)}


def _overdue_words(tenant: Tenant, overdue: Overdue) -> str:
    with translation.override(settings.LANGUAGE_CODE):
        return _(
            "Invoices over %(amount)s (net of tax) are due and not paid. "
            "When they are paid the organization is active again."
        ) % {"amount": format_nanos(overdue.amount_nanos, tenant.currency)}


def _suspend(tenant: Tenant, reason: str, now: datetime) -> None:
    suspension.suspend_tenant(
        tenant_id=tenant.id,
        reason=reason,
        cuts_calls=False,
        actor=audit.SYSTEM,
        now=now,
        cause=SuspensionCause.RECEIVABLE,
    )


def _resume(tenant: Tenant, now: datetime) -> None:
    suspension.resume_tenant(
        tenant_id=tenant.id,
        reason="What was owed is paid.",
        actor=audit.SYSTEM,
        now=now,
        cause=SuspensionCause.RECEIVABLE,
    )
