"""Sending what changes something at Stripe: a row is committed first, its id is the idempotency key.

An operation ends once: DONE, REFUSED (Stripe said no, for good) or ABANDONED. While its outcome is unknown it
stays PENDING, and the sweeper sends it again with the same key. A key that is too old for that is not used
again: what it made is looked up by its metadata instead.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol
from uuid import UUID

import stripe
from django.conf import settings
from django.db import connections, transaction
from django.db.models import F

from portal.kit.ids import PREFIXES, public_id, uuid7
from quotas.models import OperationKind, OperationState, StripeOperation
from quotas.payments.client import stripe_client, takes_cards
from tenants.scope import role_scope, scope_alias

logger = logging.getLogger(__name__)

# Stripe forgets a key 24 hours after its first use at the earliest.
KEY_LIFETIME: Final = timedelta(hours=23)
# An error that Stripe kept as the answer to a key is repeated as long as the key lives. What it made by then
# is found; where nothing is found for so long after it, nothing comes of it any more.
KEPT_ERROR_SETTLES: Final = timedelta(minutes=10)
# Whoever commits an operation sends it at once; the sweeper waits that long before it does.
SENDERS_TURN: Final = timedelta(seconds=30)
FIRST_RETRY: Final = timedelta(seconds=15)
LONGEST_RETRY: Final = timedelta(hours=1)
SWEEP_BUDGET_S: Final = 60.0
UNREACHABLE: Final = "unreachable"
# Not a decision about the request: who we are, how often we ask, or what else is under way.
_UNDECIDED_STATUS: Final = frozenset({401, 403, 408, 409, 424, 425, 429})


class TransactionOpen(RuntimeError):
    """A call to Stripe was about to be made inside an open transaction, which would hold its locks."""


class StripeUnavailable(RuntimeError):
    """Stripe gave no answer that decides; what was asked is tried again by itself."""


class StripeRefused(RuntimeError):
    """Stripe refused what was asked, for good. `code` is Stripe's."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text or code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Sent:
    """What is known of an operation. object_id: of what Stripe made; of a payment that was declined, too.

    data: the answer where it came just now; of a refusal its error, of an operation that ended before None.
    error_code: Stripe's, of a decline the bank's; `unreachable` when there was no answer.
    """

    state: OperationState
    object_id: str = ""
    data: dict[str, Any] | None = None
    error_code: str = ""
    error_text: str = ""


class Finisher(Protocol):
    """Carries the end of an operation over to what it was for, in the transaction that ends it."""

    def __call__(self, *, operation: StripeOperation, sent: Sent, now: datetime) -> None: ...


class Call(Protocol):
    """Makes the request; `options` carry the key."""

    def __call__(
        self, client: stripe.StripeClient, operation: StripeOperation, options: Any
    ) -> stripe.StripeObject: ...


Lookup = Callable[[stripe.StripeClient, StripeOperation], stripe.StripeObject | None]
"""Finds what an operation made, by its metadata; None when there is nothing."""

CALLS: Final[dict[OperationKind, Call]] = {}
FINISHERS: Final[dict[OperationKind, Finisher]] = {}
LOOKUPS: Final[dict[OperationKind, Lookup]] = {}


def require_no_transaction() -> None:
    """Errors: TransactionOpen, on whichever connection of this thread one is open."""
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block:
            raise TransactionOpen(f"a transaction is open as {connection.alias}")


def commit_operation(
    *,
    tenant_id: UUID,
    kind: OperationKind,
    subject_id: UUID | None,
    parameters: dict[str, Any],
    now: datetime | None = None,
) -> UUID:
    """Write down what is to be sent, in the caller's open transaction, and have its id.

    parameters: of the request, as JSON; `metadata` gets tenant, operation and installation added. Where
    another one for the same subject is under way or done, that one's id is the answer. now: where the clock
    is not the database's. In the scope of the tenant or as operator.
    """
    alias = scope_alias()
    if not connections[alias].in_atomic_block:
        raise ValueError("an operation is committed with what it is for")
    # Looked for before it is made: the end of one locks it before what it is for, so whoever holds what it
    # is for must not wait for it, as a second row of the same subject would.
    standing: UUID | None = _standing(tenant_id, kind, subject_id).first() if subject_id is not None else None
    if standing is not None:
        return standing
    operation_id = uuid7()
    metadata = {
        "tenant": public_id(PREFIXES["organization"], tenant_id),
        "operation": str(operation_id),
        "installation": settings.PORTAL_URL[:500],
        **parameters.get("metadata", {}),
    }
    operation = StripeOperation(
        id=operation_id,
        tenant_id=tenant_id,
        kind=kind,
        subject_id=subject_id,
        parameters={**parameters, "metadata": metadata},
        **({"created_at": now} if now is not None else {}),
    )
    StripeOperation.objects.bulk_create([operation], ignore_conflicts=True)
    if subject_id is None:
        return operation_id
    found: UUID = _standing(tenant_id, kind, subject_id).get()
    return found


def _standing(tenant_id: UUID, kind: OperationKind, subject_id: UUID) -> Any:
    """The id of what is under way or done for a subject."""
    asked = StripeOperation.objects.filter(kind=kind, subject_id=subject_id, tenant_id=tenant_id)
    ended = (OperationState.REFUSED, OperationState.ABANDONED)
    return asked.exclude(state__in=ended).values_list("id", flat=True)


def send(*, operation_id: UUID, now: datetime) -> Sent:
    """Send an operation and end it, or say how it ended. Two that send it at once change nothing twice.

    Its state stays PENDING while the outcome is unknown. Opens scopes of its own.
    Errors: TransactionOpen, quotas.payments.client.PaymentsNotConfigured, StripeOperation.DoesNotExist.
    """
    require_no_transaction()
    client = stripe_client()
    with role_scope("operator"):
        operation = StripeOperation.objects.get(id=operation_id)
        if operation.state != OperationState.PENDING:
            return _as_ended(operation)
        is_key_old = operation.attempts > 0 and now - operation.created_at >= KEY_LIFETIME
        StripeOperation.objects.filter(id=operation_id, state=OperationState.PENDING).update(
            attempts=F("attempts") + 1, sent_at=now
        )
        sent = _look_up_late(client, operation, now) if is_key_old else _ask(client, operation, now)
        return _end(operation, sent, now)


def require_done(sent: Sent) -> Sent:
    """The same, once it is done. Errors: StripeUnavailable, StripeRefused."""
    if sent.state == OperationState.PENDING:
        raise StripeUnavailable(sent.error_text or "Stripe did not answer")
    if sent.state != OperationState.DONE:
        raise StripeRefused(sent.error_code, sent.error_text)
    return sent


@dataclass(frozen=True, slots=True)
class SweepReport:
    """sent: how many were tried; left: how many of them are still pending."""

    sent: int
    left: int


def sweep_operations(*, now: datetime, limit: int = 100) -> SweepReport:
    """Send what is pending and due: nobody sent it, or its outcome is unknown. Stops for this time when
    Stripe cannot be reached. Does nothing without a key of Stripe."""
    if not takes_cards():
        return SweepReport(0, 0)
    tried = left = 0
    deadline_s = time.monotonic() + SWEEP_BUDGET_S
    for operation_id in _due(now, limit):
        tried += 1
        try:
            sent = send(operation_id=operation_id, now=now)
        except Exception:
            # One that cannot be finished must not stop those behind it; it is tried again later.
            logger.exception("quotas.payments.operation_failed", extra={"operation": str(operation_id)})
            left += 1
            continue
        left += sent.state == OperationState.PENDING
        is_lost = sent.state == OperationState.PENDING and sent.error_code == UNREACHABLE
        if is_lost or time.monotonic() > deadline_s:
            break
    return SweepReport(tried, left)


def _due(now: datetime, limit: int) -> list[UUID]:
    with role_scope("operator"), connections[scope_alias()].cursor() as cursor:
        cursor.execute(
            "SELECT id FROM quotas_stripeoperation WHERE state = 'PENDING' AND created_at <= %s"
            " AND (sent_at IS NULL OR sent_at + least(%s, %s * power(2, least(attempts, 20) - 1)) <= %s)"
            " ORDER BY created_at LIMIT %s",
            [now - SENDERS_TURN, LONGEST_RETRY, FIRST_RETRY, now, limit],  # type: ignore[list-item]
        )
        return [row[0] for row in cursor.fetchall()]


def _as_ended(operation: StripeOperation) -> Sent:
    state = OperationState(operation.state)
    return Sent(state, operation.object_id, None, operation.error_code, operation.error_text)


def _ask(client: stripe.StripeClient, operation: StripeOperation, now: datetime) -> Sent:
    call = CALLS[OperationKind(operation.kind)]
    try:
        made = call(client, operation, {"idempotency_key": str(operation.id)})
    except stripe.IdempotencyError as error:
        if error.http_status == 409:
            return _undecided(error)
        # The key was used for other parameters, by another release: what it made then is what counts.
        logger.exception("quotas.payments.key_mismatch", extra={"operation": str(operation.id)})
        return _look_up(client, operation)
    except stripe.StripeError as error:
        if not _is_undecided(error):
            return _refused(error)
        is_kept = (error.http_status or 0) >= 500 and _was_answered_before(error)
        return _look_up_kept(client, operation, error, now) if is_kept else _undecided(error)
    return _done(made)


def _was_answered_before(error: stripe.StripeError) -> bool:
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    return headers.get("idempotent-replayed") == "true"


def _look_up_kept(
    client: stripe.StripeClient, operation: StripeOperation, error: stripe.StripeError, now: datetime
) -> Sent:
    """After an error that the key repeats: whether something was made all the same."""
    if OperationKind(operation.kind) not in LOOKUPS:
        return _undecided(error)
    sent = _look_up(client, operation)
    is_settled = now - operation.created_at >= KEPT_ERROR_SETTLES
    return _undecided(error) if sent.state == OperationState.ABANDONED and not is_settled else sent


def _look_up_late(client: stripe.StripeClient, operation: StripeOperation, now: datetime) -> Sent:
    """When its key is too old. What was sent a moment ago, for the first time as well, may be under way."""
    sent = _look_up(client, operation)
    is_settled = operation.sent_at is None or now - operation.sent_at >= KEPT_ERROR_SETTLES
    if sent.state == OperationState.ABANDONED and not is_settled:
        return Sent(OperationState.PENDING, error_code="not_found_yet", error_text=sent.error_text)
    return sent


def _look_up(client: stripe.StripeClient, operation: StripeOperation) -> Sent:
    """Whether what was sent once is there, without sending it again."""
    find = LOOKUPS.get(OperationKind(operation.kind))
    try:
        found = find(client, operation) if find is not None else None
    except stripe.StripeError as error:
        return _undecided(error)
    if found is None:
        return Sent(OperationState.ABANDONED, error_code="abandoned", error_text="nothing of it at Stripe")
    return _done(found)


def _is_undecided(error: stripe.StripeError) -> bool:
    status = error.http_status
    if isinstance(error, stripe.RateLimitError):
        # Stripe says so by 400 and a code as well.
        return True
    return status is None or status >= 500 or status < 400 or status in _UNDECIDED_STATUS


def _done(made: stripe.StripeObject) -> Sent:
    data = made.to_dict(for_json=True)
    return Sent(OperationState.DONE, str(data["id"]), data)


def _undecided(error: stripe.StripeError) -> Sent:
    if error.http_status in (401, 403):
        logger.error("quotas.payments.key_refused", extra={"status": error.http_status})
    code = UNREACHABLE if error.http_status is None else (error.code or str(error.http_status))
    return Sent(OperationState.PENDING, error_code=code, error_text=error_text(error))


def _refused(error: stripe.StripeError) -> Sent:
    body = error.json_body if isinstance(error.json_body, dict) else {}
    found = body.get("error")
    details: dict[str, Any] = found if isinstance(found, dict) else {}
    intent = details.get("payment_intent")
    return Sent(
        OperationState.REFUSED,
        object_id=str(intent.get("id", "")) if isinstance(intent, dict) else "",
        data=details,
        error_code=str(details.get("decline_code") or error.code or error.http_status),
        error_text=error_text(error),
    )


def error_text(error: stripe.StripeError) -> str:
    """What Stripe says, short enough to be kept, and never empty."""
    return (error.user_message or type(error).__name__)[:500]


def _end(operation: StripeOperation, sent: Sent, now: datetime) -> Sent:
    """Note the outcome; where it ends the operation, what it was for changes in the same transaction."""
    still = StripeOperation.objects.filter(id=operation.id, state=OperationState.PENDING)
    noted = {"error_code": sent.error_code[:100], "error_text": sent.error_text}
    if sent.state == OperationState.PENDING:
        still.update(**noted)
        return sent
    if sent.state == OperationState.ABANDONED:
        logger.error("quotas.payments.operation_abandoned", extra={"operation": str(operation.id)})
    with transaction.atomic(using=scope_alias()):
        ended = still.update(state=sent.state, object_id=sent.object_id, finished_at=now, **noted)
        if ended:
            operation.refresh_from_db()
            finish = FINISHERS.get(OperationKind(operation.kind))
            if finish is not None:
                finish(operation=operation, sent=sent, now=now)
            return sent
    operation.refresh_from_db()
    return _as_ended(operation)
