"""The runs of a benchmark. Each puts one load on one target and reads the meters around it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from benchmarks.books import Sent
from benchmarks.meters import Meters, Reading, Usage, between
from benchmarks.orders import Order, Outcome, PlainOrder, Spread, StreamsOrder, Target
from benchmarks.stage import Stage, carry_out

SCENARIOS = ("plain", "stream", "hold", "tenants")


@dataclass(frozen=True, slots=True)
class Size:
    """How large a benchmark is. Paces are chunks a second of one stream.

    calm_s: what comes right after the last stream has begun still belongs to beginning. spare_s: how long
    streams go on beyond the measured time, for whatever is late.
    """

    customers: int
    connections: int
    warm_up: int
    requests: int
    light_connections: int
    light_requests: int
    streams: int
    stream_pace_per_s: float
    stream_window_s: float
    held_streams: int
    held_pace_per_s: float
    held_window_s: float
    connect_per_s: float
    probes_per_s: float
    beside: int
    calm_s: float = 1.0
    spare_s: float = 3.0


FULL = Size(
    customers=50,
    connections=64,
    warm_up=1_000,
    requests=10_000,
    light_connections=4,
    light_requests=1_000,
    streams=256,
    stream_pace_per_s=24.0,
    stream_window_s=6.0,
    held_streams=3_000,
    held_pace_per_s=3.0,
    held_window_s=60.0,
    connect_per_s=250.0,
    probes_per_s=20.0,
    beside=16,
)
QUICK = replace(
    FULL,
    warm_up=300,
    requests=2_000,
    light_requests=300,
    streams=128,
    stream_window_s=3.0,
    held_streams=600,
    held_window_s=10.0,
)
SMALLEST = Size(
    customers=3,
    connections=4,
    warm_up=4,
    requests=20,
    light_connections=2,
    light_requests=4,
    streams=5,
    stream_pace_per_s=20.0,
    stream_window_s=0.5,
    held_streams=5,
    held_pace_per_s=10.0,
    held_window_s=1.0,
    connect_per_s=100.0,
    probes_per_s=4.0,
    beside=1,
    calm_s=0.1,
    spare_s=1.0,
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One run. `figures` are what the report shows, with the unit at the end of the name."""

    scenario: str
    target: str
    figures: dict[str, float]
    outcome: Outcome


@dataclass(slots=True)
class Bench:
    """Carries the scenarios out. `sent` sums up what went through the gateway, warm-up included."""

    stage: Stage
    size: Size
    keys: Sequence[str]
    targets: dict[str, Target]
    sent: Sent = field(default_factory=Sent)

    @property
    def compared(self) -> list[str]:
        """nginx first, so that an interleaved series goes nginx, gateway, nginx, gateway."""
        return [name for name in ("nginx", "gateway") if name in self.targets]

    def run(self, scenario: str, runs: int) -> Iterator[Sample]:
        if scenario == "plain":
            for _ in range(runs):
                yield self._light()
                yield from (self._plain(scenario, name) for name in self.compared)
        elif scenario == "stream":
            for _ in range(runs):
                yield from (self._stream(name) for name in self.compared)
        elif scenario == "hold":
            yield from (self._hold(name) for name in self.compared)
        else:
            yield self._plain(scenario, "gateway")

    def warm_up(self) -> None:
        """Statements get planned, connections opened, and keys known."""
        self._carry_out("gateway", self._plain_order("gateway", self.size.warm_up))
        if "nginx" in self.targets:
            self._carry_out("nginx", self._plain_order("nginx", self.size.warm_up))

    # The scenarios.

    def _plain(self, scenario: str, name: str) -> Sample:
        meters = self.stage.meters()
        before = meters.read()
        outcome = self._carry_out(name, self._plain_order(name, self.size.requests))
        usage = between(before, meters.read())
        figures = {
            "requests_per_s": outcome.ok / (outcome.duration_ns / 1e9),
            **_spread("latency", outcome.latency),
            **_costs(usage, outcome.ok, "request"),
        }
        return Sample(scenario, name, figures, outcome)

    def _light(self) -> Sample:
        """The same calls with nobody else around: what the gateway itself adds to a call."""
        size = self.size
        spreads = {}
        outcome = Outcome(0, 0, 0, 0, 0, 0)
        for name in ("direct", "gateway"):
            order = self._plain_order(name, size.light_requests, connections=size.light_connections)
            outcome = self._carry_out(name, order)
            spreads[name] = outcome.latency
        direct, gateway = spreads["direct"], spreads["gateway"]
        figures = {
            **_spread("direct_latency", direct),
            **_spread("latency", gateway),
            "added_latency_p50_ms": (gateway.p50 - direct.p50) / 1e6,
            "added_latency_p99_ms": (gateway.p99 - direct.p99) / 1e6,
        }
        return Sample("light", "gateway", figures, outcome)

    def _stream(self, name: str) -> Sample:
        size = self.size
        figures, outcome = self._streams(
            name,
            streams=size.streams,
            pace_per_s=size.stream_pace_per_s,
            window_s=size.stream_window_s,
            probes_per_s=0.0,
        )
        return Sample("stream", name, figures, outcome)

    def _hold(self, name: str) -> Sample:
        size = self.size
        figures, outcome = self._streams(
            name,
            streams=size.held_streams,
            pace_per_s=size.held_pace_per_s,
            window_s=size.held_window_s,
            probes_per_s=size.probes_per_s,
        )
        probe, direct = outcome.probe_ttft, outcome.direct_ttft
        figures |= {
            **_spread("direct_ttft", direct),
            **_spread("ttft", probe),
            "added_ttft_p50_ms": (probe.p50 - direct.p50) / 1e6,
            "added_ttft_p99_ms": (probe.p99 - direct.p50) / 1e6,
        }
        return Sample("hold", name, figures, outcome)

    def _streams(
        self, name: str, *, streams: int, pace_per_s: float, window_s: float, probes_per_s: float
    ) -> tuple[dict[str, float], Outcome]:
        """Streams that all run for the measured time; only that is measured, and beginnings are not."""
        size, meters = self.size, self.stage.meters()
        connecting_s = streams / size.connect_per_s
        order = StreamsOrder(
            target=self.targets[name],
            keys=list(self.keys),
            streams=streams,
            connect_per_s=size.connect_per_s,
            tokens=round(pace_per_s * (connecting_s + size.calm_s + window_s + size.spare_s)),
            pace_per_s=pace_per_s,
            probes_per_s=probes_per_s,
            direct=self.targets["direct"],
            beside=size.beside,
        )
        idle = meters.read()
        window = _Window(self.stage, meters, book=name, calm_s=size.calm_s, window_s=window_s)
        outcome = self._carry_out(name, order, window)
        usage = window.usage()
        figures = {
            "streams": float(streams - outcome.failed - outcome.cut),
            "chunks_per_s": window.chunks / (usage.duration_ns / 1e9),
            **_spread("chunk_delay", outcome.delay),
            **_spread("direct_chunk_delay", outcome.beside_delay),
            "held_back_p50_ms": (outcome.delay.p50 - outcome.beside_delay.p50) / 1e6,
            "held_back_p99_ms": (outcome.delay.p99 - outcome.beside_delay.p99) / 1e6,
            **_spread("opening_ttft", outcome.ramp_ttft),
            "kib_per_stream": window.grown_bytes(idle, name) / 1024 / streams,
            **_costs(usage, window.chunks, "chunk"),
        }
        return figures, outcome

    # The way to the load generator.

    def _plain_order(self, name: str, requests: int, *, connections: int = 0) -> PlainOrder:
        return PlainOrder(
            target=self.targets[name],
            keys=list(self.keys),
            connections=connections or self.size.connections,
            requests=requests,
        )

    def _carry_out(self, name: str, order: Order, window: _Window | None = None) -> Outcome:
        outcome = carry_out(order, when_steady=window.measure if window else lambda: None)
        if name == "gateway":
            self.sent += Sent(outcome.ok, outcome.failed, outcome.cut, outcome.completion_tokens)
        return outcome


class _Window:
    """The measured time of a run of streams."""

    def __init__(self, stage: Stage, meters: Meters, *, book: str, calm_s: float, window_s: float) -> None:
        self._stage = stage
        self._meters = meters
        self._book = book
        self._calm_s = calm_s
        self._window_s = window_s
        self._readings: tuple[Reading, Reading] | None = None
        self.chunks = 0

    def measure(self) -> None:
        time.sleep(self._calm_s)
        begin = self._meters.read()
        chunks = self._stage.served()[self._book]["chunks"]
        time.sleep(self._window_s)
        self.chunks = self._stage.served()[self._book]["chunks"] - chunks
        self._readings = (begin, self._meters.read())

    def usage(self) -> Usage:
        if self._readings is None:
            raise RuntimeError("the streams never ran all at a time")
        return between(*self._readings)

    def grown_bytes(self, idle: Reading, name: str) -> int:
        assert self._readings is not None
        return max(reading.rss_bytes[name] for reading in self._readings) - idle.rss_bytes[name]


def _spread(name: str, spread: Spread) -> dict[str, float]:
    return {
        f"{name}_p50_ms": spread.p50 / 1e6,
        f"{name}_p99_ms": spread.p99 / 1e6,
        f"{name}_max_ms": spread.max / 1e6,
    }


def _costs(usage: Usage, units: int, unit: str) -> dict[str, float]:
    """What one request or chunk cost whom."""
    units = max(1, units)
    busy = {f"{name}_busy_percent": 100 * ns / usage.duration_ns for name, ns in usage.cpu_ns.items()}
    batches = {
        f"{name}_rows_a_batch": rows / flushes for name, (flushes, rows) in usage.batches.items() if flushes
    }
    return {
        **{f"{name}_us_per_{unit}": ns / units / 1e3 for name, ns in usage.cpu_ns.items()},
        f"statements_per_{unit}": usage.statements / units,
        f"transactions_per_{unit}": usage.transactions / units,
        f"valkey_round_trips_per_{unit}": usage.valkey_scripts / units,
        f"valkey_commands_per_{unit}": usage.valkey_commands / units,
        **busy,
        **batches,
    }
