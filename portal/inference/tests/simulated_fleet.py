"""A fleet in simulated time: engines with slots, gateways that route, and calls that arrive at random.

Exact and fast: nothing waits, and the same seed gives the same numbers.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any
from uuid import UUID

from models_catalog.engines import ADAPTERS
from models_catalog.fleet.curve import Curve, CurvePoint
from portal.inference.routing import Routing
from portal.inference.snapshot import Route
from portal.kit.ids import uuid7
from quotas.models import AttemptOutcome

PROMPT_TOKENS = 256
MEAN_OUTPUT_TOKENS = 200
MEASURED_AT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Request:
    needs: frozenset[str] = frozenset()
    prefix_key: int = 0
    output_cap_tokens: int = 1024
    prompt_bound_tokens: int = 1000
    estimated_prompt_tokens: int = PROMPT_TOKENS


def make_route(**fields: Any) -> Route:
    """A route to nowhere, on a backend of its own."""
    values: dict[str, Any] = {
        "deployment_id": uuid7(),
        "backend_id": uuid7(),
        "backend_code": "b",
        "base_url": "http://127.0.0.1:9",
        "credential": None,
        "engine": ADAPTERS["generic"],
        "upstream_model": "m",
        "max_concurrency": 64,
    } | fields
    return Route(**values)


def make_curve(*points: tuple[int, int, int, float], **fields: Any) -> Curve:
    """Points as concurrency, ms to the first token, µs between tokens, tokens/s."""
    values: dict[str, Any] = {
        "points": tuple(
            CurvePoint(concurrency, ttft_ms, ttft_ms, inter_token_us, tokens_per_s)
            for concurrency, ttft_ms, inter_token_us, tokens_per_s in points
        ),
        "prompt_tokens": PROMPT_TOKENS,
        "output_tokens": MEAN_OUTPUT_TOKENS,
        "prefill_ns": 0,
        "certified_concurrency": points[-1][0],
        "certified_tokens_per_s": 1,
        "input_weight": 250,
        "cached_weight": None,
        "measured_at": MEASURED_AT,
    } | fields
    return Curve(**values)


@dataclass(slots=True)
class Pool:
    """Serves so many calls at a time, each at its speed; what comes beyond waits in line."""

    slots: int
    tokens_per_s: float
    prefill_tokens_per_s: float
    running: int = 0
    waiting: deque[Any] = field(default_factory=deque)

    @property
    def service_s(self) -> float:
        """Of an ordinary call."""
        return PROMPT_TOKENS / self.prefill_tokens_per_s + MEAN_OUTPUT_TOKENS / self.tokens_per_s

    @property
    def capacity(self) -> float:
        """Calls a second."""
        return self.slots / self.service_s

    def curve(self, *, wrong: float = 1.0) -> Curve:
        """As commissioning would measure it. wrong: all times are so many times what they really are."""
        doubling = [2**power for power in range(12) if 2**power < self.slots]
        points = []
        for calls in (*doubling, self.slots, self.slots * 2):
            wait_s = max(0, calls / self.slots - 1) * self.service_s
            ttft_s = PROMPT_TOKENS / self.prefill_tokens_per_s + wait_s
            tokens_per_s = min(calls, self.slots) / self.service_s * MEAN_OUTPUT_TOKENS
            points.append(
                (calls, round(ttft_s * 1e3 * wrong), round(1e6 / self.tokens_per_s * wrong), tokens_per_s)
            )
        return make_curve(
            *points,
            prefill_ns=round(1e9 / self.prefill_tokens_per_s * wrong),
            certified_concurrency=self.slots,
        )


@dataclass(slots=True)
class Outcome:
    """shares: of the tokens each pool has served, over its share of the capacity: 1.0 is in proportion."""

    shares: list[float]
    ttft_p95_s: float
    mean_s: float
    ttfts_s: list[float]


@dataclass(slots=True)
class _Call:
    arrived_s: float
    output_tokens: int
    gateway: int
    route: Route
    pool: Pool
    ttft_s: float = 0.0


class Simulation:
    """Calls come at random so that all pools together have `load` of what they can carry."""

    def __init__(
        self,
        pools: Sequence[Pool],
        *,
        load: float,
        calls: int,
        seed: int = 1,
        gateways: int = 1,
        share_s: float = 0.2,
        curves: Sequence[Curve | None] | None = None,
    ) -> None:
        self.now_s = 0.0
        self._pools = pools
        self._chance = random.Random(seed)
        self._rate = load * sum(pool.capacity for pool in pools)
        self._left_to_come = calls
        self._share_s = share_s
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._ordinal = count()
        self.gateways = [Routing(clock=lambda: self.now_s) for _ in range(gateways)]
        used = curves if curves is not None else [pool.curve() for pool in pools]
        self._routes = tuple(
            make_route(max_concurrency=pool.slots, curve=curve)
            for pool, curve in zip(pools, used, strict=True)
        )
        self._pool_of = dict(zip((route.deployment_id for route in self._routes), pools, strict=True))
        self._served = {id(pool): 0 for pool in pools}
        self._done: list[_Call] = []
        self._took_s: list[float] = []
        self._tasks = 0

    def run(self) -> Outcome:
        self._at(self._chance.expovariate(self._rate), self._arrive)
        if len(self.gateways) > 1:
            self._at(self._share_s, self._share)
        while self._events:
            self.now_s, _, act = heapq.heappop(self._events)
            act()
        # What the first calls met was an empty fleet.
        ttfts = sorted(call.ttft_s for call in self._done[len(self._done) // 10 :])
        tokens, capacity = sum(self._served.values()), sum(pool.capacity for pool in self._pools)
        return Outcome(
            [self._served[id(pool)] / tokens / (pool.capacity / capacity) for pool in self._pools],
            ttfts[int(len(ttfts) * 0.95)],
            sum(self._took_s) / len(self._took_s),
            ttfts,
        )

    def _at(self, after_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now_s + after_s, next(self._ordinal), act))

    def _arrive(self) -> None:
        request = Request()
        number = self._chance.randrange(len(self.gateways))
        routing = self.gateways[number]
        route = routing.order(self._routes, request)[0]
        routing.entered(route, request)
        tokens = max(1, round(self._chance.expovariate(1 / MEAN_OUTPUT_TOKENS)))
        pool = self._pool_of[route.deployment_id]
        call = _Call(self.now_s, tokens, number, route, pool)
        if pool.running < pool.slots:
            self._begin(call)
        else:
            pool.waiting.append(call)
        self._left_to_come -= 1
        if self._left_to_come:
            self._at(self._chance.expovariate(self._rate), self._arrive)

    def _begin(self, call: _Call) -> None:
        call.pool.running += 1
        prefill_s = PROMPT_TOKENS / call.pool.prefill_tokens_per_s
        call.ttft_s = self.now_s - call.arrived_s + prefill_s
        self._at(prefill_s + call.output_tokens / call.pool.tokens_per_s, lambda: self._end(call))

    def _end(self, call: _Call) -> None:
        took_s = self.now_s - call.arrived_s
        self.gateways[call.gateway].left(
            call.route, AttemptOutcome.COMPLETED, call.ttft_s, took_s, call.output_tokens
        )
        self._served[id(call.pool)] += call.output_tokens
        self._done.append(call)
        self._took_s.append(took_s)
        call.pool.running -= 1
        if call.pool.waiting:
            self._begin(call.pool.waiting.popleft())

    def _share(self) -> None:
        """As the gateways tell each other through Valkey: late, and a few times a second."""
        said = [
            {lane.route.deployment_id: lane.in_flight for lane in routing.lanes.values()}
            for routing in self.gateways
        ]
        for number, routing in enumerate(self.gateways):
            total: dict[UUID, int] = {}
            for other, calls in enumerate(said):
                if other != number:
                    for deployment_id, running in calls.items():
                        total[deployment_id] = total.get(deployment_id, 0) + running
            routing.set_elsewhere(total)
        if self._left_to_come:
            self._at(self._share_s, self._share)
