"""Feed files of any number of records, without an engine: the same lines as a simulator's, as fast as can be.

    python -m devstack.engines.bulk --format ndjson --records 1000000 --seed 7 --faults lost=0.01 DIR

writes made-up records and says how fast.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from devstack.engines.feeds.faults import CALL_FAULTS, CallFault, Dice, FeedFaults
from devstack.engines.feeds.foreign import draw_counts, draw_id, draw_record
from devstack.engines.feeds.formats import make_line_format
from devstack.engines.feeds.injected import Injected, Injections
from devstack.engines.feeds.told import FEED_FORMATS, FeedFormat, Finish, Told
from devstack.engines.feeds.writer import LineFeed

_HOSTNAME = "engine"
_PREFIXES: dict[FeedFormat, str] = {"vllm_middleware": "chatcmpl-"}
_FIRST_UNIX = 1_795_478_400.0


@dataclass(frozen=True, slots=True)
class Written:
    """What `write_feed` made. `files` in the order in which they were begun, which is that of their lines;
    `records` counts what was given, `foreign` what was added to it; `injected` names each fault."""

    files: list[Path]
    records: int
    foreign: int
    bytes: int
    duration_s: float
    injected: list[Injected]


def tell(
    feed: FeedFormat,
    attempt_id: str,
    *,
    prompt_tokens: int,
    completion_tokens: int,
    finished_unix: float,
    cached_tokens: int = 0,
    reasoning_tokens: int = 0,
    finish: Finish = "stop",
    duration_s: float = 1.0,
) -> Told:
    """The record of a chat whose attempt (`att_…`) was given to the engine, by the id that it makes of it."""
    prefix = _PREFIXES.get(feed, "")
    received_unix = finished_unix - duration_s
    return Told(
        wire_id=f"{prefix}{attempt_id}",
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        finish=finish,
        cached_tokens=cached_tokens,
        reasoning_tokens=reasoning_tokens,
        received_unix=received_unix,
        first_token_unix=received_unix + duration_s / 10,
        finished_unix=finished_unix,
        header_id=attempt_id if prefix else "",
    )


def write_feed(
    feed: FeedFormat,
    records: Iterable[Told],
    directory: Path,
    *,
    faults: FeedFaults | None = None,
    lines_per_file: int | None = None,
) -> Written:
    """Writes the records in their order, all under the hour of the first one.

    faults: those of records, clock_skew_s and `foreign`; others need an engine and do not happen. The same
    records and seed make the same files. lines_per_file: begin a new file after so many records. Raises
    ValueError for a format that is no file of lines, OSError.
    """
    started_s = time.perf_counter()
    chosen = faults or FeedFaults()
    injections = Injections(limit=None)
    before = set(directory.iterdir()) if directory.exists() else set()
    lines = LineFeed(
        make_line_format(feed, skew_s=chosen.clock_skew_s, hostname=_HOSTNAME), directory, chosen, injections
    )
    stream = _Stream(feed, records, chosen, injections)
    source = iter(stream)
    try:
        for first in source:
            if lines.is_open:
                lines.file.rotate()
            rest = source if lines_per_file is None else islice(source, lines_per_file - 1)
            lines.tell_all(chain((first,), rest))
    finally:
        lines.close()
    files = sorted(set(directory.iterdir()) - before, key=_age)
    return Written(
        files=files,
        records=stream.given,
        foreign=stream.foreign,
        bytes=sum(file.stat().st_size for file in files),
        duration_s=time.perf_counter() - started_s,
        injected=list(injections.entries),
    )


class _Stream:
    """The records, and among them those of somebody else."""

    def __init__(
        self, feed: FeedFormat, records: Iterable[Told], faults: FeedFaults, injections: Injections
    ) -> None:
        self._feed = feed
        self._records = records
        self._dice: Dice[CallFault] = Dice(faults, CALL_FAULTS, "calls")
        self._injections = injections
        self.given = 0
        self.foreign = 0

    def __iter__(self) -> Iterator[Told]:
        dice = self._dice
        for told in self._records:
            self.given += 1
            yield told
            if dice.total and dice.roll() == "foreign":
                self.foreign += 1
                yield self._stranger(told)

    def _stranger(self, told: Told) -> Told:
        record = draw_record(self._feed, told, self._dice.details)
        self._injections.add(
            "foreign",
            feed=self._feed,
            wire_id=record.wire_id,
            prompt_tokens=record.prompt_tokens,
            cached_tokens=record.cached_tokens,
            completion_tokens=record.completion_tokens or 0,
        )
        return record


def _age(path: Path) -> tuple[int, str]:
    """Files that were put aside carry a number; the one that is written last has none."""
    number = path.suffix.removeprefix(".")
    return (int(number) if number.isdigit() else sys.maxsize, path.name)


def made_up(feed: FeedFormat, count: int, *, seed: int) -> Iterator[Told]:
    """Records of nobody, a millisecond apart, for measuring."""
    dice = random.Random(seed)
    for number in range(count):
        prompt, cached, completion = draw_counts(dice)
        yield tell(
            feed,
            draw_id("ndjson", dice),
            prompt_tokens=prompt,
            cached_tokens=cached,
            completion_tokens=completion,
            finished_unix=_FIRST_UNIX + number / 1000,
        )


def main(argv: list[str]) -> int:
    """Writes made-up records and says how fast."""
    parser = argparse.ArgumentParser(prog="python -m devstack.engines.bulk", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument(
        "--format", choices=[name for name in FEED_FORMATS if name != "vllm_otlp"], required=True
    )
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=FeedFaults.parse, default=FeedFaults())
    given = parser.parse_args(argv)
    records = list(made_up(given.format, given.records, seed=given.seed))
    written = write_feed(given.format, records, given.directory, faults=given.faults)
    print(
        f"{written.records:,} records, {written.bytes / 2**20:,.0f} MiB in {len(written.files)} files, "
        f"{len(written.injected):,} faults: {written.duration_s:.1f} s, "
        f"{written.records / written.duration_s:,.0f} a second"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
