"""Group commits that share lanes: they take turns at them, and learn of each other's troubles."""

import asyncio
from typing import Any

import pytest

from portal.kit.batching import DeadlineExceeded, Flights, GroupCommit
from portal.kit.tests.fake_flush import (
    ConnectionLostError,
    FakeDatabase,
    Order,
    group_commit,
    settle,
    submitted,
)
from portal.kit.tests.fake_time import in_fake_time, now

Commit = GroupCommit[Order, str]


def two(database: FakeDatabase, **limits: Any) -> tuple[Commit, Commit]:
    flights = Flights()
    return (
        group_commit(database, flights=flights, flushers=1, max_lanes=1, **limits),
        group_commit(database, flights=flights, flushers=1, max_lanes=1),
    )


@in_fake_time
async def test_a_lane_is_in_one_flush_at_a_time_and_nobody_waits_for_longer_than_that() -> None:
    """The fake database itself objects to a lane that it has already."""
    database = FakeDatabase(duration_s=0.01)
    first, second = two(database, gather_s=0.004)
    started = now()
    tasks = []
    for serial in range(0, 100, 4):
        tasks += submitted(first, Order(serial), Order(serial + 1, "b"))
        tasks += submitted(second, Order(serial + 2), Order(serial + 3, "b"))
        await asyncio.sleep(0.003)
    await asyncio.gather(*tasks)
    assert now() - started < 0.2
    assert sorted(serial for batch in database.batches for serial in batch) == list(range(100))
    await first.close(5)
    await second.close(5)


@in_fake_time
async def test_who_waits_for_a_lane_that_flies_elsewhere_hears_of_an_outage() -> None:
    """Its own flushes cannot find it out: there are none."""
    database = FakeDatabase(failures=[ConnectionLostError() for _ in range(20)], duration_s=0.05)
    first, second = two(database, patience_s=0.3)
    held = submitted(second, Order(1))[0]
    await settle()
    started = now()
    waiting = submitted(first, Order(2))[0]
    with pytest.raises(DeadlineExceeded):
        await waiting
    assert 0.3 <= now() - started <= 0.7
    assert await held == "answer 1"
    assert [2] not in database.batches
    await first.close(5)
    await second.close(5)


@in_fake_time
async def test_a_locked_lane_that_waited_for_its_turn_looks_again_if_it_flies_elsewhere() -> None:
    database = FakeDatabase(duration_s=0.01, lane_duration_s=0.1, locked={"a", "b"})
    first, second = two(database)
    slow = submitted(first, Order(1, "a"), Order(2, "b"))
    # Both go their own way, and one of them waits for the other.
    await asyncio.sleep(0.02)
    database.locked.clear()
    database.duration_s = 0.3
    elsewhere = submitted(second, Order(3, "a"), Order(4, "b"))
    assert await asyncio.gather(*slow, *elsewhere) == [f"answer {serial}" for serial in (1, 2, 3, 4)]
    await first.close(5)
    await second.close(5)
