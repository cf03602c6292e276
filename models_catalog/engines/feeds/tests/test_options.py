"""What a feed's owner may say about it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from models_catalog.engines import ADAPTERS
from models_catalog.engines.feeds import (
    GENERIC_FORMATS,
    BadFeedOptions,
    FeedFormat,
    Finish,
    LineProblem,
    UnreadableLine,
    parse_options,
    reader_of,
)

COLUMNS = {"wire_id": "id", "prompt_tokens": "in", "completion_tokens": "out"}


def csv_reader(line: str, **more: Any) -> Any:
    raw = {"columns": COLUMNS, "header": ["id", "in", "out"], **more}
    return reader_of(FeedFormat.CSV, parse_options(FeedFormat.CSV, raw)).read(line.encode())


@pytest.mark.parametrize(
    ("format", "raw", "named"),
    [
        (FeedFormat.SGLANG_LOG, {"time_zone": "Mars/Olympus"}, "time_zone"),
        (FeedFormat.SGLANG_LOG, {"time_zone": "../../etc/passwd"}, "time_zone"),
        (FeedFormat.SGLANG_LOG, {"columns": COLUMNS}, "columns"),
        (FeedFormat.NDJSON, {}, "wire_id"),
        (FeedFormat.NDJSON, {"columns": {**COLUMNS, "tokens": "x"}}, "tokens"),
        (FeedFormat.NDJSON, {"columns": {**COLUMNS, "wire_id": ""}}, "wire_id"),
        (FeedFormat.NDJSON, {"columns": {**COLUMNS, "wire_id": "a..b"}}, "empty step"),
        (FeedFormat.NDJSON, {"columns": {**COLUMNS, "wire_id": "in.id"}}, "both"),
        (FeedFormat.NDJSON, {"columns": COLUMNS, "count_unit": "kilo-tokens"}, "kilo-tokens"),
        (FeedFormat.NDJSON, {"columns": COLUMNS, "finishes": {"eos": "GOOD"}}, "GOOD"),
        (FeedFormat.NDJSON, {"columns": COLUMNS, "unknown": 1}, "unknown"),
        (FeedFormat.CSV, {"columns": COLUMNS}, "id"),
        (FeedFormat.CSV, {"columns": COLUMNS, "header": ["id", "in", "out", "in"]}, "twice"),
        (FeedFormat.CSV, {"columns": COLUMNS, "header": ["id", "in", "out"], "delimiter": "::"}, "delimiter"),
        (FeedFormat.CSV, {"columns": COLUMNS, "header": ["id", "in", "out"], "delimiter": '"'}, "delimiter"),
    ],
)
def test_options_that_do_not_fit_are_refused(format: FeedFormat, raw: dict[str, Any], named: str) -> None:
    with pytest.raises(BadFeedOptions, match=named):
        reader_of(format, parse_options(format, raw))


def test_a_csv_header_is_skipped_wherever_it_stands() -> None:
    assert csv_reader("id,in,out") is None
    assert csv_reader("\ufeffid,in,out") is None
    assert csv_reader("7,1,2").wire_id == "7"


@pytest.mark.parametrize("line", ["7,1", "7,1,2,3", 'a"b,1,2x,"', '"7,1,2', "7\r8,1,2"])
def test_lines_of_another_width_are_refused(line: str) -> None:
    with pytest.raises(UnreadableLine) as caught:
        csv_reader(line)
    assert caught.value.reason is LineProblem.WRONG_SHAPE


@pytest.mark.parametrize(
    ("unit", "cell"),
    [
        ("unix_s", "1795478482"),
        ("unix_s", "1795478482.000"),
        ("unix_ms", "1795478482000"),
        ("unix_us", "1795478482000000"),
        ("unix_ns", "1795478482000000000"),
        ("iso", "2026-11-24T00:01:22Z"),
        ("iso", "2026-11-24 00:01:22"),
    ],
)
def test_moments_in_any_unit(unit: str, cell: str) -> None:
    entry = csv_reader(
        f"7,1,2,{cell}",
        columns={**COLUMNS, "finished_at": "t"},
        header=["id", "in", "out", "t"],
        time_unit=unit,
    )
    assert entry.finished_at == datetime(2026, 11, 24, 0, 1, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("unit", "cell"), [("unix_s", "1795478482000"), ("unix_ms", "1795478482"), ("unix_s", "1e9")]
)
def test_a_moment_in_another_unit_is_refused(unit: str, cell: str) -> None:
    with pytest.raises(UnreadableLine) as caught:
        csv_reader(
            f"7,1,2,{cell}",
            columns={**COLUMNS, "finished_at": "t"},
            header=["id", "in", "out", "t"],
            time_unit=unit,
        )
    assert caught.value.reason is LineProblem.BAD_TIME


def test_a_unit_is_read_and_never_converted() -> None:
    mapping = {"columns": {**COLUMNS, "unit": "u"}, "header": ["id", "in", "out", "u"]}
    assert csv_reader("7,1,2,tokens", **mapping).prompt_tokens == 1
    for unit in ("kilo-tokens", "Tokens", ""):
        with pytest.raises(UnreadableLine) as caught:
            csv_reader(f"7,1,2,{unit}", **mapping)
        assert caught.value.reason is LineProblem.WRONG_UNIT


@pytest.mark.parametrize(
    ("word", "finish"),
    [("EOS_TOKEN", Finish.STOP), ("stop", Finish.STOP), ("LENGTH", Finish.LENGTH), ("new", Finish.UNKNOWN)],
)
def test_the_engines_own_words_for_an_end(word: str, finish: Finish) -> None:
    mapping = {"columns": {**COLUMNS, "finish": "f"}, "header": ["id", "in", "out", "f"]}
    assert csv_reader(f"7,1,2,{word}", finishes={"eos_token": "STOP"}, **mapping).finish is finish


def test_another_delimiter() -> None:
    assert csv_reader("7;1;2", delimiter=";").completion_tokens == 2


def test_each_engine_names_its_feeds() -> None:
    assert {name: list(adapter.feed_formats) for name, adapter in ADAPTERS.items()} == {
        "generic": list(GENERIC_FORMATS),
        "llamacpp": list(GENERIC_FORMATS),
        "vllm": [FeedFormat.VLLM_OTLP, FeedFormat.VLLM_MIDDLEWARE, *GENERIC_FORMATS],
        "sglang": [FeedFormat.SGLANG_LOG, FeedFormat.SGLANG_EXPORT, *GENERIC_FORMATS],
    }
