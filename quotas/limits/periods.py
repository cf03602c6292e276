"""The periods that quotas and budgets are counted in: days and months of UTC, half-open."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

from quotas.models import LimitKind

_DAYS = (LimitKind.TOKENS_DAY, LimitKind.MONEY_DAY)
_MONTHS = (LimitKind.TOKENS_MONTH, LimitKind.MONEY_MONTH)


def period_start(kind: LimitKind, at: datetime) -> date | None:
    """The first day of the period that `at` falls in; None for rates, which have none."""
    day = at.astimezone(UTC).date()
    if kind in _DAYS:
        return day
    return day.replace(day=1) if kind in _MONTHS else None


def resets_at(kind: LimitKind, at: datetime) -> datetime | None:
    """When the next period begins; None for rates."""
    start = period_start(kind, at)
    if start is None:
        return None
    # Four days after the 28th is the next month, whatever the month.
    following = (
        start + timedelta(days=1)
        if kind in _DAYS
        else (start.replace(day=28) + timedelta(days=4)).replace(day=1)
    )
    return datetime.combine(following, time(), tzinfo=UTC)
