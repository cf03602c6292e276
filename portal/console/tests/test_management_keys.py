"""Management keys in the console: shown once, no more than their maker, ended by a click."""

from __future__ import annotations

import re

import pytest
from django.test import Client

from portal.console.tests.people import HTMX, Stage, open_stage, text_of
from tenants.models import ManagementKey, Role
from tenants.scope import role_scope

TOKEN = re.compile(r"slm_[0-7][0-9a-hjkmnp-tv-z]{25}_[0-9A-Za-z]{49}")
FORM = {"name": "nightly", "role": "VIEWER", "expires": "30", "scopes": ["usage:read", "keys:read"]}
pytestmark = pytest.mark.usefixtures("database")


def make_key(stage: Stage, **changes: object) -> str:
    """The token of a new key."""
    answer = stage.post("management-key-new", data={**FORM, **changes})
    assert answer.status_code == 200, text_of(answer)
    return str(TOKEN.findall(text_of(answer))[0])


def test_a_key_is_made_shown_once_and_works() -> None:
    stage = open_stage()
    assert 'data-testid="management-empty"' in text_of(stage.get("management-keys"))
    answer = stage.post("management-key-new", data=FORM)
    (token,) = set(TOKEN.findall(text_of(answer)))
    assert answer["Cache-Control"] == "no-store, private"
    page = text_of(stage.get("management-keys"))
    assert token not in page
    assert f"…{token[-4:]}" in page
    assert 'data-state="ACTIVE"' in page
    called = Client().get("/api/v1/organization", headers={"Authorization": f"Bearer {token}"})
    assert called.json()["management_key"]["scopes"] == ["keys:read", "usage:read"]


def test_the_dialog_of_htmx_is_replaced_by_that_of_the_secret() -> None:
    stage = open_stage()
    answer = stage.post("management-key-new", data=FORM, htmx=True)
    assert answer["HX-Retarget"] == "#management-dialogs"
    assert TOKEN.search(text_of(answer))
    assert "data-dialog-deliberate" in text_of(answer)


@pytest.mark.parametrize(
    "changes", [{"name": " "}, {"scopes": []}, {"scopes": ["tenants:read"]}, {"role": ""}]
)
def test_what_is_wrong_is_said_in_the_form(changes: dict[str, object]) -> None:
    stage = open_stage()
    answer = stage.post("management-key-new", data={**FORM, **changes}, htmx=True)
    assert answer.status_code == 422
    assert not TOKEN.search(text_of(answer))


def test_an_admin_offers_no_more_than_their_own_role() -> None:
    stage = open_stage().as_role(Role.ADMIN)
    page = text_of(stage.get("management-key-new"))
    assert 'value="ADMIN"' in page
    assert 'value="OWNER"' not in page
    assert stage.post("management-key-new", data={**FORM, "role": "OWNER"}).status_code == 422


def test_a_key_is_revoked() -> None:
    stage = open_stage()
    token = make_key(stage)
    with role_scope("auth"):
        key = str(ManagementKey.objects.get(tenant_id=stage.tenant_id))
    assert "nightly" in text_of(stage.get("management-key-revoke", key, headers=HTMX))
    assert stage.post("management-key-revoke", key).status_code == 302
    called = Client().get("/api/v1/organization", headers={"Authorization": f"Bearer {token}"})
    assert called.json()["code"] == "key-revoked"
    assert stage.get("management-key-revoke", key).status_code == 404
    assert 'data-state="REVOKED"' in text_of(stage.get("management-keys", query={"state": "all"}))


def test_keys_of_others_are_not_there() -> None:
    stage, other = open_stage(), open_stage()
    make_key(other)
    with role_scope("auth"):
        key = str(ManagementKey.objects.get(tenant_id=other.tenant_id))
    assert stage.get("management-key-revoke", key).status_code == 404
    assert stage.post("management-key-revoke", key).status_code == 404
    assert key not in text_of(stage.get("management-keys", query={"state": "all"}))
