"""Drafts of prices replayed on real usage: what calls of the past would have cost."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from models_catalog.models import PriceVersion
from portal.kit.ids import PREFIXES, public_id, uuid7
from tenants.models import User


class ReplayState(models.TextChoices):
    WAITING = "WAITING"
    RUNNING = "RUNNING"
    DONE = "DONE"
    OUTDATED = "OUTDATED"  # the draft was edited before it was done
    FAILED = "FAILED"


OPEN_REPLAY_STATES = (ReplayState.WAITING, ReplayState.RUNNING)


class PriceReplay(models.Model):
    """The calls of a period priced with a draft, day by day.

    content_sha256: what the draft said when it was asked for; a result is of that content only.
    priced_at: the moment whose price is "today's". result: sums by tenant, see quotas.replay.result.
    Goes with its draft.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    # The constraint is the migration's: it deletes the replays of a draft that is discarded.
    version = models.ForeignKey(
        PriceVersion, on_delete=models.DO_NOTHING, related_name="+", db_constraint=False
    )
    asked_by = models.ForeignKey(
        User, null=True, blank=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    state = models.CharField(max_length=16, choices=ReplayState, default=ReplayState.WAITING)
    content_sha256 = models.CharField(max_length=64)
    from_at = models.DateTimeField()
    to_at = models.DateTimeField()
    priced_at = models.DateTimeField()
    days = models.PositiveSmallIntegerField()
    days_done = models.PositiveSmallIntegerField(default=0)
    result = models.JSONField(default=dict, blank=True)
    error = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField()
    touched_at = models.DateTimeField(help_text="When it last got further.")
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["version"], condition=Q(state__in=OPEN_REPLAY_STATES), name="replay_one_open"
            ),
            models.CheckConstraint(condition=Q(state__in=ReplayState.values), name="replay_state_known"),
            models.CheckConstraint(
                condition=Q(days_done__lte=F("days")) & Q(from_at__lt=F("to_at")), name="replay_progress"
            ),
            models.CheckConstraint(
                condition=Q(state__in=OPEN_REPLAY_STATES, finished_at__isnull=True)
                | (~Q(state__in=OPEN_REPLAY_STATES) & Q(finished_at__isnull=False)),
                name="replay_finished_with_time",
            ),
        ]
        indexes = [
            models.Index(
                fields=["touched_at"], condition=Q(state__in=OPEN_REPLAY_STATES), name="replay_open"
            ),
        ]

    def __str__(self) -> str:
        return public_id(PREFIXES["replay"], self.id)
