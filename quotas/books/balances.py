"""What moved in a period: by kind of account and kind of transfer, with what was there before. As operator.

Everything that the books say of a period comes from one statement of SQL, so that it was so at one moment.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from django.db import connections

from quotas.models import AccountKind, TransferKind
from tenants.scope import scope_alias


@dataclass(frozen=True, slots=True)
class Movement:
    """All that transfers of one kind did to the accounts of one kind, in nano-units, neither below zero:
    debits took, credits gave."""

    account: AccountKind
    kind: TransferKind
    debits_nanos: int
    credits_nanos: int

    @property
    def net_nanos(self) -> int:
        return self.credits_nanos - self.debits_nanos


@dataclass(frozen=True, slots=True)
class Movements:
    """A period of one currency. openings: by kind of account, in nano-units; positive is a credit."""

    openings: dict[AccountKind, int]
    moved: tuple[Movement, ...]

    def opening(self, accounts: Collection[AccountKind]) -> int:
        return sum(self.openings.get(account, 0) for account in accounts)

    def of(
        self, accounts: Collection[AccountKind], kinds: Collection[TransferKind] | None = None
    ) -> Iterable[Movement]:
        """Those of these accounts; of these kinds of transfers, or of all."""
        return (one for one in self.moved if one.account in accounts and (kinds is None or one.kind in kinds))


# A closed month's balances stand for all that was posted before its end.
_MOVEMENTS: Final = """
WITH closed AS MATERIALIZED (
  SELECT max(month) AS month, quotas_month_end(max(month)) AS until FROM quotas_closedmonth
  WHERE quotas_month_end(month) <= %(since)s
), moved AS (
  SELECT a.kind AS account, t.kind, t.posted_at < %(since)s AS is_before,
    coalesce(-sum(e.amount_nanos) FILTER (WHERE e.amount_nanos < 0), 0)::bigint AS debits,
    coalesce(sum(e.amount_nanos) FILTER (WHERE e.amount_nanos > 0), 0)::bigint AS credits
  FROM quotas_ledgertransfer t JOIN quotas_ledgerentry e ON e.transfer_id = t.id
    JOIN quotas_ledgeraccount a ON a.id = e.account_id
  WHERE t.currency = %(currency)s AND t.posted_at < %(until)s
    AND t.posted_at >= coalesce((SELECT until FROM closed), '-infinity')
  GROUP BY 1, 2, 3
)
SELECT account, kind, is_before, debits, credits FROM moved
UNION ALL
SELECT account, NULL, true, greatest(-closing_nanos, 0), greatest(closing_nanos, 0)
FROM quotas_closedbalance WHERE currency = %(currency)s AND month_id = (SELECT month FROM closed)
"""


def read_movements(*, currency: str, since: datetime, until: datetime) -> Movements:
    """What moved from `since` until before `until`.

    Openings begin with the last month that was closed before.
    Errors: django.db.OperationalError when the period takes longer than the connection allows.
    """
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            _MOVEMENTS,
            {"currency": currency, "since": since, "until": until},
        )
        found = cursor.fetchall()
    openings: dict[AccountKind, int] = {}
    moved = []
    for account_text, kind, is_before, debits_nanos, credits_nanos in found:
        account = AccountKind(account_text)
        if is_before:
            openings[account] = openings.get(account, 0) + credits_nanos - debits_nanos
        else:
            moved.append(Movement(account, TransferKind(kind), debits_nanos, credits_nanos))
    return Movements(openings, tuple(moved))


def book_currencies() -> tuple[str, ...]:
    """The currencies that the ledger has accounts in."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT currency FROM quotas_ledgeraccount WHERE tenant_id IS NULL ORDER BY 1"
        )
        return tuple(currency for (currency,) in cursor.fetchall())


def first_month() -> date | None:
    """The first day (UTC) of the month of the first posting; None while there is none."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            "SELECT date_trunc('month', min(posted_at) AT TIME ZONE 'UTC')::date FROM quotas_ledgertransfer"
        )
        (found,) = cursor.fetchone()
    return found  # type: ignore[no-any-return]
