"""A process that reads a feed is killed, again and again: in the end every line was taken once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from quotas.reconciliation.ingest.folders import tail_feed
from quotas.reconciliation.ingest.source import FeedSource
from quotas.reconciliation.ingest.tests.feeds import (
    files_of,
    make_feed,
    ndjson_line,
    quarantine_of,
    records_of,
)
from tenants import queries as tenant_queries
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[4]
READER = """
import sys
from portal.settings.environment import select_settings
select_settings(database_role="ingest")
import django
django.setup()
from uuid import UUID
from quotas.reconciliation.ingest import batch, reading
from quotas.reconciliation.ingest.folders import tail_feed
from quotas.reconciliation.ingest.source import feed_source
from tenants import queries
from tenants.scope import role_scope
batch.MAX_ENTRIES, reading._LOOK_UP_LINES = 20, 10
with role_scope("ingest"):
    feed = feed_source(UUID(sys.argv[1]))
    print("ready", flush=True)
    tail_feed(feed=feed, now=queries.database_time())
"""
LINES = 1500
KILLS = 4


def read_and_kill(feed: FeedSource, *, after_s: float) -> None:
    """Starts a reader and kills it so soon after its first records."""
    before = len(records_of(feed))
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, str(feed.id)],
        cwd=ROOT,
        env=os.environ.copy(),
        stdout=subprocess.PIPE,
    )
    assert reader.stdout is not None
    assert reader.stdout.readline() == b"ready\n"
    wait_for(lambda: reader.poll() is not None or len(records_of(feed)) > before, 30, "some records")
    time.sleep(after_s)
    reader.send_signal(signal.SIGKILL)
    reader.wait()
    reader.stdout.close()


def test_killed_at_any_moment(tmp_path: Path) -> None:
    chance = random.Random(3)
    lines = [ndjson_line() if number % 50 else b"rubbish %d\n" % number for number in range(LINES)]
    for piece in range(3):
        (tmp_path / f"usage-{piece}.ndjson").write_bytes(b"".join(lines[piece::3]))
    feed = make_feed(folder=tmp_path)
    for _ in range(KILLS):
        read_and_kill(feed, after_s=chance.random() * 0.05)
    # What the last one had locked is free once the server has noticed.
    wait_for(
        lambda: not tail_feed(feed=feed, now=tenant_queries.database_time()).is_busy, 30, "the reader's end"
    )
    assert len(records_of(feed)) == LINES - LINES // 50
    assert sum(row["length"] for row in quarantine_of(feed)) == sum(
        len(line) for line in lines if line.startswith(b"rubbish")
    )
    assert sum(row["lines"] for row in files_of(feed)) == LINES
