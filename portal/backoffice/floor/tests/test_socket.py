"""The socket of the floor in a real web process: what a gateway delivers, told to operators."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, TypeVar

import httpx2 as httpx
import pytest
import websockets
from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore
from django.db import connections
from django.test import Client
from websockets.asyncio.client import ClientConnection

from devstack.engines.testing import RunningEngine, sim, start_engine
from portal.backoffice.floor.tests.halls import Hall, make_hall
from portal.backoffice.tests.people import Operator, make_operator, signed_in_operator
from portal.pages.sockets import Refused
from tenants.models import User
from tenants.scope import role_scope
from tests.database import rows_of
from tests.factories import TenantFixture, enable, make_tenant
from tests.gateway_process import RunningGateway
from tests.waiting import wait_for
from tests.web_process import RunningWeb

WITHIN_S = 30.0
ParamsT = ParamSpec("ParamsT")
ResultT = TypeVar("ResultT")
State = dict[str, Any]


@pytest.fixture
def engine() -> Iterator[RunningEngine]:
    with start_engine("vllm", tokens_per_s=0, model="upstream") as running:
        yield running


async def database(
    function: Callable[ParamsT, ResultT], *args: ParamsT.args, **kwargs: ParamsT.kwargs
) -> ResultT:
    """What asks the database, in a thread beside the event loop that closes its connections again."""

    def run() -> ResultT:
        try:
            return function(*args, **kwargs)
        finally:
            connections.close_all()

    return await asyncio.to_thread(run)


def operator_session(*, proven_ago_s: float = 0) -> Client:
    return signed_in_operator(make_operator(), proven_ago_s=proven_ago_s)


@asynccontextmanager
async def opened(web: RunningWeb, session: Client) -> AsyncIterator[ClientConnection]:
    cookie = session.cookies[settings.SESSION_COOKIE_NAME].value
    async with websockets.connect(
        f"{web.socket_url}/ws/operator/floor",
        origin=web.url,  # type: ignore[arg-type]
        additional_headers={"Cookie": f"{settings.SESSION_COOKIE_NAME}={cookie}"},
        proxy=None,
    ) as connection:
        yield connection


async def state_where(connection: ClientConnection, is_it: Callable[[State], bool]) -> State:
    async with asyncio.timeout(WITHIN_S):
        while True:
            state: State = json.loads(await connection.recv())
            if is_it(state):
                return state


async def close_code(connection: ClientConnection, *, within_s: float = WITHIN_S) -> int | None:
    async with asyncio.timeout(within_s):
        await connection.wait_closed()
    return connection.close_code


def row_of(state: State, hall: Hall) -> State:
    (row,) = (row for row in state["pools"] if row["id"] == hall.pool_id)
    return dict(row)


def cell(row: State, name: str) -> float:
    text = row["cells"][name]
    return 0.05 if text == "< 0.1" else float(text.replace(",", ""))


async def test_the_floor_tells_what_a_gateway_delivers(
    web: RunningWeb, gateway: RunningGateway, engine: RunningEngine
) -> None:
    hall = await database(make_hall, engine.url)
    tenant = await database(_make_customer, hall)
    session = await database(operator_session)
    body = {
        "model": hall.model.slug,
        "messages": [{"role": "user", "content": sim(tokens=640, rate=40, prompt=90, cached=30)}],
        "max_tokens": 700,
        "stream": True,
    }
    async with (
        opened(web, session) as floor,
        httpx.AsyncClient(
            base_url=gateway.api_base,
            headers={"Authorization": f"Bearer {tenant.key.token}"},
            timeout=60,
            trust_env=False,
        ) as http,
    ):
        quiet = row_of(await state_where(floor, lambda state: True), hall)
        assert (quiet["cells"]["now"], quiet["cells"]["calls"], quiet["fill"]) == ("0.0", "0", "0.000")
        assert quiet["money"]["burned"][0]["nanos"] == str(hall.cost_nanos_per_hour)
        assert quiet["money"]["earned"][0]["nanos"] == "0"

        async with http.stream("POST", "/chat/completions", json=body) as answer:
            assert answer.status_code == 200
            reading = asyncio.create_task(_drain(answer))
            # Ten seconds of it fill the window.
            full = row_of(await state_where(floor, lambda s: cell(row_of(s, hall), "output") >= 30), hall)
            await reading
        assert cell(full, "calls") == 1
        assert cell(full, "output") <= 60
        weighted = cell(full, "input") + 0.1 * cell(full, "cached") + 4 * cell(full, "output")
        assert cell(full, "now") == pytest.approx(weighted, abs=0.5)
        assert cell(full, "share") == pytest.approx(cell(full, "now") / 4, abs=0.1)
        assert float(full["fill"]) == pytest.approx(cell(full, "share"), abs=0.1)

        charged = (await database(_usage, tenant))["charged_nanos"]
        assert charged == 90 * 1_000 + 640 * 2_000
        paid = await state_where(floor, lambda s: row_of(s, hall)["money"]["earned"][0]["nanos"] != "0")
        money = row_of(paid, hall)["money"]
        assert money["earned"][0]["nanos"] == str(charged)
        assert money["margin"][0]["nanos"] == str(charged - hall.cost_nanos_per_hour)


def _make_customer(hall: Hall) -> TenantFixture:
    tenant = make_tenant(granted=None, paid="5.00")
    enable(tenant, hall.model)
    return tenant


async def _drain(answer: httpx.Response) -> None:
    async for _line in answer.aiter_lines():
        pass


def _usage(tenant: TenantFixture) -> dict[str, Any]:
    (row,) = wait_for(lambda: rows_of("quotas_usagerecord", tenant_id=tenant.id), WITHIN_S, "the settlement")
    return row


async def test_an_open_socket_ends_with_the_elevated_session(web: RunningWeb) -> None:
    almost = settings.TUNING["SLUICE_ELEVATED_S"] - 4
    session = await database(operator_session, proven_ago_s=almost)
    async with opened(web, session) as floor:
        assert await floor.recv()
        assert await close_code(floor, within_s=10) == Refused.NOT_ALLOWED


async def test_an_open_socket_ends_with_the_session_and_with_the_office(web: RunningWeb) -> None:
    people = [await database(make_operator) for _ in range(3)]
    sessions = [await database(signed_in_operator, person) for person in people]
    async with (
        opened(web, sessions[0]) as signed_out,
        opened(web, sessions[1]) as dismissed,
        opened(web, sessions[2]) as stays,
    ):
        for connection in (signed_out, dismissed, stays):
            assert await connection.recv()
        await database(_sign_out, sessions[0])
        await database(_dismiss, people[1])
        codes = await asyncio.gather(close_code(signed_out), close_code(dismissed))
        assert tuple(codes) == (Refused.SIGNED_OUT, Refused.NOT_FOUND)
        assert await stays.recv()


def _sign_out(session: Client) -> None:
    SessionStore(session.cookies[settings.SESSION_COOKIE_NAME].value).delete()


def _dismiss(operator: Operator) -> None:
    with role_scope("auth"):
        User.objects.filter(id=operator.person.id).update(is_staff=False)


async def test_a_socket_that_is_talked_to_closes(web: RunningWeb) -> None:
    async with opened(web, await database(operator_session)) as floor:
        await floor.send("hello")
        assert await close_code(floor) == 1008


async def test_nobody_opens_more_sockets_than_a_person_needs(web: RunningWeb) -> None:
    session = await database(operator_session)
    floors = [opened(web, session) for _ in range(13)]
    try:
        connections = [await one.__aenter__() for one in floors]
        assert await close_code(connections[-1]) == Refused.TOO_MANY
        assert await connections[0].recv()
    finally:
        for one in floors:
            await one.__aexit__(None, None, None)
