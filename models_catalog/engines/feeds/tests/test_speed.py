"""A million lines in about ten seconds of one core: a day of a busy centre must not take a day to read."""

from __future__ import annotations

import json
import time

from models_catalog.engines.feeds import FeedFormat, FeedOptions, reader_of
from models_catalog.engines.feeds.tests.samples import CAPTURES, MAKERS, VALUES, options_of

LINES = 5_000
# Several times what it takes, for machines that are slower or busy; processor time, not the clock's.
MAX_US_A_LINE = 60.0


def test_a_line_takes_microseconds() -> None:
    captured = json.dumps(CAPTURES["sglang"]["chat_plain_rid"]["export"][0]).encode()
    lines = {format: MAKERS[format](VALUES) for format in MAKERS} | {FeedFormat.SGLANG_EXPORT: captured}
    for format, line in lines.items():
        read = reader_of(format, options_of(format)).read
        started_s = time.process_time()
        for _ in range(LINES):
            read(line)
        took_us = (time.process_time() - started_s) / LINES * 1e6
        assert took_us < MAX_US_A_LINE, f"{format.value}: {took_us:.1f} µs a line"


def test_lines_that_say_nothing_take_no_longer() -> None:
    read = reader_of(FeedFormat.SGLANG_LOG, FeedOptions()).read
    received = CAPTURES["sglang"]["chat_plain_rid"]["log"][0].encode()
    started_s = time.process_time()
    for _ in range(LINES):
        assert read(received) is None
    assert (time.process_time() - started_s) / LINES * 1e6 < MAX_US_A_LINE
