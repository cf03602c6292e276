"""The table that people read, and the file that programs read."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.books import Verdict
from benchmarks.scenarios import Sample, Size

Medians = Mapping[tuple[str, str], Mapping[str, float]]

_TITLES = {
    "plain": "Plain: a closed loop, every answer whole",
    "light": "Light load: what the gateway adds to a call when nobody waits",
    "stream": "Stream: chunks, once all streams have begun",
    "hold": "Hold: many streams at a time",
    "tenants": "Tenants: how much of the database a call takes",
}
_NAMES = ("nginx", "gateway")
# What the table shows: label and figure. Own is the target's own processor time; the file has all figures.
_PER_REQUEST = (
    ("requests/s", "requests_per_s"),
    ("processor time a request, us", "{target}_us_per_request"),
    ("  beside it PostgreSQL, us", "postgres_us_per_request"),
    ("  beside it Valkey, us", "valkey_us_per_request"),
    ("latency p50, ms", "latency_p50_ms"),
    ("latency p99, ms", "latency_p99_ms"),
    ("database round trips a request", "statements_per_request"),
    ("Valkey round trips a request", "valkey_round_trips_per_request"),
    ("rows an admission", "admission_rows_a_batch"),
    ("rows a settlement", "settlement_rows_a_batch"),
)
_PER_CHUNK = (
    ("streams", "streams"),
    ("chunks/s", "chunks_per_s"),
    ("processor time a chunk, us", "{target}_us_per_chunk"),
    ("  beside it PostgreSQL, us", "postgres_us_per_chunk"),
    ("  beside it Valkey, us", "valkey_us_per_chunk"),
    ("busy, percent of a core", "{target}_busy_percent"),
    ("a chunk is under way p50, ms", "chunk_delay_p50_ms"),
    ("a chunk is under way p99, ms", "chunk_delay_p99_ms"),
    ("  held back p50, ms", "held_back_p50_ms"),
    ("  held back p99, ms", "held_back_p99_ms"),
    ("memory a stream, KiB", "kib_per_stream"),
)
_SHOWN = {
    "plain": _PER_REQUEST,
    "tenants": _PER_REQUEST,
    "light": (
        ("latency p50, ms", "latency_p50_ms"),
        ("latency p99, ms", "latency_p99_ms"),
        ("  without gateway p50, ms", "direct_latency_p50_ms"),
        ("  without gateway p99, ms", "direct_latency_p99_ms"),
        ("added p50, ms", "added_latency_p50_ms"),
        ("added p99, ms", "added_latency_p99_ms"),
    ),
    "stream": (*_PER_CHUNK, ("time to first token p99, ms", "opening_ttft_p99_ms")),
    "hold": (
        *_PER_CHUNK,
        ("time to first token, all on, p50, ms", "ttft_p50_ms"),
        ("time to first token, all on, p99, ms", "ttft_p99_ms"),
        ("  added p50, ms", "added_ttft_p50_ms"),
        ("  added p99, ms", "added_ttft_p99_ms"),
    ),
}
# nginx is passed nothing to, and what these do meanwhile is not on its account.
_OF_THE_GATEWAY_ONLY = ("postgres", "valkey", "statements", "admission", "settlement")


def medians(samples: Iterable[Sample]) -> dict[tuple[str, str], dict[str, float]]:
    """By scenario and target: the median of every figure over the runs."""
    gathered: dict[tuple[str, str], dict[str, list[float]]] = {}
    for sample in samples:
        figures = gathered.setdefault((sample.scenario, sample.target), {})
        for name, value in sample.figures.items():
            figures.setdefault(name, []).append(value)
    return {
        key: {name: statistics.median(values) for name, values in figures.items()}
        for key, figures in gathered.items()
    }


def table(samples: Sequence[Sample]) -> str:
    found = medians(samples)
    lines: list[str] = []
    for scenario in dict.fromkeys(sample.scenario for sample in samples):
        columns = {name: found[scenario, name] for name in _NAMES if (scenario, name) in found}
        runs = sum(sample.scenario == scenario and sample.target == "gateway" for sample in samples)
        lines += ["", f"{_TITLES[scenario]} ({'one run' if runs == 1 else f'median of {runs} runs'})"]
        lines.append(f"  {'':38}{''.join(f'{name:>12}' for name in columns)}")
        lines += [f"  {label:38}{cells}" for label, cells in _rows(scenario, columns)]
        times = ratio(scenario, found)
        if times is not None:
            lines.append(f"  processor time, gateway : nginx = {times:.1f}")
    return "\n".join(lines)


def _rows(scenario: str, columns: Mapping[str, Mapping[str, float]]) -> list[tuple[str, str]]:
    return [
        (label, "".join(_cell(figure, target, figures) for target, figures in columns.items()))
        for label, figure in _SHOWN[scenario]
    ]


def _cell(figure: str, target: str, figures: Mapping[str, float]) -> str:
    value = figures.get(figure.format(target=target))
    if value is None or (target == "nginx" and figure.startswith(_OF_THE_GATEWAY_ONLY)):
        return f"{'-':>12}"
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 1 else 3
    return f"{value:12,.{digits}f}"


def ratio(scenario: str, found: Medians) -> float | None:
    """The gateway's processor time in multiples of nginx's, which passes bytes on and knows nothing."""
    unit = "request" if scenario == "plain" else "chunk"
    limit = found.get((scenario, "nginx"), {}).get(f"nginx_us_per_{unit}")
    own = found.get((scenario, "gateway"), {}).get(f"gateway_us_per_{unit}")
    return own / limit if limit and own else None


def verdict_lines(verdict: Verdict) -> list[str]:
    booked = verdict.booked
    lines = [
        "",
        f"Exactness: {booked.requests:,} requests, {booked.prompt_tokens:,} prompt "
        f"({booked.cached_tokens:,} cached) and {booked.completion_tokens:,} completion tokens booked; "
        f"{verdict.served['prompt_tokens']:,} and {verdict.served['completion_tokens']:,} served; "
        f"manage.py audit exits {verdict.audit_exit_code}",
    ]
    lines += [f"  DIFFERS  {difference}" for difference in verdict.differences]
    lines.append("  all agree" if verdict.is_exact else "  the books are NOT exact")
    return lines


def write_json(
    path: Path, *, samples: Sequence[Sample], verdict: Verdict, size: Size, settings: Mapping[str, Any]
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    found = medians(samples)
    document = {
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        },
        "settings": dict(settings),
        "size": asdict(size),
        "medians": {"/".join(key): figures for key, figures in found.items()},
        "times_nginx": {
            name: times
            for name in dict.fromkeys(sample.scenario for sample in samples)
            if (times := ratio(name, found)) is not None
        },
        "runs": [
            {
                "scenario": sample.scenario,
                "target": sample.target,
                "figures": sample.figures,
                "outcome": msgspec.to_builtins(sample.outcome),
            }
            for sample in samples
        ],
        "exactness": asdict(verdict),
    }
    path.write_text(json.dumps(document, indent=2) + "\n")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
