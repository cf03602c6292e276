"""Reads of the ledger that are a tenant's own: its statement of account."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import connections, transaction
from django.db.backends.utils import CursorWrapper

from tenants.scope import tenant_scope

PAGE_SIZE = 500
STATEMENT_TIMEOUT_S = 60


class StatementNotFound(LookupError):
    """There is no such organization, or it has no wallet."""


@dataclass(frozen=True, slots=True)
class Balance:
    """What a tenant has, in nano-units: credit that was paid and granted, less what is owed (>= 0)."""

    paid_nanos: int
    granted_nanos: int
    owed_nanos: int

    @property
    def total_nanos(self) -> int:
        return self.paid_nanos + self.granted_nanos - self.owed_nanos


@dataclass(frozen=True, slots=True)
class StatementLine:
    """One transfer: what it did to the tenant's balance, and the balance behind it, in nano-units.

    amount_nanos is 0 for a transfer that moved the house's accounts only. request_id: of usage.
    """

    transfer_id: UUID
    kind: str
    posted_at: datetime
    request_id: UUID | None
    amount_nanos: int
    balance_nanos: int


@dataclass(frozen=True, slots=True)
class Statement:
    """A tenant's account over a period.

    opening and closing come from the stored wallet, less what was posted since; the lines from the
    transfers of the period, oldest first. So they are two witnesses, and should agree. pending_nanos
    is what is held at the moment of reading. `lines` reads pages, and only as long as its statement
    is open.
    """

    name: str
    currency: str
    opening: Balance
    closing: Balance
    pending_nanos: int
    lines: Iterator[StatementLine]


@contextmanager
def open_statement(
    *, tenant_id: UUID, from_at: datetime | None = None, to_at: datetime | None = None
) -> Iterator[Statement]:
    """The statement of a tenant from `from_at` until before `to_at`; without them, of everything.

    Opens the tenant's scope itself, outermost, because all of it is read in one snapshot.
    Errors: StatementNotFound.
    """
    with transaction.atomic(using="tenant", durable=True):
        with connections["tenant"].cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            cursor.execute(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT_S}s'")
        with tenant_scope(tenant_id), connections["tenant"].cursor() as cursor:
            name, currency, now, pending_nanos = _wallet(cursor, tenant_id)
            closing = now if to_at is None else _less(now, _posted_since(cursor, tenant_id, to_at))
            opening = (
                Balance(0, 0, 0) if from_at is None else _less(now, _posted_since(cursor, tenant_id, from_at))
            )
            lines = _lines(tenant_id, from_at, to_at, opening.total_nanos)
            try:
                yield Statement(name, currency, opening, closing, pending_nanos, lines)
            finally:
                lines.close()


def _wallet(cursor: CursorWrapper, tenant_id: UUID) -> tuple[str, str, Balance, int]:
    cursor.execute(
        "SELECT t.name, w.currency, w.paid_nanos, w.granted_nanos, -w.receivable_nanos, w.pending_nanos "
        "FROM quotas_wallet w JOIN tenants_tenant t ON t.id = w.tenant_id WHERE w.tenant_id = %s",
        [tenant_id],
    )
    row = cursor.fetchone()
    if row is None:
        raise StatementNotFound("there is no such organization")
    name, currency, paid_nanos, granted_nanos, owed_nanos, pending_nanos = row
    return name, currency, Balance(paid_nanos, granted_nanos, owed_nanos), pending_nanos


def _posted_since(cursor: CursorWrapper, tenant_id: UUID, moment: datetime) -> Balance:
    cursor.execute(
        "SELECT coalesce(sum(e.amount_nanos) FILTER (WHERE a.kind = 'TOPPED_UP'), 0)::bigint, "
        "coalesce(sum(e.amount_nanos) FILTER (WHERE a.kind = 'GRANTED'), 0)::bigint, "
        "coalesce(-sum(e.amount_nanos) FILTER (WHERE a.kind = 'RECEIVABLE'), 0)::bigint "
        "FROM quotas_ledgertransfer t JOIN quotas_ledgerentry e ON e.transfer_id = t.id "
        "JOIN quotas_ledgeraccount a ON a.id = e.account_id "
        "WHERE t.tenant_id = %(tenant)s AND e.tenant_id = %(tenant)s AND t.posted_at >= %(moment)s",
        {"tenant": tenant_id, "moment": moment},
    )
    return Balance(*cursor.fetchone())


def _less(balance: Balance, part: Balance) -> Balance:
    return Balance(
        balance.paid_nanos - part.paid_nanos,
        balance.granted_nanos - part.granted_nanos,
        balance.owed_nanos - part.owed_nanos,
    )


def _lines(
    tenant_id: UUID, from_at: datetime | None, to_at: datetime | None, balance_nanos: int
) -> Generator[StatementLine, None, None]:
    """The transfers of a period through a cursor of the server, a page at a time."""
    with connections["tenant"].chunked_cursor() as cursor:
        cursor.execute(
            "SELECT t.id, t.kind, t.posted_at, t.request_id, "
            "(SELECT coalesce(sum(e.amount_nanos), 0)::bigint FROM quotas_ledgerentry e "
            " WHERE e.transfer_id = t.id AND e.tenant_id = t.tenant_id) "
            "FROM quotas_ledgertransfer t WHERE t.tenant_id = %(tenant)s "
            "AND (%(from)s::timestamptz IS NULL OR t.posted_at >= %(from)s) "
            "AND (%(to)s::timestamptz IS NULL OR t.posted_at < %(to)s) ORDER BY t.posted_at, t.id",
            {"tenant": tenant_id, "from": from_at, "to": to_at},
        )
        while page := cursor.fetchmany(PAGE_SIZE):
            for transfer_id, kind, posted_at, request_id, amount_nanos in page:
                balance_nanos += amount_nanos
                yield StatementLine(transfer_id, kind, posted_at, request_id, amount_nanos, balance_nanos)
