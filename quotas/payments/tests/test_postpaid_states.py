"""What becomes of monthly invoices: paid in other ways, taken back, given up, corrected."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError

from devstack.stripe_standin.testing import Standin
from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from quotas.models import (
    CreditNoteState,
    DunningState,
    MonthlyInvoice,
    MonthlyInvoiceLine,
    MonthlyInvoiceState,
    TopUpSource,
)
from quotas.payments.giving_back import AboveLimit
from quotas.payments.invoice_queries import invoiceable
from quotas.payments.postpaid import apply_invoice, draw_up_invoices
from quotas.payments.postpaid.agreements import InvalidTerms, NoAgreement, NoCreditLine, agree, end_agreement
from quotas.payments.postpaid.credit_notes import (
    InvalidCredit,
    NotCorrectable,
    order_credit_note,
)
from quotas.payments.postpaid.policy import parse_reminders
from quotas.payments.receivables import review_receivable
from quotas.payments.tests.postpaid_side import (
    UNIT,
    after_month,
    broken_invariants,
    client_of,
    dear_model,
    invoices_of,
    lines_of,
    make_postpaid,
    no_lag,
    operator,
    pay,
    usage_of,
    used_by,
    wallet_of,
)
from quotas.tests.doors import Connection, admitted, settle_one
from tenants.models import TenantState
from tenants.operations import suspension
from tenants.scope import role_scope
from tests.database import connected, rows_of
from tests.factories import (
    ModelFixture,
    TenantFixture,
    add_paid,
    admission_row,
    make_tenant,
    settlement_row,
)
from tests.factories_postpaid import make_monthly_invoice

NOW = after_month()


@pytest.fixture(scope="module")
def model(database: None) -> ModelFixture:
    return dear_model()


@pytest.fixture
def stripe_side(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> Standin:
    no_lag(monkeypatch)
    return standin


@pytest.fixture
def dataplane(database: None) -> Iterator[Connection]:
    with connected("dataplane") as connection:
        yield connection


def use(dataplane: Connection, tenant: TenantFixture, model: ModelFixture, tokens: int = 10_000) -> None:
    row = admitted(dataplane, admission_row(tenant, model, prompt_bound_tokens=tokens))
    settle_one(dataplane, settlement_row(row, prompt_tokens=tokens, completion_tokens=1))


def invoiced(dataplane: Connection, model: ModelFixture) -> tuple[TenantFixture, MonthlyInvoice]:
    """An organization with an invoice of the month that can be paid."""
    tenant = make_postpaid(model)
    use(dataplane, tenant, model)
    assert draw_up_invoices(now=NOW, tenant_id=tenant.id).opened == 1
    (invoice,) = invoices_of(tenant.id)
    return tenant, invoice


def read(invoice: MonthlyInvoice) -> MonthlyInvoice:
    with role_scope("operator"):
        return MonthlyInvoice.objects.get(id=invoice.id)


def stripe_id(invoice: MonthlyInvoice) -> str:
    assert invoice.stripe_invoice_id is not None
    return invoice.stripe_invoice_id


def credit(invoice: MonthlyInvoice, units: int) -> CreditNoteState:
    return order_credit_note(
        invoice_id=invoice.id, amount_nanos=units * UNIT, reason="for the test", actor=operator(), now=NOW
    ).state


def test_a_month_that_was_paid_in_advance_asks_for_nothing(
    stripe_side: Standin, dataplane: Connection, model: ModelFixture
) -> None:
    tenant = make_postpaid(model, paid="50.00")
    use(dataplane, tenant, model, 5_000)
    assert draw_up_invoices(now=NOW, tenant_id=tenant.id).drawn == 1
    (invoice,) = invoices_of(tenant.id)
    assert (invoice.state, invoice.amount_nanos) == (MonthlyInvoiceState.COVERED, 0)
    assert invoice.brought_nanos == -50 * UNIT
    assert invoice.due_nanos == -wallet_of(tenant.id).paid_nanos
    # The month after uses up the rest, and asks for what goes beyond.
    for _ in range(9):
        use(dataplane, tenant, model)
    assert draw_up_invoices(now=after_month(2), tenant_id=tenant.id).drawn == 1
    second = invoices_of(tenant.id)[1]
    assert second.state == MonthlyInvoiceState.OPEN
    assert 0 <= -wallet_of(tenant.id).paid_nanos - second.amount_nanos < UNIT // 100
    assert broken_invariants() == {}


def test_little_is_carried_over(stripe_side: Standin, dataplane: Connection, model: ModelFixture) -> None:
    tenant = make_postpaid(model)
    use(dataplane, tenant, model, 100)
    draw_up_invoices(now=NOW, tenant_id=tenant.id)
    (invoice,) = invoices_of(tenant.id)
    assert 0 < invoice.due_nanos < UNIT
    assert invoice.state == MonthlyInvoiceState.COVERED
    use(dataplane, tenant, model)
    draw_up_invoices(now=after_month(2), tenant_id=tenant.id)
    assert invoices_of(tenant.id)[1].brought_nanos == invoice.due_nanos


def test_money_that_came_in_meanwhile_is_deducted(
    stripe_side: Standin, dataplane: Connection, model: ModelFixture
) -> None:
    tenant = make_postpaid(model)
    use(dataplane, tenant, model)
    add_paid(tenant.id, 3 * UNIT)
    draw_up_invoices(now=NOW, tenant_id=tenant.id)
    (invoice,) = invoices_of(tenant.id)
    assert invoice.payments_nanos == 3 * UNIT
    assert 0 <= -wallet_of(tenant.id).paid_nanos - invoice.amount_nanos < UNIT // 100


def test_paid_outside_of_stripe(stripe_side: Standin, dataplane: Connection, model: ModelFixture) -> None:
    tenant, invoice = invoiced(dataplane, model)
    client_of(stripe_side).v1.invoices.pay(stripe_id(invoice), {"paid_out_of_band": True})
    for _ in range(2):
        assert apply_invoice(invoice_id=stripe_id(invoice), now=NOW)
    assert read(invoice).state == MonthlyInvoiceState.PAID
    (top_up,) = rows_of("quotas_topup", tenant_id=tenant.id)
    assert (top_up["source"], top_up["charge_id"]) == (TopUpSource.INVOICE, "")
    assert -UNIT // 100 < wallet_of(tenant.id).paid_nanos <= 0
    assert broken_invariants() == {}


def test_a_void_invoice_stands_on_the_next_one(
    stripe_side: Standin, dataplane: Connection, model: ModelFixture
) -> None:
    tenant, invoice = invoiced(dataplane, model)
    client_of(stripe_side).v1.invoices.void_invoice(stripe_id(invoice))
    assert apply_invoice(invoice_id=stripe_id(invoice), now=NOW)
    assert read(invoice).state == MonthlyInvoiceState.VOID
    use(dataplane, tenant, model)
    draw_up_invoices(now=after_month(2), tenant_id=tenant.id)
    second = invoices_of(tenant.id)[1]
    assert second.brought_nanos == invoice.due_nanos
    assert 0 <= -wallet_of(tenant.id).paid_nanos - second.amount_nanos < UNIT // 100


def test_one_that_is_given_up_can_still_be_paid(
    stripe_side: Standin, dataplane: Connection, model: ModelFixture
) -> None:
    _tenant, invoice = invoiced(dataplane, model)
    client_of(stripe_side).v1.invoices.mark_uncollectible(stripe_id(invoice))
    assert apply_invoice(invoice_id=stripe_id(invoice), now=NOW)
    assert read(invoice).state == MonthlyInvoiceState.UNCOLLECTIBLE
    assert pay(stripe_side, invoice)
    assert apply_invoice(invoice_id=stripe_id(invoice), now=NOW)
    assert read(invoice).state == MonthlyInvoiceState.PAID


def test_a_draft_that_was_deleted_at_stripe(
    stripe_side: Standin, dataplane: Connection, model: ModelFixture
) -> None:
    tenant = make_postpaid(model)
    use(dataplane, tenant, model)
    stripe_side.control.fault("error_before", match="POST /v1/invoices/.*/finalize", times=1)
    assert draw_up_invoices(now=NOW, tenant_id=tenant.id).left == 1
    (invoice,) = invoices_of(tenant.id)
    assert invoice.state == MonthlyInvoiceState.DRAFT
    assert invoice.failure_text
    client_of(stripe_side).v1.invoices.delete(stripe_id(invoice))
    assert apply_invoice(invoice_id=stripe_id(invoice), now=NOW)
    assert read(invoice).state == MonthlyInvoiceState.VOID


def test_stripe_says_another_amount(stripe_side: Standin, dataplane: Connection, model: ModelFixture) -> None:
    """A line that somebody adds in the dashboard: it is not finalized, let alone credited."""
    tenant = make_postpaid(model)
    use(dataplane, tenant, model)
    stripe_side.control.fault("error_before", match="POST /v1/invoices/.*/finalize", times=1)
    draw_up_invoices(now=NOW, tenant_id=tenant.id)
    (invoice,) = invoices_of(tenant.id)
    client = client_of(stripe_side)
    customer = str(client.v1.invoices.retrieve(stripe_id(invoice)).customer)
    client.v1.invoice_items.create(
        {"customer": customer, "invoice": stripe_id(invoice), "amount": 100, "currency": "usd"}
    )
    draw_up_invoices(now=NOW, tenant_id=tenant.id)
    assert read(invoice).state == MonthlyInvoiceState.DRAFT
    assert "ours over" in read(invoice).failure_text
    client.v1.invoices.finalize_invoice(stripe_id(invoice))
    assert pay(stripe_side, invoice)
    assert apply_invoice(invoice_id=stripe_id(invoice), now=NOW)
    assert read(invoice).state == MonthlyInvoiceState.DRAFT
    assert rows_of("quotas_topup", tenant_id=tenant.id) == []


def test_invoices_of_others_are_none_of_ours(stripe_side: Standin) -> None:
    client = client_of(stripe_side)
    customer = client.v1.customers.create({"name": "somebody"}).id
    made = client.v1.invoices.create(
        {"customer": customer, "collection_method": "send_invoice", "days_until_due": 1}
    )
    assert made.id is not None
    assert not apply_invoice(invoice_id=made.id, now=NOW)
    assert not apply_invoice(invoice_id="in_nothing", now=NOW)


def test_a_credit_note_lowers_what_is_to_be_paid(
    stripe_side: Standin, dataplane: Connection, model: ModelFixture
) -> None:
    tenant, invoice = invoiced(dataplane, model)
    assert credit(invoice, 2) == CreditNoteState.ISSUED
    assert read(invoice).credited_nanos == 2 * UNIT
    assert read(invoice).amount_nanos == invoice.amount_nanos
    assert pay(stripe_side, invoice)
    apply_invoice(invoice_id=stripe_id(invoice), now=NOW)
    assert read(invoice).state == MonthlyInvoiceState.PAID
    (top_up,) = rows_of("quotas_topup", tenant_id=tenant.id)
    assert top_up["amount_nanos"] == invoice.amount_nanos - 2 * UNIT
    assert -UNIT // 100 < wallet_of(tenant.id).paid_nanos <= 0
    use(dataplane, tenant, model)
    draw_up_invoices(now=after_month(2), tenant_id=tenant.id)
    second = invoices_of(tenant.id)[1]
    assert (second.brought_nanos, second.payments_nanos) == (invoice.due_nanos - invoice.amount_nanos, 0)
    assert broken_invariants() == {}


def test_a_credit_note_on_a_paid_invoice_is_credit(
    stripe_side: Standin, dataplane: Connection, model: ModelFixture
) -> None:
    tenant, invoice = invoiced(dataplane, model)
    assert pay(stripe_side, invoice)
    apply_invoice(invoice_id=stripe_id(invoice), now=NOW)
    before_nanos = wallet_of(tenant.id).paid_nanos
    assert credit(invoice, 1) == CreditNoteState.ISSUED
    assert wallet_of(tenant.id).paid_nanos == before_nanos + UNIT
    assert read(invoice).credited_nanos == 0
    # What was paid is invoiced by Stripe; nothing of it is left for an invoice on request.
    with role_scope("operator"):
        room = invoiceable(tenant_id=tenant.id)
    assert room is not None
    assert room.amount_nanos == 0
    assert broken_invariants() == {}


def test_all_of_an_invoice_can_be_taken_back(
    stripe_side: Standin, dataplane: Connection, model: ModelFixture
) -> None:
    tenant, invoice = invoiced(dataplane, model)
    done = order_credit_note(
        invoice_id=invoice.id,
        amount_nanos=invoice.amount_nanos,
        reason="for the test",
        actor=operator(),
        now=NOW,
    )
    assert done.state == CreditNoteState.ISSUED
    apply_invoice(invoice_id=stripe_id(invoice), now=NOW)
    assert (read(invoice).state, read(invoice).top_up_id) == (MonthlyInvoiceState.PAID, None)
    assert rows_of("quotas_topup", tenant_id=tenant.id) == []
    assert broken_invariants() == {}


def test_a_credit_note_that_was_made_at_stripe(
    stripe_side: Standin, dataplane: Connection, model: ModelFixture
) -> None:
    tenant, invoice = invoiced(dataplane, model)
    line = {"type": "custom_line_item", "description": "Sorry", "quantity": 1, "unit_amount": 100}
    client_of(stripe_side).v1.credit_notes.create({"invoice": stripe_id(invoice), "lines": [line]})  # type: ignore[list-item]
    for _ in range(2):
        apply_invoice(invoice_id=stripe_id(invoice), now=NOW)
    assert read(invoice).credited_nanos == UNIT
    assert [row["state"] for row in rows_of("quotas_creditnote", tenant_id=tenant.id)] == ["ISSUED"]


def test_what_a_credit_note_cannot_be(
    stripe_side: Standin, dataplane: Connection, model: ModelFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tenant, invoice = invoiced(dataplane, model)
    for nanos in (0, -UNIT, 1, invoice.amount_nanos + UNIT):
        with pytest.raises(InvalidCredit):
            order_credit_note(
                invoice_id=invoice.id, amount_nanos=nanos, reason="for the test", actor=operator(), now=NOW
            )
    monkeypatch.setitem(settings.TUNING, "SLUICE_REFUND_LIMIT_UNITS", 0)
    with pytest.raises(AboveLimit):
        credit(invoice, 1)
    client_of(stripe_side).v1.invoices.void_invoice(stripe_id(invoice))
    apply_invoice(invoice_id=stripe_id(invoice), now=NOW)
    with pytest.raises(NotCorrectable):
        credit(invoice, 1)


def test_a_refused_credit_note_moves_nothing(
    stripe_side: Standin, dataplane: Connection, model: ModelFixture
) -> None:
    """It was paid in the meantime, and we have not heard of it yet."""
    tenant, invoice = invoiced(dataplane, model)
    assert pay(stripe_side, invoice)
    before_nanos = wallet_of(tenant.id).paid_nanos
    assert credit(invoice, 1) == CreditNoteState.FAILED
    assert wallet_of(tenant.id).paid_nanos == before_nanos
    apply_invoice(invoice_id=stripe_id(invoice), now=NOW)
    assert credit(invoice, 1) == CreditNoteState.ISSUED


def test_agreements(database: None) -> None:
    tenant, who = make_tenant(), operator()
    with role_scope("operator"):
        with pytest.raises(NoCreditLine):
            agree(tenant_id=tenant.id, days_until_due=30, reason="for the test", actor=who, now=utc_now())
        with pytest.raises(InvalidTerms):
            agree(tenant_id=tenant.id, days_until_due=121, reason="for the test", actor=who, now=utc_now())
        with pytest.raises(NoAgreement):
            end_agreement(tenant_id=tenant.id, reason="for the test", actor=who, now=utc_now())


def test_an_agreement_that_is_resumed_leaves_nothing_out(
    stripe_side: Standin, dataplane: Connection, model: ModelFixture
) -> None:
    tenant, who = make_postpaid(model), operator()
    with role_scope("operator"):
        end_agreement(tenant_id=tenant.id, reason="for the test", actor=who, now=utc_now())
    row = admitted(dataplane, admission_row(tenant, model, prompt_bound_tokens=9_000))
    settle_one(dataplane, settlement_row(row, prompt_tokens=9_000, completion_tokens=1))
    assert draw_up_invoices(now=NOW, tenant_id=tenant.id).drawn == 0
    with role_scope("operator"):
        agree(tenant_id=tenant.id, days_until_due=7, reason="for the test", actor=who, now=utc_now())
    draw_up_invoices(now=NOW, tenant_id=tenant.id)
    (invoice,) = invoices_of(tenant.id)
    assert usage_of(invoice) == used_by([row])
    assert invoice.days_until_due == 7


def test_whom_an_operator_resumed_is_suspended_for_a_new_invoice_only(database: None) -> None:
    tenant, who = make_tenant(), operator()
    invoice_id = make_monthly_invoice(
        tenant, dunning=DunningState.EXHAUSTED, exhausted_at=utc_now() - timedelta(days=1)
    )
    assert review_receivable(tenant_id=tenant.id, now=utc_now()) == TenantState.SUSPENDED
    assert review_receivable(tenant_id=tenant.id, now=utc_now()) is None
    with role_scope("operator"):
        suspension.resume_tenant(tenant_id=tenant.id, reason="for the test", actor=who, now=utc_now())
    assert review_receivable(tenant_id=tenant.id, now=utc_now()) is None
    make_monthly_invoice(
        tenant, dunning=DunningState.EXHAUSTED, exhausted_at=utc_now() + timedelta(minutes=1)
    )
    assert review_receivable(tenant_id=tenant.id, now=utc_now()) == TenantState.SUSPENDED
    with role_scope("operator"):
        MonthlyInvoice.objects.filter(tenant_id=tenant.id).update(state=MonthlyInvoiceState.VOID)
    assert invoice_id
    assert review_receivable(tenant_id=tenant.id, now=utc_now()) == TenantState.ACTIVE


def test_the_database_keeps_invoices_as_they_are(database: None) -> None:
    tenant = make_tenant()
    invoice_id = make_monthly_invoice(tenant)
    wrong = (
        {"amount_nanos": 10 * UNIT},
        {"usage_nanos": 1},
        {"state": MonthlyInvoiceState.DRAFT},
        {"state": MonthlyInvoiceState.PAID},
        {"stripe_invoice_id": f"in_{uuid7().hex}"},
        {"credited_nanos": 6 * UNIT},
        {"credited_nanos": 1},
    )
    for change in wrong:
        with role_scope("operator"), pytest.raises(DatabaseError):
            MonthlyInvoice.objects.filter(id=invoice_id).update(**change)
    for statement in (
        "DELETE FROM quotas_monthlyinvoice WHERE id = %s",
        "UPDATE quotas_monthlyinvoiceline SET amount_nanos = 1 WHERE invoice_id = %s",
        "INSERT INTO quotas_monthlyinvoiceline (id, tenant_id, invoice_id, currency, position, kind,"
        " token_class, units, cost_nanos, free_nanos, amount_nanos, asked_nanos) SELECT gen_random_uuid(),"
        " tenant_id, id, currency, 1, 'CARRIED', '', 0, 0, 0, 1, 0 FROM quotas_monthlyinvoice WHERE id = %s",
        # A gap between two invoices, usage that the ledger does not know, and a payment of no invoice.
        "INSERT INTO quotas_monthlyinvoice SELECT (json_populate_record(i, json_build_object('id',"
        " gen_random_uuid(), 'month', i.month + interval '40 days'))).* FROM quotas_monthlyinvoice i"
        " WHERE id = %s",
        "INSERT INTO quotas_topup (id, tenant_id, currency, source, amount_nanos, state, charge_id, method,"
        " pay_url, receipt_url, invoice_url, failure_code) SELECT gen_random_uuid(), tenant_id, currency,"
        " 'INVOICE', amount_nanos, 'OPEN', '', '', '', '', '', '' FROM quotas_monthlyinvoice WHERE id = %s",
    ):
        with connected("owner") as owner, pytest.raises(psycopg.Error):
            owner.execute(statement, (invoice_id,))
    with role_scope("operator"):
        assert MonthlyInvoiceLine.objects.filter(invoice_id=invoice_id).count() == 1


def test_reminders_are_read_from_the_environment() -> None:
    assert parse_reminders(("14", "0", "7", "7")) == (0, 7, 14)
    assert parse_reminders(()) == ()
    for wrong in (("x",), ("-1",), ("366",), ("1.5",), tuple(str(day) for day in range(21))):
        with pytest.raises(ImproperlyConfigured):
            parse_reminders(wrong)


def test_what_lines_say_at_stripe(stripe_side: Standin, dataplane: Connection, model: ModelFixture) -> None:
    _tenant, invoice = invoiced(dataplane, model)
    shown = client_of(stripe_side).v1.invoices.line_items.list(stripe_id(invoice), {"limit": 100}).data
    words = [str(line.description) for line in shown]
    assert f"Test model: {lines_of(invoice)[0].units:,} input tokens" in words
