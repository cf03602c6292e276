"""The settings of an organization."""

from __future__ import annotations

import pytest
from django.conf import settings

from portal.console.tests.people import Stage, open_stage, text_of
from tenants.models import Role, Tenant
from tenants.scope import role_scope


@pytest.fixture
def stage(database: None) -> Stage:
    return open_stage()


def name_of(stage: Stage) -> str:
    with role_scope("operator"):
        return Tenant.objects.get(id=stage.tenant_id).name


def test_it_shows_what_programs_and_support_ask_for(stage: Stage) -> None:
    page = text_of(stage.get("settings"))
    for text in (stage.public_id, settings.API_BASE, "USD", "Quiet Waters Ltd", "Active"):
        assert text in page


def test_an_organization_is_renamed(stage: Stage) -> None:
    assert stage.post("settings", data={"name": " Loud  Waters "}).status_code == 302
    assert name_of(stage) == "Loud Waters"
    assert "Loud Waters" in text_of(stage.get("settings"))


@pytest.mark.parametrize("name", ["", "   ", "x" * 201, "a\u202eb"])
def test_names_that_are_none_come_back(stage: Stage, name: str) -> None:
    answer = stage.post("settings", data={"name": name})
    assert answer.status_code == 422
    assert 'aria-invalid="true"' in text_of(answer)
    assert name_of(stage) == "Quiet Waters Ltd"


@pytest.mark.parametrize("role", [role for role in Role if role != Role.OWNER])
def test_only_owners_have_settings(stage: Stage, role: Role) -> None:
    theirs = stage.as_role(role)
    assert theirs.get("settings").status_code == 403
    assert theirs.post("settings", data={"name": "Mine"}).status_code == 403
    assert name_of(stage) == "Quiet Waters Ltd"
