"""The card of auto-recharge: saved, replaced, removed; and the bank that wants to see the customer."""

from __future__ import annotations

from datetime import timedelta

import pytest

from devstack.stripe_standin.testing import Standin
from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from portal.kit.money import NANOS_PER_UNIT
from quotas.models import OperationState, RechargeState, TopUp, TopUpState
from quotas.payments import fulfilment, recharge, sending
from quotas.payments.client import stripe_client
from quotas.payments.recharge.rows import RechargeReason
from quotas.payments.tests.recharge_side import (
    intents_of,
    quiet_others,
    recharge_of,
    recharges_of,
    recharging,
    save_card,
    start,
    states_of,
    subjects_of,
)
from quotas.payments.tests.stripe_side import begin, operation_of, session_of, top_up_of
from tenants.operations import audit
from tenants.scope import tenant_scope
from tests.database import money_of, rows_of
from tests.factories import TenantFixture, make_tenant
from tests.people import make_member

SETTINGS = {
    "threshold_nanos": 5 * NANOS_PER_UNIT,
    "amount_nanos": 20 * NANOS_PER_UNIT,
    "monthly_cap_nanos": 100 * NANOS_PER_UNIT,
}
PAGE = "http://127.0.0.1/back"


@pytest.fixture(autouse=True)
def others_are_quiet(database: None) -> None:
    quiet_others()


def set_up(tenant: TenantFixture) -> RechargeState:
    with tenant_scope(tenant.id):
        return recharge.set_recharge(
            tenant_id=tenant.id,
            **SETTINGS,
            actor=audit.member(make_member(tenant, "OWNER").id, None),
            now=utc_now(),
        )


def open_setup(tenant: TenantFixture) -> str:
    """The session of a page that saves a card."""
    address = recharge.start_setup(
        tenant_id=tenant.id,
        user_id=make_member(tenant, "BILLING").id,
        success_url=f"{PAGE}?session={{CHECKOUT_SESSION_ID}}",
        cancel_url=PAGE,
        now=utc_now(),
    )
    return address.rpartition("/")[2]


def confirm(tenant: TenantFixture) -> TopUp:
    started = recharge.confirm_on_session(
        tenant_id=tenant.id, user_id=None, success_url=PAGE, cancel_url=PAGE, now=utc_now()
    )
    return top_up_of(started.top_up_id)


def test_set_before_there_is_a_card_it_turns_on_with_one(standin: Standin) -> None:
    tenant = make_tenant(granted=None)
    assert set_up(tenant) == RechargeState.OFF
    assert recharge_of(tenant.id).state_reason == RechargeReason.NO_METHOD
    session_id = open_setup(tenant)
    assert recharge.apply_setup(session_id=session_id, now=utc_now())
    assert recharge_of(tenant.id).state == RechargeState.OFF
    assert standin.control.complete_session(session_id)["refusal"] is None
    for _ in range(3):
        assert recharge.apply_setup(session_id=session_id, now=utc_now())
    row = recharge_of(tenant.id)
    assert (row.state, row.state_reason, row.method) == ("ON", "", "visa ···· 4242")
    start()
    assert states_of(tenant.id) == ["PAID"]


def test_a_card_alone_turns_nothing_on(standin: Standin) -> None:
    tenant = make_tenant(granted=None)
    session_id = open_setup(tenant)
    standin.control.complete_session(session_id)
    recharge.apply_setup(session_id=session_id, now=utc_now())
    row = recharge_of(tenant.id)
    assert (row.state, row.state_reason, row.method) == ("OFF", "", "visa ···· 4242")
    assert set_up(tenant) == RechargeState.ON


def test_a_card_that_the_bank_refuses_is_not_saved(standin: Standin) -> None:
    tenant = make_tenant(granted=None)
    session_id = open_setup(tenant)
    assert standin.control.complete_session(session_id, behaviour="declined")["refusal"]
    assert recharge.apply_setup(session_id=session_id, now=utc_now())
    assert rows_of("quotas_autorecharge", tenant_id=tenant.id) == []


def test_an_older_card_never_takes_the_place_of_a_newer_one(standin: Standin) -> None:
    tenant = make_tenant(granted=None)
    first, second = open_setup(tenant), open_setup(tenant)
    standin.control.complete_session(first, last4="1111")
    standin.control.advance(10)
    standin.control.complete_session(second, last4="2222")
    for session_id in (first, second, first, second, first):
        recharge.apply_setup(session_id=session_id, now=utc_now())
    assert recharge_of(tenant.id).method == "visa ···· 2222"


def test_pages_of_others_are_none_of_ours(standin: Standin) -> None:
    tenant = make_tenant(granted=None)
    theirs = stripe_client().v1.customers.create({})
    foreign = stripe_client().v1.checkout.sessions.create(
        {"mode": "setup", "customer": theirs.id, "currency": "usd", "success_url": PAGE}
    )
    session_id = open_setup(tenant)
    ours = rows_of("quotas_stripeoperation", object_id=session_id)[0]["id"]
    forged = stripe_client().v1.checkout.sessions.create(
        {
            "mode": "setup",
            "customer": theirs.id,
            "currency": "usd",
            "success_url": PAGE,
            "metadata": {"operation": str(ours)},
        }
    )
    for session in (foreign, forged):
        standin.control.complete_session(session.id)
        assert not recharge.apply_setup(session_id=session.id, now=utc_now())
    assert not recharge.apply_setup(session_id="cs_test_nothing", now=utc_now())
    assert not recharge.apply_payment_method(object_id="pm_nothing", now=utc_now())
    assert rows_of("quotas_autorecharge", tenant_id=tenant.id) == []


def test_setups_are_counted(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = make_tenant(granted=None)
    monkeypatch.setattr("quotas.payments.recharge.methods.MAX_SETUPS_PER_HOUR", 1)
    open_setup(tenant)
    with pytest.raises(recharge.TooManySetups):
        open_setup(tenant)


def test_a_paid_top_up_brings_its_card_if_it_may_be_kept(standin: Standin) -> None:
    tenant = make_tenant(granted=None)
    set_up(tenant)
    kept_not, kept = begin(tenant), begin(tenant, keeps_method=True)
    standin.control.complete_session(session_of(kept_not))
    fulfilment.apply_top_up(top_up_id=kept_not.id, now=utc_now())
    assert recharge_of(tenant.id).state == RechargeState.OFF
    standin.control.complete_session(session_of(kept))
    fulfilment.apply_top_up(top_up_id=kept.id, now=utc_now())
    row = recharge_of(tenant.id)
    assert (row.state, row.method) == ("ON", "visa ···· 4242")


@pytest.mark.parametrize("kind", ["alipay", "wechat_pay"])
def test_methods_for_once_are_not_kept(standin: Standin, kind: str) -> None:
    tenant = recharging(standin)
    top_up = begin(tenant, keeps_method=True)
    before = recharge_of(tenant.id).payment_method_id
    offered = {"id": "pm_once", "type": kind, "customer": None, "created": int(utc_now().timestamp()) + 60}
    assert not recharge.offer_paid_method(top_up_id=top_up.id, payment_method=offered, now=utc_now())
    assert recharge_of(tenant.id).payment_method_id == before


def test_another_card_is_tried_at_once_after_a_decline(standin: Standin) -> None:
    tenant = recharging(standin, behaviour="declined")
    start()
    session_id = open_setup(tenant)
    standin.control.complete_session(session_id)
    recharge.apply_setup(session_id=session_id, now=utc_now())
    row = recharge_of(tenant.id)
    assert (row.state, row.declines, row.retry_at) == ("ON", 0, None)
    start()
    assert states_of(tenant.id) == ["FAILED", "PAID"]


def test_a_removed_card_switches_it_off_with_notice(standin: Standin) -> None:
    tenant = recharging(standin, paid="50")
    method_id = recharge_of(tenant.id).payment_method_id
    assert recharge.apply_payment_method(object_id=method_id, now=utc_now())
    assert recharge_of(tenant.id).state == RechargeState.ON
    standin.control.detach_card(payment_method=method_id)
    assert recharge.apply_payment_method(object_id=method_id, now=utc_now())
    row = recharge_of(tenant.id)
    assert (row.state, row.state_reason, row.payment_method_id) == ("OFF", "METHOD_REMOVED", "")
    assert subjects_of(tenant.id) == ["auto-recharge is switched off"]
    assert not recharge.apply_payment_method(object_id=method_id, now=utc_now())


def test_the_bank_wants_to_see_the_customer(standin: Standin) -> None:
    tenant = recharging(standin, behaviour="authentication_required")
    start()
    row = recharge_of(tenant.id)
    assert (row.state, row.state_reason, row.declines) == ("PAUSED", "AUTHENTICATION", 0)
    assert states_of(tenant.id) == ["ACTION_NEEDED"]
    assert subjects_of(tenant.id) == ["confirm a payment of $20.00"]
    (mail,) = rows_of("tenants_outboxmessage", role="owner", tenant_id=tenant.id)
    assert f"/o/{tenant.public_id}/billing/recharge/" in mail["text_body"]
    for _ in range(3):
        start(utc_now() + timedelta(days=2))
        fulfilment.apply_top_up(top_up_id=recharges_of(tenant.id)[0].id, now=utc_now())
    assert states_of(tenant.id) == ["ACTION_NEEDED"]
    assert len(subjects_of(tenant.id)) == 1

    paying = confirm(tenant)
    # The payment that waited can't be paid any more, before the other one can.
    assert [intent["status"] for intent in intents_of(standin, tenant)] == ["canceled"]
    assert states_of(tenant.id) == ["FAILED"]
    assert paying.amount_nanos == 20 * NANOS_PER_UNIT
    assert recharge_of(tenant.id).state == RechargeState.PAUSED
    standin.control.complete_session(session_of(paying), last4="7777")
    for _ in range(2):
        assert fulfilment.apply_top_up(top_up_id=paying.id, now=utc_now()) == TopUpState.PAID
    row = recharge_of(tenant.id)
    assert (row.state, row.state_reason, row.method) == ("ON", "", "visa ···· 7777")
    assert money_of(tenant.id).paid == 21 * NANOS_PER_UNIT


def test_an_earlier_payment_does_not_resume_a_later_pause(standin: Standin) -> None:
    tenant = recharging(standin, paid="50")
    earlier = begin(tenant, keeps_method=True)
    standin.control.complete_session(session_of(earlier), behaviour="authentication_required")
    fulfilment.apply_top_up(top_up_id=earlier.id, now=utc_now())
    with tenant_scope(tenant.id):
        recharge.set_recharge(
            tenant_id=tenant.id,
            **(SETTINGS | {"threshold_nanos": 100 * NANOS_PER_UNIT, "amount_nanos": 100 * NANOS_PER_UNIT}),
            actor=audit.SYSTEM,
            now=utc_now(),
        )
    start(utc_now() + timedelta(minutes=1))
    assert recharge_of(tenant.id).state == RechargeState.PAUSED
    fulfilment.apply_top_up(top_up_id=earlier.id, now=utc_now())
    assert recharge_of(tenant.id).state == RechargeState.PAUSED


def test_confirming_twice_cancels_once_and_offers_two_pages(standin: Standin) -> None:
    tenant = recharging(standin, behaviour="authentication_required")
    start()
    first, second = confirm(tenant), confirm(tenant)
    assert first.id != second.id
    assert len(rows_of("quotas_stripeoperation", kind="CANCEL_INTENT", tenant_id=tenant.id)) == 1


def test_there_is_nothing_to_confirm(standin: Standin) -> None:
    tenant = recharging(standin)
    with pytest.raises(recharge.NothingToConfirm):
        confirm(tenant)
    with pytest.raises(recharge.NothingToConfirm):
        confirm(make_tenant())


def test_a_payment_that_passed_meanwhile_is_credited_instead(standin: Standin) -> None:
    tenant = recharging(standin, behaviour="authentication_required")
    start()
    (waiting,) = recharges_of(tenant.id)
    (intent,) = intents_of(standin, tenant)
    method = save_card(standin, tenant)
    stripe_client().v1.payment_intents.confirm(intent["id"], {"payment_method": method["id"]})
    with pytest.raises(recharge.NothingToConfirm):
        confirm(tenant)
    assert top_up_of(waiting.id).state == TopUpState.PAID
    assert money_of(tenant.id).paid == 21 * NANOS_PER_UNIT
    assert recharge_of(tenant.id).state == RechargeState.ON


def test_as_long_as_it_is_not_surely_cancelled_no_other_page_opens(standin: Standin) -> None:
    tenant = recharging(standin, behaviour="authentication_required")
    start()
    standin.control.fault("error_before", match="POST /v1/payment_intents/pi_[^/]+/cancel", times=1)
    with pytest.raises(sending.StripeUnavailable):
        confirm(tenant)
    assert states_of(tenant.id) == ["ACTION_NEEDED"]
    assert rows_of("quotas_topup", tenant_id=tenant.id, source="CHECKOUT") == []
    assert confirm(tenant).state == TopUpState.OPEN


def test_another_card_resumes_it_and_cancels_what_waits(standin: Standin) -> None:
    tenant = recharging(standin, behaviour="authentication_required")
    start()
    session_id = open_setup(tenant)
    standin.control.complete_session(session_id, last4="8888")
    recharge.apply_setup(session_id=session_id, now=utc_now())
    assert recharge_of(tenant.id).state == RechargeState.ON
    assert [intent["status"] for intent in intents_of(standin, tenant)] == ["canceled"]
    start()
    assert states_of(tenant.id) == ["FAILED", "PAID"]
    assert recharges_of(tenant.id)[1].method == "visa ···· 8888"


def test_turning_it_off_cancels_what_waits(standin: Standin) -> None:
    tenant = recharging(standin, behaviour="authentication_required")
    start()
    with tenant_scope(tenant.id):
        assert recharge.turn_off(tenant_id=tenant.id, actor=audit.SYSTEM, now=utc_now())
    (waiting,) = recharges_of(tenant.id)
    assert operation_of(waiting.id, "CANCEL_INTENT").state == OperationState.PENDING
    sending.sweep_operations(now=utc_now() + timedelta(minutes=1))
    assert states_of(tenant.id) == ["FAILED"]
    with tenant_scope(tenant.id):
        assert not recharge.turn_off(tenant_id=tenant.id, actor=audit.SYSTEM, now=utc_now())
        assert not recharge.turn_off(tenant_id=uuid7(), actor=audit.SYSTEM, now=utc_now())


def test_changing_amounts_does_not_resume_it(standin: Standin) -> None:
    tenant = recharging(standin, behaviour="authentication_required")
    start()
    assert set_up(tenant) == RechargeState.PAUSED
