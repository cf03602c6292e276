"""Prices by program: drafted, compared, published with notice, ended; and the what-if of a draft."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.conf import settings

from portal.api.tests.stage import Program, problem_of, program
from portal.kit.clock import utc_now
from portal.kit.ids import PREFIXES, parse_public_id
from quotas.replay.operations import run_replay
from tenants.scope import role_scope
from tests.database import rows_of
from tests.isolation.api_cases import NIGHT, ApiWorld, make_api_world, operator_token

pytestmark = pytest.mark.usefixtures("database")
DEARER = {
    "time_zone": "Europe/Berlin",
    "lines": [
        {"token_class": "input", "price_per_million": "900"},
        {"token_class": "output", "price_per_million": "0.000000001"},
        {"token_class": "output", "window": "night", "price_per_million": "900"},
    ],
    "windows": [NIGHT],
}


@pytest.fixture(scope="module")
def world(database: None) -> ApiWorld:
    return make_api_world()


@pytest.fixture
def operator(monkeypatch: pytest.MonkeyPatch) -> Program:
    monkeypatch.setitem(settings.TUNING, "SLUICE_API_LIMIT_RPM", 100_000)
    return program(operator_token())


def draft(operator: Program, world: ApiWorld, **more: str) -> Any:
    body = {"model": world.ids["model"], "currency": "USD", **more}
    answer = operator.post("/operator/prices", body)
    assert answer.status_code == 201, answer.content
    return answer.json()


def path_of(version: Any) -> str:
    return f"/operator/prices/{version['version']['id']}"


def in_days(days: int) -> str:
    return (utc_now() + timedelta(days=days)).isoformat()


def test_a_draft_is_written_and_read_back_to_the_nano_unit(operator: Program, world: ApiWorld) -> None:
    made = draft(operator, world)
    assert (made["version"]["state"], made["lines"], len(made["gaps"])) == ("DRAFT", [], 2)
    put = operator.call("PUT", path_of(made), DEARER)
    assert put.status_code == 200
    read = operator.get(path_of(made)).json()
    assert read == put.json()
    assert read["gaps"] == []
    assert read["windows"] == [NIGHT]
    assert read["time_zone"] == "Europe/Berlin"
    prices = {(line["token_class"], line["window"]): line["price_per_million"] for line in read["lines"]}
    assert prices["output", None] == {"amount": "0.000000001", "currency": "USD", "nanos": "1"}
    assert prices["output", "night"]["nanos"] == str(900 * 10**9)
    assert read["current"]["state"] == "IN_FORCE"


def test_a_copy_says_the_same_and_an_old_copy_overwrites_nothing(operator: Program, world: ApiWorld) -> None:
    made = draft(operator, world, copy_of=world.ids["price"])
    assert (
        made["content_sha256"]
        == operator.get(f"/operator/prices/{world.ids['price']}").json()["content_sha256"]
    )
    body = {**DEARER, "based_on": made["content_sha256"]}
    assert operator.call("PUT", path_of(made), body).status_code == 200
    problem_of(operator.call("PUT", path_of(made), {**body, "lines": []}), 409, "conflict")
    late = {"active_from": in_days(40), "reason": "why not", "based_on": made["content_sha256"]}
    problem_of(operator.post(f"{path_of(made)}/publication", late), 409, "conflict")


def test_each_mistake_is_named_at_its_place(operator: Program, world: ApiWorld) -> None:
    wrong = {
        "time_zone": "Europe/Atlantis",
        "lines": [
            {"token_class": "input", "price_per_million": "1"},
            {"token_class": "input", "price_per_million": "2"},
            {"token_class": "output", "window": "noon", "price_per_million": "1"},
        ],
        "windows": [{"name": "night", "spans": [{"from_minute": 5, "to_minute": 5}]}],
    }
    answer = operator.call("PUT", f"/operator/prices/{world.ids['price']}", wrong)
    errors = problem_of(answer, 400, "invalid-request")["errors"]
    assert {(error["field"], error["code"]) for error in errors} == {
        ("time_zone", "unknown_zone"),
        ("windows.0.spans", "spans_outside_week"),
        ("lines.1.token_class", "line_twice"),
        ("lines.2.window", "window_unknown"),
    }


def test_an_increase_keeps_the_notice_and_is_told(operator: Program) -> None:
    world = make_api_world()
    made = draft(operator, world)
    plan, now = f"{path_of(made)}/publication", {"active_from": in_days(1), "reason": "energy is dearer"}
    problem_of(operator.get(plan), 422, "refused")
    problem_of(operator.post(plan, now), 422, "refused")
    operator.call("PUT", path_of(made), DEARER)
    compared = operator.get(f"{path_of(made)}/increases").json()
    assert compared["against"] == operator.get(path_of(made)).json()["current"]["id"]
    assert ("input", str(900 * 10**9)) in {
        (one["token_class"], one["new"]["nanos"]) for one in compared["increases"]
    }
    # The private price of the organization goes on, so nobody pays the list.
    assert operator.get(plan).json()["payer_count"] == 0
    end = f"/operator/prices/{world.ids['private_price']}/end"
    gone = operator.post(end, {"ends_at": in_days(1), "reason": "contract over"})
    assert (gone.status_code, gone.json()["payer_count"]) == (200, 0)
    planned = operator.get(plan).json()
    (payer,) = planned["payers"]
    assert payer["organization"] == world.ids["organization"]
    problem = problem_of(operator.post(plan, now), 422, "refused")
    assert "at the earliest" in problem["detail"]
    notice = timedelta(days=settings.TUNING["SLUICE_PRICE_NOTICE_DAYS"])
    ahead = datetime.fromisoformat(planned["earliest_at"]) - utc_now()
    assert notice - timedelta(minutes=1) < ahead <= notice
    published = operator.post(plan, {**now, "active_from": in_days(notice.days + 1)})
    assert (published.status_code, published.json()["payer_count"]) == (200, 1)
    assert operator.get(path_of(made)).json()["version"]["state"] == "SCHEDULED"
    assert operator.get(path_of(made)).json()["told"] == 1
    problem_of(operator.post(plan, now), 404, "not-found")
    (event,) = rows_of("tenants_auditevent", target=made["version"]["id"], action="price.publish")
    assert (event["reason"], event["actor_kind"]) == ("energy is dearer", "OPERATOR")
    assert event["key_id"] is not None


def test_private_prices_are_in_the_wallets_currency(operator: Program, world: ApiWorld) -> None:
    made = draft(operator, world, organization=world.ids["organization"])
    assert made["version"]["organization"] == world.ids["organization"]
    body = {"model": world.ids["model"], "currency": "CNY", "organization": world.ids["organization"]}
    problem_of(operator.post("/operator/prices", body), 422, "refused")
    body = {"model": "nobody/nothing", "currency": "USD"}
    problem_of(operator.post("/operator/prices", body), 422, "refused")


def test_a_discarded_draft_is_gone_and_the_log_keeps_it(operator: Program, world: ApiWorld) -> None:
    made = draft(operator, world)
    problem_of(operator.post(f"{path_of(made)}/discard"), 400, "invalid-request")
    assert operator.post(f"{path_of(made)}/discard", {"reason": "not needed"}).status_code == 200
    problem_of(operator.get(path_of(made)), 404, "not-found")
    (event,) = rows_of("tenants_auditevent", target=made["version"]["id"], action="price.discard")
    assert event["before"]["time_zone"] == "UTC"


def test_lists_go_on_behind_their_cursor(operator: Program, world: ApiWorld) -> None:
    for _ in range(3):
        draft(operator, world)
    model, seen = world.ids["model"], []
    page = operator.get(f"/operator/prices?model={model}&state=DRAFT&limit=2").json()
    while True:
        seen += [row["id"] for row in page["data"]]
        assert {(row["model"], row["state"]) for row in page["data"]} == {(model, "DRAFT")}
        if page["next_cursor"] is None:
            break
        page = operator.get(f"/operator/prices?limit=2&cursor={page['next_cursor']}").json()
    assert len(seen) == len(set(seen)) >= 4
    private = operator.get(f"/operator/prices?organization={world.ids['organization']}").json()["data"]
    assert {row["organization"] for row in private} == {world.ids["organization"]}
    assert operator.get("/operator/prices?model=nobody/nothing").json() == {"data": [], "next_cursor": None}


def test_a_what_if_is_asked_for_run_and_read(operator: Program) -> None:
    world = make_api_world()
    made = draft(operator, world, copy_of=world.ids["price"])
    address = f"{path_of(made)}/what-if"
    problem_of(operator.get(address), 404, "not-found")
    asked = operator.post(address)
    assert (asked.status_code, asked.json()["state"]) == (201, "WAITING")
    assert operator.post(address).json()["id"] == asked.json()["id"]
    assert operator.get(f"{address}/organizations").json()["data"] == []
    with role_scope("operator"):
        replay_id = parse_public_id(PREFIXES["replay"], asked.json()["id"])
        assert run_replay(replay_id=replay_id, now=utc_now(), cost_of=lambda *_: 1000)
    done = operator.get(address).json()
    assert (done["state"], done["days_done"], done["is_stale"]) == ("DONE", done["days"], False)
    assert done["margin"]["cost"]["nanos"] == "1000"
    operator.call("PUT", path_of(made), DEARER)
    assert operator.get(address).json()["is_stale"] is True
