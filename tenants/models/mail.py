"""Mail on its way out: rows that the worker sends."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Length
from django.db.models.lookups import LessThanOrEqual

from portal.kit.ids import public_id, uuid7
from tenants.models.people import Tenant
from tenants.scope import TenantManager

MAX_EMAIL_LENGTH = 254
MAX_SUBJECT_LENGTH = 200
MAX_BODY_LENGTH = 100_000
# After so many failures a mail is given up and stays, with its last error, until it is pruned.
MAX_ATTEMPTS = 10


class OutboxMessage(models.Model):
    """A mail. It commits with what it tells about, is sent afterwards, and loses its text once sent,
    because mails carry links that let people in.

    `next_attempt_at` is when it is due, and while somebody sends it, when that claim ends.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    to_email = models.EmailField(max_length=MAX_EMAIL_LENGTH)
    subject = models.CharField(max_length=MAX_SUBJECT_LENGTH)
    text_body = models.TextField(blank=True)
    html_body = models.TextField(blank=True)
    # Without defaults of the database: reading those back needs a right that most writers lack.
    created_at = models.DateTimeField(db_index=True)
    sent_at = models.DateTimeField(null=True, blank=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField()
    last_error = models.CharField(max_length=500, blank=True)

    objects = TenantManager()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(attempts__lte=MAX_ATTEMPTS), name="outbox_attempts_bounded"),
            models.CheckConstraint(
                condition=Q(LessThanOrEqual(Length("text_body"), MAX_BODY_LENGTH))
                & Q(LessThanOrEqual(Length("html_body"), MAX_BODY_LENGTH)),
                name="outbox_body_bounded",
            ),
            models.CheckConstraint(
                condition=Q(sent_at__isnull=True) | Q(attempts__gte=1), name="outbox_sent_was_tried"
            ),
        ]
        indexes = [
            models.Index(
                fields=["next_attempt_at"],
                condition=Q(sent_at__isnull=True, attempts__lt=MAX_ATTEMPTS),
                name="outbox_due",
            )
        ]

    def __str__(self) -> str:
        return public_id("mail", self.id)
