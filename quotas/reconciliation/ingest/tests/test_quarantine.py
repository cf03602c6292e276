"""Lines in quarantine: read again from where they stand once they can be, or dismissed."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from models_catalog.models import UsageFeed
from portal.kit.ids import PREFIXES, public_id, uuid7
from quotas.models import QuarantineState
from quotas.reconciliation.ingest.folders import tail_feed
from quotas.reconciliation.ingest.operations import (
    NothingToReadAgain,
    NotOpen,
    UnknownLine,
    dismiss_line,
    retry_line,
)
from quotas.reconciliation.ingest.pushes import take_push
from quotas.reconciliation.ingest.quarantine import RetryReport, retry_quarantine
from quotas.reconciliation.ingest.source import FeedSource, feed_source
from quotas.reconciliation.ingest.tests.feeds import (
    NDJSON_OPTIONS,
    make_feed,
    ndjson_line,
    quarantine_of,
    records_of,
)
from tenants import queries as tenant_queries
from tenants.operations import audit
from tenants.scope import role_scope
from tests.database import rows_of


@pytest.fixture
def feed(tmp_path: Path) -> FeedSource:
    """It says "characters" where tokens are meant, until somebody corrects the options."""
    feed = make_feed(folder=tmp_path)
    line = ndjson_line(unit="characters")
    (tmp_path / "usage.ndjson").write_bytes(ndjson_line() + line + b"rubbish\n")
    tail_feed(feed=feed, now=tenant_queries.database_time())
    return feed


def correct_options(feed: FeedSource) -> FeedSource:
    columns = {name: path for name, path in NDJSON_OPTIONS["columns"].items() if name != "unit"}
    with role_scope("operator"):
        UsageFeed.objects.filter(id=feed.id).update(columns={"columns": columns})
    return feed_source(feed.id)


def retry(line_id: UUID) -> QuarantineState:
    return retry_line(
        line_id=line_id, actor=audit.SYSTEM, reason="for the test", now=tenant_queries.database_time()
    )


def test_a_line_is_taken_once_it_can_be_read(feed: FeedSource) -> None:
    first, second = quarantine_of(feed)
    assert retry(first["id"]) == QuarantineState.OPEN
    correct_options(feed)
    assert retry(first["id"]) == QuarantineState.READ
    assert len(records_of(feed)) == 2
    assert [row["state"] for row in quarantine_of(feed)] == ["READ", "OPEN"]
    with pytest.raises(NotOpen):
        retry(first["id"])
    target = public_id(PREFIXES["feed_line"], first["id"])
    (written,) = rows_of("tenants_auditevent", target=target)
    assert (written["action"], written["after"]) == ("feed.line_retry", {"state": "READ"})
    assert retry(second["id"]) == QuarantineState.OPEN


def test_all_of_a_feed(feed: FeedSource) -> None:
    correct_options(feed)
    report = retry_quarantine(feed_id=feed.id, now=tenant_queries.database_time())
    assert report == RetryReport(read=1, left=1, gone=0)
    again = retry_quarantine(feed_id=feed.id, now=tenant_queries.database_time())
    assert again == RetryReport(read=0, left=1, gone=0)


def test_a_renamed_file_is_found_and_a_changed_one_is_not_believed(feed: FeedSource, tmp_path: Path) -> None:
    first, _ = quarantine_of(feed)
    correct_options(feed)
    file = tmp_path / "usage.ndjson"
    content = file.read_bytes()
    file.write_bytes(content.replace(b"characters", b"tokens    "))
    with pytest.raises(NothingToReadAgain):
        retry(first["id"])
    assert len(records_of(feed)) == 1
    (tmp_path / "usage.ndjson.3").write_bytes(content)
    assert retry(first["id"]) == QuarantineState.READ


def test_what_was_pushed_is_not_there_to_be_read(tmp_path: Path) -> None:
    feed = make_feed()
    take_push(feed=feed, body=b"rubbish", content_type="text/plain", now=tenant_queries.database_time())
    (row,) = quarantine_of(feed)
    with pytest.raises(NothingToReadAgain):
        retry(row["id"])
    assert row["body"] == ""


def test_dismissed(feed: FeedSource) -> None:
    _, second = quarantine_of(feed)
    now = tenant_queries.database_time()
    dismiss_line(line_id=second["id"], actor=audit.SYSTEM, reason="a test of ours", now=now)
    row = quarantine_of(feed)[1]
    assert (row["state"], row["note"], row["resolved_at"]) == ("DISMISSED", "a test of ours", now)
    with pytest.raises(NotOpen):
        dismiss_line(line_id=second["id"], actor=audit.SYSTEM, reason="again", now=now)
    with pytest.raises(UnknownLine):
        dismiss_line(line_id=uuid7(), actor=audit.SYSTEM, reason="again", now=now)
    with pytest.raises(UnknownLine):
        retry(uuid7())
    with pytest.raises(audit.ReasonMissing):
        dismiss_line(line_id=second["id"], actor=audit.SYSTEM, reason="", now=now)
