"""The whole story of a debt: a lost dispute and a late correction on nothing, until the month is closed."""

from __future__ import annotations

from datetime import timedelta

from devstack.stripe_standin.testing import Standin
from portal.kit.clock import utc_now
from quotas.books.closing import close_month, differences
from quotas.books.queries import Book, period_books
from quotas.books.tests.past import FIRST, closed_for_the_test, move_to
from quotas.ledger import operations as ledger
from quotas.payments.disputes import apply_dispute
from quotas.payments.stripe_books import pull_balance_transactions
from quotas.payments.tests.moneyback_side import (
    TOKENS_PER_UNIT,
    UNIT,
    an_operator,
    assert_audit_holds,
    make_dear_model,
    pay,
    spend,
    state_of,
)
from quotas.tests.doors import admitted, checkpoint, checkpoint_row, end_lease, settle_one, sweep_row
from tenants.scope import role_scope
from tests.database import connected, money_of
from tests.factories import admission_row, enable, make_tenant, settlement_row


def test_a_debt_is_paid_first_and_the_month_closes_to_the_unit(standin: Standin) -> None:
    tenant, model = make_tenant(granted=None), make_dear_model()
    top_up = pay(standin, tenant, 20)
    enable(tenant, model)
    call = admission_row(tenant, model, prompt_bound_tokens=19 * TOKENS_PER_UNIT, output_cap_tokens=1)
    with connected("dataplane") as dataplane:
        admitted(dataplane, call)
        checkpoint(dataplane, checkpoint_row(call, 15 * TOKENS_PER_UNIT, 1))
        end_lease(call)
        settle_one(dataplane, sweep_row(call))
        spend(tenant, model, 5)
        assert money_of(tenant.id).paid == -1
        with role_scope("operator"):
            # As much of a credit line as the one token that came out took.
            ledger.set_credit_line(tenant_id=tenant.id, overdraft_nanos=1)
        # The gateway says late that it was more than the last checkpoint.
        settle_one(dataplane, settlement_row(call, prompt_tokens=18 * TOKENS_PER_UNIT, completion_tokens=1))
    assert money_of(tenant.id).receivable == -3 * UNIT
    dispute = standin.control.open_dispute(payment=top_up.charge_id)
    standin.control.close_dispute(dispute=dispute["id"], won=False)
    apply_dispute(dispute_id=dispute["id"], now=utc_now())
    assert money_of(tenant.id).receivable == -23 * UNIT
    assert state_of(tenant.id) == ("SUSPENDED", "RECEIVABLE")
    pay(standin, tenant, 50)
    assert (money_of(tenant.id).paid, money_of(tenant.id).receivable) == (27 * UNIT - 1, 0)
    assert state_of(tenant.id) == ("ACTIVE", "")
    pull_balance_transactions(now=utc_now())
    assert_audit_holds()

    with closed_for_the_test():
        with role_scope("operator"):
            others = period_books(currency="USD", since=FIRST.since, until=FIRST.until)
        move_to(tenant.id, FIRST.since + timedelta(days=3))
        with role_scope("operator"):
            close_month(month=FIRST.day, reason="month end", actor=an_operator(), now=utc_now())
            assert differences(month=FIRST.day) == []
            books = period_books(currency="USD", since=FIRST.since, until=FIRST.until)
        assert all(forward.adds_up for forward in books.roll_forwards.values())
        closing_nanos = [of.roll_forwards[Book.PAID].closing_nanos for of in (books, others)]
        assert closing_nanos[0] - closing_nanos[1] == 27 * UNIT - 1
    assert_audit_holds()
