"""Monthly invoices for tests, as rows that the ledger agrees with. The ids of Stripe are made up."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction

from portal.kit.clock import utc_now
from portal.kit.money import parse_amount
from quotas.models import (
    CreditNote,
    MonthlyInvoice,
    MonthlyInvoiceLine,
    MonthlyInvoiceState,
    MonthlyLineKind,
    PostpaidAgreement,
)
from tenants.scope import role_scope
from tenants.tests.people import make_user
from tests.factories import TenantFixture
from tests.factories_payments import stripe_id


def make_agreement(tenant: TenantFixture, *, is_on: bool = True) -> None:
    """The organization is invoiced monthly, from now on, unless it was before."""
    now = utc_now()
    with role_scope("operator"):
        if PostpaidAgreement.objects.filter(tenant_id=tenant.id).exists():
            return
        PostpaidAgreement.objects.create(
            tenant_id=tenant.id,
            currency=tenant.currency,
            is_on=is_on,
            since=now,
            days_until_due=30,
            changed_by_id=make_user().id,
            changed_at=now,
        )


def make_monthly_invoice(
    tenant: TenantFixture, *, amount: str = "5.00", is_open: bool = True, **fields: Any
) -> UUID:
    """The organization's next invoice, over what it owed before: a draft, or one that can be paid. amount:
    decimal text; "0" is one on which nothing is due. Other fields are those of MonthlyInvoice."""
    make_agreement(tenant, is_on=False)
    amount_nanos = parse_amount(amount)
    with role_scope("operator"), transaction.atomic(using="operator"):
        agreement = PostpaidAgreement.objects.get(tenant_id=tenant.id)
        before = MonthlyInvoice.objects.filter(tenant_id=tenant.id).order_by("-to_at").first()
        month = _following(before.month) if before else agreement.since.date().replace(day=1)
        cut_at = before.cut_at if before else agreement.since
        invoice = MonthlyInvoice.objects.create(
            tenant_id=tenant.id,
            currency=tenant.currency,
            month=month,
            from_at=before.to_at if before else agreement.since,
            from_cut_at=cut_at,
            to_at=datetime.combine(_following(month), time(), tzinfo=UTC),
            cut_at=cut_at,
            usage_nanos=0,
            brought_nanos=amount_nanos,
            payments_nanos=0,
            amount_nanos=amount_nanos,
            days_until_due=agreement.days_until_due,
            state=MonthlyInvoiceState.DRAFT if amount_nanos else MonthlyInvoiceState.COVERED,
            created_at=utc_now(),
        )
        if amount_nanos:
            MonthlyInvoiceLine.objects.create(
                tenant_id=tenant.id,
                invoice=invoice,
                currency=tenant.currency,
                position=0,
                kind=MonthlyLineKind.BROUGHT,
                amount_nanos=amount_nanos,
                asked_nanos=amount_nanos,
            )
        if amount_nanos and is_open:
            _open(invoice)
        if fields:
            MonthlyInvoice.objects.filter(id=invoice.id).update(**fields)
    return invoice.id


def _open(invoice: MonthlyInvoice) -> None:
    now = utc_now()
    MonthlyInvoice.objects.filter(id=invoice.id).update(
        state=MonthlyInvoiceState.OPEN,
        stripe_invoice_id=stripe_id("in"),
        number=stripe_id("NO"),
        pay_url="https://pay.example/i",
        pdf_url="https://pay.example/i.pdf",
        finalized_at=now,
        due_at=now + timedelta(days=30),
    )


def make_credit_note(invoice_id: UUID, *, amount: str = "1.00") -> UUID:
    """One that was ordered; Stripe has not answered yet."""
    with role_scope("operator"):
        invoice = MonthlyInvoice.objects.get(id=invoice_id)
        return CreditNote.objects.create(
            tenant_id=invoice.tenant_id,
            currency=invoice.currency,
            invoice=invoice,
            amount_nanos=parse_amount(amount),
            is_after_payment=False,
            reason="for the test",
            ordered_by_id=make_user().id,
            ordered_at=utc_now(),
        ).id


def make_every_postpaid(tenant: TenantFixture) -> dict[str, UUID]:
    """A row in each table of monthly invoices; by the kinds of portal.kit.ids."""
    invoice_id = make_monthly_invoice(tenant)
    return {"monthly_invoice": invoice_id, "credit_note": make_credit_note(invoice_id)}


def _following(month: date) -> date:
    return (month + timedelta(days=32)).replace(day=1)
