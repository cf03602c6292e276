"""Sign-in with an account elsewhere, against a provider that really speaks OpenID Connect."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount
from django.test import Client, override_settings
from django.urls import reverse

from portal.accounts.tests.oidc_provider import Provider, running_provider
from portal.accounts.tests.visitor import (
    MARKER,
    new_address,
    new_client,
    sign_in,
    told,
    user_of,
    verified_user,
)
from portal.pages.access import organizations_of
from tenants.models import User
from tests.database import money_of
from tests.factories import unique_name

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def provider() -> Iterator[Provider]:
    with running_provider() as running, override_settings(SOCIALACCOUNT_PROVIDERS=running.settings()):
        yield running


def _round_trip(client: Client, *, process: str = "login") -> Any:
    """From the button to the provider and back with its code."""
    start = client.post(f"/accounts/oidc/stand-in/login/?process={process}")
    away = urlsplit(start["location"])
    connection = http.client.HTTPConnection(away.netloc, timeout=10)
    connection.request("GET", f"{away.path}?{away.query}")
    back = urlsplit(connection.getresponse().headers["location"])
    connection.close()
    return client.get(f"{back.path}?{back.query}")


def _claims(email: str, *, verified: Any = True) -> dict[str, Any]:
    return {"sub": unique_name("sub"), "email": email, "email_verified": verified, "name": "Emmy Noether"}


def test_a_new_customer_names_the_organization_and_accepts_the_terms(provider: Provider) -> None:
    email, client = new_address(), new_client()
    provider.claims = _claims(email)
    assert b"Stand-in" in client.get(reverse("account_login")).content
    assert _round_trip(client)["location"] == reverse("socialaccount_signup")
    page = client.get(reverse("socialaccount_signup"))
    assert MARKER in page.content
    assert b'value="Emmy Noether"' in page.content
    assert not User.objects.filter(email=email).exists()
    values = {"full_name": "Emmy Noether", "organization": "Rings", "email": email, "currency": "USD"}
    refused: Any = client.post(reverse("socialaccount_signup"), values)
    assert "terms" in refused.context["form"].errors

    answer = client.post(reverse("socialaccount_signup"), {**values, "terms": "on"})

    assert answer["location"] == "/o/"
    user = user_of(email)
    assert client.session["_auth_user_id"] == str(user.id)
    (organization,) = organizations_of(user.id)
    assert organization.name == "Rings"
    assert money_of(organization.tenant_id).granted == 10**9, "the provider has verified the address"
    again = new_client()
    assert _round_trip(again)["location"] == "/o/"


@pytest.mark.parametrize("verified", [False, "false", None])
def test_an_address_that_the_provider_has_not_verified_is_verified_by_us(
    provider: Provider, verified: Any
) -> None:
    email, client = new_address(), new_client()
    provider.claims = _claims(email, verified=verified)
    _round_trip(client)
    values = {"full_name": "E", "organization": "R", "email": email, "currency": "USD", "terms": "on"}
    answer = client.post(reverse("socialaccount_signup"), values)
    assert answer["location"] == reverse("account_email_verification_sent")
    assert not EmailAddress.objects.get(email=email).verified
    (organization,) = organizations_of(user_of(email).id)
    assert money_of(organization.tenant_id).granted == 0


def test_a_verified_address_signs_in_to_the_account_that_has_it(provider: Provider) -> None:
    user, client = verified_user(), new_client()
    provider.claims = _claims(user.email)
    assert _round_trip(client)["location"] == "/o/"
    assert client.session["_auth_user_id"] == str(user.id)
    assert SocialAccount.objects.filter(user=user, uid=provider.claims["sub"]).exists()


@pytest.mark.parametrize("verified", [False, "false", "true"])
def test_an_address_that_is_not_verified_takes_over_nobody(provider: Provider, verified: Any) -> None:
    user, client = verified_user(), new_client()
    provider.claims = _claims(user.email, verified=verified)
    _round_trip(client)
    assert "_auth_user_id" not in client.session
    assert not SocialAccount.objects.filter(user=user).exists()


def test_an_account_is_connected_and_disconnected(provider: Provider) -> None:
    user, client = verified_user(), new_client()
    sign_in(client, user.email)
    client.get(reverse("account_reauthenticate"))
    client.post(reverse("account_reauthenticate"), {"password": "a long enough passphrase"})
    provider.claims = _claims(new_address())
    assert _round_trip(client, process="connect")["location"] == reverse("socialaccount_connections")
    account = SocialAccount.objects.get(user=user)
    page = client.get(reverse("socialaccount_connections"))
    assert MARKER in page.content
    assert "Stand-in" in told(page)
    client.post(reverse("socialaccount_connections"), {"account": account.pk})
    assert not SocialAccount.objects.filter(user=user).exists()


def test_a_made_up_answer_is_refused_with_our_page(provider: Provider) -> None:
    answer = new_client().get("/accounts/oidc/stand-in/login/callback/?code=x&state=y")
    assert MARKER in answer.content
    cancelled = new_client()
    start = cancelled.post("/accounts/oidc/stand-in/login/")
    state = dict(part.split("=") for part in urlsplit(start["location"]).query.split("&"))["state"]
    answer = cancelled.get(f"/accounts/oidc/stand-in/login/callback/?error=access_denied&state={state}")
    assert answer["location"] == reverse("socialaccount_login_cancelled")
    assert MARKER in cancelled.get(answer["location"]).content


def test_a_provider_that_is_not_configured_does_not_exist() -> None:
    for path in ("/accounts/github/login/", "/accounts/google/login/", "/accounts/oidc/other/login/"):
        assert new_client().get(path).status_code == 404
