"""The pages for people, without a browser: what a form sends, and where it leads."""

from __future__ import annotations

import http.client
import re
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import stripe

from devstack.stripe_standin.testing import Standin
from devstack.stripe_standin.tests.conftest import make_customer, session_params
from devstack.stripe_standin.tests.test_invoices import opened


def visit(address: str | None, **form: str) -> tuple[int, str, str | None]:
    """(status, page, where it leads) of a GET, or of a POST when there is a form."""
    assert address is not None
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        if form:
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            connection.request("POST", parts.path, body=urlencode(form), headers=headers)
        else:
            connection.request("GET", parts.path)
        response = connection.getresponse()
        return response.status, response.read().decode("latin-1"), response.headers["Location"]
    finally:
        connection.close()


def choices(page: str) -> list[str]:
    return re.findall(r"name='choice' value='([a-z_]+)'", page)


def test_paying_leads_back(client: stripe.StripeClient):
    session = client.v1.checkout.sessions.create(
        session_params(customer=make_customer(client), automatic_tax={"enabled": True})
    )
    status, page, _ = visit(session.url)
    assert status == 200
    assert "data-testid='standin-banner'" in page
    assert "data-testid='tax'>2.00 USD" in page
    assert "data-testid='total'>22.00 USD" in page
    assert "href='http://127.0.0.1:9/away'" in page
    assert {"card", "card_declined", "alipay", "wechat_pay", "bank", "bank_fails"} <= set(choices(page))

    status, page, _ = visit(session.url, choice="card_declined")
    assert "Your card was declined." in page
    status, _, location = visit(session.url, choice="card")

    assert (status, location) == (303, f"http://127.0.0.1:9/back?session={session.id}")
    assert client.v1.checkout.sessions.retrieve(session.id).payment_status == "paid"


@pytest.mark.parametrize(
    "choice", ["card", "card_authentication", "alipay", "wechat_pay", "bank", "bank_fails"]
)
def test_every_choice_completes_the_session(client: stripe.StripeClient, choice: str):
    session = client.v1.checkout.sessions.create(session_params())
    _, page, location = visit(session.url, choice=choice, stay="1")
    assert location is None
    assert "data-testid='done'" in page
    assert client.v1.checkout.sessions.retrieve(session.id).status == "complete"


def test_page_of_a_session_that_has_ended(client: stripe.StripeClient):
    session = client.v1.checkout.sessions.create(session_params())
    client.v1.checkout.sessions.expire(session.id)
    assert "has expired" in visit(session.url, choice="card")[1]
    assert visit(f"{session.url}x")[0] == 404


def test_what_people_write_is_text(client: stripe.StripeClient):
    params = session_params()
    params["line_items"][0]["price_data"]["product_data"]["name"] = "<script>alert(1)</script>"
    _, page, _ = visit(client.v1.checkout.sessions.create(params).url)
    assert "<script>" not in page


def test_customer_portal(client: stripe.StripeClient):
    customer = make_customer(client)
    params: Any = {"customer": customer, "return_url": "http://127.0.0.1:9/billing"}
    portal = client.v1.billing_portal.sessions.create(params)
    assert "href='http://127.0.0.1:9/billing'" in visit(portal.url)[1]
    visit(portal.url, act="add_card", choice="card")
    visit(portal.url, act="add_card", choice="card_authentication")
    first, second = client.v1.payment_methods.list({"customer": customer}).data[::-1]
    found = client.v1.customers.retrieve(customer)
    assert found.invoice_settings is not None
    assert found.invoice_settings.default_payment_method == second.id

    visit(portal.url, act="make_default", method=first.id)
    visit(portal.url, act="remove", method=second.id)
    visit(portal.url, act="details", name="Pat & Co", email="co@example.com", country="US", line1="1 Road")
    visit(portal.url, act="tax_id", type="eu_vat", value="DE1")

    found = client.v1.customers.retrieve(customer, {"expand": ["tax_ids"]})
    assert found.invoice_settings is not None
    assert found.invoice_settings.default_payment_method == first.id
    assert (found.name, found.address and found.address.country) == ("Pat & Co", "US")
    assert found.tax_ids is not None
    assert [tax_id.value for tax_id in found.tax_ids.data] == ["DE1"]
    assert "declined" in visit(portal.url, act="add_card", choice="card_declined")[1]


def test_portal_of_another_customer_is_another_link(standin: Standin, client: stripe.StripeClient):
    card = standin.control.save_card(customer=make_customer(client))["id"]
    params: Any = {"customer": make_customer(client), "return_url": "http://127.0.0.1:9/"}
    portal = client.v1.billing_portal.sessions.create(params)
    assert "somebody else" in visit(portal.url, act="remove", method=card)[1]
    assert visit(f"{standin.url}/p/session/guess")[0] == 404
    standin.control.advance(3601)
    assert visit(portal.url)[0] == 410


def test_portal_that_only_saves_a_card(client: stripe.StripeClient):
    params: Any = {
        "customer": make_customer(client),
        "return_url": "http://127.0.0.1:9/billing",
        "flow_data": {
            "type": "payment_method_update",
            "after_completion": {"type": "redirect", "redirect": {"return_url": "http://127.0.0.1:9/saved"}},
        },
    }
    portal = client.v1.billing_portal.sessions.create(params)
    assert visit(portal.url, act="add_card", choice="card")[2] == "http://127.0.0.1:9/saved"


def test_invoice_page(client: stripe.StripeClient):
    invoice = opened(client, 1000, 250)
    page = visit(invoice.hosted_invoice_url)[1]
    assert "data-testid='total'>12.50 USD" in page
    assert "Your card was declined." in visit(invoice.hosted_invoice_url, choice="card_declined")[1]
    assert client.v1.invoices.retrieve(invoice.id).status == "open"

    assert "This invoice is paid." in visit(invoice.hosted_invoice_url, choice="card")[1]

    assert client.v1.invoices.retrieve(invoice.id).status == "paid"
    status, document, _ = visit(invoice.invoice_pdf)
    assert (status, document[:8]) == (200, "%PDF-1.4")
    assert visit(f"{invoice.hosted_invoice_url}x")[0] == 404


def test_receipt(standin: Standin, client: stripe.StripeClient):
    session = client.v1.checkout.sessions.create(session_params())
    standin.control.complete_session(session.id)
    charge = client.v1.charges.list({"limit": 1}).data[0]
    assert "20.00 USD" in visit(charge.receipt_url)[1]
