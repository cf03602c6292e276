"""Celery tasks: each is one domain call, safe to run twice, and takes no payload."""

import logging
import smtplib
from typing import Any

from celery import shared_task
from django.conf import settings
from django.core.mail import EmailMultiAlternatives
from django.core.mail.backends.smtp import EmailBackend

from tenants import operations, queries
from tenants.scope import role_scope

logger = logging.getLogger(__name__)

MAILS_A_RUN = 20


@shared_task(queue="default", soft_time_limit=240, time_limit=300)  # type: ignore[untyped-decorator]
def deliver_mail(**_: Any) -> None:
    if settings.MAILBOX:
        # Mails are read at a page of this instance; there is no server to send them to.
        return
    with role_scope("dataplane"):
        report = operations.deliver_outbox(send=send_mail, now=queries.database_time(), limit=MAILS_A_RUN)
    if report.failed or report.given_up:
        logger.warning(
            "tenants.mail.not_sent",
            extra={"sent": report.sent, "failed": report.failed, "given_up": report.given_up},
        )


@shared_task(queue="default", soft_time_limit=50, time_limit=60)  # type: ignore[untyped-decorator]
def prune_mail(**_: Any) -> None:
    with role_scope("dataplane"):
        gone = operations.prune_outbox(now=queries.database_time())
    if gone:
        logger.info("tenants.mail.pruned", extra={"count": gone})


@shared_task(queue="default", soft_time_limit=50, time_limit=60)  # type: ignore[untyped-decorator]
def prune_writes(**_: Any) -> None:
    with role_scope("dataplane"):
        gone = operations.prune_writes(now=queries.database_time())
    if gone:
        logger.info("tenants.writes.pruned", extra={"count": gone})


def send_mail(mail: operations.Mail) -> None:
    """Hand one mail to the configured mail server. Errors: MailNotSent."""
    message = EmailMultiAlternatives(
        mail.subject,
        mail.text_body,
        settings.DEFAULT_FROM_EMAIL,
        [mail.to_email],
        # The same at every attempt, so that mail programs show a mail that was sent twice once.
        headers={"Message-ID": f"<{mail.id}@{_host_of(settings.DEFAULT_FROM_EMAIL)}>"},
        connection=EmailBackend(timeout=settings.EMAIL_TIMEOUT),
    )
    if mail.html_body:
        message.attach_alternative(mail.html_body, "text/html")
    try:
        message.send()
    except (smtplib.SMTPException, OSError, ValueError) as error:
        raise operations.MailNotSent(f"{type(error).__name__}: {error}") from error


def _host_of(address: str) -> str:
    return address.rpartition("@")[2].strip(" >") or "localhost"
