"""What a backend says of calls, brought in through the function that takes it, and what came of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from models_catalog.models import UsageFeed
from portal.kit.clock import utc_now
from quotas import audit
from quotas.admission import AdmissionRow
from quotas.reconciliation.corrections import CorrectionReport, post_due_corrections
from quotas.reconciliation.matching import match_again
from quotas.reconciliation.policy import CorrectionPolicy
from quotas.tests.doors import Connection, admitted, end_lease, only, settle, sweep_row, usage_of
from tenants.scope import role_scope
from tests.database import connected, rows_of
from tests.factories import ModelFixture, TenantFixture, admission_row, settlement_row, unique_name

GENEROUS = CorrectionPolicy(limit_nanos=10**15, day_nanos=10**15, days=35)


@dataclass(frozen=True)
class Said:
    """One line of a feed."""

    subject_id: UUID
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    finish: str = "STOP"
    part: int = 0
    wire_id: str = ""

    def row(self) -> tuple[Any, ...]:
        content = hashlib.sha256(repr(self).encode()).hexdigest()[:32]
        return (
            self.subject_id,
            UUID(content),
            self.part,
            self.wire_id,
            self.prompt_tokens,
            self.cached_tokens,
            self.completion_tokens,
            self.reasoning_tokens,
            self.finish,
            datetime.now(UTC),
        )

    def but(self, **fields: Any) -> Said:
        return replace(self, **fields)


def make_feed(backend_id: UUID) -> UUID:
    with role_scope("operator"):
        return UsageFeed.objects.create(code=unique_name("feed"), backend_id=backend_id, format="ndjson").id


def take(feed_id: UUID, said: Iterable[Said], *, role: str = "ingest") -> dict[str, int]:
    """One batch, in one transaction; what the function answers."""
    with connected(role) as connection, connection.transaction():
        connection.execute(
            "CREATE TEMP TABLE feed_staging (subject_id uuid, content_id uuid, part smallint, wire_id text,"
            " prompt_tokens int, cached_tokens int, completion_tokens int, reasoning_tokens int, finish text,"
            " event_at timestamptz) ON COMMIT DROP"
        )
        with connection.cursor().copy("COPY feed_staging FROM STDIN") as copy:
            for one in said:
                copy.write_row(one.row())
        cursor = connection.execute("SELECT * FROM quotas_take_feed(%s, now())", (feed_id,))
        assert cursor.description is not None
        names = [column.name for column in cursor.description]
        row = cursor.fetchone()
        assert row is not None
        return dict(zip(names, row, strict=True))


def post(policy: CorrectionPolicy = GENEROUS) -> CorrectionReport:
    """What the task does, until nothing is left to do."""
    match_again(now=utc_now(), policy=policy)
    return post_due_corrections(now=utc_now(), limit=100_000, policy=policy)


def verdicts_of(subject_id: UUID) -> dict[int, list[str]]:
    """By part, sorted."""
    found: dict[int, list[str]] = {}
    for row in rows_of("quotas_feedrecord", subject_id=subject_id):
        found.setdefault(row["part"], []).append(row["verdict"])
    return {part: sorted(verdicts) for part, verdicts in found.items()}


def discrepancies_of(row: AdmissionRow) -> dict[str, dict[str, Any]]:
    """Of a call of one attempt, by kind."""
    return {found["kind"]: found for found in rows_of("quotas_discrepancy", request_id=row.request_id)}


def newest(row: AdmissionRow) -> dict[str, Any] | None:
    usage = usage_of(row)
    return usage[-1] if usage else None


def facts(row: AdmissionRow) -> tuple[int, int, int, int, int]:
    """Prompt, cached, completion, reasoning tokens and the charge that stand."""
    usage = newest(row)
    if usage is None:
        return (0, 0, 0, 0, 0)
    return (
        usage["prompt_tokens"],
        usage["cached_tokens"],
        usage["completion_tokens"],
        usage["reasoning_tokens"],
        usage["charged_nanos"],
    )


def served(
    dataplane: Connection,
    tenant: TenantFixture,
    model: ModelFixture,
    prompt: int,
    completion: int,
    *,
    outcome: str = "COMPLETED",
    cached: int = 0,
    reasoning: int = 0,
    **fields: Any,
) -> AdmissionRow:
    """A call that the gateway settled, with its attempt's counts."""
    row = admitted(dataplane, admission_row(tenant, model, **fields))
    settle_as(dataplane, row, prompt, completion, outcome=outcome, cached=cached, reasoning=reasoning)
    return row


def settle_as(
    dataplane: Connection,
    row: AdmissionRow,
    prompt: int,
    completion: int,
    *,
    outcome: str = "COMPLETED",
    cached: int = 0,
    reasoning: int = 0,
) -> Any:
    from quotas.tests.doors import changed

    settlement = settlement_row(
        row,
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        reasoning_tokens=reasoning,
        outcome=outcome,
    )
    ends = [changed(settlement.attempts[0], prompt_tokens=prompt, completion_tokens=completion)]
    return only(settle(dataplane, changed(settlement, attempts=ends)))


def lost(dataplane: Connection, row: AdmissionRow) -> None:
    """The gateway died: the sweeper resolves the hold."""
    end_lease(row)
    assert only(settle(dataplane, sweep_row(row), block_ms=500)).verdict == "SETTLED"


def assert_books_hold() -> None:
    broken = [(result.code, result.examples) for result in audit.run() if not result.holds]
    assert broken == []
