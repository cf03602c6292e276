"""Every page of this door names its permission, and each role gets just what the table says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from portal.console import urls
from portal.console.tests.people import HTMX, Stage, open_stage
from portal.console.tests.test_keys import make_key
from portal.kit.ids import PREFIXES, public_id, uuid7
from tenants.models import Role
from tenants.permissions import Permission, may
from tests.factories import make_model

OWN = {"chooser", "new"}
"""Pages of a person, not of an organization."""

PARTS: dict[str, Callable[[Stage], list[str]]] = {
    "key-edit": lambda stage: [make_key(stage)],
    "key-rotate": lambda stage: [make_key(stage)],
    "key-revoke": lambda stage: [make_key(stage)],
    "model-enable": lambda _: [make_model().slug],
    "model-disable": lambda _: [make_model().slug],
    "invitation-resend": lambda _: [public_id(PREFIXES["invitation"], uuid7())],
    "invitation-revoke": lambda _: [public_id(PREFIXES["invitation"], uuid7())],
    "top-up": lambda _: [public_id(PREFIXES["top_up"], uuid7())],
    "top-up-state": lambda _: [public_id(PREFIXES["top_up"], uuid7())],
    "top-up-cancel": lambda _: [public_id(PREFIXES["top_up"], uuid7())],
    "member-role": lambda stage: [public_id(PREFIXES["membership"], stage.add(Role.VIEWER)[1])],
    "member-remove": lambda stage: [public_id(PREFIXES["membership"], stage.add(Role.VIEWER)[1])],
}
MINE = {
    "keys", "key-new", "management-keys", "management-key-new", "models", "members", "invite", "leave",
    "settings", "billing", "invoices", "add-credit", "payment-methods", *PARTS,
}  # fmt: skip


def views() -> dict[str, Any]:
    return {str(pattern.name): pattern.callback for pattern in urls.urlpatterns if pattern.name not in OWN}


def test_every_page_names_its_permission() -> None:
    for name, view in views().items():
        assert isinstance(view.permission, Permission), name
        assert view.methods, name


def test_who_only_sees_never_changes_anything() -> None:
    seeing = {permission for permission in Permission if permission.startswith("see_")}
    posts = {name: view.permission for name, view in views().items() if "POST" in view.methods}
    # A verifiable bill is a download that takes a while: it says what is there, and changes none of it.
    assert {name for name, permission in posts.items() if permission in seeing} == {"leave", "bundle-make"}


@pytest.mark.parametrize("role", list(Role))
def test_each_role_may_just_what_the_table_says(database: None, role: Role) -> None:
    stage = open_stage()
    for name in sorted(MINE):
        view = views()[name]
        parts = PARTS[name](stage) if name in PARTS else []
        for method in view.methods:
            # A browser of its own: whoever leaves is no member for the next page.
            theirs = stage.as_role(role)
            for headers in ({}, HTMX):
                answer = theirs.browser.generic(method, theirs.url(name, *parts), headers=headers)
                allowed = answer.status_code != 403
                assert allowed == may(role, view.permission), (name, method, answer.status_code)
                assert answer.status_code < 500, (name, method)
                if name == "leave" and method == "POST":
                    break


@pytest.mark.parametrize(("role", "status"), [(Role.OWNER, 200), (Role.VIEWER, 403)])
def test_what_members_see_is_kept_by_no_browser(role: Role, status: int, database: None) -> None:
    """Else the button that goes back shows it to whoever comes after the one who has signed out."""
    answer = open_stage().as_role(role).get("settings")
    assert (answer.status_code, answer["Cache-Control"]) == (status, "no-store, private")
