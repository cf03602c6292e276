"""What gateways tell each other, and operators, about the fleet: through two hashes in Valkey.

In `fleet:load` each process writes, a few times a second, how many calls it has at each deployment; the
others add them to their own. In `fleet:gateways` it writes what it thinks of each backend and deployment.
Nothing rests on it: without Valkey each process goes by its own calls.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import msgspec
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from redis.exceptions import RedisError

from portal.inference.breaker import BreakerState
from portal.inference.routing import Routing
from portal.kit import metrics

logger = logging.getLogger(__name__)

LOAD_KEY: Final = "fleet:load"
STATE_KEY: Final = "fleet:gateways"
SHARE_S: Final = 0.2
# A process without calls needs not know so exactly.
IDLE_SHARE_S: Final = 1.0
# What another process said counts for so long, and is removed after so long.
STALE_S: Final = 2.0
REMOVE_S: Final = 30.0
STATE_S: Final = 2.0
STATE_STALE_S: Final = 15.0
EXPIRE_S: Final = 60

LOAD_UNKNOWN = metrics.counter(
    "fleet_load_unknown_total", "Times that the load of the other gateways could not be read."
)


class BackendWord(msgspec.Struct, frozen=True):
    """What one gateway says of a backend; `for_s`: since how long it is up or down."""

    is_down: bool
    reason: str
    for_s: float


class DeploymentWord(msgspec.Struct, frozen=True):
    """What one gateway says of a deployment. Factors: how many times slower than measured it is lately;
    without_usage: answers since the gateway's start whose tokens the backend did not report."""

    breaker: BreakerState
    reason: str
    for_s: float
    in_flight: int
    ttft_factor: float
    inter_token_factor: float
    without_usage: int


class GatewayWord(msgspec.Struct, frozen=True):
    """All that one gateway says. at_s: its wall clock."""

    name: str
    at_s: float
    backends: dict[UUID, BackendWord]
    deployments: dict[UUID, DeploymentWord]


class _Load(msgspec.Struct, array_like=True):
    """number: raised each time, so that others see it move without comparing clocks."""

    number: int
    calls: dict[UUID, int]


_encode = msgspec.msgpack.Encoder().encode
_decode_load = msgspec.msgpack.Decoder(_Load).decode
_decode_word = msgspec.msgpack.Decoder(GatewayWord).decode


def encode_word(word: GatewayWord) -> bytes:
    """As it stands in `fleet:gateways`."""
    return _encode(word)


@dataclass(slots=True)
class _Heard:
    """Another process: the last number it said, and when that was heard (monotonic)."""

    number: int
    at_s: float


class FleetBoard:
    """One process's side of it. `share` and `tell` never raise because Valkey is away."""

    def __init__(
        self, valkey: Redis, routing: Routing, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._field = secrets.token_hex(8).encode()
        self._valkey = valkey
        self._routing = routing
        self._clock = clock
        self._number = 0
        self._shared_at_s = self._read_at_s = float("-inf")
        self._told_at_s = float("-inf")
        self._was_busy = False
        self._heard: dict[bytes, _Heard] = {}
        self._elsewhere: dict[UUID, int] = {}

    async def share(self) -> None:
        """Say what this process has and hear what the others have; and every now and then tell the rest."""
        now_s = self._clock()
        calls = {
            lane.route.deployment_id: lane.in_flight
            for lane in self._routing.lanes.values()
            if lane.in_flight
        }
        is_busy = bool(calls) or self._was_busy
        if not is_busy and now_s - self._shared_at_s < IDLE_SHARE_S:
            return
        self._was_busy = bool(calls)
        self._shared_at_s = now_s
        self._number += 1
        tells = now_s - self._told_at_s >= STATE_S
        try:
            async with self._valkey.pipeline(transaction=False) as pipe:
                pipe.hset(LOAD_KEY, self._field.decode(), _encode(_Load(self._number, calls)))
                pipe.expire(LOAD_KEY, EXPIRE_S)
                pipe.hgetall(LOAD_KEY)
                if tells:
                    pipe.hset(STATE_KEY, self._field.decode(), encode_word(self.word()))
                    pipe.expire(STATE_KEY, EXPIRE_S)
                answers = await pipe.execute()
        except (RedisError, OSError, TimeoutError) as error:
            LOAD_UNKNOWN.inc()
            logger.info("inference.fleet.load_unknown", extra={"reason": type(error).__name__})
            if self._elsewhere and now_s - self._read_at_s > STALE_S:
                self._set_elsewhere({})
            return
        self._read_at_s = now_s
        if tells:
            self._told_at_s = now_s
        gone = self._hear(answers[2], now_s)
        if gone:
            await self._remove(gone)

    async def leave(self) -> None:
        """This process takes no more calls."""
        await self._remove([self._field])

    def word(self) -> GatewayWord:
        """What this process thinks of the fleet now."""
        now_s = self._clock()
        return GatewayWord(
            name=self.name,
            at_s=time.time(),
            backends={
                backend.backend_id: BackendWord(
                    backend.is_down, backend.reason, max(0.0, now_s - backend.since_s)
                )
                for backend in self._routing.backends.values()
            },
            deployments={
                lane.route.deployment_id: DeploymentWord(
                    lane.breaker.look(now_s),
                    lane.breaker.reason,
                    max(0.0, now_s - lane.breaker.since_s),
                    lane.in_flight,
                    round(lane.ttft_factor, 3),
                    round(lane.inter_token_factor, 3),
                    lane.without_usage,
                )
                for lane in self._routing.lanes.values()
            },
        )

    def _hear(self, said: Mapping[bytes, bytes], now_s: float) -> list[bytes]:
        """Add up what the others have; those that have been silent for long."""
        total: dict[UUID, int] = {}
        gone: list[bytes] = []
        for field, value in said.items():
            if field == self._field:
                continue
            try:
                load = _decode_load(value)
            except (msgspec.DecodeError, UnicodeDecodeError):
                gone.append(field)
                continue
            heard = self._heard.get(field)
            if heard is None or heard.number != load.number:
                self._heard[field] = _Heard(load.number, now_s)
            elif now_s - heard.at_s > REMOVE_S:
                gone.append(field)
            if now_s - self._heard[field].at_s <= STALE_S:
                for deployment_id, calls in load.calls.items():
                    total[deployment_id] = total.get(deployment_id, 0) + max(0, calls)
        for field in self._heard.keys() - said.keys():
            del self._heard[field]
        if total != self._elsewhere:
            self._set_elsewhere(total)
        return gone

    def _set_elsewhere(self, calls: dict[UUID, int]) -> None:
        self._elsewhere = calls
        self._routing.set_elsewhere(calls)

    async def _remove(self, fields: list[bytes]) -> None:
        names = [field.decode("latin-1") for field in fields]
        try:
            async with self._valkey.pipeline(transaction=False) as pipe:
                pipe.hdel(LOAD_KEY, *names)
                pipe.hdel(STATE_KEY, *names)
                await pipe.execute()
        except (RedisError, OSError, TimeoutError):
            return


def read_gateways(valkey: SyncRedis, *, now_s: float) -> list[GatewayWord]:
    """What every gateway said last, by name; now_s: the wall clock (time.time()).

    Raises redis.exceptions.RedisError.
    """
    said: Mapping[bytes, bytes] = valkey.hgetall(STATE_KEY)  # type: ignore[assignment]
    words: list[GatewayWord] = []
    for value in said.values():
        try:
            word = _decode_word(value)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        if now_s - word.at_s <= STATE_STALE_S:
            words.append(word)
    return sorted(words, key=lambda word: word.name)
