"""The business figures as the page shows them: rounded to one precision, exact where one looks closer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from portal.backoffice.amounts import places_of, rounded_text
from portal.kit.ids import PREFIXES, public_id
from portal.pages.tags import MINUS, NONE, amount_text, count_text
from quotas.business.figures import BusinessLine, BusinessReport, Foreign, Totals, Unreserved

BAR_WIDTH: Final = 100
_PAGES: Final = {
    "tenant": ("backoffice:tenant", "organization"),
    "pool": ("backoffice:pool", "pool"),
    "backend": ("backoffice:backend", "backend"),
}


@dataclass(frozen=True, slots=True)
class Bar:
    """Utilisation and break-even as parts of BAR_WIDTH. mark: None without a break-even or beyond the end."""

    fill: str
    mark: str | None


@dataclass(frozen=True, slots=True)
class LineRow:
    """One line of the table. is_paying: at or above break-even; None when there is none."""

    name: str
    url: str
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    revenue: SafeString | str
    granted: SafeString | str
    overrun: SafeString | str
    cost: SafeString | str
    margin: SafeString | str
    margin_percent: str
    is_loss: bool
    idle: SafeString | str
    goodwill: SafeString | str
    fees: SafeString | str
    utilisation: str
    breakeven: str
    bar: Bar | None
    is_paying: bool | None
    notes: tuple[str, ...]


class Wording:
    """Words for the amounts of one report."""

    def __init__(self, report: BusinessReport) -> None:
        self._currency = report.currency
        sums = report.totals.sums
        self._places = places_of((sums.revenue_nanos, sums.granted_nanos, report.totals.pool_cost_nanos))

    def amount(self, nanos: int | None) -> SafeString | str:
        """Rounded half up, never to zero; the exact nano-units in `value` and `title`."""
        if nanos is None:
            return NONE
        text = rounded_text(nanos, self._currency, places=self._places)
        exact = _("%(amount)s nano-units of %(currency)s") % {
            "amount": count_text(nanos).replace("-", MINUS),
            "currency": self._currency,
        }
        return format_html('<data class="money" value="{}" title="{}">{}</data>', nanos, exact, text)


def percent(ppm: int | None) -> str:
    """`41.2`, of millionths; the sign of percent stands in the head of the column."""
    if ppm is None:
        return NONE
    return f"{ppm / 10_000:,.1f}".replace("-", MINUS)


def line_rows(report: BusinessReport, wording: Wording) -> list[LineRow]:
    return [_line_row(report, line, wording) for line in report.lines]


def _line_row(report: BusinessReport, line: BusinessLine, wording: Wording) -> LineRow:
    sums, margin, breakeven = line.sums, line.margin_nanos, line.breakeven_ppm
    utilisation = line.capacity.utilisation_ppm if line.capacity else None
    return LineRow(
        name=line.name or _("Other"),
        url=_url(report, line),
        requests=sums.requests,
        prompt_tokens=sums.prompt_tokens,
        cached_tokens=sums.cached_tokens,
        completion_tokens=sums.completion_tokens,
        revenue=wording.amount(sums.revenue_nanos),
        granted=wording.amount(sums.granted_nanos),
        overrun=wording.amount(sums.overrun_nanos),
        cost=wording.amount(sums.cost_nanos),
        margin=wording.amount(margin),
        margin_percent=percent(line.margin_ppm),
        is_loss=margin is not None and margin < 0,
        idle=wording.amount(line.idle_nanos),
        goodwill=wording.amount(line.goodwill_nanos),
        fees=wording.amount(line.fees_nanos),
        utilisation=percent(utilisation),
        breakeven=percent(breakeven),
        bar=_bar(utilisation, breakeven),
        is_paying=None if breakeven is None or utilisation is None else utilisation >= breakeven,
        notes=_notes(line),
    )


def _bar(utilisation_ppm: int | None, breakeven_ppm: int | None) -> Bar | None:
    if utilisation_ppm is None:
        return None
    has_mark = breakeven_ppm is not None and breakeven_ppm <= 1_000_000
    return Bar(
        fill=_part(min(utilisation_ppm, 1_000_000)),
        mark=_part(breakeven_ppm) if has_mark and breakeven_ppm is not None else None,
    )


def _part(ppm: int) -> str:
    """A coordinate: with a point whatever the language."""
    return f"{ppm * BAR_WIDTH / 1_000_000:.2f}"


def _url(report: BusinessReport, line: BusinessLine) -> str:
    if line.key is None or report.group_by not in _PAGES:
        return ""
    name, argument = _PAGES[report.group_by]
    kind = "organization" if report.group_by == "tenant" else report.group_by
    return reverse(name, kwargs={argument: public_id(PREFIXES[kind], line.key)})


def _notes(line: BusinessLine) -> tuple[str, ...]:
    """Why a line has no margin."""
    notes, uncosted = foreign_notes(line.foreign), line.sums.uncosted_requests
    if uncosted:
        text = ngettext("no cost known of %(count)s request", "no cost known of %(count)s requests", uncosted)
        notes.append(text % {"count": count_text(uncosted)})
    return tuple(notes)


def foreign_notes(foreign: Iterable[Foreign]) -> list[str]:
    notes = []
    for one in foreign:
        if one.revenue_nanos:
            notes.append(_("earned %(amount)s") % {"amount": amount_text(one.revenue_nanos, one.currency)})
        if one.cost_nanos:
            notes.append(_("cost %(amount)s") % {"amount": amount_text(one.cost_nanos, one.currency)})
    return notes


def total_row(totals: Totals, wording: Wording) -> dict[str, object]:
    sums = totals.sums
    return {
        "requests": sums.requests,
        "prompt_tokens": sums.prompt_tokens,
        "cached_tokens": sums.cached_tokens,
        "completion_tokens": sums.completion_tokens,
        "revenue": wording.amount(sums.revenue_nanos),
        "granted": wording.amount(sums.granted_nanos),
        "overrun": wording.amount(sums.overrun_nanos),
        "sold": wording.amount(sums.cost_nanos),
        "idle": wording.amount(totals.idle_nanos),
        "unreserved": wording.amount(totals.unreserved_nanos),
        "all_idle": wording.amount(totals.idle_nanos + totals.unreserved_nanos),
        "idle_percent": percent(_share(totals.idle_nanos + totals.unreserved_nanos, totals.pool_cost_nanos)),
        "cost": wording.amount(totals.pool_cost_nanos),
        "margin": wording.amount(totals.margin_nanos),
        "margin_percent": percent(totals.margin_ppm),
        "is_loss": totals.margin_nanos is not None and totals.margin_nanos < 0,
        "goodwill": wording.amount(totals.goodwill_nanos),
        "fees": wording.amount(totals.fees_nanos),
        "uncosted_requests": sums.uncosted_requests,
        "foreign": foreign_notes(totals.foreign),
    }


def _share(part: int, whole: int) -> int | None:
    return part * 1_000_000 // whole if whole else None


def unreserved_rows(rows: Iterable[Unreserved], wording: Wording) -> list[tuple[str, SafeString | str]]:
    return [(one.code, wording.amount(one.cost_nanos)) for one in rows]
