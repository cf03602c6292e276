"""The mails of auto-recharge: the bank asks for the customer, a payment was declined, it is switched off."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.urls import reverse
from django.utils import translation
from django.utils.text import Truncator
from django.utils.translation import gettext as _

from portal.kit.ids import PREFIXES, public_id
from portal.kit.money import format_nanos
from quotas.limits.mails import send_to_readers
from quotas.models import AutoRecharge, TopUp
from tenants.models import Tenant


def mail_paused(*, recharge: AutoRecharge, top_up: TopUp, now: datetime) -> int:
    """The bank wants to see the customer; the link leads to where that happens. How many mails."""
    with translation.override(settings.LANGUAGE_CODE):
        subject = _("%(organization)s: confirm a payment of %(amount)s")
        return _send(subject, "payments/recharge_paused_mail", _context(recharge, top_up), now)


def mail_declined(*, recharge: AutoRecharge, top_up: TopUp, now: datetime) -> int:
    """A payment was declined and is tried again. How many mails."""
    with translation.override(settings.LANGUAGE_CODE):
        subject = _("%(organization)s: a payment of %(amount)s was declined")
        return _send(subject, "payments/recharge_declined_mail", _context(recharge, top_up), now)


def mail_switched_off(*, recharge: AutoRecharge, now: datetime) -> int:
    """It is off, for the reason that stands in its row. How many mails."""
    with translation.override(settings.LANGUAGE_CODE):
        subject = _("%(organization)s: auto-recharge is switched off")
        return _send(subject, "payments/recharge_off_mail", _context(recharge, None), now)


def recharge_address(tenant_id: UUID) -> str:
    """Where an organization's auto-recharge is shown, and a payment of it is confirmed."""
    page = reverse("console:recharge", args=[public_id(PREFIXES["organization"], tenant_id)])
    return str(settings.PORTAL_URL).rstrip("/") + page


def _context(recharge: AutoRecharge, top_up: TopUp | None) -> dict[str, Any]:
    tenant = Tenant.objects.get(id=recharge.tenant_id)
    amount_nanos = top_up.amount_nanos if top_up is not None else recharge.amount_nanos
    return {
        "tenant_id": tenant.id,
        "organization_name": tenant.name,
        "amount": format_nanos(amount_nanos, tenant.currency),
        "method": recharge.method,
        "declines": recharge.declines,
        "reason": str(recharge.state_reason),
        "retry_at": recharge.retry_at,
    }


def _send(subject: str, template: str, context: dict[str, Any], now: datetime) -> int:
    name = Truncator(" ".join(context["organization_name"].split())).chars(70)
    return send_to_readers(
        tenant_id=context["tenant_id"],
        subject=subject % {"organization": name, "amount": context["amount"]},
        template=template,
        context=context,
        now=now,
        link=recharge_address(context["tenant_id"]),
    )
