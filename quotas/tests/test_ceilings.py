"""A ceiling on one call: the cap it leaves is exact, and neither hold nor charge is ever above it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotas.admission import AdmissionRow, Refusal, Verdict
from quotas.models import LimitKind
from quotas.tests.doors import (
    Connection,
    admit,
    admit_one,
    admitted,
    assert_refused,
    hold_of,
    settle_one,
    usage_of,
    verdicts,
)
from tests.database import connected, rows_of
from tests.factories import (
    LineSpec,
    ModelFixture,
    TenantFixture,
    admission_row,
    enable,
    make_model,
    make_tenant,
    settlement_row,
)
from tests.limits import limit_calls

MILLION = 10**6


def hold_nanos(prompt: int, output: int, prices: tuple[int, int, int]) -> int:
    """As the rules say it: rounded up by part, and a nano-unit more for each price that can round."""
    prompt_price, output_price, request_price = prices
    parts = -(-prompt * prompt_price // MILLION) - (-output * output_price // MILLION)
    return parts + (request_price + MILLION // 2) // MILLION + (prompt_price > 0) + (output_price > 0)


@pytest.fixture(scope="module")
def pricing(database: None) -> Iterator[Connection]:
    """One connection for all examples of a property."""
    with connected("dataplane") as connection:
        yield connection


@given(
    ceiling=st.integers(1, 10**10),
    prompt=st.integers(0, 10**6),
    choices=st.integers(1, 8),
    cap=st.integers(0, 10**6),
    prices=st.tuples(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**12)),
)
def test_the_cap_is_the_largest_that_cannot_cost_more(
    ceiling: int, prompt: int, choices: int, cap: int, prices: tuple[int, int, int], pricing: Connection
) -> None:
    cursor = pricing.execute(
        "SELECT quotas_cap_within(%s, %s, %s, %s, %s, %s, %s)", (ceiling, prompt, choices, cap, *prices)
    )
    found = cursor.fetchone()
    assert found is not None
    fits = found[0]
    if fits is None:
        assert hold_nanos(prompt, choices * min(1, cap), prices) > ceiling
    else:
        assert min(1, cap) <= fits <= cap
        assert hold_nanos(prompt, choices * fits, prices) <= ceiling
        assert fits == cap or hold_nanos(prompt, choices * (fits + 1), prices) > ceiling


def test_admission_lowers_the_cap_and_holds_no_more(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    """100,000 for the prompt and 2 for rounding: of 250,000 nano-units 149,998 are left, at 2,000 a token."""
    row = admission_row(tenant, model, output_cap_tokens=500, max_cost_nanos=250_000)
    answer = admit_one(dataplane, row)
    assert (answer.verdict, answer.output_cap_tokens) == (Verdict.ADMITTED, 74)
    assert answer.hold_nanos == 100_000 + 74 * 2_000 + 2
    (stored,) = rows_of("quotas_inferencerequest", id=row.request_id)
    assert (stored["output_cap_tokens"], stored["max_cost_nanos"]) == (74, 250_000)
    assert hold_of(row)["amount_nanos"] == answer.hold_nanos
    again = admit_one(dataplane, row)
    assert (again.verdict, again.output_cap_tokens) == (Verdict.ALREADY_DONE, 74)


def test_without_a_ceiling_and_with_a_high_one_the_cap_stays(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    for ceiling in (None, 300_002, 10**15):
        answer = admit_one(dataplane, admission_row(tenant, model, max_cost_nanos=ceiling))
        assert (answer.verdict, answer.output_cap_tokens) == (Verdict.ADMITTED, 100)


def test_the_cap_is_of_each_choice(tenant: TenantFixture, model: ModelFixture, dataplane: Connection) -> None:
    answer = admit_one(
        dataplane, admission_row(tenant, model, choices=3, output_cap_tokens=500, max_cost_nanos=250_000)
    )
    assert answer.output_cap_tokens == 24
    assert answer.hold_nanos == 100_000 + 3 * 24 * 2_000 + 2


def test_a_ceiling_that_the_prompt_alone_exceeds(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    """What is said to be the least is admitted; a nano-unit less is not."""
    answer = assert_refused(
        dataplane, admission_row(tenant, model, max_cost_nanos=50_000), Refusal.MAX_COST_TOO_LOW
    )
    assert (answer.hold_nanos, answer.least_cost_nanos, answer.currency) == (100_002, 102_002, "USD")
    assert_refused(dataplane, admission_row(tenant, model, max_cost_nanos=102_001), Refusal.MAX_COST_TOO_LOW)
    fits = admit_one(dataplane, admission_row(tenant, model, max_cost_nanos=102_002))
    assert (fits.verdict, fits.output_cap_tokens, fits.hold_nanos) == (Verdict.ADMITTED, 1, 102_002)


def test_a_refused_row_takes_no_room(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    rows = [admission_row(tenant, model, max_cost_nanos=ceiling) for ceiling in (1, None, 200_000)]
    answers = admit(dataplane, *rows)
    assert verdicts(answers) == [Verdict.REFUSED, Verdict.ADMITTED, Verdict.ADMITTED]


def test_the_dearest_line_within_reach_counts(dataplane: Connection, database: None) -> None:
    """A band that the prompt may reach, a dearer class and a price by the request: all within the ceiling."""
    model = make_model(
        prices={"reasoning": 5 * 10**9, "cached_input": 10**8, "request": 7 * 10**6},
        lines=[
            LineSpec("input", 10**9, input_to_tokens=1_000),
            LineSpec("input", 3 * 10**9, input_from_tokens=1_000),
            LineSpec("output", 2 * 10**9),
        ],
    )
    tenant = make_tenant()
    enable(tenant, model)
    ceiling = 3_000_000 + 7 + 2 + 5_000 * 10
    row = admitted(dataplane, admission_row(tenant, model, prompt_bound_tokens=1_000, max_cost_nanos=ceiling))
    (stored,) = rows_of("quotas_inferencerequest", id=row.request_id)
    assert stored["output_cap_tokens"] == 10
    settled = settle_one(
        dataplane, settlement_row(row, prompt_tokens=1_000, completion_tokens=10, reasoning_tokens=10)
    )
    assert settled.charged_nanos == 3_000_000 + 5_000 * 10 + 7


def test_a_backend_that_goes_beyond_the_cap_is_our_overrun(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    row = admitted(dataplane, admission_row(tenant, model, max_cost_nanos=150_000))
    answer = settle_one(dataplane, settlement_row(row, prompt_tokens=100, completion_tokens=100))
    assert answer.charged_nanos == 148_002
    assert answer.overrun_nanos == 300_000 - 148_002
    (usage,) = usage_of(row)
    assert (usage["max_cost_nanos"], usage["charged_nanos"]) == (150_000, 148_002)


def test_limits_count_the_lowered_cap(
    tenant: TenantFixture, model: ModelFixture, dataplane: Connection
) -> None:
    limit_calls(tenant.id, LimitKind.TOKENS_DAY, 150)
    assert_refused(dataplane, admission_row(tenant, model), Refusal.QUOTA_EXCEEDED)
    lowered = admission_row(tenant, model, max_cost_nanos=180_002)
    assert admit_one(dataplane, lowered).output_cap_tokens == 40
    (use,) = rows_of("quotas_limituse", tenant_id=tenant.id)
    assert (use["used"], use["pending"]) == (0, 140)
    settle_one(dataplane, settlement_row(lowered, prompt_tokens=10, completion_tokens=5))
    (use,) = rows_of("quotas_limituse", tenant_id=tenant.id)
    assert (use["used"], use["pending"]) == (15, 0)


def _rewrite(table: str, row: AdmissionRow, column: str, value: int) -> None:
    """As the owner, past every function. The append-only triggers are not what is tested here."""
    with connected("owner", autocommit=False) as owner:
        owner.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        owner.execute(f"UPDATE {table} SET {column} = %s WHERE request_id = %s", (value, row.request_id))


@pytest.mark.parametrize(
    ("table", "column", "value", "constraint"),
    [
        ("quotas_hold", "amount_nanos", 250_001, "hold_within_ceiling"),
        ("quotas_hold", "max_cost_nanos", 247_999, "hold_within_ceiling"),
        ("quotas_usagerecord", "max_cost_nanos", 19_999, "usage_within_ceiling"),
    ],
)
def test_the_database_holds_amounts_below_the_ceiling(
    table: str,
    column: str,
    value: int,
    constraint: str,
    tenant: TenantFixture,
    model: ModelFixture,
    dataplane: Connection,
) -> None:
    row = admitted(dataplane, admission_row(tenant, model, output_cap_tokens=500, max_cost_nanos=250_000))
    settle_one(dataplane, settlement_row(row, prompt_tokens=10, completion_tokens=5))
    with pytest.raises(psycopg.errors.CheckViolation, match=constraint):
        _rewrite(table, row, column, value)


@pytest.mark.parametrize("ceiling", [0, -1])
def test_a_ceiling_is_positive(
    ceiling: int, tenant: TenantFixture, dataplane: Connection, database: None
) -> None:
    """Whoever asks for one is refused at the door; the database would not store it either."""
    free = make_model(prices={"input": 0, "output": 0})
    enable(tenant, free)
    row = admission_row(tenant, free, max_cost_nanos=ceiling)
    if ceiling < 0:
        assert_refused(dataplane, row, Refusal.MAX_COST_TOO_LOW)
        return
    with pytest.raises(psycopg.errors.CheckViolation, match="request_ceiling_positive"):
        admit(dataplane, row)
