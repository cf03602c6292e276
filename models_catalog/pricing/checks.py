"""What has to be right about a draft before it is stored, each mistake with its place. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from models_catalog.models import ServiceTier, TokenClass
from models_catalog.models.prices import MAX_PRICE_NANOS_PER_MILLION
from models_catalog.pricing.content import PriceContent, PriceLineContent, same_place
from models_catalog.pricing.weeks import WEEK_MINUTES, Span, merged, overlap

MAX_WINDOWS: Final = 32
MAX_SPANS: Final = 64
# What one form can hold; catalog files may go further.
MAX_LINES: Final = 120
MAX_INPUT_TOKENS: Final = 20_000_000
MAX_NAME_LENGTH: Final = 64
MAX_ZONE_LENGTH: Final = 64

_NOT_TEXT: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Fault(StrEnum):
    UNKNOWN_ZONE = "UNKNOWN_ZONE"
    TOO_MANY = "TOO_MANY"
    NAME_MISSING = "NAME_MISSING"
    NAME_NOT_TEXT = "NAME_NOT_TEXT"
    NAME_TWICE = "NAME_TWICE"
    SPANS_MISSING = "SPANS_MISSING"
    SPANS_OUTSIDE_WEEK = "SPANS_OUTSIDE_WEEK"
    SPANS_OVERLAP = "SPANS_OVERLAP"
    CLASS_UNKNOWN = "CLASS_UNKNOWN"
    TIER_UNKNOWN = "TIER_UNKNOWN"
    WINDOW_UNKNOWN = "WINDOW_UNKNOWN"
    PRICE_OUT_OF_RANGE = "PRICE_OUT_OF_RANGE"
    LENGTH_OUT_OF_RANGE = "LENGTH_OUT_OF_RANGE"
    LENGTHS_BACKWARD = "LENGTHS_BACKWARD"
    LINE_TWICE = "LINE_TWICE"


@dataclass(frozen=True, slots=True)
class Problem:
    """part: time_zone, windows or lines. index: which of them, None for all. field: of that one.
    other: the name of what it collides with, or the highest number allowed."""

    fault: Fault
    part: str
    index: int | None = None
    field: str = ""
    other: str = ""


class InvalidTariff(ValueError):
    """What was entered cannot be stored; `problems` says what and where."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(
            ", ".join(f"{each.part}[{each.index}].{each.field}: {each.fault}" for each in problems)
        )
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class WindowEntry:
    """A named part of the week as it is entered; spans in any order, in minutes of the week."""

    name: str
    spans: tuple[Span, ...]


def checked_content(
    *,
    time_zone: str,
    windows: Sequence[WindowEntry],
    lines: Sequence[PriceLineContent],
    known_zones: frozenset[str],
) -> PriceContent:
    """The content that these entries make. known_zones: the names that the database knows, of those asked
    for. What is still missing is no mistake: see content.gaps. Errors: InvalidTariff."""
    problems: list[Problem] = []
    if time_zone not in known_zones or len(time_zone) > MAX_ZONE_LENGTH:
        problems.append(Problem(Fault.UNKNOWN_ZONE, "time_zone"))
    problems += _window_problems(windows)
    problems += _line_problems(lines, {window.name for window in windows})
    if problems:
        raise InvalidTariff(problems)
    return PriceContent(
        time_zone,
        frozenset((window.name, merged(window.spans)) for window in windows),
        frozenset(lines),
    )


def _window_problems(windows: Sequence[WindowEntry]) -> list[Problem]:
    if len(windows) > MAX_WINDOWS:
        return [Problem(Fault.TOO_MANY, "windows", other=str(MAX_WINDOWS))]
    problems: list[Problem] = []
    for index, window in enumerate(windows):
        name_fault = _name_fault(window.name, [other.name for other in windows[:index]])
        if name_fault is not None:
            problems.append(Problem(name_fault, "windows", index, "name"))
        if not window.spans:
            problems.append(Problem(Fault.SPANS_MISSING, "windows", index, "spans"))
        elif len(merged(window.spans)) > MAX_SPANS:
            problems.append(Problem(Fault.TOO_MANY, "windows", index, "spans", str(MAX_SPANS)))
        elif not all(0 <= start < end <= WEEK_MINUTES for start, end in window.spans):
            problems.append(Problem(Fault.SPANS_OUTSIDE_WEEK, "windows", index, "spans"))
        else:
            problems += [
                Problem(Fault.SPANS_OVERLAP, "windows", index, "spans", other.name)
                for other in windows[:index]
                if overlap(other.spans, window.spans)
            ]
    return problems


def _name_fault(name: str, others: Sequence[str]) -> Fault | None:
    if not name.strip():
        return Fault.NAME_MISSING
    if len(name) > MAX_NAME_LENGTH or _NOT_TEXT.search(name) or name != name.strip():
        return Fault.NAME_NOT_TEXT
    return Fault.NAME_TWICE if name in others else None


def _line_problems(lines: Sequence[PriceLineContent], names: set[str]) -> list[Problem]:
    if len(lines) > MAX_LINES:
        return [Problem(Fault.TOO_MANY, "lines", other=str(MAX_LINES))]
    problems: list[Problem] = []
    for index, line in enumerate(lines):
        found = [Problem(fault, "lines", index, field) for field, fault in _line_faults(line, names)]
        if not found and any(same_place(line, other) for other in lines[:index]):
            found = [Problem(Fault.LINE_TWICE, "lines", index, "token_class")]
        problems += found
    return problems


def _line_faults(line: PriceLineContent, names: set[str]) -> list[tuple[str, Fault]]:
    faults: list[tuple[str, Fault]] = []
    if line.token_class not in TokenClass.values:
        faults.append(("token_class", Fault.CLASS_UNKNOWN))
    if line.service_tier not in ServiceTier.values:
        faults.append(("service_tier", Fault.TIER_UNKNOWN))
    if line.window is not None and line.window not in names:
        faults.append(("window", Fault.WINDOW_UNKNOWN))
    if not 0 <= line.price_nanos_per_million <= MAX_PRICE_NANOS_PER_MILLION:
        faults.append(("price", Fault.PRICE_OUT_OF_RANGE))
    if not 0 <= line.input_from_tokens <= MAX_INPUT_TOKENS:
        faults.append(("input_from", Fault.LENGTH_OUT_OF_RANGE))
    if line.input_to_tokens is not None:
        if not 1 <= line.input_to_tokens <= MAX_INPUT_TOKENS:
            faults.append(("input_to", Fault.LENGTH_OUT_OF_RANGE))
        elif line.input_to_tokens <= line.input_from_tokens:
            faults.append(("input_to", Fault.LENGTHS_BACKWARD))
    return faults
