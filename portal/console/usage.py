"""Usage: a chart with its table, the calls behind it, each call's receipt, and all of it as CSV."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext_lazy

from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id
from portal.pages.access import Organization, optional_id, organization_page, parse_id
from portal.pages.call_rows import call_rows, key_name
from portal.pages.charts import Chart, Series, Slot, stacked_bars
from portal.pages.downloads import csv_download
from portal.pages.periods import PRESETS, Period, read_period
from portal.pages.receipts import receipt_context
from portal.pages.tags import amount_text, count_text
from quotas.metering.queries import (
    RequestFilter,
    RequestNotFound,
    Sums,
    UsageTotals,
    iter_requests_csv,
    iter_usage_csv,
    list_requests,
    request_receipt,
    usage_totals,
)
from quotas.metering.queries.usage import Group
from tenants.models import KeyPurpose
from tenants.permissions import Permission
from tenants.queries import list_api_keys

PAGE_ROWS: Final = 50
MEASURES: Final = {
    "cost": gettext_lazy("Cost"),
    "tokens": gettext_lazy("Tokens"),
    "requests": pgettext_lazy("number", "Requests"),
}
GROUPS: Final = {"model": gettext_lazy("Model"), "api_key": gettext_lazy("API key")}


@dataclass(frozen=True, slots=True)
class Filters:
    """What the address asks for. key_ids and slugs: empty means all. measure: of the chart."""

    period: Period
    slugs: tuple[str, ...]
    key_ids: tuple[UUID, ...]
    measure: str
    group_by: str
    before: UUID | None

    @property
    def is_narrowed(self) -> bool:
        return bool(self.slugs or self.key_ids)


def read_filters(request: HttpRequest) -> Filters:
    """Unknown values count as not given: an old bookmark shows more, never an error."""
    query = request.GET
    key = optional_id("api_key", query.get("key", ""))
    return Filters(
        period=read_period(query, now=utc_now(), default="30d"),
        # No stored text holds a NUL, so no model is called so.
        slugs=(query["model"],) if query.get("model") and "\0" not in query["model"] else (),
        key_ids=(key,) if key else (),
        measure=query["show"] if query.get("show") in MEASURES else "cost",
        group_by=query["by"] if query.get("by") in GROUPS else "model",
        before=optional_id("request", query.get("before", "")),
    )


@organization_page(Permission.SEE_USAGE)
def usage(request: HttpRequest, organization: Organization) -> HttpResponse:
    """The page; with ?before=… the calls further back."""
    filters = read_filters(request)
    tenant_id = organization.tenant_id
    totals = usage_totals(
        tenant_id=tenant_id,
        from_at=filters.period.from_at,
        to_at=filters.period.to_at,
        bucket=filters.period.bucket,
        group_by=filters.group_by,  # type: ignore[arg-type]
        models=filters.slugs,
        api_keys=filters.key_ids,
    )
    calls = list_requests(
        tenant_id=tenant_id, filters=_request_filter(filters), before=filters.before, limit=PAGE_ROWS
    )
    return render(
        request,
        "console/usage/page.html",
        {
            "section": "usage",
            "filters": filters,
            "totals": totals,
            "groups": [(_group_name(group, filters.group_by), sums) for group, sums in totals.groups],
            "chart": _chart(totals, filters, organization.currency),
            "calls": call_rows(calls.rows),
            "next": public_id(PREFIXES["request"], calls.next) if calls.next else "",
            "presets": PRESETS,
            "measures": MEASURES,
            "group_names": GROUPS,
            "download_query": _download_query(filters),
            **_choices(tenant_id, filters),
        },
    )


def _choices(tenant_id: UUID, filters: Filters) -> dict[str, Any]:
    """What the period's filters offer: the models and keys that were used, and those already chosen."""
    period = {
        "from_at": filters.period.from_at,
        "to_at": filters.period.to_at,
        "bucket": filters.period.bucket,
    }
    used = usage_totals(tenant_id=tenant_id, group_by="model", **period)  # type: ignore[arg-type]
    slugs = {group.model.slug for group, _sums in used.groups if group.model} | set(filters.slugs)
    keys = list_api_keys(tenant_id=tenant_id, now=utc_now(), with_playground=True)
    return {
        "model_choices": sorted(slugs),
        "key_choices": [
            (
                key.public_id,
                _("Playground") if key.purpose == KeyPurpose.PLAYGROUND else f"{key.name} ({key.masked})",
            )
            for key in keys
        ],
        "chosen_key": public_id(PREFIXES["api_key"], filters.key_ids[0]) if filters.key_ids else "",
    }


def _request_filter(filters: Filters) -> RequestFilter:
    return RequestFilter(filters.period.from_at, filters.period.to_at, filters.slugs, filters.key_ids)


def _download_query(filters: Filters) -> str:
    chosen = {"period": "custom", "from": filters.period.first_day, "to": filters.period.last_day}
    if filters.period.name != "custom":
        chosen = {"period": filters.period.name}
    if filters.slugs:
        chosen["model"] = filters.slugs[0]
    if filters.key_ids:
        chosen["key"] = public_id(PREFIXES["api_key"], filters.key_ids[0])
    return urlencode(chosen)


def _group_name(group: Group, group_by: str) -> str:
    if group.model:
        return group.model.slug
    if group.key:
        name = key_name(group.key)
        return name if group.key.is_playground else f"{name} …{group.key.hint}"
    return _("Other")


def _chart(totals: UsageTotals, filters: Filters, currency: str) -> Chart:
    value: Callable[[Sums], int] = {
        "cost": lambda sums: sums.charged_nanos,
        "tokens": lambda sums: sums.prompt_tokens + sums.completion_tokens,
        "requests": lambda sums: sums.requests,
    }[filters.measure]
    form = {"hour": "%H:%M", "day": "%m-%d", "month": "%Y-%m"}[totals.bucket]
    exact = {"hour": "%Y-%m-%d %H:%M UTC", "day": "%Y-%m-%d", "month": "%Y-%m"}[totals.bucket]
    return stacked_bars(
        chart_id="usage",
        title=str(MEASURES[filters.measure]),
        slots=[Slot(f"{start:{form}}", f"{start:{exact}}") for start in totals.starts],
        series=[
            Series(_group_name(one.group, filters.group_by), tuple(value(sums) for sums in one.buckets))
            for one in totals.series
        ],
        wording=((lambda nanos: amount_text(nanos, currency)) if filters.measure == "cost" else count_text),
        slot_heading=_("Period (UTC)"),
    )


@organization_page(Permission.SEE_USAGE)
def usage_csv(request: HttpRequest, organization: Organization) -> StreamingHttpResponse:
    """The hourly sums of the page's filter."""
    filters = read_filters(request)
    rows = iter_usage_csv(
        tenant_id=organization.tenant_id,
        from_at=filters.period.from_at,
        to_at=filters.period.to_at,
        models=filters.slugs,
        api_keys=filters.key_ids,
    )
    return csv_download(request, rows, f"usage-{filters.period.first_day}-{filters.period.last_day}.csv")


@organization_page(Permission.SEE_USAGE)
def requests_csv(request: HttpRequest, organization: Organization) -> StreamingHttpResponse:
    """Every call of the page's filter."""
    filters = read_filters(request)
    rows = iter_requests_csv(tenant_id=organization.tenant_id, filters=_request_filter(filters))
    return csv_download(request, rows, f"requests-{filters.period.first_day}-{filters.period.last_day}.csv")


@organization_page(Permission.SEE_USAGE)
def receipt(request: HttpRequest, organization: Organization, request_id: str) -> HttpResponse:
    """What explains one charge: tokens × price, the tries, and who witnessed it."""
    try:
        found = request_receipt(tenant_id=organization.tenant_id, request_id=parse_id("request", request_id))
    except RequestNotFound:
        raise Http404 from None
    context = {"section": "usage", **receipt_context(found)}
    return render(request, "console/usage/receipt.html", context)
