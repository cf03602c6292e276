"""The business figures as comma-separated values: what reports are sums of, hour by hour.

Each piece of text opens the operator's scope itself and closes it, so that an export can be read after the
caller's scope is closed, in any thread, and a slow reader holds no transaction open.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from django.db import connections

from portal.kit.ids import PREFIXES, public_id
from quotas.business.queries import expenses
from quotas.csv_text import Cell, amount, csv_text, moment, safe_text
from quotas.models import AllocatedHour
from tenants.models import Tenant
from tenants.scope import role_scope, scope_alias

COLUMNS: Final = (
    "hour",
    "kind",
    "pool",
    "backend",
    "model",
    "organization",
    "organization_name",
    "requests",
    "requests_without_cost",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "weighted_tokens",
    "revenue",
    "granted",
    "overrun",
    "currency",
    "cost",
    "cost_currency",
    "is_final",
)
_EXPORT = (Path(__file__).parent / "sql" / "export.sql").read_text(encoding="utf-8")


def iter_business_csv(*, from_: datetime, to: datetime, currency: str) -> Iterator[str]:
    """The hours that begin in the half-open period, oldest first, a piece an hour; amounts are exact.

    Kinds: SOLD (a deployment's calls of one organization), IDLE (reserved, not sold), UNRESERVED (reserved
    for nobody), and at the end GOODWILL and PAYMENT_FEES of each organization in the period. What earned in
    one and cost in another currency is there with both; the other rows are in `currency`.
    """
    yield csv_text([COLUMNS])
    with role_scope("operator"):
        hours = list(
            AllocatedHour.objects.filter(hour__gte=from_, hour__lt=to)
            .order_by("hour")
            .values_list("hour", flat=True)
        )
    for hour in hours:
        with role_scope("operator"), connections[scope_alias()].cursor() as cursor:
            cursor.execute(_EXPORT, {"hour": hour, "currency": currency})
            rows = cursor.fetchall()
        if rows:
            yield csv_text(_row(row) for row in rows)
    with role_scope("operator"):
        rest = _expense_rows(from_, to, currency)
    if rest:
        yield csv_text(rest)


def _row(row: tuple[Any, ...]) -> tuple[Cell | None, ...]:
    hour, kind, pool, backend, model, tenant_id, name, *counts = row
    *tokens, weighted, revenue, granted, overrun, currency, cost, cost_currency, is_final = counts
    return (
        moment(hour),
        kind,
        pool,
        backend,
        None if model is None else safe_text(model),
        None if tenant_id is None else public_id(PREFIXES["organization"], tenant_id),
        None if name is None else safe_text(name),
        *tokens,
        None if weighted is None else f"{weighted // 1000}.{weighted % 1000:03d}",
        amount(revenue),
        amount(granted),
        amount(overrun),
        currency,
        amount(cost),
        cost_currency,
        "yes" if is_final else "no",
    )


def _expense_rows(from_: datetime, to: datetime, currency: str) -> list[tuple[Cell | None, ...]]:
    found = expenses(from_=from_, to=to, currency=currency)
    names = dict(Tenant.objects.filter(id__in=[one for one in found if one]).values_list("id", "name"))
    rows: list[tuple[Cell | None, ...]] = []
    for tenant_id, (goodwill_nanos, fees_nanos) in found.items():
        owner = public_id(PREFIXES["organization"], tenant_id) if tenant_id else None
        name = safe_text(names[tenant_id]) if tenant_id else None
        for kind, nanos in (("GOODWILL", goodwill_nanos), ("PAYMENT_FEES", fees_nanos)):
            if nanos:
                ahead: tuple[Cell | None, ...] = (None, kind, None, None, None, owner, name)
                rows.append((*ahead, *(None,) * 10, amount(nanos), currency, "yes"))
    return rows
