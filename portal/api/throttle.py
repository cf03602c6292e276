"""How often a management key may call: in Valkey, on the server's clock. Without Valkey nobody is held up.

The generic cell rate algorithm, as for model calls: a key holds the moment at which its bucket would be
empty again.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Final
from uuid import UUID

from django.conf import settings
from redis import RedisError
from redis.commands.core import Script

from portal.kit import metrics, valkey

FAILED_OPEN = metrics.counter(
    "api_rate_limits_failed_open_total", "Management calls whose rate was not checked."
)
WINDOW_S: Final = 60
# After a failure Valkey is left alone for this long, so that an outage does not cost every call its timeout.
PAUSE_S: Final = 1.0

# Answers how long to wait, and after how long the bucket is empty again; in microseconds.
_SCRIPT: Final = """
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local interval_us, burst_us = tonumber(ARGV[1]), tonumber(ARGV[2])
local empty_us = tonumber(redis.call('GET', KEYS[1])) or now_us
if empty_us < now_us then empty_us = now_us end
local next_us = empty_us + interval_us
if next_us - burst_us > now_us then
  return {string.format('%.0f', next_us - burst_us - now_us), string.format('%.0f', empty_us - now_us)}
end
redis.call('SET', KEYS[1], string.format('%.0f', next_us), 'PX', math.ceil((next_us - now_us) / 1000) + 1)
return {'0', string.format('%.0f', next_us - now_us)}
"""


class _Pause:
    """Until when Valkey is left alone, on this process's clock."""

    until_s: ClassVar[float] = 0.0


@dataclass(frozen=True, slots=True)
class Rate:
    """What became of one call: whether it may go on, how many more may follow at once, and when all may."""

    limit: int
    remaining: int
    reset_s: int
    retry_after_s: int

    @property
    def is_allowed(self) -> bool:
        return self.retry_after_s == 0

    @property
    def headers(self) -> dict[str, str]:
        """As draft-ietf-httpapi-ratelimit-headers spells them."""
        headers = {
            "RateLimit-Policy": f'"key";q={self.limit};w={WINDOW_S}',
            "RateLimit": f'"key";r={self.remaining};t={self.reset_s}',
        }
        return headers if self.is_allowed else {**headers, "Retry-After": str(self.retry_after_s)}


def count_call(key_id: UUID) -> Rate | None:
    """Count one call of a key. Never raises: None without Valkey, and then nothing is limited."""
    limit: int = settings.TUNING["SLUICE_API_LIMIT_RPM"]
    if time.monotonic() >= _Pause.until_s:
        interval_us = WINDOW_S * 1_000_000 / limit
        try:
            wait_us, filled_us = _script()(
                keys=[f"rate:{{{key_id}}}:api"], args=[interval_us, WINDOW_S * 1_000_000]
            )
        except (RedisError, OSError):
            _Pause.until_s = time.monotonic() + PAUSE_S
        else:
            filled = float(filled_us)
            return Rate(
                limit=limit,
                remaining=max(0, int((WINDOW_S * 1_000_000 - filled) / interval_us)),
                reset_s=math.ceil(filled / 1_000_000),
                retry_after_s=math.ceil(float(wait_us) / 1_000_000),
            )
    FAILED_OPEN.inc()
    return None


@cache
def _script() -> Script:
    return valkey.connect_sync(settings.VALKEY_URL).register_script(_SCRIPT)
