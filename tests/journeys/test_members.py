"""An owner invites people; each sees and may do what the table of roles says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from tenants.models import Role
from tenants.permissions import Permission, may
from tests.factories import TenantFixture
from tests.journeys import accounts
from tests.journeys.backstage import Backstage
from tests.journeys.hooks import assert_speaks, field, go, hook
from tests.journeys.stages import make_customer
from tests.journeys.visits import LANGUAGES, Visits
from tests.people import unique_address
from tests.routes import Route, every_route

# Pages of an organization that need no other id: what the rail can lead to, and what it cannot.
PAGES = [
    route
    for route in every_route()
    if route.arguments == ("organization",)
    and route.permission is not None
    and "GET" in (route.methods or ())
    and not route.pattern.endswith((".csv", ".pdf", "/live", "/checklist"))
]
RAIL = {
    "console:overview": Permission.SEE_OVERVIEW,
    "playground:page": Permission.USE_PLAYGROUND,
    "console:models": Permission.SEE_MODELS,
    "console:keys": Permission.SEE_KEYS,
    "console:usage": Permission.SEE_USAGE,
    "console:billing": Permission.SEE_BILLING,
    "console:members": Permission.SEE_MEMBERS,
    "console:settings": Permission.MANAGE_ORGANIZATION,
}


def invite(page: Page, organization: str, email: str, role: Role) -> None:
    go(page, "console:members", organization)
    form = hook(page, "invite-form")
    field(form, "email").fill(email)
    field(form, "role").select_option(role.value)
    hook(form, "invite-submit").click()
    expect(hook(page, "invitation-row", email=email)).to_be_visible()


def accept(page: Page, email: str) -> None:
    """As somebody without an account: from the mail to the organization's page."""
    accounts.open_mail(page, email)
    accounts.follow_link(page, "/invitations/")
    page.locator('button[name="action"][value="signup"]').click()
    accounts.sign_up(page, email=email, name="New colleague", organization=None)
    expect(page).not_to_have_url(re.compile("accounts/signup"))
    if "confirm-email" in page.url:
        accounts.verify(page, email)


def assert_sees(page: Page, tenant: TenantFixture, role: Role, visits: Visits) -> None:
    """The rail leads to what the role may see, and every page answers as the table says."""
    go(page, "console:overview", tenant.public_id)
    rail = page.locator("nav.rail")
    for name, permission in RAIL.items():
        entry = rail.locator(f'a[href="{reverse(name, args=[tenant.public_id])}"]')
        expect(entry).to_have_count(1 if may(role, permission) else 0)
    for route in PAGES:
        _assert_page(page, route, tenant, role, visits)


def _assert_page(page: Page, route: Route, tenant: TenantFixture, role: Role, visits: Visits) -> None:
    assert route.permission is not None
    is_allowed = may(role, route.permission)
    if not is_allowed:
        visits.complaints.expect(r"status of 403")
    answer = page.goto(route.url({"organization": tenant.public_id}))
    assert answer is not None
    assert answer.status == (200 if is_allowed else 403), f"{role}: {route.name}"
    # The refusal is a page of the portal with a way on, not an empty sheet.
    expect(page.locator("h1")).to_have_count(1)
    if not is_allowed:
        expect(page.locator("main a, header a").first).to_be_visible()


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_owner_invites_a_developer_and_an_accountant(
    language: str, visits: Visits, backstage: Backstage, artifacts: Path
) -> None:
    tenant, _, session = backstage(make_customer, None)
    owner = visits.open(language=language, session=session)
    for role in (Role.DEVELOPER, Role.BILLING):
        email = unique_address(role.lower())
        invite(owner, tenant.public_id, email, role)
        assert_speaks(owner, language)
        colleague = visits.open(language=language)
        accept(colleague, email)
        assert_sees(colleague, tenant, role, visits)
        go(owner, "console:members", tenant.public_id)
        row = hook(owner, "member-row", email=email)
        expect(row).to_be_visible()
        expect(hook(owner, "invitation-row", email=email)).to_have_count(0)
    owner.screenshot(path=artifacts / f"members-{language}.png", full_page=True)


@pytest.mark.parametrize("role", list(Role))
def test_each_role_sees_what_the_table_says(role: Role, visits: Visits, backstage: Backstage) -> None:
    tenant, _, session = backstage(make_customer, None, role=role)
    assert_sees(visits.open(session=session), tenant, role, visits)


def test_actions_that_a_role_may_not_take_are_not_offered(visits: Visits, backstage: Backstage) -> None:
    """Buttons that end in a refusal are worse than none. What is posted all the same is refused too:
    tests/isolation tries every action with every role."""
    tenant, _, session = backstage(make_customer, None, role=Role.VIEWER)
    page = visits.open(session=session)
    for name, hooks in {
        "console:keys": ("key-new", "key-rotate", "key-revoke", "key-edit"),
        "console:models": ("model-enable", "model-disable"),
        "console:members": ("invite-form", "member-remove", "invitation-revoke"),
    }.items():
        go(page, name, tenant.public_id)
        for one in hooks:
            expect(hook(page, one)).to_have_count(0)


def test_an_invitation_that_was_withdrawn_is_over(visits: Visits, backstage: Backstage) -> None:
    tenant, _, session = backstage(make_customer, None)
    owner, email = visits.open(session=session), unique_address("withdrawn")
    invite(owner, tenant.public_id, email, Role.VIEWER)
    hook(hook(owner, "invitation-row", email=email), "invitation-revoke").click()
    expect(hook(owner, "invitation-row", email=email)).to_have_count(0)
    colleague = visits.open()
    visits.complaints.expect(r"status of (404|410)")
    accounts.open_mail(colleague, email)
    accounts.follow_link(colleague, "/invitations/")
    expect(colleague.locator('button[name="action"]')).to_have_count(0)
