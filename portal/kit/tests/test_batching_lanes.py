"""Lanes that somebody else has locked."""

import asyncio
from collections.abc import Sequence

import pytest

from portal.kit.batching import Busy, DeadlineExceeded, GroupCommit, LaneLocked, QueueFull
from portal.kit.tests.fake_flush import (
    BadOrderError,
    ConnectionLostError,
    FakeDatabase,
    Order,
    group_commit,
    is_transient,
    key_of,
    settle,
    submitted,
)
from portal.kit.tests.fake_time import in_fake_time, now


@in_fake_time
async def test_a_locked_lane_delays_only_itself() -> None:
    database = FakeDatabase(locked={"locked"}, lane_duration_s=1)
    commit = group_commit(database, flushers=1)
    locked = submitted(commit, *(Order(number, lane="locked") for number in range(3)))
    started = now()
    others = [Order(number, lane=str(number % 5)) for number in range(100, 200)]
    await asyncio.gather(*submitted(commit, *others))
    assert now() - started == pytest.approx(0.01)
    for number in range(200, 230):
        await commit.submit(Order(number, lane="free"), 1)
    assert now() - started == pytest.approx(0.31)
    assert not any(task.done() for task in locked)
    database.locked.clear()
    assert await asyncio.gather(*locked) == ["answer 0", "answer 1", "answer 2"]
    await commit.close(1)


@in_fake_time
async def test_later_items_join_the_locked_lane_in_order_and_leave_the_common_path_alone() -> None:
    database = FakeDatabase(locked={"a"}, lane_duration_s=1)
    commit = group_commit(database)
    waiting = submitted(commit, Order(1), Order(2))
    await asyncio.sleep(0.1)
    for number in (3, 4, 5):
        waiting += submitted(commit, Order(number))
        await settle()
    assert commit.queued == 3
    await asyncio.sleep(2.5)
    database.locked.clear()
    await asyncio.gather(*waiting)
    assert database.batches == [[1, 2]]
    assert database.lane_batches[0] == [1, 2]
    assert database.lane_batches[-1] == [1, 2, 3, 4, 5]
    assert await commit.submit(Order(6), 1) == "answer 6"
    assert database.batches == [[1, 2], [6]]
    await commit.close(1)


@in_fake_time
async def test_the_deadline_of_a_locked_item_says_why() -> None:
    database = FakeDatabase(locked={"a"}, lane_duration_s=0.2)
    commit = group_commit(database)
    started = now()
    with pytest.raises(DeadlineExceeded) as caught:
        await commit.submit(Order(1), 3)
    assert isinstance(caught.value.__cause__, LaneLocked)
    assert now() - started == pytest.approx(3)
    assert 5 <= len(database.lane_batches) <= 15
    await commit.close(1)
    assert database.orphans == []


@in_fake_time
async def test_a_flush_may_raise_instead_of_answering_busy() -> None:
    tries = []

    async def flush(orders: Sequence[Order]) -> list[str]:
        tries.append([order.serial for order in orders])
        if len(tries) < 4:
            raise LaneLocked
        return ["done" for _ in orders]

    commit: GroupCommit[Order, str] = GroupCommit(
        "orders",
        flush=flush,
        lane_flush=flush,
        lane_of=lambda order: order.lane,
        key_of=key_of,
        is_transient=is_transient,
        clock=now,
    )
    assert await asyncio.gather(*submitted(commit, Order(1), Order(2))) == ["done", "done"]
    assert tries == [[1, 2]] * 4
    await commit.close(1)


@in_fake_time
async def test_cancelled_and_late_items_of_a_locked_lane_are_not_flushed_again() -> None:
    database = FakeDatabase(locked={"a"}, lane_duration_s=1)
    commit = group_commit(database)
    gone, stays = submitted(commit, Order(1), Order(2), deadline_s=30)
    late = submitted(commit, Order(3), deadline_s=0.5)[0]
    await asyncio.sleep(0.1)
    gone.cancel()
    with pytest.raises(DeadlineExceeded):
        await late
    await asyncio.sleep(2)
    database.locked.clear()
    assert await stays == "answer 2"
    assert database.lane_batches[0] == [1, 2, 3]
    assert database.lane_batches[1:] == [[2]] * (len(database.lane_batches) - 1)
    assert database.orphans == []
    await commit.close(1)


@in_fake_time
async def test_an_answer_from_the_lane_path_can_be_an_orphan_too() -> None:
    database = FakeDatabase(locked={"a"}, lane_duration_s=1)
    commit = group_commit(database)
    gone = submitted(commit, Order(1))[0]
    await asyncio.sleep(0.1)
    database.locked.clear()
    gone.cancel()
    await commit.close(5)
    assert database.orphans == [(1, "answer 1")]


@in_fake_time
async def test_bad_rows_and_broken_connections_are_handled_in_a_locked_lane() -> None:
    database = FakeDatabase(locked={"a"}, lane_duration_s=1)
    commit = group_commit(database)
    first = submitted(commit, Order(1))[0]
    await asyncio.sleep(0.1)
    bad, good = submitted(commit, Order(2, bad=True), Order(3))
    database.locked.clear()
    assert await first == "answer 1"
    database.failures = [ConnectionLostError()]
    with pytest.raises(BadOrderError):
        await bad
    assert await good == "answer 3"
    assert database.lane_batches == [[1], [2, 3], [2, 3], [2], [3]]
    await commit.close(1)


@in_fake_time
async def test_locked_lanes_leave_room_in_the_queue_for_everybody_else() -> None:
    database = FakeDatabase(locked={str(number) for number in range(10)}, lane_duration_s=5)
    commit = group_commit(database, max_queue=80)
    waiting = submitted(commit, *(Order(number, lane=str(number)) for number in range(10)))
    await asyncio.sleep(0.1)
    # All lanes are on their own path now, each with one item in flight.
    full_lane = [Order(100 + number, lane="0") for number in range(11)]
    outcomes = submitted(commit, *full_lane)
    await settle()
    assert [task.done() for task in outcomes] == [False] * 10 + [True]
    with pytest.raises(QueueFull):
        await outcomes.pop()
    others = [Order(200 + number, lane=str(1 + number % 9)) for number in range(70)]
    waiting += outcomes
    submitted_others = submitted(commit, *others)
    await settle()
    refused = [task for task in submitted_others if task.done()]
    assert commit.queued == 40
    assert len(refused) == 40
    assert {type(task.exception()) for task in refused} == {QueueFull}
    assert await commit.submit(Order(999, lane="free"), 1) == "answer 999"
    database.locked.clear()
    waiting += [task for task in submitted_others if task not in refused]
    await asyncio.gather(*waiting)
    await commit.close(1)


@in_fake_time
async def test_few_locked_lanes_are_flushed_at_once_and_all_get_their_turn() -> None:
    lanes = [str(number) for number in range(9)]
    database = FakeDatabase(locked=set(lanes), lane_duration_s=0.1)
    commit = group_commit(database, max_lanes=2)
    waiting = submitted(commit, *(Order(number, lane=lane) for number, lane in enumerate(lanes)))
    await asyncio.sleep(1)
    assert {serial for batch in database.lane_batches for serial in batch} == set(range(9))
    assert database.most_at_once == 2
    database.locked.clear()
    await asyncio.gather(*waiting)
    await commit.close(1)


@in_fake_time
async def test_an_item_that_may_have_happened_is_followed_up_in_a_locked_lane() -> None:
    database = FakeDatabase(failures=[ConnectionLostError()], locked={"a"}, lane_duration_s=0.1)
    commit = group_commit(database)
    gone = submitted(commit, Order(1), deadline_s=5)[0]
    late = submitted(commit, Order(2), deadline_s=1)[0]
    await asyncio.sleep(0.5)
    assert database.lane_batches
    gone.cancel()
    with pytest.raises(DeadlineExceeded):
        await late
    database.locked.clear()
    await commit.close(2)
    assert database.orphans == [(1, "answer 1")]


@in_fake_time
async def test_nothing_stays_behind_when_all_items_of_a_locked_lane_leave() -> None:
    database = FakeDatabase(locked={"a", "b"}, lane_duration_s=0.1)
    commit = group_commit(database, max_lanes=1)
    tasks = submitted(commit, Order(1), Order(2, lane="b"))
    await asyncio.sleep(0.15)
    for task in tasks:
        task.cancel()
    await asyncio.sleep(1)
    assert (commit.queued, commit.in_flight) == (0, 0)
    assert len(asyncio.all_tasks()) == 1
    database.locked.clear()
    assert await commit.submit(Order(3), 1) == "answer 3"
    assert database.batches[-1] == [3]
    await commit.close(1)


class UnlockingDatabase(FakeDatabase):
    """Its locks end right after the second common flush."""

    async def flush(self, orders: Sequence[Order]) -> list[str | Busy]:
        try:
            return await super().flush(orders)
        finally:
            if len(self.batches) == 2:
                self.locked.clear()


@in_fake_time
async def test_a_lane_found_locked_in_one_half_of_a_batch_keeps_its_items_in_the_other_back() -> None:
    database = UnlockingDatabase(locked={"a"})
    commit = group_commit(database)
    *good, bad = submitted(commit, Order(1), Order(2), Order(3), Order(4, bad=True))
    with pytest.raises(BadOrderError):
        await bad
    assert await asyncio.gather(*good) == ["answer 1", "answer 2", "answer 3"]
    assert database.batches == [[1, 2, 3, 4], [1, 2]]
    assert database.lane_batches == [[1, 2, 3, 4], [1, 2], [3, 4], [3], [4]]
    await commit.close(1)
