"""The organization's pages over its monthly invoices."""

from __future__ import annotations

import pytest

from portal.console.tests.people import Stage, open_stage
from portal.console.tests.test_billing import fixture_of
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, public_id, uuid7
from quotas.models import DunningState
from quotas.payments.receivables import review_receivable
from tenants.models import TenantState
from tests.factories import make_tenant
from tests.factories_postpaid import make_agreement, make_credit_note, make_monthly_invoice


@pytest.fixture
def stage(database: None) -> Stage:
    return open_stage()


def test_the_list_without_and_with_an_agreement(stage: Stage) -> None:
    here = f"/o/{stage.public_id}/billing/monthly-invoices/"
    assert b"monthly-none" in stage.browser.get(here).content
    assert b"to-monthly-invoices" not in stage.get("invoices").content
    make_agreement(fixture_of(stage))
    assert b"monthly-empty" in stage.browser.get(here).content
    assert b"to-monthly-invoices" in stage.get("invoices").content
    make_monthly_invoice(fixture_of(stage))
    page = stage.browser.get(here).content.decode()
    assert 'data-state="OPEN"' in page
    assert "https://pay.example/i" in page


def test_one_with_its_lines_and_credit_notes(stage: Stage) -> None:
    invoice_id = make_monthly_invoice(fixture_of(stage), dunning=DunningState.REMINDED, reminders=1)
    make_credit_note(invoice_id)
    address = (
        f"/o/{stage.public_id}/billing/monthly-invoices/{public_id(PREFIXES['monthly_invoice'], invoice_id)}/"
    )
    page = stage.browser.get(address).content.decode()
    assert 'data-kind="BROUGHT" data-class="" data-nanos="5000000000"' in page
    assert "This invoice is due" in page
    assert "credit-note-row" in page


def test_those_of_others_are_not_there(stage: Stage) -> None:
    theirs = make_monthly_invoice(make_tenant())
    for invoice_id in (theirs, uuid7()):
        spelled = public_id(PREFIXES["monthly_invoice"], invoice_id)
        assert (
            stage.browser.get(f"/o/{stage.public_id}/billing/monthly-invoices/{spelled}/").status_code == 404
        )


def test_why_calls_are_refused(stage: Stage) -> None:
    make_monthly_invoice(fixture_of(stage), dunning=DunningState.EXHAUSTED, exhausted_at=utc_now())
    assert review_receivable(tenant_id=stage.tenant_id, now=utc_now()) == TenantState.SUSPENDED
    assert "an invoice is not paid" in stage.get("billing").content.decode()
