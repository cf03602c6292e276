"""The fleet and the business by program: added, costed, drained; figures are the report's."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings

from portal.api.tests.stage import Program, problem_of, program
from portal.kit.clock import utc_now
from quotas.business.tests.three_pools import Centre, make_centre
from tests.database import rows_of
from tests.factories import unique_name
from tests.isolation.api_cases import ApiWorld, make_api_world, operator_token

pytestmark = pytest.mark.usefixtures("database")
WHY = {"reason": "for the test"}
COST = {
    "currency": "USD",
    "accelerators": 8,
    "depreciation_per_accelerator_hour": "1.25",
    "other_per_accelerator_hour": "0.25",
    "power_watts": 10_000,
    "pue_thousandths": 1250,
    "energy_per_kwh": "0.2",
    **WHY,
}
CAPACITY = {
    "reserved_ppm": 600_000,
    "capacity_tokens_per_s": 900,
    "input_weight_thousandths": 250,
    "cached_weight_thousandths": 25,
    "output_weight_thousandths": 1000,
    **WHY,
}
SECRET = "very-secret-token-of-the-engine"


@pytest.fixture(scope="module")
def world(database: None) -> ApiWorld:
    return make_api_world()


@pytest.fixture
def operator(monkeypatch: pytest.MonkeyPatch) -> Program:
    monkeypatch.setitem(settings.TUNING, "SLUICE_API_LIMIT_RPM", 100_000)
    return program(operator_token())


def made(answer: Any) -> Any:
    assert answer.status_code in (200, 201), answer.content
    return answer.json()


def new_pool(operator: Program) -> Any:
    body = {"code": unique_name("api"), "name": "Hall A", "accelerator_kind": "H100", "region": "eu", **WHY}
    return made(operator.post("/operator/pools", body))


def new_backend(operator: Program, pool: Any, **more: Any) -> Any:
    body = {
        "pool": pool["id"],
        "code": unique_name("api"),
        "engine": "vllm",
        "base_url": "http://127.0.0.1:9/",
        "max_concurrency": 8,
        **more,
        **WHY,
    }
    return made(operator.post("/operator/backends", body, idempotency_key=unique_name("once")))


def test_a_pool_a_backend_and_a_deployment_are_added(operator: Program, world: ApiWorld) -> None:
    pool = new_pool(operator)
    backend = new_backend(operator, pool)
    assert backend["base_url"] == "http://127.0.0.1:9"
    wanted = {"backend": backend["id"], "model": world.ids["model"], "upstream_model": "there", **WHY}
    deployment = made(operator.post("/operator/deployments", wanted))
    assert deployment["serves"] is True
    problem_of(operator.post("/operator/deployments", wanted), 409, "conflict")
    found = operator.get(f"/operator/deployments?backend={backend['id']}").json()["data"]
    assert [one["id"] for one in found] == [deployment["id"]]
    capacities = f"/operator/deployments/{deployment['id']}/capacities"
    version = made(operator.post(capacities, CAPACITY))["version_id"]
    problem_of(operator.post(capacities, {**CAPACITY, "reserved_ppm": 1_000_001}), 400, "invalid-request")
    another = {**wanted, "model": world.ids["another_model"]}
    other = made(operator.post("/operator/deployments", another))
    oversold = operator.post(f"/operator/deployments/{other['id']}/capacities", CAPACITY)
    problem_of(oversold, 422, "refused")
    assert [one["id"] for one in operator.get(capacities).json()["data"]] == [version]
    drained = made(operator.post(f"/operator/backends/{backend['id']}/state", {"state": "DRAINING", **WHY}))
    assert drained["state"] == "DRAINING"
    shown = operator.get(f"/operator/pools/{pool['id']}").json()
    assert shown["backends"][0]["id"] == backend["id"]
    assert not any(one["serves"] for one in shown["backends"][0]["deployments"])
    actions = {event["action"] for event in rows_of("tenants_auditevent", target=backend["id"])}
    assert actions == {"backend.create", "backend.state"}


def test_a_credential_goes_in_and_never_comes_out(operator: Program) -> None:
    pool = new_pool(operator)
    backend = new_backend(operator, pool, credential=SECRET)
    address = f"/operator/backends/{backend['id']}"
    answers = [
        backend,
        operator.get(address).json(),
        operator.get(f"/operator/pools/{pool['id']}").json(),
        operator.get(f"/operator/backends?pool={pool['id']}").json(),
        made(operator.post(f"{address}/credential", {"credential": f"{SECRET}2", **WHY})),
    ]
    assert SECRET not in json.dumps(answers)
    refused = operator.post(f"{address}/credential", {"credential": f"{SECRET} ü", **WHY})
    (error,) = problem_of(refused, 400, "invalid-request")["errors"]
    assert error["field"] == "credential"
    assert SECRET not in refused.content.decode()
    assert answers[-1]["has_credential"] is True
    assert made(operator.post(f"{address}/credential", {"credential": "", **WHY}))["has_credential"] is False
    stored = rows_of("tenants_auditevent", target=backend["id"])
    assert SECRET not in str(stored)
    assert len(stored) == 3


def test_costs_hold_from_a_moment_on_and_end(operator: Program) -> None:
    pool = new_pool(operator)
    costs = f"/operator/pools/{pool['id']}/costs"
    in_a_year = (utc_now() + timedelta(days=365)).replace(minute=0, second=0, microsecond=0)
    now = made(operator.post(costs, COST))
    later = made(operator.post(costs, {**COST, "accelerators": 16, "active_from": in_a_year.isoformat()}))
    rows = operator.get(costs).json()["data"]
    assert [row["id"] for row in rows] == [later["version_id"], now["version_id"]]
    # By hand: 8 × (1.25 + 0.25) and 10 kW × 1.25 × 0.2.
    assert [rows[1]["hour"][part]["amount"] for part in ("total", "energy")] == ["14.5", "2.5"]
    problem_of(operator.post(costs, {**COST, "currency": "XXX"}), 400, "invalid-request")
    negative = {**COST, "energy_per_kwh": "-1"}
    (error,) = problem_of(operator.post(costs, negative), 400, "invalid-request")["errors"]
    assert error["field"] == "energy_per_kwh"
    amid = {**COST, "active_from": (utc_now() + timedelta(days=400)).isoformat(), "currency": "CNY"}
    problem_of(operator.post(costs, amid), 422, "refused")
    page = operator.get(f"{costs}?limit=1").json()
    (second,) = operator.get(f"{costs}?limit=1&cursor={page['next_cursor']}").json()["data"]
    assert second["id"] == rows[1]["id"]
    made(operator.post(f"{costs}/end", WHY))
    assert {row["phase"] for row in operator.get(costs).json()["data"]} <= {"CURRENT", "ENDED", "WITHDRAWN"}
    problem_of(operator.post(f"{costs}/end", {"ends_at": in_a_year.isoformat(), **WHY}), 409, "conflict")


def test_what_is_wrong_names_its_field(operator: Program) -> None:
    pool = new_pool(operator)
    body = {"code": pool["code"], "name": "B", "accelerator_kind": "H100", "region": "eu", **WHY}
    problem_of(operator.post("/operator/pools", body), 409, "conflict")
    wrong = operator.post("/operator/pools", {**body, "code": "two words"})
    assert problem_of(wrong, 400, "invalid-request")["errors"][0]["field"] == "code"
    backend = new_backend(operator, pool)
    changes = {"engine": "vllm", "base_url": "ftp://nowhere", "max_concurrency": 1, **WHY}
    wrong = operator.call("PUT", f"/operator/backends/{backend['id']}", changes)
    assert problem_of(wrong, 400, "invalid-request")["errors"][0]["field"] == "base_url"


def test_health_is_read_of_all_and_of_one(operator: Program, world: ApiWorld) -> None:
    one = operator.get(f"/operator/backends/{world.ids['backend']}/health").json()
    assert (one["backend"], one["in_flight"], one["longer"]["seconds"]) == (world.ids["backend"], 0, 3600)
    rows = operator.get(f"/operator/backend-health?pool={world.ids['pool']}").json()["data"]
    assert [row["backend"] for row in rows] == [world.ids["backend"]]


def test_lists_go_on_behind_their_cursor(operator: Program) -> None:
    pool = new_pool(operator)
    codes = sorted(new_backend(operator, pool)["code"] for _ in range(3))
    first = operator.get(f"/operator/backends?pool={pool['id']}&limit=2").json()
    rest = operator.get(f"/operator/backends?limit=2&cursor={first['next_cursor']}").json()
    assert [row["code"] for row in (*first["data"], *rest["data"])] == codes
    assert rest["next_cursor"] is None


@pytest.fixture(scope="module")
def centre(database: None) -> Centre:
    return make_centre()


@pytest.mark.parametrize("group_by", ["model", "tenant", "pool", "backend"])
def test_figures_are_the_reports(operator: Program, centre: Centre, group_by: str) -> None:
    report = centre.report(group_by)  # type: ignore[arg-type]
    query = f"group_by={group_by}&currency={centre.currency}"
    found = operator.get(f"/operator/business?{query}").json()
    totals = found["totals"]
    nanos = {name: int(totals[name]["nanos"]) for name in ("margin", "idle", "unreserved", "pool_cost")}
    assert nanos == {
        "margin": report.totals.margin_nanos,
        "idle": report.totals.idle_nanos,
        "unreserved": report.totals.unreserved_nanos,
        "pool_cost": report.totals.pool_cost_nanos,
    }
    cost_nanos = int(totals["figures"]["cost"]["nanos"])
    assert cost_nanos + nanos["idle"] + nanos["unreserved"] == nanos["pool_cost"]
    assert sum(int(one["cost"]["nanos"]) for one in found["unreserved"]) == nanos["unreserved"]
    assert {line["name"]: line["breakeven_ppm"] for line in found["lines"]} == {
        line.name: line.breakeven_ppm for line in report.lines
    }
    assert sum(int(line["figures"]["revenue"]["nanos"]) for line in found["lines"]) == (
        report.totals.sums.revenue_nanos
    )


def test_figures_of_no_currency_and_no_period_are_refused(operator: Program) -> None:
    answer = operator.get("/operator/business?currency=???")
    assert problem_of(answer, 400, "invalid-request")["errors"][0]["field"] == "currency"
    backwards = "from=2026-11-02T00:00:00Z&to=2026-11-01T00:00:00Z"
    problem_of(operator.get(f"/operator/business?{backwards}"), 400, "invalid-request")
