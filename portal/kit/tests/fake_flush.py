"""A stand-in for the database behind a group commit, which notices when it is used wrongly."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from portal.kit.batching import BUSY, Busy, GroupCommit
from portal.kit.tests.fake_time import now


@dataclass(frozen=True)
class Order:
    serial: int
    lane: str = "a"
    key: object = None
    bad: bool = False


class BadOrderError(Exception):
    pass


class ConnectionLostError(Exception):
    pass


@dataclass
class FakeDatabase:
    """Flushes take `duration_s` of fake time; the next ones raise what `failures` lists, None for nothing."""

    duration_s: float = 0.01
    lane_duration_s: float = 0.05
    locked: set[str] = field(default_factory=set)
    failures: list[Exception | None] = field(default_factory=list)
    batches: list[list[int]] = field(default_factory=list)
    lane_batches: list[list[int]] = field(default_factory=list)
    orphans: list[tuple[int, str]] = field(default_factory=list)
    flying_lanes: set[str] = field(default_factory=set)
    most_at_once: int = 0
    _at_once: int = 0

    async def flush(self, orders: Sequence[Order]) -> list[str | Busy]:
        self.batches.append([order.serial for order in orders])
        return await self._flush(orders, self.duration_s)

    async def lane_flush(self, orders: Sequence[Order]) -> list[str | Busy]:
        assert len({order.lane for order in orders}) == 1
        self.lane_batches.append([order.serial for order in orders])
        return await self._flush(orders, self.lane_duration_s)

    async def _flush(self, orders: Sequence[Order], duration_s: float) -> list[str | Busy]:
        lanes = {order.lane for order in orders}
        keys = [key_of(order) for order in orders]
        assert orders
        assert len(set(keys)) == len(keys)
        assert not lanes & self.flying_lanes
        self.flying_lanes |= lanes
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await asyncio.sleep(duration_s)
        finally:
            self.flying_lanes -= lanes
            self._at_once -= 1
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        if any(order.bad for order in orders):
            raise BadOrderError([order.serial for order in orders if order.bad])
        return [BUSY if order.lane in self.locked else f"answer {order.serial}" for order in orders]

    def on_orphan(self, order: Order, answer: str) -> None:
        self.orphans.append((order.serial, answer))


def key_of(order: Order) -> object:
    return order.serial if order.key is None else order.key


def is_transient(error: BaseException) -> bool:
    return isinstance(error, ConnectionLostError)


def group_commit(database: FakeDatabase, **limits: Any) -> GroupCommit[Order, str]:
    return GroupCommit(
        "orders",
        flush=database.flush,
        lane_flush=database.lane_flush,
        lane_of=lambda order: order.lane,
        key_of=key_of,
        is_transient=is_transient,
        on_orphan=database.on_orphan,
        clock=now,
        **limits,
    )


async def settle() -> None:
    """Let everything happen that needs no time to pass."""
    for _ in range(20):
        await asyncio.sleep(0)


def submitted(
    commit: GroupCommit[Order, str], *orders: Order, deadline_s: float = 10
) -> list[asyncio.Task[str]]:
    return [asyncio.ensure_future(commit.submit(order, deadline_s)) for order in orders]
