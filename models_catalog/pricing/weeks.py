"""Weekly spans: `Mon-Fri 00:30-08:30`, `Sat 22:00-Sun 06:00` to minutes of the week and back.

A minute of the week counts from Monday 00:00 = 0 to 10,080; spans are half-open.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DAY_MINUTES: Final = 1440
WEEK_MINUTES: Final = 7 * DAY_MINUTES

Span = tuple[int, int]

_DAY: Final = "|".join(DAYS)
_TIME: Final = r"([01][0-9]|2[0-4]):([0-5][0-9])"
_DAILY: Final = re.compile(rf"({_DAY})(?:-({_DAY}))? {_TIME}-{_TIME}")
_ACROSS: Final = re.compile(rf"({_DAY}) {_TIME}-({_DAY}) {_TIME}")


class InvalidSpan(ValueError):
    """The text is not a weekly span; the message says what one looks like."""


def parse_span(text: str) -> list[Span]:
    """Spans within one week, of `Day[-Day] HH:MM-HH:MM` (on each of these days) or `Day HH:MM-Day HH:MM`
    (from the one to the other).

    An end at or before its start lies on the next day, or in the next week; a span across the end of
    the week is split there. 24:00 may end a span. Errors: InvalidSpan.
    """
    daily = _DAILY.fullmatch(text)
    if daily is not None:
        first, last, *times = daily.groups()
        start, end = _minute(*times[:2], is_end=False), _minute(*times[2:], is_end=True)
        if start == end:
            raise InvalidSpan("begins and ends at the same time; a whole day is 00:00-24:00")
        length = end - start if end > start else end + DAY_MINUTES - start
        return [
            part
            for day in _days(first, last or first)
            for part in _within_week(day * DAY_MINUTES + start, length)
        ]
    across = _ACROSS.fullmatch(text)
    if across is not None:
        first, hour, minute, last, *end_time = across.groups()
        start = DAYS.index(first) * DAY_MINUTES + _minute(hour, minute, is_end=False)
        end = DAYS.index(last) * DAY_MINUTES + _minute(*end_time, is_end=True)
        length = (end - start) % WEEK_MINUTES
        if length == 0:
            raise InvalidSpan("begins and ends at the same time; the whole week is Mon-Sun 00:00-24:00")
        return _within_week(start, length)
    raise InvalidSpan("must look like Mon-Fri 00:30-08:30 or Sat 22:00-Sun 06:00")


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The same minutes in ascending spans that neither overlap nor touch."""
    result: list[Span] = []
    for start, end in sorted(spans):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(result[-1][1], end))
        else:
            result.append((start, end))
    return tuple(result)


def overlap(one: Iterable[Span], other: Iterable[Span]) -> bool:
    others = tuple(other)
    return any(
        start < other_end and other_start < end for start, end in one for other_start, other_end in others
    )


def span_texts(spans: Iterable[Span]) -> list[str]:
    """What `parse_span` reads as the same minutes, as short as people write it: the same times of several
    days in a row together, and a span that goes on from Sunday to Monday as one."""
    ascending = list(merged(spans))
    if not ascending or ascending == [(0, WEEK_MINUTES)]:
        return ["Mon-Sun 00:00-24:00"] if ascending else []
    if len(ascending) > 1 and ascending[0][0] == 0 and ascending[-1][1] == WEEK_MINUTES:
        (_, end), (start, _) = ascending.pop(0), ascending.pop()
        ascending.append((start, WEEK_MINUTES + end))
    by_times: dict[tuple[int, int], list[int]] = {}
    texts: list[tuple[int, str]] = []
    for start, end in ascending:
        day, from_minute = divmod(start, DAY_MINUTES)
        length = end - start
        if length < DAY_MINUTES or (length == DAY_MINUTES and from_minute == 0):
            by_times.setdefault((from_minute, length), []).append(day)
        else:
            texts.append((start, _across_text(start, end)))
    for (from_minute, length), days in by_times.items():
        for first, last in _runs(days):
            texts.append(
                (
                    first * DAY_MINUTES + from_minute,
                    f"{_days_text(first, last)} {_times_text(from_minute, length)}",
                )
            )
    return [text for _, text in sorted(texts)]


def _runs(days: list[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for day in days:
        if runs and runs[-1][1] == day - 1:
            runs[-1] = (runs[-1][0], day)
        else:
            runs.append((day, day))
    return runs


def _days_text(first: int, last: int) -> str:
    return DAYS[first] if first == last else f"{DAYS[first]}-{DAYS[last]}"


def _times_text(from_minute: int, length: int) -> str:
    end = from_minute + length
    return f"{_clock(from_minute)}-{_clock(end if end <= DAY_MINUTES else end - DAY_MINUTES)}"


def _across_text(start: int, end: int) -> str:
    """An end at midnight is that of the day before."""
    last_day, last_minute = divmod(end - 1, DAY_MINUTES)
    first_day, first_minute = divmod(start, DAY_MINUTES)
    return f"{DAYS[first_day]} {_clock(first_minute)}-{DAYS[last_day % 7]} {_clock(last_minute + 1)}"


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


def _days(first: str, last: str) -> list[int]:
    """The days from `first` to `last`, on through Sunday to Monday when `last` comes earlier in the week."""
    start = DAYS.index(first)
    return [(start + offset) % 7 for offset in range((DAYS.index(last) - start) % 7 + 1)]


def _minute(hour: str, minute: str, *, is_end: bool) -> int:
    result = int(hour) * 60 + int(minute)
    if result > DAY_MINUTES or (result == DAY_MINUTES and not is_end):
        raise InvalidSpan("times go from 00:00 to 23:59; only the end may be 24:00")
    return result


def _within_week(start: int, length: int) -> list[Span]:
    end = start + length
    if end <= WEEK_MINUTES:
        return [(start, end)]
    return [(start, WEEK_MINUTES), (0, end - WEEK_MINUTES)]
