"""Operators' pages over top-ups, refunds, disputes and receivables."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import pytest
from django.conf import settings
from django.test import Client

from portal.backoffice.tests.people import make_operator, sign_in
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id
from quotas.models import EventSource, EventState, OperationKind, RefundState, TopUpSource, TopUpState
from quotas.payments.debtor_queries import list_debtors
from tenants.scope import role_scope
from tests.database import rows_of
from tests.factories import TenantFixture, make_tenant
from tests.factories_payments import (
    make_dispute,
    make_event,
    make_every_payment,
    make_operation,
    make_refund,
    make_top_up,
    set_cursor,
)

pytestmark = pytest.mark.usefixtures("database")
UNIT = 10**9
HERE = "/operator/payments/"


@pytest.fixture(scope="module")
def client(database: None) -> Client:
    return sign_in(make_operator())


@dataclass(frozen=True, slots=True)
class Paid:
    """An organization with a row of everything, and the public ids of its rows by kind."""

    tenant: TenantFixture
    ids: dict[str, str]


@pytest.fixture(scope="module")
def paid(database: None) -> Paid:
    tenant = make_tenant()
    return Paid(tenant, {kind: spelled(kind, row_id) for kind, row_id in make_every_payment(tenant).items()})


def spelled(kind: str, row_id: object) -> str:
    return public_id(PREFIXES[kind], row_id)  # type: ignore[arg-type]


def text_of(client: Client, address: str, **query: str) -> str:
    answer = client.get(HERE + address, query)
    assert answer.status_code == 200, answer.status_code
    return str(answer.content.decode())


@pytest.mark.parametrize(
    "address", ["", "top-ups/", "refunds/", "disputes/", "receivables/", "events/", "requests/", "days/"]
)
def test_lists_bear_what_addresses_may_say(address: str, client: Client, paid: Paid) -> None:
    nonsense = dict.fromkeys(
        ("organization", "state", "source", "kind", "type", "q", "before", "until", "day", "currency"), "\0x'"
    )
    assert 'data-testid="payment-tabs"' in text_of(client, address)
    assert 'data-testid="payment-tabs"' in text_of(client, address, period="custom", **nonsense)


def test_top_ups_are_found_by_what_they_are_called_here_and_at_stripe(client: Client, paid: Paid) -> None:
    found = paid.ids["top_up"]
    (row,) = rows_of("quotas_topup", tenant_id=paid.tenant.id)
    for text in (found, row["session_id"], row["payment_intent_id"], row["charge_id"]):
        page = client.get(f"{HERE}top-ups/", {"q": text})
        assert [one.row.public_id for one in page.context["rows"]] == [found], text
    page = client.get(f"{HERE}top-ups/", {"organization": paid.tenant.public_id, "state": "PAID"})
    assert [one.row.public_id for one in page.context["rows"]] == [found]
    for other in ({"state": "FAILED"}, {"source": "BANK"}, {"period": "last-month"}, {"q": "cs_nothing"}):
        query = {"organization": paid.tenant.public_id, **other}
        assert "No top-up matches" in text_of(client, "top-ups/", **query)
    fragment = client.get(f"{HERE}top-ups/", headers={"HX-Request": "true", "HX-Target": "top-up-rows"})
    assert b"<html" not in fragment.content


def test_a_top_up_tells_all_about_itself(client: Client, paid: Paid) -> None:
    (row,) = rows_of("quotas_topup", tenant_id=paid.tenant.id)
    make_event(object_id=row["charge_id"], type="charge.updated")
    page = client.get(f"{HERE}top-ups/{paid.ids['top_up']}/")
    text = page.content.decode()
    for told in (row["session_id"], row["payment_intent_id"], row["charge_id"], paid.ids["refund"]):
        assert told in text
    assert paid.ids["dispute"] in text
    assert "charge.updated" in text
    # Credited, refunded, taken by the dispute: each transfer adds up to zero.
    transfers = page.context["transfers"]
    assert {one.row.kind for one in transfers} == {"TOP_UP", "REFUND", "CHARGEBACK"}
    assert all(sum(nanos for _name, nanos in one.legs) == 0 for one in transfers)
    assert {one.row.kind for one in page.context["operations"]} == {"REFUND", "CHECKOUT"}
    assert client.get(transfers[0].url).status_code == 200


def test_pages_go_back_without_skipping_or_repeating(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portal.backoffice.payments.top_ups.PAGE_ROWS", 2)
    tenant = make_tenant(granted=None)
    made = {spelled("top_up", make_top_up(tenant)) for _ in range(5)}
    seen: list[str] = []
    query = {"organization": tenant.public_id}
    while True:
        page = client.get(f"{HERE}top-ups/", query)
        seen += [one.row.public_id for one in page.context["rows"]]
        if not page.context["next"]:
            break
        query["before"] = page.context["next"]
    assert sorted(seen) == sorted(made)


def test_every_state_and_source_has_words(client: Client) -> None:
    tenant = make_tenant(granted=None)
    ids = [make_top_up(tenant, state=state) for state in TopUpState]
    ids += [make_top_up(tenant, source=source) for source in TopUpSource if source != TopUpSource.INVOICE]
    paid = [ids[TopUpState.values.index("PAID")], *ids[len(TopUpState) :]]
    for state in RefundState:
        make_refund(paid[0], amount="1.00", state=state)
    for top_up_id in ids:
        text = text_of(client, f"top-ups/{spelled('top_up', top_up_id)}/")
        assert ('data-testid="top-up-refund"' in text) == (top_up_id in paid)
    refunds = client.get(f"{HERE}refunds/", {"organization": tenant.public_id}).context["rows"]
    assert {one.row.state for one in refunds} == set(RefundState)
    only = client.get(f"{HERE}refunds/", {"q": refunds[0].row.public_id}).context["rows"]
    assert [one.row.id for one in only] == [refunds[0].row.id]


def test_disputes_and_what_they_took(client: Client) -> None:
    tenant = make_tenant(granted=None)
    top_up_id = make_top_up(tenant)
    won = make_dispute(top_up_id, status="won", is_reinstated=True)
    unknown = make_dispute(top_up_id, status="charge_refunded_somehow", is_withdrawn=False)
    open_ = client.get(f"{HERE}disputes/", {"organization": tenant.public_id, "state": "open"})
    assert [one.row.id for one in open_.context["rows"]] == [unknown]
    page = client.get(f"{HERE}disputes/{spelled('dispute', won)}/")
    assert page.context["found"].taken_nanos == 0
    assert page.content.decode().count('data-testid="dispute-movement"') == 2
    assert "evidence-due" not in page.content.decode()
    text = text_of(client, f"disputes/{spelled('dispute', unknown)}/")
    assert "charge_refunded_somehow" in text
    assert "evidence-due" in text


def test_who_owes_how_much_and_since_when(client: Client) -> None:
    tenant = make_tenant(granted=None)
    make_refund(top_up_id := make_top_up(tenant), amount="15.00")
    make_dispute(top_up_id)
    with role_scope("operator"):
        (row,) = list_debtors(now=utc_now(), tenant_ids=[tenant.id])
    (chargeback,) = rows_of("quotas_ledgertransfer", tenant_id=tenant.id, kind="CHARGEBACK")
    assert row.owed_nanos == 15 * UNIT
    assert row.since == chargeback["posted_at"]
    assert f'data-tenant="{tenant.public_id}"' in text_of(client, "receivables/")
    # Paid, and owed again: since the second time.
    make_top_up(tenant)
    with role_scope("operator"):
        assert list_debtors(now=utc_now(), tenant_ids=[tenant.id]) == []
    make_dispute(make_top_up(tenant), amount="40.00")
    with role_scope("operator"):
        (row,) = list_debtors(now=utc_now(), tenant_ids=[tenant.id])
    last = max(
        rows_of("quotas_ledgertransfer", tenant_id=tenant.id, kind="CHARGEBACK"),
        key=lambda one: one["posted_at"],
    )
    assert (row.owed_nanos, row.since) == (15 * UNIT, last["posted_at"])
    text = client.get(f"/operator/tenants/{tenant.public_id}/").content.decode()
    assert f"/operator/payments/top-ups/?organization={tenant.public_id}" in text
    assert "/operator/payments/receivables/" in text


def test_the_overview_counts_what_its_lists_show(client: Client) -> None:
    tenant = make_tenant(currency="CNY", granted=None)
    before = figures(client)
    top_up_id = make_top_up(tenant, amount="30.00", tax="3.00")
    make_refund(top_up_id, amount="10.00", tax="1.00")
    make_refund(top_up_id, amount="5.00", state=RefundState.FAILED)
    make_dispute(top_up_id, amount="8.00", is_withdrawn=False)
    make_top_up(tenant, state=TopUpState.FAILED)
    after = figures(client)
    assert after["top_ups"] - before.get("top_ups", 0) == 30 * UNIT
    assert after["top_ups_today"] - before.get("top_ups_today", 0) == 30 * UNIT
    assert after["refunds"] - before.get("refunds", 0) == 10 * UNIT
    assert after["disputes"] - before.get("disputes", 0) == 8 * UNIT
    listed = client.get(f"{HERE}top-ups/", {"state": "PAID", "period": "today"}).context["rows"]
    assert top_up_id in [one.row.id for one in listed]


def figures(client: Client) -> dict[str, int]:
    overview = client.get(HERE).context["overview"]
    found = next((one for one in overview.currencies if one.currency == "CNY"), None)
    names = ("top_ups", "top_ups_today", "refunds", "disputes", "owed")
    return {name: getattr(found, name).nanos for name in names} if found else {}


def test_the_overview_says_what_is_silent(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "STRIPE_SECRET_KEY", "")
    assert "payments-off" in text_of(client, "")
    monkeypatch.setattr(settings, "STRIPE_SECRET_KEY", "sk_test_of_nothing")
    now = utc_now()
    set_cursor("events", polled_at=now - timedelta(hours=1))
    text = text_of(client, "")
    assert "payments-off" not in text
    assert "poller-silent" in text
    set_cursor("events", polled_at=now, error="401 from Stripe")
    text = text_of(client, "")
    assert "poller-silent" not in text
    assert "401 from Stripe" in text
    set_cursor("events", polled_at=now)
    assert "inbox-stuck" not in text_of(client, "")
    make_event(state=EventState.RECEIVED, source=EventSource.POLLER, at=now - timedelta(hours=2))
    assert "inbox-stuck" in text_of(client, "")


def test_addresses_of_nothing_are_not_there(client: Client) -> None:
    for address in (
        "top-ups/tup_00000000000000000000000000/",
        "top-ups/nothing/",
        "top-ups/tup_00000000000000000000000000/refund",
        "disputes/dsp_00000000000000000000000000/",
        "events/evt_nothing/",
        "events/evt_nothing/replay",
        "requests/sop_00000000000000000000000000/send",
    ):
        assert client.get(HERE + address).status_code == 404, address


def test_only_operators_find_it(client: Client, paid: Paid) -> None:
    make_operation(paid.tenant, kind=OperationKind.CUSTOMER)
    assert text_of(client, "requests/", organization=paid.tenant.public_id)
    assert Client().get(HERE).status_code == 302
