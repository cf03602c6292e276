"""An elevated session that ends while a dialog is open: nothing is lost, nothing changes, it goes on."""

from __future__ import annotations

import time

from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.test import Client
from django.utils.module_loading import import_string

from portal.backoffice.tests.people import make_operator, signed_in_operator
from tests.database import rows_of
from tests.factories import TenantFixture, make_tenant
from tests.journeys.backstage import Backstage
from tests.journeys.visits import Visits

RECORDS = "account_authentication_methods"


def _make() -> tuple[TenantFixture, Client]:
    return make_tenant(), signed_in_operator(make_operator())


def _prove_at(session_key: str, moment_s: float) -> None:
    """The second factor of this session was used at that moment, last."""
    store: SessionBase = import_string(f"{settings.SESSION_ENGINE}.SessionStore")(session_key)
    store[RECORDS] = [{**record, "at": moment_s} for record in store[RECORDS]]
    store.save()


def test_what_was_typed_survives_the_end_of_the_session(visits: Visits, backstage: Backstage) -> None:
    tenant, client = backstage(_make)
    session = client.cookies[settings.SESSION_COOKIE_NAME].value
    page = visits.open(session=session)
    page.goto(f"/operator/tenants/{tenant.public_id}/")
    page.get_by_test_id("tenant-note").click()
    page.locator("dialog textarea[name=text]").fill("Called them about the invoice.")
    backstage(_prove_at, session, time.time() - settings.TUNING["SLUICE_ELEVATED_S"] - 1)
    visits.complaints.expect("403")
    page.get_by_test_id("note-save").click()
    notice = page.locator("dialog [data-request-failed]")
    notice.get_by_test_id("elevate").wait_for()
    target = notice.get_by_test_id("elevate").get_attribute("href") or ""
    assert target.startswith("/accounts/2fa/reauthenticate/")
    assert page.locator("dialog textarea[name=text]").input_value() == "Called them about the invoice."
    assert backstage(_notes_of, tenant) == []
    backstage(_prove_at, session, time.time())
    notice.get_by_role("button").click()
    page.get_by_test_id("tenant-note-text").wait_for()
    assert backstage(_notes_of, tenant) == ["Called them about the invoice."]


def _notes_of(tenant: TenantFixture) -> list[str]:
    return [row["text"] for row in rows_of("tenants_tenantnote", tenant_id=tenant.id)]
