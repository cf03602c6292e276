"""Overview, usage, receipts and the statement say what the ledger says, and add up."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from portal.console.tests.people import HTMX, Stage, open_stage, text_of
from portal.kit.ids import PREFIXES, public_id
from quotas.models import AttemptOutcome
from quotas.tests.doors import admitted, settle_one
from tenants.models import Role
from tests.database import connected
from tests.factories import (
    ModelFixture,
    TenantFixture,
    add_granted,
    add_paid,
    admission_row,
    enable,
    issue_key,
    make_model,
    settlement_row,
    void_row,
)


@dataclass(frozen=True, slots=True)
class Customer:
    """A stage whose organization has money, a model and a key, and what calls it through the doors."""

    stage: Stage
    fixture: TenantFixture
    model: ModelFixture
    doors: psycopg.Connection[Any]

    def call(self, prompt_tokens: int, completion_tokens: int) -> str:
        """A settled call at the default prices (1,000 and 2,000 nano-units a token); its public id."""
        row = admitted(self.doors, admission_row(self.fixture, self.model))
        settle_one(
            self.doors, settlement_row(row, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
        )
        return public_id(PREFIXES["request"], row.request_id)


@pytest.fixture
def customer(database: None) -> Iterator[Customer]:
    stage = open_stage()
    key, digest = issue_key(stage.tenant_id)
    fixture = TenantFixture(stage.tenant_id, stage.public_id, "USD", key, digest)
    add_granted(stage.tenant_id, 50_000)
    add_paid(stage.tenant_id, 10**9)
    model = make_model()
    enable(fixture, model)
    with connected("dataplane") as doors:
        yield Customer(stage, fixture, model, doors)


def values(html: str, testid: str) -> list[int]:
    """The exact amounts within the elements that carry this hook."""
    return [
        int(nanos) for nanos in re.findall(rf'data-testid="{testid}"[^>]*><data[^>]*value="(-?\d+)"', html)
    ]


def test_the_statement_adds_up_to_the_nano(customer: Customer) -> None:
    customer.call(37, 13)
    customer.call(1, 1)
    html = text_of(customer.stage.get("statement"))
    opening, closing = values(html, "statement-opening"), values(html, "statement-closing")
    amounts, balances = values(html, "statement-amount"), values(html, "statement-balance")
    assert opening == [0]
    assert sorted(amounts) == sorted([50_000, 10**9, -63_000, -3_000])
    assert opening[0] + sum(amounts) == closing[0] == balances[-1] == 10**9 + 50_000 - 66_000


def test_a_long_statement_goes_on_where_the_page_before_ended(
    customer: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portal.console.statement.PAGE_ROWS", 2)
    for _ in range(3):
        customer.call(10, 10)
    seen: list[int] = []
    query: dict[str, str] = {}
    for _ in range(10):
        html = text_of(customer.stage.get("statement", query=query))
        amounts, balances = values(html, "statement-amount"), values(html, "statement-balance")
        assert balances[-1] == sum(seen) + sum(amounts)
        seen += amounts
        following = re.search(r'rel="next" href="[^"]*after=([^"#&]+)', html)
        if following is None:
            break
        query = {"after": following[1].replace("%3A", ":")}
    assert len(seen) == 5
    assert [sum(seen)] == values(html, "statement-closing")


@pytest.mark.parametrize("cursor", ["x", "a:b:c", "\0"])
def test_a_cursor_that_is_not_ours_is_refused(cursor: str, customer: Customer) -> None:
    assert customer.stage.get("statement", query={"after": cursor}).status_code == 404


def test_another_organizations_cursor_is_refused(customer: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portal.console.statement.PAGE_ROWS", 1)
    html = text_of(customer.stage.get("statement"))
    following = re.search(r'rel="next" href="[^"]*after=([^"#&]+)', html)
    assert following
    other = open_stage()
    response = other.get("statement", query={"after": following[1].replace("%3A", ":")})
    assert response.status_code == 404


def test_usage_lists_calls_with_their_cost(customer: Customer) -> None:
    call = customer.call(37, 13)
    voided = admitted(customer.doors, admission_row(customer.fixture, customer.model))
    settle_one(customer.doors, void_row(voided))
    html = text_of(customer.stage.get("usage"))
    assert values(html, "usage-total") == [63_000]
    assert values(html, "usage-cost").count(63_000) == 1
    assert f'data-request="{call}"' in html
    assert public_id(PREFIXES["request"], voided.request_id) in html
    assert "Backend failed" in html


@pytest.mark.parametrize(
    "query",
    [
        {"period": "24h", "by": "api_key", "show": "tokens"},
        {"period": "last-month"},
        {"period": "custom", "from": "2026-01-01", "to": "2026-12-01", "show": "requests"},
        {"period": "custom", "from": "nonsense", "to": ""},
        {"period": "custom", "from": "2026-05-02", "to": "2026-05-01"},
        {"period": "x", "by": "x", "show": "x", "model": "x", "key": "key_x", "before": "req_x"},
        {"model": "%", "key": "\0"},
    ],
)
def test_any_filter_shows_a_page(query: dict[str, str], customer: Customer) -> None:
    customer.call(5, 5)
    for page in ("usage", "statement"):
        assert customer.stage.get(page, query=query).status_code == 200


def test_a_period_that_cannot_be_read_is_said(customer: Customer) -> None:
    html = text_of(
        customer.stage.get("usage", query={"period": "custom", "from": "2026-05-02", "to": "2026-05-01"})
    )
    assert "This period could not be read" in html


def test_a_receipt_explains_the_charge(customer: Customer) -> None:
    call = customer.call(37, 13)
    html = text_of(customer.stage.get("request", call))
    assert values(html, "receipt-total") == [63_000]
    assert html.count('data-testid="receipt-line"') == 2
    # Granted credit is spent first; the rest is paid.
    assert {-50_000, -13_000} <= {
        int(nanos) for nanos in re.findall(r'<data class="money" value="(-?\d+)"', html)
    }


def test_a_receipt_names_the_ceiling_and_what_a_broken_call_was_billed(customer: Customer) -> None:
    """An input token costs 1,000 nano-units and an output token 2,000; this model bills the input."""
    model = make_model(cancel_policy="INPUT")
    enable(customer.fixture, model)
    row = admitted(customer.doors, admission_row(customer.fixture, model, max_cost_nanos=250_000))
    settle_one(
        customer.doors,
        settlement_row(row, prompt_tokens=37, completion_tokens=13, outcome=AttemptOutcome.CLIENT_GONE),
    )
    html = text_of(customer.stage.get("request", public_id(PREFIXES["request"], row.request_id)))
    assert values(html, "receipt-total") == [63_000]
    assert values(html, "receipt-waived") == [26_000]
    assert values(html, "receipt-charged") == [37_000]
    assert values(html, "receipt-ceiling") == [250_000]
    assert html.count("not billed") == 1
    assert "the input only is billed" in html
    assert 'data-testid="receipt-broken-off"' in html
    whole = text_of(customer.stage.get("request", customer.call(37, 13)))
    assert "receipt-broken-off" not in whole
    assert "receipt-ceiling" not in whole
    assert "what was delivered is billed" in whole


def test_a_receipt_of_somebody_else_does_not_exist(customer: Customer) -> None:
    call = customer.call(37, 13)
    stranger = open_stage()
    assert stranger.get("request", call).status_code == 404
    assert stranger.browser.get(customer.stage.url("request", call)).status_code == 404
    assert customer.stage.get("request", "req_nonsense").status_code == 404


def read_csv(response: Any) -> list[dict[str, str]]:
    assert response["Content-Type"].startswith("text/csv")
    assert response["Content-Disposition"].startswith("attachment")
    text = b"".join(response.streaming_content).decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text)))


def test_downloads_have_the_same_numbers(customer: Customer) -> None:
    call = customer.call(37, 13)
    rows = read_csv(customer.stage.get("requests-csv"))
    assert [(row["request"], row["charged"]) for row in rows] == [(call, "0.000063")]
    assert [row["charged"] for row in read_csv(customer.stage.get("usage-csv"))] == ["0.000063"]
    lines = read_csv(customer.stage.get("statement-csv"))
    assert [line["kind"] for line in lines] == ["OPENING", "GRANT", "TOP_UP", "USAGE", "CLOSING"]
    assert lines[-1]["balance"] == lines[-2]["balance"]


def test_the_overview_counts_and_the_checklist_turns_green(customer: Customer) -> None:
    before = text_of(customer.stage.get("overview"))
    assert 'data-testid="checklist-key" data-done="true"' in before
    assert 'data-testid="checklist-request" data-done="false"' in before
    assert 'hx-trigger="every 2s"' in before
    customer.call(37, 13)
    fragment = customer.stage.get("checklist", headers=HTMX)
    assert 'data-testid="checklist-request" data-done="true"' in text_of(fragment)
    assert "checklist-done" in text_of(fragment)
    assert "every 2s" not in text_of(fragment)
    assert fragment["HX-Trigger"] == '{"set-up-done": {}}'
    live = text_of(customer.stage.get("overview-live"))
    assert live.count('data-testid="recent-request"') == 1
    after = text_of(customer.stage.get("overview", query={"show": "money"}))
    assert 'data-testid="checklist"' not in after
    assert "Money per hour" in after


def test_an_empty_balance_says_who_adds_credit(database: None, customer: Customer) -> None:
    stage = open_stage()
    viewer = stage.as_role(Role.VIEWER)
    for page in ("overview", "statement"):
        html = text_of(stage.get(page))
        assert 'data-testid="no-credit"' in html
        assert f'href="{stage.url("billing")}#add-credit"' in html
        assert 'data-testid="no-credit"' not in text_of(customer.stage.get(page))
    html = text_of(viewer.get("overview"))
    assert 'data-testid="no-credit"' in html
    assert "#add-credit" not in html


def test_a_balance_that_lasts_for_ages_is_not_counted_in_days(customer: Customer) -> None:
    customer.call(37, 13)
    assert "lasts more than a year at this pace" in text_of(customer.stage.get("overview-live"))


def test_a_new_organization_is_told_what_comes_next(database: None) -> None:
    stage = open_stage()
    html = text_of(stage.get("overview"))
    assert 'data-testid="checklist-model" data-done="false"' in html
    # One step is next, and its link has an id: htmx gives the focus back to it when the list is replaced.
    assert html.count('<li class="next"') == 1
    assert '<a class="button button-small button-primary" id="checklist-model"' in html
    assert 'data-testid="overview-empty"' in html
    assert "No request in this period" in text_of(stage.get("usage"))
    assert "Nothing moved in this period" in text_of(stage.get("statement"))


def test_running_calls_are_shown_as_such(customer: Customer) -> None:
    row = admitted(customer.doors, admission_row(customer.fixture, customer.model))
    call = public_id(PREFIXES["request"], row.request_id)
    assert 'data-state="PENDING"' in text_of(customer.stage.get("usage"))
    assert "The call is under way." in text_of(customer.stage.get("request", call))
    settle_one(customer.doors, void_row(row))


def test_who_may_not_see_usage_sees_no_calls_on_the_overview(customer: Customer) -> None:
    customer.call(1, 1)
    viewer = customer.stage.as_role(Role.VIEWER)
    assert viewer.get("statement").status_code == 403
    assert customer.stage.as_role(Role.BILLING).get("statement").status_code == 200
    assert 'data-testid="recent-request"' in text_of(viewer.get("overview"))
