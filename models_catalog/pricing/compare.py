"""Whether one price is dearer than another, wherever a call can land in either. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from models_catalog.pricing.content import CLASS_ORDER, TIERS, PriceContent, PriceLineContent
from models_catalog.pricing.weeks import WEEK_MINUTES

# Which lines a class of tokens is charged with: its own, or those of the class that contains it. The SQL
# function catalog_chosen_lines decides the same.
_LINE_CLASSES: Final[Mapping[str, tuple[str, ...]]] = {
    "input": ("input",),
    "cached_input": ("cached_input", "input"),
    "image": ("image", "input"),
    "output": ("output",),
    "reasoning": ("reasoning", "output"),
    "request": ("request",),
}


@dataclass(frozen=True, slots=True)
class Increase:
    """For one class and tier and these input lengths (half-open), at some time of the week the new price
    is higher: nano-units per million, at the time when the difference is greatest.

    new_nanos None: there is no price any more, so that such calls are refused. minute: of the week, in the
    zone of both versions; None when their zones differ, or when it is so at all times. The windows are those
    that are open then; None for both when it is so at all times.
    """

    token_class: str
    service_tier: str
    from_tokens: int
    to_tokens: int | None
    old_nanos: int
    new_nanos: int | None
    old_window: str | None
    new_window: str | None
    minute: int | None


@dataclass(frozen=True, slots=True)
class _Moment:
    """Windows that can be open in both versions at once."""

    old_window: str | None
    new_window: str | None
    minute: int | None


def compare(new: PriceContent | None, old: PriceContent | None, *, max_input_tokens: int) -> list[Increase]:
    """Everything in which `new` is dearer than `old`: class, tier, input length and time of the week.

    Input lengths are tried at every border of either version up to max_input_tokens. Where the time zones
    differ, any two windows are taken to meet: their clocks change on different days. None for `new` is a
    model that cannot be called any more, for `old` one that could not.
    """
    if old is None:
        return []
    found: list[Increase] = []
    for tier in _tiers(old):
        if new is None or tier not in _tiers(new):
            found += _refused(old, tier)
            continue
        moments = _moments(new, old)
        borders = _borders((new, old), tier, max_input_tokens)
        for token_class in CLASS_ORDER:
            found += _merged(_of_class(new, old, tier, token_class, moments, borders))
    return found


def price_at(
    lines: Sequence[PriceLineContent], tier: str, window: str | None, token_class: str, input_tokens: int
) -> int | None:
    """Nano-units per million that a class of tokens is charged; None without a price."""
    for line_class in _LINE_CLASSES[token_class]:
        chosen = [
            line
            for line in lines
            if line.token_class == line_class
            and line.service_tier == tier
            and line.window in (None, window)
            and line.covers(input_tokens)
        ]
        if chosen:
            return min(chosen, key=lambda line: line.window is None).price_nanos_per_million
    return None


def _of_class(
    new: PriceContent,
    old: PriceContent,
    tier: str,
    token_class: str,
    moments: Sequence[_Moment],
    borders: Sequence[tuple[int, int | None]],
) -> Iterator[Increase]:
    new_lines, old_lines = tuple(new.lines), tuple(old.lines)
    for start, end in borders:
        found: list[Increase] = []
        for at in moments:
            before = price_at(old_lines, tier, at.old_window, token_class, start)
            after = price_at(new_lines, tier, at.new_window, token_class, start)
            # Without a line, requests cost nothing; other classes fall back to one that has a price.
            before, after = before or 0, after or 0
            if after > before:
                where = (at.old_window, at.new_window, at.minute)
                found.append(Increase(token_class, tier, start, end, before, after, *where))
        if found:
            worst = max(found, key=_rise)
            is_always = len(found) == len(moments) and len({_prices(one) for one in found}) == 1
            yield replace(worst, old_window=None, new_window=None, minute=None) if is_always else worst


def _rise(increase: Increase) -> int:
    return (increase.new_nanos or 0) - increase.old_nanos


def _prices(increase: Increase) -> tuple[int, int | None]:
    return increase.old_nanos, increase.new_nanos


def _merged(increases: Iterator[Increase]) -> list[Increase]:
    """Neighbouring input lengths with the same prices as one."""
    found: list[Increase] = []
    for one in increases:
        last = found[-1] if found else None
        if (
            last is not None
            and last.to_tokens == one.from_tokens
            and one == replace(last, from_tokens=one.from_tokens, to_tokens=one.to_tokens)
        ):
            found[-1] = replace(last, to_tokens=one.to_tokens)
        else:
            found.append(one)
    return found


def _refused(old: PriceContent, tier: str) -> Iterator[Increase]:
    for token_class in ("input", "output"):
        price = price_at(tuple(old.lines), tier, None, token_class, 0)
        if price is not None:
            yield Increase(token_class, tier, 0, None, price, None, None, None, None)


def _tiers(content: PriceContent) -> list[str]:
    """The tiers that have prices."""
    used = {line.service_tier for line in content.lines}
    return [tier for tier in TIERS if tier in used]


def _borders(
    contents: tuple[PriceContent, PriceContent], tier: str, max_input_tokens: int
) -> list[tuple[int, int | None]]:
    """Input lengths between which nothing changes in either version, each as [first, next)."""
    edges = {0}
    for content in contents:
        for line in content.lines:
            if line.service_tier == tier:
                edges |= {line.input_from_tokens, line.input_to_tokens or 0}
    starts = sorted(edge for edge in edges if edge <= max_input_tokens)
    return list(zip(starts, [*starts[1:], None], strict=True))


def _moments(new: PriceContent, old: PriceContent) -> list[_Moment]:
    if new.time_zone != old.time_zone:
        return [
            _Moment(old_window, new_window, None)
            for old_window in _reachable(old)
            for new_window in _reachable(new)
        ]
    edges = {0}
    for content in (new, old):
        for _, spans in content.windows:
            edges |= {edge for span in spans for edge in span if edge < WEEK_MINUTES}
    found: dict[tuple[str | None, str | None], _Moment] = {}
    for minute in sorted(edges):
        pair = window_at(old, minute), window_at(new, minute)
        found.setdefault(pair, _Moment(*pair, minute))
    return list(found.values())


def window_at(content: PriceContent, minute: int) -> str | None:
    """The window that is open at a minute of the week."""
    return next(
        (name for name, spans in content.windows if any(start <= minute < end for start, end in spans)),
        None,
    )


def _reachable(content: PriceContent) -> list[str | None]:
    """The windows that open at some time, and None where not all of the week is within one."""
    names: list[str | None] = [name for name, spans in content.ordered_windows if spans]
    covered = sum(end - start for _, spans in content.windows for start, end in spans)
    return names if covered >= WEEK_MINUTES else [*names, None]
