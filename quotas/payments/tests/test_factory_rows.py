"""The rows that tests of payments begin with satisfy what the database asks of real ones."""

from __future__ import annotations

import pytest

from quotas.models import EventState, OperationState, RefundState, TopUpSource, TopUpState
from tests.database import money_of, rows_of
from tests.factories import make_tenant
from tests.factories_payments import (
    make_balance_transaction,
    make_dispute,
    make_event,
    make_every_payment,
    make_operation,
    make_refund,
    make_top_up,
)

pytestmark = pytest.mark.usefixtures("database")
UNIT = 10**9


def test_every_state_is_a_row() -> None:
    tenant = make_tenant(granted=None)
    for state in TopUpState:
        make_top_up(tenant, state=state, tax="1.00")
    # What a monthly invoice pays for cannot be without one: test_postpaid.py.
    sources = [source for source in TopUpSource if source != TopUpSource.INVOICE]
    for source in sources:
        make_top_up(tenant, source=source)
    assert len(rows_of("quotas_topup", tenant_id=tenant.id)) == len(TopUpState) + len(sources)
    assert money_of(tenant.id).paid == 4 * 20 * UNIT
    paid = make_top_up(tenant, amount="30", tax="3")
    for refund_state in RefundState:
        make_refund(paid, amount="1", tax="0.10", state=refund_state)
    assert money_of(tenant.id).paid == (4 * 20 + 30 - 2) * UNIT
    for operation_state in OperationState:
        make_operation(tenant, state=operation_state)
    for event_state in EventState:
        make_event(state=event_state)
    make_balance_transaction(fee="0.88")
    make_balance_transaction(amount="-3", fee="0")


def test_what_a_dispute_takes_and_gives_back() -> None:
    tenant = make_tenant(granted=None)
    lost = make_dispute(make_top_up(tenant), status="lost")
    assert money_of(tenant.id).paid == 0
    make_dispute(make_top_up(tenant), status="won", is_reinstated=True)
    assert money_of(tenant.id).paid == 20 * UNIT
    assert len(rows_of("quotas_disputemovement", dispute_id=lost)) == 1


def test_every_table_gets_a_row() -> None:
    tenant = make_tenant()
    ids = make_every_payment(tenant)
    for table in ("topup", "refund", "dispute", "disputemovement", "stripeoperation", "stripecustomer"):
        assert rows_of(f"quotas_{table}", tenant_id=tenant.id), table
    assert set(ids) == {"top_up", "refund", "dispute", "stripe_operation"}
