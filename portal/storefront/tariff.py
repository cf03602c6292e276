"""A price version as a tariff card: every line in words, when it counts, and what changes next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.utils.dates import WEEKDAYS_ABBR
from django.utils.translation import gettext as _
from django.utils.translation import ngettext, pgettext

from models_catalog.models import TokenClass
from models_catalog.queries import DailyTimes, Line, Price, PriceChange
from models_catalog.queries.prices import DAY_MINUTES
from portal.pages.tags import count_text
from portal.storefront.words import SERVICE_TIERS, TOKEN_CLASSES

LAST_DAY: Final = 6


@dataclass(frozen=True, slots=True)
class TariffRow:
    """One line: what is counted, for which input length, when, and nano-units per million tokens.

    is_now: calls that begin now are charged with it, as far as their input is of its length.
    is_first: of its token class. is_per_request: the price is for a million requests.
    """

    token_class: str
    name: str
    band: str
    when: str
    price_nanos_per_million: int
    is_now: bool
    is_first: bool
    is_per_request: bool


@dataclass(frozen=True, slots=True)
class TariffPart:
    """The lines of one service tier. has_bands, has_windows: they differ by input length, by time."""

    name: str
    rows: tuple[TariffRow, ...]
    has_bands: bool
    has_windows: bool


@dataclass(frozen=True, slots=True)
class WindowRow:
    """A named part of the week. times: as opening hours are written."""

    name: str
    times: tuple[str, ...]
    is_open: bool


@dataclass(frozen=True, slots=True)
class ChangedLine:
    """A line that the next version has otherwise; old_nanos: None for one that is new."""

    what: str
    old_nanos: int | None
    new_nanos: int


@dataclass(frozen=True, slots=True)
class Tariff:
    """Everything that the card shows of one currency."""

    currency: str
    time_zone: str
    active_from: datetime
    parts: tuple[TariffPart, ...]
    windows: tuple[WindowRow, ...]
    decimals: int


@dataclass(frozen=True, slots=True)
class Change:
    """The next published change; ends: the model then has no price. gone: lines without a successor."""

    at: datetime
    ends: bool
    lines: tuple[ChangedLine, ...]
    gone: int


def tariff_of(price: Price) -> Tariff:
    """The card of a published version."""
    open_window = next((window.name for window in price.windows if window.is_open), None)
    tiers = dict.fromkeys(line.service_tier for line in price.lines)
    return Tariff(
        currency=price.currency,
        time_zone=price.time_zone,
        active_from=price.active_from,
        parts=tuple(
            _part(tier, [line for line in price.lines if line.service_tier == tier], open_window)
            for tier in tiers
        ),
        windows=tuple(
            WindowRow(window.name, tuple(times_text(times) for times in window.times), window.is_open)
            for window in price.windows
        ),
        decimals=decimals_of(line.price_nanos_per_million for line in price.lines),
    )


def change_of(change: PriceChange, before: Price | None) -> Change:
    """What is otherwise after a change, line by line."""
    old = _by_place(before)
    new = _by_place(change.price)
    return Change(
        at=change.at,
        ends=change.price is None,
        lines=tuple(
            ChangedLine(place, old.get(place), price)
            for place, price in new.items()
            if old.get(place) != price
        ),
        gone=len(old.keys() - new.keys()),
    )


def times_text(times: DailyTimes) -> str:
    """`Mon–Fri 00:00–08:00`."""
    days = _days_text(times.days)
    if (times.from_minute, times.to_minute) == (0, DAY_MINUTES):
        return _("%(days)s, all day") % {"days": days}
    return _("%(days)s %(from)s–%(to)s") % {
        "days": days,
        "from": _clock(times.from_minute),
        "to": _clock(times.to_minute),
    }


def decimals_of(amounts_nanos: Iterable[int]) -> int:
    """How many decimals a column needs so that each of its amounts is exact and all have as many."""
    most = 2
    for amount in amounts_nanos:
        most = max(most, len(f"{amount % 10**9:09d}".rstrip("0")))
    return most


def _part(tier: str, lines: Sequence[Line], open_window: str | None) -> TariffPart:
    return TariffPart(
        name=str(SERVICE_TIERS[tier]),
        rows=_rows(lines, open_window),
        has_bands=any(line.input_from_tokens or line.input_to_tokens for line in lines),
        has_windows=any(line.window for line in lines),
    )


def _rows(lines: Sequence[Line], open_window: str | None) -> tuple[TariffRow, ...]:
    rows: list[TariffRow] = []
    for line in lines:
        same_class = [other for other in lines if other.token_class == line.token_class]
        rows.append(
            TariffRow(
                token_class=line.token_class,
                name=str(TOKEN_CLASSES[line.token_class]),
                band=band_text(line),
                when=_when_text(line, same_class),
                price_nanos_per_million=line.price_nanos_per_million,
                is_now=_is_now(line, same_class, open_window),
                is_first=not rows or rows[-1].token_class != line.token_class,
                is_per_request=line.token_class == TokenClass.REQUEST,
            )
        )
    return tuple(rows)


def _is_now(line: Line, same_class: Sequence[Line], open_window: str | None) -> bool:
    """A line of the open window beats the one for all times where both have the input length."""
    if line.window is not None:
        return line.window == open_window
    return not any(
        other.window == open_window and _covers(other, line) for other in same_class if other.window
    )


def _covers(other: Line, line: Line) -> bool:
    if other.input_from_tokens > line.input_from_tokens:
        return False
    return other.input_to_tokens is None or (
        line.input_to_tokens is not None and other.input_to_tokens >= line.input_to_tokens
    )


def _when_text(line: Line, same_class: Sequence[Line]) -> str:
    if line.window is not None:
        return line.window
    return _("At other times") if any(other.window for other in same_class) else _("At all times")


def band_text(line: Line) -> str:
    """For inputs of which length the line counts; bounds as calls meet them, both inclusive."""
    low, high = line.input_from_tokens, line.input_to_tokens
    if high is not None:
        values = {"low": count_text(low), "high": count_text(high - 1)}
        return _("%(low)s to %(high)s tokens") % values if low else _("Up to %(high)s tokens") % values
    return _("From %(low)s tokens") % {"low": count_text(low)} if low else _("Any length")


def _by_place(price: Price | None) -> dict[str, int]:
    """The price of each line, by what it is for, in words."""
    found: dict[str, int] = {}
    for line in price.lines if price else ():
        words = [str(TOKEN_CLASSES[line.token_class])]
        if line.input_from_tokens or line.input_to_tokens:
            words.append(band_text(line))
        if line.window:
            words.append(line.window)
        if line.service_tier != "standard":
            words.append(str(SERVICE_TIERS[line.service_tier]))
        found[" · ".join(words)] = line.price_nanos_per_million
    return found


def _days_text(days: Sequence[int]) -> str:
    if len(days) == LAST_DAY + 1:
        return _("Every day")
    runs: list[list[int]] = []
    for day in sorted(days):
        if runs and day == runs[-1][-1] + 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    return pgettext("between days", ", ").join(_run_text(run) for run in runs)


def _run_text(run: Sequence[int]) -> str:
    first, last = str(WEEKDAYS_ABBR[run[0]]), str(WEEKDAYS_ABBR[run[-1]])
    if len(run) == 1:
        return first
    return _("%(first)s–%(last)s") % {"first": first, "last": last}


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


def models_text(count: int) -> str:
    """`1 model`, `12 models`."""
    return ngettext("%(count)s model", "%(count)s models", count) % {"count": count_text(count)}
