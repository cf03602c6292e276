"""What can go back of a top-up, and how Stripe's books agree with ours. As operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Final
from uuid import UUID

from django.db.models import Sum

from portal.kit.money import from_minor_units
from quotas.models import (
    Dispute,
    DisputeMovement,
    Refund,
    RefundState,
    TopUp,
    TopUpSource,
    TopUpState,
    Wallet,
)
from quotas.payments.stripe_matching import DayMatch, match_days
from quotas.payments.tax_shares import Shares, tax_beside_credit, tax_within_dispute

# Of a dispute that keeps, or may still keep, what it is about. Inquiries keep nothing.
KEEPING_STATUSES: Final = ("needs_response", "under_review", "lost")


class Obstacle(StrEnum):
    """Why nothing can be refunded."""

    NOT_PAID = "NOT_PAID"
    BY_BANK = "BY_BANK"  # came by bank transfer, so it goes back that way
    GONE = "GONE"  # went back already, or a dispute has it
    SPENT = "SPENT"  # spent, held by calls under way, or owed


@dataclass(frozen=True, slots=True)
class Refundable:
    """What an operator can refund of a top-up at most, in nano-units of `currency`.

    amount_nanos: credit, in whole coins; tax_nanos goes back beside it, and gross_nanos is both. shares: what
    the top-up brought, and what refunds and disputes have taken or may still take of it. free_nanos: the
    organization's paid credit that is neither held nor owed.
    """

    top_up_id: UUID
    tenant_id: UUID
    currency: str
    amount_nanos: int
    tax_nanos: int
    shares: Shares
    free_nanos: int
    obstacle: Obstacle | None

    @property
    def gross_nanos(self) -> int:
        return self.amount_nanos + self.tax_nanos

    def tax_of(self, amount_nanos: int) -> int:
        """The tax that goes back beside this much credit, which is more than nothing and at most
        amount_nanos."""
        step_nanos = from_minor_units(1, self.currency)
        return tax_beside_credit(shares=self.shares, amount_nanos=amount_nanos, step_nanos=step_nanos)


def refundable(*, top_up_id: UUID) -> Refundable | None:
    """What can be refunded of it at this moment, or None when there is no such top-up."""
    top_up = TopUp.objects.filter(id=top_up_id).first()
    return None if top_up is None else refundable_of(top_up, Wallet.objects.get(tenant_id=top_up.tenant_id))


def refundable_of(top_up: TopUp, wallet: Wallet) -> Refundable:
    """The same for rows that the caller has read, and perhaps locked."""
    shares = _shares(top_up)
    free_nanos = free_paid_nanos(wallet)
    step_nanos = from_minor_units(1, top_up.currency)
    amount_nanos = min(shares.left_amount_nanos, free_nanos) // step_nanos * step_nanos
    obstacle = None
    if top_up.state != TopUpState.PAID:
        obstacle = Obstacle.NOT_PAID
    elif top_up.source == TopUpSource.BANK or (top_up.source == TopUpSource.INVOICE and not top_up.charge_id):
        obstacle = Obstacle.BY_BANK
    elif not shares.left_amount_nanos:
        obstacle = Obstacle.GONE
    elif not amount_nanos:
        obstacle = Obstacle.SPENT
    if obstacle is not None:
        amount_nanos = 0
    tax_nanos = (
        tax_beside_credit(shares=shares, amount_nanos=amount_nanos, step_nanos=step_nanos)
        if amount_nanos
        else 0
    )
    return Refundable(
        top_up.id, top_up.tenant_id, top_up.currency, amount_nanos, tax_nanos, shares, free_nanos, obstacle
    )


def free_paid_nanos(wallet: Wallet) -> int:
    """Paid credit that is neither held by calls under way, which spend granted credit first, nor owed."""
    held_nanos = max(0, wallet.pending_nanos - wallet.granted_nanos)
    return max(0, wallet.paid_nanos - held_nanos + wallet.receivable_nanos)


def refund_shares(top_up: TopUp) -> Shares:
    """What a paid top-up brought, and what its refunds took of it that did not fail."""
    gone = (
        Refund.objects.filter(top_up_id=top_up.id)
        .exclude(state=RefundState.FAILED)
        .aggregate(amount=Sum("amount_nanos"), tax=Sum("tax_nanos"))
    )
    return Shares(top_up.amount_nanos, top_up.tax_nanos or 0, int(gone["amount"] or 0), int(gone["tax"] or 0))


def list_days(*, since: date, until: date) -> list[DayMatch]:
    """Stripe's books and ours for each day (UTC) and currency, newest first; half-open."""
    return match_days(since=since, until=until)


def _shares(top_up: TopUp) -> Shares:
    """With what disputes took, or may still take."""
    shares = refund_shares(top_up)
    gone_nanos = gone_tax_nanos = 0
    step_nanos = from_minor_units(1, top_up.currency)
    for dispute, taken_nanos in _disputes(top_up.id):
        is_kept = dispute.status in KEEPING_STATUSES
        kept_nanos = max(taken_nanos, dispute.amount_nanos if is_kept else 0)
        if kept_nanos > 0:
            gone_nanos += kept_nanos
            gone_tax_nanos += tax_within_dispute(shares=shares, gross_nanos=kept_nanos, step_nanos=step_nanos)
    return Shares(
        shares.amount_nanos,
        shares.tax_nanos,
        shares.gone_amount_nanos + gone_nanos - gone_tax_nanos,
        shares.gone_tax_nanos + gone_tax_nanos,
    )


def _disputes(top_up_id: UUID) -> Sequence[tuple[Dispute, int]]:
    """Each dispute of a top-up, with what its movements took on balance."""
    taken = dict(
        DisputeMovement.objects.filter(dispute__top_up_id=top_up_id)
        .order_by()
        .values_list("dispute_id")
        .annotate(sum=Sum("taken_nanos"))
    )
    return [
        (dispute, int(taken.get(dispute.id, 0))) for dispute in Dispute.objects.filter(top_up_id=top_up_id)
    ]
