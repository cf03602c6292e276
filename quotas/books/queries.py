"""The books of a period: trial balance, roll-forwards, and who owes for how long. As operator.

Amounts are nano-units of one currency; nothing is converted. A period takes what was posted in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from django.db import connections

from portal.kit.ids import PREFIXES, public_id
from quotas.books.balances import Movements, read_movements
from quotas.models import AccountKind, TransferKind
from tenants.scope import scope_alias

AGE_LIMITS_DAYS: Final = (30, 60, 90)
"""What is owed for at most so many whole days; the fourth part is older."""
MAX_DEBTORS: Final = 500


@dataclass(frozen=True, slots=True)
class TrialLine:
    """All accounts of one kind. closing = opening + credits - debits; positive is a credit balance."""

    account: AccountKind
    opening_nanos: int
    debits_nanos: int
    credits_nanos: int

    @property
    def closing_nanos(self) -> int:
        return self.opening_nanos + self.credits_nanos - self.debits_nanos


@dataclass(frozen=True, slots=True)
class TrialBalance:
    """A line for each kind of account, whether it moved or not."""

    lines: tuple[TrialLine, ...]

    @property
    def totals(self) -> tuple[int, int, int, int]:
        """Opening, debits, credits, closing over all lines: the outer two are zero, the inner two equal."""
        return (
            sum(line.opening_nanos for line in self.lines),
            sum(line.debits_nanos for line in self.lines),
            sum(line.credits_nanos for line in self.lines),
            sum(line.closing_nanos for line in self.lines),
        )

    @property
    def is_balanced(self) -> bool:
        opening, debits, credits, closing = self.totals
        return opening == closing == 0 and debits == credits


class Book(StrEnum):
    """Accounts that are rolled forward together."""

    PAID = "paid"  # deferred revenue: paid credit, less what is owed to us
    GRANTED = "granted"
    TAX = "tax"
    STRIPE = "stripe"
    BANK = "bank"
    FEES = "fees"


class Step(StrEnum):
    """What leads from an opening to a closing balance."""

    TOP_UPS = "top-ups"
    USED = "used"
    REFUNDS = "refunds"
    REFUNDS_REVERSED = "refunds-reversed"
    CHARGEBACKS = "chargebacks"
    REINSTATED = "reinstated"
    GRANTS = "grants"
    EXPIRED = "expired"
    FEES = "fees"
    PAYOUTS = "payouts"
    OTHER = "other"  # corrections by operators and by credit notes; and what should not be there


_STEPS: Final[Mapping[TransferKind, Step]] = {
    TransferKind.TOP_UP: Step.TOP_UPS,
    TransferKind.USAGE: Step.USED,
    TransferKind.REFUND: Step.REFUNDS,
    TransferKind.REFUND_REVERSED: Step.REFUNDS_REVERSED,
    TransferKind.CHARGEBACK: Step.CHARGEBACKS,
    TransferKind.REINSTATED: Step.REINSTATED,
    TransferKind.GRANT: Step.GRANTS,
    TransferKind.EXPIRY: Step.EXPIRED,
    TransferKind.PAYMENT_FEE: Step.FEES,
    TransferKind.PAYOUT: Step.PAYOUTS,
    TransferKind.ADJUSTMENT: Step.OTHER,
    TransferKind.SURPLUS: Step.OTHER,
}
_PAID_BACK: Final = (Step.REFUNDS, Step.REFUNDS_REVERSED, Step.CHARGEBACKS, Step.REINSTATED)


@dataclass(frozen=True, slots=True)
class BookShape:
    """sign: -1 where the house's assets and expenses, which stand negative, read better as what there is.

    steps: its lines, in their order; whatever else moves its accounts stands in OTHER.
    """

    accounts: tuple[AccountKind, ...]
    steps: tuple[Step, ...]
    sign: int = 1


BOOKS: Final[Mapping[Book, BookShape]] = {
    Book.PAID: BookShape(
        (AccountKind.TOPPED_UP, AccountKind.RECEIVABLE), (Step.TOP_UPS, Step.USED, *_PAID_BACK)
    ),
    Book.GRANTED: BookShape((AccountKind.GRANTED,), (Step.GRANTS, Step.USED, Step.EXPIRED)),
    Book.TAX: BookShape((AccountKind.TAX_PAYABLE,), (Step.TOP_UPS, *_PAID_BACK)),
    Book.STRIPE: BookShape(
        (AccountKind.STRIPE_CLEARING,), (Step.TOP_UPS, *_PAID_BACK, Step.FEES, Step.PAYOUTS), sign=-1
    ),
    Book.BANK: BookShape((AccountKind.CASH_CLEARING,), (Step.TOP_UPS, Step.PAYOUTS), sign=-1),
    Book.FEES: BookShape((AccountKind.PAYMENT_FEES,), (Step.FEES,), sign=-1),
}


@dataclass(frozen=True, slots=True)
class RollLine:
    """One step and the kinds of transfers that it is the sum of."""

    step: Step
    kinds: tuple[TransferKind, ...]
    amount_nanos: int


@dataclass(frozen=True, slots=True)
class RollForward:
    """opening + all lines = closing. Every kind of transfer stands in exactly one line."""

    book: Book
    accounts: tuple[AccountKind, ...]
    opening_nanos: int
    lines: tuple[RollLine, ...]
    closing_nanos: int

    @property
    def adds_up(self) -> bool:
        return self.opening_nanos + sum(line.amount_nanos for line in self.lines) == self.closing_nanos


@dataclass(frozen=True, slots=True)
class PeriodBooks:
    """All of it, as it was at one moment."""

    trial_balance: TrialBalance
    roll_forwards: Mapping[Book, RollForward]


def period_books(*, currency: str, since: datetime, until: datetime) -> PeriodBooks:
    """The trial balance and every roll-forward of a period.

    Openings begin with the last month that was closed before. Errors: django.db.OperationalError when the
    period takes longer to sum than the connection allows.
    """
    movements = read_movements(currency=currency, since=since, until=until)
    return PeriodBooks(trial_of(movements), {book: _rolled(book, movements) for book in Book})


def trial_balance(*, currency: str, since: datetime, until: datetime) -> TrialBalance:
    """The trial balance alone; errors as period_books."""
    return trial_of(read_movements(currency=currency, since=since, until=until))


def roll_forward(*, book: Book = Book.PAID, currency: str, since: datetime, until: datetime) -> RollForward:
    """One roll-forward alone; errors as period_books."""
    return _rolled(book, read_movements(currency=currency, since=since, until=until))


def trial_of(movements: Movements) -> TrialBalance:
    return TrialBalance(
        tuple(
            TrialLine(
                account,
                movements.opening([account]),
                sum(one.debits_nanos for one in movements.of([account])),
                sum(one.credits_nanos for one in movements.of([account])),
            )
            for account in AccountKind
        )
    )


def step_kinds(book: Book, step: Step) -> tuple[TransferKind, ...]:
    """The kinds of transfers that a line of a book is the sum of."""
    steps = BOOKS[book].steps
    return tuple(
        kind
        for kind in TransferKind
        if (own := _STEPS[kind]) == step or (step == Step.OTHER and own not in steps)
    )


def _rolled(book: Book, movements: Movements) -> RollForward:
    shape = BOOKS[book]
    lines = tuple(
        RollLine(
            step,
            kinds := step_kinds(book, step),
            shape.sign * sum(one.net_nanos for one in movements.of(shape.accounts, kinds)),
        )
        for step in (*shape.steps, Step.OTHER)
    )
    opening_nanos = movements.opening(shape.accounts)
    closing_nanos = opening_nanos + sum(one.net_nanos for one in movements.of(shape.accounts))
    return RollForward(book, shape.accounts, shape.sign * opening_nanos, lines, shape.sign * closing_nanos)


@dataclass(frozen=True, slots=True)
class AgedDebt:
    """What one organization owes, by how long it has: parts as AGE_LIMITS_DAYS, in nano-units above zero."""

    tenant_id: UUID
    organization: str
    parts_nanos: tuple[int, int, int, int]
    oldest_at: datetime

    @property
    def organization_id(self) -> str:
        return public_id(PREFIXES["organization"], self.tenant_id)

    @property
    def total_nanos(self) -> int:
        return sum(self.parts_nanos)


@dataclass(frozen=True, slots=True)
class Ageing:
    """Who owed at a moment, the oldest debt first; of at most MAX_DEBTORS. totals_nanos: of all of them."""

    debts: tuple[AgedDebt, ...]
    totals_nanos: tuple[int, int, int, int]
    is_cut: bool

    @property
    def total_nanos(self) -> int:
        return sum(self.totals_nanos)


# Payments pay the oldest debt first, so what is still owed is the newest of what was ever owed.
_AGEING: Final = """
WITH debts AS MATERIALIZED (
  SELECT t.tenant_id, t.posted_at, e.amount_nanos AS amount,
    sum(e.amount_nanos) OVER (PARTITION BY t.tenant_id) AS balance,
    coalesce(sum(least(e.amount_nanos, 0)) OVER (
      PARTITION BY t.tenant_id ORDER BY t.posted_at DESC, t.id DESC
      ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS newer
  FROM quotas_ledgertransfer t JOIN quotas_ledgerentry e ON e.transfer_id = t.id
    AND e.account_id = quotas_account_id(t.tenant_id, 'RECEIVABLE', t.currency)
  WHERE t.currency = %(currency)s AND t.posted_at < %(at)s AND (t.kind <> 'USAGE' OR t.revision > 1)
), owed AS (
  SELECT tenant_id, posted_at, least(-amount, -balance + newer) AS part,
    extract(epoch FROM %(at)s - posted_at) / 86400 AS age
  FROM debts WHERE amount < 0 AND balance < newer
), aged AS (
  SELECT tenant_id, min(posted_at) AS oldest_at,
    coalesce(sum(part) FILTER (WHERE age < %(first)s + 1), 0)::bigint AS a,
    coalesce(sum(part) FILTER (WHERE age >= %(first)s + 1 AND age < %(second)s + 1), 0)::bigint AS b,
    coalesce(sum(part) FILTER (WHERE age >= %(second)s + 1 AND age < %(third)s + 1), 0)::bigint AS c,
    coalesce(sum(part) FILTER (WHERE age >= %(third)s + 1), 0)::bigint AS d
  FROM owed GROUP BY tenant_id
)
SELECT g.tenant_id, o.name, g.a, g.b, g.c, g.d, g.oldest_at,
  (sum(a) OVER ())::bigint, (sum(b) OVER ())::bigint, (sum(c) OVER ())::bigint, (sum(d) OVER ())::bigint
FROM aged g JOIN tenants_tenant o ON o.id = g.tenant_id
ORDER BY g.oldest_at, g.tenant_id LIMIT %(limit)s
"""


def ageing(*, currency: str, at: datetime, limit: int = MAX_DEBTORS) -> Ageing:
    """Who owed at `at`, and since when. Payments count for the oldest debt. limit: 1 to MAX_DEBTORS."""
    limit = max(1, min(limit, MAX_DEBTORS))
    first, second, third = AGE_LIMITS_DAYS
    parameters: dict[str, Any] = {
        "currency": currency,
        "at": at,
        "first": first,
        "second": second,
        "third": third,
        "limit": limit + 1,
    }
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(_AGEING, parameters)
        found = cursor.fetchall()
    debts = tuple(
        AgedDebt(tenant_id, name, (a, b, c, d), oldest_at)
        for tenant_id, name, a, b, c, d, oldest_at, *_totals in found[:limit]
    )
    a, b, c, d = found[0][7:] if found else (0, 0, 0, 0)
    return Ageing(debts, (a, b, c, d), is_cut=len(found) > limit)
