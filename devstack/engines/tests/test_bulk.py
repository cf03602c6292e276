"""The bulk writer: the lines of the live writer, faults by seed, each of them named."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from devstack.engines.bulk import made_up, tell, write_feed
from devstack.engines.feeds.faults import RECORD_FAULTS, FeedFaults, FeedFaultsError
from devstack.engines.feeds.formats import make_line_format
from devstack.engines.feeds.injected import Injections
from devstack.engines.feeds.told import FeedFormat
from devstack.engines.feeds.writer import LineFeed

FORMATS: tuple[FeedFormat, ...] = (
    *("sglang_log", "sglang_export", "vllm_middleware"),
    *("ndjson", "csv", "cloudevents"),
)
ALL = FeedFaults(
    seed=5,
    clock_skew_s=-7.5,
    foreign=0.05,
    **dict.fromkeys(("lost", "doubled", "cut", "garbage"), 0.05),
    **dict.fromkeys(("copied", "rotate", "rotate_mid_line", "truncate"), 0.005),
)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def ids_in(folder: Path) -> Counter[str]:
    """How often a record of NDJSON can be read somewhere, by its id."""
    found: Counter[str] = Counter()
    for path in folder.iterdir():
        for line in path.read_bytes().split(b"\n"):
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if record["prompt_tokens"] > 0:
                found[record["wire_id"]] += 1
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_the_lines_are_those_of_the_live_writer(name: FeedFormat, tmp_path: Path) -> None:
    records = list(made_up(name, 400, seed=1))
    chosen = FeedFaults.parse(str(ALL).replace("foreign=0.05", "foreign=0.0"))
    written = write_feed(name, records, tmp_path / "bulk", faults=chosen)
    injections = Injections()
    form = make_line_format(name, skew_s=chosen.clock_skew_s, hostname="engine")
    live = LineFeed(form, tmp_path / "live", chosen, injections)
    for told in records:
        live.tell(told)
    live.close()
    assert contents(tmp_path / "bulk") == contents(tmp_path / "live")
    assert [(entry.fault, entry.wire_id, entry.details) for entry in written.injected] == [
        (entry.fault, entry.wire_id, entry.details) for entry in injections.entries
    ]
    assert {entry.fault for entry in written.injected} >= {"lost", "doubled", "cut", "garbage", "clock_skew"}


def test_a_seed_makes_the_same_files_and_another_one_others(tmp_path: Path) -> None:
    records = list(made_up("ndjson", 2000, seed=1))
    first, again, other = (
        write_feed(
            "ndjson", records, tmp_path / name, faults=FeedFaults.parse(f"{text},lost=0.1,foreign=0.1")
        )
        for name, text in (("first", "seed=1"), ("again", "seed=1"), ("other", "seed=2"))
    )
    assert contents(tmp_path / "first") == contents(tmp_path / "again") != contents(tmp_path / "other")
    assert [entry.wire_id for entry in first.injected] == [entry.wire_id for entry in again.injected]
    assert first.foreign > 0
    assert other.records == 2000


def test_each_fault_is_named_and_nothing_else_happens(tmp_path: Path) -> None:
    """What can be read is what was given, less and more by exactly the faults that are booked."""
    records = list(made_up("ndjson", 4000, seed=3))
    # Copies of whole files and halves of lines are looked at below.
    chosen = FeedFaults(seed=9, lost=0.02, doubled=0.02, cut=0.02, garbage=0.02, rotate=0.002, foreign=0.02)
    written = write_feed("ndjson", records, tmp_path, faults=chosen)
    expected = Counter(told.wire_id for told in records)
    for entry in written.injected:
        assert entry.wire_id is not None
        match entry.fault:
            case "foreign" | "doubled":
                expected[entry.wire_id] += 1
            case "lost" | "cut":
                expected[entry.wire_id] -= 1
    assert ids_in(tmp_path) == +expected
    assert Counter(entry.fault for entry in written.injected).keys() == {
        *("lost", "doubled", "cut", "garbage", "rotate", "foreign")
    }
    assert len(written.files) == 1 + sum(entry.fault == "rotate" for entry in written.injected)


@pytest.mark.parametrize("name", ["ndjson", "csv"])
def test_a_rotated_line_continues_in_the_next_file(name: FeedFormat, tmp_path: Path) -> None:
    records = list(made_up(name, 300, seed=3))
    written = write_feed(name, records, tmp_path / "a", faults=FeedFaults(seed=2, rotate_mid_line=0.02))
    assert len(written.injected) > 2
    joined = b"".join(path.read_bytes() for path in written.files)
    write_feed(name, records, tmp_path / "b")
    (whole,) = contents(tmp_path / "b").values()
    assert joined == whole


def test_a_truncated_file_is_whole_in_its_copies(tmp_path: Path) -> None:
    records = list(made_up("ndjson", 300, seed=3))
    written = write_feed("ndjson", records, tmp_path, faults=FeedFaults(seed=2, truncate=0.02))
    assert len(written.files) == 1 + len(written.injected) > 2
    assert ids_in(tmp_path) == Counter(told.wire_id for told in records)


def test_a_copied_file_says_everything_so_far_twice(tmp_path: Path) -> None:
    records = list(made_up("ndjson", 300, seed=3))
    written = write_feed("ndjson", records, tmp_path, faults=FeedFaults(seed=4, copied=0.005))
    found = ids_in(tmp_path)
    (last,) = [entry for entry in written.injected if entry.number == len(written.injected)]
    copied = [told.wire_id for told in records].index(last.wire_id or "") + 1
    assert set(found) == {told.wire_id for told in records}
    assert all(found[told.wire_id] >= 2 for told in records[:copied])
    assert all(found[told.wire_id] == 1 for told in records[copied:])


def test_files_of_a_given_length(tmp_path: Path) -> None:
    records = list(made_up("csv", 250, seed=3))
    written = write_feed("csv", records, tmp_path, lines_per_file=100)
    assert [path.read_bytes().count(b"\n") for path in written.files] == [101, 101, 51]
    header = b"event_id,wire_id,part,prompt_tokens"
    assert all(path.read_bytes().startswith(header) for path in written.files)


def test_the_engine_makes_its_own_id_of_an_attempt() -> None:
    told = [tell(name, "att_01", prompt_tokens=1, completion_tokens=1, finished_unix=2.0) for name in FORMATS]
    assert [one.wire_id for one in told] == ["att_01", "att_01", "chatcmpl-att_01", *["att_01"] * 3]


@pytest.mark.parametrize(
    "text",
    ["lost", "lost=x", "lost=-0.1", "lost=0.6,cut=0.6", "lots=0.1", "lost=0.1,lost=0.1", "clock_skew_s=1e9"],
)
def test_faults_that_are_none(text: str) -> None:
    with pytest.raises(FeedFaultsError):
        FeedFaults.parse(text)


def test_faults_are_parsed_as_they_are_printed() -> None:
    assert FeedFaults.parse(str(ALL)) == ALL
    assert FeedFaults.parse("") == FeedFaults()
    assert len(RECORD_FAULTS) == 8
