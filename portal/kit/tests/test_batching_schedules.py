"""Random schedules of submissions, locks, failures and departures against a database that keeps the books."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portal.kit.batching import BUSY, Busy, Closed, DeadlineExceeded, GroupCommit, QueueFull
from portal.kit.tests.fake_flush import BadOrderError, ConnectionLostError, Order, is_transient, key_of
from portal.kit.tests.fake_time import now, run_in_fake_time

LANES = "abcd"
MAX_BATCH = 5


@dataclass(frozen=True)
class Visit:
    """One caller: when it comes (seconds after the one before), what it wants, and when it leaves."""

    pause_s: float
    lane: str
    key_number: int | None
    bad: bool
    deadline_s: float
    leaves_after_s: float | None


@dataclass(frozen=True)
class Weather:
    """What one flush meets: how long it takes, the lanes locked meanwhile, whether the connection breaks."""

    duration_s: float
    locked: frozenset[str]
    breaks: str | None


times = st.sampled_from([0.0, 0.0, 0.001, 0.01, 0.05, 0.3])
visits = st.builds(
    Visit,
    pause_s=times,
    lane=st.sampled_from(LANES),
    key_number=st.none() | st.integers(0, 2),
    bad=st.sampled_from([False, False, False, False, True]),
    deadline_s=st.sampled_from([0.005, 0.05, 0.5, 5.0]),
    leaves_after_s=st.none() | st.none() | times,
)
weathers = st.builds(
    Weather,
    duration_s=times,
    locked=st.frozensets(st.sampled_from(LANES), max_size=3),
    breaks=st.sampled_from([None, None, None, "before commit", "after commit"]),
)


@dataclass
class BookkeepingDatabase:
    weather: list[Weather]
    seen: Counter[int] = field(default_factory=Counter)
    commits: list[Order] = field(default_factory=list)
    answered: Counter[int] = field(default_factory=Counter)
    unknown: set[int] = field(default_factory=set)
    orphans: Counter[int] = field(default_factory=Counter)
    flying_lanes: set[str] = field(default_factory=set)

    async def flush(self, orders: Sequence[Order]) -> list[int | Busy]:
        return await self._flush(orders, blocks=False)

    async def lane_flush(self, orders: Sequence[Order]) -> list[int | Busy]:
        assert len({order.lane for order in orders}) == 1
        return await self._flush(orders, blocks=True)

    async def _flush(self, orders: Sequence[Order], *, blocks: bool) -> list[int | Busy]:
        lanes = {order.lane for order in orders}
        assert 1 <= len(orders) <= MAX_BATCH
        assert len({key_of(order) for order in orders}) == len(orders)
        assert not lanes & self.flying_lanes
        self.seen.update(order.serial for order in orders)
        weather = self.weather.pop() if self.weather else Weather(0.01, frozenset(), None)
        self.flying_lanes |= lanes
        await asyncio.sleep(weather.duration_s + (0.1 if blocks else 0))
        self.flying_lanes -= lanes
        if weather.breaks == "before commit":
            raise ConnectionLostError
        done = [order for order in orders if order.lane not in weather.locked]
        if any(order.bad for order in done):
            raise BadOrderError([order.serial for order in done if order.bad])
        self.commits += done
        if weather.breaks == "after commit":
            self.unknown |= {order.serial for order in done}
            raise ConnectionLostError
        self.answered.update(order.serial for order in done)
        return [BUSY if order.lane in weather.locked else order.serial for order in orders]

    def on_orphan(self, order: Order, answer: int) -> None:
        assert answer == order.serial
        self.orphans[order.serial] += 1


async def play(
    plan: list[Visit],
    database: BookkeepingDatabase,
    flushers: int,
    max_queue: int,
    close_after_s: float | None,
) -> list[tuple[Order, object]]:
    commit: GroupCommit[Order, int] = GroupCommit(
        "orders",
        flush=database.flush,
        lane_flush=database.lane_flush,
        lane_of=lambda order: order.lane,
        key_of=key_of,
        is_transient=is_transient,
        on_orphan=database.on_orphan,
        max_batch=MAX_BATCH,
        max_queue=max_queue,
        flushers=flushers,
        max_lanes=2,
        clock=now,
    )
    orders: list[Order] = []
    tasks: list[asyncio.Task[int]] = []
    loop = asyncio.get_running_loop()
    for serial, visit in enumerate(plan):
        await asyncio.sleep(visit.pause_s)
        key = None if visit.key_number is None else f"{visit.lane}{visit.key_number}"
        order = Order(serial, visit.lane, key, visit.bad)
        task = asyncio.ensure_future(commit.submit(order, visit.deadline_s))
        if visit.leaves_after_s is not None:
            loop.call_later(visit.leaves_after_s, task.cancel)
        orders.append(order)
        tasks.append(task)
    if close_after_s is not None:
        await asyncio.sleep(close_after_s)
        await commit.close(close_after_s)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    await commit.close(100)
    assert (commit.queued, commit.in_flight) == (0, 0)
    # The books within are even too: nothing is left of any lane.
    assert (commit._slow_queued, commit._lanes, dict(commit._ready)) == (0, {}, {})
    return list(zip(orders, outcomes, strict=True))


def check_one(order: Order, outcome: object, database: BookkeepingDatabase) -> None:
    """One outcome, and one that fits what the database saw."""
    serial = order.serial
    taken = 0
    if isinstance(outcome, int):
        taken = 1
        assert outcome == serial
        assert not order.bad
    elif isinstance(outcome, BadOrderError):
        assert outcome.args == ([serial],)
    elif isinstance(outcome, QueueFull):
        assert database.seen[serial] == 0
    else:
        assert isinstance(outcome, DeadlineExceeded | asyncio.CancelledError | Closed)
    # Every answer of the database reached somebody, once; and what was answered is never flushed again.
    assert taken + database.orphans[serial] == database.answered[serial] <= 1
    if serial not in database.unknown:
        assert sum(commit.serial == serial for commit in database.commits) == database.answered[serial]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    plan=st.lists(visits, min_size=1, max_size=40),
    weather=st.lists(weathers, max_size=40),
    flushers=st.integers(1, 3),
    max_queue=st.sampled_from([3, 16, 1000]),
    close_after_s=st.none() | times,
)
def test_every_item_has_one_outcome_and_lanes_keep_their_order(
    plan: list[Visit], weather: list[Weather], flushers: int, max_queue: int, close_after_s: float | None
) -> None:
    database = BookkeepingDatabase(weather[::-1])
    outcomes = run_in_fake_time(play(plan, database, flushers, max_queue, close_after_s))
    for order, outcome in outcomes:
        check_one(order, outcome, database)
    for lane in LANES:
        # The first commits of a lane are in the order of submission, also after failures and locks.
        firsts = list(dict.fromkeys(order.serial for order in database.commits if order.lane == lane))
        assert firsts == sorted(firsts)
