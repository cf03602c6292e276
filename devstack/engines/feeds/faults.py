"""Seeded faults of a feed and of what an engine says and does. At most one befalls a record, one a call.

What befalls a record, of files of lines unless said otherwise:
    lost             it is never written (pushed feeds, too)
    doubled          it is written twice (pushed feeds, too)
    cut              the end of its line is missing, as after a full disk; it is lost
    garbage          a line that means nothing stands before it (pushed: a record with negative counts)
    copied           the whole file, this line included, is copied beside it, so all of it comes twice
    rotate           before it the file is renamed and a new one is begun
    rotate_mid_line  its first half ends the renamed file, its second half begins the new one
    truncate         before it the file is copied beside it and emptied in place (copytruncate)

What befalls a call:
    wrong_usage      the ANSWER's usage tells a wrong number of completion tokens, the feed the true one
    foreign          after it somebody bypasses the gateway: in counters and feed, under another id
    restart          after it the engine restarts: what is open is lost, its counters begin anew
    counter_reset    after it the counters begin anew, as if somebody had cleared them

clock_skew_s is no chance: all times that a feed tells are that much later.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, fields
from typing import Generic, Literal, Self, TypeVar, get_args

RecordFault = Literal["lost", "doubled", "cut", "garbage", "copied", "rotate", "rotate_mid_line", "truncate"]
CallFault = Literal["wrong_usage", "foreign", "restart", "counter_reset"]
Name = TypeVar("Name", RecordFault, CallFault)
FaultName = RecordFault | CallFault | Literal["clock_skew", "undelivered"]

RECORD_FAULTS: tuple[RecordFault, ...] = get_args(RecordFault)
CALL_FAULTS: tuple[CallFault, ...] = get_args(CallFault)
PUSHED_FAULTS: tuple[RecordFault, ...] = ("lost", "doubled", "garbage")
MAX_SKEW_S = 30 * 86400.0


class FeedFaultsError(ValueError):
    """The text names a fault that there is none of, or no probability."""


@dataclass(frozen=True, slots=True)
class FeedFaults:
    """How probable each fault is for one record, or one call; those of a kind may add up to 1 at most."""

    seed: int = 0
    clock_skew_s: float = 0.0
    lost: float = 0.0
    doubled: float = 0.0
    cut: float = 0.0
    garbage: float = 0.0
    copied: float = 0.0
    rotate: float = 0.0
    rotate_mid_line: float = 0.0
    truncate: float = 0.0
    wrong_usage: float = 0.0
    foreign: float = 0.0
    restart: float = 0.0
    counter_reset: float = 0.0

    def __post_init__(self) -> None:
        """Raises FeedFaultsError."""
        for names in (RECORD_FAULTS, CALL_FAULTS):
            chances = [getattr(self, name) for name in names]
            if min(chances) < 0 or sum(chances) > 1 + 1e-9:
                raise FeedFaultsError("chances are not below 0 and do not add up to more than 1")
        if abs(self.clock_skew_s) > MAX_SKEW_S:
            raise FeedFaultsError(f"clock_skew_s is at most {MAX_SKEW_S:.0f}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `seed=7,lost=0.01,clock_skew_s=-90`. Raises FeedFaultsError."""
        known = {field.name for field in fields(cls)}
        given: dict[str, float] = {}
        for pair in filter(None, text.split(",")):
            name, _, value = pair.partition("=")
            if name not in known or name in given:
                raise FeedFaultsError(f"unknown or repeated fault {name}")
            try:
                given[name] = int(value) if name == "seed" else float(value)
            except ValueError as wrong:
                raise FeedFaultsError(f"{name} takes a number, not {value}") from wrong
        return cls(**given)  # type: ignore[arg-type]

    def __str__(self) -> str:
        """As it is parsed; what is 0 is left out."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return ",".join(f"{name}={value}" for name, value in values if value)


class Dice(Generic[Name]):
    """Draws one number a record and says which of the faults it falls on. The n-th record of a feed meets the
    same fault whenever the seed is the same; `salt` keeps feeds of one engine apart."""

    def __init__(self, faults: FeedFaults, names: tuple[Name, ...], salt: str) -> None:
        self._random = random.Random(f"{faults.seed}/{salt}")
        # What faults are made of is drawn elsewhere, so that it moves no later record's luck.
        self.details = random.Random(f"{faults.seed}/{salt}/details")
        self._edges: list[tuple[float, Name]] = []
        edge = 0.0
        for name in names:
            chance: float = getattr(faults, name)
            if chance:
                edge += chance
                self._edges.append((edge, name))
        self.total = edge
        self.draw = self._random.random

    def roll(self) -> Name | None:
        """The fault of the next record, None for most."""
        return self.fault_of(self.draw())

    def fault_of(self, drawn: float) -> Name | None:
        """The fault that a drawn number falls on."""
        if drawn >= self.total:
            return None
        return next((name for edge, name in self._edges if drawn < edge), None)
