"""What operators read about payments: top-ups, refunds, disputes, and their transfers. As operator."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from django.db import connections
from django.db.models import F, OuterRef, Q, QuerySet, Subquery, Sum, Value
from django.db.models.functions import Coalesce

from portal.kit.ids import PREFIXES, public_id
from quotas.models import (
    AccountKind,
    BalanceTransaction,
    Dispute,
    DisputeMovement,
    Refund,
    RefundState,
    TopUp,
    TopUpSource,
    TopUpState,
)
from tenants.scope import scope_alias

MAX_PAGE_ROWS = 200
RowT = TypeVar("RowT")


@dataclass(frozen=True, slots=True)
class Page(Generic[RowT]):
    """Rows, newest first; `next` is what `before` takes for the page behind this one."""

    rows: tuple[RowT, ...]
    next: UUID | None


@dataclass(frozen=True, slots=True)
class TopUpFilter:
    """What a list of top-ups is about. from_at, to_at: when it ended or, while it is open, was begun.

    stripe_id: of its session, payment or charge.
    """

    tenant_id: UUID | None = None
    state: TopUpState | None = None
    source: TopUpSource | None = None
    from_at: datetime | None = None
    to_at: datetime | None = None
    top_up_id: UUID | None = None
    stripe_id: str = ""


@dataclass(frozen=True, slots=True)
class TopUpRow:
    """A top-up, in nano-units of `currency`. refunded_nanos: gross, what went back or is on its way back."""

    id: UUID
    tenant_id: UUID
    organization: str
    currency: str
    source: TopUpSource
    state: TopUpState
    amount_nanos: int
    tax_nanos: int | None
    gross_nanos: int | None
    refunded_nanos: int
    session_id: str
    payment_intent_id: str
    charge_id: str
    method: str
    pay_url: str
    receipt_url: str
    invoice_url: str
    failure_code: str
    created_by_email: str
    created_at: datetime
    expires_at: datetime | None
    ended_at: datetime | None
    transfer_id: UUID | None

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["top_up"], self.id)

    @property
    def organization_id(self) -> str:
        return public_id(PREFIXES["organization"], self.tenant_id)

    @property
    def is_paid(self) -> bool:
        return self.state == TopUpState.PAID

    @property
    def happened_at(self) -> datetime:
        return self.ended_at or self.created_at

    @property
    def stripe_ids(self) -> tuple[str, ...]:
        return tuple(one for one in (self.session_id, self.payment_intent_id, self.charge_id) if one)


@dataclass(frozen=True, slots=True)
class RefundRow:
    """Money of a top-up that goes back, in nano-units of `currency`.

    ordered_by_email: empty for one that was made at Stripe.
    """

    id: UUID
    tenant_id: UUID
    organization: str
    currency: str
    top_up_id: UUID
    amount_nanos: int
    tax_nanos: int
    gross_nanos: int
    reason: str
    state: RefundState
    refund_id: str
    failure_code: str
    ordered_by_email: str
    ordered_at: datetime
    ended_at: datetime | None
    transfer_id: UUID
    reversal_id: UUID | None

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["refund"], self.id)

    @property
    def organization_id(self) -> str:
        return public_id(PREFIXES["organization"], self.tenant_id)


@dataclass(frozen=True, slots=True)
class MovementRow:
    """Money that a dispute took (positive) or gave back (negative)."""

    balance_transaction_id: str
    taken_nanos: int
    transfer_id: UUID
    posted_at: datetime


@dataclass(frozen=True, slots=True)
class DisputeRow:
    """A dispute, in nano-units of `currency`. taken_nanos: what its movements took so far, less what they
    gave back; movements: oldest first."""

    id: UUID
    tenant_id: UUID
    organization: str
    currency: str
    top_up_id: UUID
    dispute_id: str
    charge_id: str
    amount_nanos: int
    status: str
    reason: str
    opened_at: datetime
    evidence_due_at: datetime | None
    closed_at: datetime | None
    movements: tuple[MovementRow, ...] = field(default=())

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["dispute"], self.id)

    @property
    def organization_id(self) -> str:
        return public_id(PREFIXES["organization"], self.tenant_id)

    @property
    def taken_nanos(self) -> int:
        return sum(movement.taken_nanos for movement in self.movements)


@dataclass(frozen=True, slots=True)
class Leg:
    """What a transfer did to one account; of the house, or of the organization."""

    account: AccountKind
    is_tenants: bool
    amount_nanos: int


@dataclass(frozen=True, slots=True)
class TransferRow:
    """A transfer with all of its legs."""

    id: UUID
    kind: str
    currency: str
    reason: str
    posted_at: datetime
    legs: tuple[Leg, ...]

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["transfer"], self.id)


def list_top_ups(*, filters: TopUpFilter, before: UUID | None = None, limit: int = 50) -> Page[TopUpRow]:
    """A page of top-ups, newest first. limit: 1 to MAX_PAGE_ROWS."""
    return _page(_top_ups(filters), before, limit, _top_up_rows)


def find_top_up(*, top_up_id: UUID) -> TopUpRow | None:
    """One top-up, or None."""
    return next(iter(_top_up_rows(TopUp.objects.filter(id=top_up_id))), None)


def list_refunds(
    *,
    tenant_id: UUID | None = None,
    state: RefundState | None = None,
    top_up_id: UUID | None = None,
    refund_id: UUID | None = None,
    from_at: datetime | None = None,
    to_at: datetime | None = None,
    before: UUID | None = None,
    limit: int = 50,
) -> Page[RefundRow]:
    """A page of refunds, newest first; from_at, to_at: when they were ordered. limit: 1 to MAX_PAGE_ROWS."""
    refunds = _matching(
        Refund.objects.all(),
        tenant_id=tenant_id,
        state=state,
        top_up_id=top_up_id,
        id=refund_id,
        ordered_at__gte=from_at,
        ordered_at__lt=to_at,
    )
    return _page(refunds, before, limit, _refund_rows)


def list_disputes(
    *,
    tenant_id: UUID | None = None,
    is_open: bool | None = None,
    top_up_id: UUID | None = None,
    before: UUID | None = None,
    limit: int = 50,
) -> Page[DisputeRow]:
    """A page of disputes, newest first. limit: 1 to MAX_PAGE_ROWS."""
    disputes = _matching(Dispute.objects.all(), tenant_id=tenant_id, top_up_id=top_up_id)
    if is_open is not None:
        disputes = disputes.filter(closed_at__isnull=is_open)
    return _page(disputes, before, limit, _dispute_rows)


def find_dispute(*, dispute_id: UUID) -> DisputeRow | None:
    """One dispute with its movements, or None."""
    return next(iter(_dispute_rows(Dispute.objects.filter(id=dispute_id))), None)


def list_transfers(*, ids: Iterable[UUID]) -> list[TransferRow]:
    """These transfers with their legs, oldest first."""
    wanted = list(ids)
    if not wanted:
        return []
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            "SELECT t.id, t.kind, t.currency, t.reason, t.posted_at, "
            "jsonb_agg(jsonb_build_array(a.kind, a.tenant_id IS NOT NULL, e.amount_nanos) ORDER BY a.kind) "
            "FROM quotas_ledgertransfer t JOIN quotas_ledgerentry e ON e.transfer_id = t.id "
            "JOIN quotas_ledgeraccount a ON a.id = e.account_id "
            "WHERE t.id = ANY (%s) GROUP BY t.id ORDER BY t.posted_at, t.id",
            [wanted],
        )
        found = cursor.fetchall()
    return [
        TransferRow(id=row_id, kind=kind, currency=currency, reason=reason, posted_at=at, legs=_legs(legs))
        for row_id, kind, currency, reason, at, legs in found
    ]


def fee_transfers(*, source_ids: Iterable[str]) -> list[UUID]:
    """The transfers of Stripe's fees for these charges, refunds and disputes (Stripe's ids)."""
    lines = BalanceTransaction.objects.filter(source_id__in=list(source_ids), fee_transfer_id__isnull=False)
    return [found for found in lines.values_list("fee_transfer_id", flat=True) if found]


def _legs(text: str) -> tuple[Leg, ...]:
    return tuple(
        Leg(AccountKind(kind), bool(is_tenants), int(nanos)) for kind, is_tenants, nanos in json.loads(text)
    )


def _top_ups(filters: TopUpFilter) -> QuerySet[TopUp]:
    top_ups: QuerySet[TopUp] = _matching(
        TopUp.objects.annotate(happened_at=Coalesce("ended_at", "created_at")),
        tenant_id=filters.tenant_id,
        state=filters.state,
        source=filters.source,
        id=filters.top_up_id,
        happened_at__gte=filters.from_at,
        happened_at__lt=filters.to_at,
    )
    if filters.stripe_id:
        wanted = filters.stripe_id
        top_ups = top_ups.filter(
            Q(session_id=wanted) | Q(payment_intent_id=wanted) | Q(charge_id=wanted, charge_id__gt="")
        )
    return top_ups


def _matching(rows: Any, **wanted: Any) -> Any:
    """The rows for which all of this is so that is not None."""
    return rows.filter(**{name: value for name, value in wanted.items() if value is not None})


def _page(rows: Any, before: UUID | None, limit: int, read: Any) -> Page[Any]:
    if before is not None:
        rows = rows.filter(id__lt=before)
    limit = max(1, min(limit, MAX_PAGE_ROWS))
    found = read(rows.order_by("-id")[: limit + 1])
    return Page(tuple(found[:limit]), found[limit - 1].id if len(found) > limit else None)


def _top_up_rows(top_ups: QuerySet[TopUp]) -> list[TopUpRow]:
    going_back = (
        Refund.objects.filter(top_up_id=OuterRef("id"))
        .exclude(state=RefundState.FAILED)
        .order_by()
        .values("top_up_id")
        .annotate(sum=Sum("gross_nanos"))
        .values("sum")
    )
    found: Any = top_ups.values(
        *(name for name in TopUpRow.__slots__ if name not in _JOINED),
        organization=F("tenant__name"),
        created_by_email=F("created_by__email"),
        refunded_nanos=Coalesce(Subquery(going_back), Value(0)),
    )
    return [
        TopUpRow(
            **_without_nones(values, "session_id", "payment_intent_id", "created_by_email")
            | {
                "source": TopUpSource(values["source"]),
                "state": TopUpState(values["state"]),
                "refunded_nanos": int(values["refunded_nanos"]),
            }
        )
        for values in found
    ]


def _refund_rows(refunds: QuerySet[Refund]) -> list[RefundRow]:
    found: Any = refunds.values(
        *(name for name in RefundRow.__slots__ if name not in _JOINED),
        organization=F("tenant__name"),
        ordered_by_email=F("ordered_by__email"),
    )
    return [
        RefundRow(
            **_without_nones(values, "refund_id", "ordered_by_email")
            | {"state": RefundState(values["state"])}
        )
        for values in found
    ]


def _dispute_rows(disputes: QuerySet[Dispute]) -> list[DisputeRow]:
    values: Any = disputes.values(
        *(name for name in DisputeRow.__slots__ if name not in _JOINED), organization=F("tenant__name")
    )
    found = list(values)
    movements: dict[UUID, list[MovementRow]] = {one["id"]: [] for one in found}
    moved = DisputeMovement.objects.filter(dispute_id__in=movements).order_by("posted_at")
    for movement in moved:
        movements[movement.dispute_id].append(
            MovementRow(
                movement.balance_transaction_id,
                movement.taken_nanos,
                movement.transfer_id,
                movement.posted_at,
            )
        )
    return [DisputeRow(**one, movements=tuple(movements[one["id"]])) for one in found]


# What rows hold besides the columns of their own table.
_JOINED = {"organization", "created_by_email", "ordered_by_email", "refunded_nanos", "movements"}


def _without_nones(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return values | {name: values[name] or "" for name in names}
