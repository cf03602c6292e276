"""Sign-in, its limits, sessions, password and address changes."""

from __future__ import annotations

import pytest
from django.test import override_settings
from django.urls import reverse

from portal.accounts.tests.visitor import (
    MARKER,
    PASSWORD,
    confirm,
    link_in,
    mails_to,
    new_address,
    new_client,
    reauthenticate,
    sign_in,
    told,
    verified_user,
)

pytestmark = pytest.mark.usefixtures("database")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("/accounts/2fa/", "/accounts/2fa/"),
        ("https://evil.example/", "/o/"),
        ("//evil.example/", "/o/"),
        ("javascript:alert(1)", "/o/"),
    ],
)
def test_only_our_own_pages_are_next(wanted: str, expected: str) -> None:
    user = verified_user()
    assert sign_in(new_client(), user.email, next=wanted)["location"] == expected


def test_signing_in_starts_another_session_and_remembers_only_when_asked() -> None:
    user, client = verified_user(), new_client()
    sign_in(client, user.email)
    assert client.session.get_expire_at_browser_close()
    remembered = new_client()
    before = remembered.session
    before["a"] = 1
    before.save()
    remembered.cookies["sessionid"] = str(before.session_key)
    sign_in(remembered, user.email, remember="on")
    assert remembered.cookies["sessionid"].value != before.session_key
    assert not remembered.session.get_expire_at_browser_close()


def test_guessing_a_password_ends_soon_for_everybody() -> None:
    user = verified_user()
    for _ in range(5):
        assert "not correct" in told(sign_in(new_client(), user.email, "wrong wrong wrong"))
    assert "Too many failed" in told(sign_in(new_client(), user.email))


def test_guessing_from_one_place_gets_our_page() -> None:
    client = new_client()
    with override_settings(ACCOUNT_RATE_LIMITS={"login": "2/m/ip"}):
        answers = [sign_in(client, new_address(), "wrong wrong wrong") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert MARKER in answers[2].content


def test_devices_are_listed_and_others_signed_out() -> None:
    user, here, there = verified_user(), new_client(), new_client(HTTP_USER_AGENT="Firefox on a train")
    for client in (here, there):
        sign_in(client, user.email)
    page = here.get(reverse("usersessions_list"))
    assert b"Firefox on a train" in page.content
    here.post(reverse("usersessions_list"))
    assert there.get(reverse("accounts:settings")).status_code == 302
    assert here.get(reverse("accounts:settings")).status_code == 200


def test_a_new_password_by_mail_ends_other_sessions() -> None:
    user, elsewhere = verified_user(), new_client()
    sign_in(elsewhere, user.email)
    client = new_client()
    answer = client.post(reverse("account_reset_password"), {"email": user.email})
    assert answer["location"] == reverse("account_reset_password_done")
    first = client.get(link_in(mails_to(user.email)[0]))
    page = client.get(first["location"])
    assert MARKER in page.content
    values = {"password1": "quite another passphrase", "password2": "quite another passphrase"}
    assert client.post(first["location"], values).status_code == 302
    assert elsewhere.get(reverse("accounts:settings")).status_code == 302
    assert sign_in(new_client(), user.email, "quite another passphrase")["location"] == "/o/"


def test_asking_for_a_password_does_not_show_who_has_an_account() -> None:
    stranger, user = new_address(), verified_user()
    answers = [
        new_client().post(reverse("account_reset_password"), {"email": one}) for one in (stranger, user.email)
    ]
    assert len({(answer.status_code, answer["location"]) for answer in answers}) == 1


def test_a_new_address_counts_once_it_is_confirmed() -> None:
    user, client, email = verified_user(), new_client(), new_address()
    sign_in(client, user.email)
    reauthenticate(client)
    client.post(reverse("account_email"), {"email": email, "action_add": ""})
    user.refresh_from_db()
    assert user.email != email
    confirm(client, email)
    user.refresh_from_db()
    assert user.email == email
    assert sign_in(new_client(), email)["location"] == "/o/"


def test_a_password_is_changed_with_the_old_one() -> None:
    user, client = verified_user(), new_client()
    sign_in(client, user.email)
    values = {"oldpassword": PASSWORD, "password1": "yet another phrase", "password2": "yet another phrase"}
    assert client.post(reverse("account_change_password"), values).status_code == 302
    assert client.get(reverse("accounts:settings")).status_code == 200
    assert sign_in(new_client(), user.email, "yet another phrase")["location"] == "/o/"


def test_a_name_is_changed() -> None:
    user, client = verified_user(), new_client()
    sign_in(client, user.email)
    client.post(reverse("accounts:settings"), {"full_name": "Grace B. M. Hopper"})
    assert "Grace B. M. Hopper" in told(client.get(reverse("accounts:settings")))
    assert client.post(reverse("accounts:settings"), {"full_name": "x" * 201}).status_code == 422


@override_settings(MAILBOX=False, PORTAL_URL="https://portal.example")
def test_links_in_mails_lead_to_the_portal_whatever_host_was_asked() -> None:
    """Else whoever asks for somebody else under another name that is allowed chooses where the link leads."""
    user = verified_user()
    new_client().post(reverse("account_reset_password"), {"email": user.email}, headers={"host": "127.0.0.1"})
    (mail,) = mails_to(user.email)
    assert "https://portal.example/accounts/password/reset/key/" in mail.text_body
    assert "127.0.0.1" not in mail.text_body + mail.html_body
