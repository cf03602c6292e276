"""The list of a tenant's calls, newest first.

Calls, holds, records and attempts are partitioned by day on ids that hold their time. So a read names the
range of ids that it wants in every table, and reads the days back from the newest, a few at first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connections

from portal.kit.ids import PREFIXES, partition_bound, public_id, uuid7_time
from quotas.metering.queries.confirmed import confirmed_requests, sureness
from quotas.metering.queries.labels import KeyLabel, ModelLabel, key_labels, model_labels
from quotas.models import Provenance
from tenants.scope import scope_alias

MAX_PAGE_ROWS = 200
MAX_PERIOD = timedelta(days=400)
FIRST_SPAN = timedelta(days=2)
# Attempts begin with their call, save those of retries; no call lasts so long.
ATTEMPTS_BEFORE = timedelta(minutes=5)
ATTEMPTS_AFTER = timedelta(hours=6)


class InvalidRequestFilter(ValueError):
    """The period ends before it begins, or is longer than MAX_PERIOD."""


@dataclass(frozen=True, slots=True)
class RequestFilter:
    """Which calls: of the half-open period by the time in their id; empty tuples leave a thing open.

    outcomes: those of a call's last attempt. is_billed: only calls that were charged something.
    """

    from_at: datetime
    to_at: datetime
    model_slugs: tuple[str, ...] = ()
    key_ids: tuple[UUID, ...] = ()
    hold_states: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()
    is_billed: bool = False


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One call. What it used and cost (nano-units) is of its newest record; None until there is one, as
    while its hold is PENDING or when it was VOIDED. Times (ms) and outcome are of its last attempt.
    provenance: how sure the counts are, a Sureness."""

    id: UUID
    admitted_at: datetime
    model: ModelLabel
    key: KeyLabel
    endpoint: str
    is_stream: bool
    currency: str
    hold_state: str
    hold_nanos: int
    prompt_tokens: int | None
    cached_tokens: int | None
    completion_tokens: int | None
    reasoning_tokens: int | None
    cost_nanos: int | None
    charged_nanos: int | None
    basis: str | None
    provenance: str | None
    source: str | None
    revision: int | None
    outcome: str | None
    http_status: int | None
    ttft_ms: int | None
    duration_ms: int | None

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["request"], self.id)


@dataclass(frozen=True, slots=True)
class RequestPage:
    """Calls, newest first; `next` is what `before` takes for the page behind this one."""

    rows: tuple[RequestRow, ...]
    next: UUID | None


_REQUESTS = """
SELECT q.id, q.admitted_at, q.model_id, q.api_key_id, q.endpoint, q.is_stream,
  h.currency, h.state, h.amount_nanos,
  u.prompt_tokens, u.cached_tokens, u.completion_tokens, u.reasoning_tokens, u.cost_nanos, u.charged_nanos,
  u.basis, u.provenance, u.source, u.revision, a.outcome, a.http_status, a.ttft_ms, a.duration_ms
FROM quotas_inferencerequest q
JOIN quotas_hold h ON h.request_id = q.id AND h.request_id >= %(first)s AND h.request_id < %(end)s
LEFT JOIN LATERAL (
  SELECT r.* FROM quotas_usagerecord r
  WHERE r.request_id = q.id AND r.request_id >= %(first)s AND r.request_id < %(end)s
  ORDER BY r.revision DESC LIMIT 1) u ON true
LEFT JOIN LATERAL (
  SELECT t.* FROM quotas_attempt t
  WHERE t.request_id = q.id AND t.id >= %(first_attempt)s AND t.id < %(end_attempt)s
  ORDER BY t.choice_index, t.ordinal DESC LIMIT 1) a ON true
WHERE q.tenant_id = %(tenant)s AND q.id >= %(first)s AND q.id < %(end)s
  AND (%(slugs)s::text[] IS NULL OR q.model_id IN (
    SELECT m.id FROM models_catalog_catalogmodel m WHERE m.slug = ANY (%(slugs)s::text[])))
  AND (%(keys)s::uuid[] IS NULL OR q.api_key_id = ANY (%(keys)s::uuid[]))
  AND (%(states)s::text[] IS NULL OR h.state = ANY (%(states)s::text[]))
  AND (%(outcomes)s::text[] IS NULL OR a.outcome = ANY (%(outcomes)s::text[]))
  AND (NOT %(is_billed)s OR u.charged_nanos > 0)
ORDER BY q.id DESC LIMIT %(limit)s
"""


def list_requests(
    *, tenant_id: UUID, filters: RequestFilter, before: UUID | None = None, limit: int = 50
) -> RequestPage:
    """A page of a tenant's calls in the scope that is open. before: the `next` of the page before this one;
    limit: 1 to MAX_PAGE_ROWS. Errors: InvalidRequestFilter.
    """
    if not timedelta() < filters.to_at - filters.from_at <= MAX_PERIOD:
        raise InvalidRequestFilter(f"a list of calls spans at most {MAX_PERIOD.days} days")
    limit = max(1, min(limit, MAX_PAGE_ROWS))
    first, end = partition_bound(filters.from_at), partition_bound(filters.to_at)
    end = min(end, before) if before else end
    found: list[tuple[Any, ...]] = []
    span = FIRST_SPAN
    while first < end and len(found) <= limit:
        # Most pages are full after the newest days; the older partitions then are not even planned for.
        from_at = uuid7_time(end) - span
        span_first = max(first, partition_bound(from_at))
        found += _read(tenant_id, filters, span_first, end, limit + 1 - len(found))
        end, span = span_first, span * 4
    rows = _rows(tenant_id, found[:limit])
    return RequestPage(rows, rows[-1].id if len(found) > limit else None)


def _read(
    tenant_id: UUID, filters: RequestFilter, first: UUID, end: UUID, limit: int
) -> list[tuple[Any, ...]]:
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(_REQUESTS, _parameters(tenant_id, filters, first, end, limit))
        return list(cursor.fetchall())


def _parameters(
    tenant_id: UUID, filters: RequestFilter, first: UUID, end: UUID, limit: int
) -> dict[str, Any]:
    return {
        "tenant": tenant_id,
        "first": first,
        "end": end,
        "first_attempt": partition_bound(uuid7_time(first) - ATTEMPTS_BEFORE),
        "end_attempt": partition_bound(uuid7_time(end) + ATTEMPTS_AFTER),
        "slugs": list(filters.model_slugs) or None,
        "keys": list(filters.key_ids) or None,
        "states": list(filters.hold_states) or None,
        "outcomes": list(filters.outcomes) or None,
        "is_billed": filters.is_billed,
        "limit": limit,
    }


def _rows(tenant_id: UUID, found: Sequence[tuple[Any, ...]]) -> tuple[RequestRow, ...]:
    models = model_labels(model_ids=(row[2] for row in found))
    keys = key_labels(key_ids=(row[3] for row in found))
    rows = [RequestRow(row[0], row[1], models[row[2]], keys[row[3]], *row[4:]) for row in found]
    measured = (row.id for row in rows if row.provenance == Provenance.MEASURED)
    confirmed = confirmed_requests(tenant_id=tenant_id, request_ids=measured)
    return tuple(
        replace(row, provenance=sureness(row.provenance, is_confirmed=True))
        if row.provenance and row.id in confirmed
        else row
        for row in rows
    )
