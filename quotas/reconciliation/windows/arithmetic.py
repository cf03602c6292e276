"""What sticks out of what can be explained, sample by sample.

Between two samples a counter rises by what ended in between, within the bounds of its causes, and by how much
more it is ahead of the ended attempts than before. How far it can be ahead or behind is known at every sample
from the attempts under way. From sample to sample that interval is moved along and cut with what can be then:
it gets narrow wherever the backend rests, and what no value in it explains is suspense. It is taken at the
least, so ordinary calls never come into it, and what is missing shows at the next restful sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Edge:
    """At one sample, in tokens of one kind: how many the counter may have taken of attempts that go on, and
    how many of attempts that ended before may still be to come."""

    ahead: int = 0
    behind: int = 0


@dataclass(frozen=True, slots=True)
class Carried:
    """How far the counter is ahead of the ended attempts (below 0: behind), at the least and at the most."""

    low: int = 0
    high: int = 0

    @property
    def middle(self) -> int:
        return (self.low + self.high) // 2


@dataclass(frozen=True, slots=True)
class Step:
    """From one sample to the next, in tokens of one kind.

    counted: by the backend. accounted: of the attempts that ended in between; more and less: how many more or
    fewer of those the counter may ever take. edge: at the later sample.
    """

    counted: int
    accounted: int
    more: int
    less: int
    edge: Edge


def at_edge(carried: Carried, edge: Edge) -> tuple[Carried, int]:
    """What of the interval is possible at a sample, and by how many tokens all of it lies outside."""
    if carried.low > edge.ahead:
        return Carried(edge.ahead, edge.ahead), carried.low - edge.ahead
    if carried.high < -edge.behind:
        return Carried(-edge.behind, -edge.behind), carried.high + edge.behind
    return Carried(max(carried.low, -edge.behind), min(carried.high, edge.ahead)), 0


def at_first(edge: Edge) -> Carried:
    """Where nothing was known before."""
    return Carried(-edge.behind, edge.ahead)


def follow(carried: Carried, steps: Sequence[Step]) -> tuple[Carried, int]:
    """The interval at the last sample, and the suspense on the way: above 0 when somebody else used the
    backend, below when it counted less than it had said."""
    suspense = 0
    for step in steps:
        rise = step.counted - step.accounted
        moved = Carried(carried.low + rise - step.more, carried.high + rise + step.less)
        carried, outside = at_edge(moved, step.edge)
        suspense += outside
    return carried, suspense


def share_out(tokens: int, rooms: Sequence[tuple[int, int]]) -> list[int]:
    """Tokens given to causes in their order, to each within its room (at the least, at the most)."""
    given = []
    for low, high in rooms:
        part = min(max(tokens, low), high)
        given.append(part)
        tokens -= part
    return given
