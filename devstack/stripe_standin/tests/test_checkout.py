"""Checkout sessions, from their creation to what a person made of them."""

from __future__ import annotations

from typing import Any

import pytest
import stripe

from devstack.stripe_standin.testing import Standin, running_standin
from devstack.stripe_standin.tests.conftest import client_of, make_customer, plain, refused, session_params


def types_of(client: stripe.StripeClient, **choice: Any) -> list[str]:
    """Types of the events so far, oldest first."""
    params: Any = {"limit": 100, **choice}
    return [str(event.type) for event in client.v1.events.list(params).data][::-1]


def test_paid_by_card(standin: Standin, client: stripe.StripeClient):
    customer = make_customer(client)
    session = client.v1.checkout.sessions.create(
        session_params(
            customer=customer,
            client_reference_id="topup_1",
            metadata={"topup": "1"},
            payment_intent_data={"metadata": {"topup": "1"}, "setup_future_usage": "off_session"},
            adaptive_pricing={"enabled": False},
            tax_id_collection={"enabled": True},
            customer_update={"address": "auto", "name": "auto"},
        )
    )
    assert (session.status, session.payment_status, session.payment_intent) == ("open", "unpaid", None)
    assert session.payment_method_types == ["card", "us_bank_account"]

    standin.control.complete_session(session.id)

    expand = [
        "payment_intent.latest_charge.balance_transaction",
        "payment_intent.payment_method",
        "line_items",
    ]
    session = client.v1.checkout.sessions.retrieve(session.id, {"expand": [*expand, "invoice"]})
    assert (session.status, session.payment_status, session.amount_total) == ("complete", "paid", 2000)
    intent = session.payment_intent
    assert isinstance(intent, stripe.PaymentIntent)
    assert plain(intent.metadata) == {"topup": "1"}
    assert isinstance(intent.latest_charge, stripe.Charge)
    assert isinstance(intent.latest_charge.balance_transaction, stripe.BalanceTransaction)
    assert intent.latest_charge.balance_transaction.fee == 88
    assert session.line_items is not None
    assert session.line_items.data[0].amount_total == 2000
    saved = client.v1.customers.payment_methods.list(customer).data
    assert isinstance(intent.payment_method, stripe.PaymentMethod)
    assert [method.id for method in saved] == [intent.payment_method.id]
    assert types_of(client)[-5:] == [
        "payment_intent.created",
        "payment_method.attached",
        "charge.succeeded",
        "payment_intent.succeeded",
        "checkout.session.completed",
    ]


def test_declined_first_and_paid_then(standin: Standin, client: stripe.StripeClient):
    session = client.v1.checkout.sessions.create(session_params(customer=make_customer(client)))

    refusal = standin.control.complete_session(session.id, behaviour="declined")["refusal"]

    assert refusal == "Your card was declined."
    session = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["payment_intent"]})
    assert (session.status, session.payment_status) == ("open", "unpaid")
    assert isinstance(session.payment_intent, stripe.PaymentIntent)
    assert session.payment_intent.last_payment_error is not None
    assert session.payment_intent.last_payment_error.code == "card_declined"
    first = session.payment_intent.id

    assert standin.control.complete_session(session.id)["refusal"] is None
    session = client.v1.checkout.sessions.retrieve(session.id)
    assert (session.payment_status, session.payment_intent) == ("paid", first)


@pytest.mark.parametrize("fails", [False, True])
def test_delayed_method(standin: Standin, client: stripe.StripeClient, fails: bool):
    session = client.v1.checkout.sessions.create(session_params(customer=make_customer(client)))
    behaviour = "fails_later" if fails else "pays"
    standin.control.complete_session(session.id, method="us_bank_account", behaviour=behaviour)
    waiting = client.v1.checkout.sessions.retrieve(session.id)
    assert (waiting.status, waiting.payment_status) == ("complete", "unpaid")

    standin.control.advance(4 * 86_400)

    after = client.v1.checkout.sessions.retrieve(session.id)
    assert after.payment_status == ("unpaid" if fails else "paid")
    last = types_of(
        client, types=["checkout.session.async_payment_failed", "checkout.session.async_payment_succeeded"]
    )
    assert last[-1] == f"checkout.session.async_payment_{'failed' if fails else 'succeeded'}"


def test_tax_is_added_and_an_exempt_customer_pays_none(standin: Standin, client: stripe.StripeClient):
    taxed = client.v1.checkout.sessions.create(
        session_params(customer=make_customer(client), automatic_tax={"enabled": True})
    )
    exempt = client.v1.checkout.sessions.create(
        session_params(customer=make_customer(client, tax_exempt="exempt"), automatic_tax={"enabled": True})
    )

    assert (taxed.amount_subtotal, taxed.amount_total) == (2000, 2200)
    assert taxed.total_details is not None
    assert taxed.total_details.amount_tax == 200
    assert exempt.amount_total == 2000


def test_tax_needs_an_address(client: stripe.StripeClient):
    nowhere = client.v1.customers.create({"name": "Nobody"}).id
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.checkout.sessions.create(session_params(customer=nowhere, automatic_tax={"enabled": True}))
    assert refusal.value.code == "customer_tax_location_invalid"


def test_invoice_of_a_session(standin: Standin, client: stripe.StripeClient):
    session = client.v1.checkout.sessions.create(
        session_params(
            customer=make_customer(client),
            automatic_tax={"enabled": True},
            invoice_creation={"enabled": True, "invoice_data": {"metadata": {"topup": "9"}}},
        )
    )
    standin.control.complete_session(session.id)

    session = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["invoice.payments"]})
    invoice = session.invoice
    assert isinstance(invoice, stripe.Invoice)
    assert (invoice.status, invoice.total, invoice.amount_paid) == ("paid", 2200, 2200)
    assert plain(invoice.metadata) == {"topup": "9"}
    assert invoice.payments is not None
    assert invoice.payments.data[0].payment.payment_intent == session.payment_intent


def test_invoice_needs_somebody_and_makes_a_customer(standin: Standin, client: stripe.StripeClient):
    session = client.v1.checkout.sessions.create(session_params(invoice_creation={"enabled": True}))
    standin.control.complete_session(session.id)
    session = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["invoice"]})
    assert isinstance(session.invoice, stripe.Invoice)
    assert session.customer == session.invoice.customer


def test_setup_saves_a_method_and_charges_nothing(standin: Standin, client: stripe.StripeClient):
    customer = make_customer(client)
    params = session_params(mode="setup", currency="usd", customer=customer)
    del params["line_items"]
    session = client.v1.checkout.sessions.create(params)

    standin.control.complete_session(session.id, behaviour="authentication_required", last4="3155")

    session = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["setup_intent"]})
    assert session.payment_status == "no_payment_required"
    assert isinstance(session.setup_intent, stripe.SetupIntent)
    assert session.setup_intent.status == "succeeded"
    saved = client.v1.payment_methods.list({"customer": customer, "type": "card"}).data
    assert [method.id for method in saved] == [session.setup_intent.payment_method]


def test_address_is_saved_where_that_was_asked(standin: Standin, client: stripe.StripeClient):
    customer = client.v1.customers.create({"name": "Old"}).id
    params = session_params(
        mode="setup",
        currency="usd",
        customer=customer,
        customer_update={"address": "auto", "name": "auto"},
        billing_address_collection="required",
    )
    del params["line_items"]
    standin.control.complete_session(client.v1.checkout.sessions.create(params).id, country="FR")
    found = client.v1.customers.retrieve(customer)
    assert found.address is not None
    assert (found.name, found.address.country) == ("Old", "FR")


def test_session_ends_by_the_clock_or_by_command(standin: Standin, client: stripe.StripeClient):
    by_clock = client.v1.checkout.sessions.create(session_params())
    by_command = client.v1.checkout.sessions.create(session_params())
    assert client.v1.checkout.sessions.expire(by_command.id).status == "expired"

    standin.control.advance(86_400 + 1)

    assert client.v1.checkout.sessions.retrieve(by_clock.id).status == "expired"
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.checkout.sessions.expire(by_clock.id)
    expired = client.v1.checkout.sessions.list({"status": "expired", "limit": 100}).data
    assert {by_clock.id, by_command.id} <= {session.id for session in expired}


def test_methods_are_chosen_by_the_account_and_narrowed_by_the_caller(
    standin: Standin, client: stripe.StripeClient
):
    everything = client.v1.checkout.sessions.create(session_params())
    narrowed = client.v1.checkout.sessions.create(
        session_params(
            allowed_payment_method_types=["card", "alipay"], excluded_payment_method_types=["alipay"]
        )
    )
    assert everything.payment_method_types == ["card", "alipay", "wechat_pay", "us_bank_account"]
    assert narrowed.payment_method_types == ["card"]
    standin.control.complete_session(everything.id, method="alipay")
    assert client.v1.checkout.sessions.retrieve(everything.id).payment_status == "paid"


def test_account_without_wallets(tmp_path):
    with running_standin(tmp_path, methods=["card"]) as bare:
        session = client_of(bare).v1.checkout.sessions.create(session_params())
        assert session.payment_method_types == ["card"]


def test_what_endive_refuses_and_what_nobody_knows(standin: Standin, client: stripe.StripeClient):
    with pytest.raises(stripe.InvalidRequestError) as old:
        client.v1.checkout.sessions.create(session_params(payment_method_types=["card"]))
    assert old.value.code == "payment_method_types_no_longer_supported"
    assert refused(standin) == ["client's types: payment_method_types is unknown"]

    with pytest.raises(stripe.InvalidRequestError) as unknown:
        client.v1.checkout.sessions.create(session_params(automatic_tax={"enabled": True, "nonsense": "1"}))
    assert (unknown.value.code, unknown.value.param) == ("parameter_unknown", "automatic_tax[nonsense]")
    assert refused(standin) == [
        "client's types: automatic_tax.nonsense is unknown",
        "description: automatic_tax.nonsense is unknown",
    ]
