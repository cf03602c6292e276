"""The inbox of what Stripe tells: stored once, processed from the row.

An event is a hint about an object. Whatever it says is not believed: the object is read again and its state
is applied, so that events may be lost, come twice, late and in any order.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import stripe
from celery import current_app
from django.db import DataError, connections, transaction
from django.db.models import F
from kombu.exceptions import OperationalError as BrokerError

from quotas.models import EventSource, EventState, StripeEvent
from quotas.payments.client import StripeConfig, stripe_config, takes_cards
from quotas.payments.handlers import find_handler
from quotas.payments.sending import require_no_transaction
from tenants.operations import audit
from tenants.operations.audit import Actor
from tenants.operations.outbox import WAKE_OPTIONS
from tenants.scope import role_scope, scope_alias

logger = logging.getLogger(__name__)

MAX_EVENT_BYTES: Final = 2**20
SIGNATURE_TOLERANCE: Final = timedelta(seconds=300)
# Longer than a handler may take; afterwards whoever claimed the event has died.
CLAIM_LEASE: Final = timedelta(minutes=4)
FIRST_RETRY: Final = timedelta(seconds=15)
LONGEST_RETRY: Final = timedelta(hours=6)
# About four days; then somebody has to look, and can have it processed again.
MAX_ATTEMPTS: Final = 30
MAX_FAILURES_IN_A_ROW: Final = 3
# What a run takes at most, without the event that it is at; the next run finds the rest.
RUN_BUDGET_S: Final = 100.0
MAX_ERROR_LENGTH: Final = 500


class EventRefused(ValueError):
    """What was posted is not an event of Stripe for this installation. The message says why, for logs."""


class EventNotFound(LookupError):
    """There is no such event in the inbox."""


@dataclass(frozen=True, slots=True)
class Received:
    """is_new: whether it is stored now, and not before."""

    event_id: str
    is_new: bool


def receive_event(*, body: bytes, signature: str, now: datetime) -> Received:
    """Verify what was posted, store it once and wake the worker. As operator, outside of transactions.

    body: as it came; signature: the header. Errors: EventRefused (nothing was changed),
    quotas.payments.client.PaymentsNotConfigured.
    """
    config = stripe_config()
    if len(body) > MAX_EVENT_BYTES:
        raise EventRefused("too large")
    _verify(body, signature, config.webhook_secrets, now)
    event = _parsed(body)
    is_new = store_event(event=event, source=EventSource.WEBHOOK, now=now)
    if is_new:
        wake(event_id=event["id"])
    return Received(event["id"], is_new)


def store_event(*, event: dict[str, Any], source: EventSource, now: datetime) -> bool:
    """Keep an event, once however often it comes; whether it is new. As operator. Errors: EventRefused for
    one of another account, of the other mode, or of another form than Stripe's events have."""
    row = _row(event, stripe_config())
    try:
        with connections[scope_alias()].cursor() as cursor:
            cursor.execute(
                "INSERT INTO quotas_stripeevent (id, type, object_id, account, api_version, payload, source,"
                " created_at, received_at, state, attempts, next_attempt_at, error)"
                " VALUES (%s, %s, %s, %s, %s, %s::jsonb, %s, %s, %s, %s, 0, %s, '') ON CONFLICT DO NOTHING",
                (
                    *(row.id, row.type, row.object_id, row.account, row.api_version, json.dumps(event)),
                    *(source.value, row.created_at, now, EventState.RECEIVED.value, now),
                ),
            )
            return bool(cursor.rowcount == 1)
    except (DataError, ValueError):
        # Texts that PostgreSQL cannot hold, such as NUL, and which no driver spells.
        raise EventRefused("cannot be kept") from None


def wake(*, event_id: str) -> None:
    """Tell the worker; should the message get lost, the sweeper finds the row."""
    if not current_app.conf.broker_url:
        return
    try:
        with current_app.connection_for_write(transport_options=WAKE_OPTIONS) as connection:
            current_app.send_task(
                "quotas.tasks.process_stripe_event",
                args=[event_id],
                queue="payments",
                retry=False,
                connection=connection,
            )
    except BrokerError:
        logger.warning("quotas.payments.worker_not_woken")


def process_event(*, event_id: str, now: datetime) -> EventState | None:
    """Apply what an event is about, if it is due and nobody else is at it; None when it is not.

    The state it has then. What goes wrong is kept with the event, which is tried again. Opens scopes of its
    own. Errors: quotas.payments.sending.TransactionOpen.
    """
    require_no_transaction()
    if not takes_cards():
        return None
    with role_scope("operator"):
        due = StripeEvent.objects.filter(
            id=event_id,
            state__in=[EventState.RECEIVED, EventState.FAILED],
            attempts__lt=MAX_ATTEMPTS,
            next_attempt_at__lte=now,
        )
        if not due.update(attempts=F("attempts") + 1, next_attempt_at=now + CLAIM_LEASE):
            return None
        event = StripeEvent.objects.get(id=event_id)
    handler = find_handler(event.type)
    try:
        # What is about nothing that can be read, such as an invoice that is yet to come, has no id.
        is_ours = (
            handler is not None and bool(event.object_id) and handler(object_id=event.object_id, now=now)
        )
    except Exception as error:
        logger.exception("quotas.payments.event_failed", extra={"event": event_id, "type": event.type})
        return _note_failure(event, error, now)
    state = EventState.PROCESSED if is_ours else EventState.IGNORED
    with role_scope("operator"):
        # One that is to be processed again since then stays so.
        StripeEvent.objects.filter(id=event_id, attempts=event.attempts).update(
            state=state, processed_at=now, error=""
        )
    return state


@dataclass(frozen=True, slots=True)
class ProcessedEvents:
    done: int
    failed: int


def process_due_events(*, now: datetime, limit: int = 200) -> ProcessedEvents:
    """Process what no message has had processed, and what failed and is due again. Stops for this time when
    several fail in a row, as they do while Stripe cannot be reached."""
    done = failed = failed_in_a_row = 0
    deadline_s = time.monotonic() + RUN_BUDGET_S
    for event_id in due_events(now=now, limit=limit):
        state = process_event(event_id=event_id, now=now)
        is_failed = state == EventState.FAILED
        failed_in_a_row = failed_in_a_row + 1 if is_failed else 0
        failed += is_failed
        done += state in (EventState.PROCESSED, EventState.IGNORED)
        if failed_in_a_row >= MAX_FAILURES_IN_A_ROW or time.monotonic() > deadline_s:
            break
    return ProcessedEvents(done, failed)


def due_events(*, now: datetime, limit: int = 200) -> list[str]:
    """Ids of events that are to be processed now, in the order in which they happened."""
    with role_scope("operator"):
        due = StripeEvent.objects.filter(
            state__in=[EventState.RECEIVED, EventState.FAILED],
            attempts__lt=MAX_ATTEMPTS,
            next_attempt_at__lte=now,
        )
        return list(due.order_by("created_at", "id").values_list("id", flat=True)[:limit])


def replay_event(*, event_id: str, actor: Actor, reason: str, now: datetime) -> None:
    """Have an event processed again, whatever became of it before. It changes nothing that is right already.

    The worker is told after the commit. As operator. Errors: EventNotFound, ReasonMissing (of
    tenants.operations.audit).
    """
    reason = audit.checked_reason(reason)
    alias = scope_alias()
    with transaction.atomic(using=alias):
        event = StripeEvent.objects.select_for_update(no_key=True).filter(id=event_id).first()
        if event is None:
            raise EventNotFound("there is no such event")
        before = {"state": str(event.state), "attempts": event.attempts}
        event.state, event.attempts, event.next_attempt_at = EventState.RECEIVED, 0, now
        event.save(update_fields=["state", "attempts", "next_attempt_at"])
        audit.record(
            actor=actor,
            action="stripe_event.replay",
            target=event.id,
            before=before,
            after={"state": str(event.state), "type": event.type, "object": event.object_id},
            reason=reason,
            is_internal=True,
        )
        transaction.on_commit(lambda: wake(event_id=event_id), using=alias)


def _verify(body: bytes, signature: str, secrets: tuple[str, ...], now: datetime) -> None:
    """Errors: EventRefused. Without a secret nothing is an event of Stripe."""
    # Signatures of other signs than ASCII cannot even be compared.
    if not signature or not signature.isascii():
        raise EventRefused("unsigned")
    for secret in secrets:
        try:
            stripe.WebhookSignature.verify_header(body, signature, secret)
        except (stripe.SignatureVerificationError, UnicodeDecodeError):
            continue
        # What is signed holds one moment, and the age is told by the clock of the caller.
        signed_at_s = next(int(part.split("=")[1]) for part in signature.split(",") if part.startswith("t="))
        if signed_at_s < (now - SIGNATURE_TOLERANCE).timestamp():
            raise EventRefused("stale")
        return
    raise EventRefused("no secret of ours signed it")


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        event = json.loads(body)
    except ValueError:
        raise EventRefused("no JSON") from None
    if not isinstance(event, dict):
        raise EventRefused("no event")
    return event


def _row(event: dict[str, Any], config: StripeConfig) -> StripeEvent:
    """Errors: EventRefused."""
    event_id, kind, created = event.get("id"), event.get("type"), event.get("created")
    data = event.get("data")
    about = data.get("object") if isinstance(data, dict) else None
    if event.get("object") != "event" or not isinstance(created, int) or not isinstance(about, dict):
        raise EventRefused("no event")
    if not isinstance(event_id, str) or not isinstance(kind, str):
        raise EventRefused("no event")
    if event.get("livemode") is not config.is_live:
        raise EventRefused("of the other mode")
    account = event.get("account") or ""
    # Only what happens to accounts that are connected to ours names an account at all.
    if account and account != config.account:
        raise EventRefused("of another account")
    row = StripeEvent(
        id=event_id,
        type=kind,
        object_id=str(about.get("id") or ""),
        account=account,
        api_version=str(event.get("api_version") or ""),
        created_at=datetime.fromtimestamp(created, UTC),
    )
    if max(len(row.id), len(row.object_id), len(row.account)) > 255 or len(row.type) > 100:
        raise EventRefused("no event")
    return row


def _note_failure(event: StripeEvent, error: Exception, now: datetime) -> EventState:
    pause = min(LONGEST_RETRY, FIRST_RETRY * 2 ** min(event.attempts - 1, 20))
    with role_scope("operator"):
        StripeEvent.objects.filter(
            id=event.id, state__in=[EventState.RECEIVED, EventState.FAILED], attempts=event.attempts
        ).update(
            state=EventState.FAILED,
            next_attempt_at=now + pause,
            error=f"{type(error).__name__}: {error}"[:MAX_ERROR_LENGTH],
        )
    return EventState.FAILED
