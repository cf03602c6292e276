"""What was measured of deployments. Rows are frozen; the newest of a deployment counts."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from models_catalog.models.costs import MAX_CAPACITY_TOKENS_PER_S, MAX_WEIGHT_THOUSANDTHS
from models_catalog.models.fleet import MAX_CONFIGURATION_LENGTH, Deployment
from portal.kit.ids import PREFIXES, public_id, uuid7

MAX_NOTE_LENGTH = 500


class DeploymentCurve(models.Model):
    """How a deployment does with more and more calls at a time, as `manage.py commission` has measured it.

    The columns of points have the same length and belong together by place; concurrency rises. Each call of
    the measurement had `prompt_tokens` of input and about `output_tokens` of output. Certified is the load at
    which the limits held: calls at a time, and weighted tokens a second; 0 and 0 when they never did.
    Weights are thousandths of an output token's work. The spent tokens are those of the measurement.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    deployment = models.ForeignKey(Deployment, on_delete=models.PROTECT, related_name="curves")
    measured_at = models.DateTimeField(db_default=models.functions.Now())
    engine_version = models.CharField(max_length=64, blank=True, default="")
    quantisation = models.CharField(max_length=64, blank=True, default="")
    configuration = models.TextField(blank=True, default="", max_length=MAX_CONFIGURATION_LENGTH)
    note = models.CharField(max_length=MAX_NOTE_LENGTH, blank=True, default="")

    concurrency = ArrayField(models.PositiveIntegerField())
    ttft_p50_ms = ArrayField(models.PositiveIntegerField())
    ttft_p95_ms = ArrayField(models.PositiveIntegerField())
    inter_token_us = ArrayField(models.PositiveIntegerField())
    output_tokens_per_s = ArrayField(models.FloatField())

    prompt_tokens = models.PositiveIntegerField()
    output_tokens = models.PositiveIntegerField()
    prefill_ns = models.BigIntegerField(help_text="Of a further input token, in nanoseconds.")
    limit_ttft_p95_ms = models.PositiveIntegerField()
    limit_call_tokens_per_s = models.FloatField()
    certified_concurrency = models.PositiveIntegerField()
    certified_tokens_per_s = models.PositiveIntegerField(help_text="In weighted tokens.")
    input_weight = models.PositiveIntegerField()
    cached_weight = models.PositiveIntegerField(
        null=True, blank=True, help_text="Empty when no cache showed itself."
    )
    output_weight = models.PositiveIntegerField(default=1000)
    spent_prompt_tokens = models.BigIntegerField()
    spent_output_tokens = models.BigIntegerField()
    took_ms = models.PositiveIntegerField()

    class Meta:
        constraints = [
            # The points themselves: curve_sound, in sql/curves.sql.
            models.CheckConstraint(
                condition=Q(prompt_tokens__gte=0)
                & Q(output_tokens__gte=1)
                & Q(prefill_ns__range=(0, 10**12))
                & Q(spent_prompt_tokens__gte=0)
                & Q(spent_output_tokens__gte=0),
                name="curve_counts_positive",
            ),
            models.CheckConstraint(
                condition=Q(certified_concurrency=0, certified_tokens_per_s=0)
                | Q(
                    certified_concurrency__gte=1,
                    certified_tokens_per_s__range=(1, MAX_CAPACITY_TOKENS_PER_S),
                ),
                name="curve_certified_whole",
            ),
            models.CheckConstraint(
                condition=Q(
                    input_weight__range=(0, MAX_WEIGHT_THOUSANDTHS),
                    output_weight__range=(1, MAX_WEIGHT_THOUSANDTHS),
                )
                & (Q(cached_weight=None) | Q(cached_weight__range=(0, MAX_WEIGHT_THOUSANDTHS))),
                name="curve_weights_bounded",
            ),
        ]
        indexes = [models.Index(fields=["deployment", "-measured_at"], name="curve_newest")]

    def __str__(self) -> str:
        return public_id(PREFIXES["curve"], self.id)
