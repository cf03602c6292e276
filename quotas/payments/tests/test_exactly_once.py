"""Whoever hears of a payment, and however many at once: it is credited once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest
from django.db import IntegrityError, connections, transaction

from devstack.stripe_standin.testing import Standin
from portal.kit.clock import utc_now
from portal.kit.money import NANOS_PER_UNIT
from quotas.models import AccountKind, TopUp, TopUpState
from quotas.payments import inbox, polling
from quotas.payments.fulfilment import (
    PaidFacts,
    TopUpNotFound,
    apply_session,
    apply_top_up,
    credit_top_up,
)
from quotas.payments.tests.stripe_side import (
    begin,
    credits_of,
    event_about,
    session_of,
    signed,
    top_up_of,
)
from tenants.scope import role_scope
from tests.database import money_of, rows_of
from tests.factories import make_tenant

PARALLEL = 50


def test_fifty_that_hear_of_a_payment_at_once_credit_it_once(standin: Standin) -> None:
    """Landings, webhooks and pollers, all let go in the same moment."""
    tenant = make_tenant(granted=None)
    top_up = begin(tenant)
    session = session_of(top_up)
    # What other tests left at Stripe is not what the pollers are to find.
    polling.poll_events(now=utc_now())
    standin.control.complete_session(session)
    now = utc_now()
    outcomes: Counter[str] = Counter()

    def land() -> None:
        outcomes[f"landing {apply_session(session_id=session, now=now)}"] += 1

    def receive() -> None:
        event = event_about(session)
        body, signature = signed(event, standin.webhook_secret)
        with role_scope("operator"):
            inbox.receive_event(body=body, signature=signature, now=now)
        outcomes[f"webhook {inbox.process_event(event_id=event['id'], now=now)}"] += 1

    def poll() -> None:
        polling.poll_events(now=now)
        outcomes["poller"] += 1

    def poll_top_ups() -> None:
        polling.poll_open_top_ups(now=now + timedelta(minutes=1))
        outcomes["poller of top-ups"] += 1

    _at_once([land] * 20 + [receive] * 20 + [poll] * 5 + [poll_top_ups] * 5)
    print(f"\n{PARALLEL} at once: {dict(outcomes)}")
    assert outcomes["landing PAID"] == 20
    assert outcomes["webhook PROCESSED"] == 20
    assert credits_of(tenant.id) == [("TOP_UP", 20 * NANOS_PER_UNIT)]
    assert money_of(tenant.id).paid == 20 * NANOS_PER_UNIT
    assert len(rows_of("quotas_topup", tenant_id=tenant.id)) == 1


def _at_once(calls: list[Callable[[], None]]) -> None:
    barrier = Barrier(len(calls))

    def run(call: Callable[[], None]) -> None:
        try:
            barrier.wait(30)
            call()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(calls)) as pool:
        for done in [pool.submit(run, call) for call in calls]:
            done.result()


def test_a_debt_is_paid_first(standin: Standin) -> None:
    from portal.kit.ids import transfer_id
    from quotas.ledger.payments import pay_back
    from quotas.models import TransferKind

    tenant = make_tenant(granted=None)
    with role_scope("operator"), transaction.atomic(using="operator"):
        pay_back(
            transfer_id=transfer_id(TransferKind.ADJUSTMENT, f"test:{tenant.id}"),
            kind=TransferKind.ADJUSTMENT,
            tenant_id=tenant.id,
            amount_nanos=15 * NANOS_PER_UNIT,
            source=AccountKind.GOODWILL,
            is_forced=True,
            reason="for the test",
        )
    assert money_of(tenant.id).receivable == -15 * NANOS_PER_UNIT
    top_up = begin(tenant)
    standin.control.complete_session(session_of(top_up))
    assert apply_top_up(top_up_id=top_up.id, now=utc_now()) == TopUpState.PAID
    assert (money_of(tenant.id).receivable, money_of(tenant.id).paid) == (0, 5 * NANOS_PER_UNIT)


def test_credit_is_given_with_the_callers_transaction_or_not_at_all(standin: Standin) -> None:
    tenant = make_tenant(granted=None)
    top_up = begin(tenant)
    paid = PaidFacts(20 * NANOS_PER_UNIT, charge_id=f"ch_{top_up.id.hex}")

    def credit(facts: PaidFacts = paid) -> bool:
        return credit_top_up(
            top_up_id=top_up.id, paid=facts, source_account=AccountKind.STRIPE_CLEARING, now=utc_now()
        )

    with role_scope("operator"):
        with transaction.atomic(using="operator"):
            assert credit()
            transaction.set_rollback(True, using="operator")
        assert (money_of(tenant.id).paid, top_up_of(top_up.id).state) == (0, TopUpState.OPEN)
        assert [credit(), credit(), credit(PaidFacts(NANOS_PER_UNIT))] == [True, False, False]
        with pytest.raises(TopUpNotFound):
            credit_top_up(
                top_up_id=tenant.id, paid=paid, source_account=AccountKind.STRIPE_CLEARING, now=utc_now()
            )
    assert money_of(tenant.id).paid == 20 * NANOS_PER_UNIT


@pytest.mark.parametrize(
    "change",
    [
        {"state": TopUpState.OPEN},
        {"state": TopUpState.FAILED},
        {"amount_nanos": 1},
        {"transfer_id": None},
        {"currency": "CNY"},
    ],
)
def test_the_database_keeps_what_is_paid(standin: Standin, change: dict[str, object]) -> None:
    tenant = make_tenant(granted=None)
    top_up = begin(tenant)
    standin.control.complete_session(session_of(top_up))
    apply_top_up(top_up_id=top_up.id, now=utc_now())
    with role_scope("operator"), pytest.raises(IntegrityError):
        TopUp.objects.filter(id=top_up.id).update(**change)
