"""Where a backend says what it has served: its usage feeds."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from models_catalog.models.fleet import ServingBackend
from portal.kit.ids import uuid7

MAX_FEED_GRACE_S = 7 * 86400


class UsageFeedFormat(models.TextChoices):
    """How the lines or bodies of a feed are written; models_catalog.engines.feeds reads them."""

    SGLANG_LOG = "sglang_log"
    SGLANG_EXPORT = "sglang_export"
    VLLM_OTLP = "vllm_otlp"
    VLLM_MIDDLEWARE = "vllm_middleware"
    CLOUDEVENTS = "cloudevents"
    NDJSON = "ndjson"
    CSV = "csv"


class UsageFeed(models.Model):
    """One feed of one backend: a folder that is watched, or a door that it pushes to.

    A backend may have several that say the same. The credential is stored encrypted and never shown again.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    code = models.SlugField(max_length=64, unique=True)
    backend = models.ForeignKey(ServingBackend, on_delete=models.PROTECT, related_name="feeds")
    format = models.CharField(max_length=24, choices=UsageFeedFormat)
    folder = models.CharField(
        max_length=500, blank=True, default="", help_text="Watched; empty when none is."
    )
    columns = models.JSONField(default=dict, blank=True, help_text="Of NDJSON and CSV: our name to theirs.")
    time_zone = models.CharField(max_length=64, default="UTC", help_text="Of times that name none.")
    credential_encrypted = models.TextField(blank=True, default="", max_length=4000)
    grace_s = models.PositiveIntegerField(default=300, help_text="How late a line may come at the latest.")
    is_enabled = models.BooleanField(default=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["id", "backend"], name="feed_id_backend"),
            models.CheckConstraint(condition=Q(format__in=UsageFeedFormat.values), name="feed_format_known"),
            models.CheckConstraint(condition=Q(grace_s__lte=MAX_FEED_GRACE_S), name="feed_grace_bounded"),
        ]

    def __str__(self) -> str:
        return self.code


def feed_code(backend_code: str, format: str) -> str:
    """What a feed is called that nobody named: one of each format and backend."""
    return f"{backend_code}-{format}"[:64]
