"""Whatever calls were settled, late, in part or not at all: the lines of invoices are what the ledger took,
by model and class as the usage rows say, each unit once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portal.kit.clock import utc_now
from quotas.admission import AdmissionRow
from quotas.metering.completeness import WATERMARKS, complete_to
from quotas.metering.usage_lines import UsageLine
from quotas.payments.postpaid.drawing import MAX_ITEMS, draw_up_invoices, lines_of
from quotas.payments.postpaid.queries import calls_of
from quotas.payments.tests.postpaid_side import (
    after_month,
    broken_invariants,
    dear_model,
    invoices_of,
    make_postpaid,
    no_lag,
    usage_of,
    used_by,
    wallet_of,
)
from quotas.reconciliation.watermark import usage_read_to
from quotas.settlement import SettlementRow
from quotas.tests.doors import (
    Connection,
    admitted,
    checkpoint,
    checkpoint_row,
    end_lease,
    settle_one,
    sweep_row,
)
from tenants.scope import role_scope
from tests.database import connected
from tests.factories import ModelFixture, add_granted, admission_row, settlement_row, void_row

UNIT = 10**9
CENT = UNIT // 100


@pytest.fixture(scope="module")
def models(database: None) -> list[ModelFixture]:
    return [dear_model(), dear_model(cancel_policy="INPUT"), dear_model(cancel_policy="NOTHING")]


@pytest.fixture
def dataplane(database: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    no_lag(monkeypatch)
    with connected("dataplane") as connection:
        yield connection


def amounts() -> st.SearchStrategy[int]:
    return st.integers(-(10**12), 10**12)


@given(
    used=st.lists(st.tuples(st.integers(0, 10**9), amounts()), max_size=300),
    brought_nanos=amounts(),
    payments_nanos=amounts(),
)
def test_lines_add_up_exactly_and_in_coins(
    used: list[tuple[int, int]], brought_nanos: int, payments_nanos: int
) -> None:
    due = sum(nanos for _units, nanos in used) + brought_nanos - payments_nanos
    asked = max(0, due) // CENT * CENT
    invoice: Any = SimpleNamespace(
        id=uuid4(),
        tenant_id=uuid4(),
        currency="USD",
        amount_nanos=asked,
        brought_nanos=brought_nanos,
        payments_nanos=payments_nanos,
    )
    lines = lines_of(
        invoice, [UsageLine(uuid4(), "input", units, nanos, nanos) for units, nanos in used], CENT
    )
    assert sum(line.amount_nanos for line in lines) == asked
    assert sum(line.asked_nanos for line in lines) == asked
    assert all(line.asked_nanos % CENT == 0 for line in lines)
    assert sum(bool(line.asked_nanos) for line in lines) <= MAX_ITEMS + 3
    for line in lines[: len(used)]:
        assert line.asked_nanos == 0 or abs(line.asked_nanos - line.amount_nanos) <= CENT // 2


CALLS = st.lists(
    st.tuples(
        st.integers(0, 2),  # the model
        st.integers(1, 9_000),  # prompt
        st.integers(0, 100),  # percent of it that was cached
        st.integers(0, 900),  # completion
        st.integers(0, 100),  # percent of it that was reasoning
        st.sampled_from(["whole", "gone", "void", "lost", "swept and voided", "late", "later"]),
        st.booleans(),  # free credit comes in before
    ),
    min_size=1,
    max_size=12,
)


def end_call(
    dataplane: Connection,
    row: AdmissionRow,
    prompt: int,
    cached: int,
    completion: int,
    reasoning: int,
    ending: str,
    is_granted: bool,
) -> list[tuple[str, SettlementRow]]:
    """Settle a call in one of CALLS' ways; what the gateway will say of it later."""
    if is_granted:
        add_granted(row.tenant_id, 123_456_789)
    whole = settlement_row(
        row,
        prompt_tokens=prompt,
        cached_tokens=prompt * cached // 100,
        completion_tokens=completion,
        reasoning_tokens=completion * reasoning // 100,
        outcome="CLIENT_GONE" if ending == "gone" else "COMPLETED",
    )
    if ending in ("whole", "gone", "void"):
        settle_one(dataplane, void_row(row) if ending == "void" else whole)
        return []
    if ending != "swept and voided":
        checkpoint(dataplane, checkpoint_row(row, prompt // 2, completion // 2))
    end_lease(row)
    settle_one(dataplane, sweep_row(row))
    return [("late" if ending == "late" else "later" if ending != "lost" else "never", whole)]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=CALLS)
def test_each_unit_stands_on_one_invoice(
    calls: list[Any], models: list[ModelFixture], dataplane: Connection
) -> None:
    tenant = make_postpaid(*models, line_units=10_000)
    rows: list[AdmissionRow] = []
    waiting: list[tuple[str, SettlementRow]] = []
    for number, *usage in calls:
        row = admitted(
            dataplane, admission_row(tenant, models[number], prompt_bound_tokens=9_000, output_cap_tokens=900)
        )
        rows.append(row)
        waiting += end_call(dataplane, row, *usage)
    for month, which in ((1, "late"), (2, "later"), (3, "")):
        for ending, late in waiting:
            if ending == which:
                settle_one(dataplane, late)
        draw_up_invoices(now=after_month(month), tenant_id=tenant.id)
    drawn = invoices_of(tenant.id)
    assert len(drawn) == 3
    total: dict[Any, tuple[int, int]] = {}
    for invoice in drawn:
        for key, (units, nanos) in usage_of(invoice).items():
            before = total.get(key, (0, 0))
            total[key] = (before[0] + units, before[1] + nanos)
    assert {key: found for key, found in total.items() if any(found)} == used_by(rows)
    assert sum(one.usage_nanos for one in drawn) == -wallet_of(tenant.id).paid_nanos
    assert sum(one.amount_nanos for one in drawn) + drawn[-1].due_nanos - drawn[-1].amount_nanos == (
        -wallet_of(tenant.id).paid_nanos
    )
    # The calls behind the lines are what the lines come to.
    for invoice in drawn:
        for model in models:
            with role_scope("operator"):
                behind = calls_of(invoice_id=invoice.id, model_id=model.id)
            from_lines = sum(
                nanos for (model_id, _), (_, nanos) in usage_of(invoice).items() if model_id == model.id
            )
            assert sum(call.amount_nanos for call in behind) == from_lines
    assert broken_invariants() == {}


def test_usage_is_complete_to_the_oldest_call_under_way(
    models: list[ModelFixture], dataplane: Connection
) -> None:
    tenant, grace = make_postpaid(*models), timedelta(minutes=1)
    now = utc_now() + timedelta(hours=1)
    with role_scope("operator"):
        assert complete_to(now=now, grace=grace, tenant_id=tenant.id) == now - grace
    row = admitted(dataplane, admission_row(tenant, models[0]))
    with role_scope("operator"):
        found = complete_to(now=now, grace=grace, tenant_id=tenant.id)
        assert complete_to(now=now, grace=grace) <= found <= utc_now()
    settle_one(dataplane, void_row(row))
    with role_scope("operator"):
        assert complete_to(now=now, grace=grace, tenant_id=tenant.id) == now - grace


def test_a_source_that_was_not_read_holds_it_back(
    models: list[ModelFixture], dataplane: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = make_postpaid(*models)
    now = after_month()
    read_to = now - timedelta(days=2)
    monkeypatch.setattr("quotas.metering.completeness.WATERMARKS", [lambda _now: None, lambda _now: read_to])
    with role_scope("operator"):
        assert complete_to(now=now, grace=timedelta(0), tenant_id=tenant.id) == read_to
    draw_up_invoices(now=now, tenant_id=tenant.id)
    assert invoices_of(tenant.id) == []
    monkeypatch.undo()
    no_lag(monkeypatch)
    assert [usage_read_to] == WATERMARKS
    draw_up_invoices(now=now, tenant_id=tenant.id)
    (invoice,) = invoices_of(tenant.id)
    assert invoice.month == utc_now().date().replace(day=1)
    assert usage_of(invoice) == {}
