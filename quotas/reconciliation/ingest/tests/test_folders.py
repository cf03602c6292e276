"""A watched folder: whatever is done to its files, the records are those that its lines tell."""

from __future__ import annotations

import gzip
import os
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

from models_catalog.engines.feeds import MAX_LINE_BYTES, FeedFormat
from quotas.reconciliation.ingest import batch as batches
from quotas.reconciliation.ingest import lines as reading_lines
from quotas.reconciliation.ingest.folders import FolderRead, tail_feed, tail_feeds
from quotas.reconciliation.ingest.source import FeedSource
from quotas.reconciliation.ingest.tests.feeds import (
    CSV_HEADER,
    files_of,
    make_feed,
    ndjson_line,
    quarantine_of,
    records_of,
    state_of,
)
from tenants import queries as tenant_queries


@pytest.fixture
def feed(tmp_path: Path) -> FeedSource:
    return make_feed(folder=tmp_path)


def tail(feed: FeedSource) -> FolderRead:
    return tail_feed(feed=feed, now=tenant_queries.database_time())


def aged(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_file_is_read_on_from_where_it_was_left(feed: FeedSource, tmp_path: Path) -> None:
    file = tmp_path / "usage.ndjson"
    file.write_bytes(ndjson_line() + ndjson_line())
    first = tail(feed)
    assert (first.taken.entries, first.taken.inserted, first.is_whole) == (2, 2, True)
    assert tail(feed).taken.lines == 0
    with file.open("ab") as more:
        more.write(ndjson_line())
    again = tail(feed)
    assert (again.taken.lines, again.taken.inserted) == (1, 1)
    (row,) = files_of(feed)
    assert (row["offset"], row["lines"], row["entries"]) == (file.stat().st_size, 3, 3)
    assert row["read_at"] is not None
    assert len(records_of(feed)) == 3


def test_a_half_written_line_waits_for_its_end(feed: FeedSource, tmp_path: Path) -> None:
    file, line = tmp_path / "usage.ndjson", ndjson_line()
    file.write_bytes(ndjson_line() + line[:40])
    assert tail(feed).taken.entries == 1
    with file.open("ab") as rest:
        rest.write(line[40:])
    assert tail(feed).taken.entries == 1
    assert not quarantine_of(feed)


def test_the_last_line_of_a_file_that_rests_needs_no_end(feed: FeedSource, tmp_path: Path) -> None:
    file = tmp_path / "usage.ndjson.1"
    file.write_bytes(ndjson_line() + ndjson_line().rstrip())
    assert tail(feed).taken.entries == 1
    aged(file, 120)
    assert tail(feed).taken.entries == 1
    (row,) = files_of(feed)
    assert row["is_closed"]
    assert row["offset"] == file.stat().st_size


def test_a_renamed_file_is_the_same_and_its_successor_another(feed: FeedSource, tmp_path: Path) -> None:
    file = tmp_path / "usage.ndjson"
    file.write_bytes(ndjson_line() + ndjson_line())
    tail(feed)
    file.rename(tmp_path / "usage.ndjson.1")
    with (tmp_path / "usage.ndjson.1").open("ab") as late:
        late.write(ndjson_line())
    file.write_bytes(ndjson_line())
    read = tail(feed)
    assert (read.taken.lines, read.taken.inserted) == (2, 2)
    assert len(files_of(feed)) == 2


def test_a_copy_costs_nothing_and_what_was_emptied_is_new(feed: FeedSource, tmp_path: Path) -> None:
    file = tmp_path / "usage.ndjson"
    file.write_bytes(b"".join(ndjson_line() for _ in range(30)))
    tail(feed)
    (tmp_path / "usage.ndjson.1").write_bytes(file.read_bytes())
    assert tail(feed).taken.lines == 0
    with file.open("r+b") as same:
        same.truncate(0)
        same.write(ndjson_line())
    assert tail(feed).taken.inserted == 1
    # It grows beyond what it was before anybody looked again.
    with file.open("r+b") as same:
        same.truncate(0)
        same.write(b"".join(ndjson_line() for _ in range(60)))
    assert tail(feed).taken.inserted == 60
    assert len(records_of(feed)) == 91


def test_files_that_begin_alike_are_told_apart(tmp_path: Path) -> None:
    feed = make_feed(FeedFormat.CSV, folder=tmp_path)
    header = (",".join(CSV_HEADER) + "\n").encode()
    row = b"{name},,1,,2,,stop,,,tokens\n"

    def lines(count: int) -> bytes:
        from quotas.reconciliation.ingest.tests.feeds import attempt_name

        return b"".join(row.replace(b"{name}", attempt_name().encode()) for _ in range(count))

    file = tmp_path / "usage.csv"
    file.write_bytes(header)
    tail(feed)
    with file.open("ab") as more:
        more.write(lines(3))
    assert tail(feed).taken.inserted == 3
    file.rename(tmp_path / "usage.csv.1")
    file.write_bytes(header)
    assert tail(feed).taken.inserted == 0
    with file.open("ab") as more:
        more.write(lines(5))
    (tmp_path / "other.csv").write_bytes(header + lines(7))
    assert tail(feed).taken.inserted == 12
    assert tail(feed).taken.lines == 0
    assert not quarantine_of(feed)


def test_packing_a_file_that_was_read_costs_nothing(feed: FeedSource, tmp_path: Path) -> None:
    file = tmp_path / "usage.ndjson"
    content = b"".join(ndjson_line() for _ in range(20))
    file.write_bytes(content)
    tail(feed)
    file.unlink()
    packed = tmp_path / "usage.ndjson.1.gz"
    packed.write_bytes(gzip.compress(content + ndjson_line().rstrip()))
    assert tail(feed).taken.lines == 0
    aged(packed, 120)
    assert tail(feed).taken.inserted == 1
    packed.rename(tmp_path / "usage.ndjson.2.gz")
    assert tail(feed).taken.lines == 0
    assert len(files_of(feed)) == 1


def test_a_broken_archive_gives_what_it_has_and_keeps_nobody_waiting(
    feed: FeedSource, tmp_path: Path
) -> None:
    packed = tmp_path / "usage.ndjson.1.gz"
    whole = gzip.compress(b"".join(ndjson_line() for _ in range(2000)))
    packed.write_bytes(whole[: len(whole) // 2])
    first = tail(feed)
    assert first.taken.inserted > 0
    assert not first.is_whole
    packed.write_bytes(whole)
    assert first.taken.inserted + tail(feed).taken.inserted == 2000
    (tmp_path / "no.gz").write_bytes(b"this is not gzip")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(ndjson_line() * 3)[:-9])
    for name in ("no.gz", "cut.gz"):
        aged(tmp_path / name, 120)
    last = tail(feed)
    assert last.is_whole
    assert "cannot be unpacked" in state_of(feed)["error"]
    assert [row["reason"] for row in quarantine_of(feed)] == ["broken_gzip"]


def test_endings_marks_and_empty_lines(feed: FeedSource, tmp_path: Path) -> None:
    first, second = ndjson_line(), ndjson_line()
    text = b"\xef\xbb\xbf" + first.replace(b"\n", b"\r\n") + b"\r\n\n   \n" + second
    (tmp_path / "usage.ndjson").write_bytes(text)
    read = tail(feed)
    assert (read.taken.entries, read.taken.quarantined, read.taken.lines) == (2, 0, 5)


def test_a_line_that_is_too_long_is_passed_over_in_bounded_memory(
    feed: FeedSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_lines, "MAX_PIECE_BYTES", 4 * 2**20)
    long = b'{"wire_id": "' + b"secret " * (MAX_LINE_BYTES // 7 + 9) + b'"}\n'
    pieces = b"x" * (9 * 2**20) + b"\n"
    file = tmp_path / "usage.ndjson"
    file.write_bytes(ndjson_line() + long + ndjson_line() + pieces + ndjson_line())
    read = tail(feed)
    assert read.taken.inserted == 3
    rows = quarantine_of(feed)
    assert {row["reason"] for row in rows} == {"too_long"}
    assert rows[0]["length"] == len(long)
    assert sum(row["length"] for row in rows[1:]) == len(pieces)
    assert files_of(feed)[0]["offset"] == file.stat().st_size


def test_time_is_bounded_and_the_next_run_goes_on(feed: FeedSource, tmp_path: Path) -> None:
    (tmp_path / "a.ndjson").write_bytes(b"".join(ndjson_line() for _ in range(600)))
    (tmp_path / "b.ndjson").write_bytes(b"".join(ndjson_line() for _ in range(600)))
    runs = 0
    while True:
        read = tail_feed(feed=feed, now=tenant_queries.database_time(), deadline_s=time.monotonic())
        runs += 1
        if read.is_whole:
            break
        assert runs < 20
    assert runs > 3
    assert len(records_of(feed)) == 1200


def test_complete_to_is_when_all_was_read_and_never_falls(feed: FeedSource, tmp_path: Path) -> None:
    (tmp_path / "usage.ndjson").write_bytes(ndjson_line())
    before = tenant_queries.database_time()
    tail_feed(feed=feed, now=before)
    assert state_of(feed)["complete_to"] == before
    tail_feed(feed=feed, now=before - timedelta(minutes=5))
    assert state_of(feed)["complete_to"] == before
    later = tenant_queries.database_time()
    tail_feed(feed=feed, now=later)
    assert state_of(feed)["complete_to"] == later


def test_a_folder_that_is_away_says_so_and_stops_the_clock(feed: FeedSource, tmp_path: Path) -> None:
    (tmp_path / "usage.ndjson").write_bytes(ndjson_line())
    tail(feed)
    reached = state_of(feed)["complete_to"]
    (tmp_path / "usage.ndjson").unlink()
    assert tail(feed).error == "all files have gone from the folder"
    tmp_path.rmdir()
    assert "No such file" in tail(feed).error
    state = state_of(feed)
    assert state["complete_to"] == reached
    assert "No such file" in state["error"]
    tmp_path.mkdir()
    (tmp_path / "usage.ndjson").write_bytes(ndjson_line())
    tail(feed)
    assert state_of(feed)["error"] == ""


def test_rubbish_without_end_makes_few_rows(feed: FeedSource, tmp_path: Path) -> None:
    (tmp_path / "usage.ndjson").write_bytes(b"rubbish\n" * 50_000 + ndjson_line())
    read = tail(feed)
    assert (read.taken.quarantined, read.taken.inserted) == (50_000, 1)
    rows = quarantine_of(feed)
    assert len(rows) < 300
    assert sum(row["length"] for row in rows) == 50_000 * 8
    assert not any(row["body"] for row in rows)


def test_two_at_a_time_do_not_meet(feed: FeedSource, tmp_path: Path) -> None:
    from tests.database import connected

    (tmp_path / "usage.ndjson").write_bytes(ndjson_line())
    with connected("ingest") as other:
        other.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [f"feed_folder:{feed.id}"])
        assert tail(feed).is_busy
        other.execute("SELECT pg_advisory_unlock_all()")
    assert tail(feed).taken.inserted == 1


def test_all_watched_feeds_are_read(tmp_path: Path) -> None:
    feeds = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "usage.ndjson").write_bytes(ndjson_line())
        feeds.append(make_feed(folder=folder))
    tail_feeds(slice_s=60, total_s=120)
    assert [len(records_of(feed)) for feed in feeds] == [1, 1]


def test_a_failure_while_reading_ahead_is_told_and_what_was_taken_stays(
    feed: FeedSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "MAX_ENTRIES", 300)
    (tmp_path / "usage.ndjson").write_bytes(b"".join(ndjson_line() for _ in range(3000)))
    real = reading_lines.Lines.mark_at
    calls = 0

    def failing(lines: reading_lines.Lines, offset: int) -> str:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise OSError(5, "Input/output error")
        return real(lines, offset)

    monkeypatch.setattr(reading_lines.Lines, "mark_at", failing)
    assert "Input/output error" in tail(feed).error
    assert 0 < len(records_of(feed)) < 3000
    assert not [one for one in threading.enumerate() if one.name == "feed-reader"]
    tail(feed)
    assert len(records_of(feed)) == 3000
