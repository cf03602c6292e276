"""Events: listed, delivered, lost, doubled, in any order, and found again."""

from __future__ import annotations

import time

import pytest
import stripe

from devstack.stripe_standin.testing import Standin, StandinError, running_standin
from devstack.stripe_standin.tests.conftest import Receiver, client_of, make_customer


@pytest.fixture
def talking(tmp_path, receiver):
    """A stand-in that delivers to the receiver."""
    with running_standin(tmp_path, webhook_url=receiver.url) as running:
        running.control.settings(retry_s=0.05)
        yield running


def test_lists_are_filtered_and_paged(standin: Standin, client: stripe.StripeClient):
    customers = [make_customer(client) for _ in range(5)]
    client.v1.customers.update(customers[0], {"name": "Other"})
    made = [
        event.data.object["id"]
        for event in client.v1.events.list({"types": ["customer.created"], "limit": 2}).auto_paging_iter()
    ]
    assert made[:5] == customers[::-1]
    page = client.v1.events.list({"limit": 3})
    older = client.v1.events.list({"limit": 2, "starting_after": page.data[0].id}).data
    assert [event.id for event in older] == [event.id for event in page.data[1:]]
    newer = client.v1.events.list({"limit": 10, "ending_before": page.data[2].id}).data
    assert [event.id for event in newer] == [event.id for event in page.data[:2]]
    future = client.v1.events.list({"created": {"gte": page.data[0].created + 1000}}).data
    assert future == []
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.events.list({"limit": 101})


def test_events_are_kept_for_thirty_days(standin: Standin, client: stripe.StripeClient):
    make_customer(client)
    event = client.v1.events.list({"limit": 1}).data[0]
    standin.control.advance(30 * 86_400 + 5)
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.events.retrieve(event.id)
    assert event.id not in [found.id for found in client.v1.events.list({"limit": 100}).data]


def test_delivered_with_a_signature_of_stripes_kind(talking: Standin, receiver: Receiver):
    customer = make_customer(client_of(talking))
    talking.control.drain()

    (event,) = receiver.events(talking.webhook_secret)

    assert (event.type, event.data.object["id"]) == ("customer.created", customer)
    assert event.api_version == stripe.api_version
    assert event.request.id.startswith("req_")
    with pytest.raises(stripe.SignatureVerificationError):
        receiver.events("whsec_other")


def test_retried_until_acknowledged(talking: Standin, receiver: Receiver):
    receiver.status = 500
    client = client_of(talking)
    make_customer(client)
    while len(receiver.got) < 3:
        time.sleep(0.01)
    assert len(client.v1.events.list({"delivery_success": False}).data) == 1
    assert client.v1.events.list().data[0].pending_webhooks == 1
    receiver.status = 200
    talking.control.drain()
    assert client.v1.events.list({"delivery_success": False}).data == []
    assert len(client.v1.events.list({"delivery_success": True}).data) == 1


def test_lost_events_are_in_the_list(talking: Standin, receiver: Receiver):
    talking.control.chaos(lose=1.0)
    client = client_of(talking)
    make_customer(client)
    talking.control.drain()
    assert receiver.got == []
    (lost,) = client.v1.events.list({"delivery_success": False}).data
    assert lost.type == "customer.created"
    assert talking.control.deliver(include_lost=True) == [{"event": lost.id, "answer": 200}]
    assert len(receiver.got) == 1


def test_doubled_and_reordered(talking: Standin, receiver: Receiver):
    talking.control.chaos(seed=3, double=1.0, reorder=0.5)
    client = client_of(talking)
    made = [make_customer(client) for _ in range(6)]
    talking.control.drain()
    got = [event.data.object["id"] for event in receiver.events(talking.webhook_secret)]
    assert sorted(got) == sorted(made * 2)
    assert got != [customer for customer in made for _ in range(2)]


def test_held_and_delivered_by_command(talking: Standin, receiver: Receiver):
    talking.control.settings(hold_webhooks=True)
    client = client_of(talking)
    made = [make_customer(client) for _ in range(4)]
    events = [event.id for event in client.v1.events.list().data][::-1]
    talking.control.deliver(events=events[2:3], times=2)
    talking.control.deliver(shuffle=1)
    got = [event.data.object["id"] for event in receiver.events(talking.webhook_secret)]
    assert got[:2] == made[2:3] * 2
    assert sorted(got[2:]) == sorted(made[:2] + made[3:])


def test_secrets_are_rotated(talking: Standin, receiver: Receiver):
    new = talking.control.rotate_secret()["secret"]
    client = client_of(talking)
    make_customer(client)
    talking.control.drain()
    assert len(receiver.events(talking.webhook_secret)) == len(receiver.events(new)) == 1
    talking.control.drop_old_secrets()
    receiver.got.clear()
    make_customer(client)
    talking.control.drain()
    assert len(receiver.events(new)) == 1
    with pytest.raises(stripe.SignatureVerificationError):
        receiver.events(talking.webhook_secret)


def test_forgeries(talking: Standin, receiver: Receiver):
    forged = {"id": "evt_forged", "object": "event", "type": "payout.paid", "data": {"object": {}}}
    talking.control.post_event(event=forged, secrets=["whsec_guess"])
    with pytest.raises(stripe.SignatureVerificationError):
        receiver.events(talking.webhook_secret)
    receiver.got.clear()
    talking.control.post_event(event=forged, timestamp=int(time.time()) - 3600)
    with pytest.raises(stripe.SignatureVerificationError):
        receiver.events(talking.webhook_secret)


def test_deliveries_go_on_after_a_kill(talking: Standin, receiver: Receiver):
    receiver.status = 503
    make_customer(client_of(talking))
    while not receiver.got:
        time.sleep(0.01)
    talking.kill()
    receiver.status = 200
    receiver.got.clear()
    talking.restart()
    talking.control.drain()
    assert len(receiver.events(talking.webhook_secret)) == 1


def test_commands_that_do_not_exist(standin: Standin):
    with pytest.raises(StandinError):
        standin.control.dance()
    with pytest.raises(StandinError):
        standin.control.decline_next(how_many=3)
    with pytest.raises(StandinError):
        standin.control.advance(-5)
