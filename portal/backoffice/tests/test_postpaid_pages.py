"""Operators' pages over who pays afterwards, and over monthly invoices."""

from __future__ import annotations

import pytest
from django.test import Client

from portal.backoffice.tests.people import make_operator, sign_in
from portal.kit.ids import PREFIXES, public_id
from quotas.models import DunningState, MonthlyInvoiceState
from quotas.payments.postpaid import draw_up_invoices
from quotas.payments.tests.postpaid_side import (
    after_month,
    dear_model,
    give_line,
    invoices_of,
    make_postpaid,
    no_lag,
    used_by,
)
from quotas.tests.doors import admitted, settle_one
from tests.database import connected, rows_of
from tests.factories import TenantFixture, admission_row, make_tenant, settlement_row
from tests.factories_postpaid import make_credit_note, make_monthly_invoice

pytestmark = pytest.mark.usefixtures("database")
HERE = "/operator/postpaid/"


@pytest.fixture(scope="module")
def client(database: None) -> Client:
    return sign_in(make_operator())


def page_of(client: Client, address: str = "", **query: str) -> str:
    answer = client.get(HERE + address, query)
    assert answer.status_code == 200, answer.status_code
    return str(answer.content.decode())


def address_of(invoice_id: object) -> str:
    return f"invoices/{public_id(PREFIXES['monthly_invoice'], invoice_id)}/"  # type: ignore[arg-type]


def test_lists_bear_what_addresses_may_say(client: Client) -> None:
    assert 'data-testid="payment-tabs"' in page_of(client)
    page = page_of(client, organization="\0x'", state="\0x'", before="\0x'")
    assert 'data-testid="payment-tabs"' in page
    assert "No invoice matches" in page_of(client, organization=make_tenant().public_id)
    assert client.get(f"{HERE}invoices/min_nothing/").status_code == 404


def test_every_state_has_words(client: Client) -> None:
    tenant = make_tenant()
    ids = [
        make_monthly_invoice(tenant),
        make_monthly_invoice(tenant, is_open=False, failure_text="refused for the test"),
        make_monthly_invoice(tenant, amount="0"),
        make_monthly_invoice(tenant, state=MonthlyInvoiceState.VOID),
        make_monthly_invoice(tenant, state=MonthlyInvoiceState.UNCOLLECTIBLE),
        make_monthly_invoice(tenant, dunning=DunningState.REMINDED, reminders=2),
    ]
    make_credit_note(ids[0])
    found = page_of(client, organization=tenant.public_id)
    for word in (
        "To be paid",
        "Being drawn up",
        "Nothing due",
        "Void",
        "Not paid",
        "2 reminders",
        "for the test",
    ):
        assert word in found, word
    for invoice_id in ids:
        assert "invoice-total" in page_of(client, address_of(invoice_id))
    assert "On its way" in page_of(client, address_of(ids[0]))


def act(client: Client, tenant: TenantFixture, action: str, **form: str) -> int:
    answer = client.post(
        f"{HERE}organizations/{tenant.public_id}/{action}", {"reason": "for the test", **form}
    )
    return answer.status_code


def test_an_agreement_needs_a_credit_line(client: Client) -> None:
    tenant = make_tenant()
    assert act(client, tenant, "agree", days_until_due="30") == 422
    assert rows_of("quotas_postpaidagreement", tenant_id=tenant.id) == []
    give_line(tenant.id, 100)
    assert act(client, tenant, "agree", days_until_due="121") == 422
    assert act(client, tenant, "agree", days_until_due="30", reason="") == 422
    assert act(client, tenant, "agree", days_until_due="30") == 302
    (row,) = rows_of("quotas_postpaidagreement", tenant_id=tenant.id)
    assert (row["is_on"], row["days_until_due"]) == (True, 30)
    assert tenant.public_id in page_of(client)
    assert act(client, tenant, "end") == 302
    assert act(client, tenant, "end") == 422
    audited = [row["action"] for row in rows_of("tenants_auditevent", tenant_id=tenant.id)]
    assert {"postpaid.agree", "postpaid.end"} <= set(audited)


def test_lines_open_the_calls_they_come_from(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    no_lag(monkeypatch)
    model = dear_model()
    tenant = make_postpaid(model)
    with connected("dataplane") as dataplane:
        rows = [admitted(dataplane, admission_row(tenant, model)) for _ in range(3)]
        for row in rows:
            settle_one(dataplane, settlement_row(row, prompt_tokens=90, completion_tokens=90))
    # Without a key of Stripe it is drawn up all the same, and waits.
    draw_up_invoices(now=after_month(), tenant_id=tenant.id)
    (invoice,) = invoices_of(tenant.id)
    assert sum(nanos for _units, nanos in used_by(rows).values()) == invoice.usage_nanos
    page = page_of(client, address_of(invoice.id), model=public_id(PREFIXES["model"], model.id))
    assert page.count('data-testid="invoice-call"') == 3
    for row in rows:
        assert public_id(PREFIXES["request"], row.request_id) in page
    for nonsense in ("mdl_nothing", "\0", public_id(PREFIXES["model"], tenant.id)):
        assert "invoice-call" not in page_of(client, address_of(invoice.id), model=nonsense)


def test_a_credit_note_says_what_is_wrong(client: Client) -> None:
    invoice_id = make_monthly_invoice(make_tenant())
    address = f"{HERE}{address_of(invoice_id)}credit-note"
    assert client.get(address).status_code == 200
    for amount in ("", "x", "0", "99.00", "0.001"):
        answer = client.post(address, {"amount": amount, "reason": "for the test"})
        assert answer.status_code == 422, amount
    assert rows_of("quotas_creditnote", invoice_id=invoice_id) == []
