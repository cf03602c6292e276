"""Bank transfers and invoices on request, as an organization's members see them."""

from __future__ import annotations

import pytest
from django.test import Client, override_settings

from tenants.models import Role
from tests.database import rows_of
from tests.factories import TenantFixture, make_tenant
from tests.factories_bank import FACTS, PDF, consume, issue, make_invoice, make_profile, make_receipt, payer
from tests.people import Person, make_member, signed_in

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture
def tenant(database: None) -> TenantFixture:
    return make_tenant(granted=None)


@pytest.fixture
def person(tenant: TenantFixture) -> Person:
    return payer(tenant)


@pytest.fixture
def client(person: Person) -> Client:
    return signed_in(person)


def address(tenant: TenantFixture, page: str = "requested-invoices/") -> str:
    return f"/o/{tenant.public_id}/billing/{page}"


def test_a_reference_is_made_when_it_is_asked_for(tenant: TenantFixture, client: Client) -> None:
    page = client.get(address(tenant, "bank-transfer")).content.decode()
    assert "bank-reference-make" in page
    assert "bank-details" not in page
    for _ in range(2):
        answer = client.post(address(tenant, "bank-transfer/reference"))
        assert answer.status_code == 302
    ((reference,),) = [(row["reference"],) for row in rows_of("quotas_bankreference", tenant_id=tenant.id)]
    page = client.get(address(tenant, "bank-transfer")).content.decode()
    assert reference in page
    assert "Example Bank" in page
    assert 'data-copy="#bank-reference"' in page


def test_without_an_account_of_the_currency_no_transfer_is_offered(
    tenant: TenantFixture, client: Client
) -> None:
    with override_settings(BANK_DETAILS={"CNY": (("Bank", "Example"),)}):
        page = client.get(address(tenant, "bank-transfer")).content.decode()
    assert "bank-not-offered" in page
    assert "bank-reference-make" not in page


def test_from_nothing_to_an_invoice(tenant: TenantFixture, person: Person, client: Client) -> None:
    page = client.get(address(tenant)).content.decode()
    assert "profile-empty" in page
    assert "invoices-on-request-empty" in page
    form = {"legal_name": "Test Ltd.", "tax_id": "DE1", "address": "a\r\nb", "bank_details": ""}
    assert client.get(address(tenant, "requested-invoices/profile")).status_code == 200
    refused = client.post(address(tenant, "requested-invoices/profile"), {**form, "tax_id": " "})
    assert refused.status_code == 422
    assert client.post(address(tenant, "requested-invoices/profile"), form).status_code == 302
    page = client.get(address(tenant)).content.decode()
    assert 'data-state="UNVERIFIED"' in page
    make_receipt(tenant, amount="10.00", is_approved=True)
    consume(tenant, "4.00")
    request = address(tenant, "requested-invoices/request")
    dialog = client.get(request, headers={"HX-Request": "true"}).content.decode()
    assert "request-send" not in dialog
    assert client.post(request, {"until": "now"}).status_code == 422
    make_profile(tenant, person, facts=FACTS)
    page = client.get(address(tenant)).content.decode()
    assert "invoice-request" in page
    assert ">$4.00<" in page
    assert b"$4.00" in client.get(request).content
    assert client.post(request, {"until": "month"}).status_code == 422
    assert client.post(request, {"until": "never"}).status_code == 422
    assert client.post(request, {"until": "now"}).status_code == 302
    assert client.post(request, {"until": "now"}).status_code == 422
    (row,) = rows_of("quotas_invoicerequest", tenant_id=tenant.id)
    issued = issue(row["id"], number="R/2026 «1»")
    page = client.get(address(tenant)).content.decode()
    assert "R/2026 «1»" in page
    document = address(tenant, f"requested-invoices/documents/{issued.documents[0].public_id}")
    assert document in page
    answer = client.get(document)
    assert answer.content == PDF
    assert answer["Content-Type"] == "application/pdf"
    assert answer["Content-Disposition"] == 'attachment; filename="R-2026-1.pdf"'
    assert "no-store" in answer["Cache-Control"]


def test_a_profile_that_stays_verified_is_not_said_to_wait(
    tenant: TenantFixture, person: Person, client: Client
) -> None:
    make_profile(tenant, person, facts=FACTS)
    form = {"legal_name": FACTS.legal_name, "tax_id": FACTS.tax_id, "address": "moved", "bank_details": ""}
    page = client.post(address(tenant, "requested-invoices/profile"), form, follow=True).content.decode()
    assert 'data-state="VERIFIED"' in page
    assert "An operator verifies" not in page
    form["legal_name"] = "Renamed Ltd."
    page = client.post(address(tenant, "requested-invoices/profile"), form, follow=True).content.decode()
    assert 'data-state="UNVERIFIED"' in page
    assert "An operator verifies" in page


def test_a_request_is_cancelled_before_it_is_issued(
    tenant: TenantFixture, person: Person, client: Client
) -> None:
    make_receipt(tenant, amount="10.00", is_approved=True)
    make_profile(tenant, person)
    consume(tenant, "4.00")
    first = make_invoice(tenant, person)
    cancel = address(tenant, f"requested-invoices/{first.public_id}/cancel")
    assert b"invoice-cancel-confirm" in client.get(cancel).content
    assert client.post(cancel).status_code == 302
    again = client.post(cancel)
    assert again.status_code == 422
    assert b"invoice-cancel-confirm" not in again.content
    second = make_invoice(tenant, person, is_issued=True)
    assert client.post(address(tenant, f"requested-invoices/{second.public_id}/cancel")).status_code == 422


def test_others_find_nothing(tenant: TenantFixture, person: Person) -> None:
    make_receipt(tenant, amount="10.00", is_approved=True)
    make_profile(tenant, person)
    consume(tenant, "4.00")
    issued = make_invoice(tenant, person, is_issued=True)
    mine = make_tenant(granted=None)
    stranger = signed_in(payer(mine))
    for page in (
        f"requested-invoices/documents/{issued.documents[0].public_id}",
        f"requested-invoices/{issued.public_id}/cancel",
    ):
        for organization in (tenant, mine):
            assert stranger.get(address(organization, page)).status_code == 404
    viewer = signed_in(make_member(tenant, Role.VIEWER))
    for page in ("requested-invoices/", "bank-transfer"):
        assert viewer.get(address(tenant, page)).status_code == 403
