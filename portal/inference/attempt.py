"""The record of one attempt while it runs."""

import time
from uuid import UUID

from models_catalog.engines import UsageReport
from portal.inference import measures
from portal.inference.snapshot import Route
from quotas.metering.facts import MAX_TOKENS
from quotas.models import AttemptOutcome
from quotas.settlement import AttemptEnd


class AttemptRecord:
    def __init__(self, attempt_id: UUID) -> None:
        self.id = attempt_id
        self.outcome = AttemptOutcome.BACKEND_FAILED
        self.http_status: int | None = None
        self.wire_id = ""
        self._started_s = time.monotonic()
        self.ttft_s: float | None = None

    def first_byte(self, route: Route) -> None:
        self.ttft_s = self.elapsed_s
        measures.first_byte_seconds(route.backend_code).observe(self.ttft_s)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started_s

    def end(self, report: UsageReport | None) -> AttemptEnd:
        """As it ended, with what the backend reported last."""
        return AttemptEnd(
            id=self.id,
            outcome=self.outcome.value,
            http_status=self.http_status,
            ttft_ms=None if self.ttft_s is None else int(self.ttft_s * 1000),
            duration_ms=int(self.elapsed_s * 1000),
            wire_id=self.wire_id,
            prompt_tokens=_storable(report.prompt_tokens) if report else None,
            completion_tokens=_storable(report.completion_tokens) if report else None,
        )


def _storable(tokens: int) -> int:
    # A backend's absurd count must not keep the call from being settled.
    return min(max(tokens, 0), MAX_TOKENS)
