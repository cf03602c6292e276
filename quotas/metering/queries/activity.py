"""When keys and organizations were active, how well calls go, and how fast models answer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connections
from django.db.models import Aggregate, Count, IntegerField, Sum

from portal.kit.ids import partition_bound
from quotas.metering.queries.requests import ATTEMPTS_AFTER, ATTEMPTS_BEFORE
from quotas.models import Attempt, AttemptOutcome, InferenceRequest, UsageRollup
from tenants.models import Tenant
from tenants.scope import scope_alias

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
# Gateways stamp the ids of calls by their own clocks, the database their admission by its.
CLOCK_TOLERANCE = timedelta(minutes=5)

MAX_HEALTH_REQUESTS = 10_000
SPEED_DAYS = 7
MIN_SPEED_SAMPLES = 20
# Below so many tokens the pauses of the network, not the model, make the rate.
MIN_RATE_TOKENS = 16

# A client that leaves and a call that the backend refuses as wrong are no fault of the service.
NO_FAULT = (AttemptOutcome.COMPLETED, AttemptOutcome.CLIENT_GONE, AttemptOutcome.BACKEND_REFUSED)


def last_used(*, tenant_id: UUID) -> dict[UUID, datetime]:
    """When each key of a tenant was last used for a call that is settled; keys never used are absent.

    The moment is that of the call's admission, or the beginning of its hour if the call is not found.
    """
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            "SELECT api_key_id, max(hour) FROM quotas_usagerollup WHERE tenant_id = %s GROUP BY api_key_id",
            [tenant_id],
        )
        hours: dict[UUID, datetime] = dict(cursor.fetchall())
        if not hours:
            return {}
        # Newest first within the hour, so the read ends at the first call of the key.
        cursor.execute(
            """
            SELECT k.key_id, (
              SELECT q.admitted_at FROM quotas_inferencerequest q
              WHERE q.tenant_id = %(tenant)s AND q.api_key_id = k.key_id
                AND q.id >= k.first AND q.id < k.last AND q.id >= %(first)s AND q.id < %(last)s
              ORDER BY q.id DESC LIMIT 1)
            FROM unnest(%(keys)s::uuid[], %(firsts)s::uuid[], %(lasts)s::uuid[]) AS k(key_id, first, last)
            """,
            {
                "tenant": tenant_id,
                "keys": list(hours),
                "firsts": [partition_bound(hour - CLOCK_TOLERANCE) for hour in hours.values()],
                "lasts": [partition_bound(hour + HOUR + CLOCK_TOLERANCE) for hour in hours.values()],
                "first": partition_bound(min(hours.values()) - CLOCK_TOLERANCE),
                "last": partition_bound(max(hours.values()) + HOUR + CLOCK_TOLERANCE),
            },
        )
        exact = dict(cursor.fetchall())
    return {key_id: max(hour, exact.get(key_id) or hour) for key_id, hour in hours.items()}


def has_any_request(*, tenant_id: UUID) -> datetime | None:
    """When the tenant's first call was admitted, None before it. The first hour with usage says where to
    look; without one, only the days since the organization exists are looked at."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute("SELECT min(hour) FROM quotas_usagerollup WHERE tenant_id = %s", [tenant_id])
        (hour,) = cursor.fetchone()
    calls = InferenceRequest.objects.filter(tenant_id=tenant_id).order_by("id")
    if hour is not None:
        until = hour + HOUR + CLOCK_TOLERANCE
        calls = calls.filter(id__range=(partition_bound(hour - CLOCK_TOLERANCE), partition_bound(until)))
    else:
        created_at = Tenant.objects.values_list("created_at", flat=True).get(id=tenant_id)
        calls = calls.filter(id__gte=partition_bound(created_at - CLOCK_TOLERANCE))
    return calls.values_list("admitted_at", flat=True).first() or hour


@dataclass(frozen=True, slots=True)
class CallHealth:
    """How a tenant's calls of 24 hours went, of those that have ended: how many, how many failed, and the
    time to the first token (ms) of the half and of 95 % of them. is_sampled: only the newest were read."""

    ended: int
    failed: int
    ttft_p50_ms: int | None
    ttft_p95_ms: int | None
    is_sampled: bool

    @property
    def error_rate(self) -> float | None:
        return self.failed / self.ended if self.ended else None


def call_health(*, tenant_id: UUID, now: datetime) -> CallHealth:
    """How the tenant's newest calls of the last 24 hours went, at most MAX_HEALTH_REQUESTS of them, in the
    scope that is open. A call went as its last attempt did."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            """
            WITH calls AS MATERIALIZED (
              SELECT q.id FROM quotas_inferencerequest q
              WHERE q.tenant_id = %(tenant)s AND q.id >= %(first)s AND q.id < %(end)s
              ORDER BY q.id DESC LIMIT %(limit)s
            ), ends AS (
              SELECT a.outcome, a.ttft_ms FROM calls c CROSS JOIN LATERAL (
                SELECT t.outcome, t.ttft_ms FROM quotas_attempt t
                WHERE t.request_id = c.id AND t.id >= %(first_attempt)s AND t.id < %(end_attempt)s
                ORDER BY t.choice_index, t.ordinal DESC LIMIT 1) a
              WHERE a.outcome IS NOT NULL
            )
            SELECT count(*), count(*) FILTER (WHERE outcome <> ALL (%(no_fault)s)),
              percentile_disc(0.5) WITHIN GROUP (ORDER BY ttft_ms),
              percentile_disc(0.95) WITHIN GROUP (ORDER BY ttft_ms),
              (SELECT count(*) FROM calls) >= %(limit)s
            FROM ends
            """,
            {
                "tenant": tenant_id,
                "first": partition_bound(now - DAY),
                "end": partition_bound(now + CLOCK_TOLERANCE),
                "first_attempt": partition_bound(now - DAY - ATTEMPTS_BEFORE),
                "end_attempt": partition_bound(now + ATTEMPTS_AFTER),
                "no_fault": [outcome.value for outcome in NO_FAULT],
                "limit": MAX_HEALTH_REQUESTS,
            },
        )
        return CallHealth(*cursor.fetchone())


@dataclass(frozen=True, slots=True)
class ModelSpeed:
    """What was measured of a model in SPEED_DAYS: medians over all its callers, of `samples` answers. None
    where fewer than MIN_SPEED_SAMPLES could be measured."""

    model_id: UUID
    slug: str
    samples: int
    ttft_ms: int | None
    tokens_per_s: float | None


def model_speeds(*, now: datetime) -> dict[str, ModelSpeed]:
    """The measured speed of every model that answered lately, by slug.

    Crosses organizations, and tells nothing of any: runs in the scope of the dataplane or the operator. It
    reads all attempts of SPEED_DAYS, so its callers keep the answer for a while.
    """
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            """
            WITH answers AS (
              SELECT d.model_id, a.ttft_ms,
                CASE WHEN a.completion_tokens >= %(min_tokens)s AND a.duration_ms > a.ttft_ms
                  THEN (a.completion_tokens - 1) * 1000.0 / (a.duration_ms - a.ttft_ms) END AS tokens_per_s
              FROM quotas_attempt a JOIN models_catalog_deployment d ON d.id = a.deployment_id
              WHERE a.id >= %(first)s AND a.id < %(end)s
                AND a.outcome = %(completed)s AND a.ttft_ms IS NOT NULL
            )
            SELECT m.id, m.slug, count(*),
              CASE WHEN count(*) >= %(min_samples)s
                THEN percentile_disc(0.5) WITHIN GROUP (ORDER BY x.ttft_ms) END,
              CASE WHEN count(x.tokens_per_s) >= %(min_samples)s
                THEN percentile_cont(0.5) WITHIN GROUP (ORDER BY x.tokens_per_s::float8) END
            FROM answers x JOIN models_catalog_catalogmodel m ON m.id = x.model_id
            GROUP BY m.id, m.slug
            """,
            {
                "first": partition_bound(now - SPEED_DAYS * DAY),
                "end": partition_bound(now + CLOCK_TOLERANCE),
                "completed": AttemptOutcome.COMPLETED.value,
                "min_tokens": MIN_RATE_TOKENS,
                "min_samples": MIN_SPEED_SAMPLES,
            },
        )
        return {row[1]: ModelSpeed(*row) for row in cursor.fetchall()}


class _Median(Aggregate):
    """The value in the middle, one that was measured."""

    function = "percentile_disc"
    template = "%(function)s(0.5) WITHIN GROUP (ORDER BY %(expressions)s)"
    output_field = IntegerField()


def requests_since(*, since: datetime) -> int:
    """Settled calls of every organization in the hours that begin at `since` or later. For crossing roles."""
    found = UsageRollup.objects.filter(hour__gte=since).aggregate(requests=Sum("requests"))
    return int(found["requests"] or 0)


def median_ttft_ms(*, now: datetime) -> int | None:
    """The median time to the first token of SPEED_DAYS over all models; None under MIN_SPEED_SAMPLES
    answers. For crossing roles."""
    answers = Attempt.objects.filter(
        id__gte=partition_bound(now - SPEED_DAYS * DAY),
        id__lt=partition_bound(now + CLOCK_TOLERANCE),
        outcome=AttemptOutcome.COMPLETED,
        ttft_ms__isnull=False,
    )
    found: dict[str, int] = answers.aggregate(samples=Count("id"), median=_Median("ttft_ms"))
    return found["median"] if found["samples"] >= MIN_SPEED_SAMPLES else None
