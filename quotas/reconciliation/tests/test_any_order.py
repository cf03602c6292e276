"""Any permutation, duplication and re-split of what feeds say ends in the same money, usage and verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from quotas.admission import AdmissionRow
from quotas.reconciliation.tests.said import (
    Said,
    assert_books_hold,
    facts,
    lost,
    make_feed,
    post,
    settle_as,
    take,
)
from quotas.tests.doors import admitted, checkpoint, checkpoint_row
from tests.database import connection_info, money_of, rows_of
from tests.factories import ModelFixture, TenantFixture, admission_row, enable, make_model, make_tenant


@dataclass(frozen=True)
class Plan:
    """One call: how it ended for the gateway, and what the backend says of it, in tokens."""

    ending: str  # COMPLETED, CLIENT_GONE, LOST, LATE
    billed: tuple[int, int]
    checkpoint: int | None
    said: tuple[tuple[int, int, int | None, str], ...]


counts = st.tuples(
    st.integers(0, 110),
    st.integers(0, 110),
    st.sampled_from([None, 0, 3]),
    st.sampled_from(["STOP", "LENGTH", "ABORT", "UNKNOWN"]),
).map(lambda told: (max(told[0], told[2] or 0), *told[1:]))
plans = st.builds(
    Plan,
    ending=st.sampled_from(["COMPLETED", "CLIENT_GONE", "LOST", "LATE"]),
    billed=st.tuples(st.integers(3, 90), st.integers(0, 90)),
    checkpoint=st.sampled_from([None, 7]),
    said=st.lists(counts, max_size=3).map(tuple),
)
# Each order: of the steps, in batches of how many records, and whether corrections are posted between.
orders = st.tuples(st.integers(0, 2**32), st.integers(1, 4), st.booleans())


@pytest.fixture(scope="module")
def model(database: None) -> ModelFixture:
    return make_model()


# An example takes seconds: looking for a smaller one would take longer than reading this one.
@settings(
    max_examples=12,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(plan=st.lists(plans, min_size=1, max_size=3), one=orders, other=orders)
def test_any_order_ends_the_same(model: ModelFixture, plan: list[Plan], one: Any, other: Any) -> None:
    feed_id = make_feed(model.backend_id)
    ends = [_run(model, feed_id, plan, order) for order in (one, other)]
    assert ends[0] == ends[1]


def test_the_books_hold_after_all_of_them(database: None) -> None:
    assert_books_hold()


def _run(model: ModelFixture, feed_id: UUID, plan: list[Plan], order: Any) -> Any:
    seed, batches, posts_between = order
    random = Random(seed)
    tenant = make_tenant(granted="0.0001", paid="0.001")
    enable(tenant, model)
    with psycopg.connect(connection_info("dataplane"), autocommit=True) as dataplane:
        rows = [admitted(dataplane, admission_row(tenant, model)) for _ in plan]
        todo: list[tuple[str, int, int]] = []
        for number, call in enumerate(plan):
            todo.append(("END", number, 0))
            todo += [("SAY", number, place) for place in range(len(call.said))]
            todo += [("SAY", number, place) for place in range(len(call.said)) if random.random() < 0.3]
            if call.ending == "LATE":
                todo.append(("LATE", number, 0))
        random.shuffle(todo)
        # A late settlement comes after the sweeper.
        todo.sort(key=lambda step: step[0] == "LATE" and not posts_between)
        waiting: list[Said] = []
        for what, number, place in _in_turn(todo):
            if what == "SAY":
                prompt, completion, cached, finish = plan[number].said[place]
                waiting.append(Said(rows[number].attempt_id, prompt, completion, cached, None, finish))
                if len(waiting) >= batches:
                    take(feed_id, waiting)
                    waiting = []
                    if posts_between:
                        post()
                continue
            _end(dataplane, rows[number], plan[number], is_late=what == "LATE")
        if waiting:
            take(feed_id, waiting)
        post()
    return _state(tenant, rows)


def _in_turn(todo: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """The same with every late settlement behind the end of its call."""
    ended: set[int] = set()
    put_off: list[tuple[str, int, int]] = []
    result = []
    for step in todo:
        if step[0] == "LATE" and step[1] not in ended:
            put_off.append(step)
            continue
        result.append(step)
        if step[0] == "END":
            ended.add(step[1])
    return result + put_off


def _end(dataplane: Any, row: AdmissionRow, call: Plan, *, is_late: bool) -> None:
    if is_late or call.ending in ("COMPLETED", "CLIENT_GONE"):
        outcome = "COMPLETED" if call.ending == "LATE" else call.ending
        settle_as(dataplane, row, *call.billed, outcome=outcome, cached=2)
        return
    if call.checkpoint is not None:
        checkpoint(dataplane, checkpoint_row(row, 5, call.checkpoint))
    lost(dataplane, row)


def _state(tenant: TenantFixture, rows: list[AdmissionRow]) -> Any:
    """Money, what each call's usage is and what is our expense; and what is still undecided."""
    found = {row.request_id: rows_of("quotas_discrepancy", request_id=row.request_id) for row in rows}
    money = money_of(tenant.id)
    return (
        # Which of a balance's parts paid depends on what was charged first, as without any correction.
        money.paid + money.granted + money.receivable,
        money.pending,
        [facts(row) for row in rows],
        [sum(one["overrun_nanos"] for one in found[row.request_id]) for row in rows],
        # What was decided without a change may have been opened on the way, or never.
        [
            sorted(
                (one["kind"], one["delta_nanos"])
                for one in found[row.request_id]
                if one["state"] == "WAITING"
            )
            for row in rows
        ],
        [
            sorted(kept["verdict"] for kept in rows_of("quotas_feedrecord", subject_id=row.attempt_id))
            for row in rows
        ],
    )
