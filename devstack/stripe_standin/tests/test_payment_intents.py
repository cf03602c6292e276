"""Charges without the person: what auto-recharge lives on."""

from __future__ import annotations

from typing import Any

import pytest
import stripe

from devstack.stripe_standin.testing import Standin
from devstack.stripe_standin.tests.conftest import make_customer, plain


def charge(client: stripe.StripeClient, customer: str, method: str, **more: Any) -> stripe.PaymentIntent:
    params: Any = {
        "amount": 1500,
        "currency": "usd",
        "customer": customer,
        "payment_method": method,
        "off_session": True,
        "confirm": True,
        **more,
    }
    return client.v1.payment_intents.create(params)


def test_saved_card_is_charged(standin: Standin, client: stripe.StripeClient):
    customer = make_customer(client)
    card = standin.control.save_card(customer=customer)["id"]

    intent = charge(client, customer, card, metadata={"operation": "op_1"}, description="Recharge")

    assert (intent.status, intent.amount_received) == ("succeeded", 1500)
    listed = client.v1.payment_intents.list({"customer": customer, "created": {"gte": intent.created}}).data
    assert [(found.id, plain(found.metadata)) for found in listed] == [(intent.id, {"operation": "op_1"})]
    assert client.v1.customers.retrieve(customer).invoice_settings is not None


@pytest.mark.parametrize(
    ("behaviour", "code", "decline_code"),
    [
        ("declined", "card_declined", "generic_decline"),
        ("insufficient_funds", "card_declined", "insufficient_funds"),
        ("expired_card", "expired_card", "expired_card"),
        ("authentication_required", "authentication_required", "authentication_required"),
    ],
)
def test_refusals(
    standin: Standin, client: stripe.StripeClient, behaviour: str, code: str, decline_code: str
):
    customer = make_customer(client)
    card = standin.control.save_card(customer=customer, behaviour=behaviour)["id"]

    with pytest.raises(stripe.CardError) as refusal:
        charge(client, customer, card)

    assert (refusal.value.http_status, refusal.value.code) == (402, code)
    assert refusal.value.error is not None
    assert refusal.value.error.decline_code == decline_code
    assert refusal.value.error.payment_intent is not None
    intent = client.v1.payment_intents.retrieve(refusal.value.error.payment_intent.id)
    assert (intent.status, intent.amount_received) == ("requires_payment_method", 0)
    assert isinstance(intent.latest_charge, str)
    assert client.v1.charges.retrieve(intent.latest_charge).status == "failed"


def test_tokens_of_stripes_documentation(client: stripe.StripeClient):
    customer = make_customer(client)
    assert charge(client, customer, "pm_card_visa").status == "succeeded"
    with pytest.raises(stripe.CardError):
        charge(client, customer, "pm_card_chargeDeclined")
    with pytest.raises(stripe.CardError) as refusal:
        charge(client, customer, "pm_card_authenticationRequired")
    assert refusal.value.code == "authentication_required"


def test_next_attempts_are_declined_by_command(standin: Standin, client: stripe.StripeClient):
    customer = make_customer(client)
    card = standin.control.save_card(customer=customer)["id"]
    standin.control.decline_next(count=2)
    for _ in range(2):
        with pytest.raises(stripe.CardError):
            charge(client, customer, card)
    assert charge(client, customer, card).status == "succeeded"


def test_method_of_somebody_else_is_refused(standin: Standin, client: stripe.StripeClient):
    card = standin.control.save_card(customer=make_customer(client))["id"]
    with pytest.raises(stripe.InvalidRequestError):
        charge(client, make_customer(client), card)


def test_detached_method_is_gone(standin: Standin, client: stripe.StripeClient):
    customer = make_customer(client)
    card = standin.control.save_card(customer=customer)["id"]
    client.v1.payment_methods.detach(card)
    assert client.v1.payment_methods.list({"customer": customer}).data == []
    settings = client.v1.customers.retrieve(customer).invoice_settings
    assert settings is not None
    assert settings.default_payment_method is None
    with pytest.raises(stripe.InvalidRequestError, match="may not be used again"):
        charge(client, customer, card)


def test_intent_is_made_first_and_confirmed_or_canceled_then(client: stripe.StripeClient):
    customer = make_customer(client)
    params: Any = {"amount": 500, "currency": "cny", "customer": customer}
    first, second = (client.v1.payment_intents.create(params) for _ in range(2))
    assert first.status == "requires_payment_method"
    confirmed = client.v1.payment_intents.confirm(
        first.id, {"payment_method": "pm_card_visa", "off_session": True}
    )
    assert confirmed.status == "succeeded"
    assert client.v1.payment_intents.cancel(second.id).status == "canceled"
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.payment_intents.cancel(first.id)
    assert refusal.value.code == "payment_intent_unexpected_state"


def test_amounts(client: stripe.StripeClient):
    params: Any = {"amount": 49, "currency": "usd"}
    with pytest.raises(stripe.InvalidRequestError) as small:
        client.v1.payment_intents.create(params)
    with pytest.raises(stripe.InvalidRequestError) as large:
        client.v1.payment_intents.create(params | {"amount": 100_000_000})
    assert (small.value.code, large.value.code) == ("amount_too_small", "amount_too_large")


def test_tax_of_a_charge_is_calculated_first(client: stripe.StripeClient):
    customer = make_customer(client)
    items: Any = [{"amount": 1000, "reference": "credit", "tax_behavior": "exclusive"}]
    calculation = client.v1.tax.calculations.create(
        {"currency": "usd", "customer": customer, "line_items": items}
    )
    assert (calculation.amount_total, calculation.tax_amount_exclusive) == (1100, 100)
    hooks = {"inputs": {"tax": {"calculation": calculation.id}}}
    assert charge(client, customer, "pm_card_visa", amount=1100, hooks=hooks).amount_received == 1100
    with pytest.raises(stripe.InvalidRequestError):
        charge(client, customer, "pm_card_visa", amount=1000, hooks=hooks)
    nowhere = client.v1.customers.create({}).id
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.tax.calculations.create({"currency": "usd", "customer": nowhere, "line_items": items})
    assert refusal.value.code == "customer_tax_location_invalid"
