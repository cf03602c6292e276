"""Bank transfers, profiles and invoices in operators' pages: the second operator is another one."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from portal.backoffice.tests.people import Operator, make_operator, signed_in_operator
from portal.kit.ids import uuid7
from quotas.models import MAX_DOCUMENT_BYTES
from tests.database import money_of, rows_of
from tests.factories import TenantFixture, make_tenant
from tests.factories_bank import (
    FACTS,
    PDF,
    consume,
    make_invoice,
    make_profile,
    make_receipt,
    make_reference,
    payer,
)
from tests.people import Person

pytestmark = pytest.mark.usefixtures("database")
UNIT = 10**9


@pytest.fixture
def tenant(database: None) -> TenantFixture:
    return make_tenant(granted=None)


@pytest.fixture
def person(tenant: TenantFixture) -> Person:
    return payer(tenant)


@pytest.fixture
def first(database: None) -> Operator:
    return make_operator()


@pytest.fixture
def client(first: Operator) -> Client:
    return signed_in_operator(first)


def line(payee: str, **fields: str) -> dict[str, str]:
    return {
        "payee": payee,
        "amount": "119.00",
        "currency": "USD",
        "tax": "19.00",
        "value_date": "2026-01-02",
        "transaction_id": uuid7().hex,
        "payer_name": "Test Ltd.",
        "reason": "On the statement of today",
    } | fields


def pdf(content: bytes = PDF) -> SimpleUploadedFile:
    return SimpleUploadedFile("invoice.pdf", content, content_type="application/pdf")


def test_a_transfer_takes_two_operators(
    tenant: TenantFixture, person: Person, first: Operator, client: Client
) -> None:
    reference = make_reference(tenant, person)
    assert client.get("/operator/bank/record").status_code == 200
    form = line(f"purpose: {reference.lower()}")
    assert client.post("/operator/bank/record", form).status_code == 302
    (row,) = rows_of("quotas_bankreceipt", tenant_id=tenant.id)
    page = client.get("/operator/bank/")
    assert page.status_code == 200
    (receipt,) = [one for one, *_ in page.context["waiting"] if one.tenant_id == tenant.id]
    here = f"/operator/bank/receipts/{receipt.public_id}"
    text = page.content.decode()
    assert f"{here}/withdraw" in text
    assert f"{here}/approve" not in text
    by_address = client.get(f"{here}/approve").content.decode()
    assert "receipt-decide" not in by_address
    assert client.post(f"{here}/approve", {"reason": ""}).status_code == 403
    (refused,) = rows_of("tenants_auditevent", actor_id=first.person.id, outcome="REFUSED")
    assert (refused["action"], refused["target"]) == ("bank.approve", receipt.public_id)
    assert money_of(tenant.id).paid == 0
    second = signed_in_operator(make_operator())
    assert f"{here}/approve" in second.get("/operator/bank/").content.decode()
    assert second.get(f"{here}/approve").status_code == 200
    assert second.post(f"{here}/approve", {"reason": "seen"}).status_code == 302
    assert money_of(tenant.id).paid == 100 * UNIT
    assert second.post(f"{here}/approve", {"reason": ""}).status_code == 422
    assert second.post(f"{here}/withdraw", {"reason": ""}).status_code == 422
    again = client.post("/operator/bank/record", form | {"transaction_id": row["bank_transaction_id"]})
    assert again.status_code == 422
    assert receipt.public_id in again.content.decode()
    assert receipt.public_id in second.get("/operator/bank/").content.decode()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("payee", "nobody"),
        ("amount", "1,5"),
        ("amount", "-1"),
        ("amount", "19"),
        ("tax", "x"),
        ("currency", "CNY"),
        ("currency", "EUR"),
        ("value_date", "tomorrow"),
        ("value_date", "2099-01-01"),
        ("transaction_id", ""),
        ("payer_name", ""),
        ("reason", "x"),
    ],
)
def test_what_cannot_be_right_is_said_beside_the_field(
    field: str, value: str, tenant: TenantFixture, client: Client
) -> None:
    answer = client.post("/operator/bank/record", line(tenant.public_id) | {field: value})
    assert answer.status_code == 422
    errors = answer.context["form"].errors
    assert field in errors or "__all__" in errors
    assert rows_of("quotas_bankreceipt", tenant_id=tenant.id) == []


def test_refusing_and_withdrawing(tenant: TenantFixture, client: Client) -> None:
    receipt = make_receipt(tenant)
    here = f"/operator/bank/receipts/{receipt.public_id}"
    assert client.post(f"{here}/withdraw", {"reason": ""}).status_code == 403
    assert client.post(f"{here}/refuse", {"reason": ""}).status_code == 422
    assert client.post(f"{here}/refuse", {"reason": "Not ours"}).status_code == 302
    client.post("/operator/bank/record", line(tenant.public_id))
    own = [row for row in rows_of("quotas_bankreceipt", tenant_id=tenant.id) if row["state"] == "WAITING"]
    (waiting,) = [
        one for one, *_ in client.get("/operator/bank/").context["waiting"] if one.id == own[0]["id"]
    ]
    answer = client.post(f"/operator/bank/receipts/{waiting.public_id}/withdraw", {"reason": ""})
    assert answer.status_code == 302
    assert money_of(tenant.id).paid == 0
    for stray in ("nothing", "brc_00000000000000000000000000"):
        assert client.get(f"/operator/bank/receipts/{stray}/approve").status_code == 404


def test_a_profile_is_verified_as_it_was_seen(tenant: TenantFixture, person: Person, client: Client) -> None:
    here = f"/operator/bank/profiles/{tenant.public_id}"
    assert client.get(f"{here}/verify").status_code == 404
    make_profile(tenant, person, is_verified=False)
    assert here in client.get("/operator/bank/invoices/").content.decode()
    seen = {"legal_name": FACTS.legal_name, "tax_id": FACTS.tax_id, "reason": "In the register"}
    stale = client.post(f"{here}/verify", seen | {"legal_name": "Another"})
    assert stale.status_code == 422
    assert b"profile-changed" in stale.content
    assert client.post(f"{here}/verify", seen | {"reason": ""}).status_code == 422
    assert client.post(f"{here}/verify", seen).status_code == 302
    (row,) = rows_of("quotas_billingprofile", tenant_id=tenant.id)
    assert row["state"] == "VERIFIED"
    assert client.post(f"{here}/refuse", seen | {"reason": "It was closed"}).status_code == 302
    assert rows_of("quotas_billingprofile", tenant_id=tenant.id)[0]["state"] == "REFUSED"


def requested(tenant: TenantFixture, person: Person) -> str:
    make_receipt(tenant, amount="10.00", is_approved=True)
    make_profile(tenant, person)
    consume(tenant, "4.00")
    return make_invoice(tenant, person).public_id


def test_an_invoice_gets_its_number_and_document(
    tenant: TenantFixture, person: Person, client: Client
) -> None:
    invoice = requested(tenant, person)
    here = f"/operator/bank/invoices/{invoice}"
    assert f"{here}/issue" in client.get("/operator/bank/invoices/").content.decode()
    assert b"multipart/form-data" in client.get(f"{here}/issue").content
    number = f"R-{uuid7().hex}"
    wrong: list[dict[str, Any]] = [
        {"number": "", "document": pdf()},
        {"number": number},
        {"number": number, "document": pdf(b"GIF89a")},
        {"number": number, "document": pdf(PDF[:-6])},
        {"number": number, "document": pdf(PDF + bytes(MAX_DOCUMENT_BYTES))},
    ]
    for form in wrong:
        assert client.post(f"{here}/issue", form).status_code == 422, form
    assert client.post(f"{here}/issue", {"number": number, "document": pdf()}).status_code == 302
    assert client.post(f"{here}/issue", {"number": "other", "document": pdf()}).status_code == 422
    assert client.post(f"{here}/refuse", {"reason": "too late"}).status_code == 422
    page = client.get("/operator/bank/invoices/").content.decode()
    assert number in page
    (document,) = rows_of("quotas_invoicedocument", tenant_id=tenant.id)
    assert bytes(document["content"]) == PDF
    (shown,) = [
        row for row, *_ in client.get("/operator/bank/invoices/").context["invoices"] if row.number == number
    ]
    answer = client.get(f"/operator/bank/documents/{shown.documents[0].public_id}")
    assert answer.content == PDF
    assert b"invoice-not-possible" in client.get(f"{here}/refuse").content
    form = {"number": f"C-{number}", "document": pdf(), "reason": "The wrong name"}
    assert client.post(f"{here}/credit", form | {"reason": ""}).status_code == 422
    form["document"] = pdf()
    assert client.post(f"{here}/credit", form).status_code == 302
    assert rows_of("quotas_invoicerequest", tenant_id=tenant.id)[0]["state"] == "CREDITED"


def test_a_request_is_refused_with_a_reason(tenant: TenantFixture, person: Person, client: Client) -> None:
    here = f"/operator/bank/invoices/{requested(tenant, person)}"
    assert client.post(f"{here}/refuse", {"reason": ""}).status_code == 422
    assert client.post(f"{here}/credit", {"reason": "no"}).status_code == 422
    assert client.post(f"{here}/refuse", {"reason": "Ask again in May"}).status_code == 302
    mails = rows_of("tenants_outboxmessage", role="dataplane", tenant_id=tenant.id)
    assert any("Ask again in May" in mail["text_body"] for mail in mails)
    for stray in ("nothing", "ivc_00000000000000000000000000"):
        for verb in ("issue", "refuse", "credit"):
            assert client.get(f"/operator/bank/invoices/{stray}/{verb}").status_code == 404
    assert client.get("/operator/bank/documents/doc_00000000000000000000000000").status_code == 404
