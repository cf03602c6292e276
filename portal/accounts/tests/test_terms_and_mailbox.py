"""Terms that change, the mailbox that production does not have, and what settings refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.test import override_settings
from django.urls import reverse

from portal.accounts.tests.visitor import (
    MARKER,
    confirm,
    mails_to,
    new_address,
    new_client,
    sign_in,
    sign_up,
    told,
    user_of,
    verified_user,
)
from portal.kit.ids import public_id
from tenants.models import TermsAcceptance
from tenants.scope import role_scope

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.usefixtures("database")


def test_new_terms_are_asked_for_at_the_next_visit_and_kept_by_version() -> None:
    client, email = new_client(), new_address()
    sign_up(client, email)
    confirm(client, email)
    with override_settings(TERMS_VERSION="2027-01"):
        answer = client.get("/o/nowhere/?a=b")
        assert answer["location"] == "/accounts/accept-terms/?next=%2Fo%2Fnowhere%2F%3Fa%3Db"
        page = client.get(answer["location"])
        assert MARKER in page.content
        assert "2027-01" in told(page)
        refused = client.post(reverse("accounts:accept_terms"), {"next": "/o/nowhere/?a=b"})
        assert refused.status_code == 422
        accepted = client.post(reverse("accounts:accept_terms"), {"next": "/o/nowhere/?a=b", "terms": "on"})
        assert accepted["location"] == "/o/nowhere/?a=b"
        assert client.get("/o/nowhere/?a=b").status_code == 404
        elsewhere = client.post(reverse("accounts:accept_terms"), {"next": "//evil.example", "terms": "on"})
        assert elsewhere["location"] == "/o/"
    with role_scope("auth"):
        versions = TermsAcceptance.objects.filter(user=user_of(email)).values_list("version", flat=True)
        assert sorted(versions) == ["2026-11", "2027-01"]


def test_people_of_the_installation_itself_are_not_asked() -> None:
    user, client = verified_user(), new_client()
    sign_in(client, user.email)
    assert client.get("/o/nowhere/").status_code == 404


def test_the_terms_can_be_read_without_an_account() -> None:
    for name in ("accounts:terms", "accounts:privacy"):
        page = new_client().get(reverse(name))
        assert page.status_code == 200
        assert MARKER in page.content


def test_the_mailbox_shows_mails_as_text_with_links() -> None:
    client, email = new_client(), new_address()
    sign_up(client, email)
    (mail,) = mails_to(email)
    assert email in told(client.get(reverse("accounts:mailbox")))
    page = client.get(reverse("accounts:mail", args=[public_id("mail", mail.id)]))
    assert b'<a href="http://localhost/accounts/confirm-email/' in page.content
    for wrong in ("mail_x", public_id("mail", user_of(email).id)):
        assert client.get(reverse("accounts:mail", args=[wrong])).status_code == 404


def test_where_mails_are_sent_there_is_no_mailbox() -> None:
    client, email = new_client(), new_address()
    sign_up(client, email)
    with override_settings(MAILBOX=False):
        assert client.get(reverse("accounts:mailbox")).status_code == 404
        mail = reverse("accounts:mail", args=[public_id("mail", mails_to(email)[0].id)])
        assert client.get(mail).status_code == 404
        assert b"/mailbox" not in new_client().get(reverse("account_signup")).content


def _settings_in_a_process(**environment: str) -> subprocess.CompletedProcess[str]:
    program = (
        "from django.conf import settings as s; import json;"
        "print(json.dumps([s.MAILBOX, s.WELCOME_AMOUNTS, s.SIGN_IN_ORIGINS,"
        "s.CONTENT_SECURITY_POLICY['DIRECTIVES']['form-action']]))"
    )
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


PRODUCTION = {
    "SLUICE_ENV": "production",
    "DJANGO_SETTINGS_MODULE": "portal.settings.production",
    "PORTAL_URL": "https://portal.example",
    "API_BASE": "https://api.example/v1",
    "ALLOWED_HOSTS": "portal.example",
    "EMAIL_HOST": "mail.example",
    "METRICS_TOKEN": "long-and-random",
}


def test_production_has_no_mailbox_and_gives_nothing_unasked() -> None:
    done = _settings_in_a_process(**PRODUCTION)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [False, {}, [], ["'self'"]]


@pytest.mark.parametrize("name", ["METRICS_TOKEN", "EMAIL_HOST", "ALLOWED_HOSTS"])
def test_production_names_everything(name: str) -> None:
    """Behind a proxy every visitor comes from its address: metrics need a token there."""
    done = _settings_in_a_process(**{**PRODUCTION, name: ""})
    assert done.returncode != 0
    assert name in done.stderr


def test_providers_come_from_a_file_and_may_be_gone_to(tmp_path: Path) -> None:
    file = tmp_path / "providers.yaml"
    provider = {"id": "corp", "name": "Corp", "client_id": "c", "secret": "s3cret-of-corp"}
    file.write_text(json.dumps([{**provider, "server_url": "https://login.corp.example/realm"}]))
    done = _settings_in_a_process(**PRODUCTION, OIDC_PROVIDERS_FILE=str(file), SLUICE_WELCOME="USD=2.50")
    assert done.returncode == 0, done.stderr
    amounts, origins = json.loads(done.stdout)[1:3]
    assert (amounts, origins) == ({"USD": 2_500_000_000}, ["https://login.corp.example"])

    file.write_text(json.dumps([provider]))
    done = _settings_in_a_process(**PRODUCTION, OIDC_PROVIDERS_FILE=str(file))
    assert done.returncode != 0
    assert "OIDC_PROVIDERS_FILE must be a list of" in done.stderr
    assert "s3cret-of-corp" not in done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SLUICE_SIGNUP", "maybe"),
        ("SLUICE_WELCOME", "USD"),
        ("SLUICE_WELCOME_APPROVAL", "never"),
        ("GITHUB_CLIENT_ID", "without a secret"),
        # Cookies are for TLS only, and whoever chooses the host chooses where links lead.
        ("PORTAL_URL", "http://portal.example"),
        ("ALLOWED_HOSTS", "portal.example,*"),
    ],
)
def test_a_wrong_setting_of_accounts_stops_the_start(name: str, value: str) -> None:
    done = _settings_in_a_process(**{**PRODUCTION, name: value})
    assert done.returncode != 0
    assert name in done.stderr
