"""What nobody foresaw in one feed, file or line stops no other, and never lets the clock run on."""

from __future__ import annotations

import gzip
import os
import random
from contextlib import AbstractContextManager
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery.exceptions import SoftTimeLimitExceeded

from models_catalog.engines.feeds import FeedOptions
from quotas.models import QuarantineState
from quotas.reconciliation.ingest import folders, quarantine, reading
from quotas.reconciliation.ingest.files import FoundFile, opened
from quotas.reconciliation.ingest.folders import FolderRead, tail_feed, tail_feeds
from quotas.reconciliation.ingest.quarantine import retry_quarantine
from quotas.reconciliation.ingest.reading import Way, way_of
from quotas.reconciliation.ingest.redaction import redacted
from quotas.reconciliation.ingest.source import FeedSource
from quotas.reconciliation.ingest.tests.feeds import (
    files_of,
    make_feed,
    ndjson_line,
    quarantine_of,
    records_of,
    state_of,
)
from quotas.reconciliation.ingest.tests.test_folders import aged
from tenants import queries as tenant_queries
from tests.database import connected


@pytest.fixture
def feed(tmp_path: Path) -> FeedSource:
    return make_feed(folder=tmp_path)


def tail(feed: FeedSource) -> FolderRead:
    return tail_feed(feed=feed, now=tenant_queries.database_time())


@pytest.fixture
def two_feeds(tmp_path: Path) -> list[FeedSource]:
    feeds = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "usage.ndjson").write_bytes(ndjson_line())
        feeds.append(make_feed(folder=tmp_path / name))
    return feeds


def failing_for(
    monkeypatch: pytest.MonkeyPatch, feed: FeedSource, failure: BaseException, others: list[FeedSource]
) -> None:
    def way(one: FeedSource, **values: Any) -> Way:
        if one.id == feed.id:
            raise failure
        return way_of(one, **values)

    monkeypatch.setattr(folders, "way_of", way)
    monkeypatch.setattr(folders, "watched_feeds", lambda: others)


def test_a_failure_that_nobody_foresaw_is_one_feeds_own(
    two_feeds: list[FeedSource], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = two_feeds
    failing_for(monkeypatch, one, ZeroDivisionError("a secret"), two_feeds)
    report = tail_feeds(slice_s=60, total_s=120)
    assert (report.failed, report.taken.inserted) == (1, 1)
    assert len(records_of(two)) == 1
    state = state_of(one)
    assert (state["complete_to"], state["error"]) == (None, "reading it failed: ZeroDivisionError")
    assert "secret" not in caplog.text


def test_the_tasks_time_limit_is_not_taken_for_a_feeds_failure(
    two_feeds: list[FeedSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_for(monkeypatch, two_feeds[0], SoftTimeLimitExceeded(), two_feeds)
    with pytest.raises(SoftTimeLimitExceeded):
        tail_feeds(slice_s=60, total_s=120)


def test_no_feed_is_complete_to_before_there_were_any(feed: FeedSource) -> None:
    with connected("ingest") as ingest, pytest.raises(psycopg.errors.CheckViolation):
        ingest.execute(
            "INSERT INTO quotas_feedstate (feed_id, error, complete_to) VALUES (%s, '', '1999-12-31T23:59Z')",
            (feed.id,),
        )


class Reader:
    """Fails at every line."""

    def __init__(self, failure: BaseException) -> None:
        self.failure = failure

    def read(self, line: bytes) -> None:
        raise self.failure


def test_nor_for_a_lines(feed: FeedSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "usage.ndjson").write_bytes(ndjson_line())
    monkeypatch.setattr(reading, "reader_of", lambda *_: Reader(SoftTimeLimitExceeded()))
    with pytest.raises(SoftTimeLimitExceeded):
        tail(feed)
    assert not quarantine_of(feed)


def test_lines_that_a_reader_fails_at_stay_where_they_are(
    feed: FeedSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "usage.ndjson").write_bytes(b"rubbish\nmore\n")
    tail(feed)
    monkeypatch.setattr(reading, "reader_of", lambda *_: Reader(ZeroDivisionError()))
    report = retry_quarantine(feed_id=feed.id, now=tenant_queries.database_time())
    assert (report.read, report.left, report.gone) == (0, 2, 0)
    assert {row["state"] for row in quarantine_of(feed)} == {QuarantineState.OPEN}


def test_a_file_whose_name_is_no_text(feed: FeedSource, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"usage-\xff.ndjson")
    path.write_bytes(ndjson_line() + b"rubbish\n")
    assert tail(feed).taken.inserted == 1
    (row,) = files_of(feed)
    assert row["name"] == "usage-\\xff.ndjson"
    assert retry_quarantine(feed_id=feed.id, now=tenant_queries.database_time()).left == 1
    (tmp_path / os.fsdecode(b"\xfe.zst")).write_bytes(b"packed")
    assert tail(feed).error == "\\xfe.zst cannot be unpacked"


def test_what_is_packed_otherwise_stops_the_clock(feed: FeedSource, tmp_path: Path) -> None:
    (tmp_path / "usage.ndjson").write_bytes(ndjson_line())
    (tmp_path / "usage.ndjson.1.zst").write_bytes(b"packed")
    read = tail(feed)
    assert (read.taken.inserted, read.is_whole) == (1, False)
    state = state_of(feed)
    assert (state["complete_to"], state["error"]) == (None, "usage.ndjson.1.zst cannot be unpacked")
    (tmp_path / "usage.ndjson.1.zst").unlink()
    assert tail(feed).is_whole


def test_links_and_pipes_are_not_followed(
    feed: FeedSource, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (tmp_path / "usage.ndjson").write_bytes(ndjson_line())
    # Of what is read anyway: engines have one to their newest file.
    (tmp_path / "current").symlink_to("usage.ndjson")
    os.mkfifo(tmp_path / "pipe.ndjson")
    read = tail(feed)
    assert (read.taken.inserted, read.is_whole, read.error) == (1, True, "")
    outside = tmp_path_factory.mktemp("outside") / "secret"
    outside.write_bytes(ndjson_line())
    (tmp_path / "other.ndjson").symlink_to(outside)
    read = tail(feed)
    assert (read.taken.inserted, read.is_whole) == (0, False)
    assert read.error == "other.ndjson is a link to elsewhere"


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_file_that_became_something_else_is_not_opened(
    kind: str, feed: FeedSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "usage.ndjson"
    path.write_bytes(ndjson_line() + b"rubbish\n")
    tail(feed)
    found = FoundFile(path, path.name, path.stat().st_size, is_closed=True)
    monkeypatch.setattr(folders, "files_of_folder", lambda *_, **__: ([found], []))
    path.rename(tmp_path / "elsewhere")
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        os.mkfifo(path)
    read = tail(feed)
    assert "usage.ndjson cannot be read" in read.error
    assert not read.is_whole
    # Nor does reading a line again wait for a pipe, and the renamed file is found.
    assert retry_quarantine(feed_id=feed.id, now=tenant_queries.database_time()).left == 1


def test_a_line_is_looked_for_in_few_files(
    feed: FeedSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "usage.ndjson"
    path.write_bytes(b"rubbish\n")
    tail(feed)
    path.unlink()
    for number in range(100):
        (tmp_path / f"other-{number}").write_bytes(b"something else\n")
    looked_into: list[str] = []

    def looking(file: FoundFile) -> AbstractContextManager[BufferedIOBase]:
        looked_into.append(file.name)
        return opened(file)

    monkeypatch.setattr(quarantine, "opened", looking)
    assert retry_quarantine(feed_id=feed.id, now=tenant_queries.database_time()).gone == 1
    assert 1 < len(looked_into) <= quarantine.MAX_PLACES + 1


def test_an_archive_broken_in_its_first_line_is_known_by_what_it_has(
    feed: FeedSource, tmp_path: Path
) -> None:
    line = ndjson_line(event_id="".join(random.Random(1).choices("abcdefgh", k=150)))
    whole = gzip.compress(line * 2)
    packed = tmp_path / "usage.ndjson.1.gz"
    packed.write_bytes(whole[: len(whole) // 2])
    aged(packed, 120)
    tail(feed)
    (row,) = files_of(feed)
    assert not row["identity"].startswith("0-")
    # Another file is another one, and the same is read once it is whole.
    (tmp_path / "usage.ndjson").write_bytes(b'{"other": 1}\n' + ndjson_line())
    assert tail(feed).taken.inserted == 1
    assert len(files_of(feed)) == 2
    assert {row["reason"] for row in quarantine_of(feed)} >= {"broken_gzip"}


@pytest.mark.parametrize(
    ("item", "kept"),
    [
        (b"13800138000;4111111111111111;7", ""),
        (b"rubbish", ""),
        (b"\xff\xfe", ""),
        (b"7", ""),
        (b'"a text"', ""),
        (b'{"wire_id": "a text", "id": 13800138000, "note": 7}', ""),
        (b'{"prompt_tokens": 18, "completion_tokens": "16"}', '{"prompt_tokens": 18}'),
        (b'{"prompt_tokens": 9999999999, "completion_tokens": 10000000000}', '{"prompt_tokens": 9999999999}'),
        (
            b'{"prompt_tokens": 1.5, "cached_tokens": true, "completion_tokens": -3}',
            '{"completion_tokens": -3}',
        ),
        (
            b'{"data": {"usage": {"prompt_tokens": 1}, "x": {"part": 2}}}',
            '{"data": {"usage": {"prompt_tokens": 1}}}',
        ),
        (
            b'{"attributes": [{"key": "gen_ai.usage.prompt_tokens", "value": {"intValue": "-3"}},'
            b' {"key": "a text", "value": {"intValue": "7"}}, {"key": 7, "value": 7}, 7]}',
            '{"attributes": {"gen_ai.usage.prompt_tokens": -3}}',
        ),
        (b'{"trace": {"tokens_in": 5, "other": 6}}', '{"trace": {"tokens_in": 5}}'),
    ],
)
def test_what_is_kept_of_a_pushed_item(item: bytes, kept: str) -> None:
    options = FeedOptions(columns={"prompt_tokens": "trace.tokens_in", "wire_id": "trace.other"})
    assert redacted(item, options=options) == kept
