"""What the addresses of these lists say. What cannot be read counts as not given: an old bookmark shows more,
never an error."""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import Final, TypeVar

from django.db.models import TextChoices
from django.http import QueryDict
from django.utils.translation import gettext_lazy

from portal.pages.periods import Period, read_period
from quotas.payments.inbox_queries import EventCursor

MAX_TEXT_LENGTH: Final = 255
EVERYTHING: Final = "all"
PERIODS: Final = {
    EVERYTHING: gettext_lazy("All time"),
    "today": gettext_lazy("Today"),
    "7d": gettext_lazy("Last 7 days"),
    "30d": gettext_lazy("Last 30 days"),
    "month": gettext_lazy("This month"),
    "last-month": gettext_lazy("Last month"),
    "custom": gettext_lazy("Days from … to …"),
}
ChoiceT = TypeVar("ChoiceT", bound=TextChoices | StrEnum)


def choice(kind: type[ChoiceT], text: str) -> ChoiceT | None:
    try:
        return kind(text)
    except ValueError:
        return None


def plain(text: str) -> str:
    """What was typed, as it may be looked for: no stored text holds a NUL."""
    text = text.strip()[:MAX_TEXT_LENGTH]
    return "" if "\0" in text else text


def period_of(query: QueryDict, now: datetime) -> Period | None:
    """None for all time."""
    if query.get("period", EVERYTHING) == EVERYTHING:
        return None
    return read_period(query, now=now, default="30d", presets=PERIODS)


def day_of(text: str) -> date | None:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if 2000 <= day.year <= 2999 else None


def cursor_of(text: str) -> EventCursor | None:
    """The event behind which the next page begins, as `cursor_text` spells it."""
    at, _sign, event_id = plain(text).partition("~")
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        return None
    return EventCursor(moment, event_id) if event_id and moment.tzinfo is not None else None


def cursor_text(cursor: EventCursor | None) -> str:
    return f"{cursor.created_at.isoformat()}~{cursor.id}" if cursor else ""
