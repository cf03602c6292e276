"""Refunds that operators order: debited first, asked of Stripe, and credited again when they fail."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.conf import settings
from django.db import transaction

from devstack.stripe_standin.testing import Standin
from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from portal.kit.money import NANOS_PER_UNIT as UNIT
from quotas.limits.standing import LIFETIME_PAID
from quotas.models import CreditNote, OperationKind, OperationState, RefundState
from quotas.payments import giving_back, refunds, sending
from quotas.payments.client import PaymentsNotConfigured
from quotas.payments.disputes import apply_dispute
from quotas.payments.moneyback_queries import Obstacle, refundable
from quotas.payments.tests.moneyback_side import (
    an_operator,
    assert_audit_holds,
    held,
    make_dear_model,
    pay,
    refund,
    refunds_of,
    spend,
    tax_of,
    taxed,
)
from quotas.payments.tests.stripe_side import begin, credits_of, operation_of
from tenants.operations import audit
from tenants.scope import role_scope
from tenants.tests.people import at_once
from tests.database import connected, money_of, rows_of
from tests.factories import add_granted, make_tenant
from tests.factories_bank import make_receipt
from tests.factories_payments import make_dispute, make_top_up
from tests.factories_postpaid import make_credit_note, make_monthly_invoice


def at_stripe(standin: Standin, charge_id: str) -> list[tuple[int, str]]:
    """Stripe's refunds of a charge: cents and status."""
    books = standin.control.books()["refunds"]
    return [(row["amount"], row["status"]) for row in books if row["charge"] == charge_id]


def test_all_of_it_goes_back(standin: Standin) -> None:
    tenant = make_tenant(granted=None)
    top_up, actor = pay(standin, tenant), an_operator()
    ordered = refund(top_up, actor=actor)
    assert ordered.state == RefundState.SUCCEEDED
    (row,) = refunds_of(top_up)
    assert (row.id, row.gross_nanos, row.ordered_by_id) == (ordered.refund_id, 20 * UNIT, actor.user_id)
    assert at_stripe(standin, top_up.charge_id) == [(2_000, "succeeded")]
    assert money_of(tenant.id).paid == 0
    # The events of it find it done.
    assert row.refund_id is not None
    for _ in range(2):
        assert refunds.apply_refund(refund_id=row.refund_id, now=utc_now())
        assert refunds.apply_charge_refunds(charge_id=top_up.charge_id, now=utc_now())
    assert credits_of(tenant.id) == [("REFUND", -20 * UNIT), ("TOP_UP", 20 * UNIT)]
    (event,) = [
        one for one in rows_of("tenants_auditevent", tenant_id=tenant.id) if "refund" in one["action"]
    ]
    assert (event["action"], event["actor_id"], event["is_internal"]) == ("refund.order", actor.user_id, True)
    with role_scope("operator"):
        left = refundable(top_up_id=top_up.id)
    assert left is not None
    assert (left.amount_nanos, left.obstacle) == (0, Obstacle.GONE)
    with pytest.raises(refunds.NotRefundable):
        refund(top_up)
    assert_audit_holds()


def test_parts_of_it_take_their_tax_and_the_last_takes_the_rest(
    standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = make_tenant(granted=None)
    with taxed(standin, monkeypatch, 7.77):
        top_up = pay(standin, tenant, 10)
    assert top_up.tax_nanos == 78 * UNIT // 100
    for units in (3.33, 3.33, None):
        refund(top_up, units)
    rows = refunds_of(top_up)
    assert sum(row.tax_nanos for row in rows) == top_up.tax_nanos
    assert sum(row.amount_nanos for row in rows) == top_up.amount_nanos
    assert sum(cents for cents, _ in at_stripe(standin, top_up.charge_id)) * UNIT // 100 == top_up.gross_nanos
    assert (tax_of(tenant.id), money_of(tenant.id).paid) == (0, 0)


def test_only_what_is_neither_spent_nor_held_nor_owed(standin: Standin) -> None:
    tenant, model = make_tenant(granted=None), make_dear_model()
    top_up = pay(standin, tenant, 20)
    spend(tenant, model, 5)
    with held(tenant, model, 3):
        with role_scope("operator"):
            most = refundable(top_up_id=top_up.id)
        assert most is not None
        # A hold covers a little more than whole units; what goes back is in whole cents.
        assert most.amount_nanos == 11_99 * UNIT // 100
        for units in (12, 11.995, 0, -1):
            with pytest.raises((refunds.NotRefundable, refunds.InvalidRefund)):
                refund(top_up, units)
        refund(top_up)
    assert at_stripe(standin, top_up.charge_id) == [(11_99, "succeeded")]
    spend(tenant, model, 3)
    refund(top_up, 0.01)
    with pytest.raises(refunds.NotRefundable) as error:
        refund(top_up, 1)
    assert error.value.obstacle == Obstacle.SPENT
    # Free credit is nobody's to pay back with.
    add_granted(tenant.id, 50 * UNIT)
    with pytest.raises(refunds.NotRefundable):
        refund(top_up, 1)


def test_what_cannot_be_refunded(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = make_tenant(granted=None)
    for top_up_id, obstacle in (
        (begin(tenant).id, Obstacle.NOT_PAID),
        (make_receipt(tenant, is_approved=True).id, Obstacle.BY_BANK),
    ):
        with pytest.raises(refunds.NotRefundable) as error:
            refunds.order_refund(
                top_up_id=top_up_id, amount_nanos=None, reason="why not", actor=an_operator(), now=utc_now()
            )
        assert error.value.obstacle == obstacle
    with pytest.raises(refunds.TopUpNotFound):
        refunds.order_refund(
            top_up_id=uuid7(), amount_nanos=None, reason="why not", actor=an_operator(), now=utc_now()
        )
    top_up = pay(standin, tenant)
    with pytest.raises(ValueError, match="by operators"):
        refund(top_up, actor=audit.SYSTEM)
    with (
        pytest.raises(sending.TransactionOpen),
        role_scope("operator"),
        transaction.atomic(using="operator"),
    ):
        refund(top_up)
    monkeypatch.setattr(settings, "STRIPE_SECRET_KEY", "")
    with pytest.raises(PaymentsNotConfigured):
        refund(top_up)
    assert refunds_of(top_up) == []


def test_what_a_dispute_has_or_may_get_is_not_refunded(standin: Standin) -> None:
    tenant = make_tenant(granted=None)
    for status, is_withdrawn, is_reinstated, left in (
        ("needs_response", True, False, 14),
        ("under_review", False, False, 14),
        ("lost", True, False, 14),
        ("won", True, True, 20),
        ("warning_needs_response", False, False, 20),
    ):
        top_up_id = make_top_up(tenant, amount="20", tax="0")
        make_dispute(
            top_up_id, amount="6", status=status, is_withdrawn=is_withdrawn, is_reinstated=is_reinstated
        )
        with role_scope("operator"):
            found = refundable(top_up_id=top_up_id)
        assert found is not None
        assert found.amount_nanos == left * UNIT, status


def test_one_operator_refunds_so_much_a_day(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(settings.TUNING, "SLUICE_REFUND_LIMIT_UNITS", 25)
    actor = an_operator()
    first, second = (pay(standin, make_tenant(granted=None)) for _ in range(2))
    refund(first, actor=actor)
    with pytest.raises(giving_back.AboveLimit) as error:
        refund(second, actor=actor)
    assert error.value.left_nanos == 5 * UNIT
    assert refund(second, 5, actor=actor).state == RefundState.SUCCEEDED
    assert refund(second, 5).state == RefundState.SUCCEEDED
    # A day later there is room again.
    later = utc_now() + timedelta(hours=25)
    refunds.order_refund(
        top_up_id=second.id, amount_nanos=UNIT, reason="for the test", actor=actor, now=later
    )


def test_what_an_operator_gave_back_by_credit_notes_counts(
    standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(settings.TUNING, "SLUICE_REFUND_LIMIT_UNITS", 20)
    tenant = make_tenant(granted=None)
    top_up = pay(standin, tenant)
    note_id = make_credit_note(make_monthly_invoice(tenant), amount="1.00")
    with role_scope("operator"):
        operator_id = CreditNote.objects.get(id=note_id).ordered_by_id
    assert operator_id is not None
    with pytest.raises(giving_back.AboveLimit) as error:
        refund(top_up, 20, actor=audit.operator(operator_id))
    assert error.value.left_nanos == 19 * UNIT
    assert refund(top_up, 19, actor=audit.operator(operator_id)).state == RefundState.SUCCEEDED


def test_ten_at_once_refund_no_more_than_there_is(standin: Standin) -> None:
    tenant = make_tenant(granted=None)
    top_up = pay(standin, tenant)
    answers = at_once([lambda: refund(top_up, 4) for _ in range(10)])
    done = [one for one in answers if isinstance(one, refunds.Ordered)]
    refused = [one for one in answers if isinstance(one, refunds.NotRefundable)]
    assert (len(done), len(refused)) == (5, 5), answers
    assert at_stripe(standin, top_up.charge_id) == [(400, "succeeded")] * 5
    assert money_of(tenant.id).paid == 0


def test_one_that_stripe_refuses_is_credited_again(standin: Standin) -> None:
    tenant = make_tenant(granted=None)
    top_up = pay(standin, tenant)
    # Somebody was faster in the dashboard, and we have not heard of it.
    standin.control.refund(payment=top_up.charge_id, amount=1_500)
    ordered = refund(top_up)
    assert ordered.state == RefundState.FAILED
    assert ordered.failure_code
    assert money_of(tenant.id).paid == 20 * UNIT
    refunds.apply_charge_refunds(charge_id=top_up.charge_id, now=utc_now())
    assert money_of(tenant.id).paid == 5 * UNIT
    assert refund(top_up).state == RefundState.SUCCEEDED
    assert sum(cents for cents, _ in at_stripe(standin, top_up.charge_id)) == 2_000
    assert_audit_holds()


@pytest.mark.parametrize("is_settled_first", [False, True])
def test_one_that_fails_later_is_credited_again_once(standin: Standin, is_settled_first: bool) -> None:
    tenant = make_tenant(granted=None)
    top_up = pay(standin, tenant)
    standin.control.settings(pending_refunds=True)
    try:
        assert refund(top_up, 8).state == RefundState.PENDING
    finally:
        standin.control.settings(pending_refunds=False)
    (row,) = refunds_of(top_up)
    assert row.refund_id is not None
    assert money_of(tenant.id).paid == 12 * UNIT
    if is_settled_first:
        standin.control.settle_refund(refund=row.refund_id)
        refunds.apply_refund(refund_id=row.refund_id, now=utc_now())
        assert refunds_of(top_up)[0].state == RefundState.SUCCEEDED
    standin.control.fail_refund(refund=row.refund_id, reason="expired_or_canceled_card")
    for _ in range(3):
        refunds.apply_refund(refund_id=row.refund_id, now=utc_now())
    (row,) = refunds_of(top_up)
    assert (row.state, row.failure_code) == (RefundState.FAILED, "expired_or_canceled_card")
    assert money_of(tenant.id).paid == 20 * UNIT
    assert [kind for kind, _ in credits_of(tenant.id)].count("REFUND_REVERSED") == 1
    assert refund(top_up).state == RefundState.SUCCEEDED


@pytest.mark.parametrize("fault", ["error_before", "error_after", "answer_lost", "rate_limit"])
@pytest.mark.parametrize("event_first", [False, True])
def test_an_answer_that_did_not_come(standin: Standin, fault: str, event_first: bool) -> None:
    """It stays debited and pending; sent again with the same key, or told by an event, it is one refund."""
    tenant = make_tenant(granted=None)
    top_up = pay(standin, tenant)
    standin.control.fault(fault, match="POST /v1/refunds")
    ordered = refund(top_up, 8)
    assert ordered.state == RefundState.PENDING
    assert money_of(tenant.id).paid == 12 * UNIT
    operation = operation_of(ordered.refund_id, "REFUND")
    if event_first:
        for row in standin.control.books()["refunds"]:
            if row["charge"] == top_up.charge_id:
                refunds.apply_refund(refund_id=row["id"], now=utc_now())
    later = utc_now() + timedelta(hours=24 if fault == "error_after" else 0, minutes=5)
    sending.send(operation_id=operation.id, now=later)
    (row,) = refunds_of(top_up)
    assert row.state == RefundState.SUCCEEDED
    assert at_stripe(standin, top_up.charge_id) == [(800, "succeeded")]
    assert credits_of(tenant.id) == [("REFUND", -8 * UNIT), ("TOP_UP", 20 * UNIT)]


def test_nobody_rises_by_what_went_back(standin: Standin) -> None:
    tenant = make_tenant(granted=None)
    refund(pay(standin, tenant, 30), 10)
    make_dispute(pay(standin, tenant, 15).id, status="lost")
    with connected("operator") as connection:
        row = connection.execute(LIFETIME_PAID, {"tenant": tenant.id}).fetchone()
    assert row == (tenant.id, 20 * UNIT)


def test_an_answer_that_never_comes_gives_the_money_back(standin: Standin) -> None:
    tenant = make_tenant(granted=None)
    top_up = pay(standin, tenant)
    standin.control.fault("error_stored", match="POST /v1/refunds")
    ordered = refund(top_up, 8)
    operation = operation_of(ordered.refund_id, "REFUND")
    sent = sending.send(operation_id=operation.id, now=utc_now() + timedelta(hours=24))
    assert sent.state == OperationState.ABANDONED
    assert refunds_of(top_up)[0].state == RefundState.FAILED
    assert money_of(tenant.id).paid == 20 * UNIT
    assert at_stripe(standin, top_up.charge_id) == []


def test_what_the_account_does_not_have_is_none_of_ours(standin: Standin) -> None:
    assert refunds.apply_refund(refund_id="re_nothing", now=utc_now()) is False
    assert refunds.apply_charge_refunds(charge_id="ch_nothing", now=utc_now()) is False
    assert apply_dispute(dispute_id="du_nothing", now=utc_now()) is False


def test_one_that_failed_before_its_answer_came(standin: Standin) -> None:
    """The event tells what Stripe has now; the answer that is told again is the one of long ago."""
    tenant = make_tenant(granted=None)
    top_up = pay(standin, tenant)
    standin.control.fault("answer_lost", match="POST /v1/refunds")
    ordered = refund(top_up, 8)
    (made,) = (row for row in standin.control.books()["refunds"] if row["charge"] == top_up.charge_id)
    standin.control.fail_refund(refund=made["id"], reason="unknown")
    assert refunds.apply_refund(refund_id=made["id"], now=utc_now())
    operation = operation_of(ordered.refund_id, "REFUND")
    sent = sending.send(operation_id=operation.id, now=utc_now() + timedelta(minutes=1))
    assert sent.state == OperationState.DONE
    (row,) = refunds_of(top_up)
    assert (row.state, row.refund_id) == (RefundState.FAILED, made["id"])
    assert money_of(tenant.id).paid == 20 * UNIT


def test_one_that_was_given_up_and_is_there_all_the_same(
    standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """We credited it again; when we hear that Stripe did it, it is a refund of Stripe's."""
    tenant = make_tenant(granted=None)
    top_up = pay(standin, tenant)
    standin.control.fault("answer_lost", match="POST /v1/refunds")
    ordered = refund(top_up, 8)
    operation = operation_of(ordered.refund_id, "REFUND")
    with monkeypatch.context() as blind:
        blind.setitem(sending.LOOKUPS, OperationKind.REFUND, lambda *_: None)
        sent = sending.send(operation_id=operation.id, now=utc_now() + timedelta(hours=24))
    assert sent.state == OperationState.ABANDONED
    assert money_of(tenant.id).paid == 20 * UNIT
    refunds.apply_charge_refunds(charge_id=top_up.charge_id, now=utc_now())
    assert money_of(tenant.id).paid == 12 * UNIT
    first, second = refunds_of(top_up)
    assert (first.state, second.state, second.ordered_by_id) == (
        RefundState.FAILED,
        RefundState.SUCCEEDED,
        None,
    )
    assert_audit_holds()


def test_one_made_in_the_dashboard_takes_what_is_left_and_the_rest_is_owed(standin: Standin) -> None:
    tenant, model = make_tenant(granted=None), make_dear_model()
    top_up = pay(standin, tenant)
    spend(tenant, model, 15)
    made = standin.control.refund(payment=top_up.charge_id)
    answers = at_once(
        [
            *(lambda: refunds.apply_refund(refund_id=made["id"], now=utc_now()) for _ in range(5)),
            *(
                lambda: refunds.apply_charge_refunds(charge_id=top_up.charge_id, now=utc_now())
                for _ in range(5)
            ),
        ]
    )
    assert answers == [True] * 10
    (row,) = refunds_of(top_up)
    assert (row.state, row.ordered_by_id, row.gross_nanos) == (RefundState.SUCCEEDED, None, 20 * UNIT)
    assert (money_of(tenant.id).paid, money_of(tenant.id).receivable) == (0, -15 * UNIT)
    # It fails after all: what is owed is paid first.
    standin.control.fail_refund(refund=made["id"], reason="lost_or_stolen_card")
    refunds.apply_refund(refund_id=made["id"], now=utc_now())
    assert (money_of(tenant.id).paid, money_of(tenant.id).receivable) == (5 * UNIT, 0)
    assert_audit_holds()


def test_it_is_heard_of_before_the_payment_itself(standin: Standin) -> None:
    tenant = make_tenant(granted=None)
    top_up = begin(tenant)
    assert top_up.session_id is not None
    standin.control.complete_session(top_up.session_id)
    made = standin.control.refund(payment=top_up.session_id, amount=500)
    assert refunds.apply_refund(refund_id=made["id"], now=utc_now())
    assert money_of(tenant.id).paid == 15 * UNIT
