"""Auto-recharge from the first card to the bank that wants to see somebody, in a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from django.urls import reverse
from playwright.sync_api import Browser, Page, expect

from quotas.models import AutoRecharge
from tenants.scope import role_scope
from tests.journeys.album import Album
from tests.journeys.backstage import Backstage
from tests.journeys.hooks import field, go, hook
from tests.journeys.paying import Till, open_till, pay, polling, top_ups_of
from tests.journeys.stages import make_customer
from tests.journeys.visits import THEME_COOKIE, Visits

UNITS = 10**9
WITHIN_MS = 60_000


@pytest.fixture(scope="module")
def till(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Till]:
    with open_till(tmp_path_factory.mktemp("till")) as opened:
        yield opened


@pytest.fixture
def visits(till: Till, browser: Browser, artifacts: Path, request: pytest.FixtureRequest) -> Iterator[Visits]:
    """Windows that may also look at the stand-in's pages."""
    opened = Visits(browser, till.web.url)
    opened.complaints.expect(f"another site was asked: {re.escape(till.standin.url)}/")
    before = len(till.web.alarms())
    yield opened
    opened.photograph(artifacts / "recharge-ends", request.node.name)
    opened.close()
    assert not opened.complaints.heard, "\n".join(["the pages complained:", *opened.complaints.heard])
    assert not till.web.alarms()[before:]


def set_amounts(page: Page, threshold: str, amount: str, cap: str) -> None:
    form = hook(page, "recharge-form")
    field(form, "threshold_nanos").fill(threshold)
    field(form, "amount_nanos").fill(amount)
    field(form, "monthly_cap_nanos").fill(cap)
    hook(form, "recharge-save").click()


def wait_for_state(page: Page, organization: str, hooked: str, **data: str) -> None:
    """Load the page again and again until it shows this."""
    deadline = WITHIN_MS
    while deadline > 0:
        go(page, "console:recharge", organization)
        if hook(page, hooked, **data).count():
            return
        page.wait_for_timeout(500)
        deadline -= 500
    raise AssertionError(f"{hooked} does not come")


@pytest.mark.timeout(400)
def test_from_the_first_card_to_a_confirmation(
    visits: Visits, till: Till, backstage: Backstage, artifacts: Path, tmp_path: Path
) -> None:
    tenant, _person, session = backstage(make_customer, None, granted="1.00")
    page, album = visits.open(session=session), Album(artifacts / "recharge")
    go(page, "console:billing", tenant.public_id)
    page.locator(f'a[href="{reverse("console:recharge", args=[tenant.public_id])}"]').first.click()
    expect(hook(page, "recharge-empty")).to_be_visible()
    album.take(page, "empty")

    visits.complaints.expect("status of 422")
    set_amounts(page, "30", "20", "10")
    expect(page.locator("#recharge_threshold_nanos_error")).to_be_visible()
    expect(page.locator("#recharge_monthly_cap_nanos_error")).to_be_visible()
    album.take(page, "errors")
    set_amounts(page, "5", "20", "60")
    expect(hook(page, "standin-banner")).to_be_visible()
    pay(page)
    expect(hook(page, "recharge-state")).to_have_attribute("data-state", "ON")
    expect(hook(page, "recharge-method").first).to_contain_text("4242")

    with polling(till, tmp_path, backstage):
        wait_for_state(page, tenant.public_id, "recharge-row", state="PAID")
        expect(hook(page, "balance").locator(f'data[value="{21 * UNITS}"]')).to_be_visible()
        photograph_all(page, tenant.public_id, album, "on")

        method = backstage(_method_of, tenant.id)
        till.standin.control.set_behaviour(payment_method=method, behaviour="authentication_required")
        set_amounts(page, "30", "30", "60")
        wait_for_state(page, tenant.public_id, "recharge-paused")
        photograph_all(page, tenant.public_id, album, "paused")
        hook(page, "recharge-confirm").click()
        expect(hook(page, "total")).to_have_text("30.00 USD")
        pay(page)
        expect(hook(page, "landing")).to_have_attribute("data-state", "PAID")
        go(page, "console:recharge", tenant.public_id)
        expect(hook(page, "recharge-state")).to_have_attribute("data-state", "ON")
    assert backstage(top_ups_of, tenant.id) == [
        ("PAID", 20 * UNITS),
        ("FAILED", 30 * UNITS),
        ("PAID", 30 * UNITS),
    ]
    hook(page, "recharge-off").click()
    expect(hook(page, "recharge-state")).to_have_attribute("data-state", "OFF")


def photograph_all(page: Page, organization: str, album: Album, name: str) -> None:
    origin = page.evaluate("() => location.origin")
    for width in (360, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        for theme in ("dark", "light"):
            page.context.add_cookies([{"name": THEME_COOKIE, "value": theme, "url": origin}])
            go(page, "console:recharge", organization)
            album.take(page, f"{name}-{theme}-{width}")


def _method_of(tenant_id: UUID) -> str:
    with role_scope("operator"):
        return AutoRecharge.objects.get(tenant_id=tenant_id).payment_method_id
