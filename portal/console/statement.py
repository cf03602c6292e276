"""The statement of account: opening, every transfer with the balance behind it, closing. It adds up."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from uuid import UUID

import msgspec
from django.core import signing
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.utils.translation import get_language

from portal.console.billing.statement_pdf import StatementHead, iter_statement_pdf
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id
from portal.pages import words
from portal.pages.access import Organization, organization_page
from portal.pages.downloads import csv_download, file_download
from portal.pages.periods import PRESETS, Period, read_period
from portal.pages.receipts import correction_text
from quotas.ledger.lots import expiring_credit
from quotas.ledger.queries import (
    StatementCursor,
    StatementPage,
    StatementRow,
    statement_page,
    wallet_balance,
)
from quotas.ledger.statement_csv import iter_statement_csv
from quotas.models import TransferKind
from tenants.permissions import Permission

PAGE_ROWS = 50
_SALT = "console.statement"


class PeriodSums(msgspec.Struct, frozen=True, array_like=True):
    """A period added up, as its first page says it and the pages behind repeat it. Amounts in nano-units.

    kinds: kind, number of transfers, what they did to the balance.
    """

    from_at: datetime
    to_at: datetime
    currency: str
    opening_nanos: int
    closing_nanos: int
    kinds: tuple[tuple[str, int, int], ...]


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where the next page begins. What it carries is believed, so it is signed, for one organization."""

    organization: str
    posted_at: datetime
    transfer_id: UUID
    balance_nanos: int
    sums: PeriodSums


@organization_page(Permission.SEE_BILLING)
def statement(request: HttpRequest, organization: Organization) -> HttpResponse:
    """A page of it. The first one adds the period up; those behind it begin where the one before ended."""
    period = read_period(request.GET, now=utc_now(), default="month")
    kinds = _kinds(request)
    place = _read_place(request.GET.get("after", ""), organization)
    if place is not None:
        # The hours of a moving period must not move between its pages.
        period = replace(period, from_at=place.sums.from_at, to_at=place.sums.to_at)
    tenant_id = organization.tenant_id
    page = statement_page(
        tenant_id=tenant_id,
        from_at=period.from_at,
        to_at=period.to_at,
        kinds=kinds,
        after=StatementCursor(place.posted_at, place.transfer_id, place.balance_nanos) if place else None,
        limit=PAGE_ROWS,
    )
    sums = place.sums if place else _sums(page, period)
    context = {
        "section": "billing",
        "period": period,
        "presets": PRESETS,
        "kinds": [(kind.value, words.TRANSFER_KINDS[kind]) for kind in words.TENANT_TRANSFERS],
        "chosen_kind": kinds[0] if kinds else "",
        "summary": sums,
        "sums": [(words.TRANSFER_KINDS[TransferKind(kind)], *rest) for kind, *rest in sums.kinds],
        "rows": [(words.TRANSFER_KINDS[TransferKind(row.kind)], row, _reference(row)) for row in page.rows],
        "next": _write_place(page.next, sums, organization) if page.next else "",
        "is_first": place is None,
        "wallet": wallet_balance(tenant_id=tenant_id),
        "expiring": expiring_credit(tenant_id=tenant_id),
    }
    return render(request, "console/statement/page.html", context)


def _sums(page: StatementPage, period: Period) -> PeriodSums:
    summary = page.summary
    assert summary is not None
    kinds = tuple((one.kind, one.transfers, one.amount_nanos) for one in summary.kinds)
    opening, closing = summary.opening.total_nanos, summary.closing.total_nanos
    return PeriodSums(period.from_at, period.to_at, summary.currency, opening, closing, kinds)


@organization_page(Permission.SEE_BILLING)
def statement_csv(request: HttpRequest, organization: Organization) -> StreamingHttpResponse:
    """All of the period."""
    period = read_period(request.GET, now=utc_now(), default="month")
    rows = iter_statement_csv(
        tenant_id=organization.tenant_id, from_at=period.from_at, to_at=period.to_at, kinds=_kinds(request)
    )
    return csv_download(request, rows, f"statement-{period.first_day}-{period.last_day}.csv")


@organization_page(Permission.SEE_BILLING)
def statement_pdf(request: HttpRequest, organization: Organization) -> StreamingHttpResponse:
    """The period for the files: sums, and as many transactions as a file holds."""
    now = utc_now()
    period = read_period(request.GET, now=now, default="month")
    head = StatementHead(
        organization=organization.name,
        organization_id=organization.public_id,
        first_day=period.first_day,
        last_day=period.last_day,
        issued_at=now,
        language=get_language() or "en",
    )
    pieces = iter_statement_pdf(
        tenant_id=organization.tenant_id,
        head=head,
        from_at=period.from_at,
        to_at=period.to_at,
        kinds=_kinds(request),
    )
    filename = f"statement-{period.first_day}-{period.last_day}.pdf"
    return file_download(request, pieces, filename, content_type="application/pdf")


def _kinds(request: HttpRequest) -> tuple[str, ...]:
    chosen = request.GET.get("kind", "")
    return (chosen,) if chosen in words.TENANT_TRANSFERS else ()


def _reference(row: StatementRow) -> dict[str, str]:
    return {
        "transaction": public_id(PREFIXES["transfer"], row.transfer_id),
        "request": public_id(PREFIXES["request"], row.request_id) if row.request_id else "",
        "reason": words.statement_text(row.reason),
        "correction": correction_text(row.cause),
    }


def _write_place(cursor: StatementCursor, sums: PeriodSums, organization: Organization) -> str:
    place = Place(organization.public_id, cursor.posted_at, cursor.transfer_id, cursor.balance_nanos, sums)
    return signing.dumps(msgspec.to_builtins(place), salt=_SALT, compress=True)


def _read_place(text: str, organization: Organization) -> Place | None:
    """None without one. Raises Http404 for one that is not ours or of another organization."""
    if not text:
        return None
    try:
        place = msgspec.convert(signing.loads(text, salt=_SALT), Place)
    except (signing.BadSignature, msgspec.ValidationError):
        raise Http404 from None
    if place.organization != organization.public_id:
        raise Http404
    return place
