"""Every page of accounts is ours: in our frame, without inline code, and none of the library's templates."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import allauth
import pytest
from allauth.mfa.models import Authenticator
from django.test import Client
from django.urls import URLPattern, URLResolver, reverse

from portal.accounts import urls
from portal.accounts.tests.authenticators import totp_code
from portal.accounts.tests.test_second_factors import _enrol_app, _enrol_passkey
from portal.accounts.tests.visitor import (
    MARKER,
    link_in,
    mails_to,
    new_address,
    new_client,
    sign_in,
    sign_up,
    verified_user,
)

ROOT = Path(__file__).resolve().parents[3]
LIBRARY = Path(allauth.__file__).parent
pytestmark = pytest.mark.usefixtures("database")

INLINE = re.compile(
    rb"<script(?![^>]*\bsrc=)(?![^>]*application/json)|\sstyle=|\son[a-z]+=|javascript:|hx-on", re.IGNORECASE
)
# Pages of flows that are not offered: codes by mail or telephone, sign-up by passkey, being a provider.
NOT_OFFERED = re.compile(
    r"^(account/(confirm_|base_|phone|request_login_code|signup_by_passkey|snippets/|email_change|email\.html)"
    r"|mfa/(base_|totp/base|webauthn/base|webauthn/snippets/|recovery_codes/base)"
    r"|socialaccount/(base_|snippets/|login_redirect)|usersessions/base_|openid/|idp/|allauth/)"
)


def _named(patterns: list[URLPattern | URLResolver], namespace: str = "") -> dict[str, URLPattern]:
    found: dict[str, URLPattern] = {}
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            inner = f"{pattern.namespace}:" if pattern.namespace else namespace
            found |= _named(pattern.url_patterns, inner)
        elif pattern.name:
            found[namespace + pattern.name] = pattern
    return found


NAMES = _named(urls.urlpatterns)


def _arguments(pk: int) -> dict[str, dict[str, Any]]:
    return {
        "account_confirm_email": {"key": "no-such-key"},
        "account_reset_password_from_key": {"uidb36": "x", "key": "y"},
        "mfa_edit_webauthn": {"pk": pk},
        "mfa_remove_webauthn": {"pk": pk},
        "openid_connect_login": {"provider_id": "none"},
        "openid_connect_callback": {"provider_id": "none"},
        "accounts:invitation": {"token": "none"},
        "accounts:mail": {"mail_id": "none"},
    }


def _check(name: str, answer: Any) -> None:
    assert answer.status_code < 500, name
    if answer.status_code in (301, 302, 404, 405) or "html" not in answer.headers.get("content-type", ""):
        return
    assert MARKER in answer.content, name
    assert not INLINE.search(answer.content), (name, INLINE.search(answer.content))
    assert b"Content-Security-Policy" not in answer.content
    assert answer.headers["content-security-policy"], name
    origins = {Path(one.origin.name) for one in answer.templates or () if one.origin is not None}
    assert not [path for path in origins if LIBRARY in path.parents and path.suffix == ".html"], name


def _walk(client: Client, pk: int) -> dict[str, int]:
    seen = {}
    for name in NAMES:
        if name == "account_logout":
            continue
        try:
            answer = client.get(reverse(name, kwargs=_arguments(pk).get(name)))
        except Exception as error:
            raise AssertionError(name) from error
        _check(name, answer)
        seen[name] = answer.status_code
    return seen


def test_every_address_as_a_stranger_and_as_a_person_with_everything() -> None:
    assert len(NAMES) > 40
    stranger = _walk(new_client(), 1)
    assert [name for name, code in stranger.items() if code == 200]

    user, client = verified_user(), new_client()
    sign_in(client, user.email)
    # Whoever has a second factor is asked for that instead.
    by_password = client.get(reverse("account_reauthenticate"))
    assert by_password.status_code == 200
    _check("account_reauthenticate", by_password)
    secret = _enrol_app(client)
    _enrol_passkey(client)
    pk = Authenticator.objects.get(user=user, type="webauthn").pk
    person = _walk(client, pk)
    pages = {name for name, code in (stranger | person).items() if code == 200}
    assert {"mfa_list_webauthn", "mfa_edit_webauthn", "mfa_generate_recovery_codes", "account_email"} <= pages
    _check("account_logout", client.get(reverse("account_logout")))

    half_way = new_client()
    sign_in(half_way, user.email)
    for name in ("mfa_authenticate", "account_login"):
        _check(name, half_way.get(reverse(name)))
    half_way.post(reverse("mfa_authenticate"), {"code": totp_code(secret, steps_ahead=1)})
    for name in ("mfa_reauthenticate", "mfa_reauthenticate_webauthn"):
        answer = half_way.get(reverse(name))
        assert answer.status_code == 200, name
        _check(name, answer)


def test_what_somebody_sees_signed_in_is_kept_nowhere() -> None:
    user, client = verified_user(), new_client()
    sign_in(client, user.email)
    pages = ("accounts:settings", "account_email", "usersessions_list", "mfa_index", "storefront:landing")
    for name in pages:
        answer = client.get(reverse(name))
        assert answer.status_code == 200, name
        assert {"no-store", "private"} <= set(answer["Cache-Control"].split(", ")), name
    assert "Cache-Control" not in new_client().get(reverse("accounts:terms")).headers


def test_a_link_that_can_be_confirmed_and_one_that_cannot() -> None:
    email = new_address()
    sign_up(new_client(), email)
    _check("account_confirm_email", new_client().get(link_in(mails_to(email)[0])))


def test_every_page_of_the_library_that_is_offered_has_one_of_ours() -> None:
    theirs = {
        str(path.relative_to(LIBRARY / "templates")) for path in (LIBRARY / "templates").rglob("*.html")
    }
    missing = {
        name for name in theirs if not NOT_OFFERED.match(name) and not (ROOT / "templates" / name).exists()
    }
    assert not missing
    mails = {
        str(path.relative_to(LIBRARY / "templates")) for path in (LIBRARY / "templates").rglob("email/*.txt")
    }
    codes = {name for name in mails if "_code_" in name}
    assert not {name for name in mails - codes if not (ROOT / "templates" / name).exists()}


@pytest.mark.parametrize("language", ["en", "zh-hans"])
def test_the_fields_of_sign_in_help_password_managers(language: str) -> None:
    page = new_client(headers={"accept-language": language}).get(reverse("account_login")).content
    for wanted in (b'autocomplete="username"', b'autocomplete="current-password"', b'type="email"'):
        assert wanted in page
    assert b"Or continue with" not in page, "no provider is configured"
