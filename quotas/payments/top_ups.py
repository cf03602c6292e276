"""Reads of an organization's own top-ups, in the scope that is open."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import F, QuerySet, Sum
from django.db.models.functions import Coalesce

from portal.kit.ids import PREFIXES, public_id
from quotas.models import OPEN_TOP_UP_STATES, Refund, RefundState, TopUp, TopUpSource, TopUpState

MAX_ROWS = 200


@dataclass(frozen=True, slots=True)
class TopUpRow:
    """A top-up, in nano-units of `currency`. gross_nanos, tax_nanos: none before it is paid.

    refunded_nanos: the credit that went back, or is on its way. pay_url: where it can still be paid.
    """

    id: UUID
    currency: str
    source: TopUpSource
    state: TopUpState
    amount_nanos: int
    gross_nanos: int | None
    tax_nanos: int | None
    refunded_nanos: int
    method: str
    pay_url: str
    receipt_url: str
    invoice_url: str
    failure_code: str
    session_id: str
    created_by_email: str
    created_at: datetime
    expires_at: datetime | None
    ended_at: datetime | None

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["top_up"], self.id)

    @property
    def is_open(self) -> bool:
        return self.state in OPEN_TOP_UP_STATES

    @property
    def is_paid(self) -> bool:
        return self.state == TopUpState.PAID


@dataclass(frozen=True, slots=True)
class TopUpPage:
    """Top-ups, newest first; `next` is what `before` takes for the page behind this one."""

    rows: tuple[TopUpRow, ...]
    next: UUID | None


def list_top_ups(
    *, tenant_id: UUID, is_paid: bool = False, before: UUID | None = None, limit: int = 20
) -> TopUpPage:
    """A page of them. is_paid: only those that brought credit. limit: 1 to MAX_ROWS."""
    top_ups = TopUp.objects.filter(tenant_id=tenant_id)
    if is_paid:
        top_ups = top_ups.filter(state=TopUpState.PAID)
    if before is not None:
        top_ups = top_ups.filter(id__lt=before)
    limit = max(1, min(limit, MAX_ROWS))
    rows = _rows(top_ups.order_by("-id")[: limit + 1])
    return TopUpPage(tuple(rows[:limit]), rows[limit - 1].id if len(rows) > limit else None)


def find_top_up(*, tenant_id: UUID, top_up_id: UUID) -> TopUpRow | None:
    """One of the organization's own, or None."""
    return next(iter(_rows(TopUp.objects.filter(tenant_id=tenant_id, id=top_up_id))), None)


def _rows(found: QuerySet[TopUp]) -> list[TopUpRow]:
    top_ups = list(found.annotate(email=F("created_by__email")))
    refunded = dict(
        Refund.objects.filter(top_up_id__in=[one.id for one in top_ups])
        .exclude(state=RefundState.FAILED)
        .values_list("top_up_id")
        .annotate(sum=Coalesce(Sum("amount_nanos"), 0))
    )
    return [_row(one, int(refunded.get(one.id, 0))) for one in top_ups]


def _row(top_up: TopUp, refunded_nanos: int) -> TopUpRow:
    return TopUpRow(
        top_up.id,
        top_up.currency,
        TopUpSource(top_up.source),
        TopUpState(top_up.state),
        top_up.amount_nanos,
        top_up.gross_nanos,
        top_up.tax_nanos,
        refunded_nanos,
        top_up.method,
        top_up.pay_url,
        top_up.receipt_url,
        top_up.invoice_url,
        top_up.failure_code,
        top_up.session_id or "",
        getattr(top_up, "email", None) or "",
        top_up.created_at,
        top_up.expires_at,
        top_up.ended_at,
    )
