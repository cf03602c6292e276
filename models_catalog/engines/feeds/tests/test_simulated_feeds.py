"""What the engine simulators write can be read and says what they meant; neither knows the other."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from devstack.engines.bulk import tell, write_feed
from devstack.engines.feeds.faults import FeedFaults
from devstack.engines.feeds.formats import make_line_format
from devstack.engines.feeds.generic import COLUMNS, EVENT_BATCH, CloudEvents
from devstack.engines.feeds.otlp import CONTENT_TYPES, SpanWriter
from devstack.engines.feeds.sglang import SglangLog
from devstack.engines.feeds.told import Encoding, Told
from devstack.engines.feeds.told import FeedFormat as SimulatedFormat
from models_catalog.engines.feeds import (
    FeedEntry,
    FeedFormat,
    Finish,
    UnreadableItem,
    UnreadableLine,
    body_reader_of,
    parse_options,
    reader_of,
)
from portal.kit.ids import public_id, uuid7

FORMATS: tuple[SimulatedFormat, ...] = (
    *("sglang_log", "sglang_export", "vllm_middleware"),
    *("ndjson", "csv", "cloudevents"),
)
UNIX = 1_795_478_482.25


def options_of(name: SimulatedFormat) -> dict[str, Any]:
    if name not in ("ndjson", "csv"):
        return {}
    columns = {"columns": {column: column for column in COLUMNS}}
    return columns | ({"header": list(COLUMNS)} if name == "csv" else {})


def reader(name: SimulatedFormat) -> Any:
    known = FeedFormat(name)
    return reader_of(known, parse_options(known, options_of(name)))


@pytest.mark.parametrize("name", FORMATS)
def test_a_line_says_what_was_told(name: SimulatedFormat) -> None:
    attempt_id = uuid7()
    told = tell(
        name,
        public_id("att", attempt_id),
        prompt_tokens=120,
        completion_tokens=30,
        cached_tokens=100,
        reasoning_tokens=7,
        finished_unix=UNIX,
    )
    entry = reader(name).read(make_line_format(name).line(told))
    assert (entry.attempt_id, entry.part, entry.finish) == (attempt_id, 0, Finish.STOP)
    counts = (entry.prompt_tokens, entry.cached_tokens, entry.completion_tokens, entry.reasoning_tokens)
    assert counts == (120, 100, 30, 7)
    assert entry.finished_at.timestamp() == pytest.approx(UNIX, abs=1e-5)


def test_beginnings_and_broken_off_answers_say_nothing() -> None:
    told = Told("att_x", 5, None, "abort", finished_unix=UNIX, stream=True)
    assert reader("sglang_log").read(SglangLog().opening(("a", "b"), told)) is None
    assert reader("vllm_middleware").read(make_line_format("vllm_middleware").line(told)) is None


@pytest.mark.parametrize("name", ["sglang_log", "sglang_export"])
def test_embeddings_have_no_completion(name: SimulatedFormat) -> None:
    attempt_id = uuid7()
    told = Told(f"{public_id('att', attempt_id)}_3", 5, None, "length", finished_unix=UNIX)
    entry = reader(name).read(make_line_format(name).line(told))
    assert (entry.attempt_id, entry.part, entry.prompt_tokens) == (attempt_id, 3, 5)
    assert (entry.completion_tokens, entry.cached_tokens) == (0, None)


@pytest.mark.parametrize("encoding", ["protobuf", "json"])
def test_spans_say_what_was_told(encoding: Encoding) -> None:
    attempt_id = uuid7()
    told = Told(f"cmpl-{public_id('att', attempt_id)}-1", 12, 30, "length", finished_unix=UNIX, cap_tokens=30)
    spans = body_reader_of(FeedFormat.VLLM_OTLP, parse_options(FeedFormat.VLLM_OTLP, {}))
    body = SpanWriter().body([(told, 0), (told, 0), (told, 1)], encoding)
    first, again, other = spans.read_body(body, CONTENT_TYPES[encoding])
    assert isinstance(first, FeedEntry)
    assert (first.attempt_id, first.part, first.finish) == (attempt_id, 1, Finish.LENGTH)
    assert (first.prompt_tokens, first.completion_tokens) == (12, 30)
    assert first == again != other


def test_a_batch_of_events_with_one_that_cannot_be() -> None:
    records = [Told("a", 5, 6, finished_unix=UNIX), Told("b", -5, 6, finished_unix=UNIX)]
    events = body_reader_of(FeedFormat.CLOUDEVENTS, parse_options(FeedFormat.CLOUDEVENTS, {}))
    right, wrong = events.read_body(CloudEvents().batch(records), EVENT_BATCH)
    assert isinstance(right, FeedEntry)
    assert isinstance(wrong, UnreadableItem)


@pytest.mark.parametrize("name", FORMATS)
def test_of_each_fault_the_reader_finds_what_it_ought_to(name: SimulatedFormat, tmp_path: Path) -> None:
    """Lost and cut records are missing, cut lines and garbage unreadable, all else is read as it was told."""
    records = [
        tell(name, public_id("att", uuid7()), prompt_tokens=9, completion_tokens=4, finished_unix=UNIX)
        for _ in range(600)
    ]
    faults = FeedFaults(seed=4, lost=0.05, doubled=0.05, cut=0.05, garbage=0.05, rotate=0.01, foreign=0.05)
    written = write_feed(name, records, tmp_path, faults=faults)
    injected = Counter(entry.fault for entry in written.injected)
    assert min(injected.values()) > 0
    read: Counter[str] = Counter()
    unreadable = 0
    lines = reader(name)
    for path in written.files:
        for line in path.read_bytes().split(b"\n"):
            try:
                entry = lines.read(line)
            except UnreadableLine:
                unreadable += 1
            else:
                read.update([entry.wire_id] if entry is not None else [])
    assert unreadable == injected["cut"] + injected["garbage"]
    expected = Counter(told.wire_id for told in records)
    for fault in written.injected:
        by = {"lost": -1, "cut": -1, "doubled": 1, "foreign": 1}.get(fault.fault, 0)
        expected[fault.wire_id or ""] += by
    assert read == +expected
