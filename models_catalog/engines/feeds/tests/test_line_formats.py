"""One contract for every line format: the same facts in another spelling are the same entry, and what is
wrong with a line is told without a word of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from models_catalog.engines.feeds import (
    LINE_FORMATS,
    MAX_COUNT,
    MAX_LINE_BYTES,
    FeedEntry,
    FeedFormat,
    Finish,
    LineProblem,
    UnreadableLine,
    reader_of,
)
from models_catalog.engines.feeds.tests.samples import ATTEMPT_ID, MAKERS, OURS, VALUES, options_of

FORMATS = sorted(LINE_FORMATS)
JSON_FORMATS = [format for format in FORMATS if format is not FeedFormat.CSV]


def read(format: FeedFormat, line: bytes) -> FeedEntry | None:
    return reader_of(format, options_of(format)).read(line)


def made(format: FeedFormat, changes: Mapping[str, Any] = {}) -> bytes:
    return MAKERS[format]({**VALUES, **changes})


def refusal(format: FeedFormat, line: bytes) -> UnreadableLine:
    with pytest.raises(UnreadableLine) as caught:
        read(format, line)
    assert caught.value.__cause__ is None, "the cause's message may quote the line"
    return caught.value


def test_every_line_format_has_a_sample() -> None:
    assert set(MAKERS) == LINE_FORMATS == set(FeedFormat) - {FeedFormat.VLLM_OTLP}


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("format", FORMATS)
def test_the_same_facts_are_the_same_entry(format: FeedFormat, ending: bytes) -> None:
    entry = read(format, made(format) + ending)
    assert entry == FeedEntry(
        wire_id=OURS,
        attempt_id=ATTEMPT_ID,
        part=0,
        prompt_tokens=18,
        cached_tokens=17,
        completion_tokens=16,
        reasoning_tokens=3,
        # The middleware cannot know.
        finish=Finish.STOP if format is FeedFormat.VLLM_MIDDLEWARE else Finish.LENGTH,
        finished_at=datetime(2026, 11, 24, 0, 1, 22, 500_000, tzinfo=UTC),
        event_id={
            FeedFormat.CLOUDEVENTS: "/centre/node-1 17",
            FeedFormat.NDJSON: "17",
            FeedFormat.CSV: "17",
        }.get(format, ""),
    )


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_not_told_stays_unknown(format: FeedFormat) -> None:
    entry = read(format, made(format, {"cached_tokens": None, "reasoning_tokens": None}))
    assert entry is not None
    assert (entry.cached_tokens, entry.reasoning_tokens) == (None, None)


@pytest.mark.parametrize("format", FORMATS)
def test_bounds_are_counts_too(format: FeedFormat) -> None:
    changes = {
        "prompt_tokens": MAX_COUNT,
        "cached_tokens": MAX_COUNT,
        "completion_tokens": 0,
        "reasoning_tokens": 0,
    }
    entry = read(format, made(format, changes))
    assert entry is not None
    assert (entry.prompt_tokens, entry.completion_tokens) == (MAX_COUNT, 0)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("line", [b"", b"\n", b"  \r\n", b"\xef\xbb\xbf"])
def test_empty_lines_say_nothing(format: FeedFormat, line: bytes) -> None:
    assert read(format, line) is None


WRONG: list[tuple[dict[str, Any], LineProblem, str]] = [
    ({"prompt_tokens": -1}, LineProblem.NEGATIVE, "prompt_tokens"),
    ({"cached_tokens": -17}, LineProblem.NEGATIVE, "cached_tokens"),
    ({"completion_tokens": -0.5}, LineProblem.NEGATIVE, "completion_tokens"),
    ({"prompt_tokens": 18.5}, LineProblem.NOT_WHOLE, "prompt_tokens"),
    ({"completion_tokens": 16.0}, LineProblem.NOT_WHOLE, "completion_tokens"),
    ({"completion_tokens": MAX_COUNT + 1}, LineProblem.TOO_BIG, "completion_tokens"),
    ({"prompt_tokens": 2**63}, LineProblem.TOO_BIG, "prompt_tokens"),
    ({"prompt_tokens": None}, LineProblem.MISSING_FIELD, "prompt_tokens"),
    ({"completion_tokens": None}, LineProblem.MISSING_FIELD, "completion_tokens"),
    ({"wire_id": None}, LineProblem.MISSING_FIELD, "wire_id"),
    ({"cached_tokens": 19}, LineProblem.INCONSISTENT, "cached_tokens > prompt_tokens"),
    ({"reasoning_tokens": 17}, LineProblem.INCONSISTENT, "reasoning_tokens > completion_tokens"),
    ({"wire_id": "a" * 201}, LineProblem.BAD_ID, "wire_id"),
    ({"wire_id": "a\0b"}, LineProblem.BAD_ID, "wire_id"),
    ({"wire_id": "a\x1b[2Jb"}, LineProblem.BAD_ID, "wire_id"),
    ({"wire_id": "a\u202eb"}, LineProblem.BAD_ID, "wire_id"),
]


@pytest.mark.parametrize(("changes", "reason", "detail"), WRONG)
@pytest.mark.parametrize("format", FORMATS)
def test_wrong_values_are_refused_with_their_reason(
    format: FeedFormat, changes: dict[str, Any], reason: LineProblem, detail: str
) -> None:
    problem = refusal(format, made(format, changes))
    assert (problem.reason, problem.detail) == (reason, detail)


@pytest.mark.parametrize(
    "value", ["1.2k", "18 tokens", "1e3", "0x10", "+18", "\u0661\u0668", "1_000", "NaN", "∞"]
)
def test_csv_counts_are_digits(value: str) -> None:
    assert (
        refusal(FeedFormat.CSV, made(FeedFormat.CSV, {"prompt_tokens": value})).reason
        is LineProblem.NOT_WHOLE
    )


def test_csv_counts_of_any_length_are_numbers_or_too_big() -> None:
    for digits in (1, 10, 20, 21, 5_000):
        line = made(FeedFormat.CSV, {"prompt_tokens": "0" * digits + "18"})
        if digits + 2 <= 20:
            entry = read(FeedFormat.CSV, line)
            assert entry is not None
            assert entry.prompt_tokens == 18
        else:
            assert refusal(FeedFormat.CSV, line).reason is LineProblem.TOO_BIG


@pytest.mark.parametrize("value", [True, False, "18", [18], {"value": 1.2, "unit": "kilo-tokens"}])
@pytest.mark.parametrize("format", JSON_FORMATS)
def test_what_is_no_number_is_no_count(format: FeedFormat, value: object) -> None:
    problem = refusal(format, made(format, {"prompt_tokens": value}))
    assert (problem.reason, problem.detail) == (LineProblem.WRONG_SHAPE, "prompt_tokens")


@pytest.mark.parametrize(
    "text", ["NaN", "Infinity", "-Infinity", "1e999", "018", "0x12", "1" * 400, "-" + "1" * 40]
)
@pytest.mark.parametrize("format", JSON_FORMATS)
def test_numbers_that_json_does_not_have(format: FeedFormat, text: str) -> None:
    line = made(format, {"prompt_tokens": 8_765_432}).replace(b"8765432", text.encode())
    assert refusal(format, line).reason in {
        LineProblem.NOT_JSON,
        LineProblem.TOO_BIG,
        LineProblem.NOT_WHOLE,
        LineProblem.NEGATIVE,
        LineProblem.WRONG_SHAPE,
    }


@pytest.mark.parametrize("format", FORMATS)
def test_moments_outside_of_reason_are_refused(format: FeedFormat) -> None:
    for unix, text in (
        (0, "1970-01-01T00:00:00Z"),
        (1795478482500, "9999-12-31T23:59:59-14:00"),
        (1e300, "yesterday"),
        ("1795478482", "2026-13-01"),
    ):
        assert refusal(format, made(format, {"finished_unix": unix, "finished_at": text})).reason is (
            LineProblem.BAD_TIME
        )


@pytest.mark.parametrize("format", FORMATS)
def test_lines_of_another_encoding_are_refused(format: FeedFormat) -> None:
    line = made(format).replace(OURS.encode(), b"\xff\xfe" + OURS.encode())
    assert refusal(format, line).reason in {LineProblem.NOT_UTF8, LineProblem.NOT_JSON}


@pytest.mark.parametrize("format", JSON_FORMATS)
def test_halves_of_characters_are_refused(format: FeedFormat) -> None:
    line = made(format, {"wire_id": "HERE"}).replace(b"HERE", b"\\ud800")
    assert refusal(format, line).reason in {LineProblem.NOT_JSON, LineProblem.BAD_ID, LineProblem.NOT_UTF8}


@pytest.mark.parametrize("format", JSON_FORMATS)
@pytest.mark.parametrize("where", ["kept", "skipped"])
def test_deep_nesting_is_refused(format: FeedFormat, where: str) -> None:
    deep = b"[" * 200_000 + b"]" * 200_000
    line = made(format)
    if where == "kept":
        line = made(format, {"prompt_tokens": 8_765_432}).replace(b"8765432", deep)
    else:
        at = line.index(b"{") + 1
        line = line[:at] + b'"x":' + deep + b"," + line[at:]
    assert refusal(format, line).reason is LineProblem.TOO_DEEP


@pytest.mark.parametrize("format", FORMATS)
def test_a_line_has_a_greatest_length(format: FeedFormat) -> None:
    line = made(format)
    assert refusal(format, line + b" " * (MAX_LINE_BYTES + 1 - len(line))).reason is LineProblem.TOO_LONG
    assert read(format, line + b" " * (MAX_LINE_BYTES - len(line))) is not None


@pytest.mark.parametrize("format", FORMATS)
def test_every_beginning_of_a_line_is_refused(format: FeedFormat) -> None:
    """As a file shows it while its writer is at it."""
    line = made(format)
    for length in range(1, len(line) - (3 if format is FeedFormat.CSV else 0)):
        assert refusal(format, line[:length]).reason is not None


@pytest.mark.parametrize("format", JSON_FORMATS)
@pytest.mark.parametrize("text", [b"null", b"[]", b"7", b'"x"', b"true", b"{}", b"{}{}", b"{} {"])
def test_other_json_is_refused(format: FeedFormat, text: bytes) -> None:
    assert refusal(format, text).reason in {
        LineProblem.WRONG_SHAPE,
        LineProblem.MISSING_FIELD,
        LineProblem.NOT_JSON,
        LineProblem.UNKNOWN_TYPE,
    }


@pytest.mark.parametrize("format", JSON_FORMATS)
def test_of_a_member_named_twice_the_last_counts(format: FeedFormat) -> None:
    """Every time: the same line is the same entry."""
    line = made(format)
    name = b'"in": ' if format is FeedFormat.NDJSON else b'"prompt_tokens": '
    twice = line.replace(name + b"18", name + b"999999, " + name + b"18")
    assert twice != line
    assert read(format, twice) == read(format, line)


@pytest.mark.parametrize(
    ("wire_id", "part"),
    [
        (OURS, 0),
        (f"chatcmpl-{OURS}", 0),
        (f"cmpl-{OURS}-0", 0),
        (f"cmpl-{OURS}-12", 12),
        (f"embd-{OURS}", 0),
        (f"{OURS}_3", 3),
        (f"chatcmpl-{OURS}-0a1b2c3d", 0),
        (f"cmpl-{OURS}-1-0a1b2c3d", 1),
    ],
)
@pytest.mark.parametrize("format", FORMATS)
def test_our_id_is_found_in_theirs(format: FeedFormat, wire_id: str, part: int) -> None:
    entry = read(format, made(format, {"wire_id": wire_id}))
    assert entry is not None
    assert (entry.wire_id, entry.attempt_id, entry.part) == (wire_id, ATTEMPT_ID, part)


@pytest.mark.parametrize(
    "wire_id",
    [
        "chatcmpl-ab12",
        OURS.upper(),
        OURS[:-1],
        OURS + "0",
        OURS.replace("att", "req"),
        f"{OURS}-99999",
        f"x {OURS}",
        # Versions that we do not make, and a time that no calendar has.
        "att_00000000000000000000000000",
        "att_7zzzzzzzzzzzfzzzzzzzzzzzzz",
    ],
)
@pytest.mark.parametrize("format", FORMATS)
def test_other_ids_are_not_taken_for_ours(format: FeedFormat, wire_id: str) -> None:
    entry = read(format, made(format, {"wire_id": wire_id}))
    assert entry is not None
    assert (entry.wire_id, entry.attempt_id, entry.part) == (wire_id, None, 0)


def test_json_lines_may_start_with_a_mark_of_byte_order() -> None:
    line = json.dumps(json.loads(made(FeedFormat.NDJSON))).encode()
    assert read(FeedFormat.NDJSON, b"\xef\xbb\xbf" + line) == read(FeedFormat.NDJSON, line)
