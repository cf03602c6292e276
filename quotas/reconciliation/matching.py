"""Looking again at records that came early, and at settlements that came late."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.db import DatabaseError, connections, transaction

from models_catalog.models import UsageFeed
from portal.kit.refusals import is_refusal
from quotas.reconciliation.policy import CorrectionPolicy
from tenants.scope import role_scope, scope_alias

logger = logging.getLogger(__name__)

AGAIN_A_BATCH: Final = 2000
MAX_BATCHES: Final = 50


def match_again(*, now: datetime, policy: CorrectionPolicy) -> int:
    """Judge anew what could not be judged when it came, now that its call is settled, and lost settlements
    that came after all; how many attempts. Safe to run twice, beside itself and beside whoever takes records
    in."""
    since = now - timedelta(days=policy.days)
    again = 0
    with role_scope("dataplane"):
        backend_ids = list(
            UsageFeed.objects.order_by("backend_id").values_list("backend_id", flat=True).distinct()
        )
        for backend_id in backend_ids:
            try:
                again += _match_all_again(backend_id, since)
            except DatabaseError as error:
                if not is_refusal(error):
                    raise
                # What one backend says keeps nobody else waiting.
                logger.error(
                    "quotas.matching.failed",
                    extra={"backend": str(backend_id), "reason": type(error.__cause__).__name__},
                )
    return again


def open_gateway_only(*, backend_id: UUID, from_at: datetime, to_at: datetime, now: datetime) -> int:
    """Open a discrepancy for each attempt that completed on the backend in the period and of which there is
    no record; how many are new. For a period of which the backend's feeds have said all. As data plane."""
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute("SELECT quotas_open_gateway_only(%s, %s, %s, %s)", [backend_id, from_at, to_at, now])
        return int(cursor.fetchone()[0])


def _match_all_again(backend_id: UUID, since: datetime) -> int:
    again = 0
    for _ in range(MAX_BATCHES):
        found = _match_again(backend_id, since)
        again += found
        if found < AGAIN_A_BATCH:
            break
    return again


def _match_again(backend_id: UUID, since: datetime) -> int:
    with transaction.atomic(using=scope_alias()), connections[scope_alias()].cursor() as cursor:
        cursor.execute("SELECT quotas_match_feed_again(%s, %s, %s)", [backend_id, since, AGAIN_A_BATCH])
        return int(cursor.fetchone()[0])
