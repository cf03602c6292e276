"""Bank transfers: two operators, one credit, one line of the bank's statement once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.db import connections

from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from quotas.models import AccountKind
from quotas.payments import bank, bank_queries
from tenants.models import TenantState
from tenants.operations import audit
from tenants.scope import role_scope, tenant_scope
from tests.database import connected, money_of, rows_of
from tests.factories import TenantFixture, make_tenant
from tests.factories_bank import bank_line, make_receipt, make_reference, operator, payer
from tests.factories_payments import make_dispute, make_top_up
from tests.people import make_person

pytestmark = pytest.mark.usefixtures("database")
UNIT = 10**9


@pytest.fixture
def tenant(database: None) -> TenantFixture:
    return make_tenant(granted=None)


def approve(receipt_id: UUID, actor: audit.Actor | None = None) -> bank_queries.ReceiptRow:
    with role_scope("operator"):
        return bank.approve_receipt(receipt_id=receipt_id, actor=actor or operator(), now=utc_now())


def test_a_transfer_is_credited_by_two_operators(tenant: TenantFixture) -> None:
    person = payer(tenant)
    reference = make_reference(tenant, person)
    first = operator()
    remittance = f"INV 2026 ref. {reference.lower().replace('-', ' ')} thank you"
    receipt = make_receipt(tenant, amount="119.00", tax="19.00", payee=remittance, recorder=first)
    assert receipt.reference == reference
    assert money_of(tenant.id).paid == 0
    with pytest.raises(bank.OwnReceipt):
        approve(receipt.id, first)
    approved = approve(receipt.id)
    assert approved.state == "APPROVED"
    assert money_of(tenant.id).paid == 100 * UNIT
    (top_up,) = rows_of("quotas_topup", tenant_id=tenant.id)
    assert (top_up["id"], top_up["source"], top_up["state"]) == (receipt.id, "BANK", "PAID")
    assert (top_up["gross_nanos"], top_up["tax_nanos"]) == (119 * UNIT, 19 * UNIT)
    entries = rows_of("quotas_ledgerentry", transfer_id=top_up["transfer_id"])
    kinds = {
        row["kind"]: entry["amount_nanos"]
        for entry in entries
        for row in rows_of("quotas_ledgeraccount", id=entry["account_id"])
    }
    assert kinds == {
        AccountKind.CASH_CLEARING: -119 * UNIT,
        AccountKind.TAX_PAYABLE: 19 * UNIT,
        AccountKind.TOPPED_UP: 100 * UNIT,
    }
    (mail,) = rows_of("tenants_outboxmessage", role="dataplane", tenant_id=tenant.id)
    assert mail["to_email"] == person.email
    assert "$119.00" in mail["text_body"]
    actions = [event["action"] for event in rows_of("tenants_auditevent", tenant_id=tenant.id)]
    assert sorted(actions) == ["bank.approve", "bank.record", "bank.reference"]


def test_of_many_approvals_at_once_one_credits(tenant: TenantFixture) -> None:
    receipt = make_receipt(tenant)
    actors = [operator() for _ in range(8)]

    def attempt(actor: audit.Actor) -> bool:
        try:
            approve(receipt.id, actor)
        except bank.ReceiptDecided:
            return False
        finally:
            connections.close_all()
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, actors)) == 1
    assert money_of(tenant.id).paid == 100 * UNIT


def test_a_line_of_the_bank_is_recorded_once(tenant: TenantFixture) -> None:
    other = make_tenant(granted=None)
    line = bank_line(transaction_id="abc 123-" + uuid7().hex)
    why: dict[str, Any] = {"reason": "for the test", "now": utc_now()}
    recorder = operator()
    with role_scope("operator"):
        first = bank.record_receipt(payee=tenant.public_id, line=line, actor=recorder, **why)
        spelled = bank_line(transaction_id=line.transaction_id.replace(" ", "").upper())
        for payee in (tenant, other):
            with pytest.raises(bank.AlreadyRecorded) as raised:
                bank.record_receipt(payee=payee.public_id, line=spelled, actor=operator(), **why)
            assert raised.value.receipt_id == first.id
        # The same words in another currency are another line.
        yuan = make_tenant("CNY", granted=None)
        bank.record_receipt(
            payee=yuan.public_id,
            line=bank_line(transaction_id=line.transaction_id, currency="CNY"),
            actor=operator(),
            **why,
        )
        # What was withdrawn or refused does not count.
        bank.withdraw_receipt(receipt_id=first.id, actor=recorder, now=utc_now())
        again = bank.record_receipt(payee=other.public_id, line=line, actor=operator(), **why)
        bank.refuse_receipt(receipt_id=again.id, actor=operator(), reason="a mistake", now=utc_now())
        last = bank.record_receipt(payee=other.public_id, line=line, actor=operator(), **why)
    approve(last.id)
    assert (money_of(tenant.id).paid, money_of(other.id).paid) == (0, 100 * UNIT)


@pytest.mark.parametrize("sign", ["\u200b", "\ufeff", "\u00ad", "\u2060", "\u202e", "\u180e"])
def test_signs_that_nobody_sees_make_no_other_line(tenant: TenantFixture, sign: str) -> None:
    """Copied from a bank's page, or typed with a full-width keyboard, it is the same line."""
    name = uuid7().hex.upper()
    wide = "".join(chr(ord(one) + 0xFEE0) for one in name)
    why: dict[str, Any] = {"reason": "for the test", "now": utc_now()}
    with role_scope("operator"):
        first = bank.record_receipt(
            payee=tenant.public_id, line=bank_line(transaction_id=name), actor=operator(), **why
        )
        for spelled in (f"{name}{sign}", f"{sign}{name[:3]}{sign}{name[3:]}", wide):
            with pytest.raises(bank.AlreadyRecorded) as raised:
                bank.record_receipt(
                    payee=tenant.public_id, line=bank_line(transaction_id=spelled), actor=operator(), **why
                )
            assert raised.value.receipt_id == first.id


def test_what_is_no_receipt_is_not_recorded(tenant: TenantFixture) -> None:
    now = utc_now()
    reference, theirs = (make_reference(one, payer(one)) for one in (tenant, make_tenant(granted=None)))
    with role_scope("operator"):
        for payee in ("", "nothing", "SL22-2222-00", "org_" + "0" * 26, f"{reference} or {theirs}"):
            with pytest.raises(bank.PayerUnknown):
                bank.record_receipt(
                    payee=payee, line=bank_line(), reason="for the test", actor=operator(), now=now
                )
        with pytest.raises(bank.WrongCurrency) as raised:
            bank.record_receipt(
                payee=reference,
                line=bank_line(currency="CNY"),
                reason="for the test",
                actor=operator(),
                now=now,
            )
        assert raised.value.currency == "USD"
        for line in (
            bank_line("0"),
            bank_line("-1"),
            bank_line("1", tax="1"),
            bank_line("1", tax="-1"),
            bank_line("1000001"),
            bank_line(payer_name=" "),
            bank_line(transaction_id=" "),
            bank_line(transaction_id="x" * 101),
            bank_line(transaction_id="\u200b"),
            bank_line(transaction_id="x\x00y"),
            bank_line(payer_name="\u202e"),
            bank_line(value_date=now.date() + timedelta(days=9)),
        ):
            with pytest.raises(bank.InvalidReceipt):
                bank.record_receipt(
                    payee=reference, line=line, reason="for the test", actor=operator(), now=now
                )
        with pytest.raises(audit.ReasonMissing):
            bank.record_receipt(payee=reference, line=bank_line(), reason=" ", actor=operator(), now=now)
    assert rows_of("quotas_bankreceipt", tenant_id=tenant.id) == []


def test_only_who_recorded_it_withdraws_and_another_refuses(tenant: TenantFixture) -> None:
    first = operator()
    receipt = make_receipt(tenant, recorder=first)
    with role_scope("operator"):
        with pytest.raises(bank.NotYourReceipt):
            bank.withdraw_receipt(receipt_id=receipt.id, actor=operator(), now=utc_now())
        with pytest.raises(bank.OwnReceipt):
            bank.refuse_receipt(receipt_id=receipt.id, actor=first, reason="mine", now=utc_now())
        assert receipt in bank_queries.waiting_receipts()
        bank.withdraw_receipt(receipt_id=receipt.id, actor=first, now=utc_now())
        with pytest.raises(bank.ReceiptDecided):
            bank.approve_receipt(receipt_id=receipt.id, actor=operator(), now=utc_now())
        with pytest.raises(bank.ReceiptNotFound):
            bank.approve_receipt(receipt_id=uuid7(), actor=operator(), now=utc_now())
    assert money_of(tenant.id).paid == 0


def test_a_transfer_pays_what_is_owed_first_and_ends_the_suspension(tenant: TenantFixture) -> None:
    from quotas.payments import receivables
    from tests.factories_bank import consume

    top_up_id = make_top_up(tenant, amount="20.00")
    consume(tenant, "19.99")
    make_dispute(top_up_id, status="lost")
    receivables.review_receivable(tenant_id=tenant.id, now=utc_now())
    assert money_of(tenant.id).receivable == -19_990_000_000
    assert rows_of("tenants_tenant", id=tenant.id)[0]["state"] == TenantState.SUSPENDED
    approve(make_receipt(tenant, amount="30.00").id)
    assert (money_of(tenant.id).paid, money_of(tenant.id).receivable) == (10_010_000_000, 0)
    assert rows_of("tenants_tenant", id=tenant.id)[0]["state"] == TenantState.ACTIVE


# --- What the database itself refuses ---------------------------------------------------------------


def test_nobody_approves_alone_even_with_sql(tenant: TenantFixture) -> None:
    first = operator()
    receipt = make_receipt(tenant, recorder=first)
    with connected("operator") as connection:
        with pytest.raises(psycopg.errors.CheckViolation):
            connection.execute(
                "UPDATE quotas_bankreceipt SET state = 'REFUSED', decided_by_id = recorded_by_id, "
                "decided_at = now() WHERE id = %s",
                (receipt.id,),
            )
        # Approved without a credit, or for more than came in, neither.
        other = operator()
        with pytest.raises(psycopg.errors.CheckViolation):
            connection.execute(
                "UPDATE quotas_bankreceipt SET state = 'APPROVED', decided_by_id = %s, decided_at = now(), "
                "top_up_id = id WHERE id = %s",
                (other.user_id, receipt.id),
            )
        for change in ("amount_nanos = 1", "tenant_id = tenant_id", "bank_transaction_id = 'X'"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"UPDATE quotas_bankreceipt SET {change} WHERE id = %s", (receipt.id,))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM quotas_bankreceipt WHERE id = %s", (receipt.id,))
    approve(receipt.id)
    with connected("operator") as connection, pytest.raises(psycopg.errors.RestrictViolation):
        connection.execute(
            "UPDATE quotas_bankreceipt SET state = 'WAITING', top_up_id = NULL WHERE id = %s", (receipt.id,)
        )


def test_a_top_up_by_bank_without_a_receipt_cannot_be_paid(tenant: TenantFixture) -> None:
    with connected("operator", autocommit=False) as connection:
        top_up_id = uuid7()
        connection.execute(
            "INSERT INTO quotas_topup (id, tenant_id, currency, source, amount_nanos, state, charge_id, "
            "method, pay_url, receipt_url, invoice_url, failure_code) "
            "VALUES (%s, %s, 'USD', 'BANK', 1000, 'OPEN', '', '', '', '', '', '')",
            (top_up_id, tenant.id),
        )
        connection.execute(
            "SELECT quotas_pay_in(quotas_transfer_id('TOP_UP', 'topup:' || %(id)s::uuid), 'TOP_UP', "
            "%(tenant)s, 1000, 0, 'CASH_CLEARING', '')",
            {"id": top_up_id, "tenant": tenant.id},
        )
        connection.execute(
            "UPDATE quotas_topup SET state = 'PAID', gross_nanos = 1000, tax_nanos = 0, ended_at = now(), "
            "transfer_id = quotas_transfer_id('TOP_UP', 'topup:' || id) WHERE id = %s",
            (top_up_id,),
        )
        with pytest.raises(psycopg.errors.CheckViolation, match="no approved receipt"):
            connection.commit()
    assert money_of(tenant.id).paid == 0


def test_organizations_see_no_receipts_and_keep_their_reference(tenant: TenantFixture) -> None:
    person = payer(tenant)
    reference = make_reference(tenant, person)
    assert make_reference(tenant, payer(tenant)) == reference
    with tenant_scope(make_tenant(granted=None).id):
        assert bank_queries.reference_of(tenant_id=tenant.id) == ""
    with connected("tenant") as connection, connection.transaction():
        connection.execute("SELECT set_config('app.tenant_id', %s, true)", (str(tenant.id),))
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
            connection.execute("SELECT 1 FROM quotas_bankreceipt")
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
            connection.execute("UPDATE quotas_bankreference SET reference = 'SL22-2222-09'")


def test_a_reference_is_not_made_up_by_hand(tenant: TenantFixture) -> None:
    person = make_person()
    with connected("owner") as connection:
        for reference in ("SL22-2222-01", "XX22-2222-11", "SL2222-2211", ""):
            with pytest.raises(psycopg.errors.CheckViolation):
                connection.execute(
                    "INSERT INTO quotas_bankreference VALUES (%s, %s, %s, %s)",
                    (reference, utc_now(), person.id, tenant.id),
                )


def test_a_value_date_may_be_old(tenant: TenantFixture) -> None:
    with role_scope("operator"):
        receipt = bank.record_receipt(
            payee=tenant.public_id,
            line=bank_line(value_date=date(2020, 2, 29)),
            reason="for the test",
            actor=operator(),
            now=utc_now(),
        )
        page = bank_queries.decided_receipts()
    assert receipt.value_date == date(2020, 2, 29)
    assert receipt.id not in [row.id for row in page.rows]
