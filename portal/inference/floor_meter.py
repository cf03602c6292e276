"""What all processes deliver right now, by deployment: counters of single seconds in Valkey.

For a live screen and nothing else. Money is counted elsewhere, so what is lost here is lost.

Seconds are those of the processes' wall clocks. Each process writes once into each second in which it had
calls, right after the second has ended.
"""

import asyncio
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import RedisError

from portal.inference import measures
from quotas.metering.facts import NOTHING, UsageFacts

logger = logging.getLogger(__name__)

KEEP_S: Final = 300
# The longest window that can be read: the oldest second must not end while it is read.
MAX_WINDOW_S: Final = KEEP_S - 10
WRITE_TIMEOUT_S = 0.5
# How far into the next second a second is written, so that a clock that is a little early hits it too.
MARGIN_S = 0.01


@dataclass(frozen=True, slots=True)
class FloorFlow:
    """What one deployment delivers: tokens a second on average over a window, and the calls at its end.
    Prompt tokens include the cached ones."""

    prompt_tokens_per_s: float = 0.0
    cached_tokens_per_s: float = 0.0
    completion_tokens_per_s: float = 0.0
    live_calls: int = 0


@dataclass(slots=True)
class _Count:
    """What was gathered of one deployment since the last second was written."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    live: int = 0

    def named(self) -> tuple[tuple[str, int], ...]:
        """With the names under which they are written down."""
        return (
            ("prompt", self.prompt),
            ("cached", self.cached),
            ("completion", self.completion),
            ("live", self.live),
        )


class FloorMeter:
    """Gathers what this process delivers, and writes it down once a second (`write`)."""

    def __init__(self, valkey: Redis) -> None:
        self._valkey = valkey
        self._counts: dict[UUID, _Count] = {}

    def add(self, deployment_id: UUID, now: UsageFacts, *, before: UsageFacts = NOTHING) -> None:
        """Count what has been delivered since `before`. Counts that are corrected downwards are, too."""
        count = self._of(deployment_id)
        count.prompt += now.prompt_tokens - before.prompt_tokens
        count.cached += now.cached_tokens - before.cached_tokens
        count.completion += now.completion_tokens - before.completion_tokens

    def add_live(self, deployment_id: UUID) -> None:
        """One call that is in progress at this deployment at the end of the second."""
        self._of(deployment_id).live += 1

    def _of(self, deployment_id: UUID) -> "_Count":
        count = self._counts.get(deployment_id)
        if count is None:
            count = self._counts[deployment_id] = _Count()
        return count

    async def write(self, *, second: int) -> None:
        """Add what was gathered to a second, in one round trip; nothing when there is nothing. Never raises
        because Valkey is away: then it is dropped, and counted."""
        gathered, self._counts = self._counts, {}
        counts = {
            f"{deployment_id}:{name}": amount
            for deployment_id, count in gathered.items()
            for name, amount in count.named()
            if amount
        }
        if not counts:
            return
        key = _key(second)
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S), self._valkey.pipeline(transaction=False) as pipe:
                for name, amount in counts.items():
                    pipe.hincrby(key, name, amount)
                pipe.expire(key, KEEP_S)
                await pipe.execute()
        except (RedisError, OSError, TimeoutError) as error:
            measures.FLOOR_MISSED.inc()
            logger.info("inference.floor.missed", extra={"reason": type(error).__name__})


def seconds_until_written(now_s: float) -> float:
    """How long to wait from a moment (Unix seconds) until its second is over and is to be written."""
    return math.floor(now_s) + 1 + MARGIN_S - now_s


async def read_floor(valkey: Redis, *, now_s: float, window_s: int) -> dict[UUID, FloorFlow]:
    """What each deployment with any flow delivered in the `window_s` seconds that are written by now.

    now_s: the wall clock (time.time()). The second that has just ended may still be being written, so the
    window ends before it. Raises redis.exceptions.RedisError; ValueError for a window of less than a second
    or more than MAX_WINDOW_S.
    """
    if not 1 <= window_s <= MAX_WINDOW_S:
        raise ValueError(f"a window has 1 to {MAX_WINDOW_S} seconds")
    end = math.floor(now_s) - 1
    async with valkey.pipeline(transaction=False) as pipe:
        for second in range(end - window_s, end):
            pipe.hgetall(_key(second))
        seconds: list[Mapping[bytes, bytes]] = await pipe.execute()
    # A first estimate that was corrected downwards may leave less than nothing in a short window.
    totals: dict[UUID, dict[str, int]] = {}
    for number, counts in enumerate(seconds):
        for field, amount in counts.items():
            deployment_id, _, name = field.decode().partition(":")
            of_deployment = totals.setdefault(UUID(deployment_id), {})
            # Calls in progress are no flow: those of the last second count.
            if name != "live" or number == len(seconds) - 1:
                of_deployment[name] = of_deployment.get(name, 0) + int(amount)
    return {
        deployment_id: FloorFlow(
            prompt_tokens_per_s=max(0, counts.get("prompt", 0)) / window_s,
            cached_tokens_per_s=max(0, counts.get("cached", 0)) / window_s,
            completion_tokens_per_s=max(0, counts.get("completion", 0)) / window_s,
            live_calls=counts.get("live", 0),
        )
        for deployment_id, counts in totals.items()
    }


def _key(second: int) -> str:
    return f"floor:{second}"
