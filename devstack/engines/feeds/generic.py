"""Feeds of an engine that nobody thought of: NDJSON and CSV files, and CloudEvents.

All use Sluice's own names of fields. An answer that its client left is told as aborted, with what was
generated.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence

from devstack.engines.feeds.lines import LineFormat, quoted
from devstack.engines.feeds.told import Told

COLUMNS = (
    *("event_id", "wire_id", "part", "prompt_tokens", "cached_tokens", "completion_tokens"),
    *("reasoning_tokens", "finish", "finished_at", "unit"),
)
EVENT_TYPE = "sluice.usage.v1"
EVENT_BATCH = "application/cloudevents-batch+json"
DEFAULT_SOURCE = "/simulators/engine"


class GenericFormat(LineFormat):
    """What all of them share."""

    def __init__(self, *, skew_s: float = 0.0) -> None:
        super().__init__(skew_s=skew_s)
        self._second = -1
        self._beginning = ""

    def moment(self, unix: float) -> str:
        """ISO 8601 in UTC, to the microsecond."""
        second, micros = divmod(round((unix + self.skew_s) * 1e6), 1_000_000)
        if second != self._second:
            self._second = second
            self._beginning = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._beginning}.{micros:06}Z"

    @staticmethod
    def event_id(told: Told) -> str:
        """The same for the same record."""
        text = f"{told.wire_id}/{told.finished_unix!r}/{told.prompt_tokens}/{told.completion_tokens}"
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


class Ndjson(GenericFormat):
    """`DIR/usage.ndjson`."""

    name = "ndjson"

    def file_name(self, unix: float) -> str:
        return "usage.ndjson"

    def line(self, told: Told) -> bytes:
        return (
            f'{{"event_id":"{self.event_id(told)}","wire_id":{quoted(told.wire_id)},"part":{told.part},'
            f'"prompt_tokens":{told.prompt_tokens},"cached_tokens":{told.cached_tokens},'
            f'"completion_tokens":{told.completion_tokens or 0},"reasoning_tokens":{told.reasoning_tokens},'
            f'"finish":"{told.finish}","finished_at":"{self.moment(told.finished_unix)}","unit":"tokens"}}'
        ).encode()


class Csv(GenericFormat):
    """`DIR/usage.csv`. Ids hold no commas; a file begins with the header."""

    name = "csv"
    header = ",".join(COLUMNS).encode()

    def file_name(self, unix: float) -> str:
        return "usage.csv"

    def line(self, told: Told) -> bytes:
        return (
            f"{self.event_id(told)},{told.wire_id},{told.part},{told.prompt_tokens},{told.cached_tokens},"
            f"{told.completion_tokens or 0},{told.reasoning_tokens},{told.finish},"
            f"{self.moment(told.finished_unix)},tokens"
        ).encode()


class CloudEvents(GenericFormat):
    """Structured events of one source; `DIR/usage-events.ndjson` where they are written to a file."""

    name = "cloudevents"

    def __init__(self, *, skew_s: float = 0.0, source: str = DEFAULT_SOURCE) -> None:
        super().__init__(skew_s=skew_s)
        self._source = quoted(source)

    def file_name(self, unix: float) -> str:
        return "usage-events.ndjson"

    def line(self, told: Told) -> bytes:
        return (
            f'{{"specversion":"1.0","type":"{EVENT_TYPE}","source":{self._source},'
            f'"id":"{self.event_id(told)}","time":"{self.moment(told.finished_unix)}",'
            f'"datacontenttype":"application/json","data":{{"wire_id":{quoted(told.wire_id)},'
            f'"part":{told.part},"prompt_tokens":{told.prompt_tokens},"cached_tokens":{told.cached_tokens},'
            f'"completion_tokens":{told.completion_tokens or 0},"reasoning_tokens":{told.reasoning_tokens},'
            f'"finish":"{told.finish}","unit":"tokens"}}}}'
        ).encode()

    def batch(self, records: Sequence[Told]) -> bytes:
        """The body of a push."""
        return b"[%b]" % b",".join(map(self.line, records))
