"""Closing a month: from then on nothing is posted into it, and what it came to is kept. As operator."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from django.db import OperationalError, connections, transaction
from django.db.backends.utils import CursorWrapper

from quotas.books.balances import book_currencies, first_month, read_movements
from quotas.books.queries import TrialLine, trial_of
from quotas.models import AccountKind, ClosedBalance, ClosedMonth
from tenants.operations import audit
from tenants.scope import scope_alias

REST: Final = timedelta(hours=1)
"""How long after its end a month can be closed: transactions that posted in it have ended by then."""
WAIT_S: Final = 10
CHECK_TIMEOUT_S: Final = 250
_PAUSE_S: Final = 0.05


class MonthNotClosable(ValueError):
    """It is not the month to close next, or has not ended an hour ago."""


class ClosingBusy(RuntimeError):
    """Transactions that were posting, or another closing, did not end in time. Try again."""


class BooksDisagree(RuntimeError):
    """The ledger contradicts itself: transfers do not sum to zero, or wallets are not the sum of their
    entries. Nothing is closed; `audit` says more."""

    def __init__(self, transfers: int, wallets: int) -> None:
        super().__init__(f"{transfers} transfers and {wallets} wallets do not add up")
        self.transfers = transfers
        self.wallets = wallets


@dataclass(frozen=True, slots=True)
class Month:
    """A month of UTC. day: its first."""

    day: date

    @property
    def since(self) -> datetime:
        return datetime(self.day.year, self.day.month, 1, tzinfo=UTC)

    @property
    def until(self) -> datetime:
        return datetime(*_following(self.day), 1, tzinfo=UTC)

    @property
    def last_day(self) -> date:
        return (self.until - timedelta(days=1)).date()

    def __str__(self) -> str:
        return f"{self.day:%Y-%m}"


@dataclass(frozen=True, slots=True)
class NextMonth:
    """The month to close next, and from when on."""

    month: Month
    from_at: datetime
    is_ready: bool


@dataclass(frozen=True, slots=True)
class ClosedRow:
    """A closed month."""

    month: Month
    closed_at: datetime
    closed_by_email: str
    reason: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A line of a closed month that the ledger says otherwise today, by so much, in nano-units."""

    currency: str
    account: AccountKind
    opening_nanos: int
    debits_nanos: int
    credits_nanos: int


def next_month(*, now: datetime) -> NextMonth | None:
    """What is closed next; None while nothing was ever posted."""
    last = ClosedMonth.objects.order_by("-month").values_list("month", flat=True).first()
    day = date(*_following(last), 1) if last else first_month()
    if day is None:
        return None
    month = Month(day)
    return NextMonth(month, month.until + REST, is_ready=now >= month.until + REST)


def list_closed(*, limit: int = 60) -> list[ClosedRow]:
    """Closed months, the newest first."""
    rows = ClosedMonth.objects.order_by("-month").values_list(
        "month", "closed_at", "closed_by__email", "reason"
    )
    return [ClosedRow(Month(month), at, email, reason) for month, at, email, reason in rows[:limit]]


def close_month(*, month: date, reason: str, actor: audit.Actor, now: datetime) -> Month:
    """Close a month, by its first day, with the trial balance of every currency. As operator.

    Waits at most WAIT_S for transactions that posted before it began; holds up nobody else who posts.
    Errors: MonthNotClosable, ClosingBusy, BooksDisagree, audit.ReasonMissing.
    """
    assert actor.user_id is not None
    reason = audit.checked_reason(reason)
    closed = Month(month)
    with transaction.atomic(using=scope_alias()), connections[scope_alias()].cursor() as cursor:
        _wait_for_postings(cursor)
        following = next_month(now=now)
        if following is None or following.month.day != month or not following.is_ready:
            raise MonthNotClosable(f"{closed} is not the month to close now")
        cursor.execute(f"SET LOCAL statement_timeout = '{CHECK_TIMEOUT_S}s'")
        _check_ledger(cursor, closed)
        ClosedMonth.objects.create(month=month, closed_by_id=actor.user_id, reason=reason)
        lines = {currency: _lines(currency, closed) for currency in book_currencies()}
        ClosedBalance.objects.bulk_create(_balances(month, lines.items()))
        audit.record(
            actor=actor,
            action="books.close",
            target=str(closed),
            after={"month": str(closed), "currencies": list(lines)},
            reason=reason,
        )
    return closed


def differences(*, month: date) -> list[Difference]:
    """Where the ledger says something else today than when the month was closed: nowhere, as it should be.

    What was there before is what the month before was closed with; without one, all that was ever posted.
    """
    kept = {
        (row.currency, AccountKind(row.account)): row for row in ClosedBalance.objects.filter(month_id=month)
    }
    found = []
    for currency in sorted({*book_currencies(), *(currency for currency, _account in kept)}):
        for line in _lines(currency, Month(month)):
            row = kept.get((currency, line.account))
            difference = Difference(
                currency,
                line.account,
                line.opening_nanos - (row.opening_nanos if row else 0),
                line.debits_nanos - (row.debits_nanos if row else 0),
                line.credits_nanos - (row.credits_nanos if row else 0),
            )
            if difference.opening_nanos or difference.debits_nanos or difference.credits_nanos:
                found.append(difference)
    return found


def _following(day: date) -> tuple[int, int]:
    return (day.year + 1, 1) if day.month == 12 else (day.year, day.month + 1)


def _lines(currency: str, month: Month) -> tuple[TrialLine, ...]:
    return trial_of(read_movements(currency=currency, since=month.since, until=month.until)).lines


def _balances(month: date, lines: Iterable[tuple[str, tuple[TrialLine, ...]]]) -> Iterable[ClosedBalance]:
    for currency, of_currency in lines:
        for line in of_currency:
            yield ClosedBalance(
                month_id=month,
                currency=currency,
                account=line.account,
                opening_nanos=line.opening_nanos,
                debits_nanos=line.debits_nanos,
                credits_nanos=line.credits_nanos,
                closing_nanos=line.closing_nanos,
            )


# Who posts holds this lock on the table until the end of its transaction.
_POSTING: Final = """
SELECT coalesce(array_agg(DISTINCT virtualtransaction), '{}') FROM pg_locks
WHERE relation = 'quotas_ledgertransfer'::regclass AND mode = 'RowExclusiveLock' AND granted
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND pid <> pg_backend_pid()
"""


def _wait_for_postings(cursor: CursorWrapper) -> None:
    """Late postings wait from here on; those that were there before have ended when this returns."""
    cursor.execute("SELECT current_setting('lock_timeout')")
    (before,) = cursor.fetchone()
    try:
        cursor.execute(f"SET LOCAL lock_timeout = '{WAIT_S}s'")
        cursor.execute("SELECT pg_advisory_xact_lock(quotas_closing_lock())")
    except OperationalError as error:
        raise ClosingBusy("another closing, or a late posting, is under way") from error
    cursor.execute("SELECT set_config('lock_timeout', %s, true)", [before])
    deadline = time.monotonic() + WAIT_S
    waited_for: set[str] | None = None
    while True:
        cursor.execute(_POSTING)
        (running,) = cursor.fetchone()
        waited_for = set(running) if waited_for is None else waited_for & set(running)
        if not waited_for:
            return
        if time.monotonic() > deadline:
            raise ClosingBusy("somebody has been posting for a long time")
        time.sleep(_PAUSE_S)


_UNBALANCED: Final = """
SELECT count(*) FROM (
  SELECT 1 FROM quotas_ledgertransfer t JOIN quotas_ledgerentry e ON e.transfer_id = t.id
  WHERE t.posted_at >= %s AND t.posted_at < %s GROUP BY t.id HAVING sum(e.amount_nanos) <> 0) x
"""
_STRAY_WALLETS: Final = """
SELECT count(*) FROM quotas_wallet w FULL JOIN (
  SELECT a.tenant_id,
    coalesce(sum(e.nanos) FILTER (WHERE a.kind = 'TOPPED_UP'), 0) AS paid,
    coalesce(sum(e.nanos) FILTER (WHERE a.kind = 'GRANTED'), 0) AS granted,
    coalesce(sum(e.nanos) FILTER (WHERE a.kind = 'RECEIVABLE'), 0) AS receivable
  FROM (SELECT account_id, sum(amount_nanos) AS nanos FROM quotas_ledgerentry GROUP BY account_id) e
    JOIN quotas_ledgeraccount a ON a.id = e.account_id
  WHERE a.tenant_id IS NOT NULL GROUP BY a.tenant_id) s ON s.tenant_id = w.tenant_id
WHERE w.tenant_id IS NULL OR (w.paid_nanos, w.granted_nanos, w.receivable_nanos)
  IS DISTINCT FROM (coalesce(s.paid, 0), coalesce(s.granted, 0), coalesce(s.receivable, 0))
"""


def _check_ledger(cursor: CursorWrapper, month: Month) -> None:
    cursor.execute(_UNBALANCED, [month.since, month.until])
    (transfers,) = cursor.fetchone()
    cursor.execute(_STRAY_WALLETS)
    (wallets,) = cursor.fetchone()
    if transfers or wallets:
        raise BooksDisagree(transfers, wallets)
