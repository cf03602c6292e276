"""Feeds that are pushed: collected for a while, then sent as one body, again and again until it is taken."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import http.client
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from devstack.engines.feeds.faults import PUSHED_FAULTS, Dice, FeedFaults, RecordFault
from devstack.engines.feeds.generic import EVENT_BATCH, CloudEvents
from devstack.engines.feeds.injected import Injections
from devstack.engines.feeds.lines import LineFormat
from devstack.engines.feeds.options import FeedOptions
from devstack.engines.feeds.told import FeedFormat, Told
from devstack.engines.feeds.writer import negative

MAX_BATCH = 512
POST_TIMEOUT_S = 10.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10.0
_LINES = {"ndjson": "application/x-ndjson", "csv": "text/csv"}

Item = tuple[Told, int]


@dataclass(frozen=True, slots=True)
class Target:
    """Where bodies go, how they are made, and the headers that each of them gets."""

    feed: FeedFormat
    url: str
    content_type: str
    make_body: Callable[[Sequence[Item]], bytes]
    headers: tuple[tuple[str, str], ...] = ()
    secret: str | None = None

    def post(self, body: bytes) -> int:
        """Sends one body and answers the status. Raises OSError, HTTPException."""
        parts = urlsplit(self.url)
        make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = make(parts.netloc, timeout=POST_TIMEOUT_S)
        try:
            headers = {"Content-Type": self.content_type, **dict(self.headers), **self._signature(body)}
            connection.request("POST", parts.path or "/", body=body, headers=headers)
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()

    def _signature(self, body: bytes) -> dict[str, str]:
        if self.secret is None:
            return {}
        stamp = str(int(time.time()))
        # Between the dots stands Sluice-Complete-To, which is not sent.
        digest = hmac.new(self.secret.encode(), f"{stamp}..".encode() + body, hashlib.sha256).hexdigest()
        return {"Sluice-Timestamp": stamp, "Sluice-Signature": f"v1={digest}"}


def spans_target(options: FeedOptions, url: str) -> Target:
    """vLLM's exporter."""
    # The standard's messages take a while to load, and most simulators need none.
    from devstack.engines.feeds.otlp import CONTENT_TYPES, SpanWriter

    writer = SpanWriter(seed=options.faults.seed, skew_s=options.faults.clock_skew_s)
    encoding = options.otlp_encoding
    return Target(
        feed="vllm_otlp",
        url=url,
        content_type=CONTENT_TYPES[encoding],
        make_body=lambda items: writer.body(items, encoding),
        headers=options.otlp_headers,
    )


def lines_target(options: FeedOptions, form: LineFormat, url: str) -> Target:
    """Any of the generic formats."""

    def make_body(items: Sequence[Item]) -> bytes:
        records = [told for told, _ in items]
        if isinstance(form, CloudEvents):
            return form.batch(records)
        head = [form.header] if form.header else []
        return b"\n".join([*head, *map(form.line, records), b""])

    return Target(
        feed=form.name,
        url=url,
        content_type=_LINES.get(form.name, EVENT_BATCH),
        make_body=make_body,
        headers=options.push_headers,
        secret=options.push_secret,
    )


class PushFeed:
    """Collects records, and sends them in the order in which they came. Use it in one event loop."""

    def __init__(self, target: Target, options: FeedOptions, injections: Injections) -> None:
        self.target = target
        self.dice: Dice[RecordFault] = Dice(options.faults, PUSHED_FAULTS, target.feed)
        self.delivered = 0
        self._options = options
        self._injections = injections
        self._waiting: list[Item] = []
        self._forced: list[RecordFault] = []
        self._sending = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        faults: FeedFaults = options.faults
        if faults.clock_skew_s:
            injections.add("clock_skew", feed=target.feed, seconds=faults.clock_skew_s)

    @property
    def pending(self) -> int:
        """Records that were not sent yet."""
        return len(self._waiting)

    def force(self, fault: RecordFault) -> None:
        """The next record meets this fault; those of files are left out."""
        if fault in PUSHED_FAULTS:
            self._forced.append(fault)

    def tell(self, told: Told, number: int, *, spared: bool = False) -> None:
        """Collects a record. `number` counts the records of one call."""
        fault = self.dice.roll()
        if self._forced and not spared:
            fault = self._forced.pop(0)
        if spared:
            fault = None
        if fault == "garbage":
            self._waiting.append((negative(told, self.dice.details.getrandbits(64)), 0))
        if fault != "lost":
            self._waiting.append((told, number))
        if fault == "doubled":
            self._waiting.append((told, number))
        if fault is not None:
            self._injections.add(fault, feed=self.target.feed, wire_id=told.wire_id)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._options.batch_s)
            await self.flush()

    async def flush(self, *, give_up_s: float | None = None) -> None:
        """Sends what waits; returns when it was taken or given up, which is booked."""
        async with self._sending:
            while self._waiting:
                batch = self._waiting[:MAX_BATCH]
                outcome = await self._deliver(
                    batch, self._options.give_up_s if give_up_s is None else give_up_s
                )
                del self._waiting[: len(batch)]
                if outcome is None:
                    self.delivered += len(batch)
                    continue
                for told, _ in batch:
                    self._injections.add(
                        "undelivered", feed=self.target.feed, wire_id=told.wire_id, answer=outcome
                    )

    async def _deliver(self, batch: Sequence[Item], give_up_s: float) -> str | None:
        """None when the body was taken, else what was answered last."""
        body = self.target.make_body(batch)
        deadline_s = time.monotonic() + give_up_s
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                status = await asyncio.to_thread(self.target.post, body)
            except (OSError, http.client.HTTPException) as failed:
                outcome = type(failed).__name__
            else:
                if 200 <= status < 300:
                    return None
                outcome = str(status)
                if status != 429 and status < 500:
                    return outcome
            if time.monotonic() + pause_s > deadline_s:
                return outcome
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def close(self) -> None:
        """Sends what waits, if it is taken at once."""
        if self._task is not None:
            self._task.cancel()
            await self.flush(give_up_s=0.0)
