"""What an open floor does while nobody can say whether its session still may see it."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError

from portal.backoffice.floor import consumer
from portal.backoffice.floor.consumer import FloorSocket, Standing, standing_of
from portal.backoffice.floor.feed import FEED
from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from portal.pages.sockets import Refused


async def _nothing(_message: MutableMapping[str, Any] | None = None) -> MutableMapping[str, Any]:
    return {}


def make_socket() -> FloorSocket:
    async def send(_message: MutableMapping[str, Any]) -> None:
        return None

    return FloorSocket({"session": SimpleNamespace(session_key="none")}, _nothing, send, FEED)


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database does not answer, and time is short."""

    def fail(_key: str | None) -> Standing:
        raise OperationalError("away")

    monkeypatch.setattr(consumer, "_standing", fail)
    for name, value in (("CHECK_EVERY_S", 0.02), ("CHECK_AGAIN_S", 0.02), ("MAX_UNCHECKED_S", 0.3)):
        monkeypatch.setattr(consumer, name, value)
    monkeypatch.setattr(consumer, "CHECK_TIMEOUT_S", 0.1)


async def test_it_ends_soon_and_says_that_it_is_not_known(away: None) -> None:
    assert await standing_of("none") is Refused.UNKNOWN
    standing = Standing(uuid7(), utc_now() + timedelta(hours=1))
    async with asyncio.timeout(5):
        assert await make_socket()._watch(standing) is Refused.UNKNOWN


async def test_the_end_of_the_elevated_session_needs_no_answer(away: None) -> None:
    standing = Standing(uuid7(), utc_now() + timedelta(seconds=0.05))
    async with asyncio.timeout(5):
        assert await make_socket()._watch(standing) is Refused.NOT_ALLOWED


def test_no_floor_stays_open_unchecked_for_half_a_minute() -> None:
    assert consumer.MAX_UNCHECKED_S < 30
    assert consumer.CHECK_EVERY_S + consumer.CHECK_TIMEOUT_S < consumer.MAX_UNCHECKED_S
