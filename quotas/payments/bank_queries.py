"""Reads of bank transfers: the organization's reference, and what operators recorded."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from django.db.models import F, Q, QuerySet

from portal.kit.ids import PREFIXES, public_id
from quotas.models import BankReceipt, BankReference, ReceiptState

MAX_ROWS = 200


@dataclass(frozen=True, slots=True)
class ReceiptRow:
    """A receipt, in nano-units of `currency`. reference: empty when an operator named the organization.

    decided_by_email: empty while it waits.
    """

    id: UUID
    tenant_id: UUID
    organization: str
    currency: str
    reference: str
    amount_nanos: int
    tax_nanos: int
    value_date: date
    bank_transaction_id: str
    payer_name: str
    reason: str
    state: ReceiptState
    recorded_by_id: UUID
    recorded_by_email: str
    recorded_at: datetime
    decided_by_email: str
    decided_at: datetime | None
    decision_reason: str

    @property
    def credit_nanos(self) -> int:
        return self.amount_nanos - self.tax_nanos

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["bank_receipt"], self.id)

    @property
    def organization_id(self) -> str:
        return public_id(PREFIXES["organization"], self.tenant_id)

    @property
    def is_waiting(self) -> bool:
        return self.state == ReceiptState.WAITING


@dataclass(frozen=True, slots=True)
class ReceiptPage:
    """Receipts, newest first; `next` is what `before` takes for the page behind this one."""

    rows: tuple[ReceiptRow, ...]
    next: UUID | None


def reference_of(*, tenant_id: UUID) -> str:
    """The organization's transfer reference; empty before it was asked for."""
    known = BankReference.objects.filter(tenant_id=tenant_id).values_list("reference", flat=True).first()
    return known or ""


def find_receipt(*, receipt_id: UUID) -> ReceiptRow | None:
    """One receipt, or None. As operator."""
    return next(iter(_rows(BankReceipt.objects.filter(id=receipt_id))), None)


def waiting_receipts() -> list[ReceiptRow]:
    """What waits for a second operator, oldest first, at most MAX_ROWS. As operator."""
    waiting = BankReceipt.objects.filter(state=ReceiptState.WAITING)
    return _rows(waiting.order_by("recorded_at")[:MAX_ROWS])


def count_waiting_receipts() -> int:
    """How many receipts wait, counted no further than MAX_ROWS. As operator."""
    return BankReceipt.objects.filter(state=ReceiptState.WAITING)[:MAX_ROWS].count()


def decided_receipts(*, before: UUID | None = None, limit: int = 50) -> ReceiptPage:
    """A page of receipts that were decided, newest first. limit: 1 to MAX_ROWS. As operator."""
    receipts = BankReceipt.objects.filter(~Q(state=ReceiptState.WAITING))
    if before is not None:
        receipts = receipts.filter(id__lt=before)
    limit = max(1, min(limit, MAX_ROWS))
    rows = _rows(receipts.order_by("-id")[: limit + 1])
    return ReceiptPage(tuple(rows[:limit]), rows[limit - 1].id if len(rows) > limit else None)


def _rows(receipts: QuerySet[BankReceipt]) -> list[ReceiptRow]:
    found: Any = receipts.values(
        "id",
        "tenant_id",
        "currency",
        "amount_nanos",
        "tax_nanos",
        "value_date",
        "bank_transaction_id",
        "payer_name",
        "reason",
        "recorded_by_id",
        "recorded_at",
        "decided_at",
        "decision_reason",
        "state",
        "reference",
        organization=F("tenant__name"),
        recorded_by_email=F("recorded_by__email"),
        decided_by_email=F("decided_by__email"),
    )
    return [
        ReceiptRow(
            **(
                values
                | {
                    "state": ReceiptState(values["state"]),
                    "reference": values["reference"] or "",
                    "decided_by_email": values["decided_by_email"] or "",
                }
            )
        )
        for values in found
    ]
