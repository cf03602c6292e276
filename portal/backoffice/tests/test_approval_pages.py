"""The second operator, in pages: approves, refuses, and is another one; and the log tells the story."""

from __future__ import annotations

import csv
import io

import pytest
from django.test import Client

from portal.backoffice.tests.people import Operator, make_operator, sign_in
from portal.kit.clock import utc_now
from quotas import operations as quota_operations
from quotas.welcome.policy import WelcomePolicy
from tenants.scope import role_scope
from tests.database import money_of, rows_of
from tests.factories import TenantFixture, make_tenant, unique_name
from tests.people import make_person

pytestmark = pytest.mark.usefixtures("database")
UNIT = 10**9


@pytest.fixture
def first() -> Operator:
    return make_operator()


@pytest.fixture
def tenant(database: None) -> TenantFixture:
    return make_tenant(granted=None)


def ordered(client: Client, tenant: TenantFixture, amount: str = "500") -> str:
    """The public id of an order that waits."""
    answer = client.post(
        f"/operator/tenants/{tenant.public_id}/credit",
        {"kind": "GRANT", "amount": amount, "reason": "A pilot project"},
    )
    assert answer.status_code == 302
    page = client.get(f"/operator/tenants/{tenant.public_id}/")
    return str(page.context["orders"][0].order.public_id)


def test_an_order_above_the_limit_takes_two(first: Operator, tenant: TenantFixture) -> None:
    client, second = sign_in(first), sign_in(make_operator())
    order = ordered(client, tenant)
    own = client.get("/operator/approvals/").content.decode()
    assert f"/operator/approvals/{order}/withdraw" in own
    assert f"/operator/approvals/{order}/approve" not in own
    # Who comes by address is offered what is possible.
    by_address = client.get(f"/operator/approvals/{order}/approve").content.decode()
    assert f"/operator/approvals/{order}/withdraw" in by_address
    assert "order-decide" not in by_address
    answer = client.post(f"/operator/approvals/{order}/approve", {"reason": ""})
    assert answer.status_code == 403
    assert money_of(tenant.id).granted == 0
    (refused,) = rows_of("tenants_auditevent", actor_id=first.person.id, outcome="REFUSED")
    assert (refused["action"], refused["target"]) == ("credit.approve", order)
    assert refused["tenant_id"] == tenant.id
    page = second.get("/operator/approvals/").content.decode()
    assert f"/operator/approvals/{order}/approve" in page
    assert "approvals-waiting" in page
    assert second.get(f"/operator/approvals/{order}/approve").status_code == 200
    assert second.post(f"/operator/approvals/{order}/approve", {"reason": "ok then"}).status_code == 302
    assert money_of(tenant.id).granted == 500 * UNIT
    again = second.post(f"/operator/approvals/{order}/approve", {"reason": ""})
    assert again.status_code == 422
    assert b"decided already" in again.content
    assert money_of(tenant.id).granted == 500 * UNIT


def test_refusing_and_withdrawing(first: Operator, tenant: TenantFixture) -> None:
    client, second = sign_in(first), sign_in(make_operator())
    order = ordered(client, tenant)
    assert second.post(f"/operator/approvals/{order}/withdraw", {"reason": ""}).status_code == 403
    assert second.post(f"/operator/approvals/{order}/refuse", {"reason": ""}).status_code == 422
    assert second.post(f"/operator/approvals/{order}/refuse", {"reason": "Not now"}).status_code == 302
    order = ordered(client, tenant)
    assert client.post(f"/operator/approvals/{order}/withdraw", {"reason": ""}).status_code == 302
    assert money_of(tenant.id).granted == 0
    states = {row["state"] for row in rows_of("quotas_creditorder", tenant_id=tenant.id)}
    assert states == {"REFUSED", "WITHDRAWN"}
    assert b"Not now" in client.get("/operator/approvals/").content
    for stray in ("nothing", "ord_00000000000000000000000000"):
        assert client.get(f"/operator/approvals/{stray}/approve").status_code == 404


def test_held_welcome_credits(first: Operator) -> None:
    client = sign_in(first)
    for verb, form, granted in (("approve", {"reason": ""}, UNIT), ("refuse", {"reason": "Not yet"}, 0)):
        person = make_person()
        with role_scope("auth"):
            tenant_id = quota_operations.open_tenant(
                name=unique_name("Held"),
                currency="USD",
                currencies=("USD",),
                owner_id=person.id,
                welcome=quota_operations.WelcomeOffer(UNIT),
            )
        with role_scope("operator"):
            quota_operations.give_welcome_credit(
                user_id=person.id,
                verified_email=person.email,
                policy=WelcomePolicy(needs_operator=True),
                now=utc_now(),
            )
        page = client.get("/operator/approvals/")
        (held,) = [held for held, _ in page.context["welcomes"] if held.tenant_id == tenant_id]
        address = f"/operator/approvals/welcome/{held.public_id}/{verb}"
        assert client.get(address).status_code == 200
        assert client.post(address, form).status_code == 302
        assert client.post(address, form).status_code == 404
        assert money_of(tenant_id).granted == granted
        (event,) = rows_of("tenants_auditevent", tenant_id=tenant_id)
        assert (event["action"], event["actor_id"]) == (f"welcome.{verb}", first.person.id)


def test_the_log_tells_the_whole_story(first: Operator, tenant: TenantFixture) -> None:
    client = sign_in(first)
    order = ordered(client, tenant)
    client.post(f"/operator/approvals/{order}/approve", {"reason": ""})
    sign_in(make_operator()).post(f"/operator/approvals/{order}/approve", {"reason": "=cmd"})
    page = client.get("/operator/audit/", {"organization": tenant.public_id})
    shown = [(one.event.action, one.event.outcome.value) for one in page.context["events"]]
    assert shown == [("credit.approve", "DONE"), ("credit.approve", "REFUSED"), ("credit.order", "DONE")]
    text = page.content.decode()
    assert "$500.00" in text
    assert "A pilot project" in text
    (newest, *_) = page.context["events"]
    changed = {change.name: (change.before, change.after) for change in newest.changes if change.is_changed}
    assert changed == {"granted": ("$0.00", "$500.00"), "state": ("WAITING", "POSTED")}
    for query, count in (
        ({"outcome": "REFUSED"}, 1),
        ({"actor": first.person.email}, 2),
        ({"action": "credit.order"}, 1),
        ({"day": "2021-01-01"}, 0),
        ({"day": f"{utc_now():%Y-%m-%d}"}, 3),
        ({"day": "nonsense", "outcome": "x", "before": "x", "actor": "\0"}, 3),
    ):
        page = client.get("/operator/audit/", {"organization": tenant.public_id, **query})
        assert len(page.context["events"]) == count, query
    answer = client.get("/operator/audit/audit.csv", {"organization": tenant.public_id})
    text = b"".join(answer.streaming_content).decode().removeprefix("\ufeff")  # type: ignore[attr-defined]
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["action"] for row in rows] == ["credit.approve", "credit.approve", "credit.order"]
    # No spreadsheet runs what somebody wrote as a reason.
    assert rows[0]["reason"] == "'=cmd"
    fragment = client.get("/operator/audit/", headers={"HX-Request": "true", "HX-Target": "audit-rows"})
    assert b"<html" not in fragment.content


def test_where_operators_begin(first: Operator, tenant: TenantFixture) -> None:
    client = sign_in(first)
    ordered(client, tenant)
    page = client.get("/operator/")
    assert page.status_code == 200
    assert page.context["orders"] >= 1
    assert b"credit.order" in page.content
