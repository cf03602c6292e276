"""However a feed is split, ordered, repeated, broken off and gone on with: the same records."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models_catalog.engines.feeds import FeedFormat
from quotas.reconciliation.ingest import batch as batches
from quotas.reconciliation.ingest.folders import tail_feed
from quotas.reconciliation.ingest.pushes import take_push
from quotas.reconciliation.ingest.source import FeedSource
from quotas.reconciliation.ingest.tests.feeds import (
    files_of,
    make_feed,
    moment,
    ndjson_line,
    quarantine_of,
    records_of,
)
from tenants import queries as tenant_queries
from tests.factories import make_backend

few = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def some_lines(seed: int, count: int = 60) -> list[bytes]:
    """Ours, other people's, contradicting ones, and rubbish."""
    chance = random.Random(seed)
    lines: list[bytes] = []
    for number in range(count):
        what = chance.random()
        if what < 0.6:
            lines.append(ndjson_line(completion_tokens=chance.randrange(100)))
        elif what < 0.8:
            at = (moment() - timedelta(seconds=chance.randrange(60))).isoformat()
            lines.append(ndjson_line(f"foreign-{seed}-{number}", finished_at=at))
        elif what < 0.9:
            lines.append(f'{{"wire_id": "rubbish-{number}", "prompt_tokens": -1}}\n'.encode())
        elif lines:
            lines.append(chance.choice(lines).replace(b'"prompt_tokens": 18', b'"prompt_tokens": 19'))
    return lines


def taken_plainly(lines: list[bytes], folder: Path) -> tuple[set[Any], set[bytes]]:
    """Records and digests of rubbish of one file that is read once."""
    (folder / "usage.ndjson").write_bytes(b"".join(lines))
    feed = make_feed(folder=folder)
    tail(feed)
    return without_backend(feed), {bytes(row["sha256"]) for row in quarantine_of(feed)}


def tail(feed: FeedSource) -> None:
    tail_feed(feed=feed, now=tenant_queries.database_time())


def without_backend(feed: FeedSource) -> set[Any]:
    """The facts, without the digests, in which the backend stands."""
    return {(*row[2:], row[0].int >> 80) for row in records_of(feed)}


@few
@given(seed=st.integers(0, 10**6), pieces=st.integers(1, 6), repeats=st.integers(0, 3))
def test_any_split_order_and_repetition(seed: int, pieces: int, repeats: int) -> None:
    chance = random.Random(seed)
    lines = some_lines(seed)
    with tempfile.TemporaryDirectory() as name:
        plain, folder = Path(name, "plain"), Path(name, "split")
        plain.mkdir()
        folder.mkdir()
        expected = taken_plainly(lines, plain)
        feed = make_feed(folder=folder)
        shuffled = lines + chance.choices(lines, k=repeats * 10)
        chance.shuffle(shuffled)
        # Files grow by bytes, not by lines, and are looked at in between.
        content = [b"".join(shuffled[piece::pieces]) for piece in range(pieces)]
        cuts = [0] * pieces
        while any(cut < len(text) for cut, text in zip(cuts, content, strict=True)):
            piece = chance.randrange(pieces)
            step = chance.randrange(1, 4000)
            with (folder / f"usage-{piece}.ndjson").open("ab") as file:
                file.write(content[piece][cuts[piece] : cuts[piece] + step])
            cuts[piece] += step
            if chance.random() < 0.3:
                tail(feed)
        tail(feed)
        assert (without_backend(feed), {bytes(row["sha256"]) for row in quarantine_of(feed)}) == expected
        assert tail_feed(feed=feed, now=tenant_queries.database_time()).taken.lines == 0


@few
@given(seed=st.integers(0, 10**6))
def test_broken_off_between_any_two_statements(seed: int) -> None:
    chance = random.Random(seed)
    lines = some_lines(seed)
    with tempfile.TemporaryDirectory() as name, small_batches():
        plain, folder = Path(name, "plain"), Path(name, "broken")
        plain.mkdir()
        folder.mkdir()
        expected = taken_plainly(lines, plain)
        for piece in range(3):
            (folder / f"usage-{piece}.ndjson").write_bytes(b"".join(lines[piece::3]))
        feed = make_feed(folder=folder)
        for _ in range(40):
            with broken_after(chance.randrange(1, 40)) as has_broken:
                tail(feed)
            if not has_broken():
                break
        tail(feed)
        assert (without_backend(feed), {bytes(row["sha256"]) for row in quarantine_of(feed)}) == expected
        sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
        assert {row["name"]: row["offset"] for row in files_of(feed)} == sizes
        assert sum(row["lines"] for row in files_of(feed)) == len(lines)
        assert sum(row["entries"] + row["quarantined"] for row in files_of(feed)) == len(lines)


class Killed(BaseException):
    """As if the process had ended there."""


@contextmanager
def broken_after(statements: int) -> Iterator[Callable[[], bool]]:
    """Raises instead of so manieth statement; what was open is rolled back, as a server does."""
    left = statements
    broken = False

    def count(execute: Any, query: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal left, broken
        if "advisory_unlock" in query:
            return execute(query, params, many, context)
        left -= 1
        if left == 0:
            broken = True
            raise Killed
        return execute(query, params, many, context)

    with connections["ingest"].execute_wrapper(count), suppress(Killed):
        yield lambda: broken


@contextmanager
def small_batches() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "MAX_ENTRIES", 5)
        patch.setattr("quotas.reconciliation.ingest.reading._LOOK_UP_LINES", 3)
        yield


def test_another_format_and_way_in_tell_nothing_new(tmp_path: Path) -> None:
    backend_id = make_backend()
    line = ndjson_line()
    by_file = make_feed(backend_id=backend_id, folder=tmp_path)
    (tmp_path / "usage.ndjson").write_bytes(line)
    tail(by_file)
    pushed = make_feed(FeedFormat.NDJSON, backend_id=backend_id)
    answer = take_push(
        feed=pushed, body=line, content_type="application/x-ndjson", now=tenant_queries.database_time()
    )
    assert (answer.taken.entries, answer.taken.inserted, answer.taken.known) == (1, 0, 1)
    decorated = line.replace(b'"att_', b'"chatcmpl-att_')
    answer = take_push(
        feed=pushed, body=decorated, content_type="application/x-ndjson", now=tenant_queries.database_time()
    )
    assert answer.taken.inserted == 0
    other = take_push(
        feed=make_feed(),
        body=line,
        content_type="application/x-ndjson",
        now=tenant_queries.database_time(),
    )
    assert (other.taken.inserted, other.taken.foreign) == (1, 1)


def test_a_burst_of_other_peoples_calls_is_taken_in_time() -> None:
    """Also on a day of which the database has no statistics yet, within what a web request may take."""
    feed = make_feed()
    body = b"".join(ndjson_line() for _ in range(4000))
    with connections["ingest"].cursor() as cursor:
        cursor.execute("SET statement_timeout = '15s'")
        try:
            pushed = take_push(
                feed=feed, body=body, content_type="text/plain", now=tenant_queries.database_time()
            )
        finally:
            cursor.execute("RESET statement_timeout")
    assert pushed.taken.foreign == 4000
