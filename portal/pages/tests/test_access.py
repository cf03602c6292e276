"""Who gets into an organization's page, and what others are told."""

from __future__ import annotations

from uuid import UUID

import pytest
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends.db import SessionStore
from django.http import Http404, HttpRequest, HttpResponse
from django.test import RequestFactory
from django_htmx.middleware import HtmxDetails

from portal.kit.ids import PREFIXES, public_id, uuid7
from portal.pages.access import Organization, organization_page
from quotas import operations as quota_operations
from tenants.models import Membership, Role, User
from tenants.permissions import Permission
from tenants.scope import current_scope, role_scope


@organization_page(Permission.MANAGE_KEYS, methods=("GET", "POST"))
def page(request: HttpRequest, organization: Organization, **parts: str) -> HttpResponse:
    scope = current_scope()
    assert scope is not None
    assert scope.tenant_id == organization.tenant_id
    return HttpResponse(f"{organization.name} {organization.role} {parts}")


def make_member(role: Role) -> tuple[User, str]:
    with role_scope("auth"):
        owner = User.objects.create_user(f"{uuid7()}@example.com", None)
        tenant_id = quota_operations.open_tenant(
            name="Members Ltd", currency="USD", currencies=("USD",), owner_id=owner.id
        )
        if role == Role.OWNER:
            return owner, public_id(PREFIXES["organization"], tenant_id)
        person = User.objects.create_user(f"{uuid7()}@example.com", None)
        Membership.objects.create(tenant_id=tenant_id, user=person, role=role)
    return person, public_id(PREFIXES["organization"], tenant_id)


def ask(
    user: User | AnonymousUser, organization: str, method: str = "GET", htmx: bool = False
) -> HttpResponse:
    request = RequestFactory().generic(
        method, f"/o/{organization}/keys/", headers={"HX-Request": "true"} if htmx else {}
    )
    request.user = user
    request.session = SessionStore()
    request.htmx = HtmxDetails(request)  # type: ignore[attr-defined]
    response = page(request, organization=organization, key="k")
    assert isinstance(response, HttpResponse)
    return response


def test_a_member_whose_role_may_gets_in(database: None) -> None:
    person, organization = make_member(Role.DEVELOPER)
    response = ask(person, organization)
    assert response.status_code == 200
    assert response.content == b"Members Ltd DEVELOPER {'key': 'k'}"
    assert current_scope() is None


def test_a_member_whose_role_may_not_is_told_what_it_takes(database: None) -> None:
    person, organization = make_member(Role.VIEWER)
    response = ask(person, organization)
    assert response.status_code == 403
    assert b"Create, change, rotate and revoke API keys" in response.content


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_for_strangers_there_is_no_such_page(method: str, database: None) -> None:
    _, organization = make_member(Role.OWNER)
    stranger, _ = make_member(Role.OWNER)
    with pytest.raises(Http404):
        ask(stranger, organization, method)


@pytest.mark.parametrize(
    "organization", ["", "org_", "org_x", "key_01jbc2", public_id("org", UUID(int=7 << 76)), "\0"]
)
def test_ids_that_are_none_do_not_exist(organization: str, database: None) -> None:
    person, _ = make_member(Role.OWNER)
    with pytest.raises(Http404):
        ask(person, organization)


def test_other_methods_are_refused_to_members_only(database: None) -> None:
    person, organization = make_member(Role.OWNER)
    assert ask(person, organization, "DELETE").status_code == 405


def test_whoever_is_not_signed_in_is_sent_there_and_back(database: None) -> None:
    _, organization = make_member(Role.OWNER)
    response = ask(AnonymousUser(), organization)
    assert response.status_code == 302
    assert response["Location"] == f"/accounts/login/?next=/o/{organization}/keys/"
    fragment = ask(AnonymousUser(), organization, htmx=True)
    assert fragment["HX-Redirect"].startswith("/accounts/login/")
