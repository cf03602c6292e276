"""What backends say that they have served. No tenant: an engine knows none."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from models_catalog.models import ServingBackend
from portal.kit.ids import uuid7


class CounterSample(models.Model):
    """A backend's own counters at one moment, or why they could not be read. Rows are never changed.

    Counters count since the start of the engine's process, whose lives are numbered per backend:
    within one incarnation no counter falls (trigger). The counters were read between `asked_at` and
    `sampled_at`, both of the database's clock.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    backend = models.ForeignKey(ServingBackend, on_delete=models.PROTECT, related_name="+", db_index=False)
    incarnation = models.PositiveIntegerField(help_text="0 until the counters have been read once.")
    asked_at = models.DateTimeField()
    sampled_at = models.DateTimeField()
    prompt_tokens = models.BigIntegerField(null=True, blank=True, help_text="As the engine counts them.")
    cached_tokens = models.BigIntegerField(null=True, blank=True)
    completion_tokens = models.BigIntegerField(null=True, blank=True)
    requests_finished = models.BigIntegerField(null=True, blank=True)
    running = models.BigIntegerField(null=True, blank=True, help_text="Requests that run or wait.")
    prompt_excludes_cached = models.BooleanField(default=False)
    start_mark = models.CharField(max_length=64, blank=True)
    error = models.CharField(max_length=200, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(
                    error="",
                    prompt_tokens__isnull=False,
                    completion_tokens__isnull=False,
                    incarnation__gte=1,
                )
                | (
                    ~Q(error="")
                    & Q(
                        prompt_tokens__isnull=True,
                        cached_tokens__isnull=True,
                        completion_tokens__isnull=True,
                        requests_finished__isnull=True,
                        running__isnull=True,
                    )
                ),
                name="sample_read_or_failed",
            ),
            models.CheckConstraint(
                condition=Q(prompt_tokens__gte=0)
                & Q(completion_tokens__gte=0)
                & (Q(cached_tokens__isnull=True) | Q(cached_tokens__gte=0))
                & (Q(requests_finished__isnull=True) | Q(requests_finished__gte=0))
                & (Q(running__isnull=True) | Q(running__gte=0)),
                name="sample_counts_positive",
            ),
            models.CheckConstraint(condition=Q(asked_at__lte=F("sampled_at")), name="sample_asked_before"),
        ]
        indexes = [
            models.Index(fields=["backend", "-sampled_at"], name="sample_backend_time"),
            models.Index(
                fields=["backend", "incarnation", "sampled_at"],
                condition=Q(error=""),
                name="sample_backend_read",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.sampled_at:%Y-%m-%dT%H:%M:%S} {self.error or self.completion_tokens}"
