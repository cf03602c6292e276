"""The same limits for one process alone, for as long as Valkey is away."""

import math
from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from quotas.models import LimitKind

MAX_BUCKETS = 10_000
WINDOW_S = 60.0


class Demand(NamedTuple):
    """What one limit is asked for."""

    key: str
    kind: LimitKind
    limit: int
    amount: int

    @property
    def is_slots(self) -> bool:
        """A place among the calls at a time; everything else is an amount of a rate."""
        return self.kind == LimitKind.CONCURRENCY


class Verdict(NamedTuple):
    """refusing: the number of the demand that is refused for longest; None when all is taken.
    wait_s: until it would not be; infinity is never, and 0 when a slot gets free."""

    refusing: int | None
    wait_s: float = 0.0


TAKEN = Verdict(None)


class LocalRates:
    """Buckets and slots of this process, as rate_script keeps them for all. The clock is the caller's.

    Slots are noted whether or not Valkey is there, so that an outage finds them counted.
    """

    def __init__(self) -> None:
        self._buckets: dict[str, tuple[float, float]] = {}
        self._slots: dict[str, set[UUID]] = {}

    def take(self, request_id: UUID, demands: Sequence[Demand], *, now_s: float) -> Verdict:
        """All demands or none of them."""
        verdict, longest_s = TAKEN, -1.0
        for number, demand in enumerate(demands):
            wait_s = self._wait_s(demand, now_s)
            if wait_s > longest_s:
                verdict, longest_s = Verdict(number, wait_s), wait_s
        if verdict.refusing is not None:
            return verdict
        if len(self._buckets) >= MAX_BUCKETS:
            self._buckets.clear()
        for demand in demands:
            if not demand.is_slots:
                self._buckets[demand.key] = (self._level(demand, now_s) + demand.amount, now_s)
        self.hold(request_id, demands)
        return TAKEN

    def give_back(self, demands: Sequence[Demand]) -> None:
        """The amounts of rates; a bucket is never emptier than empty."""
        for demand in demands:
            if not demand.is_slots and demand.key in self._buckets:
                level, at_s = self._buckets[demand.key]
                self._buckets[demand.key] = (max(0.0, level - demand.amount), at_s)

    def hold(self, request_id: UUID, demands: Sequence[Demand]) -> None:
        for demand in demands:
            if demand.is_slots:
                self._slots.setdefault(demand.key, set()).add(request_id)

    def free(self, request_id: UUID, demands: Sequence[Demand]) -> None:
        for demand in demands:
            held = self._slots.get(demand.key) if demand.is_slots else None
            if held is not None:
                held.discard(request_id)
                if not held:
                    del self._slots[demand.key]

    def _wait_s(self, demand: Demand, now_s: float) -> float:
        """-1 when it is granted."""
        if demand.amount > demand.limit:
            return math.inf
        if demand.is_slots:
            return 0.0 if len(self._slots.get(demand.key, ())) >= demand.limit else -1.0
        over = self._level(demand, now_s) + demand.amount - demand.limit
        return over * WINDOW_S / demand.limit if over > demand.limit * 1e-9 else -1.0

    def _level(self, demand: Demand, now_s: float) -> float:
        level, at_s = self._buckets.get(demand.key, (0.0, now_s))
        return max(0.0, min(level, demand.limit) - (now_s - at_s) * demand.limit / WINDOW_S)
