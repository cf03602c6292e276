"""Top-ups over the API: the organization's own, whole and by pages."""

from __future__ import annotations

from typing import Any

import pytest

from portal.api.tests.stage import program
from quotas.models import TopUpState
from tests.factories_payments import make_refund, make_top_up
from tests.isolation.api_cases import ApiWorld, make_api_world

pytestmark = pytest.mark.usefixtures("database")
UNIT = 10**9


@pytest.fixture(scope="module")
def world(database: None) -> ApiWorld:
    return make_api_world()


def test_a_top_up_is_what_it_brought(world: ApiWorld) -> None:
    top_up_id = make_top_up(world.world.tenant, amount="30.00", tax="3.00")
    make_refund(top_up_id, amount="10.00", tax="1.00")
    failed = make_top_up(world.world.tenant, state=TopUpState.FAILED)
    caller = program(world.token)
    rows = caller.get("/top-ups").json()["data"]
    newest, brought = rows[0], rows[1]
    assert newest["state"] == "FAILED"
    assert newest["paid"] is None
    assert brought["amount"]["nanos"] == str(30 * UNIT)
    assert brought["paid"]["nanos"] == str(33 * UNIT)
    assert brought["tax"]["nanos"] == str(3 * UNIT)
    assert brought["refunded"]["nanos"] == str(10 * UNIT)
    assert caller.get(f"/top-ups/{brought['id']}").json() == brought
    paid = caller.get("/top-ups?paid=true").json()["data"]
    assert {row["state"] for row in paid} == {"PAID"}
    assert str(failed) not in str(paid)
    # Whoever has the address of an open page may pay there.
    assert "pay_url" not in brought


def test_pages_follow_each_other(world: ApiWorld) -> None:
    caller = program(world.token)
    whole = caller.get("/top-ups").json()["data"]
    rows: list[Any] = []
    address = "/top-ups?limit=1"
    while address:
        page = caller.get(address).json()
        rows += page["data"]
        address = f"/top-ups?cursor={page['next_cursor']}&limit=1" if page["next_cursor"] else ""
    assert rows == whole


def test_those_of_others_are_not_there(world: ApiWorld) -> None:
    other = make_api_world()
    assert program(world.token).get(f"/top-ups/{other.ids['top_up']}").status_code == 404
