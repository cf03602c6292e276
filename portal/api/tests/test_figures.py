"""Usage, calls, receipts, balance, transactions, models and limits: the numbers of the console."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from portal.api.tests.stage import problem_of, program
from portal.kit.ids import PREFIXES, public_id, uuid7
from quotas.ledger.queries import wallet_balance
from quotas.models import UsageRecord
from quotas.tests.doors import admit, settle
from tenants.scope import tenant_scope
from tests.database import connected
from tests.factories import admission_row, make_model, make_price, settlement_row
from tests.isolation.api_cases import ApiWorld, make_api_world

NO_KEY = public_id(PREFIXES["api_key"], uuid7())
pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture(scope="module")
def world(database: None) -> ApiWorld:
    """An organization with five calls of its model beside those of make_world, and with some of others."""
    made = make_api_world()
    with connected("dataplane") as dataplane:
        for _ in range(5):
            row = admission_row(made.world.tenant, made.world.model)
            admit(dataplane, row)
            settle(dataplane, settlement_row(row, prompt_tokens=10, completion_tokens=5))
    return made


def used_by(world: ApiWorld) -> tuple[int, int]:
    """How many calls of its model the organization has, and their prompt tokens."""
    with tenant_scope(world.world.tenant.id):
        calls = UsageRecord.objects.filter(request__model_id=world.world.model.id)
        newest = {one.request_id: one.prompt_tokens for one in calls.order_by("request_id", "revision")}
    return len(newest), sum(newest.values())


def test_amounts_are_exact_three_times_over(world: ApiWorld) -> None:
    balance = program(world.token).get("/balance").json()
    with tenant_scope(world.world.tenant.id):
        wallet = wallet_balance(tenant_id=world.world.tenant.id)
    assert balance["total"]["nanos"] == str(wallet.total_nanos)
    for name in ("total", "available", "paid", "granted", "owed", "pending", "overdraft"):
        money = balance[name]
        assert Decimal(money["amount"]) * 10**9 == int(money["nanos"])
        assert money["currency"] == "USD"


def test_usage_adds_up(world: ApiWorld) -> None:
    model, (calls, prompt_tokens) = world.ids["model"], used_by(world)
    for query in ("", "&bucket=hour", "&bucket=month&group_by=key"):
        usage = program(world.token).get(f"/usage?model={model}{query}").json()
        assert usage["total"]["requests"] == calls >= 6
        assert usage["total"]["prompt_tokens"] == prompt_tokens
        for part in ("buckets", "groups"):
            sums = [one["sums"] for one in usage[part]]
            assert sum(one["requests"] for one in sums) == calls
            assert sum(int(one["charged"]["nanos"]) for one in sums) == int(
                usage["total"]["charged"]["nanos"]
            )
    none = program(world.token).get("/usage?model=nobody/nothing").json()
    assert none["total"]["requests"] == 0
    one = program(world.token).get(f"/usage?model={model}&key={world.ids['api_key']}").json()
    assert one["total"]["requests"] == calls


def test_calls_are_paged_and_each_has_its_receipt(world: ApiWorld) -> None:
    caller = program(world.token)
    seen: list[Any] = []
    address = f"/requests?limit=4&model={world.ids['model']}"
    while address:
        page = caller.get(address).json()
        seen += page["data"]
        address = f"/requests?limit=4&cursor={page['next_cursor']}" if page["next_cursor"] else ""
    assert len({call["id"] for call in seen}) == len(seen) == used_by(world)[0]
    assert [call["id"] for call in seen] == sorted((call["id"] for call in seen), reverse=True)
    receipt = caller.get(f"/requests/{seen[0]['id']}").json()
    (revision,) = receipt["revisions"]
    assert revision["charged"] == seen[0]["charged"]
    lines = sum(int(line["amount"]["nanos"]) for line in revision["lines"])
    assert lines == int(revision["cost"]["nanos"])
    assert all(line["is_billed"] for line in revision["lines"])
    assert (revision["billed"], revision["waived"]["nanos"]) == ("DELIVERED", "0")
    assert (receipt["max_cost"], receipt["cancel_policy"], receipt["has_broken_off"]) == (
        None,
        "DELIVERED",
        False,
    )
    moved = sum(int(one["amount"]["nanos"]) for one in revision["transfer"]["amounts"])
    assert moved == -int(revision["charged"]["nanos"])
    assert caller.get("/requests?outcome=LOST").json()["data"] == []
    assert len(caller.get(f"/requests?model={world.ids['model']}&billed=true").json()["data"]) == len(seen)


def test_transactions_lead_to_the_balance(world: ApiWorld) -> None:
    caller = program(world.token)
    rows: list[Any] = []
    address = "/transactions?limit=3"
    while address:
        page = caller.get(address).json()
        rows += page["data"]
        address = f"/transactions?cursor={page['next_cursor']}&limit=3" if page["next_cursor"] else ""
    assert rows[-1]["balance"] == caller.get("/balance").json()["total"]
    running = 0
    for row in rows:
        running += int(row["amount"]["nanos"])
        assert int(row["balance"]["nanos"]) == running
    usage = caller.get("/transactions?kind=USAGE").json()["data"]
    assert {row["kind"] for row in usage} == {"USAGE"}
    assert world.ids["model"] in {row["model"] for row in usage}


def test_models_have_the_organizations_own_prices() -> None:
    world = make_api_world()
    caller = program(world.token)
    path = f"/models/{world.ids['model']}"
    own = caller.get(path).json()
    assert own["model"]["is_enabled"]
    assert own["price"]["is_private"]
    other = make_model()
    make_price(other.id, prices={"input": 5, "output": 7}, tenant_id=world.world.tenant.id)
    assert not caller.get(f"/models/{world.ids['another_model']}").json()["price"]["is_private"]
    seen = caller.get(f"/models/{other.slug}").json()
    assert seen["price"]["is_private"]
    assert not seen["model"]["is_enabled"]
    assert seen["model"]["price"]["input"]["now"]["nanos"] == "5"
    prices = {line["token_class"]: line["price_per_million"]["nanos"] for line in seen["price"]["lines"]}
    assert prices == {"input": "5", "output": "7"}
    enabled = caller.get("/models?enabled=true").json()["data"]
    assert world.ids["model"] in [model["slug"] for model in enabled]
    disabled = caller.post(f"{path}/disable").json()
    assert not disabled["is_enabled"]
    enabled = caller.get("/models?enabled=true").json()["data"]
    assert world.ids["model"] not in [model["slug"] for model in enabled]
    assert caller.post(f"{path}/enable").json()["is_enabled"]
    slugs = [model["slug"] for model in caller.get(f"/models?search={world.ids['model']}").json()["data"]]
    assert slugs[0] == world.ids["model"]


def test_an_organization_limits_itself() -> None:
    world = make_api_world()
    caller = program(world.token)
    budget = {"kind": "MONEY_DAY", "amount": "2.50", "alert_percents": [50, 100], "key": world.ids["api_key"]}
    line = caller.post("/limits", budget).json()
    assert (line["kind"], line["key"], line["source"]) == ("MONEY_DAY", world.ids["api_key"], "TENANT")
    assert line["value"] == {
        "count": None,
        "money": {"amount": "2.5", "currency": "USD", "nanos": "2500000000"},
    }
    quota = {"kind": "TOKENS_MONTH", "count": 1000, "model": world.ids["model"]}
    assert caller.post("/limits", quota).json()["value"] == {"count": 1000, "money": None}
    lines = caller.get("/limits").json()["limits"]
    own = {(one["kind"], one["model"], one["key"]) for one in lines if one["own_value"]}
    assert {
        ("MONEY_DAY", None, world.ids["api_key"]),
        ("TOKENS_MONTH", world.ids["model"], None),
    } <= own
    after = caller.call("DELETE", f"/limits/{line['own_value']['id']}").json()
    assert len([one for one in after["limits"] if one["own_value"]]) == len(own) - 1
    problem_of(caller.call("DELETE", f"/limits/{line['own_value']['id']}"), 404, "not-found")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"kind": "MONEY_DAY", "count": 5}, 400, "invalid-request"),
        ({"kind": "TOKENS_DAY", "amount": "5"}, 400, "invalid-request"),
        ({"kind": "TOKENS_DAY", "count": 5, "amount": "5"}, 400, "invalid-request"),
        ({"kind": "MONEY_DAY", "amount": 5}, 400, "invalid-request"),
        ({"kind": "MONEY_DAY", "amount": "0.0000000001"}, 400, "invalid-request"),
        ({"kind": "MONEY_DAY", "amount": "-1"}, 422, "refused"),
        ({"kind": "TOKENS_DAY", "count": 5, "model": "nobody/nothing"}, 422, "refused"),
        ({"kind": "TOKENS_DAY", "count": 5, "key": NO_KEY}, 422, "refused"),
        ({"kind": "TOKENS_DAY", "count": 5, "alert_percents": [50]}, 422, "refused"),
        ({"kind": "TOKENS_DAY", "count": True}, 400, "invalid-request"),
        ({"kind": "TOKENS_DAY", "count": 10**19}, 400, "invalid-request"),
    ],
)  # fmt: skip
def test_a_limit_that_cannot_be(world: ApiWorld, body: Any, status: int, code: str) -> None:
    problem_of(program(world.token).post("/limits", body), status, code)
