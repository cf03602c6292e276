"""Invoices on request: verified names, whole documents, and no money twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from django.db import connections
from django.test import override_settings

from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from quotas.models import MAX_DOCUMENT_BYTES, OperationKind, RefundState
from quotas.payments import billing_profiles, invoicing
from quotas.payments.billing_profiles import ProfileFacts
from quotas.payments.invoice_adapter import MadeInvoice, issue_by_adapter
from quotas.payments.invoice_queries import (
    Invoiceable,
    InvoiceRow,
    find_document,
    find_invoice,
    invoiceable,
    list_invoices,
    waiting_invoices,
)
from tenants.operations import audit
from tenants.scope import role_scope, tenant_scope
from tests.database import connected, rows_of
from tests.factories import TenantFixture, add_granted, make_tenant
from tests.factories_bank import (
    FACTS,
    PDF,
    consume,
    issue,
    make_invoice,
    make_profile,
    make_receipt,
    member,
    operator,
    payer,
)
from tests.factories_payments import make_dispute, make_operation, make_refund, make_top_up
from tests.isolation.test_walls import execute_as
from tests.people import Person

pytestmark = pytest.mark.usefixtures("database")
UNIT = 10**9


@pytest.fixture
def tenant(database: None) -> TenantFixture:
    return make_tenant(granted=None)


@pytest.fixture
def person(tenant: TenantFixture) -> Person:
    return payer(tenant)


def room(tenant: TenantFixture, to_at: datetime | None = None) -> Invoiceable:
    with tenant_scope(tenant.id):
        found = invoiceable(tenant_id=tenant.id, to_at=to_at)
    assert found is not None
    return found


def profile_state(tenant: TenantFixture) -> str:
    with tenant_scope(tenant.id):
        found = billing_profiles.profile_of(tenant_id=tenant.id)
    return str(found.state) if found else ""


# --- Whom they are made out to ----------------------------------------------------------------------


def test_a_profile_is_verified_until_its_names_change(tenant: TenantFixture, person: Person) -> None:
    assert profile_state(tenant) == ""
    make_profile(tenant, person, is_verified=False)
    assert profile_state(tenant) == "UNVERIFIED"
    with role_scope("operator"):
        assert tenant.id in [row.tenant_id for row in billing_profiles.waiting_profiles()]
        with pytest.raises(billing_profiles.ProfileChanged):
            billing_profiles.verify_profile(
                tenant_id=tenant.id,
                legal_name="Another Ltd.",
                tax_id=FACTS.tax_id,
                actor=operator(),
                reason="for the test",
                now=utc_now(),
            )
    make_profile(tenant, person)
    assert profile_state(tenant) == "VERIFIED"
    make_profile(tenant, person, facts=replace(FACTS, address="2 Example Street"), is_verified=False)
    assert profile_state(tenant) == "VERIFIED"
    for changed in (replace(FACTS, legal_name="Another Ltd."), replace(FACTS, tax_id="DE1")):
        make_profile(tenant, person, facts=changed, is_verified=False)
        assert profile_state(tenant) == "UNVERIFIED"
        make_profile(tenant, person)


def test_a_profile_that_is_sent_twice_at_once_is_saved_once(tenant: TenantFixture, person: Person) -> None:
    def save(_number: int) -> str:
        try:
            with tenant_scope(tenant.id):
                return billing_profiles.save_profile(
                    tenant_id=tenant.id, facts=FACTS, actor=member(person), now=utc_now()
                )
        finally:
            connections.close_all()

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(save, range(6))) == {"UNVERIFIED"}
    assert len(rows_of("tenants_auditevent", tenant_id=tenant.id, action="billing.profile")) == 1


def test_the_database_takes_a_verification_away_itself(tenant: TenantFixture, person: Person) -> None:
    make_profile(tenant, person)
    with connected("tenant") as connection, connection.transaction():
        connection.execute("SELECT set_config('app.tenant_id', %s, true)", (str(tenant.id),))
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
            connection.execute("UPDATE quotas_billingprofile SET state = 'VERIFIED'")
        connection.execute("UPDATE quotas_billingprofile SET tax_id = 'X'")
    (row,) = rows_of("quotas_billingprofile", tenant_id=tenant.id)
    assert (row["state"], row["decided_by_id"], row["decided_at"]) == ("UNVERIFIED", None, None)


def test_a_refused_profile_waits_again_when_it_is_corrected(tenant: TenantFixture, person: Person) -> None:
    make_profile(tenant, person)
    why: dict[str, Any] = {"legal_name": FACTS.legal_name, "tax_id": FACTS.tax_id, "now": utc_now()}
    with role_scope("operator"):
        billing_profiles.refuse_profile(
            tenant_id=tenant.id, actor=operator(), reason="The address is missing", **why
        )
    assert profile_state(tenant) == "REFUSED"
    mails = rows_of("tenants_outboxmessage", role="dataplane", tenant_id=tenant.id)
    assert any("The address is missing" in mail["text_body"] for mail in mails)
    make_profile(tenant, person, facts=replace(FACTS, address="there"), is_verified=False)
    assert profile_state(tenant) == "UNVERIFIED"


@pytest.mark.parametrize(
    "facts",
    [
        ProfileFacts("", "1"),
        ProfileFacts("A", " "),
        ProfileFacts("A" * 201, "1"),
        ProfileFacts("A", "1" * 65),
        ProfileFacts("A", "1", "x" * 501),
        ProfileFacts("A\x00", "1"),
        ProfileFacts("A\u202e", "1"),
    ],
)
def test_what_cannot_stand_on_an_invoice_is_refused(
    facts: ProfileFacts, tenant: TenantFixture, person: Person
) -> None:
    with tenant_scope(tenant.id), pytest.raises(billing_profiles.InvalidProfile):
        billing_profiles.save_profile(tenant_id=tenant.id, facts=facts, actor=member(person), now=utc_now())


# --- What can be invoiced ---------------------------------------------------------------------------


def test_only_paid_credit_that_was_consumed_is_invoiced(tenant: TenantFixture, person: Person) -> None:
    assert room(tenant).amount_nanos == 0
    make_receipt(tenant, amount="119.00", tax="19.00", is_approved=True)
    add_granted(tenant.id, 2 * UNIT)
    assert room(tenant).amount_nanos == 0
    consume(tenant, "5.005")
    assert room(tenant).consumed_nanos == 3_005_000_000
    assert room(tenant).amount_nanos == 3 * UNIT
    with tenant_scope(tenant.id), pytest.raises(invoicing.ProfileNotVerified):
        invoicing.request_invoice(tenant_id=tenant.id, actor=member(person), now=utc_now())
    make_profile(tenant, person)
    invoice = make_invoice(tenant, person)
    assert (invoice.amount_nanos, invoice.profile) == (3 * UNIT, FACTS)
    assert [line.amount_nanos for line in invoice.lines] == [3 * UNIT]
    assert invoice.lines[0].month == utc_now().date().replace(day=1)
    with tenant_scope(tenant.id), pytest.raises(invoicing.NothingToInvoice):
        invoicing.request_invoice(tenant_id=tenant.id, actor=member(person), now=utc_now())
    # The half cent waits for its other half.
    consume(tenant, "0.005")
    assert room(tenant).amount_nanos == 10**7


def test_what_stripe_invoices_is_not_invoiced_again(tenant: TenantFixture, person: Person) -> None:
    asked = make_top_up(tenant, amount="20.00")
    # Asked for with the payment: Stripe may send it later than we read it.
    make_operation(
        tenant,
        kind=OperationKind.CHECKOUT,
        subject_id=asked,
        parameters={"mode": "payment", "invoice_creation": {"enabled": True}},
    )
    make_receipt(tenant, amount="20.00", is_approved=True)
    consume(tenant, "15.00")
    assert (room(tenant).by_stripe_nanos, room(tenant).amount_nanos) == (20 * UNIT, 0)
    consume(tenant, "15.00")
    assert room(tenant).amount_nanos == 10 * UNIT
    make_top_up(tenant, amount="5.00", invoice_url="https://invoice.example/1")
    assert (room(tenant).by_stripe_nanos, room(tenant).amount_nanos) == (25 * UNIT, 5 * UNIT)
    make_top_up(tenant, amount="5.00")
    assert room(tenant).by_stripe_nanos == 25 * UNIT


def test_a_refund_that_arrived_takes_a_stripe_invoice_back(tenant: TenantFixture) -> None:
    top_up = make_top_up(tenant, amount="20.00", invoice_url="https://invoice.example/1")
    make_refund(top_up, amount="5.00", state=RefundState.PENDING)
    make_refund(top_up, amount="5.00", state=RefundState.FAILED)
    assert room(tenant).by_stripe_nanos == 20 * UNIT
    make_refund(top_up, amount="5.00", state=RefundState.SUCCEEDED)
    assert room(tenant).by_stripe_nanos == 15 * UNIT


def test_what_is_owed_or_spent_from_a_credit_line_is_not_invoiced(
    tenant: TenantFixture, person: Person
) -> None:
    with connected("owner") as owner:
        owner.execute("UPDATE quotas_wallet SET overdraft_nanos = %s WHERE tenant_id = %s", (UNIT, tenant.id))
    make_receipt(tenant, amount="2.00", is_approved=True)
    consume(tenant, "2.50")
    assert room(tenant).amount_nanos == 2 * UNIT
    make_receipt(tenant, amount="1.00", is_approved=True)
    assert room(tenant).amount_nanos == 2_500_000_000
    top_up = make_top_up(tenant, amount="1.00")
    consume(tenant, "1.50")
    assert room(tenant).amount_nanos == 4 * UNIT
    make_dispute(top_up, amount="1.00", status="lost")
    assert room(tenant).amount_nanos == 3 * UNIT
    make_receipt(tenant, amount="1.00", is_approved=True)
    assert room(tenant).amount_nanos == 4 * UNIT


def test_an_invoice_may_end_with_a_month(tenant: TenantFixture, person: Person) -> None:
    make_receipt(tenant, amount="100.00", is_approved=True)
    consume(tenant, "3.00")
    this_month = utc_now().astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    assert room(tenant, this_month).amount_nanos == 0
    later = utc_now() + timedelta(seconds=1)
    assert room(tenant, later).amount_nanos == 3 * UNIT
    make_profile(tenant, person)
    with pytest.raises(invoicing.NothingToInvoice):
        make_invoice(tenant, person, to_at=this_month)


def test_of_many_requests_at_once_one_covers_it(tenant: TenantFixture, person: Person) -> None:
    make_receipt(tenant, amount="10.00", is_approved=True)
    consume(tenant, "4.00")
    make_profile(tenant, person)

    def attempt(_: int) -> int:
        try:
            return make_invoice(tenant, person).amount_nanos
        except invoicing.NothingToInvoice:
            return 0
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(attempt, range(8))) == [0] * 7 + [4 * UNIT]


# --- Issuing ----------------------------------------------------------------------------------------


@pytest.fixture
def requested(tenant: TenantFixture, person: Person) -> InvoiceRow:
    make_receipt(tenant, amount="10.00", is_approved=True)
    consume(tenant, "4.00")
    make_profile(tenant, person)
    return make_invoice(tenant, person)


def test_an_operator_attaches_number_and_document(
    tenant: TenantFixture, person: Person, requested: InvoiceRow
) -> None:
    number = f"R-{uuid7().hex}"
    issued = issue(requested.id, number=f"  {number} ")
    assert (issued.state, issued.number) == ("ISSUED", number)
    (document,) = issued.documents
    with tenant_scope(tenant.id):
        found = find_document(document_id=document.id)
        assert found is not None
        assert (found.number, found.content) == (number, PDF)
        assert [row.id for row in list_invoices(tenant_id=tenant.id).rows] == [requested.id]
    with tenant_scope(make_tenant(granted=None).id):
        assert find_document(document_id=document.id) is None
        assert find_invoice(invoice_id=requested.id) is None
    mails = rows_of("tenants_outboxmessage", role="dataplane", tenant_id=tenant.id)
    assert any(number in mail["text_body"] for mail in mails)
    with pytest.raises(invoicing.InvoiceDecided):
        issue(requested.id)
    consume(tenant, "1.00")
    another = make_invoice(tenant, person)
    with pytest.raises(invoicing.NumberTaken):
        issue(another.id, number=number)
    assert rows_of("quotas_invoicedocument", invoice_id=another.id) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"%PDF-1.7",
        b"GIF89a %%EOF",
        b"<html>%PDF-1.7 %%EOF",
        b"%PDF-1.7" + bytes(2000),
        b"%PDF-1.7" + bytes(MAX_DOCUMENT_BYTES) + b"%%EOF",
    ],
    ids=["empty", "cut", "gif", "html", "no end", "too long"],
)
def test_what_is_no_pdf_is_not_stored(content: bytes, requested: InvoiceRow) -> None:
    with role_scope("operator"), pytest.raises(invoicing.InvalidDocument):
        invoicing.issue_invoice(
            invoice_id=requested.id, number="1", content=content, actor=operator(), now=utc_now()
        )


def test_refusing_cancelling_and_crediting_free_the_amount(
    tenant: TenantFixture, person: Person, requested: InvoiceRow
) -> None:
    assert room(tenant).amount_nanos == 0
    with role_scope("operator"):
        assert requested.id in [row.id for row in waiting_invoices()]
        invoicing.refuse_invoice(
            invoice_id=requested.id, actor=operator(), reason="Not this month", now=utc_now()
        )
    assert room(tenant).amount_nanos == 4 * UNIT
    second = make_invoice(tenant, person)
    with tenant_scope(tenant.id):
        cancelled = invoicing.cancel_invoice(
            tenant_id=tenant.id, invoice_id=second.id, actor=member(person), now=utc_now()
        )
        assert cancelled.state == "CANCELLED"
        for gone in (second.id, requested.id):
            with pytest.raises(invoicing.InvoiceDecided):
                invoicing.cancel_invoice(
                    tenant_id=tenant.id, invoice_id=gone, actor=member(person), now=utc_now()
                )
        with pytest.raises(invoicing.InvoiceNotFound):
            invoicing.cancel_invoice(
                tenant_id=tenant.id, invoice_id=uuid7(), actor=member(person), now=utc_now()
            )
    third = make_invoice(tenant, person, is_issued=True)
    assert room(tenant).amount_nanos == 0
    with role_scope("operator"):
        credited = invoicing.credit_invoice(
            invoice_id=third.id,
            number=f"C-{uuid7().hex}",
            content=PDF,
            actor=operator(),
            reason="The wrong address",
            now=utc_now(),
        )
    assert [document.kind for document in credited.documents] == ["INVOICE", "CREDIT_NOTE"]
    assert room(tenant).amount_nanos == 4 * UNIT
    actions = {event["action"] for event in rows_of("tenants_auditevent", tenant_id=tenant.id)}
    assert {f"invoice.{verb}" for verb in ("request", "refuse", "cancel", "issue", "credit")} <= actions


# --- What the database itself refuses ---------------------------------------------------------------


def test_no_statement_invoices_more_than_was_consumed(
    tenant: TenantFixture, person: Person, requested: InvoiceRow
) -> None:
    insert = (
        "INSERT INTO quotas_invoicerequest (id, tenant_id, currency, amount_nanos, to_at, legal_name, "
        "tax_id, address, bank_details, requested_by_id, requested_at, state, decision_reason, "
        "credit_reason) VALUES (%s, %s, 'USD', %s, now(), %s, %s, '', '', %s, now(), 'REQUESTED', '', '')"
    )
    names = (FACTS.legal_name, FACTS.tax_id, person.id)

    def add(connection: psycopg.Connection[Any], amount: int, *values: object) -> None:
        connection.execute("SELECT set_config('app.tenant_id', %s, true)", (str(tenant.id),))
        connection.execute(insert, (uuid7(), tenant.id, amount, *values))

    consume(tenant, "1.00")
    with connected("tenant") as connection:
        for amount, values, constraint in (
            (UNIT + 10**7, names, "invoicerequest_within_consumption"),
            (UNIT, ("Another Ltd.", FACTS.tax_id, person.id), "invoicerequest_profile_verified"),
            (UNIT - 1, names, "invoicerequest_minor_units"),
            (UNIT, names, "invoicerequest_is_its_lines"),
        ):
            with (
                pytest.raises(psycopg.errors.CheckViolation) as raised,
                connection.transaction(),
            ):
                add(connection, amount, *values)
            assert raised.value.diag.constraint_name == constraint
        issued = "UPDATE quotas_invoicerequest SET state = 'ISSUED'"
        with pytest.raises(psycopg.errors.CheckViolation):
            execute_as(connection, tenant.id, issued)
        for change in ("number = '1'", "amount_nanos = 1", "decided_at = now()"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                connection.execute(f"UPDATE quotas_invoicerequest SET {change}")


def test_an_issued_invoice_has_a_document_and_stays(requested: InvoiceRow) -> None:
    with connected("operator") as connection:
        with pytest.raises(psycopg.errors.CheckViolation) as raised:
            connection.execute(
                "UPDATE quotas_invoicerequest SET state = 'ISSUED', number = 'x1', decided_at = now() "
                "WHERE id = %s",
                (requested.id,),
            )
        assert raised.value.diag.constraint_name == "invoicerequest_has_document"
        issue(requested.id)
        for change in ("state = 'REQUESTED'", "number = 'x2'", "state = 'REFUSED'"):
            with pytest.raises(psycopg.errors.RestrictViolation):
                connection.execute(
                    f"UPDATE quotas_invoicerequest SET {change} WHERE id = %s", (requested.id,)
                )
    with connected("owner") as owner, pytest.raises(psycopg.errors.RestrictViolation):
        owner.execute("DELETE FROM quotas_invoicedocument WHERE invoice_id = %s", (requested.id,))


# --- An adapter --------------------------------------------------------------------------------------


class Adapter:
    """Makes what it is told to, once it is there."""

    made: dict[str, MadeInvoice] = {}

    def make(self, invoice: InvoiceRow) -> MadeInvoice | None:
        if self.made.get(invoice.public_id) is None:
            return None
        return self.made[invoice.public_id]


def test_an_adapter_issues_what_is_ready_and_fails_alone(
    tenant: TenantFixture, person: Person, requested: InvoiceRow
) -> None:
    with role_scope("operator"):
        assert issue_by_adapter(now=utc_now()).issued == 0
        with override_settings(INVOICE_ADAPTER=f"{__name__}.Adapter"):
            before = issue_by_adapter(now=utc_now())
            assert (before.issued, before.failed) == (0, 0)
            assert before.waiting >= 1
            Adapter.made[requested.public_id] = MadeInvoice("", PDF)
            assert issue_by_adapter(now=utc_now()).failed == 1
            Adapter.made[requested.public_id] = MadeInvoice(f"A-{uuid7().hex}", PDF)
            assert issue_by_adapter(now=utc_now()).issued == 1
            assert issue_by_adapter(now=utc_now()).issued == 0
        found = find_invoice(invoice_id=requested.id)
    assert found is not None
    assert found.is_issued
    events = rows_of("tenants_auditevent", tenant_id=tenant.id, action="invoice.issue")
    assert [event["actor_kind"] for event in events] == [audit.SYSTEM.kind]
