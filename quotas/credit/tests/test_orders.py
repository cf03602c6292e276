"""Ordering credit: limits that splitting does not evade, second operators, and exact money."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.db import IntegrityError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portal.kit.clock import utc_now
from portal.kit.ids import transfer_id, uuid7
from quotas import audit as invariants
from quotas.credit import operations, queries
from quotas.credit.policy import CreditPolicy
from quotas.credit.queries import CreditOrderRow
from quotas.ledger import operations as ledger
from quotas.models import MAX_ORDER_NANOS, CreditOrderKind, CreditOrderState
from quotas.tests.doors import admit, admitted, settle_one
from tenants.operations import audit
from tenants.scope import role_scope
from tenants.tests.people import at_once, make_user
from tests.database import Money, connected, money_of, rows_of
from tests.factories import (
    TenantFixture,
    add_granted,
    admission_row,
    enable,
    make_model,
    make_tenant,
    settlement_row,
)

pytestmark = pytest.mark.usefixtures("database")

UNIT = 10**9
POLICY = CreditPolicy.of_units(limit_units=100, line_limit_units=0)
GRANT, GOODWILL, TAKE_BACK, CREDIT_LINE = CreditOrderKind


@pytest.fixture
def tenant(database: None) -> TenantFixture:
    return make_tenant(granted=None)


def somebody() -> audit.Actor:
    return audit.operator(make_user().id)


def order(
    tenant_id: UUID,
    actor: audit.Actor,
    amount_nanos: int,
    kind: CreditOrderKind = GRANT,
    *,
    policy: CreditPolicy = POLICY,
    now: datetime | None = None,
) -> CreditOrderRow:
    with role_scope("operator"):
        return operations.order_credit(
            tenant_id=tenant_id,
            kind=kind,
            amount_nanos=amount_nanos,
            reason="for the test",
            actor=actor,
            policy=policy,
            now=now or utc_now(),
        )


def approve(order_id: UUID, actor: audit.Actor) -> CreditOrderRow:
    with role_scope("operator"):
        return operations.approve_order(order_id=order_id, actor=actor, now=utc_now())


def refuse(order_id: UUID, actor: audit.Actor) -> CreditOrderRow:
    with role_scope("operator"):
        return operations.refuse_order(order_id=order_id, actor=actor, reason="not convincing", now=utc_now())


def withdraw(order_id: UUID, actor: audit.Actor) -> CreditOrderRow:
    with role_scope("operator"):
        return operations.withdraw_order(order_id=order_id, actor=actor, now=utc_now())


def events_of(tenant_id: UUID) -> list[dict[str, Any]]:
    return sorted(rows_of("tenants_auditevent", tenant_id=tenant_id), key=lambda row: row["id"])


def entries_of(transfer: UUID | None) -> dict[str, int]:
    with connected("operator") as connection:
        return dict(
            connection.execute(
                "SELECT a.kind, e.amount_nanos FROM quotas_ledgerentry e "
                "JOIN quotas_ledgeraccount a ON a.id = e.account_id WHERE e.transfer_id = %s",
                (transfer,),
            ).fetchall()
        )


# --- Alone, and with a second operator -------------------------------------------------------------


def test_up_to_the_limit_one_operator_gives_alone(tenant: TenantFixture) -> None:
    actor = somebody()
    made = order(tenant.id, actor, 100 * UNIT)
    assert (made.state, made.decided_by_id) == (CreditOrderState.POSTED, None)
    assert made.transfer_id == transfer_id("GRANT", f"order:{made.id}")
    assert money_of(tenant.id) == Money(granted=100 * UNIT)
    (event,) = events_of(tenant.id)
    assert (event["action"], event["actor_id"], event["outcome"]) == ("credit.order", actor.user_id, "DONE")
    assert (event["before"], event["after"]["granted_nanos"]) == ({"granted_nanos": 0}, 100 * UNIT)
    assert event["is_internal"]


def test_above_the_limit_a_second_operator_approves(tenant: TenantFixture) -> None:
    first, second = somebody(), somebody()
    made = order(tenant.id, first, 100 * UNIT + 1)
    assert (made.state, made.transfer_id) == (CreditOrderState.WAITING, None)
    assert money_of(tenant.id) == Money()
    with pytest.raises(operations.OwnOrder):
        approve(made.id, first)
    assert money_of(tenant.id) == Money()
    approved = approve(made.id, second)
    assert (approved.state, approved.decided_by_id) == (CreditOrderState.POSTED, second.user_id)
    assert money_of(tenant.id) == Money(granted=100 * UNIT + 1)
    for again in (approve, refuse):
        with pytest.raises(operations.OrderDecided):
            again(made.id, second)
    with pytest.raises(operations.OrderDecided):
        withdraw(made.id, first)
    assert [event["action"] for event in events_of(tenant.id)] == ["credit.order", "credit.approve"]


def test_splitting_is_no_way_around_the_limit(tenant: TenantFixture) -> None:
    actor = somebody()
    assert order(tenant.id, actor, 60 * UNIT).state == CreditOrderState.POSTED
    assert order(tenant.id, actor, 41 * UNIT).state == CreditOrderState.WAITING
    # Nor is calling it something else.
    assert order(tenant.id, actor, 41 * UNIT, GOODWILL).state == CreditOrderState.WAITING
    last = order(tenant.id, actor, 40 * UNIT, GOODWILL)
    assert (last.state, last.limit_nanos) == (CreditOrderState.POSTED, 40 * UNIT)
    assert order(tenant.id, actor, 1).state == CreditOrderState.WAITING
    # Another operator has a limit of their own, and tomorrow is another day.
    assert order(tenant.id, somebody(), 100 * UNIT).state == CreditOrderState.POSTED
    tomorrow = utc_now() + timedelta(hours=24, minutes=1)
    assert order(tenant.id, actor, 100 * UNIT, now=tomorrow).state == CreditOrderState.POSTED


def test_splitting_at_once_is_none_either(tenant: TenantFixture) -> None:
    actor = somebody()
    calls = [partial(order, tenant.id, actor, 30 * UNIT) for _ in range(8)]
    made = at_once(calls)
    states = [one.state for one in made if isinstance(one, CreditOrderRow)]
    assert (len(states), states.count(CreditOrderState.POSTED)) == (8, 3)
    assert money_of(tenant.id) == Money(granted=90 * UNIT)


def test_many_organizations_are_no_way_around_it_either() -> None:
    actor, policy = somebody(), CreditPolicy.of_units(limit_units=1, line_limit_units=0)
    calls = [partial(order, make_tenant(granted=None).id, actor, UNIT, policy=policy) for _ in range(12)]
    made = at_once(calls)
    states = [one.state for one in made if isinstance(one, CreditOrderRow)]
    assert (len(states), states.count(CreditOrderState.POSTED)) == (12, 10)


def test_what_a_second_operator_approved_is_not_the_firsts_to_count(tenant: TenantFixture) -> None:
    actor = somebody()
    approve(order(tenant.id, actor, 500 * UNIT).id, somebody())
    assert order(tenant.id, actor, 100 * UNIT).state == CreditOrderState.POSTED


def test_two_operators_at_once_post_once(tenant: TenantFixture) -> None:
    for _ in range(3):
        made = order(tenant.id, somebody(), 200 * UNIT)
        before = money_of(tenant.id).granted
        answers = at_once([partial(approve, made.id, somebody()) for _ in range(4)])
        assert sum(isinstance(answer, CreditOrderRow) for answer in answers) == 1
        assert sum(isinstance(answer, operations.OrderDecided) for answer in answers) == 3
        assert money_of(tenant.id).granted == before + 200 * UNIT


def test_one_approves_while_another_refuses_and_the_first_withdraws(tenant: TenantFixture) -> None:
    for _ in range(3):
        first = somebody()
        made = order(tenant.id, first, 200 * UNIT)
        before = money_of(tenant.id).granted
        calls: list[Callable[[], CreditOrderRow]] = [
            partial(approve, made.id, somebody()),
            partial(refuse, made.id, somebody()),
            partial(withdraw, made.id, first),
        ]
        decided = [answer for answer in at_once(calls) if isinstance(answer, CreditOrderRow)]
        assert len(decided) == 1
        is_posted = decided[0].state == CreditOrderState.POSTED
        assert money_of(tenant.id).granted == before + (200 * UNIT if is_posted else 0)


def test_refusing_and_withdrawing(tenant: TenantFixture) -> None:
    first, second = somebody(), somebody()
    refused = order(tenant.id, first, 200 * UNIT)
    with pytest.raises(operations.OwnOrder):
        refuse(refused.id, first)
    with pytest.raises(operations.NotYourOrder):
        withdraw(refused.id, second)
    assert refuse(refused.id, second).decision_reason == "not convincing"
    withdrawn = withdraw(order(tenant.id, first, 200 * UNIT).id, first)
    assert (withdrawn.state, withdrawn.decided_by_id) == (CreditOrderState.WITHDRAWN, first.user_id)
    assert money_of(tenant.id) == Money()
    actions = [event["action"] for event in events_of(tenant.id)]
    assert actions == ["credit.order", "credit.refuse", "credit.order", "credit.withdraw"]


def test_what_waits_and_what_was_decided(tenant: TenantFixture) -> None:
    actor = somebody()
    waiting, posted = order(tenant.id, actor, 200 * UNIT), order(tenant.id, actor, 1)
    with role_scope("operator"):
        assert waiting in queries.waiting_orders()
        assert queries.count_waiting_orders() >= 1
        page = queries.list_orders(tenant_id=tenant.id, limit=1)
        assert (page.rows, page.next) == ((posted,), posted.id)
        assert queries.list_orders(tenant_id=tenant.id, before=page.next).rows == (waiting,)
        assert queries.list_orders(tenant_id=tenant.id, is_decided=True).rows == (posted,)


# --- Taking back, and credit lines -----------------------------------------------------------------


def test_goodwill_is_an_expense_of_its_own(tenant: TenantFixture) -> None:
    made = order(tenant.id, somebody(), 7, GOODWILL)
    assert made.transfer_id == transfer_id("ADJUSTMENT", f"order:{made.id}")
    assert entries_of(made.transfer_id) == {"GOODWILL": -7, "GRANTED": 7}


def test_taking_back_stops_at_what_is_granted_and_not_held() -> None:
    model = make_model()
    tenant = make_tenant(granted="1.00", paid="1.00")
    enable(tenant, model)
    with connected("dataplane") as dataplane:
        admit(dataplane, admission_row(tenant, model))
    held = money_of(tenant.id).pending
    assert held > 0
    with pytest.raises(operations.TakesTooMuch) as error:
        order(tenant.id, somebody(), UNIT - held + 1, TAKE_BACK)
    assert error.value.most_nanos == UNIT - held
    assert rows_of("quotas_creditorder", tenant_id=tenant.id) == []
    made = order(tenant.id, somebody(), UNIT - held, TAKE_BACK)
    assert entries_of(made.transfer_id) == {"PROMOTION": UNIT - held, "GRANTED": held - UNIT}
    assert money_of(tenant.id) == Money(paid=UNIT, granted=held, pending=held)


def test_taking_back_above_the_limit_needs_two() -> None:
    tenant, actor = make_tenant(granted="500.00"), somebody()
    made = order(tenant.id, actor, 60 * UNIT, TAKE_BACK)
    assert made.state == CreditOrderState.POSTED
    # Splitting does not help, and what is taken back makes no room to give.
    waits = order(tenant.id, actor, 60 * UNIT, TAKE_BACK)
    assert waits.state == CreditOrderState.WAITING
    assert order(tenant.id, actor, 101 * UNIT).state == CreditOrderState.WAITING
    assert order(tenant.id, actor, 100 * UNIT).state == CreditOrderState.POSTED
    with pytest.raises(operations.OwnOrder):
        approve(waits.id, actor)
    assert approve(waits.id, somebody()).state == CreditOrderState.POSTED
    assert money_of(tenant.id) == Money(granted=480 * UNIT)


def test_free_credit_that_keeps_a_debt_within_its_line_is_not_taken_back() -> None:
    model, tenant, actor = make_model(), make_tenant(granted=None), somebody()
    enable(tenant, model)
    approve(order(tenant.id, actor, UNIT, CREDIT_LINE).id, somebody())
    with connected("dataplane") as dataplane:
        row = admitted(dataplane, admission_row(tenant, model))
        settle_one(dataplane, settlement_row(row, prompt_tokens=100, completion_tokens=100))
    debt = -money_of(tenant.id).paid
    assert debt > 0
    order(tenant.id, actor, debt, GOODWILL)
    order(tenant.id, actor, 1, CREDIT_LINE)
    with pytest.raises(operations.TakesTooMuch) as error:
        order(tenant.id, actor, debt, TAKE_BACK)
    assert error.value.most_nanos == 1
    order(tenant.id, actor, 1, TAKE_BACK)


def test_a_credit_line_needs_two_and_lowering_it_one() -> None:
    model = make_model()
    tenant, first = make_tenant(granted=None), somebody()
    enable(tenant, model)
    made = order(tenant.id, first, 5 * UNIT, CREDIT_LINE)
    assert made.state == CreditOrderState.WAITING
    approve(made.id, somebody())
    assert rows_of("quotas_wallet", tenant_id=tenant.id)[0]["overdraft_nanos"] == 5 * UNIT
    assert order(tenant.id, first, 5 * UNIT + 1, CREDIT_LINE).state == CreditOrderState.WAITING
    with connected("dataplane") as dataplane:
        admit(dataplane, admission_row(tenant, model))
    held = money_of(tenant.id).pending
    with pytest.raises(operations.CreditLineInUse) as error:
        order(tenant.id, first, held - 1, CREDIT_LINE)
    assert error.value.used_nanos == held
    # Nor does the ledger itself, whatever the order says.
    with role_scope("operator"), pytest.raises(IntegrityError, match="wallet_never_overdrawn"):
        ledger.set_credit_line(tenant_id=tenant.id, overdraft_nanos=held - 1)
    lowered = order(tenant.id, first, held, CREDIT_LINE)
    assert (lowered.state, lowered.transfer_id) == (CreditOrderState.POSTED, None)
    assert rows_of("quotas_wallet", tenant_id=tenant.id)[0]["overdraft_nanos"] == held


def test_a_line_that_got_used_meanwhile_is_not_lowered_by_an_approval() -> None:
    model = make_model()
    tenant = make_tenant(granted=None)
    enable(tenant, model)
    low = order(tenant.id, somebody(), 10, CREDIT_LINE)
    approve(order(tenant.id, somebody(), 5 * UNIT, CREDIT_LINE).id, somebody())
    with connected("dataplane") as dataplane:
        admit(dataplane, admission_row(tenant, model))
    with pytest.raises(operations.CreditLineInUse):
        approve(low.id, somebody())
    with role_scope("operator"):
        found = queries.find_order(order_id=low.id)
    assert found is not None
    assert found.is_waiting


# --- What cannot be ordered ------------------------------------------------------------------------


def test_orders_that_are_none(tenant: TenantFixture) -> None:
    actor = somebody()
    for kind, amount in ((GRANT, 0), (GRANT, -1), (CREDIT_LINE, -1), (GOODWILL, MAX_ORDER_NANOS + 1)):
        with pytest.raises(operations.InvalidOrder):
            order(tenant.id, actor, amount, kind)
    with pytest.raises(operations.NoWallet):
        order(uuid7(), actor, 1)
    with pytest.raises(ValueError, match="by operators"):
        order(tenant.id, audit.SYSTEM, 1)
    with pytest.raises(operations.OrderNotFound):
        approve(uuid7(), actor)
    with pytest.raises(audit.ReasonMissing), role_scope("operator"):
        operations.order_credit(
            tenant_id=tenant.id,
            kind=GRANT,
            amount_nanos=1,
            reason=" x ",
            actor=actor,
            policy=POLICY,
            now=utc_now(),
        )
    assert rows_of("quotas_creditorder", tenant_id=tenant.id) == []


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("state = 'POSTED', decided_at = now()", "creditorder_above_limit_by_two"),
        (
            "state = 'POSTED', decided_at = now(), decided_by_id = ordered_by_id",
            "creditorder_decided_by_another",
        ),
        (
            "state = 'REFUSED', decided_at = now(), decided_by_id = ordered_by_id",
            "creditorder_decided_by_another",
        ),
        ("state = 'REFUSED', decided_at = now()", "creditorder_decided"),
        ("state = 'WITHDRAWN', decided_at = now()", "creditorder_decided"),
    ],
)
def test_the_database_wants_two_people_whatever_the_code_forgets(
    change: str, constraint: str, tenant: TenantFixture
) -> None:
    made = order(tenant.id, somebody(), 200 * UNIT)
    with connected("operator") as connection, pytest.raises(psycopg.errors.CheckViolation, match=constraint):
        connection.execute(f"UPDATE quotas_creditorder SET {change} WHERE id = %s", (made.id,))


def test_what_was_ordered_and_decided_never_changes(tenant: TenantFixture) -> None:
    made = order(tenant.id, somebody(), 5)
    with connected("operator") as connection:
        with pytest.raises(psycopg.errors.RestrictViolation):
            connection.execute(
                "UPDATE quotas_creditorder SET decision_reason = 'x' WHERE id = %s", (made.id,)
            )
        for change in ("amount_nanos = 6", "reason = 'x'", "limit_nanos = 7"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"UPDATE quotas_creditorder SET {change} WHERE id = %s", (made.id,))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM quotas_creditorder WHERE id = %s", (made.id,))
        with pytest.raises(psycopg.errors.CheckViolation, match="begins with waiting"):
            connection.execute(
                "INSERT INTO quotas_creditorder (id, tenant_id, currency, kind, amount_nanos, limit_nanos, "
                "reason, ordered_by_id, ordered_at, state, decided_at, decision_reason) "
                "SELECT %s, tenant_id, currency, kind, 1, 1, reason, ordered_by_id, ordered_at, 'POSTED', "
                "ordered_at, '' FROM quotas_creditorder WHERE id = %s",
                (uuid7(), made.id),
            )


def test_an_order_is_carried_out_by_its_own_transfer_only(tenant: TenantFixture) -> None:
    other = order(tenant.id, somebody(), 5)
    made = order(tenant.id, somebody(), 200 * UNIT)
    with connected("operator") as connection, pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(
            "UPDATE quotas_creditorder SET state = 'POSTED', decided_at = now(), decided_by_id = %s, "
            "transfer_id = %s WHERE id = %s",
            (make_user().id, other.transfer_id, made.id),
        )


def test_the_ledger_takes_back_no_more_than_is_free(tenant: TenantFixture) -> None:
    add_granted(tenant.id, 5)
    with role_scope("operator"):
        key = f"test:{uuid7()}"
        with pytest.raises(IntegrityError, match="granted and not held"):
            ledger.take_back(tenant_id=tenant.id, amount_nanos=6, key=key, reason="")
        assert ledger.take_back(tenant_id=tenant.id, amount_nanos=5, key=key, reason="")
        assert not ledger.take_back(tenant_id=tenant.id, amount_nanos=5, key=key, reason="")
        with pytest.raises(IntegrityError, match="another payload"):
            ledger.take_back(tenant_id=tenant.id, amount_nanos=4, key=key, reason="")
    assert money_of(tenant.id) == Money()


# --- Exact -----------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from([GRANT, GOODWILL, TAKE_BACK]),
            st.one_of(st.integers(1, 150 * UNIT), st.sampled_from([1, 100 * UNIT, 100 * UNIT + 1])),
            st.integers(0, 1),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_any_row_of_orders_agrees_with_plain_sums(steps: list[tuple[CreditOrderKind, int, int]]) -> None:
    tenant, people = make_tenant(granted=None), [somebody(), somebody()]
    granted, alone = 0, {True: [0, 0], False: [0, 0]}
    for kind, amount, who in steps:
        is_taken = kind == TAKE_BACK
        if is_taken and amount > granted:
            with pytest.raises(operations.TakesTooMuch) as error:
                order(tenant.id, people[who], amount, kind)
            assert error.value.most_nanos == granted
            continue
        made = order(tenant.id, people[who], amount, kind)
        may_alone = alone[is_taken][who] + amount <= 100 * UNIT
        assert made.state == (CreditOrderState.POSTED if may_alone else CreditOrderState.WAITING)
        if may_alone:
            alone[is_taken][who] += amount
        else:
            approve(made.id, people[1 - who])
        granted += -amount if is_taken else amount
        assert money_of(tenant.id) == Money(granted=granted)
    assert money_of(tenant.id) == Money(granted=granted)


def test_the_invariants_hold_over_all_of_it(tenant: TenantFixture) -> None:
    actor = somebody()
    order(tenant.id, actor, 50 * UNIT)
    order(tenant.id, actor, 20 * UNIT, GOODWILL)
    order(tenant.id, actor, 30 * UNIT, TAKE_BACK)
    assert [result for result in invariants.run() if not result.holds] == []
