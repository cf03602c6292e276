"""Mails about prices that get dearer: rows of the outbox, made from the notices that publishing leaves."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.db import transaction
from django.db.models import Case, When
from django.template.loader import render_to_string
from django.utils.text import Truncator
from django.utils.translation import gettext as _

from models_catalog.models import CatalogModel, PriceNotice, PriceNoticeKind, PriceVersion
from models_catalog.pricing.compare import Increase, compare
from models_catalog.pricing.storage import read_contents
from models_catalog.pricing.words import SERVICE_TIERS, TOKEN_CLASSES
from portal.kit.money import format_nanos
from tenants.models import Membership, Role, Tenant, TenantState
from tenants.operations import InvalidMail, OutgoingMail, TooManyMails, enqueue_mail
from tenants.scope import scope_alias

logger = logging.getLogger(__name__)

TOLD_ROLES: Final = (Role.OWNER, Role.ADMIN, Role.BILLING)
# An organization that has sent all mails of a day is tried again after this.
RETRY: Final = timedelta(hours=1)
MAX_LINES: Final = 12
# More people than this learn it from the others, and one notice never needs all mails of a day.
MAX_READERS: Final = 50


@dataclass(frozen=True, slots=True)
class NoticeReport:
    """How many notices were settled, mails written, and notices put off."""

    notices: int
    mails: int
    put_off: int


def mail_notices(*, now: datetime, limit: int, portal_url: str = "") -> NoticeReport:
    """Write the mails of at most `limit` notices into the outbox, each with a commit of its own. As operator.

    Safe to run twice and beside itself. portal_url: where links lead; empty leaves them out.
    """
    notices = mails = put_off = 0
    while notices + put_off < limit:
        written = _mail_next(now, portal_url)
        if written is None:
            break
        notices, mails = notices + (written >= 0), mails + max(written, 0)
        put_off += written < 0
    return NoticeReport(notices, mails, put_off)


def _mail_next(now: datetime, portal_url: str) -> int | None:
    """How many mails the next due notice became; −1 when it was put off, None when none is due."""
    with transaction.atomic(using=scope_alias()):
        notice = (
            PriceNotice.objects.select_for_update(skip_locked=True, no_key=True, of=("self",))
            .filter(mailed_at=None, next_attempt_at__lte=now)
            .order_by("next_attempt_at", "id")
            .first()
        )
        if notice is None:
            return None
        try:
            with transaction.atomic(using=scope_alias()):
                written = _write(notice, now, portal_url)
        except TooManyMails:
            PriceNotice.objects.filter(id=notice.id).update(next_attempt_at=now + RETRY)
            return -1
        PriceNotice.objects.filter(id=notice.id).update(mailed_at=now, mails=written)
        return written


def _write(notice: PriceNotice, now: datetime, portal_url: str) -> int:
    version = PriceVersion.objects.get(id=notice.version_id)
    tenant = Tenant.objects.get(id=notice.tenant_id)
    is_withdrawn = version.active_to == version.active_from
    if tenant.state == TenantState.CLOSED or (notice.kind == PriceNoticeKind.NEW_PRICE and is_withdrawn):
        return 0
    mail = _compose(notice, version, tenant, portal_url)
    written = 0
    for email in _people(tenant.id):
        try:
            enqueue_mail(
                mail=OutgoingMail(email, mail.subject, mail.text_body, mail.html_body),
                now=now,
                tenant_id=tenant.id,
            )
        except InvalidMail:
            # Whom no mail reaches keeps it neither from the others nor the next notice from its turn.
            logger.warning("catalog.price_notice.no_address", extra={"tenant_id": str(tenant.id)})
            continue
        written += 1
    return written


def _people(tenant_id: UUID) -> list[str]:
    members = Membership.objects.filter(
        tenant_id=tenant_id, role__in=TOLD_ROLES, user__is_active=True
    ).order_by(Case(When(role=Role.OWNER, then=0), default=1), "user__email")
    return list(members.values_list("user__email", flat=True)[:MAX_READERS])


def _compose(notice: PriceNotice, version: PriceVersion, tenant: Tenant, portal_url: str) -> OutgoingMail:
    model = CatalogModel.objects.get(id=version.model_id)
    increases = _increases(notice, version, model)
    context = {
        "kind": notice.kind,
        "model_name": model.display_name,
        "slug": model.slug,
        "organization_name": tenant.name,
        "takes_effect_at": notice.takes_effect_at,
        "currency": version.currency,
        "lines": [_line_text(increase, version.currency) for increase in increases[:MAX_LINES]],
        "more": max(0, len(increases) - MAX_LINES),
        "link": f"{portal_url.rstrip('/')}/models/{model.slug}" if portal_url else "",
    }
    name = Truncator(" ".join(model.display_name.split())).chars(80)
    if notice.kind == PriceNoticeKind.WITHDRAWN:
        subject = _("%(model)s: the announced price will not come") % {"model": name}
    else:
        subject = _("%(model)s: the price changes on %(date)s") % {
            "model": name,
            "date": f"{notice.takes_effect_at:%Y-%m-%d}",
        }
    return OutgoingMail(
        to_email="",
        subject=subject,
        text_body=render_to_string("backoffice/prices/notice_mail.txt", context),
        html_body=render_to_string("backoffice/prices/notice_mail.html", context),
    )


def _line_text(increase: Increase, currency: str) -> str:
    """`Output, batch, from 32,000 tokens, night: $2.00 → $2.50`."""
    words = [str(TOKEN_CLASSES[increase.token_class])]
    if increase.service_tier != "standard":
        words.append(str(SERVICE_TIERS[increase.service_tier]))
    if increase.from_tokens:
        words.append(_("inputs from %(count)s tokens on") % {"count": f"{increase.from_tokens:,}"})
    if increase.new_window:
        words.append(increase.new_window)
    old = format_nanos(increase.old_nanos, currency)
    if increase.new_nanos is None:
        after = _("no price: such calls are refused")
    else:
        after = format_nanos(increase.new_nanos, currency)
    return f"{', '.join(words)}: {old} → {after}"


def _increases(notice: PriceNotice, version: PriceVersion, model: CatalogModel) -> list[Increase]:
    """What gets dearer for this organization, against what it paid before."""
    if notice.kind == PriceNoticeKind.WITHDRAWN or notice.before_id is None:
        return []
    after: UUID | None = version.id
    if notice.kind == PriceNoticeKind.PRIVATE_END:
        after = _version_at(notice, version)
    contents = read_contents(PriceVersion.objects.filter(id__in=[notice.before_id, after]))
    return compare(
        contents.get(after) if after else None,
        contents.get(notice.before_id),
        max_input_tokens=model.context_tokens,
    )


def _version_at(notice: PriceNotice, version: PriceVersion) -> UUID | None:
    """What counts for the organization when its private price has ended."""
    candidates = (
        PriceVersion.objects.filter(
            model_id=version.model_id, currency=version.currency, published_at__isnull=False
        )
        .filter(active_from__lte=notice.takes_effect_at)
        .exclude(id=version.id)
        .exclude(active_to__lte=notice.takes_effect_at)
    )
    own = candidates.filter(tenant_id=notice.tenant_id).values_list("id", flat=True).first()
    return own or candidates.filter(tenant__isnull=True).values_list("id", flat=True).first()
