"""What a monthly invoice says: from the ledger, once the month is complete.

The rows are committed first, then the invoice is made at Stripe from them (forwarding). What is due is
  what was owed when the agreement began + all usage that invoices cover - money that came in
  - what earlier invoices ask for,
so that nothing is invoiced twice, and whatever no invoice said yet stands on the next one.
Locks: the agreement.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from uuid import UUID

from django.db import IntegrityError, connections, transaction
from django.db.models import Sum

from portal.kit.ids import PREFIXES, public_id, uuid7
from portal.kit.money import from_minor_units
from quotas.metering.completeness import complete_to
from quotas.metering.usage_lines import Coverage, UsageLine, usage_lines
from quotas.models import (
    MAX_ORDER_NANOS,
    MonthlyInvoice,
    MonthlyInvoiceLine,
    MonthlyInvoiceState,
    MonthlyLineKind,
    PostpaidAgreement,
)
from quotas.payments.client import takes_cards
from quotas.payments.postpaid.forwarding import forward_invoice
from quotas.payments.postpaid.policy import PostpaidPolicy, postpaid_policy
from tenants.operations import audit
from tenants.scope import role_scope, scope_alias

logger = logging.getLogger(__name__)

MAX_AGREEMENTS: Final = 10_000
# After years of not being there, the rest comes the next time.
MAX_MONTHS: Final = 12
# Stripe takes 250 lines on an invoice; what is least of more than these stands in one line there.
MAX_ITEMS: Final = 240


@dataclass(frozen=True, slots=True)
class DrawReport:
    """drawn: invoices that were made; opened: that can be paid now; left: that are on their way to Stripe."""

    drawn: int = 0
    opened: int = 0
    left: int = 0


def draw_up_invoices(*, now: datetime, tenant_id: UUID | None = None) -> DrawReport:
    """Make the invoices of all months that are complete, and bring them to Stripe; also those that were left
    on the way. Safe to do again. Opens scopes of its own, outside every transaction.

    now: by it months end; what was posted until when is told by the clock of the database. tenant_id: of
    this organization only.
    """
    policy = postpaid_policy()
    drawn = 0
    with role_scope("operator"):
        agreements = PostpaidAgreement.objects.filter(is_on=True).order_by("tenant_id")
        if tenant_id is not None:
            agreements = agreements.filter(tenant_id=tenant_id)
        concerned = list(agreements.values_list("tenant_id", flat=True)[:MAX_AGREEMENTS])
    for one in concerned:
        try:
            drawn += _draw_up_months(one, policy, now)
        except IntegrityError:
            # Something was posted in this moment, or somebody else draws it up: the next time.
            logger.exception("quotas.payments.invoice_not_drawn", extra={"tenant_id": str(one)})
    opened, left = _forward_drafts(tenant_id, now)
    return DrawReport(drawn, opened, left)


def _draw_up_months(tenant_id: UUID, policy: PostpaidPolicy, now: datetime) -> int:
    count = 0
    while count < MAX_MONTHS:
        with role_scope("operator"), transaction.atomic(using=scope_alias()):
            if not _draw_up_next(tenant_id, policy, now):
                break
        count += 1
    return count


def _forward_drafts(tenant_id: UUID | None, now: datetime) -> tuple[int, int]:
    if not takes_cards():
        return 0, 0
    with role_scope("operator"):
        drafts = MonthlyInvoice.objects.filter(state=MonthlyInvoiceState.DRAFT).order_by("id")
        if tenant_id is not None:
            drafts = drafts.filter(tenant_id=tenant_id)
        ids = list(drafts.values_list("id", flat=True)[:MAX_AGREEMENTS])
    opened = 0
    for invoice_id in ids:
        try:
            opened += forward_invoice(invoice_id=invoice_id, now=now) != MonthlyInvoiceState.DRAFT
        except Exception:
            # One that cannot be made must not stop those behind it; it is tried again the next time.
            logger.exception("quotas.payments.invoice_not_made", extra={"invoice": str(invoice_id)})
    return opened, len(ids) - opened


def _draw_up_next(tenant_id: UUID, policy: PostpaidPolicy, now: datetime) -> bool:
    """The month behind the last one, if it is complete. In a transaction, as operator."""
    agreement = PostpaidAgreement.objects.select_for_update(no_key=True).get(tenant_id=tenant_id)
    before = MonthlyInvoice.objects.filter(tenant_id=tenant_id).order_by("-to_at").first()
    month = _month_of(agreement.since) if before is None else _following(before.month)
    to_at = datetime.combine(_following(month), time(), tzinfo=UTC)
    if not agreement.is_on or to_at > now - policy.grace:
        return False
    if complete_to(now=now, grace=policy.grace, tenant_id=tenant_id) < to_at:
        return False
    coverage = Coverage(
        since=agreement.since,
        from_at=before.to_at if before else agreement.since,
        from_cut_at=before.cut_at if before else agreement.since,
        to_at=to_at,
        cut_at=_cut_at(policy),
    )
    if before is not None and coverage.cut_at < before.cut_at:
        return False
    if _is_settling(tenant_id, coverage):
        return False
    _write(agreement, month, coverage, policy, now)
    return True


def _cut_at(policy: PostpaidPolicy) -> datetime:
    """Everything that was posted before is there: no transaction lasts as long as the lag."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute("SELECT now() - make_interval(secs => %s)", [policy.lag.total_seconds()])
        found: datetime = cursor.fetchone()[0]
    return found


def _is_settling(tenant_id: UUID, coverage: Coverage) -> bool:
    """Whether something of the month was settled so lately that it would come onto the next invoice."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM quotas_ledgertransfer t"
            " JOIN quotas_inferencerequest q ON q.id = t.request_id"
            " WHERE t.tenant_id = %s AND t.kind = 'USAGE' AND t.posted_at >= %s AND q.admitted_at < %s)",
            [tenant_id, coverage.cut_at, coverage.to_at],
        )
        return bool(cursor.fetchone()[0])


@dataclass(frozen=True, slots=True)
class _Account:
    """usage + brought - payments is due."""

    usage_nanos: int
    brought_nanos: int
    payments_nanos: int

    @property
    def due_nanos(self) -> int:
        return self.usage_nanos + self.brought_nanos - self.payments_nanos

    def asked_nanos(self, policy: PostpaidPolicy, minor_nanos: int) -> int:
        """In whole minor units, at most what a payment can be; so little as is not worth an invoice is 0."""
        if self.due_nanos < max(policy.lowest_nanos, minor_nanos):
            return 0
        return min(self.due_nanos, MAX_ORDER_NANOS) // minor_nanos * minor_nanos


def _write(
    agreement: PostpaidAgreement, month: date, coverage: Coverage, policy: PostpaidPolicy, now: datetime
) -> None:
    used = usage_lines(tenant_id=agreement.tenant_id, coverage=coverage)
    account = _account(agreement.tenant_id, coverage, sum(line.amount_nanos for line in used))
    minor_nanos = from_minor_units(1, agreement.currency)
    amount_nanos = account.asked_nanos(policy, minor_nanos)
    invoice = MonthlyInvoice.objects.create(
        tenant_id=agreement.tenant_id,
        currency=agreement.currency,
        month=month,
        from_at=coverage.from_at,
        from_cut_at=coverage.from_cut_at,
        to_at=coverage.to_at,
        cut_at=coverage.cut_at,
        usage_nanos=account.usage_nanos,
        brought_nanos=account.brought_nanos,
        payments_nanos=account.payments_nanos,
        amount_nanos=amount_nanos,
        days_until_due=agreement.days_until_due,
        state=MonthlyInvoiceState.DRAFT if amount_nanos else MonthlyInvoiceState.COVERED,
        created_at=now,
        ended_at=None if amount_nanos else now,
    )
    MonthlyInvoiceLine.objects.bulk_create(lines_of(invoice, used, minor_nanos))
    _record(invoice)


def _account(tenant_id: UUID, coverage: Coverage, usage_nanos: int) -> _Account:
    earlier = MonthlyInvoice.objects.filter(tenant_id=tenant_id)
    sums = earlier.aggregate(usage=Sum("usage_nanos"), payments=Sum("payments_nanos"))
    standing = earlier.exclude(state=MonthlyInvoiceState.VOID).aggregate(asked=Sum("amount_nanos"))
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            "SELECT quotas_postpaid_opening(%(tenant)s, %(since)s),"
            " quotas_postpaid_money(%(tenant)s, %(since)s, %(to)s)",
            {"tenant": tenant_id, "since": coverage.since, "to": coverage.to_at},
        )
        opening_nanos, money_nanos = cursor.fetchone()
    # What a credit note took off an invoice that was not paid yet lowers both, what it asks for and the debt.
    due_nanos = (
        opening_nanos + int(sums["usage"] or 0) + usage_nanos - money_nanos - int(standing["asked"] or 0)
    )
    payments_nanos = money_nanos - int(sums["payments"] or 0)
    return _Account(usage_nanos, due_nanos - usage_nanos + payments_nanos, payments_nanos)


def lines_of(invoice: MonthlyInvoice, used: list[UsageLine], minor_nanos: int) -> list[MonthlyInvoiceLine]:
    """The lines of an invoice, which add up to what it asks for, exactly and in whole minor units."""
    lines = [
        MonthlyInvoiceLine(
            kind=MonthlyLineKind.USAGE,
            model_id=line.model_id,
            token_class=line.token_class,
            units=line.units,
            cost_nanos=line.cost_nanos,
            free_nanos=line.cost_nanos - line.amount_nanos,
            amount_nanos=line.amount_nanos,
        )
        for line in used
    ]
    largest = sorted(lines, key=lambda line: -abs(line.amount_nanos))[:MAX_ITEMS]
    for kind, nanos in (
        (MonthlyLineKind.BROUGHT, invoice.brought_nanos),
        (MonthlyLineKind.PAYMENTS, -invoice.payments_nanos),
    ):
        if nanos:
            lines.append(MonthlyInvoiceLine(kind=kind, amount_nanos=nanos))
            largest.append(lines[-1])
    shown = {id(line) for line in largest}
    for line in lines:
        line.asked_nanos = _rounded(line.amount_nanos, minor_nanos) if id(line) in shown else 0
    rest_nanos = invoice.amount_nanos - sum(line.amount_nanos for line in lines)
    rest_asked_nanos = invoice.amount_nanos - sum(line.asked_nanos for line in lines)
    if rest_nanos or rest_asked_nanos:
        lines.append(
            MonthlyInvoiceLine(
                kind=MonthlyLineKind.CARRIED, amount_nanos=rest_nanos, asked_nanos=rest_asked_nanos
            )
        )
    for position, line in enumerate(lines):
        line.id, line.tenant_id, line.position = uuid7(), invoice.tenant_id, position
        line.invoice_id, line.currency = invoice.id, invoice.currency
    return lines


def _rounded(nanos: int, step_nanos: int) -> int:
    """To whole steps, half up; the same on either side of zero."""
    whole = (2 * abs(nanos) + step_nanos) // (2 * step_nanos) * step_nanos
    return whole if nanos >= 0 else -whole


def _month_of(moment: datetime) -> date:
    return moment.astimezone(UTC).date().replace(day=1)


def _following(month: date) -> date:
    return (month + timedelta(days=32)).replace(day=1)


def _record(invoice: MonthlyInvoice) -> None:
    audit.record(
        actor=audit.SYSTEM,
        action="monthly_invoice.draw_up",
        tenant_id=invoice.tenant_id,
        target=public_id(PREFIXES["monthly_invoice"], invoice.id),
        after={
            "month": f"{invoice.month:%Y-%m}",
            "usage_nanos": invoice.usage_nanos,
            "amount_nanos": invoice.amount_nanos,
            "currency": invoice.currency,
        },
        reason="The month is complete.",
    )
