"""Rate limits, in Valkey: requests and tokens a minute, and calls at a time. They fail open, and say so.

All limits of a call are checked and taken by one script on the server's clock (rate_script); a refused call
takes nothing anywhere. Without Valkey each process counts for itself (local_rate).
"""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from redis.asyncio import Redis

from portal.kit import metrics
from quotas.limits.local_rate import TAKEN, Demand, LocalRates, Verdict
from quotas.limits.rate_script import give_back_script, renew_script, take_script
from quotas.limits.script_line import Argument, ScriptLine
from quotas.models import ANY, LimitKind

FAILED_OPEN = metrics.counter("rate_limits_failed_open_total", "Calls whose rate was checked locally only.")
NOT_TOLD = metrics.counter(
    "rate_limits_not_told_total", "Ends and renewals of calls of which Valkey was not told; leases heal them."
)

TAKE, GIVE_BACK, RENEW = take_script(), give_back_script(), renew_script()
RENEW_CHUNK = 500

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


@dataclass(slots=True)
class RateTicket:
    """What a call has taken. is_local: of this process's own buckets, as Valkey was away."""

    tenant_id: UUID
    request_id: UUID
    tokens: int
    demands: Sequence[Demand] = field(repr=False)
    is_local: bool = False
    is_over: bool = False


class RateLimits:
    """One a process. Nothing here raises because Valkey is away."""

    def __init__(self, valkey: Redis, *, lease_s: int) -> None:
        self._line = ScriptLine(valkey, TAKE, GIVE_BACK, RENEW)
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
        demands = demands_of(tenant_id, limits, tokens=tokens)
        ticket = RateTicket(tenant_id, request_id, tokens, demands)
        asking = self._line.ask(
            TAKE,
            [demand.key for demand in demands],
            script_arguments(request_id, demands, lease_ms=self._lease_ms),
        )
        try:
            answer = await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.add_done_callback(lambda late: self._undo_late(ticket, late))
            raise
        if answer is None:
            FAILED_OPEN.inc()
            ticket.is_local = True
            verdict = self._local.take(request_id, demands, now_s=time.monotonic())
        else:
            verdict = _verdict(*answer)
        if verdict.refusing is not None:
            return RateRefusal(limits[verdict.refusing], verdict.wait_s)
        if any(demand.is_slots for demand in demands):
            self._local.hold(request_id, demands)
            self._holders[request_id] = ticket
        return ticket

    def end(self, ticket: RateTicket, *, used_tokens: int) -> None:
        """The call is over: free its slot, and give back what it did not use of its tokens."""
        self._close(ticket, requests=0, tokens=max(0, ticket.tokens - used_tokens))

    def undo(self, ticket: RateTicket) -> None:
        """The call did not take place: give everything back."""
        self._close(ticket, requests=1, tokens=ticket.tokens)

    async def renew(self) -> None:
        """Keep the slots of the calls that are running; do it several times a lease."""
        places: dict[UUID, list[tuple[str, UUID]]] = {}
        for ticket in self._holders.values():
            of_tenant = places.setdefault(ticket.tenant_id, [])
            of_tenant += [(demand.key, ticket.request_id) for demand in ticket.demands if demand.is_slots]
        rounds = []
        for of_tenant in places.values():
            for start in range(0, len(of_tenant), RENEW_CHUNK):
                chunk = of_tenant[start : start + RENEW_CHUNK]
                arguments: list[Argument] = ["", self._lease_ms]
                arguments += [str(request_id) for _, request_id in chunk]
                rounds.append(self._line.ask(RENEW, [key for key, _ in chunk], arguments))
        for answer in await asyncio.gather(*rounds):
            if answer is None:
                NOT_TOLD.inc()

    async def close(self) -> None:
        """Wait until Valkey is told of the calls that have ended."""
        await self._line.close()

    def _close(self, ticket: RateTicket, *, requests: int, tokens: int) -> None:
        if ticket.is_over:
            return
        ticket.is_over = True
        self._holders.pop(ticket.request_id, None)
        self._local.free(ticket.request_id, ticket.demands)
        returned = [
            demand._replace(amount=tokens if demand.kind == LimitKind.TOKENS_TPM else requests)
            for demand in ticket.demands
        ]
        if ticket.is_local:
            self._local.give_back(returned)
        # A slot that was taken while Valkey was away may have been renewed there since.
        told = [one for one in returned if one.is_slots or (one.amount and not ticket.is_local)]
        if told:
            arguments = script_arguments(ticket.request_id, told, lease_ms=self._lease_ms)
            self._line.ask(GIVE_BACK, [one.key for one in told], arguments).add_done_callback(_note_untold)

    def _undo_late(self, ticket: RateTicket, late: "asyncio.Future[Any]") -> None:
        """Of a caller that has left while it asked."""
        if late.result() is not None and _verdict(*late.result()).refusing is None:
            self.undo(ticket)


def _verdict(number: int, wait_us: int) -> Verdict:
    if not number:
        return TAKEN
    return Verdict(number - 1, wait_us / 1_000_000 if wait_us >= 0 else math.inf)


def _note_untold(answer: "asyncio.Future[Any]") -> None:
    if answer.result() is None:
        NOT_TOLD.inc()


def demands_of(tenant_id: UUID, limits: Sequence[RateLimit], *, tokens: int) -> list[Demand]:
    """What one call asks of each limit."""
    return [
        Demand(
            limit.key(tenant_id),
            limit.kind,
            limit.value,
            tokens if limit.kind == LimitKind.TOKENS_TPM else 1,
        )
        for limit in limits
    ]


def script_arguments(request_id: UUID, demands: Sequence[Demand], *, lease_ms: int) -> list[Argument]:
    """The arguments of the scripts that take and give back."""
    arguments: list[Argument] = [str(request_id), lease_ms]
    for demand in demands:
        arguments += ("slots" if demand.is_slots else "rate", demand.limit, demand.amount)
    return arguments
