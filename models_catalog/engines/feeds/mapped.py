"""Anybody's lines, NDJSON and CSV, read by a mapping of columns."""

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from models_catalog.engines.feeds.assembly import assemble
from models_catalog.engines.feeds.entry import MAX_PART, FeedEntry, Finish, LineProblem, UnreadableLine
from models_catalog.engines.feeds.lines import decode, line_of
from models_catalog.engines.feeds.options import BadFeedOptions, FeedOptions, TimeUnit
from models_catalog.engines.feeds.values import (
    count,
    count_in_text,
    finish_of,
    moment_of_text,
    moment_of_unix,
)

_COUNTS = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")
_PER_SECOND = {
    TimeUnit.UNIX_S: 1,
    TimeUnit.UNIX_MS: 1_000,
    TimeUnit.UNIX_US: 1_000_000,
    TimeUnit.UNIX_NS: 1_000_000_000,
}
_UNIX_TIME = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,9})?")


class _MappedEntries:
    """What both have in common: an entry from values under our own names, absent ones None."""

    def __init__(self, options: FeedOptions) -> None:
        self._zone = options.zone()
        self._time_unit = options.time_unit
        self._finishes = {word.lower(): finish for word, finish in options.finishes.items()}
        self._unit = options.count_unit
        self._has_unit = "unit" in options.columns

    def entry(self, values: Mapping[str, Any]) -> FeedEntry:
        if self._has_unit and values.get("unit") != self._unit:
            raise UnreadableLine(LineProblem.WRONG_UNIT, "unit")
        part = values.get("part")
        event_id = values.get("event_id")
        if event_id is not None and not isinstance(event_id, str):
            raise UnreadableLine(LineProblem.WRONG_SHAPE, "event_id")
        return assemble(
            wire_id=values.get("wire_id"),
            part=None if part is None else count(part, "part", MAX_PART),
            prompt_tokens=values.get("prompt_tokens"),
            cached_tokens=values.get("cached_tokens"),
            completion_tokens=values.get("completion_tokens"),
            reasoning_tokens=values.get("reasoning_tokens"),
            finish=self._finish(values.get("finish")),
            finished_at=self._moment(values.get("finished_at")),
            event_id=event_id or "",
        )

    def _finish(self, word: object) -> Finish:
        if isinstance(word, str):
            own = self._finishes.get(word.lower())
            if own is not None:
                return own
        return finish_of(word)

    def _moment(self, value: object) -> datetime | None:
        if value is None:
            return None
        if self._time_unit is TimeUnit.ISO:
            return moment_of_text(value, "finished_at", self._zone)
        return moment_of_unix(value, "finished_at", per_second=_PER_SECOND[self._time_unit])


class NdjsonReader:
    """An object a line. Only the members on the mapped paths are decoded."""

    def __init__(self, options: FeedOptions) -> None:
        self._entries = _MappedEntries(options)
        paths = {field: tuple(path.split(".")) for field, path in options.columns.items()}
        self._decoder = msgspec.json.Decoder(_shape(list(paths.values())))
        self._ways = {field: tuple(map(_attribute, path)) for field, path in paths.items()}

    def read(self, line: bytes) -> FeedEntry | None:
        text = line_of(line)
        if not text:
            return None
        record = decode(self._decoder, text)
        return self._entries.entry({field: _follow(record, way) for field, way in self._ways.items()})


def _attribute(member: str) -> str:
    """A Python name for a member of any name."""
    return f"m{member.encode().hex()}"


def _shape(paths: Sequence[tuple[str, ...]]) -> type[Struct]:
    """A type that has the members on these paths and no others. Raises BadFeedOptions."""
    members: list[tuple[str, Any, Any]] = []
    names = sorted({path[0] for path in paths})
    if "" in names:
        raise BadFeedOptions("a path in columns has an empty step")
    for name in names:
        below = [path[1:] for path in paths if path[0] == name]
        deeper = [path for path in below if path]
        if deeper and len(deeper) < len(below):
            raise BadFeedOptions(f"columns names both {name!r} and something inside of it")
        members.append((_attribute(name), _shape(deeper) | None if deeper else Any, None))
    return msgspec.defstruct("Members", members, rename={_attribute(name): name for name in names})


def _follow(record: Any, way: tuple[str, ...]) -> Any:
    for step in way:
        if record is None:
            return None
        record = getattr(record, step)
    return record


class CsvReader:
    """A record a line: no field holds a line end. Each line is read by the header that the options give; a
    line that is that header, wherever it stands, is skipped."""

    def __init__(self, options: FeedOptions) -> None:
        self._entries = _MappedEntries(options)
        self._header = list(options.header)
        self._places = [(field, self._header.index(name)) for field, name in options.columns.items()]
        self._delimiter = options.delimiter
        self._read_moment: Callable[[str], Any] = str if options.time_unit is TimeUnit.ISO else _unix_time

    def read(self, line: bytes) -> FeedEntry | None:
        text = line_of(line)
        if not text:
            return None
        cells = self._cells(text)
        if cells == self._header:
            return None
        if len(cells) != len(self._header):
            raise UnreadableLine(LineProblem.WRONG_SHAPE, "number of columns")
        return self._entries.entry({field: self._value(field, cells[place]) for field, place in self._places})

    def _cells(self, text: bytes) -> list[str]:
        try:
            line = text.decode()
        except UnicodeDecodeError:
            raise UnreadableLine(LineProblem.NOT_UTF8) from None
        if '"' not in line and "\r" not in line:
            return [cell.strip() for cell in line.split(self._delimiter)]
        try:
            rows = list(csv.reader([line], delimiter=self._delimiter, strict=True))
        except csv.Error:
            raise UnreadableLine(LineProblem.WRONG_SHAPE, "quoting") from None
        return [cell.strip() for cell in rows[0]] if len(rows) == 1 else []

    def _value(self, field: str, cell: str) -> Any:
        if not cell:
            return None
        if field in _COUNTS:
            return count_in_text(cell, field)
        if field == "part":
            return count_in_text(cell, field, MAX_PART)
        return self._read_moment(cell) if field == "finished_at" else cell


def _unix_time(cell: str) -> int | float | None:
    if _UNIX_TIME.fullmatch(cell) is None:
        raise UnreadableLine(LineProblem.BAD_TIME, "finished_at")
    return float(cell) if "." in cell else int(cell)
