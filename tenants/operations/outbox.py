"""The outbox: mail is a row first, committed with what it tells about, and sent afterwards."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic as _monotonic_s
from uuid import UUID

from celery import current_app
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction
from kombu.exceptions import OperationalError as BrokerError

from tenants.models import OutboxMessage
from tenants.models.mail import MAX_ATTEMPTS, MAX_BODY_LENGTH, MAX_EMAIL_LENGTH, MAX_SUBJECT_LENGTH
from tenants.scope import scope_alias

logger = logging.getLogger(__name__)

# How long a claimed mail is left to whoever claimed it; longer than any conversation with a mail server.
CLAIM_LEASE = timedelta(minutes=5)
FIRST_RETRY = timedelta(seconds=30)
LONGEST_RETRY = timedelta(hours=6)
# A server that fails so often in one run is left alone until the next.
MAX_FAILURES_IN_A_ROW = 3
MAX_ERROR_LENGTH = 500
# Somebody waits for a page meanwhile, and the mail goes out without the message too.
WAKE_OPTIONS = {"max_retries": 1, "interval_start": 0, "socket_connect_timeout": 1, "socket_timeout": 1}


class InvalidMail(ValueError):
    """A mail without a real address, with a subject of several lines, or longer than mails are."""


class TooManyMails(ValueError):
    """The organization has sent as many mails within a day as it may; a trigger counts them."""


class MailNotSent(Exception):
    """The mail server did not take a mail; the message says why, and holds no text of the mail."""


@dataclass(frozen=True, slots=True)
class OutgoingMail:
    """A mail as its writer hands it over; `html_body` may be empty."""

    to_email: str
    subject: str
    text_body: str = field(repr=False)
    html_body: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail as it is sent. `id` stays the same when it is tried again."""

    id: UUID
    to_email: str
    subject: str
    text_body: str = field(repr=False)
    html_body: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """How many mails of a run were sent, will be tried again, and were given up."""

    sent: int
    failed: int
    given_up: int


def enqueue_mail(*, mail: OutgoingMail, now: datetime, tenant_id: UUID | None = None) -> UUID:
    """Put a mail into the outbox, within the caller's transaction; its id.

    tenant_id: the organization that it is sent for; needed in a tenant's scope. Errors: InvalidMail,
    TooManyMails.
    """
    _check(mail)
    message = OutboxMessage(
        tenant_id=tenant_id,
        to_email=mail.to_email,
        subject=mail.subject,
        text_body=mail.text_body,
        html_body=mail.html_body,
        created_at=now,
        next_attempt_at=now,
    )
    try:
        message.save(force_insert=True)
    except IntegrityError as error:
        if "300 mails a day" in str(error):
            raise TooManyMails("the organization has sent as many mails as it may within a day") from error
        raise
    if not settings.MAILBOX:
        transaction.on_commit(_wake_worker, using=scope_alias(), robust=True)
    return message.id


def deliver_outbox(
    *, send: Callable[[Mail], None], now: datetime, limit: int, keep_bodies: bool = False
) -> DeliveryReport:
    """Send at most `limit` due mails, each claimed by a commit of its own: no lock is held while sending.

    now: when the run begins. send: hands one mail to the mail server, or raises MailNotSent; it runs outside
    every transaction.
    keep_bodies: whether sent mails keep their text. A mail is sent twice only when its sender dies
    between the server's answer and the commit, or takes longer than CLAIM_LEASE. Runs as the data plane.
    """
    sent = failed = given_up = in_a_row = 0
    began, began_s = now, _monotonic_s()
    while sent + failed + given_up < limit and in_a_row < MAX_FAILURES_IN_A_ROW:
        # A slow server makes a run long: each claim begins when it is made (to the second).
        now = began + timedelta(seconds=int(_monotonic_s() - began_s))
        message = _claim(now)
        if message is None:
            break
        mail = Mail(message.id, message.to_email, message.subject, message.text_body, message.html_body)
        try:
            send(mail)
        except MailNotSent as error:
            in_a_row += 1
            is_last = _note_failure(message, str(error), now)
            given_up, failed = given_up + is_last, failed + (not is_last)
        else:
            in_a_row = 0
            sent += 1
            bodies = {} if keep_bodies else {"text_body": "", "html_body": ""}
            OutboxMessage.objects.filter(id=message.id).update(sent_at=now, last_error="", **bodies)
    return DeliveryReport(sent, failed, given_up)


def prune_outbox(*, now: datetime, keep_days: int = 30) -> int:
    """Delete mails older than `keep_days` days, sent or not; how many. Runs as the data plane."""
    gone, _ = OutboxMessage.objects.filter(created_at__lt=now - timedelta(days=keep_days)).delete()
    return gone


def retry_delay(attempts: int) -> timedelta:
    """How long a mail waits after so many failures: doubled each time, up to LONGEST_RETRY."""
    doublings: int = min(attempts - 1, 20)
    return min(FIRST_RETRY * (1 << doublings), LONGEST_RETRY)


def _claim(now: datetime) -> OutboxMessage | None:
    """The mail that is due for longest, now ours for CLAIM_LEASE and one attempt older."""
    with transaction.atomic(using=scope_alias()):
        message = (
            OutboxMessage.objects.select_for_update(skip_locked=True, no_key=True)
            .filter(sent_at=None, attempts__lt=MAX_ATTEMPTS, next_attempt_at__lte=now)
            .order_by("next_attempt_at")
            .first()
        )
        if message is not None:
            message.attempts += 1
            message.next_attempt_at = now + CLAIM_LEASE
            message.save(update_fields=["attempts", "next_attempt_at"])
    return message


def _note_failure(message: OutboxMessage, error: str, now: datetime) -> bool:
    """Whether it was the last attempt."""
    OutboxMessage.objects.filter(id=message.id, sent_at=None, attempts=message.attempts).update(
        last_error=error[:MAX_ERROR_LENGTH], next_attempt_at=now + retry_delay(message.attempts)
    )
    return message.attempts >= MAX_ATTEMPTS


def _check(mail: OutgoingMail) -> None:
    try:
        validate_email(mail.to_email)
    except ValidationError as error:
        raise InvalidMail("a mail goes to one e-mail address") from error
    if len(mail.to_email) > MAX_EMAIL_LENGTH:
        raise InvalidMail(f"an e-mail address has at most {MAX_EMAIL_LENGTH} characters")
    if not 0 < len(mail.subject) <= MAX_SUBJECT_LENGTH or len(mail.subject.splitlines()) != 1:
        raise InvalidMail(f"a subject is one line of at most {MAX_SUBJECT_LENGTH} characters")
    if len(mail.text_body) > MAX_BODY_LENGTH or len(mail.html_body) > MAX_BODY_LENGTH:
        raise InvalidMail(f"the text of a mail has at most {MAX_BODY_LENGTH} characters")


def _wake_worker() -> None:
    """Tell the worker now; should the message get lost, the next sweep finds the row."""
    if not current_app.conf.broker_url:
        return
    try:
        with current_app.connection_for_write(transport_options=WAKE_OPTIONS) as connection:
            current_app.send_task(
                "tenants.tasks.deliver_mail", queue="default", expires=60, retry=False, connection=connection
            )
    except BrokerError:
        logger.warning("tenants.mail.worker_not_woken")
