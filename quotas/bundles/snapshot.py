"""What a bundle is made of, read in pages from one snapshot, as the organization's own role."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from django.db import connections, transaction

from models_catalog.models import PriceLine, PriceVersion, PriceWindow, PriceWindowSpan
from portal.kit.ids import PREFIXES, partition_bound, public_id
from quotas.bundles.lines import COLUMNS, WINDOW_PREFIX, Row, moment_text
from quotas.metering.queries.confirmed import MAX_ASKED, confirmed_requests, sureness
from quotas.models import Provenance
from tenants.models import Tenant
from tenants.scope import scope_alias, tenant_scope

PAGE_ROWS: Final = 4_000
PROVENANCE: Final = COLUMNS.index("provenance")
DAY: Final = timedelta(days=1)
# An id is made where the call comes in, and the call is admitted by the clock of the database.
SKEW: Final = timedelta(hours=1)
# A record is posted in the transaction that writes it.
POSTED_WITHIN: Final = timedelta(hours=1)

_CALL: Final = """
q.id, q.admitted_at, m.slug, q.api_key_id, q.endpoint, q.price_version_id, q.price_window_id, q.service_tier,
q.choices, q.cancel_policy, h.state, h.amount_nanos, q.max_cost_nanos"""
_RECORD: Final = """
u.revision, u.recorded_at, u.source, u.basis, u.provenance, u.billed, u.prompt_tokens, u.cached_tokens,
u.image_tokens, u.completion_tokens, u.reasoning_tokens, u.cost_nanos, u.waived_nanos, u.overrun_nanos,
u.charged_nanos, u.granted_nanos, u.receivable_nanos, u.transfer_id"""
_NO_RECORD: Final = (0, None, "", "NOTHING", "", "", *(0,) * 11, None)

# Each call with its newest record. The bounds of a day let the planner leave out the other days' partitions.
_USAGE: Final = f"""
SELECT {_CALL}, {_RECORD}
FROM quotas_inferencerequest q
JOIN models_catalog_catalogmodel m ON m.id = q.model_id
JOIN quotas_hold h ON h.request_id = q.id AND h.request_id > %(after)s AND h.request_id < %(end)s
LEFT JOIN LATERAL (
  SELECT r.* FROM quotas_usagerecord r
  WHERE r.request_id = q.id AND r.request_id > %(after)s AND r.request_id < %(end)s
  ORDER BY r.revision DESC LIMIT 1) u ON true
WHERE q.tenant_id = %(tenant)s AND q.id > %(after)s AND q.id < %(end)s
  AND q.admitted_at >= %(from)s AND q.admitted_at < %(to)s
ORDER BY q.id LIMIT %(limit)s
"""  # noqa: S608

# Calls of the period that were set right: they have a second revision, or their first one came from a feed.
_CORRECTED: Final = """
SELECT DISTINCT x.request_id FROM (
  SELECT u.request_id FROM quotas_usagerecord u
  WHERE u.tenant_id = %(tenant)s AND u.request_id >= %(first)s AND u.request_id < %(end)s AND u.revision > 1
  UNION ALL
  SELECT c.request_id FROM quotas_correction c
  WHERE c.tenant_id = %(tenant)s AND c.request_id >= %(first)s AND c.request_id < %(end)s) x
JOIN quotas_inferencerequest q ON q.id = x.request_id AND q.id >= %(first)s AND q.id < %(end)s
WHERE q.admitted_at >= %(from)s AND q.admitted_at < %(to)s
ORDER BY 1
"""

# Calls from before the period about which something was posted in it.
_LATE: Final = """
SELECT DISTINCT x.request_id FROM (
  SELECT t.request_id FROM quotas_ledgertransfer t
  WHERE t.tenant_id = %(tenant)s AND t.kind = 'USAGE' AND t.revision > 1
    AND t.posted_at >= %(posted_from)s AND t.posted_at < %(posted_to)s
  UNION ALL
  SELECT c.request_id FROM quotas_correction c
  WHERE c.tenant_id = %(tenant)s AND c.posted_at >= %(posted_from)s AND c.posted_at < %(posted_to)s) x
JOIN quotas_inferencerequest q ON q.id = x.request_id
JOIN quotas_usagerecord u ON u.request_id = x.request_id
  AND u.recorded_at >= %(from)s AND u.recorded_at < %(to)s
WHERE q.admitted_at < %(from)s AND (u.revision > 1 OR EXISTS (
  SELECT 1 FROM quotas_correction c WHERE c.request_id = u.request_id AND c.revision = u.revision))
ORDER BY 1
"""

_REVISIONS: Final = f"""
SELECT {_CALL}, {_RECORD}, coalesce(c.cause, '')
FROM quotas_inferencerequest q
JOIN models_catalog_catalogmodel m ON m.id = q.model_id
JOIN quotas_hold h ON h.request_id = q.id
JOIN quotas_usagerecord u ON u.request_id = q.id
LEFT JOIN quotas_correction c ON c.request_id = u.request_id AND c.revision = u.revision
WHERE q.tenant_id = %(tenant)s AND q.id = ANY (%(ids)s) AND q.id BETWEEN %(first)s AND %(last)s
  AND h.request_id BETWEEN %(first)s AND %(last)s AND u.request_id BETWEEN %(first)s AND %(last)s
ORDER BY q.id, u.revision
"""  # noqa: S608

_HOURS: Final = """
SELECT coalesce(sum(requests), 0)::bigint, coalesce(sum(prompt_tokens), 0)::bigint,
  coalesce(sum(completion_tokens), 0)::bigint, coalesce(sum(cost_nanos), 0)::bigint,
  coalesce(sum(charged_nanos), 0)::bigint
FROM quotas_usagerollup WHERE tenant_id = %(tenant)s AND hour >= %(from)s AND hour < %(to)s
"""


@dataclass(frozen=True, slots=True)
class HourlySums:
    """What the rollups say of a period of whole hours."""

    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost_nanos: int
    charged_nanos: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The database as it was at one moment, of one organization. Only inside `open_snapshot`."""

    tenant_id: UUID
    organization: str
    made_at: datetime
    from_at: datetime
    to_at: datetime

    def hourly_sums(self) -> HourlySums:
        return HourlySums(*self._rows(_HOURS, {})[0])

    def usage_pages(self) -> Iterator[list[Row]]:
        """Every call of the period, in the order of their ids."""
        start, last = self.from_at - SKEW, self.to_at + SKEW
        while start < last:
            end_at = min(start + DAY, last)
            after, end = UUID(int=max(0, partition_bound(start).int - 1)), partition_bound(end_at)
            while True:
                page = self._rows(_USAGE, {"after": after, "end": end, "limit": PAGE_ROWS})
                rows = [row if row[13] is not None else (*row[:13], *_NO_RECORD) for row in page]
                if rows:
                    yield self._with_sureness(rows)
                if len(rows) < PAGE_ROWS:
                    break
                after = rows[-1][0]
            start = end_at

    def corrected_calls(self) -> list[UUID]:
        """Of the period."""
        bounds = {
            "first": partition_bound(self.from_at - SKEW),
            "end": partition_bound(self.to_at + SKEW),
        }
        return [row[0] for row in self._rows(_CORRECTED, bounds)]

    def late_calls(self) -> list[UUID]:
        """From before the period, about which something was posted within it."""
        bounds = {"posted_from": self.from_at - POSTED_WITHIN, "posted_to": self.to_at + POSTED_WITHIN}
        return [row[0] for row in self._rows(_LATE, bounds)]

    def revisions_of(self, request_ids: list[UUID]) -> Iterator[list[tuple[Row, str]]]:
        """Every revision of these calls (ids ascending) with its cause; a page holds whole calls."""
        for start in range(0, len(request_ids), PAGE_ROWS):
            ids = request_ids[start : start + PAGE_ROWS]
            found = self._rows(_REVISIONS, {"ids": ids, "first": ids[0], "last": ids[-1]})
            rows = self._with_sureness([row[:-1] for row in found])
            yield list(zip(rows, (row[-1] for row in found), strict=True))

    def prices(self, version_ids: Iterable[UUID]) -> list[dict[str, Any]]:
        """The price versions, each with all its lines and windows, as they stand in the file."""
        versions = PriceVersion.objects.select_related("model").filter(id__in=list(version_ids))
        return [_price(version) for version in versions.order_by("id")]

    def _with_sureness(self, rows: list[Row]) -> list[Row]:
        """The rows, with how sure each is as pages show it: CONFIRMED where the backend's record agrees."""
        measured = list({row[0]: None for row in rows if row[PROVENANCE] == Provenance.MEASURED})
        confirmed: set[UUID] = set()
        for start in range(0, len(measured), MAX_ASKED):
            asked = measured[start : start + MAX_ASKED]
            confirmed |= confirmed_requests(tenant_id=self.tenant_id, request_ids=asked)
        if not confirmed:
            return rows
        return [
            (*row[:PROVENANCE], sureness(row[PROVENANCE], is_confirmed=True), *row[PROVENANCE + 1 :])
            if row[0] in confirmed
            else row
            for row in rows
        ]

    def _rows(self, statement: str, parameters: dict[str, Any]) -> list[Any]:
        with connections[scope_alias()].cursor() as cursor:
            cursor.execute(
                statement, {"tenant": self.tenant_id, "from": self.from_at, "to": self.to_at, **parameters}
            )
            return list(cursor.fetchall())


@contextmanager
def open_snapshot(*, tenant_id: UUID, from_at: datetime, to_at: datetime) -> Iterator[Snapshot]:
    """One read-only transaction of the tenant role that sees the database as it is now until it ends,
    whatever is written meanwhile. Outside every transaction of that role."""
    with transaction.atomic(using="tenant", durable=True):
        with connections["tenant"].cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        with tenant_scope(tenant_id):
            with connections["tenant"].cursor() as cursor:
                cursor.execute("SELECT now()")
                made_at = cursor.fetchone()[0]
            name = Tenant.objects.values_list("name", flat=True).get(id=tenant_id)
            yield Snapshot(tenant_id, name, made_at, from_at, to_at)


def _price(version: PriceVersion) -> dict[str, Any]:
    windows = PriceWindow.objects.filter(version=version).order_by("id")
    lines = PriceLine.objects.filter(version=version).order_by(
        "token_class", "service_tier", "window_id", "input_from_tokens", "id"
    )
    return {
        "price": public_id(PREFIXES["price"], version.id),
        "model": version.model.slug,
        "is_private": version.tenant_id is not None,
        "currency": version.currency,
        "time_zone": version.time_zone,
        "active_from": moment_text(version.active_from),
        "active_to": moment_text(version.active_to) or None,
        "windows": [
            {
                "window": public_id(WINDOW_PREFIX, window.id),
                "name": window.name,
                "minutes_of_week": [
                    [span.minutes.lower, span.minutes.upper]
                    for span in PriceWindowSpan.objects.filter(window=window).order_by("minutes")
                ],
            }
            for window in windows
        ],
        "lines": [
            {
                "token_class": line.token_class,
                "service_tier": line.service_tier,
                "window": None if line.window_id is None else public_id(WINDOW_PREFIX, line.window_id),
                "input_from_tokens": line.input_from_tokens,
                "input_to_tokens": line.input_to_tokens,
                "price_nanos_per_million": line.price_nanos_per_million,
            }
            for line in lines
        ],
    }
