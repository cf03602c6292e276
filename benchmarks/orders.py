"""What the runner tells the load generator to do, and what that says when it is done."""

from __future__ import annotations

from msgspec import Struct, field


class Target(Struct, frozen=True):
    """Where requests go. stream_options: what has to be asked for there beside the usage."""

    name: str
    host: str
    port: int
    path: str
    model: str
    stream_options: dict[str, bool] = {}


class PlainOrder(Struct, frozen=True, tag="plain"):
    """Answers have `tokens` to `tokens + 6` tokens."""

    target: Target
    keys: list[str]
    connections: int
    requests: int
    tokens: int = 16
    timeout_s: float = 600.0


class StreamsOrder(Struct, frozen=True, tag="streams"):
    """`tokens` chunks a stream at `pace_per_s`. Probes are short streams that come while all others run.

    direct: the way with nothing in between. For each probe another one takes it, and so do `beside` streams
    that run beside the others: what the machine does to both at the same moment is then no difference.
    """

    target: Target
    keys: list[str]
    streams: int
    connect_per_s: float
    tokens: int
    pace_per_s: float
    probes_per_s: float = 0.0
    probe_tokens: int = 3
    probe_pace_per_s: float = 20.0
    direct: Target | None = None
    beside: int = 0
    timeout_s: float = 600.0


Order = PlainOrder | StreamsOrder


class Spread(Struct, frozen=True):
    """Of so many measured times, in nanoseconds."""

    count: int = 0
    p50: int = 0
    p95: int = 0
    p99: int = 0
    max: int = 0


class Outcome(Struct, frozen=True, tag="done", tag_field="event"):
    """failed: answered with an error; cut: ended before its end. delay: from the backend's write of a
    chunk to its arrival, while all streams ran; the time to first token counts from sending the request."""

    ok: int
    failed: int
    cut: int
    chunks: int
    completion_tokens: int
    duration_ns: int
    errors: list[str] = field(default_factory=list)
    latency: Spread = Spread()
    delay: Spread = Spread()
    beside_delay: Spread = Spread()
    ramp_ttft: Spread = Spread()
    probe_ttft: Spread = Spread()
    direct_ttft: Spread = Spread()
