"""Operators' keys: made in an elevated session, for 90 days at most, ended with their maker's rights."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from django.conf import settings
from django.test import Client

from portal.api.tests.stage import open_stage, problem_of, program
from portal.backoffice.tests.people import Operator, make_operator, sign_in, signed_in_operator
from portal.kit.clock import utc_now
from tenants import operations
from tenants.models import OPERATOR_SCOPES, ManagementKey, ManagementScope, User
from tenants.operations import audit
from tenants.scope import role_scope
from tests.database import rows_of
from tests.people import make_person, signed_in

TOKEN = re.compile(r"slm_[0-7][0-9a-hjkmnp-tv-z]{25}_[0-9A-Za-z]{49}")
FORM = {"name": "figures", "expires": "30", "scopes": ["tenants:read"], "reason": "nightly figures"}
pytestmark = pytest.mark.usefixtures("database")


def make_key(operator: Operator) -> str:
    answer = sign_in(operator).post("/operator/keys/new", FORM)
    assert answer.status_code == 200, answer.content.decode()
    return str(TOKEN.findall(answer.content.decode())[0])


def ask(token: str) -> Any:
    return Client().get("/api/v1/operator/tenants?limit=1", headers={"Authorization": f"Bearer {token}"})


def id_of(operator: Operator) -> str:
    with role_scope("auth"):
        return str(ManagementKey.objects.get(created_by_id=operator.person.id))


def test_a_key_is_made_shown_once_and_works() -> None:
    operator = make_operator()
    token = make_key(operator)
    assert ask(token).status_code == 200
    page = sign_in(make_operator()).get("/operator/keys").content.decode()
    assert token not in page
    assert f"…{token[-4:]}" in page
    (event,) = rows_of("tenants_auditevent", target=id_of(operator))
    assert (event["action"], event["reason"]) == ("management_key.create", "nightly figures")
    assert event["tenant_id"] is None


@pytest.mark.parametrize(
    "changes", [{"reason": "x"}, {"scopes": []}, {"scopes": ["keys:read"]}, {"expires": "never"}]
)
def test_what_is_wrong_is_said_in_the_form(changes: dict[str, object]) -> None:
    answer = sign_in(make_operator()).post("/operator/keys/new", {**FORM, **changes})
    assert answer.status_code == 422
    assert not TOKEN.search(answer.content.decode())


def test_any_operator_revokes_it_with_a_reason() -> None:
    operator, other = make_operator(), sign_in(make_operator())
    token = make_key(operator)
    address = f"/operator/keys/{id_of(operator)}/revoke"
    assert other.post(address, {"reason": ""}).status_code == 422
    assert other.post(address, {"reason": "no longer needed"}).status_code == 302
    assert ask(token).json()["code"] == "key-revoked"
    assert other.get(address).status_code == 404


@pytest.mark.parametrize("change", ["no staff", "inactive", "no factor"])
def test_it_ends_with_its_makers_rights(change: str) -> None:
    operator = make_operator()
    token = make_key(operator)
    with role_scope("auth"):
        if change == "no factor":
            Authenticator.objects.filter(user_id=operator.person.id).delete()
        else:
            fields = {"is_staff": False} if change == "no staff" else {"is_active": False}
            User.objects.filter(id=operator.person.id).update(**fields)
    answer = ask(token)
    assert (answer.status_code, answer.json()["code"]) == (401, "key-without-maker")


def test_a_session_that_is_not_elevated_makes_none() -> None:
    operator = make_operator()
    late = signed_in_operator(operator, proven_ago_s=settings.TUNING["SLUICE_ELEVATED_S"] + 5)
    assert late.post("/operator/keys/new", FORM).status_code == 403
    assert signed_in(make_person()).post("/operator/keys/new", FORM).status_code == 404
    with role_scope("auth"):
        assert not ManagementKey.objects.filter(created_by_id=operator.person.id).exists()


def test_ninety_days_are_the_most() -> None:
    assert settings.SECRET_STORE is not None
    operator, now = make_operator(), utc_now()
    with role_scope("operator"), pytest.raises(operations.InvalidManagementKey):
        operations.create_operator_key(
            name="long",
            scopes=OPERATOR_SCOPES,
            expires_at=now + timedelta(days=90, seconds=1),
            actor=audit.operator(operator.person.id),
            reason="for the test",
            secrets=settings.SECRET_STORE,
            now=now,
        )


def test_nobody_approves_their_own_order_with_a_key() -> None:
    """Neither with a key does an operator decide about what they have ordered: refused, and in the log."""
    assert settings.SECRET_STORE is not None
    operator, tenant = make_operator(), open_stage().tenant
    with role_scope("operator"):
        token = operations.create_operator_key(
            name="credit",
            scopes=[ManagementScope.CREDIT_WRITE],
            expires_at=utc_now() + timedelta(days=1),
            actor=audit.operator(operator.person.id),
            reason="for the test",
            secrets=settings.SECRET_STORE,
            now=utc_now(),
        ).token
    caller = program(token)
    order = {"organization": tenant.public_id, "kind": "GRANT", "amount": "500", "reason": "too much"}
    made = caller.post("/operator/credit-orders", order)
    assert (made.status_code, made.json()["state"]) == (201, "WAITING")
    address = f"/operator/credit-orders/{made.json()['id']}/approve"
    problem_of(caller.post(address, {"reason": "mine"}), 403, "not-allowed")
    events = rows_of("tenants_auditevent", target=made.json()["id"], outcome="REFUSED")
    assert [event["action"] for event in events] == ["credit.approve"]
    assert events[0]["key_id"] is not None
