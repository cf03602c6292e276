"""Who may ask, in which version, and what a refusal looks like."""

from __future__ import annotations

import pytest
import stripe

from devstack.stripe_standin import resources  # noqa: F401 - registers the routes
from devstack.stripe_standin.keys import all_scopes
from devstack.stripe_standin.testing import Standin, StandinError
from devstack.stripe_standin.tests.conftest import client_of, make_customer, refused, session_params


def test_keys_that_nobody_made(standin: Standin):
    for key in ("sk_test_wrong", "rk_test_wrong"):
        with pytest.raises(stripe.AuthenticationError) as refusal:
            client_of(standin, key).v1.customers.list()
        assert refusal.value.http_status == 401


def test_restricted_key_may_do_what_its_scopes_say(standin: Standin):
    shop = client_of(standin, standin.restricted_key("checkout_session_write", "customer_write"))
    customer = make_customer(shop)
    session = shop.v1.checkout.sessions.create(session_params(customer=customer))
    assert shop.v1.checkout.sessions.retrieve(session.id).id == session.id

    with pytest.raises(stripe.PermissionError) as refusal:
        shop.v1.refunds.create({"payment_intent": "pi_1"})
    assert refusal.value.http_status == 403
    assert "'rak_charge_write'" in str(refusal.value)


def test_reading_does_not_allow_writing(standin: Standin):
    reader = client_of(standin, standin.restricted_key("customer_read"))
    reader.v1.customers.list()
    with pytest.raises(stripe.PermissionError):
        reader.v1.customers.create({})


def test_scopes_have_to_exist(standin: Standin):
    with pytest.raises(StandinError):
        standin.restricted_key("everything_write")
    assert "checkout_session_write" in all_scopes()


def test_versions(standin: Standin, client: stripe.StripeClient):
    account = client.v1.accounts.retrieve_current()
    assert account.last_response is not None
    assert account.last_response.headers["stripe-version"] == stripe.api_version
    with pytest.raises(stripe.InvalidRequestError):
        client_of(standin, stripe_version="2020-01-01").v1.customers.list()


def test_foreign_account(standin: Standin, client: stripe.StripeClient):
    own = client.v1.accounts.retrieve_current().id
    assert client.v1.customers.list({}, {"stripe_account": own}).data is not None
    with pytest.raises(stripe.PermissionError):
        client.v1.customers.list({}, {"stripe_account": "acct_of_another"})


def test_what_is_not_there(client: stripe.StripeClient):
    with pytest.raises(stripe.InvalidRequestError) as in_path:
        client.v1.customers.retrieve("cus_none")
    with pytest.raises(stripe.InvalidRequestError) as in_parameter:
        client.v1.checkout.sessions.create(session_params(customer="cus_none"))
    assert (in_path.value.http_status, in_path.value.code) == (404, "resource_missing")
    assert (in_parameter.value.http_status, in_parameter.value.param) == (400, "customer")
    assert in_path.value.request_id is not None
    assert in_path.value.request_id.startswith("req_")


def test_endpoint_that_was_not_taught(client: stripe.StripeClient):
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.subscriptions.list()
    assert refusal.value.http_status == 404


def test_expanding_what_cannot_be_expanded(client: stripe.StripeClient):
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.customers.retrieve(make_customer(client), {"expand": ["nothing"]})
    assert refusal.value.param == "expand"


def test_webhook_endpoints(client: stripe.StripeClient):
    made = client.v1.webhook_endpoints.create(
        {
            "url": "https://example.com/hook",
            "enabled_events": ["payout.paid"],
            "api_version": "2026-10-28.endive",
        }
    )
    assert made.secret is not None
    found = client.v1.webhook_endpoints.list().data
    assert [(endpoint.id, endpoint.api_version) for endpoint in found] == [(made.id, "2026-10-28.endive")]


def test_the_validators_see_what_is_wrong(standin: Standin, client: stripe.StripeClient):
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.refunds.create({"amount": "many", "reason": "whim"})  # type: ignore[arg-type]
    found = refused(standin)
    assert [line.partition(":")[0] for line in found] == ["client's types"] * 2 + ["description"] * 2
    assert "'many' is no int" in found[0]
    assert "'whim' is not one of" in found[1]
    assert standin.control.coverage()["POST /v1/refunds"] >= 1
