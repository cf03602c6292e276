"""Health checks against servers that are well, slow, broken and gone."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from portal.inference.breaker import FAILURES_IN_A_ROW, BreakerState
from portal.inference.health import HealthWatch
from portal.inference.routing import Routing
from portal.inference.snapshot import Route
from portal.inference.tests.simulated_fleet import Request, make_route
from quotas.models import AttemptOutcome

WELL = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Server:
    """Answers every connection with these bytes; with None it says nothing."""

    def __init__(self, answer: bytes | None) -> None:
        self.answer = answer
        self.asked: list[bytes] = []
        self.url = ""
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.asked.append(await reader.readuntil(b"\r\n\r\n"))
            if self.answer is None:
                await reader.read()
            else:
                writer.write(self.answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


class Stage:
    def __init__(
        self, server: Server, route: Route, watch: HealthWatch, routing: Routing, clock: Clock
    ) -> None:
        self.server, self.route, self.watch, self.routing, self.clock = server, route, watch, routing, clock

    @property
    def is_down(self) -> bool:
        return self.routing.backends[self.route.backend_id].is_down

    @property
    def reason(self) -> str:
        return self.routing.backends[self.route.backend_id].reason

    async def rounds(self, count: int, *, each_s: float = 2.0) -> None:
        for _ in range(count):
            self.clock.now_s += each_s
            await self.watch.look()
            await self.watch.settled()


@asynccontextmanager
async def staged(answer: bytes | None, **fields: object) -> AsyncIterator[Stage]:
    server, clock = Server(answer), Clock()
    await server.start()
    routing = Routing(clock=clock)
    route = make_route(base_url=server.url, **fields)
    routing.keep([route])
    watch = HealthWatch(routing, interval_s=1.0, clock=clock)
    # The first look only decides when to ask first.
    await watch.look()
    try:
        yield Stage(server, route, watch, routing, clock)
    finally:
        await watch.close()
        await server.stop()


async def test_a_backend_that_answers_is_well() -> None:
    async with staged(WELL, credential="secret") as stage:
        await stage.rounds(3)
        assert not stage.is_down
        assert len(stage.server.asked) >= 2
        assert stage.server.asked[0].startswith(b"GET /v1/models ")
        assert b"Authorization: Bearer secret" in stage.server.asked[0]


@pytest.mark.parametrize("status", [b"404 Not Found", b"401 Unauthorized", b"302 Found"])
async def test_whoever_has_no_such_page_is_there_all_the_same(status: bytes) -> None:
    async with staged(WELL.replace(b"200 OK", status)) as stage:
        await stage.rounds(4)
        assert not stage.is_down


async def test_it_is_down_after_the_second_failure_and_up_with_the_first_answer() -> None:
    async with staged(WELL.replace(b"200 OK", b"503 Service Unavailable")) as stage:
        await stage.rounds(1)
        assert not stage.is_down
        await stage.rounds(1)
        assert (stage.is_down, stage.reason) == (True, "HTTP 503")
        assert stage.routing.order((stage.route,), Request()) == []
        stage.server.answer = WELL
        await stage.rounds(1)
        assert not stage.is_down
        assert stage.routing.order((stage.route,), Request()) == [stage.route]


@pytest.mark.parametrize(
    ("answer", "reason"), [(b"\x00\x01nonsense\r\n\r\n", "not reachable"), (b"", "not reachable")]
)
async def test_nonsense_is_no_answer(answer: bytes, reason: str) -> None:
    async with staged(answer) as stage:
        await stage.rounds(3)
        assert stage.is_down
        assert stage.reason.startswith(reason)


async def test_one_that_hangs_gets_one_chance_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portal.inference.health.TIMEOUT_S", 0.05)
    async with staged(None) as stage:
        await stage.rounds(2)
        assert not stage.is_down
        await stage.rounds(1)
        assert (stage.is_down, stage.reason) == (True, "no answer in time")


async def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    async with staged(WELL) as stage:
        stage.routing.keep([make_route(**{**_fields(stage.route), "base_url": url})])
        await stage.rounds(2)
        assert (stage.is_down, stage.reason) == (True, "not reachable (ClientConnectorError)")


def _fields(route: Route) -> dict[str, object]:
    return {"deployment_id": route.deployment_id, "backend_id": route.backend_id}


async def test_a_backend_that_serves_calls_is_not_asked() -> None:
    async with staged(WELL) as stage:
        await stage.rounds(1)
        asked = len(stage.server.asked)
        for _ in range(5):
            serve(stage, AttemptOutcome.COMPLETED)
            await stage.rounds(1, each_s=0.9)
        assert len(stage.server.asked) == asked


async def test_a_busy_backend_that_is_slow_to_answer_checks_is_well() -> None:
    async with staged(WELL.replace(b"200 OK", b"503 Busy")) as stage:
        for _ in range(6):
            await stage.rounds(1)
            stage.clock.now_s += 0.1
            serve(stage, AttemptOutcome.COMPLETED)
        assert not stage.is_down


async def test_one_that_could_not_be_reached_is_asked_at_once_and_tried_as_soon_as_it_answers() -> None:
    async with staged(WELL) as stage:
        await stage.rounds(1)
        asked = len(stage.server.asked)
        for _ in range(FAILURES_IN_A_ROW):
            serve(stage, AttemptOutcome.UNREACHABLE)
        lane = stage.routing.lanes[stage.route.deployment_id]
        assert lane.breaker.state is BreakerState.OPEN
        await stage.rounds(1, each_s=0.01)
        assert len(stage.server.asked) == asked + 1
        assert stage.routing.order((stage.route,), Request()) == [stage.route]


async def test_what_is_gone_from_the_catalog_is_asked_no_more() -> None:
    async with staged(WELL) as stage:
        await stage.rounds(1)
        stage.routing.keep([])
        asked = len(stage.server.asked)
        await stage.rounds(3)
        assert len(stage.server.asked) == asked


def serve(stage: Stage, outcome: AttemptOutcome) -> None:
    stage.routing.entered(stage.route, Request())
    is_served = outcome is AttemptOutcome.COMPLETED
    stage.routing.left(stage.route, outcome, 0.1 if is_served else None, 0.5, 5 if is_served else None)
