"""Stripe's books beside the clearing account: each line of either with its counterpart in the other.

A balance transaction has two parts, its amount and its fee, and each of them is one transfer of ours: a
charge its top-up, a refund its refund, a refund that failed its reversal, a dispute's movement its own. Fees
and payouts are posted from the balance transaction itself. What a transfer moved at Stripe is what it took
from STRIPE_CLEARING, whose balance stands negative for money of ours at Stripe.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from typing import Any, Final
from uuid import UUID

from django.db import connections

from portal.kit.ids import PREFIXES, public_id
from tenants.scope import scope_alias

# Types of balance transactions that are nothing but a fee of Stripe's.
FEE_TYPES: Final = ("stripe_fee", "stripe_fx_fee", "tax_fee", "network_cost", "application_fee")
MAX_ONE_SIDED: Final = 1_000
# Between Stripe and our bank, either way.
PAYOUT_TYPES: Final = ("payout", "payout_cancel", "payout_failure", "topup", "topup_reversal")

# One row for each transfer and each part of a balance transaction: transfer_id, balance_transaction_id, kind,
# currency, at, stripe_nanos, ledger_nanos. A side is null where it has no counterpart. A failed refund of
# which Stripe booked nothing took and gave the same, and stands on neither side.
LINES_SQL: Final = f"""
WITH parts AS MATERIALIZED (
  SELECT b.id, b.type, b.currency, b.created_at, -b.fee_nanos AS nanos, b.fee_transfer_id AS transfer_id
  FROM quotas_balancetransaction b WHERE b.fee_nanos <> 0 AND b.type NOT IN {FEE_TYPES}
  UNION ALL
  SELECT b.id, b.type, b.currency, b.created_at, b.amount_nanos - b.fee_nanos, b.fee_transfer_id
  FROM quotas_balancetransaction b WHERE b.type IN {FEE_TYPES} AND b.amount_nanos <> b.fee_nanos
  UNION ALL
  SELECT b.id, b.type, b.currency, b.created_at, b.amount_nanos, coalesce(b.transfer_id, m.transfer_id,
    CASE WHEN b.amount_nanos < 0 THEN r.transfer_id ELSE r.reversal_id END,
    CASE WHEN b.amount_nanos > 0 THEN t.transfer_id END)
  FROM quotas_balancetransaction b
  LEFT JOIN quotas_disputemovement m ON m.balance_transaction_id = b.id
  LEFT JOIN quotas_refund r ON r.refund_id = b.source_id
  LEFT JOIN quotas_topup t ON t.charge_id = b.source_id AND t.charge_id <> '' AND t.state = 'PAID'
  WHERE b.amount_nanos <> 0 AND b.type NOT IN {FEE_TYPES}
), stripe AS (
  SELECT coalesce(transfer_id::text, id || nanos) AS key, (array_agg(transfer_id))[1] AS transfer_id,
    min(id) AS id, min(type) AS type, currency, min(created_at) AS at, sum(nanos) AS nanos
  FROM parts GROUP BY 1, currency
), void AS (
  SELECT unnest(ARRAY[r.transfer_id, r.reversal_id]) AS transfer_id FROM quotas_refund r
  WHERE r.state = 'FAILED' AND NOT EXISTS (
    SELECT FROM quotas_balancetransaction b WHERE b.source_id = r.refund_id)
), ledger AS (
  SELECT t.id, t.kind, t.currency, t.posted_at AS at, -e.amount_nanos AS nanos
  FROM quotas_ledgertransfer t
  JOIN quotas_ledgerentry e ON e.transfer_id = t.id
    AND e.account_id = quotas_account_id(NULL, 'STRIPE_CLEARING', t.currency)
  WHERE t.kind <> 'USAGE' AND NOT EXISTS (SELECT FROM void v WHERE v.transfer_id = t.id)
)
SELECT coalesce(s.transfer_id, l.id) AS transfer_id, coalesce(s.id, '') AS balance_transaction_id,
  coalesce(l.kind, s.type) AS kind, coalesce(s.currency, l.currency) AS currency, coalesce(s.at, l.at) AS at,
  s.nanos AS stripe_nanos, l.nanos AS ledger_nanos
FROM stripe s FULL JOIN ledger l ON l.id = s.transfer_id AND l.currency = s.currency
"""  # noqa: S608

# Of the lines of a day only those come here that do not agree; the others are added up where they are. The
# row of a day and currency says how many lines it has, the row of a line says none.
_DAYS_SQL: Final = f"""
WITH lines AS MATERIALIZED (
  SELECT (at AT TIME ZONE 'UTC')::date AS day, * FROM ({LINES_SQL}) books WHERE at >= %(from)s AND at < %(to)s
)
SELECT day, currency, count(*) AS lines,
  count(*) FILTER (WHERE stripe_nanos IS DISTINCT FROM ledger_nanos), NULL::timestamptz AS at, NULL AS kind,
  NULL::uuid AS transfer_id, NULL AS balance_transaction_id,
  coalesce(sum(stripe_nanos), 0), coalesce(sum(ledger_nanos), 0)
FROM lines GROUP BY day, currency
UNION ALL (
  SELECT day, currency, NULL, NULL, at, kind, transfer_id, balance_transaction_id, stripe_nanos, ledger_nanos
  FROM lines WHERE stripe_nanos IS DISTINCT FROM ledger_nanos
  ORDER BY at, balance_transaction_id, transfer_id LIMIT %(most)s)
ORDER BY at, balance_transaction_id, transfer_id
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class OneSided:
    """What stands in one of the two books only, or in each with another amount; nano-units at Stripe.

    kind: of our transfer, or Stripe's type where there is none. A side that has nothing is None.
    """

    at: datetime
    kind: str
    transfer_id: UUID | None
    balance_transaction_id: str
    stripe_nanos: int | None
    ledger_nanos: int | None

    @property
    def public_id(self) -> str:
        """Of the transfer; empty where there is none."""
        return public_id(PREFIXES["transfer"], self.transfer_id) if self.transfer_id else ""

    @property
    def difference_nanos(self) -> int:
        return (self.stripe_nanos or 0) - (self.ledger_nanos or 0)


@dataclass(frozen=True, slots=True)
class DayMatch:
    """A day (UTC) at Stripe in one currency: what moved there and what we posted for it, in nano-units.

    A line belongs to the day at which Stripe booked it; one that Stripe does not have, to the day of its
    posting. lines: how many there are; differing: how many of them do not agree; one_sided: those, oldest
    first, of all days that were asked for together at most MAX_ONE_SIDED.
    """

    day: date
    currency: str
    stripe_nanos: int
    ledger_nanos: int
    lines: int
    differing: int
    one_sided: tuple[OneSided, ...] = field(default=())

    @property
    def difference_nanos(self) -> int:
        return self.stripe_nanos - self.ledger_nanos

    @property
    def is_matched(self) -> bool:
        return not self.differing


def match_days(*, since: date, until: date) -> list[DayMatch]:
    """Each day (UTC) and currency in which something moved, newest first; half-open. As operator."""
    from_, to = (datetime.combine(day, time(), tzinfo=UTC) for day in (since, until))
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(_DAYS_SQL, {"from": from_, "to": to, "most": MAX_ONE_SIDED})
        found = cursor.fetchall()
    one_sided: dict[tuple[date, str], list[OneSided]] = defaultdict(list)
    sums: dict[tuple[date, str], tuple[int, int, int, int]] = {}
    for day, currency, lines, differing, *values in found:
        if lines is None:
            one_sided[day, currency].append(_line(values))
        else:
            sums[day, currency] = (int(values[-2]), int(values[-1]), lines, differing)
    return [DayMatch(*key, *sums[key], tuple(one_sided[key])) for key in sorted(sums, reverse=True)]


def _line(values: Sequence[Any]) -> OneSided:
    at, kind, transfer_id, line_id, stripe_nanos, ledger_nanos = values
    stripe, ledger = (None if nanos is None else int(nanos) for nanos in (stripe_nanos, ledger_nanos))
    return OneSided(at, kind, transfer_id, line_id, stripe, ledger)
