"""Authenticator apps, recovery codes and passkeys, with real codes and real signatures."""

from __future__ import annotations

import json
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from django.test import Client
from django.urls import reverse

from portal.accounts.tests.authenticators import SoftwareKey, totp_code
from portal.accounts.tests.visitor import (
    PASSWORD,
    mails_to,
    new_client,
    reauthenticate,
    sign_in,
    told,
    verified_user,
)
from tenants.models import User
from tests.database import connected

pytestmark = pytest.mark.usefixtures("database")


def _enrol_app(client: Client) -> str:
    """The key of the app; the person is signed in."""
    reauthenticate(client)
    page: Any = client.get(reverse("mfa_activate_totp"))
    assert b'src="data:image/svg+xml;base64,' in page.content
    assert "no-store" in page.headers["cache-control"]
    secret: str = page.context["form"].secret
    answer = client.post(reverse("mfa_activate_totp"), {"code": totp_code(secret)})
    assert answer["location"] == reverse("mfa_view_recovery_codes")
    return secret


def _signed_in() -> tuple[User, Client]:
    user, client = verified_user(), new_client()
    assert sign_in(client, user.email)["location"] == "/o/"
    return user, client


def test_what_changes_the_protection_asks_who_it_is_first() -> None:
    _, client = _signed_in()
    for name in ("mfa_activate_totp", "mfa_add_webauthn"):
        assert client.get(reverse(name))["location"].startswith(reverse("account_reauthenticate"))


def test_where_there_is_a_factor_the_password_alone_changes_none() -> None:
    user, client = _signed_in()
    secret = _enrol_app(client)
    other = new_client()
    sign_in(other, user.email)
    other.post(reverse("mfa_authenticate"), {"code": totp_code(secret, steps_ahead=1)})
    step = reverse("mfa_reauthenticate")
    proof = other.post(f"{reverse('account_reauthenticate')}?next=/accounts/2fa/", {"password": PASSWORD})
    assert (proof.status_code, proof["location"].partition("?")[0]) == (302, step)
    assert "Use your password" not in told(other.get(proof["location"]))
    for name in ("mfa_deactivate_totp", "mfa_add_webauthn", "mfa_generate_recovery_codes"):
        assert other.post(reverse(name))["location"].startswith(step), name
    assert Authenticator.objects.filter(user=user, type="totp").exists()


def test_an_app_is_enrolled_and_asked_for_at_sign_in() -> None:
    user, client = _signed_in()
    secret = _enrol_app(client)
    assert "Authenticator app turned on" in [
        mail.subject.removeprefix("[Sluice] ") for mail in mails_to(user.email)
    ]

    other = new_client()
    assert sign_in(other, user.email)["location"] == reverse("mfa_authenticate")
    assert "_auth_user_id" not in other.session
    assert other.post(reverse("mfa_authenticate"), {"code": "000000"}).status_code == 200
    answer = other.post(reverse("mfa_authenticate"), {"code": totp_code(secret, steps_ahead=1)})
    assert answer["location"] == "/o/"
    assert other.session["_auth_user_id"] == str(user.id)


def test_a_recovery_code_works_once() -> None:
    user, client = _signed_in()
    _enrol_app(client)
    page: Any = client.get(reverse("mfa_view_recovery_codes"))
    assert "no-store" in page.headers["cache-control"]
    code = page.context["unused_codes"][0]
    assert f">{page.context['unused_codes'][0]}\n{page.context['unused_codes'][1]}\n" in page.content.decode()
    assert code in client.get(reverse("mfa_download_recovery_codes")).content.decode()
    for expected in (302, 200):
        other = new_client()
        sign_in(other, user.email)
        assert other.post(reverse("mfa_authenticate"), {"code": code}).status_code == expected


def test_the_database_keeps_no_readable_secret() -> None:
    user, client = _signed_in()
    secret = _enrol_app(client)
    stored = {one.type: one.data for one in Authenticator.objects.filter(user=user)}
    assert secret not in json.dumps(stored)
    assert stored["totp"]["secret"].startswith("1:gAAAA")
    assert stored["recovery_codes"]["seed"].startswith("1:gAAAA")
    # Operators see that there is a second factor, and nothing of it.
    with connected("operator") as connection:
        connection.execute("SELECT id, type FROM mfa_authenticator LIMIT 1")
        with pytest.raises(Exception, match="permission denied"):
            connection.execute("SELECT data FROM mfa_authenticator LIMIT 1")


def _enrol_passkey(client: Client) -> SoftwareKey:
    reauthenticate(client)
    key = SoftwareKey()
    page: Any = client.get(reverse("mfa_add_webauthn"))
    credential = json.dumps(key.create(page.context["js_data"]["creation_options"]))
    values = {"name": "My laptop", "passwordless": "on", "credential": credential}
    answer = client.post(reverse("mfa_add_webauthn"), values)
    assert answer.status_code == 302, answer.context["form"].errors
    return key


def test_a_passkey_signs_in_alone() -> None:
    user, client = _signed_in()
    key = _enrol_passkey(client)
    other = new_client()
    options = other.get(reverse("mfa_login_webauthn"), headers={"accept": "application/json"}).json()
    credential = json.dumps(key.use(options["request_options"]))
    answer = other.post(reverse("mfa_login_webauthn"), {"credential": credential})
    assert answer["location"] == "/o/"
    assert other.session["_auth_user_id"] == str(user.id)
    replayed = new_client().post(reverse("mfa_login_webauthn"), {"credential": credential})
    assert replayed["location"].startswith(reverse("account_login"))


def test_a_passkey_is_a_second_step_after_the_password() -> None:
    user, client = _signed_in()
    key = _enrol_passkey(client)
    other = new_client()
    sign_in(other, user.email)
    page: Any = other.get(reverse("mfa_authenticate"))
    credential = json.dumps(key.use(page.context["js_data"]["request_options"]))
    answer = other.post(reverse("mfa_authenticate"), {"credential": credential})
    assert answer["location"] == "/o/"


def test_a_passkey_of_another_site_is_refused() -> None:
    _, client = _signed_in()
    key = _enrol_passkey(client)
    key.origin = "https://localhost.evil.example"
    other = new_client()
    options = other.get(reverse("mfa_login_webauthn"), headers={"accept": "application/json"}).json()
    credential = json.dumps(key.use(options["request_options"]))
    other.post(reverse("mfa_login_webauthn"), {"credential": credential})
    assert "_auth_user_id" not in other.session


def test_passkeys_are_listed_renamed_and_removed() -> None:
    user, client = _signed_in()
    _enrol_passkey(client)
    pk = Authenticator.objects.get(user=user, type="webauthn").pk
    assert b"My laptop" in client.get(reverse("mfa_list_webauthn")).content
    client.post(reverse("mfa_edit_webauthn", args=[pk]), {"name": "Old laptop"})
    assert b"Old laptop" in client.get(reverse("mfa_list_webauthn")).content
    client.post(reverse("mfa_remove_webauthn", args=[pk]))
    assert not Authenticator.objects.filter(user=user, type="webauthn").exists()


def test_a_first_second_factor_ends_the_sessions_that_were_opened_without_it() -> None:
    """Whoever has got hold of one, and of the password, could take the factor away again."""
    user, client = _signed_in()
    old = new_client()
    sign_in(old, user.email)
    assert old.get("/accounts/").status_code == 200
    secret = _enrol_app(client)
    assert client.get("/accounts/").status_code == 200
    assert old.get("/accounts/").status_code == 302
    other = new_client()
    sign_in(other, user.email)
    other.post(reverse("mfa_authenticate"), {"code": totp_code(secret, steps_ahead=1)})
    _enrol_passkey(client)
    assert other.get("/accounts/").status_code == 200, "it was opened with the first one"
