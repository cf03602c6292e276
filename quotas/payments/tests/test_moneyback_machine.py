"""Top-ups, refunds, disputes and calls in any order, heard of in any order: the sums are exact in the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from devstack.stripe_standin.testing import Standin, StandinError
from portal.kit.clock import utc_now
from portal.kit.money import NANOS_PER_UNIT as UNIT
from quotas.models import TopUp
from quotas.payments import disputes, refunds, stripe_books
from quotas.payments.tests.moneyback_side import (
    an_operator,
    assert_audit_holds,
    differing_lines,
    make_dear_model,
    pay,
    spend,
    state_of,
    tax_of,
)
from quotas.payments.tests.stripe_side import top_up_of
from tenants.operations import audit
from tests.database import money_of
from tests.factories import ModelFixture, TenantFixture, make_tenant

COIN = UNIT // 100
recent = st.integers(0, 3)
coins = st.integers(1, 2_500)


class MoneyBackMachine(RuleBasedStateMachine):
    """Stripe's side moves by its own commands; ours hears of it late, doubled and out of order."""

    standin: Standin
    model: ModelFixture
    actor: audit.Actor

    @initialize(units=st.integers(5, 40))
    def begin(self, units: int) -> None:
        self.tenant: TenantFixture = make_tenant(granted=None)
        self.paid: list[TopUp] = [pay(self.standin, self.tenant, units)]
        self.spent_nanos = 0
        self.unheard: list[Callable[[], Any]] = []
        self.refund_ids: list[str] = []
        self.dispute_ids: list[str] = []

    def _top_up(self, position: int) -> TopUp:
        return self.paid[-1 - position % len(self.paid)]

    @rule(units=st.integers(5, 40))
    @precondition(lambda self: len(self.paid) < 4)
    def top_up(self, units: int) -> None:
        self.paid.append(pay(self.standin, self.tenant, units))

    @rule(units=st.integers(1, 15))
    def call(self, units: int) -> None:
        money = money_of(self.tenant.id)
        if state_of(self.tenant.id)[0] == "ACTIVE" and money.paid >= units * UNIT:
            spend(self.tenant, self.model, units)
            self.spent_nanos += units * UNIT

    @rule(position=recent, amount=st.none() | coins)
    def order_refund(self, position: int, amount: int | None) -> None:
        try:
            refunds.order_refund(
                top_up_id=self._top_up(position).id,
                amount_nanos=None if amount is None else amount * COIN,
                reason="for the test",
                actor=self.actor,
                now=utc_now(),
            )
        except refunds.NotRefundable:
            return

    @rule(position=recent, amount=st.none() | coins)
    def refund_at_stripe(self, position: int, amount: int | None) -> None:
        made = self._command("refund", payment=self._top_up(position).charge_id, amount=amount)
        if made is not None:
            self.refund_ids.append(made["id"])
            self._hear_of_refund(made["id"])

    @rule(position=recent)
    @precondition(lambda self: self.refund_ids)
    def fail_refund(self, position: int) -> None:
        refund_id = self.refund_ids[position % len(self.refund_ids)]
        if self._command("fail_refund", refund=refund_id, reason="unknown") is not None:
            self._hear_of_refund(refund_id)

    @rule(position=recent, amount=st.none() | coins, inquiry=st.booleans())
    def open_dispute(self, position: int, amount: int | None, inquiry: bool) -> None:
        charge = next(
            row
            for row in self.standin.control.books()["charges"]
            if row["id"] == self._top_up(position).charge_id
        )
        left = charge["amount"] - charge["amount_refunded"]
        if not left:
            return
        made = self._command(
            "open_dispute",
            payment=charge["id"],
            amount=None if amount is None else min(amount, left),
            inquiry=inquiry,
        )
        if made is not None:
            self.dispute_ids.append(made["id"])
            self._hear_of_dispute(made["id"])

    @rule(position=recent, what=st.sampled_from(["escalate", "won", "lost"]))
    @precondition(lambda self: self.dispute_ids)
    def move_dispute(self, position: int, what: str) -> None:
        dispute_id = self.dispute_ids[position % len(self.dispute_ids)]
        if what == "escalate":
            moved = self._command("escalate_dispute", dispute=dispute_id)
        else:
            moved = self._command("close_dispute", dispute=dispute_id, won=what == "won")
        if moved is not None:
            self._hear_of_dispute(dispute_id)

    @rule(position=st.integers(0, 20))
    @precondition(lambda self: self.unheard)
    def hear(self, position: int) -> None:
        """One thing that was not heard of; it may have happened long ago, and may be heard of again."""
        hear = self.unheard[position % len(self.unheard)]
        assert hear() is True

    def teardown(self) -> None:
        if not hasattr(self, "dispute_ids"):
            return
        for hear in reversed(self.unheard):
            assert hear() is True
        stripe_books.pull_balance_transactions(now=utc_now())
        before = money_of(self.tenant.id)
        self._check_sums()
        # All of it once more moves nothing.
        for hear in self.unheard:
            hear()
        assert money_of(self.tenant.id) == before
        assert_audit_holds()

    def _check_sums(self) -> None:
        books = self.standin.control.books()
        charges = {top_up.charge_id for top_up in self.paid}
        ours = {
            row["id"] for name in ("refunds", "disputes") for row in books[name] if row["charge"] in charges
        }
        lines = [row for row in books["balance_transactions"] if row["source"] in ours | charges]
        money = money_of(self.tenant.id)
        at_stripe_nanos = sum(row["amount"] for row in lines) * COIN
        held_nanos = money.paid + money.receivable + self.spent_nanos + tax_of(self.tenant.id)
        assert held_nanos == at_stripe_nanos
        assert differing_lines([row["id"] for row in lines], self.tenant.id) == []
        assert money.receivable <= 0
        assert (state_of(self.tenant.id)[0] == "SUSPENDED") == (money.receivable < 0)
        for top_up in self.paid:
            assert top_up_of(top_up.id).transfer_id == top_up.transfer_id

    def _hear_of_refund(self, refund_id: str) -> None:
        self.unheard.append(lambda: refunds.apply_refund(refund_id=refund_id, now=utc_now()))
        charge_id = next(
            row["charge"] for row in self.standin.control.books()["refunds"] if row["id"] == refund_id
        )
        self.unheard.append(lambda: refunds.apply_charge_refunds(charge_id=charge_id, now=utc_now()))

    def _hear_of_dispute(self, dispute_id: str) -> None:
        self.unheard.append(lambda: disputes.apply_dispute(dispute_id=dispute_id, now=utc_now()))

    def _command(self, name: str, **body: Any) -> Any:
        """What Stripe answers, or None where it does not do that now."""
        try:
            return self.standin.control.post(name, **body)
        except StandinError:
            return None


def test_any_history_of_money_that_goes_back(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.conf import settings as configured

    monkeypatch.setitem(configured.TUNING, "SLUICE_REFUND_LIMIT_UNITS", 1_000_000)
    monkeypatch.setitem(configured.TUNING, "SLUICE_PAYMENTS_TAX", 1)
    standin.control.settings(tax_percent=7.77)
    MoneyBackMachine.standin, MoneyBackMachine.model = standin, make_dear_model()
    MoneyBackMachine.actor = an_operator()
    run_state_machine_as_test(
        MoneyBackMachine,
        settings=settings(
            max_examples=10,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        ),
    )
