"""Reads of the ledger that are a tenant's own: its statement of account, whole and by pages."""

import json
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connections, transaction
from django.db.backends.utils import CursorWrapper

from quotas.models import Correction, InferenceRequest, UsageRecord, Wallet
from tenants.scope import scope_alias, tenant_scope

PAGE_SIZE = 500
MAX_PAGE_ROWS = 200
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


@dataclass(frozen=True, slots=True)
class WalletBalance:
    """What a tenant has at this moment, in nano-units of `currency`.

    pending_nanos is held by calls under way; available_nanos is what a new call may hold at most.
    """

    currency: str
    paid_nanos: int
    granted_nanos: int
    owed_nanos: int
    pending_nanos: int
    overdraft_nanos: int

    @property
    def total_nanos(self) -> int:
        return self.paid_nanos + self.granted_nanos - self.owed_nanos

    @property
    def available_nanos(self) -> int:
        return self.paid_nanos + self.granted_nanos + self.overdraft_nanos - self.pending_nanos


def wallet_balance(*, tenant_id: UUID) -> WalletBalance:
    """The tenant's wallet now. Errors: StatementNotFound."""
    wallet = Wallet.objects.filter(tenant_id=tenant_id).first()
    if wallet is None:
        raise StatementNotFound("there is no such organization")
    return WalletBalance(
        wallet.currency,
        wallet.paid_nanos,
        wallet.granted_nanos,
        -wallet.receivable_nanos,
        wallet.pending_nanos,
        wallet.overdraft_nanos,
    )


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


@dataclass(frozen=True, slots=True)
class StatementCursor:
    """The line behind which the next page of a statement begins, and the balance behind that line.

    Whoever gives it to a browser signs it: the balance is believed.
    """

    posted_at: datetime
    transfer_id: UUID
    balance_nanos: int


@dataclass(frozen=True, slots=True)
class StatementRow:
    """One transfer, as StatementLine. model_slug: of usage. reason: of what is not usage. cause: a
    CorrectionCause, of usage that was corrected afterwards."""

    transfer_id: UUID
    kind: str
    posted_at: datetime
    request_id: UUID | None
    model_slug: str | None
    reason: str
    amount_nanos: int
    balance_nanos: int
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class KindSum:
    """All transfers of one kind in a period: how many, and what they did to the balance in nano-units."""

    kind: str
    transfers: int
    amount_nanos: int


@dataclass(frozen=True, slots=True)
class StatementSummary:
    """A period as a whole: opening + the sums of all kinds = closing."""

    currency: str
    opening: Balance
    closing: Balance
    kinds: tuple[KindSum, ...]


@dataclass(frozen=True, slots=True)
class StatementPage:
    """A page of a statement, oldest line first; `next` is None on the last one.

    `summary` comes with the first page only: it adds the whole period up, and the pages behind it cost
    no more than what they show.
    """

    summary: StatementSummary | None
    rows: tuple[StatementRow, ...]
    next: StatementCursor | None


# The balances are those of all transfers, also of those that a choice of kinds leaves out; hence the span
# from the cursor to the last line, which without such a choice is the page itself.
_PAGE = """
WITH page AS MATERIALIZED (
  SELECT t.id, t.kind, t.posted_at, t.request_id, t.reason
  FROM quotas_ledgertransfer t
  WHERE t.tenant_id = %(tenant)s AND t.posted_at >= %(after_at)s AND t.posted_at < %(to)s
    AND (t.posted_at, t.id) > (%(after_at)s, %(after_id)s)
    AND (%(kinds)s::text[] IS NULL OR t.kind = ANY (%(kinds)s::text[]))
  ORDER BY t.posted_at, t.id LIMIT %(limit)s
), last AS MATERIALIZED (
  SELECT posted_at, id FROM page ORDER BY posted_at DESC, id DESC LIMIT 1
), span AS (
  SELECT t.id, t.posted_at, (
    SELECT coalesce(sum(e.amount_nanos), 0)::bigint FROM quotas_ledgerentry e
    WHERE e.transfer_id = t.id AND e.tenant_id = t.tenant_id) AS amount
  FROM quotas_ledgertransfer t
  WHERE t.tenant_id = %(tenant)s
    AND t.posted_at >= %(after_at)s AND t.posted_at <= (SELECT posted_at FROM last)
    AND (t.posted_at, t.id) > (%(after_at)s, %(after_id)s)
    AND (t.posted_at, t.id) <= ((SELECT posted_at FROM last), (SELECT id FROM last))
), running AS (
  SELECT id, amount, sum(amount) OVER (ORDER BY posted_at, id)::bigint AS balance FROM span
)
SELECT w.currency, w.paid_nanos, w.granted_nanos, -w.receivable_nanos, s.parts,
  p.id, p.kind, p.posted_at, p.request_id, p.reason, r.amount, r.balance
FROM quotas_wallet w CROSS JOIN (SELECT CASE WHEN %(is_first)s THEN (
  -- What was posted since the beginning: by kind, and by kind and account, on either side of the end.
  SELECT coalesce(jsonb_agg(jsonb_build_array(g.kind, g.account, g.is_after, g.transfers, g.amount)), '[]')
  FROM (
    SELECT t.kind, CASE WHEN grouping(a.kind) = 1 THEN '*' ELSE a.kind END AS account,
      t.posted_at >= %(to)s AS is_after, count(DISTINCT t.id) AS transfers,
      coalesce(sum(e.amount_nanos), 0)::bigint AS amount
    FROM quotas_ledgertransfer t
    LEFT JOIN quotas_ledgerentry e ON e.transfer_id = t.id AND e.tenant_id = t.tenant_id
    LEFT JOIN quotas_ledgeraccount a ON a.id = e.account_id
    WHERE t.tenant_id = %(tenant)s AND t.posted_at >= %(from)s
    GROUP BY GROUPING SETS ((t.kind, t.posted_at >= %(to)s), (t.kind, a.kind, t.posted_at >= %(to)s))) g
) END) AS s(parts)
LEFT JOIN (page p JOIN running r USING (id)) ON true
WHERE w.tenant_id = %(tenant)s
ORDER BY p.posted_at, p.id
"""


def statement_page(
    *,
    tenant_id: UUID,
    from_at: datetime,
    to_at: datetime,
    kinds: Sequence[str] = (),
    after: StatementCursor | None = None,
    limit: int = 50,
) -> StatementPage:
    """A page of a tenant's transfers from `from_at` until before `to_at`, in the scope that is open.

    Each page is one statement of SQL, so what it says was so at one moment. kinds: only these; every line
    has the balance of the whole account all the same. limit: 1 to MAX_PAGE_ROWS.
    Errors: StatementNotFound.
    """
    limit = max(1, min(limit, MAX_PAGE_ROWS))
    parameters: dict[str, Any] = {
        "tenant": tenant_id,
        "from": from_at,
        "to": to_at,
        "after_at": after.posted_at if after else from_at,
        "after_id": after.transfer_id if after else UUID(int=0),
        "kinds": list(kinds) or None,
        "limit": limit + 1,
        "is_first": after is None,
    }
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(_PAGE, parameters)
        found = cursor.fetchall()
    if not found:
        raise StatementNotFound("there is no such organization")
    currency, *wallet = found[0][:4]
    summary = None if after else _summary(currency, Balance(*wallet), json.loads(found[0][4]))
    start_nanos = after.balance_nanos if after else summary.opening.total_nanos if summary else 0
    lines = [row[5:] for row in found if row[5] is not None]
    request_ids = [line[3] for line in lines[:limit] if line[3] is not None]
    slugs, causes = _model_slugs(request_ids), _causes(tenant_id, request_ids)
    rows = tuple(
        StatementRow(
            transfer_id,
            kind,
            at,
            request_id,
            slugs.get(request_id),
            reason,
            amount,
            start_nanos + sum_nanos,
            causes.get(transfer_id),
        )
        for transfer_id, kind, at, request_id, reason, amount, sum_nanos in lines[:limit]
    )
    following = (
        StatementCursor(rows[-1].posted_at, rows[-1].transfer_id, rows[-1].balance_nanos)
        if len(lines) > limit
        else None
    )
    return StatementPage(summary, rows, following)


def _summary(currency: str, now: Balance, parts: list[list[Any]]) -> StatementSummary:
    """Opening and closing are the wallet less what was posted since, as those of a Statement."""
    since_from, since_to = Counter[str](), Counter[str]()
    kinds = []
    for kind, account, is_after, transfers, amount_nanos in parts:
        if account == "*":
            if not is_after:
                kinds.append(KindSum(kind, transfers, amount_nanos))
        elif account is not None:
            since_from[account] += amount_nanos
            since_to[account] += amount_nanos if is_after else 0
    opening, closing = (
        _less(now, Balance(part["TOPPED_UP"], part["GRANTED"], -part["RECEIVABLE"]))
        for part in (since_from, since_to)
    )
    return StatementSummary(currency, opening, closing, tuple(sorted(kinds, key=lambda sums: sums.kind)))


def _model_slugs(request_ids: Sequence[UUID]) -> dict[UUID | None, str]:
    """Which models the calls used. The range of ids keeps the read to the days that they are of."""
    if not request_ids:
        return {}
    return dict(
        InferenceRequest.objects.filter(
            id__range=(min(request_ids), max(request_ids)), id__in=request_ids
        ).values_list("id", "model__slug")
    )


def _causes(tenant_id: UUID, request_ids: Sequence[UUID]) -> dict[UUID, str]:
    """Why usage was corrected, by the transfer that posted it. Most pages have no correction, so those are
    looked for first."""
    if not request_ids:
        return {}
    # Bounds of the ids spare the other days' partitions.
    between = {"request_id__gte": min(request_ids), "request_id__lte": max(request_ids)}
    corrections = Correction.objects.filter(tenant_id=tenant_id, request_id__in=request_ids, **between)
    causes = {(one.request_id, one.revision): str(one.cause) for one in corrections}
    if not causes:
        return {}
    corrected = [request_id for request_id, _revision in causes]
    posted = UsageRecord.objects.filter(
        tenant_id=tenant_id, request_id__in=corrected, transfer_id__isnull=False, **between
    ).values_list("request_id", "revision", "transfer_id")
    return {
        transfer_id: causes[request_id, revision]
        for request_id, revision, transfer_id in posted
        if transfer_id is not None and (request_id, revision) in causes
    }
