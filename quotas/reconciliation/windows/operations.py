"""Computing and closing control windows. Safe to do again and beside itself; a closed window stays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Final
from uuid import UUID

from django.db import connections, transaction
from django.db.models import Q

from portal.kit.ids import uuid7
from quotas.models import ControlWindow, SuspenseItem, SuspenseKind, WindowState
from quotas.reconciliation.matching import open_gateway_only
from quotas.reconciliation.watermark import backends_read_to, watermarks
from quotas.reconciliation.windows.arithmetic import Carried
from quotas.reconciliation.windows.cutting import Cut, Sample, cut
from quotas.reconciliation.windows.late import explain_by_late_records
from quotas.reconciliation.windows.metered import Metered, metered
from quotas.reconciliation.windows.policy import WindowPolicy, window_policy
from quotas.reconciliation.windows.sampled import Reach, next_reaches, samples_between
from quotas.reconciliation.windows.totals import Totals, window_totals
from tenants.scope import role_scope, scope_alias

# What is computed at once: the traffic of so long a time.
SPAN: Final = timedelta(hours=6)
# Where the windows of a backend begin that was never looked at.
FIRST_REACH: Final = timedelta(days=1)
# A window that is over is looked at again so long; then when it is closed.
FRESH: Final = timedelta(minutes=15)
# What ended before a moment is written by then, settlements too.
SETTLED_AFTER: Final = timedelta(seconds=60)
NEVER: Final = datetime.min.replace(tzinfo=UTC)
MAX_WINDOWS: Final = 2_000
MAX_ROUNDS: Final = 500

_FIELDS: Final = (
    "to_at",
    "state",
    "attempts",
    "matched_attempts",
    "causes",
    "computed_at",
    *(
        f"{amount}_{kind}_tokens"
        for amount in ("counter", "matched", "explained", "suspense")
        for kind in ("prompt", "completion")
    ),
    *(f"carried_{kind}_{end}" for kind in ("prompt", "completion") for end in ("low", "high")),
)


@dataclass(frozen=True, slots=True)
class WindowsReport:
    """How many windows were computed, how many of them closed, and the tokens that closed into suspense."""

    computed: int = 0
    closed: int = 0
    suspense_tokens: int = 0

    def __add__(self, other: WindowsReport) -> WindowsReport:
        return WindowsReport(
            self.computed + other.computed,
            self.closed + other.closed,
            self.suspense_tokens + other.suspense_tokens,
        )


def reconcile_windows(
    *, now: datetime, until: datetime | None = None, backend_id: UUID | None = None
) -> WindowsReport:
    """Compute the windows that are due of all backends, and close those that the watermark has passed.

    until: none that ends later; backend_id: of this one only. Opens a scope of its own, and a transaction
    for each span of time. Whoever comes second waits.
    """
    policy = window_policy()
    run = _Run(now, min(until or now, now), backend_id, policy)
    report = WindowsReport()
    with role_scope("dataplane"):
        marks = watermarks(now=now)
        run.read_to = backends_read_to(marks)
        silent = {mark.backend_id for mark in marks if mark.is_overdue}
        run.said_to = {key: moment for key, moment in run.read_to.items() if key not in silent}
        for _ in range(MAX_ROUNDS):
            with transaction.atomic(using=scope_alias()):
                _lock()
                due = run.next_due()
                if not due:
                    break
                report += run.compute(due)
        explain_by_late_records(now=now)
    return report


@dataclass(frozen=True, slots=True)
class _Due:
    """A window that is to be computed: its row when it has one."""

    backend_id: UUID
    window: Cut
    row: ControlWindow | None


class _Run:
    """One run over all backends, round by round: first the windows that are there, then new ones."""

    def __init__(self, now: datetime, until: datetime, backend_id: UUID | None, policy: WindowPolicy) -> None:
        self.now, self.until, self.backend_id, self.policy = now, until, backend_id, policy
        # Until when feeds are relied on, and until when they have really been read.
        self.read_to: dict[UUID, datetime] = {}
        self.said_to: dict[UUID, datetime] = {}
        self._looked_to: datetime | None = None
        self._resume: dict[UUID, datetime] = {}
        self._is_recomputed = False

    def next_due(self) -> list[_Due]:
        if not self._is_recomputed:
            due = self._next_written()
            if due:
                return due
            self._is_recomputed = True
        return self._next_cut()

    def _next_written(self) -> list[_Due]:
        rows = ControlWindow.objects.filter(state=WindowState.PROVISIONAL, to_at__lte=self.until)
        if self.backend_id:
            rows = rows.filter(backend_id=self.backend_id)
        if self._looked_to:
            rows = rows.filter(to_at__gt=self._looked_to)
        settled = Q(to_at__lte=self.now - SETTLED_AFTER)
        is_due = Q(to_at__gt=self.now - FRESH) | settled & ~Q(backend_id__in=list(self.read_to))
        for backend_id in self.read_to:
            is_due |= Q(backend_id=backend_id, to_at__lte=self._closable(backend_id))
        found = list(rows.filter(is_due).order_by("to_at")[:MAX_WINDOWS])
        found = [row for row in found if row.to_at <= found[0].to_at + SPAN]
        if found:
            self._looked_to = found[-1].to_at
        return [
            _Due(row.backend_id, Cut(row.incarnation, row.from_at, row.to_at, is_over=True), row)
            for row in found
        ]

    def _next_cut(self) -> list[_Due]:
        """Windows behind the last ones that are over. A backend is done when nothing new is behind."""
        due: list[_Due] = []
        while not due:
            reaches = next_reaches(
                until=self.until,
                span=SPAN,
                backend_id=self.backend_id,
                resume=self._resume,
                first_at=self.now - FIRST_REACH,
            )
            if not reaches:
                break
            for reach, samples in samples_between(reaches):
                self._resume[reach.backend_id] = self.until if reach.is_last else samples[-1].read_at
                windows = cut(samples, window_s=self.policy.window_s, now=self.now)
                due += [_Due(reach.backend_id, window, None) for window in windows]
        return due

    def _closable(self, backend_id: UUID) -> datetime:
        settled = self.now - SETTLED_AFTER
        return min(settled, self.read_to[backend_id]) if backend_id in self.read_to else settled

    def compute(self, due: Sequence[_Due]) -> WindowsReport:
        due = sorted(due, key=lambda one: (str(one.backend_id), one.window.to_at))
        by_backend = {key: list(group) for key, group in groupby(due, key=lambda one: one.backend_id)}
        for backend_id, windows in by_backend.items():
            self._open_unconfirmed(backend_id, [one.window for one in windows if one.window.is_over])
        lines = dict(_lines(by_backend))
        found = metered(lines, with_feed=self.read_to.keys(), call_timeout=self.policy.call_timeout)
        rows: list[ControlWindow] = []
        for backend_id, windows in by_backend.items():
            rows += self._backend_rows(
                backend_id, windows, lines.get(backend_id, ()), found.get(backend_id, Metered())
            )
        self._write(rows)
        closed = [row for row in rows if row.state == WindowState.CLOSED]
        return WindowsReport(len(rows), len(closed), sum(_unexplained(row) for row in closed))

    def _open_unconfirmed(self, backend_id: UUID, windows: Sequence[Cut]) -> None:
        """What no record confirms, in windows of which the feeds have said all. It also keeps records of the
        backend from coming in until they are closed, so that what comes after is late."""
        said_to = min(self._closable(backend_id), self.said_to.get(backend_id, NEVER))
        ends = [window.to_at for window in windows if window.to_at <= said_to]
        if ends:
            closed = ControlWindow.objects.filter(backend_id=backend_id, state=WindowState.CLOSED)
            last = closed.order_by("-to_at").values_list("to_at", flat=True).first()
            from_at = last or min(window.from_at for window in windows)
            open_gateway_only(backend_id=backend_id, from_at=from_at, to_at=max(ends), now=self.now)

    def _backend_rows(
        self, backend_id: UUID, due: Sequence[_Due], samples: Sequence[Sample], found: Metered
    ) -> Iterator[ControlWindow]:
        before: ControlWindow | None = None
        are_closed = not ControlWindow.objects.filter(
            backend_id=backend_id, state=WindowState.PROVISIONAL, to_at__lte=due[0].window.from_at
        ).exists()
        places = {sample.read_at: place for place, sample in enumerate(samples)}
        for one in due:
            window = one.window
            are_closed = are_closed and window.is_over and window.to_at <= self._closable(backend_id)
            first, last = places.get(window.from_at), places.get(window.to_at)
            if first is None or last is None:
                # Its samples are gone: it stays as it was.
                if one.row is not None and are_closed:
                    one.row.state = WindowState.CLOSED
                    yield one.row
                continue
            if before is None or (before.incarnation, before.to_at) != (window.incarnation, window.from_at):
                before = _before(backend_id, window)
            totals = window_totals(
                samples=samples[first : last + 1],
                first_place=first,
                found=found,
                carried=_carried(before) if before else None,
            )
            state = WindowState.PROVISIONAL if window.is_over else WindowState.OPEN
            row = _row(one, totals, WindowState.CLOSED if are_closed else state, self.now)
            yield row
            before = row

    def _write(self, rows: Sequence[ControlWindow]) -> None:
        ControlWindow.objects.bulk_create(
            rows,
            update_conflicts=True,
            unique_fields=["backend", "incarnation", "from_at"],
            update_fields=_FIELDS,
        )
        closed = [row for row in rows if row.state == WindowState.CLOSED and _unexplained(row)]
        ids = {
            (backend_id, incarnation, from_at): id_
            for backend_id, incarnation, from_at, id_ in ControlWindow.objects.filter(
                backend_id__in={row.backend_id for row in closed},
                from_at__in=[row.from_at for row in closed],
            ).values_list("backend_id", "incarnation", "from_at", "id")
        }
        SuspenseItem.objects.bulk_create(
            (
                SuspenseItem(
                    kind=SuspenseKind.COUNTER,
                    backend_id=row.backend_id,
                    window_id=ids[row.backend_id, row.incarnation, row.from_at],
                    event_at=row.to_at,
                    prompt_tokens=row.suspense_prompt_tokens,
                    completion_tokens=row.suspense_completion_tokens,
                    opened_at=self.now,
                )
                for row in closed
            ),
            ignore_conflicts=True,
        )


def _lock() -> None:
    with connections[scope_alias()].cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('control_windows', 0))")


def _lines(by_backend: Mapping[UUID, Sequence[_Due]]) -> Iterator[tuple[UUID, list[Sample]]]:
    reaches = [
        Reach(backend_id, due[0].window.from_at, due[-1].window.to_at, is_last=False)
        for backend_id, due in by_backend.items()
    ]
    for reach, samples in samples_between(reaches):
        yield reach.backend_id, samples


def _before(backend_id: UUID, window: Cut) -> ControlWindow | None:
    return ControlWindow.objects.filter(
        backend_id=backend_id, incarnation=window.incarnation, to_at=window.from_at
    ).first()


def _carried(before: ControlWindow) -> tuple[Carried, Carried]:
    return (
        Carried(before.carried_prompt_low, before.carried_prompt_high),
        Carried(before.carried_completion_low, before.carried_completion_high),
    )


def _row(due: _Due, totals: Totals, state: WindowState, now: datetime) -> ControlWindow:
    window, prompt, completion = due.window, totals.prompt, totals.completion
    return ControlWindow(
        id=due.row.id if due.row else uuid7(),
        backend_id=due.backend_id,
        incarnation=window.incarnation,
        from_at=window.from_at,
        to_at=window.to_at,
        state=state,
        attempts=totals.attempts,
        matched_attempts=totals.matched_attempts,
        counter_prompt_tokens=prompt.counter,
        counter_completion_tokens=completion.counter,
        matched_prompt_tokens=prompt.matched,
        matched_completion_tokens=completion.matched,
        explained_prompt_tokens=prompt.explained,
        explained_completion_tokens=completion.explained,
        suspense_prompt_tokens=prompt.suspense,
        suspense_completion_tokens=completion.suspense,
        causes=totals.causes,
        carried_prompt_low=prompt.carried.low,
        carried_prompt_high=prompt.carried.high,
        carried_completion_low=completion.carried.low,
        carried_completion_high=completion.carried.high,
        computed_at=now,
    )


def _unexplained(row: ControlWindow) -> int:
    return abs(row.suspense_prompt_tokens) + abs(row.suspense_completion_tokens)
