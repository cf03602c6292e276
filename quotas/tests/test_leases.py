"""Leases, checkpoints, the sweeper, and what comes after it."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import pytest

from portal.kit.ids import uuid7
from quotas import operations as quota_operations
from quotas.admission import AdmissionRow
from quotas.models import Basis
from quotas.settlement import SettlementAnswer, Verdict
from quotas.tests.doors import (
    Connection,
    admitted,
    changed,
    checkpoint,
    checkpoint_row,
    end_lease,
    entries_of,
    hold_of,
    settle,
    settle_one,
    sweep_row,
    usage_of,
)
from tests.database import Money, connected, money_of, rows_of
from tests.factories import (
    ModelFixture,
    TenantFixture,
    add_granted,
    add_paid,
    admission_row,
    enable,
    make_tenant,
    settlement_row,
    void_row,
)

# --- Checkpoints -----------------------------------------------------------------------------------


def test_a_checkpoint_renews_the_lease_and_is_durable(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    row = admitted(dataplane, admission_row(tenant, model), lease_s=0)
    assert checkpoint(dataplane, checkpoint_row(row, 20, 5, cached=4, reasoning=2), lease_s=60) == {
        row.request_id: True
    }
    hold = hold_of(row)
    assert (hold["checkpoint_prompt_tokens"], hold["checkpoint_cached_tokens"]) == (20, 4)
    assert (hold["checkpoint_completion_tokens"], hold["checkpoint_reasoning_tokens"]) == (5, 2)
    assert 59 < (hold["lease_until"] - hold["checkpoint_at"]).total_seconds() <= 60
    assert settle_one(dataplane, sweep_row(row)).verdict == Verdict.NOT_EXPIRED


def test_a_checkpoint_never_goes_back(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    row = admitted(dataplane, admission_row(tenant, model))
    checkpoint(dataplane, checkpoint_row(row, 20, 5, reasoning=2))
    checkpoint(dataplane, checkpoint_row(row, 0, 3))
    hold = hold_of(row)
    assert (hold["checkpoint_prompt_tokens"], hold["checkpoint_completion_tokens"]) == (20, 5)
    assert hold["checkpoint_reasoning_tokens"] == 2
    # A call that has only begun renews its lease without a checkpoint to settle to.
    other = admitted(dataplane, admission_row(tenant, model))
    checkpoint(dataplane, checkpoint_row(other, 20, 0))
    assert hold_of(other)["checkpoint_at"] is None


def test_only_live_holds_are_answered(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    live, settled, voided, swept = (admitted(dataplane, admission_row(tenant, model)) for _ in range(4))
    end_lease(swept)
    settle(dataplane, settlement_row(settled, prompt_tokens=1), void_row(voided), sweep_row(swept))
    calls = [live, settled, voided, swept, admission_row(tenant, model)]
    assert checkpoint(dataplane, *(checkpoint_row(row, 9, 9) for row in calls)) == {live.request_id: True}
    assert hold_of(settled)["checkpoint_at"] is None


def test_a_hold_that_is_locked_just_now_keeps_its_lease_and_nobody_waits(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    locked, free = (admitted(dataplane, admission_row(tenant, model)) for _ in range(2))
    before = hold_of(locked)
    with connected("owner", autocommit=False) as blocker:
        blocker.execute(
            "SELECT 1 FROM quotas_hold WHERE request_id = %s FOR NO KEY UPDATE", (locked.request_id,)
        )
        answer = checkpoint(dataplane, checkpoint_row(locked, 1, 1), checkpoint_row(free, 1, 1))
    assert answer == {locked.request_id: False, free.request_id: True}
    assert hold_of(locked) == before


# --- The sweeper -----------------------------------------------------------------------------------


def test_a_live_lease_is_not_swept(tenant: TenantFixture, model: ModelFixture, dataplane: Connection) -> None:
    row = admitted(dataplane, admission_row(tenant, model))
    assert settle_one(dataplane, sweep_row(row)).verdict == Verdict.NOT_EXPIRED
    quota_operations.sweep_expired_holds(lease_s=0)
    assert hold_of(row)["state"] == "PENDING"


def test_an_expired_hold_is_settled_to_its_checkpoint(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    row = admitted(dataplane, admission_row(tenant, model))
    checkpoint(dataplane, checkpoint_row(row, 30, 12, cached=10, reasoning=5))
    end_lease(row)
    report = quota_operations.sweep_expired_holds(lease_s=0)
    assert report.resolved >= 1
    assert (hold_of(row)["state"], hold_of(row)["resolved_by"]) == ("EXPIRED", "SWEEPER")
    (usage,) = usage_of(row)
    assert (usage["source"], usage["basis"], usage["provenance"]) == ("SWEEPER", "CHECKPOINT", "ESTIMATED")
    assert usage["charged_nanos"] == 30 * 1_000 + 12 * 2_000
    assert money_of(tenant.id) == Money(granted=10**9 - 54_000)
    (attempt,) = rows_of("quotas_attempt", id=row.attempt_id)
    assert attempt["outcome"] == "LOST"
    assert settle_one(dataplane, sweep_row(row)).verdict == Verdict.ALREADY_DONE


def test_an_expired_hold_without_a_checkpoint_is_voided(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    row = admitted(dataplane, admission_row(tenant, model), lease_s=0)
    quota_operations.sweep_expired_holds(lease_s=0)
    assert (hold_of(row)["state"], hold_of(row)["resolved_by"]) == ("VOIDED", "SWEEPER")
    assert usage_of(row) == []
    assert money_of(tenant.id) == Money(granted=10**9)


def test_the_sweeper_waits_one_lease_after_the_database_came_up(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    row = admitted(dataplane, admission_row(tenant, model), lease_s=0)
    assert quota_operations.sweep_expired_holds(lease_s=10**6).found == 0
    assert hold_of(row)["state"] == "PENDING"
    quota_operations.sweep_expired_holds(lease_s=0)
    assert hold_of(row)["state"] == "VOIDED"


def test_the_sweeper_leaves_a_locked_tenant_for_the_next_sweep(
    model: ModelFixture, dataplane: Connection
) -> None:
    tenants = [make_tenant() for _ in range(2)]
    for each in tenants:
        enable(each, model)
    rows = [admitted(dataplane, admission_row(each, model), lease_s=0) for each in tenants]
    with connected("owner", autocommit=False) as blocker:
        blocker.execute(
            "SELECT 1 FROM quotas_wallet WHERE tenant_id = %s FOR NO KEY UPDATE", (tenants[0].id,)
        )
        quota_operations.sweep_expired_holds(lease_s=0)
        assert [hold_of(row)["state"] for row in rows] == ["PENDING", "VOIDED"]
    quota_operations.sweep_expired_holds(lease_s=0)
    assert [hold_of(row)["state"] for row in rows] == ["VOIDED", "VOIDED"]


# --- A settlement after the sweeper's --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Late:
    """A swept call: `row` was charged 30 input and 12 output tokens, 54,000 nano-units, at revision 1."""

    tenant_id: UUID
    row: AdmissionRow


def swept(dataplane: Connection, model: ModelFixture, granted: str | None, paid: str | None = None) -> Late:
    tenant = make_tenant(granted=granted, paid=paid)
    enable(tenant, model)
    row = admitted(dataplane, admission_row(tenant, model))
    checkpoint(dataplane, checkpoint_row(row, 30, 12))
    end_lease(row)
    assert settle_one(dataplane, sweep_row(row)).charged_nanos == 54_000
    return Late(tenant.id, row)


def late(dataplane: Connection, call: Late, prompt: int, completion: int = 0) -> SettlementAnswer:
    return settle_one(dataplane, settlement_row(call.row, prompt_tokens=prompt, completion_tokens=completion))


def test_upwards_only_the_difference_is_posted(model: ModelFixture, dataplane: Connection) -> None:
    call = swept(dataplane, model, "1.00")
    answer = late(dataplane, call, 30, 20)
    assert answer == SettlementAnswer(call.row.request_id, Verdict.SETTLED, 2, 70_000, 0)
    assert entries_of(call.row, 2) == {"GRANTED": -16_000, "GRANTED_USAGE": 16_000}
    assert money_of(call.tenant_id) == Money(granted=10**9 - 70_000)
    assert [usage["charged_nanos"] for usage in usage_of(call.row)] == [54_000, 70_000]
    (attempt,) = rows_of("quotas_attempt", id=call.row.attempt_id)
    assert attempt["outcome"] == "COMPLETED"
    # The gateway settles once, early or late.
    assert late(dataplane, call, 30, 20).verdict == Verdict.ALREADY_DONE
    assert late(dataplane, call, 30, 21).verdict == Verdict.CONFLICT
    assert settle_one(dataplane, void_row(call.row)).verdict == Verdict.CONFLICT
    assert hold_of(call.row)["state"] == "EXPIRED"


def test_the_same_facts_post_nothing(model: ModelFixture, dataplane: Connection) -> None:
    call = swept(dataplane, model, "1.00")
    assert late(dataplane, call, 30, 12).verdict == Verdict.SETTLED
    assert entries_of(call.row, 2) == {}
    newest = usage_of(call.row)[-1]
    assert (newest["revision"], newest["transfer_id"], newest["basis"]) == (2, None, "FINAL_USAGE")
    assert money_of(call.tenant_id) == Money(granted=10**9 - 54_000)


def test_downwards_paid_credit_comes_back_before_granted(model: ModelFixture, dataplane: Connection) -> None:
    """Spent: 40,000 granted, then 14,000 paid. Back: paid first, then granted."""
    little, all_paid, more, nothing = (swept(dataplane, model, "0.00004", "1.00") for _ in range(4))
    late(dataplane, little, 44)
    assert entries_of(little.row, 2) == {"TOPPED_UP": 10_000, "REVENUE": -10_000}
    late(dataplane, all_paid, 40)
    assert entries_of(all_paid.row, 2) == {"TOPPED_UP": 14_000, "REVENUE": -14_000}
    late(dataplane, more, 25)
    assert entries_of(more.row, 2) == {
        "TOPPED_UP": 14_000,
        "REVENUE": -14_000,
        "GRANTED": 15_000,
        "GRANTED_USAGE": -15_000,
    }
    assert money_of(more.tenant_id) == Money(paid=10**9, granted=15_000)
    # In the end nothing was delivered at all.
    answer = settle_one(dataplane, void_row(nothing.row))
    assert (answer.verdict, answer.revision, answer.charged_nanos) == (Verdict.SETTLED, 2, 0)
    assert money_of(nothing.tenant_id) == Money(paid=10**9, granted=40_000)
    assert usage_of(nothing.row)[-1]["basis"] == Basis.NOTHING


def test_after_a_void_the_whole_cost_is_the_difference(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    row = admitted(dataplane, admission_row(tenant, model), lease_s=0)
    settle(dataplane, sweep_row(row))
    assert settle_one(dataplane, void_row(row)).verdict == Verdict.ALREADY_DONE
    answer = settle_one(dataplane, settlement_row(row, prompt_tokens=10))
    assert (answer.verdict, answer.revision, answer.charged_nanos) == (Verdict.SETTLED, 1, 10_000)
    assert hold_of(row)["state"] == "VOIDED"
    assert money_of(tenant.id) == Money(granted=10**9 - 10_000)
    # The sweeper's void is not the gateway's: having settled, it cannot have had nothing to charge.
    assert settle_one(dataplane, void_row(row)).verdict == Verdict.CONFLICT


def test_a_late_cost_above_the_cap_is_overrun(model: ModelFixture, dataplane: Connection) -> None:
    call = swept(dataplane, model, "1.00")
    answer = late(dataplane, call, 100, 1_000)
    assert (answer.charged_nanos, answer.overrun_nanos) == (300_002, 1_799_998)
    assert entries_of(call.row, 2) == {
        "GRANTED": -246_002,
        "GRANTED_USAGE": 246_002,
        "OVERRUN_EXPENSE": -1_799_998,
        "UNBILLED_USAGE": 1_799_998,
    }


def test_upwards_with_an_empty_wallet_is_owed_and_paid_first_by_the_next_top_up(
    model: ModelFixture, dataplane: Connection
) -> None:
    # 0.00031 holds the call; the sweep leaves 256,000, of which another call then holds 220,002.
    call = swept(dataplane, model, "0.00031")
    tenant_id = call.tenant_id
    other = admitted(
        dataplane,
        changed(call.row, request_id=uuid7(), attempt_id=uuid7(), output_cap_tokens=60),
    )
    assert money_of(tenant_id) == Money(granted=256_000, pending=220_002)
    late(dataplane, call, 100, 40)
    # 126,000 more: 35,998 are free, what the other call holds is not touched, 90,002 are owed.
    assert money_of(tenant_id) == Money(granted=220_002, receivable=-90_002, pending=220_002)
    assert entries_of(call.row, 2) == {
        "GRANTED": -35_998,
        "GRANTED_USAGE": 35_998,
        "RECEIVABLE": -90_002,
        "REVENUE": 90_002,
    }
    assert usage_of(call.row)[-1]["receivable_nanos"] == 90_002

    add_granted(tenant_id, 500)
    assert money_of(tenant_id).receivable == -90_002
    add_paid(tenant_id, 90_001)
    assert money_of(tenant_id) == Money(granted=220_502, receivable=-1, pending=220_002)
    add_paid(tenant_id, 1_000)
    assert money_of(tenant_id) == Money(paid=999, granted=220_502, pending=220_002)
    settle(dataplane, void_row(other))


def test_rows_of_one_batch_share_what_is_free(model: ModelFixture, dataplane: Connection) -> None:
    """Two late calls want 346,000 nano-units together, and 254,000 are there."""
    first = swept(dataplane, model, None, "0.000308")
    fields = {"request_id": uuid7(), "attempt_id": uuid7(), "output_cap_tokens": 76}
    second = admitted(dataplane, changed(first.row, **fields))
    end_lease(second)
    settle(dataplane, sweep_row(second))
    assert money_of(first.tenant_id) == Money(paid=254_000)
    settle(
        dataplane,
        settlement_row(first.row, prompt_tokens=100, completion_tokens=50),
        settlement_row(second, prompt_tokens=100, completion_tokens=50),
    )
    # 146,000 for the first, of the second's 200,000 there are 108,000.
    assert money_of(first.tenant_id) == Money(receivable=-92_000)
    assert usage_of(second)[-1]["receivable_nanos"] == 92_000


@pytest.mark.parametrize(
    ("paid_back", "after"),
    [
        (0, Money(paid=-54_000, receivable=-9_998)),
        (50_000, Money(paid=-54_000 + 40_002)),
        (300_000, Money(paid=2 + 236_000)),
    ],
)
def test_downwards_what_is_still_owed_is_forgiven_first(
    paid_back: int, after: Money, model: ModelFixture, dataplane: Connection
) -> None:
    """A correction between the sweeper's and the gateway's record put 245,998 on the receivable."""
    call = swept(dataplane, model, "0.000300002")
    with connected("operator") as operator:
        operator.execute(
            "UPDATE quotas_wallet SET overdraft_nanos = 54000 WHERE tenant_id = %s", (call.tenant_id,)
        )
    spender = admitted(dataplane, changed(call.row, request_id=uuid7(), attempt_id=uuid7()))
    settle(dataplane, settlement_row(spender, prompt_tokens=100, completion_tokens=100))
    correction = settlement_row(call.row, prompt_tokens=100, completion_tokens=100)
    settle(dataplane, changed(correction, source="FEED", attempts=[]))
    dataplane.execute(
        "INSERT INTO quotas_correction (request_id, revision, tenant_id, cause, delta_nanos, posted_at) "
        "SELECT request_id, revision, tenant_id, 'SETTLEMENT_LOST', charged_nanos, recorded_at "
        "FROM quotas_usagerecord WHERE request_id = %s AND source = 'FEED'",
        (call.row.request_id,),
    )
    assert money_of(call.tenant_id) == Money(paid=-54_000, receivable=-245_998)

    if paid_back:
        add_paid(call.tenant_id, paid_back)
    assert late(dataplane, call, 64).charged_nanos == 64_000
    assert money_of(call.tenant_id) == after
    assert usage_of(call.row)[-1]["granted_nanos"] == 54_000
