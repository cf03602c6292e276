"""What the operator role cannot do with SQL: sign in as somebody else, or make itself mightier."""

from __future__ import annotations

from typing import LiteralString

import psycopg
import pytest

from portal.backoffice.tests.people import make_operator, sign_in
from tests.database import connected
from tests.people import make_person

pytestmark = pytest.mark.usefixtures("database")

TAKE_OVERS: list[LiteralString] = [
    # Mails hold links that sign people in and set passwords.
    "SELECT text_body FROM tenants_outboxmessage",
    "SELECT html_body FROM tenants_outboxmessage",
    "SELECT session_key FROM django_session",
    "INSERT INTO django_session VALUES ('x', 'y', now())",
    "UPDATE django_session SET session_data = 'x'",
    "DELETE FROM django_session",
    "SELECT password FROM tenants_user",
    "SELECT * FROM tenants_user",
    "INSERT INTO tenants_user (email, is_staff) VALUES ('x@example.com', true)",
    "UPDATE tenants_user SET password = 'x'",
    "UPDATE tenants_user SET email = 'x@example.com'",
    "UPDATE tenants_user SET is_staff = true",
    "UPDATE tenants_user SET is_superuser = true",
    "UPDATE account_emailaddress SET email = 'x@example.com'",
    "SELECT data FROM mfa_authenticator",
]


@pytest.mark.parametrize("statement", TAKE_OVERS)
def test_an_operator_takes_over_no_account(statement: LiteralString) -> None:
    with (
        connected("operator") as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied"),
    ):
        connection.execute(statement)


def test_an_operator_sees_who_people_are_and_which_mails_wait() -> None:
    person = make_person()
    with connected("operator") as connection:
        (email,) = connection.execute(
            "SELECT email FROM tenants_user WHERE id = %s", (person.id,)
        ).fetchone() or (None,)
        connection.execute("SELECT to_email, subject, sent_at, last_error FROM tenants_outboxmessage")
    assert email == person.email


def test_the_admin_shows_a_person_but_keeps_no_history_of_its_own() -> None:
    person = make_person()
    client = sign_in(make_operator())
    page = client.get(f"/admin/tenants/user/{person.id}/change/")
    assert person.email in page.content.decode()
    assert "history" not in page.content.decode()
    assert client.get("/admin/").status_code == 200
    assert client.get("/admin/tenants/").status_code == 200
    assert client.get(f"/admin/tenants/user/{person.id}/history/").status_code == 404
