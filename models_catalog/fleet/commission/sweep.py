"""The measurement: what input and cached input cost, then more and more calls at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from models_catalog.fleet.commission.calls import Caller, Sample, Target, gather_level, make_prompt
from models_catalog.fleet.commission.sums import (
    Level,
    Limits,
    certified,
    is_rising,
    level_of,
    slope_ns,
    weight_of,
    weighted_tokens_per_s,
)
from models_catalog.fleet.curve import CurvePoint

PROBES: Final = 3
SHORT_WORDS: Final = 16
# Of the long prompt that shows what input costs.
LONG_TOKENS: Final = 1024
# Levels without a gain before the sweep ends.
FLAT_LEVELS: Final = 2
# A cache that saves less than this of a prompt's time has not shown itself.
CACHE_SHARE: Final = 0.5
# What is left for a level when the time is nearly over is not worth beginning one.
LEAST_LEVEL_S: Final = 1.0
FAILED_SHARE: Final = 0.5
DEFAULT_LIMITS: Final = Limits(ttft_p95_ms=2000, call_tokens_per_s=5.0)


class CommissionFailed(RuntimeError):
    """Nothing could be measured; the message says why."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to measure. Tokens of each call; rounds: calls one after the other of each worker at a level."""

    prompt_tokens: int = 256
    output_tokens: int = 128
    max_concurrency: int = 256
    max_seconds: float = 300.0
    rounds: int = 3
    limits: Limits = DEFAULT_LIMITS


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of it: see models_catalog.fleet.curve.Curve. `ended`: why the sweep ended; spent tokens are
    those of the measurement itself, which the backend's own counters include."""

    points: tuple[CurvePoint, ...]
    prompt_tokens: int
    output_tokens: int
    prefill_ns: int
    certified_concurrency: int
    certified_tokens_per_s: int
    input_weight: int
    cached_weight: int | None
    spent_prompt_tokens: int
    spent_output_tokens: int
    took_s: float
    ended: str


@dataclass(frozen=True, slots=True)
class _Costs:
    """Time of a further input token, fresh and cached; None where that cannot be told. words: so many make
    up the plan's prompt."""

    words: int
    prefill_ns: int | None
    cached_ns: int | None


async def measure(target: Target, plan: Plan, *, say: Callable[[str], None]) -> Measured:
    """Measure a deployment within `plan.max_seconds`; `say` is told each step. Errors: CommissionFailed."""
    started_s = time.monotonic()
    deadline_s = started_s + plan.max_seconds
    async with Caller(target) as caller:
        costs = await _costs(caller, plan, deadline_s, say)
        levels, ended = await _sweep(caller, plan, costs.words, deadline_s, say)
        if not levels:
            raise CommissionFailed(f"no load could be measured: {ended}")
        samples = caller.samples
    return _measured(plan, costs, levels, samples, time.monotonic() - started_s, ended)


async def _costs(caller: Caller, plan: Plan, deadline_s: float, say: Callable[[str], None]) -> _Costs:
    """What input costs while nothing else runs: short and long prompts, the long ones twice."""
    short: list[Sample] = []
    fresh: list[Sample] = []
    again: list[Sample] = []
    words = max(1, plan.prompt_tokens - SHORT_WORDS)
    try:
        async with asyncio.timeout(max(0.0, deadline_s - time.monotonic()) / 2):
            first = await caller.call(make_prompt(SHORT_WORDS), output_tokens=8)
            if first.failure:
                raise CommissionFailed(f"the backend does not serve a single call: {first.failure}")
            more = await caller.call(make_prompt(SHORT_WORDS + 64), output_tokens=1)
            per_word = max(0.1, (more.prompt_tokens - first.prompt_tokens) / 64) if not more.failure else 1.0
            words = max(1, round(SHORT_WORDS + (plan.prompt_tokens - first.prompt_tokens) / per_word))
            long_words = round(max(LONG_TOKENS, plan.prompt_tokens * 2) / per_word)
            for _ in range(PROBES):
                prompt = make_prompt(long_words)
                short.append(await caller.call(make_prompt(SHORT_WORDS), output_tokens=1))
                fresh.append(await caller.call(prompt, output_tokens=1))
                again.append(await caller.call(prompt, output_tokens=1))
    except TimeoutError:
        say("input: not measured in time")
    prefill_ns = slope_ns(short, fresh)
    cached_ns = _cached_ns(short, fresh, again, prefill_ns)
    say(f"input: {_us(prefill_ns)} a token; cached input: {_us(cached_ns)} a token")
    return _Costs(words, prefill_ns, cached_ns)


def _cached_ns(
    short: Sequence[Sample], fresh: Sequence[Sample], again: Sequence[Sample], prefill_ns: int | None
) -> int | None:
    """What a cached input token takes; None when no cache showed itself, in counts or in time."""
    served = [sample for sample in again if not sample.failure]
    cached_ns = slope_ns(short, again)
    if not served or cached_ns is None or not prefill_ns:
        return None
    tokens = median(sample.prompt_tokens for sample in served)
    counts = median(sample.cached_tokens for sample in served) >= tokens * CACHE_SHARE
    return cached_ns if counts or cached_ns < prefill_ns * CACHE_SHARE else None


async def _sweep(
    caller: Caller, plan: Plan, words: int, deadline_s: float, say: Callable[[str], None]
) -> tuple[list[Level], str]:
    """Levels by rising concurrency, and why there are no more of them."""
    levels: list[Level] = []
    flat = 0
    concurrency = 1
    while concurrency <= plan.max_concurrency:
        level, trouble = await _level(caller, plan, words, concurrency, deadline_s)
        if level is None:
            return levels, trouble
        levels.append(level)
        say(_line(level))
        if level.failures > FAILED_SHARE * concurrency * plan.rounds:
            return levels, "most calls failed"
        if level.point.ttft_p95_ms > plan.limits.ttft_p95_ms and concurrency > 1:
            await _refine(caller, plan, words, levels, deadline_s, say)
            return levels, "the first token came too late"
        flat = 0 if is_rising(levels) else flat + 1
        if flat == FLAT_LEVELS:
            return levels, "more calls at a time carry no more tokens"
        concurrency *= 2
    return levels, "as many calls at a time as were asked for"


async def _refine(
    caller: Caller, plan: Plan, words: int, levels: list[Level], deadline_s: float, say: Callable[[str], None]
) -> None:
    """A level between the last one that held and the one that did not."""
    if len(levels) < 2:
        return
    low, high = levels[-2].point.concurrency, levels[-1].point.concurrency
    between = (low + high) // 2
    if between in (low, high):
        return
    level, _ = await _level(caller, plan, words, between, deadline_s)
    if level is not None:
        levels.insert(-1, level)
        say(_line(level))


async def _level(
    caller: Caller, plan: Plan, words: int, concurrency: int, deadline_s: float
) -> tuple[Level | None, str]:
    """One load, or why it could not be measured."""
    remaining_s = deadline_s - time.monotonic()
    if remaining_s < LEAST_LEVEL_S:
        return None, "the time was over"
    try:
        async with asyncio.timeout(remaining_s):
            workers = await gather_level(
                caller,
                concurrency=concurrency,
                rounds=plan.rounds,
                words=words,
                output_tokens=plan.output_tokens,
            )
    except TimeoutError:
        return None, "the time was over"
    level = level_of(workers)
    if level is None:
        return None, f"no call was served ({workers[0][0].failure})"
    return level, ""


def _measured(
    plan: Plan, costs: _Costs, levels: Sequence[Level], samples: Sequence[Sample], took_s: float, ended: str
) -> Measured:
    best = certified(levels, plan.limits)
    peak = max(level.point.output_tokens_per_s for level in levels)
    input_weight = weight_of(costs.prefill_ns or 0, peak)
    served = [sample for sample in samples if not sample.failure]
    loaded = [sample for sample in served if sample.output_tokens > 1] or served
    return Measured(
        points=tuple(level.point for level in levels),
        prompt_tokens=round(median(sample.prompt_tokens for sample in loaded)),
        output_tokens=max(1, round(median(sample.output_tokens for sample in loaded))),
        prefill_ns=costs.prefill_ns or 0,
        certified_concurrency=best.point.concurrency if best else 0,
        certified_tokens_per_s=weighted_tokens_per_s(best, input_weight) if best else 0,
        input_weight=input_weight,
        cached_weight=None if costs.cached_ns is None else weight_of(costs.cached_ns, peak),
        spent_prompt_tokens=sum(sample.prompt_tokens for sample in samples),
        spent_output_tokens=sum(sample.output_tokens for sample in samples),
        took_s=took_s,
        ended=ended,
    )


def _line(level: Level) -> str:
    point = level.point
    failed = f"  {level.failures} failed" if level.failures else ""
    return (
        f"{point.concurrency:>5} at a time: {point.output_tokens_per_s:>10,.1f} tokens/s  "
        f"first token {point.ttft_p50_ms:,} ms (p95 {point.ttft_p95_ms:,} ms)  "
        f"{1e6 / point.inter_token_us:,.1f} tokens/s a call{failed}"
    )


def _us(token_ns: int | None) -> str:
    return "unknown" if token_ns is None else f"{token_ns / 1000:,.1f} µs"
