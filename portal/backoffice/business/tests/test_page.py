"""The page of the business figures: full, empty, failed; and the export, whose rows sum up to it."""

from __future__ import annotations

import csv
import re
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client

from portal.backoffice.business import pages
from portal.backoffice.business.rows import Wording
from portal.backoffice.tests.people import make_operator, sign_in
from quotas.business.figures import BusinessReport, Sums, Totals
from quotas.business.queries import SetUp
from quotas.business.tests.centre import (
    HOUR,
    Call,
    Try,
    allocate,
    deploy,
    first_hour,
    make,
    make_model,
    make_pool,
    make_tenant,
    new_currency,
)
from quotas.business.tests.three_pools import Centre, make_centre
from tenants.models import Tenant
from tenants.scope import role_scope
from tests.people import make_owner, signed_in

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture(scope="module")
def client(database: None) -> Client:
    return sign_in(make_operator())


@pytest.fixture(scope="module")
def centre(database: None) -> Centre:
    return make_centre()


def page(client: Client, **query: Any) -> str:
    answer = client.get("/operator/business", query)
    assert answer.status_code == 200
    assert answer["Cache-Control"] == "no-store"
    return answer.content.decode()


def amounts(text: str, testid: str) -> list[int]:
    """The exact amounts in the element with this test id."""
    (inner,) = re.findall(rf'data-testid="{testid}">(.*?)</dd>', text, re.DOTALL)
    return [int(value) for value in re.findall(r'<data class="money" value="(-?\d+)"', inner)]


@pytest.mark.parametrize("group_by", ["model", "tenant", "pool", "backend"])
def test_the_headline_and_the_lines_are_the_reports(client: Client, centre: Centre, group_by: str) -> None:
    text = page(client, currency=centre.currency, by=group_by)
    report = centre.report(group_by)  # type: ignore[arg-type]
    assert amounts(text, "business-revenue") == [report.totals.sums.revenue_nanos]
    assert amounts(text, "business-cost") == [report.totals.pool_cost_nanos]
    assert amounts(text, "business-margin") == [report.totals.margin_nanos]
    assert amounts(text, "business-idle") == [report.totals.idle_nanos + report.totals.unreserved_nanos]
    assert text.count('data-testid="business-line"') == len(report.lines)
    for line in report.lines:
        assert f'data-name="{line.name}"' in text
        assert f'value="{line.margin_nanos}"' in text
    assert f'data-testid="business-by-{group_by}"' in text
    assert 'id="business"' in text
    # Idle capacity that belongs to no line has one of its own.
    assert text.count('data-testid="business-idle-line"') == len(report.unreserved) + (group_by == "tenant")
    assert "All hours of this period are closed" in text or "Provisional from" in text


def test_unknown_parameters_show_the_page(client: Client, centre: Centre) -> None:
    text = page(client, currency="???", by="weather", period="custom", **{"from": "nonsense"})
    assert "This period could not be read" in text
    assert page(client, period="today")
    assert "Nothing earned or cost" in page(client, period="last-month", currency="USD")


def test_a_centre_without_costs_is_told_what_to_enter(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "set_up", lambda: SetUp(has_costs=False, has_capacities=True))
    text = page(client, period="last-month", currency="USD")
    assert "Two things are needed" in text
    assert 'href="/operator/fleet"' in text


def test_a_missing_cost_and_another_currency_are_named(client: Client, centre: Centre) -> None:
    currency, hour = new_currency(), first_hour() + 6 * HOUR
    model = make_model(currency, price_in=10**9, price_out=10**9)
    deployment = deploy(model, make_pool("pool"))
    tenant = make_tenant(currency, [model], paid_nanos=10**12)
    make(Call(hour, tenant, model, (Try(deployment, 10, 1),), 10, 1))
    allocate([hour])
    text = page(client, currency=currency)
    assert "One request ran where no cost" in text
    assert "no cost known of 1 request" in text
    assert f'?currency={centre.currency}">{centre.currency}</a>' in text
    assert amounts(text, "business-margin") == []


def test_figures_that_take_too_long_say_so(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise OperationalError("canceling statement due to statement timeout")

    monkeypatch.setattr(pages, "business_report", fail)
    text = page(client)
    assert 'role="alert"' in text
    assert "too long" in text


def test_only_operators_see_the_business() -> None:
    _tenant, owner = make_owner()
    for path in ("/operator/business", "/operator/business.csv"):
        assert Client().get(path).status_code == 302
        assert signed_in(owner).get(path).status_code == 404


def exported(client: Client, currency: str) -> list[dict[str, str]]:
    answer = client.get("/operator/business.csv", {"period": "7d", "currency": currency})
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    text = b"".join(answer.streaming_content).decode()  # type: ignore[attr-defined]
    return list(csv.DictReader(StringIO(text.removeprefix("\ufeff"))))


def test_the_rows_of_the_export_sum_up_to_the_page(client: Client, centre: Centre) -> None:
    rows = exported(client, centre.currency)
    totals = centre.report("model").totals

    def total(column: str, *kinds: str) -> Decimal:
        return sum((Decimal(row[column] or 0) for row in rows if row["kind"] in kinds), Decimal(0)) * 10**9

    assert {row["kind"] for row in rows} == {"SOLD", "IDLE", "UNRESERVED"}
    assert total("revenue", "SOLD") == totals.sums.revenue_nanos
    assert total("granted", "SOLD") == totals.sums.granted_nanos
    assert total("overrun", "SOLD") == totals.sums.overrun_nanos
    assert total("cost", "SOLD") == totals.sums.cost_nanos
    assert total("cost", "IDLE") == totals.idle_nanos
    assert total("cost", "UNRESERVED") == totals.unreserved_nanos
    assert sum(Decimal(row["weighted_tokens"] or 0) for row in rows) * 1000 == totals.sums.weighted
    assert {row["hour"] for row in rows} == {f"{hour:%Y-%m-%dT%H}:00:00Z" for hour in centre.hours}


def test_names_that_people_chose_are_no_formulas(client: Client, centre: Centre) -> None:
    with role_scope("owner"):
        Tenant.objects.filter(id=centre.tenants[0].id).update(name="=1+1")
    names = {row["organization_name"] for row in exported(client, centre.currency)}
    assert "'=1+1" in names
    assert "=1+1" not in names


@pytest.mark.parametrize(
    ("top", "nanos", "shown"),
    [
        (2_000 * 10**9, 1_234_567_890_123, "$1234.57"),
        (2_000 * 10**9, -5_000_000, "−$0.01"),
        (2_000 * 10**9, 4_999_999, "$0.004999999"),
        (50 * 10**9, 1_234_567_890, "$1.2346"),
        (10**9, 123_456_789, "$0.123457"),
        (0, 0, "$0.000000"),
    ],
)
def test_amounts_are_rounded_to_one_precision_and_never_to_zero(top: int, nanos: int, shown: str) -> None:
    totals = Totals(Sums(revenue_nanos=top), (), 0, 0, 0, 0, 0)
    moment = first_hour()
    report = BusinessReport("model", "USD", moment, moment, (), (), totals, None, 0, ())
    assert f">{shown}</data>" in Wording(report).amount(nanos)
    assert Wording(report).amount(None) == "–"
