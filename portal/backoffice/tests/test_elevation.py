"""Elevated sessions: a second factor opens the operators' area for a limited time, and no longer."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from django.conf import settings
from django.test import Client

from portal.backoffice import elevation, middleware
from portal.backoffice.tests.people import Operator, make_operator, next_totp_code, sign_in
from portal.kit.clock import utc_now
from tenants.models import Role, User
from tenants.operations import audit
from tenants.scope import role_scope
from tests.database import rows_of
from tests.factories import TenantFixture, make_tenant
from tests.people import PASSWORD, make_member, make_person, signed_in

pytestmark = pytest.mark.usefixtures("database")
HTMX = {"HX-Request": "true"}


class Clock:
    """What the entrance takes for now."""

    def __init__(self) -> None:
        self.offset = timedelta()

    def __call__(self) -> datetime:
        return utc_now() + self.offset


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(middleware, "utc_now", made)
    return made


@pytest.fixture
def tenant(database: None) -> TenantFixture:
    return make_tenant()


def note_url(tenant: TenantFixture) -> str:
    return f"/operator/tenants/{tenant.public_id}/note"


def refusals_of(operator: Operator) -> list[dict[str, object]]:
    return rows_of("tenants_auditevent", actor_id=operator.person.id, outcome="REFUSED")


def expire(clock: Clock) -> None:
    clock.offset = timedelta(seconds=settings.TUNING["SLUICE_ELEVATED_S"] + 1)


def test_the_area_stays_open_until_the_time_is_over(clock: Clock, tenant: TenantFixture) -> None:
    client = sign_in(make_operator())
    clock.offset = timedelta(seconds=settings.TUNING["SLUICE_ELEVATED_S"] - 5)
    assert client.get("/operator/tenants/").status_code == 200
    assert client.post(note_url(tenant), {"text": "still open"}).status_code == 302
    expire(clock)
    for address in ("/operator/tenants/?q=x", "/admin/tenants/tenant/"):
        answer = client.get(address)
        assert answer.status_code == 302
        assert answer["location"].startswith("/accounts/2fa/reauthenticate/?next=")
    assert len(rows_of("tenants_tenantnote", tenant_id=tenant.id)) == 1


def test_what_would_have_changed_something_is_refused_and_written_down(
    clock: Clock, tenant: TenantFixture
) -> None:
    operator = make_operator()
    client = sign_in(operator)
    expire(clock)
    answer = client.post(note_url(tenant), {"text": "too late"}, headers={"Referer": "http://testserver/x"})
    assert answer.status_code == 403
    assert b"Your elevated session has ended" in answer.content
    assert b"/accounts/2fa/reauthenticate/?next=%2Foperator%2F" in answer.content
    assert rows_of("tenants_tenantnote", tenant_id=tenant.id) == []
    (event,) = refusals_of(operator)
    assert (event["action"], event["target"]) == ("operator.tenant_note", tenant.public_id)
    assert (event["tenant_id"], event["is_internal"]) == (tenant.id, True)
    assert event["reason"] == "The elevated session has ended."


def test_a_dialog_keeps_what_was_typed_and_says_where_to_go(clock: Clock, tenant: TenantFixture) -> None:
    client = sign_in(make_operator())
    expire(clock)
    answer = client.post(note_url(tenant), {"text": "too late"}, headers=HTMX)
    assert (answer.status_code, answer["X-Notice"]) == (403, "1")
    assert b"/accounts/2fa/reauthenticate/?next=%2Foperator%2Felevated" in answer.content
    assert b"<html" not in answer.content
    # What is read goes on in the whole page.
    page = f"http://testserver/operator/tenants/{tenant.public_id}/"
    answer = client.get(note_url(tenant), headers={**HTMX, "HX-Current-URL": page})
    assert answer["HX-Redirect"].endswith(f"?next=%2Foperator%2Ftenants%2F{tenant.public_id}%2F")


def test_the_factor_used_again_renews_the_session(clock: Clock, tenant: TenantFixture) -> None:
    operator = make_operator()
    assert operator.totp_secret is not None
    client = sign_in(operator)
    session = client.session
    for record in session["account_authentication_methods"]:
        record["at"] -= settings.TUNING["SLUICE_ELEVATED_S"] + 1
    session.save()
    assert client.get("/operator/tenants/").status_code == 302
    proof = "/accounts/2fa/reauthenticate/?next=%2Foperator%2Felevated"
    answer = client.post(proof, {"code": next_totp_code(operator.totp_secret)})
    assert (answer.status_code, answer["location"]) == (302, "/operator/elevated")
    assert b"Elevated again" in client.get("/operator/elevated").content
    assert client.post(note_url(tenant), {"text": "open again"}).status_code == 302


def test_the_password_is_no_second_factor(clock: Clock) -> None:
    client = sign_in(make_operator())
    expire(clock)
    client.post("/accounts/reauthenticate/", {"password": "seven quiet locks at dawn"})
    assert client.get("/operator/tenants/").status_code == 302


def test_an_operator_ends_the_elevated_session(tenant: TenantFixture) -> None:
    operator = make_operator()
    client = sign_in(operator)
    page = client.get("/operator/tenants/").content
    assert b"Elevated until" in page
    assert b"End elevated session" in page
    assert client.post("/operator/elevation/end")["location"] == "/o/"
    assert client.get("/operator/tenants/").status_code == 302
    assert client.post(note_url(tenant), {"text": "too late"}).status_code == 403
    assert operator.totp_secret is not None
    client.post("/accounts/2fa/reauthenticate/", {"code": next_totp_code(operator.totp_secret)})
    assert client.get("/operator/tenants/").status_code == 200


def test_an_ended_session_is_not_opened_by_what_was_proven_before() -> None:
    """With a recovery code, or a passkey of one's own, the area would open again."""
    operator = make_operator()
    assert operator.totp_secret is not None
    with role_scope("auth"):
        RecoveryCodes.activate(User.objects.get(id=operator.person.id))
    client = sign_in(operator)
    client.post("/accounts/2fa/reauthenticate/", {"code": next_totp_code(operator.totp_secret)})
    codes, passkey = "/accounts/2fa/recovery-codes/download/", "/accounts/2fa/webauthn/add/"
    assert client.get(codes).status_code == 200
    client.post("/operator/elevation/end")
    client.post("/accounts/reauthenticate/", {"password": PASSWORD})
    for address in (codes, passkey):
        answer = client.get(address)
        assert answer.status_code == 302
        assert answer["location"].startswith("/accounts/2fa/reauthenticate/")


def test_a_proof_counts_nowhere_longer_than_in_the_operators_area() -> None:
    assert settings.TUNING["SLUICE_ELEVATED_S"] >= settings.ACCOUNT_REAUTHENTICATION_TIMEOUT


def test_staff_without_a_factor_change_nothing(tenant: TenantFixture) -> None:
    operator = make_operator(with_totp=False)
    answer = sign_in(operator).post(note_url(tenant), {"text": "x"})
    assert answer.status_code == 403
    assert b"/accounts/2fa/" in answer.content
    (event,) = refusals_of(operator)
    assert event["reason"] == "The operator has no second factor."


@pytest.mark.parametrize("role", [Role.OWNER, Role.VIEWER, Role.DEVELOPER])
def test_what_a_member_tries_in_the_operators_area_is_not_there_but_written_down(
    role: Role, tenant: TenantFixture
) -> None:
    person = make_member(tenant, role)
    form = {"kind": "GRANT", "amount": "1", "reason": "for me"}
    assert signed_in(person).post(f"/operator/tenants/{tenant.public_id}/credit", form).status_code == 404
    assert signed_in(person).get(f"/operator/tenants/{tenant.public_id}/credit").status_code == 404
    (event,) = rows_of("tenants_auditevent", actor_id=person.id)
    assert (event["actor_kind"], event["actor_role"]) == ("MEMBER", "")
    assert (event["outcome"], event["action"]) == ("REFUSED", "operator.tenant_credit")
    assert (event["tenant_id"], event["target"]) == (None, tenant.public_id)


def test_an_address_of_nothing_is_no_attempt() -> None:
    person = make_person()
    assert signed_in(person).post("/operator/nothing/at/all").status_code == 404
    assert signed_in(person).post("/operator/approvals/%00/approve").status_code == 404
    assert [event["target"] for event in rows_of("tenants_auditevent", actor_id=person.id)] == [""]


def test_nobody_fills_the_log_by_trying(tenant: TenantFixture) -> None:
    person = make_person()
    client = signed_in(person)
    for _ in range(audit.MAX_REFUSALS_PER_HOUR + 5):
        assert client.post(note_url(tenant), {"text": "x"}).status_code == 404
    assert len(rows_of("tenants_auditevent", actor_id=person.id)) == audit.MAX_REFUSALS_PER_HOUR


def test_whoever_is_not_signed_in_leaves_no_trace(tenant: TenantFixture) -> None:
    before = len(rows_of("tenants_auditevent"))
    assert Client().post(note_url(tenant), {"text": "x"}).status_code == 302
    assert len(rows_of("tenants_auditevent")) == before


def test_a_member_without_the_permission_is_refused_and_written_down(tenant: TenantFixture) -> None:
    person = make_member(tenant, Role.VIEWER)
    client = signed_in(person)
    assert client.get(f"/o/{tenant.public_id}/keys/new").status_code == 403
    assert rows_of("tenants_auditevent", actor_id=person.id) == []
    assert client.post(f"/o/{tenant.public_id}/keys/new", {"name": "mine"}).status_code == 403
    (event,) = rows_of("tenants_auditevent", actor_id=person.id)
    assert (event["action"], event["outcome"]) == ("page.manage_keys", "REFUSED")
    assert (event["tenant_id"], event["actor_role"]) == (tenant.id, "VIEWER")


def test_sockets_ask_the_same_question() -> None:
    operator = make_operator()
    client = sign_in(operator)
    with role_scope("auth"):
        user = User.objects.get(id=operator.person.id)
        now = utc_now()
        until = elevation.elevated_until(client.session, user, now=now)
        assert until is not None
        assert elevation.elevated_until(client.session, user, now=until) is None
        assert elevation.elevated_until(client.session, user, now=until - timedelta(seconds=1)) == until
