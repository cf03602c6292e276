"""Celery tasks: each is one domain call, safe to run twice, and takes no payload."""

import logging
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from celery import shared_task
from django.conf import settings

from models_catalog.pricing import notices
from quotas import audit, operations
from quotas.bundles import operations as bundles
from quotas.business import operations as allocation
from quotas.business import queries as business
from quotas.limits import alerts, promotion
from quotas.payments import (
    inbox,
    invoice_adapter,
    polling,
    postpaid,
    receivables,
    recharge,
    sending,
    stripe_books,
)
from quotas.reconciliation import notices as corrections
from quotas.reconciliation import operations as reconciliation
from quotas.reconciliation.corrections import post_due_corrections
from quotas.reconciliation.ingest import folders
from quotas.reconciliation.matching import match_again
from quotas.reconciliation.policy import correction_policy
from quotas.reconciliation.windows import operations as windows
from quotas.replay import operations as replays
from tenants import queries as tenant_queries
from tenants.scope import role_scope

logger = logging.getLogger(__name__)

# Longer than most calls last and than most workers are away.
ALERTS_LOOK_BACK: Final = timedelta(hours=2)
# Of one feed at a time, so that one with a backlog keeps the others waiting no longer than this.
FEED_SLICE_S: Final = 20.0
FEEDS_S: Final = 200.0
CORRECTIONS_A_RUN: Final = 20_000


@shared_task(queue="ledger", soft_time_limit=100, time_limit=120)  # type: ignore[untyped-decorator]
def sweep_expired_holds(**_: Any) -> None:
    report = operations.sweep_expired_holds(lease_s=settings.TUNING["SLUICE_LEASE_S"])
    if report.found:
        logger.warning(
            "quotas.holds.swept",
            extra={"found": report.found, "resolved": report.resolved, "left": report.left},
        )


@shared_task(queue="ledger", soft_time_limit=100, time_limit=120)  # type: ignore[untyped-decorator]
def expire_credit(**_: Any) -> None:
    gone = operations.expire_credit(now=_database_time())
    if gone:
        logger.info("quotas.credit.expired", extra={"organizations": gone})


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


# Feeds have a queue of their own: a week's backlog keeps neither holds nor mails waiting.
@shared_task(queue="reconciliation", soft_time_limit=240, time_limit=270)  # type: ignore[untyped-decorator]
def tail_feeds(**_: Any) -> None:
    report = folders.tail_feeds(slice_s=FEED_SLICE_S, total_s=FEEDS_S)
    if report.taken.quarantined or report.failed:
        logger.warning(
            "quotas.feeds.not_read", extra={"quarantined": report.taken.quarantined, "failed": report.failed}
        )
    if report.taken.inserted:
        logger.info("quotas.feeds.read", extra={"records": report.taken.inserted, "left": report.left})
    if report.taken.mismatched:
        match_feeds.delay()


@shared_task(queue="reconciliation", soft_time_limit=240, time_limit=270)  # type: ignore[untyped-decorator]
def match_feeds(**_: Any) -> None:
    """What came early or was settled late is judged anew, and what is due is corrected."""
    now = _database_time()
    again = match_again(now=now, policy=correction_policy())
    report = post_due_corrections(now=now, limit=CORRECTIONS_A_RUN)
    if again or report.calls:
        logger.info(
            "quotas.feeds.matched",
            extra={
                "again": again,
                "corrected": report.corrected,
                "explained": report.explained,
                "waiting": report.waiting,
                "left": report.left,
            },
        )


@shared_task(queue="reconciliation", soft_time_limit=240, time_limit=270)  # type: ignore[untyped-decorator]
def reconcile_windows(**_: Any) -> None:
    """Control totals of the counters, and closing of what the feeds have said all of."""
    report = windows.reconcile_windows(now=_database_time())
    if report.suspense_tokens:
        logger.warning(
            "quotas.windows.suspense", extra={"closed": report.closed, "tokens": report.suspense_tokens}
        )
    elif report.closed:
        logger.info("quotas.windows.closed", extra={"closed": report.closed})


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


@shared_task(queue="default", soft_time_limit=100, time_limit=120)  # type: ignore[untyped-decorator]
def tell_corrections(**_: Any) -> None:
    with role_scope("operator"):
        corrections.tell_corrections(now=tenant_queries.database_time())


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


# A million calls take a minute or two where nothing else runs.
@shared_task(queue="default", soft_time_limit=840, time_limit=870)  # type: ignore[untyped-decorator]
def make_bill_bundle(bundle_id: str, **_: Any) -> None:
    bundles.run_bundle(
        bundle_id=UUID(bundle_id),
        secrets=settings.SECRET_STORE,
        issuer=settings.PORTAL_URL,
        grace=timedelta(seconds=settings.TUNING["SLUICE_INVOICE_GRACE_S"]),
        now=_database_time(),
    )


@shared_task(queue="default", soft_time_limit=50, time_limit=60)  # type: ignore[untyped-decorator]
def sweep_bill_bundles(**_: Any) -> None:
    kept = timedelta(days=settings.TUNING["SLUICE_BUNDLE_DAYS"])
    with role_scope("operator"):
        for bundle_id in bundles.sweep_bundles(now=tenant_queries.database_time(), kept=kept):
            bundles.wake(bundle_id=bundle_id)


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


# Calls to Stripe may take long: they have a queue of their own, so that neither holds nor mails wait.
@shared_task(queue="payments", soft_time_limit=200, time_limit=230)  # type: ignore[untyped-decorator]
def process_stripe_event(event_id: str, **_: Any) -> None:
    inbox.process_event(event_id=event_id, now=_database_time())


@shared_task(queue="payments", soft_time_limit=200, time_limit=230)  # type: ignore[untyped-decorator]
def process_stripe_events(**_: Any) -> None:
    report = inbox.process_due_events(now=_database_time())
    if report.failed:
        logger.warning(
            "quotas.payments.events_left", extra={"failed": report.failed, "processed": report.done}
        )


@shared_task(queue="payments", soft_time_limit=200, time_limit=230)  # type: ignore[untyped-decorator]
def poll_stripe_events(**_: Any) -> None:
    report = polling.poll_events(now=_database_time())
    if report.new:
        logger.warning("quotas.payments.events_found", extra={"count": report.new, "failed": report.failed})


@shared_task(queue="payments", soft_time_limit=200, time_limit=230)  # type: ignore[untyped-decorator]
def poll_open_top_ups(**_: Any) -> None:
    polling.poll_open_top_ups(now=_database_time())


@shared_task(queue="payments", soft_time_limit=200, time_limit=230)  # type: ignore[untyped-decorator]
def start_recharges(**_: Any) -> None:
    report = recharge.start_due_recharges(now=_database_time())
    if report.started:
        logger.info("quotas.payments.recharged", extra={"started": report.started, "paid": report.paid})


@shared_task(queue="payments", soft_time_limit=200, time_limit=230)  # type: ignore[untyped-decorator]
def sweep_stripe_operations(**_: Any) -> None:
    report = sending.sweep_operations(now=_database_time())
    if report.sent:
        logger.info("quotas.payments.operations_sent", extra={"sent": report.sent, "left": report.left})


@shared_task(queue="payments", soft_time_limit=200, time_limit=230)  # type: ignore[untyped-decorator]
def read_stripe_books(**_: Any) -> None:
    report = stripe_books.pull_balance_transactions(now=_database_time())
    if not report.is_complete:
        logger.info("quotas.payments.books_behind", extra={"read": report.read})


@shared_task(queue="payments", soft_time_limit=200, time_limit=230)  # type: ignore[untyped-decorator]
def match_stripe_books(**_: Any) -> None:
    for day in stripe_books.match_books(now=_database_time()):
        logger.error(
            "quotas.payments.books_differ",
            extra={"day": str(day.day), "currency": day.currency, "difference_nanos": day.difference_nanos},
        )


# The usage of a month is read call by call.
@shared_task(queue="payments", soft_time_limit=840, time_limit=870)  # type: ignore[untyped-decorator]
def draw_up_invoices(**_: Any) -> None:
    report = postpaid.draw_up_invoices(now=_database_time())
    if report.drawn or report.left:
        logger.info(
            "quotas.payments.invoices_drawn",
            extra={"drawn": report.drawn, "opened": report.opened, "left": report.left},
        )


@shared_task(queue="payments", soft_time_limit=200, time_limit=230)  # type: ignore[untyped-decorator]
def remind_overdue(**_: Any) -> None:
    report = postpaid.remind_overdue(now=_database_time())
    if report.reminded or report.exhausted:
        logger.info(
            "quotas.payments.invoices_reminded",
            extra={"reminded": report.reminded, "exhausted": report.exhausted},
        )


@shared_task(queue="default", soft_time_limit=100, time_limit=120)  # type: ignore[untyped-decorator]
def review_receivables(**_: Any) -> None:
    report = receivables.review_receivables(now=_database_time())
    if report.suspended or report.resumed:
        logger.info(
            "quotas.payments.receivables_reviewed",
            extra={"suspended": report.suspended, "resumed": report.resumed},
        )


@shared_task(queue="default", soft_time_limit=240, time_limit=270)  # type: ignore[untyped-decorator]
def issue_invoices(**_: Any) -> None:
    """What an installation's own program makes; nothing without one."""
    now = _database_time()
    with role_scope("operator"):
        report = invoice_adapter.issue_by_adapter(now=now)
    if report.issued or report.failed:
        logger.info(
            "quotas.payments.invoices_issued", extra={"issued": report.issued, "failed": report.failed}
        )


def _database_time() -> datetime:
    with role_scope("operator"):
        return tenant_queries.database_time()
