"""Charts as geometry: series of whole numbers become what templates/components/chart.html writes as SVG.

Horizontal measures are percentages and vertical ones pixels, so that a chart fits every width while its text
and patterns keep their size, and no style attribute is needed. Every chart has a table with the same numbers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from django.utils.translation import gettext as _

MAX_SERIES: Final = 7
"""More cannot be told apart; the rest is drawn as one."""
PLOT_HEIGHT_PX: Final = 220
MAX_TICKS: Final = 5
MAX_X_LABELS: Final = 12
MAX_X_LABELS_NARROW: Final = 4
BAR_SHARE: Final = 0.72
"""Of a slot's width; the rest is the gap."""
AREA_UNITS: Final = 1000
"""Width and height of the coordinates of an area's path."""

Wording = Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Slot:
    """One place on the time axis. label: short, below the axis; title: exact; url: where a click leads."""

    label: str
    title: str
    url: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """One whole number a slot, in the unit that the chart's wording knows."""

    label: str
    values: tuple[int, ...]

    @property
    def total(self) -> int:
        return sum(self.values)


@dataclass(frozen=True, slots=True)
class Tick:
    y_px: str
    label: str


@dataclass(frozen=True, slots=True)
class Label:
    """A word below the axis. `narrow`: it stays where there is little room."""

    x_pct: str
    text: str
    narrow: bool


@dataclass(frozen=True, slots=True)
class Bar:
    pattern: str
    x_pct: str
    width_pct: str
    y_px: str
    height_px: str


@dataclass(frozen=True, slots=True)
class Area:
    """Closed path and its upper edge, in AREA_UNITS each way."""

    pattern: str
    key: str
    path: str
    edge: str


@dataclass(frozen=True, slots=True)
class Hit:
    """The slot's whole height: what a pointer or a link meets."""

    x_pct: str
    width_pct: str
    title: str
    url: str


@dataclass(frozen=True, slots=True)
class Legend:
    """key: 1 to 7 or other, the class that colours it; pattern: the id of its fill."""

    key: str
    pattern: str
    label: str
    total: str


@dataclass(frozen=True, slots=True)
class Row:
    title: str
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """Everything that the template writes, in words and numbers that need no more formatting."""

    chart_id: str
    title: str
    summary: str
    slot_heading: str
    ticks: tuple[Tick, ...]
    labels: tuple[Label, ...]
    legend: tuple[Legend, ...]
    bars: tuple[Bar, ...]
    areas: tuple[Area, ...]
    hits: tuple[Hit, ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    totals: Row
    is_empty: bool
    plot_height_px: int = PLOT_HEIGHT_PX
    height_px: int = PLOT_HEIGHT_PX + 28
    label_y_px: int = PLOT_HEIGHT_PX + 20

    @property
    def has_links(self) -> bool:
        return any(hit.url for hit in self.hits)


@dataclass(frozen=True, slots=True)
class Sparkline:
    """A line of recent values in a box of 100 × 32, and the same in words."""

    points: str
    title: str


def stacked_bars(
    *,
    chart_id: str,
    title: str,
    slots: Sequence[Slot],
    series: Sequence[Series],
    wording: Wording,
    tick_wording: Wording | None = None,
    slot_heading: str = "",
) -> Chart:
    """Bars, one a slot, of the series on top of each other.

    wording: a value as the table shows it, exact; tick_wording: as the scale does, default the same. Values
    below zero are in the table, not in the picture. Errors: ValueError when a series has not a value a slot.
    """
    return _chart(
        chart_id, title, slots, series, wording, tick_wording or wording, slot_heading, is_area=False
    )


def filled_area(
    *,
    chart_id: str,
    title: str,
    slots: Sequence[Slot],
    series: Sequence[Series],
    wording: Wording,
    tick_wording: Wording | None = None,
    slot_heading: str = "",
) -> Chart:
    """Like stacked_bars, but as one filled flow, whose few series keep their order. It has steps: a slot's
    number is a sum, not a moment's.
    """
    return _chart(
        chart_id, title, slots, series, wording, tick_wording or wording, slot_heading, is_area=True
    )


def paired_bars(
    *,
    chart_id: str,
    title: str,
    slots: Sequence[Slot],
    pairs: Sequence[Sequence[Series]],
    wording: Wording,
    tick_wording: Wording | None = None,
    slot_heading: str = "",
    adds_up: bool = True,
) -> Chart:
    """Bars side by side, to be compared: in each slot one for each of `pairs`, its series on top of each
    other. There is no total, because what is compared is not one sum. At most MAX_SERIES series in all;
    errors as stacked_bars.

    adds_up: whether the sum of a series over its slots says anything; it is left out where it does not.
    """
    series = tuple(one for pair in pairs for one in pair)
    _check_values(series, slots)
    stacks = [_stacks(pair, len(slots)) for pair in pairs]
    top = max((stack[-1] for pair in stacks for stack in pair), default=0)
    ticks = nice_ticks(top)
    legend = _legend(chart_id, series, wording if adds_up else lambda _: "")
    rows = tuple(
        Row(slot.title, tuple(wording(one.values[place]) for one in series))
        for place, slot in enumerate(slots)
    )
    bars: list[Bar] = []
    first = 0
    for place, pair in enumerate(pairs):
        entries = legend[first : first + len(pair)]
        bars += _bars(stacks[place], entries, ticks[-1], lane=place, lanes=len(pairs))
        first += len(pair)
    parts = [f"{entry.label} {entry.total}".rstrip() for entry in legend]
    return Chart(
        chart_id=chart_id,
        title=title,
        summary=f"{title}: {' · '.join(parts)}",
        slot_heading=slot_heading or _("Time"),
        ticks=_ticks(ticks, top, tick_wording or wording),
        labels=_labels(slots),
        legend=legend,
        bars=tuple(bars),
        areas=(),
        hits=_paired_hits(slots, rows, legend),
        columns=tuple(one.label for one in series),
        rows=rows,
        totals=Row(_("Total"), tuple(wording(one.total) for one in series) if adds_up else ()),
        is_empty=not any(any(one.values) for one in series),
    )


def _paired_hits(slots: Sequence[Slot], rows: Sequence[Row], legend: Sequence[Legend]) -> tuple[Hit, ...]:
    width = 100 / max(1, len(slots))
    return tuple(
        Hit(
            _number(width * place),
            _number(width),
            " · ".join(
                (slot.title, *(f"{e.label} {cell}" for e, cell in zip(legend, row.cells, strict=True)))
            ),
            slot.url,
        )
        for place, (slot, row) in enumerate(zip(slots, rows, strict=True))
    )


def sparkline(values: Sequence[int], *, title: str) -> Sparkline:
    """Scaled to its own greatest value; fewer than two values make a flat line."""
    shown = [max(0, value) for value in values] or [0]
    shown = shown * 2 if len(shown) == 1 else shown
    top = max(shown) or 1
    step = 100 / (len(shown) - 1)
    points = " ".join(
        f"{_number(place * step)},{_number(31 - 30 * value / top)}" for place, value in enumerate(shown)
    )
    return Sparkline(points, title)


def nice_ticks(top: int, *, most: int = MAX_TICKS) -> tuple[int, ...]:
    """From 0 in equal whole steps of 1, 2 or 5 times a power of ten, until `top` is covered.

    At most `most` steps; (0, 1) when there is nothing to show.
    """
    if top <= 0:
        return (0, 1)
    power = 1
    while True:
        for factor in (1, 2, 5):
            step = factor * power
            steps = -(-top // step)
            if steps <= most:
                return tuple(step * place for place in range(steps + 1))
        power *= 10


def join_rest(series: Sequence[Series]) -> tuple[Series, ...]:
    """The greatest series first; beyond MAX_SERIES they become one, named Other, which comes last."""
    ordered = sorted(series, key=lambda one: -one.total)
    if len(ordered) <= MAX_SERIES:
        return tuple(ordered)
    rest = ordered[MAX_SERIES:]
    joined = tuple(sum(values) for values in zip(*(one.values for one in rest), strict=True))
    return (*ordered[:MAX_SERIES], Series(_("Other"), joined))


def _chart(
    chart_id: str,
    title: str,
    slots: Sequence[Slot],
    given: Sequence[Series],
    wording: Wording,
    tick_wording: Wording,
    slot_heading: str,
    *,
    is_area: bool,
) -> Chart:
    _check_values(given, slots)
    # The few parts of a flow keep their places: input that is drawn like output since yesterday misleads.
    series = tuple(given) if is_area and len(given) <= MAX_SERIES else join_rest(given)
    stacks = _stacks(series, len(slots))
    top = max((stack[-1] for stack in stacks), default=0)
    ticks = nice_ticks(top)
    legend = _legend(chart_id, series, wording)
    total = sum(one.total for one in series)
    rows = _rows(slots, series, wording)
    return Chart(
        chart_id=chart_id,
        title=title,
        summary=_("%(title)s: %(total)s in all") % {"title": title, "total": wording(total)},
        slot_heading=slot_heading or _("Time"),
        ticks=_ticks(ticks, top, tick_wording),
        labels=_labels(slots),
        legend=legend,
        bars=() if is_area else _bars(stacks, legend, ticks[-1]),
        areas=_areas(stacks, legend, ticks[-1]) if is_area else (),
        hits=_hits(slots, series, rows),
        columns=(*(one.label for one in series), _("Total")) if len(series) > 1 else (title,),
        rows=rows,
        totals=Row(_("Total"), _cells([one.total for one in series], wording)),
        is_empty=total == 0 and not any(any(one.values) for one in series),
    )


def _check_values(series: Sequence[Series], slots: Sequence[Slot]) -> None:
    for one in series:
        if len(one.values) != len(slots):
            raise ValueError(f"{one.label!r} has {len(one.values)} values for {len(slots)} slots")


def _legend(chart_id: str, series: Sequence[Series], wording: Wording) -> tuple[Legend, ...]:
    return tuple(
        Legend(_key(place), f"{chart_id}-{_key(place)}", one.label, wording(one.total))
        for place, one in enumerate(series)
    )


def _ticks(ticks: Sequence[int], top: int, wording: Wording) -> tuple[Tick, ...]:
    return tuple(
        # Nothing has no scale: a name for its upper end would be made up.
        Tick(_number(PLOT_HEIGHT_PX * (1 - tick / ticks[-1])), wording(tick) if top or not tick else "")
        for tick in ticks
    )


def _key(place: int) -> str:
    return "other" if place >= MAX_SERIES else str(place + 1)


def _stacks(series: Sequence[Series], count: int) -> list[list[int]]:
    """For each slot 0 and then the sums up to each series."""
    stacks = []
    for slot in range(count):
        stack = [0]
        for one in series:
            stack.append(stack[-1] + max(0, one.values[slot]))
        stacks.append(stack)
    return stacks


def _bars(
    stacks: Sequence[Sequence[int]], legend: Sequence[Legend], top: int, *, lane: int = 0, lanes: int = 1
) -> tuple[Bar, ...]:
    """lane: which of so many bars beside each other in a slot."""
    width = 100 / max(1, len(stacks))
    return tuple(
        Bar(
            pattern=entry.pattern,
            x_pct=_number(width * (slot + (1 - BAR_SHARE) / 2 + BAR_SHARE * lane / lanes)),
            width_pct=_number(width * BAR_SHARE / lanes),
            y_px=_number(PLOT_HEIGHT_PX * (1 - stack[place + 1] / top)),
            height_px=_number(PLOT_HEIGHT_PX * (stack[place + 1] - stack[place]) / top),
        )
        for slot, stack in enumerate(stacks)
        for place, entry in enumerate(legend)
        if stack[place + 1] > stack[place]
    )


def _areas(stacks: Sequence[Sequence[int]], legend: Sequence[Legend], top: int) -> tuple[Area, ...]:
    return tuple(
        Area(
            pattern=entry.pattern,
            key=entry.key,
            path=f"M{_steps([stack[place + 1] for stack in stacks], top)}"
            f"L{_steps([stack[place] for stack in stacks], top, backwards=True)}Z",
            edge=f"M{_steps([stack[place + 1] for stack in stacks], top)}",
        )
        for place, entry in enumerate(legend)
    )


def _steps(values: Sequence[int], top: int, *, backwards: bool = False) -> str:
    """Both ends of every slot, from left to right or back."""
    width = AREA_UNITS / max(1, len(values))
    points = [
        (x * width, AREA_UNITS * (1 - value / top))
        for slot, value in enumerate(values)
        for x in (slot, slot + 1)
    ]
    return "L".join(f"{_number(x)} {_number(y)}" for x, y in (reversed(points) if backwards else points))


def _hits(slots: Sequence[Slot], series: Sequence[Series], rows: Sequence[Row]) -> tuple[Hit, ...]:
    width = 100 / max(1, len(slots))
    names = [one.label for one in series]
    return tuple(
        Hit(_number(width * place), _number(width), _title(slot, names, row, series, place), slot.url)
        for place, (slot, row) in enumerate(zip(slots, rows, strict=True))
    )


def _title(slot: Slot, names: Sequence[str], row: Row, series: Sequence[Series], place: int) -> str:
    """`25 Nov, 14:00 · total ¥1.20 · m1 ¥1.00 · m2 ¥0.20`, without what is nothing."""
    if len(names) < 2:
        return f"{slot.title} · {row.cells[0] if row.cells else ''}"
    parts = [
        f"{name} {cell}"
        for name, cell, one in zip(names, row.cells, series, strict=False)
        if one.values[place]
    ]
    return " · ".join((slot.title, f"{_('Total')} {row.cells[-1]}", *parts))


def _rows(slots: Sequence[Slot], series: Sequence[Series], wording: Wording) -> tuple[Row, ...]:
    return tuple(
        Row(slot.title, _cells([one.values[place] for one in series], wording))
        for place, slot in enumerate(slots)
    )


def _cells(values: Sequence[int], wording: Wording) -> tuple[str, ...]:
    """The values in words and, when there are several, their sum."""
    shown = tuple(wording(value) for value in values)
    return (*shown, wording(sum(values))) if len(values) != 1 else shown


def _labels(slots: Sequence[Slot]) -> tuple[Label, ...]:
    """Every n-th slot is named, fewer of them where there is little room."""
    every = max(1, -(-len(slots) // MAX_X_LABELS))
    narrow_every = every * max(1, -(-len(slots) // every // MAX_X_LABELS_NARROW))
    width = 100 / max(1, len(slots))
    return tuple(
        Label(_number(width * (place + 0.5)), slot.label, place % narrow_every == 0)
        for place, slot in enumerate(slots)
        if place % every == 0
    )


def _number(value: float) -> str:
    """At most two decimals, and always a point: SVG knows no other separator."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
