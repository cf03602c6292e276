"""What a run cost: prices while it runs, the settlement afterwards. Asked over the runtime's own pool."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from psycopg_pool import PoolTimeout, TooManyRequests

from portal.inference.credentials import Credential
from portal.inference.database import LOOK_UP_TIMEOUT_S, Database, in_time
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


class Receipts:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._slots = asyncio.Semaphore(_AT_A_TIME)

    async def tariff(self, credential: Credential, request_id: UUID, *, prompt_tokens: int) -> Tariff | None:
        """The prices of an admitted request; None while the database does not say."""
        rows = await self._ask(_TARIFF, (prompt_tokens, request_id, credential.tenant_id))
        if not rows:
            return None
        return Tariff(rows[0][0], {token_class: price for _, token_class, price in rows})

    async def settled(self, credential: Credential, request_id: UUID) -> Receipt | None:
        """The receipt as soon as the request is settled; as it is after SETTLED_WITHIN_S; None for a request
        that this key has not made."""
        pause_s, receipt = _FIRST_PAUSE_S, None
        try:
            async with asyncio.timeout(SETTLED_WITHIN_S):
                while True:
                    receipt = await self._find(credential, request_id)
                    if receipt is None or receipt.is_settled:
                        return receipt
                    await asyncio.sleep(pause_s)
                    pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        except TimeoutError:
            return receipt

    async def newest(self, credential: Credential, *, since_s: int) -> UUID | None:
        """The newest request that was made with this key in the last `since_s` seconds."""
        rows = await self._ask(_NEWEST, (credential.tenant_id, credential.api_key_id, since_s))
        return rows[0][0] if rows else None

    async def _find(self, credential: Credential, request_id: UUID) -> Receipt | None:
        rows = await self._ask(_RECEIPT, (request_id, credential.tenant_id, credential.api_key_id))
        if not rows:
            return None
        state, *rest = rows[0]
        return Receipt(request_id, state != HoldState.PENDING, *rest)

    async def _ask(self, query: str, parameters: tuple[Any, ...]) -> Sequence[tuple[Any, ...]]:
        """The rows, none when the database is away."""

        async def rows() -> list[tuple[Any, ...]]:
            async with self._database.connection() as connection:
                # The text is one of the constants below.
                cursor = await connection.execute(query.encode(), parameters, prepare=True)
                return await cursor.fetchall()

        try:
            async with self._slots:
                return await in_time(rows(), LOOK_UP_TIMEOUT_S)
        except (psycopg.Error, PoolTimeout, TooManyRequests) as error:
            logger.warning("playground.receipt.not_read", extra={"reason": type(error).__name__})
            return []


_TARIFF = """
SELECT h.currency, c.token_class, c.price_nanos_per_million
FROM quotas_inferencerequest r
JOIN quotas_hold h ON h.request_id = r.id
CROSS JOIN LATERAL catalog_chosen_lines(r.price_version_id, r.service_tier, r.price_window_id, %s) c
WHERE r.id = %s AND r.tenant_id = %s
"""

_RECEIPT = """
SELECT h.state, h.currency, coalesce(u.prompt_tokens, 0), coalesce(u.cached_tokens, 0),
       coalesce(u.completion_tokens, 0), coalesce(u.reasoning_tokens, 0), coalesce(u.charged_nanos, 0),
       coalesce(u.provenance, ''), a.outcome
FROM quotas_inferencerequest r
JOIN quotas_hold h ON h.request_id = r.id
LEFT JOIN LATERAL (
  SELECT * FROM quotas_usagerecord WHERE request_id = r.id ORDER BY revision DESC LIMIT 1) u ON true
LEFT JOIN LATERAL (
  SELECT outcome FROM quotas_attempt WHERE request_id = r.id ORDER BY ordinal DESC LIMIT 1) a ON true
WHERE r.id = %s AND r.tenant_id = %s AND r.api_key_id = %s
"""

# Ids carry their time, so the newest partition answers.
_NEWEST = """
SELECT id FROM quotas_inferencerequest
WHERE tenant_id = %s AND api_key_id = %s AND admitted_at > now() - make_interval(secs => %s::integer)
ORDER BY id DESC LIMIT 1
"""
