"""Corrections: usage set right by the backends' records, by itself within limits, else by an operator's word.

What is posted is worked out by quotas_correct (sql/correction.sql), under the locks. Locks, in this order:
the discrepancies, the wallets, the holds. All of it as data plane, in scopes and transactions of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import msgspec
from django.db import DatabaseError, connections, transaction

from portal.kit.ids import PREFIXES, public_id
from portal.kit.refusals import is_refusal
from quotas.models import (
    OPEN_DISCREPANCY_STATES,
    Discrepancy,
    DiscrepancyKind,
    DiscrepancyState,
    InferenceRequest,
    UsageRecord,
)
from quotas.reconciliation.policy import CorrectionPolicy, correction_policy
from tenants.operations import audit
from tenants.scope import role_scope

logger = logging.getLogger(__name__)

BATCH: Final = 200
# How long somebody who waits for a decision queues for the wallet of a busy organization.
DECISION_BLOCK_MS: Final = 5000
BATCH_BLOCK_MS: Final = 500
MAX_BULK: Final = 200
_CLAIM: Final = """
SELECT d.id, d.request_id, d.tenant_id FROM quotas_discrepancy d
WHERE d.state = 'OPEN' AND d.kind <> 'GATEWAY_ONLY' AND d.id > %s
ORDER BY d.id LIMIT %s FOR NO KEY UPDATE SKIP LOCKED
"""
_CORRECT: Final = "SELECT * FROM quotas_correct(%s::text::jsonb, %s, %s, %s, %s)"


class UnknownDiscrepancy(LookupError):
    """There is no such discrepancy."""


class NotOpen(ValueError):
    """It was decided about before; what is approved has to wait for it."""


class NothingToCorrect(ValueError):
    """The counts are what is posted already, or no record says otherwise."""


class CannotTell(ValueError):
    """The records do not say how much it was: correct it by hand, or accept."""


class TooOld(ValueError):
    """It would cost the organization more, and lies further back than SLUICE_CORRECTION_DAYS."""


class NotNow(RuntimeError):
    """The call is not settled yet, or its organization's wallet was taken all the while. Try again."""


class OutOfBounds(ValueError):
    """More tokens than the call was admitted with, or parts larger than their whole.

    field: which of the counts. most: how many it may be at the most.
    """

    def __init__(self, field: str, most: int) -> None:
        super().__init__(f"{field} must be from 0 to {most}")
        self.field, self.most = field, most


@dataclass(frozen=True, slots=True)
class CorrectionReport:
    """How many calls of a run were looked at, corrected, found to need nothing, put before an operator, and
    left for the next run."""

    calls: int = 0
    corrected: int = 0
    explained: int = 0
    waiting: int = 0
    left: int = 0

    def __add__(self, other: CorrectionReport) -> CorrectionReport:
        return CorrectionReport(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class ByHand:
    """What a call used, all its choices together. Cached is part of prompt, reasoning of completion."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int


class BulkAction(StrEnum):
    ACCEPT = "ACCEPT"
    WAIVE = "WAIVE"
    APPROVE = "APPROVE"


@dataclass(frozen=True, slots=True)
class BulkAnswer:
    """error: why this one was not done; None when it was."""

    discrepancy_id: UUID
    error: Exception | None


@dataclass(frozen=True, slots=True)
class _Answer:
    request_id: UUID
    tenant_id: UUID
    verdict: str
    revision: int | None
    delta_nanos: int | None


_Claim = tuple[UUID, UUID, UUID]


def post_due_corrections(
    *, now: datetime, limit: int, policy: CorrectionPolicy | None = None
) -> CorrectionReport:
    """Do with at most `limit` open discrepancies what the rules say: correct, explain, or let them wait.

    Each batch is a transaction of its own. Safe to run twice, beside itself, and to kill anywhere: what is
    posted is a state, worked out anew under the locks. Errors: DatabaseError when the connection is lost.
    """
    policy = policy or correction_policy()
    report, after, taken = CorrectionReport(), UUID(int=0), 0
    with role_scope("dataplane"):
        while taken < limit:
            size = min(BATCH, limit - taken)
            try:
                claims, batch = _post_batch(after, size, policy)
            except DatabaseError as error:
                if not is_refusal(error):
                    raise
                # One that cannot be posted keeps nobody else from it.
                logger.warning(
                    "quotas.corrections.batch_failed", extra={"reason": type(error.__cause__).__name__}
                )
                claims, batch = _post_singly(after, size, policy)
            if not claims:
                break
            report += batch
            after, taken = claims[-1][0], taken + len(claims)
    return report


def approve(*, discrepancy_id: UUID, actor: audit.Actor, reason: str, now: datetime) -> int:
    """Post what waits, as the record says; the revision. Errors: ReasonMissing, UnknownDiscrepancy, NotOpen,
    NothingToCorrect, CannotTell, TooOld, NotNow."""
    waiting = (DiscrepancyState.WAITING,)
    return _decide(discrepancy_id, "APPROVE", "correction.approve", actor, reason, now, waiting)


def correct_by_hand(
    *, discrepancy_id: UUID, counts: ByHand, actor: audit.Actor, reason: str, now: datetime
) -> int:
    """Post these counts for the whole call; the revision. Records that come later change nothing of it by
    themselves. Errors: OutOfBounds, and as approve."""
    return _decide(
        discrepancy_id,
        "HAND",
        "correction.by_hand",
        actor,
        reason,
        now,
        tuple(DiscrepancyState),
        counts=counts,
    )


def waive(*, discrepancy_id: UUID, actor: audit.Actor, reason: str, now: datetime) -> None:
    """The bill stays; what the backend served beyond it is our expense. Errors: as approve, but for
    NothingToCorrect."""
    _decide(discrepancy_id, "WAIVE", "correction.waive", actor, reason, now, OPEN_DISCREPANCY_STATES)


def accept(*, discrepancy_id: UUID, actor: audit.Actor, reason: str, now: datetime) -> None:
    """The gateway's word stands. Errors: ReasonMissing, UnknownDiscrepancy, NotOpen."""
    reason, operator_id = audit.checked_reason(reason), audit.operator_id(actor)
    with role_scope("dataplane"), transaction.atomic(using="dataplane"):
        found = _lock(discrepancy_id, OPEN_DISCREPANCY_STATES)
        before = DiscrepancyState(found.state)
        _close(found.id, DiscrepancyState.ACCEPTED, operator_id, reason, now)
        _record(actor, "correction.accept", found, before, DiscrepancyState.ACCEPTED, reason, None)


def decide_many(
    *, action: BulkAction, discrepancy_ids: Sequence[UUID], actor: audit.Actor, reason: str, now: datetime
) -> list[BulkAnswer]:
    """The same for up to MAX_BULK discrepancies, each in a transaction of its own: one that cannot be done
    keeps no other from it. Errors: ReasonMissing; ValueError for more than MAX_BULK."""
    audit.checked_reason(reason)
    if len(discrepancy_ids) > MAX_BULK:
        raise ValueError(f"at most {MAX_BULK} are decided about at once")
    doing: dict[BulkAction, Callable[..., Any]] = {
        BulkAction.ACCEPT: accept,
        BulkAction.WAIVE: waive,
        BulkAction.APPROVE: approve,
    }
    answers = []
    for discrepancy_id in discrepancy_ids:
        error: Exception | None = None
        try:
            doing[action](discrepancy_id=discrepancy_id, actor=actor, reason=reason, now=now)
        except (LookupError, ValueError, NotNow, DatabaseError) as refusal:
            error = refusal
        answers.append(BulkAnswer(discrepancy_id, error))
    return answers


def _decide(
    discrepancy_id: UUID,
    action: str,
    name: str,
    actor: audit.Actor,
    reason: str,
    now: datetime,
    states: Sequence[DiscrepancyState],
    *,
    counts: ByHand | None = None,
) -> int:
    """One operator's decision that may move money, with its audit event, in one transaction."""
    reason, operator_id = audit.checked_reason(reason), audit.operator_id(actor)
    with role_scope("dataplane"), transaction.atomic(using="dataplane"):
        found = _lock(discrepancy_id, states)
        before = DiscrepancyState(found.state)
        if counts is not None:
            _check_bounds(found, counts)
        if found.kind == DiscrepancyKind.GATEWAY_ONLY and action != "HAND":
            raise NothingToCorrect("no record says otherwise")
        row: dict[str, Any] = {
            "request_id": str(found.request_id),
            "tenant_id": str(found.tenant_id),
            "action": action,
            "ids": [str(found.id)],
        }
        if counts is not None:
            row |= {field: getattr(counts, field) for field in ByHand.__slots__}
        (answer,) = _correct([row], correction_policy(), block_ms=DECISION_BLOCK_MS)
        _refuse(answer, action)
        # Closing takes over what quotas_correct wrote, and says who decided.
        state = DiscrepancyState.WAIVED if action == "WAIVE" else DiscrepancyState.CORRECTED
        _close(found.id, state, operator_id, reason, now, revision=answer.revision)
        after = {"delta_nanos": answer.delta_nanos, "revision": answer.revision}
        _record(actor, name, found, before, state, reason, after)
    return answer.revision or 0


def _refuse(answer: _Answer, action: str) -> None:
    if answer.verdict in ("BUSY", "NOT_SETTLED"):
        raise NotNow("the call or its organization is not to be had just now")
    if action == "WAIVE":
        return
    if answer.verdict == "TOO_OLD":
        raise TooOld("it lies too far back to cost the organization more")
    if answer.verdict == "WAITING":
        raise CannotTell("the records do not say how much it was")
    if answer.verdict != "CORRECTED":
        raise NothingToCorrect("what is posted says the same")


def _post_batch(after: UUID, size: int, policy: CorrectionPolicy) -> tuple[list[_Claim], CorrectionReport]:
    with transaction.atomic(using="dataplane"):
        claims = _claim(after, size)
        return claims, _post(claims, policy) if claims else CorrectionReport()


def _post_singly(after: UUID, size: int, policy: CorrectionPolicy) -> tuple[list[_Claim], CorrectionReport]:
    """The batch again, each call in a transaction of its own."""
    claims, report = [], CorrectionReport()
    for _ in range(size):
        with transaction.atomic(using="dataplane"):
            claimed = _claim(after, 1)
            if not claimed:
                break
            try:
                with transaction.atomic(using="dataplane"):
                    report += _post(claimed, policy)
            except DatabaseError as error:
                if not is_refusal(error):
                    raise
                report += CorrectionReport(calls=1, left=1)
                logger.error(
                    "quotas.corrections.not_posted",
                    extra={"request": str(claimed[0][1]), "reason": type(error.__cause__).__name__},
                )
        claims += claimed
        after = claimed[0][0]
    return claims, report


def _claim(after: UUID, size: int) -> list[_Claim]:
    with connections["dataplane"].cursor() as cursor:
        cursor.execute(_CLAIM, [after, size])
        return list(cursor.fetchall())


def _post(claims: Sequence[_Claim], policy: CorrectionPolicy) -> CorrectionReport:
    rows: dict[UUID, dict[str, Any]] = {}
    for discrepancy_id, request_id, tenant_id in claims:
        row = {"request_id": str(request_id), "tenant_id": str(tenant_id), "action": "AUTO", "ids": []}
        rows.setdefault(request_id, row)["ids"].append(str(discrepancy_id))
    answers = _correct(list(rows.values()), policy, block_ms=0)
    busy = [rows[answer.request_id] for answer in answers if answer.verdict == "BUSY"]
    if busy:
        # The wallet of a busy organization is never free by chance.
        try:
            with transaction.atomic(using="dataplane"):
                again = _correct(busy, policy, block_ms=BATCH_BLOCK_MS)
        except DatabaseError as error:
            if not is_refusal(error):
                raise
            again = []
        answers = [answer for answer in answers if answer.verdict != "BUSY"] + again
    count = dict.fromkeys(("CORRECTED", "WAITING", "NOT_SETTLED", "UNKNOWN", "BUSY"), 0)
    for answer in answers:
        if answer.verdict in count:
            count[answer.verdict] += 1
    left = count["NOT_SETTLED"] + count["UNKNOWN"] + count["BUSY"] + len(rows) - len(answers)
    explained = len(answers) - sum(count.values())
    return CorrectionReport(len(rows), count["CORRECTED"], explained, count["WAITING"], left)


def _correct(rows: Sequence[dict[str, Any]], policy: CorrectionPolicy, *, block_ms: int) -> list[_Answer]:
    with connections["dataplane"].cursor() as cursor:
        cursor.execute(
            _CORRECT,
            [
                msgspec.json.encode(rows).decode(),
                block_ms,
                policy.limit_nanos,
                policy.day_nanos,
                policy.days,
            ],
        )
        return [_Answer(*row) for row in cursor.fetchall()]


def _lock(discrepancy_id: UUID, states: Sequence[DiscrepancyState]) -> Discrepancy:
    found = Discrepancy.objects.select_for_update(no_key=True).filter(id=discrepancy_id).first()
    if found is None:
        raise UnknownDiscrepancy("there is no such discrepancy")
    if found.state not in states:
        raise NotOpen(f"it is {found.state.lower()} already")
    return found


def _check_bounds(found: Discrepancy, counts: ByHand) -> None:
    call = InferenceRequest.objects.get(id=found.request_id)
    image = max(
        (usage.image_tokens for usage in UsageRecord.objects.filter(request_id=found.request_id)), default=0
    )
    bounds = {
        "prompt_tokens": call.prompt_bound_tokens,
        "cached_tokens": max(0, counts.prompt_tokens - image),
        "completion_tokens": call.choices * call.output_cap_tokens,
        "reasoning_tokens": counts.completion_tokens,
    }
    for field, most in bounds.items():
        if not 0 <= getattr(counts, field) <= most:
            raise OutOfBounds(field, most)


def _close(
    discrepancy_id: UUID,
    state: DiscrepancyState,
    operator_id: UUID,
    reason: str,
    now: datetime,
    *,
    revision: int | None = None,
) -> None:
    changes: dict[str, Any] = {
        "state": state,
        "resolved_by_id": operator_id,
        "resolved_at": now,
        "reason": reason,
    }
    if state == DiscrepancyState.CORRECTED:
        changes["revision"] = revision
    Discrepancy.objects.filter(id=discrepancy_id).update(**changes)


def _record(
    actor: audit.Actor,
    action: str,
    found: Discrepancy,
    before: DiscrepancyState,
    after: DiscrepancyState,
    reason: str,
    posted: dict[str, Any] | None,
) -> None:
    audit.record(
        actor=actor,
        action=action,
        tenant_id=found.tenant_id,
        target=public_id(PREFIXES["discrepancy"], found.id),
        before={"state": before.value, "request": public_id(PREFIXES["request"], found.request_id)},
        after={"state": after.value, **(posted or {})},
        reason=reason,
        is_internal=True,
    )
