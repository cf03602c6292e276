"""The mails of limits: a budget is used up to a threshold, and another tier is reached."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.text import Truncator
from django.utils.translation import gettext as _

from portal.kit.ids import PREFIXES, public_id
from tenants.models import Membership, Role
from tenants.operations import InvalidMail, OutgoingMail, TooManyMails, enqueue_mail
from tenants.scope import scope_alias

logger = logging.getLogger(__name__)

# Whom money concerns.
READERS: Final = (Role.OWNER, Role.ADMIN, Role.BILLING)
MAX_READERS: Final = 50


def budget_mail(context: dict[str, Any]) -> tuple[str, str]:
    """Subject and name of the templates. context: as templates/limits/budget_mail.txt takes it."""
    subject = _("%(organization)s has used %(percent)s %% of a budget") % {
        "organization": _one_line(context["organization_name"]),
        "percent": context["percent"],
    }
    return subject, "limits/budget_mail"


def tier_mail(context: dict[str, Any]) -> tuple[str, str]:
    """Subject and name of the templates. context: as templates/limits/tier_mail.txt takes it."""
    subject = _("%(organization)s has reached the tier %(tier)s") % {
        "organization": _one_line(context["organization_name"]),
        "tier": _one_line(context["tier_name"]),
    }
    return subject, "limits/tier_mail"


def send_to_readers(
    *, tenant_id: UUID, subject: str, template: str, context: dict[str, Any], now: datetime, link: str = ""
) -> int:
    """A mail to everybody in an organization whom money concerns, within the caller's transaction; how many.

    An organization that has sent as many mails as it may today gets no more, and what is told stays told.
    link: where it leads; by default to the limits.
    """
    context = {**context, "link": link or limits_address(tenant_id)}
    members = Membership.objects.filter(tenant_id=tenant_id, role__in=READERS, user__is_active=True)
    addresses = list(members.order_by("id").values_list("user__email", flat=True)[:MAX_READERS])
    text, html = (render_to_string(f"{template}.{ending}", context) for ending in ("txt", "html"))
    sent = 0
    for address in addresses:
        try:
            with transaction.atomic(using=scope_alias()):
                enqueue_mail(mail=OutgoingMail(address, subject, text, html), now=now, tenant_id=tenant_id)
        except TooManyMails:
            logger.warning("quotas.limits.mail_not_written", extra={"tenant_id": str(tenant_id)})
            break
        except InvalidMail:
            continue
        sent += 1
    return sent


def limits_address(tenant_id: UUID) -> str:
    """Where the organization's limits are shown."""
    page = reverse("console:limits", args=[public_id(PREFIXES["organization"], tenant_id)])
    return str(settings.PORTAL_URL).rstrip("/") + page


def _one_line(name: str) -> str:
    """Names stand in a subject, which is one short line."""
    return Truncator(" ".join(name.split())).chars(70)
