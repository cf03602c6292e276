"""Whatever stands on a line: an entry, nothing, or a reason; and no word of the line in the reason."""

from __future__ import annotations

import json
from datetime import UTC
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from models_catalog.engines.feeds import (
    LINE_FORMATS,
    MAX_COUNT,
    MAX_EVENT_ID,
    MAX_PART,
    MAX_WIRE_ID,
    FeedEntry,
    FeedFormat,
    UnreadableLine,
    reader_of,
)
from models_catalog.engines.feeds.tests.samples import MAKERS, VALUES, options_of

FORMATS = sorted(LINE_FORMATS)
READERS = {format: reader_of(format, options_of(format)) for format in FORMATS}
# All that a detail may say: it is written here again, so that no text of a line can ever come into one.
DETAILS = {
    "",
    "time in brackets",
    "out.meta_info",
    "timestamp",
    "request_finished_ts",
    "wire_id",
    "event_id",
    "part",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "cached_tokens > prompt_tokens",
    "reasoning_tokens > completion_tokens",
    "v",
    "finished_unix",
    "specversion",
    "type",
    "source",
    "id",
    "time",
    "data",
    "data.unit",
    "data.part",
    "unit",
    "finished_at",
    "number of columns",
    "quoting",
}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["request.finished", "1.0", "sluice.usage.v1"]),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=8), below, max_size=4),
    max_leaves=12,
)
KEYS = [
    "event",
    "out",
    "meta_info",
    "id",
    "v",
    "usage",
    "request_id",
    "specversion",
    "type",
    "source",
    "data",
    "time",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "finish_reason",
    "request",
    "in",
    "hit",
    "why",
    "at",
]
likely_objects = st.recursive(
    json_values, lambda below: st.dictionaries(st.sampled_from(KEYS), below, max_size=6), max_leaves=30
)


def problem_of(format: FeedFormat, line: bytes) -> UnreadableLine | None:
    """What is wrong with the line; otherwise its entry, if there is one, is what an entry may be."""
    try:
        entry = READERS[format].read(line)
    except UnreadableLine as problem:
        return problem
    if entry is not None:
        check_entry(entry)
    return None


def check_entry(entry: FeedEntry) -> None:
    assert 0 < len(entry.wire_id) <= MAX_WIRE_ID
    assert len(entry.event_id) <= MAX_EVENT_ID
    for text in (entry.wire_id, entry.event_id):
        text.encode()
        assert "\0" not in text
    assert 0 <= entry.part <= MAX_PART
    assert 0 <= (entry.cached_tokens or 0) <= entry.prompt_tokens <= MAX_COUNT
    assert 0 <= (entry.reasoning_tokens or 0) <= entry.completion_tokens <= MAX_COUNT
    assert entry.finished_at is None or entry.finished_at.tzinfo is UTC


def check(format: FeedFormat, line: bytes) -> None:
    problem = problem_of(format, line)
    if problem is not None:
        assert problem.detail in DETAILS
        assert problem.__cause__ is None
        assert problem.__context__ is None or problem.__suppress_context__


def check_all(line: bytes) -> None:
    for format in FORMATS:
        check(format, line)


@given(line=st.binary(max_size=300))
def test_any_bytes(line: bytes) -> None:
    check_all(line)


@given(told=likely_objects)
def test_any_json(told: Any) -> None:
    check_all(json.dumps(told).encode())


@given(text=st.text(max_size=80))
def test_any_text(text: str) -> None:
    check_all(text.encode(errors="surrogatepass"))


@given(damage=st.binary(max_size=6), place=st.integers(0, 1000), cut=st.integers(0, 6))
def test_any_damage(damage: bytes, place: int, cut: int) -> None:
    for format in FORMATS:
        line = MAKERS[format](VALUES)
        at = place % (len(line) + 1)
        check(format, line[:at] + damage + line[at + cut :])


@given(name=st.sampled_from(sorted(VALUES)), value=json_values)
def test_any_value_in_any_place(name: str, value: Any) -> None:
    for format in FORMATS:
        check(format, MAKERS[format]({**VALUES, name: value}))
