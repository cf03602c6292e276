"""Exact books of one simulator: what came in, what was generated, what was sent, how it ended.

They are the truth that tests compare bills with. Totals are kept for the life of the process;
single requests only in a ring of the last ones, bodies in a smaller ring.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Literal

import msgspec

from devstack.engines.feeds.injected import Injected, Injections
from devstack.engines.feeds.told import FeedFormat, Told

MAX_RECORDS = 10_000
MAX_BODIES = 64
MAX_KEPT_BODY_BYTES = 1024 * 1024

_NOT_STREAMED = ("headers", "body_bytes", "body_sha256")
_SECRET_HEADERS = frozenset({b"authorization", b"x-api-key", b"api-key"})

# running: not over. stop, length: generated to the end, and the response was written.
# client_gone: the client left. fault: a scripted fault ended it. rejected: answered with an error.
# stopped: the process was told to stop. time_limit: over the simulator's own limit of a call.
Ending = Literal["running", "stop", "length", "client_gone", "fault", "rejected", "stopped", "time_limit"]


@dataclass(slots=True)
class RequestRecord:
    """One request as the engine saw it. Token counts are of all choices and prompts together.

    `prompt_tokens` includes `cached_tokens` and counts each prompt once whatever `n` is. `waited_ms` is how
    long it waited for slots.
    `sent_tokens` were handed to the socket before the connection was lost: an upper bound of what
    the client can have read. `reported_completion_tokens` is what the last usage object sent
    claimed, None when none was sent. `aborted` says that generation was cut short. `told` holds the true
    records of each feed, whatever became of them on their way.
    """

    seq: int
    started_unix: float
    path: str
    body_bytes: int
    body_sha256: str
    headers: list[tuple[str, str]]
    wire_id: str | None = None
    model: str | None = None
    stream: bool = False
    n: int = 1
    cap_tokens: int | None = None
    fault: str | None = None
    waited_ms: float = 0.0
    status: int | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    generated_tokens: int = 0
    sent_tokens: int = 0
    reported_completion_tokens: int | None = None
    aborted: bool = False
    ended: Ending = "running"
    ended_unix: float | None = None
    told: dict[FeedFormat, list[Told]] = field(default_factory=dict)


@dataclass(slots=True)
class Totals:
    """Sums over every request since the start or the last reset, running ones included."""

    requests: int = 0
    running: int = 0
    aborted: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    generated_tokens: int = 0
    sent_tokens: int = 0
    reported_completion_tokens: int = 0
    dropped_records: int = 0
    ended: dict[str, int] = field(default_factory=dict)

    def add(self, record: RequestRecord) -> None:
        """Adds one request's counts."""
        self.requests += 1
        self.aborted += record.aborted
        self.prompt_tokens += record.prompt_tokens
        self.cached_tokens += record.cached_tokens
        self.reasoning_tokens += record.reasoning_tokens
        self.generated_tokens += record.generated_tokens
        self.sent_tokens += record.sent_tokens
        self.reported_completion_tokens += record.reported_completion_tokens or 0


class Books:
    """Opens a record when a request has been read and closes it when the engine is done with it."""

    def __init__(self, record_path: Path | None, books_path: Path | None = None) -> None:
        """`record_path` gets one JSON line for each request that ends. `books_path` gets the same without
        headers and with `"kind": "call"`, and each injected fault with `"kind": "fault"`. Raises OSError."""
        self._seq = 0
        self._file: TextIOWrapper | None = None
        if record_path is not None:
            self._file = record_path.open("a", encoding="utf-8", buffering=1)
        self._stream: TextIOWrapper | None = None
        if books_path is not None:
            self._stream = books_path.open("a", encoding="utf-8", buffering=1)
        self.injections = Injections(self._stream_fault)
        self._live: dict[int, RequestRecord] = {}
        self._finished: deque[RequestRecord] = deque(maxlen=MAX_RECORDS)
        self._bodies: deque[tuple[int, bytes]] = deque(maxlen=MAX_BODIES)
        self._totals = Totals()
        self._endings: Counter[str] = Counter()

    def open(self, path: str, headers: list[tuple[bytes, bytes]], body: bytes) -> RequestRecord:
        """Books a request that has been read completely. Secrets are left out of its headers."""
        self._seq += 1
        record = RequestRecord(
            seq=self._seq,
            started_unix=time.time(),
            path=path,
            body_bytes=len(body),
            body_sha256=hashlib.sha256(body).hexdigest(),
            headers=[
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in headers
                if name not in _SECRET_HEADERS
            ],
        )
        self._live[record.seq] = record
        if len(body) <= MAX_KEPT_BODY_BYTES:
            self._bodies.append((record.seq, body))
        return record

    def close(self, record: RequestRecord, ended: Ending) -> None:
        """Books how a request ended. A request that was open at a reset is forgotten."""
        record.ended = ended
        record.ended_unix = time.time()
        if self._live.pop(record.seq, None) is None:
            return
        if len(self._finished) == MAX_RECORDS:
            self._totals.dropped_records += 1
        self._finished.append(record)
        self._totals.add(record)
        self._endings[ended] += 1
        if self._file is not None:
            self._file.write(msgspec.json.encode(record).decode() + "\n")
        if self._stream is not None:
            facts = msgspec.to_builtins(record)
            for field_name in _NOT_STREAMED:
                del facts[field_name]
            self._stream.write(msgspec.json.encode({"kind": "call", **facts}).decode() + "\n")

    def _stream_fault(self, injected: Injected) -> None:
        if self._stream is not None:
            facts = {"kind": "fault", **msgspec.to_builtins(injected)}
            self._stream.write(msgspec.json.encode(facts).decode() + "\n")

    def reset(self) -> None:
        """Forgets everything but the running number of requests."""
        self._live.clear()
        self._finished.clear()
        self._bodies.clear()
        self._totals = Totals()
        self._endings.clear()
        self.injections.clear()

    @property
    def running(self) -> int:
        """Requests that are open."""
        return len(self._live)

    def requests(self, *, since_seq: int = 0, limit: int = MAX_RECORDS) -> list[RequestRecord]:
        """The last `limit` requests with a number above `since_seq`, oldest first, running ones included."""
        chosen = [record for record in self._finished if record.seq > since_seq]
        chosen += [record for record in self._live.values() if record.seq > since_seq]
        chosen.sort(key=lambda record: record.seq)
        return chosen[-limit:] if limit else []

    def totals(self) -> dict[str, Any]:
        """The sums as a JSON-ready dict; `ended` counts the requests by how they ended."""
        sums = Totals(**{**asdict(self._totals), "ended": dict(self._endings)})
        for record in self._live.values():
            sums.add(record)
        sums.running = len(self._live)
        return asdict(sums)

    def body(self, seq: int | None) -> bytes | None:
        """The body of a request as received, of the last one without `seq`; None if it is not kept."""
        for kept_seq, body in reversed(self._bodies):
            if seq is None or kept_seq == seq:
                return body
        return None

    def shut(self) -> None:
        """Closes the files."""
        for file in (self._file, self._stream):
            if file is not None:
                file.close()
