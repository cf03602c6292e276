"""The feeds of a running simulator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from devstack.engines.books import Ending
from devstack.engines.call import Call
from devstack.engines.dialects.base import Dialect
from devstack.engines.feeds.faults import RecordFault
from devstack.engines.feeds.formats import LINE_FORMATS, make_line_format
from devstack.engines.feeds.injected import Injections
from devstack.engines.feeds.options import FeedOptions
from devstack.engines.feeds.push import PushFeed, lines_target, spans_target
from devstack.engines.feeds.telling import engine_ids, kind_of, records_of, told_at_start
from devstack.engines.feeds.told import FeedFormat, Told
from devstack.engines.feeds.writer import LineFeed

SHUT_TIMEOUT_S = 3.0


class FeedError(ValueError):
    """The flavour has no such feed; the message is for whoever started the simulator."""


class Feeds:
    """All feeds of one engine; often none, and then nothing here costs anything."""

    def __init__(self, options: FeedOptions, dialect: Dialect, injections: Injections) -> None:
        """Raises FeedError, OSError."""
        self._dialect = dialect
        self._lines: list[LineFeed] = []
        self._pushed: list[PushFeed] = []
        faults = options.faults
        if options.directory is not None:
            known = LINE_FORMATS[dialect.flavour]
            for name in options.formats or known[:1]:
                if name not in known:
                    raise FeedError(f"{dialect.flavour} does not write {name}; it knows {', '.join(known)}")
                form = make_line_format(name, skew_s=faults.clock_skew_s, source=options.push_source)
                self._lines.append(LineFeed(form, options.directory, faults, injections))
        if options.otlp_endpoint is not None:
            if dialect.flavour != "vllm":
                raise FeedError(f"{dialect.flavour} exports no spans")
            self._pushed.append(PushFeed(spans_target(options, options.otlp_endpoint), options, injections))
        if options.push_url is not None:
            form = make_line_format(
                options.push_format, skew_s=faults.clock_skew_s, source=options.push_source
            )
            target = lines_target(options, form, options.push_url)
            self._pushed.append(PushFeed(target, options, injections))

    def opened(self, call: Call) -> None:
        """A call was admitted."""
        if self._dialect.flavour != "sglang" or not self._lines:
            return
        call.engine_ids = engine_ids(self._dialect, call)
        for feed in self._lines:
            feed.open_call(call.engine_ids, told_at_start(call))

    def ended(self, call: Call, ended: Ending) -> dict[FeedFormat, list[Told]]:
        """An admitted call is over; answers the true records, whatever becomes of them."""
        told: dict[FeedFormat, list[Told]] = {}
        records = self._records(call, ended)
        # One whose answer lies meets no fault here as well.
        spared = call.directive.has_fault("usage_lies")
        for feed in self._lines:
            told[feed.form.name] = mine = records(feed.form.name)
            for record in mine:
                feed.tell(record, spared=spared)
        for pushed in self._pushed:
            name = pushed.target.feed
            told[name] = mine = records(name)
            for number, record in enumerate(mine):
                pushed.tell(record, number, spared=spared)
        return told

    def _records(self, call: Call, ended: Ending) -> Callable[[FeedFormat], list[Told]]:
        """Feeds that tell of the same things tell the same."""
        made: dict[str, list[Told]] = {}

        def records(name: FeedFormat) -> list[Told]:
            kind = kind_of(name)
            if kind not in made:
                made[kind] = records_of(kind, self._dialect, call, ended)
            return made[kind]

        return records

    def force(self, fault: RecordFault) -> None:
        """The next record of each feed meets this fault."""
        for feed in self._lines:
            feed.force(fault)
        for pushed in self._pushed:
            pushed.force(fault)

    def state(self) -> dict[str, Any]:
        """Files that are written, and what was pushed and waits."""
        return {
            "files": {feed.form.name: str(feed.file.path) for feed in self._lines if feed.is_open},
            "pushed": {feed.target.feed: feed.delivered for feed in self._pushed},
            "pending": {feed.target.feed: feed.pending for feed in self._pushed},
        }

    async def flush(self) -> None:
        """Sends now what waits."""
        for feed in self._pushed:
            await feed.flush()

    async def shut(self) -> None:
        """Sends what can be sent at once, and closes the files."""
        for pushed in self._pushed:
            await pushed.close()
        for feed in self._lines:
            feed.close()
