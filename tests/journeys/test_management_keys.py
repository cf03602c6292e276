"""A management key in the browser: made, copied, used by a program, revoked; and the reference beside it."""

from __future__ import annotations

from pathlib import Path

import httpx2
from django.urls import reverse
from playwright.sync_api import expect

from tests.isolation.api_cases import every_case
from tests.journeys.backstage import Backstage
from tests.journeys.hooks import field, go, hook
from tests.journeys.stages import make_customer
from tests.journeys.visits import Visits
from tests.web_process import RunningWeb


def test_a_key_from_the_dialog_to_its_end(
    visits: Visits, backstage: Backstage, web: RunningWeb, artifacts: Path
) -> None:
    tenant, _, session = backstage(make_customer, None)
    page = visits.open(session=session)
    go(page, "console:keys", tenant.public_id)
    hook(page, "management-keys").click()
    expect(hook(page, "management-empty")).to_be_visible()
    hook(page, "management-new").click()
    dialog = hook(page, "management-dialog")
    field(dialog, "name").fill("nightly report")
    visits.complaints.expect("status of 422")
    hook(dialog, "management-create").click()
    # Without a scope it stays open and says so; only then is the answer's own form there to be filled.
    expect(dialog.get_by_role("alert")).to_be_visible()
    expect(field(dialog, "name")).to_have_value("nightly report")
    dialog.locator('input[name="scopes"][value="usage:read"]').check()
    hook(dialog, "management-create").click()
    shown = hook(page, "management-secret-dialog")
    expect(shown).to_be_visible()
    token = hook(shown, "management-secret").inner_text().strip()
    page.keyboard.press("Escape")
    expect(shown).to_be_visible()
    hook(shown, "management-secret-copy").click()
    assert page.evaluate("() => navigator.clipboard.readText()") == token
    hook(shown, "management-secret-close").click()
    row = hook(page, "management-row")
    expect(row).to_have_attribute("data-state", "ACTIVE")
    assert token not in page.content()

    def status() -> int:
        headers = {"Authorization": f"Bearer {token}"}
        return httpx2.get(f"{web.url}/api/v1/usage", headers=headers, timeout=30).status_code

    assert status() == 200
    hook(row, "management-revoke").click()
    hook(page, "management-revoke-confirm").click()
    expect(hook(page, "management-row")).to_have_count(0)
    assert status() == 401


def test_the_reference_shows_every_operation(visits: Visits, artifacts: Path) -> None:
    page = visits.open()
    page.goto(reverse("api:docs"))
    expect(hook(page, "api-operation-row")).to_have_count(len(every_case()))
    page.locator('a[href$="#createKey"]').click()
    operation = hook(page, "api-operation", operation="createKey")
    operation.locator("summary").first.click()
    operation.scroll_into_view_if_needed()
    page.screenshot(path=artifacts / "api-operation.png")
