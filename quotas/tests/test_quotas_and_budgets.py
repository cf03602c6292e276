"""Admission within quotas and budgets: who is refused, with what words, and what the counters say."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from portal.kit.clock import utc_now
from quotas import audit
from quotas.admission import AdmissionAnswer, LimitHit, Refusal, Verdict
from quotas.models import BUDGET_KINDS, QUOTA_KINDS, LimitKind, LimitOrigin
from quotas.tests.doors import (
    Connection,
    admit,
    admit_one,
    admitted,
    assert_refused,
    checkpoint,
    checkpoint_row,
    end_lease,
    only,
    settle_one,
    sweep_row,
    verdicts,
)
from quotas.tests.limit_rows import clear_limit, set_limit, uses_of
from quotas.tests.settable_clock import ClockedDoors, clocked_doors
from tests.database import connected
from tests.factories import (
    ModelFixture,
    TenantFixture,
    admission_row,
    enable,
    issue_key,
    make_model,
    make_price,
    make_tenant,
    settlement_row,
    void_row,
)

# What a call of the factories' size reserves.
TOKENS = 100 + 100
HOLD = 100 * 1_000 + 100 * 2_000 + 2
KINDS = (*QUOTA_KINDS, *BUDGET_KINDS)
PARALLEL = 64

Owner = tuple[TenantFixture, ModelFixture]


def reserve(kind: LimitKind) -> int:
    return HOLD if kind in BUDGET_KINDS else TOKENS


def reason(kind: LimitKind) -> Refusal:
    return Refusal.BUDGET_EXCEEDED if kind in BUDGET_KINDS else Refusal.QUOTA_EXCEEDED


def month_start() -> str:
    return utc_now().date().replace(day=1).isoformat()


@pytest.fixture
def clocked(database: None) -> Iterator[ClockedDoors]:
    with clocked_doors() as doors:
        yield doors


@pytest.fixture(scope="module")
def old_model(database: None) -> ModelFixture:
    """A model at the default price since 2020."""
    model = make_model(prices=None)
    make_price(model.id, active_from=datetime(2020, 1, 1, tzinfo=UTC))
    return model


# --- What is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["organization", "model", "key", "model_and_key"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_call_beyond_a_limit_is_refused_and_the_limit_is_named(
    kind: LimitKind, scope: str, clocked: ClockedDoors, old_model: ModelFixture
) -> None:
    tenant = make_tenant()
    enable(tenant, old_model)
    model_id = old_model.id if "model" in scope else None
    api_key_id = tenant.key.id if "key" in scope else None
    now = datetime(2021, 2, 27, 12, tzinfo=UTC)
    clocked.set(now)
    set_limit(tenant.id, kind, 2 * reserve(kind) + 5, model_id=model_id, api_key_id=api_key_id, at=now)

    settled = admitted(clocked.connection, admission_row(tenant, old_model))
    settle_one(clocked.connection, settlement_row(settled, prompt_tokens=3, completion_tokens=7))
    pending = admitted(clocked.connection, admission_row(tenant, old_model))
    answer = assert_refused(clocked.connection, admission_row(tenant, old_model), reason(kind))

    is_day = kind in (LimitKind.TOKENS_DAY, LimitKind.MONEY_DAY)
    assert answer.limit == LimitHit(
        kind=kind,
        model_id=model_id,
        api_key_id=api_key_id,
        value=2 * reserve(kind) + 5,
        used=3 * 1_000 + 7 * 2_000 if kind in BUDGET_KINDS else 10,
        pending=reserve(kind),
        needed=reserve(kind),
        resets_at=datetime(2021, 2, 28, tzinfo=UTC) if is_day else datetime(2021, 3, 1, tzinfo=UTC),
    )
    assert (answer.hold_nanos, answer.currency) == (HOLD, "USD")
    settle_one(clocked.connection, void_row(pending))
    again = admitted(clocked.connection, admission_row(tenant, old_model))
    settle_one(clocked.connection, void_row(again))


def test_a_limit_is_of_its_scope_only(dataplane: Connection, model: ModelFixture) -> None:
    other_model = make_model()
    tenant = make_tenant()
    for each in (model, other_model):
        enable(tenant, each)
    key, digest = issue_key(tenant.id)
    set_limit(tenant.id, LimitKind.TOKENS_MONTH, 0, model_id=model.id, api_key_id=tenant.key.id)
    assert_refused(dataplane, admission_row(tenant, model), Refusal.QUOTA_EXCEEDED)
    assert admit_one(dataplane, admission_row(tenant, other_model)).verdict == Verdict.ADMITTED
    by_another_key = admission_row(tenant, model, api_key_id=key.id, digest=digest)
    assert admit_one(dataplane, by_another_key).verdict == Verdict.ADMITTED
    stranger = make_tenant()
    enable(stranger, model)
    assert admit_one(dataplane, admission_row(stranger, model)).verdict == Verdict.ADMITTED


def test_what_fits_exactly_is_admitted(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture
) -> None:
    for kind in KINDS:
        set_limit(tenant.id, kind, 2 * reserve(kind))
    answers = admit(dataplane, *(admission_row(tenant, model) for _ in range(3)))
    assert verdicts(answers) == [Verdict.ADMITTED, Verdict.ADMITTED, Verdict.REFUSED]


def test_of_several_the_one_that_resets_last_is_named(clocked: ClockedDoors, old_model: ModelFixture) -> None:
    tenant = make_tenant()
    enable(tenant, old_model)
    now = datetime(2021, 7, 14, 3, tzinfo=UTC)
    clocked.set(now)
    for kind in (LimitKind.TOKENS_DAY, LimitKind.MONEY_DAY):
        set_limit(tenant.id, kind, 0, at=now)
    first = admit_one(clocked.connection, admission_row(tenant, old_model))
    assert first.limit is not None
    assert first.limit.kind == LimitKind.MONEY_DAY
    set_limit(tenant.id, LimitKind.TOKENS_MONTH, 0, api_key_id=tenant.key.id, at=now)
    second = admit_one(clocked.connection, admission_row(tenant, old_model))
    assert second.limit is not None
    assert (second.limit.kind, second.limit.api_key_id) == (LimitKind.TOKENS_MONTH, tenant.key.id)


def test_a_limit_is_told_before_an_empty_wallet(dataplane: Connection, model: ModelFixture) -> None:
    tenant = make_tenant(granted=None)
    enable(tenant, model)
    set_limit(tenant.id, LimitKind.MONEY_MONTH, 1)
    refused = assert_refused(dataplane, admission_row(tenant, model), Refusal.BUDGET_EXCEEDED)
    assert refused.fit_output_tokens == 0


def test_the_organizations_own_limit_lowers_and_a_soft_budget_only_alerts(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture
) -> None:
    set_limit(tenant.id, LimitKind.MONEY_MONTH, 0, is_hard=False, origin=LimitOrigin.TENANT)
    assert admit_one(dataplane, admission_row(tenant, model)).verdict == Verdict.ADMITTED
    set_limit(tenant.id, LimitKind.TOKENS_MONTH, 10_000)
    set_limit(tenant.id, LimitKind.TOKENS_MONTH, TOKENS, origin=LimitOrigin.TENANT)
    refused = assert_refused(dataplane, admission_row(tenant, model), Refusal.QUOTA_EXCEEDED)
    assert refused.limit is not None
    assert (refused.limit.value, refused.limit.pending) == (TOKENS, TOKENS)


# --- Batches ---------------------------------------------------------------------------------------


def test_rows_of_a_batch_see_each_other_and_a_refused_one_takes_no_room(
    dataplane: Connection, model: ModelFixture
) -> None:
    one, two, free = (make_tenant() for _ in range(3))
    for each in (one, two, free):
        enable(each, model)
    set_limit(one.id, LimitKind.TOKENS_MONTH, 2 * TOKENS)
    set_limit(two.id, LimitKind.MONEY_DAY, HOLD, api_key_id=two.key.id)
    batch = admit(
        dataplane,
        admission_row(one, model, output_cap_tokens=1_000),
        admission_row(two, model),
        admission_row(one, model),
        admission_row(free, model, output_cap_tokens=1_000),
        admission_row(one, model),
        admission_row(two, model),
        admission_row(one, model, prompt_bound_tokens=0, output_cap_tokens=1),
    )
    answers = [answer for answer in batch if isinstance(answer, AdmissionAnswer)]
    assert [answer.reason for answer in answers] == [
        Refusal.QUOTA_EXCEEDED,
        None,
        None,
        None,
        None,
        Refusal.BUDGET_EXCEEDED,
        Refusal.QUOTA_EXCEEDED,
    ]
    last = answers[-1].limit
    assert last is not None
    assert (last.pending, last.needed) == (2 * TOKENS, 1)
    assert uses_of(free.id) == {}


def test_a_repeated_admission_reserves_once(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture
) -> None:
    set_limit(tenant.id, LimitKind.TOKENS_MONTH, TOKENS)
    row = admitted(dataplane, admission_row(tenant, model))
    assert only(admit(dataplane, row)).verdict == Verdict.ALREADY_DONE
    assert uses_of(tenant.id) == {(None, None, "TOKENS_MONTH", month_start()): (0, TOKENS)}


# --- The cap that would fit -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "money", "granted", "choices"),
    [
        (1_000, None, "1.00", 1),
        (1_001, None, "1.00", 3),
        (None, 777_777, "1.00", 1),
        (None, 777_777, "1.00", 3),
        (500, 5_000_000, "1.00", 2),
        (5_000, 600_000, "1.00", 2),
        (5_000, 5_000_000, "0.0007", 2),
        (101, None, "1.00", 1),
    ],
)
def test_the_cap_that_fits_is_exact(
    tokens: int | None,
    money: int | None,
    granted: str,
    choices: int,
    dataplane: Connection,
    model: ModelFixture,
) -> None:
    """With every limit and the balance together: so many are admitted, one more is not."""
    tenant = make_tenant(granted=granted)
    enable(tenant, model)
    if tokens is not None:
        set_limit(tenant.id, LimitKind.TOKENS_MONTH, tokens)
    if money is not None:
        set_limit(tenant.id, LimitKind.MONEY_MONTH, money, model_id=model.id)
    refused = admit_one(dataplane, admission_row(tenant, model, output_cap_tokens=1_000_000, choices=choices))
    assert refused.verdict == Verdict.REFUSED
    fits = refused.fit_output_tokens
    assert fits is not None
    assert fits > 0
    more = admit_one(dataplane, admission_row(tenant, model, output_cap_tokens=fits + 1, choices=choices))
    assert more.verdict == Verdict.REFUSED
    exact = admission_row(tenant, model, output_cap_tokens=fits, choices=choices)
    assert admit_one(dataplane, exact).verdict == Verdict.ADMITTED


def test_no_cap_fits_when_the_prompt_is_too_long(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture
) -> None:
    set_limit(tenant.id, LimitKind.TOKENS_MONTH, 99)
    refused = assert_refused(dataplane, admission_row(tenant, model), Refusal.QUOTA_EXCEEDED)
    assert refused.fit_output_tokens == 0


def test_a_free_model_has_quotas_and_no_budget(dataplane: Connection, database: None) -> None:
    free = make_model(prices={"input": 0, "output": 0})
    tenant = make_tenant(granted=None)
    enable(tenant, free)
    set_limit(tenant.id, LimitKind.MONEY_MONTH, 0)
    set_limit(tenant.id, LimitKind.TOKENS_MONTH, 150)
    refused = assert_refused(dataplane, admission_row(tenant, free), Refusal.QUOTA_EXCEEDED)
    assert refused.fit_output_tokens == 50


# --- Counters --------------------------------------------------------------------------------------


def test_without_limits_nothing_is_counted(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture
) -> None:
    settle_one(dataplane, settlement_row(admitted(dataplane, admission_row(tenant, model)), prompt_tokens=1))
    assert uses_of(tenant.id) == {}


def test_a_counter_begins_with_what_was_used_and_is_held_already(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture
) -> None:
    used = admitted(dataplane, admission_row(tenant, model))
    settle_one(dataplane, settlement_row(used, prompt_tokens=10, completion_tokens=5))
    held = admitted(dataplane, admission_row(tenant, model))
    key, digest = issue_key(tenant.id)
    set_limit(tenant.id, LimitKind.TOKENS_MONTH, 10_000)
    set_limit(tenant.id, LimitKind.MONEY_MONTH, 10**9, model_id=model.id)
    set_limit(tenant.id, LimitKind.TOKENS_MONTH, 10_000, api_key_id=key.id)
    admitted(dataplane, admission_row(tenant, model, api_key_id=key.id, digest=digest))
    month = month_start()
    assert uses_of(tenant.id) == {
        (None, None, "TOKENS_MONTH", month): (15, 2 * TOKENS),
        (model.id, None, "MONEY_MONTH", month): (10 * 1_000 + 5 * 2_000, 2 * HOLD),
        (None, key.id, "TOKENS_MONTH", month): (0, TOKENS),
    }
    settle_one(dataplane, void_row(held))


def test_a_limit_that_was_away_finds_a_right_counter(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture
) -> None:
    set_limit(tenant.id, LimitKind.TOKENS_MONTH, 1_000)
    first = admitted(dataplane, admission_row(tenant, model))
    clear_limit(tenant.id, LimitKind.TOKENS_MONTH)
    second = admitted(dataplane, admission_row(tenant, model))
    settle_one(dataplane, settlement_row(first, prompt_tokens=100, completion_tokens=100))
    set_limit(tenant.id, LimitKind.TOKENS_MONTH, 3 * TOKENS - 1)
    refused = assert_refused(dataplane, admission_row(tenant, model), Refusal.QUOTA_EXCEEDED)
    assert refused.limit is not None
    assert (refused.limit.used, refused.limit.pending) == (200, TOKENS)
    settle_one(dataplane, void_row(second))
    admitted(dataplane, admission_row(tenant, model))


def test_sweeps_and_later_revisions_move_the_counter(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture
) -> None:
    set_limit(tenant.id, LimitKind.TOKENS_MONTH, 1_000)
    row = admitted(dataplane, admission_row(tenant, model))
    checkpoint(dataplane, checkpoint_row(row, 10, 5))
    end_lease(row)
    (place,) = uses_of(tenant.id)
    settle_one(dataplane, sweep_row(row))
    assert uses_of(tenant.id) == {place: (15, 0)}
    settle_one(dataplane, settlement_row(row, prompt_tokens=10, completion_tokens=90))
    assert uses_of(tenant.id) == {place: (100, 0)}
    # What was measured beyond the reserve counts as well.
    another = admitted(dataplane, admission_row(tenant, model))
    settle_one(dataplane, settlement_row(another, prompt_tokens=200, completion_tokens=900))
    assert uses_of(tenant.id) == {place: (1_200, 0)}
    assert_refused(dataplane, admission_row(tenant, model), Refusal.QUOTA_EXCEEDED)


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_counts_in_the_period_of_its_admission(
    kind: LimitKind, clocked: ClockedDoors, old_model: ModelFixture
) -> None:
    tenant = make_tenant()
    enable(tenant, old_model)
    before, midnight = (
        datetime(2020, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2021, 1, 1, tzinfo=UTC),
    )
    set_limit(tenant.id, kind, reserve(kind), at=before - timedelta(days=1))
    clocked.set(before)
    old = admitted(clocked.connection, admission_row(tenant, old_model))
    refused = assert_refused(clocked.connection, admission_row(tenant, old_model), reason(kind))
    assert refused.limit is not None
    assert refused.limit.resets_at == midnight
    clocked.set(midnight)
    new = admitted(clocked.connection, admission_row(tenant, old_model))
    assert_refused(clocked.connection, admission_row(tenant, old_model), reason(kind))
    settle_one(clocked.connection, settlement_row(old, prompt_tokens=7))
    starts = {
        LimitKind.TOKENS_DAY: "2020-12-31",
        LimitKind.MONEY_DAY: "2020-12-31",
        LimitKind.TOKENS_MONTH: "2020-12-01",
        LimitKind.MONEY_MONTH: "2020-12-01",
    }
    assert uses_of(tenant.id) == {
        (None, None, kind.value, starts[kind]): (7_000 if kind in BUDGET_KINDS else 7, 0),
        (None, None, kind.value, "2021-01-01"): (0, reserve(kind)),
    }
    settle_one(clocked.connection, void_row(new))


def test_a_limit_lowered_below_its_use_refuses_new_calls_and_breaks_none(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture
) -> None:
    for kind in KINDS:
        set_limit(tenant.id, kind, 10 * reserve(kind))
    rows = [admitted(dataplane, admission_row(tenant, model)) for _ in range(3)]
    for kind in KINDS:
        set_limit(tenant.id, kind, 1)
    assert admit_one(dataplane, admission_row(tenant, model)).verdict == Verdict.REFUSED
    assert checkpoint(dataplane, *(checkpoint_row(row, 10, 5) for row in rows)) == {
        row.request_id: True for row in rows
    }
    for row in rows:
        settled = settle_one(dataplane, settlement_row(row, prompt_tokens=100, completion_tokens=100))
        assert (settled.verdict, settled.charged_nanos) == ("SETTLED", 300_000)
    assert {use for place, use in uses_of(tenant.id).items() if place[2].startswith("TOKENS")} == {(600, 0)}
    assert admit_one(dataplane, admission_row(tenant, model)).verdict == Verdict.REFUSED


def test_a_damaged_counter_keeps_no_call_from_being_settled(
    dataplane: Connection, tenant: TenantFixture, model: ModelFixture
) -> None:
    set_limit(tenant.id, LimitKind.TOKENS_MONTH, 1_000)
    row = admitted(dataplane, admission_row(tenant, model))
    with connected("owner") as owner:
        owner.execute("UPDATE quotas_limituse SET pending = 5 WHERE tenant_id = %s", (tenant.id,))
    assert settle_one(dataplane, settlement_row(row, prompt_tokens=1)).verdict == "SETTLED"
    assert set(uses_of(tenant.id).values()) == {(1, 0)}


# --- At once ---------------------------------------------------------------------------------------


def admit_at_once(tenant: TenantFixture, model: ModelFixture) -> list[AdmissionAnswer]:
    """So many connections, each with one call, all begun together."""
    barrier = threading.Barrier(PARALLEL)

    def one() -> AdmissionAnswer:
        with connected("dataplane") as connection:
            row = admission_row(tenant, model)
            barrier.wait(30)
            return only(admit(connection, row, block_ms=30_000))

    with ThreadPoolExecutor(PARALLEL) as pool:
        return [future.result(60) for future in [pool.submit(one) for _ in range(PARALLEL)]]


@pytest.mark.parametrize("kind", KINDS)
def test_parallel_admissions_do_not_slip_past(kind: LimitKind, model: ModelFixture) -> None:
    tenant = make_tenant(granted="100.00")
    enable(tenant, model)
    allowed = 11
    set_limit(tenant.id, kind, allowed * reserve(kind) + reserve(kind) - 1)
    answers = admit_at_once(tenant, model)
    assert Counter(answer.verdict for answer in answers) == {
        Verdict.ADMITTED: allowed,
        Verdict.REFUSED: PARALLEL - allowed,
    }
    hits = [answer.limit for answer in answers if answer.limit is not None]
    assert {(hit.kind, hit.pending) for hit in hits} == {(kind, allowed * reserve(kind))}
    assert [result for result in audit.run() if not result.holds] == []


def test_the_first_admissions_of_a_period_make_one_counter(
    model: ModelFixture, dataplane: Connection
) -> None:
    """Nobody's hold is missed or counted twice when the counter begins while many ask."""
    tenant = make_tenant(granted="100.00")
    enable(tenant, model)
    admit(dataplane, *(admission_row(tenant, model) for _ in range(5)))
    set_limit(tenant.id, LimitKind.TOKENS_MONTH, 20 * TOKENS)
    answers = admit_at_once(tenant, model)
    assert sum(answer.verdict is Verdict.ADMITTED for answer in answers) == 15
    assert uses_of(tenant.id) == {(None, None, "TOKENS_MONTH", month_start()): (0, 20 * TOKENS)}
