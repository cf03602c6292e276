"""One feed for all sockets: it runs while somebody listens, and who is slow hears the newest state only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError
from django.test import override_settings

from devstack.testing import Services
from portal.backoffice.floor.feed import FloorFeed, Listener
from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from quotas.business.floor import FloorBooks, FloorPool

WITHIN_S = 15.0


class Books:
    """Counts its readings, and fails while it is told to."""

    def __init__(self) -> None:
        self.readings = 0
        self.fails = False

    def __call__(self) -> FloorBooks:
        self.readings += 1
        if self.fails:
            raise OperationalError("away")
        return FloorBooks(utc_now(), (FloorPool(uuid7(), "hall", "Hall"),))


async def heard(listener: Listener) -> dict[str, Any]:
    async with asyncio.timeout(WITHIN_S):
        state: dict[str, Any] = json.loads(await listener.newest())
    return state


async def heard_until(listener: Listener, is_it: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    async with asyncio.timeout(WITHIN_S):
        while True:
            if is_it(state := await heard(listener)):
                return state


async def test_two_sockets_are_one_feed(services: Services) -> None:
    books = Books()
    feed = FloorFeed(books)
    assert not feed.is_running()
    async with feed.listening() as one:
        first = await heard(one)
        async with feed.listening() as other:
            # At once, and the same.
            assert await heard(other) == first
            states = await asyncio.gather(heard(one), heard(other))
            assert states[0] == states[1] != first
        assert feed.is_running()
        assert books.readings == 1
        assert [pool["code"] for pool in first["pools"]] == ["hall"]
        assert (first["books"], first["flow"]) == ("fresh", "known")
    assert not feed.is_running()
    async with feed.listening() as again:
        assert (await heard(again))["at"] > first["at"]


async def test_who_is_slow_hears_the_newest_only(services: Services) -> None:
    feed = FloorFeed(Books())
    async with feed.listening() as quick, feed.listening() as slow:
        seen = [await heard(quick) for _ in range(3)]
        assert await heard(slow) == seen[-1]
        assert await heard(slow) == await heard(quick)


async def test_the_last_books_stay_and_say_how_old_they_are(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portal.backoffice.floor.feed.BOOKS_EVERY_S", 0.0)
    monkeypatch.setattr("portal.backoffice.floor.feed.TICK_S", 0.05)
    books = Books()
    books.fails = True
    feed = FloorFeed(books)
    async with feed.listening() as listener:
        state = await heard(listener)
        assert (state["books"], state["pools"], state["books_at"]) == ("unknown", [], None)
        books.fails = False
        await heard_until(listener, lambda state: state["books"] == "fresh")
        books.fails = True
        # The reading that was under way may still have come.
        before = books.readings
        known = await heard_until(listener, lambda _state: books.readings >= before + 2)
        later = await heard(listener)
        assert later["books_at"] == known["books_at"]
        assert later["pools"] == known["pools"]


async def test_without_valkey_the_flow_is_unknown(services: Services) -> None:
    with override_settings(VALKEY_URL="redis://127.0.0.1:1/0"):
        async with FloorFeed(Books()).listening() as listener:
            state = await heard(listener)
    assert state["flow"] == "unknown"
    assert state["books"] == "fresh"
    assert state["pools"][0]["cells"]["calls"] == "–"


async def test_a_cancellation_that_gets_lost_keeps_nobody(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client of Valkey may swallow one that comes together with its answer."""
    is_asked = asyncio.Event()

    async def swallow_one(_client: Any) -> None:
        is_asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    feed = FloorFeed(Books())
    monkeypatch.setattr("portal.backoffice.floor.feed._flows", swallow_one)
    async with asyncio.timeout(WITHIN_S):
        async with feed.listening():
            await is_asked.wait()
    assert not feed.is_running()
