"""Prices in plain Python and zoneinfo: what the SQL functions are tested against. It shares no code with them
nor with the product; slow and simple on purpose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from zoneinfo import ZoneInfo

from models_catalog.tests.price_drafts import Line

_CLASSES: Mapping[str, Sequence[str]] = {
    "input": ["input"],
    "cached_input": ["cached_input", "input"],
    "image": ["image", "input"],
    "output": ["output"],
    "reasoning": ["reasoning", "output"],
    "request": ["request"],
}


@dataclass(frozen=True, slots=True)
class Tokens:
    """Of one call: parts are contained in the prompt and the completion."""

    prompt: int
    cached: int = 0
    image: int = 0
    completion: int = 0
    reasoning: int = 0


def window_at(spans: Sequence[tuple[str, int, int]], zone: str, at: datetime) -> str | None:
    """The window whose minutes of the local week hold the moment; local clocks say what people call it."""
    local = at.astimezone(ZoneInfo(zone))
    minute = local.weekday() * 1440 + local.hour * 60 + local.minute
    for name, start, end in spans:
        if start <= minute < end:
            return name
    return None


def cost(lines: Sequence[Line], tier: str, window: str | None, tokens: Tokens) -> int | None:
    """Nano-units; each line rounds half up, once. None when something has no price."""
    units = {
        "input": tokens.prompt - tokens.cached - tokens.image,
        "cached_input": tokens.cached,
        "image": tokens.image,
        "output": tokens.completion - tokens.reasoning,
        "reasoning": tokens.reasoning,
        "request": 1,
    }
    total = 0
    for token_class, count in units.items():
        price = _price(lines, tier, window, token_class, tokens.prompt)
        if count == 0 or (price is None and token_class == "request"):
            continue
        if price is None:
            return None
        total += int(Fraction(count * price, 10**6) + Fraction(1, 2))
    return total


def _price(lines: Sequence[Line], tier: str, window: str | None, token_class: str, prompt: int) -> int | None:
    for line_class in _CLASSES[token_class]:
        fitting = [
            line
            for line in lines
            if line.token_class == line_class
            and line.tier == tier
            and line.start <= prompt
            and (line.end is None or prompt < line.end)
        ]
        for wanted in ([window] if window is not None else []) + [None]:
            for line in fitting:
                if line.window == wanted:
                    return line.price
    return None
