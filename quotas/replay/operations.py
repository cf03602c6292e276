"""Asking for a replay, and running it: a day a transaction, so that it can stop and go on anywhere."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from time import monotonic as _monotonic_s
from typing import Final
from uuid import UUID

import psycopg
from celery import current_app
from django.db import OperationalError, connections, transaction
from django.db.models.functions import Now
from kombu.exceptions import OperationalError as BrokerError

from models_catalog.models import PriceVersion
from models_catalog.pricing.content import gaps
from models_catalog.pricing.drafts import locked_draft, price_id
from models_catalog.pricing.publish import IncompleteDraft
from models_catalog.pricing.storage import read_content
from quotas.models import OPEN_REPLAY_STATES, PriceReplay, ReplayState
from quotas.replay.pricing import price_day
from quotas.replay.result import Found
from tenants.operations import audit
from tenants.operations.audit import Actor
from tenants.operations.outbox import WAKE_OPTIONS
from tenants.scope import scope_alias

logger = logging.getLogger(__name__)

REPLAYED_DAYS: Final = 30
DAY: Final = timedelta(days=1)
# Who has not got further for so long has died.
STALLED: Final = timedelta(minutes=15)
GIVE_UP: Final = timedelta(hours=24)
KEPT_REPLAYS: Final = 5

CostOf = Callable[[UUID, datetime, datetime, str], int | None]
"""What a model cost in [from, to), in nano-units of a currency; None when nobody knows."""


def request_replay(*, version_id: UUID, actor: Actor, now: datetime) -> UUID:
    """Ask for the calls of the last 30 days priced with a draft; the id of the replay, which a task runs.

    Asking again while one of the same content is under way gives that one. As operator. Errors:
    pricing.drafts.DraftNotFound, pricing.publish.IncompleteDraft.
    """
    with transaction.atomic(using=scope_alias()):
        draft = locked_draft(version_id)
        content = read_content(draft)
        missing = gaps(content.lines)
        if missing:
            raise IncompleteDraft(missing)
        replays = PriceReplay.objects.filter(version_id=version_id)
        running = replays.filter(state__in=OPEN_REPLAY_STATES).first()
        if running is not None and running.content_sha256 == content.sha256:
            return running.id
        replays.filter(state__in=OPEN_REPLAY_STATES).update(state=ReplayState.OUTDATED, finished_at=now)
        kept = list(replays.order_by("-id").values_list("id", flat=True)[: KEPT_REPLAYS - 1])
        replays.exclude(id__in=kept).delete()
        replay = PriceReplay.objects.create(
            version_id=version_id,
            asked_by_id=actor.user_id,
            content_sha256=content.sha256,
            from_at=now - REPLAYED_DAYS * DAY,
            to_at=now,
            priced_at=now,
            days=REPLAYED_DAYS,
            created_at=now,
            touched_at=now,
        )
        audit.record(
            actor=actor,
            action="price.replay",
            tenant_id=draft.tenant_id,
            target=price_id(version_id),
            after={
                "content_sha256": content.sha256,
                "from": replay.from_at.isoformat(),
                "to": now.isoformat(),
            },
            is_internal=True,
        )
        transaction.on_commit(lambda: wake(replay_id=replay.id), using=scope_alias(), robust=True)
    return replay.id


def run_replay(
    *, replay_id: UUID, now: datetime, budget_s: float = 200.0, cost_of: CostOf | None = None
) -> bool:
    """Run a replay day by day until it is finished or the budget is spent; whether it is finished.

    Each day commits by itself with what was found so far. Safe to run twice and beside itself: whoever comes
    second finds the day done. cost_of gives the model's cost for the margin. As operator, outside every
    transaction.
    """
    began_s = _monotonic_s()
    while _monotonic_s() - began_s < budget_s:
        try:
            if not _next_day(replay_id, now, cost_of):
                return True
        except OperationalError as error:
            if not isinstance(error.__cause__, psycopg.errors.SerializationFailure):
                raise
    return False


def sweep_replays(*, now: datetime) -> list[UUID]:
    """The replays that nobody gets on with: their message was lost, or their worker died. Those that have
    been under way for a day are given up. As operator."""
    still = PriceReplay.objects.filter(state__in=OPEN_REPLAY_STATES)
    still.filter(created_at__lt=now - GIVE_UP).update(
        state=ReplayState.FAILED, finished_at=now, error="not finished within a day"
    )
    return list(still.filter(touched_at__lt=now - STALLED).values_list("id", flat=True))


def wake(*, replay_id: UUID) -> None:
    """Tell the worker; should the message get lost, the sweep finds the row."""
    if not current_app.conf.broker_url:
        return
    try:
        with current_app.connection_for_write(transport_options=WAKE_OPTIONS) as connection:
            current_app.send_task(
                "quotas.tasks.run_price_replay",
                args=[str(replay_id)],
                queue="default",
                retry=False,
                connection=connection,
            )
    except BrokerError:
        logger.warning("quotas.replay.worker_not_woken")


def _next_day(replay_id: UUID, now: datetime, cost_of: CostOf | None) -> bool:
    """Price one more day; whether there is more to do. All of it is of one snapshot."""
    alias = scope_alias()
    with transaction.atomic(using=alias):
        with connections[alias].cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        replay = PriceReplay.objects.filter(id=replay_id, state__in=OPEN_REPLAY_STATES).first()
        if replay is None:
            return False
        mine = PriceReplay.objects.filter(
            id=replay_id, state__in=OPEN_REPLAY_STATES, days_done=replay.days_done
        )
        version = PriceVersion.objects.get(id=replay.version_id)
        if read_content(version).sha256 != replay.content_sha256:
            mine.update(state=ReplayState.OUTDATED, finished_at=Now())
            return False
        found = Found.of_json(replay.result)
        days_done = replay.days_done
        if days_done < replay.days:
            start = replay.from_at + days_done * DAY
            day, all_charged_nanos = price_day(
                draft=version, from_at=start, to_at=min(start + DAY, replay.to_at), priced_at=replay.priced_at
            )
            found, days_done = found.with_day(day, all_charged_nanos), days_done + 1
        is_done = days_done >= replay.days
        if is_done and cost_of is not None:
            cost_nanos = cost_of(version.model_id, replay.from_at, replay.to_at, version.currency)
            found = Found(found.tenants, found.all_charged_nanos, cost_nanos)
        mine.update(
            state=ReplayState.DONE if is_done else ReplayState.RUNNING,
            days_done=days_done,
            result=found.as_json(),
            touched_at=Now(),
            finished_at=Now() if is_done else None,
        )
    return not is_done
