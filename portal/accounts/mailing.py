"""Mails of this door: rendered here, put into the outbox, sent by the worker."""

from portal.kit.clock import utc_now
from tenants import operations
from tenants.scope import role_scope


def post_mail(*, to: str, subject: str, text: str, html: str) -> None:
    """Put a mail into the outbox, in the transaction that is open on the default connection."""
    mail = operations.OutgoingMail(to_email=to, subject=subject, text_body=text, html_body=html)
    with role_scope("auth"):
        operations.enqueue_mail(mail=mail, now=utc_now())
