"""Invoices that are due and not paid: reminders, then the organization is suspended until it has paid."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import stripe
from django.db import transaction

from portal.kit.ids import PREFIXES, public_id
from quotas.models import OWED_INVOICE_STATES, DunningState, MonthlyInvoice, MonthlyInvoiceState
from quotas.payments.client import takes_cards
from quotas.payments.postpaid import mails
from quotas.payments.postpaid.applying import apply_invoice
from quotas.payments.postpaid.policy import PostpaidPolicy, postpaid_policy
from quotas.payments.receivables import review_receivable
from tenants.operations import audit
from tenants.scope import role_scope, scope_alias

logger = logging.getLogger(__name__)

MAX_INVOICES: Final = 1_000


@dataclass(frozen=True, slots=True)
class DunningReport:
    """How many invoices were reminded of, and how many came to the end of that."""

    reminded: int = 0
    exhausted: int = 0


def remind_overdue(*, now: datetime, tenant_id: UUID | None = None) -> DunningReport:
    """Remind of invoices that are due, and suspend whose were reminded of in vain. Each is read again at
    Stripe first: who has paid is not reminded. Safe to do again. Opens scopes of its own, in no transaction.
    tenant_id: of this organization only.
    """
    if not takes_cards():
        return DunningReport()
    policy = postpaid_policy()
    with role_scope("operator"):
        due = MonthlyInvoice.objects.filter(state__in=OWED_INVOICE_STATES, due_at__lte=now)
        if tenant_id is not None:
            due = due.filter(tenant_id=tenant_id)
        found = list(due.exclude(dunning=DunningState.EXHAUSTED).order_by("due_at")[:MAX_INVOICES])
    reminded = exhausted = 0
    for invoice in found:
        if not _is_due(invoice, policy, now):
            continue
        try:
            apply_invoice(invoice_id=invoice.stripe_invoice_id or "", now=now)
        except stripe.StripeError:
            # Nobody is reminded, let alone suspended, of whom it is not known whether they have paid.
            logger.warning("quotas.payments.invoice_not_read", extra={"invoice": str(invoice)})
            continue
        with role_scope("operator"), transaction.atomic(using=scope_alias()):
            was_reminded, is_exhausted = _remind(invoice.id, policy, now)
        reminded += was_reminded
        exhausted += is_exhausted
        if is_exhausted:
            review_receivable(tenant_id=invoice.tenant_id, now=now)
    return DunningReport(reminded, exhausted)


def _steps(invoice: MonthlyInvoice, policy: PostpaidPolicy, now: datetime) -> int:
    """How many reminders should have been written by now."""
    assert invoice.due_at is not None
    return sum(invoice.due_at + timedelta(days=day) <= now for day in policy.reminder_days)


def _is_at_the_end(invoice: MonthlyInvoice, policy: PostpaidPolicy, now: datetime) -> bool:
    assert invoice.due_at is not None
    return invoice.due_at + policy.suspend_after <= now


def _is_due(invoice: MonthlyInvoice, policy: PostpaidPolicy, now: datetime) -> bool:
    return _steps(invoice, policy, now) > invoice.reminders or _is_at_the_end(invoice, policy, now)


def _remind(invoice_id: UUID, policy: PostpaidPolicy, now: datetime) -> tuple[bool, bool]:
    """In a transaction, as operator. Whoever was away for long is reminded once, not for each time."""
    invoice = MonthlyInvoice.objects.select_for_update(no_key=True).get(id=invoice_id)
    if invoice.state not in OWED_INVOICE_STATES or invoice.dunning == DunningState.EXHAUSTED:
        return False, False
    steps, is_at_the_end = _steps(invoice, policy, now), _is_at_the_end(invoice, policy, now)
    was_reminded = steps > invoice.reminders and invoice.state == MonthlyInvoiceState.OPEN
    if was_reminded:
        invoice.reminders, invoice.reminded_at, invoice.dunning = steps, now, DunningState.REMINDED
        mails.mail_reminder(invoice=invoice, suspends_at=_suspends_at(invoice, policy), now=now)
    if is_at_the_end:
        invoice.dunning, invoice.exhausted_at = DunningState.EXHAUSTED, now
    if not was_reminded and not is_at_the_end:
        return False, False
    invoice.save(update_fields=["reminders", "reminded_at", "dunning", "exhausted_at"])
    _record(invoice)
    return was_reminded, is_at_the_end


def _suspends_at(invoice: MonthlyInvoice, policy: PostpaidPolicy) -> datetime:
    assert invoice.due_at is not None
    return invoice.due_at + policy.suspend_after


def _record(invoice: MonthlyInvoice) -> None:
    audit.record(
        actor=audit.SYSTEM,
        action="monthly_invoice.remind",
        tenant_id=invoice.tenant_id,
        target=public_id(PREFIXES["monthly_invoice"], invoice.id),
        after={"reminders": invoice.reminders, "dunning": str(invoice.dunning)},
        reason="The invoice is due and not paid.",
    )
