"""Operators with a second factor, signed in as a browser would be: through the sign-in page."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from ipaddress import IPv4Address

from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP, format_hotp_value, generate_totp_secret, hotp_value
from django.conf import settings
from django.test import Client

from tenants.models import User
from tenants.scope import role_scope
from tests.people import PASSWORD, Person, make_person, signed_in

TOTP_PERIOD_S = 30


@dataclass(frozen=True, slots=True)
class Operator:
    person: Person
    totp_secret: str | None


def totp_code(secret: str) -> str:
    """The code of this moment."""
    return str(format_hotp_value(hotp_value(secret, int(time.time()) // TOTP_PERIOD_S)))


def make_operator(*, with_totp: bool = True) -> Operator:
    person = make_person("operator", is_staff=True)
    secret = generate_totp_secret() if with_totp else None
    if secret is not None:
        with role_scope("auth"):
            TOTP.activate(User.objects.get(id=person.id), secret)
    return Operator(person, secret)


def signed_in_operator(operator: Operator, *, proven_ago_s: float = 0) -> Client:
    """A session whose second factor was used so long ago, without the sign-in page."""
    client = signed_in(operator.person)
    with role_scope("auth"):
        (factor,) = Authenticator.objects.filter(user_id=operator.person.id).values_list("id", flat=True)
    session = client.session
    session["account_authentication_methods"] = [
        {"method": "mfa", "id": factor, "at": time.time() - proven_ago_s}
    ]
    session["account_authentication_methods_user"] = str(operator.person.id)
    session.save()
    return client


def next_totp_code(secret: str) -> str:
    """The code of the period to come, which counts already: each counts once, and a test does not wait."""
    return str(format_hotp_value(hotp_value(secret, int(time.time()) // TOTP_PERIOD_S + 1)))


def sign_in(operator: Operator, *, client: Client | None = None) -> Client:
    """With the password, and with the second factor where there is one."""
    client = client or Client()
    # From an address of their own: an address signs in so often a minute, and tests are quick.
    address = str(IPv4Address((10 << 24) | secrets.randbelow(1 << 24)))
    answer = client.post(
        "/accounts/login/",
        {"login": operator.person.email, "password": PASSWORD},
        REMOTE_ADDR=address,
    )
    assert answer.status_code == 302, answer.content
    if operator.totp_secret is not None:
        answer = client.post("/accounts/2fa/authenticate/", {"code": totp_code(operator.totp_secret)})
        assert answer.status_code == 302, answer.content
    assert settings.SESSION_COOKIE_NAME in client.cookies
    return client
