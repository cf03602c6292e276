"""Lines of a bundle: what of a call is in it, and how it is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from portal.kit.ids import PREFIXES, public_id

COLUMNS: Final = (
    "request",
    "admitted_at",
    "model",
    "api_key",
    "endpoint",
    "price",
    "window",
    "service_tier",
    "choices",
    "cancel_policy",
    "state",
    "hold_nanos",
    "ceiling_nanos",
    "revision",
    "recorded_at",
    "source",
    "basis",
    "provenance",
    "billed",
    "prompt_tokens",
    "cached_tokens",
    "image_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "cost_nanos",
    "waived_nanos",
    "overrun_nanos",
    "charged_nanos",
    "granted_nanos",
    "owed_nanos",
    "transaction",
)
CORRECTION_COLUMNS: Final = (*COLUMNS, "cause")
WINDOW_PREFIX: Final = "pwn"
# Where what is added up begins, in a row as the snapshot reads it.
_MODEL: Final = COLUMNS.index("model")
_REVISION: Final = COLUMNS.index("revision")
_FIRST_SUM: Final = COLUMNS.index("prompt_tokens")
_LAST_SUM: Final = COLUMNS.index("owed_nanos")
SUMS: Final = COLUMNS[_FIRST_SUM : _LAST_SUM + 1]

Row = tuple[Any, ...]
"""In the order of COLUMNS, ids as UUIDs; a call without a usage record has revision 0 and zeros."""


class UnwritableLine(ValueError):
    """A value does not fit a line without quotes. None of ours does."""


def moment_text(at: datetime | None) -> str:
    """A moment in UTC to the microsecond; nothing for None."""
    return "" if at is None else f"{at.astimezone(UTC).isoformat(timespec='microseconds')[:26]}Z"


@dataclass(slots=True)
class LineWriter:
    """Writes rows as lines. Ids that many calls share are spelled once."""

    _spelled: dict[tuple[str, UUID], str] = field(default_factory=dict)

    def head(self, columns: Iterable[str]) -> str:
        return ",".join(columns) + "\n"

    def line(self, row: Row, *further: str) -> str:
        (request_id, admitted_at, slug, key_id, endpoint, price_id, window_id, *call) = row
        revision_at = _REVISION - 7
        terms, record = call[:revision_at], call[revision_at:]
        revision, recorded_at, *facts, transfer_id = record
        cells = (
            public_id(PREFIXES["request"], request_id),
            moment_text(admitted_at),
            slug,
            self._shared(PREFIXES["api_key"], key_id),
            endpoint,
            self._shared(PREFIXES["price"], price_id),
            "" if window_id is None else self._shared(WINDOW_PREFIX, window_id),
            *("" if value is None else str(value) for value in terms),
            str(revision),
            moment_text(recorded_at),
            *(str(value) for value in facts),
            "" if transfer_id is None else public_id(PREFIXES["transfer"], transfer_id),
            *further,
        )
        text = ",".join(cells)
        if text.count(",") != len(cells) - 1 or '"' in text or "\n" in text or "\r" in text:
            raise UnwritableLine("a cell holds what separates cells")
        return text + "\n"

    def _shared(self, prefix: str, value: UUID) -> str:
        key = (prefix, value)
        if key not in self._spelled:
            self._spelled[key] = public_id(prefix, value)
        return self._spelled[key]


@dataclass(slots=True)
class Totals:
    """Lines added up, all of them and by model. calls: with a usage record; without one there is none to
    bill. Amounts in nano-units."""

    lines: int = 0
    calls: int = 0
    _models: dict[str, list[int]] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        self.lines += 1
        if row[_REVISION] == 0:
            return
        self.calls += 1
        sums = self._models.setdefault(row[_MODEL], [0] * (len(SUMS) + 1))
        sums[0] += 1
        for place, value in enumerate(row[_FIRST_SUM : _LAST_SUM + 1], start=1):
            sums[place] += value

    def sum_of(self, column: str) -> int:
        place = SUMS.index(column) + 1
        return sum(sums[place] for sums in self._models.values())

    def as_json(self) -> dict[str, Any]:
        names = ("calls", *SUMS)
        return {
            "lines": self.lines,
            "calls": self.calls,
            **{name: self.sum_of(name) for name in SUMS},
            "models": {
                slug: dict(zip(names, sums, strict=True)) for slug, sums in sorted(self._models.items())
            },
        }


@dataclass(slots=True)
class LateTotals:
    """What was posted within the period about calls that were admitted before it. Amounts in nano-units."""

    calls: set[UUID] = field(default_factory=set)
    corrections: int = 0
    cost_nanos: int = 0
    charged_nanos: int = 0

    def add(self, request_id: UUID, *, cost_nanos: int, charged_nanos: int) -> None:
        self.calls.add(request_id)
        self.corrections += 1
        self.cost_nanos += cost_nanos
        self.charged_nanos += charged_nanos

    def as_json(self) -> dict[str, int]:
        return {
            "calls": len(self.calls),
            "corrections": self.corrections,
            "cost_nanos": self.cost_nanos,
            "charged_nanos": self.charged_nanos,
        }
