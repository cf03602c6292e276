"""What a run cost: prices while it runs, the settlement afterwards. Asked over the runtime's own pool."""

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

import psycopg
from psycopg_pool import PoolTimeout, TooManyRequests

from portal.inference.credentials import Credential
from portal.inference.database import LOOK_UP_TIMEOUT_S, Database, in_time
from portal.kit.clock import utc_now
from portal.kit.ids import partition_bound, uuid7_time
from quotas.metering.queries.activity import CLOCK_TOLERANCE
from quotas.metering.queries.requests import ATTEMPTS_AFTER, ATTEMPTS_BEFORE
from quotas.models import AttemptOutcome, HoldState
from quotas.settlement import CheckpointRow

logger = logging.getLogger(__name__)

# Admissions and settlements have the pool's other connections to themselves.
_AT_A_TIME = 2
SETTLED_WITHIN_S = 10.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.4


@dataclass(frozen=True, slots=True)
class Receipt:
    """A member's request. Tokens and charge are those of its newest usage record, 0 when it has none."""

    request_id: UUID
    is_settled: bool
    currency: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    charged_nanos: int
    provenance: str
    outcome: str | None

    @property
    def client_left(self) -> bool:
        return self.outcome == AttemptOutcome.CLIENT_GONE


@dataclass(frozen=True, slots=True)
class Tariff:
    """The lines that were frozen for a request, for the length of prompt that they were asked for."""

    currency: str
    prices: dict[str, int]

    def cost_nanos(self, counts: CheckpointRow) -> int:
        """What these counts cost, each line rounded half up as the settlement does."""
        units = {
            "input": counts.prompt_tokens - counts.cached_tokens,
            "cached_input": counts.cached_tokens,
            "output": counts.completion_tokens - counts.reasoning_tokens,
            "reasoning": counts.reasoning_tokens,
            "request": 1,
        }
        return sum((n * self.prices.get(name, 0) + 500_000) // 1_000_000 for name, n in units.items())


class _Unanswered(Exception):
    """The database is away, or too slow to be waited for."""


class Receipts:
    """One for all sockets of a process: what they ask takes few of the runtime's connections together."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._slots = asyncio.Semaphore(_AT_A_TIME)
        # One at a time for each member: whoever waits for many receipts leaves the others' slot alone.
        self._turns: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    async def tariff(self, credential: Credential, request_id: UUID, *, prompt_tokens: int) -> Tariff | None:
        """The prices of an admitted request; None while the database does not say."""
        try:
            rows = await self._ask(
                credential,
                _TARIFF,
                {"prompt": prompt_tokens, "request": request_id, "tenant": credential.tenant_id},
            )
        except _Unanswered:
            return None
        if not rows:
            return None
        return Tariff(rows[0][0], {token_class: price for _, token_class, price in rows})

    async def settled(self, credential: Credential, request_id: UUID) -> Receipt | None:
        """The receipt as soon as the request is settled; as it is after SETTLED_WITHIN_S; None for a request
        that this key has not made. While the database does not answer nothing is known, which is a receipt
        that is not settled: a run that was billed must not look like one that cost nothing."""
        pause_s = _FIRST_PAUSE_S
        receipt: Receipt | None = Receipt(request_id, False, "", 0, 0, 0, 0, 0, "", None)
        try:
            async with asyncio.timeout(SETTLED_WITHIN_S):
                while True:
                    with contextlib.suppress(_Unanswered):
                        receipt = await self._find(credential, request_id)
                        if receipt is None or receipt.is_settled:
                            return receipt
                    await asyncio.sleep(pause_s)
                    pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        except TimeoutError:
            return receipt

    async def newest(self, credential: Credential, *, since_s: int) -> UUID | None:
        """The newest request that was made with this key in the last `since_s` seconds."""
        try:
            rows = await self._ask(credential, _NEWEST, _newest_parameters(credential, since_s, utc_now()))
        except _Unanswered:
            return None
        return rows[0][0] if rows else None

    async def _find(self, credential: Credential, request_id: UUID) -> Receipt | None:
        try:
            at = uuid7_time(request_id)
            first, end = partition_bound(at - ATTEMPTS_BEFORE), partition_bound(at + ATTEMPTS_AFTER)
        except (ValueError, OverflowError):
            # A browser may ask for any id, also for one of no time that there is.
            return None
        rows = await self._ask(
            credential,
            _RECEIPT,
            {
                "request": request_id,
                "tenant": credential.tenant_id,
                "key": credential.api_key_id,
                "first_attempt": first,
                "end_attempt": end,
            },
        )
        if not rows:
            return None
        state, *rest = rows[0]
        return Receipt(request_id, state != HoldState.PENDING, *rest)

    async def _ask(
        self, credential: Credential, query: str, parameters: Mapping[str, Any]
    ) -> Sequence[tuple[Any, ...]]:
        """The rows. Raises _Unanswered."""

        async def rows() -> list[tuple[Any, ...]]:
            async with self._database.connection() as connection:
                # The text is one of the constants below.
                cursor = await connection.execute(query.encode(), parameters, prepare=True)
                return await cursor.fetchall()

        try:
            turn = self._turns.setdefault(credential.api_key_id, asyncio.Lock())
            async with turn, self._slots:
                return await in_time(rows(), LOOK_UP_TIMEOUT_S)
        except (psycopg.Error, PoolTimeout, TooManyRequests) as error:
            logger.warning("playground.receipt.not_read", extra={"reason": type(error).__name__})
            raise _Unanswered from error


def _newest_parameters(credential: Credential, since_s: int, now: datetime) -> dict[str, Any]:
    return {
        "tenant": credential.tenant_id,
        "key": credential.api_key_id,
        "since_s": since_s,
        "first": partition_bound(now - timedelta(seconds=since_s) - CLOCK_TOLERANCE),
        "end": partition_bound(now + CLOCK_TOLERANCE),
    }


# Each table is told which of its days are meant: without that, the plan has all of them in it.

_TARIFF = """
SELECT h.currency, c.token_class, c.price_nanos_per_million
FROM quotas_inferencerequest r
JOIN quotas_hold h ON h.request_id = %(request)s
CROSS JOIN LATERAL catalog_chosen_lines(r.price_version_id, r.service_tier, r.price_window_id, %(prompt)s) c
WHERE r.id = %(request)s AND r.tenant_id = %(tenant)s
"""

_RECEIPT = """
SELECT h.state, h.currency, coalesce(u.prompt_tokens, 0), coalesce(u.cached_tokens, 0),
       coalesce(u.completion_tokens, 0), coalesce(u.reasoning_tokens, 0), coalesce(u.charged_nanos, 0),
       coalesce(u.provenance, ''), a.outcome
FROM quotas_inferencerequest r
JOIN quotas_hold h ON h.request_id = %(request)s
LEFT JOIN LATERAL (
  SELECT * FROM quotas_usagerecord WHERE request_id = %(request)s ORDER BY revision DESC LIMIT 1) u ON true
LEFT JOIN LATERAL (
  SELECT outcome FROM quotas_attempt
  WHERE request_id = %(request)s AND id >= %(first_attempt)s AND id < %(end_attempt)s
  ORDER BY ordinal DESC LIMIT 1) a ON true
WHERE r.id = %(request)s AND r.tenant_id = %(tenant)s AND r.api_key_id = %(key)s
"""

_NEWEST = """
SELECT id FROM quotas_inferencerequest
WHERE tenant_id = %(tenant)s AND api_key_id = %(key)s AND id >= %(first)s AND id < %(end)s
  AND admitted_at > now() - make_interval(secs => %(since_s)s::integer)
ORDER BY id DESC LIMIT 1
"""
