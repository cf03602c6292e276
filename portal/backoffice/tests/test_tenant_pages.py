"""Organizations as operators see and change them, in pages."""

from __future__ import annotations

import pytest
from django.test import Client

from portal.backoffice.tests.people import make_operator, sign_in
from quotas.ledger.lots import expiring_credit
from tenants.models import Tenant, TenantState
from tenants.scope import role_scope
from tests.database import money_of, rows_of
from tests.factories import set_state
from tests.isolation.worlds import World, make_world

pytestmark = pytest.mark.usefixtures("database")
UNIT = 10**9


@pytest.fixture(scope="module")
def client(database: None) -> Client:
    return sign_in(make_operator())


@pytest.fixture(scope="module")
def world(database: None) -> World:
    return make_world()


def address(world: World, rest: str = "") -> str:
    return f"/operator/tenants/{world.tenant.public_id}/{rest}"


def name_of(world: World) -> str:
    with role_scope("operator"):
        return Tenant.objects.get(id=world.tenant.id).name


def actions_of(world: World) -> list[str]:
    events = rows_of("tenants_auditevent", tenant_id=world.tenant.id)
    actions = [event["action"] for event in sorted(events, key=lambda event: event["id"])]
    # The world itself was made by a member.
    return [action for action in actions if action.startswith(("tenant.", "key."))]


@pytest.mark.parametrize("kind", ["organization", "api_key", "request"])
def test_an_organization_is_found_by_ids_of_what_it_has(kind: str, client: Client, world: World) -> None:
    page = client.get("/operator/tenants/", {"q": world.ids[kind]})
    assert [row.tenant.id for row, *_ in page.context["rows"]] == [world.tenant.id]
    assert world.owner.email in page.content.decode()


def test_filters_stay_in_the_address_and_htmx_gets_the_rows(client: Client, world: World) -> None:
    query = {"q": world.tenant.public_id, "state": "ACTIVE", "tier": "nothing", "before": "nothing"}
    fragment = client.get(
        "/operator/tenants/", query, headers={"HX-Request": "true", "HX-Target": "tenant-rows"}
    )
    assert b"<html" not in fragment.content
    assert world.tenant.public_id in fragment.content.decode()
    suspended = client.get("/operator/tenants/", {**query, "state": "SUSPENDED"})
    assert b"No organization matches" in suspended.content


def test_tiers_filter(client: Client, world: World) -> None:
    page = client.get("/operator/tenants/", {"q": world.tenant.public_id})
    ((row, *_),) = page.context["rows"]
    for tier in page.context["tiers"]:
        found = client.get("/operator/tenants/", {"q": world.tenant.public_id, "tier": tier.public_id})
        assert bool(found.context["rows"]) == (row.tier is not None and row.tier.id == tier.id)


def test_the_page_shows_what_there_is_and_no_secret(client: Client, world: World) -> None:
    text, money = client.get(address(world)).content.decode(), money_of(world.tenant.id)
    balance = f'value="{money.paid + money.granted + money.receivable}"'
    for word in (world.owner.email, world.colleague.email, world.model.slug, balance, "API keys"):
        assert word in text, word
    assert world.tenant.key.token not in text
    assert world.tenant.key.token[:20] not in text


def test_requests_and_receipts(client: Client, world: World) -> None:
    page = client.get(address(world, "requests/"))
    assert world.ids["request"] in page.content.decode()
    receipt = client.get(address(world, f"requests/{world.ids['request']}"))
    assert receipt.status_code == 200
    assert world.model.slug in receipt.content.decode()
    other = make_world()
    for stray in (other.ids["request"], "nothing", "req_00000000000000000000000000"):
        assert client.get(address(world, f"requests/{stray}")).status_code == 404


def test_what_is_not_there(client: Client) -> None:
    for stray in ("org_00000000000000000000000000", "nothing"):
        for rest in ("", "suspend", "credit", "requests/"):
            assert client.get(f"/operator/tenants/{stray}/{rest}").status_code == 404


def test_suspending_asks_for_the_name(client: Client) -> None:
    world = make_world()
    form = {"calls": "cut", "reason": "Unpaid invoice", "confirm": "another name"}
    assert client.post(address(world, "suspend"), form).status_code == 422
    unreasoned = {**form, "confirm": name_of(world), "reason": ""}
    assert client.post(address(world, "suspend"), unreasoned).status_code == 422
    assert actions_of(world) == []
    answer = client.post(address(world, "suspend"), {**form, "confirm": name_of(world)})
    assert (answer.status_code, answer["location"]) == (302, address(world))
    (row,) = rows_of("tenants_tenant", id=world.tenant.id)
    assert (row["state"], row["cuts_calls"]) == ("SUSPENDED", True)
    assert b"Unpaid invoice" in client.get(address(world)).content
    assert client.post(address(world, "suspend"), {**form, "confirm": name_of(world)}).status_code == 422
    assert client.get(address(world, "resume")).status_code == 200
    assert client.post(address(world, "resume"), {"reason": "Paid"}).status_code == 302
    assert client.post(address(world, "resume"), {"reason": "Paid"}).status_code == 422
    assert actions_of(world) == ["tenant.suspend", "tenant.resume"]


def test_a_closed_organization_is_not_suspended(client: Client) -> None:
    world = make_world()
    set_state(world.tenant.id, TenantState.CLOSED)
    form = {"calls": "finish", "reason": "for the test", "confirm": name_of(world)}
    assert client.post(address(world, "suspend"), form).status_code == 422


def test_dialogs_are_fragments_for_htmx(client: Client, world: World) -> None:
    for rest in ("suspend", "resume", "note", "credit", f"keys/{world.ids['api_key']}/revoke"):
        page = client.get(address(world, rest))
        fragment = client.get(address(world, rest), headers={"HX-Request": "true"})
        assert b"<html" in page.content
        assert b"<html" not in fragment.content
        assert b'hx-target="#operator-dialog-body"' in fragment.content


def test_notes_and_keys(client: Client) -> None:
    world = make_world()
    assert client.post(address(world, "note"), {"text": ""}).status_code == 422
    assert client.post(address(world, "note"), {"text": "<b>Called</b>"}).status_code == 302
    text = client.get(address(world)).content.decode()
    assert "&lt;b&gt;Called&lt;/b&gt;" in text
    revoke = address(world, f"keys/{world.ids['api_key']}/revoke")
    assert client.post(revoke, {"reason": ""}).status_code == 422
    assert client.post(revoke, {"reason": "Found in a paste"}).status_code == 302
    assert client.get(revoke).status_code == 404
    assert actions_of(world) == ["tenant.note", "key.revoke"]


def test_credit_is_ordered_with_an_exact_amount(client: Client) -> None:
    world = make_world()
    before = money_of(world.tenant.id).granted
    form = {"kind": "GRANT", "amount": "0.000000001", "reason": "for the test"}
    assert client.post(address(world, "credit"), form).status_code == 302
    assert money_of(world.tenant.id).granted == before + 1
    for wrong in ("", "1,5", "1e3", "-1", "0", "0.0000000001", "1000000.000000001", "NaN", "９"):
        answer = client.post(address(world, "credit"), {**form, "amount": wrong})
        assert answer.status_code == 422, wrong
    for wrong_form in ({**form, "kind": "TOP_UP"}, {**form, "reason": ""}, {**form, "reason": "no"}):
        assert client.post(address(world, "credit"), wrong_form).status_code == 422
    answer = client.post(address(world, "credit"), {**form, "kind": "TAKE_BACK", "amount": "900"})
    assert "is granted and not held" in answer.content.decode()
    assert money_of(world.tenant.id).granted == before + 1


def test_credit_that_expires(client: Client) -> None:
    world = make_world()
    form = {"kind": "GRANT", "amount": "5", "reason": "for the test", "expires_on": "2999-12-31"}
    assert client.post(address(world, "credit"), form).status_code == 302
    with role_scope("operator"):
        (one,) = expiring_credit(tenant_id=world.tenant.id)
    assert (one.amount_nanos, one.expires_at.isoformat()) == (5 * 10**9, "2999-12-31T00:00:00+00:00")
    for wrong in ({"expires_on": "2020-01-01"}, {"expires_on": "soon"}, {"kind": "TAKE_BACK"}):
        assert client.post(address(world, "credit"), form | wrong).status_code == 422, wrong


def test_credit_above_the_limit_waits(client: Client) -> None:
    world = make_world()
    before = money_of(world.tenant.id)
    text = client.get(address(world, "credit")).content.decode()
    assert "waits for a second operator" in text
    answer = client.post(
        address(world, "credit"), {"kind": "GOODWILL", "amount": "100.01", "reason": "for the test"}
    )
    assert answer.status_code == 302
    assert money_of(world.tenant.id) == before
    assert b"Waits for a second operator" in client.get(address(world)).content
    line = client.post(address(world, "credit"), {"kind": "CREDIT_LINE", "amount": "0", "reason": "none"})
    assert line.status_code == 302
