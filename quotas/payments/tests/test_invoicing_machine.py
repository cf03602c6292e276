"""Whatever happens in whatever order, no money is invoiced twice: neither on request nor by Stripe.

The model keeps what came in and what was used by itself, and knows nothing of the ledger.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from portal.kit.money import amount_to_decimal_text
from quotas.models import RefundState
from quotas.payments import invoicing
from quotas.payments.invoice_queries import Invoiceable, invoiceable
from tenants.scope import role_scope, tenant_scope
from tests.database import money_of, rows_of
from tests.factories import TenantFixture, add_granted, make_tenant
from tests.factories_bank import (
    PDF,
    consume,
    issue,
    make_invoice,
    make_profile,
    make_receipt,
    member,
    operator,
    payer,
)
from tests.factories_payments import make_dispute, make_refund, make_top_up
from tests.people import Person

pytestmark = pytest.mark.usefixtures("database")
CENT = 10**7
cents = st.integers(1, 500)


def text(amount_cents: int) -> str:
    return amount_to_decimal_text(amount_cents * CENT)


@dataclass
class Paid:
    """A payment by card. Amounts in cents."""

    id: UUID
    amount: int
    is_invoiced: bool
    refunded: int = 0
    disputed: bool = False


@dataclass
class Books:
    """In cents: what came in and was not paid back, what usage took beyond granted credit."""

    money: int = 0
    used: int = 0
    granted: int = 0
    cards: list[Paid] = field(default_factory=list)
    open: dict[UUID, int] = field(default_factory=dict)
    issued: dict[UUID, int] = field(default_factory=dict)

    @property
    def by_stripe(self) -> int:
        return sum(paid.amount - paid.refunded for paid in self.cards if paid.is_invoiced)

    @property
    def on_request(self) -> int:
        return sum(self.open.values()) + sum(self.issued.values())


class InvoicingMachine(RuleBasedStateMachine):
    """Payments with and without an invoice of Stripe, usage, refunds, disputes, requests and what becomes of
    them."""

    tenant: TenantFixture
    person: Person

    @initialize()
    def begin(self) -> None:
        self.tenant = make_tenant(granted=None)
        self.person = payer(self.tenant)
        make_profile(self.tenant, self.person)
        self.books = Books()

    @rule(amount=cents, is_invoiced=st.booleans())
    def pay_by_card(self, amount: int, is_invoiced: bool) -> None:
        url = "https://invoice.example/1" if is_invoiced else ""
        top_up_id = make_top_up(self.tenant, amount=text(amount), invoice_url=url)
        self.books.cards.append(Paid(top_up_id, amount, is_invoiced))
        self.books.money += amount

    @rule(amount=cents)
    def pay_by_bank(self, amount: int) -> None:
        make_receipt(self.tenant, amount=text(amount), is_approved=True)
        self.books.money += amount

    @rule(amount=cents)
    def get_granted_credit(self, amount: int) -> None:
        add_granted(self.tenant.id, amount * CENT)
        self.books.granted += amount

    @rule(share=st.integers(1, 100))
    def use(self, share: int) -> None:
        money = money_of(self.tenant.id)
        # A hold has room for what rounding may add.
        free = max(0, money.paid + money.granted) // CENT - 1
        amount = free * share // 100
        if amount > 0:
            consume(self.tenant, text(amount))
            from_granted = min(amount, self.books.granted)
            self.books.granted -= from_granted
            self.books.used += amount - from_granted

    @precondition(lambda self: self.books.cards)
    @rule(data=st.data())
    def refund(self, data: st.DataObject) -> None:
        paid = data.draw(st.sampled_from(self.books.cards))
        most = min(paid.amount - paid.refunded, money_of(self.tenant.id).paid // CENT)
        if most < 1 or paid.disputed:
            return
        amount = data.draw(st.integers(1, most))
        state = data.draw(st.sampled_from([RefundState.SUCCEEDED, RefundState.FAILED]))
        make_refund(paid.id, amount=text(amount), state=state)
        if state == RefundState.SUCCEEDED:
            paid.refunded += amount
            self.books.money -= amount

    @precondition(lambda self: self.books.cards)
    @rule(data=st.data(), is_reinstated=st.booleans())
    def dispute(self, data: st.DataObject, is_reinstated: bool) -> None:
        paid = data.draw(st.sampled_from(self.books.cards))
        if paid.disputed or paid.refunded:
            return
        paid.disputed = True
        make_dispute(paid.id, status="lost", is_reinstated=is_reinstated)
        if not is_reinstated:
            self.books.money -= paid.amount

    @rule()
    def request(self) -> None:
        room = self.room().amount_nanos // CENT
        if not room:
            with pytest.raises(invoicing.NothingToInvoice):
                make_invoice(self.tenant, self.person)
            return
        invoice = make_invoice(self.tenant, self.person)
        assert invoice.amount_nanos == room * CENT == sum(line.amount_nanos for line in invoice.lines)
        self.books.open[invoice.id] = room
        # At this moment everything that is invoiced was consumed, and paid for.
        consumed = min(self.books.used, self.books.money)
        assert self.books.by_stripe + self.books.on_request == consumed

    @precondition(lambda self: self.books.open)
    @rule(data=st.data(), end=st.sampled_from(["issue", "refuse", "cancel"]))
    def end_request(self, data: st.DataObject, end: str) -> None:
        invoice_id = data.draw(st.sampled_from(sorted(self.books.open)))
        amount = self.books.open.pop(invoice_id)
        if end == "issue":
            issue(invoice_id)
            self.books.issued[invoice_id] = amount
        elif end == "refuse":
            with role_scope("operator"):
                invoicing.refuse_invoice(
                    invoice_id=invoice_id, actor=operator(), reason="for the test", now=utc_now()
                )
        else:
            with tenant_scope(self.tenant.id):
                invoicing.cancel_invoice(
                    tenant_id=self.tenant.id,
                    invoice_id=invoice_id,
                    actor=member(self.person),
                    now=utc_now(),
                )

    @precondition(lambda self: self.books.issued)
    @rule(data=st.data())
    def take_back_with_a_credit_note(self, data: st.DataObject) -> None:
        invoice_id = data.draw(st.sampled_from(sorted(self.books.issued)))
        del self.books.issued[invoice_id]
        with role_scope("operator"):
            invoicing.credit_invoice(
                invoice_id=invoice_id,
                number=f"C-{uuid7().hex}",
                content=PDF,
                actor=operator(),
                reason="for the test",
                now=utc_now(),
            )

    def room(self) -> Invoiceable:
        with tenant_scope(self.tenant.id):
            found = invoiceable(tenant_id=self.tenant.id)
        assert found is not None
        return found

    @invariant()
    def what_is_invoiced_is_what_the_model_says(self) -> None:
        if not hasattr(self, "books"):
            return
        room, books = self.room(), self.books
        assert room.by_stripe_nanos == books.by_stripe * CENT
        assert room.on_request_nanos == books.on_request * CENT
        assert room.consumed_nanos == min(books.used, books.money) * CENT
        rest = min(books.used, books.money) - books.by_stripe - books.on_request
        assert room.amount_nanos == max(0, rest) * CENT
        states = [row["state"] for row in rows_of("quotas_invoicerequest", tenant_id=self.tenant.id)]
        assert states.count("REQUESTED") == len(books.open)
        assert states.count("ISSUED") == len(books.issued)


InvoicingMachine.TestCase.settings = settings(
    max_examples=12,
    stateful_step_count=16,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestInvoicing = pytest.mark.usefixtures("database")(InvoicingMachine.TestCase)
