import asyncio
import math
from contextvars import ContextVar

import pytest

from portal.kit.batching import (
    DeadlineExceeded,
    GroupCommit,
    QueueFull,
)
from portal.kit.tests.fake_flush import (
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


def void(_: object) -> None:
    """For callbacks that return nothing but do something that returns something."""


@in_fake_time
async def test_a_single_item_is_flushed_at_once_and_alone() -> None:
    database = FakeDatabase(duration_s=0)
    commit = group_commit(database)
    started = now()
    assert await commit.submit(Order(1), 1) == "answer 1"
    assert now() == started
    assert database.batches == [[1]]
    await commit.close(1)


@in_fake_time
async def test_items_that_arrive_together_share_a_batch_and_one_flusher_runs() -> None:
    database = FakeDatabase()
    commit = group_commit(database)
    orders = [Order(number, lane=str(number % 3)) for number in range(30)]
    answers = await asyncio.gather(*(commit.submit(order, 1) for order in orders))
    assert answers == [f"answer {number}" for number in range(30)]
    assert [len(batch) for batch in database.batches] == [30]
    await commit.close(1)


@in_fake_time
async def test_items_gather_while_all_flushers_are_busy() -> None:
    database = FakeDatabase()
    commit = group_commit(database, flushers=2)
    waiting = []
    for number in range(6):
        waiting += submitted(commit, Order(number, lane=str(number)))
        await settle()
    assert database.batches == [[0], [1]]
    assert (commit.queued, commit.in_flight) == (4, 2)
    await asyncio.gather(*waiting)
    assert database.batches == [[0], [1], [2, 3, 4, 5]]
    assert (commit.queued, commit.in_flight) == (0, 0)
    assert database.most_at_once == 2
    await commit.close(1)


@in_fake_time
async def test_a_batch_has_its_limit_and_a_second_flusher_takes_the_rest() -> None:
    database = FakeDatabase()
    commit = group_commit(database, max_batch=4)
    orders = [Order(number, lane=str(number)) for number in range(10)]
    await asyncio.gather(*submitted(commit, *orders))
    assert [len(batch) for batch in database.batches] == [4, 4, 2]
    assert database.most_at_once == 2
    await commit.close(1)


@in_fake_time
async def test_one_lane_is_in_one_flush_at_a_time_and_keeps_its_order() -> None:
    database = FakeDatabase()
    commit = group_commit(database, max_batch=3, flushers=4)
    waiting = []
    for number in range(8):
        waiting += submitted(commit, Order(number, lane="hot"))
        await settle()
    await asyncio.gather(*waiting)
    assert database.batches == [[0], [1, 2, 3], [4, 5, 6], [7]]
    assert database.most_at_once == 1
    await commit.close(1)


@in_fake_time
async def test_a_busy_tenant_does_not_keep_the_others_waiting() -> None:
    database = FakeDatabase()
    commit = group_commit(database, max_batch=5, flushers=1)
    hot = submitted(commit, *(Order(number, lane="hot") for number in range(50)))
    cold = submitted(commit, Order(100, lane="cold"))
    await cold[0]
    assert database.batches[:2] == [[0, 1, 2, 3, 4], [100, 5, 6, 7, 8]]
    await asyncio.gather(*hot)
    await commit.close(1)


@in_fake_time
async def test_equal_keys_never_share_a_batch() -> None:
    database = FakeDatabase()
    commit = group_commit(database, flushers=1)
    same_lane = [Order(1, key="k"), Order(2, key="k"), Order(3)]
    other_lane = [Order(4, lane="b", key="k"), Order(5, lane="b"), Order(6, lane="c")]
    await asyncio.gather(*submitted(commit, *same_lane, *other_lane))
    assert database.batches[0] == [1, 6]
    flushed = [serial for batch in database.batches for serial in batch]
    assert sorted(flushed) == [1, 2, 3, 4, 5, 6]
    await commit.close(1)


@in_fake_time
async def test_a_full_queue_refuses_at_once_and_has_room_again_later() -> None:
    database = FakeDatabase()
    commit = group_commit(database, flushers=1, max_queue=3)
    waiting = submitted(commit, Order(0))
    await settle()
    waiting += submitted(commit, Order(1), Order(2), Order(3))
    await settle()
    with pytest.raises(QueueFull):
        await commit.submit(Order(4), 1)
    waiting.pop().cancel()
    await settle()
    assert await commit.submit(Order(5), 1) == "answer 5"
    await asyncio.gather(*waiting)
    assert database.batches == [[0], [1, 2, 5]]
    await commit.close(1)


@pytest.mark.parametrize("deadline_s", [0, -1])
def test_a_deadline_that_has_passed_is_refused_at_once(deadline_s: float) -> None:
    @in_fake_time
    async def run() -> None:
        database = FakeDatabase()
        commit = group_commit(database)
        with pytest.raises(DeadlineExceeded):
            await commit.submit(Order(1), deadline_s)
        assert database.batches == []

    run()


@pytest.mark.parametrize("deadline_s", [math.nan, math.inf, 3601])
def test_a_deadline_without_end_is_a_mistake(deadline_s: float) -> None:
    @in_fake_time
    async def run() -> None:
        with pytest.raises(ValueError, match="at most 3600 seconds"):
            await group_commit(FakeDatabase()).submit(Order(1), deadline_s)

    run()


@pytest.mark.parametrize("limits", [{"max_batch": 0}, {"flushers": 0}, {"flush_timeout_s": math.inf}])
def test_limits_are_checked(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="limits"):
        group_commit(FakeDatabase(), **limits)


@in_fake_time
async def test_a_queued_item_whose_deadline_passes_is_never_flushed() -> None:
    database = FakeDatabase(duration_s=5)
    commit = group_commit(database, flushers=1)
    first, late = submitted(commit, Order(1)) + submitted(commit, Order(2), deadline_s=20)
    await settle()
    started = now()
    with pytest.raises(DeadlineExceeded):
        await commit.submit(Order(3), 2)
    assert now() - started == pytest.approx(2)
    assert (commit.queued, commit.in_flight) == (0, 2)
    assert (await first, await late) == ("answer 1", "answer 2")
    assert database.batches == [[1, 2]]
    assert database.orphans == []
    await commit.close(1)


@in_fake_time
async def test_the_answer_of_a_flush_that_outlives_the_deadline_is_an_orphan() -> None:
    database = FakeDatabase(duration_s=5)
    commit = group_commit(database)
    with pytest.raises(DeadlineExceeded):
        await commit.submit(Order(1), 2)
    assert database.orphans == []
    await commit.close(10)
    assert database.orphans == [(1, "answer 1")]


@in_fake_time
async def test_cancelling_a_queued_item_drops_it() -> None:
    database = FakeDatabase()
    commit = group_commit(database, flushers=1)
    first = submitted(commit, Order(1))[0]
    await settle()
    queued, last = submitted(commit, Order(2, lane="b"), Order(3, lane="b"))
    await settle()
    queued.cancel()
    with pytest.raises(asyncio.CancelledError):
        await queued
    assert commit.queued == 1
    assert (await first, await last) == ("answer 1", "answer 3")
    assert database.batches == [[1], [3]]
    assert database.orphans == []
    await commit.close(1)


@in_fake_time
async def test_cancelling_an_item_in_flight_makes_an_orphan() -> None:
    database = FakeDatabase()
    commit = group_commit(database)
    gone, stays = submitted(commit, Order(1), Order(2))
    await settle()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert await stays == "answer 2"
    assert database.orphans == [(1, "answer 1")]
    await commit.close(1)


@in_fake_time
async def test_a_cancellation_that_overtakes_the_answer_makes_an_orphan() -> None:
    database = FakeDatabase(duration_s=0)
    commit = group_commit(database)
    task = submitted(commit, Order(1))[0]
    # The observer runs between the end of the flush and the answers, so the cancellation is scheduled before
    # the submitter wakes, and comes when its future already has the answer.
    loop = asyncio.get_running_loop()
    commit.observe = lambda size, seconds: void(loop.call_soon(task.cancel))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert database.orphans == [(1, "answer 1")]
    await commit.close(1)


@in_fake_time
async def test_a_cancellation_that_overtakes_an_error_leaves_nothing_behind() -> None:
    database = FakeDatabase(duration_s=0)
    commit = group_commit(database)
    task = submitted(commit, Order(1, bad=True))[0]
    loop = asyncio.get_running_loop()
    commit.observe = lambda size, seconds: void(loop.call_soon(task.cancel))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert database.orphans == []
    await commit.close(1)


@in_fake_time
async def test_flushes_do_not_run_in_the_context_of_a_submitter() -> None:
    request_id: ContextVar[str] = ContextVar("request_id", default="none")
    seen = []

    async def flush(orders: object) -> list[str]:
        seen.append(request_id.get())
        return ["done"]

    commit: GroupCommit[Order, str] = GroupCommit(
        "orders",
        flush=flush,
        lane_flush=flush,
        lane_of=lambda order: order.lane,
        key_of=key_of,
        is_transient=is_transient,
        clock=now,
    )
    request_id.set("of the first submitter")
    await commit.submit(Order(1), 1)
    assert seen == ["none"]
    await commit.close(1)


@in_fake_time
async def test_every_flush_is_observed() -> None:
    database = FakeDatabase(duration_s=0.5, failures=[ConnectionLostError()])
    commit = group_commit(database)
    seen = []
    commit.observe = lambda size, seconds: seen.append((size, round(seconds, 3)))
    await asyncio.gather(*submitted(commit, Order(1), Order(2)))
    assert seen == [(2, 0.5), (2, 0.5)]
    await commit.close(1)
