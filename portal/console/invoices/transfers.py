"""Paying by bank transfer: where to, and with which reference."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from portal.kit.clock import utc_now
from portal.pages.access import Organization, organization_page
from portal.pages.answers import done, show
from quotas.payments import bank_references
from quotas.payments.bank_queries import reference_of
from tenants.operations import audit
from tenants.permissions import Permission


@organization_page(Permission.SEE_BILLING)
def bank_transfer(request: HttpRequest, organization: Organization) -> HttpResponse:
    """The operators' account of the wallet's currency, and the organization's reference."""
    context = {
        "section": "billing",
        "details": settings.BANK_DETAILS.get(organization.currency, ()),
        "reference": reference_of(tenant_id=organization.tenant_id),
    }
    return show(request, "console/invoices/bank_transfer.html", context)


@organization_page(Permission.PAY, methods=("POST",))
def bank_reference(request: HttpRequest, organization: Organization) -> HttpResponse:
    """POST makes the reference, once."""
    bank_references.make_reference(
        tenant_id=organization.tenant_id,
        actor=audit.member(organization.user_id, organization.role),
        now=utc_now(),
    )
    address = reverse("console:bank-transfer", args=[organization.public_id])
    return done(request, address, _("Your transfer reference is there."))
