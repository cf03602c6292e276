"""The mails of monthly invoices: it is there, and it is due."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.conf import settings
from django.urls import reverse
from django.utils import translation
from django.utils.text import Truncator
from django.utils.translation import gettext as _

from portal.kit.ids import PREFIXES, public_id
from portal.kit.money import format_nanos
from quotas.limits.mails import send_to_readers
from quotas.models import MonthlyInvoice
from tenants.models import Tenant


def mail_invoice(*, invoice: MonthlyInvoice, now: datetime) -> int:
    """It can be paid. Within the caller's transaction, as operator; how many mails."""
    with translation.override(settings.LANGUAGE_CODE):
        subject = _("%(organization)s: your invoice over %(amount)s")
        return _send(subject, "payments/monthly_invoice_mail", invoice, {}, now)


def mail_reminder(*, invoice: MonthlyInvoice, suspends_at: datetime, now: datetime) -> int:
    """It is due and not paid; when the organization is suspended. As mail_invoice."""
    with translation.override(settings.LANGUAGE_CODE):
        subject = _("%(organization)s: an invoice over %(amount)s is due")
        context = {"suspends_at": suspends_at}
        return _send(subject, "payments/monthly_invoice_due_mail", invoice, context, now)


def _send(subject: str, template: str, invoice: MonthlyInvoice, more: dict[str, Any], now: datetime) -> int:
    name = Tenant.objects.values_list("name", flat=True).get(id=invoice.tenant_id)
    amount = format_nanos(invoice.payable_nanos, invoice.currency)
    page = reverse(
        "console:monthly-invoice",
        args=[
            public_id(PREFIXES["organization"], invoice.tenant_id),
            public_id(PREFIXES["monthly_invoice"], invoice.id),
        ],
    )
    return send_to_readers(
        tenant_id=invoice.tenant_id,
        subject=subject % {"organization": Truncator(" ".join(name.split())).chars(70), "amount": amount},
        template=template,
        context={
            "organization_name": name,
            "amount": amount,
            "number": invoice.number,
            "month": invoice.month,
            "due_at": invoice.due_at,
            **more,
        },
        now=now,
        link=str(settings.PORTAL_URL).rstrip("/") + page,
    )
