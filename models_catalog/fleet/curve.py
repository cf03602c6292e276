"""What was measured of a deployment under rising load: how long calls take, and how much it carries.

A curve is measured by `manage.py commission`, stored as a DeploymentCurve and read by gateways and pages.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """So many calls at a time. `inter_token_us`: between two tokens of a call, median, in microseconds;
    `output_tokens_per_s`: of all calls together."""

    concurrency: int
    ttft_p50_ms: int
    ttft_p95_ms: int
    inter_token_us: int
    output_tokens_per_s: float


@dataclass(frozen=True, slots=True)
class Curve:
    """The points by rising concurrency, at least one. Each call of the measurement had `prompt_tokens` tokens
    of input that were in no cache, and about `output_tokens` of output.

    prefill_ns: what a further input token adds to the time to the first one.
    certified_concurrency: calls at a time with which the limits of the measurement still held, 0 for none;
    certified_tokens_per_s: weighted tokens a second at that load.
    Weights are thousandths of an output token; that of cached input is None where no cache showed itself.
    """

    points: tuple[CurvePoint, ...]
    prompt_tokens: int
    output_tokens: int
    prefill_ns: int
    certified_concurrency: int
    certified_tokens_per_s: int
    input_weight: int
    cached_weight: int | None
    measured_at: datetime

    @property
    def peak_tokens_per_s(self) -> float:
        """The most output tokens a second that were seen."""
        return max(point.output_tokens_per_s for point in self.points)

    def times_at(self, calls: int) -> tuple[float, float]:
        """Seconds to the first token, median, and between tokens, with so many calls at a time.

        Between points along a straight line. Beyond the last one the engine does no more than there, so both
        grow as the number of calls.
        """
        points = self.points
        place = bisect_left(points, calls, key=lambda point: point.concurrency)
        if place == len(points):
            last = points[-1]
            stretch = calls / last.concurrency
            return last.ttft_p50_ms / 1e3 * stretch, last.inter_token_us / 1e6 * stretch
        after = points[place]
        if place == 0 or after.concurrency == calls:
            return after.ttft_p50_ms / 1e3, after.inter_token_us / 1e6
        before = points[place - 1]
        part = (calls - before.concurrency) / (after.concurrency - before.concurrency)
        return (
            (before.ttft_p50_ms + part * (after.ttft_p50_ms - before.ttft_p50_ms)) / 1e3,
            (before.inter_token_us + part * (after.inter_token_us - before.inter_token_us)) / 1e6,
        )


def points_of(
    concurrency: Sequence[int],
    ttft_p50_ms: Sequence[int],
    ttft_p95_ms: Sequence[int],
    inter_token_us: Sequence[int],
    output_tokens_per_s: Sequence[float],
) -> tuple[CurvePoint, ...]:
    """The points of columns of the same length, as they are stored."""
    columns = zip(concurrency, ttft_p50_ms, ttft_p95_ms, inter_token_us, output_tokens_per_s, strict=True)
    return tuple(CurvePoint(*column) for column in columns)


def curve_of(
    concurrency: Sequence[int],
    ttft_p50_ms: Sequence[int],
    ttft_p95_ms: Sequence[int],
    inter_token_us: Sequence[int],
    output_tokens_per_s: Sequence[float],
    prompt_tokens: int,
    output_tokens: int,
    prefill_ns: int,
    certified_concurrency: int,
    certified_tokens_per_s: int,
    input_weight: int,
    cached_weight: int | None,
    measured_at: datetime,
) -> Curve:
    """The curve of a stored row, whose columns these are."""
    return Curve(
        points_of(concurrency, ttft_p50_ms, ttft_p95_ms, inter_token_us, output_tokens_per_s),
        prompt_tokens,
        output_tokens,
        prefill_ns,
        certified_concurrency,
        certified_tokens_per_s,
        input_weight,
        cached_weight,
        measured_at,
    )
