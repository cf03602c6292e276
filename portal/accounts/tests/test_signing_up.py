"""Sign-up: one transaction, one account an address, nothing without the verified address."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.db import connections
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
    sign_in,
    sign_up,
    told,
    user_of,
    verified_user,
)
from portal.pages.access import organizations_of
from tenants.models import Role, TermsAcceptance, User
from tenants.scope import role_scope
from tests.database import money_of

pytestmark = pytest.mark.usefixtures("database")


def test_from_the_form_to_the_console() -> None:
    client, email = new_client(), new_address()
    page = client.get(reverse("account_signup"))
    assert MARKER in page.content
    assert b"/mailbox" in page.content
    assert b"style=" not in page.content

    answer = sign_up(client, email, organization="Analytical  Engines")

    assert answer["location"] == reverse("account_email_verification_sent")
    (organization,) = organizations_of(user_of(email).id)
    assert (organization.name, organization.currency) == ("Analytical Engines", "USD")
    assert organization.role == Role.OWNER
    assert user_of(email).full_name == "Ada Lovelace"
    with role_scope("auth"):
        assert TermsAcceptance.objects.get(user=user_of(email)).version == "2026-11"
    assert money_of(organization.tenant_id).granted == 0
    assert "_auth_user_id" not in client.session, "nobody is signed in before the address is verified"
    assert client.get(reverse("accounts:settings"))["location"].startswith("/accounts/login/")
    assert sign_in(client, email)["location"] == reverse("account_email_verification_sent")
    assert "_auth_user_id" not in client.session

    answer = confirm(client, email)

    assert answer["location"] == "/o/"
    assert money_of(organization.tenant_id).granted == 10**9
    page = client.get(reverse("accounts:settings"))
    assert "$1.00 of welcome credit is in your balance" in told(page)


def test_the_page_about_the_mail_names_its_address_whether_there_is_an_account_or_not() -> None:
    taken = verified_user().email
    for email in (new_address(), taken):
        client = new_client()
        page = client.get(sign_up(client, email)["location"])
        assert f"We sent a link to <strong>{email}</strong>" in page.content.decode()
    assert (
        "the address you gave"
        in new_client().get(reverse("account_email_verification_sent")).content.decode()
    )


def test_the_link_works_in_another_browser_which_then_asks_to_sign_in() -> None:
    email = new_address()
    sign_up(new_client(), email)
    other = new_client()
    assert confirm(other, email)["location"].startswith("/accounts/login/")
    assert "_auth_user_id" not in other.session
    answer = sign_in(other, email)
    assert answer["location"] == "/o/"


def test_looking_at_the_link_confirms_nothing() -> None:
    email = new_address()
    sign_up(new_client(), email)
    new_client().get(link_in(mails_to(email)[0]))
    assert not EmailAddress.objects.get(email=email).verified


def test_a_second_sign_up_with_the_address_does_not_show_that_there_is_one() -> None:
    email = new_address()
    first = sign_up(new_client(), email)
    confirm(new_client(), email)
    with override_settings(ACCOUNT_RATE_LIMITS={"confirm_email": None}):
        again = sign_up(new_client(), email, password1="another long passphrase")
    assert (again.status_code, again["location"]) == (first.status_code, first["location"])
    assert "account with this address" in mails_to(email)[0].text_body
    assert User.objects.filter(email=email).count() == 1
    assert user_of(email).check_password(PASSWORD)
    assert len(organizations_of(user_of(email).id)) == 1


def test_two_sign_ups_at_once_make_one_account() -> None:
    email = new_address()
    answers: list[Any] = []
    barrier = threading.Barrier(2)

    def run() -> None:
        client = new_client()
        barrier.wait(10)
        answers.append(sign_up(client, email))
        connections.close_all()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [answer["location"] for answer in answers] == [reverse("account_email_verification_sent")] * 2
    assert User.objects.filter(email=email).count() == 1
    assert len(organizations_of(user_of(email).id)) == 1


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"terms": None}, "terms"),
        ({"organization": " "}, "organization"),
        ({"organization": "evil\u202egro"}, "organization"),
        ({"organization": "Win at www.evil.example"}, "organization"),
        ({"full_name": "https://evil.example"}, "full_name"),
        ({"currency": "XXX"}, "currency"),
        ({"password1": "short"}, "password1"),
        ({"password1": "password123"}, "password1"),
        ({"email": "no address"}, "email"),
    ],
)
def test_what_is_wrong_is_said_at_its_field(fields: dict[str, Any], field: str) -> None:
    email = new_address()
    answer: Any = sign_up(new_client(), **{"email": email, **fields})
    assert field in answer.context["form"].errors
    assert not User.objects.filter(email=email).exists()


def test_a_password_like_the_address_is_refused() -> None:
    email = new_address()
    answer: Any = sign_up(new_client(), email, password1=email)
    assert "password1" in answer.context["form"].errors


def test_a_trap_that_only_programs_fill_makes_no_account() -> None:
    email = new_address()
    answer = sign_up(new_client(), email, homepage="https://spam.example")
    assert answer["location"] == reverse("account_email_verification_sent")
    assert not User.objects.filter(email=email).exists()
    assert not mails_to(email)


def test_too_many_sign_ups_from_one_address_are_refused_with_our_page() -> None:
    client = new_client()
    with override_settings(ACCOUNT_RATE_LIMITS={"signup": "2/h/ip"}):
        answers = [sign_up(client, new_address()) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [302, 302, 429]
        assert MARKER in answers[2].content
        # What a stranger writes into a header moves nobody to another address.
        spoofed = client.post(reverse("account_signup"), {}, HTTP_X_FORWARDED_FOR="192.0.2.7")
        assert spoofed.status_code == 429


def test_behind_a_proxy_of_ours_its_word_counts() -> None:
    client = new_client()
    with override_settings(ACCOUNT_RATE_LIMITS={"signup": "1/h/ip"}, ALLAUTH_TRUSTED_PROXY_COUNT=1):
        for peer, expected in (("198.51.100.1", 200), ("198.51.100.1", 429), ("198.51.100.2", 200)):
            answer = client.post(reverse("account_signup"), {}, HTTP_X_FORWARDED_FOR=f"203.0.113.9, {peer}")
            assert answer.status_code == expected


def test_where_sign_up_is_by_invitation_the_form_is_closed() -> None:
    email = new_address()
    with override_settings(SIGNUP="invitation"):
        page = new_client().get(reverse("account_signup"))
        assert "by invitation" in told(page)
        sign_up(new_client(), email)
    assert not User.objects.filter(email=email).exists()


def test_mails_have_a_prefix_two_forms_and_both_languages() -> None:
    email = new_address()
    client = new_client(headers={"accept-language": "zh-hans"})
    sign_up(client, email)
    (mail,) = mails_to(email)
    assert mail.subject.startswith("[Sluice] ")
    assert mail.html_body.startswith("<!doctype html>")
    assert 'lang="zh-hans"' in mail.html_body
    assert link_in(mail) in mail.html_body.replace("&amp;", "&")


def test_the_currency_is_proposed_by_the_language_and_asked_only_when_there_is_a_choice() -> None:
    chinese = new_client(headers={"accept-language": "zh-hans"}).get(reverse("account_signup"))
    assert chinese.context["form"].fields["currency"].initial == "CNY"
    with override_settings(CURRENCIES=("CNY",)):
        email = new_address()
        page: Any = new_client().get(reverse("account_signup"))
        assert "currency" not in page.context["form"].fields
        sign_up(new_client(), email, currency=None)
    (organization,) = organizations_of(user_of(email).id)
    assert organization.currency == "CNY"
