"""Which part of an organization's free credit expires, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from quotas.models import CreditLot, Wallet


@dataclass(frozen=True, slots=True)
class ExpiringCredit:
    """What is left of one grant, in nano-units of the wallet's currency, and when that goes."""

    amount_nanos: int
    expires_at: datetime


def expiring_credit(*, tenant_id: UUID) -> Sequence[ExpiringCredit]:
    """What of the free credit expires, first things first, with what was spent since the lots were written
    taken off. In the organization's scope or as operator."""
    lots = list(
        CreditLot.objects.filter(tenant_id=tenant_id, left_nanos__gt=0, expires_at__isnull=False)
        .order_by("expires_at", "id")
        .values_list("left_nanos", "expires_at")
    )
    if not lots:
        return []
    endless_nanos = (
        CreditLot.objects.filter(tenant_id=tenant_id, expires_at=None)
        .values_list("left_nanos", flat=True)
        .first()
        or 0
    )
    granted_nanos = Wallet.objects.values_list("granted_nanos", flat=True).get(tenant_id=tenant_id)
    spent_nanos = max(0, sum(left for left, _ in lots) + endless_nanos - granted_nanos)
    found = []
    for left_nanos, expires_at in lots:
        taken_nanos = min(left_nanos, spent_nanos)
        spent_nanos -= taken_nanos
        if left_nanos > taken_nanos and expires_at is not None:
            found.append(ExpiringCredit(left_nanos - taken_nanos, expires_at))
    return found
