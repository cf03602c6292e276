"""Whatever is posted, the books add up to the unit, and say the same as the wallets."""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from hypothesis import given, settings
from hypothesis import strategies as st

from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from quotas.books.journal import EntryFilter, EntryRow, Side, iter_journal_csv, list_entries
from quotas.books.queries import (
    BOOKS,
    Book,
    Step,
    ageing,
    period_books,
    roll_forward,
    step_kinds,
    trial_balance,
)
from quotas.books.tests.past import never_happened, was_at
from quotas.ledger import operations as ledger
from quotas.ledger.payments import move_house, pay_back, pay_in
from quotas.models import AccountKind, TransferKind, Wallet
from tenants.scope import role_scope
from tests.factories import TenantFixture, make_tenant

pytestmark = pytest.mark.usefixtures("database")
UNIT = 10**9
FOREVER = datetime(2999, 1, 1, tzinfo=UTC)
SINCE = datetime(2998, 1, 1, tzinfo=UTC)
HOUSE = {
    "fee": (TransferKind.PAYMENT_FEE, AccountKind.PAYMENT_FEES),
    "payout": (TransferKind.PAYOUT, AccountKind.CASH_CLEARING),
}
CREDIT: dict[str, Any] = {
    "grant": ledger.grant_credit,
    "make_up": ledger.make_up,
    "take_back": ledger.take_back,
}
PAY_INS = (TransferKind.TOP_UP, TransferKind.REFUND_REVERSED, TransferKind.REINSTATED)
PAY_BACKS = (TransferKind.REFUND, TransferKind.CHARGEBACK)

amounts = st.integers(1, 50 * UNIT)
steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(PAY_INS), amounts, st.integers(0, UNIT)),
        st.tuples(st.sampled_from(PAY_BACKS), amounts, st.integers(0, UNIT)),
        st.tuples(st.sampled_from([*HOUSE, *CREDIT]), amounts, st.just(0)),
    ),
    max_size=10,
)


def post(tenant: TenantFixture, what: TransferKind | str, amount_nanos: int, tax_nanos: int = 0) -> None:
    """One posting; what the ledger refuses is not posted. In never_happened."""
    moved: dict[str, Any] = {"transfer_id": uuid7(), "reason": "for the test", "amount_nanos": amount_nanos}
    paid = moved | {"tenant_id": tenant.id, "tax_nanos": tax_nanos}
    try:
        with transaction.atomic(using="owner"):
            if what in PAY_INS:
                pay_in(kind=TransferKind(what), **paid)
            elif what in PAY_BACKS:
                pay_back(kind=TransferKind(what), is_forced=True, **paid)
            elif what in HOUSE:
                kind, source = HOUSE[what]
                move_house(
                    kind=kind,
                    source=source,
                    target=AccountKind.STRIPE_CLEARING,
                    currency=tenant.currency,
                    **moved,
                )
            else:
                CREDIT[what](
                    tenant_id=tenant.id,
                    amount_nanos=amount_nanos,
                    key=f"test:{uuid7()}",
                    reason="for the test",
                )
    except IntegrityError:
        assert what == "take_back"


def wallet_sums() -> tuple[int, int, int]:
    wallets = list(Wallet.objects.filter(currency="USD"))
    return (
        sum(one.paid_nanos for one in wallets),
        sum(one.granted_nanos for one in wallets),
        sum(one.receivable_nanos for one in wallets),
    )


@pytest.fixture(scope="module")
def tenant(database: None) -> TenantFixture:
    return make_tenant(granted=None)


@settings(max_examples=20)
@given(before=steps, within=steps)
def test_every_roll_forward_adds_up_and_ends_with_the_wallets(
    tenant: TenantFixture, before: list[Any], within: list[Any]
) -> None:
    with never_happened():
        for step in before:
            post(tenant, *step)
        was_at(SINCE - timedelta(seconds=1))
        for step in within:
            post(tenant, *step)
        was_at(SINCE)
        books = period_books(currency="USD", since=SINCE, until=FOREVER)
        past = period_books(currency="USD", since=datetime(2000, 1, 1, tzinfo=UTC), until=SINCE)
        debts = ageing(currency="USD", at=FOREVER)
        paid, granted, receivable = wallet_sums()
    assert books.trial_balance.is_balanced
    assert past.trial_balance.is_balanced
    assert all(one.adds_up for one in books.roll_forwards.values())
    assert books.roll_forwards[Book.PAID].closing_nanos == paid + receivable
    assert books.roll_forwards[Book.GRANTED].closing_nanos == granted
    assert debts.total_nanos == -receivable
    for book in Book:
        assert books.roll_forwards[book].opening_nanos == past.roll_forwards[book].closing_nanos


def test_every_kind_of_transfer_stands_in_exactly_one_line_of_each_book() -> None:
    for book in Book:
        kinds = [kind for step in (*BOOKS[book].steps, Step.OTHER) for kind in step_kinds(book, step)]
        assert sorted(kinds) == sorted(TransferKind)


def test_lines_say_what_was_posted(tenant: TenantFixture) -> None:
    with never_happened():
        for what, amount, tax in (
            (TransferKind.TOP_UP, 20 * UNIT, UNIT),
            (TransferKind.REFUND, 5 * UNIT, 0),
            (TransferKind.CHARGEBACK, 18 * UNIT, 0),
            ("grant", 2 * UNIT, 0),
            ("fee", UNIT // 2, 0),
            ("payout", 4 * UNIT, 0),
        ):
            post(tenant, what, amount, tax)
        was_at(SINCE)
        until = SINCE + timedelta(seconds=1)
        books = period_books(currency="USD", since=SINCE, until=until)
        lines = trial_balance(currency="USD", since=SINCE, until=until).lines
        paid = roll_forward(currency="USD", since=SINCE, until=until)
        taxes = list_entries(
            filters=EntryFilter(
                "USD",
                until,
                SINCE,
                (AccountKind.TAX_PAYABLE,),
                (TransferKind.TOP_UP,),
                Side.CREDIT,
                tenant.id,
            )
        )
    moved = {
        book: {line.step: line.amount_nanos for line in books.roll_forwards[book].lines if line.amount_nanos}
        for book in Book
    }
    assert moved == {
        Book.PAID: {Step.TOP_UPS: 20 * UNIT, Step.REFUNDS: -5 * UNIT, Step.CHARGEBACKS: -18 * UNIT},
        Book.GRANTED: {Step.GRANTS: 2 * UNIT},
        Book.TAX: {Step.TOP_UPS: UNIT},
        Book.FEES: {Step.FEES: UNIT // 2},
        Book.STRIPE: {
            Step.TOP_UPS: 21 * UNIT,
            Step.REFUNDS: -5 * UNIT,
            Step.CHARGEBACKS: -18 * UNIT,
            Step.FEES: -UNIT // 2,
            Step.PAYOUTS: -4 * UNIT,
        },
        Book.BANK: {Step.PAYOUTS: 4 * UNIT},
    }
    assert paid == books.roll_forwards[Book.PAID]
    assert {line.account for line in lines} == set(AccountKind)
    assert [row.amount_nanos for row in taxes.rows] == [UNIT]


def test_payments_count_for_the_oldest_debt(tenant: TenantFixture) -> None:
    now = utc_now()

    def parts(at: datetime) -> tuple[int, ...]:
        found = [one for one in ageing(currency="USD", at=at).debts if one.tenant_id == tenant.id]
        return tuple(part // UNIT for part in found[0].parts_nanos) if found else ()

    with never_happened():
        for days, what, amount in (
            (100, TransferKind.CHARGEBACK, 10),
            (70, TransferKind.CHARGEBACK, 7),
            (40, TransferKind.CHARGEBACK, 5),
            (35, TransferKind.TOP_UP, 12),
            (5, TransferKind.CHARGEBACK, 3),
        ):
            post(tenant, what, amount * UNIT)
            was_at(now - timedelta(days=days))
        assert parts(now) == (3, 5, 5, 0)
        assert parts(now - timedelta(days=36)) == (5, 7, 10, 0)
        assert parts(now - timedelta(days=200)) == ()


def test_entries_come_by_pages_and_as_a_journal() -> None:
    tenant = make_tenant(granted=None)
    with role_scope("operator"):
        for number in range(3):
            ledger.record_receipt(
                tenant_id=tenant.id, amount_nanos=UNIT, key=f"test:{tenant.id}:{number}", reason="=1+1"
            )
        wanted = EntryFilter("USD", FOREVER, utc_now() - timedelta(minutes=5), tenant_id=tenant.id)
        whole = list_entries(filters=wanted).rows
        pages: list[EntryRow] = []
        after = None
        for _page in range(3):
            page = list_entries(filters=wanted, after=after, limit=2)
            pages += page.rows
            after = page.next
    assert after is None
    assert len(whole) == 6
    assert pages == list(whole)
    assert sum(row.amount_nanos for row in whole) == 0
    header, *lines = csv.reader(StringIO("".join(iter_journal_csv(filters=wanted))))
    assert header[0] == "posted_at"
    assert [(line[3], line[7]) for line in lines] == [(tenant.public_id, "'=1+1")] * 6
