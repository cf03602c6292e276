"""Invoices from draft to paid, the ones that are not, and their corrections."""

from __future__ import annotations

from typing import Any

import pytest
import stripe

from devstack.stripe_standin.testing import Standin
from devstack.stripe_standin.tests.conftest import make_customer, plain


def draft(client: stripe.StripeClient, *amounts: int, **more: Any) -> stripe.Invoice:
    """A draft with an item for each amount."""
    params: Any = {
        "customer": make_customer(client),
        "collection_method": "send_invoice",
        "days_until_due": 14,
        "auto_advance": False,
        "currency": "usd",
        "pending_invoice_items_behavior": "exclude",
        "metadata": {"statement": "2026-10"},
        **more,
    }
    invoice = client.v1.invoices.create(params)
    for number, amount in enumerate(amounts):
        item: Any = {
            "customer": params["customer"],
            "invoice": invoice.id,
            "currency": "usd",
            "amount": amount,
            "description": f"Line {number}",
            "metadata": {"line": str(number)},
            "period": {"start": 1_790_000_000, "end": 1_792_000_000},
        }
        client.v1.invoice_items.create(item)
    return client.v1.invoices.retrieve(invoice.id)


def opened(client: stripe.StripeClient, *amounts: int, **more: Any) -> stripe.Invoice:
    return client.v1.invoices.finalize_invoice(draft(client, *amounts, **more).id)


def last_types(client: stripe.StripeClient, count: int) -> list[str]:
    return [str(event.type) for event in client.v1.events.list({"type": "invoice.*", "limit": count}).data][
        ::-1
    ]


def test_from_draft_to_paid(standin: Standin, client: stripe.StripeClient):
    invoice = draft(client, 1200, 800)
    assert (invoice.status, invoice.total, invoice.number) == ("draft", 2000, None)
    invoice = client.v1.invoices.send_invoice(client.v1.invoices.finalize_invoice(invoice.id).id)
    assert (invoice.status, invoice.amount_remaining) == ("open", 2000)
    assert invoice.due_date == invoice.status_transitions.finalized_at + 14 * 86_400  # type: ignore[operator]
    customer = invoice.customer
    assert isinstance(customer, str)
    standin.control.save_card(customer=customer, behaviour="declined")
    with pytest.raises(stripe.CardError):
        client.v1.invoices.pay(invoice.id)
    assert client.v1.invoices.retrieve(invoice.id).attempt_count == 1
    standin.control.save_card(customer=customer)

    paid = client.v1.invoices.pay(invoice.id, {"expand": ["payments"]})

    assert (paid.status, paid.amount_paid, paid.amount_remaining) == ("paid", 2000, 0)
    assert last_types(client, 5) == [
        "invoice.finalized",
        "invoice.sent",
        "invoice.payment_failed",
        "invoice.paid",
        "invoice.payment_succeeded",
    ]
    assert paid.payments is not None
    assert paid.payments.data[0].status == "paid"
    intent = paid.payments.data[0].payment.payment_intent
    assert isinstance(intent, str)
    payment: Any = {"type": "payment_intent", "payment_intent": intent}
    joined = client.v1.invoice_payments.list({"payment": payment}).data
    assert [found.invoice for found in joined] == [invoice.id]


def test_lines_come_in_pages(client: stripe.StripeClient):
    invoice = opened(client, *range(101, 126))
    assert len(invoice.lines.data) == 10
    assert invoice.lines.has_more
    lines = list(client.v1.invoices.line_items.list(invoice.id, {"limit": 7}).auto_paging_iter())
    assert [line.amount for line in lines] == list(range(101, 126))
    assert plain(lines[3].metadata) == {"line": "3"}


def test_final_invoice_is_not_changed(client: stripe.StripeClient):
    invoice = opened(client, 500)
    item: Any = {"customer": invoice.customer, "invoice": invoice.id, "currency": "usd", "amount": 1}
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.invoice_items.create(item)
    assert refusal.value.code == "invoice_not_editable"
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.invoices.finalize_invoice(invoice.id)
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.invoices.delete(invoice.id)
    client.v1.invoices.delete(draft(client, 5).id)


def test_paid_another_way_void_and_uncollectible(client: stripe.StripeClient):
    elsewhere = client.v1.invoices.pay(opened(client, 900).id, {"paid_out_of_band": True})
    assert (elsewhere.status, elsewhere.amount_paid, elsewhere.amount_paid_off_stripe) == ("paid", 0, 900)
    assert client.v1.invoices.void_invoice(opened(client, 900).id).status == "void"
    lost = client.v1.invoices.mark_uncollectible(opened(client, 900).id)
    assert lost.status == "uncollectible"
    assert client.v1.invoices.pay(lost.id, {"paid_out_of_band": True}).status == "paid"
    nothing = opened(client)
    assert nothing.status == "paid"


def test_overdue(standin: Standin, client: stripe.StripeClient):
    invoice = opened(client, 700)
    standin.control.advance(15 * 86_400)
    overdue = client.v1.events.list({"type": "invoice.overdue", "limit": 100}).data
    assert [event.data.object["id"] for event in overdue].count(invoice.id) == 1


def test_tax_is_on_top(client: stripe.StripeClient):
    invoice = opened(client, 1000, 500, automatic_tax={"enabled": True})
    assert (invoice.subtotal, invoice.total, invoice.total_excluding_tax) == (1500, 1650, 1500)


def test_credit_note_before_payment(client: stripe.StripeClient):
    invoice = opened(client, 1000, 500)
    line = invoice.lines.data[1].id
    lines: Any = [{"type": "invoice_line_item", "invoice_line_item": line, "amount": 200}]
    note = client.v1.credit_notes.create({"invoice": invoice.id, "lines": lines, "reason": "order_change"})
    assert (note.total, note.pre_payment_amount, note.type) == (200, 200, "pre_payment")
    assert client.v1.invoices.retrieve(invoice.id).amount_remaining == 1300
    client.v1.credit_notes.create({"invoice": invoice.id, "amount": 1300})
    assert client.v1.invoices.retrieve(invoice.id).status == "paid"
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.credit_notes.create({"invoice": invoice.id, "amount": 1})


def test_credit_note_after_payment(standin: Standin, client: stripe.StripeClient):
    invoice = opened(client, 1000)
    customer = invoice.customer
    assert isinstance(customer, str)
    standin.control.save_card(customer=customer)
    client.v1.invoices.pay(invoice.id)
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.credit_notes.create({"invoice": invoice.id, "amount": 400})

    note = client.v1.credit_notes.create(
        {"invoice": invoice.id, "amount": 400, "refund_amount": 300, "out_of_band_amount": 100}
    )

    assert (note.type, note.post_payment_amount) == ("post_payment", 400)
    refund = note.refunds[0].refund
    assert isinstance(refund, str)
    assert client.v1.refunds.retrieve(refund).amount == 300
    assert [found.id for found in client.v1.credit_notes.list({"invoice": invoice.id}).data] == [note.id]


def test_lines_are_added_at_once(client: stripe.StripeClient):
    invoice = draft(client)
    lines: Any = [
        {"amount": 11, "description": "a", "metadata": {"key": "a"}},
        {"quantity": 3, "price_data": {"currency": "usd", "unit_amount": 7, "product": "prod_x"}},
    ]
    invoice = client.v1.invoices.add_lines(invoice.id, {"lines": lines})
    assert [line.amount for line in invoice.lines.data] == [11, 21]
