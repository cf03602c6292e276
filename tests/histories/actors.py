"""What happens in a history: what customers, banks, Stripe and operators do, and what our workers do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any

import stripe
from django.test import Client
from django.urls import reverse

from devstack.stripe_standin.testing import Standin, StandinError
from portal.kit.clock import utc_now
from portal.kit.money import NANOS_PER_UNIT
from quotas.models import RechargeState, TopUp, TopUpState, Wallet
from quotas.payments import (
    checkout,
    customers,
    giving_back,
    inbox,
    polling,
    receivables,
    recharge,
    refunds,
    sending,
    stripe_books,
)
from quotas.payments.client import stripe_client
from quotas.payments.fulfilment import apply_top_up
from quotas.payments.tests.moneyback_side import spend
from quotas.payments.tests.stripe_side import PAGE, signed
from tenants.operations.audit import SYSTEM, Actor
from tenants.scope import role_scope
from tests.factories import ModelFixture, TenantFixture
from tests.factories_payments import make_recharge

# What the product says about what cannot be done now; the history goes on.
REFUSALS = (
    sending.StripeUnavailable,
    sending.StripeRefused,
    checkout.TooManyOpenTopUps,
    checkout.OrganizationClosed,
    refunds.InvalidRefund,
    refunds.NotRefundable,
    giving_back.AboveLimit,
    stripe.StripeError,
    StandinError,
)
OPEN = (TopUpState.OPEN, TopUpState.PROCESSING, TopUpState.ACTION_NEEDED)
BEHAVIOURS = ("pays", "pays", "pays", "declined", "authentication_required", "declined_later")


@dataclass(slots=True)
class Cast:
    """One history's people and machines. `ahead` is how far the clock of Stripe and ours has been moved."""

    standin: Standin
    tenant: TenantFixture
    model: ModelFixture
    operator: Actor
    door: Client
    random: Random
    ahead: timedelta = timedelta()
    did: list[str] = field(default_factory=list)

    def now(self) -> datetime:
        return utc_now() + self.ahead

    def pass_time(self, seconds: float) -> None:
        self.ahead += timedelta(seconds=seconds)
        self.standin.control.advance(seconds)

    def top_ups(self, *states: TopUpState) -> list[TopUp]:
        with role_scope("operator"):
            found = TopUp.objects.filter(tenant_id=self.tenant.id).order_by("id")
            return list(found.filter(state__in=states) if states else found)

    def any_of(self, rows: Sequence[Any]) -> Any:
        return self.random.choice(rows) if rows else None

    def payment(self) -> str | None:
        """The payment intent of some paid top-up."""
        paid = self.any_of([row for row in self.top_ups(TopUpState.PAID) if row.payment_intent_id])
        return paid.payment_intent_id if paid else None

    # --- Customers and their banks ----------------------------------------------------------------
    def begin(self) -> None:
        checkout.start_top_up(
            tenant_id=self.tenant.id,
            user_id=None,
            amount_nanos=self.random.choice((10, 20, 50)) * NANOS_PER_UNIT,
            keeps_method=self.random.random() < 0.3,
            success_url=PAGE,
            cancel_url=PAGE,
            now=self.now(),
        )

    def confirm(self) -> None:
        waiting = self.any_of([row for row in self.top_ups(*OPEN) if row.session_id])
        if waiting is None:
            return
        if self.random.random() < 0.3:
            behaviour = self.random.choice(("pays", "fails_later"))
            self.standin.control.complete_session(
                waiting.session_id, method="us_bank_account", behaviour=behaviour
            )
        else:
            self.standin.control.complete_session(
                waiting.session_id, behaviour=self.random.choice(BEHAVIOURS)
            )

    def settle(self) -> None:
        late = self.any_of([row for row in self.top_ups(*OPEN) if row.session_id])
        if late is not None:
            self.standin.control.settle(payment=late.session_id, fails=self.random.random() < 0.4)

    def abandon(self) -> None:
        waiting = self.any_of([row for row in self.top_ups(TopUpState.OPEN) if row.session_id])
        if waiting is not None and self.random.random() < 0.5:
            self.standin.control.expire_session(session=waiting.session_id)
        elif waiting is not None:
            checkout.cancel_top_up(
                tenant_id=self.tenant.id, top_up_id=waiting.id, actor=SYSTEM, now=self.now()
            )

    def spend(self) -> None:
        """At most what is there."""
        with role_scope("operator"):
            wallet = Wallet.objects.get(tenant_id=self.tenant.id)
        units = (wallet.paid_nanos + wallet.granted_nanos - wallet.pending_nanos) // NANOS_PER_UNIT
        if units > 0:
            spend(self.tenant, self.model, self.random.randint(1, units))

    def wish_recharge(self) -> None:
        with role_scope("operator"):
            customer = customers.find_customer(tenant_id=self.tenant.id)
        if customer is None:
            return
        behaviour = self.random.choice(BEHAVIOURS)
        method = self.standin.control.save_card(customer=customer, behaviour=behaviour)
        method_id = method if isinstance(method, str) else method["id"]
        make_recharge(self.tenant, state=RechargeState.ON, payment_method_id=method_id, retry_at=None)

    # --- Operators, and people at Stripe -----------------------------------------------------------
    def refund(self) -> None:
        paid = self.any_of(self.top_ups(TopUpState.PAID))
        if paid is None:
            return
        amount_nanos = self.random.choice((None, NANOS_PER_UNIT, 3 * NANOS_PER_UNIT))
        refunds.order_refund(
            top_up_id=paid.id,
            amount_nanos=amount_nanos,
            reason="for the test",
            actor=self.operator,
            now=self.now(),
        )

    def refund_at_stripe(self) -> None:
        payment = self.payment()
        if payment is not None:
            self.standin.control.refund(payment=payment, amount=self.random.choice((None, 100, 250)))

    def end_refund(self) -> None:
        ours = {row.payment_intent_id for row in self.top_ups()}
        rows = [row for row in self.standin.control.books()["refunds"] if row["payment_intent"] in ours]
        row = self.any_of(rows)
        if row is not None and self.random.random() < 0.5:
            self.standin.control.fail_refund(refund=row["id"])
        elif row is not None:
            self.standin.control.settle_refund(refund=row["id"])

    def dispute(self) -> None:
        payment = self.payment()
        if payment is not None:
            self.standin.control.open_dispute(payment=payment, inquiry=self.random.random() < 0.3)

    def end_dispute(self) -> None:
        ours = {row.payment_intent_id for row in self.top_ups()}
        rows = [row for row in self.standin.control.books()["disputes"] if row["payment_intent"] in ours]
        row = self.any_of(rows)
        if row is None:
            return
        if row["status"].startswith("warning") and self.random.random() < 0.5:
            self.standin.control.escalate_dispute(dispute=row["id"])
        else:
            self.standin.control.close_dispute(dispute=row["id"], won=self.random.random() < 0.5)

    # --- Webhooks: lost, doubled, late and in any order -----------------------------------------------
    def deliver(self) -> None:
        events = stripe_client().v1.events.list({"limit": 40}).data
        chosen = self.random.sample(events, min(len(events), self.random.randint(1, 8)))
        for event in chosen:
            for _ in range(self.random.choice((1, 1, 2))):
                body, signature = signed(event.to_dict(for_json=True), self.standin.webhook_secret)
                answer = self.door.post(
                    reverse("webhooks:stripe"),
                    body,
                    "application/json",
                    headers={"Stripe-Signature": signature},
                )
                assert answer.status_code == 200

    # --- Our workers -------------------------------------------------------------------------------
    def process(self) -> None:
        inbox.process_due_events(now=self.now())

    def poll_events(self) -> None:
        polling.poll_events(now=self.now())

    def poll_top_ups(self) -> None:
        polling.poll_open_top_ups(now=self.now())

    def land(self) -> None:
        row = self.any_of(self.top_ups())
        if row is not None:
            apply_top_up(top_up_id=row.id, now=self.now())

    def sweep(self) -> None:
        sending.sweep_operations(now=self.now())

    def recharge(self) -> None:
        recharge.start_due_recharges(now=self.now())

    def keep_books(self) -> None:
        stripe_books.pull_balance_transactions(now=self.now())

    def review(self) -> None:
        receivables.review_receivables(now=self.now())

    def wait(self) -> None:
        self.pass_time(self.random.choice((5, 40, 400, 4000)))

    def upset(self) -> None:
        """Stripe has a bad day."""
        faults = ("rate_limit", "error_before", "error_stored", "error_after", "answer_lost")
        self.standin.control.fault(self.random.choice(faults), match=".", times=self.random.randint(1, 3))


Act = Callable[[Cast], None]

# (how often, what)
ACTS: Sequence[tuple[int, Act]] = (
    (5, Cast.begin),
    (6, Cast.confirm),
    (2, Cast.settle),
    (1, Cast.abandon),
    (3, Cast.spend),
    (2, Cast.wish_recharge),
    (3, Cast.refund),
    (2, Cast.refund_at_stripe),
    (2, Cast.end_refund),
    (2, Cast.dispute),
    (2, Cast.end_dispute),
    (5, Cast.deliver),
    (5, Cast.process),
    (2, Cast.poll_events),
    (3, Cast.poll_top_ups),
    (3, Cast.land),
    (3, Cast.sweep),
    (4, Cast.recharge),
    (1, Cast.keep_books),
    (1, Cast.review),
    (3, Cast.wait),
    (4, Cast.upset),
)
