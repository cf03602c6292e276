"""Writes a measured curve down, and reads curves. They are frozen; the newest of a deployment counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import transaction

from models_catalog.fleet.commission.sums import Limits
from models_catalog.fleet.commission.sweep import Measured
from models_catalog.fleet.curve import Curve, curve_of
from models_catalog.fleet.inventory import locked_deployment
from models_catalog.models import DeploymentCurve
from models_catalog.models.curves import MAX_NOTE_LENGTH
from portal.kit.ids import PREFIXES, public_id
from tenants.operations import audit
from tenants.scope import scope_alias

# A page shows the newest ones.
MAX_CURVES = 50


@dataclass(frozen=True, slots=True)
class CurveRow:
    """A stored curve with what was in place when it was measured."""

    id: UUID
    deployment_id: UUID
    curve: Curve
    engine_version: str
    quantisation: str
    configuration: str
    note: str
    limits: Limits
    spent_prompt_tokens: int
    spent_output_tokens: int
    took_ms: int

    @property
    def public_id(self) -> str:
        return public_id(PREFIXES["curve"], self.id)


def record_curve(
    *,
    deployment_id: UUID,
    measured: Measured,
    limits: Limits,
    engine_version: str,
    actor: audit.Actor,
    reason: str,
    now: datetime,
    note: str = "",
) -> UUID:
    """Store what was measured, with the configuration that the backend has now; the id of the curve.

    Gateways follow within a second. Errors: DeploymentNotFound, ReasonMissing.
    """
    reason = audit.checked_reason(reason)
    with transaction.atomic(using=scope_alias()):
        deployment = locked_deployment(deployment_id)
        row = DeploymentCurve.objects.create(
            deployment_id=deployment_id,
            measured_at=now,
            engine_version=engine_version[:64] or deployment.backend.engine_version,
            quantisation=deployment.quantisation,
            configuration=deployment.backend.configuration,
            note=(note or measured.ended)[:MAX_NOTE_LENGTH],
            concurrency=[point.concurrency for point in measured.points],
            ttft_p50_ms=[point.ttft_p50_ms for point in measured.points],
            ttft_p95_ms=[point.ttft_p95_ms for point in measured.points],
            inter_token_us=[point.inter_token_us for point in measured.points],
            output_tokens_per_s=[point.output_tokens_per_s for point in measured.points],
            prompt_tokens=measured.prompt_tokens,
            output_tokens=measured.output_tokens,
            prefill_ns=measured.prefill_ns,
            limit_ttft_p95_ms=limits.ttft_p95_ms,
            limit_call_tokens_per_s=limits.call_tokens_per_s,
            certified_concurrency=measured.certified_concurrency,
            certified_tokens_per_s=measured.certified_tokens_per_s,
            input_weight=measured.input_weight,
            cached_weight=measured.cached_weight,
            spent_prompt_tokens=measured.spent_prompt_tokens,
            spent_output_tokens=measured.spent_output_tokens,
            took_ms=round(measured.took_s * 1000),
        )
        audit.record(
            actor=actor,
            action="deployment.commission",
            target=public_id(PREFIXES["deployment"], deployment_id),
            after={
                "curve": str(row),
                "certified_concurrency": row.certified_concurrency,
                "certified_tokens_per_s": row.certified_tokens_per_s,
                "engine_version": row.engine_version,
                "spent_prompt_tokens": row.spent_prompt_tokens,
                "spent_output_tokens": row.spent_output_tokens,
            },
            reason=reason,
        )
        return row.id


def newest_curves(*, deployment_ids: Iterable[UUID]) -> Mapping[UUID, CurveRow]:
    """The newest curve of each of these deployments that has one."""
    rows = (
        DeploymentCurve.objects.filter(deployment_id__in=list(deployment_ids))
        .order_by("deployment_id", "-measured_at", "-id")
        .distinct("deployment_id")
    )
    return {row.deployment_id: _row(row) for row in rows}


def curve_history(*, deployment_id: UUID) -> list[CurveRow]:
    """The curves of a deployment, newest first; at most MAX_CURVES."""
    rows = DeploymentCurve.objects.filter(deployment_id=deployment_id).order_by("-measured_at", "-id")
    return [_row(row) for row in rows[:MAX_CURVES]]


def _row(row: DeploymentCurve) -> CurveRow:
    return CurveRow(
        id=row.id,
        deployment_id=row.deployment_id,
        curve=_curve(row),
        engine_version=row.engine_version,
        quantisation=row.quantisation,
        configuration=row.configuration,
        note=row.note,
        limits=Limits(row.limit_ttft_p95_ms, row.limit_call_tokens_per_s),
        spent_prompt_tokens=row.spent_prompt_tokens,
        spent_output_tokens=row.spent_output_tokens,
        took_ms=row.took_ms,
    )


def _curve(row: DeploymentCurve) -> Curve:
    return curve_of(
        concurrency=row.concurrency,
        ttft_p50_ms=row.ttft_p50_ms,
        ttft_p95_ms=row.ttft_p95_ms,
        inter_token_us=row.inter_token_us,
        output_tokens_per_s=row.output_tokens_per_s,
        prompt_tokens=row.prompt_tokens,
        output_tokens=row.output_tokens,
        prefill_ns=row.prefill_ns,
        certified_concurrency=row.certified_concurrency,
        certified_tokens_per_s=row.certified_tokens_per_s,
        input_weight=row.input_weight,
        cached_weight=row.cached_weight,
        measured_at=row.measured_at,
    )
