"""Who enters the operators' area: staff, with a second factor, and nobody else."""

from __future__ import annotations

import pytest
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from django.test import Client

from portal.backoffice.tests.people import make_operator, next_totp_code, sign_in, totp_code
from tenants.models import User
from tenants.scope import role_scope
from tests.people import make_person, signed_in

pytestmark = pytest.mark.usefixtures("database")
AREA = ["/operator/witness", "/admin/", "/admin/tenants/tenant/", "/admin/login/", "/admin/logout/"]


@pytest.mark.parametrize("address", AREA)
def test_whoever_is_not_signed_in_is_asked_to(address: str) -> None:
    answer = Client().get(address)
    wanted = "/admin/" if address == "/admin/login/" else address
    assert (answer.status_code, answer["location"]) == (302, f"/accounts/login/?next={wanted}")


def test_a_fragment_takes_the_whole_page_to_the_sign_in() -> None:
    answer = Client().get("/operator/witness", headers={"HX-Request": "true"})
    assert answer["HX-Redirect"] == "/accounts/login/?next=/operator/witness"


@pytest.mark.parametrize("address", [*AREA, "/operator/nothing", "/admin/nothing/"])
def test_for_customers_the_area_does_not_exist(address: str) -> None:
    assert signed_in(make_person()).get(address).status_code == 404


@pytest.mark.parametrize("address", AREA)
def test_the_admin_has_no_password_form_of_its_own(address: str) -> None:
    operator = make_operator()
    form = {"username": operator.person.email, "password": "seven quiet locks at dawn", "next": "/admin/"}
    client = Client()
    answer = client.post(address, form)
    assert answer.status_code == 302
    assert answer["location"].startswith("/accounts/login/")
    assert client.get("/admin/").status_code == 302


def test_staff_without_a_second_factor_set_one_up_and_then_enter() -> None:
    operator = make_operator(with_totp=False)
    client = sign_in(operator)
    answer = client.get("/admin/", follow=True)
    assert answer.redirect_chain == [("/accounts/2fa/", 302)]
    assert b"Operators need a second factor" in answer.content
    page = client.get("/accounts/2fa/totp/activate/", follow=True)
    if page.redirect_chain:
        # It wants the password once more before it changes how people sign in.
        again = client.post(
            page.redirect_chain[-1][0], {"password": "seven quiet locks at dawn"}, follow=True
        )
        assert again.status_code == 200
        page = client.get("/accounts/2fa/totp/activate/")
    secret = client.session["mfa.totp.secret"]
    assert secret in page.content.decode()
    activated = client.post("/accounts/2fa/totp/activate/", {"code": totp_code(secret)})
    assert activated.status_code == 302
    # The factor was proven just now; it is not asked for again in this session.
    assert client.get("/admin/").status_code == 200
    other = Client()
    other.force_login(User.objects.get(id=operator.person.id))
    assert other.get("/admin/")["location"] == "/accounts/2fa/reauthenticate/?next=%2Fadmin%2F"


def test_recovery_codes_alone_are_no_second_factor() -> None:
    operator = make_operator(with_totp=False)
    with role_scope("auth"):
        RecoveryCodes.activate(User.objects.get(id=operator.person.id))
    answer = sign_in(operator).get("/operator/witness")
    assert (answer.status_code, answer["location"]) == (302, "/accounts/2fa/")


def test_a_sign_in_with_the_second_factor_enters() -> None:
    client = sign_in(make_operator())
    answer = client.get("/admin/")
    assert answer.status_code == 200
    assert answer["Cache-Control"].startswith(("no-store", "max-age=0"))
    assert client.get("/admin/login/")["location"] == "/admin/"
    assert client.get("/admin/password_change/")["location"] == "/accounts/password/change/"
    assert client.post("/admin/logout/")["location"] == "/accounts/logout/"


def test_a_session_without_the_second_factor_proves_it_first() -> None:
    operator = make_operator()
    assert operator.totp_secret is not None
    client = signed_in(operator.person)
    answer = client.get("/operator/witness?window=day")
    proof = "/accounts/2fa/reauthenticate/?next=%2Foperator%2Fwitness%3Fwindow%3Dday"
    assert (answer.status_code, answer["location"]) == (302, proof)
    wrong = client.post(proof, {"code": "000000"})
    assert wrong.status_code in (200, 422)
    assert client.get("/admin/").status_code == 302
    right = client.post(proof, {"code": next_totp_code(operator.totp_secret)})
    assert (right.status_code, right["location"]) == (302, "/operator/witness?window=day")
    assert client.get("/admin/").status_code == 200


def test_a_factor_that_was_taken_away_opens_nothing_any_more() -> None:
    operator = make_operator()
    client = sign_in(operator)
    assert client.get("/admin/").status_code == 200
    from allauth.mfa.models import Authenticator

    Authenticator.objects.filter(user_id=operator.person.id).delete()
    assert client.get("/admin/")["location"] == "/accounts/2fa/"


def test_whoever_is_staff_no_more_is_out_at_once() -> None:
    operator = make_operator()
    client = sign_in(operator)
    with role_scope("auth"):
        User.objects.filter(id=operator.person.id).update(is_staff=False)
    assert client.get("/admin/").status_code == 404


def test_only_the_operators_area_opens_the_operator_scope() -> None:
    client = sign_in(make_operator())
    assert client.get("/operators/witness").status_code == 404
