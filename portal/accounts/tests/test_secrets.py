"""Passwords, links and codes stand in no line of the log."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from django.urls import reverse

from portal.accounts.tests.authenticators import totp_code
from portal.accounts.tests.test_invitations import _invite, _path
from portal.accounts.tests.visitor import (
    PASSWORD,
    confirm,
    link_in,
    mails_to,
    new_address,
    new_client,
    reauthenticate,
    sign_in,
    sign_up,
    verified_user,
)

pytestmark = pytest.mark.usefixtures("database")


def test_no_secret_of_a_person_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    client, email = new_client(), new_address()
    sign_up(client, email)
    link = link_in(mails_to(email)[0])
    confirm(client, email)
    reauthenticate(client)
    page: Any = client.get(reverse("mfa_activate_totp"))
    secret = page.context["form"].secret
    code = totp_code(secret)
    client.post(reverse("mfa_activate_totp"), {"code": code})
    codes: Any = client.get(reverse("mfa_view_recovery_codes"))
    sign_in(new_client(), email, "a wrong passphrase")
    new_client().post(reverse("account_reset_password"), {"email": email})
    reset = link_in(mails_to(email)[0])
    new_client().get(reset)
    stranger, elsewhere = verified_user(), new_client()
    _, token = _invite(new_address())
    sign_in(elsewhere, stranger.email)
    assert elsewhere.post(_path(token), {"action": "accept"}).status_code == 403
    assert new_client().get("/accounts/nothing-here/").status_code == 404

    logged = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert "nothing-here" in logged, "what is logged is seen here"
    unwanted = [PASSWORD, "a wrong passphrase", link, reset, secret, token, *codes.context["unused_codes"]]
    assert not [one for one in unwanted if one in logged]
