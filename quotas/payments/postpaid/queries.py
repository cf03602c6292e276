"""Reads of monthly invoices, for the organization's pages and the operators'."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Final
from uuid import UUID

from django.db.models import F, Q, QuerySet

from portal.kit.ids import PREFIXES, public_id
from quotas.metering.usage_lines import Coverage, CoveredCall, covered_calls
from quotas.models import (
    OWED_INVOICE_STATES,
    CreditNote,
    CreditNoteState,
    DunningState,
    MonthlyInvoice,
    MonthlyInvoiceLine,
    MonthlyInvoiceState,
    MonthlyLineKind,
    PostpaidAgreement,
    Wallet,
)
from quotas.payments.postpaid.credit_notes import is_correctable, left_to_credit

MAX_ROWS: Final = 200
MAX_CALLS: Final = 200


@dataclass(frozen=True, slots=True)
class LineRow:
    """A line; amounts in nano-units. model: its name; empty for lines that are no usage."""

    kind: MonthlyLineKind
    model_id: UUID | None
    model: str
    token_class: str
    units: int
    cost_nanos: int
    free_nanos: int
    amount_nanos: int


@dataclass(frozen=True, slots=True)
class CreditNoteRow:
    """amount_nanos: net of tax. failure_text: what Stripe said when it refused."""

    id: UUID
    amount_nanos: int
    is_after_payment: bool
    reason: str
    state: CreditNoteState
    number: str
    pdf_url: str
    failure_text: str
    ordered_at: datetime

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["credit_note"], self.id)


@dataclass(frozen=True, slots=True)
class InvoiceRow:
    """A monthly invoice, in nano-units of `currency`, net of tax. month: its first day.

    due_nanos: what was owed; amount_nanos of it was asked for. failure_text: for operators.
    """

    id: UUID
    tenant_id: UUID
    organization: str
    currency: str
    month: date
    from_at: datetime
    to_at: datetime
    usage_nanos: int
    due_nanos: int
    amount_nanos: int
    credited_nanos: int
    state: MonthlyInvoiceState
    dunning: DunningState
    reminders: int
    number: str
    pay_url: str
    pdf_url: str
    failure_text: str
    created_at: datetime
    due_at: datetime | None
    ended_at: datetime | None
    stripe_invoice_id: str
    top_up_id: UUID | None

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["monthly_invoice"], self.id)

    @property
    def organization_id(self) -> str:
        return public_id(PREFIXES["organization"], self.tenant_id)

    @property
    def top_up_public_id(self) -> str:
        return public_id(PREFIXES["top_up"], self.top_up_id) if self.top_up_id else ""

    @property
    def payable_nanos(self) -> int:
        return self.amount_nanos - self.credited_nanos

    @property
    def is_owed(self) -> bool:
        return self.state in OWED_INVOICE_STATES


@dataclass(frozen=True, slots=True)
class InvoiceDetail:
    """left_nanos: what of it no credit note takes back; is_correctable: whether one can be ordered."""

    row: InvoiceRow
    lines: tuple[LineRow, ...]
    credit_notes: tuple[CreditNoteRow, ...]
    left_nanos: int
    is_correctable: bool


@dataclass(frozen=True, slots=True)
class InvoicePage:
    """Invoices, newest first; `next` is what `before` takes for the page behind this one."""

    rows: tuple[InvoiceRow, ...]
    next: UUID | None


@dataclass(frozen=True, slots=True)
class AgreementRow:
    """An organization that has a credit line or an agreement. since: None when it never had an agreement."""

    tenant_id: UUID
    organization: str
    currency: str
    overdraft_nanos: int
    paid_nanos: int
    is_on: bool
    since: datetime | None
    days_until_due: int | None

    @property
    def organization_id(self) -> str:
        return public_id(PREFIXES["organization"], self.tenant_id)


def is_postpaid(*, tenant_id: UUID) -> bool:
    """Whether the organization is invoiced monthly, or was."""
    return PostpaidAgreement.objects.filter(tenant_id=tenant_id).exists()


def list_agreements(*, limit: int = MAX_ROWS) -> list[AgreementRow]:
    """Those who pay afterwards or could, by name. As operator."""
    agreements = {one.tenant_id: one for one in PostpaidAgreement.objects.all()[: limit * 10]}
    wallets = Wallet.objects.filter(Q(overdraft_nanos__gt=0) | Q(tenant_id__in=list(agreements)))
    found = wallets.annotate(organization=F("tenant__name")).order_by("tenant__name", "tenant_id")
    return [_agreement(wallet, agreements.get(wallet.tenant_id)) for wallet in found[:limit]]


def find_agreement(*, tenant_id: UUID) -> AgreementRow | None:
    """Of one organization; None without a wallet. As operator."""
    wallet = Wallet.objects.filter(tenant_id=tenant_id).annotate(organization=F("tenant__name")).first()
    if wallet is None:
        return None
    return _agreement(wallet, PostpaidAgreement.objects.filter(tenant_id=tenant_id).first())


def _agreement(wallet: Wallet, agreement: PostpaidAgreement | None) -> AgreementRow:
    return AgreementRow(
        tenant_id=wallet.tenant_id,
        organization=wallet.organization,  # type: ignore[attr-defined]
        currency=wallet.currency,
        overdraft_nanos=wallet.overdraft_nanos,
        paid_nanos=wallet.paid_nanos,
        is_on=agreement is not None and agreement.is_on,
        since=agreement.since if agreement else None,
        days_until_due=agreement.days_until_due if agreement else None,
    )


def list_invoices(
    *,
    tenant_id: UUID | None = None,
    state: MonthlyInvoiceState | None = None,
    before: UUID | None = None,
    limit: int = 50,
) -> InvoicePage:
    """A page of invoices, of one organization or of all. limit: 1 to MAX_ROWS."""
    invoices = MonthlyInvoice.objects.all()
    if tenant_id is not None:
        invoices = invoices.filter(tenant_id=tenant_id)
    if state is not None:
        invoices = invoices.filter(state=state)
    if before is not None:
        invoices = invoices.filter(id__lt=before)
    limit = max(1, min(limit, MAX_ROWS))
    rows = _rows(invoices.order_by("-id")[: limit + 1])
    return InvoicePage(tuple(rows[:limit]), rows[limit - 1].id if len(rows) > limit else None)


def find_invoice(*, invoice_id: UUID, tenant_id: UUID | None = None) -> InvoiceDetail | None:
    """One with its lines and credit notes, of those that the scope may see; None when there is none."""
    invoices = MonthlyInvoice.objects.filter(id=invoice_id)
    if tenant_id is not None:
        invoices = invoices.filter(tenant_id=tenant_id)
    invoice = invoices.select_related("top_up").annotate(organization=F("tenant__name")).first()
    if invoice is None:
        return None
    lines = MonthlyInvoiceLine.objects.filter(invoice_id=invoice_id).select_related("model")
    notes = CreditNote.objects.filter(invoice_id=invoice_id).order_by("id")
    return InvoiceDetail(
        _row(invoice),
        tuple(_line(line) for line in lines.order_by("position")),
        tuple(_note(note) for note in notes),
        left_to_credit(invoice),
        is_correctable(invoice),
    )


def calls_of(
    *, invoice_id: UUID, model_id: UUID, after: UUID | None = None, limit: int = MAX_CALLS
) -> list[CoveredCall]:
    """The usage rows that the lines of one model come from. As find_invoice; empty where it finds nothing."""
    invoice = MonthlyInvoice.objects.filter(id=invoice_id).first()
    if invoice is None:
        return []
    agreement = PostpaidAgreement.objects.get(tenant_id=invoice.tenant_id)
    coverage = Coverage(agreement.since, invoice.from_at, invoice.from_cut_at, invoice.to_at, invoice.cut_at)
    return covered_calls(
        tenant_id=invoice.tenant_id,
        coverage=coverage,
        model_id=model_id,
        limit=max(1, min(limit, MAX_CALLS)),
        after=after,
    )


def _rows(invoices: QuerySet[MonthlyInvoice]) -> list[InvoiceRow]:
    return [_row(one) for one in invoices.annotate(organization=F("tenant__name"))]


def _row(one: MonthlyInvoice) -> InvoiceRow:
    return InvoiceRow(
        id=one.id,
        tenant_id=one.tenant_id,
        organization=one.organization,  # type: ignore[attr-defined]
        currency=one.currency,
        month=one.month,
        from_at=one.from_at,
        to_at=one.to_at,
        usage_nanos=one.usage_nanos,
        due_nanos=one.due_nanos,
        amount_nanos=one.amount_nanos,
        credited_nanos=one.credited_nanos,
        state=MonthlyInvoiceState(one.state),
        dunning=DunningState(one.dunning),
        reminders=one.reminders,
        number=one.number,
        pay_url=one.pay_url,
        pdf_url=one.pdf_url,
        failure_text=one.failure_text,
        created_at=one.created_at,
        due_at=one.due_at,
        ended_at=one.ended_at,
        stripe_invoice_id=one.stripe_invoice_id or "",
        top_up_id=one.top_up_id,
    )


def _line(line: MonthlyInvoiceLine) -> LineRow:
    return LineRow(
        kind=MonthlyLineKind(line.kind),
        model_id=line.model_id,
        model=line.model.display_name if line.model else "",
        token_class=line.token_class,
        units=line.units,
        cost_nanos=line.cost_nanos,
        free_nanos=line.free_nanos,
        amount_nanos=line.amount_nanos,
    )


def _note(note: CreditNote) -> CreditNoteRow:
    return CreditNoteRow(
        id=note.id,
        amount_nanos=note.amount_nanos,
        is_after_payment=note.is_after_payment,
        reason=note.reason,
        state=CreditNoteState(note.state),
        number=note.number,
        pdf_url=note.pdf_url,
        failure_text=note.failure_text,
        ordered_at=note.ordered_at,
    )
