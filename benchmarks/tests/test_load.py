"""The backend and the load generator, each against the other."""

from __future__ import annotations

import asyncio
import json
from array import array
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from benchmarks.backend import Book, Connection, Wheel
from benchmarks.load import PlainLoop, StreamsRun, spread
from benchmarks.orders import PlainOrder, StreamsOrder, Target

HOST = "127.0.0.1"


@pytest.fixture
async def books() -> dict[str, Book]:
    return {name: Book() for name in ("gateway", "nginx", "direct")}


@pytest.fixture
async def port(books: dict[str, Book]) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    wheel = Wheel(loop)
    server = await loop.create_server(lambda: Connection(wheel, books), HOST, 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


def target(port: int, way: str = "") -> Target:
    options = {"continuous_usage_stats": True}
    return Target("backend", HOST, port, f"{way}/v1/chat/completions", "echo", options)


async def test_a_closed_loop_sends_as_many_requests_as_it_was_told(port: int, books: dict[str, Book]) -> None:
    order = PlainOrder(target(port, "/nginx"), ["one", "two"], connections=3, requests=50)

    result = await PlainLoop(order).run()

    assert (result.ok, result.failed, result.cut, result.latency.count) == (50, 0, 0, 50)
    assert books["nginx"].requests == 50
    assert books["nginx"].completion_tokens == result.completion_tokens
    assert books["gateway"].requests == books["direct"].requests == 0


async def test_streams_are_paced_counted_and_timed(port: int, books: dict[str, Book]) -> None:
    order = StreamsOrder(
        target(port),
        ["one"],
        streams=4,
        connect_per_s=1000,
        tokens=10,
        pace_per_s=50,
        probes_per_s=20,
        direct=target(port, "/direct"),
        beside=1,
    )

    result = await StreamsRun(order).run()

    probes = result.probe_ttft.count
    assert (result.ok, result.failed, result.cut) == (4 + probes, 0, 0)
    assert result.chunks == result.completion_tokens == 40 + probes * order.probe_tokens
    book = books["gateway"]
    assert (book.streams, book.chunks, book.completion_tokens) == (4 + probes, result.chunks, result.chunks)
    assert (book.live, book.cut) == (0, 0)
    assert result.duration_ns > 9 / 50 * 1e9, "nine pauses lie between ten chunks"
    assert result.delay.count > 0
    assert result.beside_delay.count > 0
    assert 0 < result.delay.p50 < 1e9, "the clock of a chunk is the clock of whoever reads it"


async def test_a_client_that_leaves_is_noticed(port: int, books: dict[str, Book]) -> None:
    body = {"stream": True, "max_tokens": 1000, "messages": [{"role": "user", "content": "pace 20/s"}]}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://{HOST}:{port}/v1/chat/completions", json=body) as answer,
    ):
        await answer.content.readline()

    async with asyncio.timeout(5):
        while not books["gateway"].cut:  # noqa: ASYNC110 - the backend tells nobody
            await asyncio.sleep(0.01)
    assert books["gateway"].live == 0


async def test_the_books_can_be_read(port: int, books: dict[str, Book]) -> None:
    async with aiohttp.ClientSession() as session:
        body: dict[str, Any] = {"max_tokens": 7, "messages": []}
        async with session.post(f"http://{HOST}:{port}/direct/v1/chat/completions", json=body) as answer:
            usage = (await answer.json())["usage"]
        async with session.get(f"http://{HOST}:{port}/stats") as answer:
            found = json.loads(await answer.text())

    assert usage["completion_tokens"] == found["direct"]["completion_tokens"] == 7
    assert usage["prompt_tokens"] == found["direct"]["prompt_tokens"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == found["direct"]["cached_tokens"]


def test_percentiles_are_values_that_occurred() -> None:
    found = spread(array("q", range(101, 0, -1)))

    assert (found.count, found.p50, found.p95, found.p99, found.max) == (101, 51, 96, 100, 101)
    assert spread(array("q")).count == 0
