"""Reads of credit orders, and of what an operator has given alone. As operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import F, Q, QuerySet, Sum
from django.db.models.functions import Coalesce

from portal.kit.ids import PREFIXES, public_id
from quotas.credit.policy import PERIOD, CreditPolicy
from quotas.models import GIVING_KINDS, CreditOrder, CreditOrderKind, CreditOrderState

MAX_ROWS = 200


@dataclass(frozen=True, slots=True)
class CreditOrderRow:
    """An order, in nano-units of `currency`. limit_nanos: how much of it one operator could order alone.

    decided_by_email: empty while it waits, and when nobody else had to decide.
    """

    id: UUID
    tenant_id: UUID
    organization: str
    currency: str
    kind: CreditOrderKind
    amount_nanos: int
    limit_nanos: int
    reason: str
    state: CreditOrderState
    ordered_by_id: UUID
    ordered_by_email: str
    ordered_at: datetime
    decided_by_id: UUID | None
    decided_by_email: str
    decided_at: datetime | None
    decision_reason: str
    transfer_id: UUID | None
    expires_at: datetime | None

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["credit_order"], self.id)

    @property
    def organization_id(self) -> str:
        return public_id(PREFIXES["organization"], self.tenant_id)

    @property
    def is_waiting(self) -> bool:
        return self.state == CreditOrderState.WAITING


@dataclass(frozen=True, slots=True)
class CreditOrderPage:
    """Orders, newest first; `next` is what `before` takes for the page behind this one."""

    rows: tuple[CreditOrderRow, ...]
    next: UUID | None


@dataclass(frozen=True, slots=True)
class GivenAlone:
    """What an operator has given, or taken back, within the policy's period without a second one, in
    nano-units."""

    to_organization_nanos: int
    to_all_nanos: int

    def left_nanos(self, policy: CreditPolicy) -> int:
        """How much more the operator gives alone to this organization."""
        return max(
            0,
            min(
                policy.limit_nanos - self.to_organization_nanos,
                policy.all_organizations_nanos - self.to_all_nanos,
            ),
        )


def given_alone(
    *,
    operator_id: UUID,
    tenant_id: UUID,
    now: datetime,
    kinds: Sequence[CreditOrderKind] = GIVING_KINDS,
) -> GivenAlone:
    """What this operator ordered of these kinds without a second one within the policy's period. What is
    given and what is taken back are counted apart: neither makes room for the other."""
    sums = CreditOrder.objects.filter(
        ordered_by_id=operator_id,
        ordered_at__gt=now - PERIOD,
        kind__in=kinds,
        state=CreditOrderState.POSTED,
        decided_by=None,
    ).aggregate(
        to_all=Coalesce(Sum("amount_nanos"), 0),
        to_one=Coalesce(Sum("amount_nanos", filter=Q(tenant_id=tenant_id)), 0),
    )
    return GivenAlone(int(sums["to_one"]), int(sums["to_all"]))


def find_order(*, order_id: UUID) -> CreditOrderRow | None:
    """One order, or None."""
    return next(iter(_rows(CreditOrder.objects.filter(id=order_id))), None)


def waiting_orders() -> list[CreditOrderRow]:
    """What waits for a second operator, oldest first, at most MAX_ROWS."""
    waiting = CreditOrder.objects.filter(state=CreditOrderState.WAITING)
    return _rows(waiting.order_by("ordered_at")[:MAX_ROWS])


def count_waiting_orders() -> int:
    """How many orders wait, counted no further than MAX_ROWS."""
    return CreditOrder.objects.filter(state=CreditOrderState.WAITING)[:MAX_ROWS].count()


def list_orders(
    *,
    tenant_id: UUID | None = None,
    is_decided: bool | None = None,
    before: UUID | None = None,
    limit: int = 50,
) -> CreditOrderPage:
    """A page of orders, newest first, of one organization or of all. limit: 1 to MAX_ROWS."""
    orders = CreditOrder.objects.all()
    if tenant_id is not None:
        orders = orders.filter(tenant_id=tenant_id)
    if is_decided is not None:
        waits = Q(state=CreditOrderState.WAITING)
        orders = orders.filter(~waits if is_decided else waits)
    if before is not None:
        orders = orders.filter(id__lt=before)
    limit = max(1, min(limit, MAX_ROWS))
    rows = _rows(orders.order_by("-id")[: limit + 1])
    return CreditOrderPage(tuple(rows[:limit]), rows[limit - 1].id if len(rows) > limit else None)


def _rows(orders: QuerySet[CreditOrder]) -> list[CreditOrderRow]:
    found: Any = orders.values(
        "id",
        "tenant_id",
        "currency",
        "kind",
        "amount_nanos",
        "limit_nanos",
        "reason",
        "state",
        "ordered_by_id",
        "ordered_at",
        "decided_by_id",
        "decided_at",
        "decision_reason",
        "transfer_id",
        "expires_at",
        organization=F("tenant__name"),
        ordered_by_email=F("ordered_by__email"),
        decided_by_email=F("decided_by__email"),
    )
    return [_row(values) for values in found]


def _row(values: dict[str, Any]) -> CreditOrderRow:
    return CreditOrderRow(
        **(
            values
            | {
                "kind": CreditOrderKind(values["kind"]),
                "state": CreditOrderState(values["state"]),
                "decided_by_email": values["decided_by_email"] or "",
            }
        )
    )
