"""What usage comes to by model and token class, for invoices: exactly what the ledger says, split."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from django.db import connections

from tenants.scope import scope_alias

_LINES: Final = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Coverage:
    """Usage of calls that were admitted before `to_at`, as far as it was posted before `cut_at`; without that
    of calls admitted before `from_at` that was posted before `from_cut_at`, and without what was posted
    before `since`. Of the clock of the database."""

    since: datetime
    from_at: datetime
    from_cut_at: datetime
    to_at: datetime
    cut_at: datetime


@dataclass(frozen=True, slots=True)
class UsageLine:
    """units: tokens that are billed, or calls of the class `request`. cost_nanos: by their prices;
    amount_nanos: what paid credit or the credit line paid of it, or is owed."""

    model_id: UUID
    token_class: str
    units: int
    cost_nanos: int
    amount_nanos: int


def usage_lines(*, tenant_id: UUID, coverage: Coverage) -> list[UsageLine]:
    """By model, and in the order of the classes. As operator or in the organization's scope."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(_LINES, _parameters(tenant_id, coverage))
        return [UsageLine(*row) for row in cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class CoveredCall:
    """A transfer that an invoice covers: of which call, when it was posted, and what it took."""

    transfer_id: UUID
    request_id: UUID
    revision: int
    posted_at: datetime
    amount_nanos: int


def covered_calls(
    *, tenant_id: UUID, coverage: Coverage, model_id: UUID, limit: int, after: UUID | None = None
) -> list[CoveredCall]:
    """The usage rows behind the lines of one model, by the ids of their transfers."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            "SELECT c.transfer_id, c.request_id, c.revision, t.posted_at, c.paid_nanos"
            " FROM quotas_invoice_transfers(%(tenant)s, %(since)s, %(from)s, %(from_cut)s, %(to)s, %(cut)s) c"
            " JOIN quotas_ledgertransfer t ON t.id = c.transfer_id"
            " JOIN quotas_inferencerequest q ON q.id = c.request_id"
            " WHERE q.model_id = %(model)s AND (%(after)s::uuid IS NULL OR c.transfer_id > %(after)s::uuid)"
            " ORDER BY c.transfer_id LIMIT %(limit)s",
            {**_parameters(tenant_id, coverage), "model": model_id, "after": after, "limit": limit},
        )
        return [CoveredCall(*row) for row in cursor.fetchall()]


def _parameters(tenant_id: UUID, coverage: Coverage) -> dict[str, Any]:
    return {
        "tenant": tenant_id,
        "since": coverage.since,
        "from": coverage.from_at,
        "from_cut": coverage.from_cut_at,
        "to": coverage.to_at,
        "cut": coverage.cut_at,
    }
