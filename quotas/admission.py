"""The first door of an inference call: a durable hold, or a refusal with its reason.

The rules are in sql/admission_under_ceilings.sql; this module carries batches to it and answers back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgspec
from psycopg import AsyncConnection

from portal.kit.batching import BUSY, Busy
from quotas.models import ANY, LimitKind


class Verdict(StrEnum):
    ADMITTED = "ADMITTED"
    REFUSED = "REFUSED"
    ALREADY_DONE = "ALREADY_DONE"
    CONFLICT = "CONFLICT"


class Refusal(StrEnum):
    KEY_UNKNOWN = "KEY_UNKNOWN"
    KEY_REVOKED = "KEY_REVOKED"
    KEY_EXPIRED = "KEY_EXPIRED"
    TENANT_SUSPENDED = "TENANT_SUSPENDED"
    MODEL_UNKNOWN = "MODEL_UNKNOWN"
    MODEL_NOT_ENABLED = "MODEL_NOT_ENABLED"
    MODEL_NOT_ON_KEY = "MODEL_NOT_ON_KEY"
    NOT_DEPLOYED = "NOT_DEPLOYED"
    NO_PRICE = "NO_PRICE"
    MAX_COST_TOO_LOW = "MAX_COST_TOO_LOW"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    BUDGET_EXCEEDED = "BUDGET_EXCEEDED"
    INSUFFICIENT_FUNDS = "INSUFFICIENT_FUNDS"


class AdmissionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One call that asks to be admitted. Digests are hex; the output cap is per choice. max_cost_nanos: the
    most that it may cost, above 0, in the wallet's currency; None is no ceiling."""

    request_id: UUID
    attempt_id: UUID
    tenant_id: UUID
    api_key_id: UUID
    digest: str
    model_id: UUID
    deployment_id: UUID
    service_tier: str
    endpoint: str
    is_stream: bool
    choices: int
    prompt_bound_tokens: int
    output_cap_tokens: int
    payload_sha256: str
    max_cost_nanos: int | None = None


@dataclass(frozen=True, slots=True)
class LimitHit:
    """The quota or budget that refused a call, as it stood then: in tokens, or in nano-units.

    model_id, api_key_id: None where it is for all models or all keys. pending: reserved by calls in
    progress. needed: what the call would have reserved. resets_at: the beginning of its next period (UTC).
    """

    kind: LimitKind
    model_id: UUID | None
    api_key_id: UUID | None
    value: int
    used: int
    pending: int
    needed: int
    resets_at: datetime


@dataclass(frozen=True, slots=True)
class AdmissionAnswer:
    """What became of one row. Amounts in nano-units; money fields are set where money was looked at.

    reason: a Refusal of a refused row; the hold's state of one that was admitted before.
    fit_output_tokens: the largest output cap per choice that the available money and all limits would cover.
    limit: of QUOTA_EXCEEDED and BUDGET_EXCEEDED; of several the one that resets last.
    output_cap_tokens: of an admitted call, the cap per choice that was priced; it may be below what was asked
    for, and is what must be sent.
    least_cost_nanos: of MAX_COST_TOO_LOW, the lowest ceiling that would do; hold_nanos is then what the
    prompt alone may cost.
    """

    request_id: UUID
    verdict: Verdict
    reason: str | None
    currency: str | None
    hold_nanos: int | None
    available_nanos: int | None
    pending_nanos: int | None
    fit_output_tokens: int | None
    limit: LimitHit | None = None
    output_cap_tokens: int | None = None
    least_cost_nanos: int | None = None


async def admit_batch(
    connection: AsyncConnection[Any], rows: Sequence[AdmissionRow], *, lease_s: int, block_ms: int
) -> list[AdmissionAnswer | Busy]:
    """Admit or refuse each row, in one statement and one commit; answers in the order of the rows.

    block_ms: 0 answers BUSY for tenants whose wallet is locked; otherwise how long to wait for it.
    Errors: psycopg's; then nothing was admitted, unless the connection broke, when it may have been:
    the same ids may be sent again.
    """
    cursor = await connection.execute(
        "SELECT request_id, verdict, reason, currency, hold_nanos, available_nanos, pending_nanos, "
        "fit_output_tokens, limit_kind, limit_model_id, limit_api_key_id, limit_value, limit_used, "
        "limit_pending, limit_needed, limit_resets_at, output_cap_tokens, least_cost_nanos "
        "FROM quotas_admit(%s::text::jsonb, %s, %s)",
        (msgspec.json.encode(rows).decode(), lease_s, block_ms),
        prepare=True,
    )
    answers: dict[UUID, AdmissionAnswer | Busy] = {}
    for row in await cursor.fetchall():
        answers[row[0]] = BUSY if row[1] == "BUSY" else _answer(*row)
    return [answers[row.request_id] for row in rows]


def _answer(request_id: UUID, verdict: str, *rest: Any) -> AdmissionAnswer:
    reason, currency, hold_nanos, available_nanos, pending_nanos, fit_output_tokens, *limit, cap, least = rest
    return AdmissionAnswer(
        request_id,
        Verdict(verdict),
        reason,
        currency,
        hold_nanos,
        available_nanos,
        pending_nanos,
        fit_output_tokens,
        None if limit[0] is None else _limit_hit(*limit),
        cap,
        least,
    )


def _limit_hit(kind: str, model_id: UUID, api_key_id: UUID, *rest: Any) -> LimitHit:
    value, used, pending, needed, resets_at = rest
    return LimitHit(
        kind=LimitKind(kind),
        model_id=None if model_id == ANY else model_id,
        api_key_id=None if api_key_id == ANY else api_key_id,
        value=value,
        used=used,
        pending=pending,
        needed=needed,
        resets_at=resets_at.astimezone(UTC),
    )


async def open_attempt(
    connection: AsyncConnection[Any],
    *,
    attempt_id: UUID,
    request_id: UUID,
    deployment_id: UUID,
    choice_index: int,
    ordinal: int,
) -> bool:
    """Commit a further attempt (the `ordinal`th of its choice, from 1) before it is sent.

    False: the hold is gone and nothing may be sent.
    """
    cursor = await connection.execute(
        "SELECT quotas_open_attempt(%s, %s, %s, %s, %s)",
        (attempt_id, request_id, deployment_id, choice_index, ordinal),
    )
    row = await cursor.fetchone()
    return bool(row and row[0])
