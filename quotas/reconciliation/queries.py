"""Reads of the second witness: counters beside metering, per backend and window."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from django.db import connections, transaction
from django.db.backends.utils import CursorWrapper

from models_catalog.models import FleetState, ServingBackend
from portal.kit.ids import partition_bound
from quotas.models import CounterSample
from quotas.reconciliation.witness import BackendWitness, Bounds, Cause, CauseKind, Witness, compare
from tenants.scope import scope_alias

_SQL = Path(__file__).parent / "sql"
_SAMPLES, _METERED, _CACHED, _UNKNOWN = (
    (_SQL / f"{name}.sql").read_text(encoding="utf-8") for name in ("samples", "metered", "cached", "unknown")
)
# Of a backend that restarts again and again the newest lives are shown.
MAX_LIVES = 5
STATEMENT_TIMEOUT_MS = 10_000
# Ids carry the clock of the gateway that made them, and a call's attempts begin a little after it.
CLOCK_MARGIN = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class _Segment:
    """One life of a backend between two of its samples."""

    backend_id: UUID
    incarnation: int
    from_asked: datetime
    from_read: datetime
    from_counts: tuple[int, int | None, int]
    to_asked: datetime
    to_read: datetime
    to_counts: tuple[int, int | None, int]
    running: int | None
    prompt_excludes_cached: bool
    running_at_start: int | None

    @property
    def hides_cached(self) -> bool:
        return self.prompt_excludes_cached and None in (self.from_counts[1], self.to_counts[1])

    def prompt_counted(self) -> int:
        """Prompt tokens, with the cached ones wherever the engine counts them at all."""
        counted = self.to_counts[0] - self.from_counts[0]
        if self.prompt_excludes_cached:
            before, after = self.from_counts[1], self.to_counts[1]
            if before is not None and after is not None:
                counted += after - before
        return counted


@dataclass(slots=True)
class _Sums:
    """What was metered in a segment, with the causes of a difference."""

    attempts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    recent_prompt_tokens: int = 0
    recent_completion_tokens: int = 0
    causes: tuple[Cause, ...] = ()

    def add_cause(self, kind: CauseKind, attempts: int, prompt: Bounds, completion: Bounds) -> None:
        others = tuple(cause for cause in self.causes if cause.kind != kind)
        for cause in self.causes:
            if cause.kind == kind:
                attempts += cause.attempts
                prompt, completion = prompt + cause.prompt, completion + cause.completion
        self.causes = (*others, Cause(kind, attempts, prompt, completion))


def witness_report(
    *, now: datetime, window: timedelta, sample_s: int = 15, call_timeout_s: int = 900
) -> list[BackendWitness]:
    """Both witnesses of every backend that is in use, or was read, in the window up to `now`.

    sample_s: how often counters are sampled. call_timeout_s: how long a call may take at the longest.
    Runs in a scope that sees all organizations. Errors: django.db.OperationalError when it takes longer
    than STATEMENT_TIMEOUT_MS.
    """
    since = now - window
    with transaction.atomic(using=scope_alias()), connections[scope_alias()].cursor() as cursor:
        cursor.execute(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}")
        cursor.execute(_SAMPLES, {"from": since, "to": now, "lives": MAX_LIVES})
        segments = [_segment(row) for row in cursor.fetchall()]
        backends = list(ServingBackend.objects.order_by("code"))
        newest = _newest_samples()
        in_use = {backend.id for backend in backends if backend.state != FleetState.DISABLED}
        shown = [b for b in backends if b.id in in_use or any(s.backend_id == b.id for s in segments)]
        parameters = _parameters(segments, since, now, timedelta(seconds=call_timeout_s))
        sums = _metered(cursor, segments, parameters)
        unknown = _unknown(cursor, segments, newest, parameters, [backend.id for backend in shown])
    stale_before = now - timedelta(seconds=3 * sample_s)
    return [
        _backend_witness(
            backend,
            [_witness(s, sums[n]) for n, s in enumerate(segments) if s.backend_id == backend.id],
            newest.get(backend.id, _NEVER),
            unknown.get(backend.id, (0, 0)),
            stale_before,
        )
        for backend in shown
    ]


@dataclass(frozen=True, slots=True)
class _Newest:
    read_asked: datetime | None = None
    read_at: datetime | None = None
    failing_since: datetime | None = None
    error: str = ""


_NEVER = _Newest()


def _newest_samples() -> Mapping[UUID, _Newest]:
    """The last reading of each backend, and the failures since."""
    found: dict[UUID, _Newest] = {}
    for backend_id in ServingBackend.objects.values_list("id", flat=True):
        samples = CounterSample.objects.filter(backend_id=backend_id).order_by("-sampled_at")
        read = samples.filter(error="").first()
        failures = samples.exclude(error="")
        if read is not None:
            failures = failures.filter(sampled_at__gt=read.sampled_at)
        last_failure, first_failure = failures.first(), failures.last()
        found[backend_id] = _Newest(
            read_asked=read.asked_at if read else None,
            read_at=read.sampled_at if read else None,
            failing_since=first_failure.sampled_at if first_failure else None,
            error=last_failure.error if last_failure else "",
        )
    return found


def _segment(row: Sequence[Any]) -> _Segment:
    return _Segment(
        backend_id=row[0],
        incarnation=row[1],
        from_asked=row[2],
        from_read=row[3],
        from_counts=(row[4], row[5], row[6]),
        to_asked=row[7],
        to_read=row[8],
        to_counts=(row[9], row[10], row[11]),
        running=row[12],
        prompt_excludes_cached=row[13],
        running_at_start=row[14],
    )


def _parameters(
    segments: Sequence[_Segment], since: datetime, now: datetime, call_timeout: timedelta
) -> dict[str, Any]:
    first = min([since, *(segment.from_asked for segment in segments)]) - call_timeout - CLOCK_MARGIN
    rows = [
        {
            "key": number,
            "backend_id": str(segment.backend_id),
            "from_asked": segment.from_asked.isoformat(),
            "from_read": segment.from_read.isoformat(),
            "is_busy_at_start": segment.running_at_start != 0,
            "to_asked": segment.to_asked.isoformat(),
            "to_read": segment.to_read.isoformat(),
        }
        for number, segment in enumerate(segments)
    ]
    return {
        "segments": json.dumps(rows),
        "from": since,
        "first": partition_bound(first),
        "last": partition_bound(now + CLOCK_MARGIN),
    }


def _metered(
    cursor: CursorWrapper, segments: Sequence[_Segment], parameters: Mapping[str, Any]
) -> list[_Sums]:
    sums = [_Sums() for _ in segments]
    if not segments:
        return sums
    cursor.execute(_METERED, parameters)
    for (
        key,
        kind,
        is_across_start,
        attempts,
        prompt,
        completion,
        more_prompt,
        more_completion,
        recent_prompt,
        recent_completion,
    ) in cursor.fetchall():
        found = sums[key]
        found.prompt_tokens += prompt
        found.completion_tokens += completion
        found.recent_prompt_tokens += recent_prompt
        found.recent_completion_tokens += recent_completion
        if kind not in (CauseKind.IN_FLIGHT, CauseKind.ACROSS_START):
            found.attempts += attempts
        if kind:
            found.add_cause(CauseKind(kind), attempts, Bounds(0, more_prompt), Bounds(0, more_completion))
        if is_across_start:
            bounds = Bounds(-prompt, 0), Bounds(-completion, 0)
            found.add_cause(CauseKind.ACROSS_START, attempts, *bounds)
    if any(segment.hides_cached for segment in segments):
        cursor.execute(_CACHED, parameters)
        for key, cached, attempts, prompt in cursor.fetchall():
            if segments[key].hides_cached:
                sums[key].prompt_tokens -= cached
                if attempts:
                    sums[key].add_cause(CauseKind.CACHED_UNKNOWN, attempts, Bounds(-prompt, 0), Bounds())
    return sums


def _unknown(
    cursor: CursorWrapper,
    segments: Sequence[_Segment],
    newest: Mapping[UUID, _Newest],
    parameters: Mapping[str, Any],
    backend_ids: Sequence[UUID],
) -> dict[UUID, tuple[int, int]]:
    """Attempts and their tokens that no segment covers, of backends for which there can be any."""
    uncovered = []
    for backend_id in backend_ids:
        own = [segment for segment in segments if segment.backend_id == backend_id]
        until = newest.get(backend_id, _NEVER).read_asked
        is_covered = len(own) == 1 and own[0].from_asked <= parameters["from"]
        # What ended after the last sample is only waiting for the next.
        if not is_covered and until is not None and until > parameters["from"]:
            uncovered.append({"backend_id": str(backend_id), "until": until.isoformat()})
    if not uncovered:
        return {}
    cursor.execute(_UNKNOWN, {**parameters, "backends": json.dumps(uncovered)})
    return {backend_id: (attempts, tokens) for backend_id, attempts, tokens in cursor.fetchall()}


def _witness(segment: _Segment, sums: _Sums) -> Witness:
    in_flight = sum(cause.attempts for cause in sums.causes if cause.kind == CauseKind.IN_FLIGHT)
    order = list(CauseKind)
    return Witness(
        incarnation=segment.incarnation,
        from_at=segment.from_read,
        to_at=segment.to_read,
        attempts=sums.attempts,
        in_flight=in_flight,
        running=segment.running,
        prompt=compare(segment.prompt_counted(), sums.prompt_tokens, [cause.prompt for cause in sums.causes]),
        completion=compare(
            segment.to_counts[2] - segment.from_counts[2],
            sums.completion_tokens,
            [cause.completion for cause in sums.causes],
        ),
        causes=tuple(sorted(sums.causes, key=lambda cause: order.index(cause.kind))),
        recent_prompt_tokens=sums.recent_prompt_tokens,
        recent_completion_tokens=sums.recent_completion_tokens,
    )


def _backend_witness(
    backend: ServingBackend,
    witnesses: Sequence[Witness],
    newest: _Newest,
    unknown: tuple[int, int],
    stale_before: datetime,
) -> BackendWitness:
    # Nobody asks a disabled backend any more, so its silence is no failure.
    is_sampled = backend.state != FleetState.DISABLED
    return BackendWitness(
        backend_id=backend.id,
        code=backend.code,
        engine=backend.engine,
        fleet_state=backend.state,
        read_at=newest.read_at,
        failing_since=newest.failing_since if is_sampled else None,
        error=newest.error if is_sampled else "",
        is_stale=is_sampled and (newest.read_at is None or newest.read_at < stale_before),
        witnesses=tuple(witnesses),
        unknown_attempts=unknown[0],
        unknown_tokens=unknown[1],
    )
