"""A tariff as a table: each line in words, beside what counts now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.utils.functional import Promise
from django.utils.translation import gettext as _

from models_catalog.pricing.affected import Affected
from models_catalog.pricing.compare import Increase, price_at
from models_catalog.pricing.content import PriceContent, PriceLineContent
from models_catalog.pricing.queries import PriceGroup, VersionRow
from models_catalog.pricing.weeks import span_texts
from models_catalog.pricing.words import SERVICE_TIERS, TOKEN_CLASSES
from portal.backoffice.prices.words import STATES, increase_place, length_text
from portal.pages.tags import MINUS, NONE

Text = str | Promise


@dataclass(frozen=True, slots=True)
class TariffRow:
    """One line. now_nanos: what the price in force charges there; None without one."""

    name: Text
    tier: Text
    length: str
    when: str
    nanos: int
    now_nanos: int | None
    is_first: bool

    @property
    def difference_nanos(self) -> int | None:
        return None if self.now_nanos is None else self.nanos - self.now_nanos


@dataclass(frozen=True, slots=True)
class WindowRow:
    name: str
    times: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tariff:
    """Everything that a version says. decimals: so that a column has one precision."""

    time_zone: str
    rows: tuple[TariffRow, ...]
    windows: tuple[WindowRow, ...]
    decimals: int
    compares: bool


@dataclass(frozen=True, slots=True)
class IncreaseRow:
    where: str
    old_nanos: int
    new_nanos: int | None


@dataclass(frozen=True, slots=True)
class BoardRow:
    """A version on the board. is_first: of its model and currency."""

    group: PriceGroup
    version: VersionRow | None
    tone: str
    word: Text
    is_first: bool


def tariff_of(content: PriceContent, now: PriceContent | None) -> Tariff:
    """The table of a version; `now` is what counts at present, where that is another one."""
    lines = content.ordered_lines
    amounts = [line.price_nanos_per_million for line in lines]
    rows: list[TariffRow] = []
    for line in lines:
        row = _row(line, lines, now, is_first=not rows or rows[-1].name != TOKEN_CLASSES[line.token_class])
        rows.append(row)
    return Tariff(
        time_zone=content.time_zone,
        rows=tuple(rows),
        windows=tuple(WindowRow(name, tuple(span_texts(spans))) for name, spans in content.ordered_windows),
        decimals=decimals_of([*amounts, *(row.now_nanos or 0 for row in rows)]),
        compares=now is not None,
    )


def increase_rows(increases: Iterable[Increase]) -> list[IncreaseRow]:
    return [IncreaseRow(increase_place(one), one.old_nanos, one.new_nanos) for one in increases]


def first_increases(payers: Sequence[Affected]) -> list[IncreaseRow]:
    """What gets dearer for anybody, each once."""
    found: dict[tuple[str, int, int | None], IncreaseRow] = {}
    for payer in payers:
        for row in increase_rows(payer.increases):
            found.setdefault((row.where, row.old_nanos, row.new_nanos), row)
    return list(found.values())


def board_rows(groups: Iterable[PriceGroup]) -> list[BoardRow]:
    rows: list[BoardRow] = []
    for group in groups:
        for place, version in enumerate(group.rows or (None,)):
            tone, word = STATES[version.state] if version else ("warn", _("No price"))
            rows.append(BoardRow(group, version, tone, word, place == 0))
    return rows


def decimals_of(amounts_nanos: Iterable[int]) -> int:
    """How many decimals a column needs so that each of its amounts is exact and all have as many."""
    most = 2
    for amount in amounts_nanos:
        most = max(most, len(f"{amount % 10**9:09d}".rstrip("0")))
    return most


def percent_text(ppm: int | None, *, sign: bool = True) -> str:
    """`+2.5 %`, `−12.0 %`; an en dash for nothing. sign: shares above zero carry a plus."""
    if ppm is None:
        return NONE
    before = MINUS if ppm < 0 else "+" if ppm > 0 and sign else ""
    return f"{before}{abs(ppm) / 10_000:.1f} %"


def _row(
    line: PriceLineContent, lines: Sequence[PriceLineContent], now: PriceContent | None, *, is_first: bool
) -> TariffRow:
    if line.window is not None:
        when = line.window
    elif any(other.window for other in lines if _is_alike(other, line)):
        when = _("At other times")
    else:
        when = _("At all times")
    return TariffRow(
        name=TOKEN_CLASSES[line.token_class],
        tier=SERVICE_TIERS[line.service_tier],
        length=length_text(line.input_from_tokens, line.input_to_tokens),
        when=when,
        nanos=line.price_nanos_per_million,
        now_nanos=None if now is None else _price_now(line, now),
        is_first=is_first,
    )


def _is_alike(one: PriceLineContent, other: PriceLineContent) -> bool:
    return (one.token_class, one.service_tier) == (other.token_class, other.service_tier)


def _price_now(line: PriceLineContent, now: PriceContent) -> int | None:
    """In the window of the same name, for an input as long as the line's shortest."""
    return price_at(
        tuple(now.lines), line.service_tier, line.window, line.token_class, line.input_from_tokens
    )
