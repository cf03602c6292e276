"""The mails of bank transfers and invoices, to everybody in an organization whom money concerns."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.urls import reverse
from django.utils import translation
from django.utils.text import Truncator
from django.utils.translation import gettext as _

from portal.kit.ids import PREFIXES, public_id
from portal.kit.money import format_nanos
from quotas.models import BankReceipt, BillingProfile, InvoiceRequest
from tenants.models import Membership, Role, Tenant
from tenants.operations import InvalidMail, OutgoingMail, TooManyMails, enqueue_mail
from tenants.scope import scope_alias

logger = logging.getLogger(__name__)

READERS: Final = (Role.OWNER, Role.ADMIN, Role.BILLING)
MAX_READERS: Final = 50
Compose = Callable[[str], tuple[str, str]]


def mail_transfer_credited(*, receipt: BankReceipt, now: datetime) -> None:
    """The money is there. Within the caller's transaction, as operator; as all of these."""
    amount = format_nanos(receipt.amount_nanos - receipt.tax_nanos, receipt.currency)
    came_in = format_nanos(receipt.amount_nanos, receipt.currency)

    def compose(name: str) -> tuple[str, str]:
        return (
            _("%(organization)s: your bank transfer has arrived") % {"organization": name},
            _("The bank transfer of %(came_in)s from %(payer)s has arrived: %(amount)s of credit was added.")
            % {"came_in": came_in, "payer": receipt.payer_name, "amount": amount},
        )

    _send(receipt.tenant_id, "console:statement", compose, now)


def mail_invoice_issued(*, invoice: InvoiceRequest, now: datetime) -> None:
    """It has a number, and its document can be downloaded."""

    def compose(name: str) -> tuple[str, str]:
        return (
            _("%(organization)s: your invoice is there") % {"organization": name},
            _("The invoice %(number)s over %(amount)s (net of tax) can be downloaded.")
            % {"number": invoice.number, "amount": _amount(invoice)},
        )

    _send(invoice.tenant_id, "console:requested-invoices", compose, now)


def mail_invoice_refused(*, invoice: InvoiceRequest, now: datetime) -> None:
    """Its amount can be requested again."""

    def compose(name: str) -> tuple[str, str]:
        return (
            _("%(organization)s: an invoice was refused") % {"organization": name},
            _("The request for an invoice over %(amount)s was refused. Reason: %(reason)s")
            % {"amount": _amount(invoice), "reason": invoice.decision_reason},
        )

    _send(invoice.tenant_id, "console:requested-invoices", compose, now)


def mail_invoice_credited(*, invoice: InvoiceRequest, now: datetime) -> None:
    """A credit note took it back; its amount can be requested again."""

    def compose(name: str) -> tuple[str, str]:
        return (
            _("%(organization)s: an invoice was taken back") % {"organization": name},
            _("The credit note %(credit)s takes the invoice %(number)s back. Reason: %(reason)s")
            % {"credit": invoice.credit_number, "number": invoice.number, "reason": invoice.credit_reason},
        )

    _send(invoice.tenant_id, "console:requested-invoices", compose, now)


def mail_profile_decided(*, profile: BillingProfile, is_verified: bool, now: datetime) -> None:
    """The legal name and the tax id were checked."""

    def compose(name: str) -> tuple[str, str]:
        if is_verified:
            return (
                _("%(organization)s: your legal name is verified") % {"organization": name},
                _("%(legal_name)s (%(tax_id)s) is verified: you can request invoices now.")
                % {"legal_name": profile.legal_name, "tax_id": profile.tax_id},
            )
        return (
            _("%(organization)s: your legal name could not be verified") % {"organization": name},
            _("%(legal_name)s (%(tax_id)s) could not be verified. Reason: %(reason)s")
            % {
                "legal_name": profile.legal_name,
                "tax_id": profile.tax_id,
                "reason": profile.decision_reason,
            },
        )

    _send(profile.tenant_id, "console:requested-invoices", compose, now)


def _amount(invoice: InvoiceRequest) -> str:
    return format_nanos(invoice.amount_nanos, invoice.currency)


def _send(tenant_id: UUID, page: str, compose: Compose, now: datetime) -> None:
    """An organization that has sent as many mails as it may today gets no more; what is told stays told."""
    name = Tenant.objects.values_list("name", flat=True).get(id=tenant_id)
    members = Membership.objects.filter(tenant_id=tenant_id, role__in=READERS, user__is_active=True)
    addresses = list(members.order_by("id").values_list("user__email", flat=True)[:MAX_READERS])
    # Whoever decides may speak another language than the members; the installation's is their common one.
    with translation.override(settings.LANGUAGE_CODE):
        subject, text = compose(Truncator(" ".join(name.split())).chars(70))
    text = f"{text}\n\n{_address(page, tenant_id)}"
    for address in addresses:
        try:
            with transaction.atomic(using=scope_alias()):
                enqueue_mail(mail=OutgoingMail(address, subject, text), now=now, tenant_id=tenant_id)
        except TooManyMails:
            logger.warning("quotas.payments.mail_not_written", extra={"tenant_id": str(tenant_id)})
            return
        except InvalidMail:
            continue


def _address(page: str, tenant_id: UUID) -> str:
    path = reverse(page, args=[public_id(PREFIXES["organization"], tenant_id)])
    return str(settings.PORTAL_URL).rstrip("/") + path
