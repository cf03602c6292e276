"""Decodes a call by the clock, as fast as it was asked to and for as long as the engine would."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from devstack.engines.call import Call
from devstack.engines.dialects.base import Dialect
from devstack.engines.link import Link
from devstack.engines.machine import Machine, Pace, Unpaced

# Unpaced streams give way to other connections after that many steps.
STREAM_SLICE_STEPS = 32
# A plain call wakes up at most this often: nobody sees its single tokens.
_PLAIN_PAUSE_S = 0.02
# How long a stopped engine leaves a client without a byte.
MAX_FROZEN_S = 600.0


async def decode(
    call: Call, link: Link, dialect: Dialect, machine: Machine, *, limit_steps: int
) -> AsyncIterator[int]:
    """Yields how many steps were decoded since the last yield; the call and the counters are up to date.

    Ends after `limit_steps`, or earlier when the client is gone and the engine notices; then
    `call.aborted` is set. Once the machine is frozen nothing more is decoded, and it ends with the client.
    """
    pace = machine.pace(call)
    coarse_s = 0.0 if call.request.stream else _PLAIN_PAUSE_S
    is_paced = not isinstance(pace, Unpaced)
    limit = limit_steps
    gone = False
    while True:
        if machine.is_frozen:
            await link.pause(MAX_FROZEN_S)
            call.aborted = True
            return
        if link.lost and not gone:
            gone = True
            limit = min(limit_steps, call.steps + _overrun_steps(call, dialect))
            call.aborted = limit < call.target_steps
            if limit == 0:
                return
        if call.steps >= limit > 0:
            return
        now_s = time.perf_counter()
        delay_s = _next_wake_s(call, pace, now_s, coarse_s, limit) - now_s
        if delay_s > 0:
            if gone:
                await asyncio.sleep(delay_s)
            else:
                await link.pause(delay_s)
            continue
        if is_paced:
            # At least one: the clock says that it is due, whatever rounding does to the product.
            due = max(1, pace.due_steps(time.perf_counter()) - call.steps)
        else:
            due = STREAM_SLICE_STEPS if call.request.stream else limit
        steps = min(due, limit - call.steps)
        _advance(call, dialect, steps)
        if limit == 0:
            return
        yield steps
        if not is_paced and call.steps < limit:
            await asyncio.sleep(0)


def _next_wake_s(call: Call, pace: Pace, now_s: float, coarse_s: float, limit: int) -> float:
    if not call.steps or isinstance(pace, Unpaced):
        return pace.first_s
    return min(pace.due_s(limit, now_s), pace.due_s(call.steps + 1, now_s) + coarse_s)


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
