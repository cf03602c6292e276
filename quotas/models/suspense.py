"""Control totals of the backends' counters, and what of them belongs to nobody."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from models_catalog.models import ServingBackend
from portal.kit.ids import PREFIXES, public_id, uuid7


class WindowState(models.TextChoices):
    OPEN = "OPEN"
    PROVISIONAL = "PROVISIONAL"  # over, and feeds may still say something of it
    CLOSED = "CLOSED"  # the watermark passed it; it never changes again


class ControlWindow(models.Model):
    """What one life of a backend counted between two samples, and who accounts for it, in tokens.

    counter = matched + explained + suspense. matched: of attempts whose record agrees. explained: of other
    attempts, within what their causes allow. suspense: the rest, positive when nobody was billed for it.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    backend = models.ForeignKey(ServingBackend, on_delete=models.PROTECT, related_name="+", db_index=False)
    incarnation = models.PositiveIntegerField()
    from_at = models.DateTimeField()
    to_at = models.DateTimeField()
    state = models.CharField(max_length=12, choices=WindowState)
    attempts = models.BigIntegerField(default=0)
    matched_attempts = models.BigIntegerField(default=0)
    counter_prompt_tokens = models.BigIntegerField()
    counter_completion_tokens = models.BigIntegerField()
    matched_prompt_tokens = models.BigIntegerField()
    matched_completion_tokens = models.BigIntegerField()
    explained_prompt_tokens = models.BigIntegerField()
    explained_completion_tokens = models.BigIntegerField()
    suspense_prompt_tokens = models.BigIntegerField()
    suspense_completion_tokens = models.BigIntegerField()
    causes = models.JSONField(default=list, blank=True)
    # What the counter may be ahead of the attempts that had ended (negative: behind), at the least and at the
    # most, when the window ended: the next one goes on from it.
    carried_prompt_low = models.BigIntegerField(default=0, db_default=0)
    carried_prompt_high = models.BigIntegerField(default=0, db_default=0)
    carried_completion_low = models.BigIntegerField(default=0, db_default=0)
    carried_completion_high = models.BigIntegerField(default=0, db_default=0)
    computed_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["backend", "incarnation", "from_at"], name="window_once"),
            models.CheckConstraint(condition=Q(from_at__lt=F("to_at")), name="window_period"),
            models.CheckConstraint(condition=Q(state__in=WindowState.values), name="window_state_known"),
            models.CheckConstraint(
                condition=Q(
                    counter_prompt_tokens=F("matched_prompt_tokens")
                    + F("explained_prompt_tokens")
                    + F("suspense_prompt_tokens"),
                    counter_completion_tokens=F("matched_completion_tokens")
                    + F("explained_completion_tokens")
                    + F("suspense_completion_tokens"),
                ),
                name="window_adds_up",
            ),
            models.CheckConstraint(
                condition=Q(matched_attempts__gte=0, attempts__gte=F("matched_attempts"))
                & Q(counter_prompt_tokens__gte=0, counter_completion_tokens__gte=0),
                name="window_counts",
            ),
            models.CheckConstraint(
                condition=Q(
                    carried_prompt_low__lte=F("carried_prompt_high"),
                    carried_completion_low__lte=F("carried_completion_high"),
                ),
                name="window_carried_bounds",
            ),
        ]
        indexes = [
            models.Index(fields=["backend", "-to_at"], name="window_backend"),
            models.Index(fields=["to_at"], condition=~Q(state=WindowState.CLOSED), name="window_not_closed"),
        ]

    def __str__(self) -> str:
        return f"{self.from_at:%Y-%m-%dT%H:%M}/{self.to_at:%H:%M} {self.state}"


class SuspenseKind(models.TextChoices):
    RECORD = "RECORD"  # a record that names none of our attempts
    COUNTER = "COUNTER"  # counted, and no attempt or record accounts for it


class SuspenseState(models.TextChoices):
    OPEN = "OPEN"
    EXPLAINED = "EXPLAINED"
    WRITTEN_OFF = "WRITTEN_OFF"


class SuspenseItem(models.Model):
    """Tokens that a backend served and that belong to nobody yet: on no bill until somebody explains them."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    kind = models.CharField(max_length=8, choices=SuspenseKind)
    state = models.CharField(max_length=12, choices=SuspenseState, default=SuspenseState.OPEN)
    backend = models.ForeignKey(ServingBackend, on_delete=models.PROTECT, related_name="+", db_index=False)
    subject_id = models.UUIDField(null=True, blank=True, help_text="Of a record.")
    window = models.ForeignKey(
        ControlWindow, null=True, blank=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    event_at = models.DateTimeField()
    prompt_tokens = models.BigIntegerField()
    completion_tokens = models.BigIntegerField()
    opened_at = models.DateTimeField()
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="+",
        db_index=False,
    )
    reason = models.CharField(max_length=500, blank=True, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["kind", "subject_id", "window"], name="suspense_once", nulls_distinct=False
            ),
            models.CheckConstraint(
                condition=Q(kind=SuspenseKind.RECORD, subject_id__isnull=False, window=None)
                | Q(kind=SuspenseKind.COUNTER, subject_id=None, window__isnull=False),
                name="suspense_of_record_or_window",
            ),
            models.CheckConstraint(
                condition=Q(state=SuspenseState.OPEN, resolved_at=None)
                | (Q(state__in=(SuspenseState.EXPLAINED, SuspenseState.WRITTEN_OFF)) & ~Q(resolved_at=None)),
                name="suspense_resolved_with_time",
            ),
        ]
        indexes = [
            models.Index(fields=["state", "-id"], name="suspense_state"),
            models.Index(fields=["backend", "event_at"], name="suspense_backend"),
        ]

    def __str__(self) -> str:
        return public_id(PREFIXES["suspense"], self.id)
