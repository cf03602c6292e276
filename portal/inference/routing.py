"""Which deployment gets a call (docs/adr/0015).

The one that is expected to finish it first, as its measured curve and what was seen since then say. Load
beyond FREE_LOAD of what a deployment serves well makes it count as ever slower, so that fast and slow ones
fill up evenly instead of the fast one first to the brim. Among those that are about as good the cheaper one
wins, and a conversation stays where its beginning is cached as long as that costs little.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from math import log
from typing import Protocol
from uuid import UUID

from portal.inference.breaker import BreakerState
from portal.inference.errors import CallError, bad_request
from portal.inference.lanes import BackendLoad, Lane, ModelStats
from portal.inference.snapshot import Route
from quotas.models import AttemptOutcome

# Up to this load only the expected time counts. From there on to 1.0 each hundredth makes a deployment count
# as e^(STEEPNESS/100) times as slow: ten times as slow weighs as much as about eight hundredths of load.
FREE_LOAD = 0.6
STEEPNESS = 30.0
# Below that a hundredth of load weighs a four-hundredth of the time: equals share their load.
EVENNESS = 0.25
# Deployments that are this much slower than the best one are as good, if they are cheaper.
AS_GOOD = log(1.1)
# How much slower a deployment may be that has the conversation's beginning in its cache.
AFFINITY_FACTOR = 1.5
MAX_PREFIXES = 20_000
# Groups of routes that are remembered: snapshots replace theirs.
MAX_GROUPS = 4096

_FAILURES = frozenset(
    {AttemptOutcome.UNREACHABLE, AttemptOutcome.BACKEND_FAILED, AttemptOutcome.BACKEND_TIMEOUT}
)
# Those after which a further caller would only wait.
_SILENT = frozenset({AttemptOutcome.UNREACHABLE, AttemptOutcome.BACKEND_TIMEOUT})
_ANSWERS = frozenset({AttemptOutcome.COMPLETED, AttemptOutcome.BACKEND_REFUSED})


class RoutedRequest(Protocol):
    """What of a request matters to the choice. needs: capabilities; prefix_key: of its beginning, or 0."""

    @property
    def needs(self) -> frozenset[str]: ...
    @property
    def prefix_key(self) -> int: ...
    @property
    def output_cap_tokens(self) -> int: ...
    @property
    def prompt_bound_tokens(self) -> int: ...
    @property
    def estimated_prompt_tokens(self) -> int: ...


class Routing:
    """The load of every deployment that this process knows of, and the choice among them.

    affinity_factor: how much longer a call may take where its prefix was served last; below 1 is never.
    on_silence: told of a backend that could not be reached, so that somebody looks at once.
    """

    def __init__(
        self,
        *,
        affinity_factor: float = AFFINITY_FACTOR,
        clock: Callable[[], float] = time.monotonic,
        on_silence: Callable[[UUID], None] = lambda _: None,
    ) -> None:
        self.backends: dict[UUID, BackendLoad] = {}
        self.lanes: dict[UUID, Lane] = {}
        self.on_silence = on_silence
        self._affinity = log(affinity_factor) if affinity_factor >= 1 else None
        self._clock = clock
        # By identity: the tuples of a snapshot live as long as it does, and this keeps them alive.
        self._groups: dict[int, tuple[Sequence[Route], list[Lane]]] = {}
        self._prefixes: dict[int, Lane] = {}

    # The choice.

    def order(self, routes: Sequence[Route], request: RoutedRequest) -> list[Route]:
        """The routes to try, best first; those that cannot serve now are left out, so it may be empty.

        Raises CallError 400 when no deployment of the model can do what the request needs.
        """
        group = self._groups.get(id(routes))
        lanes = group[1] if group is not None and group[0] is routes else self._group(routes)
        if len(lanes) == 1 and lanes[0].is_clear and not lanes[0].is_limited:
            return list(routes)
        ranked, troubled, probe = self._rank(lanes, request)
        if len(ranked) > 1:
            ranked.sort()
            self._prefer(ranked, lanes, request.prefix_key)
        chosen = [routes[place] for _, place in ranked]
        if probe >= 0:
            chosen.insert(0, routes[probe])
        return chosen or self._last_resort(routes, lanes, troubled, request)

    def _rank(
        self, lanes: Sequence[Lane], request: RoutedRequest
    ) -> tuple[list[tuple[float, int]], list[int], int]:
        """Score and place of those that are well; the places of those that are to be left alone; and the
        place of one that this call probes, or -1."""
        now_s = self._clock()
        prompt = request.estimated_prompt_tokens
        output: float = request.output_cap_tokens
        if lanes and 0.0 < lanes[0].model.mean_output < output:
            output = lanes[0].model.mean_output
        ranked: list[tuple[float, int]] = []
        troubled: list[int] = []
        probe = -1
        for place, lane in enumerate(lanes):
            if lane.is_limited and not _fits(lane.route, request):
                continue
            share = 1.0 if lane.is_clear else self._share(lane, now_s)
            if share > 0.0:
                ranked.append((_score(lane, share, prompt, output), place))
            elif share == 0.0 and probe < 0 and lane.breaker.claim_probe(now_s):
                probe = place
            else:
                troubled.append(place)
        return ranked, troubled, probe

    def _prefer(self, ranked: list[tuple[float, int]], lanes: Sequence[Lane], prefix_key: int) -> None:
        """Move the cheapest of those that are about as good to the front, or the one with a warm cache."""
        best = ranked[0][0]
        if prefix_key and self._affinity is not None:
            warm = self._prefixes.get(prefix_key)
            if warm is not None:
                for number, (score, place) in enumerate(ranked):
                    if score > best + self._affinity:
                        break
                    if lanes[place] is warm:
                        ranked.insert(0, ranked.pop(number))
                        return
        cheapest, lowest = 0, lanes[ranked[0][1]].cost_nanos
        if lowest is None:
            return
        for number, (score, place) in enumerate(ranked):
            if score > best + AS_GOOD:
                break
            cost = lanes[place].cost_nanos
            if cost is not None and cost < lowest:
                cheapest, lowest = number, cost
        if cheapest:
            ranked.insert(0, ranked.pop(cheapest))

    def _share(self, lane: Lane, now_s: float) -> float:
        """Which part of its capacity a lane in trouble gets: 0 while it waits for a probe, less while it is
        to be left alone."""
        if lane.backend.is_down:
            return -1.0
        breaker = lane.breaker
        state = breaker.look(now_s)
        if state is BreakerState.CLOSED:
            lane.is_clear = breaker.is_clear(now_s)
            return breaker.share(now_s)
        return 0.0 if state is BreakerState.HALF_OPEN else -1.0

    def _last_resort(
        self, routes: Sequence[Route], lanes: Sequence[Lane], troubled: list[int], request: RoutedRequest
    ) -> list[Route]:
        """Where nothing is well: whatever answers, even with errors, is better than nothing; whoever is
        silent is not."""
        if troubled or not routes:
            return [
                routes[place]
                for place in troubled
                if not lanes[place].backend.is_down and not lanes[place].breaker.is_silent
            ]
        able = [route for route in routes if not _lacking(route, request)]
        if not able:
            raise _cannot(frozenset.intersection(*(_lacking(route, request) for route in routes)))
        # All too small for what this request may need at worst. The largest will say whether it is.
        largest = max(route.context_tokens or 0 for route in able)
        return [route for route in able if route.context_tokens == largest]

    # What becomes of it.

    def expect(self, route: Route) -> Lane:
        """A call was given to it and is being admitted: those that are ordered meanwhile see it. Whoever says
        so says `admitted` with the answer, whatever came of it."""
        lane = self.lanes.get(route.deployment_id) or self._lane(route, ModelStats())
        lane.coming += 1
        lane.is_stale = lane.backend.is_stale = True
        return lane

    def admitted(self, lane: Lane) -> None:
        """It is sent now, or never will be."""
        lane.coming -= 1
        lane.is_stale = lane.backend.is_stale = True

    def entered(self, route: Route, request: RoutedRequest) -> None:
        """An attempt is about to be sent."""
        lane = self.lanes.get(route.deployment_id) or self._lane(route, ModelStats())
        lane.in_flight += 1
        lane.is_stale = lane.backend.is_stale = True
        lane.note_prompt(request.estimated_prompt_tokens)
        if not lane.is_clear:
            lane.breaker.probing(self._clock())
        key = request.prefix_key
        if key and self._affinity is not None:
            # Reinserted, so that the oldest is the one that was not used for longest.
            self._prefixes.pop(key, None)
            self._prefixes[key] = lane
            if len(self._prefixes) > MAX_PREFIXES:
                del self._prefixes[next(iter(self._prefixes))]

    def left(
        self,
        route: Route,
        outcome: AttemptOutcome,
        ttft_s: float | None,
        duration_s: float,
        completion_tokens: int | None,
    ) -> None:
        """An attempt is over. ttft_s: None when nothing came; completion_tokens: as the backend counted them,
        None when it did not say."""
        lane = self.lanes.get(route.deployment_id)
        if lane is None or not lane.in_flight:
            return
        now_s = self._clock()
        if outcome is AttemptOutcome.COMPLETED and ttft_s is not None and duration_s > 0:
            if completion_tokens:
                lane.learn(now_s, ttft_s, duration_s, completion_tokens)
                lane.model.note_output(completion_tokens)
            elif completion_tokens is None:
                lane.without_usage += 1
        lane.in_flight -= 1
        lane.is_stale = lane.backend.is_stale = True
        if outcome in _ANSWERS:
            lane.backend.succeeded_at_s = now_s
            lane.breaker.succeeded(now_s)
            if not lane.is_clear:
                lane.is_clear = not lane.backend.is_down and lane.breaker.is_clear(now_s)
        elif outcome in _FAILURES:
            is_silent = outcome in _SILENT and ttft_s is None
            if lane.breaker.failed(now_s, outcome.value, is_silent=is_silent):
                lane.is_clear = False
            if outcome is AttemptOutcome.UNREACHABLE:
                self.on_silence(lane.backend.backend_id)

    # What others say.

    def backend_is_down(self, backend_id: UUID, reason: str) -> None:
        """It does not answer its health checks: nothing is sent there until it does."""
        backend = self.backends[backend_id]
        if not backend.is_down:
            backend.since_s = self._clock()
        backend.is_down, backend.reason = True, reason
        for lane in backend.lanes:
            lane.is_clear = False

    def backend_is_up(self, backend_id: UUID) -> None:
        """It answers. What was down begins slowly, what was left alone because it was silent gets a probe."""
        backend = self.backends[backend_id]
        now_s = self._clock()
        was_down = backend.is_down
        backend.is_down, backend.reason = False, ""
        if was_down:
            backend.since_s = now_s
        for lane in backend.lanes:
            if lane.breaker.state is BreakerState.OPEN and lane.breaker.is_silent:
                lane.breaker.try_again(now_s)
            elif was_down and lane.breaker.state is BreakerState.CLOSED:
                lane.breaker.begin_slowly(now_s)

    def set_elsewhere(self, calls: dict[UUID, int]) -> None:
        """How many calls the other gateways have at each deployment; none where it does not say."""
        for deployment_id, lane in self.lanes.items():
            lane.elsewhere = calls.get(deployment_id, 0)
            lane.changed()

    def keep(self, routes: Iterable[Route]) -> None:
        """These are all routes now: know each, and forget what has gone and has no calls."""
        known: set[UUID] = set()
        for route in routes:
            known.add(route.deployment_id)
            lane = self.lanes.get(route.deployment_id)
            if lane is None:
                self._lane(route, ModelStats())
            elif lane.route is not route:
                self._renew(lane, route)
        for deployment_id, lane in list(self.lanes.items()):
            if deployment_id not in known and not lane.in_flight:
                del self.lanes[deployment_id]
                lane.backend.lanes.remove(lane)
                lane.changed()
                if not lane.backend.lanes:
                    del self.backends[lane.backend.backend_id]
        self._groups.clear()
        self._prefixes = {key: lane for key, lane in self._prefixes.items() if lane.backend.lanes}

    def fade(self, elapsed_s: float) -> None:
        """Called every `elapsed_s` seconds: what was learned of idle deployments fades."""
        now_s = self._clock()
        for lane in self.lanes.values():
            lane.forget(now_s, elapsed_s)
            lane.changed()

    def _group(self, routes: Sequence[Route]) -> list[Lane]:
        """The lanes of a model's routes, which share what is known of the model's calls."""
        if len(self._groups) >= MAX_GROUPS:
            self._groups.clear()
        known = [self.lanes[route.deployment_id] for route in routes if route.deployment_id in self.lanes]
        model = next((lane.model for lane in known if lane.model.mean_output), ModelStats())
        lanes: list[Lane] = []
        for route in routes:
            lane = self.lanes.get(route.deployment_id) or self._lane(route, model)
            if lane.route is not route:
                self._renew(lane, route)
            lane.model = model
            lanes.append(lane)
        self._groups[id(routes)] = (routes, lanes)
        return lanes

    def _lane(self, route: Route, model: ModelStats) -> Lane:
        backend = self._backend(route)
        lane = self.lanes[route.deployment_id] = Lane(route, backend, model)
        lane.is_clear = not backend.is_down
        return lane

    def _renew(self, lane: Lane, route: Route) -> None:
        lane.set_route(route)
        lane.backend.code = route.backend_code
        lane.changed()

    def _backend(self, route: Route) -> BackendLoad:
        backend = self.backends.get(route.backend_id)
        if backend is None:
            backend = self.backends[route.backend_id] = BackendLoad(route.backend_id, route.backend_code)
        return backend


def _score(lane: Lane, share: float, prompt: float, output: float) -> float:
    """The logarithm of a call's expected time, and what load adds to it; less is better."""
    backend = lane.backend
    if backend.is_stale:
        backend.weigh()
    if lane.is_stale:
        lane.weigh()
    # Lane.expected_s, without the call.
    ttft_s = lane.next_ttft_s + prompt * lane.prefill_s
    if ttft_s < lane.least_ttft_s:
        ttft_s = lane.least_ttft_s
    load = (backend.load + 0.5 / lane.capacity) / share
    score = log(ttft_s + output * lane.next_inter_token_s) + EVENNESS * load
    if load > FREE_LOAD:
        score += STEEPNESS * ((load if load < 1.0 else 1.0) - FREE_LOAD)
    return score


def _fits(route: Route, request: RoutedRequest) -> bool:
    """Whether the deployment can do what the request may need at worst."""
    worst_tokens = request.prompt_bound_tokens + request.output_cap_tokens
    if route.context_tokens is not None and worst_tokens > route.context_tokens:
        return False
    return not _lacking(route, request)


def _lacking(route: Route, request: RoutedRequest) -> frozenset[str]:
    return frozenset() if route.capabilities is None else request.needs - route.capabilities


def _cannot(lacking: frozenset[str]) -> CallError:
    what = f": {', '.join(sorted(lacking))}." if lacking else "."
    return bad_request(
        f"No deployment of this model offers what the request needs{what}", code="capability_not_offered"
    )
