"""What gateways tell each other through Valkey, with made-up time."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from devstack.testing import Services
from portal.inference import fleet_state
from portal.inference.breaker import FAILURES_IN_A_ROW, BreakerState
from portal.inference.fleet_state import (
    IDLE_SHARE_S,
    LOAD_KEY,
    REMOVE_S,
    STALE_S,
    STATE_KEY,
    STATE_STALE_S,
    FleetBoard,
    read_gateways,
)
from portal.inference.routing import Routing
from portal.inference.snapshot import Route
from portal.inference.tests.simulated_fleet import Request, make_route
from portal.kit import valkey as kit_valkey
from quotas.models import AttemptOutcome


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Gateway:
    """One process's routing and board."""

    def __init__(self, client: Redis, route: Route, clock: Clock) -> None:
        self.route = route
        self.routing = Routing(clock=clock)
        self.routing.keep([route])
        self.board = FleetBoard(client, self.routing, clock=clock)

    def enter(self, count: int) -> None:
        for _ in range(count):
            self.routing.entered(self.route, Request())

    @property
    def elsewhere(self) -> int:
        return self.routing.lanes[self.route.deployment_id].elsewhere


@pytest.fixture
async def client(services: Services, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Redis]:
    # Gateways of other tests may be running.
    monkeypatch.setattr(fleet_state, "LOAD_KEY", "test:" + LOAD_KEY)
    monkeypatch.setattr(fleet_state, "STATE_KEY", "test:" + STATE_KEY)
    found = kit_valkey.connect(services.valkey_url)
    yield found
    await found.delete("test:" + LOAD_KEY, "test:" + STATE_KEY)
    await found.aclose()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pair(client: Redis, clock: Clock) -> tuple[Gateway, Gateway]:
    route = make_route()
    return Gateway(client, route, clock), Gateway(client, route, clock)


async def test_each_hears_what_the_other_has(pair: tuple[Gateway, Gateway], clock: Clock) -> None:
    one, other = pair
    one.enter(3)
    await one.board.share()
    await other.board.share()
    assert (one.elsewhere, other.elsewhere) == (0, 3)
    one.routing.left(one.route, AttemptOutcome.CLIENT_GONE, None, 1.0, None)
    clock.now_s += 0.2
    await one.board.share()
    clock.now_s += IDLE_SHARE_S
    await other.board.share()
    assert other.elsewhere == 2


async def test_who_falls_silent_is_forgotten(
    pair: tuple[Gateway, Gateway], clock: Clock, client: Redis
) -> None:
    one, other = pair
    one.enter(3)
    await one.board.share()
    await other.board.share()
    clock.now_s += STALE_S + 0.1
    await other.board.share()
    assert other.elsewhere == 0
    clock.now_s += REMOVE_S
    await other.board.share()
    assert await client.hlen(fleet_state.LOAD_KEY) == 1


async def test_who_leaves_is_forgotten_at_once(pair: tuple[Gateway, Gateway], clock: Clock) -> None:
    one, other = pair
    one.enter(3)
    await one.board.share()
    await one.board.leave()
    await other.board.share()
    assert other.elsewhere == 0


async def test_idle_gateways_ask_seldom(pair: tuple[Gateway, Gateway], clock: Clock, client: Redis) -> None:
    one, _ = pair
    await one.board.share()
    await client.delete(fleet_state.LOAD_KEY)
    clock.now_s += 0.2
    await one.board.share()
    assert await client.exists(fleet_state.LOAD_KEY) == 0
    one.enter(1)
    await one.board.share()
    assert await client.exists(fleet_state.LOAD_KEY) == 1


async def test_nonsense_of_others_is_removed(pair: tuple[Gateway, Gateway], client: Redis) -> None:
    one, _ = pair
    await client.hset(fleet_state.LOAD_KEY, "somebody", b"\xff\x00nonsense")
    await one.board.share()
    assert await client.hexists(fleet_state.LOAD_KEY, "somebody") == 0


async def test_without_valkey_each_goes_by_its_own_calls(clock: Clock) -> None:
    gone = kit_valkey.connect("redis://127.0.0.1:1/0")
    gateway = Gateway(gone, make_route(), clock)
    gateway.board._set_elsewhere({gateway.route.deployment_id: 5})
    gateway.enter(1)
    clock.now_s += STALE_S + 0.1
    await gateway.board.share()
    assert gateway.elsewhere == 0
    await gateway.board.leave()
    await gone.aclose()


async def test_operators_read_what_each_thinks(
    pair: tuple[Gateway, Gateway], services: Services, clock: Clock
) -> None:
    one, _ = pair
    one.enter(FAILURES_IN_A_ROW)
    for _ in range(FAILURES_IN_A_ROW):
        one.routing.left(one.route, AttemptOutcome.UNREACHABLE, None, 0.1, None)
    one.routing.backend_is_down(one.route.backend_id, "no answer in time")
    await one.board.share()
    reader = kit_valkey.connect_sync(services.valkey_url)
    at_s = one.board.word().at_s
    (word,) = read_gateways(reader, now_s=at_s)
    backend, deployment = word.backends[one.route.backend_id], word.deployments[one.route.deployment_id]
    assert (backend.is_down, backend.reason) == (True, "no answer in time")
    assert (deployment.breaker, deployment.reason) == (BreakerState.OPEN, "UNREACHABLE")
    assert read_gateways(reader, now_s=at_s + STATE_STALE_S + 1) == []
    reader.close()
