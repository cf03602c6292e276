"""Writes of the ledger that are not usage: wallets, free credit, money that came in."""

from uuid import UUID

from django.db import connections
from django.db.backends.utils import CursorWrapper

from portal.kit.ids import transfer_id
from quotas.models import AccountKind, TransferKind, Wallet
from tenants.scope import scope_alias


def _cursor() -> CursorWrapper:
    return connections[scope_alias()].cursor()


def open_wallet(*, tenant_id: UUID, currency: str) -> None:
    """Give a new tenant its wallet and accounts, with nothing in them."""
    with _cursor() as cursor:
        cursor.execute("SELECT quotas_open_wallet(%s, %s)", (tenant_id, currency))


def grant_credit(*, tenant_id: UUID, amount_nanos: int, key: str, reason: str) -> bool:
    """Give free credit. `key` makes it idempotent: false when this grant was made before.

    Errors: django.db.IntegrityError when the key was used for another amount or tenant.
    """
    return _credit(TransferKind.GRANT, AccountKind.PROMOTION, tenant_id, amount_nanos, key, reason)


def make_up(*, tenant_id: UUID, amount_nanos: int, key: str, reason: str) -> bool:
    """Give free credit that makes up for something, an expense of goodwill. Idempotent by `key`, errors as
    grant_credit."""
    return _credit(TransferKind.ADJUSTMENT, AccountKind.GOODWILL, tenant_id, amount_nanos, key, reason)


def take_back(*, tenant_id: UUID, amount_nanos: int, key: str, reason: str) -> bool:
    """Take free credit back, at most what is granted and not held. Idempotent by `key`.

    Errors: django.db.IntegrityError for more than that, and as grant_credit.
    """
    with _cursor() as cursor:
        cursor.execute(
            "SELECT quotas_take_back(%s, %s, %s, %s)",
            (transfer_id(TransferKind.ADJUSTMENT, key), tenant_id, amount_nanos, reason),
        )
        return bool(cursor.fetchone()[0])


def set_credit_line(*, tenant_id: UUID, overdraft_nanos: int) -> None:
    """How far the tenant's balance may fall below zero. Errors: django.db.IntegrityError when more of it is
    used already, or it is negative."""
    Wallet.objects.using(scope_alias()).filter(tenant_id=tenant_id).update(overdraft_nanos=overdraft_nanos)


def record_receipt(*, tenant_id: UUID, amount_nanos: int, key: str, reason: str) -> bool:
    """Paid credit from money that came in by another way than Stripe; what is owed is paid first.

    Idempotent by `key`, errors as grant_credit.
    """
    return _credit(TransferKind.TOP_UP, AccountKind.CASH_CLEARING, tenant_id, amount_nanos, key, reason)


def _credit(
    kind: TransferKind, source: AccountKind, tenant_id: UUID, amount_nanos: int, key: str, reason: str
) -> bool:
    with _cursor() as cursor:
        cursor.execute(
            "SELECT quotas_credit(%s, %s, %s, %s, %s, %s)",
            (transfer_id(kind, key), kind.value, tenant_id, amount_nanos, source.value, reason),
        )
        return bool(cursor.fetchone()[0])
