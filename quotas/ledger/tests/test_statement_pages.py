"""Pages of a statement add up, whatever was posted, however large the pages are."""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.db import connections
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portal.kit.ids import PREFIXES, public_id, uuid7
from portal.kit.money import amount_to_decimal_text, parse_amount
from quotas.ledger import queries
from quotas.ledger.queries import (
    Balance,
    StatementCursor,
    StatementNotFound,
    StatementPage,
    StatementRow,
    open_statement,
    statement_page,
)
from quotas.ledger.statement_csv import iter_statement_csv
from quotas.ledger.tests.test_statement import call, post_at, today
from tenants.scope import tenant_scope
from tests.database import connected
from tests.factories import TenantFixture, add_granted, add_paid, make_tenant

DAY = timedelta(days=1)
BEGINNING = datetime(2020, 1, 1, tzinfo=UTC)
END = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture
def tenant(database: None) -> TenantFixture:
    return make_tenant(granted="0.00002", paid="1.00")


def page_of(
    tenant: TenantFixture,
    from_at: datetime = BEGINNING,
    to_at: datetime = END,
    *,
    kinds: tuple[str, ...] = (),
    after: StatementCursor | None = None,
    limit: int = 50,
) -> StatementPage:
    with tenant_scope(tenant.id):
        return statement_page(
            tenant_id=tenant.id, from_at=from_at, to_at=to_at, kinds=kinds, after=after, limit=limit
        )


def pages_of(
    tenant: TenantFixture,
    from_at: datetime = BEGINNING,
    to_at: datetime = END,
    *,
    limit: int,
    kinds: tuple[str, ...] = (),
) -> tuple[StatementPage, list[StatementRow]]:
    """The first page, and the rows of all."""
    first = page = page_of(tenant, from_at, to_at, limit=limit, kinds=kinds)
    rows = list(page.rows)
    while page.next is not None:
        assert len(page.rows) == limit
        page = page_of(tenant, from_at, to_at, limit=limit, kinds=kinds, after=page.next)
        assert page.summary is None
        rows += page.rows
    return first, rows


def test_lines_carry_their_request_and_model(tenant: TenantFixture) -> None:
    first, second = call(tenant, 15, 10)
    page, rows = pages_of(tenant, limit=3)
    assert page.summary is not None
    assert (page.summary.opening, page.summary.closing) == (Balance(0, 0, 0), Balance(10**9 - 5_000, 0, 0))
    assert [(row.kind, row.amount_nanos, row.balance_nanos) for row in rows] == [
        ("GRANT", 20_000, 20_000),
        ("TOP_UP", 10**9, 10**9 + 20_000),
        ("USAGE", -15_000, 10**9 + 5_000),
        ("USAGE", -10_000, 10**9 - 5_000),
    ]
    assert [row.request_id for row in rows] == [None, None, first, second]
    assert rows[0].reason == "for the test"
    assert rows[2].model_slug is not None
    assert [(kind.kind, kind.transfers, kind.amount_nanos) for kind in page.summary.kinds] == [
        ("GRANT", 1, 20_000),
        ("TOP_UP", 1, 10**9),
        ("USAGE", 2, -25_000),
    ]


def test_a_choice_of_kinds_keeps_the_balances(tenant: TenantFixture) -> None:
    call(tenant, 15, 10)
    add_granted(tenant.id, 7)
    _, every = pages_of(tenant, limit=50)
    page, grants = pages_of(tenant, limit=1, kinds=("GRANT",))
    assert grants == [row for row in every if row.kind == "GRANT"]
    assert page.summary is not None
    assert page.summary.closing.total_nanos == every[-1].balance_nanos
    _, two = pages_of(tenant, limit=2, kinds=("USAGE", "TOP_UP"))
    assert two == [row for row in every if row.kind != "GRANT"]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    amounts=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 10**12)), max_size=12),
    cuts=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    limit=st.integers(1, 5),
)
def test_opening_and_lines_are_closing(
    database: None, amounts: list[tuple[int, int]], cuts: tuple[int, int], limit: int
) -> None:
    """Also where transfers were posted at one moment, and at the very ends of the period."""
    tenant = make_tenant(granted=None)
    start = today() - 20 * DAY
    for day, amount_nanos in amounts:
        post_at(tenant, start + day * DAY, amount_nanos)
    first_day, last_day = min(cuts), max(cuts) + 1
    from_at, to_at = start + first_day * DAY, start + last_day * DAY
    within = [amount for day, amount in amounts if first_day <= day < last_day]
    page, rows = pages_of(tenant, from_at, to_at, limit=limit)
    summary = page.summary
    assert summary is not None
    assert sorted(row.amount_nanos for row in rows) == sorted(within)
    assert summary.opening.total_nanos + sum(within) == summary.closing.total_nanos
    assert sum(kind.amount_nanos for kind in summary.kinds) == sum(within)
    assert sum(kind.transfers for kind in summary.kinds) == len(within)
    balance_nanos = summary.opening.total_nanos
    for row in rows:
        balance_nanos += row.amount_nanos
        assert row.balance_nanos == balance_nanos
    assert balance_nanos == summary.closing.total_nanos
    assert [(row.posted_at, row.transfer_id) for row in rows] == sorted(
        (row.posted_at, row.transfer_id) for row in rows
    )
    with open_statement(tenant_id=tenant.id, from_at=from_at, to_at=to_at) as statement:
        assert (statement.opening, statement.closing) == (summary.opening, summary.closing)
        assert [line.transfer_id for line in statement.lines] == [row.transfer_id for row in rows]
    text = "".join(iter_statement_csv(tenant_id=tenant.id, from_at=from_at, to_at=to_at))
    opening, *lines, closing = csv.DictReader(StringIO(text, newline=""))
    assert (opening["kind"], closing["kind"]) == ("OPENING", "CLOSING")
    assert parse_amount(opening["balance"]) + sum(parse_amount(line["amount"]) for line in lines) == (
        parse_amount(closing["balance"])
    )


def test_debt_and_overrun_are_in_it(tenant: TenantFixture) -> None:
    with connected("operator") as operator:
        operator.execute(
            """
            SELECT quotas_post(ARRAY[
              ROW(%(id)s, 'ADJUSTMENT', %(tenant)s, 'USD', NULL, NULL, '=1+1', 'RECEIVABLE', %(tenant)s, -7),
              ROW(%(id)s, 'ADJUSTMENT', %(tenant)s, 'USD', NULL, NULL, '=1+1', 'REVENUE', NULL, 7)
            ]::quotas_leg[])
            """,
            {"id": (adjustment := uuid7()), "tenant": tenant.id},
        )
    page, rows = pages_of(tenant, limit=50)
    assert page.summary is not None
    assert page.summary.closing == Balance(10**9, 20_000, 7)
    assert rows[-1].balance_nanos == page.summary.closing.total_nanos
    text = "".join(iter_statement_csv(tenant_id=tenant.id, from_at=BEGINNING, to_at=END))
    line = list(csv.DictReader(StringIO(text, newline="")))[-2]
    # Text is made harmless; an amount keeps its minus.
    assert (line["reason"], line["amount"]) == ("'=1+1", "-0.000000007")
    assert line["transaction"] == public_id(PREFIXES["transfer"], adjustment)


def test_the_csv_goes_page_by_page(tenant: TenantFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(4):
        add_paid(tenant.id, 5)
    monkeypatch.setattr("quotas.ledger.statement_csv.MAX_PAGE_ROWS", 2)
    pieces = iter_statement_csv(tenant_id=tenant.id, from_at=BEGINNING, to_at=END)
    text = next(pieces)
    assert not connections["tenant"].in_atomic_block
    with tenant_scope(make_tenant().id):
        pass
    text += "".join(pieces)
    rows = list(csv.DictReader(StringIO(text, newline="")))
    assert len(rows) == 2 + 6
    assert rows[-1]["balance"] == amount_to_decimal_text(10**9 + 20_020)
    grants = "".join(iter_statement_csv(tenant_id=tenant.id, from_at=BEGINNING, to_at=END, kinds=["GRANT"]))
    *_, grant, closing = csv.DictReader(StringIO(grants, newline=""))
    assert (grant["kind"], closing["balance"]) == ("GRANT", rows[-1]["balance"])


def test_empty_periods_and_strangers(tenant: TenantFixture) -> None:
    page = page_of(tenant, BEGINNING, BEGINNING + DAY)
    assert page.summary is not None
    assert (page.rows, page.next, page.summary.kinds) == ((), None, ())
    assert page.summary.opening == page.summary.closing == Balance(0, 0, 0)
    later = page_of(tenant, END - DAY, END)
    assert later.summary is not None
    assert later.summary.opening == later.summary.closing == Balance(10**9, 20_000, 0)
    with tenant_scope(make_tenant().id), pytest.raises(StatementNotFound):
        statement_page(tenant_id=tenant.id, from_at=BEGINNING, to_at=END)
    with pytest.raises(StatementNotFound):
        next(iter_statement_csv(tenant_id=uuid7(), from_at=BEGINNING, to_at=END))


def test_a_page_deep_in_a_month_reads_its_own_lines_only(tenant: TenantFixture) -> None:
    start = today() - 10 * DAY
    for index in range(60):
        post_at(tenant, start + index * timedelta(minutes=1), 1)
    _, rows = pages_of(tenant, start, END, limit=50)
    assert len(rows) == 62
    last = rows[54]
    parameters: dict[str, Any] = {
        "tenant": tenant.id,
        "from": start,
        "to": END,
        "after_at": last.posted_at,
        "after_id": last.transfer_id,
        "kinds": None,
        "limit": 3,
        "is_first": False,
    }
    with tenant_scope(tenant.id), connections["tenant"].cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("EXPLAIN (ANALYZE, TIMING OFF, COSTS OFF, FORMAT JSON) " + queries._PAGE, parameters)
        (plan,) = cursor.fetchone()
    reads = [
        node["Actual Rows"] * node["Actual Loops"]
        for node in nodes(plan[0]["Plan"])
        if node.get("Relation Name") == "quotas_ledgertransfer"
    ]
    assert reads
    assert max(reads) <= 10
    assert all(
        "Rows Removed by Filter" not in node or node["Rows Removed by Filter"] <= 2
        for node in nodes(plan[0]["Plan"])
        if node.get("Relation Name") == "quotas_ledgertransfer"
    )


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(deeper for part in plan.get("Plans", ()) for deeper in nodes(part))]
