"""Refunds, disputes, fees and payouts, and that all of it adds up."""

from __future__ import annotations

from typing import Any

import pytest
import stripe

from devstack.stripe_standin.testing import Standin
from devstack.stripe_standin.tests.conftest import make_customer, session_params


def pay(standin: Standin, client: stripe.StripeClient, method: str = "card") -> str:
    """A payment of 20.00; its payment intent."""
    session = client.v1.checkout.sessions.create(session_params(customer=make_customer(client)))
    standin.control.complete_session(session.id, method=method)
    intent = client.v1.checkout.sessions.retrieve(session.id).payment_intent
    assert isinstance(intent, str)
    return intent


def charge_of(client: stripe.StripeClient, intent: str) -> stripe.Charge:
    found = client.v1.payment_intents.retrieve(intent, {"expand": ["latest_charge"]}).latest_charge
    assert isinstance(found, stripe.Charge)
    return found


def movements(client: stripe.StripeClient, source: str) -> list[tuple[str, int, int]]:
    """What an object moved, oldest first: (type, amount, fee)."""
    found = client.v1.balance_transactions.list({"source": source, "limit": 100}).data
    return [(part.type, part.amount, part.fee) for part in found][::-1]


def test_refund_in_parts(standin: Standin, client: stripe.StripeClient):
    intent = pay(standin, client)
    first = client.v1.refunds.create({"payment_intent": intent, "amount": 500, "metadata": {"refund": "1"}})
    assert (first.status, movements(client, first.id)) == ("succeeded", [("refund", -500, 0)])
    assert charge_of(client, intent).amount_refunded == 500

    with pytest.raises(stripe.InvalidRequestError):
        client.v1.refunds.create({"payment_intent": intent, "amount": 1501})
    client.v1.refunds.create({"payment_intent": intent})
    assert charge_of(client, intent).refunded
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.refunds.create({"payment_intent": intent})
    assert refusal.value.code == "charge_already_refunded"
    listed = client.v1.refunds.list({"payment_intent": intent}).data
    assert [refund.amount for refund in listed] == [1500, 500]


def test_refund_that_fails_later(standin: Standin, client: stripe.StripeClient):
    intent = pay(standin, client)
    refund = client.v1.refunds.create({"payment_intent": intent, "amount": 700})

    standin.control.fail_refund(refund=refund.id)

    failed = client.v1.refunds.retrieve(refund.id)
    assert (failed.status, failed.failure_reason) == ("failed", "lost_or_stolen_card")
    assert movements(client, refund.id) == [("refund", -700, 0), ("refund_failure", 700, 0)]
    assert charge_of(client, intent).amount_refunded == 0
    assert client.v1.events.list({"type": "refund.failed"}).data[0].data.object["id"] == refund.id


def test_refund_that_waits(standin: Standin, client: stripe.StripeClient):
    intent = pay(standin, client)
    standin.control.settings(pending_refunds=True)
    try:
        refund = client.v1.refunds.create({"payment_intent": intent})
    finally:
        standin.control.settings(pending_refunds=False)
    assert refund.status == "pending"
    standin.control.settle_refund(refund=refund.id)
    assert client.v1.refunds.retrieve(refund.id).status == "succeeded"


def test_refund_in_the_dashboard(standin: Standin, client: stripe.StripeClient):
    intent = pay(standin, client, "alipay")
    refund = standin.control.refund(payment=intent, amount=300)
    assert refund["id"].startswith("pyr_")
    assert movements(client, refund["id"]) == [("payment_refund", -300, 0)]


@pytest.mark.parametrize("won", [True, False])
def test_dispute(standin: Standin, client: stripe.StripeClient, won: bool):
    intent = pay(standin, client)
    dispute = standin.control.open_dispute(payment=intent)["id"]
    assert movements(client, dispute) == [("adjustment", -2000, 1500)]
    with pytest.raises(stripe.InvalidRequestError) as refusal:
        client.v1.refunds.create({"payment_intent": intent})
    assert refusal.value.code == "charge_disputed"

    standin.control.close_dispute(dispute=dispute, won=won)

    found = client.v1.disputes.retrieve(dispute)
    assert found.status == ("won" if won else "lost")
    assert len(found.balance_transactions) == (2 if won else 1)
    assert movements(client, dispute)[1:] == ([("adjustment", 2000, 0)] if won else [])
    types = [event.type for event in client.v1.events.list({"type": "charge.dispute.*", "limit": 4}).data]
    expected = ["charge.dispute.closed", "charge.dispute.funds_withdrawn", "charge.dispute.created"]
    assert types[: 4 if won else 3] == (["charge.dispute.funds_reinstated"] if won else []) + expected


def test_inquiry_takes_nothing_until_it_is_escalated(standin: Standin, client: stripe.StripeClient):
    intent = pay(standin, client)
    dispute = standin.control.open_dispute(payment=intent, inquiry=True)["id"]
    found = client.v1.disputes.retrieve(dispute)
    assert (found.status, found.balance_transactions) == ("warning_needs_response", [])
    standin.control.escalate_dispute(dispute=dispute)
    assert movements(client, dispute) == [("adjustment", -2000, 1500)]

    dropped = standin.control.open_dispute(payment=pay(standin, client), inquiry=True)["id"]
    standin.control.close_dispute(dispute=dropped, won=False)
    assert client.v1.disputes.retrieve(dropped).status == "warning_closed"
    assert movements(client, dropped) == []


def test_payout_is_the_sum_of_what_it_pays(standin: Standin, client: stripe.StripeClient):
    standin.control.make_payout()
    pay(standin, client)
    refunded = pay(standin, client)
    client.v1.refunds.create({"payment_intent": refunded, "amount": 100})
    assert standin.control.make_payout(only_available=True) == []
    standin.control.advance(3 * 86_400)

    (payout,) = standin.control.make_payout(only_available=True)

    assert payout["amount"] == 2 * (2000 - 88) - 100
    params: Any = {"payout": payout["id"], "limit": 100}
    parts = client.v1.balance_transactions.list(params).data
    assert sum(part.net for part in parts) == 0
    assert [found.id for found in client.v1.payouts.list({"limit": 1}).data] == [payout["id"]]
    assert standin.control.books()["balance"] == {"usd": 0}


def test_books_tell_what_the_api_tells(standin: Standin, client: stripe.StripeClient):
    books = standin.control.books()
    listed = list(client.v1.balance_transactions.list({"limit": 100}).auto_paging_iter())
    assert {part.id: part.net for part in listed} == {
        part["id"]: part["net"] for part in books["balance_transactions"]
    }
    paid = {session["payment_intent"] for session in books["sessions"] if session["payment_status"] == "paid"}
    charged = {charge["payment_intent"] for charge in books["charges"] if charge["status"] == "succeeded"}
    assert paid == charged
