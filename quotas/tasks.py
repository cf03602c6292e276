"""Celery tasks: each is one domain call, safe to run twice, and takes no payload."""

import logging
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from celery import shared_task
from django.conf import settings

from models_catalog.pricing import notices
from quotas import audit, operations
from quotas.business import operations as allocation
from quotas.business import queries as business
from quotas.limits import alerts, promotion
from quotas.reconciliation import operations as reconciliation
from quotas.replay import operations as replays
from tenants import queries as tenant_queries
from tenants.scope import role_scope

logger = logging.getLogger(__name__)

# Longer than most calls last and than most workers are away.
ALERTS_LOOK_BACK: Final = timedelta(hours=2)


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


@shared_task(queue="default", soft_time_limit=100, time_limit=120)  # type: ignore[untyped-decorator]
def raise_budget_alerts(**_: Any) -> None:
    with role_scope("operator"):
        now = tenant_queries.database_time()
        _report_alerts(alerts.raise_budget_alerts(now=now, since=now - ALERTS_LOOK_BACK))


@shared_task(queue="default", soft_time_limit=280, time_limit=300)  # type: ignore[untyped-decorator]
def raise_all_budget_alerts(**_: Any) -> None:
    """What the frequent task did not see: it was not there for hours, or usage came late."""
    with role_scope("operator"):
        _report_alerts(alerts.raise_budget_alerts(now=tenant_queries.database_time()))


@shared_task(queue="default", soft_time_limit=280, time_limit=300)  # type: ignore[untyped-decorator]
def promote_tiers(**_: Any) -> None:
    with role_scope("operator"):
        promoted = promotion.promote_tiers(now=tenant_queries.database_time())
    if promoted:
        logger.info("quotas.tiers.promoted", extra={"count": promoted})


def _report_alerts(raised: int) -> None:
    if raised:
        logger.info("quotas.budgets.alerts_raised", extra={"count": raised})


def _model_cost(model_id: UUID, from_: datetime, to: datetime, currency: str) -> int | None:
    return business.model_cost(model_id=model_id, from_=from_, to=to, currency=currency)


# A replay is longer than a task may be: each run goes on where the last one stopped.
@shared_task(queue="default", soft_time_limit=840, time_limit=870)  # type: ignore[untyped-decorator]
def run_price_replay(replay_id: str, **_: Any) -> None:
    with role_scope("operator"):
        is_finished = replays.run_replay(
            replay_id=UUID(replay_id), now=tenant_queries.database_time(), cost_of=_model_cost
        )
    if not is_finished:
        run_price_replay.delay(replay_id)


@shared_task(queue="default", soft_time_limit=50, time_limit=60)  # type: ignore[untyped-decorator]
def sweep_price_replays(**_: Any) -> None:
    with role_scope("operator"):
        for replay_id in replays.sweep_replays(now=tenant_queries.database_time()):
            replays.wake(replay_id=replay_id)


@shared_task(queue="default", soft_time_limit=100, time_limit=120)  # type: ignore[untyped-decorator]
def mail_price_notices(**_: Any) -> None:
    with role_scope("operator"):
        report = notices.mail_notices(
            now=tenant_queries.database_time(), limit=200, portal_url=settings.PORTAL_URL
        )
    if report.put_off:
        logger.warning("quotas.prices.notices_put_off", extra={"count": report.put_off})


@shared_task(queue="default", soft_time_limit=240, time_limit=300)  # type: ignore[untyped-decorator]
def allocate_hours(**_: Any) -> None:
    with role_scope("operator"):
        report = allocation.allocate_hours(
            now=tenant_queries.database_time(), grace_s=settings.TUNING["SLUICE_ALLOCATION_GRACE_S"]
        )
    if report.failed:
        logger.warning(
            "quotas.business.hours_left", extra={"failed": report.failed, "allocated": report.allocated}
        )
