"""Reconciliation as a whole, by hand: what the tasks do one after the other, without reading feeds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from quotas.reconciliation.corrections import CorrectionReport, post_due_corrections
from quotas.reconciliation.matching import match_again
from quotas.reconciliation.policy import correction_policy
from quotas.reconciliation.windows.operations import WindowsReport, reconcile_windows

MAX_CORRECTIONS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class RunReport:
    """judged: attempts whose records were looked at again."""

    judged: int
    corrections: CorrectionReport
    windows: WindowsReport


def reconcile(*, now: datetime, until: datetime | None = None, backend_id: UUID | None = None) -> RunReport:
    """Judge early records anew, post what is due, compute windows and close them. Safe to do again.

    until: no window that ends later; backend_id: windows of this one only. Opens scopes of its own.
    """
    judged = match_again(now=now, policy=correction_policy())
    corrections = post_due_corrections(now=now, limit=MAX_CORRECTIONS)
    return RunReport(judged, corrections, reconcile_windows(now=now, until=until, backend_id=backend_id))
