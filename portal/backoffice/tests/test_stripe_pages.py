"""What operators do between Stripe and us, in pages: refund, process events again, send requests again."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest
from django.conf import settings
from django.test import Client

from devstack.stripe_standin.testing import Standin, running_standin
from portal.backoffice.tests.people import Operator, make_operator, sign_in
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id
from quotas.models import EventState, OperationKind, OperationState, StripeEvent, StripeOperation, TopUpState
from quotas.payments import fulfilment
from quotas.payments.inbox import process_event
from quotas.payments.interventions import MAX_REPLAYED
from quotas.payments.tests.stripe_side import begin, configure, session_of
from tenants.scope import role_scope
from tests.database import money_of, rows_of
from tests.factories import TenantFixture, make_tenant
from tests.factories_payments import make_event, make_operation, make_refund, make_top_up

pytestmark = pytest.mark.usefixtures("database")
UNIT = 10**9
HERE = "/operator/payments/"


@pytest.fixture(scope="module")
def operator(database: None) -> Operator:
    return make_operator()


@pytest.fixture(scope="module")
def client(operator: Operator) -> Client:
    return sign_in(operator)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standin]:
    with running_standin(tmp_path_factory.mktemp("stripe")) as standin:
        yield standin


@pytest.fixture
def standin(running: Standin, database: None, monkeypatch: pytest.MonkeyPatch) -> Standin:
    configure(monkeypatch, running)
    return running


def spelled(kind: str, row_id: UUID) -> str:
    return public_id(PREFIXES[kind], row_id)


def paid_at_stripe(standin: Standin, tenant: TenantFixture, units: int = 20) -> UUID:
    """A top-up that a person has paid with a card."""
    top_up = begin(tenant, units)
    session_id = session_of(top_up)
    standin.control.complete_session(session_id)
    assert fulfilment.apply_session(session_id=session_id, now=utc_now()) == TopUpState.PAID
    return top_up.id


def refusals(page: str) -> bool:
    return 'data-testid="refund-confirm"' not in page


# --- Refunds ---------------------------------------------------------------------------------------


def test_a_part_and_then_the_rest(standin: Standin, client: Client, operator: Operator) -> None:
    tenant = make_tenant(granted=None)
    top_up_id = paid_at_stripe(standin, tenant)
    address = f"{HERE}top-ups/{spelled('top_up', top_up_id)}/refund"
    page = client.get(address)
    assert page.context["left"].amount_nanos == 20 * UNIT
    answer = client.post(address, {"share": "part", "amount": "7.5", "reason": "Bought too much"})
    assert answer.status_code == 302
    assert money_of(tenant.id).paid == 12.5 * UNIT
    (refund,) = rows_of("quotas_refund", top_up_id=top_up_id)
    assert (refund["state"], refund["reason"]) == ("SUCCEEDED", "Bought too much")
    assert refund["ordered_by_id"] == operator.person.id
    (event,) = rows_of("tenants_auditevent", tenant_id=tenant.id, action="refund.order")
    assert event["actor_id"] == operator.person.id
    assert client.post(address, {"share": "all", "reason": "And the rest of it"}).status_code == 302
    assert money_of(tenant.id).paid == 0
    text = client.get(address).content.decode()
    assert "refund-obstacle" in text
    assert refusals(text)
    log = client.get("/operator/audit/", {"organization": tenant.public_id}).content.decode()
    assert f"/operator/payments/refunds/?q={spelled('refund', refund['id'])}" in log


@pytest.mark.parametrize(
    "form",
    [
        {"share": "part", "amount": "", "reason": "for the test"},
        {"share": "part", "amount": "-1", "reason": "for the test"},
        {"share": "part", "amount": "0", "reason": "for the test"},
        {"share": "part", "amount": "1e3", "reason": "for the test"},
        {"share": "part", "amount": "20.01", "reason": "for the test"},
        {"share": "part", "amount": "0.001", "reason": "for the test"},
        {"share": "all", "reason": ""},
        {"share": "", "amount": "1", "reason": "for the test"},
    ],
    ids=lambda form: f"{form['share']} {form.get('amount', '')}",
)
def test_what_cannot_be_refunded_is_said(
    form: dict[str, str], standin: Standin, client: Client, made_top_up: UUID
) -> None:
    address = f"{HERE}top-ups/{spelled('top_up', made_top_up)}/refund"
    answer = client.post(address, form)
    assert answer.status_code == 422
    assert answer.context["form"].errors
    assert rows_of("quotas_refund", top_up_id=made_top_up) == []


@pytest.fixture(scope="module")
def made_top_up(database: None) -> UUID:
    return make_top_up(make_tenant(granted=None))


def test_nothing_is_left_of_what_was_spent_or_never_paid(standin: Standin, client: Client) -> None:
    tenant = make_tenant(granted=None)
    spent = make_top_up(tenant)
    make_refund(make_top_up(tenant), amount="20.00")
    make_refund(spent, amount="20.00")
    open_ = make_top_up(tenant, state=TopUpState.OPEN)
    for top_up_id in (spent, open_):
        address = f"{HERE}top-ups/{spelled('top_up', top_up_id)}/refund"
        assert refusals(client.get(address).content.decode())
        assert client.post(address, {"share": "all", "reason": "for the test"}).status_code == 422


def test_above_what_one_operator_refunds_a_day(
    standin: Standin, client: Client, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(settings.TUNING, "SLUICE_REFUND_LIMIT_UNITS", 1)
    tenant = make_tenant(granted=None)
    top_up_id = make_top_up(tenant)
    address = f"{HERE}top-ups/{spelled('top_up', top_up_id)}/refund"
    answer = client.post(address, {"share": "all", "reason": "for the test"})
    assert answer.status_code == 422
    assert money_of(tenant.id).paid == 20 * UNIT
    (refused,) = rows_of("tenants_auditevent", tenant_id=tenant.id, outcome="REFUSED")
    assert (refused["action"], refused["actor_id"]) == ("refund.order", operator.person.id)


def test_without_a_key_nothing_is_refunded(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "STRIPE_SECRET_KEY", "")
    top_up_id = make_top_up(make_tenant(granted=None))
    address = f"{HERE}top-ups/{spelled('top_up', top_up_id)}/refund"
    assert client.post(address, {"share": "all", "reason": "for the test"}).status_code == 422
    assert rows_of("quotas_refund", top_up_id=top_up_id) == []


# --- Events ----------------------------------------------------------------------------------------


def test_events_are_found_and_read_without_secrets(client: Client) -> None:
    event_id = make_event(
        object_id="pi_of_" + public_id(PREFIXES["top_up"], make_top_up(make_tenant())),
        type="payment_intent.succeeded",
        client_secret="pi_secret_nobody_reads",
        metadata={"client_secret": "pi_secret_nobody_reads", "more": ["<script>alert(1)</script>"]},
        note="水",
    )
    with role_scope("operator"):
        row = StripeEvent.objects.get(id=event_id)
    for text in (event_id, row.object_id):
        page = client.get(f"{HERE}events/", {"q": text})
        assert [one.row.id for one in page.context["rows"]] == [event_id]
    text = client.get(f"{HERE}events/{event_id}/").content.decode()
    assert "nobody_reads" not in text
    assert "水" in text
    assert "<script>alert" not in text
    for query in ({"state": "FAILED"}, {"type": "other"}, {"source": "POLLER"}):
        assert not client.get(f"{HERE}events/", {"q": event_id, **query}).context["rows"]


def test_pages_of_events_go_back_without_skipping(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portal.backoffice.payments.inbox.PAGE_ROWS", 2)
    # In one second, as Stripe counts them.
    now, kind = utc_now(), f"test.pages.{UUID(int=7).hex}"
    made = {make_event(type=kind, at=now) for _ in range(5)}
    seen: list[str] = []
    query = {"type": kind}
    while True:
        page = client.get(f"{HERE}events/", query)
        seen += [one.row.id for one in page.context["rows"]]
        if not page.context["next"]:
            break
        query["before"] = page.context["next"]
    assert sorted(seen) == sorted(made)


def test_an_event_is_processed_again(standin: Standin, client: Client, operator: Operator) -> None:
    tenant = make_tenant(granted=None)
    top_up = begin(tenant)
    standin.control.complete_session(session_of(top_up))
    event_id = make_event(object_id=session_of(top_up), state=EventState.FAILED, error="Stripe was away")
    page = client.get(f"{HERE}events/{event_id}/").content.decode()
    assert "Stripe was away" in page
    address = f"{HERE}events/{event_id}/replay"
    assert client.get(address).status_code == 200
    assert client.post(address, {"reason": ""}).status_code == 422
    assert client.post(address, {"reason": "It is back"}).status_code == 302
    # The worker, or whoever sweeps behind it.
    assert process_event(event_id=event_id, now=utc_now()) in (EventState.PROCESSED, None)
    assert money_of(tenant.id).paid == 20 * UNIT
    (event,) = rows_of("tenants_auditevent", target=event_id)
    assert (event["action"], event["actor_id"]) == ("stripe_event.replay", operator.person.id)
    log = client.get("/operator/audit/", {"action": "stripe_event.replay"}).content.decode()
    assert f"/operator/payments/events/{event_id}/" in log
    # And once more: nothing moves.
    assert client.post(address, {"reason": "To be sure"}).status_code == 302
    process_event(event_id=event_id, now=utc_now())
    assert money_of(tenant.id).paid == 20 * UNIT


def test_all_that_failed_is_processed_again_but_not_without_end(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[str] = []
    monkeypatch.setattr("quotas.payments.inbox.wake", lambda *, event_id: woken.append(event_id))
    address = f"{HERE}events/replay-failed"
    while count_failed():
        client.post(address, {"reason": "for the test"})
    assert client.post(address, {"reason": "for the test"}).status_code == 422
    woken.clear()
    for _ in range(MAX_REPLAYED + 1):
        make_event(state=EventState.FAILED)
    assert "replay-failed" in client.get(f"{HERE}events/").content.decode()
    assert client.get(address).status_code == 200
    assert client.post(address, {"reason": "for the test"}).status_code == 302
    assert len(woken) == MAX_REPLAYED
    assert count_failed() == 1


def count_failed() -> int:
    return len(rows_of("quotas_stripeevent", state="FAILED"))


# --- Requests --------------------------------------------------------------------------------------


def test_a_pending_request_is_sent_again(standin: Standin, client: Client, operator: Operator) -> None:
    tenant = make_tenant()
    operation_id = make_operation(
        tenant,
        kind=OperationKind.CUSTOMER,
        subject_id=tenant.id,
        state=OperationState.PENDING,
        parameters={"name": "Test", "metadata": {"tenant": tenant.public_id}},
    )
    listed = client.get(f"{HERE}requests/", {"organization": tenant.public_id, "state": "PENDING"})
    assert [one.row.id for one in listed.context["rows"]] == [operation_id]
    address = f"{HERE}requests/{spelled('stripe_operation', operation_id)}/send"
    assert client.get(address).status_code == 200
    assert client.post(address, {"reason": "Its answer got lost"}).status_code == 302
    (row,) = rows_of("quotas_stripeoperation", id=operation_id)
    assert (row["state"], row["attempts"]) == ("DONE", 2)
    (event,) = rows_of("tenants_auditevent", action="stripe_operation.send", tenant_id=tenant.id)
    assert (event["reason"], event["actor_id"]) == ("Its answer got lost", operator.person.id)
    assert client.post(address, {"reason": "Once more"}).status_code == 422


def test_without_a_key_nothing_is_sent(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "STRIPE_SECRET_KEY", "")
    tenant = make_tenant()
    operation_id = make_operation(tenant, kind=OperationKind.CUSTOMER, state=OperationState.PENDING)
    address = f"{HERE}requests/{spelled('stripe_operation', operation_id)}/send"
    assert client.post(address, {"reason": "for the test"}).status_code == 422
    assert rows_of("tenants_auditevent", tenant_id=tenant.id, action="stripe_operation.send") == []
    with role_scope("operator"):
        # So that no sweeper of another test finds it.
        StripeOperation.objects.filter(id=operation_id).update(
            state=OperationState.ABANDONED, finished_at=utc_now()
        )
