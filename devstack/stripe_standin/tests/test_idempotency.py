"""Idempotency keys and lost answers: whether something was made twice, once or not at all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import stripe

from devstack.stripe_standin.testing import Standin, running_standin
from devstack.stripe_standin.tests.conftest import client_of, make_customer, plain

PAYMENT: Any = {"amount": 900, "currency": "usd", "payment_method": "pm_card_visa", "confirm": True}


def pay(client: stripe.StripeClient, key: str, **more: Any) -> stripe.PaymentIntent:
    params: Any = {**PAYMENT, **more}
    return client.v1.payment_intents.create(params, {"idempotency_key": key})


def made(client: stripe.StripeClient, key: str) -> int:
    """How many payments with this key in their metadata came in."""
    found = client.v1.payment_intents.list({"limit": 100}).auto_paging_iter()
    return sum(plain(intent.metadata) == {"key": key} and intent.status == "succeeded" for intent in found)


def test_same_key_is_answered_with_the_first_answer(client: stripe.StripeClient):
    first = pay(client, "same", metadata={"key": "same"})
    again = pay(client, "same", metadata={"key": "same"})

    assert again.id == first.id
    assert made(client, "same") == 1
    assert first.last_response is not None
    assert again.last_response is not None
    assert "idempotent-replayed" not in first.last_response.headers
    assert again.last_response.headers["idempotent-replayed"] == "true"


def test_other_parameters_are_refused(client: stripe.StripeClient):
    pay(client, "mismatch")
    with pytest.raises(stripe.IdempotencyError) as refusal:
        pay(client, "mismatch", amount=901)
    assert refusal.value.http_status == 400


def test_declines_are_replayed_too(client: stripe.StripeClient):
    messages = set()
    for _ in range(2):
        with pytest.raises(stripe.CardError) as refusal:
            pay(client, "declined", payment_method="pm_card_chargeDeclined")
        assert refusal.value.error is not None
        assert refusal.value.error.payment_intent is not None
        messages.add(refusal.value.error.payment_intent.id)
    assert len(messages) == 1


def test_wrong_parameters_are_not_remembered(standin: Standin, client: stripe.StripeClient):
    with pytest.raises(stripe.InvalidRequestError):
        pay(client, "first wrong", amount=10)
    assert pay(client, "first wrong").status == "succeeded"


def test_a_key_that_is_in_use(standin: Standin, client: stripe.StripeClient):
    standin.control.chaos(latency_ms=300)

    def attempt(_: int) -> str:
        try:
            return pay(client_of(standin), "at once", metadata={"key": "at once"}).status
        except stripe.APIError as refusal:
            return f"{refusal.http_status}"

    with ThreadPoolExecutor(5) as pool:
        outcomes = sorted(pool.map(attempt, range(5)))
    standin.control.chaos()
    # Those that came late are answered again.
    assert "409" in outcomes
    assert set(outcomes) == {"409", "succeeded"}
    assert made(client, "at once") == 1


@pytest.mark.parametrize(
    ("fault", "payments", "retried"),
    [
        ("error_before", 1, "paid"),
        ("error_stored", 0, 500),
        ("error_after", 1, 500),
        ("answer_lost", 1, "paid"),
    ],
)
def test_faults(standin: Standin, client: stripe.StripeClient, fault: str, payments: int, retried: str | int):
    standin.control.fault(fault, match="POST /v1/payment_intents")
    with pytest.raises((stripe.APIError, stripe.APIConnectionError)):
        pay(client, fault, metadata={"key": fault})

    try:
        outcome: str | int | None = pay(client, fault, metadata={"key": fault}).status
    except stripe.APIError as failed:
        outcome = failed.http_status

    assert outcome == ("succeeded" if retried == "paid" else retried)
    assert made(client, fault) == payments


def test_the_client_retries_by_itself(standin: Standin):
    standin.control.fault("answer_lost", match="POST /v1/payment_intents", times=1)
    standin.control.fault("error_before", match="POST /v1/payment_intents", times=1)
    retrying = client_of(standin, max_network_retries=3)
    assert pay(retrying, "retried", metadata={"key": "retried"}).status == "succeeded"
    assert made(retrying, "retried") == 1


def test_faults_by_chance_are_repeatable(standin: Standin, client: stripe.StripeClient):
    def weather() -> list[bool]:
        standin.control.chaos(seed=7, rate_limit=0.5)
        outcomes = []
        for _ in range(20):
            try:
                client.v1.customers.list({"limit": 1})
                outcomes.append(True)
            except stripe.RateLimitError:
                outcomes.append(False)
        return outcomes

    first = weather()
    assert set(first) == {True, False}
    assert weather() == first


def test_what_was_answered_survives_a_kill(tmp_path):
    with running_standin(tmp_path) as standin:
        client = client_of(standin)
        standin.control.settings(tax_percent=5.0)
        standin.control.advance(1000)
        key = standin.restricted_key("payment_intent_read")
        intent = pay(client, "killed")

        standin.kill()
        standin.restart()

        assert pay(client, "killed").id == intent.id
        assert client.v1.payment_intents.list().data[0].id == intent.id
        assert client_of(standin, key).v1.payment_intents.retrieve(intent.id).status == "succeeded"
        assert standin.control.get("settings")["tax_percent"] == 5.0
        assert standin.control.get("clock")["offset_s"] == 1000
        assert len(client.v1.events.list({"limit": 100}).data) == 3


def test_customers_are_updated(client: stripe.StripeClient):
    customer = make_customer(client, metadata={"tenant": "a", "old": "1"})
    client.v1.customers.update(
        customer, {"metadata": {"old": "", "new": "2"}, "address": {"country": "FR", "city": "Paris"}}
    )
    found = client.v1.customers.retrieve(customer, {"expand": ["tax_ids"]})
    assert plain(found.metadata) == {"tenant": "a", "new": "2"}
    assert found.address is not None
    assert (found.address.country, found.address.city) == ("FR", "Paris")
    client.v1.customers.tax_ids.create(customer, {"type": "eu_vat", "value": "DE123456789"})
    assert [tax_id.value for tax_id in client.v1.customers.tax_ids.list(customer).data] == ["DE123456789"]
