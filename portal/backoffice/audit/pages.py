"""The audit log: who did what to whom, when and why, and what was refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from django.http import HttpRequest, HttpResponse, QueryDict, StreamingHttpResponse

from portal.backoffice.audit.rows import shown_events
from portal.backoffice.pages import operator_page
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id
from portal.pages.access import optional_id
from portal.pages.answers import is_fragment, show
from portal.pages.downloads import csv_download
from quotas.csv_text import csv_text, moment, safe_text
from tenants.audit_queries import MAX_PAGE_ROWS, AuditFilter, AuditRow, audit_page, known_actions
from tenants.models import AuditOutcome
from tenants.scope import role_scope
from tenants.search import find_tenant

PAGE_ROWS: Final = 50
MAX_CSV_ROWS: Final = 100_000
CSV_COLUMNS: Final = (
    "at",
    "event",
    "outcome",
    "action",
    "actor_kind",
    "actor",
    "role",
    "management_key",
    "organization",
    "organization_name",
    "target",
    "reason",
    "before",
    "after",
)


@operator_page()
def audit(request: HttpRequest) -> HttpResponse:
    """The log, newest first. In the address: actor, action, organization, outcome, day, before."""
    filters = read_filters(request.GET)
    page = audit_page(
        filters=filters, before=optional_id("audit", request.GET.get("before", "")), limit=PAGE_ROWS
    )
    tenant = find_tenant(tenant_id=filters.tenant_id) if filters.tenant_id else None
    context: dict[str, Any] = {
        "section": "audit",
        "events": shown_events(page.rows),
        "next": public_id(PREFIXES["audit"], page.next) if page.next else "",
        "is_first": not request.GET.get("before"),
        "filters": _chosen(request.GET),
        "is_filtered": filters != AuditFilter(),
        "actions": known_actions(),
        "tenant": tenant,
        "download_query": _without_page(request.GET),
    }
    if is_fragment(request) and request.headers.get("HX-Target") == "audit-rows":
        return show(request, "backoffice/audit/_rows.html", context)
    return show(request, "backoffice/audit/list.html", context)


@operator_page()
def audit_csv(request: HttpRequest) -> StreamingHttpResponse:
    """What the page's filters leave, at most MAX_CSV_ROWS."""
    return csv_download(request, _csv(read_filters(request.GET)), f"audit-{utc_now():%Y-%m-%d}.csv")


def read_filters(query: QueryDict) -> AuditFilter:
    """Unknown values count as not given: an old bookmark shows more, never an error."""
    day = _day(query.get("day", ""))
    outcome = query.get("outcome", "")
    action = query.get("action", "")[:64]
    return AuditFilter(
        tenant_id=optional_id("organization", query.get("organization", "").strip()),
        actor_email=_text(query.get("actor", "")),
        action=_text(action),
        outcome=AuditOutcome(outcome) if outcome in AuditOutcome.values else None,
        from_at=day,
        to_at=day + timedelta(days=1) if day else None,
    )


def _csv(filters: AuditFilter) -> Iterator[str]:
    """Read while it is sent, so each piece opens its own scope and no transaction stays open."""
    yield csv_text([CSV_COLUMNS])
    before, written = None, 0
    while written < MAX_CSV_ROWS:
        with role_scope("operator"):
            page = audit_page(filters=filters, before=before, limit=MAX_PAGE_ROWS)
        if page.rows:
            yield csv_text(_csv_row(row) for row in page.rows)
        written, before = written + len(page.rows), page.next
        if before is None:
            return


def _csv_row(row: AuditRow) -> tuple[str, ...]:
    return (
        moment(row.at),
        row.public_id,
        row.outcome.value,
        row.action,
        row.actor_kind.value,
        safe_text(row.actor_email),
        row.actor_role,
        public_id(PREFIXES["management_key"], row.key_id) if row.key_id else "",
        row.organization_id,
        safe_text(row.organization),
        safe_text(row.target),
        safe_text(row.reason),
        _json(row.before),
        _json(row.after),
    )


def _json(values: Any) -> str:
    return "" if values is None else json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def _chosen(query: QueryDict) -> dict[str, str]:
    return {name: query.get(name, "")[:200] for name in ("actor", "action", "organization", "outcome", "day")}


def _without_page(query: QueryDict) -> str:
    kept = query.copy()
    kept.pop("before", None)
    return kept.urlencode()


def _text(text: str) -> str:
    # No stored text holds a NUL.
    return "" if "\0" in text else text.strip()[:254]


def _day(text: str) -> datetime | None:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    # Ids hold moments from 1970 on; nothing was done before this log began.
    return datetime.combine(day, time(), UTC) if 2020 <= day.year <= 9000 else None
