"""A visitor of the pages of accounts: a browser without scripts, with an address on the net of its own."""

from __future__ import annotations

import random
import re
from typing import Any

from allauth.account.models import EmailAddress
from django.test import Client
from django.urls import reverse

from tenants.models import OutboxMessage, User
from tenants.scope import role_scope
from tests.factories import unique_name

PASSWORD = "a long enough passphrase"
MARKER = b'class="main main-narrow"'
LINK = re.compile(r"https?://[^/\s]+(/\S+)")


def new_address(domain: str | None = None) -> str:
    """An address that nobody else has; its domain too, unless one is given."""
    return f"{unique_name('person')}@{domain or unique_name('company') + '.example'}"


def new_client(**options: Any) -> Client:
    parts = ".".join(str(random.randrange(1, 255)) for _ in range(3))
    return Client(REMOTE_ADDR=f"10.{parts}", HTTP_HOST="localhost", **options)


def sign_up(client: Client, email: str, **fields: Any) -> Any:
    values = {
        "full_name": "Ada Lovelace",
        "organization": unique_name("Engines"),
        "email": email,
        "password1": PASSWORD,
        "currency": "USD",
        "terms": "on",
        **fields,
    }
    wanted = {name: value for name, value in values.items() if value is not None}
    return client.post(reverse("account_signup"), wanted)


def mails_to(email: str) -> list[OutboxMessage]:
    """What the outbox holds for an address, newest first."""
    with role_scope("dataplane"):
        return list(OutboxMessage.objects.filter(to_email=email).order_by("-created_at", "-id"))


def link_in(mail: OutboxMessage) -> str:
    found = LINK.search(mail.text_body)
    assert found, mail.text_body
    return found[1]


def confirm(client: Client, email: str) -> Any:
    """Follow the newest link that was sent and press the button."""
    path = next(link_in(mail) for mail in mails_to(email) if "/accounts/confirm-email/" in mail.text_body)
    page = client.get(path)
    assert page.status_code == 200
    assert MARKER in page.content
    return client.post(path)


def sign_in(client: Client, email: str, password: str = PASSWORD, **fields: Any) -> Any:
    return client.post(reverse("account_login"), {"login": email, "password": password, **fields})


def reauthenticate(client: Client) -> None:
    answer = client.post(reverse("account_reauthenticate"), {"password": PASSWORD})
    assert answer.status_code == 302


def user_of(email: str) -> User:
    return User.objects.get(email=email)


def verified_user(email: str | None = None) -> User:
    """A person with a verified address and a password, as sign-up leaves them, without an organization."""
    email = email or new_address()
    user = User.objects.create_user(email, PASSWORD, full_name="Grace Hopper")
    EmailAddress.objects.create(user=user, email=email, verified=True, primary=True)
    return user


def told(answer: Any) -> str:
    """The text of a page, in one line."""
    return " ".join(re.sub(r"<[^>]+>", " ", answer.content.decode()).split())
