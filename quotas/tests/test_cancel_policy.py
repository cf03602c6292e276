"""What is billed of a call that broke off: what was delivered, the input, or nothing; the rest is ours."""

from __future__ import annotations

from typing import Any

import pytest

from models_catalog.models import CatalogModel
from portal.kit.ids import uuid7
from quotas import settlement
from quotas.admission import open_attempt
from quotas.metering.facts import UsageFacts
from quotas.metering.queries import request_receipt
from quotas.models import AttemptOutcome, Basis, Provenance
from quotas.settlement import AttemptEnd
from quotas.tests.doors import (
    Connection,
    admitted,
    checkpoint,
    checkpoint_row,
    end_lease,
    entries_of,
    hold_of,
    settle_one,
    sweep_row,
    usage_of,
)
from tenants.scope import role_scope, tenant_scope
from tests.database import Money, blocking, money_of, rows_of
from tests.factories import (
    ModelFixture,
    TenantFixture,
    admission_row,
    enable,
    make_model,
    make_tenant,
    settlement_row,
)

POLICIES = ("DELIVERED", "INPUT", "NOTHING")
BROKEN = (
    AttemptOutcome.CLIENT_GONE,
    AttemptOutcome.BACKEND_FAILED,
    AttemptOutcome.BACKEND_TIMEOUT,
    AttemptOutcome.CUT,
)
# Ten tokens in and five out, at a thousand and two thousand nano-units.
CHARGED = {"DELIVERED": 20_000, "INPUT": 10_000, "NOTHING": 0}


def sold_under(policy: str, tenant: TenantFixture) -> ModelFixture:
    model = make_model(cancel_policy=policy)
    enable(tenant, model)
    return model


@pytest.mark.parametrize("outcome", BROKEN)
@pytest.mark.parametrize("policy", POLICIES)
def test_a_call_that_breaks_off(
    policy: str, outcome: AttemptOutcome, tenant: TenantFixture, dataplane: Connection
) -> None:
    row = admitted(dataplane, admission_row(tenant, sold_under(policy, tenant)))
    answer = settle_one(
        dataplane,
        settlement_row(row, prompt_tokens=10, completion_tokens=5, basis=Basis.CHECKPOINT, outcome=outcome),
    )
    charged = CHARGED[policy]
    assert (answer.charged_nanos, answer.overrun_nanos) == (charged, 0)
    (usage,) = usage_of(row)
    assert (usage["cost_nanos"], usage["charged_nanos"], usage["waived_nanos"], usage["billed"]) == (
        20_000,
        charged,
        20_000 - charged,
        policy,
    )
    # The tokens were delivered, whatever they cost.
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (10, 5)
    legs = {"GRANTED": -charged, "GRANTED_USAGE": charged, "WAIVED_EXPENSE": charged - 20_000}
    legs["UNBILLED_USAGE"] = 20_000 - charged
    assert entries_of(row) == {kind: amount for kind, amount in legs.items() if amount}
    assert money_of(tenant.id) == Money(granted=10**9 - charged)
    assert hold_of(row)["state"] == "POSTED"


@pytest.mark.parametrize("policy", POLICIES)
def test_a_whole_answer_is_billed_whatever_the_policy(
    policy: str, tenant: TenantFixture, dataplane: Connection
) -> None:
    """Also when a try before the one that delivered it had failed."""
    model = sold_under(policy, tenant)
    row = admitted(dataplane, admission_row(tenant, model))
    again = uuid7()
    assert blocking(
        open_attempt,
        dataplane,
        attempt_id=again,
        request_id=row.request_id,
        deployment_id=model.deployment_id,
        choice_index=0,
        ordinal=2,
    )
    ends = [
        AttemptEnd(id=row.attempt_id, outcome="UNREACHABLE"),
        AttemptEnd(id=again, outcome="COMPLETED"),
    ]
    assert settle_one(dataplane, _settlement(row, ends)).charged_nanos == 20_000
    (usage,) = usage_of(row)
    assert (usage["billed"], usage["waived_nanos"]) == ("DELIVERED", 0)


def _settlement(row: Any, ends: list[AttemptEnd], completion_tokens: int = 5) -> settlement.SettlementRow:
    facts = UsageFacts(
        prompt_tokens=10,
        completion_tokens=completion_tokens,
        basis=Basis.FINAL_USAGE,
        provenance=Provenance.MEASURED,
    )
    return settlement.settlement_row(
        request_id=row.request_id, tenant_id=row.tenant_id, facts=facts, attempts=ends
    )


def test_one_choice_that_breaks_off_makes_the_call_broken(
    tenant: TenantFixture, dataplane: Connection
) -> None:
    row = admitted(dataplane, admission_row(tenant, sold_under("INPUT", tenant), choices=2))
    ends = [
        AttemptEnd(id=row.attempt_id, outcome="COMPLETED"),
        AttemptEnd(id=uuid7(), outcome="CUT"),
    ]
    assert settle_one(dataplane, _settlement(row, ends)).charged_nanos == 10_000


def test_the_policy_is_that_of_the_admission(tenant: TenantFixture, dataplane: Connection) -> None:
    model = sold_under("NOTHING", tenant)
    row = admitted(dataplane, admission_row(tenant, model))
    with role_scope("operator"):
        CatalogModel.objects.filter(id=model.id).update(cancel_policy="DELIVERED")
    (stored,) = rows_of("quotas_inferencerequest", id=row.request_id)
    assert stored["cancel_policy"] == "NOTHING"
    cut = settlement_row(row, prompt_tokens=10, completion_tokens=5, outcome=AttemptOutcome.CUT)
    assert settle_one(dataplane, cut).charged_nanos == 0


def test_a_lost_gateway_breaks_the_call_off_until_it_says_otherwise(
    tenant: TenantFixture, dataplane: Connection
) -> None:
    """The sweeper knows no completed attempt, so the policy applies; the gateway's late word is the truth."""
    row = admitted(dataplane, admission_row(tenant, sold_under("INPUT", tenant)))
    checkpoint(dataplane, checkpoint_row(row, 10, 3))
    end_lease(row)
    assert settle_one(dataplane, sweep_row(row)).charged_nanos == 10_000
    late = settle_one(dataplane, settlement_row(row, prompt_tokens=10, completion_tokens=5))
    assert (late.revision, late.charged_nanos) == (2, 20_000)
    first, second = usage_of(row)
    assert (first["billed"], first["waived_nanos"]) == ("INPUT", 6_000)
    assert (second["billed"], second["waived_nanos"]) == ("DELIVERED", 0)
    assert entries_of(row, 2) == {
        "GRANTED": -10_000,
        "GRANTED_USAGE": 10_000,
        "WAIVED_EXPENSE": 6_000,
        "UNBILLED_USAGE": -6_000,
    }
    assert money_of(tenant.id) == Money(granted=10**9 - 20_000)


def test_what_is_billed_beyond_the_hold_is_an_overrun_beside_what_is_waived(
    tenant: TenantFixture, dataplane: Connection
) -> None:
    row = admitted(dataplane, admission_row(tenant, sold_under("INPUT", tenant), output_cap_tokens=1))
    cut = settlement_row(row, prompt_tokens=150, completion_tokens=5, outcome=AttemptOutcome.CUT)
    answer = settle_one(dataplane, cut)
    assert (answer.charged_nanos, answer.overrun_nanos) == (102_002, 150_000 - 102_002)
    (usage,) = usage_of(row)
    assert (usage["cost_nanos"], usage["waived_nanos"]) == (160_000, 10_000)


def test_nothing_delivered_is_a_void_under_every_policy(tenant: TenantFixture, dataplane: Connection) -> None:
    for policy in POLICIES:
        row = admitted(dataplane, admission_row(tenant, sold_under(policy, tenant)))
        settle_one(dataplane, settlement_row(row, basis=Basis.NOTHING, outcome=AttemptOutcome.CLIENT_GONE))
        assert (usage_of(row), hold_of(row)["state"]) == ([], "VOIDED")


def test_the_receipt_says_which_lines_were_billed(dataplane: Connection, database: None) -> None:
    tenant = make_tenant()
    model = make_model(
        cancel_policy="INPUT",
        prices={"input": 333_333_333, "cached_input": 33_333_337, "output": 10**9, "request": 5_000_000},
    )
    enable(tenant, model)
    row = admitted(dataplane, admission_row(tenant, model))
    settle_one(
        dataplane,
        settlement_row(
            row,
            prompt_tokens=10,
            cached_tokens=4,
            completion_tokens=5,
            reasoning_tokens=2,
            outcome=AttemptOutcome.CLIENT_GONE,
        ),
    )
    with tenant_scope(tenant.id):
        receipt = request_receipt(tenant_id=tenant.id, request_id=row.request_id)
    (revision,) = receipt.revisions
    assert {line.token_class: line.is_billed for line in revision.lines} == {
        "input": True,
        "cached_input": True,
        "output": False,
        "reasoning": False,
        "request": True,
    }
    assert revision.adds_up
    assert revision.charged_nanos == revision.due_nanos == 2_000 + 133 + 5
    assert revision.waived_nanos == 5_000
    assert receipt.has_broken_off
    assert receipt.cancel_policy == "INPUT"


def test_usage_of_a_waived_call_still_counts_as_tokens_but_not_as_money(
    tenant: TenantFixture, dataplane: Connection
) -> None:
    model = sold_under("NOTHING", tenant)
    row = admitted(dataplane, admission_row(tenant, model))
    settle_one(
        dataplane, settlement_row(row, prompt_tokens=10, completion_tokens=5, outcome=AttemptOutcome.CUT)
    )
    (rollup,) = rows_of("quotas_usagerollup", tenant_id=tenant.id, model_id=model.id)
    assert (rollup["prompt_tokens"], rollup["completion_tokens"]) == (10, 5)
    assert (rollup["cost_nanos"], rollup["charged_nanos"]) == (20_000, 0)
