"""Bank transfers, paid credit that was consumed, and invoices for tests."""

from __future__ import annotations

from datetime import date, datetime
from functools import cache
from typing import Any
from uuid import UUID

from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from portal.kit.money import amount_to_decimal_text, parse_amount
from quotas.ledger.queries import wallet_balance
from quotas.payments import bank, bank_references, billing_profiles, invoicing
from quotas.payments.bank_queries import ReceiptRow
from quotas.payments.billing_profiles import ProfileFacts
from quotas.payments.invoice_queries import InvoiceRow, invoiceable
from quotas.tests.doors import admitted, settle
from tenants.models import Role
from tenants.operations import audit
from tenants.scope import role_scope, tenant_scope
from tests.database import connected
from tests.factories import (
    ModelFixture,
    TenantFixture,
    admission_row,
    enable,
    make_model,
    settlement_row,
)
from tests.people import Person, make_member, make_person

TOKEN_NANOS = 10**6
CALL_TOKENS = 30_000
PDF = b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n%%EOF\n"
FACTS = ProfileFacts("Test Ltd.", "DE123456789", "1 Example Street\nExample Town", "")


def operator() -> audit.Actor:
    """An operator of their own."""
    return audit.operator(make_person("operator", is_staff=True).id)


def member(person: Person) -> audit.Actor:
    return audit.member(person.id, Role.OWNER)


def payer(tenant: TenantFixture) -> Person:
    """Somebody in the organization whom money concerns."""
    return make_member(tenant, Role.BILLING)


@cache
def _dear_model(currency: str) -> ModelFixture:
    """A token of its input costs TOKEN_NANOS."""
    return make_model(currency=currency, prices={"input": 10**6 * TOKEN_NANOS, "output": 0})


def consume(tenant: TenantFixture, amount: str) -> None:
    """Usage that costs this much, in whole TOKEN_NANOS; granted credit pays first."""
    tokens, rest_nanos = divmod(parse_amount(amount), TOKEN_NANOS)
    assert not rest_nanos
    model = _dear_model(tenant.currency)
    enable(tenant, model)
    with connected("dataplane") as dataplane:
        while tokens:
            part = min(tokens, CALL_TOKENS)
            row = admission_row(tenant, model, prompt_bound_tokens=part, output_cap_tokens=1)
            admitted(dataplane, row)
            settle(dataplane, settlement_row(row, prompt_tokens=part))
            tokens -= part


def make_reference(tenant: TenantFixture, person: Person) -> str:
    """The organization's transfer reference."""
    with tenant_scope(tenant.id):
        return bank_references.make_reference(tenant_id=tenant.id, actor=member(person), now=utc_now())


def bank_line(
    amount: str = "100.00", *, tax: str = "0", currency: str = "USD", **fields: Any
) -> bank.BankLine:
    """A line of a bank's statement with a name of its own."""
    values: dict[str, Any] = {
        "currency": currency,
        "amount_nanos": parse_amount(amount),
        "tax_nanos": parse_amount(tax),
        "value_date": date(2026, 1, 2),
        "transaction_id": uuid7().hex.upper(),
        "payer_name": "Test Ltd.",
    }
    return bank.BankLine(**(values | fields))


def make_receipt(
    tenant: TenantFixture,
    *,
    amount: str = "100.00",
    tax: str = "0",
    is_approved: bool = False,
    payee: str | None = None,
    recorder: audit.Actor | None = None,
) -> ReceiptRow:
    """Money that came in, recorded by one operator, and perhaps approved by another one."""
    with role_scope("operator"):
        receipt = bank.record_receipt(
            payee=payee or tenant.public_id,
            line=bank_line(amount, tax=tax, currency=tenant.currency),
            reason="for the test",
            actor=recorder or operator(),
            now=utc_now(),
        )
        if is_approved:
            receipt = bank.approve_receipt(receipt_id=receipt.id, actor=operator(), now=utc_now())
    return receipt


def make_profile(
    tenant: TenantFixture, person: Person, *, facts: ProfileFacts = FACTS, is_verified: bool = True
) -> None:
    """Whom invoices are made out to."""
    with tenant_scope(tenant.id):
        billing_profiles.save_profile(tenant_id=tenant.id, facts=facts, actor=member(person), now=utc_now())
    if is_verified:
        with role_scope("operator"):
            billing_profiles.verify_profile(
                tenant_id=tenant.id,
                legal_name=facts.legal_name,
                tax_id=facts.tax_id,
                actor=operator(),
                reason="for the test",
                now=utc_now(),
            )


def make_invoice(
    tenant: TenantFixture, person: Person, *, is_issued: bool = False, to_at: datetime | None = None
) -> InvoiceRow:
    """An invoice over all that can be invoiced. The profile is verified."""
    with tenant_scope(tenant.id):
        invoice = invoicing.request_invoice(
            tenant_id=tenant.id, actor=member(person), now=utc_now(), to_at=to_at
        )
    return issue(invoice.id) if is_issued else invoice


def issue(invoice_id: UUID, *, number: str | None = None) -> InvoiceRow:
    with role_scope("operator"):
        return invoicing.issue_invoice(
            invoice_id=invoice_id,
            number=number or f"R-{uuid7().hex[-12:].upper()}",
            content=PDF,
            actor=operator(),
            now=utc_now(),
        )


def leave_to_invoice(tenant: TenantFixture, amount: str) -> None:
    """So much, in whole cents, can be invoiced then, whatever was paid, used and invoiced before."""
    with tenant_scope(tenant.id):
        room = invoiceable(tenant_id=tenant.id)
        wallet = wallet_balance(tenant_id=tenant.id)
    assert room is not None
    missing_nanos = room.by_stripe_nanos + room.on_request_nanos - room.consumed_nanos
    missing_nanos += parse_amount(amount) + wallet.granted_nanos + wallet.owed_nanos
    missing = amount_to_decimal_text(-(-missing_nanos // TOKEN_NANOS) * TOKEN_NANOS)
    make_receipt(tenant, amount=missing, is_approved=True)
    # A hold has room for what rounding may add.
    make_receipt(tenant, amount="1.00", is_approved=True)
    consume(tenant, missing)


def make_every_bank_row(tenant: TenantFixture, person: Person, *, with_reference: bool) -> dict[str, UUID]:
    """A row in each table of bank transfers and invoices; by the kinds of portal.kit.ids. Something is left
    that can be invoiced."""
    if with_reference:
        make_reference(tenant, person)
    receipt = make_receipt(tenant)
    make_profile(tenant, person)
    leave_to_invoice(tenant, "2.00")
    issued = make_invoice(tenant, person, is_issued=True)
    consume(tenant, "0.20")
    requested = make_invoice(tenant, person)
    consume(tenant, "0.20")
    return {
        "bank_receipt": receipt.id,
        "invoice": requested.id,
        "invoice_document": issued.documents[0].id,
    }
