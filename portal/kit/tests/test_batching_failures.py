"""Flushes that fail, in every way they can, and what becomes of their items. Also the end of it all."""

import asyncio
from typing import NoReturn

import pytest

from portal.kit.batching import (
    Closed,
    DeadlineExceeded,
    FlushBroken,
    FlushTimeout,
    GroupCommit,
)
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
async def test_only_the_bad_rows_of_a_batch_fail() -> None:
    database = FakeDatabase()
    commit = group_commit(database)
    orders = [Order(number, lane=str(number % 7), bad=number in (3, 41)) for number in range(64)]
    outcomes = await asyncio.gather(*submitted(commit, *orders), return_exceptions=True)
    for number, outcome in enumerate(outcomes):
        if number in (3, 41):
            assert isinstance(outcome, BadOrderError)
            assert outcome.args == ([number],)
        else:
            assert outcome == f"answer {number}"
    # The whole, then for each bad row two flushes a level of halving.
    assert len(database.batches) <= 1 + 2 * 2 * 6
    await commit.close(1)


@in_fake_time
async def test_those_who_left_are_not_flushed_again_after_a_failure_that_undid_the_batch() -> None:
    database = FakeDatabase()
    commit = group_commit(database)
    gone, bad, good = submitted(commit, Order(1), Order(2, bad=True), Order(3))
    await settle()
    gone.cancel()
    with pytest.raises(BadOrderError):
        await bad
    assert await good == "answer 3"
    assert all(1 not in batch for batch in database.batches[1:])
    assert database.orphans == []
    await commit.close(1)


@in_fake_time
async def test_a_broken_connection_is_tried_again_with_the_same_batch() -> None:
    database = FakeDatabase(failures=[ConnectionLostError(), ConnectionLostError()])
    commit = group_commit(database)
    assert await asyncio.gather(*submitted(commit, Order(1), Order(2))) == ["answer 1", "answer 2"]
    assert database.batches == [[1, 2]] * 3
    await commit.close(1)


@in_fake_time
async def test_a_connection_that_stays_broken_ends_in_deadlines_with_their_cause() -> None:
    database = FakeDatabase(failures=[ConnectionLostError() for _ in range(1000)])
    commit = group_commit(database)
    short, long = submitted(commit, Order(1), deadline_s=0.5) + submitted(commit, Order(2), deadline_s=3)
    started = now()
    with pytest.raises(DeadlineExceeded) as caught:
        await short
    assert isinstance(caught.value.__cause__, ConnectionLostError)
    assert now() - started == pytest.approx(0.5)
    with pytest.raises(DeadlineExceeded):
        await long
    assert now() - started == pytest.approx(3)
    assert database.batches[-1] == [2]
    # Quarter seconds between the tries: neither a storm nor a nap.
    assert 10 <= len(database.batches) <= 25
    await commit.close(1)


@in_fake_time
async def test_submitters_are_told_of_an_outage_before_their_deadlines() -> None:
    """Also one whose item is not in the batch that broke off; what may have happened is followed up."""
    database = FakeDatabase(failures=[ConnectionLostError() for _ in range(6)], duration_s=0.05)
    commit = group_commit(database, flushers=1, patience_s=0.3, max_batch=1)
    started = now()
    in_flight, behind = submitted(commit, Order(1), Order(2, "b"))
    for task in (in_flight, behind):
        with pytest.raises(DeadlineExceeded):
            await task
    assert 0.3 <= now() - started <= 0.7
    late = submitted(commit, Order(3, "c"))[0]
    assert await late == "answer 3"
    assert database.orphans == [(1, "answer 1")]
    assert [2] not in database.batches
    await commit.close(5)


@in_fake_time
async def test_an_item_that_may_have_happened_is_followed_up_although_its_submitter_left() -> None:
    database = FakeDatabase(failures=[ConnectionLostError()])
    commit = group_commit(database)
    gone = submitted(commit, Order(1))[0]
    await settle()
    await asyncio.sleep(0.015)
    assert database.batches == [[1]]
    gone.cancel()
    await commit.close(5)
    assert database.batches == [[1], [1]]
    assert database.orphans == [(1, "answer 1")]


@in_fake_time
async def test_a_flush_that_hangs_is_cancelled_and_tried_again() -> None:
    hanging = [True]

    async def flush(orders: object) -> list[str]:
        await asyncio.sleep(1e6 if hanging.pop(0) else 0)
        return ["done"]

    hanging.append(False)
    commit: GroupCommit[Order, str] = GroupCommit(
        "orders",
        flush=flush,
        lane_flush=flush,
        lane_of=lambda order: order.lane,
        key_of=key_of,
        is_transient=is_transient,
        flush_timeout_s=2,
        clock=now,
    )
    started = now()
    assert await commit.submit(Order(1), 10) == "done"
    assert now() - started == pytest.approx(2.01)
    hanging += [True] * 10
    with pytest.raises(DeadlineExceeded) as caught:
        await commit.submit(Order(2), 5)
    assert isinstance(caught.value.__cause__, FlushTimeout)
    await commit.close(10)


@in_fake_time
async def test_a_flush_that_breaks_its_contract_fails_its_items() -> None:
    async def short(orders: object) -> list[str]:
        return []

    async def cancels(orders: object) -> list[str]:
        raise asyncio.CancelledError

    async def times_out(orders: object) -> list[str]:
        raise TimeoutError

    for flush, error in ((short, FlushBroken), (cancels, FlushBroken), (times_out, TimeoutError)):
        commit: GroupCommit[Order, str] = GroupCommit(
            "orders",
            flush=flush,
            lane_flush=flush,
            lane_of=lambda order: order.lane,
            key_of=key_of,
            is_transient=is_transient,
            clock=now,
        )
        outcomes = await asyncio.gather(*submitted(commit, Order(1), Order(2)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [error, error]
        await commit.close(1)


@in_fake_time
async def test_broken_callbacks_harm_nobody() -> None:
    def broken(*args: object) -> NoReturn:
        raise RuntimeError("broken callback")

    database = FakeDatabase(failures=[ConnectionLostError()])
    commit: GroupCommit[Order, str] = GroupCommit(
        "orders",
        flush=database.flush,
        lane_flush=database.lane_flush,
        lane_of=lambda order: order.lane,
        key_of=key_of,
        is_transient=broken,
        on_orphan=broken,
        clock=now,
    )
    commit.observe = broken
    with pytest.raises(ConnectionLostError):
        await commit.submit(Order(1), 1)
    gone, stays = submitted(commit, Order(2), Order(3))
    await settle()
    gone.cancel()
    assert await stays == "answer 3"
    await commit.close(1)


@in_fake_time
async def test_an_item_without_hashable_key_fails_its_own_caller_only() -> None:
    database = FakeDatabase()
    commit = group_commit(database)
    good = submitted(commit, Order(1))[0]
    with pytest.raises(TypeError):
        await commit.submit(Order(2, key=[]), 1)
    assert await good == "answer 1"
    assert commit.queued == 0
    await commit.close(1)


@in_fake_time
async def test_closing_flushes_what_waits_and_refuses_what_comes() -> None:
    database = FakeDatabase()
    commit = group_commit(database, max_batch=2, flushers=1)
    waiting = submitted(commit, *(Order(number) for number in range(5)))
    await settle()
    closing = asyncio.ensure_future(commit.close(10))
    await settle()
    with pytest.raises(Closed):
        await commit.submit(Order(9), 1)
    await closing
    assert [task.result() for task in waiting] == [f"answer {number}" for number in range(5)]
    await commit.close(0)


@in_fake_time
async def test_closing_gives_up_after_its_time() -> None:
    database = FakeDatabase(duration_s=100, lane_duration_s=100, locked={"locked"})
    commit = group_commit(database, flushers=1)
    database.duration_s = 0.01
    locked = submitted(commit, Order(1, lane="locked"), deadline_s=500)[0]
    await asyncio.sleep(0.1)
    database.duration_s = 100
    flying = submitted(commit, Order(2), deadline_s=500)[0]
    await settle()
    queued = submitted(commit, Order(3), Order(4, lane="locked"), deadline_s=500)
    await settle()
    started = now()
    await commit.close(3)
    assert now() - started == pytest.approx(3)
    for task in [locked, flying, *queued]:
        with pytest.raises(Closed):
            await task
    assert (commit.queued, commit.in_flight) == (0, 0)
    assert database.flying_lanes == set()
