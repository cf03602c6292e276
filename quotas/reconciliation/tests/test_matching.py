"""Records beside what the gateway metered: who is right, and what it changes."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from quotas.metering.queries import confirmed_requests
from quotas.models import SuspenseItem
from quotas.reconciliation.matching import open_gateway_only
from quotas.reconciliation.policy import CorrectionPolicy
from quotas.reconciliation.tests.said import (
    Said,
    assert_books_hold,
    discrepancies_of,
    facts,
    lost,
    make_feed,
    newest,
    post,
    served,
    settle_as,
    take,
    verdicts_of,
)
from quotas.tests.doors import Connection, admitted, checkpoint, checkpoint_row, usage_of
from tenants.scope import role_scope
from tests.database import Money, money_of, rows_of
from tests.factories import ModelFixture, TenantFixture, admission_row, enable, make_model, make_tenant

# A token of the default price: 1,000 in, 2,000 out.


@pytest.fixture
def model(database: None) -> ModelFixture:
    return make_model()


@pytest.fixture
def tenant(model: ModelFixture) -> TenantFixture:
    made = make_tenant()
    enable(made, model)
    return made


@pytest.fixture
def feed(model: ModelFixture) -> UUID:
    return make_feed(model.backend_id)


def test_what_agrees_costs_nothing(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture, feed: UUID
) -> None:
    row = served(dataplane, tenant, model, 10, 20, cached=4, reasoning=3)
    said = Said(row.attempt_id, 10, 20, 4, 3)
    answer = take(feed, [said, said])
    assert (answer["stored"], answer["matched"], answer["mismatched"]) == (1, 1, 0)
    assert take(feed, [said])["stored"] == 0
    assert verdicts_of(row.attempt_id) == {0: ["MATCHED"]}
    (kept,) = rows_of("quotas_feedrecord", subject_id=row.attempt_id)
    assert discrepancies_of(row) == {}
    assert post().calls == 0
    assert len(usage_of(row)) == 1
    assert kept["wire_id"] == ""


@pytest.mark.parametrize("cached", [None, 6])
def test_the_record_of_a_whole_answer_counts(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture, feed: UUID, cached: int | None
) -> None:
    row = served(dataplane, tenant, model, 10, 20, cached=4, reasoning=3)
    before = money_of(tenant.id)
    answer = take(feed, [Said(row.attempt_id, 12, 25, cached, None)])
    assert answer["mismatched"] == 1
    assert discrepancies_of(row)["MISMATCHED"]["state"] == "OPEN"
    report = post()
    assert (report.corrected, report.left) == (1, 0)
    usage = newest(row)
    assert usage is not None
    assert (usage["revision"], usage["source"], usage["provenance"], usage["basis"]) == (
        2,
        "FEED",
        "CORRECTED",
        "FINAL_USAGE",
    )
    assert facts(row)[:4] == (12, cached or 4, 25, 3)
    assert money_of(tenant.id).granted == before.granted - 12_000
    found = discrepancies_of(row)["MISMATCHED"]
    assert (found["state"], found["revision"], found["delta_nanos"], found["overrun_nanos"]) == (
        "CORRECTED",
        2,
        12_000,
        0,
    )
    (correction,) = rows_of("quotas_correction", request_id=row.request_id)
    assert (correction["cause"], correction["delta_nanos"]) == ("COUNTS_DIFFER", 12_000)
    # The same again, and the gateway's own settlement again: nothing moves.
    assert take(feed, [Said(row.attempt_id, 12, 25, cached, None)])["stored"] == 0
    assert settle_as(dataplane, row, 10, 20, cached=4, reasoning=3).verdict == "ALREADY_DONE"
    assert post().calls == 0
    assert len(usage_of(row)) == 2
    assert_books_hold()


def test_a_record_that_says_less_gives_money_back(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture, feed: UUID
) -> None:
    row = served(dataplane, tenant, model, 10, 20)
    take(feed, [Said(row.attempt_id, 10, 15)])
    post()
    assert facts(row) == (10, 0, 15, 0, 40_000)
    assert money_of(tenant.id).granted == 10**9 - 40_000


def test_what_is_above_the_cap_is_ours(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture, feed: UUID
) -> None:
    row = served(dataplane, tenant, model, 10, 20)
    take(feed, [Said(row.attempt_id, 150, 130)])
    post()
    assert facts(row)[:4] == (100, 0, 100, 0)
    found = discrepancies_of(row)["MISMATCHED"]
    assert (found["state"], found["overrun_nanos"]) == ("CORRECTED", 50 * 1000 + 30 * 2000)
    assert_books_hold()


def test_what_the_balance_lacks_is_owed(dataplane: Connection, model: ModelFixture, feed: UUID) -> None:
    tenant = make_tenant(granted="0.000300002")
    enable(tenant, model)
    row = admitted(dataplane, admission_row(tenant, model))
    lost(dataplane, row)
    # The hold was void, and another call holds all that there is.
    other = admitted(dataplane, admission_row(tenant, model))
    take(feed, [Said(row.attempt_id, 10, 40)])
    post()
    usage = newest(row)
    assert usage is not None
    assert (usage["charged_nanos"], usage["granted_nanos"], usage["receivable_nanos"]) == (90_000, 0, 90_000)
    assert money_of(tenant.id) == Money(granted=300_002, receivable=-90_000, pending=300_002)
    # What is given back pays what is owed first.
    take(feed, [Said(row.attempt_id, 10, 41, finish="LENGTH")])
    post()
    assert money_of(tenant.id).receivable == -92_000
    settle_as(dataplane, other, 1, 1)
    settle_as(dataplane, row, 10, 2, outcome="CLIENT_GONE")
    post()
    assert money_of(tenant.id) == Money(granted=297_002, receivable=-14_000)
    assert_books_hold()


def test_the_surplus_of_a_call_that_broke_off_is_ours(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture, feed: UUID
) -> None:
    row = served(dataplane, tenant, model, 10, 20, outcome="CLIENT_GONE")
    take(feed, [Said(row.attempt_id, 10, 27, finish="ABORT")])
    post()
    assert facts(row) == (10, 0, 20, 0, 50_000)
    assert len(usage_of(row)) == 1
    found = discrepancies_of(row)["SURPLUS"]
    assert (found["state"], found["reason"], found["overrun_nanos"]) == ("EXPLAINED", "BROKE_OFF", 14_000)
    assert_books_hold()


@pytest.mark.parametrize("has_checkpoint", [False, True])
def test_a_lost_settlement_is_billed_from_the_record_once(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture, feed: UUID, has_checkpoint: bool
) -> None:
    row = admitted(dataplane, admission_row(tenant, model))
    said = Said(row.attempt_id, 10, 40)
    # It comes while the hold is pending.
    assert take(feed, [said])["early"] == 1
    assert post().calls == 0
    if has_checkpoint:
        checkpoint(dataplane, checkpoint_row(row, 10, 12))
    lost(dataplane, row)
    post()
    assert facts(row) == (10, 0, 40, 0, 90_000)
    assert discrepancies_of(row)["LOST_SETTLEMENT"]["state"] == "CORRECTED"
    assert take(feed, [said])["stored"] == 0
    assert post().calls == 0
    assert money_of(tenant.id).granted == 10**9 - 90_000
    assert_books_hold()


@pytest.mark.parametrize("finish", ["ABORT", "UNKNOWN"])
def test_of_a_lost_call_that_broke_off_the_checkpoint_is_billed(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture, feed: UUID, finish: str
) -> None:
    row = admitted(dataplane, admission_row(tenant, model))
    checkpoint(dataplane, checkpoint_row(row, 10, 12))
    lost(dataplane, row)
    take(feed, [Said(row.attempt_id, 10, 40, finish=finish)])
    post()
    assert facts(row) == (10, 0, 12, 0, 34_000)
    found = discrepancies_of(row)["LOST_SETTLEMENT"]
    assert (found["state"], found["overrun_nanos"]) == ("EXPLAINED", 28 * 2000)
    assert_books_hold()


@pytest.mark.parametrize("comes_late", ["COMPLETED", "CLIENT_GONE"])
@pytest.mark.parametrize("feed_first", [False, True])
def test_a_late_settlement_ends_the_same_in_either_order(
    dataplane: Connection,
    tenant: TenantFixture,
    model: ModelFixture,
    feed: UUID,
    comes_late: str,
    feed_first: bool,
) -> None:
    row = admitted(dataplane, admission_row(tenant, model))
    checkpoint(dataplane, checkpoint_row(row, 10, 12))
    lost(dataplane, row)
    if feed_first:
        take(feed, [Said(row.attempt_id, 10, 40)])
        post()
    settle_as(dataplane, row, 10, 30, outcome=comes_late)
    if not feed_first:
        take(feed, [Said(row.attempt_id, 10, 40)])
    post()
    billed = 40 if comes_late == "COMPLETED" else 30
    assert facts(row) == (10, 0, billed, 0, 10_000 + 2000 * billed)
    assert money_of(tenant.id).granted == 10**9 - 10_000 - 2000 * billed
    found = discrepancies_of(row)
    assert sum(one["overrun_nanos"] for one in found.values()) == (40 - billed) * 2000
    assert found["MISMATCHED" if comes_late == "COMPLETED" else "SURPLUS"]["state"] in (
        "CORRECTED",
        "EXPLAINED",
    )
    assert_books_hold()


def test_what_is_not_ours_is_on_nobodys_bill(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture, feed: UUID
) -> None:
    """Of no attempt at all, and of an attempt on another backend."""
    row = served(dataplane, tenant, model, 10, 20)
    elsewhere = make_feed(make_model().backend_id)
    nobodys = uuid7()
    assert take(elsewhere, [Said(row.attempt_id, 5, 5)])["foreign_count"] == 1
    assert take(feed, [Said(nobodys, 5, 6, wire_id="theirs")])["foreign_count"] == 1
    with role_scope("operator"):
        items = SuspenseItem.objects.filter(subject_id__in=[row.attempt_id, nobodys])
        assert sorted((item.state, item.completion_tokens) for item in items) == [("OPEN", 5), ("OPEN", 6)]
    # The record of its own backend agrees all the same.
    assert take(feed, [Said(row.attempt_id, 10, 20)])["stored"] == 1
    assert sorted(one["verdict"] for one in rows_of("quotas_feedrecord", subject_id=row.attempt_id)) == [
        "FOREIGN",
        "MATCHED",
    ]
    post()
    assert facts(row)[2] == 20
    with role_scope("dataplane"):
        assert list(confirmed_requests(tenant_id=tenant.id, request_ids=[row.request_id])) == [row.request_id]


def test_what_another_backend_says_explains_nothing(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture, feed: UUID
) -> None:
    row = served(dataplane, tenant, model, 10, 20)
    now = utc_now()
    with role_scope("dataplane"):
        opened = open_gateway_only(
            backend_id=model.backend_id,
            from_at=now - timedelta(minutes=5),
            to_at=now + timedelta(minutes=5),
            now=now,
        )
    assert opened == 1
    take(make_feed(make_model().backend_id), [Said(row.attempt_id, 9, 20)])
    assert discrepancies_of(row)["GATEWAY_ONLY"]["state"] == "OPEN"
    take(feed, [Said(row.attempt_id, 10, 20)])
    assert discrepancies_of(row)["GATEWAY_ONLY"]["reason"] == "CAME_LATE"


def test_absurd_parts_keep_nobody_from_being_corrected(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture, feed: UUID
) -> None:
    """Their sum is beyond what a column holds, and they come before the call is settled."""
    row = admitted(dataplane, admission_row(tenant, model))
    most = 2**31 - 1
    take(feed, [Said(row.attempt_id, most, most, part=0), Said(row.attempt_id, most, most, part=1)])
    settle_as(dataplane, row, 10, 20)
    other = served(dataplane, tenant, model, 10, 20)
    take(feed, [Said(other.attempt_id, 10, 19)])
    post()
    assert facts(other)[2] == 19
    assert facts(row)[:3:2] == (row.prompt_bound_tokens, row.output_cap_tokens)
    assert_books_hold()


def test_records_that_grow_do_not_creep_past_the_limit(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture, feed: UUID
) -> None:
    policy = CorrectionPolicy(limit_nanos=3_000, day_nanos=10**15, days=35)
    row = served(dataplane, tenant, model, 10, 20)
    for completion, state in ((21, "CORRECTED"), (22, "WAITING")):
        take(feed, [Said(row.attempt_id, 10, completion)])
        post(policy)
        assert discrepancies_of(row)["MISMATCHED"]["state"] == state
    assert facts(row)[2] == 21


def test_cached_tokens_count_behind_a_late_settlement_too(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture, feed: UUID
) -> None:
    row = admitted(dataplane, admission_row(tenant, model))
    checkpoint(dataplane, checkpoint_row(row, 10, 5))
    lost(dataplane, row)
    settle_as(dataplane, row, 10, 20, cached=8)
    take(feed, [Said(row.attempt_id, 10, 20, cached_tokens=2)])
    post()
    assert facts(row)[:3] == (10, 2, 20)
    assert_books_hold()


def test_ids_of_days_that_never_were_are_left_out(feed: UUID) -> None:

    answer = take(
        feed, [Said(UUID(int=1 << 100), 1, 1), Said(UUID(int=2**128 - 1), 1, 1), Said(uuid7(), 1, 1)]
    )
    assert (answer["misplaced"], answer["stored"]) == (2, 1)


def test_parts_of_a_list_of_inputs_are_added_up(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture, feed: UUID
) -> None:
    row = served(dataplane, tenant, model, 30, 0, endpoint="embeddings")
    take(feed, [Said(row.attempt_id, 10, 0, part=0)])
    post()
    # One that lacks parts gives no money back.
    assert discrepancies_of(row)["MISMATCHED"]["state"] == "WAITING"
    take(feed, [Said(row.attempt_id, 15, 0, part=1), Said(row.attempt_id, 5, 0, part=2)])
    post()
    assert verdicts_of(row.attempt_id) == {0: ["MATCHED"], 1: ["MATCHED"], 2: ["MATCHED"]}
    assert discrepancies_of(row)["MISMATCHED"]["state"] == "EXPLAINED"
    assert facts(row)[0] == 30
