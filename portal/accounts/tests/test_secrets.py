"""Passwords, links and codes stand in no line of the log."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
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
from portal.kit import logs

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What a process writes, as it writes it."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    stream = io.StringIO()
    logs.configure("web", "info", stream=stream)
    yield stream
    logging.captureWarnings(False)
    root.setLevel(level)
    root.handlers[:] = handlers


def test_no_secret_of_a_person_is_logged(log: io.StringIO) -> None:
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
    # Forms without their CSRF token are refused with their address in the log.
    for path in (link, reset, _path(token)):
        assert new_client(enforce_csrf_checks=True).post(path).status_code == 403
    assert new_client().get("/accounts/nothing-here/").status_code == 404

    logged = log.getvalue()
    assert "nothing-here" in logged, "what is logged is seen here"
    assert logged.count("Forbidden (CSRF") == 3
    ends = [path.rstrip("/").rpartition("/")[2] for path in (link, reset)]
    unwanted = [PASSWORD, "a wrong passphrase", *ends, secret, token, *codes.context["unused_codes"]]
    assert not [one for one in unwanted if one in logged]
