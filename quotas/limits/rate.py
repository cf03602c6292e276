"""Rate limits, in Valkey: requests and tokens a minute, and calls at a time. They fail open, and say so.

All limits of a call are checked and taken by one script on the server's clock (rate_script); a refused call
takes nothing anywhere. Without Valkey each process counts for itself (local_rate).
"""

import asyncio
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple
from uuid import UUID

from redis.asyncio import Redis

from portal.kit import metrics
from portal.kit.valkey_wire import encode_arguments
from quotas.limits.local_rate import TAKEN, Demand, LocalRates, Verdict
from quotas.limits.rate_script import give_back_script, renew_script, take_script
from quotas.limits.script_line import Argument, ScriptLine
from quotas.models import ANY, LimitKind

FAILED_OPEN = metrics.counter("rate_limits_failed_open_total", "Calls whose rate was checked locally only.")
NOT_TOLD = metrics.counter(
    "rate_limits_not_told_total", "Ends and renewals of calls of which Valkey was not told; leases heal them."
)

TAKE, GIVE_BACK, RENEW = take_script(), give_back_script(), renew_script()
RENEW_CHUNK = 200

Scope = Literal["organization", "model", "key", "model_and_key"]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """One ceiling: REQUESTS_RPM, TOKENS_TPM or CONCURRENCY. ANY stands for all models and all keys."""

    kind: LimitKind
    value: int
    model_id: UUID = ANY
    api_key_id: UUID = ANY

    @property
    def scope(self) -> Scope:
        if self.model_id == ANY:
            return "organization" if self.api_key_id == ANY else "key"
        return "model" if self.api_key_id == ANY else "model_and_key"

    def key(self, tenant_id: UUID) -> str:
        return f"rate:{{{tenant_id}}}:{self.kind.value}:{self.model_id.hex}:{self.api_key_id.hex}"


@dataclass(frozen=True, slots=True)
class RateRefusal:
    """Which limit refuses. wait_s: until it would let this call through; infinity when it never would, and
    0 for calls at a time, which depends on when others end."""

    limit: RateLimit
    wait_s: float
    levels: tuple["Level", ...] = ()


class Level(NamedTuple):
    """What a bucket holds of its limit, the call's own share included when it was let in."""

    kind: LimitKind
    limit: int
    used: int

    @property
    def remaining(self) -> int:
        return max(0, self.limit - self.used)

    @property
    def reset_s(self) -> float:
        """Until it is empty."""
        return self.used * 60 / self.limit if self.limit else math.inf


class CallLimits(list[RateLimit]):
    """The limits of one kind of call, with what is said of them at every call written down once."""

    def __init__(self, tenant_id: UUID, limits: Iterable[RateLimit], *, lease_ms: int) -> None:
        super().__init__(limits)
        keys = [limit.key(tenant_id) for limit in self]
        self.tenant_id = tenant_id
        self.lease_ms = lease_ms
        self.slots = demands_of(
            tenant_id, [limit for limit in self if limit.kind == LimitKind.CONCURRENCY], tokens=0
        )
        self._keys = encode_arguments([len(keys), *keys])
        self._beginnings: dict[str, bytes] = {}
        self._lease = encode_arguments([lease_ms])
        self._places = [
            (
                encode_arguments(["slots" if limit.kind == LimitKind.CONCURRENCY else "rate", limit.value]),
                limit.kind == LimitKind.TOKENS_TPM,
            )
            for limit in self
        ]

    def command(self, sha: str, request_id: UUID, *, requests: int, tokens: int) -> bytes:
        """A call of a script that takes or gives back: the limits' keys, then the id, the lease, and of each
        limit its kind, its value and how much of it."""
        of_tokens, of_requests = encode_arguments((tokens,)), encode_arguments((requests,))
        beginning = self._beginnings.get(sha)
        if beginning is None:
            beginning = b"*%d\r\n%b%b" % (5 + 4 * len(self), encode_arguments(("EVALSHA", sha)), self._keys)
            self._beginnings[sha] = beginning
        pieces = [beginning, encode_arguments((str(request_id),)), self._lease]
        for place, is_tokens in self._places:
            pieces += (place, of_tokens if is_tokens else of_requests)
        return b"".join(pieces)


@dataclass(slots=True)
class RateTicket:
    """What a call has taken. is_local: of this process's own buckets, as Valkey was away; then nobody knows
    the levels."""

    request_id: UUID
    tokens: int
    limits: CallLimits = field(repr=False)
    is_local: bool = False
    is_over: bool = False
    levels: tuple[Level, ...] = ()

    @property
    def tenant_id(self) -> UUID:
        return self.limits.tenant_id


class RateLimits:
    """One a process. Nothing here raises because Valkey is away."""

    def __init__(self, valkey: Redis, *, lease_s: int) -> None:
        self._line = ScriptLine(valkey, TAKE, GIVE_BACK, RENEW)
        self._take_sha, self._give_back_sha = self._line.sha(TAKE), self._line.sha(GIVE_BACK)
        self._lease_ms = lease_s * 1000
        self._local = LocalRates()
        # Calls that hold a slot, and have to keep it.
        self._holders: dict[UUID, RateTicket] = {}

    async def take(
        self, *, tenant_id: UUID, request_id: UUID, tokens: int, limits: Sequence[RateLimit]
    ) -> RateTicket | RateRefusal:
        """Take one request, so many tokens and one slot, of all the limits or of none.

        End what is taken with `end` or `undo`. When the caller is cancelled here, nothing stays taken.
        """
        if not isinstance(limits, CallLimits):
            limits = self.prepare(tenant_id, limits)
        ticket = RateTicket(request_id, tokens, limits)
        asking = self._line.ask_encoded(
            limits.command(self._take_sha, request_id, requests=1, tokens=tokens),
            on_orphan=lambda late: self._undo_late(ticket, late),
        )
        try:
            answer = await asking
        except asyncio.CancelledError:
            if not asking.cancelled():
                # The answer was there, but the cancellation reached the caller before it could take it.
                self._undo_late(ticket, asking.result())
            raise
        if answer is None:
            FAILED_OPEN.inc()
            ticket.is_local = True
            demands = demands_of(tenant_id, limits, tokens=tokens)
            verdict = self._local.take(request_id, demands, now_s=time.monotonic())
        else:
            verdict = _verdict(answer)
            ticket.levels = _levels(limits, answer[2])
        if verdict.refusing is not None:
            return RateRefusal(limits[verdict.refusing], verdict.wait_s, ticket.levels)
        if limits.slots:
            self._local.hold(request_id, limits.slots)
            self._holders[request_id] = ticket
        return ticket

    def prepare(self, tenant_id: UUID, limits: Iterable[RateLimit]) -> CallLimits:
        """For limits that are taken again and again."""
        return CallLimits(tenant_id, limits, lease_ms=self._lease_ms)

    def end(self, ticket: RateTicket, *, used_tokens: int) -> None:
        """The call is over: free its slot, and give back what it did not use of its tokens."""
        self._close(ticket, requests=0, tokens=max(0, ticket.tokens - used_tokens))

    def undo(self, ticket: RateTicket) -> None:
        """The call did not take place: give everything back."""
        self._close(ticket, requests=1, tokens=ticket.tokens)

    async def renew(self) -> None:
        """Keep the slots of the calls that are running; do it several times a lease."""
        by_tenant: dict[UUID, list[RateTicket]] = {}
        for ticket in self._holders.values():
            by_tenant.setdefault(ticket.tenant_id, []).append(ticket)
        rounds = []
        for tickets in by_tenant.values():
            for start in range(0, len(tickets), RENEW_CHUNK):
                rounds.append(self._renew(tickets[start : start + RENEW_CHUNK]))
                # Writing down thousands in one go would hold up every stream.
                await asyncio.sleep(0)
        for answer in await asyncio.gather(*rounds):
            if answer is None:
                NOT_TOLD.inc()

    def _renew(self, tickets: Sequence[RateTicket]) -> asyncio.Future[Any]:
        # One that has ended in the meantime has given its slot back, and must not get it again.
        holders = [ticket for ticket in tickets if not ticket.is_over]
        arguments: list[Argument] = ["", self._lease_ms]
        keys: list[str] = []
        for ticket in holders:
            request_id = str(ticket.request_id)
            for slot in ticket.limits.slots:
                keys.append(slot.key)
                arguments.append(request_id)
        return self._line.ask(RENEW, keys, arguments)

    async def close(self) -> None:
        """Wait until Valkey is told of the calls that have ended."""
        await self._line.close()

    def _close(self, ticket: RateTicket, *, requests: int, tokens: int) -> None:
        if ticket.is_over:
            return
        ticket.is_over = True
        self._holders.pop(ticket.request_id, None)
        limits = ticket.limits
        if limits.slots:
            self._local.free(ticket.request_id, limits.slots)
        if ticket.is_local:
            returned = demands_of(limits.tenant_id, limits, tokens=tokens, requests=requests)
            self._local.give_back(returned)
            # A slot that was taken while Valkey was away may have been renewed there since.
            requests = tokens = 0
        if limits.slots or requests or tokens:
            command = limits.command(self._give_back_sha, ticket.request_id, requests=requests, tokens=tokens)
            self._line.tell(command, NOT_TOLD.inc)

    def _undo_late(self, ticket: RateTicket, answer: Any) -> None:
        """Of a caller that has left while it asked."""
        if answer is not None and _verdict(answer).refusing is None:
            self.undo(ticket)


def _verdict(answer: Sequence[Any]) -> Verdict:
    number, wait_us, _ = answer
    if not number:
        return TAKEN
    return Verdict(number - 1, wait_us / 1_000_000 if wait_us >= 0 else math.inf)


def _levels(limits: Sequence[RateLimit], told: bytes) -> tuple[Level, ...]:
    return tuple(
        [
            Level(limit.kind, limit.value, int(used))
            for limit, used in zip(limits, told.split(), strict=True)
            if used != b"-1"
        ]
    )


def demands_of(
    tenant_id: UUID, limits: Sequence[RateLimit], *, tokens: int, requests: int = 1
) -> list[Demand]:
    """What one call asks of each limit."""
    return [
        Demand(
            limit.key(tenant_id),
            limit.kind,
            limit.value,
            tokens if limit.kind == LimitKind.TOKENS_TPM else requests,
        )
        for limit in limits
    ]
