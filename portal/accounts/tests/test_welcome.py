"""Welcome credit is given once a person, to verified addresses only."""

from __future__ import annotations

import threading

import pytest
from django.db import connections
from django.test import override_settings
from django.urls import reverse

from portal.accounts.tests.visitor import (
    confirm,
    link_in,
    mails_to,
    new_address,
    new_client,
    sign_in,
    sign_up,
    told,
    user_of,
)
from portal.pages.access import organizations_of
from quotas.models import WelcomeGrant, WelcomeState
from tenants.scope import role_scope
from tests.database import money_of, rows_of
from tests.factories import unique_name

pytestmark = pytest.mark.usefixtures("database")


def _granted(email: str) -> int:
    (organization,) = organizations_of(user_of(email).id)
    return money_of(organization.tenant_id).granted


def test_two_verifications_at_once_give_it_once() -> None:
    email = new_address()
    sign_up(new_client(), email)
    path = link_in(mails_to(email)[0])
    barrier = threading.Barrier(2)
    codes: list[int] = []

    def run() -> None:
        client = new_client()
        barrier.wait(10)
        codes.append(client.post(path).status_code)
        connections.close_all()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert set(codes) <= {302, 404}
    assert _granted(email) == 10**9
    (organization,) = organizations_of(user_of(email).id)
    transfers = rows_of("quotas_ledgertransfer", tenant_id=organization.tenant_id)
    assert len(transfers) == 1


def test_other_spellings_of_one_mailbox_get_it_once() -> None:
    name = unique_name("person").replace("-", "")
    first, second = f"{name}+a@gmail.com", f"{name[:4]}.{name[4:]}+b@googlemail.com"
    for email in (first, second):
        client = new_client()
        sign_up(client, email)
        confirm(client, email)
    assert (_granted(first), _granted(second)) == (10**9, 0)
    assert "you had yours" in told(client.get(reverse("accounts:settings")))


def test_disposable_addresses_get_none_and_are_told() -> None:
    client, email = new_client(), new_address("mail.mailinator.com")
    sign_up(client, email)
    confirm(client, email)
    assert _granted(email) == 0
    assert "thrown away" in told(client.get(reverse("accounts:settings")))


def test_where_operators_decide_it_waits_for_one() -> None:
    client, email = new_client(), new_address()
    with override_settings(WELCOME_APPROVAL="operator"):
        sign_up(client, email)
        confirm(client, email)
    assert _granted(email) == 0
    assert "waits for an operator" in told(client.get(reverse("accounts:settings")))
    with role_scope("operator"):
        assert WelcomeGrant.objects.get(user__email=email).state == WelcomeState.HELD


def test_an_installation_that_gives_none_promises_none() -> None:
    client, email = new_client(), new_address()
    with override_settings(WELCOME_AMOUNTS={}):
        sign_up(client, email)
        confirm(client, email)
    assert _granted(email) == 0
    assert "welcome" not in told(client.get(reverse("accounts:settings"))).lower()


def test_what_a_verification_could_not_settle_the_next_sign_in_does(monkeypatch: pytest.MonkeyPatch) -> None:
    email = new_address()
    sign_up(new_client(), email)
    # The lock that decisions are made under is taken by somebody who does not let go in time.
    monkeypatch.setattr("quotas.operations.WELCOME_LOCK_TIMEOUT_MS", 100)
    with connections["owner"].cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [0x51C0_0001])
        try:
            assert confirm(new_client(), email).status_code == 302
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [0x51C0_0001])
    assert _granted(email) == 0
    sign_in(new_client(), email)
    assert _granted(email) == 10**9
