"""A recharge starts when it is due, once, within the cap, and what became of it is applied, once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import stripe
from django.conf import settings
from django.db import connections

from devstack.stripe_standin.testing import Standin
from portal.kit.clock import utc_now
from portal.kit.money import NANOS_PER_UNIT
from quotas.models import OperationState, RechargeState, TopUpSource, TopUpState
from quotas.payments import fulfilment, recharge, sending
from quotas.payments.client import stripe_client
from quotas.payments.customers import ensure_customer
from quotas.payments.recharge import charging
from quotas.payments.recharge.queries import month_of
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
from quotas.payments.tests.stripe_side import credits_of, operation_of
from quotas.tests.doors import admit, settle
from tenants.models import TenantState
from tests.database import connected, money_of
from tests.factories import (
    ModelFixture,
    add_paid,
    admission_row,
    enable,
    make_model,
    make_tenant,
    set_state,
    settlement_row,
)
from tests.factories_payments import make_recharge, make_top_up

HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def others_are_quiet(database: None) -> None:
    quiet_others()


@pytest.fixture(scope="module")
def model(database: None) -> ModelFixture:
    return make_model()


@pytest.mark.parametrize("currency", ["USD", "CNY"])
def test_it_buys_credit_below_the_threshold_and_not_again(standin: Standin, currency: str) -> None:
    tenant = recharging(standin, currency=currency)
    assert start() == recharge.StartReport(1, 1)
    assert start() == recharge.StartReport(0, 0)
    (top_up,) = recharges_of(tenant.id)
    assert (top_up.state, top_up.gross_nanos, top_up.tax_nanos) == ("PAID", 20 * NANOS_PER_UNIT, 0)
    assert top_up.method == "visa ···· 4242"
    assert top_up.receipt_url
    assert top_up.charge_id
    assert money_of(tenant.id).paid == 21 * NANOS_PER_UNIT
    (intent,) = intents_of(standin, tenant)
    assert (intent["amount"], intent["currency"]) == (2000, currency.lower())
    assert intent["metadata"]["top_up"] == str(top_up)
    assert intent["metadata"]["tenant"] == tenant.public_id


@pytest.mark.parametrize(
    ("granted", "paid", "is_due"),
    [(None, "5.00", False), (None, "4.999999999", True), ("3.00", "2.00", False), ("2.50", "2.49", True)],
)
def test_what_counts_is_paid_and_granted(
    standin: Standin, granted: str | None, paid: str, is_due: bool
) -> None:
    tenant = recharging(standin, granted=granted, paid=paid)
    start()
    assert states_of(tenant.id) == (["PAID"] if is_due else [])


def test_what_running_calls_hold_counts_and_the_credit_line_does_not(
    standin: Standin, model: ModelFixture
) -> None:
    tenant = recharging(standin, paid="5.0002")
    enable(tenant, model)
    start()
    assert states_of(tenant.id) == []
    with connected("dataplane") as dataplane:
        admit(dataplane, admission_row(tenant, model))
    start()
    assert states_of(tenant.id) == ["PAID"]


@pytest.mark.parametrize("why", ["off", "paused", "suspended", "open", "retry", "no_key"])
def test_nothing_starts_when_it_must_not(standin: Standin, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    tenant = recharging(standin)
    changes: dict[str, dict[str, Any]] = {
        "off": {"state": RechargeState.OFF},
        "paused": {"state": RechargeState.PAUSED},
        "retry": {"retry_at": utc_now() + HOUR},
    }
    if why in changes:
        make_recharge(tenant, **changes[why])
    elif why == "suspended":
        set_state(tenant.id, TenantState.SUSPENDED)
    elif why == "open":
        make_top_up(tenant, source=TopUpSource.RECHARGE, state=TopUpState.PROCESSING)
    else:
        monkeypatch.setattr("django.conf.settings.STRIPE_SECRET_KEY", "")
    before = states_of(tenant.id)
    assert start() == recharge.StartReport(0, 0)
    assert states_of(tenant.id) == before


def test_the_cap_is_of_a_calendar_month_and_counts_what_is_open_and_paid(standin: Standin) -> None:
    tenant = recharging(standin, cap="40")
    month = datetime(2031, 1, 1, tzinfo=UTC)
    last = month - timedelta(seconds=1)
    for state, at in [(TopUpState.PAID, last), (TopUpState.FAILED, month), (TopUpState.PAID, month)]:
        make_top_up(tenant, source=TopUpSource.RECHARGE, state=state, at=at)
    make_top_up(tenant, at=month)
    make_recharge(
        tenant,
        threshold_nanos=500 * NANOS_PER_UNIT,
        monthly_cap_nanos=40 * NANOS_PER_UNIT,
        payment_method_id=recharge_of(tenant.id).payment_method_id,
    )
    start(month + HOUR)
    assert states_of(tenant.id).count("PAID") == 3
    start(month + 2 * HOUR)
    assert states_of(tenant.id).count("PAID") == 3
    start(month + timedelta(days=31))
    assert states_of(tenant.id).count("PAID") == 4


def test_months_are_half_open_and_in_utc() -> None:
    eve = datetime(2026, 12, 31, 23, 59, tzinfo=UTC)
    new_year = datetime(2027, 1, 1, tzinfo=UTC)
    assert month_of(eve) == (datetime(2026, 12, 1, tzinfo=UTC), new_year)
    assert month_of(new_year)[0] == new_year


def test_fifty_spends_around_the_threshold_start_one_recharge(standin: Standin, model: ModelFixture) -> None:
    """Real admissions and settlements cross the threshold while six runs look for what is due."""
    tenant = recharging(standin, paid="5.01", amount="20", cap="20")
    enable(tenant, model)
    reports: list[recharge.StartReport] = []

    def spend(_number: int) -> None:
        with connected("dataplane") as connection:
            row = admission_row(tenant, model)
            admit(connection, row, block_ms=5_000)
            settle(connection, settlement_row(row, prompt_tokens=100, completion_tokens=100), block_ms=5_000)

    def look(_number: int) -> None:
        try:
            reports.extend(start() for _ in range(5))
        finally:
            connections.close_all()

    with ThreadPoolExecutor(16) as pool:
        work = [pool.submit(spend, number) for number in range(50)]
        work += [pool.submit(look, number) for number in range(6)]
        for each in work:
            each.result(timeout=60)
    start()
    assert sum(report.started for report in reports) <= 1
    assert states_of(tenant.id) == ["PAID"]
    assert len(intents_of(standin, tenant)) == 1
    assert [kind for kind, _ in credits_of(tenant.id)].count("TOP_UP") == 2


def test_without_a_cap_in_the_way_parallel_runs_still_start_one(standin: Standin) -> None:
    tenant = recharging(standin, cap="1000")

    def look(_number: int) -> None:
        try:
            start()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(look, range(8)))
    assert states_of(tenant.id) == ["PAID"]
    assert len(intents_of(standin, tenant)) == 1


def test_the_worker_dies_between_commit_and_send(standin: Standin) -> None:
    tenant = recharging(standin)
    now = utc_now()
    assert charging.commit_recharge(tenant_id=tenant.id, now=now) is not None
    assert charging.commit_recharge(tenant_id=tenant.id, now=now) is None
    assert start(now) == recharge.StartReport(0, 0)
    assert intents_of(standin, tenant) == []
    sending.sweep_operations(now=now + timedelta(minutes=1))
    (top_up,) = recharges_of(tenant.id)
    assert top_up.state == TopUpState.OPEN
    fulfilment.apply_top_up(top_up_id=top_up.id, now=now)
    assert money_of(tenant.id).paid == 21 * NANOS_PER_UNIT
    assert len(intents_of(standin, tenant)) == 1


def test_the_worker_dies_between_send_and_credit(standin: Standin) -> None:
    tenant = recharging(standin)
    now = utc_now()
    operation_id = charging.commit_recharge(tenant_id=tenant.id, now=now)
    assert operation_id is not None
    sent = sending.send(operation_id=operation_id, now=now)
    assert sent.state == OperationState.DONE
    assert states_of(tenant.id) == ["OPEN"]
    assert start(now) == recharge.StartReport(0, 0)
    for _ in range(3):
        assert fulfilment.apply_intent(intent_id=sent.object_id, now=now) == TopUpState.PAID
    assert money_of(tenant.id).paid == 21 * NANOS_PER_UNIT


@pytest.mark.parametrize("fault", ["error_after", "answer_lost", "error_before"])
def test_an_unknown_outcome_starts_nothing_new_and_resolves(standin: Standin, fault: str) -> None:
    tenant = recharging(standin)
    now = utc_now()
    standin.control.fault(fault, match="POST /v1/payment_intents", times=1)
    assert start(now) == recharge.StartReport(1, 0)
    (top_up,) = recharges_of(tenant.id)
    assert operation_of(top_up.id, "RECHARGE").state == OperationState.PENDING
    assert start(now) == recharge.StartReport(0, 0)
    # The key's own answer, or after its life what carries the operation's id, says what became of it.
    for later in (timedelta(minutes=2), timedelta(hours=24)):
        sending.sweep_operations(now=now + later)
    assert operation_of(top_up.id, "RECHARGE").state == OperationState.DONE
    fulfilment.apply_top_up(top_up_id=top_up.id, now=now)
    assert states_of(tenant.id) == ["PAID"]
    assert len(intents_of(standin, tenant)) == 1


def test_a_request_that_never_arrived_is_given_up_and_not_declined(standin: Standin) -> None:
    tenant = recharging(standin)
    now = utc_now()
    operation_id = charging.commit_recharge(tenant_id=tenant.id, now=now)
    assert operation_id is not None
    standin.control.fault("error_before", match="POST /v1/payment_intents", times=1)
    sending.send(operation_id=operation_id, now=now)
    sending.sweep_operations(now=now + timedelta(hours=24))
    (top_up,) = recharges_of(tenant.id)
    assert (top_up.state, top_up.failure_code) == ("FAILED", "abandoned")
    row = recharge_of(tenant.id)
    assert (row.state, row.declines) == ("ON", 0)
    assert start(now + timedelta(hours=24)) == recharge.StartReport(0, 0)
    start(now + timedelta(hours=26))
    assert states_of(tenant.id) == ["FAILED", "PAID"]


def test_three_declines_switch_it_off_with_notice(standin: Standin) -> None:
    tenant = recharging(standin, behaviour="insufficient_funds")
    now = utc_now()
    start(now)
    row = recharge_of(tenant.id)
    assert (row.state, row.declines, row.retry_at) == ("ON", 1, now + HOUR)
    assert recharges_of(tenant.id)[0].failure_code == "insufficient_funds"
    start(now + HOUR - timedelta(seconds=1))
    assert states_of(tenant.id) == ["FAILED"]
    start(now + HOUR)
    assert recharge_of(tenant.id).retry_at == now + 25 * HOUR
    start(now + 24 * HOUR)
    assert states_of(tenant.id) == ["FAILED"] * 2
    start(now + 25 * HOUR)
    row = recharge_of(tenant.id)
    assert (row.state, row.state_reason, row.declines) == ("OFF", "DECLINED", 3)
    start(now + 100 * HOUR)
    assert states_of(tenant.id) == ["FAILED"] * 3
    assert subjects_of(tenant.id) == [
        "a payment of $20.00 was declined",
        "a payment of $20.00 was declined",
        "auto-recharge is switched off",
    ]
    # What was declined can never be paid any more.
    assert {intent["status"] for intent in intents_of(standin, tenant)} == {"canceled"}


def test_a_payment_that_passes_forgets_the_declines(standin: Standin) -> None:
    tenant = recharging(standin)
    now = utc_now()
    standin.control.decline_next(count=2)
    start(now)
    start(now + HOUR)
    assert recharge_of(tenant.id).declines == 2
    start(now + 25 * HOUR)
    row = recharge_of(tenant.id)
    assert (row.state, row.declines, row.retry_at) == ("ON", 0, None)
    assert states_of(tenant.id) == ["FAILED", "FAILED", "PAID"]


def test_the_news_of_a_decline_may_come_often(standin: Standin) -> None:
    tenant = recharging(standin, behaviour="declined")
    start()
    (top_up,) = recharges_of(tenant.id)
    assert top_up.payment_intent_id is not None
    for _ in range(3):
        fulfilment.apply_intent(intent_id=top_up.payment_intent_id, now=utc_now())
    assert recharge_of(tenant.id).declines == 1
    assert len(subjects_of(tenant.id)) == 1


def test_a_card_that_is_gone_is_declined(standin: Standin) -> None:
    tenant = recharging(standin)
    make_recharge(tenant, payment_method_id="pm_that_is_gone")
    start()
    row = recharge_of(tenant.id)
    assert (row.state, row.declines) == ("ON", 1)
    assert states_of(tenant.id) == ["FAILED"]
    assert money_of(tenant.id).paid == NANOS_PER_UNIT


def test_a_debit_that_takes_its_time_blocks_the_next(standin: Standin) -> None:
    tenant = recharging(standin)
    customer = intents_of(standin, tenant)
    assert customer == []
    operation_id = charging.commit_recharge(tenant_id=tenant.id, now=utc_now())
    assert operation_id is not None
    (top_up,) = recharges_of(tenant.id)
    intent = {
        "id": "pi_slow",
        "status": "processing",
        "amount": 2000,
        "currency": "usd",
        "livemode": False,
        "customer": operation_of(top_up.id, "RECHARGE").parameters["customer"],
        "metadata": operation_of(top_up.id, "RECHARGE").parameters["metadata"],
    }
    assert recharge.apply_recharge_intent(top_up_id=top_up.id, intent=intent, now=utc_now()) == "PROCESSING"
    assert start() == recharge.StartReport(0, 0)
    paid = intent | {"status": "succeeded", "amount_received": 2000, "latest_charge": {"id": "ch_slow"}}
    assert recharge.apply_recharge_intent(top_up_id=top_up.id, intent=paid, now=utc_now()) == "PAID"
    assert money_of(tenant.id).paid == 21 * NANOS_PER_UNIT


@pytest.mark.parametrize(
    "change",
    [
        {"amount": 100, "amount_received": 100},
        {"amount_received": 100},
        {"currency": "cny"},
        {"customer": "cus_of_somebody_else"},
        {"metadata": {}},
        {"livemode": True},
    ],
)
def test_a_payment_that_is_not_what_was_asked_for_credits_nothing(
    standin: Standin, change: dict[str, object]
) -> None:
    tenant = recharging(standin)
    operation_id = charging.commit_recharge(tenant_id=tenant.id, now=utc_now())
    assert operation_id is not None
    sent = sending.send(operation_id=operation_id, now=utc_now())
    (top_up,) = recharges_of(tenant.id)
    intent = stripe_client().v1.payment_intents.retrieve(sent.object_id).to_dict() | change
    with pytest.raises(recharge.UnexpectedIntent):
        recharge.apply_recharge_intent(top_up_id=top_up.id, intent=intent, now=utc_now())
    assert money_of(tenant.id).paid == NANOS_PER_UNIT
    # It stays open, so that nothing else is charged before somebody has looked.
    assert start() == recharge.StartReport(0, 0)


def test_an_unreachable_stripe_stops_the_run(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    tenants = [recharging(standin) for _ in range(3)]
    monkeypatch.setattr("django.conf.settings.STRIPE_API_BASE", "http://127.0.0.1:9")
    assert start().started == 1
    assert sum(len(states_of(tenant.id)) for tenant in tenants) == 1


def test_enough_balance_again_stops_it(standin: Standin) -> None:
    tenant = recharging(standin)
    add_paid(tenant.id, 100 * NANOS_PER_UNIT)
    assert charging.commit_recharge(tenant_id=tenant.id, now=utc_now()) is None


def test_an_organization_without_a_customer_is_left_alone(standin: Standin) -> None:
    tenant = make_tenant(granted=None)
    make_recharge(tenant)
    assert start() == recharge.StartReport(0, 0)
    assert save_card(standin, tenant)["customer"]


def test_tax_comes_on_top(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(settings.TUNING, "SLUICE_PAYMENTS_TAX", 1)
    standin.control.settings(tax_percent=20.0)
    tenant = recharging(standin)
    stripe_client().v1.customers.update(
        ensure_customer(tenant_id=tenant.id, now=utc_now()), {"address": {"country": "DE"}}
    )
    assert start() == recharge.StartReport(1, 1)
    (top_up,) = recharges_of(tenant.id)
    assert top_up.amount_nanos == 20 * NANOS_PER_UNIT
    assert (top_up.gross_nanos, top_up.tax_nanos) == (24 * NANOS_PER_UNIT, 4 * NANOS_PER_UNIT)
    assert money_of(tenant.id).paid == 21 * NANOS_PER_UNIT
    (intent,) = intents_of(standin, tenant)
    assert intent["amount"] == 2400


def test_without_an_address_nobody_knows_the_tax(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(settings.TUNING, "SLUICE_PAYMENTS_TAX", 1)
    tenant = recharging(standin)
    assert start() == recharge.StartReport(0, 0)
    row = recharge_of(tenant.id)
    assert (row.state, row.state_reason) == ("OFF", "NO_ADDRESS")
    assert subjects_of(tenant.id) == ["auto-recharge is switched off"]


def test_a_calculation_that_fails_is_put_off(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(settings.TUNING, "SLUICE_PAYMENTS_TAX", 1)
    tenant = recharging(standin)
    now = utc_now()
    refused = stripe.InvalidRequestError("No such tax code", None, http_status=400)
    with monkeypatch.context() as patched:
        patched.setattr("stripe.tax.CalculationService.create", _raising(refused))
        assert start(now) == recharge.StartReport(0, 0)
    assert recharge_of(tenant.id).retry_at == now + HOUR
    assert recharge_of(tenant.id).state == RechargeState.ON


def _raising(error: Exception) -> Any:
    def call(*_arguments: Any, **_options: Any) -> Any:
        raise error

    return call
