"""Postings of money that comes in, goes back, or moves between the house's own accounts.

Each is idempotent: true when it was posted now, false when it was posted before in the same way.
Errors: django.db.IntegrityError when the id stands for something else already, or amounts are not positive.
"""

from typing import Any
from uuid import UUID

from django.db import connections

from quotas.models import AccountKind, TransferKind
from tenants.scope import scope_alias


def pay_in(
    *,
    transfer_id: UUID,
    kind: TransferKind,
    tenant_id: UUID,
    amount_nanos: int,
    tax_nanos: int = 0,
    source: AccountKind = AccountKind.STRIPE_CLEARING,
    reason: str,
) -> bool:
    """Paid credit, after what is owed is paid. `tax_nanos` came in beside it and is not the tenant's."""
    return _call(
        "quotas_pay_in", transfer_id, kind.value, tenant_id, amount_nanos, tax_nanos, source.value, reason
    )


def pay_back(
    *,
    transfer_id: UUID,
    kind: TransferKind,
    tenant_id: UUID,
    amount_nanos: int,
    tax_nanos: int = 0,
    source: AccountKind = AccountKind.STRIPE_CLEARING,
    is_forced: bool,
    reason: str,
) -> bool:
    """Paid credit goes back, at most what calls under way do not hold.

    is_forced: what is missing is owed from then on (a receivable); otherwise it is an error, constraint
    `wallet_pay_back_free`.
    """
    return _call(
        "quotas_pay_back",
        transfer_id,
        kind.value,
        tenant_id,
        amount_nanos,
        tax_nanos,
        source.value,
        is_forced,
        reason,
    )


def move_house(
    *,
    transfer_id: UUID,
    kind: TransferKind,
    currency: str,
    source: AccountKind,
    target: AccountKind,
    amount_nanos: int,
    reason: str,
) -> bool:
    """From one of the house's accounts to another: a fee (PAYMENT_FEES to STRIPE_CLEARING), a payout
    (CASH_CLEARING to STRIPE_CLEARING). A negative amount goes the other way."""
    return _call(
        "quotas_move_house",
        transfer_id,
        kind.value,
        currency,
        source.value,
        target.value,
        amount_nanos,
        reason,
    )


def _call(function: str, *arguments: Any) -> bool:
    places = ", ".join(["%s"] * len(arguments))
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(f"SELECT {function}({places})", arguments)
        return bool(cursor.fetchone()[0])
