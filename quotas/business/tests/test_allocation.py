"""Splitting costs: whole nano-units, none lost, each part next to its exact share, the same every time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotas.business.allocation import (
    PPM,
    CostPiece,
    Reservation,
    capacity_of,
    share_deployment,
    share_pool,
    split,
)
from quotas.business.tests.by_hand import largest_remainder

HOUR = datetime(2026, 3, 1, 10, tzinfo=UTC)
AMOUNTS = st.integers(0, 10**18)
WEIGHTS = st.lists(st.one_of(st.just(0), st.integers(0, 20), st.integers(0, 10**15)), min_size=1, max_size=12)
SECONDS = st.integers(0, 3600)


def at(second: int) -> datetime:
    return HOUR + timedelta(seconds=second)


@given(AMOUNTS, WEIGHTS)
def test_parts_sum_to_the_amount_and_are_next_to_their_exact_share(amount: int, weights: list[int]) -> None:
    if not any(weights):
        with pytest.raises(ValueError, match="one is above zero"):
            split(amount, weights)
        return
    parts = split(amount, weights)
    assert sum(parts) == amount
    assert parts == largest_remainder(amount, weights)
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part - Fraction(amount * weight, sum(weights))) < 1
        assert part == 0 or weight > 0


@pytest.mark.parametrize(("amount", "weights"), [(-1, [1]), (1, []), (1, [0, 0]), (1, [2, -1])])
def test_what_cannot_be_split_is_refused(amount: int, weights: list[int]) -> None:
    with pytest.raises(ValueError, match="one is above zero"):
        split(amount, weights)


def test_on_a_tie_the_first_gets_the_unit() -> None:
    assert split(2, [1, 1, 1]) == [1, 1, 0]
    assert split(1, [5, 5]) == [1, 0]


@given(AMOUNTS, st.integers(0, 10**15), WEIGHTS)
def test_sold_and_idle_are_the_cost_of_a_deployment(cost: int, capacity: int, weighted: list[int]) -> None:
    parts, idle = share_deployment(cost, capacity, weighted)
    assert sum(parts) + idle == cost
    if sum(weighted) >= capacity and any(weighted):
        assert idle == 0
    if capacity and sum(weighted) <= capacity:
        for part, weight in zip(parts, weighted, strict=True):
            assert abs(part - Fraction(cost * weight, capacity)) < 1
        assert abs(idle - Fraction(cost * (capacity - sum(weighted)), capacity)) < 1


def test_without_users_or_capacity_all_of_it_is_idle() -> None:
    assert share_deployment(7, 100, []) == ([], 7)
    assert share_deployment(0, 0, [0, 0]) == ([0, 0], 0)
    assert share_deployment(9, 0, [1, 2]) == ([3, 6], 0)


@st.composite
def pools(draw: st.DrawFn) -> tuple[list[CostPiece], list[Reservation]]:
    """An hour in which a pool's cost and its deployments' shares change at any second."""
    cuts = sorted(draw(st.sets(SECONDS, min_size=2, max_size=4)))
    pieces = [CostPiece(at(start), at(end), draw(AMOUNTS)) for start, end in pairwise(cuts)]
    reservations, left = [], PPM
    for number in range(draw(st.integers(0, 4))):
        first, middle, last = sorted(draw(st.tuples(SECONDS, SECONDS, SECONDS)))
        share = draw(st.integers(0, left))
        left -= share
        for start, end in ((first, middle), (middle, last)):
            if start < end:
                reserved = draw(st.integers(0, share))
                reservations.append(
                    Reservation(
                        UUID(int=number + 1), at(start), at(end), reserved, draw(st.integers(1, 10**6))
                    )
                )
    return pieces, reservations


@given(pools())
def test_shares_and_what_is_reserved_for_nobody_are_the_cost_of_a_pool(
    drawn: tuple[list[CostPiece], list[Reservation]],
) -> None:
    pieces, reservations = drawn
    shares = share_pool(pieces, reservations)
    assert sum(shares.by_deployment.values()) + shares.unreserved_nanos == sum(p.cost_nanos for p in pieces)
    for deployment_id, part in shares.by_deployment.items():
        exact = Fraction(0)
        for piece in pieces:
            seconds = (piece.end - piece.start).seconds
            for one in reservations:
                overlap = (min(one.end, piece.end) - max(one.start, piece.start)).total_seconds()
                if one.deployment_id == deployment_id and overlap > 0:
                    exact += Fraction(piece.cost_nanos * one.reserved_ppm * int(overlap), PPM * seconds)
        assert abs(part - exact) < len(pieces)
    assert shares == share_pool(pieces, reservations[::-1])


def test_a_pool_that_is_reserved_twice_has_nothing_left_and_loses_nothing() -> None:
    pieces = [CostPiece(at(0), at(3600), 10)]
    both = [Reservation(UUID(int=n), at(0), at(3600), PPM, 1) for n in (1, 2)]
    assert share_pool(pieces, both).by_deployment == {UUID(int=1): 5, UUID(int=2): 5}
    assert share_pool(pieces, both).unreserved_nanos == 0


def test_capacity_is_counted_by_the_seconds_it_was_certified_for() -> None:
    halves = [
        Reservation(UUID(int=1), at(0), at(1800), 0, 100),
        Reservation(UUID(int=1), at(1800), at(3600), 0, 300),
    ]
    assert capacity_of(halves) == 1800 * 100_000 + 1800 * 300_000
