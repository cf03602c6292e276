"""The statement of account: opening, every transfer with the balance behind it, closing. It adds up."""

from __future__ import annotations

from typing import Any

from django.core import signing
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.utils.dateparse import parse_datetime

from portal.console import words
from portal.console.downloads import csv_download
from portal.console.periods import PRESETS, read_period
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id
from portal.pages.access import Organization, organization_page, parse_id
from quotas.ledger.queries import StatementCursor, StatementRow, statement_page, wallet_balance
from quotas.ledger.statement_csv import iter_statement_csv
from quotas.models import TransferKind
from tenants.permissions import Permission

PAGE_ROWS = 50
_SALT = "console.statement"


@organization_page(Permission.SEE_BILLING)
def statement(request: HttpRequest, organization: Organization) -> HttpResponse:
    """A page of it. The first one adds the period up; those behind it begin where the one before ended."""
    period = read_period(request.GET, now=utc_now(), default="month")
    kinds = _kinds(request)
    after = _read_cursor(request.GET.get("after", ""), organization)
    tenant_id = organization.tenant_id
    page = statement_page(
        tenant_id=tenant_id,
        from_at=period.from_at,
        to_at=period.to_at,
        kinds=kinds,
        after=after,
        limit=PAGE_ROWS,
    )
    # The pages behind the first one say the sums of the period as well.
    summary = (
        page.summary
        or statement_page(tenant_id=tenant_id, from_at=period.from_at, to_at=period.to_at, limit=1).summary
    )
    assert summary is not None
    context = {
        "section": "statement",
        "period": period,
        "presets": PRESETS,
        "kinds": [(kind.value, words.TRANSFER_KINDS[kind]) for kind in TransferKind],
        "chosen_kind": kinds[0] if kinds else "",
        "summary": summary,
        "sums": [(words.TRANSFER_KINDS[TransferKind(one.kind)], one) for one in summary.kinds],
        "rows": [(words.TRANSFER_KINDS[TransferKind(row.kind)], row, _reference(row)) for row in page.rows],
        "next": _write_cursor(page.next, organization) if page.next else "",
        "is_first": after is None,
        "wallet": wallet_balance(tenant_id=tenant_id),
        "opening_nanos": summary.opening.total_nanos,
        "closing_nanos": summary.closing.total_nanos,
    }
    return render(request, "console/statement/page.html", context)


@organization_page(Permission.SEE_BILLING)
def statement_csv(request: HttpRequest, organization: Organization) -> StreamingHttpResponse:
    """All of the period."""
    period = read_period(request.GET, now=utc_now(), default="month")
    rows = iter_statement_csv(
        tenant_id=organization.tenant_id, from_at=period.from_at, to_at=period.to_at, kinds=_kinds(request)
    )
    return csv_download(request, rows, f"statement-{period.first_day}-{period.last_day}.csv")


def _kinds(request: HttpRequest) -> tuple[str, ...]:
    chosen = request.GET.get("kind", "")
    return (chosen,) if chosen in TransferKind.values else ()


def _reference(row: StatementRow) -> dict[str, str]:
    return {
        "transaction": public_id(PREFIXES["transfer"], row.transfer_id),
        "request": public_id(PREFIXES["request"], row.request_id) if row.request_id else "",
    }


# A cursor carries a balance, which is believed: so it is signed, for this organization.


def _write_cursor(cursor: StatementCursor, organization: Organization) -> str:
    value = [
        organization.public_id,
        cursor.posted_at.isoformat(),
        public_id(PREFIXES["transfer"], cursor.transfer_id),
        cursor.balance_nanos,
    ]
    return signing.dumps(value, salt=_SALT, compress=True)


def _read_cursor(text: str, organization: Organization) -> StatementCursor | None:
    """None without one. Raises Http404 for one that is not ours or of another organization."""
    if not text:
        return None
    try:
        whose, posted_at, transfer, balance_nanos = _loads(text)
    except signing.BadSignature:
        raise Http404 from None
    moment = parse_datetime(posted_at)
    if whose != organization.public_id or moment is None:
        raise Http404
    return StatementCursor(moment, parse_id("transfer", transfer), balance_nanos)


def _loads(text: str) -> Any:
    return signing.loads(text, salt=_SALT)
