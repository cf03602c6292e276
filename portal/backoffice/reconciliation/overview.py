"""Reconciliation at a glance, and one backend's day with its windows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from django.db import OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from models_catalog.fleet.queries import find_backend
from portal.backoffice.pages import operator_page
from portal.backoffice.payments.filters import day_of
from portal.backoffice.payments.words import badge_of, word_of
from portal.backoffice.reconciliation.words import (
    DISCREPANCY_KINDS,
    FEED_FORMATS,
    WINDOW_CAUSES,
    WINDOW_STATES,
)
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id
from portal.pages.access import parse_id
from portal.pages.answers import show
from portal.pages.charts import Chart, Series, Slot, paired_bars, stacked_bars
from portal.pages.tags import count_text
from quotas.reconciliation.reports import (
    BackendDay,
    WindowRow,
    backend_days,
    backend_windows,
    overrun_by_backend,
    reconciliation_summary,
    watermarks,
)
from quotas.reconciliation.review.discrepancies import open_causes

CHART_DAYS: Final = 30
DAYS: Final = {
    "1": gettext_lazy("Today"),
    "7": gettext_lazy("Last 7 days"),
    "30": gettext_lazy("Last 30 days"),
}
MEASURES: Final = {"tokens": gettext_lazy("Tokens"), "share": gettext_lazy("Unexplained share")}
SECTION: Final = "reconciliation"
BAR_WIDTH: Final = 100


@dataclass(frozen=True, slots=True)
class Bar:
    """What a counter says, split; each part as the beginning and the width of a rectangle, of BAR_WIDTH."""

    matched: str
    explained_x: str
    explained: str
    suspense_x: str
    suspense: str


@dataclass(frozen=True, slots=True)
class DayRow:
    """One backend and day as the table shows it. is_peaceful: nothing is unexplained."""

    day: BackendDay
    backend: str
    share: str
    bar: Bar
    is_peaceful: bool


@dataclass(frozen=True, slots=True)
class ShownWindow:
    row: WindowRow
    tone: str
    state: str
    causes: tuple[tuple[str, int, int, int], ...]
    suspense_tokens: int


@operator_page()
def reconciliation(request: HttpRequest) -> HttpResponse:
    """The overview. In the address: days (1, 7, 30), show (tokens, share)."""
    query = request.GET
    chosen = query["days"] if query.get("days") in DAYS else "7"
    measure = query["show"] if query.get("show") in MEASURES else "tokens"
    context: dict[str, Any] = {
        "section": SECTION,
        "tab": "overview",
        "days": DAYS,
        "chosen": chosen,
        "measures": MEASURES,
        "measure": measure,
        "chart_days": CHART_DAYS,
    }
    try:
        context |= _figures(utc_now(), int(chosen), measure)
    except OperationalError:
        # A table that stands still looks like peace.
        context["has_failed"] = True
    return show(request, "backoffice/reconciliation/overview.html", context)


def _figures(now: datetime, days: int, measure: str) -> dict[str, Any]:
    today = now.astimezone(UTC).date()
    until = today + timedelta(days=1)
    found = backend_days(since=until - timedelta(days=CHART_DAYS), until=until)
    first = until - timedelta(days=days)
    feeds = watermarks(now=now)
    return {
        "rows": [_day_row(one) for one in found if one.day >= first],
        "summary": reconciliation_summary(now=now, marks=feeds),
        "feeds": [
            (one, public_id(PREFIXES["feed"], one.feed_id), word_of(FEED_FORMATS, one.format))
            for one in feeds
        ],
        "causes": [(word_of(DISCREPANCY_KINDS, one.kind), one) for one in open_causes()],
        "overruns": overrun_by_backend(
            since=datetime.combine(until - timedelta(days=CHART_DAYS), time(), UTC), until=now
        ),
        "chart": _chart(found, until, measure),
        "has_any": bool(found),
    }


def _day_row(day: BackendDay) -> DayRow:
    return DayRow(
        day=day,
        backend=public_id(PREFIXES["backend"], day.backend_id),
        share=share_text(day.unexplained_tokens, day.counter_tokens),
        bar=_bar(day),
        is_peaceful=day.unexplained_tokens == 0,
    )


def share_text(part: int, whole: int) -> str:
    """In percent, without its sign; what is not nothing does not become it."""
    if not part:
        return "0"
    share = 100 * part / whole if whole else 100.0
    return "<0.01" if share < 0.01 else f"{share:.2f}"


def _bar(day: BackendDay) -> Bar:
    """Suspense below 0 is shown as it lies: as so much that is not there."""
    parts = [max(0, day.matched_tokens), max(0, day.explained_tokens), day.unexplained_tokens]
    whole = max(sum(parts), 1)
    matched, explained, suspense = (BAR_WIDTH * part / whole for part in parts)
    if day.unexplained_tokens:
        # What is unexplained is seen however little it is.
        suspense = max(suspense, 1.5)
        matched = min(matched, BAR_WIDTH - suspense)
        explained = max(0.0, BAR_WIDTH - suspense - matched)
    return Bar(
        matched=f"{matched:.2f}",
        explained_x=f"{matched:.2f}",
        explained=f"{explained:.2f}",
        suspense_x=f"{matched + explained:.2f}",
        suspense=f"{suspense if day.unexplained_tokens else 0:.2f}",
    )


def _chart(found: Sequence[BackendDay], until: date, measure: str) -> Chart:
    days = [until - timedelta(days=back) for back in range(CHART_DAYS, 0, -1)]
    sums: dict[date, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for one in found:
        parts = (one.matched_tokens, one.explained_tokens, one.unexplained_tokens, one.counter_tokens)
        for place, tokens in enumerate(parts):
            sums[one.day][place] += tokens
    slots = [Slot(f"{day:%m-%d}", f"{day:%Y-%m-%d}") for day in days]
    if measure == "share":
        ppm = tuple(sums[day][2] * 1_000_000 // sums[day][3] if sums[day][3] else 0 for day in days)
        return paired_bars(
            chart_id="reconciliation",
            title=str(MEASURES[measure]),
            slots=slots,
            pairs=[[Series(_("Unexplained"), ppm)]],
            wording=lambda value: f"{value / 10_000:.4f} %",
            tick_wording=lambda value: f"{value / 10_000:g} %",
            slot_heading=_("Day (UTC)"),
            adds_up=False,
        )
    names = (_("Matched"), _("Explained"), _("Unexplained"))
    return stacked_bars(
        chart_id="reconciliation",
        title=str(MEASURES[measure]),
        slots=slots,
        series=[Series(name, tuple(sums[day][place] for day in days)) for place, name in enumerate(names)],
        wording=count_text,
        slot_heading=_("Day (UTC)"),
    )


@operator_page()
def backend_day(request: HttpRequest, backend: str) -> HttpResponse:
    """One backend's day, window by window. In the address: day (today without one)."""
    found = find_backend(backend_id=parse_id("backend", backend), now=utc_now())
    if found is None:
        raise Http404
    day = day_of(request.GET.get("day", "")) or utc_now().astimezone(UTC).date()
    context: dict[str, Any] = {"section": SECTION, "tab": "overview", "backend": found, "day": day}
    try:
        windows = backend_windows(backend_id=found.id, day=day)
        of_day = backend_days(since=day, until=day + timedelta(days=1))
    except OperationalError:
        context["has_failed"] = True
    else:
        total = next((one for one in of_day if one.backend_id == found.id), None)
        context |= {
            "windows": [_shown_window(row) for row in windows],
            "total": _day_row(total) if total else None,
            "earlier": day - timedelta(days=1),
            "later": day + timedelta(days=1),
            "is_latest": day >= utc_now().astimezone(UTC).date(),
        }
    return show(request, "backoffice/reconciliation/day.html", context)


def _shown_window(row: WindowRow) -> ShownWindow:
    return ShownWindow(
        row,
        *badge_of(WINDOW_STATES, row.state),
        causes=tuple(
            (word_of(WINDOW_CAUSES, one.kind), one.attempts, one.prompt_tokens, one.completion_tokens)
            for one in row.causes
        ),
        suspense_tokens=abs(row.suspense_prompt_tokens) + abs(row.suspense_completion_tokens),
    )
