"""What was paid at Stripe is credited, once, and as Stripe says it was paid."""

from __future__ import annotations

from datetime import timedelta

import pytest

from devstack.stripe_standin.testing import Standin
from portal.kit.clock import utc_now
from portal.kit.ids import transfer_id
from portal.kit.money import NANOS_PER_UNIT
from quotas.models import TopUpState, TransferKind
from quotas.payments.fulfilment import apply_intent, apply_session, apply_top_up
from quotas.payments.tests.stripe_side import begin, credits_of, session_of, top_up_of
from tests.database import money_of
from tests.factories import make_tenant


@pytest.mark.parametrize("currency", ["USD", "CNY"])
def test_a_card_payment_is_credited_and_described(standin: Standin, currency: str) -> None:
    tenant = make_tenant(currency, granted=None)
    top_up = begin(tenant)
    session = session_of(top_up)
    assert apply_session(session_id=session, now=utc_now()) == TopUpState.OPEN
    assert standin.control.complete_session(session)["refusal"] is None
    for _ in range(3):
        assert apply_session(session_id=session, now=utc_now()) == TopUpState.PAID
    paid = top_up_of(top_up.id)
    assert paid.transfer_id == transfer_id(TransferKind.TOP_UP, f"topup:{top_up.id}")
    assert (paid.gross_nanos, paid.tax_nanos) == (20 * NANOS_PER_UNIT, 0)
    assert paid.charge_id.startswith("ch_")
    assert paid.method == "visa ···· 4242"
    assert paid.receipt_url
    assert paid.invoice_url
    assert money_of(tenant.id).paid == 20 * NANOS_PER_UNIT
    assert credits_of(tenant.id) == [("TOP_UP", 20 * NANOS_PER_UNIT)]
    assert paid.payment_intent_id is not None
    assert apply_intent(intent_id=paid.payment_intent_id, now=utc_now()) == TopUpState.PAID


def test_a_declined_card_leaves_it_open(standin: Standin) -> None:
    tenant = make_tenant(granted=None)
    top_up = begin(tenant)
    assert standin.control.complete_session(session_of(top_up), behaviour="declined")["refusal"]
    assert apply_top_up(top_up_id=top_up.id, now=utc_now()) == TopUpState.OPEN
    standin.control.complete_session(session_of(top_up))
    assert apply_top_up(top_up_id=top_up.id, now=utc_now()) == TopUpState.PAID
    assert money_of(tenant.id).paid == 20 * NANOS_PER_UNIT


@pytest.mark.parametrize("fails", [False, True])
def test_a_method_that_takes_its_time(standin: Standin, fails: bool) -> None:
    tenant = make_tenant(granted=None)
    top_up = begin(tenant)
    session = session_of(top_up)
    standin.control.complete_session(session, method="us_bank_account")
    assert apply_session(session_id=session, now=utc_now()) == TopUpState.PROCESSING
    assert money_of(tenant.id).paid == 0
    standin.control.settle(payment=session, fails=fails)
    expected = TopUpState.FAILED if fails else TopUpState.PAID
    assert apply_session(session_id=session, now=utc_now()) == expected
    assert apply_session(session_id=session, now=utc_now()) == expected
    assert money_of(tenant.id).paid == (0 if fails else 20 * NANOS_PER_UNIT)
    assert bool(top_up_of(top_up.id).failure_code) == fails


def test_what_is_paid_after_all_is_credited_all_the_same(standin: Standin) -> None:
    """We took it for expired; Stripe says that it is paid."""
    from quotas.payments.fulfilment import move_top_up
    from tenants.scope import role_scope

    tenant = make_tenant(granted=None)
    top_up = begin(tenant)
    with role_scope("operator"):
        assert move_top_up(top_up_id=top_up.id, state=TopUpState.EXPIRED, now=utc_now())
        assert not move_top_up(top_up_id=top_up.id, state=TopUpState.PROCESSING, now=utc_now())
    standin.control.complete_session(session_of(top_up))
    assert apply_top_up(top_up_id=top_up.id, now=utc_now()) == TopUpState.PAID
    assert money_of(tenant.id).paid == 20 * NANOS_PER_UNIT


def test_an_abandoned_page_expires(standin: Standin) -> None:
    tenant = make_tenant(granted=None)
    top_up = begin(tenant)
    standin.control.expire_session(session=session_of(top_up))
    assert apply_top_up(top_up_id=top_up.id, now=utc_now() + timedelta(hours=1)) == TopUpState.EXPIRED
    assert top_up_of(top_up.id).ended_at is not None


def test_tax_is_not_the_tenants(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.conf import settings

    standin.control.settings(tax_percent=10.0)
    monkeypatch.setitem(settings.TUNING, "SLUICE_PAYMENTS_TAX", 1)
    tenant = make_tenant(granted=None)
    top_up = begin(tenant)
    standin.control.complete_session(session_of(top_up))
    assert apply_top_up(top_up_id=top_up.id, now=utc_now()) == TopUpState.PAID
    paid = top_up_of(top_up.id)
    assert (paid.gross_nanos, paid.tax_nanos) == (22 * NANOS_PER_UNIT, 2 * NANOS_PER_UNIT)
    assert money_of(tenant.id).paid == 20 * NANOS_PER_UNIT
