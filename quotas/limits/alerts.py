"""Budget alerts: a mail when a threshold of a budget is reached, once in a period."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby
from typing import Any, Final
from uuid import UUID

from django.db import DatabaseError, connections, transaction

from models_catalog.models import CatalogModel
from portal.kit.ids import uuid7
from portal.kit.money import format_nanos
from quotas.limits.mails import budget_mail, send_to_readers
from quotas.limits.periods import period_start, resets_at
from quotas.models import LimitKind
from quotas.models.limits import ANY
from tenants.models import ApiKey, Tenant
from tenants.scope import scope_alias

logger = logging.getLogger(__name__)

# What a run does at most; the next run finds the rest.
MAX_ALERTS_A_RUN: Final = 500

# Where organization and operator both set alerts for one scope, the organization's own budget is watched: it
# is never the higher one. `since` leaves out who has neither used anything nor got another budget lately.
_DUE = """
WITH watched AS MATERIALIZED (
  SELECT DISTINCT ON (l.tenant_id, l.model_id, l.api_key_id, l.kind)
    l.tenant_id, coalesce(l.model_id, %(any)s) AS model_id, coalesce(l.api_key_id, %(any)s) AS api_key_id,
    l.kind, CASE l.kind WHEN 'MONEY_DAY' THEN %(day)s::date ELSE %(month)s::date END AS period_start,
    l.value, l.alert_percents
  FROM quotas_limit l
  WHERE l.alert_percents <> '{}' AND l.starts_at <= %(now)s AND (l.ends_at IS NULL OR %(now)s < l.ends_at)
    AND (%(since)s::timestamptz IS NULL OR l.starts_at >= %(since)s::timestamptz OR EXISTS (
      SELECT 1 FROM quotas_usagerollup r
      WHERE r.tenant_id = l.tenant_id AND r.hour >= date_trunc('hour', %(since)s::timestamptz)))
  ORDER BY l.tenant_id, l.model_id, l.api_key_id, l.kind, l.origin = 'TENANT' DESC
), used AS (
  SELECT w.*, coalesce(u.used, r.used, 0) AS used
  FROM watched w
  LEFT JOIN quotas_limituse u ON u.tenant_id = w.tenant_id AND u.model_id = w.model_id
    AND u.api_key_id = w.api_key_id AND u.kind = w.kind AND u.period_start = w.period_start
  LEFT JOIN LATERAL (
    SELECT sum(o.charged_nanos)::bigint AS used FROM quotas_usagerollup o
    WHERE u.tenant_id IS NULL AND o.tenant_id = w.tenant_id
      AND o.hour >= w.period_start::timestamp AT TIME ZONE 'UTC' AND o.hour <= %(now)s
      AND w.model_id IN (o.model_id, %(any)s) AND w.api_key_id IN (o.api_key_id, %(any)s)) r ON true
)
SELECT s.tenant_id, s.model_id, s.api_key_id, s.kind, s.period_start, p.percent, s.value, s.used
FROM used s CROSS JOIN LATERAL unnest(s.alert_percents) AS p(percent)
WHERE s.used > 0 AND s.used::numeric * 100 >= s.value::numeric * p.percent
  AND NOT EXISTS (
    SELECT 1 FROM quotas_budgetalert b
    WHERE b.tenant_id = s.tenant_id AND b.model_id = s.model_id AND b.api_key_id = s.api_key_id
      AND b.kind = s.kind AND b.period_start = s.period_start AND b.percent = p.percent)
ORDER BY s.tenant_id, s.kind, s.model_id, s.api_key_id, p.percent
LIMIT %(limit)s
"""
_INSERT = """
INSERT INTO quotas_budgetalert (id, tenant_id, model_id, api_key_id, kind, period_start, percent, value, used)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class _Due:
    """A threshold that was reached and not told yet. value and used in nano-units."""

    tenant_id: UUID
    model_id: UUID
    api_key_id: UUID
    kind: str
    period_start: date
    percent: int
    value: int
    used: int

    @property
    def budget(self) -> tuple[str, UUID, UUID]:
        return self.kind, self.model_id, self.api_key_id


def raise_budget_alerts(*, now: datetime, since: datetime | None = None) -> int:
    """Write down every threshold that was reached, and a mail for each budget, about its highest new one; how
    many thresholds. As operator.

    since: look only at organizations that used something in the hour of that moment or later, or whose budget
    is as new. Used is what was charged, without what calls under way reserve. Safe to run twice and beside
    itself: whoever writes the row writes the mails, in one transaction.
    """
    raised = 0
    for tenant_id, group in groupby(_due(now, since), key=lambda due: due.tenant_id):
        try:
            raised += _raise(tenant_id, list(group), now)
        except DatabaseError:
            # One organization's trouble is not the others'; the next run tries again.
            logger.exception("quotas.budgets.alert_failed", extra={"tenant_id": str(tenant_id)})
    return raised


def _due(now: datetime, since: datetime | None) -> list[_Due]:
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            _DUE,
            {
                "any": ANY,
                "now": now,
                "since": since,
                "day": period_start(LimitKind.MONEY_DAY, now),
                "month": period_start(LimitKind.MONEY_MONTH, now),
                "limit": MAX_ALERTS_A_RUN,
            },
        )
        return [_Due(*row) for row in cursor.fetchall()]


def _raise(tenant_id: UUID, due: list[_Due], now: datetime) -> int:
    """One organization's alerts and mails, together or not at all."""
    with transaction.atomic(using=scope_alias()):
        new = [one for one in due if _insert(one)]
        for _, budget in groupby(new, key=lambda one: one.budget):
            highest = max(budget, key=lambda one: one.percent)
            _mail(tenant_id, highest, now)
    return len(new)


def _insert(due: _Due) -> bool:
    """Whether this is the first to tell. Whoever comes second waits here for the first one's commit."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            _INSERT,
            (
                uuid7(),
                due.tenant_id,
                due.model_id,
                due.api_key_id,
                due.kind,
                due.period_start,
                due.percent,
                due.value,
                due.used,
            ),
        )
        return bool(cursor.rowcount == 1)


def _mail(tenant_id: UUID, due: _Due, now: datetime) -> None:
    tenant = Tenant.objects.get(id=tenant_id)
    model = CatalogModel.objects.filter(id=due.model_id).first()
    key = ApiKey.objects.filter(tenant_id=tenant_id, id=due.api_key_id).first()
    reset = resets_at(LimitKind(due.kind), now)
    assert reset is not None, "budgets have periods"
    context: dict[str, Any] = {
        "organization_name": tenant.name,
        "percent": due.percent,
        "is_daily": due.kind == LimitKind.MONEY_DAY,
        "model": model.slug if model else "",
        "key": key.name if key else "",
        "used": format_nanos(due.used, tenant.currency),
        "value": format_nanos(due.value, tenant.currency),
        "resets_at": reset,
        "is_refusing": _refuses(tenant_id, due, now),
    }
    subject, template = budget_mail(context)
    send_to_readers(tenant_id=tenant_id, subject=subject, template=template, context=context, now=now)


def _refuses(tenant_id: UUID, due: _Due, now: datetime) -> bool:
    """Whether calls are refused now, or will be at the end of this budget: it is a hard one."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            "SELECT 1 FROM quotas_effective_limits(%s, %s) l "
            "WHERE l.kind = %s AND l.model_id = %s AND l.api_key_id = %s AND l.value <= %s",
            (tenant_id, now, due.kind, due.model_id, due.api_key_id, due.value),
        )
        return cursor.fetchone() is not None
