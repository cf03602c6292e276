"""Stripe's own books: each balance transaction is kept as it stands there, and its fee and what no event of
ours accounts for, the payouts, are posted once. quotas.payments.stripe_matching compares them with ours.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final

import stripe
from django.db import transaction
from django.db.models import Min

from portal.kit.ids import transfer_id
from portal.kit.money import UnknownCurrency, from_minor_units
from quotas.ledger import payments as ledger
from quotas.models import (
    AccountKind,
    BalanceTransaction,
    LedgerAccount,
    PollCursor,
    StripeOperation,
    TransferKind,
)
from quotas.payments.client import stripe_client, takes_cards
from quotas.payments.sending import error_text, require_no_transaction
from quotas.payments.stripe_matching import FEE_TYPES, PAYOUT_TYPES, DayMatch, match_days
from tenants.scope import role_scope, scope_alias

logger = logging.getLogger(__name__)

CURSOR: Final = "balance_transactions"
# Read again each time, and once a day: what was there already changes nothing.
OVERLAP: Final = timedelta(hours=2)
DAILY_OVERLAP: Final = timedelta(days=3)
WINDOW: Final = timedelta(days=1)
MAX_WINDOWS: Final = 40
PAGE_SIZE: Final = 100
# What is younger may still be on its way to us.
GRACE: Final = timedelta(hours=24)
CHECKED_DAYS: Final = 35


@dataclass(frozen=True, slots=True)
class PullReport:
    """read: lines of Stripe's books that were looked at; is_complete: up to now."""

    read: int
    is_complete: bool


def pull_balance_transactions(*, now: datetime, overlap: timedelta = OVERLAP) -> PullReport:
    """Read on in Stripe's books, day by day from where the cursor stands, and post what is to be posted.

    overlap: how much is read again. Each page commits by itself, the cursor after each day: who is killed
    begins there again. Does nothing
    without a key of Stripe, and before anything was asked of it. Opens scopes of its own.
    Errors: quotas.payments.sending.TransactionOpen, stripe.StripeError (noted at the cursor).
    """
    require_no_transaction()
    start = _start(overlap) if takes_cards() else None
    if start is None:
        return PullReport(0, is_complete=True)
    read = 0
    for _ in range(MAX_WINDOWS):
        end = start + WINDOW
        is_last = end >= now
        try:
            read += _read_window(start, None if is_last else end)
        except stripe.StripeError as error:
            _note_cursor(None, now, error_text(error))
            raise
        _note_cursor(now if is_last else end, now)
        if is_last:
            return PullReport(read, is_complete=True)
        start = end
    return PullReport(read, is_complete=False)


def record_lines(*, lines: Iterable[Mapping[str, Any]]) -> None:
    """Keep balance transactions and post their fees and payouts, each once. As operator, in an open
    transaction, before the wallet is locked.

    lines: as Stripe has them. One in a currency that no wallet has is kept and not posted; nothing is
    converted.
    """
    # Those who do this at once lock in the same order.
    for line in sorted(lines, key=lambda line: str(line["id"])):
        _record(line)


def _record(line: Mapping[str, Any]) -> None:
    currency = str(line["currency"]).upper()
    try:
        amount_nanos, fee_nanos = (from_minor_units(line[name], currency) for name in ("amount", "fee"))
    except UnknownCurrency:
        logger.exception("quotas.payments.unknown_currency", extra={"line": line["id"]})
        return
    row = BalanceTransaction(
        id=line["id"],
        type=str(line["type"])[:64],
        reporting_category=str(line.get("reporting_category") or "")[:64],
        currency=currency,
        amount_nanos=amount_nanos,
        fee_nanos=fee_nanos,
        source_id=_source_id(line.get("source")),
        created_at=datetime.fromtimestamp(line["created"], tz=UTC),
        available_at=datetime.fromtimestamp(line["available_on"], tz=UTC),
    )
    BalanceTransaction.objects.bulk_create([row], ignore_conflicts=True)
    kept = BalanceTransaction.objects.select_for_update(no_key=True).get(id=row.id)
    if (kept.currency, kept.amount_nanos, kept.fee_nanos) != (currency, amount_nanos, fee_nanos):
        logger.error("quotas.payments.line_changed", extra={"line": kept.id})
        return
    _post(kept)


def match_books(*, now: datetime) -> list[DayMatch]:
    """Read the last days in Stripe's books once more, and answer those that differ: see differing_days.
    Opens scopes of its own. Errors: as pull_balance_transactions."""
    pull_balance_transactions(now=now, overlap=DAILY_OVERLAP)
    return differing_days(now=now)


def differing_days(*, now: datetime) -> list[DayMatch]:
    """The days of the last CHECKED_DAYS, without what is younger than GRACE, on which Stripe's books and ours
    do not agree. Opens a scope of its own."""
    until = (now - GRACE).astimezone(UTC).date()
    with role_scope("operator"):
        days = match_days(since=until - timedelta(days=CHECKED_DAYS), until=until)
    return [day for day in days if not day.is_matched]


def _start(overlap: timedelta) -> datetime | None:
    """Where to read on: a little before the cursor, or before we first asked Stripe for anything."""
    with role_scope("operator"):
        read_to = PollCursor.objects.filter(name=CURSOR).values_list("read_to", flat=True).first()
        first = read_to or StripeOperation.objects.aggregate(first=Min("created_at"))["first"]
    return None if first is None else first - overlap


def _read_window(start: datetime, end: datetime | None) -> int:
    created: dict[str, int] = {"gte": int(start.timestamp())}
    if end is not None:
        created["lt"] = int(end.timestamp())
    lines = _listed(created)
    read = 0
    while page := _next_page(lines):
        with role_scope("operator"), transaction.atomic(using=scope_alias()):
            record_lines(lines=page)
        read += len(page)
    return read


def _listed(created: Any) -> Iterator[Mapping[str, Any]]:
    listed = stripe_client().v1.balance_transactions.list({"created": created, "limit": PAGE_SIZE})
    for line in listed.auto_paging_iter():
        yield line.to_dict()


def _next_page(lines: Iterator[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The next lines, read before anything is locked."""
    return list(islice(lines, PAGE_SIZE))


def _post(kept: BalanceTransaction) -> None:
    if not LedgerAccount.objects.filter(
        tenant=None, kind=AccountKind.STRIPE_CLEARING, currency=kept.currency
    ).exists():
        logger.error("quotas.payments.foreign_currency", extra={"line": kept.id, "currency": kept.currency})
        return
    is_fee = kept.type in FEE_TYPES
    fee_nanos = kept.fee_nanos - (kept.amount_nanos if is_fee else 0)
    if fee_nanos and kept.fee_transfer_id is None:
        kept.fee_transfer_id = _move(kept, TransferKind.PAYMENT_FEE, AccountKind.PAYMENT_FEES, fee_nanos)
    if kept.type in PAYOUT_TYPES and kept.amount_nanos and kept.transfer_id is None:
        kept.transfer_id = _move(kept, TransferKind.PAYOUT, AccountKind.CASH_CLEARING, -kept.amount_nanos)
    kept.save(update_fields=["fee_transfer_id", "transfer_id"])


def _move(kept: BalanceTransaction, kind: TransferKind, other: AccountKind, amount_nanos: int) -> Any:
    posted_id = transfer_id(kind, f"stripe:{kept.id}")
    ledger.move_house(
        transfer_id=posted_id,
        kind=kind,
        currency=kept.currency,
        source=other,
        target=AccountKind.STRIPE_CLEARING,
        amount_nanos=amount_nanos,
        reason=f"Stripe {kept.reporting_category or kept.type} ({kept.id})"[:500],
    )
    return posted_id


def _note_cursor(read_to: datetime | None, now: datetime, error: str = "") -> None:
    """Where reading goes on; without a place it stays where it is."""
    with role_scope("operator"):
        values: dict[str, Any] = {"polled_at": now, "error": error}
        if read_to is not None:
            values["read_to"] = read_to
        if not PollCursor.objects.filter(name=CURSOR).update(**values) and read_to is not None:
            PollCursor.objects.bulk_create([PollCursor(name=CURSOR, **values)], ignore_conflicts=True)


def _source_id(source: Any) -> str:
    found = source["id"] if isinstance(source, Mapping) else source
    return str(found or "")
