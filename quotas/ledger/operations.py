"""Writes of the ledger that are not usage: wallets, free credit, money that came in."""

from datetime import datetime
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


def grant_credit(
    *, tenant_id: UUID, amount_nanos: int, key: str, reason: str, expires_at: datetime | None = None
) -> bool:
    """Give free credit; what is left of it goes at `expires_at`. `key` makes it idempotent: false when it
    was given before.

    Errors: django.db.IntegrityError when the key was used for another amount, tenant or end.
    """
    return _grant(TransferKind.GRANT, AccountKind.PROMOTION, tenant_id, amount_nanos, key, reason, expires_at)


def make_up(
    *, tenant_id: UUID, amount_nanos: int, key: str, reason: str, expires_at: datetime | None = None
) -> bool:
    """Give free credit that makes up for something, an expense of goodwill. Otherwise as grant_credit."""
    return _grant(
        TransferKind.ADJUSTMENT, AccountKind.GOODWILL, tenant_id, amount_nanos, key, reason, expires_at
    )


def expire_lots(*, tenant_id: UUID) -> int:
    """Take back what has expired of an organization's free credit, as far as nothing holds it; how much went,
    in nano-units. Safe to run twice and beside itself."""
    with _cursor() as cursor:
        cursor.execute("SELECT quotas_expire_lots(%s)", (tenant_id,))
        return int(cursor.fetchone()[0])


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


def _grant(
    kind: TransferKind,
    source: AccountKind,
    tenant_id: UUID,
    amount_nanos: int,
    key: str,
    reason: str,
    expires_at: datetime | None,
) -> bool:
    with _cursor() as cursor:
        cursor.execute(
            "SELECT quotas_grant(%s, %s, %s, %s, %s, %s, %s)",
            (transfer_id(kind, key), kind.value, tenant_id, amount_nanos, source.value, reason, expires_at),
        )
        return bool(cursor.fetchone()[0])
