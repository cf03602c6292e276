"""An operator looks after a payment: pays a part of it back, and has an event of Stripe processed again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from portal.backoffice.tests.people import make_operator
from tests.database import money_of, rows_of
from tests.factories import TenantFixture
from tests.journeys.album import Album
from tests.journeys.backstage import Backstage
from tests.journeys.hooks import assert_speaks, go, hook, nanos
from tests.journeys.operating import fill, open_form, send, sign_in
from tests.journeys.paying import Till, choose_amount, open_till, pay, session_of
from tests.journeys.stages import make_customer
from tests.journeys.visits import LANGUAGES, Visits

UNIT = 10**9
RELOADS = 40
PAUSE_MS = 250


@pytest.fixture(scope="module")
def till(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Till]:
    with open_till(tmp_path_factory.mktemp("till")) as opened:
        yield opened


@pytest.fixture
def visits(till: Till, browser: Browser, artifacts: Path, request: pytest.FixtureRequest) -> Iterator[Visits]:
    """Windows that may also look at the stand-in's pages."""
    opened = Visits(browser, till.web.url)
    opened.complaints.expect(f"another site was asked: {re.escape(till.standin.url)}/")
    yield opened
    opened.photograph(artifacts / "operator-payments-ends", request.node.name)
    opened.close()
    assert not opened.complaints.heard, "\n".join(["the pages complained:", *opened.complaints.heard])


@pytest.mark.timeout(240)
@pytest.mark.parametrize("language", LANGUAGES)
def test_an_operator_refunds_a_part_and_replays_an_event(
    language: str, till: Till, visits: Visits, backstage: Backstage, artifacts: Path
) -> None:
    tenant, _person, session = backstage(make_customer, None, granted=None)
    buyer = visits.open(session=session)
    choose_amount(buyer, tenant.public_id, "20")
    pay(buyer)
    expect(hook(buyer, "balance").locator(f'data[value="{20 * UNIT}"]')).to_be_visible()

    page, album = visits.open(language=language), Album(artifacts / f"journey-operator-payments-{language}")
    sign_in(page, backstage(make_operator))
    _open_the_top_up(page, tenant, album, language)
    _refund(page, tenant, album)
    _replay(page, tenant, backstage(session_of, tenant.id), album)
    go(page, "backoffice:audit")
    actions = hook(page, "audit-event").evaluate_all("rows => rows.map(row => row.dataset.action)")
    assert actions[:2] == ["stripe_event.replay", "refund.order"]


def _open_the_top_up(page: Page, tenant: TenantFixture, album: Album, language: str) -> None:
    """From the overview's figure, through the list."""
    go(page, "backoffice:payments")
    assert_speaks(page, language)
    album.take(page, "overview")
    hook(page, "figure-top-ups-today").first.click()
    rows = hook(page, "top-up-row", state="PAID")
    mine = rows.filter(has=page.locator(f'a[href$="/{tenant.public_id}/"]'))
    expect(mine).to_have_count(1)
    album.take(page, "top-ups")
    mine.locator("th a").click()
    expect(hook(page, "top-up-state")).to_have_attribute("data-state", "PAID")
    expect(hook(page, "payment-transfer", kind="TOP_UP")).to_have_count(1)


def _refund(page: Page, tenant: TenantFixture, album: Album) -> None:
    dialog = open_form(page, "top-up-refund")
    assert nanos(hook(dialog, "refundable")) == 20 * UNIT
    fill(dialog, share="part", amount="7.50", reason="Bought more than was meant")
    album.take(page, "refund", full_page=False)
    send(dialog, "refund-confirm")
    expect(hook(page, "refund-row", state="SUCCEEDED")).to_have_count(1)
    assert nanos(hook(page, "top-up-refunded")) == 7.5 * UNIT
    expect(hook(page, "payment-transfer", kind="REFUND")).to_have_count(1)
    assert money_of(tenant.id).paid == 12.5 * UNIT
    album.take(page, "refunded")


def _replay(page: Page, tenant: TenantFixture, session_id: str, album: Album) -> None:
    """Nothing moves, because all of it was right already."""
    transfers = len(rows_of("quotas_ledgertransfer", tenant_id=tenant.id))
    go(page, "backoffice:stripe-events")
    hook(page, "event-search").fill(session_id)
    hook(page, "event-search").press("Enter")
    event = hook(page, "event-row").first
    expect(event).to_contain_text(session_id)
    event.locator("th a").click()
    expect(hook(page, "event-payload")).to_contain_text(session_id)
    album.take(page, "event")
    dialog = open_form(page, "event-replay")
    fill(dialog, reason="To see that nothing moves")
    send(dialog, "replay-confirm")
    for _ in range(RELOADS):
        if hook(page, "event-state").get_attribute("data-state") == "PROCESSED":
            break
        page.wait_for_timeout(PAUSE_MS)
        page.reload()
    expect(hook(page, "event-state")).to_have_attribute("data-state", "PROCESSED")
    album.take(page, "event-processed")
    assert len(rows_of("quotas_ledgertransfer", tenant_id=tenant.id)) == transfers
    assert money_of(tenant.id).paid == 12.5 * UNIT
