"""What samples of a measurement say, and what a curve expects."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models_catalog.fleet.commission.calls import Sample
from models_catalog.fleet.commission.sums import (
    Level,
    Limits,
    certified,
    is_rising,
    level_of,
    quantile,
    slope_ns,
    weight_of,
    weighted_tokens_per_s,
)
from models_catalog.fleet.curve import Curve, CurvePoint, points_of
from models_catalog.models.costs import MAX_WEIGHT_THOUSANDTHS

LIMITS = Limits(ttft_p95_ms=1000, call_tokens_per_s=10)


def sample(
    ttft_s: float = 0.1, tokens: int = 11, *, per_token_s: float = 0.02, prompt: int = 100, cached: int = 0
) -> Sample:
    return Sample(0.0, ttft_s, ttft_s + (tokens - 1) * per_token_s, prompt, cached, tokens)


FAILED = Sample(0.0, 0.0, 0.1, 0, 0, 0, "HTTP 500")


def level(
    calls: int, tokens_per_s: float, *, ttft_ms: int = 100, between_us: int = 10_000, failures: int = 0
) -> Level:
    return Level(CurvePoint(calls, ttft_ms, ttft_ms, between_us, tokens_per_s), 100.0, failures)


def test_a_level_is_what_so_many_workers_get_done() -> None:
    workers = [[sample(9.0), sample(), sample(0.3)] for _ in range(4)]
    found = level_of(workers)
    assert found is not None
    # 0.3 s and 0.5 s: 0.4 s a call on average, so four workers do ten calls of eleven tokens a second.
    assert found.point == CurvePoint(4, 100, 300, 20_000, 110.0)
    assert found.input_tokens_per_s == pytest.approx(1000)
    assert found.failures == 0


def test_the_first_calls_count_where_there_are_no_others() -> None:
    found = level_of([[sample()], [FAILED]])
    assert found is not None
    assert (found.point.concurrency, found.failures) == (2, 1)
    assert level_of([[FAILED], [FAILED]]) is None


def test_cached_input_is_no_input() -> None:
    found = level_of([[sample(prompt=100, cached=60)] * 2])
    assert found is not None
    assert found.input_tokens_per_s == pytest.approx(40 / 0.3)


def test_certified_is_the_smallest_load_beyond_which_nothing_is_gained() -> None:
    levels = [level(1, 10), level(2, 19), level(4, 30), level(8, 31), level(16, 31, ttft_ms=2000)]
    assert certified(levels, LIMITS) is levels[2]


@pytest.mark.parametrize(
    "broken", [level(2, 19, ttft_ms=1001), level(2, 19, between_us=100_001), level(2, 19, failures=1)]
)
def test_certified_is_what_keeps_every_limit(broken: Level) -> None:
    assert certified([level(1, 10), broken, level(4, 40)], LIMITS) == level(1, 10)
    assert certified([broken], LIMITS) is None


def test_rising_is_a_gain_worth_its_name() -> None:
    assert is_rising([level(1, 10)])
    assert is_rising([level(1, 10), level(2, 10.6)])
    assert not is_rising([level(1, 10), level(2, 10.4)])
    assert not is_rising([level(1, 10), level(2, 20), level(4, 20.5)])


def test_what_input_costs() -> None:
    short = [sample(0.1, 1, prompt=20)] * 3
    long = [sample(0.3, 1, prompt=1020), sample(0.3, 1, prompt=1020), FAILED]
    assert slope_ns(short, long) == 200_000
    assert slope_ns(long, long) is None
    assert slope_ns(short, [FAILED]) is None
    # An input token that takes as long as an output token at full load weighs as much.
    assert weight_of(1_000_000, 1000.0) == 1000
    assert weight_of(10**12, 10**6) == MAX_WEIGHT_THOUSANDTHS
    assert weighted_tokens_per_s(level(4, 50), 250) == 75


@given(values=st.lists(st.floats(0, 100), min_size=1), share=st.floats(0.01, 1))
def test_a_quantile_is_one_of_the_values(values: list[float], share: float) -> None:
    ordered = sorted(values)
    found = quantile(ordered, share)
    assert found in ordered
    assert sum(value <= found for value in ordered) >= share * len(ordered) - 1e-9


POINTS = st.lists(
    st.tuples(st.integers(1, 500), st.integers(1, 5000), st.integers(1, 100_000)),
    min_size=1,
    max_size=12,
    unique_by=lambda point: point[0],
)


def curve(points: list[tuple[int, int, int]]) -> Curve:
    ordered = sorted(points)
    return Curve(
        points_of(
            [point[0] for point in ordered],
            [point[1] for point in ordered],
            [point[1] for point in ordered],
            [point[2] for point in ordered],
            [float(point[0]) for point in ordered],
        ),
        *(256, 128, 0, 1, 1, 250, None),
        datetime(2026, 1, 1, tzinfo=UTC),
    )


@given(points=POINTS, calls=st.integers(1, 2000))
def test_times_lie_between_their_neighbours(points: list[tuple[int, int, int]], calls: int) -> None:
    found = curve(points)
    ttft_s, between_s = found.times_at(calls)
    if calls > found.points[-1].concurrency:
        stretch = calls / found.points[-1].concurrency
        assert ttft_s == pytest.approx(found.points[-1].ttft_p50_ms / 1e3 * stretch)
        return
    around = [
        (before, after)
        for before, after in pairwise(found.points)
        if before.concurrency <= calls <= after.concurrency
    ] or [(found.points[0], found.points[0])]
    for before, after in around[:1]:
        low, high = sorted((before.ttft_p50_ms / 1e3, after.ttft_p50_ms / 1e3))
        assert low - 1e-9 <= ttft_s <= high + 1e-9
        low, high = sorted((before.inter_token_us / 1e6, after.inter_token_us / 1e6))
        assert low - 1e-9 <= between_s <= high + 1e-9


def test_points_are_met_exactly() -> None:
    found = curve([(1, 100, 10_000), (4, 400, 40_000)])
    assert found.times_at(1) == (0.1, 0.01)
    assert found.times_at(2) == pytest.approx((0.2, 0.02))
    assert found.times_at(4) == (0.4, 0.04)
    assert found.times_at(8) == pytest.approx((0.8, 0.08))
