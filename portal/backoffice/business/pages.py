"""The business: revenue, cost and margin of a period by model, organization, pool and backend, and as CSV."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, get_args
from urllib.parse import urlencode

from django.conf import settings
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from portal.backoffice.business.rows import Wording, line_rows, total_row, unreserved_rows
from portal.backoffice.pages import operator_page
from portal.kit.clock import utc_now
from portal.pages.charts import Chart, Series, Slot, paired_bars
from portal.pages.downloads import csv_download
from portal.pages.periods import Period, read_period
from portal.pages.tags import amount_text
from quotas.business.csv import iter_business_csv
from quotas.business.figures import BusinessSlot, GroupBy
from quotas.business.queries import business_currencies, business_report, business_slots, set_up

PRESETS: Final = {
    "today": gettext_lazy("Today"),
    "7d": gettext_lazy("Last 7 days"),
    "30d": gettext_lazy("Last 30 days"),
    "month": gettext_lazy("This month"),
    "last-month": gettext_lazy("Last month"),
    "custom": gettext_lazy("Days from … to …"),
}
GROUPS: Final = {
    "model": gettext_lazy("Models"),
    "tenant": gettext_lazy("Organizations"),
    "pool": gettext_lazy("Pools"),
    "backend": gettext_lazy("Backends"),
}
_SLOT_FORMATS: Final = {
    "hour": ("%H:%M", "%Y-%m-%d %H:%M UTC"),
    "day": ("%m-%d", "%Y-%m-%d"),
    "month": ("%Y-%m",) * 2,
}


@dataclass(frozen=True, slots=True)
class Chosen:
    """What the address asks for. currencies: what there is to choose from, with the chosen one."""

    period: Period
    group_by: GroupBy
    currency: str
    currencies: tuple[str, ...]

    @property
    def download_query(self) -> str:
        period = self.period
        days = {"from": period.first_day, "to": period.last_day} if period.name == "custom" else {}
        return urlencode({"period": period.name, **days, "currency": self.currency})


def read_chosen(request: HttpRequest) -> Chosen:
    """Unknown values count as not given: an old bookmark shows something, never an error."""
    query = request.GET
    period = read_period(query, now=utc_now(), default="7d", presets=PRESETS)
    found = business_currencies(from_=period.from_at, to=period.to_at)
    currencies = tuple(dict.fromkeys((*settings.CURRENCIES, *found)))
    wanted = query.get("currency", "")
    if wanted not in currencies:
        wanted = next((one for one in currencies if one in found), currencies[0])
    group_by: Any = query["by"] if query.get("by") in get_args(GroupBy) else "model"
    return Chosen(period, group_by, wanted, currencies)


@operator_page()
def business(request: HttpRequest) -> HttpResponse:
    """The page. A period that takes too long to sum says so."""
    context: dict[str, Any] = {"section": "business", "presets": PRESETS, "groups": GROUPS}
    try:
        chosen = read_chosen(request)
        context |= {"chosen": chosen, **_figures(chosen)}
    except OperationalError:
        context["has_failed"] = True
    return render(request, "backoffice/business/page.html", context)


def _figures(chosen: Chosen) -> dict[str, Any]:
    period = chosen.period
    report = business_report(
        from_=period.from_at, to=period.to_at, group_by=chosen.group_by, currency=chosen.currency
    )
    slots = business_slots(
        from_=period.from_at, to=period.to_at, currency=chosen.currency, bucket=period.bucket
    )
    wording = Wording(report)
    return {
        "set_up": set_up(),
        "report": report,
        "rows": line_rows(report, wording),
        "unreserved": unreserved_rows(report.unreserved, wording),
        "totals": total_row(report.totals, wording),
        "chart": _chart(slots, chosen),
        "others": [one for one in report.currencies if one != chosen.currency],
    }


def _chart(slots: tuple[BusinessSlot, ...], chosen: Chosen) -> Chart:
    short, exact = _SLOT_FORMATS[chosen.period.bucket]
    return paired_bars(
        chart_id="business",
        title=_("Revenue and cost"),
        slots=[Slot(f"{slot.start:{short}}", f"{slot.start:{exact}}") for slot in slots],
        pairs=[
            [Series(_("Revenue"), tuple(slot.revenue_nanos for slot in slots))],
            [
                Series(_("Cost of what was sold"), tuple(slot.cost_nanos for slot in slots)),
                Series(_("Idle capacity"), tuple(slot.idle_nanos for slot in slots)),
            ],
        ],
        wording=lambda nanos: amount_text(nanos, chosen.currency),
        slot_heading=_("Period (UTC)"),
    )


@operator_page()
def business_csv(request: HttpRequest) -> StreamingHttpResponse:
    """Hour by hour what the page sums up, in the chosen currency."""
    chosen = read_chosen(request)
    period = chosen.period
    pieces = iter_business_csv(from_=period.from_at, to=period.to_at, currency=chosen.currency)
    name = f"business-{chosen.currency}-{period.first_day}-{period.last_day}.csv"
    return csv_download(request, pieces, name)
