"""What Valkey runs: one script a question, so that all limits of a call are checked and taken as one.

A rate is a bucket that leaks: its key holds `level at_us`, how much is in it and when that was so. It leaks
one limit's worth a minute, evenly, and holds one limit's worth. This is the generic cell rate algorithm with
the level kept instead of the moment at which the bucket will be empty: there is no window whose border lets
twice the rate through, amounts are exact, a part of one can be given back, and a limit that changes needs no
conversion: what is in the bucket stays in it, up to what it holds now.

Slots, for calls at a time, are a sorted set of request ids by the end of their lease in milliseconds, so that
those of a process that died come back by themselves.

KEYS are the limits' keys. ARGV are a request id, a lease in milliseconds, and for each key three more: `rate`
or `slots`, the limit, and the amount.
"""

from typing import Final

# A bucket is empty after a minute at the latest.
KEEP_MS: Final = 61_000

SERVER_CLOCK: Final = """
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
"""

_BUCKETS = f"""
local WINDOW_US = 60000000
local request, lease_ms = ARGV[1], tonumber(ARGV[2])
local now_ms = math.floor(now_us / 1000)

local function read(key)
  local level, at_us = string.match(redis.call('GET', key) or '', '^(%S+) (%S+)$')
  return tonumber(level), tonumber(at_us)
end

local function level_of(key, limit)
  local level, at_us = read(key)
  if not level then return 0 end
  return math.max(0, math.min(level, limit) - math.max(0, now_us - at_us) * limit / WINDOW_US)
end

local function keep(key, level, at_us)
  redis.call('SET', key, string.format('%.17g %.0f', level, at_us), 'PX', {KEEP_MS})
end

local function hold(key, id)
  redis.call('ZADD', key, now_ms + lease_ms, id)
  if redis.call('PTTL', key) < lease_ms then redis.call('PEXPIRE', key, lease_ms) end
end
"""

# Answers which limit refuses (0: none, and all is taken), in how many microseconds it would not (-1: never,
# 0: when a slot gets free), and, in one text, what is in each bucket now (-1 for slots). Of several that
# refuse it names the one that does so for longest.
_TAKE = """
local levels, told = {}, {}
local refusing, longest_us = 0, -1
for i, key in ipairs(KEYS) do
  local kind, limit, amount = ARGV[3 * i], tonumber(ARGV[3 * i + 1]), tonumber(ARGV[3 * i + 2])
  local wait_us = -1
  if kind == 'rate' then levels[i] = level_of(key, limit) end
  if amount > limit then
    wait_us = math.huge
  elseif kind == 'slots' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now_ms)
    if not redis.call('ZSCORE', key, request) and redis.call('ZCARD', key) >= limit then wait_us = 0 end
  else
    local over = levels[i] + amount - limit
    -- Less than a tenth of a microsecond's worth is a matter of rounding.
    if over > limit * 1e-9 then wait_us = math.ceil(over * WINDOW_US / limit) end
  end
  if wait_us > longest_us then refusing, longest_us = i, wait_us end
end
if refusing > 0 then
  if longest_us == math.huge then longest_us = -1 end
  for i = 1, #KEYS do told[i] = string.format('%.0f', math.ceil(levels[i] or -1)) end
  return {refusing, longest_us, table.concat(told, ' ')}
end
for i, key in ipairs(KEYS) do
  if ARGV[3 * i] == 'slots' then
    hold(key, request)
    told[i] = '-1'
  else
    local level = levels[i] + tonumber(ARGV[3 * i + 2])
    keep(key, level, now_us)
    told[i] = string.format('%.0f', math.ceil(level))
  end
end
return {0, 0, table.concat(told, ' ')}
"""

# A bucket is never emptier than empty. It leaks afterwards as before: the limit may have changed meanwhile.
_GIVE_BACK = """
for i, key in ipairs(KEYS) do
  if ARGV[3 * i] == 'slots' then
    redis.call('ZREM', key, request)
  elseif ARGV[3 * i + 2] ~= '0' then
    local level, at_us = read(key)
    if level then keep(key, math.max(0, level - tonumber(ARGV[3 * i + 2])), at_us) end
  end
end
return 0
"""

# Here ARGV are nothing, a lease, and one request id for each key.
_RENEW = """
for i, key in ipairs(KEYS) do hold(key, ARGV[i + 2]) end
return 0
"""


def take_script(clock: str = SERVER_CLOCK) -> str:
    return clock + _BUCKETS + _TAKE


def give_back_script(clock: str = SERVER_CLOCK) -> str:
    return clock + _BUCKETS + _GIVE_BACK


def renew_script(clock: str = SERVER_CLOCK) -> str:
    return clock + _BUCKETS + _RENEW
