"""What an organization owes on monthly invoices of which it was reminded in vain: a reason to suspend it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Exists, F, Max, OuterRef, Sum

from quotas.models import OWED_INVOICE_STATES, DunningState, MonthlyInvoice


@dataclass(frozen=True, slots=True)
class Overdue:
    """amount_nanos: net of tax. since: when the newest of them was given up reminding of."""

    amount_nanos: int
    since: datetime


def overdue_of(*, tenant_id: UUID) -> Overdue | None:
    """None where nothing is. In the organization's scope or as operator."""
    invoices = MonthlyInvoice.objects.filter(
        tenant_id=tenant_id, state__in=OWED_INVOICE_STATES, dunning=DunningState.EXHAUSTED
    )
    found = invoices.aggregate(amount=Sum(F("amount_nanos") - F("credited_nanos")), since=Max("exhausted_at"))
    return Overdue(int(found["amount"]), found["since"]) if found["since"] is not None else None


def has_overdue(tenant_column: str) -> Exists:
    """The same as a condition of a query whose rows name the organization in this column."""
    return Exists(
        MonthlyInvoice.objects.filter(
            tenant_id=OuterRef(tenant_column), state__in=OWED_INVOICE_STATES, dunning=DunningState.EXHAUSTED
        )
    )
