"""Celery tasks: each is one domain call, safe to run twice, and takes no payload."""

import logging
from typing import Any

from celery import shared_task
from django.conf import settings

from quotas import audit, operations
from quotas.reconciliation import operations as reconciliation

logger = logging.getLogger(__name__)


@shared_task(queue="ledger", soft_time_limit=100, time_limit=120)  # type: ignore[untyped-decorator]
def sweep_expired_holds(**_: Any) -> None:
    report = operations.sweep_expired_holds(lease_s=settings.TUNING["SLUICE_LEASE_S"])
    if report.found:
        logger.warning(
            "quotas.holds.swept",
            extra={"found": report.found, "resolved": report.resolved, "left": report.left},
        )


@shared_task(queue="default", soft_time_limit=50, time_limit=60)  # type: ignore[untyped-decorator]
def make_partitions(**_: Any) -> None:
    made = operations.make_partitions()
    if made:
        logger.info("quotas.partitions.made", extra={"count": made})


@shared_task(queue="default", soft_time_limit=280, time_limit=300)  # type: ignore[untyped-decorator]
def run_audit(**_: Any) -> None:
    for result in audit.run():
        if not result.holds:
            logger.error(
                "quotas.audit.violated", extra={"invariant": result.code, "count": result.violations}
            )


@shared_task(queue="default", soft_time_limit=100, time_limit=120)  # type: ignore[untyped-decorator]
def sample_counters(**_: Any) -> None:
    report = reconciliation.sample_counters(secrets=settings.SECRET_STORE)
    if report.failed:
        logger.warning("quotas.counters.not_read", extra={"failed": report.failed, "read": report.read})


@shared_task(queue="default", soft_time_limit=100, time_limit=120)  # type: ignore[untyped-decorator]
def thin_counter_samples(**_: Any) -> None:
    gone = reconciliation.thin_counter_samples()
    if gone:
        logger.info("quotas.counters.thinned", extra={"count": gone})
