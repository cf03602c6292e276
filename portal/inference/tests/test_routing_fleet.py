"""Unlike pools under load, in simulated time: the choice of thousands of calls, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from models_catalog.fleet.curve import Curve
from portal.inference.tests.simulated_fleet import Pool, Simulation

SPEEDS = (10, 4, 1)
CALLS = 6_000


def pools(slots: Sequence[int] = (16, 16, 16), speeds: Sequence[int] = SPEEDS) -> list[Pool]:
    """The first serves each call at 100 tokens/s and reads prompts at 5,000."""
    return [Pool(count, 10.0 * speed, 500.0 * speed) for count, speed in zip(slots, speeds, strict=True)]


def assert_in_proportion(shares: Sequence[float], tolerance: float = 0.15) -> None:
    assert all(abs(share - 1) <= tolerance for share in shares), shares


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_traffic_follows_capacity_and_the_first_token_comes_sooner(seed: int) -> None:
    together = Simulation(pools(), load=0.8, calls=CALLS, seed=seed).run()
    alone = Simulation(pools()[:1], load=0.8, calls=CALLS, seed=seed).run()
    assert_in_proportion(together.shares)
    assert together.ttft_p95_s <= alone.ttft_p95_s


@pytest.mark.parametrize(
    ("slots", "speeds"),
    [((40, 16, 4), (5, 5, 5)), ((8, 8, 8), SPEEDS), ((64, 32, 16), SPEEDS), ((4, 16, 64), SPEEDS)],
    ids=["by slots", "few slots", "many slots", "slow but many"],
)
def test_whatever_makes_the_pools_unlike(slots: Sequence[int], speeds: Sequence[int]) -> None:
    assert_in_proportion(Simulation(pools(slots, speeds), load=0.8, calls=CALLS).run().shares)


def test_without_any_measurement() -> None:
    """Nothing is known but how many calls each serves well at a time; the rest is learned on the way."""
    nothing: list[Curve | None] = [None, None, None]
    together = Simulation(pools(), load=0.8, calls=CALLS, curves=nothing).run()
    alone = Simulation(pools()[:1], load=0.8, calls=CALLS).run()
    assert_in_proportion(together.shares)
    assert together.ttft_p95_s <= alone.ttft_p95_s


@pytest.mark.parametrize("wrong", [(1, 1, 0.2), (5, 1, 1), (0.3, 3, 1)])
def test_with_curves_that_are_no_longer_true(wrong: Sequence[float]) -> None:
    fleet = pools()
    curves = [pool.curve(wrong=factor) for pool, factor in zip(fleet, wrong, strict=True)]
    assert_in_proportion(Simulation(fleet, load=0.8, calls=CALLS, curves=curves).run().shares)


def test_gateways_that_hear_of_each_other_late() -> None:
    """Four of them, which tell each other what they have five times a second."""
    together = Simulation(pools(), load=0.8, calls=CALLS, gateways=4).run()
    alone = Simulation(pools()[:1], load=0.8, calls=CALLS).run()
    assert_in_proportion(together.shares)
    assert together.ttft_p95_s <= alone.ttft_p95_s


def test_an_idle_fleet_serves_from_its_fastest_pool() -> None:
    shares = Simulation(pools(), load=0.2, calls=CALLS).run().shares
    assert shares[0] > 1.4
    assert shares[2] < 0.05


def test_the_more_load_the_more_the_slow_ones_help() -> None:
    slow = [Simulation(pools(), load=load, calls=CALLS).run().shares[2] for load in (0.3, 0.5, 0.7)]
    assert slow[0] < slow[1] < slow[2]
