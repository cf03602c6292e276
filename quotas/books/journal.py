"""The journal: every entry of the ledger in the order of posting, by pages and as comma-separated values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from django.db import connections

from portal.kit.ids import PREFIXES, public_id
from quotas.csv_text import Cell, amount, csv_text, moment, safe_text
from quotas.models import AccountKind, TransferKind
from tenants.scope import role_scope, scope_alias

MAX_PAGE_ROWS: Final = 200
CSV_PAGE_ROWS: Final = 1000
JOURNAL_CSV_COLUMNS: Final = (
    "posted_at",
    "transfer",
    "kind",
    "organization",
    "account",
    "amount",
    "currency",
    "reason",
)


class Side(StrEnum):
    DEBIT = "debit"  # entries below zero
    CREDIT = "credit"


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """Which entries. since None: from the beginning; empty accounts, kinds: all of them."""

    currency: str
    until: datetime
    since: datetime | None = None
    accounts: tuple[AccountKind, ...] = ()
    kinds: tuple[TransferKind, ...] = ()
    side: Side | None = None
    tenant_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class EntryCursor:
    """The entry behind which the next page begins."""

    posted_at: datetime
    transfer_id: UUID
    account_id: UUID


@dataclass(frozen=True, slots=True)
class EntryRow:
    """One leg of a transfer, in nano-units. organization: whose transfer it is; empty for the house's own."""

    transfer_id: UUID
    account_id: UUID
    posted_at: datetime
    kind: TransferKind
    tenant_id: UUID | None
    organization: str
    account: AccountKind
    amount_nanos: int
    currency: str
    reason: str

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["transfer"], self.transfer_id)

    @property
    def organization_id(self) -> str:
        return public_id(PREFIXES["organization"], self.tenant_id) if self.tenant_id else ""


@dataclass(frozen=True, slots=True)
class EntryPage:
    """Entries, the oldest first; `next` is what `after` takes for the page behind this one."""

    rows: tuple[EntryRow, ...]
    next: EntryCursor | None


# The keys of the transfers come first, in the order of an index; entries are few for each.
_ENTRIES: Final = """
SELECT t.id, e.account_id, t.posted_at, t.kind, t.tenant_id, coalesce(o.name, ''), a.kind, e.amount_nanos,
  t.currency, t.reason
FROM quotas_ledgertransfer t JOIN quotas_ledgerentry e ON e.transfer_id = t.id
  JOIN quotas_ledgeraccount a ON a.id = e.account_id
  LEFT JOIN tenants_tenant o ON o.id = t.tenant_id
WHERE t.currency = %(currency)s AND t.posted_at >= %(since)s AND t.posted_at < %(until)s
  AND (%(kinds)s::text[] IS NULL OR t.kind = ANY (%(kinds)s::text[]))
  AND (%(tenant)s::uuid IS NULL OR t.tenant_id = %(tenant)s)
  AND (%(accounts)s::text[] IS NULL OR a.kind = ANY (%(accounts)s::text[]))
  AND (%(side)s::text IS NULL OR (e.amount_nanos < 0) = (%(side)s::text = 'debit'))
  AND (t.posted_at, t.id) >= (%(after_at)s, %(after_id)s)
  AND ((t.posted_at, t.id) > (%(after_at)s, %(after_id)s) OR e.account_id > %(after_account)s)
ORDER BY t.posted_at, t.id, e.account_id LIMIT %(limit)s
"""
_BEGINNING: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_NOWHERE: Final = UUID(int=0)


def list_entries(*, filters: EntryFilter, after: EntryCursor | None = None, limit: int = 50) -> EntryPage:
    """A page of entries, oldest first. limit: 1 to MAX_PAGE_ROWS. As operator.

    Errors: django.db.OperationalError when it takes longer than the connection allows.
    """
    return _page(filters, after, max(1, min(limit, MAX_PAGE_ROWS)))


def iter_journal_csv(*, filters: EntryFilter) -> Iterator[str]:
    """The entries as text of comma-separated values, a piece for each CSV_PAGE_ROWS; amounts are exact.

    Opens the operator's scope itself, for each piece anew, so that it can be read after the caller's scope is
    closed, in any thread, and a slow reader holds no transaction open. What is posted meanwhile into a period
    that has not ended may be in it or not.
    """
    yield csv_text([JOURNAL_CSV_COLUMNS])
    after: EntryCursor | None = None
    while True:
        with role_scope("operator"):
            page = _page(filters, after, CSV_PAGE_ROWS)
        if page.rows:
            yield csv_text(_csv_row(row) for row in page.rows)
        if page.next is None:
            return
        after = page.next


def _page(filters: EntryFilter, after: EntryCursor | None, limit: int) -> EntryPage:
    since = filters.since or _BEGINNING
    parameters: dict[str, Any] = {
        "currency": filters.currency,
        "since": since,
        "until": filters.until,
        "accounts": [account.value for account in filters.accounts] or None,
        "kinds": [kind.value for kind in filters.kinds] or None,
        "side": filters.side.value if filters.side else None,
        "tenant": filters.tenant_id,
        "after_at": after.posted_at if after else since,
        "after_id": after.transfer_id if after else _NOWHERE,
        "after_account": after.account_id if after else _NOWHERE,
        "limit": limit + 1,
    }
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(_ENTRIES, parameters)
        found = cursor.fetchall()
    rows = tuple(
        EntryRow(
            transfer_id,
            account_id,
            posted_at,
            TransferKind(kind),
            tenant_id,
            name,
            AccountKind(account),
            amount_nanos,
            currency,
            reason,
        )
        for (
            transfer_id,
            account_id,
            posted_at,
            kind,
            tenant_id,
            name,
            account,
            amount_nanos,
            currency,
            reason,
        ) in found[:limit]
    )
    following = None
    if len(found) > limit:
        last = rows[-1]
        following = EntryCursor(last.posted_at, last.transfer_id, last.account_id)
    return EntryPage(rows, following)


def _csv_row(row: EntryRow) -> tuple[Cell | None, ...]:
    return (
        moment(row.posted_at),
        row.public_id,
        row.kind.value,
        row.organization_id or None,
        row.account.value,
        amount(row.amount_nanos),
        row.currency,
        safe_text(row.reason),
    )
