"""Paying by bank transfer, and the invoice over what was consumed: a member and two operators, end to end."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import FilePayload, Locator, Page, expect

from portal.backoffice.tests.people import make_operator
from tests.database import money_of
from tests.factories import TenantFixture
from tests.factories_bank import PDF, consume
from tests.journeys.album import Album
from tests.journeys.backstage import Backstage
from tests.journeys.hooks import assert_speaks, go, hook, nanos
from tests.journeys.operating import fill, open_form, send, sign_in
from tests.journeys.stages import make_customer
from tests.journeys.visits import LANGUAGES, Visits

UNIT = 10**9


@pytest.mark.timeout(240)
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_transfer_becomes_credit_and_then_an_invoice(
    language: str, visits: Visits, backstage: Backstage, artifacts: Path
) -> None:
    tenant, _person, session = backstage(make_customer, None, granted=None)
    album = Album(artifacts / f"journey-bank-{language}")
    buyer = visits.open(session=session, language=language)
    reference = _reference(buyer, tenant, album, language)
    first, second = visits.open(language=language), visits.open(language=language)
    sign_in(first, backstage(make_operator))
    sign_in(second, backstage(make_operator))
    _record(first, reference, album)
    _approve(second, tenant, album)
    assert backstage(money_of, tenant.id).paid == 50 * UNIT
    backstage(consume, tenant, "12.34")
    _say_who(buyer, tenant)
    _verify(first, tenant)
    _request(buyer, tenant, album)
    _issue(second, tenant, album)
    go(buyer, "console:requested-invoices", tenant.public_id)
    expect(hook(buyer, "invoice-row", state="ISSUED")).to_have_count(1)
    album.take(buyer, "issued")
    with buyer.expect_download() as download:
        hook(buyer, "invoice-document").click()
    assert Path(download.value.path()).read_bytes() == PDF


def _reference(page: Page, tenant: TenantFixture, album: Album, language: str) -> str:
    go(page, "console:bank-transfer", tenant.public_id)
    assert_speaks(page, language)
    hook(page, "bank-reference-make").click()
    expect(hook(page, "bank-details")).to_be_visible()
    album.take(page, "reference")
    return hook(page, "bank-reference").inner_text()


def _record(page: Page, reference: str, album: Album) -> None:
    go(page, "backoffice:bank")
    dialog = open_form(page, "receipt-record")
    fill(
        dialog,
        payee=f"Credit {reference} thanks",
        amount="50.00",
        transaction_id=f"line {reference}",
        payer_name="Buyer Ltd.",
        reason="On today's statement",
    )
    album.take(page, "record", full_page=False)
    send(dialog, "receipt-save")
    expect(hook(page, "receipt-withdraw").first).to_be_visible()


def _approve(page: Page, tenant: TenantFixture, album: Album) -> None:
    go(page, "backoffice:bank")
    row = _row(page, "waiting-receipt", tenant)
    dialog = _open(row, "receipt-approve")
    album.take(page, "approve", full_page=False)
    send(dialog, "receipt-decide")
    expect(row).to_have_count(0)


def _say_who(page: Page, tenant: TenantFixture) -> None:
    go(page, "console:requested-invoices", tenant.public_id)
    hook(page, "profile-edit").click()
    dialog = hook(page, "invoice-dialog")
    fill(dialog, legal_name="Buyer Ltd.", tax_id="DE1", address="1 Example Street")
    hook(dialog, "profile-save").click()
    expect(hook(page, "profile-state", state="UNVERIFIED")).to_be_visible()


def _verify(page: Page, tenant: TenantFixture) -> None:
    go(page, "backoffice:bank-invoices")
    row = hook(page, "waiting-profile", tenant=tenant.public_id)
    dialog = _open(row, "profile-verify")
    fill(dialog, reason="In the register")
    send(dialog, "profile-decide")
    expect(row).to_have_count(0)


def _request(page: Page, tenant: TenantFixture, album: Album) -> None:
    go(page, "console:requested-invoices", tenant.public_id)
    assert nanos(hook(page, "room-amount")) == 12.34 * UNIT
    hook(page, "invoice-request").click()
    dialog = hook(page, "invoice-dialog")
    expect(hook(dialog, "request-send")).to_be_visible()
    album.take(page, "request", full_page=False)
    hook(dialog, "request-send").click()
    expect(hook(page, "invoice-row", state="REQUESTED")).to_have_count(1)
    assert nanos(hook(page, "room-amount")) == 0


def _issue(page: Page, tenant: TenantFixture, album: Album) -> None:
    go(page, "backoffice:bank-invoices")
    dialog = _open(_row(page, "waiting-invoice", tenant), "invoice-issue")
    fill(dialog, number=f"R-{page.evaluate('() => crypto.randomUUID()')}")
    file = FilePayload(name="invoice.pdf", mimeType="application/pdf", buffer=PDF)
    dialog.locator("[name=document]").set_input_files(file)
    album.take(page, "issue", full_page=False)
    send(dialog, "invoice-act")
    expect(hook(page, "invoice", state="ISSUED").first).to_be_visible()


def _row(page: Page, name: str, tenant: TenantFixture) -> Locator:
    """The row of a list that is this organization's."""
    return hook(page, name).filter(has=page.locator(f'a[href$="/{tenant.public_id}/"]'))


def _open(row: Locator, opener: str) -> Locator:
    """The dialog that a button of the row opens."""
    hook(row, opener).click()
    expect(row.page.locator("dialog[open] form[method=post]")).to_be_visible()
    return row.page.locator("dialog[open]")
