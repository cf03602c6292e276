"""Passkeys belong to a person: nobody else can name, rename or remove them."""

from __future__ import annotations

import pytest
from allauth.mfa.models import Authenticator
from django.test import Client
from django.urls import reverse

from tenants.scope import role_scope
from tests.database import rows_of
from tests.people import PASSWORD, Person, make_person, signed_in


def make_passkey(person: Person) -> int:
    """The id of a passkey that somebody has registered."""
    with role_scope("auth"):
        passkey = Authenticator.objects.create(
            user_id=person.id,
            type=Authenticator.Type.WEBAUTHN,
            data={"name": "of the victim", "credential": {}},
        )
    number: int = passkey.pk
    return number


def just_proven(person: Person) -> Client:
    """Signed in, and the password was given again a moment ago, as changing second factors asks for."""
    client = signed_in(person, raises=False)
    client.post(reverse("account_reauthenticate"), {"password": PASSWORD})
    return client


@pytest.mark.parametrize("name", ["mfa_remove_webauthn", "mfa_edit_webauthn"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_passkeys_of_others_do_not_exist(name: str, method: str, database: None) -> None:
    victim, stranger = make_person("victim"), just_proven(make_person("stranger"))
    number = make_passkey(victim)
    for wanted in (number, 2**31 - 1):
        answer = getattr(stranger, method)(reverse(name, kwargs={"pk": wanted}), {"name": "mine now"})
        assert answer.status_code == 404
    (row,) = rows_of("mfa_authenticator", role="auth", user_id=victim.id)
    assert row["data"]["name"] == "of the victim"
