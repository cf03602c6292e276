"""What a price version says, as plain values. Pure: catalog files, pages and the management API share it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from models_catalog.pricing.weeks import Span, span_texts
from portal.kit.money import amount_to_decimal_text

TIERS: Final = ("standard", "batch", "reserved")
# What a tier must have a price for at any time; the other classes fall back to one of these.
NEEDED_CLASSES: Final = ("input", "output")
CLASS_ORDER: Final = ("input", "cached_input", "image", "output", "reasoning", "request")


@dataclass(frozen=True, slots=True)
class PriceLineContent:
    """One line: what it applies to, and nano-units per million."""

    token_class: str
    service_tier: str
    window: str | None
    input_from_tokens: int
    input_to_tokens: int | None
    price_nanos_per_million: int

    def covers(self, input_tokens: int) -> bool:
        return self.input_from_tokens <= input_tokens and (
            self.input_to_tokens is None or input_tokens < self.input_to_tokens
        )

    def described(self) -> str:
        """`output, batch, night, 32000 to 64000 tokens: 1.25`."""
        words = [self.token_class]
        if self.service_tier != TIERS[0]:
            words.append(self.service_tier)
        if self.window is not None:
            words.append(self.window)
        if self.input_from_tokens or self.input_to_tokens is not None:
            end = "on" if self.input_to_tokens is None else f"to {self.input_to_tokens}"
            words.append(f"{self.input_from_tokens} {end} tokens")
        return f"{', '.join(words)}: {amount_to_decimal_text(self.price_nanos_per_million)}"


@dataclass(frozen=True, slots=True)
class PriceContent:
    """Everything a version says but its period; two versions with equal contents charge the same."""

    time_zone: str
    windows: frozenset[tuple[str, tuple[Span, ...]]]
    lines: frozenset[PriceLineContent]

    @property
    def sha256(self) -> str:
        """The same for equal contents, however they were written down."""
        lines = [
            [
                line.token_class,
                line.service_tier,
                line.window,
                line.input_from_tokens,
                line.input_to_tokens,
                line.price_nanos_per_million,
            ]
            for line in self.ordered_lines
        ]
        text = json.dumps([self.time_zone, self.ordered_windows, lines])
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def ordered_lines(self) -> tuple[PriceLineContent, ...]:
        return tuple(sorted(self.lines, key=line_order))

    @property
    def ordered_windows(self) -> tuple[tuple[str, tuple[Span, ...]], ...]:
        return tuple(sorted(self.windows))

    def described(self) -> dict[str, object]:
        """In words that people read, for the audit log: exact, and in a fixed order."""
        return {
            "time_zone": self.time_zone,
            "windows": {name: ", ".join(span_texts(spans)) for name, spans in self.ordered_windows},
            "lines": [line.described() for line in self.ordered_lines],
        }


EMPTY: Final = PriceContent("UTC", frozenset(), frozenset())


@dataclass(frozen=True, slots=True)
class Gap:
    """From this input length on, a tier has no price of a class it needs, outside all windows."""

    service_tier: str
    token_class: str
    from_tokens: int


def line_order(line: PriceLineContent) -> tuple[int, int, int, str]:
    """Standard tier first, then by class, band and window."""
    return (
        TIERS.index(line.service_tier),
        CLASS_ORDER.index(line.token_class),
        line.input_from_tokens,
        line.window or "",
    )


def same_place(one: PriceLineContent, other: PriceLineContent) -> bool:
    """Both would count for one token: same class, tier and window, and input lengths that overlap."""
    return (
        (one.token_class, one.service_tier, one.window)
        == (other.token_class, other.service_tier, other.window)
        and (other.input_to_tokens is None or one.input_from_tokens < other.input_to_tokens)
        and (one.input_to_tokens is None or other.input_from_tokens < one.input_to_tokens)
    )


def gaps(lines: Iterable[PriceLineContent]) -> list[Gap]:
    """What publishing would refuse: an input length without a price outside all windows."""
    found = []
    by_use: dict[tuple[str, str], list[tuple[int, int | None]]] = {}
    tiers = {"standard"}
    for line in lines:
        tiers.add(line.service_tier)
        if line.window is None:
            band = (line.input_from_tokens, line.input_to_tokens)
            by_use.setdefault((line.service_tier, line.token_class), []).append(band)
    for tier in TIERS:
        for token_class in NEEDED_CLASSES:
            bands = sorted(by_use.get((tier, token_class), []), key=lambda band: band[0])
            reached: int | None = 0
            for start, end in bands:
                if reached is None or start > reached:
                    break
                reached = end
            if tier in tiers and reached is not None:
                found.append(Gap(tier, token_class, reached))
    return found
