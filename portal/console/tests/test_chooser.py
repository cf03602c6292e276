"""The way in: to the only organization, the last one, a list, or opening one."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from portal.console.tests.people import Stage, browser_of, make_person, open_stage, text_of
from quotas import operations as quota_operations
from tenants.models import Membership, Role, Tenant, User
from tenants.scope import role_scope


def second_organization(person: User, name: str = "Second Ltd") -> str:
    with role_scope("operator"):
        tenant_id = quota_operations.open_tenant(
            name=name, currency="CNY", currencies=("CNY",), owner_id=person.id
        )
    return Stage(tenant_id, str(Tenant(id=tenant_id)), person, browser_of(person)).public_id


def overview(organization: str) -> str:
    return reverse("console:overview", args=[organization])


def test_whoever_is_not_signed_in_is_asked_to(database: None) -> None:
    assert Client().get("/o/")["Location"] == "/accounts/login/?next=/o/"
    assert Client().post("/o/new")["Location"].startswith("/accounts/login/")


def test_the_only_organization_is_entered(database: None) -> None:
    stage = open_stage()
    assert stage.browser.get("/o/")["Location"] == overview(stage.public_id)
    listed = text_of(stage.browser.get("/o/?choose=1"))
    assert listed.count('data-testid="organization-row"') == 1


def test_of_several_the_last_one_as_long_as_one_is_a_member(database: None) -> None:
    stage = open_stage()
    person, membership = stage.add(Role.VIEWER)
    second = second_organization(person)
    theirs = stage.seen_by(person)
    assert text_of(theirs.browser.get("/o/")).count('data-testid="organization-row"') == 2
    assert theirs.get("keys").status_code == 200
    assert theirs.browser.get("/o/")["Location"] == overview(stage.public_id)
    assert theirs.browser.get("/o/?choose=1").status_code == 200
    with role_scope("operator"):
        Membership.objects.filter(id=membership).delete()
    assert theirs.browser.get("/o/")["Location"] == overview(second)


def test_an_operator_without_one_goes_to_the_operators_pages(database: None) -> None:
    operator = make_person()
    with role_scope("auth"):
        User.objects.filter(id=operator.id).update(is_staff=True)
    assert browser_of(operator).get("/o/")["Location"] == reverse("backoffice:witness")


def test_whoever_has_none_opens_one_and_owns_it(database: None) -> None:
    person = make_person()
    browser = browser_of(person)
    assert browser.get("/o/")["Location"] == "/o/new"
    assert "belong to no organization yet" in text_of(browser.get("/o/new"))
    opened = browser.post("/o/new", {"name": " My  Works ", "currency": "CNY"})
    assert opened.status_code == 302
    with role_scope("operator"):
        member = Membership.objects.select_related("tenant").get(user=person)
    assert (member.role, member.tenant.name, member.tenant.currency) == ("OWNER", "My Works", "CNY")
    assert opened["Location"] == overview(str(member.tenant))


@pytest.mark.parametrize(
    "data",
    [
        {"name": "", "currency": "USD"},
        {"name": "x" * 201, "currency": "USD"},
        {"name": "a\u202eb", "currency": "USD"},
        {"name": "ok", "currency": "EUR"},
        {"name": "kept"},
    ],
)
def test_what_cannot_be_opened_comes_back(database: None, data: dict[str, str]) -> None:
    person = make_person()
    answer = browser_of(person).post("/o/new", data)
    assert answer.status_code == 422
    assert 'aria-invalid="true"' in text_of(answer)
    assert f'value="{data["name"]}"' in text_of(answer) or not data["name"]
    with role_scope("operator"):
        assert not Membership.objects.filter(user=person).exists()


def test_a_person_owns_so_many_and_no_more(database: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenants.operations.organizations.MAX_ORGANIZATIONS_PER_OWNER", 1)
    stage = open_stage()
    answer = stage.browser.post("/o/new", {"name": "Another", "currency": "USD"})
    assert answer.status_code == 422
    assert "as many organizations" in text_of(answer)


@pytest.mark.parametrize("path", ["/o/", "/o/new"])
def test_other_methods_are_refused(database: None, path: str) -> None:
    assert browser_of(make_person()).delete(path).status_code == 405
