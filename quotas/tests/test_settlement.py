"""Settlement: what a call is charged, from which credit, and that it happens once."""

from __future__ import annotations

import psycopg
import pytest

from portal.kit.batching import BUSY
from portal.kit.ids import uuid7
from quotas.models import AttemptOutcome, Provenance
from quotas.settlement import AttemptEnd, SettlementAnswer, Verdict
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
    LineSpec,
    ModelFixture,
    TenantFixture,
    admission_row,
    enable,
    make_model,
    make_tenant,
    settlement_row,
    void_row,
)

# --- What is charged -------------------------------------------------------------------------------


def test_the_charge_is_the_price_to_the_nano_unit(dataplane: Connection, database: None) -> None:
    model = make_model(
        prices={
            "input": 333_333_333,
            "cached_input": 33_333_333,
            "image": 777_777_777,
            "output": 1_234_567_891,
            "reasoning": 2_000_000_001,
            "request": 5_000_000,
        }
    )
    tenant = make_tenant()
    enable(tenant, model)
    row = admitted(dataplane, admission_row(tenant, model, prompt_bound_tokens=1_000, output_cap_tokens=500))
    answer = settle_one(
        dataplane,
        settlement_row(
            row,
            prompt_tokens=777,
            cached_tokens=123,
            image_tokens=54,
            completion_tokens=333,
            reasoning_tokens=101,
        ),
    )
    # Each class rounds half up by itself: 600 input, 123 cached, 54 image, 232 output, 101 reasoning.
    cost = 200_000 + 4_100 + 42_000 + 286_420 + 202_000 + 5
    assert answer == SettlementAnswer(row.request_id, Verdict.SETTLED, 1, cost, 0)
    assert money_of(tenant.id) == Money(granted=10**9 - cost)
    assert entries_of(row) == {"GRANTED": -cost, "GRANTED_USAGE": cost}
    (usage,) = usage_of(row)
    assert (usage["cost_nanos"], usage["charged_nanos"], usage["granted_nanos"]) == (cost, cost, cost)
    assert (usage["overrun_nanos"], usage["receivable_nanos"]) == (0, 0)
    assert (usage["source"], usage["basis"], usage["provenance"]) == ("GATEWAY", "FINAL_USAGE", "MEASURED")
    hold = hold_of(row)
    assert (hold["state"], hold["resolved_by"]) == ("POSTED", "GATEWAY")
    assert hold["resolved_at"] is not None


@pytest.mark.parametrize(("tokens", "charged"), [(1, 1), (2, 1), (3, 2)])
def test_half_a_nano_unit_rounds_up(tokens: int, charged: int, dataplane: Connection, database: None) -> None:
    model = make_model(prices={"input": 500_000, "output": 499_999})
    tenant = make_tenant()
    enable(tenant, model)
    row = admitted(dataplane, admission_row(tenant, model))
    facts = settlement_row(row, prompt_tokens=tokens, completion_tokens=1)
    assert settle_one(dataplane, facts).charged_nanos == charged


def test_a_class_without_a_price_of_its_own_costs_as_the_class_it_is_part_of(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    row = admitted(dataplane, admission_row(tenant, model))
    facts = settlement_row(
        row, prompt_tokens=90, cached_tokens=40, image_tokens=20, completion_tokens=70, reasoning_tokens=60
    )
    assert settle_one(dataplane, facts).charged_nanos == 90 * 1_000 + 70 * 2_000


def test_the_price_is_the_one_of_the_admission(dataplane: Connection, database: None) -> None:
    """The input-length band is chosen by the measured prompt, out of the version frozen at admission."""
    model = make_model(
        prices={"output": 10**9},
        lines=[
            LineSpec("input", 10**9, input_to_tokens=50),
            LineSpec("input", 4 * 10**9, input_from_tokens=50),
        ],
    )
    tenant = make_tenant()
    enable(tenant, model)
    short, long = (admitted(dataplane, admission_row(tenant, model)) for _ in range(2))
    with connected("operator") as operator:
        operator.execute(
            "UPDATE models_catalog_priceversion SET active_to = now() WHERE id = %s",
            (model.price_version_id,),
        )
    assert settle_one(dataplane, settlement_row(short, prompt_tokens=49)).charged_nanos == 49_000
    assert settle_one(dataplane, settlement_row(long, prompt_tokens=50)).charged_nanos == 200_000


def test_granted_credit_is_spent_before_paid_credit(model: ModelFixture, dataplane: Connection) -> None:
    tenant = make_tenant(granted="0.0001", paid="1.00")
    enable(tenant, model)
    first, second = (admitted(dataplane, admission_row(tenant, model)) for _ in range(2))
    settle(dataplane, settlement_row(first, prompt_tokens=80), settlement_row(second, prompt_tokens=90))
    assert money_of(tenant.id) == Money(paid=10**9 - 70_000)
    assert entries_of(first) == {"GRANTED": -80_000, "GRANTED_USAGE": 80_000}
    assert entries_of(second) == {
        "GRANTED": -20_000,
        "GRANTED_USAGE": 20_000,
        "TOPPED_UP": -70_000,
        "REVENUE": 70_000,
    }
    (usage,) = usage_of(second)
    assert (usage["charged_nanos"], usage["granted_nanos"]) == (90_000, 20_000)


def test_a_cost_above_the_hold_is_our_overrun(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    """The row in the middle of a batch does not disturb the others."""
    rows = [admitted(dataplane, admission_row(tenant, model)) for _ in range(3)]
    facts = [settlement_row(row, prompt_tokens=10) for row in rows]
    facts[1] = settlement_row(rows[1], prompt_tokens=100, completion_tokens=1_000)
    answers = settle(dataplane, *facts)
    assert [(a.charged_nanos, a.overrun_nanos) for a in answers if isinstance(a, SettlementAnswer)] == [
        (10_000, 0),
        (300_002, 2_100_000 - 300_002),
        (10_000, 0),
    ]
    assert entries_of(rows[1]) == {
        "GRANTED": -300_002,
        "GRANTED_USAGE": 300_002,
        "OVERRUN_EXPENSE": -1_799_998,
        "UNBILLED_USAGE": 1_799_998,
    }
    assert money_of(tenant.id) == Money(granted=10**9 - 320_002)


def test_a_call_that_costs_nothing_posts_no_transfer(dataplane: Connection, database: None) -> None:
    model = make_model(prices={"input": 0, "output": 0})
    tenant = make_tenant(granted=None)
    enable(tenant, model)
    row = admitted(dataplane, admission_row(tenant, model))
    assert settle_one(dataplane, settlement_row(row, prompt_tokens=5)).charged_nanos == 0
    (usage,) = usage_of(row)
    assert usage["transfer_id"] is None
    assert rows_of("quotas_ledgertransfer", request_id=row.request_id) == []
    assert hold_of(row)["state"] == "POSTED"


def test_a_void_releases_the_hold_and_charges_nothing(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    row = admitted(dataplane, admission_row(tenant, model))
    answer = settle_one(dataplane, void_row(row))
    assert answer == SettlementAnswer(row.request_id, Verdict.SETTLED, 0, 0, 0)
    assert money_of(tenant.id) == Money(granted=10**9)
    assert (hold_of(row)["state"], usage_of(row)) == ("VOIDED", [])


def test_attempts_end_as_told(tenant: TenantFixture, model: ModelFixture, dataplane: Connection) -> None:
    row = admitted(dataplane, admission_row(tenant, model))
    end = AttemptEnd(
        id=row.attempt_id,
        outcome=AttemptOutcome.CLIENT_GONE,
        http_status=200,
        ttft_ms=12,
        duration_ms=345,
        wire_id="chatcmpl-1",
        prompt_tokens=7,
        completion_tokens=8,
    )
    facts = settlement_row(row, prompt_tokens=7, completion_tokens=8, provenance=Provenance.ESTIMATED)
    settle(dataplane, changed(facts, attempts=[end]))
    (attempt,) = rows_of("quotas_attempt", id=row.attempt_id)
    assert attempt["ended_at"] is not None
    assert {name: attempt[name] for name in end.__struct_fields__} == {
        name: getattr(end, name) for name in end.__struct_fields__
    }
    (key,) = rows_of("tenants_apikey", id=tenant.key.id)
    assert key["last_used_at"] is not None


# --- Once ------------------------------------------------------------------------------------------


def test_a_repeated_settlement_is_done_already_or_a_conflict(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    row = admitted(dataplane, admission_row(tenant, model))
    facts, other = settlement_row(row, prompt_tokens=10), settlement_row(row, prompt_tokens=11)
    settle(dataplane, facts)
    before = money_of(tenant.id)
    assert settle_one(dataplane, facts).verdict == Verdict.ALREADY_DONE
    assert settle_one(dataplane, other).verdict == Verdict.CONFLICT
    assert settle_one(dataplane, void_row(row)).verdict == Verdict.CONFLICT
    assert settle_one(dataplane, sweep_row(row)).verdict == Verdict.ALREADY_DONE
    assert money_of(tenant.id) == before
    assert len(usage_of(row)) == 1


def test_a_repeated_void_is_done_already_and_cannot_become_a_charge(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    row = admitted(dataplane, admission_row(tenant, model))
    settle(dataplane, void_row(row))
    assert settle_one(dataplane, void_row(row)).verdict == Verdict.ALREADY_DONE
    assert settle_one(dataplane, settlement_row(row, prompt_tokens=1)).verdict == Verdict.CONFLICT
    assert settle_one(dataplane, sweep_row(row)).verdict == Verdict.ALREADY_DONE
    assert money_of(tenant.id) == Money(granted=10**9)


def test_unknown_calls_and_the_calls_of_others(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    other = make_tenant()
    enable(other, model)
    row = admitted(dataplane, admission_row(tenant, model))
    never = settlement_row(admission_row(tenant, model), prompt_tokens=1)
    stolen = settlement_row(admission_row(other, model, request_id=row.request_id), prompt_tokens=1)
    nobody = settlement_row(admission_row(tenant, model, tenant_id=uuid7()), prompt_tokens=1)
    for facts in (never, stolen, nobody):
        assert settle_one(dataplane, facts).verdict == Verdict.UNKNOWN
    assert hold_of(row)["state"] == "PENDING"
    assert money_of(other.id) == Money(granted=10**9)


def test_a_locked_tenant_delays_nobody_else(model: ModelFixture, dataplane: Connection) -> None:
    tenants = [make_tenant() for _ in range(3)]
    for each in tenants:
        enable(each, model)
    rows = [admitted(dataplane, admission_row(each, model)) for each in tenants]
    facts = [settlement_row(row, prompt_tokens=1) for row in rows]
    with connected("owner", autocommit=False) as blocker:
        blocker.execute(
            "SELECT 1 FROM quotas_wallet WHERE tenant_id = %s FOR NO KEY UPDATE", (tenants[1].id,)
        )
        answers = settle(dataplane, *facts)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            settle(dataplane, facts[1], block_ms=250)
    assert [isinstance(a, SettlementAnswer) and a.verdict for a in answers if a is not BUSY] == [
        Verdict.SETTLED
    ] * 2
    assert answers[1] is BUSY
    assert settle_one(dataplane, facts[1]).verdict == Verdict.SETTLED


# --- Rollups ---------------------------------------------------------------------------------------


def test_rollups_add_up_the_newest_revisions(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    first, second, third, fourth = (admitted(dataplane, admission_row(tenant, model)) for _ in range(4))
    checkpoint(dataplane, checkpoint_row(third, 10, 5))
    end_lease(third)
    settle(
        dataplane,
        settlement_row(first, prompt_tokens=20, cached_tokens=3, completion_tokens=4, reasoning_tokens=2),
        settlement_row(second, prompt_tokens=30),
        sweep_row(third),
        void_row(fourth),
    )
    settle(dataplane, settlement_row(third, prompt_tokens=11, completion_tokens=6))
    rollups = rows_of("quotas_usagerollup", tenant_id=tenant.id)
    columns = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")
    cost = 61 * 1_000 + 10 * 2_000
    assert [sum(rollup[column] for rollup in rollups) for column in columns] == [3, 61, 3, 10, 2]
    assert [sum(rollup[column] for rollup in rollups) for column in ("cost_nanos", "charged_nanos")] == [
        cost,
        cost,
    ]
