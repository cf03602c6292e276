"""How the cost of a pool-hour is given to requests: whole nano-units, and not one of them lost.

1. A pool's cost goes to its deployments by reserved share, for each cost version and by the seconds that a
   share was reserved in it. What is reserved for nobody stays with the pool.
2. A deployment's cost goes to those who used it by weighted tokens out of its certified capacity. What
   nobody bought is its idle cost. Beyond the certified capacity all of the cost is theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

PPM = 1_000_000


@dataclass(frozen=True, slots=True)
class CostPiece:
    """What a pool cost from `start` until `end` by one cost version, in nano-units of its currency."""

    start: datetime
    end: datetime
    cost_nanos: int


@dataclass(frozen=True, slots=True)
class Reservation:
    """The share of its pool (millionths) and the capacity that a deployment has for a time.

    capacity_tokens_per_s: certified, in weighted tokens.
    """

    deployment_id: UUID
    start: datetime
    end: datetime
    reserved_ppm: int
    capacity_tokens_per_s: int


@dataclass(frozen=True, slots=True)
class PoolShares:
    """What each deployment has of a pool's cost, and what is reserved for nobody; together the cost."""

    by_deployment: Mapping[UUID, int]
    unreserved_nanos: int


def split(amount: int, weights: Sequence[int]) -> list[int]:
    """The amount in whole parts proportional to the weights, by largest remainder.

    Each part is rounded down, and the units that are missing then go one each to the largest remainders,
    on a tie to the one that stands first. The parts sum to the amount, and each is less than one from its
    exact share. Errors: ValueError for a negative amount or weight, and when no weight is above zero.
    """
    whole = sum(weights)
    if amount < 0 or whole <= 0 or min(weights) < 0:
        raise ValueError("an amount is split by weights of which one is above zero")
    parts, remainders = map(list, zip(*(divmod(amount * weight, whole) for weight in weights), strict=True))
    missing = amount - sum(parts)
    for place in sorted(range(len(parts)), key=lambda place: -remainders[place])[:missing]:
        parts[place] += 1
    return parts


def share_pool(pieces: Sequence[CostPiece], reservations: Sequence[Reservation]) -> PoolShares:
    """The pool's cost by reserved share; deployments that had none of it cost nothing.

    On a tie the lower id of a deployment comes first, and nobody last.
    """
    shares = dict.fromkeys(sorted({one.deployment_id for one in reservations}), 0)
    unreserved_nanos = 0
    for piece in pieces:
        weights = dict.fromkeys(shares, 0)
        for one in reservations:
            weights[one.deployment_id] += one.reserved_ppm * _overlap_s(one, piece.start, piece.end)
        # Shares are within the whole by constraint, but a backend may have moved from pool to pool meanwhile.
        free = max(0, PPM * _seconds(piece.start, piece.end) - sum(weights.values()))
        *parts, rest = split(piece.cost_nanos, [*weights.values(), free])
        for deployment_id, part in zip(shares, parts, strict=True):
            shares[deployment_id] += part
        unreserved_nanos += rest
    return PoolShares(shares, unreserved_nanos)


def capacity_of(reservations: Sequence[Reservation]) -> int:
    """Certified weighted tokens, in thousandths as the weights are, of one deployment's reservations."""
    return sum(one.capacity_tokens_per_s * _seconds(one.start, one.end) * 1000 for one in reservations)


def share_deployment(cost_nanos: int, capacity: int, weighted: Sequence[int]) -> tuple[list[int], int]:
    """What each of those who used a deployment costs, and what is idle; together the cost.

    capacity and weighted: in thousandths of weighted tokens. On a tie whoever stands first comes first,
    and idle last. What was used without weight costs nothing.
    """
    idle = max(0, capacity - sum(weighted))
    if idle + sum(weighted) == 0:
        return [0] * len(weighted), cost_nanos
    *parts, rest = split(cost_nanos, [*weighted, idle])
    return parts, rest


def _overlap_s(one: Reservation, start: datetime, end: datetime) -> int:
    return max(0, _seconds(max(one.start, start), min(one.end, end)))


def _seconds(start: datetime, end: datetime) -> int:
    """Versions begin and end on whole seconds, and so do the hours and what has passed of them."""
    return int((end - start).total_seconds())
