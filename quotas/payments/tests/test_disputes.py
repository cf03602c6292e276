"""Disputes: what the bank takes and gives back, in whatever order and however often it is heard of."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest

from devstack.stripe_standin.testing import Standin
from portal.kit.clock import utc_now
from portal.kit.money import NANOS_PER_UNIT as UNIT
from quotas.models import TopUpState
from quotas.payments.charges import NotCreditedYet
from quotas.payments.client import stripe_client
from quotas.payments.disputes import apply_dispute
from quotas.payments.fulfilment import apply_session
from quotas.payments.handlers import find_handler
from quotas.payments.receivables import review_receivable, review_receivables
from quotas.payments.refunds import NotRefundable
from quotas.payments.tests.moneyback_side import (
    an_operator,
    assert_audit_holds,
    disputes_of,
    held,
    make_dear_model,
    pay,
    refund,
    spend,
    state_of,
    tax_of,
    taxed,
)
from quotas.payments.tests.stripe_side import begin, credits_of
from tenants import operations
from tenants.models import SuspensionCause, TenantState
from tenants.operations import audit
from tenants.scope import role_scope
from tenants.tests.people import add_member, at_once
from tests.database import money_of, rows_of
from tests.factories import TenantFixture, make_tenant, set_state


def movements_of(tenant: TenantFixture) -> list[int]:
    return sorted(row["taken_nanos"] for row in rows_of("quotas_disputemovement", tenant_id=tenant.id))


def test_a_lost_dispute_takes_the_payment_and_its_fee(
    standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = make_tenant(granted=None)
    with taxed(standin, monkeypatch):
        top_up = pay(standin, tenant)
    opened = standin.control.open_dispute(payment=top_up.charge_id)
    for _ in range(3):
        assert apply_dispute(dispute_id=opened["id"], now=utc_now())
    (dispute,) = disputes_of(top_up)
    assert (dispute.status, dispute.amount_nanos, dispute.closed_at) == ("needs_response", 22 * UNIT, None)
    assert dispute.evidence_due_at is not None
    assert movements_of(tenant) == [22 * UNIT]
    assert (money_of(tenant.id).paid, tax_of(tenant.id)) == (0, 0)
    (line,) = rows_of("quotas_balancetransaction", source_id=opened["id"])
    assert (line["fee_nanos"], line["amount_nanos"]) == (15 * UNIT, -22 * UNIT)
    assert line["fee_transfer_id"] is not None
    standin.control.close_dispute(dispute=opened["id"], won=False)
    apply_dispute(dispute_id=opened["id"], now=utc_now())
    (dispute,) = disputes_of(top_up)
    assert dispute.status == "lost"
    assert dispute.closed_at is not None
    assert movements_of(tenant) == [22 * UNIT]
    with pytest.raises(NotRefundable):
        refund(top_up)
    assert_audit_holds()


def test_one_that_is_won_gives_all_of_it_back(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = make_tenant(granted=None)
    with taxed(standin, monkeypatch, 7.77):
        top_up = pay(standin, tenant)
    opened = standin.control.open_dispute(payment=top_up.charge_id, amount=777)
    standin.control.close_dispute(dispute=opened["id"], won=True)
    # Both movements are heard of at once.
    answers = at_once([lambda: apply_dispute(dispute_id=opened["id"], now=utc_now()) for _ in range(8)])
    assert answers == [True] * 8
    assert movements_of(tenant) == [-777 * UNIT // 100, 777 * UNIT // 100]
    assert (money_of(tenant.id).paid, tax_of(tenant.id)) == (20 * UNIT, top_up.tax_nanos)
    assert_audit_holds()


def test_an_inquiry_takes_nothing_until_it_becomes_a_dispute(standin: Standin) -> None:
    tenant = make_tenant(granted=None)
    top_up = pay(standin, tenant)
    opened = standin.control.open_dispute(payment=top_up.charge_id, inquiry=True)
    apply_dispute(dispute_id=opened["id"], now=utc_now())
    assert (disputes_of(top_up)[0].status, movements_of(tenant)) == ("warning_needs_response", [])
    standin.control.escalate_dispute(dispute=opened["id"])
    apply_dispute(dispute_id=opened["id"], now=utc_now())
    assert (disputes_of(top_up)[0].status, movements_of(tenant)) == ("needs_response", [20 * UNIT])
    other = pay(standin, tenant)
    dropped = standin.control.open_dispute(payment=other.charge_id, inquiry=True)
    standin.control.close_dispute(dispute=dropped["id"], won=True)
    apply_dispute(dispute_id=dropped["id"], now=utc_now())
    (dispute,) = disputes_of(other)
    assert dispute.status == "warning_closed"
    assert dispute.closed_at is not None
    assert movements_of(tenant) == [20 * UNIT]


def test_what_was_read_before_the_end_does_not_open_it_again(
    standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quotas.payments import disputes

    tenant = make_tenant(granted=None)
    top_up = pay(standin, tenant)
    opened = standin.control.open_dispute(payment=top_up.charge_id)
    client = stripe_client()
    stale = client.v1.disputes.retrieve(opened["id"], {"expand": ["charge"]})
    standin.control.close_dispute(dispute=opened["id"], won=True)
    apply_dispute(dispute_id=opened["id"], now=utc_now())

    class Stale:
        class v1:
            class disputes:
                @staticmethod
                def retrieve(*_: object) -> object:
                    return stale

    monkeypatch.setattr(disputes, "stripe_client", lambda: Stale)
    apply_dispute(dispute_id=opened["id"], now=utc_now())
    assert disputes_of(top_up)[0].status == "won"
    assert movements_of(tenant) == [-20 * UNIT, 20 * UNIT]


def test_held_money_stays_held_and_the_rest_is_owed(standin: Standin) -> None:
    tenant, model = make_tenant(granted=None), make_dear_model()
    top_up = pay(standin, tenant)
    with held(tenant, model, 5):
        opened = standin.control.open_dispute(payment=top_up.charge_id)
        apply_dispute(dispute_id=opened["id"], now=utc_now())
        money = money_of(tenant.id)
        assert money.paid == money.pending > 5 * UNIT
        assert money.receivable == -money.paid
    assert_audit_holds()


def test_a_lost_dispute_on_nothing_suspends_and_the_next_top_up_pays_and_resumes(standin: Standin) -> None:
    tenant, model = make_tenant(granted=None), make_dear_model()
    add_member(tenant.id)
    top_up = pay(standin, tenant)
    spend(tenant, model, 20)
    opened = standin.control.open_dispute(payment=top_up.charge_id)
    standin.control.close_dispute(dispute=opened["id"], won=False)
    apply_dispute(dispute_id=opened["id"], now=utc_now())
    assert money_of(tenant.id).receivable == -20 * UNIT
    assert state_of(tenant.id) == ("SUSPENDED", "RECEIVABLE")
    pay(standin, tenant, 15)
    assert (money_of(tenant.id).paid, money_of(tenant.id).receivable) == (0, -5 * UNIT)
    assert state_of(tenant.id) == ("SUSPENDED", "RECEIVABLE")
    pay(standin, tenant, 15)
    assert (money_of(tenant.id).paid, money_of(tenant.id).receivable) == (10 * UNIT, 0)
    assert state_of(tenant.id) == ("ACTIVE", "")
    subjects = [
        mail["subject"] for mail in rows_of("tenants_outboxmessage", role="auth", tenant_id=tenant.id)
    ]
    assert len(subjects) == 2
    actions = [event["action"] for event in rows_of("tenants_auditevent", tenant_id=tenant.id)]
    assert actions.count("tenant.suspend") == actions.count("tenant.resume") == 1
    assert_audit_holds()


def owing(standin: Standin) -> tuple[TenantFixture, str]:
    """An organization that has spent what a dispute took, not yet heard of; and Stripe's dispute."""
    tenant, model = make_tenant(granted=None), make_dear_model()
    top_up = pay(standin, tenant)
    spend(tenant, model, 20)
    return tenant, standin.control.open_dispute(payment=top_up.charge_id)["id"]


def test_what_an_operator_suspended_is_not_lifted(standin: Standin) -> None:
    tenant, dispute_id = owing(standin)
    apply_dispute(dispute_id=dispute_id, now=utc_now())
    with role_scope("operator"):
        operations.suspend_tenant(
            tenant_id=tenant.id, reason="Misuse", cuts_calls=False, actor=an_operator(), now=utc_now()
        )
    assert state_of(tenant.id) == ("SUSPENDED", "")
    pay(standin, tenant, 20)
    assert money_of(tenant.id).receivable == 0
    assert state_of(tenant.id) == ("SUSPENDED", "")
    with role_scope("operator"), pytest.raises(operations.AlreadySuspended):
        operations.suspend_tenant(
            tenant_id=tenant.id,
            reason="Owes",
            cuts_calls=True,
            actor=audit.SYSTEM,
            now=utc_now(),
            cause=SuspensionCause.RECEIVABLE,
        )


def test_whom_an_operator_resumed_is_suspended_for_new_debt_only(standin: Standin) -> None:
    tenant, dispute_id = owing(standin)
    apply_dispute(dispute_id=dispute_id, now=utc_now())
    with role_scope("operator"):
        operations.resume_tenant(
            tenant_id=tenant.id, reason="They pay tomorrow", actor=an_operator(), now=utc_now()
        )
    assert review_receivable(tenant_id=tenant.id, now=utc_now()) is None
    assert state_of(tenant.id) == ("ACTIVE", "")
    standin.control.close_dispute(dispute=dispute_id, won=True)
    apply_dispute(dispute_id=dispute_id, now=utc_now())
    assert money_of(tenant.id).receivable == 0
    second, model = pay(standin, tenant, 10), make_dear_model()
    spend(tenant, model, 10)
    spend_left = money_of(tenant.id).paid
    again = standin.control.open_dispute(payment=second.charge_id)
    apply_dispute(dispute_id=again["id"], now=utc_now())
    assert money_of(tenant.id).receivable == spend_left - 10 * UNIT


def test_the_sweep_finds_what_a_killed_worker_left(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    from quotas.payments import disputes, fulfilment

    tenant, dispute_id = owing(standin)
    with monkeypatch.context() as killed:
        killed.setattr(disputes, "review_receivable", lambda **_: None)
        killed.setattr(fulfilment, "_review_receivable", lambda *_: None)
        apply_dispute(dispute_id=dispute_id, now=utc_now())
        assert state_of(tenant.id)[0] == "ACTIVE"
        assert review_receivables(now=utc_now()).suspended >= 1
        assert state_of(tenant.id) == ("SUSPENDED", "RECEIVABLE")
        pay(standin, tenant, 20)
        assert state_of(tenant.id)[0] == "SUSPENDED"
    assert review_receivables(now=utc_now()).resumed >= 1
    assert state_of(tenant.id) == ("ACTIVE", "")


def test_a_small_debt_is_let_be_and_a_closed_organization_too(
    standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.conf import settings

    monkeypatch.setitem(settings.TUNING, "SLUICE_RECEIVABLE_LIMIT_UNITS", 20)
    tenant, dispute_id = owing(standin)
    apply_dispute(dispute_id=dispute_id, now=utc_now())
    assert state_of(tenant.id)[0] == "ACTIVE"
    monkeypatch.setitem(settings.TUNING, "SLUICE_RECEIVABLE_LIMIT_UNITS", 19)
    set_state(tenant.id, TenantState.CLOSED)
    assert review_receivable(tenant_id=tenant.id, now=utc_now()) is None
    set_state(tenant.id, TenantState.ACTIVE)
    assert review_receivable(tenant_id=tenant.id, now=utc_now()) == TenantState.SUSPENDED


def test_it_is_heard_of_before_the_payment_itself(standin: Standin) -> None:
    tenant = make_tenant(granted=None)
    top_up = begin(tenant)
    assert top_up.session_id is not None
    standin.control.complete_session(top_up.session_id)
    opened = standin.control.open_dispute(payment=top_up.session_id)
    assert apply_dispute(dispute_id=opened["id"], now=utc_now())
    assert credits_of(tenant.id) == [("CHARGEBACK", -20 * UNIT), ("TOP_UP", 20 * UNIT)]
    assert apply_session(session_id=top_up.session_id, now=utc_now()) == TopUpState.PAID


def test_one_of_a_charge_that_is_not_ours_is_none_of_ours(standin: Standin) -> None:
    import stripe

    client = stripe.StripeClient(
        standin.secret_key, base_addresses={"api": standin.url}, max_network_retries=0
    )
    customer = client.v1.customers.create({})
    method = standin.control.save_card(customer=customer.id)
    intent = client.v1.payment_intents.create(
        {
            "amount": 900,
            "currency": "usd",
            "customer": customer.id,
            "payment_method": method["id"],
            "confirm": True,
            "off_session": True,
        }
    )
    opened = standin.control.open_dispute(payment=intent.id)
    assert apply_dispute(dispute_id=opened["id"], now=utc_now()) is False


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_events_in_any_order_end_the_same(standin: Standin, order: tuple[int, ...]) -> None:
    tenant = make_tenant(granted=None)
    top_up = pay(standin, tenant)
    opened = standin.control.open_dispute(payment=top_up.charge_id, amount=1_000)
    standin.control.close_dispute(dispute=opened["id"], won=False)
    made = standin.control.refund(payment=pay(standin, tenant, 10).charge_id, amount=250)
    now = utc_now() + timedelta(seconds=1)
    events = [
        ("charge.dispute.funds_withdrawn", opened["id"]),
        ("charge.dispute.closed", opened["id"]),
        ("refund.created", made["id"]),
    ]
    for position in order:
        kind, object_id = events[position]
        handler = find_handler(kind)
        assert handler is not None
        assert handler(object_id=object_id, now=now)
    assert credits_of(tenant.id) == [
        ("CHARGEBACK", -10 * UNIT),
        ("REFUND", -250 * UNIT // 100),
        ("TOP_UP", 10 * UNIT),
        ("TOP_UP", 20 * UNIT),
    ]
    assert disputes_of(top_up)[0].status == "lost"


def test_it_waits_for_a_payment_that_is_not_credited(
    standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quotas.payments import fulfilment

    tenant = make_tenant(granted=None)
    top_up = begin(tenant)
    assert top_up.session_id is not None
    standin.control.complete_session(top_up.session_id)
    opened = standin.control.open_dispute(payment=top_up.session_id)
    with monkeypatch.context() as broken:
        broken.setattr(fulfilment, "apply_intent", lambda **_: None)
        with pytest.raises(NotCreditedYet):
            apply_dispute(dispute_id=opened["id"], now=utc_now())
    assert apply_dispute(dispute_id=opened["id"], now=utc_now())
