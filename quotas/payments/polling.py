"""Asking Stripe what happened, for what its webhooks did not bring."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import stripe
from django.db import connections

from quotas.models import EventSource, EventState, PollCursor
from quotas.payments import sending
from quotas.payments.client import stripe_client, takes_cards
from quotas.payments.fulfilment import apply_top_up
from quotas.payments.handlers import find_handler
from quotas.payments.inbox import EventRefused, process_event, store_event
from tenants.scope import role_scope, scope_alias

logger = logging.getLogger(__name__)

EVENTS_CURSOR: Final = "events"
# Events may be listed a little later than they were made.
OVERLAP: Final = timedelta(minutes=10)
# How far a new installation looks back; Stripe keeps events for 30 days.
FIRST_LOOK_BACK: Final = timedelta(days=3)
LONGEST_LOOK_BACK: Final = timedelta(days=30)
# Lists come newest first, so a long time is read in windows, from the oldest: each is done once it is read.
PAGE_ROWS: Final = 100
WINDOW: Final = timedelta(days=1)
BUDGET_S: Final = 100.0


@dataclass(frozen=True, slots=True)
class PollReport:
    """found: events at Stripe that we handle; new: those that no webhook had brought; failed: of the new."""

    found: int = 0
    new: int = 0
    failed: int = 0


def poll_events(*, now: datetime) -> PollReport:
    """Store and process what Stripe has listed since the last time, with an overlap. Opens scopes of its own.

    Does nothing without a key of Stripe. What keeps it from reading is noted with the cursor.
    Errors: quotas.payments.sending.TransactionOpen.
    """
    sending.require_no_transaction()
    if not takes_cards():
        return PollReport()
    with role_scope("operator"):
        cursor = PollCursor.objects.filter(name=EVENTS_CURSOR).first()
    read_to = cursor.read_to if cursor is not None else now - FIRST_LOOK_BACK
    start = max(read_to - OVERLAP, now - LONGEST_LOOK_BACK)
    found, new, error = 0, [], ""
    deadline_s = time.monotonic() + BUDGET_S
    try:
        while time.monotonic() < deadline_s:
            end = start + WINDOW
            is_last = end >= now
            events = _list_events(start, None if is_last else end)
            found += len(events)
            new += _store(events, now)
            newest = max((_created(event) for event in events), default=read_to)
            read_to = max(read_to, newest, now - WINDOW) if is_last else max(read_to, end)
            _note(read_to, now, "")
            if is_last:
                break
            start = end
    except stripe.StripeError as failure:
        error = sending.error_text(failure)
        logger.warning("quotas.payments.not_polled", extra={"error": error})
        _note(read_to, now, error)
    failed = 0
    for event_id in new:
        failed += process_event(event_id=event_id, now=now) == EventState.FAILED
        if time.monotonic() > deadline_s:
            # They are stored: whoever processes what is due goes on with them.
            break
    return PollReport(found, len(new), failed)


def poll_open_top_ups(*, now: datetime, limit: int = 50) -> int:
    """Read what open top-ups have become, the younger the more often; how many were read.

    This credits within seconds what no webhook told. Does nothing without a key of Stripe.
    Errors: quotas.payments.sending.TransactionOpen.
    """
    sending.require_no_transaction()
    if not takes_cards():
        return 0
    claimed = _claim_open_top_ups(now, limit)
    deadline_s = time.monotonic() + BUDGET_S
    for count, top_up_id in enumerate(claimed):
        if count and time.monotonic() > deadline_s:
            break
        try:
            apply_top_up(top_up_id=top_up_id, now=now)
        except stripe.APIConnectionError:
            logger.warning("quotas.payments.not_polled", extra={"error": sending.UNREACHABLE})
            break
        except Exception:
            # One that cannot be read must not hide those behind it; its turn comes again.
            logger.exception("quotas.payments.top_up_not_read", extra={"top_up": str(top_up_id)})
    return len(claimed)


def _claim_open_top_ups(now: datetime, limit: int) -> list[UUID]:
    """Those whose turn it is: after a tenth of their age, but not before 4 seconds and within 10 minutes."""
    with role_scope("operator"), connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            "UPDATE quotas_topup SET checked_at = %(now)s WHERE id IN ("
            " SELECT id FROM quotas_topup WHERE state IN ('OPEN', 'PROCESSING', 'ACTION_NEEDED')"
            " AND coalesce(session_id, payment_intent_id) IS NOT NULL"
            " AND coalesce(checked_at, created_at) <= %(now)s - least(interval '10 minutes',"
            " greatest(interval '4 seconds', (%(now)s - created_at) / 10))"
            " ORDER BY coalesce(checked_at, created_at) LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED)"
            " RETURNING id",
            {"now": now, "limit": limit},
        )
        return [row[0] for row in cursor.fetchall()]


def _list_events(start: datetime, end: datetime | None) -> list[dict[str, Any]]:
    """Events of [start, end) that something handles, oldest first."""
    created: Any = {"gte": int(start.timestamp()), **({"lt": int(end.timestamp())} if end else {})}
    listed = stripe_client().v1.events.list({"created": created, "limit": PAGE_ROWS})
    events = [event.to_dict(for_json=True) for event in listed.auto_paging_iter()]
    return sorted(
        (event for event in events if find_handler(event["type"]) is not None),
        key=lambda event: (event["created"], event["id"]),
    )


def _store(events: list[dict[str, Any]], now: datetime) -> list[str]:
    """The ids of those that were not known yet."""
    new = []
    with role_scope("operator"):
        for event in events:
            try:
                if store_event(event=event, source=EventSource.POLLER, now=now):
                    new.append(event["id"])
            except EventRefused as refused:
                logger.warning("quotas.payments.event_refused", extra={"reason": str(refused)})
    return new


def _created(event: dict[str, Any]) -> datetime:
    return datetime.fromtimestamp(event["created"], UTC)


def _note(read_to: datetime, now: datetime, error: str) -> None:
    with role_scope("operator"):
        PollCursor.objects.update_or_create(
            name=EVENTS_CURSOR, defaults={"read_to": read_to, "polled_at": now, "error": error[:500]}
        )
