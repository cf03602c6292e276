"""Writes that concern an organization as a whole: opening it, and running the calls on it."""

from dataclasses import dataclass
from uuid import UUID

from django.db import connections, transaction

from quotas import settlement
from quotas.ledger import operations as ledger
from tenants import operations as tenant_operations
from tenants.scope import current_scope, role_scope


class UnknownCurrency(ValueError):
    """The installation does not sell in this currency."""


@dataclass(frozen=True, slots=True)
class WelcomeCredit:
    """Free credit of a new organization, in nano-units of its wallet's currency."""

    amount_nanos: int
    reason: str


def open_tenant(
    *,
    name: str,
    currency: str,
    currencies: tuple[str, ...],
    owner_id: UUID | None,
    welcome_credit: WelcomeCredit | None = None,
) -> UUID:
    """The one call that makes a customer: organization, owner, wallet and welcome credit, or nothing.

    Errors: UnknownCurrency.
    """
    if currency not in currencies:
        raise UnknownCurrency(f"wallets are kept in {', '.join(currencies)}, not in {currency}")
    scope = current_scope()
    with transaction.atomic(using=scope.role if scope else None):
        tenant = tenant_operations.create_tenant(name=name, currency=currency, owner_id=owner_id)
        ledger.open_wallet(tenant_id=tenant.id, currency=currency)
        if welcome_credit is not None:
            ledger.grant_credit(
                tenant_id=tenant.id,
                amount_nanos=welcome_credit.amount_nanos,
                key=f"welcome:{tenant.id}",
                reason=welcome_credit.reason,
            )
    return tenant.id


def sweep_expired_holds(*, lease_s: int) -> settlement.SweepReport:
    """Resolve every hold whose lease is over. Safe to run twice and beside itself."""
    with role_scope("dataplane"):
        return settlement.sweep_expired_holds(lease_s=lease_s)


def make_partitions(*, days_ahead: int = 7) -> int:
    """Make the daily partitions up to `days_ahead` days ahead; how many were new."""
    with role_scope("dataplane"), connections["dataplane"].cursor() as cursor:
        cursor.execute("SELECT quotas_make_partitions(%s)", (days_ahead,))
        return int(cursor.fetchone()[0])
