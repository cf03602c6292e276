"""The totals of one window, from its samples and what was metered between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from quotas.reconciliation.windows.arithmetic import (
    Carried,
    Edge,
    Step,
    at_edge,
    at_first,
    follow,
    share_out,
)
from quotas.reconciliation.windows.cutting import Sample, prompt_counted
from quotas.reconciliation.windows.metered import Amounts, Metered, What

PROMPT: Final = 0
COMPLETION: Final = 1
# Foreign records are nobody's attempts, and cached tokens a correction of ours.
_NO_ATTEMPTS: Final = (What.FOREIGN_RECORD, What.CACHED_UNKNOWN, What.IN_FLIGHT)


@dataclass(frozen=True, slots=True)
class Side:
    """One kind of tokens in a window. counter = matched + explained + suspense."""

    counter: int
    matched: int
    suspense: int
    carried: Carried
    explained_by: dict[What, int] = field(default_factory=dict)

    @property
    def explained(self) -> int:
        return self.counter - self.matched - self.suspense


@dataclass(frozen=True, slots=True)
class Totals:
    """Both kinds of tokens in a window, and the attempts that ended in it."""

    attempts: int
    matched_attempts: int
    prompt: Side
    completion: Side
    causes: list[dict[str, Any]]


def window_totals(
    *,
    samples: Sequence[Sample],
    first_place: int,
    found: Metered,
    carried: tuple[Carried, Carried] | None,
) -> Totals:
    """samples: of the window, both ends included. first_place: of the first of them among all of the backend.
    carried: what the window before left (prompt, completion); None when there is none of the same life."""
    sums: dict[What, Amounts] = {}
    for place in range(first_place + 1, first_place + len(samples)):
        for what, amounts in found.ended[place].items():
            sums.setdefault(what, Amounts()).add(amounts)
    sides = [
        _side(kind, samples, first_place, found, sums, carried[kind] if carried else None)
        for kind in (PROMPT, COMPLETION)
    ]
    under_way = found.edges.get(first_place + len(samples) - 1, Amounts()).attempts
    causes = []
    for what in What:
        attempts = under_way if what == What.IN_FLIGHT else sums.get(what, Amounts()).attempts
        prompt, completion = (side.explained_by.get(what, 0) for side in sides)
        if what not in (What.MATCHED, What.NOTHING) and (attempts or prompt or completion):
            causes.append(
                {"kind": what.value, "attempts": attempts, "prompt": prompt, "completion": completion}
            )
    return Totals(
        attempts=sum(one.attempts for what, one in sums.items() if what not in _NO_ATTEMPTS),
        matched_attempts=sums.get(What.MATCHED, Amounts()).attempts,
        prompt=sides[PROMPT],
        completion=sides[COMPLETION],
        causes=causes,
    )


def _side(
    kind: int,
    samples: Sequence[Sample],
    first_place: int,
    found: Metered,
    sums: dict[What, Amounts],
    carried: Carried | None,
) -> Side:
    steps = [
        _step(kind, samples[number - 1], samples[number], found, first_place + number)
        for number in range(1, len(samples))
    ]
    first = _edge(kind, found, first_place)
    # Meanwhile it may be known better what was under way where the window before ended.
    begin, outside = (at_first(first), 0) if carried is None else at_edge(carried, first)
    end, suspense = follow(begin, steps)
    suspense += outside
    counter = sum(step.counted for step in steps)
    matched = sums[What.MATCHED].tokens[kind] if What.MATCHED in sums else 0
    by_what = _explained(kind, sums, counter - matched - suspense, end.middle - begin.middle)
    return Side(counter, matched, suspense, end, by_what)


def _explained(kind: int, sums: dict[What, Amounts], explained: int, moved: int) -> dict[What, int]:
    """Each cause's part of what is explained: its tokens as they are known, and of the rest what its bounds
    allow. moved: how much further ahead the counter is than at the beginning, as far as is known."""
    causes = [what for what in sums if what not in (What.MATCHED, What.NOTHING)]
    by_what: dict[What, int] = {what: sums[what].tokens[kind] for what in causes}
    rest = explained - sum(by_what.values())
    rooms = [(-sums[what].less[kind], sums[what].more[kind]) for what in causes]
    for what, part in zip(causes, share_out(rest - moved, rooms), strict=True):
        by_what[what] += part
        rest -= part
    by_what[What.IN_FLIGHT] = rest
    return by_what


def _step(kind: int, before: Sample, after: Sample, found: Metered, place: int) -> Step:
    ended = found.ended[place].values()
    counted = (
        prompt_counted(before, after)
        if kind == PROMPT
        else after.completion_tokens - before.completion_tokens
    )
    return Step(
        counted=counted,
        accounted=sum(one.tokens[kind] for one in ended),
        more=sum(one.more[kind] for one in ended),
        less=sum(one.less[kind] for one in ended),
        edge=_edge(kind, found, place),
    )


def _edge(kind: int, found: Metered, place: int) -> Edge:
    amounts = found.edges.get(place)
    return Edge(amounts.more[kind], amounts.less[kind]) if amounts else Edge()
