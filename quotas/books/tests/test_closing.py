"""A month closes once, in its order, with what the ledger says; nothing is posted into it afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from django.db import IntegrityError, transaction

from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from quotas.books import closing
from quotas.books.closing import (
    BooksDisagree,
    ClosingBusy,
    MonthNotClosable,
    close_month,
    differences,
    list_closed,
    next_month,
)
from quotas.books.queries import Book, period_books
from quotas.books.tests.past import FIRST, SECOND, closed_for_the_test, move_to
from quotas.models import ClosedBalance, ClosedMonth
from tenants.operations import audit
from tenants.scope import role_scope
from tests.database import connected, rows_of
from tests.factories import TenantFixture, add_paid, make_tenant
from tests.people import make_person

pytestmark = pytest.mark.usefixtures("database")
UNIT = 10**9


@pytest.fixture
def old(database: None) -> Iterator[TenantFixture]:
    """An organization that was given and paid something in the first month of all, and more in the second."""
    with closed_for_the_test():
        tenant = make_tenant(granted="1.00", paid="5.00")
        move_to(tenant.id, FIRST.since + timedelta(days=3))
        add_paid(tenant.id, 2 * UNIT)
        move_to(tenant.id, SECOND.since)
        yield tenant


@pytest.fixture(scope="module")
def actor(database: None) -> audit.Actor:
    return audit.operator(make_person("operator", is_staff=True).id)


def close(month: closing.Month, actor: audit.Actor) -> None:
    with role_scope("operator"):
        close_month(month=month.day, reason="month end", actor=actor, now=utc_now())


def test_months_close_one_after_the_other_and_roll_on_to_the_unit(
    old: TenantFixture, actor: audit.Actor
) -> None:
    with pytest.raises(MonthNotClosable):
        close(SECOND, actor)
    close(FIRST, actor)
    with pytest.raises(MonthNotClosable):
        close(FIRST, actor)
    with role_scope("operator"):
        before = period_books(currency="USD", since=SECOND.since, until=SECOND.until)
    close(SECOND, actor)
    with role_scope("operator"):
        after = period_books(currency="USD", since=SECOND.since, until=SECOND.until)
        later = period_books(currency="USD", since=SECOND.until, until=utc_now())
        assert [row.month for row in list_closed()] == [SECOND, FIRST]
        assert differences(month=FIRST.day) == differences(month=SECOND.day) == []
        following = next_month(now=utc_now())
        assert following is not None
        assert str(following.month) == "2001-03"
        assert following.is_ready
    assert before == after
    for book in Book:
        assert after.roll_forwards[book].adds_up
        assert later.roll_forwards[book].adds_up
        assert after.roll_forwards[book].closing_nanos == later.roll_forwards[book].opening_nanos
    wallets = rows_of("quotas_wallet", currency="USD")
    assert later.roll_forwards[Book.PAID].closing_nanos == sum(
        row["paid_nanos"] + row["receivable_nanos"] for row in wallets
    )
    (event,) = rows_of("tenants_auditevent", action="books.close", target="2001-02", actor_id=actor.user_id)
    assert event["reason"] == "month end"


def test_nothing_is_posted_into_a_closed_month(old: TenantFixture, actor: audit.Actor) -> None:
    close(FIRST, actor)

    def insert(at: datetime) -> None:
        with connected("dataplane", autocommit=False) as dataplane:
            dataplane.execute(
                "INSERT INTO quotas_ledgertransfer (id, kind, tenant_id, currency, reason, payload_sha256, "
                "posted_at) VALUES (%s, 'GRANT', %s, 'USD', '', %s, %s)",
                (uuid7(), old.id, bytes(32), at),
            )

    insert(FIRST.until)
    insert(utc_now())
    with pytest.raises(psycopg.errors.CheckViolation, match="books of 2001-01 are closed"):
        insert(FIRST.until - timedelta(microseconds=1))


def test_what_runs_is_not_closed(old: TenantFixture) -> None:
    now = datetime(2001, 2, 1, 0, 59, 59, tzinfo=UTC)
    with role_scope("operator"):
        following = next_month(now=now)
        assert following is not None
        assert following.month == FIRST
        assert not following.is_ready
        following = next_month(now=now + timedelta(seconds=1))
        assert following is not None
        assert following.is_ready


def test_who_is_posting_is_waited_for(
    old: TenantFixture, actor: audit.Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "WAIT_S", 0.2)
    with connected("operator", autocommit=False) as posting:
        posting.execute("SELECT quotas_credit(%s, 'GRANT', %s, 1, 'PROMOTION', '')", (uuid7(), old.id))
        with pytest.raises(ClosingBusy):
            close(FIRST, actor)
    close(FIRST, actor)


def test_books_that_disagree_are_not_closed(
    old: TenantFixture, actor: audit.Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "_STRAY_WALLETS", "SELECT 1")
    with pytest.raises(BooksDisagree):
        close(FIRST, actor)
    assert not rows_of("quotas_closedmonth")


def test_a_closed_month_stays_as_it_is(old: TenantFixture, actor: audit.Actor) -> None:
    close(FIRST, actor)
    for statement in (
        "UPDATE quotas_closedmonth SET reason = 'x'",
        "DELETE FROM quotas_closedbalance",
        "UPDATE quotas_closedbalance SET closing_nanos = closing_nanos",
        "INSERT INTO quotas_closedbalance SELECT gen_random_uuid(), 'EUR', account, 0, 0, 0, 0, month_id "
        "FROM quotas_closedbalance LIMIT 1",
    ):
        with connected("owner") as owner, pytest.raises(psycopg.errors.RestrictViolation):
            owner.execute(statement)


def test_a_trial_balance_that_does_not_continue_or_balance_is_refused(
    old: TenantFixture, actor: audit.Actor
) -> None:
    assert actor.user_id is not None
    month = ClosedMonth(month=FIRST.day, closed_by_id=actor.user_id, reason="wrong")
    for opening in (0, 5):
        balance = ClosedBalance(
            month_id=FIRST.day,
            currency="USD",
            account="REVENUE",
            opening_nanos=opening,
            debits_nanos=0,
            credits_nanos=3,
            closing_nanos=opening + 3,
        )
        with role_scope("operator"), pytest.raises(IntegrityError, match="does not"):
            _insert(month, balance)


def _insert(month: ClosedMonth, balance: ClosedBalance) -> None:
    with transaction.atomic(using="operator"):
        month.save(force_insert=True)
        balance.save(force_insert=True)


def test_a_difference_to_what_was_closed_is_shown(old: TenantFixture, actor: audit.Actor) -> None:
    close(FIRST, actor)
    with connected("owner", autocommit=False) as owner:
        owner.execute("ALTER TABLE quotas_closedbalance DISABLE TRIGGER USER")
        owner.execute(
            "UPDATE quotas_closedbalance SET credits_nanos = credits_nanos + 3, "
            "closing_nanos = closing_nanos + 3 WHERE currency = 'USD' AND account = 'REVENUE'"
        )
        owner.execute("ALTER TABLE quotas_closedbalance ENABLE TRIGGER USER")
        owner.commit()
    with role_scope("operator"):
        (found,) = differences(month=FIRST.day)
    assert (found.account, found.credits_nanos, found.debits_nanos) == ("REVENUE", -3, 0)
