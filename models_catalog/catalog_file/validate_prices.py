"""Prices of a model in a catalog file: windows, lines, bands, and that nothing is left without a price."""

from __future__ import annotations

from datetime import datetime

from models_catalog.catalog_file.fields import Fields
from models_catalog.catalog_file.parse import Node, ScalarNode
from models_catalog.catalog_file.problems import Place, Problems
from models_catalog.catalog_file.wanted import Reading, Reference, WantedPrice
from models_catalog.models import ServiceTier, TokenClass
from models_catalog.models.prices import MAX_PRICE_NANOS_PER_MILLION
from models_catalog.pricing.content import PriceContent, PriceLineContent, gaps, same_place
from models_catalog.pricing.weeks import InvalidSpan, Span, merged, overlap, parse_span
from portal.kit.money import NANOS_PER_UNIT, InvalidAmount, parse_amount

MAX_PRICES = 100
MAX_WINDOWS = 32
MAX_SPANS = 64
MAX_LINES = 500
MAX_INPUT_TOKENS = 20_000_000

_CURRENCY = "[A-Z]{3}"
_ZONE = r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*"

Windows = dict[str, tuple[Span, ...]]


def read_prices(model: Fields, reading: Reading) -> tuple[WantedPrice, ...]:
    """The prices of a model; those with mistakes are left out."""
    found: list[WantedPrice] = []
    moments: set[tuple[str, datetime | None]] = set()
    for node, place in model.entries("prices", limit=MAX_PRICES):
        price = _read_price(node, place, reading)
        if price is None:
            continue
        if (price.currency, price.active_from) in moments:
            model.problems.add(price.active_from_place, "another price of this currency begins then already")
        moments.add((price.currency, price.active_from))
        found.append(price)
    return tuple(found)


def _read_price(node: Node, place: Place, reading: Reading) -> WantedPrice | None:
    known = ("currency", "time_zone", "active_from", "windows", "lines")
    fields = Fields.of(node, place, reading.problems, known)
    if fields is None:
        return None
    currency = fields.text("currency", high=3, pattern=_CURRENCY, form="a code such as USD", required=True)
    if currency is not None and reading.currencies is not None and currency not in reading.currencies:
        fields.wrong("currency", f"must be one of {', '.join(reading.currencies)}")
    time_zone: str | None = "UTC"
    if fields.has("time_zone"):
        time_zone = fields.text("time_zone", high=64, pattern=_ZONE, form="a name such as Europe/Berlin")
        if time_zone is not None:
            reading.references.append(Reference("time zone", time_zone, fields.at("time_zone")))
    active_from = fields.moment("active_from")
    is_moment_wrong = fields.has("active_from") and active_from is None
    windows = _read_windows(fields)
    lines = _read_lines(fields, windows)
    if currency is None or time_zone is None or is_moment_wrong or windows is None or lines is None:
        return None
    content = PriceContent(time_zone, frozenset(windows.items()), frozenset(lines))
    return WantedPrice(place, fields.at("active_from"), currency, active_from, content)


def _read_windows(price: Fields) -> Windows | None:
    """Window names and the minutes of the week when each is open; None when one is wrong."""
    windows: Windows = {}
    is_right = True
    for node, place in price.entries("windows", limit=MAX_WINDOWS):
        fields = Fields.of(node, place, price.problems, ("name", "spans"))
        name = fields.text("name", high=64, required=True) if fields else None
        spans = _read_spans(fields) if fields else None
        if fields is None or name is None or spans is None:
            is_right = False
            continue
        if name in windows:
            fields.wrong("name", "is in this list already")
            is_right = False
        for other, minutes in windows.items():
            if overlap(minutes, spans):
                fields.wrong("spans", f"must not overlap those of the window {other!r}")
                is_right = False
        windows[name] = spans
    return windows if is_right else None


def _read_spans(window: Fields) -> tuple[Span, ...] | None:
    spans: list[Span] = []
    is_right = True
    for node, place in window.entries("spans", limit=MAX_SPANS, required=True):
        try:
            if not isinstance(node, ScalarNode):
                raise InvalidSpan("must be a text")
            spans += parse_span(node.text)
        except InvalidSpan as error:
            window.problems.add(place, str(error))
            is_right = False
    if is_right and not spans and window.has("spans"):
        window.wrong("spans", "must have at least one span")
    return merged(spans) if is_right and spans else None


def _read_lines(price: Fields, windows: Windows | None) -> list[PriceLineContent] | None:
    lines: list[tuple[PriceLineContent, Place]] = []
    is_right = True
    for node, place in price.entries("lines", limit=MAX_LINES, required=True):
        line = _read_line(node, place, price.problems, windows)
        if line is None:
            is_right = False
            continue
        if any(same_place(line, other) for other, _ in lines):
            price.problems.add(
                place, "another line has a price for the same class, tier, window and input length"
            )
            is_right = False
        lines.append((line, place))
    if not is_right or not price.has("lines"):
        return None
    missing = gaps(line for line, _ in lines)
    for gap in missing:
        price.wrong(
            "lines",
            f"need a price of class {gap.token_class} and tier {gap.service_tier}, without a window, "
            f"for inputs from {gap.from_tokens} tokens on",
        )
    return None if missing else [line for line, _ in lines]


def _read_line(
    node: Node, place: Place, problems: Problems, windows: Windows | None
) -> PriceLineContent | None:
    known = ("class", "price_per_million", "tier", "window", "input_from", "input_to")
    fields = Fields.of(node, place, problems, known)
    if fields is None:
        return None
    token_class = fields.choice("class", tuple(TokenClass.values), required=True)
    tier: str | None = ServiceTier.STANDARD.value
    if fields.has("tier"):
        tier = fields.choice("tier", tuple(ServiceTier.values))
    price = _read_amount(fields)
    window = fields.text("window", high=64)
    if window is not None and windows is not None and window not in windows:
        fields.wrong("window", "is not one of this price's windows")
        return None
    start: int | None = 0
    if fields.has("input_from"):
        start = fields.whole("input_from", low=0, high=MAX_INPUT_TOKENS)
    end = fields.whole("input_to", low=1, high=MAX_INPUT_TOKENS)
    if start is not None and end is not None and end <= start:
        fields.wrong("input_to", "must be above input_from")
        return None
    optional_are_right = (window is not None or not fields.has("window")) and (
        end is not None or not fields.has("input_to")
    )
    if token_class is None or tier is None or price is None or start is None or not optional_are_right:
        return None
    return PriceLineContent(token_class, tier, window, start, end, price)


def _read_amount(line: Fields) -> int | None:
    """Nano-units per million, of units in decimal text. A number would pass through binary fractions in
    other programs that read the file, hence the quotes."""
    scalar = line.scalar("price_per_million", required=True)
    if scalar is None:
        return None
    if scalar.kind != "text":
        line.wrong("price_per_million", 'must be a decimal string in quotes, such as "0.27"')
        return None
    try:
        amount_nanos = parse_amount(scalar.text)
    except InvalidAmount as error:
        line.wrong("price_per_million", f"must be a decimal string: {error}")
        return None
    if not 0 <= amount_nanos <= MAX_PRICE_NANOS_PER_MILLION:
        highest = MAX_PRICE_NANOS_PER_MILLION // NANOS_PER_UNIT
        line.wrong("price_per_million", f"must be from 0 to {highest}")
        return None
    return amount_nanos
