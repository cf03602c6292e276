"""Mails about corrections that are large enough for an organization to be told of."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, connections, transaction
from django.urls import reverse
from django.utils import translation
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.kit.ids import PREFIXES, public_id
from portal.kit.money import NANOS_PER_UNIT, format_nanos
from portal.kit.refusals import is_refusal
from quotas.limits.mails import send_to_readers
from quotas.models import CorrectionCause
from tenants.models import Tenant
from tenants.scope import scope_alias

logger = logging.getLogger(__name__)

# Older ones nobody was told of while nothing ran: their mail would only surprise.
LOOK_BACK: Final = timedelta(days=7)
MAX_A_RUN: Final = 5000
MAX_LISTED: Final = 20
CAUSES: Final = {
    CorrectionCause.COUNTS_DIFFER: gettext_lazy("The backend's record says other counts."),
    CorrectionCause.SETTLEMENT_LOST: gettext_lazy(
        "The gateway was lost before it could settle the call; it was billed from the backend's record."
    ),
    CorrectionCause.BY_HAND: gettext_lazy("It was looked at and set right by an operator."),
}
# Two that look at once do not tell twice: the second waits for the first one's row, and then writes none.
_DUE: Final = """
SELECT c.tenant_id, c.request_id, c.revision, c.delta_nanos, c.cause
FROM quotas_correction c
WHERE c.posted_at >= %(since)s AND abs(c.delta_nanos) >= %(least)s AND c.delta_nanos <> 0
  AND NOT EXISTS (SELECT 1 FROM quotas_correctionnotice n
                  WHERE n.request_id = c.request_id AND n.revision = c.revision)
ORDER BY c.tenant_id, c.posted_at, c.request_id, c.revision LIMIT %(limit)s
"""
_INSERT: Final = """
INSERT INTO quotas_correctionnotice (request_id, revision, told_at) VALUES (%s, %s, %s)
ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class _Due:
    """A correction to tell of. delta_nanos: positive when it costs the organization more."""

    tenant_id: UUID
    request_id: UUID
    revision: int
    delta_nanos: int
    cause: str


def tell_corrections(*, now: datetime) -> int:
    """Write the mails about corrections of at least SLUICE_CORRECTION_MAIL_UNITS that nobody was told of yet,
    one for all of an organization; how many corrections. As operator. Safe to run twice and beside itself.
    """
    least_nanos = settings.TUNING["SLUICE_CORRECTION_MAIL_UNITS"] * NANOS_PER_UNIT
    parameters: dict[str, Any] = {"since": now - LOOK_BACK, "least": least_nanos, "limit": MAX_A_RUN}
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(_DUE, parameters)
        found = [_Due(*row) for row in cursor.fetchall()]
    told = 0
    for tenant_id, group in groupby(found, key=lambda one: one.tenant_id):
        try:
            told += _tell(tenant_id, list(group), now)
        except DatabaseError as error:
            if not is_refusal(error):
                raise
            # One organization's trouble is not the others'; the next run tries again.
            logger.exception("quotas.corrections.not_told", extra={"tenant_id": str(tenant_id)})
    return told


def _tell(tenant_id: UUID, due: Sequence[_Due], now: datetime) -> int:
    """One organization's corrections and mails, together or not at all."""
    with transaction.atomic(using=scope_alias()):
        new = [one for one in due if _insert(one, now)]
        if new:
            mails = _mail(tenant_id, new, now)
            logger.info("quotas.corrections.told", extra={"tenant_id": str(tenant_id), "mails": mails})
    return len(new)


def _insert(due: _Due, now: datetime) -> bool:
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(_INSERT, (due.request_id, due.revision, now))
        return bool(cursor.rowcount == 1)


def _mail(tenant_id: UUID, due: Sequence[_Due], now: datetime) -> int:
    tenant = Tenant.objects.get(id=tenant_id)
    largest = sorted(due, key=lambda one: -abs(one.delta_nanos))[:MAX_LISTED]
    page = reverse("console:statement", args=[public_id(PREFIXES["organization"], tenant_id)])
    # Nobody asks for this mail in a language of their own; the installation's is their common one.
    with translation.override(settings.LANGUAGE_CODE):
        context: dict[str, Any] = {
            "organization_name": tenant.name,
            "corrections": [
                {
                    "amount": format_nanos(-one.delta_nanos, tenant.currency, sign=True),
                    "request": public_id(PREFIXES["request"], one.request_id),
                    "reason": CAUSES[CorrectionCause(one.cause)],
                }
                for one in largest
            ],
            "number": len(due),
            "more": len(due) - len(largest),
            "total": format_nanos(-sum(one.delta_nanos for one in due), tenant.currency, sign=True),
        }
        subject = _("%(organization)s: usage was corrected by %(amount)s") % {
            "organization": Truncator(" ".join(tenant.name.split())).chars(70),
            "amount": context["total"],
        }
        return send_to_readers(
            tenant_id=tenant_id,
            subject=subject,
            template="reconciliation/correction_mail",
            context=context,
            now=now,
            link=str(settings.PORTAL_URL).rstrip("/") + page,
        )
