"""What only SGLang's files have."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from models_catalog.engines.feeds import (
    FeedFormat,
    FeedOptions,
    Finish,
    LineProblem,
    UnreadableLine,
    reader_of,
)
from models_catalog.engines.feeds.tests.samples import ATTEMPT_ID, CAPTURES, OURS, SECRET, VALUES, sglang_log

LOG = reader_of(FeedFormat.SGLANG_LOG, FeedOptions())


def event(**changes: Any) -> dict[str, Any]:
    line = sglang_log(VALUES)
    return {**json.loads(line[line.index(b"{") :]), **changes}


def line_of(told: dict[str, Any]) -> bytes:
    return b"[2026-11-24 00:01:22] " + json.dumps(told).encode()


@pytest.mark.parametrize("name", ["request.received", "request.received.openai", "request.aborted", ""])
def test_other_events_say_nothing(name: str) -> None:
    assert LOG.read(line_of({"event": name, "rid": OURS, "obj": {"text": SECRET}})) is None


def test_a_rid_that_is_a_list_stands_in_events_that_we_skip() -> None:
    assert LOG.read(CAPTURES["sglang"]["chat_n2"]["log"][0].encode()) is None


def test_a_finished_call_without_counts_is_no_line_of_ours() -> None:
    for out in (None, {}, {"meta_info": None}):
        with pytest.raises(UnreadableLine) as caught:
            LOG.read(line_of(event(out=out)))
        assert caught.value.reason is LineProblem.MISSING_FIELD


@pytest.mark.parametrize(
    ("zone", "local", "expected"),
    [
        ("UTC", "2026-11-24T00:01:22.500000", datetime(2026, 11, 24, 0, 1, 22, 500_000, tzinfo=UTC)),
        (
            "Asia/Shanghai",
            "2026-11-24T08:01:22.500000",
            datetime(2026, 11, 24, 0, 1, 22, 500_000, tzinfo=UTC),
        ),
        ("Europe/Berlin", "2026-07-01T12:00:00", datetime(2026, 7, 1, 10, tzinfo=UTC)),
        # An hour that comes twice is taken for its first time, one that never comes for a moment after it.
        ("Europe/Berlin", "2026-10-25T02:30:00", datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
        ("Europe/Berlin", "2026-03-29T02:30:00", datetime(2026, 3, 29, 1, 30, tzinfo=UTC)),
        ("Asia/Shanghai", "2026-11-24T00:01:22+00:00", datetime(2026, 11, 24, 0, 1, 22, tzinfo=UTC)),
    ],
)
def test_local_time_is_the_feeds(zone: str, local: str, expected: datetime) -> None:
    told = event(timestamp=local)
    del told["out"]["meta_info"]["request_finished_ts"]
    entry = reader_of(FeedFormat.SGLANG_LOG, FeedOptions(time_zone=zone)).read(line_of(told))
    assert entry is not None
    assert entry.finished_at == expected


def test_the_absolute_time_is_preferred() -> None:
    entry = reader_of(FeedFormat.SGLANG_LOG, FeedOptions(time_zone="Asia/Shanghai")).read(line_of(event()))
    assert entry is not None
    assert entry.finished_at == datetime(2026, 11, 24, 0, 1, 22, 500_000, tzinfo=UTC)


def test_embeddings_have_no_output() -> None:
    told = event()
    meta = told["out"]["meta_info"]
    for name in ("completion_tokens", "cached_tokens", "reasoning_tokens"):
        del meta[name]
    meta["id"] = f"{OURS}_1"
    entry = LOG.read(line_of(told))
    assert entry is not None
    assert (entry.part, entry.completion_tokens, entry.cached_tokens) == (1, 0, None)


def test_what_was_aborted_while_it_waited_used_nothing() -> None:
    meta = {"id": OURS, "finish_reason": {"type": "abort", "message": SECRET}}
    assert LOG.read(line_of(event(out={"meta_info": meta}))) is None


@pytest.mark.parametrize(
    ("word", "finish"),
    [("stop", Finish.STOP), ("length", Finish.LENGTH), ("abort", Finish.ABORT), ("new", Finish.UNKNOWN)],
)
def test_ends(word: str, finish: Finish) -> None:
    told = event()
    told["out"]["meta_info"]["finish_reason"] = {"type": word, "length": 16}
    entry = LOG.read(line_of(told))
    assert entry is not None
    assert entry.finish is finish


def test_a_header_names_the_attempt_where_the_rid_is_the_engines_own() -> None:
    told = event(headers={"x-request-id": OURS})
    told["out"]["meta_info"]["id"] = "resp_b9d48589ed6744fca0aff55d21d9dcaf"
    entry = LOG.read(line_of(told))
    assert entry is not None
    assert (entry.attempt_id, entry.wire_id) == (ATTEMPT_ID, "resp_b9d48589ed6744fca0aff55d21d9dcaf")
    told["headers"] = {"x-request-id": ["not", "a", "text"]}
    entry = LOG.read(line_of(told))
    assert entry is not None
    assert entry.attempt_id is None


def test_a_bracket_that_never_ends_is_refused() -> None:
    with pytest.raises(UnreadableLine):
        LOG.read(b"[" + b"2026-11-24 00:01:22 " * 1000)


def test_lines_without_the_bracket_are_read_too() -> None:
    assert LOG.read(json.dumps(event()).encode()) == LOG.read(line_of(event()))
