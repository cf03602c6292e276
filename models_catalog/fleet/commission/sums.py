"""What the samples of a measurement say: points of a curve, what of it is certified, how tokens weigh."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median

from models_catalog.fleet.commission.calls import Sample
from models_catalog.fleet.curve import CurvePoint
from models_catalog.models.costs import MAX_WEIGHT_THOUSANDTHS

WHOLE = 1000
# More calls at a time that raise the throughput by less than this only make each of them slower.
LEAST_GAIN = 0.05


@dataclass(frozen=True, slots=True)
class Limits:
    """What has to hold for a load to be certified: the time to the first token at p95, in ms, and the tokens
    a second of each call."""

    ttft_p95_ms: int
    call_tokens_per_s: float


@dataclass(frozen=True, slots=True)
class Level:
    """One load: its point, and the input tokens a second beside it. Of failed calls there are none in it."""

    point: CurvePoint
    input_tokens_per_s: float
    failures: int

    def holds(self, limits: Limits) -> bool:
        return (
            not self.failures
            and self.point.ttft_p95_ms <= limits.ttft_p95_ms
            and 1e6 / self.point.inter_token_us >= limits.call_tokens_per_s
        )


def level_of(workers: Sequence[Sequence[Sample]]) -> Level | None:
    """The level that these workers make up, each with its calls one after the other; None when none was
    served.

    The first calls all begin at once, as they never do later: they count only where there are no others. What
    is carried is then what so many workers with calls of such a length get done (Little's law), without the
    beginning and the end of the level.
    """
    first = [sample for samples in workers for sample in samples[:1]]
    later = [sample for samples in workers for sample in samples[1:]]
    served = [sample for sample in later if not sample.failure] or [
        sample for sample in first if not sample.failure
    ]
    if not served:
        return None
    between = [
        (sample.duration_s - sample.ttft_s) / (sample.output_tokens - 1)
        for sample in served
        if sample.output_tokens > 1
    ]
    ttfts = sorted(sample.ttft_s for sample in served)
    calls_per_s = len(workers) / max(1e-6, mean(sample.duration_s for sample in served))
    point = CurvePoint(
        concurrency=len(workers),
        ttft_p50_ms=_ms(quantile(ttfts, 0.5)),
        ttft_p95_ms=_ms(quantile(ttfts, 0.95)),
        inter_token_us=max(1, round(median(between) * 1e6)) if between else 1,
        output_tokens_per_s=max(0.001, round(calls_per_s * mean(one.output_tokens for one in served), 3)),
    )
    fresh = mean(max(0, one.prompt_tokens - one.cached_tokens) for one in served)
    failures = sum(1 for sample in (*first, *later) if sample.failure)
    return Level(point, calls_per_s * fresh, failures)


def certified(levels: Sequence[Level], limits: Limits) -> Level | None:
    """The load to which all limits hold, and beyond which nothing is gained; None when they never hold."""
    holding: list[Level] = []
    for level in levels:
        if not level.holds(limits):
            break
        holding.append(level)
    if not holding:
        return None
    enough = max(level.point.output_tokens_per_s for level in holding) * (1 - LEAST_GAIN)
    return next(level for level in holding if level.point.output_tokens_per_s >= enough)


def is_rising(levels: Sequence[Level]) -> bool:
    """Whether the last level carries more than all before it by LEAST_GAIN."""
    if len(levels) < 2:
        return True
    before = max(level.point.output_tokens_per_s for level in levels[:-1])
    return levels[-1].point.output_tokens_per_s >= before * (1 + LEAST_GAIN)


def slope_ns(short: Sequence[Sample], long: Sequence[Sample]) -> int | None:
    """What a further input token adds to the time to the first token; None when that cannot be told."""
    short = [sample for sample in short if not sample.failure]
    long = [sample for sample in long if not sample.failure]
    if not short or not long:
        return None
    tokens = median(one.prompt_tokens for one in long) - median(one.prompt_tokens for one in short)
    if tokens < 1:
        return None
    seconds = median(one.ttft_s for one in long) - median(one.ttft_s for one in short)
    return max(0, round(seconds / tokens * 1e9))


def weight_of(token_ns: int, peak_tokens_per_s: float) -> int:
    """What a token that takes the engine so long weighs, in thousandths of an output token at full load."""
    return min(MAX_WEIGHT_THOUSANDTHS, round(token_ns / 1e9 * peak_tokens_per_s * WHOLE))


def weighted_tokens_per_s(level: Level, input_weight: int) -> int:
    """Input tokens by their weight, and output tokens."""
    return max(1, round(level.point.output_tokens_per_s + level.input_tokens_per_s * input_weight / WHOLE))


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value that `share` of them do not exceed, of values in order."""
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))
