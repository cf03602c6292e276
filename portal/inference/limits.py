"""The rate limits of a call: which of them apply, as cached for a few seconds, and their door."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
from redis.asyncio import Redis

from portal.inference import errors, measures
from portal.inference.credentials import Credential
from portal.inference.database import Database, in_time
from portal.inference.dialects.base import ModelRequest
from portal.inference.snapshot import ModelEntry
from quotas.limits.rate import CallLimits, Level, RateLimit, RateLimits, RateRefusal, RateTicket
from quotas.models import ANY, RATE_KINDS, LimitKind

logger = logging.getLogger(__name__)

MAX_CACHED = 20_000
# Limits and tiers begin and end at dates, which no revision announces.
MAX_AGE_S = 10.0
# From this age on limits that are in use are asked for again, before anybody has to wait for them.
REFRESH_AGE_S = 7.0
# Rates fail open: nobody waits long for them, and an outage is not asked again by every call.
LOOK_UP_TIMEOUT_S = 0.5
PAUSE_S = 1.0
LOOK_UP_CHUNK = 200

_KINDS = [kind.value for kind in RATE_KINDS]

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class TenantRates:
    """The limits of one organization by model and key, as the database had them at `asked_at_s`."""

    by_scope: Mapping[tuple[UUID, UUID], tuple[RateLimit, ...]]
    asked_at_s: float
    # Of calls that were made, by model and key; as short-lived as the rest.
    prepared: dict[tuple[UUID, UUID], CallLimits] = field(default_factory=dict, compare=False, repr=False)

    def of_call(self, model_id: UUID, api_key_id: UUID) -> list[RateLimit]:
        """Those of every scope that the call falls in."""
        if not self.by_scope:
            return []
        scopes = ((ANY, ANY), (model_id, ANY), (ANY, api_key_id), (model_id, api_key_id))
        return [limit for scope in scopes for limit in self.by_scope.get(scope, ())]


class RateCache:
    """The limits of the organizations that call. Callers that need some at the same time share one question.

    default_rpm: requests a minute of an organization for which neither tier nor operator set any; 0 is no
    limit.
    """

    def __init__(self, database: Database, *, default_rpm: int) -> None:
        self._database = database
        self._default_rpm = default_rpm
        self._entries: OrderedDict[UUID, TenantRates] = OrderedDict()
        self._revision = -1
        self._changed_at_s = 0.0
        self._away_until_s = 0.0
        self._wanted: dict[UUID, asyncio.Future[None]] = {}
        self._asking: frozenset[UUID] = frozenset()
        self._loader: asyncio.Task[None] | None = None

    def note_revision(self, revision: int, asked_at_s: float) -> None:
        """What was loaded before a change of any limit is loaded again."""
        if revision != self._revision:
            self._revision = revision
            self._changed_at_s = asked_at_s

    def get(self, tenant_id: UUID) -> TenantRates | None:
        """None when the limits have to be loaded first."""
        entry = self._entries.get(tenant_id)
        if entry is None:
            return None
        now_s = time.monotonic()
        age_s = now_s - entry.asked_at_s
        if age_s > MAX_AGE_S or entry.asked_at_s < self._changed_at_s:
            # While the database cannot be asked, what is known goes on.
            return entry if now_s < self._away_until_s else None
        if age_s > REFRESH_AGE_S and now_s >= self._away_until_s and tenant_id not in self._asking:
            self._want(tenant_id)
        return entry

    async def load(self, tenant_id: UUID) -> TenantRates:
        """Never raises: without the database it is what was known last, or nothing but the default."""
        if time.monotonic() >= self._away_until_s:
            await asyncio.wait({self._want(tenant_id)}, timeout=LOOK_UP_TIMEOUT_S)
        return self._entries.get(tenant_id) or self._entry((), 0.0)

    async def close(self) -> None:
        if self._loader is not None:
            self._loader.cancel()
            await asyncio.gather(self._loader, return_exceptions=True)

    def _want(self, tenant_id: UUID) -> asyncio.Future[None]:
        wanted = self._wanted.get(tenant_id)
        if wanted is None:
            wanted = self._wanted[tenant_id] = asyncio.get_running_loop().create_future()
            if self._loader is None:
                self._loader = asyncio.create_task(self._load_wanted())
        return wanted

    async def _load_wanted(self) -> None:
        try:
            while self._wanted:
                ids = list(self._wanted)[:LOOK_UP_CHUNK]
                waiting = [self._wanted.pop(id_) for id_ in ids]
                self._asking = frozenset(ids)
                try:
                    await self._load_these(ids)
                finally:
                    for future in waiting:
                        if not future.done():
                            future.set_result(None)
        finally:
            self._loader, self._asking = None, frozenset()

    async def _load_these(self, tenant_ids: list[UUID]) -> None:
        asked_at_s = time.monotonic()
        try:
            rows = await in_time(_rates_of(self._database, tenant_ids, self._default_rpm), LOOK_UP_TIMEOUT_S)
        except psycopg.Error as error:
            self._away_until_s = time.monotonic() + PAUSE_S
            measures.LIMITS_UNKNOWN.inc(len(tenant_ids))
            logger.warning("inference.limits.not_loaded", extra={"reason": type(error).__name__})
            return
        found: dict[UUID, list[RateLimit]] = {}
        for tenant_id, model_id, api_key_id, kind, value in rows:
            found.setdefault(tenant_id, []).append(RateLimit(LimitKind(kind), value, model_id, api_key_id))
        for tenant_id in tenant_ids:
            self._entries[tenant_id] = self._entry(found.get(tenant_id, ()), asked_at_s)
            self._entries.move_to_end(tenant_id)
        while len(self._entries) > MAX_CACHED:
            self._entries.popitem(last=False)

    def _entry(self, limits: Iterable[RateLimit], asked_at_s: float) -> TenantRates:
        by_scope: dict[tuple[UUID, UUID], tuple[RateLimit, ...]] = {}
        for limit in limits:
            scope = (limit.model_id, limit.api_key_id)
            by_scope[scope] = (*by_scope.get(scope, ()), limit)
        everywhere = by_scope.get((ANY, ANY), ())
        if self._default_rpm and all(limit.kind != LimitKind.REQUESTS_RPM for limit in everywhere):
            by_scope[ANY, ANY] = (*everywhere, RateLimit(LimitKind.REQUESTS_RPM, self._default_rpm))
        return TenantRates(by_scope, asked_at_s)


async def _rates_of(
    database: Database, tenant_ids: Sequence[UUID], default_rpm: int
) -> list[tuple[Any, ...]]:
    """An organization's own requests a minute only lower what the installation allows."""
    async with database.connection() as connection:
        cursor = await connection.execute(
            """
            SELECT t.id, l.model_id, l.api_key_id, l.kind,
              CASE WHEN l.kind = 'REQUESTS_RPM' AND l.is_own_only AND (l.model_id, l.api_key_id) = (%s, %s)
                   THEN least(l.value, nullif(%s::bigint, 0)) ELSE l.value END
            FROM unnest(%s::uuid[]) AS t (id)
            CROSS JOIN LATERAL quotas_effective_limits(t.id, now()) AS l WHERE l.kind = ANY (%s::text[])
            """,
            (ANY, ANY, default_rpm, list(tenant_ids), _KINDS),
            prepare=True,
        )
        return await cursor.fetchall()


class RateGate:
    """Every call enters here before it is admitted, and leaves when it is over."""

    def __init__(self, database: Database, valkey: Redis, *, lease_s: int, default_rpm: int) -> None:
        self.cache = RateCache(database, default_rpm=default_rpm)
        self._limits = RateLimits(valkey, lease_s=lease_s)

    async def enter(
        self,
        *,
        request_id: UUID,
        credential: Credential,
        entry: ModelEntry,
        request: ModelRequest,
        tell: Callable[[Headers], None] = lambda headers: None,
    ) -> RateTicket | None:
        """What the call has taken, to be given to `leave` or `withdraw`; None where no limit applies.

        tell: gets the headers that say what is left of the limits, also when they refuse.
        Raises CallError 429, naming the limit.
        """
        rates = self.cache.get(credential.tenant_id) or await self.cache.load(credential.tenant_id)
        if not rates.by_scope:
            return None
        scope = (entry.id, credential.api_key_id)
        limits = rates.prepared.get(scope)
        if limits is None:
            limits = self._limits.prepare(credential.tenant_id, rates.of_call(*scope))
            rates.prepared[scope] = limits
        if not limits:
            return None
        taken = await self._limits.take(
            tenant_id=credential.tenant_id,
            request_id=request_id,
            tokens=request.prompt_bound_tokens + request.choices * request.output_cap_tokens,
            limits=limits,
        )
        if taken.levels:
            tell(rate_headers(taken.levels))
        if isinstance(taken, RateRefusal):
            measures.admissions("RATE_LIMITED").inc()
            raise errors.too_many_requests(
                taken,
                slug=entry.slug,
                prompt_tokens=request.prompt_bound_tokens,
                output_cap_tokens=request.output_cap_tokens,
                choices=request.choices,
            )
        return taken

    def leave(self, ticket: RateTicket, *, used_tokens: int) -> None:
        """The call was served, or tried to be."""
        self._limits.end(ticket, used_tokens=used_tokens)

    def withdraw(self, ticket: RateTicket) -> None:
        """The call was not admitted, so it counts nowhere."""
        self._limits.undo(ticket)

    async def renew(self) -> None:
        await self._limits.renew()

    async def close(self) -> None:
        await self.cache.close()
        await self._limits.close()


_NAMES = {LimitKind.REQUESTS_RPM: b"requests", LimitKind.TOKENS_TPM: b"tokens"}
_LINES = {
    kind: tuple(b"x-ratelimit-%b-%b" % (what, name) for what in (b"limit", b"remaining", b"reset"))
    for kind, name in _NAMES.items()
}


def rate_headers(levels: Sequence[Level]) -> Headers:
    """What is left of the limits, in the headers that OpenAI's clients read: of several limits of a kind the
    one with the least left. A reset is the time until the whole limit is free again."""
    tightest: dict[LimitKind, Level] = {}
    for level in levels:
        known = tightest.get(level.kind)
        if known is None or level.remaining < known.remaining:
            tightest[level.kind] = level
    headers: list[tuple[bytes, bytes]] = []
    for kind, level in tightest.items():
        limit, remaining, reset = _LINES[kind]
        headers += (
            (limit, b"%d" % level.limit),
            (remaining, b"%d" % level.remaining),
            (reset, b"%.3fs" % min(level.reset_s, 60.0)),
        )
    return tuple(headers)
