"""All lines of one day in Stripe's books and ours, side by side. As operator."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from django.db import connections

from quotas.payments.stripe_matching import LINES_SQL, OneSided
from tenants.scope import scope_alias

MAX_LINES: Final = 500


@dataclass(frozen=True, slots=True)
class DayLines:
    """Lines of either book with their counterparts, those that do not agree first. is_cut: there are more."""

    lines: tuple[OneSided, ...]
    is_cut: bool


def day_lines(*, day: date, currency: str, limit: int = MAX_LINES) -> DayLines:
    """The lines of a day (UTC) and currency. limit: 1 to MAX_LINES."""
    limit = max(1, min(limit, MAX_LINES))
    from_at = datetime.combine(day, time(), tzinfo=UTC)
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            "SELECT at, kind, transfer_id, balance_transaction_id, stripe_nanos::bigint, "  # noqa: S608
            f"ledger_nanos::bigint FROM ({LINES_SQL}) lines WHERE at >= %s AND at < %s AND currency = %s "
            "ORDER BY stripe_nanos IS NOT DISTINCT FROM ledger_nanos, at, balance_transaction_id, "
            "transfer_id LIMIT %s",
            [from_at, from_at + timedelta(days=1), currency, limit + 1],
        )
        found = cursor.fetchall()
    return DayLines(tuple(OneSided(*row) for row in found[:limit]), len(found) > limit)
