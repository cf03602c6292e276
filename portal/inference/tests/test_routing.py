"""The choice among routes: by expected time, cost and cache, among those that are well and can do the job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.inference.breaker import FAILURES_IN_A_ROW, OPEN_S, SLOW_START_S
from portal.inference.errors import CallError
from portal.inference.lanes import FORGET_HALF_LIFE_S
from portal.inference.routing import Routing
from portal.inference.snapshot import Route
from portal.inference.tests.simulated_fleet import Request, make_curve, make_route
from quotas.models import AttemptOutcome

COMPLETED = AttemptOutcome.COMPLETED
FAST, SLOW = (
    make_curve((1, 50, 10_000, 100.0), (32, 60, 12_000, 2_600.0)),
    make_curve((1, 500, 100_000, 10.0)),
)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Table:
    """A router with its clock and a model's routes."""

    def __init__(self, *routes: Route, **options: Any) -> None:
        self.clock = Clock()
        self.routing = Routing(clock=self.clock, **options)
        self.routes = routes

    def order(self, request: Request | None = None) -> list[Route]:
        return self.routing.order(self.routes, request or Request())

    def first(self, request: Request | None = None) -> Route:
        return self.order(request)[0]

    def enter(self, route: Route, count: int = 1, request: Request | None = None) -> None:
        for _ in range(count):
            self.routing.entered(route, request or Request())

    def serve(
        self,
        route: Route,
        outcome: AttemptOutcome = COMPLETED,
        *,
        ttft_s: float | None = 0.05,
        duration_s: float = 2.0,
        tokens: int | None = 200,
        count: int = 1,
        request: Request | None = None,
    ) -> None:
        for _ in range(count):
            self.enter(route, request=request)
            self.routing.left(route, outcome, ttft_s, duration_s, tokens)

    def fail(self, route: Route, outcome: AttemptOutcome, count: int = FAILURES_IN_A_ROW) -> None:
        self.serve(route, outcome, ttft_s=None, duration_s=0.1, tokens=None, count=count)


def test_the_faster_one_first_and_the_other_behind_it() -> None:
    slow, fast = make_route(curve=SLOW), make_route(curve=FAST)
    assert Table(slow, fast).order() == [fast, slow]


def test_equals_keep_the_order_of_the_catalog_and_share_the_load() -> None:
    table = Table(*(make_route(max_concurrency=8) for _ in range(3)))
    chosen = []
    for _ in range(12):
        chosen.append(table.first())
        table.enter(chosen[-1])
    assert chosen[:3] == list(table.routes)
    assert [chosen.count(route) for route in table.routes] == [4, 4, 4]


def test_load_counts_before_anything_waits() -> None:
    slow, fast = make_route(curve=replace(SLOW, certified_concurrency=32)), make_route(curve=FAST)
    slow = replace(slow, curve=make_curve((1, 500, 100_000, 10.0), (32, 500, 100_000, 320.0)))
    table = Table(slow, fast)
    table.enter(fast, 16)
    assert table.first() is fast
    table.enter(fast, 10)
    assert table.first() is slow


def test_calls_that_are_being_admitted_count_too() -> None:
    """A burst is ordered before the first of its calls is sent."""
    table = Table(*(make_route(max_concurrency=8) for _ in range(3)))
    chosen, coming = [], []
    for _ in range(12):
        chosen.append(table.first())
        coming.append(table.routing.expect(chosen[-1]))
    assert [chosen.count(route) for route in table.routes] == [4, 4, 4]
    for lane in coming:
        table.routing.admitted(lane)
    assert table.first() is table.routes[0]


def test_a_curve_that_says_no_time_at_all_spoils_nothing() -> None:
    """Curves are in whole milliseconds, and a small engine's first token comes in less than half of one."""
    instant = make_curve((1, 0, 1, 1e6), prefill_ns=0)
    routes = make_route(curve=instant), make_route(curve=instant)
    table = Table(*routes)
    table.serve(routes[0], ttft_s=0.0002, duration_s=0.4)
    table.serve(routes[0], ttft_s=0.0, duration_s=0.0001, tokens=1)
    assert set(table.order(Request(output_cap_tokens=0))) == set(routes)


def test_calls_of_other_gateways_and_of_other_models_of_the_backend_count() -> None:
    here, there = make_route(max_concurrency=10), make_route(max_concurrency=10)
    neighbour = make_route(backend_id=here.backend_id, max_concurrency=10)
    table = Table(here, there)
    table.routing.keep([here, there, neighbour])
    table.routing.set_elsewhere({here.deployment_id: 9})
    assert table.first() is there
    table.routing.set_elsewhere({})
    assert table.first() is here
    table.enter(neighbour, 9)
    assert table.first() is there


def test_what_calls_really_take_corrects_what_is_expected() -> None:
    """Measured as equals, but one of them has become three times as slow."""
    one, other = make_route(curve=FAST), make_route(curve=FAST)
    table = Table(one, other)
    table.serve(other, count=40)
    table.serve(one, ttft_s=0.15, duration_s=6.0, count=40)
    assert table.first() is other
    assert 2 < table.routing.lanes[one.deployment_id].inter_token_factor < 4


def test_a_plain_answer_corrects_by_its_whole_time() -> None:
    one, other = make_route(curve=FAST), make_route(curve=FAST)
    table = Table(one, other)
    table.serve(one, ttft_s=6.0, duration_s=6.0, count=40)
    assert table.first() is other


def test_a_reader_that_is_slow_moves_it_little() -> None:
    one, other = make_route(curve=FAST), make_route(curve=make_curve((1, 100, 20_000, 50.0)))
    table = Table(one, other)
    table.serve(one, count=20)
    table.serve(one, ttft_s=0.05, duration_s=600.0, count=3)
    assert table.first() is one


def test_what_was_slow_once_is_tried_again() -> None:
    one, other = make_route(), make_route()
    table = Table(one, other)
    table.serve(other, ttft_s=0.2, duration_s=2.0, count=20)
    table.serve(one, ttft_s=0.9, duration_s=9.0, count=20)
    assert table.first() is other
    for _ in range(2000):
        table.clock.now_s += 5
        table.serve(other, ttft_s=0.2, duration_s=2.0)
        table.routing.fade(5)
    assert table.clock.now_s > FORGET_HALF_LIFE_S
    assert table.routing.lanes[one.deployment_id].ttft_factor < 1.1


def test_of_those_that_are_as_good_the_one_that_costs_less() -> None:
    dear, cheap = make_route(marginal_cost_nanos=200), make_route(marginal_cost_nanos=100)
    unknown = make_route()
    assert Table(dear, cheap, unknown).first() is cheap
    slower = replace(cheap, curve=make_curve((1, 900, 90_000, 10.0)))
    assert Table(dear, slower).first() is dear


@pytest.mark.parametrize(("factor", "stays"), [(1.5, True), (1.0, False), (0.0, False)])
def test_a_conversation_stays_where_its_beginning_is(factor: float, stays: bool) -> None:
    one, other = make_route(max_concurrency=100), make_route(max_concurrency=100)
    table = Table(one, other, affinity_factor=factor)
    mine = Request(prefix_key=7)
    table.enter(other, request=mine)
    assert table.first(mine) is (other if stays else one)
    assert table.first(Request(prefix_key=8)) is one
    # Not at any price.
    table.enter(other, 70)
    assert table.first(mine) is one


def test_only_who_can_do_the_job() -> None:
    small = make_route(context_tokens=2000)
    plain = make_route(capabilities=frozenset({"json_schema"}))
    able = make_route(capabilities=frozenset({"tools", "vision"}), curve=SLOW)
    table = Table(small, plain, able)
    assert table.order(Request(needs=frozenset({"tools"}), prompt_bound_tokens=1900)) == [able]
    assert set(table.order(Request(output_cap_tokens=100))) == {small, plain, able}


def test_nobody_can_do_the_job() -> None:
    table = Table(make_route(capabilities=frozenset({"tools"})), make_route(capabilities=frozenset()))
    with pytest.raises(CallError) as refusal:
        table.order(Request(needs=frozenset({"vision", "tools"})))
    assert (refusal.value.status, refusal.value.code) == (400, "capability_not_offered")
    assert "vision" in refusal.value.message


def test_a_request_that_may_be_too_large_goes_to_the_largest() -> None:
    small, large = make_route(context_tokens=1000), make_route(context_tokens=1500)
    assert Table(small, large).order(Request(prompt_bound_tokens=2000)) == [large]


def test_who_cannot_be_reached_is_left_out() -> None:
    silent, well = make_route(curve=FAST), make_route(curve=SLOW)
    asked: list[Any] = []
    table = Table(silent, well, on_silence=asked.append)
    table.fail(silent, AttemptOutcome.UNREACHABLE)
    assert table.order() == [well]
    assert set(asked) == {silent.backend_id}


def test_who_answers_with_errors_is_the_last_resort_and_who_is_silent_is_none() -> None:
    broken, silent = make_route(), make_route()
    table = Table(broken, silent)
    table.fail(broken, AttemptOutcome.BACKEND_FAILED)
    table.fail(silent, AttemptOutcome.BACKEND_TIMEOUT)
    assert table.order() == [broken]
    assert Table().order() == []


def test_one_call_tries_what_was_left_alone_and_then_it_begins_slowly() -> None:
    gone, well = make_route(curve=FAST), make_route(curve=SLOW)
    table = Table(gone, well)
    table.fail(gone, AttemptOutcome.UNREACHABLE)
    table.clock.now_s += OPEN_S
    assert [table.first(), table.first()] == [gone, well]
    table.serve(gone)
    assert table.order()[0] is gone
    # It has a tenth of its 32 places at first: with three calls it is as full as it may be.
    table.enter(gone, 4)
    assert table.first() is well
    table.clock.now_s += SLOW_START_S
    assert table.first() is gone


def test_clients_that_leave_say_nothing_about_a_backend() -> None:
    one, other = make_route(curve=FAST), make_route(curve=SLOW)
    table = Table(one, other)
    for outcome in (AttemptOutcome.CLIENT_GONE, AttemptOutcome.CUT, AttemptOutcome.STALE):
        table.fail(one, outcome, count=20)
    assert table.first() is one
    table.fail(one, AttemptOutcome.BACKEND_REFUSED, count=20)
    assert table.first() is one


def test_a_backend_that_is_down_gets_nothing_until_it_is_up() -> None:
    one, other = make_route(curve=FAST), make_route(curve=SLOW)
    table = Table(one, other)
    table.order()
    table.routing.backend_is_down(one.backend_id, "no answer in time")
    assert table.order() == [other]
    table.routing.backend_is_up(one.backend_id)
    assert table.first() is one
    table.enter(one, 4)
    assert table.first() is other


def test_answers_without_usage_are_counted() -> None:
    table = Table(make_route())
    table.serve(table.routes[0], tokens=None, count=3)
    assert table.routing.lanes[table.routes[0].deployment_id].without_usage == 3


def test_a_new_catalog_keeps_what_is_known() -> None:
    one, other = make_route(), make_route()
    table = Table(one, other)
    table.enter(table.first())
    renewed = replace(one, max_concurrency=10)
    table.routing.keep([renewed])
    assert set(table.routing.lanes) == {one.deployment_id}
    lane = table.routing.lanes[one.deployment_id]
    assert (lane.in_flight, lane.capacity) == (1, 10)
    table.routing.left(one, COMPLETED, 0.1, 1.0, 10)
    assert lane.in_flight == 0
    table.routing.keep([])
    assert not table.routing.lanes
    assert not table.routing.backends


def test_a_lane_that_is_gone_from_the_catalog_stays_until_its_calls_have_ended() -> None:
    table = Table(make_route())
    (route,) = table.routes
    table.enter(table.first())
    table.routing.keep([])
    assert route.deployment_id in table.routing.lanes
    table.routing.left(route, COMPLETED, 0.1, 1.0, 10)
    table.routing.keep([])
    assert not table.routing.lanes


OUTCOMES = st.sampled_from(list(AttemptOutcome))


@given(
    capacities=st.lists(st.integers(1, 2000), min_size=1, max_size=6),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["call", "end", "down", "up", "time", "elsewhere", "reload"]),
            st.integers(0, 5),
            OUTCOMES,
            st.floats(0.0, 30.0),
            st.one_of(st.none(), st.integers(0, 100_000)),
        ),
        max_size=120,
    ),
)
def test_whatever_happens_calls_are_counted_and_each_route_is_offered_once(
    capacities: Sequence[int], steps: Sequence[tuple[str, int, AttemptOutcome, float, int | None]]
) -> None:
    routes = tuple(make_route(max_concurrency=capacity) for capacity in capacities)
    table = Table(*routes)
    table.routing.keep(routes)
    running: list[Route] = []
    for step, number, outcome, time_s, tokens in steps:
        route = routes[number % len(routes)]
        match step:
            case "call":
                offered = table.order(Request(prefix_key=number))
                assert len(offered) == len(set(offered)) <= len(routes)
                if offered:
                    table.enter(offered[0], request=Request(prefix_key=number))
                    running.append(offered[0])
            case "end" if running:
                ended = running.pop(number % len(running))
                table.routing.left(ended, outcome, time_s / 2 or None, time_s, tokens)
            case "down":
                table.routing.backend_is_down(route.backend_id, "x")
            case "up":
                table.routing.backend_is_up(route.backend_id)
            case "elsewhere":
                table.routing.set_elsewhere({route.deployment_id: number})
            case "reload":
                table.routing.keep(routes)
                table.routing.fade(5)
        table.clock.now_s += time_s
        lanes = table.routing.lanes
        assert sum(lane.in_flight for lane in lanes.values()) == len(running)
        for lane in lanes.values():
            assert lane.expected_s(100, 100) > 0
            assert lane.backend.load >= 0
    for route in routes:
        table.routing.backend_is_up(route.backend_id)
    table.clock.now_s += 120
    assert table.order()
