"""Stripe's books: each line once, fees and payouts posted, and every difference shown where it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import stripe
from django.db import transaction

from devstack.stripe_standin.testing import Standin, running_standin
from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from portal.kit.money import NANOS_PER_UNIT as UNIT
from quotas.payments import stripe_books, stripe_matching
from quotas.payments.disputes import apply_dispute
from quotas.payments.moneyback_queries import list_days
from quotas.payments.refunds import apply_refund
from quotas.payments.tests.moneyback_side import (
    assert_audit_holds,
    differing_lines,
    pay,
    refund,
    refunds_of,
)
from quotas.payments.tests.stripe_side import configure
from tenants.scope import role_scope
from tenants.tests.people import at_once
from tests.database import connected, rows_of
from tests.factories import make_tenant


@pytest.fixture
def own_standin(database: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Standin]:
    """An account in which nothing has happened, read from its beginning."""
    with running_standin(tmp_path / "stripe") as running:
        configure(monkeypatch, running)
        monkeypatch.setattr(stripe_books, "CURSOR", f"books-{uuid7().hex[-12:]}")
        yield running


def pull(**options: Any) -> stripe_books.PullReport:
    return stripe_books.pull_balance_transactions(now=utc_now(), **options)


def line_ids(standin: Standin) -> list[str]:
    return [row["id"] for row in standin.control.books()["balance_transactions"]]


def clearing_of(currency: str) -> int:
    """The clearing account's balance, in nano-units."""
    with connected("operator") as connection:
        row = connection.execute(
            "SELECT coalesce(sum(amount_nanos), 0)::bigint FROM quotas_ledgerentry"
            " WHERE account_id = quotas_account_id(NULL, 'STRIPE_CLEARING', %s)",
            (currency,),
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_everything_that_happened_is_in_both_books(own_standin: Standin) -> None:
    standin, tenant = own_standin, make_tenant("CNY", granted=None)
    before = clearing_of("CNY")
    first, second, third, fourth = (pay(standin, tenant, units) for units in (20, 30, 40, 50))
    refund(first, 5)
    made = standin.control.refund(payment=second.charge_id, amount=700)
    apply_refund(refund_id=made["id"], now=utc_now())
    standin.control.fail_refund(refund=made["id"], reason="unknown")
    apply_refund(refund_id=made["id"], now=utc_now())
    won, lost = (standin.control.open_dispute(payment=one.charge_id) for one in (third, fourth))
    standin.control.close_dispute(dispute=won["id"], won=True, fee_returned=True)
    standin.control.close_dispute(dispute=lost["id"], won=False)
    standin.control.make_payout(only_available=False)
    for dispute in (won, lost):
        apply_dispute(dispute_id=dispute["id"], now=utc_now())
    answers = at_once([pull for _ in range(4)])
    assert all(isinstance(one, stripe_books.PullReport) for one in answers), answers
    assert pull().is_complete
    books = standin.control.books()
    rows = {row["id"]: row for row in rows_of("quotas_balancetransaction")}
    for line in books["balance_transactions"]:
        kept = rows[line["id"]]
        assert (kept["amount_nanos"], kept["fee_nanos"], kept["type"]) == (
            line["amount"] * UNIT // 100,
            line["fee"] * UNIT // 100,
            line["type"],
        )
        assert (kept["fee_transfer_id"] is not None) == (line["fee"] != 0)
        assert (kept["transfer_id"] is not None) == (line["type"] == "payout")
    # What is left at Stripe is what the clearing account says, to the coin.
    at_stripe = sum(line["net"] for line in books["balance_transactions"])
    assert before - clearing_of("CNY") == at_stripe * UNIT // 100
    assert differing_lines(line_ids(standin), tenant.id) == []
    assert_audit_holds()


def test_a_day_shows_what_is_on_one_side_only(own_standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    standin, tenant = own_standin, make_tenant(granted=None)
    paid = pay(standin, tenant)
    # Not read yet: it is on our side only.
    [(kind, line_id, at_stripe, ours)] = differing_lines(line_ids(standin), tenant.id)
    assert (kind, line_id, at_stripe, ours) == ("TOP_UP", "", None, 20 * UNIT)
    pull()
    assert differing_lines(line_ids(standin), tenant.id) == []
    made = standin.control.refund(payment=paid.charge_id, amount=500)
    pull()
    [(kind, line_id, at_stripe, ours)] = differing_lines(line_ids(standin), tenant.id)
    assert (kind, line_id != "", at_stripe, ours) == ("refund", True, -5 * UNIT, None)
    today = datetime.now(tz=UTC).date()
    with role_scope("operator"):
        days = list_days(since=today, until=today + timedelta(days=2))
    day = next(one for one in days if one.currency == "USD" and one.day == today)
    assert not day.is_matched
    (shown,) = [one for one in day.one_sided if one.balance_transaction_id == line_id]
    assert (shown.transfer_id, shown.difference_nanos, shown.public_id) == (None, -5 * UNIT, "")
    assert day.difference_nanos == sum(one.difference_nanos for one in day.one_sided)
    assert day.differing == len(day.one_sided) < day.lines
    # However many lines differ, few are read, and a day is not called matched for it.
    monkeypatch.setattr(stripe_matching, "MAX_ONE_SIDED", 0)
    with role_scope("operator"):
        days = list_days(since=today, until=today + timedelta(days=1))
    again = next(one for one in days if one.currency == "USD")
    assert again.one_sided == ()
    assert (again.is_matched, again.lines, again.differing) == (False, day.lines, day.differing)
    assert again.difference_nanos == day.difference_nanos
    apply_refund(refund_id=made["id"], now=utc_now())
    assert differing_lines(line_ids(standin), tenant.id) == []


def test_a_refund_that_stripe_never_booked_stands_on_neither_side(own_standin: Standin) -> None:
    standin, tenant = own_standin, make_tenant(granted=None)
    paid = pay(standin, tenant)
    standin.control.refund(payment=paid.charge_id, amount=2_000)
    assert refund(paid).state == "FAILED"
    pull()
    # The dashboard's is Stripe's only, ours is nobody's.
    [(kind, *_)] = differing_lines(line_ids(standin), tenant.id)
    assert kind == "refund"
    assert [row.refund_id for row in refunds_of(paid)] == [None]


def test_reading_goes_on_where_it_stopped(own_standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    standin, tenant = own_standin, make_tenant(granted=None)
    pay(standin, tenant)
    monkeypatch.setattr(stripe_books, "PAGE_SIZE", 1)
    pay(standin, tenant)
    standin.control.fault("error_before", match="GET /v1/balance_transactions")
    with pytest.raises(stripe.StripeError):
        pull()
    cursors = rows_of("quotas_pollcursor", name=stripe_books.CURSOR)
    assert cursors == [] or cursors[0]["error"]
    report = pull()
    assert report.is_complete
    assert report.read == 2
    (cursor,) = rows_of("quotas_pollcursor", name=stripe_books.CURSOR)
    assert cursor["error"] == ""
    assert differing_lines(line_ids(standin), tenant.id) == []
    pay(standin, tenant)
    assert pull(overlap=timedelta(seconds=30)).read >= 1
    assert differing_lines(line_ids(standin), tenant.id) == []


def test_lines_of_other_kinds(database: None) -> None:
    """A fee of Stripe's alone, a payout that failed, a currency that no wallet has, one that is unknown."""

    def line(kind: str, amount: int, fee: int = 0, currency: str = "usd") -> dict[str, Any]:
        now_s = int(utc_now().timestamp())
        return {
            "id": f"txn_{uuid7().hex}",
            "type": kind,
            "reporting_category": "fee",
            "currency": currency,
            "amount": amount,
            "fee": fee,
            "source": None,
            "created": now_s,
            "available_on": now_s,
        }

    lines = [
        line("stripe_fee", -25),
        line("payout_failure", 4_000),
        line("charge", 900, 30, "eur"),
        line("charge", 900, 30, "xts"),
    ]
    before = clearing_of("USD")
    with role_scope("operator"), transaction.atomic(using="operator"):
        for _ in range(2):
            stripe_books.record_lines(lines=lines)
    fee, failure, euro = (rows_of("quotas_balancetransaction", id=one["id"])[0] for one in lines[:3])
    assert (fee["fee_transfer_id"] is not None, fee["transfer_id"]) == (True, None)
    assert failure["transfer_id"] is not None
    assert (euro["fee_transfer_id"], euro["transfer_id"]) == (None, None)
    assert rows_of("quotas_balancetransaction", id=lines[3]["id"]) == []
    assert before - clearing_of("USD") == 3_975 * UNIT // 100
    kinds = [kind for kind, *_ in differing_lines([one["id"] for one in lines])]
    # What was kept and not posted is reported: the amount and the fee of the euro charge.
    assert kinds == ["charge", "charge"]


def test_a_line_that_has_changed_is_not_taken(database: None, caplog: pytest.LogCaptureFixture) -> None:
    now_s = int(utc_now().timestamp())
    line: dict[str, Any] = {
        "id": f"txn_{uuid7().hex}",
        "type": "payout",
        "currency": "usd",
        "amount": -500,
        "fee": 0,
        "source": "po_1",
        "created": now_s,
        "available_on": now_s,
    }
    for amount in (-500, -600):
        with role_scope("operator"), transaction.atomic(using="operator"):
            stripe_books.record_lines(lines=[json.loads(json.dumps(line | {"amount": amount}))])
    (row,) = rows_of("quotas_balancetransaction", id=line["id"])
    assert row["amount_nanos"] == -5 * UNIT
    assert "quotas.payments.line_changed" in caplog.text


def test_the_daily_match_reads_first_and_can_be_done_again(own_standin: Standin) -> None:
    tenant = make_tenant(granted=None)
    pay(own_standin, tenant)
    for _ in range(2):
        # Everything in this database is younger than what counts as a difference.
        assert stripe_books.match_books(now=utc_now()) == []
    assert differing_lines(line_ids(own_standin), tenant.id) == []


def test_nothing_is_read_without_a_key(database: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.conf import settings

    monkeypatch.setattr(settings, "STRIPE_SECRET_KEY", "")
    assert pull() == stripe_books.PullReport(0, is_complete=True)
    assert isinstance(stripe_books.match_books(now=utc_now()), list)
