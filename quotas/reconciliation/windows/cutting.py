"""Where windows begin and end: at samples of the backends' counters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

# A sample is written a moment after it was taken.
WRITTEN_AFTER: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Sample:
    """What a counter said between two moments."""

    incarnation: int
    asked_at: datetime
    read_at: datetime
    prompt_tokens: int
    cached_tokens: int | None
    completion_tokens: int
    running: int | None
    excludes_cached: bool

    @property
    def is_busy(self) -> bool:
        """Or may be: not every engine says so."""
        return self.running != 0


@dataclass(frozen=True, slots=True)
class Cut:
    """A window between two samples of one life. is_over: it gets no longer."""

    incarnation: int
    from_at: datetime
    to_at: datetime
    is_over: bool


def cut(samples: Sequence[Sample], *, window_s: int, now: datetime) -> list[Cut]:
    """The windows that samples of one backend, in their order, make: each ends with the last sample of a step
    of the clock, and the next begins there. The first sample is where the last window ended, or none did."""
    found: list[Cut] = []
    for number, sample in enumerate(samples):
        if number == 0 or samples[number - 1].incarnation != sample.incarnation:
            begin = sample
        step = _step(sample.read_at, window_s)
        following = samples[number + 1] if number + 1 < len(samples) else None
        is_last = following is None or following.incarnation != sample.incarnation
        if not is_last and following is not None and _step(following.read_at, window_s) == step:
            continue
        if begin is not sample:
            ends_at = datetime.fromtimestamp((step + 1) * window_s, tz=now.tzinfo)
            is_over = following is not None or now >= ends_at + WRITTEN_AFTER
            found.append(Cut(sample.incarnation, begin.read_at, sample.read_at, is_over))
        begin = sample
    return found


def _step(moment: datetime, window_s: int) -> int:
    return int(moment.timestamp()) // window_s


def prompt_counted(before: Sample, after: Sample) -> int:
    """Prompt tokens, with the cached ones wherever the engine counts them at all."""
    counted = after.prompt_tokens - before.prompt_tokens
    if after.excludes_cached and after.cached_tokens is not None and before.cached_tokens is not None:
        counted += after.cached_tokens - before.cached_tokens
    return counted


def hides_cached(before: Sample, after: Sample) -> bool:
    return after.excludes_cached and None in (before.cached_tokens, after.cached_tokens)
