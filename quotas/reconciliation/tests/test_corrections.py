"""What is posted by itself and what waits, what operators do with it, and calls of several choices."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import pytest
from django.db import connections

from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from quotas.admission import AdmissionRow
from quotas.models import SuspenseItem
from quotas.reconciliation import corrections, suspense
from quotas.reconciliation.corrections import ByHand
from quotas.reconciliation.matching import open_gateway_only
from quotas.reconciliation.policy import CorrectionPolicy
from quotas.reconciliation.tests.said import (
    GENEROUS,
    Said,
    assert_books_hold,
    discrepancies_of,
    facts,
    lost,
    make_feed,
    post,
    served,
    take,
)
from quotas.settlement import AttemptEnd
from quotas.tests.doors import (
    Connection,
    admitted,
    changed,
    checkpoint,
    checkpoint_row,
    only,
    settle,
    usage_of,
)
from tenants.models import User
from tenants.operations import audit
from tenants.scope import role_scope
from tests.database import connected, money_of, rows_of
from tests.factories import (
    ModelFixture,
    TenantFixture,
    admission_row,
    enable,
    make_model,
    make_tenant,
    settlement_row,
)


@pytest.fixture(scope="module")
def model(database: None) -> ModelFixture:
    return make_model()


@pytest.fixture
def tenant(model: ModelFixture) -> TenantFixture:
    made = make_tenant()
    enable(made, model)
    return made


@pytest.fixture(scope="module")
def feed(model: ModelFixture) -> UUID:
    return make_feed(model.backend_id)


@pytest.fixture(scope="module")
def actor(database: None) -> audit.Actor:
    with role_scope("auth"):
        user = User.objects.create_user(email=f"{uuid7()}@example.com", full_name="Somebody")
    return audit.operator(user.id)


def tight(limit_nanos: int = 10**15, day_nanos: int = 10**15, days: int = 35) -> CorrectionPolicy:
    return CorrectionPolicy(limit_nanos=limit_nanos, day_nanos=day_nanos, days=days)


def test_above_a_limit_an_operator_is_asked(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture, feed: UUID, actor: audit.Actor
) -> None:
    row = served(dataplane, tenant, model, 10, 20)
    take(feed, [Said(row.attempt_id, 10, 30)])
    assert post(tight(limit_nanos=19_999)).waiting == 1
    found = discrepancies_of(row)["MISMATCHED"]
    assert (found["state"], found["delta_nanos"]) == ("WAITING", 20_000)
    assert post(tight(limit_nanos=10**15)).calls == 0
    revision = corrections.approve(
        discrepancy_id=found["id"], actor=actor, reason="seen in its log", now=utc_now()
    )
    assert revision == 2
    found = discrepancies_of(row)["MISMATCHED"]
    assert (found["state"], found["revision"], found["resolved_by_id"]) == ("CORRECTED", 2, actor.user_id)
    assert facts(row)[2] == 30
    (event,) = [
        one
        for one in rows_of("tenants_auditevent", tenant_id=tenant.id)
        if one["action"] == "correction.approve"
    ]
    assert (event["reason"], event["actor_id"], event["is_internal"]) == (
        "seen in its log",
        actor.user_id,
        True,
    )
    with pytest.raises(corrections.NotOpen):
        corrections.approve(discrepancy_id=found["id"], actor=actor, reason="again", now=utc_now())


def test_a_day_of_small_ones_is_asked_about_too(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture, feed: UUID
) -> None:
    rows = [served(dataplane, tenant, model, 10, 20) for _ in range(3)]
    take(feed, [Said(row.attempt_id, 10, 25) for row in rows])
    report = post(tight(day_nanos=20_000))
    assert (report.corrected, report.waiting) == (2, 1)


def test_too_old_to_cost_more_but_not_to_give_back(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture, feed: UUID
) -> None:
    rows = [served(dataplane, tenant, model, 10, 20) for _ in range(2)]
    take(feed, [Said(rows[0].attempt_id, 10, 25), Said(rows[1].attempt_id, 10, 15)])
    post(tight(days=0))
    found = discrepancies_of(rows[0])["MISMATCHED"]
    assert (found["state"], found["reason"], found["overrun_nanos"]) == ("EXPLAINED", "TOO_OLD", 10_000)
    assert [facts(row)[2] for row in rows] == [20, 15]
    assert_books_hold()


def test_accepting_and_waiving(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture, feed: UUID, actor: audit.Actor
) -> None:
    rows = [served(dataplane, tenant, model, 10, 20) for _ in range(2)]
    said = [Said(row.attempt_id, 10, 25) for row in rows]
    take(feed, said)
    post(tight(limit_nanos=1))
    accepted, waived = (discrepancies_of(row)["MISMATCHED"]["id"] for row in rows)
    with pytest.raises(audit.ReasonMissing):
        corrections.accept(discrepancy_id=accepted, actor=actor, reason=" ", now=utc_now())
    corrections.accept(discrepancy_id=accepted, actor=actor, reason="its log is wrong", now=utc_now())
    answers = corrections.decide_many(
        action=corrections.BulkAction.WAIVE,
        discrepancy_ids=[waived, accepted, uuid7()],
        actor=actor,
        reason="our mistake",
        now=utc_now(),
    )
    assert [type(answer.error) for answer in answers] == [
        type(None),
        corrections.NotOpen,
        corrections.UnknownDiscrepancy,
    ]
    states = [discrepancies_of(row)["MISMATCHED"] for row in rows]
    assert [(one["state"], one["overrun_nanos"]) for one in states] == [("ACCEPTED", 0), ("WAIVED", 10_000)]
    assert [facts(row)[2] for row in rows] == [20, 20]
    take(feed, said)
    assert post().calls == 0
    # Other counts are another question, for a person again.
    take(feed, [Said(rows[0].attempt_id, 10, 26)])
    assert discrepancies_of(rows[0])["MISMATCHED"]["state"] == "WAITING"
    assert discrepancies_of(rows[0])["REPEATED"]["state"] == "EXPLAINED"
    assert_books_hold()


def test_by_hand_within_what_was_admitted_and_for_good(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture, feed: UUID, actor: audit.Actor
) -> None:
    row = served(dataplane, tenant, model, 10, 20)
    take(feed, [Said(row.attempt_id, 10, 25)])
    post()
    found = discrepancies_of(row)["MISMATCHED"]["id"]
    by_hand = {"discrepancy_id": found, "actor": actor, "reason": "agreed upon", "now": utc_now()}
    with pytest.raises(corrections.OutOfBounds) as refused:
        corrections.correct_by_hand(counts=ByHand(10, 0, 101, 0), **by_hand)
    assert (refused.value.field, refused.value.most) == ("completion_tokens", 100)
    assert corrections.correct_by_hand(counts=ByHand(10, 0, 22, 0), **by_hand) == 3
    assert facts(row)[2] == 22
    with pytest.raises(corrections.NothingToCorrect):
        corrections.correct_by_hand(counts=ByHand(10, 0, 22, 0), **by_hand)
    take(feed, [Said(row.attempt_id, 10, 29)])
    post()
    assert facts(row)[2] == 22
    assert [one["cause"] for one in rows_of("quotas_correction", request_id=row.request_id)].count(
        "BY_HAND"
    ) == 1
    assert_books_hold()


def test_what_nobody_confirms_is_opened_and_explained_when_it_comes(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture, feed: UUID
) -> None:
    began = utc_now()
    row = served(dataplane, tenant, model, 10, 20)
    period = {"from_at": began - timedelta(minutes=1), "to_at": utc_now() + timedelta(minutes=1)}
    with role_scope("dataplane"):
        open_gateway_only(backend_id=model.backend_id, now=utc_now(), **period)
        assert open_gateway_only(backend_id=model.backend_id, now=utc_now(), **period) == 0
    assert discrepancies_of(row)["GATEWAY_ONLY"]["state"] == "OPEN"
    post()
    assert discrepancies_of(row)["GATEWAY_ONLY"]["state"] == "OPEN"
    take(feed, [Said(row.attempt_id, 10, 20)])
    found = discrepancies_of(row)["GATEWAY_ONLY"]
    assert (found["state"], found["is_late"], found["reason"]) == ("EXPLAINED", True, "CAME_LATE")


def test_suspense_is_decided_once(feed: UUID, actor: audit.Actor) -> None:
    subjects = [uuid7(), uuid7()]
    take(feed, [Said(subject, 1, 2) for subject in subjects])
    with role_scope("operator"):
        ids = list(SuspenseItem.objects.filter(subject_id__in=subjects).values_list("id", flat=True))
    suspense.explain(suspense_id=ids[0], actor=actor, reason="a test of ours", now=utc_now())
    suspense.write_off(suspense_id=ids[1], actor=actor, reason="nobody knows", now=utc_now())
    with pytest.raises(corrections.NotOpen):
        suspense.write_off(suspense_id=ids[0], actor=actor, reason="again", now=utc_now())
    with pytest.raises(suspense.UnknownSuspense):
        suspense.explain(suspense_id=uuid7(), actor=actor, reason="again", now=utc_now())
    states = {row["id"]: row["state"] for row in rows_of("quotas_suspenseitem")}
    assert [states[one] for one in ids] == ["EXPLAINED", "WRITTEN_OFF"]


def of_two_choices(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture
) -> tuple[AdmissionRow, UUID]:
    """A call of two whole choices of 20 tokens each, and the second one's attempt."""
    row = admitted(dataplane, admission_row(tenant, model, choices=2))
    second = uuid7()
    with connected("dataplane") as connection:
        connection.execute(
            "SELECT quotas_open_attempt(%s, %s, %s, 1, 1)", (second, row.request_id, model.deployment_id)
        )
    ends = [
        AttemptEnd(id=one, outcome="COMPLETED", http_status=200, prompt_tokens=10, completion_tokens=20)
        for one in (row.attempt_id, second)
    ]
    settlement = settlement_row(row, prompt_tokens=10, completion_tokens=40, cached_tokens=3)
    only(settle(dataplane, changed(settlement, attempts=ends)))
    return row, second


def test_what_was_decided_about_one_choice_stands_whatever_comes_of_another(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture, feed: UUID, actor: audit.Actor
) -> None:
    row, second = of_two_choices(dataplane, tenant, model)
    take(feed, [Said(row.attempt_id, 10, 25), Said(second, 10, 23)])
    post(CorrectionPolicy(limit_nanos=0, day_nanos=0, days=35))
    ids = {one["attempt_id"]: one["id"] for one in rows_of("quotas_discrepancy", request_id=row.request_id)}
    corrections.accept(discrepancy_id=ids[row.attempt_id], actor=actor, reason="for the test", now=utc_now())
    corrections.approve(discrepancy_id=ids[second], actor=actor, reason="for the test", now=utc_now())
    # Of the first choice's five more, nothing.
    assert facts(row)[2] == 43
    assert_books_hold()


def test_a_lost_call_that_came_to_its_end_is_billed_whole_at_the_same_counts(
    dataplane: Connection, tenant: TenantFixture
) -> None:
    """Its checkpoint was all of it; as a call that broke off only its input was billed."""
    model = make_model(cancel_policy="INPUT")
    enable(tenant, model)
    row = admitted(dataplane, admission_row(tenant, model))
    checkpoint(dataplane, checkpoint_row(row, 10, 20))
    lost(dataplane, row)
    assert usage_of(row)[-1]["billed"] == "INPUT"
    take(make_feed(model.backend_id), [Said(row.attempt_id, 10, 20)])
    post()
    assert (usage_of(row)[-1]["billed"], usage_of(row)[-1]["waived_nanos"]) == ("DELIVERED", 0)
    post()
    assert len(usage_of(row)) == 2
    assert_books_hold()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([(10, 20), (10, 25)], (10, 45)),  # only the sum of completions
        ([(12, 20), (12, 22)], (12, 42)),  # the one prompt of both
        ([(12, 20), None], (12, 40)),
        ([(12, 20), (10, 22)], None),  # which prompt was it?
    ],
)
def test_several_choices(
    dataplane: Connection,
    tenant: TenantFixture,
    model: ModelFixture,
    feed: UUID,
    said: list[tuple[int, int] | None],
    expected: tuple[int, int] | None,
) -> None:
    row, second = of_two_choices(dataplane, tenant, model)
    take(
        feed,
        [
            Said(attempt_id, *counts, 7)
            for attempt_id, counts in zip((row.attempt_id, second), said, strict=True)
            if counts is not None
        ],
    )
    post()
    if expected is None:
        assert {one["state"] for one in rows_of("quotas_discrepancy", request_id=row.request_id)} == {
            "WAITING"
        }
        assert facts(row)[:4] == (10, 3, 40, 0)
        return
    assert facts(row)[:4] == (expected[0], 3, expected[1], 0)
    assert_books_hold()


def test_workers_beside_each_other_post_once(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture, feed: UUID
) -> None:
    rows = [served(dataplane, tenant, model, 10, 20) for _ in range(12)]
    take(feed, [Said(row.attempt_id, 10, 21) for row in rows])

    def work(_: int) -> None:
        try:
            corrections.post_due_corrections(now=utc_now(), limit=1000, policy=GENEROUS)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(3) as workers:
        list(workers.map(work, range(6)))
    post()
    assert {facts(row)[2] for row in rows} == {21}
    assert {len(usage_of(row)) for row in rows} == {2}
    assert money_of(tenant.id).granted == 10**9 - 12 * 52_000


def test_all_calls_of_a_dead_gateway_are_billed_once(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture, feed: UUID
) -> None:
    """A gateway dies with all its calls; each is billed from its record, once."""
    rows = [admitted(dataplane, admission_row(tenant, model)) for _ in range(5)]
    for row in rows:
        lost(dataplane, row)
    said = [Said(row.attempt_id, 10, 30) for row in rows]
    take(feed, said[:3])
    post()
    take(feed, said)
    post()
    assert money_of(tenant.id).granted == 10**9 - 5 * 70_000
    assert {
        row["cause"] for one in rows for row in rows_of("quotas_correction", request_id=one.request_id)
    } == {"SETTLEMENT_LOST"}
    assert_books_hold()
