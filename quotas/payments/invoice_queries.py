"""Reads of invoices on request: what can be invoiced, what was, and the documents."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from uuid import UUID

from django.db import connections
from django.db.models import F, OuterRef, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce

from portal.kit.ids import PREFIXES, public_id
from portal.kit.money import from_minor_units
from quotas.models import DocumentKind, InvoiceDocument, InvoiceLine, InvoiceRequest, InvoiceState, Wallet
from quotas.payments.billing_profiles import ProfileFacts
from tenants.models import User
from tenants.scope import scope_alias

MAX_ROWS: Final = 200
# What was consumed longer ago than these stands in the line of the oldest of them.
MAX_LINES: Final = 24


@dataclass(frozen=True, slots=True)
class Invoiceable:
    """What an invoice may cover, in nano-units of `currency`.

    consumed_nanos: paid credit that was consumed until the moment that was asked about. by_stripe_nanos: what
    is invoiced at Stripe, consumed or not. on_request_nanos: by invoices that were requested or issued.
    """

    currency: str
    consumed_nanos: int
    by_stripe_nanos: int
    on_request_nanos: int

    @property
    def amount_nanos(self) -> int:
        """The rest in whole minor units, never negative."""
        rest_nanos = max(0, self.consumed_nanos - self.by_stripe_nanos - self.on_request_nanos)
        return rest_nanos - rest_nanos % from_minor_units(1, self.currency)


@dataclass(frozen=True, slots=True)
class Line:
    """What was consumed in a month (its first day), in nano-units."""

    month: date
    amount_nanos: int


@dataclass(frozen=True, slots=True)
class DocumentRow:
    """A PDF, without its content."""

    id: UUID
    kind: DocumentKind
    size_bytes: int

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["invoice_document"], self.id)


@dataclass(frozen=True, slots=True)
class InvoiceRow:
    """An invoice, in nano-units of `currency`, net of tax. profile: as it was when it was requested.

    requested_by_email: empty when that person has left. number: empty before it is issued.
    """

    id: UUID
    tenant_id: UUID
    organization: str
    currency: str
    amount_nanos: int
    to_at: datetime
    profile: ProfileFacts
    requested_by_email: str
    requested_at: datetime
    state: InvoiceState
    number: str
    decided_at: datetime | None
    decision_reason: str
    credit_number: str
    credited_at: datetime | None
    credit_reason: str
    lines: tuple[Line, ...]
    documents: tuple[DocumentRow, ...]

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["invoice"], self.id)

    @property
    def organization_id(self) -> str:
        return public_id(PREFIXES["organization"], self.tenant_id)

    @property
    def is_requested(self) -> bool:
        return self.state == InvoiceState.REQUESTED

    @property
    def is_issued(self) -> bool:
        return self.state == InvoiceState.ISSUED


@dataclass(frozen=True, slots=True)
class InvoicePage:
    """Invoices, newest first; `next` is what `before` takes for the page behind this one."""

    rows: tuple[InvoiceRow, ...]
    next: UUID | None


@dataclass(frozen=True, slots=True)
class Document:
    """A PDF with its content. number: of the invoice or the credit note."""

    number: str
    content: bytes


def invoiceable(*, tenant_id: UUID, to_at: datetime | None = None) -> Invoiceable | None:
    """What an invoice over everything that was consumed before `to_at` may cover; without one, until now.
    None without a wallet. All of it is read at one moment."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            "SELECT currency, quotas_paid_consumption(tenant_id, %s), quotas_invoiced_by_stripe(tenant_id), "
            "quotas_invoiced_on_request(tenant_id) FROM quotas_wallet WHERE tenant_id = %s",
            [to_at, tenant_id],
        )
        row = cursor.fetchone()
    return Invoiceable(*row) if row else None


def split_by_month(*, tenant_id: UUID, amount_nanos: int, to_at: datetime) -> list[Line]:
    """The months in which an amount was consumed, counted back from `to_at`: the newest consumption is what
    no invoice covers. Whole minor units that add up to the amount; oldest first."""
    currency = Wallet.objects.values_list("currency", flat=True).get(tenant_id=tenant_id)
    minor_nanos = from_minor_units(1, currency)
    lines: list[Line] = []
    end, left_nanos = to_at, amount_nanos
    while left_nanos:
        # A moment before the end, because an end may be the first moment of a month.
        month = (end - timedelta(microseconds=1)).astimezone(UTC).date().replace(day=1)
        start = datetime.combine(month, time(), tzinfo=UTC)
        used_nanos = _paid_usage(tenant_id, start, end)
        part_nanos = min(left_nanos, max(0, used_nanos - used_nanos % minor_nanos))
        is_last = len(lines) == MAX_LINES - 1 or not _has_usage_before(tenant_id, start)
        if is_last:
            part_nanos = left_nanos
        if part_nanos:
            lines.append(Line(month, part_nanos))
        end, left_nanos = start, left_nanos - part_nanos
    return lines[::-1]


def find_invoice(*, invoice_id: UUID) -> InvoiceRow | None:
    """One invoice of those that the scope may see, or None."""
    return next(iter(_rows(InvoiceRequest.objects.filter(id=invoice_id))), None)


def list_invoices(
    *, tenant_id: UUID | None = None, before: UUID | None = None, limit: int = 50
) -> InvoicePage:
    """A page of invoices, newest first, of one organization or of all. limit: 1 to MAX_ROWS."""
    invoices = InvoiceRequest.objects.all()
    if tenant_id is not None:
        invoices = invoices.filter(tenant_id=tenant_id)
    if before is not None:
        invoices = invoices.filter(id__lt=before)
    limit = max(1, min(limit, MAX_ROWS))
    rows = _rows(invoices.order_by("-id")[: limit + 1])
    return InvoicePage(tuple(rows[:limit]), rows[limit - 1].id if len(rows) > limit else None)


def waiting_invoices() -> list[InvoiceRow]:
    """Those that nobody has issued yet, oldest first, at most MAX_ROWS. As operator."""
    waiting = InvoiceRequest.objects.filter(state=InvoiceState.REQUESTED)
    return _rows(waiting.order_by("requested_at")[:MAX_ROWS])


def find_document(*, document_id: UUID) -> Document | None:
    """A PDF of those that the scope may see, or None."""
    found = InvoiceDocument.objects.select_related("invoice").filter(id=document_id).first()
    if found is None:
        return None
    is_invoice = found.kind == DocumentKind.INVOICE
    number = found.invoice.number if is_invoice else found.invoice.credit_number
    return Document(number or "", bytes(found.content))


def _paid_usage(tenant_id: UUID, from_at: datetime, to_at: datetime) -> int:
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute("SELECT quotas_paid_usage(%s, %s, %s)", [tenant_id, from_at, to_at])
        return int(cursor.fetchone()[0])


def _has_usage_before(tenant_id: UUID, moment: datetime) -> bool:
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT 1 FROM quotas_ledgertransfer WHERE tenant_id = %s AND posted_at < %s "
            "AND kind = 'USAGE')",
            [tenant_id, moment],
        )
        return bool(cursor.fetchone()[0])


def _rows(invoices: QuerySet[InvoiceRequest]) -> list[InvoiceRow]:
    # A join would hide what somebody requested who has left the organization since.
    email = Subquery(User.objects.filter(id=OuterRef("requested_by_id")).values("email"))
    found = list(
        invoices.annotate(organization=F("tenant__name"), requested_by_email=Coalesce(email, Value("")))
    )
    ids = [one.id for one in found]
    lines, documents = _lines_of(ids), _documents_of(ids)
    return [
        InvoiceRow(
            id=one.id,
            tenant_id=one.tenant_id,
            organization=one.organization,
            currency=one.currency,
            amount_nanos=one.amount_nanos,
            to_at=one.to_at,
            profile=ProfileFacts(one.legal_name, one.tax_id, one.address, one.bank_details),
            requested_by_email=one.requested_by_email,
            requested_at=one.requested_at,
            state=InvoiceState(one.state),
            number=one.number or "",
            decided_at=one.decided_at,
            decision_reason=one.decision_reason,
            credit_number=one.credit_number or "",
            credited_at=one.credited_at,
            credit_reason=one.credit_reason,
            lines=tuple(lines.get(one.id, ())),
            documents=tuple(documents.get(one.id, ())),
        )
        for one in found
    ]


def _lines_of(invoice_ids: Iterable[UUID]) -> dict[UUID, list[Line]]:
    lines: dict[UUID, list[Line]] = {}
    for line in InvoiceLine.objects.filter(invoice_id__in=invoice_ids).order_by("month"):
        lines.setdefault(line.invoice_id, []).append(Line(line.month, line.amount_nanos))
    return lines


def _documents_of(invoice_ids: Iterable[UUID]) -> dict[UUID, list[DocumentRow]]:
    documents: dict[UUID, list[DocumentRow]] = {}
    found = InvoiceDocument.objects.filter(invoice_id__in=invoice_ids).order_by("created_at")
    for invoice_id, document_id, kind, size_bytes in found.values_list(
        "invoice_id", "id", "kind", "size_bytes"
    ):
        documents.setdefault(invoice_id, []).append(DocumentRow(document_id, DocumentKind(kind), size_bytes))
    return documents
