"""What quotas and budgets should come to, in plain Python: every question is answered from the calls.

Written from the rules, not from the SQL: no counters, no batches.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from quotas.models import LimitKind
from quotas.tests.money_model import Call, Purse, hold_of

MONEY = (LimitKind.MONEY_DAY, LimitKind.MONEY_MONTH)
DAILY = (LimitKind.TOKENS_DAY, LimitKind.MONEY_DAY)


class Place(NamedTuple):
    """What a limit is for: a model and a key by their numbers, None for all of them."""

    model: int | None
    key: int | None
    kind: LimitKind

    def covers(self, model: int, key: int) -> bool:
        return self.model in (None, model) and self.key in (None, key)


class Size(NamedTuple):
    """What a call asks for, in tokens."""

    prompt: int
    cap: int
    choices: int

    @property
    def tokens(self) -> int:
        return self.prompt + self.choices * self.cap

    @property
    def hold(self) -> int:
        return hold_of(self.prompt, self.cap, self.choices)


class Hit(NamedTuple):
    place: Place
    value: int
    used: int
    pending: int
    needed: int
    resets_at: datetime

    @property
    def reason(self) -> str:
        return "BUDGET_EXCEEDED" if self.place.kind in MONEY else "QUOTA_EXCEEDED"


class Refusal(NamedTuple):
    """hits: the limits that may be named, which are those that reset last; none when only money is missing.
    fits: the largest cap that would pass."""

    hits: list[Hit]
    fits: int


@dataclass(slots=True)
class Counted:
    """An admitted call, where and when."""

    model: int
    key: int
    at: datetime
    size: Size
    call: Call

    def pending(self, kind: LimitKind) -> int:
        if self.call.state != "PENDING":
            return 0
        return self.size.hold if kind in MONEY else self.size.tokens

    def used(self, kind: LimitKind) -> int:
        newest = self.call.newest
        if kind in MONEY:
            return newest.charged
        return newest.facts.prompt + newest.facts.completion if newest.facts else 0


@dataclass(slots=True)
class Account:
    """An organization with its money, its limits in force and every call it ever made."""

    purse: Purse
    limits: dict[Place, int] = field(default_factory=dict)
    calls: list[Counted] = field(default_factory=list)

    def use(self, place: Place, at: datetime) -> tuple[int, int]:
        """Used and pending in the period that `at` falls in."""
        starts, ends = period(place.kind, at)
        counted = [
            call for call in self.calls if starts <= call.at < ends and place.covers(call.model, call.key)
        ]
        return sum(call.used(place.kind) for call in counted), sum(
            call.pending(place.kind) for call in counted
        )

    def hits(self, model: int, key: int, size: Size, at: datetime) -> list[Hit]:
        """The limits that the call would exceed."""
        found = []
        for place, value in self.limits.items():
            if place.covers(model, key):
                used, pending = self.use(place, at)
                needed = size.hold if place.kind in MONEY else size.tokens
                if used + pending + needed > value:
                    found.append(Hit(place, value, used, pending, needed, period(place.kind, at)[1]))
        return found

    def admit(self, model: int, key: int, size: Size, at: datetime) -> Counted | Refusal:
        hits = self.hits(model, key, size, at)
        if hits:
            last = max(hit.resets_at for hit in hits)
            named = [hit for hit in hits if hit.resets_at == last]
            return Refusal(named, self._fits(model, key, size, at))
        call = self.purse.admit(size.hold)
        if call is None:
            return Refusal([], self._fits(model, key, size, at))
        self.calls.append(Counted(model, key, at, size, call))
        return self.calls[-1]

    def _fits(self, model: int, key: int, size: Size, at: datetime) -> int:
        """By trying: the more is asked, the less passes."""
        low, high = 0, size.cap
        while low < high:
            middle = (low + high + 1) // 2
            smaller = size._replace(cap=middle)
            passes = smaller.hold <= self.purse.available and not self.hits(model, key, smaller, at)
            low, high = (middle, high) if passes else (low, middle - 1)
        return low


def period(kind: LimitKind, at: datetime) -> tuple[datetime, datetime]:
    """The day or month of UTC, half-open."""
    day = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if kind in DAILY:
        return day, day + timedelta(days=1)
    first = day.replace(day=1)
    return first, (first + timedelta(days=31)).replace(day=1)
