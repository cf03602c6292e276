"""Both witnesses of one discrepancy, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from models_catalog.models import UsageFeed
from portal.kit.ids import partition_bound, uuid7_time
from quotas.metering.queries.requests import ATTEMPTS_AFTER, ATTEMPTS_BEFORE
from quotas.models import (
    Attempt,
    ControlWindow,
    Correction,
    FeedRecord,
    Hold,
    InferenceRequest,
    UsageRecord,
)
from quotas.reconciliation.review.discrepancies import Counts, DiscrepancyRow

MAX_WINDOWS: Final = 3


@dataclass(frozen=True, slots=True)
class CallSeen:
    """The call as it was admitted, and what became of its hold. hold_nanos bounds what may be charged."""

    model_slug: str
    endpoint: str
    choices: int
    is_stream: bool
    admitted_at: datetime
    prompt_bound_tokens: int
    output_cap_tokens: int
    cancel_policy: str
    hold_state: str
    hold_nanos: int
    hold_resolved_by: str
    checkpoint: Counts | None


@dataclass(frozen=True, slots=True)
class AttemptSeen:
    """One try of the call, as the gateway saw it. is_subject: the one that the discrepancy is about."""

    id: UUID
    ordinal: int
    choice_index: int
    outcome: str
    started_at: datetime
    ended_at: datetime | None
    duration_ms: int | None
    wire_id: str
    counts: Counts
    is_subject: bool


@dataclass(frozen=True, slots=True)
class RevisionSeen:
    """What was posted. Amounts are totals of the revision, in nano-units. cause: of a correction."""

    revision: int
    recorded_at: datetime
    source: str
    basis: str
    provenance: str
    counts: Counts
    charged_nanos: int
    overrun_nanos: int
    waived_nanos: int
    cause: str


@dataclass(frozen=True, slots=True)
class RecordSeen:
    """What a backend's feed said of the attempt."""

    feed: str
    part: int
    counts: Counts
    finish: str
    event_at: datetime
    received_at: datetime
    verdict: str
    is_late: bool


@dataclass(frozen=True, slots=True)
class WindowSeen:
    """The control window that the call ended in. Tokens: prompt and completion together."""

    from_at: datetime
    to_at: datetime
    state: str
    counter_tokens: int
    suspense_tokens: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a discrepancy. call: None for a call whose day is gone."""

    call: CallSeen | None
    attempts: tuple[AttemptSeen, ...]
    revisions: tuple[RevisionSeen, ...]
    records: tuple[RecordSeen, ...]
    windows: tuple[WindowSeen, ...]

    @property
    def newest(self) -> RevisionSeen | None:
        return self.revisions[-1] if self.revisions else None


def evidence_of(*, row: DiscrepancyRow) -> Evidence:
    """Everything about it, from both sides."""
    return Evidence(
        call=_call(row.request_id),
        attempts=_attempts(row),
        revisions=_revisions(row.request_id),
        records=_records(row.attempt_id),
        windows=_windows(row),
    )


def _call(request_id: UUID) -> CallSeen | None:
    call = InferenceRequest.objects.select_related("model").filter(id=request_id).first()
    hold = Hold.objects.filter(request_id=request_id).first()
    if call is None or hold is None:
        return None
    return CallSeen(
        model_slug=call.model.slug,
        endpoint=call.endpoint,
        choices=call.choices,
        is_stream=call.is_stream,
        admitted_at=call.admitted_at,
        prompt_bound_tokens=call.prompt_bound_tokens,
        output_cap_tokens=call.output_cap_tokens,
        cancel_policy=call.cancel_policy,
        hold_state=hold.state,
        hold_nanos=hold.amount_nanos,
        hold_resolved_by=hold.resolved_by,
        checkpoint=None
        if hold.checkpoint_at is None
        else Counts(
            hold.checkpoint_prompt_tokens,
            hold.checkpoint_cached_tokens,
            hold.checkpoint_completion_tokens,
            hold.checkpoint_reasoning_tokens,
        ),
    )


def _attempts(row: DiscrepancyRow) -> tuple[AttemptSeen, ...]:
    # Bounds of the ids spare the other days' partitions.
    began = uuid7_time(row.request_id)
    found = Attempt.objects.filter(
        request_id=row.request_id,
        id__gte=partition_bound(began - ATTEMPTS_BEFORE),
        id__lt=partition_bound(began + ATTEMPTS_AFTER),
    ).order_by("choice_index", "ordinal")
    return tuple(
        AttemptSeen(
            id=one.id,
            ordinal=one.ordinal,
            choice_index=one.choice_index,
            outcome=one.outcome or "",
            started_at=one.started_at,
            ended_at=one.ended_at,
            duration_ms=one.duration_ms,
            wire_id=one.wire_id,
            counts=Counts(one.prompt_tokens, None, one.completion_tokens, None),
            is_subject=one.id == row.attempt_id,
        )
        for one in found
    )


def _revisions(request_id: UUID) -> tuple[RevisionSeen, ...]:
    causes = dict(Correction.objects.filter(request_id=request_id).values_list("revision", "cause"))
    found = UsageRecord.objects.filter(request_id=request_id).order_by("revision")
    return tuple(
        RevisionSeen(
            revision=one.revision,
            recorded_at=one.recorded_at,
            source=one.source,
            basis=one.basis,
            provenance=one.provenance,
            counts=Counts(one.prompt_tokens, one.cached_tokens, one.completion_tokens, one.reasoning_tokens),
            charged_nanos=one.charged_nanos,
            overrun_nanos=one.overrun_nanos,
            waived_nanos=one.waived_nanos,
            cause=causes.get(one.revision, ""),
        )
        for one in found
    )


def _records(attempt_id: UUID) -> tuple[RecordSeen, ...]:
    found = list(FeedRecord.objects.filter(subject_id=attempt_id).order_by("part", "received_at"))
    codes = dict(UsageFeed.objects.filter(id__in={one.feed_id for one in found}).values_list("id", "code"))
    return tuple(
        RecordSeen(
            feed=codes.get(one.feed_id, ""),
            part=one.part,
            counts=Counts(one.prompt_tokens, one.cached_tokens, one.completion_tokens, one.reasoning_tokens),
            finish=one.finish,
            event_at=one.event_at,
            received_at=one.received_at,
            verdict=one.verdict,
            is_late=one.is_late,
        )
        for one in found
    )


def _windows(row: DiscrepancyRow) -> tuple[WindowSeen, ...]:
    found = ControlWindow.objects.filter(
        backend_id=row.backend_id, from_at__lt=row.event_at, to_at__gte=row.event_at
    ).order_by("-to_at")[:MAX_WINDOWS]
    return tuple(
        WindowSeen(
            from_at=one.from_at,
            to_at=one.to_at,
            state=one.state,
            counter_tokens=one.counter_prompt_tokens + one.counter_completion_tokens,
            suspense_tokens=one.suspense_prompt_tokens + one.suspense_completion_tokens,
        )
        for one in found
    )
