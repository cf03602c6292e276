"""The second door of an inference call: what it used, posted exactly once.

The rules are in sql/settlement_by_policy.sql; this module carries batches to it and answers back.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from operator import itemgetter
from typing import Any
from uuid import UUID

import msgspec
from django.db import DatabaseError, connections
from django.db.backends.utils import CursorWrapper
from psycopg import AsyncConnection
from psycopg.errors import LockNotAvailable

from portal.kit.batching import BUSY, Busy
from portal.kit.refusals import is_refusal
from quotas.metering.facts import UsageFacts
from quotas.models import Basis, UsageSource

logger = logging.getLogger(__name__)

# How long a sweep queues for the wallet of a busy tenant.
SWEEP_BLOCK_MS = 500


class Verdict(StrEnum):
    SETTLED = "SETTLED"
    ALREADY_DONE = "ALREADY_DONE"
    CONFLICT = "CONFLICT"
    NOT_EXPIRED = "NOT_EXPIRED"
    UNKNOWN = "UNKNOWN"


class AttemptEnd(msgspec.Struct, frozen=True, kw_only=True):
    """How one attempt ended. Times in milliseconds."""

    id: UUID
    outcome: str
    http_status: int | None = None
    ttft_ms: int | None = None
    duration_ms: int | None = None
    wire_id: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class SettlementRow(msgspec.Struct, frozen=True, kw_only=True):
    request_id: UUID
    tenant_id: UUID
    source: str
    prompt_tokens: int
    cached_tokens: int
    image_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    basis: str
    provenance: str
    payload_sha256: str
    attempts: list[AttemptEnd]


class CheckpointRow(msgspec.Struct, frozen=True, kw_only=True):
    """What was delivered of a running call, so far."""

    request_id: UUID
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int


@dataclass(frozen=True, slots=True)
class SettlementAnswer:
    """What became of one row. overrun_nanos: billed beyond the hold, which is ours; what the cancel policy
    waives is not part of it."""

    request_id: UUID
    verdict: Verdict
    revision: int | None
    charged_nanos: int | None
    overrun_nanos: int | None


def settlement_row(
    *, request_id: UUID, tenant_id: UUID, facts: UsageFacts, attempts: Sequence[AttemptEnd]
) -> SettlementRow:
    """The gateway's settlement of one call. The payload hash covers the facts, so that a repeated
    settlement is recognised and a different one is refused."""
    payload = (
        f"{facts.prompt_tokens},{facts.cached_tokens},{facts.image_tokens},"
        f"{facts.completion_tokens},{facts.reasoning_tokens},{facts.basis.value}"
    )
    return SettlementRow(
        request_id=request_id,
        tenant_id=tenant_id,
        source=UsageSource.GATEWAY.value,
        prompt_tokens=facts.prompt_tokens,
        cached_tokens=facts.cached_tokens,
        image_tokens=facts.image_tokens,
        completion_tokens=facts.completion_tokens,
        reasoning_tokens=facts.reasoning_tokens,
        basis=facts.basis.value,
        provenance=facts.provenance.value,
        payload_sha256=hashlib.sha256(payload.encode()).hexdigest(),
        attempts=list(attempts),
    )


_SETTLE = (
    "SELECT request_id, verdict, revision, charged_nanos, overrun_nanos "
    "FROM quotas_settle(%s::text::jsonb, %s)"
)


async def settle_batch(
    connection: AsyncConnection[Any], rows: Sequence[SettlementRow], *, block_ms: int
) -> list[SettlementAnswer | Busy]:
    """Settle each row, in one statement and one commit; answers in the order of the rows.

    block_ms and errors: as quotas.admission.admit_batch.
    """
    cursor = await connection.execute(_SETTLE, (msgspec.json.encode(rows).decode(), block_ms), prepare=True)
    answers: dict[UUID, SettlementAnswer | Busy] = {}
    for request_id, verdict, *rest in await cursor.fetchall():
        answers[request_id] = (
            BUSY if verdict == "BUSY" else SettlementAnswer(request_id, Verdict(verdict), *rest)
        )
    return [answers[row.request_id] for row in rows]


@dataclass(frozen=True, slots=True)
class CallCost:
    """What settlement charges for a call, in nano-units of the wallet's currency."""

    charged_nanos: int
    currency: str


async def cost_of_call(
    connection: AsyncConnection[Any], *, request_id: UUID, tenant_id: UUID, facts: UsageFacts
) -> CallCost | None:
    """What these facts of an admitted call will be charged, once all of its choices have completed: by the
    function and the price that settlement takes. None for a call that was not admitted. Errors: psycopg's."""
    # Not prepared: a plan that is kept would hold locks on every day that there is.
    cursor = await connection.execute(
        "SELECT least(catalog_usage_cost(q.price_version_id, q.service_tier, q.price_window_id, "
        "%(prompt)s::bigint, %(cached)s::bigint, %(image)s::bigint, %(completion)s::bigint, "
        "%(reasoning)s::bigint), h.amount_nanos), h.currency "
        "FROM quotas_inferencerequest q JOIN quotas_hold h ON h.request_id = %(request)s "
        "WHERE q.id = %(request)s AND q.tenant_id = %(tenant)s",
        {
            "request": request_id,
            "tenant": tenant_id,
            "prompt": facts.prompt_tokens,
            "cached": facts.cached_tokens,
            "image": facts.image_tokens,
            "completion": facts.completion_tokens,
            "reasoning": facts.reasoning_tokens,
        },
        prepare=False,
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    if facts.basis == Basis.NOTHING:
        return CallCost(0, row[1])
    return CallCost(row[0], row[1])


async def checkpoint_batch(
    connection: AsyncConnection[Any], rows: Sequence[CheckpointRow], *, lease_s: int
) -> dict[UUID, bool]:
    """Make checkpoints durable and renew the leases.

    The requests that still have their hold, each with whether its lease was renewed: a hold that is
    locked just now is left as it is. A request that is missing lost its hold.
    """
    cursor = await connection.execute(
        "SELECT request_id, is_renewed FROM quotas_checkpoint(%s::text::jsonb, %s)",
        (msgspec.json.encode(rows).decode(), lease_s),
        prepare=True,
    )
    return dict(await cursor.fetchall())


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What one sweep did: expired holds found, resolved, and left for the next sweep."""

    found: int
    resolved: int
    left: int


def sweep_expired_holds(*, lease_s: int, batch_size: int = 200, max_batches: int = 50) -> SweepReport:
    """Resolve holds whose lease is over: to their last checkpoint, or void without one.

    Runs on the data plane's connection. Safe to run twice and beside gateways: the statement looks
    again under its locks. Tenants that are locked just now are left for the next sweep, and so is a hold
    that cannot be resolved: neither keeps the others from it. Errors: django.db.DatabaseError when the
    connection is lost.
    """
    found = resolved = 0
    after = UUID(int=0)
    with connections["dataplane"].cursor() as cursor:
        for _ in range(max_batches):
            cursor.execute(
                "SELECT request_id, tenant_id FROM quotas_expired_holds(%s, %s, %s)",
                (lease_s, after, batch_size),
            )
            expired = cursor.fetchall()
            if not expired:
                break
            after = expired[-1][0]
            found += len(expired)
            resolved += _sweep(cursor, sorted(expired, key=lambda row: row[1]))
    return SweepReport(found=found, resolved=resolved, left=found - resolved)


def _sweep(cursor: CursorWrapper, expired: Sequence[tuple[UUID, UUID]], *, block_ms: int = 0) -> int:
    """Settle these holds, given as (request, tenant) and sorted by tenant; how many were resolved.

    A tenant whose wallet is taken gets one more try that queues for it: the wallet of a busy tenant is
    never free by chance.
    """
    rows = [
        {"request_id": str(request_id), "tenant_id": str(tenant_id), "source": UsageSource.SWEEPER.value}
        for request_id, tenant_id in expired
    ]
    try:
        cursor.execute(_SETTLE, (msgspec.json.encode(rows).decode(), block_ms))
    except DatabaseError as error:
        cause = error.__cause__
        if not is_refusal(error):
            raise
        is_one_tenant = expired[0][1] == expired[-1][1]
        if len(expired) > 1 and not (is_one_tenant and isinstance(cause, LockNotAvailable)):
            middle = len(expired) // 2
            return _sweep(cursor, expired[:middle], block_ms=block_ms) + _sweep(
                cursor, expired[middle:], block_ms=block_ms
            )
        logger.warning(
            "quotas.holds.not_swept",
            extra={
                "request": str(expired[0][0]),
                "tenant": str(expired[0][1]),
                "count": len(expired),
                "reason": type(cause).__name__,
            },
        )
        return 0
    answers = {answer[0]: answer[1] for answer in cursor.fetchall()}
    resolved = sum(1 for verdict in answers.values() if verdict == Verdict.SETTLED)
    busy = [hold for hold in expired if answers.get(hold[0]) == "BUSY"]
    for _, holds in groupby(busy, key=itemgetter(1)):
        resolved += _sweep(cursor, list(holds), block_ms=SWEEP_BLOCK_MS)
    return resolved
