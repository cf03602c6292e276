"""Decodes a call by the clock, as fast as it was asked to and for as long as the engine would."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from devstack.engines.call import Call
from devstack.engines.dialects.base import Dialect
from devstack.engines.link import Link

# Unpaced streams give way to other connections after that many steps.
STREAM_SLICE_STEPS = 32
# A plain call wakes up at most this often: nobody sees its single tokens.
_PLAIN_PAUSE_S = 0.02


async def decode(call: Call, link: Link, dialect: Dialect, *, limit_steps: int) -> AsyncIterator[int]:
    """Yields how many steps were decoded since the last yield; the call and the counters are up to date.

    Ends after `limit_steps`, or earlier when the client is gone and the engine notices; then
    `call.aborted` is set. The step s is due `ttft + (s - 1) / rate` after the start of the call.
    """
    rate_per_s = call.rate_per_s
    first_s = call.started_s + call.directive.ttft_ms / 1000
    coarse_s = 0.0 if call.request.stream else _PLAIN_PAUSE_S
    limit = limit_steps
    gone = False
    while True:
        if link.lost and not gone:
            gone = True
            limit = min(limit_steps, call.steps + _overrun_steps(call, dialect))
            call.aborted = limit < call.target_steps
            if limit == 0:
                return
        if call.steps >= limit > 0:
            return
        delay_s = _next_wake_s(call, first_s, coarse_s, limit) - time.perf_counter()
        if delay_s > 0:
            if gone:
                await asyncio.sleep(delay_s)
            else:
                await link.pause(delay_s)
            continue
        if rate_per_s:
            # At least one: the clock says that it is due, whatever rounding does to the product.
            due = max(1, int((time.perf_counter() - first_s) * rate_per_s) + 1 - call.steps)
        else:
            due = STREAM_SLICE_STEPS if call.request.stream else limit
        steps = min(due, limit - call.steps)
        _advance(call, dialect, steps)
        if limit == 0:
            return
        yield steps
        if not rate_per_s and call.steps < limit:
            await asyncio.sleep(0)


def _next_wake_s(call: Call, first_s: float, coarse_s: float, limit: int) -> float:
    if not call.rate_per_s or not call.steps:
        return first_s
    next_s = first_s + call.steps / call.rate_per_s
    last_s = first_s + (limit - 1) / call.rate_per_s
    return min(last_s, next_s + coarse_s)


def _overrun_steps(call: Call, dialect: Dialect) -> int:
    asked = call.directive.overrun
    return dialect.overrun_steps(call) if asked is None else asked


def _advance(call: Call, dialect: Dialect, steps: int) -> None:
    first = call.prefilled_s is None
    call.advance(steps)
    if first:
        dialect.counters.prefilled(call)
    if steps > 0:
        dialect.counters.decoded(call, steps)
