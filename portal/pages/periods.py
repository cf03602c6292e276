"""Periods as addresses name them: a preset or two days, in UTC, half-open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Final, Literal

from django.http import QueryDict
from django.utils.translation import gettext_lazy

PRESETS: Final = {
    "24h": gettext_lazy("Last 24 hours"),
    "7d": gettext_lazy("Last 7 days"),
    "30d": gettext_lazy("Last 30 days"),
    "month": gettext_lazy("This month"),
    "last-month": gettext_lazy("Last month"),
    "custom": gettext_lazy("Days from … to …"),
}
MAX_DAYS: Final = 366
# Beyond these neither ids nor the next day can be written down.
FIRST_YEAR: Final = 2000
LAST_YEAR: Final = 2999
DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Period:
    """from_at until before to_at. first_day and last_day: what the two date fields show (both included)."""

    name: str
    from_at: datetime
    to_at: datetime
    is_corrected: bool = False

    @property
    def first_day(self) -> str:
        return f"{self.from_at:%Y-%m-%d}"

    @property
    def last_day(self) -> str:
        return f"{self.to_at - timedelta(microseconds=1):%Y-%m-%d}"

    @property
    def bucket(self) -> Literal["hour", "day", "month"]:
        days = (self.to_at - self.from_at) / DAY
        return "hour" if days <= 2 else "day" if days <= 92 else "month"


def read_period(
    query: QueryDict, *, now: datetime, default: str, presets: Mapping[str, object] = PRESETS
) -> Period:
    """What an address asks for, of the presets that a page offers.

    What cannot be read becomes the default, and is_corrected says so.
    """
    name = query.get("period", default)
    if name == "custom":
        first, last = _day(query.get("from", "")), _day(query.get("to", ""))
        if first and last and first <= last < first + MAX_DAYS * DAY:
            return Period(name, first, last + DAY)
        return Period(default, *_preset(default, now), is_corrected=True)
    if name not in presets:
        return Period(default, *_preset(default, now), is_corrected=True)
    return Period(name, *_preset(name, now))


def _preset(name: str, now: datetime) -> tuple[datetime, datetime]:
    today = datetime.combine(now.astimezone(UTC).date(), time(), tzinfo=UTC)
    month = today.replace(day=1)
    next_hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    if name == "today":
        return today, today + DAY
    if name == "24h":
        return next_hour - DAY, next_hour
    if name in ("7d", "30d"):
        return today - (int(name[:-1]) - 1) * DAY, today + DAY
    if name == "last-month":
        return (month - DAY).replace(day=1), month
    return month, today + DAY


def _day(text: str) -> datetime | None:
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        return None
    return day if FIRST_YEAR <= day.year <= LAST_YEAR else None
