"""Rows of reconciliation for pages and walls: by the real operations, where there are some for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from models_catalog.models import UsageFeed, UsageFeedFormat
from portal.kit.clock import utc_now
from portal.kit.ids import uuid7
from quotas.admission import AdmissionRow
from quotas.models import (
    ControlWindow,
    Discrepancy,
    FeedFile,
    FeedQuarantine,
    FeedState,
    SuspenseItem,
    SuspenseKind,
    WindowState,
)
from quotas.reconciliation.policy import CorrectionPolicy
from quotas.reconciliation.tests.said import GENEROUS, Said, post, served, take
from tenants.scope import role_scope
from tests.database import connected
from tests.factories import ModelFixture, TenantFixture, unique_name

STRICT = CorrectionPolicy(limit_nanos=0, day_nanos=0, days=35)


def make_feed(
    backend_id: UUID, *, folder: str = "", format: UsageFeedFormat = UsageFeedFormat.NDJSON
) -> UUID:
    """A feed that was heard a minute ago."""
    now = utc_now()
    with role_scope("operator"):
        feed = UsageFeed.objects.create(
            code=unique_name("feed"), backend_id=backend_id, format=format, folder=folder
        )
    with role_scope("dataplane"):
        FeedState.objects.create(
            feed_id=feed.id, complete_to=now - timedelta(minutes=1), heard_at=now - timedelta(minutes=1)
        )
    return feed.id


def make_confirmed(tenant: TenantFixture, model: ModelFixture, feed_id: UUID) -> AdmissionRow:
    """A call of which the backend's record says the same."""
    with connected("dataplane") as dataplane:
        row = served(dataplane, tenant, model, 10, 20)
    take(feed_id, [Said(row.attempt_id, 10, 20)])
    return row


def make_mismatch(
    tenant: TenantFixture, model: ModelFixture, feed_id: UUID, *, prompt: int = 12, completion: int = 25
) -> tuple[AdmissionRow, UUID]:
    """A call of 10 and 20 tokens of which the record says something else, and its open discrepancy."""
    with connected("dataplane") as dataplane:
        row = served(dataplane, tenant, model, 10, 20)
    take(feed_id, [Said(row.attempt_id, prompt, completion)])
    return row, discrepancy_of(row)


def make_waiting(tenant: TenantFixture, model: ModelFixture, feed_id: UUID) -> tuple[AdmissionRow, UUID]:
    """The same, and its correction waits for an operator."""
    made = make_mismatch(tenant, model, feed_id)
    post(STRICT)
    return made


def make_corrected(tenant: TenantFixture, model: ModelFixture, feed_id: UUID) -> tuple[AdmissionRow, UUID]:
    """The same, corrected by the rules."""
    made = make_mismatch(tenant, model, feed_id)
    post(GENEROUS)
    return made


def discrepancy_of(row: AdmissionRow) -> UUID:
    with role_scope("operator"):
        return Discrepancy.objects.values_list("id", flat=True).get(request_id=row.request_id)


def make_window(
    backend_id: UUID, *, suspense: int = 0, ended_at: datetime | None = None, lasts: timedelta | None = None
) -> UUID:
    """A closed window of 3,000 and 600 counted tokens."""
    ended_at = ended_at or utc_now() - timedelta(minutes=10)
    with role_scope("dataplane"):
        return ControlWindow.objects.create(
            backend_id=backend_id,
            incarnation=1,
            from_at=ended_at - (lasts or timedelta(minutes=5)),
            to_at=ended_at,
            state=WindowState.CLOSED,
            attempts=12,
            matched_attempts=10,
            counter_prompt_tokens=3_000,
            counter_completion_tokens=600,
            matched_prompt_tokens=2_500,
            matched_completion_tokens=500,
            explained_prompt_tokens=500 - suspense,
            explained_completion_tokens=100,
            suspense_prompt_tokens=suspense,
            suspense_completion_tokens=0,
            causes=[{"kind": "GATEWAY_ONLY", "attempts": 2, "prompt": 500 - suspense, "completion": 100}],
            computed_at=utc_now(),
        ).id


def make_counted(backend_id: UUID, *, suspense: int = 400) -> UUID:
    """What a window's counter says beyond all calls."""
    window_id = make_window(backend_id, suspense=suspense)
    with role_scope("dataplane"):
        return SuspenseItem.objects.create(
            kind=SuspenseKind.COUNTER,
            backend_id=backend_id,
            window_id=window_id,
            event_at=utc_now() - timedelta(minutes=10),
            prompt_tokens=suspense,
            completion_tokens=0,
            opened_at=utc_now(),
        ).id


def make_foreign(feed_id: UUID, *, wire_id: str = "chatcmpl-elsewhere") -> UUID:
    """A record that names no call of ours, in suspense."""
    subject_id = uuid7()
    take(feed_id, [Said(subject_id, 70, 7, wire_id=wire_id)])
    post()
    with role_scope("operator"):
        return SuspenseItem.objects.values_list("id", flat=True).get(subject_id=subject_id)


def make_line(feed_id: UUID, *, in_file: bool = True, detail: str = "no completion_tokens") -> UUID:
    """A line in quarantine; one that was pushed has no file."""
    now = utc_now()
    with role_scope("dataplane"):
        file = None
        if in_file:
            file = FeedFile.objects.create(
                feed_id=feed_id,
                identity=unique_name("file"),
                name="requests.log",
                offset=4_096,
                lines=32,
                entries=30,
                quarantined=1,
                seen_at=now,
                read_at=now,
            )
        return FeedQuarantine.objects.create(
            feed_id=feed_id,
            file=file,
            offset=2_048 if file else 3,
            length=118,
            sha256=uuid7().bytes * 2,
            reason="MISSING_FIELD",
            detail=detail,
            body="" if file else '{"id": "…"}',
            received_at=now,
        ).id


@dataclass(frozen=True, slots=True)
class Reconciled:
    """One of everything, of one backend. confirmed, corrected: calls."""

    feed_id: UUID
    discrepancy_id: UUID
    waiting_id: UUID
    corrected_id: UUID
    suspense_id: UUID
    counted_id: UUID
    line_id: UUID
    confirmed: AdmissionRow
    corrected: AdmissionRow


def make_every_reconciliation(tenant: TenantFixture, model: ModelFixture) -> Reconciled:
    """One of everything. The last discrepancy to be made is open, and nothing looks at it again."""
    feed_id = make_feed(model.backend_id)
    confirmed = make_confirmed(tenant, model, feed_id)
    corrected, corrected_id = make_corrected(tenant, model, feed_id)
    suspense_id = make_foreign(feed_id, wire_id=unique_name("chatcmpl"))
    _, waiting_id = make_waiting(tenant, model, feed_id)
    _, discrepancy_id = make_mismatch(tenant, model, feed_id)
    return Reconciled(
        feed_id=feed_id,
        discrepancy_id=discrepancy_id,
        waiting_id=waiting_id,
        corrected_id=corrected_id,
        suspense_id=suspense_id,
        counted_id=make_counted(model.backend_id),
        line_id=make_line(feed_id),
        confirmed=confirmed,
        corrected=corrected,
    )
