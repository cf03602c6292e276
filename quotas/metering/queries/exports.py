"""Usage and calls as comma-separated values.

Each piece of text opens the tenant's scope itself and closes it, so that an export can be read after the
caller's scope is closed, in any thread, and a slow reader holds no transaction open.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connections

from portal.kit.ids import PREFIXES, public_id
from quotas.csv_text import amount, csv_text, moment, safe_text
from quotas.metering.queries.labels import KeyLabel, key_labels, model_labels
from quotas.metering.queries.requests import MAX_PAGE_ROWS, RequestFilter, RequestRow, list_requests
from quotas.models import Wallet
from tenants.scope import scope_alias, tenant_scope

USAGE_COLUMNS = (
    "hour",
    "model",
    "key",
    "key_name",
    "requests",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "cost",
    "charged",
    "currency",
)
REQUEST_COLUMNS = (
    "admitted_at",
    "request",
    "model",
    "key",
    "key_name",
    "endpoint",
    "state",
    "outcome",
    "http_status",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "cost",
    "charged",
    "currency",
    "ttft_ms",
    "duration_ms",
    "basis",
    "provenance",
    "source",
)
USAGE_PAGE_ROWS = 1_000


def _key_name(key: KeyLabel) -> str:
    return "Playground" if key.is_playground else safe_text(key.name)


def iter_usage_csv(
    *,
    tenant_id: UUID,
    from_at: datetime,
    to_at: datetime,
    models: Sequence[str] = (),
    api_keys: Sequence[UUID] = (),
) -> Iterator[str]:
    """The hourly rollups of a half-open period, oldest first: text of rows, a piece for each page.

    models: slugs, api_keys: ids; empty means all. Amounts are exact decimals.
    """
    yield csv_text([USAGE_COLUMNS])
    nothing = UUID(int=0)
    after: tuple[datetime, UUID, UUID] | None = (from_at - timedelta(microseconds=1), nothing, nothing)
    while after is not None:
        with tenant_scope(tenant_id):
            piece, after = _usage_page(tenant_id, after, to_at, models, api_keys)
        if piece:
            yield piece


def _usage_page(
    tenant_id: UUID,
    after: tuple[datetime, UUID, UUID],
    to_at: datetime,
    models: Sequence[str],
    api_keys: Sequence[UUID],
) -> tuple[str, tuple[datetime, UUID, UUID] | None]:
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            """
            SELECT u.hour, u.model_id, u.api_key_id, u.requests, u.prompt_tokens, u.cached_tokens,
              u.completion_tokens, u.reasoning_tokens, u.cost_nanos, u.charged_nanos
            FROM quotas_usagerollup u
            WHERE u.tenant_id = %(tenant)s AND u.hour < %(to)s
              AND (u.hour, u.model_id, u.api_key_id) > (%(hour)s, %(model)s, %(key)s)
              AND (%(slugs)s::text[] IS NULL OR u.model_id IN (
                SELECT m.id FROM models_catalog_catalogmodel m WHERE m.slug = ANY (%(slugs)s::text[])))
              AND (%(keys)s::uuid[] IS NULL OR u.api_key_id = ANY (%(keys)s::uuid[]))
            ORDER BY u.hour, u.model_id, u.api_key_id LIMIT %(limit)s
            """,
            {
                "tenant": tenant_id,
                "to": to_at,
                "hour": after[0],
                "model": after[1],
                "key": after[2],
                "slugs": list(models) or None,
                "keys": list(api_keys) or None,
                "limit": USAGE_PAGE_ROWS,
            },
        )
        found = cursor.fetchall()
    slugs = model_labels(model_ids=(row[1] for row in found))
    keys = key_labels(key_ids=(row[2] for row in found))
    currency = Wallet.objects.values_list("currency", flat=True).get(tenant_id=tenant_id)
    piece = csv_text(
        (
            moment(hour),
            safe_text(slugs[model_id].slug),
            public_id(PREFIXES["api_key"], key_id),
            _key_name(keys[key_id]),
            *counts,
            amount(cost_nanos),
            amount(charged_nanos),
            currency,
        )
        for hour, model_id, key_id, *counts, cost_nanos, charged_nanos in found
    )
    return piece, found[-1][:3] if len(found) == USAGE_PAGE_ROWS else None


def iter_requests_csv(*, tenant_id: UUID, filters: RequestFilter) -> Iterator[str]:
    """The calls of a filter, newest first: text of rows, a piece for each page. Amounts are exact decimals.

    Errors: InvalidRequestFilter with the first piece.
    """
    before: UUID | None = None
    header = csv_text([REQUEST_COLUMNS])
    while True:
        with tenant_scope(tenant_id):
            page = list_requests(tenant_id=tenant_id, filters=filters, before=before, limit=MAX_PAGE_ROWS)
        yield header + csv_text(_request_row(row) for row in page.rows)
        if page.next is None:
            return
        before, header = page.next, ""


def _request_row(row: RequestRow) -> tuple[str | int | None, ...]:
    return (
        moment(row.admitted_at),
        row.public_id,
        safe_text(row.model.slug),
        public_id(PREFIXES["api_key"], row.key.id),
        _key_name(row.key),
        row.endpoint,
        row.hold_state,
        row.outcome,
        row.http_status,
        row.prompt_tokens,
        row.cached_tokens,
        row.completion_tokens,
        row.reasoning_tokens,
        amount(row.cost_nanos),
        amount(row.charged_nanos),
        row.currency,
        row.ttft_ms,
        row.duration_ms,
        row.basis,
        row.provenance,
        row.source,
    )
