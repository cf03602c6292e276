"""Request rates, in Valkey: one Lua call, on the server's clock. Rates fail open, and say so.

The generic cell rate algorithm: a key holds the moment at which the bucket would be empty again, so
there is no window whose border lets twice the rate through, and nothing to clean up.
"""

import time
from dataclasses import dataclass
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import RedisError

from portal.kit import metrics

FAILED_OPEN = metrics.counter("rate_limits_failed_open_total", "Calls whose rate was checked locally only.")

# After a failure Valkey is left alone for this long, so that an outage does not cost every call its timeout.
PAUSE_S = 1.0
MAX_LOCAL_KEYS = 10_000

_SCRIPT = """
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local interval_us, burst_us = tonumber(ARGV[1]), tonumber(ARGV[2])
local empty_us = tonumber(redis.call('GET', KEYS[1])) or now_us
if empty_us < now_us then empty_us = now_us end
local next_us = empty_us + interval_us
if next_us - burst_us > now_us then return next_us - burst_us - now_us end
redis.call('SET', KEYS[1], string.format('%.0f', next_us), 'PX', math.ceil((next_us - now_us) / 1000) + 1)
return 0
"""


@dataclass(frozen=True, slots=True)
class RateDecision:
    """Whether a call may go on, and otherwise in how many seconds it may."""

    allowed: bool
    retry_after_s: float = 0.0


class RequestRate:
    """At most `limit_rpm` requests a minute for each tenant, over all processes; a minute's worth at once."""

    def __init__(self, valkey: Redis, *, limit_rpm: int) -> None:
        if limit_rpm < 1:
            raise ValueError("a rate limit is at least one request a minute")
        self._valkey = valkey
        self._script = valkey.register_script(_SCRIPT)
        self._interval_us = 60_000_000 / limit_rpm
        self._burst_us = 60_000_000
        self._paused_until_s = 0.0
        self._local_empty_us: dict[UUID, float] = {}

    async def check(self, tenant_id: UUID) -> RateDecision:
        """Count one request. Never raises: without Valkey this process counts for itself."""
        if time.monotonic() >= self._paused_until_s:
            try:
                wait_us = await self._script(
                    keys=[f"rate:{{{tenant_id}}}:rpm"], args=[self._interval_us, self._burst_us]
                )
                return _decision(float(wait_us))
            except (RedisError, OSError, TimeoutError):
                self._paused_until_s = time.monotonic() + PAUSE_S
        FAILED_OPEN.inc()
        return _decision(self._check_locally(tenant_id))

    def _check_locally(self, tenant_id: UUID) -> float:
        now_us = time.monotonic() * 1_000_000
        if len(self._local_empty_us) >= MAX_LOCAL_KEYS:
            self._local_empty_us.clear()
        next_us = max(self._local_empty_us.get(tenant_id, now_us), now_us) + self._interval_us
        wait_us = next_us - self._burst_us - now_us
        if wait_us <= 0:
            self._local_empty_us[tenant_id] = next_us
        return max(0.0, wait_us)


def _decision(wait_us: float) -> RateDecision:
    return RateDecision(True) if wait_us <= 0 else RateDecision(False, wait_us / 1_000_000)
