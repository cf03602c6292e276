"""How much of what goes back is tax. Everything is whole steps of a currency's smallest unit.

Refunds take tax in proportion, rounded half up on their running sum, so that the last one takes exactly what
is left. A dispute's share is a function of its own amount, rounded down: what is taken and given back again
leaves nothing behind, in whatever order it is heard of, and disputes never take more tax than there was.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shares:
    """Credit and tax that a payment brought, and what of each went back already; nano-units."""

    amount_nanos: int
    tax_nanos: int
    gone_amount_nanos: int = 0
    gone_tax_nanos: int = 0

    @property
    def gross_nanos(self) -> int:
        return self.amount_nanos + self.tax_nanos

    @property
    def left_amount_nanos(self) -> int:
        return max(0, self.amount_nanos - self.gone_amount_nanos)

    @property
    def left_tax_nanos(self) -> int:
        return max(0, self.tax_nanos - self.gone_tax_nanos)


def tax_beside_credit(*, shares: Shares, amount_nanos: int, step_nanos: int) -> int:
    """The tax that goes back beside this much credit; with the last credit all that is left of it."""
    if amount_nanos >= shares.left_amount_nanos:
        return shares.left_tax_nanos
    gone_nanos = shares.gone_amount_nanos + amount_nanos
    due_nanos = _half_up(shares.tax_nanos * gone_nanos, shares.amount_nanos, step_nanos)
    return max(0, min(due_nanos - shares.gone_tax_nanos, shares.left_tax_nanos))


def tax_within_refund(*, shares: Shares, gross_nanos: int, step_nanos: int) -> int:
    """The tax within a refund of this much; in the last one all that is left of it."""
    gone_nanos = shares.gone_amount_nanos + shares.gone_tax_nanos + gross_nanos
    due_nanos = _half_up(shares.tax_nanos * gone_nanos, shares.gross_nanos, step_nanos)
    # What is not tax is credit, of which no more than what is left goes back either.
    least_nanos = max(0, gross_nanos - shares.left_amount_nanos)
    most_nanos = min(shares.left_tax_nanos, gross_nanos)
    return min(max(due_nanos - shares.gone_tax_nanos, least_nanos), most_nanos)


def tax_within_dispute(*, shares: Shares, gross_nanos: int, step_nanos: int) -> int:
    """The tax within a disputed amount; below zero for an amount below zero, which was given back."""
    tax_nanos = shares.tax_nanos * abs(gross_nanos) // (shares.gross_nanos * step_nanos) * step_nanos
    tax_nanos = min(tax_nanos, shares.tax_nanos)
    return tax_nanos if gross_nanos > 0 else -tax_nanos


def _half_up(numerator: int, denominator: int, step: int) -> int:
    """numerator / denominator in whole steps."""
    return (2 * numerator + denominator * step) // (2 * denominator * step) * step
